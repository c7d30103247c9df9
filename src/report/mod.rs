//! What is answered: outcomes as one JSON object, or as lines for people.
//!
//! `changed` and `failed` are computed from outcomes here and nowhere else.

mod text;
mod wire;

use std::collections::{BTreeSet, HashSet};

use serde::{Serialize, Serializer};

use crate::act::converge::{Managed, Outcome};
use crate::act::fleet::a_few_of;
use crate::decide::guard::is_usable;
use crate::decide::plan::{READY_UNTIL_RELOAD, State, caution, check_caution};
use crate::haproxy::observe::Server;
use crate::keep::ownership::now;
use crate::keep::state_file::{Coverage, Kept, is_kept};
use crate::model::error::Error;
use crate::model::state::AdminState;
use crate::request::{Change, Refused, Request, Switch};
use crate::time::expiry;

pub use text::{printable, text};
pub use wire::{
    BackendStateFileReport, Diff, ErrorReport, InstanceReport, Report, ServerReport, Shown, StateFileReport,
    StateReport, States, TaskError, to_ascii_json,
};

/// What became of one instance in a run.
#[derive(Debug)]
pub struct InstanceOutcome {
    /// Its name.
    pub name: String,
    /// The socket that it was asked at, or the first that it was tried at.
    pub socket: String,
    /// Its HAProxy's version and process, where it answered.
    pub process: Option<(String, u32)>,
    /// Its servers.
    pub servers: Vec<Outcome>,
    /// Why it could not be managed.
    pub error: Option<Error>,
    /// Whether the request says to go on without it.
    pub is_skipped: bool,
    /// Its server-state files, and what became of them.
    pub state_files: Vec<Kept>,
}

impl InstanceOutcome {
    /// Tells whether a server of it was changed, or its server-state file.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.servers.iter().any(Outcome::is_changed) || self.has_new_state_file()
    }

    fn has_new_state_file(&self) -> bool {
        self.state_files.iter().any(|kept| kept.changed == Some(true))
    }
}

/// What became of a run.
#[derive(Debug, Default)]
pub struct RunOutcome {
    /// The instances, as asked for.
    pub instances: Vec<InstanceOutcome>,
    /// What stopped the run as a whole.
    pub error: Option<Error>,
    /// What is worth knowing although it is no failure.
    pub warnings: Vec<String>,
}

impl RunOutcome {
    /// Tells whether an instance has failed that the request does not pass over.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.instances.iter().any(|instance| instance.error.is_some() && !instance.is_skipped)
    }

    /// Takes over what became of the instances that were worked on.
    pub fn take(&mut self, fleet: Vec<Managed<'_>>) {
        for managed in fleet {
            let name = managed.instance.name.as_str();
            let Some(instance) = self.instances.iter_mut().find(|instance| instance.name == name) else { continue };
            let warnings =
                managed.warnings.into_iter().chain(bare_backends(&managed.outcomes, &managed.current.served_by_others));
            self.warnings.extend(warnings.map(|warning| format!("{name}: {warning}")));
            instance.process = Some((managed.current.process.version, managed.current.process.pid));
            instance.servers = managed.outcomes;
            instance.servers.extend(managed.gone);
            instance.error = managed.error;
            instance.state_files = managed.state_files;
        }
    }
}

/// Says which backends are left without a usable server by the change.
fn bare_backends(outcomes: &[Outcome], served_by_others: &BTreeSet<u32>) -> Option<String> {
    // HAProxy lists the servers of a backend one after the other.
    let bare: Vec<String> = outcomes
        .chunk_by(|one, next| one.before.backend_id == next.before.backend_id)
        .filter_map(|of_one| {
            let backend = &of_one.first()?.before;
            let was_usable = |outcome: &Outcome| is_usable(&State::from(&outcome.before));
            let is_bare = !served_by_others.contains(&backend.backend_id)
                && of_one.iter().any(was_usable)
                && !of_one.iter().any(|outcome| outcome.after.is_some_and(|after| is_usable(&after)));
            is_bare.then(|| backend.backend.to_string())
        })
        .collect();
    let named = a_few_of(&bare);
    match bare.len() {
        0 => None,
        1 => Some(format!(
            "the backend {named} has no usable server left; 'guard' refuses such a change before it is made"
        )),
        _ => Some(format!(
            "the backends {named} have no usable server left; 'guard' refuses such a change before it is made"
        )),
    }
}

