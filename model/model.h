// Model: everything one GGUF file gives: config, tokenizer, template, fingerprints, and the packed transformer.
//
// open() reads what is cheap; load_weights() packs them for a device, which a look-up in a store does not need.
#pragma once

#include <memory>
#include <string>

#include "base/digest.h"
#include "base/status.h"
#include "kernels/device.h"
#include "model/chat_template.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/tokenizer.h"
#include "model/transformer.h"

namespace finchkv::model {

/// Raised when results of the forward pass change beyond rounding: part of every cache id.
inline constexpr std::uint32_t kModelCodeRevision = 1;

struct ModelOptions {
  std::string fingerprint_memory;  ///< file of remembered weight digests; empty: hash the file every time
  int threads = 0;                 ///< for hashing; 0: all processors
};

class Model {
 public:
  static Result<std::unique_ptr<Model>> open(const std::string& path, const ModelOptions& options);
  /// Packs the weights for `device`; the Model then owns a Transformer on it.
  Status load_weights(std::shared_ptr<kernels::Device> device);
  /// Another replica of the weights, on a device of its own and the caller's: for several devices at once. May be
  /// called from several threads.
  [[nodiscard]] Result<std::unique_ptr<Transformer>> replica(std::shared_ptr<kernels::Device> device) const;

  [[nodiscard]] const GgufFile& file() const { return *file_; }
  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] const Tokenizer& tokenizer() const { return *tokenizer_; }
  [[nodiscard]] ChatTemplate chat_template() const { return template_; }
  [[nodiscard]] const Sha256& model_fingerprint() const { return model_fingerprint_; }
  [[nodiscard]] const Sha256& weights_fingerprint() const { return weights_fingerprint_; }
  [[nodiscard]] const Sha256& tokenizer_fingerprint() const { return tokenizer_fingerprint_; }
  /// Null before load_weights().
  [[nodiscard]] Transformer* transformer() const { return transformer_.get(); }

 private:
  Model() = default;
  std::shared_ptr<const GgufFile> file_;
  ModelConfig config_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  ChatTemplate template_ = ChatTemplate::kPlain;
  Sha256 model_fingerprint_{};
  Sha256 weights_fingerprint_{};
  Sha256 tokenizer_fingerprint_{};
  std::unique_ptr<Transformer> transformer_;
};

}  // namespace finchkv::model
