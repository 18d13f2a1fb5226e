"""The model that `MODULE:CALLABLE` names."""

import difflib
import importlib
import os
import sys
from types import ModuleType

from torch import nn

from .errors import UserError

EXPECTED = "expected MODULE:CALLABLE, such as mypackage.models:Generator"


def model(name: str) -> nn.Module:
    """What is found under the name, or what it returns when it is called without arguments."""
    module, _, path = name.partition(":")
    if not module or not path:
        raise UserError(f"{name}: {EXPECTED}")
    found = _attribute(name, _imported(name, module, path), path)
    if isinstance(found, nn.Module):
        return found
    if isinstance(found, ModuleType):
        raise UserError(f"{name}: {found.__name__} is a Python module; name what it has: {found.__name__}:CALLABLE")
    if not callable(found):
        raise UserError(f"{name}: expected a torch.nn.Module, or what returns one, got {type(found).__name__}")
    made = _tried(f"{name}: {path}()", found)
    if not isinstance(made, nn.Module):
        raise UserError(f"{name}: expected {path}() to return a torch.nn.Module, got {type(made).__name__}")
    return made


def _imported(name, module, path):
    plain = module.removesuffix(".py").removeprefix("./").removeprefix(".").replace("/", ".")
    if plain != module:
        hint = f"expected a module as import names it: {plain}:{path}" if _is_name(plain) else EXPECTED
        raise UserError(f"{name}: {hint}")
    sys.path.insert(0, os.getcwd())
    return _tried(f"{name}: importing {module}", _import, module)


def _import(module):
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise
        where = f"neither in the current folder, {os.getcwd()}, nor on sys.path"
        raise UserError(f"there is no module {error.name}, {where}") from None


def _is_name(module):
    return all(part.isidentifier() for part in module.split("."))


def _attribute(name, found, path):
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            close = difflib.get_close_matches(part, dir(found), n=1)
            raise UserError(f"{name}: {error}" + (f"; did you mean {close[0]}?" if close else "")) from None
    return found


def _tried(what, call, *arguments):
    """Code of the user's own runs here, which may raise anything, or end the program."""
    try:
        return call(*arguments)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    except SystemExit:
        raise UserError(f"{what} called sys.exit") from None
    except Exception as error:
        raise UserError(f"{what} raised {type(error).__name__}: {error}") from None
