//! Brings the servers of one instance to their goals: plan, send, read back, and again on the new process after a
//! reload.

use std::collections::VecDeque;
use std::time::Duration;

use super::target::{Delivery, DisabledBy, Reading, Sent, Target, Undo, Verdict, Watch};
use crate::decide::guard;
use crate::decide::plan::{Decision, Planned, order, plan};
use crate::decide::shortfall::shortfall;
use crate::discover::select::Site;
use crate::haproxy::client::{Answered, Client, Polled, Reply};
use crate::haproxy::command::{Action, Target as Named};
use crate::haproxy::observe::{About, Detail, Evidence, Observation, Rest};
use crate::haproxy::old_processes::OldProcess;
use crate::haproxy::open::Contact;
use crate::keep::persist::KeptFile;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::goal::{Goal, Requested, SpareSlots};
use crate::model::matcher::Matcher;
use crate::model::server::{Process, Server, ServerState};
use crate::model::text::a_few_of;
use crate::model::traffic::MinAvailable;
use crate::request::{OldProcesses, OnFailure, OnMissing, Request};
use crate::time::clock::Clock;
use crate::time::interrupt::Interrupt;

/// How long a process that hung, and answers again, has for the commands it was sent before.
const AFTER_HANGING: Duration = Duration::from_millis(300);

/// How many processes a run follows if HAProxy is reloaded again and again.
pub(super) const PROCESSES: u32 = 3;

/// The goal of each server in a pass; `None` if it is left out.
pub type Goals<'a> = &'a (dyn Fn(&Target) -> Option<Goal> + Sync);

/// Allows the observation of a process that has taken over, once it is locked.
pub type Admission<'a> = &'a (dyn Fn(&Contact) -> Result<()> + Sync);

/// Which way a pass goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To what is requested, tracked servers first; writes verdicts.
    Forward,
    /// Back to what was before, tracked servers last; writes the results of undoing.
    Backward,
}

/// One pass over the servers of an instance.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// The goal of each server.
    pub goals: Goals<'a>,
    /// Which way it goes.
    pub direction: Direction,
    /// What must stay usable.
    pub guard: Option<MinAvailable>,
    /// What may end it.
    pub signals: &'a Interrupt,
    /// Locks a process that takes over.
    pub admit: Admission<'a>,
}

/// A command to one of the targets.
struct Command {
    target: usize,
    line: Box<str>,
    /// How the server is after all commands sent together with it.
    to: ServerState,
}

/// Whether the guard has judged the plan for the servers as they were observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    /// It has, for all instances together.
    Passed,
    /// These servers were observed after that.
    Due,
}

/// One instance while it is worked on.
pub struct Instance<'a> {
    /// What is known about it from outside.
    pub site: &'a Site,
    /// Where it answers, and which process.
    pub contact: Contact,
    /// Its matched servers, in HAProxy's order, then those that are gone.
    pub targets: Vec<Target>,
    /// What else it has.
    pub rest: Rest,
    /// What stopped the work on it.
    pub error: Option<Error>,
    /// What stopped rolling it back.
    pub undo_error: Option<Error>,
    /// What is worth knowing although it is not a failure.
    pub warnings: Vec<String>,
    /// Its server-state files that are kept in step.
    pub state_files: Vec<KeptFile>,
    /// The processes from before a reload that still ran when that was asked last.
    pub old_processes: Vec<OldProcess>,
    client: Box<dyn Client + 'a>,
    matcher: Matcher<'a>,
    old_policy: OldProcesses,
    detail: Detail,
    judgement: Judgement,
    on_missing: OnMissing,
    selected_by: SelectedBy,
    requested: Option<Requested>,
}

/// Returns how much a request needs to know of the servers; `are_owned` finds out whether anything is recorded of owners.
///
/// Servers that only become ready lower nothing, so that no guard can refuse them. Of those that only leave service, no
/// statistics are reported or recorded. A dry run sends no command, not even one that HAProxy refuses.
///
/// # Errors
/// When the records of owners cannot be read.
pub fn detail_of(request: &Request, are_owned: impl FnOnce() -> Result<bool>) -> Result<Detail> {
    let Some(goal) = request.goal else { return Ok(Detail { about: About::Statistics, guard: request.guard }) };
    let keeps_weight = goal.weight.is_none();
    let is_watched = request.drain.is_some() || request.wait.is_some() || request.shutdown_sessions.is_some();
    let is_plain = keeps_weight && !is_watched && request.claim.is_none();
    let leaves = matches!(request.requested, Some(Requested::Drain | Requested::Maint));
    let evidence = if request.dry_run { Evidence::Statistics } else { Evidence::Refusals };
    let about = if is_plain && leaves && !are_owned()? { About::Links(evidence) } else { About::Plan };
    let lowers_nothing =
        request.requested == Some(Requested::Ready) && keeps_weight && request.on_failure == OnFailure::Keep;
    Ok(Detail { about, guard: request.guard.filter(|_| !lowers_nothing) })
}

