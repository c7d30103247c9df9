//! Brings one instance to what is planned: apply, verify, and again on the new process when HAProxy was reloaded.

use std::collections::VecDeque;
use std::time::Duration;

use crate::apply::{Reply, apply, refused};
use crate::error::{Error, ErrorKind, Result};
use crate::instances::Instance;
use crate::interrupt::Interrupt;
use crate::observe::{Detail, Observation, Process, Server, Wanted, observe, open};
use crate::plan::{Decision, Planned, State, order, plan, shortfall};
use crate::request::Change;
use crate::runtime::command;
use crate::verify::verify;

/// How many processes a run follows when HAProxy is reloaded again and again.
const PROCESSES: u32 = 3;

/// What became of one server.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it was before.
    pub before: Server,
    /// How it was read back; nothing where that failed.
    pub after: Option<State>,
    /// The commands that were sent to it.
    pub commands: Vec<String>,
    /// Why it is not as wanted.
    pub error: Option<Error>,
    /// Whether HAProxy says that its backend is disabled.
    pub is_disabled: bool,
}

impl Outcome {
    /// The outcome of a server that nothing was sent to.
    #[must_use]
    pub fn untouched(server: &Server) -> Self {
        Self {
            is_disabled: server.is_in_disabled_backend(),
            before: server.clone(),
            after: Some(State::from(server)),
            commands: Vec::new(),
            error: None,
        }
    }
}

/// What became of one instance.
#[derive(Debug, Clone)]
pub struct Converged {
    /// Its servers, in HAProxy's order.
    pub outcomes: Vec<Outcome>,
    /// The process that was read back last.
    pub process: Process,
    /// What stopped the work on the instance.
    pub error: Option<Error>,
    /// What is worth knowing although it is no failure.
    pub warnings: Vec<String>,
}

/// What is wanted of an instance, and the bounds of asking for it.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// The instance.
    pub instance: &'a Instance,
    /// Which of its servers are wanted.
    pub wanted: Wanted<'a>,
    /// What is to become of them.
    pub change: &'a Change,
    /// The longest that it may take to answer.
    pub timeout: Duration,
    /// Whether a signal has asked the run to end.
    pub interrupt: &'a Interrupt,
}

/// Carries a plan out on one instance.
#[must_use]
pub fn converge(task: &Task<'_>, observation: &Observation, planned: &[Planned]) -> Converged {
    let mut work = Work {
        task,
        current: observation.clone(),
        planned: planned.to_vec(),
        outcomes: observation.servers.iter().map(Outcome::untouched).collect(),
        warnings: Vec::new(),
    };
    let error = work.run().err();
    work.judge();
    let Work { current, outcomes, warnings, .. } = work;
    Converged { outcomes, process: current.process, error, warnings }
}

/// The state of the work on one instance.
struct Work<'a> {
    task: &'a Task<'a>,
    current: Observation,
    planned: Vec<Planned>,
    outcomes: Vec<Outcome>,
    warnings: Vec<String>,
}

