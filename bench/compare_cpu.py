#!/usr/bin/env python3
"""Runs finchkv beside its peers on this machine and prints the ratios as a table.

usage: compare_cpu.py --model FILE.gguf [--build build/release] [--threads N] [--rounds 3] [--peer-python PYTHON] [--json FILE]
Each round runs every program once, one after the other; a row's figures are medians over the rounds, and so is its ratio,
which is taken within each round: the machine's speed may drift between rounds. Peers that are not installed are left out.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        print(f"left out: {' '.join(map(str, command[:3]))} ...: {reason}", file=sys.stderr)
        return None
    return done.stdout


def finchkv_bench(args):
    out = run([args.build / "bin/bench_cpu", "--benchmark_format=json", "--model", args.model, "--threads", str(args.threads)])
    if out is None:
        sys.exit(1)
    ms = {b["name"].removesuffix("/real_time"): b["real_time"] for b in json.loads(out)["benchmarks"]}
    return {"prefill_2048_s": ms["prefill/2048"] / 1e3, "compress_4096_s": ms["compress/finch-span/4096/512/128"] / 1e3,
            "decode_ms_at_128": ms["decode_step/128"], "decode_ms_at_2048": ms["decode_step/2048"]}


def finchkv_hit(args):
    """first_token of a hit: 4,096 document tokens read before, 22 prompt tokens, 128 kept, bf16, in a new process."""
    tokens = [(i * 7919) % 40000 + 100 for i in range(4096)]
    with tempfile.TemporaryDirectory() as folder:
        doc, prompt = pathlib.Path(folder, "doc.json"), pathlib.Path(folder, "prompt.json")
        doc.write_text(json.dumps(tokens))
        prompt.write_text(json.dumps(tokens[:22]))
        command = [args.build / "bin/finchkv", "ask", "--model", args.model, "--store", folder + "/store", "--doc-tokens", doc,
                   "--prompt-tokens", prompt, "--keep", "128", "--max-tokens", "8", "--threads", str(args.threads), "--json", "--quiet"]
        if run(command) is None:
            sys.exit(1)
        hits = [json.loads(run(command)) for _ in range(5)]
        assert all(h["hit"] for h in hits)
        return statistics.median(h["ms"]["first_token"] for h in hits)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--build", type=pathlib.Path, default=HERE.parent / "build/release")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()

    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.M)
    present = [f for f in FEATURES if flags and f in flags.group(1).split()]
    name = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.M)
    machine = f"{name.group(1) if name else 'unknown processor'}, {args.threads} threads; {', '.join(present)}"

    rounds = []
    for _ in range(args.rounds):
        one = {"finchkv": finchkv_bench(args)}
        one["finchkv"]["hit_first_token_ms"] = finchkv_hit(args)
        for peer in ("llama", "transformers"):
            out = run([args.peer_python, HERE / "peers_cpu.py", peer, args.model, "--threads", str(args.threads)])
            if out is not None:
                one[peer] = json.loads(out.splitlines()[-1])
        rounds.append(one)

    def row(title, ours, peer, theirs, ratio):
        values = [(ours(r["finchkv"]), theirs(r[peer]), ratio(r["finchkv"], r[peer])) for r in rounds if peer in r]
        if not values:
            return None
        median = [statistics.median(v[i] for v in values) for i in range(3)]
        return {"title": title, "finchkv": median[0], "peer": peer, "theirs": median[1], "ratio": median[2]}

    rows = [r for r in (
        row("prefill 2,048 (tok/s)", lambda f: 2048 / f["prefill_2048_s"], "transformers", lambda p: 2048 / p["prefill_2048_s"],
            lambda f, p: p["prefill_2048_s"] / f["prefill_2048_s"]),
        row("prefill 2,048 (tok/s)", lambda f: 2048 / f["prefill_2048_s"], "llama", lambda p: 2048 / p["prefill_2048_s"],
            lambda f, p: p["prefill_2048_s"] / f["prefill_2048_s"]),
        row("compress 4,096 vs prefill 2,048 (tok/s)", lambda f: 4096 / f["compress_4096_s"], "transformers",
            lambda p: 2048 / p["prefill_2048_s"], lambda f, p: 2 * p["prefill_2048_s"] / f["compress_4096_s"]),
        row("decode step at 128 (ms)", lambda f: f["decode_ms_at_128"], "llama", lambda p: p["decode_ms_at_128"],
            lambda f, p: p["decode_ms_at_128"] / f["decode_ms_at_128"]),
        row("hit to first token vs prefill 4,096 (ms)", lambda f: f["hit_first_token_ms"], "llama",
            lambda p: p["prefill_4096_s"] * 1e3, lambda f, p: p["prefill_4096_s"] * 1e3 / f["hit_first_token_ms"]),
    ) if r]
    print(f"{machine}; medians of {args.rounds} rounds\n")
    print("| | finchkv | peer | ratio |\n|---|---|---|---|")
    for r in rows:
        print(f"| {r['title']} | {r['finchkv']:.1f} | {r['peer']} {r['theirs']:.1f} | {r['ratio']:.2f}x |")
    memory = [json.loads(run([args.build / "bin/bench_memory", args.model, "32768", "512", "1024", compute]) or "null")
              for compute in ("bf16", "f32")]
    print("\nPeak memory of compressing 32,768 tokens (chunk 512, keep 1,024) above what is held after loading: " +
          ", ".join(f"{m['above_mb']:.0f} MB in {m['compute']}" for m in memory if m))
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "rows": rows, "rounds": rounds, "memory": memory}, indent=1))


if __name__ == "__main__":
    main()
