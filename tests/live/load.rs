//! Under load: servers go out and come back a hundred times, and no client notices.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::report::server;
use crate::support::{
    Haproxy, Health, HttpBackend, Instance, Load, PATIENCE, Port, Program, Setup, Stage, Test, TestResult, eventually,
    tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_hundred_cycles_lose_not_one_request,
        an_application_that_starts_late_costs_no_request,
        a_server_of_two_instances_comes_back_on_both,
        one_role_of_several_is_enough,
    ]
}

/// How often the server goes out and comes back.
const CYCLES: usize = 100;

fn a_hundred_cycles_lose_not_one_request(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start_with(haproxy, "check inter 20ms rise 1 fall 3", |setup| setup);
    let at = json!(stage.http.address());
    eventually(PATIENCE, "first checks", || (stage.server("web1").checks() > 3).then_some(()));
    let mut load = Load::start(stage.frontend("web"), 8, Duration::from_millis(4));
    eventually(PATIENCE, "a load", || (load.served() > 50).then_some(()));
    let (mut taken_out, before) = (0, stage.server("web1").requests());
    for cycle in 0..CYCLES {
        let out = json!({ "server": "web1", "state": "maint", "drain": { "timeout": 20 },
            "guard": { "min_available": 2 }, "instances": at });
        let report = Program::request(&out).report();
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "cycle {cycle}: {report}");
        let (state, served) = (stage.http.state("web", "web1"), stage.server("web1").requests());
        assert_eq!(state, (1, 0), "cycle {cycle}");
        taken_out += usize::from(stage.server("web1").requests() == served);
        let back = json!({ "server": "web1", "state": "ready", "wait": { "timeout": 20 }, "instances": at });
        let report = Program::request(&back).report();
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "cycle {cycle}: {report}");
        let lost = load.lost();
        assert!(lost.is_empty(), "cycle {cycle}: {} requests were lost: {lost:?}", lost.len());
    }
    load.stop();
    let (served, lost) = (load.served(), load.lost());
    assert!(lost.is_empty(), "{} requests were lost: {lost:?}", lost.len());
    // The load was one, on all servers, and the server took its share in between.
    assert!(served > 20 * CYCLES, "{served} requests");
    assert!(stage.server("web1").requests() > before, "the server was back in between");
    assert!(stage.server("web2").requests() > CYCLES && stage.server("web3").requests() > CYCLES);
    assert_eq!(taken_out, CYCLES, "nothing came while it was out");
    Ok(())
}

/// How often a server goes out, its application stops, starts late, and comes back; `HAPROXY_SERVER_CYCLES` says
/// otherwise.
fn late_cycles() -> usize {
    std::env::var("HAPROXY_SERVER_CYCLES").ok().and_then(|cycles| cycles.parse().ok()).unwrap_or(3)
}

/// The server `s1` of `app`, with these options, beside another one that is always there.
struct Late {
    // The instance goes before what is behind it.
    instance: Instance,
    servers: [HttpBackend; 2],
    front: Port,
}

impl Late {
    fn start(haproxy: &Haproxy, lines: &str, options: &str) -> Self {
        let (servers, front) = (["s1", "s2"].map(HttpBackend::start), Port::reserve());
        let [s1, s2] = servers.each_ref().map(HttpBackend::address);
        let proxies = format!(
            "listen app\n    bind 127.0.0.1:{}\n    balance roundrobin\n{lines}    server s1 {s1} {options}\n    \
             server s2 {s2}\n",
            front.number()
        );
        Self { instance: Setup::new("late", &proxies).start(haproxy), servers, front }
    }

    /// Takes `s1` out, stops its application, puts it back, and starts the application so much later.
    fn cycle(&self, late: Duration) {
        let [application, _] = &self.servers;
        let at = self.instance.address();
        let out = json!({ "server": "app/s1", "state": "maint", "drain": { "timeout": 20 }, "instances": at });
        let report = Program::request(&out).report();
        assert_eq!(report["failed"], json!(false), "{report}");
        application.set_health(Health::Refuse);
        application.cut();
        let back = json!({ "server": "app/s1", "state": "ready", "wait": { "timeout": 30 }, "instances": at });
        let mut foreseen = back.clone();
        foreseen["dry_run"] = json!(true);
        let foreseen = Program::request(&foreseen).report();
        let running = Program::request(&back).spawn();
        thread::sleep(late);
        application.set_health(Health::Good);
        let report = running.wait().report();
        let commands = |report: &serde_json::Value| server(report, "app/s1")["commands"].clone();
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
        assert_eq!(commands(&report), commands(&foreseen), "a dry run shows both steps");
        assert_eq!(self.instance.row("app", "s1").admin, 0);
    }
}

