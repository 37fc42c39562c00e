# flatnet: every task a newcomer needs. `make up` is the first minute, `make test` the proof.

export PATH := $(CURDIR)/.tools/bin:$(HOME)/.cargo/bin:$(PATH)

.PHONY: up down test build setup lint bench help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## install what building and testing need (Debian packages, kubectl into .tools)
	@scripts/setup

build: setup ## build the release binaries into target/release
	cargo build --release --locked -p flatnet -p cni

up: ## set up, build and start a three-node cluster on this machine
	@FLATNET_SETUP=run $(MAKE) --no-print-directory build
	target/release/flatnet up

down: ## end the cluster, leaving nothing
	target/release/flatnet down

test: setup ## run the whole test suite (root: it makes network namespaces)
	cargo build --locked -p flatnet -p cni
	cargo build --locked --release -p cni
	cargo test --workspace --locked --no-fail-fast

lint: ## formatting and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bench: setup ## print the figures, peers in the same run
	cargo build --release --locked -p flatnet -p cni
	cargo bench --workspace --locked
