# What can be done here: `make`. Each of these works in a fresh clone; `small` needs the source of Rust's library as well.

CARGO ?= cargo
RUSTC ?= rustc
.DEFAULT_GOAL := help
# The steps of a target run one after the other, whatever -j says.
.NOTPARALLEL:

# $(call need,TOOL,WHAT TO DO): ends with a sentence where a tool is missing.
need = @command -v $(1) >/dev/null 2>&1 || { echo "make: $(1) is missing: $(2)" >&2; exit 1; }

.PHONY: help
help: ## shows this
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' Makefile | expand -t 12

.PHONY: build
build: rust ## builds target/release/haproxy_server
	$(CARGO) build --locked --release

# The standard library that comes with Rust cannot be made smaller, so that it is built anew. The options for that are
# not stable yet, which is what RUSTC_BOOTSTRAP is for; the code needs none of it. A panic ends these without a word.
small_flags = -Z unstable-options -C panic=immediate-abort -C force-unwind-tables=no
small_build = RUSTC_BOOTSTRAP=1 RUSTFLAGS="$(small_flags) $(2)" $(CARGO) build --locked \
	--profile small --target-dir target/$(1) --target "$$($(RUSTC) -vV | sed -n 's/^host: //p')" \
	-Z build-std=std,panic_abort -Z build-std-features=optimize_for_size --artifact-dir target/$(1)/bin -Z unstable-options

.PHONY: small
small: rust ## builds target/small/bin/haproxy_server and, with the C library in it, target/static/bin/haproxy_server
	@test -e "$$($(RUSTC) --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" || \
	{ echo "make: the source of Rust's standard library is missing: rustup component add rust-src" >&2; exit 1; }
	$(call small_build,small)
	$(call small_build,static,-C target-feature=+crt-static -C link-arg=-Wl$(comma)-z$(comma)pack-relative-relocs)

.PHONY: demo
demo: rust python ## plays a maintenance on three HAProxy instances of its own, and cleans up
	@tests/demo/run

.PHONY: test
test: rust lints python haproxy tools shell deny msrv ## runs every check and every test, on each HAProxy that can be had
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps
	@echo "make test: everything passed"

.PHONY: bench
bench: rust python haproxy ## measures the program beside the floor and beside community.general.haproxy
	$(CARGO) build --locked --release --examples
	$(CARGO) build --locked --release
	@bench/install
	@bench/run $(BENCH)
	$(CARGO) bench --locked --bench micro

.PHONY: shell deny msrv
shell: python
	@tests/checks/shell
deny: rust
	@tests/checks/deny
msrv: rust
	@tests/checks/msrv

.PHONY: schema
schema: rust ## writes schema/*.json and the tables of options anew from the types
	UPDATE_SCHEMA=1 $(CARGO) test --locked --lib schema
	UPDATE_SCHEMA=1 $(CARGO) test --locked --test docs adapters_pages

.PHONY: fixtures
fixtures: rust haproxy ## captures tests/fixtures anew from each HAProxy
	$(CARGO) test --locked --test live -- --ignored capture

.PHONY: clean
clean: ## removes what was built and unpacked
	$(CARGO) clean
	rm -rf .cache

.PHONY: haproxy
haproxy:
	$(call need,bash,install the package bash)
	@tests/haproxy/fetch

.PHONY: tools
tools:
	$(call need,python3,install the packages python3 and python3-venv)
	@pids=; for install in tests/adapters/*/install; do "$$install" & pids="$$pids $$!"; done; \
	failed=0; for pid in $$pids; do wait "$$pid" || failed=1; done; exit "$$failed"

.PHONY: rust
rust:
	$(call need,$(CARGO),install Rust 1.85 or later$(comma) best with rustup)
	$(call need,cc,install a C compiler$(comma) as in the package gcc: Rust links with it)

.PHONY: lints
lints:
	@$(CARGO) fmt --version >/dev/null 2>&1 || { echo "make: rustfmt is missing: rustup component add rustfmt" >&2; exit 1; }
	@$(CARGO) clippy --version >/dev/null 2>&1 || { echo "make: clippy is missing: rustup component add clippy" >&2; exit 1; }

.PHONY: python
python:
	$(call need,python3,install the package python3: the demo is written in it)

comma := ,
