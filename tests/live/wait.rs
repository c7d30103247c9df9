//! What `wait` waits for: real traffic after ready, no session left after drain and maint.

use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::haproxy::freeze;
use crate::support::report::{kind, server, warnings};
use crate::support::tap::Tap;
use crate::support::{
    Agent, Bound, Haproxy, Health, HttpBackend, Instance, PATIENCE, Port, Program, Recorder, Run, Setup, Stage, Test,
    TestResult, eventually, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_server_is_up_once_its_check_has_passed,
        a_check_that_never_passes_is_not_up,
        a_server_that_goes_down_at_once_has_to_stay_up,
        slowstart_is_waited_for,
        what_has_no_check_counts_at_once,
        an_agent_that_sets_it_back_is_noticed,
        a_server_that_answers_404_takes_no_traffic,
        a_server_has_to_stay_up_for_as_long_as_asked,
        what_keeps_a_server_from_traffic_is_said,
        a_server_that_is_up_is_not_waited_for,
        sessions_are_waited_for_after_drain_and_maint,
        sessions_that_do_not_end_are_reported,
        a_restart_is_waited_for,
        an_instance_that_stops_in_a_wait_is_named,
        what_cannot_be_read_back_after_a_wait_has_failed,
        what_is_reported_is_how_it_is_after_the_wait,
        a_server_that_is_deleted_ends_its_wait,
        a_server_that_is_created_anew_ends_its_wait,
    ]
}

/// A backend `app` with one server `one`, with these options, in front of a real server.
struct One {
    instance: Instance,
    behind: HttpBackend,
    port: Port,
}

impl One {
    fn start(haproxy: &Haproxy, options: &str) -> Self {
        let behind = HttpBackend::start("one");
        let port = Port::reserve();
        let proxies = format!(
            "listen app\n    bind 127.0.0.1:{}\n    option httpchk GET /health\n    http-check disable-on-404\n    \
             cookie SRV insert indirect\n    server one {} cookie one {options}\n",
            port.number(),
            behind.address()
        );
        Self { instance: Setup::new("waiting", &proxies).start(haproxy), behind, port }
    }

    fn request(&self, state: &str, wait: Value) -> Value {
        json!({ "server": "app/one", "state": state, "wait": wait, "instances": self.instance.address() })
    }

    fn run(&self, state: &str, wait: Value) -> Run {
        Program::request(&self.request(state, wait)).run()
    }

    fn maint(&self) {
        self.instance.set_state("app/one", "maint");
    }

    fn status(&self) -> String {
        self.instance.stat("app", "one", "status")
    }
}

fn assert_done(run: &Run) -> Value {
    let report = run.report();
    assert_eq!(report["failed"], false, "{report}");
    assert_eq!(run.code, Some(0));
    report
}

fn a_server_is_up_once_its_check_has_passed(haproxy: &Haproxy) -> TestResult {
    for (rise, fall) in [(1, 2), (2, 3), (3, 2)] {
        let one = One::start(haproxy, &format!("check inter 150ms rise {rise} fall {fall}"));
        eventually(PATIENCE, "a first check", || (one.behind.checks() > 0).then_some(()));
        one.maint();
        one.behind.set_health(Health::Bad);
        thread::sleep(Duration::from_millis(200));
        let mut running = Program::request(&one.request("ready", json!({ "timeout": 20 }))).spawn();
        // HAProxy says UP until the checks have failed.
        eventually(PATIENCE, "the checks to fail", || (one.status() == "DOWN").then_some(()));
        assert!(!running.ended(), "rise {rise} fall {fall}: no check has passed");
        one.behind.set_health(Health::Good);
        let report = assert_done(&running.wait());
        assert_eq!(report["changed"], true);
        assert_eq!(server(&report, "app/one")["after"]["operational_state"], "running");
        assert!(one.status().starts_with("UP"), "{}", one.status());

        // The other way: good all the time, but not before a check since the change.
        one.maint();
        thread::sleep(Duration::from_millis(200));
        let before = one.behind.checks();
        assert_done(&one.run("ready", json!({ "timeout": 20 })));
        assert!(one.behind.checks() > before, "rise {rise} fall {fall}: a check has passed since the change");
    }
    Ok(())
}

