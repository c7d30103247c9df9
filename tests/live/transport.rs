//! The conversation with HAProxy when it is slow, frozen, reloaded, or not HAProxy at all; and signals during it.

use std::fmt::Write as _;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::haproxy::freeze;
use crate::support::report::{commands, kind, server, servers, warnings};
use crate::support::tap::{Tap, When};
use crate::support::{
    Folder, Haproxy, Instance, Mode, PATIENCE, Program, Recorder, Run, Scripted, Setup, Step, Test, TestResult,
    eventually, skipped, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_signal_waits_for_the_end_of_a_dump,
        a_signal_before_the_request_ends_the_run,
        every_line_is_sent_in_one_write,
        a_severity_prefix_is_understood,
        a_short_stats_timeout_is_no_trouble,
        thousands_of_servers_are_set_in_one_run,
        taken_connections_are_waited_for_in_bounds,
        a_frozen_process_is_left_in_time,
        a_connection_that_haproxy_has_ended_is_opened_again,
        a_connection_that_ends_while_another_socket_is_silent_is_opened_again,
        a_command_that_timed_out_is_read_back,
        a_reload_before_the_command_is_followed,
        a_reload_after_the_command_is_followed,
        a_stopping_process_is_left_for_its_successor,
        a_row_of_garbage_is_read_once_more,
        a_row_of_garbage_in_the_statistics_is_read_once_more,
        a_row_of_garbage_for_the_state_file_is_read_once_more,
        a_row_that_is_not_understood_does_not_end_the_dump,
        columns_that_a_later_version_adds_are_no_trouble,
        a_dump_without_its_end_is_an_error,
        silence_in_a_dump_is_borne_for_five_seconds,
        an_endless_reply_is_bounded,
        what_is_no_haproxy_is_told_so,
        what_is_not_understood_is_shown,
        no_text_of_haproxy_is_a_command_to_a_terminal,
        a_closed_output_is_no_panic,
        an_input_that_never_ends_is_left,
    ]
}

/// Twenty backends of 400 servers: a dump that fills every buffer on its way many times.
fn large(haproxy: &Haproxy) -> Instance {
    let mut proxies = String::new();
    for backend in 0..20 {
        let _ = writeln!(proxies, "backend backend-{backend:02}");
        for server in 0..400 {
            let _ = writeln!(proxies, "    server server-{server:03}.example.org 127.0.0.1:9");
        }
    }
    Instance::start(haproxy, "large", &proxies)
}

fn a_signal_waits_for_the_end_of_a_dump(haproxy: &Haproxy) -> TestResult {
    const ALL: [Signal; 7] = [
        Signal::SIGTERM,
        Signal::SIGQUIT,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGPIPE,
        Signal::SIGXFSZ,
        Signal::SIGUSR1,
    ];
    let instance = large(haproxy);
    let size = instance.raw("show servers state").len();
    let pid = instance.pid();
    let requests = [
        json!({ "server": "server-00?.*", "state": "maint" }),
        json!({ "server": "server-00?.*" }),
        json!({ "server": "server-00?.*", "state": "maint", "dry_run": true }),
    ];
    for round in 0..2 {
        let signals = if round == 0 { &ALL[..] } else { &ALL[..2] };
        for &signal in signals {
            for (number, request) in requests.iter().enumerate() {
                let socket = instance.folder.join(&format!("{round}-{signal}-{number}"));
                let part = 4_096 + round * 100_000;
                let tap = Tap::holding(&socket, &instance.socket, part);
                let mut request = request.clone();
                request["instances"] = json!([{ "name": "large", "socket": tap.address() }]);
                let mut running = Program::request(&request).spawn();
                eventually(PATIENCE, "the dump to be under way", || (tap.passed() >= part).then_some(()));
                running.signal(signal);
                thread::sleep(Duration::from_millis(30));
                assert!(!running.ended(), "the dump was left at {signal}");
                assert!(tap.passed() < size);
                tap.release();
                let run = running.wait();
                let report = run.report();
                assert_eq!(run.code, Some(1), "{report}");
                assert_eq!((kind(&report), &report["changed"]), ("interrupted", &json!(false)), "{signal}: {request}");
                assert!(report["error"]["msg"].as_str().unwrap().contains(signal.as_str()), "{report}");
                assert_eq!(report["error"]["retryable"], true);
                assert_eq!(servers(&report).len(), 200, "the report has every server");
                assert!(tap.passed() >= size, "the dump was left after {} of {size} bytes", tap.passed());
            }
        }
    }
    // Its watchdog takes more than a second.
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(instance.pid(), pid, "HAProxy has survived");
    assert!(instance.rows().values().all(|row| row.admin == 0));
    Ok(())
}

fn a_signal_before_the_request_ends_the_run(_: &Haproxy) -> TestResult {
    let running = Program::input("{").keep_stdin_open().spawn();
    thread::sleep(Duration::from_millis(200));
    running.signal(Signal::SIGTERM);
    let run = running.wait();
    assert_eq!((run.code, kind(&run.report())), (Some(1), "interrupted"));
    assert!(run.elapsed < Duration::from_secs(5));
    Ok(())
}

