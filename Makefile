# Everything a developer or a first visitor types. `make` alone prints this list.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Each process of a stack would compile our modules anew; so would each of the many that the tests start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install up demo test faults fuzz check lint types bench-engine bench-registry bench-evaluations bench-optimizers lock clean

help: ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  settings: DB=sqlite|postgres  PORT=8000  WORKERS=2  CONCURRENCY=16  SEED=0  PROMPTMILL_HOME=.promptmill"

$(VENV)/.installed: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Promptmill needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing into $(VENV) from requirements-dev.lock (once)..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: -r requirements-dev.lock
	@touch $@

install: $(VENV)/.installed ## create .venv from the lock file

up: install ## start the whole stack here and stay up      (DB=postgres: embedded PostgreSQL)
	@exec $(BIN)/python -m local up

demo: install ## start everything and optimize one real prompt, with live progress
	@exec $(BIN)/python -m local demo

test: install ## every test, on SQLite and on a real PostgreSQL, with a real Redis
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

faults: install ## kill, stop and starve everything, and count what got lost   (FAULTS=--help; CONTROLS=1)
	@exec $(BIN)/python -m tests.faults $(if $(CONTROLS),--controls) $(FAULTS)

fuzz: install ## ask the API what nobody would ask, by its OpenAPI document   (FUZZ=--help)
	@exec $(BIN)/python -m tests.fuzz $(FUZZ)

check: install lint types test ## lint, types, import rules and tests: what CI runs

lint: install
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: install
	@$(BIN)/mypy

.venv-bench/.installed: requirements-bench.lock
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/pip install -qq --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: -r requirements-bench.lock
	@touch $@

bench-engine: .venv-bench/.installed ## measure the engine beside what else one could use; JSON (BENCH=--help)
	@exec .venv-bench/bin/python -m benchmarks.engine $(BENCH)

.venv-mlflow/.installed: requirements-mlflow.lock
	@$(PYTHON) -m venv .venv-mlflow
	@.venv-mlflow/bin/pip install -qq --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: -r requirements-mlflow.lock
	@touch $@

bench-registry: .venv-bench/.installed .venv-mlflow/.installed ## measure the registry beside MLflow's; JSON (BENCH=--help)
	@$(if $(filter --smoke own,$(BENCH)),true,command -v wrk >/dev/null) || { echo "It needs wrk, which makes the load: apt-get install wrk, or brew install wrk"; exit 1; }
	@exec .venv-bench/bin/python -m benchmarks.registry $(BENCH)

.venv-optimizers/.installed: requirements-optimizers.lock
	@$(PYTHON) -m venv .venv-optimizers
	@.venv-optimizers/bin/pip install -qq --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: -r requirements-optimizers.lock
	@touch $@

benchmarks/promptfoo/node_modules/.installed: benchmarks/promptfoo/package-lock.json
	@cd benchmarks/promptfoo && npm ci --silent --no-audit --no-fund --ignore-scripts --omit=peer
	@touch $@

PEERS := .venv-optimizers/.installed benchmarks/promptfoo/node_modules/.installed
bench-evaluations: .venv-bench/.installed $(if $(filter --smoke,$(BENCH)),,$(PEERS)) ## measure evaluations beside promptfoo and DSPy; JSON (BENCH=--help)
	@exec .venv-bench/bin/python -m benchmarks.evaluations $(BENCH)
bench-optimizers: .venv-bench/.installed .venv-optimizers/.installed ## count the calls of our searches beside gepa's and dspy's; JSON (BENCH=--help)
	@exec .venv-bench/bin/python -m benchmarks.optimizers $(BENCH)

lock: ## write the lock files anew from setup.cfg   (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header setup.cfg -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --extra embedded --extra dev \
		-c requirements.lock setup.cfg -o requirements-dev.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --extra embedded --extra bench \
		-c requirements-dev.lock setup.cfg -o requirements-bench.lock
	echo 'mlflow>=3,<4' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header - -o requirements-mlflow.lock
	printf '%s\n' 'dspy>=3.4,<4' 'gepa' 'optuna>=5,<6' | \
		uv pip compile --universal --python-version 3.11 --generate-hashes --no-header - -o requirements-optimizers.lock

clean: ## remove .venv and local state
	rm -rf $(VENV) .venv-bench .venv-mlflow .venv-optimizers benchmarks/promptfoo/node_modules .promptmill .mypy_cache .ruff_cache .pytest_cache
