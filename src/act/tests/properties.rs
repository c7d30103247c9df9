//! What holds whatever HAProxy and others do in the middle of a run.

use std::time::Duration;

use proptest::prelude::*;

use super::{Outcome, Ran, Script, request, run};
use crate::act::model::{Answer, Batch, Change, Entry, Event, Fate, Memory, Modelled, Turn, Who};
use crate::act::target::{Delivery, Reading, Sent, Target, Verdict};
use crate::decide::guard::{self, Member};
use crate::decide::shortfall::shortfall;
use crate::model::error::ErrorKind;
use crate::model::goal::{Effect, Goal, SpareSlots, Switch, Weight};
use crate::model::server::{ServerState, Statistics};
use crate::model::state::{AdminFlags, AdminState, OperationalState};
use crate::model::traffic::{Around, MinAvailable};
use crate::request::{
    DrainBounds, Need, OldProcesses, OnFailure, OnMissing, OnTimeout, Pace, Request, Via, WaitBounds,
};

fn switches() -> impl Strategy<Value = Option<Switch>> {
    prop::sample::select(vec![None, Some(Switch::Enabled), Some(Switch::Disabled)])
}

/// A server by its place: the first four are selected, the others are not.
fn server(place: usize) -> impl Strategy<Value = Modelled> {
    let mask = prop::sample::select(vec![0u32, 0, 0, 1, 5, 8, 9]);
    let weight = prop::sample::select(vec![0u32, 1, 10]);
    let polls = prop::sample::select(vec![0u32, 1, 3, u32::MAX]);
    let configured = prop::sample::select(vec![0u32, 0, 5]);
    let is_disabled = prop::bool::weighted(0.05);
    let tracks = prop::bool::weighted(0.15);
    let visits = prop::sample::select(vec![0u32, 0, 1, 2, u32::MAX]);
    (mask, weight, switches(), switches(), polls.clone(), polls, visits, configured, is_disabled, tracks).prop_map(
        move |(mask, weight, health, agent, ends_after, passes_after, visits, configured, is_disabled, tracks)| {
            let (backend, name) = (if place % 2 == 0 { "a" } else { "b" }, if place < 4 { "s" } else { "x" });
            let mut made = Modelled::new(backend, &format!("{name}{place}"));
            let state = |mask: u32| {
                let flags = AdminFlags(mask);
                let is_out = flags.effective() == AdminState::Maint;
                let operational = if is_out { OperationalState::Stopped } else { OperationalState::Running };
                ServerState { flags, operational, weight, health, agent }
            };
            (made.server.state, made.configured) = (state(mask), state(configured));
            made.server.configured_weight = 10;
            if is_disabled {
                made.server.server_id = 0;
            }
            // HAProxy allows no loops.
            made.tracks = (tracks && place == 3 && !is_disabled).then(|| "a/s0".to_owned());
            made.visits = visits;
            (made.sessions, made.ends_after, made.passes_after) = (u32::from(ends_after > 0), ends_after, passes_after);
            made
        },
    )
}

fn servers() -> impl Strategy<Value = Vec<Modelled>> {
    (server(0), server(1), server(2), server(3), server(4), server(5), 1usize..=4).prop_map(
        |(s0, s1, s2, s3, x4, x5, selected)| {
            let mut all = vec![s0, s1, s2, s3];
            all.truncate(selected);
            all.extend([x4, x5]);
            all
        },
    )
}

fn events() -> impl Strategy<Value = Event> {
    let change = prop_oneof![
        4 => Just(Change::Nothing),
        1 => (0usize..6).prop_map(Change::Removes),
        1 => (0usize..6).prop_map(Change::Renames),
        1 => Just(Change::Adds),
    ];
    let memory = prop::sample::select(vec![Memory::Nothing, Memory::StateFile]);
    let commands = ["state ready", "state drain", "state maint", "weight 3", "disable health", "enable agent"];
    prop_oneof![
        6 => (memory, change).prop_map(|(memory, change)| Event::Reload(memory, change)),
        6 => (0usize..6, prop::sample::select(commands.to_vec())).prop_map(|(at, does)| Event::Somebody(at, does)),
        1 => (0usize..6).prop_map(Event::Delete),
        2 => (0usize..6).prop_map(Event::SessionsEnd),
        2 => (0usize..6).prop_map(Event::SessionPasses),
        1 => (0usize..6, 1u32..6).prop_map(|(at, ends_after)| Event::SessionBegins(at, ends_after)),
        2 => (1u32..9).prop_map(Event::OldProcess),
        1 => (0usize..6).prop_map(Event::Down),
        1 => Just(Event::Signal),
    ]
}

