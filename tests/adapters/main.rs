//! The adapters under `modules/`, each run by its real tool on real HAProxy instances.
//!
//! What a tool makes of the program does not depend on HAProxy's version, so that one is enough: the newest that is
//! found. A test's name is `ansible::test`. See tests/README.md.

// All of this is test code, but only `#[test]` functions are known as such to clippy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::process::ExitCode;

use support::harness;

mod ansible;
mod described;
mod loaded;
mod milkcheck;
// Not every tool takes all of it.
#[allow(dead_code)]
mod page;
mod puppet;
mod salt;
#[path = "../live/support/mod.rs"]
mod support;
#[allow(dead_code)]
mod tool;

/// Every module of tests by its name.
fn modules() -> harness::Modules {
    vec![
        ("ansible", ansible::tests()),
        ("milkcheck", milkcheck::tests()),
        ("puppet", puppet::tests()),
        ("salt", salt::tests()),
    ]
}

fn main() -> ExitCode {
    // The tools compute more than they wait: not many more at once than a small machine has processors.
    harness::main(3, |versions| harness::trials(versions.last().expect("a version"), "", modules()))
}
