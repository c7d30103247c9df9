//! Guards and locks: what is refused, and how two runs at once do not both take out the last server.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::support::program::copy_program;
use crate::support::report::{kind, server, warnings};
use crate::support::{
    Answer, Bound, Dns, Folder, Haproxy, Health, HttpBackend, Instance, Mode, PATIENCE, Port, Program, Recorder, Run,
    Setup, Stage, Test, TestResult, eventually, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_refusal_has_its_numbers,
        only_servers_that_take_traffic_count,
        backup_servers_count_as_haproxy_uses_them,
        a_share_is_of_the_regular_servers,
        a_status_with_a_guard_is_about_backends,
        what_lowers_nothing_is_never_refused,
        all_refusals_are_reported_and_nothing_is_sent,
        servers_that_track_a_changed_one_count,
        servers_that_track_through_others_count,
        where_nothing_tracks_not_everything_is_read,
        many_backends_are_counted_as_few_are,
        without_a_guard_an_empty_backend_is_a_warning,
        of_two_runs_at_once_one_is_refused,
        of_two_runs_on_many_instances_one_is_refused_on_all,
        whoever_waits_for_the_lock_learns_for_whom,
        a_killed_run_leaves_no_lock,
        the_lock_is_let_go_while_sessions_are_waited_for,
        a_process_that_takes_over_is_judged_anew,
        a_status_and_a_dry_run_take_no_lock,
        an_ordinary_user_goes_on_without_a_lock_but_not_with_a_guard,
    ]
}

/// Starts one instance with these proxies.
fn start(haproxy: &Haproxy, proxies: &str) -> Instance {
    Setup::new("guarded", proxies).start(haproxy)
}

/// A backend of so many servers, `s1` and so on, with more lines.
fn backend(name: &str, count: u32, more: &str) -> String {
    let servers: String = (1..=count).map(|number| format!("    server s{number} 127.0.0.1:9\n")).collect();
    format!("backend {name}\n{servers}{more}")
}

fn request(servers: &Value, state: &str, least: &Value, instances: &Value) -> Value {
    json!({ "server": servers, "state": state, "guard": { "min_available": least }, "instances": instances })
}

fn a_refusal_has_its_numbers(haproxy: &Haproxy) -> TestResult {
    // Five servers, of which the configuration disables one; four take traffic.
    let instance = start(haproxy, &backend("app", 4, "    server out 127.0.0.1:9 disabled\n"));
    let at = json!(instance.address());
    // The guard, how many servers are taken out, and the numbers of the refusal, if there is one.
    let table: [(Value, u32, Option<&str>); 12] = [
        (json!(3), 1, None),
        (json!(4), 1, Some("has 4 usable servers and would have 3, fewer than 'guard.min_available' 4;")),
        (json!(1), 3, None),
        (json!(1), 4, Some("has 4 usable servers and would have 0, fewer than 'guard.min_available' 1;")),
        (json!("75%"), 1, None),
        (json!("76%"), 1, Some("would have 3, fewer than 'guard.min_available' 4 (76% of 4);")),
        (json!("50%"), 2, None),
        (json!("51%"), 2, Some("would have 2, fewer than 'guard.min_available' 3 (51% of 4);")),
        (json!("1%"), 4, Some("would have 0, fewer than 'guard.min_available' 1 (1% of 4);")),
        (json!("100%"), 1, Some("would have 3, fewer than 'guard.min_available' 4 (100% of 4);")),
        (json!(0), 4, None),
        (json!(9), 1, Some("has 4 usable servers and would have 3, fewer than 'guard.min_available' 9;")),
    ];
    for (least, count, refusal) in table {
        for state in ["maint", "drain"] {
            let names: Value = (1..=count).map(|number| format!("s{number}")).collect();
            let mut asked = request(&names, state, &least, &at);
            asked["dry_run"] = json!(true);
            let foreseen = Program::request(&asked).report();
            asked["dry_run"] = json!(false);
            let report = Program::request(&asked).report();
            match refusal {
                None => {
                    assert_eq!((kind(&report), &report["changed"]), ("", &json!(true)), "{least} {count}: {report}")
                }
                Some(numbers) => {
                    assert_eq!((kind(&report), kind(&foreseen)), ("guard_refused", "guard_refused"), "{report}");
                    let msg = report["error"]["msg"].as_str().unwrap();
                    assert!(msg.contains("the backend app") && msg.contains(numbers), "{least} {count}: {msg}");
                    assert_eq!((&report["changed"], &report["error"]["backend"]), (&json!(false), &json!("app")));
                    assert_eq!(report["error"]["retryable"], true);
                }
            }
            for number in 1..=4 {
                let touched = refusal.is_none() && number <= count;
                assert_eq!(instance.row("app", &format!("s{number}")).admin != 0, touched, "{least} {count} s{number}");
                instance.set_state(&format!("app/s{number}"), "ready");
            }
        }
    }
    Ok(())
}

