"""Reuse of large CPU tensors' memory.

glibc hands every block above 32 MB back to the system when it is freed, and takes a new one, zeroed page by page, when the
next is asked for: on large maps that costs several times what the arithmetic does. Kept in the process, the memory is
reused.
"""

import ctypes

# From malloc.h. A threshold for mmap cannot be raised above 32 MB; its number of blocks can be set to 0. The threshold
# for trimming is a size_t that is told by an int: -1 is the largest.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = -1


def tune_allocator() -> bool:
    """Keep the memory of freed CPU tensors in the process, for every library in it. Call it once, at the start.

    The process then holds on to its peak memory. Returns whether the allocator could be told; only glibc's can.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