fn every_line_is_sent_in_one_write(haproxy: &Haproxy) -> TestResult {
    let name = "s".repeat(900);
    let mut proxies = format!("backend {}\n", "b".repeat(900));
    for number in 0..300 {
        let _ = writeln!(proxies, "    server {name}{number} 127.0.0.1:9");
    }
    let instance = Instance::start(haproxy, "writes", &proxies);
    let trace = instance.folder.join("trace");
    let strace = ["strace", "-f", "-qq", "-e", "trace=write,writev,sendto,sendmsg", "-s", "10000000", "-o"];
    let mut words: Vec<_> = strace.iter().map(std::ffi::OsString::from).collect();
    words.push(trace.clone().into());
    let works = std::process::Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        skipped("there is no strace that works here");
        return Ok(());
    }
    let request = json!({ "server": "s*", "state": "maint", "instances": instance.address() });
    let run = Program::request(&request).under(words).run();
    assert_eq!(run.report()["failed"], false);
    let trace = std::fs::read_to_string(trace)?;
    let sends: Vec<&str> = trace.lines().filter(|line| line.contains("sendto(")).collect();
    let commands = sends.iter().flat_map(|send| send.matches("set server ")).count();
    assert_eq!(commands, 300, "{} sends", sends.len());
    for send in sends {
        assert!(send.contains("\\n\", "), "a line was cut: {}", &send[..send.len().min(200)]);
        let sent = send.rsplit_once(" = ").map(|(_, result)| result.trim());
        let length = send.rsplit(", ").nth(3);
        assert_eq!(sent, length, "sent in part");
    }
    Ok(())
}

fn a_severity_prefix_is_understood(haproxy: &Haproxy) -> TestResult {
    for severity in ["string", "number"] {
        let port = crate::support::Port::reserve();
        let proxies = format!(
            "backend b\n    balance static-rr\n    server s1 127.0.0.1:9 weight 5\nlisten gone\n    bind 127.0.0.1:{}\n    server s1 127.0.0.1:9\n",
            port.number()
        );
        let setup = Setup::new("severity", &proxies).socket_options(&format!("severity-output {severity}"));
        let instance = setup.start(haproxy);
        let ask = |request: Value| {
            let mut request = request;
            request["instances"] = json!(instance.address());
            Program::request(&request).report()
        };
        for (state, changed) in [("maint", true), ("maint", false), ("ready", true)] {
            let report = ask(json!({ "server": "s1", "state": state }));
            assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(changed)), "{report}");
        }
        let report = ask(json!({ "server": "b/s1", "weight": 7 }));
        assert_eq!(kind(&report), "command_rejected", "{report}");
        let msg = report["error"]["msg"].as_str().unwrap();
        assert!(msg.contains("'Backend is using a static"), "{msg}");
        instance.raw("shutdown frontend gone");
        let report = ask(json!({ "server": "gone/s1", "state": "maint" }));
        assert_eq!(report["failed"], false);
        assert!(warnings(&report).contains("Proxy is disabled."), "{report}");
        assert_eq!(server(&report, "gone/s1")["after"]["admin_state"], "ready");
    }
    Ok(())
}

fn a_short_stats_timeout_is_no_trouble(haproxy: &Haproxy) -> TestResult {
    let proxies = "backend b\n    server s1 127.0.0.1:9\n";
    let instance = Setup::new("short", proxies).global("stats timeout 100ms").start(haproxy);
    for (state, changed) in [("maint", true), ("maint", false), ("ready", true)] {
        let request = json!({ "server": "s1", "state": state, "instances": instance.address() });
        let report = Program::request(&request).report();
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(changed)), "{report}");
    }
    Ok(())
}

fn thousands_of_servers_are_set_in_one_run(haproxy: &Haproxy) -> TestResult {
    let instance = large(haproxy);
    for (state, changed) in [("maint", true), ("maint", false), ("ready", true)] {
        let run = Program::request(&json!({ "server": "*", "state": state, "instances": instance.address() })).run();
        let report = run.report();
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(changed)), "{}", report["msg"]);
        assert_eq!(commands(&report).len(), if changed { 8_000 } else { 0 });
        let mask = u32::from(state == "maint");
        assert!(instance.rows().values().all(|row| row.admin == mask), "{state}");
    }
    Ok(())
}

fn taken_connections_are_waited_for_in_bounds(haproxy: &Haproxy) -> TestResult {
    let proxies = "backend b\n    server s1 127.0.0.1:9\n";
    let instance = Setup::new("busy", proxies).global("stats maxconn 2").start(haproxy);
    let request = json!({ "server": "s1", "state": "maint", "instances": instance.address(), "timeout": 1 });
    let sessions = [instance.session(), instance.session()];
    let run = Program::request(&request).run();
    assert_eq!(kind(&run.report()), "timeout", "{}", run.stdout);
    assert!((0.9..4.0).contains(&run.elapsed.as_secs_f64()), "{:?}", run.elapsed);
    drop(sessions);
    eventually(PATIENCE, "a free connection", || {
        (Program::request(&request).report()["failed"] == false).then_some(())
    });
    assert_eq!(instance.state("b", "s1"), (1, 0));
    Ok(())
}