fn only_servers_that_take_traffic_count(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start_with(haproxy, "check inter 50ms rise 1 fall 1", |setup| setup);
    let at = json!(stage.http.address());
    let try_it = |why: &str, numbers: &str| {
        let report = Program::request(&request(&json!("web1"), "maint", &json!(2), &at)).report();
        assert_eq!(kind(&report), "guard_refused", "{why}: {report}");
        let msg = report["error"]["msg"].as_str().unwrap();
        assert!(msg.contains(numbers), "{why}: {msg}");
        assert_eq!(stage.http.state("web", "web1"), (0, 2), "{why}");
    };
    let two = "has 2 usable servers and would have 1";
    stage.http.set("set server web/web2 weight 0");
    try_it("weight 0", two);
    stage.http.set("set server web/web2 weight 100%");
    for state in ["drain", "maint"] {
        stage.http.set_state("web/web2", state);
        try_it(state, two);
        stage.http.set_state("web/web2", "ready");
    }
    stage.server("web2").set_health(Health::Bad);
    stage.http.await_state("web", "web2", (0, 0));
    try_it("down", two);
    stage.server("web2").set_health(Health::Good);
    stage.http.await_state("web", "web2", (0, 2));
    let report = Program::request(&request(&json!("web1"), "maint", &json!(2), &at)).report();
    assert_eq!((kind(&report), &report["changed"]), ("", &json!(true)), "all three take traffic: {report}");
    // Weight 0 takes a server out as well.
    let asked = json!({ "server": "web2", "weight": 0, "guard": { "min_available": 2 }, "instances": at });
    let report = Program::request(&asked).report();
    assert_eq!(kind(&report), "guard_refused", "{report}");
    assert_eq!(stage.http.row("web", "web2").weight, 1);
    Ok(())
}

fn backup_servers_count_as_haproxy_uses_them(haproxy: &Haproxy) -> TestResult {
    let backups = "    server b1 127.0.0.1:9 backup\n    server b2 127.0.0.1:9 backup\n";
    let instance = start(haproxy, &backend("app", 2, backups));
    let at = json!(instance.address());
    let attempt = |names: Value, least: u32| Program::request(&request(&names, "maint", &json!(least), &at)).report();
    assert_eq!(kind(&attempt(json!(["s1"]), 1)), "", "another one is left");
    let report = attempt(json!(["s2"]), 2);
    assert_eq!(kind(&report), "", "one before, and one of the backup servers after: not lowered: {report}");
    assert_eq!(kind(&attempt(json!(["b1"]), 1)), "", "the other backup server is left");
    let report = attempt(json!(["b2"]), 1);
    assert_eq!(kind(&report), "guard_refused", "{report}");
    assert!(report["error"]["msg"].as_str().unwrap().contains("has 1 usable server and would have 0"), "{report}");
    assert_eq!(["s1", "s2", "b1", "b2"].map(|name| instance.state("app", name).0), [1, 1, 1, 0]);
    Ok(())
}

