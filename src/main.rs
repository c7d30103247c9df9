//! The edge of the process: arguments, one request read, one report written, the exit code.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the only file that writes to the outside")]

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use haproxy_server::act::fleet::Progress;
use haproxy_server::model::error::{Error, ErrorKind};
use haproxy_server::pipeline;
use haproxy_server::report::{self, Report, printable, to_ascii_json};
use haproxy_server::request::{self, Overrides, REQUEST_MAX, Refused, Request};
use haproxy_server::time::interrupt::Interrupt;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What `--help` shows.
const HELP: &str = "\
Takes HAProxy backend servers out of service and puts them back.

Usage: haproxy_server [OPTIONS]                 reads a JSON request from standard input
       haproxy_server [OPTIONS] FILE            reads it from a file
       haproxy_server [OPTIONS] KEY=VALUE ...   takes it from words; a.b=c reaches into an object

  haproxy_server server=web1 state=maint        takes web1 out in all backends of all instances
  haproxy_server server=web1 state=ready        puts it back
  haproxy_server --format text                  shows all servers that are not ok

Fields of a request (all of them: haproxy_server --schema request):
  server=NAMES          names, backend/server, or patterns (* ? [..]), separated by commas
  state=ready|drain|maint   the wanted state; without it nothing is changed
  weight=0..256|N%      the wanted weight
  backend=NAMES         only in these backends
  instances=NAMES       only on these HAProxy instances: names, or addresses of stats sockets
  health=enabled|disabled, agent=enabled|disabled   health and agent checks
  drain=true            before maint, until no session is left
                        (drain.timeout=SECONDS, drain.on_timeout=fail|rollback|maint|shutdown)
  shutdown_sessions=true    ends the sessions that are left in maint
  wait=true             after the change, until servers take traffic or are free of sessions
                        (wait.timeout=SECONDS, wait.stable=SECONDS)
  guard.min_available=N|N%  refuses to leave fewer usable servers in a backend
  expect.admin_state=STATE  refuses where a server is in another state
  on_failure=keep|rollback  what happens to what was changed when a later part fails
  state_file=PATH       HAProxy's server-state file, kept in step (state_file.INSTANCE=PATH,
                        state_file.INSTANCE/BACKEND=PATH)
  owner=NAME, reason=TEXT, expires=+2h, ignore_owner=true    who takes a server out, why, until when
  on_missing=fail|fail_each|elsewhere_ok|ignore    what a name that matches nothing means
  on_unreachable=fail|skip  what an instance that cannot be asked means
  dry_run=BOOL, diff=BOOL, timeout=SECONDS, lock_timeout=SECONDS

Options:
  --dry-run             plans and reports, but changes nothing
  --format json|text    the form of the report (default: json)
  --detailed-exitcodes  0 nothing changed, 2 changed or not ok, 4 failed, 6 failed after a change
  --schema request|report   prints the JSON Schema
  --stdin-timeout SECONDS   how long to wait for the request (default: 30)
  --version, --help

Without --detailed-exitcodes the exit code is 0, or 1 when something failed.
";

const REQUEST_SCHEMA: &str = include_str!("../schema/request.schema.json");
const REPORT_SCHEMA: &str = include_str!("../schema/report.schema.json");

/// How the report is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Format {
    #[default]
    Json,
    Text,
}

/// Which exit codes are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum ExitCodes {
    #[default]
    Plain,
    Detailed,
}

/// What the command line says.
#[derive(Debug, Default)]
struct Options {
    format: Format,
    exit_codes: ExitCodes,
    overrides: Overrides,
    stdin_timeout: Option<Duration>,
    print: Option<&'static str>,
    words: Vec<String>,
}

