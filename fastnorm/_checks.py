"""Arguments of the public functions, checked in their own words: function, argument, what was expected, what came.

A call on a small map costs about 10 us in all, so a check is a few comparisons, and what is absent is not checked.
"""

import functools
import numbers
from math import inf, prod
from operator import mul

import torch
from torch import Tensor

from .ops._activation import ACTIVATIONS, CODES
from .ops._spectral import METHODS
from .ops._window import PADDING_MODES, both_sides, from_last, output_size, per_dimension
from .ops.instance_stats import EPS_MODES, plane_size
from .ops.match_histogram import MOST_BINS

_FLOATS = {torch.float32, torch.float64, torch.bfloat16, torch.float16}
_STYLES = _FLOATS | {torch.int64, torch.int32}
_BOOLS = {torch.bool}
_STRIDED = torch.strided

# The usual types first: an abstract one takes ten times as long to ask. torch.compile traces the symbolic ones.
_NUMBERS = (float, int, torch.SymFloat, torch.SymInt, numbers.Real)
_INTEGERS = (int, torch.SymInt, numbers.Integral)


def check_tensor(
    function: str, name: str, tensor: Tensor, types=_FLOATS, expected: str = "float32, float64, bfloat16 or float16"
) -> None:
    """A dense tensor of one of `types`."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{function}: {name}: expected a tensor, got {_type(tensor)}")
    if tensor.layout is not _STRIDED or tensor.is_nested:
        layout = "a nested one" if tensor.is_nested else f"{tensor.layout}"
        raise TypeError(f"{function}: {name}: expected a dense tensor (torch.strided), got {layout}")
    if tensor.dtype not in types:
        raise TypeError(f"{function}: {name}: expected {expected}, got {tensor.dtype}")


def check_map(function: str, input: Tensor, name: str = "input") -> int:
    """An (N, C, *) map; returns how many elements a plane has."""
    check_tensor(function, name, input)
    if input.dim() < 3:
        raise ValueError(f"{function}: {name}: expected shape (N, C, *) with at least one spatial dimension, got {_shape(input)}")
    size = plane_size(input)
    if size == 0:
        raise ValueError(f"{function}: {name}: expected planes of at least one element, got planes of {_plane(input)}")
    return size


def check_per_plane(function: str, name: str, parameter: Tensor, input: Tensor, shared_samples: bool = False) -> None:
    """A (C,) or (N, C) parameter of `input`; with `shared_samples`, (1, C) too."""
    check_tensor(function, name, parameter)
    n, c, *_ = input.shape
    shape = parameter.shape
    if shape != (c,) and shape != (n, c) and not (shared_samples and shape == (1, c)):
        shared = f", (1, {c})" if shared_samples else ""
        raise ValueError(f"{function}: {name}: expected shape ({c},){shared} or ({n}, {c}), got {_shape(parameter)}")
    check_same_device(function, name, parameter, input)


def check_same_shape(function: str, name: str, map: Tensor, input: Tensor) -> Tensor:
    """A map of the input's shape, in its type (autocast mixes types; elsewhere a mixture is an error)."""
    check_tensor(function, name, map)
    if map.shape != input.shape:
        raise ValueError(f"{function}: {name}: expected the input's shape {_shape(input)}, got {_shape(map)}")
    return as_type_of(function, name, map, input)


def autocasts(input: Tensor) -> bool:
    """Whether autocast is on where `input` is; a meta tensor is nowhere."""
    device = input.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def check_running_statistics(
    function: str, running_mean: Tensor | None, running_var: Tensor | None, momentum: float, input: Tensor
) -> None:
    """Both of shape (C,), and the momentum they are updated by."""
    c = input.shape[1]
    for name, statistic in (("running_mean", running_mean), ("running_var", running_var)):
        if statistic is None:
            raise ValueError(f"{function}: {name}: expected a tensor of shape ({c},), got None")
        check_tensor(function, name, statistic)
        if statistic.shape != (c,):
            raise ValueError(f"{function}: {name}: expected shape ({c},), got {_shape(statistic)}")
        check_same_device(function, name, statistic, input)
    check_number(function, "momentum", momentum)


