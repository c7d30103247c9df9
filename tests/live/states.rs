//! What HAProxy makes of each kind of server: disabled ones, tracking ones, those that DNS or an agent rules.

use serde_json::{Value, json};

use crate::support::backend::stats_page;
use crate::support::report::{commands, kind, server, servers, warnings};
use crate::support::{
    Agent, Answer, Bound, Dns, Folder, Haproxy, Health, HttpBackend, Instance, PATIENCE, Port, Program, Recorder,
    Scripted, Setup, Stage, Step, Test, TestResult, eventually, tests,
};
use crate::transport::{HEADER, info, opening, row};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_server_disabled_by_the_configuration_can_be_set,
        tracking_servers_go_out_and_come_back_with_their_targets,
        a_tracking_server_alone_cannot_leave_its_target,
        a_chain_of_tracking_servers_is_planned_from_its_end,
        many_tracking_servers_come_back_with_their_targets,
        a_name_that_does_not_resolve_keeps_its_server_in_maintenance,
        spare_slots_are_nobody_s_failure,
        an_agent_may_set_the_state_back,
        a_weight_is_compared_first,
        a_share_that_is_nothing_is_refused,
        a_static_algorithm_refuses_a_weight,
        weight_zero_is_warned_of,
        weight_zero_may_wait_until_no_session_is_left,
        every_caution_about_a_server_is_given,
        slowstart_is_warned_of,
        a_failed_check_is_warned_of,
        an_unchecked_server_that_is_down_is_warned_of,
        a_stopping_server_is_warned_of,
        both_forced_flags_are_set_anew,
        a_server_in_maint_is_not_drained_on_its_way,
        a_disabled_backend_is_left_alone,
        a_status_says_why_a_server_takes_no_traffic,
        an_agent_that_keeps_a_server_down_is_named,
        what_is_down_after_maint_waits_for_its_check,
        an_unpublished_backend_takes_no_traffic,
        an_unpublished_backend_is_neither_up_nor_usable,
        a_listen_that_was_shut_down_cannot_be_set,
        two_backends_of_one_name_are_both_set,
        names_at_the_limit_of_a_line_are_set,
        missing_names_are_judged_by_the_four_policies,
        elsewhere_looks_at_the_other_instances_of_the_host,
    ]
}

/// Asks for a state of one or more servers of an instance.
fn set(instance: &Instance, names: &Value, state: &str) -> Value {
    Program::request(&json!({ "server": names, "state": state, "instances": instance.address() })).report()
}

fn assert_done(report: &Value, changed: bool) {
    assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(changed)), "{report}");
}

/// Asks twice, and sees at the socket that nothing is sent the second time.
fn assert_settled(instance: &Instance, names: &Value, state: &str) {
    let recorder = Recorder::start(&instance.folder.join("settled.sock"), &instance.socket);
    let request = json!({ "server": names, "state": state, "instances": recorder.address() });
    assert_done(&Program::request(&request).report(), false);
    assert_eq!(recorder.changing_commands(), [""; 0], "the second run of {request}");
}

fn a_server_disabled_by_the_configuration_can_be_set(haproxy: &Haproxy) -> TestResult {
    let instance = Instance::start(
        haproxy,
        "config",
        "backend b\n    server s1 127.0.0.1:9 disabled\n    server s2 127.0.0.1:9\n",
    );
    let status = Program::request(&json!({ "server": "s1", "instances": instance.address() })).report();
    assert_eq!(server(&status, "b/s1")["after"]["reasons"], json!(["forced", "config"]));
    let report = set(&instance, &json!("s1"), "maint");
    assert_done(&report, false);
    let report = set(&instance, &json!("s1"), "ready");
    assert_done(&report, true);
    assert_eq!(instance.state("b", "s1"), (4, 2));
    assert!(warnings(&report).contains("'disabled' in haproxy.cfg"), "{report}");
    assert_settled(&instance, &json!("s1"), "ready");
    assert_done(&set(&instance, &json!("s1"), "drain"), true);
    assert_eq!(instance.state("b", "s1"), (12, 2));
    assert_settled(&instance, &json!("s1"), "drain");
    assert_done(&set(&instance, &json!("*"), "maint"), true);
    assert_eq!(instance.state("b", "s1"), (5, 0));
    assert_settled(&instance, &json!("*"), "maint");
    Ok(())
}

/// `a/target`, which is checked, and `b/tracker`, which tracks it, with a neighbour each.
fn tracking(haproxy: &Haproxy) -> (HttpBackend, Instance) {
    let behind = HttpBackend::start("target");
    // The tracker is before its target in HAProxy's order.
    let proxies = format!(
        "backend b\n    server web 127.0.0.1:9 track z/web\n    server other 127.0.0.1:9\n\
         backend z\n    server web {} check inter 1h\n    server other 127.0.0.1:9\n",
        behind.address()
    );
    let instance = Instance::start(haproxy, "tracking", &proxies);
    (behind, instance)
}

fn tracking_servers_go_out_and_come_back_with_their_targets(haproxy: &Haproxy) -> TestResult {
    let (_behind, instance) = tracking(haproxy);
    let recorder = Recorder::on(&instance);
    let set = |state: &str| {
        recorder.clear();
        Program::request(&json!({ "server": "web", "state": state, "instances": recorder.address() })).report()
    };
    let both = |state: &str| vec![format!("set server z/web state {state}"), format!("set server b/web state {state}")];
    for (state, target, tracker) in [
        ("maint", (1, 0), (3, 0)),
        ("ready", (0, 2), (0, 2)),
        ("drain", (8, 2), (24, 2)),
        ("maint", (1, 0), (3, 0)),
        ("ready", (0, 2), (0, 2)),
    ] {
        let dry = json!({ "server": "web", "state": state, "instances": recorder.address(), "dry_run": true });
        let foreseen = Program::request(&dry).report();
        let report = set(state);
        assert_done(&report, true);
        assert_eq!(recorder.changing_commands(), both(state), "the target first");
        assert_eq!((instance.state("z", "web"), instance.state("b", "web")), (target, tracker), "{state}");
        assert_eq!(foreseen["servers"], report["servers"], "what was foreseen has come");
        assert_eq!(servers(&report), ["b/web", "z/web"], "HAProxy's order");
        recorder.clear();
        assert_done(&set(state), false);
        assert_eq!(recorder.changing_commands(), [""; 0]);
    }
    Ok(())
}