fn a_frozen_process_is_left_in_time(haproxy: &Haproxy) -> TestResult {
    let instance = Instance::start(haproxy, "frozen", "backend b\n    server s1 127.0.0.1:9\n");
    let other = Instance::start(haproxy, "other", "backend b\n    server s1 127.0.0.1:9\n");
    let pid = instance.pid();
    freeze(Pid::from_raw(pid));
    let request = |policy: &str| {
        json!({
            "server": "s1", "state": "maint", "timeout": 1, "on_unreachable": policy,
            "instances": [instance.address(), other.address()]
        })
    };
    let run = Program::request(&request("fail")).run();
    let report = run.report();
    assert_eq!((kind(&report), &report["error"]["instance"]), ("timeout", &json!("frozen")), "{report}");
    assert_eq!(report["error"]["retryable"], true);
    assert!((0.9..3.0).contains(&run.elapsed.as_secs_f64()), "{:?}", run.elapsed);
    assert_eq!(other.state("b", "s1"), (0, 2), "nothing is set anywhere");
    let report = Program::request(&request("skip")).report();
    assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
    assert!(warnings(&report).contains("frozen: skipped"), "{report}");
    assert_eq!(report["instances"][0]["error"]["kind"], "timeout");
    assert_eq!(other.state("b", "s1"), (1, 0));
    kill(Pid::from_raw(pid), Signal::SIGCONT)?;
    assert_eq!(instance.state("b", "s1"), (0, 2));
    Ok(())
}

fn a_connection_that_haproxy_has_ended_is_opened_again(haproxy: &Haproxy) -> TestResult {
    let proxies = "backend b\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n";
    let quick = Setup::new("quick", proxies).global("stats timeout 100ms").start(haproxy);
    let slow = Instance::start(haproxy, "slow", proxies);
    let pid = Pid::from_raw(slow.pid());
    freeze(pid);
    let resumed = thread::spawn(move || {
        // While the other is waited for, 'quick' ends the connection through which it was observed.
        thread::sleep(Duration::from_secs(2));
        kill(pid, Signal::SIGCONT)
    });
    let both = [quick.address(), slow.address()];
    let run = Program::request(&json!({ "server": "s1", "state": "maint", "timeout": 10, "instances": both })).run();
    resumed.join().expect("a thread that ends")?;
    let report = run.report();
    assert_eq!((&report["failed"], warnings(&report).as_str()), (&json!(false), ""), "{report}");
    assert!(run.elapsed > Duration::from_millis(1000), "the slow one is waited for: {:?}", run.elapsed);
    assert_eq!(commands(&report), ["set server b/s1 state maint"; 2], "each is sent once: {report}");
    assert_eq!((quick.state("b", "s1").0, slow.state("b", "s1").0), (1, 1));
    Ok(())
}

fn a_connection_that_ends_while_another_socket_is_silent_is_opened_again(haproxy: &Haproxy) -> TestResult {
    let proxies = "backend b\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n";
    let name = format!("quick-{}-{}", haproxy.name, std::process::id());
    let setup = Setup::new(&name, proxies).global("stats timeout 100ms").stats_socket("silent.sock level admin");
    let instance = setup.start(haproxy);
    // Somebody else listens there now, and says nothing.
    let path = instance.folder.join("silent.sock");
    std::fs::remove_file(&path)?;
    let silent = UnixListener::bind(&path)?;
    for (state, expected) in [("maint", 1), ("ready", 0)] {
        let request = json!({ "server": "s1", "state": state, "timeout": 1, "instances": name });
        let run = Program::request(&request).run();
        let report = run.report();
        assert_eq!((&report["failed"], warnings(&report).as_str()), (&json!(false), ""), "{report}");
        assert!(run.elapsed > Duration::from_millis(900), "the silent one is waited for: {:?}", run.elapsed);
        assert_eq!(report["instances"][0]["socket"], json!(instance.socket), "{report}");
        assert_eq!(instance.state("b", "s1").0, expected);
    }
    drop(silent);
    Ok(())
}

fn a_command_that_timed_out_is_read_back(haproxy: &Haproxy) -> TestResult {
    // A client that is silent for longer than `stats timeout` is left, and its last command with it.
    let setup = Setup::new("frozen", "backend b\n    server s1 127.0.0.1:9\n").global("stats timeout 60s");
    let instance = setup.start(haproxy);
    let pid = Pid::from_raw(instance.pid());
    // It resumes after the program has given up its reply, and before it gives up reading back; or much later.
    for (state, pause, expected) in [("maint", 3.0, ""), ("ready", 8.0, "timeout")] {
        let socket = instance.folder.join(state);
        let tap = Tap::once(&socket, &instance.socket, When::Before, move || {
            freeze(pid);
            thread::spawn(move || {
                thread::sleep(Duration::from_secs_f64(pause));
                let _ = kill(pid, Signal::SIGCONT);
            });
        });
        let request = json!({ "server": "s1", "state": state, "instances": tap.address(), "timeout": 2 });
        let run = Program::request(&request).run();
        let report = run.report();
        assert_eq!(kind(&report), expected, "{report}");
        assert!(run.elapsed < Duration::from_secs(7), "{:?}", run.elapsed);
        let entry = server(&report, "b/s1");
        assert_eq!(entry["commands"], json!([format!("set server b/s1 state {state}")]), "what was sent is shown");
        if expected.is_empty() {
            assert_eq!((&report["changed"], &entry["after"]["admin_state"]), (&json!(true), &json!(state)), "{report}");
            assert!(warnings(&report).contains("did not answer"), "{report}");
        } else {
            assert_eq!((&entry["failed"], &entry["after"]), (&json!(true), &json!(null)), "not known: {report}");
        }
    }
    eventually(PATIENCE, "the process to resume and carry the command out", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().filter(|stat| !stat.contains(") T ")).map(drop)
    });
    instance.await_state("b", "s1", (0, 2));
    Ok(())
}

