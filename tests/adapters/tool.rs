//! Runs of the tools that the adapters belong to.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::repository;

/// The longest that one run of a tool may take, in seconds.
const LIMIT: &str = "180";

/// What a run of a tool left.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit code; 124 after the time limit.
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Gives itself back when it ended with this exit code.
    ///
    /// # Panics
    ///
    /// With all of its output, if not.
    pub(crate) fn ended_with(self, code: i32) -> Self {
        assert!(self.code == code, "exit code {} instead of {code}\n{}{}", self.code, self.out, self.err);
        self
    }
}

/// A command that ends after the time limit at the latest, with nothing on standard input.
pub(crate) fn tool(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT]).arg(program.as_ref()).stdin(Stdio::null());
    command
}

/// A text that does to a terminal what it should not: a colour, DEL, another direction of writing.
pub(crate) const HOSTILE: &str = "x\u{1b}[31m\u{7f}\u{9b}2J\u{61c}\u{200f}\u{202e}\u{2066}\u{feff}\u{2028}y";

/// The signs of it that may be in a line of text which a user gives.
pub(crate) const TURNING: &str = "x\u{61c}\u{200f}\u{202e}\u{2066}\u{feff}y";

/// A report as the program writes it, in ASCII.
pub(crate) fn ascii(report: &serde_json::Value) -> String {
    let escaped = |sign: char| match sign {
        ' '..='~' => sign.to_string(),
        sign => format!("\\u{:04x}", u32::from(sign)),
    };
    report.to_string().chars().map(escaped).collect()
}

/// Asserts that nothing which a tool has shown does anything to a terminal.
pub(crate) fn assert_harmless(ran: &Ran) {
    let shown = format!("{}{}", ran.out, ran.err);
    let harmful =
        |sign: &char| HOSTILE.contains(*sign) && !sign.is_ascii_graphic() || sign.is_control() && *sign != '\n';
    let found: Vec<String> = shown.chars().filter(harmful).map(|sign| sign.escape_unicode().to_string()).collect();
    assert!(found.is_empty(), "{found:?} in {}", shown.escape_debug());
}

/// The same command where the program of this path is also in these folders of the system; nobody else sees it there.
pub(crate) fn with_program_in(folders: &[&str], program: &Path, command: &Command) -> Command {
    let lower = program.parent().expect("a folder").display();
    let mut script = String::new();
    for folder in folders {
        script.push_str(&format!("/bin/mount -t overlay overlay -o lowerdir={lower}:{folder} {folder} && "));
    }
    script.push_str("exec \"$@\"");
    // By their paths, because the command may have a PATH that leads nowhere.
    let mut wrapped = Command::new("/usr/bin/unshare");
    wrapped.arg(if nix::unistd::geteuid().is_root() { "-m" } else { "-rm" }).args(["/bin/sh", "-c", &script, "sh"]);
    wrapped.arg(Path::new("/usr/bin").join(command.get_program())).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

/// Puts a program into this folder which is this one, but for the version in its report: 9.9.9. It still works.
pub(crate) fn another_version(folder: &Path, program: &Path) -> PathBuf {
    let own = concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\"");
    let script = format!("#!/bin/sh\n'{}' \"$@\" | sed 's/{own}/\"version\":\"9.9.9\"/'\n", program.display());
    let (source, to) = (folder.join("another-version"), folder.join("haproxy_server"));
    std::fs::write(&source, script).expect("a file of our own");
    run(Command::new("install").args(["-m", "755"]).args([&source, &to])).ended_with(0);
    to
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: status.code().unwrap_or(-1), out: text(&stdout), err: text(&stderr) }
}

/// What `tests/adapters/<tool>/install` has laid under `.cache/<tool>`.
pub(crate) fn installed(path: &str) -> PathBuf {
    let path = repository().join(".cache").join(path);
    assert!(path.exists(), "{} is missing: run `make tools`", path.display());
    path
}
