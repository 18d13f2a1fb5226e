"""What a contender adds to the memory of a process, as the system counts it: whoever allocates, all are counted alike.

Each is measured in a fresh process. It runs a tiny picture first, so that libraries, their tables and their compilers
are loaded; what the process holds then is subtracted. It makes the contender and calls it once, so that what is built
for this size is built. The most that it holds at any time during the next call is the result: what stays between calls
(an arena, packed weights, compiled code), and what the call needs.

The allocator is left as it is, unlike where times are taken: tuned, it keeps freed blocks of sizes that nobody asks for
again, and the network that took 114.1 MB twice took 147 and 160.

Linux only: VmRSS and VmHWM of /proc/self/status, the latter reset through /proc/self/clear_refs.
"""

import contextlib
import ctypes
import gc
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

TINY = (1, 3, 32, 32)


def resident_bytes(case, name: str, layout: str) -> int | None:
    """The growth, of a case of a network on the CPU; None where the system does not tell or the process fails."""
    if case.device.type != "cpu" or not Path("/proc/self/clear_refs").exists():
        return None
    found = subprocess.run(
        [sys.executable, "-m", __name__],
        input=pickle.dumps((case, name, layout, torch.get_num_threads())),
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return int(found.stdout.split()[-1]) if found.returncode == 0 else None


def main() -> None:
    case, name, layout, threads = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(threads)
    print(growth(case, name, layout))


def growth(case, name, layout) -> int:
    contender = replace(case, shape=TINY).stage().contender(name, layout)
    for _ in range(2):
        contender.run(contender.prepare())
    del contender
    stage = case.stage()
    before = held()
    contender = stage.contender(name, layout)
    return peak_of_second(lambda: contender.run(contender.prepare())) - before


def peak_of_second(call) -> int:
    """The most that this process holds during a call that was made once before, in bytes."""
    call()
    _release()
    Path("/proc/self/clear_refs").write_text("5")
    call()
    return _status("VmHWM")


def held() -> int:
    """What this process holds that is not free, in bytes."""
    _release()
    return _status("VmRSS")


def _release():
    """Give back to the system what is free."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # Only glibc's allocator can be told.
        ctypes.CDLL(None).malloc_trim(0)


def _status(name) -> int:
    """A line of the status in bytes."""
    kilobytes = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kilobytes[1]) * 1024


if __name__ == "__main__":
    main()
