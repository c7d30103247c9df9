//! What the work on one instance asks of its HAProxy: commands, servers read back, statistics, a successor.
//!
//! [`Client`] is all that the work knows about it, so that the work can be tested on values alone; [`Runtime`] talks to
//! a real HAProxy over its sockets.

use std::time::{Duration, Instant};

use super::observe::{Detail, Observation, observe, read_back};
use super::old_processes::{self, OldLoad, OldProcess};
use super::open::{Contact, open, open_best};
use super::parse::without_severity;
use super::sessions::end_sessions_on;
use super::socket::{Connection, Door};
use super::statistics::poll;
use crate::model::error::{Error, Result};
use crate::model::name::{Address, Selection};
use crate::model::server::{Process, Server, Statistics};
use crate::time::deadline::{Allowance, patiently};
use crate::time::interrupt::Interrupt;

/// How many commands are in flight at a time: HAProxy stops reading when its replies are not read.
const WINDOW: usize = 256;

/// As long as commands are answered within this time, twice as many are sent the next time. A HAProxy that is slower is sent
/// one at a time, so that a signal keeps the rest from it.
const PROMPTLY: Duration = Duration::from_millis(50);

/// An answer of the observed process, or the process that answers instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered<T> {
    /// The same process has answered.
    Same(T),
    /// Another process has taken over, in a reload or a restart.
    Replaced(Process),
}

/// What became of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// HAProxy has accepted it.
    Accepted,
    /// HAProxy says that the backend is disabled or stopped, or its process is about to end.
    Disabled,
    /// HAProxy has refused it, with these words.
    Refused(Box<str>),
    /// It was sent but not answered: it may have been carried out, or may still be.
    Unknown,
    /// It was not sent.
    Unsent,
}

/// What became of commands that were sent together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// What became of each.
    pub replies: Vec<Reply>,
    /// What stopped them, if anything did.
    pub failure: Option<Error>,
}

/// The result of a poll.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Polled {
    /// The statistics of each server, with what old processes still do for it; one that is gone has none.
    pub statistics: Vec<Option<Statistics>>,
    /// The processes from before a reload that still run.
    pub old: Vec<OldProcess>,
}

/// Finds the processes that the answering one has replaced and that still run, if no master CLI lists them.
pub type Predecessors = fn(&Contact) -> Vec<u32>;

/// Allows the observation of a process that has taken over, once it is locked.
pub type Admit<'a> = &'a mut dyn FnMut(&Contact) -> Result<()>;

/// What the work on one instance asks of its HAProxy.
pub trait Client: Send {
    /// Sends commands until all are answered, the connection fails, or a signal arrives.
    ///
    /// # Errors
    /// When no connection can be opened.
    fn send(&mut self, lines: &[&str], signals: &Interrupt) -> Result<Answered<Exchange>>;

    /// Reads servers back over a new connection; one that is gone is `None`.
    ///
    /// # Errors
    /// When HAProxy does not answer in time, or gives an unexpected answer.
    fn read_back(&mut self, servers: &[&Server]) -> Result<Answered<Vec<Option<Server>>>>;

    /// Asks for the statistics of servers, with what old processes still do for them; one that is gone has none.
    ///
    /// # Errors
    /// When HAProxy does not answer in time, or gives an unexpected answer.
    fn poll(&mut self, servers: &[&Server]) -> Result<Answered<Polled>>;

    /// Finds the processes from before a reload that still run, and what they still do for servers.
    ///
    /// # Errors
    /// As [`Client::poll`].
    fn old_load(&mut self, servers: &[&Server]) -> Result<OldLoad>;

    /// Ends the sessions of servers on old processes, if these can be reached.
    ///
    /// # Errors
    /// As [`Client::poll`].
    fn end_old_sessions(&mut self, servers: &[&Server]) -> Result<()>;

    /// Ends at most this many sessions of servers, on this process and on old ones, and returns how many it has ended.
    ///
    /// # Errors
    /// As [`Client::poll`].
    fn end_some_sessions(&mut self, servers: &[&Server], most: usize) -> Result<Answered<usize>>;

    /// Observes the process that answers now, once it is admitted, and talks to it from then on.
    ///
    /// # Errors
    /// When none answers in time, the answer is unexpected, or the process is not admitted.
    fn observe(&mut self, detail: Detail, admit: Admit<'_>) -> Result<Observation>;

    /// Tells whether the sessions of old processes can be seen.
    fn sees_old_processes(&self) -> bool;

    /// Gives HAProxy time for the commands it was sent before.
    fn give_time(&mut self, time: Duration);
}

/// How long the work on an instance may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The longest that one step may take.
    pub timeout: Duration,
    /// The end of the run, after which only what was sent is read back.
    pub run_end: Option<Instant>,
}

