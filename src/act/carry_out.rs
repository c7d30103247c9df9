//! The steps of a change that is permitted: send, drain or wait where asked, keep it over reloads, roll back.

use super::drain::{End, drain, next_step};
use super::fleet::Fleet;
use super::records::{compare, save};
use super::rollback::roll_back;
use super::sessions::end_sessions;
use super::wait::wait;
use crate::model::error::Result;
use crate::model::goal::Goal;
use crate::model::state::AdminState;
use crate::request::{OnFailure, Request};

/// Records who has taken servers out.
pub type Record<'a> = &'a mut dyn FnMut(&mut Fleet<'_>);

/// Sends what is needed and waits as long as asked; what has failed is rolled back if the request says so.
///
/// # Errors
/// With what ended the run as a whole. What fails on an instance or a server is kept there.
pub fn carry_out(request: &Request, goal: Goal, fleet: &mut Fleet<'_>, record: Record<'_>) -> Result<()> {
    let result = change_and_wait(request, goal, fleet, record);
    if result.is_err() {
        // Somebody else may have set something in a pause.
        fleet.refresh().ok();
    }
    fleet.conclude(&goal, result.as_ref().err());
    save(request, fleet);
    let must_roll_back = request.on_failure == OnFailure::Rollback && (result.is_err() || fleet.has_failed());
    if must_roll_back || matches!(result, Ok(End::Rollback)) {
        let rolled_back = roll_back(fleet);
        fleet.conclude(&goal, result.as_ref().err());
        rolled_back?;
        save(request, fleet);
    }
    result.map(drop)
}

fn change_and_wait(request: &Request, goal: Goal, fleet: &mut Fleet<'_>, record: Record<'_>) -> Result<End> {
    // A reload while this run waits must not forget what it has set, and who comes by must see who it was.
    let mut keep = |fleet: &mut Fleet<'_>| {
        save(request, fleet);
        record(fleet);
    };
    let end = match request.drain {
        Some(bounds) => drain(fleet, goal, bounds, &mut keep)?,
        None => fleet.step(&|_| goal).map(|()| End::Done)?,
    };
    if request.state() == Some(AdminState::Ready) && request.wait.is_some() {
        save(request, fleet);
    } else if request.wait.is_some() || request.shutdown_sessions {
        keep(fleet);
    }
    if let (End::Done, Some(state), Some(bounds), false) = (end, goal.state, request.wait, request.shutdown_sessions) {
        wait(fleet, goal, state, bounds)?;
    }
    if request.shutdown_sessions || end == End::Shutdown {
        end_sessions(fleet, goal, request.time_for_sessions(end == End::Shutdown))?;
    }
    Ok(end)
}

/// Predicts what a run would send and how the servers would be then.
pub fn foresee(request: &Request, goal: Goal, fleet: &mut Fleet<'_>) {
    if request.drain.is_some() {
        fleet.foresee(&|target| next_step(goal, target));
    }
    fleet.foresee(&|_| goal);
    compare(request, fleet);
}
