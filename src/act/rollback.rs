//! Rolls back what a run has changed, in reverse, and leaves alone what somebody else has changed meanwhile.
//!
//! It is a second pass over the targets: it writes what became of undoing, and leaves the verdicts as they are. It is a
//! change like any other, so that the guard judges it under the lock.

use super::fleet::Fleet;
use super::instance::{Admission, Direction, Instance, Pass};
use super::target::{Target, Undo};
use crate::haproxy::client::Answered;
use crate::model::error::{Error, Result};
use crate::model::goal::Goal;
use crate::time::interrupt::PATIENT;

/// Rolls every server back that this run has changed.
///
/// # Errors
/// When the lock cannot be had again. What fails on an instance or a server is kept there.
pub fn roll_back(fleet: &mut Fleet<'_>) -> Result<()> {
    fleet.exclusion.ignore_signals();
    let lock = fleet.lock();
    let pass = Pass {
        goals: &goal_of,
        direction: Direction::Backward,
        guard: fleet.guard,
        signals: &PATIENT,
        admit: &|contact| fleet.exclusion.admit(contact),
    };
    for instance in fleet.instances.iter_mut().rev() {
        if !instance.targets.iter().any(Target::is_changed) {
            continue;
        }
        let result = match &lock {
            Err(error) => Err(error.clone()),
            Ok(_) => observe_before(instance, &pass),
        };
        if let Err(error) = result {
            instance.warnings.push(format!("nothing was rolled back: {error}"));
            stop(instance, error);
            continue;
        }
        leave_alone_what_others_have_set(instance);
        instance.plan(&pass);
        if let Err(error) = instance.carry_out(&pass) {
            stop(instance, error);
        }
    }
    lock.map(drop)
}

/// Keeps what stopped rolling an instance back; what cannot be read back has failed with it.
fn stop(instance: &mut Instance<'_>, error: Error) {
    instance.give_up(|_| Goal::default(), &error);
    instance.undo_error = Some(error);
}

/// Sees how the servers are now; for a guard, all of them.
fn observe_before(instance: &mut Instance<'_>, pass: &Pass<'_>) -> Result<()> {
    let admit: Admission<'_> = pass.admit;
    match instance.read_back()? {
        Answered::Same(()) if pass.guard.is_some() => instance.observe_anew(admit),
        Answered::Same(()) => Ok(()),
        Answered::Replaced(process) => {
            instance.follow(&process, admit)?;
            if !instance.targets.iter().any(|target| goal_of(target).is_some()) {
                let forgotten = "nothing was rolled back: HAProxy has forgotten the change in its reload";
                instance.warnings.push(forgotten.to_owned());
            }
            Ok(())
        }
    }
}

/// Leaves alone what differs from how this run has left it.
fn leave_alone_what_others_have_set(instance: &mut Instance<'_>) {
    for target in instance.targets.iter_mut().filter(|target| goal_of(target).is_some()) {
        let now = target.last().state;
        if target.settled().is_none_or(|settled| settled.is_set_as(&now)) {
            continue;
        }
        target.undo = Some(Undo::LeftAlone(now));
        let name = target.before.full_name();
        let state = now.flags.effective();
        instance.warnings.push(format!("{name} was left alone: somebody else has set it to {state} meanwhile"));
    }
}

/// Returns what brings a server back to what it was before, where this run has changed it.
fn goal_of(target: &Target) -> Option<Goal> {
    let is_left_alone = matches!(target.undo, Some(Undo::LeftAlone(_)));
    (!is_left_alone && target.after().is_some() && target.is_changed()).then(|| target.before.state.as_goal())
}