fn main() -> ExitCode {
    let mut options = Options::default();
    let parsed = parse(std::env::args_os().skip(1), &mut options);
    if parsed.is_ok()
        && let Some(text) = options.print
    {
        return write_out(text.as_bytes()).map_or_else(|code| code, |()| ExitCode::SUCCESS);
    }
    let interrupt = match Interrupt::hold() {
        Ok(interrupt) => interrupt,
        Err(errno) => {
            return finish(&options, Err(refused(&options, internal(&format!("cannot hold signals back: {errno}")))));
        }
    };
    let request = parsed.map_err(|msg| refused(&options, Error::new(ErrorKind::BadRequest, msg)));
    finish(&options, request.and_then(|()| read_request(&options, &interrupt)).map(|request| (request, interrupt)))
}

/// Runs the request and writes its report, or the reason why it was refused.
fn finish(options: &Options, request: Result<(Request, Interrupt), Refused>) -> ExitCode {
    match request {
        Err(refused) => write_report(options, None, &report::refusal(&refused)),
        Ok((request, interrupt)) => {
            let outcome = show_progress(|progress| pipeline::run(&request, &interrupt, progress));
            write_report(options, Some(&request), &report::report(&request, &outcome))
        }
    }
}

/// How much of a line is shown, so that it is one line on any terminal.
const PROGRESS_MAX: usize = 79;

