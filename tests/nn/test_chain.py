"""Chain and Residual against the modules that they run, one after the other, in float64."""

import copy
import pickle
import random
from collections import OrderedDict

import pytest
import torch
from torch import nn

from fastnorm.nn import (
    AdaIN,
    Chain,
    ConditionalInstanceNorm2d,
    InstanceNorm2d,
    ReflectionPad2d,
    Residual,
    UpsampleConv2d,
    UpsamplePad2d,
)
from fastnorm.ops import backends


class Plus(nn.Sequential):
    """What Residual is."""

    def forward(self, input):
        return input + super().forward(input)


class Around(nn.Module):
    """A block of one's own."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, input):
        return input + self.inside(input)


def plain(module):
    """torch's containers around the same modules."""
    if not isinstance(module, nn.Sequential):
        return module
    kind = Plus if isinstance(module, Residual) else nn.Sequential
    return kind(*map(plain, module))


def filled(module, seed=0):
    """Numbers of its own in every parameter and running statistic."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * 0.8 + 0.1 * (tensor.dim() == 1)
                )
                if tensor.dim() > 1:
                    tensor.sub_(0.4)
    return module.double()


def maps(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_same(chain, expected, input, *others):
    """Values, without gradients and with; and the gradients."""
    # Clones, for some modules work in place.
    with torch.no_grad():
        torch.testing.assert_close(chain(input.clone(), *others), expected(input.clone()), rtol=1e-9, atol=1e-9)
    input = input.clone().requires_grad_()
    inputs = [input, *(parameter for parameter in chain.parameters() if parameter.requires_grad)]
    output, wanted = chain(input.clone(), *others), expected(input.clone())
    torch.testing.assert_close(output, wanted, rtol=1e-9, atol=1e-9)
    gradient = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    found = torch.autograd.grad(output, inputs, gradient)
    torch.testing.assert_close(found, torch.autograd.grad(wanted, inputs, gradient), rtol=1e-7, atol=1e-8)


def what(chain):
    """Of each step: its layer, what it takes in and what it does as it writes."""
    return [
        (step.layer.name, " ".join(written.words for written in step.written(chain.plan().sizes)))
        for step in chain.plan().steps
    ]


def reasons(chain):
    return {step.layer.name: step.reason for step in chain.plan().steps if hasattr(step, "reason")}


def block(channels):
    return [
        nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels, affine=True), nn.ReLU(),
        nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels, affine=True),
    ]  # fmt: skip


def network():
    """Johnson's, small: every kind of fusion at once."""
    return Chain(
        nn.Conv2d(3, 4, 5, padding=2, padding_mode="reflect"), nn.InstanceNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1), InstanceNorm2d(6, affine=True, activation="relu"),
        Residual(*block(6)), Residual(*block(6)),
        nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(6, 4, 3), nn.InstanceNorm2d(4), nn.LeakyReLU(0.3),
        nn.ReflectionPad2d(2), nn.Conv2d(4, 3, 5), nn.Sigmoid(),
    )  # fmt: skip


