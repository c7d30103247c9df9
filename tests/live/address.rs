//! Servers that are selected by the address in force.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::support::backend::{Answer, Dns};
use crate::support::report::{kind, server, servers, warnings};
use crate::support::{
    Haproxy, Instance, Mode, PATIENCE, Program, Recorder, Setup, Test, TestResult, eventually, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        an_address_selects_with_or_without_a_port,
        an_address_that_matches_nothing_is_judged_by_the_policies,
        the_address_in_force_counts,
        servers_at_other_addresses_are_the_others,
        a_machine_is_found_in_whatever_slot_a_reload_puts_it,
        a_server_stays_selected_when_its_address_moves,
        a_server_whose_address_moves_in_a_reload_is_not_taken_for_the_same,
        sockets_cannot_be_selected_by_their_paths,
    ]
}

const PROXIES: &str = "backend a\n    server one 127.0.0.1:91\n    server two 127.0.0.2:91\n    server six [::1]:91\n\
                       backend b\n    server one 127.0.0.3:92\n    server eins 127.0.0.1:92\n    server mapped ::ffff:127.0.0.2:92\n";

/// Asks for a request with these fields of one instance.
fn ask(at: &str, mut request: Value) -> Value {
    request["instances"] = json!(at);
    Program::request(&request).report()
}

fn an_address_selects_with_or_without_a_port(haproxy: &Haproxy) -> TestResult {
    let instance = Instance::start(haproxy, "address", PROXIES);
    let at = instance.address();
    let table: [(Value, &[&str]); 10] = [
        (json!({ "address": "127.0.0.1" }), &["a/one", "b/eins"]),
        (json!({ "address": "127.0.0.1:92" }), &["b/eins"]),
        (json!({ "address": ["127.0.0.1:91", "::1"] }), &["a/one", "a/six"]),
        (json!({ "address": "127.0.0.1:91,127.0.0.2" }), &["a/one", "a/two", "b/mapped"]),
        (json!({ "address": "[::1]:91" }), &["a/six"]),
        (json!({ "address": "[0:0::1]" }), &["a/six"]),
        (json!({ "address": "127.0.0.1", "server": "one" }), &["a/one"]),
        (json!({ "address": ["127.0.0.1", "127.0.0.3"], "server": "one" }), &["a/one", "b/one"]),
        (json!({ "address": "127.0.0.1", "backend": "b" }), &["b/eins"]),
        (json!({ "address": "127.0.0.1", "server": "a/*", "backend": "[ab]" }), &["a/one"]),
    ];
    for (request, expected) in table {
        let status = ask(&at, request.clone());
        assert_eq!(servers(&status), expected, "{request}: {status}");
    }
    // A change needs no name then, and reaches these servers alone.
    let recorder = Recorder::on(&instance);
    let changed = ask(&recorder.address(), json!({ "address": "127.0.0.1", "state": "maint" }));
    assert_eq!(
        (kind(&changed), &changed["msg"]),
        ("", &json!("127.0.0.1: maint for 2 of 2 servers on 1 of 1 instance"))
    );
    assert_eq!(recorder.changing_commands(), ["set server a/one state maint", "set server b/eins state maint"]);
    let again = ask(&at, json!({ "address": "127.0.0.1", "state": "maint" }));
    assert_eq!((kind(&again), &again["changed"]), ("", &json!(false)));
    let changed = ask(&at, json!({ "server": "one", "address": "127.0.0.1", "state": "ready" }));
    assert_eq!(changed["msg"], "one at 127.0.0.1: ready in 1 of 1 backend on 1 of 1 instance");
    assert_eq!(
        (instance.state("a", "one"), instance.state("b", "eins"), instance.state("b", "one")),
        ((0, 2), (1, 0), (0, 2))
    );
    // As words, and as lines: the servers that are asked for have one each.
    let run =
        Program::words([format!("instances={at}"), "address=127.0.0.1".to_owned()]).arg("--format").arg("text").run();
    let lines: Vec<&str> = run.stdout.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, ["a/one: RUNNING/READY", "b/eins: STOPPED/MAINT"]);
    Ok(())
}

