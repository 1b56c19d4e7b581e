# Every target is what CI runs; `make demo` and `make test` are all a newcomer needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q

# A thread of each library in each process: processes that share cores wait for each other's threads, up to 40 times as long.
ONE_THREAD := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

# One process of tests more than there are cores: while some wait, others work.
TESTERS = $(shell $(PYTHON) -c "import os; print(min(os.cpu_count() + 1, 8))")

# Tests start the program hundreds of times: it is compiled once, also where the surroundings forbid to keep bytecode.
KEEP_BYTECODE := PYTHONDONTWRITEBYTECODE=

.PHONY: demo test docs docs-check pictures wheel lint format reproduce torture bench bench-peers clean

demo: $(VENV)/core.stamp
	$(BIN)/he2her2 demo --out demo-run

test: $(VENV)/full.stamp
	$(ONE_THREAD) $(KEEP_BYTECODE) $(BIN)/python -m pytest -n $(TESTERS) --dist worksteal

# The pages of docs/, with those that are generated from the program, in site/; a link that leads nowhere stops it.
docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Every command of the documentation, run at a small size in the order of the pages: some minutes.
docs-check: $(VENV)/full.stamp
	HE2HER2_DOCS_CHECK=1 $(ONE_THREAD) $(KEEP_BYTECODE) $(BIN)/python -m pytest tests/test_docs_commands.py

# The pictures of the documentation, made again by the program; needs Chromium.
pictures: $(VENV)/full.stamp
	$(BIN)/python -m docs.generated.pictures

# dist/he2her2-*.whl holds all that it needs: templates, fonts, weights, the viewer's scripts.
wheel: $(VENV)/core.stamp
	$(PIP) wheel --no-deps -w dist .

# The paper's tables on phantoms, reduced to minutes on two cores: experiments/results/reproduce/.
reproduce: $(VENV)/full.stamp
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m experiments.reproduce --work reproduce-run

# Damaged slides, broken files and sudden deaths: about half an hour on one core; tests/test_torture.py is a small part.
torture: $(VENV)/full.stamp
	$(ONE_THREAD) $(KEEP_BYTECODE) $(BIN)/python -m torture

# What docs/performance.md says of this machine: about a quarter of an hour, with nothing else running.
bench: $(VENV)/full.stamp
	$(BIN)/python -m benchmarks

# Other libraries on the same slide, each installed from PyPI into bench-work/peers.
bench-peers: $(VENV)/full.stamp
	$(BIN)/python -m benchmarks.peers

lint: $(VENV)/full.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/full.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The core install: prediction and the viewer, without torch.
$(VENV)/core.stamp: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "he2her2 needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	$(PIP) install -c constraints.txt -e ".[viewer]"
	touch $@

$(VENV)/docs.stamp: $(VENV)/core.stamp
	$(PIP) install -c constraints.txt --group docs
	touch $@

# Everything: training and the developers' tools.
$(VENV)/full.stamp: $(VENV)/core.stamp
	$(PIP) install -c constraints.txt -e ".[train,encoders,viewer,cluster]" --group dev
	touch $@

clean:
	rm -rf $(VENV) demo-run pictures-run reproduce-run torture-work bench-work dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
