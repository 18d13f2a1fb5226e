"""Pictures for training, without end.

Which pictures a step sees, and which squares of them, depends on the seed and the number of the step alone: not on how many
processes or workers read, nor on where a training was interrupted.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .. import pictures
from .._errors import UserError
from .recipe import Batch, Recipe

# What is drawn by chance, each in a stream of its own.
ORDER, SQUARE = 0, 1
CONTENT, STYLE = 0, 1


def drawn(seed: int, stream: int, count: int, n: int) -> int:
    """Which of `count` is the n-th: each comes once, in a new order, before any comes again."""
    epoch, place = divmod(n, count)
    return int(_shuffled(seed, stream, count, epoch)[place])


@lru_cache(maxsize=8)
def _shuffled(seed, stream, count, epoch):
    return np.random.default_rng((ORDER, stream, seed, epoch)).permutation(count)


class Squares:
    """Squares of the pictures of a folder, and of those in it, by the number of the sample.

    Args:
        stream: CONTENT or STYLE, which are drawn independently.
        resize: pixels of the shorter side, before a square of `crop` is cut at random, and mirrored every other time.

    A picture that cannot be read, or is tiny, is passed over for the next; `broken` says what is wrong with it.
    """

    def __init__(self, folder: Path, stream: int, seed: int, resize: int, crop: int) -> None:
        self.folder, self.stream, self.seed, self.resize, self.crop = folder, stream, seed, resize, crop
        self.paths = pictures.find_below(folder)
        self.broken: dict[Path, str] = {}

    def __getitem__(self, n: int) -> torch.Tensor:
        """(3, crop, crop), float32 in 0..1. Raises UserError where no picture of the folder can be read."""
        across, down, mirrored = np.random.default_rng((SQUARE, self.stream, self.seed, n)).random(3)
        for path in self._from(n):
            if path in self.broken:
                continue
            try:
                square = pictures.read_square(path, self.resize, self.crop, across, down)
            except UserError as error:
                self.broken[path] = str(error)
            else:
                return square.flip(2) if mirrored < 0.5 else square
        raise UserError(f"{self.folder} holds no picture that can be read, of {len(self.paths)}: {self.broken[path]}")

    def _from(self, n):
        """The picture of sample n, and those that stand in for it."""
        count = len(self.paths)
        for i in range(n, n + count):
            yield self.paths[drawn(self.seed, self.stream, count, n - n % count + i % count)]


class Batches(Dataset):
    """The batch of a step, as this process sees it, and what was found broken so far.

    Args:
        style: squares of paintings, for a system that takes any.
        styles: how many there are, for a system whose styles have numbers.
        batch_size: of all processes together.
        rank, processes: this one, of so many; each takes the same share.
        chosen: which styles a step has, as the recipe's method of that name says.
    """

    def __init__(
        self,
        content: Squares,
        style: Squares | None,
        styles: int,
        batch_size: int,
        rank: int = 0,
        processes: int = 1,
        chosen: Callable = Recipe.chosen,
    ) -> None:
        self.content, self.style, self.styles = content, style, styles
        self.batch_size, self.rank, self.share = batch_size, rank, batch_size // processes
        self.chosen = chosen

    def __getitem__(self, step: int) -> tuple[Batch, dict[Path, str]]:
        first = step * self.batch_size + self.rank * self.share
        chosen = self.chosen(step, self.share, self.styles) if self.styles else None
        batch = self.batch(range(first, first + self.share), chosen)
        return batch, self.content.broken | (self.style.broken if self.style else {})

    def batch(self, numbers: range, chosen: list[int] | None = None) -> Batch:
        """Of these samples, in styles that are drawn where none are chosen."""
        content = torch.stack([self.content[n] for n in numbers])
        style = torch.stack([self.style[n] for n in numbers]) if self.style else None
        if not self.styles:
            return Batch(content, style)
        index = chosen or [drawn(self.content.seed, STYLE, self.styles, n) for n in numbers]
        return Batch(content, style, torch.tensor(index))

    def loader(self, steps: range, workers: int, pin_memory: bool = False) -> DataLoader:
        """The steps one after the other, read ahead by so many processes, or by this one."""
        return DataLoader(
            self, batch_size=None, sampler=steps, num_workers=workers, pin_memory=pin_memory, worker_init_fn=_leave_signals
        )


def _leave_signals(worker):
    """They reach all processes of a terminal, or of a cluster's job; what they mean is for the one that trains to say."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
