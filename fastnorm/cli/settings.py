"""Arguments of constructors on the command line: NAME=VALUE, each of its default's kind."""

import argparse
import contextlib
import json
import math

from .errors import UserError


def merged(repeated):
    """All that an option said which was given several times, the last for each name."""
    return {name: value for said in repeated for name, value in said.items()}


def assignments(text):
    """NAME=VALUE, or a JSON object."""
    if text.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            return json.loads(text)
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, or a JSON object, got {text!r}")
    with contextlib.suppress(ValueError):
        return {name: json.loads(value)}
    return {name: value}


def checked(option, assignments, defaults, otherwise, any_length=False):
    """The values by name; raises unless each has a default, and is of its kind.

    any_length: whether lists of numbers may be of another length than their default, or empty.
    """
    given = merged(assignments)
    for name, value in given.items():
        if name not in defaults:
            raise UserError(f"{option} {name}: {otherwise}")
        if not _is_like(defaults[name], value, any_length):
            raise UserError(f"{option} {name}: expected {_kind(defaults[name])}, got {json.dumps(value)}")
    return given


def _is_like(default, value, any_length=False):
    """Of a type, finite, and not below 0; lists of whole numbers, or of lists, may be of any length but 0."""
    if isinstance(default, tuple):
        if not isinstance(value, list):
            return False
        if not any_length and (not value or isinstance(default[0], float) and len(value) != len(default)):
            return False
        return all(_is_like(default[0], each) for each in value)
    if isinstance(default, float):
        return type(value) in (int, float) and 0 <= value < math.inf
    if default is None:  # A whole number that need not be said.
        return value is None or _is_like(0, value)
    return type(value) is type(default) and (type(value) is not int or 0 <= value < 2**31)


def _kind(default):
    if isinstance(default, tuple):
        return f"a list such as {json.dumps(default)}"
    words = {float: "a number from 0 up", int: "a whole number from 0 up", bool: "true or false", str: "a word"}
    return words.get(type(default), "a whole number or null")
