//! The type and its provider in `puppet apply` and `puppet resource`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::On;
use super::site::{Puppet, Site, assert_says, module, path_with};
use crate::support::stage::PUPPET_BACKENDS;
use crate::support::{Folder, Haproxy, Health, Host, Program, Stage, TestResult, repository};
use crate::tool;

pub(crate) fn tests() -> Vec<On> {
    let newest = on_newest![
        the_catalogue_may_bring_what_is_needed,
        program_is_found_where_sudo_does_not_look,
        wait_is_asked_in_every_run,
        servers_are_restored_to_what_they_were,
        a_program_that_gives_no_report_is_named,
        another_version_of_the_program_is_noticed,
    ];
    let each = on_each![
        noop_then_apply_then_nothing,
        each_resource_fails_alone,
        properties_have_events_of_their_own,
        resource_lists_and_sets,
        every_parameter_arrives_as_it_was_given,
    ];
    [each, newest].concat()
}

const READY: (u32, u32) = (0, 2);
const DRAIN: (u32, u32) = (8, 2);
const MAINT: (u32, u32) = (1, 0);

fn noop_then_apply_then_nothing(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let stage = Stage::start(haproxy);
    let site = Site::on(puppet, &stage);
    let states = || PUPPET_BACKENDS.map(|backend| stage.puppet.state(backend, "puppet-i0-svc1"));
    let manifest = "haproxy_server { 'puppet-i0-svc1': ensure => maint }
        exec { ['true']: path => ['/usr/bin', '/bin'], notify => Haproxy_server['puppet-i0-svc1'] }";

    let out = site.apply(manifest, &["--noop", "--show_diff"], 0).out;
    assert_says(
        &out,
        &[
            "\n-puppet all_puppet_masters/puppet-i0-svc1 ready weight 1\n",
            "+puppet all_puppet_masters/puppet-i0-svc1 maint weight 1\n",
            &puppet.logged(
                "[puppet-i0-svc1]/ensure: puppet-i0-svc1: would be maint in 6 of 6 backends on 1 of 3 instances (noop)",
            ),
        ],
    );
    assert!(states() == [READY; 6], "noop has changed something");

    let out = site.apply(manifest, &[], 2).out;
    assert_says(
        &out,
        &[
            "/ensure: puppet-i0-svc1: maint in 6 of 6 backends on 1 of 3 instances\n",
            "Haproxy_server[puppet-i0-svc1]: Triggered 'refresh' from 1 event",
        ],
    );
    assert!(!out.contains("\n-puppet"), "a difference without show_diff");
    assert_says(&site.report(), &["property: ensure previous_value: ready desired_value: maint", "status: success"]);
    assert!(states() == [MAINT; 6], "not all are in maint");

    let out = site.apply("haproxy_server { 'puppet-i0-svc1': ensure => disabled }", &[], 0).out;
    assert!(!out.contains("Haproxy_server"), "the second run has something to say:\n{out}");

    site.apply("haproxy_server { 'back': ensure => enabled, server => ['puppet-i0-svc1'] }", &[], 2);
    assert!(states() == [READY; 6], "not all are back");
    Ok(())
}

