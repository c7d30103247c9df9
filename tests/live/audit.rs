//! What the system log is told of a run.

use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::program::copy_program;
use crate::support::system_log::SystemLog;
use crate::support::{
    Bound, Folder, Haproxy, Instance, PATIENCE, Program, Recorder, Setup, Stage, Test, TestResult, eventually, kind,
    on_newest, server,
};

pub(crate) fn tests() -> Vec<Test> {
    on_newest![
        each_change_is_one_line,
        what_changes_nothing_is_not_logged,
        a_drain_is_logged_as_it_goes,
        a_rolled_back_server_is_logged_as_such,
        what_fails_is_a_warning,
        the_calling_user_is_named,
        nothing_in_a_request_forges_a_line,
        a_log_that_is_missing_or_hangs_holds_nobody_up,
    ]
}

const SERVERS: &str = "backend app\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n    server s3 127.0.0.1:9\n";

fn start(haproxy: &Haproxy) -> Instance {
    Setup::new("logged", SERVERS).start(haproxy)
}

/// The request of a change, with more fields.
fn change(server: &str, state: &str, at: &str, more: Value) -> Value {
    let mut request = json!({ "server": server, "state": state, "instances": [{ "name": "lb", "socket": at }] });
    for (field, value) in more.as_object().unwrap() {
        request[field] = value.clone();
    }
    request
}

/// What comes before the fields of a line.
fn head(priority: u8, pid: u32, what: &str) -> String {
    format!("<{priority}>haproxy_server[{pid}]: {what} instance=\"lb\" ")
}

fn each_change_is_one_line(haproxy: &Haproxy) -> TestResult {
    let Some(log) = SystemLog::start() else { return Ok(()) };
    let instance = start(haproxy);
    let at = instance.address();
    let claim = json!({ "owner": "alice", "reason": "new \"disk\"", "expires": "+2h" });
    let run = log.of(Program::request(&change("s[12]", "maint", &at, claim))).env("SUDO_USER", "carol").spawn();
    let pid = run.pid();
    let report = run.wait().report();
    assert_eq!((kind(&report), &report["warnings"]), ("", &json!([])), "{report}");
    let line = |server: &str| {
        head(29, pid, "changed")
            + &format!(
                r#"server="app/{server}" from="ready" to="maint" owner="alice" reason="new \"disk\"" user="root" sudo_user="carol""#
            )
    };
    assert_eq!(log.take(), [line("s1"), line("s2")]);

    let set = json!({ "server": "s3", "weight": 5, "instances": [{ "name": "lb", "socket": at }] });
    let run = log.of(Program::request(&set)).spawn();
    let pid = run.pid();
    assert_eq!(run.wait().report()["changed"], true);
    let shown = r#"server="app/s3" from="ready weight 1" to="ready weight 5" user="root""#;
    assert_eq!(log.take(), [head(29, pid, "changed") + shown]);
    Ok(())
}

fn what_changes_nothing_is_not_logged(haproxy: &Haproxy) -> TestResult {
    let Some(log) = SystemLog::start() else { return Ok(()) };
    let instance = start(haproxy);
    let at = instance.address();
    let status = json!({ "instances": at });
    let refused = change("s9", "maint", &at, json!({}));
    let guarded = change("s*", "maint", &at, json!({ "guard": { "min_available": 1 } }));
    let already = change("s1", "ready", &at, json!({}));
    let dry = change("s1", "maint", &at, json!({ "dry_run": true }));
    let silent = change("s2", "maint", &at, json!({ "syslog": false }));
    for (request, changed) in
        [(status, false), (refused, false), (guarded, false), (already, false), (dry, true), (silent, true)]
    {
        let report = log.of(Program::request(&request)).report();
        assert_eq!(report["changed"], changed, "{report}");
        assert_eq!(log.take(), [""; 0], "{request}");
    }
    Ok(())
}

