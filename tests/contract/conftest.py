"""The contract: what holds for every operator of the registry. Adding an operator there is enough to have it tested.

`FASTNORM_TEST_DEVICE` chooses the device, `FASTNORM_BACKEND` the kernels. `-m core` is the part that Triton's
interpreter can run: values, gradients, layouts and shapes, on small maps.
"""

import pytest
import torch


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fresh memory holds NaN, so that an element which no kernel wrote is seen."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(1000).isnan().all()
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine two threads mostly wait for each other. `test_threads` sets its own numbers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
