//! Health and agent checks that are paused and resumed, and the state that is expected before a change.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::report::{commands, kind, server, warnings};
use crate::support::{
    Agent, Haproxy, Health, HttpBackend, Instance, PATIENCE, Program, Recorder, Setup, Stage, TcpTalker, Test,
    TestResult, eventually_seen, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        checks_are_paused_and_resumed_once,
        a_server_without_the_check_is_left_as_it_is,
        a_paused_agent_does_not_set_the_state_back,
        an_enabled_agent_is_a_warning_where_nothing_is_waited_for,
        a_check_and_a_state_go_together,
        another_state_than_expected_is_refused,
        an_expectation_is_about_what_is_changed,
        what_a_server_answers_to_its_check_is_no_row,
    ]
}

fn checked(haproxy: &Haproxy, agent: &Agent) -> (Instance, HttpBackend) {
    let behind = HttpBackend::start("both");
    let proxies = format!(
        "backend app\n    option httpchk GET /health\n    server both {0} check inter 100ms {1}\n    \
         server none {0}\n    server health {0} check inter 100ms\n",
        behind.address(),
        agent.options("100ms")
    );
    let instance = Setup::new("checked", &proxies).start(haproxy);
    agent.await_asked();
    (instance, behind)
}

/// Whether a check is enabled, by HAProxy's own mask.
fn is_enabled(instance: &Instance, server: &str, column: &str) -> bool {
    instance.row("app", server).columns[column].parse::<u32>().unwrap() & 4 != 0
}

fn checks_are_paused_and_resumed_once(haproxy: &Haproxy) -> TestResult {
    let agent = Agent::start("up");
    let (instance, _behind) = checked(haproxy, &agent);
    let recorder = Recorder::on(&instance);
    for (check, column) in [("health", "srv_check_state"), ("agent", "srv_agent_state")] {
        for (wanted, verb) in [("disabled", "disable"), ("enabled", "enable")] {
            let mut request = json!({ "server": "app/both", "instances": recorder.address() });
            request[check] = json!(wanted);
            let mut dry = request.clone();
            dry["dry_run"] = json!(true);
            let foreseen = Program::request(&dry).report();
            recorder.clear();
            let report = Program::request(&request).report();
            assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
            assert_eq!(recorder.changing_commands(), [format!("{verb} {check} app/both")]);
            assert_eq!((commands(&foreseen), &foreseen["changed"]), (commands(&report), &json!(true)));
            assert_eq!(is_enabled(&instance, "both", column), wanted == "enabled");
            recorder.clear();
            let report = Program::request(&request).report();
            assert_eq!((&report["changed"], &report["failed"]), (&json!(false), &json!(false)), "{report}");
            assert_eq!(recorder.changing_commands(), [""; 0], "a second run sends nothing");
            assert_eq!(instance.row("app", "both").admin, 0, "it is no state");
        }
    }
    Ok(())
}

fn a_server_without_the_check_is_left_as_it_is(haproxy: &Haproxy) -> TestResult {
    let agent = Agent::start("up");
    let (instance, _behind) = checked(haproxy, &agent);
    let recorder = Recorder::on(&instance);
    for (check, wanted, names) in [
        ("health", "disabled", vec!["none"]),
        ("health", "enabled", vec!["none"]),
        ("agent", "disabled", vec!["none", "health"]),
        ("agent", "enabled", vec!["none", "health"]),
    ] {
        let mut request = json!({ "server": names, "instances": recorder.address() });
        request[check] = json!(wanted);
        let report = Program::request(&request).report();
        assert_eq!((&report["changed"], &report["failed"]), (&json!(false), &json!(false)), "{report}");
        let said = warnings(&report);
        assert!(said.contains("app/none") && said.contains(&format!("no {check} check")), "{said}");
    }
    assert_eq!(recorder.changing_commands(), [""; 0]);
    // One that has it is set all the same.
    let request = json!({ "server": "app/*", "health": "disabled", "instances": recorder.address() });
    let report = Program::request(&request).report();
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
    assert_eq!(recorder.changing_commands(), ["disable health app/both", "disable health app/health"]);
    Ok(())
}

fn a_paused_agent_does_not_set_the_state_back(haproxy: &Haproxy) -> TestResult {
    let agent = Agent::start("ready");
    let (instance, _behind) = checked(haproxy, &agent);
    let recorder = Recorder::on(&instance);
    let request = json!({ "server": "both", "state": "maint", "agent": "disabled", "instances": recorder.address() });
    let report = Program::request(&request).report();
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
    assert_eq!(
        recorder.changing_commands(),
        ["disable agent app/both", "set server app/both state maint"],
        "the agent is silent before the state is set"
    );
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(instance.state("app", "both"), (1, 0), "nobody sets it back");
    recorder.clear();
    assert_eq!(Program::request(&request).report()["changed"], false);
    assert_eq!(recorder.changing_commands(), [""; 0]);
    // Back again, in the other order.
    let request = json!({ "server": "both", "state": "ready", "agent": "enabled", "instances": recorder.address() });
    assert_eq!(Program::request(&request).report()["failed"], false);
    assert_eq!(recorder.changing_commands(), ["set server app/both state ready", "enable agent app/both"]);
    Ok(())
}

