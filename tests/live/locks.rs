//! What the lock covers: every process that a run changes, whenever it turns up, and rolling back as well.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::recorder::changing;
use crate::support::report::{kind, server, warnings};
use crate::support::{
    Folder, Haproxy, Health, HttpBackend, Instance, Mode, Nobody, PATIENCE, Port, Program, Recorder, Setup, Test,
    TestResult, eventually, on_newest,
};

pub(crate) fn tests() -> Vec<Test> {
    on_newest![
        a_roll_back_minds_the_guard,
        a_crowd_of_runs_that_roll_back_leaves_enough,
        an_instance_that_answers_late_is_locked,
        a_process_that_takes_over_is_locked,
        root_and_a_user_exclude_each_other,
        root_and_a_user_exclude_each_other_at_different_sockets,
        fifty_runs_of_root_and_a_user_keep_the_guard,
        no_run_comes_between_the_commands_of_another,
    ]
}

/// Two servers behind a health check that fails until it is mended, both in service.
struct Pair {
    // The instance goes before what is behind it.
    instance: Instance,
    servers: [HttpBackend; 2],
}

impl Pair {
    fn start(haproxy: &Haproxy, name: &str) -> Self {
        let servers = ["s1", "s2"].map(HttpBackend::start);
        let [s1, s2] = servers.each_ref().map(HttpBackend::address);
        let front = Port::reserve();
        let proxies = format!(
            "listen app\n    bind 127.0.0.1:{}\n    option httpchk GET /health\n    default-server check inter 1h\n    \
             server s1 {s1}\n    server s2 {s2}\n",
            front.number()
        );
        Self { instance: Setup::new(name, &proxies).start(haproxy), servers }
    }
}

fn a_roll_back_minds_the_guard(haproxy: &Haproxy) -> TestResult {
    let Pair { instance, servers } = Pair::start(haproxy, "pair");
    let at = json!(instance.address());
    instance.set_state("app/s1", "maint");
    for server in &servers {
        server.set_health(Health::Bad);
    }
    // It is put back, and waits for a check that does not come in time.
    let putting_back = Program::request(&json!({
        "server": "s1", "state": "ready", "wait": { "timeout": 3, "via": "ready" }, "on_failure": "rollback",
        "guard": { "min_available": 1 }, "instances": at,
    }))
    .spawn();
    instance.await_state("app", "s1", (0, 2));
    // Meanwhile the other one is taken out, which leaves the first.
    let out = json!({ "server": "s2", "state": "maint", "guard": { "min_available": 1 }, "instances": at });
    let out = Program::request(&out).report();
    assert_eq!(out["failed"], json!(false), "{out}");
    let report = putting_back.wait().report();
    assert_eq!(kind(&report), "not_up", "{report}");
    let entry = server(&report, "app/s1");
    assert_eq!((&entry["rolled_back"], &entry["changed"]), (&json!(false), &json!(true)), "{report}");
    assert_eq!(instance.state("app", "s1"), (0, 2), "rolling back would have left none");

    // With the other one back in service, nothing keeps it from being rolled back.
    instance.set_state("app/s2", "ready");
    instance.set_state("app/s1", "maint");
    let report = Program::request(&json!({
        "server": "s1", "state": "ready", "wait": { "timeout": 0.3 }, "on_failure": "rollback",
        "guard": { "min_available": 1 }, "instances": at,
    }))
    .report();
    let entry = server(&report, "app/s1");
    assert_eq!((&entry["rolled_back"], &entry["changed"]), (&json!(true), &json!(false)), "{report}");
    assert_eq!(instance.state("app", "s1"), (1, 0));
    Ok(())
}

