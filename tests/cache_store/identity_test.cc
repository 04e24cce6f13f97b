#include "cache_store/identity.h"

#include <functional>
#include <set>

#include <gtest/gtest.h>

namespace finchkv::cache_store {
namespace {

const Tenant kNamed{"alice", std::vector<std::byte>(32, std::byte{0x5a})};

CacheIdentity full_identity() {
  CacheIdentity id;
  for (std::uint8_t i = 0; i < 32; ++i) {
    id.model_fingerprint[i] = i;
    id.weights_fingerprint[i] = static_cast<std::uint8_t>(32 + i);
    id.tokenizer_fingerprint[i] = static_cast<std::uint8_t>(64 + i);
    id.document_hash[i] = static_cast<std::uint8_t>(96 + i);
    id.prompt_hash[i] = static_cast<std::uint8_t>(128 + i);
  }
  Sha256 adapter{};
  adapter.fill(0xaa);
  id.adapters = {{adapter, 500000}};
  id.doc_tokens = 4096;
  id.prompt_tokens = 22;
  id.reader = "chunks";
  id.policy = "finch-span";
  id.policy_revision = 1;
  id.model_code_revision = 2;
  id.keep = 128;
  id.chunk = 512;
  id.seed = 42;
  id.parameters = {{"own_score_ppm", 15625}, {"span", 7}};
  id.numeric = NumericClass::kFast;
  id.storage = DType::kBF16;
  return id;
}

CacheIdentity least_identity() {
  CacheIdentity id;
  id.kind = EntryKind::kDocument;
  id.doc_tokens = 1;
  id.keep = 1;
  id.reader = "whole";
  id.policy = "full";
  return id;
}

std::string hex_of(std::span<const std::byte> bytes) {
  return to_hex({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

// Golden: when these change, every stored entry of every user has lost its name. They may only change together with
// kIdentityVersion.
TEST(Identity, GoldenBytesAndIdsOfTheLeast) {
  const CacheIdentity id = least_identity();
  ASSERT_TRUE(id.validate().is_ok());
  EXPECT_EQ(hex_of(canonical_encoding(id)),
            "000000000600090001000000010000000000000000000000000000000000000001000000000000000000000000000000"
            "010000000000000021000000020100002d00000002010000390000000201000045000000020100005100000002010000"
            "5d000000070000005d000000320000005d0000002a0000005d0000000700000000000000000000000000000000000000"
            "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
            "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
            "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
            "000000000000000077686f6c6500000066756c6c000000000000000000000000");
  EXPECT_EQ(cache_id(id, {}).hex(), "77d71315e387b431ca2938511b2847b1c7a7288afbb933ffebdbebe81338fe5e");
  EXPECT_EQ(cache_id(id, kNamed).hex(), "2505affd6ed68fd601dab28425a17fe11e15338eede11a8ee4f9b14cbf8a00fa");
}

TEST(Identity, GoldenBytesAndIdsOfTheFull) {
  const CacheIdentity id = full_identity();
  ASSERT_TRUE(id.validate().is_ok());
  EXPECT_EQ(hex_of(canonical_encoding(id)),
            "000000000800090001000000000001000200000001000000020000000000000000100000000000001600000000000000"
            "800000000000000000020000000000002a0000000000000021000000020100002d000000020100003900000002010000"
            "450000000201000051000000020100005d00000017000000750000003a000000750000005a0000007900000027000000"
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f"
            "303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
            "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f"
            "909192939495969798999a9b9c9d9e9f040000000100010020a10700000000000100000002010000aaaaaaaaaaaaaaaa"
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa6368756e6b73000066696e63682d7370616e000000000000"
            "0800000001000100093d00000000000009000000720000000700000000000000090000002a0000006f776e5f73636f72"
            "655f70706d0000007370616e00000000");
  EXPECT_EQ(cache_id(id, {}).hex(), "b19df644828be1df8e78560f03e51b42ce3c06edf1dd747764cf2f0ed16ae940");
  EXPECT_EQ(cache_id(id, kNamed).hex(), "c3d63afb759969d293bbc39b9c3c682f262c47ed960433b29c2db3f30e1d3ea4");
}

// What --compute fp8 names: the encoding of the full one but for its numeric class, 2.
TEST(Identity, GoldenIdOfFp8) {
  CacheIdentity id = full_identity();
  std::string fast = hex_of(canonical_encoding(id));
  id.numeric = NumericClass::kFp8;
  ASSERT_TRUE(id.validate().is_ok());
  EXPECT_EQ(numeric_class_name(id.numeric), "fp8");
  EXPECT_EQ(hex_of(canonical_encoding(id)), fast.replace(28, 4, "0200"));
  EXPECT_EQ(cache_id(id, {}).hex(), "0bffb96da8368771e2f55262b78db5598e6957362e1b5985a5fd524d83ccb643");
}

TEST(Identity, GoldenTokenHash) {
  const std::vector<std::int32_t> ids = {1, 256, -1, 49151};
  EXPECT_EQ(to_hex(token_hash(ids, {})), "769e91936aa9d3c63638287d4b09856fd62601003574c01ddae5bc353dd93037");
  EXPECT_EQ(to_hex(token_hash(ids, kNamed)), "939ac0ba56562781f1bdb223052a2b0a65b8adad4bf0050ad9a3732dbcafa8e1");
  EXPECT_EQ(to_hex(token_hash({}, {})), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

TEST(Identity, EveryFieldChangesTheId) {
  // One change a field; a field that is added belongs here, and in full_identity with a value other than zero.
  const std::vector<std::function<void(CacheIdentity&)>> changes = {
      [](CacheIdentity& i) { i.version = 2; },
      [](CacheIdentity& i) { i.kind = EntryKind::kPassage; },
      [](CacheIdentity& i) { i.model_fingerprint[31] ^= 1; },
      [](CacheIdentity& i) { i.weights_fingerprint[31] ^= 1; },
      [](CacheIdentity& i) { i.tokenizer_fingerprint[31] ^= 1; },
      [](CacheIdentity& i) { i.adapters.clear(); },
      [](CacheIdentity& i) { i.adapters[0].fingerprint[0] ^= 1; },
      [](CacheIdentity& i) { i.adapters[0].scale_ppm += 1; },
      [](CacheIdentity& i) { i.adapters.push_back(i.adapters[0]); },
      [](CacheIdentity& i) { i.document_hash[0] ^= 1; },
      [](CacheIdentity& i) { i.prompt_hash[0] ^= 1; },
      [](CacheIdentity& i) { i.doc_tokens += 1; },
      [](CacheIdentity& i) { i.prompt_tokens += 1; },
      [](CacheIdentity& i) { i.reader = "whole"; },
      [](CacheIdentity& i) { i.policy = "finch"; },
      [](CacheIdentity& i) { i.policy_revision += 1; },
      [](CacheIdentity& i) { i.model_code_revision += 1; },
      [](CacheIdentity& i) { i.keep += 1; },
      [](CacheIdentity& i) { i.chunk += 1; },
      [](CacheIdentity& i) { i.seed += 1; },
      [](CacheIdentity& i) { i.parameters["span"] = 8; },
      [](CacheIdentity& i) { i.parameters.erase("span"); },
      [](CacheIdentity& i) { i.parameters["more"] = 0; },
      [](CacheIdentity& i) { i.numeric = NumericClass::kReference; },
      [](CacheIdentity& i) { i.numeric = NumericClass::kFp8; },
      [](CacheIdentity& i) { i.storage = DType::kQ4; },
  };
  std::set<std::string> ids = {cache_id(full_identity(), {}).hex()};
  for (std::size_t c = 0; c < changes.size(); ++c) {
    CacheIdentity id = full_identity();
    changes[c](id);
    EXPECT_TRUE(ids.insert(cache_id(id, {}).hex()).second) << "change " << c << " left the id as it was";
  }
  EXPECT_TRUE(ids.insert(cache_id(full_identity(), kNamed).hex()).second) << "the tenant's key";
}

TEST(Identity, DecodesWhatItEncodes) {
  for (const CacheIdentity& id : {full_identity(), least_identity()}) {
    const auto decoded = decode_identity(canonical_encoding(id));
    ASSERT_TRUE(decoded.is_ok()) << decoded.status().message();
    EXPECT_EQ(*decoded, id);
  }
}

TEST(Identity, DecodeRefusesDamage) {
  const auto bytes = canonical_encoding(full_identity());
  EXPECT_EQ(decode_identity({}).status().code(), StatusCode::kCorrupt);
  for (std::size_t n = 0; n < bytes.size(); n += 4) {
    EXPECT_FALSE(decode_identity(std::span(bytes).first(n)).is_ok()) << n;
  }
  auto longer = bytes;
  longer.resize(bytes.size() + 8);
  EXPECT_FALSE(decode_identity(longer).is_ok());
  // Every flipped bit is refused, or is another identity with another encoding.
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    auto flipped = bytes;
    flipped[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    const auto decoded = decode_identity(flipped);
    if (decoded.is_ok()) {
      EXPECT_EQ(canonical_encoding(*decoded), flipped) << bit;
      EXPECT_NE(*decoded, full_identity());
    }
  }
}

TEST(Identity, DecodeRefusesOtherVersions) {
  CacheIdentity id = full_identity();
  id.version = 2;
  EXPECT_EQ(decode_identity(canonical_encoding(id)).status().code(), StatusCode::kUnsupported);
}

TEST(Identity, ValuesOfANewerProgramAreUnsupported) {
  const std::vector<std::function<void(CacheIdentity&)>> changes = {
      [](CacheIdentity& i) { i.kind = static_cast<EntryKind>(9); },
      [](CacheIdentity& i) { i.numeric = static_cast<NumericClass>(9); },
      [](CacheIdentity& i) { i.storage = static_cast<DType>(9); },
  };
  for (const auto& change : changes) {
    CacheIdentity id = full_identity();
    change(id);
    const Status status = decode_identity(canonical_encoding(id)).status();
    EXPECT_EQ(status.code(), StatusCode::kUnsupported) << status.message();
    EXPECT_NE(status.message().find('9'), std::string::npos) << status.message();
  }
}

TEST(Identity, ValidateNamesTheField) {
  const auto refused = [](const std::function<void(CacheIdentity&)>& change, const std::string& word) {
    CacheIdentity id = full_identity();
    change(id);
    const Status status = id.validate();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << word;
    EXPECT_NE(status.message().find(word), std::string::npos) << status.message();
  };
  refused([](CacheIdentity& i) { i.version = 0; }, "version");
  refused([](CacheIdentity& i) { i.kind = static_cast<EntryKind>(9); }, "kind");
  refused([](CacheIdentity& i) { i.numeric = static_cast<NumericClass>(9); }, "numeric class");
  refused([](CacheIdentity& i) { i.storage = static_cast<DType>(9); }, "storage dtype");
  refused([](CacheIdentity& i) { i.reader = ""; }, "reader");
  refused([](CacheIdentity& i) { i.policy = "Finch"; }, "policy");
  refused([](CacheIdentity& i) { i.policy = std::string("a\0b", 3); }, "policy");
  refused([](CacheIdentity& i) { i.parameters[std::string(65, 'x')] = 1; }, "parameter");
  refused([](CacheIdentity& i) { i.doc_tokens = 0; }, "document");
  refused([](CacheIdentity& i) { i.doc_tokens = std::uint64_t{1} << 31; }, "document");
  refused([](CacheIdentity& i) { i.keep = 0; }, "keep");
  refused([](CacheIdentity& i) { i.prompt_tokens = 0; }, "prompt");
  refused([](CacheIdentity& i) { i.kind = EntryKind::kDocument; }, "prompt");
  refused([](CacheIdentity& i) { i.adapters.resize(65); }, "adapters");
}

TEST(CacheId, HexThereAndBack) {
  const CacheId id = cache_id(full_identity(), {});
  EXPECT_EQ(id.hex().size(), 64U);
  EXPECT_EQ(*CacheId::from_hex(id.hex()), id);
  std::string upper = id.hex();
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  EXPECT_EQ(*CacheId::from_hex(upper), id);
  for (const std::string& bad : {std::string(), id.hex().substr(1), id.hex() + "00", "g" + id.hex().substr(1)}) {
    EXPECT_EQ(CacheId::from_hex(bad).status().code(), StatusCode::kInvalidArgument) << bad;
  }
}

TEST(Tenant, Validate) {
  EXPECT_TRUE(Tenant{}.validate().is_ok());
  EXPECT_TRUE(kNamed.validate().is_ok());
  EXPECT_FALSE((Tenant{"", kNamed.key}).validate().is_ok());
  EXPECT_FALSE((Tenant{"alice", {}}).validate().is_ok());
  EXPECT_FALSE((Tenant{"al ice", kNamed.key}).validate().is_ok());
  EXPECT_FALSE((Tenant{std::string(65, 'a'), kNamed.key}).validate().is_ok());
}

}  // namespace
}  // namespace finchkv::cache_store
