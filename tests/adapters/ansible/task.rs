//! Tasks on the controller itself: what they change, what they show, what they refuse.

use std::fs;
use std::process::Command;

use super::controller::{Controller, VERSIONS, newest};
use crate::support::program::copy_program;
use crate::support::{Agent, Folder, Haproxy, Host, Stage, Test, TestResult, tests};
use crate::tool::{HOSTILE, TURNING, another_version, ascii, assert_harmless, run};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        changes_are_made_once_and_reported,
        a_bad_task_fails_in_one_sentence,
        a_missing_or_old_program_is_sent,
        the_bare_program_is_a_module,
        nothing_that_a_target_says_reaches_the_terminal,
    ]
}

const READY: (u32, u32) = (0, 2);
const MAINT: (u32, u32) = (1, 0);

fn changes_are_made_once_and_reported(haproxy: &Haproxy) -> TestResult {
    const TASKS: &str = r#"
- name: A dry run
  lbops.haproxy.haproxy_server: {server: web1, state: maint}
  check_mode: true
  diff: true
  register: dry

- name: It says what it would do, and nothing was done
  ansible.builtin.assert:
    that:
      - dry is changed
      - dry.dry_run
      - dry.servers[0].commands == ['set server web/web1 state maint']
      - dry.diff.before != dry.diff.after
      - dry.diff.before_header == 'web1'

- name: A change, in the words of community.general.haproxy
  lbops.haproxy.haproxy_server: {host: web1, state: disabled, socket: "{{ http }}", backend: web}
  register: change

- name: The same
  lbops.haproxy.haproxy_server: server=web1 state=maint backend=web,nowhere* on_missing=ignore drain=no
  register: again

- name: A status
  lbops.haproxy.haproxy_server: {server: "web[12]"}
  register: status

- name: What the environment of a task says
  lbops.haproxy.haproxy_server: {server: web1}
  environment: {PATH: /nowhere}
  register: nowhere
  failed_when: nowhere is not failed or 'there is no command' not in nowhere.msg

- name: Each says what it did
  ansible.builtin.assert:
    that:
      - change is changed
      - "change.msg == 'web1: maint in 1 of 1 backend on 1 of 1 instance'"
      - change.state == 'maint'
      - change.servers[0].after.admin_state == 'maint'
      - change.instances[0].name == 'http'
      - "'comment' not in change"
      - "'diff' not in change"
      - again is not changed
      - not status.ok
      - status.servers | map(attribute='ok') == [false, true]

- name: All of it
  lbops.haproxy.haproxy_server:
    server: [web1, web2]
    state: maint
    backend: web
    instances:
      - name: http
        socket: "{{ http }}"
    weight: 50%
    drain:
      timeout: "{{ 5 + 5 }}"
      stable: 0
      on_timeout: shutdown
    shutdown_sessions: "yes"
    wait: {timeout: 1.5, stable: "0.5", via: ready, need: any}
    old_processes: count
    guard: {min_available: 1}
    expect: "{{ omit }}"
    on_failure: rollback
    state_file: {http: "{{ state_file }}"}
    owner: alice
    reason: 2
    expires: +2h
    lock_timeout: 5
    syslog: false
    on_missing: fail_each
    on_unreachable: fail
    timeout: "2.5"
    health: disabled
    agent: disabled
  register: all

- name: It was handed on
  ansible.builtin.assert:
    that:
      - all is changed
      - all.instances[0].state_file.path == state_file
      # A server without checks is a warning.
      - all.warnings is not defined or all.warnings | length > 0

- name: Another owner is minded
  lbops.haproxy.haproxy_server: {server: web2, state: ready}
  register: owned
  failed_when: owned.error.kind != 'owned' or 'alice' not in owned.msg or '(2)' not in owned.msg

- name: And left alone
  lbops.haproxy.haproxy_server: {server: web2, state: ready, on_owned: skip}
  register: skipped
  failed_when: skipped is changed or 'alice' not in skipped.warnings[0]

- name: And can be overruled
  lbops.haproxy.haproxy_server: {server: web2, state: ready, weight: 100%, ignore_owner: true, wait: true, health: null}

- name: What is secret stays so
  lbops.haproxy.haproxy_server: {server: web3, state: drain, reason: hush-hush}
  no_log: true
"#;
    for version in VERSIONS {
        let stage = Stage::start_with(haproxy, "weight 100", |setup| setup);
        let host = Host::with([&stage.http]);
        let controller = Controller::new(version, host.path());
        let state_file = stage.folder.join("http.state");
        let values = serde_json::json!({"http": stage.http.address(), "state_file": state_file}).to_string();
        let ran = controller.local(TASKS, &["-vvv", "-e", &values]).ended_with(0);
        assert!(ran.out.contains("-http web/web1 ready weight 100\n+http web/web1 maint weight 100"), "{}", ran.out);
        assert!(ran.out.contains("no health check") || ran.err.contains("no health check"), "no warning: {}", ran.out);
        assert!(!ran.out.contains("hush-hush") && !ran.err.contains("hush-hush"), "a secret is shown: {}", ran.out);
        assert_eq!(stage.http.state("web", "web1"), MAINT, "{version}");
        assert_eq!(stage.http.state("web", "web2"), READY, "{version}");
        assert_eq!(stage.http.state("web", "web3"), (8, 2), "{version}");
        assert!(fs::read_to_string(state_file)?.contains("web1"), "no row in the state file");
    }
    Ok(())
}

