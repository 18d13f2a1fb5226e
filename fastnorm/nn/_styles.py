"""Which style a module of a chain gets."""

from __future__ import annotations

from torch import nn

from ._recognise import has_style_argument, is_chain


def call(module: nn.Module, name: str, input, style, styled: bool):
    """The module as it is, with its style where it takes one."""
    if not styled or style is None:
        return module(input)
    return module(input, style=style_of(name, style, module))


def takes_style(module: nn.Module) -> bool:
    if is_chain(module):
        return any(takes_style(part) for part in module.parts().values())
    return has_style_argument(type(module))


def style_of(name: str, style, module: nn.Module | None = None):
    """The style of the module of that name: its own in a dict, or that of a chain around it."""
    if style is None:
        raise ValueError("style: expected one, got None")
    if not isinstance(style, dict):
        return style
    at = name
    while at not in style:
        at, _, _ = at.rpartition(".")
        if not at:
            break
    else:
        return style[at]
    inside = {key[len(name) + 1 :]: value for key, value in style.items() if key.startswith(f"{name}.")}
    if inside and is_chain(module):
        return inside
    raise ValueError(f"style: expected one of the name {name}, got {', '.join(map(repr, style)) or 'an empty dict'}")
