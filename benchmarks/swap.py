"""What `fastnorm.swap` brings to the generators that people have: python benchmarks/swap.py [--train] [NAME ...]

Each model against itself swapped, in turns, in eval mode under no_grad, or with --train forward and backward. Times are
medians; the ratio is the median of each turn's, to the faster of its two layouts: a machine that is slow for a while is so for
both. A line is one run; `--json FILE` keeps them.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path

import torch

import fastnorm
from fastnorm.bench import machine

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "swap"))
import zoo  # noqa: E402

# Batch and size of the input; at least so many times as fast.
CASES = {
    "johnson": (1, 512),
    "cyclegan": (1, 256),
    "munit": (1, 256),
    "ugatit": (1, 256),
    "stargan-own-statistics": (1, 256),
    "spade": (1, 256),
    "stylegan2": (1, 64),
    "adaconv-block": (4, 64),
    "adaconv-decoder": (1, 64),
    "adaattn": (1, 64),
    "nnunet-3d": (1, 96),
}
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *CASES], metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--train", action="store_true", help="forward and backward")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    fastnorm.tune_allocator()
    found = []
    for name in args.names or CASES:
        found.append(measure(name, args.train, args.rounds))
        print(line(found[-1]), flush=True)
        if args.json:
            args.json.write_text(json.dumps({"machine": machine.describe(), "models": found}, indent=1) + "\n")


def measure(name: str, train: bool, rounds: int) -> dict:
    torch.manual_seed(0)
    system, (batch, size) = zoo.ZOO[name], CASES[name]
    model = system.make().train(train)
    inputs = system.inputs(batch, size, torch.float32)
    calls = {"contiguous": (model, inputs)}
    with torch.set_grad_enabled(train):
        in_layout = tuple(map(_channels_last, inputs))
        other = _channels_last(copy.deepcopy(model))
        if _runs(other, in_layout):
            calls["channels_last"] = (other, in_layout)
        calls["swapped"] = (fastnorm.swap(copy.deepcopy(model), inputs), inputs)
        seconds = {name: [] for name in calls}
        for turn in range(rounds + 1):
            for who, (called, arguments) in calls.items():
                start = time.perf_counter()
                _call(called, arguments, train)
                if turn:
                    seconds[who].append(time.perf_counter() - start)
    times = {who: statistics.median(found) for who, found in seconds.items()}
    swapped = times.pop("swapped")
    faster = min(times, key=times.get)
    ratio = statistics.median(before / after for before, after in zip(seconds[faster], seconds["swapped"]))
    return {
        "model": name, "input": [batch, size], "pass": "forward and backward" if train else "forward",
        "before": times, "after": swapped, "times as fast": ratio, "rounds": rounds,
    }  # fmt: skip


def _call(model, inputs, train):
    output = model(*inputs)
    if train:
        output = output[0] if isinstance(output, (tuple, list)) else output
        output.square().mean().backward()
        model.zero_grad()


def _channels_last(tensor):
    """A tensor, or a module with each parameter, in that layout where it is one of maps."""
    if isinstance(tensor, torch.nn.Module):
        for parameter in tensor.parameters():
            parameter.data = _channels_last(parameter.data)
        return tensor
    if not isinstance(tensor, torch.Tensor) or tensor.dim() not in LAYOUTS:
        return tensor
    return tensor.contiguous(memory_format=LAYOUTS[tensor.dim()])


def _runs(model, inputs):
    """Whether its code takes that layout: `view` does not."""
    try:
        with torch.no_grad():
            model(*inputs)
    except RuntimeError:
        return False
    return True


def line(found: dict) -> str:
    before = ", ".join(f"{layout} {seconds * 1e3:.1f}" for layout, seconds in found["before"].items())
    shape = "x".join(map(str, found["input"]))
    return (
        f"{found['model']:24} {shape:6} {found['pass']}: {before} ms; swapped {found['after'] * 1e3:.1f} ms: "
        f"{found['times as fast']:.2f} times as fast"
    )


if __name__ == "__main__":
    main()
