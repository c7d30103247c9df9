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

use libtest_mimic::{Arguments, Trial};

use support::{Haproxy, Test, harness};

mod ansible;
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
fn modules() -> Vec<(&'static str, Vec<Test>)> {
    vec![
        ("ansible", ansible::tests()),
        ("milkcheck", milkcheck::tests()),
        ("puppet", puppet::tests()),
        ("salt", salt::tests()),
    ]
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The tools compute, and hardly wait.
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let haproxy = match Haproxy::discover() {
        Ok(mut versions) => versions.pop().expect("a version"),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    harness::adopt_daemons();
    let tests = modules().into_iter().flat_map(|(module, tests)| tests.into_iter().map(move |test| (module, test)));
    let trials = tests.map(|(module, (name, test))| {
        let haproxy = haproxy.clone();
        Trial::test(format!("{module}::{name}"), move || harness::run(&haproxy, test))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
