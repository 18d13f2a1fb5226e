"""Every kind of Triton kernel compiles for every GPU, on a machine without one, and as it was meant to.

The launchers run on tensors without memory, through a driver that says which GPU there is; so what is compiled is what
a call compiles.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("nothing is compiled under TRITON_INTERPRET=1", allow_module_level=True)

from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from fastnorm.kernels import (
    _launch,
    attention_stats,
    dynamic_conv2d,
    dynamic_instance_norm,
    gram_matrix,
    instance_norm,
    instance_stats,
    layer_instance_norm,
    match_histogram,
    norm_conv2d,
    patch_match,
    scale_shift,
    swap_patches,
    upsample_pad2d,
)
from fastnorm.ops._activation import CODES
from fastnorm.ops._window import PADDING_MODES

SM_90, GFX942 = GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64)
TARGETS = [
    SM_90,
    GFX942,
    *(
        pytest.param(target, marks=pytest.mark.long)
        for target in (*(GPUTarget("cuda", sm, 32) for sm in (80, 100, 120)), GPUTarget("hip", "gfx1100", 32))
    ),
]


class Machine:
    """A driver that has one GPU and runs nothing."""

    def __init__(self, target):
        self.target = target

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return str(self.target)

    def get_current_stream(self, device):
        return 0


@pytest.fixture
def compiled(monkeypatch):
    """compiled(target, call) makes the call on that GPU's machine: its kernels, and their launch options."""

    def compile(target, call):
        kernels = []
        run = JITFunction.run

        def record(self, *arguments, grid, warmup, **options):
            kernels.append((run(self, *arguments, grid=grid, warmup=True, **options), options["num_warps"]))

        with monkeypatch.context() as patch:
            patch.setattr(driver, "_active", Machine(target))
            patch.setattr(_launch, "_WARP", target.warp_size)
            patch.setattr(JITFunction, "run", record)
            call()
        return kernels

    return compile


# Calls: every way through planes that a shape can take, every type, layout and activation.


def make(shape, dtype, layout=torch.contiguous_format):
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=layout)


def norm(shape, dtype, layout, activation, maps, eps_on_std=False):
    """Forward and backward."""

    def call():
        input, gamma, residual = (make(shape, dtype, layout) for _ in range(3))
        weight, bias = make(shape[1:2], dtype), make(shape[:2], torch.float32)
        if not maps:
            gamma = residual = None
        settings = 1e-5, 0, eps_on_std, 1.0, CODES[activation], 0.01
        output, mean, rstd = instance_norm.forward(input, weight, bias, gamma, residual, *settings)
        instance_norm.backward(output, input, mean, rstd, weight, bias, gamma, residual, *settings)

    return call


def affine(shape, dtype, layout, activation, maps):
    def call():
        input, gamma, residual = (make(shape, dtype, layout) for _ in range(3))
        parameter = make(shape[:2], torch.float32)
        if not maps:
            gamma = residual = None
        arguments = parameter, parameter, None, gamma, residual
        output = scale_shift.forward(input, *arguments, CODES[activation], 0.01)
        scale_shift.backward(output, input, *arguments, parameter, parameter, CODES[activation], 0.01, True, True)

    return call


def layer_norm(shape, dtype, layout, activation, maps):
    """Forward and backward."""

    def call():
        input, residual = (make(shape, dtype, layout) for _ in range(2))
        rho, weight, bias = make(shape[1:2], torch.float32), make(shape[:2], dtype), make(shape[:2], dtype)
        if not maps:
            weight = bias = residual = None
        arguments = rho, weight, bias, residual, 1e-5, 1, CODES[activation], 0.01
        output, mean, var = layer_instance_norm.forward(input, *arguments)
        layer_instance_norm.backward(output, input, mean, var, *arguments)

    return call


def statistics(shape, dtype, layout):
    return lambda: instance_stats.forward(make(shape, dtype, layout), 1e-5, 1, True)


