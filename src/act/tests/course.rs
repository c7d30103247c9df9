//! What a run does and shows on its way, in scenes of a few servers.

use std::time::{Duration, Instant};

use super::scene::{
    cut_off, is_warned, polls_of, ready, script, told, tracking, unproven, whole, with_flags, with_sessions,
    without_check,
};
use super::{Outcome, Script, on_instance, request, run};
use crate::act::drain::keep_tracked;
use crate::act::instance::{Instance, PROCESSES, detail_of};
use crate::act::model::{Answer, CALL, Change, Entry, Event, Fate, Memory, Modelled, Turn};
use crate::act::target::Target;
use crate::decide::plan::{Decision, Planned};
use crate::haproxy::observe::{About, Detail, Evidence};
use crate::model::error::ErrorKind;
use crate::model::goal::Goal;
use crate::model::server::Statistics;
use crate::model::state::{AdminFlags, AdminState};
use crate::model::traffic::MinAvailable;

/// Carries a request out on all servers whose names begin with `s`.
fn outcome(words: &[&str], scripts: &[Script]) -> Outcome {
    let words: Vec<&str> = ["server=s*"].iter().chain(words).copied().collect();
    run(&request(&words), scripts)
}

/// What has become of each server.
fn become_of(outcome: &Outcome) -> Vec<String> {
    outcome.instances.iter().flat_map(|ran| &ran.targets).map(told).collect()
}

const FOREVER: u32 = u32::MAX;

#[test]
fn a_drain_shows_what_is_left_and_where() {
    let words = ["state=maint", "drain.timeout=60"];
    let busy = |name, sessions| Modelled { sessions, ..with_sessions(name, 3) };
    let shown = |servers: &[Modelled]| outcome(&words, &[script(servers, Vec::new())]).progress[0].clone();
    assert_eq!(shown(&[busy("s0", 1)]), "drained 0 of 1 server, 1 session left on a/s0, 60 s to go");
    assert_eq!(
        shown(&[busy("s0", 1), busy("s1", 4), with_flags("s2", 1)]),
        "drained 1 of 3 servers, 5 sessions left, most on a/s1, 60 s to go"
    );
}

#[test]
fn a_wait_shows_whom_it_waits_for() {
    let servers = [unproven("s0", FOREVER), ready("s1")];
    let shown = |words: &[&str]| outcome(words, &[script(&servers, Vec::new())]).progress;
    let up = shown(&["state=ready", "wait.timeout=3", "wait.via=ready"]);
    assert_eq!(up[0], "1 of 2 servers up, 3 s to go (a/s0: its check has not passed since the change)");
}

#[test]
fn a_wait_that_is_over_says_what_nothing_proves() {
    let is_said = |words: &[&str], servers: &[Modelled]| {
        is_warned(&outcome(words, &[script(servers, Vec::new())]), "no health check is running")
    };
    let words = ["state=ready", "wait.timeout=3"];
    assert!(is_said(&words, &[unproven("s0", 1), without_check("s1")]));
    assert!(!is_said(&words, &[unproven("s0", 1), tracking("a/s0", without_check("s1"))]));
    assert!(!is_said(&["state=maint", "wait.timeout=3"], &[without_check("s0")]));
}

/// Drains a server whose sessions never end, until something happens to it; that must end the drain at once.
fn drained_until(event: Event) -> Vec<String> {
    // Drain, read back, poll.
    let turns = vec![whole(), whole(), whole(), event.into()];
    let words = ["state=maint", "drain.timeout=60"];
    let outcome = outcome(&words, &[script(&[with_sessions("s0", FOREVER)], turns)]);
    assert!(outcome.took < Duration::from_secs(2), "{:?}", outcome.took);
    become_of(&outcome)
}

#[test]
fn a_server_that_is_gone_is_not_drained_any_longer() {
    assert_eq!(drained_until(Event::Delete(0)), ["s0 unknown, changed, server_not_found"]);
}

#[test]
fn a_server_that_goes_down_in_drain_has_nothing_left_to_do() {
    assert_eq!(drained_until(Event::Down(0)), ["s0 maint, changed"]);
}