fn a_tracking_server_alone_cannot_leave_its_target(haproxy: &Haproxy) -> TestResult {
    let (_behind, instance) = tracking(haproxy);
    instance.set_state("z/web", "maint");
    instance.set_state("b/other", "maint");
    let recorder = Recorder::on(&instance);
    let request = json!({ "server": "b/*", "state": "ready", "instances": recorder.address() });
    let mut dry = request.clone();
    dry["dry_run"] = json!(true);
    let foreseen = Program::request(&dry).report();
    let report = Program::request(&request).report();
    for report in [&foreseen, &report] {
        assert_eq!((kind(report), &report["changed"]), ("unreachable_state", &json!(true)), "{report}");
        assert_eq!(kind(server(report, "b/web")), "unreachable_state");
        assert!(report["error"]["msg"].as_str().unwrap().contains("it tracks z/web, which is in maint"), "{report}");
        assert_eq!(server(report, "b/other")["failed"], false);
        assert_eq!(report["error"]["retryable"], false);
    }
    assert_eq!(recorder.changing_commands(), ["set server b/other state ready"], "the others are still set");
    assert_eq!((instance.state("b", "web"), instance.state("b", "other")), ((2, 0), (0, 2)));
    // Taken out by itself it can be, and then it does not come back either.
    assert_done(&set(&instance, &json!("b/web"), "maint"), true);
    assert_eq!(instance.state("b", "web"), (3, 0));
    let report = set(&instance, &json!("b/web"), "drain");
    assert_eq!(kind(&report), "unreachable_state", "{report}");
    assert_eq!(server(&report, "b/web")["after"]["admin_state"], "maint");
    // A target that drains lets its tracker be taken out, but not be ready.
    instance.set_state("z/web", "drain");
    assert_done(&set(&instance, &json!("b/web"), "drain"), true);
    assert_eq!(kind(&set(&instance, &json!("b/web"), "ready")), "unreachable_state");
    instance.set_state("z/web", "ready");
    assert_done(&set(&instance, &json!("b/web"), "ready"), true);
    Ok(())
}

fn a_chain_of_tracking_servers_is_planned_from_its_end(haproxy: &Haproxy) -> TestResult {
    let behind = HttpBackend::start("target");
    let proxies = format!(
        "backend a\n    server web 127.0.0.1:9 track b/web\nbackend b\n    server web 127.0.0.1:9 track c/web\n\
         backend c\n    server web {} check inter 1h\n",
        behind.address()
    );
    let instance = Instance::start(haproxy, "chain", &proxies);
    let recorder = Recorder::on(&instance);
    for state in ["maint", "ready", "drain", "maint", "drain", "ready"] {
        recorder.clear();
        let report =
            Program::request(&json!({ "server": "web", "state": state, "instances": recorder.address() })).report();
        assert_done(&report, true);
        assert_eq!(
            recorder.changing_commands(),
            ["c", "b", "a"].map(|one| format!("set server {one}/web state {state}"))
        );
        assert_settled(&instance, &json!("web"), state);
    }
    Ok(())
}

fn many_tracking_servers_come_back_with_their_targets(haproxy: &Haproxy) -> TestResult {
    // More than are asked for one by one.
    let behind = HttpBackend::start("target");
    let mut proxies = String::from("backend b\n");
    for number in 1..=100 {
        proxies.push_str(&format!("    server web{number} 127.0.0.1:9 track z/web{number}\n"));
    }
    proxies.push_str("backend z\n");
    for number in 1..=100 {
        proxies.push_str(&format!("    server web{number} {} check inter 1h\n", behind.address()));
    }
    let instance = Instance::start(haproxy, "many", &proxies);
    for state in ["maint", "ready"] {
        let report = set(&instance, &json!("*"), state);
        assert_done(&report, true);
        assert_eq!(commands(&report).len(), 200);
        assert_settled(&instance, &json!("*"), state);
    }
    assert_eq!((instance.state("b", "web100"), instance.state("z", "web100")), ((0, 2), (0, 2)));
    assert_done(&set(&instance, &json!("b/*"), "drain"), true);
    assert_done(&set(&instance, &json!("z/*"), "maint"), true);
    let report = set(&instance, &json!("b/*"), "ready");
    assert_eq!((kind(&report), &report["changed"]), ("unreachable_state", &json!(false)));
    assert_eq!(instance.state("b", "web7"), (10, 0), "what is refused is left as it is");
    Ok(())
}

fn a_name_that_does_not_resolve_keeps_its_server_in_maintenance(haproxy: &Haproxy) -> TestResult {
    let dns = Dns::start();
    let proxies = format!(
        "{}\nbackend b\n    server dns nobody.test:80 check inter 100ms resolvers r init-addr none resolve-prefer ipv4\n    server s2 127.0.0.1:9\n",
        dns.resolvers("r")
    );
    let instance = Instance::start(haproxy, "dns", &proxies);
    instance.await_state("b", "dns", (32, 0));
    instance.set_state("b/s2", "maint");
    let report = set(&instance, &json!(["dns", "s2"]), "ready");
    assert_eq!((kind(&report), &report["changed"]), ("unreachable_state", &json!(true)), "{report}");
    let entry = server(&report, "b/dns");
    assert!(entry["error"]["msg"].as_str().unwrap().contains("does not resolve"), "{entry}");
    assert_eq!(entry["after"]["reasons"], json!(["dns"]));
    assert_eq!(instance.state("b", "s2"), (0, 2), "the other one is set");
    assert_done(&set(&instance, &json!("dns"), "maint"), true);
    assert_eq!(instance.row("b", "dns").admin, 33);
    assert_settled(&instance, &json!("dns"), "maint");
    dns.answer("nobody.test", Answer::Addresses(vec![std::net::Ipv4Addr::LOCALHOST]));
    eventually(PATIENCE, "the name to resolve", || (instance.row("b", "dns").admin == 1).then_some(()));
    let report = set(&instance, &json!("dns"), "ready");
    assert_done(&report, true);
    assert_eq!(server(&report, "b/dns")["address"], "127.0.0.1:80");
    Ok(())
}

