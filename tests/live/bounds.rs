//! No run takes longer than its bounds allow, whatever the other side does, and nothing that stops it holds a lock.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::accept::Acceptor;
use crate::support::haproxy::freeze;
use crate::support::report::{commands, kind, server, warnings};
use crate::support::tap::Tap;
use crate::support::{
    Bound, Folder, Haproxy, HttpBackend, Instance, PATIENCE, Port, Program, Recorder, Run, Scripted, Setup, Stage,
    Step, Test, TestResult, eventually, on_newest, python,
};
use crate::transport::{HEADER, info, row};

pub(crate) fn tests() -> Vec<Test> {
    on_newest![
        a_peer_that_closes_again_and_again_uses_up_the_time_of_one_step,
        a_process_that_is_always_stopping_uses_up_the_time_of_one_step,
        slow_statistics_use_up_the_time_of_one_step,
        a_slow_batch_uses_up_the_time_of_one_step,
        a_signal_ends_a_batch_after_the_reply_at_hand,
        a_slow_poll_does_not_stretch_a_wait_without_time,
        a_deadline_ends_a_drain,
        a_deadline_ends_a_run_that_hangs,
        a_terminal_that_is_stopped_holds_no_lock,
        whoever_stops_a_run_neither_stops_a_dump_nor_holds_a_lock,
        a_lack_of_descriptors_is_not_the_instances_fault,
        a_lack_of_memory_ends_in_a_report,
        one_state_file_by_two_names_is_refused,
    ]
}

/// A socket that answers like a HAProxy with some servers, each reply after a delay.
struct Slow {
    socket: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
    _acceptor: Acceptor,
}

/// How long it takes to answer a line, and whether its process is stopping.
type Delay = fn(&str) -> Duration;

impl Slow {
    fn start(folder: &Folder, servers: u32, stopping: u32, delay: Delay) -> Self {
        let socket = folder.join("slow.sock");
        let listener = UnixListener::bind(&socket).expect("a socket to listen on");
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, greeting) = (lines.clone(), info(7, stopping));
        let states = Arc::new(Mutex::new(vec![0u32; servers as usize]));
        let accept = |listener: &UnixListener| listener.accept().map(|(client, _)| client);
        let acceptor = Acceptor::start(listener, accept, move |stream| {
            let (seen, greeting, states) = (seen.clone(), greeting.clone(), states.clone());
            // It ends when its client has gone.
            thread::spawn(move || answer(&stream, &greeting, &states, delay, &seen));
        });
        Self { socket, lines, _acceptor: acceptor }
    }

    fn sent(&self, start: &str) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.starts_with(start)).count()
    }

    fn run(&self, request: Value) -> Run {
        let mut request = request;
        request["instances"] = json!(self.socket);
        Program::request(&request).run()
    }
}

fn answer(mut stream: &UnixStream, greeting: &str, states: &Mutex<Vec<u32>>, delay: Delay, seen: &Mutex<Vec<String>>) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
        thread::sleep(delay(&line));
        let mut states = states.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["prompt"] => "\n> ".to_owned(),
            ["show", "info"] => greeting.to_owned(),
            ["show", "cli", "level"] => "admin\n\n> ".to_owned(),
            ["show", "servers", "state", ..] => {
                let rows = states.iter().zip(1..).map(|(state, number)| {
                    let op = if *state == 1 { 0 } else { 2 };
                    row(number).replace("127.0.0.1 2 0", &format!("127.0.0.1 {op} {state}"))
                });
                format!("{HEADER}{}\n> ", rows.collect::<String>())
            }
            ["show", "stat", _, _, number] => format!(
                "# pxname,svname,qcur,scur,stot,status,weight,check_status,check_code,tracked,bck,iid,sid,throttle,check_rise,check_fall,check_health\n\
                 b,s{number},0,0,0,UP,1,,,,0,2,{number},,,,\n\n> "
            ),
            ["set", "server", name, "state", state] => {
                let number: usize = name.trim_start_matches("b/s").parse().expect("a server");
                states[number - 1] = ["ready", "maint"].iter().position(|it| it == state).map_or(8, |it| it as u32);
                "\n> ".to_owned()
            }
            _ => return,
        };
        if stream.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

const LONG: Duration = Duration::from_millis(900);

