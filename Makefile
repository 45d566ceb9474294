# make serve    the service on http://127.0.0.1:8000 (settings: GANSERVE_*, from the environment or after `make serve`)
# make test     style, types, import rules, then every test
# make test-faults  kills, restarts and starves real processes, on SQLite and PostgreSQL
# make test-campaigns  strangers, kills, swaps, overload and a soak, each for an hour at most; goes on where it stopped
# make worker   takes retraining jobs from the queue
# make up       service and worker together; Ctrl-C ends both
# make models   trains, exports and judges the shipped models again
# make web-runtime  fetches onnxruntime-web with npm, for `ganserve web` and its test in a browser
# make bench    runs the benchmarks and records their tables
# make clean    removes what the others have built; models/, runs/ and var/ stay

.DELETE_ON_ERROR:
.PHONY: help serve test test-faults test-campaigns worker up models web-runtime bench clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
NEEDS := $(BIN)/python pyproject.toml constraints.txt

# The first interpreter that is new enough. PYTHON=... overrules it.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

# GANSERVE_DEVICE=cuda brings the CUDA libraries from pip; a venv that has them keeps a stamp of its own.
CUDA := $(filter cuda,$(GANSERVE_DEVICE))
SERVE_STAMP := $(VENV)/.installed-serve$(CUDA:%=-%)
WORKER_STAMP := $(VENV)/.installed-worker$(CUDA:%=-%)
TEST_STAMP := $(VENV)/.installed-test

help:
	@sed -n 's/^# make /make /p' Makefile

serve: $(SERVE_STAMP)
	@exec $(BIN)/python -m service

worker: $(WORKER_STAMP)
	@exec $(BIN)/python -m training.worker

# A shell starts background children deaf to Ctrl-C, so the trap passes it on as SIGTERM, which both take as
# "finish and go". Whichever way the service ends, the worker ends with it.
up: $(WORKER_STAMP)
	@$(BIN)/python -m training.worker & worker=$$!; \
	$(BIN)/python -m service & service=$$!; \
	trap 'kill -TERM $$service $$worker 2>/dev/null' INT TERM HUP; \
	wait $$service; status=$$?; \
	kill -TERM $$service $$worker 2>/dev/null; \
	wait $$service; wait $$worker; \
	test $$status -gt 128 || exit $$status

test: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 3 --dist worksteal

test-faults: $(TEST_STAMP)
	$(BIN)/python -m pytest -n 2 -m "slow or not slow" tests/faults

# NAMES=..., SEED=... choose; the journals are below var/campaigns.
test-campaigns: $(TEST_STAMP)
	$(BIN)/python -m tests.campaigns $(NAMES) --seed $(or $(SEED),1)
	$(BIN)/python -m benchmarks.overload

models: $(WORKER_STAMP)
	$(BIN)/python -m training.models
	$(BIN)/python -m training.models --dataset uoft-cs/cifar10 --prefix cifar10 --recipes projgan

web-runtime: $(SERVE_STAMP)
	@$(BIN)/python -m ganserve.web.runtime

# The one of GPUs needs one: make bench GANSERVE_DEVICE=cuda.
# Those that compare two checkouts need to be told which.
BENCHMARKS := $(filter-out benchmarks/mixed.py $(if $(CUDA),,benchmarks/gpu.py),$(wildcard benchmarks/*.py))

bench: $(TEST_STAMP)
	@set -e; for script in $(BENCHMARKS); do \
		name=$$(basename "$$script" .py); echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done
	@echo "== quality"; $(BIN)/python -m training.quality

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "ganserve needs Python 3.11 or newer, and none was found on the PATH." \
		"Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "ganserve needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" -V 2>&1)." >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment;" \
		"on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(SERVE_STAMP): $(NEEDS)
	@echo "Installing what the service needs; this happens once."
	@$(PIP) '.$(CUDA:%=[%])'
	@touch $@

$(WORKER_STAMP): $(NEEDS)
	@echo "Installing what service and worker need, PyTorch among it; this happens once."
	@$(PIP) '.[training,postgres,store$(CUDA:%=,%)]'
	@touch $@ $(SERVE_STAMP)

$(TEST_STAMP): $(NEEDS)
	@echo "Installing what the tests need, PyTorch among it; this happens once."
	@$(PIP) '.[training,test,postgres,store]'
	@touch $@ $(VENV)/.installed-serve $(VENV)/.installed-worker
