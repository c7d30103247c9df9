//! The steps of a permitted change: send, drain or wait if requested, keep it over reloads, roll back.

use std::time::Duration;

use super::audit::{Moment, log_changes};
use super::drain::{End, drain, next_step};
use super::fleet::Fleet;
use super::instance::Instance;
use super::put_back::{self, put_back};
use super::records::{compare, save, save_for_good};
use super::rollback::roll_back;
use super::sessions::{end_sessions, end_sessions_over, is_busy};
use super::wait::{is_waited_for, wait};
use crate::model::error::{Error, Result};
use crate::model::goal::Goal;
use crate::model::state::AdminState;
use crate::request::{DrainBounds, OnFailure, Pace, Request};

/// Records who has taken servers out.
pub type Record<'a> = &'a mut dyn FnMut(&mut Fleet<'_>);

/// Makes the change again on a process that has taken over and knows nothing of it, within the time that is left.
pub type Again<'a> = &'a mut dyn FnMut(&mut Fleet<'_>, Duration) -> Result<End>;

/// Sends what is needed and waits as requested; after a failure it rolls back if the request says so.
///
/// # Errors
/// Returns what ended the run as a whole. Failures of an instance or a server are kept there.
pub fn carry_out(request: &Request, goal: Goal, fleet: &mut Fleet<'_>, record: Record<'_>) -> Result<()> {
    let mut course = Course { request, goal, record, kept: None, phase: Phase::Change };
    let result = course.run(fleet);
    if result.is_err() {
        // Somebody else may have changed something during a pause.
        fleet.refresh().ok();
    }
    fleet.conclude(goal, result.as_ref().err());
    if let Err(error) = &result {
        course.fail_unfinished(fleet, error);
    }
    warn_of_traffic(request, fleet)?;
    match result {
        Ok(End::Done | End::Shutdown) => {}
        Ok(End::Rollback) | Err(_) => save(request, fleet),
    }
    let must_roll_back = request.on_failure == OnFailure::Rollback && (result.is_err() || fleet.has_failed());
    if must_roll_back || matches!(result, Ok(End::Rollback)) {
        log_changes(fleet, Moment::UnderWay);
        let rolled_back = roll_back(fleet);
        fleet.conclude(goal, result.as_ref().err());
        rolled_back?;
        save(request, fleet);
    }
    result.map(drop)
}

/// Warns of traffic that may still reach servers that are out: new sessions while draining, and old processes.
fn warn_of_traffic(request: &Request, fleet: &mut Fleet<'_>) -> Result<()> {
    if !matches!(request.state(), Some(AdminState::Drain | AdminState::Maint)) {
        return Ok(());
    }
    // Otherwise a poll has found them already.
    if request.drain.is_none() && request.wait.is_none() && request.shutdown_sessions.is_none() {
        fleet.note_old_processes()?;
    }
    fleet.instances.iter_mut().for_each(Instance::warn_of_traffic);
    Ok(())
}

/// The course of a permitted change, part of which is taken again on a process that takes over.
struct Course<'a> {
    request: &'a Request,
    goal: Goal,
    record: Record<'a>,
    /// How many steps had sent commands when the change was kept last.
    kept: Option<u32>,
    phase: Phase,
}

/// What a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The servers are brought to their goal.
    Change,
    /// The effect is waited for.
    Effect,
    /// Sessions are ended.
    Sessions,
}