/// Every matched server of a run; each is made when it is asked for, so that many of them take no memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Servers<'a> {
    of: Option<(&'a Request, &'a RunOutcome)>,
}

impl<'a> Servers<'a> {
    /// Makes them one by one: instances as asked for, servers as HAProxy lists them.
    pub fn iter(&self) -> impl Iterator<Item = ServerReport<'a>> {
        let mut states = States::default();
        self.of
            .into_iter()
            .flat_map(|(request, run)| run.instances.iter().map(move |instance| (request, instance)))
            .flat_map(|(request, instance)| instance.servers.iter().map(move |outcome| (request, instance, outcome)))
            .map(move |(request, instance, outcome)| server_report(request, instance, outcome, &mut states))
    }

    /// Tells whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl Serialize for Servers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Tells whether new traffic comes to the server.
fn is_ok(state: &State) -> bool {
    state.flags.effective() == AdminState::Ready && state.operational.takes_traffic()
}

/// Makes the report of a run.
#[must_use]
pub fn report<'a>(request: &'a Request, run: &'a RunOutcome) -> Report<'a> {
    let outcomes = || run.instances.iter().flat_map(|instance| &instance.servers);
    let error = run.error.as_ref().map(ErrorReport::new).or_else(|| run.instances.iter().find_map(first_error));
    let failed = error.is_some();
    let is_status = request.change.is_none();
    let changed = run.instances.iter().any(InstanceOutcome::is_changed);
    let mut warnings = run.warnings.clone();
    warnings.extend(cautions(request, run));
    let mut said = HashSet::new();
    warnings.retain(|warning| said.insert(warning.clone()));
    let msg = match &error {
        Some(error) => failure_sentence(error, run),
        None => sentence(request, run),
    };
    Report {
        changed,
        failed,
        dry_run: request.dry_run,
        ok: is_status.then(|| !failed && outcomes().all(|outcome| outcome.after.is_some_and(|after| is_ok(&after)))),
        comment: msg.clone(),
        state: request.change.and_then(|change| change.state),
        instances: run.instances.iter().map(instance_report).collect(),
        diff: request.diff.then(|| diff(run)),
        task_error: error.as_ref().filter(|_| request.is_task).map(TaskError::new),
        error,
        msg,
        servers: Servers { of: Some((request, run)) },
        warnings,
    }
}

/// Makes the report of a request that was not taken.
#[must_use]
pub fn refusal(refused: &Refused) -> Report<'static> {
    let error = ErrorReport::new(&refused.error);
    Report {
        failed: true,
        dry_run: refused.dry_run,
        msg: error.msg.clone(),
        comment: error.msg.clone(),
        task_error: refused.is_task.then(|| TaskError::new(&error)),
        error: Some(error),
        ..Report::default()
    }
}

/// The first failure of an instance, with its name.
fn first_error(instance: &InstanceOutcome) -> Option<ErrorReport> {
    let own = instance.error.as_ref().filter(|_| !instance.is_skipped);
    own.or_else(|| instance.servers.iter().find_map(|outcome| outcome.error.as_ref()))
        .map(|error| ErrorReport::new(&error.clone().on_instance(&instance.name)))
}

