"""What a row of the operator registry holds."""

from dataclasses import dataclass, field
from typing import Any, Callable, Iterator

from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One call: positional tensors and settings, and how it reads in a table."""

    name: str
    args: tuple
    kwargs: dict[str, Any] = field(default_factory=dict)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Sample":
        """The same call on changed tensors, inside tuples and keywords too."""

        def apply(value):
            if isinstance(value, Tensor):
                return change(value)
            return tuple(map(apply, value)) if isinstance(value, tuple) else value

        return Sample(self.name, apply(self.args), {key: apply(value) for key, value in self.kwargs.items()})


@dataclass(frozen=True)
class Operator:
    """An operator: its name, how it runs, what it must equal, calls to try it with, and the least it costs.

    `samples(make, shape)` yields calls on maps of `shape`, (N, C, *); `make(*shape)` returns a random tensor of the type,
    device and layout under test. `maps` is how often each element must at least be read or written, forward and backward.
    An operator without a gradient has no `backward_maps`. `kernels` are the names in `torch.ops.fastnorm` that it runs on.
    """

    name: str
    run: Callable
    reference: Callable
    samples: Callable[[Callable[..., Tensor], tuple[int, ...]], Iterator[Sample]]
    kernels: tuple[str, ...]
    maps: float
    backward_maps: float
    flops: float

    def bytes(self, input: Tensor, backward: bool = False) -> float:
        """Bytes that a call on `input` must move through memory."""
        return (self.backward_maps if backward else self.maps) * input.numel() * input.element_size()
