//! What is set outlives a reload by HAProxy's own state file, and nothing else comes back with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::support::backend::stats_page;
use crate::support::report::{commands, kind, server, warnings};
use crate::support::{
    Folder, Haproxy, Health, HttpBackend, Instance, Mode, PATIENCE, Port, Program, Recorder, Setup, Test, TestResult,
    eventually, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        what_is_set_outlives_reloads_of_every_kind,
        a_lost_file_is_written_again_without_a_command,
        a_file_that_haproxy_would_not_load_is_mended,
        maintenance_and_drain_is_kept_as_maintenance,
        old_trouble_is_not_brought_back,
        ready_takes_the_row_out,
        a_dry_run_compares_and_writes_nothing,
        a_link_is_refused_and_what_it_leads_to_is_left_alone,
        a_file_of_another_kind_is_left_alone,
        one_path_is_for_one_instance,
        a_configuration_that_does_not_load_it_is_a_warning,
        a_full_disk_loses_nothing,
        a_roll_back_restores_the_file,
    ]
}

const PROXIES: &str = "backend b\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n    server s3 127.0.0.1:9\n";

/// An instance that loads its state file, which does not exist yet.
fn loading(mode: Mode, proxies: &str, haproxy: &Haproxy) -> (Instance, PathBuf) {
    let folder = Folder::new();
    let file = folder.join("state");
    let instance = Setup::new("kept", proxies).folder(&folder).mode(mode).loads(&file).start(haproxy);
    (instance, file)
}

/// Asks an instance for something, with its state file.
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

/// Asserts that it has worked, and what it says of the server, of the file and of all.
#[track_caller]
fn assert_done(report: &Value, of_server: bool, of_file: bool) {
    assert_eq!(report["failed"], false, "{report}");
    let seen = (&report["servers"][0]["changed"], &report["instances"][0]["state_file"]["changed"], &report["changed"]);
    assert_eq!(seen, (&json!(of_server), &json!(of_file), &json!(of_server || of_file)), "{report}");
}

/// The servers that the file has rows for.
fn rows(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a state file");
    let rows = text.lines().skip(1).filter(|line| !line.starts_with('#') && !line.is_empty());
    rows.map(|row| row.split(' ').nth(3).expect("a name").to_owned()).collect()
}

/// The names in the folder of a file.
fn names_beside(file: &Path) -> Vec<String> {
    let folder = fs::read_dir(file.parent().expect("a folder")).expect("a folder");
    let mut names: Vec<String> =
        folder.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn what_is_set_outlives_reloads_of_every_kind(haproxy: &Haproxy) -> TestResult {
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
            // After a reload, all is as asked: nothing to do, neither in HAProxy nor in the file.
            assert_done(&ask(&instance, &file, &to("s1", "maint")), false, false);
            assert_done(&ask(&instance, &file, &json!({ "server": "s3", "weight": 3 })), false, false);
        }
    }
    Ok(())
}

fn a_lost_file_is_written_again_without_a_command(haproxy: &Haproxy) -> TestResult {
    let (mut instance, file) = loading(Mode::MasterWorker, PROXIES, haproxy);
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    fs::remove_file(&file)?;
    let report = ask(&instance, &file, &to("s1", "maint"));
    assert_done(&report, false, true);
    assert_eq!(commands(&report), [""; 0]);
    assert_eq!(rows(&file), ["s1"]);
    let written = fs::read(&file)?;
    assert_done(&ask(&instance, &file, &to("s1", "maint")), false, false);
    assert_eq!(fs::read(&file)?, written, "nothing is written where nothing differs");
    instance.reload();
    assert_eq!(instance.state("b", "s1"), (1, 0));
    // Lost just before a reload: the server has come back, and goes out again.
    fs::remove_file(&file)?;
    instance.reload();
    assert_eq!(instance.state("b", "s1"), (0, 2));
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    instance.reload();
    assert_eq!(instance.state("b", "s1"), (1, 0));
    assert!(!names_beside(&file).iter().any(|name| name.ends_with(".new")), "{:?}", names_beside(&file));
    Ok(())
}

