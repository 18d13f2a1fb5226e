"""Every system on fused layers against the same on the reference backend, which is plain torch: time and peak memory.

    python benchmarks/systems.py [CASE ...] [--size 512] [--json FILE]

On the CPU, float32, random weights, the style encoded before. Times are in turns in one process, the median of each; memory
is what a call adds to a fresh process, at most, as the system counts it.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch

import fastnorm
from fastnorm import models
from fastnorm.bench import machine
from fastnorm.bench.resident import held, peak_of_second
from fastnorm.ops import backends

BACKENDS = {"fused": contextlib.nullcontext, "reference": backends.by_reference}


def whole(name):
    """A system on a picture: what makes the model, and of it what is measured, for any size."""

    def make():
        model, kind = models.build(name).eval(), models.SYSTEMS[name].styles

        def at(size):
            picture = torch.rand(1, 3, size, size)
            styles = {"paintings": picture.flip(2), "numbers": 1}
            style = model.encode(styles[kind]) if kind in styles else None
            return lambda: model.stylize(picture, style)

        return at

    return make


def features_of(size):
    return torch.rand(1, 512, size // 8, size // 8)


def adain_decoder():
    decoder = models.build("adain").eval().decoder
    return lambda size: partial(decoder, features_of(size))


def adaconv_decoder():
    model = models.build("adaconv").eval()
    style = model.encode(torch.rand(1, 3, 256, 256))
    return lambda size: partial(model.decoded, features_of(size), style)


def adaattn_attention():
    model = models.build("adaattn").eval()

    def at(size):
        picture = torch.rand(1, 3, size, size)
        content, style = (model.encoder.features(each) for each in (picture, picture.flip(2)))
        return partial(model.attended, content, model.kept(style))

    return at


CASES = {name: whole(name) for name in models.SYSTEMS} | {
    "adaconv decoder": adaconv_decoder,
    "adain decoder": adain_decoder,
    "adaattn attention": adaattn_attention,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--growth-of", choices=BACKENDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if unknown := [name for name in args.cases if name not in CASES]:
        parser.error(f"no case {unknown[0]}: expected some of {', '.join(CASES)}")
    if args.growth_of:
        print(growth(args.cases[0], args.size, args.growth_of))
        return
    found = []
    print(f"{'case':<20} {'ms':>8} {'reference':>10} {'times':>6} {'MB':>7} {'reference':>10} {'part':>5}")
    for name in args.cases or CASES:
        found.append(facts := measured(name, args))
        ms, mb = facts["ms"], facts["MB"]
        print(
            f"{name:<20} {ms['fused']:8.1f} {ms['reference']:10.1f} {ms['reference'] / ms['fused']:6.2f}"
            f" {mb['fused']:7.0f} {mb['reference']:10.0f} {mb['fused'] / mb['reference']:5.2f}", flush=True,
        )  # fmt: skip
        if args.json:
            args.json.write_text(json.dumps({"machine": machine.describe(), "systems": found}, indent=1) + "\n")


def measured(name, args) -> dict:
    memory = {backend: growth_in_a_process(name, args, backend) / 1e6 for backend in BACKENDS}
    fastnorm.tune_allocator()
    torch.manual_seed(0)
    with torch.inference_mode():
        call, seconds = CASES[name]()(args.size), {backend: [] for backend in BACKENDS}
        for turn in range(args.rounds + 1):
            for backend, chosen in BACKENDS.items():
                with chosen():
                    start = time.perf_counter()
                    call()
                    if turn:
                        seconds[backend].append(time.perf_counter() - start)
    times = {backend: 1000 * statistics.median(found) for backend, found in seconds.items()}
    return {"case": name, "size": args.size, "threads": args.threads, "rounds": args.rounds, "ms": times, "MB": memory}


def growth_in_a_process(name, args, backend) -> int:
    command = [sys.executable, __file__, name, "--size", args.size, "--threads", args.threads, "--growth-of", backend]
    return int(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)


@torch.inference_mode()
def growth(name, size, backend) -> int:
    """What a call adds at most, weights and pictures not counted. A small one before loads libraries and their tables."""
    with BACKENDS[backend]():
        at = CASES[name]()
        at(64)()
        call = at(size)
        before = held()
        return peak_of_second(call) - before


if __name__ == "__main__":
    main()