fn answers() -> impl Strategy<Value = Answer> {
    let kind = || prop::sample::select(vec![ErrorKind::Timeout, ErrorKind::Unreachable, ErrorKind::BadReply]);
    let fate = prop_oneof![Just(Fate::CarriedOut), Just(Fate::Lost), (0usize..4).prop_map(Fate::CarriedOutLater),];
    let text = prop::sample::select(vec!["Permission denied", "No such server.", "Proxy is disabled."]);
    prop_oneof![
        8 => Just(Answer::Whole),
        1 => kind().prop_map(Answer::Fails),
        1 => (0usize..6, text).prop_map(|(nth, text)| Answer::Refuses(nth, text)),
        2 => (0usize..6, fate, kind()).prop_map(|(after, fate, kind)| Answer::CutOff(after, fate, kind)),
    ]
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let before = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(events(), 1..3)];
    prop::collection::vec((before, answers()).prop_map(|(before, answer)| Turn { before, answer }), 0..14)
}

fn scripts() -> impl Strategy<Value = Script> {
    (servers(), turns(), prop::bool::weighted(0.2)).prop_map(|(servers, turns, is_endless)| Script {
        servers,
        turns,
        is_endless,
    })
}

/// What is asked for, as far as it matters here.
#[derive(Debug, Clone)]
struct Wish {
    goal: Goal,
    drain: Option<DrainBounds>,
    wait: Option<WaitBounds>,
    shutdown_sessions: Option<Pace>,
    guard: Option<MinAvailable>,
    on_failure: OnFailure,
    on_missing: OnMissing,
    old_processes: OldProcesses,
}

impl Wish {
    fn request(&self) -> Request {
        let Self { goal, drain, wait, shutdown_sessions, guard, on_failure, on_missing, old_processes } = *self;
        let is_maint = goal.state == Some(AdminState::Maint);
        Request {
            goal: Some(goal),
            drain: drain.filter(|_| is_maint),
            wait: wait.filter(|_| goal.effect().is_some()),
            shutdown_sessions: shutdown_sessions.filter(|_| is_maint),
            guard,
            on_failure,
            on_missing,
            old_processes,
            timeout: Duration::from_secs(2),
            ..request(&["server=s*", "state=maint"])
        }
    }
}

prop_compose! {
    fn goals()(
        state in prop::sample::select(vec![
            None,
            Some(AdminState::Ready),
            Some(AdminState::Drain),
            Some(AdminState::Maint),
            Some(AdminState::Maint),
        ]),
        weight in prop::sample::select(vec![None, None, Some(Weight::Absolute(0)), Some(Weight::Absolute(5)), Some(Weight::Percent(50))]),
        health in prop_oneof![3 => Just(None), 1 => switches()],
        agent in prop_oneof![3 => Just(None), 1 => switches()],
    ) -> Goal {
        Goal { state, weight, health, agent, spare_slots: SpareSlots::default() }
    }
}

fn seconds() -> impl Strategy<Value = Duration> {
    prop::sample::select(vec![0u64, 1, 3, 8]).prop_map(Duration::from_secs)
}

fn stable() -> impl Strategy<Value = Duration> {
    prop::sample::select(vec![0u64, 300, 700]).prop_map(Duration::from_millis)
}

fn paces() -> impl Strategy<Value = Pace> {
    prop::sample::select(vec![0u64, 1]).prop_map(|over| Pace { over: Duration::from_secs(over) })
}

prop_compose! {
    fn drains()(
        timeout in seconds(),
        on_timeout in prop::sample::select(
            vec![OnTimeout::Fail, OnTimeout::Maint, OnTimeout::Shutdown, OnTimeout::Rollback]
        ),
        stable in stable(),
    ) -> DrainBounds {
        DrainBounds { timeout, on_timeout, stable }
    }
}

prop_compose! {
    fn waits()(
        timeout in seconds(),
        stable in stable(),
        via in prop::sample::select(vec![Via::Drain, Via::Ready]),
        need in prop::sample::select(vec![Need::All, Need::Any]),
    ) -> WaitBounds {
        WaitBounds { timeout, stable, via, need }
    }
}