fn a_share_is_of_the_regular_servers(haproxy: &Haproxy) -> TestResult {
    let dns = Dns::start();
    dns.answer("web.test", Answer::Addresses([1, 2].map(|last| std::net::Ipv4Addr::new(127, 0, 0, last)).to_vec()));
    let backups =
        "    server b1 127.0.0.1:9 backup\n    server b2 127.0.0.1:9 backup\n    server out 127.0.0.1:9 disabled\n";
    let template = "backend slots\n    \
                    server-template w 1-5 web.test:9 resolvers r init-addr none resolve-prefer ipv4\n";
    let instance = start(haproxy, &format!("{}\n{}{template}", dns.resolvers("r"), backend("app", 2, backups)));
    let taken = || instance.rows().iter().filter(|((backend, _), row)| backend == "slots" && row.admin == 0).count();
    eventually(PATIENCE, "two slots to be taken", || (taken() == 2).then_some(()));
    let at = json!(instance.address());
    let slot = (1..=5).map(|number| format!("slots/w{number}")).find(|name| {
        let (backend, server) = name.split_once('/').unwrap();
        instance.row(backend, server).admin == 0
    });
    let slot = slot.unwrap();
    for name in ["app/s1", slot.as_str()] {
        let report = Program::request(&request(&json!(name), "maint", &json!("51%"), &at)).report();
        assert_eq!(kind(&report), "guard_refused", "{name}: {report}");
        assert!(report["error"]["msg"].as_str().unwrap().contains("2 (51% of 2)"), "{report}");
        let (backend, server) = name.split_once('/').unwrap();
        assert_eq!(instance.row(backend, server).admin, 0);
        let report = Program::request(&request(&json!(name), "maint", &json!("50%"), &at)).report();
        assert_eq!((kind(&report), &report["changed"]), ("", &json!(true)), "{name}: {report}");
    }
    Ok(())
}

fn a_status_with_a_guard_is_about_backends(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy, &(backend("galera", 3, "") + &backend("redis", 2, "")));
    for server in ["galera/s2", "galera/s3", "redis/s1"] {
        instance.set(&format!("set server {server} health down"));
    }
    let ask = |least: Value, more: Value| {
        let mut asked = json!({ "guard": { "min_available": least }, "instances": instance.address() });
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let report = Program::request(&asked).report();
        let run = Program::request(&asked).arg("--format=text").arg("--detailed-exitcodes").run();
        let lines = run.stdout.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        (report, lines, run.code)
    };
    let (report, lines, code) = ask(json!(1), json!({}));
    assert_eq!((&report["ok"], code), (&json!(true), Some(0)), "{report}");
    assert_eq!(lines, [""; 0], "servers that are down by role are no news");
    let msg = "all servers: enough servers in traffic in 2 of 2 backends on 1 of 1 instance";
    assert_eq!((&report["msg"], &server(&report, "galera/s2")["ok"]), (&json!(msg), &json!(false)), "{report}");

    // Of 2 and of 3: one is enough for the one backend only.
    let (report, lines, code) = ask(json!("50%"), json!({}));
    assert_eq!(report["ok"], false, "{report}");
    assert_ne!(code, Some(0));
    assert_eq!(lines, ["galera/s1: RUNNING/READY", "galera/s2: STOPPED/READY", "galera/s3: STOPPED/READY"]);
    let msg = "all servers: too few servers in traffic in 1 of 2 backends, galera (1 of 2), on 1 of 1 instance";
    assert_eq!(report["msg"], msg);

    // Servers that are not asked for count all the same, and backends that are not matched do not.
    assert_eq!(ask(json!(1), json!({ "server": "galera/s2" })).0["ok"], true);
    assert_eq!(ask(json!("50%"), json!({ "backend": "redis" })).0["ok"], true);
    let (report, lines, _) = ask(json!(2), json!({ "server": "s2" }));
    assert_eq!(
        (&report["ok"], lines),
        (&json!(false), vec!["galera/s2: STOPPED/READY".to_owned(), "redis/s2: RUNNING/READY".to_owned()])
    );
    instance.set("set server galera/s1 weight 0");
    assert_eq!(ask(json!(1), json!({})).0["ok"], false, "weight 0 is no traffic");
    Ok(())
}

fn what_lowers_nothing_is_never_refused(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy, &backend("app", 3, ""));
    for server in ["app/s1", "app/s2"] {
        instance.set_state(server, "maint");
    }
    let at = json!(instance.address());
    for (names, state) in [
        (json!("s1"), "maint"),
        (json!(["s1", "s2"]), "maint"),
        (json!("s1"), "drain"),
        (json!("s3"), "ready"),
        (json!("s2"), "ready"),
    ] {
        let report = Program::request(&request(&names, state, &json!(3), &at)).report();
        assert_eq!(kind(&report), "", "{names} {state}: {report}");
    }
    Ok(())
}