CHAINS = {
    "a network": network,
    "nothing": lambda: Chain(),
    "stride, dilation, groups": lambda: Chain(
        nn.Conv2d(3, 6, 3, stride=(2, 1), padding=(2, 1), dilation=2), nn.InstanceNorm2d(6), nn.GELU(),
        nn.Conv2d(6, 4, (1, 3), groups=2, bias=False), nn.Tanh(),
    ),
    "same, valid": lambda: Chain(
        nn.Conv2d(3, 4, 3, padding="same", padding_mode="circular"), nn.SiLU(),
        nn.Conv2d(4, 4, (2, 3), padding="same"), nn.InstanceNorm2d(4), nn.ReplicationPad2d((1, 1, 0, 0)),
        nn.Conv2d(4, 2, 2, padding="valid"),
    ),
    "same of an even kernel behind a padding": lambda: Chain(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 2, padding="same")),
    "zeros and zeros": lambda: Chain(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()),
    "two paddings": lambda: Chain(nn.CircularPad2d(1), nn.ReplicationPad2d(1), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()),
    "padding before upsampling": lambda: Chain(nn.ReflectionPad2d(1), nn.UpsamplingNearest2d(scale_factor=2), nn.Conv2d(3, 4, 3)),
    "twice upsampled": lambda: Chain(
        nn.InstanceNorm2d(3), nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=(1, 3), mode="nearest-exact"), nn.Tanh(),
        nn.ReflectionPad2d(1), nn.Conv2d(3, 2, 3),
    ),
    "running statistics": lambda: Chain(
        nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.ReLU(), nn.Conv2d(4, 4, 1),
        nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Conv2d(4, 3, 1), InstanceNorm2d(3, track_running_stats=True),
    ).eval(),
    "a norm first and a norm last": lambda: Chain(
        nn.InstanceNorm2d(3, affine=True), nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, eps=0.1), nn.GELU(), nn.Identity()
    ),
    "norms in a row": lambda: Chain(nn.InstanceNorm2d(3), nn.InstanceNorm2d(3, eps=0.5), nn.ReLU(), nn.Tanh(), nn.Conv2d(3, 2, 1)),
    "activation before the norm": lambda: Chain(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.InstanceNorm2d(4), nn.Conv2d(4, 2, 1)),
    "upsampling before the norm": lambda: Chain(nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2), nn.InstanceNorm2d(4), nn.ReLU()),
    "residual: activated, of a bare map": lambda: Chain(
        nn.Conv2d(3, 4, 1), Residual(nn.InstanceNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)), nn.ReLU(), nn.Conv2d(4, 2, 1)
    ),
    "residual: norm first, one after another": lambda: Chain(
        *(Residual(nn.InstanceNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1)) for _ in range(2)), nn.Tanh()
    ),
    "residual in a residual": lambda: Chain(
        nn.InstanceNorm2d(3), Residual(Residual(nn.Conv2d(3, 3, 1), nn.ReLU()), nn.Conv2d(3, 3, 1), nn.ReLU()), nn.Conv2d(3, 1, 1)
    ),
    "residual of a residual alone": lambda: Chain(nn.InstanceNorm2d(3), Residual(Residual(nn.ReLU())), nn.Conv2d(3, 1, 1)),
    "residual of nothing": lambda: Chain(nn.InstanceNorm2d(3), nn.ReLU(), Residual(), Residual(nn.Identity()), nn.Conv2d(3, 1, 1)),
    "residual behind a padding": lambda: Chain(nn.ReflectionPad2d(1), Residual(nn.Conv2d(3, 3, 1)), nn.Upsample(scale_factor=2)),
    "residual that starts with another module": lambda: Chain(
        nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3), nn.ReLU(), Residual(nn.Softplus(), nn.Conv2d(3, 3, 1)), nn.Conv2d(3, 2, 1)
    ),
    "nested": lambda: Chain(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.InstanceNorm2d(4))), Chain(nn.ReLU(), nn.Conv2d(4, 2, 3)), nn.Sequential()
    ),
    "other modules between": lambda: Chain(
        nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1), nn.ReLU6(), nn.InstanceNorm2d(4), nn.ELU(),
        nn.Flatten(), nn.LazyLinear(5), nn.ReLU(), nn.Linear(5, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("size", [(9, 11)])
def test_is_its_modules(make, size):
    chain = make()
    input = maps(2, 3, *size)
    with torch.no_grad():
        chain.double()(input)  # Lazy modules meet their sizes.
    filled(chain)
    assert_same(chain, plain(chain), input)


@pytest.mark.parametrize("seed", range(25))
def test_is_its_modules_in_any_order(seed):
    chain = filled(_some_chain(random.Random(seed)), seed).eval()
    assert_same(chain, plain(chain), maps(2, 4, 7, 6, seed=seed))


def _some_chain(choose, depth=0):
    """Modules that keep four channels."""
    kinds = [
        lambda: nn.Conv2d(
            4, 4, 3, padding=1, padding_mode=choose.choice(["zeros", "reflect", "replicate", "circular"])
        ),
        lambda: nn.Conv2d(4, 4, 1, bias=choose.random() < 0.5),
        lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=choose.random() < 0.2),
        lambda: InstanceNorm2d(4, activation=choose.choice([None, "silu"])),
        lambda: choose.choice([nn.SiLU(), nn.Tanh(), nn.LeakyReLU(0.2), nn.Identity()]),
        lambda: nn.Softplus(),
        lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 2, stride=2)),
        lambda: nn.Sequential(choose.choice([nn.ReflectionPad2d, nn.ZeroPad2d])(1), nn.Conv2d(4, 4, 3)),
    ]
    if depth < 2:
        kinds += [lambda: Residual(*_some_chain(choose, depth + 1))] * 3
    return Chain(*(choose.choice(kinds)() for _ in range(choose.randint(1, 7 - 2 * depth))))


@pytest.mark.parametrize("size", [(4, 4), (5, 8), (17, 6), (13, 13)])
@pytest.mark.parametrize("batch", [(1,), (3,), ()], ids=str)
def test_any_size_and_batch(size, batch):
    chain = filled(network())
    input = maps(*batch, 3, *size)
    # torch's Upsample takes (C, H, W) for lines.
    expected = plain(chain)(input) if batch else plain(chain)(input[None])[0]
    with torch.no_grad():
        torch.testing.assert_close(chain(input), expected, rtol=1e-9, atol=1e-9)


def test_unbatched_through_modules_as_they_are():
    chain = filled(Chain(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1)))
    assert_same(chain, plain(chain), maps(3, 9, 8))


def test_empty_batch():
    chain, input = network(), torch.empty(0, 3, 8, 12, requires_grad=True)
    with torch.no_grad():
        assert chain(input).shape == (0, 3, 8, 12)
    output, inputs = chain(input), [input, *chain.parameters()]
    assert output.shape == (0, 3, 8, 12)
    found = torch.autograd.grad(output, inputs, torch.empty_like(output))
    torch.testing.assert_close(found, tuple(map(torch.zeros_like, inputs)))


def test_empty_batch_where_torch_takes_one():
    # Its instance norm does not.
    chain = filled(Chain(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.3), nn.Conv2d(4, 2, 3), nn.Tanh()))
    assert_same(chain, plain(chain), maps(0, 3, 8, 12))


