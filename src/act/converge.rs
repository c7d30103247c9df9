//! Brings one instance to what is wanted: apply, verify, and again on the new process when HAProxy was reloaded.

use std::collections::VecDeque;
use std::time::Duration;

use crate::act::apply::{Command, Reply, apply, refused};
use crate::act::verify::verify;
use crate::decide::guard;
use crate::decide::plan::{Decision, Planned, State, order, plan, shortfall};
use crate::discover::select::Instance;
use crate::haproxy::command::{self, Action};
use crate::haproxy::observe::{Detail, Observation, Server, Wanted, observe, open, read_load};
use crate::haproxy::old_processes::load_on_old_workers;
use crate::haproxy::parse::StatRow;
use crate::haproxy::socket::{Connection, Door};
use crate::keep::owner::Record;
use crate::keep::state_file::Kept;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::Address;
use crate::request::{Change, MinAvailable, OnMissing, Request};
use crate::time::deadline::patiently;
use crate::time::interrupt::Interrupt;

/// How long a process that did not answer, and then does, has for what it was sent before.
const AFTER_HANGING: Duration = Duration::from_millis(300);

/// How many processes a run follows when HAProxy is reloaded again and again.
pub const PROCESSES: u32 = 3;

/// What becomes of each server in the next step.
pub type Goals<'a> = &'a (dyn Fn(&Server) -> Change + Sync);

/// In which order commands go to servers that track others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To those that are tracked first.
    Forward,
    /// To those that are tracked last: what was done is undone.
    Backward,
}

/// What became of one server.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it was before.
    pub before: Server,
    /// How it was read back; nothing where that failed.
    pub after: Option<State>,
    /// The commands that were sent to it.
    pub commands: Vec<Box<str>>,
    /// Whether HAProxy has taken one of them, or may have, and what became of that could not be read back.
    pub is_open: bool,
    /// How it was read back right after the last of them: what differs from that later was set by somebody else.
    pub left_as: Option<State>,
    /// Why it is not as wanted.
    pub error: Option<Error>,
    /// Why it was not as wanted when it began to be set back.
    pub former_error: Option<Error>,
    /// Whether HAProxy says that its backend is disabled.
    pub is_disabled: bool,
    /// Whether it was set back to what it was before.
    pub is_rolled_back: bool,
    /// What its statistics said last, while it was waited for.
    pub last_seen: Option<Box<StatRow>>,
    /// Who has taken it out, where a status found that recorded.
    pub record: Option<Box<Record>>,
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
            is_open: false,
            left_as: None,
            error: None,
            former_error: None,
            is_rolled_back: false,
            last_seen: None,
            record: None,
        }
    }

    /// Tells whether what commands set on the server differs from before, or may differ where it could not be read back.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        match self.after {
            Some(after) => !self.commands.is_empty() && !after.is_set_as(&State::from(&self.before)),
            None => self.is_open,
        }
    }

    /// The outcome on a process that has taken over, where the server is as it was observed there.
    fn on_successor(self, server: &Server) -> Self {
        Self {
            before: self.before,
            commands: self.commands,
            left_as: self.left_as,
            error: self.error,
            former_error: self.former_error,
            is_rolled_back: self.is_rolled_back,
            ..Self::untouched(server)
        }
    }
}

/// One instance while it is worked on.
#[derive(Debug)]
pub struct Managed<'a> {
    /// The instance.
    pub instance: &'a Instance,
    /// Which of its servers are wanted.
    pub wanted: Wanted<'a>,
    /// The longest that it may take to answer.
    pub timeout: Duration,
    /// What must stay usable, which is judged anew where another process takes over.
    pub guard: Option<MinAvailable>,
    /// Whether another process has taken over.
    was_followed: bool,
    /// Whether a signal has asked the run to end.
    pub interrupt: &'a Interrupt,
    /// The connection through which it was observed, for the first commands.
    connection: Option<Connection>,
    /// How it was observed last.
    pub current: Observation,
    /// What was planned last, a plan for each server of `current`.
    pub planned: Vec<Planned>,
    /// What became of its servers, an outcome for each server of `current`.
    pub outcomes: Vec<Outcome>,
    /// What became of servers that a process which has taken over does not have.
    pub gone: Vec<Outcome>,
    /// Whether these are no failure.
    may_be_missing: bool,
    /// What stopped the work on it.
    pub error: Option<Error>,
    /// What is worth knowing although it is no failure.
    pub warnings: Vec<String>,
    /// Its server-state files that are kept in step.
    pub state_files: Vec<Kept>,
}

