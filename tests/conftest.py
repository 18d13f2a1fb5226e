"""Hypothesis draws the same examples in every run, however slow the machine. Workers share the cores."""

import os

# Before torch: sizes that are symbols are reasoned about in three quarters of the time.
os.environ.setdefault("SYMPY_CACHE_SIZE", "50000")

import torch
from hypothesis import settings

settings.register_profile("fastnorm", derandomize=True, deadline=None, database=None)
settings.load_profile("fastnorm")

# Each with all of them would mostly wait for the others.
torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))))
