"""A pytest plugin: CPU tensors go to the CUDA kernels, run by the emulator. `FASTNORM_EMULATOR` is its library."""

import os

import torch

import fastnorm  # noqa: F401  (defines the operators that the library implements)

torch.ops.load_library(os.environ["FASTNORM_EMULATOR"])