impl<'a> Managed<'a> {
    /// Starts the work on an instance that was observed.
    #[must_use]
    pub fn new(
        instance: &'a Instance,
        wanted: Wanted<'a>,
        request: &Request,
        interrupt: &'a Interrupt,
        (observation, connection): (Observation, Connection),
    ) -> Self {
        Self {
            instance,
            wanted,
            timeout: request.timeout,
            interrupt,
            guard: request.guard,
            was_followed: false,
            connection: Some(connection),
            outcomes: observation.servers.iter().map(Outcome::untouched).collect(),
            gone: Vec::new(),
            may_be_missing: request.on_missing == OnMissing::Ignore,
            current: observation,
            planned: Vec::new(),
            error: None,
            warnings: Vec::new(),
            state_files: Vec::new(),
        }
    }

    /// Plans for the servers as they were observed last; what has failed before is left as it is.
    pub fn plan(&mut self, goals: Goals<'_>) {
        self.planned = plan(goals, &self.current.servers);
        for (planned, outcome) in self.planned.iter_mut().zip(&self.outcomes) {
            if outcome.error.is_some() {
                planned.decision = Decision::Keep;
            }
        }
        if let Some(guard) = self.guard.filter(|_| self.was_followed) {
            self.guard_anew(guard, goals);
        }
    }

    /// Finds the backends that the goals would leave with too few usable servers, counting those that track a server
    /// that is changed.
    #[must_use]
    pub fn refused_by(&self, guard: MinAvailable, goals: Goals<'_>) -> Vec<(u32, Error)> {
        let is_wanted = |it: &Server| self.wanted.matches(it.backend.as_bytes(), it.server.as_bytes());
        let all: Vec<Server> = self.current.servers.iter().chain(&self.current.others).cloned().collect();
        let planned = plan(&|server| if is_wanted(server) { goals(server) } else { Change::default() }, &all);
        guard::refusals(guard, self.instance.name.as_str(), &all, &planned)
    }

    /// Refuses every change on a process that has taken over, and whose servers may be other ones, if the guard does not
    /// allow one of them: as at the start, nothing is sent then.
    fn guard_anew(&mut self, guard: MinAvailable, goals: Goals<'_>) {
        let refusals = self.refused_by(guard, goals);
        let Some((_, first)) = refusals.first() else { return };
        for (planned, server) in self.planned.iter_mut().zip(&self.current.servers) {
            if matches!(planned.decision, Decision::Change(_)) {
                let own = refusals.iter().find(|(id, _)| *id == server.backend_id);
                let error = own.map_or(first, |(_, error)| error).clone();
                planned.decision = Decision::Refuse(error.on_server(&server.backend, &server.server));
            }
        }
    }

    /// Predicts what a run to the goals would send, and how the servers would be then.
    pub fn foresee(&mut self, goals: Goals<'_>) {
        self.plan(goals);
        for ((planned, outcome), server) in self.planned.iter().zip(&mut self.outcomes).zip(&mut self.current.servers) {
            match &planned.decision {
                Decision::Change(actions) => {
                    outcome.commands.extend(actions.iter().flatten().map(|&action| line(server, action)));
                }
                Decision::Refuse(error) => outcome.error = Some(error.clone()),
                Decision::Keep | Decision::Disabled => {}
            }
            outcome.after = Some(planned.after);
            server.foresee(&planned.after);
        }
    }

    /// Plans, applies and verifies, following HAProxy over reloads; what fails is in the outcomes or in `error`.
    pub fn carry_out(&mut self, goals: Goals<'_>, direction: Direction) {
        if self.error.is_none() {
            self.plan(goals);
            self.carry_on(goals, direction);
        }
    }

    /// Does so with what was planned for these goals already.
    pub fn carry_on(&mut self, goals: Goals<'_>, direction: Direction) {
        if self.error.is_none() {
            self.error = self.try_to_carry_out(goals, direction).err();
            self.connection = None;
            self.judge(|_| false);
        }
    }

