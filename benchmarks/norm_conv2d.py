"""norm_conv2d against the steps of a style network: an instance norm's affine map and ReLU, reflection padding, a
convolution, and the statistics of what that makes. The kinds are its layers, of a picture of 512x512.
"""

import torch
import torch.nn.functional as F

from ._forms import calc_mean_std, over_planes

# The channels that go out for those that come in, the width of the kernel, and the stride.
_LAYERS = {
    "picture-in": (lambda c: 32, 9, 1),
    "same": (lambda c: c, 3, 1),
    "down": (lambda c: c, 3, 2),
    "picture-out": (lambda c: 3, 9, 1),
}
KINDS = tuple(_LAYERS)

SHAPES = {
    "picture-in": ((1, 3, 512, 512),),
    "same": ((1, 128, 128, 128), (1, 64, 256, 256), (1, 32, 512, 512), (1, 8, 512, 512)),
    "down": ((1, 32, 512, 512),),
    "picture-out": ((1, 32, 512, 512), (1, 4, 512, 512)),
}


def arguments(make, shape, kind="same"):
    n, c, *sides = shape
    out_channels, width, stride = _LAYERS[kind]
    norm = dict(mean=make(n, c), scale=make(n, c), shift=make(n, c), activation="relu")
    weight = make(out_channels(c), c, *[width] * len(sides))
    # A map may be too small to reflect as much.
    padding = min(width // 2, min(sides) - 1)
    return dict(
        input=make(*shape), weight=weight, stride=stride, padding=padding, padding_mode="reflect", **norm, return_stats=True
    )


def eager(input, weight, stride, padding, padding_mode, mean, scale, shift, activation, return_stats):
    entered = torch.addcmul(over_planes(shift, input), input - over_planes(mean, input), over_planes(scale, input)).relu_()
    output = F.conv2d(F.pad(entered, [padding] * 4, mode=padding_mode), weight, stride=stride)
    var, mean = torch.var_mean(output, dim=(2, 3), correction=0)
    return output, mean, (var + 1e-5).rsqrt()


def idiom(input, weight, stride, padding, padding_mode, mean, scale, shift, activation, return_stats):
    normed = (input - over_planes(mean, input)) * over_planes(scale, input) + over_planes(shift, input)
    output = F.conv2d(F.pad(F.relu(normed), [padding] * 4, mode=padding_mode), weight, stride=stride)
    mean, std = calc_mean_std(output)
    return output, mean.flatten(1), 1 / std.flatten(1)
