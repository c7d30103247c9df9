//! Ends the sessions that are left on servers in maint.

use super::drain::{is_drained, what_is_left};
use super::fleet::{Fleet, Processes, servers};
use super::target::Target;
use crate::haproxy::client::Answered;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::goal::Goal;
use crate::model::state::AdminState;
use crate::time::deadline::Backoff;
use std::time::Duration;

/// Ends the sessions that are left on servers in maint, again until none is left.
///
/// # Errors
/// When a signal ends the run or the lock cannot be had again. What fails on an instance or a server is kept there.
pub fn end_sessions(fleet: &mut Fleet<'_>, goal: Goal, timeout: Duration) -> Result<()> {
    let result = until_none_is_left(fleet, goal, timeout);
    if let Err(error) = &result {
        fleet.at_work_mut().filter(|target| is_busy(target)).for_each(|target| target.fail(error.clone()));
    }
    result
}

fn until_none_is_left(fleet: &mut Fleet<'_>, goal: Goal, timeout: Duration) -> Result<()> {
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
            return Ok(());
        }
        // A new process knows nothing of the change.
        fleet.step(&|_| goal)?;
        if is_over {
            fleet.at_work_mut().filter(|target| is_busy(target)).for_each(|target| fail(target, timeout));
            return Ok(());
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
fn is_busy(target: &Target) -> bool {
    is_out(target) && !target.last_poll.as_deref().is_some_and(is_drained)
}

fn fail(target: &mut Target, timeout: Duration) {
    let (name, left) = (target.before.full_name(), what_is_left(target.last_poll.as_deref()));
    let msg = format!(
        "{name} is not free of sessions after {} s: it has {left}; give more time, or look at processes from before a \
         reload, whose sessions cannot be ended from here",
        timeout.as_secs_f64()
    );
    target.fail(Error::new(ErrorKind::NotDrained, msg));
}