fn spare_slots_are_nobody_s_failure(haproxy: &Haproxy) -> TestResult {
    let dns = Dns::start();
    dns.answer("web.test", Answer::Addresses([1, 2].map(|last| std::net::Ipv4Addr::new(127, 0, 0, last)).to_vec()));
    let proxies = format!(
        "{}\nbackend b\n    server-template w 1-5 web.test:9 check inter 1h resolvers r init-addr none resolve-prefer ipv4\n",
        dns.resolvers("r")
    );
    let instance = Instance::start(haproxy, "slots", &proxies);
    let count = |admin: u32| instance.rows().values().filter(|row| row.admin == admin).count();
    eventually(PATIENCE, "two slots to be taken", || (count(0) == 2).then_some(()));
    assert_eq!(count(32), 3);
    let recorder = Recorder::on(&instance);
    let ask = |more: Value| {
        recorder.clear();
        let mut request = json!({ "instances": recorder.address() });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Program::request(&request)
    };
    let of = |report: &Value, what: &str| -> Vec<Value> {
        report["servers"].as_array().unwrap().iter().map(|one| one[what].clone()).collect()
    };
    let spare = (1..=5).find(|number| instance.row("b", &format!("w{number}")).admin == 32).unwrap();
    let spare = format!("w{spare}");

    let status = ask(json!({})).report();
    assert_eq!(
        (&status["ok"], &status["msg"]),
        (&json!(true), &json!("all servers: ok for 2 of 2 servers on 1 of 1 instance; 3 spare slots"))
    );
    assert_eq!(of(&status, "spare").iter().filter(|one| **one == json!(true)).count(), 3, "{status}");
    assert_eq!(server(&status, &format!("b/{spare}"))["not_ok"], "spare slot");
    let lines =
        |more: Value| ask(more).arg("--format=text").run().stdout.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!([lines(json!({})), lines(json!({ "server": "w*" })), lines(json!({ "server": spare }))], [0, 2, 1]);

    // A pattern leaves them alone, with one warning; a name does not.
    for state in ["ready", "drain", "ready"] {
        for dry in [true, false] {
            let report = ask(json!({ "server": "w*", "state": state, "dry_run": dry })).report();
            assert_eq!(report["failed"], false, "{report}");
            let said = warnings(&report);
            assert_eq!(said.matches("3 spare slots").count(), 1, "{said}");
            assert!(commands(&report).len() <= 2 && recorder.changing_commands().len() <= 2, "{report}");
        }
        assert_eq!((count(if state == "ready" { 0 } else { 8 }), count(32)), (2, 3));
    }
    let report = ask(json!({ "server": "w*", "state": "ready", "wait": { "timeout": 5 } })).report();
    assert_eq!(warnings(&report).matches("3 spare slots").count(), 1, "{report}");
    for entry in report["servers"].as_array().unwrap() {
        assert!(entry["spare"] != true || (kind(entry), &entry["changed"]) == ("", &json!(false)), "{entry}");
    }
    let report = ask(json!({ "server": [spare, "w*"], "state": "ready" })).report();
    assert_eq!(kind(&report), "unreachable_state", "{report}");
    assert_eq!(report["error"]["server"], spare);

    // Maintenance stays with a slot whatever DNS makes of it, and is taken from it again.
    assert_done(&ask(json!({ "server": "w*", "state": "maint" })).report(), true);
    assert_eq!((count(1), count(33)), (2, 3));
    let report = ask(json!({ "server": "w*", "state": "ready" })).report();
    assert_done(&report, true);
    assert_eq!((count(0), count(32)), (2, 3), "{report}");
    assert_eq!(warnings(&report).matches("3 spare slots").count(), 1, "{report}");
    assert_done(&ask(json!({ "server": "w*", "state": "ready" })).report(), false);
    let report = ask(json!({ "server": "w*", "state": "drain", "weight": 7, "dry_run": true })).report();
    assert_eq!(commands(&report).len(), 4, "{report}");
    Ok(())
}

fn an_agent_may_set_the_state_back(haproxy: &Haproxy) -> TestResult {
    let agent = Agent::start("drain");
    let proxies =
        format!("backend b\n    server s1 127.0.0.1:9 {}\n    server s2 127.0.0.1:9\n", agent.options("50ms"));
    let instance = Instance::start(haproxy, "agent", &proxies);
    eventually(PATIENCE, "the agent to be heard", || (instance.row("b", "s1").admin == 8).then_some(()));
    // The truth is either that it was read back before the agent spoke (a warning), or after (an error).
    for _ in 0..5 {
        agent.await_asked();
        eventually(PATIENCE, "the agent to be heard", || (instance.row("b", "s1").admin == 8).then_some(()));
        instance.set_state("b/s2", "maint");
        let report = set(&instance, &json!("*"), "ready");
        assert_eq!(instance.row("b", "s2").admin, 0, "the other one is set");
        let entry = server(&report, "b/s1");
        match kind(entry) {
            "overridden" => {
                assert_eq!((kind(&report), &entry["after"]["admin_state"]), ("overridden", &json!("drain")));
                assert!(entry["error"]["msg"].as_str().unwrap().contains("agent"), "{entry}");
            }
            "" => {
                assert_eq!(entry["after"]["admin_state"], "ready", "{report}");
                assert!(warnings(&report).contains("b/s1"), "{report}");
                assert!(warnings(&report).contains("agent"), "{report}");
            }
            other => panic!("{other}: {report}"),
        }
    }
    // What the agent says itself is no change, and still worth a warning.
    eventually(PATIENCE, "the agent to be heard", || (instance.row("b", "s1").admin == 8).then_some(()));
    let report = set(&instance, &json!("s1"), "drain");
    assert_done(&report, false);
    assert!(warnings(&report).contains("agent"), "{report}");
    Ok(())
}

/// An instance with `b/s1` of weight 10 and `b/s2` of weight 1.
fn weighted(haproxy: &Haproxy, balance: &str) -> Instance {
    let proxies =
        format!("backend b\n    balance {balance}\n    server s1 127.0.0.1:9 weight 10\n    server s2 127.0.0.1:9\n");
    Instance::start(haproxy, "weight", &proxies)
}

fn a_weight_is_compared_first(haproxy: &Haproxy) -> TestResult {
    let instance = weighted(haproxy, "roundrobin");
    let recorder = Recorder::on(&instance);
    let weight = |names: &Value, weight: Value| {
        recorder.clear();
        let request = json!({ "server": names, "weight": weight, "instances": recorder.address() });
        let report = Program::request(&request).report();
        let after: Vec<u64> =
            report["servers"].as_array().unwrap().iter().map(|one| one["after"]["weight"].as_u64().unwrap()).collect();
        (report["changed"].clone(), report["failed"].clone(), after, recorder.changing_commands().len())
    };
    let all = json!("*");
    let table = [
        (json!(10), true, vec![10, 10], 1),
        (json!("10"), false, vec![10, 10], 0),
        (json!("100%"), true, vec![10, 1], 1),
        (json!("150%"), true, vec![15, 1], 1),
        (json!("200%"), true, vec![20, 2], 2),
        (json!(256), true, vec![256, 256], 2),
        (json!("25600%"), false, vec![256, 256], 0),
        (json!(0), true, vec![0, 0], 2),
        (json!("0%"), false, vec![0, 0], 0),
    ];
    let status = Program::request(&json!({ "instances": instance.address() })).report();
    for (name, configured) in [("b/s1", 10), ("b/s2", 1)] {
        assert_eq!(server(&status, name)["before"]["configured_weight"], configured, "{status}");
        assert_eq!(server(&status, name)["after"]["configured_weight"], configured, "{status}");
    }
    for (asked, changed, after, sent) in table {
        assert_eq!(weight(&all, asked.clone()), (json!(changed), json!(false), after, sent), "weight {asked}");
    }
    // With a state: both in one run, and the weight is there before the traffic comes back.
    instance.set_state("b/s1", "maint");
    recorder.clear();
    let request = json!({ "server": "s1", "state": "ready", "weight": 20, "instances": recorder.address() });
    assert_done(&Program::request(&request).report(), true);
    assert_eq!(recorder.changing_commands(), ["set server b/s1 weight 20", "set server b/s1 state ready"]);
    assert_done(&Program::request(&request).report(), false);
    // In maintenance a weight is set too.
    let request = json!({ "server": "s1", "state": "maint", "weight": "100%", "instances": recorder.address() });
    assert_done(&Program::request(&request).report(), true);
    let row = instance.row("b", "s1");
    assert_eq!((row.admin, row.weight), (1, 10));
    Ok(())
}

