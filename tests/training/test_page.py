"""The table of recipes in the documentation."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_of_these_recipes():
    """After `python docs/recipes.py` it is."""
    assert runpy.run_path(str(DOCS / "recipes.py"))["page"]() == (DOCS / "training.md").read_text()
