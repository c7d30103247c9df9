//! The defects that this program has had in the work on instances, one scenario each.

use std::time::Duration;

use super::scene::{
    cut_off, fails, is_warned, polls_of, ready, reload, script, somebody, told, tracking, unproven, whole, with_flags,
    with_sessions, without_check,
};
use super::{Outcome, Script, request, run};
use crate::act::model::{Answer, Change, Entry, Event, Fate, Memory, Modelled, Turn};
use crate::act::target::Target;
use crate::model::error::ErrorKind;
use crate::model::goal::Switch;
use crate::model::server::ServerState;
use crate::model::state::{AdminFlags, AdminState};

/// What once went wrong, and what is right.
struct Case {
    /// What went wrong.
    defect: &'static str,
    /// The request, without its servers.
    words: &'static [&'static str],
    /// What happens, by instance.
    scripts: Vec<Script>,
    /// What becomes of each server: its state, whether it is changed, has failed, and is rolled back.
    expected: &'static [&'static str],
    /// What else is so.
    also: fn(&Outcome) -> bool,
}

const RELOADED: Event = Event::Reload(Memory::Nothing, Change::Nothing);

/// A process takes over that has a session on the first server.
fn reload_with_session(ends_after: u32) -> Turn {
    Turn { before: vec![RELOADED, Event::SessionBegins(0, ends_after)], ..whole() }
}

/// Tells whether no command of the run took the first server out while it had a session.
fn was_drained(outcome: &Outcome, instance: usize) -> bool {
    let mut log = outcome.instances[instance].haproxy().log.iter();
    let to_maint = |to: &ServerState| to.flags.effective() == AdminState::Maint;
    log.clone().filter(|entry| matches!(entry, Entry::Set { to, .. } if to_maint(to))).count() == 2
        && log.all(|entry| match entry {
            Entry::Set { to, sessions, .. } => !to_maint(to) || *sessions == 0,
            Entry::Sent { line, .. } => !line.starts_with("shutdown"),
            _ => true,
        })
}

fn nothing(_: &Outcome) -> bool {
    true
}

const ROLL_BACK: &str = "on_failure=rollback";

const VIA_READY: &str = "wait.via=ready";

fn reading_back() -> Vec<Case> {
    vec![
        Case {
            defect: "a server whose read-back failed counted as unchanged",
            words: &["state=maint"],
            scripts: vec![script(&[ready("s0")], vec![whole(), fails(ErrorKind::Timeout)])],
            expected: &["s0 unknown, changed, timeout"],
            also: nothing,
        },
        Case {
            defect: "a read-back that failed after one that had succeeded made the server count as unchanged",
            words: &["state=maint", "wait.timeout=1"],
            scripts: vec![script(&[ready("s0")], vec![whole(), whole(), whole(), fails(ErrorKind::Timeout)])],
            expected: &["s0 unknown, changed, timeout"],
            also: nothing,
        },
        Case {
            defect: "a process that could not be observed after it had taken over left the server as it was before",
            words: &["state=maint"],
            scripts: vec![script(
                &[ready("s0")],
                vec![whole(), reload(Memory::StateFile), fails(ErrorKind::Unreachable)],
            )],
            expected: &["s0 unknown, changed, unreachable"],
            also: nothing,
        },
        Case {
            defect: "a process that hung was read back just before it carried the command out",
            words: &["state=maint"],
            scripts: vec![script(&[ready("s0")], vec![cut_off(Fate::CarriedOutLater(2))])],
            expected: &["s0 maint, changed"],
            also: |outcome| is_warned(outcome, "nevertheless the servers were read back as requested"),
        },
        Case {
            defect: "a second read-back that failed gave another reason than the first",
            words: &["state=maint"],
            scripts: vec![script(&[ready("s0")], vec![cut_off(Fate::Lost), whole(), fails(ErrorKind::Unreachable)])],
            expected: &["s0 unknown, changed, timeout"],
            also: nothing,
        },
        Case {
            defect: "what somebody else had set counted as changed where HAProxy had refused the command",
            words: &["state=drain"],
            scripts: vec![script(
                &[ready("s0")],
                vec![Answer::Refuses(0, "Permission denied").into(), somebody(0, "state maint")],
            )],
            expected: &["s0 maint, permission_denied"],
            also: nothing,
        },
    ]
}

