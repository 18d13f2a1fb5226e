"""norm_conv2d against the steps of a style network: an instance norm's affine map and ReLU, reflection padding, a
convolution, and the statistics of what that makes. The kinds are its layers, of a picture of 512x512.

What was learned on a Xeon with AVX-512 (two cores of 0.18 TFLOP/s each):

- bfloat16 is computed in float32. The dot product of pairs (vdpbf16ps) has half the rate of float32 multiply-adds there,
  0.083 against 0.176 TFLOP/s a core; where it has twice that rate it would gain no more than minimal filtering does, whose
  sums bfloat16 is too short for.
- Between two kernels of tiny maps Python takes 30 us, between two of a network's 110, for each sweeps code and data out of
  L2; a layer of 32 channels at 64x64 takes 250. So a chain settles once what is the same at every call.
- One tap of many channels, as a product of matrices: of 144 input channels a strip of 48 pixels stays in L1 (27 KB) and
  tiles of outputs pass. 448 to 448 channels at 64x64: 0.10 to 0.15 TFLOP/s a core, 512 to 512 at 32x32 0.10 to 0.16; the
  other order, a tile's filters in L1 and pixels from L2, is eight products a line read, not 48.
- With stride 2 an output needs four times the elements: bringing them was 17% of a layer, most of it waiting for loads, and
  done anew for each 64 outputs. 256 outputs that share them: 128 to 256 channels 0.12 to 0.13 TFLOP/s a core, 64 to 128
  0.13 to 0.14, single taps 0.08 to 0.10. Prefetching the next rows while tiles multiply gained nothing.
- 3x3 to 4 by 4 outputs, 36 products for 16, on an AMD processor with AVX2 (two cores of 0.088 TFLOP/s each), times as fast as
  oneDNN's: tiles of registers of 8 channels by a vector, 16 products for 4 outputs, 1.1; 24 for 8, 1.4; tiles of 4 by 3 and
  lines of 96 tiles, 1.7; 36 for 16, 2.0 (128 channels at 128x128; 256 at 64x64: 1.1, 1.3, 1.6, 1.8). Sums in pieces of 16
  products cost nothing that could be told from the noise.
- Writing results past the caches: at 33 MB no difference could be told from the noise, at 134 MB it gains.
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
PARAMETERS = ("weight",)

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
