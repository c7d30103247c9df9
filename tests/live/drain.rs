//! Servers go out without cutting anybody off: real connections that last, and what becomes of each of them.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::report::{commands, kind, server, servers, warnings};
use crate::support::stage::PUPPET_BACKENDS;
use crate::support::{
    Bound, Haproxy, Health, HttpBackend, Instance, KeepAlive, Mode, OnTerminal, PATIENCE, Port, Program, Recorder,
    Setup, Stage, TcpClient, TcpEcho, Test, TestResult, changing, eventually, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        all_servers_drain_at_once_and_each_goes_to_maint_when_it_is_free,
        what_is_down_drained_or_in_maint_is_not_drained,
        a_drain_that_fails_leaves_the_server_in_drain,
        a_drain_that_is_rolled_back_leaves_everything_as_it_was,
        a_drain_that_ends_in_maint_cuts_nobody_off,
        sessions_that_haproxy_ends_in_maint_are_not_left,
        a_drain_that_ends_in_shutdown_cuts_everybody_off,
        sessions_are_shut_down_also_where_an_effect_is_waited_for,
        all_servers_share_one_deadline,
        bound_clients_keep_a_drain_from_ending,
        plain_tcp_sessions_are_waited_for,
        idle_connections_are_not_waited_for,
        sessions_are_shut_down_until_none_is_left,
        sessions_are_ended_at_a_pace,
        many_tunnels_of_two_processes_are_ended_at_a_pace,
        a_dry_run_shows_the_commands_and_a_second_run_sends_none,
        looks_cost_next_to_nothing,
        a_reload_during_a_drain_is_followed,
        a_reload_while_sessions_are_ended_is_followed,
        a_reload_after_a_drain_cuts_nobody_off,
        what_was_not_drained_stays_so_over_a_reload,
        a_signal_ends_the_run_with_a_whole_report,
        maint_by_somebody_else_is_as_good,
        ready_by_somebody_else_is_not_fought,
    ]
}

/// A request for maint with a drain.
fn drained(servers: &Value, drain: &Value, instances: &Value) -> Value {
    json!({ "server": servers, "state": "maint", "drain": drain, "instances": instances })
}

fn direct(stage: &Stage) -> Value {
    stage.instances().iter().map(|one| json!({ "name": one.name(), "socket": one.address() })).collect()
}

/// Waits until a server was asked to drain, as `show servers state` has it.
fn await_drain(instance: &Instance, backend: &str, server: &str) {
    instance.await_state(backend, server, (8, 2));
}

fn sessions(instance: &Instance, backend: &str, server: &str) -> String {
    instance.stat(backend, server, "scur")
}

fn all_servers_drain_at_once_and_each_goes_to_maint_when_it_is_free(haproxy: &Haproxy) -> TestResult {
    const PUPPET: &str = "puppet-i0-svc1";
    let stage = Stage::start(haproxy);
    let recorders: Vec<Recorder> = stage.instances().into_iter().map(Recorder::on).collect();
    let instances: Value = stage
        .instances()
        .into_iter()
        .zip(&recorders)
        .map(|(instance, recorder)| json!({ "name": instance.name(), "socket": recorder.address() }))
        .collect();
    let web = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let ldap = Bound::hold(stage.frontend("directory"), stage.server("ldap1"));
    let puppet = Bound::hold(stage.frontend("i0_puppet_masters"), stage.server(PUPPET));
    let names = json!(["web1", "ldap1", PUPPET]);
    let running = Program::request(&drained(&names, &json!({ "timeout": 30 }), &instances)).spawn();

    await_drain(&stage.http, "web", "web1");
    await_drain(&stage.ldap, "directory", "ldap1");
    for backend in PUPPET_BACKENDS {
        let state = if backend == "i0_puppet_masters" { (8, 2) } else { (1, 0) };
        stage.puppet.await_state(backend, PUPPET, state);
    }
    let others = stage.who_answers("web");
    assert!(!others.contains("web1") && others.len() == 2, "new clients go elsewhere: {others:?}");
    stage.server("ldap1").release();
    stage.ldap.await_state("directory", "ldap1", (1, 0));
    assert_eq!(stage.http.state("web", "web1"), (8, 2), "one does not wait for the other");
    assert_eq!(stage.puppet.state("i0_puppet_masters", PUPPET), (8, 2));
    stage.server("web1").release();
    stage.server(PUPPET).release();
    let run = running.wait();
    let report = run.report();
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
    assert_eq!(run.code, Some(0));
    assert_eq!(servers(&report).len(), 8);
    for entry in report["servers"].as_array().unwrap() {
        let name = format!("{}/{}", entry["backend"].as_str().unwrap(), entry["server"].as_str().unwrap());
        let sent = json!([format!("set server {name} state drain"), format!("set server {name} state maint")]);
        assert_eq!(entry["commands"], sent);
        assert_eq!(
            (&entry["before"]["admin_state"], &entry["after"]["admin_state"]),
            (&json!("ready"), &json!("maint"))
        );
        assert_eq!((&entry["sessions"], &entry["queue"]), (&json!(0), &json!(0)), "{entry}");
    }
    assert_eq!(web.served_by(), "web1");
    assert_eq!(ldap.served_by(), "ldap1");
    assert_eq!(puppet.served_by(), PUPPET);

    let mut timeline: Vec<(Instant, String)> = recorders.iter().flat_map(Recorder::timeline).collect();
    timeline.sort_by_key(|(time, _)| *time);
    let lines: Vec<&str> = timeline.iter().map(|(_, line)| line.as_str()).collect();
    let first = |what: &str| lines.iter().position(|line| line.ends_with(what)).unwrap();
    let last = |what: &str| lines.iter().rposition(|line| line.ends_with(what)).unwrap();
    assert!(last("state drain") < first("state maint"), "{lines:?}");
    let between = &lines[first("state drain")..last("state drain")];
    assert!(!between.iter().any(|line| line.starts_with("show stat")), "nothing is waited for yet: {between:?}");
    assert!(timeline[last("state drain")].0 - timeline[first("state drain")].0 < Duration::from_secs(1));
    Ok(())
}

