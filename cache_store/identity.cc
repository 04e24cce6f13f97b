#include "cache_store/identity.h"

#include <algorithm>
#include <cstring>

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <fmt/format.h>

#include "cache_store/identity.capnp.h"

namespace finchkv::cache_store {
namespace {

constexpr std::size_t kMaxName = 64;
constexpr std::size_t kMaxAdapters = 64;
constexpr std::size_t kMaxParameters = 256;
constexpr std::size_t kMaxIdentityBytes = 64 << 10;  // 256 parameters and 64 adapters with the longest names fit
constexpr std::uint64_t kMaxDocTokens = (std::uint64_t{1} << 31) - 1;  // positions are int32
constexpr std::string_view kIdPrefix{"finchkv-id-1\0", 13};

bool is_name(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  };
  return !name.empty() && name.size() <= kMaxName && std::all_of(name.begin(), name.end(), allowed);
}

Status check_name(std::string_view field, std::string_view name) {
  if (is_name(name)) return Status::ok();
  return Status::invalid_argument(
      fmt::format("the identity's {} must be 1 to {} of a-z, 0-9, dot, underscore and dash", field, kMaxName));
}

bool is_zero(const Sha256& hash) {
  return std::all_of(hash.begin(), hash.end(), [](std::uint8_t b) { return b == 0; });
}

capnp::Data::Reader as_data(const Sha256& hash) { return {hash.data(), hash.size()}; }

bool read_hash(capnp::Data::Reader data, Sha256& hash) {
  if (data.size() != hash.size()) return false;
  std::copy(data.begin(), data.end(), hash.begin());
  return true;
}

std::string as_string(capnp::Text::Reader text) { return {text.begin(), text.size()}; }

Status corrupt(std::string_view what) {
  return Status::corrupt(fmt::format("these bytes are no cache identity: {}", what));
}

Status newer(std::string_view field, std::uint32_t value) {
  return Status::unsupported(
      fmt::format("this finchkv knows no {} {} in a cache identity: use the newer one that made it", field, value));
}

Result<CacheIdentity> read_identity(schema::CacheIdentity::Reader in) {
  CacheIdentity out;
  out.version = in.getVersion();
  if (out.version != kIdentityVersion) {
    return Status::unsupported(
        fmt::format("identity version {} is not {}: a newer finchkv made it", out.version, kIdentityVersion));
  }
  out.kind = static_cast<EntryKind>(in.getKind());
  if (entry_kind_name(out.kind) == "unknown") return newer("kind", in.getKind());
  out.numeric = static_cast<NumericClass>(in.getNumericClass());
  if (numeric_class_name(out.numeric) == "unknown") return newer("numeric class", in.getNumericClass());
  if (in.getStorageDtype() > static_cast<std::uint16_t>(DType::kQ4)) {
    return newer("storage dtype", in.getStorageDtype());
  }
  out.storage = static_cast<DType>(in.getStorageDtype());
  out.policy_revision = in.getPolicyRevision();
  out.model_code_revision = in.getModelCodeRevision();
  out.doc_tokens = in.getDocTokens();
  out.prompt_tokens = in.getPromptTokens();
  out.keep = in.getKeep();
  out.chunk = in.getChunk();
  out.seed = in.getSeed();
  if (!read_hash(in.getModelFingerprint(), out.model_fingerprint) ||
      !read_hash(in.getWeightsFingerprint(), out.weights_fingerprint) ||
      !read_hash(in.getTokenizerFingerprint(), out.tokenizer_fingerprint) ||
      !read_hash(in.getDocumentHash(), out.document_hash) || !read_hash(in.getPromptHash(), out.prompt_hash)) {
    return corrupt("a fingerprint or hash is not 32 bytes");
  }
  if (in.getAdapters().size() > kMaxAdapters || in.getParameters().size() > kMaxParameters) {
    return corrupt("too many adapters or parameters");
  }
  for (const auto adapter : in.getAdapters()) {
    AdapterIdentity one;
    if (!read_hash(adapter.getFingerprint(), one.fingerprint)) return corrupt("an adapter's fingerprint");
    one.scale_ppm = adapter.getScalePpm();
    out.adapters.push_back(one);
  }
  out.reader = as_string(in.getReader());
  out.policy = as_string(in.getPolicy());
  for (const auto parameter : in.getParameters()) {
    out.parameters.emplace(as_string(parameter.getName()), parameter.getValue());
  }
  return out;
}

}  // namespace

