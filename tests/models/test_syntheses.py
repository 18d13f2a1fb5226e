"""The losses of each system that optimises pictures, from the papers' formulas: plain torch in float64, no loss under test."""

import inspect
import math
import weakref

import pytest
import torch
import torch.nn.functional as F

from fastnorm import models
from fastnorm.models import SYNTHESES
from fastnorm.models.terms import Level
from fastnorm.models.vgg import LAYERS

WIDTHS = 4, 5, 6, 7, 8
GRAMS = "relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"


def picture(height, width, seed, samples=1):
    """Smooth enough to have edges, and nothing that ties."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(samples, 3, 9, 10, generator=generator, dtype=torch.float64)
    noise = torch.rand(samples, 3, height, width, generator=generator, dtype=torch.float64)
    return 0.8 * F.interpolate(coarse, (height, width), mode="bilinear") + 0.2 * noise


def build(name, **sizes):
    torch.manual_seed(3)
    return models.build(name, **dict(widths=WIDTHS) | sizes).double()


def features(vgg, x, pool=F.max_pool2d):
    """VGG as it was trained: zeros around each map."""
    found = {}
    state = vgg.state_dict()
    x = F.conv2d(x, state["preprocess.weight"], state["preprocess.bias"])
    for layer in LAYERS:
        name = layer.replace("relu", "conv")
        if f"{name}.weight" not in state:
            return found
        if name.endswith("_1") and name != "conv1_1":
            x = pool(x, 2)
        x = found[layer] = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1).relu()
    return found


def apart(x, y):
    return ((x - y) ** 2).mean()


def products(x):
    rows = x.flatten(2)
    return rows @ rows.mT / rows.shape[2]


def content_loss(x, content):
    return apart(x["relu4_2"], content["relu4_2"])


def gram_loss(x, style):
    """As Gatys' code: 1e3 / C^2 at each layer, of products averaged over positions."""
    return sum(1e3 / x[layer].shape[1] ** 2 * apart(products(x[layer]), products(style[layer])) for layer in GRAMS)


def variation(x):
    return x.diff(dim=2).square().sum() + x.diff(dim=3).square().sum()


def edges(x, side):
    kernel = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]], dtype=torch.float64).expand(1, 3, 3, 3)
    return F.conv2d(F.avg_pool2d(x, side), kernel)


def by_bins(x, y, bins=256):
    """Each plane's numbers by those of the target at the same level of the cumulative histogram, both linear in a bin."""
    found = torch.empty_like(x)
    for own, other, out in zip(x[0], y[0], found[0]):
        lows, highs = zip(*((plane.min(), plane.max()) for plane in (own, other)))
        counts = [torch.histc(plane, bins, low.item(), high.item()) for plane, low, high in zip((own, other), lows, highs)]
        if lows[0] == highs[0] or lows[1] == highs[1]:
            out.copy_(other.mean())
            continue
        levels = [torch.cat([each.new_zeros(1), each.cumsum(0)]) / each.sum() for each in counts]
        place = (own - lows[0]) / (highs[0] - lows[0]) * bins
        bin = place.long().clamp(max=bins - 1)
        level = levels[0][bin] + (place - bin) * (levels[0][bin + 1] - levels[0][bin])
        there = torch.searchsorted(levels[1][1:].contiguous(), level * (1 - 1e-13)).clamp(max=bins - 1)
        share = (level - levels[1][there]) / (levels[1][there + 1] - levels[1][there])
        out.copy_(lows[1] + (there + share) / bins * (highs[1] - lows[1]))
    return found


def patches(x):
    return F.unfold(x, 3)[0].T


def nearest(x, maps):
    """Each patch's squared distance to that of all maps which correlates best."""
    own, others = patches(x), torch.cat([patches(map) for map in maps])
    best = (F.normalize(own.detach()) @ F.normalize(others).T).argmax(1)
    return (own - others[best]).square()


def in_turn(x, style, penalty=0.1):
    own, others = patches(x), patches(style)
    likeness, used, chosen = F.normalize(own.detach()) @ F.normalize(others).T, torch.zeros(len(others)), []
    for row in likeness:
        chosen.append((row - penalty * used).argmax().item())
        used[chosen[-1]] += 1
    return (own - others[chosen]).square()


