//! The forms of a report for monitoring and for people: `--format nagios` and `--format table`.

use std::time::Duration;

use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::haproxy::freeze;
use crate::support::{
    Bound, Folder, Haproxy, HttpBackend, Instance, OnTerminal, Program, Run, Setup, Stage, Test, TestResult,
    eventually, on_newest,
};

pub(crate) fn tests() -> Vec<Test> {
    on_newest![
        nagios_shows_what_needs_somebody,
        nagios_does_not_know_what_it_cannot_find_out,
        nagios_is_for_a_status_alone,
        nagios_does_not_wait_for_a_frozen_process,
        what_an_owner_writes_does_nothing_to_a_terminal,
        a_table_shows_the_instances_that_answer,
        a_table_shows_every_server_in_natural_order,
        a_table_shows_what_a_change_did,
        a_table_has_colours_on_a_terminal_only,
        progress_is_gone_before_a_table_comes,
        the_text_form_is_in_natural_order,
    ]
}

const SERVERS: &str = "backend app10\n    server app10 127.0.0.1:9\n    server app2 127.0.0.1:9\n    server app1 127.0.0.1:9\n\nbackend app9\n    server s1 127.0.0.1:9\n";

fn start(haproxy: &Haproxy) -> Instance {
    Setup::new("shown", SERVERS).start(haproxy)
}

fn set(instance: &Instance, server: &str, more: Value) {
    let mut request = json!({ "server": server, "state": "maint", "instances": instance.address() });
    for (field, value) in more.as_object().unwrap() {
        request[field] = value.clone();
    }
    assert_eq!(Program::request(&request).report()["failed"], false);
}

fn status(instance: &Instance) -> Value {
    json!({ "instances": [{ "name": "lb", "socket": instance.address() }] })
}

/// What a plug-in of Nagios may say: one line with at most one bar, counts with their bounds, nothing on standard error.
fn nagios(program: Program) -> (i32, String) {
    let Run { code, stdout, stderr, .. } = program.arg("--format=nagios").run();
    assert_eq!(stderr, "", "{stdout}");
    let line = stdout.strip_suffix('\n').expect("a line");
    assert!(!line.contains(char::is_control) && line.matches('|').count() <= 1, "{stdout:?}");
    let code = code.expect("an exit code");
    let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::try_from(code).unwrap()];
    assert!(line.starts_with(&format!("HAPROXY {word} - ")), "{code}: {line}");
    let data = line.split_once('|').map(|(_, data)| data).unwrap_or_default();
    for part in data.split_whitespace() {
        let (label, values) = part.split_once('=').expect("label=value");
        let values: Vec<&str> = values.split(';').collect();
        assert!(label.bytes().all(|byte| byte.is_ascii_lowercase()), "{part}");
        assert!(values[0].parse::<u32>().is_ok() && values[1..4] == ["", "", "0"] && values.len() <= 5, "{part}");
    }
    (code, line.to_owned())
}

fn nagios_shows_what_needs_somebody(haproxy: &Haproxy) -> TestResult {
    let behind = HttpBackend::start("s2");
    let servers = format!("{SERVERS}    server s2 {} check inter 100ms\n", behind.address());
    let instance = Setup::new("shown", &servers).start(haproxy);
    let check = || nagios(Program::request(&status(&instance)));
    let counts = |ok, maint, down, owned, expired| {
        format!(
            "|servers=5;;;0 ok={ok};;;0;5 maint={maint};;;0;5 drain=0;;;0;5 down={down};;;0;5 owned={owned};;;0;5 expired={expired};;;0;5"
        )
    };
    let (code, line) = check();
    assert_eq!((code, line), (0, "HAPROXY OK - 5 of 5 servers ok".to_owned() + &counts(5, 0, 0, 0, 0)));

    set(&instance, "app10/app2", json!({ "owner": "alice|'bob'", "reason": "a|b", "expires": "+2h" }));
    let (code, line) = check();
    let shown = "HAPROXY OK - 4 of 5 servers ok; 1 in recorded maintenance".to_owned();
    assert_eq!((code, line), (0, shown + &counts(4, 1, 0, 1, 0)));

    set(&instance, "app10/app1", json!({ "owner": "ca|rol'", "expires": "+1s" }));
    let (code, line) = eventually(Duration::from_secs(5), "it to expire", || Some(check()).filter(|it| it.0 == 1));
    assert!(line.contains("expired: app10/app1 (ca\\u{7c}rol until 20"), "{line}");
    assert!(line.ends_with(&counts(3, 2, 0, 1, 1)), "{code} {line}");

    set(&instance, "app10/app10", json!({}));
    assert!(check().1.starts_with("HAPROXY WARNING - maint without an owner: app10/app10; expired: "), "{}", check().1);
    drop(behind);
    let (_, line) =
        eventually(Duration::from_secs(5), "it to be down", || Some(check()).filter(|it| it.1.contains("down: ")));
    assert!(line.starts_with("HAPROXY WARNING - down: app9/s2 (check failed: L4"), "{line}");
    assert!(line.ends_with(&counts(1, 3, 1, 1, 1)), "{line}");
    Ok(())
}

