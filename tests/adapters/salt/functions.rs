//! The execution functions.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::minion::{Minion, Salt};
use super::{DRAIN, MAINT, READY};
use crate::support::program::copy_program;
use crate::support::{Folder, Haproxy, Host, Stage, TestResult, servers, warnings};
use crate::tool::{HOSTILE, TURNING, another_version, ascii, assert_harmless, run, with_program_in};

pub(super) fn functions_do_what_they_say(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start_with(haproxy, "weight 100", |setup| setup);
    let host = Host::with(stage.instances());
    for salt in Salt::versions() {
        let minion = Minion::new(&salt, &host);
        let web = |server| stage.http.state("web", server);

        let report = minion.value(["haproxy_server.maint", "web1", "test=True"]);
        assert_eq!((&report["dry_run"], &report["changed"]), (&json!(true), &json!(true)), "{report}");
        assert_eq!(web("web1"), READY, "a dry run has changed something");

        let report = minion.value([
            "haproxy_server.maint",
            "web1,web2",
            "backend=web",
            "drain={timeout: 5, on_timeout: maint}",
            "guard={min_available: 1}",
            "wait=yes",
            "diff=on",
            "weight=50%",
            "owner=alice",
            "expires=+2h",
            "on_missing=fail_each",
            "instances=http",
            "timeout=5",
        ]);
        assert_eq!(report["changed"], true, "{report}");
        assert!(report["diff"]["after"].as_str().unwrap().contains("web/web2 maint"), "{report}");
        assert_eq!((web("web1"), web("web2"), web("web3")), (MAINT, MAINT, READY));

        let report = minion.value(["haproxy_server.status", "[web1, ldap/web1]", "on_missing=ignore"]);
        assert_eq!((&report["ok"], &report["changed"]), (&json!(false), &json!(false)), "{report}");
        assert_eq!((servers(&report), &report["servers"][0]["owner"]), (vec!["web/web1".to_owned()], &json!("alice")));
        let report = minion.value(["haproxy_server.status"]);
        assert_eq!(servers(&report).len(), 3 + 3 + 18, "a status without servers is about all of them");

        let report = minion.value(["haproxy_server.ready", "web[12]", "owner=alice", "weight=100%", "dry_run=False"]);
        assert_eq!(report["changed"], true, "{report}");
        assert_eq!((web("web1"), web("web2")), (READY, READY));
        assert_eq!(stage.http.stat("web", "web1", "weight"), "100");

        minion.value(["haproxy_server.drain", "server=ldap1", "test=False"]);
        assert_eq!(stage.ldap.state("directory", "ldap1"), DRAIN);
        let report = minion.value(["haproxy_server.apply", "ldap1", "state=enabled", "weight=0"]);
        assert_eq!(warnings(&report), "", "a requested weight of 0 is no surprise: {report}");
        let report = minion.value(["haproxy_server.ready", "ldap1"]);
        assert!(warnings(&report).contains("the weight is 0"), "{report}");
        minion.value(["haproxy_server.apply", "ldap1", "weight=1", "state=ready"]);
        assert_eq!(stage.ldap.state("directory", "ldap1"), READY);
    }
    Ok(())
}

