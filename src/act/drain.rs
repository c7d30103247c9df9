//! Takes servers out without cutting anybody off: drain first, maint as soon as a server has nothing left to do.

use crate::act::fleet::{Fleet, Look, servers};
use crate::haproxy::observe::Server;
use crate::haproxy::parse::StatRow;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::state::{AdminState, OperationalState};
use crate::request::{Change, DrainBounds, OnTimeout};
use crate::time::deadline::{Backoff, Deadline};

/// How a drain has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every server that has not failed is in maint.
    Done,
    /// Servers went to maint with sessions left, which are to be ended.
    Shutdown,
    /// Servers had sessions left, and all that was changed is to be set back.
    Rollback,
}

/// The state that a server is to be in next, on its way to maint.
///
/// What is in maintenance stays there, and what is down takes no traffic that could be waited for. What is in drain goes
/// on to maintenance once its statistics show nothing left to do, those of old workers included: it may have been in
/// drain since before a reload.
#[must_use]
fn next_state(server: &Server) -> AdminState {
    let is_out = server.flags.effective() == AdminState::Maint || server.operational == OperationalState::Stopped;
    let is_free = server.flags.forced() == Some(AdminState::Drain)
        && server.is_whole
        && server.stat.as_deref().is_some_and(is_drained);
    if is_out || is_free { AdminState::Maint } else { AdminState::Drain }
}

/// Returns what a server is to become next, on its way to what is wanted.
#[must_use]
pub fn next_step(change: Change, server: &Server) -> Change {
    Change { state: Some(next_state(server)), ..change }
}

/// Tells whether a server has nothing left to do.
#[must_use]
pub fn is_drained(stat: &StatRow) -> bool {
    stat.sessions == 0 && stat.queue == 0
}

/// Says what a server is still doing.
#[must_use]
pub fn what_is_left(stat: Option<&StatRow>) -> String {
    let count = |count: u32, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    match stat {
        None => "an unknown number of sessions".to_owned(),
        Some(stat) if stat.queue > 0 => format!(
            "{} and {} in its queue",
            count(stat.sessions, "session", "sessions"),
            count(stat.queue, "request", "requests")
        ),
        Some(stat) => count(stat.sessions, "session", "sessions"),
    }
}

/// Drains the servers of all instances under one deadline, and sets each to maint as soon as it is drained.
///
/// # Errors
/// When a signal ends the run or the lock cannot be had again. What fails on an instance or a server is kept there.
pub fn drain(fleet: &mut Fleet<'_>, change: Change, bounds: DrainBounds) -> Result<End> {
    let deadline = Deadline::after(bounds.timeout);
    let mut backoff = Backoff::default();
    loop {
        fleet.carry_out(&|_, server| next_step(change, server))?;
        let draining = fleet.pick(|_, managed, place| {
            managed.planned.get(place).is_some_and(|planned| planned.goal.state == Some(AdminState::Drain))
        });
        if draining.iter().all(Vec::is_empty) {
            return Ok(End::Done);
        }
        match until_something_moves(fleet, &draining, &deadline, &mut backoff)? {
            Moved::Some => {}
            Moved::None => return time_is_over(fleet, change, &draining, bounds),
        }
    }
}

/// Whether anything has happened to servers in drain before the time was over.
enum Moved {
    Some,
    None,
}

