# Everything happens in .venv; nothing else on the machine is touched.
PYTHON ?= python3
BIN := .venv/bin
OUT = demo
PORT = 8080
SERVE = 1
# pip reads the environment for every one of its calls, also for those that it starts itself.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Idle threads that spin would take the cores of the workers beside them.
export OMP_WAIT_POLICY := PASSIVE

CODE = src tests benchmarks examples .ci
TEST_WORKERS = 2
# Arguments of single benchmarks; prepare.py alone would take 40 million rows.
BENCH_prepare := --rows 4000000
BENCH_scale := --items 10000 100000
BENCH_cost := --rates docs/scale-rates.json
# `make bench-serving` alone takes a million items, which is built in minutes and takes 3 GB.
bench: BENCH_serving = --items 120000 --seconds 3

.DEFAULT_GOAL := help
.PHONY: help install demo docs test test-cluster lint bench bench-serving clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables: demo OUT=$(OUT) PORT=$(PORT) SERVE=$(SERVE); test TEST_WORKERS=$(TEST_WORKERS) ARGS='-k gate'"

install: .venv/installed  ## put smar and what it runs on into .venv

demo: install  ## the whole line on a generated shop, then the search page (SERVE=0: no page)
	$(BIN)/smar demo --out $(OUT) --port $(PORT) $(if $(filter 0,$(SERVE)),--no-serve)

test: .venv/installed-dev  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Exit status 5: no test is selected, which is no failure here.
test-cluster: .venv/installed-cluster  ## tests that need Java, Ray or database servers, and the built wheel
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "cluster or wheel" $(ARGS) || [ $$? -eq 5 ]

lint: .venv/installed-dev  ## check style and types, look for weaknesses and known vulnerabilities
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/bandit -q -r src -c pyproject.toml
	$(BIN)/python .ci/audit.py requirements.txt

docs: .venv/installed-docs  ## build the site of docs/ with a reference of the API into site/; broken links fail
	$(BIN)/mkdocs build --strict

# Peers that are no pinned requirement: their scripts say what to install.
bench: .venv/installed-dev $(filter-out bench-words bench-workers bench-length_groups bench-store,$(patsubst benchmarks/%.py,bench-%,$(wildcard benchmarks/*.py)))  ## run the benchmarks at moderate sizes

bench-serving: .venv/installed-bench  ## a million items under load, beside a peer (BENCH_serving='--items 20000': fewer)
	$(BIN)/python benchmarks/serving.py $(BENCH_serving)

bench-%: .venv/installed-dev
	$(BIN)/python benchmarks/$*.py $(BENCH_$*)

clean:  ## remove .venv, caches and the folder demo
	rm -rf .venv demo build site .pytest_cache .hypothesis .mypy_cache .ruff_cache src/smar.egg-info
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "smar needs Python 3.11 or newer; set PYTHON=python3.12 or the like")'
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt constraints.txt pyproject.toml | .venv/bin/python
	$(BIN)/pip install -r requirements.txt
	$(BIN)/pip install --no-deps --no-build-isolation -e .
	@touch $@

.venv/installed-bench: requirements-bench.txt .venv/installed-dev
	$(BIN)/pip install -r requirements-bench.txt
	@touch $@

.venv/installed-cluster: requirements-cluster.txt requirements-s3.txt .venv/installed-dev
	$(BIN)/pip install -r requirements-cluster.txt
	$(BIN)/pip install --no-deps -r requirements-s3.txt
	@touch $@

.venv/installed-docs: requirements-docs.txt .venv/installed
	$(BIN)/pip install -r requirements-docs.txt
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(BIN)/pip install -r requirements-dev.txt
	@touch $@