pub(super) fn functions_fail_with_one_sentence(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let host = Host::with(stage.instances());
    for salt in Salt::newest() {
        let minion = Minion::new(&salt, &host);
        let cases: [(&[&str], &str); 8] = [
            (&["maint", "wbe1"], "no selected instance has a server 'wbe1' (did you mean 'web1'?)"),
            (&["maint", "web1", "onmissing=ignore"], "unknown field 'onmissing'; did you mean 'on_missing'?"),
            (&["maint"], "'server'"),
            (&["maint", "web1", "test=maybe"], "neither true nor false"),
            (&["maint", "web1", "state=ready"], "haproxy_server.maint says the state already"),
            (&["status", "web1", "weight=5"], "haproxy_server.status changes nothing"),
            (&["ready", "web1", "drain=True"], "'drain'"),
            (&["maint", "web1; shutdown"], "'web1; shutdown'"),
        ];
        for (words, sentence) in cases {
            let function = format!("haproxy_server.{}", words[0]);
            let said = minion.failure([&[function.as_str()], &words[1..]].concat());
            assert!(said.contains(sentence), "{words:?} on {}: {said}", salt.version);
        }
        // The first failure is in the report's own sentence; the second is said as well.
        stage.ldap.set_state("directory/ldap1", "maint");
        let said = minion.failure(["haproxy_server.maint", "web*,ldap*", "guard={min_available: 3}"]);
        assert!(said.contains("the backend web has") && said.contains("the backend directory has"), "{said}");
        stage.ldap.set_state("directory/ldap1", "ready");
        assert!(
            stage.http.rows().values().all(|row| (row.admin, row.op) == READY),
            "a refused run has changed something"
        );

        let place = Folder::new();
        copy_program(&place.join("haproxy_server"));
        // Salt itself needs some of /usr/bin.
        let instances = format!("instances={}", stage.http.address());
        let mut command = minion.command(["haproxy_server.maint", "web1", &instances]);
        command.env("PATH", "/usr/bin:/bin");
        run(&mut with_program_in(&["/usr/local/bin"], &place.join("haproxy_server"), &command)).ended_with(0);
        assert_eq!(stage.http.state("web", "web1"), MAINT);
        stage.http.set_state("web/web1", "ready");

        let liar = json!({
            "changed": false, "failed": true, "msg": HOSTILE, "instances": [], "error": null,
            "servers": [{"error": {"msg": HOSTILE, "instance": HOSTILE}}],
        });
        for text in [ascii(&liar), HOSTILE.to_owned()] {
            let script = minion.folder().write("liar.sh", &format!("#!/bin/sh\ncat <<'END'\n{text}\nEND\n"));
            let liar = place.join("liar");
            run(Command::new("install").args(["-m", "755"]).args([&script, &liar])).ended_with(0);
            minion.use_executable(&liar);
            let mut command = minion.command(["haproxy_server.status"]);
            let ran = run(command.arg("--out=nested")).ended_with(1);
            assert!(ran.err.contains("\\u{1b}[31m\\u{7f}") && ran.err.contains("\\u{202e}"), "{ran:?}");
            assert_harmless(&ran);
        }
        minion.use_executable(&host.command());
        minion.value(["haproxy_server.maint", "web1", &format!("reason={TURNING}"), "owner=alice"]);
        for words in [["haproxy_server.status", "web1"], ["haproxy_server.ready", "web1"]] {
            let ran = run(minion.command(words).arg("--out=nested"));
            assert!(format!("{}{}", ran.out, ran.err).contains("\\u{202e}"), "{ran:?}");
            assert_harmless(&ran);
        }
        minion.value(["haproxy_server.ready", "web1", "owner=alice"]);

        // Another version works, and a warning names both.
        let other = Folder::new();
        minion.use_executable(&another_version(other.path(), &host.command()));
        let warning = concat!(
            "this minion has haproxy_server 9.9.9, and the Salt modules were made for ",
            env!("CARGO_PKG_VERSION")
        );
        let report = minion.value(["haproxy_server.status", "web1"]);
        assert_eq!(report["warnings"], json!([warning]), "{report}");
        let said = minion.failure(["haproxy_server.maint", "wbe1"]);
        assert!(said.contains(warning), "{said}");

        minion.use_executable(Path::new("/nowhere/haproxy_server"));
        let said = minion.failure(["haproxy_server.status"]);
        assert!(said.contains("the program '/nowhere/haproxy_server' is not on this minion"), "{said}");
        minion.use_executable(Path::new("/bin/cat"));
        let said = minion.failure(["haproxy_server.status"]);
        assert!(said.contains("gave no report, ended with exit code 0"), "{said}");
    }
    Ok(())
}
