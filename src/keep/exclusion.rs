//! Keeps two runs from changing the same HAProxy at once: the lock is held while a run looks, decides and sets, and let
//! go while it only waits.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::act::fleet::Progress;
use crate::haproxy::observe::Process;
use crate::keep::folder::{Folder, Unavailable};
use crate::keep::lock::{LockSet, NotTaken, Wanted};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::Address;
use crate::request::Request;
use crate::time::interrupt::{Interrupt, PATIENT};

/// The lock of a run on all its HAProxy processes.
pub struct Exclusion<'a> {
    folder: std::result::Result<Folder, Unavailable>,
    note: String,
    timeout: Duration,
    interrupt: &'a Interrupt,
    progress: Progress<'a>,
    held: Option<LockSet>,
    /// Whether others could change something since this run has looked.
    was_released: bool,
}

impl<'a> Exclusion<'a> {
    /// Prepares the lock of a run; nothing is held yet.
    #[must_use]
    pub fn new(request: &Request, interrupt: &'a Interrupt, progress: Progress<'a>) -> Self {
        let servers: Vec<String> = request.servers.iter().map(ToString::to_string).collect();
        let state = request.change.and_then(|change| change.state);
        let note = state.map_or_else(|| servers.join(","), |state| format!("{} to {state}", servers.join(",")));
        // What changes nothing leaves no trace on the host.
        let folder = match request.change {
            Some(_) if !request.dry_run => Folder::of_caller(),
            Some(_) | None => Err(Unavailable("what changes nothing needs no lock".to_owned())),
        };
        Self { folder, note, timeout: request.lock_timeout, interrupt, progress, held: None, was_released: false }
    }

    /// Takes the lock on the processes, if it is not held; tells whether others could do something before.
    ///
    /// # Errors
    /// When another run does not let go of it in time, or a signal comes.
    pub fn take<'p>(&mut self, processes: impl Iterator<Item = (&'p Address, &'p Process)>) -> Result<bool> {
        let was_released = std::mem::take(&mut self.was_released);
        let Ok(folder) = &self.folder else { return Ok(was_released) };
        if self.held.is_some() {
            return Ok(false);
        }
        let keys: Vec<String> = processes.flat_map(|(address, process)| keys(address, process)).collect();
        let wanted = Wanted { keys: &keys, note: &self.note, timeout: self.timeout };
        match LockSet::take(folder, &wanted, self.interrupt, &|line| (self.progress)(line)) {
            Ok(held) => {
                self.held = Some(held);
                Ok(was_released)
            }
            Err(NotTaken::Failed(error)) => Err(error),
            Err(NotTaken::Unavailable(why)) => {
                self.folder = Err(why);
                Ok(was_released)
            }
        }
    }

    /// Takes the lock on one process, if nobody has it: who waits for nobody may take several in any order.
    #[must_use]
    pub fn try_take(&self, address: &Address, process: &Process) -> Option<LockSet> {
        let Ok(folder) = &self.folder else { return Some(LockSet::default()) };
        let wanted = Wanted { keys: &keys(address, process), note: &self.note, timeout: Duration::ZERO };
        LockSet::take(folder, &wanted, self.interrupt, &|_| {}).ok()
    }

    /// Keeps the locks on all processes that were taken one by one.
    pub fn hold(&mut self, locks: impl IntoIterator<Item = LockSet>) {
        self.held = Some(locks.into_iter().collect());
    }

    /// Waits for the lock over signals from now on: who sets back what was changed must not be kept from it.
    pub fn ignore_signals(&mut self) {
        self.interrupt = &PATIENT;
    }

    /// Lets the lock go.
    pub fn release(&mut self) {
        self.held = None;
        self.was_released = true;
    }

    /// Says why there is no lock at all, if that is so.
    #[must_use]
    pub fn unavailable(&self) -> Option<&Unavailable> {
        self.folder.as_ref().err()
    }

    /// Returns the folder that the lock is in.
    #[must_use]
    pub fn folder(&self) -> Option<&Folder> {
        self.folder.as_ref().ok()
    }

    /// Says what it means that there is no lock: a warning, but a failure for a guard, which could then be passed by two
    /// runs at once.
    ///
    /// # Errors
    /// When there is a guard.
    pub fn check(&self, request: &Request) -> Result<Option<String>> {
        let Some(why) = self.unavailable().filter(|_| !request.dry_run) else { return Ok(None) };
        if request.guard.is_some() {
            let msg =
                format!("'guard' needs the lock that keeps other runs out, but {why}; run as root, or leave it out");
            return Err(Error::new(ErrorKind::GuardRefused, msg));
        }
        Ok(Some(format!("other runs are not kept out meanwhile: {why}")))
    }
}

/// What is locked for a process: itself, whichever of its sockets leads there, and the socket, which stays the same when a
/// reload brings a new process during a run.
fn keys(address: &Address, process: &Process) -> [String; 2] {
    [process.key(), socket_key(address)]
}

/// Returns what stands for a socket in the name of a file, in which a path cannot stand as it is.
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
        assert!(exclusion.folder().is_none() && exclusion.unavailable().is_some());
    }
}