IN_PLACE = {
    "an activation": lambda: Residual(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1)),
    "after none": lambda: Residual(nn.Identity(), nn.Sequential(nn.SiLU(inplace=True)), nn.LeakyReLU(0.2, True), nn.Conv2d(4, 4, 1)),
    "and nothing else": lambda: Residual(nn.ReLU(inplace=True)),
    "in another": lambda: Residual(Residual(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1)), nn.ReLU(inplace=True)),
    "of the unknown": lambda: Residual(nn.ELU(inplace=True), nn.Conv2d(4, 4, 1)),
}


@pytest.mark.parametrize("make", IN_PLACE.values(), ids=IN_PLACE)
def test_what_works_in_place_changes_what_is_added(make):
    for before in ([], [nn.Conv2d(4, 4, 1)], [nn.Conv2d(4, 4, 1), nn.InstanceNorm2d(4)]):
        chain = filled(Chain(*before, make(), nn.Conv2d(4, 2, 1)))
        assert_same(chain, plain(chain), maps(1, 4, 5, 6))
    hooked = chain[2].register_forward_hook(lambda module, inputs, output: None)
    assert_same(chain, plain(chain), maps(1, 4, 5, 6))
    hooked.remove()
    alone = filled(make())
    assert_same(alone, plain(alone), maps(1, 4, 5, 6))


def test_follows_whether_it_works_in_place():
    chain = filled(Chain(Residual(nn.ReLU(), nn.Conv2d(4, 4, 1))))
    assert_same(chain, plain(chain), maps(1, 4, 5, 6))
    chain[0][0].inplace = True
    assert_same(chain, plain(chain), maps(1, 4, 5, 6))


def test_layers_of_fastnorm_are_fused():
    chain = filled(
        Chain(
            ReflectionPad2d((1, 1, 2, 2)), nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU(),
            UpsampleConv2d(4, 6, (3, 5), (2, 1), padding_mode="circular", groups=2), nn.InstanceNorm2d(6),
            UpsamplePad2d(2, (0, 0, 1, 1), "replicate"), nn.Conv2d(6, 2, 3), UpsampleConv2d(2, 3, 1, padding=0),
        )  # fmt: skip
    )
    assert not reasons(chain) and len(chain.plan().steps) == 4
    assert_same(chain, nn.Sequential(*chain), maps(2, 3, 8, 9))
    assert reasons(Chain(UpsamplePad2d(2, (1, 0, 1, 0)))) == {"0": "its sides differ"}


def test_a_residual_is_useful_alone():
    residual = filled(Residual(*block(3)))
    assert_same(residual, plain(residual), maps(2, 3, 6, 7))
    assert what(residual) == [("1", "reflect 1 conv 3x3"), ("5", "norm relu reflect 1 conv 3x3"), ("6", "norm add")]


def test_channels_last_stays():
    chain = filled(network())
    input = maps(2, 3, 9, 10)
    with torch.no_grad():
        expected = chain(input)
        output = chain.to(memory_format=torch.channels_last)(input.contiguous(memory_format=torch.channels_last))
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)


def off(output, expected):
    return ((output.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_no_less_exact_than_its_modules(dtype):
    chain = filled(network())
    input = maps(2, 3, 16, 16, dtype=dtype)
    chain.to(dtype).double()  # The same rounded numbers in both.
    with torch.no_grad():
        expected = plain(chain)(input.double())
        chain.to(dtype)
        output, theirs = chain(input), plain(chain)(input)
    assert output.dtype == dtype
    assert off(output, expected) <= 2 * off(theirs, expected)


def test_autocast_is_no_less_exact_than_of_its_modules():
    chain = filled(network()).float()
    input = maps(2, 3, 16, 16, dtype=torch.float32)
    with torch.no_grad():
        expected = plain(copy.deepcopy(chain).double())(input.double())
        with torch.autocast("cpu", torch.bfloat16):
            output, theirs = chain(input), plain(chain)(input)
    assert output.dtype == theirs.dtype == torch.bfloat16
    assert off(output, expected) <= 2 * off(theirs, expected)
    with torch.autocast("cpu", torch.bfloat16):
        chain(input).float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in chain.parameters())


# It is a Sequential.


def test_is_a_sequential():
    modules = [nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU()]
    chain, theirs = Chain(*modules), nn.Sequential(*modules)
    assert chain.state_dict().keys() == theirs.state_dict().keys()
    assert list(chain) == modules and len(chain) == 3 and chain[-1] is modules[2]
    assert repr(chain) == repr(theirs).replace("Sequential", "Chain", 1)
    assert isinstance(chain[:2], Chain) and list(chain[:2]) == modules[:2]
    named = Chain(OrderedDict(first=modules[0], norm=modules[1]))
    assert list(named.state_dict()) == ["first.weight", "first.bias"] and named.norm is modules[1]


@pytest.mark.parametrize("differentiated", [True, False])
def test_follows_what_is_changed_after_a_call(differentiated):
    chain = filled(
        Chain(nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4, track_running_stats=True), nn.Dropout(0.5), nn.ReLU())
    )
    input = maps(2, 3, 6, 6)
    chain.eval()(input)
    changes = [
        lambda: chain.append(nn.Conv2d(4, 2, 1).double()),
        lambda: setattr(chain[0], "padding_mode", "reflect"),
        lambda: setattr(chain[0], "weight", nn.Parameter(maps(4, 3, 3, 3))),
        lambda: chain[1].running_var.mul_(3),
        lambda: setattr(chain[1], "eps", 0.3),
        lambda: chain.__setitem__(3, nn.Tanh()),
        lambda: chain.insert(1, nn.Conv2d(4, 4, 1).double()),
        lambda: setattr(chain[4], "forward", lambda input: 2 * input),
        lambda: chain[0].register_forward_hook(lambda module, inputs, output: output + 1),
        lambda: nn.utils.parametrizations.spectral_norm(chain[1]).eval(),
        lambda: chain.pop(1),
    ]
    for change in changes:
        with torch.set_grad_enabled(differentiated):
            before = chain(input)
            change()
            expected = plain(chain)(input)
            assert before.shape != expected.shape or (before - expected).abs().max() > 1e-6
            for _ in range(2):
                torch.testing.assert_close(chain(input), expected, rtol=1e-9, atol=1e-9)


