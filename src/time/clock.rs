//! The time of day, and the clock of waits.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::interrupt::Interrupt;
use crate::model::error::Result;

/// The clock of a wait: this host's, or one that a test moves on.
pub trait Clock: Debug + Sync {
    /// Returns the time.
    fn now(&self) -> Instant;

    /// Waits, but only until a signal arrives.
    ///
    /// # Errors
    /// Returns the failure that ends the run, once a signal has arrived.
    fn pause(&self, time: Duration, signals: &Interrupt) -> Result<()>;
}

/// The clock of this host.
#[derive(Debug, Clone, Copy)]
pub struct HostClock;

impl Clock for HostClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn pause(&self, time: Duration, signals: &Interrupt) -> Result<()> {
        signals.pause(time)
    }
}

/// Returns the time, in seconds since the epoch.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