fn what_is_down_drained_or_in_maint_is_not_drained(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start_with(haproxy, "check inter 50ms rise 1 fall 1", |setup| setup);
    let recorder = Recorder::on(&stage.http);
    let instances = json!(recorder.address());
    // One is down, one is in maint with a session that goes on, one is in drain and idle.
    let held = Bound::hold(stage.frontend("web"), stage.server("web2"));
    stage.server("web1").set_health(Health::Bad);
    stage.http.await_state("web", "web1", (0, 0));
    stage.http.set_state("web/web2", "maint");
    stage.http.set_state("web/web3", "drain");
    assert_eq!(sessions(&stage.http, "web", "web2"), "1");
    let request = drained(&json!("web/*"), &json!({ "timeout": 20 }), &instances);
    let run = Program::request(&request).run();
    let report = run.report();
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
    assert!(run.elapsed < Duration::from_secs(5), "{:?}", run.elapsed);
    assert_eq!(
        recorder.changing_commands(),
        ["set server web/web1 state maint", "set server web/web3 state maint"],
        "nothing goes to drain, and least of all what is in maint"
    );
    assert_eq!(server(&report, "web/web2")["changed"], false);
    assert!(!held.has_ended());
    stage.server("web2").release();
    assert_eq!(held.served_by(), "web2");
    Ok(())
}

/// The servers web1, with a session that goes on, and web2, which is idle, while both are drained for half a second.
fn time_out(stage: &Stage, on_timeout: &str) -> (Bound, Recorder, Value) {
    let recorder = Recorder::on(&stage.http);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let drain = json!({ "timeout": 0.5, "on_timeout": on_timeout });
    let run = Program::request(&drained(&json!(["web1", "web2"]), &drain, &json!(recorder.address()))).run();
    let report = run.report();
    assert!(run.elapsed >= Duration::from_millis(500) && run.elapsed < Duration::from_secs(5), "{:?}", run.elapsed);
    assert_eq!(run.code, Some(i32::from(report["failed"] == true)));
    (held, recorder, report)
}

fn a_drain_that_fails_leaves_the_server_in_drain(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let (held, recorder, report) = time_out(&stage, "fail");
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(true)), "{report}");
    assert_eq!(kind(&report), "not_drained");
    assert_eq!(report["error"]["retryable"], true);
    let entry = server(&report, "web/web1");
    assert_eq!((kind(entry), &entry["sessions"], &entry["queue"]), ("not_drained", &json!(1), &json!(0)), "{entry}");
    assert_eq!((&entry["after"]["admin_state"], &entry["failed"]), (&json!("drain"), &json!(true)));
    let msg = entry["error"]["msg"].as_str().unwrap();
    assert!(msg.contains("web/web1 still has 1 session after 0.5 s"), "{msg}");
    assert!(msg.contains("cookie") && msg.contains("'drain.on_timeout'"), "the likely cause and what to do: {msg}");
    let other = server(&report, "web/web2");
    assert_eq!((&other["after"]["admin_state"], &other["failed"]), (&json!("maint"), &json!(false)));
    assert_eq!((stage.http.state("web", "web1"), stage.http.state("web", "web2")), ((8, 2), (1, 0)));

    // Once more, with the session gone: only what is left is done.
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    recorder.clear();
    let request = drained(&json!(["web1", "web2"]), &json!(true), &json!(recorder.address()));
    assert_eq!(Program::request(&request).report()["failed"], false);
    assert_eq!(recorder.changing_commands(), ["set server web/web1 state maint"]);
    Ok(())
}

