//! Under load: servers go out and come back a hundred times, and no client notices.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::report::{commands, server};
use crate::support::{
    Agent, Haproxy, Health, HttpBackend, Instance, Load, PATIENCE, Port, Program, Running, Setup, Stage, Test,
    TestResult, Visits, eventually, on_newest, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    let each = tests![
        an_application_that_starts_late_costs_no_request,
        a_server_of_two_instances_comes_back_on_both,
        one_role_of_several_is_enough,
        a_role_that_a_server_does_not_have_gets_no_request,
    ];
    // `make cycles` plays more of them, on each.
    [on_newest![twenty_cycles_lose_not_one_request], each].concat()
}

/// What `make cycles` plays, which takes a quarter of an hour.
pub(crate) fn cycles() -> Vec<Test> {
    tests![
        a_hundred_cycles_lose_not_one_request,
        many_cycles_lose_not_one_request_with_checks_each_200_ms,
        many_cycles_lose_not_one_request_with_checks_each_2_s,
    ]
}

fn twenty_cycles_lose_not_one_request(haproxy: &Haproxy) -> TestResult {
    cycles_lose_not_one_request(haproxy, 20)
}

fn a_hundred_cycles_lose_not_one_request(haproxy: &Haproxy) -> TestResult {
    cycles_lose_not_one_request(haproxy, many())
}

/// Takes a server out and puts it back so often, under load.
fn cycles_lose_not_one_request(haproxy: &Haproxy, cycles: usize) -> TestResult {
    let stage = Stage::start_with(haproxy, "check inter 20ms rise 1 fall 3", |setup| setup);
    let at = json!(stage.http.address());
    eventually(PATIENCE, "first checks", || (stage.server("web1").checks() > 3).then_some(()));
    let mut load = Load::start(stage.frontend("web"), 8, Duration::from_millis(4));
    eventually(PATIENCE, "a load", || (load.served() > 50).then_some(()));
    let (mut taken_out, before) = (0, stage.server("web1").requests());
    for cycle in 0..cycles {
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
    assert!(served > 20 * cycles, "{served} requests");
    assert!(stage.server("web1").requests() > before, "the server was back in between");
    assert!(stage.server("web2").requests() > cycles && stage.server("web3").requests() > cycles);
    assert_eq!(taken_out, cycles, "nothing came while it was out");
    Ok(())
}

/// When the application of a server is there again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returns {
    /// So long after the server was to be put back.
    Late(Duration),
    /// Before that.
    InTime,
}

/// How a server comes into HAProxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Configured,
    AddServer,
}

/// A way to have a server: the words of a configuration, and its clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// Lines of `app`.
    pub(crate) lines: &'static str,
    /// Options of `s1` in `app`.
    pub(crate) options: &'static str,
    /// Options of `s2`, which is always there.
    pub(crate) other: &'static str,
    /// A server `s1` of another backend, `probe`, with these options.
    pub(crate) probe: Option<&'static str>,
    /// Whether an agent says how the application is, and for how many instances.
    pub(crate) has_agent: bool,
    pub(crate) instances: usize,
    pub(crate) origin: Origin,
    pub(crate) visits: &'static [Visits],
    pub(crate) drain: fn() -> Value,
}

const HTTPCHK: &str = "    option httpchk GET /health\n";

/// What every way has unless it says otherwise.
pub(crate) const COMMON: Way = Way {
    name: "http",
    lines: HTTPCHK,
    options: "check inter 200ms",
    other: "",
    probe: None,
    has_agent: false,
    instances: 1,
    origin: Origin::Configured,
    visits: &[Visits::Kept, Visits::Anew, Visits::Kept],
    drain: || json!({ "timeout": 20 }),
};

/// The server `s1` of `app`, had in one way, beside another one that is always there.
pub(crate) struct Late {
    way: Way,
    // The instances go before what is behind them.
    pub(crate) instances: Vec<Instance>,
    servers: [HttpBackend; 2],
    pub(crate) fronts: Vec<Port>,
    agent: Agent,
}

