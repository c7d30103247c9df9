//! State files: what a run sets survives a reload, and a reload restores nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::support::backend::stats_page;
use crate::support::report::{commands, kind, server, warnings};
use crate::support::tap::Tap;
use crate::support::{
    Answer, Bound, Dns, Folder, Haproxy, Health, HttpBackend, Instance, Mode, PATIENCE, Port, Program, Recorder,
    Running, Setup, Test, TestResult, eventually, get, skipped, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        changes_survive_reloads_of_every_kind,
        a_lost_file_is_rewritten_without_a_command,
        a_file_that_haproxy_would_not_load_is_repaired,
        maintenance_plus_drain_is_kept_as_maintenance,
        past_failures_are_not_restored,
        ready_removes_the_row,
        a_dry_run_compares_without_writing,
        a_link_is_refused_and_its_target_left_alone,
        a_file_of_another_kind_is_left_alone,
        a_plain_path_needs_a_single_instance,
        a_configuration_that_does_not_load_it_is_a_warning,
        a_full_disk_loses_nothing,
        a_rollback_restores_the_file,
        checks_still_count_after_a_reload,
        a_file_that_would_stop_the_checks_is_rewritten,
        a_host_name_is_resolved_again_by_a_resolver,
        a_host_name_is_resolved_again_by_the_c_library,
        a_server_of_an_srv_record_keeps_its_target,
        a_slot_keeps_its_machine_over_a_reload,
        a_reload_in_mid_drain_lets_no_traffic_back,
        a_run_killed_in_mid_drain_lets_no_traffic_back,
        a_reload_just_before_the_file_is_written_loses_nothing,
        a_reload_while_the_file_is_written_in_mid_drain_lets_no_traffic_back,
        a_port_that_differs_from_the_configuration_is_a_warning,
        a_server_missing_from_the_configuration_is_a_warning,
        instances_may_share_a_file,
        a_check_that_passes_while_the_file_is_written_counts,
        a_backend_may_have_its_own_file,
        a_file_for_an_unknown_backend_is_refused,
        two_spellings_of_one_path_are_refused,
        a_file_for_a_skipped_instance_is_accepted,
    ]
}

const PROXIES: &str = "backend b\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n    server s3 127.0.0.1:9\n";

/// Starts an instance that loads its state file, which does not exist yet.
fn loading(mode: Mode, proxies: &str, haproxy: &Haproxy) -> (Instance, PathBuf) {
    let folder = Folder::new();
    let file = folder.join("state");
    let instance = Setup::new("kept", proxies).folder(&folder).mode(mode).loads(&file).start(haproxy);
    (instance, file)
}

/// Sends a request with the state file to an instance.
fn ask(instance: &Instance, file: &Path, request: &Value) -> Value {
    Program::request(&with_file(instance, file, request)).report()
}

fn with_file(instance: &Instance, file: &Path, request: &Value) -> Value {
    let mut request = request.clone();
    request["instances"] = json!(instance.address());
    request["state_file"] = json!(file);
    request
}

fn to(server: &str, state: &str) -> Value {
    json!({ "server": server, "state": state })
}

/// Asserts success, and whether the server, the file and hence the whole run have changed.
#[track_caller]
fn assert_done(report: &Value, of_server: bool, of_file: bool) {
    assert_eq!(report["failed"], false, "{report}");
    let seen = (&report["servers"][0]["changed"], &report["instances"][0]["state_file"]["changed"], &report["changed"]);
    assert_eq!(seen, (&json!(of_server), &json!(of_file), &json!(of_server || of_file)), "{report}");
}

/// Returns the servers that have rows in the file.
fn rows(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a state file");
    let rows = text.lines().skip(1).filter(|line| !line.starts_with('#') && !line.is_empty());
    rows.map(|row| row.split(' ').nth(3).expect("a name").to_owned()).collect()
}