/// What a request selects its servers by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SelectedBy {
    /// By their names alone.
    Name,
    /// By their addresses as well.
    Address,
}

impl<'a> Instance<'a> {
    /// Starts the work on an instance that was observed.
    #[must_use]
    pub fn new(
        site: &'a Site,
        request: &'a Request,
        detail: Detail,
        observation: Observation,
        client: Box<dyn Client + 'a>,
    ) -> Self {
        let Observation { contact, servers, rest } = observation;
        Self {
            site,
            contact,
            targets: servers.into_iter().map(Target::new).collect(),
            rest,
            error: None,
            undo_error: None,
            warnings: Vec::new(),
            state_files: Vec::new(),
            old_processes: Vec::new(),
            client,
            matcher: Matcher::new(request.selection()),
            old_policy: request.old_processes,
            detail,
            judgement: Judgement::Passed,
            on_missing: request.on_missing,
            requested: request.requested,
            selected_by: if request.addresses.is_empty() { SelectedBy::Name } else { SelectedBy::Address },
        }
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.site.name.as_str()
    }

    /// Plans a pass; the guard may refuse it.
    pub fn plan(&mut self, pass: &Pass<'_>) {
        let of = |target: &Target| pass.goal_of(target).map(|goal| self.minding_spare_slots(goal, target));
        let goals: Vec<Option<Goal>> = self.targets.iter().map(of).collect();
        let wishes: Vec<(&Server, Goal)> =
            self.targets.iter().zip(&goals).map(|(target, goal)| (target.last(), goal.unwrap_or_default())).collect();
        let planned = plan(&wishes);
        for ((target, goal), planned) in self.targets.iter_mut().zip(goals).zip(planned) {
            target.plan = goal.map(|_| Box::new(planned));
        }
        // A rollback has observed the servers anew.
        if let Some(guard) = pass.guard.filter(|_| self.judgement == Judgement::Due) {
            self.refuse_all(guard, pass.goals);
        }
    }

    /// Leaves spare slots alone that only a pattern matches.
    fn minding_spare_slots(&self, goal: Goal, target: &Target) -> Goal {
        let is_named = self.matcher.names(&target.before.backend, &target.before.server);
        Goal { spare_slots: if is_named { goal.spare_slots } else { SpareSlots::Skip }, ..goal }
    }

    /// Finds the backends that the goals would leave with too few usable servers, counting those that track a server
    /// that is changed.
    #[must_use]
    pub fn refused_by(&self, guard: MinAvailable, goals: Goals<'_>) -> Vec<(u32, Error)> {
        let targets = self.targets.iter().filter(|target| target.is_there());
        let own = targets.map(|target| (target.last(), goals(target).unwrap_or_default()));
        let others = self.rest.others.iter().map(|server| (server, Goal::default()));
        let wishes: Vec<(&Server, Goal)> = own.chain(others).collect();
        let planned = plan(&wishes);
        guard::refusals(guard, self.name(), wishes.iter().map(|(server, _)| *server).zip(&planned), &self.rest.around)
    }

    /// Refuses every change of a pass if the guard refuses one of them: as at the start, nothing is sent then.
    fn refuse_all(&mut self, guard: MinAvailable, goals: Goals<'_>) {
        let refusals = self.refused_by(guard, goals);
        let Some((_, first)) = refusals.first() else { return };
        for target in &mut self.targets {
            let own = refusals.iter().find(|(id, _)| *id == target.last().backend_id);
            let error = own.map_or(first, |(_, error)| error);
            if let Some(planned) = target.plan.as_mut().filter(|plan| matches!(plan.decision, Decision::Change(_))) {
                planned.decision = Decision::Refuse(error.clone());
            }
        }
    }