impl Work<'_> {
    fn run(&mut self) -> Result<()> {
        for _ in 0..PROCESSES {
            let commands = self.commands();
            if commands.is_empty() {
                return Ok(());
            }
            if self.send_and_read_back(&commands)? {
                return Ok(());
            }
            self.follow()?;
        }
        if self.commands().is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Reloaded,
            format!(
                "the HAProxy at {} was reloaded {PROCESSES} times during the run; run this again when it is quiet",
                self.current.address
            ),
        ))
    }

    /// The commands that the plan needs, each with the place of its server.
    fn commands(&self) -> Vec<(usize, String)> {
        let of = |index: usize| -> Vec<(usize, String)> {
            match (self.planned.get(index).map(|planned| &planned.decision), self.current.servers.get(index)) {
                (Some(Decision::Change(actions)), Some(server)) => actions
                    .iter()
                    .map(|&action| (index, command::Change { target: server.target.clone(), action }.to_string()))
                    .collect(),
                _ => Vec::new(),
            }
        };
        order(&self.current.servers).into_iter().flat_map(of).collect()
    }

    /// Sends the commands and reads all servers back; tells whether the same process has answered throughout.
    fn send_and_read_back(&mut self, commands: &[(usize, String)]) -> Result<bool> {
        let timeout = self.task.timeout;
        if let Some(interrupted) = self.task.interrupt.check() {
            return Err(interrupted);
        }
        let mut opened = open(&self.current.address, timeout)?;
        if !opened.process.is(&self.current.process) {
            opened.connection.close();
            return Ok(false);
        }
        let lines: Vec<String> = commands.iter().map(|(_, line)| line.clone()).collect();
        let (replies, failure) = apply(&mut opened.connection, &lines, self.task.interrupt);
        opened.connection.close();
        for ((index, line), reply) in commands.iter().zip(&replies) {
            self.note(*index, line, reply);
        }
        let servers: Vec<&Server> = self.current.servers.iter().collect();
        let read = verify(&self.current.address, &servers, self.current.backends, timeout);
        let (process, read) = match read {
            Ok(read) => read,
            Err(error) => {
                for outcome in &mut self.outcomes {
                    outcome.after = None;
                }
                return Err(failure.unwrap_or(error));
            }
        };
        if !process.is(&self.current.process) {
            self.warnings.push(format!(
                "the HAProxy at {} was reloaded during the run (process {} took over from {})",
                self.current.address, process.pid, self.current.process.pid
            ));
            return Ok(false);
        }
        self.take(read);
        match failure {
            // What was sent has been read back, so that its outcome is known; what was not sent still counts.
            Some(error) if error.kind == ErrorKind::Interrupted => Err(error),
            Some(error) if self.is_short() => Err(error),
            Some(error) => {
                self.warnings.push(format!("{error}; the servers were read back as wanted all the same"));
                Ok(true)
            }
            None => Ok(true),
        }
    }

    /// Notes what HAProxy answered to one command.
    fn note(&mut self, index: usize, line: &str, reply: &Reply) {
        let Some(outcome) = self.outcomes.get_mut(index) else { return };
        match reply {
            Reply::Unsent => return,
            Reply::Accepted | Reply::Unknown => {}
            Reply::Disabled => outcome.is_disabled = true,
            Reply::Refused(text) => outcome.error = Some(refused(&outcome.before, line, text)),
        }
        outcome.commands.push(line.to_owned());
    }

    /// Takes over what was read back.
    fn take(&mut self, read: Vec<Server>) {
        // Both are in HAProxy's order, so that the one that is looked for is nearly always the first.
        let mut read = VecDeque::from(read);
        for (server, outcome) in self.current.servers.iter_mut().zip(&mut self.outcomes) {
            let found = read.iter().position(|other| other.is(server)).and_then(|found| read.remove(found));
            outcome.after = found.as_ref().map(State::from);
            if let Some(found) = found {
                *server = Server { stat: server.stat.take(), ..found };
            }
        }
    }

    /// Tells whether a server that was to be set is not as wanted.
    fn is_short(&self) -> bool {
        let is_short = |server: &Server| shortfall(self.task.change, server).is_some();
        self.current.servers.iter().zip(&self.planned).zip(&self.outcomes).any(|((server, planned), outcome)| {
            matches!(planned.decision, Decision::Change(_)) && (outcome.after.is_none() || is_short(server))
        })
    }

    /// Observes the new process and plans again; servers keep how they were before the run.
    fn follow(&mut self) -> Result<()> {
        let Task { instance, wanted, change, timeout, .. } = *self.task;
        let observation = observe(instance, wanted, Detail::Links, timeout)?;
        self.planned = plan(change, &observation.servers);
        let mut former = VecDeque::from(std::mem::take(&mut self.outcomes));
        for server in &observation.servers {
            let known = former
                .iter()
                .position(|outcome| outcome.before.backend == server.backend && outcome.before.server == server.server);
            let mut outcome = Outcome::untouched(server);
            if let Some(known) = known.and_then(|known| former.remove(known)) {
                outcome.before = known.before;
                outcome.commands = known.commands;
            }
            self.outcomes.push(outcome);
        }
        for gone in former {
            self.warnings.push(format!("{} is gone since HAProxy was reloaded", gone.before.full_name()));
        }
        self.current = observation;
        Ok(())
    }

    /// Says of each server why it is not as wanted.
    fn judge(&mut self) {
        for ((outcome, planned), server) in self.outcomes.iter_mut().zip(&self.planned).zip(&self.current.servers) {
            if outcome.error.is_some() || outcome.is_disabled {
                continue;
            }
            if outcome.after.is_none() {
                let msg = format!("{} could not be read back", outcome.before.full_name());
                let error = Error::new(ErrorKind::BadReply, msg);
                outcome.error = Some(error.on_server(&outcome.before.backend, &outcome.before.server));
                continue;
            }
            outcome.error = shortfall(self.task.change, server).map(|shortfall| match &planned.decision {
                Decision::Refuse(refusal) => refusal.clone(),
                Decision::Keep | Decision::Change(_) | Decision::Disabled => shortfall,
            });
        }
    }
}