impl Late {
    pub(crate) fn start(haproxy: &Haproxy, way: Way) -> Self {
        let (servers, agent) = (["s1", "s2"].map(HttpBackend::start), Agent::start("up"));
        let [s1, s2] = servers.each_ref().map(HttpBackend::address);
        let fronts: Vec<_> = (0..way.instances).map(|_| Port::reserve()).collect();
        let asks_agent = if way.has_agent { agent.options("200ms") } else { String::new() };
        let line = format!("s1 {s1} {} {asks_agent}", way.options);
        let first = match way.origin {
            Origin::Configured => format!("    server {line}\n"),
            Origin::AddServer => String::new(),
        };
        let probe = way.probe.map(|options| format!("backend probe\n{HTTPCHK}    server s1 {s1} {options}\n"));
        let names = ["late", "later"];
        let start = |(front, name): (&Port, &str)| {
            let proxies = format!(
                "listen app\n    bind 127.0.0.1:{}\n    balance roundrobin\n{}{first}    server s2 {s2} {}\n{}",
                front.number(),
                way.lines,
                way.other,
                probe.as_deref().unwrap_or_default()
            );
            let instance = Setup::new(name, &proxies).start(haproxy);
            if way.origin == Origin::AddServer {
                let reply = instance.raw(&format!("add server app/{line}"));
                assert!(reply.contains("New server registered"), "{reply:?}");
                instance.set("enable health app/s1");
                instance.set_state("app/s1", "ready");
            }
            instance
        };
        let instances = fronts.iter().zip(names).map(start).collect();
        Self { way, instances, servers, fronts, agent }
    }

    pub(crate) fn ask(&self, more: &Value) -> Value {
        let addresses: Vec<_> = self.instances.iter().map(Instance::address).collect();
        let mut asked = json!({ "server": "s1", "instances": addresses });
        for (key, value) in more.as_object().unwrap() {
            asked[key] = value.clone();
        }
        asked
    }

    /// Takes `s1` out, and stops its application.
    pub(crate) fn stop(&self) {
        let [application, _] = &self.servers;
        let out = self.ask(&json!({ "state": "maint", "drain": (self.way.drain)() }));
        let report = Program::request(&out).report();
        assert_eq!(report["failed"], json!(false), "{report}");
        // With `on_timeout: maint` the last request may still be under way.
        for instance in &self.instances {
            eventually(PATIENCE, "the last session to end", || {
                (instance.stat("app", "s1", "scur") == "0").then_some(())
            });
        }
        application.set_health(Health::Refuse);
        application.cut();
        self.agent.say("down");
    }

    /// Starts the application of `s1`.
    fn start_application(&self) {
        self.servers[0].set_health(Health::Good);
        self.agent.say("up");
    }

    /// Starts to put `s1` back, and its application when it is told to.
    pub(crate) fn put_back(&self, back: &Value, returns: Returns) -> Running {
        match returns {
            Returns::InTime => {
                self.start_application();
                Program::request(back).spawn()
            }
            Returns::Late(late) => {
                let running = Program::request(back).spawn();
                thread::sleep(late);
                self.start_application();
                running
            }
        }
    }

    /// Takes `s1` out, stops its application, puts it back, and starts the application when it is told to.
    fn cycle(&self, returns: Returns) -> Duration {
        self.stop();
        let back = self.ask(&json!({ "state": "ready", "wait": { "timeout": 60 } }));
        let mut foreseen = back.clone();
        foreseen["dry_run"] = json!(true);
        let foreseen = Program::request(&foreseen).report();
        let run = self.put_back(&back, returns).wait();
        let report = run.report();
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
        assert_eq!(commands(&report), commands(&foreseen), "a dry run shows both steps");
        for instance in &self.instances {
            assert_eq!(instance.row("app", "s1").admin, 0);
        }
        run.elapsed
    }