#[test]
fn a_chain_of_servers_stays_in_drain_for_the_last_of_them() {
    let words = ["state=maint", "drain.timeout=1"];
    let chain = [ready("s0"), tracking("a/s0", ready("s1")), tracking("a/s1", with_sessions("s2", FOREVER))];
    let stays = outcome(&words, &[script(&chain, Vec::new())]);
    let not_drained = |name| format!("{name} drain, changed, not_drained");
    assert_eq!(become_of(&stays), ["s0", "s1", "s2"].map(not_drained));
    // Setting the tracked server to maint would cut off the clients of one that cannot be drained.
    let pair = [ready("s0"), tracking("a/s0", with_sessions("s1", FOREVER))];
    let refused = outcome(&words, &[script(&pair, vec![Answer::Refuses(1, "Permission denied").into()])]);
    assert_eq!(become_of(&refused), ["s0 drain, changed, not_drained", "s1 drain, permission_denied"]);
    // Nothing holds up those whose server is not asked for.
    let alone = outcome(&words, &[script(&[tracking("a/x9", with_sessions("s0", 3)), ready("x9")], Vec::new())]);
    assert_eq!(become_of(&alone), ["s0 maint, changed"]);
}

#[test]
fn a_server_that_is_left_alone_holds_none_in_drain() {
    on_instance(&["server=s*", "state=maint"], whole(), |instance| {
        let drain = |target: &Target| {
            let goal = Goal { state: Some(AdminState::Drain), ..Goal::default() };
            Some(Box::new(Planned { goal, decision: Decision::Keep, after: target.last().state }))
        };
        let statistics = Statistics { tracks: Some("a/s0".to_owned()), ..Statistics::default() };
        instance.targets[1].before.statistics = Some(Box::new(statistics));
        instance.targets[0].plan = drain(&instance.targets[0]);
        instance.targets[0].note_poll(Statistics::default(), None, Instant::now());
        let kept_for = |instance: &mut Instance<'_>| {
            keep_tracked(instance, Duration::ZERO);
            instance.targets[0].last_poll.as_ref().unwrap().kept_for.clone()
        };
        assert_eq!(kept_for(instance), None);
        instance.targets[1].plan = drain(&instance.targets[1]);
        assert_eq!(kept_for(instance).as_deref(), Some("a/s1"));
    });
}

#[test]
fn a_server_that_goes_to_maint_with_sessions_is_polled_until_they_end() {
    let words = ["state=maint", "drain.timeout=1", "drain.on_timeout=maint"];
    let polls = |ends_after| {
        let outcome = outcome(&words, &[script(&[with_sessions("s0", ends_after)], Vec::new())]);
        assert_eq!(become_of(&outcome), ["s0 maint, changed"]);
        (polls_of(&outcome, 0), is_warned(&outcome, "went to maint with"))
    };
    // The observation, four polls in drain, and two in maint.
    assert_eq!(polls(FOREVER), (7, true));
    // Sessions that end before the first poll in maint, or before the second.
    assert_eq!(polls(5), (6, false));
    assert_eq!(polls(6), (7, false));
}

#[test]
fn steps_that_send_commands_are_counted() {
    let changes = |servers: &[Modelled]| outcome(&["state=maint"], &[script(servers, Vec::new())]).changes;
    assert_eq!(changes(&[with_flags("s0", 1)]), 0);
    assert_eq!(changes(&[ready("s0"), ready("s1")]), 1);
}

#[test]
fn a_dry_run_predicts_each_step() {
    let lines = |words: &[&str]| {
        let words: Vec<&str> = words.iter().chain(&["dry_run=true"]).copied().collect();
        let outcome = outcome(&words, &[script(&[with_sessions("s0", FOREVER)], Vec::new())]);
        assert_eq!(outcome.changes, 0);
        assert_eq!(become_of(&outcome), ["s0 maint, changed"]);
        outcome.instances[0].targets[0].sent.iter().map(|sent| sent.line.to_string()).collect::<Vec<_>>()
    };
    let (drain, maint) = ("set server a/s0 state drain", "set server a/s0 state maint");
    assert_eq!(lines(&["state=maint"]), [maint]);
    assert_eq!(lines(&["state=maint", "drain.timeout=9"]), [drain, maint]);
}

#[test]
fn a_server_that_has_failed_is_not_polled() {
    let words = ["state=maint", "wait.timeout=1"];
    let refused = vec![Answer::Refuses(0, "Permission denied").into()];
    let outcome = outcome(&words, &[script(&[ready("s0")], refused)]);
    assert_eq!(become_of(&outcome), ["s0 ready, permission_denied"]);
    // The observation before the run.
    assert_eq!(polls_of(&outcome, 0), 1);
}

