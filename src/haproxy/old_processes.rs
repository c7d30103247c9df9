//! Processes that HAProxy has replaced: after a reload, what they still serve is not drained.
//!
//! Only the master CLI (`-S`) leads to them (management.txt, section 9.4): `show proc` lists them, and a command with
//! the prefix `@!PID` goes to one of them. Elsewhere it is known only that they run.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::command::Query;
use super::sessions::{end_sessions_on, names, read_sessions};
use super::socket::Connection;
use super::statistics::StatReader;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::{Address, is_plain};
use crate::model::server::Server;
use crate::time::deadline::{Allowance, patiently};

/// How long to retry a count that was cut off by the end of a connection.
const TRIES: Duration = Duration::from_secs(2);

/// A process from before a reload that still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldProcess {
    /// Its process id.
    pub pid: u32,
    /// What it still does for the given servers; `None` if that cannot be seen.
    pub sessions: Option<u32>,
}

/// What old processes still do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OldLoad {
    /// The processes.
    pub processes: Vec<OldProcess>,
    /// Sessions and queued requests, by backend and server.
    by_server: HashMap<(String, String), u32>,
}

impl OldLoad {
    /// Notes processes of which only the ids are known.
    #[must_use]
    pub fn unseen(pids: impl IntoIterator<Item = u32>) -> Self {
        let processes = pids.into_iter().map(|pid| OldProcess { pid, sessions: None }).collect();
        Self { processes, by_server: HashMap::new() }
    }

    /// Returns what all of them together still do for a server.
    #[must_use]
    pub fn of(&self, server: &Server) -> u32 {
        if self.by_server.is_empty() {
            return 0;
        }
        let name = (server.backend.to_string(), server.server.to_string());
        self.by_server.get(&name).copied().unwrap_or_default()
    }
}

/// Counts the sessions and queued requests of servers on all old processes.
///
/// The connection ends with a worker, and also when the master restarts itself in a reload. The next list of processes
/// shows which: every worker on it is counted.
///
/// # Errors
/// When the master CLI does not answer, or not as HAProxy does.
pub(super) fn count(master: &Address, servers: &[&Server], step: Allowance) -> Result<OldLoad> {
    patiently(step.at_most(TRIES), || try_to_count(master, servers, step).map_err(cut_off))
}

/// Ends at most this many sessions of servers on old processes, and returns how many it has ended: `set server` and
/// `shutdown sessions server` do not work there.
///
/// # Errors
/// As [`count`].
pub(super) fn end_sessions(master: &Address, servers: &[&Server], most: usize, step: Allowance) -> Result<usize> {
    patiently(step.at_most(TRIES), || try_to_end(master, servers, most, step).map_err(cut_off))
}

/// The end of a worker may cut off any answer.
fn cut_off(error: Error) -> Error {
    if error.kind == ErrorKind::BadReply { error.cut_off() } else { error }
}

/// Opens the master CLI and lists its old processes.
fn open(master: &Address, step: Allowance) -> Result<(Connection, Vec<u32>)> {
    let mut connection = Connection::open_master(master, step)?;
    let reply = connection.ask(&Query::Processes.to_string())?;
    let workers = old_workers(&reply).ok_or_else(|| {
        let msg = format!("the master CLI at {master} gave an unexpected answer: 'show proc' has no line '# workers'");
        Error::new(ErrorKind::BadReply, msg)
    })?;
    Ok((connection, workers))
}

fn try_to_count(master: &Address, servers: &[&Server], step: Allowance) -> Result<OldLoad> {
    let (mut connection, workers) = open(master, step)?;
    let names = names(servers);
    let backends: BTreeSet<&str> = names.iter().map(|(backend, _)| *backend).filter(|name| is_plain(name)).collect();
    let mut load = OldLoad::default();
    for worker in workers {
        let mut sessions = 0u32;
        for (name, count) in load_of(&mut connection, worker, &backends)? {
            if names.contains(&(name.0.as_str(), name.1.as_str())) {
                sessions = sessions.saturating_add(count);
                let sum = load.by_server.entry(name).or_default();
                *sum = sum.saturating_add(count);
            }
        }
        load.processes.push(OldProcess { pid: worker, sessions: Some(sessions) });
    }
    Ok(load)
}

fn try_to_end(master: &Address, servers: &[&Server], most: usize, step: Allowance) -> Result<usize> {
    let (mut connection, workers) = open(master, step)?;
    let mut ended = 0usize;
    for worker in workers {
        ended += end_sessions_on(&mut connection, Some(worker), servers, most.saturating_sub(ended))?;
    }
    Ok(ended)
}

/// What is done for servers, by their names.
type Counts = Vec<((String, String), u32)>;

/// Counts what one worker still does for the servers of backends; `None` if the worker has ended.
fn load_of(connection: &mut Connection, worker: u32, backends: &BTreeSet<&str>) -> Result<Counts> {
    let mut counts = Vec::new();
    let mut is_shown = false;
    let address = connection.address().clone();
    for &backend in backends {
        let mut has_ended = false;
        let mut reader = StatReader::new(&address, |row| {
            is_shown = true;
            let busy = row.statistics.sessions.saturating_add(row.statistics.queue);
            counts.push(((row.backend.into_owned(), row.server.into_owned()), busy));
        });
        connection.rows(&[Query::StatOf { worker, backend }.to_string()], |row| {
            has_ended |= row.starts_with(b"Can't find the target");
            if has_ended { Ok(()) } else { reader.line(row) }
        })?;
        if let Some(error) = reader.garbage {
            return Err(error);
        }
        if has_ended {
            return Ok(Vec::new());
        }
    }
    if !is_shown {
        // HAProxy 2.4 and older show no statistics of a proxy that is stopping.
        read_sessions(connection, Some(worker), |session| {
            counts.push(((session.backend.to_owned(), session.server.to_owned()), 1));
        })?;
    }
    Ok(counts)
}

/// Reads the processes that `show proc` lists as old workers; `None` if the reply is something else.
fn old_workers(reply: &str) -> Option<Vec<u32>> {
    let (_, workers) = reply.split_once("# workers\n")?;
    let Some((_, old)) = workers.split_once("# old workers\n") else { return Some(Vec::new()) };
    let rows = old.lines().take_while(|line| !line.starts_with('#') && !line.is_empty());
    rows.map(|row| row.split_whitespace().next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_workers_are_listed_apart() {
        let head = "#<PID>          <type>          <reloads>       <uptime>        <version>      \n\
                    6918            master          1 [failed: 0]   0d00h00m08s     3.2.26-1       \n# workers\n\
                    6921            worker          0               0d00h00m08s     3.2.26-1       \n";
        assert_eq!(old_workers(head), Some(vec![]));
        let old = "# old workers\n26579           worker          [was: 1]        1   0d00h00m03s     2.2.9\n\
                   26580           worker          2   0d00h00m03s     2.2.9\n# programs\n\n";
        assert_eq!(old_workers(&format!("{head}{old}")), Some(vec![26579, 26580]));
        assert_eq!(old_workers("Unknown command"), None);
    }
}
