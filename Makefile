# make demo           the whole pipeline on this machine
# make test           the tests that continuous integration runs
# make test-unit      those that start no Ray cluster, in two processes: the inner loop
# make test-long      what is longer than continuous integration allows
# make gpu-test       what this machine's GPU can show: memory, speed, the same numbers as a CPU
# make chaos          breaks a run piece by piece and mends it; TRIALS=20 (root for a full disk)
# make soak           the endpoint at full load for an hour; SOAK_S=300 for five minutes
# make fuzz           10,000 odd texts for each reader and requests for each route, where `make test` draws 100 and 25
# make cluster-test   several hosts on this machine (root)
# make check          lint, format, types, and which module imports which
# make audit          known vulnerabilities of the locked packages (asks osv.dev)
# make lock           the requirements and lock files from pyproject.toml (UPGRADE=1: newer versions)
#
# Each does `make setup` first; a second setup installs nothing.
#
#   PYTHON=python3.11   which Python the environment is made with
#   TORCH_INDEX=<url>   an index that holds CPU builds of torch, for machines without a GPU whose
#                       pip would find the CUDA build
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := $(shell if nvidia-smi -L >/dev/null 2>&1; then echo requirements.lock; else echo requirements-cpu.lock; fi)
STAMP := $(VENV)/.installed-$(shell cat $(LOCK) requirements-test.lock pyproject.toml | sha256sum | cut -c1-16)

export PATH := $(abspath $(BIN)):$(PATH)
ifneq ($(wildcard ../shared/datasets),)
export QCRD_DATASETS ?= $(abspath ../shared/datasets)
endif

.PHONY: setup demo test test-unit test-long chaos soak fuzz gpu-test cluster-test check audit lock clean
setup: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "setup: Python 3.11 is needed ($(PYTHON) is another); say PYTHON=python3.11"; exit 1; }
	@test -e "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || { echo "setup: Python's headers are missing; Debian: apt-get install python3-dev"; exit 1; }
	@command -v g++ >/dev/null || { echo "setup: g++ is missing; Debian: apt-get install g++"; exit 1; }
	@ldconfig -p | grep -q libnuma.so.1 || { echo "setup: libnuma is missing; Debian: apt-get install libnuma1"; exit 1; }
	@echo "setup: $(LOCK) into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r $(LOCK) -r requirements-test.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: setup
	@$(BIN)/qcrd run jobs/recipes/demo.yaml

# Two processes, each with a Ray of its own: half of the time is waiting for one to start. The
# longest test first, or one process would do it alone at the end.
test: test-unit
	@$(BIN)/python -m pytest tests/system tests/integration -n 2 --dist loadfile --no-loadscope-reorder -m "not long and not gpu"

# One thread for each process: torch's threads would fight for the cores.
test-unit: export OMP_NUM_THREADS := 1
test-unit: setup
	@$(BIN)/python -m pytest tests/unit -n 2 -m "not long and not gpu"

test-long: setup
	@$(BIN)/python -m pytest -m "long and not gpu"

chaos: export TRIALS := $(or $(TRIALS),1)
chaos: setup
	@$(BIN)/python -m pytest tests/chaos -m chaos $(if $(CHAOS_OUT),--chaos-out $(CHAOS_OUT))

soak: export SOAK_S := $(or $(SOAK_S),3600)
soak: setup
	@$(BIN)/python -m pytest tests/chaos -m soak -s $(if $(CHAOS_OUT),--chaos-out $(CHAOS_OUT))

fuzz: export QCRD_FUZZ := 10000
fuzz: setup
	@$(BIN)/python -m pytest tests/unit/test_fuzz.py tests/unit/serving/test_schema_fuzz.py --timeout=7200

gpu-test: setup
	@$(BIN)/python -m pytest tests/gpu -m gpu -s

cluster-test: setup
	@$(BIN)/python -m pytest -m cluster

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports

# pip-audit has an environment of its own: what it needs is not among what it looks at
audit: $(VENV)/audit/bin/pip-audit
	@$(VENV)/audit/bin/python clusters/audit.py

$(VENV)/audit/bin/pip-audit:
	@$(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1

lock: setup
	@$(BIN)/python clusters/lock.py $(if $(UPGRADE),--upgrade)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache .hypothesis