    fn try_to_carry_out(&mut self, goals: Goals<'_>, direction: Direction) -> Result<()> {
        for _ in 0..PROCESSES {
            let commands = self.commands(direction);
            if commands.is_empty() || self.send_and_read_back(commands)? {
                return Ok(());
            }
            self.follow()?;
            self.plan(goals);
        }
        if self.commands(direction).is_empty() {
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
    fn commands(&self, direction: Direction) -> Vec<Command> {
        let mut order = order(&self.current.servers);
        if direction == Direction::Backward {
            order.reverse();
        }
        let mut commands = Vec::new();
        for place in order {
            let (Some(planned), Some(server)) = (self.planned.get(place), self.current.servers.get(place)) else {
                continue;
            };
            if let Decision::Change(actions) = &planned.decision {
                commands.extend(actions.iter().flatten().map(|&action| Command { place, line: line(server, action) }));
            }
        }
        commands
    }

    /// Sends the commands and reads all servers back; tells whether the same process has answered throughout.
    fn send_and_read_back(&mut self, commands: Vec<Command>) -> Result<bool> {
        if let Some(interrupted) = self.interrupt.check() {
            return Err(interrupted);
        }
        let places: Vec<usize> = commands.iter().map(|command| command.place).collect();
        let Some(failure) = self.send(commands)? else { return Ok(false) };
        if !self.read_back_after(failure.as_ref())? {
            return Ok(false);
        }
        // A process that hung carries out what it was sent when it goes on, which may be just after it was asked.
        if failure.as_ref().is_some_and(|error| error.kind == ErrorKind::Timeout) && self.is_short() {
            std::thread::sleep(AFTER_HANGING);
            if !self.read_back_after(failure.as_ref())? {
                return Ok(false);
            }
        }
        for place in places {
            if let Some(outcome) = self.outcomes.get_mut(place) {
                outcome.left_as = outcome.after;
            }
        }
        match failure {
            // What was sent has been read back, so that its outcome is known; what was not sent still counts.
            Some(error) if error.kind == ErrorKind::Interrupted || self.is_short() => Err(error),
            Some(error) => {
                self.warnings.push(format!("{error}; the servers were read back as wanted all the same"));
                Ok(true)
            }
            None => Ok(true),
        }
    }

    /// Connects to the process that was observed; returns nothing where another one answers now.
    fn connect(&mut self) -> Result<Option<Connection>> {
        if let Some(connection) = self.connection.take().filter(Connection::is_open) {
            return Ok(Some(connection));
        }
        let opened = patiently(self.timeout, || open(&self.current.address, self.timeout))?;
        if !opened.process.is(&self.current.process) {
            self.note_reload(opened.process.pid);
            return Ok(None);
        }
        Ok(Some(opened.connection))
    }

    /// Sends the commands; returns nothing where another process answers, otherwise what stopped it.
    fn send(&mut self, commands: Vec<Command>) -> Result<Option<Option<Error>>> {
        let Some(mut connection) = self.connect()? else { return Ok(None) };
        let (replies, failure) = apply(&mut connection, &commands, self.interrupt);
        for (command, reply) in commands.into_iter().zip(&replies) {
            self.note(command, reply);
        }
        Ok(Some(failure))
    }

    /// Ends the sessions of the servers at the given places; what HAProxy refuses is their failure.
    ///
    /// # Errors
    /// When the instance does not answer.
    pub fn shut_sessions(&mut self, places: &[usize]) -> Result<()> {
        let of = |&place: &usize| {
            Some(Command { place, line: line(self.current.servers.get(place)?, Action::ShutdownSessions) })
        };
        let commands = places.iter().filter_map(of).collect();
        let sent = self.send(commands)?;
        for &place in places {
            if let Some(outcome) = self.outcomes.get_mut(place) {
                // 'Proxy is disabled.' is also what a process says that is about to end: the next look tells.
                outcome.is_disabled = false;
                // The state of the server is as it was.
                outcome.is_open = false;
            }
        }
        match sent {
            Some(Some(error)) => Err(error),
            Some(None) | None => Ok(()),
        }
    }

    /// Looks again at servers that somebody else may have set meanwhile, and follows HAProxy over a reload; tells whether
    /// the same process has answered.
    pub fn refresh(&mut self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.commands.is_empty()) || self.look_again(|_| false)
    }

    /// Does so before the next step: what somebody else has set as that step would is as good.
    pub fn refresh_for(&mut self, goals: Goals<'_>) {
        self.look_again(|server| shortfall(&goals(server), server).is_none());
    }

    fn look_again(&mut self, is_as_good: impl Fn(&Server) -> bool) -> bool {
        if self.error.is_some() {
            return true;
        }
        match self.read_back() {
            Ok(true) => self.judge(is_as_good),
            Ok(false) => {
                self.error = self.follow().err();
                return false;
            }
            Err(error) => {
                self.error = Some(error);
                self.judge(|_| false);
            }
        }
        true
    }

    /// Reads all servers back; tells whether the process is still the same.
    ///
    /// # Errors
    /// When the instance does not answer, or not as HAProxy does.
    pub fn read_back(&mut self) -> Result<bool> {
        let Observation { address, servers, backends, .. } = &self.current;
        let read = verify(address, self.wanted, servers, *backends, self.timeout);
        let (process, read) = read.inspect_err(|_| {
            for outcome in &mut self.outcomes {
                outcome.is_open = outcome.is_open || outcome.is_changed();
                outcome.after = None;
            }
        })?;
        if !process.is(&self.current.process) {
            self.note_reload(process.pid);
            return Ok(false);
        }
        self.take(read);
        Ok(true)
    }

    /// Does so after commands; what stopped these is also why nothing can be read back.
    fn read_back_after(&mut self, failure: Option<&Error>) -> Result<bool> {
        self.read_back().map_err(|error| failure.cloned().unwrap_or(error))
    }

    /// Reads the statistics of the servers at the given places; nothing where another process answers.
    ///
    /// # Errors
    /// When the instance does not answer, or not as HAProxy does.
    pub fn look(&mut self, places: &[usize]) -> Result<Option<Vec<Option<StatRow>>>> {
        let servers: Vec<&Server> = places.iter().filter_map(|index| self.current.servers.get(*index)).collect();
        let (process, mut rows) = patiently(self.timeout, || read_load(&self.current.address, &servers, self.timeout))?;
        if !process.is(&self.current.process) {
            self.note_reload(process.pid);
            return Ok(None);
        }
        let old = self.master().map(|master| load_on_old_workers(&master, &servers, self.timeout)).transpose()?;
        for (server, row) in servers.iter().zip(&mut rows) {
            let old = old.as_ref().and_then(|old| old.get(&(server.backend.to_string(), server.server.to_string())));
            if let (Some(row), Some(old)) = (row, old) {
                row.sessions = row.sessions.saturating_add(*old);
            }
        }
        for (index, row) in places.iter().zip(&rows) {
            if let (Some(outcome), Some(server)) = (self.outcomes.get_mut(*index), self.current.servers.get_mut(*index))
            {
                outcome.last_seen = row.clone().map(Box::new);
                server.stat.clone_from(&outcome.last_seen);
                server.is_whole = true;
            }
        }
        Ok(Some(rows))
    }

    /// The CLI of the master, if there is one.
    fn master(&self) -> Option<Address> {
        match self.current.door {
            Door::Master => Some(self.current.address.clone()),
            Door::Stats => self.instance.masters.first().cloned(),
        }
    }

    fn note_reload(&mut self, pid: u32) {
        let old = self.current.process.pid;
        let unseen = match self.master() {
            Some(_) => String::new(),
            None => format!("; what {old} still serves cannot be seen without a master CLI (-S)"),
        };
        self.warnings.push(format!(
            "the HAProxy at {} was reloaded during the run (process {pid} took over from {old}){unseen}",
            self.current.address
        ));
    }

    /// Notes what HAProxy answered to one command.
    fn note(&mut self, Command { place, line }: Command, reply: &Reply) {
        let Some(outcome) = self.outcomes.get_mut(place) else { return };
        match reply {
            Reply::Unsent => return,
            Reply::Accepted | Reply::Unknown => outcome.is_open = true,
            Reply::Disabled => outcome.is_disabled = true,
            Reply::Refused(text) => outcome.error = Some(refused(&outcome.before, &line, text)),
        }
        // Mostly it is the only one.
        outcome.commands.reserve_exact(1);
        outcome.commands.push(line);
    }

    /// Takes over what was read back.
    fn take(&mut self, read: Vec<Option<Server>>) {
        for ((server, outcome), found) in self.current.servers.iter_mut().zip(&mut self.outcomes).zip(read) {
            outcome.after = found.as_ref().map(State::from);
            outcome.is_open = false;
            if let Some(found) = found {
                *server = Server {
                    stat: server.stat.take(),
                    is_whole: server.is_whole,
                    backend_name: server.backend_name,
                    ..found
                };
            }
        }
    }

    /// Tells whether a server that was to be set is not as wanted.
    fn is_short(&self) -> bool {
        self.current.servers.iter().zip(&self.planned).zip(&self.outcomes).any(|((server, planned), outcome)| {
            matches!(planned.decision, Decision::Change(_))
                && (outcome.after.is_none() || shortfall(&planned.goal, server).is_some())
        })
    }

    /// Observes the process that answers now; servers keep how they were before the run, and what has failed.
    ///
    /// # Errors
    /// As [`observe`].
    pub fn follow(&mut self) -> Result<()> {
        let detail = if self.guard.is_some() { Detail::Everything } else { Detail::Links };
        let observation = observe(self.instance, self.wanted, detail, self.timeout)?;
        let mut former = VecDeque::from(std::mem::take(&mut self.outcomes));
        for server in &observation.servers {
            let known = former
                .iter()
                .position(|outcome| outcome.before.backend == server.backend && outcome.before.server == server.server);
            self.outcomes.push(match known.and_then(|known| former.remove(known)) {
                Some(known) => known.on_successor(server),
                None => Outcome::untouched(server),
            });
        }
        for gone in former {
            let what = format!("{} is gone since HAProxy was reloaded", gone.before.full_name());
            if self.may_be_missing {
                self.warnings.push(what);
                continue;
            }
            let msg = format!("{what}; look at haproxy.cfg, or set 'on_missing' to 'ignore' where it may be absent");
            let error = Error::new(ErrorKind::ServerNotFound, msg).on_server(&gone.before.backend, &gone.before.server);
            let error = gone.former_error.or(gone.error).unwrap_or(error);
            self.gone.push(Outcome { after: None, is_open: false, error: Some(error), former_error: None, ..gone });
        }
        self.current = observation;
        self.was_followed = true;
        // What was planned for the old process says nothing of the new one.
        self.planned.clear();
        Ok(())
    }

    /// Says of each server why it is not as planned, unless that is as good.
    fn judge(&mut self, is_as_good: impl Fn(&Server) -> bool) {
        for ((outcome, planned), server) in self.outcomes.iter_mut().zip(&self.planned).zip(&self.current.servers) {
            if outcome.error.is_some() || outcome.is_disabled || (outcome.after.is_some() && is_as_good(server)) {
                continue;
            }
            if outcome.after.is_none() {
                let unread = || {
                    let msg = format!("{} is gone: it could not be read back", outcome.before.full_name());
                    Error::new(ErrorKind::ServerNotFound, msg)
                };
                let error = self.error.clone().unwrap_or_else(unread);
                outcome.error = Some(error.on_server(&outcome.before.backend, &outcome.before.server));
                continue;
            }
            outcome.error = shortfall(&planned.goal, server).map(|shortfall| match (&planned.decision, &self.error) {
                (Decision::Refuse(refusal), _) => refusal.clone(),
                // What stopped the work on the instance is why, and nobody else.
                (Decision::Change(_), Some(error)) => error.clone().on_server(&server.backend, &server.server),
                (Decision::Keep | Decision::Change(_) | Decision::Disabled, _) => shortfall,
            });
        }
    }

    /// Fails a server, for the reason that is made of its outcome and of how it was seen last.
    pub fn fail(&mut self, place: usize, why: impl FnOnce(&Outcome, &Server) -> (ErrorKind, String)) {
        if let (Some(outcome), Some(server)) = (self.outcomes.get_mut(place), self.current.servers.get(place)) {
            let (kind, msg) = why(outcome, server);
            outcome.error = Some(Error::new(kind, msg).on_server(&server.backend, &server.server));
        }
    }

    /// Says of each server that is not as wanted in the end, or not known, what ended the work on it before.
    pub fn give_up(&mut self, change: &Change, why: &Error) {
        for (outcome, server) in self.outcomes.iter_mut().zip(&self.current.servers) {
            let is_short = outcome.after.is_none() || shortfall(change, server).is_some();
            if outcome.error.is_none() && !outcome.is_disabled && is_short {
                outcome.error = Some(why.clone().on_server(&server.backend, &server.server));
            }
        }
    }

    /// Tells whether the instance or one of its servers has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.error.is_some() || self.outcomes.iter().chain(&self.gone).any(|outcome| outcome.error.is_some())
    }
}

/// Writes the command for an action on a server.
fn line(server: &Server, action: Action) -> Box<str> {
    command::Change { target: server.target(), action }.line()
}