prop_compose! {
    fn wishes()(
        goal in goals(),
        drain in prop::option::of(drains()),
        wait in prop::option::of(waits()),
        shutdown_sessions in prop::option::of(paces()),
        guard in prop::option::of((0u32..3).prop_map(MinAvailable::Count)),
        on_failure in prop::sample::select(vec![OnFailure::Keep, OnFailure::Rollback]),
        on_missing in prop::sample::select(vec![OnMissing::Fail, OnMissing::Ignore]),
        old_processes in prop::sample::select(vec![OldProcesses::Count, OldProcesses::Wait]),
    ) -> Wish {
        Wish { goal, drain, wait, shutdown_sessions, guard, on_failure, on_missing, old_processes }
    }
}

/// Returns what was read of a server last, and where that is in the log.
fn last_read(ran: &Ran, name: &str) -> Option<(usize, Option<ServerState>)> {
    ran.haproxy().log.iter().enumerate().rev().find_map(|(at, entry)| match entry {
        Entry::Read { name: read, state } if read == name => Some((at, *state)),
        _ => None,
    })
}

/// A server that has not failed was seen as requested, last of all.
fn what_has_not_failed_was_seen_as_requested(
    goal: &Goal,
    ran: &Ran,
    target: &Target,
) -> std::result::Result<(), TestCaseError> {
    let name = target.before.full_name();
    let read = last_read(ran, &name);
    match &target.reading {
        Reading::First => {
            let is_set = target.sent.iter().any(|sent| !sent.line.starts_with("shutdown"));
            prop_assert!(!is_set, "{name} was set and never read back");
        }
        Reading::Seen(server) => {
            prop_assert_eq!(read.and_then(|(_, state)| state), Some(server.state), "{}", name);
        }
        Reading::Unknown { .. } | Reading::Gone { .. } => {}
    }
    if target.verdict != Verdict::Fine || target.undo.is_some() {
        return Ok(());
    }
    let Some(after) = target.after() else { return Err(TestCaseError::fail(format!("{name} is fine but unknown"))) };
    prop_assert_eq!(shortfall(goal, after), None, "{} is not as requested", name);
    Ok(())
}

/// What was changed is what commands have made of a server.
fn what_is_changed_was_set(ran: &Ran, target: &Target) -> std::result::Result<(), TestCaseError> {
    let name = target.before.full_name();
    let is_own = |who: Who| who != Who::SomebodyElse;
    let own = ran.haproxy().log.iter().enumerate().filter_map(|(at, entry)| match entry {
        Entry::Set { who, name: set, from, to, .. } if *set == name && is_own(*who) => Some((at, from, to)),
        _ => None,
    });
    let own: Vec<_> = own.collect();
    let was_sent =
        target.sent.iter().any(|sent| sent.line.contains(&format!(" {name} ")) || sent.line.ends_with(&name));
    prop_assert_eq!(was_sent, !target.sent.is_empty());
    if let Some(after) = target.after() {
        let differs = !after.state.is_set_as(&target.before.state);
        prop_assert!(!target.is_changed() || differs, "{} counts as changed, but is as before", name);
        let may_be_own = !own.is_empty() || target.sent.iter().any(is_unknown);
        if differs && !own.is_empty() {
            prop_assert!(target.is_changed(), "{} differs and was set, but counts as unchanged", name);
        }
        if !may_be_own {
            prop_assert!(!target.is_changed(), "{} counts as changed, but nothing was set", name);
        }
        return Ok(());
    }
    // What is not known counts as changed if it may be.
    let Some(truth) = ran.haproxy().state_of(&name) else { return Ok(()) };
    let (since, _) = last_read(ran, &name).unwrap();
    let reloads = ran.haproxy().log.iter().skip(since).filter(|entry| matches!(entry, Entry::Reload)).count();
    let set_since = own.iter().any(|(at, ..)| *at > since);
    if set_since && reloads == 0 && !truth.is_set_as(&target.before.state) {
        prop_assert!(target.is_changed(), "{} was set, is not known, and counts as unchanged", name);
    }
    Ok(())
}

/// Compares the part of a server that a command is about.
fn is_part_set_as(line: &str, one: &ServerState, other: &ServerState) -> bool {
    match line.split(' ').collect::<Vec<_>>().as_slice() {
        [_, "health", _] => one.health == other.health,
        [_, "agent", _] => one.agent == other.agent,
        [_, _, _, "weight", _] => one.weight == other.weight,
        _ => one.flags.commanded() == other.flags.commanded(),
    }
}

