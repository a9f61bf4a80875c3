# Needs Python 3.11 to 3.13 and make. Everything is installed into .venv, in the versions of
# .ci/constraints.txt; `make PYTHON=/path/to/python3.12 venv` chooses another Python.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	if $$python -c '$(SUPPORTED)' 2>/dev/null; then echo $$python; break; fi; done)

BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help venv demo test lint test-slow bench clean

help:
	@echo 'make venv       install into .venv (once: a few minutes, 6 GB)'
	@echo 'make demo       the whole pipeline on drawn scenes, results in ctc-demo/'
	@echo 'make test       ruff format, ruff check, mypy, pytest: what .ci/run runs'
	@echo 'make lint       the same without pytest'
	@echo 'make test-slow  the tests that take minutes'
	@echo 'make bench      measure, and print the tables'
	@echo 'make clean      delete .venv, caches, ctc-demo/'

venv: $(STAMP)

$(STAMP): pyproject.toml .ci/constraints.txt
	@if [ ! -x $(BIN)/python ]; then \
		if ! '$(PYTHON)' -c '$(SUPPORTED)' 2>/dev/null; then \
			echo 'No Python 3.11, 3.12 or 3.13 with the modules venv and ensurepip was found.' >&2; \
			echo "python3 is: $$(command -v python3 || echo missing) $$(python3 --version 2>&1 || true)" >&2; \
			echo 'Debian, Ubuntu: apt install python3-venv; or make PYTHON=/path/to/python3.12 venv' >&2; \
			exit 1; fi; \
		echo "venv: making .venv with $$('$(PYTHON)' --version)"; \
		'$(PYTHON)' -m venv .venv; \
	elif ! $(BIN)/python -c '$(SUPPORTED)' 2>/dev/null; then \
		echo 'The Python of .venv does not run, or is none of 3.11 to 3.13: make clean, then again.' >&2; \
		exit 1; fi
	@echo 'venv: installing the package and its tools (once: a few minutes, 6 GB)'
	@PYTHONUNBUFFERED=1 $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
		-c .ci/constraints.txt -e '.[dev]' | awk ' \
		/^ *(Downloading|Using cached) .*\(([0-9][0-9][0-9.]* MB|[0-9.]+ GB)\)/ { sub(/^ */, "venv:   "); print; fflush() } \
		/^Installing collected/ { print "venv:   unpacking"; fflush() }'
	@touch $@
	@echo 'venv: ready'

demo: venv
	$(BIN)/ctc demo

lint: venv
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# Starting Ray is mostly waiting, so the tests that need it run beside the others. Threads of PyTorch
# that wait for one another must not keep a CPU busy that the others need.
test: export OMP_WAIT_POLICY = passive
test: lint
	@echo 'pytest -m ray runs beside pytest -m "not ray"; its output comes last'
	@trap 'kill $$! 2>/dev/null' INT TERM; \
		$(BIN)/pytest -m 'ray and not gpu and not slow' --durations=15 -p no:cacheprovider > .pytest-ray.log 2>&1 & \
		ray=$$!; failed=0; \
		$(BIN)/pytest -m 'not ray and not gpu and not slow' --durations=15 || failed=$$?; \
		wait $$ray || failed=$$?; \
		cat .pytest-ray.log; rm -f .pytest-ray.log; exit $$failed

test-slow: venv
	$(BIN)/pytest -m 'slow and not gpu'

bench: venv
	@for script in tests/benchmarks/bench_*.py; do echo "bench: $$script"; PYTHONPATH=tests $(BIN)/python "$$script"; done

clean:
	rm -rf .venv build dist ctc-demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
