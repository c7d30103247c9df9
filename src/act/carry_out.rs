//! The steps of a permitted change: send, drain or wait if requested, keep it over reloads, roll back.

use super::audit::{Moment, log_changes};
use super::drain::{End, drain, next_step};
use super::fleet::Fleet;
use super::instance::Instance;
use super::put_back::{self, put_back};
use super::records::{compare, save, save_for_good};
use super::rollback::roll_back;
use super::sessions::{end_sessions, end_sessions_over};
use super::wait::wait;
use crate::model::error::Result;
use crate::model::goal::Goal;
use crate::model::state::AdminState;
use crate::request::{OnFailure, Pace, Request};

/// Records who has taken servers out.
pub type Record<'a> = &'a mut dyn FnMut(&mut Fleet<'_>);

/// Sends what is needed and waits as requested; after a failure it rolls back if the request says so.
///
/// # Errors
/// Returns what ended the run as a whole. Failures of an instance or a server are kept there.
pub fn carry_out(request: &Request, goal: Goal, fleet: &mut Fleet<'_>, record: Record<'_>) -> Result<()> {
    let result = change_and_wait(request, goal, fleet, record).and_then(|end| match end {
        End::Done | End::Shutdown => save_for_good(request, goal, fleet).map(|()| end),
        End::Rollback => Ok(end),
    });
    if result.is_err() {
        // Somebody else may have changed something during a pause.
        fleet.refresh().ok();
    }
    fleet.conclude(&goal, result.as_ref().err());
    warn_of_traffic(request, fleet)?;
    match result {
        Ok(End::Done | End::Shutdown) => {}
        Ok(End::Rollback) | Err(_) => save(request, fleet),
    }
    let must_roll_back = request.on_failure == OnFailure::Rollback && (result.is_err() || fleet.has_failed());
    if must_roll_back || matches!(result, Ok(End::Rollback)) {
        log_changes(fleet, Moment::UnderWay);
        let rolled_back = roll_back(fleet);
        fleet.conclude(&goal, result.as_ref().err());
        rolled_back?;
        save(request, fleet);
    }
    result.map(drop)
}

/// Warns of traffic that may still reach servers that are out: new sessions while draining, and old processes.
fn warn_of_traffic(request: &Request, fleet: &mut Fleet<'_>) -> Result<()> {
    if !matches!(request.state(), Some(AdminState::Drain | AdminState::Maint)) {
        return Ok(());
    }
    // Otherwise a poll has found them already.
    if request.drain.is_none() && request.wait.is_none() && request.shutdown_sessions.is_none() {
        fleet.note_old_processes()?;
    }
    fleet.instances.iter_mut().for_each(Instance::warn_of_traffic);
    Ok(())
}

fn change_and_wait(request: &Request, goal: Goal, fleet: &mut Fleet<'_>, record: Record<'_>) -> Result<End> {
    // A reload while this run waits must not lose what it has set, and others must see who did it.
    let mut kept = None;
    let mut keep = |fleet: &mut Fleet<'_>| {
        if kept.replace(fleet.changes) == Some(fleet.changes) {
            return;
        }
        save(request, fleet);
        if request.state() != Some(AdminState::Ready) {
            record(fleet);
        }
        log_changes(fleet, Moment::UnderWay);
    };
    let deadline = fleet.deadline(request.wait.map(|bounds| bounds.timeout).unwrap_or_default());
    let end = match (request.drain, goal.state, request.wait) {
        (Some(bounds), _, _) => drain(fleet, goal, bounds, &mut keep)?,
        (None, Some(AdminState::Ready), Some(bounds)) => {
            put_back(fleet, goal, bounds, &deadline, &mut keep).map(|()| End::Done)?
        }
        (None, _, _) => fleet.step(&|_| goal).map(|()| End::Done)?,
    };
    if request.wait.is_some() || request.shutdown_sessions.is_some() {
        keep(fleet);
    }
    if let (End::Done, Some(effect), Some(bounds), None) = (end, goal.effect(), request.wait, request.shutdown_sessions)
    {
        // A drain has its own deadline.
        let deadline = if request.drain.is_some() { fleet.deadline(bounds.timeout) } else { deadline };
        wait(fleet, goal, effect, bounds, &deadline)?;
    }
    if let Some(Pace { over }) = request.shutdown_sessions {
        end_sessions_over(fleet, goal, over)?;
    }
    if request.shutdown_sessions.is_some() || end == End::Shutdown {
        end_sessions(fleet, goal, request.time_for_sessions(end == End::Shutdown))?;
    }
    Ok(end)
}

/// Predicts what a run would send and how the servers would be then.
pub fn foresee(request: &Request, goal: Goal, fleet: &mut Fleet<'_>) {
    match (request.drain, goal.state, request.wait) {
        (Some(bounds), _, _) => fleet.foresee(&|target| next_step(goal, target, bounds.stable)),
        (None, Some(AdminState::Ready), Some(bounds)) => {
            fleet.foresee(&|target| put_back::next_step(goal, target, bounds));
        }
        (None, _, _) => {}
    }
    fleet.foresee(&|_| goal);
    compare(request, fleet);
}