def test_follows_the_types_and_sizes_of_its_inputs():
    chain = filled(network()).requires_grad_(False)
    for shape in [(2, 3, 8, 12), (1, 3, 8, 12), (1, 3, 9, 10)]:
        for dtype in (torch.float64, torch.float32):
            input = maps(*shape, dtype=dtype)
            expected = plain(chain.double())(input.double())
            chain.to(dtype)
            for _ in range(2):
                output = chain(input)
                assert output.dtype == dtype
                torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-4)


def test_what_ran_in_inference_mode_can_be_trained():
    chain = filled(Chain(nn.Upsample(scale_factor=2), nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.ReLU()))
    chain.requires_grad_(False)
    with torch.inference_mode():
        for _ in range(2):
            chain(maps(2, 3, 6, 6))
    assert_same(chain, plain(chain), maps(2, 3, 6, 6))


def test_autocast_is_asked_at_every_call():
    chain = filled(Chain(Residual(nn.Conv2d(3, 3, 1)), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))).float()
    input = maps(1, 3, 6, 7, dtype=torch.float32)
    with torch.no_grad():
        plainly = [chain(input) for _ in range(2)]
        with torch.autocast("cpu", torch.bfloat16):
            cast = [chain(input) for _ in range(2)]
        plainly += [chain(input) for _ in range(2)]
        with pytest.raises(TypeError, match="weight: expected the input's type"):
            chain(input.bfloat16())
    assert all(torch.equal(output, plainly[0]) for output in plainly) and torch.equal(*cast)
    assert cast[0].dtype == torch.bfloat16 and (cast[0] - plainly[0]).abs().max() > 0


def test_a_bias_that_goes_after_a_call():
    chain = filled(Chain(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU()))
    assert_same(chain, plain(chain), maps(1, 3, 6, 7))
    chain[0].bias = None
    assert_same(chain, plain(chain), maps(1, 3, 6, 7))


def test_a_norm_of_ones_own_that_gives_numbers():
    class Numbers(nn.Module):
        eps = 1e-5

        def affine_of(self, style):
            return 1.0, 0.0

        def forward(self, input, style):
            return torch.nn.functional.instance_norm(input)

    with pytest.raises(TypeError, match=r"^Chain: 1 \(Numbers\): norm weight: expected a tensor, got float$"):
        Chain(nn.Conv2d(3, 4, 1), Numbers(), nn.Conv2d(4, 2, 1))(torch.zeros(1, 3, 4, 4), torch.zeros(1))


def test_a_style_has_a_gradient_after_calls_without():
    adain = AdaIN()
    chain = filled(Chain(nn.Conv2d(3, 4, 3), adain, nn.ReLU(), nn.Conv2d(4, 2, 3))).requires_grad_(False)
    input, style = maps(1, 3, 7, 8), maps(1, 4, 5, 5, seed=2)
    expected = chain(input, style)
    for _ in range(2):
        torch.testing.assert_close(chain(input, style), expected)
    style.requires_grad_()
    modules = list(plain(chain))
    wanted = modules[3](modules[2](modules[1](modules[0](input), style)))
    found, *gradient = [output.sum() for output in (chain(input, style), wanted)]
    torch.testing.assert_close(*(torch.autograd.grad(value, style)[0] for value in (found, *gradient)))


def test_plans_once():
    chain = network()
    assert chain.plan() is chain.plan()
    plan = chain.plan()
    chain.eval()
    assert chain.plan() is not plan


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["copy", "pickle"]
)
def test_a_copy_is_its_own(copied):
    chain = filled(network())
    input = maps(1, 3, 8, 8)
    expected = chain(input)
    other = copied(chain)
    with torch.no_grad():
        chain[0].weight.zero_()
    torch.testing.assert_close(other(input), expected, rtol=0, atol=0)


# Styles.


