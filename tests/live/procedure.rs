//! The whole procedure, as an operator goes through it: status, dry run, out, status, out again, back, status.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::report::{commands, kind, server, servers, warnings};
use crate::support::stage::{PUPPET_BACKENDS, PUPPET_SERVERS};
use crate::support::{
    Folder, Haproxy, HttpBackend, Instance, Program, Recorder, Setup, Stage, Test, TestResult, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_server_is_taken_out_and_put_back,
        a_dry_run_shows_the_commands_of_the_real_run,
        traffic_stops_at_the_server_and_comes_back,
        every_way_to_ask_is_the_same,
        exit_codes_are_those_of_the_contract,
        a_wrong_option_leaves_the_others_in_force,
        the_text_form_is_the_same_on_two_hosts,
        the_text_form_has_a_group_for_each_instance,
        the_text_form_shows_a_dry_run_and_a_diff,
        a_status_shows_what_the_statistics_show,
        a_difference_is_a_line_a_server,
        patterns_reach_what_they_match,
    ]
}

const NAME: &str = "puppet-i0-svc1";

/// What `--format text` begins with.
const FORMAT: &str = "# Format\n# backend_name/server_name: operational_state/administrative_state\n";

/// The six lines of the contract.
const SIX_LINES: &str = "\
all_puppet_masters/puppet-i0-svc1: STOPPED/MAINT
i0_puppet_masters/puppet-i0-svc1: STOPPED/MAINT
i10_puppet_masters/puppet-i0-svc1: STOPPED/MAINT
i20_puppet_masters/puppet-i0-svc1: STOPPED/MAINT
i24_puppet_masters/puppet-i0-svc1: STOPPED/MAINT
i28_puppet_masters/puppet-i0-svc1: STOPPED/MAINT
";

/// Recorders at all three instances, and the instances of a request that goes through them.
fn tapped(stage: &Stage) -> (Vec<Recorder>, Value) {
    let recorders: Vec<Recorder> = stage.instances().into_iter().map(Recorder::on).collect();
    let instances =
        stage.instances().into_iter().zip(&recorders).map(|(instance, recorder)| entry(instance.name(), recorder));
    let instances = instances.collect();
    (recorders, instances)
}

fn entry(name: &str, recorder: &Recorder) -> Value {
    json!({ "name": name, "socket": recorder.address() })
}

/// The instances of a request, by their own sockets.
fn direct(stage: &Stage) -> Value {
    stage.instances().iter().map(|one| json!({ "name": one.name(), "socket": one.address() })).collect()
}

fn sent(recorders: &[Recorder]) -> Vec<String> {
    recorders.iter().flat_map(Recorder::changing_commands).collect()
}

fn expected_commands(state: &str) -> Vec<String> {
    PUPPET_BACKENDS.iter().map(|backend| format!("set server {backend}/{NAME} state {state}")).collect()
}

