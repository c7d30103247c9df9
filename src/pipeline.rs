//! The whole flow of a run on one screen: discover, observe all, plan, then act, side by side on all instances.

use crate::converge::{Converged, Task, converge};
use crate::discover::{Discovery, discover};
use crate::error::{Error, ErrorKind, Result};
use crate::instances::{Instance, Presence, Selected, check_names, needs_discovery, nothing_runs, select};
use crate::interrupt::Interrupt;
use crate::missing;
use crate::name::Address;
use crate::observe::{Detail, Observation, Wanted, observe};
use crate::plan::{Decision, Planned, plan};
use crate::report::{InstanceOutcome, RunOutcome};
use crate::request::{Change, OnMissing, OnUnreachable, Request};
use crate::runtime::parse::Level;
use crate::side_by_side::side_by_side;

/// Carries a request out.
#[must_use]
pub fn run(request: &Request, interrupt: &Interrupt) -> RunOutcome {
    let mut run = RunOutcome::default();
    if let Err(error) = steps(request, interrupt, &mut run) {
        run.error = Some(error);
    }
    run
}

/// The steps of a run; what they find is in `run` also when one of them fails.
fn steps(request: &Request, interrupt: &Interrupt, run: &mut RunOutcome) -> Result<()> {
    let wanted = Wanted { servers: &request.servers, backends: &request.backends };
    let Selected { chosen, others } = choose(request, run)?;
    let asked = ask(request, wanted, chosen)?;
    run.instances = asked.iter().map(|asked| asked.outcome(request)).collect();
    run.warnings.extend(asked.iter().filter_map(|asked| asked.skipped_warning(request)));
    if let Some(interrupted) = interrupt.check() {
        return Err(interrupted);
    }
    if run.instances.iter().any(|instance| instance.error.is_some() && !instance.is_skipped) {
        return Ok(());
    }
    let observations: Vec<&Observation> = asked.iter().filter_map(|asked| asked.answer.as_ref().ok()).collect();
    missing::check(request, &observations, || elsewhere(request, wanted, &others))?;
    let Some(change) = &request.change else { return Ok(()) };

    let planned: Vec<Vec<Planned>> = asked.iter().map(|asked| asked.plan(change)).collect();
    refuse_without_rights(&asked, &planned, run);
    if run.instances.iter().any(|instance| instance.error.is_some() && !instance.is_skipped) {
        return Ok(());
    }
    if request.dry_run {
        for (instance, planned) in run.instances.iter_mut().zip(&planned) {
            instance.foresee(planned);
        }
        return Ok(());
    }
    let work: Vec<(&Asked, Vec<Planned>)> = asked.iter().zip(planned).collect();
    let done = side_by_side(&work, |(asked, planned)| {
        let task = Task { instance: &asked.instance, wanted, change, timeout: request.timeout, interrupt };
        asked.answer.as_ref().ok().map(|observation| converge(&task, observation, planned))
    });
    for (instance, converged) in run.instances.iter_mut().zip(done) {
        if let Some(converged) = converged? {
            run.warnings.extend(take(instance, converged));
        }
    }
    interrupt.check().map_or(Ok(()), Err)
}

/// Finds the instances that the request means.
fn choose(request: &Request, run: &mut RunOutcome) -> Result<Selected> {
    let wanted = request.instances.as_deref();
    let needs_others = request.on_missing == OnMissing::ElsewhereOk;
    let discovery = if needs_discovery(wanted) || needs_others { discover() } else { Discovery::default() };
    let selected = select(wanted, &discovery);
    if wanted.is_none() || selected.is_err() {
        run.warnings.extend(discovery.warnings);
    }
    selected
}

/// An instance and what it answered.
struct Asked {
    instance: Instance,
    answer: Result<Observation>,
}

impl Asked {
    fn outcome(&self, request: &Request) -> InstanceOutcome {
        let name = self.instance.name.as_str();
        match &self.answer {
            Ok(observation) => InstanceOutcome::observed(name, observation),
            Err(error) => InstanceOutcome {
                name: name.to_owned(),
                socket: self.instance.addresses.first().map(Address::to_string).unwrap_or_default(),
                process: None,
                servers: Vec::new(),
                error: Some(error.clone()),
                is_skipped: request.on_unreachable == OnUnreachable::Skip,
            },
        }
    }

