//! Carries a plan out: on one instance, on all of them together, with the waits that a request asks for.

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
