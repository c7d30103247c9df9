//! What is answered: outcomes as one JSON object, as lines or a table for people, or as the one line of a Nagios plug-in.
//!
//! `changed` and `failed` are computed from outcomes here and nowhere else.

mod nagios;
pub mod outcome;
mod standing;
mod table;
mod text;
mod wire;

use std::collections::HashSet;
use std::fmt::Display;

use serde::{Serialize, Serializer};

use self::outcome::{InstanceOutcome, RunOutcome};
use crate::act::target::{DisabledBy, Target, Verdict, Watch};
use crate::decide::cautions::{READY_UNTIL_RELOAD, cautions as cautions_of, not_ok};
use crate::keep::persist::{InStep, KeptFile, is_kept};
use crate::keep::state_file::Coverage;
use crate::model::goal::{Goal, Switch};
use crate::model::matcher::Matcher;
use crate::model::server::{Server, ServerState};
use crate::model::state::OperationalState;
use crate::model::text::a_few_of;
use crate::request::{Refused, Request};
use crate::time::clock::now;
use crate::time::expiry;

pub use nagios::{Health, nagios};
pub use table::{Colours, table};
pub use text::text;
pub use wire::{
    BackendStateFileReport, CONTRACT, Commands, Contract, Diff, ErrorReport, InstanceReport, OldProcessReport, Report,
    ServerReport, StateFileReport, StateReport, TaskError, Version, to_ascii_json,
};

/// Every matched server of a run; each is made on demand, so that many of them take no memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Servers<'a> {
    of: Option<(&'a Request, &'a RunOutcome)>,
}

impl<'a> Servers<'a> {
    /// Makes them one by one: instances in the order of the request, servers in HAProxy's.
    pub fn iter(&self) -> impl Iterator<Item = ServerReport<'a>> {
        let matcher = self.of.map(|(request, _)| Matcher::new(request.selection()));
        self.of
            .into_iter()
            .flat_map(|(request, run)| run.instances.iter().map(move |instance| (request, instance)))
            .flat_map(|(request, instance)| instance.targets.iter().map(move |target| (request, instance, target)))
            .map(move |(request, instance, target)| server_report(request, matcher.as_ref(), instance, target))
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
        ok: is_status.then(|| !failed && is_all_ok(request, run)),
        comment: msg.clone(),
        state: request.requested,
        instances: run.instances.iter().map(instance_report).collect(),
        diff: request.diff.then(|| diff(run)),
        task_error: error.as_ref().filter(|_| request.is_task).map(TaskError::new),
        error,
        msg,
        servers: Servers { of: Some((request, run)) },
        warnings,
        contract: Contract,
        version: Version,
    }
}

/// Makes the report of a refused request.
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
        state_file: instance.state_files.iter().find_map(state_file_report),
        state_files: instance.state_files.iter().filter_map(backend_state_file_report).collect(),
        error,
    }
}

/// The report of a file that has the rows of all servers.
fn state_file_report(file: &KeptFile) -> Option<StateFileReport<'_>> {
    let changed = file.outcome? == InStep::Changed;
    match &file.coverage {
        Coverage::All => Some(StateFileReport { path: &file.path, changed }),
        Coverage::Backend(_) => None,
    }
}

/// The report of a file that has the rows of one backend.
fn backend_state_file_report(file: &KeptFile) -> Option<BackendStateFileReport<'_>> {
    let changed = file.outcome? == InStep::Changed;
    match &file.coverage {
        Coverage::All => None,
        Coverage::Backend(backend) => Some(BackendStateFileReport { backend, path: &file.path, changed }),
    }
}

fn server_report<'a>(
    request: &Request,
    matcher: Option<&Matcher<'_>>,
    instance: &'a InstanceOutcome,
    target: &'a Target,
) -> ServerReport<'a> {
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
        not_ok: if request.goal.is_none() {
            target.after().and_then(|server| not_ok(server, claim.and_then(|claim| claim.owner.as_deref())))
        } else {
            None
        },
        spare: is_spare(target).then_some(true),
        is_listed: is_listed(request, matcher, instance, target),
        before: StateReport::from(before),
        after: target.after().map(StateReport::from),
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

/// Tells whether it is a spare slot, which nobody misses.
fn is_spare(target: &Target) -> bool {
    target.after().is_some_and(Server::is_spare)
}

/// Tells whether all is in service that should be: every server, or with a guard enough of them in every backend.
fn is_all_ok(request: &Request, run: &RunOutcome) -> bool {
    run.instances.iter().all(|instance| match request.guard {
        Some(_) => instance.short.is_empty(),
        None => instance.targets.iter().all(|target| is_spare(target) || is_ok(target)),
    })
}

