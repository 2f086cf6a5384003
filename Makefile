# Two commands do everything: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt

.PHONY: quickstart test test-slow check format clean

quickstart: $(VENV)/installed
	$(BIN)/medcurate build --recipe quickstart
	$(BIN)/medcurate stats quickstart
	$(BIN)/medcurate preview quickstart -o quickstart.png
	$(BIN)/medcurate train quickstart --data quickstart --out quickstart-run
	$(BIN)/medcurate evaluate quickstart --checkpoint quickstart-run --split val --prompts box \
		--against untrained --against filled-box --out quickstart-run/scores --picture quickstart-predictions.png

test: $(VENV)/installed-dev
	$(BIN)/python tests/realdata.py
	$(BIN)/python -m pytest -n auto

test-slow: $(VENV)/installed-dev
	$(BIN)/python tests/realdata.py
	$(BIN)/python -m pytest -n auto -m slow

check: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) quickstart quickstart.work quickstart-run quickstart.png quickstart-predictions.png

$(VENV)/python:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: $(VENV)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[train]'
	touch $@

$(VENV)/installed-dev: $(VENV)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/installed
