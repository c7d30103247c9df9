//! The program under test: one run of it, with its report.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jsonschema::Validator;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::repository;

/// The longest that a run may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A run of the program that is yet to be started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    input: Option<Vec<u8>>,
    wrapper: Vec<OsString>,
    binary: Option<PathBuf>,
    stdin: StdinEnd,
}

/// What becomes of standard input after the request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum StdinEnd {
    /// It is closed.
    #[default]
    Closed,
    /// It stays open until the program has ended.
    Open,
}

impl Program {
    /// Without arguments and with an empty standard input.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// With the request on standard input.
    ///
    /// # Panics
    ///
    /// If the published schema does not accept the request.
    pub(crate) fn request(request: &Value) -> Self {
        validate("request.schema.json", request);
        Self::input(request.to_string())
    }

    /// With a request that is meant to be refused, or any other text, on standard input.
    pub(crate) fn input(text: impl Into<Vec<u8>>) -> Self {
        Self { input: Some(text.into()), ..Self::default() }
    }

    /// With the request in a file, which is written first.
    ///
    /// # Panics
    ///
    /// If the published schema does not accept the request.
    pub(crate) fn file(path: &Path, request: &Value) -> Self {
        validate("request.schema.json", request);
        std::fs::write(path, request.to_string()).expect("to write the request");
        Self::new().arg(path)
    }

    /// With the request as words, as in `["server=web1", "state=maint"]`.
    pub(crate) fn words<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Self {
        words.into_iter().fold(Self::new(), Self::arg)
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs it by another program, as in `["setpriv", "--reuid", "1000"]`: its command line comes after these words.
    pub(crate) fn under<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.wrapper = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// The program that is tested: the one that `HAPROXY_SERVER_PROGRAM` names, as `make test` has what is released, or
    /// else the one that Cargo has built beside the tests.
    pub(crate) fn path() -> &'static Path {
        static PATH: OnceLock<PathBuf> = OnceLock::new();
        PATH.get_or_init(|| match env::var_os("HAPROXY_SERVER_PROGRAM") {
            Some(path) => repository().join(path),
            None => env!("CARGO_BIN_EXE_haproxy_server").into(),
        })
    }

    /// Runs this copy of the program, e.g. one that an ordinary user may read.
    pub(crate) fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }

    /// Leaves standard input open after the request, until the program has ended.
    pub(crate) fn keep_stdin_open(mut self) -> Self {
        self.stdin = StdinEnd::Open;
        self
    }

    /// Starts it and does not wait for it.
    pub(crate) fn spawn(self) -> Running {
        let binary = self.binary.as_deref().unwrap_or_else(|| Self::path());
        let mut words = self.wrapper.iter().map(OsString::as_os_str).chain([binary.as_os_str()]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).args(&self.arguments).envs(self.environment);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // In a group of its own, as a shell starts it: the kernel lets nobody stop a group that no shell could continue.
        command.process_group(0);
        let mut child = command.spawn().expect("the program to start");
        let mut stdin = child.stdin.take().expect("its standard input");
        let input = self.input.unwrap_or_default();
        // On a thread, because the program may answer before it has read all; it may also never read.
        let kept = match self.stdin {
            StdinEnd::Open => Some(stdin.as_fd().try_clone_to_owned().expect("a second handle")),
            StdinEnd::Closed => None,
        };
        thread::spawn(move || stdin.write_all(&input));
        let stdout = drain(child.stdout.take().expect("its standard output"));
        let stderr = drain(child.stderr.take().expect("its standard error"));
        Running { child, stdout, stderr, started: Instant::now(), arguments: self.arguments, _stdin: kept }
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Run {
        self.spawn().wait()
    }

    /// Runs it to its end and returns its report.
    pub(crate) fn report(self) -> Value {
        self.run().report()
    }
}

/// Copies the program to a place where others may execute it.
///
/// By another process: a file that this one writes may still be open in a child that another test just starts, and is
/// too busy to be executed then.
pub(crate) fn copy_program(to: &Path) {
    let copied = Command::new("cp").arg(Program::path()).arg(to).status().expect("cp");
    assert!(copied.success(), "cannot copy the program to {}", to.display());
}

/// A run that goes on.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    started: Instant,
    arguments: Vec<OsString>,
    _stdin: Option<OwnedFd>,
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a process id"));
        kill(pid, signal).expect("a run that can be signalled");
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells whether it has ended.
    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// After 60 s; the program is killed then.
    pub(crate) fn wait(mut self) -> Run {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            if self.started.elapsed() > LIMIT {
                let _ = self.child.kill();
                let _ = self.child.wait();
                let stderr = String::from_utf8_lossy(&self.stderr.join().unwrap_or_default()).into_owned();
                panic!("the program did not end within {LIMIT:?}: {:?}\n{stderr}", self.arguments);
            }
            thread::sleep(Duration::from_millis(2));
        };
        let text = |thread: JoinHandle<Vec<u8>>| {
            String::from_utf8(thread.join().expect("a reader")).expect("the program to write UTF-8")
        };
        Run {
            code: status.code(),
            elapsed: self.started.elapsed(),
            stdout: text(self.stdout),
            stderr: text(self.stderr),
        }
    }
}

/// A run that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) elapsed: Duration,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Its report: one line of ASCII with one JSON object, as the published schema has it.
    pub(crate) fn report(&self) -> Value {
        let text = &self.stdout;
        let line = text.strip_suffix('\n').unwrap_or(text);
        assert!(
            line.is_ascii() && !line.contains('\n') && !line.is_empty(),
            "a report is one line of ASCII, not {text:?}; standard error: {}",
            self.stderr
        );
        let report = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in the report {line}"));
        validate("report.schema.json", &report);
        report
    }
}

fn drain(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

/// Validates a document with one of the published schemas.
fn validate(schema: &str, document: &Value) {
    static SCHEMAS: [(&str, OnceLock<Validator>); 2] =
        [("request.schema.json", OnceLock::new()), ("report.schema.json", OnceLock::new())];
    let (name, validator) = SCHEMAS.iter().find(|(name, _)| *name == schema).expect("one of the two schemas");
    let validator = validator.get_or_init(|| load_schema(name));
    let faults: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(faults.is_empty(), "{schema} does not accept {document}:\n{}", faults.join("\n"));
}

fn load_schema(name: &str) -> Validator {
    let path = repository().join("schema").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let schema = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    jsonschema::draft202012::new(&schema).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
