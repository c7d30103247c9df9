//! Finds, before anything is sent anywhere, every reason why a change must not be made.

use crate::act::converge::Managed;
use crate::decide::plan::Decision;
use crate::haproxy::parse::Level;
use crate::keep::ownership::Ownership;
use crate::model::error::{Error, ErrorKind};
use crate::model::state::AdminState;
use crate::request::{Change, MinAvailable, Request};

/// Plans the change on all instances, and notes every refusal where it belongs; all of them are found, not the first.
pub fn refuse(request: &Request, change: Change, ownership: &Ownership, managed: &mut [Managed<'_>]) {
    for managed in managed {
        managed.plan(&|_| change);
        managed.error = without_rights(managed);
        if let Some(expected) = request.expect {
            unexpected(expected, managed);
        }
        ownership.refuse(request, managed);
        if let Some(guard) = request.guard {
            guarded(guard, change, managed);
        }
    }
}

/// Refuses what the socket of the instance does not allow.
fn without_rights(managed: &Managed<'_>) -> Option<Error> {
    let needs_rights = managed.planned.iter().any(|planned| matches!(planned.decision, Decision::Change(_)));
    let level = managed.current.level;
    (needs_rights && level != Level::Admin).then(|| {
        let address = &managed.current.address;
        let msg = format!(
            "the socket {address} has the level '{}', but setting servers needs 'admin': write 'stats socket {address} \
             level admin' in the global section of haproxy.cfg and reload HAProxy",
            level.as_str()
        );
        Error::new(ErrorKind::PermissionDenied, msg)
    })
}

/// Refuses to touch servers that are in another state than expected.
fn unexpected(expected: AdminState, managed: &mut Managed<'_>) {
    for outcome in &mut managed.outcomes {
        let server = &outcome.before;
        let is = server.flags.effective();
        if is != expected {
            let msg = format!(
                "{} is in {is}, but 'expect.admin_state' is {expected}; see who has set it, or leave 'expect' out",
                server.full_name()
            );
            let error = Error::new(ErrorKind::ExpectationFailed, msg);
            outcome.error = outcome.error.take().or(Some(error.on_server(&server.backend, &server.server)));
        }
    }
}

/// Refuses to leave a backend with too few usable servers.
fn guarded(guard: MinAvailable, change: Change, managed: &mut Managed<'_>) {
    let mut elsewhere = None;
    for (id, error) in managed.refused_by(guard, &|_| change) {
        let mut is_noted = false;
        for outcome in managed.outcomes.iter_mut().filter(|outcome| outcome.before.backend_id == id) {
            let server = &outcome.before;
            outcome.error = outcome.error.take().or(Some(error.clone().on_server(&server.backend, &server.server)));
            is_noted = true;
        }
        if !is_noted {
            // A backend none of whose servers matched is left with too few because they track one that did.
            elsewhere = elsewhere.or(Some(error));
        }
    }
    managed.error = managed.error.take().or(elsewhere);
}
