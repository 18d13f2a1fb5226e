"""Composed operators against formulas that share nothing with them: an error that an operator and its reference have in
common, as in what both do with a style, shows nowhere else.
"""

from dataclasses import replace

import pytest
import torch
from accuracy import assert_gradients, assert_values
from calls import CALLS, DTYPES, tensors, with_tensors


def calls_of(name):
    return pytest.mark.parametrize("call", [call for call in CALLS if call.operator.name == name], ids=str)


def every(name):
    return pytest.mark.parametrize(name, DTYPES, ids=lambda dtype: f"{name} {dtype}")


def computed(input, *parameters):
    """Each of them in the type in which `input` is computed."""
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    return [tensor.to(wide) for tensor in (input, *parameters)]


def over_planes(per_plane, map):
    return per_plane.reshape(-1, map.shape[1], *[1] * (map.dim() - 2))


def conditional_instance_norm(input, weight, bias, style, eps=1e-5, activation=None):
    x, weight, bias = computed(input, weight, bias)
    if style.is_floating_point():
        (mixture,) = computed(style.to(x.dtype))
        weight, bias = (
            torch.stack([sum(share * row for share, row in zip(shares, table)) for shares in mixture])
            for table in (weight, bias)
        )
    else:
        weight, bias = (torch.stack([table[index] for index in style]) for table in (weight, bias))
    output = torch.nn.functional.instance_norm(x, eps=eps) * over_planes(weight, x) + over_planes(bias, x)
    return (output.relu() if activation == "relu" else output).to(input.dtype)


def adain(content, style, alpha=1.0, eps=1e-5, correction=0, eps_mode="var", style_eps=None, style_correction=None):
    def statistics(map, eps, correction):
        (map,) = computed(map)
        var, mean = torch.var_mean(map.flatten(2), 2, correction=correction)
        return mean, (var + eps).sqrt() if eps_mode == "var" else var.sqrt() + eps

    if isinstance(style, torch.Tensor):
        style = statistics(
            style, eps if style_eps is None else style_eps, correction if style_correction is None else style_correction
        )
    x, *numbers = computed(content, *statistics(content, eps, correction), *style)
    mean, std, style_mean, style_std = (over_planes(number, x) for number in numbers)
    return (alpha * ((x - mean) / std * style_std + style_mean) + (1 - alpha) * x).to(content.dtype)


def assert_follows(formula, operator, sample):
    for function in (operator.run, operator.reference):
        assert_values(replace(operator, run=function, reference=formula), sample)
        assert_gradients(replace(operator, run=function, reference=formula), sample)


@every("style")
@every("table")
@every("map")
@calls_of("conditional_instance_norm")
def test_conditional_instance_norm(call, map, table, style):
    input, weight, bias, styles = tensors(call.sample(dtype=torch.float64))
    styles = styles.to(style) if styles.is_floating_point() else styles
    sample = with_tensors(call.sample(), [input.to(map), weight.to(table), bias.to(table), styles])
    assert_follows(conditional_instance_norm, call.operator, sample)


@every("style")
@every("map")
@calls_of("adain")
def test_adain(call, map, style):
    content, *styles = tensors(call.sample(dtype=torch.float64))
    sample = with_tensors(call.sample(), [content.to(map), *(tensor.to(style) for tensor in styles)])
    assert_follows(adain, call.operator, sample)