fn each_resource_fails_alone(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let stage = Stage::start(haproxy);
    let site = Site::on(puppet, &stage);
    let manifest = "
        haproxy_server { 'web1': ensure => maint }
        -> haproxy_server { 'too many':
          server => ['web2', 'web3'], ensure => maint, guard => { min_available => 1 },
        }
        -> notify { 'after the maintenance': }
        haproxy_server { 'wbe1': ensure => maint }
        haproxy_server { 'ldap1': ensure => maint, instances => '/nowhere/ldap.sock' }
        haproxy_server { 'ldap2': ensure => drain, expect => { admin_state => maint } }
        haproxy_server { 'ldap3': ensure => ready, drain => true }";
    let errors = [
        "Haproxy_server[too many]: Could not evaluate: http: the backend web has 2 usable servers and would have 0",
        "Haproxy_server[wbe1]: Could not evaluate: no selected instance has a server 'wbe1' (did you mean 'web1'?)",
        "Haproxy_server[ldap1]: Could not evaluate: ldap: the socket /nowhere/ldap.sock does not exist",
        "Haproxy_server[ldap2]: Could not evaluate: ldap: directory/ldap2 is in ready",
        "Haproxy_server[ldap3]: Could not evaluate: 'drain' ",
    ];
    let run = site.apply(manifest, &[], 6);
    assert_says(&run.err, &errors);
    assert!(!run.out.contains("after the maintenance'"), "what depends on a failure was applied:\n{}", run.out);
    assert_eq!(stage.http.state("web", "web1"), MAINT);
    for (instance, backend, server) in [
        (&stage.http, "web", "web2"),
        (&stage.http, "web", "web3"),
        (&stage.ldap, "directory", "ldap1"),
        (&stage.ldap, "directory", "ldap2"),
    ] {
        assert_eq!(instance.state(backend, server), READY, "{backend}/{server}");
    }
    // Nothing is left to change now, and the failures stay.
    assert_says(&site.apply(manifest, &["--noop"], 4).err, &errors);

    // A slip in the shape of a value ends the run before it has begun.
    let run = site.apply("haproxy_server { 'web2': ensure => maint, drain => { timeuot => 3 } }", &[], 1);
    assert_says(&run.err, &["Parameter drain failed on Haproxy_server[web2]: ", "timeuot"]);
    Ok(())
}

fn the_catalogue_may_bring_what_is_needed(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let stage = Stage::start(haproxy);
    let host = Host::with(stage.instances());
    let installed = Folder::new();
    let site = Site::with_path(puppet, path_with(installed.path(), puppet.path()));
    let (program, socket) = (installed.join("haproxy_server"), site.folder.join("later.sock"));
    let server = format!("haproxy_server {{ 'web1': ensure => maint, instances => '{}' }}", socket.display());
    let link = |name: &str, path: String, target: String| {
        format!("file {{ '{name}': path => '{path}', ensure => link, target => '{target}' }}\n")
    };

    let run = site.apply(&server, &[], 4);
    assert_says(&run.err, &["Haproxy_server[web1]: Provider haproxy_server is not functional on this host"]);
    let run = tool::run(site.puppet("resource").arg("haproxy_server"));
    assert_says(&run.err, &["'haproxy_server' is neither on PATH nor in /usr/bin or /usr/local/bin; install it"]);

    // The resource stands first, and waits for the program; the socket has to be there at its turn only.
    let program = link("program", program.display().to_string(), host.command().display().to_string());
    let socket = link("socket", socket.display().to_string(), stage.http.address());
    site.apply(&format!("{server}\n{socket} -> Haproxy_server['web1']\n{program}"), &[], 2);
    assert_eq!(stage.http.state("web", "web1"), MAINT);
    Ok(())
}

/// The `secure_path` of sudo on Enterprise Linux.
const SECURE_PATH: &str = "/sbin:/bin:/usr/sbin:/usr/bin";

