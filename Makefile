# Every target does its own set-up: a fresh machine needs Python 3.11 or newer, stable Rust, and this file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find rust python .cargo -type f -not -name '*.so' -not -path '*/__pycache__/*')

# The tests start thousands of processes: each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help all demo dev test test-rust test-python test-deep test-redis test-browser test-pythons test-peers test-checked chaos soak stress lint fmt stubs bench bench-instructions compare wheels docs site site-links clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

all: lint site test demo-once ## everything that CI runs on the Python that is here

# LAYER=redis://localhost:6379 serves it by two workers on that server, or by WORKERS=n; LAYER=redis-server on one of its own.
demo: demo-about $(VENV)/.demo ## serve a chat over WebSockets and prove it in the terminal (ONCE=1: and end; LAYER=redis://...: over workers)
	$(BIN)/headrace demo $(if $(ONCE),--once) $(if $(LAYER),--layer '$(LAYER)') $(if $(WORKERS),--workers $(WORKERS))

.PHONY: demo-about
demo-about: comma := ,
demo-about:
	@echo "make demo builds headrace, checks its chat with a few WebSocket clients$(if $(ONCE),.,$(comma) and serves it on http://127.0.0.1:8000.)"

.PHONY: demo-once
demo-once:
	$(MAKE) demo ONCE=1

# Most tests wait most of the time: two processors run three at once. ARGS="-n 0" runs them one after the other, as a debugger wants it.
PARALLEL := -n 3 --dist loadgroup

test: test-rust test-python test-browser ## run every test

test-rust:
	cargo test --quiet -p headrace-core --features redis
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --quiet --release -p headrace-core --test loom

test-python: $(VENV)/.test $(VENV)/.channels42 $(VENV)/.uvicorn40
	$(BIN)/python -m pytest $(PARALLEL) --ignore=tests/browser $(ARGS)

# What the gate has no time for. What Hypothesis has found wrong is kept in .hypothesis, and tried first the next time.
test-deep: $(VENV)/.test $(VENV)/.channels42 $(VENV)/.uvicorn40 ## run the Python tests with thousands of random examples, and with each kind of server
	$(BIN)/python -m pytest $(PARALLEL) --ignore=tests/browser --deep $(ARGS)

test-redis: $(VENV)/.test ## run the tests that need a Redis or Valkey server, which they start themselves
	$(BIN)/python -m pytest $(PARALLEL) -m redis $(ARGS)

# PYTHONS="3.12 3.14t" chooses. SHORT=1 runs the shorter form, TESTS="redis" these folders. MAY_LACK="3.14t" lets that one be missing.
# What is not on the PATH or in pyenv comes from Debian sid, in a root below .pythons: that needs root on a Debian machine.
test-pythons: ## run the tests on every supported Python, each on a wheel of its own (PYTHONS="3.12 3.14t" SHORT=1)
	$(PYTHON) -m tests.pythons $(PYTHONS) $(if $(SHORT),--short) $(if $(TESTS),--tests $(TESTS)) \
		$(if $(MAY_LACK),--may-lack $(MAY_LACK)) --args='$(ARGS)'

# PEERS="channelsmultiplexer" chooses. ARGS="--source strawberry-graphql=../strawberry" takes a checkout, which has tests that no sdist has.
test-peers: $(VENV)/.test ## fetch real projects on Channels, and run their tests as they are and with headrace
	$(BIN)/python -m tests.peers $(PEERS) $(ARGS)

# ARGS="--seconds 60 --seed 1" plays a shorter one, or the same again; "--history" one in which the group keeps its history.
chaos: $(VENV)/.test ## break servers, networks and processes at random for three minutes, and count every message
	$(BIN)/python -m tests.chaos $(ARGS)

# ARGS="--seconds 60 --server redis" plays a shorter one.
soak: $(VENV)/.test ## serve clients that come, go and never read over failing servers for ten minutes, and see that nothing grows
	$(BIN)/python -m tests.soak $(ARGS)

# PyO3 without its list of dropped objects, and without the leave to leak them: see .cargo/config.toml. In debug mode the core also checks that
# no lock is held where foreign code is called. DEEP=1 runs the contract on the second server, on Sentinel and on a cluster too.
CHECKED := target/checked
test-checked: $(VENV)/.lint ## run the tests of the bindings on a debug build, which ends where an object is dropped without the interpreter's lock
	RUSTFLAGS="--cfg pyo3_disable_reference_pool" CARGO_TARGET_DIR=$(CHECKED) \
		$(BIN)/maturin build --quiet --profile dev --interpreter $(BIN)/python --out $(CHECKED)/wheels
	rm -rf $(CHECKED)/site
	$(BIN)/python -m pip install --quiet --no-deps --target $(CHECKED)/site $(CHECKED)/wheels/headrace-*.whl
	PYTHONPATH=$(CHECKED)/site $(BIN)/python -m pytest $(PARALLEL) $(if $(DEEP),,-m "not another_server") tests/contract tests/loops tests/layers $(ARGS)

