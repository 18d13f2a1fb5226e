"""Builds of a copy of the checkout, by compilers that look whether their sources are there, and make empty files."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What a shell and ninja would take for something else stands in the paths of the checkout, of CUDA and of torch.
AWKWARD = "it's $HOME: a b"

COMPILER = """#!/bin/sh
[ "$1" = --version ] && echo 'c++ "quoted" $HOME 1.0' && exit
echo "$*" >> "$0.log"
while [ $# -gt 0 ]; do
  case "$1" in
    -c) [ -f "$2" ] || { echo "no source $2"; exit 1; };;
    -o) output=$2;;
    -isystem) [ -d "$2" ] || { echo "no folder $2"; exit 1; };;
  esac
  shift
done
: > "$output"
"""
REFUSING = "#!/bin/sh\necho 'I refuse to compile'\nexit 1\n"


class Checkout:
    def __init__(self, folder):
        self.path = folder / AWKWARD / "checkout"
        generated = shutil.ignore_patterns("*.so", "__pycache__", "results")
        for name in ("csrc", "fastnorm", "kernels", "benchmarks"):
            shutil.copytree(ROOT / name, self.path / name, ignore=generated)
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.path / name)
        self.tools = folder / "tools"
        self.tools.mkdir()
        if ninja := shutil.which("ninja"):
            (self.tools / "ninja").symlink_to(ninja)
        self.cuda = folder / AWKWARD / "cuda"
        (self.cuda / "include").mkdir(parents=True)
        (self.cuda / "include" / "cuda_runtime.h").touch()
        self.packages = folder / "packages"
        self._make_packages(folder / AWKWARD / "torch")

    def _make_packages(self, torch):
        """torch and pybind11 as a build sees them: importing torch would take longer than all the rest."""
        includes = torch / "include"
        utils = self.packages / "torch" / "utils"
        includes.mkdir(parents=True)
        utils.mkdir(parents=True)
        (utils.parent / "__init__.py").write_text(f"__file__ = {str(torch / '__init__.py')!r}")
        (utils / "cpp_extension.py").write_text(f"include_paths = lambda: [{str(includes)!r}]")
        (self.packages / "pybind11.py").write_text(f"get_include = lambda: {str(includes)!r}")

    def tool(self, name, text=COMPILER):
        path = self.tools / name
        path.write_text(text)
        path.chmod(0o755)

    def make_refuse(self, name):
        self.tool(name, REFUSING)

    def commands(self, name):
        """The arguments with which a tool was run."""
        return (self.tools / f"{name}.log").read_text().splitlines()

    def run(self, *command, **environment):
        kept = {name: value for name, value in os.environ.items() if name not in ("CXX", "FASTNORM_BUILD")}
        packages = os.pathsep.join(filter(None, (str(self.packages), os.environ.get("PYTHONPATH"))))
        paths = {"PATH": str(self.tools), "PYTHONPATH": packages, "CUDA_HOME": str(self.cuda)}
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.path,
            env=kept | paths | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def install(self, kind, **environment):
        """What `pip install` (a "wheel") or `pip install -e` ("editable") does: its libraries, and what was printed."""
        wheels = self.path.parent / "wheels"
        shutil.rmtree(wheels, ignore_errors=True)
        wheels.mkdir()
        hook = f"from setuptools import build_meta; build_meta.build_{kind}({str(wheels)!r})"
        done = self.run("-c", hook, **environment)
        assert done.returncode == 0, done.stdout
        if kind == "editable":
            return self.libraries(path.name for path in (self.path / "fastnorm").iterdir()), done.stdout
        (wheel,) = wheels.iterdir()
        return self.libraries(zipfile.ZipFile(wheel).namelist()), done.stdout

    @staticmethod
    def libraries(names):
        """The libraries among the files, without Python's version."""
        return sorted(name.rpartition("/")[2].partition(".")[0] for name in names if name.endswith(".so"))


@pytest.fixture
def checkout(tmp_path):
    """A copy of the checkout beside a C++ compiler, an nvcc and nothing else."""
    copy = Checkout(tmp_path)
    copy.tool("c++")
    copy.tool("nvcc")
    return copy
