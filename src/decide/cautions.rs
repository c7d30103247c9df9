//! Reasons why a server is not used as its state says: warnings, not failures.

use crate::model::goal::{Goal, Switch};
use crate::model::server::{Server, ServerState, Statistics};
use crate::model::state::{AdminFlags, AdminState, OperationalState};
use crate::model::traffic::Obstacle;

/// The warning about a ready server that its configuration disables.
pub const READY_UNTIL_RELOAD: &str =
    "'disabled' in haproxy.cfg: ready until the next reload only; remove it there as well, or use a 'state_file'";

/// Why the state of a server may not last.
const AGENT: &str = "an agent check is running, which may override the state at any time; add 'agent': 'disabled', or 'wait' to notice it";

/// Says why a server is not used as its state says, in words that continue "`servers` …".
#[must_use]
pub fn cautions(change: &Goal, server: &Server, after: &ServerState) -> Vec<&'static str> {
    if server.is_in_disabled_backend() {
        return vec!["cannot be set: the backend is disabled and takes no traffic; enable it in haproxy.cfg"];
    }
    let mut cautions = Vec::new();
    let has_agent = after.agent == Some(Switch::Enabled);
    match change.state {
        Some(AdminState::Ready) if after.flags.effective() == AdminState::Ready => {
            if server.is_in_unpublished_backend() {
                cautions.push("no new traffic: the backend is unpublished; send HAProxy 'publish backend' for it");
            }
            // A requested weight needs no warning.
            if after.weight == 0 && change.weight.is_none() {
                cautions.push("no new traffic: the weight is 0; set 'weight' as well");
            }
            cautions.extend(not_running(server, after));
            if after.flags.has(AdminFlags::CONFIG_MAINT) {
                cautions.push(READY_UNTIL_RELOAD);
            }
            // If it was ready before, the agent agrees.
            if has_agent && server.state.flags.forced() != Some(AdminState::Ready) {
                cautions.push(AGENT);
            }
        }
        Some(_) if has_agent => cautions.push(AGENT),
        Some(_) | None => {}
    }
    cautions.extend(check_caution(change, after));
    cautions
}

/// Says in a few words why a server takes no traffic; `None` if it does.
#[must_use]
pub fn not_ok(server: &Server, owner: Option<&str>) -> Option<String> {
    let flags = server.state.flags;
    let by = |what: &str| match (owner, server.tracks()) {
        (Some(owner), _) if flags.commanded() != 0 => format!("{what} by {owner}"),
        (_, Some(tracked)) if flags.commanded() == 0 => format!("{what} of {tracked}, which it tracks"),
        (Some(_) | None, Some(_) | None) => what.to_owned(),
    };
    Some(match server.obstacle_in(&server.state)? {
        Obstacle::BackendDisabled => "backend disabled".to_owned(),
        Obstacle::BackendUnpublished => "backend unpublished".to_owned(),
        Obstacle::Maint if server.is_spare() => "spare slot".to_owned(),
        Obstacle::Maint if flags.0 & !AdminFlags::FQDN_CHANGED == AdminFlags::DNS_MAINT => {
            "name not resolved".to_owned()
        }
        Obstacle::Maint if flags.has(AdminFlags::CONFIG_MAINT) && owner.is_none() => {
            "disabled in haproxy.cfg".to_owned()
        }
        Obstacle::Maint => by("maintenance"),
        Obstacle::Drain => by("drain"),
        Obstacle::Down => why_down(server, server.statistics.as_deref()),
        Obstacle::Stopping => "check answers 404".to_owned(),
        Obstacle::NoWeight => "weight 0".to_owned(),
    })
}

/// Says in a few words why a server is down.
#[must_use]
pub fn why_down(server: &Server, statistics: Option<&Statistics>) -> String {
    let Some(statistics) = statistics else { return "down".to_owned() };
    if statistics.is_down_by_agent() {
        return "agent keeps it down".to_owned();
    }
    if let Some(tracked) = &statistics.tracks {
        return format!("{tracked} is down, which it tracks");
    }
    match &statistics.check {
        Some(check) if server.has_check() && check.contains("OK") => {
            format!("check has not passed often enough: {check}")
        }
        Some(check) if server.has_check() && check == "INI" => "no check has passed yet".to_owned(),
        Some(check) if server.has_check() => {
            // HAProxy shows 0 while the next check is running.
            let code =
                statistics.check_code.filter(|code| *code != 0).map(|code| format!(" {code}")).unwrap_or_default();
            format!("check failed: {check}{code}")
        }
        Some(_) | None => "down".to_owned(),
    }
}

/// Says which requested check a server lacks, in the words of [`cautions`].
fn check_caution(change: &Goal, after: &ServerState) -> Option<&'static str> {
    match (change.health, after.health, change.agent, after.agent) {
        (Some(_), None, _, _) => Some("no health check to set; leave 'health' out, or add 'check' in haproxy.cfg"),
        (_, _, Some(_), None) => Some("no agent check to set; leave 'agent' out, or add 'agent-check' in haproxy.cfg"),
        _ => None,
    }
}

/// Says why a ready server takes no traffic, or less than its share, because of its checks.
fn not_running(server: &Server, after: &ServerState) -> Option<&'static str> {
    let was_in_maint = server.state.flags.effective() == AdminState::Maint;
    match after.operational {
        OperationalState::Running => None,
        OperationalState::Starting => Some("a growing share of traffic only: slowstart is in progress"),
        OperationalState::Stopping => Some("no new traffic: the health check answers 404 (disable-on-404)"),
        OperationalState::Stopped if server.statistics.as_deref().is_some_and(Statistics::is_down_by_agent) => Some(
            "no traffic although ready: the agent keeps it down; correct what the agent answers, or give 'agent': 'disabled' too",
        ),
        OperationalState::Stopped if server.has_check() && was_in_maint => {
            Some("no traffic before its health check has passed; 'wait' waits for that")
        }
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
