"""MGANs' two phases: what each pulls at, and against what."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "models"))

from literal import picture
from small import SIZES

from fastnorm import models
from fastnorm.training import Batch, recipe_of
from fastnorm.training.mgans import squares


@pytest.fixture
def recipe():
    torch.manual_seed(0)
    model = models.build("mgans", **SIZES["mgans"])
    return recipe_of("mgans")(model, None, [picture(1, 3, 40, 48, seed=1)])


BATCH = Batch(picture(3, 3, 32, 32, seed=2))


@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_each_learns_against_the_other_as_it_is(recipe, phase):
    optimizer, values = torch.optim.Adam(recipe.trained(phase), 1e-2), []
    for _ in range(15):
        loss = sum(recipe(phase, BATCH).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] <= 0.9 * values[0], values


def test_scores_are_hinged(recipe):
    for score, real, fake, style in ((3.0, 0.0, 4.0, 0.0), (0.25, 0.75, 1.25, 0.75), (-3.0, 4.0, 0.0, 4.0)):
        with torch.no_grad():
            recipe.discriminator[-1].weight.zero_()
            recipe.discriminator[-1].bias.fill_(score)
        losses = recipe("discriminator", BATCH)
        assert (losses["real"].item(), losses["fake"].item()) == (real, fake)
        assert recipe("generator", BATCH)["style"].item() == style


def test_content_and_variation(recipe):
    losses, encoder = recipe("generator", BATCH), recipe.model.encoder
    output = recipe.model.decoder(encoder(BATCH.content))
    assert losses["content"].item() == pytest.approx((encoder(output) - encoder(BATCH.content)).square().mean().item())
    across, down = (output.diff(dim=dim).square().mean() for dim in (3, 2))
    assert losses["variation"].item() == pytest.approx(1e-4 * (across + down).item())


def test_squares_are_of_the_map():
    torch.manual_seed(0)
    features = torch.arange(2 * 7 * 9.0).view(1, 2, 7, 9)
    cut = squares(features, torch.Size((40, 2, 3, 5)))
    places = {(int(top), int(left)) for top, left in zip(cut[:, 0, 0, 0] // 9, cut[:, 0, 0, 0] % 9)}
    assert len(places) > 10 and max(top for top, _ in places) == 4 and max(left for _, left in places) == 4
    for square in cut:
        top, left = divmod(int(square[0, 0, 0]), 9)
        assert torch.equal(square, features[0, :, top : top + 3, left : left + 5])
    assert squares(features, torch.Size((2, 2, 8, 5))).shape == (2, 2, 7, 5)