impl Bounds {
    /// Starts a step that ends with the run at the latest.
    #[must_use]
    pub fn step(self) -> Allowance {
        Allowance::within(self.timeout, self.run_end)
    }

    /// Starts a step that must be finished even if the run is over.
    fn last_step(self) -> Allowance {
        Allowance::of(self.timeout)
    }
}

/// A real HAProxy, over its sockets.
#[derive(Debug)]
pub struct Runtime<'a> {
    name: &'a str,
    addresses: &'a [Address],
    masters: &'a [Address],
    selection: Selection<'a>,
    bounds: Bounds,
    predecessors: Predecessors,
    contact: Contact,
    /// How many backends it has, if all were read.
    backends: Option<usize>,
    /// The connection through which it was observed, for the first commands.
    connection: Option<Connection>,
}

impl<'a> Runtime<'a> {
    /// Opens the best socket of an instance.
    ///
    /// # Errors
    /// When none leads to a HAProxy that answers in time and as expected.
    pub fn open(
        name: &'a str,
        (addresses, masters): (&'a [Address], &'a [Address]),
        selection: Selection<'a>,
        bounds: Bounds,
        predecessors: Predecessors,
    ) -> Result<Self> {
        let (connection, contact) = open_best(name, addresses, bounds.step())?;
        let connection = Some(connection);
        Ok(Self { name, addresses, masters, selection, bounds, predecessors, contact, backends: None, connection })
    }

    /// Returns where it answers, and which process.
    #[must_use]
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// Observes the process to which the connection was opened, unless that connection has ended and another one answers.
    ///
    /// # Errors
    /// When it does not answer in time, or is not understood.
    pub fn observe_first(&mut self, detail: Detail) -> Result<Answered<Observation>> {
        self.observe_within(detail, self.bounds.step())
    }

    fn observe_within(&mut self, detail: Detail, step: Allowance) -> Result<Answered<Observation>> {
        let mut connection = match self.connect(step)? {
            Answered::Same(connection) => connection,
            Answered::Replaced(process) => return Ok(Answered::Replaced(process)),
        };
        let observation = observe(&mut connection, self.contact.clone(), self.selection, detail)?;
        self.backends = observation.rest.backends;
        self.connection = Some(connection);
        Ok(Answered::Same(observation))
    }

    /// Connects to the process that the work is on, unless another one answers.
    fn connect(&mut self, step: Allowance) -> Result<Answered<Connection>> {
        if let Some(mut connection) = self.connection.take().filter(Connection::is_open) {
            connection.begin(step);
            return Ok(Answered::Same(connection));
        }
        let (connection, process) = patiently(step, || open(&self.contact.address, step))?;
        Ok(self.unless_replaced(process, connection))
    }

    fn unless_replaced<T>(&self, process: Process, answer: T) -> Answered<T> {
        if process.is(&self.contact.process) { Answered::Same(answer) } else { Answered::Replaced(process) }
    }

    fn old_load_within(&self, servers: &[&Server], step: Allowance) -> Result<OldLoad> {
        match self.master() {
            Some(master) => old_processes::count(master, servers, step),
            None => Ok(OldLoad::unseen((self.predecessors)(&self.contact))),
        }
    }

    /// The CLI of the master, if there is one.
    fn master(&self) -> Option<&Address> {
        match self.contact.door {
            Door::Master => Some(&self.contact.address),
            Door::Stats => self.masters.first(),
        }
    }
}

