"""The contract: what holds for every operator of the registry. Adding an operator there is enough to have it tested.

`FASTNORM_TEST_DEVICE` chooses the device, `FASTNORM_BACKEND` the kernels. `-m core` is the part that Triton's
interpreter can run: values, gradients, layouts and shapes, on small maps.
"""

import poison
import pytest
import torch
from calls import DEVICE


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fresh memory holds NaN, so that an element which no kernel wrote is seen."""
    if DEVICE == "cpu":
        with poison.poisoned_cpu():
            assert poison.fresh_floats(1000).isnan().all() or not poison.reaches_large_blocks
            yield
    else:
        with poison.poisoned_gpu():
            assert torch.empty(1000, device=DEVICE).isnan().all()
            yield


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine two threads mostly wait for each other. `test_threads` sets its own numbers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
