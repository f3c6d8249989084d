# make run: the page on http://127.0.0.1:7860.  make test: everything the tests need, then all tests, on all processors.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A file's tests stay on one worker, so that what they share is made once.
TESTS := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -n auto --dist loadfile
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: run test check fast-test browser clean

run: $(VENV)/.run-ready
	$(BIN)/python app.py $(ARGS)

test: $(VENV)/.test-ready browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(TESTS)
	$(BIN)/python -m tests.lesser_processor

fast-test: $(VENV)/.test-ready
	$(TESTS) -m "not slow and not ui"

check: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 run")'
	$(PYTHON) -m venv $(VENV) || (rm -rf $(VENV); echo "Python has no venv here: on Debian and Ubuntu, apt install python3-venv"; exit 1)

$(VENV)/.run-ready: requirements.txt | $(VENV)/bin/python
	$(BIN)/pip install -q -r requirements.txt
	touch $@

$(VENV)/.test-ready: requirements.txt tests/requirements.txt | $(VENV)/bin/python
	$(BIN)/pip install -q -r requirements.txt -r tests/requirements.txt
	touch $@ $(VENV)/.run-ready

# A system Chromium is used where there is one; else Playwright's own; else Debian's packages.
browser: $(VENV)/.test-ready
	$(BIN)/python tests/browser.py

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache
