//! Ends the sessions that are left on servers in maint.

use super::drain::what_is_left;
use super::fleet::{Fleet, Processes, servers};
use super::target::Target;
use crate::haproxy::client::Answered;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::goal::Goal;
use crate::model::state::AdminState;
use crate::time::deadline::{Backoff, Deadline};
use std::time::Duration;

/// Ends the sessions that are left on servers in maint, again and again until none is left.
///
/// # Errors
/// When a signal ends the run or the lock cannot be retaken. Failures of an instance or a server are kept there.
pub fn end_sessions(fleet: &mut Fleet<'_>, goal: Goal, timeout: Duration) -> Result<()> {
    let deadline = Deadline::after(timeout);
    let mut backoff = Backoff::default();
    loop {
        if fleet.poll(&is_out)? == Processes::Replaced {
            // A new process knows nothing of the change.
            fleet.step(&|_| goal)?;
            continue;
        }
        let count = fleet.at_work().filter(|target| is_busy(target)).count();
        if count == 0 {
            return Ok(());
        }
        if deadline.is_over() {
            fleet.at_work_mut().filter(|target| is_busy(target)).for_each(|target| fail(target, timeout));
            return Ok(());
        }
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
        (fleet.progress)(&format!("ending the sessions of {}, {} s to go", servers(count), deadline.seconds_left()));
        fleet.pause(&mut backoff, &deadline)?;
    }
}

fn is_out(target: &Target) -> bool {
    target.last().state.flags.effective() == AdminState::Maint
}

/// Tells whether a server in maint has something left to do.
fn is_busy(target: &Target) -> bool {
    is_out(target)
        && target.last_poll.as_ref().is_some_and(|poll| poll.statistics.sessions > 0 || poll.statistics.queue > 0)
}

fn fail(target: &mut Target, timeout: Duration) {
    let (name, left) = (target.before.full_name(), what_is_left(target.last_poll.as_deref()));
    let msg = format!(
        "{name} is not free of sessions after {} s: it has {left}; allow more time, or find out what keeps them",
        timeout.as_secs_f64()
    );
    target.fail(Error::new(ErrorKind::NotDrained, msg));
}
