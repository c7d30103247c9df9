//! HAProxy hangs or dies while a run is under way: what is not known is not called unchanged, and nobody waits in vain.

use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::haproxy::freeze;
use crate::support::report::{kind, server, warnings};
use crate::support::tap::Tap;
use crate::support::{Bound, Haproxy, Mode, PATIENCE, Program, Setup, Stage, Test, TestResult, eventually, tests};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_drain_that_hangs_is_left_in_time,
        what_was_set_before_counts_as_changed,
        one_that_dies_holds_up_no_other,
        what_is_set_back_is_out_of_the_state_file,
        what_a_reload_has_kept_is_set_back,
        what_somebody_else_has_set_is_seen_in_the_end,
    ]
}

fn a_drain_that_hangs_is_left_in_time(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    for policy in ["keep", "rollback"] {
        stage.http.set_state("web/web1", "ready");
        let request = json!({ "server": "web1", "state": "maint", "drain": { "timeout": 30, "on_timeout": "maint" },
            "timeout": 1, "owner": "alice", "on_failure": policy, "instances": stage.http.address() });
        let running = Program::request(&request).arg("--detailed-exitcodes").spawn();
        stage.http.await_state("web", "web1", (8, 2));
        thread::sleep(Duration::from_millis(300));
        let pid = Pid::from_raw(stage.http.pid());
        freeze(pid);
        let run = running.wait();
        kill(pid, Signal::SIGCONT)?;
        let report = run.report();
        assert!(run.elapsed < Duration::from_secs(8), "{policy}: {:?}", run.elapsed);
        let entry = server(&report, "web/web1");
        assert_eq!((kind(&report), kind(entry), run.code), ("timeout", "timeout", Some(6)), "{policy}: {report}");
        assert_eq!(
            (&report["changed"], &entry["changed"], entry.get("rolled_back")),
            (&json!(true), &json!(true), None)
        );
        assert!(!warnings(&report).contains("went to maint"), "{report}");
        let is_said = warnings(&report).contains("nothing was rolled back");
        assert_eq!((is_said, entry["after"].is_null()), (policy == "rollback", policy == "rollback"), "{report}");
        assert_eq!(stage.http.state("web", "web1"), (8, 2));
        if haproxy.at_least(2, 6) {
            // The clock of older ones stands still while they hang, so that they look like other processes then.
            let status = Program::request(&json!({ "server": "web1", "instances": stage.http.address() })).report();
            assert_eq!(server(&status, "web/web1")["owner"], "alice", "{policy}: {status}");
        }
    }
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    Ok(())
}

fn what_was_set_before_counts_as_changed(haproxy: &Haproxy) -> TestResult {
    for policy in ["keep", "rollback"] {
        let instance = Setup::new("frozen", "backend b\n    server s1 127.0.0.1:9\n").start(haproxy);
        let pid = Pid::from_raw(instance.pid());
        // It is observed and read back after the command; when it is read for the last time, it hangs.
        let socket = instance.folder.join("tap.sock");
        let tap = Tap::at(&socket, &instance.socket, ("show servers state", 2), move || freeze(pid));
        let request = json!({ "server": "s1", "state": "maint", "wait": true, "timeout": 1, "on_failure": policy,
            "instances": tap.address() });
        let run = Program::request(&request).arg("--detailed-exitcodes").run();
        kill(pid, Signal::SIGCONT)?;
        let report = run.report();
        let entry = server(&report, "b/s1");
        assert_eq!((kind(&report), run.code, &entry["after"]), ("timeout", Some(6), &Value::Null), "{report}");
        assert_eq!((&entry["changed"], &entry["failed"]), (&json!(true), &json!(true)), "{report}");
        assert_eq!(warnings(&report).contains("nothing was rolled back"), policy == "rollback", "{report}");
        assert_eq!(instance.state("b", "s1"), (1, 0));
    }
    Ok(())
}

