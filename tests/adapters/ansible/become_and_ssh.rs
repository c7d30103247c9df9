//! Targets that are reached over SSH, and other users.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::controller::{Controller, VERSIONS, newest, play};
use super::sshd::Sshd;
use crate::support::program::copy_program;
use crate::support::{Bound, Folder, Haproxy, Stage, Test, TestResult, tests};
use crate::tool::{run, with_program_in};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_target_needs_no_python_and_one_command,
        become_works_with_and_without_a_terminal,
        the_bare_program_shares_its_terminal,
        a_program_outside_of_path_is_found,
    ]
}

/// A folder for `PATH` with the program, and with what a shell needs, and no Python.
fn bare_target() -> Folder {
    let folder = Folder::new();
    copy_program(&folder.join("haproxy_server"));
    for command in ["sh", "bash", "cat", "chmod", "echo", "mkdir", "rm", "sleep", "su", "sudo", "uname"] {
        for place in ["/usr/bin", "/bin"] {
            let path = format!("{place}/{command}");
            if fs::exists(&path).unwrap_or(false) && !folder.join(command).exists() {
                symlink(&path, folder.join(command)).expect("a link");
            }
        }
    }
    folder
}

fn a_target_needs_no_python_and_one_command(haproxy: &Haproxy) -> TestResult {
    const TASKS: &str = r#"
- name: One command
  lbops.haproxy.haproxy_server: {server: web1, state: maint}

- name: What the environment says
  lbops.haproxy.haproxy_server: {server: web2, state: maint}
  environment: {PATH: /nowhere}
  register: nowhere
  failed_when: nowhere is not failed or 'there is no command' not in nowhere.msg

- name: A program by its path
  lbops.haproxy.haproxy_server: {server: web2, state: maint, executable: "{{ program }}"}
  environment: {PATH: /nowhere}

- name: Nothing but a report is a failure that shows it
  lbops.haproxy.haproxy_server: {executable: uname}
  register: strange
  failed_when: strange is not failed or 'Linux' not in strange.msg and 'uname' not in strange.msg

- name: A task that takes too long ends with its time
  lbops.haproxy.haproxy_server: {executable: "{{ sleeper }}"}
  timeout: 1
  ignore_errors: true
  register: late

- name: It has ended
  ansible.builtin.assert:
    that: late is failed
"#;
    for version in VERSIONS {
        let stage = Stage::start(haproxy);
        let target = bare_target();
        let sleeper = target.write("sleeper", "#!/bin/sh\nread request\nexec /bin/sleep 20\n");
        fs::set_permissions(&sleeper, fs::Permissions::from_mode(0o755))?;
        let sshd = Sshd::start(&target.path().display().to_string());
        let controller = Controller::new(version, "/usr/bin:/bin");
        let inventory =
            controller.write("hosts", &format!("lb1 ansible_python_interpreter=/nowhere {}\n", sshd.variables()));
        let defaults =
            "  module_defaults:\n    group/lbops.haproxy.haproxy:\n      instances: \"{{ http }}\"\n  tasks:";
        let playbook = play(TASKS).replace("  tasks:", defaults);
        let values = serde_json::json!({
            "http": stage.http.address(), "program": target.join("haproxy_server"), "sleeper": sleeper,
        });
        let mut command = controller.playbook(&inventory, &playbook, &["-vvv", "-e", &values.to_string()]);
        let ran = run(&mut command).ended_with(0);
        assert_eq!(stage.http.state("web", "web1"), (1, 0), "{version}");
        assert_eq!(stage.http.state("web", "web2"), (1, 0), "{version}");
        let first = ran.out.split("TASK [").find(|task| task.starts_with("One command")).expect("the first task");
        assert_eq!(first.matches("SSH: EXEC").count(), 1, "more than one command: {first}");
        assert_eq!(sshd.left(), 0, "{version} has left something");
    }
    Ok(())
}

/// Stands for a sudo that wants a terminal.
const REQUIRETTY: &str = "#!/bin/sh\n[ -t 0 ] || { echo 'sudo: sorry, you must have a tty to run sudo' >&2; exit 1; }\n\
                          exec sudo \"$@\"\n";

/// Stands for a sudo with a password.
const ASKS: &str =
    "#!/bin/sh\nprintf '%s' \"$4\" >&2\nread -r word\n[ \"$word\" = open ] || exit 1\nshift 6\nexec \"$@\"\n";