fn a_share_that_is_nothing_is_refused(haproxy: &Haproxy) -> TestResult {
    let proxies = "backend b\n    server s1 127.0.0.1:9 weight 10\n    server s2 127.0.0.1:9\n    \
                   server s0 127.0.0.1:9 weight 0\n";
    let instance = Instance::start(haproxy, "share", proxies);
    let recorder = Recorder::on(&instance);
    let ask = |names: &Value, weight: &str, more: Value| {
        recorder.clear();
        let mut request = json!({ "server": names, "weight": weight, "instances": recorder.address() });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Program::request(&request).report()
    };
    for (dry, sent) in [(true, vec![]), (false, vec!["set server b/s1 weight 50%"]), (false, vec![])] {
        let report = ask(&json!("*"), "50%", json!({ "dry_run": dry }));
        assert_eq!((kind(&report), &report["error"]["retryable"]), ("unreachable_state", &json!(false)), "{report}");
        assert_eq!(server(&report, "b/s1")["after"]["weight"], 5, "the others are still set: {report}");
        for (name, what) in
            [("b/s2", "50% of a configured weight of 1 is 0"), ("b/s0", "50% of a configured weight of 0 is 0")]
        {
            let entry = server(&report, name);
            assert_eq!((kind(entry), &entry["before"]), ("unreachable_state", &entry["after"]), "{entry}");
            let msg = entry["error"]["msg"].as_str().unwrap();
            assert!(msg.contains(what) && msg.contains("configure `weight 100` or give a number"), "{msg}");
        }
        assert_eq!(recorder.changing_commands(), sent);
    }
    // No part of such a request is carried out on that server, and what is 0 already is no excuse.
    let report = ask(&json!("s2"), "99%", json!({ "state": "maint" }));
    assert_eq!((kind(&report), &report["changed"]), ("unreachable_state", &json!(false)), "{report}");
    instance.set("set server b/s2 weight 0");
    assert_eq!(kind(&ask(&json!("s2"), "99%", json!({}))), "unreachable_state");
    assert_eq!(kind(&ask(&json!("s0"), "100%", json!({}))), "unreachable_state");
    // What is asked for is no surprise.
    instance.set("set server b/s2 weight 1");
    assert_done(&ask(&json!("*"), "0%", json!({})), true);
    assert_done(&ask(&json!("s2"), "100%", json!({})), true);
    Ok(())
}

fn a_static_algorithm_refuses_a_weight(haproxy: &Haproxy) -> TestResult {
    let instance = weighted(haproxy, "static-rr");
    let ask = |weight: Value, more: Value| {
        let mut request = json!({ "server": "s1", "weight": weight, "instances": instance.address() });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Program::request(&request).report()
    };
    let report = ask(json!(5), json!({}));
    assert_eq!((kind(&report), &report["changed"]), ("command_rejected", &json!(false)), "{report}");
    let words = "Backend is using a static LB algorithm and only accepts weights '0%' and '100%'.";
    assert!(report["error"]["msg"].as_str().unwrap().contains(&words.escape_debug().to_string()), "{report}");
    assert_eq!((&report["error"]["backend"], &report["error"]["server"]), (&json!("b"), &json!("s1")));
    // What it does take is set, and is as wanted then.
    assert_done(&ask(json!("0%"), json!({})), true);
    assert_done(&ask(json!("0%"), json!({})), false);
    assert_done(&ask(json!(0), json!({})), false);
    assert_done(&ask(json!("100%"), json!({})), true);
    // The state is set nevertheless, and the report says so.
    let report = ask(json!(5), json!({ "state": "maint" }));
    assert_eq!((kind(&report), &report["changed"]), ("command_rejected", &json!(true)), "{report}");
    assert_eq!(server(&report, "b/s1")["after"]["admin_state"], "maint");
    assert_eq!(instance.state("b", "s1"), (1, 0));
    Ok(())
}

fn weight_zero_is_warned_of(haproxy: &Haproxy) -> TestResult {
    let instance = weighted(haproxy, "roundrobin");
    instance.set("set server b/s1 weight 0");
    instance.set_state("b/s1", "maint");
    let report = set(&instance, &json!("s1"), "ready");
    assert_done(&report, true);
    assert!(warnings(&report).contains("b/s1") && warnings(&report).contains("weight is 0"), "{report}");
    assert_eq!(instance.row("b", "s1").weight, 0, "nothing is sent for it");
    let report = set(&instance, &json!("s1"), "ready");
    assert!(warnings(&report).contains("weight is 0"), "also where nothing is to be done: {report}");
    let report = set(&instance, &json!("s1"), "maint");
    assert_eq!(warnings(&report), "", "not where it does not matter");
    let request = json!({ "server": "s1", "state": "ready", "weight": 0, "instances": instance.address() });
    assert_eq!(warnings(&Program::request(&request).report()), "", "not where it was asked for");
    let status = Program::request(&json!({ "server": "s1", "instances": instance.address() })).report();
    assert_eq!((&status["ok"], &server(&status, "b/s1")["ok"]), (&json!(false), &json!(false)), "{status}");
    Ok(())
}

fn weight_zero_may_wait_until_no_session_is_left(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let request = |wait: f64, more: Value| {
        let mut asked = json!({ "server": "web/web1", "weight": 0, "wait": { "timeout": wait }, "instances": stage.http.address() });
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Program::request(&asked)
    };
    for more in [json!({}), json!({ "state": "ready" })] {
        let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
        let report = request(0.3, more.clone()).report();
        assert_eq!((kind(&report), &report["changed"]), ("not_drained", &json!(true)), "{report}");
        assert!(report["msg"].as_str().unwrap().contains("it has 1 session"), "{report}");
        let mut running = request(20.0, more.clone()).spawn();
        std::thread::sleep(std::time::Duration::from_millis(600));
        assert!(!running.ended(), "it waits");
        stage.server("web1").release();
        assert_eq!(held.served_by(), "web1");
        let report = running.wait().report();
        assert_done(&report, false);
        let entry = server(&report, "web/web1");
        assert_eq!((&entry["sessions"], &entry["after"]["admin_state"]), (&json!(0), &json!("ready")), "{entry}");
        stage.server("web1").hold();
        stage.http.set("set server web/web1 weight 100%");
    }
    // Whoever gives it a weight again ends the wait.
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let recorder = Recorder::on(&stage.http);
    let running = request(20.0, json!({ "weight": "0%", "instances": recorder.address() })).spawn();
    let is_polled = || {
        let timeline = recorder.timeline();
        let mut after = timeline.iter().skip_while(|(_, line)| !line.starts_with("set server")).skip(1);
        after.any(|(_, line)| line.starts_with("show stat "))
    };
    eventually(PATIENCE, "the wait to begin", || is_polled().then_some(()));
    stage.http.set("set server web/web1 weight 100%");
    let report = running.wait().report();
    assert_eq!(kind(&report), "overridden", "{report}");
    assert!(
        report["msg"].as_str().unwrap().contains("was set to weight 0, but HAProxy shows it as 'weight 1'"),
        "{report}"
    );
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    Ok(())
}

