//! Every reason not to make a change, except the guard: the rights of the socket, `expect`, owners.

use super::plan::Decision;
use crate::haproxy::open::Contact;
use crate::haproxy::parse::Level;
use crate::model::error::{Error, ErrorKind};
use crate::model::server::Server;
use crate::request::{Claim, Expectation};
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

/// Refuses to change a server that is in another state than expected; one that needs no change may be in any.
#[must_use]
pub fn unexpected(expected: Expectation, server: &Server, decision: &Decision) -> Option<Error> {
    match decision {
        Decision::Change(_) => {}
        Decision::Keep | Decision::Refuse(_) | Decision::Disabled => return None,
    }
    let is = (server.state.flags.effective(), server.state.operational);
    let admin_state = expected.admin_state.filter(|expected| *expected != is.0);
    let operational_state = expected.operational_state.filter(|expected| *expected != is.1);
    let differs = match (admin_state, operational_state) {
        (Some(expected), _) => format!("is in {}, but 'expect.admin_state' is {expected}", is.0),
        (None, Some(expected)) => format!("is {}, but 'expect.operational_state' is {expected}", is.1),
        (None, None) => return None,
    };
    let msg = format!("{} {differs}; find out why, or leave 'expect' out", server.full_name());
    Some(Error::new(ErrorKind::ExpectationFailed, msg).on_server(&server.backend, &server.server))
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