def gatys(x, content, style, eye):
    return dict(content=content_loss(eye(x), eye(content)), style=gram_loss(eye(x), eye(style)))


def laplacian(x, content, style, eye):
    steered = 100 * apart(edges(x, 4), edges(content, 4))
    return gatys(x, content, style, eye) | dict(laplacian=steered, variation=1e-3 * variation(x))


def histogram(x, content, style, eye):
    own, other = eye(x), eye(style)
    matched = sum(apart(own[layer], by_bins(own[layer].detach(), other[layer])) for layer in ("relu1_1", "relu4_1"))
    return gatys(x, content, style, eye) | dict(histogram=matched, variation=1e-3 * variation(x))


def cnnmrf(x, content, style, eye, copies=()):
    own, others = eye(x), [eye(copy) for copy in (style, *copies)]
    layers = "relu3_1", "relu4_1"
    distance = sum(nearest(own[layer], [other[layer] for other in others]).sum() for layer in layers)
    content = 20 * content_loss(own, eye(content))
    return dict(content=content, style=1e-4 / 2 / 9 * distance, variation=1e-3 * variation(x))


def reshuffle(x, content, style, eye, layers=("relu4_1", "relu3_1", "relu2_1")):
    own, other = eye(x), eye(style)
    distance = sum(in_turn(own[layer], other[layer]).mean() for layer in layers)
    return dict(content=content_loss(own, eye(content)), style=distance, variation=1e-3 * variation(x))


FORMULAS = dict(gatys=gatys, laplacian=laplacian, histogram=histogram, cnnmrf=cnnmrf, reshuffle=reshuffle)


def test_each_has_a_formula():
    assert FORMULAS.keys() == SYNTHESES.keys()


@pytest.mark.parametrize("name", FORMULAS)
def test_losses_are_their_formulas(name):
    """And their gradients: of a picture, a content and a style of other sizes."""
    system = build(name, **(dict(turns=0, scales=()) if name == "cnnmrf" else {}))
    x, content, style = picture(38, 44, 0).requires_grad_(), picture(38, 44, 1), picture(41, 34, 2)
    losses = system.losses(x, system.aim(Level(1.0, 1), content, [style], [1.0]))
    expected = FORMULAS[name](x, content, style, lambda picture: features(system.vgg, picture))
    assert losses.keys() == expected.keys()
    for part, value in losses.items():
        assert value.shape == (1,)
        torch.testing.assert_close(value[0], expected[part], rtol=1e-9, atol=0)
    found, right = (torch.autograd.grad(sum(each.values()).sum(), x)[0] for each in (losses, expected))
    torch.testing.assert_close(found, right, rtol=1e-7, atol=1e-9 * right.abs().max().item())


def test_patches_of_turned_and_scaled_copies():
    """As grid sampling by hand has them: about the middle, of the largest rectangle within; scaled, each of them."""
    system, x, style = build("cnnmrf", turns=1, turn=10.0, scales=(0.9,)), picture(40, 44, 0), picture(64, 52, 1)
    copies = system.copies(style)
    assert copies[0] is style and len(copies) == 6
    for copy, angle in zip(copies[1:3], (-10, 10)):
        height, width = copy.shape[2:]
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        corners = [(sx * width / 2, sy * height / 2) for sx in (-1, 1) for sy in (-1, 1)]
        inside = [(abs(cosine * u - sine * v), abs(sine * u + cosine * v)) for u, v in corners]
        assert all(across <= 26 and down <= 32 for across, down in inside)
        assert max(max(across / 26, down / 32) for across, down in inside) > 0.93  # No smaller than it has to be.
        # A picture that is its own row turns into a slope.
        rows = torch.arange(64.0).view(1, 1, 64, 1).expand(1, 3, 64, 52)
        slope = models.cnnmrf.turned(rows, math.radians(angle))
        torch.testing.assert_close(slope.diff(dim=3), torch.full_like(slope.diff(dim=3), sine), rtol=0, atol=1e-3)
        torch.testing.assert_close(slope.diff(dim=2), torch.full_like(slope.diff(dim=2), cosine), rtol=0, atol=1e-3)
    assert [tuple(copy.shape[2:]) for copy in copies[3:4]] == [(58, 47)]

    losses = system.losses(x, system.aim(Level(1.0, 1), x, [style], [1.0]))
    expected = cnnmrf(x, x, style, lambda picture: features(system.vgg, picture), copies[1:])
    torch.testing.assert_close(losses["style"][0], expected["style"], rtol=1e-9, atol=0)


