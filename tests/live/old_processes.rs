//! Processes from before a reload: found in every mode, named, counted where they can be, waited for, and ended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::report::{kind, server, warnings};
use crate::support::{
    Bound, Folder, Haproxy, HttpBackend, Instance, Load, Mode, PATIENCE, Port, Program, Setup, Test, TestResult,
    eventually, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        they_are_found_in_every_mode,
        maint_names_them,
        a_drain_waits_for_their_end,
        their_sessions_are_ended,
        no_request_passes_a_drain_that_is_reloaded_all_the_time,
    ]
}

/// How HAProxy is started and reloaded, and how the program gets to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `-W`, with no master CLI.
    Master,
    /// `-W -S`.
    MasterCli,
    /// `-D`, and `-D -sf PID`.
    Daemon,
    /// `-db`, and `-db -sf PID`.
    Foreground,
}

const WAYS: [Way; 4] = [Way::Master, Way::MasterCli, Way::Daemon, Way::Foreground];

/// One HAProxy with a session that lasts on a server.
struct Site {
    // The instance goes before what is behind it.
    instance: Instance,
    web: HttpBackend,
    front: Port,
}

/// How many were started, for their names.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Site {
    fn start(haproxy: &Haproxy, way: Way) -> Self {
        let (web, front) = (HttpBackend::start("s1"), Port::reserve());
        let proxies = format!(
            "listen app\n    bind 127.0.0.1:{}\n    server s1 {}\n    server s2 127.0.0.1:9 backup\n",
            front.number(),
            web.address()
        );
        // A name that no other test's instance has, since discovery sees them all.
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("old-{way:?}-{number}-{}-{}", haproxy.name, std::process::id()).to_lowercase();
        let setup = Setup::new(&name, &proxies);
        let setup = match way {
            Way::Master => setup.mode(Mode::MasterWorker),
            Way::MasterCli => setup.mode(Mode::MasterWorker).master_cli(),
            Way::Daemon => setup.mode(Mode::Daemon),
            Way::Foreground => setup,
        };
        Self { instance: setup.start(haproxy), web, front }
    }

    /// Reloads it while a session is under way, and returns the process that keeps it.
    fn reload(&mut self) -> (Bound, i32) {
        let held = Bound::hold(self.front.address(), &self.web);
        let old = self.instance.pid();
        self.instance.reload();
        (held, old)
    }

    fn request(&self, way: Way, more: &Value) -> Value {
        let instances = match way {
            Way::MasterCli => json!([self.instance.name()]),
            Way::Master | Way::Daemon | Way::Foreground => json!([self.instance.address()]),
        };
        let mut asked = json!({ "server": "app/s1", "instances": instances });
        for (key, value) in more.as_object().unwrap() {
            asked[key] = value.clone();
        }
        asked
    }

    fn ask(&self, way: Way, more: &Value) -> Value {
        Program::request(&self.request(way, more)).report()
    }
}

fn old(report: &Value) -> Vec<(i64, Option<i64>)> {
    let old = report["instances"][0]["old_processes"].as_array().cloned().unwrap_or_default();
    old.iter().map(|one| (one["pid"].as_i64().unwrap(), one["sessions"].as_i64())).collect()
}

fn they_are_found_in_every_mode(haproxy: &Haproxy) -> TestResult {
    for way in WAYS {
        let mut site = Site::start(haproxy, way);
        let report = site.ask(way, &json!({}));
        assert_eq!(old(&report), [], "{way:?}: {report}");
        let (first, one) = site.reload();
        let seen = (way == Way::MasterCli).then_some(1);
        let report = site.ask(way, &json!({}));
        assert_eq!(old(&report), [(i64::from(one), seen)], "{way:?}: {report}");
        assert_eq!(server(&report, "app/s1")["sessions"], json!(seen.unwrap_or(0)), "{way:?}: {report}");
        let (second, two) = site.reload();
        let report = site.ask(way, &json!({}));
        let mut found: Vec<i64> = old(&report).iter().map(|(pid, _)| *pid).collect();
        found.sort_unstable();
        let mut expected = [i64::from(one), i64::from(two)];
        expected.sort_unstable();
        assert_eq!(found, expected, "{way:?}: {report}");
        site.web.release();
        assert_eq!((first.served_by(), second.served_by()), ("s1".to_owned(), "s1".to_owned()));
        eventually(PATIENCE, "the old processes to end", || old(&site.ask(way, &json!({}))).is_empty().then_some(()));
    }
    Ok(())
}

