//! Time in waits: one deadline for all, and pauses between polls that keep polling cheap for HAProxy.

use std::time::{Duration, Instant};

use super::clock::{Clock, HostClock};
use crate::model::error::{Error, ErrorKind, Result};

/// Shows a person the progress of a long wait.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// The pause before the second poll.
const FIRST: Duration = Duration::from_millis(50);

/// The longest pause unless a poll was slow.
const LONGEST: Duration = Duration::from_secs(1);

/// If polling the few servers of a typical wait takes more than a moment, the longest pause is this many times as long,
/// up to two seconds: so polling takes less than 1 % of HAProxy's time.
const TIMES_A_SHORT_POLL: u32 = 120;
const LONGEST_FOR_SHORT: Duration = Duration::from_secs(2);

/// A pause is at least this many times as long as the poll before it: so polling takes less than 5 % of HAProxy's time,
/// however many servers are pending and however many backends HAProxy searches for them.
const TIMES_A_POLL: u32 = 24;

/// The longest pause after a slow poll.
const LONGEST_OF_ALL: Duration = Duration::from_secs(30);

/// The pause before asking a HAProxy again that could not be reached.
const AGAIN: Duration = Duration::from_millis(50);

/// The longest time that the dumps of one step may take beyond its time.
const DUMPS: Duration = Duration::from_secs(300);

/// The time that one step on one instance may take in total: connecting, observing, sending, reading back, or a poll.
///
/// Only the time of a dump that has begun does not count, because leaving it can take HAProxy down.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    total: Duration,
    end: Instant,
    dumps_end: Instant,
    bound: Bound,
}

/// What ends a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// Its own time.
    Step,
    /// The end of the run, which comes first.
    Run,
}

impl Allowance {
    /// Starts a step.
    #[must_use]
    pub fn of(total: Duration) -> Self {
        let now = Instant::now();
        Self { total, end: now + total, dumps_end: now + total + DUMPS, bound: Bound::Step }
    }

    /// Starts a step that ends no later than the run, if that has an end.
    #[must_use]
    pub fn within(total: Duration, run: Option<Instant>) -> Self {
        let left = run.map(|end| end.saturating_duration_since(Instant::now()));
        match left.filter(|left| *left < total) {
            Some(left) => Self { bound: Bound::Run, ..Self::of(left) },
            None => Self::of(total),
        }
    }

    /// Returns the same step for something that is to be repeated no longer than this.
    #[must_use]
    pub fn at_most(self, limit: Duration) -> Self {
        Self { end: self.end.min(Instant::now() + limit), ..self }
    }

    /// The time it was given.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.total
    }

    /// Says how long that is, for an error about a step that took longer.
    #[must_use]
    pub fn in_words(&self) -> String {
        let seconds = self.total.as_secs_f64();
        match self.bound {
            Bound::Step => format!("{seconds} s"),
            Bound::Run => format!("the {seconds:.1} s that were left of the run's 'deadline'"),
        }
    }

    /// The time that is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// The time that is left for a dump that has begun.
    #[must_use]
    pub fn left_for_dumps(&self) -> Duration {
        self.dumps_end.saturating_duration_since(Instant::now())
    }

    /// Tells whether the time is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Does not count the time of a dump.
    pub fn excuse(&mut self, dump: Duration) {
        self.end += dump;
    }
}

/// How often, and after what pause, a try that has failed is repeated within a step.
#[derive(Debug, Clone, Copy)]
pub struct Tries {
    /// How often it is tried.
    pub count: u32,
    /// The pause before the next try.
    pub pause: Duration,
}

/// Repeats a read until HAProxy can be reached and answers completely: it may be restarting.
///
/// # Errors
/// Returns the last failure when the step is over.
pub fn patiently<T>(step: Allowance, read: impl FnMut() -> Result<T>) -> Result<T> {
    let tries = Tries { count: u32::MAX, pause: AGAIN };
    repeatedly(step, tries, |error| error.kind == ErrorKind::Unreachable || error.is_cut_off, read)
}

/// Repeats a try as long as its failure may pass and the step is not over.
///
/// # Errors
/// Returns the last failure, but not one that only says that the step was over.
pub fn repeatedly<T>(
    step: Allowance,
    tries: Tries,
    may_pass: impl Fn(&Error) -> bool,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut failure = None;
    for _ in 1..tries.count {
        match attempt() {
            Err(error) if may_pass(&error) && !step.is_over() => failure = Some(error),
            Err(error) if error.kind == ErrorKind::Timeout => return Err(failure.unwrap_or(error)),
            result => return result,
        }
        std::thread::sleep(tries.pause.min(step.left()));
    }
    attempt()
}

/// The end of a wait.
#[derive(Debug, Clone, Copy)]
pub struct Deadline<'a> {
    clock: &'a dyn Clock,
    end: Instant,
}

impl Deadline<'static> {
    /// Starts a wait by the clock of this host.
    #[must_use]
    pub fn after(total: Duration) -> Self {
        Self::by(&HostClock, total)
    }
}

impl<'a> Deadline<'a> {
    /// Starts a wait by a clock.
    #[must_use]
    pub fn by(clock: &'a dyn Clock, total: Duration) -> Self {
        Self { clock, end: clock.now() + total }
    }

    /// The time that is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(self.clock.now())
    }

    /// The time that is left, in seconds for a person: rounded up, so that it is 0 only at the end.
    #[must_use]
    pub fn seconds_left(&self) -> u64 {
        let left = self.left();
        left.as_secs() + u64::from(left.subsec_nanos() > 0)
    }

    /// Tells whether the time is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }
}

/// The pauses between polls, which double up to a second, or up to two if polls take more than a moment.
#[derive(Debug, Default)]
pub struct Backoff {
    polls: u32,
    /// How long the poll before took.
    before: Duration,
}

impl Backoff {
    /// The next pause, after a poll that took this long.
    ///
    /// Two in a row show what one costs HAProxy. A single slow one has waited for something else, such as a reload, and
    /// what comes after that must not be noticed late.
    pub fn next(&mut self, poll: Duration) -> Duration {
        let poll = std::mem::replace(&mut self.before, poll).min(poll);
        let longest = LONGEST.max(poll.saturating_mul(TIMES_A_SHORT_POLL).min(LONGEST_FOR_SHORT));
        let doubled = FIRST.saturating_mul(1 << self.polls.min(10)).min(longest);
        self.polls += 1;
        doubled.max(poll.saturating_mul(TIMES_A_POLL).min(LONGEST_OF_ALL))
    }

    /// Tells whether there has been no pause yet.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.polls == 0
    }

    /// Starts again with short pauses, because something has moved.
    pub fn reset(&mut self) {
        self.polls = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_with_the_time_of_a_poll() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..7).map(|_| backoff.next(Duration::from_millis(1)).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        let mut after_two = |first, second| {
            backoff.next(Duration::from_millis(first));
            backoff.next(Duration::from_millis(second)).as_millis()
        };
        assert_eq!(after_two(500, 500), 12_000);
        assert_eq!(after_two(60_000, 60_000), 30_000);
        assert_eq!(after_two(12, 12), 1440);
        assert_eq!(after_two(50, 60), 2000);
        assert_eq!(after_two(1, 60_000), 1000, "one slow poll is not the cost");
        assert_eq!(after_two(60_000, 1), 1000);
        backoff.reset();
        assert_eq!(backoff.next(Duration::from_millis(10)).as_millis(), 50);
        backoff.reset();
        assert_eq!(backoff.next(Duration::from_millis(10)).as_millis(), 240);
    }
}
