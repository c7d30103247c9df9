//! The role `install`: the program on a host, from a file, a download or a package.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::controller::{Controller, newest};
use crate::support::program::copy_program;
use crate::support::{Haproxy, Test, TestResult, tests};
use crate::tool::{Ran, run, tool};

pub(crate) fn tests() -> Vec<Test> {
    tests![the_program_is_installed_once]
}

/// The role on hosts that are all this machine, in the order of their names, each with variables of its own.
fn install(controller: &Controller, hosts: &[(&str, Value)], keywords: &str, words: &[&str]) -> Ran {
    let mut inventory = json!({"all": {"hosts": {}, "vars": {
        "ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}",
    }}});
    for (name, variables) in hosts {
        inventory["all"]["hosts"][name] = variables.clone();
    }
    let playbook = format!(
        "- name: Test\n  hosts: all\n  gather_facts: false\n  become: true\n{keywords}  roles:\n    - role: lbops.haproxy.install\n"
    );
    let inventory = controller.write("hosts.json", &inventory.to_string());
    run(&mut controller.playbook(inventory, &playbook, words))
}

/// What the last lines of a run say of a host.
fn recap<'a>(ran: &'a Ran, host: &str) -> &'a str {
    let line = ran.out.lines().rev().find(|line| line.split(' ').next() == Some(host));
    line.unwrap_or_else(|| panic!("nothing about {host}: {}", ran.out))
}

fn checksum(path: &Path) -> String {
    let ran = run(tool("sha256sum").arg(path)).ended_with(0);
    format!("sha256:{}", ran.out.split(' ').next().expect("a checksum"))
}

fn the_program_is_installed_once(_: &Haproxy) -> TestResult {
    let architecture = std::env::consts::ARCH;
    for &version in newest() {
        let controller = Controller::new(version, "/usr/bin:/bin");
        let source = controller.folder.join("files").join(architecture);
        fs::create_dir_all(&source)?;
        let source = source.join("haproxy_server");
        copy_program(&source);
        let sum = checksum(&source);
        let folder = |name: &str| {
            fs::create_dir(controller.folder.join(name)).expect("a folder");
            controller.folder.join(name).join("haproxy_server")
        };
        let (to, downloaded) = (folder("bin"), folder("downloaded"));
        let sums = |sum: &str| json!({architecture: sum});
        let url = format!("file://{}", source.display());
        // A program for another architecture does not start.
        let foreign = controller.write("files/foreign", "\u{7f}ELF\u{2}\u{1}\u{1}");
        fs::set_permissions(foreign, fs::Permissions::from_mode(0o755))?;

        let other = sums(&format!("sha256:{}", "0".repeat(64)));
        let refused = [
            ("file", json!({"install_path": to, "install_checksums": sums("sha256:00")}), "has the checksum sha256:"),
            ("foreign", json!({"install_path": to, "install_src": "foreign"}), "Exec format error"),
            ("unknown", json!({"install_path": to, "install_url": url}), "set 'install_checksums."),
            ("url", json!({"install_path": to, "install_url": url, "install_checksums": other}), "did not match"),
        ];
        let hosts = refused.each_ref().map(|(name, variables, _)| (*name, variables.clone()));
        let ran = install(&controller, &hosts, "", &[]).ended_with(2);
        for (name, _, why) in &refused {
            let is_said = ran.out.contains(&format!("fatal: [{name}]")) && ran.out.contains(why);
            assert!(is_said, "{version}: {name}: {why} is not said: {}", ran.out);
        }
        assert!(!to.exists(), "{version}: it was installed");

        let plain = json!({"install_path": to, "install_checksums": sums(&sum)});
        let dry = install(&controller, &[("copy", plain.clone())], "", &["--check"]).ended_with(0);
        assert!(dry.out.contains("changed=1") && !to.exists(), "{version}: {}", dry.out);

        // One after the other.
        let download = json!({"install_path": downloaded, "install_url": url, "install_checksums": sums(&sum)});
        let hosts = [
            ("copy_1", plain.clone()),
            ("copy_2", plain),
            ("download_1", download.clone()),
            ("download_2", download),
            ("version", json!({"install_path": to, "install_version": "9.9.9"})),
        ];
        let ran = install(&controller, &hosts, "  serial: 1\n", &[]).ended_with(2);
        for (host, changed) in [("copy_1", 1), ("copy_2", 0), ("download_1", 1), ("download_2", 0)] {
            let recap = recap(&ran, host);
            assert!(recap.contains(&format!(" changed={changed} ")), "{version}: {recap}: {}", ran.out);
        }
        assert!(ran.out.contains("is haproxy_server 1.0.0, and version 9.9.9 is wanted"), "{}", ran.out);
        for program in [&to, &downloaded] {
            run(tool(program).arg("--version")).ended_with(0);
        }
    }
    Ok(())
}
