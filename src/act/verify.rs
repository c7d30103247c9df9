//! Reads back what a run has set, over a new connection, because a reload may have changed the process behind the
//! socket: what is reported is what this finds.

use std::time::Duration;

use crate::haproxy::observe::{Process, Server, Wanted, read_back};
use crate::model::error::Result;
use crate::model::name::Address;
use crate::time::deadline::patiently;

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
