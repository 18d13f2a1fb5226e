"""Where something works in place, switches gradients or only looks like a norm: the numbers stay those of the original."""

import pytest
import torch
import torch.nn.functional as F
from checks import Calls, assert_right, captured
from forms import randn, randomized
from torch import nn

C = 6
over_planes = dict(dim=(2, 3), keepdim=True)


def body(model, x):
    return model.second(F.relu(F.instance_norm(model.first(x))))


def standardised(map, mean, var):
    return (map - mean) / torch.sqrt(var + 1e-5)


def statistics_without_gradient(model, x):
    h = body(model, x)
    with torch.no_grad():
        mean, var = h.mean(**over_planes), h.var(unbiased=False, **over_planes)
    return standardised(h, mean, var)


def deviation_without_gradient(model, x):
    h = body(model, x)
    with torch.no_grad():
        mean = h.mean(**over_planes)
    return (h - mean) / (h.std(**over_planes) + 1e-5)


def affine_with_gradient(model, x):
    h = body(model, x)
    with torch.no_grad():
        n = F.instance_norm(h)
    return n * model.scale + model.shift


def written_after_the_statistics(model, x):
    h = body(model, x).clone()
    mean, var = h.mean(**over_planes), h.var(unbiased=False, **over_planes)
    h[:, :, :5] = 0
    return standardised(h, mean, var)


def written_after_the_view(model, x):
    h = body(model, x).clone()
    flat = h.reshape(1, -1, *h.shape[2:]).contiguous().clone().view(1, -1, *h.shape[2:])
    h[:, :, :5] = 0
    return F.batch_norm(flat, None, None, training=True).view(h.shape) + h


def activated_in_place(model, x):
    h = model.first(x)
    n = torch.sigmoid(h)
    return model.second(n) + model.activation(h)


def normed_before_it_changes(model, x):
    h = model.first(x)
    n = F.relu(F.instance_norm(h))
    return model.second(n) + model.activation(h)


def another_name_of_it(model, x):
    h = body(model, x).clone()
    y = F.relu(h, inplace=True)
    y += 1
    return y * h


def padded_by_nothing(model, x):
    y = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
    y -= 0.5
    return body(model, y) + x.mean()


def upsampled_by_one(model, x):
    h = body(model, x)
    y = F.interpolate(h, scale_factor=1)
    y.sub_(1)
    return h * y


def another_type(model, x):
    y = model.first(x).bfloat16()
    y += model.shift
    return y


def one_buffer_for_all_filters(model, x):
    h, filters, outputs = body(model, x), torch.empty_like(model.filters[0]), []
    for sample in range(2):
        filters.copy_(model.filters[sample].detach())
        outputs.append(F.conv2d(h[sample : sample + 1], filters))
    return torch.cat(outputs)


def one_buffer_for_all_samples(model, x):
    h, outputs = body(model, x), []
    buffer = h[:1].clone()
    for sample in range(2):
        buffer.copy_(h[sample : sample + 1])
        outputs.append(F.conv2d(buffer, model.filters[0]))
    return torch.cat(outputs)


def a_term_before_a_map_of_factors(model, x):
    h = body(model, x)
    gamma = model.second(h)
    return (F.instance_norm(h) + model.shift) * (1 + gamma) + model.second(gamma)


def one_and_twice(model, x):
    h = body(model, x)
    gamma = model.second(h)
    return F.instance_norm(h) * torch.add(gamma, 1, alpha=2) + model.second(gamma)


def half_of_the_product(model, x):
    n = F.instance_norm(body(model, x))
    return torch.add(n, n * model.scale, alpha=0.5)


def its_own_factor(model, x):
    n = F.instance_norm(body(model, x))
    return n + n * n


def called_by_name(model, x):
    return torch.div(input=body(model, x), other=model.scale)


def padded_channels_side_by_side(model, x):
    h = body(model, x)
    n, c, *size = h.shape
    return F.conv2d(F.pad(h.reshape(1, n * c, *size), (0, 0, 0, 0, 1, 1)), model.wide)


