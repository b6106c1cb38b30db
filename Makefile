PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Two tests at a time, a file to a process; libraries' own threads would only get into each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

.PHONY: demo test test-all lint types wheel clean

demo: $(VENV)/.demo          ## train, prune, compile, verify and bench on this machine
	$(BIN)/zellige demo

test: $(VENV)/.dev lint types  ## lint, types, tests and doctests: about ten minutes on two cores
	$(PYTEST) tests
	$(PYTEST) --doctest-modules zellige

test-all: $(VENV)/.dev lint types  ## full-size networks and long property-based runs too
	ZELLIGE_FULL=1 $(PYTEST) tests
	$(PYTEST) --doctest-modules zellige

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

wheel: $(VENV)/.dev
	$(BIN)/python -m build

# A stamp stands for what was installed; a change of pyproject.toml installs again.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[torch,cli,train,bench,models]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[torch,cli,train,bench,models,report,dev]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