fn all_refusals_are_reported_and_nothing_is_sent(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let recorders: Vec<Recorder> = stage.instances().into_iter().map(Recorder::on).collect();
    let instances: Value = recorders.iter().map(|one| json!(one.address())).collect();
    // Two of three backends on two instances would be too short of servers; the third could be changed.
    let names = json!(["web1", "web2", "i0_puppet_masters/puppet-i*", "ldap1"]);
    let report = Program::request(&request(&names, "maint", &json!(2), &instances)).report();
    assert_eq!(kind(&report), "guard_refused", "{report}");
    assert_eq!(report["changed"], false);
    for refused in ["web/web1", "web/web2", "i0_puppet_masters/puppet-i0-svc1", "i0_puppet_masters/puppet-i10-svc1"] {
        let entry = server(&report, refused);
        assert_eq!(kind(entry), "guard_refused", "{entry}");
        let backend = refused.split('/').next().unwrap();
        assert!(entry["error"]["msg"].as_str().unwrap().contains(&format!("the backend {backend} ")), "{entry}");
        assert_eq!(entry["before"], entry["after"]);
    }
    assert_eq!(server(&report, "directory/ldap1")["failed"], false);
    assert!(recorders.iter().all(|recorder| !recorder.lines().is_empty()), "all were looked at");
    let sent: Vec<String> = recorders.iter().flat_map(Recorder::changing_commands).collect();
    assert_eq!(sent, [""; 0]);
    Ok(())
}

fn servers_that_track_a_changed_one_count(haproxy: &Haproxy) -> TestResult {
    // The tracking servers follow theirs, in a backend that is not asked for.
    let proxies = "backend app\n    server s1 127.0.0.1:9 check inter 1h\n    server s2 127.0.0.1:9 check inter 1h\n    \
                   server s3 127.0.0.1:9\nbackend admin\n    server t1 127.0.0.1:9 track app/s1\n    \
                   server t2 127.0.0.1:9 track app/s2\n";
    let instance = start(haproxy, proxies);
    let recorder = Recorder::on(&instance);
    let at = json!(recorder.address());
    assert_eq!(kind(&Program::request(&request(&json!("s1"), "maint", &json!(1), &at)).report()), "");
    assert_eq!(instance.row("admin", "t1").admin, 2, "it is out as well");
    recorder.clear();
    let report = Program::request(&request(&json!("s2"), "maint", &json!(1), &at)).report();
    assert_eq!(kind(&report), "guard_refused", "{report}");
    assert_eq!(report["error"]["backend"], "admin", "{report}");
    assert!(report["error"]["msg"].as_str().unwrap().contains("has 1 usable server and would have 0"), "{report}");
    assert_eq!(recorder.changing_commands(), [""; 0]);
    Ok(())
}

fn servers_that_track_through_others_count(haproxy: &Haproxy) -> TestResult {
    // `m1` has no check of its own, but is tracked all the same; `s2` has an agent only.
    let proxies = "backend app\n    server s1 127.0.0.1:9 check inter 1h fall 9\n    \
                   server s2 127.0.0.1:9 agent-check agent-port 9 agent-inter 1h\n\
                   backend mid\n    server m1 127.0.0.1:9 track app/s1\n    server m2 127.0.0.1:9\n\
                   backend leaf\n    server l1 127.0.0.1:9 track mid/m1\nbackend agent\n    server a1 127.0.0.1:9 track app/s2\n";
    // More than are looked at one by one.
    for more in ["", &backend("more", 80, "")] {
        let instance = start(haproxy, &format!("{proxies}{more}"));
        // Nothing listens where it is checked.
        instance.set("disable health app/s1");
        instance.set("set server app/s1 health up");
        for (name, left_short) in [("mid/m1", "leaf"), ("m1", "leaf"), ("app/s2", "agent"), ("s2", "agent")] {
            for state in ["maint", "drain"] {
                let mut asked = request(&json!([name]), state, &json!(1), &json!(instance.address()));
                if name == "s2" {
                    asked["backend"] = json!("app");
                }
                let report = Program::request(&asked).report();
                assert_eq!(
                    (kind(&report), &report["error"]["backend"]),
                    ("guard_refused", &json!(left_short)),
                    "{report}"
                );
            }
        }
        let report =
            Program::request(&request(&json!("mid/m2"), "maint", &json!(1), &json!(instance.address()))).report();
        assert_eq!((kind(&report), &report["changed"]), ("", &json!(true)), "{report}");
    }
    Ok(())
}

