# tailfocus: `make` lists the targets. Each makes the environment it needs on first use, and again
# when a pin file changes.

# The interpreter that makes the environment, the environment's folder (no spaces), and, when set,
# the index that torch and torchvision are taken from on the first install: a CPU-only one spares
# the CUDA packages.
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
# Processes that share the tests, each with a gigabyte of memory.
JOBS ?= 2
# Passed on by `make train` and `make sweep`: YAML files, key=value pairs, options.
ARGS ?=
# The sweep that `make sweep` makes, and the study that `make dashboard` shows.
SWEEP ?= experiments/digits_lt.yaml --search experiments/search/softmax_focal.yaml --workers 2
STUDY ?= runs/digits-softmax_focal

python := $(VENV)/bin/python
# One thread a process: two that share their cores' threads stall each other.
# The files go in the order of tests/conftest.py, the longest first.
pytest = OMP_NUM_THREADS=1 $(python) -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder
# $(call pip_install,WORDS): a line for each download of a megabyte or more, so that minutes are not
# silent. The status of pip, which the pipe would hide, comes back through a descriptor of its own.
pip_install = exec 3>&1; status=$$({ { \
	$(python) -m pip install --disable-pip-version-check --progress-bar off $(1); echo $$? >&4; } \
	| sed -n -e 's|^ *Downloading \(.*/\)*\([^/ ]*\)-[^- ]*-[^- ]*-[^- ]*\.whl \(([0-9.]* [MG]B)\)$$|  \2 \3|p' \
		-e 's/^Installing collected packages.*/  unpacking/p' >&3; } 4>&1); exit $$status
# An environment that is already there is kept, so its own interpreter is the one to be checked.
interpreter = $(or $(wildcard $(python)),$(PYTHON))

.DEFAULT_GOAL := help
.PHONY: help train sweep dashboard table test test-system test-browser test-cuda test-all lint

help:
	@echo 'make train ARGS="..."  train and evaluate, as in: make train ARGS="loss=softmax_focal seed=1"'
	@echo 'make sweep             tune alpha and gamma on digits: 40 trials, then fresh seeds; ARGS, SWEEP'
	@echo 'make dashboard         Optuna dashboard of STUDY=$(STUDY), on this machine alone'
	@echo 'make table             make a small table again and compare it with the committed results'
	@echo 'make test              the quick tests: all that needs nothing but the pinned packages'
	@echo 'make test-system       the tests that need system packages (.ci/run installs them)'
	@echo 'make test-browser      the pages in a real browser (apt-get install chromium)'
	@echo 'make test-cuda         the tests that need a CUDA device'
	@echo 'make test-all          everything but the system and CUDA tests, the slow ones included'
	@echo 'make lint              ruff check, ruff format --check, mypy'
	@echo 'Settings, now: PYTHON=$(PYTHON) VENV=$(VENV) TORCH_INDEX=$(TORCH_INDEX) JOBS=$(JOBS)'

train: $(VENV)/.ready
	@$(python) train.py $(ARGS)

table: $(VENV)/.ready
	@$(python) reproduce.py experiments/papers/digits_small.yaml --workers 2 --check \
		--results experiments/results/digits_lt.jsonl

sweep: $(VENV)/.ready
	@$(python) sweep.py $(SWEEP) $(ARGS)

# wsgiref is Python's own server; the page needs no network.
dashboard: $(VENV)/.ready-dashboard
	@$(VENV)/bin/optuna-dashboard --server wsgiref sqlite:///$(STUDY)/study.db

test: $(VENV)/.ready-dev
	@$(pytest) -m "not slow and not system and not cuda"

test-system: $(VENV)/.ready-dev
	@$(python) -m pytest -q -m "system and not browser" tests

test-browser: $(VENV)/.ready-dev
	@$(python) -m pytest -q -m browser tests

test-cuda: $(VENV)/.ready-dev
	@$(python) -m pytest -q -m cuda tests

test-all: $(VENV)/.ready-dev
	@$(pytest) -m "not system and not cuda"

lint: $(VENV)/.ready-dev
	@$(python) -m ruff check --quiet .
	@$(python) -m ruff format --quiet --check .
	@$(python) -m mypy

# A stamp is removed before the install and set after it, so that a failed install leaves none.
# torch comes without its dependencies from an index of its own: the pins name theirs, and the
# index need not hold those versions.
$(VENV)/.ready: requirements.txt constraints.txt
	@rm -f $@
	@"$(interpreter)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "tailfocus needs Python 3.11 or newer, and $(interpreter) says:" \
			"$$("$(interpreter)" --version 2>&1 | head -n 1)." \
			"Name another, as in: make $(MAKECMDGOALS) PYTHON=python3.12" \
			"(remove $(VENV) first if it is there)" >&2; exit 1; }
	@test -x $(VENV)/bin/pip || "$(PYTHON)" -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV): once, in a few minutes, 6 GB with CUDA"
ifneq ($(TORCH_INDEX),)
	@$(call pip_install,--no-deps --index-url "$(TORCH_INDEX)" \
		$$(grep -E '^torch(vision)?==' requirements.txt))
endif
	@$(call pip_install,-r requirements.txt -c constraints.txt)
	@touch $@

$(VENV)/.ready-dashboard: requirements-dashboard.txt constraints.txt $(VENV)/.ready
	@rm -f $@
	@$(call pip_install,-r requirements-dashboard.txt -c constraints.txt)
	@touch $@

$(VENV)/.ready-dev: requirements-dev.txt constraints.txt $(VENV)/.ready
	@rm -f $@
	@$(call pip_install,-r requirements-dev.txt -c constraints.txt)
	@touch $@
