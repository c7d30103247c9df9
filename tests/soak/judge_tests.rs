//! The judge itself: it finds each kind of lie, and nothing in the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::app::Request;
use super::judge::{Ended, Judged, Round};
use super::reader::{self, Row, Rows, Sample};
use super::request::Asked;
use super::stage::SERVERS;
use super::trouble::{Trouble, What};
use crate::support::{Haproxy, Run, Test, TestResult, tests};

pub(crate) fn tests() -> Vec<Test> {
    tests![every_lie_is_found, what_others_did_is_no_lie, half_a_state_file_is_found]
}

/// A round in which `s1` went to maint after a drain, as it is told and as it was.
struct Story {
    asked: Value,
    report: Value,
    code: i32,
    took: Duration,
    before: Rows,
    after: Rows,
    samples: Vec<Rows>,
    late: Option<Duration>,
    /// What somebody else does, and whether after the end of the run.
    trouble: Option<(What, bool)>,
}

/// What makes a story untrue, and what the judge says to it.
type Lie = (&'static str, fn(&mut Story), &'static str);

fn row(admin: u32, op: u32) -> Row {
    Row { admin, op, weight: 100 }
}

fn set(rows: &mut Rows, server: &str, row: Row) {
    rows.insert(server.to_owned(), row);
}

impl Story {
    fn new() -> Self {
        let mut before: Rows = SERVERS.iter().map(|server| ((*server).to_owned(), row(0, 2))).collect();
        // It would break the guard of its own backend.
        before.insert("tracked/t1".to_owned(), row(1, 0));
        let mut after = before.clone();
        after.insert("app/s1".to_owned(), row(1, 0));
        after.insert("tracked/t1".to_owned(), row(3, 0));
        let state = |admin: &str, op: &str, flags: u32| json!({ "admin_state": admin, "operational_state": op, "weight": 100, "admin_flags": flags });
        let report = json!({
            "failed": false, "changed": true, "dry_run": false, "warnings": [],
            "servers": [{
                "instance": "one", "backend": "app", "server": "s1", "changed": true, "failed": false,
                "before": state("ready", "running", 0), "after": state("maint", "stopped", 1),
                "commands": ["set server app/s1 state drain", "set server app/s1 state maint"],
            }],
            "instances": [{ "name": "one", "changed": true, "failed": false }],
        });
        let asked = json!({
            "server": "app/s1", "state": "maint", "drain": { "timeout": 1.0 }, "guard": { "min_available": 3 },
            "timeout": 1.0, "lock_timeout": 1.0,
        });
        Self {
            asked,
            report,
            code: 0,
            took: Duration::from_millis(10),
            samples: vec![before.clone(), after.clone()],
            before,
            after,
            late: None,
            trouble: None,
        }
    }

    fn judge(self) -> Result<(), String> {
        let to = Instant::now();
        let request = |late| Request { at: to + late, instance: "one".to_owned(), server: "app/s1".to_owned() };
        let asked = Asked { request: self.asked, detailed: false, by_user: false, after: Duration::ZERO };
        let run = Run { code: Some(self.code), elapsed: self.took, stdout: String::new(), stderr: String::new() };
        let ended =
            [Ended { asked, run, from: to.checked_sub(self.took).expect("a past"), to, report: Some(self.report) }];
        let begin = to.checked_sub(self.took).expect("a past");
        let when = |is_after| if is_after { to + Duration::from_secs(1) } else { to - self.took };
        let begun = self.trouble.iter().map(|(_, is_after)| (0, when(*is_after))).collect();
        let troubles: Vec<Trouble> =
            self.trouble.into_iter().map(|(what, _)| Trouble { after: Duration::ZERO, site: 0, what }).collect();
        let samples = self.samples.into_iter().map(|rows| Sample { from: to, to, rows }).collect();
        Round {
            before: &BTreeMap::from([("one", self.before)]),
            after: &BTreeMap::from([("one", self.after)]),
            samples: &BTreeMap::from([("one", samples)]),
            requests: &self.late.map(request).into_iter().collect::<Vec<_>>(),
            troubles: &troubles,
            begun: &begun,
            ended_early: &BTreeSet::new(),
            names: &["one"],
            ended: &ended,
            begin,
            end: to,
            with_old_processes: &[],
        }
        .judge(&mut Judged::default())
    }
}

