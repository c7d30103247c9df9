//! HAProxy's runtime API: the stats socket, the commands sent to it, and the replies read from it.

pub mod command;
pub mod parse;
pub mod socket;
