# `make bench` and `make test` do everything on a fresh machine with Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUITE ?= embedded
RESULTS ?= runs
BOARD ?= board
EXTRAS ?=
JOBS ?=
PERF_STORE ?= $(RESULTS)/perf
RUN_FLAGS ?=

.PHONY: help setup bench board reference steps test perf lint support atlas weights clean

help:
	@echo "make bench [SUITE=embedded]  install, run a suite into ./$(RESULTS), build the board and print its path"
	@echo "make board                   build the board of ./$(RESULTS) again"
	@echo "make test / make lint        install and run the tests / the linters"
	@echo "make perf                    time steps, harness, start-up and board as ratios; stored in ./$(PERF_STORE)"
	@echo "make reference               the committed records of the embedded suites and of efficiency"
	@echo "make steps                   the committed training-step times of every method on ViT-B/16"
	@echo "make support                 the table of methods and backbone families, methods/BACKBONES.md"
	@echo "make atlas / make weights    rebuild the embedded sprites / backbones from scratch (needs npm / hours)"
	@echo "make setup EXTRAS=all        install with optional dependencies"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "peftmark needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)

# One stamp a set of extras: an installation is repeated when the declared dependencies change.
$(VENV)/.installed-%: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".$(if $(filter base,$*),,[$*])"
	@touch $@

setup: $(VENV)/.installed-$(if $(EXTRAS),$(EXTRAS),base)

bench: $(VENV)/.installed-base
	$(BIN)/peftmark run --suite $(SUITE) --results $(RESULTS) $(if $(JOBS),--jobs $(JOBS)) $(RUN_FLAGS); status=$$?; \
	[ $$status -gt 1 ] || $(BIN)/peftmark board --results $(RESULTS) --out $(BOARD) || status=$$?; exit $$status

board: $(VENV)/.installed-base
	$(BIN)/peftmark board --results $(RESULTS) --out $(BOARD)

reference: $(VENV)/.installed-base
	$(BIN)/peftmark run --suite embedded --seed 0 --seed 1 --seed 2 --no-predictions --results results/records/embedded $(RUN_FLAGS)
	$(BIN)/peftmark run --suite embedded-full --no-predictions --results results/records/embedded-full $(RUN_FLAGS)
	$(BIN)/peftmark run --suite embedded-openvocab --no-predictions --results results/records/embedded-openvocab $(RUN_FLAGS)
	$(BIN)/peftmark run --suite embedded-video --no-predictions --results results/records/embedded-video $(RUN_FLAGS)
	$(BIN)/peftmark run --suite embedded-tuned --no-predictions --results results/records/embedded-tuned $(RUN_FLAGS)
	$(BIN)/peftmark run --suite efficiency --results results/records/efficiency $(RUN_FLAGS)

steps: $(VENV)/.installed-base
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.steps --out results/records/steps/vit_base_patch16_224.csv

# malloc keeps what large models of tests had, up to 32 MiB apiece, unless it is told a threshold that stays.
test: $(VENV)/.installed-test
	HF_HUB_OFFLINE=1 MALLOC_MMAP_THRESHOLD_=1048576 $(BIN)/python -m pytest -c tests/pytest.ini --rootdir tests tests $(PYTEST_FLAGS)

# Ratios only, against the last run stored there: a slow result is printed, not an error.
perf: $(VENV)/.installed-test
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -c tests/perf/pytest.ini --rootdir tests/perf tests/perf \
	--benchmark-storage='file://$(PERF_STORE)' --benchmark-autosave $(PERF_FLAGS)

lint: $(VENV)/.installed-lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --config setup.cfg
	mkdir -p $(VENV)/source && ln -sfn ../.. $(VENV)/source/peftmark
	MYPYPATH=$(VENV)/source $(BIN)/mypy --config-file setup.cfg --package peftmark

support: $(VENV)/.installed-base
	$(BIN)/python -m peftmark.benchmark.support

atlas: $(VENV)/.installed-embedded
	$(BIN)/python -m tools.build_atlas

weights: $(VENV)/.installed-embedded
	$(BIN)/python -m tools.pretrain --out $(RESULTS)/pretraining --install

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .import_linter_cache