/// Returns the names in the folder of a file.
fn names_beside(file: &Path) -> Vec<String> {
    let folder = fs::read_dir(file.parent().expect("a folder")).expect("a folder");
    let mut names: Vec<String> =
        folder.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn changes_survive_reloads_of_every_kind(haproxy: &Haproxy) -> TestResult {
    let behind = HttpBackend::start("s4");
    let proxies = format!(
        "backend b\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n    server s3 127.0.0.1:9 weight 10\n    \
         server s4 {} check inter 100ms\n    server s5 127.0.0.1:9\n    server s6 127.0.0.1:9 disabled\n",
        behind.address()
    );
    for mode in [Mode::MasterWorker, Mode::Foreground, Mode::Daemon] {
        let (mut instance, file) = loading(mode, &proxies, haproxy);
        for request in [
            to("s1", "maint"),
            to("s2", "drain"),
            json!({ "server": "s3", "weight": 3 }),
            json!({ "server": "s4", "state": "ready", "health": "disabled" }),
            to("s6", "ready"),
        ] {
            assert_done(&ask(&instance, &file, &request), true, true);
            assert_done(&ask(&instance, &file, &request), false, false);
        }
        for round in 0..2 {
            instance.reload();
            let seen = ["s1", "s2", "s3", "s5", "s6"].map(|server| instance.state("b", server));
            assert_eq!(seen, [(1, 0), (8, 2), (0, 2), (0, 2), (4, 2)], "{mode:?} {round}");
            assert_eq!(instance.row("b", "s3").weight, 3, "{mode:?} {round}");
            let check: u32 = instance.row("b", "s4").columns["srv_check_state"].parse()?;
            assert_eq!(check & 6, 2, "{mode:?} {round}: the check is paused");
            // After the reload nothing is left to do, neither in HAProxy nor in the file.
            assert_done(&ask(&instance, &file, &to("s1", "maint")), false, false);
            assert_done(&ask(&instance, &file, &json!({ "server": "s3", "weight": 3 })), false, false);
        }
    }
    Ok(())
}

fn a_lost_file_is_rewritten_without_a_command(haproxy: &Haproxy) -> TestResult {
    let (mut instance, file) = loading(Mode::MasterWorker, PROXIES, haproxy);
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    fs::remove_file(&file)?;
    let report = ask(&instance, &file, &to("s1", "maint"));
    assert_done(&report, false, true);
    assert_eq!(commands(&report), [""; 0]);
    assert_eq!(rows(&file), ["s1"]);
    let written = fs::read(&file)?;
    assert_done(&ask(&instance, &file, &to("s1", "maint")), false, false);
    assert_eq!(fs::read(&file)?, written, "the file is not rewritten without a difference");
    instance.reload();
    assert_eq!(instance.state("b", "s1"), (1, 0));
    // Lost just before a reload: the server is back in service, and is taken out again.
    fs::remove_file(&file)?;
    instance.reload();
    assert_eq!(instance.state("b", "s1"), (0, 2));
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    instance.reload();
    assert_eq!(instance.state("b", "s1"), (1, 0));
    assert!(!names_beside(&file).iter().any(|name| name.ends_with(".new")), "{:?}", names_beside(&file));
    Ok(())
}

fn a_file_that_haproxy_would_not_load_is_repaired(haproxy: &Haproxy) -> TestResult {
    let (mut instance, file) = loading(Mode::Foreground, PROXIES, haproxy);
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    let whole = fs::read(&file)?;
    fs::write(&file, &whole[..whole.len() - 1])?;
    let report = ask(&instance, &file, &to("s1", "maint"));
    assert_done(&report, false, true);
    assert!(warnings(&report).contains("cut off"), "{report}");
    instance.reload();
    assert_eq!(instance.state("b", "s1"), (1, 0));
    Ok(())
}

fn maintenance_plus_drain_is_kept_as_maintenance(haproxy: &Haproxy) -> TestResult {
    // Only HAProxy's stats page can set both.
    let port = Port::reserve();
    let page =
        format!("listen page\n    bind 127.0.0.1:{}\n    stats uri /stats\n    stats admin if TRUE\n", port.number());
    let (mut instance, file) = loading(Mode::MasterWorker, &format!("{page}{PROXIES}"), haproxy);
    for action in ["stop", "disable"] {
        stats_page(port.address(), "/stats", "b", "s1", action);
    }
    assert_eq!(instance.state("b", "s1"), (9, 0), "HAProxy writes this, but rejects it when it reads the file");
    let report = ask(&instance, &file, &to("s1", "maint"));
    assert_eq!(report["failed"], false, "{report}");
    assert_eq!(rows(&file), ["s1"]);
    instance.reload();
    assert_eq!(instance.state("b", "s1"), (1, 0));
    assert_done(&ask(&instance, &file, &to("s1", "maint")), false, false);
    assert_done(&ask(&instance, &file, &to("s1", "ready")), true, true);
    assert_eq!(instance.state("b", "s1"), (0, 2));
    Ok(())
}

fn past_failures_are_not_restored(haproxy: &Haproxy) -> TestResult {
    let checked = HttpBackend::start("checked");
    checked.set_health(Health::Bad);
    let check = format!("{} check inter 50ms rise 1 fall 1", checked.address());
    let proxies = format!(
        "backend b\n    option httpchk GET /health\n    server s1 127.0.0.1:9\n    server healthless 127.0.0.1:9\n    \
         server weighed 127.0.0.1:9 weight 10\n    server checked {check}\n    server both {check} weight 10\n    \
         server formerly 127.0.0.1:9\n"
    );
    let (mut instance, file) = loading(Mode::MasterWorker, &proxies, haproxy);
    assert_done(&ask(&instance, &file, &to("formerly", "maint")), true, true);
    instance.set_state("b/formerly", "ready");
    for server in ["healthless", "weighed"] {
        instance.set(&format!("set server b/{server} health down"));
        assert_eq!(instance.state("b", server), (0, 0));
    }
    for server in ["checked", "both"] {
        instance.await_state("b", server, (0, 0));
    }
    for (server, weight) in [("weighed", 4), ("both", 5)] {
        assert_done(&ask(&instance, &file, &json!({ "server": server, "weight": weight })), true, true);
    }
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    let mut named = rows(&file);
    named.sort();
    assert_eq!(named, ["both", "s1", "weighed"], "only what a command has set");

    checked.set_health(Health::Good);
    instance.reload();
    assert_eq!(instance.state("b", "s1"), (1, 0));
    for server in ["healthless", "weighed", "formerly"] {
        assert_eq!(instance.state("b", server), (0, 2), "{server}");
    }
    for server in ["checked", "both"] {
        instance.await_state("b", server, (0, 2));
    }
    assert_eq!((instance.row("b", "weighed").weight, instance.row("b", "both").weight), (4, 5));
    Ok(())
}

fn ready_removes_the_row(haproxy: &Haproxy) -> TestResult {
    let (mut instance, file) = loading(Mode::MasterWorker, PROXIES, haproxy);
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    assert_done(&ask(&instance, &file, &to("s2", "maint")), true, true);
    assert_eq!(rows(&file), ["s1", "s2"]);
    assert_done(&ask(&instance, &file, &to("s1", "ready")), true, true);
    assert_eq!(rows(&file), ["s2"]);
    assert_done(&ask(&instance, &file, &to("s1", "ready")), false, false);
    instance.reload();
    assert_eq!((instance.state("b", "s1"), instance.state("b", "s2")), ((0, 2), (1, 0)));
    assert_done(&ask(&instance, &file, &to("s2", "ready")), true, true);
    assert_eq!(rows(&file), [""; 0]);
    instance.reload();
    assert_eq!((instance.state("b", "s1"), instance.state("b", "s2")), ((0, 2), (0, 2)));
    // A missing file is as good as one without rows.
    fs::remove_file(&file)?;
    assert_done(&ask(&instance, &file, &to("s2", "ready")), false, false);
    Ok(())
}

fn a_dry_run_compares_without_writing(haproxy: &Haproxy) -> TestResult {
    let (instance, file) = loading(Mode::Foreground, PROXIES, haproxy);
    let recorder = Recorder::on(&instance);
    let dry = |state: &str| {
        let mut request = with_file(&instance, &file, &to("s1", state));
        request["dry_run"] = json!(true);
        request["instances"] = json!(recorder.address());
        Program::request(&request).report()
    };
    assert_done(&dry("maint"), true, true);
    assert!(!file.exists());
    assert_done(&dry("ready"), false, false);
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    let written = fs::read(&file)?;
    assert_done(&dry("maint"), false, false);
    assert_done(&dry("ready"), true, true);
    assert_eq!(fs::read(&file)?, written);
    fs::remove_file(&file)?;
    assert_done(&dry("maint"), false, true);
    assert_done(&dry("ready"), true, false);
    assert!(!file.exists());
    assert_eq!(recorder.changing_commands(), [""; 0]);
    assert_eq!(instance.state("b", "s1"), (1, 0));
    Ok(())
}

/// Asserts that a path is refused before any command is sent, also in a dry run.
#[track_caller]
fn assert_refused(instance: &Instance, path: &Path, why: &str) {
    for is_dry in [true, false] {
        let mut request = to("s1", "maint");
        request["dry_run"] = json!(is_dry);
        let report = ask(instance, path, &request);
        assert_eq!((kind(&report), &report["changed"]), ("state_file", &json!(false)), "{report}");
        let msg = report["error"]["msg"].as_str().unwrap();
        assert!(msg.contains(why) && msg.contains(&path.display().to_string()), "{msg}");
        assert_eq!(instance.state("b", "s1"), (0, 2), "{report}");
    }
}

fn a_link_is_refused_and_its_target_left_alone(haproxy: &Haproxy) -> TestResult {
    let (instance, file) = loading(Mode::Foreground, PROXIES, haproxy);
    // The target would be a valid state file.
    let target = instance.folder.join("target");
    assert_done(&ask(&instance, &target, &to("s2", "maint")), true, true);
    let content = fs::read(&target)?;
    let nowhere = instance.folder.join("nowhere");
    for leads_to in [&target, &nowhere] {
        symlink(leads_to, &file)?;
        assert_refused(&instance, &file, "link");
        assert_eq!(&fs::read_link(&file)?, leads_to);
        fs::remove_file(&file)?;
    }
    assert_eq!(fs::read(&target)?, content);
    assert!(!nowhere.exists());
    Ok(())
}

fn a_file_of_another_kind_is_left_alone(haproxy: &Haproxy) -> TestResult {
    let (instance, file) = loading(Mode::Foreground, PROXIES, haproxy);
    let config = instance.config_file();
    let content = fs::read(&config)?;
    let report = ask(&instance, &config, &to("s1", "maint"));
    assert_eq!(kind(&report), "state_file", "{report}");
    assert!(report["error"]["msg"].as_str().unwrap().contains("not a server-state file"), "{report}");
    assert_eq!(fs::read(&config)?, content);
    assert_refused(&instance, &instance.socket, "");
    assert_refused(&instance, instance.folder.path(), "");
    assert_refused(&instance, &file.join("below"), "folder");
    assert_eq!(fs::read(&config)?, content);
    assert_eq!(instance.state("b", "s1"), (0, 2), "it is refused before any command is sent");
    Ok(())
}

fn a_plain_path_needs_a_single_instance(haproxy: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let start = |name: &str| {
        let file = folder.join(&format!("{name}.state"));
        (Setup::new(name, PROXIES).folder(&folder).loads(&file).start(haproxy), file)
    };
    let ((mut one, first), (mut two, second)) = (start("one"), start("two"));
    let both = json!([one.address(), two.address()]);
    let ask = |state_file: Value| {
        let mut request = to("s1", "maint");
        request["instances"] = both.clone();
        request["state_file"] = state_file;
        Program::request(&request).report()
    };
    for (state_file, named) in [(json!(first), "state_file"), (json!({ "one": first, "three": second }), "three")] {
        let report = ask(state_file);
        assert_eq!((kind(&report), &report["changed"]), ("bad_request", &json!(false)), "{report}");
        assert!(report["error"]["msg"].as_str().unwrap().contains(named), "{report}");
        assert_eq!((one.state("b", "s1"), two.state("b", "s1")), ((0, 2), (0, 2)));
        assert!(!first.exists() && !second.exists());
    }
    let report = ask(json!({ "two": second }));
    assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
    assert!(!first.exists() && report["instances"][0]["state_file"].is_null(), "{report}");
    assert_eq!(report["instances"][1]["state_file"]["path"], json!(second));
    let report = ask(json!({ "one": first, "two": second }));
    assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
    let seen: Vec<&Value> = report["instances"].as_array().unwrap().iter().map(|one| &one["changed"]).collect();
    assert_eq!(seen, [&json!(true), &json!(false)], "{report}");
    one.reload();
    two.reload();
    assert_eq!((one.state("b", "s1"), two.state("b", "s1")), ((1, 0), (1, 0)));
    Ok(())
}

fn a_configuration_that_does_not_load_it_is_a_warning(haproxy: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let file = folder.join("state");
    let shown = file.display();
    let one_backend = format!(
        "backend b\n    load-server-state-from-file local\n    server-state-file-name {shown}\n    server s1 127.0.0.1:9\n"
    );
    let another = folder.join("another");
    let plain = |name: &str| Setup::new(name, PROXIES);
    type Case<'a> = (&'a str, &'a dyn Fn(&str) -> Setup, bool);
    let cases: [Case<'_>; 5] = [
        ("loads", &|name| plain(name).loads(&file), false),
        ("local", &|name| Setup::new(name, &one_backend), false),
        ("nothing", &plain, true),
        ("half", &|name| plain(name).global(&format!("server-state-file {shown}")), true),
        ("other", &|name| plain(name).loads(&another), true),
    ];
    for (word, setup, is_warned) in cases {
        let name = format!("{word}-{}-{}", haproxy.name, std::process::id());
        let _ = fs::remove_file(&file);
        let mut instance = setup(&name).start(haproxy);
        for is_dry in [true, false] {
            let request =
                json!({ "server": "s1", "state": "maint", "instances": name, "state_file": file, "dry_run": is_dry });
            let report = Program::request(&request).report();
            assert_done(&report, true, true);
            let said = warnings(&report);
            if is_warned {
                for part in [&format!("add 'server-state-file {shown}'"), "'load-server-state-from-file global'"] {
                    assert!(said.contains(part), "{word}: {report}");
                }
            } else {
                assert!(!said.contains("server-state-file"), "{word}: {said}");
            }
        }
        // The warning is correct.
        instance.reload();
        assert_eq!(instance.state("b", "s1"), if is_warned { (0, 2) } else { (1, 0) }, "{word}");
    }
    Ok(())
}

fn a_full_disk_loses_nothing(haproxy: &Haproxy) -> TestResult {
    let works = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    if !geteuid().is_root() || !works.is_ok_and(|output| output.status.success()) {
        skipped("only root can mount a small file system, with unshare");
        return Ok(());
    }
    let (instance, old) = loading(Mode::Foreground, PROXIES, haproxy);
    assert_done(&ask(&instance, &old, &to("s2", "maint")), true, true);
    let folder = &instance.folder;
    let disk = folder.join("disk");
    fs::create_dir(&disk)?;
    let (after, listing) = (folder.join("after"), folder.join("listing"));
    // Only the program sees this disk; what is left on it afterwards is copied out.
    let script = format!(
        "mount -t tmpfs -o size=64k tmpfs {disk} && cp {old} {disk}/state && {{ cat /dev/zero > {disk}/filler; }} 2>&-\n\
         \"$@\"; code=$?; cp {disk}/state {after}; ls -A {disk} > {listing}; exit $code",
        disk = disk.display(),
        old = old.display(),
        after = after.display(),
        listing = listing.display()
    );
    for is_rolled_back in [false, true] {
        let mut request = to("s1", "maint");
        if is_rolled_back {
            instance.set_state("b/s1", "ready");
            request["on_failure"] = json!("rollback");
        }
        let request = with_file(&instance, &disk.join("state"), &request);
        let run = Program::request(&request).under(["unshare", "-m", "bash", "-c", &script, "bash"]).run();
        let report = run.report();
        assert_eq!((kind(&report), run.code), ("state_file", Some(1)), "{report}");
        assert!(report["error"]["msg"].as_str().unwrap().contains("No space left"), "{report}");
        assert_eq!(report["changed"], json!(!is_rolled_back), "{report}");
        assert_eq!(instance.state("b", "s1"), if is_rolled_back { (0, 2) } else { (1, 0) });
        assert_eq!(server(&report, "b/s1")["rolled_back"] == true, is_rolled_back, "{report}");
        assert_eq!(fs::read(&after)?, fs::read(&old)?, "the old file is unchanged");
        assert_eq!(fs::read_to_string(&listing)?, "filler\nstate\n", "no temporary file is left");
    }
    Ok(())
}

fn a_rollback_restores_the_file(haproxy: &Haproxy) -> TestResult {
    let behind = HttpBackend::start("s1");
    behind.set_health(Health::Bad);
    let proxies = format!(
        "backend b\n    option httpchk GET /health\n    server s1 {} check inter 50ms rise 1 fall 2\n    \
         server s2 127.0.0.1:9\n",
        behind.address()
    );
    let (mut instance, file) = loading(Mode::MasterWorker, &proxies, haproxy);
    let request = json!({ "server": "s1", "state": "ready", "wait": { "timeout": 1 }, "on_failure": "rollback" });
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    let running = Program::request(&with_file(&instance, &file, &request)).spawn();
    // During the wait the file has the state of the moment; a reload must not restore the old one.
    eventually(PATIENCE, "the row to say drain", || (row_in(&file, "s1")[ADMIN_STATE] == "8").then_some(()));
    let report = running.wait().report();
    let entry = server(&report, "b/s1");
    assert_eq!((kind(&report), &entry["rolled_back"]), ("not_up", &json!(true)), "{report}");
    assert_eq!((&report["changed"], &entry["changed"]), (&json!(false), &json!(false)), "{report}");
    assert_eq!(report["instances"][0]["state_file"]["changed"], false, "{report}");
    assert_eq!(rows(&file), ["s1"]);
    instance.reload();
    assert_eq!(instance.state("b", "s1"), (1, 0));

    // Conversely, where there was no row, there is none.
    behind.set_health(Health::Good);
    assert_done(&ask(&instance, &file, &to("s1", "ready")), true, true);
    fs::remove_file(&file)?;
    behind.set_health(Health::Bad);
    instance.await_state("b", "s1", (0, 0));
    let request = json!({ "server": "s1", "state": "ready", "weight": 7, "wait": { "timeout": 1 },
        "on_failure": "rollback" });
    let report = ask(&instance, &file, &request);
    assert_eq!((kind(&report), &report["changed"]), ("not_up", &json!(false)), "{report}");
    assert_eq!(commands(&report).len(), 2, "there and back: {report}");
    assert_eq!(report["instances"][0]["state_file"]["changed"], false, "{report}");
    instance.reload();
    assert_eq!((instance.state("b", "s1").0, instance.row("b", "s1").weight), (0, 1));
    Ok(())
}

/// The kinds of health checks: the line that a backend needs, and a name.
const CHECKS: [(&str, &str); 2] = [("    option httpchk GET /health\n", "http"), ("", "tcp")];

fn checks_still_count_after_a_reload(haproxy: &Haproxy) -> TestResult {
    for (option, kind_of_check) in CHECKS {
        let behind = HttpBackend::start("s1");
        let proxies = format!(
            "backend b\n{option}    default-server check inter 50ms rise 2 fall 2\n    server maint {0}\n    \
             server drain {0}\n    server weight {0} weight 10\n    server paused {0}\n",
            behind.address()
        );
        let (mut instance, file) = loading(Mode::MasterWorker, &proxies, haproxy);
        for request in [
            to("maint", "maint"),
            to("drain", "drain"),
            json!({ "server": "weight", "weight": 3 }),
            json!({ "server": "paused", "health": "disabled" }),
        ] {
            assert_done(&ask(&instance, &file, &request), true, true);
        }
        instance.reload();
        let seen = ["maint", "drain", "weight", "paused"].map(|server| instance.state("b", server));
        assert_eq!(seen, [(1, 0), (8, 2), (0, 2), (0, 2)], "{kind_of_check}");
        for request in [
            json!({ "server": "maint", "state": "ready", "wait": { "timeout": 15 } }),
            json!({ "server": "paused", "state": "ready", "health": "enabled", "wait": { "timeout": 15 } }),
        ] {
            let report = ask(&instance, &file, &request);
            assert_eq!(report["failed"], false, "{kind_of_check}: {report}");
        }
        behind.set_health(Health::Refuse);
        for (server, admin) in [("maint", 0), ("weight", 0), ("paused", 0), ("drain", 8)] {
            instance.await_state("b", server, (admin, 0));
        }
        behind.set_health(Health::Good);
        let report = ask(&instance, &file, &json!({ "server": "drain", "state": "ready", "wait": { "timeout": 15 } }));
        assert_eq!(report["failed"], false, "{kind_of_check}: {report}");
        for server in ["maint", "weight", "paused", "drain"] {
            instance.await_state("b", server, (0, 2));
        }
    }
    Ok(())
}

/// Returns the columns of a server's row in the file.
fn row_in(file: &Path, server: &str) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a state file");
    let rows = text.lines().map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let found = rows.into_iter().find(|row| row.get(3).is_some_and(|name| name == server));
    found.unwrap_or_else(|| panic!("no row of {server} in {text}"))
}

