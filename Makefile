# make demo              the whole way on this machine: simulated ECGs → shards → Ray → a model that talks → runs/demo/report.html
# make demo DATA=DIR     the same on a PTB-XL folder
# make test              every test, the linters and the type checker
# make test-cluster      the long forms of what clusters do to a run: root and Debian's slurm-wlm, openssh-server and iproute2

PYTHON ?= python3.11
VENV   ?= .venv
DATA   ?=
STORE  ?=
RUN    := $(VENV)/bin/python

.PHONY: demo test test-cluster lint environment clean

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
	$(RUN) -m pytest --durations=20

test-cluster: environment
	$(RUN) -m pytest -m long
	mkdir -p runs
	$(RUN) -m tests.campaign --again --json runs/campaign.json --markdown runs/campaign.md

clean:
	rm -rf $(VENV) runs build *.egg-info