def check_styles(function: str, weight: Tensor, bias: Tensor, style: Tensor, input: Tensor) -> None:
    """Tables with a row for each style, and the rows or mixtures that are wanted."""
    n, c, *_ = input.shape
    for name, table in (("weight", weight), ("bias", bias)):
        check_tensor(function, name, table)
        if table.dim() != 2 or table.shape[1] != c or table.shape[0] == 0:
            raise ValueError(f"{function}: {name}: expected shape (S, {c}), a row for each style, got {_shape(table)}")
        check_same_device(function, name, table, input)
    if bias.shape != weight.shape:
        raise ValueError(f"{function}: bias: expected the weight's shape {_shape(weight)}, got {_shape(bias)}")
    check_style(function, style, (n,), weight.shape[0])
    check_same_device(function, "style", style, input)


def check_style(function: str, style: Tensor, batch: tuple[int, ...], num_styles: int) -> None:
    """Indices of the batch's shape, or mixtures with a weight for each style; the batch is (N,), or () of one map alone."""
    check_tensor(function, "style", style, _STYLES, "int64 or int32 indices, or a floating-point mixture")
    if style.is_floating_point():
        if style.shape != (*batch, num_styles):
            raise ValueError(f"{function}: style: expected a mixture {(*batch, num_styles)}, got {_shape(style)}")
    elif style.shape != batch:
        raise ValueError(f"{function}: style: expected an index per sample, {batch}, got {_shape(style)}")


def check_number(function: str, name: str, value: float, least: float | None = None) -> None:
    """A finite number; a tensor is none, for its gradient would be lost."""
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, _NUMBERS)):
        raise TypeError(f"{function}: {name}: expected a number, got {_type(value)}")
    if not -inf < value < inf or least is not None and value < least:
        at_least = "" if least is None else f" of at least {least}"
        raise ValueError(f"{function}: {name}: expected a finite number{at_least}, got {value}")


def check_statistics_settings(
    function: str, input: Tensor, eps: float, correction: int, eps_mode: str, whose: str = ""
) -> None:
    """How a standard deviation is taken; `whose` is what the names of these arguments start with."""
    check_statistics_rule(function, _plane(input) if correction else None, eps, correction, eps_mode, whose)


def check_statistics_rule(
    function: str, plane: tuple[int, ...] | None, eps: float, correction: int, eps_mode: str, whose: str = ""
) -> None:
    """Of planes of that size, which an unbiased variance asks for."""
    check_number(function, f"{whose}eps", eps, 0)
    if isinstance(correction, bool) or not isinstance(correction, _INTEGERS) or correction not in (0, 1):
        raise ValueError(f"{function}: {whose}correction: expected 0 (biased) or 1 (unbiased), got {correction!r}")
    if not isinstance(eps_mode, str) or eps_mode not in EPS_MODES:
        raise ValueError(f"{function}: eps_mode: expected {_one_of(EPS_MODES)}, got {eps_mode!r}")
    if correction and prod(plane) == 1:
        raise ValueError(
            f"{function}: {whose}correction: an unbiased variance needs planes of 2 elements or more, got planes of {plane}"
        )


def check_output_statistics(
    function: str, weight: Tensor, input: Tensor, stride, padding, dilation, scale_factor, eps, correction, eps_mode
) -> None:
    """How a standard deviation of what a convolution makes is taken; the window is known to be right."""
    plane = None
    if correction:
        dims = input.dim() - 2
        size, kernel = map(mul, _plane(input), per_dimension(scale_factor, dims)), tuple(weight.shape[-dims:])
        stride, dilation = per_dimension(stride, dims), per_dimension(dilation, dims)
        plane = tuple(output_size(size, kernel, stride, both_sides(padding, kernel, dilation), dilation))
    check_statistics_rule(function, plane, eps, correction, eps_mode)


def check_activation(function: str, activation: str | None, negative_slope: float, whose: str = "") -> None:
    if activation is not None and not (isinstance(activation, str) and activation in CODES):
        names = [activation.name for activation in ACTIVATIONS if activation.name != "none"]
        raise ValueError(f"{function}: {whose}activation: expected None, {_one_of(names)}, got {activation!r}")
    check_number(function, f"{whose}negative_slope", negative_slope)