fn nagios_does_not_know_what_it_cannot_find_out(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let at = instance.address();
    let folder = Folder::new();
    let nobody = folder.join("no.sock").display().to_string();
    for (request, part) in [
        (json!({ "server": "ap2", "instances": at }), "did you mean app2"),
        (json!({ "server": "a|b'\n", "instances": at }), "server"),
        (json!({ "instances": nobody }), "no.sock"),
        (json!({ "instances": [at, nobody] }), "no.sock"),
        (json!({ "server": "x*", "on_missing": "ignore", "instances": at }), "no server is matched"),
        (json!({ "on_unreachable": "skip", "instances": nobody }), "no server is matched"),
    ] {
        let (code, line) = nagios(Program::input(request.to_string()));
        assert!(code == 3 && line.contains(part) && !line.contains('|'), "{request}: {line}");
    }
    for program in [Program::input("{"), Program::words(["nonsense=1"]), Program::words(["--bogus"])] {
        let (code, line) = nagios(program);
        assert!(code == 3 && !line.contains('|'), "{line}");
    }
    // What is left out on purpose is said, and does not hide the rest.
    let (code, line) = nagios(Program::request(&json!({ "on_unreachable": "skip", "instances": [at, nobody] })));
    assert!(code == 0 && line.contains("4 of 4 servers ok; 1 of 2 instances skipped|"), "{line}");
    Ok(())
}

fn nagios_is_for_a_status_alone(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    for more in [json!({ "state": "maint" }), json!({ "weight": 1 }), json!({ "state": "maint", "dry_run": true })] {
        let mut request = json!({ "server": "app1", "instances": instance.address() });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (code, line) = nagios(Program::request(&request));
        assert!(code == 3 && line.contains("--format nagios only shows a status"), "{line}");
    }
    assert_eq!(instance.state("app10", "app1"), (0, 2));
    let (code, line) = nagios(Program::request(&status(&instance)).arg("--detailed-exitcodes"));
    assert!(code == 3 && line.contains("--detailed-exitcodes does not go with --format nagios"), "{line}");
    Ok(())
}

fn nagios_does_not_wait_for_a_frozen_process(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    freeze(Pid::from_raw(instance.pid()));
    let request = json!({ "instances": instance.address(), "timeout": 0.5 });
    let (code, line) = nagios(Program::request(&request));
    assert!(code == 3 && line.starts_with("HAPROXY UNKNOWN - shown: ") && !line.contains('|'), "{line}");
    Ok(())
}

fn what_an_owner_writes_does_nothing_to_a_terminal(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let reason = "x\u{202e}y\u{2066}z";
    set(&instance, "app10/app2", json!({ "owner": "alice", "reason": reason, "expires": "2100-01-01T00:00:00Z" }));
    for form in ["nagios", "table", "text"] {
        let run = Program::request(&status(&instance)).arg(format!("--format={form}")).run();
        assert_eq!(run.stdout.contains("x\\u{202e}y"), form != "nagios", "{form}: {}", run.stdout);
        assert!(!run.stdout.contains(['\u{202e}', '\u{2066}']), "{form}: {:?}", run.stdout);
    }
    Ok(())
}

fn a_table_shows_the_instances_that_answer(haproxy: &Haproxy) -> TestResult {
    let (instance, folder) = (start(haproxy), Folder::new());
    let nobody = folder.join("no.sock").display().to_string();
    let request = json!({ "on_unreachable": "skip", "instances": [instance.address(), nobody] });
    let run = table(Program::request(&request));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("no.sock"), "{}", run.stderr);
    assert_eq!(rows(&run).len(), 6, "{}", run.stdout);
    Ok(())
}

fn table(program: Program) -> Run {
    program.arg("--format=table").run()
}

/// The words of each row.
fn rows(run: &Run) -> Vec<Vec<&str>> {
    run.stdout.lines().map(|line| line.split_whitespace().collect()).collect()
}

