"""Published style-transfer systems, one file each.

    model = fastnorm.models.load("adain", "adain.safetensors")
    picture = model.stylize(photo, painting)

    system = fastnorm.models.load("gatys", "vgg19-dcbb9e9d.pth")       # optimises the picture itself
    picture = system.synthesize(photo, [painting])

Importing this package imports no system and nothing outside the base install.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

__all__ = ["SYNTHESES", "SYSTEMS", "Entry", "MissingWeights", "build", "default_sizes", "load", "published_sizes"]


class MissingWeights(ModuleNotFoundError):
    """The package that reads or carries the published weights is not installed, or nobody carries them."""


class Entry(NamedTuple):
    """A system of the registry.

    styles: "paintings" where any picture is a style, "numbers" where those of its training are, "one" where it has one,
        None where it has no style.
    published: whether a package carries weights.
    """

    module: str
    class_name: str
    styles: str | None
    description: str
    published: bool = False


SYSTEMS = {
    "adaattn": Entry("adaattn", "AdaAttN", "paintings", "attention to features of five layers (Liu et al., ICCV 2021)"),
    "adaconv": Entry("adaconv", "AdaConv", "paintings", "filters predicted from the style (Chandran et al., CVPR 2021)"),
    "adain": Entry("adain", "AdaIN", "paintings", "mean and deviation of features (Huang and Belongie, ICCV 2017)"),
    "avatar_net": Entry("avatar_net", "AvatarNet", "paintings", "patches of the style (Sheng et al., CVPR 2018)"),
    "cin": Entry("cin", "CIN", "numbers", "many styles, and mixtures (Dumoulin et al., ICLR 2017)", True),
    "din": Entry("din", "DIN", "paintings", "a light network, filters made from the style (Jing et al., AAAI 2020)"),
    "diversified": Entry("diversified", "Diversified", "numbers", "many styles or textures (Li et al., CVPR 2017)"),
    "ghiasi": Entry("ghiasi", "Ghiasi", "paintings", "any painting as the style (Ghiasi et al., BMVC 2017)", True),
    "johnson": Entry("johnson", "Johnson", "one", "one network a style (Johnson et al., ECCV 2016)"),
    "mgans": Entry("mgans", "MGANs", "one", "features decoded as a discriminator taught (Li and Wand, ECCV 2016)"),
    "sanet": Entry("sanet", "SANet", "paintings", "attention to features of two layers (Park and Lee, CVPR 2019)"),
    "style_bank": Entry("style_bank", "StyleBank", "numbers", "a bank of filters for each style (Chen et al., CVPR 2017)"),
    "super_resolution": Entry("johnson", "SuperResolution", None, "sides 4 times as long (Johnson et al., ECCV 2016)"),
    "texture_networks": Entry("texture_networks", "TextureNetworks", "one", "noise of six scales (Ulyanov et al., 2016)"),
    "wct": Entry("wct", "WCT", "paintings", "whitening and colouring, no training on styles (Li et al., NIPS 2017)"),
}

# Those that optimise the picture itself, by the features of a VGG-19: classes derived from `synthesis.Synthesis`.
SYNTHESES = {
    "cnnmrf": Entry("cnnmrf", "CNNMRF", "paintings", "patches that correlate best (Li and Wand, CVPR 2016)"),
    "gatys": Entry("gatys", "Gatys", "paintings", "features and Gram matrices (Gatys et al., CVPR 2016)"),
    "histogram": Entry("histogram", "Histogram", "paintings", "histograms of features, too (Risser et al., 2017)"),
    "laplacian": Entry("laplacian", "Laplacian", "paintings", "the content's edges, too (Li et al., ACM MM 2017)"),
    "reshuffle": Entry("reshuffle", "Reshuffle", "paintings", "patches, each used as often (Gu et al., CVPR 2018)"),
}


def build(name: str, **sizes):
    """A system with random weights; sizes are the paper's unless told."""
    return _class_of("build", name)(**sizes)


def default_sizes(name: str) -> dict:
    """A system's constructor arguments, by name, and the paper's sizes."""
    arguments = inspect.signature(_class_of("default_sizes", name)).parameters.values()
    return {argument.name: argument.default for argument in arguments}


def published_sizes(name: str) -> dict:
    """Constructor arguments of a system's published weights; none where no package carries any."""
    return _class_of("published_sizes", name).published_sizes


def load(name: str, weights=None, **sizes):
    """A system with its weights, in eval mode.

    Args:
        name: a key of SYSTEMS or of SYNTHESES.
        weights: a file that its `save` or `fastnorm train` wrote; for a system with published weights also where they are,
            as its `from_package` says, and None for the package that carries them; of SYNTHESES a public file of VGG-19, and
            None for the one that torchvision keeps.
        sizes: constructor arguments, for weights of other sizes.

    Raises ValueError for an unknown name or a file that does not fit, MissingWeights where a package is missing, or
    nobody carries weights.
    """
    system = _class_of("load", name)
    if name in SYNTHESES:
        return system.load(weights, **sizes)
    if weights is not None and Path(weights).suffix == ".safetensors":
        return system.load(weights, **sizes)
    if not SYSTEMS[name].published:
        if weights is not None:
            return system.load(weights, **sizes)  # Which says what is wrong with it.
        advice = f"train it (fastnorm train {name}), or give a file (--weights)"
        raise MissingWeights(f"no package carries weights of {name}: {advice}")
    return system.from_package(weights, **sizes)


def _class_of(function: str, name: str):
    known = SYSTEMS | SYNTHESES
    if name not in known:
        raise ValueError(f"{function}: name: expected one of {', '.join(known)}, got {name!r}")
    entry = known[name]
    return getattr(import_module(f"{__name__}.{entry.module}"), entry.class_name)
