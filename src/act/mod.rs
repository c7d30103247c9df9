//! Carries a plan out: on one instance, on all of them together, with the waits that a request asks for.

pub mod apply;
pub mod converge;
pub mod drain;
pub mod fleet;
pub mod refuse;
pub mod rollback;
pub mod verify;
pub mod wait;