/// The columns of the address, the administrative state and the check status.
const ADDRESS: usize = 4;
const ADMIN_STATE: usize = 6;
const CHECK_STATUS: usize = 10;

fn a_file_that_would_stop_the_checks_is_rewritten(haproxy: &Haproxy) -> TestResult {
    let behind = HttpBackend::start("s1");
    let proxies = format!("backend b\n    server s1 {} check inter 50ms\n", behind.address());
    let (mut instance, file) = loading(Mode::MasterWorker, &proxies, haproxy);
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    let good = fs::read_to_string(&file)?;
    let row = row_in(&file, "s1");
    assert_eq!(row[CHECK_STATUS], "1");
    let mut bad = row.clone();
    "0".clone_into(&mut bad[CHECK_STATUS]);
    fs::write(&file, good.replace(&row.join(" "), &bad.join(" ")))?;
    let report = ask(&instance, &file, &to("s1", "maint"));
    assert_done(&report, false, true);
    assert_eq!(row_in(&file, "s1")[CHECK_STATUS], "1");

    // A HAProxy that has loaded it stays affected until the next reload, and the report says so.
    fs::write(&file, good.replace(&row.join(" "), &bad.join(" ")))?;
    instance.reload();
    let report = ask(&instance, &file, &json!({ "server": "s1", "state": "ready", "wait": { "timeout": 1 } }));
    assert_eq!(kind(&report), "not_up", "{report}");
    assert!(warnings(&report).contains("b/s1") && warnings(&report).contains("reload HAProxy"), "{report}");
    instance.reload();
    let report = ask(&instance, &file, &json!({ "server": "s1", "state": "ready", "wait": { "timeout": 5 } }));
    assert_eq!((&report["failed"], warnings(&report)), (&json!(false), String::new()), "{report}");
    Ok(())
}

