//! Keeps two runs from changing the same HAProxy at once: the lock is held while observing, planning and applying, and
//! released between polls.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::Duration;

use super::folder::{Folder, Unavailable};
use super::lock::{LockSet, NotTaken, Patience, remove_leftovers};
use super::shared::{SharedSet, sockets_of};
use crate::haproxy::open::Contact;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::Address;
use crate::request::Request;
use crate::time::deadline::Progress;
use crate::time::interrupt::{Interrupt, PATIENT};

/// The lock of a run on all its HAProxy processes.
pub struct Exclusion<'a> {
    folder: Option<Folder>,
    /// Why there is no lock at all.
    unavailable: OnceLock<Unavailable>,
    /// Why other users' runs are not kept out.
    unshared: OnceLock<Unavailable>,
    note: String,
    timeout: Duration,
    signals: &'a Interrupt,
    progress: Progress<'a>,
    held: Mutex<Held>,
    /// The sockets of each process, by its key and the address of its contact.
    sockets: Mutex<BTreeMap<String, Vec<Address>>>,
    /// Whether what killed runs have left was removed.
    has_cleaned: Once,
    /// Only one thread waits at a time, so that none waits for a lock that another thread of this run holds.
    waiting: Mutex<()>,
}

/// What is held.
#[derive(Default)]
struct Held {
    locks: LockSet,
    shared: SharedSet,
    keys: BTreeSet<String>,
    /// Whether others could have changed something since this run observed.
    was_released: bool,
}

/// Whether others could have changed something since this run observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// The lock was held all the time.
    Held,
    /// It was released in between.
    Released,
}

impl<'a> Exclusion<'a> {
    /// Prepares the lock of a run; nothing is held yet.
    #[must_use]
    pub fn new(request: &Request, signals: &'a Interrupt, progress: Progress<'a>) -> Self {
        let names = request.servers.iter().map(ToString::to_string);
        let servers = names.chain(request.addresses.iter().map(ToString::to_string)).collect::<Vec<String>>().join(",");
        let note = request.state().map_or_else(|| servers.clone(), |to| format!("{servers} to {to}"));
        let unavailable = OnceLock::new();
        let folder = match request.goal {
            Some(_) if !request.dry_run => Folder::of_caller().map_err(|why| unavailable.set(why)).ok(),
            // A run that changes nothing leaves no trace on the host.
            Some(_) | None => None,
        };
        let (held, waiting) = (Mutex::default(), Mutex::default());
        Self {
            folder,
            unavailable,
            unshared: OnceLock::new(),
            note,
            timeout: request.lock_timeout,
            signals,
            progress,
            held,
            sockets: Mutex::default(),
            has_cleaned: Once::new(),
            waiting,
        }
    }

