"""Triton kernels, for GPUs: a room for each operator that has any, under the operator's name.

A room holds kernels, then launchers. A launcher has the arguments of the operator in `fastnorm/ops` and returns what it
returns. `_tile.py` is what all kernels share, `_launch.py` what all launchers share; of convolutions, `_patch.py`,
`_fusion.py` and `_convolution.py`. Nothing here knows fastnorm.
"""
