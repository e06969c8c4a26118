# Assay: every task a person or a machine runs. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo

FUZZ_SECONDS ?= 300

.PHONY: crds help demo control-plane test test-long fuzz bench bench-cost bench-karpenter bench-disrupt bench-roadef bench-growth bench-warm bench-observe bench-kube bench-build lint fmt docs build tools

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

tools: # What the build needs, and how to get it where it is missing.
	@command -v $(CARGO) >/dev/null || { \
	  echo "make: cargo is missing: install Rust 1.95 or newer (https://rustup.rs), then run make again" >&2; exit 1; }
	@command -v cc >/dev/null || { \
	  echo "make: a C compiler is missing (aws-lc-sys needs it): apt-get install build-essential" >&2; exit 1; }

build: tools ## Build assay and assay-agent, optimised
	$(CARGO) build --release --locked -p assay-scheduler -p assay-agent

demo: build ## Show the whole loop: a simulated cloud, real agents over real QUIC; half a minute, no cluster, no cloud
	target/release/assay demo

control-plane: tools ## Build tests, the Kubernetes control plane they run against, and Helm (needs Go; minutes the first time)
	$(CARGO) test --workspace --locked --no-run
	$${CARGO_TARGET_DIR:-target}/debug/control-plane build

test: control-plane ## Run all tests
	$(CARGO) test --workspace --locked

test-long: tools ## Play ASSAY_SEEDS (1,000) simulated clusters with everything that can go wrong, optimised
	ASSAY_SEEDS=$${ASSAY_SEEDS:-1000} $(CARGO) test --release --locked -p assay-scheduler --lib -- sim::tests

fuzz: tools ## Feed arbitrary manifests to the planner for FUZZ_SECONDS (needs a nightly compiler and cargo-fuzz)
	mkdir -p tests/fuzz/corpus/plan
	cd tests && $(CARGO) +nightly fuzz run plan fuzz/corpus/plan plans -- -max_len=65536 -timeout=20 -max_total_time=$(FUZZ_SECONDS)

bench: tools ## Measure survey, solver and fleet link; prints a table
	$(CARGO) run --release --locked -p assay-bench

bench-cost: tools ## Measure what plans cost against proven bounds; writes bench/results/cost.md
	$(CARGO) run --release --locked -p assay-bench -- cost

bench-karpenter: bench-build ## Measure side by side with Karpenter's own scheduler (needs Go); writes bench/results/karpenter.md
	$${CARGO_TARGET_DIR:-target}/release/assay-bench karpenter

bench-disrupt: tools ## Measure disruption plans: time, cost, moves; beside Karpenter where Go is; writes bench/results/disrupt.md
	$(CARGO) run --release --locked -p assay-bench -- disrupt

bench-roadef: tools ## Measure reassignment on the ROADEF/EURO challenge of 2012; writes bench/results/roadef.md
	$(CARGO) run --release --locked -p assay-bench -- roadef

bench-growth: tools ## Measure how solving grows with pods, types and nodes; writes bench/results/growth.md
	$(CARGO) run --release --locked -p assay-bench -- growth

bench-warm: tools ## Measure one pod arriving at a large cluster; writes bench/results/warm.md
	$(CARGO) run --release --locked -p assay-bench -- warm

bench-observe: bench-build ## Measure assay serve at 5,000 nodes and 100,000 pods; writes bench/results/observe.md
	$${CARGO_TARGET_DIR:-target}/release/assay-bench observe

bench-kube: bench-build ## Measure a real control plane: latency, API calls, 500 nodes out and in (needs Go); writes bench/results/kube.md
	$${CARGO_TARGET_DIR:-target}/release/assay-bench kube

bench-build: tools # The programs that are measured together with what measures them.
	$(CARGO) build --release --locked -p assay-scheduler -p assay-bench

crds: tools ## Write the definitions of Assay's kinds to deploy/crds
	$(CARGO) run --quiet --locked -p assay-scheduler --bin assay -- crds --output-dir deploy/crds

lint: tools ## Format, clippy and docs, warnings denied
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --workspace --no-deps --locked --document-private-items

fmt: tools ## Format the code
	$(CARGO) fmt --all

docs: tools ## Build the API documentation
	$(CARGO) doc --workspace --no-deps --locked