fn a_drain_that_is_rolled_back_leaves_everything_as_it_was(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let (held, recorder, report) = time_out(&stage, "rollback");
    assert_eq!((&report["changed"], &report["failed"]), (&json!(false), &json!(true)), "{report}");
    assert_eq!(kind(&report), "not_drained");
    for (name, state, was) in [("web1", (0, 2), "drain"), ("web2", (0, 2), "maint")] {
        let entry = server(&report, &format!("web/{name}"));
        assert_eq!((&entry["rolled_back"], &entry["changed"]), (&json!(true), &json!(false)), "{was}: {entry}");
        assert_eq!(entry["before"], entry["after"]);
        assert_eq!(stage.http.state("web", name), state);
    }
    assert_eq!(kind(server(&report, "web/web1")), "not_drained");
    let sent = recorder.changing_commands();
    assert_eq!(sent[sent.len() - 2..], ["set server web/web2 state ready", "set server web/web1 state ready"]);
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    Ok(())
}

fn a_drain_that_ends_in_maint_cuts_nobody_off(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let (held, _, report) = time_out(&stage, "maint");
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
    assert_eq!((stage.http.state("web", "web1"), stage.http.state("web", "web2")), ((1, 0), (1, 0)));
    let said = warnings(&report);
    assert!(said.contains("web/web1 went to maint with 1 session after 0.5 s of drain"), "{said}");
    assert!(!said.contains("web/web2"), "{said}");
    assert_eq!(server(&report, "web/web1")["sessions"], 1);
    assert!(!held.has_ended());
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    Ok(())
}

fn sessions_that_haproxy_ends_in_maint_are_not_left(haproxy: &Haproxy) -> TestResult {
    let (web, front) = (HttpBackend::start("s1"), Port::reserve());
    let proxies = format!(
        "listen app\n    bind 127.0.0.1:{}\n    server s1 {} on-marked-down shutdown-sessions\n",
        front.number(),
        web.address()
    );
    let instance = Setup::new("marked", &proxies).start(haproxy);
    let held = Bound::hold(front.address(), &web);
    let drain = json!({ "timeout": 0.3, "on_timeout": "maint" });
    let report = Program::request(&drained(&json!("s1"), &drain, &json!(instance.address()))).report();
    assert_eq!((&report["failed"], &server(&report, "app/s1")["sessions"]), (&json!(false), &json!(0)), "{report}");
    assert!(!warnings(&report).contains("went to maint with"), "{report}");
    assert!(held.answer().map_or(true, |response| response.status >= 500), "the client's connection really ends");
    Ok(())
}

fn a_drain_that_ends_in_shutdown_cuts_everybody_off(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let (held, recorder, report) = time_out(&stage, "shutdown");
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
    assert_eq!((stage.http.state("web", "web1"), stage.http.state("web", "web2")), ((1, 0), (1, 0)));
    assert!(warnings(&report).contains("web/web1 went to maint with 1 session"), "{report}");
    assert_eq!(sessions(&stage.http, "web", "web1"), "0");
    assert!(stage.server("web1").held() == 1, "the server has not answered");
    assert!(held.answer().map_or(true, |response| response.status == 502), "the client's connection really ends");
    let ended: Vec<String> =
        recorder.changing_commands().into_iter().filter(|command| command.starts_with("shutdown")).collect();
    assert!(!ended.is_empty(), "{report}");
    assert!(ended.iter().all(|command| command == "shutdown sessions server web/web1"), "{ended:?}");
    Ok(())
}

fn sessions_are_shut_down_also_where_an_effect_is_waited_for(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let mut request =
        drained(&json!("web1"), &json!({ "timeout": 0.2, "on_timeout": "shutdown" }), &json!(stage.http.address()));
    request["wait"] = json!({ "timeout": 1 });
    let report = Program::request(&request).report();
    assert_eq!(report["failed"], false, "{report}");
    assert_eq!(sessions(&stage.http, "web", "web1"), "0");
    assert!(held.answer().map_or(true, |response| response.status == 502));
    Ok(())
}