fn a_crowd_of_runs_that_roll_back_leaves_enough(haproxy: &Haproxy) -> TestResult {
    let Pair { instance, servers } = Pair::start(haproxy, "crowd");
    for server in &servers {
        server.set_health(Health::Bad);
    }
    let at = json!(instance.address());
    assert_usable(&instance, 1, || {
        for round in 0..6 {
            let runs: Vec<_> = (0..8)
                .map(|number| {
                    let name = if number % 2 == 0 { "s1" } else { "s2" };
                    let state = if (number / 2 + round) % 2 == 0 { "ready" } else { "maint" };
                    let mut asked = json!({
                        "server": name, "state": state, "on_failure": "rollback", "guard": { "min_available": 1 },
                        "instances": at,
                    });
                    if state == "ready" {
                        asked["wait"] = json!({ "timeout": 0.1 });
                    }
                    Program::request(&asked).spawn()
                })
                .collect();
            for run in runs {
                let report = run.wait().report();
                assert!(["", "not_up", "guard_refused", "overridden"].contains(&kind(&report)), "{report}");
            }
        }
    });
    Ok(())
}

/// Does something, and observes all the time that so many servers are usable at least.
fn assert_usable(instance: &Instance, least: usize, act: impl FnOnce()) {
    /// Ends the observer also when the test fails.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let is_over = AtomicBool::new(false);
    let counts = thread::scope(|scope| {
        let observer = scope.spawn(|| {
            let mut counts = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                // One reply shows all of them at once.
                counts.push(instance.rows().values().filter(|row| (row.admin, row.op) == (0, 2)).count());
            }
            counts
        });
        let over = Over(&is_over);
        act();
        drop(over);
        observer.join().unwrap()
    });
    assert!(counts.len() > 5, "{} observations", counts.len());
    let below = counts.iter().filter(|count| **count < least).count();
    assert_eq!(below, 0, "of {} observations", counts.len());
}

/// A run for `s1` that is held up while it sends its command through a recorder, so that it holds its locks.
fn held_up(recorder: &Recorder, instances: &Value) -> crate::support::Running {
    recorder.hold_changes();
    let asked = json!({ "server": "s1", "state": "maint", "timeout": 30, "instances": instances });
    Program::request(&asked).spawn()
}

const PROXIES: &str = "backend app\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n";

fn an_instance_that_answers_late_is_locked(haproxy: &Haproxy) -> TestResult {
    let (folder, first) = (Folder::new(), Setup::new("early", PROXIES).start(haproxy));
    let mut late = Setup::new("late", PROXIES).folder(&folder).start(haproxy);
    let (before_first, before_late) = (Recorder::on(&first), Recorder::on(&late));
    let address = late.address();
    late.stop();
    // The first is locked by another run, so that this one has to wait, and meanwhile the late one starts.
    let holder = held_up(&before_first, &json!([before_first.address()]));
    before_first.await_held();
    let both = json!([first.address(), before_late.address()]);
    let waiting = held_up(&before_late, &both);
    thread::sleep(Duration::from_millis(500));
    late.start_again();
    before_first.let_go();
    assert_eq!(holder.wait().report()["failed"], json!(false));
    before_late.await_held();
    let asked = json!({ "server": "s2", "state": "maint", "lock_timeout": 0, "instances": address });
    let other = Program::request(&asked).report();
    assert_eq!(kind(&other), "locked", "{other}");
    before_late.let_go();
    let report = waiting.wait().report();
    assert_eq!(report["failed"], json!(false), "{report}");
    assert_eq!(late.state("app", "s1"), (1, 0));
    Ok(())
}

fn a_process_that_takes_over_is_locked(haproxy: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let second = folder.join("second.sock");
    let setup = Setup::new("taken", PROXIES).stats_socket(&format!("{} mode 600 level admin", second.display()));
    let mut instance = setup.folder(&folder).mode(Mode::MasterWorker).start(haproxy);
    let recorder = Recorder::on(&instance);
    let running = held_up(&recorder, &json!([recorder.address()]));
    recorder.await_held();
    instance.reload();
    // The command reaches the old process, the run sees the new one, and sets it.
    recorder.let_go_of_one();
    recorder.await_held();
    // Nobody else gets at the new process meanwhile, by whichever socket.
    for address in [second.display().to_string(), instance.address()] {
        let asked = json!({ "server": "s2", "state": "maint", "lock_timeout": 0, "instances": address });
        let report = Program::request(&asked).report();
        assert_eq!(kind(&report), "locked", "{address}: {report}");
    }
    recorder.let_go();
    let report = running.wait().report();
    assert_eq!(report["failed"], json!(false), "{report}");
    assert!(warnings(&report).contains("was reloaded during the run"), "{report}");
    eventually(PATIENCE, "s1 to be in maint", || (instance.state("app", "s1") == (1, 0)).then_some(()));
    Ok(())
}

