//! Faults that need a scene of their own: what happens to HAProxy, to the disk or to the program itself in the middle.
//!
//! Their rows are in the table of [`crate::faults`].

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::{Value, json};

use crate::support::haproxy::freeze;
use crate::support::nobody::open_to_all;
use crate::support::report::{kind, server, servers, warnings};
use crate::support::tap::{Tap, When};
use crate::support::{
    Haproxy, Instance, Mode, Nobody, PATIENCE, Program, Run, Setup, Test, TestResult, eventually, skipped, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_socket_that_this_user_may_not_open,
        what_a_reload_changes_before_the_first_command,
        what_a_command_changes_before_the_first_command,
        a_reload_every_second,
        one_of_sixteen_is_stopped,
        a_disk_that_takes_nothing,
        an_output_that_takes_nothing,
        a_batch_that_is_larger_than_a_buffer,
        it_is_stopped_at_any_step,
        it_is_killed_in_mid_dump,
    ]
}

/// What a run says of a fault that has a test of its own.
pub(crate) struct Known {
    pub(crate) what: &'static str,
    /// Empty if it succeeds.
    pub(crate) kind: &'static str,
    pub(crate) retryable: bool,
    pub(crate) code: i32,
    pub(crate) bound: u64,
    pub(crate) test: &'static str,
}

const fn known(what: &'static str, said: (&'static str, bool, i32), bound: u64, test: &'static str) -> Known {
    Known { what, kind: said.0, retryable: said.1, code: said.2, bound, test }
}

const MAY_NOT: &str = "a socket without permission for this user";
const RENAMED: &str = "a reload renames a server before the first command";
const REMOVED: &str = "a reload removes a backend before the first command";
const ADDED: &str = "a reload adds a backend with such a server before the first command";
const DELETED: &str = "`del server` before the first command (2.6 and later)";
const CREATED: &str = "`add server` before the first command (2.6 and later)";
const EVERY_SECOND: &str = "a reload every second, for six seconds";
const FROZEN_STATUS: &str = "one of 16 instances is stopped: a status";
const FROZEN_SKIP: &str = "one of 16 instances is stopped: a change with `on_unreachable: skip`";
const FULL_FILE: &str = "a full disk, for the state file";
const READ_ONLY_FILE: &str = "a read-only folder, for the state file";
const FULL_OWNERS: &str = "a full disk, for owners";
const READ_ONLY_OWNERS: &str = "a read-only folder, for owners and locks";
const READ_ONLY_GUARD: &str = "a read-only folder for locks, and `guard`";
const FULL_OUTPUT: &str = "standard output is a full disk";
const CLOSED_OUTPUT: &str = "standard output is closed";
const BROKEN_OUTPUT: &str = "nobody reads standard output any more";
const SMALL_BUFFER: &str = "300 commands, and `tune.bufsize 4096`";
const IN_MID_DUMP: &str = "SIGKILL of the program in mid-dump: the next run (not HAProxy 3.2.26, see below)";
const KILLED: &str = "SIGKILL of the program at any step: the next run";
const ENDED: &str = "SIGTERM of the program at any step: the next run";

