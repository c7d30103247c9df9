//! Which HAProxy is meant: by discovery, by name, by address, by a master CLI; and what cannot be managed.
//!
//! Discovery sees every HAProxy of the machine, those of the tests beside this one too. So each test asks by names
//! that no other has; "all of this host" is asked for inside namespaces of its own, where only its instances run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::support::alone::alone;
use crate::support::report::{commands, kind, servers, warnings};
use crate::support::{
    Folder, Haproxy, Instance, Mode, PATIENCE, Port, Program, Setup, Test, TestResult, eventually, skipped, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        an_instance_is_found_in_every_mode_and_after_a_reload,
        several_sockets_of_one_process_are_one_instance,
        the_same_process_by_two_addresses_is_one_instance,
        the_same_process_by_a_tcp_address_is_one_instance,
        two_of_one_name_are_an_error_that_shows_both,
        every_kind_of_address_is_taken,
        the_worker_of_a_master_is_managed,
        several_processes_behind_a_socket_are_refused,
        what_nothing_listens_at_is_unreachable,
        a_level_that_does_not_suffice_matters_for_commands_only,
        an_ordinary_user_needs_the_socket_only,
        all_of_this_host_are_managed,
        no_haproxy_at_all_is_said_so,
        two_containers_of_one_image_are_two_instances,
    ]
}

const PROXIES: &str = "backend b\n    server s1 127.0.0.1:9\n";

/// A name that no other test's instance has.
fn unique(word: &str, haproxy: &Haproxy) -> String {
    format!("{word}-{}-{}", haproxy.name, std::process::id())
}

fn maint(instances: Value) -> Value {
    Program::request(&json!({ "server": "s1", "state": "maint", "instances": instances })).report()
}

fn an_instance_is_found_in_every_mode_and_after_a_reload(haproxy: &Haproxy) -> TestResult {
    for (mode, word) in [(Mode::Foreground, "db"), (Mode::Daemon, "daemon"), (Mode::MasterWorker, "master")] {
        let name = unique(word, haproxy);
        let mut instance = Setup::new(&name, PROXIES).mode(mode).start(haproxy);
        for round in 0..2 {
            let report = maint(json!([name]));
            assert_eq!(
                (&report["failed"], &report["changed"]),
                (&json!(false), &json!(true)),
                "{mode:?} {round}: {report}"
            );
            let entry = &report["instances"][0];
            assert_eq!((&entry["name"], &entry["socket"]), (&json!(name), &json!(instance.address())));
            assert_eq!((&entry["pid"], &entry["matched"]), (&json!(instance.pid()), &json!(1)));
            assert_eq!(instance.state("b", "s1"), (1, 0), "{mode:?}");
            instance.reload();
        }
    }
    // `haproxy-` is no part of a name.
    let name = unique("plain", haproxy);
    let _instance = Setup::new(&format!("haproxy-{name}"), PROXIES).start(haproxy);
    let report = maint(json!(name));
    assert_eq!(report["instances"][0]["name"], json!(name), "{report}");
    let report = maint(json!([format!("{name}-not")]));
    assert_eq!(kind(&report), "instance_not_found");
    assert!(report["error"]["msg"].as_str().unwrap().contains(&name), "the known ones are shown: {report}");
    Ok(())
}

fn several_sockets_of_one_process_are_one_instance(haproxy: &Haproxy) -> TestResult {
    let port = Port::reserve();
    let tcp = format!("ipv4@127.0.0.1:{} level admin", port.number());
    // The level of the first socket, the others, the one that is used.
    let table = [
        ("operator", vec!["second.sock level admin"], "second.sock"),
        ("admin", vec!["second.sock level admin"], "NAME.sock"),
        ("user", vec![tcp.as_str(), "third.sock level operator"], "tcp"),
        ("operator", vec![tcp.as_str(), "third.sock level admin"], "third.sock"),
    ];
    for (index, (level, others, expected)) in table.into_iter().enumerate() {
        let name = unique(&format!("sockets{index}"), haproxy);
        let setup = Setup::new(&name, PROXIES).level(level);
        let instance = others.iter().fold(setup, |setup, line| setup.stats_socket(line)).start(haproxy);
        let report = maint(json!([name]));
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{index}: {report}");
        assert_eq!(report["instances"].as_array().map(Vec::len), Some(1));
        let expected = match expected {
            "tcp" => format!("ipv4@127.0.0.1:{}", port.number()),
            file => instance.folder.join(&file.replace("NAME", &name)).display().to_string(),
        };
        assert_eq!(report["instances"][0]["socket"], json!(expected));
        assert_eq!(commands(&report).len(), 1);
    }
    Ok(())
}