fn a_bad_task_fails_in_one_sentence(haproxy: &Haproxy) -> TestResult {
    let tasks = [
        ("{server: web1, stat: maint}", "Unsupported parameters for (lbops.haproxy.haproxy_server) module: stat"),
        ("{server: web1, stat: maint}", "Did you mean 'state'?"),
        ("{server: web1, state: maint, gaurd: {min_available: 1}}", "Did you mean 'guard'?"),
        ("{server: web1, state: maint, drain: {timout: 5}}", "Did you mean 'drain.timeout'?"),
        ("{server: web1, state: off}", "value of state must be one of"),
        ("{server: web1, host: web2, state: maint}", "'server' and 'host' are the same option: give one of them"),
        ("{instances: http, socket: /x}", "'instances' and 'socket' are the same option: give one of them"),
        ("{server: web1, state: maint, health: true}", "write 'health: disabled' to pause"),
        ("{server: web1, state: maint, agent: 'no'}", "write 'agent: disabled' to pause"),
        ("{server: web1, state: ready, fail_on_not_found: true}", "see 'on_missing'"),
        ("{server: web1, state: ready, wait: true, wait_retries: 5}", "Write 'wait: {timeout: SECONDS}'"),
        ("{server: web1, state: ready, wait: true, wait_interval: 5}", "Write 'wait: {timeout: SECONDS}'"),
        ("{server: web1, state: ready, dry_run: true}", "Write 'check_mode: true'"),
        ("{server: web1, state: ready, diff: true}", "Write 'diff: true' beside the module"),
        ("{server: web1, state: maint, drain: {timout: 5}}", "drain.timout"),
        ("{server: web1, state: maint, guard: {}}", "min_available"),
        ("{server: web1, timeout: .inf}", "JSON does not have"),
        ("{server: web1, timeout: soon}", "timeout"),
        ("{server: web1, state: ready, drain: true}", "'drain'"),
        ("{server: 'web1;x', state: maint}", "web1;x"),
        ("{server: '', state: maint}", "server"),
        ("{server: wbe1, state: maint}", "did you mean 'web1'?"),
        ("{server: 'web*', state: maint, guard: {min_available: 1}}", "'guard.min_available' 1"),
        ("{executable: echo}", "haproxy_server has given no report: exit code 0"),
        ("{executable: 'false; touch pwned'}", "there is no command 'false; touch pwned' on the target"),
    ];
    let mut playbook = String::new();
    for (arguments, sentence) in tasks {
        let sentence = sentence.replace('\'', "''");
        playbook.push_str(&format!(
            "- name: Bad\n  lbops.haproxy.haproxy_server: {arguments}\n  register: bad\n  \
             failed_when: bad is not failed or bad.changed or sentence not in bad.msg\n  vars:\n    sentence: '{sentence}'\n"
        ));
    }
    playbook.push_str(
        "- name: Bad\n  lbops.haproxy.haproxy_server: {server: web1, state: maint}\n  async: 10\n  poll: 1\n  \
         register: bad\n  failed_when: bad is not failed or 'async' not in bad.msg or 'forks' not in bad.msg\n\
         - name: A query is no change\n  lbops.haproxy.haproxy_server_info: {server: web1, state: maint}\n  \
         register: bad\n  failed_when: bad is not failed or 'is not an option of lbops.haproxy.haproxy_server_info' not in bad.msg\n\
         - name: A query\n  lbops.haproxy.haproxy_server_info: {server: web1}\n  check_mode: true\n  \
         register: query\n  failed_when: query is failed or query is changed or not query.ok\n",
    );
    for &version in newest() {
        let stage = Stage::start(haproxy);
        let host = Host::with([&stage.http]);
        let controller = Controller::new(version, host.path());
        let ran = controller.local(&playbook, &[]).ended_with(0);
        assert!(!ran.out.contains("Traceback") && !ran.err.contains("Traceback"), "{}{}", ran.out, ran.err);
        assert_eq!(stage.http.state("web", "web1"), READY, "{version}");
        assert!(!controller.folder.join("pwned").exists(), "a shell has run it");
    }
    Ok(())
}

