# make demo   sets everything up and shows a filter on moving pictures
# make test   sets everything up and runs every check (WORKERS=4: tests in four processes)
# make acceptance   a real camera and virtual camera in a virtual machine (slow)

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test check bench acceptance clean

demo: $(VENV)/.demo
	@$(BIN)/pix2live demo

test: $(VENV)/.test
	@VENV=$(VENV) sh tests/system_packages.sh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.queues
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.people_do_today
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.engines
	$(BIN)/python -m benchmarks.conversion
	$(BIN)/python -m benchmarks.learning
	$(BIN)/python -m benchmarks.streams
	$(BIN)/python -m benchmarks.browser

acceptance:
	bash tests/acceptance/run.sh

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "pix2live needs Python 3.10 or newer: make PYTHON=python3.11 demo"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "on Debian and Ubuntu: sudo apt-get install -y python3-venv"; exit 1; }

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "setting up $(VENV) (once)"
	$(PIP) --editable '.[demo]'
	@VENV=$(VENV) sh tests/system_packages.sh opencv
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[demo,test]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
