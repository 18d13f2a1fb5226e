"""UpsampleConv2d: torch's Upsample, ReflectionPad2d and Conv2d, with the parameters of the last."""

import io

import pytest
import torch

from fastnorm import nn

X = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def modules(kernel_size=3, scale_factor=2, padding=1, **settings):
    """Ours and torch's sequence, sharing their numbers."""
    ours = nn.UpsampleConv2d(4, 6, kernel_size, scale_factor, padding, dtype=torch.float64, **settings)
    convolution = torch.nn.Conv2d(4, 6, kernel_size, dtype=torch.float64, **settings)
    rows, columns = (scale_factor,) * 2 if isinstance(scale_factor, int) else scale_factor
    above, left = (padding,) * 2 if isinstance(padding, int) else padding
    ours.load_state_dict(convolution.state_dict())
    upsample = torch.nn.Upsample(scale_factor=(float(rows), float(columns)))
    return ours, torch.nn.Sequential(upsample, torch.nn.ReflectionPad2d((left, left, above, above)), convolution)


@pytest.mark.parametrize(
    "settings",
    [
        dict(),
        dict(kernel_size=5, padding=2),
        dict(kernel_size=(1, 3), scale_factor=(1, 3), padding=(0, 1)),
        dict(groups=2, bias=False),
        dict(kernel_size=9, padding=4, scale_factor=3),
    ],
    ids=str,
)
def test_is_torchs_sequence(settings):
    ours, torchs = modules(**settings)
    output, expected = ours(X), torchs(X)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    gradient = torch.randn_like(expected)
    found = torch.autograd.grad(output, ours.parameters(), gradient)
    torch.testing.assert_close(found, torch.autograd.grad(expected, torchs.parameters(), gradient), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kernel_size", [1, 3, (5, 3)], ids=str)
def test_keeps_the_size_of_the_upsampled_map_unless_told(kernel_size):
    module = nn.UpsampleConv2d(4, 6, kernel_size, dtype=torch.float64)
    sides = [width // 2 for width in module.kernel_size]
    _, torchs = modules(kernel_size, padding=tuple(sides))
    torchs[2].load_state_dict(module.state_dict())
    output = module(X)
    assert output.shape == (2, 6, 10, 12)
    torch.testing.assert_close(output, torchs(X), rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", [dict(), dict(groups=2), dict(bias=False)], ids=str)
def test_starts_as_conv2d_does_from_the_same_seed(settings):
    torch.manual_seed(3)
    torchs = torch.nn.Conv2d(4, 6, (5, 3), **settings).state_dict()
    torch.manual_seed(3)
    ours = nn.UpsampleConv2d(4, 6, (5, 3), **settings).state_dict()
    assert list(ours) == list(torchs) and all(torch.equal(ours[name], torchs[name]) for name in torchs)


def test_a_frozen_module_follows_what_is_loaded_and_moved():
    """Its filters by phases are prepared once: not once for ever."""
    module, torchs = modules()
    module.requires_grad_(False)
    module(X)
    torchs[2].reset_parameters()
    module.load_state_dict(torchs[2].state_dict())
    torch.testing.assert_close(module(X), torchs(X), rtol=0, atol=1e-12)
    module.float()
    torch.testing.assert_close(module(X.float()), torchs(X).float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(module.double()(X), torchs(X), rtol=0, atol=1e-5)


def test_unbatched():
    module, _ = modules(padding=3)
    torch.testing.assert_close(module(X[1]), module(X)[1], rtol=0, atol=1e-12)


def test_saved_and_loaded_whole():
    module, _ = modules()
    module.requires_grad_(False)
    expected, file = module(X), io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(X), expected)


def test_says_what_it_is():
    module = nn.UpsampleConv2d(4, 6, 3, groups=2, bias=False)
    assert repr(module) == (
        "UpsampleConv2d(4, 6, kernel_size=(3, 3), scale_factor=2, padding=(1, 1), padding_mode='reflect', groups=2, bias=False)"
    )


WRONG = {
    "half a factor": (
        lambda: nn.UpsampleConv2d(4, 6, 3, 1.5),
        "UpsampleConv2d: scale_factor: expected an integer of at least 1, or 2 of them, got 1.5",
    ),
    "no kernel": (
        lambda: nn.UpsampleConv2d(4, 6, 0),
        "UpsampleConv2d: kernel_size: expected an integer of at least 1, or 2 of them, got 0",
    ),
    "groups": (
        lambda: nn.UpsampleConv2d(4, 6, 3, groups=4),
        "UpsampleConv2d: groups: expected a divisor of the 6 output channels, got 4",
    ),
    "channels": (lambda: nn.UpsampleConv2d(3, 6, 3)(X), "UpsampleConv2d: input: expected 3 channels, got 4"),
    "a line": (
        lambda: nn.UpsampleConv2d(4, 6, 3)(X[0, 0]),
        r"UpsampleConv2d: input: expected 3 or 4 dimensions, got \(5, 6\)",
    ),
    "too much to reflect": (
        lambda: nn.UpsampleConv2d(4, 6, 3, padding=10, dtype=torch.float64)(X),
        r"upsample_conv2d: padding: reflect padding must be smaller than the upsampled input, \(10, 12\), got 10",
    ),
    "an unknown border": (
        lambda: nn.UpsampleConv2d(4, 6, 3, padding_mode="mirror", dtype=torch.float64)(X),
        "UpsampleConv2d: padding_mode: expected 'zeros', 'reflect', 'replicate' or 'circular', got 'mirror'",
    ),
}


@pytest.mark.parametrize("call, message", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_one_line(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