fn a_missing_or_old_program_is_sent(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let architecture = std::env::consts::ARCH;
    for &version in newest() {
        let controller = Controller::new(version, "/usr/bin:/bin");
        let address = stage.http.address();
        let task = |more: &str, check: &str| {
            let tasks = format!(
                "- name: Send\n  lbops.haproxy.haproxy_server: {{server: web1, instances: '{address}', {more}}}\n  \
                 register: sent\n  failed_when: {check}\n"
            );
            controller.local(&tasks, &["-v"]).ended_with(0)
        };
        task("state: maint", "sent is not failed or 'and there is none at' not in sent.msg");
        task("state: maint, executables: nowhere", "sent is not failed or 'nowhere' not in sent.msg");

        let folder = controller.folder.join("files/programs").join(architecture);
        fs::create_dir_all(&folder)?;
        copy_program(&folder.join("haproxy_server"));
        let ran = task("state: maint, executables: programs", "sent is failed or sent is not changed");
        let said = "neither in PATH nor in /usr/bin or /usr/local/bin; sending ";
        assert!(ran.out.contains(said), "it is not said at -v: {}", ran.out);
        assert_eq!(stage.http.state("web", "web1"), MAINT, "{version}");

        // One that does not know all fields.
        let old = "#!/bin/sh\nif [ \"$1\" = --version ]; then echo haproxy_server 0.0.9; exit; fi\n\
                   echo '{\"changed\": false, \"failed\": true, \"msg\": \"no field\", \"error\": {\"kind\": \"bad_request\"}}'\n";
        let old = controller.write("old", old);
        fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let old = format!("state: ready, executable: '{}'", old.display());
        task(&old, "sent is not failed or 'is version 0.0.9, and 1.0.0 is needed' not in sent.msg");
        let ran = task(&format!("{old}, executables: programs"), "sent is failed or sent is not changed");
        assert!(ran.out.contains("is version 0.0.9, and 1.0.0 is needed; sending "), "{}", ran.out);
        assert_eq!(stage.http.state("web", "web1"), READY, "{version}");

        // One of another version that works.
        let other = Folder::new();
        let program = another_version(other.path(), &folder.join("haproxy_server"));
        let warning = concat!(
            "the target has haproxy_server 9.9.9, and this collection was made for ",
            env!("CARGO_PKG_VERSION")
        );
        let check = format!("sent is failed or sent.version != '9.9.9' or sent.warnings != ['{warning}']");
        let ran = task(&format!("state: maint, executable: '{}'", program.display()), &check);
        assert!(format!("{}{}", ran.out, ran.err).replace('\n', " ").contains("[WARNING]: "), "{ran:?}");
        task("state: ready, executables: programs", "sent is failed or sent.warnings != []");
        let left = fs::read_dir(controller.folder.join(".ansible/tmp"))?.count();
        assert_eq!(left, 0, "the program was left on the target");
    }
    Ok(())
}