fn all_servers_share_one_deadline(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let _web = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let _ldap = Bound::hold(stage.frontend("directory"), stage.server("ldap1"));
    let _more = Bound::hold(stage.frontend("directory"), stage.server("ldap2"));
    let names = json!(["web1", "ldap1", "ldap2"]);
    let run = Program::request(&drained(&names, &json!({ "timeout": 1.2 }), &direct(&stage))).run();
    let report = run.report();
    assert!(
        run.elapsed >= Duration::from_millis(1200) && run.elapsed < Duration::from_millis(2400),
        "{:?}",
        run.elapsed
    );
    let failed = report["servers"].as_array().unwrap().iter().filter(|entry| kind(entry) == "not_drained").count();
    assert_eq!(failed, 3, "all of them are reported: {report}");
    assert_eq!(kind(&report), "not_drained");
    assert!(report["msg"].as_str().unwrap().contains("and 2 more"), "{report}");
    Ok(())
}

fn bound_clients_keep_a_drain_from_ending(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let instances = json!(stage.http.address());
    let mut held = vec![Bound::hold(stage.frontend("web"), stage.server("web1"))];
    let running = Program::request(&drained(&json!("web1"), &json!({ "timeout": 1 }), &instances)).spawn();
    await_drain(&stage.http, "web", "web1");
    held.push(Bound::hold(stage.frontend("web"), stage.server("web1")));
    let report = running.wait().report();
    assert_eq!(kind(&report), "not_drained", "{report}");
    let msg = report["error"]["msg"].as_str().unwrap();
    assert!(msg.contains("still has 2 sessions") && msg.contains("persistence cookie"), "{msg}");
    assert_eq!(server(&report, "web/web1")["sessions"], 2);

    // In maint they go elsewhere, so that the sessions end by themselves.
    let drain = json!({ "timeout": 0.2, "on_timeout": "maint" });
    let report = Program::request(&drained(&json!("web1"), &drain, &instances)).report();
    assert_eq!(report["failed"], false, "{report}");
    assert_ne!(Bound::send(stage.frontend("web"), "web1", "/").served_by(), "web1");
    stage.server("web1").release();
    for client in held {
        assert_eq!(client.served_by(), "web1");
    }
    let request = json!({ "server": "web1", "state": "maint", "wait": { "timeout": 10 }, "instances": instances });
    let report = Program::request(&request).report();
    assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(false)), "{report}");
    Ok(())
}

fn plain_tcp_sessions_are_waited_for(haproxy: &Haproxy) -> TestResult {
    let echo = TcpEcho::start();
    let port = Port::reserve();
    let proxies = format!(
        "listen tcp\n    mode tcp\n    bind 127.0.0.1:{}\n    server one {}\n    server two 127.0.0.1:9 disabled\n",
        port.number(),
        echo.address()
    );
    let instance = Setup::new("plain", &proxies).start(haproxy);
    let mut clients = [TcpClient::connect(port.address()), TcpClient::connect(port.address())];
    let request = drained(&json!("one"), &json!({ "timeout": 20 }), &json!(instance.address()));
    let mut running = Program::request(&request).spawn();
    await_drain(&instance, "tcp", "one");
    for client in &mut clients {
        client.echo()?;
    }
    let [first, mut second] = clients;
    drop(first);
    thread::sleep(Duration::from_millis(300));
    second.echo()?;
    assert!(!running.ended() && instance.state("tcp", "one") == (8, 2), "a session is left");
    drop(second);
    let report = running.wait().report();
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
    assert_eq!(instance.state("tcp", "one"), (1, 0));

    // What is left is ended, and the client sees it at once.
    instance.set_state("tcp/one", "ready");
    let mut client = TcpClient::connect(port.address());
    let request =
        json!({ "server": "one", "state": "maint", "shutdown_sessions": true, "instances": instance.address() });
    let report = Program::request(&request).report();
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
    client.await_end();
    Ok(())
}

fn idle_connections_are_not_waited_for(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let mut client = KeepAlive::connect(stage.frontend("web"))?;
    assert_eq!(client.get("/", "Cookie: SRV=web1\r\n")?, (200, "web1".to_owned()));
    let run = Program::request(&drained(&json!("web1"), &json!({ "timeout": 20 }), &json!(stage.http.address()))).run();
    assert_eq!(run.report()["failed"], false);
    assert!(run.elapsed < Duration::from_secs(5), "{:?}", run.elapsed);
    let (status, name) = client.get("/", "Cookie: SRV=web1\r\n")?;
    assert!(status == 200 && name != "web1", "the kept connection goes on elsewhere: {status} {name}");
    Ok(())
}