fn where_nothing_tracks_not_everything_is_read(haproxy: &Haproxy) -> TestResult {
    let checked = |name: &str| backend(name, 3, "").replace(":9\n", ":9 check inter 1h fall 9\n");
    let without = (1..=9).map(|number| backend(&format!("b{number}"), 30, "")).collect::<String>();
    // Some server without a check may track one with a check.
    for (proxies, name, may_be_tracked) in [
        (without.clone(), "b5/s1", false),
        (without.clone(), "s1", false),
        (format!("{}{}", checked("b5"), checked("b6")), "b5/s1", true),
        (format!("{}{}{}", checked("b5"), checked("b6"), backend("c", 9, "")), "b5/s1", true),
        // Only what is not changed is checked.
        (format!("{without}{}", checked("c")), "b5/s1", false),
    ] {
        let instance = start(haproxy, &proxies);
        let recorder = Recorder::on(&instance);
        let report =
            Program::request(&request(&json!(name), "maint", &json!("60%"), &json!(recorder.address()))).report();
        assert_eq!((kind(&report), &report["changed"]), ("", &json!(true)), "{report}");
        let lines = recorder.lines();
        assert!(
            !lines.iter().any(|line| line.starts_with("show stat -1 4") || line.starts_with("show stat -1 6")),
            "{lines:?}"
        );
        let is_whole = lines.iter().any(|line| line == "show servers state");
        // Since 3.3 HAProxy tells of a server whether it is tracked.
        let expected = name == "s1" || may_be_tracked && !haproxy.at_least(3, 3);
        assert_eq!(is_whole, expected, "{name}: {lines:?}");
        recorder.clear();
        let report =
            Program::request(&request(&json!(name), "ready", &json!("100%"), &json!(recorder.address()))).report();
        assert_eq!(
            (kind(&report), &report["changed"]),
            ("", &json!(true)),
            "what is put back lowers nothing: {report}"
        );
    }
    Ok(())
}

fn many_backends_are_counted_as_few_are(haproxy: &Haproxy) -> TestResult {
    let many = |more: &str| (1..=70).map(|number| backend(&format!("b{number}"), 3, "")).collect::<String>() + more;
    let with_backups = backend("odd", 2, "    server k1 127.0.0.1:9 backup\n    server k2 127.0.0.1:9 backup\n");
    let instance = start(haproxy, &many(&with_backups));
    let recorder = Recorder::on(&instance);
    let attempt = |state: &str, least: Value| {
        recorder.clear();
        Program::request(&request(&json!("s1"), state, &least, &json!(recorder.address()))).report()
    };
    let report = attempt("maint", json!(3));
    assert_eq!(
        report["servers"].as_array().unwrap().iter().filter(|one| kind(one) == "guard_refused").count(),
        71,
        "{report}"
    );
    let report = attempt("maint", json!(2));
    let refused: Vec<&Value> =
        report["servers"].as_array().unwrap().iter().filter(|one| kind(one) == "guard_refused").collect();
    assert_eq!((refused.len(), &refused[0]["backend"]), (1, &json!("odd")), "two of its four are backup servers");
    assert!(!recorder.lines().iter().any(|line| line.starts_with("show stat -1 4")), "{:?}", recorder.lines());
    instance.set_state("b7/s2", "maint");
    let report = attempt("maint", json!("50%"));
    let refused: Vec<&Value> =
        report["servers"].as_array().unwrap().iter().filter(|one| kind(one) == "guard_refused").collect();
    assert_eq!((refused.len(), &refused[0]["backend"]), (1, &json!("b7")), "{report}");
    assert_eq!(kind(&attempt("maint", json!(1))), "");
    // Servers that are out could be backup servers or not: every one is looked at.
    assert_eq!(kind(&attempt("drain", json!(3))), "", "it lowers nothing");
    assert_eq!(instance.state("b1", "s1").0, 8);
    Ok(())
}