fn a_check_that_never_passes_is_not_up(haproxy: &Haproxy) -> TestResult {
    for (health, fall) in [(Health::Bad, 2), (Health::Refuse, 2), (Health::Bad, 1)] {
        let one = One::start(haproxy, &format!("check inter 100ms rise 2 fall {fall}"));
        one.maint();
        one.behind.set_health(health);
        let run = one.run("ready", json!({ "timeout": 1.2 }));
        let report = run.report();
        assert_eq!((kind(&report), &report["changed"]), ("not_up", &json!(true)), "{health:?} {fall}: {report}");
        assert_eq!(report["error"]["retryable"], true);
        let entry = server(&report, "app/one");
        let msg = entry["error"]["msg"].as_str().unwrap();
        let seen = if health == Health::Bad { "L7STS" } else { "L4CON" };
        assert!(msg.contains("app/one does not take traffic after 1.2 s: it is down") && msg.contains(seen), "{msg}");
        let after = (&entry["after"]["operational_state"], &entry["after"]["admin_state"]);
        assert_eq!(after, (&json!("stopped"), &json!("drain")), "{entry}");
        assert!(
            run.elapsed >= Duration::from_millis(1200) && run.elapsed < Duration::from_secs(20),
            "{:?}",
            run.elapsed
        );
        assert_eq!(one.instance.row("app", "one").admin, 8, "it stays in drain, where no client meets it");
    }
    Ok(())
}

fn a_server_that_goes_down_at_once_has_to_stay_up(haproxy: &Haproxy) -> TestResult {
    // With time enough for the check on a busy machine, since any failure begins the time anew.
    let one = One::start(haproxy, "check inter 1s rise 1 fall 1");
    one.maint();
    let run = one.run("ready", json!({ "timeout": 20 }));
    assert_done(&run);
    assert!(run.elapsed >= Duration::from_secs(5) && run.elapsed < Duration::from_secs(20), "{:?}", run.elapsed);
    Ok(())
}

fn slowstart_is_waited_for(haproxy: &Haproxy) -> TestResult {
    for options in ["slowstart 3s", "check inter 100ms slowstart 3s"] {
        let one = One::start(haproxy, options);
        one.maint();
        let run = one.run("ready", json!({ "timeout": 20 }));
        let report = assert_done(&run);
        assert_eq!(server(&report, "app/one")["after"]["operational_state"], "running");
        assert_eq!(one.instance.state("app", "one"), (0, 2));
        if !haproxy.at_least(2, 6) {
            // Before 2.5 slowstart counts from before maint, so that it may be over at once.
            continue;
        }
        assert!(run.elapsed >= Duration::from_millis(2_900), "{options}: {:?}", run.elapsed);
        one.maint();
        let report = one.run("ready", json!({ "timeout": 0.3 })).report();
        assert_eq!(kind(&report), "not_up");
        let msg = report["error"]["msg"].as_str().unwrap();
        let why = ["slowstart", "has not passed", "has not been up for long enough"];
        assert!(why.iter().any(|why| msg.contains(why)), "{msg}");
    }
    Ok(())
}

fn what_has_no_check_counts_at_once(haproxy: &Haproxy) -> TestResult {
    let one = One::start(haproxy, "");
    one.maint();
    one.behind.set_health(Health::Refuse);
    let run = one.run("ready", json!({ "timeout": 20 }));
    let report = assert_done(&run);
    assert!(run.elapsed < Duration::from_secs(3), "{:?}", run.elapsed);
    let said = warnings(&report);
    assert!(said.contains("app/one") && said.contains("no health check"), "nobody has seen it work: {said:?}");

    // The same where its check is paused.
    let one = One::start(haproxy, "check inter 50ms");
    one.instance.set("disable health app/one");
    one.maint();
    let report = assert_done(&one.run("ready", json!({ "timeout": 20 })));
    assert!(warnings(&report).contains("no health check"), "{report}");
    Ok(())
}

fn an_agent_that_sets_it_back_is_noticed(haproxy: &Haproxy) -> TestResult {
    for (words, state, was) in
        [("drain", "ready", (1, 0)), ("maint", "ready", (8, 2)), ("ready", "maint", (0, 2)), ("ready", "drain", (0, 2))]
    {
        let agent = Agent::start("up");
        let one = One::start(haproxy, &format!("check inter 50ms {}", agent.options("100ms")));
        agent.await_asked();
        one.instance.set_state(
            "app/one",
            if was.0 == 1 {
                "maint"
            } else if was.0 == 8 {
                "drain"
            } else {
                "ready"
            },
        );
        agent.say(words);
        agent.await_asked();
        let run = one.run(state, json!({ "timeout": 20, "stable": 1 }));
        let report = run.report();
        assert_eq!(kind(&report), "overridden", "agent {words}, wanted {state}: {report}");
        assert!(run.elapsed < Duration::from_secs(10), "{:?}", run.elapsed);
        let msg = report["error"]["msg"].as_str().unwrap();
        assert!(msg.contains("agent check") && msg.contains("'agent': 'disabled'"), "{msg}");
        assert_eq!(report["error"]["retryable"], false);

        // Without the agent's word it is as wanted.
        let mut request = one.request(state, json!({ "timeout": 20, "stable": 0.5 }));
        request["agent"] = json!("disabled");
        assert_eq!(Program::request(&request).report()["failed"], false, "agent {words}, wanted {state}");
    }
    Ok(())
}