def check_same_device(function: str, name: str, tensor: Tensor, input: Tensor) -> None:
    if tensor.device != input.device:
        raise ValueError(f"{function}: {name}: expected a tensor on {input.device}, got one on {tensor.device}")


def check_channels(function: str, map: Tensor, spatial_dims: int, name: str = "input") -> None:
    """An (N, C, *) map of so many spatial dimensions."""
    check_tensor(function, name, map)
    if map.dim() != spatial_dims + 2:
        sides = ("L", "H, W", "D, H, W")[spatial_dims - 1]
        raise ValueError(f"{function}: {name}: expected shape (N, C, {sides}), got {_shape(map)}")
    check_map(function, map, name)


def check_filters(function: str, name: str, weight: Tensor, input: Tensor, in_channels: int, groups: int) -> Tensor:
    """A filter for each sample, (N, C_out, C_in / groups, *), in the input's type; `in_channels` is C_in."""
    check_tensor(function, name, weight)
    check_groups(function, groups, in_channels)
    n, spatial = input.shape[0], input.dim() - 2

    def expected():
        return f"({n}, C_out, {in_channels // groups}, {', '.join(['k'] * spatial)})"

    if weight.dim() != spatial + 3 or weight.shape[2] != in_channels // groups or 0 in weight.shape[3:]:
        raise ValueError(f"{function}: {name}: expected shape {expected()}, got {_shape(weight)}")
    if weight.shape[0] != n:
        raise ValueError(f"{function}: {name}: expected a filter for each of {n} samples, {expected()}, got {_shape(weight)}")
    _check_groups_of_outputs(function, name, weight, 1, groups)
    return as_type_of(function, name, weight, input)


def _check_groups_of_outputs(function: str, name: str, weight: Tensor, dim: int, groups: int) -> None:
    if weight.shape[dim] % groups:
        raise ValueError(
            f"{function}: {name}: expected a number of output channels that {groups} groups divide, got {_shape(weight)}"
        )


def check_groups(function: str, groups: int, in_channels: int) -> None:
    if isinstance(groups, bool) or not isinstance(groups, _INTEGERS) or groups < 1 or in_channels % groups:
        raise ValueError(f"{function}: groups: expected a divisor of the input's {in_channels} channels, got {groups!r}")