fn draining() -> Vec<Case> {
    vec![
        Case {
            defect: "a server that was in drain already went to maint while an old process still served some",
            words: &["state=maint", "drain.timeout=1"],
            scripts: vec![script(&[Modelled { sessions: 1, ends_after: u32::MAX, ..with_flags("s0", 8) }], Vec::new())],
            expected: &["s0 drain, not_drained"],
            also: nothing,
        },
        Case {
            defect: "a server went to maint while a cookie still led clients to it",
            words: &["state=maint", "drain.timeout=1"],
            scripts: vec![Script {
                servers: vec![ready("s0")],
                turns: vec![Event::SessionPasses(0).into()],
                is_endless: true,
            }],
            expected: &["s0 drain, changed, not_drained"],
            also: |outcome| is_warned(outcome, "began while draining"),
        },
        Case {
            defect: "a drain without time polled once, which does not show whether sessions begin",
            words: &["state=maint", "drain.timeout=0"],
            scripts: vec![script(&[ready("s0")], vec![Event::SessionPasses(0).into()])],
            expected: &["s0 maint, changed"],
            also: nothing,
        },
        Case {
            defect: "a server counted as drained before it had been quiet for long enough",
            words: &["state=maint", "drain.timeout=5", "drain.stable=2"],
            scripts: vec![script(&[ready("s0")], Vec::new())],
            expected: &["s0 maint, changed"],
            also: |outcome| outcome.took >= Duration::from_secs(2),
        },
        Case {
            defect: "a tracked server without sessions took the one that tracks it to maint with its sessions",
            words: &["state=maint", "drain.timeout=1"],
            scripts: vec![script(&[ready("s0"), tracking("a/s0", with_sessions("s1", u32::MAX))], Vec::new())],
            expected: &["s0 drain, changed, not_drained", "s1 drain, changed, not_drained"],
            also: nothing,
        },
        Case {
            defect: "a server that tracks another failed because that went to maint before it",
            words: &["state=maint", "drain.timeout=60"],
            scripts: vec![script(&[ready("s0"), tracking("a/s0", with_sessions("s1", 3))], Vec::new())],
            expected: &["s0 maint, changed", "s1 maint, changed"],
            also: nothing,
        },
        Case {
            defect: "an instance that had failed was drained until the deadline, and said to be in maint",
            words: &["state=maint", "drain.timeout=60", "drain.on_timeout=maint"],
            scripts: vec![
                script(&[ready("s0")], vec![whole(), whole(), fails(ErrorKind::Timeout)]),
                script(&[with_sessions("s1", 3)], Vec::new()),
            ],
            expected: &["s0 drain, changed, timeout", "s1 maint, changed"],
            also: |outcome| outcome.took < Duration::from_secs(5) && !is_warned(outcome, "went to maint"),
        },
        Case {
            defect: "a reload in a wait forgot that a drain had failed, and cut its clients off",
            words: &["state=maint", "drain.timeout=1", "wait.timeout=1"],
            scripts: vec![script(
                &[with_sessions("s0", u32::MAX), ready("s1")],
                // Drain, read back, poll; maint, read back; four polls until the time is over.
                [vec![whole(); 9], vec![reload(Memory::Nothing)]].concat(),
            )],
            expected: &["s0 ready, not_drained", "s1 maint, changed"],
            also: |outcome| is_warned(outcome, "was reloaded"),
        },
        Case {
            defect: "a reload in a wait set a server to maint without a drain, and cut off the clients of the new process",
            words: &["state=maint", "drain.timeout=9", "wait.timeout=9", "wait.stable=1"],
            scripts: vec![script(
                &[ready("s0")],
                // Drain, read back, two polls; maint, read back; a poll.
                [vec![whole(); 7], vec![reload_with_session(4)]].concat(),
            )],
            expected: &["s0 maint, changed"],
            also: |outcome| was_drained(outcome, 0),
        },
        Case {
            defect: "a reload in a wait set a server to maint whose new clients do not leave in time",
            words: &["state=maint", "drain.timeout=9", "wait.timeout=2", "wait.stable=1"],
            scripts: vec![script(&[ready("s0")], [vec![whole(); 7], vec![reload_with_session(u32::MAX)]].concat())],
            expected: &["s0 drain, changed, not_drained"],
            also: |outcome| outcome.took < Duration::from_secs(4),
        },
        Case {
            defect: "a reload while sessions were ended cut off the clients of the new process without a drain",
            words: &["state=maint", "drain.timeout=9", "shutdown_sessions=true"],
            scripts: vec![script(&[ready("s0")], [vec![whole(); 6], vec![reload_with_session(4)]].concat())],
            expected: &["s0 maint, changed"],
            also: |outcome| was_drained(outcome, 0),
        },
        Case {
            defect: "a server that went to maint with sessions while HAProxy was reloaded was not warned of",
            words: &["state=maint", "drain.timeout=1", "drain.on_timeout=maint"],
            scripts: vec![script(
                &[with_sessions("s0", u32::MAX)],
                // Drain, read back, four polls; maint, read back.
                [vec![whole(); 8], vec![reload_with_session(u32::MAX)]].concat(),
            )],
            expected: &["s0 maint, changed"],
            also: |outcome| is_warned(outcome, "a/s0 went to maint with 1 session after 1 s of drain"),
        },
        Case {
            defect: "a server that was in maint before was said to have gone there late, because another instance has its name",
            words: &["state=maint", "drain.timeout=1", "drain.on_timeout=maint"],
            scripts: vec![
                script(&[with_sessions("s0", u32::MAX)], Vec::new()),
                script(&[Modelled { sessions: 1, ends_after: u32::MAX, ..with_flags("s0", 1) }], Vec::new()),
            ],
            expected: &["s0 maint, changed", "s0 maint"],
            also: |outcome| outcome.instances.iter().map(|ran| ran.warnings.len()).eq([1, 0]),
        },
        Case {
            defect: "a server counted as free although a process from before a reload still ran",
            words: &["state=maint", "drain.timeout=9", "old_processes=wait"],
            scripts: vec![script(
                &[ready("s0")],
                vec![Turn { before: vec![RELOADED, Event::OldProcess(4)], ..whole() }],
            )],
            expected: &["s0 maint, changed"],
            also: |outcome| polls_of(outcome, 0) > 4,
        },
        Case {
            defect: "a drain followed reloads for ever",
            words: &["state=maint", "drain.timeout=1"],
            scripts: vec![Script {
                servers: vec![ready("s0")],
                turns: vec![whole(), whole(), reload(Memory::Nothing), whole()],
                is_endless: true,
            }],
            expected: &["s0 drain, changed, not_drained"],
            also: |outcome| outcome.took < Duration::from_secs(3),
        },
    ]
}

