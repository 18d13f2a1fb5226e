"""DeformableDynamicInstanceNorm: taps that move."""

import io
from math import floor

import pytest
import torch
from dynamic_by_hand import around, convolved, normalised, style_net

from fastnorm import nn


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


CONTENT, STYLE = random(2, 4, 7, 6), random(2, 5, 4, 5, seed=1)
MODES = ["zeros", "reflect", "replicate", "circular"]


def make(*arguments, **settings):
    torch.manual_seed(0)
    return nn.DeformableDynamicInstanceNorm(*arguments, hidden_channels=6, dtype=torch.float64, **settings)


def index(position, length, mode):
    """The pixel that is read for one beyond the border; None for zero."""
    if 0 <= position < length:
        return position
    if mode == "reflect":
        last = length - 1
        return last - abs(last - abs(position) % (2 * last))
    return {"zeros": None, "replicate": min(max(position, 0), length - 1), "circular": position % length}[mode]


def pixel(plane, row, column, mode):
    row, column = index(row, plane.shape[0], mode), index(column, plane.shape[1], mode)
    return 0.0 if row is None or column is None else plane[row, column].item()


def read(plane, row, column, mode):
    """Between pixels, by how near each of the four is."""
    top, left = floor(row), floor(column)
    return sum(
        (1 - abs(row - y)) * (1 - abs(column - x)) * pixel(plane, y, x, mode)
        for y in (top, top + 1)
        for x in (left, left + 1)
    )  # fmt: skip


def deformed(map, weight, bias, offset, stride, dilation, groups, mode):
    """The formula, number by number."""
    n, out_channels, in_channels, *kernel = weight.shape
    (top, _), (left, _) = around(kernel, dilation)
    height, width = offset.shape[2:]
    output = bias[..., None, None].expand(n, out_channels, height, width).clone()
    for i in range(n):
        for o in range(out_channels):
            first = o // (out_channels // groups) * in_channels
            for y in range(height):
                for x in range(width):
                    for k in range(kernel[0] * kernel[1]):
                        a, b = divmod(k, kernel[1])
                        row = y * stride - top + a * dilation[0] + offset[i, 2 * k, y, x].item()
                        column = x * stride - left + b * dilation[1] + offset[i, 2 * k + 1, y, x].item()
                        for c in range(in_channels):
                            output[i, o, y, x] += weight[i, o, c, a, b] * read(map[i, first + c], row, column, mode)
    return output