impl Course<'_> {
    /// Makes the change, waits for its effect and keeps it over reloads.
    fn run(&mut self, fleet: &mut Fleet<'_>) -> Result<End> {
        let request = self.request;
        let awaited = request.effect().zip(request.wait).filter(|_| request.shutdown_sessions.is_none());
        if awaited.is_some() && request.drain.is_none() {
            self.phase = Phase::Effect;
        }
        let deadline = fleet.deadline(self.time());
        let mut end = self.change(fleet, self.time())?;
        if request.wait.is_some() || request.shutdown_sessions.is_some() {
            self.keep(fleet);
        }
        if let (End::Done, Some((effect, bounds))) = (end, awaited) {
            self.phase = Phase::Effect;
            // A drain has its own deadline.
            let deadline = if request.drain.is_some() { fleet.deadline(bounds.timeout) } else { deadline };
            end = wait(fleet, effect, bounds, &deadline, &mut |fleet, left| self.change(fleet, left))?;
        }
        match self.end_sessions(fleet, end)? {
            End::Done | End::Shutdown => {}
            End::Rollback => return Ok(End::Rollback),
        }
        save_for_good(request, fleet, &mut |fleet| {
            let end = self.change(fleet, self.time())?;
            self.end_sessions(fleet, end)
        })
    }

    /// How long the change may take.
    fn time(&self) -> Duration {
        let drain = self.request.drain.map(|bounds| bounds.timeout);
        drain.or(self.request.wait.map(|bounds| bounds.timeout)).unwrap_or_default()
    }

    /// Brings the servers to their goal: drained first if requested, or checked first if they are waited for.
    fn change(&mut self, fleet: &mut Fleet<'_>, time: Duration) -> Result<End> {
        let Self { request, goal, .. } = *self;
        match (request.drain, request.state(), request.wait) {
            (Some(bounds), _, _) => {
                let timeout = if time < bounds.timeout { in_tenths(time) } else { bounds.timeout };
                let bounds = DrainBounds { timeout, ..bounds };
                drain(fleet, goal, bounds, &mut |fleet| self.keep(fleet))
            }
            (None, Some(AdminState::Ready), Some(bounds)) => {
                let deadline = fleet.deadline(time);
                put_back(fleet, goal, bounds, &deadline, &mut |fleet| self.keep(fleet)).map(|()| End::Done)
            }
            (None, _, _) => fleet.step(&|target| target.goal_for(goal)).map(|()| End::Done),
        }
    }

    /// Keeps what was set, unless that was done since: a reload while this run waits must not lose it, and others must
    /// see who did it.
    fn keep(&mut self, fleet: &mut Fleet<'_>) {
        if self.kept.replace(fleet.changes) == Some(fleet.changes) {
            return;
        }
        save(self.request, fleet);
        if self.request.state() != Some(AdminState::Ready) {
            (self.record)(fleet);
        }
        log_changes(fleet, Moment::UnderWay);
    }

    /// Ends the sessions that are left, if the request or the end of a drain says so.
    fn end_sessions(&mut self, fleet: &mut Fleet<'_>, end: End) -> Result<End> {
        let Self { request, goal, .. } = *self;
        if end == End::Rollback || (end == End::Done && request.shutdown_sessions.is_none()) {
            return Ok(end);
        }
        self.phase = Phase::Sessions;
        let mut again = |fleet: &mut Fleet<'_>, left: Duration| match end {
            End::Done => self.change(fleet, left),
            // The time to drain is over.
            End::Shutdown | End::Rollback => fleet.step(&|_| goal).map(|()| End::Done),
        };
        if let Some(Pace { over }) = request.shutdown_sessions {
            match end_sessions_over(fleet, over, &mut again)? {
                End::Done | End::Shutdown => {}
                End::Rollback => return Ok(End::Rollback),
            }
        }
        end_sessions(fleet, request.time_for_sessions(end == End::Shutdown), &mut again)
    }

    /// Fails each server on which what was to be seen has not been seen, because something has ended the run.
    fn fail_unfinished(&self, fleet: &mut Fleet<'_>, why: &Error) {
        let is_unfinished = match self.phase {
            Phase::Change => return,
            Phase::Effect => is_waited_for,
            Phase::Sessions => is_busy,
        };
        fleet.at_work_mut().filter(|target| is_unfinished(target)).for_each(|target| target.fail(why.clone()));
    }
}

/// Rounds a time down to what a person wants to read.
fn in_tenths(time: Duration) -> Duration {
    time.saturating_sub(Duration::from_nanos(u64::from(time.subsec_nanos() % 100_000_000)))
}

/// Predicts what a run would send and how the servers would be then.
pub fn foresee(request: &Request, goal: Goal, fleet: &mut Fleet<'_>) {
    match (request.drain, request.state(), request.wait) {
        (Some(bounds), _, _) => fleet.foresee(&|target| next_step(goal, target, bounds.stable)),
        (None, Some(AdminState::Ready), Some(bounds)) => {
            fleet.foresee(&|target| put_back::next_step(goal, target, bounds));
        }
        (None, _, _) => {}
    }
    fleet.foresee(&|target| target.goal_for(goal));
    compare(request, fleet);
}
