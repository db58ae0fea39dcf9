#!/usr/bin/env python3
"""Times transformers and indexscope in alternation on the checkpoint of bench_transformers.py and prints a table.

usage: compare.py CKPT_DIR FORWARD [--lens 1024,2048,4096] [--impl sdpa] [--rounds 3]

Run it with a Python that has torch and transformers (5.23). FORWARD is the program that
`cargo bench --bench forward --no-run` names. Both do a forward with logits for every token, f32, batch 1, all-Full.
One round is one run of each, in turn, each in its own process after a warm-up; medians and extremes are printed.
"""
import argparse, json, os, statistics, subprocess, sys

here = os.path.dirname(os.path.abspath(__file__))


def peer(args, length):
    command = [sys.executable, os.path.join(here, "bench_transformers.py"), args.ckpt]
    done = subprocess.run(command + ["--one", args.impl, str(length), "", "--reps", "1"], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"transformers failed at T = {length}: {done.stderr[-400:]}")
    result = json.loads(lines[0][7:])
    return result["best_s"], result["peak_rss_mib"]


def ours(args, length):
    layers = json.load(open(os.path.join(args.ckpt, "config.json")))["num_hidden_layers"]
    done = subprocess.run([args.forward, args.ckpt, str(length), "F" * layers, "1"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"indexscope failed at T = {length}: {done.stderr[-400:]}")
    result = json.loads(done.stdout)
    return result["best_s"], result["peak_rss_mib"], result["fraction"]


parser = argparse.ArgumentParser()
parser.add_argument("ckpt")
parser.add_argument("forward")
parser.add_argument("--lens", default="1024,2048,4096")
parser.add_argument("--impl", default="sdpa")
parser.add_argument("--rounds", type=int, default=3)
args = parser.parse_args()
os.environ.setdefault("OMP_NUM_THREADS", "2")
print(f"{'T':>6} {'transformers s':>22} {'indexscope s':>22} {'ratio':>7} {'peak MiB':>13} {'of matmul rate':>15}", flush=True)
for length in map(int, args.lens.split(",")):
    pairs = [(peer(args, length), ours(args, length)) for _ in range(args.rounds)]
    text = lambda v: f"{statistics.median(v):.2f} ({min(v):.2f}-{max(v):.2f})"
    theirs, mine = [p[0][0] for p in pairs], [p[1][0] for p in pairs]
    ratio = statistics.median(a / b for a, b in zip(theirs, mine))
    memory = f"{max(p[0][1] for p in pairs)} / {max(p[1][1] for p in pairs)}"
    fraction = statistics.median(p[1][2] for p in pairs)
    print(f"{length:>6} {text(theirs):>22} {text(mine):>22} {ratio:>6.1f}x {memory:>13} {fraction:>14.0%}", flush=True)
