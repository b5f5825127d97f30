# make demo    set up and run the main job on the embedded default
# make test    set up and pass the tests (quick ones; `make test-slow` has the rest)
# make lint    style, types, and the direction of imports
# make fuzz    COUNT=20000 SEED=0 mutated files through every reader
# make graphs  COUNT=10000 SEED=0 random networks in LiteRT's reference kernels beside the oracle; goes on where it was stopped
# make mutants COUNT=150 SEED=0 small faults in a copy of the source: the share that the quick tests notice, per room
# make docs    build the site into site/; a broken link or anchor fails
# make audit   compare the pinned libraries with the published vulnerabilities; what was not reached is listed as skipped
# make chaos   exports that are killed, interrupted, started twice, on full disks, and what breaks beside them: nothing is half-written
# make docs-assets  make the example report and the pictures in the docs anew; needs Chromium
# make screens  FOLDER=screens  pictures of the terminal and of the report, to look at; needs Chromium
# make wheel   build the wheel, install it in a clean environment, run edgecnn from outside the repository

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

SEED ?= 0
FOLDER ?= screens
fuzz: COUNT ?= 20000
graphs: COUNT ?= 10000
mutants: COUNT ?= 150
mutants: CACHE ?= $(HOME)/.cache/edgecnn-mutants

.PHONY: demo test test-slow lint fuzz graphs mutants docs wheel audit chaos clean docs-assets screens

demo: $(VENV)/.user
	$(BIN)/edgecnn export mobilenet_v2_0.35_96 --target tflite --quantize int8 \
	    --weights demo --calibration demo --data demo --max-drop 1 --min-agreement 97 -o out/demo

test: $(VENV)/.dev
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.dev
	$(PYTEST) -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(VENV)/.dev
	cd tests && OMP_NUM_THREADS=1 PYTHONPATH=.:graph $(abspath $(BIN))/python -m fuzz --count $(COUNT) --seed $(SEED)

graphs: $(VENV)/.dev
	cd tests && OMP_NUM_THREADS=1 PYTHONPATH=.:graph $(abspath $(BIN))/python -m fuzz.networks --count $(COUNT) \
	    --seed $(SEED) --keep ../out/graphs-$(SEED).jsonl

mutants: $(VENV)/.dev
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m mutants --count $(COUNT) --seed $(SEED) --cache $(CACHE)

docs-assets: $(VENV)/.dev
	$(BIN)/python docs/scripts/terminal.py
	$(BIN)/python docs/scripts/assets.py

screens: $(VENV)/.dev
	$(BIN)/python docs/scripts/screens.py $(FOLDER)

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

audit: $(VENV)/.audit
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip

chaos: $(VENV)/.dev
	$(BIN)/python benchmarks/chaos.py

wheel: $(VENV)/.dev
	sh tests/wheel.sh $(abspath $(BIN))/python

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.user: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[tflite]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	touch $@

$(VENV)/.audit: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[audit]'
	touch $@

clean:
	rm -rf $(VENV) build dist out site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