fn an_enabled_agent_is_a_warning_where_nothing_is_waited_for(haproxy: &Haproxy) -> TestResult {
    let agent = Agent::start("up");
    let (instance, _behind) = checked(haproxy, &agent);
    for state in ["maint", "drain", "ready"] {
        let request = json!({ "server": "app/both", "state": state, "instances": instance.address() });
        let report = Program::request(&request).report();
        assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
        let said = warnings(&report);
        assert!(said.contains("app/both") && said.contains("an agent check is running"), "{state}: {said}");
    }
    let request =
        json!({ "server": "app/both", "state": "maint", "agent": "disabled", "instances": instance.address() });
    assert_eq!(warnings(&Program::request(&request).report()), "");
    Ok(())
}

fn a_check_and_a_state_go_together(haproxy: &Haproxy) -> TestResult {
    let agent = Agent::start("up");
    let (instance, behind) = checked(haproxy, &agent);
    let recorder = Recorder::on(&instance);
    let request = json!({ "server": "app/both", "state": "maint", "weight": 0, "health": "disabled",
        "agent": "disabled", "instances": recorder.address() });
    let report = Program::request(&request).report();
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
    assert_eq!(
        recorder.changing_commands(),
        [
            "disable agent app/both",
            "set server app/both state maint",
            "set server app/both weight 0",
            "disable health app/both"
        ],
        "out first, then the rest"
    );
    assert_eq!(commands(&report), recorder.changing_commands());
    // In maint without a check, it stays ready then without one: nothing asks the server.
    instance.set_state("app/both", "ready");
    let before = behind.checks();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let row = server(&report, "app/both");
    assert_eq!(row["after"]["weight"], 0);
    assert!(behind.checks() >= before);
    assert!(!is_enabled(&instance, "both", "srv_check_state"));
    Ok(())
}

fn another_state_than_expected_is_refused(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let recorders: Vec<Recorder> = stage.instances().into_iter().map(Recorder::on).collect();
    let instances: Value = recorders.iter().map(|one| json!(one.address())).collect();
    stage.http.set_state("web/web2", "drain");
    stage.http.set_state("web/web3", "drain");
    stage.ldap.set_state("directory/ldap1", "maint");
    let ask = |names: Value, state: &str, expected: &str| {
        recorders.iter().for_each(Recorder::clear);
        let request = json!({ "server": names, "state": state, "expect": { "admin_state": expected },
            "instances": instances });
        Program::request(&request).report()
    };
    let sent = || recorders.iter().flat_map(Recorder::changing_commands).collect::<Vec<_>>();
    let report = ask(json!(["web1", "web2", "web3", "ldap1"]), "maint", "ready");
    assert_eq!((kind(&report), &report["changed"]), ("expectation_failed", &json!(false)), "{report}");
    assert_eq!(kind(server(&report, "web/web2")), "expectation_failed");
    assert_eq!(kind(server(&report, "web/web3")), "expectation_failed");
    assert_eq!(server(&report, "directory/ldap1")["failed"], false, "it is there already");
    assert_eq!(server(&report, "web/web1")["failed"], false, "all of them, and only them");
    let msg = server(&report, "web/web2")["error"]["msg"].as_str().unwrap();
    assert!(msg.contains("web/web2 is in drain") && msg.contains("'expect.admin_state' is ready"), "{msg}");
    assert_eq!(sent(), [""; 0]);
    // What is as wanted needs no change, and is as good whatever was expected.
    let report = ask(json!("ldap1"), "maint", "drain");
    assert_eq!((kind(&report), &report["changed"]), ("", &json!(false)), "{report}");
    let report = ask(json!("web2"), "maint", "drain");
    assert_eq!((kind(&report), &report["changed"]), ("", &json!(true)), "{report}");
    assert_eq!(sent(), ["set server web/web2 state maint"]);
    Ok(())
}