def test_reshuffling_goes_down_the_layers():
    system, x, style = build("reshuffle"), picture(38, 44, 0), picture(41, 34, 2)
    levels = system.levels(38, 44)
    expected = [("relu4_1",), ("relu4_1", "relu3_1"), ("relu4_1", "relu3_1", "relu2_1")]
    assert [level.layers for level in levels] == expected
    for level in levels:
        value = system.losses(x, system.aim(level, x, [style], [1.0]))["style"][0]
        formula = reshuffle(x, x, style, lambda picture: features(system.vgg, picture), level.layers)
        torch.testing.assert_close(value, formula["style"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("pooling, pool", [("average", F.avg_pool2d), ("max", F.max_pool2d)])
def test_pooling(pooling, pool):
    system, x, style = build("gatys", pooling=pooling), picture(38, 45, 0), picture(41, 34, 2)
    losses = system.losses(x, system.aim(Level(1.0, 1), x, [style], [1.0]))
    expected = gatys(x, x, style, lambda picture: features(system.vgg, picture, pool))
    torch.testing.assert_close(losses["style"][0], expected["style"], rtol=1e-9, atol=0)


def test_several_styles():
    """Each has its share of every loss of style, and none of the content's."""
    system, x, content = build("gatys"), picture(38, 44, 0), picture(38, 44, 1)
    styles = [picture(41, 34, 2), picture(36, 50, 3)]
    losses = system.losses(x, system.aim(Level(1.0, 1), content, styles, [0.25, 0.75]))
    eye = lambda picture: features(system.vgg, picture)  # noqa: E731
    each = [gatys(x, content, style, eye) for style in styles]
    torch.testing.assert_close(losses["style"][0], 0.25 * each[0]["style"] + 0.75 * each[1]["style"], rtol=1e-9, atol=0)
    torch.testing.assert_close(losses["content"][0], each[0]["content"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_batch_is_its_samples(name):
    """With a style for all, and one for each."""
    system, x, content = build(name), picture(34, 40, 0, 2), picture(34, 40, 1, 2)
    styles = [picture(41, 34, 2), picture(36, 39, 3, 2)]
    together = system.losses(x, system.aim(Level(1.0, 1), content, styles, [0.5, 0.5]))
    for n in range(2):
        own = [styles[0], styles[1][n : n + 1]]
        alone = system.losses(x[n : n + 1], system.aim(Level(1.0, 1), content[n : n + 1], own, [0.5, 0.5]))
        for part, value in alone.items():
            torch.testing.assert_close(together[part][n : n + 1], value, rtol=1e-12, atol=0)


def test_the_encoder_stops_at_the_last_layer_of_a_loss():
    """Of a texture that is the style's; of a level, its own."""
    system = build("reshuffle")
    style = picture(40, 40, 0)
    called = []
    for layer in LAYERS:
        if hasattr(system.vgg, layer):
            getattr(system.vgg, layer).register_forward_hook(lambda *_, layer=layer: called.append(layer))
    assert called == [] and not hasattr(system.vgg, "relu4_3")
    aim = system.aim(system.levels(40, 40)[0], None, [style], [1.0])
    assert aim.last == "relu4_1" and called[-1] == "relu4_1"
    called.clear()
    with torch.no_grad():
        system.losses(style, system.aim(Level(1.0, 1, ("relu2_1",)), None, [style], [1.0]))
    assert set(called) == {"relu1_1", "relu1_2", "relu2_1"}


def test_a_walk_keeps_one_map():
    """That before is free once the next is there."""
    system, before = build("gatys"), None
    with torch.no_grad():
        for _, map in system.vgg.walk(picture(32, 32, 0)):
            assert before is None or before() is None
            before = weakref.ref(map)
    assert [layer for layer, _ in system.vgg.walk(picture(32, 32, 0), "relu3_1")] == ["relu1_1", "relu2_1", "relu3_1"]


@pytest.mark.parametrize("name", FORMULAS)
def test_levels(name):
    system = build(name)
    found = [(level.size, level.steps) for level in system.levels(384, 512)]
    thirds = [(0.25, 200), (0.5, 200), (1.0, 200)]
    pyramid = [(0.125, 100), (0.25, 100), (0.5, 100), (1.0, 100)]
    expected = dict(
        gatys=[(0.64, 500), (1.0, 200)], laplacian=[(1.0, 1000)], histogram=thirds, cnnmrf=pyramid, reshuffle=3 * [(1.0, 100)]
    )
    assert found == expected[name]
    if name == "cnnmrf":  # A narrow picture begins where patches still lie beside each other.
        assert [level.size for level in system.levels(100, 1000)] == [0.5, 1.0]


WRONG = [
    ("gatys", dict(style_weight=-1.0), "Gatys: style_weight: expected a finite number of at least 0, got -1.0"),
    ("laplacian", dict(laplacian_weight=-2.0), "Laplacian: laplacian_weight: expected a finite number of at least 0, got -2.0"),
    ("histogram", dict(histogram_weight=math.nan), "Histogram: histogram_weight: expected a finite number of at least 0, got nan"),
    ("cnnmrf", dict(content_weight=-1.0), "CNNMRF: content_weight: expected a finite number of at least 0, got -1.0"),
    ("reshuffle", dict(usage_penalty=-1.0), "Reshuffle: usage_penalty: expected a finite number of at least 0, got -1.0"),
    ("gatys", dict(style_layers=("relu1_1", "relu9_9")), f"Gatys: style_layers: expected some of {', '.join(LAYERS)}, got relu9_9"),
    ("cnnmrf", dict(content_layers=("conv4_2",)), f"CNNMRF: content_layers: expected some of {', '.join(LAYERS)}, got conv4_2"),
    ("gatys", dict(content_weight=0.0, style_weight=0.0), "Gatys: expected a weight above 0 at least, got none"),
    ("gatys", dict(sizes=(0.5, 1.0), steps=(3,)), "Gatys: sizes: expected one for each of 1 numbers of steps, the last 1, got (0.5, 1.0)"),
    ("gatys", dict(widths=(4, 5)), "VGG19: widths: expected channels of 5 stages, each 1 at least, got (4, 5)"),
    ("gatys", dict(widths=(4, 5, 6, 0, 8)), "VGG19: widths: expected channels of 5 stages, each 1 at least, got (4, 5, 6, 0, 8)"),
    ("gatys", dict(padding_mode="circular"), "Gatys: padding_mode: expected zeros, reflect or replicate, got circular"),
    ("gatys", dict(pooling="mean"), "VGG19: pooling: expected one of max, average, got 'mean'"),
]  # fmt: skip


@pytest.mark.parametrize("name, sizes, words", WRONG, ids=[words[:40] for *_, words in WRONG])
def test_what_cannot_be(name, sizes, words):
    with pytest.raises(ValueError) as raised:
        build(name, **sizes)
    assert str(raised.value) == words


def test_layers_are_a_list():
    with pytest.raises(TypeError, match="^Gatys: style_layers: expected a list of layers, got 'relu1_1'$"):
        build("gatys", style_layers="relu1_1")


@pytest.mark.parametrize("name", FORMULAS)
def test_public_weights(name, tmp_path):
    """As `load` reads them; every argument is one that the command line can set."""
    system = build(name).float()
    torch.save({key.replace("conv1_1", "features.0"): value for key, value in system.vgg.state_dict().items()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="expected features.2.weight"):
        models.load(name, tmp_path / "x.pth", widths=WIDTHS)
    with pytest.raises(models.MissingWeights, match="no VGG-19 weights at"):
        models.load(name, tmp_path / "none.pth")
    defaults = models.default_sizes(name)
    assert all(default is not inspect.Parameter.empty for default in defaults.values())