    fn skipped_warning(&self, request: &Request) -> Option<String> {
        let error = self.answer.as_ref().err().filter(|_| request.on_unreachable == OnUnreachable::Skip)?;
        Some(format!("{}: skipped, because {error}", self.instance.name))
    }

    fn plan(&self, change: &Change) -> Vec<Planned> {
        self.answer.as_ref().map(|observation| plan(change, &observation.servers)).unwrap_or_default()
    }
}

/// Observes all instances side by side, and drops those that are none or that are the same HAProxy as another.
fn ask(request: &Request, wanted: Wanted<'_>, chosen: Vec<Instance>) -> Result<Vec<Asked>> {
    let detail = if request.change.is_some() { Detail::Links } else { Detail::Statistics };
    let answers = side_by_side(&chosen, |instance| observe(instance, wanted, detail, request.timeout));
    let mut asked: Vec<Asked> = Vec::new();
    for (instance, answer) in chosen.into_iter().zip(answers) {
        let answer = answer?;
        if instance.presence == Presence::Possible
            && answer.as_ref().is_err_and(|error| error.kind == ErrorKind::Unreachable)
        {
            continue;
        }
        let twin = asked.iter_mut().find(|other| match (&other.answer, &answer) {
            (Ok(other), Ok(answer)) => is_same(other, answer),
            _ => false,
        });
        match twin {
            None => asked.push(Asked { instance, answer }),
            Some(twin) if rank(&answer) > rank(&twin.answer) => *twin = Asked { instance, answer },
            Some(_) => {}
        }
    }
    if asked.is_empty() {
        return Err(nothing_runs());
    }
    check_names(asked.iter().map(|asked| &asked.instance))?;
    Ok(asked)
}

/// Tells whether one HAProxy has answered twice. Containers may repeat process ids, so that the servers count as well.
fn is_same(one: &Observation, other: &Observation) -> bool {
    one.process.is(&other.process)
        && one.backends == other.backends
        && one.servers.len() == other.servers.len()
        && one.servers.iter().zip(&other.servers).all(|(one, other)| one.is(other))
}

/// Which of two sockets of one HAProxy serves better: admin level wins, then Unix, then the first.
fn rank(answer: &Result<Observation>) -> Option<(Level, bool)> {
    answer.as_ref().ok().map(|it| (it.level, matches!(it.address, Address::Unix(_))))
}

/// Observes the instances that the request leaves out, for names that may be there.
fn elsewhere(request: &Request, wanted: Wanted<'_>, others: &[Instance]) -> Vec<Observation> {
    let answers = side_by_side(others, |instance| observe(instance, wanted, Detail::Links, request.timeout));
    answers.into_iter().filter_map(|answer| answer.ok()?.ok()).collect()
}

/// Refuses, before anything is sent, what the socket of an instance does not allow.
fn refuse_without_rights(asked: &[Asked], planned: &[Vec<Planned>], run: &mut RunOutcome) {
    for ((asked, planned), outcome) in asked.iter().zip(planned).zip(&mut run.instances) {
        let Ok(observation) = &asked.answer else { continue };
        let needs_rights = planned.iter().any(|planned| matches!(planned.decision, Decision::Change(_)));
        if needs_rights && observation.level != Level::Admin {
            let address = &observation.address;
            let msg = format!(
                "the socket {address} has the level '{}', but setting servers needs 'admin': write 'stats socket {address} \
                 level admin' in the global section of haproxy.cfg and reload HAProxy",
                observation.level.as_str()
            );
            outcome.error = Some(Error::new(ErrorKind::PermissionDenied, msg));
        }
    }
}

/// Takes over what became of an instance; returns what is worth knowing besides.
fn take(instance: &mut InstanceOutcome, converged: Converged) -> Vec<String> {
    let Converged { outcomes, process, error, warnings } = converged;
    instance.servers = outcomes;
    instance.process = Some((process.version, process.pid));
    instance.error = error;
    warnings.into_iter().map(|warning| format!("{}: {warning}", instance.name)).collect()
}
