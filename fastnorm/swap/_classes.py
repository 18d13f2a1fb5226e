"""Modules whose class is exchanged for one of the same name, with another forward; all else stays: so does their state.

A class is made of an original and of a form, once for each pair. Copies and pickles are of the same kind as what was copied.
"""

from __future__ import annotations

import copyreg
from functools import cache

import torch
from torch import nn

from ..nn import instance_norm
from ..nn._recognise import CONTAINER_FORWARDS
from ..nn.chain import Chain
from ._capture import Capture, capturing
from ._rewrite import Choices


class Swapped:
    """What the exchanged classes have in common."""

    _fastnorm_original: type
    _fastnorm_form: str

    def __init_subclass__(cls, **kwargs):
        if "_fastnorm_form" not in vars(cls):  # Else it is none that an original would want to know of.
            super().__init_subclass__(**kwargs)

    def __reduce_ex__(self, protocol):
        """As the original says how it is copied, and then exchanged again."""
        reduced = self._as_original().__reduce_ex__(protocol)
        if isinstance(reduced, str):
            return reduced
        make, args, *state = reduced
        return _made, (self._fastnorm_original, self._fastnorm_form, make, args), *state

    def _as_original(self):
        """Another object, of the original class, with all that this one has."""
        original = object.__new__(unswapped(type(self)))
        original.__dict__.update({name: value for name, value in self.__dict__.items() if name not in _NOT_KEPT})
        for name in copyreg._slotnames(type(original)):
            if hasattr(self, name):
                object.__setattr__(original, name, getattr(self, name))
        return original


# What is made anew when it is needed.
_NOT_KEPT = ("_planned", "_fastnorm_captured", "_compiled_call_impl")


def _made(original, form, make, args):
    module = make(*args)
    if type(module) is original:
        module.__class__ = swapped(original, form)
    return module


def _shows_original() -> bool:
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return True
    return torch.compiler.is_compiling() and _is_capturing()


def _is_capturing() -> bool:
    """Settled when a graph is made: how many threads capture at the time is no reason to make another."""
    return capturing.depth > 0


# As torch.compiler.assume_constant_result does, but that imports torch._dynamo, which takes as long as all else here.
_is_capturing._dynamo_marked_constant = True


class _Norm(Swapped, instance_norm.Fused):
    activation, negative_slope = None, 0.01

    def forward(self, input):
        if _shows_original():
            return self._fastnorm_original.forward(self, input)
        return super().forward(input)


class _Norm1d(_Norm):
    _spatial_dims = 1


class _Norm2d(_Norm):
    _spatial_dims = 2


class _Norm3d(_Norm):
    _spatial_dims = 3


class _Sequence(Swapped, Chain):
    def forward(self, input):
        if _shows_original():
            return self._fastnorm_original.forward(self, input)
        return super().forward(input)


CONTAINER_FORWARDS.add(_Sequence.forward)


class _Captured(Swapped):
    """A forward that torch.compile captures, for each kind of arguments once, and that is rewritten then."""

    def forward(self, *args, **kwargs):
        if torch.compiler.is_compiling() or _shows_original():
            return self._fastnorm_original.forward(self, *args, **kwargs)
        captured = self.__dict__.get("_fastnorm_captured")
        if captured is None:
            captured = Capture(self._fastnorm_original.forward, self.__dict__.get("_fastnorm_choices", Choices()))
            self.__dict__["_fastnorm_captured"] = captured
        return captured(self, *args, **kwargs)


FORMS = {"norm1d": _Norm1d, "norm2d": _Norm2d, "norm3d": _Norm3d, "sequence": _Sequence, "captured": _Captured}


@cache
def swapped(original: type[nn.Module], form: str) -> type[nn.Module]:
    names = {"__module__": original.__module__, "__qualname__": original.__qualname__, "__doc__": original.__doc__}
    names |= {"_fastnorm_original": original, "_fastnorm_form": form}
    return type(original.__name__, (FORMS[form], original), names)


def unswapped(kind: type[Swapped]) -> type[nn.Module]:
    """The original; of a class that somebody derived from ours, as torch's parametrisations do, one so derived from it."""
    if "_fastnorm_form" in vars(kind):
        return kind._fastnorm_original
    names = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    return type(kind.__name__, (kind._fastnorm_original,), names)
