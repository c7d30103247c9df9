//! Takes servers out without cutting anybody off: drain first, maint as soon as a server has nothing left to do.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fleet::{Fleet, Processes, servers};
use super::instance::{Instance, PROCESSES};
use super::sessions::is_busy;
use super::target::{Poll, Target};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::goal::Goal;
use crate::model::state::{AdminState, OperationalState};
use crate::request::{DrainBounds, OnTimeout};
use crate::time::deadline::{Backoff, Deadline};

/// How a drain has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every server that has not failed is in maint.
    Done,
    /// Servers went to maint with sessions left, which must be ended.
    Shutdown,
    /// Servers had sessions left, and everything that was changed must be rolled back.
    Rollback,
}

/// The next state of a server on its way to maint.
///
/// A server in maintenance stays there, and one that is down has no traffic to wait for. A server in drain goes on to
/// maintenance once a poll shows nothing left to do: it may have been in drain since before a reload, and only polls
/// count what old processes do.
#[must_use]
fn next_state(target: &Target, stable: Duration) -> AdminState {
    let state = &target.last().state;
    let is_out = state.flags.effective() == AdminState::Maint || state.operational == OperationalState::Stopped;
    let is_free = state.flags.forced() == Some(AdminState::Drain)
        && target.last_poll.as_deref().is_some_and(|poll| poll.is_drained(stable));
    if is_out || is_free { AdminState::Maint } else { AdminState::Drain }
}

/// Returns the next goal of a server on its way to the requested one.
#[must_use]
pub fn next_step(goal: Goal, target: &Target, stable: Duration) -> Goal {
    Goal { state: Some(next_state(target, stable)), ..goal }
}

/// Says what a server is still doing, or what keeps it from counting as free.
#[must_use]
pub fn what_is_left(poll: Option<&Poll>) -> String {
    let count = |count: u32, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let Some(Poll { statistics, held_by, kept_for, .. }) = poll else {
        return "an unknown number of sessions".to_owned();
    };
    let sessions = count(statistics.sessions, "session", "sessions");
    match (statistics.queue, statistics.sessions, held_by, kept_for) {
        (0, 0, Some(pid), _) => format!("a process from before a reload ({pid})"),
        (0, 0, None, Some(tracker)) => format!("a tracking server that is not drained ({tracker})"),
        (0, 0, None, None) => "new sessions all the time".to_owned(),
        (0, _, _, _) => sessions,
        (queue, _, _, _) => format!("{sessions} and {} in its queue", count(queue, "request", "requests")),
    }
}

