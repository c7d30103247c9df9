//! The whole flow of a run on one screen: discover, lock and observe all, plan, refuse or act, report.

use std::time::Duration;

use crate::act::audit::{Moment, log_changes};
use crate::act::carry_out::{carry_out, foresee};
use crate::act::fleet::Fleet;
use crate::act::gather::{Asked, check_names, gather, perhaps_on_skipped};
use crate::act::instance::{Instance, detail_of};
use crate::act::permit::permit;
use crate::act::records::{open_state_files, record_owners, show_owners};
use crate::discover::select::{Selected, choose};
use crate::haproxy::client::Bounds;
use crate::keep::audit::Audit;
use crate::keep::exclusion::Exclusion;
use crate::keep::ownership::Ownership;
use crate::model::error::Result;
use crate::report::outcome::RunOutcome;
use crate::request::Request;
use crate::time::clock::HostClock;
use crate::time::deadline::Progress;
use crate::time::interrupt::Interrupt;

/// Carries out a request.
#[must_use]
pub fn run(request: &Request, signals: &Interrupt, progress: Progress<'_>) -> RunOutcome {
    if let Some(deadline) = request.deadline {
        signals.bound(deadline);
    }
    let mut run = RunOutcome::default();
    run.error = steps(request, signals, progress, &mut run).err();
    run
}

/// The steps of a run; their results are in `run` even if one of them fails.
fn steps(request: &Request, signals: &Interrupt, progress: Progress<'_>, run: &mut RunOutcome) -> Result<()> {
    let selected = choose(request, signals, &mut run.warnings)?;
    let exclusion = Exclusion::new(request, signals, progress);
    let bounds = Bounds { timeout: request.timeout, run_end: signals.end() };
    let are_owned = || Ownership::load().map(|ownership| !ownership.is_empty());
    let detail = detail_of(request, are_owned)?;
    let asked = gather(request, &selected.chosen, (detail, bounds), &exclusion, &mut run.warnings)?;
    run.note(request, &asked);
    let start = |Asked { site, answer }| {
        let (observation, runtime) = answer.ok()?;
        Some(Instance::new(site, request, detail, observation, Box::new(runtime)))
    };
    let instances = asked.into_iter().filter_map(start).collect();
    let (clock, guard, last_poll) = (&HostClock, request.guard, Duration::ZERO);
    let audit = Audit::new(request);
    let mut fleet = Fleet { instances, progress, signals, clock, exclusion, guard, audit, last_poll, changes: 0 };
    let result = decide_and_act(request, &mut fleet, &selected, run);
    run.take(request, fleet.instances);
    result
}

/// The steps from the observation to the result.
fn decide_and_act(request: &Request, fleet: &mut Fleet<'_>, selected: &Selected, run: &mut RunOutcome) -> Result<()> {
    fleet.signals.check().map_or(Ok(()), Err)?;
    if run.has_failed() {
        return Ok(());
    }
    let skipped = run.instances.iter().filter(|instance| instance.is_skipped).map(|instance| instance.name.as_str());
    check_names(request, fleet, selected)
        .map_err(|missing| perhaps_on_skipped(missing, &skipped.collect::<Vec<_>>()))?;
    let ownership = Ownership::load()?;
    run.warnings.extend(ownership.warnings.iter().cloned());
    let Some(goal) = request.goal else {
        show_owners(&ownership, fleet);
        return fleet.note_old_processes();
    };
    run.warnings.extend(fleet.exclusion.check(request)?);
    permit(request, goal, &ownership, fleet);
    let asked: Vec<&str> = run.instances.iter().map(|instance| instance.name.as_str()).collect();
    open_state_files(request, &asked, fleet)?;
    if fleet.has_failed() {
        return Ok(());
    }
    if request.dry_run {
        foresee(request, goal, fleet);
        return Ok(());
    }
    fleet.signals.check().map_or(Ok(()), Err)?;
    let mut record = |fleet: &mut Fleet<'_>| run.warnings.extend(record_owners(request, &ownership, fleet));
    let result = carry_out(request, goal, fleet, &mut record);
    record(fleet);
    log_changes(fleet, Moment::End);
    run.warnings.extend(fleet.audit.warning());
    result
}
