"""What a system takes: parameters, operations and memory, counted on the meta device, where nothing is computed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..ops import backends
from . import SYSTEMS, build

__all__ = ["SIDE", "Cost", "cost", "multiply_adds", "on_meta", "peak_bytes", "stylizing"]

SIDE = 512  # Of the picture and of the painting for which a system is counted.


@dataclass(frozen=True)
class Cost:
    """What a system takes, in float32, for a picture and a painting of `SIDE` pixels a side.

    operations: multiply-adds of convolutions and products for each pixel of the picture, with an encoded style; of the
        published layers, whatever our kernels leave out.
    encoding: the same of `encode`, for each pixel of the painting; 0 where there is nothing to encode.
    memory: bytes of all tensors that are there at once, the weights and the picture not counted, nor what kernels take for
        themselves. On the CPU a process grew by 149 MB for AdaIN's 134, by 45 for CIN's 42, by 84 for Johnson's 51.

    The last three are None where what is done depends on the numbers, which the meta device does not have.
    """

    parameters: int
    operations: float | None
    encoding: float | None
    memory: int | None


def cost(name: str, **sizes) -> Cost:
    """Of a system of the registry; sizes are the paper's unless told."""
    model, picture = on_meta(name, **sizes), torch.empty(1, 3, SIDE, SIDE, device="meta")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    try:
        encoding = multiply_adds(lambda: style_on_meta(model)) / SIDE**2
        paint = stylizing(model, picture)
        return Cost(parameters, multiply_adds(paint) / SIDE**2, encoding, peak_bytes(paint))
    except (NotImplementedError, RuntimeError):
        return Cost(parameters, None, None, None)


def on_meta(name: str, dtype: torch.dtype = torch.float32, **sizes):
    """A system without memory for its weights."""
    with torch.device("meta"):
        return build(name, **sizes).to(dtype).eval()


def style_on_meta(model, side: int = SIDE):
    """A style as `encode` makes it of a painting or of a number; None for a system that takes none."""
    kind = SYSTEMS[model.system()].styles
    if kind not in ("paintings", "numbers"):
        return None
    painting = torch.empty(1, 3, side, side, device="meta", dtype=next(model.parameters()).dtype)
    return model.encode(painting if kind == "paintings" else 0)


def stylizing(model, picture: Tensor, styles: int = 1, side: int = SIDE) -> Callable[[], Tensor]:
    """The call that stylises a picture, by regions where there are several styles; of paintings of this side."""
    with torch.no_grad():
        encoded = style_on_meta(model, side)
    if styles == 1:
        return lambda: model.stylize(picture, encoded)
    mask = picture.new_empty(1, styles, *picture.shape[2:])
    return lambda: model.stylize_regions(picture, styles * [encoded], mask)


def multiply_adds(call: Callable) -> int:
    """Of the convolutions and matrix products of a call; one behind an upsampling in full, whatever could be saved."""
    # Operators of ours say nothing of what they multiply; their definitions are torch's.
    with backends.by_reference(), FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops() // 2


def peak_bytes(call: Callable) -> int:
    """The most that tensors hold at once which a call makes, its result included."""
    # In inference mode torch's operators would hide the tensors of those that they are made of.
    with _Held() as held, torch.no_grad():
        call()
    return held.peak


class _Held(TorchDispatchMode):
    """Counts the memory of tensors from the operator that makes them until nobody holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        # A view of a tensor from elsewhere, or what is written into it in place, is no memory of this call.
        self._known.update(tensor.untyped_storage() for tensor in _tensors((args, kwargs)))
        made = function(*args, **(kwargs or {}))
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._release, storage.nbytes())
        return made

    def _release(self, size: int) -> None:
        self.now -= size


def _tensors(tree):
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
