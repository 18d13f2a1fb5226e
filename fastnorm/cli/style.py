"""What `--style` may say: a style's number, a painting, a style that was stored, or a mixture of them."""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from .. import pictures
from ..models import files
from .errors import UserError

FORMS = (
    "a style's number (7), the path of a painting or of what fastnorm encode wrote (style.safetensors), "
    "or a mixture with weights (3:0.5,12:0.5 or a.jpg:0.3,b.jpg:0.7)"
)
STORED = ".safetensors"


@dataclass(frozen=True)
class Style:
    """parts: the weights of numbers and of files, paintings or stored styles; they sum to 1."""

    parts: dict[int | Path, float]

    @property
    def files(self) -> list[Path]:
        return [part for part in self.parts if isinstance(part, Path)]

    @property
    def stored(self) -> list[Path]:
        return [path for path in self.files if path.suffix == STORED]

    @property
    def paintings(self) -> list[Path]:
        return [path for path in self.files if path.suffix != STORED]

    @property
    def kind(self) -> str | None:
        """ "numbers" or "paintings", as of `models.Entry`; None where a stored style tells nothing."""
        if self.paintings:
            return "paintings"
        return "numbers" if len(self.files) < len(self.parts) else None

    def encode(self, model):
        """As `model.stylize` takes it."""
        encoded = [_encoded(part, model) for part in self.parts]
        return encoded[0] if len(encoded) == 1 else model.mix(encoded, list(self.parts.values()))

    def __str__(self) -> str:
        if len(self.parts) == 1:
            return str(next(iter(self.parts)))
        return ",".join(f"{part}:{weight:g}" for part, weight in self.parts.items())

    def describe(self) -> dict:
        if len(self.parts) == 1 and self.files:
            return {"painting" if self.paintings else "stored": str(self.files[0])}
        return {"weights": {str(part): weight for part, weight in self.parts.items()}}


def _encoded(part, model):
    if isinstance(part, int):
        styles = model.config["styles"]
        if not 0 <= part < styles:
            raise UserError(f"style {part}: there is no such style, choose from 0 to {styles - 1}")
        return model.encode(part)
    try:
        if part.suffix == STORED:
            return model.load_style(part)
        return model.encode(model.placed(pictures.read(part).rgb))
    except (ValueError, TypeError, files.MissingPackage) as error:
        raise UserError(error) from None


def parse(spec: str) -> Style:
    """The style that `spec` names; whether the model has the number shows on encoding."""
    if re.fullmatch(r"[-+]?\d+", spec):
        return Style({int(spec): 1.0})
    if os.path.isdir(spec):
        raise UserError(f"style {spec}: it is a folder: name a picture in it")
    if os.path.exists(spec):
        return Style({Path(spec): 1.0})
    if "," in spec and ":" not in spec:
        weighted = ",".join(f"{part.strip()}:1" for part in spec.split(","))
        raise UserError(f"style {spec}: there is no such file; in a mixture each has its weight, as in {weighted}")
    if ":" not in spec:
        raise UserError(f"style {spec}: there is no such file; a style is {FORMS}")
    style = Style(_weights(spec))
    if style.paintings and len(style.files) < len(style.parts):
        raise UserError(f"style {spec}: numbers and paintings are of different systems, and cannot be mixed")
    return style


def _weights(spec):
    weights = {}
    # A name may hold commas and colons itself: it ends at the first colon that has a weight, or nothing, behind it.
    for part in re.findall(r"\s*(?:.+?:[^:,]*?(?:,|$)|.+$)", spec) + [""] * spec.endswith(","):
        name, weight = _part(part.strip().removesuffix(","), spec)
        weights[name] = weights.get(name, 0.0) + weight
    total = sum(weights.values())
    if total == 0:
        raise UserError(f"style {spec}: the weights sum to 0, give one above 0")
    return {name: weight / total for name, weight in weights.items()}


def _part(part, spec):
    name, _, weight = part.rpartition(":")
    name = name.strip()
    try:
        weight = float(weight)
    except ValueError:
        name = ""
    if not name:
        raise UserError(f"style {spec}: cannot read {part!r}; a style is {FORMS}")
    if not (math.isfinite(weight) and weight >= 0):
        raise UserError(f"style {spec}: the weight {weight:g} has to be a number from 0 up")
    if re.fullmatch(r"[-+]?\d+", name):
        return int(name), weight
    if not os.path.exists(name):
        raise UserError(f"style {spec}: cannot read {part!r}: there is no file {name}; a style is {FORMS}")
    return Path(name), weight