fn a_host_name_is_resolved_again_by_a_resolver(haproxy: &Haproxy) -> TestResult {
    let dns = Dns::start();
    dns.answer("web.test", Answer::Addresses(vec![Ipv4Addr::new(127, 0, 0, 2)]));
    let proxies = format!(
        "{}\nbackend b\n    default-server resolvers r resolve-prefer ipv4 init-addr last,none\n    \
         server s1 web.test:9\n",
        dns.resolvers("r")
    );
    let (mut instance, file) = loading(Mode::MasterWorker, &proxies, haproxy);
    let address = |instance: &Instance, server: &str| instance.row("b", server).columns["srv_addr"].clone();
    eventually(PATIENCE, "the name to resolve", || (address(&instance, "s1") == "127.0.0.2").then_some(()));
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    // While DNS does not answer, this is the address that HAProxy has started with.
    dns.answer("web.test", Answer::Silence);
    instance.reload();
    assert_eq!((address(&instance, "s1"), instance.row("b", "s1").admin & 1), ("-".to_owned(), 1));
    dns.answer("web.test", Answer::Addresses(vec![Ipv4Addr::new(127, 0, 0, 3)]));
    eventually(PATIENCE, "the new address", || (address(&instance, "s1") == "127.0.0.3").then_some(()));
    assert_eq!(instance.row("b", "s1").admin, 1);
    assert_done(&ask(&instance, &file, &to("s1", "maint")), false, false);
    assert_done(&ask(&instance, &file, &to("s1", "ready")), true, true);
    Ok(())
}