#[test]
fn processes_from_before_a_reload_are_warned_of() {
    let how = "; 'old_processes': 'wait' waits for their end";
    let unseen =
        "and may still send requests to these servers; what they serve cannot be counted without a master CLI (-S)";
    let seen = "and their idle keep-alive clients may still send requests to these servers";
    for words in [&["state=maint"][..], &["state=maint", "wait.timeout=1"]] {
        for (event, what) in [(Event::OldProcess(FOREVER), unseen), (Event::SeenOldProcess(FOREVER, 0), seen)] {
            let outcome = outcome(words, &[script(&[ready("s0")], vec![event.into()])]);
            let warning = format!("processes from before a reload still run (99), {what}{how}");
            assert_eq!(outcome.instances[0].warnings, [warning], "{words:?}");
        }
    }
}

#[test]
fn sessions_on_processes_from_before_a_reload_are_ended_where_there_are_some() {
    let words = ["state=maint", "shutdown_sessions=true", "timeout=1"];
    for (event, expected) in [
        (Event::OldProcess(FOREVER), false),
        (Event::SeenOldProcess(FOREVER, 0), false),
        (Event::SeenOldProcess(FOREVER, 1), true),
    ] {
        let outcome = outcome(&words, &[script(&[with_sessions("s0", 9)], vec![event.into()])]);
        assert_eq!(become_of(&outcome), ["s0 maint, changed"]);
        let has_ended = outcome.instances[0].haproxy().log.iter().any(|entry| matches!(entry, Entry::OldSessionsEnd));
        assert_eq!(has_ended, expected);
    }
}

#[test]
fn sessions_that_begin_in_drain_are_counted() {
    let began = |visits: u32, servers: u32| {
        let made = |number| Modelled { visits, ..ready(&format!("s{number}")) };
        let made: Vec<Modelled> = (0..servers).map(made).collect();
        let outcome = outcome(&["state=maint", "drain.timeout=9", "drain.stable=1"], &[script(&made, Vec::new())]);
        assert!(become_of(&outcome).iter().all(|become_| become_.ends_with(" maint, changed")));
        outcome.instances[0].warnings.concat()
    };
    assert_eq!(began(0, 1), "");
    // The first poll counts those since the observation, which may have begun before the drain.
    assert_eq!(began(1, 1), "");
    let one = began(2, 1);
    assert!(one.starts_with("a/s0: 1 new session began while draining: a persistence cookie"), "{one}");
    let more = began(3, 2);
    assert!(more.starts_with("a/s0, a/s1: 4 new sessions began while draining"), "{more}");
}

#[test]
fn a_server_that_a_reload_removes_is_told_by_what_it_was_selected_by() {
    let removes = || vec![whole(), Event::Reload(Memory::StateFile, Change::Removes(0)).into()];
    let said = |words: &[&str]| {
        let words: Vec<&str> = words.iter().chain(&["state=maint"]).copied().collect();
        let outcome = run(&request(&words), &[script(&[ready("s0"), ready("s1")], removes())]);
        outcome.instances[0].targets.iter().find_map(|target| Some(target.error()?.msg.clone())).unwrap_or_default()
    };
    let by_name = said(&["server=s*"]);
    assert!(by_name.starts_with("a/s0 disappeared when HAProxy was reloaded; check haproxy.cfg"), "{by_name}");
    let by_address = said(&["address=127.0.0.1:9"]);
    assert!(
        by_address.starts_with("a/s0 disappeared, or lost the address 127.0.0.1:9, when HAProxy was reloaded; "),
        "{by_address}"
    );
}

#[test]
fn a_refusal_is_told_with_what_helps() {
    let said = |text: &'static str| {
        let refuses = vec![Answer::Refuses(0, text).into()];
        let outcome = outcome(&["state=maint"], &[script(&[ready("s0")], refuses)]);
        outcome.instances[0].targets[0].error().unwrap().msg.clone()
    };
    let answered = "a/s0: HAProxy answered 'set server a/s0 state maint' with";
    assert_eq!(
        said("Permission denied"),
        format!("{answered} 'Permission denied'; add 'level admin' to the 'stats socket' line in haproxy.cfg")
    );
    for gone in ["No such server.", "No such backend."] {
        let why = "; it was deleted in the meantime, or another backend has the same name";
        assert_eq!(said(gone), format!("{answered} '{gone}'{why}"));
    }
    assert_eq!(said("Out of memory\u{1b}"), format!("{answered} 'Out of memory\\u{{1b}}'"));
}

