"""From a hit to a DynamicCache ready in torch, beside torch.load(mmap=False) of the same tensors from a warm file.

usage: reload.py [KEPT] [float32|bfloat16] [ROUNDS]

The shape is SmolLM2-135M's (30 layers, 3 KV heads, 64 dimensions); the weights are random, which no time depends on.
The two take turns in one process; medians and minima of wall and of processor time.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers

import finchkv
from finchkv import hf
from finchkv.hf.facts import facts_of


def build(dtype: torch.dtype) -> torch.nn.Module:
    config = transformers.LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=1024, max_position_embeddings=131072, dtype=dtype,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def main() -> None:
    kept = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    dtype = getattr(torch, sys.argv[2] if len(sys.argv) > 2 else "float32")
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 30
    model = build(dtype)
    identity, rope = hf.torch_identity(model), facts_of(model).rope
    assert rope is not None
    layers = [finchkv.PutLayer(*(torch.randn(3, kept, 64).to(dtype) for _ in range(2))) for _ in range(30)]
    with tempfile.TemporaryDirectory() as folder, finchkv.Store(Path(folder) / "kv") as store:
        name = store.put(
            finchkv.PutRequest(
                model=identity.model,
                weights=identity.weights,
                document=[5] * kept,
                layers=layers,
                key_form="pre_rope",
                next_position=kept,
                policy="full",
                rope=rope,
            )  # fmt: skip
        )
        file = str(Path(folder) / "tensors.pt")
        torch.save([(layer.keys, layer.values) for layer in layers], file)
        steps = {
            "get and to_cache": lambda: hf.to_cache(store.get(name), model),
            "get": lambda: store.get(name),
            "torch.load": lambda: torch.load(file, mmap=False),
        }
        wall = {step: [] for step in steps}
        processor = {step: [] for step in steps}
        for _ in range(rounds):
            for step, work in steps.items():
                began, used = time.perf_counter(), time.process_time()
                work()
                wall[step].append((time.perf_counter() - began) * 1e3)
                processor[step].append((time.process_time() - used) * 1e3)
        print(f"{kept} entries, {dtype}: {store.find(name).raw_bytes / 1e6:.1f} MB, {torch.get_num_threads()} threads")
        for step in steps:
            print(
                f"{step:18} wall median {statistics.median(wall[step]):7.1f} min {min(wall[step]):7.1f} ms, "
                f"processor median {statistics.median(processor[step]):7.1f} ms"
            )
        for what, of in (("median", statistics.median), ("min", min)):
            print(f"ratio to torch.load, {what}: {of(wall['get and to_cache']) / of(wall['torch.load']):.2f}")


if __name__ == "__main__":
    main()
