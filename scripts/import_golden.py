#!/usr/bin/env python3
"""Copies reference results into tests/data: GOLDEN_DIR/tiny-*/{model.gguf, golden.json, golden.npz} and smollm2.json.

usage: import_golden.py GOLDEN_DIR      needs: numpy
The arrays of golden.npz become tensors.safetensors (float32), which the tests read without a zip library.
"""
import json
import pathlib
import shutil
import struct
import sys

import numpy as np


def write_safetensors(path, arrays):
    header, offset = {}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            out.write(array.tobytes())


def main():
    source = pathlib.Path(sys.argv[1])
    target = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data"
    for folder in sorted(source.glob("tiny-*")):
        out = target / folder.name
        out.mkdir(parents=True, exist_ok=True)
        for name in ("model.gguf", "golden.json"):
            shutil.copyfile(folder / name, out / name)
        arrays = np.load(folder / "golden.npz")
        write_safetensors(out / "tensors.safetensors",
                          {k: np.ascontiguousarray(arrays[k], dtype=np.float32) for k in arrays.files})
    shutil.copyfile(source / "smollm2.json", target / "smollm2.json")


if __name__ == "__main__":
    main()
