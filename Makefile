# make reproduce   install, get MNIST, run the main job and print it beside the paper's Table 1
# make test        install and run the tests
# make docs        build the pages into docs/_build/html
# make docs-check  run every code block of the pages and the README, minutes
# make package-check  build the wheel, train with it and run the README's example in a fresh environment
# make report     write the pages of results/ and the README's tables from the records, and draw the figures
# make benchmark   time an iteration beside stock Chainer and, with PEERS, PyTorch and JAX
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# What is imported is compiled once, and not by each of the many processes anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install data reproduce report test pytest docs docs-check package-check benchmark lint clean

install: $(INSTALLED)

# Chainer's setup script needs pkg_resources, which setuptools 81 dropped, so it is built with the
# setuptools of the environment instead of a newer one in isolation.  Python compiles what is
# imported, at its first import; pip would compile all that is there, which takes half of its time.
$(INSTALLED): requirements.txt setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile "setuptools<81" wheel
	$(BIN)/python -m pip install --quiet --no-compile --no-build-isolation -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-compile --no-build-isolation --no-deps --editable .
	touch $(INSTALLED)

data: install
	$(BIN)/python -m reproduce data mnist

reproduce: data
	$(BIN)/python -m reproduce quick unit-selection

report: install
	$(BIN)/python -m reproduce report
	$(BIN)/python -m reproduce.readme

# mypy takes a quarter of a minute of one core, and the tests go on beside it.
test: data
	$(MAKE) --no-print-directory --jobs 2 lint pytest

pytest:
	$(BIN)/python -m pytest

docs: install
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

docs-check: data
	$(BIN)/python -m tests.docs

package-check:
	tests/check_package.sh $(PYTHON)

# PEERS=/path/to/python names an environment with torch and jax; CHECK=1 fails on a missed figure;
# DEVICE=0 times the GPU's side.
benchmark: install
	$(BIN)/python -m benchmarks $(if $(PEERS),--peers $(PEERS)) $(if $(CHECK),--check) $(if $(DEVICE),--device $(DEVICE))

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) docs/_build docs/reference/api docs/reference/internals docs/results build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
