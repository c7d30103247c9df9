//! Ends the sessions that are left on servers in maint.

use super::carry_out::Again;
use super::drain::{End, what_is_left};
use super::fleet::{Fleet, Processes, servers};
use super::instance::Instance;
use super::target::Target;
use crate::haproxy::client::Answered;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::state::AdminState;
use crate::time::deadline::Backoff;
use std::time::Duration;

/// The interval at which a part of the sessions is ended, if they are ended gradually.
const TICK: Duration = Duration::from_millis(200);

/// Ends the sessions that are left on servers in maint evenly over some time, so that their clients do not all
/// reconnect at once.
///
/// # Errors
/// As [`end_sessions`].
pub fn end_sessions_over(fleet: &mut Fleet<'_>, over: Duration, again: Again<'_>) -> Result<End> {
    let deadline = fleet.deadline(over);
    let mut totals: Vec<u32> = Vec::new();
    let mut ended: Vec<u32> = Vec::new();
    while !deadline.is_over() {
        if fleet.poll(&is_out)? == Processes::Replaced {
            match again(fleet, deadline.left())? {
                End::Done | End::Shutdown => continue,
                End::Rollback => return Ok(End::Rollback),
            }
        }
        let left: Vec<u32> = fleet.instances.iter().map(sessions_left).collect();
        if left.iter().all(|left| *left == 0) {
            return Ok(End::Done);
        }
        if totals.is_empty() {
            totals.clone_from(&left);
            ended = vec![0; left.len()];
        }
        let share = 1.0 - deadline.left().as_secs_f64() / over.as_secs_f64().max(f64::EPSILON);
        let instances = fleet.instances.iter_mut().filter(|instance| instance.error.is_none());
        for (instance, (total, ended)) in instances.zip(totals.iter().zip(&mut ended)) {
            let due = due(*total, share).saturating_sub(*ended);
            if due == 0 {
                continue;
            }
            match instance.end_some_sessions(is_busy, usize::try_from(due).unwrap_or(usize::MAX)) {
                Ok(Answered::Same(count)) => *ended = ended.saturating_add(u32::try_from(count).unwrap_or(due)),
                // The next poll follows a process that has taken over.
                Ok(Answered::Replaced(_)) => {}
                Err(error) => instance.error = Some(error),
            }
        }
        let (left, seconds) =
            (left.iter().fold(0, |sum: u32, left| sum.saturating_add(*left)), deadline.seconds_left());
        (fleet.progress)(&format!("ending {left} sessions, {seconds} s to go"));
        fleet.exclusion.release();
        fleet.clock.pause(TICK.min(deadline.left()), fleet.signals)?;
    }
    Ok(End::Done)
}

/// Counts the sessions that are left on an instance's servers in maint.
fn sessions_left(instance: &Instance<'_>) -> u32 {
    let busy = instance.targets.iter().filter(|target| target.is_at_work() && is_busy(target));
    let sessions = busy.filter_map(|target| Some(target.last_poll.as_ref()?.statistics.sessions));
    sessions.fold(0, u32::saturating_add)
}

/// Returns how many of all sessions should be ended after a share of the time.
fn due(total: u32, share: f64) -> u32 {
    let due = (f64::from(total) * share.clamp(0.0, 1.0)).ceil();
    (0..=total).rev().find(|count| f64::from(*count) <= due).unwrap_or_default()
}

/// Ends the sessions that are left on servers in maint, again and again until none is left.
///
/// # Errors
/// When a signal ends the run or the lock cannot be retaken. Failures of an instance or a server are kept there.
pub fn end_sessions(fleet: &mut Fleet<'_>, timeout: Duration, again: Again<'_>) -> Result<End> {
    let deadline = fleet.deadline(timeout);
    let mut backoff = Backoff::default();
    loop {
        let is_over = deadline.is_over();
        let polled = fleet.poll(&is_out)?;
        if polled == Processes::Same {
            let count = fleet.at_work().filter(|target| is_busy(target)).count();
            if count > 0 && !is_over {
                end_all(fleet);
                let left = deadline.seconds_left();
                (fleet.progress)(&format!("ending the sessions of {}, {left} s to go", servers(count)));
                fleet.pause(&mut backoff, &deadline)?;
                continue;
            }
            fleet.at_work_mut().filter(|target| is_busy(target)).for_each(|target| fail(target, timeout));
        }
        // What is reported is how the servers are in the end.
        if polled == Processes::Same && fleet.refresh()? == Processes::Same {
            return Ok(End::Done);
        }
        match again(fleet, deadline.left())? {
            End::Done | End::Shutdown => {}
            End::Rollback => return Ok(End::Rollback),
        }
        if is_over {
            fleet.at_work_mut().filter(|target| is_busy(target)).for_each(|target| fail(target, timeout));
            return Ok(End::Done);
        }
    }
}

/// Ends the sessions of all servers in maint that have any.
fn end_all(fleet: &mut Fleet<'_>) {
    let signals = fleet.signals;
    for instance in fleet.instances.iter_mut().filter(|instance| instance.error.is_none()) {
        if !instance.targets.iter().any(|target| target.is_at_work() && is_busy(target)) {
            continue;
        }
        match instance.end_sessions(|target| target.is_at_work() && is_busy(target), signals) {
            // The next poll follows a process that has taken over.
            Ok(Answered::Same(()) | Answered::Replaced(_)) => {}
            Err(error) => instance.error = Some(error),
        }
    }
}

fn is_out(target: &Target) -> bool {
    target.last().state.flags.effective() == AdminState::Maint
}

/// Tells whether a server in maint has something left to do, or may have.
#[must_use]
pub fn is_busy(target: &Target) -> bool {
    is_out(target) && !target.last_poll.as_deref().is_some_and(|poll| poll.statistics.is_idle())
}

fn fail(target: &mut Target, timeout: Duration) {
    let (name, left) = (target.before.full_name(), what_is_left(target.last_poll.as_deref()));
    let msg = format!(
        "{name} is not free of sessions after {} s: it has {left}; allow more time, or find out what keeps them",
        timeout.as_secs_f64()
    );
    target.fail(Error::new(ErrorKind::NotDrained, msg));
}