def convolution(shape, channels, kernel, groups, dtype, layout, mode="reflect", stride=1, normed=False):
    """Forward and backward, with padding that keeps the size at a stride of 1."""

    def call():
        input = make(shape, dtype, layout)
        weight, bias = make((shape[0], channels, shape[1] // groups, *kernel), dtype), make((shape[0], channels), dtype)
        padding = [size // 2 for size in kernel for _ in range(2)]
        settings = [stride] * len(kernel), padding, [1] * len(kernel), groups, PADDING_MODES[mode]
        if normed:
            rule = 1e-5, 0, False
            output, mean, rstd = dynamic_instance_norm.forward(input, weight, bias, *rule, *settings)
            dynamic_instance_norm.backward(output, input, mean, rstd, weight, *rule, *settings, True, True, True)
        else:
            output = dynamic_conv2d.forward(input, weight, bias, *settings)
            dynamic_conv2d.backward(output, input, weight, *settings, True, True, True)

    return call


def upsampling(shape, scale, padding, dtype, layout, mode):
    """Forward and backward."""

    def call():
        settings = [scale] * (len(shape) - 2), [padding] * (2 * len(shape) - 4), PADDING_MODES[mode]
        output = upsample_pad2d.forward(make(shape, dtype, layout), *settings)
        upsample_pad2d.backward(output, *settings)

    return call


def layer(
    shape, channels, kernel, dtype, layout, factor=1, stride=1, activation="relu", output_activation=None, maps=False
):
    """A layer of a chain, all of whose parts are there; without `maps`, neither a residual nor what came in."""

    def call():
        input, residual = (make(shape, dtype, layout) for _ in range(2))
        # Those of phases are float32.
        filters = make((1, channels, shape[1], *[size + factor - 1 for size in kernel]), torch.float32)
        statistic, parameter = make(shape[:2], torch.float32), make(shape[1:2], dtype)
        around = [side for size in kernel for side in (size // 2 + factor - 1, size // 2)]
        norm_conv2d.forward(
            input, filters, make((channels,), dtype), statistic, parameter, statistic, residual if maps else None,
            CODES[activation], 0.2, [factor] * 2, [stride] * 2, around, [1, 1], 1, PADDING_MODES["replicate"],
            CODES[output_activation], 0.2, 1e-5, 0, False, True, maps,
        )  # fmt: skip

    return call


def attention(channels, values, size, keys, dtype, layout, need_std=True, samples=1):
    def call():
        query, key = (make((samples, channels, *side), dtype, layout) for side in (size, keys))
        attention_stats.forward(query, key, make((samples, values, *keys), dtype, layout), 1.0, 0.0, need_std)

    return call


def matching(channels, size, style, dtype, layout, patch_size=3, stride=1, usage_penalty=0.0, samples=1):
    def call():
        content, of = make((samples, channels, *size), dtype, layout), make((1, channels, *style), dtype, layout)
        patch_match.forward(content, of, patch_size, stride, usage_penalty)

    return call


def histograms(shape, target, bins, dtype, layout, masked=False):
    def call():
        masks = [make((1, *size[2:]), torch.bool) if masked else None for size in (shape, target)]
        match_histogram.forward(make(shape, dtype, layout), make(target, dtype, layout), *masks, bins)

    return call


def swapping(shape, size, dtype, layout, patch_size=3, stride=1):
    """Forward and backward."""

    def call():
        rows, columns = ((length - patch_size) // stride + 1 for length in size)
        index = make((shape[0], rows, columns), torch.int64)
        output = swap_patches.forward(make(shape, dtype, layout), index, size, patch_size, stride)
        swap_patches.backward(output, index, shape[2:], patch_size, stride)

    return call


def gram(shape, dtype, layout, centred):
    return lambda: gram_matrix.forward(make(shape, dtype, layout), centred)


NCHW, LAST = torch.contiguous_format, torch.channels_last
F64, F32, BF16, F16 = torch.float64, torch.float32, torch.bfloat16, torch.float16
LARGE, MEDIUM, SMALL = (1, 64, 512, 512), (8, 256, 64, 64), (8, 512, 16, 16)
CASES = {
    "split": norm(LARGE, F32, NCHW, "leaky_relu", False),
    "split, maps": norm(LARGE, BF16, NCHW, "gelu", True),
    "split, channels last": norm(LARGE, BF16, LAST, None, False),
    "split, channels last, maps": norm(LARGE, F32, LAST, "gelu", True),
    "held": norm(MEDIUM, F32, NCHW, "silu", False),
    "held, maps": norm(MEDIUM, BF16, NCHW, "gelu", True),
    "held, channels last": norm(SMALL, F32, LAST, "relu", False),
    "held, channels last, maps": norm(SMALL, F16, LAST, "gelu", True),
    "held, unaligned": norm((4, 64, 33, 31), BF16, NCHW, "gelu", True),
    "held, tiny": norm((64, 3, 5, 5), F32, NCHW, None, False, eps_on_std=True),
    "walked": norm((1, 256, 128, 256), BF16, NCHW, "relu", False),
    "walked, unaligned": norm((8, 64, 181, 181), BF16, NCHW, None, False),
    "float64": norm(MEDIUM, F64, NCHW, "gelu", True),
    "affine": affine(LARGE, F32, NCHW, "relu", False),
    "affine, maps": affine(MEDIUM, BF16, LAST, "gelu", True),
    "layer": layer_norm(MEDIUM, F32, NCHW, "relu", False),
    "layer, maps": layer_norm(LARGE, BF16, LAST, "gelu", True),
    "layer, no activation": layer_norm((2, 7, 33, 31), F16, NCHW, None, True),
    "layer, many channels": layer_norm((2, 2048, 4, 4), F64, NCHW, "silu", True),
    "depthwise": convolution((4, 512, 32, 32), 512, (3, 3), 512, F32, NCHW, normed=True),
    "depthwise, many patches": convolution((8, 64, 128, 128), 64, (3, 3), 64, BF16, NCHW, "circular"),
    "depthwise, channels last": convolution((4, 256, 64, 64), 256, (3, 3), 256, BF16, LAST, normed=True),
    "depthwise, pointwise": convolution((4, 64, 128, 128), 64, (1, 1), 64, F32, NCHW),
    "grouped": convolution((4, 256, 64, 64), 256, (3, 3), 64, F32, NCHW, "replicate"),
    "grouped, channels last": convolution((4, 64, 256, 256), 64, (3, 3), 8, F16, LAST, normed=True),
    "grouped, float64": convolution((4, 64, 33, 31), 64, (3, 3), 16, F64, NCHW, "zeros", 2),
    "grouped, volume": convolution((1, 8, 16, 32, 32), 8, (3, 3, 3), 2, F32, NCHW, "zeros"),
    "few channels": convolution((1, 3, 256, 256), 32, (9, 9), 1, F32, NCHW),
    "dense": convolution((4, 512, 32, 32), 512, (3, 3), 1, BF16, NCHW, normed=True),
    "dense, channels last": convolution((4, 64, 128, 128), 64, (3, 3), 1, BF16, LAST, "zeros", normed=True),
    "dense, stride 2": convolution((4, 64, 128, 128), 128, (3, 3), 1, F16, LAST, "zeros", 2),
    "dense, float32": convolution((4, 64, 128, 128), 64, (3, 3), 1, F32, NCHW),
    "layer, from few channels, bfloat16": layer((1, 4, 512, 512), 32, (9, 9), BF16, LAST, activation=None),
    "layer, residual, channels last": layer((1, 128, 128, 128), 128, (3, 3), F32, LAST, maps=True),
    "layer, upsampled": layer((1, 128, 128, 128), 64, (3, 3), BF16, LAST, 2),
    "layer, upsampled, few channels": layer((1, 8, 256, 256), 8, (3, 3), F32, NCHW, 2, maps=True),
    "statistics, split": statistics(LARGE, BF16, NCHW),
    "statistics, whole": statistics(MEDIUM, F32, NCHW),
    "upsampling": upsampling(MEDIUM, 2, 1, F32, NCHW, "reflect"),
    "upsampling, channels last": upsampling(MEDIUM, 2, 1, BF16, LAST, "circular"),
    "padding, volume": upsampling((1, 8, 16, 32, 32), 1, 3, F16, NCHW, "replicate"),
    "attention": attention(448, 256, (64, 64), (64, 64), BF16, NCHW),
    "attention, float32": attention(448, 256, (64, 64), (64, 64), F32, LAST),
    "attention, float64": attention(19, 70, (33, 31), (13, 11), F64, NCHW),
    "matching": matching(512, (64, 64), (64, 64), BF16, NCHW),
    "matching, float32, in turn": matching(256, (64, 64), (64, 64), F32, LAST, usage_penalty=0.1),
    "matching, float64": matching(19, (33, 31), (13, 11), F64, NCHW, 5, 2, samples=2),
    "swapping": swapping((2, 512, 64, 64), (64, 64), F32, NCHW),
    "swapping, channels last": swapping((1, 256, 128, 128), (96, 160), BF16, LAST, 5, 2),
    "gram": gram((1, 512, 64, 64), BF16, NCHW, False),
    "gram, centred": gram((2, 64, 256, 256), F16, NCHW, True),
    "gram, centred, float32": gram((1, 256, 64, 64), F32, LAST, True),
    "histograms": histograms((1, 64, 256, 256), (1, 64, 240, 320), 0, BF16, NCHW),
    "histograms, bins": histograms((2, 64, 64, 64), (1, 64, 60, 80), 256, F32, LAST, masked=True),
    "upsampling, float64": upsampling((2, 3, 33, 31), 3, 2, F64, NCHW, "zeros"),
}

MORE_CASES = {
    "layer, from few channels": layer((1, 3, 512, 512), 32, (9, 9), F32, NCHW),
    "layer, to few channels": layer((1, 32, 512, 512), 3, (9, 9), F32, NCHW, output_activation="sigmoid"),
    "layer, to few channels, channels last": layer((1, 32, 512, 512), 3, (9, 9), BF16, LAST, output_activation="tanh"),
    "layer, few channels": layer((1, 4, 512, 512), 3, (9, 9), F16, NCHW),
    "layer, few channels, float64": layer((1, 8, 64, 64), 8, (3, 3), F64, NCHW, activation="gelu", maps=True),
    "layer, residual": layer((1, 128, 128, 128), 128, (3, 3), BF16, NCHW, maps=True),
    "layer, stride 2": layer((1, 32, 512, 512), 64, (3, 3), BF16, NCHW, stride=2, activation="silu"),
    "layer, upsampled, float32": layer((1, 64, 256, 256), 32, (3, 3), F32, NCHW, 2),
    "attention, channels last": attention(960, 512, (64, 64), (64, 64), BF16, LAST),
    "attention, float16": attention(1472, 512, (32, 32), (32, 32), F16, NCHW),
    "attention, mean alone": attention(512, 512, (64, 64), (64, 64), BF16, NCHW, need_std=False, samples=4),
    "attention, mean alone, float32": attention(512, 512, (64, 64), (64, 64), F32, NCHW, need_std=False),
    "attention, odd": attention(19, 7, (33, 31), (13, 11), BF16, NCHW),
    "attention, odd, float32": attention(19, 7, (33, 31), (13, 11), F32, LAST),
    "attention, few": attention(1, 1, (3,), (2,), F16, NCHW, samples=2),
    "attention, float64, many": attention(448, 256, (64, 64), (64, 64), F64, LAST),
    "matching, in many rows": matching(256, (256, 256), (128, 128), F16, LAST, 5),
    "matching, few": matching(3, (9, 8), (8, 9), F32, NCHW, 1, samples=2),
    "matching, float64, in turn": matching(64, (33, 31), (13, 11), F64, LAST, 3, 3, 0.5),
    "swapping, few": swapping((2, 3, 33, 31), (13, 11), F64, NCHW, 2, 3),
    "gram, float32": gram((1, 64, 256, 256), F32, NCHW, False),
    "gram, centred, bfloat16": gram((4, 512, 32, 32), BF16, LAST, True),
    "gram, centred, float64": gram((2, 19, 33, 31), F64, NCHW, True),
    "gram, whole": gram((16, 512, 16, 16), F16, NCHW, True),
    "histograms, float64": histograms((1, 3, 33, 31), (1, 3, 5, 7), 0, F64, LAST, masked=True),
    "histograms, many bins": histograms((1, 3, 333, 311), (1, 3, 333, 311), 65536, F64, NCHW),
    "layer, upsampled by 3": layer((1, 8, 63, 63), 3, (3, 3), BF16, LAST, 3),
}


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.long) for case in MORE_CASES)])
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.backend}-{target.arch}")
def test_compiles(compiled, target, case):
    kernels = compiled(target, (CASES | MORE_CASES)[case])
    assert kernels
    for kernel, warps in kernels:
        assert warps * target.warp_size <= 1024
        # No 32-bit offset anywhere, and what is held between memory and threads fits.
        assert not re.search(r"tt\.addptr .*tensor<[\dx]*i32>", kernel.asm["ttir"])
        assert kernel.metadata.shared <= (64 if target.backend == "hip" else 99) << 10
        # Some ptxas keep a kernel of 66 registers to 64, and so a second program on each multiprocessor.
        assert spilled_bytes(kernel, target) <= 16, f"{kernel.name} spills"


def spilled_bytes(kernel, target):
    """What does not fit in a thread's registers."""
    if target.backend == "hip":
        return 4 * int(re.search(r"\.vgpr_spill_count:\s+(\d+)", kernel.asm["amdgcn"])[1])
    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.check_output([cuobjdump, "--dump-resource-usage", file.name], text=True)
    stack, local = re.search(r"STACK:(\d+) .*LOCAL:(\d+)", usage).groups()
    return int(stack) + int(local)


@pytest.mark.parametrize("case", ["split", "split, maps", "split, channels last", "held", "affine"])
def test_maps_are_read_and_written_16_bytes_at_a_time(compiled, case):
    for kernel, _ in compiled(SM_90, CASES[case]):
        # Maps are what is read with a hint.
        assert set(re.findall(r"ld\.global\.L1\S*", kernel.asm["ptx"])) <= {
            "ld.global.L1::evict_last.L2::cache_hint.v4.b32",
            "ld.global.L1::evict_first.L2::cache_hint.v4.b32",
        }
        assert re.search(r"(?:ld|st)\.global\S*\.v4\.b32", kernel.asm["ptx"])


def test_planes_that_are_no_multiple_of_16_are_read_in_vectors(compiled):
    """Triton knows of multiples of 16 by itself; 750 times 500 is one of 8 alone."""
    for kernel, _ in compiled(SM_90, norm((1, 64, 750, 500), BF16, NCHW, None, False)):
        assert re.search(r"ld\.global\.L1\S*\.v4\.b32", kernel.asm["ptx"])


def test_bfloat16_is_rounded_to_the_nearest(compiled):
    (forward, _), *_ = compiled(SM_90, affine(MEDIUM, BF16, NCHW, "relu", False))
    assert set(re.findall(r"cvt\S*\.bf16\S*f32", forward.asm["ptx"])) == {"cvt.rn.bf16x2.f32"}


def test_a_second_call_compiles_nothing(compiled):
    """Other sizes and numbers of the same kind run the same kernel."""
    (first, _), *_ = compiled(SM_90, norm((1, 64, 512, 512), F32, NCHW, "relu", False))
    (second, _), *_ = compiled(SM_90, norm((2, 96, 512, 512), F32, NCHW, "relu", False))
    assert first is second
