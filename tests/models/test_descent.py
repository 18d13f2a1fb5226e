"""How pictures are found: what falls, what is the same again, what goes on, and what stops."""

import math
import re

import pytest
import torch
from test_syntheses import WIDTHS, build, picture

from fastnorm import models
from fastnorm.models import SYNTHESES, tiles
from fastnorm.models.descent import Descent, Diverged
from fastnorm.models.pictures import keep_colors, resized
from fastnorm.models.terms import Level
from fastnorm.models.vgg import LAYERS

# By what part of the first loss of a level the last one is less, at least, in 15 steps from noise.
FALLS = dict(gatys=0.95, laplacian=0.9, histogram=0.95, cnnmrf=0.4, reshuffle=0.5)
QUICK = dict(cnnmrf=dict(turns=0, scales=(0.8,)))


def small(name, dtype=torch.float32, **sizes):
    torch.manual_seed(3)
    return models.build(name, widths=WIDTHS, **QUICK.get(name, {}), **sizes).to(dtype)


def content(samples=1):
    return picture(48, 40, 1, samples).float()


def style():
    return picture(44, 50, 2).float()


def descend(name, **settings):
    descent = Descent(small(name), content(), [style()], **dict(steps=15, start="noise") | settings)
    return descent, list(descent)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("name", SYNTHESES)
def test_losses_fall(name, optimizer):
    descent, steps = descend(name, optimizer=optimizer)
    every = [(level, step) for level in range(1, len(descent.levels) + 1) for step in range(1, 16)]
    assert [(step.level, step.step) for step in steps] == every
    first, last = steps[0], steps[14]
    share = 1.0 if optimizer == "lbfgs" else 0.5
    assert last.total[0] < (1 - share * FALLS[name]) * first.total[0]
    assert descent.finished and descent.result().shape == (1, 3, 48, 40)
    assert 0 <= descent.result().min() and descent.result().max() <= 1
    for step in steps:
        assert step.total == [math.fsum(values[0] for values in step.losses.values())]


