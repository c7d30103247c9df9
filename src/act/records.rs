//! When owners and state files are brought in step with what a run has done.

use std::path::PathBuf;

use super::fleet::Fleet;
use super::instance::Instance;
use super::target::{Target, Verdict};
use crate::keep::ownership::{Change, Entry, Ownership};
use crate::keep::persist::{KeptFile, Mode, Source, assign};
use crate::model::error::{ErrorKind, Result};
use crate::model::server::Server;
use crate::model::state::AdminState;
use crate::request::Request;

/// Gives each instance its state file, as it is before the run.
///
/// # Errors
/// When the files do not match the instances. A file that cannot be read fails its instance.
pub fn open_state_files(request: &Request, fleet: &mut Fleet<'_>) -> Result<()> {
    let names: Vec<&str> = fleet.instances.iter().map(Instance::name).collect();
    let paths = assign(request.state_file.as_ref(), &names)?;
    for (instance, path) in fleet.instances.iter_mut().zip(paths) {
        match path.map(KeptFile::open) {
            None => {}
            Some(Ok(file)) => instance.state_file = Some(file),
            Some(Err(error)) => {
                instance.error.get_or_insert(error);
            }
        }
    }
    Ok(())
}

/// Brings the state files in step, under the lock, so that no other run overwrites them with an older state.
pub fn save(request: &Request, fleet: &mut Fleet<'_>) {
    if fleet.instances.iter().all(|instance| instance.state_file.is_none()) {
        return;
    }
    match fleet.lock() {
        Ok(_) => fleet.instances.iter_mut().for_each(|instance| save_one(request, instance, Mode::Write)),
        Err(error) => {
            fleet.instances.iter_mut().filter(|instance| instance.state_file.is_some()).for_each(|instance| {
                instance.warnings.push(format!("the state file was not updated: {error}"));
            })
        }
    }
}

/// Compares the state files with the prediction.
pub fn compare(request: &Request, fleet: &mut Fleet<'_>) {
    fleet.instances.iter_mut().for_each(|instance| save_one(request, instance, Mode::Compare));
}

/// Brings the file of an instance in step; a failure is kept at the instance.
fn save_one(request: &Request, instance: &mut Instance<'_>, mode: Mode) {
    let Some(file) = &mut instance.state_file else { return };
    let is_unread = instance.targets.iter().all(|target| target.after().is_none());
    // Asking an unresponsive instance again would only take time.
    let out_of_reach = instance
        .error
        .as_ref()
        .filter(|error| is_unread && matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Timeout));
    if let Some(error) = out_of_reach {
        instance.warnings.push(format!("the state file {} was not updated: {error}", file.path));
        return;
    }
    let servers: Vec<&Server> = instance.targets.iter().map(Target::last).collect();
    let configuration: &[PathBuf] = &instance.site.files;
    let source =
        Source { address: &instance.contact.address, timeout: request.timeout, servers: &servers, configuration };
    match file.bring_in_step(source, mode) {
        Ok(warnings) => {
            for warning in warnings {
                if !instance.warnings.contains(&warning) {
                    instance.warnings.push(warning);
                }
            }
        }
        Err(error) => {
            instance.error.get_or_insert(error);
        }
    }
}

/// Shows who has taken the servers out.
pub fn show_owners(ownership: &Ownership, fleet: &mut Fleet<'_>) {
    for instance in &mut fleet.instances {
        for target in &mut instance.targets {
            target.record = ownership.find(&instance.contact, &target.before).cloned().map(Box::new);
        }
    }
}

/// Records who has taken servers out, and forgets those that were put back; returns what is worth knowing.
#[must_use]
pub fn record_owners(request: &Request, ownership: &Ownership, fleet: &Fleet<'_>) -> Vec<String> {
    let Some(state) = request.state() else { return Vec::new() };
    let entries: Vec<Entry<'_>> = fleet.instances.iter().map(|instance| entry(instance, state)).collect();
    let claim = request.claim.as_ref().filter(|_| state != AdminState::Ready);
    ownership.record(claim, fleet.exclusion.folder(), &entries)
}

fn entry<'e>(instance: &'e Instance<'_>, state: AdminState) -> Entry<'e> {
    let change = |target: &'e Target| {
        // A drain is on its way to maint.
        let step = target.plan.as_ref().and_then(|planned| planned.goal.state);
        let left_in = left_in(target, step.filter(|_| state != AdminState::Ready).unwrap_or(state));
        Change { before: &target.before, after: target.after(), left_in }
    };
    Entry {
        instance: instance.name(),
        contact: &instance.contact,
        survives_reload: instance.state_file.as_ref().is_some_and(|file| file.outcome.is_some()),
        servers: instance.targets.iter().map(change).collect(),
    }
}

/// The state that the run has brought a server to, or may have: the requested one, or drain if it got no further.
fn left_in(target: &Target, requested: AdminState) -> Option<AdminState> {
    if matches!(target.verdict, Verdict::Disabled(_) | Verdict::Skipped | Verdict::Spare)
        || target.is_rolled_back() == Some(true)
    {
        return None;
    }
    if target.error().is_none() {
        return Some(requested);
    }
    if requested == AdminState::Ready {
        // On its way back it may be left in drain, for which its owner is still responsible.
        let is_in_drain = target.last().state.flags.forced() == Some(AdminState::Drain);
        return Some(AdminState::Drain).filter(|_| is_in_drain && target.is_changed());
    }
    // If that could not be read back, the record counts only once the server is seen in that state.
    if target.is_open() {
        return Some(requested);
    }
    let now = target.last().state;
    let state = now.flags.forced().filter(|state| *state != AdminState::Ready);
    state.filter(|_| target.is_changed() && target.is_as_left())
}
