# make demo    the main job on handwritten digits: ranking, fine-tuning, adaptation, a proven ONNX file, a run card
# make test    the whole test suite           make test-fast   its fast part (two minutes)
# make check   lint, types, import layers     make bench       what the measured figures in README.md come from
# make ui      a Prefect server with a worker on this machine, with the deployments of deployments/prefect.yaml
# make clean   remove .venv, caches and the default run store

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# The build of the editable package takes its tools from the same list (older pip: first name, newer pip: second).
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Threads of torch that spin while they wait make busy machines crawl.
export OMP_WAIT_POLICY ?= PASSIVE

# Two test processes: much of the suite waits for commands and servers that it started.
WORKERS ?= -n 2 --dist worksteal
# The published LogME that ours is timed against; of it only one module is loaded, so nothing it needs comes along.
RIVAL := .venv/rival
# Other packages for domain adaptation, that ours is timed against: without what they ask for that is here, or not needed.
RIVALS := .venv/adaptation_rivals
# A stranger's plugin, for the networks that timm has no name for; beside the environment, not in it.
EXAMPLE := .venv/example_plugin

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check bench ui clean

help:
	@sed -n '/^# make/s/^# //p' Makefile

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "tlcore needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1)."; \
	  echo "Name another one: make PYTHON=python3.12 demo"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP)
	@$(BIN)/tlcore demo

# Where no bytecode is kept, every process of the tests compiles tlcore and its tests anew.
test test-fast: export PYTHONDONTWRITEBYTECODE :=

test: $(STAMP)
	$(BIN)/python -m pytest -q $(WORKERS)

test-fast: $(STAMP)
	$(BIN)/python -m pytest -q -m "not slow" $(WORKERS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict tlcore
	$(BIN)/lint-imports

bench: $(STAMP) $(RIVAL) $(RIVALS) $(EXAMPLE)
	$(BIN)/python -m benchmarks --rival $(RIVAL) --adaptation-rivals $(RIVALS) --plugin $(EXAMPLE)

$(RIVAL): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps --target $@ transformer-ranker==0.2.0
	@touch $@

$(RIVALS): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps --target $@ skada==0.6.0 POT==0.9.7.post1 skorch==1.4.0 \
	  pytorch-adapt==0.0.83 pytorch-metric-learning==2.9.0 torchmetrics==1.9.0 lightning-utilities==0.15.3 \
	  pandas==3.1.1 python-dateutil six tabulate
	@touch $@

$(EXAMPLE): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps --target $@ tests/example_plugin
	@touch $@

ui: $(STAMP)
	$(BIN)/python deployments/ui.py

clean:
	rm -rf .venv .tlcore .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
