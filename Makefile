# make run · make lint · make test · make bench · make chaos · make soak
# `make test` installs or starts what it needs (redis-server, Node packages, Chromium); see .ci/setup.

# Recorded real markets, where they are at hand; tests say what they did not run without them.
export TICTAC_RECORDINGS ?= $(wildcard $(CURDIR)/../shared/data)
WEB := gateway/web

.PHONY: run lint test test-rust test-web test-browser setup bench soak chaos help

help:
	@sed -n 's/^# //p' Makefile | head -2
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

run: ## the board with its own feed at http://127.0.0.1:8080
	cargo run --release

lint: ## format, clippy, JavaScript syntax
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	find $(WEB) -name '*.js' -not -path '*/node_modules/*' -print0 | xargs -0 -n1 node --check

setup: ## install what the tests need
	.ci/setup

test: setup test-rust test-web test-browser ## everything that CI runs

test-rust: ## Rust: laws, codecs, simulation, Redis, recordings
	cargo build -p tictac-gateway -p tictac-ingest
	cargo test --workspace

test-web: ## the browser's client module, in Node
	node --test $(WEB)/test/

test-browser: ## the board in Chromium
	cargo build -p tictac-gateway -p tictac-ingest
	node --test $(WEB)/browser/board.mjs $(WEB)/browser/redis.mjs

bench: ## speed, in absolute figures, and instruction counts (needs valgrind)
	cargo run --release -p tictac-ingest --example chain_speed
	cargo run --release -p tictac-ingest --example chain_speed -- --instructions

soak: ## the simulation for as long as SEEDS says
	TICTAC_SEEDS=$${SEEDS:-200000} cargo test --release -p tictac-gateway --test simulation

chaos: ## faults with real processes, alone on the machine, within their bounds
	cargo build -p tictac-gateway -p tictac-ingest
	TICTAC_STRICT=1 cargo test -p tictac-loadtest --test failover --test drain --test restarts --test faults --test moves \
		-- --nocapture --test-threads=1
