//! Named backends: where a request names them all, only these are read, and every rule holds as where all are read.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::report::{kind, server, servers};
use crate::support::{Haproxy, Instance, Mode, Port, Program, Recorder, Setup, Test, TestResult, skipped, tests};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        only_named_backends_are_read,
        many_named_backends_are_read_as_is_cheaper,
        statistics_are_read_only_where_they_are_needed,
        a_health_that_does_not_exist_tells_who_tracks_and_changes_nothing,
        a_backend_that_is_not_there_is_named_with_the_nearest,
        a_named_backend_may_be_disabled_or_without_servers,
        a_name_that_two_backends_share_means_both,
        the_master_is_not_a_backend,
        a_named_backend_is_read_again_after_a_reload,
    ]
}

/// Backends `b1` and so on, each with `s1` and `s2`.
fn backends(count: u32) -> String {
    (1..=count).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "backend b{number}\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9");
        text
    })
}

/// What was asked for servers and backends, in order.
fn asked(recorder: &Recorder) -> Vec<String> {
    let mut lines = recorder.lines();
    lines.retain(|line| line.starts_with("show servers") || line.starts_with("show stat") || line == "show backend");
    lines
}

fn only_named_backends_are_read(haproxy: &Haproxy) -> TestResult {
    let instance = Instance::start(haproxy, "named", &backends(6));
    let recorder = Recorder::on(&instance);
    let run = |request: Value| {
        recorder.clear();
        let mut request = request;
        request["instances"] = json!(recorder.address());
        Program::request(&request).report()
    };
    // Up to 3.0 two proxies may share a name, which only the list of all names shows.
    let list: &[&str] = if haproxy.at_least(3, 1) { &[] } else { &["show backend"] };
    let state = "show servers state";
    for (request, names, done) in [
        (json!({ "server": "b5/s1", "state": "maint" }), ["b5"].as_slice(), vec!["b5/s1"]),
        (json!({ "server": ["b6/s*", "b2/s1"], "state": "maint" }), &["b2", "b6"], vec!["b2/s1", "b6/s1", "b6/s2"]),
        (json!({ "server": "s2", "backend": ["b3", "b1"], "state": "drain" }), &["b1", "b3"], vec!["b1/s2", "b3/s2"]),
        (json!({ "address": "127.0.0.1:9", "backend": "b3", "state": "ready" }), &["b3"], vec!["b3/s1", "b3/s2"]),
    ] {
        let report = run(request);
        assert_eq!(
            (servers(&report), &report["failed"]),
            (done.iter().map(|name| (*name).to_owned()).collect(), &json!(false))
        );
        let by_name: Vec<String> = names.iter().map(|name| format!("{state} {name}")).collect();
        let seen = asked(&recorder);
        assert!(seen.iter().all(|line| line != state && !line.starts_with("show stat -1")), "{seen:?}");
        let first: Vec<&str> = list.iter().copied().chain(by_name.iter().map(String::as_str)).collect();
        assert_eq!(seen[..first.len()], first, "{report}");
        let last = seen.iter().rev().take(names.len()).rev().filter(|line| by_name.contains(line)).count();
        assert_eq!(last, names.len(), "also when they are read back: {seen:?}");
    }
    let report = run(json!({ "backend": "b3" }));
    assert_eq!(servers(&report), ["b3/s1", "b3/s2"]);
    assert_eq!(server(&report, "b3/s1")["sessions"], json!(0));
    assert!(asked(&recorder).iter().all(|line| line != state && !line.starts_with("show stat -1")));
    // A pattern may mean any backend.
    for open in
        [json!({ "server": "s1" }), json!({ "server": ["b1/s1", "s2"] }), json!({ "backend": "b[1]" }), json!({})]
    {
        run(open);
        assert!(asked(&recorder).iter().any(|line| line == state));
    }
    Ok(())
}

fn many_named_backends_are_read_as_is_cheaper(haproxy: &Haproxy) -> TestResult {
    let instance = Instance::start(haproxy, "many", &backends(60));
    let recorder = Recorder::on(&instance);
    for (count, is_whole) in [(20, false), (40, true)] {
        for state in ["maint", "ready"] {
            recorder.clear();
            let names: Vec<String> = (1..=count).map(|number| format!("b{number}/s1")).collect();
            let request = json!({ "server": names, "state": state, "instances": recorder.address() });
            let report = Program::request(&request).report();
            assert_eq!((&report["failed"], servers(&report)), (&json!(false), names));
            let whole = asked(&recorder).iter().filter(|line| *line == "show servers state").count();
            assert_eq!(whole, if is_whole { 2 } else { 0 }, "{count}: before and after");
        }
    }
    Ok(())
}

