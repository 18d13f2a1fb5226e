"""fastnorm: networks built on instance normalisation, at the speed of memory."""

__version__ = "0.1.0"

from . import _start as _start  # First, for it looks after Ctrl-C and SIGTERM while the rest is imported.
from . import functional as functional
from . import losses as losses
from . import nn as nn
from . import ops as ops
from .allocator import tune_allocator as tune_allocator
from .swap import explain as explain
from .swap import swap as swap
from .swap import unswap as unswap
from .swap import verify as verify

ops.backends.install()
