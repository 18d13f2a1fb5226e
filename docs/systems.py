"""Put the tables of systems into docs/models.md.

    python docs/systems.py
"""

from pathlib import Path

from fastnorm import models
from fastnorm.cli.models import facts, facts_of_synthesis, markdown, markdown_of_syntheses

PAGE = Path(__file__).with_name("models.md")
START, END = "<!-- the table: python docs/systems.py -->\n", "<!-- end of the table -->"
OPTIMISED, OPTIMISED_END = "<!-- by optimisation: python docs/systems.py -->\n", "<!-- end of optimisation -->"


def page() -> str:
    """The page with the tables as they are now."""
    text = PAGE.read_text()
    networks = markdown({name: facts(name) for name in models.SYSTEMS})
    optimised = markdown_of_syntheses({name: facts_of_synthesis(name) for name in models.SYNTHESES})
    for start, table, end in ((START, networks, END), (OPTIMISED, optimised, OPTIMISED_END)):
        before, rest = text.split(start)
        text = f"{before}{start}\n{table}\n\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
