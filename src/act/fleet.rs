//! All instances of a run together: every step is done side by side, and every wait is one wait for all.

use std::time::{Duration, Instant};

use crate::act::converge::{Direction, Goals, Managed};
use crate::decide::plan::Decision;
use crate::haproxy::observe::Server;
use crate::haproxy::parse::StatRow;
use crate::keep::exclusion::Exclusion;
use crate::model::error::Result;
use crate::request::Change;
use crate::time::deadline::{Backoff, Deadline};
use crate::time::interrupt::Interrupt;
use crate::time::side_by_side::side_by_side;

/// Where a person sees how a long wait goes.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// The instances that a run works on.
pub struct Fleet<'a> {
    /// The instances.
    pub managed: Vec<Managed<'a>>,
    /// Where a person sees how a long wait goes.
    pub progress: Progress<'a>,
    /// Whether a signal has asked the run to end.
    pub interrupt: &'a Interrupt,
    /// What keeps other runs out.
    pub exclusion: Exclusion<'a>,
    /// How long the last look at the statistics of an instance took, of the slowest that answered.
    pub last_look: Duration,
}

/// What was seen of one server that is waited for.
#[derive(Debug)]
pub struct Look<'f> {
    /// Which instance it is on.
    pub instance: usize,
    /// Which of its servers it is.
    pub place: usize,
    /// The server as it was observed last.
    pub server: &'f Server,
    /// Its statistics; nothing where it is gone.
    pub stat: Option<StatRow>,
}

impl Fleet<'_> {
    /// Brings every instance to the goals, which may depend on the instance and the server.
    ///
    /// # Errors
    /// When the lock cannot be had. What fails on an instance is kept there.
    pub fn carry_out(&mut self, goals: &(dyn Fn(usize, &Server) -> Change + Sync)) -> Result<()> {
        if self.lock()? {
            // Somebody else may have changed something while this run only waited.
            let again = |(index, managed): (usize, &mut Managed<'_>)| {
                managed.refresh_for(&|server: &Server| goals(index, server));
            };
            side_by_side(self.managed.iter_mut().enumerate(), again).into_iter().collect::<Result<()>>()?;
        }
        let work = |(index, managed): (usize, &mut Managed<'_>)| {
            let goals: Goals<'_> = &|server: &Server| goals(index, server);
            managed.carry_on(goals, Direction::Forward);
        };
        // Those that are as wanted already have nothing to wait for.
        let is_busy = |(index, managed): &mut (usize, &mut Managed<'_>)| {
            if managed.error.is_some() {
                return false;
            }
            managed.plan(&|server: &Server| goals(*index, server));
            managed.planned.iter().any(|planned| matches!(planned.decision, Decision::Change(_)))
        };
        let all = self.managed.iter_mut().enumerate();
        let (busy, idle): (Vec<_>, Vec<_>) =
            all.map(|mut one| (is_busy(&mut one), one)).partition(|(is_busy, _)| *is_busy);
        idle.into_iter().for_each(|(_, one)| work(one));
        side_by_side(busy, |(_, one)| work(one)).into_iter().collect()
    }

    /// Takes the lock on all instances, if it is not held; tells whether others could do something before.
    ///
    /// # Errors
    /// When another run does not let go of it in time, or a signal comes.
    pub fn lock(&mut self) -> Result<bool> {
        self.exclusion.take(self.managed.iter().map(|managed| (&managed.current.address, &managed.current.process)))
    }

    /// Reads back what this run has set, because time has passed since; tells whether no instance was reloaded.
    ///
    /// # Errors
    /// When a thread fails. What fails on an instance is kept there.
    pub fn refresh(&mut self) -> Result<bool> {
        let same: Vec<bool> = side_by_side(&mut self.managed, Managed::refresh).into_iter().collect::<Result<_>>()?;
        Ok(same.into_iter().all(|is_same| is_same))
    }

    /// The servers that have not failed and that a test picks, by instance.
    pub fn pick(&self, mut test: impl FnMut(usize, &Managed<'_>, usize) -> bool) -> Vec<Vec<usize>> {
        let of = |(index, managed): (usize, &Managed<'_>)| match managed.error {
            Some(_) => Vec::new(),
            None => (0..managed.outcomes.len())
                .filter(|&place| {
                    let outcome = managed.outcomes.get(place);
                    outcome.is_some_and(|outcome| outcome.error.is_none() && !outcome.is_disabled)
                })
                .filter(|&place| test(index, managed, place))
                .collect(),
        };
        self.managed.iter().enumerate().map(of).collect()
    }

    /// Looks at the statistics of the picked servers; returns nothing where an instance was reloaded and is followed.
    ///
    /// # Errors
    /// When a thread fails. What fails on an instance is kept there.
    pub fn look(&mut self, picked: &[Vec<usize>]) -> Result<Option<Vec<Look<'_>>>> {
        let looks = side_by_side(self.managed.iter_mut().zip(picked), |(managed, places)| {
            if places.is_empty() {
                return (Some(Vec::new()), Duration::ZERO);
            }
            let began = Instant::now();
            match managed.look(places) {
                Ok(Some(rows)) => (Some(rows), began.elapsed()),
                Ok(None) => {
                    managed.error = managed.follow().err();
                    (None, Duration::ZERO)
                }
                // What it took says nothing of the next look, which is at the others only.
                Err(error) => {
                    managed.error = Some(error);
                    (Some(Vec::new()), Duration::ZERO)
                }
            }
        });
        let (looks, took): (Vec<Option<_>>, Vec<Duration>) =
            looks.into_iter().collect::<Result<Vec<_>>>()?.into_iter().unzip();
        self.last_look = took.into_iter().max().unwrap_or_default();
        let Some(looks) = looks.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        let mut seen = Vec::new();
        for (instance, (managed, (places, rows))) in self.managed.iter().zip(picked.iter().zip(looks)).enumerate() {
            for (&place, stat) in places.iter().zip(rows) {
                let Some(server) = managed.current.servers.get(place) else { continue };
                seen.push(Look { instance, place, server, stat });
            }
        }
        Ok(Some(seen))
    }

    /// Lets go of the lock and waits until the next look.
    ///
    /// # Errors
    /// The failure that ends the run, once a signal has come.
    pub fn pause(&mut self, backoff: &mut Backoff, deadline: &Deadline) -> Result<()> {
        let pause = backoff.next(self.last_look).min(deadline.left());
        if pause > Duration::ZERO {
            self.exclusion.release();
            self.interrupt.pause(pause)?;
        }
        Ok(())
    }

    /// Counts the servers of all instances.
    #[must_use]
    pub fn count(&self) -> usize {
        self.managed.iter().map(|managed| managed.outcomes.len()).sum()
    }

    /// Tells whether any part of the run has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.managed.iter().any(Managed::has_failed)
    }
}

/// Counts servers for a person.
#[must_use]
pub fn servers(count: usize) -> String {
    if count == 1 { "1 server".to_owned() } else { format!("{count} servers") }
}

/// Names the first few of many, for a person.
#[must_use]
pub fn a_few_of(names: &[String]) -> String {
    const NAMED: usize = 3;
    let named = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
