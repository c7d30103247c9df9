//! Who took a server out, why and until when: looked up for a status, minded by `ready`, recorded with drain and maint.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::act::converge::{Managed, Outcome};
use crate::haproxy::observe::Server;
use crate::keep::folder::Folder;
use crate::keep::owner::{Place, Record, Records, Seen, load, update};
use crate::keep::state_file::is_kept;
use crate::model::error::{Error, ErrorKind};
use crate::model::state::AdminState;
use crate::request::Request;
use crate::time::expiry;

/// The records that the caller can see.
#[derive(Debug, Default)]
pub struct Ownership {
    records: Vec<Records>,
    /// What is wrong with the files, a sentence each.
    pub warnings: Vec<String>,
}

/// Returns the time, in seconds since the epoch.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Ownership {
    /// Reads the records of root, and those of the caller if that is somebody else.
    #[must_use]
    pub fn load() -> Self {
        let mut ownership = Self::default();
        let folders = [Folder::of_root(), Folder::of_caller_if_any()];
        let mut seen = None;
        for folder in folders.into_iter().flatten() {
            if seen.as_deref() == Some(folder.path()) {
                continue;
            }
            seen = Some(folder.path().to_owned());
            let loaded = load(&folder);
            ownership.records.push(loaded.records);
            ownership.warnings.extend(loaded.warning);
        }
        ownership
    }

    /// Finds who has taken the server of an instance out, as long as that still counts.
    fn find(&self, place: &Place<'_>, server: &Server) -> Option<&Record> {
        self.records.iter().find_map(|records| records.find(place, &seen(server)))
    }

    /// Looks up who has taken the servers of an instance out.
    pub fn show(&self, managed: &mut Managed<'_>) {
        if self.records.iter().all(Records::is_empty) {
            return;
        }
        let address = managed.current.address.to_string();
        let place = Place { address: &address, process: &managed.current.process };
        for (outcome, server) in managed.outcomes.iter_mut().zip(&managed.current.servers) {
            outcome.record = self.find(&place, server).cloned().map(Box::new);
        }
    }

    /// Refuses to put back what another owner has taken out, unless the time that it was meant for is over.
    pub fn refuse(&self, request: &Request, managed: &mut Managed<'_>) {
        let is_ready = request.change.is_some_and(|change| change.state == Some(AdminState::Ready));
        if !is_ready || request.ignore_owner || self.records.iter().all(Records::is_empty) {
            return;
        }
        let now = now();
        let address = managed.current.address.to_string();
        let place = Place { address: &address, process: &managed.current.process };
        for (outcome, server) in managed.outcomes.iter_mut().zip(&managed.current.servers) {
            let Some(record) = self.find(&place, server).filter(|record| !record.is_expired(now)) else {
                continue;
            };
            let Some(owner) = record.owner.as_deref().filter(|owner| Some(*owner) != claimant(request)) else {
                continue;
            };
            let reason = record.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            let until = record.expires.map(|at| format!(" until {}", expiry::render(at))).unwrap_or_default();
            let msg = format!(
                "{} was taken out by {owner}{reason}{until}; ask first, or give 'ignore_owner': true",
                server.full_name()
            );
            let error = Error::new(ErrorKind::Owned, msg).on_server(&server.backend, &server.server);
            outcome.error = outcome.error.take().or(Some(error));
        }
    }

    /// Records who has taken servers out, and forgets those that were put back; returns what is worth knowing.
    #[must_use]
    pub fn record(&self, request: &Request, folder: Option<&Folder>, fleet: &[Managed<'_>]) -> Vec<String> {
        let Some(state) = request.change.and_then(|change| change.state) else { return Vec::new() };
        let mut warnings = Vec::new();
        // The records of other instances are not this run's business, and their lock is not worth a wait.
        let is_known = |managed: &Managed<'_>| {
            let address = managed.current.address.to_string();
            let place = Place { address: &address, process: &managed.current.process };
            self.records.iter().any(|records| records.knows(&place))
        };
        let Some(folder) = folder.filter(|_| request.claim.is_some() || fleet.iter().any(is_known)) else {
            if request.claim.is_some() {
                warnings
                    .push("who takes the servers out was not recorded: there is no folder to keep it in".to_owned());
            }
            return warnings;
        };
        let now = now();
        let failure = update(folder, |records| {
            for managed in fleet {
                let address = managed.current.address.to_string();
                let place = Place { address: &address, process: &managed.current.process };
                for (index, (outcome, server)) in managed.outcomes.iter().zip(&managed.current.servers).enumerate() {
                    // A drain is on its way to maint.
                    let step = managed.planned.get(index).and_then(|planned| planned.goal.state);
                    let Some(state) = left_in(outcome, server, step.unwrap_or(state)) else { continue };
                    let before = Seen { flags: outcome.before.flags, ..seen(server) };
                    let known = records.find(&place, &before).or_else(|| records.find(&place, &seen(server)));
                    let known = known.filter(|known| known.owner.is_some() && !known.is_expired(now)).cloned();
                    match (state, &request.claim) {
                        (AdminState::Ready, _) => records.remove(&place, &server.backend, &server.server),
                        (AdminState::Drain | AdminState::Maint, claim) => {
                            let owner = claim.as_ref().and_then(|claim| claim.owner.clone());
                            if let Some(known) = known.filter(|known| known.owner != owner) {
                                // Who has taken it out first keeps it, also from one kind of outage to the other.
                                if claim.is_some() || known.state != state {
                                    let first = known.owner.as_deref().unwrap_or_default();
                                    let name = server.full_name();
                                    warnings
                                        .push(format!("{}: {name} stays recorded for {first}", managed.instance.name));
                                }
                                records.put(Record { state, process: managed.current.process.clone(), ..known });
                            } else if let Some(claim) = claim {
                                records.put(Record {
                                    address: address.clone(),
                                    process: managed.current.process.clone(),
                                    survives_reload: is_kept(&managed.state_files, &server.backend),
                                    backend: server.backend.to_string(),
                                    server: server.server.to_string(),
                                    state,
                                    owner: claim.owner.clone(),
                                    reason: claim.reason.clone(),
                                    expires: claim.expires,
                                    recorded: now,
                                });
                            }
                        }
                    }
                }
                // One that could not be read back was not seen.
                let servers = managed.current.servers.iter().zip(&managed.outcomes);
                let read_back = servers.filter(|(_, outcome)| !outcome.is_open).map(|(server, _)| seen(server));
                records.prune(&place, read_back, now);
            }
        });
        warnings.extend(failure);
        warnings
    }
}

/// The state that the run has brought a server to, or may have: the wanted one, or drain where it got no further.
fn left_in(outcome: &Outcome, server: &Server, wanted: AdminState) -> Option<AdminState> {
    if outcome.is_disabled || outcome.is_rolled_back {
        return None;
    }
    if outcome.error.is_none() {
        return Some(wanted);
    }
    if wanted == AdminState::Ready {
        return None;
    }
    // Where that could not be read back, the record counts only once it is seen to be so.
    if outcome.is_open {
        return Some(wanted);
    }
    let state = server.flags.forced().filter(|state| *state != AdminState::Ready);
    state.filter(|_| outcome.is_changed() && outcome.left_as.is_some_and(|left_as| left_as.is_set_as(&server.into())))
}

fn seen(server: &Server) -> Seen<'_> {
    Seen { backend: &server.backend, server: &server.server, flags: server.flags }
}

fn claimant(request: &Request) -> Option<&str> {
    request.claim.as_ref().and_then(|claim| claim.owner.as_deref())
}
