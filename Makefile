# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint eval world-model clean help

help:  ## what can be made here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(STAMP)  ## draw, answer, edit and tell a story with the shipped model; writes out/demo/index.html
	$(BIN)/llada-uni demo --out out/demo

test: $(STAMP)  ## lint and the whole test suite
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

eval: $(STAMP)  ## score the shipped model on held-out scenes with the checker
	$(BIN)/llada-uni eval --suite all --limit 200 --split heldout --json out/eval.json --html out/eval

world-model: $(STAMP)  ## train the shipped model again from the art alone (hours on two cores)
	bash scripts/train_world_model.sh

clean:  ## remove the environment and everything that was written by runs
	rm -rf $(VENV) out runs build *.egg-info
