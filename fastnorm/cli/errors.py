"""What goes wrong by the user's input: one line that says what is wrong and what to do."""

import sys

from .._errors import UserError

__all__ = ["UserError", "complain"]


def complain(message):
    """Print `fastnorm: message` on stderr, on one line whatever a file's name holds."""
    print("fastnorm:", " ".join(str(message).splitlines()), file=sys.stderr)
