"""What goes wrong by the user's input: one line that says what is wrong and what to do."""

import sys


class UserError(Exception):
    """Ends the command with its message on one line of stderr and exit code 2."""


def complain(message):
    """Print `fastnorm: message` on stderr, on one line whatever a file's name holds."""
    print("fastnorm:", " ".join(str(message).splitlines()), file=sys.stderr)