/// Returns how a server is after the last commands to it that were accepted, those of a rollback left out.
fn last_foreseen(target: &Target) -> Option<ServerState> {
    let is_own = |sent: &&Sent| {
        let is_change = !sent.from.is_set_as(&sent.to) && !sent.to.is_set_as(&target.before.state);
        sent.reply == Delivery::Accepted && is_change
    };
    target.sent.iter().rev().find(is_own).map(|sent| sent.to)
}

/// A rollback sets no server that somebody else has set since, as far as it could see that.
fn what_others_have_set_is_left_alone(ran: &Ran) -> std::result::Result<(), TestCaseError> {
    let log = &ran.haproxy().log;
    for (at, entry) in log.iter().enumerate() {
        let Entry::Sent { who: Who::Rollback, name, line } = entry else { continue };
        let before = &log[..at];
        let read = before.iter().enumerate().rev().find_map(|(at, entry)| match entry {
            Entry::Read { name: read, state } if read == name => Some((at, *state)),
            _ => None,
        });
        let Some((read_at, Some(read))) = read else {
            return Err(TestCaseError::fail(format!("'{line}' rolls back what was not read")));
        };
        // Whether a command that was not accepted has set a part so, or somebody else, is not told apart.
        let target = ran.targets.iter().find(|target| target.before.full_name() == *name);
        // Who sets a server as the run has, or back to that, is not seen.
        let is_as_foreseen = target.and_then(last_foreseen).is_some_and(|foreseen| read.is_set_as(&foreseen));
        let sent = target.into_iter().flat_map(|target| &target.sent);
        let unanswered = sent.filter(|sent| is_unknown(sent) || sent.reply == Delivery::Refused);
        let may_be_own = unanswered.clone().any(|sent| is_part_set_as(line, &read, &sent.to));
        let set = before.iter().enumerate().rev().find_map(|(at, entry)| match entry {
            Entry::Set { who: Who::Run | Who::RunBelatedly, name: set, to, .. } if set == name => Some((at, *to)),
            _ => None,
        });
        let (set_at, is_left) = match set {
            Some((at, left)) if unanswered.count() > 0 => (at, is_part_set_as(line, &read, &left)),
            Some((at, left)) => (at, read.is_set_as(&left)),
            None => (0, false),
        };
        let between = log.get(set_at..read_at).unwrap_or_default();
        let is_foreign =
            |entry: &Entry| matches!(entry, Entry::Set { who: Who::SomebodyElse, name: set, .. } if set == name);
        let is_excused =
            may_be_own || is_left || is_as_foreseen || between.iter().any(|entry| matches!(entry, Entry::Reload));
        prop_assert!(
            is_excused || !between.iter().any(is_foreign),
            "'{}' undoes what somebody else has set: {:?}, left as {:?}",
            line,
            read,
            set
        );
    }
    Ok(())
}

/// Nobody knows what has become of a command that was not answered, or whose process is gone.
fn is_unknown(sent: &Sent) -> bool {
    matches!(sent.reply, Delivery::Unanswered | Delivery::Outlived)
}

fn usable(batch: &Batch, guard: MinAvailable) -> Vec<String> {
    let mut refusals = Vec::new();
    for backend in ["a", "b"] {
        let pairs = batch.before.iter().zip(&batch.after).filter(|(it, _)| &*it.server.backend == backend);
        let members: Vec<Member<'_>> =
            pairs.map(|(before, after)| Member { server: &before.server, after: &after.server.state }).collect();
        refusals.extend(
            guard::refuse(guard, "i", backend, guard::count(&members, Around::default()))
                .map(|error| error.msg.clone()),
        );
    }
    refusals
}

/// No commands leave a backend with too few servers, unless something has happened that could not be seen.
fn no_guard_is_passed(guard: MinAvailable, ran: &Ran) -> std::result::Result<(), TestCaseError> {
    let mut is_known = true;
    for entry in &ran.haproxy().log {
        match entry {
            Entry::Observe => is_known = true,
            Entry::Disturbance | Entry::Reload => is_known = false,
            Entry::Batch(batch) if is_known => {
                prop_assert_eq!(usable(batch, guard), Vec::<String>::new(), "{:?} passes the guard", batch.who);
            }
            Entry::Batch(_)
            | Entry::Set { .. }
            | Entry::Read { .. }
            | Entry::Count { .. }
            | Entry::Sent { .. }
            | Entry::OldProcesses
            | Entry::OldSessionsEnd => {}
        }
    }
    Ok(())
}