/// Ten times the time of a step: more than the few steps that a run has.
const BOUND: Duration = Duration::from_secs(10);

fn a_peer_that_closes_again_and_again_uses_up_the_time_of_one_step(_: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let closes = vec![vec![Step::AnyLine, Step::Sleep(LONG), Step::Close]];
    let socket = Scripted::start_repeating(&folder.join("closes.sock"), closes);
    let run = Program::request(&json!({ "instances": socket.address(), "timeout": 1 })).run();
    assert_eq!(kind(&run.report()), "unreachable", "{}", run.stdout);
    assert!(run.elapsed < BOUND, "{:?}", run.elapsed);
    Ok(())
}

fn a_process_that_is_always_stopping_uses_up_the_time_of_one_step(_: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let slow = Slow::start(&folder, 1, 1, |line| if line == "show info" { LONG } else { Duration::ZERO });
    let run = slow.run(json!({ "timeout": 1 }));
    let report = run.report();
    assert_eq!(kind(&report), "unreachable", "{report}");
    assert!(report["error"]["msg"].as_str().unwrap().contains("is stopping"), "{report}");
    assert!(run.elapsed < BOUND, "{:?}", run.elapsed);
    Ok(())
}

fn slow_statistics_use_up_the_time_of_one_step(_: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let slow = Slow::start(&folder, 60, 0, |line| if line.starts_with("show stat ") { LONG } else { Duration::ZERO });
    let run = slow.run(json!({ "timeout": 1 }));
    assert_eq!(kind(&run.report()), "timeout", "{}", run.stdout);
    assert!(run.elapsed < BOUND, "{:?}", run.elapsed);
    Ok(())
}

/// Each command is answered after 0.9 s.
fn slow_commands(line: &str) -> Duration {
    if line.starts_with("set ") { LONG } else { Duration::ZERO }
}

fn a_slow_batch_uses_up_the_time_of_one_step(_: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let slow = Slow::start(&folder, 100, 0, slow_commands);
    let run = slow.run(json!({ "server": "*", "state": "maint", "timeout": 1 }));
    let report = run.report();
    assert_eq!((kind(&report), &report["changed"]), ("timeout", &json!(true)), "{}", run.stdout);
    assert!(run.elapsed < BOUND, "{:?}", run.elapsed);
    assert!(slow.sent("set server") < 10, "{} were sent", slow.sent("set server"));
    Ok(())
}

fn a_signal_ends_a_batch_after_the_reply_at_hand(_: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let slow = Slow::start(&folder, 100, 0, slow_commands);
    let request = json!({ "server": "*", "state": "maint", "timeout": 55, "instances": slow.socket });
    let running = Program::request(&request).spawn();
    eventually(PATIENCE, "a few commands", || (slow.sent("set server") >= 3).then_some(()));
    running.signal(Signal::SIGTERM);
    let run = running.wait();
    let report = run.report();
    assert_eq!(kind(&report), "interrupted", "{report}");
    let sent = slow.sent("set server");
    // As many as were sent are reported as read back, and as changed.
    assert!(sent < 30, "{sent} were sent");
    let of = |what: &str| report["servers"].as_array().unwrap().iter().filter(|it| it[what] == json!(true)).count();
    assert_eq!((of("changed"), of("failed"), commands(&report).len()), (sent, 100 - sent, sent), "{report}");
    Ok(())
}

fn a_slow_poll_does_not_stretch_a_wait_without_time(haproxy: &Haproxy) -> TestResult {
    let (server, front) = (HttpBackend::start("s1"), Port::reserve());
    let proxies = format!("listen app\n    bind {}\n    server s1 {}\n", front.address(), server.address());
    let instance = Instance::start(haproxy, "slow", &proxies);
    let client = Bound::hold(front.address(), &server);
    let cases = [
        json!({ "server": "s1", "state": "drain", "wait": { "timeout": 0 }, "timeout": 5 }),
        json!({ "server": "s1", "state": "maint", "drain": { "timeout": 0 }, "timeout": 5 }),
    ];
    for (number, mut asked) in cases.into_iter().enumerate() {
        instance.set_state("app/s1", "ready");
        // HAProxy hangs for a moment when it is polled for the first time, after the observation.
        let socket = instance.folder.join(&format!("slow{number}.sock"));
        let tap = Tap::at(&socket, &instance.socket, ("show stat", 1), || thread::sleep(Duration::from_millis(1300)));
        asked["instances"] = json!(tap.address());
        let run = Program::request(&asked).run();
        assert_eq!(kind(&run.report()), "not_drained", "{}", run.stdout);
        assert!(run.elapsed > Duration::from_millis(1300) && run.elapsed < Duration::from_secs(8), "{:?}", run.elapsed);
    }
    server.release();
    assert_eq!(client.served_by(), "s1");
    Ok(())
}

