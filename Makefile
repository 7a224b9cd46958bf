# make demo          index the Python language reference, start the service, search, rerank, leave a page to open
# make demo-loop     simulated users click, the ranking learns from them round by round, a page shows it
# make test          install what the tests need and run them
# make check         linters, types, architecture, docstrings, spelling
# make format        what ruff can mend, mended
# make models        fetch the language model, put together what was trained from it and from the encoder
# make demo-once     the demo without the page
# make wheel-smoke   build the wheel, install it elsewhere, use it
# make clean         remove everything that was made
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build of torch; CONSTRAINTS=/dev/null takes whatever torch the registry gives, with CUDA on Linux.
CONSTRAINTS ?= constraints.txt
EXTRAS ?= offline
# -e installs the checkout itself; EDITABLE= installs a copy.
EDITABLE ?= -e
CONFIG ?= shortlist.yaml
PORT ?= 8000
DEMO_ARGS ?=
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install dev models demo demo-once demo-loop test check format wheel-smoke browser clean

help:
	@sed -n "s/^# \(make .*\)/\1/p" Makefile

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c $(CONSTRAINTS) $(EDITABLE) ".[$(EXTRAS)]"
	touch $@

dev: $(VENV)/.dev

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/pip install --quiet -c $(CONSTRAINTS) $(EDITABLE) ".[dev]"
	touch $@

# What learning from clicks takes beside serving.
$(VENV)/.train: $(VENV)/.installed
	$(BIN)/pip install --quiet -c $(CONSTRAINTS) $(EDITABLE) ".[train]"
	touch $@

# The model that comes with Shortlist, converted once and kept under var/.
models: install
	$(BIN)/shortlist models pull minilm-cross-encoder --config $(CONFIG)
	$(BIN)/shortlist models pull smollm2-135m-first --config $(CONFIG)

demo: models
	$(BIN)/shortlist demo --config $(CONFIG) --port $(PORT) $(DEMO_ARGS)

demo-loop: $(VENV)/.train
	$(BIN)/shortlist demo-loop --port $(PORT) $(DEMO_ARGS)

demo-once: DEMO_ARGS = --once
demo-once: demo

# A second generation of a client whose first is pinned by another client.
var/clients/cohere7: | dev
	$(BIN)/pip install --quiet --target $@ 'cohere>=7,<8'

browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
		{ $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq chromium chromium-driver; }

test: dev models browser var/clients/cohere7
	HF_HUB_OFFLINE=1 $(BIN)/pytest

check: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/pydoclint --quiet app rankers index training
	$(BIN)/typos

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The built wheel, installed in a venv of its own and used from another directory; -P, or tests/app would shadow app.
wheel-smoke: dev
	rm -rf build/wheel-smoke && mkdir -p build/wheel-smoke/elsewhere
	$(BIN)/python -m build --wheel --outdir build/wheel-smoke .
	$(PYTHON) -m venv build/wheel-smoke/venv
	build/wheel-smoke/venv/bin/pip install --quiet -c $(CONSTRAINTS) "$$(ls build/wheel-smoke/*.whl)[offline]"
	cd build/wheel-smoke/elsewhere && HF_HUB_OFFLINE=1 ../venv/bin/python -P ../../../tests/wheel_smoke.py

clean:
	rm -rf $(VENV) build dist var
