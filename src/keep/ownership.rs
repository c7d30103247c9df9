//! Who took a server out, why and until when: looked up for a status and before `ready`, recorded with drain and maint.

use super::folder::Folder;
use super::owner::{At, Record, Records, Seen, load, update};
use crate::haproxy::open::Contact;
use crate::model::error::Result;
use crate::model::server::Server;
use crate::model::state::AdminState;
use crate::request::Claim;
use crate::time::clock;

/// The records that the caller can see.
#[derive(Debug, Default)]
pub struct Ownership {
    records: Vec<Records>,
    /// What is wrong with the files, a sentence each.
    pub warnings: Vec<String>,
}

/// What to record about an instance.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Its name.
    pub instance: &'a str,
    /// Where it answers, and which process.
    pub contact: &'a Contact,
    /// Its servers.
    pub servers: Vec<Change<'a>>,
}

/// What a run has done to a server.
#[derive(Debug)]
pub struct Change<'a> {
    /// How it was before the run.
    pub before: &'a Server,
    /// How it was read back; `None` if that failed.
    pub after: Option<&'a Server>,
    /// The state that the run has brought it to, or may have; `None` if it has not.
    pub left_in: Option<AdminState>,
    /// Whether a state file brings that back over a reload.
    pub survives_reload: bool,
}

impl Ownership {
    /// Reads the records of root, and those of the caller if that is somebody else.
    ///
    /// # Errors
    /// When there is not enough memory for them.
    pub fn load() -> Result<Self> {
        let mut ownership = Self::default();
        let folders = [Folder::of_root(), Folder::of_caller_if_any()];
        let mut seen = None;
        for folder in folders.into_iter().flatten() {
            if seen.as_deref() == Some(folder.path()) {
                continue;
            }
            seen = Some(folder.path().to_owned());
            let loaded = load(&folder)?;
            ownership.records.push(loaded.records);
            ownership.warnings.extend(loaded.warning);
        }
        Ok(ownership)
    }

    /// Tells whether nothing is recorded at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.iter().all(Records::is_empty)
    }

    /// Finds the record of who has taken a server out, if it still counts.
    #[must_use]
    pub fn find(&self, contact: &Contact, server: &Server) -> Option<&Record> {
        if self.is_empty() {
            return None;
        }
        let address = contact.address.to_string();
        let at = At { address: &address, process: &contact.process };
        self.records.iter().find_map(|records| records.find(&at, &Seen::from(server)))
    }

    /// Records who has taken servers out, and forgets those that were put back; returns what is worth knowing.
    #[must_use]
    pub fn record(&self, claim: Option<&Claim>, folder: Option<&Folder>, entries: &[Entry<'_>]) -> Vec<String> {
        let mut warnings = Vec::new();
        // Records of other instances do not concern this run, and are not worth waiting for their lock.
        let is_known = |entry: &Entry<'_>| {
            let address = entry.contact.address.to_string();
            let at = At { address: &address, process: &entry.contact.process };
            self.records.iter().any(|records| records.knows(&at))
        };
        let Some(folder) = folder.filter(|_| claim.is_some() || entries.iter().any(is_known)) else {
            if claim.is_some() {
                warnings.push("the owner of the servers was not recorded: there is no folder for it".to_owned());
            }
            return warnings;
        };
        let now = clock::now();
        let failure = update(folder, |records| {
            for entry in entries {
                record_one(records, &|record| self.had(record), claim, entry, now, &mut warnings);
            }
        });
        warnings.extend(failure);
        warnings
    }

    /// Tells whether a record was there before this run changed anything.
    fn had(&self, record: &Record) -> bool {
        self.records.iter().any(|records| records.has(record))
    }
}

/// Records what a run has done to the servers of one instance; `had` tells which records are from before it.
fn record_one(
    records: &mut Records,
    had: &dyn Fn(&Record) -> bool,
    claim: Option<&Claim>,
    entry: &Entry<'_>,
    now: u64,
    warnings: &mut Vec<String>,
) {
    let address = entry.contact.address.to_string();
    let process = &entry.contact.process;
    let at = At { address: &address, process };
    for Change { before, after, left_in, survives_reload } in &entry.servers {
        let Some(state) = *left_in else { continue };
        let server = after.unwrap_or(before);
        if state == AdminState::Ready {
            records.remove(&at, &server.backend, &server.server);
            continue;
        }
        // One from before the run that did not count then is over, although the server is out again.
        let since = || records.find(&at, &Seen::from(server)).filter(|record| !had(record));
        let known = records.find(&at, &Seen::from(*before)).or_else(since);
        let is_over = known.is_none();
        // What it was, and where, is what the first one found who took it out.
        let (was, server_address) = known.map_or_else(
            || (Some(before.state.as_was()), Some(before.address.to_string())),
            |first| (first.was, first.server_address.clone()),
        );
        let known = known.filter(|known| known.claim.owner.is_some() && !known.claim.is_expired(now)).cloned();
        let owner = claim.and_then(|claim| claim.owner.as_ref());
        match (known.filter(|known| known.claim.owner.as_ref() != owner), claim) {
            // The first owner keeps it, even from one kind of outage to another.
            (Some(known), _) => {
                if claim.is_some() || known.state != state {
                    let first = known.claim.owner.as_deref().unwrap_or_default();
                    let name = server.full_name();
                    warnings.push(format!("{}: {name} stays recorded for {first}", entry.instance));
                }
                records.put(known.continued(state, process, server));
            }
            (None, Some(claim)) => records.put(Record {
                address: address.clone(),
                process: process.clone(),
                survives_reload: *survives_reload,
                backend: server.backend.to_string(),
                server: server.server.to_string(),
                number: Some(server.number()),
                server_address,
                state,
                was,
                claim: claim.clone(),
                recorded: now,
            }),
            (None, None) if is_over => records.remove(&at, &server.backend, &server.server),
            (None, None) => {}
        }
    }
    // A server that could not be read back was not seen.
    let read_back = entry.servers.iter().filter_map(|change| change.after).map(Seen::from);
    records.prune(&at, read_back, now);
}
