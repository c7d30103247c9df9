//! Under load: servers go out and come back a hundred times, and no client notices.

use std::time::Duration;

use serde_json::json;

use crate::support::{Haproxy, Load, PATIENCE, Program, Stage, Test, TestResult, eventually, tests};

pub(crate) fn tests() -> Vec<Test> {
    tests![a_hundred_cycles_lose_not_one_request]
}

/// How often the server goes out and comes back.
const CYCLES: usize = 100;

fn a_hundred_cycles_lose_not_one_request(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start_with(haproxy, "check inter 20ms rise 1 fall 3", |setup| setup);
    let at = json!(stage.http.address());
    eventually(PATIENCE, "first checks", || (stage.server("web1").checks() > 3).then_some(()));
    let mut load = Load::start(stage.frontend("web"), 8, Duration::from_millis(4));
    eventually(PATIENCE, "a load", || (load.served() > 50).then_some(()));
    let (mut taken_out, before) = (0, stage.server("web1").requests());
    for cycle in 0..CYCLES {
        let out = json!({ "server": "web1", "state": "maint", "drain": { "timeout": 20 },
            "guard": { "min_available": 2 }, "instances": at });
        let report = Program::request(&out).report();
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "cycle {cycle}: {report}");
        let (state, served) = (stage.http.state("web", "web1"), stage.server("web1").requests());
        assert_eq!(state, (1, 0), "cycle {cycle}");
        taken_out += usize::from(stage.server("web1").requests() == served);
        let back = json!({ "server": "web1", "state": "ready", "wait": { "timeout": 20 }, "instances": at });
        let report = Program::request(&back).report();
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(true)), "cycle {cycle}: {report}");
        let lost = load.lost();
        assert!(lost.is_empty(), "cycle {cycle}: {} requests were lost: {lost:?}", lost.len());
    }
    load.stop();
    let (served, lost) = (load.served(), load.lost());
    assert!(lost.is_empty(), "{} requests were lost: {lost:?}", lost.len());
    // The load was one, on all servers, and the server took its share in between.
    assert!(served > 20 * CYCLES, "{served} requests");
    assert!(stage.server("web1").requests() > before, "the server was back in between");
    assert!(stage.server("web2").requests() > CYCLES && stage.server("web3").requests() > CYCLES);
    assert_eq!(taken_out, CYCLES, "nothing came while it was out");
    Ok(())
}
