//! One server of a run: how it was, how it was read last, what was sent to it, and what became of it.

use std::time::{Duration, Instant};

use crate::decide::plan::Planned;
use crate::haproxy::client::Reply;
use crate::keep::owner::Record;
use crate::model::error::{Error, ErrorKind};
use crate::model::goal::{Goal, Was};
use crate::model::server::{Server, ServerState, Statistics};
use crate::model::state::AdminState;

/// One server of a run.
#[derive(Debug)]
pub struct Target {
    /// How it was before the run.
    pub before: Server,
    /// How it was read last.
    pub reading: Reading,
    /// What was planned for it last; `None` if it was left out.
    pub plan: Option<Box<Planned>>,
    /// What was sent to it, in order.
    pub sent: Vec<Sent>,
    /// What the last poll saw it do.
    pub last_poll: Option<Box<Poll>>,
    /// How many sessions began on it while it was draining.
    pub new_sessions: u64,
    /// How near it is to what is waited for.
    pub watch: Watch,
    /// Whether it is as requested.
    pub verdict: Verdict,
    /// The result of rolling it back, if that was tried.
    pub undo: Option<Undo>,
    /// What the system log was told last.
    pub logged: Option<ServerState>,
    /// What it was before it was taken out, if the request restores that.
    pub was: Option<Was>,
    /// Who has taken it out, if a status found a record.
    pub record: Option<Box<Record>>,
}

/// How a server was read last.
#[derive(Debug)]
pub enum Reading {
    /// As it was before the run: it was not read again.
    First,
    /// As this; in a dry run, as it is predicted to be.
    Seen(Box<Server>),
    /// It could not be read.
    Unknown {
        /// How it was read before that.
        last: Box<Server>,
        /// Why not.
        why: Error,
    },
    /// Its HAProxy no longer has it.
    Gone {
        /// How it was read before that.
        last: Box<Server>,
    },
}

/// What a poll saw a server do.
#[derive(Debug)]
pub struct Poll {
    /// Its statistics, with the sessions that old processes still have on it.
    pub statistics: Statistics,
    /// An old process that must end before the server counts as free.
    pub held_by: Option<u32>,
    /// A server that tracks it and is not drained: it would go to maint with this one.
    pub kept_for: Option<String>,
    /// Whether the first poll already showed the count of its check above `rise`, so that it proves nothing
    /// (`init-state fully-up`).
    pub was_above_rise: bool,
    /// When a session was last seen on it, otherwise when it was first polled.
    last_busy: Instant,
    /// For how long it has been quiet: no session, nothing queued, and no session begun since the previous poll. `None`
    /// if it was not quiet, or not polled before.
    quiet_for: Option<Duration>,
}

impl Poll {
    /// Tells whether the server has nothing left to do, and has had nothing for this long.
    #[must_use]
    pub fn is_drained(&self, stable: Duration) -> bool {
        self.held_by.is_none() && self.kept_for.is_none() && self.quiet_for.is_some_and(|quiet| quiet >= stable)
    }
}

/// A command that was sent to a server, or would be.
#[derive(Debug)]
pub struct Sent {
    /// The command.
    pub line: Box<str>,
    /// What became of it.
    pub reply: Delivery,
    /// How the server was read last before it.
    pub from: ServerState,
    /// How it is after all commands sent together with it.
    pub to: ServerState,
    /// How the server was read back after it; `None` until then.
    pub settled: Option<ServerState>,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// HAProxy has accepted it.
    Accepted,
    /// HAProxy has refused it.
    Refused,
    /// It was sent but not answered: it may have been carried out, or may still be.
    Unanswered,
    /// The process that it was sent to is gone, and its effect with it.
    Outlived,
    /// This is a dry run.
    Foreseen,
}

/// Whether a server is as requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing says otherwise.
    Fine,
    /// Its backend is disabled, and no command reaches it.
    Disabled(DisabledBy),
    /// Somebody else has taken it out, and the request says to leave it alone.
    Skipped,
    /// It is a spare slot that only a pattern matched: it was left alone.
    Spare,
    /// It is not.
    Failed(Error),
}

