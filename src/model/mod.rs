//! What is talked about: names, states and failures. No I/O and no clock.

pub mod error;
pub mod name;
pub mod state;
