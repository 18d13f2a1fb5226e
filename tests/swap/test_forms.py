"""Every form in which models write the slow layers: what it computes when it is swapped, at other sizes and types, too."""

import pytest
import torch
from forms import FORMS

import fastnorm


@pytest.mark.parametrize("name", FORMS)
def test_it_computes_the_same(name):
    form = FORMS[name]
    inputs = form.inputs(torch.float32)
    model = fastnorm.swap(form.make(), inputs)
    found = fastnorm.verify(form.make(), model, inputs)
    assert found, found
