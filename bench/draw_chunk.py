#!/usr/bin/env python3
"""One chunk of a compression as a picture (SVG) and a table (Markdown): where a GPU's time goes, kernel by kernel.

usage: draw_chunk.py CHUNK.csv CHUNK.json [--svg FILE.svg] [--roof-tflops 780] [--roof-attention-tflops 780] [--roof-tbps 4.25]
How the two files are made (bench/compress_profile.h):
  ncu --profile-from-start off --launch-count 90 --clock-control none --csv --log-file CHUNK.csv \\
      --metrics gpu__time_duration.sum,dram__bytes.sum bench_compress --profile-after 4 > CHUNK.json
A layer is found as the sequence of kernels that repeats; its figures are medians over the layers that were caught. FLOPs of
products and of attention follow from the shape, bytes are what went to and from memory (what stays in the L2 cache does
not). The roofs are what a large product alone and a plain copy reach on that GPU, not its data sheet; products of 8 bits have
1500 unless --roof-tflops says otherwise, attention is in bf16 in either case.
"""
import argparse
import csv
import html
import json
import re
import statistics
import sys

# Kernel names, the part of a layer that they belong to, what they do. The first that matches counts.
KERNELS = [
    (r"sdpa|attention", "attention", "attention"),
    (r"mass", "selection", "score pass"),
    (r"span_mean", "selection", "span means"),
    (r"sum_rows", "selection", "sum over heads"),
    (r"top_k|select", "selection", "top-k"),
    (r"gather", "selection", "gathers"),
    (r"quantise", "elementwise", "rounding to 8 bits"),
    (r"swiglu", "elementwise", "SwiGLU"),
    (r"norm", "norms", "RMSNorm"),
    (r"place_kernel", "RoPE and cache", "q, k, v to their places"),
    (r"rotate", "RoPE and cache", "RoPE"),
    (r"copy|append|convert|narrow", "RoPE and cache", "cache copies"),
    (r"nvjet|gemm|cutlass|gemv|few_rows", "products", "product"),
]
PARTS = ["products", "attention", "elementwise", "norms", "RoPE and cache", "selection", "other"]
COLOURS = {"products": "#3b6fb6", "attention": "#c2702d", "elementwise": "#6a9a3a", "norms": "#8a63b0",
           "RoPE and cache": "#2b9a93", "selection": "#c04a6b", "other": "#808080"}
# A layer's products in their order, from the one before attention on.
PRODUCTS = ["q, k and v", "output", "gate and up", "down"]


class Failure(Exception):
    pass


