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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::haproxy::command::Action;
    use crate::haproxy::socket::Door;
    use crate::model::name::Address;
    use crate::model::server::{Process, Start};
    use crate::model::state::{AdminState, OperationalState};

    #[test]
    fn only_an_admin_socket_sets_servers() {
        let contact = |level| Contact {
            address: Address::parse("/run/haproxy/http.sock").unwrap(),
            addresses: [].into(),
            door: Door::Stats,
            process: Process::new("3.2.4", 7, Start::At(1), (0, Instant::now())),
            level,
            peer: None,
        };
        assert!(without_rights(&contact(Level::Admin)).is_none());
        for (level, name) in [(Level::Operator, "'operator'"), (Level::User, "'user'")] {
            let error = without_rights(&contact(level)).unwrap();
            assert_eq!(error.kind, ErrorKind::PermissionDenied);
            assert!(error.msg.contains(name) && error.msg.contains("/run/haproxy/http.sock level admin"), "{error}");
        }
    }

    #[test]
    fn a_server_that_would_change_must_be_as_expected() {
        let server = Server::example();
        let change = Decision::Change([Some(Action::State(AdminState::Maint)), None, None, None, None]);
        let said = |admin_state, operational_state, decision: &Decision| {
            let expected = Expectation { admin_state, operational_state };
            unexpected(expected, &server, decision).map(|error| error.msg.clone()).unwrap_or_default()
        };
        let (ready, drain) = (Some(AdminState::Ready), Some(AdminState::Drain));
        let (running, stopped) = (Some(OperationalState::Running), Some(OperationalState::Stopped));
        assert_eq!(said(None, None, &change), "");
        assert_eq!(said(ready, running, &change), "");
        assert_eq!(said(drain, stopped, &Decision::Keep), "");
        assert_eq!(said(drain, None, &Decision::Disabled), "");
        let advice = "; find out why, or leave 'expect' out";
        assert_eq!(
            said(drain, running, &change),
            format!("b/s is in ready, but 'expect.admin_state' is drain{advice}")
        );
        assert_eq!(
            said(ready, stopped, &change),
            format!("b/s is running, but 'expect.operational_state' is stopped{advice}")
        );
    }

    #[test]
    fn what_somebody_has_taken_out_is_theirs_until_it_expires() {
        let claim = |owner: Option<&str>, reason: Option<&str>, expires| Claim {
            owner: owner.map(str::to_owned),
            reason: reason.map(str::to_owned),
            expires,
        };
        let said = |recorded: &Claim, claimant| {
            owned(recorded, claimant, 1_000, &Server::example()).map(|error| error.msg.clone()).unwrap_or_default()
        };
        let alice = claim(Some("alice"), None, None);
        let ask = "ask first, or set 'ignore_owner': true";
        assert_eq!(said(&alice, None), format!("b/s was taken out by alice; {ask}"));
        assert_eq!(said(&alice, Some("bob")), format!("b/s was taken out by alice; {ask}"));
        assert_eq!(said(&alice, Some("alice")), "");
        assert_eq!(said(&claim(None, Some("new disk"), None), Some("bob")), "");
        let until = claim(Some("alice"), Some("new disk"), Some(1_060));
        assert_eq!(
            said(&until, None),
            format!("b/s was taken out by alice (new disk) until 1970-01-01T00:17:40Z; {ask}")
        );
        assert_eq!(said(&claim(Some("alice"), None, Some(940)), None), "");
    }
}
