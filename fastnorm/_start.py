"""Ctrl-C, and SIGTERM as queues and `kill` send it: the command ends with one line and leaves nothing half written.

Imported first of all, for this has to hold while torch is imported, too; without effect where fastnorm is imported by
another program.
"""

import contextlib
import os
import signal
import sys
import threading

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # What a shell reports for a program that they ended.


class Terminated(KeyboardInterrupt):
    """SIGTERM came. What cleans up after Ctrl-C cleans up after this."""


def _is_the_command() -> bool:
    if sys.argv[0] == "-m":  # Until Python has found the module that it runs.
        return sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1] == ["fastnorm"]
    return os.path.splitext(os.path.basename(sys.argv[0]))[0] == "fastnorm"


def _end(number, _):
    os.write(2, b"fastnorm: interrupted\n" if number == signal.SIGINT else b"fastnorm: terminated\n")
    os._exit(128 + number)


def _terminate(*_):
    raise Terminated


def is_over() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt again, and SIGTERM is Terminated."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, _terminate)):
        if signal.getsignal(number) is _end:
            signal.signal(number, handler)


@contextlib.contextmanager
def stop_on_signal():
    """Yields a function that says which came, SIGINT of Ctrl-C or SIGTERM; when it comes once more, it acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # Others cannot say what signals do.
        return
    came = []

    def note(number, frame):
        came.append(number)
        signal.signal(number, before[number])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if _is_the_command():
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is default:  # Not where whoever started it made it deaf.
            signal.signal(number, _end)