class Affine(nn.Module):
    """A norm of one's own, by the protocol."""

    eps, activation = 1e-3, "tanh"

    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(5, 2 * channels)

    def affine_of(self, style):
        return self.linear(style).chunk(2, -1)

    def forward(self, input, style):
        weight, bias = (part[..., None, None] for part in self.affine_of(style))
        return (nn.functional.instance_norm(input, eps=self.eps) * weight + bias).tanh()


def styled(norm):
    return filled(
        Chain(
            nn.Conv2d(3, 4, 3),
            norm,
            Residual(nn.Conv2d(4, 4, 1), norm.__class__(*ARGUMENTS[type(norm)])),
            nn.Conv2d(4, 2, 1),
        )
    )


ARGUMENTS = {AdaIN: (), ConditionalInstanceNorm2d: (4, 3), Affine: (4,)}
STYLES = {
    "adain, map": (lambda: AdaIN(1e-3, 1, eps_mode="std", style_eps=0.0), maps(2, 4, 5, 5, seed=3)),
    "adain, one map": (AdaIN, maps(1, 4, 5, 5, seed=3)),
    "adain, mean and std": (AdaIN, (maps(2, 4, seed=3), maps(2, 4, seed=4))),
    "adain, one mean and std": (AdaIN, (maps(4, seed=3), maps(1, 4, seed=4))),
    "conditional, indices": (lambda: ConditionalInstanceNorm2d(4, 3, 1e-2, activation="silu"), torch.tensor([2, 0])),
    "conditional, mixtures": (lambda: ConditionalInstanceNorm2d(4, 3), maps(2, 3, seed=3).softmax(1)),
    "one's own": (lambda: Affine(4), maps(2, 5, seed=3)),
}


@pytest.mark.parametrize("make, style", STYLES.values(), ids=STYLES)
def test_a_style_goes_to_those_that_take_one(make, style):
    chain = styled(make())
    first, norm, (conv, other), last = chain

    def expected(input):
        output = norm(first(input), style)
        return last(output + other(conv(output), style))

    assert not reasons(chain)
    assert_same(chain, expected, maps(2, 3, 8, 7), style)
    chain[1].register_forward_hook(lambda module, inputs, output: None)
    assert reasons(chain) == {"1": "it has hooks"}
    assert_same(chain, expected, maps(2, 3, 8, 7), style)


def test_a_dict_gives_each_its_own_style():
    chain = styled(ConditionalInstanceNorm2d(4, 3))
    first, norm, (conv, other), last = chain
    one, two = torch.tensor([2, 0]), torch.tensor([1, 1])

    def expected(input):
        output = norm(first(input), one)
        return last(output + other(conv(output), two))

    for style in ({"1": one, "2.1": two}, {"1": one, "2": two}):
        assert_same(chain, expected, maps(2, 3, 8, 7), style)
        with torch.no_grad():
            torch.testing.assert_close(chain.one_by_one(maps(2, 3, 8, 7), style), expected(maps(2, 3, 8, 7)))


def test_unbatched_with_a_style_map():
    chain, input, style = styled(AdaIN()), maps(3, 8, 7), maps(4, 5, 6, seed=3)
    torch.testing.assert_close(chain(input, style), chain(input[None], style[None])[0], rtol=1e-9, atol=1e-9)