fn a_server_is_taken_out_and_put_back(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let (recorders, instances) = tapped(&stage);
    let clear = || recorders.iter().for_each(Recorder::clear);
    let status = || Program::request(&json!({ "instances": instances })).run();
    let text = || Program::request(&json!({ "instances": instances })).arg("--format").arg("text").run();
    let set = |state: &str| Program::request(&json!({ "server": NAME, "state": state, "instances": instances })).run();

    let report = status().report();
    assert_eq!((&report["ok"], &report["failed"], &report["changed"]), (&json!(true), &json!(false), &json!(false)));
    assert_eq!(servers(&report).len(), 3 + 3 + 6 * 3, "{report}");
    assert!(report["servers"].as_array().unwrap().iter().all(|one| one["ok"] == true && one["before"] == one["after"]));
    assert_eq!(text().stdout, FORMAT);
    assert_eq!(sent(&recorders), [""; 0]);

    let report = set("maint").report();
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
    assert_eq!(report["msg"], "puppet-i0-svc1: maint in 6 of 6 backends on 1 of 3 instances");
    assert_eq!(report["comment"], report["msg"]);
    assert_eq!(report["state"], "maint");
    assert!(report.get("ok").is_none() && report.get("results").is_none() && report.get("rc").is_none());
    assert_eq!(servers(&report), PUPPET_BACKENDS.map(|backend| format!("{backend}/{NAME}")));
    for entry in report["servers"].as_array().unwrap() {
        assert_eq!((&entry["instance"], &entry["changed"]), (&json!("puppet"), &json!(true)));
        assert_eq!(entry["address"], stage.server(NAME).address().to_string());
        let before = json!({ "admin_state": "ready", "operational_state": "running", "weight": 1, "configured_weight": 1, "reasons": [], "admin_flags": 0 });
        let after = json!({ "admin_state": "maint", "operational_state": "stopped", "weight": 1, "configured_weight": 1, "reasons": ["forced"], "admin_flags": 1 });
        assert_eq!((&entry["before"], &entry["after"]), (&before, &after));
    }
    let matched: Vec<&Value> = report["instances"].as_array().unwrap().iter().map(|one| &one["matched"]).collect();
    assert_eq!(matched, [0, 0, 6]);
    for (entry, instance) in report["instances"].as_array().unwrap().iter().zip(stage.instances()) {
        assert_eq!((&entry["name"], &entry["pid"]), (&json!(instance.name()), &json!(instance.pid())));
        assert_eq!(entry["version"], haproxy.full_version);
        assert_eq!(entry["changed"], instance.name() == "puppet");
    }
    assert_eq!(sent(&recorders), expected_commands("maint"));
    for backend in PUPPET_BACKENDS {
        assert_eq!(stage.puppet.state(backend, NAME), (1, 0));
        assert_eq!(stage.puppet.state(backend, "puppet-i0-svc2"), (0, 2), "its neighbours stay");
    }

    let report = status().report();
    assert_eq!((&report["ok"], &report["failed"], &report["changed"]), (&json!(false), &json!(false), &json!(false)));
    assert_eq!(text().stdout, format!("{FORMAT}# instance puppet\n{SIX_LINES}"));
    let puppet = json!({ "instances": [entry("puppet", &recorders[2])] });
    let alone = Program::request(&puppet).arg("--format=text").arg("--detailed-exitcodes").run();
    assert_eq!(
        (alone.stdout.as_str(), alone.stderr.as_str(), alone.code),
        (format!("{FORMAT}{SIX_LINES}").as_str(), "", Some(2))
    );

    clear();
    let report = set("maint").report();
    assert_eq!((&report["changed"], &report["failed"]), (&json!(false), &json!(false)), "{report}");
    assert_eq!(sent(&recorders), [""; 0], "a second run sends nothing");
    assert!(recorders.iter().all(|recorder| !recorder.lines().is_empty()), "but it has looked");
    assert_eq!(commands(&report), [""; 0]);

    let report = set("ready").report();
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
    assert_eq!(sent(&recorders), expected_commands("ready"));
    clear();
    let report = set("ready").report();
    assert_eq!(report["changed"], false);
    assert_eq!(sent(&recorders), [""; 0]);
    let report = status().report();
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(text().stdout, FORMAT);
    Ok(())
}

