//! Time in waits: one deadline for all, and pauses between polls that keep polling cheap for HAProxy.

use std::time::{Duration, Instant};

use super::clock::{Clock, HostClock};
use crate::model::error::{ErrorKind, Result};

/// Shows a person the progress of a long wait.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// The pause before the second poll, and the longest one.
const FIRST: Duration = Duration::from_millis(50);
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

/// Repeats a read until HAProxy can be reached and answers completely: it may be restarting.
///
/// # Errors
/// Returns the last failure when the limit is over.
pub fn patiently<T>(limit: Duration, mut read: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Deadline::after(limit);
    loop {
        match read() {
            Err(error) if (error.kind == ErrorKind::Unreachable || error.is_cut_off) && !deadline.is_over() => {
                std::thread::sleep(AGAIN);
            }
            result => return result,
        }
    }
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

/// The pauses between polls, which double up to a second, or up to two if a poll takes more than a moment.
#[derive(Debug, Default)]
pub struct Backoff {
    polls: u32,
}

impl Backoff {
    /// The next pause, after a poll that took this long.
    pub fn next(&mut self, poll: Duration) -> Duration {
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
        assert_eq!(backoff.next(Duration::from_millis(500)).as_secs(), 12);
        assert_eq!(backoff.next(Duration::from_secs(60)).as_secs(), 30);
        assert_eq!(backoff.next(Duration::from_millis(12)).as_millis(), 1440);
        assert_eq!(backoff.next(Duration::from_millis(50)).as_millis(), 2000);
        backoff.reset();
        assert_eq!(backoff.next(Duration::from_millis(10)).as_millis(), 240);
    }
}
