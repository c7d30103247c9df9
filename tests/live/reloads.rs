//! HAProxy is reloaded before and during a run: what old processes still serve counts, and the new one is set as well.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::report::{commands, kind, server, warnings};
use crate::support::tap::Tap;
use crate::support::{
    Bound, Haproxy, Health, HttpBackend, Instance, Mode, PATIENCE, Port, Program, Recorder, Running, Setup, TcpClient,
    TcpEcho, Test, TestResult, eventually, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_drain_waits_for_the_sessions_on_old_workers,
        a_wait_in_maint_counts_the_sessions_on_old_workers,
        sessions_on_old_workers_are_not_said_to_be_ended,
        a_server_in_drain_has_its_sessions_on_old_workers_too,
        a_reload_during_a_drain_is_converged_on,
        a_reload_without_a_master_cli_is_a_warning,
        a_reload_during_a_wait_for_ready_is_converged_on,
        a_reload_during_a_wait_finds_the_state_in_the_file,
        a_server_that_a_reload_removes_is_a_failure,
        a_process_that_begins_to_stop_has_not_lost_its_servers,
    ]
}

/// One HAProxy with the server `one` in the backends `http`, and `tcp`, behind which connections last.
struct Site {
    // The instance goes before what is behind it.
    instance: Instance,
    web: HttpBackend,
    http: Port,
    tcp: Port,
    _echo: TcpEcho,
}

/// How the program gets to know the master CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Discovered,
    MasterAddress,
}

const WAYS: [Way; 2] = [Way::Discovered, Way::MasterAddress];

impl Site {
    fn start(haproxy: &Haproxy, word: &str, set_up: impl Fn(Setup) -> Setup) -> Self {
        let (web, echo) = (HttpBackend::start("one"), TcpEcho::start());
        let (http, tcp) = (Port::reserve(), Port::reserve());
        let proxies = format!(
            "listen http\n    bind 127.0.0.1:{}\n    cookie SRV insert indirect nocache\n    \
             server one {} cookie one\n    server two 127.0.0.1:9 cookie two\n\
             listen tcp\n    mode tcp\n    bind 127.0.0.1:{}\n    server one {}\n    server two 127.0.0.1:9 backup\n",
            http.number(),
            web.address(),
            tcp.number(),
            echo.address()
        );
        // A name that no other test's instance has, since discovery sees them all.
        let name = format!("{word}-{}-{}", haproxy.name, std::process::id());
        let instance = set_up(Setup::new(&name, &proxies)).start(haproxy);
        Self { instance, web, http, tcp, _echo: echo }
    }

    fn with_master_cli(haproxy: &Haproxy, word: &str) -> Self {
        Self::start(haproxy, word, |setup| setup.mode(Mode::MasterWorker).master_cli())
    }

    fn hold(&self) -> (Bound, TcpClient) {
        (Bound::hold(self.http.address(), &self.web), TcpClient::connect(self.tcp.address()))
    }

    fn instances(&self, way: Way) -> Value {
        match way {
            Way::Discovered => json!([self.instance.name()]),
            Way::MasterAddress => json!([self.instance.master_socket()]),
        }
    }

    /// States of the server `one` in both backends.
    fn states(&self) -> [(u32, u32); 2] {
        ["http", "tcp"].map(|backend| self.instance.state(backend, "one"))
    }

    fn await_states(&self, states: [(u32, u32); 2]) {
        for (backend, state) in ["http", "tcp"].into_iter().zip(states) {
            self.instance.await_state(backend, "one", state);
        }
    }

    fn assert_free(&self) {
        for backend in ["http", "tcp"] {
            assert_eq!(self.instance.stat(backend, "one", "scur"), "0", "the new process has no session");
        }
    }
}

fn request(way_to: Value, more: Value) -> Value {
    let mut request = json!({ "server": "one", "state": "maint", "instances": way_to });
    for (key, value) in more.as_object().expect("an object") {
        request[key] = value.clone();
    }
    request
}

const DRAIN: (u32, u32) = (8, 2);
const MAINT: (u32, u32) = (1, 0);

/// Gives a run that must wait the time to do the wrong thing.
fn assert_goes_on(running: &mut Running, site: &Site, states: [(u32, u32); 2]) {
    thread::sleep(Duration::from_millis(500));
    assert!(!running.ended(), "sessions are left");
    assert_eq!(site.states(), states);
}

