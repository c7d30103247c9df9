//! Every fenced block of the module's page, run in its order.

use std::collections::BTreeSet;
use std::fs;

use super::On;
use super::bolt;
use super::site::{Puppet, Site, assert_says, path_with, script};
use crate::page::{self, Block};
use crate::support::{Folder, Haproxy, Host, Stage, TestResult, repository};
use crate::tool::{self, Ran};

pub(crate) fn tests() -> Vec<On> {
    on_newest![examples_do_what_the_page_says]
}

const PAGE: &str = "modules/puppet/README.md";

/// The page's own places, and what stands for each of them here.
struct Places(Vec<(&'static str, String)>);

impl Places {
    fn here(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (shown, here)| text.replace(shown, here))
    }
}

/// Commands of a `console` block, each with the lines that it shows.
fn commands(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push((command, Vec::new())),
            None => commands.last_mut().expect("a command before its output").1.push(line),
        }
    }
    commands
}

fn examples_do_what_the_page_says(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let start = || Stage::start_with(haproxy, "weight 100", |setup| setup);
    let (stage, other) = (start(), start());
    let (host, other) = (Host::with(stage.instances()), (Host::with(other.instances()), other));
    let (bin, work) = (Folder::new(), Folder::new());
    let site = Site::with_path(puppet, "/nowhere");
    fs::remove_file(site.folder.join("modules/haproxy_server"))?;
    site.link("storeconfigs", &repository().join("tests/adapters/puppet/storeconfigs"));
    // The program comes by the first manifest, from a module of the user's own.
    fs::create_dir_all(site.folder.join("modules/profile/files"))?;
    fs::copy(host.command(), site.folder.join("modules/profile/files/haproxy_server"))?;
    let sum = tool::run(tool::tool("sha256sum").arg(host.command())).ended_with(0).out;
    let program = bin.join("haproxy_server").display().to_string();
    fs::create_dir(stage.folder.join("lib"))?;
    let options = site.options();
    let options: Vec<_> = options.iter().map(|option| option.to_string_lossy()).collect();
    let path = path_with(bin.path(), puppet.path());
    let plain = puppet.path().into_string().expect("a PATH of text");
    let loaded = site.load(&path);
    let run = script(&work, "run", &loaded.script());
    script(
        &bin,
        "puppet",
        &format!(
            "#!/bin/sh\napplication=$1; shift\nexec '{}' puppet \"$application\" {} \"$@\"\n",
            run.display(),
            options.join(" ")
        ),
    );
    let bolt = bolt::bolt(puppet, &work, &[("lb1", &host), ("lb2", &other.0)]);
    std::os::unix::fs::symlink(bolt, bin.join("bolt"))?;
    let folders: Vec<String> = plain.split(':').map(|folder| format!("'{folder}'")).collect();
    let places = Places(vec![
        ("/tmp", work.path().display().to_string()),
        // The page has a file of its own.
        ("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", sum[..64].to_owned()),
        ("'/usr/bin', '/usr/local/bin'", format!("'{}', {}", bin.path().display(), folders.join(", "))),
        ("/var/lib/haproxy/", format!("{}/", stage.folder.join("lib").display())),
        ("/run/haproxy/http.sock", stage.http.address()),
        // No test starts a service of this machine.
        (
            "service { 'haproxy':\n",
            "service { 'haproxy':\n  provider => base, status => 'true', start => 'false',\n".to_owned(),
        ),
    ]);
    let shell = |command: &str, folder: &std::path::Path| -> Ran {
        let mut shell = tool::tool("sh");
        shell.args(["-c", &format!("exec 2>&1; {command}")]).current_dir(folder);
        tool::run(shell.env("PATH", &path).env("HOME", site.folder.path()))
    };
    let state = |backend: &str, server: &str| {
        let instance = stage
            .instances()
            .into_iter()
            .find(|instance| instance.rows().contains_key(&(backend.to_owned(), server.to_owned())));
        instance.expect("a server of the stage").row(backend, server).admin
    };

    // The program's file belongs to root. Anybody else has it already.
    let is_root = nix::unistd::geteuid().is_root();
    let install = if is_root {
        format!("haproxy_server::path: {program}\nhaproxy_server::source: {}\n", host.command().display())
    } else {
        std::os::unix::fs::symlink(host.command(), &program)?;
        "haproxy_server::package: ~\n".to_owned()
    };
    site.hiera(&install);
    let blocks = page::blocks(PAGE);
    let shown: String =
        blocks.iter().filter(|block| block.language == "console").map(|block| block.text.as_str()).collect();
    let mut applied = BTreeSet::new();
    for Block { language, heading, text } in &blocks {
        match language.as_str() {
            "sh" => drop(shell(&places.here(text), &repository()).ended_with(0)),
            "puppet" => {
                let name =
                    text.lines().next().and_then(|line| line.strip_prefix("# ")).expect("a manifest with a name");
                work.write(name, &places.here(text));
                if name == "exported.pp" {
                    let node = |node: &str, code: i32| {
                        let store = "--storeconfigs --storeconfigs_backend folder";
                        let node = format!("--certname {node} --node_name_value {node}");
                        shell(&format!("puppet apply --detailed-exitcodes {store} {node} {name}"), work.path())
                            .ended_with(code)
                    };
                    node("web3", 0);
                    assert_eq!(state("web", "web3"), 0);
                    node("lb1", 2);
                    node("lb1", 0);
                } else if !shown.contains(name) && (is_root || name != "install.pp") {
                    let apply = format!("puppet apply --detailed-exitcodes {name}");
                    // Once for the change; then nothing is left to change.
                    let first = shell(&apply, work.path());
                    assert!([0, 2].contains(&first.code), "{heading}: {}", first.out);
                    shell(&apply, work.path()).ended_with(0);
                }
                applied.insert(name.to_owned());
                match name {
                    "several.pp" => {
                        let out = ["all_puppet_masters", "i10_puppet_masters"]
                            .map(|backend| ["puppet-i0-svc1", "puppet-i0-svc2"].map(|server| state(backend, server)));
                        assert_eq!(out, [[1, 0], [1, 1]]);
                        assert_eq!(stage.who_answers("i10_puppet_masters").len(), 1, "the one that the guard leaves");
                    }
                    "several-back.pp" => assert_eq!(stage.who_answers("i10_puppet_masters").len(), 3),
                    "share.pp" => {
                        let before = stage.server("web2").requests();
                        for _ in 0..25 {
                            stage.get("web");
                        }
                        let share = stage.server("web2").requests() - before;
                        assert!((4..=6).contains(&share), "{share} of 25 instead of 50 of 250");
                    }
                    "hiera.pp" => assert_eq!((state("directory", "ldap1"), state("directory", "ldap2")), (0, 1)),
                    "exported.pp" => assert_eq!(state("web", "web3"), 1),
                    "maintenance.pp" => assert_eq!(state("web", "web3"), 1),
                    "back.pp" => {
                        assert_eq!(state("web", "web3"), 0);
                        assert!(stage.folder.join("lib/http.state").exists(), "no state file");
                    }
                    "weight.pp" => assert_eq!(stage.http.row("web", "web1").weight, 10),
                    "order.pp" => assert_eq!(state("web", "web1"), 1),
                    "exec.pp" => assert_eq!(state("web", "web2"), 1),
                    _ => {}
                }
                // What an example has taken out must not be in the way of the next one.
                if ["share.pp", "exported.pp", "order.pp"].contains(&name) {
                    let ready = r#"{"server": "*", "state": "ready", "weight": "100%", "ignore_owner": true}"#;
                    shell(&format!("echo '{ready}' | haproxy_server"), work.path()).ended_with(0);
                }
            }
            "yaml" => site.hiera(&format!("{text}{}", install)),
            "console" => {
                for (command, lines) in commands(text) {
                    let ran = shell(&places.here(command), work.path());
                    // The page shows Puppet 8.
                    let lines: Vec<String> = lines.iter().map(|line| puppet.logged(&places.here(line))).collect();
                    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                    assert_says(&format!("$ {command}\n{}", ran.out), &lines);
                }
            }
            other => panic!("{heading}: a block of {other:?} is not run"),
        }
    }
    assert_eq!(applied.len(), blocks.iter().filter(|block| block.language == "puppet").count(), "two of one name");
    Ok(())
}