def deviation_of_samples_about_planes(model, x):
    h = body(model, x)
    var = (h - h.mean(**over_planes)).var((1, 2, 3), keepdim=True, unbiased=False)
    return standardised(h, h.mean((1, 2, 3), keepdim=True), var)


def squares_about_the_sample(model, x):
    h = body(model, x)
    squares = (h - h.mean((1, 2, 3), keepdim=True)) ** 2
    return standardised(h, h.mean(**over_planes), squares.mean(3, keepdim=True).mean(2, keepdim=True))


def deviations_of_rows(model, x):
    h = body(model, x)
    return standardised(h, h.mean(**over_planes), h.var(3, keepdim=True, unbiased=False).mean(2, keepdim=True))


def norm_of_rows(model, x):
    h = body(model, x)
    return standardised(h, h.mean(3, keepdim=True), h.var(3, keepdim=True, unbiased=False))


RIGHT = [
    statistics_without_gradient, deviation_without_gradient, affine_with_gradient, padded_by_nothing, upsampled_by_one,
    written_after_the_view, a_term_before_a_map_of_factors, one_and_twice, half_of_the_product,
    its_own_factor, called_by_name, padded_channels_side_by_side, deviation_of_samples_about_planes, squares_about_the_sample,
    deviations_of_rows, norm_of_rows,
]  # fmt: skip
# torch itself has no gradient of these: what it needs for that is written over.
WITHOUT_GRADIENT = [
    written_after_the_statistics, another_name_of_it, one_buffer_for_all_filters, one_buffer_for_all_samples,
]  # fmt: skip


def make(function, **modules):
    return randomized(_make, function, **modules)


def _make(function, **modules):
    convolutions = dict(first=nn.Conv2d(3, C, 3, padding=1), second=nn.Conv2d(C, C, 3, padding=1))
    model = Calls(function, **convolutions, **modules)
    shapes = dict(scale=(1, C, 1, 1), shift=(1, C, 1, 1), filters=(2, 4, C, 3, 3), wide=(4, 2 * C + 2, 1, 1))
    for name, shape in shapes.items():
        model.register_parameter(name, nn.Parameter(torch.rand(shape) / 4))
    return model


@pytest.mark.parametrize("function", RIGHT, ids=lambda function: function.__name__)
def test_forward_and_gradients(function):
    x = randn(2, 3, 12, 16)
    assert_right(captured(make(function)), lambda: make(function), (x,))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", WITHOUT_GRADIENT, ids=lambda function: function.__name__)
def test_forward(function):
    x = randn(2, 3, 12, 16)
    with torch.no_grad():
        close(captured(make(function))(x), make(function)(x))


IN_PLACE = [nn.ELU, nn.Hardswish, nn.ReLU6, nn.SELU, nn.Hardtanh, nn.Mish, nn.CELU, nn.ReLU, nn.LeakyReLU, nn.SiLU]


@pytest.mark.parametrize("activation", IN_PLACE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("function", [activated_in_place, normed_before_it_changes], ids=lambda function: function.__name__)
def test_activations_in_place(function, activation):
    x = randn(2, 3, 12, 16)
    models = [make(function, activation=activation(inplace=True)) for _ in range(2)]
    with torch.no_grad():
        close(captured(models[0])(x), models[1](x))


@pytest.mark.parametrize("function", [activated_in_place, normed_before_it_changes], ids=lambda function: function.__name__)
def test_dropout_in_place(function):
    x = randn(2, 3, 12, 16)
    models = [make(function, activation=nn.Dropout(inplace=True)) for _ in range(2)]
    found = []
    for model in (captured(models[0]), models[1]):
        torch.manual_seed(3)
        with torch.no_grad():
            found.append(model(x))
    close(*found)


def test_a_type_that_a_sum_in_place_keeps():
    x = randn(2, 3, 12, 16)
    with torch.no_grad():
        found, expected = captured(make(another_type))(x), make(another_type)(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("function", [padded_by_nothing, upsampled_by_one], ids=lambda function: function.__name__)
def test_the_input_stays_as_it_was(function):
    x = randn(2, 3, 12, 16)
    with torch.no_grad():
        captured(make(function))(x)
    torch.testing.assert_close(x, randn(2, 3, 12, 16), rtol=0, atol=0)
