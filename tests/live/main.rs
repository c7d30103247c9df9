//! Live tests: each of them on a real HAProxy of each version that is found.
//!
//! A test is a function that takes the [`Haproxy`] to start; its name is `2.6::module::test`. See tests/README.md.

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

mod capture;
mod checks;
mod drain;
mod guard;
mod instances;
mod load;
mod moving;
mod owner;
mod procedure;
mod progress;
mod readme;
mod reloads;
mod rollback;
mod running;
mod state_file;
mod states;
mod support;
mod transitions;
mod transport;
mod traps;
mod wait;

/// What is run with `--ignored` only, by its name.
fn tools() -> Vec<(&'static str, Vec<Test>)> {
    vec![("capture", capture::tests())]
}

/// Every module of tests by its name.
fn modules() -> Vec<(&'static str, Vec<Test>)> {
    vec![
        ("checks", checks::tests()),
        ("drain", drain::tests()),
        ("guard", guard::tests()),
        ("instances", instances::tests()),
        ("load", load::tests()),
        ("moving", moving::tests()),
        ("owner", owner::tests()),
        ("progress", progress::tests()),
        ("readme", readme::tests()),
        ("rollback", rollback::tests()),
        ("procedure", procedure::tests()),
        ("reloads", reloads::tests()),
        ("running", running::tests()),
        ("state_file", state_file::tests()),
        ("states", states::tests()),
        ("transitions", transitions::tests()),
        ("transport", transport::tests()),
        ("traps", traps::tests()),
        ("wait", wait::tests()),
    ]
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The tests mostly wait for HAProxy and hardly compute.
    arguments.test_threads = arguments.test_threads.or(Some(8));
    let versions = match Haproxy::discover() {
        Ok(versions) => versions,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    harness::adopt_daemons();
    let trials = versions.iter().flat_map(trials_on).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trials_on(haproxy: &Haproxy) -> Vec<Trial> {
    let trials = |modules: Vec<(&'static str, Vec<Test>)>, ignored| {
        let tests = modules.into_iter().flat_map(|(module, tests)| tests.into_iter().map(move |test| (module, test)));
        tests.map(move |(module, (name, test))| {
            let name = format!("{}::{module}::{name}", haproxy.name);
            let haproxy = haproxy.clone();
            Trial::test(name, move || harness::run(&haproxy, test)).with_ignored_flag(ignored)
        })
    };
    trials(modules(), false).chain(trials(tools(), true)).collect()
}
