# Two commands matter: `make demo` and `make test`. Both set up what they need. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# Everything that is fetched or built lives here, outside the tree; `make distclean` empties it.
export DSPY_OPERATOR_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dspy-operator
# uv, where `scripts/setup` had to install it.
export PATH := $(DSPY_OPERATOR_CACHE)/uv/bin:$(PATH)
RUN := .venv/bin

.PHONY: help setup check test e2e test-long demo demo-local images load cluster cluster-test clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: ## install uv where it is missing, then everything else into .venv
	@scripts/setup

check: setup ## format, lint, types, layers, unit tests: seconds
	@$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/python -m pytest tests/unit -q -n $(or $(WORKERS),auto)

test: setup ## everything: checks, all tests with coverage, end to end in a cluster; acceptance counts as a seeded slice
	@scripts/test

e2e: setup ## the end-to-end tests alone: a cluster, the operator, its pods, DSPy, Ollama and a model
	@$(RUN)/python -m pytest e2e/tests -v

test-long: setup ## the acceptance counts in full: hundreds of kill points and faults; resumable, results in build/acceptance
	@DSPY_OPERATOR_LONG=1 $(RUN)/python -m pytest tests/integration tests/fuzz tests/controlplane -q -n $(or $(WORKERS),auto)
	$(RUN)/python -m tests.perf.gate_simulation

demo: setup ## the main job for real: a cluster, the operator, a small model, a judged result; 18 minutes the first time, then 11 to 25
	@$(RUN)/python -m e2e.demo $(ARGS)

demo-local: setup ## a real small model, real text, a better prompt with proof; no cluster
	@$(RUN)/python -m e2e.localmodel demo

images: setup ## the product's two images, operator and runner: one to two minutes the first time, then seconds
	@$(RUN)/python -m e2e.cluster images

load: setup ## the same, into the cluster
	@$(RUN)/python -m e2e.cluster load

cluster: setup ## a kind cluster with storage, a model registry, our fixtures and images, from nothing: 10 to 20 minutes the first time, then one
	@$(RUN)/python -m e2e.cluster up

cluster-test: cluster ## prove what the end-to-end tests need of it
	@$(RUN)/python -m e2e.cluster test

clean: ## remove the cluster, results and test output; the caches stay
	@if [ -d "$$DSPY_OPERATOR_CACHE/cluster" ]; then python3 -m e2e.cluster down; fi
	rm -rf out build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## and the caches: .venv, downloaded models and tools, built programs, the Docker daemon that we started
	@if [ -d "$$DSPY_OPERATOR_CACHE/cluster" ]; then python3 -m e2e.cluster distclean; fi
	rm -rf .venv "$$DSPY_OPERATOR_CACHE"
