//! HAProxy as distributions, images and operators lay it out, each on a host of its own: whatever only root and HAProxy's
//! own account can write is found, and every process that serves is accounted for.

use std::process::Command;

use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::support::report::{kind, servers, warnings};
use crate::support::{Haproxy, Program, Test, TestResult, skipped, tests};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        debian,
        debian_with_a_configuration_that_the_caller_may_not_read,
        red_hat,
        nixos,
        docker_library,
        openstack_with_services_d,
        openshift,
        enterprise,
        two_configurations_with_one_socket,
        one_configuration_started_twice,
        two_instances_of_one_name,
        a_configuration_that_has_changed,
        a_configuration_that_has_vanished,
        a_configuration_from_standard_input,
        variables_that_haproxy_sets_itself,
        a_process_that_only_ends,
        containers_that_share_the_files,
        an_instance_that_is_ignored,
        a_stranger_takes_no_name_away,
    ]
}

/// A host of its own: the folders that packages use are empty, and the users are the packages'.
const HOST: &str = r#"
set -e
exec 2>&3
for folder in /run /srv /opt /var/lib /usr/local /mnt; do mount -t tmpfs -o mode=755 tmpfs $folder; done
mkdir /mnt/upper /mnt/work; mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
rm -rf /etc/haproxy*
sed -i '/^haproxy:/d;/^hapee-lb:/d;/:188:/d' /etc/passwd /etc/group
echo 'haproxy:x:188:188::/var/lib/haproxy:/usr/sbin/nologin' >> /etc/passwd; echo 'haproxy:x:188:' >> /etc/group
proxies() { printf 'defaults\n timeout connect 1s\n timeout client 1s\n timeout server 1s\nbackend %s\n server s1 127.0.0.1:9\n server s2 127.0.0.1:9\n' "${1:-b}"; }
as() { local ids=$1; shift; setpriv --reuid "${ids%:*}" --regid "${ids#*:}" --clear-groups "$@"; }
await() { for try in $(seq 200); do [ -S "$1" ] && break; sleep 0.05; done; sleep 0.3; }
"#;

/// What is asked where nothing else is.
const MAINT: &str = r#"{"server": "s1", "state": "maint"}"#;

/// Runs the program by a script on a host of its own; `$H` is HAProxy, `ask REQUEST [COMMAND…]` runs the program.
///
/// Nothing where no such host can be made.
fn report(haproxy: &Haproxy, script: &str) -> Option<Value> {
    let unshare = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child"];
    let works = Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
    if !geteuid().is_root() || !works.is_ok_and(|output| output.status.success()) {
        skipped("only root can make namespaces, with unshare");
        return None;
    }
    let script = format!(
        "H={}\nP=(\"$@\")\nask() {{ local request=$1; shift; echo \"$request\" | \"$@\" \"${{P[@]}}\" || true; }}\n{HOST}\n{script}\n\
         kill $(jobs -p) 2>/dev/null || true",
        haproxy.binary.display()
    );
    // HAProxy says on its standard error what is set.
    let bash = ["bash", "-c", "exec 3>&2; eval \"$0\"", &script];
    let run = Program::new().under(unshare.into_iter().chain(bash)).run();
    assert!(!run.stdout.is_empty(), "{script}\n{}", run.stderr);
    let mut report = run.report();
    report[LOG] = json!(run.stderr);
    Some(report)
}

/// Where in a report [`report`] puts what the HAProxy processes have logged.
const LOG: &str = "log of HAProxy";

/// Asserts that a change to maint has reached these instances by these sockets, as their HAProxy says too, and that
/// nothing was left out.
fn reached(report: &Value, expected: &[(&str, &str)]) {
    assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
    assert_eq!(instances(report), expected, "{report}");
    assert_eq!(warnings(report), "", "{report}");
    in_maint(report, expected.len());
}

/// Asserts that HAProxy has set this many servers to maint.
fn in_maint(report: &Value, count: usize) {
    let log = report[LOG].as_str().unwrap();
    assert_eq!(log.matches("/s1 is going DOWN for maintenance").count(), count, "{log}");
}

/// Asserts that no HAProxy has set anything.
fn untouched(report: &Value) {
    let log = report[LOG].as_str().unwrap();
    assert!(!log.contains("is going DOWN"), "{log}");
}