fn an_address_that_matches_nothing_is_judged_by_the_policies(haproxy: &Haproxy) -> TestResult {
    let instances = [
        Instance::start(haproxy, "one", "backend a\n    server s1 127.0.0.1:91\n    server s2 127.0.0.2:91\n"),
        Instance::start(haproxy, "two", "backend b\n    server s1 127.0.0.1:91\n"),
    ];
    let recorders: Vec<Recorder> = instances.iter().map(Recorder::on).collect();
    let ask = |fields: Value, policy: &str| {
        let mut request = fields;
        request["state"] = json!("maint");
        request["dry_run"] = json!(true);
        request["on_missing"] = json!(policy);
        request["instances"] = json!(recorders.iter().map(Recorder::address).collect::<Vec<_>>());
        Program::request(&request).report()
    };
    let missing = "server_not_found";
    let table = [
        (json!({ "address": "127.0.0.1" }), "", "", vec!["a/s1", "b/s1"]),
        (json!({ "address": "127.0.0.2" }), "", missing, vec!["a/s2"]),
        (json!({ "address": ["127.0.0.1", "127.0.0.9"] }), missing, missing, vec!["a/s1", "b/s1"]),
        (json!({ "address": "127.0.0.1:92" }), missing, missing, vec![]),
        (json!({ "address": "127.0.0.1", "server": "s2" }), missing, missing, vec![]),
        (json!({ "address": "127.0.0.2", "server": ["s1", "s2"] }), missing, missing, vec!["a/s2"]),
    ];
    for (fields, fail, each, matched) in table {
        assert_eq!(kind(&ask(fields.clone(), "fail")), fail, "{fields} with fail");
        assert_eq!(kind(&ask(fields.clone(), "fail_each")), each, "{fields} with fail_each");
        let ignored = ask(fields.clone(), "ignore");
        assert_eq!(
            (kind(&ignored), servers(&ignored)),
            ("", matched.iter().map(ToString::to_string).collect()),
            "{fields}"
        );
    }
    let msg = |fields: Value| ask(fields, "fail")["error"]["msg"].as_str().unwrap().to_owned();
    let said = msg(json!({ "address": ["127.0.0.1", "127.0.0.8", "127.0.0.9:80"] }));
    assert!(
        said.contains("no selected instance has a server with the address '127.0.0.8' or '127.0.0.9:80'; correct"),
        "{said}"
    );
    let said = msg(json!({ "address": "127.0.0.1", "server": "s2" }));
    assert!(said.contains("a server 's2' with the address '127.0.0.1'; correct the name or the address"), "{said}");
    let said = msg(json!({ "address": ["127.0.0.1", "127.0.0.9"], "server": "s1", "backend": "b" }));
    assert!(said.contains("a server 's1' with the address '127.0.0.9' in the backend 'b'; correct"), "{said}");
    assert!(recorders.iter().all(|recorder| recorder.changing_commands().is_empty()));
    // Another instance may have it, which is looked at only.
    let request = json!({ "address": "127.0.77.1", "state": "maint", "on_missing": "elsewhere_ok", "instances": instances[1].address() });
    assert_eq!(kind(&Program::request(&request).report()), missing);
    let elsewhere = Instance::start(haproxy, "elsewhere-by-address", "backend there\n    server s 127.0.77.1:9\n");
    assert_eq!(kind(&Program::request(&request).report()), "");
    assert_eq!(elsewhere.state("there", "s"), (0, 2));
    Ok(())
}

fn the_address_in_force_counts(haproxy: &Haproxy) -> TestResult {
    let dns = Dns::start();
    dns.answer("app.test", Answer::Addresses(vec![Ipv4Addr::new(127, 0, 0, 5)]));
    let proxies = format!(
        "{}\nbackend b\n    server plain 127.0.0.1:91\n    \
         server named app.test:92 check inter 100ms resolvers r init-addr none resolve-prefer ipv4\n    \
         server lost lost.test:92 check inter 100ms resolvers r init-addr none resolve-prefer ipv4\n",
        dns.resolvers("r")
    );
    let instance = Instance::start(haproxy, "in-force", &proxies);
    let at = instance.address();
    eventually(PATIENCE, "the name to resolve", || (instance.row("b", "named").admin == 0).then_some(()));
    assert_eq!(servers(&ask(&at, json!({ "address": "127.0.0.5" }))), ["b/named"]);
    instance.raw("set server b/plain addr 127.0.0.9 port 99");
    assert_eq!(kind(&ask(&at, json!({ "address": "127.0.0.1" }))), "server_not_found");
    assert_eq!(servers(&ask(&at, json!({ "address": "127.0.0.9:99" }))), ["b/plain"]);
    dns.answer("app.test", Answer::Addresses(vec![Ipv4Addr::new(127, 0, 0, 6)]));
    eventually(PATIENCE, "the address to move", || {
        (servers(&ask(&at, json!({ "address": "127.0.0.6:92" }))) == ["b/named"]).then_some(())
    });
    Ok(())
}

