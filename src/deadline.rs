//! Time in waits: one deadline for all, and pauses between looks that cost HAProxy next to nothing.

use std::time::{Duration, Instant};

/// The pause before the second look, and the longest one.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// What HAProxy spends on telling the statistics of one server, times 20: at this pace a look takes 5 % of its time.
const FOR_EACH_SERVER: Duration = Duration::from_micros(2_500);

/// The end of a wait.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    end: Instant,
}

impl Deadline {
    /// Starts a wait.
    #[must_use]
    pub fn after(total: Duration) -> Self {
        Self { end: Instant::now() + total }
    }

    /// The time that is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// The time that is left, for a person: in seconds, as long as any is left not none.
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

/// The pauses between looks, which double up to a second.
#[derive(Debug, Default)]
pub struct Backoff {
    looks: u32,
}

impl Backoff {
    /// The next pause, when so many servers are looked at on the instance that has the most of them.
    pub fn next(&mut self, servers: usize) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.looks.min(10)).min(LONGEST);
        self.looks += 1;
        doubled.max(FOR_EACH_SERVER.saturating_mul(u32::try_from(servers).unwrap_or(u32::MAX)))
    }

    /// Starts again with short pauses, because something has moved.
    pub fn reset(&mut self) {
        self.looks = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_with_the_servers() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..7).map(|_| backoff.next(10).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.next(10_000).as_secs(), 25);
    }
}