fn a_dry_run_shows_the_commands_of_the_real_run(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let (recorders, instances) = tapped(&stage);
    stage.puppet.set_state("i20_puppet_masters/puppet-i0-svc1", "drain");
    stage.puppet.set_state("i28_puppet_masters/puppet-i10-svc1", "maint");
    stage.http.set_state("web/web1", "maint");
    let requests = [
        json!({ "server": ["puppet-i*", "web?"], "state": "maint", "instances": instances }),
        json!({ "server": ["*"], "state": "drain", "instances": instances }),
        json!({ "server": ["*"], "state": "ready", "weight": "0%", "instances": instances }),
        json!({ "server": ["*"], "weight": 7, "instances": instances }),
        json!({ "server": ["web/web2", "directory/*"], "state": "disabled", "weight": 0, "instances": instances }),
    ];
    for mut request in requests {
        recorders.iter().for_each(Recorder::clear);
        request["dry_run"] = json!(true);
        let foreseen = Program::request(&request).report();
        assert_eq!((&foreseen["dry_run"], &foreseen["failed"]), (&json!(true), &json!(false)), "{foreseen}");
        assert_eq!(sent(&recorders), [""; 0], "a dry run sends nothing");
        // The same by the option, by Ansible's key and by Puppet's and Bolt's.
        request["dry_run"] = json!(false);
        for dry in [
            Program::request(&request).arg("--dry-run"),
            Program::request(&with(&request, "_ansible_check_mode")),
            Program::request(&with(&request, "_noop")),
        ] {
            assert_eq!(dry.report(), foreseen);
        }
        let done = Program::request(&request).report();
        assert_eq!((&done["dry_run"], &done["failed"]), (&json!(false), &json!(false)), "{done}");
        assert_eq!(commands(&foreseen), commands(&done));
        assert_eq!(sent(&recorders), commands(&done));
        assert_eq!(foreseen["changed"], done["changed"]);
        for (foreseen, done) in foreseen["servers"].as_array().unwrap().iter().zip(done["servers"].as_array().unwrap())
        {
            assert_eq!(foreseen, done, "what was foreseen has come");
        }
    }
    Ok(())
}

fn with(request: &Value, key: &str) -> Value {
    let mut request = request.clone();
    request[key] = json!(true);
    request
}

fn traffic_stops_at_the_server_and_comes_back(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let instances = direct(&stage);
    let set = |state: &str| {
        let request = json!({ "server": NAME, "state": state, "instances": instances });
        assert_eq!(Program::request(&request).report()["failed"], false);
    };
    let all = BTreeSet::from(PUPPET_SERVERS.map(str::to_owned));
    let others: BTreeSet<String> = all.iter().filter(|name| *name != NAME).cloned().collect();
    set("maint");
    for backend in PUPPET_BACKENDS {
        assert_eq!(stage.who_answers(backend), others, "{backend}");
        assert_ne!(stage.get_from(backend, NAME).body, NAME, "bound clients go elsewhere in maint");
    }
    set("drain");
    for backend in PUPPET_BACKENDS {
        assert_eq!(stage.who_answers(backend), others, "{backend}");
        assert_eq!(stage.get_from(backend, NAME).body, NAME, "bound clients come in drain");
    }
    set("ready");
    for backend in PUPPET_BACKENDS {
        assert_eq!(stage.who_answers(backend), all, "{backend}");
    }
    Ok(())
}

fn every_way_to_ask_is_the_same(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let request = json!({ "server": NAME, "instances": stage.puppet.address() });
    let mut file = request.clone();
    file["_ansible_no_log"] = json!(false);
    let words = || Program::words([format!("server={NAME}"), format!("instances={}", stage.puppet.address())]);
    let first = Program::request(&request).run();
    let others = [
        Program::file(&stage.folder.join("request"), &file).run(),
        words().run(),
        words().arg("--format").arg("json").keep_stdin_open().run(),
        Program::file(&stage.folder.join("request"), &file).keep_stdin_open().run(),
    ];
    assert_eq!(first.report()["servers"].as_array().map(Vec::len), Some(6));
    for other in others {
        assert_eq!((other.stdout, other.code), (first.stdout.clone(), Some(0)));
        assert_eq!(other.stderr, "");
    }
    Ok(())
}

