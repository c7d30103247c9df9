//! The soak: random requests to three HAProxy instances that are frozen, killed, reloaded and set by others meanwhile, with
//! an independent judge of every report. See tests/README.md.

// All of this is test code, but only `#[test]` functions are known as such to clippy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use nix::unistd::geteuid;
use support::{Haproxy, TestResult, harness, tests};

mod app;
mod dice;
mod judge;
mod judge_tests;
mod reader;
mod request;
mod rounds;
mod stage;
#[path = "../live/support/mod.rs"]
mod support;
mod trouble;

/// Tells the program that it has a `/run` of its own already.
const ALONE: &str = "SOAK_ALONE";

fn soak(haproxy: &Haproxy) -> TestResult {
    rounds::soak(haproxy)
}

/// This program, with a `/run` of its own: what is kept on the host is judged as well, so nobody else may keep anything there.
///
/// Nothing where it has one already, or cannot have it.
fn with_own_run() -> Option<Command> {
    let unshare = ["unshare", "--mount"];
    let works = || Command::new(unshare[0]).args([unshare[1], "true"]).output().is_ok_and(|it| it.status.success());
    if env::var_os(ALONE).is_some() || !geteuid().is_root() || !works() {
        return None;
    }
    let script = "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/user && exec \"$@\"";
    let mut command = Command::new(unshare[0]);
    command.args([unshare[1], "sh", "-c", script, "sh"]).arg(env::current_exe().ok()?);
    command.args(env::args_os().skip(1)).env(ALONE, "1");
    Some(command)
}

fn main() -> ExitCode {
    if let Some(mut alone) = with_own_run() {
        let error = alone.exec();
        eprintln!("cannot run unshare: {error}");
        return ExitCode::FAILURE;
    }
    harness::main(8, |versions| {
        let newest = versions.last().expect("a version");
        let of_judge = harness::trials(newest, "", vec![("judge", judge_tests::tests())]);
        let trials =
            |haproxy: &Haproxy| harness::trials(haproxy, &format!("{}::", haproxy.name), vec![("soak", tests![soak])]);
        of_judge.into_iter().chain(versions.iter().flat_map(trials)).collect()
    })
}