fn every_lie_is_found(_: &Haproxy) -> TestResult {
    Story::new().judge()?;
    let lies: [Lie; 11] = [
        ("it is not in maint", |it| set(&mut it.after, "app/s1", row(8, 2)), "is not maint"),
        ("it was something else before", |it| set(&mut it.before, "app/s1", row(8, 2)), "but it was"),
        (
            "it is something else after a failure",
            |it| {
                it.report["failed"] = json!(true);
                it.report["error"] = json!({ "kind": "not_drained" });
                it.code = 1;
                it.after.insert("app/s1".into(), row(8, 2));
            },
            "but it is",
        ),
        (
            "it has changed all the same",
            |it| {
                it.report["changed"] = json!(false);
                it.report["instances"][0]["changed"] = json!(false);
                it.report["servers"][0]["changed"] = json!(false);
                it.report["servers"][0]["commands"] = json!([]);
            },
            "not 'changed'",
        ),
        ("another one has changed", |it| set(&mut it.after, "web/w1", row(1, 0)), "no report has"),
        ("a request comes after the drain", |it| it.late = Some(Duration::from_millis(1)), "got a request"),
        ("the guard is broken", |it| set(&mut it.samples[1], "app/s2", row(1, 0)), "2 usable, not 3"),
        ("the exit code is another", |it| it.code = 1, "exit code"),
        ("it takes too long", |it| it.took = Duration::from_secs(100), "its own time-outs allow"),
        (
            "there is no cause for the failure",
            |it| {
                it.report["failed"] = json!(true);
                it.report["error"] = json!({ "kind": "locked" });
                it.code = 1;
            },
            "nothing here explains",
        ),
        (
            "a dry run has changed it",
            |it| {
                it.asked["dry_run"] = json!(true);
                it.report["dry_run"] = json!(true);
            },
            "a dry run has changed",
        ),
    ];
    for (lie, tell, expected) in lies {
        let mut story = Story::new();
        tell(&mut story);
        let found = story.judge().err().unwrap_or_else(|| "ok".to_owned());
        assert!(found.contains(expected), "{lie}: {found}");
    }
    Ok(())
}

fn what_others_did_is_no_lie(_: &Haproxy) -> TestResult {
    let after_others: [What; 3] =
        [What::Reload, What::Kill(Duration::ZERO), What::Command { server: "app/s1".to_owned(), line: String::new() }];
    for what in after_others {
        let mut story = Story::new();
        story.after.insert("app/s1".to_owned(), row(0, 2));
        story.after.insert("tracked/t1".to_owned(), row(0, 2));
        story.late = Some(Duration::from_secs(3));
        // Before the end of the run: it may have been read back before.
        story.trouble = Some((what.clone(), false));
        story.judge()?;
        // After its end: until then it must be as reported.
        for (is_true, seen) in [(true, row(1, 0)), (false, row(8, 2))] {
            let mut story = Story::new();
            set(&mut story.after, "app/s1", row(0, 2));
            set(&mut story.after, "tracked/t1", row(0, 2));
            set(&mut story.samples[0], "app/s1", seen);
            story.trouble = Some((what.clone(), true));
            assert_eq!(story.judge().is_ok(), is_true, "{what:?}");
        }
    }
    // What happens to us is no excuse.
    let mut story = Story::new();
    story.after.insert("app/s1".to_owned(), row(0, 2));
    let what = What::Signal { run: 0, signal: Signal::SIGTERM };
    story.trouble = Some((what, false));
    assert!(story.judge().is_err());
    Ok(())
}

fn half_a_state_file_is_found(haproxy: &Haproxy) -> TestResult {
    let instance = crate::support::Instance::start(haproxy, "half", "backend app\n    server s1 127.0.0.1:9\n");
    let whole = instance.raw("show servers state").trim_end().to_owned() + "\n";
    assert_eq!(reader::state_file(&whole)?.len(), 1);
    for end in 0..whole.len() {
        let found = reader::state_file(&whole[..end]);
        // A file without any row is a whole one.
        assert!(found.as_ref().is_err() || found == Ok(Rows::new()), "{:?}: {found:?}", &whole[..end]);
    }
    Ok(())
}
