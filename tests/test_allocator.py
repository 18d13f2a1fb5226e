"""tune_allocator keeps freed memory in the process, on glibc; elsewhere it says that it cannot."""

import ctypes
import platform
import subprocess
import sys

import pytest

from fastnorm import allocator

# More than the largest positive int, 2 GiB, as a threshold would keep. Nothing is written to it: it takes no memory.
BLOCKS, BLOCK = 10, 256 * 2**20

PROBE = f"""
import ctypes, runpy, sys

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_size_t, [ctypes.c_ssize_t]

told = runpy.run_path(sys.argv[1])["tune_allocator"]()
before = libc.sbrk(0)
blocks = [libc.malloc({BLOCK}) for _ in range({BLOCKS})]
grown = libc.sbrk(0)
for block in blocks:
    libc.free(block)
print(told, grown - before, grown - libc.sbrk(0))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")
def test_freed_memory_stays():
    command = [sys.executable, "-c", PROBE, allocator.__file__]
    told, grown, given_back = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert told == "True"
    if int(grown) < BLOCKS * BLOCK:
        pytest.skip("this process may not grow so large")
    assert int(given_back) == 0


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_another_allocator_is_left_alone(monkeypatch, error):
    def no_library(name):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert allocator.tune_allocator() is False
