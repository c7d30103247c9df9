//! What is answered: outcomes as one JSON object, or as lines for people.
//!
//! `changed` and `failed` are computed from outcomes here and nowhere else.

pub mod outcome;
mod text;
mod wire;

use std::collections::HashSet;
use std::fmt::Display;

use serde::{Serialize, Serializer};

use self::outcome::{InstanceOutcome, RunOutcome};
use crate::act::target::{DisabledBy, Target, Verdict};
use crate::decide::cautions::{READY_UNTIL_RELOAD, caution, check_caution};
use crate::keep::persist::InStep;
use crate::model::goal::{Goal, Switch};
use crate::model::server::{Server, ServerState};
use crate::model::text::a_few_of;
use crate::request::{Refused, Request};
use crate::time::clock::now;
use crate::time::expiry;

pub use text::text;
pub use wire::{
    Commands, Diff, ErrorReport, InstanceReport, OldProcessReport, Report, ServerReport, StateFileReport, StateReport,
    TaskError, to_ascii_json,
};

/// Every matched server of a run; each is made when it is asked for, so that many of them take no memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Servers<'a> {
    of: Option<(&'a Request, &'a RunOutcome)>,
}

impl<'a> Servers<'a> {
    /// Makes them one by one: instances as asked for, servers as HAProxy lists them.
    pub fn iter(&self) -> impl Iterator<Item = ServerReport<'a>> {
        self.of
            .into_iter()
            .flat_map(|(request, run)| run.instances.iter().map(move |instance| (request, instance)))
            .flat_map(|(request, instance)| instance.targets.iter().map(move |target| (request, instance, target)))
            .map(move |(request, instance, target)| server_report(request, instance, target))
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

/// Makes the report of a run.
#[must_use]
pub fn report<'a>(request: &'a Request, run: &'a RunOutcome) -> Report<'a> {
    let targets = || run.instances.iter().flat_map(|instance| &instance.targets);
    let error = run.error.as_ref().map(ErrorReport::new).or_else(|| run.instances.iter().find_map(first_error));
    let failed = error.is_some();
    let is_status = request.goal.is_none();
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
        ok: is_status.then(|| !failed && targets().all(is_ok)),
        comment: msg.clone(),
        state: request.requested,
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
    own.or_else(|| instance.targets.iter().find_map(Target::error))
        .map(|error| ErrorReport::new(&error.clone().on_instance(&instance.name)))
}

fn instance_report(instance: &InstanceOutcome) -> InstanceReport<'_> {
    let failed = (instance.error.is_some() && !instance.is_skipped)
        || instance.targets.iter().any(|target| target.error().is_some());
    let error = instance.error.as_ref().map(|error| ErrorReport::new(&error.clone().on_instance(&instance.name)));
    InstanceReport {
        name: &instance.name,
        socket: &instance.socket,
        version: instance.process.as_ref().map(|(version, _)| version.as_str()),
        pid: instance.process.as_ref().map(|(_, pid)| *pid),
        changed: instance.is_changed(),
        failed,
        matched: instance.targets.len(),
        old_processes: instance.old_processes.iter().map(OldProcessReport::from).collect(),
        state_file: instance
            .state_file
            .as_ref()
            .map(|(path, step)| StateFileReport { path, changed: *step == InStep::Changed }),
        error,
    }
}

fn server_report<'a>(request: &Request, instance: &'a InstanceOutcome, target: &'a Target) -> ServerReport<'a> {
    let before = &target.before;
    let statistics = before.statistics.as_deref().filter(|_| request.goal.is_none());
    let claim = target.record.as_ref().map(|record| &record.claim);
    let load = statistics.or(target.last_poll.as_deref().map(|poll| &poll.statistics));
    ServerReport {
        instance: &instance.name,
        backend: &before.backend,
        server: &before.server,
        address: &before.address,
        changed: target.is_changed(),
        failed: target.error().is_some(),
        ok: request.goal.is_none().then(|| is_ok(target)),
        before: StateReport::from(&before.state),
        after: target.after().map(|server| StateReport::from(&server.state)),
        sessions: load.map(|statistics| statistics.sessions),
        new_sessions: Some(target.new_sessions).filter(|count| *count > 0),
        queue: load.map(|statistics| statistics.queue),
        check: statistics.and_then(|statistics| statistics.check.as_deref()),
        tracks: statistics.and_then(|statistics| statistics.tracks.as_deref()),
        since: target.record.as_ref().map(|record| expiry::render(record.recorded)),
        owner: claim.and_then(|claim| claim.owner.as_deref()),
        reason: claim.and_then(|claim| claim.reason.as_deref()),
        expires: claim.and_then(|claim| claim.expires).map(expiry::render),
        expired: claim.filter(|claim| claim.expires.is_some()).map(|claim| claim.is_expired(now())),
        rolled_back: target.is_rolled_back(),
        commands: Commands(&target.sent),
        error: target.error().map(|error| ErrorReport::new(&error.clone().on_instance(&instance.name))),
    }
}

