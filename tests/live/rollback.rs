//! What `on_failure: rollback` sets back, and what it leaves alone.

use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::haproxy::freeze;
use crate::support::report::{kind, server, warnings};
use crate::support::tap::{Tap, When};
use crate::support::{
    Bound, Haproxy, Health, HttpBackend, Instance, Port, Program, Recorder, Setup, Stage, Test, TestResult, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        what_was_set_goes_back_when_a_server_cannot_be_set,
        what_was_set_goes_back_when_haproxy_refuses_a_command,
        what_was_set_goes_back_when_a_server_does_not_come_up,
        what_was_set_goes_back_when_sessions_do_not_end,
        weights_and_checks_go_back_as_well,
        without_it_what_was_set_stays,
        what_somebody_else_has_set_is_left_alone,
        what_failed_before_anything_was_sent_is_not_rolled_back,
        tracked_servers_go_back_last,
        of_two_backends_of_one_name_each_goes_back_to_its_own,
        what_could_not_be_read_back_goes_back,
    ]
}

fn rolled_back(request: Value) -> Value {
    let mut request = request;
    request["on_failure"] = json!("rollback");
    request
}

/// Asserts that the server was set, and is as it was before.
fn assert_rolled_back(report: &Value, name: &str) {
    let entry = server(report, name);
    assert_eq!((&entry["rolled_back"], &entry["changed"]), (&json!(true), &json!(false)), "{entry}");
    assert_eq!(entry["before"]["admin_state"], entry["after"]["admin_state"], "{entry}");
    assert_eq!(entry["before"]["weight"], entry["after"]["weight"], "{entry}");
}

fn what_was_set_goes_back_when_a_server_cannot_be_set(haproxy: &Haproxy) -> TestResult {
    let proxies = "backend app\n    server web1 127.0.0.1:9 check inter 1h\n    server web2 127.0.0.1:9\n    \
                   server web3 127.0.0.1:9\nbackend other\n    server copy 127.0.0.1:9 track app/web1\n";
    let instance = Setup::new("back", proxies).start(haproxy);
    instance.set_state("app/web1", "maint");
    instance.set_state("app/web3", "maint");
    let recorder = Recorder::on(&instance);
    // The copy is in maint with web1, which is not asked for: it cannot go to drain.
    let request =
        rolled_back(json!({ "server": ["web2", "copy", "web3"], "state": "drain", "instances": recorder.address() }));
    let run = Program::request(&request).run();
    let report = run.report();
    assert_eq!(
        (kind(&report), &report["changed"], run.code),
        ("unreachable_state", &json!(false), Some(1)),
        "{report}"
    );
    assert_rolled_back(&report, "app/web2");
    assert_rolled_back(&report, "app/web3");
    let copy = server(&report, "other/copy");
    assert_eq!((kind(copy), copy.get("rolled_back")), ("unreachable_state", None), "{copy}");
    assert_eq!(
        recorder.changing_commands(),
        [
            "set server app/web2 state drain",
            "set server app/web3 state drain",
            "set server app/web3 state maint",
            "set server app/web2 state ready",
        ],
        "in reverse"
    );
    assert_eq!((instance.state("app", "web2"), instance.state("app", "web3")), ((0, 2), (1, 0)));
    Ok(())
}

fn what_was_set_goes_back_when_haproxy_refuses_a_command(haproxy: &Haproxy) -> TestResult {
    if !haproxy.at_least(2, 6) {
        // Nothing that a real one refuses can be made to happen after it was observed.
        return Ok(());
    }
    let proxies = "backend app\n    balance roundrobin\n    server web1 127.0.0.1:9\n    server web2 127.0.0.1:9\n    \
                   server web3 127.0.0.1:9\n";
    let instance = Setup::new("back", proxies).start(haproxy);
    for name in ["web1", "web2", "web3"] {
        instance.set_state(&format!("app/{name}"), "maint");
    }
    let recorder = Recorder::on(&instance);
    recorder.hold_changes();
    let request = rolled_back(json!({ "server": "app/*", "state": "ready", "instances": recorder.address() }));
    let running = Program::request(&request).spawn();
    recorder.await_held();
    // It is deleted after it was observed, and before the command comes.
    let reply = instance.raw("del server app/web2");
    assert!(reply.contains("deleted"), "{reply:?}");
    recorder.let_go();
    let report = running.wait().report();
    assert_eq!((kind(&report), &report["changed"]), ("command_rejected", &json!(false)), "{report}");
    assert!(report["error"]["msg"].as_str().unwrap().contains("No such server"), "{report}");
    assert_rolled_back(&report, "app/web1");
    assert_rolled_back(&report, "app/web3");
    assert_eq!((instance.state("app", "web1"), instance.state("app", "web3")), ((1, 0), (1, 0)));
    let gone = server(&report, "app/web2");
    assert_eq!((kind(gone), &gone["after"]), ("command_rejected", &Value::Null), "{gone}");
    Ok(())
}

