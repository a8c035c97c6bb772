PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OUT ?= studies/faces
KILLS ?= 20
CALLS ?= 20
IMAGES ?= 500
MODELS ?= 200
WEIGHTS ?= 100
RECORDS ?= 40
DISKS ?= 10
REQUESTS ?= 100
MINUTES ?= 30
SEED ?= 0
CAMPAIGN ?= campaign.json

.PHONY: study test test-browser test-slow test-times docs lint format pins dist campaign clean

## study: make the environment and find a network for the embedded faces, in some five minutes
study: $(INSTALLED)
	$(BIN)/secateurs study faces --backbones squeezenet1_1,tf_efficientnet_lite0 --epochs 4 --runs 1 --calibration 128 --out $(OUT)

## test: make the environment and run the tests, but for those that need a browser or minutes
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not browser"

## test-browser: run the tests that drive headless Chromium
test-browser: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -rs -m "browser and not slow"

## test-slow: run the tests that take minutes
test-slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

## test-times: run the tests of make test and print the processor time of folders, files and tests
test-times: $(INSTALLED)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not browser" \
		-p processor_time

## docs: make the environment and build the site into site/, where every warning is an error
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

## pins: check on an index that constraints.txt installs on the lowest and the newest Python
pins: $(INSTALLED)
	$(BIN)/python .ci/check_pins.py

## dist: build dist/*.whl and dist/*.tar.gz
dist: $(INSTALLED)
	rm -rf build dist
	$(BIN)/python -m build --quiet --outdir dist .

## campaign: fault injection, bounded by KILLS, CALLS, IMAGES, ... and MINUTES (see docs/reliability.md)
campaign: $(INSTALLED)
	$(BIN)/python benchmarks/campaign --kills $(KILLS) --calls $(CALLS) --images $(IMAGES) \
		--models $(MODELS) --weights $(WEIGHTS) --records $(RECORDS) --disks $(DISKS) \
		--requests $(REQUESTS) --minutes $(MINUTES) --seed $(SEED) --json $(CAMPAIGN)

## lint: formatting, lint and strict types
lint: $(INSTALLED)
	$(BIN)/ruff format --check src tests benchmarks examples docs .ci setup.py
	$(BIN)/ruff check src tests benchmarks examples docs .ci setup.py
	$(BIN)/basedpyright

## format: rewrite files as lint wants them
format: $(INSTALLED)
	$(BIN)/ruff format src tests benchmarks examples docs .ci setup.py
	$(BIN)/ruff check --fix src tests benchmarks examples docs .ci setup.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Secateurs needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) build dist src/*.egg-info
