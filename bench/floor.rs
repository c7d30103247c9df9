//! The floor of the benchmark: what it takes to talk to HAProxy at all, and nothing else.
//!
//! `floor SOCKET[=COMMANDS]...` asks each socket for `show servers state`; with a file of commands it then sends
//! these, and asks again. `SOCKET?COMMAND` asks that one command. Answers are thrown away, instances are worked on side
//! by side.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a tool for measuring may panic")]

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

fn main() {
    let jobs: Vec<String> = env::args().skip(1).collect();
    match jobs.as_slice() {
        [one] => work(one),
        many => thread::scope(|scope| {
            for job in many {
                scope.spawn(|| work(job));
            }
        }),
    }
}

fn work(job: &str) {
    if let Some((socket, command)) = job.split_once('?') {
        ask(socket, format!("{command}\n").as_bytes());
        return;
    }
    let (socket, commands) = job.split_once('=').map_or((job, None), |(socket, file)| (socket, Some(file)));
    ask(socket, b"show servers state\n");
    if let Some(file) = commands {
        let mut lines = b"prompt\n".to_vec();
        lines.extend(fs::read(file).expect("a file of commands"));
        lines.extend(b"quit\n");
        ask(socket, &lines);
        ask(socket, b"show servers state\n");
    }
}

/// Sends all of it while the answers are read and thrown away, up to their end.
fn ask(socket: &str, mut text: &[u8]) {
    /// HAProxy takes this much before its answers must be read.
    const WINDOW: usize = 8 << 10;
    let mut stream = UnixStream::connect(socket).expect("a stats socket");
    let mut buffer = vec![0; 64 << 10];
    while !text.is_empty() {
        let sent = stream.write(&text[..text.len().min(WINDOW)]).expect("to send");
        text = &text[sent..];
        if !text.is_empty() && stream.read(&mut buffer).expect("an answer") == 0 {
            return;
        }
    }
    while stream.read(&mut buffer).expect("an answer") > 0 {}
}
