"""Mixtures, regions and small styles of the systems that attend to a style, against their formulas."""

import literal
import numpy as np
import pytest
import test_adaattn_model
import test_sanet_model
import torch
from literal import picture

CONTENT = picture(1, 3, 32, 48).double()
STYLES = [picture(1, 3, 37, 50, seed=1).double(), picture(1, 3, 33, 32, seed=2).double()]

every_system = pytest.mark.parametrize("system", [test_adaattn_model, test_sanet_model], ids=["adaattn", "sanet"])


def close(system, model, output, parts, alpha=1.0):
    expected = literal.blended(model, CONTENT, parts, alpha, system.attended, system.decoded)
    np.testing.assert_allclose(output[0].detach(), expected, rtol=0, atol=1e-9 * abs(expected).max())


@every_system
def test_mixtures_blend_what_was_attended(system):
    """Of mixtures, too."""
    model = system.small()
    mixture = model.mix(STYLES, [0.4, 0.6])
    mixture = model.mix([mixture, STYLES[1]], [0.5, 0.5])
    close(system, model, model.stylize(CONTENT, mixture, 0.6), [(0.2, STYLES[0]), (0.8, STYLES[1])], 0.6)


@every_system
def test_regions_blend_what_was_attended(system):
    model, mask = system.small(), torch.rand(1, 1, 32, 48, generator=torch.Generator().manual_seed(3)).double()
    output = model.stylize_regions(CONTENT, STYLES, torch.cat([mask, 1 - mask], 1), 0.6)
    first = mask[0, 0].numpy()
    close(system, model, output, [(first, STYLES[0]), (1 - first, STYLES[1])], 0.6)


@every_system
def test_small_styles_are_mirrored(system):
    model, style = system.small(), picture(1, 3, 17, 40, seed=4).double()
    mirrored = torch.cat([style, style[..., 1:-1, :].flip(2)], 2)
    close(system, model, model.stylize(CONTENT, style), [(1, mirrored)])


@every_system
def test_one_style_serves_a_batch_and_each_may_have_a_mixture(system):
    """The shares of a mixture are rows, as its keys are."""
    model, contents = system.small(), torch.cat([CONTENT, picture(1, 3, 32, 48, seed=6).double()])
    mixture = model.mix(STYLES, [0.5, 0.5]) | {"1.weight": torch.tensor([0.5, 0.0]).double()}
    with torch.no_grad():
        output, alone = model.stylize(contents, mixture), model.stylize(contents[1:], model.mix(STYLES, [0.5, 0.0]))
    close(system, model, output[:1], [(0.5, STYLES[0]), (0.5, STYLES[1])])
    torch.testing.assert_close(output[1:], alone, rtol=0, atol=1e-9 * alone.abs().max().item())