#[test]
fn a_wait_polls_no_more_often_than_it_must() {
    let polls = |words: &[&str], servers: &[Modelled]| {
        let outcome = outcome(words, &[script(servers, Vec::new())]);
        assert!(!outcome.instances[0].targets.iter().any(|target| target.error().is_some()), "{words:?}");
        polls_of(&outcome, 0)
    };
    // Setting, reading back, a poll, reading back, without a pause.
    let at_once =
        outcome(&["state=ready", "wait.timeout=0", "wait.via=ready"], &[script(&[with_flags("s0", 1)], Vec::new())]);
    assert_eq!((become_of(&at_once), at_once.took), (vec!["s0 ready, changed".to_owned()], 4 * CALL));
    // The first is the observation; whether sessions begin shows only since the time before.
    assert_eq!(polls(&["state=ready", "wait.timeout=0", "wait.via=ready"], &[ready("s0")]), 2);
    assert_eq!(polls(&["state=maint", "wait.timeout=0"], &[ready("s0")]), 2);
    assert_eq!(polls(&["state=maint", "wait.timeout=0"], &[with_sessions("s0", 2)]), 3);
}

#[test]
fn a_guard_refuses_all_of_an_instance_with_the_reason_of_each_backend() {
    let refused = |servers: &[Modelled], turns| {
        let outcome = outcome(&["state=maint", "guard.min_available=1"], &[script(servers, turns)]);
        let told = |target: &Target| {
            let error = target.error()?;
            assert_eq!((error.kind, error.instance.as_deref()), (ErrorKind::GuardRefused, Some("i0")));
            let of = error.msg.strip_prefix("the backend ").and_then(|msg| msg.split(' ').next());
            Some(format!("{}: {}", target.before.full_name(), of.unwrap()))
        };
        (outcome.was_permitted, outcome.instances[0].targets.iter().filter_map(told).collect::<Vec<_>>())
    };
    let told = |told: &[&str]| told.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(refused(&[ready("s0"), in_b(ready("s1"))], Vec::new()), (false, told(&["a/s0: a", "b/s1: b"])));
    assert_eq!(refused(&[ready("s0"), ready("x1"), in_b(ready("s2"))], Vec::new()), (false, told(&["b/s2: b"])));
    // As soon as one is refused on a process that takes over, nothing is sent there.
    let reload = || vec![Event::Reload(Memory::Nothing, Change::Nothing).into()];
    let fades = |name| Modelled { configured: with_flags(name, 5).server.state, ..ready(name) };
    let one = [ready("s0"), ready("x1"), in_b(ready("s2")), in_b(fades("x3"))];
    assert_eq!(refused(&one, reload()), (true, told(&["a/s0: b", "b/s2: b"])));
    let both = [ready("s0"), fades("x1"), in_b(ready("s2")), in_b(fades("x3"))];
    assert_eq!(refused(&both, reload()), (true, told(&["a/s0: a", "b/s2: b"])));
}

#[test]
fn what_somebody_else_sets_meanwhile_may_be_just_right() {
    assert_eq!(drained_until(Event::Somebody(0, "state maint")), ["s0 maint, changed"]);
}

#[test]
fn a_server_that_no_command_reaches_is_not_short_of_one() {
    let unresolved = with_flags("s0", AdminFlags::DNS_MAINT);
    let turns = vec![cut_off(Fate::CarriedOut)];
    let outcome = outcome(&["state=ready"], &[script(&[unresolved, with_flags("s1", 1)], turns)]);
    assert_eq!(become_of(&outcome), ["s0 maint, unreachable_state", "s1 ready, changed"]);
    assert!(is_warned(&outcome, "nevertheless the servers were read back as requested"));
}

#[test]
fn what_no_command_can_restore_is_not_said_to_be_rolled_back() {
    // Only the statistics page forces both drain and maint.
    let servers = [with_flags("s0", 9), ready("s1")];
    let turns = vec![Answer::Refuses(1, "Permission denied").into()];
    let outcome = outcome(&["state=ready", "weight=1", "on_failure=rollback"], &[script(&servers, turns)]);
    assert_eq!(become_of(&outcome), ["s0 maint, changed, permission_denied, left alone", "s1 ready, rolled back"]);
}