/// Asserts that both entries of the report have failed with a session left.
#[track_caller]
fn assert_not_drained(report: &Value) {
    assert_eq!((kind(report), &report["failed"]), ("not_drained", &json!(true)), "{report}");
    for name in ["http/one", "tcp/one"] {
        let entry = server(report, name);
        assert_eq!((kind(entry), &entry["sessions"]), ("not_drained", &json!(1)), "{report}");
    }
}

#[track_caller]
fn assert_drained(report: &Value) {
    assert_eq!(report["failed"], false, "{report}");
    for name in ["http/one", "tcp/one"] {
        let entry = server(report, name);
        assert_eq!((&entry["sessions"], &entry["after"]["admin_state"]), (&json!(0), &json!("maint")), "{report}");
    }
}

fn a_drain_waits_for_the_sessions_on_old_workers(haproxy: &Haproxy) -> TestResult {
    for way in WAYS {
        let mut site = Site::with_master_cli(haproxy, "drains");
        let (held, mut client) = site.hold();
        // On the oldest of three.
        site.instance.reload();
        site.instance.reload();
        site.assert_free();
        let limited = request(site.instances(way), json!({ "drain": { "timeout": 0.3 } }));
        assert_not_drained(&Program::request(&limited).report());
        assert_eq!(site.states(), [DRAIN, DRAIN], "{way:?}");
        let patient = request(site.instances(way), json!({ "drain": { "timeout": 30 } }));
        let mut running = Program::request(&patient).spawn();
        assert_goes_on(&mut running, &site, [DRAIN, DRAIN]);
        client.echo()?;
        drop(client);
        site.await_states([DRAIN, MAINT]);
        site.web.release();
        assert_eq!(held.served_by(), "one");
        let report = running.wait().report();
        assert_drained(&report);
        assert_eq!(report["changed"], true, "{way:?}: {report}");
        assert_eq!(site.states(), [MAINT, MAINT]);
    }
    Ok(())
}

fn a_wait_in_maint_counts_the_sessions_on_old_workers(haproxy: &Haproxy) -> TestResult {
    for way in WAYS {
        let mut site = Site::with_master_cli(haproxy, "waits");
        let (held, mut client) = site.hold();
        site.instance.reload();
        site.assert_free();
        let limited = request(site.instances(way), json!({ "wait": { "timeout": 0.3 } }));
        assert_not_drained(&Program::request(&limited).report());
        assert_eq!(site.states(), [MAINT, MAINT], "{way:?}");
        let patient = request(site.instances(way), json!({ "wait": { "timeout": 30 } }));
        let mut running = Program::request(&patient).spawn();
        assert_goes_on(&mut running, &site, [MAINT, MAINT]);
        client.echo()?;
        drop(client);
        thread::sleep(Duration::from_millis(200));
        assert!(!running.ended(), "one session is left");
        site.web.release();
        assert_eq!(held.served_by(), "one");
        let report = running.wait().report();
        assert_drained(&report);
        assert_eq!(report["changed"], false, "{way:?}: {report}");
    }
    Ok(())
}

fn sessions_on_old_workers_are_not_said_to_be_ended(haproxy: &Haproxy) -> TestResult {
    let mut site = Site::with_master_cli(haproxy, "ends");
    let (held, mut client) = site.hold();
    site.instance.reload();
    let ending = request(site.instances(Way::Discovered), json!({ "shutdown_sessions": true, "timeout": 1 }));
    let report = Program::request(&ending).report();
    let is_alive = client.echo().is_ok();
    assert_eq!(report["failed"], json!(is_alive), "{report}");
    assert_eq!(kind(&report), if is_alive { "not_drained" } else { "" }, "{report}");
    if is_alive {
        let msg = report["error"]["msg"].as_str().unwrap();
        assert!(msg.contains("it has ") && msg.contains("from before a reload"), "{msg}");
    }
    site.web.release();
    let _ = held.answer();
    Ok(())
}

fn a_server_in_drain_has_its_sessions_on_old_workers_too(haproxy: &Haproxy) -> TestResult {
    for way in WAYS {
        let mut site = Site::with_master_cli(haproxy, "drained");
        let (held, client) = site.hold();
        site.instance.reload();
        // Somebody else has begun.
        for backend in ["http", "tcp"] {
            site.instance.set_state(&format!("{backend}/one"), "drain");
        }
        let patient = request(site.instances(way), json!({ "drain": { "timeout": 30 } }));
        let mut running = Program::request(&patient).spawn();
        assert_goes_on(&mut running, &site, [DRAIN, DRAIN]);
        drop(client);
        site.web.release();
        assert_eq!(held.served_by(), "one");
        let report = running.wait().report();
        assert_drained(&report);
        assert_eq!(commands(&report), ["set server http/one state maint", "set server tcp/one state maint"]);
    }
    Ok(())
}

