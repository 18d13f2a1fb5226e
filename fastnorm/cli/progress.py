"""A progress bar on a terminal; nothing in a pipe, and nothing where rich is not installed."""

import contextlib
import sys


@contextlib.contextmanager
def bar(label, total):
    """Show a bar on stderr that vanishes at the end; yields the function that moves it on by one, or by a number.

    total: None where nobody knows.
    """
    try:
        from rich import console, progress
    except ImportError:
        progress = None
    if progress is None or not sys.stderr.isatty():
        yield lambda steps=1: None
        return

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True), transient=True) as shown:
        task = shown.add_task(label, total=total)
        yield lambda steps=1: shown.advance(task, steps)
