# Everything from a fresh machine with Python 3.11, g++ and make. Stamps make repeated calls quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2
OUT ?= demo-out
EXTRAS ?= test

# BLAS threads of parallel test workers would fight for the cores
ifneq ($(filter test,$(MAKECMDGOALS)),)
export OMP_NUM_THREADS ?= 1
endif

.PHONY: demo test check docs benchmark fuzz install packaging clean

demo: $(STAMP)  ## compile and run a network, show the report
	$(BIN)/python -m tvm_ergo.demo --out $(OUT)

test: $(STAMP)  ## the test suite
	$(BIN)/python -P -m pytest -n $(JOBS) --dist worksteal $(ARGS)

# mypy wants one folder that looks like the installed package
TYPED := build/typed
check: $(VENV)/.checked  ## format, lint and types (CONTRIBUTING.md)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@rm -rf $(TYPED) && mkdir -p $(TYPED)/tvm_ergo
	@ln -s $(CURDIR)/python/tvm_ergo/* $(CURDIR)/target $(CURDIR)/relay_passes $(CURDIR)/codegen $(TYPED)/tvm_ergo/
	MYPYPATH=$(TYPED) $(BIN)/mypy

$(VENV)/.checked: setup.py | $(STAMP)
	$(BIN)/pip install --disable-pip-version-check -q -e '.[check]'
	@touch $@

docs: $(VENV)/.documented  ## the docs site in build/site; a dead link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q

$(VENV)/.documented: setup.py | $(STAMP)
	$(BIN)/pip install --disable-pip-version-check -q -e '.[docs]'
	@touch $@

BENCHMARKS := $(filter-out __init__ common eie_on_chip,$(basename $(notdir $(wildcard benchmarks/*.py))))
benchmark: $(STAMP)  ## every benchmark, one table each (the shared models are found through ERGO_SHARED)
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done

packaging: $(STAMP)  ## installs into fresh environments, normal and editable, and checks the autoload (some minutes)
	ERGO_PACKAGING=1 $(BIN)/python -P -m pytest tests/packaging $(ARGS)

TIME ?= 600
fuzz: $(STAMP)  ## every parser on damaged and forged inputs for TIME seconds (docs/security.md); findings in fuzz-out
	$(BIN)/python -m fuzz --seconds $(TIME) $(ARGS)

install: $(STAMP)

# editable, with the native runtime module compiled; again when what defines the installation changes
$(STAMP): setup.py pyproject.toml codegen/runtime/program_module.cc | $(BIN)/pip
	$(BIN)/pip install --disable-pip-version-check -q -e '.[$(EXTRAS)]'
	@touch $@

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist fuzz-out $(OUT)