def test_unbatched_with_a_style():
    chain = styled(ConditionalInstanceNorm2d(4, 3))
    input = maps(3, 8, 7)
    for style in (torch.tensor(2), maps(3, seed=4)):
        torch.testing.assert_close(chain(input, style), chain(input[None], style[None])[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(chain.one_by_one(input, style), chain(input, style), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "style, error, message",
    [
        (None, ValueError, r"Chain: 1 \(ConditionalInstanceNorm2d\): style: expected one, got None"),
        ({"2": 0}, ValueError, r"Chain: 1 \(Cond.*\): style: expected one of the name 1, got '2'"),
        (torch.tensor([0, 3]), IndexError, r"Chain: 1 \(Cond.*\): style: expected indices in 0..2, got \[0, 3\]"),
        (torch.ones(2, 4), ValueError, r"Chain: 1 \(Cond.*\): style: expected a mixture \(2, 3\), got \(2, 4\)"),
        (3, TypeError, r"Chain: 1 \(Cond.*\): style: expected a tensor, got int"),
        (
            torch.tensor([0, 1, 1]),
            ValueError,
            r"Chain: 1 \(Cond.*\): norm weight: expected shape .*\(2, 4\), got \(3, 4\)",
        ),
    ],
)
def test_wrong_styles(style, error, message):
    with pytest.raises(error, match=f"^{message}$") as caught:
        styled(ConditionalInstanceNorm2d(4, 3))(maps(2, 3, 8, 7), style)
    assert "\n" not in str(caught.value)


def test_a_style_that_may_be_left_away():
    class Maybe(nn.Module):
        def forward(self, input, style=2):
            return style * input

    chain, input = Chain(Maybe(), nn.Tanh()), maps(1, 3, 4, 4)
    torch.testing.assert_close(chain(input), (2 * input).tanh())
    torch.testing.assert_close(chain(input, 3), (3 * input).tanh())


def test_a_style_that_nobody_takes():
    with pytest.raises(ValueError, match="^Chain: style: expected None, for none of its modules takes one$"):
        network()(torch.zeros(1, 3, 8, 8), torch.zeros(1))


# The plan.


def test_a_network_is_a_kernel_a_layer():
    chain = network()
    assert what(chain) == [
        ("0", "reflect 2 conv 5x5"),
        ("3", "norm relu conv 3x3, stride 2"),
        ("5.1", "norm relu reflect 1 conv 3x3"),
        ("5.5", "norm relu reflect 1 conv 3x3"),
        ("6.1", "norm add reflect 1 conv 3x3"),
        ("6.5", "norm relu reflect 1 conv 3x3"),
        ("9", "norm add upsample 2 reflect 1 conv 3x3"),
        ("13", "norm leaky_relu reflect 2 conv 5x5 sigmoid"),
    ]
    assert not reasons(chain)
    assert [step.layer.name for step in chain.plan().steps if step.entered is not None] == ["5.1", "6.1"]


def test_no_map_outlives_its_last_reader():
    """Two buffers serve a chain, four where a residual stream goes beside it."""
    for chain, buffers in ((Chain(*block(3), nn.ReLU(), *block(3)), 2), (network(), 4)):
        held, most = {0}, 0
        for step in chain.plan().steps:
            held |= set(step.writes)
            most = max(most, len(held))
            held -= set(step.frees)
        assert held == {chain.plan().output} and most == buffers


def test_a_bias_before_an_instance_norm_is_dropped():
    chain = filled(Chain(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.InstanceNorm2d(4)))
    assert [step.drops_bias for step in chain.plan().steps[:2]] == [True, False]
    input = maps(1, 3, 8, 8)
    expected = chain(input)
    chain(input).square().sum().backward()
    assert torch.equal(chain[0].bias.grad, torch.zeros(4, dtype=torch.float64))
    with torch.no_grad():
        chain[0].bias.fill_(1e30)  # In a convolution it would leave nothing else.
        torch.testing.assert_close(chain(input), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(chain(input), expected, rtol=1e-12, atol=1e-12)
    assert "left out, since the norm that follows subtracts it: the bias of 0\n" in f"{chain.plan()}\n"


def test_a_bias_that_is_seen_elsewhere_stays():
    running = Chain(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True)).eval()
    added = Chain(nn.Conv2d(3, 4, 3), Residual(nn.InstanceNorm2d(4), nn.Conv2d(4, 4, 1)))
    for chain in (running, added):
        assert not any(getattr(step, "drops_bias", False) for step in chain.plan().steps)


class Scaled(nn.Conv2d):
    def forward(self, input):
        return 2 * super().forward(input)


class Shifted(ConditionalInstanceNorm2d):
    def forward(self, input, style):
        return super().forward(input, style) + 1


class Renamed(nn.Conv2d):
    """Has nothing of its own that matters."""


def hooked(module, register):
    getattr(module, register)(lambda *arguments: None)
    return module


def replaced(module):
    module.forward = lambda input: input + 1
    return module


UNFUSED = {
    "forward hook": (lambda: hooked(nn.Conv2d(3, 3, 1), "register_forward_hook"), "it has hooks"),
    "forward pre-hook": (lambda: hooked(nn.Conv2d(3, 3, 1), "register_forward_pre_hook"), "it has hooks"),
    "backward hook": (lambda: hooked(nn.ReLU(), "register_full_backward_hook"), "it has hooks"),
    "backward pre-hook": (lambda: hooked(nn.ReLU(), "register_full_backward_pre_hook"), "it has hooks"),
    "a hook around others": (
        lambda: hooked(nn.Sequential(nn.Conv2d(3, 3, 1)), "register_forward_hook"),
        "it has hooks",
    ),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 1)), "it is parametrised"),
    "own forward": (lambda: Scaled(3, 3, 1), "a Conv2d with a forward of its own"),
    "replaced forward": (lambda: replaced(nn.ReLU()), "its forward is replaced"),
    "training statistics": (lambda: nn.InstanceNorm2d(3, track_running_stats=True), "it updates running statistics"),
    "batch norm": (lambda: nn.BatchNorm2d(3), "it normalises by the statistics of the batch"),
    "dropout": (lambda: nn.Dropout(1e-12), "it is random in training"),
    "tanh GELU": (lambda: nn.GELU("tanh"), "it approximates GELU by tanh"),
    "bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), "its mode is bilinear"),
    "factor": (lambda: nn.Upsample(scale_factor=1.5), "its factor is no integer"),
    "size": (lambda: nn.Upsample(size=(9, 9)), "it has a size, not a factor"),
    "asymmetric": (lambda: nn.ReflectionPad2d((1, 0, 1, 1)), "its sides differ"),
    "cropping": (lambda: nn.ZeroPad2d(-1), "it crops"),
    "ones around": (lambda: nn.ConstantPad2d(1, 1.0), "it pads with 1.0"),
    "unknown": (lambda: nn.Softplus(), "no layer that a chain knows"),
    "unknown, of parts": (lambda: Around(nn.Conv2d(3, 3, 1)), "unknown as a whole: make it a Chain or Residual"),
}


