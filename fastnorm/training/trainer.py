"""One step of a training, and all that it changes."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from torch import Tensor

from ..models import files
from .average import Average
from .processes import Processes
from .recipe import Batch, Recipe, Settings

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Trainer:
    """A recipe that learns.

    Chance within a step depends on the seed, the process and the number of the step alone, so a training that goes on from
    its state goes on exactly.

    Args:
        recipe: on the device of `processes`.
        precision: "float32", or by autocast "bfloat16" or "float16"; the last with gradients that are scaled.
        seed: of what recipe and model draw by chance.
        compiled: whether torch.compile makes the recipe faster.

    `step` says how many are done.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: Settings,
        processes: Processes = Processes(),
        precision: str = "float32",
        seed: int = 0,
        compiled: bool = False,
    ) -> None:
        self.recipe, self.settings, self.processes, self.seed = recipe, settings, processes, seed
        self.dtype = PRECISIONS[precision]
        self.step = 0
        trained = {id(parameter) for phase in recipe.phases for parameter in recipe.trained(phase)}
        for parameter in recipe.parameters():
            parameter.requires_grad_(id(parameter) in trained)
        self.optimizers = {
            phase: torch.optim.Adam(recipe.trained(phase), settings.lr, settings.betas) for phase in recipe.phases
        }
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=self.dtype == torch.float16)
        self.average = None if settings.ema is None else Average(recipe.model, settings.ema)
        recipe.model.train()
        if compiled:
            recipe.compile()
        self._parallel = processes.parallel(recipe)

    def train(self, batch: Batch) -> dict[str, Tensor]:
        """One step; its losses by name, and by phase where there are several."""
        phase = self.recipe.phases[self.step % len(self.recipe.phases)]
        optimizer = self.optimizers[phase]
        for group in optimizer.param_groups:
            group["lr"] = self.rate()
        self._draw_anew()
        self.recipe.zero_grad()
        with torch.autocast(self.processes.device.type, self.dtype, enabled=self.dtype is not None):
            losses = self._parallel(phase, batch)
        self.scaler.scale(sum(losses.values())).backward()
        if self.settings.clip is not None:
            self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(self.recipe.trained(phase), self.settings.clip)
        self.scaler.step(optimizer)
        self.scaler.update()
        self.step += 1
        if self.average is not None:
            self.average.update(self.step)
        prefix = f"{phase}." if len(self.recipe.phases) > 1 else ""
        return {prefix + name: loss.detach() for name, loss in losses.items()}

    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.settings.rate(self.step)

    @contextlib.contextmanager
    def averaged(self):
        """Within, the model has the weights that are saved, and is in eval mode."""
        model = self.recipe.model.eval()
        try:
            with contextlib.nullcontext() if self.average is None else self.average.applied():
                yield model
        finally:
            model.train()

    def is_finite(self) -> bool:
        return all(tensor.isfinite().all() for tensor in self.recipe.state_dict().values())

    def state(self) -> dict:
        """Tensors and numbers only."""
        return dict(
            step=self.step,
            recipe=self.recipe.state_dict(),
            average=None if self.average is None else self.average.tensors,
            optimizers={phase: optimizer.state_dict() for phase, optimizer in self.optimizers.items()},
            scaler=self.scaler.state_dict(),
        )

    def load(self, state: dict, source) -> None:
        """Go on from a state of the same settings; raises ValueError where a weight does not fit."""
        files.load_tensors(self.recipe, state["recipe"], source)
        if self.average is not None:
            self.average.load(state["average"])
        for phase, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][phase])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]

    def _draw_anew(self):
        torch.manual_seed(_number(self.seed, self.processes.rank, self.step))


def _number(*parts: int) -> int:
    """A number that differs for any of the parts."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
