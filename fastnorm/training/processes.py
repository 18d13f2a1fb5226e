"""The processes of one training: this one alone, or those that torchrun started."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from .recipe import Recipe


@dataclass(frozen=True)
class Processes:
    """This process, `rank` of `size`, and its device."""

    device: torch.device = torch.device("cpu")
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def parallel(self, recipe: Recipe) -> nn.Module:
        """The recipe, with gradients that are averaged over the processes, and on GPUs batch norms of the whole batch."""
        if self.size == 1:
            return recipe
        if self.device.type == "cuda":  # For which alone torch has them. The parameters stay the same.
            nn.SyncBatchNorm.convert_sync_batchnorm(recipe)
        return DistributedDataParallel(recipe, find_unused_parameters=len(recipe.phases) > 1)

    def mean(self, values: Tensor) -> Tensor:
        if self.size > 1:
            distributed.all_reduce(values)
        return values / self.size

    def any(self, flag: bool) -> bool:
        """Whether it is true for one of them."""
        return bool(self.mean(torch.tensor(float(flag), device=self.device)))


@contextlib.contextmanager
def joined(device: str):
    """Yields this process, in touch with the others while within."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield Processes(torch.device(device))
        return
    own = torch.device(device, int(os.environ["LOCAL_RANK"])) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Processes(own, distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