fn waiting() -> Vec<Case> {
    vec![
        Case {
            defect: "a server that a reload had removed ended the run as a success without it",
            words: &["state=maint", "wait.timeout=1"],
            scripts: vec![script(
                &[ready("s0"), ready("s1")],
                vec![whole(), whole(), Event::Reload(Memory::StateFile, Change::Removes(1)).into()],
            )],
            expected: &["s0 maint, changed", "s1 unknown, changed, server_not_found"],
            also: nothing,
        },
        Case {
            defect: "a server that may be missing failed when a reload had removed it",
            words: &["state=maint", "wait.timeout=1", "on_missing=ignore"],
            scripts: vec![script(
                &[ready("s0"), ready("s1")],
                vec![whole(), whole(), Event::Reload(Memory::StateFile, Change::Removes(1)).into()],
            )],
            expected: &["s0 maint, changed"],
            also: |outcome| is_warned(outcome, "a/s1 disappeared"),
        },
        Case {
            defect: "a server that could not be polled counted as up",
            words: &["state=ready", "wait.timeout=1", VIA_READY],
            scripts: vec![script(&[unproven("s0", 5)], vec![whole(), whole(), fails(ErrorKind::Timeout)])],
            expected: &["s0 ready, changed, timeout"],
            also: nothing,
        },
        Case {
            defect: "a server that could not be polled in drain counted as up",
            words: &["state=ready", "wait.timeout=1"],
            scripts: vec![script(&[unproven("s0", 5)], vec![whole(), whole(), fails(ErrorKind::Timeout)])],
            expected: &["s0 drain, changed, timeout"],
            also: nothing,
        },
        Case {
            defect: "clients found out whether a server works that left maint",
            words: &["state=ready", "wait.timeout=1"],
            scripts: vec![script(&[unproven("s0", u32::MAX), unproven("s1", 1)], Vec::new())],
            expected: &["s0 drain, changed, not_up", "s1 ready, changed"],
            also: nothing,
        },
        Case {
            defect: "a server that was deleted in a wait was waited for until the deadline",
            words: &["state=ready", "wait.timeout=60"],
            scripts: vec![script(&[unproven("s0", 50)], vec![whole(), whole(), whole(), Event::Delete(0).into()])],
            expected: &["s0 unknown, changed, server_not_found"],
            also: |outcome| outcome.took < Duration::from_secs(2),
        },
        Case {
            defect: "a run that a signal ended in a pause reported what it had read before",
            words: &["state=ready", "wait.timeout=60", VIA_READY],
            scripts: vec![script(
                &[unproven("s0", 50), with_flags("s1", 1)],
                vec![whole(), whole(), Event::Signal.into(), somebody(1, "state drain")],
            )],
            expected: &["s0 ready, changed, interrupted", "s1 drain, changed, overridden"],
            also: |outcome| outcome.result.as_ref().is_err_and(|error| error.kind == ErrorKind::Interrupted),
        },
        Case {
            defect: "a reload in a wait put a server straight back that its configuration disables",
            words: &["state=ready", "wait.timeout=60"],
            scripts: vec![script(
                &[Modelled { configured: with_flags("s0", 5).server.state, ..unproven("s0", 3) }],
                // Drain, read back, polls until the check has passed; read back, ready, read back.
                [vec![whole(); 9], vec![reload(Memory::Nothing), whole(), whole(), whole(), fails(ErrorKind::Timeout)]]
                    .concat(),
            )],
            expected: &["s0 drain, changed, timeout"],
            also: |outcome| is_warned(outcome, "was reloaded"),
        },
        Case {
            defect: "a server in drain was followed over reloads for ever on its way back",
            words: &["state=ready", "wait.timeout=1"],
            scripts: vec![Script {
                servers: vec![Modelled { passes_after: u32::MAX, ..with_flags("s0", 8) }],
                turns: vec![reload(Memory::StateFile)],
                is_endless: true,
            }],
            expected: &["s0 drain, not_up"],
            also: |outcome| outcome.took < Duration::from_secs(3),
        },
        Case {
            defect: "a run that a signal ended in drain reported what it had read before",
            words: &["state=ready", "wait.timeout=60"],
            scripts: vec![script(
                &[unproven("s0", 50), unproven("s1", 50)],
                vec![whole(), whole(), Event::Signal.into(), somebody(1, "state maint")],
            )],
            expected: &["s0 drain, changed, interrupted", "s1 maint, overridden"],
            also: |outcome| outcome.result.as_ref().is_err_and(|error| error.kind == ErrorKind::Interrupted),
        },
        Case {
            defect: "nobody said which servers counted as up without a check",
            words: &["state=ready", "wait.timeout=1"],
            scripts: vec![script(&[without_check("s0")], Vec::new())],
            expected: &["s0 ready, changed"],
            also: |outcome| is_warned(outcome, "no health check is running"),
        },
        Case {
            defect: "a wait followed reloads for ever",
            words: &["state=maint", "wait.timeout=1"],
            scripts: vec![Script {
                servers: vec![ready("s0")],
                turns: vec![reload(Memory::StateFile), whole(), whole()],
                is_endless: true,
            }],
            expected: &["s0 maint, changed, not_drained"],
            also: |outcome| outcome.took < Duration::from_secs(3),
        },
        Case {
            defect: "the end of sessions was waited for on one process after the other for ever",
            words: &["state=maint", "shutdown_sessions=true", "timeout=1"],
            scripts: vec![Script {
                servers: vec![ready("s0")],
                turns: vec![reload(Memory::StateFile), whole(), whole()],
                is_endless: true,
            }],
            expected: &["s0 maint, changed, not_drained"],
            also: |outcome| outcome.took < Duration::from_secs(3),
        },
        Case {
            defect: "a server was fine although a signal had ended the run before its sessions were",
            words: &["state=maint", "shutdown_sessions.over=5"],
            scripts: vec![script(
                &[Modelled { sessions: 3, ends_after: u32::MAX, ..ready("s0") }, ready("s1")],
                vec![whole(), whole(), whole(), whole(), Event::Signal.into()],
            )],
            expected: &["s0 maint, changed, interrupted", "s1 maint, changed"],
            also: nothing,
        },
        Case {
            defect: "a server was fine although a signal had ended the run before it was seen to take traffic",
            words: &["state=ready", "wait.timeout=60"],
            scripts: vec![script(
                &[unproven("s0", 50), unproven("s1", 1)],
                // Drain, read back, poll; read back, ready of the second, read back, poll.
                [vec![whole(); 7], vec![Event::Signal.into()]].concat(),
            )],
            expected: &["s0 drain, changed, interrupted", "s1 ready, changed, interrupted"],
            also: nothing,
        },
        Case {
            defect: "what somebody else had set while sessions ended was not seen",
            words: &["state=maint", "shutdown_sessions=true"],
            scripts: vec![script(
                &[with_sessions("s0", 9)],
                vec![whole(), whole(), whole(), whole(), somebody(0, "state ready")],
            )],
            expected: &["s0 ready, overridden"],
            also: nothing,
        },
    ]
}

