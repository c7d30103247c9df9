//! The module as an archive, and what the Forge expects in it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::On;
use super::site::{Puppet, Site, assert_says, module};
use crate::support::{Folder, Haproxy, TestResult, repository};
use crate::tool;

pub(crate) fn tests() -> Vec<On> {
    [on_each![archive_is_a_module], on_newest![papers_are_in_order, reference_is_generated]].concat()
}

/// Where the pages of the repository are read by those who have the module alone.
const REPOSITORY: &str = "https://github.com/lbops/haproxy_server/blob/main/";

/// Every file below a folder, by its path from there.
fn files(folder: &std::path::Path) -> BTreeSet<String> {
    let found = tool::run(tool::tool("find").current_dir(folder).args([".", "-type", "f"])).ended_with(0).out;
    found.lines().map(|line| line.trim_start_matches("./").to_owned()).collect()
}

fn archive_is_a_module(_: &Haproxy, puppet: Puppet) -> TestResult {
    let (folder, site) = (Folder::new(), Site::with_path(puppet, puppet.path()));
    let build = || tool::run(tool::tool(module().join("build")).arg(folder.path())).ended_with(0).out;
    let archive = build();
    let archive = archive.trim();
    assert!(archive.ends_with(&format!("/lbops-haproxy_server-{}.tar.gz", env!("CARGO_PKG_VERSION"))), "{archive}");
    let first = fs::read(archive)?;
    build();
    assert!(first == fs::read(archive)?, "the same sources give other bytes");

    let target = folder.join("modules");
    let mut install = puppet.tool("puppet");
    install.args(["module", "install", "--ignore-dependencies", "--target-dir"]).arg(&target).arg(archive);
    let folders = [("--confdir", "conf"), ("--vardir", "var"), ("--codedir", "code")];
    install.args(folders.iter().flat_map(|(option, name)| [(*option).into(), site.folder.join(name).into_os_string()]));
    tool::run(install.env("HOME", site.folder.path())).ended_with(0);
    let installed = files(&target.join("haproxy_server"));
    let left_out = |file: &String| file.starts_with('.') || file.starts_with("spec/") || file == "build";
    let wanted = files(&module()).into_iter().filter(|file| !left_out(file));
    assert_eq!(installed, wanted.collect());
    Ok(())
}

fn papers_are_in_order(_: &Haproxy, _: Puppet) -> TestResult {
    let read = |name: &str| fs::read_to_string(module().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(read("LICENSE"), fs::read_to_string(repository().join("LICENSE-APACHE"))?);
    assert_says(&read("CHANGELOG.md"), &[&format!("\n## {}", env!("CARGO_PKG_VERSION"))]);

    let metadata: Value = serde_json::from_str(&read("metadata.json"))?;
    let named = |list: &str, key: &str| -> Vec<String> {
        let entries = metadata[list].as_array().into_iter().flatten();
        entries.filter_map(|entry| entry[key].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(named("requirements", "name"), ["puppet", "openvox"]);
    assert_eq!(named("operatingsystem_support", "operatingsystem"), ["Debian", "Ubuntu", "RedHat"]);

    // On the Forge there is nothing beside the module.
    for page in ["README.md", "CHANGELOG.md"] {
        let text = read(page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if let Some(path) = target.strip_prefix(REPOSITORY) {
                let (file, anchor) = path.split_once('#').unwrap_or((path, ""));
                let linked = fs::read_to_string(repository().join(file))?.to_lowercase();
                let heading = anchor.replace('-', " ");
                let is_there = linked.lines().any(|line| line.starts_with('#') && line.ends_with(&heading));
                assert!(anchor.is_empty() || is_there, "{page} links to {target}, which has no such heading");
            } else {
                assert!(
                    target.starts_with("https://") || target.starts_with('#'),
                    "{page} has a relative link: {target}"
                );
            }
        }
    }
    Ok(())
}

/// `UPDATE_SCHEMA=1` writes it anew.
fn reference_is_generated(_: &Haproxy, puppet: Puppet) -> TestResult {
    // Versions of puppet-strings lay it out differently; the newer one counts.
    if !puppet.is_newest() {
        return Ok(());
    }
    let folder = Folder::new();
    let out = folder.join("REFERENCE.md");
    // It takes the paths as they are given, and leaves a database where it is run.
    for name in ["lib", "manifests", "plans", "tasks"] {
        std::os::unix::fs::symlink(module().join(name), folder.join(name))?;
    }
    fs::copy(module().join("metadata.json"), folder.join("metadata.json"))?;
    let mut strings = puppet.tool("puppet");
    strings.args(["strings", "generate", "--format", "markdown", "--out"]).arg(&out).args([
        "lib/puppet/type/haproxy_server.rb",
        "lib/puppet/provider/haproxy_server/haproxy_server.rb",
        "manifests/init.pp",
        "plans/rolling_maintenance.pp",
        "tasks/init.json",
    ]);
    tool::run(strings.current_dir(folder.path()).env("HOME", folder.path())).ended_with(0);
    let (generated, kept) = (fs::read_to_string(&out)?, module().join("REFERENCE.md"));
    if puppet.updates() {
        fs::write(&kept, generated)?;
    } else {
        let same = generated == fs::read_to_string(kept)?;
        assert!(
            same,
            "REFERENCE.md differs from the sources: run UPDATE_SCHEMA=1 cargo test --test adapters -- reference"
        );
    }
    Ok(())
}