fn a_server_that_answers_404_takes_no_traffic(haproxy: &Haproxy) -> TestResult {
    let one = One::start(haproxy, "check inter 100ms rise 1 fall 3");
    one.maint();
    one.behind.set_health(Health::NotFound);
    let report = one.run("ready", json!({ "timeout": 1.2 })).report();
    assert_eq!(kind(&report), "not_up", "{report}");
    assert!(report["error"]["msg"].as_str().unwrap().contains("404"), "{report}");
    assert_eq!(server(&report, "app/one")["after"]["operational_state"], "stopping");
    let running = Program::request(&one.request("ready", json!({ "timeout": 20 }))).spawn();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(one.instance.row("app", "one").admin, 8);
    one.behind.set_health(Health::Good);
    assert_eq!(assert_done(&running.wait())["changed"], true, "from drain to ready");
    Ok(())
}

fn a_server_has_to_stay_up_for_as_long_as_asked(haproxy: &Haproxy) -> TestResult {
    let one = One::start(haproxy, "check inter 50ms rise 1 fall 2");
    eventually(PATIENCE, "a first check", || (one.behind.checks() > 0).then_some(()));
    one.maint();
    let running = Program::request(&one.request("ready", json!({ "timeout": 20, "stable": 1.5 }))).spawn();
    // Up for a while, but not for long enough: the time begins again.
    thread::sleep(Duration::from_millis(700));
    one.behind.set_health(Health::Bad);
    eventually(PATIENCE, "it to go down", || (one.status() == "DOWN").then_some(()));
    thread::sleep(Duration::from_millis(900));
    one.behind.set_health(Health::Good);
    let run = running.wait();
    assert_done(&run);
    assert!(run.elapsed >= Duration::from_millis(700 + 900 + 1500), "{:?}", run.elapsed);

    // One that comes and goes is never up for that long.
    let report = {
        one.maint();
        let running = Program::request(&one.request("ready", json!({ "timeout": 1.5, "stable": 10 }))).spawn();
        running.wait().report()
    };
    assert_eq!(kind(&report), "not_up");
    assert!(report["error"]["msg"].as_str().unwrap().contains("long enough"), "{report}");
    Ok(())
}

fn what_keeps_a_server_from_traffic_is_said(haproxy: &Haproxy) -> TestResult {
    let one = One::start(haproxy, "");
    one.instance.set("set server app/one weight 0");
    let report = one.run("ready", json!({ "timeout": 0.3 })).report();
    assert_eq!((kind(&report), &report["changed"]), ("not_up", &json!(false)));
    assert!(report["error"]["msg"].as_str().unwrap().contains("weight is 0"), "{report}");
    // Given a weight as well, it takes traffic.
    let mut request = one.request("ready", json!({ "timeout": 10 }));
    request["weight"] = json!(1);
    assert_eq!(Program::request(&request).report()["failed"], false);
    Ok(())
}

fn a_server_that_is_up_is_not_waited_for(haproxy: &Haproxy) -> TestResult {
    let one = One::start(haproxy, "check inter 50ms rise 2 fall 3");
    eventually(PATIENCE, "checks", || (one.behind.checks() > 4).then_some(()));
    let recorder = Recorder::on(&one.instance);
    let mut request = one.request("ready", json!(true));
    request["instances"] = json!(recorder.address());
    let run = Program::request(&request).run();
    assert_eq!(assert_done(&run)["changed"], false);
    assert!(run.elapsed < Duration::from_secs(2), "{:?}", run.elapsed);
    assert_eq!(recorder.changing_commands(), [""; 0]);
    Ok(())
}

