"""Which system runs, and with which weights: by --model, by what the weight file says, or by the kind of style."""

from dataclasses import dataclass, field
from pathlib import Path

from .. import models
from ..models import files
from .errors import UserError
from .style import FORMS, Style

# Where nothing else says it: both with published weights.
DEFAULTS = {"numbers": "cin", "paintings": "ghiasi"}


def add_arguments(parser):
    parser.add_argument("--model", metavar="NAME", help="the system, see fastnorm models (default: that of --weights; "
                        "without those cin for numbers, ghiasi for paintings)")
    parser.add_argument("--weights", metavar="FILE", type=Path, help="of the system, a .safetensors file (default: the "
                        "published ones, where there are any)")


@dataclass(frozen=True)
class Chosen:
    """name: in `models.SYSTEMS`; weights: None for the published ones; config: of its constructor, as the file says, or as
    those are."""

    name: str
    weights: Path | None = None
    config: dict = field(default_factory=dict)

    def load(self, device: str):
        try:
            return models.load(self.name, self.weights).to(device)
        except (models.MissingWeights, files.MissingPackage, FileNotFoundError, ValueError) as error:
            raise UserError(error) from None


def choose(name: str | None, weights: Path | None, styles: list[Style]) -> Chosen:
    """The system of the arguments; raises unless it takes such styles."""
    if name is not None and name not in models.SYSTEMS:
        raise UserError(f"--model {name}: there is no such system, choose from {', '.join(models.SYSTEMS)}")
    about = {} if weights is None else _about(weights, name)
    name = name or about.get("system") or _by_styles(styles, weights)
    _check(name, styles)
    return Chosen(name, weights, about.get("config") or models.published_sizes(name))


def _about(weights, name):
    """What the file says; of files that are not ours, which published weights may be, nothing."""
    if name is not None and weights.suffix != ".safetensors":
        return {}
    try:
        about = files.read_about(weights)
    except (FileNotFoundError, ValueError, files.MissingPackage) as error:
        raise UserError(f"--weights: {error}") from None
    if about.get("kind", "weights") != "weights":
        raise UserError(f"--weights {weights}: it holds a {about['kind']}, not weights")
    system = about.get("system")
    if system is not None and system not in models.SYSTEMS:
        raise UserError(f"--weights {weights}: it is of a system {system}, which this fastnorm has not")
    if name is not None and system not in (name, None):
        raise UserError(f"--weights {weights}: it is of the system {system}, not of {name}, which --model says")
    return about


def _by_styles(styles, weights):
    if weights is not None:
        raise UserError(f"--weights {weights}: it does not say of which system it is: give --model NAME")
    if not styles:
        raise UserError(f"--style is missing: it is {FORMS}")
    for style in styles:
        if style.kind is not None:
            return DEFAULTS[style.kind]
    try:
        about = files.read_about(styles[0].stored[0])
    except (ValueError, files.MissingPackage) as error:
        raise UserError(error) from None
    if about.get("system") not in models.SYSTEMS:
        raise UserError(f"{styles[0].stored[0]} does not say of which system it is: give --model NAME")
    return about["system"]


def _check(name, styles):
    kind = models.SYSTEMS[name].styles
    if kind not in DEFAULTS:
        if styles:
            own = "the one style of its weights" if kind == "one" else "no style"
            raise UserError(f"style {styles[0]}: {name} has {own}, and takes none")
        return
    if not styles:
        raise UserError(f"--style is missing: {name} takes {kind}; a style is {FORMS}")
    for style in styles:
        if style.kind not in (kind, None):
            raise UserError(f"style {style}: {name} takes {kind}, not {style.kind}")
