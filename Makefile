# The two commands of the README; each does its own set-up.
#   make study                      about ten minutes on 2 CPU cores, after the set-up
#   make test
# PYTHON chooses the interpreter, OUT the study's folder, ARGS adds flags (ARGS="my_text/ --time 30m").
# PIP_FLAGS goes to every pip call: that is where a CPU-only build of PyTorch is chosen (see README).

PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/study
BIN := $(VENV)/bin
INSTALLED := pyproject.toml setup.py $(wildcard sparsedial/kernels/csrc/*)  # what an install is made from

.PHONY: study test lint setup setup-dev clean

study: $(VENV)/.study
	$(BIN)/sparsedial study --out $(OUT) $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

setup: $(VENV)/.study
setup-dev: $(VENV)/.dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sparsedial needs Python 3.11 or newer; choose one with PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

# PyTorch comes first and alone, so that nothing after it can move it.
$(VENV)/.torch: $(BIN)/python constraints.txt
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --constraint constraints.txt torch
	touch $@

$(VENV)/.study: $(VENV)/.torch $(INSTALLED)
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --constraint constraints.txt --editable '.[study]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch $(INSTALLED)
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.study

clean:
	rm -rf $(VENV)