def read_kernels(path):
    """[(name, microseconds, bytes)] in the order of the launches."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        raise Failure(f"{path} holds no table of ncu --csv")
    launches = {}
    to_us = {"ns": 1e-3, "us": 1, "ms": 1e3, "nsecond": 1e-3, "usecond": 1, "msecond": 1e3}
    to_bytes = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}
    for row in csv.DictReader(lines[start:]):
        launch = launches.setdefault(int(row["ID"]), {"name": row["Kernel Name"]})
        value, unit = float(row["Metric Value"].replace(",", "")), row["Metric Unit"]
        if row["Metric Name"] == "gpu__time_duration.sum":
            launch["us"] = value * to_us[unit]
        elif row["Metric Name"] == "dram__bytes.sum":
            launch["bytes"] = value * to_bytes[unit]
    for launch in launches.values():
        if "us" not in launch or "bytes" not in launch:
            raise Failure(f"{path} lacks gpu__time_duration.sum or dram__bytes.sum of a kernel")
    return [(k["name"], k["us"], k["bytes"]) for _, k in sorted(launches.items())]


def kind_of(name):
    for pattern, part, label in KERNELS:
        if re.search(pattern, name):
            return part, label
    return "other", re.sub(r"^void |finchkv::|<unnamed>::|[<(].*", "", name)


def one_layer(kernels):
    """Medians over the repetitions of the shortest sequence of kernels that repeats, from the product before attention on."""
    names = [name for name, _, _ in kernels]
    for period in range(4, len(names) // 2 + 1):
        # The capture may begin and end with other things: the longest stretch that repeats with this period.
        best = start = run = 0
        for i in range(len(names) - period):
            run = run + 1 if names[i] == names[i + period] else 0
            if run > best:
                best, start = run, i - run + 1
        if best < period:
            continue
        stretch = kernels[start:start + best + period]
        kinds = [kind_of(name) for name, _, _ in stretch[:period]]
        if ("attention", "attention") not in kinds:
            continue
        at = kinds.index(("attention", "attention"))
        products = [i for i in range(period) if kinds[i][0] == "products"]
        first = max((i for i in products if i < at), default=max(products, default=0) - period) % period
        whole = len(stretch) // period
        layer = []
        for offset in range(period):
            i = (first + offset) % period
            same = [stretch[i + n * period] for n in range(whole)]
            part, label = kind_of(same[0][0])
            layer.append({"part": part, "label": label, "us": statistics.median(k[1] for k in same),
                          "bytes": statistics.median(k[2] for k in same)})
        return layer, whole
    raise Failure("no sequence of kernels with attention repeats: catch at least two layers (--launch-count)")


def put_in_flops(layer, d, rows, keys):
    """FLOPs of products (the last layer's apart, they are the same in every layer) and of causal attention."""
    width = d["heads"] * d["head_dim"]
    flops = {"q, k and v": 2 * rows * d["hidden"] * (d["heads"] + 2 * d["kv_heads"]) * d["head_dim"],
             "output": 2 * rows * width * d["hidden"], "gate and up": 4 * rows * d["hidden"] * d["ffn"],
             "down": 2 * rows * d["ffn"] * d["hidden"]}
    products = [k for k in layer if k["part"] == "products"]
    if len(products) == len(PRODUCTS):
        for kernel, label in zip(products, PRODUCTS):
            kernel["label"], kernel["flops"] = label, flops[label]
    for kernel in layer:
        if kernel["label"] == "attention":
            kernel["flops"] = 4 * (rows * (keys - rows) + rows * (rows + 1) / 2) * width


def grouped(layer, args):
    """Kernels of the same name as one, with their shares of the roof; the longest first, part by part."""
    groups = {}
    for kernel in layer:
        g = groups.setdefault((kernel["part"], kernel["label"]), {"part": kernel["part"], "label": kernel["label"],
                                                                  "us": 0, "bytes": 0, "flops": 0, "count": 0})
        g["us"] += kernel["us"]
        g["bytes"] += kernel["bytes"]
        g["flops"] += kernel.get("flops", 0)
        g["count"] += 1
    for g in groups.values():
        computing = g["flops"] / (args.roof_attention_tflops if g["part"] == "attention" else args.roof_tflops) / 1e6
        moving = g["bytes"] / args.roof_tbps / 1e6
        g["share"] = max(computing, moving) / g["us"]
        g["work"] = f"{g['flops'] / 1e9:.0f} GFLOP" if computing > moving else size(g["bytes"])
    total = {p: sum(g["us"] for g in groups.values() if g["part"] == p) for p in PARTS}
    parts = sorted((p for p in PARTS if total[p] > 0), key=lambda p: -total[p])
    return parts, total, sorted(groups.values(), key=lambda g: (parts.index(g["part"]), -g["us"]))


def size(count):
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


def percent(share):
    return f"{share:.0%}" if share >= 0.005 else "< 1%"


def name_of(g):
    return g["label"] + (f" ({g['count']})" if g["count"] > 1 else "")


def table(kernels, args):
    lines = [f"| kernel | us | bytes or FLOPs | of the roof ({args.roof_tbps:g} TB/s, {args.roof_tflops:g} TFLOP/s) |",
             "|---|---|---|---|"]
    for g in kernels:
        lines.append(f"| {name_of(g)} | {g['us']:.1f} | {g['work']} | {percent(g['share'])} |")
    return "\n".join(lines)


WIDTH, MARGIN, BAR, GAP = 1120, 24, 40, 6
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.head { font-size: 17px; font-weight: 600 } .small { fill: #59636e } .end { text-anchor: end }
.bar text { fill: #fff } .line { stroke: #8c959f; fill: none } .page { fill: #fff }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .small { fill: #9198a1 } .line { stroke: #656c76 } .page { fill: #0d1117 } }
"""


class Picture:
    def __init__(self):
        self.items = []

    def text(self, x, y, words, kind=""):
        self.items.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{html.escape(words)}</text>')

    def bar(self, x, y, width, colour, words, hint, opacity=1.0):
        """A box with as much of its words as fits: all, the first line, or none; `hint` shows under the mouse."""
        lines = [w for w in words if len(w) * 6.7 + 8 < width]
        if lines and lines[0] != words[0]:
            lines = []
        shown = "".join(f'<text x="{x + 5:.1f}" y="{y + 17 + 15 * i + (0 if len(lines) > 1 else 8):.1f}">{html.escape(w)}</text>'
                        for i, w in enumerate(lines))
        self.items.append(f'<g class="bar"><rect x="{x:.2f}" y="{y}" width="{max(width - 1, 0.4):.2f}" height="{BAR}" rx="2" '
                          f'fill="{colour}" fill-opacity="{opacity}"/>{shown}<title>{html.escape(hint)}</title></g>')

    def write(self, path, height):
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
                f'role="img" aria-label="Where one chunk\'s time goes"><style>{STYLE}</style>'
                f'<rect class="page" width="{WIDTH}" height="{height}"/>')
        with open(path, "w", encoding="utf-8") as file:
            file.write(head + "\n" + "\n".join(self.items) + "\n</svg>\n")


def draw(path, report, parts, total, kernels, args):
    d, rows, keys = report["dimensions"], report["profiled"]["rows"], report["profiled"]["keys"]
    layer_us = sum(total.values())
    room = WIDTH - 2 * MARGIN
    p = Picture()
    p.text(MARGIN, 30, f"One chunk: {rows:,} rows on {keys:,} keys, {report['shape']}, {report['compute']}", "head")
    p.text(MARGIN, 50, f"{report['device']}; kernels one at a time, caches cold before each", "small")
    y = 64
    p.bar(MARGIN, y, room, "#59636e", [f"chunk: {d['layers']} layers of {layer_us / 1e3:.2f} ms, together "
                                       f"{d['layers'] * layer_us / 1e3:.1f} ms"], "the chunk")

    def row(at_y, members, left, scale, whole):
        x = left
        for g in members:
            width = g["us"] * scale
            of_all = f"{g['us'] / whole:.1%}"
            p.bar(x, at_y, width, COLOURS[g["part"]], [g["label"], f"{g['us']:.0f} us, {of_all}"],
                  f"{g['label']}: {g['us']:.1f} us, {of_all} of a layer", g.get("opacity", 1.0))
            x += width
        return x

    y += BAR + GAP
    scale = room / layer_us
    row(y, [{"part": q, "label": q, "us": total[q]} for q in parts], MARGIN, scale, layer_us)
    y += BAR + GAP
    row(y, [{**g, "opacity": 0.82} for g in kernels], MARGIN, scale, layer_us)
    # What is too narrow to read, drawn wider.
    small = [q for q in parts if q not in ("products", "attention")]
    if small:
        from_x = MARGIN + sum(total[q] for q in parts if parts.index(q) < parts.index(small[0])) * scale
        small_us = sum(total[q] for q in small)
        to_x = from_x + small_us * scale
        y += BAR
        p.items.append(f'<path class="line" d="M{from_x:.1f} {y + 3} L{MARGIN} {y + 38} M{to_x:.1f} {y + 3} L{MARGIN + room} {y + 38}"/>')
        p.text(MARGIN, y + 58, f"all but products and attention, {small_us:.0f} us of a layer, {room / small_us / scale:.1f} times as wide",
               "small")
        y += 68
        row(y, [{"part": q, "label": q, "us": total[q]} for q in small], MARGIN, room / small_us, layer_us)
        y += BAR + GAP
        row(y, [{**g, "opacity": 0.82} for g in kernels if g["part"] in small], MARGIN, room / small_us, layer_us)
    y += BAR + 34
    columns = (MARGIN + 20, 360, 500, 560)
    for x, words in zip((columns[0], columns[1], columns[2], columns[3]), ("kernel, in one layer", "us", "moves or computes", "")):
        p.text(x, y, words, "small" + (" end" if x in columns[1:3] else ""))
    p.text(columns[3], y, f"share of the roof ({args.roof_tflops:g} TFLOP/s, {args.roof_tbps:g} TB/s)", "small")
    for g in kernels:
        y += 21
        colour = COLOURS[g["part"]]
        p.items.append(f'<rect x="{MARGIN}" y="{y - 11}" width="12" height="12" rx="2" fill="{colour}"/>')
        p.text(columns[0], y, name_of(g))
        p.text(columns[1], y, f"{g['us']:.1f}", "end")
        p.text(columns[2], y, g["work"], "end")
        length = min(g["share"], 1.1) * 430
        p.items.append(f'<rect x="{columns[3]}" y="{y - 11}" width="{length:.1f}" height="12" rx="2" fill="{colour}"/>')
        p.text(WIDTH - MARGIN, y, percent(g["share"]), "end")
    foot = y + 8
    edge = columns[3] + 430
    p.items.append(f'<path class="line" stroke-dasharray="3 3" d="M{edge} {foot - 21 * len(kernels) - 4} V{foot}"/>')
    p.write(path, int(foot + 20))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("csv")
    parser.add_argument("json")
    parser.add_argument("--svg")
    parser.add_argument("--roof-tflops", type=float, help="of products: 780, or 1500 with fp8")
    parser.add_argument("--roof-attention-tflops", type=float, default=780)
    parser.add_argument("--roof-tbps", type=float, default=4.25)
    args = parser.parse_args()
    try:
        with open(args.json, encoding="utf-8") as file:
            text = file.read()
        report = json.loads(text[text.index("{"):text.rindex("}") + 1])  # ncu may have written around it
        if "profiled" not in report:
            raise Failure(f"{args.json} is not of bench_compress --profile-after")
        layer, caught = one_layer(read_kernels(args.csv))
    except (OSError, ValueError, Failure) as error:
        sys.exit(f"draw_chunk.py: {error}")
    if args.roof_tflops is None:
        args.roof_tflops = 1500 if report["compute"] == "fp8" else 780
    put_in_flops(layer, report["dimensions"], report["profiled"]["rows"], report["profiled"]["keys"])
    parts, total, kernels = grouped(layer, args)
    print(f"One layer, {sum(total.values()):.0f} us in {len(layer)} kernels, medians of {caught} layers:\n")
    print(table(kernels, args))
    if args.svg:
        draw(args.svg, report, parts, total, kernels, args)


if __name__ == "__main__":
    main()
