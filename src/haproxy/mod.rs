//! HAProxy's runtime API: the stats socket, the commands sent to it, the replies read from it, and what they add up to.

pub mod command;
pub mod observe;
pub mod old_processes;
pub mod parse;
pub mod socket;
