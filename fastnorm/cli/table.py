"""A table on stdout: drawn by rich on a terminal, aligned by spaces in a pipe and where rich is not installed."""

import sys
from typing import Sequence

from .._table import aligned


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> None:
    """Print the rows under their title. The first `text_columns` are aligned to the left, the rest to the right."""
    try:
        from rich import box, console, table
    except ImportError:
        table = None
    if table is None or not sys.stdout.isatty():
        print("\n".join([title, *aligned([header, *rows], range(text_columns, len(header)))]), end="\n\n", flush=True)
        return

    drawn = table.Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for index, name in enumerate(header):
        drawn.add_column(name, justify="left" if index < text_columns else "right")
    for row in rows:
        drawn.add_row(*row)
    console.Console().print(drawn)
