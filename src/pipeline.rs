//! The whole flow of a run on one screen: discover, observe all, plan, refuse or act, side by side on all instances.

use std::time::Duration;

use crate::act::converge::Managed;
use crate::act::drain::{End, drain, next_step};
use crate::act::fleet::{Fleet, Progress};
use crate::act::refuse::refuse;
use crate::act::rollback::roll_back;
use crate::act::wait::{end_sessions, wait};
use crate::decide::missing;
use crate::discover::account::{Account, account};
use crate::discover::select::{Instance, Presence, Selected, check_names, needs_discovery, nothing_runs, select};
use crate::discover::serving::Processes;
use crate::discover::{Discovery, discover};
use crate::haproxy::observe::{Detail, Observation, Process, Wanted, names, observe, observe_through, open_best};
use crate::haproxy::parse::Level;
use crate::haproxy::socket::Connection;
use crate::keep::exclusion::Exclusion;
use crate::keep::lock::LockSet;
use crate::keep::ownership::Ownership;
use crate::keep::persist::{Mode, assign, persist};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::Address;
use crate::model::state::AdminState;
use crate::report::{InstanceOutcome, RunOutcome};
use crate::request::{Change, OnFailure, OnMissing, OnUnreachable, Request};
use crate::time::interrupt::Interrupt;
use crate::time::side_by_side::side_by_side;

/// Carries a request out.
#[must_use]
pub fn run(request: &Request, interrupt: &Interrupt, progress: Progress<'_>) -> RunOutcome {
    let mut run = RunOutcome::default();
    if let Err(error) = steps(request, interrupt, progress, &mut run) {
        run.error = Some(error);
    }
    run
}

/// The steps of a run; what they find is in `run` also when one of them fails.
fn steps(request: &Request, interrupt: &Interrupt, progress: Progress<'_>, run: &mut RunOutcome) -> Result<()> {
    let wanted = Wanted { servers: &request.servers, backends: &request.backends };
    let Selected { chosen, others } = choose(request, interrupt, run)?;
    let mut exclusion = Exclusion::new(request, interrupt, progress);
    let asked = ask(request, wanted, chosen, &mut exclusion, &mut run.warnings)?;
    run.instances = asked.iter().map(|asked| asked.outcome(request)).collect();
    run.warnings.extend(asked.iter().filter_map(|asked| asked.skipped_warning(request)));
    let (instances, answers): (Vec<Instance>, Vec<Answer>) =
        asked.into_iter().map(|asked| (asked.instance, asked.answer)).unzip();
    let start = |(instance, answer)| Managed::new(instance, wanted, request, interrupt, answer);
    let answered = instances.iter().zip(answers).filter_map(|(instance, answer)| Some((instance, answer.ok()?)));
    let mut fleet =
        Fleet { managed: answered.map(start).collect(), progress, interrupt, exclusion, last_look: Duration::ZERO };
    let result = decide_and_act(request, &mut fleet, &others, run);
    run.take(fleet.managed);
    result
}

/// The steps from what was observed to what was done.
fn decide_and_act(request: &Request, fleet: &mut Fleet<'_>, others: &[Instance], run: &mut RunOutcome) -> Result<()> {
    if let Some(interrupted) = fleet.interrupt.check() {
        return Err(interrupted);
    }
    if run.has_failed() {
        return Ok(());
    }
    let observations: Vec<&Observation> = fleet.managed.iter().map(|managed| &managed.current).collect();
    let known = || observations.iter().filter_map(|it| names(&it.address, request.timeout).ok()).flatten().collect();
    missing::check(request, &observations, || elsewhere(request, others), known)?;
    let ownership = Ownership::load();
    run.warnings.extend(ownership.warnings.iter().cloned());
    let Some(change) = request.change else {
        fleet.managed.iter_mut().for_each(|managed| ownership.show(managed));
        return Ok(());
    };
    run.warnings.extend(fleet.exclusion.check(request)?);
    refuse(request, change, &ownership, &mut fleet.managed);
    assign(request, &mut fleet.managed)?;
    if fleet.has_failed() {
        return Ok(());
    }
    if request.dry_run {
        foresee(request, change, &mut fleet.managed);
        return Ok(());
    }
    if let Some(interrupted) = fleet.interrupt.check() {
        return Err(interrupted);
    }
    let mut record = |fleet: &Fleet<'_>| {
        run.warnings.extend(ownership.record(request, fleet.exclusion.folder(), &fleet.managed));
    };
    let result = act(request, change, fleet, &mut record);
    record(fleet);
    result
}