/// Shows how long waits go, in one line of a terminal that is written over and cleared in the end.
fn show_progress<R>(run: impl FnOnce(Progress<'_>) -> R) -> R {
    if !io::stderr().is_terminal() {
        return run(&|_| ());
    }
    let result = run(&|line| {
        let line: String = line.chars().take(PROGRESS_MAX).collect();
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
    });
    let _ = write!(io::stderr(), "\r\x1b[K");
    result
}

fn refused(options: &Options, error: Error) -> Refused {
    Refused { error, is_task: false, dry_run: options.overrides.dry_run }
}

fn internal(msg: &str) -> Error {
    Error::new(ErrorKind::Internal, msg)
}

/// Reads the command line; what is wrong with it is a sentence.
fn parse(args: impl Iterator<Item = std::ffi::OsString>, options: &mut Options) -> Result<(), String> {
    let args: Vec<String> = args
        .map(|arg| arg.into_string().map_err(|arg| format!("the argument {arg:?} is not valid UTF-8")))
        .collect::<Result<_, _>>()?;
    if args.is_empty() && io::stdin().is_terminal() {
        options.print = Some(HELP);
    }
    let mut args = args.into_iter();
    // What is wrong is said in the form that the other options ask for, wherever they stand.
    let mut problem = None;
    while let Some(arg) = args.next() {
        if let Err(why) = parse_one(arg, &mut args, options) {
            problem = problem.or(Some(why));
        }
    }
    problem.map_or(Ok(()), Err)
}

/// Reads one argument, and its value where that is the next one.
fn parse_one(arg: String, rest: &mut impl Iterator<Item = String>, options: &mut Options) -> Result<(), String> {
    let (name, attached) = match arg.split_once('=') {
        Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
        _ => (arg.clone(), None),
    };
    let has_value = matches!(name.as_str(), "--format" | "--schema" | "--stdin-timeout");
    let value = if has_value { attached.clone().or_else(|| rest.next()) } else { attached.clone() };
    match (name.as_str(), value.as_deref()) {
        ("--dry-run", None) => options.overrides.dry_run = true,
        ("--detailed-exitcodes", None) => options.exit_codes = ExitCodes::Detailed,
        ("--help" | "-h", None) => options.print = Some(HELP),
        ("--version" | "-V", None) => {
            options.print = Some(concat!("haproxy_server ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        ("--format", Some("json")) => options.format = Format::Json,
        ("--format", Some("text")) => options.format = Format::Text,
        ("--format", _) => return Err("--format takes 'json' or 'text'".to_owned()),
        ("--schema", Some("request")) => options.print = Some(REQUEST_SCHEMA),
        ("--schema", Some("report")) => options.print = Some(REPORT_SCHEMA),
        ("--schema", _) => return Err("--schema takes 'request' or 'report'".to_owned()),
        ("--stdin-timeout", value) => {
            let seconds = value.and_then(|value| value.parse::<f64>().ok());
            let seconds = seconds.filter(|seconds| (0.001..=86_400.0).contains(seconds));
            let seconds = seconds.ok_or("--stdin-timeout takes a number of seconds from 0.001 to 86400")?;
            options.stdin_timeout = Some(Duration::from_secs_f64(seconds));
        }
        ("--dry-run" | "--detailed-exitcodes" | "--help" | "-h" | "--version" | "-V", Some(_)) => {
            return Err(format!("'{name}' takes no value"));
        }
        (option, _) if option.starts_with('-') => {
            return Err(format!("'{}' is no option of haproxy_server (see --help)", option.escape_debug()));
        }
        _ => options.words.push(arg),
    }
    Ok(())
}

/// Reads the request from where the command line says.
fn read_request(options: &Options, interrupt: &Interrupt) -> Result<Request, Refused> {
    let is_word = |word: &str| {
        word.split_once('=').is_some_and(|(key, _)| {
            key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        })
    };
    let bytes = match options.words.as_slice() {
        [] if io::stdin().is_terminal() => Ok(b"{}".to_vec()),
        [] => read_bounded(io::stdin().as_fd(), "standard input", options, interrupt),
        [file] if !is_word(file) => File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(file)
            .map_err(|error| bad(&format!("cannot read the request from '{}': {error}", file.escape_debug())))
            .and_then(|opened| read_bounded(opened.as_fd(), file, options, interrupt)),
        words => return request::from_words(words, options.overrides),
    };
    bytes.map_err(|error| refused(options, error)).and_then(|bytes| request::from_json(&bytes, options.overrides))
}

fn bad(msg: &str) -> Error {
    Error::new(ErrorKind::BadRequest, msg)
}

/// Reads to the end, but not more than a request may have, nor longer than is allowed.
fn read_bounded(fd: BorrowedFd<'_>, what: &str, options: &Options, interrupt: &Interrupt) -> Result<Vec<u8>, Error> {
    let timeout = options.stdin_timeout.unwrap_or(Duration::from_secs(30));
    let until = Instant::now() + timeout;
    let cannot = |error: &dyn std::fmt::Display| bad(&format!("cannot read the request from {what}: {error}"));
    let mut file = File::from(fd.try_clone_to_owned().map_err(|error| cannot(&error))?);
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    while bytes.len() <= REQUEST_MAX {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let msg = format!(
                "{what} did not end within {} s; close it after the request, or give more time with \
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

/// Writes the report in the form that was asked for, and returns the exit code.
fn write_report(options: &Options, request: Option<&Request>, report: &Report<'_>) -> ExitCode {
    let code = exit_code(options.exit_codes, Ending::of(report));
    let written = match options.format {
        Format::Json => {
            // Not through `io::stdout()`, which looks for the last line end in every piece.
            let stdout = io::stdout().as_fd().try_clone_to_owned();
            stdout.and_then(|stdout| {
                let mut out = BufWriter::with_capacity(64 << 10, File::from(stdout));
                to_ascii_json(&mut out, report).and_then(|()| out.flush())
            })
        }
        Format::Text => {
            // A failure without a server to show is a sentence on standard error alone.
            let shown = request.filter(|_| !report.failed || !report.servers.is_empty());
            let text = shown.map(|request| report::text(request, report)).unwrap_or_default();
            let mut err = io::stderr().lock();
            for warning in &report.warnings {
                let _ = writeln!(err, "warning: {}", printable(warning));
            }
            if report.failed {
                let _ = writeln!(err, "error: {}", printable(&report.msg));
            }
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        }
    };
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            // Who cannot read the report must not take the run for a success.
            let _ = writeln!(io::stderr(), "error: cannot write the report: {error}");
            ExitCode::from(exit_code(options.exit_codes, Ending { failed: true, ..Ending::of(report) }))
        }
        Ok(()) | Err(_) => ExitCode::from(code),
    }
}

fn write_out(bytes: &[u8]) -> Result<(), ExitCode> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "error: cannot write to standard output: {error}");
            Err(ExitCode::from(1))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What of a report the exit code tells.
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

/// The exit code for a report: plain ones tell failure only, detailed ones are Puppet's.
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
