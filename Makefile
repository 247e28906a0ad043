# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all test-clients test-lmms-eval test-wheel smoke eval world-model clean help

help:  ## what can be made here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(STAMP)  ## draw, answer, edit and tell a story with the shipped model; writes out/demo/index.html
	$(BIN)/llada-uni demo --out out/demo

test: $(STAMP)  ## lint, types and the whole test suite
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(STAMP)  ## the same with short trainings, launchers and benchmarks (Ray is used where it is installed)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-clients: $(STAMP)  ## the newest OpenAI SDKs, litellm, LangChain, AI SDK and others against the server; the table in docs/serving.md
	$(BIN)/python scripts/test_clients.py --into docs/serving.md

test-lmms-eval: $(STAMP)  ## lmms-eval with the shipped model, inside it and over the server; the table in docs/evaluation.md
	$(BIN)/python scripts/test_lmms_eval.py --into docs/evaluation.md

test-wheel:  ## build the wheel, install it into a clean environment outside the clone, and use it there
	PYTHON=$(PYTHON) bash scripts/test_wheel.sh

smoke: $(STAMP)  ## train every stage for seconds, then run every task on what comes out
	bash scripts/smoke.sh

eval: $(STAMP)  ## score the shipped model on held-out scenes with the checker
	$(BIN)/llada-uni eval --suite all --limit 200 --split heldout --json out/eval.json --html out/eval

world-model: $(STAMP)  ## train the shipped model again from the art alone (hours on two cores)
	bash scripts/pipeline.sh world models/world-new

clean:  ## remove the environment and everything that was written by runs
	rm -rf $(VENV) out runs build *.egg-info