fn one_that_dies_holds_up_no_other(haproxy: &Haproxy) -> TestResult {
    let mut stage = Stage::start(haproxy);
    let _lost = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let held = Bound::hold(stage.frontend("directory"), stage.server("ldap1"));
    let request = json!({ "server": ["web1", "ldap1"], "state": "maint", "drain": { "timeout": 50 }, "timeout": 2,
        "instances": [stage.http.address(), stage.ldap.address()] });
    let running = Program::request(&request).spawn();
    stage.http.await_state("web", "web1", (8, 2));
    stage.ldap.await_state("directory", "ldap1", (8, 2));
    stage.http.kill();
    thread::sleep(Duration::from_millis(500));
    stage.server("ldap1").release();
    assert_eq!(held.served_by(), "ldap1");
    stage.ldap.await_state("directory", "ldap1", (1, 0));
    let run = running.wait();
    let report = run.report();
    assert!(run.elapsed < Duration::from_secs(15), "{:?}", run.elapsed);
    let (lost, other) = (server(&report, "web/web1"), server(&report, "directory/ldap1"));
    assert_eq!((kind(&report), kind(lost), kind(other)), ("unreachable", "unreachable", ""), "{report}");
    assert_eq!((&other["after"]["admin_state"], &other["failed"]), (&json!("maint"), &json!(false)), "{report}");
    Ok(())
}

fn what_is_set_back_is_out_of_the_state_file(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let pid = Pid::from_raw(stage.http.pid());
    let (socket, file) = (stage.folder.join("tap.sock"), stage.folder.join("state"));
    // It hangs when it is looked at for the first time, and goes on before it is to be set back.
    let tap = Tap::at(&socket, &stage.http.socket, ("show stat", 1), move || {
        freeze(pid);
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(1_500));
            let _ = kill(pid, Signal::SIGCONT);
        });
    });
    let request = json!({ "server": "web1", "state": "maint", "wait": { "timeout": 20 }, "timeout": 1,
        "on_failure": "rollback", "state_file": file, "instances": tap.address() });
    let report = Program::request(&request).report();
    let entry = server(&report, "web/web1");
    assert_eq!((kind(&report), &entry["rolled_back"]), ("timeout", &json!(true)), "{report}");
    assert_eq!(stage.http.state("web", "web1"), (0, 2));
    let text = std::fs::read_to_string(&file)?;
    assert!(!text.contains("web1"), "a reload would take it out again: {text}");
    stage.server("web1").release();
    let _ = held.answer();
    Ok(())
}

fn what_a_reload_has_kept_is_set_back(haproxy: &Haproxy) -> TestResult {
    let folder = crate::support::Folder::new();
    let file = folder.join("state");
    let mut stage = Stage::start_with(haproxy, "", |setup| setup.mode(Mode::MasterWorker).loads(&file));
    let request = json!({ "server": "web1", "state": "maint", "wait": { "timeout": 30, "stable": 20 },
        "on_failure": "rollback", "state_file": file, "instances": stage.http.address() });
    let running = Program::request(&request).spawn();
    let is_written = || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(" web1 "));
    eventually(PATIENCE, "the file", || is_written().then_some(()));
    // With the longest pause between two looks.
    thread::sleep(Duration::from_millis(1_500));
    stage.http.reload();
    assert_eq!(stage.http.state("web", "web1"), (1, 0), "the new process has loaded it");
    running.signal(Signal::SIGTERM);
    let report = running.wait().report();
    let entry = server(&report, "web/web1");
    assert_eq!((kind(&report), &entry["rolled_back"]), ("interrupted", &json!(true)), "{report}");
    assert_eq!((&report["changed"], stage.http.state("web", "web1")), (&json!(false), (0, 2)), "{report}");
    assert!(!is_written(), "nor does the next reload take it out");
    assert!(!warnings(&report).contains("forgotten"), "{report}");
    Ok(())
}

fn what_somebody_else_has_set_is_seen_in_the_end(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let request = json!({ "server": "web1", "state": "maint", "drain": { "timeout": 30 }, "owner": "zed",
        "instances": stage.http.address() });
    let running = Program::request(&request).spawn();
    stage.http.await_state("web", "web1", (8, 2));
    // With the longest pause between two looks.
    thread::sleep(Duration::from_millis(1_500));
    stage.http.set_state("web/web1", "ready");
    running.signal(Signal::SIGINT);
    let report = running.wait().report();
    let entry = server(&report, "web/web1");
    assert_eq!((&report["failed"], &report["changed"]), (&json!(true), &json!(false)), "{report}");
    assert_eq!((&entry["after"]["admin_state"], &entry["changed"]), (&json!("ready"), &json!(false)), "{report}");
    // Nobody is kept from putting it back once somebody has drained it again.
    stage.http.set_state("web/web1", "drain");
    let request = json!({ "server": "web1", "state": "ready", "owner": "bob", "instances": stage.http.address() });
    assert_eq!(Program::request(&request).report()["failed"], false);
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    Ok(())
}
