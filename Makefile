# make run · make lint · make test · make bench · make chaos · make soak · make guards
# `make test` installs or starts what it needs (redis-server, Node packages, Chromium); see .ci/setup.

# Recorded real markets, where they are at hand; tests say what they did not run without them.
export TICTAC_RECORDINGS ?= $(wildcard $(CURDIR)/../shared/data)
WEB := gateway/web
# Where reports of faults go.
FAULTS ?= $(CURDIR)/target/faults.jsonl

.PHONY: run lint test test-rust test-web test-browser setup bench soak chaos guards faults-table help

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

bench: ## speed, in absolute figures and against the floor, and instruction counts (needs redis-server and valgrind)
	cargo run --release -p tictac-loadtest -- bench
	cargo run --release -p tictac-ingest --example chain_speed
	cargo run --release -p tictac-ingest --example chain_speed -- --instructions
	cargo run --release -p tictac-gateway --example delivery_cost

soak: ## ten minutes of churn (CHURN, s), and the simulations for as long as SEEDS and INGEST_SEEDS say; reports for the table of faults
	cargo run --release -p tictac-loadtest -- bench churn --runs 1 --seconds $${CHURN:-600}
	TICTAC_SEEDS=$${SEEDS:-200000} TICTAC_FAULTS_FILE=$(FAULTS) \
		cargo test --release -p tictac-gateway --test simulation ten_thousand_seeds -- --nocapture
	TICTAC_SEEDS=$${INGEST_SEEDS:-20000} TICTAC_FAULTS_FILE=$(FAULTS) \
		cargo test --release -p tictac-ingest --test simulation -- --nocapture --test-threads=1
	TICTAC_HOURS=24 cargo test --release -p tictac-ingest --test eviction -- --nocapture

chaos: ## faults with real processes, RUNS times each, alone on the machine, within their bounds; reports for the table
	cargo build -p tictac-gateway -p tictac-ingest
	TICTAC_STRICT=1 cargo test -p tictac-loadtest --test failover --test drain --test restarts --test faults --test moves \
		-- --nocapture --test-threads=1
	TICTAC_STRICT=1 TICTAC_CHAOS_RUNS=$${RUNS:-20} TICTAC_FAULTS_FILE=$(FAULTS) \
		cargo test -p tictac-loadtest --test chaos -- --nocapture --include-ignored --test-threads=1

guards: ## each guard of ARCHITECTURE.md taken away, one at a time: its test must fail; ONLY=PART for some
	cargo run -q -p tictac-loadtest --bin tictac-guards -- $(ONLY)

faults-table: ## what make soak and make chaos reported, into ARCHITECTURE.md; with KEEP=1 other rows stay
	cargo run -q -p tictac-loadtest --bin tictac-faults -- $(FAULTS) --into ARCHITECTURE.md \
		$(if $(KEEP),--keep,--at-least 100000)
