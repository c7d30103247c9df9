//! The stage itself, without the program: traffic moves as the administrative state says.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::stage::{PUPPET_BACKENDS, PUPPET_SERVERS};
use crate::support::{Haproxy, Health, Mode, PATIENCE, Recorder, Setup, Stage, Test, TestResult, eventually, tests};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        maint_moves_the_traffic,
        drain_keeps_the_bound_clients,
        failed_check_moves_the_traffic,
        held_request_is_a_session,
        reload_forgets_the_state_in_every_mode,
        recorder_is_transparent,
        no_process_is_left
    ]
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn maint_moves_the_traffic(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    for backend in PUPPET_BACKENDS {
        assert_eq!(stage.who_answers(backend), names(&PUPPET_SERVERS));
    }
    stage.puppet.set_state("i0_puppet_masters/puppet-i0-svc1", "maint");
    assert_eq!(stage.puppet.state("i0_puppet_masters", "puppet-i0-svc1"), (1, 0));
    assert_eq!(stage.who_answers("i0_puppet_masters"), names(&["puppet-i0-svc2", "puppet-i10-svc1"]));
    assert_eq!(stage.who_answers("i10_puppet_masters"), names(&PUPPET_SERVERS));
    let bound = stage.get_from("i0_puppet_masters", "puppet-i0-svc1");
    assert_ne!(bound.body, "puppet-i0-svc1", "a bound client goes elsewhere in maint");
    stage.puppet.set_state("i0_puppet_masters/puppet-i0-svc1", "ready");
    assert_eq!(stage.who_answers("i0_puppet_masters"), names(&PUPPET_SERVERS));
    for instance in stage.instances() {
        assert!(instance.info("Version").starts_with(&haproxy.name));
    }
    Ok(())
}

fn drain_keeps_the_bound_clients(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    stage.http.set_state("web/web1", "drain");
    assert_eq!(stage.who_answers("web"), names(&["web2", "web3"]));
    assert_eq!(stage.get_from("web", "web1").body, "web1");
    Ok(())
}

fn failed_check_moves_the_traffic(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start_with(haproxy, "check inter 100ms rise 1 fall 1", |setup| setup);
    for health in [Health::Bad, Health::Refuse] {
        stage.server("web1").set_health(health);
        stage.http.await_state("web", "web1", (0, 0));
        assert_eq!(stage.who_answers("web"), names(&["web2", "web3"]));
        stage.server("web1").set_health(Health::Good);
        stage.http.await_state("web", "web1", (0, 2));
    }
    Ok(())
}

fn held_request_is_a_session(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let frontend = stage.frontend("web");
    let client = std::thread::spawn(move || {
        crate::support::get_with(frontend, "/hold", &[("Cookie", "SRV=web1")]).expect("an answer").body
    });
    stage.server("web1").await_held(1);
    stage.http.set_state("web/web1", "maint");
    assert_eq!(stage.http.stat("web", "web1", "scur"), "1");
    stage.server("web1").release();
    assert_eq!(client.join().expect("the client"), "web1");
    eventually(PATIENCE, "the end of the session", || (stage.http.stat("web", "web1", "scur") == "0").then_some(()));
    Ok(())
}

fn reload_forgets_the_state_in_every_mode(haproxy: &Haproxy) -> TestResult {
    let proxies = "backend web\n    server web1 127.0.0.1:9\n";
    for mode in [Mode::Foreground, Mode::MasterWorker, Mode::Daemon] {
        let mut instance = Setup::new("http", proxies).mode(mode).start(haproxy);
        instance.set_state("web/web1", "maint");
        let mut session = instance.session();
        let before = instance.pid();
        instance.reload();
        assert_ne!(instance.pid(), before, "{mode:?}");
        assert_eq!(instance.state("web", "web1"), (0, 2), "{mode:?}");
        let old = session.ask("show servers state");
        assert!(old.contains("web1 127.0.0.1 0 1 "), "{mode:?}: an old connection shows the old process: {old}");
        drop(session);
        instance.stop();
        instance.start_again();
        assert_eq!(instance.state("web", "web1"), (0, 2), "{mode:?}");
    }
    Ok(())
}

fn recorder_is_transparent(haproxy: &Haproxy) -> TestResult {
    let mut proxies = "backend web\n".to_owned();
    for number in 1..=400 {
        proxies.push_str(&format!("    server web{number} 127.0.0.1:9\n"));
    }
    let instance = Setup::new("http", &proxies).start(haproxy);
    let recorder = Recorder::on(&instance);
    let text = |command: &str| crate::support::ask(&recorder.socket, command);
    let through = crate::support::haproxy::rows(&String::from_utf8(text("show servers state")?)?);
    assert!(through.keys().eq(instance.rows().keys()));
    // HAProxy 2.2 also lists its master, and there may be other backends.
    let servers = through.keys().filter(|(backend, _)| backend == "web").count();
    assert!(servers == 400, "{servers}");
    assert_eq!(text("set server web/web1 state drain")?, b"\n");
    assert_eq!(instance.state("web", "web1"), (8, 2));
    let mut session = crate::support::Session::open(&recorder.socket);
    assert_eq!(session.ask("set server web/web1 state ready"), "");
    assert_eq!(session.ask("set severity-output number"), "");
    let seen = recorder.changing_commands();
    assert_eq!(seen, ["set server web/web1 state drain", "set server web/web1 state ready"]);
    assert_eq!(recorder.lines().len(), 5);
    let another = Recorder::on(&instance);
    assert_eq!(crate::support::ask(&another.socket, "get weight web/web1")?, b"1 (initial 1)\n\n");
    assert_eq!(another.lines(), ["get weight web/web1"]);
    assert_eq!(recorder.lines().len(), 5);
    Ok(())
}

fn no_process_is_left(haproxy: &Haproxy) -> TestResult {
    for mode in [Mode::Foreground, Mode::MasterWorker, Mode::Daemon] {
        let instance = Setup::new("http", "backend web\n    server web1 127.0.0.1:9\n").mode(mode).start(haproxy);
        let processes = instance.processes();
        assert_eq!(processes.len(), if mode == Mode::MasterWorker { 2 } else { 1 }, "{mode:?}");
        instance.signal(Signal::SIGSTOP);
        drop(instance);
        for process in processes {
            let there = || std::path::Path::new(&format!("/proc/{process}")).exists();
            eventually(Duration::from_secs(1), "the end of a process", || (!there()).then_some(()));
        }
    }
    Ok(())
}