/// A drain sets no server to maint on which a session can be seen, unless the request says so.
fn no_session_is_cut(wish: &Wish, ran: &Ran) -> std::result::Result<(), TestCaseError> {
    let Some(bounds) = wish.request().drain else { return Ok(()) };
    if matches!(bounds.on_timeout, OnTimeout::Maint | OnTimeout::Shutdown) {
        return Ok(());
    }
    for (at, entry) in ran.haproxy().log.iter().enumerate() {
        if matches!(entry, Entry::Set { who: Who::SomebodyElse, .. }) {
            break;
        }
        let Entry::Set { who: Who::Run, name, from, to, sessions } = entry else { continue };
        let is_out = from.flags.effective() == AdminState::Maint || from.operational == OperationalState::Stopped;
        let goes_out = to.flags.effective() == AdminState::Maint;
        if !is_out && goes_out {
            was_quiet(bounds.stable, name, counts_before(&ran.haproxy().log, at, name))?;
            let since = &ran.haproxy().log[counts_at(&ran.haproxy().log, at, name)..at];
            // Nobody can see a session that begins between the last poll and the command.
            let is_unseen = since.iter().any(|entry| matches!(entry, Entry::Disturbance));
            prop_assert!(is_unseen || *sessions == 0, "{} went to maint with {} sessions", name, sessions);
            let is_held = since.iter().any(|entry| matches!(entry, Entry::OldProcesses));
            prop_assert!(
                wish.old_processes == OldProcesses::Count || !is_held,
                "{} went to maint before an old process had ended",
                name
            );
        }
    }
    Ok(())
}

/// Returns where in the log, before a place, it was told last what a server does.
fn counts_at(log: &[Entry], before: usize, name: &str) -> usize {
    let is_count = |entry: &Entry| matches!(entry, Entry::Count { name: of, .. } if of == name);
    log.iter().take(before).rposition(is_count).unwrap_or_default()
}

/// Returns what was told of what a server does, and when, before a place in the log.
fn counts_before<'l>(log: &'l [Entry], at: usize, name: &str) -> Vec<(Duration, &'l Statistics)> {
    let counts = log.iter().take(at).filter_map(|entry| match entry {
        Entry::Count { name: of, at, statistics } if of == name => Some((*at, statistics)),
        _ => None,
    });
    counts.collect()
}

/// No session was there or has begun for long enough, as far as that was told.
fn was_quiet(
    stable: Duration,
    name: &str,
    counts: Vec<(Duration, &Statistics)>,
) -> std::result::Result<(), TestCaseError> {
    prop_assert!(counts.len() >= 2, "{} went to maint after {} counts", name, counts.len());
    let last = counts[counts.len() - 1].0;
    // The time of two instances is one, so that a count is noted a little after it was made.
    let since = last.saturating_sub(stable.saturating_sub(Duration::from_millis(100)));
    for pair in counts.windows(2).filter(|pair| pair[1].0 > since || pair[1].0 == last) {
        let [(_, before), (_, now)] = pair else { continue };
        let is_quiet = now.sessions == 0 && now.total_sessions <= before.total_sessions;
        prop_assert!(is_quiet, "{} went to maint too early: {:?}, then {:?}", name, before, now);
    }
    Ok(())
}

/// A wait gives no traffic to a server that was out before its check has passed, unless the request says so.
fn nothing_is_put_back_untried(wish: &Wish, ran: &Ran) -> std::result::Result<(), TestCaseError> {
    let request = wish.request();
    let Some(bounds) = request.wait.filter(|_| request.state() == Some(AdminState::Ready)) else { return Ok(()) };
    if bounds.via == Via::Ready || bounds.need == Need::Any || wish.goal.health == Some(Switch::Disabled) {
        return Ok(());
    }
    for (at, entry) in ran.haproxy().log.iter().enumerate() {
        if matches!(entry, Entry::Set { who: Who::SomebodyElse, .. }) {
            break;
        }
        let Entry::Set { who: Who::Run, name, from, to, .. } = entry else { continue };
        let counts = counts_before(&ran.haproxy().log, at, name);
        let told = counts.last().map(|(_, statistics)| *statistics);
        let is_checked =
            to.health == Some(Switch::Enabled) && told.is_none_or(|statistics| statistics.tracks.is_none());
        let was_out = from.flags.effective() == AdminState::Maint || from.flags.forced() == Some(AdminState::Drain);
        if !is_checked || !was_out || to.flags.effective() != AdminState::Ready {
            continue;
        }
        prop_assert!(from.flags.effective() == AdminState::Drain, "{} went straight from maint to ready", name);
        let counter = told.and_then(|statistics| statistics.counter);
        let has_passed = counter.is_some_and(|counter| counter.health > counter.rise);
        prop_assert!(has_passed, "{} went to ready without a check: {:?}", name, told);
    }
    Ok(())
}