/// Sets a server while HAProxy is reloaded.
fn reloaded(haproxy: &Haproxy, mode: Mode, when: When) -> TestResult {
    let proxies = "backend b\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n";
    let instance = Setup::new("reloaded", proxies).mode(mode).start(haproxy);
    instance.set_state("b/s2", "maint");
    let (socket, folder, before) = (instance.socket.clone(), instance.folder.clone(), instance.pid());
    let instance = Arc::new(Mutex::new(instance));
    let reloads = instance.clone();
    let tap = Tap::once(&folder.join("tap"), &socket, when, move || reloads.lock().expect("the instance").reload());
    let run = Program::request(&json!({ "server": "*", "state": "maint", "instances": tap.address() })).run();
    let report = run.report();
    let instance = instance.lock().expect("the instance");
    assert_ne!(instance.pid(), before, "it was reloaded");
    assert_eq!(report["failed"], false, "{report}");
    let states = (instance.state("b", "s1"), instance.state("b", "s2"));
    assert_eq!(states, ((1, 0), (1, 0)), "{mode:?} {when:?}: a false success: {report}");
    assert!(warnings(&report).contains("reloaded during the run"), "{report}");
    assert_eq!(report["instances"][0]["pid"], instance.pid());
    assert_eq!(report["changed"], true);
    Ok(())
}

fn a_reload_before_the_command_is_followed(haproxy: &Haproxy) -> TestResult {
    reloaded(haproxy, Mode::MasterWorker, When::Before)?;
    reloaded(haproxy, Mode::Foreground, When::Before)?;
    reloaded(haproxy, Mode::Daemon, When::Before)
}

fn a_reload_after_the_command_is_followed(haproxy: &Haproxy) -> TestResult {
    reloaded(haproxy, Mode::MasterWorker, When::After)?;
    reloaded(haproxy, Mode::Foreground, When::After)?;
    reloaded(haproxy, Mode::Daemon, When::After)
}

pub(crate) const HEADER: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
    srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
    srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord\n";

pub(crate) fn row(server: u32) -> String {
    format!("2 b {server} s{server} 127.0.0.1 2 0 1 1 5 1 0 2 0 0 0 0 - 9 -\n")
}

/// The answer to `show info`. Tests that run at the same time have processes of their own, also in another checkout, so
/// that none waits for the lock of another.
pub(crate) fn info(pid: u32, stopping: u32) -> String {
    let thread = format!("{:?}", thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    let start = format!("{}{thread}", std::process::id());
    format!(
        "Name: HAProxy\nVersion: 2.6.12\nNbproc: 1\nPid: {pid}\nUptime_sec: 100\nStart_time_sec: {start}\n\
         Stopping: {stopping}\n\n> "
    )
}

/// The beginning of every conversation, up to the dump.
pub(crate) fn opening() -> Vec<Step> {
    vec![
        Step::Expect("prompt"),
        Step::send("\n> "),
        Step::Expect("show info"),
        Step::Expect("show cli level"),
        Step::send(info(7, 0)),
        Step::send("admin\n\n> "),
        Step::Expect("show servers state"),
    ]
}

/// Asks a scripted socket for a change with a short timeout; nothing may be left over of its script.
fn scripted(script: Vec<Vec<Step>>) -> (Run, Vec<Vec<String>>) {
    let folder = Folder::new();
    let socket = Scripted::start(&folder.join("fake.sock"), script);
    let request = json!({ "server": "*", "state": "maint", "instances": socket.address(), "timeout": 1 });
    let run = Program::request(&request).run();
    assert_eq!(socket.faults(), [""; 0], "{}", run.stdout);
    (run, socket.connections())
}

fn a_stopping_process_is_left_for_its_successor(_: &Haproxy) -> TestResult {
    let mut stopping = opening();
    stopping.pop();
    stopping[4] = Step::send(info(6, 1));
    stopping.push(Step::Expect("quit"));
    let reply = format!("{HEADER}{}\n> ", row(1).replace("127.0.0.1 2 0", "127.0.0.1 0 1"));
    let mut successor = opening();
    successor.push(Step::send(reply));
    successor.extend(statistics());
    let (run, _) = scripted(vec![stopping.clone(), stopping, successor]);
    let report = run.report();
    assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(false)), "{report}");
    assert_eq!(report["instances"][0]["pid"], 7);
    Ok(())
}

