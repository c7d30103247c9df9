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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::goal::Weight;
    use crate::model::server::Publication;

    /// A server that takes traffic, with a health check.
    fn server() -> Server {
        let example = Server::example();
        let state = ServerState { health: Some(Switch::Enabled), ..example.state };
        let statistics =
            Statistics { status: "UP".to_owned(), check: Some("L7OK".to_owned()), ..Statistics::default() };
        Server { state, statistics: Some(Box::new(statistics)), ..example }
    }

    fn with(change: impl FnOnce(&mut Server, &mut Statistics)) -> Server {
        let mut server = server();
        let mut statistics = server.statistics.take().unwrap();
        change(&mut server, &mut statistics);
        server.statistics = Some(statistics);
        server
    }

    /// What is said about a change of a server to how it is then; the beginnings of the sentences.
    fn said(change: Goal, server: &Server, after: ServerState) -> Vec<String> {
        cautions(&change, server, &after).iter().map(|it| it.chars().take(24).collect()).collect()
    }

    fn to(state: AdminState) -> Goal {
        Goal { state: Some(state), ..Goal::default() }
    }

    #[test]
    fn what_is_set_may_not_be_used() {
        let ready = to(AdminState::Ready);
        let state = server().state;
        let disabled = with(|server, _| server.server_id = 0);
        assert_eq!(said(ready, &disabled, state), ["cannot be set: the backe"]);
        let unpublished = with(|_, statistics| statistics.publication = Publication::Unpublished);
        assert_eq!(said(ready, &unpublished, state), ["no new traffic: the back"]);
        assert_eq!(said(to(AdminState::Drain), &unpublished, state), [""; 0], "it takes none in drain either");
        let weightless = ServerState { weight: 0, ..state };
        assert_eq!(said(ready, &server(), weightless), ["no new traffic: the weig"]);
        assert_eq!(said(Goal { weight: Some(Weight::Absolute(0)), ..ready }, &server(), weightless), [""; 0]);
        assert_eq!(said(ready, &server(), state), [""; 0]);
        let configured = ServerState { flags: AdminFlags(AdminFlags::CONFIG_MAINT), ..state };
        assert_eq!(said(ready, &server(), configured), ["'disabled' in haproxy.cf"], "ready, but only until a reload");
        let out = ServerState { flags: AdminFlags(AdminFlags::CONFIG_MAINT | AdminFlags::FORCED_MAINT), ..state };
        assert_eq!(said(ready, &server(), out), [""; 0], "it has not become ready");
        assert_eq!(said(Goal::default(), &server(), weightless), [""; 0], "nothing is made ready");
    }

    #[test]
    fn an_agent_may_override_what_was_changed() {
        let agent = |flags: u32| {
            let state = ServerState { agent: Some(Switch::Enabled), flags: AdminFlags(flags), ..server().state };
            with(|server, _| server.state = state)
        };
        let expected = "an agent check is runnin";
        let after = agent(0).state;
        assert_eq!(said(to(AdminState::Ready), &agent(AdminFlags::FORCED_MAINT), after), [expected]);
        assert_eq!(said(to(AdminState::Ready), &agent(0), after), [""; 0], "it agrees");
        let out = agent(AdminFlags::FORCED_MAINT);
        assert_eq!(said(to(AdminState::Maint), &agent(0), out.state), [expected]);
        assert_eq!(said(to(AdminState::Maint), &server(), server().state), [""; 0]);
        assert_eq!(said(Goal::default(), &agent(0), after), [""; 0]);
        let paused = ServerState { agent: Some(Switch::Disabled), ..after };
        assert_eq!(said(to(AdminState::Maint), &agent(0), paused), [""; 0]);
    }

    #[test]
    fn a_check_that_is_missing_cannot_be_set() {
        let (health, agent) = (Some(Switch::Disabled), Some(Switch::Enabled));
        let without = ServerState { health: None, agent: None, ..server().state };
        let change = |health, agent| Goal { health, agent, ..Goal::default() };
        assert_eq!(said(change(health, None), &server(), without), ["no health check to set; "]);
        assert_eq!(said(change(None, agent), &server(), without), ["no agent check to set; l"]);
        assert_eq!(said(change(None, None), &server(), without), [""; 0]);
        assert_eq!(said(change(health, None), &server(), server().state), [""; 0]);
    }

    #[test]
    fn a_ready_server_may_take_no_traffic() {
        let in_state = |operational| ServerState { operational, ..server().state };
        let stopped = in_state(OperationalState::Stopped);
        let by_agent = with(|_, statistics| statistics.status = "DOWN (agent)".to_owned());
        let was_out = with(|server, _| server.state.flags = AdminFlags(AdminFlags::FORCED_MAINT));
        let unchecked = |tracked: Option<&str>| {
            with(|server, statistics| {
                server.state.health = None;
                statistics.tracks = tracked.map(str::to_owned);
            })
        };
        for (server, after, expected) in [
            (server(), in_state(OperationalState::Running), None),
            (server(), in_state(OperationalState::Starting), Some("a growing share of traff")),
            (server(), in_state(OperationalState::Stopping), Some("no new traffic: the heal")),
            (by_agent, stopped, Some("no traffic although ready: the agent")),
            (was_out, stopped, Some("no traffic before its health")),
            (server(), stopped, Some("no traffic although ready: the health")),
            (unchecked(Some("web/main")), stopped, Some("no traffic although ready: the tracked")),
            (unchecked(None), stopped, Some("no traffic although ready, and no health")),
        ] {
            let said = cautions(&to(AdminState::Ready), &server, &after);
            let is_it = |said: &&str| expected.is_some_and(|expected| said.starts_with(expected));
            assert_eq!(said.iter().filter(|said| is_it(said)).count(), said.len(), "{said:?}");
            assert_eq!(said.len(), usize::from(expected.is_some()), "{said:?}");
        }
    }

    #[test]
    fn a_status_says_why_a_server_takes_no_traffic() {
        let out = |flags: u32| with(|server, _| server.state.flags = AdminFlags(flags));
        let tracking = |flags: u32| {
            with(|server, statistics| {
                server.state.flags = AdminFlags(flags);
                statistics.tracks = Some("web/main".to_owned());
            })
        };
        let spare = with(|server, _| {
            server.state.flags = AdminFlags(AdminFlags::DNS_MAINT);
            server.has_address = false;
        });
        let (maint, drain) = (AdminFlags::FORCED_MAINT, AdminFlags::FORCED_DRAIN);
        let (configured, dns) = (AdminFlags::CONFIG_MAINT, AdminFlags::DNS_MAINT);
        for (server, owner, expected) in [
            (server(), None, None),
            (with(|server, _| server.server_id = 0), None, Some("backend disabled")),
            (
                with(|_, statistics| statistics.publication = Publication::Unpublished),
                None,
                Some("backend unpublished"),
            ),
            (spare, None, Some("spare slot")),
            (out(dns), None, Some("name not resolved")),
            (out(dns | AdminFlags::FQDN_CHANGED), None, Some("name not resolved")),
            (out(dns | maint), None, Some("maintenance")),
            (out(configured), None, None),
            (out(configured | maint), None, Some("disabled in haproxy.cfg")),
            (out(configured | maint), Some("ops"), Some("maintenance by ops")),
            (out(maint), None, Some("maintenance")),
            (out(maint), Some("ops"), Some("maintenance by ops")),
            (tracking(AdminFlags::INHERITED_MAINT), Some("ops"), Some("maintenance of web/main, which it tracks")),
            (tracking(maint), None, Some("maintenance")),
            (tracking(maint), Some("ops"), Some("maintenance by ops")),
            (out(drain), Some("ops"), Some("drain by ops")),
            (out(drain), None, Some("drain")),
            (with(|server, _| server.state.operational = OperationalState::Stopping), None, Some("check answers 404")),
            (with(|server, _| server.state.weight = 0), None, Some("weight 0")),
        ] {
            assert_eq!(not_ok(&server, owner).as_deref(), expected, "{:?} {owner:?}", server.state);
        }
    }

    #[test]
    fn a_status_says_why_a_server_is_down() {
        let down = |change: &dyn Fn(&mut Server, &mut Statistics)| {
            with(|server, statistics| {
                server.state.operational = OperationalState::Stopped;
                statistics.status = "DOWN".to_owned();
                statistics.check = Some("L7STS".to_owned());
                change(server, statistics);
            })
        };
        for (server, expected) in [
            (down(&|_, statistics| statistics.check_code = Some(503)), "check failed: L7STS 503"),
            (down(&|_, statistics| statistics.check_code = Some(0)), "check failed: L7STS"),
            (down(&|_, _| {}), "check failed: L7STS"),
            (
                down(&|_, statistics| statistics.check = Some("L7OK".to_owned())),
                "check has not passed often enough: L7OK",
            ),
            (down(&|_, statistics| statistics.check = Some("INI".to_owned())), "no check has passed yet"),
            (down(&|_, statistics| statistics.check = None), "down"),
            (down(&|server, _| server.state.health = None), "down"),
            (down(&|_, statistics| statistics.status = "DOWN (agent)".to_owned()), "agent keeps it down"),
            (
                down(&|_, statistics| statistics.tracks = Some("web/main".to_owned())),
                "web/main is down, which it tracks",
            ),
        ] {
            assert_eq!(not_ok(&server, None).as_deref(), Some(expected), "{:?}", server.statistics);
        }
        assert_eq!(why_down(&server(), None), "down");
    }
}
