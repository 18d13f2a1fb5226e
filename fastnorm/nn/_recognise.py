"""What a module is to a chain: some of the parts below, one after the other.

`RULES` has a row for each type of module: the settings that its parts depend on, and a function that gives the parts, or
raises `Unfused` with the reason why there are none. A new module is a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from operator import attrgetter
from typing import NamedTuple

from torch import nn
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils.parametrize import is_parametrized

from ..ops._window import from_last, per_dimension
from .adain import AdaIN
from .conditional_instance_norm import ConditionalInstanceNorm2d
from .instance_norm import InstanceNorm2d
from .reflection_pad import ReflectionPad2d
from .upsample_conv2d import UpsampleConv2d
from .upsample_pad import UpsamplePad2d


class Unfused(Exception):
    """A module runs as it is; the message says why."""


@dataclass(frozen=True)
class Convolution:
    """Without its padding, which is a part before it; but with the padding "same" of an even kernel, whose sides differ.

    A transposed one has its padding, which cuts off what it writes.
    """

    padding: int | str | tuple[int, int] = 0
    transposed: bool = False
    output_padding: tuple[int, int] = (0, 0)

    @property
    def words(self) -> str:
        return "conv_transpose" if self.transposed else "conv"


@dataclass(frozen=True)
class Norm:
    """(input - mean) * rstd * weight + bias: by the statistics of the input, or by running ones.

    Those of the input are over each plane, or each sample, or are a blend of the two.
    """

    eps: float
    correction: int = 0
    eps_mode: str = "var"
    running: bool = False
    styled: bool = False
    over: str = "plane"
    # Of a plane; None for any.
    dims: int | None = 2

    @property
    def words(self) -> str:
        return "norm" if self.over == "plane" else "layer norm" if self.over == "sample" else "layer-instance norm"

    @property
    def of_planes(self) -> dict:
        """How the statistics of planes are taken that it needs."""
        if self.over != "plane":
            return dict(eps=0.0, correction=0, eps_mode="var")
        return dict(eps=self.eps, correction=self.correction, eps_mode=self.eps_mode)


@dataclass(frozen=True)
class Activation:
    name: str
    negative_slope: float = 0.01

    @property
    def words(self) -> str:
        return self.name


@dataclass(frozen=True)
class Upsampling:
    factor: tuple[int, int]

    @property
    def words(self) -> str:
        return f"upsample {shortened(self.factor)}"

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return *shape[:2], *(size * factor for size, factor in zip(shape[2:], self.factor))


@dataclass(frozen=True)
class Padding:
    mode: str
    sides: tuple[int, int]

    @property
    def words(self) -> str:
        return f"{self.mode} {shortened(self.sides)}"

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return *shape[:2], *(size + 2 * side for size, side in zip(shape[2:], self.sides))


@dataclass(frozen=True)
class Sum:
    """Of what a Residual took in and what comes out of its modules."""

    words = "add"


def shortened(numbers):
    return str(numbers[0]) if len(set(numbers)) == 1 else "x".join(map(str, numbers))


Part = Convolution | Norm | Activation | Upsampling | Padding | Sum


# Each takes a module and gives its parts.


def _convolution(conv):
    padding = conv.padding
    if padding == "same":
        around = [step * (size - 1) for step, size in zip(conv.dilation, conv.kernel_size)]
        if any(total % 2 for total in around):
            return (Convolution("same"),)
        padding = tuple(total // 2 for total in around)
    if padding == "valid" or not any(padding):
        return (Convolution(),)
    return Padding(conv.padding_mode, tuple(padding)), Convolution()


def _transposed_convolution(conv):
    return (Convolution(tuple(conv.padding), True, tuple(conv.output_padding)),)


def _instance_norm(norm):
    if norm.training and norm.track_running_stats:
        raise Unfused("it updates running statistics")
    return (Norm(norm.eps, running=norm.track_running_stats), *_own_activation(norm))


def _batch_norm(norm):
    if norm.training or not norm.track_running_stats:
        raise Unfused("it normalises by the statistics of the batch")
    return (Norm(norm.eps, running=True),)


def _styled_norm(norm):
    correction, eps_mode = getattr(norm, "correction", 0), getattr(norm, "eps_mode", "var")
    return (Norm(norm.eps, correction, eps_mode, styled=True), *_own_activation(norm))


def _own_activation(norm):
    name = getattr(norm, "activation", None)
    return () if name is None else (Activation(name, getattr(norm, "negative_slope", 0.01)),)


def _activation(name):
    return lambda module: (Activation(name),)


def _gelu(module):
    if module.approximate != "none":
        raise Unfused("it approximates GELU by tanh")
    return (Activation("gelu"),)


def _upsample(module):
    factor = module.scale_factor if isinstance(module.scale_factor, tuple) else (module.scale_factor,) * 2
    if module.mode not in ("nearest", "nearest-exact"):
        raise Unfused(f"its mode is {module.mode}")
    if None in factor:
        raise Unfused("it has a size, not a factor")
    if any(number != int(number) or number < 1 for number in factor):
        raise Unfused("its factor is no integer")
    return () if max(factor) == 1 else (Upsampling(tuple(map(int, factor))),)


def _padding(mode):
    def rule(module):
        left, right, top, bottom = module.padding
        if min(module.padding) < 0:
            raise Unfused("it crops")
        if (left, top) != (right, bottom):
            raise Unfused("its sides differ")
        return (Padding(mode, (top, left)),) if top or left else ()

    return rule


def _constant_padding(module):
    if module.value != 0:
        raise Unfused(f"it pads with {module.value}")
    return _padding("zeros")(module)


def _upsample_pad(module):
    around = from_last(module.padding, 2)
    if around[::2] != around[1::2]:
        raise Unfused("its sides differ")
    return _upsampled_and_padded(module, around[::2])


def _upsample_conv(conv):
    return *_upsampled_and_padded(conv, per_dimension(conv.padding, 2)), Convolution()


def _upsampled_and_padded(module, sides):
    factor = per_dimension(module.scale_factor, 2)
    upsampling = (Upsampling(tuple(factor)),) if max(factor) > 1 else ()
    return upsampling + ((Padding(module.padding_mode, tuple(sides)),) if any(sides) else ())


def _nothing(module):
    return ()


def _dropout(module):
    if module.training and module.p > 0:
        raise Unfused("it is random in training")
    return ()


class Rule(NamedTuple):
    settings: str
    parts: Callable[[nn.Module], tuple[Part, ...]]


_CONV = "stride padding dilation groups padding_mode"
_NORM = "eps track_running_stats"
_OWN = "eps activation negative_slope"
_UPSAMPLED = "scale_factor padding padding_mode"

RULES = {
    nn.Conv2d: Rule(_CONV, _convolution),
    nn.ConvTranspose2d: Rule(f"{_CONV} output_padding", _transposed_convolution),
    InstanceNorm2d: Rule(f"{_OWN} track_running_stats", _instance_norm),
    nn.InstanceNorm2d: Rule(_NORM, _instance_norm),
    nn.BatchNorm2d: Rule(_NORM, _batch_norm),
    AdaIN: Rule("eps correction eps_mode", _styled_norm),
    ConditionalInstanceNorm2d: Rule(_OWN, _styled_norm),
    nn.ReLU: Rule("inplace", _activation("relu")),
    nn.LeakyReLU: Rule("negative_slope inplace", lambda module: (Activation("leaky_relu", module.negative_slope),)),
    nn.SiLU: Rule("inplace", _activation("silu")),
    nn.GELU: Rule("approximate", _gelu),
    nn.Sigmoid: Rule("", _activation("sigmoid")),
    nn.Tanh: Rule("", _activation("tanh")),
    nn.Upsample: Rule("mode scale_factor", _upsample),
    nn.UpsamplingNearest2d: Rule("mode scale_factor", _upsample),
    UpsamplePad2d: Rule(_UPSAMPLED, _upsample_pad),
    UpsampleConv2d: Rule(f"{_UPSAMPLED} groups", _upsample_conv),
    ReflectionPad2d: Rule("padding", _padding("reflect")),
    nn.ReflectionPad2d: Rule("padding", _padding("reflect")),
    nn.ReplicationPad2d: Rule("padding", _padding("replicate")),
    nn.CircularPad2d: Rule("padding", _padding("circular")),
    nn.ZeroPad2d: Rule("padding value", _constant_padding),
    nn.ConstantPad2d: Rule("padding value", _constant_padding),
    nn.Identity: Rule("", _nothing),
    nn.Dropout: Rule("p", _dropout),
    nn.Dropout2d: Rule("p", _dropout),
}

# Those of them that may work in place.
_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.SiLU)

# A module of another type joins by a method `affine_of(style)`, and `eps`; `activation` and `negative_slope` if it likes.
_PROTOCOL = Rule("eps", _styled_norm)

# What a module is whose forward is one of these: its children, one after the other. `Chain` adds its own.
CONTAINER_FORWARDS = {nn.Sequential.forward}


def parts_of(module: nn.Module) -> tuple[Part, ...]:
    """What a module amounts to; `Unfused` says why it has to be called."""
    why_called(module)
    kind, rule = _rule(type(module))
    if rule is None:
        if isinstance(module, nn.Sequential):
            raise Unfused("a chain with a forward of its own")
        raise Unfused(
            "unknown as a whole: make it a Chain or Residual" if module._modules else "no layer that a chain knows"
        )
    methods = "forward", "_conv_forward", "_apply_instance_norm"
    if any(getattr(type(module), name, None) is not getattr(kind, name, None) for name in methods):
        raise Unfused(f"a {kind.__name__} with a forward of its own")
    return rule.parts(module)


def is_known(module: nn.Module) -> bool:
    return _rule(type(module))[1] is not None


def why_called(module: nn.Module) -> None:
    """Raise `Unfused` where more happens when this module is called than its type says."""
    if any(hooks_of(module)):
        raise Unfused("it has hooks")
    if type(module).__call__ is not nn.Module.__call__:
        raise Unfused("it has a __call__ of its own")
    if "forward" in vars(module):
        raise Unfused("its forward is replaced")
    if is_parametrized(module):
        raise Unfused("it is parametrised")


def hooks_of(module: nn.Module):
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def _rule(kind):
    """The type that `kind` is of, of those with a row or a method `affine_of`, and its row; (None, None) for others."""
    for base in kind.__mro__:
        if base in RULES:
            return base, RULES[base]
        if "affine_of" in vars(base):
            return base, _PROTOCOL
    return None, None


def children(module: nn.Module) -> dict[str, nn.Module] | None:
    """The modules that a container runs one after the other; None for every other module."""
    if _forward_of(type(module)) not in CONTAINER_FORWARDS or "forward" in vars(module):
        return None
    return module.parts() if is_chain(module) else dict(module._modules)


def _forward_of(kind):
    """None for the class of scripted modules, which have one each."""
    return getattr(kind, "forward", None)


def changed_in_place(name: str, modules: dict[str, nn.Module]) -> tuple[dict[str, nn.Module], bool]:
    """The activations, by name, that begin a chain and work in place: on its very input. And whether there is no more to it."""
    found = {}
    for child, module in modules.items():
        path, inside = f"{name}.{child}" if name else child, children(module)
        if inside is not None:
            more, is_all = changed_in_place(path, inside)
            found |= more
            if not is_all or getattr(module, "adds_input", False):
                return found, False
        elif getattr(module, "inplace", False) and type(module) in _ACTIVATIONS:
            found[path] = module
        elif type(module) is not nn.Identity:
            return found, False
    return found, True


def is_chain(module: nn.Module) -> bool:
    """Whether it is a Chain, which knows of this file, and not the other way round."""
    return isinstance(module, nn.Sequential) and hasattr(module, "parts")


def global_hooks() -> bool:
    return bool(_has_any_global_hook())


class Watch:
    """All that the plan of a chain depends on. Looking costs about half a microsecond a module.

    It does not hold the chain itself, which holds it: what goes out of use is to be freed at once.
    """

    def __init__(self, root: nn.Module) -> None:
        self._modules = modules = list(root.modules())[1:]
        self._settings = [(attrgetter("__class__", "training", *_settings(type(module))), module) for module in modules]
        containers = [module for module in modules if module._modules or isinstance(module, nn.Sequential)]
        self._children = [module._modules for module in (root, *containers)]
        self._hooks = [hooks for module in modules for hooks in hooks_of(module)]
        self._seen = self._look()

    def unchanged(self) -> bool:
        return self._seen == self._look()

    def _look(self):
        return (
            [settings(module) for settings, module in self._settings],
            ["forward" in module.__dict__ for module in self._modules],
            [list(children.items()) for children in self._children],
            [bool(hooks) for hooks in self._hooks],
        )


def _settings(kind):
    _, rule = _rule(kind)
    return rule.settings.split() if rule else ()


def has_style_argument(kind: type) -> bool:
    forward = _forward_of(kind)
    return forward is not None and "style" in signature(forward).parameters