/// Tells whether the text form has a line for the server: not for spare slots that nobody has named, in a status with a
/// guard only in backends that fall short, and in another one of all servers only for those that are not ok.
fn is_listed(request: &Request, matcher: Option<&Matcher<'_>>, instance: &InstanceOutcome, target: &Target) -> bool {
    let is_named = || matcher.is_some_and(|matcher| matcher.names(&target.before.backend, &target.before.server));
    match (request.goal, request.guard) {
        (Some(_), _) => target.verdict != Verdict::Spare,
        (None, _) if is_spare(target) && !is_named() => false,
        (None, Some(_)) => instance.short.iter().any(|short| short.backend_id == target.before.backend_id),
        (None, None) => !request.servers.is_empty() || !request.addresses.is_empty() || !is_ok(target),
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
    let all = || {
        let targets = run.instances.iter().flat_map(|instance| &instance.targets);
        targets.filter(|target| target.verdict != Verdict::Spare && (request.goal.is_some() || !is_spare(target)))
    };
    let total = all().count();
    let spare = run.instances.iter().map(|instance| instance.targets.len()).sum::<usize>() - total;
    let slots = match spare {
        0 => String::new(),
        1 => "; 1 spare slot".to_owned(),
        _ => format!("; {spare} spare slots"),
    };
    let who = match (first_two(&request.servers), first_two(&request.addresses)) {
        (None, None) => "all servers".to_owned(),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(servers), Some(addresses)) => format!("{servers} at {addresses}"),
    };
    let is_one = matches!(request.servers.as_slice(), [one] if one.server.literal().is_some());
    let hosts = format!("on {having} of {asked} {}", if asked == 1 { "instance" } else { "instances" });
    let where_ = |count: usize| {
        let things = match (is_one, total) {
            (true, 1) => "backend",
            (true, _) => "backends",
            (false, 1) => "server",
            (false, _) => "servers",
        };
        format!("{count} of {total} {things} {hosts}")
    };
    let preposition = if is_one { "in" } else { "for" };
    if request.goal.is_none() && request.guard.is_some() {
        return format!("{who}: {} {hosts}", guarded(run));
    }
    let Some(goal) = &request.goal else {
        let ok = all().filter(|target| is_ok(target)).count();
        return format!("{who}: ok {preposition} {}{slots}", where_(ok));
    };
    if total == 0 && spare > 0 {
        return format!("{who}: nothing to set {hosts}{slots}");
    }
    if total == 0 {
        return format!("{who}: nothing matches on {asked} instances");
    }
    let disabled = all().filter(|target| matches!(target.verdict, Verdict::Disabled(_))).count();
    let skipped = all().filter(|target| target.verdict == Verdict::Skipped).count();
    let left_out = match (is_one, disabled) {
        (_, 0) => "",
        (true, 1) => "; 1 backend is disabled",
        (true, _) => &format!("; {disabled} backends are disabled"),
        (false, 1) => "; 1 server is in a disabled backend",
        (false, _) => &format!("; {disabled} servers are in disabled backends"),
    };
    if disabled == total {
        return format!("{who}: nothing to set {hosts}{left_out}");
    }
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
    format!("{who}: {how} {preposition} {}{left_out}{file}", where_(total - disabled - skipped))
}

/// Says which backends have too few servers in traffic.
fn guarded(run: &RunOutcome) -> String {
    let backends = |instance: &InstanceOutcome| {
        instance.targets.chunk_by(|one, next| one.before.backend_id == next.before.backend_id).count()
    };
    let total: usize = run.instances.iter().map(backends).sum();
    let short = run.instances.iter().flat_map(|instance| &instance.short);
    let names: Vec<String> =
        short.map(|short| format!("{} ({} of {})", short.backend, short.usable, short.needed)).collect();
    let plural = if total == 1 { "" } else { "s" };
    match names.len() {
        0 => format!("enough servers in traffic in {total} of {total} backend{plural}"),
        count => format!("too few servers in traffic in {count} of {total} backend{plural}, {},", a_few_of(&names)),
    }
}

/// The first two of a list, and how many more there are.
fn first_two(list: &[impl Display]) -> Option<String> {
    match list {
        [] => None,
        [one] => Some(one.to_string()),
        [first, second] => Some(format!("{first}, {second}")),
        [first, second, rest @ ..] => Some(format!("{first}, {second} and {} more", rest.len())),
    }
}

/// The first failure, and how many more there are.
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

/// Says why servers are not used as their state says, a sentence for each cause on each instance.
fn cautions(request: &Request, run: &RunOutcome) -> Vec<String> {
    let Some(goal) = &request.goal else { return Vec::new() };
    let mut warnings = Vec::new();
    for instance in &run.instances {
        let mut causes: Vec<(&str, Vec<String>)> = Vec::new();
        for target in instance.targets.iter().filter(|target| target.error().is_none()) {
            let Some(after) = target.after().map(|server| &server.state) else { continue };
            // What the state file restores is not lost in a reload.
            let is_kept = is_kept(&instance.state_files, &target.before.backend);
            let lasts = |cause: &&str| *cause != READY_UNTIL_RELOAD || !is_kept;
            let goal = &target.goal_for(*goal);
            for cause in causes_of(goal, target, after).into_iter().filter(lasts) {
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

fn causes_of(goal: &Goal, target: &Target, after: &ServerState) -> Vec<&'static str> {
    match target.verdict {
        Verdict::Spare | Verdict::Skipped => Vec::new(),
        Verdict::Disabled(DisabledBy::Reply) => {
            vec!["cannot be set: HAProxy says 'Proxy is disabled.', so the backend takes no traffic; enable it again"]
        }
        // It takes traffic in another backend, and is down in this one by its role.
        Verdict::Fine if target.watch == Watch::Excused => {
            cautions_of(goal, &target.before, &ServerState { operational: OperationalState::Running, ..*after })
        }
        Verdict::Fine | Verdict::Disabled(DisabledBy::Configuration) | Verdict::Failed(_) => {
            cautions_of(goal, &target.before, after)
        }
    }
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
