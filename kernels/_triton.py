"""Triton, or one line that says it is missing."""

try:
    import triton
    import triton.language as tl
except ImportError:
    raise ImportError("fastnorm's GPU kernels need Triton, which is not installed: pip install triton") from None

__all__ = ["tl", "triton"]