fn choosing() -> Vec<Case> {
    let spare = |name: &str| {
        let mut made = with_flags(name, AdminFlags::DNS_MAINT);
        made.server.has_address = false;
        made
    };
    vec![Case {
        defect: "a spare slot that only a pattern matches was not left alone",
        words: &["state=ready"],
        scripts: vec![script(&[with_flags("s0", 1), spare("s1")], Vec::new())],
        expected: &["s0 ready, changed", "s1 maint, spare"],
        also: nothing,
    }]
}

fn guarding() -> Vec<Case> {
    vec![
        Case {
            defect: "a guard was not judged anew on a process that had taken over",
            words: &["state=maint", "guard.min_available=1"],
            scripts: vec![script(
                &[ready("s0"), Modelled { configured: with_flags("x1", 5).server.state, ..ready("x1") }],
                vec![reload(Memory::Nothing)],
            )],
            expected: &["s0 ready, guard_refused"],
            also: nothing,
        },
        Case {
            defect: "a rollback passed a guard",
            words: &["state=ready", "guard.min_available=1", "wait.timeout=1", VIA_READY, ROLL_BACK],
            scripts: vec![script(
                &[unproven("s0", u32::MAX), ready("x1")],
                vec![whole(), whole(), somebody(1, "state maint")],
            )],
            expected: &["s0 ready, changed, not_up, not rolled back: guard_refused"],
            also: nothing,
        },
    ]
}