    /// Tells whether the plan needs commands.
    #[must_use]
    pub fn needs_commands(&self) -> bool {
        self.targets.iter().any(|target| match &target.plan {
            Some(planned) => matches!(planned.decision, Decision::Change(_)),
            None => false,
        })
    }

    /// Predicts what a pass would send, and how the servers would be then.
    pub fn foresee(&mut self, pass: &Pass<'_>) {
        self.plan(pass);
        for target in &mut self.targets {
            let Some(planned) = target.plan.take() else { continue };
            match &planned.decision {
                Decision::Change(actions) => {
                    let lines: Vec<Box<str>> = lines(target.last(), actions.iter().flatten().copied()).collect();
                    let (from, to) = (target.last().state, planned.after);
                    let sent = |line| Sent { line, reply: Delivery::Foreseen, from, to, settled: Some(to) };
                    target.sent.extend(lines.into_iter().map(sent));
                }
                Decision::Refuse(error) => target.fail(error.clone()),
                Decision::Keep | Decision::Disabled => {}
            }
            target.foresee(planned.after);
            target.plan = Some(planned);
            target.note_spare();
        }
    }

    /// Carries out what was planned: sends it, reads it back, and plans again on a process that has taken over.
    ///
    /// # Errors
    /// Returns what stopped the work; failures of a server are kept there in any case.
    pub fn carry_out(&mut self, pass: &Pass<'_>) -> Result<()> {
        let result = self.follow_through(pass);
        self.judge(pass.direction, result.as_ref().err(), |_| false);
        result
    }

