# Everything a person runs on a fresh Debian machine as root.  Each target installs what it needs.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: install dev demo test check docs bench soak clean

install: $(VENV)/.installed
$(VENV)/.installed: requirements/run.txt pyproject.toml tools/install
	@tools/install run

dev: $(VENV)/.installed-dev
$(VENV)/.installed-dev: requirements/run.txt requirements/dev.txt pyproject.toml tools/install
	@tools/install dev

demo: install
	@$(VENV)/bin/svcplane lab demo $(if $(KEEP),--keep)

check: dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache
	$(PY) -m pytest -q -n 2 tests/unit tests/matrix tests/upgrade

test: check
	$(PY) -m pytest -q -n 2 tests/property tests/contract
	$(PY) -m pytest -q tests/wire tests/bench
	$(PY) -m pytest -q tests/golden
	$(PY) -m pytest -q tests/kernel
	$(PY) -m pytest -q tests/browser
	$(PY) -m pytest -q tests/docs

docs: dev
	$(PY) -m tools.docs

soak: dev
	SVCPLANE_STATES=500 $(PY) -m pytest -q tests/kernel/test_random_states.py tests/kernel/ipvs/test_ipvs_states.py

bench: dev
	$(PY) -m benchmarks $(GROUPS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
