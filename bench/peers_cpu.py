#!/usr/bin/env python3
"""Peers of bench_cpu on the same GGUF file: llama.cpp, and transformers in bfloat16.

usage: peers_cpu.py llama|transformers MODEL.gguf [--threads N]      needs: llama-cpp-python; torch, transformers, gguf
Prints one JSON object; each figure is the best of three after a warm-up. The peers run in processes of their own because
their thread pools get in each other's way.
"""
import argparse
import json
import os
import time


def ids(n):
    return [(i * 7919) % 40000 + 100 for i in range(n)]


def best(work, times):
    work()
    return min(timed(work) for _ in range(times))


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def llama(path, threads):
    import llama_cpp

    model = llama_cpp.Llama(path, n_ctx=4096 + 64, n_batch=2048, n_ubatch=512, n_threads=threads,
                            n_threads_batch=threads, verbose=False)
    result = {"version": llama_cpp.__version__}

    def prefill(n):
        model.reset()
        model.eval(ids(n))

    result["prefill_2048_s"] = best(lambda: prefill(2048), 3)
    result["prefill_4096_s"] = best(lambda: prefill(4096), 1)
    for kept in (128, 2048):
        prefill(kept)
        result[f"decode_ms_at_{kept}"] = best(lambda: model.eval([5]), 20) * 1e3
    return result


def transformers_bf16(path, threads):
    import torch
    import transformers

    torch.set_grad_enabled(False)
    torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        os.path.dirname(path) or ".", gguf_file=os.path.basename(path), dtype=torch.bfloat16)
    tokens = torch.tensor([ids(2048)])
    return {"version": f"{transformers.__version__}, torch {torch.__version__}",
            "prefill_2048_s": best(lambda: model(tokens, logits_to_keep=1), 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("peer", choices=["llama", "transformers"])
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    run = llama if args.peer == "llama" else transformers_bf16
    print(json.dumps(run(args.model, args.threads)))


if __name__ == "__main__":
    main()
