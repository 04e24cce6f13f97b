# The hashed encoding of a CacheIdentity (docs/formats.md). The canonical form of this message names an entry, so:
# fields are only ever added, never changed; no defaults, no floats, no text that may be absent; zero in a field added
# later means what was before it.
@0xb1f5c6a4d8e27391;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("finchkv::cache_store::schema");

struct CacheIdentity {
  version @0 :UInt32;
  kind @1 :UInt16;
  numericClass @2 :UInt16;
  storageDtype @3 :UInt16;
  policyRevision @4 :UInt32;
  modelCodeRevision @5 :UInt32;
  docTokens @6 :UInt64;
  promptTokens @7 :UInt64;
  keep @8 :UInt64;
  chunk @9 :UInt64;
  seed @10 :UInt64;
  modelFingerprint @11 :Data;      # 32 bytes each, zeros where there is none
  weightsFingerprint @12 :Data;
  tokenizerFingerprint @13 :Data;
  documentHash @14 :Data;
  promptHash @15 :Data;
  adapters @16 :List(Adapter);     # in the order of application
  reader @17 :Text;
  policy @18 :Text;
  parameters @19 :List(Parameter); # ascending by name, no name twice
}

struct Adapter {
  fingerprint @0 :Data;
  scalePpm @1 :Int64;
}

struct Parameter {
  name @0 :Text;
  value @1 :Int64;
}