std::string_view entry_kind_name(EntryKind kind) {
  switch (kind) {
    case EntryKind::kPromptGuided: return "prompt-guided";
    case EntryKind::kDocument: return "document";
    case EntryKind::kPassage: return "passage";
  }
  return "unknown";
}

std::string_view numeric_class_name(NumericClass numeric) {
  switch (numeric) {
    case NumericClass::kReference: return "reference";
    case NumericClass::kFast: return "fast";
    case NumericClass::kFp8: return "fp8";
  }
  return "unknown";
}

Result<CacheId> CacheId::from_hex(std::string_view hex) {
  const auto raw = finchkv::from_hex(hex);
  CacheId id;
  if (!raw || raw->size() != id.bytes.size()) {
    return Status::invalid_argument(fmt::format("\"{}\" is not a cache id of 64 hex digits", hex.substr(0, 80)));
  }
  std::memcpy(id.bytes.data(), raw->data(), raw->size());
  return id;
}

Status CacheIdentity::validate() const {
  if (version != kIdentityVersion) {
    return Status::invalid_argument(fmt::format("identity version {} is not {}", version, kIdentityVersion));
  }
  if (entry_kind_name(kind) == "unknown") return Status::invalid_argument("the identity's kind is unknown");
  if (numeric_class_name(numeric) == "unknown") {
    return Status::invalid_argument("the identity's numeric class is unknown");
  }
  if (dtype_name(storage) == "unknown") return Status::invalid_argument("the identity's storage dtype is unknown");
  FINCHKV_RETURN_IF_ERROR(check_name("reader", reader));
  FINCHKV_RETURN_IF_ERROR(check_name("policy", policy));
  for (const auto& [name, value] : parameters) FINCHKV_RETURN_IF_ERROR(check_name("parameter name", name));
  if (adapters.size() > kMaxAdapters || parameters.size() > kMaxParameters) {
    return Status::invalid_argument(
        fmt::format("an identity has at most {} adapters and {} parameters", kMaxAdapters, kMaxParameters));
  }
  if (doc_tokens == 0) return Status::invalid_argument("the identity's document has no tokens");
  if (doc_tokens > kMaxDocTokens) {
    return Status::invalid_argument(
        fmt::format("the identity's document of {} tokens is longer than {}", doc_tokens, kMaxDocTokens));
  }
  if (keep == 0) return Status::invalid_argument("the identity's keep is 0: resolve the budget first");
  if (kind == EntryKind::kPromptGuided && prompt_tokens == 0) {
    return Status::invalid_argument("a prompt-guided identity needs a prompt of at least one token");
  }
  if (prompt_tokens == 0 && !is_zero(prompt_hash)) {
    return Status::invalid_argument("an identity without prompt tokens must leave the prompt hash zero");
  }
  if (kind != EntryKind::kPromptGuided && prompt_tokens != 0) {
    return Status::invalid_argument(
        fmt::format("a {} identity ignores the prompt: leave its hash and count zero", entry_kind_name(kind)));
  }
  return Status::ok();
}

Sha256 token_hash(std::span<const std::int32_t> ids, const Tenant& tenant) {
  std::vector<std::byte> bytes(ids.size() * 4);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto id = static_cast<std::uint32_t>(ids[i]);
    for (std::size_t b = 0; b < 4; ++b) bytes[4 * i + b] = static_cast<std::byte>(id >> (8 * b));
  }
  return hmac_sha256(tenant.key, {bytes});
}