fn a_drain_is_logged_as_it_goes(haproxy: &Haproxy) -> TestResult {
    let Some(log) = SystemLog::start() else { return Ok(()) };
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let request = change("web1", "maint", &stage.http.address(), json!({ "drain": { "timeout": 30 } }));
    let run = log.of(Program::request(&request)).spawn();
    let pid = run.pid();
    let lines = eventually(PATIENCE, "the line of a drain", || Some(log.take()).filter(|lines| !lines.is_empty()));
    let user = "user=\"root\"";
    let drained = head(29, pid, "changed") + "server=\"web/web1\" from=\"ready\" to=\"drain\" " + user;
    assert_eq!(lines, [drained], "known while the run still waits");
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    assert_eq!(kind(&run.wait().report()), "");
    let done = head(29, pid, "changed") + "server=\"web/web1\" from=\"drain\" to=\"maint\" " + user;
    assert_eq!(log.take(), [done]);

    // On its way back as well.
    let request = change("web1", "ready", &stage.http.address(), json!({ "wait": true }));
    let run = log.of(Program::request(&request)).spawn();
    let pid = run.pid();
    assert_eq!(kind(&run.wait().report()), "");
    let lines = log.take();
    assert!(lines.iter().all(|line| line.starts_with(&head(29, pid, "changed"))), "{lines:?}");
    assert!(lines[0].contains("from=\"maint\"") && lines[lines.len() - 1].contains("to=\"ready\""), "{lines:?}");
    Ok(())
}