fn maint_names_them(haproxy: &Haproxy) -> TestResult {
    for way in WAYS {
        let mut site = Site::start(haproxy, way);
        let (held, pid) = site.reload();
        let report = site.ask(way, &json!({ "state": "maint" }));
        assert_eq!(report["failed"], json!(false), "{way:?}: {report}");
        let said = warnings(&report);
        assert!(said.contains("before a reload still run") && said.contains(&pid.to_string()), "{way:?}: {report}");
        assert_eq!(said.contains("cannot be counted"), way != Way::MasterCli, "{way:?}: {report}");
        assert_eq!(old(&report).len(), 1, "{way:?}: {report}");
        site.web.release();
        assert_eq!(held.served_by(), "s1");
    }
    Ok(())
}

fn a_drain_waits_for_their_end(haproxy: &Haproxy) -> TestResult {
    for way in WAYS {
        let mut site = Site::start(haproxy, way);
        let (held, pid) = site.reload();
        let asked = |timeout: u32| {
            let drain = json!({ "timeout": timeout });
            site.request(way, &json!({ "state": "maint", "drain": drain, "old_processes": "wait" }))
        };
        let report = Program::request(&asked(1)).report();
        assert_eq!(kind(&report), "not_drained", "{way:?}: {report}");
        let msg = report["msg"].as_str().unwrap();
        assert!(msg.contains(&pid.to_string()) || msg.contains("1 session"), "{way:?}: {report}");
        assert_eq!(site.instance.state("app", "s1"), (8, 2), "{way:?}");
        let mut running = Program::request(&asked(30)).spawn();
        thread::sleep(Duration::from_millis(500));
        assert!(!running.ended(), "{way:?}");
        site.web.release();
        let report = running.wait().report();
        assert_eq!((&report["failed"], old(&report).len()), (&json!(false), 0), "{way:?}: {report}");
        assert_eq!(site.instance.state("app", "s1"), (1, 0), "{way:?}");
        assert_eq!(held.served_by(), "s1");
    }
    let refused = Program::request(&json!({ "server": "s1", "state": "ready", "old_processes": "wait" })).report();
    assert_eq!(kind(&refused), "bad_request", "{refused}");
    Ok(())
}

fn their_sessions_are_ended(haproxy: &Haproxy) -> TestResult {
    let mut site = Site::start(haproxy, Way::MasterCli);
    let (held, _) = site.reload();
    let report = site.ask(Way::MasterCli, &json!({ "state": "maint", "shutdown_sessions": true }));
    assert_eq!(report["failed"], json!(false), "{report}");
    assert_eq!(server(&report, "app/s1")["sessions"], json!(0), "{report}");
    eventually(PATIENCE, "the client to be cut off", || held.has_ended().then_some(()));
    site.web.release();
    Ok(())
}

fn no_request_passes_a_drain_that_is_reloaded_all_the_time(haproxy: &Haproxy) -> TestResult {
    let (servers, front) = (["s1", "s2"].map(HttpBackend::start), Port::reserve());
    let [s1, s2] = servers.each_ref().map(HttpBackend::address);
    let folder = Folder::new();
    let file = folder.join("state");
    let proxies = format!(
        "listen app\n    bind 127.0.0.1:{}\n    balance roundrobin\n    server s1 {s1}\n    server s2 {s2}\n",
        front.number()
    );
    let name = format!("reloaded-{}-{}", haproxy.name, std::process::id());
    let setup = Setup::new(&name, &proxies).mode(Mode::MasterWorker).master_cli().loads(&file);
    let mut instance = setup.start(haproxy);
    let held = Bound::hold(front.address(), &servers[0]);
    let mut load = Load::start(front.address(), 4, Duration::from_millis(5));
    let asked = json!({
        "server": "app/s1", "state": "maint", "drain": { "timeout": 30 }, "state_file": file, "instances": [name],
        "old_processes": "wait",
    });
    let running = Program::request(&asked).spawn();
    eventually(PATIENCE, "the state file", || file.exists().then_some(()));
    // What was accepted before may still be under way.
    thread::sleep(Duration::from_millis(300));
    let before = servers[0].requests();
    for _ in 0..4 {
        instance.reload();
        thread::sleep(Duration::from_millis(1000));
        assert_eq!(instance.row("app", "s1").admin, 8);
    }
    servers[0].release();
    load.stop();
    assert_eq!(servers[0].requests(), before, "not one request reaches a server that drains");
    let report = running.wait().report();
    assert_eq!(report["failed"], json!(false), "{report}");
    assert_eq!(held.served_by(), "s1");
    assert_eq!(instance.row("app", "s1").admin, 1);
    assert!(load.served() > 100, "{}", load.served());
    Ok(())
}