fn instances(report: &Value) -> Vec<(&str, &str)> {
    let text = |value: &'_ Value| -> &'static str { value.as_str().unwrap_or_default().to_owned().leak() };
    report["instances"].as_array().unwrap().iter().map(|one| (text(&one["name"]), text(&one["socket"]))).collect()
}

fn debian(haproxy: &Haproxy) -> TestResult {
    let script = "mkdir -p /etc/haproxy /run/haproxy /var/lib/haproxy
        chown haproxy:haproxy /run/haproxy; chmod 2775 /run/haproxy
        { printf 'global\n chroot /var/lib/haproxy\n stats socket /run/haproxy/admin.sock mode 660 level admin\n user haproxy\n group haproxy\n'; proxies; } > /etc/haproxy/haproxy.cfg
        $H -W -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid -S /run/haproxy-master.sock &
        await /run/haproxy/admin.sock; ask '{\"server\": \"s1\", \"state\": \"maint\"}'";
    if let Some(report) = report(haproxy, script) {
        reached(&report, &[("haproxy", "/run/haproxy/admin.sock")]);
    }
    Ok(())
}

fn debian_with_a_configuration_that_the_caller_may_not_read(haproxy: &Haproxy) -> TestResult {
    let script = "mkdir -p /etc/haproxy /run/haproxy /var/lib/haproxy
        chown haproxy:haproxy /run/haproxy; chmod 2775 /run/haproxy
        { printf 'global\n stats socket /run/haproxy/admin.sock mode 660 level admin\n user haproxy\n group haproxy\n'; proxies; } > /etc/haproxy/haproxy.cfg
        chmod 640 /etc/haproxy/haproxy.cfg
        $H -W -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid -S /run/haproxy-master.sock &
        await /run/haproxy/admin.sock; ask '{}' as 1234:188";
    if let Some(report) = report(haproxy, script) {
        assert_eq!(
            (&report["failed"], servers(&report)),
            (&json!(false), vec!["b/s1".to_owned(), "b/s2".to_owned()]),
            "{report}"
        );
        assert_eq!(instances(&report), [("haproxy", "/run/haproxy/admin.sock")], "{report}");
    }
    Ok(())
}

fn red_hat(haproxy: &Haproxy) -> TestResult {
    let script = "mkdir -p /etc/haproxy/conf.d /var/lib/haproxy; chown haproxy:haproxy /var/lib/haproxy
        printf 'global\n chroot /var/lib/haproxy\n user haproxy\n group haproxy\n stats socket /var/lib/haproxy/stats level admin\n' > /etc/haproxy/haproxy.cfg
        proxies > /etc/haproxy/conf.d/app.cfg
        $H -W -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/conf.d -p /run/haproxy.pid &
        await /var/lib/haproxy/stats; ask '{\"server\": \"s1\", \"state\": \"maint\"}'";
    if let Some(report) = report(haproxy, script) {
        reached(&report, &[("haproxy", "/var/lib/haproxy/stats")]);
    }
    Ok(())
}

fn nixos(haproxy: &Haproxy) -> TestResult {
    // The unit has `User=haproxy`, the configuration no user.
    let script = "mkdir -p /opt/store/abc-etc /etc/static /run/haproxy; chown haproxy:haproxy /run/haproxy
        chgrp 30000 /opt/store; chmod 1775 /opt/store
        { printf 'global\n stats socket /run/haproxy/haproxy.sock mode 600 expose-fd listeners level admin\n'; proxies; } > /opt/store/abc-etc/haproxy.cfg
        ln -s /opt/store/abc-etc/haproxy.cfg /etc/static/haproxy.cfg; ln -s /etc/static/haproxy.cfg /etc/haproxy.cfg
        as 188:188 $H -W -f /etc/haproxy.cfg -p /run/haproxy/haproxy.pid &
        await /run/haproxy/haproxy.sock; ask '{\"server\": \"s1\", \"state\": \"maint\"}'";
    if let Some(report) = report(haproxy, script) {
        reached(&report, &[("haproxy", "/run/haproxy/haproxy.sock")]);
    }
    Ok(())
}