fn a_wrong_option_leaves_the_others_in_force(_: &Haproxy) -> TestResult {
    let run = Program::words(["--bogus", "--detailed-exitcodes"]).run();
    assert_eq!(run.code, Some(4), "{}", run.stdout);
    assert_eq!(run.report()["error"]["kind"], "bad_request");
    let run = Program::words(["--format", "no", "--format", "text"]).run();
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{}", run.stderr);
    assert!(run.stderr.contains("'--format' takes 'json', 'text', 'table' or 'nagios', not 'no'"), "{}", run.stderr);
    // What is refused before it is read is a dry run all the same.
    for words in
        [&["--frmat", "--dry-run"][..], &["-n", "/nowhere"], &["-n", "servers=a"], &["servers=a", "dry_run=yes"]]
    {
        let run = Program::words(words.iter().copied()).run();
        assert_eq!((run.code, &run.report()["dry_run"]), (Some(1), &true.into()), "{words:?}: {}", run.stdout);
    }
    Ok(())
}

fn exit_codes_are_those_of_the_contract(haproxy: &Haproxy) -> TestResult {
    let behind = HttpBackend::start("web1");
    let proxies = format!(
        "backend app\n    server web1 {} check inter 1h\n    server web2 127.0.0.1:9\n\
         backend other\n    server copy 127.0.0.1:9 track app/web1\n",
        behind.address()
    );
    let instance = Instance::start(haproxy, "codes", &proxies);
    let reset = || {
        for server in ["app/web1", "app/web2", "other/copy"] {
            instance.set_state(server, "ready");
        }
    };
    let out = || instance.set_state("app/web1", "maint");
    let socket = instance.address();
    let web1 = json!({ "server": "app/web1", "state": "maint", "instances": socket });
    let mut dry = web1.clone();
    dry["dry_run"] = json!(true);
    let nothing: &dyn Fn() = &|| ();
    // What comes before, the request, both codes, changed, failed.
    type Row<'a> = (&'a dyn Fn(), Value, (i32, i32), bool, bool);
    let table: [Row<'_>; 9] = [
        (&reset, json!({ "instances": socket }), (0, 0), false, false),
        (&out, json!({ "instances": socket }), (0, 2), false, false),
        (&reset, web1.clone(), (0, 2), true, false),
        (&out, web1, (0, 0), false, false),
        (&reset, dry.clone(), (0, 2), true, false),
        (&out, dry, (0, 0), false, false),
        (nothing, json!({ "server": "web9", "state": "maint", "instances": socket }), (1, 4), false, true),
        (nothing, json!({ "servers": "web1" }), (1, 4), false, true),
        // One is set, the other cannot be.
        (
            &|| {
                reset();
                out();
            },
            json!({ "server": ["web2", "copy"], "state": "drain", "instances": socket }),
            (1, 6),
            true,
            true,
        ),
    ];
    for (before, request, codes, changed, failed) in table {
        before();
        let plain = Program::input(request.to_string()).run();
        before();
        let detailed = Program::input(request.to_string()).arg("--detailed-exitcodes").run();
        let report = plain.report();
        assert_eq!((plain.code, detailed.code), (Some(codes.0), Some(codes.1)), "{request}: {report}");
        for report in [report, detailed.report()] {
            assert_eq!(
                (&report["changed"], &report["failed"]),
                (&json!(changed), &json!(failed)),
                "{request}: {report}"
            );
        }
    }
    Ok(())
}

fn the_text_form_is_the_same_on_two_hosts(haproxy: &Haproxy) -> TestResult {
    let (one, other) = (Stage::start(haproxy), Stage::start(haproxy));
    let text = |stage: &Stage, request: &Value| {
        let mut request = request.clone();
        request["instances"] = direct(stage);
        let run = Program::request(&request).arg("--format").arg("text").run();
        (run.stdout, run.stderr, run.code)
    };
    for request in [
        json!({}),
        json!({ "server": NAME, "state": "maint" }),
        json!({}),
        json!({ "server": "*" }),
        json!({ "server": "*", "state": "drain", "weight": 3 }),
        json!({ "server": "nobody" }),
        json!({ "server": NAME, "state": "ready" }),
    ] {
        assert_eq!(text(&one, &request), text(&other, &request), "{request}");
    }
    Ok(())
}

