"""Dense convolutions a sample at a time, by torch's own: where oneDNN or cuDNN is ahead of the kernels here.

Measured on two threads of an AVX-512 Xeon, 3x3, batch 4, milliseconds of a kernel here and of a loop over oneDNN:

    channels, map       output           gradient of the input
    512, 32x32          71     65        117    73
    256, 32x32          18.7   15.9      28.1   19.5
    128, 64x64          17.4   16.7      22.8   21.2
    64, 128x128         17.8   19.6      20.8   23.4

In bfloat16 the kernels here took half of oneDNN's time at each of these.

The filters' gradient stays here: oneDNN's is slower, and differs from one number of threads to another. One padded sample
is made at a time, never the padded map.
"""

import torch

from . import backends
from ._window import CIRCULAR, REFLECT, REPLICATE, ZEROS, pad, unpad

# Channels, in and out of a group, from which on it is torch's turn: in float32 on CPU; on CUDA, where it is not measured,
# beside the C++ kernels, which know no tensor cores. Triton's do, and a layer that fuses more than a convolution is theirs.
LEAST_ON_CPU, LEAST_ON_CUDA = 128, 32

_MODES = {REFLECT: "reflect", REPLICATE: "replicate", CIRCULAR: "circular"}


def is_faster(input, weight, groups) -> bool:
    if input.device.type == "cpu" and input.dtype == torch.float32:
        if all(size == 1 for size in weight.shape[3:]):
            return False  # Of one tap oneDNN's result depends on the number of threads.
        least = LEAST_ON_CPU
    elif input.device.type == "cuda" and backends.which("dynamic_conv2d", "cuda") == "cuda":
        least = LEAST_ON_CUDA
    else:
        return False
    return weight.shape[2] >= least and weight.shape[1] >= least * groups


def convolve(output, input, weight, bias, stride, padding, dilation, groups, padding_mode, norm=lambda sample, n: sample):
    """Fills `output`; each sample, (1, C, *), is first what `norm(sample, n)` makes of it."""
    none = [0] * len(stride)
    for n in range(input.shape[0]):
        sample, around = norm(input[n : n + 1], n), none
        if padding_mode == ZEROS and padding[::2] == padding[1::2]:
            around = padding[::2]
        else:
            sample = _padded(sample, padding, padding_mode)
        bias_of_sample = None if bias is None else bias[n].to(input.dtype)
        output[n : n + 1] = torch.convolution(
            sample, weight[n], bias_of_sample, stride, around, dilation, False, none, groups
        )
    return output


def _padded(sample, padding, padding_mode):
    sides = [side for pair in zip(padding[-2::-2], padding[::-2]) for side in pair]
    if padding_mode == ZEROS:
        return pad(sample, padding, padding_mode)
    return torch.nn.functional.pad(sample, sides, _MODES[padding_mode])


def gradient_of_input(grad_input, grad, weight, stride, padding, dilation, groups, padding_mode):
    """Fills `grad_input`."""
    size = grad_input.shape[2:]
    padded = [length + before + after for length, before, after in zip(size, padding[::2], padding[1::2])]
    none, like_padded = [0] * len(stride), grad_input.new_empty(1, grad_input.shape[1], *padded)
    for n in range(grad.shape[0]):
        found, _, _ = torch.ops.aten.convolution_backward(
            grad[n : n + 1], like_padded, weight[n], None, stride, none, dilation, False, none, groups, (True, False, False)
        )
        grad_input[n : n + 1] = unpad(found, size, padding, padding_mode)
    return grad_input