fn become_works_with_and_without_a_terminal(haproxy: &Haproxy) -> TestResult {
    for version in VERSIONS {
        let stage = Stage::start(haproxy);
        let target = bare_target();
        let executable = |name: &str, content: &str| {
            let path = target.write(name, content);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("to make it executable");
            path.display().to_string()
        };
        let (requiretty, asks) = (executable("requiretty", REQUIRETTY), executable("asks", ASKS));
        let sshd = Sshd::start(&target.path().display().to_string());
        let controller = Controller::new(version, "/usr/bin:/bin:/usr/sbin");
        let inventory = controller.write(
            "hosts",
            &format!(
                "lb1 {}\nlocalhost ansible_connection=local ansible_remote_tmp={}/tmp\n",
                sshd.variables(),
                sshd.folder().display()
            ),
        );
        let program = target.join("haproxy_server");
        let cases = [
            ("lb1", "web1", "ansible_become_method=sudo".to_owned()),
            ("lb1", "web2", format!("ansible_become_method=sudo ansible_become_exe={requiretty}")),
            ("lb1", "web3", "ansible_become_method=su".to_owned()),
            ("lb1", "web1", format!("ansible_become_method=sudo ansible_become_exe={asks} ansible_become_pass=open")),
            ("localhost", "web2", "ansible_become_method=sudo ansible_pipelining=true".to_owned()),
            (
                "localhost",
                "web3",
                format!("ansible_become_method=sudo ansible_become_exe={asks} ansible_become_pass=open"),
            ),
        ];
        let mut states = std::collections::BTreeMap::from([("web1", "maint"), ("web2", "maint"), ("web3", "maint")]);
        for (host, server, variables) in cases {
            let wanted = states.insert(server, "ready").expect("a server");
            let tasks = format!(
                "- name: Become\n  lbops.haproxy.haproxy_server:\n    server: {server}\n    state: {wanted}\n    \
                 instances: '{}'\n    executable: '{}'\n  become: true\n",
                stage.http.address(),
                program.display(),
            );
            let mut command = controller.playbook(&inventory, &play(&tasks), &["-l", host, "-e", &variables]);
            // The user of the tests becomes itself.
            let ran = run(command.env("ANSIBLE_BECOME_ALLOW_SAME_USER", "true")).ended_with(0);
            assert!(ran.out.contains("changed=1"), "{version} {host} {variables}: {}", ran.out);
            let state = if wanted == "maint" { (1, 0) } else { (0, 2) };
            assert_eq!(stage.http.state("web", server), state, "{version} {host} {variables}");
        }
        assert_eq!(sshd.left(), 0, "{version} has left something");
    }
    Ok(())
}

/// By default Ansible runs a module under `ssh -tt`, where standard error and the report are one stream.
fn the_bare_program_shares_its_terminal(haproxy: &Haproxy) -> TestResult {
    const TASKS: &str = r#"
- name: A change
  haproxy_server: {server: web1, state: maint, instances: "{{ http }}"}
  register: change
  failed_when: change is failed or change is not changed

- name: A wait that succeeds
  haproxy_server: {server: web1, state: ready, wait: {timeout: 20, stable: 1.5}, instances: "{{ http }}"}
  register: wait
  failed_when: wait is failed or wait is not changed or wait.servers[0].after.admin_state != 'ready'

- name: A drain that fails
  haproxy_server: {server: web2, state: maint, drain: {timeout: 1.5}, instances: "{{ http }}"}
  register: drain
  failed_when: drain is not failed or drain.error.kind != 'not_drained'
"#;
    for version in VERSIONS {
        let stage = Stage::start(haproxy);
        let held = Bound::hold(stage.frontend("web"), stage.server("web2"));
        let sshd = Sshd::start("/usr/bin:/bin");
        let controller = Controller::without_collection(version, "/usr/bin:/bin");
        fs::create_dir(controller.folder.join("library"))?;
        copy_program(&controller.folder.join("library/haproxy_server"));
        let inventory = controller.write("hosts", &format!("lb1 {}\n", sshd.variables()));
        let values = serde_json::json!({ "http": stage.http.address() }).to_string();
        let ran = run(&mut controller.playbook(&inventory, &play(TASKS), &["-vvv", "-e", &values])).ended_with(0);
        assert!(ran.out.contains("-tt"), "there was no terminal: {}", ran.out);
        stage.server("web2").release();
        assert_eq!(held.served_by(), "web2");
    }
    Ok(())
}

/// Stands for the sudo of Enterprise Linux, whose `secure_path` has no `/usr/local/bin`.
const SECURE_PATH: &str = "#!/bin/sh\nfor word in 1 2 3 4 5; do shift; done\n\
                          exec sudo -n -u root env PATH=/sbin:/bin:/usr/sbin:/usr/bin \"$@\"\n";

fn a_program_outside_of_path_is_found(haproxy: &Haproxy) -> TestResult {
    const TASKS: &str = r#"
- name: Under sudo
  lbops.haproxy.haproxy_server: {server: web1, state: maint, instances: "{{ http }}"}
  become: true
  when: folder == '/usr/local/bin'

- name: With the PATH of a task
  lbops.haproxy.haproxy_server: {server: web2, state: maint, instances: "{{ http }}"}
  environment: {PATH: /nowhere}

- name: With anything else in the environment
  lbops.haproxy.haproxy_server: {server: web3, state: drain, instances: "{{ http }}"}
  environment: {LANG: C}
"#;
    for &version in newest() {
        for folder in ["/usr/bin", "/usr/local/bin"] {
            let stage = Stage::start(haproxy);
            let controller = Controller::new(version, "/usr/bin:/bin");
            let sudo = controller.write("sudo", SECURE_PATH);
            fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755))?;
            let place = Folder::new();
            copy_program(&place.join("haproxy_server"));
            let values = serde_json::json!({
                "http": stage.http.address(), "folder": folder, "ansible_become_exe": sudo,
            });
            let inventory = controller.write("hosts", "lb1 ansible_connection=local\n");
            let mut command = controller.playbook(&inventory, &play(TASKS), &["-v", "-e", &values.to_string()]);
            command.env("ANSIBLE_BECOME_ALLOW_SAME_USER", "true");
            run(&mut with_program_in(&[folder], &place.join("haproxy_server"), &command)).ended_with(0);
            let expected = if folder == "/usr/bin" { (0, 2) } else { (1, 0) };
            assert_eq!(stage.http.state("web", "web1"), expected, "{version} {folder}");
            assert_eq!(stage.http.state("web", "web2"), (1, 0), "{version} {folder}");
            assert_eq!(stage.http.state("web", "web3"), (8, 2), "{version} {folder}");
        }
    }
    Ok(())
}
