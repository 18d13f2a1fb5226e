"""Two ways to compute the same, side by side: time in turns in one process, peak memory in fresh ones.

A case is a function that makes what is built once, and returns `at(size) -> {side: step}`, the sides' steps of that size.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

import fastnorm
from fastnorm.bench import machine
from fastnorm.bench.resident import held, peak_of_second


def main(doc, cases, sides, key, size, rounds, apart=None) -> None:
    """The command of a benchmark: a table, of which the first of two sides is ours, and with --json a file of it.

    Args:
        doc: of the script.
        key: of the file's entries.
        size, rounds: unless told.
        apart: how far the results of both sides' steps are from each other, if that is shown.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(cases))
    parser.add_argument("--size", type=int, default=size)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--growth-of", choices=sides, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if unknown := [name for name in args.cases if name not in cases]:
        parser.error(f"no case {unknown[0]}: expected some of {', '.join(cases)}")
    if args.growth_of:
        print(_growth(cases[args.cases[0]], args.size, args.growth_of))
        return
    found, (own, other) = [], sides
    print(f"{'case':<20} {'ms':>8} {other:>10} {'times':>6} {'MB':>7} {other:>10} {'part':>5}", "   apart" * bool(apart))
    for name in args.cases or cases:
        found.append(facts := _measured(name, cases[name], sides, args, apart))
        ms, mb = facts["ms"], facts["MB"]
        print(
            f"{name:<20} {ms[own]:8.1f} {ms[other]:10.1f} {ms[other] / ms[own]:6.2f}"
            f" {mb[own]:7.0f} {mb[other]:10.0f} {mb[own] / mb[other]:5.2f}",
            f"{facts['apart']:8.1e}" if apart else "", flush=True,
        )  # fmt: skip
        if args.json:
            args.json.write_text(json.dumps({"machine": machine.describe(), key: found}, indent=1) + "\n")


def _measured(name, case, sides, args, apart) -> dict:
    memory = {side: _growth_in_a_process(name, args, side) / 1e6 for side in sides}
    fastnorm.tune_allocator()
    torch.manual_seed(0)
    steps, seconds, results = case()(args.size), {side: [] for side in sides}, {}
    for turn in range(args.rounds + 1):
        for side in sides:
            start = time.perf_counter()
            results[side] = steps[side]()
            if turn:
                seconds[side].append(time.perf_counter() - start)
    times = {side: 1000 * statistics.median(taken) for side, taken in seconds.items()}
    told = {"case": name, "size": args.size, "threads": args.threads, "rounds": args.rounds}
    return told | {"ms": times, "MB": memory} | ({"apart": apart(*results.values())} if apart else {})


def _growth_in_a_process(name, args, side) -> int:
    command = [sys.executable, sys.argv[0], name, "--size", args.size, "--threads", args.threads, "--growth-of", side]
    return int(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)


def _growth(case, size, side) -> int:
    """What a step adds at most, beside what was built before. A small one before loads libraries and their tables."""
    torch.manual_seed(0)
    at = case()
    at(64)[side]()
    step = at(size)[side]
    before = held()
    return peak_of_second(step) - before