fn program_is_found_where_sudo_does_not_look(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let stage = Stage::start(haproxy);
    let site = Site::with_path(puppet, SECURE_PATH);
    let installed = Folder::new();
    symlink(Program::path(), installed.join("haproxy_server"))?;
    let there = || {
        let mut command = tool::tool("unshare");
        command.args(["-m", "sh", "-c", r#"mount --bind "$0" /usr/local/bin && exec "$@""#]).arg(installed.path());
        command
    };
    if tool::run(there().arg("true")).code != 0 {
        println!("skipped: only root can make namespaces, with unshare");
        return Ok(());
    }
    let manifest = format!("haproxy_server {{ 'web1': ensure => maint, instances => '{}' }}", stage.http.address());
    let manifest = site.folder.write("site.pp", &manifest);
    let mut apply = there();
    apply.args(["puppet", "apply", "--detailed-exitcodes"]).args(site.options()).arg(manifest);
    tool::run(apply.env("PATH", site.path()).env("HOME", site.folder.path())).ended_with(2);
    assert_eq!(stage.http.state("web", "web1"), MAINT);

    let request = json!({"server": "web1", "state": "ready", "instances": stage.http.address()});
    let request = std::fs::File::open(site.folder.write("request.json", &request.to_string()))?;
    let mut task = there();
    task.arg(module().join("tasks/init.sh")).env("PATH", SECURE_PATH).stdin(request);
    tool::run(&mut task).ended_with(0);
    assert_eq!(stage.http.state("web", "web1"), READY);
    Ok(())
}

fn properties_have_events_of_their_own(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let stage = Stage::start_with(haproxy, "check inter 200ms", |setup| setup);
    let site = Site::on(puppet, &stage);
    let state_file = stage.folder.join("http.state");
    let wanted = "server => 'web/web1', weight => '1000%', health => disabled, agent => disabled";
    let manifest = format!("haproxy_server {{ 'one': {wanted} }}");
    let run = site.apply(&manifest, &[], 2);
    assert_says(&run.err, &["Warning: ", "Haproxy_server[one]: http: web/web1: no agent check to set"]);
    assert_says(
        &run.out,
        &[
            "/weight: weight changed 1 to '1000%' (web/web1: weight 1000%, health checks off, agent checks off in 1 of 1 backend",
            "/health: health changed 'enabled' to 'disabled' (",
        ],
    );
    assert_eq!(stage.http.row("web", "web1").weight, 10);
    site.apply(&manifest, &[], 0);

    // Where only the state file differs, the first property stands for it.
    let manifest = format!(
        "haproxy_server {{ 'one': {wanted}, ensure => ready, state_file => {{ 'http' => '{}' }} }}",
        state_file.display()
    );
    assert_says(&site.apply(&manifest, &["--noop"], 0).out, &["state file would be written", "(noop)"]);
    assert!(!state_file.exists(), "noop has written the state file");
    let run = site.apply(&manifest, &[], 2);
    assert_says(&run.out, &["/ensure: web/web1: already ready", "state file written"]);
    assert_says(&fs::read_to_string(&state_file)?, &[" web1 "]);
    site.apply(&manifest, &[], 0);
    Ok(())
}

fn wait_is_asked_in_every_run(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let stage = Stage::start_with(haproxy, "check inter 100ms fall 2 rise 1", |setup| setup);
    let site = Site::on(puppet, &stage);
    let manifest = "haproxy_server { 'web1': ensure => ready, wait => { timeout => 2 } }";
    stage.server("web1").set_health(Health::Good);
    site.apply(manifest, &[], 0);
    stage.server("web1").set_health(Health::Bad);
    stage.http.await_state("web", "web1", (0, 0));
    let run = site.apply(manifest, &[], 4);
    assert_says(&run.err, &["Could not evaluate: http: web/web1", "it is down"]);
    site.apply(manifest, &["--noop"], 0);

    // What is recorded without a change is recorded, too.
    stage.ldap.set_state("directory/ldap1", "maint");
    site.apply("haproxy_server { 'ldap1': ensure => maint, owner => 'alice' }", &[], 0);
    let run = site.apply("haproxy_server { 'ldap1': ensure => ready, owner => 'bob' }", &[], 4);
    assert_says(&run.err, &["Could not evaluate: ldap: directory/ldap1 was taken out by alice"]);
    site.apply("haproxy_server { 'ldap1': ensure => ready, owner => 'alice' }", &[], 2);
    assert_eq!(stage.ldap.row("directory", "ldap1").admin, 0);
    Ok(())
}

fn resource_lists_and_sets(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let stage = Stage::start(haproxy);
    let site = Site::on(puppet, &stage);
    let resource = |words: &[&str]| site.run("resource", &[&["haproxy_server"], words].concat());

    let out = resource(&["web1", "ensure=drain", "--noop"]).ended_with(0).out;
    assert_says(&out, &["web1: would be drain in 1 of 1 backend"]);
    assert_eq!(stage.http.state("web", "web1"), READY);
    let drained = ["web1", "ensure=drain", "weight=200%", "backend=web", "owner=alice", "reason=new disk"];
    let out = resource(&drained).ended_with(0).out;
    assert_says(&out, &["/ensure: web1: drain, weight 200% in 1 of 1 backend", "=> 'drain'"]);
    assert_eq!(stage.http.state("web", "web1"), DRAIN);

    let out = resource(&[]).ended_with(0).out;
    assert_eq!(out.matches("haproxy_server {").count(), 3 + 3 + 6 * 3, "{out}");
    let out = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_says(
        &out,
        &[
            "haproxy_server { 'all_puppet_masters/puppet-i0-svc1': ensure => 'ready', operational_state => 'running',",
            "haproxy_server { 'web/web1': ensure => 'drain', maintenance => 'since ",
            "Z by alice (new disk)', operational_state => 'running',",
        ],
    );
    let out = resource(&["web/web2"]).ended_with(0).out;
    assert!(!out.contains("maintenance"), "{out}");

    let run = resource(&["web9", "ensure=maint"]);
    assert_says(&run.err, &["Could not evaluate: no selected instance has a server 'web9'"]);

    // What nothing is wanted of is looked at, and noted.
    site.apply("haproxy_server { 'web2': audit => 'ensure' }", &[], 0);
    stage.http.set_state("web/web2", "maint");
    let out = site.apply("haproxy_server { 'web2': audit => 'ensure' }", &[], 0).out;
    assert_says(&out, &["/ensure: audit change: previously recorded value 'ready' has been changed to 'maint'"]);
    Ok(())
}

/// A program that notes each request, and says that all is as wanted.
const RECORDER: &str = r#"#!/bin/sh
cat >> requests; echo >> requests
echo '{"changed": false, "failed": false, "msg": "noted", "servers": [], "instances": [], "warnings": []}'
"#;

fn servers_are_restored_to_what_they_were(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let stage = Stage::start(haproxy);
    let site = Site::on(puppet, &stage);
    stage.http.set_state("web/web1", "drain");
    let declared = |state: &str| format!("haproxy_server {{ ['web1', 'web2']: ensure => {state}, owner => 'alice' }}");
    site.apply(&declared("maint"), &[], 2);
    assert_eq!(["web1", "web2"].map(|server| stage.http.state("web", server)), [MAINT; 2]);
    site.apply(&declared("restore"), &[], 2);
    assert_eq!(["web1", "web2"].map(|server| stage.http.state("web", server)), [DRAIN, READY]);
    // There is no record any more.
    site.apply(&declared("restore"), &[], 0);
    assert_eq!(["web1", "web2"].map(|server| stage.http.state("web", server)), [DRAIN, READY]);
    Ok(())
}

fn every_parameter_arrives_as_it_was_given(_: &Haproxy, puppet: Puppet) -> TestResult {
    let bin = Folder::new();
    let site = Site::with_path(puppet, path_with(bin.path(), puppet.path()));
    let requests = bin.join("requests");
    super::site::script(&bin, "haproxy_server", &RECORDER.replace("requests", &requests.display().to_string()));
    site.apply(
        "haproxy_server { 'all of it':
          ensure            => disable,
          server            => ['web1', 'app*/web[2-3]', 7],
          backend           => 'app*',
          address           => ['10.0.0.5', '[::1]:80'],
          instances         => ['http', { name => 'ldap', socket => '/run/haproxy/ldap.sock' }],
          ignore_instances  => ['test-*', 'edge'],
          weight            => 100,
          health            => enabled,
          agent             => disabled,
          drain             => { timeout => 1.5, stable => 1, on_timeout => rollback },
          shutdown_sessions => { over => 1.5 },
          wait              => { timeout => 60, stable => 0, via => ready, need => any },
          guard             => { min_available => '50%' },
          expect            => { admin_state => ready, operational_state => running },
          old_processes     => wait,
          on_missing        => elsewhere_ok,
          on_unreachable    => skip,
          on_failure        => rollback,
          state_file        => { 'http' => '/var/lib/haproxy/http.state' },
          owner             => 'Jörg \"J\" O\\'Neil',
          reason            => \"new disk; 100% \\u2028\",
          expires           => '+2h',
          ignore_owner      => false,
          on_owned          => skip,
          lock_timeout      => 0,
          syslog            => false,
          timeout           => 2.5,
          deadline          => 900,
          noop              => true,
          show_diff         => false,
        }
        haproxy_server { 'web2': ensure => ready, drain => 'no', shutdown_sessions => false, wait => 'yes', noop => true }",
        &[],
        0,
    );
    let requests = fs::read_to_string(requests)?;
    let requests: Vec<Value> = requests.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let all = json!({
        "server": ["web1", "app*/web[2-3]", 7], "state": "maint", "backend": "app*",
        "address": ["10.0.0.5", "[::1]:80"], "instances": ["http", {"name": "ldap", "socket": "/run/haproxy/ldap.sock"}],
        "ignore_instances": ["test-*", "edge"], "weight": 100, "health": "enabled", "agent": "disabled",
        "drain": {"timeout": 1.5, "stable": 1, "on_timeout": "rollback"}, "shutdown_sessions": {"over": 1.5},
        "wait": {"timeout": 60, "stable": 0, "via": "ready", "need": "any"}, "guard": {"min_available": "50%"},
        "expect": {"admin_state": "ready", "operational_state": "running"},
        "old_processes": "wait", "on_missing": "elsewhere_ok", "on_unreachable": "skip", "on_failure": "rollback",
        "state_file": {"http": "/var/lib/haproxy/http.state"}, "owner": "Jörg \"J\" O'Neil",
        "reason": "new disk; 100% \u{2028}", "expires": "+2h", "ignore_owner": false, "on_owned": "skip",
        "lock_timeout": 0, "syslog": false, "timeout": 2.5, "deadline": 900, "dry_run": true, "diff": false,
    });
    let two = json!({
        "server": "web2", "state": "ready", "drain": false, "shutdown_sessions": false, "wait": true, "dry_run": true, "diff": false,
    });
    assert_eq!(requests, [all.clone(), two]);
    // The published schema takes it, and has nothing that is not given here.
    Program::request(&all);
    let schema: Value = serde_json::from_str(&fs::read_to_string(repository().join("schema/request.schema.json"))?)?;
    let names = |object: &Value| object.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&all), names(&schema["properties"]));
    Ok(())
}

