"""Every form in which models write the slow layers: what comes out of it, and that this computes the same."""

import pytest
import torch
from torch.utils._pytree import tree_map
from checks import assert_right, captured, graphs
from forms import FORMS, LEFT_ALONE, STYLE, C, randn

import fastnorm
from fastnorm.swap._classes import Swapped

# What the operators of fastnorm are called in a graph: the first word that is there counts.
WORDS = {
    "instance_norm": ["norm"],
    "instance_stats": ["instance_stats", "norm"],
    "adain": ["adain", "norm"],
    "norm_conv2d": ["conv"],
    "upsample_conv2d": ["upsample"],
    "dynamic_conv2d": ["dynamic_conv_transpose2d", "conv"],
    "layer_instance_norm": ["layer-instance norm"],
    "spatially_adaptive_norm": ["spatially_adaptive_norm"],
    "attention_stats": ["attention_stats"],
}
# What is left of none of them, as it is fused.
GONE = (
    "pad", "interpolate", "conv2d", "instance_norm", "batch_norm", "group_norm", "sqrt", "rsqrt", "std_mean", "var_mean",
    "std", "var", "relu", "leaky_relu", "softmax", "bmm", "matmul", "einsum",
)  # fmt: skip
# But for these: the statistics of a style, and a layer before the padding that is none of ours; what scales filters; the root
# of a variance to which something was added.
LEAVES = {"modulated": ["rsqrt"], "modulated up": ["rsqrt"], "modulated down": ["rsqrt"], "modulated scaled": ["rsqrt"]}
LEAVES |= {"AdaAttN eps": ["sqrt"], "AdaAttN eps alone": ["sqrt"]}
LEAVES |= {"upsample bilinear pad conv": ["interpolate"], "SPADE 1d": ["interpolate", "relu"], "SPADE 3d": ["interpolate"]}


@pytest.mark.parametrize("name", FORMS)
def test_it_computes_the_same(name):
    """Of one form's few hundred numbers the largest error is luck: what is wrong there is so for other numbers, too."""
    form = FORMS[name]
    for scale in (1.0, 0.7, 1.3) if name == "self-attention" else (1.0,):
        inputs = tree_map(lambda leaf: _scaled(leaf, scale), form.inputs(torch.float32))
        found = fastnorm.verify(form.make(), captured(form.make()), inputs)
        if found:
            break
    assert found, found


def _scaled(leaf, scale):
    return scale * leaf if torch.is_tensor(leaf) and leaf.is_floating_point() else leaf


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.expects is not None])
def test_the_operator_comes_out_of_it(name):
    form = FORMS[name]
    (calls,) = graphs(form.make(), *form.inputs(torch.float32))
    assert any(word in call for word in WORDS[form.expects] for call in calls), calls
    assert sorted({call for call in calls if call in GONE}) == LEAVES.get(name, [])


def exchanged_modules(model):
    return [type(module) for module in fastnorm.swap(model).modules() if isinstance(module, Swapped)]


BY_MODULES = [name for name, form in FORMS.items() if exchanged_modules(form.make())]


def test_modules_are_exchanged_by_themselves():
    assert {"InstanceNorm1d", "InstanceNorm3d LeakyReLU", "pad conv modules", "upsample pad conv", "residual block"} <= set(BY_MODULES)
    assert not {"norm view", "F.instance_norm", "padding_mode", "AdaILN", "pad with ones"} & set(BY_MODULES)


@pytest.mark.parametrize("name", BY_MODULES)
def test_without_inputs_it_computes_the_same(name):
    form = FORMS[name]
    found = fastnorm.verify(form.make(), fastnorm.swap(form.make()), form.inputs(torch.float32))
    assert found, found


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_it_does_what_the_original_does_besides(name, capsys):
    """What it prints, what its hooks have kept, and its statistics."""
    form = FORMS[name]
    left = []
    for model in (form.make(), captured(form.make())):
        model(*form.inputs(torch.float32))
        seen = getattr(model, "seen", None)
        left.append((capsys.readouterr().out, *([] if seen is None else [seen]), *model.buffers()))
    (printed, *tensors), (printed_by_ours, *tensors_of_ours) = left
    assert printed_by_ours == printed and bool(printed) == (name == "prints")
    assert len(tensors) == len(tensors_of_ours) and (len(tensors) > 0) == (name in LEAVES_TENSORS)
    for ours, its in zip(tensors_of_ours, tensors):
        torch.testing.assert_close(ours, its)


LEAVES_TENSORS = ("running statistics eval", "running statistics training", "hook looks at pad", "hook looks at norm")
LEAVES_TENSORS += ("shared buffers", "spectral norm", "spectral norm by hook")

# Other sizes, and another number of samples.
OTHER_SIZES = {
    "InstanceNorm2d affine": [(3, C, 8, 15)],
    "InstanceNorm3d LeakyReLU": [(1, C, 4, 3, 6)],
    "norm view": [(1, C, 9, 9)],
    "AdaIN": [(3, C, 7, 8), (3, C, 5, 5)],
    "linear chunk": [(4, C, 5, 9), (4, STYLE)],
    "residual block": [(3, C, 7, 6)],
    "F.interpolate size": [(1, C, 5, 8)],
    "filters loop": [(3, C, 8, 9), (3, 8, C, 3, 3), (3, 8)],
    "filters groups padded": [(4, C, 8, 9), (4, 8, C, 3, 3)],
    "AdaILN": [(3, C, 7, 5), (3, C), (3, C)],
    "SPADE": [(1, C, 8, 12), (1, 3, 4, 6)],
    "AdaAttN": [(1, C, 5, 7), (1, C, 9, 3), (1, 4, 9, 3)],
    "SANet": [(3, C, 7, 8), (3, C, 5, 5)],
    "self-attention": [(1, C, 6, 4)],
}


@pytest.mark.parametrize("name", OTHER_SIZES)
def test_other_sizes_come_later(name):
    form = FORMS[name]
    model = captured(form.make())
    others = tuple(randn(*shape, seed=seed) for seed, shape in enumerate(OTHER_SIZES[name]))
    for inputs in (form.inputs(torch.float32), others):
        assert_right(model, form.make, inputs)


SOME = "norm planes", "AdaIN", "norm activation upsample pad conv norm", "AdaConv view", "AdaILN", "SPADE", "SANet",
SOME += "AdaAttN", "self-attention"


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types(name, dtype):
    form = FORMS[name]
    assert_right(captured(form.make().to(dtype)), lambda: form.make().to(dtype), form.inputs(dtype))


@pytest.mark.parametrize("name", [*SOME, "InstanceNorm3d LeakyReLU"])
def test_channels_last(name):
    form = FORMS[name]
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    map, *others = form.inputs(torch.float32)
    inputs = map.to(memory_format=layouts[map.dim()]), *others
    assert_right(captured(form.make()), form.make, inputs)
