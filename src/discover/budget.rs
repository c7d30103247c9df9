//! The limits of one discovery.
//!
//! Anybody can start processes called haproxy, with command lines of megabytes that name any number of files. So
//! everything together has a limit. The processes of root, the caller and HAProxy's own account come first, so that
//! nobody else can use up what they need; a warning names whatever is not examined.

use std::cell::Cell;
use std::time::Duration;

use super::BY_ADDRESS;
use super::process::WORDS_MAX;
use crate::time::deadline::Deadline;
use crate::time::interrupt::Interrupt;

/// The longest that a discovery may take.
const TIME: Duration = Duration::from_secs(2);

/// The most configuration files and folders to open, for all processes together.
pub(super) const FILES_MAX: usize = 1000;

/// The most bytes of configuration to read, for all processes together.
pub(super) const BYTES_MAX: usize = 16 << 20;

/// The most bytes of command lines to read, for all processes together.
const COMMAND_LINES_MAX: usize = 16 << 20;

/// The most processes of one account to examine, unless it is root or the caller.
pub(super) const OF_ACCOUNT_MAX: usize = 64;

/// How many processes a warning names.
const NAMED: usize = 5;

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Spent {
    /// A signal asks the run to end.
    #[error("a signal ended the search")]
    Interrupted,
    /// It takes too long.
    #[error("the search for HAProxy processes took more than {} s", TIME.as_secs())]
    Time,
    /// Too many files.
    #[error("the HAProxy processes of this host name more than {FILES_MAX} configuration files")]
    Files,
    /// Too much to read.
    #[error("the configurations of this host's HAProxy processes exceed {} MiB", BYTES_MAX >> 20)]
    Bytes,
    /// Too much to read of `/proc`.
    #[error("the command lines of this host's HAProxy processes exceed {} MiB", COMMAND_LINES_MAX >> 20)]
    CommandLines,
    /// Too much to read of one process.
    #[error("a command line has more than {} KiB", WORDS_MAX >> 10)]
    CommandLine,
    /// Too many processes of one account.
    #[error("more than {OF_ACCOUNT_MAX} processes of user id {0} are called haproxy")]
    Account(u32),
}

/// What is left of the limits.
pub(super) struct Budget<'a> {
    interrupt: &'a Interrupt,
    deadline: Deadline<'static>,
    named: Cell<usize>,
    files: Cell<usize>,
    bytes: Cell<usize>,
    command_lines: Cell<usize>,
}

impl<'a> Budget<'a> {
    /// Starts the clock.
    pub(super) fn new(interrupt: &'a Interrupt) -> Self {
        Self {
            interrupt,
            deadline: Deadline::after(TIME),
            named: Cell::new(FILES_MAX),
            files: Cell::new(FILES_MAX),
            bytes: Cell::new(BYTES_MAX),
            command_lines: Cell::new(COMMAND_LINES_MAX),
        }
    }

    /// Fails when no time is left.
    pub(super) fn time(&self) -> Result<(), Spent> {
        if self.interrupt.check().is_some() {
            Err(Spent::Interrupted)
        } else if self.deadline.is_over() {
            Err(Spent::Time)
        } else {
            Ok(())
        }
    }

    /// Takes one file or folder.
    pub(super) fn file(&self) -> Result<(), Spent> {
        self.time()?;
        take(&self.files, 1).ok_or(Spent::Files)
    }

    /// Takes bytes of a configuration.
    pub(super) fn bytes(&self, count: usize) -> Result<(), Spent> {
        self.time()?;
        take(&self.bytes, count).ok_or(Spent::Bytes)
    }

    /// Takes `-f` arguments, before any of them is opened.
    pub(super) fn named(&self, count: usize) -> Result<(), Spent> {
        take(&self.named, count).ok_or(Spent::Files)
    }

    /// Takes bytes of a command line.
    pub(super) fn command_line(&self, count: usize) -> Result<(), Spent> {
        take(&self.command_lines, count).ok_or(Spent::CommandLines)
    }
}

/// Takes from what is left; if that does not suffice, it is left as it is.
fn take(left: &Cell<usize>, count: usize) -> Option<()> {
    left.set(left.get().checked_sub(count)?);
    Some(())
}

/// The processes for which no limit was left.
#[derive(Debug, Default)]
pub(super) struct Unexamined {
    processes: Vec<(Spent, Vec<u32>)>,
    stopped: Option<Spent>,
}

impl Unexamined {
    /// Notes one process.
    pub(super) fn process(&mut self, pid: u32, spent: Spent) {
        match self.processes.iter_mut().find(|(other, _)| *other == spent) {
            Some((_, pids)) => pids.push(pid),
            None => self.processes.push((spent, vec![pid])),
        }
    }

    /// Notes that not even the names of all processes were read.
    pub(super) fn stop(&mut self, spent: Spent) {
        self.stopped = Some(spent);
    }

    /// Says so, in a sentence for each limit.
    pub(super) fn sentences(&self) -> Vec<String> {
        let some = |(spent, pids): &(Spent, Vec<u32>)| {
            let named = pids.iter().take(NAMED).map(u32::to_string).collect::<Vec<_>>().join(", ");
            match pids.len() {
                1 => format!("the process {named}, called haproxy, was not examined, because {spent}; {BY_ADDRESS}"),
                count @ ..=NAMED => {
                    format!(
                        "{count} processes called haproxy ({named}) were not examined, because {spent}; {BY_ADDRESS}"
                    )
                }
                count => {
                    format!(
                        "{count} processes called haproxy ({named}, …) were not examined, because {spent}; {BY_ADDRESS}"
                    )
                }
            }
        };
        let stopped =
            |spent: &Spent| format!("some processes of this host were not examined, because {spent}; {BY_ADDRESS}");
        self.stopped.iter().map(stopped).chain(self.processes.iter().map(some)).collect()
    }
}