fn the_text_form_has_a_group_for_each_instance(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let text = |request: &Value| {
        let mut request = request.clone();
        request["instances"] = direct(&stage);
        Program::request(&request).arg("--format").arg("text").run()
    };
    let run = text(&json!({ "server": ["web1", "ldap2"], "state": "drain" }));
    let lines = "# instance http\nweb/web1: RUNNING/DRAIN\n# instance ldap\ndirectory/ldap2: RUNNING/DRAIN\n";
    assert_eq!(run.stdout, format!("{FORMAT}{lines}"));
    assert_eq!((run.stderr.as_str(), run.code), ("", Some(0)));
    let run = text(&json!({ "server": ["web1", "web2"] }));
    assert_eq!(run.stdout, format!("{FORMAT}# instance http\nweb/web1: RUNNING/DRAIN\nweb/web2: RUNNING/READY\n"));
    let run = text(&json!({ "server": "web9", "state": "maint" }));
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.starts_with("error: ") && run.stderr.contains("'web9'"), "{:?}", run.stderr);
    assert_eq!(run.stderr.lines().count(), 1, "an error is one sentence");
    let bad = Program::input("nonsense").arg("--format=text").run();
    assert_eq!((bad.code, bad.stdout.as_str()), (Some(1), ""));
    assert_eq!(bad.stderr.lines().count(), 1, "{:?}", bad.stderr);
    let run = text(&json!({ "server": "web1", "weight": 0, "state": "ready" }));
    assert_eq!((run.stderr.as_str(), run.code), ("", Some(0)), "a requested weight of 0 is no surprise");
    let run = text(&json!({ "server": "web1", "state": "ready" }));
    assert!(run.stderr.starts_with("warning: ") && run.stderr.contains("weight is 0"), "{:?}", run.stderr);
    Ok(())
}

fn the_text_form_shows_a_dry_run_and_a_diff(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let text = |request: &Value| {
        let mut request = request.clone();
        request["instances"] = json!(stage.http.address());
        let run = Program::request(&request).arg("--format=text").run();
        assert_eq!((run.stderr.as_str(), run.code), ("", Some(0)), "{request}");
        run.stdout.strip_prefix(FORMAT).expect("the usual head").to_owned()
    };
    let mut request = json!({ "server": "web[12]", "state": "maint", "dry_run": true });
    let would = "# dry run: web[12]: would be maint for 2 of 2 servers on 1 of 1 instance\n";
    assert_eq!(text(&request), format!("{would}web/web1: STOPPED/MAINT\nweb/web2: STOPPED/MAINT\n"));
    assert_eq!(stage.http.state("web", "web1"), (0, 2));

    // What changes, with its sign; what is as wanted, as ever.
    stage.http.set_state("web/web2", "maint");
    request["diff"] = json!(true);
    let diff = "-web/web1: RUNNING/READY\n+web/web1: STOPPED/MAINT\nweb/web2: STOPPED/MAINT\n";
    assert!(text(&request).ends_with(&format!("\n{diff}")), "{}", text(&request));
    request["dry_run"] = json!(false);
    assert_eq!(text(&request), diff, "a diff shows what was done as well");
    assert_eq!(text(&request), "web/web1: STOPPED/MAINT\nweb/web2: STOPPED/MAINT\n");
    let weight = json!({ "server": "web3", "weight": 7, "diff": true });
    assert_eq!(text(&weight), "-web/web3: RUNNING/READY weight 1\n+web/web3: RUNNING/READY weight 7\n");
    assert_eq!(text(&json!({ "server": "web3", "dry_run": true })), "web/web3: RUNNING/READY\n", "no change, no plan");
    Ok(())
}

