//! The edge of the process: arguments, one request read, one report written, the exit code.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "only this file writes to the outside")]

mod cli;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use haproxy_server::model::error::{Error, ErrorKind};
use haproxy_server::model::memory::could_have;
use haproxy_server::model::text::printable;
use haproxy_server::pipeline;
use haproxy_server::report::{self, Colours, Health, Report, to_ascii_json};
use haproxy_server::request::{Draft, REQUEST_MAX, Refused, Request};
use haproxy_server::time::deadline::Progress;
use haproxy_server::time::interrupt::Interrupt;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::cli::{ExitCodes, Format, HELP, Options};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (options, parsed) = if args.is_empty() && io::stdin().is_terminal() {
        (Options { print: Some(HELP), ..Options::default() }, Ok(()))
    } else {
        Options::parse(args)
    };
    if let (Some(text), Ok(())) = (options.print, &parsed) {
        return write_out(text).map_or_else(|code| code, |()| ExitCode::SUCCESS);
    }
    let request = parsed
        .map_err(|why| bad(&why))
        .inspect(|()| allow_descriptors())
        .and_then(|()| Interrupt::hold().map_err(|errno| internal(&format!("cannot hold back signals: {errno}"))));
    let refuse = |error| Refused { error, is_task: false, dry_run: options.dry_run };
    let request = request.map_err(refuse).and_then(|interrupt| {
        let mut draft = read_request(&options, &interrupt).map_err(refuse)?;
        if options.dry_run {
            draft.set_dry_run();
        }
        let request = draft.check()?;
        check_format(&options, &request)?;
        Ok((request, interrupt))
    });
    finish(&options, request)
}

/// Allows as many open files as the host does, since every instance needs some.
fn allow_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // If that is refused, the limit is as it was.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Refuses a change in a form that is for a status.
fn check_format(options: &Options, request: &Request) -> Result<(), Refused> {
    match options.format {
        Format::Json | Format::Text | Format::Table => Ok(()),
        Format::Nagios if request.goal.is_none() => Ok(()),
        Format::Nagios => {
            let msg = "'--format nagios' only shows a status; leave out 'state', 'weight', 'health' and 'agent'";
            Err(Refused { error: bad(msg), is_task: request.is_task, dry_run: request.dry_run })
        }
    }
}

/// Runs the request and writes its report, or why it was refused.
fn finish(options: &Options, request: Result<(Request, Interrupt), Refused>) -> ExitCode {
    match request {
        Err(refused) => write_report(options, None, &report::refusal(&refused)),
        Ok((request, interrupt)) => {
            let outcome = show_progress(options, &request, |progress| pipeline::run(&request, &interrupt, progress));
            let code = write_report(options, Some(&request), &report::report(&request, &outcome));
            // Its memory goes with the process; freeing a hundred thousand servers one by one takes 30 ms.
            std::mem::forget(outcome);
            code
        }
    }
}

/// How much of a line is shown, so that it fits on one line of any terminal.
const PROGRESS_MAX: usize = 79;

/// Shows the progress of waits in one terminal line, which is overwritten and cleared at the end.
///
/// A terminal that has shown no progress gets no byte, and a tool is shown none: with `ssh -tt` the report goes to the
/// same terminal. A terminal that takes nothing (Ctrl-S) is not waited for, since the run may hold locks.
fn show_progress<R>(options: &Options, request: &Request, run: impl FnOnce(Progress<'_>) -> R) -> R {
    let is_watched = !request.by_tool && options.format != Format::Nagios && io::stderr().is_terminal();
    let Some(terminal) = is_watched.then(terminal).flatten() else { return run(&|_| ()) };
    let shown = AtomicBool::new(false);
    let show = |line: &str| (&terminal).write_all(format!("{CLEAR}{line}").as_bytes());
    let result = run(&|line| {
        let line: String = line.chars().take(PROGRESS_MAX).collect();
        if show(&line).is_ok() {
            shown.store(true, Ordering::Relaxed);
        }
    });
    if shown.into_inner() {
        let _ = show("");
    }
    result
}

/// Goes back to the beginning of the line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// Opens the terminal of standard error once more, so that only this program writes to it without waiting; `None` if the
/// caller may not.
fn terminal() -> Option<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    File::options().write(true).custom_flags(flags.bits()).open("/proc/self/fd/2").ok()
}

fn internal(msg: &str) -> Error {
    Error::new(ErrorKind::Internal, msg)
}

/// Reads the request from where the command line says.
fn read_request(options: &Options, interrupt: &Interrupt) -> Result<Draft, Error> {
    let is_word = |word: &str| {
        word.split_once('=').is_some_and(|(key, _)| {
            key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        })
    };
    let bytes = match options.words.as_slice() {
        [] if io::stdin().is_terminal() => return Ok(Draft::default()),
        [] => read_bounded(io::stdin().as_fd(), "standard input", options, interrupt),
        [file] if !is_word(file) => File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(file)
            .map_err(|error| bad(&format!("cannot read the request from '{}': {error}", file.escape_debug())))
            .and_then(|opened| read_bounded(opened.as_fd(), file, options, interrupt)),
        words => return Draft::from_words(words),
    };
    Draft::from_json(&bytes?)
}

