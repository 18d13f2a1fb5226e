"""Hypothesis draws the same examples in every run, however slow the machine."""

from hypothesis import settings

settings.register_profile("fastnorm", derandomize=True, deadline=None, database=None)
settings.load_profile("fastnorm")
