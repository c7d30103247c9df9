//! What the live tests are made of: HAProxy instances, the servers behind them, and the program under test.
//!
//! Whatever goes wrong in here panics: a stage that cannot be set up is a failed test.

// A tool box: not every test run takes every tool out of it.
#![allow(dead_code, unused_imports, unused_macros)]

use std::error::Error;
use std::fmt::Debug;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use backend::{
    Agent, Answer, Dns, Health, HttpBackend, Patroni, Response, TcpEcho, TcpTalker, get, get_with,
};
pub(crate) use client::{Bound, KeepAlive, Load, TcpClient, Visits};
pub(crate) use folder::Folder;
pub(crate) use haproxy::{Haproxy, Instance, Mode, Row, Rows, Session, Setup, ask};
pub(crate) use host::Host;
pub(crate) use nobody::Nobody;
pub(crate) use port::Port;
pub(crate) use program::{Program, Run, Running};
pub(crate) use recorder::{Recorder, changing};
pub(crate) use report::{commands, kind, server, servers, warnings};
pub(crate) use scripted::{Scripted, Step};
pub(crate) use skipped::skipped;
pub(crate) use stage::Stage;
pub(crate) use surroundings::Surroundings;
pub(crate) use terminal::OnTerminal;

pub(crate) mod accept;
pub(crate) mod alone;
pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod folder;
pub(crate) mod haproxy;
pub(crate) mod harness;
pub(crate) mod host;
pub(crate) mod logs;
pub(crate) mod nobody;
pub(crate) mod port;
pub(crate) mod program;
pub(crate) mod recorder;
pub(crate) mod report;
pub(crate) mod scripted;
pub(crate) mod skipped;
pub(crate) mod stage;
pub(crate) mod surroundings;
pub(crate) mod system_log;
pub(crate) mod tap;
pub(crate) mod terminal;

/// What a test gives back; it may as well panic.
pub(crate) type TestResult = Result<(), Box<dyn Error>>;

/// A test, to be run on one version.
pub(crate) type TestFn = fn(&Haproxy) -> TestResult;

/// A test with its name in its module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) run: TestFn,
    pub(crate) versions: Versions,
}

/// The HAProxy versions that a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Versions {
    /// On each that is found: what HAProxy does may differ.
    Each,
    /// On the newest alone in `make test`, since it is about the program; on each in `make test-all`.
    Newest,
}

impl Test {
    pub(crate) const fn on_each(name: &'static str, run: TestFn) -> Self {
        Self { name, run, versions: Versions::Each }
    }

    pub(crate) const fn on_newest(name: &'static str, run: TestFn) -> Self {
        Self { name, run, versions: Versions::Newest }
    }
}

/// Lists tests under their own names, to run on each version.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => { vec![$($crate::support::Test::on_each(stringify!($name), $name)),+] };
}
pub(crate) use tests;

/// Lists tests under their own names, to run on the newest version.
macro_rules! on_newest {
    ($($name:ident),+ $(,)?) => { vec![$($crate::support::Test::on_newest(stringify!($name), $name)),+] };
}
pub(crate) use on_newest;

/// Whether every test runs on every version of HAProxy and of its tool, as `make test-all` has it.
pub(crate) fn on_every_version() -> bool {
    std::env::var_os("HAPROXY_SERVER_EVERY_VERSION").is_some_and(|value| value == "1")
}

/// The longest that anything here waits for something that HAProxy does by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Root of the repository that is tested, also when several of them share one target folder.
pub(crate) fn repository() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Python itself. `python3` may be a script that looks for it, as pyenv's, and then takes five times as long to start.
pub(crate) fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let output = output.expect("python3 is on PATH");
        assert!(output.status.success(), "python3 fails: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a path of text").trim_end().to_owned()
    })
}

/// Polls `probe` until it gives a value.
///
/// # Panics
///
/// After `limit`, with `what` was waited for.
pub(crate) fn eventually<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    eventually_seen(limit, what, || probe().ok_or(()))
}

/// Polls `probe` until it gives a value; its error is what it has seen instead.
///
/// # Panics
///
/// After `limit`, with `what` was waited for and what was seen last.
pub(crate) fn eventually_seen<T, S: Debug>(limit: Duration, what: &str, mut probe: impl FnMut() -> Result<T, S>) -> T {
    let end = Instant::now() + limit;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) => assert!(Instant::now() < end, "waited {limit:?} in vain for {what}; last seen: {seen:?}"),
        }
        thread::sleep(Duration::from_millis(10));
    }
}