fn without_a_guard_an_empty_backend_is_a_warning(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy, &(backend("app", 2, "") + &backend("other", 2, "")));
    let at = json!(instance.address());
    let ask = |names: Value| {
        Program::request(&json!({ "server": names, "state": "maint", "instances": at, "dry_run": false })).report()
    };
    let report = ask(json!("app/s1"));
    assert_eq!(warnings(&report), "", "{report}");
    let report = ask(json!(["app/s2", "other/s1"]));
    assert_eq!(report["failed"], false);
    let said = warnings(&report);
    assert!(said.contains("the backend app has no usable server left") && said.contains("'guard'"), "{said}");
    assert!(!said.contains("other"), "{said}");
    assert_eq!(warnings(&ask(json!("app/s2"))), "", "nothing is lowered any more");
    // With a guard, those that are not asked for are left as well.
    instance.set_state("app/s1", "ready");
    instance.set_state("app/s2", "ready");
    let report = Program::request(&request(&json!("app/s1"), "maint", &json!(0), &at)).report();
    assert_eq!((kind(&report), warnings(&report).as_str()), ("", ""), "{report}");
    let report = Program::request(&request(&json!("app/s2"), "maint", &json!(0), &at)).report();
    assert!(warnings(&report).contains("the backend app has no usable server left"), "{report}");
    Ok(())
}

fn of_two_runs_at_once_one_is_refused(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy, &backend("app", 2, ""));
    let at = json!(instance.address());
    for round in 0..20 {
        let ask = |name: &str| {
            let mut asked = request(&json!(name), "maint", &json!(1), &at);
            if round % 2 == 1 {
                asked["drain"] = json!({ "timeout": 10 });
            }
            Program::request(&asked).spawn()
        };
        let (one, other) = (ask("s1"), ask("s2"));
        let (one, other) = (one.wait().report(), other.wait().report());
        let kinds = [kind(&one), kind(&other)];
        assert!(kinds == ["", "guard_refused"] || kinds == ["guard_refused", ""], "round {round}: {one} {other}");
        let out = ["s1", "s2"].map(|name| instance.row("app", name).admin);
        assert!(out == [1, 0] || out == [0, 1], "round {round}: {out:?}");
        instance.set_state("app/s1", "ready");
        instance.set_state("app/s2", "ready");
    }
    Ok(())
}

fn of_two_runs_on_many_instances_one_is_refused_on_all(haproxy: &Haproxy) -> TestResult {
    let instances = ["a", "b", "c"].map(|name| Instance::start(haproxy, name, &backend("app", 2, "")));
    let mut at = instances.each_ref().map(Instance::address);
    for round in 0..10 {
        // Each begins with another instance, so that each may have a lock that the other one wants.
        let one = Program::request(&request(&json!("s1"), "maint", &json!(1), &json!(at))).spawn();
        at.reverse();
        let other = Program::request(&request(&json!("s2"), "maint", &json!(1), &json!(at))).spawn();
        let (one, other) = (one.wait().report(), other.wait().report());
        let kinds = [kind(&one), kind(&other)];
        assert!(kinds == ["", "guard_refused"] || kinds == ["guard_refused", ""], "round {round}: {one} {other}");
        let out = instances.each_ref().map(|instance| ["s1", "s2"].map(|name| instance.row("app", name).admin));
        assert!(out == [[1, 0]; 3] || out == [[0, 1]; 3], "round {round}: {out:?}");
        for instance in &instances {
            instance.set_state("app/s1", "ready");
            instance.set_state("app/s2", "ready");
        }
    }
    Ok(())
}

/// A run that holds the lock, since what it sends is held up; and a request for another server at the same recorder.
fn holder(recorder: &Recorder) -> (crate::support::Running, Value) {
    recorder.hold_changes();
    let at = json!(recorder.address());
    let running =
        Program::request(&json!({ "server": "s1", "state": "maint", "timeout": 30, "instances": at })).spawn();
    recorder.await_held();
    (running, json!({ "server": "s2", "state": "maint", "instances": at }))
}

fn whoever_waits_for_the_lock_learns_for_whom(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy, &backend("app", 3, ""));
    let recorder = Recorder::on(&instance);
    let (running, mut second) = holder(&recorder);
    for timeout in [json!(0), json!(0.4)] {
        second["lock_timeout"] = timeout;
        // Another socket of the same process is the same HAProxy.
        for at in [recorder.address(), instance.address()] {
            second["instances"] = json!(at);
            let run = Program::request(&second).run();
            let report = run.report();
            assert_eq!((kind(&report), &report["changed"]), ("locked", &json!(false)), "{report}");
            assert_eq!((run.code, &report["error"]["retryable"]), (Some(1), &json!(true)));
            let msg = report["error"]["msg"].as_str().unwrap();
            let who = format!("process {} (s1 to maint)", running.pid());
            assert!(msg.contains(&who) && msg.contains("lock_timeout"), "{msg}");
            assert!(run.elapsed < Duration::from_secs(5), "{:?}", run.elapsed);
        }
    }
    // With time enough it comes after the other one.
    second["lock_timeout"] = json!(30);
    let waiting = Program::request(&second).spawn();
    thread::sleep(Duration::from_millis(200));
    recorder.let_go();
    assert_eq!(running.wait().report()["changed"], true);
    assert_eq!(waiting.wait().report()["changed"], true);
    assert_eq!(instance.rows().values().filter(|row| row.admin == 1).count(), 2);
    Ok(())
}

