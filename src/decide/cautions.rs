//! Reasons why a server is not used as its state says: warnings, not failures.

use crate::model::goal::{Goal, Switch};
use crate::model::server::{Server, ServerState};
use crate::model::state::{AdminFlags, AdminState, OperationalState};

/// The warning about a ready server that its configuration disables.
pub const READY_UNTIL_RELOAD: &str =
    "'disabled' in haproxy.cfg: ready until the next reload only; remove it there as well, or use a 'state_file'";

/// Why the state of a server may not last.
const AGENT: &str = "an agent check is running, which may override the state at any time; add 'agent': 'disabled', or 'wait' to notice it";

/// Says why a server is not used as its state says, in words that continue "`servers` …".
#[must_use]
pub fn caution(change: &Goal, server: &Server, after: &ServerState) -> Option<&'static str> {
    if server.is_in_disabled_backend() {
        return Some("cannot be set: the backend is disabled and takes no traffic; enable it in haproxy.cfg");
    }
    match change.state {
        Some(AdminState::Ready) if after.flags.effective() == AdminState::Ready => {
            if let Some(caution) = not_serving(server, after) {
                return Some(caution);
            }
            if after.flags.has(AdminFlags::CONFIG_MAINT) {
                return Some(READY_UNTIL_RELOAD);
            }
            // If it was ready before, the agent agrees.
            (after.agent == Some(Switch::Enabled) && server.state.flags.forced() != Some(AdminState::Ready))
                .then_some(AGENT)
        }
        Some(_) if after.agent == Some(Switch::Enabled) => Some(AGENT),
        Some(_) | None => None,
    }
}

/// Says which requested check a server lacks, in the words of [`caution`].
#[must_use]
pub fn check_caution(change: &Goal, after: &ServerState) -> Option<&'static str> {
    match (change.health, after.health, change.agent, after.agent) {
        (Some(_), None, _, _) => Some("no health check to set; leave 'health' out, or add 'check' in haproxy.cfg"),
        (_, _, Some(_), None) => Some("no agent check to set; leave 'agent' out, or add 'agent-check' in haproxy.cfg"),
        _ => None,
    }
}

/// Says why a ready server takes no traffic, or less than its share.
fn not_serving(server: &Server, after: &ServerState) -> Option<&'static str> {
    match after.operational {
        _ if after.weight == 0 => Some("no new traffic: the weight is 0; set 'weight' as well"),
        OperationalState::Running => None,
        OperationalState::Starting => Some("a growing share of traffic only: slowstart is in progress"),
        OperationalState::Stopping => Some("no new traffic: the health check answers 404 (disable-on-404)"),
        OperationalState::Stopped if server.has_check() => {
            Some("no traffic although ready: the health check fails; check the server itself")
        }
        OperationalState::Stopped if server.tracks().is_some() => {
            Some("no traffic although ready: the tracked server is down; check that one")
        }
        OperationalState::Stopped => Some(
            "no traffic although ready, and no health check that could find it up (HAProxy has kept it down from before a \
             reload or by 'set server health'); set it to maint and then to ready",
        ),
    }
}