fn docker_library(haproxy: &Haproxy) -> TestResult {
    let script = "mkdir -p /usr/local/etc/haproxy /var/lib/haproxy; chown haproxy:haproxy /var/lib/haproxy
        { printf 'global\n stats socket /var/lib/haproxy/admin.sock level admin\n'; proxies; } > /usr/local/etc/haproxy/haproxy.cfg
        as 188:188 $H -W -db -f /usr/local/etc/haproxy/haproxy.cfg &
        await /var/lib/haproxy/admin.sock; ask '{\"server\": \"s1\", \"state\": \"maint\"}'";
    if let Some(report) = report(haproxy, script) {
        reached(&report, &[("haproxy", "/var/lib/haproxy/admin.sock")]);
    }
    Ok(())
}

fn openstack_with_services_d(haproxy: &Haproxy) -> TestResult {
    // The configuration is the account's own.
    let script = "mkdir -p /etc/haproxy/services.d /var/lib/kolla/haproxy
        printf 'global\n user haproxy\n group haproxy\n' > /etc/haproxy/haproxy.cfg
        { printf 'global\n stats socket /var/lib/kolla/haproxy/haproxy.sock mode 660 level admin\n'; proxies; } > /etc/haproxy/services.d/nova.cfg
        chown -R haproxy:haproxy /etc/haproxy /var/lib/kolla/haproxy; chmod 600 /etc/haproxy/haproxy.cfg
        $H -W -db -p /run/haproxy.pid -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/services.d/ &
        await /var/lib/kolla/haproxy/haproxy.sock; ask '{\"server\": \"s1\", \"state\": \"maint\"}'";
    if let Some(report) = report(haproxy, script) {
        reached(&report, &[("haproxy", "/var/lib/kolla/haproxy/haproxy.sock")]);
    }
    Ok(())
}

fn openshift(haproxy: &Haproxy) -> TestResult {
    // Any user of group root, whom no configuration names.
    let script = "mkdir -p /var/lib/haproxy/conf /var/lib/haproxy/run
        { printf 'global\n stats socket /var/lib/haproxy/run/haproxy.sock mode 600 level admin\n'; proxies; } > /var/lib/haproxy/conf/haproxy.config
        chown -R haproxy:root /var/lib/haproxy; chmod -R g+w /var/lib/haproxy
        as 1000620000:0 $H -W -f /var/lib/haproxy/conf/haproxy.config -p /var/lib/haproxy/run/haproxy.pid &
        await /var/lib/haproxy/run/haproxy.sock";
    let expected = [("haproxy", "/var/lib/haproxy/run/haproxy.sock")];
    if let Some(report) = report(haproxy, &format!("{script}; ask '{MAINT}'")) {
        reached(&report, &expected);
    }
    let own = "mkdir -m 700 /run/user; chown 1000620000 /run/user; export XDG_RUNTIME_DIR=/run/user";
    if let Some(report) = report(haproxy, &format!("{script}; {own}; ask '{MAINT}' as 1000620000:0")) {
        reached(&report, &expected);
    }
    Ok(())
}

fn enterprise(haproxy: &Haproxy) -> TestResult {
    let script = "mkdir -p /etc/hapee-2.8 /run/hapee-2.8 /opt/hapee-2.8/sbin; ln -s $H /opt/hapee-2.8/sbin/hapee-lb
        echo 'hapee-lb:x:189:189::/:/usr/sbin/nologin' >> /etc/passwd; echo 'hapee:x:189:' >> /etc/group
        chown 189:189 /run/hapee-2.8; chmod 775 /run/hapee-2.8
        { printf 'global\n stats socket /run/hapee-2.8/hapee-lb.sock level admin\n'; proxies; } > /etc/hapee-2.8/hapee-lb.cfg
        as 189:189 /opt/hapee-2.8/sbin/hapee-lb -W -f /etc/hapee-2.8/hapee-lb.cfg &
        await /run/hapee-2.8/hapee-lb.sock; ask '{\"server\": \"s1\", \"state\": \"maint\"}'";
    if let Some(report) = report(haproxy, script) {
        reached(&report, &[("hapee-2.8", "/run/hapee-2.8/hapee-lb.sock")]);
    }
    Ok(())
}

