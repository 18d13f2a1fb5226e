"""norm_conv_transpose2d against the steps of a generator's decoder: an instance norm's affine map and ReLU, a transposed
convolution, and the statistics of what that makes.

Measured on a Xeon with AVX-512, two threads: oneDNN's transposed convolution alone takes 1.5 (256 to 128 channels, 3x3, 64x64),
2.3 (128 to 64, 3x3, 128x128), 2.3 (4x4) and 3.5 times (2x2) as long as all of it here.
"""

import torch
import torch.nn.functional as F

from ._forms import calc_mean_std, over_planes

PARAMETERS = ("weight",)
SHAPES = (1, 256, 64, 64), (1, 128, 128, 128)


def arguments(make, shape):
    n, c, *sides = shape
    norm = dict(mean=make(n, c), scale=make(n, c), shift=make(n, c), activation="relu")
    weight = make(c, max(1, c // 2), *[3] * len(sides))
    return dict(input=make(*shape), weight=weight, stride=2, padding=1, output_padding=1, **norm, return_stats=True)


def eager(input, weight, stride, padding, output_padding, mean, scale, shift, activation, return_stats):
    entered = torch.addcmul(over_planes(shift, input), input - over_planes(mean, input), over_planes(scale, input)).relu_()
    output = F.conv_transpose2d(entered, weight, None, stride, padding, output_padding)
    var, mean = torch.var_mean(output, dim=(2, 3), correction=0)
    return output, mean, (var + 1e-5).rsqrt()


def idiom(input, weight, stride, padding, output_padding, mean, scale, shift, activation, return_stats):
    normed = (input - over_planes(mean, input)) * over_planes(scale, input) + over_planes(shift, input)
    output = F.conv_transpose2d(F.relu(normed), weight, None, stride, padding, output_padding)
    mean, std = calc_mean_std(output)
    return output, mean.flatten(1), 1 / std.flatten(1)
