//! When owners and state files are brought in step with what a run has done.

use std::collections::HashSet;

use super::drain::End;
use super::fleet::{Fleet, Processes};
use super::instance::{Instance, PROCESSES};
use super::target::{Target, Verdict};
use crate::haproxy::observe::{Sought, names};
use crate::keep::ownership::{Change, Entry, Ownership};
use crate::keep::persist::{Assigned, KeptFile, Mode, Source, assign, bad, bring_in_step, check_apart, is_kept};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::server::Server;
use crate::model::state::AdminState;
use crate::request::Request;
use crate::time::deadline::Allowance;

/// Gives each instance its state files, as they are before the run; `asked` has the names of all instances that are asked.
///
/// # Errors
/// When the files do not match the instances. A file that cannot be read fails its instance.
pub fn open_state_files(request: &Request, asked: &[&str], fleet: &mut Fleet<'_>) -> Result<()> {
    for Assigned { instance, coverage, path } in assign(request.state_file.as_ref(), asked)? {
        // One that is skipped has none.
        let Some(instance) = fleet.instances.iter_mut().find(|it| it.name() == instance) else { continue };
        match KeptFile::open(coverage, path) {
            Ok(file) => instance.state_files.push(file),
            Err(error) => {
                instance.error.get_or_insert(error);
            }
        }
    }
    fleet.instances.iter().try_for_each(|instance| check_backends(request, instance))?;
    check_apart(fleet.instances.iter().flat_map(|instance| &instance.state_files))
}

/// Refuses files for backends that the instance does not have.
fn check_backends(request: &Request, instance: &Instance<'_>) -> Result<()> {
    let servers = instance.targets.iter().map(|target| &target.before).chain(&instance.rest.others);
    let observed: HashSet<&str> = servers.map(|server| &*server.backend).collect();
    let named = instance.state_files.iter().filter_map(|file| file.coverage.backend());
    let unobserved: Vec<&str> = named.filter(|backend| !observed.contains(backend)).collect();
    if unobserved.is_empty() {
        return Ok(());
    }
    let all = names(&instance.contact.address, Sought::BackendsWithServers, Allowance::of(request.timeout))?;
    match unobserved.iter().find(|backend| !all.contains(**backend)) {
        None => Ok(()),
        Some(backend) => Err(bad(format!(
            "'state_file' names '{}/{}', but that instance has no such backend with servers; correct the name",
            instance.name(),
            backend.escape_debug()
        ))),
    }
}

/// Brings the state files in step, under the lock, so that no other run overwrites them with an older state.
pub fn save(request: &Request, fleet: &mut Fleet<'_>) {
    if !has_state_files(fleet) {
        return;
    }
    match fleet.lock() {
        Ok(_) => fleet.instances.iter_mut().for_each(|instance| save_one(request, instance, Mode::Write)),
        Err(error) => {
            fleet.instances.iter_mut().filter(|instance| !instance.state_files.is_empty()).for_each(|instance| {
                instance.warnings.push(format!("the state file was not updated: {error}"));
            })
        }
    }
}

/// Brings the state files in step at the end of a change, and makes the change again on a process that has taken over
/// just before: it has started with the files as they were.
///
/// # Errors
/// When the lock cannot be had, or HAProxy is reloaded again and again.
pub fn save_for_good(
    request: &Request,
    fleet: &mut Fleet<'_>,
    again: &mut dyn FnMut(&mut Fleet<'_>) -> Result<End>,
) -> Result<End> {
    for _ in 0..PROCESSES {
        save(request, fleet);
        if !has_state_files(fleet) || fleet.refresh()? == Processes::Same {
            return Ok(End::Done);
        }
        match again(fleet)? {
            End::Done | End::Shutdown => {}
            End::Rollback => return Ok(End::Rollback),
        }
    }
    Err(Error::new(
        ErrorKind::Reloaded,
        format!(
            "HAProxy was reloaded {PROCESSES} times while its state file was written; run this again when it is quiet"
        ),
    ))
}

fn has_state_files(fleet: &Fleet<'_>) -> bool {
    fleet.instances.iter().any(|instance| !instance.state_files.is_empty())
}

/// Compares the state files with the prediction.
pub fn compare(request: &Request, fleet: &mut Fleet<'_>) {
    fleet.instances.iter_mut().for_each(|instance| save_one(request, instance, Mode::Compare));
}

/// Brings the files of an instance in step; what fails is kept at the instance.
fn save_one(request: &Request, instance: &mut Instance<'_>, mode: Mode) {
    if instance.state_files.is_empty() {
        return;
    }
    let is_unread = instance.targets.iter().all(|target| target.after().is_none());
    // Asking an unresponsive instance again would only take time.
    let out_of_reach = instance
        .error
        .as_ref()
        .filter(|error| is_unread && matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Timeout));
    if let Some(error) = out_of_reach {
        let not_in_step = |file: &KeptFile| format!("the state file {} was not updated: {error}", file.path);
        instance.warnings.extend(instance.state_files.iter().map(not_in_step));
        return;
    }
    let servers: Vec<&Server> = instance.targets.iter().map(Target::last).collect();
    let source = Source {
        address: &instance.contact.address,
        timeout: request.timeout,
        servers: &servers,
        rules: instance.site.state_files.as_deref(),
        configured: instance.site.servers.as_deref(),
    };
    if let Err(error) = bring_in_step(&mut instance.state_files, source, mode, &mut instance.warnings) {
        instance.error.get_or_insert(error);
    }
}

/// Shows who has taken the servers out.
pub fn show_owners(ownership: &Ownership, fleet: &mut Fleet<'_>) {
    if ownership.is_empty() {
        return;
    }
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
        let survives_reload = is_kept(&instance.state_files, &target.before.backend);
        Change { before: &target.before, after: target.after(), left_in, survives_reload }
    };
    Entry {
        instance: instance.name(),
        contact: &instance.contact,
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