fn what_was_set_goes_back_when_a_server_does_not_come_up(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start_with(haproxy, "check inter 50ms rise 1 fall 2", |setup| setup);
    stage.http.set_state("web/web1", "maint");
    stage.http.set_state("web/web2", "drain");
    stage.ldap.set_state("directory/ldap1", "maint");
    stage.server("web1").set_health(Health::Bad);
    let instances: Value = stage.instances().iter().map(|one| json!(one.address())).collect();
    let request = rolled_back(json!({ "server": ["web1", "web2", "ldap1"], "state": "ready",
        "wait": { "timeout": 1 }, "instances": instances }));
    let report = Program::request(&request).report();
    assert_eq!((kind(&report), &report["changed"]), ("not_up", &json!(false)), "{report}");
    for name in ["web/web1", "web/web2", "directory/ldap1"] {
        assert_rolled_back(&report, name);
    }
    assert_eq!(kind(server(&report, "web/web1")), "not_up");
    assert_eq!((stage.http.state("web", "web1"), stage.http.row("web", "web2").admin), ((1, 0), 8));
    assert_eq!(stage.ldap.state("directory", "ldap1"), (1, 0), "on the other instance, too");
    Ok(())
}

fn what_was_set_goes_back_when_sessions_do_not_end(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let at = json!(stage.http.address());
    for (what, state) in [("wait", "maint"), ("wait", "drain"), ("drain", "maint")] {
        let mut request = rolled_back(json!({ "server": ["web1", "web2"], "state": state, "instances": at }));
        request[what] = json!({ "timeout": 0.3 });
        let report = Program::request(&request).report();
        assert_eq!((kind(&report), &report["changed"]), ("not_drained", &json!(false)), "{what} {state}: {report}");
        assert_rolled_back(&report, "web/web1");
        assert_rolled_back(&report, "web/web2");
        assert_eq!((stage.http.state("web", "web1"), stage.http.state("web", "web2")), ((0, 2), (0, 2)));
    }
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    Ok(())
}

fn weights_and_checks_go_back_as_well(haproxy: &Haproxy) -> TestResult {
    let behind = HttpBackend::start("web1");
    let proxies = format!(
        "backend app\n    option httpchk GET /health\n    server web1 {0} check inter 50ms fall 2 \
         weight 10\n    server web2 {0} check inter 50ms fall 2 weight 10\n",
        behind.address()
    );
    let instance = Setup::new("back", &proxies).start(haproxy);
    instance.set("set server app/web1 weight 7");
    instance.set_state("app/web1", "maint");
    instance.set_state("app/web2", "maint");
    instance.set("disable health app/web1");
    behind.set_health(Health::Bad);
    let health = |name: &str| instance.row("app", name).columns["srv_check_state"].parse::<u32>().unwrap() & 4;
    let request = rolled_back(json!({ "server": "app/*", "state": "ready", "weight": 3, "health": "enabled",
        "wait": { "timeout": 0.8 }, "instances": instance.address() }));
    let report = Program::request(&request).report();
    assert_eq!((kind(&report), &report["changed"]), ("not_up", &json!(false)), "{report}");
    assert_rolled_back(&report, "app/web1");
    assert_rolled_back(&report, "app/web2");
    assert_eq!((instance.row("app", "web1").weight, instance.row("app", "web2").weight), (7, 10));
    assert_eq!((health("web1"), health("web2")), (0, 4));
    assert_eq!((instance.state("app", "web1"), instance.state("app", "web2")), ((1, 0), (1, 0)));
    Ok(())
}

