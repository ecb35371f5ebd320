# The commands people type. Each target below with a `##` comment shows up in `make help`.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check slow bench clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo:  ## the whole system on this machine: install, train, sign, roll out, predict (ARGS="--help" for options)
	@$(PYTHON) appliance/bootstrap.py --demo
	@$(BIN)/falaj demo $(ARGS)

test:  ## everything a change must pass: set-up, checks, all tests that are not slow
	@$(PYTHON) appliance/bootstrap.py --dev
	@$(MAKE) --no-print-directory check
	$(BIN)/python -P -m pytest -q -n auto --dist loadfile -m "not slow" $(ARGS)

check:  ## the house rules alone: style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

slow:  ## the tests that take long (a quarter of an hour on 2 cores)
	@$(PYTHON) appliance/bootstrap.py --dev --demo
	$(BIN)/python -P -m pytest -q -n auto --dist loadfile -m slow $(ARGS)

bench:  ## the demo and the evidence, timed; each other file of benchmarks/ says how it is run
	@$(PYTHON) appliance/bootstrap.py --dev
	@for file in benchmarks/bench_*.py; do [ -e "$$file" ] || continue; echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

clean:  ## remove the environment, caches and the demo's state
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .falaj-demo *.egg-info build
	find core edge sync appliance tests -name __pycache__ -type d -prune -exec rm -rf {} +