pub(crate) const KNOWN: &[Known] = &[
    known(MAY_NOT, ("permission_denied", false, 4), 10, "a_socket_that_this_user_may_not_open"),
    known(RENAMED, ("server_not_found", false, 6), 20, "what_a_reload_changes_before_the_first_command"),
    known(REMOVED, ("server_not_found", false, 6), 20, "what_a_reload_changes_before_the_first_command"),
    known(ADDED, ("", false, 2), 20, "what_a_reload_changes_before_the_first_command"),
    known(DELETED, ("command_rejected", false, 6), 20, "what_a_command_changes_before_the_first_command"),
    known(CREATED, ("", false, 2), 20, "what_a_command_changes_before_the_first_command"),
    known(EVERY_SECOND, ("", false, 2), 20, "a_reload_every_second"),
    known(FROZEN_STATUS, ("timeout", true, 4), 10, "one_of_sixteen_is_stopped"),
    known(FROZEN_SKIP, ("", false, 2), 10, "one_of_sixteen_is_stopped"),
    known(FULL_FILE, ("state_file", false, 6), 10, "a_disk_that_takes_nothing"),
    known(READ_ONLY_FILE, ("state_file", false, 6), 10, "a_disk_that_takes_nothing"),
    known(FULL_OWNERS, ("", false, 2), 10, "a_disk_that_takes_nothing"),
    known(READ_ONLY_OWNERS, ("", false, 2), 10, "a_disk_that_takes_nothing"),
    known(READ_ONLY_GUARD, ("guard_refused", true, 4), 10, "a_disk_that_takes_nothing"),
    known(FULL_OUTPUT, ("", false, 6), 10, "an_output_that_takes_nothing"),
    known(CLOSED_OUTPUT, ("", false, 2), 10, "an_output_that_takes_nothing"),
    known(BROKEN_OUTPUT, ("", false, 2), 10, "an_output_that_takes_nothing"),
    known(SMALL_BUFFER, ("", false, 2), 10, "a_batch_that_is_larger_than_a_buffer"),
    known(KILLED, ("", false, 2), 10, "it_is_stopped_at_any_step"),
    known(ENDED, ("", false, 2), 10, "it_is_stopped_at_any_step"),
    known(IN_MID_DUMP, ("", false, 2), 10, "it_is_killed_in_mid_dump"),
];

fn row(what: &str) -> &'static Known {
    KNOWN.iter().find(|row| row.what == what).expect("a row of the table")
}

/// Asserts that a run said what the table says, and returns its report.
#[track_caller]
fn assert_said(what: &str, run: &Run) -> Value {
    let report = run.report();
    let row = row(what);
    let retryable = report["error"]["retryable"].as_bool().unwrap_or_default();
    assert_eq!((kind(&report), retryable, run.code), (row.kind, row.retryable, Some(row.code)), "{what}: {report}");
    assert_in_time(what, run);
    report
}

#[track_caller]
fn assert_in_time(what: &str, run: &Run) {
    assert!(run.elapsed < Duration::from_secs(row(what).bound), "{what}: {:?}", run.elapsed);
}

/// Asserts that a run has brought everything where it belongs.
#[track_caller]
fn assert_converges(what: &str, run: &Run) {
    assert!(matches!(run.code, Some(0 | 2)), "{what}: {}", run.stdout);
    assert_eq!(kind(&run.report()), "", "{what}: {}", run.stdout);
}

fn run(request: &Value) -> Run {
    Program::request(request).arg("--detailed-exitcodes").run()
}

const PROXIES: &str = "backend b\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n    server s3 127.0.0.1:9\n";

fn a_socket_that_this_user_may_not_open(haproxy: &Haproxy) -> TestResult {
    let Some(nobody) = Nobody::new() else { return Ok(()) };
    let instance = Instance::start(haproxy, "closed", PROXIES);
    open_to_all(instance.folder.path(), 0o755);
    let request = json!({ "server": "s1", "state": "maint", "timeout": 1, "instances": instance.address() });
    let run = || nobody.request(&request).arg("--detailed-exitcodes").run();
    assert_said(MAY_NOT, &run());
    open_to_all(&instance.socket, 0o666);
    assert_converges(MAY_NOT, &run());
    assert_eq!(instance.state("b", "s1"), (1, 0));
    Ok(())
}

const TWO: &str =
    "backend b\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\nbackend c\n    server s1 127.0.0.1:9\n";

