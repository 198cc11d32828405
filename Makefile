# What a person does with this repository. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
PYTHON ?= python3
VENV ?= .venv
DUCKDB := $(or $(DUCKDB_LIB_DIR),$(CURDIR)/.duckdb)
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
LIBRARY := $(if $(filter Darwin,$(shell uname -s)),libduckdb.dylib,libduckdb.so)
# With the features of the whole workspace, so that the dependencies are built once for
# the demo, the tests and the examples.
BUILD := cargo build --workspace
export AGNES_TEST_EXTENSIONS ?= $(DUCKDB)/extensions
export AGNES_TEST_TOOLS ?= $(DUCKDB)/tools
export AGNES_TEST_VENV ?= $(abspath $(VENV))
EXAMPLES := embed own_connector governed_query remote_attach
FIND_WHEEL = $$(ls -t $(1)/agnes-*.whl | head -n 1)

.PHONY: help
help: ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: demo
demo: duckdb ## build the command and watch it sync, publish, grant and answer, each step checked
	$(BUILD) --bin agnes
	scripts/with-duckdb.sh "$(TARGET)/debug/agnes" demo --once

.PHONY: build
build: duckdb ## the command, for development
	$(BUILD) --bin agnes

.PHONY: release
release: duckdb ## the command, optimised
	cargo build --release --package agnes-cli

.PHONY: install
install: release ## PREFIX/bin/agnes and the library it needs in PREFIX/lib
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/lib"
	install -m 755 "$(TARGET)/release/agnes" "$(DESTDIR)$(PREFIX)/bin/agnes"
	install -m 644 "$(DUCKDB)/$(LIBRARY)" "$(DESTDIR)$(PREFIX)/lib/$(LIBRARY)"

.PHONY: dist
dist: duckdb ## the archive of the command for this computer, in dist/: a server offers what is in AGNES_CLI_DIST_DIR
	scripts/dist.sh dist "$(DUCKDB)"

.PHONY: duckdb
duckdb: ## DuckDB's official library, fetched once
	@scripts/fetch-duckdb.sh "$(DUCKDB)"

.PHONY: test
test: components test-rust examples test-python ## everything: Rust, doctests, examples, the wheel and its tests

.PHONY: components
components: $(VENV)/.ready ## what the tests run against: PostgreSQL, MariaDB, a browser, an SMTP server, DuckDB extensions, schemathesis, clients of MCP
	@PYTHON="$(abspath $(VENV))/bin/python" scripts/test-components.sh

.PHONY: test-rust
test-rust: duckdb
	scripts/in-memory.sh cargo test --workspace

.PHONY: fuzz
fuzz: duckdb ## look for leaks and crashes of queries as long as FOR seconds say (60); SEED=n begins elsewhere
	AGNES_FUZZ_SECONDS="$(or $(FOR),60)" AGNES_FUZZ_SEED="$(or $(SEED),$(shell date +%s))" \
	  cargo test --package agnes-core --test evidence -- --nocapture --test-threads 2 oracle fuzz attack

.PHONY: fuzz-http
fuzz-http: duckdb $(VENV)/.ready ## REQUESTS (20000) drawn from the API's description, as nobody, member and admin; SEED=n begins elsewhere
	AGNES_FUZZ_REQUESTS="$(or $(REQUESTS),20000)" AGNES_FUZZ_SEED="$(or $(SEED),$(shell date +%s))" \
	  cargo test --package agnes-cli --test serve -- --nocapture whatever_it_is_sent

.PHONY: kill-http
kill-http: duckdb ## kill the server ROUNDS (100) times under load, and look for what it acknowledged
	AGNES_KILL_ROUNDS="$(or $(ROUNDS),100)" \
	  cargo test --package agnes-cli --test serve -- --nocapture survives_kills

.PHONY: storm-jira
storm-jira: duckdb ## EVENTS (10000) of Jira, twice, out of order, with the server killed every second
	AGNES_STORM_EVENTS="$(or $(EVENTS),10000)" \
	  cargo test --package agnes-cli --test serve -- --nocapture a_storm_under_kills

.PHONY: examples
examples: duckdb ## run every example
	cargo test --quiet --workspace --no-run
	for example in $(EXAMPLES); do \
	  echo "--- example: $$example"; scripts/with-duckdb.sh "$(TARGET)/debug/examples/$$example"; \
	done

$(VENV)/.ready: agnes-py/requirements-dev.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.x"'
	$(PYTHON) -m venv "$(VENV)"
	"$(VENV)/bin/pip" install --quiet --disable-pip-version-check -r agnes-py/requirements-dev.txt
	touch $@

# The module looks for the library there.
.PHONY: wheel-library
wheel-library: duckdb
	mkdir -p agnes-py/python/agnes/lib
	cp -f "$(DUCKDB)/$(LIBRARY)" agnes-py/python/agnes/lib/

.PHONY: wheel
wheel: wheel-library $(VENV)/.ready ## the Python wheel, optimised, in dist/
	"$(VENV)/bin/maturin" build --release --auditwheel skip --manifest-path agnes-py/Cargo.toml --out dist

.PHONY: test-python
test-python: wheel-library $(VENV)/.ready ## build the wheel for development, install it, run its tests, also against a server
	$(BUILD) --bin agnes
	rm -rf "$(TARGET)/wheels-dev"
	"$(VENV)/bin/maturin" build --quiet --profile dev --auditwheel skip \
	  --manifest-path agnes-py/Cargo.toml --out "$(TARGET)/wheels-dev"
	wheel=$(call FIND_WHEEL,$(TARGET)/wheels-dev); \
	  "$(VENV)/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$$wheel"; \
	  cd agnes-py && AGNES_WHEEL="$$wheel" AGNES_BINARY="$(TARGET)/debug/agnes" "$(abspath $(VENV))/bin/python" -m pytest

.PHONY: fmt
fmt: ## format
	cargo fmt --all

.PHONY: lint
lint: duckdb ## format check and clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

.PHONY: doc
doc: duckdb ## the Rust documentation, without a broken link
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

.PHONY: deny
deny: ## licences, banned crates, sources; ADVISORIES=1 for known holes too
	cargo deny check bans licenses sources $(if $(ADVISORIES),advisories)

.PHONY: bench
bench: duckdb $(if $(BENCH),$(if $(findstring python,$(BENCH)),bench-python),bench-python) ## the paths people wait for; as root, nginx is installed to compare downloads with
	@if [ ! -x /usr/sbin/nginx ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light; } >/dev/null </dev/null || true; fi
	cargo build --quiet --release --package agnes-cli --package agnes-benches
	AGNES_BENCH_PYTHON="$(abspath $(VENV))/bin/python" scripts/with-duckdb.sh "$(TARGET)/release/agnes-bench" $(BENCH)

# The package as people install it, beside the package `duckdb`.
.PHONY: bench-python
bench-python: wheel
	"$(VENV)/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$(call FIND_WHEEL,dist)"

.PHONY: clean
clean: ## all that was built; the fetched library stays
	cargo clean
	rm -rf dist "$(VENV)" agnes-py/python/agnes/lib agnes-py/python/agnes/*.so
