from __future__ import annotations

from torch import Tensor

from .chain import Chain


class Residual(Chain):
    """input + modules(input): a Chain whose input is added to what comes out, which has its shape.

    In a Chain the sum costs no pass of its own: the convolution that reads it adds on the way. A block of one's own that
    says `x + self.block(x)` is one with the same state_dict: `Residual(OrderedDict(block=Sequential(...)))`, or a subclass
    that sets `self.block` and has no forward. Activations that begin it in place change what is added, as they do there.
    """

    adds_input = True

    def one_by_one(self, input: Tensor, style=None) -> Tensor:
        return input + super().one_by_one(input, style)