/// Rows that no server can have, and what of them is shown.
const GARBAGE: [(&str, &str); 5] = [
    ("2 b 2 s2 127.0.0.1 2 what 1 1 5 1 0 2 0 0 0 0 - 9 -\n", "what"),
    ("2 b 2 s2 127.0.0.1\n", "2 b 2 s2 127.0.0.1"),
    ("\u{7f}\u{0}\n", "\\x7f\\x00"),
    ("2 b 2 s2 127.0.0.1 9 0 1 1 5 1 0 2 0 0 0 0 - 9 -\n", "srv_op_state"),
    ("Internal error\n", "Internal error"),
];

/// Answers the statistics of the one server of [`row`], in maintenance.
fn statistics() -> Vec<Step> {
    let answer = "# pxname,svname,qcur,scur,stot,status,weight,check_status,check_code,tracked,bck,iid,sid,throttle,check_rise,check_fall,check_health\n\
                  b,s1,0,0,0,MAINT,1,,,,0,2,1,,,,\n\n> ";
    vec![Step::ExpectPrefix("show stat 2 4 1"), Step::send(answer), Step::ReadToEnd]
}

fn a_row_of_garbage_is_read_once_more(_: &Haproxy) -> TestResult {
    // HAProxy 3.4.0 and older write one for a server that is deleted at that moment.
    for (bad, _) in GARBAGE {
        let mine = row(1).replace("127.0.0.1 2 0", "127.0.0.1 0 1");
        let mut script = opening();
        script.push(Step::send(format!("{HEADER}{mine}{bad}{}\n> ", row(3))));
        script.push(Step::Expect("show servers state"));
        script.push(Step::send(format!("{HEADER}{mine}\n> ")));
        script.extend(statistics());
        let (run, _) = scripted(vec![script]);
        let report = run.report();
        assert_eq!((kind(&report), servers(&report)), ("", vec!["b/s1".to_owned()]), "{bad:?}: {report}");
    }
    Ok(())
}

/// Rows of `show stat`: their names, and those that no server can have.
const STATISTICS: &str = "# pxname,svname,qcur,scur,stot,status,weight,check_status,check_code,tracked,bck,iid,sid,throttle,check_rise,check_fall,check_health\n";
const BAD_STATISTICS: [&str; 4] =
    ["b,s1,0,what,0,MAINT,1,,,,0,2,1,,,,\n", "b,s1,0,0,0\n", "\u{7f}\u{0}\n", ",,,,,,,,,,,,,,,,\n"];

/// What is read of a server in maintenance, on a connection of its own, before and after a row of garbage.
fn poll_with_garbage(bad: &str) -> Vec<Step> {
    let mut script = opening();
    script.truncate(3);
    script.extend([Step::send(info(7, 0)), Step::Expect("show stat 2 4 1")]);
    script.push(Step::send(format!("{STATISTICS}{bad}\n> ")));
    script.push(Step::Expect("show stat 2 4 1"));
    script.push(Step::send(format!("{STATISTICS}b,s1,0,0,0,MAINT,1,,,,0,2,1,,,,\n\n> ")));
    script.push(Step::ReadToEnd);
    script
}

fn a_row_of_garbage_in_the_statistics_is_read_once_more(_: &Haproxy) -> TestResult {
    let mine = row(1).replace("127.0.0.1 2 0", "127.0.0.1 0 1");
    for bad in BAD_STATISTICS {
        let mut observe = opening();
        observe.extend([Step::send(format!("{HEADER}{mine}\n> ")), Step::Expect("show stat 2 4 1")]);
        observe.push(Step::send(format!("{STATISTICS}{bad}\n> ")));
        observe.extend(statistics());
        // Nothing has to be sent: a poll, and how it is in the end.
        let mut last = opening();
        last.truncate(3);
        last.extend([Step::send(info(7, 0)), Step::ExpectPrefix("show servers state")]);
        last.push(Step::send(format!("{HEADER}{mine}\n> ")));
        last.extend([Step::Expect("show info"), Step::send(info(7, 0)), Step::ReadToEnd]);
        let folder = Folder::new();
        let scripts = vec![observe, poll_with_garbage(bad), last];
        let socket = Scripted::start(&folder.join("fake.sock"), scripts);
        let request = json!({ "server": "*", "state": "maint", "wait": { "timeout": 5 },
            "instances": socket.address(), "timeout": 1 });
        let report = Program::request(&request).report();
        assert_eq!((socket.faults(), kind(&report)), (vec![], ""), "{bad:?}: {report}");
    }
    Ok(())
}

fn columns_that_a_later_version_adds_are_no_trouble(_: &Haproxy) -> TestResult {
    let more = |lines: &str, added: &str, value: &str| {
        let lines = lines.lines().map(|line| match line {
            "1" | "" => line.to_owned(),
            header if header.starts_with('#') => format!("{header}{added}"),
            row => format!("{row}{value}"),
        });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    };
    let dump = more(&format!("{HEADER}{}", row(1)), " srv_mood srv_age", " fair -");
    let rows = more(&format!("{STATISTICS}b,s1,0,3,0,UP,1,,,,0,2,1,,,,\n"), ",mood", ",fair");
    let mut script = opening();
    script.extend([
        Step::send(dump + "\n> "),
        Step::Expect("show stat 2 4 1"),
        Step::send(rows + "\n> "),
        Step::ReadToEnd,
    ]);
    let folder = Folder::new();
    let socket = Scripted::start(&folder.join("later.sock"), vec![script]);
    let report = Program::request(&json!({ "instances": socket.address(), "timeout": 1 })).report();
    assert_eq!((socket.faults(), kind(&report)), (vec![], ""), "{report}");
    let shown = server(&report, "b/s1");
    assert_eq!((&shown["after"]["admin_state"], &shown["sessions"]), (&json!("ready"), &json!(3)), "{report}");
    Ok(())
}

