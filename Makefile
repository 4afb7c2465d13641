# make demo              the whole way on this machine: simulated ECGs → shards → Ray → a model that talks → runs/demo/report.html
# make demo DATA=DIR     the same on a PTB-XL folder
# make test              every test, the linters and the type checker

PYTHON ?= python3.11
VENV   ?= .venv
DATA   ?=
STORE  ?=
RUN    := $(VENV)/bin/python

.PHONY: demo test lint environment clean

environment: $(VENV)/.complete

$(VENV)/.complete: pyproject.toml constraints.txt setup_environment.sh
	PYTHON=$(PYTHON) ./setup_environment.sh $(VENV)

demo: environment
	$(RUN) -m jobs.demo --out runs/demo $(if $(DATA),--data $(DATA)) $(if $(STORE),--store $(STORE))

lint: environment
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: lint
	$(RUN) -m pytest

clean:
	rm -rf $(VENV) runs build *.egg-info
