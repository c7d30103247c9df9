//! Carries out a plan: on one instance, on all of them together, with the requested waits.

pub mod audit;
pub mod carry_out;
pub mod drain;
pub mod fleet;
pub mod gather;
pub mod instance;
#[cfg(test)]
mod model;
pub mod permit;
pub mod put_back;
pub mod records;
pub mod rollback;
pub mod sessions;
pub mod target;
#[cfg(test)]
mod tests;
pub mod wait;