#[test]
fn so_many_reloads_are_followed_and_no_more() {
    let reload = || Event::Reload(Memory::StateFile, Change::Nothing).into();
    let every_time = Script { is_endless: true, ..script(&[ready("s0")], vec![reload(), whole()]) };
    let endless = outcome(&["state=maint"], &[every_time]);
    assert_eq!(become_of(&endless), ["s0 ready, reloaded"]);
    let msg = &endless.instances[0].targets[0].error().unwrap().msg;
    assert!(msg.contains(&format!("was reloaded {PROCESSES} times during the run")), "{msg}");
    // The last process has what is requested.
    let mut turns: Vec<Turn> = (0..PROCESSES).flat_map(|_| [reload(), whole()]).collect();
    *turns.last_mut().unwrap() = Event::Somebody(0, "state maint").into();
    assert_eq!(become_of(&outcome(&["state=maint"], &[script(&[ready("s0")], turns)])), ["s0 maint"]);
}

/// The same server in the other backend.
fn in_b(mut made: Modelled) -> Modelled {
    (made.server.backend, made.server.backend_id) = ("b".into(), 3);
    made
}

#[test]
fn a_server_that_serves_in_one_backend_may_be_enough() {
    let elsewhere = |passes_after| in_b(unproven("s0", passes_after));
    let words = |need: &'static str| ["state=ready", "wait.timeout=3", "wait.via=ready", need];
    let servers = [unproven("s0", FOREVER), elsewhere(1)];
    let any = outcome(&words("wait.need=any"), &[script(&servers, Vec::new())]);
    assert_eq!(become_of(&any), ["s0 ready, changed", "s0 ready, changed"]);
    assert!(any.took < Duration::from_secs(1), "{:?}", any.took);
    let all = outcome(&words("wait.need=all"), &[script(&servers, Vec::new())]);
    assert_eq!(become_of(&all), ["s0 ready, changed, not_up", "s0 ready, changed"]);
    let neither = [unproven("s0", FOREVER), elsewhere(FOREVER)];
    let none = outcome(&words("wait.need=any"), &[script(&neither, Vec::new())]);
    assert_eq!(become_of(&none), ["s0 ready, changed, not_up", "s0 ready, changed, not_up"]);
}

#[test]
fn a_server_that_was_free_is_polled_again_after_a_reload_elsewhere() {
    let words = ["state=drain", "wait.timeout=9"];
    let polls = |turns| {
        let scripts = [script(&[ready("s0")], Vec::new()), script(&[with_sessions("s0", 5)], turns)];
        let outcome = outcome(&words, &scripts);
        assert_eq!(become_of(&outcome), ["s0 drain, changed", "s0 drain, changed"]);
        polls_of(&outcome, 0)
    };
    // Drain, read back, three polls.
    let reloaded = [vec![whole(); 5], vec![Event::Reload(Memory::StateFile, Change::Nothing).into()]].concat();
    assert!(polls(Vec::new()) < polls(reloaded));
}

#[test]
fn as_much_is_read_as_a_request_needs() {
    let guard = Some(MinAvailable::Count(1));
    for (words, about, guard) in [
        (&[][..], About::Statistics, None),
        (&["guard.min_available=1"], About::Statistics, guard),
        (&["state=ready"], About::Plan, None),
        (&["state=ready", "guard.min_available=1"], About::Plan, None),
        (&["state=ready", "guard.min_available=1", "on_failure=rollback"], About::Plan, guard),
        (&["state=ready", "weight=1", "guard.min_available=1"], About::Plan, guard),
        (&["state=restore"], About::Plan, None),
        (&["weight=1"], About::Plan, None),
        (&["state=maint"], About::Links(Evidence::Refusals), None),
        (&["state=maint", "guard.min_available=1"], About::Links(Evidence::Refusals), guard),
        (&["state=drain"], About::Links(Evidence::Refusals), None),
        (&["state=drain", "weight=1"], About::Plan, None),
        (&["state=maint", "drain=true"], About::Plan, None),
        (&["state=maint", "wait=true"], About::Plan, None),
        (&["state=maint", "shutdown_sessions=true"], About::Plan, None),
        (&["state=maint", "owner=alice"], About::Plan, None),
        (&["state=maint", "dry_run=true"], About::Links(Evidence::Statistics), None),
    ] {
        let words: Vec<&str> = ["server=s*"].iter().chain(words).copied().collect();
        assert_eq!(detail_of(&request(&words), || Ok(false)).unwrap(), Detail { about, guard }, "{words:?}");
        // Records of owners may mean a former server of the same name, which the statistics tell.
        let about = if matches!(about, About::Links(_)) { About::Plan } else { about };
        assert_eq!(detail_of(&request(&words), || Ok(true)).unwrap(), Detail { about, guard }, "{words:?}");
    }
}
