# `make serve` runs a server, `make test` checks everything; both set up what they need.
# The distribution's interpreter, where it will do, comes first: it is built with profiles and link-time optimisation. One that was
# built from source without them, as pyenv does, makes the server a seventh slower, and plain Python half as slow again.
PYTHON ?= $(shell for python in /usr/bin/python3 python3; do \
  $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && exit; done; echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := build/native

.PHONY: serve native test test-native lint types unit torture fuzz bench lock docs clean
.DEFAULT_GOAL := test

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
	  echo "python3-venv is missing; installing it (needs root)"; \
	  apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv --clear $(VENV); } || { \
	  echo "Please run: sudo apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

serve: $(STAMP)
	$(BIN)/jetwired serve --data data

# What a wheel holds, unpacked: the modules on the way of every record are machine code there. PYTHONPATH=build/native runs it.
native: $(NATIVE)/.built

$(NATIVE)/.built: $(STAMP) hatch_build.py $(shell find client protocol server -name '*.py')
	rm -rf $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target $(NATIVE) .
	@PYTHONPATH=$(NATIVE) $(BIN)/python -c 'import jetwire_server__mypyc' 2>/dev/null || { echo "Nothing was compiled: gcc and Python's headers are needed (apt-get install gcc python3-dev)"; exit 1; }
	@touch $@

test: lint types unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests

unit: $(STAMP)
	$(BIN)/python -m pytest -n 3 -m "not torture"

# The same tests against what a wheel holds.
test-native: native
	PYTHONPATH=$(CURDIR)/$(NATIVE) $(BIN)/python -m pytest -n 3 -m "not torture and not plain"

torture: $(STAMP)
	$(BIN)/python -m tests.torture
	$(BIN)/python -m pytest -m torture

# Coverage-guided; atheris needs an interpreter it has wheels for, and is not in the lock of the product.
FUZZ_SECONDS ?= 300
fuzz: $(STAMP)
	@[ -x $(VENV)-fuzz/bin/python ] || { $(PYTHON) -m venv $(VENV)-fuzz && $(VENV)-fuzz/bin/pip install --quiet --disable-pip-version-check -r tests/fuzz/requirements.txt; }
	PYTHONPATH=.:client:protocol:server:$$($(BIN)/python -c "import site; print(site.getsitepackages()[0])") \
	  $(VENV)-fuzz/bin/python -m tests.fuzz.wire -max_total_time=$(FUZZ_SECONDS)
	$(BIN)/python -m tests.fuzz.sequences --seconds $(FUZZ_SECONDS)

bench: native
	PYTHONPATH=$(CURDIR)/$(NATIVE) $(BIN)/python -m benchmarks

# Needs pip-tools on the PATH; the lock holds the base, the server and the development packages with their hashes.
lock:
	pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	  --extra server --extra dev -o requirements.lock pyproject.toml

# The site needs its own tools; they are not in the lock of the product.
docs: $(STAMP)
	$(BIN)/python docs/generate.py
	@[ -x $(VENV)-docs/bin/mkdocs ] || { $(PYTHON) -m venv $(VENV)-docs && $(VENV)-docs/bin/pip install --quiet --disable-pip-version-check --require-hashes -r docs/requirements.txt; }
	$(VENV)-docs/bin/python docs/plots.py
	$(VENV)-docs/bin/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) $(VENV)-docs $(VENV)-fuzz data site dist build