fn instance_report(instance: &InstanceOutcome) -> InstanceReport<'_> {
    let failed = (instance.error.is_some() && !instance.is_skipped)
        || instance.servers.iter().any(|outcome| outcome.error.is_some());
    let error = instance.error.as_ref().map(|error| ErrorReport::new(&error.clone().on_instance(&instance.name)));
    InstanceReport {
        name: &instance.name,
        socket: &instance.socket,
        version: instance.process.as_ref().map(|(version, _)| version.as_str()),
        pid: instance.process.as_ref().map(|(_, pid)| *pid),
        changed: instance.is_changed(),
        failed,
        matched: instance.servers.len(),
        state_file: instance.state_files.iter().find_map(|kept| match (&kept.coverage, kept.changed) {
            (Coverage::All, Some(changed)) => Some(StateFileReport { path: &kept.path, changed }),
            (Coverage::All, None) | (Coverage::Backend(_), _) => None,
        }),
        state_files: instance
            .state_files
            .iter()
            .filter_map(|kept| match (&kept.coverage, kept.changed) {
                (Coverage::Backend(backend), Some(changed)) => {
                    Some(BackendStateFileReport { backend, path: &kept.path, changed })
                }
                (Coverage::Backend(_), None) | (Coverage::All, _) => None,
            })
            .collect(),
        error,
    }
}

fn server_report<'a>(
    request: &Request,
    instance: &'a InstanceOutcome,
    outcome: &'a Outcome,
    states: &mut States,
) -> ServerReport<'a> {
    let before = &outcome.before;
    let stat = before.stat.as_deref().filter(|_| request.change.is_none());
    let record = outcome.record.as_ref();
    let load = stat.or(outcome.last_seen.as_deref());
    ServerReport {
        instance: &instance.name,
        backend: &before.backend,
        server: &before.server,
        address: &before.address,
        changed: outcome.is_changed(),
        failed: outcome.error.is_some(),
        ok: request.change.is_none().then(|| outcome.after.is_some_and(|after| is_ok(&after))),
        before: states.show(&State::from(before)),
        after: outcome.after.as_ref().map(|after| states.show(after)),
        sessions: load.map(|stat| stat.sessions),
        queue: load.map(|stat| stat.queue),
        check: stat.and_then(|stat| stat.check.as_deref()),
        tracks: stat.and_then(|stat| stat.tracks.as_deref()),
        owner: record.and_then(|record| record.owner.as_deref()),
        reason: record.and_then(|record| record.reason.as_deref()),
        expires: record.and_then(|record| record.expires).map(expiry::render),
        expired: record.and_then(|record| record.expires).map(|expires| expires <= now()),
        rolled_back: outcome.is_rolled_back,
        commands: &outcome.commands,
        error: outcome.error.as_ref().map(|error| ErrorReport::new(&error.clone().on_instance(&instance.name))),
    }
}

