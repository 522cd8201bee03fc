# Each target is what one wish takes; `make` alone prints them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STATE ?= .state
ARGS ?=
HOURS ?= 0.1
SECONDS ?=
TIMES ?= 1
STAMP := $(VENV)/.installed
SERVER_STAMP := $(VENV)/.installed-server
# Tests are checked for what their types say, but need not say them all.
TEST_TYPES := --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls --implicit-reexport \
	--disable-error-code=var-annotated --disable-error-code=func-returns-value --disable-error-code=redundant-expr

.DEFAULT_GOAL := help
.PHONY: help up setup fix lint test unit chaos bench docs clean

help: ## print this
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(SERVER_STAMP) ## run a control plane on SQLite and a local agent (STATE=folder, ARGS='options of edgeplane up')
	@exec $(BIN)/edgeplane up --state-dir "$(STATE)" $(ARGS)

setup: $(STAMP) ## make the virtual environment with everything in it

# What it takes to run; nothing is fetched again where everything is there already.
$(SERVER_STAMP): pyproject.toml constraints.txt
	$(call install,server)
	@touch $@

$(STAMP): pyproject.toml constraints.txt
	$(call install,server$(COMMA)dev)
	@touch $@ $(SERVER_STAMP)

COMMA := ,
# What is no whole environment of its own (its making was broken off) is made anew before pip is let loose.
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: Python 3.11 or later is needed, this is " + sys.version.split()[0])'
@echo "installing into $(VENV), which takes about half a minute ..."
@$(BIN)/python -c 'import sys, pip; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]'
endef

fix: $(STAMP) ## format, and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP) ## format, lint, types, directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy $(TEST_TYPES) tests
	$(BIN)/lint-imports

test: lint ## lint and the whole suite, on SQLite and on a real MariaDB and Redis
	@scripts/servers
	$(BIN)/pytest

unit: $(STAMP) ## the fast tests only
	$(BIN)/pytest tests/unit tests/property

chaos: $(STAMP) ## every crash point, then random schedules (HOURS=2, SECONDS=90), or one of them again (SEED=12345)
	@scripts/servers
ifdef SEED
	@cd tests && PYTHONUNBUFFERED=1 ../$(BIN)/python -m chaos --seed $(SEED) --times $(TIMES)
else
	$(BIN)/pytest tests/chaos --deselect tests/chaos/test_schedules.py::test_three_hundred_random_schedules
	@cd tests && ../$(BIN)/python -m chaos $(if $(SECONDS),--seconds $(SECONDS),--hours $(HOURS))
endif

bench: $(STAMP) ## all that is measured, on SQLite and MariaDB: about half an hour
	@scripts/servers
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.fleet
	$(BIN)/python -m benchmarks.idle
	$(BIN)/python -m benchmarks.store_rates
	$(BIN)/python -m benchmarks.lists
	$(BIN)/python -m benchmarks.peers

docs: $(STAMP) ## write the generated pages anew
	$(BIN)/python scripts/generate_docs.py

clean: ## remove what the targets made, but not .state
	rm -rf $(VENV) .venv-peers .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
