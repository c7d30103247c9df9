//! What a return through drain costs: measured, not tested. docs/performance.md has the numbers.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::load::{COMMON, Late, Returns, Way};
use crate::support::{Haproxy, Load, PATIENCE, Test, TestResult, Visits, eventually, tests};

pub(crate) fn tests() -> Vec<Test> {
    tests![of_a_return, of_an_application_that_is_late, of_slowstart]
}

/// How long the phases of one return took, in seconds.
#[derive(Debug, Clone, Copy)]
struct Times {
    until_ready: f64,
    in_all: f64,
}

const RUNS: usize = 5;

/// Puts the server back in this way, and watches it in HAProxy meanwhile.
fn put_back(late: &Late, via: &str, returns: Returns) -> Times {
    let back = late.ask(&json!({ "state": "ready", "wait": { "timeout": 120, "via": via } }));
    let begun = Instant::now();
    let mut running = late.put_back(&back, returns);
    let mut until_ready = None;
    while !running.ended() {
        let is_ready = late.instances[0].row("app", "s1").admin == 0;
        until_ready = until_ready.or(is_ready.then(|| begun.elapsed().as_secs_f64()));
        thread::sleep(Duration::from_millis(10));
    }
    let run = running.wait();
    assert_eq!(run.report()["failed"], json!(false), "{}", run.stdout);
    let in_all = run.elapsed.as_secs_f64();
    Times { until_ready: until_ready.unwrap_or(in_all), in_all }
}

/// The median of some returns, by the time they took in all.
fn median(late: &Late, via: &str, returns: Returns) -> Times {
    let mut times: Vec<Times> = (0..RUNS)
        .map(|_| {
            late.stop();
            put_back(late, via, returns)
        })
        .collect();
    times.sort_by(|one, other| one.in_all.total_cmp(&other.in_all));
    times[RUNS / 2]
}

fn of_a_return(haproxy: &Haproxy) -> TestResult {
    for options in ["check inter 200ms", "check inter 1s", "check inter 2s", "check inter 5s", ""] {
        let late = Late::start(haproxy, Way { options, ..COMMON });
        let [drain, ready] = ["drain", "ready"].map(|via| median(&late, via, Returns::InTime));
        println!(
            "| {} | {} | {:.1} s | {:.1} s |",
            haproxy.name,
            if options.is_empty() { "no check" } else { options },
            drain.in_all,
            ready.in_all
        );
    }
    Ok(())
}

fn of_an_application_that_is_late(haproxy: &Haproxy) -> TestResult {
    for options in ["check inter 200ms", "check inter 2s"] {
        for via in ["drain", "ready"] {
            let late = Late::start(haproxy, Way { options, ..COMMON });
            late.stop();
            let mut load = Load::of(late.fronts[0].address(), &[Visits::Anew; 3], Duration::from_millis(10));
            eventually(PATIENCE, "a load", || (load.served() > 20).then_some(()));
            let times = put_back(&late, via, Returns::Late(Duration::from_secs(3)));
            load.stop();
            println!(
                "| {} | {options} | {via} | {:.1} s | {} | {} | {} |",
                haproxy.name,
                times.in_all,
                load.lost().len(),
                late.instances[0].stat("app", "s1", "wretr"),
                load.served()
            );
        }
    }
    Ok(())
}

fn of_slowstart(haproxy: &Haproxy) -> TestResult {
    for (options, returns) in [
        ("check inter 1s slowstart 10s", Returns::InTime),
        ("check inter 1s slowstart 10s", Returns::Late(Duration::from_secs(4))),
        ("slowstart 10s", Returns::InTime),
    ] {
        let late = Late::start(haproxy, Way { options, ..COMMON });
        for via in ["drain", "ready"] {
            late.stop();
            let times = put_back(&late, via, returns);
            println!(
                "| {} | {options} | {returns:?} | {via} | {:.1} s | {:.1} s |",
                haproxy.name,
                times.until_ready,
                times.in_all - times.until_ready
            );
        }
    }
    Ok(())
}
