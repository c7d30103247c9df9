//! Clients that stay: short requests of persistence clients are seen between polls, and counted at the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::report::{kind, server, warnings};
use crate::support::{
    Haproxy, HttpBackend, Instance, PATIENCE, Port, Program, Setup, Test, TestResult, eventually, get_with, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_drain_sees_short_requests_between_its_polls,
        a_drain_ends_once_its_clients_stay_away,
        maint_ends_persistence_but_for_two_options,
    ]
}

/// A way in which clients stay on a server: its name, and the lines of the backend.
const WAYS: [(&str, &str); 5] = [
    ("cookie", "    cookie SRV insert indirect nocache\n"),
    ("stick table", "    stick-table type ip size 10k\n    stick on src\n"),
    ("use-server", "    use-server s1 unless { path /never }\n"),
    ("option persist", "    cookie SRV insert indirect nocache\n    option persist\n"),
    ("force-persist", "    cookie SRV insert indirect nocache\n    force-persist unless { path /never }\n"),
];

/// A backend of two servers, with a client of the first that sends a short request every 0.2 s.
struct Site {
    // The instance goes before what is behind it.
    instance: Instance,
    servers: [HttpBackend; 2],
    client: Client,
}

/// A client that sends a short request every 0.2 s over a new connection.
struct Client {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    fn start(frontend: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let _ = get_with(frontend, "/", &[("Cookie", "SRV=s1"), ("Connection", "close")]);
                thread::sleep(Duration::from_millis(200));
            }
        });
        Self { stop, thread: Some(thread) }
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Site {
    fn start(haproxy: &Haproxy, persistence: &str) -> Self {
        let (servers, front) = (["s1", "s2"].map(HttpBackend::start), Port::reserve());
        let [s1, s2] = servers.each_ref().map(HttpBackend::address);
        let proxies = format!(
            "listen app\n    bind 127.0.0.1:{}\n{persistence}    server s1 {s1} cookie s1 weight 100\n    \
             server s2 {s2} cookie s2 weight 1\n",
            front.number()
        );
        let instance = Setup::new("sticky", &proxies).start(haproxy);
        // A stick table learns the first server from the first request.
        for _ in 0..3 {
            get_with(front.address(), "/", &[("Cookie", "SRV=s1"), ("Connection", "close")]).unwrap();
        }
        let client = Client::start(front.address());
        Self { instance, servers, client }
    }

    fn ask(&self, more: &Value) -> Value {
        let mut asked = json!({ "server": "app/s1", "state": "maint", "instances": self.instance.address() });
        for (key, value) in more.as_object().unwrap() {
            asked[key] = value.clone();
        }
        Program::request(&asked).report()
    }
}

fn a_drain_sees_short_requests_between_its_polls(haproxy: &Haproxy) -> TestResult {
    for (way, lines) in WAYS {
        let site = Site::start(haproxy, lines);
        let before = site.servers[0].requests();
        let report = site.ask(&json!({ "drain": { "timeout": 2, "stable": 1 } }));
        let reached = site.servers[0].requests() - before;
        assert!(reached > 3, "{way}: the client stays on the server while it drains: {reached}");
        assert_eq!(kind(&report), "not_drained", "{way}: {report}");
        let entry = server(&report, "app/s1");
        let new = entry["new_sessions"].as_u64().unwrap_or_default();
        assert!(new > 3, "{way}: {report}");
        assert!(warnings(&report).contains("new sessions began while draining"), "{way}: {report}");
        assert_eq!(site.instance.state("app", "s1"), (8, 2), "{way}");
    }
    Ok(())
}

fn a_drain_ends_once_its_clients_stay_away(haproxy: &Haproxy) -> TestResult {
    let mut site = Site::start(haproxy, WAYS[0].1);
    let asked = json!({
        "server": "app/s1", "state": "maint", "drain": { "timeout": 20, "stable": 1 },
        "instances": site.instance.address(),
    });
    let mut running = Program::request(&asked).spawn();
    eventually(PATIENCE, "the drain", || (site.instance.state("app", "s1").0 == 8).then_some(()));
    let before = site.servers[0].requests();
    thread::sleep(Duration::from_millis(1500));
    eventually(PATIENCE, "five requests", || (site.servers[0].requests() >= before + 5).then_some(()));
    assert!(!running.ended(), "a client comes again and again");
    site.client.stop();
    let report = running.wait().report();
    assert_eq!(report["failed"], json!(false), "{report}");
    assert!(server(&report, "app/s1")["new_sessions"].as_u64().unwrap_or_default() > 3, "{report}");
    assert_eq!(site.instance.state("app", "s1"), (1, 0));
    Ok(())
}

fn maint_ends_persistence_but_for_two_options(haproxy: &Haproxy) -> TestResult {
    for (way, lines) in WAYS {
        let site = Site::start(haproxy, lines);
        let report = site.ask(&json!({}));
        assert_eq!(report["failed"], json!(false), "{way}: {report}");
        // A request that was under way may still arrive.
        thread::sleep(Duration::from_millis(100));
        let before = site.servers[0].requests();
        thread::sleep(Duration::from_millis(900));
        let reached = site.servers[0].requests() - before;
        let goes_on = matches!(way, "option persist" | "force-persist");
        assert_eq!(reached > 0, goes_on, "{way}: {reached} requests reached a server in maint");
    }
    Ok(())
}