fn the_same_process_by_two_addresses_is_one_instance(haproxy: &Haproxy) -> TestResult {
    let instance = Setup::new("one", PROXIES).level("operator").stats_socket("two.sock level admin").start(haproxy);
    let two = instance.folder.join("two.sock").display().to_string();
    let report = maint(json!([instance.address(), two]));
    assert_eq!((&report["failed"], servers(&report)), (&json!(false), vec!["b/s1".to_owned()]), "{report}");
    assert_eq!(report["instances"][0]["socket"], json!(two), "admin level wins");
    let other = Instance::start(haproxy, "other", PROXIES);
    let report = maint(json!([other.address(), instance.address(), two, other.address()]));
    let names: Vec<&Value> = report["instances"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["other", "two"], "the order is that of the request");
    Ok(())
}

fn the_same_process_by_a_tcp_address_is_one_instance(haproxy: &Haproxy) -> TestResult {
    let (ports, other) = ([Port::reserve(), Port::reserve()], Port::reserve());
    let tcp = |port: &Port| format!("127.0.0.1:{}", port.number());
    let line = |port: &Port| format!("ipv4@{} level admin", tcp(port));
    let setup = ports.iter().fold(Setup::new("one", PROXIES), |setup, port| setup.stats_socket(&line(port)));
    let instance = setup.start(haproxy);
    let _other = Setup::new("other", PROXIES).stats_socket(&line(&other)).start(haproxy);
    let named = |addresses: &[String]| {
        let named =
            addresses.iter().enumerate().map(|(place, at)| json!({ "name": format!("n{place}"), "socket": at }));
        let report = maint(named.collect());
        let instances = report["instances"].as_array().unwrap();
        let sockets: Vec<String> = instances.iter().map(|it| it["socket"].as_str().unwrap().to_owned()).collect();
        assert_eq!((&report["failed"], servers(&report).len()), (&json!(false), sockets.len()), "{report}");
        sockets
    };
    let [first, second] = ports.each_ref().map(tcp);
    // A Unix socket is preferred.
    assert_eq!(named(&[first.clone(), instance.address()]), [instance.address()]);
    assert_eq!(named(&[first.clone(), second]).len(), 1);
    assert_eq!(named(&[first, tcp(&other)]).len(), 2, "these are two");
    Ok(())
}

fn two_of_one_name_are_an_error_that_shows_both(haproxy: &Haproxy) -> TestResult {
    let name = unique("twin", haproxy);
    let (one, two) = (Setup::new(&name, PROXIES).start(haproxy), Setup::new(&name, PROXIES).start(haproxy));
    let report = maint(json!([name]));
    assert_eq!(kind(&report), "instance_ambiguous", "{report}");
    let msg = report["error"]["msg"].as_str().unwrap();
    for instance in [&one, &two] {
        assert!(msg.contains(&instance.config_file().display().to_string()), "{msg}");
        assert_eq!(instance.state("b", "s1"), (0, 2));
    }
    // Each under a name of its own is fine.
    let pair = |name: &str, instance: &Instance| json!({ "name": name, "socket": instance.address() });
    let report = maint(json!([pair("first", &one), pair("second", &two)]));
    assert_eq!((&report["failed"], servers(&report).len()), (&json!(false), 2), "{report}");
    assert_eq!(kind(&maint(json!([pair("same", &one), pair("same", &two)]))), "instance_ambiguous");
    // They do not disturb who asks for another.
    let third = unique("single", haproxy);
    let _third = Setup::new(&third, PROXIES).start(haproxy);
    assert_eq!(maint(json!([third]))["failed"], false);
    Ok(())
}

