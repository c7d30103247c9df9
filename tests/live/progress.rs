//! What a person at a terminal sees while a run waits, and what nobody else is shown.

use serde_json::{Value, json};

use crate::support::{Bound, Haproxy, OnTerminal, Program, Recorder, Run, Setup, Stage, Test, TestResult, on_newest};

pub(crate) fn tests() -> Vec<Test> {
    on_newest![
        a_terminal_shows_one_line_that_updates,
        nothing_is_shown_elsewhere,
        whoever_waits_for_the_lock_is_told_for_whom,
        a_long_line_is_cut_to_the_terminal,
    ]
}

/// What goes back to the start of the line and clears it.
const CLEAR: &str = "\r\u{1b}[K";

fn on_a_terminal(request: &Value) -> Program {
    Program::request(request).under(OnTerminal::Stderr.words())
}

/// The texts that one line of a terminal has shown, one after the other.
fn texts(run: &Run) -> Vec<&str> {
    assert!(!run.stderr.contains('\n'), "one line: {:?}", run.stderr);
    let mut texts = run.stderr.split(CLEAR);
    assert_eq!(texts.next(), Some(""), "the line is its own: {:?}", run.stderr);
    let texts: Vec<&str> = texts.collect();
    assert_eq!(texts.last(), Some(&""), "it is cleared in the end: {:?}", run.stderr);
    assert!(texts.iter().all(|text| text.chars().count() < 80), "it fits: {texts:?}");
    assert!(!texts.iter().any(|text| text.contains(char::is_control)), "{texts:?}");
    texts[..texts.len() - 1].to_vec()
}

fn a_terminal_shows_one_line_that_updates(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let at = json!(stage.http.address());
    let drain = json!({ "server": ["web1", "web2"], "state": "maint", "drain": { "timeout": 2.5, "on_timeout": "maint" },
        "instances": at });
    let run = on_a_terminal(&drain).run();
    assert_eq!((run.code, &run.report()["failed"]), (Some(0), &json!(false)), "{}", run.stderr);
    let shown = texts(&run);
    assert!(shown.len() >= 3, "it updates: {shown:?}");
    let last = shown.last().unwrap();
    assert!(last.contains("1 session left") && last.contains("web/web1"), "sessions and where: {last}");
    assert!(last.contains("1 of 2 servers"), "how far it is: {last}");
    assert!(shown[0].contains("3 s to go"), "the time left: {shown:?}");

    let wait = json!({ "server": "web1", "state": "maint", "wait": { "timeout": 1.2 }, "instances": at });
    let run = on_a_terminal(&wait).run();
    assert_eq!(run.code, Some(1));
    let shown = texts(&run);
    assert!(shown.len() >= 2 && shown[0].contains("2 s to go"), "{shown:?}");
    assert!(shown[0].starts_with("0 of 1 server free of sessions") && shown[0].contains("web/web1: it has 1 session"));
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    Ok(())
}

fn nothing_is_shown_elsewhere(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let drain = json!({ "server": "web1", "state": "maint", "drain": { "timeout": 0.5, "on_timeout": "maint" },
        "instances": stage.http.address() });
    let run = Program::request(&drain).run();
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    // Nor on a terminal that a tool reads.
    let at = stage.http.address();
    for key in ["_ansible_check_mode", "_noop"] {
        let wait =
            json!({ "server": "web1", "state": "maint", "wait": { "timeout": 0.5 }, "instances": at, key: false });
        let run = on_a_terminal(&wait).run();
        assert_eq!((run.code, run.stderr.as_str()), (Some(1), ""), "{key}");
    }
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    // Nor on a terminal where nothing is waited for: not one byte.
    let run = on_a_terminal(&json!({ "server": "web2", "state": "maint", "instances": stage.http.address() })).run();
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(run.report()["changed"], true);
    Ok(())
}

const SERVERS: &str = "backend app\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n";

fn whoever_waits_for_the_lock_is_told_for_whom(haproxy: &Haproxy) -> TestResult {
    let instance = Setup::new("shown", SERVERS).start(haproxy);
    let recorder = Recorder::on(&instance);
    recorder.hold_changes();
    let holder =
        Program::request(&json!({ "server": "s1", "state": "drain", "timeout": 30, "instances": recorder.address() }))
            .spawn();
    recorder.await_held();
    let waiting = json!({ "server": "s2", "state": "maint", "lock_timeout": 0.5, "instances": instance.address() });
    let run = on_a_terminal(&waiting).run();
    assert_eq!(run.report()["error"]["kind"], "locked");
    assert_eq!(texts(&run), [format!("waiting for process {} (s1 to drain)", holder.pid())]);
    recorder.let_go();
    assert_eq!(holder.wait().report()["failed"], false);
    Ok(())
}

fn a_long_line_is_cut_to_the_terminal(haproxy: &Haproxy) -> TestResult {
    let instance = Setup::new("shown", SERVERS).start(haproxy);
    let recorder = Recorder::on(&instance);
    recorder.hold_changes();
    let names: Vec<String> = (0..40).map(|number| format!("s{number}")).collect();
    let holder = Program::request(
        &json!({ "server": names, "state": "drain", "on_missing": "ignore", "timeout": 30, "instances": recorder.address() }),
    )
    .spawn();
    recorder.await_held();
    let waiting = json!({ "server": "s2", "state": "maint", "lock_timeout": 0.3, "instances": instance.address() });
    let run = on_a_terminal(&waiting).run();
    let shown = texts(&run);
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(shown[0].starts_with(&format!("waiting for process {} (s0,s1", holder.pid())), "{shown:?}");
    recorder.let_go();
    assert_eq!(holder.wait().report()["failed"], false);
    Ok(())
}
