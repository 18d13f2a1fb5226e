"""Fresh memory that holds NaN: an element that no kernel wrote must not hold the right number of the call before."""

import ctypes
from contextlib import contextmanager

import torch

_libc, _torch = ctypes.CDLL(None), ctypes.CDLL(torch._C.__file__)


def _flag(name):
    try:
        return ctypes.c_bool.in_dll(_torch, f"FLAGS_{name}")
    except ValueError:
        return None


# torch's allocator then fills what it gives with 0x7fedbeef: NaN as a float32, wrong as anything else.
_junk_fill = _flag("caffe2_cpu_allocator_do_junk_fill")

# glibc's malloc then fills what it gives with the complement of the lowest byte, 0xFF: NaN in every type. It reaches
# what kernels allocate for themselves, but not every block below a kilobyte: some come from a cache, as freed.
_M_PERTURB, _NAN, _OFF = -6, 0x100, 0
_has_mallopt = hasattr(_libc, "mallopt")

reaches_small_blocks = _junk_fill is not None
reaches_large_blocks = reaches_small_blocks or _has_mallopt


@contextmanager
def poisoned_cpu():
    """All that the CPU's allocators give; what a kernel allocates through torch's C shim, too."""
    if _has_mallopt:
        _libc.mallopt(_M_PERTURB, _NAN)
    if _junk_fill is not None:
        _junk_fill.value = True
    yield
    if _has_mallopt:
        _libc.mallopt(_M_PERTURB, _OFF)
    if _junk_fill is not None:
        _junk_fill.value = False


@contextmanager
def poisoned_gpu():
    """What torch.empty gives."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


def fresh_floats(count):
    """What a float32 output of a CPU kernel holds before it is written. It leaves zeros there."""
    handle, data = ctypes.c_void_p(), ctypes.c_void_p()
    sizes, strides = (ctypes.c_int64 * 1)(count), (ctypes.c_int64 * 1)(1)
    failed = _torch.aoti_torch_empty_strided(
        ctypes.c_int64(1), sizes, strides, _torch.aoti_torch_dtype_float32(), _torch.aoti_torch_device_type_cpu(), 0,
        ctypes.byref(handle),
    )  # fmt: skip
    assert not failed and not _torch.aoti_torch_get_data_ptr(handle, ctypes.byref(data))
    found = bytearray(ctypes.string_at(data, 4 * count))
    ctypes.memset(data, 0, 4 * count)
    _torch.aoti_torch_delete_tensor_object(handle)
    return torch.frombuffer(found, dtype=torch.float32)
