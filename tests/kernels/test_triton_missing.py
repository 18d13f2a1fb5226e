"""Without Triton the package of kernels can be imported, and a room of it says what is missing."""

import importlib
import sys

import fastnorm.kernels
import pytest


def test_a_room_says_what_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("fastnorm.kernels.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    importlib.reload(fastnorm.kernels)
    with pytest.raises(ImportError, match="^fastnorm's GPU kernels need Triton, .*: pip install triton$"):
        importlib.import_module("fastnorm.kernels.instance_norm")