/// A server that was waited for and has not failed was seen there by the last poll.
fn what_was_waited_for_is_there(wish: &Wish, target: &Target) -> std::result::Result<(), TestCaseError> {
    let request = wish.request();
    let is_awaited = request.wait.is_some() && request.shutdown_sessions.is_none();
    if !is_awaited || target.verdict != Verdict::Fine || target.undo.is_some() {
        return Ok(());
    }
    let name = target.before.full_name();
    let Some(poll) = target.last_poll.as_deref() else {
        return Err(TestCaseError::fail(format!("{name} is fine, but was never polled")));
    };
    let statistics = &poll.statistics;
    match wish.goal.effect() {
        Some(Effect::InTraffic) => {
            let status = if target.last().state.health.is_some() { "UP" } else { "no check" };
            let is_proven = statistics.counter.as_ref().is_none_or(|counter| counter.health > counter.rise);
            let has_check = target.last().has_check();
            prop_assert!(statistics.status == status && (is_proven || !has_check), "{} is not up: {:?}", name, poll);
        }
        Some(Effect::FreeInDrain | Effect::FreeInMaint | Effect::FreeAtNoWeight) => {
            prop_assert!(statistics.sessions == 0, "{} has sessions: {:?}", name, poll);
        }
        None => return Err(TestCaseError::fail(format!("{name} was waited for without an effect"))),
    }
    Ok(())
}

fn check(wish: &Wish, scripts: &[Script]) -> std::result::Result<(), TestCaseError> {
    let outcome = run(&wish.request(), scripts);
    let told = |error| {
        let logs: Vec<String> = outcome.instances.iter().map(tell).collect();
        TestCaseError::fail(format!("{error}\n{}", logs.join("\n\n")))
    };
    check_outcome(wish, &outcome).map_err(told)
}

/// Tells what has happened, for a person who looks for why.
fn tell(ran: &Ran) -> String {
    let log = ran.haproxy().log.iter().map(|entry| format!("{entry:?}"));
    let targets = ran.targets.iter().map(|target| {
        let Target { reading, verdict, undo, sent, .. } = target;
        format!("{}: {reading:?}\n    {verdict:?}\n    undo {undo:?}\n    {sent:?}", target.before.full_name())
    });
    let log = log.take(200);
    let errors = format!("{:?}, {:?}, {:?}", ran.error, ran.undo_error, ran.warnings);
    log.chain(targets).chain([errors]).collect::<Vec<_>>().join("\n")
}

fn check_outcome(wish: &Wish, outcome: &Outcome) -> std::result::Result<(), TestCaseError> {
    let is_bad = |ran: &Ran| ran.error.is_some() || ran.targets.iter().any(|target| target.error().is_some());
    let has_failed = outcome.result.is_err() || outcome.instances.iter().any(is_bad);
    for ran in &outcome.instances {
        prop_assert!(!ran.haproxy().was_asked_without_end(), "the run does not end");
        if !outcome.was_permitted {
            let was_sent = ran.haproxy().log.iter().any(|entry| matches!(entry, Entry::Batch(_)));
            prop_assert!(!was_sent, "something was sent although the run was not permitted");
            continue;
        }
        for target in &ran.targets {
            what_has_not_failed_was_seen_as_requested(&wish.goal, ran, target)?;
            what_is_changed_was_set(ran, target)?;
            if !has_failed {
                what_was_waited_for_is_there(wish, target)?;
            }
        }
        no_session_is_cut(wish, ran)?;
        nothing_is_put_back_untried(wish, ran)?;
        what_others_have_set_is_left_alone(ran)?;
        if let Some(guard) = wish.guard {
            no_guard_is_passed(guard, ran)?;
        }
    }
    Ok(())
}

/// More cases than usual, because so much can happen.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.max(1_000), max_shrink_iters: 3_000, failure_persistence: None, ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_the_report_is_true(wish in wishes(), script in scripts()) {
        check(&wish, &[script])?;
    }

    #[test]
    fn whatever_happens_to_one_instance_the_report_is_true(
        wish in wishes(),
        one in scripts(),
        other in scripts(),
    ) {
        check(&wish, &[one, other])?;
    }
}
