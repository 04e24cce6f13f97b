# The immutable head of an entry and the table of its blocks (docs/formats.md).
@0xd2c8a90b67f4e115;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("finchkv::cache_store::schema");

struct EntryHead {
  headVersion @0 :UInt32;
  identity @1 :Data;            # canonical CacheIdentity
  putIdHigh @2 :UInt64;
  putIdLow @3 :UInt64;
  nLayers @4 :UInt32;
  nKvHeads @5 :UInt32;
  headDim @6 :UInt32;
  originRows @7 :UInt32;
  storageDtype @8 :UInt16;
  decodedDtype @9 :UInt16;
  keyForm @10 :UInt16;
  provenance @11 :UInt16;
  nKept @12 :List(UInt32);      # per layer
  docTokens @13 :UInt64;
  nextPosition @14 :UInt64;
  rope @15 :Rope;
  createdUnixMs @16 :UInt64;
  compressMs @17 :UInt64;
  storedBytes @18 :UInt64;      # of all blocks with the table
  rawBytes @19 :UInt64;         # keys and values, decoded
  hasDocumentTokens @20 :Bool;
  table @21 :BlockRef;          # its digest is the table root: it stands for every block's
  ownTable @22 :Bool;           # since version 2: the blocks are a RocksDB table of their own
  sealed @23 :Bool;             # since version 2: the blocks are sealed; their wrapped data key follows the message
}

struct Rope {
  scaling @0 :Text;
  theta @1 :Float32;
  factor @2 :Float32;
  originalContext @3 :UInt32;
  rotaryDims @4 :UInt32;
  interleaved @5 :Bool;
  attentionFactor @6 :Float32;
  invFreq @7 :List(Float32);
}

struct BlockTable {
  blocks @0 :List(BlockRef);
}

struct BlockRef {
  ordinal @0 :UInt32;
  kind @1 :UInt16;              # 0 table, 1 keys, 2 values, 3 origins, 4 document tokens
  encoding @2 :UInt16;          # 0 as docs/formats.md lays the kind out, 1 that as a zstd frame, 2 delta (origins)
  layer @3 :UInt32;
  storedBytes @4 :UInt64;
  rawBytes @5 :UInt64;          # decoded
  digestHigh @6 :UInt64;        # XXH3-128 of the stored bytes
  digestLow @7 :UInt64;
}
