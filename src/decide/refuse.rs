//! Every reason not to make a change, except the guard: the rights of the socket, `expect`, owners.

use crate::haproxy::open::Contact;
use crate::haproxy::parse::Level;
use crate::model::error::{Error, ErrorKind};
use crate::model::server::Server;
use crate::model::state::AdminState;
use crate::request::Claim;
use crate::time::expiry;

/// Refuses to set servers through a socket that does not allow it.
#[must_use]
pub fn without_rights(contact: &Contact) -> Option<Error> {
    let address = &contact.address;
    let msg = format!(
        "the socket {address} has the level '{}', but setting servers needs 'admin': write 'stats socket {address} level \
         admin' in the global section of haproxy.cfg and reload HAProxy",
        contact.level.as_str()
    );
    (contact.level != Level::Admin).then(|| Error::new(ErrorKind::PermissionDenied, msg))
}

/// Refuses to touch a server in an unexpected state.
#[must_use]
pub fn unexpected(expected: AdminState, server: &Server) -> Option<Error> {
    let is = server.state.flags.effective();
    let msg = format!(
        "{} is in {is}, but 'expect.admin_state' is {expected}; find out who set it, or leave 'expect' out",
        server.full_name()
    );
    let error = || Error::new(ErrorKind::ExpectationFailed, msg).on_server(&server.backend, &server.server);
    (is != expected).then(error)
}

/// Refuses to put back a server that somebody else has taken out, until the record has expired.
#[must_use]
pub fn owned(recorded: &Claim, claimant: Option<&str>, now: u64, server: &Server) -> Option<Error> {
    let owner = recorded.owner.as_deref().filter(|owner| Some(*owner) != claimant && !recorded.is_expired(now))?;
    let reason = recorded.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let until = recorded.expires.map(|at| format!(" until {}", expiry::render(at))).unwrap_or_default();
    let msg = format!(
        "{} was taken out by {owner}{reason}{until}; ask first, or set 'ignore_owner': true",
        server.full_name()
    );
    Some(Error::new(ErrorKind::Owned, msg).on_server(&server.backend, &server.server))
}
