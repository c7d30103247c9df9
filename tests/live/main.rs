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

use libtest_mimic::Trial;

use support::{Haproxy, Surroundings, harness};

mod accidents;
mod address;
mod audit;
mod bounds;
mod capture;
mod checks;
mod costs;
mod drain;
mod faults;
mod forms;
mod guard;
mod hanging;
mod injection;
mod instances;
mod layouts;
mod load;
mod locks;
mod moving;
mod named;
mod old_processes;
mod owner;
mod procedure;
mod progress;
mod readme;
mod reloads;
mod rollback;
mod running;
mod state_file;
mod states;
mod sticky;
mod strangers;
mod support;
mod transitions;
mod transport;
mod traps;
mod wait;

/// What is run with `--ignored` only, by its name.
fn tools() -> harness::Modules {
    vec![("capture", capture::tests()), ("costs", costs::tests()), ("cycles", load::cycles())]
}

/// Every module of tests by its name.
fn modules() -> harness::Modules {
    vec![
        ("accidents", accidents::tests()),
        ("address", address::tests()),
        ("audit", audit::tests()),
        ("bounds", bounds::tests()),
        ("checks", checks::tests()),
        ("drain", drain::tests()),
        ("faults", faults::tests()),
        ("forms", forms::tests()),
        ("guard", guard::tests()),
        ("hanging", hanging::tests()),
        ("injection", injection::tests()),
        ("instances", instances::tests()),
        ("layouts", layouts::tests()),
        ("load", load::tests()),
        ("locks", locks::tests()),
        ("moving", moving::tests()),
        ("named", named::tests()),
        ("old_processes", old_processes::tests()),
        ("owner", owner::tests()),
        ("progress", progress::tests()),
        ("readme", readme::tests()),
        ("rollback", rollback::tests()),
        ("procedure", procedure::tests()),
        ("reloads", reloads::tests()),
        ("running", running::tests()),
        ("state_file", state_file::tests()),
        ("states", states::tests()),
        ("strangers", strangers::tests()),
        ("sticky", sticky::tests()),
        ("transitions", transitions::tests()),
        ("transport", transport::tests()),
        ("traps", traps::tests()),
        ("wait", wait::tests()),
    ]
}

fn main() -> ExitCode {
    let named =
        modules().into_iter().flat_map(|(module, tests)| tests.into_iter().map(move |test| (module, test.name)));
    let names: Vec<String> = named.map(|(module, test)| format!("{module}::{test}")).collect();
    let outdated = Surroundings::outdated(&names);
    assert!(outdated.is_empty(), "no test has a name that begins with one of {outdated:?}");
    // The tests mostly wait for HAProxy. With more at once, two processors keep some of them waiting for too long.
    harness::main(8, |versions| versions.iter().flat_map(trials_on).collect())
}

fn trials_on(haproxy: &Haproxy) -> Vec<Trial> {
    let prefix = format!("{}::", haproxy.name);
    let tools = harness::trials(haproxy, &prefix, tools()).into_iter().map(|trial| trial.with_ignored_flag(true));
    harness::trials(haproxy, &prefix, modules()).into_iter().chain(tools).collect()
}