fn every_kind_of_address_is_taken(haproxy: &Haproxy) -> TestResult {
    let port = Port::reserve();
    let hidden = unique("hidden", haproxy);
    let instance = Setup::new("addresses", PROXIES)
        .stats_socket(&format!("ipv4@127.0.0.1:{} level admin", port.number()))
        .stats_socket(&format!("abns@{hidden} level admin"))
        .start(haproxy);
    let number = port.number();
    for (address, name) in [
        (instance.address(), "addresses".to_owned()),
        (format!("unix@{}", instance.address()), "addresses".to_owned()),
        (format!("abns@{hidden}"), PathBuf::from(&hidden).file_stem().unwrap().to_str().unwrap().to_owned()),
        (format!("ipv4@127.0.0.1:{number}"), format!("ipv4@127.0.0.1:{number}")),
        (format!("127.0.0.1:{number}"), format!("ipv4@127.0.0.1:{number}")),
        (format!("tcp@localhost:{number}"), format!("ipv4@127.0.0.1:{number}")),
    ] {
        instance.set_state("b/s1", "ready");
        let report = maint(json!([address]));
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{address}: {report}");
        assert_eq!(report["instances"][0]["name"], json!(name));
        let report = maint(json!({ "name": "mine", "socket": address }));
        assert_eq!((&report["changed"], &report["instances"][0]["name"]), (&json!(false), &json!("mine")));
    }
    for far in ["ipv4@192.0.2.1:9999", "192.0.2.1:9999", "ipv6@[2001:db8::1]:9999"] {
        let run = Program::input(json!({ "instances": far }).to_string()).run();
        assert_eq!(kind(&run.report()), "bad_request", "{far}: {}", run.stdout);
    }
    Ok(())
}

fn the_worker_of_a_master_is_managed(haproxy: &Haproxy) -> TestResult {
    let mut instance = Setup::new("worker", PROXIES).mode(Mode::MasterWorker).master_cli().start(haproxy);
    let master = instance.master_socket().display().to_string();
    for _ in 0..3 {
        for (state, changed) in [("maint", true), ("maint", false), ("ready", true), ("drain", true)] {
            let request = json!({ "server": "s1", "state": state, "instances": master });
            let report = Program::request(&request).report();
            assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(changed)), "{report}");
            assert_eq!(report["instances"][0]["pid"], instance.pid(), "the worker, not the master");
        }
        assert_eq!(instance.state("b", "s1"), (8, 2));
        // Both sockets lead to one instance.
        let status = Program::request(&json!({ "instances": [master, instance.address()] })).report();
        assert_eq!(servers(&status), ["b/s1"], "{status}");
        let status = Program::request(&json!({ "instances": [instance.address()] })).report();
        assert_eq!(servers(&status), ["b/s1"], "2.2 shows the servers of the master as well: {status}");
        let report = Program::request(&json!({ "server": "*", "state": "drain", "instances": [instance.address()] }));
        assert_eq!(commands(&report.report()), [""; 0], "nothing is sent the second time");
        instance.reload();
        // With a large configuration the master takes its time; one that is refused for so long is not there.
        eventually(PATIENCE, "the master to listen", || {
            std::os::unix::net::UnixStream::connect(&master).ok().map(drop)
        });
        assert_eq!(instance.state("b", "s1"), (0, 2));
    }
    Ok(())
}

fn several_processes_behind_a_socket_are_refused(haproxy: &Haproxy) -> TestResult {
    if haproxy.at_least(2, 5) {
        return Ok(()); // Knows no `nbproc`.
    }
    let instance = Setup::new("nbproc", PROXIES).mode(Mode::Daemon).global("nbproc 2").start(haproxy);
    for request in [json!({}), json!({ "server": "s1", "state": "maint" })] {
        let mut request = request;
        request["instances"] = json!(instance.address());
        let report = Program::request(&request).report();
        assert_eq!(kind(&report), "several_processes", "{report}");
        assert!(report["error"]["msg"].as_str().unwrap().contains("'nbproc'"), "{report}");
    }
    assert_eq!(instance.state("b", "s1"), (0, 2));
    Ok(())
}

