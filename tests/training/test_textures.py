"""Networks that make textures of noise alone: their recipes, and the order in which styles join."""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "models"))

from literal import picture

from fastnorm.models.diversified import Diversified
from fastnorm.models.texture_networks import TextureNetworks
from fastnorm.models.vgg import VGG19
from fastnorm.training import Batch, Recipe, recipe_of


def recipe_for(name, model, **weights):
    Kind = recipe_of(name)
    styles = [picture(1, 3, 32, 40, seed=10 + i) for i in range(3)]
    return Kind(model, VGG19(Kind.layers, (4, 6, 8, 10, 10)), styles, **weights)


def test_styles_join_one_after_the_other():
    chosen = recipe_of("diversified").chosen
    assert [chosen(step, 2, 3) for step in (0, 999, 1000, 1001, 1999)] == [[0, 0], [0, 0], [0, 0], [1, 1], [1, 1]]
    later = [chosen(step, 1, 3)[0] for step in range(2000, 2006)]
    assert sorted(later[:3]) == sorted(later[3:]) == [0, 1, 2]
    assert {chosen(step, 1, 3)[0] for step in range(90_000, 90_010)} == {0, 1, 2}
    assert Recipe.chosen(0, 2, 3) is None


def test_texture_networks_of_textures():
    torch.manual_seed(0)
    recipe = recipe_for("texture_networks", TextureNetworks(content=False, scales=3, channels=4))
    batch, optimizer, values = Batch(picture(2, 3, 32, 32)), torch.optim.Adam(recipe.trained("all"), 1e-2), []
    for _ in range(10):
        (loss,) = recipe("all", batch).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] <= 0.05 * values[0], values
    assert recipe.sample(batch).shape == (2, 3, 32, 32)


def test_diversified_of_textures():
    """Each sample is compared with its own texture, and with those of the same alone."""
    torch.manual_seed(0)
    model = Diversified(3, content=False, channels=8)
    recipe = recipe_for("diversified", model, style_weight=7e4, diversity_weight=2.0)
    index, content = torch.tensor([2, 0, 2]), picture(3, 3, 40, 24)
    torch.manual_seed(1)
    losses = recipe("all", Batch(content, index=index))
    torch.manual_seed(1)
    textures = model.generate_textures(model.encode(index), 40, 24, 3, torch.randint(2**31 - 1, ()))
    features = recipe.vgg.features(textures)
    goals = [recipe.vgg.features(recipe.goals.styles[number]) for number in index.tolist()]
    style = 0.0
    for layer in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"):
        own = torch.stack([covariance(map) for map in features[layer]])
        style += 7e4 * (own - torch.stack([covariance(goal[layer][0]) for goal in goals])).square().mean()
    torch.testing.assert_close(losses["style"], style, rtol=1e-4, atol=0)
    unlike = (features["relu4_2"][0] - features["relu4_2"][2]).abs().mean()
    torch.testing.assert_close(losses["diversity"], -2 * unlike * 2 / 3, rtol=1e-4, atol=0)
    assert unlike > 0
    assert recipe.sample(Batch(content, index=index)).shape == (3, 3, 40, 24)


def covariance(map):
    rows = map.flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    return rows @ rows.T / rows.numel()