fn statistics_are_read_only_where_they_are_needed(haproxy: &Haproxy) -> TestResult {
    let works = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/run"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        skipped("only root can mount a file system, with unshare");
        return Ok(());
    }
    let proxies = "\
backend b1
    server checked 127.0.0.1:9 check inter 60s
    server unchecked 127.0.0.1:9
backend b2
    server tracking 127.0.0.1:9 track b1/checked
";
    let instance = Instance::start(haproxy, "plain", proxies);
    let recorder = Recorder::on(&instance);
    let read = |fields: Value| {
        recorder.clear();
        let mut request = fields;
        request["instances"] = json!(recorder.address());
        // Nobody else's records of owners.
        let apart = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\""];
        let report = Program::request(&request).under(apart).report();
        assert_eq!(report["failed"], json!(false), "{report}");
        let lines = recorder.lines();
        let any = |is: &dyn Fn(&String) -> bool| lines.iter().any(is);
        (any(&|line| line.starts_with("show stat ")), any(&|line| line.ends_with(" health ?")))
    };
    // Since 3.4 a backend may be unpublished, which matters if the change leaves it without a usable server.
    let shows_more = haproxy.at_least(3, 4);
    for (fields, expected) in [
        (json!({ "server": "b1/checked", "state": "maint", "dry_run": true }), (false, false)),
        (json!({ "server": "b1/checked", "state": "maint" }), (false, false)),
        (json!({ "server": "b1/checked", "state": "ready" }), (true, false)),
        (json!({ "server": "b1/checked", "state": "drain" }), (false, false)),
        (json!({ "server": "b1/checked", "state": "maint", "drain": true }), (true, false)),
        (json!({ "server": "b1/checked", "state": "maint", "owner": "alice" }), (true, false)),
        // A dry run and a status send no command, not even one that HAProxy refuses.
        (json!({ "server": "b1/unchecked" }), (true, false)),
        (json!({ "server": "b1/unchecked", "state": "maint", "dry_run": true }), (true, false)),
        (json!({ "server": "b1/unchecked", "state": "drain" }), (shows_more, true)),
        (json!({ "server": "b1/unchecked", "state": "maint" }), (shows_more, true)),
        (json!({ "server": "b2/tracking", "state": "maint" }), (true, true)),
        (json!({ "server": ["b1/checked", "b2/tracking"], "state": "drain" }), (true, true)),
    ] {
        assert_eq!(read(fields.clone()), expected, "{fields}");
    }
    Ok(())
}

fn a_health_that_does_not_exist_tells_who_tracks_and_changes_nothing(haproxy: &Haproxy) -> TestResult {
    let proxies = "\
backend b
    option httpchk
    server up 127.0.0.1:9
    server down 127.0.0.1:9
    server stopping 127.0.0.1:9
    server drain 127.0.0.1:9
    server maint 127.0.0.1:9
    server disabled 127.0.0.1:9 disabled
    server checked 127.0.0.1:9 check inter 1h
    server agent 127.0.0.1:9 agent-check agent-port 9 agent-inter 1h
backend tracking
    server up 127.0.0.1:9 track b/checked
    server maint 127.0.0.1:9 track b/checked
    server chain 127.0.0.1:9 track tracking/up
";
    let instance = Instance::start(haproxy, "refusals", proxies);
    instance.set("set server b/down health down");
    instance.set("set server b/stopping health stopping");
    instance.set_state("b/drain", "drain");
    instance.set_state("b/maint", "maint");
    instance.set_state("tracking/maint", "maint");
    let rows = || {
        let mut rows = instance.rows();
        rows.values_mut().for_each(|row| drop(row.columns.remove("srv_time_since_last_change")));
        rows
    };
    // Of the first check, which has failed by now.
    instance.await_state("b", "checked", (0, 0));
    let before = rows();
    for ((backend, server), row) in &before {
        let by_number = format!("#{}/#{}", row.columns["be_id"], row.columns["srv_id"]);
        for name in [format!("{backend}/{server}"), by_number] {
            let expected = if backend == "tracking" {
                "cannot change health on a tracking server.\n\n"
            } else {
                "'set server <srv> health' expects 'up', 'stopping', or 'down'.\n\n"
            };
            assert_eq!(instance.raw(&format!("set server {name} health ?")), expected, "{backend}/{server}");
        }
    }
    assert_eq!(rows(), before);
    Ok(())
}

