//! The role `install`: the program on a host, from a file, a download or a package.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::controller::{Controller, VERSIONS};
use crate::support::program::copy_program;
use crate::support::{Haproxy, Test, TestResult, tests};
use crate::tool::{Ran, run, tool};

pub(crate) fn tests() -> Vec<Test> {
    tests![the_program_is_installed_once]
}

/// The role with these variables on this machine.
fn install(controller: &Controller, variables: &serde_json::Value, words: &[&str]) -> Ran {
    let playbook = "- name: Test\n  hosts: all\n  gather_facts: false\n  become: true\n  roles:\n    - role: lbops.haproxy.install\n";
    let inventory = controller
        .write("hosts", "lb1 ansible_connection=local ansible_python_interpreter='{{ ansible_playbook_python }}'\n");
    let mut command = controller.playbook(&inventory, playbook, words);
    run(command.args(["-e", &variables.to_string()]))
}

fn checksum(path: &Path) -> String {
    let ran = run(tool("sha256sum").arg(path)).ended_with(0);
    format!("sha256:{}", ran.out.split(' ').next().expect("a checksum"))
}

fn the_program_is_installed_once(_: &Haproxy) -> TestResult {
    let architecture = std::env::consts::ARCH;
    for version in VERSIONS {
        let controller = Controller::new(version, "/usr/bin:/bin");
        let source = controller.folder.join("files").join(architecture);
        fs::create_dir_all(&source)?;
        let source = source.join("haproxy_server");
        copy_program(&source);
        let sum = checksum(&source);
        let to = controller.folder.join("bin/haproxy_server");
        fs::create_dir(controller.folder.join("bin"))?;
        let with = |more: serde_json::Value| {
            let mut variables = serde_json::json!({"install_path": to});
            variables.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            variables
        };
        let sums = |sum: &str| serde_json::json!({"install_checksums": {architecture: sum}});
        let refused = |more: serde_json::Value, why: &str| {
            let ran = install(&controller, &with(more), &[]).ended_with(2);
            assert!(ran.out.contains(why), "{version}: {why} is not said: {}", ran.out);
            assert!(!to.exists(), "{version}: it was installed, although {why}");
        };

        refused(sums("sha256:00"), "has the checksum sha256:");
        let url = format!("file://{}", source.display());
        refused(serde_json::json!({"install_url": url}), "set 'install_checksums.");
        refused(
            serde_json::json!({"install_url": url, "install_checksums": {architecture: format!("sha256:{}", "0".repeat(64))}}),
            "checksum",
        );
        // A program for another architecture does not start.
        let foreign = controller.write("files/foreign", "\u{7f}ELF\u{2}\u{1}\u{1}");
        fs::set_permissions(foreign, fs::Permissions::from_mode(0o755))?;
        refused(serde_json::json!({"install_src": "foreign"}), "Exec format error");

        let plain = with(sums(&sum));
        let dry = install(&controller, &plain, &["--check"]).ended_with(0);
        assert!(dry.out.contains("changed=1") && !to.exists(), "{version}: {}", dry.out);
        for changed in ["changed=1", "changed=0"] {
            let ran = install(&controller, &plain, &[]).ended_with(0);
            assert!(ran.out.contains(changed), "{version}: not {changed}: {}", ran.out);
        }
        run(tool(&to).arg("--version")).ended_with(0);
        let ran = install(&controller, &with(serde_json::json!({"install_version": "9.9.9"})), &[]).ended_with(2);
        assert!(ran.out.contains("is haproxy_server 0.1.0, and version 9.9.9 is wanted"), "{}", ran.out);

        fs::remove_file(&to)?;
        let download = with(serde_json::json!({"install_url": url, "install_checksums": {architecture: sum}}));
        for changed in ["changed=1", "changed=0"] {
            let ran = install(&controller, &download, &[]).ended_with(0);
            assert!(ran.out.contains(changed), "{version}: not {changed}: {}", ran.out);
        }
    }
    Ok(())
}