fn what_nothing_listens_at_is_unreachable(haproxy: &Haproxy) -> TestResult {
    let instance = Instance::start(haproxy, "there", PROXIES);
    let folder = Folder::new();
    let gone = folder.join("gone.sock");
    drop(UnixListener::bind(&gone)?);
    let file = folder.write("file.sock", "no socket");
    let _datagram = std::os::unix::net::UnixDatagram::bind(folder.join("datagram.sock"))?;
    let port = Port::reserve();
    let shown = |path: &PathBuf| path.display().to_string();
    for (address, expected) in [
        (shown(&gone), "unreachable"),
        (shown(&file), "unreachable"),
        (shown(&folder.join("datagram.sock")), "not_haproxy"),
        (shown(&folder.join("never.sock")), "unreachable"),
        (shown(&file.join("below")), "unreachable"),
        (format!("ipv4@127.0.0.1:{}", port.number()), "unreachable"),
        ("abns@nobody-has-this".to_owned(), "unreachable"),
    ] {
        let ask = |policy: &str| {
            let instances = json!([instance.address(), { "name": "away", "socket": address }]);
            let request = json!({ "server": "s1", "state": "maint", "instances": instances, "on_unreachable": policy });
            Program::request(&request).report()
        };
        instance.set_state("b/s1", "ready");
        let report = ask("fail");
        assert_eq!((kind(&report), &report["changed"]), (expected, &json!(false)), "{address}: {report}");
        assert_eq!(report["error"]["instance"], "away");
        assert_eq!(servers(&report), ["b/s1"], "nothing half-hidden");
        assert_eq!(instance.state("b", "s1"), (0, 2), "nothing is set anywhere");
        let report = ask("skip");
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
        assert!(warnings(&report).contains("away: skipped"), "{report}");
        assert_eq!((kind(&report["instances"][1]), &report["instances"][1]["failed"]), (expected, &json!(false)));
        assert_eq!(instance.state("b", "s1"), (1, 0));
        // What is missing may be there.
        let instances = json!([instance.address(), { "name": "away", "socket": address }]);
        let request = json!({ "server": "s9", "state": "maint", "instances": instances, "on_unreachable": "skip" });
        let report = Program::request(&request).report();
        assert_eq!((kind(&report), &report["error"]["retryable"]), ("unreachable", &json!(true)), "{report}");
        assert!(report["error"]["msg"].as_str().unwrap().contains("'s9'"), "{report}");
        assert!(report["error"]["msg"].as_str().unwrap().contains("'away' did not answer"), "{report}");
    }
    Ok(())
}

fn a_level_that_does_not_suffice_matters_for_commands_only(haproxy: &Haproxy) -> TestResult {
    let fine = Instance::start(haproxy, "fine", PROXIES);
    for level in ["operator", "user"] {
        let instance = Setup::new(level, PROXIES).level(level).stats_socket("admin.sock level admin").start(haproxy);
        let ask = |request: Value| {
            let mut request = request;
            request["instances"] = json!([fine.address(), instance.address()]);
            Program::request(&request).report()
        };
        let report = ask(json!({}));
        assert_eq!((&report["ok"], servers(&report).len()), (&json!(true), 2), "{report}");
        let report = ask(json!({ "server": "s1", "state": "ready" }));
        assert_eq!(
            (&report["failed"], &report["changed"]),
            (&json!(false), &json!(false)),
            "nothing is needed: {report}"
        );
        for dry_run in [true, false] {
            let report = ask(json!({ "server": "s1", "state": "maint", "dry_run": dry_run }));
            assert_eq!((kind(&report), &report["changed"]), ("permission_denied", &json!(false)), "{report}");
            let msg = report["error"]["msg"].as_str().unwrap();
            let line = format!("'stats socket {} level admin'", instance.address());
            assert!(msg.contains(&line) && msg.contains("haproxy.cfg"), "{msg}");
            assert_eq!(report["error"]["instance"], level);
            assert_eq!(fine.state("b", "s1"), (0, 2), "nothing is set anywhere");
        }
    }
    Ok(())
}

fn an_ordinary_user_needs_the_socket_only(haproxy: &Haproxy) -> TestResult {
    const USER: &str = "65534";
    let setpriv = ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"];
    let works = Command::new(setpriv[0]).args(&setpriv[1..]).arg("true").output();
    if !geteuid().is_root() || !works.is_ok_and(|output| output.status.success()) {
        skipped("only root can become an ordinary user, with setpriv");
        return Ok(());
    }
    let setup = Setup::new("rights", PROXIES).stats_socket("open.sock mode 666 level admin");
    let instance = setup.start(haproxy);
    fs::set_permissions(instance.folder.path(), fs::Permissions::from_mode(0o755))?;
    let binary = instance.folder.join("haproxy_server");
    // By another process: a file that this one has open for writing may be so in a child that another test starts just
    // then, and is not to be run as long as that is.
    assert!(Command::new("cp").arg(Program::path()).arg(&binary).status()?.success());
    let ask = |request: Value, socket: &str| {
        let mut request = request;
        request["instances"] = json!(socket);
        Program::request(&request).binary(&binary).under(setpriv).report()
    };
    let open = instance.folder.join("open.sock").display().to_string();
    for request in [json!({}), json!({ "server": "s1", "state": "maint" })] {
        let report = ask(request.clone(), &instance.address());
        assert_eq!(kind(&report), "permission_denied", "{report}");
        assert!(report["error"]["msg"].as_str().unwrap().contains("stats socket"), "{report}");
        let report = ask(request, &open);
        assert_eq!(report["failed"], false, "{report}");
    }
    assert_eq!(instance.state("b", "s1"), (1, 0));
    Ok(())
}