/// Tells whether new traffic comes to the server.
fn is_ok(target: &Target) -> bool {
    target.after().is_some_and(Server::takes_traffic)
}

/// One sentence for what was done.
fn sentence(request: &Request, run: &RunOutcome) -> String {
    let asked = run.instances.len();
    let having = run.instances.iter().filter(|instance| !instance.targets.is_empty()).count();
    let all = || run.instances.iter().flat_map(|instance| &instance.targets);
    let total = all().count();
    let who = match (first_two(&request.servers), first_two(&request.addresses)) {
        (None, None) => "all servers".to_owned(),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(servers), Some(addresses)) => format!("{servers} at {addresses}"),
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
    let Some(goal) = &request.goal else {
        let ok = all().filter(|target| is_ok(target)).count();
        return format!("{who}: ok {preposition} {}", where_(ok));
    };
    if total == 0 {
        return format!("{who}: nothing matches on {asked} instances");
    }
    let settable = all().filter(|target| !matches!(target.verdict, Verdict::Disabled(_) | Verdict::Skipped)).count();
    let switched = |check: &str, switch: Option<Switch>| {
        switch.map(|switch| format!("{check} checks {}", if switch == Switch::Enabled { "on" } else { "off" }))
    };
    let parts = [
        request.requested.map(|requested| match requested.for_all() {
            Some(state) => state.to_string(),
            None => "restored".to_owned(),
        }),
        goal.weight.map(|weight| format!("weight {weight}")),
        switched("health", goal.health),
        switched("agent", goal.agent),
    ];
    let what = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let how = match (all().any(Target::is_changed), request.dry_run) {
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

/// The first two of a list, and how many there are besides.
fn first_two(list: &[impl Display]) -> Option<String> {
    match list {
        [] => None,
        [one] => Some(one.to_string()),
        [first, second] => Some(format!("{first}, {second}")),
        [first, second, rest @ ..] => Some(format!("{first}, {second} and {} more", rest.len())),
    }
}

/// The first failure, and how many there are besides.
fn failure_sentence(error: &ErrorReport, run: &RunOutcome) -> String {
    let servers = run.instances.iter().flat_map(|instance| &instance.targets);
    let failures = usize::from(run.error.is_some())
        + run.instances.iter().filter(|instance| instance.error.is_some() && !instance.is_skipped).count()
        + servers.filter(|target| target.error().is_some()).count();
    let place = error.instance.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    match failures {
        0 | 1 => format!("{place}{}", error.msg),
        2 => format!("{place}{} (and one more failure, see 'servers' and 'instances')", error.msg),
        _ => format!("{place}{} (and {} more failures, see 'servers' and 'instances')", error.msg, failures - 1),
    }
}

/// Says what keeps servers from being used as their state says, a sentence for each cause on each instance.
fn cautions(request: &Request, run: &RunOutcome) -> Vec<String> {
    let Some(goal) = &request.goal else { return Vec::new() };
    let mut warnings = Vec::new();
    for instance in &run.instances {
        let mut causes: Vec<(&str, Vec<String>)> = Vec::new();
        for target in instance.targets.iter().filter(|target| target.error().is_none()) {
            let Some(after) = target.after().map(|server| &server.state) else { continue };
            // What the state file brings back is not lost in a reload.
            let goal = &target.goal_for(*goal);
            let caution = caution_of(goal, target, after)
                .filter(|cause| *cause != READY_UNTIL_RELOAD || instance.state_file.is_none());
            for cause in [caution, check_caution(goal, after)].into_iter().flatten() {
                match causes.iter_mut().find(|(known, _)| *known == cause) {
                    Some((_, names)) => names.push(target.before.full_name()),
                    None => causes.push((cause, vec![target.before.full_name()])),
                }
            }
        }
        let sentence =
            |(cause, names): (&str, Vec<String>)| format!("{}: {}: {cause}", instance.name, a_few_of(&names));
        warnings.extend(causes.into_iter().map(sentence));
    }
    warnings
}

fn caution_of(goal: &Goal, target: &Target, after: &ServerState) -> Option<&'static str> {
    if target.verdict == Verdict::Disabled(DisabledBy::Reply) {
        return Some(
            "cannot be set: HAProxy says 'Proxy is disabled.', so that the backend takes no traffic; start it again",
        );
    }
    caution(goal, &target.before, after)
}

/// A line for each server, before and after.
fn diff(run: &RunOutcome) -> Diff {
    let lines = |state: &dyn Fn(&Target) -> Option<ServerState>| {
        let mut lines: Vec<String> = run
            .instances
            .iter()
            .flat_map(|instance| instance.targets.iter().map(move |target| (instance, target)))
            .map(|(instance, target)| {
                let state = state(target).map_or_else(
                    || "unknown".to_owned(),
                    |state| format!("{} weight {}", state.flags.effective(), state.weight),
                );
                format!("{} {} {state}\n", instance.name, target.before.full_name())
            })
            .collect();
        lines.sort();
        lines.concat()
    };
    Diff {
        before: lines(&|target| Some(target.before.state)),
        after: lines(&|target| target.after().map(|server| server.state)),
    }
}
