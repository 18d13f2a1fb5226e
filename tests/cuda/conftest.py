"""The CUDA kernels on a machine without a GPU: compiled for every target, and run by an emulator."""

import pytest


@pytest.fixture(scope="session")
def build_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cuda")
