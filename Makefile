# Two commands do everything on a fresh machine with Python 3.11 or newer, pip and make:
#   make demo    render people, train, export, serve, enrol, search
#   make test    lint, types and every test
# `make docs` builds the documentation site to build/site.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types pytest docs image-check clean

demo: $(VENV)/.demo
	$(BIN)/python -m demo

test: lint types pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

# one thread a test process: two processes with two threads each on two cores only wait for one another
pytest: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

docs: $(VENV)/.test
	$(BIN)/mkdocs build

image-check: $(VENV)/.test
	docker/image-check

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[cpu,train]'
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[cpu,train,openvino,rtx,otel,dev]'
	touch $@ $(VENV)/.demo

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) runs
