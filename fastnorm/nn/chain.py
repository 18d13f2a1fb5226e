from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn

from ..ops import backends
from ._plan import Plan, make_plan
from ._recognise import CONTAINER_FORWARDS, Watch
from ._styles import call, takes_style


class Chain(nn.Sequential):
    """torch.nn.Sequential with a kernel a layer: norm, activation, upsampling and padding happen inside the convolutions.

    It takes ordinary modules, and runs what they say by `functional.norm_conv2d`: a convolution reads what the one before
    wrote, normalises, activates, upsamples and pads on the way, and takes the statistics for the norm behind it as it
    writes. Results are those of the modules, up to rounding; parameters and state_dict are theirs. `Residual` adds its
    input. What cannot be fused is called as it is: modules of other types, those with hooks, those that share their
    parameters or buffers with another, a norm that updates running statistics. `print(chain.plan())` says what and why.

        decoder = Chain(
            nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(64, 32, 3), nn.InstanceNorm2d(32), nn.ReLU(),
            nn.ReflectionPad2d(4), nn.Conv2d(32, 3, 9), nn.Sigmoid(),
        )

    The bias of a convolution before an instance norm is left away: the norm takes it out again. Its gradient is 0.

    A module of your own joins in one of two ways. With a method `affine_of(style) -> (weight, bias)`, each (C,) or (N, C),
    and a number `eps`, it is an instance norm whose affine map comes of the style; an `activation`, by name, is applied
    behind it. A subclass of Chain may say by `parts()` which modules it runs, where those are not its children.
    """

    adds_input = False

    def forward(self, input: Tensor, style=None) -> Tensor:
        """input (N, C, H, W), or (C, H, W) as a batch of one; or whatever the first module takes.

        `style` is handed to every module whose forward has an argument of that name: AdaIN, ConditionalInstanceNorm2d,
        DynamicInstanceNorm, your own. A dict gives each its own style, by its name in the chain, or that of a chain
        around it: `{"1": first, "decoder": others}`.
        """
        # Exporters know torch's operators, and nothing of plans.
        if backends.reference() or torch.jit.is_tracing():
            return self.one_by_one(input, style)
        return self._current_plan().run(self, input, style)

    def one_by_one(self, input: Tensor, style=None) -> Tensor:
        """`forward` without a plan: every module called as it is."""
        for name, module in self.parts().items():
            input = call(module, name, input, style, takes_style(module))
        return input

    def parts(self) -> dict[str, nn.Module]:
        """The modules that it runs one after the other, by name."""
        return dict(self._modules)

    def plan(self, input_shape: tuple[int, ...] | None = None, dtype: torch.dtype = torch.float32) -> Plan:
        """What runs: a table by `print`, a picture by `.draw(path)`. With an input's shape and type, all maps' sizes, too.

        With gradients the same steps run, and what enters a convolution is written, for the backward needs it.
        """
        plan = self._current_plan()
        return plan if input_shape is None else plan.of(input_shape, dtype)

    def _current_plan(self):
        if torch.compiler.is_compiling():
            return make_plan(self)  # While it traces; then it watches the modules itself.
        plan, watch, planned = self.__dict__.get("_planned", (None, None, None))
        # A replica of torch.nn.DataParallel comes with the plan of the module that it was copied from.
        if plan is None or planned() is not self or not watch.unchanged():
            plan = make_plan(self)
            self.__dict__["_planned"] = plan, Watch(self), weakref.ref(self)
        return plan

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "_planned"}


CONTAINER_FORWARDS.add(Chain.forward)