fn a_reload_during_a_drain_is_converged_on(haproxy: &Haproxy) -> TestResult {
    for way in WAYS {
        let mut site = Site::with_master_cli(haproxy, "during");
        let (held, mut client) = site.hold();
        let patient = request(site.instances(way), json!({ "drain": { "timeout": 30 } }));
        let mut running = Program::request(&patient).spawn();
        site.await_states([DRAIN, DRAIN]);
        let old = site.instance.pid();
        site.instance.reload();
        site.await_states([DRAIN, DRAIN]);
        site.assert_free();
        assert_goes_on(&mut running, &site, [DRAIN, DRAIN]);
        client.echo()?;
        drop(client);
        site.await_states([DRAIN, MAINT]);
        site.web.release();
        assert_eq!(held.served_by(), "one");
        let report = running.wait().report();
        assert_drained(&report);
        assert_ne!(site.instance.pid(), old);
        assert_eq!((&report["changed"], &report["instances"][0]["pid"]), (&json!(true), &json!(site.instance.pid())));
        let said = warnings(&report);
        assert!(said.contains("was reloaded during the run"), "{report}");
        assert!(!said.contains("cannot be seen"), "{report}");
        assert_eq!(server(&report, "http/one")["before"]["admin_state"], "ready");
        assert_eq!(site.states(), [MAINT, MAINT]);
    }
    Ok(())
}

fn a_reload_without_a_master_cli_is_a_warning(haproxy: &Haproxy) -> TestResult {
    for mode in [Mode::MasterWorker, Mode::Foreground, Mode::Daemon] {
        let mut site = Site::start(haproxy, "blind", |setup| setup.mode(mode));
        let (held, mut client) = site.hold();
        let patient = request(json!(site.instance.address()), json!({ "drain": { "timeout": 30 } }));
        let running = Program::request(&patient).spawn();
        site.await_states([DRAIN, DRAIN]);
        let old = site.instance.pid();
        site.instance.reload();
        let run = running.wait();
        let report = run.report();
        assert_drained(&report);
        assert!(run.elapsed < Duration::from_secs(15), "{mode:?}: {:?}", run.elapsed);
        assert_eq!(site.states(), [MAINT, MAINT], "{mode:?}");
        let said = warnings(&report);
        let blind = format!("what {old} still serves cannot be seen without a master CLI (-S)");
        assert!(said.contains("was reloaded during the run") && said.contains(&blind), "{mode:?}: {report}");
        client.echo()?;
        site.web.release();
        assert_eq!(held.served_by(), "one", "nobody was cut off");
    }
    Ok(())
}

fn a_reload_during_a_wait_for_ready_is_converged_on(haproxy: &Haproxy) -> TestResult {
    for mode in [Mode::MasterWorker, Mode::Foreground] {
        let web = HttpBackend::start("s1");
        web.set_health(Health::Bad);
        let proxies = format!(
            "backend b\n    option httpchk GET /health\n    server s1 {} check inter 50ms rise 2 fall 2 disabled\n",
            web.address()
        );
        let mut instance = Setup::new("ready", &proxies).mode(mode).start(haproxy);
        let recorder = Recorder::on(&instance);
        let request =
            json!({ "server": "s1", "state": "ready", "wait": { "timeout": 30 }, "instances": recorder.address() });
        let mut running = Program::request(&request).spawn();
        // Its check fails, so it stays in drain.
        instance.await_state("b", "s1", (12, 0));
        let old = instance.pid();
        instance.reload();
        // The new process has it disabled, as its configuration says, until the run sends the command again.
        eventually(PATIENCE, "drain in the new process", || (recorder.changing_commands().len() == 2).then_some(()));
        instance.await_state("b", "s1", (12, 0));
        assert!(!running.ended(), "it is down in the new process too");
        web.set_health(Health::Good);
        let report = running.wait().report();
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{mode:?}: {report}");
        assert_eq!(instance.state("b", "s1"), (4, 2));
        assert_ne!(instance.pid(), old);
        assert_eq!(report["instances"][0]["pid"], instance.pid());
        assert_eq!(
            recorder.changing_commands(),
            ["set server b/s1 state drain", "set server b/s1 state drain", "set server b/s1 state ready"]
        );
        assert!(warnings(&report).contains("was reloaded during the run"), "{report}");
    }
    Ok(())
}

