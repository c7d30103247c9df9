//! Opens a connection to the process that serves an instance now, and finds out which one it is and what it allows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command::Query;
use super::not_understood;
use super::parse::{Info, Level};
use super::socket::{Connection, Door};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::Address;
use crate::model::server::Process;
use crate::model::text::printable;
use crate::time::clock;
use crate::time::deadline::Allowance;
use crate::time::side_by_side::side_by_side;

/// How often, and after what pause, to reconnect if the connection leads to a stopping process.
const STOPPING_TRIES: u32 = 50;
const STOPPING_PAUSE: Duration = Duration::from_millis(20);

/// Where an instance answers, and which process.
#[derive(Debug, Clone)]
pub struct Contact {
    /// Where it was asked.
    pub address: Address,
    /// Where it can be asked, as far as known.
    pub addresses: Arc<[Address]>,
    /// Whether that is a stats socket or a master CLI.
    pub door: Door,
    /// The process that answered.
    pub process: Process,
    /// What the socket allows.
    pub level: Level,
    /// The process that listens there, by its id here, if that can be seen ([`Connection::peer`]).
    pub peer: Option<u32>,
}

/// Opens a connection to a process that is not about to stop.
///
/// # Errors
/// As [`Connection::open`]; also when several processes share the socket.
pub fn open(address: &Address, step: Allowance) -> Result<(Connection, Process)> {
    open_and_ask(address, step, None).map(|(connection, process, _)| (connection, process))
}

/// Opens a connection and finds out what its socket allows.
///
/// # Errors
/// As [`open`].
pub fn open_for_commands(address: &Address, step: Allowance) -> Result<(Connection, Contact)> {
    let (connection, process, reply) = open_and_ask(address, step, Some(Query::Level))?;
    let level = Level::parse(&String::from_utf8_lossy(&reply.unwrap_or_default()))
        .map_err(|error| not_understood(address, &error))?;
    let (door, peer) = (connection.door(), connection.peer());
    let contact =
        Contact { address: address.clone(), addresses: Arc::from([address.clone()]), door, process, level, peer };
    Ok((connection, contact))
}

/// Opens the best socket.
///
/// # Errors
/// When none of them leads to a HAProxy that answers in time and as expected.
pub fn open_best(name: &str, addresses: &[Address], step: Allowance) -> Result<(Connection, Contact)> {
    let mut best: Option<(Connection, Contact)> = None;
    let mut failure = None;
    for opened in open_each(addresses, step) {
        match opened {
            Ok(opened) => {
                if best.as_ref().is_none_or(|(_, best)| opened.1.rank() > best.rank()) {
                    best = Some(opened);
                }
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let (connection, contact) = best.ok_or_else(|| failure.unwrap_or_else(|| without_socket(name)))?;
    Ok((connection, Contact { addresses: Arc::from(addresses), ..contact }))
}

/// Opens all sockets of an instance, several at once, so that one that does not answer leaves the others their time.
fn open_each(addresses: &[Address], step: Allowance) -> Vec<Result<(Connection, Contact)>> {
    let opened = side_by_side(addresses, |address| open_for_commands(address, step));
    opened.into_iter().map(|opened| opened.and_then(|opened| opened)).collect()
}

fn without_socket(name: &str) -> Error {
    Error::new(
        ErrorKind::Unreachable,
        format!(
            "the instance {name} has no usable stats socket; add 'stats socket /run/haproxy/{name}.sock \
             mode 660 level admin' to the global section of its configuration"
        ),
    )
}

impl Contact {
    /// Ranks sockets of one HAProxy: the highest level wins, then Unix, then the first.
    #[must_use]
    pub fn rank(&self) -> (Level, bool) {
        (self.level, matches!(self.address, Address::Unix(_)))
    }
}

/// Opens a connection to a process that is not about to stop, and sends another query right away.
fn open_and_ask(
    address: &Address,
    step: Allowance,
    other: Option<Query<'_>>,
) -> Result<(Connection, Process, Option<Vec<u8>>)> {
    let mut stopping: Option<Error> = None;
    let mut tries = 0;
    let first: Vec<String> = [Query::Info].into_iter().chain(other).map(|query| query.to_string()).collect();
    loop {
        let (connection, replies) = match (Connection::open(address, step, &first), stopping) {
            (Err(error), Some(stopping)) if error.kind == ErrorKind::Timeout => return Err(stopping),
            (opened, _) => opened?,
        };
        let mut replies = replies.into_iter();
        let info = info_of(address, &replies.next().unwrap_or_default())?;
        if info.processes > 1 {
            return Err(Error::new(
                ErrorKind::SeveralProcesses,
                format!(
                    "the HAProxy at {address} runs as {} processes ('nbproc'), and a change would reach only one of them; \
                     use 'nbthread' instead",
                    info.processes
                ),
            ));
        }
        let process = process_of(&info);
        if !info.stopping {
            return Ok((connection, process, replies.next()));
        }
        let msg = format!("the HAProxy at {address} (process {}) is stopping, and no new one answers", process.pid);
        let error = Error::new(ErrorKind::Unreachable, msg);
        if tries == STOPPING_TRIES || step.is_over() {
            return Err(error);
        }
        tries += 1;
        stopping = Some(error);
        drop(connection);
        std::thread::sleep(STOPPING_PAUSE.min(step.left()));
    }
}

/// Asks on an open connection whether its process still serves.
///
/// # Errors
/// When the answer does not arrive in time, or is unexpected.
pub fn still_serves(connection: &mut Connection) -> Result<bool> {
    let reply = connection.ask(&Query::Info.to_string())?;
    Ok(!info_of(connection.address(), reply.as_bytes())?.stopping)
}

fn info_of(address: &Address, reply: &[u8]) -> Result<Info> {
    Info::parse(reply).map_err(|error| not_understood(address, &error))
}

fn process_of(info: &Info) -> Process {
    Process::new(&printable(&info.version), info.pid, info.start, (clock::now(), Instant::now()))
}