fn every_caution_about_a_server_is_given(haproxy: &Haproxy) -> TestResult {
    let instance =
        Instance::start(haproxy, "cautions", "backend b\n    server s1 127.0.0.1:9 weight 0 slowstart 60s disabled\n");
    let said = warnings(&set(&instance, &json!("s1"), "ready"));
    for cause in ["the weight is 0", "'disabled' in haproxy.cfg", "slowstart is in progress"] {
        assert!(said.contains(cause), "{cause}: {said}");
    }
    Ok(())
}

fn slowstart_is_warned_of(haproxy: &Haproxy) -> TestResult {
    let proxies =
        "backend b\n    balance roundrobin\n    server s1 127.0.0.1:9 slowstart 60s\n    server s2 127.0.0.1:9\n";
    let instance = Instance::start(haproxy, "slowstart", proxies);
    set(&instance, &json!("s1"), "maint");
    let report = set(&instance, &json!("s1"), "ready");
    assert_done(&report, true);
    assert_eq!(server(&report, "b/s1")["after"]["operational_state"], "starting");
    assert!(warnings(&report).contains("slowstart"), "{report}");
    let status = Program::request(&json!({ "server": "s1", "instances": instance.address() })).report();
    assert_eq!(status["ok"], true, "starting is ok");
    assert_settled(&instance, &json!("s1"), "ready");
    Ok(())
}

fn a_failed_check_is_warned_of(haproxy: &Haproxy) -> TestResult {
    let behind = HttpBackend::start("s1");
    let proxies = format!("backend b\n    server s1 {} check inter 50ms fall 1 rise 1\n", behind.address());
    let instance = Instance::start(haproxy, "checked", &proxies);
    behind.set_health(Health::Refuse);
    instance.await_state("b", "s1", (0, 0));
    let report = set(&instance, &json!("s1"), "ready");
    assert_done(&report, false);
    assert!(warnings(&report).contains("health check fails"), "{report}");
    assert_done(&set(&instance, &json!("s1"), "drain"), true);
    assert_eq!(instance.state("b", "s1"), (8, 0));
    assert_settled(&instance, &json!("s1"), "drain");
    let status = Program::request(&json!({ "instances": instance.address() })).report();
    assert_eq!(status["ok"], false);
    Ok(())
}

fn an_unchecked_server_that_is_down_is_warned_of(haproxy: &Haproxy) -> TestResult {
    let instance = Instance::start(haproxy, "stuck", "backend b\n    server s1 127.0.0.1:9\n");
    instance.set("set server b/s1 health down");
    assert_eq!(instance.state("b", "s1"), (0, 0));
    let recorder = Recorder::on(&instance);
    let request = json!({ "server": "s1", "state": "ready", "instances": recorder.address() });
    let report = Program::request(&request).report();
    assert_done(&report, false);
    assert_eq!(recorder.changing_commands(), [""; 0], "nothing is sent for it by itself");
    assert!(warnings(&report).contains("set it to maint and then to ready"), "{report}");
    // What the warning says helps.
    assert_done(&set(&instance, &json!("s1"), "maint"), true);
    let report = set(&instance, &json!("s1"), "ready");
    assert_done(&report, true);
    assert_eq!(warnings(&report), "");
    assert_eq!(instance.state("b", "s1"), (0, 2));
    Ok(())
}

fn a_stopping_server_is_warned_of(haproxy: &Haproxy) -> TestResult {
    let behind = HttpBackend::start("s1");
    let proxies = format!(
        "backend b\n    option httpchk GET /health\n    http-check disable-on-404\n    server s1 {} check inter 50ms fall 1 rise 1\n",
        behind.address()
    );
    let instance = Instance::start(haproxy, "stopping", &proxies);
    behind.set_health(Health::NotFound);
    instance.await_state("b", "s1", (0, 3));
    let report = set(&instance, &json!("s1"), "ready");
    assert_done(&report, false);
    assert!(warnings(&report).contains("404"), "{report}");
    let status = Program::request(&json!({ "instances": instance.address() })).report();
    assert_eq!(
        (&status["ok"], &server(&status, "b/s1")["after"]["operational_state"]),
        (&json!(false), &json!("stopping"))
    );
    Ok(())
}

fn both_forced_flags_are_set_anew(haproxy: &Haproxy) -> TestResult {
    let port = Port::reserve();
    let proxies = format!(
        "frontend page\n    bind 127.0.0.1:{}\n    stats enable\n    stats uri /stats\n    stats admin if TRUE\n    default_backend b\n\
         backend b\n    server s1 127.0.0.1:9\n",
        port.number()
    );
    let instance = Instance::start(haproxy, "page", &proxies);
    for (state, mask) in [("maint", (1, 0)), ("drain", (8, 2)), ("ready", (0, 2))] {
        instance.set_state("b/s1", "ready");
        for action in ["stop", "disable"] {
            stats_page(port.address(), "/stats", "b", "s1", action);
        }
        assert_eq!(instance.state("b", "s1"), (9, 0), "what the page has set");
        let status = Program::request(&json!({ "server": "s1", "instances": instance.address() })).report();
        assert_eq!(server(&status, "b/s1")["after"]["admin_flags"], 9);
        let report = set(&instance, &json!("s1"), state);
        assert_done(&report, true);
        assert_eq!(commands(&report), [format!("set server b/s1 state {state}")]);
        assert_eq!(instance.state("b", "s1"), mask);
        assert_settled(&instance, &json!("s1"), state);
    }
    Ok(())
}

fn a_server_in_maint_is_not_drained_on_its_way(haproxy: &Haproxy) -> TestResult {
    let instance =
        Instance::start(haproxy, "direct", "backend b\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n");
    instance.set_state("b/s1", "drain");
    let report = set(&instance, &json!("*"), "maint");
    assert_done(&report, true);
    assert_eq!(commands(&report), ["set server b/s1 state maint", "set server b/s2 state maint"]);
    Ok(())
}