fn a_machine_is_found_in_whatever_slot_a_reload_puts_it(haproxy: &Haproxy) -> TestResult {
    let dns = Dns::start();
    let machines = |lasts: &[u8]| Answer::Addresses(lasts.iter().map(|last| Ipv4Addr::new(127, 0, 0, *last)).collect());
    dns.answer("web.test", machines(&[3]));
    let proxies = format!(
        "{}\nbackend b\n    server-template s 1-6 web.test:92 resolvers r resolve-prefer ipv4 init-addr none\n",
        dns.resolvers("r")
    );
    let mut instance = Setup::new("slots", &proxies).mode(Mode::MasterWorker).start(haproxy);
    let at = instance.address();
    let slots = |instance: &Instance| {
        ["s1", "s2", "s3", "s4", "s5", "s6"].map(|slot| {
            let row = instance.row("b", slot);
            (slot, row.columns["srv_addr"].clone(), row.admin)
        })
    };
    let await_all = |instance: &Instance, count: usize| {
        eventually(PATIENCE, "all addresses", || {
            let slots = slots(instance);
            (slots.iter().filter(|(_, address, _)| address != "-").count() == count).then_some(slots)
        })
    };
    let slot_of = |slots: &[(&'static str, String, u32)], machine: &str| {
        slots.iter().find(|(_, address, _)| address == machine).map(|(slot, ..)| *slot).unwrap()
    };
    let mut former = await_all(&instance, 1);
    let mut has_moved = false;
    // One alone has the first slot; among six it has any of them.
    let among = [[2, 3, 4, 5, 6, 7], [9, 8, 3, 12, 11, 10], [23, 22, 21, 20, 3, 19], [31, 32, 33, 34, 35, 3]];
    for lasts in among.iter().flat_map(|six| [six.as_slice(), &[3]]) {
        let request = json!({ "address": "127.0.0.3", "state": "maint", "owner": "alice" });
        let report = ask(&at, request);
        let slot = slot_of(&former, "127.0.0.3");
        assert_eq!((kind(&report), servers(&report)), ("", vec![format!("b/{slot}")]), "{report}");
        // HAProxy says the same: this machine is out, and no other.
        let out: Vec<String> =
            slots(&instance).into_iter().filter(|(.., admin)| *admin == 1).map(|(_, address, _)| address).collect();
        assert_eq!(out, ["127.0.0.3"]);
        let refused = ask(&at, json!({ "address": "127.0.0.3", "state": "ready" }));
        assert_eq!(kind(&refused), "owned", "{refused}");

        // Without a state file HAProxy forgets what was set, and may put the machines into other slots.
        dns.answer("web.test", machines(lasts));
        instance.reload();
        let now = await_all(&instance, lasts.len());
        assert!(now.iter().all(|(.., admin)| *admin & 1 == 0), "{now:?}");
        let (before, after) = (slot_of(&former, "127.0.0.3"), slot_of(&now, "127.0.0.3"));
        has_moved |= before != after;
        // What the slot's former machine was is nothing to the one that is there now.
        let status = ask(&at, json!({ "server": format!("b/{before}") }));
        assert_eq!(server(&status, &format!("b/{before}"))["owner"], Value::Null, "{status}");
        former = now;
    }
    assert!(has_moved, "DNS has put the machine into another slot at least once");
    Ok(())
}

fn servers_at_other_addresses_are_the_others(haproxy: &Haproxy) -> TestResult {
    let proxies = "backend a\n    server s1 127.0.0.1:91\n    server s2 127.0.0.2:91\n";
    let instance = Instance::start(haproxy, "others", proxies);
    let at = instance.address();
    for names in [json!({}), json!({ "server": "s*" })] {
        let at_address = |address: &str| {
            let mut request = names.clone();
            request["address"] = json!(address);
            request["state"] = json!("maint");
            request
        };
        let request = at_address("127.0.0.1");
        let changed = ask(&at, request.clone());
        assert_eq!((kind(&changed), warnings(&changed).contains("no usable server left")), ("", false), "{changed}");
        // For a guard as well, which asks for all.
        ask(&at, json!({ "server": "*", "state": "ready" }));
        let guarded = |least: u32| {
            let mut request = request.clone();
            request["guard"] = json!({ "min_available": least });
            ask(&at, request)
        };
        assert_eq!(kind(&guarded(2)), "guard_refused");
        let changed = guarded(1);
        assert_eq!((kind(&changed), servers(&changed)), ("", vec!["a/s1".to_owned()]), "{changed}");
        let other = ask(&at, at_address("127.0.0.2"));
        assert!(warnings(&other).contains("no usable server left"), "{other}");
        ask(&at, json!({ "server": "*", "state": "ready" }));
    }
    Ok(())
}

fn a_server_stays_selected_when_its_address_moves(haproxy: &Haproxy) -> TestResult {
    let instance =
        Instance::start(haproxy, "moves", "backend a\n    server s1 127.0.0.1:91\n    server s2 127.0.0.2:91\n");
    let recorder = Recorder::on(&instance);
    recorder.hold_changes();
    let running =
        Program::request(&json!({ "address": "127.0.0.1", "state": "maint", "instances": recorder.address() })).spawn();
    recorder.await_held();
    instance.raw("set server a/s1 addr 127.0.0.9");
    recorder.let_go();
    let report = running.wait().report();
    assert_eq!((kind(&report), &report["changed"]), ("", &json!(true)), "{report}");
    assert_eq!(server(&report, "a/s1")["after"]["admin_state"], "maint", "{report}");
    Ok(())
}

fn a_server_whose_address_moves_in_a_reload_is_not_taken_for_the_same(haproxy: &Haproxy) -> TestResult {
    let mut instance =
        Instance::start(haproxy, "reload", "backend a\n    server s1 127.0.0.1:91\n    server s2 127.0.0.2:91\n");
    let recorder = Recorder::on(&instance);
    recorder.hold_changes();
    let running =
        Program::request(&json!({ "address": "127.0.0.1", "state": "maint", "instances": recorder.address() })).spawn();
    recorder.await_held();
    instance.set_proxies("backend a\n    server s1 127.0.0.3:91\n    server s2 127.0.0.1:91\n");
    instance.reload();
    recorder.let_go();
    let report = running.wait().report();
    assert_eq!(kind(&report), "server_not_found", "{report}");
    let msg = server(&report, "a/s1")["error"]["msg"].as_str().unwrap();
    assert!(msg.contains("a/s1 disappeared, or lost the address 127.0.0.1:91, when HAProxy was reloaded"), "{msg}");
    assert_eq!(
        (instance.state("a", "s1"), instance.state("a", "s2")),
        ((0, 2), (1, 0)),
        "what has the address is meant"
    );
    Ok(())
}

fn sockets_cannot_be_selected_by_their_paths(haproxy: &Haproxy) -> TestResult {
    let proxies =
        "backend a\n    server path unix@/nowhere/app.sock\n    server name abns@app\n    server s 127.0.0.1:91\n";
    let instance = Instance::start(haproxy, "sockets", proxies);
    let at = instance.address();
    // This is why: there is nothing that could be compared.
    let shown = instance.raw("show servers state a");
    assert!(!shown.contains("app.sock"), "{shown}");
    assert!(!instance.raw("show stat a 4 -1").contains("app.sock"));
    for address in ["/nowhere/app.sock", "unix@/nowhere/app.sock", "abns@app"] {
        let refused = ask(&at, json!({ "address": address, "state": "maint" }));
        let msg = refused["error"]["msg"].as_str().unwrap();
        assert!(kind(&refused) == "bad_request" && msg.contains("select it by its name, with 'server'"), "{refused}");
    }
    let status = ask(&at, json!({}));
    assert_eq!(
        (&server(&status, "a/path")["address"], &server(&status, "a/name")["address"]),
        (&json!("-"), &json!("-"))
    );
    assert_eq!(servers(&ask(&at, json!({ "address": "127.0.0.1" }))), ["a/s"]);
    Ok(())
}
