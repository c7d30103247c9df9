//! Locks and observes all instances, so that the observation stays valid until the run has acted.

use std::time::Instant;

use super::fleet::Fleet;
use super::instance::{Instance, PROCESSES};
use crate::decide::missing::{self, Found};
use crate::discover::account::{Account, account};
use crate::discover::predecessors::predecessors;
use crate::discover::select::{self, Presence, Selected, Site, nothing_runs};
use crate::discover::serving::Processes;
use crate::discover::twins::is_same_haproxy;
use crate::haproxy::client::{Answered, Bounds, Runtime};
use crate::haproxy::observe::{About, Detail, Observation, names};
use crate::haproxy::open::Contact;
use crate::haproxy::parse::Level;
use crate::keep::exclusion::Exclusion;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::memory::{FOR_A_SERVER, could_have};
use crate::model::text::a_few_of;
use crate::request::{OnUnreachable, Request};
use crate::time::side_by_side::side_by_side;

/// An instance and what it answered.
pub struct Asked<'a> {
    /// The instance.
    pub site: &'a Site,
    /// What it answered, with its connection.
    pub answer: Result<(Observation, Runtime<'a>)>,
}

/// Observes all instances, each under its lock, accounts for every process, and leaves out those that are none or the
/// same HAProxy as another.
///
/// # Errors
/// When a lock cannot be taken, nothing answers at all, two of them have the same name, or there is not enough memory for
/// what is to be done with the servers.
pub fn gather<'a>(
    request: &'a Request,
    sites: &'a [Site],
    (detail, bounds): (Detail, Bounds),
    exclusion: &Exclusion<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Asked<'a>>> {
    let answers = observe_all(request, sites, (detail, bounds), exclusion)?;
    let servers = answers.iter().flatten().map(|(observation, _)| observation.servers.len()).sum::<usize>();
    if !could_have(servers.saturating_mul(FOR_A_SERVER)) {
        let msg = format!(
            "there is not enough memory to do anything with {servers} servers; allow this program more, or select fewer"
        );
        return Err(Error::new(ErrorKind::Resources, msg));
    }
    let pid = |answer: &Result<(Observation, Runtime<'_>)>| {
        answer.as_ref().ok().map(|(observation, _)| observation.contact.process.pid)
    };
    let accounts = account(sites, &answers.iter().map(pid).collect::<Vec<_>>(), &Processes::now());
    let mut asked: Vec<Asked<'a>> = Vec::new();
    for ((site, answer), account) in sites.iter().zip(answers).zip(accounts) {
        let answer = match account {
            Account::OwnAnswer => answer,
            Account::NotReached(error) => Err(error),
            Account::OfAnother => continue,
            Account::LeftOut(warning) => {
                warnings.push(warning);
                continue;
            }
        };
        let is_possible = site.presence == Presence::Possible;
        if let Some(error) = answer.as_ref().err().filter(|error| is_possible && is_not_haproxy(error)) {
            let label = |pid| format!("{}: HAProxy process {pid} ({}) is left out: {error}", site.name, site.origin);
            warnings.extend(site.pid.map(label));
            continue;
        }
        let twin = asked.iter_mut().find(|other| match (&other.answer, &answer) {
            (Ok((other, _)), Ok((answer, _))) => is_same_haproxy(other, answer),
            (Ok(_) | Err(_), _) => false,
        });
        let one = Asked { site, answer };
        match twin {
            None => asked.push(one),
            Some(twin) if one.rank() > twin.rank() => *twin = one,
            Some(_) => {}
        }
    }
    if asked.is_empty() {
        return Err(nothing_runs());
    }
    select::check_names(asked.iter().map(|asked| asked.site))?;
    Ok(asked)
}

impl Asked<'_> {
    fn rank(&self) -> Option<(Level, bool)> {
        self.answer.as_ref().ok().map(|(observation, _)| observation.contact.rank())
    }

    /// Says why the run goes on without it, if it does.
    #[must_use]
    pub fn skipped_warning(&self, request: &Request) -> Option<String> {
        let error = self.answer.as_ref().err().filter(|_| self.is_skipped(request))?;
        Some(format!("{}: skipped, because {error}", self.site.name))
    }

    /// Tells whether the run goes on without it. What this program itself runs short of says nothing about an instance.
    #[must_use]
    pub fn is_skipped(&self, request: &Request) -> bool {
        let is_its_own = |error: &Error| error.kind != ErrorKind::Resources;
        request.on_unreachable == OnUnreachable::Skip && self.answer.as_ref().err().is_some_and(is_its_own)
    }
}

