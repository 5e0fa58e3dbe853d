# The whole interface of this repository. Every target installs what it needs into .venv first;
# a second run finds it there and starts at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Which torch the tests and the demo use, and where from: with an index of CPU builds at hand,
# `make test TORCH_ARGS="--index-url <index>"` avoids the large CUDA build.
TORCH := torch==2.13.0
TORCH_ARGS ?=
# Lock files leave out releases younger than this: most malicious uploads are found within days.
LOCK_COOLDOWN ?= 7 days
# --upgrade takes the newest of everything; without it only what pyproject.toml demands changes.
LOCK_ARGS ?=
UV := uv==0.13.8
# Worker processes of the test run.
WORKERS ?= 2
# How long `make fuzz` runs, all readers together.
FUZZ_SECONDS ?= 1800

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help dev demo fuzz lint test test-corpus test-matrix bench docs package lock clean system system-test

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: $(VENV)/.kgate ## Install everything into .venv, kgate itself in editable form

demo: $(VENV)/.kgate system ## The whole story on this machine, offline; leaves demo-out/
	$(BIN)/kgate demo --out demo-out

test: $(VENV)/.kgate system-test ## All tests that need neither a GPU nor the internet
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile

test-corpus: $(VENV)/.kgate system-test ## Scan the large GPU wheels of the corpus (downloads them)
	$(BIN)/pytest -q -m corpus

test-matrix: $(VENV)/.kgate system-test ## Every supported client version in its own environment
	$(BIN)/pytest -q -m matrix

fuzz: $(VENV)/.fuzzer ## Fuzz every reader of the scanner for half an hour (FUZZ_SECONDS=1800)
	$(BIN)/python -m tests.fuzz.campaign --seconds $(FUZZ_SECONDS) --corpus .cache/fuzz

lint: $(VENV)/.kgate ## ruff, mypy --strict and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy scripts
	$(BIN)/lint-imports

bench: $(VENV)/.kgate system ## Run every benchmark and write benchmarks/RESULTS.md
	$(BIN)/python scripts/bench.py

docs: $(VENV)/.kgate ## Write the generated pages and check the links of all others
	$(BIN)/python scripts/docs.py

package: $(VENV)/.kgate ## Build sdist and wheel twice, compare them, leave them in dist/
	scripts/package $(BIN)/python

lock: $(VENV)/.lock-tool ## Resolve requirements/*.lock anew from pyproject.toml
	scripts/lock $(BIN)/uv "$(LOCK_COOLDOWN)" $(LOCK_ARGS)

clean: ## Remove what the targets above made, .venv and caches included
	rm -rf $(VENV) .cache dist demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage

$(VENV)/.fuzzer: requirements/fuzz.lock $(VENV)/.kgate
	$(BIN)/python -m pip install -qq --require-hashes -r requirements/fuzz.lock
	touch $@

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kgate needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.locked: requirements/dev.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install -qq --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install -qq $(TORCH_ARGS) $(TORCH)
	touch $@

# kgate last and without dependencies: whatever it needs stands in the lock file.
$(VENV)/.kgate: pyproject.toml $(wildcard client/*.pth) $(VENV)/.locked
	$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	touch $@

# Not remembered: a container may bring .venv along and lack the rest. Looking takes milliseconds.
system:
	@scripts/system-packages
system-test:
	@scripts/system-packages test

$(VENV)/.lock-tool: | $(VENV)/bin/python
	$(BIN)/python -m pip install -qq $(UV)
	touch $@