fn a_status_shows_what_the_statistics_show(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start_with(haproxy, "check inter 100ms rise 1 fall 1", |setup| setup);
    stage.http.await_state("web", "web1", (0, 2));
    crate::support::eventually(crate::support::PATIENCE, "a health check", || {
        (stage.http.stat("web", "web1", "check_status") == "L7OK").then_some(())
    });
    let frontend = stage.frontend("web");
    let client = std::thread::spawn(move || {
        crate::support::get_with(frontend, "/hold", &[("Cookie", "SRV=web1")]).expect("an answer").body
    });
    stage.server("web1").await_held(1);
    let report = Program::request(&json!({ "server": "web1", "instances": direct(&stage) })).report();
    let entry = server(&report, "web/web1");
    assert_eq!(
        (&entry["sessions"], &entry["queue"], &entry["check"]),
        (&json!(1), &json!(0), &json!("L7OK")),
        "{entry}"
    );
    stage.server("web1").release();
    assert_eq!(client.join().expect("the client"), "web1");
    let report = Program::request(&json!({ "server": "web1", "state": "ready", "instances": direct(&stage) })).report();
    let entry = server(&report, "web/web1");
    assert!(entry.get("sessions").is_none() && entry.get("ok").is_none(), "a change shows no statistics: {entry}");
    assert_eq!(warnings(&report), "");
    Ok(())
}

fn a_difference_is_a_line_a_server(haproxy: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let proxies = "backend b\n    server s2 127.0.0.1:9 weight 5\n    server s1 127.0.0.1:9\n";
    let instance = Setup::new("diff", proxies).folder(&folder).start(haproxy);
    let request = json!({
        "server": "*", "state": "maint", "instances": [{ "name": "x", "socket": instance.address() }], "diff": true
    });
    let report = Program::request(&request).report();
    assert_eq!(report["diff"]["before"], "x b/s1 ready weight 1\nx b/s2 ready weight 5\n");
    assert_eq!(report["diff"]["after"], "x b/s1 maint weight 1\nx b/s2 maint weight 5\n");
    assert_eq!(servers(&report), ["b/s2", "b/s1"], "HAProxy's order");
    let mut request = with(&request, "_ansible_diff");
    request["diff"] = json!(false);
    let again = Program::request(&request).report();
    assert_eq!(again["diff"]["before"], again["diff"]["after"]);
    request.as_object_mut().unwrap().remove("_ansible_diff");
    assert!(Program::request(&request).report().get("diff").is_none());
    Ok(())
}

fn patterns_reach_what_they_match(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let (recorders, instances) = tapped(&stage);
    let matched = |server: Value, backend: Value| {
        let request =
            json!({ "server": server, "backend": backend, "state": "maint", "instances": instances, "dry_run": true });
        let report = Program::request(&request).report();
        if report["failed"] == true {
            return vec![kind(&report).to_owned()];
        }
        servers(&report)
    };
    let table = [
        (json!("web[12]"), json!(null), vec!["web/web1", "web/web2"]),
        (json!("web[!12]"), json!(null), vec!["web/web3"]),
        (json!("*/web1"), json!(null), vec!["web/web1"]),
        (json!("i?_*/puppet-i0-svc1"), json!(null), vec!["i0_puppet_masters/puppet-i0-svc1"]),
        (
            json!("*-svc2"),
            json!("i2*"),
            vec![
                "i20_puppet_masters/puppet-i0-svc2",
                "i24_puppet_masters/puppet-i0-svc2",
                "i28_puppet_masters/puppet-i0-svc2",
            ],
        ),
        (json!(["web1", "*/web1", "web/web1"]), json!(["web", "w*"]), vec!["web/web1"]),
        (json!("WEB1"), json!(null), vec!["server_not_found"]),
        (json!("web"), json!(null), vec!["server_not_found"]),
        (json!("web1"), json!("Web"), vec!["backend_not_found"]),
        (json!("web1"), json!("directory"), vec!["server_not_found"]),
    ];
    for (server, backend, expected) in table {
        assert_eq!(matched(server.clone(), backend), expected, "{server}");
    }
    assert_eq!(sent(&recorders), [""; 0]);
    Ok(())
}