fn without_it_what_was_set_stays(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let _held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let request = json!({ "server": ["web1", "web2"], "state": "maint", "wait": { "timeout": 0.3 },
        "on_failure": "keep", "instances": stage.http.address() });
    let report = Program::request(&request).report();
    assert_eq!((kind(&report), &report["changed"]), ("not_drained", &json!(true)), "{report}");
    assert_eq!((stage.http.state("web", "web1"), stage.http.state("web", "web2")), ((1, 0), (1, 0)));
    assert!(server(&report, "web/web1").get("rolled_back").is_none());
    Ok(())
}

/// Starts a run that sets web1, web2 and web3 and waits for a session on web3 in vain; gives the report.
fn with_somebody_else(stage: &Stage, meddle: impl FnOnce(&Instance)) -> Value {
    let _held = Bound::hold(stage.frontend("web"), stage.server("web3"));
    let request = rolled_back(json!({ "server": "web/*", "state": "maint", "wait": { "timeout": 1.5 },
        "instances": stage.http.address() }));
    let running = Program::request(&request).spawn();
    for name in ["web1", "web2", "web3"] {
        stage.http.await_state("web", name, (1, 0));
    }
    // It has read that back, and waits.
    thread::sleep(Duration::from_millis(400));
    meddle(&stage.http);
    let report = running.wait().report();
    stage.server("web3").release();
    report
}

fn what_somebody_else_has_set_is_left_alone(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let report = with_somebody_else(&stage, |http| http.set_state("web/web1", "drain"));
    assert_eq!((&report["failed"], &report["changed"]), (&json!(true), &json!(true)), "{report}");
    assert_eq!(stage.http.state("web", "web1"), (8, 2), "whoever has set it meanwhile has the last word");
    assert_eq!((stage.http.state("web", "web2"), stage.http.state("web", "web3")), ((0, 2), (0, 2)));
    assert_rolled_back(&report, "web/web2");
    assert_rolled_back(&report, "web/web3");
    let entry = server(&report, "web/web1");
    assert_eq!((entry.get("rolled_back"), &entry["after"]["admin_state"]), (None, &json!("drain")), "{entry}");
    assert!(warnings(&report).contains("web/web1 was left alone: somebody else has set it to drain"), "{report}");

    // What somebody else has set back is as it was, whoever did it.
    stage.http.set_state("web/web1", "ready");
    stage.server("web3").hold();
    let report = with_somebody_else(&stage, |http| http.set_state("web/web1", "ready"));
    assert_eq!(report["failed"], true);
    for name in ["web1", "web2", "web3"] {
        assert_eq!(stage.http.state("web", name), (0, 2));
    }
    Ok(())
}

fn what_failed_before_anything_was_sent_is_not_rolled_back(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let recorder = Recorder::on(&stage.http);
    let request = rolled_back(json!({ "server": "web/*", "state": "maint", "guard": { "min_available": 1 },
        "instances": recorder.address() }));
    let report = Program::request(&request).report();
    assert_eq!((kind(&report), &report["changed"]), ("guard_refused", &json!(false)), "{report}");
    assert_eq!(recorder.changing_commands(), [""; 0]);
    assert!(report["servers"].as_array().unwrap().iter().all(|entry| entry.get("rolled_back").is_none()), "{report}");
    Ok(())
}

fn tracked_servers_go_back_last(haproxy: &Haproxy) -> TestResult {
    let behind = HttpBackend::start("one");
    behind.set_health(Health::Good);
    let proxies = format!(
        "backend app\n    option httpchk GET /health\n    server one {0} check inter 50ms fall 2\n\
         backend other\n    server copy {0} track app/one\nbackend slow\n    option httpchk GET /health\n    \
         server bad 127.0.0.1:9 check inter 50ms fall 2\n",
        behind.address()
    );
    let instance = Setup::new("back", &proxies).start(haproxy);
    for name in ["app/one", "other/copy", "slow/bad"] {
        instance.set_state(name, "maint");
    }
    let recorder = Recorder::on(&instance);
    let request = rolled_back(
        json!({ "server": ["one", "copy", "bad"], "state": "ready", "wait": { "timeout": 1, "via": "ready" },
        "instances": recorder.address() }),
    );
    let report = Program::request(&request).report();
    assert_eq!((kind(&report), &report["changed"]), ("not_up", &json!(false)), "{report}");
    let sent = recorder.changing_commands();
    let mut back: Vec<&str> = sent[3..].iter().map(String::as_str).collect();
    assert_eq!(back.pop(), sent[0].replace("ready", "maint").as_str().into(), "first set, last set back: {sent:?}");
    assert_eq!(sent.iter().position(|line| line == "set server other/copy state maint"), Some(3), "{sent:?}");
    assert_eq!((instance.row("app", "one").admin, instance.row("other", "copy").admin & 1), (1, 1));
    Ok(())
}