fn root_and_a_user_exclude_each_other(haproxy: &Haproxy) -> TestResult {
    let Some(nobody) = Nobody::new() else { return Ok(()) };
    let instance = Setup::new("shared", PROXIES).start(haproxy);
    let recorder = Recorder::on(&instance);
    for folder in [instance.folder.path(), recorder.socket.parent().unwrap()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    fs::set_permissions(&recorder.socket, fs::Permissions::from_mode(0o666))?;
    let request = |name: &str, lock_timeout: f64| json!({ "server": name, "state": "maint", "timeout": 30, "lock_timeout": lock_timeout, "instances": recorder.address() });
    let start = |name: &str, who: usize| {
        let asked = request(name, 30.0);
        if who == 0 { Program::request(&asked).spawn() } else { nobody.request(&asked).spawn() }
    };
    for (who, name) in ["s1", "s2"].into_iter().enumerate() {
        recorder.hold_changes();
        let holder = start(name, who);
        recorder.await_held();
        let other = request("s*", 0.0);
        let other = if who == 0 { nobody.request(&other) } else { Program::request(&other) };
        let report = other.report();
        assert_eq!(kind(&report), "locked", "{report}");
        assert!(report["error"]["msg"].as_str().unwrap().contains("process "), "{report}");
        recorder.let_go();
        let report = holder.wait().report();
        assert_eq!((kind(&report), warnings(&report).contains("kept out")), ("", false), "{report}");
    }
    Ok(())
}

fn root_and_a_user_exclude_each_other_at_different_sockets(haproxy: &Haproxy) -> TestResult {
    let Some(nobody) = Nobody::new() else { return Ok(()) };
    for mode in [Mode::Foreground, Mode::MasterWorker, Mode::Daemon] {
        let both = Setup::new("both", PROXIES).mode(mode).stats_socket("open.sock mode 666 level admin");
        let (other, both) = (Instance::start(haproxy, "other", PROXIES), both.start(haproxy));
        // A run on both instances that is held up at the other one holds its lock on this one, and nothing is between.
        let recorder = Recorder::on(&other);
        for folder in [both.folder.path(), other.folder.path(), recorder.socket.parent().unwrap()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        }
        fs::set_permissions(&recorder.socket, fs::Permissions::from_mode(0o666))?;
        let open = both.folder.join("open.sock").display().to_string();
        let ask = |name: &str, at: Value, by_root: bool| {
            let asked = json!({ "server": name, "state": "maint", "timeout": 30, "lock_timeout": 0, "instances": at });
            if by_root { Program::request(&asked) } else { nobody.request(&asked) }
        };
        // Root has been here before, so that there is a lock to share.
        assert_eq!(kind(&ask("s1", json!(both.address()), true).report()), "");
        for (name, by_root) in [("s1", true), ("s2", false)] {
            let (first, second) = if by_root { (both.address(), &open) } else { (open.clone(), &both.address()) };
            recorder.hold_changes();
            let holder = ask(name, json!([recorder.address(), first]), by_root).spawn();
            recorder.await_held();
            let report = ask("s2", json!(second), !by_root).report();
            assert_eq!(kind(&report), "locked", "{mode:?}, held by root: {by_root}: {report}");
            recorder.let_go();
            let report = holder.wait().report();
            assert_eq!((kind(&report), warnings(&report).contains("kept out")), ("", false), "{report}");
        }
    }
    Ok(())
}

fn fifty_runs_of_root_and_a_user_keep_the_guard(haproxy: &Haproxy) -> TestResult {
    let Some(nobody) = Nobody::new() else { return Ok(()) };
    let servers: String = (1..=6).map(|number| format!("    server s{number} 127.0.0.1:9\n")).collect();
    // One thread reads in the order in which the commands of a run that is killed, and of the next one, arrive.
    let setup =
        Setup::new("fifty", &format!("backend app\n{servers}")).global("nbthread 1").global("stats maxconn 100");
    let instance = setup.stats_socket("open.sock mode 666 level admin").start(haproxy);
    fs::set_permissions(instance.folder.path(), fs::Permissions::from_mode(0o755))?;
    let open = instance.folder.join("open.sock").display().to_string();
    // Root and the user at different sockets.
    let run = |asked: &Value, by_root: bool| {
        let mut asked = asked.clone();
        asked["instances"] = json!(if by_root { instance.address() } else { open.clone() });
        if by_root { Program::request(&asked) } else { nobody.request(&asked) }
    };
    let ask = |number: usize| {
        let state = ["maint", "ready", "drain", "maint"][number % 4];
        let mut asked = json!({ "server": [format!("s{}", number % 6 + 1), format!("s{}", (number / 6) % 6 + 1)],
            "state": state, "guard": { "min_available": 3 } });
        if state == "maint" && number % 3 == 0 {
            asked["drain"] = json!({ "timeout": 5 });
        }
        asked
    };
    // Root has been here before, so that there is a lock to share.
    assert_eq!(kind(&run(&ask(1), true).report()), "");
    assert_usable(&instance, 3, || {
        let runs: Vec<_> = (0..50).map(|number| run(&ask(number), number % 2 == 0).spawn()).collect();
        for (number, run) in runs.iter().enumerate().filter(|(number, _)| number % 7 == 0) {
            thread::sleep(Duration::from_millis(u64::try_from(number).unwrap_or_default() % 30));
            run.signal(Signal::SIGKILL);
        }
        for (number, run) in runs.into_iter().enumerate() {
            let ended = run.wait();
            if number % 7 == 0 && ended.code.is_none() {
                continue;
            }
            let report = ended.report();
            assert!(["", "guard_refused", "overridden"].contains(&kind(&report)), "{report}");
            assert!(!warnings(&report).contains("kept out"), "{report}");
        }
    });
    // Nothing is left locked.
    let last = json!({ "server": "*", "state": "ready", "lock_timeout": 0 });
    assert_eq!(kind(&run(&last, true).report()), "");
    assert_eq!(kind(&run(&last, false).report()), "");
    Ok(())
}

fn no_run_comes_between_the_commands_of_another(haproxy: &Haproxy) -> TestResult {
    let servers: String = (1..=6).map(|number| format!("    server s{number} 127.0.0.1:9\n")).collect();
    let setup = Setup::new("between", &format!("backend app\n{servers}")).global("stats maxconn 100");
    let instance = setup.start(haproxy);
    let recorder = Recorder::on(&instance);
    let runs: Vec<_> = (0..24)
        .map(|number: usize| {
            let state = ["maint", "ready", "drain"][number % 3];
            let asked = json!({ "server": "s*", "state": state, "weight": number, "instances": recorder.address() });
            Program::request(&asked).spawn()
        })
        .collect();
    for run in runs {
        let report = run.wait().report();
        assert_eq!(kind(&report), "", "{report}");
    }
    // From its last look before its first change until somebody looks again, which is the run itself, nobody else changes
    // anything.
    let lines = recorder.sequence();
    let connections: BTreeSet<usize> = lines.iter().map(|(connection, _)| *connection).collect();
    let mut turns = 0;
    for connection in connections {
        let is_own = |at: &usize| lines[*at].0 == connection;
        let mut changes = (0..lines.len()).filter(|at| is_own(at) && is_change(&lines[*at].1));
        let Some(first) = changes.next() else { continue };
        let last = changes.next_back().unwrap_or(first);
        let from = (0..first).rfind(|at| is_own(at) && is_look(&lines[*at].1)).expect("a look before the change");
        let to = (last..lines.len()).find(|at| is_look(&lines[*at].1)).expect("a look after the change");
        let others = (from..to).filter(|at| !is_own(at) && is_change(&lines[*at].1));
        assert_eq!(others.count(), 0, "between {from} and {to} of {connection}: {lines:#?}");
        turns += 1;
    }
    assert!(turns > 12, "{turns} runs have changed something");
    Ok(())
}

fn is_change(line: &str) -> bool {
    line.split(';').any(changing)
}

fn is_look(line: &str) -> bool {
    line.contains("show servers state")
}
