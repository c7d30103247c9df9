//! The front door, kept true: the examples of README.md and docs/ are run as they stand, and the demo is played.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::support::system_log::SystemLog;
use crate::support::{
    Folder, Haproxy, Host, Patroni, Port, Program, Setup, Stage, TcpEcho, Test, TestResult, get_with,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::on_newest("examples_of_readme_show_what_happens", |haproxy| {
            examples_show_what_happens(haproxy, "README.md", 6, None)
        }),
        Test::on_newest("examples_of_reference_show_what_happens", |haproxy| {
            examples_show_what_happens(haproxy, "docs/reference.md", 1, None)
        }),
        Test::on_newest("examples_of_maintenance_show_what_happens", |haproxy| {
            examples_show_what_happens(haproxy, "docs/maintenance.md", 11, None)
        }),
        Test::on_newest("examples_of_tutorial_show_what_happens", |haproxy| {
            examples_show_what_happens(haproxy, "docs/tutorial.md", 8, None)
        }),
        Test::on_newest("examples_of_how_to_show_what_happens", |haproxy| {
            examples_show_what_happens(haproxy, "docs/how-to.md", 13, None)
        }),
        Test::on_newest("examples_of_monitoring_show_what_happens", |haproxy| {
            examples_show_what_happens(haproxy, "docs/monitoring.md", 6, None)
        }),
        Test::on_newest("examples_of_audit_show_what_happens", |haproxy| match SystemLog::start() {
            Some(log) => examples_show_what_happens(haproxy, "docs/audit.md", 4, Some(&log)),
            None => Ok(()),
        }),
        Test::on_newest("examples_of_databases_show_what_happens", examples_of_databases_show_what_happens),
        Test::on_each("demo_plays_to_its_end", demo_plays_to_its_end),
    ]
}

/// Stand in the page for the folder of the stage, and for one below it.
const FOLDER: &str = "/run/haproxy/";
const STATE_FOLDER: &str = "/var/lib/haproxy/";

/// Stands in the page for the file that a log daemon writes.
const LOG_FILE: &str = "/var/log/syslog";

/// One command of the page.
struct Example {
    command: String,
    /// The output that the page shows; `None` if it shows none, and the command only has to succeed.
    output: Option<String>,
}

/// Every command of the page, in its order: in a `console` block, a line that starts with `$ ` is one, and `> ` continues
/// it; a `sh` block is one as a whole. A block is left out where the line before it is a comment that says why (tests/docs.rs
/// checks that it does).
fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = "";
    let mut before = "";
    for line in page.lines() {
        let last = std::mem::replace(&mut before, line);
        if let Some(language) = line.strip_prefix("```") {
            let is_run = inside.is_empty() && !last.starts_with("<!-- not run by the tests: ");
            inside = match language {
                "console" if is_run => "console",
                "sh" if is_run => "sh",
                _ => "",
            };
            if inside == "sh" {
                examples.push(Example { command: "set -e".to_owned(), output: None });
            }
        } else if inside.is_empty() {
        } else if let ("console", Some(command)) = (inside, line.strip_prefix("$ ")) {
            examples.push(Example { command: command.to_owned(), output: Some(String::new()) });
        } else {
            let example = examples.last_mut().expect("a command before its continuation or output");
            let more = if inside == "sh" { Some(line) } else { line.strip_prefix("> ") };
            match (more, &mut example.output) {
                (Some(more), _) => {
                    example.command.push('\n');
                    example.command.push_str(more);
                }
                (None, Some(output)) => {
                    output.push_str(line);
                    output.push('\n');
                }
                (None, None) => unreachable!("only `console` blocks have output"),
            }
        }
    }
    examples
}

/// Takes out what differs from run to run: process ids, versions, the ports of the servers, and times.
fn comparable(output: &str) -> String {
    const DIFFERING: [&str; 3] = ["\"pid\": ", "\"version\": ", "\"address\": "];
    const TIMES: [&str; 2] = [" until ", " since "];
    const LOGGED: &str = "haproxy_server[";
    let line = |line: &str| match DIFFERING.iter().find(|key| line.trim_start().starts_with(*key)) {
        Some(key) => format!("{key}…\n"),
        None => match (TIMES.iter().find_map(|word| Some((word, line.split_once(word)?))), line.strip_prefix(LOGGED)) {
            (Some((word, (before, rest))), _) => format!("{before}{word}…{}\n", rest.trim_start_matches(is_of_a_time)),
            (None, Some(rest)) => format!("{LOGGED}…{}\n", rest.trim_start_matches(|sign: char| sign.is_ascii_digit())),
            (None, None) => format!("{line}\n"),
        },
    };
    let in_columns = |text: &str| match text.contains(" ADDRESS ") || text.contains(" 127.0.0.1:") {
        true => text.split_whitespace().map(without_port).collect::<Vec<&str>>().join(" "),
        false => text.to_owned(),
    };
    output.lines().map(|text| line(&in_columns(&without_code(text)))).collect()
}

