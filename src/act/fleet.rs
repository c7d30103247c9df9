//! All instances of a run together: they take every step side by side, and share every wait.

use std::time::Duration;

use super::instance::{Admission, Direction, Instance, Pass};
use super::target::Target;
use crate::decide::shortfall::shortfall;
use crate::haproxy::client::Answered;
use crate::keep::audit::Audit;
use crate::keep::exclusion::{Exclusion, Since};
use crate::model::error::{Error, Result};
use crate::model::goal::Goal;
use crate::model::traffic::MinAvailable;
use crate::time::clock::Clock;
use crate::time::deadline::{Backoff, Deadline, Progress};
use crate::time::interrupt::Interrupt;
use crate::time::side_by_side::side_by_side;

/// The instances that a run works on.
pub struct Fleet<'a> {
    /// The instances.
    pub instances: Vec<Instance<'a>>,
    /// Shows a person the progress of a long wait.
    pub progress: Progress<'a>,
    /// What may end the run.
    pub signals: &'a Interrupt,
    /// What its waits go by.
    pub clock: &'a dyn Clock,
    /// What keeps other runs out.
    pub exclusion: Exclusion<'a>,
    /// What must stay usable.
    pub guard: Option<MinAvailable>,
    /// What the system log is told.
    pub audit: Audit,
    /// How long the last poll took on the slowest instance that answered.
    pub last_poll: Duration,
    /// How many steps have sent commands.
    pub changes: u32,
}

/// Whether all instances are still the observed processes, or one was replaced and followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processes {
    /// They are the same.
    Same,
    /// At least one is a new process, which knows nothing of what was set.
    Replaced,
}

