"""What goes wrong by the user's input: one line that says what is wrong and what to do."""

import contextlib
import sys

from .._errors import UserError

__all__ = ["UserError", "complain", "enough_memory"]


def complain(message):
    """Print `fastnorm: message` on stderr, on one line whatever a file's name holds."""
    print("fastnorm:", " ".join(str(message).splitlines()), file=sys.stderr)


@contextlib.contextmanager
def enough_memory(otherwise: str):
    """What torch cannot allocate within is the user's error, in these words."""
    try:
        yield
    except RuntimeError as error:  # torch has a type of its own for this on a GPU only.
        if "allocate" not in str(error) and "aoti_torch_empty" not in str(error):
            raise
        raise UserError(otherwise) from None