fn a_row_of_garbage_for_the_state_file_is_read_once_more(_: &Haproxy) -> TestResult {
    let mine = row(1).replace("127.0.0.1 2 0", "127.0.0.1 0 1");
    // The operational state is not taken from the dump.
    for (bad, _) in GARBAGE.into_iter().filter(|(_, what)| *what != "srv_op_state") {
        let mut observe = opening();
        observe.push(Step::send(format!("{HEADER}{mine}\n> ")));
        observe.extend(statistics());
        let again = |rows: String| {
            let mut script = opening();
            script.truncate(3);
            script.extend([Step::send(info(7, 0)), Step::ExpectPrefix("show servers state")]);
            script.push(Step::send(format!("{HEADER}{rows}\n> ")));
            script
        };
        let mut last = again(mine.clone());
        last.extend([Step::Expect("show info"), Step::send(info(7, 0)), Step::ReadToEnd]);
        let close = |mut script: Vec<Step>| {
            script.push(Step::ReadToEnd);
            script
        };
        let scripts = vec![observe, close(again(format!("{bad}{mine}"))), close(again(mine.clone())), last];
        let folder = Folder::new();
        let socket = Scripted::start(&folder.join("fake.sock"), scripts);
        let file = folder.join("state");
        let request = json!({ "server": "*", "state": "maint", "state_file": file,
            "instances": socket.address(), "timeout": 1 });
        let report = Program::request(&request).report();
        assert_eq!((socket.faults(), kind(&report)), (vec![], ""), "{bad:?}: {report}");
        assert!(std::fs::read_to_string(&file)?.contains(" s1 "), "{bad:?}");
    }
    Ok(())
}

fn a_row_that_is_not_understood_does_not_end_the_dump(_: &Haproxy) -> TestResult {
    for (bad, shown) in GARBAGE {
        let mut script = opening();
        // Were it left at the bad row, sending the rest would fail.
        script.push(Step::send(format!("{HEADER}{}{bad}", row(1))));
        script.push(Step::Sleep(Duration::from_millis(200)));
        for number in 3..200 {
            script.push(Step::send(row(number)));
        }
        script.extend([Step::send("\n> "), Step::Expect("show servers state")]);
        script.extend([Step::send(format!("{HEADER}{}{bad}\n> ", row(1))), Step::ReadToEnd]);
        let (run, lines) = scripted(vec![script]);
        let report = run.report();
        assert_eq!((kind(&report), &report["changed"]), ("bad_reply", &json!(false)), "{report}");
        assert_eq!(report["error"]["retryable"], true, "{report}");
        assert!(report["error"]["msg"].as_str().unwrap().contains(shown), "{report}");
        assert!(!lines.concat().iter().any(|line| line.starts_with("set ")), "{lines:?}");
    }
    Ok(())
}

fn a_dump_without_its_end_is_an_error(_: &Haproxy) -> TestResult {
    let whole = format!("{HEADER}{}{}", row(1), row(2));
    for cut in [whole.len(), whole.len() - 1, whole.len() - 20, HEADER.len(), 40, 2, 1] {
        let mut script = opening();
        script.extend([Step::send(&whole[..cut]), Step::Close]);
        let (run, _) = scripted(vec![script]);
        assert_eq!(kind(&run.report()), "bad_reply", "cut after {cut}: {}", run.stdout);
    }
    for (reply, expected) in [
        // Another version of the table, columns that are missing, no header, a frontend's answer.
        (format!("2\n{}", &whole[2..]), "'2'"),
        (whole.replace("srv_admin_state ", ""), "srv_admin_state"),
        ("1\n".to_owned(), "column"),
        (String::new(), "version line"),
    ] {
        let mut script = opening();
        script.extend([Step::send(format!("{reply}\n> ")), Step::ReadToEnd]);
        let (run, _) = scripted(vec![script]);
        let report = run.report();
        assert_eq!(kind(&report), "bad_reply", "{reply:?}: {report}");
        assert!(report["error"]["msg"].as_str().unwrap().contains(expected), "{report}");
    }
    Ok(())
}

