#!/usr/bin/env python3
"""What the arithmetic (--compute f32, bf16, fp8) does to what is kept and to the answers, as a table in Markdown.

usage: compute_quality.py --model FILE.gguf [--build build/release] [--runs cpu:f32 cpu:bf16 cpu:fp8] [--policy finch-span]
                          [--ratios 8 32] [--documents 20] [--words 1700] [--golden tests/data/smollm2.json] [--jobs 1] [--threads N] [--json FILE]
A run is DEVICE:COMPUTE; the first is what the others are compared with. Two kinds of documents:
- made here: each some thousand words of prose about nothing with six facts in it, and a question about one of them. The
  same for everyone: drawn from a generator that starts at the document's number.
- the golden cases (--golden): token ids, with what an f32 reference kept and answered; for the model they were made with.
Per run: the share of kept entries (layer, KV head and position) that are the first run's (the reference's), the mean
log-likelihood of the right answer's tokens, the mean of its difference to the first run with the standard error of that
mean, the share of answers that hold the fact, and the share of greedy answers that are the first run's word for word.
"""
import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent

NAMES = ["Marta Olsen", "Ivo Brandt", "Celia Nakamura", "Tomas Ferrer", "Ruth Adeyemi", "Piet Lindqvist", "Anya Kowal",
         "Hugo Marchetti", "Leila Osman", "Dag Eriksen", "Nora Whitcombe", "Samir Haddad"]
CITIES = ["Lisbon", "Tromso", "Valencia", "Gdansk", "Halifax", "Adelaide", "Nairobi", "Quito", "Sapporo", "Bergen"]
THINGS = ["copper", "walnut", "silver", "canvas", "marble", "velvet", "amber", "granite", "linen", "ivory"]
PLACES = ["cabinet", "drawer", "trunk", "locker", "archive", "vault", "shelf", "chest"]
EVENTS = ["harvest fair", "regatta", "lantern parade", "chess tournament", "flower market", "winter concert"]
MONTHS = ["January", "March", "May", "June", "August", "October", "November"]
SUBJECTS = ["The council", "A visitor", "The gardener", "Most of the town", "The old mill", "A small committee",
            "The bakery", "The river", "An engineer", "The schoolmaster", "The ferry", "Every neighbour"]
VERBS = ["remembered", "described", "avoided", "repaired", "celebrated", "discussed", "ignored", "painted", "measured",
         "crossed"]
OBJECTS = ["the long bridge", "a narrow road", "the empty warehouse", "several letters", "the northern fields",
           "a quiet courtyard", "the broken clock", "the spring floods", "an unfinished wall", "the evening market"]
TAILS = ["in the early hours", "without much hurry", "as people there often do", "after a long debate",
         "while rain fell on the roofs", "for reasons nobody wrote down", "with borrowed tools",
         "before the first frost", "to everyone's surprise"]


def fact(draw, kind, used):
    """A sentence, a question about it, the answer, and the word that a right answer holds."""
    while True:
        if kind == "code":
            what = f"{draw.choice(THINGS)} {draw.choice(PLACES)}"
            value = str(draw.randint(1000, 9999))
            text = f"The code of the {what} is {value}."
            made = (what, text, f"What is the code of the {what}?", text, value)
        elif kind == "city":
            who, value = draw.choice(NAMES), draw.choice(CITIES)
            made = (who, f"{who} moved to {value} to open a workshop.", f"Where did {who} move?", f"{who} moved to {value}.", value)
        else:
            what, value = draw.choice(EVENTS), f"{draw.choice(MONTHS)} {draw.randint(1, 28)}"
            made = (what, f"The {what} takes place on {value}.", f"When does the {what} take place?",
                    f"The {what} takes place on {value}.", value)
        if made[0] not in used:
            used.add(made[0])
            return made[1:]


def document(number, words):
    draw = random.Random(number)
    used = set()
    facts = [fact(draw, kind, used) for kind in ("code", "city", "date") * 2]
    sentences, count = [], 0
    while count < words:
        sentence = f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(OBJECTS)} {draw.choice(TAILS)}."
        sentences.append(sentence)
        count += len(sentence.split())
    places = sorted(draw.sample(range(len(sentences)), len(facts)), reverse=True)
    for place, (text, *_) in zip(places, facts):
        sentences.insert(place, text)
    _, question, answer, value = facts[number % len(facts)]
    return {"text": " ".join(sentences), "question": question, "answer": answer, "value": value}