fn what_a_reload_changes_before_the_first_command(haproxy: &Haproxy) -> TestResult {
    let cases = [
        (RENAMED, TWO.replacen("s1", "s9", 1)),
        (REMOVED, TWO[..TWO.find("backend c").expect("a backend")].to_owned()),
        (ADDED, format!("{TWO}backend d\n    server s1 127.0.0.1:9\n")),
    ];
    let instance = Setup::new("changed", TWO).mode(Mode::MasterWorker).start(haproxy);
    let (socket, folder) = (instance.socket.clone(), instance.folder.clone());
    let instance = Arc::new(Mutex::new(instance));
    let reload = |proxies: &str| {
        let mut instance = instance.lock().unwrap_or_else(PoisonError::into_inner);
        instance.set_proxies(proxies);
        instance.reload();
    };
    for (number, (what, proxies)) in cases.into_iter().enumerate() {
        let shared = instance.clone();
        let other = proxies.clone();
        let tap = Tap::once(&folder.join(&format!("tap{number}")), &socket, When::Before, move || {
            let mut instance = shared.lock().unwrap_or_else(PoisonError::into_inner);
            instance.set_proxies(&other);
            instance.reload();
        });
        let mut request = json!({ "server": "s1", "state": "maint", "timeout": 1, "instances": tap.address() });
        let report = assert_said(what, &run(&request));
        assert!(warnings(&report).contains("reloaded during the run"), "{what}: {report}");
        // What is still there was set all the same.
        let left = if what == RENAMED { "c" } else { "b" };
        assert_eq!(instance.lock().expect("the instance").state(left, "s1"), (1, 0), "{what}: {report}");
        if what != ADDED {
            reload(TWO);
        }
        request["instances"] = json!(socket);
        assert_converges(what, &run(&request));
        let instance = instance.lock().expect("the instance");
        let rows = instance.rows();
        assert!(rows.iter().filter(|((_, name), _)| name == "s1").all(|(_, row)| row.admin == 1), "{what}");
        drop(instance);
        reload(TWO);
    }
    Ok(())
}

fn what_a_command_changes_before_the_first_command(haproxy: &Haproxy) -> TestResult {
    if !haproxy.at_least(2, 6) {
        return Ok(());
    }
    let instance = Instance::start(haproxy, "changed", PROXIES);
    let (socket, folder) = (instance.socket.clone(), instance.folder.clone());
    let ask = move |commands: &[&str]| {
        for command in commands {
            crate::support::ask(&socket, command).expect("an answer");
        }
    };
    let add = ["add server b/d1 127.0.0.1:9", "set server b/d1 state ready"];
    for what in [DELETED, CREATED] {
        let del = ["set server b/d1 state maint", "del server b/d1"];
        if what == DELETED {
            ask(&add);
        }
        let change = ask.clone();
        let tap = Tap::once(&folder.join(&what[1..4]), &instance.socket, When::Before, move || {
            change(if what == DELETED { &del } else { &add });
        });
        let mut request = json!({ "server": "*", "state": "maint", "timeout": 1, "instances": tap.address() });
        let report = assert_said(what, &run(&request));
        assert_eq!((instance.state("b", "s1"), instance.state("b", "s3")), ((1, 0), (1, 0)), "{what}: {report}");
        if what == DELETED {
            assert_eq!(kind(server(&report, "b/d1")), row(what).kind, "{report}");
            ask(&add);
        }
        request["instances"] = json!(instance.socket);
        assert_converges(what, &run(&request));
        assert_eq!(instance.state("b", "d1"), (1, 0), "{what}");
        ask(&del);
        instance.set_state("b/s1", "ready");
    }
    Ok(())
}

fn a_reload_every_second(haproxy: &Haproxy) -> TestResult {
    let mut instance = Setup::new("restless", PROXIES).mode(Mode::MasterWorker).start(haproxy);
    let (at, is_over) = (instance.address(), AtomicBool::new(false));
    thread::scope(|scope| {
        let runs = scope.spawn(|| {
            let mut seen = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                // Whatever a reload has left, these have something to change.
                let weight = 1 + seen.len() % 200 + usize::from(seen.len() % 200 == 0) * 200;
                seen.push(run(
                    &json!({ "server": "s*", "state": "maint", "weight": weight, "timeout": 5, "instances": at }),
                ));
            }
            seen
        });
        for _ in 0..6 {
            thread::sleep(Duration::from_secs(1));
            instance.reload();
        }
        is_over.store(true, Ordering::SeqCst);
        let seen = runs.join().expect("runs that end");
        assert!(seen.len() > 6, "{}", seen.len());
        for run in &seen {
            assert_said(EVERY_SECOND, run);
        }
    });
    let last = run(&json!({ "server": "s*", "state": "maint", "instances": instance.address() }));
    assert_converges(EVERY_SECOND, &last);
    assert_eq!((instance.state("b", "s1"), instance.state("b", "s3")), ((1, 0), (1, 0)));
    Ok(())
}