    /// Plays cycles under load: no client loses a request, and HAProxy does not even have to try one again.
    fn play(&self, cycles: usize, returns: Returns, pause: Duration) -> Vec<Duration> {
        let mut loads: Vec<_> =
            self.fronts.iter().map(|front| Load::of(front.address(), self.way.visits, pause)).collect();
        let served = |loads: &[Load]| loads.iter().map(Load::served).min().unwrap_or_default();
        eventually(PATIENCE, "a load", || (served(&loads) > 20).then_some(()));
        let mut times = Vec::new();
        for cycle in 0..cycles {
            times.push(self.cycle(returns));
            self.assert_none_lost(&loads, &format!("cycle {cycle}"));
        }
        let before = self.servers[0].requests();
        if !self.way.options.contains("backup") {
            eventually(PATIENCE, "traffic", || (self.servers[0].requests() > before).then_some(()));
        }
        loads.iter_mut().for_each(Load::stop);
        self.assert_none_lost(&loads, "the end");
        times
    }

    fn assert_none_lost(&self, loads: &[Load], when: &str) {
        let name = self.way.name;
        for (load, instance) in loads.iter().zip(&self.instances) {
            let lost = load.lost();
            assert!(lost.is_empty(), "{name}, {when}: {} requests were lost: {lost:?}", lost.len());
            let is_bound = self.way.visits.iter().any(|visits| matches!(visits, Visits::Bound(_)));
            for column in ["econ", "eresp", "wretr", "wredis"] {
                let count = instance.stat("app", "s1", column);
                assert!(count == "0" || is_bound, "{name}, {when}: {count} {column}: HAProxy has tried s1 in vain");
            }
        }
    }
}

fn an_application_that_starts_late_costs_no_request(haproxy: &Haproxy) -> TestResult {
    let late = Returns::Late(Duration::from_millis(1_200));
    let once = |way: Way| (way, 1, late);
    let mut ways = vec![
        (COMMON, 3, late),
        (Way { name: "tcp check", lines: "", ..COMMON }, 3, late),
        once(Way { name: "slow checks", options: "check inter 2s", ..COMMON }),
        once(Way {
            name: "mode tcp",
            lines: "    mode tcp\n",
            // One that is kept would hold up the drain.
            visits: &[Visits::Anew; 3],
            ..COMMON
        }),
        once(Way { name: "fall 1", options: "check inter 200ms fall 1", ..COMMON }),
        once(Way { name: "slowstart", options: "check inter 200ms slowstart 500ms", ..COMMON }),
        once(Way { name: "a backup server", options: "check inter 200ms backup", ..COMMON }),
        once(Way { name: "before a backup server", other: "backup", ..COMMON }),
        once(Way { name: "agent", lines: "", options: "", has_agent: true, ..COMMON }),
        once(Way { name: "check and agent", has_agent: true, ..COMMON }),
        (Way { name: "no check", lines: "", options: "", ..COMMON }, 1, Returns::InTime),
        once(Way { name: "track", lines: "", options: "track probe/s1", probe: Some("check inter 200ms"), ..COMMON }),
        once(Way { name: "two instances", instances: 2, ..COMMON }),
        once(Way {
            name: "cookie",
            lines: "    option httpchk GET /health\n    cookie SRV insert indirect nocache\n",
            options: "check inter 200ms cookie s1",
            other: "cookie s2",
            visits: &[Visits::WithCookie, Visits::WithCookie, Visits::Anew],
            // Such clients stay for as long as they may.
            drain: || json!({ "timeout": 1, "on_timeout": "maint" }),
            ..COMMON
        }),
        once(Way {
            name: "old cookies",
            lines: "    option httpchk GET /health\n    cookie SRV insert indirect nocache\n    option redispatch\n",
            options: "check inter 200ms cookie s1",
            other: "cookie s2",
            visits: &[Visits::Bound("SRV=s1"), Visits::WithCookie, Visits::Anew],
            drain: || json!({ "timeout": 1, "on_timeout": "maint" }),
            ..COMMON
        }),
    ];
    if haproxy.at_least(2, 6) {
        ways.push(once(Way { name: "add server", origin: Origin::AddServer, ..COMMON }));
    }
    if haproxy.at_least(3, 1) {
        for options in ["check inter 200ms init-state fully-up", "check inter 200ms init-state fully-down"] {
            ways.push(once(Way { name: "init-state", options, ..COMMON }));
        }
    }
    thread::scope(|scope| {
        for (way, cycles, returns) in ways {
            scope.spawn(move || Late::start(haproxy, way).play(cycles, returns, Duration::from_millis(20)));
        }
    });
    Ok(())
}