fn a_host_name_is_resolved_again_by_the_c_library(haproxy: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let hosts = folder.write("hosts", "127.0.0.2 web.test\n");
    let switch = folder.write("nsswitch.conf", "hosts: files\n");
    // Only HAProxy sees this file as /etc/hosts, and asks nothing else.
    let script = format!(
        "#!/bin/sh\nexec unshare -m sh -c 'mount --bind {} /etc/hosts && {{ [ ! -e {1} ] || mount --bind {2} {1}; }} && \
         exec {3} \"$@\"' sh \"$@\"\n",
        hosts.display(),
        "/etc/nsswitch.conf",
        switch.display(),
        haproxy.binary.display()
    );
    let source = folder.write("haproxy.sh", &script);
    let binary = folder.join("haproxy");
    let installed = Command::new("install").args(["-m", "755"]).arg(&source).arg(&binary).status()?;
    assert!(installed.success());
    if !geteuid().is_root() || !Command::new(&binary).arg("-v").output()?.status.success() {
        skipped("only root can mount a file, with unshare");
        return Ok(());
    }
    let inside = Haproxy { binary, ..haproxy.clone() };
    let proxies = "backend b\n    server s1 web.test:9\n    server s2 web.test:9\n    server s3 web.test:9 weight 10\n";
    let file = folder.join("state");
    let mut instance = Setup::new("kept", proxies).folder(&folder).loads(&file).start(&inside);
    let addresses =
        |instance: &Instance| ["s1", "s2", "s3"].map(|server| instance.row("b", server).columns["srv_addr"].clone());
    assert_eq!(addresses(&instance), ["127.0.0.2"; 3]);
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    assert_done(&ask(&instance, &file, &to("s2", "drain")), true, true);
    assert_done(&ask(&instance, &file, &json!({ "server": "s3", "weight": 3 })), true, true);
    assert_eq!(row_in(&file, "s1")[ADDRESS], "-");
    fs::write(&hosts, "127.0.0.3 web.test\n")?;
    instance.reload();
    assert_eq!(addresses(&instance), ["127.0.0.3"; 3]);
    let seen = ["s1", "s2", "s3"].map(|server| instance.row("b", server));
    assert_eq!(seen.map(|row| (row.admin, row.weight)), [(1, 1), (8, 1), (0, 3)]);

    // Where the name has gone, HAProxy starts only with 'none', as it does without a file.
    instance.set_proxies(&format!("backend b\n    default-server init-addr last,libc,none\n{}", &proxies[10..]));
    fs::write(&hosts, "")?;
    instance.reload();
    let seen = ["s1", "s2", "s3"].map(|server| instance.row("b", server));
    assert_eq!(seen.map(|row| row.admin), [33, 40, 32]);
    assert_eq!(addresses(&instance), ["-"; 3]);
    Ok(())
}

fn a_server_of_an_srv_record_keeps_its_target(haproxy: &Haproxy) -> TestResult {
    let dns = Dns::start();
    dns.answer("_http._tcp.web.test", Answer::Service("one.web.test", 8081));
    dns.answer("one.web.test", Answer::Addresses(vec![Ipv4Addr::new(127, 0, 0, 2)]));
    let proxies = format!(
        "{}\nbackend b\n    server-template s 1 _http._tcp.web.test resolvers r resolve-prefer ipv4\n",
        // What the file brings back is kept for longer than the test takes.
        dns.resolvers("r").replace("hold timeout 200ms", "hold timeout 60s")
    );
    let (mut instance, file) = loading(Mode::MasterWorker, &proxies, haproxy);
    let target = |instance: &Instance| {
        let columns = instance.row("b", "s1").columns;
        ["srv_addr", "srv_port", "srv_fqdn"].map(|column| columns[column].clone())
    };
    let expected = ["127.0.0.2", "8081", "one.web.test"];
    eventually(PATIENCE, "the record to resolve", || (target(&instance) == expected).then_some(()));
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    // The C library does not know the target, so the server would be left without an address.
    dns.answer("one.web.test", Answer::Silence);
    instance.reload();
    assert_eq!((target(&instance), instance.row("b", "s1").admin), (expected.map(str::to_owned), 1));
    Ok(())
}

fn a_slot_keeps_its_machine_over_a_reload(haproxy: &Haproxy) -> TestResult {
    let machines = |lasts: &[u8]| Answer::Addresses(lasts.iter().map(|last| Ipv4Addr::new(127, 0, 0, *last)).collect());
    // What DNS returns at first and later, and the machine that goes out.
    for (first, later, out) in [
        ([2, 3, 4].as_slice(), [2, 3, 4].as_slice(), 3),
        (&[3, 4], &[2, 3, 4], 4),
        (&[4], &[2, 3, 4], 4),
        (&[3, 4], &[3, 4], 4),
        (&[3], &[3], 3),
    ] {
        let dns = Dns::start();
        let proxies = format!(
            "{}\nbackend b\n    server-template s 1-3 web.test:9 resolvers r resolve-prefer ipv4 init-addr last,none\n",
            dns.resolvers("r")
        );
        let (mut instance, file) = loading(Mode::MasterWorker, &proxies, haproxy);
        let slots = |instance: &Instance| {
            ["s1", "s2", "s3"].map(|slot| {
                let row = instance.row("b", slot);
                (slot, row.columns["srv_addr"].clone(), row.admin & 1)
            })
        };
        let await_all = |instance: &Instance, lasts: &[u8]| {
            // For a moment two slots may have the same one.
            let all: BTreeSet<String> = lasts.iter().map(|last| format!("127.0.0.{last}")).collect();
            eventually(PATIENCE, "all addresses", || {
                let filled = slots(instance).into_iter().map(|(_, address, _)| address).filter(|it| it != "-");
                (filled.collect::<BTreeSet<_>>() == all).then_some(())
            });
        };
        for known in [first, later] {
            dns.answer("web.test", machines(known));
            await_all(&instance, known);
        }
        let machine = format!("127.0.0.{out}");
        let before = slots(&instance);
        let (slot, ..) = before.iter().find(|(_, address, _)| *address == machine).expect("the machine");
        assert_done(&ask(&instance, &file, &to(slot, "maint")), true, true);
        let before = slots(&instance);
        let mut later = later.to_vec();
        for _ in 0..3 {
            // DNS may list them in any order.
            later.rotate_left(1);
            dns.answer("web.test", machines(&later));
            instance.reload();
            await_all(&instance, &later);
            assert_eq!(slots(&instance), before, "{first:?} {later:?}");
            assert_done(&ask(&instance, &file, &to(slot, "maint")), false, false);
        }
        assert_done(&ask(&instance, &file, &to(slot, "ready")), true, true);
        assert_eq!(rows(&file), [""; 0]);
    }
    Ok(())
}

