# Lambent: two commands on a fresh machine are `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
RUN    := $(BIN)/python -m

.DEFAULT_GOAL := help
.PHONY: help setup demo up test check bench fuzz chaos fmt docs clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

setup: $(STAMP) ## make the virtual environment (every other target does so by itself)

$(STAMP): pyproject.toml constraints.txt tools/bootstrap.py
	@$(PYTHON) -m tools.bootstrap $(VENV)
	@touch $(STAMP)

demo: setup ## start a server, deploy a function, invoke it, stop again
	@$(RUN) tools.demo

up: setup ## keep a server running; options in ARGS="--port 4567"
	@exec $(BIN)/lambent up $(ARGS)

test: setup ## run every test; options for pytest in ARGS="-k name"
	@$(RUN) tools.run_tests $(ARGS)

check: setup ## style, types, layers, documents
	@$(RUN) tools.check

bench: setup ## measure, against baselines of the same run; options in ARGS="--json"
	@$(RUN) bench $(ARGS)

fuzz: setup ## 20,000 requests made up from the models; SEED=7 for others
	@LAMBENT_FUZZ=20000 LAMBENT_FUZZ_SEED=$(or $(SEED),1) $(BIN)/pytest -s -p no:cacheprovider --timeout 1800 -o faulthandler_timeout=1750 tests/acceptance/test_fuzz.py

chaos: setup ## kill servers 200 times on each store, and once at every named point; ROUNDS=20 SEED=7 for others
	@$(RUN) tools.chaos $(or $(ROUNDS),200) $(SEED)

fmt: setup ## format the code
	@$(BIN)/ruff check -q --fix-only . && $(BIN)/ruff format -q .

docs: setup ## generate docs/parity.md anew
	@$(RUN) tools.parity

clean: ## remove what the other targets made
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
