# NovaCron's everyday commands; `make help` lists them. Each prints what it does and fails loudly.
#
# Builds: dev for tests, plain release (no LTO) for demo and benches, profile `dist` for packages. The bins and the
# tests are always built with `--workspace`, so that every target below shares one set of compiled dependencies.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --warn-undefined-variables

CARGO_TARGET_DIR ?= $(CURDIR)/target
NAME ?=
SEEDS ?= 10
KEEP ?=
FILTER ?=
CELL ?=
PROFILE ?= dist
CI ?= false

OUT := $(CARGO_TARGET_DIR)
export CARGO_TARGET_DIR CI KEEP PROFILE
say = @printf '\n==> %s\n' "$(1)"

.PHONY: help deps demo test planted lint bench soak soak-migration packages audit clean build build-release fuzz-smoke

help: ## this list
	@printf 'NovaCron\n\n'
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

deps: ## install what is missing (asks on a terminal; YES=1 does not; never replaces an installed QEMU)
	$(call say,deps: Debian packages and cargo tools that building and testing need)
	@packaging/deps.sh

build: ## dev build of the programs and of every test
	$(call say,build: dev build of all programs and tests)
	@cargo build --locked --workspace --bins --tests

build-release: ## plain release build (no LTO) of the programs, the guest and the demo
	$(call say,build: plain release (no LTO) of all programs)
	@cargo build --locked --release --workspace --bins

demo: deps build-release ## two hosts, a cron job and a live migration there and back (root; KEEP=1 leaves it up)
	$(call say,demo: report goes to $(OUT)/demo/report.json)
	@$(OUT)/release/demo

test: deps build ## all tests: plain tier, and as root the real-hypervisor tier (FILTER='nextest expression')
	$(call say,test: plain tier everywhere - hypervisor tier as root - in CI a skip is a failure)
	@status=0
	$(if $(FILTER),,make planted || status=$$?)
	rm -f "$(OUT)/nextest/default/junit.xml"
	sync   # what the builds wrote is on the disk before clusters are tested that lose their leader to slow writes
	cargo nextest run --locked --workspace $(if $(FILTER),-E '$(FILTER)',) || status=$$?
	cargo test --locked --workspace --doc --quiet || status=$$?
	.ci/skipped "$(OUT)/nextest/default/junit.xml" || status=$$?
	exit $$status

planted: ## plants protocol mistakes, one at a time: the simulation must catch each (a build of our crates apart)
	$(call say,planted: each mistake is caught within 50 seeds (of moves 60) - the same seeds are clean without one)
	@cargo nextest run --locked --workspace --features novacron-sim/planted --test planted --success-output immediate

lint: audit ## formatting, clippy and rustdoc with warnings denied, licences and bans, units, shell scripts
	$(call say,lint: cargo fmt --check)
	@cargo fmt --all --check
	printf '\n==> lint: shell scripts\n'
	shellcheck --external-sources $$(git ls-files -co --exclude-standard | xargs -r grep -slE '^#!.*(ba)?sh$$')
	printf '\n==> lint: systemd units\n'
	systemd/verify.sh
	printf '\n==> lint: clippy, warnings denied\n'
	cargo clippy --locked --workspace --all-targets -- -D warnings
	printf '\n==> lint: rustdoc, warnings denied\n'
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --quiet

audit: ## licences, bans and sources of every dependency (advisories need a database from the network: ADVISORIES=1)
	$(call say,audit: cargo-deny - bans - licenses - sources)
	@cargo deny --version >/dev/null 2>&1 || packaging/deps.sh --tool cargo-deny
	cargo deny --locked check --hide-inclusion-graph bans licenses sources
	if [ "$${ADVISORIES:-}" = 1 ]; then cargo deny --locked check advisories
	else echo 'audit: advisories not checked (their database is fetched from the network; ADVISORIES=1 does it)'; fi

bench: deps build-release ## figures beside a named peer, to $(OUT)/bench/NAME.json (NAME=x, else all; ROW=y)
	$(call say,bench: $(or $(NAME),all))
	@packaging/deps.sh --bench
	@$(OUT)/release/novacron-benches $(NAME)

soak: deps build ## 40 x SEEDS simulated clusters of each kind; the rest of the suite SEEDS times over, in its long form
	$(call say,soak: the suite $(SEEDS) times - NOVACRON_SOAK=1)
	@$(if $(FILTER),,NOVACRON_SEEDS=$$((40 * $(SEEDS))) cargo nextest run --locked --workspace -E 'package(novacron-sim)')
	NOVACRON_SOAK=1 NOVACRON_SEEDS=$(SEEDS) cargo nextest run --locked --profile soak --workspace --stress-count $(SEEDS) -E '$(or $(FILTER),not package(novacron-sim))'

soak-migration: deps build ## every cell of the crash matrix on real QEMU (CELL=part of a name), table in $(OUT)/migration
	$(call say,soak-migration: about an hour for all cells - the table grows in $(OUT)/migration/crash-matrix.md)
	@$(if $(CELL),export NOVACRON_MATRIX_CELL='$(CELL)',)
	NOVACRON_SOAK=1 cargo nextest run --locked --workspace --ignore-default-filter -E 'test(=matrix::crash_matrix_whole)' --no-capture

packages: ## .deb of novacron-agent, novacron-coordinator and novactl in $(OUT)/packages (PROFILE=debug for a quick try)
	$(call say,packages: profile $(PROFILE))
	@packaging/deb.sh

fuzz-smoke: ## a few seconds of cargo-fuzz on every decoder (SECONDS_PER_TARGET=20; needs a nightly toolchain)
	$(call say,fuzz: every decoder for a few seconds)
	@.ci/fuzz-smoke

clean: ## remove everything that was built
	$(call say,clean: cargo clean of $(OUT))
	@cargo clean
