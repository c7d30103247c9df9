//! Accounts for every process that was found, once the sockets have answered: was it this one, another one, or none?

use super::select::{Presence, Site};
use super::serving::{Processes, Serving};
use crate::model::error::{Error, ErrorKind};

/// What the answers say of an instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Account {
    /// What its sockets have answered, or why they have not, is about it.
    OwnAnswer,
    /// It was reached, but as another instance: it does not count once more.
    OfAnother,
    /// It does not count, as the sentence says.
    LeftOut(String),
    /// It serves and was not reached: another process has answered at its socket.
    NotReached(Error),
}

/// Tells what became of each instance, by the process ids that have answered (`Pid` of `show info`).
#[must_use]
pub fn account(instances: &[Site], answered: &[Option<u32>], processes: &Processes) -> Vec<Account> {
    let one = |(index, instance): (usize, &Site)| {
        let Some(found) = instance.pid else { return Account::OwnAnswer };
        let own = answered.get(index).copied().flatten();
        if own.is_some_and(|pid| processes.are_one(found, pid)) {
            return Account::OwnAnswer;
        }
        let mut others = answered.iter().enumerate().filter(|(other, _)| *other != index).filter_map(|(_, pid)| *pid);
        if others.any(|pid| processes.is_accounted_for(found, pid)) {
            return Account::OfAnother;
        }
        let has_own_instance = own.is_some_and(|pid| {
            let mut others = instances.iter().zip(answered).filter(|(_, answered)| **answered == Some(pid));
            others.any(|(other, _)| other.pid.is_some_and(|found| processes.are_one(found, pid)))
        });
        let process = format!("{}: HAProxy process {found} ({})", instance.name, instance.origin);
        match (processes.serving(found), own) {
            (_, Some(_)) if instance.presence == Presence::Possible => Account::LeftOut(format!(
                "{process} was not reached at the sockets of its configuration; it is left out"
            )),
            (Serving::Yes, Some(pid)) => Account::NotReached(taken(instance, found, pid)),
            (Serving::Unknown, Some(_)) if has_own_instance => Account::LeftOut(format!(
                "{process} also runs, and whether it still serves cannot be seen; run as root to see that"
            )),
            (Serving::No, Some(_)) if has_own_instance => Account::OfAnother,
            (Serving::No, None) if processes.is_there(found) => {
                Account::LeftOut(format!("{process} no longer listens and ends with its last session; it is left out"))
            }
            (Serving::Yes | Serving::Unknown | Serving::No, _) => Account::OwnAnswer,
        }
    };
    instances.iter().enumerate().map(one).collect()
}

/// The failure of a process whose socket another one has taken.
fn taken(instance: &Site, found: u32, answered: u32) -> Error {
    let socket = instance.addresses.first().map(ToString::to_string).unwrap_or_default();
    Error::new(
        ErrorKind::Unreachable,
        format!(
            "HAProxy process {found} ({}) serves but cannot be reached, because process {answered} has taken its stats \
             socket {socket}; give each HAProxy a stats socket of its own, or stop one of the two",
            instance.origin
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::serving::tests::{host, listen};
    use super::*;
    use crate::model::name::{Address, InstanceName};

    fn instance(name: &str, pid: Option<u32>) -> Site {
        Site {
            name: InstanceName::parse(name).unwrap(),
            pid,
            addresses: vec![Address::parse("/run/a.sock").unwrap()],
            origin: format!("/etc/{name}.cfg"),
            presence: Presence::Certain,
            masters: Vec::new(),
            state_files: None,
            servers: None,
        }
    }

    /// A master with its worker, two processes that stand alone, and one that only ends.
    fn shown(instances: &[(&str, Option<u32>, Option<u32>)]) -> Vec<String> {
        let (place, processes) = host(&[
            (10, 1, "10", "-W -f a"),
            (11, 10, "11", "-W -f a"),
            (20, 1, "20", "-f b"),
            (30, 1, "30", "-f c"),
            (40, 1, "40", "-f d"),
        ]);
        [11, 20, 30].iter().for_each(|pid| listen(&place, *pid));
        let answered: Vec<Option<u32>> = instances.iter().map(|(.., answered)| *answered).collect();
        let instances: Vec<Site> = instances.iter().map(|(name, pid, _)| instance(name, *pid)).collect();
        let accounts = account(&instances, &answered, &processes);
        let word = |account: Account| match account {
            Account::OwnAnswer => "own".to_owned(),
            Account::OfAnother => "other".to_owned(),
            Account::LeftOut(why) => why,
            Account::NotReached(error) => error.msg.clone(),
        };
        accounts.into_iter().map(word).collect()
    }

    #[test]
    fn every_process_is_accounted_for() {
        assert_eq!(shown(&[("a", Some(10), Some(11)), ("b", Some(20), Some(20)), ("x", None, Some(99))]), ["own"; 3]);
        // Two with one socket: the one that answers is reached, the other is not.
        let two = shown(&[("b", Some(20), Some(30)), ("c", Some(30), Some(30))]);
        assert!(
            two[0].contains("process 20 (/etc/b.cfg) serves") && two[0].contains("process 30 has taken"),
            "{two:?}"
        );
        assert_eq!(two[1], "own");
        // A master socket that may not be opened, and the worker's own socket.
        assert_eq!(shown(&[("a", Some(10), None), ("haproxy", None, Some(11))]), ["other", "own"]);
        // Nothing answers, but it serves.
        assert_eq!(shown(&[("b", Some(20), None)]), ["own"]);
        // It has no sockets any more.
        assert!(shown(&[("d", Some(40), None)])[0].contains("no longer listens"));
        assert_eq!(shown(&[("d", Some(40), Some(20)), ("b", Some(20), Some(20))]), ["other", "own"]);
        assert_eq!(shown(&[("gone", Some(99), None)]), ["own"]);
    }
}