fn a_table_shows_every_server_in_natural_order(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    set(
        &instance,
        "app10/app2",
        json!({ "owner": "Zoë 田", "reason": "new | 'disk'", "expires": "2100-01-01T00:00:00Z" }),
    );
    instance.set("set server app10/app10 weight 0");
    let run = table(Program::request(&status(&instance)));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let out = "\
INSTANCE  BACKEND  SERVER  ADDRESS      ADMIN  OPERATIONAL  WEIGHT  SESSIONS  NOTE
lb        app9     s1      127.0.0.1:9  ready  running           1         0
lb        app10    app1    127.0.0.1:9  ready  running           1         0
lb        app10    app2    127.0.0.1:9  maint  stopped           1         0  by Zoë 田 until 2100-01-01T00:00:00Z: new | 'disk'
lb        app10    app10   127.0.0.1:9  ready  running           0         0  weight 0
4 servers on 1 instance: 2 ok, 1 down, 1 maint, 1 owned
";
    assert_eq!(run.stdout, out);
    Ok(())
}

fn a_table_shows_what_a_change_did(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let mut request = status(&instance);
    request["server"] = json!("app10/*");
    request["state"] = json!("drain");
    request["weight"] = json!(5);
    let dry = table(Program::request(&request).arg("-n"));
    assert_eq!(dry.stdout.lines().last(), Some("3 servers on 1 instance: 3 would change"));
    let run = table(Program::request(&request));
    assert!(run.code == Some(0) && run.stderr.contains("no usable server left"), "{}", run.stderr);
    let shown = rows(&run);
    assert_eq!(shown[1][..7], ["lb", "app10", "app1", "127.0.0.1:9", "drain", "running", "5"]);
    assert_eq!(shown[1][7..], ["-", "was", "ready,", "weight", "1"]);
    assert_eq!(run.stdout.lines().last(), Some("3 servers on 1 instance: 3 changed"));
    let again = table(Program::request(&request));
    assert_eq!(again.stdout.lines().last(), Some("3 servers on 1 instance: 0 changed"));

    // A failure stands at its server, and on standard error.
    let refused = json!({ "server": "app10/*", "state": "ready", "expect": { "admin_state": "maint" },
        "instances": instance.address() });
    let run = table(Program::request(&refused));
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    assert!(run.stdout.lines().nth(1).unwrap().contains("expectation_failed: "), "{}", run.stdout);
    assert_eq!(run.stdout.lines().last(), Some("3 servers on 1 instance: 0 changed, 3 failed"));
    let bad = table(Program::words(["nonsense=1"]));
    assert_eq!((bad.code, bad.stdout.as_str()), (Some(1), ""));
    Ok(())
}

fn a_table_has_colours_on_a_terminal_only(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    instance.set_state("app10/app2", "maint");
    let plain = table(Program::request(&status(&instance)).env("TERM", "xterm"));
    assert!(!plain.stdout.contains('\u{1b}'), "{}", plain.stdout);
    let on_terminal = |name: &str, value: &str| {
        let program = Program::request(&status(&instance)).env("TERM", "xterm").env(name, value);
        let run = table(program.under(OnTerminal::Stdout.words()));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.stdout.replace("\r\n", "\n")
    };
    for (name, value, is_coloured) in
        [("NO_COLOR", "", true), ("NO_COLOR", "1", false), ("NO_COLOR", "0", false), ("TERM", "dumb", false)]
    {
        let shown = on_terminal(name, value);
        assert_eq!(shown.contains("\u{1b}[31mmaint\u{1b}[0m"), is_coloured, "{shown}");
        assert_eq!(shown.contains("\u{1b}[32mready\u{1b}[0m"), is_coloured, "{shown}");
        let bare = ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[0m"].iter().fold(shown, |text, code| text.replace(code, ""));
        assert_eq!(bare, plain.stdout, "colours take no column");
    }
    Ok(())
}

fn progress_is_gone_before_a_table_comes(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let drain = json!({ "server": "web1", "state": "maint", "drain": { "timeout": 1, "on_timeout": "maint" },
        "instances": stage.http.address() });
    let program = Program::request(&drain).env("TERM", "xterm").env("NO_COLOR", "1");
    let run = table(program.under(OnTerminal::Both.words()));
    let (progress, shown) = run.stdout.rsplit_once("\r\u{1b}[K").expect("progress");
    assert!(progress.contains("s to go") && !progress.contains('\n'), "{:?}", run.stdout);
    assert!(shown.starts_with("warning: ") && shown.contains("\nINSTANCE") && !shown.contains('\u{1b}'), "{shown:?}");
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    Ok(())
}

fn the_text_form_is_in_natural_order(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let request = json!({ "server": "*", "instances": instance.address() });
    let run = Program::request(&request).arg("--format=text").run();
    let names: Vec<&str> = run.stdout.lines().filter_map(|line| line.strip_suffix(": RUNNING/READY")).collect();
    assert_eq!(names, ["app9/s1", "app10/app1", "app10/app2", "app10/app10"]);
    Ok(())
}
