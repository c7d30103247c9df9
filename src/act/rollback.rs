//! Sets back what a run has changed, in reverse, and leaves alone what somebody else has changed meanwhile.

use std::collections::HashMap;

use crate::act::converge::{Direction, Managed, Outcome};
use crate::act::fleet::Fleet;
use crate::decide::plan::State;
use crate::haproxy::observe::{Identity, Server};
use crate::model::error::Result;
use crate::request::Change;
use crate::time::interrupt::PATIENT;

/// Sets every server back that this run has changed.
///
/// # Errors
/// When the lock cannot be had again. What fails on an instance or a server is kept there.
pub fn roll_back(fleet: &mut Fleet<'_>) -> Result<()> {
    fleet.exclusion.ignore_signals();
    let lock = fleet.lock();
    for managed in fleet.managed.iter_mut().rev().filter(|managed| managed.outcomes.iter().any(Outcome::is_changed)) {
        if let Err(error) = &lock {
            managed.warnings.push(format!("nothing was rolled back: {error}"));
            continue;
        }
        // What has failed is what the report is about; it must not keep the servers from being set back.
        let failure = managed.error.take();
        for outcome in &mut managed.outcomes {
            outcome.former_error = outcome.error.take();
        }
        let interrupt = std::mem::replace(&mut managed.interrupt, &PATIENT);
        // What was before is as good as it was.
        managed.guard = None;
        roll_back_one(managed);
        managed.interrupt = interrupt;
        managed.error = failure.or(managed.error.take());
        for outcome in &mut managed.outcomes {
            outcome.error = outcome.former_error.take().or(outcome.error.take());
        }
        if let Some(error) = managed.error.clone() {
            managed.give_up(&Change::default(), &error);
        }
    }
    lock.map(drop)
}

/// Sets back the servers of one instance.
fn roll_back_one(managed: &mut Managed<'_>) {
    let read = managed.read_back();
    let is_new = read == Ok(false);
    if let Err(error) = read.and_then(|is_same| if is_same { Ok(()) } else { managed.follow() }) {
        managed.warnings.push(format!("nothing was rolled back: {error}"));
        managed.error = Some(error);
        return;
    }
    let mut goals: HashMap<Identity, Change> = HashMap::new();
    let mut left_alone = Vec::new();
    for (outcome, server) in managed.outcomes.iter_mut().zip(&managed.current.servers) {
        let before = State::from(&outcome.before);
        let Some(now) = outcome.after.filter(|now| !outcome.commands.is_empty() && !now.is_set_as(&before)) else {
            continue;
        };
        let name = outcome.before.full_name();
        if outcome.left_as.is_some_and(|left_as| !left_as.is_set_as(&now)) {
            left_alone.push(format!(
                "{name} was left alone: somebody else has set it to {} meanwhile",
                now.flags.effective()
            ));
            continue;
        }
        outcome.is_rolled_back = true;
        goals.insert(server.identity(), before.as_goal());
    }
    if is_new && goals.is_empty() && left_alone.is_empty() {
        managed.warnings.push("nothing was rolled back: HAProxy has forgotten the change in its reload".to_owned());
    }
    managed.warnings.extend(left_alone);
    let goal = |server: &Server| goals.get(&server.identity()).copied().unwrap_or_default();
    managed.carry_out(&goal, Direction::Backward);
    for outcome in &mut managed.outcomes {
        let before = State::from(&outcome.before);
        outcome.is_rolled_back &= outcome.after.is_some_and(|after| after.is_set_as(&before));
    }
}