class Command:
    def __init__(self, args):
        self.args = args
        self.program = args.build / "bin/finchkv"

    def output(self, words, text=None):
        done = subprocess.run([str(w) for w in (self.program, *words)], input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"compute_quality.py: finchkv {words[0]} failed: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def tokens(self, text):
        return self.output(["tokenize", "--model", self.args.model], text)

    def measure(self, run, task):
        """One document, one run: what was kept, the score, the answer."""
        device, compute = run.split(":")
        with tempfile.TemporaryDirectory() as folder:
            at = pathlib.Path(folder)
            (at / "gold.json").write_text(json.dumps(task["gold"]))
            words = ["ask", "--model", self.args.model, "--store", at / "kv", "--device", device, "--compute", compute,
                     "--score-tokens", at / "gold.json", "--max-tokens", task["max_tokens"], "--policy", task["policy"], "--json",
                     "--quiet"]
            if "text" in task:
                (at / "doc.txt").write_text(task["text"])
                words += ["--doc", at / "doc.txt", "--prompt", task["question"]]
            else:
                for name in ("doc", "prompt"):
                    (at / f"{name}.json").write_text(json.dumps(task[name]))
                    words += [f"--{name}-tokens", at / f"{name}.json"]
            if self.args.threads:
                words += ["--threads", self.args.threads]
            for name in ("ratio", "keep", "chunk"):
                if name in task:
                    words += [f"--{name}", task[name]]
            asked = self.output(words)
            shown = self.output(["show", asked["id"], "--store", at / "kv", "--json"])
        return {"origins": shown["origins"], "score": asked["score"]["mean_log_likelihood"], "answer": asked["answer"],
                "tokens": asked["answer_tokens"], "doc_tokens": asked["doc_tokens"]}


def share(kept, expected):
    same = total = 0
    for layer, wanted in zip(kept, expected):
        for row, want in zip(layer, wanted):
            same += len(set(row) & set(want))
            total += len(want)
    return same / total


def mean_and_error(values):
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else float("nan")
    return statistics.fmean(values), error


def made_tasks(args, command):
    documents = [document(number, args.words) for number in range(args.documents)]
    for d in documents:
        d["gold"] = command.tokens(d["answer"])
    return [(f"{ratio:g}x", {"policy": args.policy, "ratio": ratio, "max_tokens": 24, **d}) for ratio in args.ratios
            for d in documents]


def golden_tasks(path):
    golden = json.loads(path.read_text())
    return [("golden", {"policy": c["policy"], "keep": c["budget"], "chunk": c["chunk"], "doc": golden["doc"],
                        "prompt": golden["prompt"], "gold": c["greedy"], "max_tokens": 24, "expected": c["kept_origin"],
                        "greedy": c["greedy"]}) for c in golden["finch"]]


def table(args, tasks, results):
    lines = ["| documents | run | kept as in the first | log-likelihood | difference | fact in the answer | same answer |",
             "|---|---|---|---|---|---|---|"]
    figures = []
    for group in dict.fromkeys(name for name, _ in tasks):
        members = [i for i, (name, _) in enumerate(tasks) if name == group]
        for run in args.runs:
            mine = [results[run, i] for i in members]
            first = [results[args.runs[0], i] for i in members]
            wanted = [tasks[i][1].get("expected", f["origins"]) for i, f in zip(members, first)]
            kept = statistics.fmean(share(m["origins"], w) for m, w in zip(mine, wanted))
            score = statistics.fmean(m["score"] for m in mine)
            difference, error = mean_and_error([m["score"] - f["score"] for m, f in zip(mine, first)])
            greedy = [tasks[i][1].get("greedy", f["tokens"]) for i, f in zip(members, first)]
            same = statistics.fmean(m["tokens"] == g for m, g in zip(mine, greedy))
            held = None
            if group != "golden":
                held = statistics.fmean(tasks[i][1]["value"] in m["answer"] for i, m in zip(members, mine))
            lines.append(f"| {group} ({len(members)}) | {run} | {kept:.1%} | {score:.3f} | {difference:+.3f} ± {error:.3f} | "
                         f"{'' if held is None else f'{held:.0%}'} | {same:.0%} |")
            figures.append({"documents": group, "count": len(members), "run": run, "kept": kept, "score": score,
                            "difference": difference, "error": error, "fact": held, "same": same,
                            "doc_tokens": statistics.fmean(m["doc_tokens"] for m in mine)})
    return lines, figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--build", type=pathlib.Path, default=HERE.parent / "build/release")
    parser.add_argument("--runs", nargs="+", default=["cpu:f32", "cpu:bf16", "cpu:fp8"])
    parser.add_argument("--policy", default="finch-span")
    parser.add_argument("--ratios", nargs="*", type=float, default=[8, 32])
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--words", type=int, default=1700)
    parser.add_argument("--golden", type=pathlib.Path, help="also the cases of this file")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--threads", type=int, help="of each process")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    for run in args.runs:
        if run.count(":") != 1:
            parser.error(f"a run is DEVICE:COMPUTE, as cpu:f32, not '{run}'")
    command = Command(args)
    tasks = (golden_tasks(args.golden) if args.golden else []) + (made_tasks(args, command) if args.ratios else [])
    if not tasks:
        parser.error("there is nothing to do: name --ratios or --golden")
    work = [(run, i) for run in args.runs for i in range(len(tasks))]
    results = {}
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        running = {pool.submit(command.measure, run, tasks[i][1]): (run, i) for run, i in work}
        for done in concurrent.futures.as_completed(running):
            results[running[done]] = done.result()
            if os.isatty(2):
                print(f"\r{len(results)} of {len(work)}", end="", file=sys.stderr)
    lines, figures = table(args, tasks, results)
    print(f"\n{args.policy}; documents of {figures[-1]['doc_tokens']:.0f} tokens on average\n")
    print("\n".join(lines))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
