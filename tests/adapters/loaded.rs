//! Tools that are loaded once and run many times, each run in a fork of its own.
//!
//! A run does what it always does and costs about half, because most of a short one is loading the tool.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::support::{Folder, eventually_seen, repository};
use crate::tool::Ran;

/// The longest that one run may take.
const LIMIT: Duration = Duration::from_secs(180);

/// A tool that waits for runs; it ends with this value, and so does what it runs.
#[derive(Debug)]
pub(crate) struct Loaded {
    child: RefCell<Child>,
    folder: Folder,
    runs: Cell<u32>,
}

impl Loaded {
    /// Loads a tool by one of the scripts in `tests/adapters/loaded/`, which `command` is an interpreter of.
    pub(crate) fn start(mut command: Command, script: &str) -> Self {
        let folder = Folder::new();
        let log = File::create(folder.join("log")).expect("a file of our own");
        command.arg(repository().join("tests/adapters/loaded").join(script)).process_group(0);
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("the same file")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        Self { child: RefCell::new(child), folder, runs: Cell::new(0) }
    }

    /// Runs the tool with these words, in the folder that this process is in.
    pub(crate) fn run(&self, words: impl IntoIterator<Item = OsString>) -> Ran {
        let number = self.runs.get();
        self.runs.set(number + 1);
        let [out, err, code] = ["out", "err", "code"].map(|name| self.folder.join(&format!("{name}.{number}")));
        let here = std::env::current_dir().expect("a folder");
        let mut record = Vec::new();
        for word in [here.as_os_str(), out.as_os_str(), err.as_os_str(), code.as_os_str()] {
            record.extend([word.as_bytes(), b"\x1f"].concat());
        }
        for word in words {
            record.extend([word.as_bytes(), b"\x1f"].concat());
        }
        record.push(b'\x1e');
        let log = || read(&self.folder.join("log"));
        let mut child = self.child.borrow_mut();
        let requests = child.stdin.as_mut().expect("a pipe");
        requests.write_all(&record).unwrap_or_else(|error| panic!("{error}: {}", log()));
        let code = eventually_seen(LIMIT, "the run of a tool to end", || {
            // In this order: it may write the code and end.
            let end = child.try_wait().expect("a child");
            let code = read(&code).strip_suffix('\n').and_then(|code| code.parse().ok());
            assert!(code.is_some() || end.is_none(), "the tool has died: {end:?}\n{}{}", log(), read(&err));
            code.ok_or_else(|| [log(), read(&out), read(&err)])
        });
        Ran { code, out: read(&out), err: read(&err) }
    }

    /// The text of a shell script that runs the tool with the words it was given, one run at a time. Only the environment is that
    /// of this value; both outputs become one.
    pub(crate) fn script(&self) -> String {
        let limit = LIMIT.as_secs();
        let (process, folder) = (self.child.borrow().id(), self.folder.path().display());
        format!(
            "#!/bin/sh\nrun=$(mktemp -d '{folder}/run.XXXXXX') && mkfifo \"$run/code\" || exit 125\n\
             {{ printf '%s\\037' \"$PWD\" \"$run/out\" \"$run/out\" \"$run/code\" \"$@\"; printf '\\036'; }} >/proc/{process}/fd/0 || exit 125\n\
             code=$(timeout {limit} cat \"$run/code\") || exit 125\ncat \"$run/out\"\nexit \"$code\"\n"
        )
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        if let Ok(group) = child.id().try_into() {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = child.wait();
    }
}
