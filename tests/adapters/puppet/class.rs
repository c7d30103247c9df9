//! The class, which brings the program and the servers of Hiera, and the fact.

use std::fs;

use serde_json::{Value, json};

use super::On;
use super::site::{Puppet, Site, assert_says, path_with, script};
use crate::support::{Folder, Haproxy, Host, Instance, Stage, TestResult};
use crate::tool;

pub(crate) fn tests() -> Vec<On> {
    on_each![class_installs_a_file, class_installs_a_package, fact_lists_the_instances]
}

fn class_installs_a_file(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: the program's file belongs to root");
        return Ok(());
    }
    let stage = Stage::start(haproxy);
    let host = Host::with(stage.instances());
    let installed = Folder::new();
    let site = Site::with_path(puppet, path_with(installed.path(), puppet.path()));
    let path = installed.join("haproxy_server");
    let sum = tool::run(tool::tool("sha256sum").arg(host.command())).ended_with(0).out;
    let class = |source: &str, sum: &str| {
        let attributes = format!("source => '{source}', sha256 => '{sum}', path => '{}'", path.display());
        format!("class {{ 'haproxy_server': {attributes} }}")
    };
    let source = host.command().display().to_string();
    site.hiera("haproxy_server::servers: {web1: {ensure: maint, owner: alice}, web2: {ensure: ready}}\n");

    let run = site.apply(&class(&source, &sum[..64]), &["--noop"], 0);
    let unknown = puppet.logged("Haproxy_server[web1]/ensure: unknown until haproxy_server is installed (noop)");
    assert_says(&run.out, &["]/ensure: ", "(noop)", &unknown]);
    assert!(run.err.is_empty() && !path.exists(), "{}", run.err);

    let run = site.apply(&class(&source, &sum[..64]), &[], 2);
    assert_says(&run.out, &["Haproxy_server[web1]/ensure: web1: maint in 1 of 1 backend on 1 of 3 instances"]);
    assert_eq!(stage.http.row("web", "web1").admin, 1);
    site.apply(&class(&source, &sum[..64]), &[], 0);
    site.apply(&class(&source, &sum[..64]), &["--noop"], 0);

    // Another file than the one that was asked for is not installed.
    fs::write(&path, "damaged")?;
    site.apply(&class(&source, &"0".repeat(64)), &[], 4);
    assert_eq!(fs::read_to_string(&path)?, "damaged");
    let bare = "class { 'haproxy_server': source => 'https://files.example/haproxy_server' }";
    assert_says(&site.apply(bare, &[], 1).err, &["needs its checksum in 'sha256'"]);
    Ok(())
}

fn class_installs_a_package(_: &Haproxy, puppet: Puppet) -> TestResult {
    // Nothing is installed on this machine: noop shows what would be.
    let site = Site::with_path(puppet, std::env::var_os("PATH").expect("a PATH"));
    let out = site.apply("include haproxy_server", &["--noop"], 0).out;
    assert_says(&out, &["Package[haproxy-server]/ensure: "]);
    let version = "class { 'haproxy_server': package => 'haproxy-server', package_ensure => '1.0.0' }";
    site.apply(version, &["--noop"], 0);
    assert_says(&site.report(), &["property: ensure", "desired_value: 1.0.0"]);
    Ok(())
}

fn fact_lists_the_instances(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let stage = Stage::start(haproxy);
    let fact = |site: &Site| -> Value {
        let out = tool::run(site.puppet("facts").args(["show", "haproxy_instances"])).ended_with(0).out;
        let facts: Value = serde_json::from_str(&out).expect("facts");
        facts["haproxy_instances"].clone()
    };
    let shown = |instance: &Instance| json!({"version": haproxy.full_version, "socket": instance.address()});
    let all = stage.instances().map(|instance| (instance.name().to_owned(), shown(instance)));
    assert_eq!(fact(&Site::on(puppet, &stage)), Value::Object(all.into_iter().collect()));
    // Puppet shows no value as an empty one.
    let none = json!("");
    assert_eq!(fact(&Site::with_path(puppet, puppet.path())), none, "without the program");

    // A program that cannot run does not spoil the facts.
    let bin = Folder::new();
    let site = Site::with_path(puppet, path_with(bin.path(), puppet.path()));
    script(&bin, "haproxy_server", "#!/bin/sh\necho 'no such library' >&2; exit 127\n");
    assert_eq!(fact(&site), none);
    Ok(())
}