fn sessions_are_waited_for_after_drain_and_maint(haproxy: &Haproxy) -> TestResult {
    let one = One::start(haproxy, "");
    for (state, mask) in [("drain", (8, 2)), ("maint", (1, 0))] {
        one.instance.set_state("app/one", "ready");
        one.behind.hold();
        let held = Bound::hold(one.port.address(), &one.behind);
        let mut running = Program::request(&one.request(state, json!({ "timeout": 20 }))).spawn();
        one.instance.await_state("app", "one", mask);
        thread::sleep(Duration::from_millis(400));
        assert!(!running.ended(), "{state}: a session is left");
        one.behind.release();
        assert_eq!(held.served_by(), "one");
        let report = assert_done(&running.wait());
        assert_eq!((&report["changed"], &server(&report, "app/one")["sessions"]), (&json!(true), &json!(0)));
    }
    Ok(())
}

fn sessions_that_do_not_end_are_reported(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    for state in ["drain", "maint"] {
        let request = json!({ "server": ["web1", "web2"], "state": state, "wait": { "timeout": 0.4 },
            "instances": stage.http.address() });
        let report = Program::request(&request).report();
        assert_eq!(kind(&report), "not_drained", "{report}");
        let entry = server(&report, "web/web1");
        assert_eq!((&entry["sessions"], &entry["after"]["admin_state"]), (&json!(1), &json!(state)), "{entry}");
        assert!(entry["error"]["msg"].as_str().unwrap().contains("it has 1 session"), "{entry}");
        assert_eq!(server(&report, "web/web2")["failed"], false);
    }
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    Ok(())
}

fn a_restart_is_waited_for(haproxy: &Haproxy) -> TestResult {
    let mut one = One::start(haproxy, "check inter 50ms rise 1 fall 2");
    one.maint();
    let running = Program::request(&one.request("ready", json!({ "timeout": 20, "stable": 3 }))).spawn();
    one.instance.await_state("app", "one", (8, 2));
    thread::sleep(Duration::from_millis(300));
    // For longer than a connection is tried again at once.
    one.instance.kill();
    thread::sleep(Duration::from_millis(1_500));
    one.instance.start_again();
    let pid = one.instance.pid();
    let run = running.wait();
    let report = assert_done(&run);
    assert_eq!((&report["changed"], &report["instances"][0]["pid"]), (&json!(true), &json!(pid)), "{report}");
    assert!(warnings(&report).contains("was reloaded during the run"), "{report}");
    Ok(())
}

fn an_instance_that_stops_in_a_wait_is_named(haproxy: &Haproxy) -> TestResult {
    for (state, flags) in [("ready", 8), ("maint", 1)] {
        for is_killed in [false, true] {
            let mut one = One::start(haproxy, "check inter 50ms rise 1 fall 2");
            let held = (state == "maint").then(|| Bound::hold(one.port.address(), &one.behind));
            if state == "ready" {
                one.maint();
                one.behind.set_health(Health::Bad);
            }
            let mut request = one.request(state, json!({ "timeout": 20 }));
            request["timeout"] = json!(1);
            let running = Program::request(&request).spawn();
            eventually(PATIENCE, "the change", || (one.instance.row("app", "one").admin == flags).then_some(()));
            thread::sleep(Duration::from_millis(200));
            if is_killed {
                one.instance.kill()
            } else {
                one.instance.stop()
            }
            let report = running.wait().report();
            let error = &report["error"];
            assert_eq!((kind(&report), &error["instance"]), ("unreachable", &json!("waiting")), "{state}: {report}");
            let msg = report["msg"].as_str().unwrap();
            let socket = one.instance.address();
            assert!(msg.starts_with("waiting: ") && msg.contains(&socket), "{state}: {report}");
            assert!(msg.contains("HAProxy has stopped") && !msg.contains("correct the name"), "{state}: {report}");
            let entry = server(&report, "app/one");
            assert_eq!((kind(entry), &entry["changed"]), ("unreachable", &json!(true)), "{state}: {report}");
            one.behind.release();
            drop(held.map(Bound::answer));
        }
    }
    Ok(())
}

fn what_cannot_be_read_back_after_a_wait_has_failed(haproxy: &Haproxy) -> TestResult {
    let one = One::start(haproxy, "");
    one.maint();
    let pid = Pid::from_raw(one.instance.pid());
    // It is observed and read back after the command; then it hangs.
    let socket = one.instance.folder.join("tap.sock");
    let tap = Tap::at(&socket, &one.instance.socket, ("show servers state", 2), move || freeze(pid));
    let mut request = one.request("ready", json!({ "timeout": 20 }));
    request["instances"] = json!(tap.address());
    request["timeout"] = json!(1);
    let report = Program::request(&request).report();
    kill(pid, Signal::SIGCONT)?;
    assert_eq!(kind(&report), "timeout", "{report}");
    let entry = server(&report, "app/one");
    assert_eq!((&entry["failed"], &entry["after"], kind(entry)), (&json!(true), &Value::Null, "timeout"), "{entry}");
    Ok(())
}