/// The result of one attempt to lock and observe an instance.
enum Tried<'a> {
    Observed(Box<(Observation, Runtime<'a>)>),
    /// Somebody else has its lock.
    Locked(Contact),
    Failed(Error),
}

/// Observes all instances side by side, each under its lock.
///
/// If somebody else has a lock, all are released and waited for in the order that all runs use. Then everything is
/// observed again: connections may have ended since, and another process or instance may answer, which is also locked
/// before it is observed.
fn observe_all<'a>(
    request: &'a Request,
    sites: &'a [Site],
    (detail, bounds): (Detail, Bounds),
    exclusion: &Exclusion<'_>,
) -> Result<Vec<Result<(Observation, Runtime<'a>)>>> {
    let deadline = Instant::now().checked_add(request.lock_timeout);
    loop {
        let tried: Vec<Tried<'_>> = side_by_side(sites, |site| try_one(request, site, (detail, bounds), exclusion))
            .into_iter()
            .collect::<Result<_>>()?;
        let contacts = || {
            tried.iter().filter_map(|tried| match tried {
                Tried::Observed(observed) => Some(&observed.0.contact),
                Tried::Locked(contact) => Some(contact),
                Tried::Failed(_) => None,
            })
        };
        if !tried.iter().any(|tried| matches!(tried, Tried::Locked(_))) {
            return Ok(tried.into_iter().filter_map(Tried::into_answer).collect());
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) && request.lock_timeout.as_nanos() > 0 {
            return Err(Error::new(
                ErrorKind::Locked,
                "others keep changing and reloading HAProxy; run this again when it is quiet",
            ));
        }
        exclusion.release();
        exclusion.take(contacts())?;
    }
}

impl<'a> Tried<'a> {
    fn into_answer(self) -> Option<Result<(Observation, Runtime<'a>)>> {
        match self {
            Self::Observed(observed) => Some(Ok(*observed)),
            Self::Failed(error) => Some(Err(error)),
            Self::Locked(_) => None,
        }
    }
}

fn try_one<'a>(
    request: &'a Request,
    site: &'a Site,
    (detail, bounds): (Detail, Bounds),
    exclusion: &Exclusion<'_>,
) -> Tried<'a> {
    let places = (site.addresses.as_slice(), site.masters.as_slice());
    let observed = || {
        for _ in 0..PROCESSES {
            let mut runtime = Runtime::open(site.name.as_str(), places, request.selection(), bounds, predecessors)?;
            if !exclusion.try_take(runtime.contact()) {
                return Ok(Tried::Locked(runtime.contact().clone()));
            }
            if let Answered::Same(observation) = runtime.observe_first(detail)? {
                return Ok(Tried::Observed(Box::new((observation, runtime))));
            }
        }
        let what = format!("HAProxy was reloaded {PROCESSES} times before its servers were read");
        Err(Error::new(ErrorKind::Reloaded, what + "; run this again when it is quiet"))
    };
    observed().unwrap_or_else(Tried::Failed)
}

/// Tells whether nothing listens at an address, or something that is not HAProxy.
fn is_not_haproxy(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Unreachable | ErrorKind::NotHaproxy)
}

/// Checks that everything the request names exists.
///
/// # Errors
/// Names everything that is missing, each with the closest known name.
pub fn check_names(request: &Request, fleet: &Fleet<'_>, selected: &Selected) -> Result<()> {
    let bounds = Bounds { timeout: request.timeout, run_end: fleet.signals.end() };
    let found: Vec<Found<'_>> = fleet.instances.iter().map(found_on).collect();
    let addresses = fleet.instances.iter().map(|instance| &instance.contact.address);
    let known = |sought| addresses.filter_map(|address| names(address, sought, bounds.step()).ok()).flatten().collect();
    missing::check(request, &found, || elsewhere(request, selected, bounds), known)
}

/// Says that what is missing may be on instances that were skipped, by their names.
#[must_use]
pub fn perhaps_on_skipped(missing: Error, skipped: &[&str]) -> Error {
    if skipped.is_empty() || !matches!(missing.kind, ErrorKind::ServerNotFound | ErrorKind::BackendNotFound) {
        return missing;
    }
    let named: Vec<String> = skipped.iter().map(|name| format!("'{name}'")).collect();
    let what = missing.msg.split_once("; ").map_or(&*missing.msg, |(what, _)| what);
    let msg = format!(
        "{what}, but {} did not answer and may have it; run this again when it answers, or set 'on_missing' to 'ignore'",
        a_few_of(&named)
    );
    Error::new(ErrorKind::Unreachable, msg)
}

fn found_on<'i>(instance: &'i Instance<'_>) -> Found<'i> {
    Found {
        servers: instance.targets.iter().map(|target| &target.before).collect(),
        backends: &instance.rest.backends_found,
    }
}

/// Observes the instances that a request leaves out, to find names there.
fn elsewhere(request: &Request, selected: &Selected, bounds: Bounds) -> Vec<Observation> {
    let observe = |site: &Site| {
        let places = (site.addresses.as_slice(), site.masters.as_slice());
        let mut runtime = Runtime::open(site.name.as_str(), places, request.selection(), bounds, predecessors)?;
        runtime.observe_first(Detail { about: About::State, guard: None })
    };
    let answers = side_by_side(&selected.others, observe);
    let observations = answers.into_iter().filter_map(|answer| match answer.ok()?.ok()? {
        Answered::Same(observation) => Some(observation),
        Answered::Replaced(_) => None,
    });
    observations.collect()
}
