"""Ctrl-C while the command still imports torch: it ends as it does later on, with one line; and SIGTERM after that.

Imported first of all, and without effect where fastnorm is imported by another program.
"""

import os
import signal
import sys

INTERRUPTED, TERMINATED = 130, 143  # What a shell reports for a program ended by Ctrl-C, or by SIGTERM.


class Terminated(KeyboardInterrupt):
    """SIGTERM, as it comes from kill, or from a system that goes down: like Ctrl-C it leaves nothing half done behind."""


def _is_the_command() -> bool:
    if sys.argv[0] == "-m":  # Until Python has found the module that it runs.
        return sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1] == ["fastnorm"]
    return os.path.splitext(os.path.basename(sys.argv[0]))[0] == "fastnorm"


def _end(*_):
    os.write(2, b"fastnorm: interrupted\n")
    os._exit(INTERRUPTED)


def _terminate(*_):
    raise Terminated


def is_over() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt again, and SIGTERM another one."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if _is_the_command() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


if _is_the_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
