# The two commands of the README; each does its own set-up.
#   make study                      about ten minutes on 2 CPU cores, after the set-up
#   make test
# PYTHON chooses the interpreter, OUT the study's folder, ARGS adds flags (ARGS="my_text/ --time 30m"),
# WORKERS is how many processes run the tests; a file's tests stay in one of them.
# PIP_FLAGS goes to every pip call: that is where a CPU-only build of PyTorch is chosen (see README).

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
OUT ?= runs/study
BIN := $(VENV)/bin
INSTALLED := pyproject.toml setup.py $(wildcard sparsedial/kernels/csrc/*)  # what an install is made from

.PHONY: study test lint faults sanitize setup setup-dev clean

study: $(VENV)/.study
	$(BIN)/sparsedial study --out $(OUT) $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

# Faults are planted in a copy of the package, one by one; each must fail its test. ARGS="--minutes 10" plants some.
faults: $(VENV)/.dev
	$(BIN)/python -m tests.faults $(ARGS)

# The compiled kernels' tests on a library that ends the process at any access outside its memory or undefined result.
# Errors are written to the terminal's own standard error, which pytest would swallow with --capture=fd. Threads that
# wait without spinning take a quarter of the time on a busy machine.
SANITIZED := build/sanitized
SANITIZED_TESTS := tests/kernels/test_layers.py tests/kernels/test_products.py tests/kernels/test_together.py \
  tests/kernels/test_sparse.py tests/kernels/test_rows.py tests/kernels/test_transposed.py tests/model/test_narrow.py \
  tests/kernels/test_bridge.py tests/model/test_decoder.py tests/model/test_gates.py tests/training/test_optimizer.py

sanitize: $(VENV)/.dev
	SPARSEDIAL_SANITIZE=1 $(BIN)/python setup.py -q build_ext -j 2 --build-lib $(SANITIZED) --build-temp $(SANITIZED)
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) libstdc++.so.6" ASAN_OPTIONS=detect_leaks=0 \
	  UBSAN_OPTIONS=print_stacktrace=1 OMP_WAIT_POLICY=passive \
	  SPARSEDIAL_NATIVE="$$(echo $(SANITIZED)/sparsedial/kernels/_native*.so)" \
	  $(BIN)/python -m pytest --capture=sys $(SANITIZED_TESTS)

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