fn a_disabled_backend_is_left_alone(haproxy: &Haproxy) -> TestResult {
    let proxies = "backend off\n    disabled\n    server s1 127.0.0.1:9\nbackend on\n    server s1 127.0.0.1:9\n";
    let instance = Instance::start(haproxy, "disabled", proxies);
    let recorder = Recorder::on(&instance);
    for (state, mask) in [("maint", 1), ("ready", 0)] {
        recorder.clear();
        let request = json!({ "server": "s1", "state": state, "instances": recorder.address() });
        let report = Program::request(&request).report();
        assert_done(&report, true);
        assert_eq!(recorder.changing_commands(), [format!("set server on/s1 state {state}")]);
        assert!(warnings(&report).contains("off/s1") && warnings(&report).contains("disabled"), "{report}");
        assert_eq!(report["msg"], format!("s1: {state} in 1 of 2 backends on 1 of 1 instance; 1 backend is disabled"));
        assert_eq!(instance.row("on", "s1").admin, mask);
        assert_settled(&instance, &json!("s1"), state);
    }
    for (name, what) in [("off/s1", "1 backend is disabled"), ("off/s*", "1 server is in a disabled backend")] {
        let report = set(&instance, &json!(name), "maint");
        assert_done(&report, false);
        assert_eq!(report["msg"], format!("{name}: nothing to set on 1 of 1 instance; {what}"), "{report}");
    }
    let status = Program::request(&json!({ "instances": instance.address() })).report();
    assert_eq!(servers(&status), ["off/s1", "on/s1"]);
    assert_eq!((&status["ok"], &server(&status, "off/s1")["ok"]), (&json!(false), &json!(false)), "{status}");
    Ok(())
}

fn a_status_says_why_a_server_takes_no_traffic(haproxy: &Haproxy) -> TestResult {
    let (bad, gone, agent) = (HttpBackend::start("bad"), HttpBackend::start("gone"), Agent::start("down"));
    let proxies = format!(
        "backend off\n    disabled\n    server s1 127.0.0.1:9\nbackend b\n    option httpchk GET /health\n    \
         server fine 127.0.0.1:9\n    server light 127.0.0.1:9 weight 0\n    \
         server config 127.0.0.1:9 disabled\n    server maint 127.0.0.1:9\n    server alice 127.0.0.1:9\n    \
         server drain 127.0.0.1:9\n    server bad {} check inter 50ms rise 1 fall 1\n    \
         server dead 127.0.0.1:9\n    \
         server agent 127.0.0.1:9 {}\n    server tracker 127.0.0.1:9 track b/bad\n    \
         server both 127.0.0.1:9 track b/out\n    server out {0} check inter 50ms\nbackend c\n    \
         option httpchk GET /health\n    http-check disable-on-404\n    server gone {} check inter 50ms rise 1 fall 1\n",
        bad.address(),
        agent.options("50ms"),
        gone.address()
    );
    let instance = Instance::start(haproxy, "why", &proxies);
    bad.set_health(Health::Bad);
    gone.set_health(Health::NotFound);
    for (name, state) in [("maint", "maint"), ("drain", "drain"), ("out", "maint")] {
        instance.set_state(&format!("b/{name}"), state);
    }
    instance.set("set server b/dead health down");
    let request = json!({ "server": "alice", "state": "maint", "owner": "alice", "instances": instance.address() });
    assert_done(&Program::request(&request).report(), true);
    instance.await_state("b", "bad", (0, 0));
    instance.await_state("c", "gone", (0, 3));
    instance.await_state("b", "agent", (0, 0));
    let status = Program::request(&json!({ "instances": instance.address() })).report();
    assert_eq!(status["ok"], false);
    for (name, why) in [
        ("off/s1", "backend disabled"),
        ("b/light", "weight 0"),
        ("b/config", "disabled in haproxy.cfg"),
        ("b/maint", "maintenance"),
        ("b/alice", "maintenance by alice"),
        ("b/drain", "drain"),
        ("b/bad", "check failed: L7STS 500"),
        ("c/gone", "check answers 404"),
        ("b/dead", "down"),
        ("b/agent", "agent keeps it down"),
        ("b/tracker", "b/bad is down, which it tracks"),
        ("b/both", "maintenance of b/out, which it tracks"),
    ] {
        let entry = server(&status, name);
        // While the next check is running, HAProxy shows no code.
        let is_why = entry["not_ok"] == why || (name == "b/bad" && entry["not_ok"] == "check failed: L7STS");
        assert!(entry["ok"] == false && is_why, "{entry}");
    }
    let fine = server(&status, "b/fine");
    assert_eq!((&fine["ok"], &fine["not_ok"]), (&json!(true), &Value::Null), "{fine}");
    // Only a status has it.
    let report = set(&instance, &json!("b/fine"), "maint");
    assert_eq!(server(&report, "b/fine")["not_ok"], Value::Null, "{report}");
    Ok(())
}

fn an_agent_that_keeps_a_server_down_is_named(haproxy: &Haproxy) -> TestResult {
    let (behind, agent) = (HttpBackend::start("s1"), Agent::start("down"));
    let proxies = format!("backend b\n    server s1 {} check inter 50ms {}\n", behind.address(), agent.options("50ms"));
    let instance = Instance::start(haproxy, "agent", &proxies);
    instance.await_state("b", "s1", (0, 0));
    eventually(PATIENCE, "a check that passes", || {
        instance.stat("b", "s1", "check_status").contains("L4OK").then_some(())
    });
    let mut request = json!({ "server": "s1", "state": "ready", "instances": instance.address() });
    let said = warnings(&Program::request(&request).report());
    assert!(said.contains("the agent keeps it down") && !said.contains("check fails"), "{said}");
    request["wait"] = json!({ "timeout": 0.3 });
    let report = Program::request(&request).report();
    let msg = report["error"]["msg"].as_str().unwrap();
    assert!(kind(&report) == "not_up" && msg.contains("its agent keeps it down") && !msg.contains("L4OK"), "{report}");
    Ok(())
}

fn what_is_down_after_maint_waits_for_its_check(haproxy: &Haproxy) -> TestResult {
    if !haproxy.at_least(3, 1) {
        return Ok(()); // Has no 'init-state'.
    }
    let proxies = "backend b\n    server up 127.0.0.1:9 check inter 1h init-state fully-up\n    \
                   server down 127.0.0.1:9 check inter 1h init-state down\n    \
                   server fully-down 127.0.0.1:9 check inter 1h init-state fully-down\n";
    let instance = Instance::start(haproxy, "init", proxies);
    for name in ["up", "down", "fully-down"] {
        instance.set_state(&format!("b/{name}"), "maint");
    }
    let report = set(&instance, &json!("*"), "ready");
    assert_done(&report, true);
    let said = warnings(&report);
    assert!(said.contains("b/down, b/fully-down: no traffic before its health check has passed"), "{said}");
    assert!(!said.contains("fails") && !said.contains("b/up"), "{said}");
    assert_eq!(server(&report, "b/down")["after"]["operational_state"], "stopped");
    assert_eq!([instance.state("b", "down"), instance.state("b", "fully-down")], [(0, 0); 2]);
    Ok(())
}

/// A row of `show stat` for `b/s1`, and one for its backend with this status.
fn statistics(backend: &str) -> String {
    format!(
        "# pxname,svname,qcur,scur,stot,status,weight,check_status,check_code,tracked,bck,iid,sid,throttle,check_rise,check_fall,check_health\n\
         b,s1,0,0,0,no check,1,,,,0,2,1,,,,\nb,BACKEND,0,0,0,{backend},1,,,,0,2,0,,,,\n\n> "
    )
}

