# make serve   the service on http://127.0.0.1:3000 with the embedded model
# make test    lint, types and every test
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 3000
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup serve test lint format bento bench lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.serve ## create .venv with the pinned packages

serve: $(VENV)/.serve ## serve on $(HOST):$(PORT); Swagger UI at /
	BENTOML_CONFIG=configuration.yaml $(BIN)/bentoml serve service:svc --host $(HOST) --port $(PORT)

test: lint ## lint, types and every test
	$(BIN)/python -m pytest

lint: $(VENV)/.test ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bento: $(VENV)/.serve ## build the Bentos, one a variant
	$(BIN)/bentoml build -f bentofile.yaml .
	$(BIN)/bentoml build -f bentofile.fp16.yaml .
	$(BIN)/bentoml build -f bentofile.neuron.yaml .

bench: $(VENV)/.test ## the comparisons in benchmarks/
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks

lock: $(VENV)/.test ## write every installed version to requirements/constraints.txt
	$(BIN)/pip freeze --exclude-editable | sed -E 's/\+cpu$$//' > requirements/constraints.txt

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 11) else \
	  "Python 3.11 is needed, this is %d.%d; try: make PYTHON=python3.11 $(MAKECMDGOALS)" % v)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: $(VENV)/bin/pip requirements/serve.txt requirements/constraints.txt
	$(BIN)/pip install --quiet -c requirements/constraints.txt $$(grep '^torch==' requirements/serve.txt)
	$(BIN)/pip install --quiet -c requirements/constraints.txt -r requirements/serve.txt
	@touch $@

$(VENV)/.test: $(VENV)/.serve requirements/test.txt
	$(BIN)/pip install --quiet -c requirements/constraints.txt -r requirements/test.txt
	@touch $@
