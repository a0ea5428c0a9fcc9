PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench clean

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

# torch goes first, alone and exact: its pin takes the build that pip is set up to offer (CPU or CUDA),
# and nothing that is resolved after it can bring another.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: $(READY)  ## Embed a gallery of drawings, search it, and write demo-out/index.html
	$(BIN)/st-modules demo --out demo-out

test: $(READY)  ## Run the tests and print the coverage
	$(BIN)/python -m pytest --cov -n auto --dist worksteal

lint: $(READY)  ## Check the format, the lint rules and the types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(READY)  ## Put the format right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## Time our encode beside the authors' code and sentence-transformers' own loop, on equal vectors
	$(BIN)/python benchmarks/run.py --out bench-out
	$(BIN)/python benchmarks/sweep.py --out bench-out
	$(BIN)/python benchmarks/concurrent_queries.py

clean:  ## Remove the environment and what the other commands wrote
	rm -rf $(VENV) bench-out demo-out dist .pytest_cache .ruff_cache .coverage
