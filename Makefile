# `make quickstart` and `make test` are all a fresh clone needs; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help .venv quickstart test check docs bench clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart   run the main job on a real model with real adapters (installs first)"
	@echo "make test         the whole test suite"
	@echo "make check        format, lint, types, and that the generated files are current"
	@echo "make docs         run the code of the pages in docs/ and put in what it prints"
	@echo "make bench        timings beside PEFT and transformers"
	@echo "make .venv        only the environment; PYTHON=python3.12 picks the interpreter"
	@echo "make clean        remove the environment and everything built (the cache stays)"

.venv: $(STAMP)

# Made again when what is to be installed changes.
$(STAMP): pyproject.toml constraints.txt
	@echo "installing into .venv (pinned by constraints.txt; a minute or two) ..."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: $(STAMP)
	$(BIN)/python manifests/quickstart/run.py

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m adapterdock.manifests.json_schema --check
	$(BIN)/python -m adapterdock.cli.reference --check
	$(BIN)/python -m adapterdock.loader.tables.architecture_check --check

docs: $(STAMP)
	$(BIN)/python docs/print.py

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