/// One sentence for what was done.
fn sentence(request: &Request, run: &RunOutcome) -> String {
    let asked = run.instances.len();
    let having = run.instances.iter().filter(|instance| !instance.servers.is_empty()).count();
    let all = || run.instances.iter().flat_map(|instance| &instance.servers);
    let total = all().count();
    let who = match request.servers.as_slice() {
        [] => "all servers".to_owned(),
        [one] => one.to_string(),
        [first, second] => format!("{first}, {second}"),
        [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
    };
    let is_one = matches!(request.servers.as_slice(), [one] if one.server.literal().is_some());
    let where_ = |count: usize| {
        let things = match (is_one, total) {
            (true, 1) => "backend",
            (true, _) => "backends",
            (false, 1) => "server",
            (false, _) => "servers",
        };
        let hosts = if asked == 1 { "instance" } else { "instances" };
        format!("{count} of {total} {things} on {having} of {asked} {hosts}")
    };
    let preposition = if is_one { "in" } else { "for" };
    let Some(change) = &request.change else {
        let ok = all().filter(|outcome| outcome.after.is_some_and(|after| is_ok(&after))).count();
        return format!("{who}: ok {preposition} {}", where_(ok));
    };
    if total == 0 {
        return format!("{who}: nothing matches on {asked} instances");
    }
    let settable = all().filter(|outcome| !outcome.is_disabled).count();
    let switched = |check: &str, switch: Option<Switch>| {
        switch.map(|switch| format!("{check} checks {}", if switch == Switch::Enabled { "on" } else { "off" }))
    };
    let parts = [
        change.state.map(|state| state.to_string()),
        change.weight.map(|weight| format!("weight {weight}")),
        switched("health", change.health),
        switched("agent", change.agent),
    ];
    let what = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let how = match (all().any(Outcome::is_changed), request.dry_run) {
        (true, true) => format!("would be {what}"),
        (true, false) => what,
        (false, _) => format!("already {what}"),
    };
    let file = match (run.instances.iter().any(InstanceOutcome::has_new_state_file), request.dry_run) {
        (false, _) => "",
        (true, false) => "; state file written",
        (true, true) => "; state file would be written",
    };
    format!("{who}: {how} {preposition} {}{file}", where_(settable))
}

/// The first failure, and how many there are besides.
fn failure_sentence(error: &ErrorReport, run: &RunOutcome) -> String {
    let servers = run.instances.iter().flat_map(|instance| &instance.servers);
    let failures = usize::from(run.error.is_some())
        + run.instances.iter().filter(|instance| instance.error.is_some() && !instance.is_skipped).count()
        + servers.filter(|outcome| outcome.error.is_some()).count();
    let place = error.instance.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    match failures {
        0 | 1 => format!("{place}{}", error.msg),
        2 => format!("{place}{} (and one more failure, see 'servers' and 'instances')", error.msg),
        _ => format!("{place}{} (and {} more failures, see 'servers' and 'instances')", error.msg, failures - 1),
    }
}

/// Says what keeps servers from being used as their state says, a sentence for each cause on each instance.
fn cautions(request: &Request, run: &RunOutcome) -> Vec<String> {
    let Some(change) = &request.change else { return Vec::new() };
    let mut warnings = Vec::new();
    for instance in &run.instances {
        let mut causes: Vec<(&str, Vec<&Server>)> = Vec::new();
        for outcome in &instance.servers {
            let Some(after) = outcome.after.as_ref().filter(|_| outcome.error.is_none()) else { continue };
            // What the state file brings back is not lost in a reload.
            let caution = caution_of(change, outcome, after).filter(|cause| {
                *cause != READY_UNTIL_RELOAD || !is_kept(&instance.state_files, &outcome.before.backend)
            });
            for cause in [caution, check_caution(change, after)].into_iter().flatten() {
                match causes.iter_mut().find(|(known, _)| *known == cause) {
                    Some((_, servers)) => servers.push(&outcome.before),
                    None => causes.push((cause, vec![&outcome.before])),
                }
            }
        }
        for (cause, servers) in causes {
            let names: Vec<String> = servers.iter().map(|server| server.full_name()).collect();
            warnings.push(format!("{}: {}: {cause}", instance.name, a_few_of(&names)));
        }
    }
    warnings
}

fn caution_of(change: &Change, outcome: &Outcome, after: &State) -> Option<&'static str> {
    if outcome.is_disabled && !outcome.before.is_in_disabled_backend() {
        return Some(
            "cannot be set: HAProxy says 'Proxy is disabled.', so that the backend takes no traffic; start it again",
        );
    }
    caution(change, &outcome.before, after)
}

/// A line for each server, before and after.
fn diff(run: &RunOutcome) -> Diff {
    let lines = |state: &dyn Fn(&Outcome) -> Option<State>| {
        let mut lines: Vec<String> = run
            .instances
            .iter()
            .flat_map(|instance| instance.servers.iter().map(move |outcome| (instance, outcome)))
            .map(|(instance, outcome)| {
                let state = state(outcome).map_or_else(
                    || "unknown".to_owned(),
                    |state| format!("{} weight {}", state.flags.effective(), state.weight),
                );
                format!("{} {} {state}\n", instance.name, outcome.before.full_name())
            })
            .collect();
        lines.sort();
        lines.concat()
    };
    Diff { before: lines(&|outcome| Some(State::from(&outcome.before))), after: lines(&|outcome| outcome.after) }
}