std::vector<std::byte> canonical_encoding(const CacheIdentity& identity) {
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<schema::CacheIdentity>();
  out.setVersion(identity.version);
  out.setKind(static_cast<std::uint16_t>(identity.kind));
  out.setNumericClass(static_cast<std::uint16_t>(identity.numeric));
  out.setStorageDtype(static_cast<std::uint16_t>(identity.storage));
  out.setPolicyRevision(identity.policy_revision);
  out.setModelCodeRevision(identity.model_code_revision);
  out.setDocTokens(identity.doc_tokens);
  out.setPromptTokens(identity.prompt_tokens);
  out.setKeep(identity.keep);
  out.setChunk(identity.chunk);
  out.setSeed(identity.seed);
  out.setModelFingerprint(as_data(identity.model_fingerprint));
  out.setWeightsFingerprint(as_data(identity.weights_fingerprint));
  out.setTokenizerFingerprint(as_data(identity.tokenizer_fingerprint));
  out.setDocumentHash(as_data(identity.document_hash));
  out.setPromptHash(as_data(identity.prompt_hash));
  auto adapters = out.initAdapters(static_cast<unsigned>(identity.adapters.size()));
  for (unsigned i = 0; i < adapters.size(); ++i) {
    adapters[i].setFingerprint(as_data(identity.adapters[i].fingerprint));
    adapters[i].setScalePpm(identity.adapters[i].scale_ppm);
  }
  out.setReader(identity.reader.c_str());
  out.setPolicy(identity.policy.c_str());
  auto parameters = out.initParameters(static_cast<unsigned>(identity.parameters.size()));
  unsigned next = 0;
  for (const auto& [name, value] : identity.parameters) {
    parameters[next].setName(name.c_str());
    parameters[next].setValue(value);
    ++next;
  }
  const kj::Array<capnp::word> canonical = capnp::canonicalize(out.asReader());
  const auto bytes = canonical.asBytes();
  std::vector<std::byte> result(bytes.size());
  std::memcpy(result.data(), bytes.begin(), bytes.size());
  return result;
}

Result<CacheIdentity> decode_identity(std::span<const std::byte> canonical) {
  if (canonical.empty() || canonical.size() % sizeof(capnp::word) != 0 || canonical.size() > kMaxIdentityBytes) {
    return corrupt(fmt::format("{} bytes is not a possible size", canonical.size()));
  }
  try {
    auto words = kj::heapArray<capnp::word>(canonical.size() / sizeof(capnp::word));
    std::memcpy(words.begin(), canonical.data(), canonical.size());
    const kj::ArrayPtr<const capnp::word> segments[] = {words.asPtr()};
    capnp::ReaderOptions limits;
    limits.traversalLimitInWords = 4 * words.size();  // isCanonical reads it once, we once, with room
    limits.nestingLimit = 8;
    capnp::SegmentArrayMessageReader message(segments, limits);
    if (!message.isCanonical()) return corrupt("not in canonical form");
    FINCHKV_ASSIGN_OR_RETURN(CacheIdentity identity, read_identity(message.getRoot<schema::CacheIdentity>()));
    if (const Status valid = identity.validate(); !valid.is_ok()) return corrupt(valid.message());
    // Fields that this program does not know were skipped above; serving such an entry would ignore them.
    const auto again = canonical_encoding(identity);
    if (!std::equal(again.begin(), again.end(), canonical.begin(), canonical.end())) {
      return Status::unsupported("this cache identity has fields that this finchkv does not know: use a newer one");
    }
    return identity;
  } catch (const kj::Exception& e) {
    return corrupt(e.getDescription().cStr());
  }
}

CacheId cache_id(const CacheIdentity& identity, const Tenant& tenant) {
  const auto canonical = canonical_encoding(identity);
  return CacheId{hmac_sha256(tenant.key, {as_byte_span(kIdPrefix), canonical})};
}

}  // namespace finchkv::cache_store
