"""Put the table of systems into docs/models.md.

    python docs/systems.py
"""

from pathlib import Path

from fastnorm import models
from fastnorm.cli.models import facts, markdown

PAGE = Path(__file__).with_name("models.md")
START, END = "<!-- the table: python docs/systems.py -->\n", "<!-- end of the table -->"


def page() -> str:
    """The page with the table as it is now."""
    before, rest = PAGE.read_text().split(START)
    table = markdown({name: facts(name) for name in models.SYSTEMS})
    return f"{before}{START}\n{table}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page())
