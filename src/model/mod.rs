//! The things the program talks about: names, servers, states, goals and failures. No I/O and no clock.

pub mod error;
pub mod goal;
pub mod matcher;
pub mod memory;
pub mod name;
pub mod server;
pub mod state;
pub mod text;
pub mod traffic;
