"""Every system on fused layers against the same on the reference backend, which is plain torch: time and peak memory.

    python benchmarks/systems.py [CASE ...] [--size 512] [--json FILE]

On the CPU, float32, random weights, the style encoded before. Times are in turns in one process, the median of each; memory
is what a call adds to a fresh process, at most, as the system counts it.
"""

import contextlib
from functools import partial

import torch

from fastnorm import models
from fastnorm.benchmarks._sides import main
from fastnorm.ops import backends

BACKENDS = {"fused": contextlib.nullcontext, "reference": backends.by_reference}


def whole(name):
    """A system on a picture: what makes the model, and of it what is measured, for any size."""

    def make():
        model, kind = models.build(name).eval(), models.SYSTEMS[name].styles

        def at(size):
            picture = torch.rand(1, 3, size, size)
            styles = {"paintings": picture.flip(2), "numbers": 1}
            style = model.encode(styles[kind]) if kind in styles else None
            return lambda: model.stylize(picture, style)

        return at

    return make


def features_of(size):
    return torch.rand(1, 512, size // 8, size // 8)


def adain_decoder():
    decoder = models.build("adain").eval().decoder
    return lambda size: partial(decoder, features_of(size))


def adaconv_decoder():
    model = models.build("adaconv").eval()
    style = model.encode(torch.rand(1, 3, 256, 256))
    return lambda size: partial(model.decoded, features_of(size), style)


def adaattn_attention():
    model = models.build("adaattn").eval()

    def at(size):
        picture = torch.rand(1, 3, size, size)
        content, style = (model.encoder.features(each) for each in (picture, picture.flip(2)))
        return partial(model.attended, content, model.kept(style))

    return at


def by_backends(make):
    """The same call on each backend."""

    def case():
        with torch.inference_mode():
            at = make()

        def steps(size):
            with torch.inference_mode():
                call = at(size)
            return {backend: partial(under, chosen, call) for backend, chosen in BACKENDS.items()}

        return steps

    return case


@torch.inference_mode()
def under(chosen, call):
    with chosen():
        return call()


MADE = {name: whole(name) for name in models.SYSTEMS} | {
    "adaconv decoder": adaconv_decoder,
    "adain decoder": adain_decoder,
    "adaattn attention": adaattn_attention,
}
CASES = {name: by_backends(make) for name, make in MADE.items()}


if __name__ == "__main__":
    main(__doc__, CASES, tuple(BACKENDS), "systems", size=512, rounds=5)
