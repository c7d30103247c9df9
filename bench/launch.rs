//! Runs a command once and prints what it took: `launch STDIN STDOUT COMMAND...`.
//!
//! One line: nanoseconds from start to end, peak memory in KiB, exit code. Small itself, because the peak that the
//! kernel counts begins with that of the process that starts another.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a tool for measuring may panic")]

use std::env;
use std::fs::File;
use std::process::Command;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

fn main() {
    let mut arguments = env::args_os().skip(1);
    let mut next = || arguments.next().expect("STDIN STDOUT COMMAND...");
    let input = File::open(next()).expect("the standard input");
    let output = File::create(next()).expect("the standard output");
    let mut command = Command::new(next());
    command.args(arguments).stdin(input).stdout(output);
    let start = Instant::now();
    let status = command.status().expect("the command to start");
    let took = start.elapsed().as_nanos();
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).expect("what it has used").max_rss();
    println!("{took} {peak} {}", status.code().unwrap_or(-1));
}
