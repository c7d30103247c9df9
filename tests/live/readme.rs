//! The front door, kept true: the examples of README.md are run as they stand, and the demo is played.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Haproxy, Stage, Test, TestResult};

pub(crate) fn tests() -> Vec<Test> {
    vec![("examples_show_what_happens", examples_show_what_happens), ("demo_plays_to_its_end", demo_plays_to_its_end)]
}

/// Stands in the page for the folder of the stage.
const FOLDER: &str = "/run/haproxy/";

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

/// Takes out what differs from run to run: process ids, versions and the ports of the servers.
fn comparable(output: &str) -> String {
    const DIFFERING: [&str; 3] = ["\"pid\": ", "\"version\": ", "\"address\": "];
    let line = |line: &str| match DIFFERING.iter().find(|key| line.trim_start().starts_with(*key)) {
        Some(key) => format!("{key}…\n"),
        None => format!("{line}\n"),
    };
    output.lines().map(line).collect()
}

fn examples_show_what_happens(haproxy: &Haproxy) -> TestResult {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))?;
    let stage = Stage::start(haproxy);
    // Discovery would find the instances of other tests too; this stands for a host that has these three only. A
    // request that comes through a pipe names its instances itself.
    let instances: Vec<String> = stage.instances().iter().map(|instance| instance.address()).collect();
    let program = env!("CARGO_BIN_EXE_haproxy_server");
    let script = format!(
        "#!/bin/sh\nif [ -p /dev/stdin ]; then exec '{program}' \"$@\"; fi\nexec '{program}' \"$@\" instances={}\n",
        instances.join(",")
    );
    let command = stage.folder.write("haproxy_server", &script);
    fs::set_permissions(&command, fs::Permissions::from_mode(0o755))?;
    let folder = format!("{}/", stage.folder.path().display());
    let path = format!("{folder}:{}", env::var("PATH").unwrap_or_default());

    let examples = examples(&page);
    assert!(examples.len() >= 6, "README.md has lost its examples");
    for Example { command, output } in examples {
        let done = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {}", command.replace(FOLDER, &folder))])
            .current_dir(stage.folder.path())
            .env("PATH", &path)
            .stdin(Stdio::null())
            .output()?;
        let shown = String::from_utf8(done.stdout)?.replace(&folder, FOLDER);
        assert!(
            comparable(&shown) == comparable(&output),
            "$ {command}\nREADME.md shows:\n{output}\nbut this came:\n{shown}"
        );
    }
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
