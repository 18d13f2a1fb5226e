"""The command line: `fastnorm COMMAND ...`.

A command is a module of this package with `add_arguments(parser)` and `run(args) -> exit code`.
It is imported only when it is the one asked for, so that `fastnorm --help` stays quick.
"""

import argparse
import errno
import importlib
import os
import sys

from .. import __version__, _start
from .._start import INTERRUPTED, TERMINATED, Terminated
from .errors import UserError, complain

COMMANDS = {
    "stylize": "paint pictures or videos in another style",
    "encode": "store what a system keeps of a style",
    "synthesize": "find a picture, or a texture, by optimisation",
    "models": "the style-transfer systems: what they take and what they cost",
    "train": "train a system on folders of pictures",
    "explain": "what swap makes of a model, layer by layer, and what that brings",
    "info": "versions, the machine, and what runs each operator on it",
    "bench": "measure the operators against torch and published code",
}

READER_LEFT = 141  # What a shell reports for a program whose output nobody reads any more.


def main(argv=None) -> int:
    """Run one command and return its exit code: 0, 2 for a user's error, 130, 141 or 143."""
    if sys.stdout is None:
        complain("stdout is closed, so that there is nowhere to print to")
        return 2
    try:
        _start.is_over()
        try:
            args = _parse(sys.argv[1:] if argv is None else argv)
            return args.run(args)
        finally:
            sys.stdout.flush()  # A closed pipe has to show here, where it is caught.
    except UserError as error:
        complain(error)
        return 2
    except Terminated:
        complain("terminated")
        return TERMINATED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return READER_LEFT
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            raise
        _discard_output()
        complain(f"cannot write the output: {os.strerror(error.errno)}")
        return 2


def _discard_output():
    """The interpreter flushes once more as it ends; that has to go somewhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """argparse, with its errors on one line like every other error of the command."""

    def error(self, message):
        raise UserError(f"{message} (see {self.prog} --help)")


class _Commands(argparse.HelpFormatter):
    """argparse forgets that commands stand further in than arguments, and would break the line of the longest."""

    def add_argument(self, action):
        super().add_argument(action)
        if isinstance(action.choices, dict):
            self._action_max_length += self._indent_increment


def _parse(argv):
    parser = _Parser(
        prog="fastnorm", description="Networks built on instance normalisation, fast.", formatter_class=_Commands
    )
    parser.add_argument("--version", action="version", version=f"fastnorm {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary.capitalize() + ".")
        if name in argv[:1]:
            module = importlib.import_module(f"{__name__}.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        commands.choices[args.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    return args