/// Records who has taken servers out.
type Note<'a> = &'a mut dyn FnMut(&Fleet<'_>);

/// Sends what is needed and waits as long as asked; what has failed is set back if the request says so.
fn act(request: &Request, change: Change, fleet: &mut Fleet<'_>, record: Note<'_>) -> Result<()> {
    let result = change_and_wait(request, change, fleet, record);
    if result.is_err() {
        // Somebody else may have set something in a pause.
        fleet.refresh().ok();
    }
    for managed in &mut fleet.managed {
        if let Some(why) = result.as_ref().err().or(managed.error.as_ref()).cloned() {
            managed.give_up(&change, &why);
        }
    }
    save(fleet);
    let must_roll_back = request.on_failure == OnFailure::Rollback && (result.is_err() || fleet.has_failed());
    if must_roll_back || matches!(result, Ok(End::Rollback)) {
        roll_back(fleet)?;
        save(fleet);
    }
    result.map(drop)
}

/// Brings the server-state files in step, under the lock, so that no other run writes an older state over it.
fn save(fleet: &mut Fleet<'_>) {
    if fleet.managed.iter().all(|managed| managed.state_file.is_none()) {
        return;
    }
    match fleet.lock() {
        Ok(_) => fleet.managed.iter_mut().for_each(|managed| persist(managed, Mode::Write)),
        Err(error) => fleet.managed.iter_mut().for_each(|managed| {
            managed.warnings.push(format!("the state file was not brought in step: {error}"));
        }),
    }
}

fn change_and_wait(request: &Request, change: Change, fleet: &mut Fleet<'_>, record: Note<'_>) -> Result<End> {
    let end = match request.drain {
        Some(bounds) => {
            fleet.carry_out(&|_, server| next_step(change, server))?;
            record(fleet);
            drain(fleet, change, bounds)?
        }
        None => {
            fleet.carry_out(&|_, _| change)?;
            End::Done
        }
    };
    if request.wait.is_some() || request.shutdown_sessions {
        // A reload while this run waits must not forget what it has set, and who comes by must see who it was.
        save(fleet);
        if change.state != Some(AdminState::Ready) {
            record(fleet);
        }
    }
    // Who ends the sessions does not wait for their end before.
    if end == End::Done
        && let (Some(state), Some(bounds)) = (change.state, request.wait)
        && !request.shutdown_sessions
    {
        wait(fleet, change, state, bounds)?;
    }
    if request.shutdown_sessions || end == End::Shutdown {
        let drained = request.drain.map(|bounds| bounds.timeout).filter(|_| end != End::Shutdown);
        let waited = request.wait.map(|bounds| bounds.timeout);
        end_sessions(fleet, change, drained.or(waited).unwrap_or(request.timeout))?;
    }
    Ok(end)
}

/// Predicts what a run would send and how the servers would be then.
fn foresee(request: &Request, change: Change, managed: &mut [Managed<'_>]) {
    for managed in managed {
        if request.drain.is_some() {
            managed.foresee(&|server| next_step(change, server));
        }
        managed.foresee(&|_| change);
        persist(managed, Mode::Compare);
    }
}

/// Finds the instances that the request means.
fn choose(request: &Request, interrupt: &Interrupt, run: &mut RunOutcome) -> Result<Selected> {
    let wanted = request.instances.as_deref();
    let names_something = !request.servers.is_empty() || !request.backends.is_empty();
    let needs_others = request.on_missing == OnMissing::ElsewhereOk && names_something;
    // Who names an instance means it.
    let ignored = if wanted.is_none() { request.ignore_instances.as_slice() } else { &[] };
    let discovery =
        if needs_discovery(wanted) || needs_others { discover(ignored, interrupt)? } else { Discovery::default() };
    let selected = select(wanted, &discovery);
    if wanted.is_none() || selected.is_err() {
        run.warnings.extend(discovery.warnings);
    }
    selected
}

/// What an instance answered, with the connection for more.
type Answer = Result<(Observation, Connection)>;

/// An instance and what it answered.
struct Asked {
    instance: Instance,
    answer: Answer,
}

impl Asked {
    /// The outcome of the instance, without its servers.
    fn outcome(&self, request: &Request) -> InstanceOutcome {
        let answer = self.answer.as_ref();
        let socket = match &self.answer {
            Ok((observation, _)) => Some(&observation.address),
            Err(_) => self.instance.addresses.first(),
        };
        InstanceOutcome {
            name: self.instance.name.to_string(),
            socket: socket.map(Address::to_string).unwrap_or_default(),
            process: answer.ok().map(|(answer, _)| (answer.process.version.clone(), answer.process.pid)),
            servers: Vec::new(),
            error: answer.err().cloned(),
            is_skipped: answer.is_err() && request.on_unreachable == OnUnreachable::Skip,
            persisted: None,
        }
    }

    fn skipped_warning(&self, request: &Request) -> Option<String> {
        let error = self.answer.as_ref().err().filter(|_| request.on_unreachable == OnUnreachable::Skip)?;
        Some(format!("{}: skipped, because {error}", self.instance.name))
    }
}

/// Observes all instances, and drops those that are none or that are the same HAProxy as another.
fn ask(
    request: &Request,
    wanted: Wanted<'_>,
    chosen: Vec<Instance>,
    exclusion: &mut Exclusion<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Asked>> {
    let detail = match (request.change, request.guard) {
        (None, _) => Detail::Statistics,
        (Some(_), None) => Detail::Links,
        (Some(_), Some(_)) => Detail::Everything,
    };
    let answers = look(request, wanted, detail, &chosen, exclusion)?;
    let pid = |answer: &Answer| answer.as_ref().ok().map(|(observation, _)| observation.process.pid);
    let accounts = account(&chosen, &answers.iter().map(pid).collect::<Vec<_>>(), &Processes::now());
    let mut asked: Vec<Asked> = Vec::new();
    for ((instance, answer), account) in chosen.into_iter().zip(answers).zip(accounts) {
        let answer = match account {
            Account::OwnAnswer => answer,
            Account::NotReached(error) => Err(error),
            Account::OfAnother => continue,
            Account::LeftOut(warning) => {
                warnings.push(warning);
                continue;
            }
        };
        let is_possible = instance.presence == Presence::Possible;
        if let Some(error) = answer.as_ref().err().filter(|error| is_possible && is_no_haproxy(error)) {
            warnings.extend(instance.pid.map(|pid| {
                format!("{}: HAProxy process {pid} ({}) is left out: {error}", instance.name, instance.origin)
            }));
            continue;
        }
        let twin = asked.iter_mut().find(|other| match (&other.answer, &answer) {
            (Ok((other, _)), Ok((answer, _))) => is_same(other, answer),
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

/// Observes all instances side by side, each under its lock, so that what is observed stays so until the run has acted.
///
/// Where somebody else has a lock, all are let go and waited for in the one order in which all runs do.
fn look(
    request: &Request,
    wanted: Wanted<'_>,
    detail: Detail,
    chosen: &[Instance],
    exclusion: &mut Exclusion<'_>,
) -> Result<Vec<Answer>> {
    let at_once = |instance| {
        let (opened, level) = open_best(instance, request.timeout)?;
        let place = (opened.address.clone(), opened.process.clone());
        let lock = exclusion.try_take(&opened.address, &opened.process);
        Ok((place, lock.map(|lock| (lock, observe_through((opened, level), wanted, detail)))))
    };
    let found: Vec<Result<_>> = side_by_side(chosen, at_once).into_iter().collect::<Result<_>>()?;
    let places: Vec<(Address, Process)> = found.iter().flatten().map(|(place, _)| place.clone()).collect();
    let answers = found.into_iter().map(|found| match found {
        Ok((_, answer)) => answer,
        Err(error) => Some((LockSet::default(), Err(error))),
    });
    if let Some(all) = answers.collect::<Option<Vec<_>>>() {
        let (locks, answers): (Vec<LockSet>, Vec<Answer>) = all.into_iter().unzip();
        exclusion.hold(locks);
        return Ok(answers);
    }
    exclusion.take(places.iter().map(|(address, process)| (address, process)))?;
    // What was opened before the wait may lead to processes that have ended since.
    let again = |instance| observe_through(open_best(instance, request.timeout)?, wanted, detail);
    side_by_side(chosen, again).into_iter().collect()
}

/// Tells whether nothing listens at an address, or something that is no HAProxy.
fn is_no_haproxy(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Unreachable | ErrorKind::NotHaproxy)
}

/// Tells whether one HAProxy has answered twice. Containers may repeat process ids, so that the servers count as well.
fn is_same(one: &Observation, other: &Observation) -> bool {
    one.process.is(&other.process)
        && one.backends == other.backends
        && one.servers.len() == other.servers.len()
        && one.servers.iter().zip(&other.servers).all(|(one, other)| one.identity() == other.identity())
}

/// Which of two sockets of one HAProxy serves better: admin level wins, then Unix, then the first.
fn rank(answer: &Answer) -> Option<(Level, bool)> {
    answer.as_ref().ok().map(|(it, _)| (it.level, matches!(it.address, Address::Unix(_))))
}

/// Observes the instances that the request leaves out, for names that may be there.
fn elsewhere(request: &Request, others: &[Instance]) -> Vec<Observation> {
    let wanted = Wanted { servers: &request.servers, backends: &request.backends };
    let answers = side_by_side(others, |instance| observe(instance, wanted, Detail::Links, request.timeout));
    answers.into_iter().filter_map(|answer| answer.ok()?.ok()).collect()
}