fn sessions_are_shut_down_until_none_is_left(haproxy: &Haproxy) -> TestResult {
    let behind = HttpBackend::start("one");
    let port = Port::reserve();
    // A queue, so that new sessions begin as others end.
    let proxies = format!(
        "listen app\n    bind 127.0.0.1:{}\n    cookie SRV insert indirect\n    timeout queue 30s\n    \
         server one {} cookie one maxconn 1\n",
        port.number(),
        behind.address()
    );
    let instance = Setup::new("ending", &proxies).start(haproxy);
    let recorder = Recorder::on(&instance);
    let first = Bound::hold(port.address(), &behind);
    let more: Vec<Bound> = (0..3).map(|_| Bound::send(port.address(), "one", "/hold")).collect();
    eventually(PATIENCE, "a queue", || (instance.stat("app", "one", "qcur") == "3").then_some(()));
    let request = json!({ "server": "one", "state": "maint", "shutdown_sessions": true, "timeout": 10,
        "instances": recorder.address() });
    let report = Program::request(&request).report();
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
    assert_eq!((sessions(&instance, "app", "one"), instance.stat("app", "one", "qcur")), ("0".into(), "0".into()));
    assert_eq!(commands(&report), recorder.changing_commands());
    assert!(first.answer().map_or(true, |response| response.status == 502));
    for client in more {
        let answer = client.answer();
        assert!(answer.as_ref().map_or(true, |response| response.status >= 500), "{answer:?}");
    }

    // In maint, with nothing left: nothing to do. With a session from before: no change either, but an end of it.
    recorder.clear();
    assert_eq!(Program::request(&request).report()["changed"], false);
    assert_eq!(recorder.changing_commands(), [""; 0]);
    instance.set_state("app/one", "ready");
    let late = Bound::hold(port.address(), &behind);
    instance.set_state("app/one", "maint");
    let report = Program::request(&request).report();
    assert_eq!(
        (&report["changed"], &report["failed"]),
        (&json!(false), &json!(false)),
        "sessions are no state: {report}"
    );
    assert!(late.answer().map_or(true, |response| response.status == 502));
    Ok(())
}

fn a_dry_run_shows_the_commands_and_a_second_run_sends_none(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let recorders: Vec<Recorder> = stage.instances().into_iter().map(Recorder::on).collect();
    let instances: Value = recorders.iter().map(|one| json!(one.address())).collect();
    stage.http.set_state("web/web2", "drain");
    stage.http.set_state("web/web3", "maint");
    let sent = || recorders.iter().flat_map(Recorder::changing_commands).collect::<Vec<_>>();
    let mut request = drained(&json!(["web/*", "ldap1"]), &json!({ "timeout": 10 }), &instances);
    request["dry_run"] = json!(true);
    let foreseen = Program::request(&request).report();
    assert_eq!(sent(), [""; 0]);
    request["dry_run"] = json!(false);
    let done = Program::request(&request).report();
    assert_eq!((&done["changed"], &done["failed"]), (&json!(true), &json!(false)), "{done}");
    assert_eq!(commands(&foreseen), commands(&done));
    assert_eq!(
        commands(&done),
        [
            "set server web/web1 state drain",
            "set server web/web1 state maint",
            "set server web/web2 state maint",
            "set server directory/ldap1 state drain",
            "set server directory/ldap1 state maint",
        ]
    );
    for (foreseen, done) in foreseen["servers"].as_array().unwrap().iter().zip(done["servers"].as_array().unwrap()) {
        assert_eq!((&foreseen["before"], &foreseen["after"]), (&done["before"], &done["after"]));
        assert_eq!(foreseen["changed"], done["changed"]);
    }
    recorders.iter().for_each(Recorder::clear);
    let again = Program::request(&request).report();
    assert_eq!((&again["changed"], &again["failed"]), (&json!(false), &json!(false)), "{again}");
    assert_eq!(sent(), [""; 0]);
    Ok(())
}

fn looks_cost_next_to_nothing(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let recorder = Recorder::on(&stage.http);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let running =
        Program::request(&drained(&json!("web1"), &json!({ "timeout": 30 }), &json!(recorder.address()))).spawn();
    await_drain(&stage.http, "web", "web1");
    // 50, 100, 200, 400, and 800 ms, and then a second each time.
    let looks = || recorder.timeline().iter().filter(|(_, line)| line.starts_with("show stat ")).count();
    eventually(PATIENCE, "seven looks", || (looks() >= 7).then_some(()));
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    assert_eq!(running.wait().report()["failed"], false);

    let timeline = recorder.timeline();
    let set = timeline.iter().position(|(_, line)| line.ends_with("state drain")).unwrap();
    let end = timeline.iter().position(|(_, line)| line.ends_with("state maint")).unwrap();
    let looks: Vec<usize> = (set..end).filter(|&at| timeline[at].1.starts_with("show stat ")).collect();
    let (first, last) = (looks[0], looks[looks.len() - 1]);
    for (_, line) in &timeline[first..=last] {
        let one_server = line.starts_with("show stat ") && line.split(' ').count() == 5 && !line.contains("-1");
        let is_cheap = one_server || ["prompt", "show info", "show cli level", "quit"].contains(&line.as_str());
        assert!(is_cheap, "{line:?} between two looks");
    }
    let gaps: Vec<u128> =
        looks.windows(2).map(|pair| (timeline[pair[1]].0 - timeline[pair[0]].0).as_millis()).collect();
    assert!(gaps.len() >= 5, "{gaps:?}");
    for (gap, least) in gaps.iter().zip([50, 100, 200, 400, 800, 1000, 1000, 1000]) {
        // The program may be late, as others run as well, but it is never early.
        assert!(*gap >= least - 5, "{gaps:?}");
    }
    Ok(())
}