fn the_bare_program_is_a_module(haproxy: &Haproxy) -> TestResult {
    const TASKS: &str = r"
- name: A dry run
  haproxy_server: {server: web1, state: maint}
  check_mode: true
  diff: true
  register: dry
  failed_when: dry is failed or dry is not changed or not dry.dry_run or 'diff' not in dry

- name: A change
  haproxy_server: {server: web1, state: maint}
  register: change
  failed_when: change is failed or change is not changed

- name: In the background, which needs Python on the target
  haproxy_server: {server: web1, state: ready}
  async: 30
  poll: 1
  register: background
  failed_when: background is failed or background.servers[0].after.admin_state != 'ready'
";
    for version in VERSIONS {
        let stage = Stage::start(haproxy);
        let controller = Controller::without_collection(version, "/usr/bin:/bin");
        fs::create_dir(controller.folder.join("library"))?;
        copy_program(&controller.folder.join("library/haproxy_server"));
        let tasks = TASKS.replace("{server: web1", &format!("{{server: web1, instances: '{}'", stage.http.address()));
        let python = "ansible_python_interpreter='{{ ansible_playbook_python }}' ansible_async_dir=/tmp";
        let python = python.replace("/tmp", &controller.folder.join("jobs").display().to_string());
        controller.local(&tasks, &["-e", &python]).ended_with(0);
        assert_eq!(stage.http.state("web", "web1"), READY, "{version}");
    }
    Ok(())
}

/// Ansible prints `msg`, `warnings` and `diff` as they come.
fn nothing_that_a_target_says_reaches_the_terminal(haproxy: &Haproxy) -> TestResult {
    const TASKS: &str = r#"
- name: Take web1 out for a strange reason
  lbops.haproxy.haproxy_server: {server: web1, state: maint, owner: "{{ turning }}", reason: "{{ turning }}"}

- name: Somebody else puts it back
  lbops.haproxy.haproxy_server: {server: web1, state: ready, health: disabled}
  ignore_errors: true
  register: refused

- name: Look
  lbops.haproxy.haproxy_server:
  register: haproxy

- name: Show what was registered
  ansible.builtin.debug:
    msg: "{{ item }}"
  loop:
    - "{{ refused.msg }}"
    - "{{ haproxy.servers[0].reason | default('') }}"
    - "{{ haproxy.servers[0].check | default('') }}"

- name: A program that is not the real one
  lbops.haproxy.haproxy_server: {executable: "{{ playbook_dir }}/liar"}
  register: lie

- name: Show what it said
  ansible.builtin.debug:
    msg: "{{ lie.msg }} {{ lie.servers[0].server }}"

- name: A program that gives no report
  lbops.haproxy.haproxy_server: {executable: "{{ playbook_dir }}/babbler"}
  ignore_errors: true

- name: A target that is of no architecture
  lbops.haproxy.haproxy_server: {executable: nothing}
  ignore_errors: true
"#;
    for version in VERSIONS {
        let agent = Agent::start(&format!("up #{HOSTILE}"));
        let stage = Stage::start_with(haproxy, &agent.options("100ms"), |setup| setup);
        agent.await_asked();
        let host = Host::with([&stage.http]);
        let strange = Folder::new();
        let mut path = strange.path().as_os_str().to_owned();
        path.push(":");
        path.push(host.path());
        let controller = Controller::new(version, path);
        let report = serde_json::json!({
            "changed": true, "failed": false, "msg": HOSTILE, "warnings": [HOSTILE], "servers": [{"server": HOSTILE}],
            "diff": {"before": format!("{HOSTILE}\n"), "after": "x\n"}, HOSTILE: HOSTILE,
        });
        for (place, text) in [
            (controller.folder.join("liar"), ascii(&report)),
            (controller.folder.join("babbler"), HOSTILE.to_owned()),
            (strange.join("uname"), format!("{HOSTILE}/..")),
        ] {
            let complaint = if place.ends_with("babbler") { HOSTILE } else { "" };
            let script = format!("#!/bin/sh\ncat <<'END'\n{text}\nEND\necho '{complaint}' >&2\n");
            let source = controller.write("script", &script);
            run(Command::new("install").args(["-m", "755"]).args([&source, &place])).ended_with(0);
        }
        let values = serde_json::json!({ "turning": TURNING }).to_string();
        for verbosity in ["-v", "--diff"] {
            let ran = controller.local(TASKS, &[verbosity, "-e", &values]).ended_with(0);
            assert!(ran.out.contains("\\u{1b}[31m") && ran.out.contains("\\u{202e}"), "it is not shown: {}", ran.out);
            assert!(ran.out.contains("does not tell the target's architecture"), "{}", ran.out);
            assert_harmless(&ran);
        }
    }
    Ok(())
}
