//! Runs a command once and prints what it took: `launch STDIN STDOUT COMMAND...`.
//!
//! One line: nanoseconds from start to end, nanoseconds of CPU time, peak memory in KiB, exit code. Small itself, because
//! the peak that the kernel counts begins with that of the process that starts another.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a tool for measuring may panic")]

use std::env;
use std::fs::File;
use std::process::Command;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};

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
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).expect("what it has used");
    let cpu = TimeVal::num_nanoseconds(&(used.user_time() + used.system_time()));
    println!("{took} {cpu} {} {}", used.max_rss(), status.code().unwrap_or(-1));
}