/// Two servers behind a frontend with cookie persistence; the first one holds a request.
struct Draining {
    instance: Instance,
    file: PathBuf,
    servers: [HttpBackend; 2],
    frontend: Port,
    held: Bound,
}

impl Draining {
    fn start(haproxy: &Haproxy) -> Self {
        let servers = ["s1", "s2"].map(HttpBackend::start);
        let frontend = Port::reserve();
        let lines = servers.each_ref().map(|it| format!("    server {0} {1} cookie {0}\n", it.name(), it.address()));
        let proxies = format!(
            "frontend f\n    bind 127.0.0.1:{}\n    default_backend b\nbackend b\n    cookie SRV insert indirect\n{}",
            frontend.number(),
            lines.concat()
        );
        let (instance, file) = loading(Mode::MasterWorker, &proxies, haproxy);
        let held = Bound::hold(frontend.address(), &servers[0]);
        Self { instance, file, servers, frontend, held }
    }

    /// Starts to drain the first server, and waits for its row.
    fn drain(&self) -> Running {
        let request = json!({ "server": "s1", "state": "maint", "drain": { "timeout": 30 } });
        let running = Program::request(&with_file(&self.instance, &self.file, &request)).spawn();
        eventually(PATIENCE, "the row of a server in drain", || {
            (self.file.exists() && rows(&self.file) == ["s1"]).then_some(())
        });
        assert_eq!(row_in(&self.file, "s1")[ADMIN_STATE], "8");
        assert_eq!(self.instance.state("b", "s1"), (8, 2));
        running
    }

    /// Asserts that new clients only reach the second server.
    fn assert_out_of_traffic(&self) {
        let before = self.servers[0].requests();
        for _ in 0..20 {
            assert_eq!(get(self.frontend.address(), "/").expect("an answer").body, "s2");
        }
        assert_eq!(self.servers[0].requests(), before);
    }
}

fn a_reload_in_mid_drain_lets_no_traffic_back(haproxy: &Haproxy) -> TestResult {
    let mut stage = Draining::start(haproxy);
    let running = stage.drain();
    // With the run stopped, only the file can keep the server out.
    running.signal(Signal::SIGSTOP);
    stage.instance.reload();
    assert_eq!(stage.instance.state("b", "s1"), (8, 2));
    stage.assert_out_of_traffic();
    running.signal(Signal::SIGCONT);
    stage.servers[0].release();
    assert_eq!(stage.held.served_by(), "s1");
    let report = running.wait().report();
    assert_done(&report, true, true);
    assert_eq!(row_in(&stage.file, "s1")[ADMIN_STATE], "1");
    stage.instance.reload();
    assert_eq!(stage.instance.state("b", "s1"), (1, 0));
    Ok(())
}

fn a_run_killed_in_mid_drain_lets_no_traffic_back(haproxy: &Haproxy) -> TestResult {
    let mut stage = Draining::start(haproxy);
    let running = stage.drain();
    running.signal(Signal::SIGKILL);
    assert_eq!(running.wait().code, None);
    stage.instance.reload();
    assert_eq!(stage.instance.state("b", "s1"), (8, 2));
    stage.assert_out_of_traffic();
    stage.servers[0].release();
    let request = json!({ "server": "s1", "state": "maint", "drain": { "timeout": 30 } });
    assert_done(&ask(&stage.instance, &stage.file, &request), true, true);
    stage.instance.reload();
    assert_eq!(stage.instance.state("b", "s1"), (1, 0));
    stage.assert_out_of_traffic();
    Ok(())
}

fn a_reload_just_before_the_file_is_written_loses_nothing(haproxy: &Haproxy) -> TestResult {
    for (mode, request) in [
        (Mode::MasterWorker, to("s1", "maint")),
        (Mode::Foreground, to("s1", "drain")),
        (Mode::MasterWorker, json!({ "server": "s1", "state": "maint", "drain": { "timeout": 5 } })),
    ] {
        let (instance, file) = loading(mode, PROXIES, haproxy);
        let (socket, tap) = (instance.socket.clone(), instance.folder.join("tap"));
        let instance = Arc::new(Mutex::new(instance));
        let reloads = instance.clone();
        // Between the read-back and the third dump, which the file is written from.
        let reload = move || reloads.lock().expect("the instance").reload();
        let tap = Tap::at(&tap, &socket, ("show servers state", 2), reload);
        let mut request = request.clone();
        request["instances"] = json!(tap.address());
        request["state_file"] = json!(file);
        let report = Program::request(&request).report();
        let mut instance = instance.lock().expect("the instance");
        let expected = if request["state"] == "maint" { (1, 0) } else { (8, 2) };
        assert_eq!((&report["failed"], instance.state("b", "s1")), (&json!(false), expected), "{mode:?}: {report}");
        assert!(warnings(&report).contains("reloaded during the run"), "{report}");
        instance.reload();
        assert_eq!(instance.state("b", "s1"), expected, "{mode:?}");
    }
    Ok(())
}

fn a_reload_while_the_file_is_written_in_mid_drain_lets_no_traffic_back(haproxy: &Haproxy) -> TestResult {
    let (instance, file) = loading(Mode::MasterWorker, PROXIES, haproxy);
    let (socket, tap) = (instance.socket.clone(), instance.folder.join("tap"));
    let instance = Arc::new(Mutex::new(instance));
    let reloads = instance.clone();
    // HAProxy is asked who it is before the servers are observed, twice when they are read back, and before the dump that
    // the file is written from: that is of a process which knows nothing of the drain.
    let reload = move || reloads.lock().expect("the instance").reload();
    let tap = Tap::at(&tap, &socket, ("show info", 3), reload);
    let drain = json!({ "timeout": 60, "stable": 60 });
    let request = json!({
        "server": "s1", "state": "maint", "drain": drain, "instances": tap.address(), "state_file": file
    });
    let running = Program::request(&request).spawn();
    eventually(PATIENCE, "the row of a server in drain", || (file.exists() && rows(&file) == ["s1"]).then_some(()));
    running.signal(Signal::SIGKILL);
    assert_eq!(running.wait().code, None);
    let mut instance = instance.lock().expect("the instance");
    instance.reload();
    assert_eq!(instance.state("b", "s1"), (8, 2));
    Ok(())
}