fn rolling_back() -> Vec<Case> {
    vec![
        Case {
            defect: "a server that could not be read back was not rolled back",
            words: &["state=maint", ROLL_BACK],
            scripts: vec![script(&[ready("s0")], vec![whole(), fails(ErrorKind::Timeout)])],
            expected: &["s0 ready, timeout, rolled back"],
            also: nothing,
        },
        Case {
            defect: "a signal kept a run from rolling back",
            words: &["state=ready", "wait.timeout=60", ROLL_BACK],
            scripts: vec![script(&[unproven("s0", 50)], vec![whole(), whole(), Event::Signal.into()])],
            expected: &["s0 maint, interrupted, rolled back"],
            also: nothing,
        },
        Case {
            defect: "what somebody else had set during a wait was undone",
            words: &["state=ready", "wait.timeout=1", VIA_READY, ROLL_BACK],
            scripts: vec![script(
                &[unproven("s0", u32::MAX), with_flags("s1", 1)],
                vec![whole(), whole(), whole(), somebody(1, "state drain")],
            )],
            expected: &["s0 maint, not_up, rolled back", "s1 drain, changed, overridden, left alone"],
            also: |outcome| is_warned(outcome, "a/s1 was left alone"),
        },
        Case {
            defect: "what somebody else had set between a command and its read-back was undone",
            words: &["state=maint", ROLL_BACK],
            scripts: vec![script(&[with_flags("s0", 8)], vec![whole(), somebody(0, "state ready")])],
            expected: &["s0 ready, changed, overridden, left alone"],
            also: nothing,
        },
        Case {
            defect: "what somebody else had set before a lost command was undone",
            words: &["weight=5", ROLL_BACK],
            scripts: vec![script(
                &[ready("s0")],
                vec![
                    Turn { before: vec![Event::Somebody(0, "state drain")], ..cut_off(Fate::Lost) },
                    fails(ErrorKind::Timeout),
                ],
            )],
            expected: &["s0 drain, changed, timeout, left alone"],
            also: nothing,
        },
        Case {
            defect: "what somebody else had set was undone on a process that took over in the rollback",
            words: &["state=maint", ROLL_BACK],
            scripts: vec![script(
                &[ready("s0"), ready("s1")],
                vec![
                    Answer::Refuses(1, "Permission denied").into(),
                    whole(),
                    whole(),
                    Turn {
                        before: vec![
                            Event::Somebody(0, "state drain"),
                            Event::Reload(Memory::StateFile, Change::Nothing),
                        ],
                        answer: Answer::Whole,
                    },
                ],
            )],
            expected: &["s0 drain, changed, left alone", "s1 ready, permission_denied"],
            also: nothing,
        },
        Case {
            defect: "a change was taken for forgotten that a state file had brought back",
            words: &["state=maint", ROLL_BACK],
            scripts: vec![script(
                &[ready("s0"), ready("s1")],
                vec![Answer::Refuses(1, "Permission denied").into(), whole(), reload(Memory::StateFile)],
            )],
            expected: &["s0 ready, rolled back", "s1 ready, permission_denied"],
            also: nothing,
        },
        Case {
            defect: "a server whose change a reload had forgotten counted neither as failed nor as rolled back",
            words: &["state=maint", ROLL_BACK],
            scripts: vec![script(
                &[ready("s0"), ready("s1")],
                vec![Answer::Refuses(1, "Permission denied").into(), whole(), reload(Memory::Nothing)],
            )],
            expected: &["s0 ready, rolled back", "s1 ready, permission_denied"],
            also: |outcome| is_warned(outcome, "HAProxy has forgotten the change in its reload"),
        },
        Case {
            defect: "an untouched server of a failed run was lost in a reload without a word",
            words: &["state=maint", ROLL_BACK],
            scripts: vec![script(
                &[with_flags("s0", 1), ready("s1"), ready("s2")],
                vec![Answer::Refuses(1, "Permission denied").into(), whole(), reload(Memory::Nothing)],
            )],
            expected: &["s0 ready, overridden", "s1 ready, rolled back", "s2 ready, permission_denied"],
            also: nothing,
        },
        Case {
            defect: "a command that was carried out after all was not rolled back",
            words: &["state=maint", ROLL_BACK],
            scripts: vec![script(&[ready("s0")], vec![cut_off(Fate::CarriedOutLater(4))])],
            expected: &["s0 ready, timeout, rolled back"],
            also: nothing,
        },
        Case {
            defect: "checks and weights were not rolled back",
            words: &["weight=1", "health=disabled", ROLL_BACK],
            scripts: vec![script(&[ready("s0"), ready("s1")], vec![Answer::Refuses(2, "Permission denied").into()])],
            expected: &["s0 ready, rolled back", "s1 ready, permission_denied, rolled back"],
            also: |outcome| {
                let is_as_before = |target: &Target| {
                    let state = target.last().state;
                    (state.weight, state.health) == (10, Some(Switch::Enabled))
                };
                outcome.instances.iter().flat_map(|ran| &ran.targets).all(is_as_before)
            },
        },
    ]
}

#[test]
fn what_went_wrong_once_is_right() {
    let mut wrong = Vec::new();
    for case in [reading_back(), draining(), waiting(), choosing(), guarding(), rolling_back()].into_iter().flatten() {
        let words: Vec<&str> = ["server=s*"].iter().chain(case.words).copied().collect();
        let outcome = run(&request(&words), &case.scripts);
        let told: Vec<String> = outcome.instances.iter().flat_map(|ran| &ran.targets).map(told).collect();
        if told != case.expected || !(case.also)(&outcome) {
            let warnings: Vec<&String> = outcome.instances.iter().flat_map(|ran| &ran.warnings).take(5).collect();
            wrong.push(format!(
                "{}\n  is       {told:?}\n  expected {:?}\n  took {:?}, {warnings:?}",
                case.defect, case.expected, outcome.took
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
