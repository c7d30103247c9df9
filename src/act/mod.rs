//! Carries a plan out: on one instance, on all of them together, with the waits that a request asks for.

pub mod audit;
pub mod carry_out;
pub mod drain;
pub mod fleet;
pub mod gather;
pub mod instance;
pub mod permit;
pub mod put_back;
pub mod records;
pub mod rollback;
pub mod sessions;
pub mod target;
pub mod wait;