fn a_reload_during_a_drain_is_followed(haproxy: &Haproxy) -> TestResult {
    let mut stage = Stage::start_master_worker(haproxy);
    let recorder = Recorder::on(&stage.http);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let mut running =
        Program::request(&drained(&json!(["web1", "web2"]), &json!({ "timeout": 30 }), &json!(recorder.address())))
            .spawn();
    stage.http.await_state("web", "web2", (1, 0));
    assert_eq!(stage.http.state("web", "web1"), (8, 2));
    let before = recorder.changing_commands();
    assert_eq!(
        before,
        ["set server web/web1 state drain", "set server web/web2 state drain", "set server web/web2 state maint"]
    );
    let old = stage.http.pid();
    stage.http.reload();
    // The old worker goes on with the session, and ends when that ends.
    eventually(PATIENCE, "maint in the new process", || {
        let is_out = stage.http.state("web", "web2") == (1, 0);
        (is_out || running.ended()).then_some(())
    });
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    let report = running.wait().report();
    assert_eq!((&report["changed"], &report["failed"]), (&json!(true), &json!(false)), "{report}");
    let new = stage.http.pid();
    assert_ne!(new, old);
    assert_eq!(report["instances"][0]["pid"], new);
    assert_eq!((stage.http.state("web", "web1"), stage.http.state("web", "web2")), ((1, 0), (1, 0)));
    assert!(warnings(&report).contains("was reloaded during the run"), "{report}");
    assert_eq!(server(&report, "web/web1")["before"]["admin_state"], "ready");
    let mut after = recorder.changing_commands().split_off(before.len());
    after.sort();
    assert_eq!(
        after,
        [
            "set server web/web1 state drain",
            "set server web/web1 state maint",
            "set server web/web2 state drain",
            "set server web/web2 state maint",
        ],
        "the new process has clients of its own: both are drained there"
    );
    Ok(())
}

fn a_reload_while_sessions_are_ended_is_followed(haproxy: &Haproxy) -> TestResult {
    let mut stage = Stage::start_master_worker(haproxy);
    let recorder = Recorder::on(&stage.http);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let request = json!({ "server": "web1", "state": "maint", "shutdown_sessions": true, "timeout": 20,
        "instances": recorder.address() });
    recorder.hold_changes();
    let running = Program::request(&request).spawn();
    recorder.await_held();
    recorder.let_go_of_one();
    stage.http.await_state("web", "web1", (1, 0));
    // The commands that end the sessions are on their way to the old process when the new one takes over.
    recorder.await_held();
    stage.http.reload();
    recorder.let_go();
    let report = running.wait().report();
    stage.server("web1").release();
    let _ = held.answer();
    assert_eq!(stage.http.state("web", "web1"), (1, 0), "{report}");
    let entry = server(&report, "web/web1");
    assert_eq!((&report["failed"], &entry["after"]["admin_state"]), (&json!(false), &json!("maint")), "{report}");
    assert!(warnings(&report).contains("was reloaded during the run"), "{report}");
    Ok(())
}

fn a_reload_after_a_drain_cuts_nobody_off(haproxy: &Haproxy) -> TestResult {
    let (web, front) = (HttpBackend::start("s1"), Port::reserve());
    let proxies = format!(
        "listen app\n    bind 127.0.0.1:{}\n    server s1 {} on-marked-down shutdown-sessions\n    \
         server s2 127.0.0.1:9 backup\n",
        front.number(),
        web.address()
    );
    let mut instance = Setup::new("anew", &proxies).mode(Mode::MasterWorker).start(haproxy);
    let mut request = drained(&json!("app/s1"), &json!({ "timeout": 20 }), &json!(instance.address()));
    request["wait"] = json!({ "timeout": 20, "stable": 2 });
    let mut running = Program::request(&request).spawn();
    instance.await_state("app", "s1", (1, 0));
    // The new process has the server in traffic, and a client there, before the run sees it.
    running.signal(Signal::SIGSTOP);
    instance.reload();
    let held = Bound::hold(front.address(), &web);
    running.signal(Signal::SIGCONT);
    instance.await_state("app", "s1", (8, 2));
    thread::sleep(Duration::from_millis(300));
    assert!(!running.ended() && !held.has_ended());
    web.release();
    assert_eq!(held.served_by(), "s1");
    let report = running.wait().report();
    assert_eq!(report["failed"], json!(false), "{report}");
    assert_eq!(instance.state("app", "s1"), (1, 0));
    Ok(())
}