fn a_backend_that_is_not_there_is_named_with_the_nearest(haproxy: &Haproxy) -> TestResult {
    let instance = Instance::start(haproxy, "missing", "backend webshop\n    server s1 127.0.0.1:9\nfrontend front\n");
    let recorder = Recorder::on(&instance);
    let run = |backend: &str, on_missing: &str| {
        recorder.clear();
        let request = json!({ "server": "s1", "backend": backend, "state": "maint", "on_missing": on_missing, "instances": recorder.address() });
        Program::request(&request).report()
    };
    let report = run("webshpo", "fail");
    assert_eq!(kind(&report), "backend_not_found");
    assert!(report["msg"].as_str().unwrap().contains("'webshpo' (did you mean 'webshop'?)"), "{report}");
    let lines = asked(&recorder);
    assert!(
        lines.contains(&"show backend".to_owned()) && !lines.contains(&"show servers state".to_owned()),
        "{lines:?}"
    );
    assert_eq!(kind(&run("front", "fail")), "backend_not_found");
    assert_eq!(run("webshpo", "ignore")["failed"], json!(false));
    let request = json!({ "server": ["webshop/s1", "webshop/s2"], "instances": recorder.address() });
    assert_eq!(kind(&Program::request(&request).report()), "server_not_found");
    assert!(recorder.changing_commands().is_empty());
    Ok(())
}

fn a_named_backend_may_be_disabled_or_without_servers(haproxy: &Haproxy) -> TestResult {
    let proxies = format!("{}backend off\n    disabled\n    server s1 127.0.0.1:9\nbackend empty\n", backends(1));
    let instance = Instance::start(haproxy, "disabled", &proxies);
    let run = |servers: Value| {
        Program::request(&json!({ "server": servers, "state": "maint", "instances": instance.address() })).report()
    };
    let report = run(json!(["off/s1", "b1/s1"]));
    assert_eq!((&report["failed"], servers(&report)), (&json!(false), vec!["b1/s1".to_owned(), "off/s1".to_owned()]));
    assert_eq!(server(&report, "off/s1")["changed"], json!(false));
    assert_eq!(instance.state("b1", "s1").0, 1);
    let request = json!({ "backend": "empty", "instances": instance.address() });
    assert_eq!(kind(&Program::request(&request).report()), "backend_not_found");
    Ok(())
}

fn a_name_that_two_backends_share_means_both(haproxy: &Haproxy) -> TestResult {
    if haproxy.at_least(3, 1) {
        return Ok(()); // Refuses such a configuration.
    }
    let port = Port::reserve();
    let proxies = format!(
        "backend b\n    server s1 127.0.0.1:9\nlisten b\n    bind 127.0.0.1:{}\n    server s1 127.0.0.1:10\n",
        port.number()
    );
    let instance = Instance::start(haproxy, "twins", &proxies);
    for (state, mask) in [("maint", "1"), ("ready", "0")] {
        let request = json!({ "server": "b/s1", "state": state, "instances": instance.address() });
        let report = Program::request(&request).report();
        assert_eq!((&report["failed"], servers(&report).len()), (&json!(false), 2), "{report}");
        let reply = instance.raw("show servers state");
        let rows = reply.lines().map(|row| row.split(' ').collect::<Vec<_>>()).filter(|row| row.get(1) == Some(&"b"));
        assert_eq!(rows.map(|row| row[6].to_owned()).collect::<Vec<_>>(), [mask; 2], "{reply}");
    }
    Ok(())
}

fn the_master_is_not_a_backend(haproxy: &Haproxy) -> TestResult {
    let instance = Setup::new("master", &backends(2)).mode(Mode::MasterWorker).master_cli().start(haproxy);
    let request = json!({ "backend": "MASTER", "server": "*", "state": "maint", "instances": instance.address() });
    let report = Program::request(&request).report();
    assert_eq!(report["failed"], json!(true));
    assert_eq!(report["servers"], json!([]));
    Ok(())
}

fn a_named_backend_is_read_again_after_a_reload(haproxy: &Haproxy) -> TestResult {
    let mut instance = Setup::new("again", &backends(3)).mode(Mode::MasterWorker).start(haproxy);
    let request = |state: &str| json!({ "server": "b2/s1", "state": state, "instances": instance.address() });
    let (maint, ready) = (request("maint"), request("ready"));
    assert_eq!(Program::request(&maint).report()["changed"], json!(true));
    // Another proxy in front of it changes its number.
    instance.set_proxies(&format!("backend a\n    server s1 127.0.0.1:9\n{}", backends(3)));
    instance.reload();
    assert_eq!(Program::request(&ready).report()["changed"], json!(false), "a reload forgets it");
    assert_eq!(Program::request(&maint).report()["changed"], json!(true));
    assert_eq!([instance.state("a", "s1").0, instance.state("b2", "s1").0], [0, 1]);
    Ok(())
}
