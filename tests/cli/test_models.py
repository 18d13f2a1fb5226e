"""`fastnorm models`: every system of the registry, and the page that has the same table."""

import json
import re
import runpy
from pathlib import Path

import pytest

from fastnorm import models
from fastnorm.cli.models import _short
from fastnorm.models.cost import cost
from fastnorm.ops import backends
from fastnorm.training import RECIPES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_of_this_registry():
    """After `python docs/systems.py` it is; only memory depends on the kernels that run, and is of ours."""
    page, written = runpy.run_path(str(DOCS / "systems.py"))["page"](), (DOCS / "models.md").read_text()
    if backends.reference():
        page, written = (re.sub(r"\d+ MB", "", text) for text in (page, written))
    assert page == written


def test_json(command):
    code, out, err = command("models", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "") and list(found) == [*models.SYSTEMS, *models.SYNTHESES]
    expected = cost("cin")
    published = cost("cin", **models.published_sizes("cin"))
    assert found["cin"]["styles"] == "numbers" and found["cin"]["published"]["sizes"]["styles"] == 26
    for name in ("parameters", "operations", "encoding", "memory"):
        assert found["cin"][name] == getattr(expected, name)
        assert found["cin"]["published"][name] == getattr(published, name)
    assert published.parameters < expected.parameters
    assert found["gatys"]["levels"] == [{"size": 0.64, "steps": 500}, {"size": 1.0, "steps": 200}]
    for name in models.SYSTEMS:
        facts = found[name]
        assert facts["weights"] == ("to be trained" if name in RECIPES else "to be given")
        assert (facts["published"] is not None) == models.SYSTEMS[name].published


def test_table(command):
    code, out, err = command("models")
    assert (code, err) == (0, "")
    networks, optimised = out.rstrip("\n").split("\n\n")
    _, header, *rows = optimised.split("\n")
    assert header.split() == ["system", "what", "it", "compares", "steps"]
    assert [row.split()[0] for row in rows] == list(models.SYNTHESES)
    assert "500 at 328 + 200 at 512" in optimised
    title, header, *rows = networks.split("\n")
    assert header.split() == ["system", "styles", "parameters", "operations", "encoding", "memory", "weights"]
    named = [row for row in rows if "," not in row]
    assert [row.split()[0] for row in named] == list(models.SYSTEMS)
    for sizes, words, weights in (
        ({}, ["cin", "numbers", "1.78M", "154K", "0"], ["to", "be", "trained"]),
        (models.published_sizes("cin"), ["cin,", "published", "numbers", "166K", "19.4K", "0"], ["published"]),
    ):
        expected = [*words, *f"{cost('cin', **sizes).memory / 1e6:.0f} MB".split(), *weights]
        assert [row.split() for row in rows if row.split()[: len(words)] == words] == [expected]


def test_more_of_one(command):
    code, out, _ = command("models", "adain")
    assert code == 0
    for words in ("arXiv:1703.06868", "widths = (64, 128, 256, 512)", "steps = 160000", "style_weight = 10\n"):
        assert words in out
    assert "published" not in out and f"\nadain: {models.SYSTEMS['adain'].description}\n" in out
    out = command("models", "cin")[1]
    assert "    styles = 32\n" in out and "    styles = 26\n" in out.partition("the published weights")[2]
    found = json.loads(command("models", "adain", "--json")[1])
    assert found["arguments"] == {"widths": [64, 128, 256, 512], "eps": 1e-5}
    assert (found["training"]["batch_size"], found["training"]["content_weight"]) == (8, 1.0)
    assert "vgg" not in found["training"]


def test_unknown(command):
    code, out, err = command("models", "picasso")
    assert (code, out) == (2, "")
    assert err == f"fastnorm: there is no system 'picasso', choose from {', '.join(models.SYSTEMS | models.SYNTHESES)}\n"


@pytest.mark.parametrize(
    "number, short", [(None, "-"), (0, "0"), (999, "999"), (1492.7, "1.49K"), (482697, "483K"), (7010959, "7.01M")]
)
def test_short_numbers(number, short):
    assert _short(number) == short
