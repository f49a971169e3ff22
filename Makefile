# make serve   the service on http://127.0.0.1:3000 with the embedded model
# make test    lint, types and every test
# The first of these that is 3.11, 3.12 or 3.13; another: make PYTHON=/path/to/python serve
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && echo $$python && break; done)
HOST ?= 127.0.0.1
PORT ?= 3000
VENV := .venv
BIN := $(VENV)/bin
DEPLOY := .venv-deploy

# uv installs, where it is there, and else pip. Neither compiles what nothing imports.
UV := $(shell command -v uv)
install = $(if $(UV),uv pip install --python $(1)/bin/python,$(1)/bin/pip install --quiet --no-compile)
INSTALL := $(call install,$(VENV))
# The build of PyTorch: for NVIDIA GPUs where there is one, else the much smaller one for CPUs.
# macOS has one build only. Another: make TORCH_INDEX=https://... serve
CPU_ONLY := $(shell [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null && echo yes)
TORCH_INDEX ?= $(if $(CPU_ONLY),https://download.pytorch.org/whl/cpu)
TORCH = $$(grep '^torch==' requirements/serve.txt)

# Compiled Python is kept, also where the environment says otherwise, as images of containers do:
# without it every process compiles PyTorch and diffusers anew, 9 s of processor time.
unexport PYTHONDONTWRITEBYTECODE

# BentoML reports its use unless this is exactly "True" (in any letter case).
export BENTOML_DO_NOT_TRACK ?= True

.DEFAULT_GOAL := help
.PHONY: help setup serve ray neuron-tools neuron-check test lint format bento bench queue-demo queue-serve load-tools page-tools optional-tools deploy-tools deploy-check deploy-pages audit lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.serve ## create .venv with the pinned packages

serve: $(VENV)/.serve ## serve on port 3000 of this machine (HOST=, PORT=)
	BENTOML_CONFIG=configuration.yaml $(BIN)/bentoml serve service:svc --host $(HOST) --port $(PORT)

ray: $(VENV)/.ray ## the same on Ray Serve: deploy/ray/serve.yaml
	$(BIN)/python -m hosts.ray --host $(HOST) --port $(PORT)

test: $(VENV)/.test ## lint, types and every test
	# lint computes while the others download
	$(MAKE) --no-print-directory -j 4 lint deploy-tools optional-tools
	# much of it waits for others; the order is that of tests/order.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bento: $(VENV)/.serve ## build the Bentos, one per variant
	$(BIN)/bentoml build -f bentofile.yaml .
	$(BIN)/bentoml build -f bentofile.fp16.yaml .
	$(BIN)/bentoml build -f bentofile.neuron.yaml .

bench: $(VENV)/.test ## the comparisons in benchmarks/
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks

queue-demo: $(VENV)/.queue ## the asynchronous queue on this machine, on a stand-in for AWS
	$(BIN)/python -m hosts.queue.local.demo

queue-serve: $(VENV)/.queue ## the same, kept running for curl or a load test
	$(BIN)/python -m hosts.queue.local.serve

load-tools: .venv-load/.tools ## locust in an environment of its own, for benchmarks/locust*.py

page-tools: tests/ui/node_modules/.tools ## axe-core and TypeScript, which check the page in tests

optional-tools: # without locust or npm the tests that need them are skipped, by name
	-@$(MAKE) --no-print-directory load-tools
	-@$(MAKE) --no-print-directory page-tools

deploy-tools: $(DEPLOY)/.tools ## create .venv-deploy with bentoctl, adapted by deploy/tools

deploy-check: $(VENV)/.test $(DEPLOY)/.tools ## every ready deployment, up to apply on a stand-in for AWS
	$(BIN)/python -m deploy.check.manifests
	$(DEPLOY)/bin/python -m deploy.check

deploy-pages: $(VENV)/.test ## write the generated parts of deploy/README.md anew
	PYTHONPATH=deploy/tools:deploy/operators/aws-ec2 $(BIN)/python -m deploy.pages

neuron-tools: .venv-neuron/.done ## optimum-neuron in an environment of its own, to compile and test

neuron-check: neuron-tools ## compile and generate over a stand-in for the Neuron SDK
	PYTHONPATH=tests/neuron/stub .venv-neuron/bin/python -m pytest tests/neuron/compiled

.venv-neuron/.done: requirements/neuron.txt
	$(PYTHON) -m venv .venv-neuron
	.venv-neuron/bin/pip install --quiet $$(grep '^torch==' requirements/neuron.txt)
	.venv-neuron/bin/pip install --quiet -r requirements/neuron.txt
	@touch $@

.venv-load/.tools: requirements/load.txt requirements/constraints.txt
	$(PYTHON) -m venv .venv-load
	$(call install,.venv-load) -c requirements/constraints.txt -r requirements/load.txt
	@touch $@

audit: .venv-audit/.tools ## compare the pinned packages with the advisories that are known
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip -r requirements/constraints.txt

.venv-audit/.tools:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet pip-audit==2.10.1
	@touch $@

tests/ui/node_modules/.tools: tests/ui/package.json tests/ui/package-lock.json
	cd tests/ui && npm ci --no-audit --no-fund
	@touch $@

lock: .venv-lock/.tools ## add to constraints.txt what requirements/ needs on any Python; a line taken out is renewed
	.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  --no-emit-package setuptools -o requirements/constraints.txt requirements/test.txt

.venv-lock/.tools:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet uv==0.13.9
	@touch $@

clean: ## remove the environments and caches
	rm -rf $(VENV) $(DEPLOY) .venv-load .venv-lock .venv-audit .venv-neuron tests/ui/node_modules .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/pip:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11, 3.12 or 3.13 is needed and was not found;" \
	  "try: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version) and $(firstword $(INSTALL)); this takes some minutes"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: $(VENV)/bin/pip requirements/serve.txt requirements/constraints.txt
	@echo "PyTorch $(if $(CPU_ONLY),for CPUs (200 MB),)"
	@# without what it needs, which comes from PyPI, below; uv ends where an index cannot be reached
	$(if $(TORCH_INDEX),$(INSTALL) --no-deps --extra-index-url $(TORCH_INDEX) $(TORCH) ||) \
	  $(INSTALL) --no-deps $(TORCH)
	@echo "The other packages"
	$(INSTALL) -c requirements/constraints.txt -r requirements/serve.txt
	@touch $@

$(VENV)/.ray: $(VENV)/.serve requirements/ray.txt
	$(INSTALL) -c requirements/constraints.txt -r requirements/ray.txt
	@touch $@

$(VENV)/.queue: $(VENV)/.serve requirements/queue-demo.txt
	$(INSTALL) -c requirements/constraints.txt -r requirements/queue-demo.txt
	@touch $@

$(VENV)/.test: $(VENV)/.ray requirements/test.txt requirements/queue-demo.txt
	$(INSTALL) -c requirements/constraints.txt -r requirements/test.txt
	@touch $@

# bentoctl wants rich 12 and an older bentoml: --no-deps, and pip check is not asked.
$(DEPLOY)/.tools: requirements/deploy.txt requirements/deploy-check.txt \
		requirements/deploy-constraints.txt deploy/tools/pyproject.toml
	$(PYTHON) -m venv $(DEPLOY)
	$(call install,$(DEPLOY)) -c requirements/deploy-constraints.txt -r requirements/deploy-check.txt
	$(call install,$(DEPLOY)) --no-deps bentoctl==0.4.0
	$(call install,$(DEPLOY)) --no-deps --no-build-isolation --editable deploy/tools
	@touch $@