/// How it is known that a backend is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisabledBy {
    /// HAProxy lists it so.
    Configuration,
    /// HAProxy has said so in reply to a command.
    Reply,
}

/// The result of rolling a server back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// It is as it was before the run.
    Done,
    /// Somebody else has set it to this in the meantime.
    LeftAlone(ServerState),
    /// It is not as it was before the run.
    Failed(Error),
}

/// How near a server is to what is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// It has not been polled yet.
    Due,
    /// It is not there yet, for this reason.
    NotYet(String),
    /// It has been there since then, and must stay for a while.
    Since(Instant),
    /// A check has passed while it was in drain: it only remains to see it take traffic.
    Proven,
    /// It is there in another backend, which is enough.
    Excused,
    /// It was there long enough.
    Over,
}

impl Target {
    /// Makes the target of an untouched server.
    #[must_use]
    pub fn new(server: Server) -> Self {
        Self {
            verdict: verdict_on(&server),
            before: server,
            reading: Reading::First,
            plan: None,
            sent: Vec::new(),
            last_poll: None,
            new_sessions: 0,
            watch: Watch::Due,
            undo: None,
            logged: None,
            was: None,
            record: None,
        }
    }

    /// Returns what is to become of it: what is requested of all servers, and what is its own to be restored.
    #[must_use]
    pub fn goal_for(&self, requested: Goal) -> Goal {
        self.was.map_or(requested, |was| was.as_goal(requested))
    }

    /// Tells whether it is restored to be out of service, so that it does not come back.
    #[must_use]
    pub fn stays_out(&self) -> bool {
        self.was.is_some_and(|was| was.state != AdminState::Ready)
    }

    /// Returns the server as it was read last, however long ago.
    #[must_use]
    pub fn last(&self) -> &Server {
        match &self.reading {
            Reading::First => &self.before,
            Reading::Seen(server) => server,
            Reading::Unknown { last, .. } | Reading::Gone { last } => last,
        }
    }

    /// Returns the server as it was read back; `None` if that failed, or it is gone.
    #[must_use]
    pub fn after(&self) -> Option<&Server> {
        match &self.reading {
            Reading::First => Some(&self.before),
            Reading::Seen(server) => Some(server),
            Reading::Unknown { .. } | Reading::Gone { .. } => None,
        }
    }

