"""What is built, and what is said where it cannot be."""

import re
import zipfile

import pytest

every_kind = pytest.mark.parametrize("kind", ["wheel", "editable"])
BOTH = ["_C", "_C_cuda"]


@every_kind
def test_both_libraries_are_installed(checkout, kind):
    assert checkout.install(kind)[0] == BOTH


@every_kind
def test_what_is_left_out_is_not_taken_from_an_earlier_build(checkout, kind):
    assert checkout.install(kind)[0] == BOTH
    assert checkout.install(kind, FASTNORM_BUILD="cpu")[0] == ["_C"]
    assert checkout.install(kind, FASTNORM_BUILD="none")[0] == []


@every_kind
def test_without_nvcc(checkout, kind):
    (checkout.tools / "nvcc").unlink()
    assert checkout.install(kind)[0] == ["_C"]


@every_kind
def test_without_compilers(checkout, kind):
    (checkout.tools / "c++").unlink()
    libraries, said = checkout.install(kind)
    assert libraries == []
    assert "\nfastnorm: no C++ compiler: installing without kernels, on plain PyTorch\n" in said


@every_kind
def test_an_nvcc_that_fails_costs_the_cuda_library_alone(checkout, kind):
    assert checkout.install(kind)[0] == BOTH
    checkout.make_refuse("nvcc")
    kernel = checkout.path / "csrc" / "cuda" / "instance_norm.cu"
    kernel.write_text(kernel.read_text() + "\n")
    libraries, said = checkout.install(kind)
    assert libraries == ["_C"]
    assert "\nI refuse to compile\n" in said and "Traceback" not in said
    assert re.search("^fastnorm: warning: the CUDA library does not .* FASTNORM_BUILD=cpu leaves CUDA out$", said, re.M)


def test_an_nvcc_without_headers(checkout):
    (checkout.cuda / "include" / "cuda_runtime.h").unlink()
    setup = checkout.path / "setup.py"
    setup.write_text(setup.read_text().replace('"/usr/local/cuda"', '"/nowhere"'))
    libraries, said = checkout.install("wheel")
    assert libraries == ["_C"]
    assert "\nfastnorm: warning: nvcc is here, but not cuda_runtime.h; set CUDA_HOME; installing without it" in said


def assert_refused(done, line):
    """It failed, and said so in its last line."""
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert done.stdout.splitlines()[-1] == line


def build(checkout, **environment):
    return checkout.run("setup.py", "-q", "build_ext", **environment)


def test_a_compiler_that_fails(checkout):
    checkout.make_refuse("c++")
    done = build(checkout)
    assert "\nI refuse to compile\n" in done.stdout
    assert_refused(
        done,
        "fastnorm: c++ failed, in its own words above; FASTNORM_BUILD=none installs without kernels, on plain PyTorch",
    )


def test_a_compiler_that_is_not_there(checkout):
    assert_refused(
        build(checkout, CXX="clang++-99 -m64"),
        "fastnorm: CXX: there is no 'clang++-99': set CXX to a C++ compiler, or unset it",
    )


def test_a_wrong_choice(checkout):
    assert_refused(build(checkout, FASTNORM_BUILD="gpu"), "FASTNORM_BUILD: expected all, cpu, none, got 'gpu'")


def test_a_missing_build_tool(checkout):
    (checkout.packages / "pybind11.py").write_text("raise ImportError(\"No module named 'pybind11'\")")
    assert_refused(build(checkout), "fastnorm: No module named 'pybind11': building it needs torch, pybind11 and ninja")


def test_the_compiler_may_have_arguments(checkout):
    checkout.tool("ccache", '#!/bin/sh\nexec "$@"\n')
    assert build(checkout, CXX=f"{checkout.tools}/ccache {checkout.tools}/c++ -m64").returncode == 0
    assert all(command.startswith("-m64 ") for command in checkout.commands("c++"))


def test_the_compiler_may_lie_in_a_folder_with_spaces(checkout):
    folder = checkout.tools / "my compilers"
    folder.mkdir()
    (checkout.tools / "c++").rename(folder / "c++")
    assert build(checkout, CXX=f"{folder}/c++").returncode == 0
    assert (folder / "c++.log").exists()


def test_the_compiler_names_itself(checkout):
    assert build(checkout, FASTNORM_BUILD="cpu").returncode == 0
    (command,) = [command for command in checkout.commands("c++") if "fastnorm.cpp" in command]
    assert r' -DFASTNORM_COMPILER="c++ \"quoted\" $HOME 1.0" ' in command


def test_a_second_build_compiles_nothing(checkout):
    assert build(checkout).returncode == 0
    compiled = checkout.commands("c++")
    (checkout.tools / "c++.log").unlink()
    assert build(checkout, FASTNORM_BUILD="cpu").returncode == 0
    assert compiled and not (checkout.tools / "c++.log").exists()


def test_every_kernel_is_compiled(checkout):
    assert build(checkout).returncode == 0
    for tool, folders, ending in (("c++", ("cpu", "bindings"), "cpp"), ("nvcc", ("cuda",), "cu")):
        commands = "\n".join(checkout.commands(tool))
        sources = [source for folder in folders for source in (checkout.path / "csrc" / folder).glob(f"*.{ending}")]
        assert sources and [source.name for source in sources if f"/{source.name} " not in commands] == []


def test_the_licence(checkout):
    checkout.install("wheel", FASTNORM_BUILD="none")
    (wheel,) = (checkout.path.parent / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as files:
        named = {name.rpartition("/")[2]: name for name in files.namelist() if ".dist-info/" in name}
        assert "LICENSE" in named
        assert re.search(r"^License(-Expression)?: Apache-2.0$", files.read(named["METADATA"]).decode(), re.M)


def test_setuptools_before_77_reads_the_metadata(checkout):
    """They refuse a licence in one word, and do not know `license-files`."""
    (project,) = re.findall(r"^\[project\]\n(.*?)^\[", (checkout.path / "pyproject.toml").read_text(), re.M | re.S)
    assert not re.search(r"^license", project, re.M)