fn an_application_that_starts_late_costs_no_request(haproxy: &Haproxy) -> TestResult {
    const HTTPCHK: &str = "    option httpchk GET /health\n";
    let mut ways: Vec<(&str, &str, &str, usize)> = vec![
        ("http", HTTPCHK, "check inter 200ms", late_cycles()),
        ("tcp", "", "check inter 200ms", late_cycles()),
        ("slow checks", HTTPCHK, "check inter 2s", late_cycles() / 3),
        ("fall 1", HTTPCHK, "check inter 200ms fall 1", 1),
        ("slowstart", HTTPCHK, "check inter 200ms slowstart 500ms", 1),
        ("backup", HTTPCHK, "check inter 200ms backup", 1),
        (
            "cookie",
            "    option httpchk GET /health\n    cookie SRV insert indirect\n",
            "check inter 200ms cookie s1",
            1,
        ),
    ];
    if haproxy.at_least(3, 1) {
        ways.push(("init-state fully-up", HTTPCHK, "check inter 200ms init-state fully-up", 1));
    }
    thread::scope(|scope| {
        for (way, lines, options, cycles) in ways {
            scope.spawn(move || {
                let late = Late::start(haproxy, lines, options);
                let mut load = Load::start(late.front.address(), 3, Duration::from_millis(10));
                eventually(PATIENCE, "a load", || (load.served() > 20).then_some(()));
                for cycle in 0..cycles {
                    late.cycle(Duration::from_millis(1_200));
                    let lost = load.lost();
                    assert!(lost.is_empty(), "{way}, cycle {cycle}: {} requests were lost: {lost:?}", lost.len());
                }
                let before = late.servers[0].requests();
                if way != "backup" {
                    eventually(PATIENCE, "traffic", || (late.servers[0].requests() > before).then_some(()));
                }
                load.stop();
                let lost = load.lost();
                assert!(lost.is_empty(), "{way}: {} requests were lost: {lost:?}", lost.len());
            });
        }
    });
    Ok(())
}

fn a_server_of_two_instances_comes_back_on_both(haproxy: &Haproxy) -> TestResult {
    let web = HttpBackend::start("web");
    let proxies = |front: &Port| {
        format!(
            "listen app\n    bind 127.0.0.1:{}\n    option httpchk GET /health\n    server s1 {} check inter 200ms\n\
             backend follower\n    server s1 127.0.0.1:9 track app/s1\n",
            front.number(),
            web.address()
        )
    };
    let fronts = [Port::reserve(), Port::reserve()];
    let instances = ["one", "two"].map(|name| {
        let front = if name == "one" { &fronts[0] } else { &fronts[1] };
        Setup::new(name, &proxies(front)).start(haproxy)
    });
    let at: Vec<String> = instances.iter().map(Instance::address).collect();
    let ask = |state: &str| json!({ "server": "s1", "state": state, "wait": { "timeout": 20 }, "instances": at });
    assert_eq!(Program::request(&ask("maint")).report()["failed"], json!(false));
    web.set_health(Health::Bad);
    let mut running = Program::request(&ask("ready")).spawn();
    for instance in &instances {
        instance.await_state("app", "s1", (8, 0));
        // What tracks it waits with it.
        assert_eq!(instance.row("follower", "s1").admin & 9, 8);
    }
    assert!(!running.ended());
    web.set_health(Health::Good);
    let report = running.wait().report();
    assert_eq!(report["failed"], json!(false), "{report}");
    for instance in &instances {
        assert_eq!((instance.row("app", "s1").admin, instance.row("follower", "s1").admin), (0, 0), "{report}");
    }
    Ok(())
}

fn one_role_of_several_is_enough(haproxy: &Haproxy) -> TestResult {
    // As with Patroni: the check of the primary fails on a replica, and the other way round.
    let (primary, replica) = (HttpBackend::start("primary"), HttpBackend::start("replica"));
    let front = Port::reserve();
    let proxies = format!(
        "listen primary\n    bind 127.0.0.1:{}\n    option httpchk GET /health\n    server db1 127.0.0.1:9 check port {} inter 200ms\n\
         backend replicas\n    option httpchk GET /health\n    server db1 127.0.0.1:9 check port {} inter 200ms\n",
        front.number(),
        primary.port(),
        replica.port()
    );
    let instance = Setup::new("roles", &proxies).start(haproxy);
    primary.set_health(Health::Bad);
    let ask = |wait: serde_json::Value| {
        Program::request(&json!({
            "server": "db1", "state": "ready", "wait": wait, "instances": instance.address(),
        }))
        .report()
    };
    for server in ["primary/db1", "replicas/db1"] {
        instance.set_state(server, "maint");
    }
    // All of them never come up.
    let report = ask(json!({ "timeout": 1.5 }));
    assert_eq!(report["error"]["kind"], json!("not_up"), "{report}");
    for server in ["primary/db1", "replicas/db1"] {
        instance.set_state(server, "maint");
    }
    let report = ask(json!({ "timeout": 20, "need": "any" }));
    assert_eq!(report["failed"], json!(false), "{report}");
    assert_eq!(server(&report, "replicas/db1")["after"]["operational_state"], json!("running"), "{report}");
    for backend in ["primary", "replicas"] {
        assert_eq!(instance.row(backend, "db1").admin, 0, "{report}");
    }
    // In neither role it is up.
    replica.set_health(Health::Bad);
    for server in ["primary/db1", "replicas/db1"] {
        instance.set_state(server, "maint");
    }
    let report = ask(json!({ "timeout": 1.5, "need": "any" }));
    assert_eq!(report["error"]["kind"], json!("not_up"), "{report}");
    assert_eq!(instance.row("replicas", "db1").admin, 8, "{report}");
    Ok(())
}
