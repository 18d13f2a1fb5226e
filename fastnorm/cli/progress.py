"""A progress bar on a terminal; nothing in a pipe, and nothing where rich is not installed."""

import contextlib
import sys
import time


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


SECONDS = 10.0  # At least, from one plain line to the next.


@contextlib.contextmanager
def steps(total, done):
    """Show a long work of `total` steps on stderr: by a bar on a terminal, by a line now and then elsewhere.

    Yields a function that takes how many are done, and a text that says how it goes, or None for the last one's.
    """
    try:
        from rich import console, progress
    except ImportError:
        progress = None
    if progress is None or not sys.stderr.isatty():
        yield _Lines(total, done)
        return

    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.description}"),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True)) as shown:
        task = shown.add_task("", total=total, completed=done)
        yield lambda step, text=None: shown.update(task, completed=step, description=text)


class _Lines:
    def __init__(self, total, done):
        self.total = total
        self.last, self.told = done, time.monotonic()

    def __call__(self, step, text=None):
        passed = time.monotonic() - self.told
        if text is not None and (passed >= SECONDS or step == self.total):
            print(f"step {step} of {self.total}: {text}, {(step - self.last) / passed:.3g} steps/s", file=sys.stderr)
            self.last, self.told = step, time.monotonic()
