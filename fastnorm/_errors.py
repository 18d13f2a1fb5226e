"""What goes wrong by the user's input."""


class UserError(Exception):
    """Its message is one line that says what is wrong and what to do; a command ends with it and exit code 2."""