fn what_was_not_drained_stays_so_over_a_reload(haproxy: &Haproxy) -> TestResult {
    let mut stage = Stage::start_master_worker(haproxy);
    let recorder = Recorder::on(&stage.http);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let mut request =
        drained(&json!(["web1", "web2"]), &json!({ "timeout": 0.5, "on_timeout": "fail" }), &json!(recorder.address()));
    request["wait"] = json!({ "timeout": 20, "stable": 3 });
    let running = Program::request(&request).spawn();
    stage.http.await_state("web", "web2", (1, 0));
    // The drain is over, and that web2 stays free is waited for.
    thread::sleep(Duration::from_millis(1_200));
    recorder.clear();
    stage.http.reload();
    let report = running.wait().report();
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    assert_eq!(kind(server(&report, "web/web1")), "not_drained", "{report}");
    assert_eq!(server(&report, "web/web2")["failed"], false, "{report}");
    assert!(warnings(&report).contains("was reloaded during the run"), "{report}");
    assert_eq!(
        recorder.changing_commands(),
        ["set server web/web2 state drain", "set server web/web2 state maint"],
        "the clients of web1 are not cut off, and web2 is drained anew"
    );
    Ok(())
}

fn a_signal_ends_the_run_with_a_whole_report(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        for server in ["web/web1", "web/web2"] {
            stage.http.set_state(server, "ready");
        }
        let running =
            Program::request(&drained(&json!(["web1", "web2"]), &json!({ "timeout": 30 }), &direct(&stage))).spawn();
        stage.http.await_state("web", "web2", (1, 0));
        running.signal(signal);
        let run = running.wait();
        assert!(run.elapsed < Duration::from_secs(10), "{signal}: {:?}", run.elapsed);
        let report = run.report();
        assert_eq!(run.code, Some(1), "{signal}");
        assert_eq!((kind(&report), &report["changed"]), ("interrupted", &json!(true)), "{report}");
        assert!(report["msg"].as_str().unwrap().contains(signal.as_str()), "{report}");
        assert_eq!(servers(&report), ["web/web1", "web/web2"]);
        let (one, two) = (server(&report, "web/web1"), server(&report, "web/web2"));
        assert_eq!((&one["after"]["admin_state"], &one["failed"]), (&json!("drain"), &json!(true)), "{one}");
        assert_eq!((&two["after"]["admin_state"], &two["failed"]), (&json!("maint"), &json!(false)), "{two}");
        assert_eq!((stage.http.state("web", "web1"), stage.http.state("web", "web2")), ((8, 2), (1, 0)));
    }
    assert!(!held.has_ended());
    // With a roll back, all is as it was.
    stage.http.set_state("web/web1", "ready");
    stage.http.set_state("web/web2", "ready");
    let mut request = drained(&json!(["web1", "web2"]), &json!({ "timeout": 30 }), &direct(&stage));
    request["on_failure"] = json!("rollback");
    let running = Program::request(&request).spawn();
    stage.http.await_state("web", "web2", (1, 0));
    running.signal(Signal::SIGTERM);
    let report = running.wait().report();
    assert_eq!((kind(&report), &report["changed"]), ("interrupted", &json!(false)), "{report}");
    assert_eq!((stage.http.state("web", "web1"), stage.http.state("web", "web2")), ((0, 2), (0, 2)));
    assert!(["web/web1", "web/web2"].iter().all(|name| server(&report, name)["rolled_back"] == true), "{report}");
    Ok(())
}

/// A drain of web1, which has a session; the run has set it to drain.
fn under_way(stage: &Stage, recorder: &Recorder) -> (Bound, crate::support::Running) {
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let request = drained(&json!("web1"), &json!({ "timeout": 20 }), &json!(recorder.address()));
    let running = Program::request(&request).spawn();
    await_drain(&stage.http, "web", "web1");
    // The run has read that back and waits.
    eventually(PATIENCE, "a look", || {
        let lines: Vec<String> = recorder.timeline().into_iter().map(|(_, line)| line).collect();
        let set = lines.iter().position(|line| changing(line))?;
        lines[set..].iter().any(|line| line.starts_with("show stat ")).then_some(())
    });
    (held, running)
}