fn a_reload_during_a_wait_finds_the_state_in_the_file(haproxy: &Haproxy) -> TestResult {
    let folder = crate::support::Folder::new();
    let file = folder.join("state");
    let mut site = Site::start(haproxy, "kept", |setup| setup.mode(Mode::MasterWorker).master_cli().loads(&file));
    let (held, client) = site.hold();
    let patient = request(site.instances(Way::Discovered), json!({ "wait": { "timeout": 30 }, "state_file": file }));
    let mut running = Program::request(&patient).spawn();
    let row = |name: &str| std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&format!(" {name} 1 one ")));
    eventually(PATIENCE, "the file", || (row("http") && row("tcp")).then_some(()));
    site.instance.reload();
    assert_eq!(site.states(), [MAINT, MAINT], "from the first moment on");
    assert_goes_on(&mut running, &site, [MAINT, MAINT]);
    drop(client);
    site.web.release();
    assert_eq!(held.served_by(), "one");
    let report = running.wait().report();
    assert_drained(&report);
    assert_eq!(commands(&report).len(), 2, "once for each backend, and no more: {report}");
    assert_eq!((&report["changed"], &report["instances"][0]["state_file"]["changed"]), (&json!(true), &json!(true)));
    site.instance.reload();
    assert_eq!(site.states(), [MAINT, MAINT]);
    Ok(())
}

fn a_server_that_a_reload_removes_is_a_failure(haproxy: &Haproxy) -> TestResult {
    let ways = [("drain", json!({ "timeout": 30 }), DRAIN), ("wait", json!({ "timeout": 30 }), MAINT)];
    for (way, bounds, state) in ways {
        for (policy, expected) in [("fail", "server_not_found"), ("ignore", "")] {
            let mut site = Site::with_master_cli(haproxy, "removed");
            let (held, client) = site.hold();
            let mut patient = request(site.instances(Way::MasterAddress), json!({ "on_missing": policy }));
            patient[way] = bounds.clone();
            let running = Program::request(&patient).spawn();
            site.await_states([state, state]);
            site.instance.set_proxies("backend http\n    server two 127.0.0.1:9\n");
            site.instance.reload();
            let report = running.wait().report();
            assert_eq!(kind(&report), expected, "{way} {policy}: {report}");
            if expected.is_empty() {
                assert!(warnings(&report).contains("http/one disappeared when HAProxy was reloaded"), "{report}");
            } else {
                for name in ["http/one", "tcp/one"] {
                    let entry = server(&report, name);
                    assert_eq!((kind(entry), &entry["after"]), (expected, &Value::Null), "{way}: {report}");
                }
                assert!(report["error"]["msg"].as_str().unwrap().contains("'on_missing'"), "{report}");
            }
            site.web.release();
            let _ = held.answer();
            drop(client);
        }
    }
    Ok(())
}

fn a_process_that_begins_to_stop_has_not_lost_its_servers(haproxy: &Haproxy) -> TestResult {
    for request in [
        json!({ "state": "maint", "drain": { "timeout": 20 } }),
        json!({ "state": "maint", "wait": { "timeout": 20, "stable": 1 } }),
    ] {
        let instance =
            Setup::new("stopping", "backend b\n    server s1 127.0.0.1:9\n").mode(Mode::MasterWorker).start(haproxy);
        let (socket, folder) = (instance.socket.clone(), instance.folder.clone());
        let instance = Arc::new(Mutex::new(instance));
        let reloads = instance.clone();
        // Between what the process is asked about itself and what it is asked about its servers.
        let reload = move || reloads.lock().expect("the instance").reload();
        let tap = Tap::at(&folder.join("tap"), &socket, ("show stat", 1), reload);
        let mut request = request.clone();
        request["server"] = json!("s1");
        request["instances"] = json!(tap.address());
        let report = Program::request(&request).report();
        assert_eq!(report["failed"], false, "{report}");
        assert!(warnings(&report).contains("reloaded during the run"), "{report}");
        assert_eq!(instance.lock().expect("the instance").state("b", "s1"), (1, 0));
    }
    Ok(())
}
