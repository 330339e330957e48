# One command per chore. Each does its own set-up: Python 3.11 or newer, make and a package index are enough.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEV := $(VENV)/.dev-installed
DEMO := $(VENV)/.demo-installed
STARLETTE := $(VENV)/.starlette-installed
PORT ?= 5000

.DEFAULT_GOAL := help
.PHONY: help demo starlette test lint types conformance bench format clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(DEMO): $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(DEV): $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(DEMO) $(STARLETTE)

$(STARLETTE): $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[starlette]'
	@touch $@

demo: $(DEMO) ## Serve the example Flask app and print its address
	$(BIN)/python -m examples.flask_app --port $(PORT)

starlette: $(STARLETTE) ## Serve the example Starlette app, likewise
	$(BIN)/python -m examples.starlette_app --port $(PORT)

test: $(DEV) ## Run the tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(DEV) ## Check style and the layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

types: $(DEV) ## Check the types
	$(BIN)/mypy

conformance: $(DEV) ## Run Autobahn|Testsuite (needs CPython 2.7)
	$(BIN)/python -m tests.conformance $(ARGS)

bench: $(DEV) ## Measure, see bench/README.md (ARGS="wsgi_idle" for one script)
	$(BIN)/python -m bench $(ARGS)

format: $(DEV) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove what was made
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
