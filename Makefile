PYTHON ?= python3
VENV ?= .venv
MINUTES ?= 0.5
BIN := $(VENV)/bin
TORCH := $(VENV)/.torch
PACKAGE := $(VENV)/.package
TOOLS := $(VENV)/.tools
DOCS := $(VENV)/.docs
# pip says only what went wrong, whatever else it is set up to say. It compiles nothing: of most packages little is ever
# imported. What is imported is compiled then, and kept, whatever the environment says: the tests start hundreds of
# processes, of which each would compile torch and transformers anew.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test coverage lint format docs fuzz bench clean

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

# torch goes first, alone and exact: its pin takes the build that pip is set up to offer (CPU or CUDA), and nothing that
# is resolved after it can bring another.
$(TORCH): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	@touch $@

# The package, and what an index and the server need.
$(PACKAGE): $(TORCH)
	$(PIP) --editable ".[index,serve]"
	@touch $@

# The same, and what the tests, the linters and the benchmarks need.
$(TOOLS): $(TORCH)
	$(PIP) --editable ".[dev]"
	@touch $(PACKAGE) $@

# What builds the site.
$(DOCS): $(PACKAGE)
	$(PIP) --editable ".[docs]"
	@touch $@

demo: $(PACKAGE)  ## Index a gallery of drawings, search it, and write demo-out/index.html
	$(BIN)/st-modules demo --out demo-out

test: $(TOOLS)  ## Run the tests
	$(BIN)/python -m pytest -n auto --dist worksteal

# Apart, since counting lines doubles the time.
coverage: $(TOOLS)  ## Run the tests and print the coverage
	$(BIN)/python -m pytest --cov -n auto --dist worksteal

lint: $(TOOLS)  ## Check the format, the lint rules, the floors that imports keep to, and the types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(TOOLS)  ## Put the format right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DOCS)  ## Build the site of the documentation in site/; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

fuzz: $(TOOLS)  ## Throw hostile inputs at the package: known ones, for MINUTES each those of two fuzzers, and requests
	$(BIN)/python -m fuzz.run --minutes $(MINUTES)
	$(BIN)/python -m fuzz.kills --minutes $(MINUTES)
	$(BIN)/python -m fuzz.apis --minutes $(MINUTES)

bench: $(TOOLS)  ## Time our encode beside the authors' code and sentence-transformers' own loop, on equal vectors
	$(BIN)/python benchmarks/run.py --out bench-out
	$(BIN)/python benchmarks/sweep.py --out bench-out
	$(BIN)/python benchmarks/concurrent_queries.py

clean:  ## Remove the environment and what the other commands wrote
	rm -rf $(VENV) .venv-transformers-* bench-out demo-out dist site .hypothesis .pytest_cache .ruff_cache .schemathesis .import_linter_cache .coverage
