# `make` lists the targets. PYTHON chooses the interpreter of .venv (3.11 or newer).
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
CORES ?= 2
VENV := .venv
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: help setup quickstart report test test-all check bench bench-finetune \
  bench-models clean-state

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(VENV)/.installed  ## make .venv with everything, development tools included

$(VENV)/.installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; use: make setup PYTHON=..." >&2; exit 64; }
	"$(PYTHON)" -m venv $(VENV) || \
	  { echo "error: no venv module; on Debian: apt-get install python3-venv" >&2; exit 66; }
	$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: setup  ## set up, then everything config/config.yaml selects
	snakemake --cores $(CORES)

report: setup  ## the pages of the last results, ours and Snakemake's own
	snakemake --cores $(CORES) results/7_report/report.html
	snakemake --report results/7_report/snakemake.html

test: setup  ## all tests but slow ones
	python -m pytest -n $(CORES) --dist loadfile

test-all: setup  ## all tests
	python -m pytest -n $(CORES) --dist loadfile -m 'not gpu'

check: setup  ## linters, formatters, types
	ruff check . && ruff format --check .
	snakefmt --check Snakefile workflow
	mypy
	snakemake --lint

bench: setup  ## speed and memory; REFERENCE=path CORPUS=path compare with the reference
	python -m tests.benchmarks.bench $(if $(REFERENCE),--reference "$(REFERENCE)") \
	  $(if $(CORPUS),--corpus "$(CORPUS)")

bench-finetune: setup  ## scores and cost of fine-tuning; DATA=folder REFERENCE=path MODEL=path, hours
	@test -n "$(DATA)" || { echo "error: DATA is missing; a folder for each data set" >&2; exit 64; }
	python -m tests.benchmarks.bench_finetune --data "$(DATA)" --work state/bench-finetune \
	  $(if $(REFERENCE),--reference "$(REFERENCE)") $(if $(MODEL),--model "$(MODEL)")

bench-models: setup  ## speed of the zoo's models beside one another; CORPUS=path
	$(if $(CORPUS),CORPUS="$(CORPUS)") python -m tests.benchmarks.bench_models

clean-state:  ## remove resume points of unfinished training
	rm -rf state