@pytest.mark.parametrize("make, reason", UNFUSED.values(), ids=UNFUSED)
def test_what_is_not_fused_is_said_and_right(make, reason):
    chain = Chain(nn.Conv2d(3, 3, 3), nn.InstanceNorm2d(3), make(), nn.ReLU(), nn.Conv2d(3, 2, 1))
    chain.double()
    assert reasons(chain) == {"2": reason}
    assert f"as it is: 2 ({type(chain[2]).__name__}): {reason}\n" in f"{chain.plan()}\n"
    same, input = copy.deepcopy(chain), maps(2, 3, 7, 8)
    torch.manual_seed(0)
    output = chain(input)
    torch.manual_seed(0)
    torch.testing.assert_close(output, plain(same)(input), rtol=1e-8, atol=1e-8)


def test_a_subclass_without_a_forward_is_fused():
    assert not reasons(Chain(Renamed(3, 3, 1), nn.ReLU()))


def test_a_norm_by_protocol_with_another_forward_is_not_fused():
    chain, style = filled(Chain(nn.Conv2d(3, 4, 3), Shifted(4, 3), nn.Conv2d(4, 2, 1))), torch.tensor([0, 2])
    assert reasons(chain) == {"1": "a ConditionalInstanceNorm2d with a forward of its own"}
    input = maps(2, 3, 6, 6)
    torch.testing.assert_close(chain(input, style), chain[2](chain[1](chain[0](input), style)))


def test_a_chain_with_a_forward_of_its_own_is_called():
    class Doubled(Chain):
        def forward(self, input):
            return 2 * super().forward(input)

    chain = filled(Chain(nn.Conv2d(3, 4, 3), Doubled(nn.Conv2d(4, 4, 3), nn.ReLU()), nn.InstanceNorm2d(4, eps=1.0)))
    assert reasons(chain) == {"1": "a chain with a forward of its own"}
    input = maps(2, 3, 8, 8)
    torch.testing.assert_close(chain(input), chain[2](2 * chain[1][0](chain[0](input)).relu()))


def test_a_chain_that_begins_empty():
    chain, input = Chain(nn.Sequential()), maps(1, 3, 4, 4)
    assert chain(input) is input
    chain[0].append(nn.Tanh())
    torch.testing.assert_close(chain(input), input.tanh())


def test_hooks_are_called():
    chain, seen = network(), []
    chain[8].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    chain(torch.zeros(1, 3, 8, 8) + torch.arange(8.0))
    assert seen == [(1, 6, 10, 10)]
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: seen.append(type(module)))
    try:
        chain(torch.zeros(1, 3, 8, 8) + torch.arange(8.0))
    finally:
        handle.remove()
    assert seen.count(nn.Conv2d) == 8


def test_modules_that_share_their_state_are_not_fused():
    conv, relu = nn.Conv2d(3, 3, 1), nn.ReLU()
    twice = Chain(conv, relu, conv, relu, nn.Conv2d(3, 2, 1))
    assert reasons(twice) == {
        "0": "it shares its state with 2",
        "2": "it shares its state with 0",
        "1": "what follows runs as it is",
    }
    tied = Chain(nn.Conv2d(3, 3, 1), Residual(nn.Conv2d(3, 3, 1)), nn.Conv2d(3, 3, 1))
    tied[1][0].weight = tied[0].weight
    assert reasons(tied) == {"0": "it shares its state with 1.0", "1.0": "it shares its state with 0"}
    for chain in (twice, tied):
        assert_same(filled(chain), plain(chain), maps(1, 3, 5, 5))


ORDERS = {
    "no convolution": ([nn.ReLU(), nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1)], ["no convolution follows"] * 3),
    "two paddings": ([nn.ReflectionPad2d(1), nn.ZeroPad2d(1), nn.Conv2d(3, 1, 1)], ["another padding follows"]),
    "padding, upsampling": ([nn.ZeroPad2d(1), nn.Upsample(scale_factor=2), nn.Conv2d(3, 1, 1)], ["an upsampling follows"]),
    "padding, activation": ([nn.ZeroPad2d(1), nn.Sigmoid(), nn.Conv2d(3, 1, 1)], ["an activation follows"]),
    "upsampling, norm": ([nn.Upsample(scale_factor=2), nn.InstanceNorm2d(3), nn.Conv2d(3, 1, 1)], ["a norm follows"]),
    "padding, residual": ([nn.ZeroPad2d(1), Residual(nn.Conv2d(3, 3, 1))], ["a residual stream begins"]),
    "residual, padding": ([Residual(nn.Conv2d(3, 3, 3), nn.ZeroPad2d(1)), nn.Conv2d(3, 1, 1)], ["a sum follows"]),
}  # fmt: skip


@pytest.mark.parametrize("modules, words", ORDERS.values(), ids=ORDERS)
def test_why_an_order_does_not_fit_one_kernel(modules, words):
    chain = Chain(*modules).double()
    assert list(reasons(chain).values()) == words
    assert_same(chain, plain(chain), maps(1, 3, 6, 5))


# Bad input.


