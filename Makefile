# make demo     train a small network on real images and draw what happened (QUICK=1: a shorter run)
# make test     the test suite
# make bench    the engine against peers, backpropagation and its limits (FABRICPC=python DEEPITY=python name theirs)
# make lint     ruff (faults and format), and mypy --strict on pcgraph/
# make docs     these pages as HTML, in docs/_build/html; any warning is an error
# make venv     .venv alone;  make clean  removes it and the caches
#
# All that is needed beforehand is Python 3.11 or newer:  make demo PYTHON=python3.12  names another one.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Every installation is held to the versions that the tests ran with.
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt
JOBS ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint docs venv clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.installed
	@$(VENV)/bin/pcgraph demo $(if $(QUICK),--quick)

test: $(VENV)/.installed-test
	$(RUN) -m pytest -n $(JOBS)

bench: $(VENV)/.installed
	$(RUN) -m benchmarks $(if $(FABRICPC),--fabricpc $(FABRICPC)) $(if $(DEEPITY),--deepity $(DEEPITY)) $(BENCH)

lint: $(VENV)/.installed-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

docs: $(VENV)/.installed-docs
	@$(RUN) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Pages: docs/_build/html/index.html"

venv: $(VENV)/.installed

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "pcgraph needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing)." >&2; \
	  echo "Name another one, for example: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python's venv module is missing. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# The stamps make both steps run again when what is to be installed has changed, and only then.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing pcgraph and what it needs into $(VENV); torch is large, so this can take some minutes"
	@$(INSTALL) -e ".[all]"
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing the test tools into $(VENV)"
	@$(INSTALL) -e ".[test]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@echo "Installing the documentation tools into $(VENV)"
	@$(INSTALL) -e ".[docs]"
	@touch $@

clean:
	rm -rf $(VENV) docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pcgraph tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
