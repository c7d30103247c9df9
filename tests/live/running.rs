//! The program on the stage, only so far that the tap and the runs are known to work.

use serde_json::json;

use crate::support::{Haproxy, Program, Recorder, Stage, Test, TestResult, tests};

pub(crate) fn tests() -> Vec<Test> {
    tests![every_way_to_ask_is_recorded]
}

fn every_way_to_ask_is_recorded(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let recorder = Recorder::on(&stage.puppet);
    let server = "i0_puppet_masters/puppet-i0-svc1";
    let request = json!({"server": server, "state": "maint", "instances": [recorder.address()]});
    let words = [format!("server={server}"), "state=maint".to_owned(), format!("instances={}", recorder.address())];
    let ways = [
        Program::request(&request),
        Program::file(&stage.folder.join("request.json"), &request),
        Program::words(words),
    ];
    for (number, program) in ways.into_iter().enumerate() {
        recorder.clear();
        let run = program.arg("--detailed-exitcodes").run();
        let report = run.report();
        assert_eq!(report["failed"], false, "{report} {}", run.stderr);
        assert_eq!(report["changed"], number == 0, "{report}");
        assert_eq!(run.code, Some(if number == 0 { 2 } else { 0 }));
        let sent: &[&str] =
            if number == 0 { &["set server i0_puppet_masters/puppet-i0-svc1 state maint"] } else { &[] };
        assert_eq!(recorder.changing_commands(), sent);
        assert!(!recorder.lines().is_empty());
        assert_eq!(stage.puppet.state("i0_puppet_masters", "puppet-i0-svc1"), (1, 0));
    }
    Ok(())
}