/// Starts two HAProxy; the second takes the socket of the first.
fn taken(configs: [&str; 2], request: &str) -> String {
    let [one, two] = configs;
    format!(
        "mkdir -p /etc/haproxy
        {{ printf 'global\n stats socket /run/x.sock level admin\n'; proxies one; }} > {one}
        {{ printf 'global\n stats socket /run/x.sock level admin\n'; proxies two; }} > {two}
        $H -W -f {one} & await /run/x.sock; first=$(stat -c %i /run/x.sock); $H -W -f {two} &
        n=0; while now=$(stat -c %i /run/x.sock); [ \"${{now:-$first}}\" = \"$first\" ] && [ $n -lt 200 ]; do n=$((n+1)); sleep .05; done
        sleep .3; ask '{request}'"
    )
}

fn two_configurations_with_one_socket(haproxy: &Haproxy) -> TestResult {
    let configs = ["/etc/haproxy/one.cfg", "/etc/haproxy/two.cfg"];
    if let Some(report) = report(haproxy, &taken(configs, MAINT)) {
        assert_eq!((kind(&report), &report["changed"]), ("unreachable", &json!(false)), "{report}");
        untouched(&report);
        assert_eq!(report["error"]["instance"], "one", "{report}");
        let msg = report["error"]["msg"].as_str().unwrap();
        assert!(
            msg.contains("/etc/haproxy/one.cfg") && msg.contains("has taken its stats socket /run/x.sock"),
            "{msg}"
        );
    }
    let skip = r#"{"server": "s1", "state": "maint", "on_unreachable": "skip"}"#;
    if let Some(report) = report(haproxy, &taken(configs, skip)) {
        assert_eq!((&report["failed"], servers(&report)), (&json!(false), vec!["two/s1".to_owned()]), "{report}");
        assert!(warnings(&report).contains("one: skipped"), "{report}");
    }
    Ok(())
}

fn one_configuration_started_twice(haproxy: &Haproxy) -> TestResult {
    let configs = ["/etc/haproxy/web.cfg"; 2];
    if let Some(report) = report(haproxy, &taken(configs, MAINT)) {
        assert_eq!((kind(&report), &report["changed"]), ("unreachable", &json!(false)), "{report}");
        untouched(&report);
        assert!(report["error"]["instance"].as_str().unwrap().starts_with("web-"), "the older one: {report}");
    }
    // Who names it means both.
    let named = r#"{"server": "s1", "state": "maint", "instances": "web"}"#;
    if let Some(report) = report(haproxy, &taken(configs, named)) {
        assert_eq!(kind(&report), "unreachable", "{report}");
        untouched(&report);
    }
    Ok(())
}

fn two_instances_of_one_name(haproxy: &Haproxy) -> TestResult {
    let script = "for app in app1 app2; do mkdir -p /srv/$app/conf
        { printf \"global\n stats socket /srv/$app/admin.sock level admin\n\"; proxies; } > /srv/$app/conf/web.cfg
        $H -db -f /srv/$app/conf/web.cfg & done
        await /srv/app1/admin.sock; await /srv/app2/admin.sock; ask ";
    if let Some(report) = report(haproxy, &format!("{script} '{MAINT}'")) {
        reached(&report, &[("app1", "/srv/app1/admin.sock"), ("app2", "/srv/app2/admin.sock")]);
    }
    let named = r#"{"server": "s1", "state": "maint", "instances": "app2"}"#;
    if let Some(report) = report(haproxy, &format!("{script} '{named}'")) {
        reached(&report, &[("app2", "/srv/app2/admin.sock")]);
    }
    let shared = r#"{"server": "s1", "state": "maint", "instances": "web"}"#;
    if let Some(report) = report(haproxy, &format!("{script} '{shared}'")) {
        assert_eq!(kind(&report), "instance_ambiguous", "{report}");
        let msg = report["error"]["msg"].as_str().unwrap();
        assert!(msg.contains("app1 (/srv/app1/conf/web.cfg)") && msg.contains("app2"), "{msg}");
    }
    Ok(())
}

fn a_configuration_that_has_changed(haproxy: &Haproxy) -> TestResult {
    let start = "mkdir -p /etc/haproxy /run/haproxy
        { printf 'global\n stats socket /run/haproxy/a.sock level admin\n'; proxies; } > /etc/haproxy/web.cfg
        $H -W -f /etc/haproxy/web.cfg & await /run/haproxy/a.sock";
    for change in [
        // Another socket, and none at all.
        "sed -i s/a.sock/b.sock/ /etc/haproxy/web.cfg",
        "sed -i /stats/d /etc/haproxy/web.cfg",
    ] {
        if let Some(report) = report(haproxy, &format!("{start}; {change}; ask '{MAINT}'")) {
            assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{change}: {report}");
            assert_eq!(instances(&report), [("web", "/run/haproxy/a.sock")], "{change}: {report}");
            in_maint(&report, 1);
            assert!(warnings(&report).contains("perhaps changed since HAProxy started; reload it"), "{report}");
        }
    }
    Ok(())
}

fn a_configuration_that_has_vanished(haproxy: &Haproxy) -> TestResult {
    // A master with its worker, and a process that has made a folder its root.
    for (mode, chroot) in [("-W", ""), ("-db", "chroot /var/lib/haproxy")] {
        let script = format!(
            "mkdir -p /etc/haproxy /run/haproxy /var/lib/haproxy
            {{ printf 'global\n {chroot}\n stats socket /run/haproxy/a.sock level admin\n'; proxies; }} > /etc/haproxy/web.cfg
            $H {mode} -f /etc/haproxy/web.cfg & await /run/haproxy/a.sock; rm /etc/haproxy/web.cfg; ask '{MAINT}'"
        );
        if let Some(report) = report(haproxy, &script) {
            assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{mode}: {report}");
            assert_eq!(instances(&report), [("web", "/run/haproxy/a.sock")], "{mode}: {report}");
            in_maint(&report, 1);
            let text = warnings(&report);
            assert!(text.contains("No such file") && text.contains("perhaps changed since HAProxy started"), "{text}");
        }
    }
    Ok(())
}

fn a_configuration_from_standard_input(haproxy: &Haproxy) -> TestResult {
    let script = "mkdir -p /run/haproxy
        { printf 'global\n stats socket /run/haproxy/a.sock level admin\n'; proxies; } | $H -db -f /dev/stdin &
        await /run/haproxy/a.sock; ask '{\"server\": \"s1\", \"state\": \"maint\"}'";
    if let Some(report) = report(haproxy, script) {
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
        assert_eq!(instances(&report), [("haproxy", "/run/haproxy/a.sock")], "{report}");
        in_maint(&report, 1);
    }
    Ok(())
}

fn variables_that_haproxy_sets_itself(haproxy: &Haproxy) -> TestResult {
    let script = "mkdir -p /etc/haproxy /run/haproxy
        { printf 'global\n stats socket \"/run/haproxy/x${HAPROXY_BRANCH}.sock\" level admin\n'; proxies; } > /etc/haproxy/web.cfg
        $H -db -f /etc/haproxy/web.cfg & for try in $(seq 100); do ls /run/haproxy/x* && break; sleep 0.05; done >/dev/null
        sleep 0.3; ask '{\"server\": \"s1\", \"state\": \"maint\"}'";
    if let Some(report) = report(haproxy, script) {
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
        // The older ones do not know this one.
        let sockets = ["/run/haproxy/x.sock".to_owned(), format!("/run/haproxy/x{}.sock", haproxy.name)];
        assert!(
            matches!(instances(&report)[..], [("web", socket)] if sockets.contains(&socket.to_owned())),
            "{report}"
        );
        assert_eq!(warnings(&report), "", "{report}");
        in_maint(&report, 1);
    }
    Ok(())
}

fn a_process_that_only_ends(haproxy: &Haproxy) -> TestResult {
    // An old process that a session keeps, without `-sf` on the command line of the new one.
    let script = "mkdir -p /etc/haproxy /run/haproxy; ip link set lo up
        { printf 'global\n stats socket /run/haproxy/a.sock level admin\n'; proxies; printf 'frontend f\n bind 127.0.0.1:8080\n timeout client 60s\n tcp-request inspect-delay 60s\n tcp-request content accept if { req.len gt 100 }\n default_backend b\n'; } > /etc/haproxy/web.cfg
        $H -db -f /etc/haproxy/web.cfg & old=$!; await /run/haproxy/a.sock
        exec 4<>/dev/tcp/127.0.0.1/8080; printf 'GET / HT' >&4; sleep 0.3; kill -USR1 $old; sleep 0.3
        before=$(stat -c %i /run/haproxy/a.sock); $H -db -f /etc/haproxy/web.cfg &
        for _ in {1..400}; do [ \"$(stat -c %i /run/haproxy/a.sock)\" = $before ] || break; sleep 0.05; done
        sleep 1; kill -0 $old; ask '{\"server\": \"s1\", \"state\": \"maint\"}'";
    if let Some(report) = report(haproxy, script) {
        reached(&report, &[("web", "/run/haproxy/a.sock")]);
    }
    Ok(())
}

fn containers_that_share_the_files(haproxy: &Haproxy) -> TestResult {
    // Each has process id 1 in a namespace of its own.
    let script = "mkdir -p /etc/haproxy /run/haproxy
        for name in one two; do { printf \"global\n stats socket /run/haproxy/$name.sock level admin\n\"; proxies $name; } > /etc/haproxy/$name.cfg
        unshare --pid --fork --kill-child $H -db -f /etc/haproxy/$name.cfg & done
        await /run/haproxy/one.sock; await /run/haproxy/two.sock; ask '{\"server\": \"s1\", \"state\": \"maint\"}'";
    if let Some(report) = report(haproxy, script) {
        reached(&report, &[("one", "/run/haproxy/one.sock"), ("two", "/run/haproxy/two.sock")]);
    }
    // The socket of one is gone: the other one, of the same process id, does not stand for it.
    let gone = script.replace("; ask", "; rm /run/haproxy/one.sock; ask");
    if let Some(report) = report(haproxy, &gone) {
        assert_eq!((kind(&report), &report["error"]["instance"]), ("unreachable", &json!("one")), "{report}");
    }
    Ok(())
}

fn an_instance_that_is_ignored(haproxy: &Haproxy) -> TestResult {
    // One that could be managed, and one that could not.
    let start = "mkdir -p /etc/haproxy /run/haproxy
        for name in web test-1; do { printf \"global\n stats socket /run/haproxy/$name.sock level admin\n\"; proxies; } > /etc/haproxy/$name.cfg
        $H -db -f /etc/haproxy/$name.cfg & done
        printf 'frontend f\n bind /run/f.sock\n mode http\n timeout client 1s\n' > /etc/haproxy/test-2.cfg; $H -db -f /etc/haproxy/test-2.cfg &
        await /run/haproxy/web.sock; await /run/haproxy/test-1.sock; await /run/f.sock; ask";
    let request = r#"{"server": "s1", "state": "maint", "ignore_instances": ["test-*"]}"#;
    if let Some(report) = report(haproxy, &format!("{start} '{request}'")) {
        reached(&report, &[("web", "/run/haproxy/web.sock")]);
    }
    if let Some(report) = report(haproxy, &format!("{start} '{MAINT}'")) {
        assert_eq!(instances(&report).len(), 2, "{report}");
        assert!(warnings(&report).contains("test-2.cfg) is left out because it has no stats socket"), "{report}");
    }
    let named = r#"{"server": "s1", "state": "maint", "instances": "test-1", "ignore_instances": "test-1"}"#;
    if let Some(report) = report(haproxy, &format!("{start} '{named}'")) {
        reached(&report, &[("test-1", "/run/haproxy/test-1.sock")]);
    }
    Ok(())
}

fn a_stranger_takes_no_name_away(haproxy: &Haproxy) -> TestResult {
    // A shell called haproxy takes its first `-f` for a script.
    let script = "mkdir -p /etc/haproxy /run/haproxy /opt/theirs; cp /bin/bash /opt/theirs/haproxy
        { printf 'global\n stats socket /run/haproxy/a.sock level admin\n'; proxies; } > /etc/haproxy/web.cfg
        { echo 'read -r < <(sleep 100)'; echo exit; cat /etc/haproxy/web.cfg; } > /etc/haproxy/web2.cfg; mv /etc/haproxy/web2.cfg /etc/haproxy/web.sh
        $H -db -f /etc/haproxy/web.cfg & await /run/haproxy/a.sock
        as 65534:65534 /opt/theirs/haproxy -f /etc/haproxy/web.sh -f /etc/haproxy/web.cfg & sleep 0.5
        ask '{\"server\": \"s1\", \"state\": \"maint\"}'";
    if let Some(report) = report(haproxy, script) {
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "{report}");
        assert_eq!(instances(&report), [("web", "/run/haproxy/a.sock")], "{report}");
        assert!(warnings(&report).contains("left out"), "{report}");
    }
    Ok(())
}
