# A fresh machine needs Python 3.11 or newer, pip and make. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Each build of torch (CPU, CUDA) has its own hashes, so it is not in requirements/dev.txt: pip selects the build that it
# is configured for. `TORCH='--requirement requirements/torch.txt' make test` installs PyPI's build by hash.
TORCH ?= torch==2.13.0

.PHONY: help demo test lint types pytest docs hooks lock audit sbom wheel image-check clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -nE "s/^([a-z-]+):.*## (.*)/  make \1\t\2/p" $(firstword $(MAKEFILE_LIST)) | expand -t 20

demo: $(VENV)/.demo ## render people, train, export, serve, enrol, search
	$(BIN)/python -m demo

test: lint types pytest ## lint, types, every test and the floor of coverage: what CI runs

lint: $(VENV)/.test ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test ## mypy --strict
	$(BIN)/mypy

# One thread per test process: two processes with two threads each would compete for two cores.
pytest: $(VENV)/.test ## every test, with branch coverage
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term --cov-report=xml:build/coverage.xml

docs: $(VENV)/.test ## build the documentation site to build/site
	$(BIN)/mkdocs build

hooks: $(VENV)/.test ## install the pre-commit hooks
	$(BIN)/pre-commit install

lock: $(VENV)/.test ## rewrite requirements/*.txt from pyproject.toml; UPGRADE=1 selects newer versions
	UV=$(BIN)/uv requirements/lock $(if $(UPGRADE),--upgrade)

audit: $(VENV)/.test ## check the locked versions for known vulnerabilities
	for lock in cpu gpu dev torch; do $(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements/$$lock.txt || exit 1; done

sbom: $(VENV)/.test ## write build/sbom-cpu.json and -gpu.json (CycloneDX): the Python packages in the images
	mkdir -p build
	for image in cpu gpu; do $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file build/sbom-$$image.json requirements/$$image.txt || exit 1; done

wheel: $(VENV)/.test ## build the wheels of the server and of the client in dist/
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist ./client .

image-check: $(VENV)/.test ## build the CPU image for real and embed a crop (needs root, buildah, debootstrap)
	docker/image-check

$(VENV)/.demo: pyproject.toml client/pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable ./client --editable '.[cpu,train]'
	touch $@

$(VENV)/.test: pyproject.toml client/pyproject.toml requirements/dev.txt | $(BIN)/python
	$(BIN)/pip install --quiet --require-hashes --requirement requirements/dev.txt
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable ./client --editable .
	touch $@ $(VENV)/.demo

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist runs
