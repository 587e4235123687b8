# make demo    train the Boston Housing model over two owners
# make digits  draw digits in a browser: builds the page, finds the runtime, opens the demo
# make check   the quick loop: unit tests, lint, types, layers
# make test    everything that CI runs
# make postgres PostgreSQL when root lacks it, for the tests of the store in it
# make browser the device in TypeScript, and Chromium when root lacks it
# make docs    the site of the documentation, in site/; warnings are errors
# make bench   the numbers of the README
# make chaos   kill the coordinator a thousand times and audit what is left

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: help demo digits digits-page check test browser debian-browser postgres lint docs bench chaos clean

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

digits: .venv/installed digits-page
	$(BIN)/shoal demo --digits

# The page that the wheel carries, and the runtime for browsers, which has a package of its own.
PAGE := src/shoal/demo/static/digits/index.html
WEB := packages/shoal-web/src/shoal_web/files/ort-wasm-simd-threaded.wasm
ORT := ort.wasm.min.mjs ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm

digits-page: $(PAGE) $(WEB)
	@[ ! -d .venv ] || $(BIN)/python -c 'import shoal_web' 2>/dev/null || $(BIN)/pip install -q -e packages/shoal-web

$(PAGE): web/device/dist/index.js web/digits/build.mjs $(wildcard web/digits/src/* web/digits/static/*)
	@if command -v npm >/dev/null; then \
	  cd web/digits && node build.mjs && touch ../../$@; \
	else \
	  echo "npm is missing: install nodejs and npm for the page of the demo"; [ "$$CI" != true ]; \
	fi

$(WEB): web/device/dist/index.js
	@if command -v npm >/dev/null; then \
	  mkdir -p $(@D) && cd web/device/node_modules/onnxruntime-web/dist && cp $(ORT) $(CURDIR)/$(@D)/ && touch $(CURDIR)/$@; \
	else \
	  echo "npm is missing: install nodejs and npm for the runtime of browsers"; [ "$$CI" != true ]; \
	fi

check: .venv/developed
	$(BIN)/pytest -m "not processes and not slow"
	$(MAKE) lint

# A file's tests stay in one process, which keeps what they share; two processes are what a machine with two cores bears.
# Remote tensors and forked workers have a process each: once that device is there, autograd bears no fork.
test: .venv/developed lint browser postgres
	$(BIN)/pytest tests/simulation/test_workers.py
	$(BIN)/pytest tests/remote
	$(BIN)/pytest tests/chaos/test_store_fails.py
	$(BIN)/pytest -n 2 --dist loadfile --ignore=tests/remote --ignore=tests/simulation/test_workers.py \
	  --ignore=tests/chaos/test_store_fails.py

# Root gets what is missing from Debian. Otherwise the tests that need it are skipped with a reason, and fail in CI.
DEBIAN := DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install

browser: debian-browser web/device/dist/index.js $(PAGE)

debian-browser:
	@[ "$$(id -u)" -ne 0 ] || { command -v chromium && command -v npm; } >/dev/null || \
	  { apt-get -q update && $(DEBIAN) chromium && { command -v npm >/dev/null || $(DEBIAN) nodejs npm; }; }

postgres:
	@[ "$$(id -u)" -ne 0 ] || command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
	  { apt-get -q update && $(DEBIAN) postgresql; }

# The device in TypeScript, checked and built.
web/device/dist/index.js: web/device/package-lock.json web/device/build.mjs $(wildcard web/device/src/*.ts) | debian-browser
	@if command -v npm >/dev/null; then \
	  cd web/device && export ONNXRUNTIME_NODE_INSTALL=skip && \
	  npm ci --ignore-scripts --no-audit --no-fund && npm run -s check && npm run -s build && \
	  touch ../../$@; \
	else \
	  echo "npm is missing: install nodejs and npm for the tests of the device"; [ "$$CI" != true ]; \
	fi

lint: .venv/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/developed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/developed
	for part in rounds coordinator devices simulate remote dashboard; do $(BIN)/python benchmarks/$$part.py --json || exit 1; done

chaos: .venv/developed
	$(BIN)/python benchmarks/chaos.py --kills 1000 --forked

clean:
	rm -rf .venv site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
