//! What became of a run, instance by instance.

use std::collections::BTreeSet;

use crate::act::gather::Asked;
use crate::act::instance::Instance;
use crate::act::target::{Target, Verdict};
use crate::decide::guard::{Short, short};
use crate::haproxy::observe::Rest;
use crate::haproxy::old_processes::OldProcess;
use crate::keep::persist::{InStep, KeptFile};
use crate::model::error::Error;
use crate::model::name::Address;
use crate::model::text::a_few_of;
use crate::request::Request;

/// What became of one instance in a run.
#[derive(Debug)]
pub struct InstanceOutcome {
    /// Its name.
    pub name: String,
    /// The socket where it answered, or the first that was tried.
    pub socket: String,
    /// Its HAProxy's version and process, if it answered.
    pub process: Option<(String, u32)>,
    /// Its servers.
    pub targets: Vec<Target>,
    /// Why it could not be managed.
    pub error: Option<Error>,
    /// Whether the request says to continue without it.
    pub is_skipped: bool,
    /// In a status with a guard: the backends of its servers that have too few in traffic.
    pub short: Vec<Short>,
    /// The processes from before a reload that still run.
    pub old_processes: Vec<OldProcess>,
    /// Its server-state files, and what became of them.
    pub state_files: Vec<KeptFile>,
}

impl InstanceOutcome {
    /// Tells whether a server of it was changed, or one of its server-state files.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.targets.iter().any(Target::is_changed) || self.has_new_state_file()
    }

    /// Tells whether one of its server-state files was changed.
    #[must_use]
    pub fn has_new_state_file(&self) -> bool {
        self.state_files.iter().any(|file| file.outcome == Some(InStep::Changed))
    }
}

/// What became of a run.
#[derive(Debug, Default)]
pub struct RunOutcome {
    /// The instances, in the order of the request.
    pub instances: Vec<InstanceOutcome>,
    /// What stopped the run as a whole.
    pub error: Option<Error>,
    /// What is worth knowing although it is not a failure.
    pub warnings: Vec<String>,
}

impl RunOutcome {
    /// Tells whether an instance has failed that the request does not skip.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.instances.iter().any(|instance| instance.error.is_some() && !instance.is_skipped)
    }

    /// Notes which instances were asked, and what they answered.
    pub fn note(&mut self, request: &Request, asked: &[Asked<'_>]) {
        self.instances = asked.iter().map(|asked| outcome_of(request, asked)).collect();
        self.warnings.extend(asked.iter().filter_map(|asked| asked.skipped_warning(request)));
    }

    /// Takes over what became of the instances that were worked on.
    pub fn take(&mut self, request: &Request, instances: Vec<Instance<'_>>) {
        for instance in instances {
            let name = instance.name();
            let Some(outcome) = self.instances.iter_mut().find(|outcome| outcome.name == name) else { continue };
            let bare = bare_backends(&instance.targets, &instance.rest.served_by_others);
            let warnings = instance.warnings.into_iter().chain(bare).chain(skipped_slots(&instance.targets));
            self.warnings.extend(warnings.map(|warning| format!("{name}: {warning}")));
            outcome.process = Some((instance.contact.process.version, instance.contact.process.pid));
            outcome.short = short_backends(request, &instance.targets, &instance.rest);
            outcome.old_processes = instance.old_processes;
            outcome.targets = instance.targets;
            outcome.error = instance.error.or(instance.undo_error);
            outcome.state_files = instance.state_files;
        }
    }
}

/// The outcome of an instance that was asked, without its servers.
fn outcome_of(request: &Request, asked: &Asked<'_>) -> InstanceOutcome {
    let contact = asked.answer.as_ref().ok().map(|(observation, _)| &observation.contact);
    let socket = contact.map(|contact| &contact.address).or(asked.site.addresses.first());
    InstanceOutcome {
        name: asked.site.name.to_string(),
        socket: socket.map(Address::to_string).unwrap_or_default(),
        process: contact.map(|contact| (contact.process.version.clone(), contact.process.pid)),
        targets: Vec::new(),
        error: asked.answer.as_ref().err().cloned(),
        is_skipped: asked.is_skipped(request),
        short: Vec::new(),
        old_processes: Vec::new(),
        state_files: Vec::new(),
    }
}

/// Finds, for a status with a guard, the backends of servers that have too few in traffic.
fn short_backends(request: &Request, targets: &[Target], rest: &Rest) -> Vec<Short> {
    let Some(guard) = request.guard.filter(|_| request.goal.is_none()) else { return Vec::new() };
    let matched: BTreeSet<u32> = targets.iter().map(|target| target.before.backend_id).collect();
    let servers = targets.iter().map(|target| &target.before).chain(&rest.others);
    short(guard, servers.filter(|server| matched.contains(&server.backend_id)), &rest.around)
}

/// Says how many spare slots were left alone.
fn skipped_slots(targets: &[Target]) -> Option<String> {
    let slots = match targets.iter().filter(|target| target.verdict == Verdict::Spare).count() {
        0 => return None,
        1 => "1 spare slot".to_owned(),
        count => format!("{count} spare slots"),
    };
    Some(format!("{slots} of a 'server-template' left alone: they take no traffic without an address from DNS"))
}

/// Names the backends that the change leaves without a usable server.
fn bare_backends(targets: &[Target], served_by_others: &BTreeSet<u32>) -> Option<String> {
    // HAProxy lists the servers of a backend one after the other.
    let bare: Vec<&str> = targets
        .chunk_by(|one, next| one.before.backend_id == next.before.backend_id)
        .filter_map(|of_one| {
            let backend = &of_one.first()?.before;
            let is_bare = !served_by_others.contains(&backend.backend_id)
                && of_one.iter().any(|target| target.before.takes_traffic())
                && !of_one.iter().any(|target| target.after().is_some_and(|server| server.takes_traffic()));
            is_bare.then_some(&*backend.backend)
        })
        .collect();
    let named = a_few_of(&bare);
    let (backends, have) = match bare.len() {
        0 => return None,
        1 => ("backend", "has"),
        _ => ("backends", "have"),
    };
    Some(format!(
        "the {backends} {named} {have} no usable server left; 'guard' refuses such a change before it is made"
    ))
}