fn one_of_sixteen_is_stopped(haproxy: &Haproxy) -> TestResult {
    let start = |number| Instance::start(haproxy, &format!("i{number:02}"), PROXIES);
    let instances: Vec<Instance> = (0..16).map(start).collect();
    let at: Vec<String> = instances.iter().map(Instance::address).collect();
    let pid = Pid::from_raw(instances[7].pid());
    freeze(pid);
    let status = json!({ "server": "s1", "timeout": 1, "instances": at });
    let change = json!({ "server": "s1", "state": "maint", "timeout": 1, "on_unreachable": "skip", "instances": at });
    let (status, first) = (run(&status), run(&change));
    kill(pid, Signal::SIGCONT)?;
    for (what, run, state) in [(FROZEN_STATUS, status, "ready"), (FROZEN_SKIP, first, "maint")] {
        let report = assert_said(what, &run);
        assert_eq!(servers(&report).len(), 15, "{what}: {report}");
        let of = |number: usize| &report["instances"][number];
        for number in (0..16).filter(|number| *number != 7) {
            assert_eq!((kind(of(number)), &of(number)["matched"]), ("", &json!(1)), "{what}: {report}");
        }
        assert_eq!(kind(of(7)), "timeout", "{what}: {report}");
        let mut entries = report["servers"].as_array().expect("servers").iter();
        assert!(entries.all(|entry| entry["after"]["admin_state"] == state), "{what}: {report}");
    }
    for (number, instance) in instances.iter().enumerate() {
        assert_eq!(instance.state("b", "s1"), if number == 7 { (0, 2) } else { (1, 0) }, "{number}");
    }
    let again = run(&change);
    assert_converges(FROZEN_SKIP, &again);
    assert_eq!(again.report()["changed"], json!(true));
    assert!(instances.iter().all(|instance| instance.state("b", "s1") == (1, 0)));
    Ok(())
}

fn a_disk_that_takes_nothing(haproxy: &Haproxy) -> TestResult {
    let works = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    if !geteuid().is_root() || !works.is_ok_and(|output| output.status.success()) {
        skipped("only root can mount a file system, with unshare");
        return Ok(());
    }
    const RUNTIME: &str = "/run/haproxy_server";
    fs::create_dir_all(RUNTIME)?;
    let instance = Instance::start(haproxy, "disk", PROXIES);
    let disk = instance.folder.join("disk");
    fs::create_dir(&disk)?;
    let with_file = |more: Value| {
        let mut request = json!({ "server": "s1", "state": "maint", "timeout": 1, "instances": instance.address() });
        request.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        request
    };
    let (file, owner) =
        (with_file(json!({ "state_file": disk.join("state") })), with_file(json!({ "owner": "alice" })));
    let guard = with_file(json!({ "guard": { "min_available": 1 } }));
    let full = "cat /dev/zero >$0/filler 2>&-";
    let read_only = "mount -o remount,ro $0";
    let cases = [
        (FULL_FILE, full, disk.as_path(), &file, ""),
        (READ_ONLY_FILE, read_only, &disk, &file, ""),
        (FULL_OWNERS, full, Path::new(RUNTIME), &owner, "could not be recorded"),
        (READ_ONLY_OWNERS, read_only, Path::new(RUNTIME), &owner, "was not recorded"),
        (READ_ONLY_GUARD, read_only, Path::new(RUNTIME), &guard, ""),
    ];
    for (what, make, at, request, warning) in cases {
        let script = format!("mount -t tmpfs -o size=64k,mode=755 tmpfs \"$0\"; {make}; \"$@\"");
        let words = ["unshare", "-m", "bash", "-c", &script, &at.display().to_string()].map(str::to_owned);
        let first = Program::request(request).arg("--detailed-exitcodes").under(words).run();
        let report = assert_said(what, &first);
        assert!(warnings(&report).contains(warning), "{what}: {report}");
        let is_set = row(what).code != 4;
        assert_eq!(instance.state("b", "s1"), if is_set { (1, 0) } else { (0, 2) }, "{what}: {report}");
        assert_converges(what, &run(request));
        assert_eq!(instance.state("b", "s1"), (1, 0), "{what}");
        if at == disk {
            assert!(fs::read_to_string(disk.join("state"))?.contains(" s1 "), "{what}");
            fs::remove_file(disk.join("state"))?;
        }
        let reset = json!({ "server": "s1", "state": "ready", "owner": "alice", "instances": instance.address() });
        assert_converges(what, &run(&reset));
    }
    Ok(())
}

