"""The folder of a training: its log, samples, checkpoints and model."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import torch
from torch import Tensor

from .. import pictures
from .._errors import UserError
from .._files import write_whole
from . import checkpoint, samples
from .recipe import Batch
from .trainer import Trainer


class Output:
    """What a training writes.

    Args:
        settings: what the training was told, which a checkpoint holds.
        batch: what samples are painted from; and a row of its styles, where there are styles.
        tensorboard: whether losses and samples are shown by TensorBoard, too.
    """

    def __init__(
        self, folder: Path, settings: dict, batch: Batch, styles: Tensor | None = None, tensorboard: bool = False
    ) -> None:
        self.folder, self.settings, self.batch, self.styles = folder, settings, batch, styles
        self.tensorboard, self._board = tensorboard, None

    @property
    def model(self) -> Path:
        return self.folder / f"{self.settings['system']}.safetensors"

    def begin(self, step: int) -> None:
        """Of the log, what came after the step at which this begins is no longer so."""
        with self._told("log.jsonl") as path:
            if path.exists():
                entries = []
                for line in path.read_text().splitlines():
                    with contextlib.suppress(ValueError, KeyError):  # A line that was cut short.
                        entries += [line] if json.loads(line)["step"] <= step else []
                write_whole(path, "".join(f"{line}\n" for line in entries).encode())
        if self.tensorboard:
            self._board = board(self.folder / "tensorboard", step)

    def log(self, step: int, rate: float, losses: dict[str, float]) -> None:
        with self._told("log.jsonl") as path:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a") as file:
                file.write(json.dumps({"step": step, "lr": rate, "losses": losses}) + "\n")
        if self._board:
            for name, loss in losses.items():
                self._board.add_scalar(f"loss/{name}", loss, step)

    def sample(self, trainer: Trainer) -> None:
        """A row of contents, one of styles, and one of what the model makes of them."""
        with trainer.averaged(), torch.no_grad():
            painted = trainer.recipe.sample(moved(self.batch, trainer.processes.device))
        rows = [self.batch.content, self.styles, painted]
        picture = samples.grid([row for row in rows if row is not None])
        with self._told(f"samples/{trainer.step:06d}.png") as path:
            pictures.write(path, pictures.Picture(picture[None]))
        if self._board:
            self._board.add_image("samples", picture, trainer.step)

    def save(self, trainer: Trainer) -> Path:
        """A checkpoint, and the model as it is by now; returns the checkpoint's path."""
        path = checkpoint.save(self.checkpoints, trainer.state(), self.settings)
        with self._told(self.model.name) as model, trainer.averaged() as averaged:
            averaged.save(model)
        if self._board:
            self._board.flush()
        return path

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def newest(self) -> Path | None:
        """The checkpoint of the most steps, where there is one."""
        return checkpoint.newest(self.checkpoints)

    @contextlib.contextmanager
    def _told(self, name):
        path = self.folder / name
        try:
            yield path
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from None


def board(folder: Path, step: int):
    """TensorBoard's writer, which takes back what it was told of later steps."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs tensorboard: pip install tensorboard") from None
    return SummaryWriter(folder, purge_step=step + 1)


def moved(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(None if tensor is None else tensor.to(device, non_blocking=True) for tensor in batch))