/// How many cycles `make cycles` plays; `HAPROXY_SERVER_CYCLES` says otherwise.
fn many() -> usize {
    std::env::var("HAPROXY_SERVER_CYCLES").ok().and_then(|cycles| cycles.parse().ok()).unwrap_or(100)
}

/// Plays many cycles of an application that needs three seconds, and says how long it took to come back.
fn play_many(haproxy: &Haproxy, way: Way) {
    let late = Late::start(haproxy, way);
    let mut times = late.play(many(), Returns::Late(Duration::from_secs(3)), Duration::from_millis(10));
    times.sort();
    let [least, median, most] =
        [times.first(), times.get(times.len() / 2), times.last()].map(|time| time.map_or(0.0, Duration::as_secs_f64));
    println!(
        "HAProxy {}, {}: {} cycles, none of {} requests was lost; back after {least:.1} to {most:.1} s, median {median:.1} s",
        haproxy.name,
        way.options,
        times.len(),
        late.servers.iter().map(HttpBackend::requests).sum::<usize>()
    );
}

fn many_cycles_lose_not_one_request_with_checks_each_200_ms(haproxy: &Haproxy) -> TestResult {
    play_many(haproxy, COMMON);
    Ok(())
}

fn many_cycles_lose_not_one_request_with_checks_each_2_s(haproxy: &Haproxy) -> TestResult {
    play_many(haproxy, Way { options: "check inter 2s", ..COMMON });
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

fn a_role_that_a_server_does_not_have_gets_no_request(haproxy: &Haproxy) -> TestResult {
    let [db1, db2] = ["db1", "db2"].map(HttpBackend::start);
    let (is_primary, front) = (HttpBackend::start("primary"), Port::reserve());
    is_primary.set_health(Health::Bad);
    // Its role in the other backend is known long before.
    let proxies = format!(
        "listen primary\n    bind 127.0.0.1:{}\n{HTTPCHK}    server db1 {} check port {} inter 1s\n    server db2 {}\n\
         backend replicas\n{HTTPCHK}    server db1 {} check inter 100ms\n",
        front.number(),
        db1.address(),
        is_primary.port(),
        db2.address(),
        db1.address(),
    );
    let instance = Setup::new("roles", &proxies).start(haproxy);
    let await_down = || eventually(PATIENCE, "no primary", || (instance.row("primary", "db1").op == 0).then_some(()));
    await_down();
    let (load, before) = (Load::start(front.address(), 2, Duration::from_millis(10)), db1.requests());
    for _ in 0..2 {
        for server in ["primary/db1", "replicas/db1"] {
            instance.set_state(server, "maint");
        }
        let back = json!({ "server": "db1", "state": "ready", "wait": { "timeout": 20, "need": "any" },
            "instances": instance.address() });
        let report = Program::request(&back).report();
        assert_eq!(report["failed"], json!(false), "{report}");
        await_down();
        for backend in ["primary", "replicas"] {
            assert_eq!(instance.row(backend, "db1").admin, 0, "{report}");
        }
    }
    assert_eq!((db1.requests() - before, load.lost()), (0, Vec::new()), "a replica was taken for the primary");
    Ok(())
}