fn bad(msg: &str) -> Error {
    Error::new(ErrorKind::BadRequest, msg)
}

/// Reads to the end, but not more than the largest request, nor longer than allowed.
fn read_bounded(fd: BorrowedFd<'_>, what: &str, options: &Options, interrupt: &Interrupt) -> Result<Vec<u8>, Error> {
    let timeout = options.stdin_timeout;
    let until = Instant::now() + timeout;
    let cannot = |error: &dyn std::fmt::Display| bad(&format!("cannot read the request from {what}: {error}"));
    let mut file = File::from(fd.try_clone_to_owned().map_err(|error| cannot(&error))?);
    let mut bytes = Vec::new();
    let mut chunk = [0; 8 << 10];
    while bytes.len() <= REQUEST_MAX {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let msg = format!(
                "{what} did not end within {} s; close it after the request, or allow more time with \
                               --stdin-timeout",
                timeout.as_secs_f64()
            );
            return Err(bad(&msg));
        }
        let mut waiting = vec![PollFd::new(fd, PollFlags::POLLIN)];
        waiting.extend(interrupt.as_fd().map(|signals| PollFd::new(signals, PollFlags::POLLIN)));
        let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut waiting, limit) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(cannot(&errno.desc())),
        }
        if let Some(interrupted) = interrupt.check() {
            return Err(interrupted);
        }
        interrupt.stop_if_asked();
        let is_ready = waiting.first().and_then(PollFd::any).unwrap_or_default();
        if !is_ready {
            continue;
        }
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(chunk.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(cannot(&error)),
        }
    }
    Ok(bytes)
}

/// Writes the report in the requested form, and returns the exit code.
fn write_report(options: &Options, request: Option<&Request>, report: &Report<'_>) -> ExitCode {
    let plain = |ending| exit_code(options.exit_codes, ending);
    let unwritten = Ending { failed: true, ..Ending::of(report) };
    // A failure without servers to show is only a line on standard error.
    let shown = request.filter(|_| !report.failed || !report.servers.is_empty());
    let (written, code, if_not_written) = match options.format {
        Format::Json => (write_json(report), plain(Ending::of(report)), plain(unwritten)),
        Format::Text => {
            let text = shown.map(|request| report::text(request, report)).unwrap_or_default();
            (write_for_people(report, &text), plain(Ending::of(report)), plain(unwritten))
        }
        Format::Table => {
            let table = shown.map(|request| report::table(request, report, colours())).unwrap_or_default();
            (write_for_people(report, &table), plain(Ending::of(report)), plain(unwritten))
        }
        // Icinga shows what comes on standard error as well, so that there is nothing.
        Format::Nagios => {
            let (health, line) = report::nagios(request, report);
            (write_stdout(&line), health.code(), Health::Unknown.code())
        }
    };
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            // Whoever cannot read the report must not take the run for a success.
            let _ = writeln!(io::stderr(), "error: cannot write the report: {error}");
            ExitCode::from(if_not_written)
        }
        Ok(()) | Err(_) => ExitCode::from(code),
    }
}

fn write_json(report: &Report<'_>) -> io::Result<()> {
    // Not through `io::stdout()`, which searches every piece for its last line end.
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    // Where memory is short, a report that says so still needs to be written.
    let at_a_time = [64 << 10, 1 << 10].into_iter().find(|size| could_have(*size)).unwrap_or_default();
    let mut out = BufWriter::with_capacity(at_a_time, File::from(stdout));
    to_ascii_json(&mut out, report).and_then(|()| out.flush())
}

/// Writes warnings and the failure to standard error, and the rest to standard output.
fn write_for_people(report: &Report<'_>, text: &str) -> io::Result<()> {
    let mut err = io::stderr().lock();
    for warning in &report.warnings {
        let _ = writeln!(err, "warning: {}", printable(warning));
    }
    if report.failed {
        let _ = writeln!(err, "error: {}", printable(&report.msg));
    }
    write_stdout(text)
}

fn write_stdout(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Tells whether a table may have colours: on a terminal that has them, unless somebody does without (no-color.org).
fn colours() -> Colours {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    if io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb { Colours::Shown } else { Colours::Plain }
}

fn write_out(text: &str) -> Result<(), ExitCode> {
    match write_stdout(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "error: cannot write to standard output: {error}");
            Err(ExitCode::from(1))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The part of a report that the exit code reflects.
#[derive(Debug, Clone, Copy)]
struct Ending {
    changed: bool,
    failed: bool,
    /// Whether a status has found a server that is not ok.
    is_not_ok: bool,
}

impl Ending {
    fn of(report: &Report<'_>) -> Self {
        Self { changed: report.changed, failed: report.failed, is_not_ok: report.ok == Some(false) }
    }
}

/// The exit code for a report: plain ones show failure only, detailed ones are Puppet's.
fn exit_code(codes: ExitCodes, ending: Ending) -> u8 {
    match (codes, ending.failed, ending.changed) {
        (ExitCodes::Plain, failed, _) => u8::from(failed),
        (ExitCodes::Detailed, true, changed) => {
            if changed {
                6
            } else {
                4
            }
        }
        (ExitCodes::Detailed, false, changed) => {
            if changed || ending.is_not_ok {
                2
            } else {
                0
            }
        }
    }
}