fn a_deadline_ends_a_drain(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    for policy in ["keep", "rollback"] {
        let recorder = Recorder::on(&stage.http);
        let request = json!({ "server": ["web1", "web2"], "state": "maint", "drain": { "timeout": 50 }, "deadline": 2,
            "on_failure": policy, "instances": recorder.address() });
        let run = Program::request(&request).arg("--detailed-exitcodes").run();
        let report = run.report();
        assert_eq!(kind(&report), "timeout", "{report}");
        assert!(report["error"]["msg"].as_str().unwrap().contains("'deadline'"), "{report}");
        assert!(run.elapsed < Duration::from_secs(20), "{:?}", run.elapsed);
        let entry = server(&report, "web/web1");
        let (state, code, rolled_back) =
            if policy == "keep" { ((8, 2), 6, &Value::Null) } else { ((0, 2), 4, &json!(true)) };
        assert_eq!(stage.http.state("web", "web1"), state, "{policy}: {report}");
        assert_eq!((run.code, &entry["rolled_back"]), (Some(code), rolled_back), "{policy}: {report}");
        assert!(entry["after"]["admin_state"].is_string(), "it was read back: {report}");
        stage.http.set_state("web/web1", "ready");
        stage.http.set_state("web/web2", "ready");
    }
    // A second run, with enough time, gets there.
    stage.server("web1").release();
    let _ = held.answer();
    let request = json!({ "server": "web1", "state": "maint", "drain": { "timeout": 50 }, "deadline": 50,
        "instances": stage.http.address() });
    assert_eq!(Program::request(&request).report()["failed"], json!(false));
    assert_eq!(stage.http.state("web", "web1"), (1, 0));
    Ok(())
}

fn a_deadline_ends_a_run_that_hangs(haproxy: &Haproxy) -> TestResult {
    let instance = Setup::new("hangs", "backend b\n    server s1 127.0.0.1:9\n").start(haproxy);
    let pid = Pid::from_raw(instance.pid());
    // Before anything is observed.
    freeze(pid);
    let request = |at: &str| json!({ "server": "s1", "state": "maint", "timeout": 55, "deadline": 1.5, "lock_timeout": 55, "instances": at });
    let run = Program::request(&request(&instance.address())).run();
    kill(pid, Signal::SIGCONT)?;
    let report = run.report();
    assert_eq!((kind(&report), &report["changed"]), ("timeout", &json!(false)), "{report}");
    assert!(run.elapsed < Duration::from_secs(20), "{:?}", run.elapsed);
    assert_eq!(instance.state("b", "s1"), (0, 2), "nothing was sent");
    // While another run has the lock.
    let recorder = Recorder::on(&instance);
    recorder.hold_changes();
    let holder =
        Program::request(&json!({ "server": "s1", "state": "drain", "timeout": 50, "instances": recorder.address() }));
    let holder = holder.spawn();
    recorder.await_held();
    let run = Program::request(&request(&instance.address())).run();
    assert_eq!(kind(&run.report()), "timeout", "{}", run.stdout);
    assert!(run.elapsed < Duration::from_secs(20), "{:?}", run.elapsed);
    recorder.let_go();
    assert_eq!(holder.wait().report()["failed"], json!(false));
    Ok(())
}

/// Runs a program with a stopped terminal as its standard error, as after Ctrl-S.
const ON_A_STOPPED_TERMINAL: &str = r#"
import os, pty, subprocess, sys, termios
master, slave = pty.openpty()
termios.tcflow(slave, termios.TCOOFF)
program = subprocess.Popen(sys.argv[1:], stderr=slave)
sys.exit(program.wait())
"#;

