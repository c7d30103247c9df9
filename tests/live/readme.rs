//! The front door, kept true: the examples of README.md and docs/ are run as they stand, and the demo is played.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::support::system_log::SystemLog;
use crate::support::{Haproxy, Host, Stage, Test, TestResult, get_with};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("examples_of_readme_show_what_happens", |haproxy| examples_show_what_happens(haproxy, "README.md", 6, None)),
        ("examples_of_reference_show_what_happens", |haproxy| {
            examples_show_what_happens(haproxy, "docs/reference.md", 1, None)
        }),
        ("examples_of_maintenance_show_what_happens", |haproxy| {
            examples_show_what_happens(haproxy, "docs/maintenance.md", 11, None)
        }),
        ("examples_of_monitoring_show_what_happens", |haproxy| {
            examples_show_what_happens(haproxy, "docs/monitoring.md", 5, None)
        }),
        ("examples_of_audit_show_what_happens", |haproxy| match SystemLog::start() {
            Some(log) => examples_show_what_happens(haproxy, "docs/audit.md", 4, Some(&log)),
            None => Ok(()),
        }),
        ("demo_plays_to_its_end", demo_plays_to_its_end),
    ]
}

/// Stand in the page for the folder of the stage, and for one below it.
const FOLDER: &str = "/run/haproxy/";
const STATE_FOLDER: &str = "/var/lib/haproxy/";

/// Stands in the page for the file that a log daemon writes.
const LOG_FILE: &str = "/var/log/syslog";

/// One command of the page with the output that the page shows.
struct Example<'a> {
    command: &'a str,
    output: String,
}

/// Every command of a `console` block; a line that starts with `$ ` is one.
fn examples(page: &str) -> Vec<Example<'_>> {
    let mut examples: Vec<Example<'_>> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if !inside {
        } else if let Some(command) = line.strip_prefix("$ ") {
            examples.push(Example { command, output: String::new() });
        } else {
            let example = examples.last_mut().expect("a command before its output");
            example.output.push_str(line);
            example.output.push('\n');
        }
    }
    examples
}

/// Takes out what differs from run to run: process ids, versions, the ports of the servers, and times.
fn comparable(output: &str) -> String {
    const DIFFERING: [&str; 3] = ["\"pid\": ", "\"version\": ", "\"address\": "];
    const UNTIL: &str = " until ";
    const LOGGED: &str = "haproxy_server[";
    let line = |line: &str| match DIFFERING.iter().find(|key| line.trim_start().starts_with(*key)) {
        Some(key) => format!("{key}…\n"),
        None => match (line.split_once(UNTIL), line.strip_prefix(LOGGED)) {
            (Some((before, rest)), _) => format!("{before}{UNTIL}…{}\n", rest.trim_start_matches(is_of_a_time)),
            (None, Some(rest)) => format!("{LOGGED}…{}\n", rest.trim_start_matches(|sign: char| sign.is_ascii_digit())),
            (None, None) => format!("{line}\n"),
        },
    };
    let in_columns = |text: &str| match text.contains(" ADDRESS ") || text.contains(" 127.0.0.1:") {
        true => text.split_whitespace().map(without_port).collect::<Vec<&str>>().join(" "),
        false => text.to_owned(),
    };
    output.lines().map(|text| line(&in_columns(text))).collect()
}

/// Takes the port off the address of a server.
fn without_port(word: &str) -> &str {
    word.strip_prefix("127.0.0.1:").map_or(word, |_| "127.0.0.1")
}

/// Tells whether a sign is one of those that RFC 3339 writes a time in UTC with.
fn is_of_a_time(sign: char) -> bool {
    sign.is_ascii_digit() || matches!(sign, '-' | ':' | 'T' | 'Z')
}

/// Runs the examples of a page, one after the other on one stage; it has at least so many.
fn examples_show_what_happens(haproxy: &Haproxy, name: &str, least: usize, log: Option<&SystemLog>) -> TestResult {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))?;
    let stage = Stage::start_with(haproxy, "check inter 200ms", |setup| setup);
    // docs/maintenance.md speaks of a client that downloads from web3 all the time.
    let frontend = stage.frontend("web");
    let client = thread::spawn(move || get_with(frontend, "/hold", &[("Cookie", "SRV=web3")]));
    stage.server("web3").await_held(1);
    let host = Host::with(stage.instances());
    // Every host that a page logs in to is this one.
    let ssh = host.folder().join("ssh");
    fs::write(&ssh, "#!/bin/sh\nshift\nexec sh -c \"$*\"\n")?;
    fs::set_permissions(ssh, fs::Permissions::from_mode(0o755))?;
    let folder = format!("{}/", stage.folder.path().display());
    let state_folder = format!("{folder}lib/");
    fs::create_dir(&state_folder)?;

    let examples = examples(&page);
    assert!(examples.len() >= least, "{name} has lost its examples");
    let log_file = stage.folder.join("syslog");
    let mut words = log.map(SystemLog::wrapper).unwrap_or_default();
    words.extend(["sh", "-c"].map(str::to_owned));
    for Example { command, output } in examples {
        let command_here = command
            .replace(STATE_FOLDER, &state_folder)
            .replace(LOG_FILE, &log_file.display().to_string())
            .replace(FOLDER, &folder);
        let done = Command::new(&words[0])
            .args(&words[1..])
            .arg(format!("exec 2>&1; {command_here}"))
            .env_remove("SUDO_USER")
            .current_dir(stage.folder.path())
            .env("PATH", host.path())
            .env("XDG_RUNTIME_DIR", stage.folder.path())
            .stdin(Stdio::null())
            .output()?;
        if let Some(log) = log {
            let lines: String =
                log.take().iter().map(|line| line.split_once('>').expect("a priority").1.to_owned() + "\n").collect();
            File::options().create(true).append(true).open(&log_file)?.write_all(lines.as_bytes())?;
        }
        let shown = String::from_utf8(done.stdout)?.replace(&state_folder, STATE_FOLDER).replace(&folder, FOLDER);
        assert!(
            comparable(&shown) == comparable(&output),
            "$ {command}\n{name} shows:\n{output}\nbut this came:\n{shown}"
        );
    }
    stage.server("web3").release();
    let answer = client.join().expect("the client to end")?;
    assert_eq!(answer.body, "web3", "the examples have cut the client");
    Ok(())
}

fn demo_plays_to_its_end(haproxy: &Haproxy) -> TestResult {
    let done = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/demo/run"))
        .args(["--program", env!("CARGO_BIN_EXE_haproxy_server"), "--haproxy"])
        .arg(&haproxy.binary)
        .stdin(Stdio::null())
        .output()?;
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{}\n{out}{err}", done.status);
    let folder = out.lines().find_map(|line| line.strip_prefix("$ instances=")?.split("/http.sock").next());
    let folder = folder.expect("the demo says where its sockets are");
    assert!(!Path::new(folder).exists(), "the demo has left {folder}");
    for entry in fs::read_dir("/proc")?.flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&command).contains(folder), "the demo has left {:?}", entry.file_name());
    }
    Ok(())
}