fn of_two_backends_of_one_name_each_goes_back_to_its_own(haproxy: &Haproxy) -> TestResult {
    if haproxy.at_least(3, 1) {
        return Ok(()); // Refuses such a configuration.
    }
    let port = Port::reserve();
    let proxies = format!(
        "backend b\n    server s1 127.0.0.1:9\nlisten b\n    bind 127.0.0.1:{}\n    \
         server s1 127.0.0.1:9 check inter 50ms fall 1 rise 2\n",
        port.number()
    );
    let instance = Setup::new("twins", &proxies).start(haproxy);
    let ids = || -> Vec<(String, String)> {
        let reply = instance.raw("show servers state");
        let rows = reply.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let servers = rows.filter(|row| row.get(3) == Some(&"s1"));
        servers.map(|row| (row[0].to_owned(), row[6].to_owned())).collect()
    };
    let (first, second) = (ids()[0].0.clone(), ids()[1].0.clone());
    instance.set_state(&format!("#{second}/s1"), "maint");
    let recorder = Recorder::on(&instance);
    // The one that is ready already is not touched; the other does not come up.
    let request = rolled_back(json!({ "server": "s1", "state": "ready", "wait": { "timeout": 1, "via": "ready" },
        "instances": recorder.address() }));
    let report = Program::request(&request).report();
    assert_eq!((kind(&report), &report["changed"]), ("not_up", &json!(false)), "{report}");
    let sent = [format!("set server #{second}/s1 state ready"), format!("set server #{second}/s1 state maint")];
    assert_eq!(recorder.changing_commands(), sent);
    assert_eq!(ids(), [(first, "0".to_owned()), (second, "1".to_owned())]);
    Ok(())
}

fn what_could_not_be_read_back_goes_back(haproxy: &Haproxy) -> TestResult {
    let instance = Setup::new("frozen", "backend b\n    server s1 127.0.0.1:9\n").start(haproxy);
    let pid = Pid::from_raw(instance.pid());
    // It carries the command out and hangs; it goes on when it is asked again, or not before the run has ended.
    for (policy, pause, rolled_back) in [("rollback", 4.0, true), ("keep", 4.0, false), ("rollback", 9.0, false)] {
        instance.set_state("b/s1", "ready");
        let socket = instance.folder.join(&format!("{policy}{pause}"));
        let tap = Tap::once(&socket, &instance.socket, When::After, move || {
            freeze(pid);
            thread::spawn(move || {
                thread::sleep(Duration::from_secs_f64(pause));
                let _ = kill(pid, Signal::SIGCONT);
            });
        });
        let request = json!({ "server": "s1", "state": "maint", "timeout": 2.5, "on_failure": policy,
            "owner": "alice", "instances": tap.address() });
        let report = Program::request(&request).report();
        assert_eq!(kind(&report), "timeout", "{report}");
        let entry = server(&report, "b/s1");
        assert_eq!(entry["commands"][0], "set server b/s1 state maint", "{entry}");
        if rolled_back {
            assert_rolled_back(&report, "b/s1");
            assert_eq!((&entry["failed"], &report["changed"]), (&json!(true), &json!(false)), "{report}");
        } else {
            assert_eq!((&entry["after"], entry.get("rolled_back")), (&Value::Null, None), "{report}");
            assert_eq!((&entry["changed"], &report["changed"]), (&json!(true), &json!(true)), "HAProxy took it");
        }
        let is_said = warnings(&report).contains("nothing was rolled back: the socket");
        assert_eq!(is_said, policy == "rollback" && !rolled_back, "{report}");
        assert_eq!(instance.state("b", "s1"), if rolled_back { (0, 2) } else { (1, 0) });
        if !haproxy.at_least(2, 6) {
            // Its clock stands still while it hangs, so that it looks like another process afterwards.
            continue;
        }
        // Whoever may have taken it out is known once it is seen to be out.
        let entry = server(&Program::request(&json!({ "instances": tap.address() })).report(), "b/s1").clone();
        assert_eq!(entry.get("owner"), (!rolled_back).then_some(&json!("alice")), "{entry}");
    }
    Ok(())
}