/// Looks at the servers in drain, and at nothing else, until there is something to do.
fn until_something_moves(
    fleet: &mut Fleet<'_>,
    draining: &[Vec<usize>],
    deadline: &Deadline,
    backoff: &mut Backoff,
) -> Result<Moved> {
    let count: usize = draining.iter().map(Vec::len).sum();
    loop {
        let Some(looks) = fleet.look(draining)? else { return Ok(Moved::Some) };
        // What has failed on an instance is not looked at again.
        let is_any_missing = looks.len() < count;
        let stats = || looks.iter().filter_map(|look| look.stat.as_ref());
        let is_any_free = stats().any(is_drained);
        let is_any_other = stats().any(is_out_of_drain);
        let progress = progress(&looks);
        let gone: Vec<(usize, usize)> =
            looks.iter().filter(|look| look.stat.is_none()).map(|look| (look.instance, look.place)).collect();
        let is_any_gone = !gone.is_empty();
        fail_gone(fleet, &gone);
        if is_any_free || is_any_gone || is_any_missing {
            backoff.reset();
            return Ok(Moved::Some);
        }
        if deadline.is_over() {
            return Ok(Moved::None);
        }
        let all = fleet.count();
        let left = deadline.seconds_left();
        (fleet.progress)(&format!(
            "drained {} of {}, {progress}, {left} s to go",
            all.saturating_sub(count),
            servers(all)
        ));
        fleet.pause(backoff, deadline)?;
        if is_any_other {
            // It went down, or somebody else has set it: that is for a new plan to judge.
            return Ok(Moved::Some);
        }
    }
}

/// Says for a person how many sessions are left, and where the most of them are.
fn progress(looks: &[Look<'_>]) -> String {
    let left = |look: &Look<'_>| look.stat.as_ref().map_or(0, |stat| stat.sessions.saturating_add(stat.queue));
    let total = looks.iter().map(left).fold(0, u32::saturating_add);
    let most = looks.iter().max_by_key(|look| left(look)).map(|look| look.server.full_name()).unwrap_or_default();
    let where_ = if looks.len() == 1 { format!("on {most}") } else { format!("most on {most}") };
    format!("{total} {} left {where_}", if total == 1 { "session" } else { "sessions" })
}

/// Tells whether a server that was set to drain is something else now.
fn is_out_of_drain(stat: &StatRow) -> bool {
    ["UP", "no check", "DOWN", "MAINT"].iter().any(|status| stat.status.starts_with(status))
}

/// Says of servers that HAProxy does not know them any more.
fn fail_gone(fleet: &mut Fleet<'_>, places: &[(usize, usize)]) {
    for &(instance, place) in places {
        let Some(managed) = fleet.managed.get_mut(instance) else { continue };
        managed.fail(place, |_, server| {
            let name = server.full_name();
            (ErrorKind::ServerNotFound, format!("{name} is gone: it was deleted while it was drained"))
        });
    }
}

/// Does what the request says about servers that have sessions when the time is over.
fn time_is_over(fleet: &mut Fleet<'_>, change: Change, draining: &[Vec<usize>], bounds: DrainBounds) -> Result<End> {
    for (managed, places) in fleet.managed.iter_mut().zip(draining) {
        for &place in places {
            let (Some(outcome), Some(server)) = (managed.outcomes.get_mut(place), managed.current.servers.get(place))
            else {
                continue;
            };
            let left = what_is_left(outcome.last_seen.as_deref());
            let name = server.full_name();
            let seconds = bounds.timeout.as_secs_f64();
            match bounds.on_timeout {
                OnTimeout::Fail | OnTimeout::Rollback => {
                    let msg = format!(
                        "{name} still has {left} after {seconds} s of drain; mostly these are clients with a persistence \
                         cookie, long downloads or idle TCP sessions: give more time, or set 'drain.on_timeout' to 'maint' or 'shutdown'"
                    );
                    outcome.error =
                        Some(Error::new(ErrorKind::NotDrained, msg).on_server(&server.backend, &server.server));
                }
                OnTimeout::Maint | OnTimeout::Shutdown => {
                    managed.warnings.push(format!("{name} went to maint with {left} after {seconds} s of drain"));
                }
            }
        }
    }
    match bounds.on_timeout {
        OnTimeout::Fail => Ok(End::Done),
        OnTimeout::Rollback => Ok(End::Rollback),
        OnTimeout::Maint | OnTimeout::Shutdown => {
            fleet.carry_out(&|_, _| change)?;
            Ok(if bounds.on_timeout == OnTimeout::Shutdown { End::Shutdown } else { End::Done })
        }
    }
}
