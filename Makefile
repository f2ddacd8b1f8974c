# Every target sets up what it needs on a fresh machine: a virtual environment in .venv, and for tests and
# benchmarks the Debian packages they speak to (installed when make runs as root, named when it does not).

PYTHON ?= python3
VENV   ?= .venv
CONFIG ?= zapd.toml
WORKERS ?= 4

BIN := $(VENV)/bin
TEST_PACKAGES  := postgresql slapd ldap-utils openssl libpam-pwdfile libpam-wrapper libczmq-dev libzmq3-dev libsodium-dev pkg-config gcc curl \
                  krb5-kdc krb5-admin-server krb5-user libkrb5-dev python3-dev libfaketime
BENCH_PACKAGES := libczmq-dev libzmq3-dev libsodium-dev pkg-config gcc libc6-dev

.DEFAULT_GOAL := help
.PHONY: help serve demo test coverage faults soak lint format bench clean packages-test packages-bench

help:  ## what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/.server  ## run zapd here; the first time, write a configuration
	@test -e '$(CONFIG)' || test '$(notdir $(CONFIG))' = zapd.toml || \
	    { echo "there is no $(CONFIG), and what is written for you is called zapd.toml: make serve CONFIG=DIR/zapd.toml" >&2; exit 2; }
	@test -e '$(CONFIG)' || $(BIN)/zapd init '$(dir $(abspath $(CONFIG)))'
	exec $(BIN)/zapd serve -c '$(CONFIG)'

demo: $(VENV)/.server  ## watch zapd admit one client, refuse another, and revoke the first
	exec $(BIN)/zapd demo

test: packages-test lint $(VENV)/.kerberos  ## everything that CI runs: format, lint, types, layers, tests
	@sh scripts/test.sh '$(BIN)/python' '$(WORKERS)' $(PYTEST)

coverage: packages-test $(VENV)/.dev $(VENV)/.kerberos  ## the tests once more, slower, and what they leave out: of the engine nothing
	$(BIN)/python -m pytest -q tests/zmtp --cov=zapd/zmtp --cov-report=term --cov-fail-under=100
	@sh scripts/test.sh '$(BIN)/python' '$(WORKERS)' --cov --cov-report=term $(PYTEST)

faults: packages-test $(VENV)/.dev $(VENV)/.kerberos  ## every backend broken in every way, as a table
	FAULT_SECONDS=2 $(BIN)/python -m pytest -q tests/backends/test_backend_faults.py

soak: packages-test $(VENV)/.dev  ## a fleet's long day in ten minutes, with attackers and operators, as a table
	SOAK_SECONDS=600 $(BIN)/python -m pytest -q tests/hostile/test_hostile_soak.py

lint: $(VENV)/.dev  ## formatter, linter, types, layers; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## write the sources as the formatter wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: packages-bench $(VENV)/.dev  ## zapd against other ways to answer ZAP, in one run on this machine
	$(BIN)/python -m bench $(or $(BENCH),all)

clean:  ## remove what was built; configuration and data stay
	rm -rf build dist htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache bench/out
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

packages-test:
	@sh scripts/packages.sh 'the tests against real servers' $(TEST_PACKAGES)

packages-bench:
	@sh scripts/packages.sh 'the benchmark' $(BENCH_PACKAGES)

# --- the virtual environment: a stamp for each set of packages, made again when pyproject.toml changes ------

$(BIN)/python:
	@sh scripts/venv.sh '$(PYTHON)' '$(VENV)'

$(VENV)/.server: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.server

# There is no wheel of gssapi: it is built, where what that takes is there. Only the tests of Kerberos miss it.
$(VENV)/.kerberos: pyproject.toml | packages-test $(VENV)/.dev
	@if command -v krb5-config >/dev/null; then \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[kerberos]' && touch $@; \
	fi