fn an_output_that_takes_nothing(haproxy: &Haproxy) -> TestResult {
    let instance = Instance::start(haproxy, "output", PROXIES);
    let request = json!({ "server": "s1", "state": "maint", "timeout": 1, "instances": instance.address() });
    let cases = [
        (FULL_OUTPUT, "\"$@\" >/dev/full"),
        (CLOSED_OUTPUT, "\"$@\" >&-"),
        (BROKEN_OUTPUT, "\"$@\" | head -c 0; exit ${PIPESTATUS[0]}"),
    ];
    for (what, shell) in cases {
        let program = || Program::request(&request).arg("--detailed-exitcodes");
        let first = program().under(["bash", "-c", shell, "bash"]).run();
        assert_eq!(first.code, Some(row(what).code), "{what}: {}", first.stderr);
        assert_in_time(what, &first);
        assert!(!first.stderr.contains("panicked"), "{what}: {}", first.stderr);
        assert_eq!(instance.state("b", "s1"), (1, 0), "{what}: the work is done all the same");
        let again = program().run();
        assert_converges(what, &again);
        assert_eq!(again.report()["changed"], json!(false), "{what}");
        instance.set_state("b/s1", "ready");
    }
    Ok(())
}

fn a_batch_that_is_larger_than_a_buffer(haproxy: &Haproxy) -> TestResult {
    let servers: String = (0..300).map(|number| format!("    server server-{number:03} 127.0.0.1:9\n")).collect();
    let setup = Setup::new("small", &format!("backend with-a-long-name\n{servers}")).global("tune.bufsize 4096");
    let instance = setup.start(haproxy);
    for state in ["maint", "ready"] {
        let request = json!({ "server": "*", "state": state, "timeout": 5, "instances": instance.address() });
        assert_said(SMALL_BUFFER, &run(&request));
        let mask = u32::from(state == "maint");
        assert!(instance.rows().values().all(|row| row.admin == mask), "{state}");
        let again = run(&request);
        assert_eq!(again.code, Some(0), "{}", again.stdout);
    }
    Ok(())
}

/// The calls by which a run leaves a trace anywhere else: in HAProxy, in a file, in a lock.
const CALLS: [&str; 9] =
    ["connect", "sendto", "mkdir", "flock", "fchmod", "fsync", "?renameat", "?renameat2", "?unlinkat"];

