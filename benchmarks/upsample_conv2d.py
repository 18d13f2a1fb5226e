"""upsample_conv2d against nearest interpolation, reflection padding and a convolution: the layers of a decoder, 3x3.

The shape is of the map that comes in; half as many channels go out, of twice its height and width.

What was learned on a Xeon with AVX-512, two cores of 0.18 TFLOP/s and 2 MB of L2 each:

- By phases there are 16 products for 4 outputs; minimal filtering leaves 36 for 16 (csrc/cpu/minimal.h). At that rate each
  of the four layers would take 6.7 ms; it takes 11 to 14 where the machine is quiet. The products run at the limit. What
  remains is adding up data and outputs, a third where few channels go out, and packing filters, a tenth where many do.
- Of many input channels filters are read once for each line of tiles: longer lines (4 vectors, not 2 or 3) and filters in
  the order in which they are read took a quarter off. More outputs at a time let more of them share their data.
- 16 arrays of data, each a power of two apart, meet in the same sets of L1: one array after the other took 5% off.
"""

import torch.nn.functional as F

PARAMETERS = ("weight", "bias")
SHAPES = {"": ((1, 512, 32, 32), (1, 256, 64, 64), (1, 128, 128, 128), (1, 64, 256, 256))}


def arguments(make, shape):
    _, c, *sides = shape
    out_channels = max(1, c // 2)
    return dict(input=make(*shape), weight=make(out_channels, c, *[3] * len(sides)), bias=make(out_channels))


def eager(input, weight, bias):
    return F.conv2d(F.pad(F.interpolate(input, scale_factor=2, mode="nearest"), [1] * 4, mode="reflect"), weight, bias)


# Published code has torch's operators, too.
idiom = eager
