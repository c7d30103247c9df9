//! Finds, before anything is sent anywhere, every reason why a change must not be made.

use std::collections::BTreeMap;

use crate::converge::Managed;
use crate::error::{Error, ErrorKind};
use crate::guard::{self, Member};
use crate::observe::Server;
use crate::ownership::Ownership;
use crate::plan::{Decision, Planned, State, plan};
use crate::request::{Change, MinAvailable, Request};
use crate::runtime::parse::Level;
use crate::state::AdminState;

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

/// Refuses to leave a backend with too few usable servers, counting those that track a server that is changed.
fn guarded(guard: MinAvailable, change: Change, managed: &mut Managed<'_>) {
    let wanted = managed.wanted;
    let is_wanted = |it: &Server| wanted.matches(it.backend.as_bytes(), it.server.as_bytes());
    let all: Vec<Server> = managed.current.servers.iter().chain(&managed.current.others).cloned().collect();
    let planned = plan(&|server: &Server| if is_wanted(server) { change } else { Change::default() }, &all);
    let mut backends: BTreeMap<u32, (&str, Vec<Member>)> = BTreeMap::new();
    for (server, Planned { after, .. }) in all.iter().zip(&planned) {
        let is_backup = server.stat.as_ref().is_some_and(|stat| stat.backup);
        let member = Member { before: State::from(server), after: *after, is_backup };
        backends.entry(server.backend_id).or_insert((&server.backend, Vec::new())).1.push(member);
    }
    let mut elsewhere = None;
    for (id, (name, members)) in backends {
        let Some(error) = guard::refuse(guard, managed.instance.name.as_str(), name, guard::count(&members)) else {
            continue;
        };
        let mut is_noted = false;
        for outcome in managed.outcomes.iter_mut().filter(|outcome| outcome.before.backend_id == id) {
            outcome.error = outcome.error.take().or(Some(error.clone().on_server(name, &outcome.before.server)));
            is_noted = true;
        }
        if !is_noted {
            // A backend none of whose servers matched is left with too few because they track one that did.
            elsewhere = elsewhere.or(Some(error));
        }
    }
    managed.error = managed.error.take().or(elsewhere);
}