/// Drains the servers of all instances under one deadline, and sets each to maint as soon as it is drained; calls
/// `keep` after each step.
///
/// # Errors
/// When a signal ends the run or the lock cannot be retaken. Failures of an instance or a server are kept there.
pub fn drain(
    fleet: &mut Fleet<'_>,
    goal: Goal,
    bounds: DrainBounds,
    keep: &mut dyn FnMut(&mut Fleet<'_>),
) -> Result<End> {
    fleet.step(&|target| next_step(goal, target, bounds.stable))?;
    keep(fleet);
    let deadline = fleet.deadline(bounds.timeout);
    let mut backoff = Backoff::default();
    let mut is_over = false;
    while fleet.at_work().any(is_draining) {
        if is_over {
            return time_is_over(fleet, goal, bounds);
        }
        // Whatever moves, be it one process after the other: this was the last time.
        is_over = deadline.is_over();
        match until_something_moves(fleet, bounds, &deadline, &mut backoff)? {
            Moved::Some => {
                fleet.step(&|target| next_step(goal, target, bounds.stable))?;
                keep(fleet);
            }
            Moved::None => is_over = true,
        }
    }
    Ok(End::Done)
}

/// Tells whether a server was set to drain and must go on to maint.
fn is_draining(target: &Target) -> bool {
    target.plan.as_ref().is_some_and(|planned| planned.goal.state == Some(AdminState::Drain))
}

/// Whether anything happened to servers in drain before the deadline.
enum Moved {
    Some,
    None,
}

/// Polls the servers in drain, and nothing else, until there is something to do.
fn until_something_moves(
    fleet: &mut Fleet<'_>,
    bounds: DrainBounds,
    deadline: &Deadline<'_>,
    backoff: &mut Backoff,
) -> Result<Moved> {
    let count = fleet.at_work().filter(|target| is_draining(target)).count();
    loop {
        if fleet.poll(&is_draining)? == Processes::Replaced {
            return Ok(Moved::Some);
        }
        fleet.instances.iter_mut().for_each(|instance| keep_tracked(instance, bounds.stable));
        let draining: Vec<&Target> = fleet.at_work().filter(|target| is_draining(target)).collect();
        let polls = || draining.iter().filter_map(|target| target.last_poll.as_deref());
        // A failed server is not polled again.
        if draining.len() < count || polls().any(|poll| poll.is_drained(bounds.stable)) {
            backoff.reset();
            return Ok(Moved::Some);
        }
        if deadline.is_over() {
            if !backoff.is_first() {
                return Ok(Moved::None);
            }
            fleet.pause_once(backoff)?;
            continue;
        }
        let is_any_other = polls().any(is_out_of_drain);
        let (all, left) = (fleet.count(), deadline.seconds_left());
        let done = all.saturating_sub(count);
        (fleet.progress)(&format!("drained {done} of {}, {}, {left} s to go", servers(all), progress(&draining)));
        fleet.pause(backoff, deadline)?;
        if is_any_other {
            // It went down, or somebody else has set it: a new plan must judge that.
            return Ok(Moved::Some);
        }
    }
}

/// Keeps servers in drain while one that tracks them is not drained, even if that one has failed: HAProxy would set it to
/// maint with them.
pub(super) fn keep_tracked(instance: &mut Instance<'_>, stable: Duration) {
    // A server that is kept may itself track another.
    loop {
        let busy = instance.targets.iter().filter(|target| target.is_there() && is_draining(target));
        let trackers: BTreeMap<String, String> = busy
            .filter(|target| next_state(target, stable) == AdminState::Drain)
            .filter_map(|target| Some((target.last().tracks()?.to_owned(), target.before.full_name())))
            .collect();
        if trackers.is_empty() {
            return;
        }
        let kept = instance.targets.iter_mut().filter_map(|target| {
            let tracker = trackers.get(&target.before.full_name())?;
            let poll = target.last_poll.as_deref_mut().filter(|poll| poll.kept_for.is_none())?;
            poll.kept_for = Some(tracker.clone());
            Some(())
        });
        if kept.count() == 0 {
            return;
        }
    }
}

/// Says how many sessions are left, and where most of them are.
fn progress(draining: &[&Target]) -> String {
    let left = |target: &&&Target| {
        target.last_poll.as_ref().map_or(0, |poll| poll.statistics.sessions.saturating_add(poll.statistics.queue))
    };
    let total = draining.iter().map(|target| left(&target)).fold(0, u32::saturating_add);
    let most = draining.iter().max_by_key(left).map(|target| target.before.full_name()).unwrap_or_default();
    let place = if draining.len() == 1 { format!(" on {most}") } else { format!(", most on {most}") };
    format!("{total} {} left{place}", if total == 1 { "session" } else { "sessions" })
}

/// Tells whether a server that was set to drain is something else now.
fn is_out_of_drain(poll: &Poll) -> bool {
    ["UP", "no check", "DOWN", "MAINT"].iter().any(|status| poll.statistics.status.starts_with(status))
}

/// Applies the request's policy to servers that still have sessions at the deadline.
fn time_is_over(fleet: &mut Fleet<'_>, goal: Goal, bounds: DrainBounds) -> Result<End> {
    let seconds = bounds.timeout.as_secs_f64();
    for instance in fleet.instances.iter_mut().filter(|instance| instance.error.is_none()) {
        for target in instance.targets.iter_mut().filter(|target| target.is_at_work() && is_draining(target)) {
            let (name, left) = (target.before.full_name(), what_is_left(target.last_poll.as_deref()));
            match bounds.on_timeout {
                OnTimeout::Fail | OnTimeout::Rollback => {
                    let msg = format!(
                        "{name} still has {left} after {seconds} s of drain; usually these are clients with a persistence \
                         cookie, long downloads or idle TCP sessions: allow more time, or set 'drain.on_timeout' to 'maint' or 'shutdown'"
                    );
                    target.fail(Error::new(ErrorKind::NotDrained, msg));
                }
                OnTimeout::Shutdown => {
                    instance.warnings.push(format!("{name} went to maint with {left} after {seconds} s of drain"));
                }
                OnTimeout::Maint => {}
            }
        }
    }
    match bounds.on_timeout {
        OnTimeout::Fail => Ok(End::Done),
        OnTimeout::Rollback => Ok(End::Rollback),
        OnTimeout::Maint => set_to_maint_with_sessions(fleet, goal, seconds).map(|()| End::Done),
        OnTimeout::Shutdown => fleet.step(&|_| goal).map(|()| End::Shutdown),
    }
}

/// Sets the servers to maint that still have sessions, and warns of those that keep them: a moment later HAProxy may have
/// ended the sessions of a server that leaves service (`on-marked-down shutdown-sessions`).
fn set_to_maint_with_sessions(fleet: &mut Fleet<'_>, goal: Goal, seconds: f64) -> Result<()> {
    let names = |instance: &Instance<'_>| -> Vec<String> {
        let late = instance.targets.iter().filter(|target| target.is_at_work() && is_draining(target));
        late.map(|target| target.before.full_name()).collect()
    };
    let late: Vec<Vec<String>> = fleet.instances.iter().map(names).collect();
    let is_late = |target: &Target| late.iter().flatten().any(|name| *name == target.before.full_name());
    fleet.step(&|_| goal)?;
    let mut backoff = Backoff::default();
    for _ in 0..PROCESSES {
        if fleet.poll(&is_late)? == Processes::Replaced {
            fleet.step(&|_| goal)?;
        } else if fleet.at_work().any(|target| is_late(target) && is_busy(target)) && backoff.is_first() {
            fleet.pause_once(&mut backoff)?;
        } else {
            break;
        }
    }
    for (instance, late) in fleet.instances.iter_mut().zip(&late).filter(|(instance, _)| instance.error.is_none()) {
        let is_late = |target: &&Target| late.contains(&target.before.full_name());
        for target in instance.targets.iter().filter(is_late).filter(|target| target.is_at_work() && is_busy(target)) {
            let (name, left) = (target.before.full_name(), what_is_left(target.last_poll.as_deref()));
            instance.warnings.push(format!("{name} went to maint with {left} after {seconds} s of drain"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::server::{Server, ServerState};
    use crate::model::state::AdminFlags;

    fn target(flags: u32, operational: OperationalState) -> Target {
        let example = Server::example();
        let state = ServerState { flags: AdminFlags(flags), operational, ..example.state };
        Target::new(Server { state, ..example })
    }

    #[test]
    fn a_server_without_traffic_needs_no_drain() {
        let (running, stopped) = (OperationalState::Running, OperationalState::Stopped);
        for (flags, operational, expected) in [
            (0, running, AdminState::Drain),
            (0, stopped, AdminState::Maint),
            (AdminFlags::FORCED_MAINT, stopped, AdminState::Maint),
            (AdminFlags::INHERITED_MAINT, running, AdminState::Maint),
            (AdminFlags::FORCED_DRAIN, running, AdminState::Drain),
            (AdminFlags::FORCED_DRAIN, stopped, AdminState::Maint),
        ] {
            let target = target(flags, operational);
            assert_eq!(next_state(&target, Duration::ZERO), expected, "{flags} {operational:?}");
        }
    }
}