fn all_of_this_host_are_managed(haproxy: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let run = folder.path().display();
    let haproxy_binary = haproxy.binary.display();
    for name in ["web", "ldap"] {
        folder.write(
            &format!("{name}.cfg"),
            &format!(
                "global\n    stats socket {run}/{name}.sock level admin\ndefaults\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n{PROXIES}"
            ),
        );
    }
    let script = format!(
        "trap 'kill $(jobs -p) 2>/dev/null' EXIT\n\
         {haproxy_binary} -db -f {run}/web.cfg 2>/dev/null & {haproxy_binary} -W -f {run}/ldap.cfg 2>/dev/null &\n\
         for try in $(seq 100); do [ -S {run}/web.sock ] && [ -S {run}/ldap.sock ] && break; sleep 0.05; done\n\
         sleep 0.3; echo '{{\"server\": \"s1\", \"state\": \"maint\"}}' | \"$@\""
    );
    let Some(program) = alone(&script) else { return Ok(()) };
    let report = program.report();
    assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
    let names: Vec<&Value> = report["instances"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["ldap", "web"], "by name");
    assert_eq!(servers(&report), ["b/s1", "b/s1"]);
    assert!(report["servers"].as_array().unwrap().iter().all(|one| one["after"]["admin_state"] == "maint"));
    Ok(())
}

fn no_haproxy_at_all_is_said_so(_: &Haproxy) -> TestResult {
    for script in ["echo '{}' | \"$@\"", "echo '{\"server\": \"s1\", \"state\": \"maint\"}' | \"$@\""] {
        let Some(program) = alone(script) else { return Ok(()) };
        let run = program.run();
        assert_eq!((kind(&run.report()), run.code), ("instance_not_found", Some(1)), "{}", run.stdout);
    }
    Ok(())
}

/// A HAProxy in a container: process id 1 there, in whatever second it starts.
struct Contained {
    process: std::process::Child,
    socket: PathBuf,
}

impl Contained {
    fn start(haproxy: &Haproxy, folder: &Folder, name: &str) -> Self {
        let socket = folder.join(&format!("{name}.sock"));
        let config = folder.write(
            &format!("{name}.cfg"),
            &format!(
                "global\n    stats socket {} level admin\ndefaults\n    timeout connect 1s\n    timeout client 1s\n    \
                 timeout server 1s\n{PROXIES}",
                socket.display()
            ),
        );
        let mut command = Command::new("unshare");
        command.args(["--pid", "--net", "--mount", "--fork", "--mount-proc", "--kill-child"]);
        command.arg(&haproxy.binary).args(["-db", "-f"]).arg(config);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually(PATIENCE, "the socket of the container", || crate::support::haproxy::ask(&socket, "show info").ok());
        Self { process, socket }
    }

    fn info(&self, key: &str) -> String {
        let info = crate::support::haproxy::ask(&self.socket, "show info").unwrap();
        let info = String::from_utf8_lossy(&info).into_owned();
        info.lines().find_map(|line| line.strip_prefix(&format!("{key}: "))).unwrap_or_default().to_owned()
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn two_containers_of_one_image_are_two_instances(haproxy: &Haproxy) -> TestResult {
    if alone("true").is_none() {
        return Ok(());
    }
    // Both start in one second, so that nothing that they say of themselves tells them apart.
    let folder = Folder::new();
    let pair = eventually(PATIENCE, "two that start in one second", || {
        let pair = ["left", "right"].map(|name| Contained::start(haproxy, &folder, name));
        let [left, right] = pair.each_ref().map(|one| (one.info("Pid"), one.info("Start_time_sec")));
        (left == right).then_some(pair)
    });
    assert_eq!(pair[0].info("Pid"), "1");
    let both: Vec<String> = pair.iter().map(|one| one.socket.display().to_string()).collect();
    let report = maint(json!(both));
    assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
    assert_eq!(servers(&report), ["b/s1", "b/s1"], "{report}");
    for one in &pair {
        let rows = crate::support::haproxy::ask(&one.socket, "show servers state").unwrap();
        let rows = crate::support::haproxy::rows(&String::from_utf8_lossy(&rows));
        assert_eq!(rows[&("b".to_owned(), "s1".to_owned())].admin, 1, "{}", one.socket.display());
    }
    // One of them at two addresses is one.
    let other = folder.join("left.link");
    std::os::unix::fs::symlink(&both[0], &other).unwrap();
    let report = maint(json!([both[0], other.display().to_string()]));
    assert_eq!(servers(&report), ["b/s1"], "{report}");
    Ok(())
}