fn a_file_that_haproxy_would_not_load_is_mended(haproxy: &Haproxy) -> TestResult {
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

fn maintenance_and_drain_is_kept_as_maintenance(haproxy: &Haproxy) -> TestResult {
    // Only HAProxy's own page brings a server there.
    let port = Port::reserve();
    let page =
        format!("listen page\n    bind 127.0.0.1:{}\n    stats uri /stats\n    stats admin if TRUE\n", port.number());
    let (mut instance, file) = loading(Mode::MasterWorker, &format!("{page}{PROXIES}"), haproxy);
    for action in ["stop", "disable"] {
        stats_page(port.address(), "/stats", "b", "s1", action);
    }
    assert_eq!(instance.state("b", "s1"), (9, 0), "what HAProxy writes but does not read");
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

fn old_trouble_is_not_brought_back(haproxy: &Haproxy) -> TestResult {
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
    assert_eq!(named, ["both", "s1", "weighed"], "only what a command has set, and nothing of the past");

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

fn ready_takes_the_row_out(haproxy: &Haproxy) -> TestResult {
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
    // A file that is lost and would have no rows is no difference.
    fs::remove_file(&file)?;
    assert_done(&ask(&instance, &file, &to("s2", "ready")), false, false);
    Ok(())
}

fn a_dry_run_compares_and_writes_nothing(haproxy: &Haproxy) -> TestResult {
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

/// Asserts that a path is refused before anything is sent, in a dry run too.
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

fn a_link_is_refused_and_what_it_leads_to_is_left_alone(haproxy: &Haproxy) -> TestResult {
    let (instance, file) = loading(Mode::Foreground, PROXIES, haproxy);
    // What the links lead to would be a fine state file.
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
    assert!(report["error"]["msg"].as_str().unwrap().contains("it is not a server-state file"), "{report}");
    assert_eq!(fs::read(&config)?, content);
    assert_refused(&instance, &instance.socket, "");
    assert_refused(&instance, instance.folder.path(), "");
    assert_refused(&instance, &file.join("below"), "folder");
    assert_eq!(fs::read(&config)?, content);
    assert_eq!(instance.state("b", "s1"), (0, 2), "known before anything is sent");
    Ok(())
}

fn one_path_is_for_one_instance(haproxy: &Haproxy) -> TestResult {
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
        // The warning is right.
        instance.reload();
        assert_eq!(instance.state("b", "s1"), if is_warned { (0, 2) } else { (1, 0) }, "{word}");
    }
    Ok(())
}

fn a_full_disk_loses_nothing(haproxy: &Haproxy) -> TestResult {
    let works = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    if !geteuid().is_root() || !works.is_ok_and(|output| output.status.success()) {
        println!("skipped: only root can mount a small file system, with unshare");
        return Ok(());
    }
    let (instance, old) = loading(Mode::Foreground, PROXIES, haproxy);
    assert_done(&ask(&instance, &old, &to("s2", "maint")), true, true);
    let folder = &instance.folder;
    let disk = folder.join("disk");
    fs::create_dir(&disk)?;
    let (after, listing) = (folder.join("after"), folder.join("listing"));
    // The disk is seen by the program alone, and what is left on it is copied out.
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
        assert_eq!(fs::read(&after)?, fs::read(&old)?, "the old file is as it was");
        assert_eq!(fs::read_to_string(&listing)?, "filler\nstate\n", "nothing is left behind");
    }
    Ok(())
}

fn a_roll_back_restores_the_file(haproxy: &Haproxy) -> TestResult {
    let behind = HttpBackend::start("s1");
    behind.set_health(Health::Bad);
    let proxies = format!(
        "backend b\n    option httpchk GET /health\n    server s1 {} check inter 50ms rise 1 fall 2\n    \
         server s2 127.0.0.1:9\n",
        behind.address()
    );
    let (mut instance, file) = loading(Mode::MasterWorker, &proxies, haproxy);
    let mut request = json!({ "server": "s1", "state": "ready", "wait": { "timeout": 1 }, "on_failure": "rollback" });
    assert_done(&ask(&instance, &file, &to("s1", "maint")), true, true);
    let running = Program::request(&with_file(&instance, &file, &request)).spawn();
    // While it waits, the file has the new state: a reload now must not bring the old one back.
    eventually(PATIENCE, "the row to go", || rows(&file).is_empty().then_some(()));
    let report = running.wait().report();
    let entry = server(&report, "b/s1");
    assert_eq!((kind(&report), &entry["rolled_back"]), ("not_up", &json!(true)), "{report}");
    assert_eq!((&report["changed"], &entry["changed"]), (&json!(false), &json!(false)), "{report}");
    assert_eq!(report["instances"][0]["state_file"]["changed"], false, "{report}");
    assert_eq!(rows(&file), ["s1"]);
    instance.reload();
    assert_eq!(instance.state("b", "s1"), (1, 0));

    // The other way round: there was no row, and there is none.
    behind.set_health(Health::Good);
    assert_done(&ask(&instance, &file, &to("s1", "ready")), true, true);
    fs::remove_file(&file)?;
    request["server"] = json!("s1");
    request["state"] = json!("ready");
    request["weight"] = json!("0%");
    let report = ask(&instance, &file, &request);
    assert_eq!((kind(&report), &report["changed"]), ("not_up", &json!(false)), "{report}");
    assert_eq!(report["instances"][0]["state_file"]["changed"], false, "{report}");
    instance.reload();
    assert_eq!((instance.state("b", "s1").0, instance.row("b", "s1").weight), (0, 1));
    Ok(())
}