fn an_unpublished_backend_takes_no_traffic(_: &Haproxy) -> TestResult {
    // HAProxy 3.4 and later; the words are those of its `stats_fill_be_line()`.
    let folder = Folder::new();
    let dump = format!("{HEADER}{}\n> ", row(1));
    for (version, status, ok) in
        [("3.4.0", "UP (UNPUB)", false), ("3.4.0", "UP", true), ("3.5-dev5-1", "UP (UNPUB)", false)]
    {
        let mut script = opening();
        script[4] = Step::send(info(7, 0).replace("2.6.12", version));
        script.extend([
            Step::send(&dump),
            Step::Expect("show stat 2 6 1"),
            Step::send(statistics(status)),
            Step::ReadToEnd,
        ]);
        let socket = Scripted::start(&folder.join("status.sock"), vec![script]);
        let report = Program::request(&json!({ "instances": socket.address() })).report();
        assert_eq!(socket.faults(), [""; 0], "{report}");
        let why = if ok { Value::Null } else { json!("backend unpublished") };
        let entry = server(&report, "b/s1");
        assert_eq!((&report["ok"], &entry["ok"], &entry["not_ok"]), (&json!(ok), &json!(ok), &why), "{report}");
    }
    // What is ready there is warned of, and never up.
    let mut first = opening();
    first[4] = Step::send(info(7, 0).replace("2.6.12", "3.4.0"));
    first.extend([
        Step::send(&dump),
        Step::Expect("show stat 2 6 1"),
        Step::send(statistics("UP (UNPUB)")),
        Step::ReadToEnd,
    ]);
    let socket = Scripted::start(&folder.join("ready.sock"), vec![first]);
    let request = json!({ "server": "s1", "state": "ready", "instances": socket.address() });
    let report = Program::request(&request).report();
    assert_eq!(socket.faults(), [""; 0], "{report}");
    assert_done(&report, false);
    assert!(warnings(&report).contains("the backend is unpublished"), "{report}");
    Ok(())
}

fn an_unpublished_backend_is_neither_up_nor_usable(_: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let dump = format!("{HEADER}{}\n> ", row(1));
    let observed = |status: &str, is_guarded: bool| {
        let mut script = opening();
        script[4] = Step::send(info(7, 0).replace("2.6.12", "3.4.0"));
        script.push(Step::send(&dump));
        // The guard of a change counts the other servers of the backend as well.
        script.extend(
            is_guarded.then(|| [Step::Expect("show servers state #2"), Step::send(&dump)]).into_iter().flatten(),
        );
        script.extend([Step::Expect("show stat 2 6 1"), Step::send(statistics(status))]);
        script.push(Step::ReadToEnd);
        script
    };
    // Nothing is to be set: two polls, and how it is in the end.
    let asked = |question: &'static str, answer: &str| {
        let mut script = opening();
        script.truncate(3);
        script.extend([Step::send(info(7, 0).replace("2.6.12", "3.4.0")), Step::ExpectPrefix(question)]);
        script.push(Step::send(answer));
        script
    };
    let poll = [asked("show stat 2 6 1", &statistics("UP (UNPUB)")), vec![Step::ReadToEnd]].concat();
    let last = [Step::Expect("show info"), Step::send(info(7, 0).replace("2.6.12", "3.4.0")), Step::ReadToEnd];
    let last = [asked("show servers state", &dump), last.to_vec()].concat();
    let scripts = vec![observed("UP (UNPUB)", false), poll.clone(), poll, last];
    let socket = Scripted::start(&folder.join("wait.sock"), scripts);
    let request = json!({ "server": "s1", "state": "ready", "wait": { "timeout": 0 }, "instances": socket.address() });
    let report = Program::request(&request).report();
    assert_eq!(socket.faults(), [""; 0], "{report}");
    assert_eq!(kind(&report), "not_up", "{report}");
    assert!(report["msg"].as_str().unwrap().contains("its backend is unpublished"), "{report}");

    // Its servers are not usable, so that none is taken out; and it has too few of them.
    for (status, refused) in [("UP (UNPUB)", false), ("UP", true)] {
        let socket = Scripted::start(&folder.join("guard.sock"), vec![observed(status, true)]);
        let guard = json!({ "min_available": 1 });
        let request =
            json!({ "server": "s1", "state": "maint", "dry_run": true, "guard": guard, "instances": socket.address() });
        let report = Program::request(&request).report();
        assert_eq!(socket.faults(), [""; 0], "{report}");
        assert_eq!(kind(&report), if refused { "guard_refused" } else { "" }, "{status}: {report}");
        let socket = Scripted::start(&folder.join("short.sock"), vec![observed(status, false)]);
        let report = Program::request(&json!({ "guard": guard, "instances": socket.address() })).report();
        assert_eq!((socket.faults(), &report["ok"]), (vec![], &json!(refused)), "{status}: {report}");
    }
    Ok(())
}

fn a_listen_that_was_shut_down_cannot_be_set(haproxy: &Haproxy) -> TestResult {
    let port = Port::reserve();
    let proxies = format!(
        "listen gone\n    bind 127.0.0.1:{}\n    server s1 127.0.0.1:9\nbackend on\n    server s1 127.0.0.1:9\n",
        port.number()
    );
    let instance = Instance::start(haproxy, "shut", &proxies);
    instance.raw("shutdown frontend gone");
    assert_eq!(instance.raw("set server gone/s1 state maint"), "Proxy is disabled.\n\n");
    let report = set(&instance, &json!("s1"), "maint");
    assert_eq!(instance.state("on", "s1"), (1, 0), "the other one is set");
    assert_done(&report, true);
    assert!(warnings(&report).contains("gone/s1") && warnings(&report).contains("Proxy is disabled."), "{report}");
    let entry = server(&report, "gone/s1");
    assert_eq!(
        (&entry["changed"], &entry["after"]["admin_state"]),
        (&json!(false), &json!("ready")),
        "as it was read back"
    );
    Ok(())
}