impl Client for Runtime<'_> {
    fn send(&mut self, lines: &[&str], signals: &Interrupt) -> Result<Answered<Exchange>> {
        // Rolling back is not bounded by the run's end.
        let mut connection = match self.connect(Allowance::within(self.bounds.timeout, signals.end()))? {
            Answered::Same(connection) => connection,
            Answered::Replaced(process) => return Ok(Answered::Replaced(process)),
        };
        Ok(Answered::Same(exchange(&mut connection, lines, signals)))
    }

    fn read_back(&mut self, servers: &[&Server]) -> Result<Answered<Vec<Option<Server>>>> {
        // An earlier connection would occupy one of the few that HAProxy grants to clients.
        self.connection = None;
        let address = &self.contact.address;
        let step = self.bounds.last_step();
        let read = || read_back(address, self.selection, servers, self.backends, step);
        let (process, found) = patiently(step, read)?;
        Ok(self.unless_replaced(process, found))
    }

    fn poll(&mut self, servers: &[&Server]) -> Result<Answered<Polled>> {
        self.connection = None;
        let address = &self.contact.address;
        let step = self.bounds.step();
        let (process, mut statistics) = patiently(step, || poll(address, servers, step))?;
        if !process.is(&self.contact.process) {
            return Ok(Answered::Replaced(process));
        }
        let old = self.old_load_within(servers, step)?;
        for (server, found) in servers.iter().zip(&mut statistics) {
            if let Some(found) = found {
                found.sessions = found.sessions.saturating_add(old.of(server));
            }
        }
        Ok(Answered::Same(Polled { statistics, old: old.processes }))
    }

    fn old_load(&mut self, servers: &[&Server]) -> Result<OldLoad> {
        self.old_load_within(servers, self.bounds.last_step())
    }

    fn end_old_sessions(&mut self, servers: &[&Server]) -> Result<()> {
        let (all, step) = (usize::MAX, self.bounds.step());
        self.master().map_or(Ok(()), |master| old_processes::end_sessions(master, servers, all, step).map(drop))
    }

    fn end_some_sessions(&mut self, servers: &[&Server], most: usize) -> Result<Answered<usize>> {
        let step = self.bounds.step();
        let mut connection = match self.connect(step)? {
            Answered::Same(connection) => connection,
            Answered::Replaced(process) => return Ok(Answered::Replaced(process)),
        };
        let ended = end_sessions_on(&mut connection, None, servers, most)?;
        let left = most.saturating_sub(ended);
        match self.master().filter(|_| left > 0) {
            Some(master) => {
                let old = old_processes::end_sessions(master, servers, left, step)?;
                Ok(Answered::Same(ended + old))
            }
            None => Ok(Answered::Same(ended)),
        }
    }

    fn observe(&mut self, detail: Detail, admit: Admit<'_>) -> Result<Observation> {
        let opening = self.bounds.last_step();
        loop {
            let (connection, contact) = open_best(self.name, self.addresses, opening)?;
            admit(&contact)?;
            self.contact = contact;
            self.connection = Some(connection);
            if let Answered::Same(observation) = self.observe_within(detail, self.bounds.last_step())? {
                return Ok(observation);
            }
        }
    }

    fn sees_old_processes(&self) -> bool {
        self.master().is_some()
    }

    fn give_time(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Sends commands over one connection until all are answered, the connection fails, or a signal arrives.
fn exchange(connection: &mut Connection, lines: &[&str], signals: &Interrupt) -> Exchange {
    let mut replies = Vec::with_capacity(lines.len());
    let mut failure = None;
    let mut size = 1;
    let mut rest = lines;
    while let Some((window, after)) = rest.split_at_checked(size.min(rest.len())).filter(|_| !rest.is_empty()) {
        failure = signals.check();
        if failure.is_some() {
            break;
        }
        let sent = Instant::now();
        let (answers, result) = connection.exchange(window, signals);
        let unanswered = window.len().saturating_sub(answers.len());
        replies.extend(answers.iter().map(|answer| understand(&String::from_utf8_lossy(answer))));
        replies.extend(std::iter::repeat_n(Reply::Unknown, unanswered));
        if let Err(error) = result {
            failure = Some(error);
            break;
        }
        size = if sent.elapsed() < PROMPTLY { WINDOW.min(size * 2) } else { 1 };
        rest = after;
    }
    replies.resize(lines.len(), Reply::Unsent);
    Exchange { replies, failure }
}

/// Reads the reply to a `set server` command: silence is success (`cli_parse_set_server()` in HAProxy's
/// `src/server.c`), any text is a refusal.
fn understand(answer: &str) -> Reply {
    match without_severity(answer.trim()).trim() {
        "" => Reply::Accepted,
        "Proxy is disabled." => Reply::Disabled,
        text => Reply::Refused(text.lines().next().unwrap_or_default().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_success_and_any_text_is_not() {
        let table = [
            ("\n", Reply::Accepted),
            ("", Reply::Accepted),
            ("[3]: No such server.\n\n", Reply::Refused("No such server.".into())),
            ("No such backend.\n\n", Reply::Refused("No such backend.".into())),
            ("Proxy is disabled.\n\n", Reply::Disabled),
            ("[err]: Proxy is disabled.\n\n", Reply::Disabled),
            ("Done.\n", Reply::Refused("Done.".into())),
        ];
        for (answer, expected) in table {
            assert_eq!(understand(answer), expected, "{answer:?}");
        }
    }
}
