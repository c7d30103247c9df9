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

/// What takes longest, and so begins first: else it would end long after all the others, on one processor.
const LONG: [&str; 8] = [
    "ansible::leaves_out_what_fails_and_ends_the_rollout",
    "ansible::load_balancers_outside_of_the_play_take_turns",
    "puppet::8::examples_do_what_the_page_says",
    "ansible::takes_each_server_out_everywhere_and_puts_it_back",
    "ansible::examples_do_what_they_say",
    "salt::page_shows_what_happens",
    "ansible::sanity_tests_pass",
    "ansible::a_load_balancer_that_fails_leaves_nothing_half_out",
];

fn main() -> ExitCode {
    // The tools compute more than they wait: not many more at once than a small machine has processors.
    harness::main(4, |versions| {
        let mut trials = harness::trials(versions.last().expect("a version"), "", modules());
        trials.sort_by_key(|trial| LONG.iter().position(|name| *name == trial.name()).unwrap_or(LONG.len()));
        trials
    })
}
