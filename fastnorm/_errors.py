"""What goes wrong by the user's input, and what an error says on one line."""


class UserError(Exception):
    """Its message is one line that says what is wrong and what to do; a command ends with it and exit code 2."""


def first_line(error: Exception) -> str:
    """What it says, on one line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
