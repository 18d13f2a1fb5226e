# make demo: an environment, the install, and a stylised picture.   make test: the tests.   make help: the rest.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
SOURCES := setup.py pyproject.toml $(wildcard csrc/*.cpp csrc/*/*)

# Modules are compiled when they are first imported, not all of them at once.
export PIP_NO_COMPILE := 1

STYLES := 5 examples/brush.jpg examples/glass.jpg
DEMO := examples/out

.PHONY: help demo test test-all bench gpu-check clean

help:
	@echo "make demo        set up $(VENV), install fastnorm, stylise examples/astronaut.jpg into $(DEMO)/"
	@echo "make test        set up $(VENV), install fastnorm, run the tests"
	@echo "make test-all    the tests with the long ones"
	@echo "make bench       what fastnorm brings on this machine"
	@echo "make gpu-check   build, test and measure on a CUDA machine, with the torch of $(PYTHON); no network"
	@echo "make clean       remove what these commands made"
	@echo "TORCH=...        the torch to install ($(TORCH));  PYTHON=...  the interpreter ($(PYTHON))"

demo: $(VENV)/installed
	@mkdir -p $(DEMO)
	@for style in $(STYLES); do \
	  out=$(DEMO)/astronaut-$$(basename $$style .jpg).jpg; \
	  $(VENV)/bin/fastnorm stylize examples/astronaut.jpg --style $$style -o $$out || exit $$?; \
	done
	@echo "look at $(DEMO)/; other pictures: $(VENV)/bin/fastnorm stylize PHOTO --style 0..25 or PAINTING -o OUT"

test: $(VENV)/installed
	$(PY) -m pytest -n auto --dist worksteal

test-all: $(VENV)/installed
	$(PY) -m pytest -n auto --dist worksteal -m ""

bench: $(VENV)/installed
	$(VENV)/bin/fastnorm bench

gpu-check:
	$(PYTHON) benchmarks/gpu_check.py

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "fastnorm needs Python 3.10 or later; choose one: make demo PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make environments: install its venv package (python3-venv on Debian)"; exit 1; }
	@echo "== environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/torch: $(VENV)/python
	@echo "== $(TORCH) and build tools"
	@$(PIP) install -q "setuptools>=70.1" pybind11 ninja numpy $(TORCH) || \
	  { echo "could not install $(TORCH); choose another: make demo TORCH=torch==2.12.0"; exit 1; }
	@touch $@

$(VENV)/installed: $(VENV)/torch $(SOURCES)
	@command -v $${CXX:-c++} >/dev/null || \
	  echo "== no C++ compiler (c++): fastnorm will run on plain PyTorch, and slowly; install g++ and run make again"
	@echo "== fastnorm"
	@$(PIP) install -q --no-build-isolation -e ".[cli,models,test]"
	@# nnU-Net's networks by themselves: what they name besides, timm and torchvision, brings another torch.
	@$(PIP) install -q --no-deps dynamic-network-architectures || echo "== no dynamic-network-architectures: its tests are skipped"
	@$(VENV)/bin/fastnorm info
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info fastnorm/*.so $(DEMO)
