//! Takes HAProxy backend servers out of service and puts them back.
//!
//! A run reads one [request], finds the HAProxy instances of this host ([`discover`]), observes all of them side by side
//! ([`haproxy`]), decides what to send to each server ([`decide`]), sends it, reads it back ([`act`]) and [reports](report):
//! see [`pipeline::run`]. Each module uses only those listed below it. `ARCHITECTURE.md` has the map and the invariants.
#![warn(missing_docs)]

pub mod pipeline;

pub mod report;

pub mod act;
pub mod decide;
pub mod discover;
pub mod haproxy;
pub mod keep;
pub mod model;
pub mod request;
pub mod time;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

#[cfg(test)]
mod schema;