fn silence_in_a_dump_is_borne_for_five_seconds(_: &Haproxy) -> TestResult {
    let start = Instant::now();
    let mut script = opening();
    script.extend([Step::send(format!("{HEADER}{}", row(1))), Step::Hang]);
    let (run, _) = scripted(vec![script]);
    assert_eq!(kind(&run.report()), "timeout", "{}", run.stdout);
    assert!((4.9..8.0).contains(&run.elapsed.as_secs_f64()), "{:?}", run.elapsed);
    // As long as something comes, the timeout of 1 s does not count.
    let mut script = opening();
    script.push(Step::send(HEADER));
    for number in 1..=4 {
        script.extend([Step::Sleep(Duration::from_millis(600)), Step::send(row(number))]);
    }
    script.extend([Step::send("not a row\n\n> "), Step::Expect("show servers state")]);
    script.extend([Step::send(format!("{HEADER}not a row\n\n> ")), Step::ReadToEnd]);
    let (run, _) = scripted(vec![script]);
    assert_eq!(kind(&run.report()), "bad_reply", "{}", run.stdout);
    assert!(run.elapsed > Duration::from_millis(2_300), "{:?}", run.elapsed);
    assert!(start.elapsed() < Duration::from_secs(15));
    Ok(())
}

fn an_endless_reply_is_bounded(_: &Haproxy) -> TestResult {
    let cases: [(Vec<Step>, Vec<u8>, &str); 4] = [
        (vec![], b"\n".to_vec(), "not_haproxy"),
        (vec![], b"> no prompt".to_vec(), "not_haproxy"),
        (opening()[..4].to_vec(), b"Name: HAProxy\n".repeat(1_000), "bad_reply"),
        (opening()[..4].to_vec(), vec![b'x'; 60_000], "bad_reply"),
    ];
    for (mut script, flood, expected) in cases {
        script.push(Step::Flood(flood));
        let (run, _) = scripted(vec![script]);
        assert_eq!(kind(&run.report()), expected, "{}", run.stdout);
        assert!(run.elapsed < Duration::from_secs(5), "{:?}", run.elapsed);
    }
    // One that trickles for longer than is allowed.
    let mut script = opening()[..4].to_vec();
    script.extend((0..8).flat_map(|_| [Step::send("Name: HAProxy\n"), Step::Sleep(Duration::from_millis(200))]));
    script.push(Step::Hang);
    let folder = Folder::new();
    let socket = Scripted::start(&folder.join("fake.sock"), vec![script]);
    let run = Program::request(&json!({ "instances": socket.address(), "timeout": 1 })).run();
    assert_eq!(kind(&run.report()), "timeout", "{}", run.stdout);
    assert!(run.elapsed < Duration::from_secs(4), "{:?}", run.elapsed);
    Ok(())
}

