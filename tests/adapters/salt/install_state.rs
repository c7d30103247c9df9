//! The state file that installs the program.

use std::fs;

use serde_json::json;

use super::minion::{Minion, Salt, modules, value};
use crate::support::program::copy_program;
use crate::support::{Haproxy, Host, Stage, TestResult};
use crate::tool::{run, tool};

pub(super) fn the_program_is_installed_once(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let host = Host::with(stage.instances());
    let architecture = std::env::consts::ARCH;
    for salt in Salt::newest() {
        let minion = Minion::bare(&salt, &host);
        let states = minion.folder().join("states");
        minion.configure(&format!("[{}, {}]", states.display(), modules().display()), "");
        let source = states.join("haproxy_server/files").join(architecture);
        fs::create_dir_all(&source)?;
        copy_program(&source.join("haproxy_server"));
        let sum = run(tool("sha256sum").arg(source.join("haproxy_server"))).ended_with(0).out;
        let sum = format!("sha256={}", sum.split(' ').next().unwrap());
        let to = minion.folder().join("installed");
        let master = format!("salt://haproxy_server/files/{architecture}/haproxy_server");
        let elsewhere = source.join("haproxy_server").display().to_string();
        let apply = |version: &str, from: (&str, &str), words: &[&str], code: i32| {
            let (source, sum) = from;
            let hashes = json!({architecture: sum});
            let install = json!({"path": to, "version": version, "source": source, "source_hash": hashes});
            let pillar = format!("pillar={}", json!({"haproxy_server": {"install": install}}));
            let ran = minion.call([&["state.apply", "haproxy_server.install", &pillar], words].concat());
            let results = value(&ran.ended_with(code));
            let of = |id: &str| {
                let found = results.as_object().unwrap().values().find(|result| result["__id__"] == id);
                found.unwrap_or_else(|| panic!("no {id} in {results}")).clone()
            };
            (of("the program haproxy_server"), of("the version of haproxy_server"))
        };
        let (program, _) = apply("1.0.0", (&master, &sum), &["test=True"], 0);
        assert!(program["result"].is_null() && !to.exists(), "{program}");
        let (program, version) = apply("1.0.0", (&master, &sum), &[], 0);
        assert_eq!((&program["result"], &version["result"]), (&json!(true), &json!(true)), "{program}{version}");
        assert_ne!(program["changes"], json!({}));
        let (program, version) = apply("1.0.0", (&master, &sum), &[], 0);
        assert_eq!((&program["changes"], &version["changes"]), (&json!({}), &json!({})), "{program}{version}");
        let (_, version) = apply("9.9.9", (&master, &sum), &[], 1);
        assert_eq!(version["result"], false, "{version}");
        fs::remove_file(&to)?;
        // Salt compares the checksum of what does not come from its master.
        let (program, _) = apply("1.0.0", (&elsewhere, &format!("sha256={}", "0".repeat(64))), &[], 1);
        assert!(program["result"] == false && !to.exists(), "{program}");
        let (program, _) = apply("1.0.0", (&elsewhere, &sum), &[], 0);
        assert!(program["result"] == true && to.exists(), "{program}");
    }
    Ok(())
}