    fn follow_through(&mut self, pass: &Pass<'_>) -> Result<()> {
        for _ in 0..PROCESSES {
            if !self.needs_commands() {
                return Ok(());
            }
            match self.send_and_read_back(pass)? {
                Answered::Same(()) => return Ok(()),
                Answered::Replaced(process) => {
                    self.follow(&process, pass.admit)?;
                    self.plan(pass);
                }
            }
        }
        if !self.needs_commands() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Reloaded,
            format!(
                "the HAProxy at {} was reloaded {PROCESSES} times during the run; run this again when it is quiet",
                self.contact.address
            ),
        ))
    }

    /// Sends what was planned and reads all servers back.
    fn send_and_read_back(&mut self, pass: &Pass<'_>) -> Result<Answered<()>> {
        if let Some(interrupted) = pass.signals.check() {
            return Err(interrupted);
        }
        let failure = match self.send(pass)? {
            Answered::Same(failure) => failure,
            Answered::Replaced(process) => return Ok(Answered::Replaced(process)),
        };
        let has_ended = pass.signals.check().is_some();
        let hung = !has_ended && failure.as_ref().is_some_and(|error| error.kind == ErrorKind::Timeout);
        let mut read = self.read_back_after(failure.as_ref())?;
        // A process that hung carries out its commands when it resumes, which may be just after it was asked.
        if hung && read == Answered::Same(()) && self.is_short() {
            self.client.give_time(AFTER_HANGING);
            read = self.read_back_after(failure.as_ref())?;
        }
        if let Answered::Replaced(process) = read {
            return Ok(Answered::Replaced(process));
        }
        self.targets.iter_mut().for_each(Target::settle);
        match failure {
            // What was sent has been read back, so its outcome is known; what was not sent still counts.
            Some(error) if has_ended || self.is_short() => Err(error),
            Some(error) => {
                self.warnings.push(format!("{error}; nevertheless the servers were read back as requested"));
                Ok(Answered::Same(()))
            }
            None => Ok(Answered::Same(())),
        }
    }

    /// Sends what was planned; returns what stopped it, if anything did.
    fn send(&mut self, pass: &Pass<'_>) -> Result<Answered<Option<Error>>> {
        let servers: Vec<&Server> = self.targets.iter().map(Target::last).collect();
        let mut order = order(&servers);
        if pass.direction == Direction::Backward {
            order.reverse();
        }
        let mut commands: Vec<Command> = Vec::new();
        for index in order {
            let Some(target) = self.targets.get(index) else { continue };
            let Some(Planned { decision: Decision::Change(actions), after, .. }) = target.plan.as_deref() else {
                continue;
            };
            let lines = lines(target.last(), actions.iter().flatten().copied());
            commands.extend(lines.map(|line| Command { target: index, line, to: *after }));
        }
        self.exchange(commands, pass.signals, |target, line, reply| match (reply, pass.direction) {
            (Reply::Accepted | Reply::Unknown | Reply::Unsent, _) => {}
            (Reply::Disabled, Direction::Forward) => target.verdict = Verdict::Disabled(DisabledBy::Reply),
            (Reply::Disabled, Direction::Backward) => {
                target.undo = Some(Undo::Failed(refused(&target.before, line, "Proxy is disabled.")));
            }
            (Reply::Refused(text), Direction::Forward) => target.fail(refused(&target.before, line, text)),
            (Reply::Refused(text), Direction::Backward) => {
                target.undo = Some(Undo::Failed(refused(&target.before, line, text)));
            }
        })
    }

    /// Sends commands and notes what became of each; returns what stopped them, if anything did.
    fn exchange(
        &mut self,
        commands: Vec<Command>,
        signals: &Interrupt,
        judge: impl Fn(&mut Target, &str, &Reply),
    ) -> Result<Answered<Option<Error>>> {
        let texts: Vec<&str> = commands.iter().map(|command| &*command.line).collect();
        let exchange = match self.client.send(&texts, signals)? {
            Answered::Same(exchange) => exchange,
            Answered::Replaced(process) => return Ok(Answered::Replaced(process)),
        };
        for (Command { target, line, to }, reply) in commands.into_iter().zip(&exchange.replies) {
            let Some(target) = self.targets.get_mut(target) else { continue };
            judge(target, &line, reply);
            target.note(line, reply, to);
        }
        Ok(Answered::Same(exchange.failure))
    }

    /// Ends the sessions of servers; a refusal by HAProxy fails the server.
    ///
    /// # Errors
    /// When the instance does not answer.
    pub fn end_sessions(&mut self, of: impl Fn(&Target) -> bool, signals: &Interrupt) -> Result<Answered<()>> {
        let end = |(index, target): (usize, &Target)| {
            let line = || Action::ShutdownSessions.line(Named::of(target.last()));
            of(target).then(|| Command { target: index, line: line(), to: target.last().state })
        };
        let commands = self.targets.iter().enumerate().filter_map(end).collect();
        // A process that is about to end says 'Proxy is disabled.' too: the next poll tells.
        let sent = self.exchange(commands, signals, |target, line, reply| match reply {
            Reply::Refused(text) => target.fail(refused(&target.before, line, text)),
            Reply::Accepted | Reply::Disabled | Reply::Unknown | Reply::Unsent => {}
        })?;
        // The states of the servers are unchanged.
        self.targets.iter_mut().for_each(Target::settle);
        let servers: Vec<&Server> = self.targets.iter().filter(|target| of(target)).map(Target::last).collect();
        if self.old_processes.iter().any(|old| old.sessions.is_some_and(|sessions| sessions > 0)) {
            self.client.end_old_sessions(&servers)?;
        }
        match sent {
            Answered::Same(Some(error)) => Err(error),
            Answered::Same(None) => Ok(Answered::Same(())),
            Answered::Replaced(process) => Ok(Answered::Replaced(process)),
        }
    }

    /// Ends at most this many sessions of servers, and returns how many it has ended.
    ///
    /// # Errors
    /// When the instance does not answer.
    pub fn end_some_sessions(&mut self, of: impl Fn(&Target) -> bool, most: usize) -> Result<Answered<usize>> {
        let servers: Vec<&Server> = self.targets.iter().filter(|target| of(target)).map(Target::last).collect();
        self.client.end_some_sessions(&servers, most)
    }

    /// Reads all servers back.
    ///
    /// # Errors
    /// When the instance does not answer, or not as HAProxy does; then every server is unknown.
    pub fn read_back(&mut self) -> Result<Answered<()>> {
        let servers: Vec<&Server> = self.targets.iter().map(Target::last).collect();
        match self.client.read_back(&servers) {
            Ok(Answered::Same(found)) => {
                for (target, found) in self.targets.iter_mut().zip(found) {
                    target.take(found);
                }
                Ok(Answered::Same(()))
            }
            Ok(Answered::Replaced(process)) => Ok(Answered::Replaced(process)),
            Err(error) => {
                self.targets.iter_mut().for_each(|target| target.lose(&error));
                Err(error)
            }
        }
    }

    /// Reads all servers back after commands; what stopped the commands is also why nothing can be read back.
    fn read_back_after(&mut self, failure: Option<&Error>) -> Result<Answered<()>> {
        self.read_back().map_err(|error| failure.cloned().unwrap_or(error))
    }

    /// Reads all servers back, since somebody else may have changed them, and follows HAProxy over a reload.
    ///
    /// A server that differs from the last plan fails, unless that is fine too.
    pub fn refresh(&mut self, is_as_good: impl Fn(&Target) -> bool, admit: Admission<'_>) -> Answered<()> {
        match self.read_back() {
            Ok(Answered::Same(())) => self.judge(Direction::Forward, None, is_as_good),
            Ok(Answered::Replaced(process)) => {
                self.error = self.follow(&process, admit).err();
                return Answered::Replaced(process);
            }
            Err(error) => {
                self.judge(Direction::Forward, Some(&error), |_| false);
                self.error = Some(error);
            }
        }
        Answered::Same(())
    }

    /// Polls the statistics of servers; one that is gone fails.
    ///
    /// # Errors
    /// When the instance does not answer, or not as HAProxy does; then all of them fail.
    pub fn poll(&mut self, clock: &dyn Clock, of: impl Fn(&Target) -> bool) -> Result<Answered<()>> {
        let mut polled: Vec<&mut Target> = self.targets.iter_mut().filter(|target| of(target)).collect();
        if polled.is_empty() {
            return Ok(Answered::Same(()));
        }
        let servers: Vec<&Server> = polled.iter().map(|target| target.last()).collect();
        let Polled { statistics, old } = match self.client.poll(&servers) {
            Ok(Answered::Same(polled)) => polled,
            Ok(Answered::Replaced(process)) => return Ok(Answered::Replaced(process)),
            Err(error) => {
                polled.iter_mut().for_each(|target| target.fail(error.clone()));
                return Err(error);
            }
        };
        let now = clock.now();
        let held_by = match self.old_policy {
            OldProcesses::Count => None,
            OldProcesses::Wait => old.first().map(|old| old.pid),
        };
        self.old_processes = old;
        for (target, found) in polled.iter_mut().zip(statistics) {
            match found {
                Some(statistics) => target.note_poll(statistics, held_by, now),
                None => {
                    target.take(None);
                    target.fail_gone();
                }
            }
        }
        Ok(Answered::Same(()))
    }

    /// Finds the processes from before a reload that still run, and adds what they still do for servers that were not
    /// polled.
    ///
    /// # Errors
    /// When the master CLI does not answer, or not as HAProxy does.
    pub fn note_old_processes(&mut self) -> Result<()> {
        let servers: Vec<&Server> = self.targets.iter().map(|target| &target.before).collect();
        let old = self.client.old_load(&servers)?;
        for target in &mut self.targets {
            let sessions = old.of(&target.before);
            if let Some(statistics) = &mut target.before.statistics {
                statistics.sessions = statistics.sessions.saturating_add(sessions);
            }
        }
        self.old_processes = old.processes;
        Ok(())
    }

    /// Warns of what may still reach servers that are out: new sessions while they drained, and processes from before a
    /// reload, which know nothing of what was set.
    pub fn warn_of_traffic(&mut self) {
        let draining = self.targets.iter().filter(|target| target.new_sessions > 0);
        let (names, counts): (Vec<String>, Vec<u64>) =
            draining.map(|target| (target.before.full_name(), target.new_sessions)).unzip();
        if !names.is_empty() {
            let count: u64 = counts.iter().sum();
            let sessions = if count == 1 { "1 new session".to_owned() } else { format!("{count} new sessions") };
            self.warnings.push(format!(
                "{}: {sessions} began while draining: a persistence cookie, 'stick on', 'use-server', 'option persist' or \
                 'force-persist' still leads clients there; 'drain.stable' waits until they stay away, and maint ends all of \
                 these but the last two",
                a_few_of(&names)
            ));
        }
        let pids = |is_seen: bool| {
            let of = self.old_processes.iter().filter(|old| old.sessions.is_some() == is_seen);
            of.map(|old| old.pid.to_string()).collect::<Vec<String>>()
        };
        let (seen, unseen) = (pids(true), pids(false));
        let how = "; 'old_processes': 'wait' waits for their end";
        if !seen.is_empty() {
            self.warnings.push(format!(
                "processes from before a reload still run ({}), and their idle keep-alive clients may still send requests to these servers{how}",
                seen.join(", ")
            ));
        }
        if !unseen.is_empty() {
            self.warnings.push(format!(
                "processes from before a reload still run ({}), and may still send requests to these servers; what they serve cannot be counted without a master CLI (-S){how}",
                unseen.join(", ")
            ));
        }
    }

    /// Continues with a process that has taken over: the only place where that happens.
    ///
    /// Servers keep their state before the run and their failures; the plan is dropped.
    ///
    /// # Errors
    /// When the process does not answer in time, gives an unexpected answer, or cannot be locked; then every server is
    /// unknown.
    pub fn follow(&mut self, successor: &Process, admit: Admission<'_>) -> Result<()> {
        let (old, new) = (self.contact.process.pid, successor.pid);
        let unseen = if self.client.sees_old_processes() {
            String::new()
        } else {
            format!("; what {old} still serves cannot be seen without a master CLI (-S)")
        };
        self.warnings.push(format!(
            "the HAProxy at {} was reloaded during the run (process {new} took over from {old}){unseen}",
            self.contact.address
        ));
        self.observe_anew(admit).inspect_err(|error| self.targets.iter_mut().for_each(|target| target.lose(error)))
    }

    /// Observes the process that answers now, whether the same or another one.
    ///
    /// # Errors
    /// When it does not answer in time, gives an unexpected answer, or cannot be locked.
    pub fn observe_anew(&mut self, admit: Admission<'_>) -> Result<()> {
        let observation = self.client.observe(self.detail, &mut |contact: &Contact| admit(contact))?;
        let Observation { contact, servers, rest } = observation;
        // What was polled of another process says nothing of this one.
        let is_same = contact.process.is(&self.contact.process);
        let mut former = VecDeque::from(std::mem::take(&mut self.targets));
        for server in servers {
            let is_it =
                |target: &Target| target.before.backend == server.backend && target.before.server == server.server;
            let known = former.iter().position(is_it).and_then(|known| former.remove(known));
            self.targets.push(match known {
                Some(mut known) => {
                    let last_poll = known.last_poll.take().filter(|_| is_same);
                    Target { last_poll, ..known.on_successor(server) }
                }
                None => self.newcomer(server),
            });
        }
        for gone in former {
            self.take_gone(gone.without_successor());
        }
        self.contact = contact;
        self.rest = rest;
        self.judgement = Judgement::Due;
        Ok(())
    }

    /// Makes the target of a server that was not there before a reload.
    fn newcomer(&self, server: Server) -> Target {
        let target = Target::new(server);
        match self.requested {
            // Nothing says what it was.
            Some(Requested::Restore) => Target { verdict: Verdict::Skipped, ..target },
            Some(Requested::Ready | Requested::Drain | Requested::Maint) | None => target,
        }
    }

    /// Keeps a server that HAProxy has lost in a reload.
    fn take_gone(&mut self, mut gone: Target) {
        let (name, address) = (gone.before.full_name(), &gone.before.address);
        let what = match self.selected_by {
            SelectedBy::Name => format!("{name} disappeared when HAProxy was reloaded"),
            SelectedBy::Address => {
                format!("{name} disappeared, or lost the address {address}, when HAProxy was reloaded")
            }
        };
        if self.on_missing == OnMissing::Ignore {
            self.warnings.push(what);
            return;
        }
        let msg = format!("{what}; check haproxy.cfg, or set 'on_missing' to 'ignore' where it may be absent");
        gone.fail(Error::new(ErrorKind::ServerNotFound, msg));
        self.targets.push(gone);
    }

    /// Fails each server that is not as planned, unless that is fine too.
    fn judge(&mut self, direction: Direction, stopped: Option<&Error>, is_as_good: impl Fn(&Target) -> bool) {
        for target in &mut self.targets {
            if direction == Direction::Forward {
                target.note_spare();
            }
            let Some(planned) = &target.plan else { continue };
            let failure = match &target.reading {
                Reading::Unknown { why, .. } => Some(stopped.unwrap_or(why).clone()),
                Reading::Gone { .. } => Some(gone(&target.before)),
                Reading::First | Reading::Seen(_) if is_as_good(target) => None,
                Reading::First | Reading::Seen(_) => {
                    shortfall(&planned.goal, target.last()).map(|shortfall| match (&planned.decision, stopped) {
                        (Decision::Refuse(refusal), _) => refusal.clone(),
                        // The reason is what stopped the work on the instance, not somebody else.
                        (Decision::Change(_), Some(error)) => error.clone(),
                        (Decision::Keep | Decision::Change(_) | Decision::Disabled, _) => shortfall,
                    })
                }
            };
            match direction {
                Direction::Forward => {
                    if let Some(failure) = failure.filter(|_| target.is_at_work()) {
                        target.fail(failure);
                    }
                }
                Direction::Backward => target.conclude_undo(failure),
            }
        }
    }

    /// Tells whether a server that had to be changed is not as planned.
    fn is_short(&self) -> bool {
        let is_short = |target: &Target| match &target.plan {
            Some(planned) if matches!(planned.decision, Decision::Change(_)) => {
                target.after().is_none_or(|server| shortfall(&planned.goal, server).is_some())
            }
            Some(_) | None => false,
        };
        self.targets.iter().any(is_short)
    }

    /// Fails each server that is not as requested in the end, or unknown: with what ended the work on it, if anything
    /// did. Servers that were rolled back have their result already.
    pub fn conclude(&mut self, goal: impl Fn(&Target) -> Goal, why: Option<&Error>) {
        for target in self.targets.iter_mut().filter(|target| target.is_at_work() && target.undo.is_none()) {
            let failure = match &target.reading {
                Reading::Unknown { why, .. } => Some(why.clone()),
                Reading::Gone { .. } => Some(gone(&target.before)),
                Reading::First | Reading::Seen(_) => shortfall(&goal(target), target.last()),
            };
            if let Some(failure) = failure {
                target.fail(why.cloned().unwrap_or(failure));
            }
        }
    }

    /// Restarts every wait, as on a process that knows nothing of the change.
    pub fn watch_anew(&mut self) {
        self.targets.iter_mut().for_each(|target| target.watch = Watch::Due);
    }

    /// Tells whether the instance or one of its servers has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.error.is_some() || self.undo_error.is_some() || self.targets.iter().any(|target| target.error().is_some())
    }
}