@pytest.mark.parametrize(
    "chain, shape, error, message",
    [
        (network(), (1, 3, 2, 2), ValueError, r"0 \(Conv2d\): padding: reflect padding must be smaller than the input, \(2, 2\), got \(2, 2\)"),
        (Chain(*(nn.Conv2d(3, 3, 3, 2, 1) for _ in range(2)), nn.ReflectionPad2d(1), nn.Conv2d(3, 1, 3)), (1, 3, 4, 9), ValueError,
         r"2 \(ReflectionPad2d\): padding: reflect padding must be smaller than the input, \(1, 3\), got \(1, 1\)"),
        (
            Chain(nn.ReLU(), nn.ReflectionPad2d(3), nn.Conv2d(3, 3, 1)), (1, 3, 3, 9), ValueError,
            r"1 \(ReflectionPad2d\): padding: reflect padding must be smaller than the input, \(3, 9\), got \(3, 3\)",
        ),
        (Chain(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 5)), (1, 3, 4, 9), ValueError, r"1 \(Conv2d\): weight: expected a kernel that fits .*"),
        (Chain(nn.Conv2d(3, 3, 3), nn.InstanceNorm2d(3), nn.Conv2d(3, 1, 1)), (1, 3, 3, 3), ValueError,
         r"1 \(InstanceNorm2d\): norm: expected more than 1 element in a plane, got planes of \(1, 1\)"),
        (Chain(nn.InstanceNorm2d(3, affine=True), nn.Conv2d(3, 1, 1)), (1, 5, 3, 3), ValueError,
         r"0 \(InstanceNorm2d\): norm weight: expected shape \(5,\), .*got \(3,\)"),
        (Chain(nn.MaxPool2d(2), nn.InstanceNorm2d(3), nn.Conv2d(3, 1, 1)), (3, 8, 8), ValueError,
         r"1 \(InstanceNorm2d\): norm: expected an input \(N, C, H, W\), got \(3, 4, 4\)"),
        (Chain(nn.Conv2d(3, 3, 1)), (1, 4, 3, 3), ValueError, r"0 \(Conv2d\): input: expected 3 channels, got 4"),
        (Chain(nn.Conv2d(3, 3, 1), Residual(nn.Conv2d(3, 3, 3)), nn.Conv2d(3, 1, 1)), (1, 3, 5, 5), ValueError,
         r"1 \(Residual\): residual: expected the input's shape \(1, 3, 3, 3\), got \(1, 3, 5, 5\)"),
        (Chain(nn.ReLU(), nn.ReflectionPad2d(4)), (1, 3, 3, 3), RuntimeError, r"1 \(ReflectionPad2d\): .*"),
    ],
)  # fmt: skip
def test_an_error_names_the_layer(chain, shape, error, message):
    with pytest.raises(error, match=f"^Chain: ({message})$") as caught:
        chain(torch.zeros(shape))
    assert "\n" not in str(caught.value)


def test_an_input_of_another_type():
    with pytest.raises(
        TypeError, match=r"^Chain: 0 \(Conv2d\): weight: expected the input's type torch.float64, got torch.float32"
    ):
        network()(maps(1, 3, 8, 8))


# Compiled and exported.


def small():
    return filled(
        Chain(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU(), Residual(nn.Conv2d(4, 4, 1), nn.Dropout(1e-12)))
    )


def test_compiles_to_one_graph():
    chain, input = small(), maps(2, 3, 6, 7)
    assert_same(torch.compile(chain, fullgraph=True, backend="aot_eager"), plain(chain), input)


def test_a_compiled_one_follows_what_is_changed():
    chain, input = small(), maps(2, 3, 6, 7)
    chain(input)
    compiled = torch.compile(chain, fullgraph=True, backend="eager")
    changes = [chain.eval, lambda: setattr(chain[1], "eps", 0.5), lambda: chain.__setitem__(2, nn.Tanh())]
    with torch.no_grad():
        for change in changes:
            change()
            torch.testing.assert_close(compiled(input), plain(chain)(input), rtol=1e-9, atol=1e-9)


def test_exports_as_torch_operators():
    chain, input = small().eval(), maps(2, 3, 6, 7)
    program = torch.export.export(chain, (input,))
    assert not [node for node in program.graph.nodes if "fastnorm" in str(node.target)]
    torch.testing.assert_close(program.module()(input), chain(input), rtol=1e-9, atol=1e-9)


def test_traces():
    chain, input = small().eval(), maps(2, 3, 6, 7)
    torch.testing.assert_close(torch.jit.trace(chain, input)(input), chain(input), rtol=1e-9, atol=1e-9)


def test_the_reference_backend_runs_module_by_module(monkeypatch):
    """A plan that was made before is not asked: it has the operators of kernels."""
    chain = Chain(nn.Conv2d(3, 4, 3, padding=1), InstanceNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)).eval()
    input = torch.randn(2, 3, 12, 13)
    with torch.no_grad():
        planned = chain(input)
        monkeypatch.setattr(Chain, "_current_plan", lambda *_: pytest.fail("a plan was asked"))
        with backends.by_reference():
            torch.testing.assert_close(chain(input), planned)
