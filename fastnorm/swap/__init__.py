"""Models that someone already has, made fast in place."""

from .explain import explain as explain
from .swap import swap as swap
from .swap import unswap as unswap
from .verify import verify as verify