fn a_rolled_back_server_is_logged_as_such(haproxy: &Haproxy) -> TestResult {
    let Some(log) = SystemLog::start() else { return Ok(()) };
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let drain = json!({ "drain": { "timeout": 0.5, "on_timeout": "rollback" } });
    let run = log.of(Program::request(&change("web[12]", "maint", &stage.http.address(), drain))).spawn();
    let pid = run.pid();
    let report = run.wait().report();
    assert_eq!(kind(&report), "not_drained", "{report}");
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    let lines = log.take();
    let has = |line: String| assert!(lines.contains(&line), "{line} in {lines:?}");
    has(head(29, pid, "changed") + r#"server="web/web1" from="ready" to="drain" user="root""#);
    has(head(28, pid, "rolled back") + r#"server="web/web1" from="drain" to="ready" error="not_drained" user="root""#);
    has(head(29, pid, "changed") + r#"server="web/web2" from="drain" to="maint" user="root""#);
    has(head(29, pid, "rolled back") + r#"server="web/web2" from="maint" to="ready" user="root""#);
    Ok(())
}

fn what_fails_is_a_warning(haproxy: &Haproxy) -> TestResult {
    let Some(log) = SystemLog::start() else { return Ok(()) };
    let instance = start(haproxy);
    // A HAProxy that hangs before it can be read back.
    let frozen = Pid::from_raw(instance.pid());
    let recorder = Recorder::on(&instance);
    recorder.hold_changes();
    let run = log.of(Program::request(&change("s1", "maint", &recorder.address(), json!({ "timeout": 0.5 })))).spawn();
    let pid = run.pid();
    recorder.await_held();
    kill(frozen, Signal::SIGSTOP)?;
    let report = run.wait().report();
    kill(frozen, Signal::SIGCONT)?;
    recorder.let_go();
    assert_eq!((kind(&report), &server(&report, "app/s1")["after"]), ("timeout", &Value::Null), "{report}");
    let shown = r#"server="app/s1" from="ready" to="unknown" error="timeout" user="root""#;
    assert_eq!(log.take(), [head(28, pid, "unknown") + shown]);

    // What was set while a drain is under way stays so when it is interrupted.
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let request = change("web1", "maint", &stage.http.address(), json!({ "drain": { "timeout": 30 } }));
    let run = log.of(Program::request(&request)).spawn();
    let pid = run.pid();
    eventually(PATIENCE, "the line of a drain", || Some(log.take()).filter(|lines| !lines.is_empty()));
    run.signal(Signal::SIGTERM);
    assert_eq!(kind(&run.wait().report()), "interrupted");
    let shown = r#"server="web/web1" from="drain" to="drain" error="interrupted" user="root""#;
    assert_eq!(log.take(), [head(28, pid, "failed") + shown]);
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    Ok(())
}

fn the_calling_user_is_named(haproxy: &Haproxy) -> TestResult {
    let Some(log) = SystemLog::start() else { return Ok(()) };
    let instance = Setup::new("logged", SERVERS).start(haproxy);
    let folder = Folder::new();
    let program = folder.join("haproxy_server");
    copy_program(&program);
    for path in [folder.path(), program.as_path()] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    // Nobody has a number only, and SUDO_USER is not believed of an ordinary user; the effective user is root's.
    for (user, shown) in [("0", "root"), ("54321", "54321")] {
        for state in ["maint", "ready"] {
            let mut words = log.wrapper();
            words.extend(["setpriv", "--ruid", user, "--"].map(str::to_owned));
            let request = change("s1", state, &instance.address(), json!({}));
            let run = Program::request(&request).binary(&program).env("SUDO_USER", "mallory").under(words).run();
            let report = run.report();
            assert_eq!((kind(&report), &report["changed"]), ("", &json!(true)), "{report}");
            let lines = log.take();
            assert!(lines[0].contains(&format!(" user=\"{shown}\"")), "{lines:?}");
            assert_eq!(lines[0].contains("mallory"), user == "0", "{lines:?}");
        }
    }
    Ok(())
}

fn nothing_in_a_request_forges_a_line(haproxy: &Haproxy) -> TestResult {
    let Some(log) = SystemLog::start() else { return Ok(()) };
    let instance = start(haproxy);
    let sudo_user = "x\n<29>haproxy_server[1]: changed \u{1b}[2J\" user=\"alice";
    let claim = json!({ "owner": "bob\" user=\"alice", "reason": "a\\" });
    let request = change("s1", "maint", &instance.address(), claim);
    let report = log.of(Program::request(&request)).env("SUDO_USER", sudo_user).report();
    assert_eq!(report["changed"], true, "{report}");
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(!lines[0].contains(char::is_control), "{lines:?}");
    let end = concat!(
        r#" owner="bob\" user=\"alice" reason="a\\" user="root" "#,
        r#"sudo_user="x\u{a}<29>haproxy_server[1]: changed \u{1b}[2J\" user=\"alice""#
    );
    assert!(lines[0].ends_with(end), "{lines:?}");
    Ok(())
}

fn a_log_that_is_missing_or_hangs_holds_nobody_up(haproxy: &Haproxy) -> TestResult {
    let Some(log) = SystemLog::start() else { return Ok(()) };
    let servers: String = (1..=1500).map(|number| format!("    server s{number} 127.0.0.1:9\n")).collect();
    let instance = Setup::new("logged", &format!("backend app\n{servers}")).start(haproxy);
    let folder = Folder::new();
    let path = |name: &str| folder.join(name).display().to_string();
    drop(UnixDatagram::bind(folder.join("dead"))?);
    let _stream = UnixListener::bind(folder.join("stream"))?;
    let _hanging = UnixDatagram::bind(folder.join("hanging"))?;
    std::fs::write(folder.join("file"), "")?;
    let others = [String::new(), path("dead"), path("stream"), path("file")];
    let mut states = ["maint", "ready"].into_iter().cycle();
    let mut run = |socket: &str, server: &str| {
        let request = change(server, states.next().unwrap(), &instance.address(), json!({}));
        let run = Program::request(&request).under(log.wrapper_with(socket)).run();
        assert_eq!((run.code, &run.report()["changed"]), (Some(0), &json!(true)), "{socket}: {}", run.stderr);
        run
    };
    for socket in &others {
        assert_eq!(run(socket, "s1").report()["warnings"], json!([]), "{socket}");
    }
    // Those that are lost are worth a warning; the run does not wait for them.
    let without = run("", "s*").elapsed;
    let hanging = run(&path("hanging"), "s*");
    assert!(hanging.elapsed < without + Duration::from_secs(2), "{:?} and {without:?}", hanging.elapsed);
    let warnings = hanging.report()["warnings"].to_string();
    assert!(warnings.contains("the system log is full or its daemon hangs: "), "{warnings}");
    Ok(())
}
