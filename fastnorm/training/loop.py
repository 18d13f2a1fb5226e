"""A training from where it stands to its last step."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .._errors import UserError
from .._start import Terminated, stop_on_signal
from .data import Batches
from .output import Output, moved
from .processes import Processes
from .trainer import Trainer


class Every(NamedTuple):
    """After how many steps each is done; samples and checkpoints at the end as well, and a checkpoint on Ctrl-C."""

    log: int = 20
    save: int = 1000
    sample: int = 1000


def train(
    trainer: Trainer,
    batches: Batches,
    output: Output | None,
    every: Every = Every(),
    workers: int = 0,
    report: Callable[[int, dict | None], None] = lambda step, losses: None,
    warn: Callable[[str], None] = lambda message: None,
) -> None:
    """Train until `trainer.settings.steps`.

    Args:
        output: where the first process writes; None for the others.
        workers: processes that read pictures ahead.
        report: told each step, and each time they are logged the means of the losses since the last time.
        warn: told once of each picture that cannot be read.

    Raises UserError where a loss or a weight is no number any more, and after a checkpoint KeyboardInterrupt on Ctrl-C,
    or Terminated, which is one, on SIGTERM.
    """
    settings, processes = trainer.settings, trainer.processes
    loader = batches.loader(range(trainer.step, settings.steps), workers, pin_memory=processes.device.type == "cuda")
    means, told = Means(processes), set()
    with stop_on_signal() as asked:
        for batch, broken in loader:
            for path in broken.keys() - told:
                warn(broken[path])
            told |= broken.keys()
            rate = trainer.rate()
            means.add(trainer.train(moved(batch, processes.device)))
            step = trainer.step
            logs, last = step % every.log == 0, step == settings.steps
            # Processes have to agree, which they do where they wait for each other anyway.
            stops = bool(asked()) if processes.size == 1 else logs and processes.any(bool(asked()))
            saves = last or stops or step % every.save == 0
            losses = means.taken() if logs or saves else None
            if losses is not None:
                _check(losses, trainer, output)
                if output:
                    output.log(step, rate, losses)
            report(step, losses)
            if output and (last or step % every.sample == 0):
                output.sample(trainer)
            if saves:
                _check_weights(trainer, output)
                if output:
                    output.save(trainer)
            if stops and not last:
                raise Terminated if asked() == signal.SIGTERM else KeyboardInterrupt


class Means:
    """Means of losses over steps and processes. They stay on the device until they are asked for, so no step waits."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, loss in losses.items():
            total, count = self.sums.get(name, (0, 0))
            self.sums[name] = total + loss.float(), count + 1

    def taken(self) -> dict[str, float]:
        """Since the last time."""
        means = self.processes.mean(torch.stack([total / count for total, count in self.sums.values()]))
        names = list(self.sums)
        self.sums = {}
        return dict(zip(names, means.tolist()))


def _check(losses, trainer, output):
    wrong = [f"{name} is {loss}" for name, loss in losses.items() if not math.isfinite(loss)]
    if wrong:
        _diverged(f"a loss is no number any more ({', '.join(wrong)})", trainer, output)


def _check_weights(trainer, output):
    if not trainer.is_finite():
        _diverged("a weight is no number any more", trainer, output)


def _diverged(what, trainer, output):
    advice = "a smaller --lr, or --clip 1" + (", or --precision bfloat16" if trainer.dtype == torch.float16 else "")
    path = output and output.newest()
    kept = f"{path} is from before, and kept" if path else "there is no checkpoint from before"
    raise UserError(f"step {trainer.step}: {what}: try {advice}; {kept}")