fn a_port_that_differs_from_the_configuration_is_a_warning(haproxy: &Haproxy) -> TestResult {
    let name = format!("moved-{}-{}", haproxy.name, std::process::id());
    let folder = Folder::new();
    let file = folder.join("state");
    let proxies = |port: u16| {
        format!(
            "backend b\n    server s1 127.0.0.1:{port}\n    server s2 127.0.0.1:{port} weight 10\n    \
             server-template t 1-2 127.0.0.1:{port}\n"
        )
    };
    let mut instance = Setup::new(&name, &proxies(9)).folder(&folder).loads(&file).start(haproxy);
    let ask = |request: &Value, instances: &str| {
        let mut request = request.clone();
        request["instances"] = json!(instances);
        request["state_file"] = json!(file);
        Program::request(&request).report()
    };
    let said = |report: &Value| {
        assert_eq!(report["failed"], false, "{report}");
        warnings(report)
    };
    for server in ["s1", "t1"] {
        assert_eq!(said(&ask(&to(server, "maint"), &name)), "");
    }
    assert_eq!(said(&ask(&json!({ "server": "s2", "weight": 3 }), &name)), "");
    instance.set_proxies(&proxies(10));
    instance.reload();
    let ports = |instance: &Instance| {
        ["s1", "s2", "t1", "t2"].map(|server| instance.row("b", server).columns["srv_port"].clone())
    };
    assert_eq!(ports(&instance), ["9", "9", "9", "10"], "a row restores its port");

    // The configuration of an instance given by its address is unknown, so there is no warning.
    let dry = |server: &str| json!({ "server": server, "state": "ready", "dry_run": true });
    assert_eq!(said(&ask(&dry("s1"), &instance.address())), "");
    let expected = |server: &str, what: &str| {
        format!("{name}: b/{server} is at 127.0.0.1:9, but the configuration says port 10; {what}")
    };
    for server in ["s1", "t1"] {
        for request in [dry(server), to(server, "ready")] {
            assert_eq!(said(&ask(&request, &name)), expected(server, "reload HAProxy to use that"));
        }
    }
    let keeps =
        "its row in the state file keeps the port over a reload; restore its weight and checks to remove the row";
    for request in [to("s2", "ready"), json!({ "server": "s2", "weight": 4 })] {
        assert_eq!(said(&ask(&request, &name)), expected("s2", keeps));
    }
    assert_eq!(said(&ask(&to("s2", "maint"), &name)), "", "it takes no traffic");
    assert_eq!(said(&ask(&to("s2", "ready"), &name)), expected("s2", keeps));
    assert_eq!(said(&ask(&to("t2", "ready"), &name)), "");
    // Both warnings are correct.
    instance.reload();
    assert_eq!(ports(&instance), ["10", "9", "10", "10"]);
    assert_eq!(said(&ask(&to("s1", "ready"), &name)), "");
    instance.raw("set server b/s1 addr 127.0.0.2 port 11");
    let report = ask(&to("s1", "ready"), &name);
    assert_eq!(
        said(&report),
        format!("{name}: b/s1 is at 127.0.0.2:11, but the configuration says 127.0.0.1:10; reload HAProxy to use that")
    );
    instance.reload();
    assert_eq!(said(&ask(&to("s1", "ready"), &name)), "");
    Ok(())
}

fn a_server_missing_from_the_configuration_is_a_warning(haproxy: &Haproxy) -> TestResult {
    if !haproxy.at_least(2, 6) {
        println!("not on {}: servers are added at run time from 2.6 on", haproxy.name);
        return Ok(());
    }
    let name = format!("added-{}-{}", haproxy.name, std::process::id());
    let folder = Folder::new();
    let file = folder.join("state");
    let proxies = "backend b\n    balance roundrobin\n    server s1 127.0.0.1:9\n";
    let mut instance = Setup::new(&name, proxies).folder(&folder).loads(&file).start(haproxy);
    instance.raw("add server b/s2 127.0.0.1:9");
    let ask = |server: &str, state: &str| {
        let request = json!({ "server": server, "state": state, "instances": name, "state_file": file });
        let report = Program::request(&request).report();
        assert_eq!(report["failed"], false, "{report}");
        warnings(&report)
    };
    assert!(!ask("s1", "maint").contains("forgets"));
    assert!(ask("s2", "maint").contains("forgets b/s2, because the configuration has no such server"));
    assert!(!ask("s2", "ready").contains("forgets"));
    instance.reload();
    assert_eq!(instance.state("b", "s1"), (1, 0));
    assert!(!instance.rows().contains_key(&("b".to_owned(), "s2".to_owned())));
    Ok(())
}

fn instances_may_share_a_file(haproxy: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let file = folder.join("state");
    let start = |name: &str, backend: &str| {
        let proxies = format!("backend {backend}\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n");
        Setup::new(name, &proxies).folder(&folder).mode(Mode::MasterWorker).loads(&file).start(haproxy)
    };
    let (mut one, mut two) = (start("one", "b"), start("two", "c"));
    // Each run knows one instance only.
    assert_done(&ask(&one, &file, &to("s1", "maint")), true, true);
    assert_done(&ask(&two, &file, &to("s2", "drain")), true, true);
    assert_eq!(rows(&file), ["s2", "s1"]);
    assert_done(&ask(&one, &file, &to("s1", "maint")), false, false);
    one.reload();
    two.reload();
    assert_eq!((one.state("b", "s1").0, one.state("b", "s2").0), (1, 0));
    assert_eq!((two.state("c", "s1").0, two.state("c", "s2").0), (0, 8));
    assert_done(&ask(&one, &file, &to("s1", "ready")), true, true);
    assert_eq!(rows(&file), ["s2"]);
    one.reload();
    two.reload();
    assert_eq!((one.state("b", "s1").0, two.state("c", "s2").0), (0, 8));
    assert_done(&ask(&two, &file, &to("s2", "ready")), true, true);
    assert_eq!(rows(&file), [""; 0]);
    Ok(())
}

fn a_check_that_passes_while_the_file_is_written_counts(haproxy: &Haproxy) -> TestResult {
    let web = HttpBackend::start("s1");
    let proxies = format!("backend b\n    server s1 {} check inter 1s rise 2 fall 3\n", web.address());
    let (instance, file) = loading(Mode::Foreground, &proxies, haproxy);
    // A check may always pass before the first poll, and then the server must stay up for 5 s; but not each time.
    let is_seen = (0..3).any(|attempt| {
        assert_eq!(ask(&instance, &file, &to("s1", "maint"))["failed"], false);
        // The dump for the file, after the observation and the read-back, takes longer than a check.
        let tap = instance.folder.join(&format!("tap{attempt}"));
        let write = || thread::sleep(Duration::from_millis(2500));
        let tap = Tap::at(&tap, &instance.socket, ("show servers state", 2), write);
        let mut request = to("s1", "ready");
        request["wait"] = json!({ "timeout": 7 });
        request["instances"] = json!(tap.address());
        request["state_file"] = json!(file);
        Program::request(&request).report()["failed"] == false
    });
    assert!(is_seen && instance.state("b", "s1") == (0, 2));
    Ok(())
}