impl<'a> Fleet<'a> {
    /// Brings every server that has not failed to its goal.
    ///
    /// # Errors
    /// When the lock cannot be taken. Failures of an instance are kept there.
    pub fn step(&mut self, goal: &(dyn Fn(&Target) -> Goal + Sync)) -> Result<()> {
        let since = self.lock()?;
        let admit: Admission<'_> = &|contact| self.exclusion.admit(contact);
        let pass = Pass {
            goals: &|target| Some(goal(target)),
            direction: Direction::Forward,
            guard: self.guard,
            signals: self.signals,
            admit,
        };
        let mut working: Vec<&mut Instance<'_>> =
            self.instances.iter_mut().filter(|instance| instance.error.is_none()).collect();
        if since == Since::Released {
            // Somebody else may have changed something while this run waited; if they have set what this step would
            // set, that is fine.
            let again = |instance: &mut &mut Instance<'_>| {
                instance.refresh(|target| shortfall(&goal(target), target.last()).is_none(), admit);
            };
            side_by_side(working.iter_mut(), again).into_iter().collect::<Result<Vec<()>>>()?;
            working.retain(|instance| instance.error.is_none());
        }
        working.iter_mut().for_each(|instance| instance.plan(&pass));
        let carry_out = |instance: &mut Instance<'_>| {
            let result = instance.carry_out(&pass);
            instance.error = result.err();
        };
        // Instances that are already as requested have nothing to wait for.
        let (busy, idle): (Vec<_>, Vec<_>) = working.into_iter().partition(|instance| instance.needs_commands());
        idle.into_iter().for_each(carry_out);
        self.changes += u32::from(!busy.is_empty());
        side_by_side(busy, carry_out).into_iter().collect()
    }

    /// Predicts what a step would send, and how the servers would be then.
    pub fn foresee(&mut self, goal: &(dyn Fn(&Target) -> Goal + Sync)) {
        let pass = Pass {
            goals: &|target| Some(goal(target)),
            direction: Direction::Forward,
            guard: self.guard,
            signals: self.signals,
            admit: &|_| Ok(()),
        };
        self.instances.iter_mut().for_each(|instance| instance.foresee(&pass));
    }

    /// Takes the lock on all instances if it is not held; tells whether others could act before.
    ///
    /// # Errors
    /// When another run does not release it in time, or a signal arrives.
    pub fn lock(&self) -> Result<Since> {
        self.exclusion.take(self.instances.iter().map(|instance| &instance.contact))
    }

    /// Reads all servers back again, because time has passed.
    ///
    /// # Errors
    /// When a thread fails. Failures of an instance are kept there.
    pub fn refresh(&mut self) -> Result<Processes> {
        let admit: Admission<'_> = &|contact| self.exclusion.admit(contact);
        let working = self.instances.iter_mut().filter(|instance| instance.error.is_none());
        let answers = side_by_side(working, |instance| instance.refresh(|_| false, admit));
        summary(answers)
    }

    /// Polls the statistics of the servers that have not failed and match a test.
    ///
    /// # Errors
    /// When a thread fails. Failures of an instance are kept there.
    pub fn poll(&mut self, of: &(dyn Fn(&Target) -> bool + Sync)) -> Result<Processes> {
        let admit: Admission<'_> = &|contact| self.exclusion.admit(contact);
        let working = self.instances.iter_mut().filter(|instance| instance.error.is_none());
        let clock = self.clock;
        let polls = side_by_side(working, |instance| {
            let began = clock.now();
            match instance.poll(clock, |target| target.is_at_work() && of(target)) {
                Ok(Answered::Same(())) => (Answered::Same(()), clock.now().saturating_duration_since(began)),
                Ok(Answered::Replaced(process)) => {
                    instance.error = instance.follow(&process, admit).err();
                    (Answered::Replaced(process), Duration::ZERO)
                }
                // Its time says nothing about the next poll, which covers only the others.
                Err(error) => {
                    instance.error = Some(error);
                    (Answered::Same(()), Duration::ZERO)
                }
            }
        });
        let (answers, took): (Vec<_>, Vec<_>) = polls.into_iter().map(split).unzip();
        self.last_poll = took.into_iter().max().unwrap_or_default();
        summary(answers)
    }

    /// Finds the processes from before a reload that still run on each instance.
    ///
    /// # Errors
    /// When a thread fails. A failure on an instance is a warning there.
    pub fn note_old_processes(&mut self) -> Result<()> {
        let working = self.instances.iter_mut().filter(|instance| instance.error.is_none());
        let note = |instance: &mut Instance<'_>| {
            if let Err(error) = instance.note_old_processes() {
                instance.warnings.push(format!("could not search for processes from before a reload: {error}"));
            }
        };
        side_by_side(working, note).into_iter().collect()
    }

    /// Starts a wait.
    #[must_use]
    pub fn deadline(&self, total: Duration) -> Deadline<'a> {
        Deadline::by(self.clock, total)
    }

    /// Releases the lock and waits until the next poll.
    ///
    /// # Errors
    /// Returns the failure that ends the run, once a signal has arrived.
    pub fn pause(&self, backoff: &mut Backoff, deadline: &Deadline<'_>) -> Result<()> {
        let pause = backoff.next(self.last_poll).min(deadline.left());
        if pause > Duration::ZERO {
            self.exclusion.release();
            self.clock.pause(pause, self.signals)?;
        }
        Ok(())
    }

    /// Fails each server that is not as requested in the end, or unknown: with what ended the run or the work on its
    /// instance, if anything did.
    pub fn conclude(&mut self, goal: Goal, why: Option<&Error>) {
        for instance in &mut self.instances {
            let why = why.or(instance.error.as_ref()).cloned();
            instance.conclude(|target| target.goal_for(goal), why.as_ref());
        }
    }

    /// Waits for the second poll, whatever the deadline: one alone does not show whether sessions begin.
    ///
    /// It is the last one as well, so that it need not spare HAProxy for long after a slow poll.
    ///
    /// # Errors
    /// As [`Fleet::pause`].
    pub fn pause_once(&self, backoff: &mut Backoff) -> Result<()> {
        self.exclusion.release();
        self.clock.pause(backoff.next(self.last_poll), self.signals)
    }

    /// Returns the servers that have not failed, on instances that have not failed.
    pub fn at_work(&self) -> impl Iterator<Item = &Target> {
        let working = self.instances.iter().filter(|instance| instance.error.is_none());
        working.flat_map(|instance| &instance.targets).filter(|target| target.is_at_work())
    }

    /// Returns these servers, to update them.
    pub fn at_work_mut(&mut self) -> impl Iterator<Item = &mut Target> {
        let working = self.instances.iter_mut().filter(|instance| instance.error.is_none());
        working.flat_map(|instance| &mut instance.targets).filter(|target| target.is_at_work())
    }

    /// Counts the servers of all instances.
    #[must_use]
    pub fn count(&self) -> usize {
        self.instances.iter().map(|instance| instance.targets.len()).sum()
    }

    /// Tells whether any part of the run has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.instances.iter().any(Instance::has_failed)
    }
}

fn split<T>(result: Result<(Answered<()>, T)>) -> (Result<Answered<()>>, T)
where
    T: Default,
{
    match result {
        Ok((answer, rest)) => (Ok(answer), rest),
        Err(error) => (Err(error), T::default()),
    }
}

/// Tells whether all answers came from the same processes.
fn summary(answers: Vec<Result<Answered<()>>>) -> Result<Processes> {
    let answers: Vec<Answered<()>> = answers.into_iter().collect::<Result<_>>()?;
    let is_same = answers.iter().all(|answer| *answer == Answered::Same(()));
    Ok(if is_same { Processes::Same } else { Processes::Replaced })
}

/// Counts servers for a person.
#[must_use]
pub fn servers(count: usize) -> String {
    if count == 1 { "1 server".to_owned() } else { format!("{count} servers") }
}