fn a_terminal_that_is_stopped_holds_no_lock(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let at = stage.http.address();
    let drain = json!({ "server": "web1", "state": "maint", "drain": { "timeout": 50 }, "instances": at });
    let draining = Program::request(&drain).under([python(), "-c", ON_A_STOPPED_TERMINAL]).spawn();
    stage.http.await_state("web", "web1", (8, 2));
    // Longer than the longest pause between polls: it has had something to show.
    thread::sleep(Duration::from_millis(1_500));
    let other = json!({ "server": "web2", "state": "maint", "lock_timeout": 20, "instances": at });
    assert_eq!(kind(&Program::request(&other).report()), "", "the lock is free");
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    assert_eq!(draining.wait().report()["failed"], json!(false));
    Ok(())
}

/// Whether a process is stopped.
fn is_stopped(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
}

fn whoever_stops_a_run_neither_stops_a_dump_nor_holds_a_lock(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    // In the middle of a dump it goes on.
    let tap = Tap::holding(&stage.folder.join("tap.sock"), &stage.http.socket, 600);
    let status = Program::request(&json!({ "instances": tap.address(), "timeout": 50 })).spawn();
    eventually(PATIENCE, "the dump to be under way", || (tap.passed() >= 600).then_some(()));
    status.signal(Signal::SIGTSTP);
    thread::sleep(Duration::from_millis(200));
    assert!(!is_stopped(status.pid()), "the dump was left");
    tap.release();
    assert_eq!(status.wait().report()["failed"], json!(false));
    // In a pause it stops, and holds nothing.
    let at = stage.http.address();
    let drain = json!({ "server": "web1", "state": "maint", "drain": { "timeout": 50 }, "instances": at });
    let draining = Program::request(&drain).spawn();
    stage.http.await_state("web", "web1", (8, 2));
    draining.signal(Signal::SIGTSTP);
    eventually(PATIENCE, "it to stop", || is_stopped(draining.pid()).then_some(()));
    let other = json!({ "server": "web2", "state": "maint", "lock_timeout": 20, "instances": at });
    let other = Program::request(&other).report();
    draining.signal(Signal::SIGCONT);
    assert_eq!(kind(&other), "", "the lock is free");
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    assert_eq!(draining.wait().report()["failed"], json!(false));
    Ok(())
}

fn a_lack_of_descriptors_is_not_the_instances_fault(haproxy: &Haproxy) -> TestResult {
    let proxies = "backend b\n    server s1 127.0.0.1:9\n";
    let instances: Vec<Instance> =
        (0..24).map(|number| Instance::start(haproxy, &format!("i{number}"), proxies)).collect();
    let at: Vec<String> = instances.iter().map(Instance::address).collect();
    let request = json!({ "server": "s1", "state": "maint", "on_unreachable": "skip", "instances": at });
    let limited = |limits: &str| Program::request(&request).under(["prlimit", limits]).report();
    // More than the host allows cannot be had.
    let report = limited("--nofile=20:20");
    assert_eq!((kind(&report), &report["changed"]), ("resources", &json!(false)), "{report}");
    assert!(!warnings(&report).contains("skipped"), "{report}");
    assert!(instances.iter().all(|instance| instance.state("b", "s1") == (0, 2)));
    // What it allows is used.
    let report = limited("--nofile=20:400");
    assert_eq!((kind(&report), warnings(&report).contains("skipped")), ("", false), "{report}");
    assert!(instances.iter().all(|instance| instance.state("b", "s1") == (1, 0)));
    Ok(())
}

fn one_state_file_by_two_names_is_refused(haproxy: &Haproxy) -> TestResult {
    let proxies = "backend b\n    server s1 127.0.0.1:9\n";
    let (one, two) = (Instance::start(haproxy, "one", proxies), Instance::start(haproxy, "two", proxies));
    let folder = Folder::new();
    std::fs::create_dir(folder.join("real"))?;
    std::os::unix::fs::symlink(folder.join("real"), folder.join("link"))?;
    let file = folder.join("real/state");
    let spelt = |path: &str| folder.join(path).display().to_string();
    for other in ["real/../real/state", "real//state", "real/./state", "link/state"] {
        for is_there in [false, true] {
            if is_there {
                std::fs::write(&file, one.raw("show servers state"))?;
            } else {
                remove(&file);
            }
            let report = Program::request(
                &json!({ "server": "s1", "state": "maint", "instances": [one.address(), two.address()],
                "state_file": { "one": spelt("real/state"), "two": spelt(other) } }),
            )
            .report();
            assert_eq!((kind(&report), &report["changed"]), ("bad_request", &json!(false)), "{other}: {report}");
        }
    }
    Ok(())
}

fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

fn a_lack_of_memory_ends_in_a_report(haproxy: &Haproxy) -> TestResult {
    // Twelve thousand servers: more than any of the limits allows.
    let mut proxies = String::new();
    for backend in 0..40 {
        let _ = writeln!(proxies, "backend backend-{backend:02}");
        for server in 0..300 {
            let _ = writeln!(proxies, "    server server-{server:04}.example.org 127.0.0.1:9");
        }
    }
    let instance = Instance::start(haproxy, "large", &proxies);
    let pid = instance.pid();
    let request =
        json!({ "server": "*", "state": "maint", "dry_run": true, "timeout": 50, "instances": instance.address() });
    let mut kinds = Vec::new();
    for megabytes in [10u64, 13, 16] {
        let run = Program::request(&request).under(["prlimit".to_owned(), format!("--as={}", megabytes << 20)]).run();
        if run.stdout.is_empty() && run.code == Some(127) {
            continue; // It could not even be started.
        }
        assert!(run.code.is_some(), "with {megabytes} MB: {}", run.stderr);
        kinds.push(kind(&run.report()).to_owned());
    }
    assert!(kinds.contains(&"resources".to_owned()), "{kinds:?}");
    assert!(kinds.iter().all(|kind| kind == "resources" || kind.is_empty()), "{kinds:?}");
    // A program that counts its lines needs more than another one.
    let limits = || (13u64..150).step_by(2);
    let enough = [""; 3].map(str::to_owned);
    // Where it does not suffice for a change, nothing is changed. Taking out may need more than putting back.
    let mut kinds = Vec::new();
    let mut of_states = [Vec::new(), Vec::new()];
    let masks = |instance: &Instance| instance.rows().values().map(|row| row.admin).collect::<Vec<_>>();
    for (turn, megabytes) in limits().enumerate() {
        let state = ["maint", "ready"][turn % 2];
        let request = json!({ "server": "*", "state": state, "timeout": 50, "instances": instance.address() });
        let before = masks(&instance);
        let run = Program::request(&request).under(["prlimit".to_owned(), format!("--as={}", megabytes << 20)]).run();
        if run.stdout.is_empty() && run.code == Some(127) {
            continue;
        }
        assert!(run.code.is_some(), "with {megabytes} MB: {}", run.stderr);
        let kind = kind(&run.report()).to_owned();
        if kind == "resources" {
            assert_eq!(masks(&instance), before, "with {megabytes} MB");
        }
        of_states[turn % 2].push(kind.clone());
        kinds.push(kind);
        if kinds.ends_with(&enough) {
            break;
        }
    }
    for mut kinds in of_states {
        kinds.dedup();
        assert_eq!(kinds, ["resources", ""], "once there is enough, more is enough as well");
    }
    // A state file may have rows of all servers, however few are matched.
    let all = json!({ "server": "*", "state": "maint", "timeout": 50, "instances": instance.address() });
    assert_eq!(Program::request(&all).report()["failed"], json!(false));
    let file = instance.folder.join("state");
    let request = json!({ "server": "backend-00/server-0000.*", "state": "maint", "state_file": file, "timeout": 50,
        "instances": instance.address() });
    let mut kinds = Vec::new();
    for megabytes in limits() {
        remove(&file);
        let run = Program::request(&request).under(["prlimit".to_owned(), format!("--as={}", megabytes << 20)]).run();
        if run.stdout.is_empty() && run.code == Some(127) {
            continue;
        }
        assert!(run.code.is_some(), "with {megabytes} MB: {}", run.stderr);
        let report = run.report();
        assert_eq!(kind(&report).is_empty(), file.exists(), "with {megabytes} MB: {report}");
        kinds.push(kind(&report).to_owned());
        if kinds.ends_with(&enough) {
            break;
        }
    }
    kinds.dedup();
    assert_eq!(kinds, ["resources", ""], "once there is enough, more is enough as well");
    // Its watchdog takes more than a second.
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(instance.pid(), pid, "HAProxy has survived");
    Ok(())
}
