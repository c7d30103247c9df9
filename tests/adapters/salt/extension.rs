//! The modules as an extension that pip installs.

use std::fs;

use super::minion::{Minion, Salt, modules};
use super::{MAINT, READY};
use crate::support::{Folder, Haproxy, Host, Stage, TestResult, repository};
use crate::tool::{run, tool};

pub(super) fn extension_comes_with_pip(haproxy: &Haproxy) -> TestResult {
    let version = |manifest: &str| -> String {
        let text = fs::read_to_string(manifest).unwrap();
        text.lines().find_map(|line| line.strip_prefix("version = ")).unwrap().to_owned()
    };
    let root = repository();
    assert_eq!(
        version(&root.join("Cargo.toml").display().to_string()),
        version(&modules().join("pyproject.toml").display().to_string())
    );
    let stage = Stage::start(haproxy);
    let host = Host::with(stage.instances());
    for salt in Salt::versions() {
        let folder = Folder::new();
        // A copy, because a build leaves things where it works.
        run(tool("cp").arg("-r").arg(modules()).arg(folder.join("source"))).ended_with(0);
        let pip = |words: &[&str]| {
            let mut command = salt.tool("pip");
            command.args(words).args(["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]);
            run(command.current_dir(folder.path())).ended_with(0)
        };
        pip(&["wheel", "--no-build-isolation", "--wheel-dir=wheel", "./source"]);
        let wheel = fs::read_dir(folder.join("wheel"))?.next().unwrap()?.path();
        pip(&["install", "--target=site", wheel.to_str().unwrap()]);

        let listed = run(tool("python3").args(["-m", "zipfile", "-l"]).arg(&wheel)).ended_with(0).out;
        for path in [
            "modules/haproxy_server.py",
            "states/haproxy_server.py",
            "beacons/haproxy_server.py",
            "grains/haproxy_server.py",
            "files/haproxy_server/rolling_maintenance.sls",
            "files/haproxy_server/install.sls",
            "LICENSE-MIT",
        ] {
            assert!(listed.contains(path), "{path} is not in the wheel: {listed}");
        }

        let minion = Minion::bare(&salt, &host);
        let without = minion.call(["haproxy_server.maint", "web1"]);
        assert!(without.code != 0 && without.err.contains("'haproxy_server.maint' is not available"), "{without:?}");
        let with_it = |words: &[&str]| run(minion.command(words).env("PYTHONPATH", folder.join("site"))).ended_with(0);
        stage.http.set_state("web/web1", "ready");
        with_it(&["haproxy_server.drain", "web1"]);
        with_it(&["state.single", "haproxy_server.maint", "web1"]);
        assert_eq!(stage.http.state("web", "web1"), MAINT);
        let grain = with_it(&["grains.get", "haproxy_instances"]).out;
        for instance in stage.instances() {
            assert!(grain.contains(&format!("\"name\": \"{}\"", instance.name())), "{grain}");
        }
        assert!(grain.contains("\"version\": "), "{grain}");

        // The state files that came with it.
        minion.configure(&format!("[{}]", folder.join("site/saltext/haproxy_server/files").display()), "");
        let pillar = "pillar={haproxy_server: {request: {server: web1, state: ready}}}";
        with_it(&["state.apply", "haproxy_server.apply", pillar]);
        assert_eq!(stage.http.state("web", "web1"), READY);
    }
    Ok(())
}
