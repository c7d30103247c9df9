//! HAProxy's runtime API: the sockets, the commands sent to them, the replies read from them, and the observations made
//! from them.

pub mod client;
pub mod command;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guarded;
pub mod observe;
pub mod old_processes;
pub mod open;
pub mod parse;
mod rows;
mod sessions;
pub mod socket;
mod statistics;
mod tracking;

use self::parse::ParseError;
use crate::model::error::{Error, ErrorKind};
use crate::model::name::Address;

/// Makes the error for an unexpected reply.
fn not_understood(address: &Address, error: &ParseError) -> Error {
    Error::new(ErrorKind::BadReply, format!("the HAProxy at {address} gave an unexpected answer: {error}"))
}
