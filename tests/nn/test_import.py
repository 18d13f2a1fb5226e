"""A module is imported by either line."""

import subprocess
import sys

from fastnorm import nn


def test_every_module_by_either_line():
    lines = "; ".join(f"import fastnorm.nn.{name}" for name in nn.__all__)
    same = " and ".join(f"fastnorm.nn.{name} is nn.{name}" for name in nn.__all__)
    code = f"{lines}; import fastnorm.nn.AdaIN as AdaIN; from fastnorm import nn; print({same}, AdaIN is nn.AdaIN)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "True True\n"
