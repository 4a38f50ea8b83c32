# Everything a newcomer needs: `make demo` and `make test`. Each sets up .venv by itself.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help venv demo test test-slow lint bench docs clean

help:  ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(READY)  ## create .venv with everything, in the tested versions

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[train,dev,offline]"
	@touch $@

demo: $(READY)  ## raw rows become a persona that answers: train the stand-in, ask it before and after
	$(BIN)/qtrain recipes/muice.toml
	$(BIN)/qtrain chat runs/muice --before --max-new-tokens 48 --ask "Who are you?" --ask "Who made you?" --ask "你是谁？"

test: $(READY)  ## the tests that take minutes
	$(BIN)/pytest -n 2

test-slow: $(READY)  ## the tests that guard a promise but take long
	$(BIN)/pytest -n 2 -m slow

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## measure data preparation; writes benchmarks/results/
	$(BIN)/python benchmarks/render.py

docs: $(READY)  ## write docs/ from the commands and the recipe's dataclasses
	$(BIN)/python docs/generate.py

clean:  ## remove .venv and what tools left; data/ and runs/ stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