fn an_expectation_is_about_what_is_changed(haproxy: &Haproxy) -> TestResult {
    let behind = HttpBackend::start("s1");
    let proxies = format!(
        "backend b\n    server s1 {} check inter 50ms fall 1 rise 1\n    server s2 127.0.0.1:9\n    server s3 127.0.0.1:9\n",
        behind.address()
    );
    let instance = Instance::start(haproxy, "expected", &proxies);
    let recorder = Recorder::on(&instance);
    let ask = |expected: Value, more: Value| {
        recorder.clear();
        let mut request =
            json!({ "server": "*", "state": "maint", "expect": expected, "instances": recorder.address() });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Program::request(&request).report()
    };
    behind.set_health(Health::Refuse);
    instance.await_state("b", "s1", (0, 0));
    for dry in [true, false] {
        for expected in [
            json!({ "operational_state": "running" }),
            json!({ "admin_state": "ready", "operational_state": "running" }),
        ] {
            let report = ask(expected, json!({ "dry_run": dry }));
            assert_eq!((kind(&report), &report["changed"]), ("expectation_failed", &json!(false)), "{report}");
            let msg = report["error"]["msg"].as_str().unwrap();
            assert!(msg.contains("b/s1 is stopped, but 'expect.operational_state' is running"), "{msg}");
            assert_eq!(kind(server(&report, "b/s2")), "", "{report}");
            assert_eq!(recorder.changing_commands(), [""; 0]);
        }
    }
    behind.set_health(Health::Good);
    instance.await_state("b", "s1", (0, 2));
    let both = json!({ "admin_state": "ready", "operational_state": "running" });
    for changed in [true, false] {
        let report = ask(both.clone(), json!({}));
        assert_eq!((kind(&report), &report["changed"]), ("", &json!(changed)), "a second run passes: {report}");
    }
    // Only what is left to be changed is judged: the others may be in any state.
    instance.set_state("b/s3", "ready");
    assert_eq!(kind(&ask(both.clone(), json!({ "dry_run": true }))), "");
    instance.set_state("b/s3", "drain");
    assert_eq!(kind(&ask(both.clone(), json!({}))), "expectation_failed");
    assert_eq!(kind(&ask(both, json!({ "state": null, "weight": 100 }))), "expectation_failed", "a weight is a change");
    for bad in [json!({}), json!({ "operational_state": "up" }), json!({ "state": "ready" })] {
        let request = json!({ "server": "*", "state": "maint", "expect": bad, "instances": recorder.address() });
        assert_eq!(kind(&Program::input(request.to_string()).report()), "bad_request", "{request}");
    }
    Ok(())
}

fn what_a_server_answers_to_its_check_is_no_row(haproxy: &Haproxy) -> TestResult {
    // HAProxy shows the text of a check in `show stat`: in any encoding, and before 3.0 with its line ends.
    let web = TcpTalker::start(b"HTTP/1.0 503 Indisponible (arr\xeat\xe9), \"retour\"\r\n\r\n");
    let db =
        TcpTalker::start(b"\x36\0\0\0\xff\x15\x04no \"x\"\n> \n# pxname,svname\n\nNo such proxy.\ndb,s2,BACKEND\n\n> ");
    let mut proxies = format!(
        "backend web\n    option httpchk GET /health\n    server s1 {} check inter 50ms fall 1\n\
         backend db\n    option mysql-check user haproxy\n    server s1 {} check inter 50ms fall 1\n    \
         server s2 127.0.0.1:9\nbackend many\n",
        web.address(),
        db.address()
    );
    for number in 0..70 {
        let _ = writeln!(proxies, "    server m{number} 127.0.0.1:9");
    }
    // So it does what the configuration says of itself, in `show info`.
    let instance = Setup::new("texts", &proxies).global("description r\\xe9partiteur").start(haproxy);
    assert!(instance.raw("show info").contains("description: r\u{fffd}partiteur"));
    for (backend, text) in [("web", "503"), ("db", "no ")] {
        eventually_seen(PATIENCE, "a failed check and its text", || {
            let reply = instance.raw(&format!("show stat {backend} 4 -1"));
            if reply.contains("DOWN") && reply.contains(text) { Ok(()) } else { Err(reply) }
        });
    }
    let ask = |request: Value| {
        let mut request = request;
        request["instances"] = json!(instance.address());
        Program::request(&request).report()
    };
    // One by one, and in one table of all.
    for names in [json!(["s1", "s2"]), json!("*")] {
        let report = ask(json!({ "server": names }));
        assert_eq!((&report["failed"], warnings(&report).as_str()), (&json!(false), ""), "{report}");
        assert_eq!(server(&report, "web/s1")["check"], "L7STS", "{report}");
        assert_eq!(server(&report, "db/s1")["check"], "L7STS", "{report}");
        assert_eq!((&server(&report, "db/s2")["sessions"], &report["ok"]), (&json!(0), &json!(false)), "{report}");
    }
    for state in ["maint", "ready"] {
        let mut request = json!({ "server": ["s1", "s2"], "state": state });
        if state == "maint" {
            request["drain"] = json!({ "timeout": 5 });
        }
        let report = ask(request);
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
    }
    let report = ask(json!({ "server": ["s1", "s2"], "state": "ready", "wait": { "timeout": 0.5 } }));
    for (name, expected) in [("web/s1", "not_up"), ("db/s1", "not_up"), ("db/s2", "")] {
        assert_eq!(kind(server(&report, name)), expected, "{report}");
    }
    Ok(())
}
