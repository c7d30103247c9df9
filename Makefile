# What can be done here: `make`. Each of these works in a fresh clone.

CARGO ?= cargo
RUSTC ?= rustc
.DEFAULT_GOAL := help
# The steps of a target run one after the other, whatever -j says.
.NOTPARALLEL:

# The first step of each target: names everything that is missing for it, at once.
needs = @CARGO="$(CARGO)" RUSTC="$(RUSTC)" tests/checks/needs $@

.PHONY: help
help: ## shows this
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 17

.PHONY: build
build: ## builds target/release/haproxy_server
	$(needs)
	$(CARGO) build --locked --release

.PHONY: package
package: ## builds what a release consists of into target/package/release: a static program, .deb, .rpm, the modules
	$(needs)
	@packaging/build

.PHONY: package-test
package-test: ## installs each of these into clean roots of Debian 11 to 13 and of rpm, plays the demo there and removes it
	$(needs)
	@packaging/build
	@packaging/test
	@packaging/reproducible

.PHONY: docs
docs: ## builds the site from docs/ into target/site
	$(needs)
	@docs/build

.PHONY: release-check
release-check: ## checks everything that a release needs, and prints its version when everything holds
	$(needs)
	@packaging/release-check

.PHONY: demo
demo: ## plays a maintenance on three HAProxy instances of its own, and cleans up
	$(needs)
	@tests/demo/run

.PHONY: test
test: ## runs every check and every test, on each HAProxy that can be had and the newest of each tool
	$(needs)
	@$(call side_by_side,$(checks) $(installs))
	@# The same generated cases each time, so that a change is judged by itself; `cargo test` alone draws new ones. What runs
	@# on HAProxy is the program that is released: it is also the faster one.
	HAPROXY_SERVER_PROGRAM='$(or $(CARGO_TARGET_DIR),target)/release/haproxy_server' PROPTEST_RNG_SEED=1 SEED=1 \
		$(CARGO) test --locked --no-fail-fast
	@echo "make test: everything passed"

.PHONY: test-all
test-all: ## does the same, with every test on every version of HAProxy and of its tool
	HAPROXY_SERVER_EVERY_VERSION=1 $(MAKE) test

.PHONY: bench
bench: ## measures the program beside the floor, community.general.haproxy and haproxytool
	$(needs)
	@tests/haproxy/fetch
	$(CARGO) build --locked --release --examples
	$(CARGO) build --locked --release
	@bench/install
	@bench/run $(BENCH)
	$(CARGO) bench --locked --bench micro

.PHONY: fleet
fleet: ## measures one server out and back on 50 load balancers, over SSH and with Salt; half an hour, as root
	$(needs)
	@tests/haproxy/fetch
	@tests/adapters/ansible/install
	@tests/adapters/milkcheck/install
	@tests/adapters/salt/install
	$(CARGO) build --locked --release
	@bench/fleet $(FLEET)

.PHONY: cycles
cycles: ## takes a server out and puts it back a hundred times under load, on each HAProxy; a quarter of an hour
	$(needs)
	@tests/haproxy/fetch
	$(CARGO) test --locked --test live --no-run
	timeout 1h $(CARGO) test --locked --test live -- --ignored --nocapture cycles

.PHONY: test-matrix
test-matrix: ## runs the live tests on each HAProxy with threads, a master, chroot, a sandbox and 1,000 backends; hours, as root
	$(needs)
	@tests/haproxy/fetch
	@tests/live/matrix

.PHONY: coverage
coverage: ## counts which lines of src/ the unit tests and the live tests run, and names the others
	$(needs)
	@tests/haproxy/fetch
	@tests/coverage/run

.PHONY: mutants
mutants: ## changes what decides and acts, one thing at a time, and names the changes that no unit test notices; hours
	$(needs)
	@tests/mutants/run

# SEED=N makes the same choices again, ROUND=N only those of one round.
.PHONY: soak
soak: ## judges random runs while HAProxy is frozen, killed and reloaded; ten minutes, or MINUTES=60 VERSIONS=3.2
	$(needs)
	@tests/haproxy/fetch
	$(if $(VERSIONS),HAPROXY_VERSIONS='$(VERSIONS)') MINUTES='$(or $(MINUTES),10)' SEED='$(SEED)' ROUND='$(ROUND)' \
		$(CARGO) test --locked --test soak

.PHONY: fuzz
fuzz: ## looks for input that breaks a promise, a minute for each kind of input; RUNS=10000000 for longer
	$(needs)
	@tests/fuzz/run

.PHONY: schema
schema: ## writes schema/*.json, --help, the man page, the completions, the tables of options and the list of layers anew from the code
	$(needs)
	UPDATE_SCHEMA=1 $(CARGO) test --locked --lib schema
	UPDATE_SCHEMA=1 $(CARGO) test --locked --test docs of_the_schemas
	UPDATE_SCHEMA=1 $(CARGO) test --locked --test docs adapters_pages
	UPDATE_SCHEMA=1 $(CARGO) test --locked --test layers architecture

.PHONY: fixtures
fixtures: ## captures tests/fixtures anew from each HAProxy
	$(needs)
	@tests/haproxy/fetch
	$(CARGO) test --locked --test live -- --ignored capture

.PHONY: clean
clean: ## removes what was built and unpacked
	$(CARGO) clean
	rm -rf .cache

.PHONY: tools
tools: ## installs what the tests run: each HAProxy, the adapters' tools, cargo-deny
	$(needs)
	@$(call side_by_side,'tests/checks/deny --install' $(installs))

checks = tests/checks/compile tests/checks/deny tests/checks/msrv tests/checks/shell
installs = tests/haproxy/fetch tests/adapters/*/install

# All at once, since those that install spend most of their time waiting for a registry.
side_by_side = export CARGO="$(CARGO)"; pids=; for each in $(1); do \
	{ $$each || { echo "make: $$each has failed" >&2; exit 1; }; } & pids="$$pids $$!"; done; \
	failed=0; for pid in $$pids; do wait "$$pid" || failed=1; done; exit "$$failed"
