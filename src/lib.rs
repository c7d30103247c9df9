//! Takes HAProxy backend servers out of service and puts them back.
//!
//! A run reads one [request](mod@request), finds the HAProxy [instances] of this host, [observes](observe) all of them
//! side by side, [plans](plan) what is to be sent to each server, and only then [applies](apply) it, [reads it
//! back](verify) and [reports](report): see [`pipeline::run`]. `ARCHITECTURE.md` has the map and the invariants.
#![warn(missing_docs)]

// In reading order.
pub mod pipeline;

pub mod error;
pub mod name;
pub mod request;
pub mod state;

pub mod discover;
pub mod instances;
pub mod observe;

pub mod guard;
pub mod missing;
pub mod plan;
pub mod refuse;

pub mod apply;
pub mod converge;
pub mod verify;

pub mod deadline;
pub mod drain;
pub mod exclusion;
pub mod fleet;
pub mod old_workers;
pub mod ownership;
pub mod persist;
pub mod rollback;
pub mod wait;

pub mod report;

pub mod interrupt;
pub mod keep;
pub mod runtime;
pub mod side_by_side;

#[cfg(test)]
mod schema;
