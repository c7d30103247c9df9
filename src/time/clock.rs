//! The time of day.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the time, in seconds since the epoch.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