fn a_backend_may_have_its_own_file(haproxy: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let [of_b, of_c, whole] = ["b.state", "c.state", "whole.state"].map(|file| folder.join(file));
    let local =
        |file: &Path| format!("load-server-state-from-file local\n    server-state-file-name {}", file.display());
    let servers = "    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n";
    let proxies = format!(
        "backend b\n    {}\n{servers}backend c\n    {}\n{servers}backend d\n    load-server-state-from-file global\n{servers}",
        local(&of_b),
        local(&of_c)
    );
    let name = format!("own-{}-{}", haproxy.name, std::process::id());
    let mut instance = Setup::new(&name, &proxies)
        .folder(&folder)
        .mode(Mode::MasterWorker)
        .global(&format!("server-state-file {}", whole.display()))
        .start(haproxy);
    let ask = |request: &Value| {
        let mut request = request.clone();
        request["instances"] = json!(name);
        request["state_file"] = json!({ name.clone(): whole, format!("{name}/b"): of_b, format!("{name}/c"): of_c });
        let report = Program::request(&request).report();
        assert_eq!((&report["failed"], warnings(&report)), (&json!(false), String::new()), "{report}");
        let entry = &report["instances"][0];
        assert_eq!(entry["state_file"]["path"], json!(whole));
        let files = entry["state_files"].as_array().expect("files of backends");
        let named: Vec<_> = files.iter().map(|file| (file["backend"].clone(), file["path"].clone())).collect();
        assert_eq!(named, [(json!("b"), json!(of_b)), (json!("c"), json!(of_c))], "{report}");
        let changed = [&entry["state_file"], &files[0], &files[1]].map(|file| file["changed"] == true);
        (report["changed"] == true, changed)
    };
    let b = json!({ "server": "s1", "backend": "b", "state": "maint" });
    let mut dry = b.clone();
    dry["dry_run"] = json!(true);
    assert_eq!(ask(&dry), (true, [true, true, false]));
    assert!(!of_b.exists() && !whole.exists());
    assert_eq!(ask(&b), (true, [true, true, false]));
    assert_eq!(ask(&b), (false, [false; 3]));
    assert_eq!((rows(&of_b), of_c.exists()), (vec!["s1".to_owned()], false));
    assert_eq!(ask(&json!({ "server": "s2", "backend": "c", "state": "drain" })), (true, [true, false, true]));
    assert_eq!(ask(&json!({ "server": "s2", "backend": "d", "state": "maint" })), (true, [true, false, false]));
    assert_eq!((rows(&of_b), rows(&of_c)), (vec!["s1".to_owned()], vec!["s2".to_owned()]));
    instance.reload();
    let states = |instance: &Instance| {
        [("b", "s1"), ("b", "s2"), ("c", "s1"), ("c", "s2"), ("d", "s2")]
            .map(|(backend, server)| instance.state(backend, server).0)
    };
    assert_eq!(states(&instance), [1, 0, 0, 8, 1]);
    assert!(!instance.log().contains("corrupted"), "{}", instance.log());
    assert_eq!(ask(&json!({ "server": "s1", "backend": "b", "state": "ready" })), (true, [true, true, false]));
    assert_eq!(rows(&of_b), [""; 0]);
    instance.reload();
    assert_eq!(states(&instance), [0, 0, 0, 8, 1]);

    // A lost file is rewritten, and a file that HAProxy does not load is a warning.
    fs::remove_file(&of_c)?;
    assert_eq!(ask(&json!({ "server": "s2", "backend": "c", "state": "drain" })), (true, [false, false, true]));
    let mut other = json!({ "server": "s1", "backend": "d", "state": "maint", "instances": name });
    other["state_file"] = json!({ format!("{name}/d"): of_b });
    let report = Program::request(&other).report();
    let said = warnings(&report);
    assert!(said.contains("server-state-file-name") && said.contains("the backend d"), "{report}");
    instance.reload();
    assert_eq!(instance.state("d", "s1"), (0, 2), "the warning is correct");
    Ok(())
}

fn a_file_for_an_unknown_backend_is_refused(haproxy: &Haproxy) -> TestResult {
    let (instance, file) = loading(Mode::Foreground, PROXIES, haproxy);
    for (name, part) in [("kept/nothing", "'kept/nothing'"), ("kept/", "'kept/'"), ("other/b", "'other'")] {
        for is_dry in [true, false] {
            let mut request = to("s1", "maint");
            request["instances"] = json!(instance.address());
            request["state_file"] = json!({ name: file });
            request["dry_run"] = json!(is_dry);
            let report = Program::request(&request).report();
            assert_eq!((kind(&report), &report["changed"]), ("bad_request", &json!(false)), "{report}");
            assert!(report["error"]["msg"].as_str().unwrap().contains(part), "{report}");
            assert_eq!(instance.state("b", "s1"), (0, 2));
            assert!(!file.exists());
        }
    }
    Ok(())
}

fn two_spellings_of_one_path_are_refused(haproxy: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let start = |name: &str| Setup::new(name, PROXIES).folder(&folder).start(haproxy);
    let (one, two) = (start("one"), start("two"));
    let real = folder.join("real");
    fs::create_dir_all(real.join("below"))?;
    symlink(&real, folder.join("link"))?;
    let first = real.join("state");
    let spellings = [
        first.clone(),
        folder.join("link/state"),
        real.join("below/../state"),
        PathBuf::from(format!("{}//./state", real.display())),
    ];
    for is_there in [false, true] {
        for second in &spellings {
            let mut request = to("s1", "maint");
            request["instances"] = json!([one.address(), two.address()]);
            for keys in [["one", "two"], ["one", "one/b"]] {
                request["state_file"] = json!({ keys[0]: first, keys[1]: second });
                let report = Program::request(&request).report();
                assert_eq!((kind(&report), &report["changed"]), ("bad_request", &json!(false)), "{report}");
                assert!(report["error"]["msg"].as_str().unwrap().contains("the same file"), "{report}");
                assert_eq!((one.state("b", "s1"), two.state("b", "s1")), ((0, 2), (0, 2)));
            }
        }
        if !is_there {
            fs::write(&first, "1\n")?;
        }
    }
    Ok(())
}

fn a_file_for_a_skipped_instance_is_accepted(haproxy: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let start = |name: &str| {
        let file = folder.join(&format!("{name}.state"));
        (Setup::new(name, PROXIES).folder(&folder).loads(&file).start(haproxy), file)
    };
    let ((one, first), (mut two, second)) = (start("one"), start("two"));
    two.kill();
    let mut request = to("s1", "maint");
    request["instances"] = json!([one.address(), two.address()]);
    request["state_file"] = json!({ "one": first, "two": second });
    request["on_unreachable"] = json!("skip");
    let report = Program::request(&request).report();
    assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
    assert_eq!((rows(&first), second.exists()), (vec!["s1".to_owned()], false));
    // A plain path is for one instance, also where only one of several has answered.
    request["state_file"] = json!(second);
    let report = Program::request(&request).report();
    assert_eq!((kind(&report), second.exists()), ("bad_request", false), "{report}");
    Ok(())
}
