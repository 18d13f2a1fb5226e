"""Published style-transfer systems, one file each.

    model = fastnorm.models.load("cin")
    picture = model.stylize(content, style=7)

Importing this package imports no system and nothing outside the base install.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

__all__ = ["SYSTEMS", "MissingWeights", "System", "load"]


class MissingWeights(ModuleNotFoundError):
    """The package that reads or carries the published weights is not installed."""


class System(NamedTuple):
    module: str
    class_name: str
    description: str


SYSTEMS = {
    "cin": System("fastnorm.models.cin", "CIN", "26 built-in styles and their mixtures (Dumoulin et al., ICLR 2017)"),
    "ghiasi": System("fastnorm.models.ghiasi", "Ghiasi", "any painting as the style (Ghiasi et al., BMVC 2017)"),
}


def load(name: str, weights=None, **sizes):
    """A system with its published weights, in eval mode.

    Args:
        name: a key of SYSTEMS.
        weights: where they are, as the system's `from_package` says; None for the package that carries them.
        sizes: constructor arguments, for weights of other sizes.

    Raises ValueError for an unknown name, MissingWeights where a package is missing.
    """
    if name not in SYSTEMS:
        raise ValueError(f"load: name: expected one of {', '.join(SYSTEMS)}, got {name!r}")
    system = SYSTEMS[name]
    return getattr(import_module(system.module), system.class_name).from_package(weights, **sizes)
