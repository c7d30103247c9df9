//! Rolls back what a run has changed, in reverse, and leaves alone what somebody else has changed since.
//!
//! It is a second pass over the targets: it records the results of undoing, and leaves the verdicts as they are. It is
//! a change like any other, so the guard judges it under the lock.

use super::fleet::Fleet;
use super::instance::{Admission, Direction, Instance, Pass};
use super::target::{Target, Undo};
use crate::haproxy::client::Answered;
use crate::model::error::{Error, Result};
use crate::model::goal::Goal;
use crate::time::interrupt::PATIENT;

/// Rolls back every server that this run has changed.
///
/// # Errors
/// When the lock cannot be retaken. Failures of an instance or a server are kept there.
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
        if !instance.targets.iter().any(|target| target.is_changed() || target.is_open()) {
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
        instance.plan(&pass);
        if let Err(error) = instance.carry_out(&pass) {
            stop(instance, error);
        }
        conclude_what_was_not_sent(instance);
    }
    lock.map(drop)
}

/// Records what stopped the rollback of an instance; servers that cannot be read back fail with it.
fn stop(instance: &mut Instance<'_>, error: Error) {
    instance.conclude(&Goal::default(), Some(&error));
    instance.undo_error = Some(error);
}

/// Reads the servers as they are now; for a guard, all of them.
fn observe_before(instance: &mut Instance<'_>, pass: &Pass<'_>) -> Result<()> {
    let admit: Admission<'_> = pass.admit;
    match instance.read_back()? {
        Answered::Same(()) => {
            instance.targets.iter_mut().for_each(Target::settle);
            if pass.guard.is_some() { instance.observe_anew(admit) } else { Ok(()) }
        }
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

/// Concludes servers that need no command: those already as before, such as after a reload that has forgotten the
/// change, and those that somebody else has set.
fn conclude_what_was_not_sent(instance: &mut Instance<'_>) {
    for target in instance.targets.iter_mut().filter(|target| target.undo.is_none()) {
        let Some(now) = target.after().map(|server| server.state) else { continue };
        if target.was_changed() && now.is_set_as(&target.before.state) {
            target.undo = Some(Undo::Done);
        } else if target.is_changed() && !target.is_as_left() {
            target.undo = Some(Undo::LeftAlone(now));
            let (name, state) = (target.before.full_name(), now.flags.effective());
            instance
                .warnings
                .push(format!("{name} was left alone: somebody else has set it to {state} in the meantime"));
        }
    }
}

/// Returns the goal that restores a server, if this run has changed it and nobody else has since.
fn goal_of(target: &Target) -> Option<Goal> {
    let is_own = target.after().is_some() && target.is_changed() && target.is_as_left();
    is_own.then(|| target.before.state.as_goal())
}