fn what_is_reported_is_how_it_is_after_the_wait(haproxy: &Haproxy) -> TestResult {
    let one = One::start(haproxy, "check inter 100ms rise 1 fall 2");
    one.behind.set_health(Health::Bad);
    eventually(PATIENCE, "the checks to fail", || (one.status() == "DOWN").then_some(()));
    // It is ready already, so that there is nothing to send, and comes up while it is waited for.
    let mut running = Program::request(&one.request("ready", json!({ "timeout": 20 }))).spawn();
    thread::sleep(Duration::from_millis(400));
    assert!(!running.ended());
    one.behind.set_health(Health::Good);
    let report = assert_done(&running.wait());
    let after = &server(&report, "app/one")["after"];
    assert_eq!((&report["changed"], &after["operational_state"]), (&json!(false), &json!("running")), "{report}");
    assert!(!warnings(&report).contains("check fails"), "{report}");
    Ok(())
}

fn a_server_that_is_deleted_ends_its_wait(haproxy: &Haproxy) -> TestResult {
    if !haproxy.at_least(2, 6) {
        return Ok(());
    }
    let (good, port) = (HttpBackend::start("good"), Port::reserve());
    let proxies = format!(
        "listen app\n    bind 127.0.0.1:{}\n    balance roundrobin\n    option httpchk GET /health\n",
        port.number()
    );
    let instance = Setup::new("deleted", &proxies).start(haproxy);
    let add = |name: &str, address: &str| {
        let reply = instance.raw(&format!("add server app/{name} {address} check inter 100ms rise 1 fall 2"));
        assert!(reply.contains("New server registered"), "{reply:?}");
        instance.raw(&format!("enable health app/{name}"));
    };
    add("first", "127.0.0.1:9");
    let asked = json!({
        "server": "app/first", "state": "ready", "wait": { "timeout": 30 }, "instances": instance.address(),
    });
    let running = Program::request(&asked).spawn();
    eventually(PATIENCE, "the checks to fail", || (instance.stat("app", "first", "status") == "DOWN").then_some(()));
    // Another one gets its number, and is up.
    let number = instance.stat("app", "first", "sid");
    instance.set_state("app/first", "maint");
    let reply = instance.raw("del server app/first");
    assert!(reply.contains("deleted"), "{reply:?}");
    add("second", &good.address().to_string());
    instance.set_state("app/second", "ready");
    assert_eq!(instance.stat("app", "second", "sid"), number);
    let begun = std::time::Instant::now();
    let report = running.wait().report();
    assert!(["server_not_found", "overridden"].contains(&kind(&report)), "{report}");
    assert!(begun.elapsed() < Duration::from_secs(5), "it ends at once");
    assert_eq!(server(&report, "app/first")["failed"], json!(true), "{report}");
    Ok(())
}

fn a_server_that_is_created_anew_ends_its_wait(haproxy: &Haproxy) -> TestResult {
    // Older ones do not tell it from the former.
    if !haproxy.at_least(2, 8) {
        return Ok(());
    }
    let (good, port) = (HttpBackend::start("good"), Port::reserve());
    let proxies = format!("listen app\n    bind 127.0.0.1:{}\n    option httpchk GET /health\n", port.number());
    let instance = Setup::new("anew", &proxies).start(haproxy);
    let add =
        |address: &str| format!("add server app/web {address} check inter 100ms rise 1 fall 2; enable health app/web");
    instance.raw(&add("127.0.0.1:9"));
    let asked =
        json!({ "server": "app/web", "state": "ready", "wait": { "timeout": 30 }, "instances": instance.address() });
    let running = Program::request(&asked).spawn();
    eventually(PATIENCE, "the checks to fail", || (instance.stat("app", "web", "status") == "DOWN").then_some(()));
    // Another machine gets the name and the number, between two polls.
    let number = instance.stat("app", "web", "sid");
    let anew = add(&good.address().to_string());
    instance
        .raw(&format!("set server app/web state maint; del server app/web; {anew}; set server app/web state ready"));
    assert_eq!((instance.stat("app", "web", "sid"), instance.state("app", "web").0), (number, 0));
    let begun = std::time::Instant::now();
    let report = running.wait().report();
    assert_eq!(kind(&report), "server_not_found", "{report}");
    assert!(begun.elapsed() < Duration::from_secs(5), "it ends at once");
    Ok(())
}