fn it_is_stopped_at_any_step(haproxy: &Haproxy) -> TestResult {
    /// How many of each call a run has at most, and of all together at least.
    const MOST: usize = 400;
    const LEAST: usize = 20;
    let Some(nobody) = Nobody::new() else { return Ok(()) };
    let works = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", "inject=sendto:signal=TERM:when=9", "true"])
        .output();
    if !works.is_ok_and(|output| output.status.success()) {
        skipped("there is no strace that works here");
        return Ok(());
    }
    let instance = Instance::start(haproxy, "steps", PROXIES);
    open_to_all(instance.folder.path(), 0o755);
    open_to_all(&instance.socket, 0o666);
    let kept = nobody.own_folder("kept");
    let (file, owners) = (kept.join("state"), nobody.runtime.join("haproxy_server/owners.json"));
    let request = json!({ "server": ["s1", "s2"], "state": "maint", "drain": { "timeout": 20 }, "owner": "alice",
        "guard": { "min_available": 1 }, "state_file": file, "lock_timeout": 0, "instances": instance.address() });
    let left = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder").flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|it| it.ends_with(".new"))
            .collect()
    };
    // Every third step on one version, the others on the next ones.
    let first = (haproxy.version.0 * 10 + haproxy.version.1) as usize / 2 % 3 + 1;
    let stop = |what: &str, signal: &str, call: &str, step: usize| {
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal={signal}:when={step}"));
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let at = format!("{what}: {signal} at {call} {step}");
        let stopped = nobody.request_under(&request, &strace).arg("--detailed-exitcodes").run();
        assert!(stopped.elapsed < Duration::from_secs(30), "{at}: {:?}", stopped.elapsed);
        let left = || (left(&kept), left(owners.parent().expect("a folder")));
        if stopped.code.is_some() {
            let report = stopped.report();
            assert!(matches!(kind(&report), "" | "interrupted"), "{at}: {report}");
            assert_eq!(left(), (vec![], vec![]), "{at}");
        }
        let again = nobody.request(&request).arg("--detailed-exitcodes").run();
        assert_converges(&at, &again);
        assert_in_time(what, &again);
        assert_eq!(left(), (vec![], vec![]), "{at}");
        let states = ["s1", "s2", "s3"].map(|name| instance.state("b", name));
        assert_eq!(states, [(1, 0), (1, 0), (0, 2)], "{at}");
        let text = fs::read_to_string(&file).expect("the state file");
        assert!(text.ends_with('\n') && text.contains(" s1 ") && text.contains(" s2 "), "{at}: {text}");
        let status = nobody.request(&json!({ "server": "s1", "instances": instance.address() })).report();
        assert_eq!(server(&status, "b/s1")["owner"], "alice", "{at}: {status}");
        for name in ["b/s1", "b/s2"] {
            instance.set_state(name, "ready");
        }
        let _ = (fs::remove_file(&file), fs::remove_file(&owners));
        stopped.code.is_none()
    };
    // Whoever ends at a signal has as many steps as whoever is killed.
    let mut steps = Vec::new();
    for call in CALLS {
        let mut step = first;
        while stop(KILLED, "KILL", call, step) {
            steps.push((call, step));
            step += 3;
            assert!(step < MOST, "{call}: it goes on after {step}");
        }
    }
    assert!(steps.len() > LEAST, "{steps:?}");
    for (call, step) in steps {
        stop(ENDED, "TERM", call, step);
    }
    Ok(())
}

fn it_is_killed_in_mid_dump(haproxy: &Haproxy) -> TestResult {
    let mut proxies = String::new();
    for backend in 0..20 {
        proxies.push_str(&format!("backend backend-{backend:02}\n"));
        (0..100).for_each(|number| {
            proxies.push_str(&format!("    server server-{number:03}.example.org 127.0.0.1:9\n"));
        });
    }
    let instance = Instance::start(haproxy, "dumps", &proxies);
    let pid = instance.pid();
    // One that dies of a dump that is left survives those that fit into one buffer, as that of a hundred servers does.
    let backends = if haproxy.full_version.starts_with("3.2.26") { "backend-00" } else { "*" };
    for round in 0..10 {
        let tap = Tap::holding(&instance.folder.join(&format!("tap{round}")), &instance.socket, 6_000);
        let request = json!({ "backend": backends, "timeout": 50, "instances": tap.address() });
        let running = Program::request(&request).spawn();
        eventually(PATIENCE, "the dump to be under way", || (tap.passed() >= 6_000).then_some(()));
        running.signal(Signal::SIGKILL);
        assert_eq!(running.wait().code, None);
        // The connection to HAProxy is closed once the next piece of the dump finds nobody.
        tap.release();
    }
    let request = json!({ "server": "server-000.*", "state": "maint", "timeout": 5, "instances": instance.address() });
    assert_said(IN_MID_DUMP, &run(&request));
    // A watchdog takes more than a second.
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(instance.pid(), pid, "HAProxy has survived");
    assert_eq!(instance.rows().values().filter(|row| row.admin == 1).count(), 20);
    Ok(())
}
