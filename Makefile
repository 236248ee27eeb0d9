# Two commands matter: `make demo` and `make test`. Each installs what it needs into .venv the first time.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
unexport PYTHONDONTWRITEBYTECODE  # where it is set, every start compiles torch again: 20 seconds instead of 5

.PHONY: help install demo test lint bench gpu faults clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## install dptr into .venv

demo: $(VENV)/.installed  ## run the whole chain on shipped words and photographs (three minutes)
	$(BIN)/dptr demo

test: $(VENV)/.tested  ## check style, types and behaviour
	@$(MAKE) --no-print-directory --jobs 2 lint $(VENV)/.compiled
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.tested  ## ruff, mypy and the directions of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.tested  ## the figures of docs/figures.md that need no data, one JSON line each
	@for name in encode_text encode_images pretrain_step cache_io read_cache embed_memory; do $(BIN)/python -m bench.$$name || exit 1; done

gpu: $(VENV)/.tested  ## all that needs a GPU, on one card in eight minutes: figures and tests, into gpu.json
	$(BIN)/python -m bench.gpu

faults: $(VENV)/.tested  ## kill, refuse and damage thousands of times (about a quarter of an hour)
	TQDM_DISABLE=1 $(BIN)/python -m tests.faults

$(VENV)/.compiled: $(VENV)/.tested  # once here, or each of the tests' processes compiles torch and the rest at its start
	@$(BIN)/python -c "import open_clip, datasets"
	@touch $@

clean:  ## remove .venv and what the demo made
	rm -rf $(VENV) demo-out

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "dptr needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/uv
	$(UV) --editable '.[demo]'
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(UV) --editable '.[demo,onnx,remote,serve,test]'
	@touch $@