impl Pass<'_> {
    /// Returns the goal of a server, unless the pass does not concern it.
    fn goal_of(&self, target: &Target) -> Option<Goal> {
        match self.direction {
            Direction::Forward => match target.verdict {
                // Planning a server in a backend that is listed as disabled sends nothing: the plan says that it is
                // disabled. One that answered so is not asked again.
                Verdict::Fine | Verdict::Spare | Verdict::Disabled(DisabledBy::Configuration) => (self.goals)(target),
                Verdict::Failed(_) | Verdict::Skipped | Verdict::Disabled(DisabledBy::Reply) => None,
            },
            Direction::Backward => (self.goals)(target),
        }
    }
}

impl Target {
    /// Records that it was left alone as a spare slot, if it was.
    fn note_spare(&mut self) {
        let is_skipped = |planned: &Planned| self.last().is_skipped_by(&planned.goal);
        if self.is_at_work() && self.plan.as_deref().is_some_and(is_skipped) {
            self.verdict = Verdict::Spare;
        }
    }

    /// Records the result of rolling it back.
    fn conclude_undo(&mut self, failure: Option<Error>) {
        if matches!(self.undo, Some(Undo::Failed(_))) {
            return;
        }
        let now = self.last().state;
        self.undo = Some(match failure {
            Some(error) => Undo::Failed(error.on_server(&self.before.backend, &self.before.server)),
            None if now.is_set_as(&self.before.state) => Undo::Done,
            None => Undo::LeftAlone(now),
        });
    }
}

/// Writes the commands for actions on a server.
fn lines(server: &Server, actions: impl Iterator<Item = Action>) -> impl Iterator<Item = Box<str>> {
    let named = Named::of(server);
    actions.map(move |action| action.line(named))
}

fn gone(server: &Server) -> Error {
    Error::new(ErrorKind::ServerNotFound, format!("{} is gone: it could not be read back", server.full_name()))
}

/// Makes the error for a refused command.
fn refused(server: &Server, command: &str, text: &str) -> Error {
    let (kind, hint) = match text {
        "Permission denied" => {
            (ErrorKind::PermissionDenied, "; add 'level admin' to the 'stats socket' line in haproxy.cfg")
        }
        "No such server." | "No such backend." => {
            (ErrorKind::CommandRejected, "; it was deleted in the meantime, or another backend has the same name")
        }
        _ => (ErrorKind::CommandRejected, ""),
    };
    let shown: String = text.chars().take(200).collect();
    let msg = format!("{}: HAProxy answered '{command}' with '{}'{hint}", server.full_name(), shown.escape_debug());
    Error::new(kind, msg).on_server(&server.backend, &server.server)
}