fn a_killed_run_leaves_no_lock(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy, &backend("app", 3, ""));
    let recorder = Recorder::on(&instance);
    let (running, mut second) = holder(&recorder);
    second["lock_timeout"] = json!(30);
    let waiting = Program::request(&second).spawn();
    thread::sleep(Duration::from_millis(200));
    running.signal(Signal::SIGKILL);
    recorder.let_go();
    let run = waiting.wait();
    assert_eq!(run.report()["changed"], true);
    assert!(run.elapsed < Duration::from_secs(20), "{:?}", run.elapsed);
    assert_eq!(running.wait().code, None);
    Ok(())
}

fn the_lock_is_let_go_while_sessions_are_waited_for(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let at = json!(stage.http.address());
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let mut asked = request(&json!("web1"), "maint", &json!(1), &at);
    asked["drain"] = json!({ "timeout": 30 });
    let mut running = Program::request(&asked).spawn();
    stage.http.await_state("web", "web1", (8, 2));
    // Others get through, and what they see of the guard is as it is: web1 takes no new traffic.
    let mut second = request(&json!("web2"), "maint", &json!(1), &at);
    second["lock_timeout"] = json!(2);
    let run: Run = Program::request(&second).run();
    assert_eq!((kind(&run.report()), run.code), ("", Some(0)), "{}", run.stdout);
    let mut third = request(&json!("web3"), "maint", &json!(1), &at);
    third["lock_timeout"] = json!(2);
    assert_eq!(kind(&Program::request(&third).report()), "guard_refused");
    assert!(!running.ended());
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    let report = running.wait().report();
    assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
    assert_eq!((stage.http.state("web", "web1"), stage.http.state("web", "web2")), ((1, 0), (1, 0)));

    // The same after the change.
    stage.http.set_state("web/web1", "ready");
    stage.server("web1").hold();
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let asked = json!({ "server": "web1", "state": "maint", "wait": { "timeout": 30 }, "instances": at });
    let running = Program::request(&asked).spawn();
    stage.http.await_state("web", "web1", (1, 0));
    let other = json!({ "server": "web2", "state": "ready", "lock_timeout": 2, "instances": at });
    assert_eq!(Program::request(&other).report()["changed"], true);
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    assert_eq!(running.wait().report()["failed"], false);
    Ok(())
}

fn a_process_that_takes_over_is_judged_anew(haproxy: &Haproxy) -> TestResult {
    // `s1` and so on in one backend, and `s1` in another, which tracks that of the first.
    let proxies = |front: &Port, web: &HttpBackend, count: u32| {
        let bind = front.number();
        let others: String = (2..=count).map(|number| format!("    server s{number} 127.0.0.1:9\n")).collect();
        format!(
            "listen web\n    bind 127.0.0.1:{bind}\n    cookie SRV insert indirect nocache\n    \
             server s1 {} cookie s1 check inter 60s\n{others}backend api\n    server api1 127.0.0.1:9 track web/s1\n{}",
            web.address(),
            others.replace("server s", "server api")
        )
    };
    for (servers, is_refused) in [(3, false), (2, true)] {
        let (web, front) = (HttpBackend::start("s1"), Port::reserve());
        let mut instance = Setup::new("anew", &proxies(&front, &web, 3)).mode(Mode::MasterWorker).start(haproxy);
        let held = Bound::hold(front.address(), &web);
        let mut asked = request(&json!("web/s1"), "maint", &json!(2), &json!(instance.address()));
        asked["drain"] = json!({ "timeout": 30 });
        let running = Program::request(&asked).spawn();
        instance.await_state("web", "s1", (8, 2));
        instance.set_proxies(&proxies(&front, &web, servers));
        instance.reload();
        let run = running.wait();
        let report = run.report();
        let after = server(&report, "web/s1");
        assert!(warnings(&report).contains("was reloaded during the run"), "{report}");
        if is_refused {
            assert_eq!((kind(&report), run.code), ("guard_refused", Some(1)), "{report}");
            assert_eq!((kind(after), &after["changed"]), ("guard_refused", &json!(false)), "{report}");
            let why = report["msg"].as_str().unwrap_or_default();
            assert!(why.contains("the backend web has 2 usable servers and would have 1, fewer than"), "{report}");
            assert_eq!(instance.state("web", "s1"), (0, 2), "nothing was sent to the new process");
        } else {
            assert_eq!(
                (&report["failed"], &after["after"]["admin_state"]),
                (&json!(false), &json!("maint")),
                "{report}"
            );
            assert_eq!(instance.state("web", "s1"), (1, 0));
        }
        web.release();
        assert_eq!(held.served_by(), "s1");
    }
    Ok(())
}

