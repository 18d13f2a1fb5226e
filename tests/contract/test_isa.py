"""Every instruction set that this machine can run gives the numbers of the contract."""

import pytest
from accuracy import assert_gradients, assert_values
from calls import DEVICE, every_call, every_dtype
from layouts import every_layout

from fastnorm.ops import backends

if backends.which("instance_norm", DEVICE) != "cpu":
    # Importing the extension would put its kernels in place of those under test.
    pytest.skip("the CPU kernels do not run here", allow_module_level=True)

from fastnorm import _C

ISAS = _C.available_isas()


@pytest.fixture(params=ISAS)
def isa(request):
    before = _C.isa()
    _C.set_isa(request.param)
    assert _C.isa() == request.param
    yield
    _C.set_isa(before)


@every_layout
@every_dtype
@every_call
def test_values_and_gradients(call, dtype, layout, isa):
    sample = call.sample(dtype=dtype).map(layout)
    assert_values(call.operator, sample)
    assert_gradients(call.operator, sample, layout)


def test_the_best_comes_first():
    assert ISAS[0] == _C.isa() and "portable" in ISAS


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="set_isa: this machine cannot run mmx"):
        _C.set_isa("mmx")
