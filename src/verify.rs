//! Reads back what a run has set, over a new connection, because a reload may have changed the process behind the
//! socket: what is reported is what this finds.

use std::time::{Duration, Instant};

use crate::error::{ErrorKind, Result};
use crate::name::Address;
use crate::observe::{Process, Server, Wanted, read_back};

/// The pause before a socket that refuses is tried again: HAProxy may be restarting.
const PAUSE: Duration = Duration::from_millis(50);

/// Reads the servers back; one that is gone has no value.
///
/// # Errors
/// As [`read_back`], when the instance has not come back within `timeout`.
pub fn verify(
    address: &Address,
    wanted: Wanted<'_>,
    servers: &[Server],
    backends: usize,
    timeout: Duration,
) -> Result<(Process, Vec<Option<Server>>)> {
    let until = Instant::now() + timeout;
    loop {
        match read_back(address, wanted, servers, backends, timeout) {
            Err(error) if error.kind == ErrorKind::Unreachable && Instant::now() < until => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
}
