# make demo    train the Boston Housing model over two owners
# make check   the quick loop: unit tests, lint, types, layers
# make test    everything that CI runs
# make browser the parts of the early browser page: npm packages, and Chromium when root lacks it
# make bench   the numbers of the README
# make chaos   kill the coordinator a hundred times and audit what is left

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: help demo check test browser lint bench chaos clean

help:
	@sed -n 's/^# //p' Makefile

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e ".[torch]"
	touch $@

.venv/developed: .venv/installed
	$(BIN)/pip install -q -c constraints.txt -e ".[torch,dev]"
	touch $@

demo: .venv/installed
	$(BIN)/shoal demo

check: .venv/developed
	$(BIN)/pytest -m "not processes"
	$(MAKE) lint

test: .venv/developed lint browser
	$(BIN)/pytest

browser: web/early/page/runtime/ort.wasm.min.mjs
	@command -v chromium >/dev/null || [ "$$(id -u)" -ne 0 ] || \
	  { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install chromium; }

web/early/page/runtime/ort.wasm.min.mjs: web/early/package-lock.json
	cd web/early && ONNXRUNTIME_NODE_INSTALL=skip npm ci --ignore-scripts --no-audit --no-fund && npm run -s runtime
	touch $@

lint: .venv/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/developed
	$(BIN)/python benchmarks/rounds.py --json

chaos: .venv/developed
	$(BIN)/python benchmarks/chaos.py --kills 100

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
