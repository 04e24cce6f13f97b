#!/usr/bin/env python3
"""Makes tests/data/quants.gguf: random blocks of every ggml tensor type that finchkv reads, and the f32 values that
gguf-py, ggml's own Python package, gives for them.

    python3 scripts/make_quant_golden.py tests/data/quants.gguf        needs numpy and gguf (both on PyPI)

For each type T the file holds a tensor "T" (2 rows of 2 blocks; plain types: 2 rows of 48 elements) and a tensor
"T.f32" with its values. Block bytes are random, so every bit of every field is exercised; only the f16 scales are
chosen (random bits would mostly be absurd, some NaN): normal, negative, subnormal and zero ones. Nothing depends on the
time or the machine: the same versions of numpy and gguf write the same bytes.
"""

import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T, GGUFWriter, quants

# Where the f16 fields of a block are, in bytes from its start.
F16_FIELDS = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.IQ4_NL: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_XS: [0],
}
ROWS, BLOCKS_PER_ROW, PLAIN_ROW = 2, 2, 48


def quantised(kind: T, rng: np.random.Generator) -> np.ndarray:
    size = GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, (ROWS * BLOCKS_PER_ROW, size), dtype=np.uint8)
    for number, field in enumerate(F16_FIELDS[kind]):
        scale = rng.uniform(0.001, 0.3, len(blocks)).astype(np.float16)
        scale[1] = -scale[1]
        scale[2] = np.float16(6e-8) if number == 0 else np.float16(0)  # the smallest subnormal
        blocks[:, field:field + 2] = scale.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(ROWS, -1)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: make_quant_golden.py FILE.gguf")
    rng = np.random.default_rng(20240607)
    out = GGUFWriter(sys.argv[1], "quant-golden")
    tensors = {}
    for kind in (T.F32, T.F16, T.BF16):
        values = rng.normal(0, 1, (ROWS, PLAIN_ROW)).astype(np.float32)
        values[0, :4] = [0.0, -0.0, 1e-7, -65504.0]
        raw = quants.quantize(values, kind)
        tensors[kind] = raw, quants.dequantize(raw, kind)
    for kind in F16_FIELDS:
        raw = quantised(kind, rng)
        tensors[kind] = raw, quants.dequantize(raw, kind)
    for kind, (raw, values) in tensors.items():
        assert np.isfinite(values).all(), kind
        plain = kind in (T.F32, T.F16)
        out.add_tensor(kind.name, raw, raw_dtype=None if plain else kind)
        out.add_tensor(kind.name + ".f32", np.ascontiguousarray(values, dtype=np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    main()
