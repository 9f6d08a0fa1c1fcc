# Python 3.11+, pip and make are all that must be there. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUNS ?= runs
PORT ?= 5006
# Further arguments for pip, e.g. PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
PYTEST := $(BIN)/python -m pytest
IN_PARALLEL := -n logical --maxprocesses 4 --dist loadfile
# Classes of plug-in files are found by the file's name, not by an import.
PLUGIN := ^(same/(methods|backbones)|workbench/(views|widgets))/[a-z]\w*\.py:[0-9]+: unused class
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: setup reproduce test test-slow check format notebooks serve clean help

setup: $(STAMP)  ## make .venv from constraints.txt, if it is missing or older than the pinned versions

$(STAMP): constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer must be on the PATH; none found. Install it or say make PYTHON=/path/to/python." >&2; exit 2; }
	@test -x $(BIN)/python || { echo "Making $(VENV) with $(PYTHON)"; \
	    $(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV); }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m pip --python $(BIN)/python install $(PIP_ARGS) pip
	$(BIN)/python -m pip install $(PIP_ARGS) --editable '.[dev]' --constraint constraints.txt
	@touch $@

reproduce: $(STAMP)  ## build mini-CoIN, train and evaluate the quick chain, write the report
	$(BIN)/same prepare --benchmark mini-coin
	$(BIN)/workbench reproduce --chain quick --runs $(RUNS)
	@echo "           or: make serve RUNS=$(RUNS), then open http://localhost:$(PORT)"

test: $(STAMP)  ## the quick tests (under four minutes on two cores)
	$(OFFLINE) $(PYTEST) $(IN_PARALLEL) -m "not slow and not browser and not distributed and not gpu"

test-slow: $(STAMP)  ## the slow, browser and several-process tests
	$(OFFLINE) $(PYTEST) --ignore tests/notebooks -m "(slow or browser or distributed) and not gpu" --durations 10

check: $(STAMP)  ## style, types, imports, spelling, dead code, copies, dependencies: all clean or it fails
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	@echo vulture; out="$$($(BIN)/python -m vulture)" || test $$? = 3 && ! grep -Ev '$(PLUGIN)' <<<"$$out" | grep .
	$(BIN)/symilar --duplicates 8 --ignore-comments $$(find same workbench -name '*.py') | tee /dev/stderr | grep duplicates=0 >/dev/null
	$(BIN)/python -m deptry .

format: $(STAMP)  ## put the code into shape (ruff's formatter and safe fixes)
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format

notebooks: $(STAMP)  ## run the notebooks under nbval on a small run
	$(OFFLINE) $(PYTEST) tests/notebooks

serve: $(STAMP)  ## open the dashboard on the runs folder (RUNS=runs PORT=5006)
	$(BIN)/workbench serve --runs $(RUNS) --port $(PORT)

clean:  ## remove the environment and the caches; runs and prepared data stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