@pytest.mark.parametrize("offsets_from", ["content", "style"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "kernel, stride, dilation", [((3, 3), 1, (1, 1)), ((2, 5), 1, (1, 1)), ((3, 3), 2, (2, 1))], ids=str
)
def test_starts_as_the_plain_one(offsets_from, mode, kernel, stride, dilation):
    settings = dict(groups=2, stride=stride, dilation=dilation, padding_mode=mode)
    module = make(4, 6, kernel, 5, **settings, offsets_from=offsets_from)
    weight, bias, *_ = module.encode(STYLE)
    expected = convolved(normalised(CONTENT), weight, bias, stride, dilation, 2, mode)
    torch.testing.assert_close(module(CONTENT, STYLE), expected, rtol=1e-10, atol=1e-10)
    plain = nn.DynamicInstanceNorm(4, 6, kernel, 5, **settings, hidden_channels=6, dtype=torch.float64)
    plain.load_state_dict({key: tensor for key, tensor in module.state_dict().items() if "offset" not in key})
    torch.testing.assert_close(plain(CONTENT, STYLE), expected, rtol=1e-10, atol=1e-10)


def test_one_pixel_beside_a_border_of_zeros():
    module = make(4, 4, 3, 5, padding_mode="zeros")
    content = random(2, 4, 5, 1)
    expected = convolved(normalised(content), *module.encode(STYLE), groups=4, mode="zeros")
    torch.testing.assert_close(module(content, STYLE), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_whole_offsets_shift_what_is_read(mode):
    module = make(4, 4, 3, 5, padding_mode=mode, offsets_from="style")
    weight, bias, _ = module.encode(STYLE)
    down, right = 2, -1
    offset = torch.tensor([down, right]).double().repeat(2, 9)
    sides = [(1 - down, 1 + down), (1 - right, 1 + right)]
    # What lies beyond is padded by twice as much, and cut where padding is less than none.
    map = torch.nn.functional.pad(normalised(CONTENT), (3, 3, 3, 3), mode="constant" if mode == "zeros" else mode)
    (top, bottom), (left, right) = sides
    map = map[:, :, 3 - top : 7 + 3 + bottom, 3 - left : 6 + 3 + right]
    expected = convolved(map, weight, bias, groups=4, mode="zeros", sides=[(0, 0), (0, 0)])
    actual = module(CONTENT, nn.DeformableFilter(weight, bias, offset))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_is_the_formula(mode):
    module = make(4, 4, (2, 3), 5, groups=2, stride=2, dilation=(1, 2), padding_mode=mode)
    torch.nn.init.normal_(module.offset_net.weight, std=0.7)
    torch.nn.init.normal_(module.offset_net.bias, std=3)
    weight, bias = module.encode(STYLE)
    map = normalised(CONTENT)
    shared = module.offset_net.weight.expand(2, -1, -1, -1, -1), module.offset_net.bias.expand(2, -1)
    offset = convolved(map, *shared, stride=2, dilation=(1, 2), mode=mode)
    assert offset.shape == (2, 12, 4, 3) and offset.abs().max() > 5
    expected = deformed(map, weight, bias, offset, 2, (1, 2), 2, mode)
    torch.testing.assert_close(module(CONTENT, STYLE), expected, rtol=1e-10, atol=1e-10)


def test_offsets_of_a_style_are_its_own():
    module = make(4, 4, 1, 5, offsets_from="style")
    torch.nn.init.normal_(module.offset_net.last.weight, std=3)
    weight, bias, offset = module.encode(STYLE)
    predicted = style_net(module.state_dict(), "offset_net", STYLE, 1)
    torch.testing.assert_close(offset[..., None, None], predicted, rtol=1e-10, atol=1e-10)
    expected = deformed(normalised(CONTENT), weight, bias, predicted.expand(2, 2, 7, 6), 1, (1, 1), 4, "reflect")
    torch.testing.assert_close(module(CONTENT, STYLE), expected, rtol=1e-10, atol=1e-10)


def test_a_filter_with_offsets_is_saved_mixed_and_serves_any_batch():
    module = make(4, 4, 3, 5, offsets_from="style")
    torch.nn.init.normal_(module.offset_net.last.weight)
    file = io.BytesIO()
    torch.save(module.encode(STYLE[:1]), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert type(loaded) is nn.DeformableFilter
    expected = module(CONTENT, STYLE[:1].expand(2, -1, -1, -1))
    torch.testing.assert_close(module(CONTENT, loaded), expected, rtol=1e-12, atol=1e-12)
    mixed = nn.DeformableFilter.mix([loaded, loaded], [0.25, 0.5])
    torch.testing.assert_close(mixed.offset, 0.75 * loaded.offset)
    assert loaded.to(torch.float32).offset.dtype is torch.float32


@pytest.mark.parametrize("offsets_from", ["content", "style"])
def test_offsets_learn(offsets_from):
    module = make(4, 4, 3, 5, offsets_from=offsets_from)
    module(CONTENT, STYLE).square().sum().backward()
    last = module.offset_net if offsets_from == "content" else module.offset_net.last
    assert last.weight.grad.abs().max() > 0 and last.bias.grad.abs().max() > 0
    torch.nn.init.normal_(last.weight)
    module(CONTENT, STYLE).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())


def test_gradients_are_those_of_the_numbers():
    module = make(2, 2, (1, 3), 5, groups=1)
    torch.nn.init.normal_(module.offset_net.weight, std=0.2)
    content, style = random(1, 2, 3, 4).requires_grad_(), random(1, 5, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(module, (content, style), fast_mode=True)


def test_low_precision_moves_no_tap():
    # In bfloat16 a position of a map of 500 pixels would be off by one.
    module = nn.DeformableDynamicInstanceNorm(2, 2, 3, 5, hidden_channels=6, dtype=torch.bfloat16)
    plain = nn.DynamicInstanceNorm(2, 2, 3, 5, hidden_channels=6, dtype=torch.bfloat16)
    plain.load_state_dict({key: tensor for key, tensor in module.state_dict().items() if "offset" not in key})
    content, style = random(1, 2, 3, 500).bfloat16(), random(1, 5, 4, 4).bfloat16()
    torch.testing.assert_close(module(content, style), plain(content, style), rtol=0.02, atol=0.02)


def test_one_map_without_a_batch():
    module = make(4, 4, 3, 5)
    torch.testing.assert_close(module(CONTENT[0], STYLE[0]), module(CONTENT[:1], STYLE[:1])[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.long)], ids=["fixed", "dynamic"])
def test_compiles_whole(dynamic):
    module = make(4, 4, 3, 5)
    torch.nn.init.normal_(module.offset_net.weight, std=0.2)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    with torch.no_grad():
        content = random(2, 4, 7, 9)
        torch.testing.assert_close(compiled(content, STYLE), module(content, STYLE))


@pytest.mark.parametrize(
    "offsets_from, style, words",
    [
        (
            "content", nn.DeformableFilter(random(1), None, random(1)),
            "expected a map or a DynamicFilter, got DeformableFilter",
        ),
        ("style", nn.DynamicFilter(random(1)), "expected a map or a DeformableFilter, got DynamicFilter"),
    ],
    ids=["content", "style"],
)  # fmt: skip
def test_a_filter_of_another_kind(offsets_from, style, words):
    with pytest.raises(TypeError, match=f"^DeformableDynamicInstanceNorm: style: {words}$"):
        make(4, 4, 3, 5, offsets_from=offsets_from)(CONTENT, style)


def test_errors():
    name = "^DeformableDynamicInstanceNorm: "
    with pytest.raises(ValueError, match=f"{name}offsets_from: expected 'content' or 'style', got 'both'$"):
        make(4, 4, 3, 5, offsets_from="both")
    module = make(4, 4, 3, 5, offsets_from="style")
    with pytest.raises(ValueError, match=rf"{name}style offset: expected shape \(2 or 1, 18\), got \(1, 9\)$"):
        module(CONTENT, module.encode(STYLE)._replace(offset=random(1, 9)))
    with pytest.raises(ValueError, match=f"{name}padding: reflect padding must be smaller than the input"):
        module(CONTENT[:, :, :1], STYLE)
    with pytest.raises(TypeError, match=f"{name}style weight: expected the input's type torch.float32, got torch.float64$"):
        module(CONTENT.float(), STYLE)
    assert repr(module).splitlines()[1].endswith("eps=1e-05, offsets_from='style'")