fn what_is_no_haproxy_is_told_so(_: &Haproxy) -> TestResult {
    let cases = [
        (vec![Step::send("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), Step::Hang], "timeout"),
        (vec![Step::send("220 mail ESMTP\r\n"), Step::Sleep(Duration::from_millis(100))], "not_haproxy"),
        (vec![Step::AnyLine, Step::send("HTTP/1.1 400 Bad request\r\n\r\n"), Step::Close], "not_haproxy"),
        (vec![Step::AnyLine, Step::send("-ERR unknown command\r\n> ")], "not_haproxy"),
        (vec![Step::AnyLine, Step::send(b"\xff\xfe\x00> ")], "not_haproxy"),
        (vec![Step::AnyLine, Step::send(b"\x00".repeat(5_000)), Step::Hang], "not_haproxy"),
        (vec![Step::Close], "unreachable"),
        (vec![Step::AnyLine, Step::Close], "unreachable"),
        (vec![Step::Hang], "timeout"),
    ];
    for (script, expected) in cases {
        let folder = Folder::new();
        let socket = Scripted::start(&folder.join("fake.sock"), vec![script.clone()]);
        let run = Program::request(&json!({ "instances": socket.address(), "timeout": 1 })).run();
        let report = run.report();
        // A greeting and then silence may be a slow HAProxy, or none.
        let is_expected = kind(&report) == expected || (expected == "timeout" && kind(&report) == "not_haproxy");
        assert!(is_expected, "{script:?}: {report}");
        assert!(run.elapsed < Duration::from_secs(4), "{:?}", run.elapsed);
    }
    Ok(())
}

fn what_is_not_understood_is_shown(_: &Haproxy) -> TestResult {
    let answers: [(&[u8], &[u8], &str); 6] = [
        (b"Unknown command\n\n> ", b"admin\n\n> ", "Unknown command"),
        (b"\xff\xfe\n\n> ", b"admin\n\n> ", "\\xff\\xfe"),
        (b"Version: 3\nPid: x\nUptime_sec: 1\n\n> ", b"admin\n\n> ", "Pid"),
        (b"Version: 3\nPid: 1\n\n> ", b"admin\n\n> ", "Uptime_sec"),
        (b"Version: 3\nPid: 1\nUptime_sec: 1\n\n> ", b"root\n\n> ", "root"),
        (b"Version: 3\nPid: 1\nUptime_sec: 1\nNbproc: many\n\n> ", b"admin\n\n> ", "Nbproc"),
    ];
    for (info, level, shown) in answers {
        let mut script = opening()[..4].to_vec();
        // In one piece: after a first answer that is not understood, the client may leave before the second.
        script.extend([Step::send([info, level].concat()), Step::ReadToEnd]);
        let (run, _) = scripted(vec![script]);
        let report = run.report();
        assert_eq!(kind(&report), "bad_reply", "{report}");
        assert!(report["error"]["msg"].as_str().unwrap().contains(shown), "{shown}: {report}");
    }
    Ok(())
}

fn no_text_of_haproxy_is_a_command_to_a_terminal(_: &Haproxy) -> TestResult {
    // HAProxy 3.4 and later starts with names like these; an escape sequence, a C1 control and marks of direction.
    const NAME: &str = "s1\u{1b}]0;pwned\u{7}\u{9b}31m\u{202e}\u{61c}\u{7f}";
    let dump = format!("{HEADER}{}\n> ", row(1).replace("s1", NAME).replace("127.0.0.1", "127.0.0.1\u{1b}c"));
    let stat = format!(
        "# pxname,svname,qcur,scur,stot,status,weight,bck,iid,sid,throttle,tracked,check_status,check_code,check_rise,check_fall,check_health,\n\
         b,{NAME},0,0,0,UP\u{1b}[2J,1,0,2,1,,b/x\u{1b}[m,L7OK\u{1b}[H,200,2,3,4,\n\n> "
    );
    let version = |text: String| text.replace("2.6.12", "2.6.12\u{1b}[31m");
    let mut script = opening();
    script[4] = Step::send(version(info(7, 0)));
    script.extend([Step::send(&dump), Step::Expect("show stat 2 4 1"), Step::send(&stat), Step::ReadToEnd]);
    let folder = Folder::new();
    let is_unsafe = |sign: char| sign.is_control() || "\u{202e}\u{61c}".contains(sign);
    for format in ["json", "text"] {
        let socket = Scripted::start(&folder.join(&format!("{format}.sock")), vec![script.clone()]);
        let request = json!({ "server": "*", "instances": socket.address(), "diff": true });
        let run = Program::request(&request).arg(format!("--format={format}")).run();
        assert_eq!(socket.faults(), [""; 0], "{}", run.stdout);
        let lines = |text: &str| text.replace('\n', "");
        assert!(!lines(&run.stderr).contains(is_unsafe), "{:?}", run.stderr);
        assert!(run.stdout.contains("\\u{1b}]0;pwned") || run.stdout.contains("\\\\u{1b}]0;pwned"), "{}", run.stdout);
        if format == "json" {
            // What a tool shows raw is what it has decoded.
            assert!(run.stdout.bytes().all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\n'), "{}", run.stdout);
            let mut texts = vec![run.report()];
            while let Some(value) = texts.pop() {
                match value {
                    Value::String(text) => assert!(!lines(&text).contains(is_unsafe), "{text:?}"),
                    Value::Array(items) => texts.extend(items),
                    Value::Object(fields) => texts.extend(fields.into_iter().map(|(_, value)| value)),
                    Value::Null | Value::Bool(_) | Value::Number(_) => {}
                }
            }
        } else {
            assert!(!lines(&run.stdout).contains(is_unsafe), "{:?}", run.stdout);
        }
    }
    Ok(())
}

fn a_closed_output_is_no_panic(haproxy: &Haproxy) -> TestResult {
    let instance = large(haproxy);
    let recorder = Recorder::on(&instance);
    for (shell, state) in [
        ("\"$@\" | head -c 0; exit ${PIPESTATUS[0]}", "maint"),
        ("\"$@\" >&-", "ready"),
        ("\"$@\" 2>&- | head -c 1 >/dev/null; exit ${PIPESTATUS[0]}", "drain"),
    ] {
        let request = json!({ "server": "server-000.*", "state": state, "instances": recorder.address() });
        for format in ["--format=json", "--format=text"] {
            let run = Program::request(&request).arg(format).under(["bash", "-c", shell, "bash"]).run();
            assert!(!run.stderr.contains("panicked"), "{shell}: {}", run.stderr);
            assert!(matches!(run.code, Some(0 | 1)), "{shell}: {:?} {}", run.code, run.stderr);
        }
        let mask = if state == "maint" {
            1
        } else if state == "drain" {
            8
        } else {
            0
        };
        assert_eq!(instance.row("backend-00", "server-000.example.org").admin, mask, "the work is done all the same");
    }
    let help = Program::new().arg("--help").under(["bash", "-c", "\"$@\" | head -c 0; exit ${PIPESTATUS[0]}", "bash"]);
    let help = help.run();
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    let help = Program::new().arg("--help").under(["sh", "-c", "\"$@\" >/dev/full", "sh"]).run();
    assert_eq!(help.code, Some(1));
    assert!(help.stderr.contains("cannot write to standard output: No space left"), "{}", help.stderr);
    Ok(())
}

fn an_input_that_never_ends_is_left(_: &Haproxy) -> TestResult {
    for input in ["", "{", "{}"] {
        let run = Program::input(input).arg("--stdin-timeout").arg("0.3").keep_stdin_open().run();
        let report = run.report();
        assert_eq!((run.code, kind(&report)), (Some(1), "bad_request"), "{report}");
        assert!(report["error"]["msg"].as_str().unwrap().contains("--stdin-timeout"), "{report}");
        assert!((0.25..3.0).contains(&run.elapsed.as_secs_f64()), "{:?}", run.elapsed);
    }
    Ok(())
}
