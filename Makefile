# `make demo` and `make test` need git, make and Python 3.11 or 3.13, nothing else: they set up the rest in .venv.
PYTHON ?= python3
BIN := .venv/bin
# Changes with the interpreter, so that `make setup PYTHON=python3.13` after 3.11 sets up anew.
STAMP := .venv/.ready-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-gpu check lint bench env examples lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv: pinned dependencies and Blender, for $(PYTHON)

$(STAMP): pyproject.toml $(wildcard constraints/*.txt) scripts/setup
	@scripts/setup $(PYTHON)
	@rm -f .venv/.ready-* && touch $@

demo: setup ## render the example animation and still through a farm on this machine
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh

test: lint ## every check and test: under 30 minutes on 2 cores, once set up
	$(BIN)/pytest tests/unit tests/contract tests/integration tests/faults

test-gpu: setup ## rendering on a GPU, for machines that have one
	$(BIN)/pytest tests/gpu

check: lint ## what to run before a commit: about three minutes
	$(BIN)/pytest --numprocesses auto tests/unit tests/contract

lint: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## measure what the farm costs and how much it can handle: an hour
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[bench]'
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/render.py
	$(BIN)/python benchmarks/lifecycle.py
	$(BIN)/python benchmarks/status_api.py
	$(BIN)/python benchmarks/million.py

env: ## make deploy/.env: passwords for the services of deploy/compose.yaml, and settings that match
	@$(PYTHON) deploy/make_env.py

examples: setup ## make the example .blend files anew
	$(BIN)/python examples/make_examples.py

lock: setup ## pin the newest versions that fit together
	for version in 3.11 3.13; do \
		$(BIN)/uv pip compile --quiet --upgrade --no-emit-index-url --no-annotate --strip-extras --all-extras \
			--custom-compile-command 'make lock' --python-version $$version pyproject.toml \
			--output-file constraints/py$$(echo $$version | tr -d .).txt || exit 1; \
	done

clean: ## remove what make has made, the .venv included
	rm -rf .venv demo dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
