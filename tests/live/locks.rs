//! What the lock covers: every process that a run changes, whenever it turns up, and rolling back as well.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::support::program::copy_program;
use crate::support::report::{kind, server, warnings};
use crate::support::{
    Folder, Haproxy, Health, HttpBackend, Instance, Mode, PATIENCE, Port, Program, Recorder, Setup, Test, TestResult,
    eventually, skipped, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_roll_back_minds_the_guard,
        a_crowd_of_runs_that_roll_back_leaves_enough,
        an_instance_that_answers_late_is_locked,
        a_process_that_takes_over_is_locked,
        root_and_a_user_exclude_each_other,
        fifty_runs_of_root_and_a_user_keep_the_guard,
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
    let is_over = AtomicBool::new(false);
    let (below, seen) = thread::scope(|scope| {
        let observer = scope.spawn(|| {
            let (mut below, mut seen) = (0, 0);
            while !is_over.load(Ordering::SeqCst) {
                // One reply shows both at once.
                let usable = instance.rows().values().filter(|row| (row.admin, row.op) == (0, 2)).count();
                seen += 1;
                below += usize::from(usable == 0);
            }
            (below, seen)
        });
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
        is_over.store(true, Ordering::SeqCst);
        observer.join().unwrap()
    });
    assert!(seen > 20, "{seen}");
    assert_eq!(below, 0, "of {seen} observations");
    Ok(())
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

/// The program as a user with nothing but the right to open the socket, and folders of its own.
struct Nobody {
    _folder: Folder,
    binary: PathBuf,
    runtime: PathBuf,
}

impl Nobody {
    /// `None` where the test may not become somebody else.
    fn new() -> Option<Self> {
        const NOBODY: u32 = 65_534;
        if !geteuid().is_root() {
            skipped("only root can run the program as somebody else");
            return None;
        }
        let folder = Folder::new();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a folder that all may read");
        let (binary, runtime) = (folder.join("haproxy_server"), folder.join("runtime"));
        copy_program(&binary);
        fs::create_dir(&runtime).expect("a folder");
        chown(&runtime, Some(NOBODY), Some(NOBODY)).expect("a folder of its own");
        Some(Self { _folder: folder, binary, runtime })
    }

    fn request(&self, request: &Value) -> Program {
        let who = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        Program::request(request).binary(&self.binary).env("XDG_RUNTIME_DIR", &self.runtime).under(who)
    }
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

fn fifty_runs_of_root_and_a_user_keep_the_guard(haproxy: &Haproxy) -> TestResult {
    let Some(nobody) = Nobody::new() else { return Ok(()) };
    let servers: String = (1..=6).map(|number| format!("    server s{number} 127.0.0.1:9\n")).collect();
    // One thread reads in the order in which the commands of a run that is killed, and of the next one, arrive.
    let setup =
        Setup::new("fifty", &format!("backend app\n{servers}")).global("nbthread 1").global("stats maxconn 100");
    let instance = setup.stats_socket("open.sock mode 666 level admin").start(haproxy);
    fs::set_permissions(instance.folder.path(), fs::Permissions::from_mode(0o755))?;
    let at = instance.folder.join("open.sock").display().to_string();
    let ask = |number: usize| {
        let state = ["maint", "ready", "drain", "maint"][number % 4];
        let mut asked = json!({ "server": [format!("s{}", number % 6 + 1), format!("s{}", (number / 6) % 6 + 1)],
            "state": state, "guard": { "min_available": 3 }, "instances": at });
        if state == "maint" && number % 3 == 0 {
            asked["drain"] = json!({ "timeout": 5 });
        }
        asked
    };
    // Root has been here before, so that there is a lock to share.
    assert_eq!(kind(&Program::request(&ask(1)).report()), "");
    let is_over = AtomicBool::new(false);
    let (below, seen) = thread::scope(|scope| {
        let observer = scope.spawn(|| {
            let (mut below, mut seen) = (0, 0);
            while !is_over.load(Ordering::SeqCst) {
                let usable = instance.rows().values().filter(|row| (row.admin, row.op) == (0, 2)).count();
                (below, seen) = (below + usize::from(usable < 3), seen + 1);
            }
            (below, seen)
        });
        let start = |number: usize| {
            let asked = ask(number);
            if number % 2 == 0 { Program::request(&asked).spawn() } else { nobody.request(&asked).spawn() }
        };
        let runs: Vec<_> = (0..50).map(start).collect();
        for (number, run) in runs.iter().enumerate().filter(|(number, _)| number % 7 == 0) {
            thread::sleep(Duration::from_millis(u64::try_from(number).unwrap_or_default() % 30));
            run.signal(Signal::SIGKILL);
        }
        for (number, run) in runs.into_iter().enumerate() {
            let run = run.wait();
            if number % 7 == 0 && run.code.is_none() {
                continue;
            }
            let report = run.report();
            assert!(["", "guard_refused", "overridden"].contains(&kind(&report)), "{report}");
            assert!(!warnings(&report).contains("kept out"), "{report}");
        }
        is_over.store(true, Ordering::SeqCst);
        observer.join().unwrap()
    });
    assert!(seen > 5, "{seen}");
    assert_eq!(below, 0, "of {seen} observations");
    // Nothing is left locked.
    let last = json!({ "server": "*", "state": "ready", "lock_timeout": 0, "instances": at });
    assert_eq!(kind(&Program::request(&last).report()), "");
    assert_eq!(kind(&nobody.request(&last).report()), "");
    Ok(())
}
