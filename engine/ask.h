// ask and compress: where the engine (model + compressor) and the store meet, for everything above both.
//
// A request names a document and a prompt as token ids and how to read; prepare() resolves it to a plan and its cache
// id without any model work; ask() finds the entry or reads the document and stores it, then answers from what is
// stored. One request at a time per Model (its Transformer is used by one thread at a time); stores may be shared.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cache_store/store.h"
#include "compressor/reader.h"
#include "model/generate.h"
#include "model/model.h"

namespace finchkv::engine {

/// How the entry is kept where this request is the one that stores it; what is there already stays as it is.
struct Keeping {
  std::string label;         ///< at most 256 bytes
  std::uint64_t ttl_ms = 0;  ///< 0: the store's setting
  bool pinned = false;
  /// kShared: every tenant finds it; storing it needs the right to publish.
  cache_store::Sharing sharing = cache_store::Sharing::kPrivate;
  bool zstd_tensors = false;  ///< smaller on disk where that helps, several times slower to read
};

/// The name that identities have for a device's arithmetic.
[[nodiscard]] cache_store::NumericClass named_class(kernels::NumericClass numeric);

struct Request {
  std::vector<model::TokenId> document;
  std::vector<model::TokenId> prompt;
  std::string reader = "chunks";
  std::string policy = "finch-span";
  std::optional<std::int64_t> keep;
  std::optional<double> ratio;
  std::optional<std::int64_t> chunk;
  std::uint64_t seed = 0;
  DType kv_dtype = DType::kBF16;
  cache_store::NumericClass numeric = cache_store::NumericClass::kFast;
  Keeping keeping;
  bool refresh = false;              ///< read again and replace the entry
  bool keep_document_tokens = true;  ///< store the document's ids beside the entry
  std::int64_t answer_tokens = 0;    ///< room to leave for the answer: at least the max_tokens given to ask()
};

/// What an entry is made from, and its name.
struct Named {
  cache_store::CacheIdentity identity;
  cache_store::CacheId id;
};

/// A request with everything resolved: what will be done, and the names of its result. Owns its token ids.
struct Prepared {
  Request request;
  compressor::Plan plan;
  Named own;     ///< under the tenant's key
  Named shared;  ///< made without a key: what every tenant can look for; the default tenant's are the same

  /// The one that this request would store.
  [[nodiscard]] const Named& target() const {
    return request.keeping.sharing == cache_store::Sharing::kShared ? shared : own;
  }

  Prepared() = default;
  Prepared(const Prepared&) = delete;  // plan points into request
  Prepared& operator=(const Prepared&) = delete;
};

/// invalid_argument as compressor::resolve_plan. Needs no weights.
[[nodiscard]] Result<std::unique_ptr<Prepared>> prepare(Request request, const model::Model& model,
                                                        const cache_store::Tenant& tenant);

struct Timings {  ///< milliseconds; 0 where a step did not happen
  double lookup = 0;
  double reload = 0;
  double compress = 0;
  double store = 0;
  double decode = 0;
  std::chrono::steady_clock::time_point first_token;
};

/// An entry, wherever it came from.
struct Obtained {
  /// As it is after storing (quantised where asked). Without layers where ask() found the entry and took it straight to
  /// the device.
  KvSet set;
  std::uint64_t kept = 0;   ///< the most entries of a layer
  cache_store::CacheId id;  ///< the tenant's own entry, or the shared one
  bool hit = false;
  std::uint64_t stored_bytes = 0;  ///< 0 without a store
  Timings ms;
};

/// Finds the tenant's own entry, else a shared one, or calls `weights` (which makes model.transformer() usable), reads
/// the document and stores it. A found entry that is damaged, or was evicted meanwhile, is read again. A request to
/// share is not content with a private entry: one that this engine computed is published as it stands. `store` null:
/// nothing is looked up or stored; the set still passes through the storage dtype, so answers do not depend on whether
/// there is a store. corrupt never comes from a damaged entry here; resource_exhausted and permission_denied from
/// storing are returned.
[[nodiscard]] Result<Obtained> obtain(const Prepared& prepared, model::Model& model, cache_store::Store* store,
                                      const std::function<Status()>& weights, const compressor::Progress& progress);

/// obtain(), then the answer to the prompt. invalid_argument when the model is another than prepare() was given, when
/// its device computes in another class than the request asks for, or when max_tokens passes request.answer_tokens.
struct Asked {
  Obtained entry;
  model::Answer answer;
};
[[nodiscard]] Result<Asked> ask(const Prepared& prepared, model::Model& model, cache_store::Store* store,
                                const std::function<Status()>& weights, const compressor::Progress& progress,
                                const model::GenerateOptions& generate);

}  // namespace finchkv::engine
