//! Reads back what a run has set, over a new connection, because a reload may have changed the process behind the
//! socket: what is reported is what this finds.

use std::time::Duration;

use crate::deadline::patiently;
use crate::error::Result;
use crate::name::Address;
use crate::observe::{Process, Server, Wanted, read_back};

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
    patiently(timeout, || read_back(address, wanted, servers, backends, timeout))
}