    /// Takes the locks on the processes that are not held yet, in the order that all runs use; tells whether they were
    /// released since this run observed.
    ///
    /// # Errors
    /// When another run does not release them in time, or a signal arrives.
    pub fn take<'c>(&self, contacts: impl IntoIterator<Item = &'c Contact>) -> Result<Since> {
        let was_released = std::mem::take(&mut self.held().was_released);
        self.wait_for(contacts)?;
        Ok(if was_released { Since::Released } else { Since::Held })
    }

    /// Takes the lock on a process that has taken over during the run, before it is observed.
    ///
    /// # Errors
    /// As [`Exclusion::take`].
    pub fn admit(&self, contact: &Contact) -> Result<()> {
        self.wait_for([contact])
    }

    /// Takes the lock on one process if nobody else has it, and tells whether it is held now: without waiting, several
    /// can be taken in any order.
    #[must_use]
    pub fn try_take(&self, contact: &Contact) -> bool {
        let Some(folder) = self.folder() else { return true };
        let patience = Patience::new(Duration::ZERO, self.signals, &|_| {});
        self.take_missing(folder, &[contact], &patience).is_ok()
    }

    fn wait_for<'c>(&self, contacts: impl IntoIterator<Item = &'c Contact>) -> Result<()> {
        let Some(folder) = self.folder() else { return Ok(()) };
        let _alone = self.waiting.lock();
        let contacts: Vec<&Contact> = contacts.into_iter().collect();
        let on_wait = |line: &str| (self.progress)(line);
        self.take_missing(folder, &contacts, &Patience::new(self.timeout, self.signals, &on_wait))
    }

    /// Takes what is not held yet: this user's own locks first, then those that are shared with others.
    fn take_missing(&self, folder: &Folder, contacts: &[&Contact], patience: &Patience<'_>) -> Result<()> {
        let is_missing = |key: &String| !self.held().keys.contains(key);
        let missing: Vec<String> = contacts.iter().flat_map(|contact| keys(contact)).filter(is_missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let contacts = contacts.iter().copied().filter(|contact| keys(contact).iter().any(is_missing));
        let sockets: Vec<Address> = contacts.flat_map(|contact| self.sockets_of(contact)).collect();
        let shared = self.held().shared.names();
        let taken = LockSet::take(folder, &missing, &self.note, patience)
            .and_then(|locks| Ok((locks, SharedSet::take(sockets, &shared, &missing, patience)?)));
        match taken {
            Ok((locks, shared)) => {
                if let Some(why) = &shared.unavailable {
                    let _ = self.unshared.set(why.clone());
                }
                let mut held = self.held();
                held.locks.join(locks);
                held.shared.join(shared);
                held.keys.extend(missing);
                drop(held);
                self.has_cleaned.call_once(|| remove_leftovers(folder));
            }
            Err(NotTaken::Failed(error)) => return Err(error),
            Err(NotTaken::Unavailable(why)) => {
                let _ = self.unavailable.set(why);
            }
        }
        Ok(())
    }

    /// Lists the sockets of a process, which keeps them as long as it runs; the lock is retaken after each wait.
    fn sockets_of(&self, contact: &Contact) -> Vec<Address> {
        let mut known = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .entry(format!("{} {}", contact.process.key(), contact.address))
            .or_insert_with(|| sockets_of(contact))
            .clone()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ignores signals while waiting for the lock from now on: nothing may prevent a rollback.
    pub fn ignore_signals(&mut self) {
        self.signals = &PATIENT;
    }

    /// Releases the lock.
    pub fn release(&self) {
        *self.held() = Held { was_released: true, ..Held::default() };
    }

    /// Returns the folder of the lock, if there is one.
    #[must_use]
    pub fn folder(&self) -> Option<&Folder> {
        self.folder.as_ref().filter(|_| self.unavailable.get().is_none())
    }

    /// Judges a run without a lock: that is a warning, but a failure with a guard, which two runs could then pass at
    /// once.
    ///
    /// # Errors
    /// When there is a guard.
    pub fn check(&self, request: &Request) -> Result<Option<String>> {
        let Some(why) = self.unavailable.get() else {
            return Ok(self.unshared.get().map(|why| format!("runs of other users are not kept out: {why}")));
        };
        if request.guard.is_some() {
            let msg = format!(
                "'guard' needs the lock that keeps other runs out, but {why}; run as root, or leave 'guard' out"
            );
            return Err(Error::new(ErrorKind::GuardRefused, msg));
        }
        Ok(Some(format!("other runs are not kept out: {why}")))
    }
}

/// Returns the keys of the locks on a process: its own, which all its sockets share, and that of the socket, which
/// stays the same when a reload replaces the process during a run.
fn keys(contact: &Contact) -> [String; 2] {
    let Contact { address, process, .. } = contact;
    [process.key(), socket_key(address)]
}

/// Returns what identifies a socket in a file name, which cannot contain its path.
fn socket_key(address: &Address) -> String {
    let mut hasher = DefaultHasher::new();
    address.to_string().hash(&mut hasher);
    format!("socket-{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Draft;

    #[test]
    fn a_status_has_no_folder() {
        let request = Draft::from_words(&["server=web1".to_owned()]).unwrap().check().unwrap();
        let never = Interrupt::never();
        let exclusion = Exclusion::new(&request, &never, &|_| {});
        assert!(exclusion.folder().is_none() && exclusion.check(&request) == Ok(None));
    }
}