fn maint_by_somebody_else_is_as_good(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let recorder = Recorder::on(&stage.http);
    let (held, running) = under_way(&stage, &recorder);
    stage.http.set_state("web/web1", "maint");
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    let report = running.wait().report();
    assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
    assert_eq!(stage.http.state("web", "web1"), (1, 0));
    Ok(())
}

fn ready_by_somebody_else_is_not_fought(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let recorder = Recorder::on(&stage.http);
    let (held, running) = under_way(&stage, &recorder);
    stage.http.set_state("web/web1", "ready");
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    let report = running.wait().report();
    assert_eq!(kind(&report), "overridden", "{report}");
    assert_eq!(stage.http.state("web", "web1"), (0, 2), "whoever put it back has the last word");
    assert_eq!(recorder.changing_commands(), ["set server web/web1 state drain"]);
    Ok(())
}

fn sessions_are_ended_at_a_pace(haproxy: &Haproxy) -> TestResult {
    let (echo, front) = (TcpEcho::start(), Port::reserve());
    let proxies = format!(
        "listen app\n    mode tcp\n    bind 127.0.0.1:{}\n    server s1 {}\n    server s2 127.0.0.1:9 backup\n",
        front.number(),
        echo.address()
    );
    let instance = Setup::new("pace", &proxies).start(haproxy);
    let _clients: Vec<TcpClient> = (0..20).map(|_| TcpClient::connect(front.address())).collect();
    eventually(PATIENCE, "the sessions", || (instance.stat("app", "s1", "scur") == "20").then_some(()));
    let asked = json!({ "server": "app/s1", "state": "maint", "shutdown_sessions": { "over": 3 },
        "instances": instance.address() });
    let running = Program::request(&asked).spawn();
    let begun = std::time::Instant::now();
    let mut seen = Vec::new();
    while seen.last() != Some(&0) && begun.elapsed() < PATIENCE {
        let left: u32 = instance.stat("app", "s1", "scur").parse().unwrap();
        if seen.last() != Some(&left) {
            seen.push(left);
        }
        thread::sleep(Duration::from_millis(20));
    }
    let took = begun.elapsed();
    let report = running.wait().report();
    assert_eq!((&report["failed"], &server(&report, "app/s1")["sessions"]), (&json!(false), &json!(0)), "{report}");
    assert!(took > Duration::from_secs(2), "{took:?}: {seen:?}");
    let steps: Vec<u32> = seen.windows(2).map(|pair| pair[0] - pair[1]).collect();
    assert!(steps.len() >= 6 && steps.iter().all(|step| *step <= 8), "evenly: {seen:?}");
    Ok(())
}

fn many_tunnels_of_two_processes_are_ended_at_a_pace(haproxy: &Haproxy) -> TestResult {
    let (echo, front) = (TcpEcho::start(), Port::reserve());
    let proxies = format!(
        "listen app\n    mode tcp\n    bind 127.0.0.1:{}\n    server s1 {}\n    server s2 127.0.0.1:9 backup\n",
        front.number(),
        echo.address()
    );
    let name = format!("tunnels-{}-{}", haproxy.name, std::process::id());
    let mut instance = Setup::new(&name, &proxies).mode(Mode::MasterWorker).master_cli().start(haproxy);
    let connect = || (0..200).map(|_| TcpClient::connect(front.address())).collect::<Vec<_>>();
    let mut clients = connect();
    instance.reload();
    clients.extend(connect());
    let asked = json!({ "server": "app/s1", "state": "maint", "shutdown_sessions": { "over": 4 },
        "instances": [name] });
    let run = Program::request(&asked).under(OnTerminal::Stderr.words()).run();
    let report = run.report();
    assert_eq!((&report["failed"], &server(&report, "app/s1")["sessions"]), (&json!(false), &json!(0)), "{report}");
    clients.iter_mut().for_each(TcpClient::await_end);

    // As the terminal has shown it.
    let shown = run.stderr.split("ending ").skip(1).filter_map(|text| text.split(' ').next()?.parse::<u32>().ok());
    let mut left: Vec<u32> = shown.collect();
    left.dedup();
    assert_eq!(left.first(), Some(&400), "those of both processes: {left:?}");
    let steps: Vec<u32> = left.windows(2).map(|pair| pair[0].saturating_sub(pair[1])).collect();
    assert!(left.is_sorted_by(|one, next| one > next), "fewer and fewer: {left:?}");
    assert!(steps.len() >= 4 && steps.iter().all(|step| *step <= 200), "evenly: {left:?}");
    Ok(())
}