def check_layer_filters(function: str, weight: Tensor, bias: Tensor | None, input: Tensor, groups: int) -> Tensor:
    """Filters that all samples share, (C_out, C_in / groups, *), or one for each; in the input's type. And their bias."""
    check_tensor(function, "weight", weight)
    n, c = input.shape[:2]
    check_groups(function, groups, c)
    shape, own = weight.shape, weight.dim() == input.dim() + 1
    if not (own and shape[0] == n or weight.dim() == input.dim()) or shape[1 + own] != c // groups or 0 in shape[2 + own :]:
        filters = ", ".join(["C_out", str(c // groups), *["k"] * (input.dim() - 2)])
        raise ValueError(f"{function}: weight: expected shape ({filters}) or ({n}, {filters}), got {_shape(weight)}")
    _check_groups_of_outputs(function, "weight", weight, own, groups)
    if bias is not None:
        check_tensor(function, "bias", bias)
        out_channels = shape[own]
        if bias.shape != (out_channels,) and bias.shape != (n, out_channels):
            raise ValueError(f"{function}: bias: expected shape ({out_channels},) or ({n}, {out_channels}), got {_shape(bias)}")
        check_same_device(function, "bias", bias, input)
    return as_type_of(function, "weight", weight, input)


def check_transposed_filters(function: str, weight: Tensor, bias: Tensor | None, input: Tensor, groups: int) -> Tensor:
    """Filters (C_in, C_out / groups, *) that all samples share, or one for each; in the input's type. And their bias."""
    check_tensor(function, "weight", weight)
    n, c = input.shape[:2]
    check_groups(function, groups, c)
    shape, own = weight.shape, weight.dim() == input.dim() + 1
    if not (own and shape[0] == n or weight.dim() == input.dim()) or shape[own] != c or 0 in shape[1 + own :]:
        filters = ", ".join([str(c), "C_out" if groups == 1 else f"C_out / {groups}", *["k"] * (input.dim() - 2)])
        raise ValueError(f"{function}: weight: expected shape ({filters}) or ({n}, {filters}), got {_shape(weight)}")
    if bias is not None:
        check_tensor(function, "bias", bias)
        out_channels = shape[1 + own] * groups
        if bias.shape != (out_channels,) and bias.shape != (n, out_channels):
            raise ValueError(f"{function}: bias: expected shape ({out_channels},) or ({n}, {out_channels}), got {_shape(bias)}")
        check_same_device(function, "bias", bias, input)
    return as_type_of(function, "weight", weight, input)


def check_transposed_window(
    function: str, weight: Tensor, input: Tensor, stride, padding, output_padding, dilation
) -> tuple[int, ...]:
    """The size of what a transposed convolution writes."""
    size = _plane(input)
    check_sizes(function, "stride", stride, len(size), 1)
    check_sizes(function, "dilation", dilation, len(size), 1)
    check_sizes(function, "padding", padding, len(size), 0)
    check_sizes(function, "output_padding", output_padding, len(size), 0)
    numbers = (per_dimension(value, len(size)) for value in (stride, padding, output_padding, dilation))
    written = []
    for length, width, step, side, more, apart in zip(size, weight.shape[-len(size) :], *numbers):
        if more >= max(step, apart):
            raise ValueError(f"{function}: output_padding: expected less than stride or dilation, got {output_padding!r}")
        written.append((length - 1) * step - 2 * side + apart * (width - 1) + more + 1)
    if min(written) < 1:
        raise ValueError(f"{function}: padding: expected one that leaves an output, got {padding!r}, which leaves {tuple(written)}")
    return tuple(written)


def check_window(
    function: str, weight: Tensor, input: Tensor, stride, padding, dilation, padding_mode: str, scale_factor=None
) -> None:
    """Where the kernel of `weight`, its last dimensions, looks in the input, or in the upsampled one."""
    size = _plane(input)
    if scale_factor is not None:
        size = tuple(length * factor for length, factor in zip(size, scale_factor))
    kernel = tuple(weight.shape[-len(size) :])
    padded = "input" if size == _plane(input) else "upsampled input"
    window = function, kernel, size, stride, padding, dilation, padding_mode, padded
    if torch.compiler.is_compiling():
        return _check_window(*window)
    try:
        _check_window_once(*window)
    except TypeError:  # A list, a symbolic size: nothing to be remembered by.
        _check_window(*window)


def _check_window(function, kernel, size, stride, padding, dilation, padding_mode, padded):
    check_padding_mode(function, padding_mode)
    check_sizes(function, "stride", stride, len(size), 1)
    check_sizes(function, "dilation", dilation, len(size), 1)
    if not (isinstance(padding, str) and padding in ("same", "valid")):
        check_sizes(function, "padding", padding, len(size), 0, "'same', 'valid', ")
    dilation = per_dimension(dilation, len(size))
    around = both_sides(padding, kernel, dilation)
    check_border(function, around, padding_mode, size, padding, kernel, padded)
    for length, before, after, width, step in zip(size, around[::2], around[1::2], kernel, dilation):
        if step * (width - 1) + 1 > length + before + after:
            raise ValueError(
                f"{function}: weight: expected a kernel that fits into the padded input,"
                f" {tuple(l + b + a for l, b, a in zip(size, around[::2], around[1::2]))}, got {kernel}"
                + (f" at a dilation of {tuple(dilation)}" if any(step != 1 for step in dilation) else "")
            )


# A network asks for the same windows at every call.
_check_window_once = functools.lru_cache(1024, typed=True)(_check_window)


def check_padding_mode(function: str, padding_mode: str) -> None:
    if not isinstance(padding_mode, str) or padding_mode not in PADDING_MODES:
        raise ValueError(f"{function}: padding_mode: expected {_one_of(PADDING_MODES)}, got {padding_mode!r}")


def check_border(
    function: str, around, padding_mode: str, size: tuple[int, ...], padding, kernel=None, padded: str = "input"
) -> None:
    """What lies beyond a border must be inside the other one: `around` before and after each dimension of `size`."""
    most = {"reflect": -1, "circular": 0}.get(padding_mode)
    if most is None:
        return
    for length, before, after in zip(size, around[::2], around[1::2]):
        if before > length + most or after > length + most:
            limit = "smaller than" if most else "no larger than"
            raise ValueError(
                f"{function}: padding: {padding_mode} padding must be {limit} the {padded}, {size}, got {padding!r}"
                + (f" of a kernel of {kernel}" if padding == "same" else "")
            )


def check_upsampling(
    function: str, input: Tensor, scale_factor, padding, padding_mode: str, padded: str = "upsampled input"
) -> None:
    """Whole factors, and padding in torch's order; `padded` is what the caller knows the upsampled map by."""
    dims = input.dim() - 2
    check_sizes(function, "scale_factor", scale_factor, dims, 1)
    check_sizes(function, "padding", padding, 2 * dims, 0)
    check_padding_mode(function, padding_mode)
    size = tuple(map(mul, _plane(input), per_dimension(scale_factor, dims)))
    check_border(function, from_last(padding, dims), padding_mode, size, padding, padded=padded)


def check_attention(function: str, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of which each position of the second and third is one key and its value: those, in the query's type."""
    for name, map in (("query", query), ("key", key), ("value", value)):
        check_map(function, map, name)
    n, c = query.shape[:2]
    if key.shape[:2] != (n, c):
        raise ValueError(f"{function}: key: expected the query's samples and channels, ({n}, {c}, *), got {_shape(key)}")
    if value.shape[:1] + value.shape[2:] != key.shape[:1] + key.shape[2:]:
        raise ValueError(f"{function}: value: expected a position for each key, ({n}, D, {_positions(key)}), got {_shape(value)}")
    return as_type_of(function, "key", key, query), as_type_of(function, "value", value, query)


def check_patches(function: str, content: Tensor, style: Tensor, patch_size: int, stride: int) -> Tensor:
    """Two maps of images, of which the second may be one for all, and patches that fit into both: the second, in the
    content's type.
    """
    check_channels(function, content, 2, "content")
    check_channels(function, style, 2, "style")
    n, c = content.shape[:2]
    if style.shape[1] != c or style.shape[0] not in (1, n):
        raise ValueError(f"{function}: style: expected {c} channels and {n} samples or 1, got {_shape(style)}")
    check_integer(function, "stride", stride, 1)
    check_patch_size(function, patch_size, _plane(content), "content")
    check_patch_size(function, patch_size, _plane(style), "style")
    return as_type_of(function, "style", style, content)


def check_patch_size(function: str, patch_size: int, size: tuple[int, ...], whose: str) -> None:
    """Of patches in a map of that size."""
    check_integer(function, "patch_size", patch_size, 1)
    if any(patch_size > length for length in size):
        expected = f"patches that fit into the {whose}, {tuple(size)}"
        raise ValueError(f"{function}: patch_size: expected {expected}, got {patch_size}")


def check_patch_index(
    function: str, index: Tensor, style: Tensor, size: tuple[int, ...], patch_size: int, stride: int
) -> None:
    """A patch of the style for each patch of a map of that size."""
    check_tensor(function, "index", index, {torch.int64}, "int64")
    check_same_device(function, "index", index, style)
    n, places = style.shape[0], tuple((length - patch_size) // stride + 1 for length in size)
    if index.dim() != 3 or index.shape[1:] != places or n not in (1, index.shape[0]):
        samples = "N" if n == 1 else n
        expected = f"({samples}, {', '.join(map(str, places))})"
        raise ValueError(f"{function}: index: expected a patch for each place, {expected}, got {_shape(index)}")


def check_integer(function: str, name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, _INTEGERS) or value < least:
        raise ValueError(f"{function}: {name}: expected an integer of at least {least}, got {value!r}")


def check_flag(function: str, name: str, value: bool) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{function}: {name}: expected True or False, got {value!r}")


def check_up_to_volumes(function: str, map: Tensor, name: str = "input") -> None:
    """An (N, C, *) map of one to three spatial dimensions."""
    check_map(function, map, name)
    if map.dim() > 5:
        raise ValueError(f"{function}: {name}: expected one to three spatial dimensions, got {_shape(map)}")


def check_style_map(function: str, style: Tensor, input: Tensor) -> None:
    """A map of any size with the input's channels, for each of its samples or for all."""
    check_up_to_volumes(function, style, "style")
    check_same_device(function, "style", style, input)
    n, c = input.shape[:2]
    if style.shape[1] != c or style.shape[0] not in (1, n):
        raise ValueError(f"{function}: style: expected {c} channels and {n} samples or 1, got {_shape(style)}")


def check_colors(function: str, style, input: Tensor) -> None:
    """A style as colouring takes it: a map, or its mean and the root of its covariance, for each sample or for all."""
    if isinstance(style, Tensor):
        check_style_map(function, style, input)
        return
    if not isinstance(style, (tuple, list)) or len(style) != 2:
        raise TypeError(f"{function}: style: expected a feature map or a pair (mean, root), got {type(style).__name__}")
    mean, root = style
    check_per_plane(function, "style mean", mean, input, shared_samples=True)
    check_tensor(function, "style root", root)
    n, c = input.shape[:2]
    if root.shape != (c, c) and root.shape != (n, c, c) and root.shape != (1, c, c):
        expected = f"({c}, {c}), (1, {c}, {c}) or ({n}, {c}, {c})"
        raise ValueError(f"{function}: style root: expected shape {expected}, got {_shape(root)}")
    check_same_device(function, "style root", root, input)


def check_roots(function: str, eps: float, method: str) -> None:
    """How the root of a covariance is taken."""
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"{function}: method: expected {_one_of(METHODS)}, got {method!r}")
    check_number(function, "eps", eps, 0)
    if method == "newton_schulz" and eps == 0:
        raise ValueError(f"{function}: eps: newton_schulz needs one of more than 0, got {eps}")


def check_mask(function: str, name: str, mask: Tensor, map: Tensor) -> None:
    """Which positions of a map count: bool, of one channel, of as many samples as the map or of one."""
    check_tensor(function, name, mask, _BOOLS, "bool")
    n, plane = map.shape[0], _plane(map)
    shape = mask.shape[:1] + mask.shape[2:] if mask.dim() == map.dim() and mask.shape[1] == 1 else mask.shape
    if shape != (n, *plane) and shape != (1, *plane):
        raise ValueError(
            f"{function}: {name}: expected shape {(n, *plane)} or {(n, 1, *plane)}, of {n} samples or 1, got {_shape(mask)}"
        )
    check_same_device(function, name, mask, map)


def check_bins(function: str, bins: int) -> None:
    if isinstance(bins, bool) or not isinstance(bins, _INTEGERS) or not 1 <= bins <= MOST_BINS:
        raise ValueError(f"{function}: bins: expected None or an integer from 1 to {MOST_BINS}, got {bins!r}")


def check_sizes(function: str, name: str, value, dims: int, least: int, words: str = "") -> None:
    if type(value) is int and value >= least:
        return
    values = value if isinstance(value, (tuple, list)) else (value,)
    integers = all(isinstance(number, _INTEGERS) and not isinstance(number, bool) for number in values)
    if not integers or len(values) != (dims if isinstance(value, (tuple, list)) else 1) or any(v < least for v in values):
        many = f", or {dims} of them" if dims > 1 else ""
        raise ValueError(f"{function}: {name}: expected {words}an integer of at least {least}{many}, got {value!r}")


def check_filter_bias(function: str, bias: Tensor, weight: Tensor, input: Tensor) -> None:
    """(N, C_out), of any floating-point type."""
    check_tensor(function, "bias", bias)
    expected = (input.shape[0], weight.shape[1])
    if bias.shape != expected:
        raise ValueError(f"{function}: bias: expected a number for each output plane, {tuple(expected)}, got {_shape(bias)}")
    check_same_device(function, "bias", bias, input)


def as_type_of(function: str, name: str, tensor: Tensor, input: Tensor) -> Tensor:
    """A tensor on the input's device and in its type (autocast mixes types; elsewhere a mixture is an error)."""
    check_same_device(function, name, tensor, input)
    if tensor.dtype == input.dtype:
        return tensor
    if not autocasts(input):
        raise TypeError(f"{function}: {name}: expected the input's type {input.dtype}, got {tensor.dtype}")
    return tensor.to(input.dtype)


def _one_of(names) -> str:
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}"


def _type(value) -> str:
    return "None" if value is None else type(value).__name__


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _positions(map: Tensor) -> str:
    return ", ".join(str(size) for size in map.shape[2:])


def _plane(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape[2:])