    /// Tells whether anything that commands set on the server differs from before, or may differ because it could not
    /// be read back.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        let differs = |server: &Server| self.is_set() && !server.state.is_set_as(&self.before.state);
        match &self.reading {
            Reading::First => false,
            Reading::Seen(server) => differs(server),
            Reading::Unknown { last, .. } => self.is_open() || differs(last),
            Reading::Gone { last } => differs(last),
        }
    }

    fn is_set(&self) -> bool {
        self.sent.iter().any(Sent::may_set)
    }

    /// Tells whether a command may have set something that was not read back, or may do so yet.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.sent.iter().any(|sent| match sent.reply {
            Delivery::Accepted => sent.settled.is_none(),
            Delivery::Unanswered => sent.settled.is_none_or(|settled| !settled.is_set_as(&sent.to)),
            Delivery::Refused | Delivery::Outlived | Delivery::Foreseen => false,
        })
    }

    /// Tells whether the server is as this run has left it: any difference was set by somebody else.
    #[must_use]
    pub fn is_as_left(&self) -> bool {
        let now = self.last().state;
        let last = self.sent.iter().rev().find(|sent| sent.may_set());
        last.is_some_and(|sent| match (sent.reply, &sent.settled) {
            // It may be carried out yet.
            (Delivery::Unanswered, _) | (_, None) => sent.may_lead_to(&now),
            (Delivery::Accepted | Delivery::Refused | Delivery::Outlived | Delivery::Foreseen, Some(settled)) => {
                settled.is_set_as(&now)
            }
        })
    }

    /// Returns how it was after the last command that was read back.
    #[must_use]
    pub fn settled(&self) -> Option<&ServerState> {
        self.sent.iter().rev().find_map(|sent| sent.settled.as_ref())
    }

    /// Tells whether this run has changed the server, whatever it is now.
    #[must_use]
    pub fn was_changed(&self) -> bool {
        let setting = self.sent.iter().filter(|sent| sent.may_set());
        setting.map(|sent| sent.settled.as_ref().unwrap_or(&sent.to)).any(|left| !left.is_set_as(&self.before.state))
    }

    /// Tells whether HAProxy has it, as far as known.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !matches!(self.reading, Reading::Gone { .. })
    }

    /// Tells whether there is still something to do with it.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.verdict == Verdict::Fine
    }

    /// Returns why it is not as requested, or after a rollback not as it was before.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match (&self.verdict, &self.undo) {
            (Verdict::Failed(error), _) => Some(error),
            (Verdict::Fine | Verdict::Disabled(_) | Verdict::Skipped | Verdict::Spare, Some(Undo::Failed(error))) => {
                Some(error)
            }
            (Verdict::Fine | Verdict::Disabled(_) | Verdict::Skipped | Verdict::Spare, _) => None,
        }
    }

    /// Tells whether it is back to what it was before the run; `None` if that was not tried, or left to somebody else.
    #[must_use]
    pub fn is_rolled_back(&self) -> Option<bool> {
        match self.undo.as_ref()? {
            Undo::Done => Some(true),
            Undo::Failed(_) => Some(false),
            Undo::LeftAlone(_) => None,
        }
    }

    /// Records why it is not as requested, unless a reason is known already.
    pub fn fail(&mut self, error: Error) {
        if !matches!(self.verdict, Verdict::Failed(_)) {
            self.verdict = Verdict::Failed(error.on_server(&self.before.backend, &self.before.server));
        }
    }

    /// Records that its HAProxy no longer has it.
    pub fn fail_gone(&mut self) {
        let msg = format!("{} is gone: it was deleted during the run", self.before.full_name());
        self.fail(Error::new(ErrorKind::ServerNotFound, msg));
    }

    /// Takes over what was read back.
    pub fn take(&mut self, found: Option<Server>) {
        let last = self.take_last();
        self.reading = match found {
            Some(found) => {
                let seen = Server { statistics: last.statistics, backend_name: last.backend_name, ..found };
                Reading::Seen(Box::new(seen))
            }
            None => Reading::Gone { last },
        };
    }

    /// Notes that it could not be read back.
    pub fn lose(&mut self, why: &Error) {
        let last = self.take_last();
        self.reading = Reading::Unknown { last, why: why.clone() };
    }

    /// Takes over the result of a poll; a session that began and ended since the previous poll counts as well.
    pub fn note_poll(&mut self, statistics: Statistics, held_by: Option<u32>, now: Instant) {
        let before = self.last_poll.as_deref();
        // The first observation may serve as well, but sessions since then may have begun before the drain.
        let observed = before.map(|poll| &poll.statistics).or(self.last().statistics.as_deref());
        let begun = observed.map(|known| statistics.total_sessions.saturating_sub(known.total_sessions));
        let is_quiet = statistics.is_idle() && begun == Some(0);
        let last_busy = before.map(|poll| poll.last_busy).filter(|_| is_quiet).unwrap_or(now);
        let quiet_for = is_quiet.then(|| now.saturating_duration_since(last_busy));
        if before.is_some() && self.last().state.flags.forced() == Some(AdminState::Drain) {
            self.new_sessions = self.new_sessions.saturating_add(begun.unwrap_or_default());
        }
        let is_above_rise = statistics.counter.is_some_and(|counter| counter.health > counter.rise);
        let was_above_rise = before.map_or(is_above_rise, |poll| poll.was_above_rise);
        self.last_poll =
            Some(Box::new(Poll { statistics, held_by, kept_for: None, was_above_rise, last_busy, quiet_for }));
    }

    /// Notes the state that was read back after commands.
    pub fn settle(&mut self) {
        let Some(now) = self.after().map(|server| server.state) else { return };
        let mut unsettled = self.sent.iter().filter(|sent| sent.settled.is_none());
        let are_accepted = unsettled.all(|sent| match sent.reply {
            Delivery::Accepted | Delivery::Outlived | Delivery::Foreseen => true,
            Delivery::Refused | Delivery::Unanswered => false,
        });
        for sent in self.sent.iter_mut().filter(|sent| sent.settled.is_none()) {
            let is_own = if are_accepted { now.is_set_as(&sent.to) } else { sent.may_lead_to(&now) };
            // A state that they do not lead to was set by somebody else at that moment.
            sent.settled = Some(if is_own { now } else { sent.to });
        }
    }

    /// Shows it as it is predicted to be.
    pub fn foresee(&mut self, after: ServerState) {
        let mut last = self.take_last();
        last.state = after;
        self.reading = Reading::Seen(last);
    }

    fn take_last(&mut self) -> Box<Server> {
        match std::mem::replace(&mut self.reading, Reading::First) {
            Reading::First => Box::new(self.before.clone()),
            Reading::Seen(server) => server,
            Reading::Unknown { last, .. } | Reading::Gone { last } => last,
        }
    }

    /// Continues with the server as observed on a process that has taken over.
    #[must_use]
    pub fn on_successor(self, server: Server) -> Self {
        let verdict = match self.verdict {
            Verdict::Failed(error) => Verdict::Failed(error),
            Verdict::Skipped => Verdict::Skipped,
            Verdict::Fine | Verdict::Disabled(_) | Verdict::Spare => verdict_on(&server),
        };
        let outlived = |mut sent: Sent| {
            sent.reply = match (sent.reply, &sent.settled) {
                (Delivery::Unanswered, _) | (Delivery::Accepted, None) => Delivery::Outlived,
                (reply, _) => reply,
            };
            sent
        };
        Self {
            sent: self.sent.into_iter().map(outlived).collect(),
            reading: Reading::Seen(Box::new(server)),
            verdict,
            // The plan for the old process does not apply to the new one.
            plan: None,
            last_poll: None,
            watch: Watch::Due,
            before: self.before,
            new_sessions: self.new_sessions,
            undo: self.undo,
            logged: self.logged,
            was: self.was,
            record: self.record,
        }
    }

    /// Notes that a process that has taken over does not have it.
    #[must_use]
    pub fn without_successor(mut self) -> Self {
        let last = self.take_last();
        Self { reading: Reading::Gone { last }, plan: None, ..self }
    }

    /// Notes what HAProxy answered to a command.
    pub fn note(&mut self, line: Box<str>, reply: &Reply, to: ServerState) {
        let reply = match reply {
            Reply::Unsent => return,
            Reply::Accepted => Delivery::Accepted,
            Reply::Disabled | Reply::Refused(_) => Delivery::Refused,
            Reply::Unknown => Delivery::Unanswered,
        };
        // Usually it is the only one.
        self.sent.reserve_exact(1);
        let from = self.last().state;
        self.sent.push(Sent { line, reply, from, to, settled: None });
    }
}

impl Sent {
    /// Tells whether it may have set anything, or would: ending sessions does not, and neither does a refused command.
    fn may_set(&self) -> bool {
        match self.reply {
            Delivery::Accepted | Delivery::Unanswered | Delivery::Outlived | Delivery::Foreseen => {
                !self.from.is_set_as(&self.to)
            }
            Delivery::Refused => false,
        }
    }

    /// Tells whether a server can be in this state after some commands of the plan.
    fn may_lead_to(&self, state: &ServerState) -> bool {
        state.is_set_between(&self.from, &self.to)
    }
}

fn verdict_on(server: &Server) -> Verdict {
    if server.is_in_disabled_backend() { Verdict::Disabled(DisabledBy::Configuration) } else { Verdict::Fine }
}