# It finds most on an interpreter without a global lock: make clean, then make stress PYTHON=python3.14t.
stress: $(VENV)/.test ## use one layer from eight threads at once for two minutes, and count every message
	$(BIN)/python -m tests.stress $(ARGS)

test-browser: $(VENV)/.test ## drive the demo's page in a headless Chromium (skipped where there is none)
	$(BIN)/python -m pytest tests/browser $(ARGS)

dev: $(VENV)/.lint ## build the extension in place, in release mode, for work on it
	VIRTUAL_ENV=$(VENV) $(BIN)/maturin develop --release --quiet

lint: $(VENV)/.lint ## rustfmt, clippy, ruff, mypy, pyright, whether the stub is that of the binary, and the workflow
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets --features headrace-core/redis -- -D warnings
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo clippy --quiet -p headrace-core --test loom -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps -p headrace-core --features redis
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m tests.typing
	$(MAKE) --no-print-directory target/stubs/headrace/_core.pyi
	diff -u python/headrace/_core.pyi target/stubs/headrace/_core.pyi
	$(BIN)/python -m mypy.stubtest headrace._core
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet --persona pedantic .github/workflows

fmt: $(VENV)/.lint ## format Rust and Python
	cargo fmt --all
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format

stubs: $(VENV)/.lint ## write python/headrace/_core.pyi from the binary
	$(MAKE) --no-print-directory target/stubs/headrace/_core.pyi
	cp target/stubs/headrace/_core.pyi python/headrace/_core.pyi

target/stubs/headrace/_core.pyi: $(shell find rust/py -name '*.rs' -o -name Cargo.toml) | $(VENV)/.lint
	VIRTUAL_ENV=$(VENV) $(BIN)/maturin generate-stubs --quiet --features stubs --out target/stubs
	$(BIN)/ruff check --quiet --fix --select I $@
	$(BIN)/ruff format --quiet $@

bench: $(VENV)/.bench ## pytest-benchmark and criterion
	$(BIN)/python -m pytest -c benches/python/pytest.ini benches/python
	cargo bench --quiet -p headrace-benches -- --warm-up-time 1 --measurement-time 2

bench-instructions: $(VENV)/.bench ## instructions of the hot paths, counted by callgrind (needs valgrind)
	$(BIN)/python -m benches.instructions

compare: $(VENV)/.bench ## headrace beside Django Channels: a table, and files in benches/results
	$(BIN)/python -m benches.compare

# KINDS="sdist manylinux_2_17_x86_64" builds these, and fails if it cannot; ARGS="--for 3.12" what this Python takes.
wheels: $(VENV)/.wheels ## build what is released, as far as this machine can, into dist/, and check each file
	$(BIN)/python -m tests.wheels $(KINDS) $(ARGS)

docs: ## build the documentation of the Rust core
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps -p headrace-core --features redis

# INTERSPHINX=1 links to the documentation of Python, Django and Channels as well, for which it asks their servers.
site: $(VENV)/.site ## build the documentation as a site, target/site/index.html; a broken reference is an error
	SITE_INTERSPHINX=$(INTERSPHINX) $(BIN)/python -m sphinx -W --keep-going -n -q -d target/site-doctrees docs target/site
	$(BIN)/python -m tests.support.links target/site

# It asks the servers of others, so it is no part of the gate.
site-links: $(VENV)/.site ## ask each address outside that the documentation links to whether it is there
	$(BIN)/python -m sphinx -b linkcheck -q -d target/site-doctrees docs target/site-links

clean: ## remove what was built
	rm -rf $(VENV) target .pythons

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "headrace needs Python 3.11 or newer; set PYTHON=/path/to/one"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# The demo's load is beside Channels' own layer.
$(VENV)/.demo: EXTRAS := demo,django

# The wheel of the working tree, built in release mode, with the extra of the target's name.
$(VENV)/.demo $(VENV)/.test $(VENV)/.lint $(VENV)/.bench $(VENV)/.site: $(VENV)/.%: $(BIN)/python $(SOURCES)
	@$(BIN)/python rust/py/install.py '.[$(or $(EXTRAS),$*)]'
	@touch $@

$(VENV)/.wheels: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --group wheels
	@touch $@

# The oldest uvicorn that headrace.uvicorn takes, beside the newer one.
$(VENV)/.uvicorn40: $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/uvicorn40 'uvicorn==0.40.*'
	@touch $@

# The older Channels that headrace.django is tested with, beside the newer one.
$(VENV)/.channels42: $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/channels42 'channels==4.2.*'
	@touch $@