fn a_program_that_gives_no_report_is_named(_: &Haproxy, puppet: Puppet) -> TestResult {
    let bin = Folder::new();
    let site = Site::with_path(puppet, path_with(bin.path(), puppet.path()));
    let manifest = "haproxy_server { 'web1': ensure => maint }";
    for (text, sentence) in [
        ("#!/bin/sh\necho 'no such library' >&2; exit 127\n", "gave no report (exit code 127): no such library"),
        ("#!/bin/sh\ncat >/dev/null; echo '{\"changed\": tr'\n", "gave no report (exit code 0): {\"changed\": tr"),
        ("#!/nowhere/sh\n", "cannot be run: No such file or directory"),
    ] {
        let program = super::site::script(&bin, "haproxy_server", text);
        let run = site.apply(manifest, &[], 4);
        assert_says(&run.err, &["Could not evaluate: ", &program.display().to_string(), sentence]);
        assert!(!run.err.contains(".rb:"), "a trace of Ruby:\n{}", run.err);
    }
    Ok(())
}

fn another_version_of_the_program_is_noticed(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let stage = Stage::start(haproxy);
    let host = Host::with([&stage.http]);
    let bin = Folder::new();
    tool::another_version(bin.path(), &host.command());
    let site = Site::with_path(puppet, path_with(bin.path(), puppet.path()));
    let warning =
        concat!("this host has haproxy_server 9.9.9, and the Puppet module was made for ", env!("CARGO_PKG_VERSION"));
    let run = site.apply("haproxy_server { 'web1': ensure => maint }", &[], 2);
    assert_eq!(run.err.matches(warning).count(), 1, "{}{}", run.out, run.err);
    assert_eq!(stage.http.state("web", "web1"), MAINT);
    let same = Site::with_path(puppet, path_with(host.folder(), puppet.path()));
    let run = same.apply("haproxy_server { 'web1': ensure => ready }", &[], 2);
    assert!(!run.err.contains("was made for"), "{}", run.err);
    Ok(())
}