/// Takes out the status code of a check that has failed: HAProxy shows none while the next check is running.
fn without_code(text: &str) -> String {
    text.replace("check failed: L7STS 503", "check failed: L7STS")
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
    let here =
        [(STATE_FOLDER, state_folder.clone()), (LOG_FILE, log_file.display().to_string()), (FOLDER, folder.clone())];
    let mut words = log.map(SystemLog::wrapper).unwrap_or_default();
    words.extend(["sh", "-c"].map(str::to_owned));
    for example in examples {
        let (shown, has_succeeded) = play(&example, &words, &here, &stage.folder, &host)?;
        if let Some(log) = log {
            let lines: String =
                log.take().iter().map(|line| line.split_once('>').expect("a priority").1.to_owned() + "\n").collect();
            File::options().create(true).append(true).open(&log_file)?.write_all(lines.as_bytes())?;
        }
        let Example { command, output } = example;
        match output {
            None => assert!(has_succeeded, "$ {command}\nof {name} fails:\n{shown}"),
            Some(output) => assert!(
                comparable(&shown) == comparable(&output),
                "$ {command}\n{name} shows:\n{output}\nbut this came:\n{shown}"
            ),
        }
    }
    stage.server("web3").release();
    let answer = client.join().expect("the client to end")?;
    assert_eq!(answer.body, "web3", "the examples have cut the client");
    Ok(())
}

/// Runs one command in the folder; returns what it shows, with the paths of the page instead of those of the test, and
/// whether it has succeeded.
fn play(
    example: &Example,
    words: &[String],
    here: &[(&str, String)],
    folder: &Folder,
    host: &Host,
) -> Result<(String, bool), Box<dyn Error>> {
    let command = here.iter().fold(example.command.to_owned(), |text, (page, test)| text.replace(page, test));
    let done = Command::new(&words[0])
        .args(&words[1..])
        .arg(format!("exec 2>&1; {command}"))
        .env_remove("SUDO_USER")
        .current_dir(folder.path())
        .env("PATH", host.path())
        .env("XDG_RUNTIME_DIR", folder.path())
        .stdin(Stdio::null())
        .output()?;
    let shown = String::from_utf8(done.stdout)?;
    Ok((here.iter().fold(shown, |text, (page, test)| text.replace(test, page)), done.status.success()))
}

/// Stands in for the command of Patroni.
const PATRONICTL: &str = "#!/bin/sh\nwhile [ \"$1\" != --candidate ]; do shift; done\necho \"$2\" >LEADER\n";

fn examples_of_databases_show_what_happens(haproxy: &Haproxy) -> TestResult {
    let name = "docs/databases.md";
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))?;
    let folder = Folder::new();
    let leader = folder.write("leader", "db1\n");
    let names = ["db1", "db2", "db3"];
    let (databases, roles) = (names.map(|_| TcpEcho::start()), names.map(|name| Patroni::start(name, &leader)));
    // The configuration of the page, in front of these.
    let (_, config) =
        page.split_once("```haproxy\n").and_then(|(_, rest)| rest.split_once("listen ")).expect("proxies");
    let (config, _) = config.split_once("```").expect("the end of the configuration");
    let mut config = format!("listen {}", config.replace("inter 3s", "inter 200ms"));
    for ((database, role), number) in databases.iter().zip(&roles).zip(1..) {
        let line = format!("10.0.0.{number}:5432 check port 8008");
        config = config.replace(&line, &format!("{} check port {}", database.address(), role.port()));
    }
    let fronts = [Port::reserve(), Port::reserve()];
    for (port, front) in ["5000", "5001"].iter().zip(&fronts) {
        config = config.replace(&format!(":{port}\n"), &format!("127.0.0.1:{}\n", front.number()));
    }
    let instance = Setup::new("db", &config).folder(&folder).defaults("mode tcp").start(haproxy);
    for (backend, server, is_up) in [("primary", "db2", 0), ("primary", "db3", 0), ("replicas", "db1", 0)] {
        instance.await_state(backend, server, (0, is_up));
    }
    let host = Host::with([&instance]);
    let patronictl = folder.write("patronictl", &PATRONICTL.replace("LEADER", &leader.display().to_string()));
    let installed = Command::new("install").args(["-m", "755"]).arg(patronictl).arg(host.folder()).status()?;
    assert!(installed.success());
    let words = ["sh", "-c"].map(str::to_owned);
    let addresses: Vec<String> = databases.iter().map(|database| database.address().to_string()).collect();
    let pages = ["10.0.0.1:5432", "10.0.0.2:5432", "10.0.0.3:5432"];
    let here: Vec<(&str, String)> = pages.into_iter().zip(addresses).collect();
    let examples = examples(&page);
    assert!(examples.len() > 7, "{name} has lost its examples");
    for example in examples {
        let (shown, _) = play(&example, &words, &here, &folder, &host)?;
        let Example { command, output } = example;
        let output = output.expect("only commands with output on this page");
        let same = |text: &str| without_code(text).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(same(&shown) == same(&output), "$ {command}\n{name} shows:\n{output}\nbut this came:\n{shown}");
    }
    Ok(())
}

fn demo_plays_to_its_end(haproxy: &Haproxy) -> TestResult {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recording = Folder::new();
    let picture = recording.join("demo.svg");
    let done = Command::new(root.join("tests/demo/run"))
        .arg("--program")
        .arg(Program::path())
        .arg("--haproxy")
        .arg(&haproxy.binary)
        .arg("--record")
        .arg(&picture)
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
    // How many requests each server has answered does not matter.
    let session = |path: &Path| -> Result<Vec<String>, std::io::Error> {
        let text = fs::read_to_string(path)?;
        Ok(text.lines().filter(|line| !line.contains(">#")).map(str::to_owned).collect())
    };
    let (recorded, shown) = (session(&picture)?, session(&root.join("docs/demo.svg"))?);
    assert!(recorded == shown, "docs/demo.svg shows another session: run tests/demo/run --record docs/demo.svg");
    Ok(())
}
