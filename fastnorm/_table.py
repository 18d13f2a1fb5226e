"""A table in plain text: columns aligned by spaces."""

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]], to_the_right: Iterable[int] = ()) -> list[str]:
    """The lines of a table, the columns of these numbers aligned to the right, the others to the left."""
    rows, right = list(rows), set(to_the_right)
    widths = [max(map(len, column)) for column in zip(*rows)]
    cells = [f"{{:{'>' if column in right else '<'}{width}}}" for column, width in enumerate(widths)]
    return ["  ".join(cells).format(*row).rstrip() for row in rows]
