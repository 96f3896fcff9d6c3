# The commands of this project. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BUILD := .build
PYTHON ?= python3
UV := $(BUILD)/uv/bin/uv
UV_VERSION := 0.13.9
VENV := .venv
RUN := $(VENV)/bin
# Packages of environments: for the tests and the benchmarks.
ENVIRONMENTS := --extra atari --extra box2d --extra minatar --extra mujoco --extra envpool
export PATH := $(CURDIR)/$(BUILD)/bin:$(PATH)

-include mk/*.mk

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# ---- Python -------------------------------------------------------------------------------------------------------

$(UV): ## uv, from PyPI into a folder of its own
	@echo "Installing uv $(UV_VERSION) into $(BUILD)/uv"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed, this is " + sys.version)'
	@if ! $(PYTHON) -m venv $(BUILD)/uv 2>/dev/null; then \
	  echo "python3 -m venv does not work here: installing the system package python3-venv"; \
	  apt-get install -y python3-venv && $(PYTHON) -m venv --clear $(BUILD)/uv; fi
	@$(BUILD)/uv/bin/pip install --quiet uv==$(UV_VERSION)

$(VENV)/.installed: uv.lock pyproject.toml | $(UV)
	$(UV) sync --frozen --all-groups --extra operator --extra trainer --extra search --extra export --extra plot $(ENVIRONMENTS) --python $(PYTHON)
	@touch $@

.PHONY: venv
venv: $(VENV)/.installed ## Install everything that developing needs into .venv

# ---- Checks -------------------------------------------------------------------------------------------------------

.PHONY: format
format: venv ## Format the code
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

.PHONY: generate
generate: venv ## Write crds/, the chart's CRDs, docs/reference.md and docs/cli.md from the code
	$(RUN)/python -m hack.generate

.PHONY: verify
verify: venv tools ## Lint, types, layers, generated files, chart
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy rltrainer operator hack tests benchmarks
	$(RUN)/lint-imports
	$(RUN)/python -m hack.generate --check
	$(UV) lock --check
	helm lint --strict --quiet charts/rl-operator
	$(RUN)/python -m hack.check_chart

.PHONY: test-unit
test-unit: venv ## Tests that need no cluster: units, short learning runs
	$(RUN)/pytest tests/unit tests/learning tests/soak -q

.PHONY: test-contract
test-contract: venv tools ## Tests against a real S3 server started for them
	$(RUN)/pytest tests/contract -q

.PHONY: test-e2e
test-e2e: venv deploy ## Tests on the real cluster
	$(RUN)/pytest tests/e2e -q

.PHONY: test
test: verify deploy ## Everything: checks, units, contracts, and the real cluster
	$(RUN)/pytest tests --durations=30

.PHONY: learning
learning: venv ## Every algorithm on its reference tasks over several seeds: hours; goes on where it was stopped
	$(RUN)/python -m benchmarks.learning

.PHONY: soak
soak: venv ## kill -9 at 200 random instants over all algorithms: each run that goes on equals one that was not killed
	RLTRAINER_KILLS=200 $(RUN)/pytest tests/soak -q

.PHONY: bench
bench: venv ## Our speed beside other libraries and beside the limit, row by row; goes on where it was stopped
	$(RUN)/python -m benchmarks.speed

.PHONY: profile
profile: venv ## Where the time of each algorithm goes
	$(RUN)/python -m benchmarks.profile

# ---- What a person runs ---------------------------------------------------------------------------------------------

.PHONY: quickstart
quickstart: venv ## Train CartPole on this machine, without Kubernetes, and roll the policy out
	$(RUN)/rltrainer train -f examples/cartpole-ppo.yaml --local-dir $(BUILD)/results
	$(RUN)/rltrainer rollout $(BUILD)/results/cartpole-ppo --episodes 10

.PHONY: deploy
deploy: cluster images venv ## Install the operator's chart on the cluster of `make cluster`
	$(RUN)/python -m hack.deploy

.PHONY: demo
demo: deploy ## From nothing to a trained policy on Kubernetes, its checkpoints in S3, and its rollout
	$(RUN)/python -m hack.demo

.PHONY: clean
clean: ## Remove what was built in this checkout
	rm -rf $(BUILD) $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