@pytest.mark.parametrize("name", SYNTHESES)
def test_the_same_seed_gives_the_same_bits(name):
    (first, told), (again, told_again), (other, _) = (descend(name, steps=4, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.result(), again.result()) and told == told_again
    assert not torch.equal(first.result(), other.result())


@pytest.mark.parametrize("name", SYNTHESES)
def test_goes_on_as_if_nothing_had_been(name, tmp_path):
    """From a file of the state, at any step of any level, with either optimiser."""
    for optimizer in ("lbfgs", "adam"):
        whole, told = descend(name, steps=5, optimizer=optimizer)
        half = Descent(small(name), content(), [style()], steps=5, start="noise", optimizer=optimizer)
        for _ in range(min(7, len(told) - 2)):
            half.advance()
        torch.save(half.state(), tmp_path / "state.pt")
        rest = Descent(small(name), content(), [style()], steps=5, start="noise", optimizer=optimizer)
        rest.load(torch.load(tmp_path / "state.pt", weights_only=True))
        assert list(rest) == told[min(7, len(told) - 2) :]
        assert torch.equal(rest.result(), whole.result())


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_state_is_of_its_moment(optimizer):
    """Whatever is done after it, and as often as it is loaded."""
    descent = Descent(small("gatys"), content(), [style()], steps=4, start="noise", optimizer=optimizer)
    descent.advance(), descent.advance()
    state = descent.state()
    list(descent)
    for _ in range(2):
        again = Descent(small("gatys"), content(), [style()], steps=4, start="noise", optimizer=optimizer)
        again.load(state)
        list(again)
        assert torch.equal(again.result(), descent.result()) and again.taken == 8
    state["pictures"] = [picture[..., 1:] for picture in state["pictures"]]
    with pytest.raises(ValueError, match=r"^Gatys: state: expected pictures \(1, 3, 38, 32\), got \(1, 3, 38, 31\)$"):
        descent.load(state)
    with pytest.raises(RuntimeError, match="^Gatys: there is no further step: take the result$"):
        descent.advance()


@pytest.mark.parametrize("name", SYNTHESES)
def test_samples_of_a_batch_come_out_as_alone(name):
    system = small(name, torch.float64)
    contents, styles = content(2).double(), [style().double(), picture(40, 40, 5, 2)]
    for settings in (dict(start="noise", seed=4), dict(optimizer="adam", preserve_color="histogram")):
        together = system.synthesize(contents, styles, steps=4, **settings)
        for n in range(2):
            own = settings | dict(seed=settings.get("seed", 0) + n)
            alone = system.synthesize(contents[n : n + 1], [styles[0], styles[1][n : n + 1]], steps=4, **own)
            torch.testing.assert_close(together[n : n + 1], alone, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["gatys", "laplacian", "histogram"])
def test_with_a_content_alone_its_picture_is_the_optimum(name):
    """There it stays; and from noise it gets there, where features tell pictures apart."""
    others = {f"{part}_weight" for part in ("style", "variation", "histogram", "laplacian")}
    losses = dict.fromkeys(others & models.default_sizes(name).keys(), 0.0)
    one_level = dict(sizes=(1.0,), steps=(150,), content_layers=("relu1_1",))
    system = models.build(name, widths=(32, 8, 8, 8, 8), **losses, **one_level)
    for optimizer in ("lbfgs", "adam"):  # Which moves by its rate, however small a gradient of rounding alone is.
        stayed = system.synthesize(content(), steps=3, optimizer=optimizer, lr=1e-3 if optimizer == "adam" else None)
        torch.testing.assert_close(stayed, content().clamp(0, 1), rtol=0, atol=0 if optimizer == "lbfgs" else 4e-3)
    found = system.synthesize(content(), start="noise")
    torch.testing.assert_close(found, content(), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", ["cnnmrf", "reshuffle"])
def test_with_a_content_alone_its_picture_is_the_optimum_of_patches_too(name):
    system = models.build(name, widths=(32, 8, 8, 8, 8), style_weight=0.0, variation_weight=0.0, content_layers=("relu1_1",))
    assert torch.equal(system.synthesize(content(), steps=2), content().clamp(0, 1))
    found = system.synthesize(content(), start="noise", steps=100)
    torch.testing.assert_close(found, content(), rtol=0, atol=0.02)


def test_textures():
    """Of a style alone, of its size or another; noise is each sample's own."""
    system = small("gatys")
    descent = Descent(system, None, [style()], steps=10, size=(36, 52), samples=2, seed=3)
    steps = list(descent)
    assert descent.result().shape == (2, 3, 36, 52) and steps[0].losses.keys() == {"style"}
    assert all(last < 0.2 * first for first, last in zip(steps[0].total, steps[-1].total))
    assert not torch.equal(*descent.result())
    assert system.synthesize(styles=[style()], steps=1).shape == style().shape
    torch.testing.assert_close(
        system.synthesize(None, [style()], steps=10, size=(36, 52), seed=4), descent.result()[1:], rtol=0, atol=1e-4
    )


def test_where_it_starts():
    system, other = small("laplacian"), picture(30, 20, 9).float()
    starts = dict(content=content(), style=resized(style(), 48, 40))
    for start, expected in [*starts.items(), (other, resized(other, 48, 40)), (None, content())]:
        descent = Descent(system, content(), [style()], start=start)
        torch.testing.assert_close(descent.result(), expected, rtol=0, atol=0)
    noise = Descent(system, content(), [style()], start="noise").result()
    assert abs(noise.mean() - 0.5) < 0.02 and abs(noise.std() - 12**-0.5) < 0.02


def test_levels_begin_where_those_before_end():
    """Resized; and no smaller than 32 pixels."""
    system, photo = small("histogram"), picture(136, 120, 0).float()
    descent = Descent(system, photo, [style()], steps=[2, 3, 1])
    found = []
    for step in descent:
        found.append((step.level, step.step, step.size, torch.cat(descent.pictures).detach()))
    sizes = [(1, 1, (36, 32)), (1, 2, (36, 32)), *((2, k, (68, 60)) for k in (1, 2, 3)), (3, 1, (136, 120))]
    assert [step[:3] for step in found] == sizes
    short = Descent(system, photo, [style()], steps=[2, 3, 1], optimizer="adam", lr=0.0)
    list(short)
    torch.testing.assert_close(short.result(), resized(resized(resized(photo, 36, 32), 68, 60), 136, 120), rtol=0, atol=1e-6)


def test_a_falling_loss_ends_a_level():
    """And no sooner; up to there it is as without tolerance."""
    settings = dict(optimizer="adam", lr=0.05, steps=60)
    _, told = descend("gatys", **settings)
    _, earlier = descend("gatys", **settings, tolerance=0.6)
    first = [step for step in earlier if step.level == 1]
    losses = [step.total[0] for step in first]
    assert 20 < len(first) < 60 and told[: len(first)] == first
    assert losses[-21] - losses[-1] < 0.6 * losses[-21]
    assert all(before - after >= 0.6 * before for before, after in zip(losses[:-21], losses[20:-1]))


def test_a_sample_whose_loss_falls_no_more_waits_for_the_others():
    settings = dict(optimizer="adam", lr=0.05, steps=60, start="noise", tolerance=0.6)
    descent = Descent(small("gatys"), content(2), [style()], **settings)
    ends = []
    while descent.level == 0:
        before = [picture.detach().clone() for picture in descent.pictures]
        descent.advance()
        if descent.level == 0:
            ends.append([torch.equal(old, picture) for old, picture in zip(before, descent.pictures)])
    assert [False, False] in ends and [True, True] not in ends
    for own in zip(*ends):  # Once it waits, it waits.
        assert list(own) == sorted(own)
    for number in range(2):
        alone = Descent(small("gatys"), content(2)[number : number + 1], [style()], **settings | dict(seed=number))
        steps = sum(step.level == 1 for step in alone)
        assert steps == [*(own[number] for own in ends), True].index(True) + 1


def test_style_weights():
    """Without a mask they are shares of one style; a style of weight 0 counts for nothing."""
    system, other = small("gatys"), picture(40, 40, 7).float()
    one = system.synthesize(content(), [style()], steps=3)
    assert torch.equal(one, system.synthesize(content(), [style(), other], weights=[2.0, 0.0], steps=3))
    assert not torch.equal(one, system.synthesize(content(), [style(), other], weights=[1, 1], steps=3))


def test_styles_of_another_scale():
    system, big = small("laplacian"), picture(88, 100, 2).float()
    found = system.synthesize(content(), [big], style_scale=0.5, steps=2)
    assert torch.equal(found, system.synthesize(content(), [resized(big, 44, 50)], steps=2))


def halves():
    """The first style above, the second below."""
    mask = torch.zeros(1, 2, 96, 48, dtype=torch.float64)
    mask[:, 0, :48], mask[:, 1, 48:] = 1, 1
    return mask


def test_gram_matrices_of_regions():
    """From the formula: of each region's positions alone, and against its style."""
    system = small("gatys", torch.float64, content_weight=0.0, style_layers=("relu1_1", "relu2_1"))
    x, styles = picture(96, 48, 0), [picture(40, 40, 7), picture(44, 50, 2).double()]
    found = system.losses(x, system.aim(Level(1.0, 1), None, styles, [1.0, 1.0], halves()[0]))["style"][0]
    expected, maps = 0, system.vgg.features(x)
    for style, half in zip(styles, (0, 1)):
        for layer, other in system.vgg.features(style).items():
            rows = maps[layer].chunk(2, dim=2)[half]
            own, goal = (map[0].flatten(1) @ map[0].flatten(1).T / map[0].numel() for map in (rows, other))
            expected = expected + 1e3 * (own - goal).square().mean()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("tile", [None, 32])
@pytest.mark.parametrize("name", SYNTHESES)
def test_a_style_changes_nothing_beyond_its_region(name, tile):
    """But for what features see across its border, and with patches, for the normalisation of what lies there."""
    layers = dict(style_layers=("relu1_1", "relu2_1")) | ({"histogram_layers": ("relu1_1",)} if name == "histogram" else {})
    system = small(name, torch.float64, content_weight=0.0, **layers)
    x, first, gradients = picture(96, 48, 0), picture(44, 50, 2), []
    for other in (picture(40, 40, 7), 1 - picture(40, 40, 8)):
        descent = Descent(system, picture(96, 48, 3), [first, other], mask=halves(), tile=tile)
        level = Level(1.0, 1)
        descent.aim = system.aim(level, *descent.subject.at(level)[:2], [1.0, 1.0], halves()[0], tile)
        gradients.append(descent._evaluate(x)[1])
    above, below = ((gradients[0] - gradients[1])[:, :, rows].abs().max() for rows in (slice(0, 32), slice(64, 96)))
    assert above == 0 if tile is None else above < 1e-15
    assert below > 1e-3 * gradients[0].abs().max()


def test_a_mask_of_numbers_is_one_of_shares():
    system, other = small("gatys"), picture(40, 40, 7).float()
    numbers = torch.zeros(1, 48, 40, dtype=torch.int64)
    numbers[..., 20:] = 1
    shares = torch.stack([numbers == 0, numbers == 1], 1).float()
    found = [system.synthesize(content(), [style(), other], mask=mask, steps=2) for mask in (numbers, shares)]
    assert torch.equal(*found)


def test_colors_are_kept():
    system = small("gatys")
    plain = system.synthesize(content(), [style()], steps=3)
    luma = system.synthesize(content(), [style()], steps=3, preserve_color="luminance")
    assert torch.equal(luma, keep_colors(content(), plain))
    descent = Descent(system, content(), [style()], preserve_color="histogram")
    rows, wanted = (p.double().flatten(2)[0] for p in (descent.subject.styles[0], content()))
    torch.testing.assert_close(rows.mean(1), wanted.mean(1), rtol=0, atol=0.02)  # But for what is cut off at 0 and 1.
    torch.testing.assert_close(torch.cov(rows), torch.cov(wanted), rtol=0, atol=0.02)


# Tiles.


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
@pytest.mark.parametrize("name", SYNTHESES)
def test_tiles_are_the_whole(name, masked):
    """Losses, gradients and goals, of sides that no tile divides."""
    system, photo = small(name, torch.float64), picture(70, 90, 0, 2)
    styles = [picture(64, 80, 1), picture(75, 66, 2, 2)]
    mask = torch.rand(1, 2, 70, 90, dtype=torch.float64) if masked else None
    found = []
    for tile in (None, 32, 50):
        descent = Descent(system, photo, styles, mask=mask, start="noise", tile=tile)
        descent.levels = [level._replace(size=1.0) for level in descent.levels]
        descent._enter(None)
        found.append(descent._evaluate(picture(70, 90, 5, 2)))
    for losses, gradient in found[1:]:
        assert losses.keys() == found[0][0].keys()
        for part, values in losses.items():
            assert values == pytest.approx(found[0][0][part], rel=1e-9)
        torch.testing.assert_close(gradient, found[0][1], rtol=0, atol=1e-10 * found[0][1].abs().max().item())


@pytest.mark.parametrize("last", LAYERS)
def test_tiles_cover_every_position_once(last):
    for height, width, side in [(97, 64, 32), (33, 200, 48), (16, 17, 512), (160, 31, 1)]:
        size = torch.empty(1, 1, height, width)
        for layer in LAYERS[: LAYERS.index(last) + 1]:
            counts = torch.zeros(tiles.map_size(size, layer))
            for tile in tiles.tiles(height, width, side, last):
                counts[tile.place(layer, counts.shape)] += 1
            assert (counts == 1).all()


def test_a_tile_is_all_that_is_encoded_at_once():
    system = build("gatys")
    seen = []
    system.vgg.conv1_1.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    descent = Descent(system, picture(200, 136, 0), [picture(150, 160, 1)], tile=16, steps=1)
    descent.advance()
    assert seen and max(max(size) for size in seen) <= 31 + 2 * 80


# What goes wrong.


def test_a_run_that_diverges_keeps_its_last_picture():
    system = small("laplacian")
    descent = Descent(system, content(), [style()], optimizer="adam", lr=1e18, steps=50)
    with pytest.raises(Diverged, match=r"^level 1, step \d+: .*: try a smaller lr, or optimizer adam$") as raised:
        list(descent)
    kept = raised.value.picture
    assert kept.shape == content().shape and kept.isfinite().all()

    descent = Descent(system, content(2), [style()], steps=50)
    before = [descent.advance() for _ in range(3)]
    with torch.no_grad():
        good = descent.before.clone()
        descent.pictures[1].fill_(math.nan)
    with pytest.raises(Diverged, match="^level 1, step 4: the loss of sample 2 is nan") as raised:
        descent.advance()
    assert len(before) == 3 and torch.equal(raised.value.picture, resized(good, 48, 40).clamp(0, 1))


def test_a_last_step_that_diverges_is_told():
    """Though nobody will take a loss of where it leads; the picture from before is kept."""
    for lr in (1e4, 1e30):
        with pytest.raises(Diverged, match="^level 1, step 1: a pixel is .*: try a smaller lr, or optimizer") as raised:
            list(Descent(small("laplacian"), content(), [style()], optimizer="adam", lr=lr, steps=1))
        torch.testing.assert_close(raised.value.picture, content().clamp(0, 1), rtol=0, atol=0)


WRONG = [
    (dict(styles=[]), "styles: expected one at least, got none"),
    (dict(styles=[torch.rand(1, 3, 40, 12)]), "styles: expected sides of 16 pixels at least, got 12x40"),
    (dict(content=torch.rand(1, 3, 15, 40)), "content: expected sides of 16 pixels at least, got 40x15"),
    (dict(content=None, size=(40, 8)), "size: expected sides of 16 pixels at least, got 8x40"),
    (dict(styles=[torch.rand(3, 8, 8)]), "styles: expected shape (N, 3, H, W), got (3, 8, 8)"),
    (dict(styles=[torch.rand(3, 3, 32, 32)]), "styles: expected a picture for all, or for each of 1 samples, got 3"),
    (dict(content=torch.rand(1, 4, 8, 8)), "content: expected shape (N, 3, H, W), got (1, 4, 8, 8)"),
    (dict(content=torch.rand(1, 3, 40, 40).double()),
     "content: expected the weights' type torch.float32, got torch.float64"),
    (dict(weights=[1, 2]), "weights: expected one for each of 1 styles, got 2"),
    (dict(weights=[0]), "weights: expected one above 0 at least, got [0]"),
    (dict(weights=[-1]), "weights: expected a finite number of at least 0, got -1"),
    (dict(start="nose"), "start: expected one of content, noise, style, got 'nose'"),
    (dict(content=None, start="content"), "start: expected noise, style or a picture, for there is no content"),
    (dict(optimizer="sgd"), "optimizer: expected one of lbfgs, adam, got 'sgd'"),
    (dict(steps=[1, 2, 3]), "steps: expected one number, or 2 for as many levels, got [1, 2, 3]"),
    (dict(steps=0), "steps: expected an integer of at least 1, got 0"),
    (dict(size=(48, 9)), "size: expected that of the content, (48, 40), got (48, 9)"),
    (dict(preserve_color="yes"), "preserve_color: expected one of None, luminance, histogram, got 'yes'"),
    (dict(content=None, preserve_color="histogram"), "preserve_color: expected None, for there is no content"),
    (dict(tile=0), "tile: expected an integer of at least 1, got 0"),
    (dict(styles=[style(), torch.rand(1, 3, 40, 40)], mask=torch.full((1, 2, 48, 40), math.nan)),
     "mask: expected numbers from 0 up, got others, or NaN"),
    (dict(styles=[style(), torch.rand(1, 3, 40, 40)], mask=-torch.ones(1, 2, 48, 40)),
     "mask: expected numbers from 0 up, got others, or NaN"),
    (dict(content=torch.rand(0, 3, 40, 40)), "content: expected one sample at least, got none"),
    (dict(content=None, size=(10,)), "size: expected (height, width), got (10,)"),
    (dict(content=None, size=64), "size: expected (height, width), got 64"),
    (dict(steps=2.0), "steps: expected a whole number, or one for each level, got 2.0"),
    (dict(start=torch.rand(3, 3, 40, 40)), "start: expected a picture for all, or for each of 1 samples, got 3"),
    (dict(content=None, samples=2, styles=[torch.rand(3, 3, 40, 40)]),
     "styles: expected a picture for all, or for each of 2 samples, got 3"),
    (dict(mask=torch.zeros(1, 1, 8, 8)), "mask: expected weights (1 or 1, 1, 48, 40), got (1, 1, 8, 8)"),
]  # fmt: skip


@pytest.mark.parametrize("settings, words", WRONG, ids=[words[:30] for _, words in WRONG])
def test_what_is_no_descent(settings, words):
    arguments = dict(content=content(), styles=[style()]) | settings
    with pytest.raises((TypeError, ValueError), match=f"^Gatys: {re.escape(words)}$"):
        Descent(small("gatys"), **arguments)


def test_a_content_that_no_loss_asks_for():
    with pytest.raises(ValueError, match="^Gatys: content: expected one, for no loss of a style has a weight$"):
        Descent(small("gatys", style_weight=0.0), None, [style()])


def test_a_state_of_another_descent():
    descent = Descent(small("gatys"), content(), [style()])
    with pytest.raises(ValueError, match="^Gatys: state: expected one of 2 pictures and 2 levels$"):
        Descent(small("gatys"), content(2), [style()]).load(descent.state())