fn two_backends_of_one_name_are_both_set(haproxy: &Haproxy) -> TestResult {
    if haproxy.at_least(3, 1) {
        return Ok(()); // Refuses such a configuration.
    }
    let port = Port::reserve();
    let proxies = format!(
        "backend b\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n\
         listen b\n    bind 127.0.0.1:{}\n    server s1 127.0.0.1:10\n    server s2 127.0.0.1:10\nbackend c\n    server s1 127.0.0.1:9\n",
        port.number()
    );
    let instance = Instance::start(haproxy, "twins", &proxies);
    let recorder = Recorder::on(&instance);
    let request = |state: &str| json!({ "server": "s1", "state": state, "instances": recorder.address() });
    let report = Program::request(&request("maint")).report();
    assert_done(&report, true);
    let reply = instance.raw("show servers state");
    let masks: Vec<(String, String)> = reply
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|columns| columns.len() > 18)
        .filter(|columns| columns[0] != "#")
        .map(|columns| (format!("{}/{}:{}", columns[1], columns[3], columns[18]), columns[6].to_owned()))
        .collect();
    let mask = |name: &str| masks.iter().find(|(known, _)| known == name).map(|(_, mask)| mask.as_str());
    assert_eq!([mask("b/s1:9"), mask("b/s1:10"), mask("c/s1:9")], [Some("1"); 3], "{masks:?}");
    assert_eq!([mask("b/s2:9"), mask("b/s2:10")], [Some("0"); 2], "{masks:?}");
    let sent = recorder.changing_commands();
    assert!(sent.len() == 3 && sent.iter().filter(|line| line.starts_with("set server #")).count() == 2, "{sent:?}");
    recorder.clear();
    assert_done(&Program::request(&request("maint")).report(), false);
    assert_eq!(recorder.changing_commands(), [""; 0]);
    let report = Program::request(&request("ready")).report();
    assert_done(&report, true);
    let addresses: Vec<&Value> = report["servers"].as_array().unwrap().iter().map(|one| &one["address"]).collect();
    assert_eq!(addresses, ["127.0.0.1:9", "127.0.0.1:10", "127.0.0.1:9"]);
    let mut request = request("maint");
    request["state_file"] = json!(instance.folder.join("state"));
    let report = Program::request(&request).report();
    assert_done(&report, true);
    let why = "a reload forgets the state of b/s1, because two backends share that name";
    assert_eq!(warnings(&report).matches(why).count(), 1, "once for both: {report}");
    Ok(())
}

fn names_at_the_limit_of_a_line_are_set(haproxy: &Haproxy) -> TestResult {
    // A configuration line of HAProxy has at most 2,047 bytes.
    let backend = "b".repeat(1_900);
    let proxies: String = std::iter::once(format!("backend {backend}\n"))
        .chain((0..40).map(|number| format!("    server {:s<1900} 127.0.0.1:9\n", format!("{number:02}."))))
        .collect();
    let instance = Instance::start(haproxy, "long", &proxies);
    let recorder = Recorder::on(&instance);
    for state in ["maint", "ready"] {
        recorder.clear();
        let request = json!({ "server": "[0-9]*", "state": state, "instances": recorder.address() });
        let report = Program::request(&request).report();
        assert_done(&report, true);
        assert_eq!(recorder.changing_commands().len(), 40);
        assert!(recorder.lines().iter().all(|line| line.len() < 8_000));
    }
    let longest = "s".repeat(1_024);
    let request = json!({ "server": [longest], "instances": recorder.address() });
    assert_eq!(kind(&Program::request(&request).report()), "server_not_found");
    let request = json!({ "server": ["s".repeat(1_025)], "instances": recorder.address() });
    assert_eq!(kind(&Program::input(request.to_string()).report()), "bad_request");
    Ok(())
}

fn missing_names_are_judged_by_the_four_policies(haproxy: &Haproxy) -> TestResult {
    let one = Instance::start(haproxy, "one", "backend a\n    server s1 127.0.0.1:9\nbackend empty\n");
    let two = Instance::start(haproxy, "two", "backend b\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n");
    let recorders = [Recorder::on(&one), Recorder::on(&two)];
    let ask = |server: &Value, backend: &Value, policy: &str| {
        let request = json!({
            "server": server, "backend": backend, "state": "maint", "on_missing": policy, "dry_run": true,
            "instances": recorders.iter().map(Recorder::address).collect::<Vec<_>>()
        });
        let report = Program::request(&request).report();
        (kind(&report).to_owned(), servers(&report))
    };
    let null = json!(null);
    let (server_missing, backend_missing) = ("server_not_found", "backend_not_found");
    // Servers, backends, the kinds by `fail` and by `fail_each`, what matches.
    let table: [(Value, &Value, &str, &str, Vec<&str>); 9] = [
        (json!("s1"), &null, "", "", vec!["a/s1", "b/s1"]),
        (json!("s2"), &null, "", server_missing, vec!["b/s2"]),
        (json!(["s1", "s2"]), &null, "", server_missing, vec!["a/s1", "b/s1", "b/s2"]),
        (json!("s9"), &null, server_missing, server_missing, vec![]),
        (json!(["s1", "x*"]), &null, server_missing, server_missing, vec!["a/s1", "b/s1"]),
        (json!("b/*"), &null, "", server_missing, vec!["b/s1", "b/s2"]),
        (json!("s1"), &json!("b"), "", backend_missing, vec!["b/s1"]),
        (json!("s1"), &json!(["a", "b"]), "", backend_missing, vec!["a/s1", "b/s1"]),
        (json!("s1"), &json!(["b", "x*"]), backend_missing, backend_missing, vec!["b/s1"]),
    ];
    for (server, backend, fail, each, matched) in table {
        assert_eq!(ask(&server, backend, "fail").0, fail, "{server} in {backend} with fail");
        assert_eq!(ask(&server, backend, "fail_each").0, each, "{server} in {backend} with fail_each");
        let ignored = ask(&server, backend, "ignore");
        assert_eq!(
            ignored,
            (String::new(), matched.iter().map(|name| (*name).to_owned()).collect()),
            "{server} in {backend}"
        );
    }
    // Nothing is set anywhere where one is missing.
    let request = json!({
        "server": ["s1", "s9", "t*"], "state": "maint", "instances": recorders.iter().map(Recorder::address).collect::<Vec<_>>()
    });
    let report = Program::request(&request).report();
    let msg = report["error"]["msg"].as_str().unwrap();
    assert!(msg.contains("'s9', 't*'") && !msg.contains("'s1'"), "all that are missing are named: {msg}");
    assert_eq!((one.state("a", "s1"), two.state("b", "s1")), ((0, 2), (0, 2)));
    assert!(recorders.iter().all(|recorder| recorder.changing_commands().is_empty()));
    // A backend without servers has nothing that could be set, which is a mistake too.
    let request = json!({ "server": "s1", "backend": ["a", "empty"], "instances": one.address() });
    let report = Program::request(&request).report();
    assert_eq!(kind(&report), backend_missing);
    assert!(
        report["error"]["msg"].as_str().unwrap().contains("no selected instance has a backend 'empty' with servers")
    );
    Ok(())
}

fn elsewhere_looks_at_the_other_instances_of_the_host(haproxy: &Haproxy) -> TestResult {
    // No other test has these names.
    let has = Setup::new("elsewhere", "backend only-there\n    server only-there-1 127.0.0.1:9\n").start(haproxy);
    let lacks = Setup::new("elsewhere-not", "backend b\n    server s1 127.0.0.1:9\n").start(haproxy);
    let ask = |server: &str| {
        let request = json!({
            "server": server, "state": "maint", "on_missing": "elsewhere_ok", "instances": lacks.address()
        });
        Program::request(&request).report()
    };
    let report = ask("only-there-1");
    assert_done(&report, false);
    assert_eq!(servers(&report), [""; 0]);
    assert_eq!(has.state("only-there", "only-there-1"), (0, 2), "the others are looked at, not set");
    assert_eq!(kind(&ask("nowhere-at-all-1")), "server_not_found");
    assert_done(&ask("s1"), true);
    Ok(())
}
