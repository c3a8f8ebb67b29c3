# `make demo` does the main job on a fresh machine; `make test` runs all checks.
# Both install what they need: Debian or Ubuntu packages, and build tools through cargo and pip.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
TOOLS := $(HOME)/.cache/openshell-tools
TARGET := $(shell $(CARGO) metadata --no-deps --format-version 1 2>/dev/null | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
ifeq ($(TARGET),)
TARGET := target
endif
export PATH := $(TOOLS)/bin:$(PATH)

.PHONY: help
help: ## Show the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

.PHONY: deps
deps: ## Install the packages that building and testing need (Debian, Ubuntu).
	@scripts/deps

.PHONY: build
build: deps ## Build the three binaries for development.
	$(CARGO) build --workspace --bins

.PHONY: release
release: deps ## Build the three binaries for use: target/release/openshell{,-gateway,-sandbox}.
	$(CARGO) build --release -p openshell-cli -p openshell-gateway -p openshell-supervisor

.PHONY: images
images: deps ## Build container images of gateway, operator, supervisor and command line: target/images/*.tar.
	@scripts/images $(IMAGES)

.PHONY: charts
charts: ## Check the Helm charts: lint, snapshots, schemas.
	@scripts/charts

.PHONY: demo
demo: build ## From nothing to an agent under policy; each step prints its verdict.
	$(CARGO) run -q -p openshell-e2e --bin demo

.PHONY: test
test: deps ## Run all checks.
	@scripts/test

.PHONY: test-long
test-long: deps ## The rest, which takes longer: faults of a cluster, long property runs, fuzzing, benchmarks.
	@scripts/test-long

.PHONY: bench
bench: release ## Measure what docs/SPECIFICATION.md promises, against baselines in the same run.
	$(CARGO) run --release -q -p openshell-e2e --bin bench

.PHONY: cluster
cluster: ## Start a Kubernetes cluster of one node here, as root; prints how to use it (docs/cluster.md).
	@e2e/cluster/up

.PHONY: cluster-down
cluster-down: ## End that cluster and remove everything that it made.
	@e2e/cluster/down
	@e2e/cluster/check-clean

.PHONY: cluster-smoke
cluster-smoke: ## Prove by real objects that the cluster does what tests need.
	@e2e/cluster/smoke

.PHONY: lint
lint: ## Format and lints, warnings are errors.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
