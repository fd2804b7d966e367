# `make quickstart` and `make test` set up .venv by themselves; PYTHON chooses the interpreter (3.11 or 3.12).
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
FINETUNE := $(BIN)/finetune

.PHONY: help quickstart test thorough slow crashtest faults lint types format docs reference pictures clean

help: ## show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "finetune needs Python 3.11 or 3.12; install one, or say: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/.run

quickstart: $(VENV)/.run ## train a small network, pretrained and from a random start, in a few minutes
	$(FINETUNE) run recipes/quickstart.yaml
	$(FINETUNE) run recipes/quickstart.yaml name=quickstart-random backbone.weights=none
	$(BIN)/python examples/compare.py $$(ls -td runs/quickstart-[0-9]* | head -1) $$(ls -td runs/quickstart-random-* | head -1)

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev ## run the tests, in about 6 minutes on two cores
	@echo "about 5,300 tests; they take about 6 minutes on two cores (make thorough runs those that take longer)"
	$(PYTEST) -m "not slow and not thorough" --durations 10 --durations-min 5 $(ARGS)

thorough: $(VENV)/.dev ## run the tests that make test leaves out, in about 10 minutes on two cores
	$(PYTEST) -m "thorough and not slow" --durations 20 --durations-min 5 $(ARGS)

slow: $(VENV)/.dev ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow --timeout 1800 $(ARGS)

crashtest: $(VENV)/.dev ## kill a run a hundred times and compare what comes out
	$(BIN)/python -m tests.faults.crash --kills 100

faults: $(VENV)/.dev ## run the tests of faults that take minutes
	$(BIN)/python -m pytest -m slow --timeout 1800 tests/faults $(ARGS)

lint: $(VENV)/.dev ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## check types
	$(BIN)/mypy

format: $(VENV)/.dev ## format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@ $(VENV)/.run

docs: $(VENV)/.docs ## build the documentation into site/, warnings being errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

reference: $(VENV)/.dev ## write commands and components into the documentation
	$(BIN)/python docs/making/reference.py --write

pictures: $(VENV)/.dev ## make the pictures of the documentation again, in a minute
	$(BIN)/python docs/making/pictures.py

clean: ## remove the environment and what tools left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist site
