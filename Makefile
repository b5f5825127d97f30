# make demo    set up and run the main job on the embedded default
# make test    set up and pass the tests (quick ones; `make test-slow` has the rest)
# make lint    style, types, and the direction of imports
# make fuzz    COUNT=20000 SEED=0 mutated files through every reader
# make graphs  COUNT=10000 SEED=0 random networks in LiteRT's reference kernels beside the oracle; goes on where it was stopped
# make mutants COUNT=150 SEED=0 small faults in a copy of the source: the share that the quick tests notice, per room
# make docs    build the site into site/; a broken link or anchor fails
# make lock    write requirements/: what CI installs, with the hashes of PyPI's files; needs uv (pip install uv)
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

.PHONY: lock demo test test-slow lint fuzz graphs mutants docs wheel audit chaos clean docs-assets screens

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

# torch is left out, and what only its builds for NVIDIA need. The site needs Python 3.11.5.
LOCK = uv pip compile -q pyproject.toml -c constraints.txt --universal --generate-hashes --no-annotate --no-header \
    --no-emit-package torch
WITHOUT_CUDA = awk '/^[a-z]/ {kept = !/^(nvidia-|cuda-|triton=)/} kept'
lock:
	$(LOCK) --python-version 3.11 --extra dev | $(WITHOUT_CUDA) > requirements/dev.txt
	$(LOCK) --python-version 3.11 --extra all -c requirements/dev.txt | $(WITHOUT_CUDA) > requirements/all.txt
	$(LOCK) --python-version 3.11.5 --extra docs -c requirements/dev.txt | $(WITHOUT_CUDA) > requirements/docs.txt

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

# Everything from files with hashes but torch: its wheel for processors alone is not PyPI's. `pip check` says what is missing.
$(VENV)/.dev $(VENV)/.docs: $(VENV)/.%: $(VENV)/bin/python pyproject.toml constraints.txt requirements/%.txt
	$(BIN)/python -m pip install -q --no-deps --require-hashes --only-binary :all: -r requirements/$*.txt
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	touch $@

$(VENV)/.audit: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[audit]'
	touch $@

clean:
	rm -rf $(VENV) build dist out site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