fn a_status_and_a_dry_run_take_no_lock(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy, &backend("app", 3, ""));
    let recorder = Recorder::on(&instance);
    let (running, mut second) = holder(&recorder);
    let at = json!(instance.address());
    second["instances"] = at.clone();
    second["lock_timeout"] = json!(0);
    second["dry_run"] = json!(true);
    let report = Program::request(&second).report();
    assert_eq!((kind(&report), &report["changed"]), ("", &json!(true)), "{report}");
    let report = Program::request(&json!({ "instances": at })).report();
    assert_eq!((kind(&report), &report["ok"]), ("", &json!(true)), "{report}");
    recorder.let_go();
    assert_eq!(running.wait().report()["failed"], false);
    Ok(())
}

/// A user without any rights of its own.
const NOBODY: u32 = 65_534;

fn an_ordinary_user_goes_on_without_a_lock_but_not_with_a_guard(haproxy: &Haproxy) -> TestResult {
    if !geteuid().is_root() {
        eprintln!("not run: only root can run the program as somebody else");
        return Ok(());
    }
    let port = Port::reserve();
    let address = format!("ipv4@127.0.0.1:{}", port.number());
    let instance =
        Setup::new("guarded", &backend("app", 3, "")).stats_socket(&format!("{address} level admin")).start(haproxy);
    let folder = Folder::new();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let binary = folder.join("haproxy_server");
    copy_program(&binary);
    let runtime = folder.join("runtime");
    fs::create_dir(&runtime)?;
    chown(&runtime, Some(NOBODY), Some(NOBODY))?;
    let as_nobody = |asked: &Value, runtime: &str| {
        let who = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        Program::request(asked)
            .binary(&binary)
            .env("XDG_RUNTIME_DIR", runtime)
            .under(["setpriv"].iter().chain(&who))
            .run()
            .report()
    };
    let plain = json!({ "server": "s1", "state": "maint", "instances": address });
    let guarded = request(&json!("s2"), "maint", &json!(1), &json!(address));

    let report = as_nobody(&plain, "");
    assert_eq!((kind(&report), &report["changed"]), ("", &json!(true)), "{report}");
    assert!(warnings(&report).contains("other runs are not kept out"), "{report}");
    let report = as_nobody(&guarded, "");
    assert_eq!((kind(&report), &report["changed"]), ("guard_refused", &json!(false)), "{report}");
    assert!(report["error"]["msg"].as_str().unwrap().contains("lock"), "{report}");
    assert_eq!(instance.state("app", "s2"), (0, 2));
    let mut status = as_nobody(&json!({ "instances": address }), "");
    assert_eq!((kind(&status), warnings(&status).as_str()), ("", ""), "{status}");

    // With a folder of its own, there is a lock among this user's runs.
    let report = as_nobody(&guarded, runtime.to_str().unwrap());
    assert_eq!((kind(&report), warnings(&report).as_str()), ("", ""), "{report}");
    // A folder that others can write is no place for a lock.
    fs::set_permissions(runtime.join("haproxy_server"), fs::Permissions::from_mode(0o777))?;
    let again = request(&json!("s3"), "drain", &json!(0), &json!(address));
    status = as_nobody(&again, runtime.to_str().unwrap());
    assert_eq!(kind(&status), "guard_refused", "{status}");
    assert!(status["error"]["msg"].as_str().unwrap().contains("is writable by others"), "{status}");
    Ok(())
}
