//! Says why a server is not, or cannot be, in the requested state.

use crate::model::error::{Error, ErrorKind};
use crate::model::goal::{Goal, SpareSlots, Switch, Weight};
use crate::model::server::Server;
use crate::model::state::AdminFlags;

/// Says why no command leads to the requested state, if that is so.
pub(super) fn unreachable(goal: &Goal, server: &Server, after: AdminFlags) -> Option<Error> {
    let requested = goal.state.filter(|requested| after.effective() != *requested)?;
    // Nothing but the address is missing then.
    if goal.spare_slots == SpareSlots::Skip && server.would_be_spare(after) {
        return None;
    }
    let name = server.full_name();
    let stays = after.effective();
    let why = if after.has(AdminFlags::DNS_MAINT) {
        "its name does not resolve; fix the DNS records or the resolvers section, and it leaves maintenance on its own"
            .to_owned()
    } else {
        let target = server.tracks().unwrap_or("another server");
        format!("it tracks {target}, which is in {stays}; set {target} as well, or first")
    };
    let msg = format!("{name} cannot be set to {requested}, it stays in {stays}: {why}");
    Some(of(ErrorKind::UnreachableState, server, &msg))
}

/// Says why a percentage of its configured weight would unintentionally take a server out of service, if that is so.
pub(super) fn vanishing(requested: Weight, server: &Server) -> Option<Error> {
    let configured = server.configured_weight;
    let percent = match requested {
        Weight::Percent(percent) if percent > 0 && requested.of(configured) == 0 => percent,
        Weight::Percent(_) | Weight::Absolute(_) => return None,
    };
    let name = server.full_name();
    let msg = format!(
        "{name}: {percent}% of a configured weight of {configured} is 0, which takes no new traffic; configure `weight 100` or \
         give a number (0 or \"0%\" where that is meant)"
    );
    Some(of(ErrorKind::UnreachableState, server, &msg))
}

/// Says why a server that was set is not as requested when it is read back, if that is so.
#[must_use]
pub fn shortfall(goal: &Goal, server: &Server) -> Option<Error> {
    if server.is_in_disabled_backend() {
        return None;
    }
    let state = &server.state;
    if let Some(requested) = goal.state {
        if state.flags.forced() == Some(requested) {
            let unreachable = unreachable(goal, server, state.flags);
            if unreachable.is_some() {
                return unreachable;
            }
        } else {
            let (name, is) = (server.full_name(), state.flags.effective());
            let msg = format!("{name} was set to {requested}, but was read back in {is}: {}", who_overrides_it(server));
            return Some(of(ErrorKind::Overridden, server, &msg));
        }
    }
    let vanishing = goal.weight.and_then(|weight| vanishing(weight, server));
    if vanishing.is_some() {
        return vanishing;
    }
    let who = if server.has_agent() { "its agent check" } else { "somebody else" };
    let weight = goal.weight.map(|weight| weight.of(server.configured_weight)).filter(|weight| *weight != state.weight);
    let differs = |asked: Option<Switch>, is: Option<Switch>| asked.is_some() && is.is_some() && asked != is;
    let what = if let Some(weight) = weight {
        format!("was given the weight {weight}, but was read back with {}: {who} sets the weight as well", state.weight)
    } else if differs(goal.health, state.health) {
        format!("had its health check set, but it was read back differently: {who} sets it as well")
    } else if differs(goal.agent, state.agent) {
        format!("had its agent check set, but it was read back differently: {who} sets it as well")
    } else {
        return None;
    };
    Some(of(ErrorKind::Overridden, server, &format!("{} {what}", server.full_name())))
}

/// Says who else changes a server, and what to do about it.
#[must_use]
pub fn who_overrides_it(server: &Server) -> &'static str {
    if server.has_agent() {
        "its agent check sets the state as well; give 'agent': 'disabled' too, or correct what the agent answers"
    } else {
        "somebody else has set it in the meantime; find out who, and run this again"
    }
}

fn of(kind: ErrorKind, server: &Server, msg: &str) -> Error {
    Error::new(kind, msg).on_server(&server.backend, &server.server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::server::{ServerState, Statistics};
    use crate::model::state::AdminState;

    fn server(flags: u32) -> Server {
        let example = Server::example();
        let state = ServerState { flags: AdminFlags(flags), health: Some(Switch::Enabled), ..example.state };
        Server { state, configured_weight: 1, ..example }
    }

    fn with_agent(server: Server) -> Server {
        Server { state: ServerState { agent: Some(Switch::Enabled), ..server.state }, ..server }
    }

    fn said(goal: &Goal, server: &Server) -> String {
        shortfall(goal, server).map(|error| format!("{}: {}", error.kind, error.msg)).unwrap_or_default()
    }

    fn state(state: AdminState) -> Goal {
        Goal { state: Some(state), ..Goal::default() }
    }

    #[test]
    fn a_server_that_is_as_requested_lacks_nothing() {
        for (goal, server) in [
            (state(AdminState::Ready), server(0)),
            (state(AdminState::Maint), server(AdminFlags::FORCED_MAINT)),
            (state(AdminState::Drain), server(AdminFlags::FORCED_DRAIN)),
            (state(AdminState::Drain), Server { server_id: 0, ..server(0) }),
            (Goal { weight: Some(Weight::Absolute(1)), health: Some(Switch::Enabled), ..Goal::default() }, server(0)),
            // Nothing is lacking of an agent that is not configured.
            (Goal { agent: Some(Switch::Disabled), ..Goal::default() }, server(0)),
        ] {
            assert_eq!(said(&goal, &server), "", "{goal:?}");
        }
    }

    #[test]
    fn what_somebody_else_has_set_is_named() {
        let somebody = "somebody else has set it in the meantime; find out who, and run this again";
        assert_eq!(
            said(&state(AdminState::Maint), &server(0)),
            format!("overridden: b/s was set to maint, but was read back in ready: {somebody}")
        );
        let by_agent = said(&state(AdminState::Ready), &with_agent(server(AdminFlags::FORCED_DRAIN)));
        assert!(by_agent.contains("read back in drain: its agent check sets the state as well"), "{by_agent}");
        let weight = Goal { weight: Some(Weight::Absolute(7)), ..Goal::default() };
        let given = "overridden: b/s was given the weight 7, but was read back with 1:";
        assert_eq!(said(&weight, &server(0)), format!("{given} somebody else sets the weight as well"));
        assert_eq!(said(&weight, &with_agent(server(0))), format!("{given} its agent check sets the weight as well"));
        let health = said(&Goal { health: Some(Switch::Disabled), ..Goal::default() }, &server(0));
        assert!(
            health.starts_with("overridden: b/s had its health check set, but it was read back differently"),
            "{health}"
        );
        let agent = said(&Goal { agent: Some(Switch::Disabled), ..Goal::default() }, &with_agent(server(0)));
        assert!(
            agent.starts_with("overridden: b/s had its agent check set, but it was read back differently"),
            "{agent}"
        );
    }

    #[test]
    fn what_no_command_can_reach_is_told_with_the_reason() {
        let tracks = |target: Option<&str>| {
            let statistics = Statistics { tracks: target.map(str::to_owned), ..Statistics::default() };
            Server { statistics: Some(Box::new(statistics)), ..server(AdminFlags::INHERITED_MAINT) }
        };
        let ready = state(AdminState::Ready);
        let stays = "unreachable_state: b/s cannot be set to ready, it stays in maint:";
        assert_eq!(
            said(&ready, &tracks(Some("b/t"))),
            format!("{stays} it tracks b/t, which is in maint; set b/t as well, or first")
        );
        assert!(said(&ready, &tracks(None)).contains("it tracks another server, which is in maint"));
        let unresolved = said(&ready, &server(AdminFlags::DNS_MAINT));
        assert!(unresolved.starts_with(&format!("{stays} its name does not resolve")), "{unresolved}");
        // A spare slot is nobody's failure, unless it is named.
        let spare = Server { has_address: false, ..server(AdminFlags::DNS_MAINT) };
        assert_eq!(said(&Goal { spare_slots: SpareSlots::Skip, ..ready }, &spare), "");
        assert!(said(&ready, &spare).starts_with(stays));
        assert!(
            said(&Goal { spare_slots: SpareSlots::Skip, ..ready }, &server(AdminFlags::DNS_MAINT)).starts_with(stays)
        );
    }

    #[test]
    fn a_share_that_comes_to_nothing_is_refused_unless_it_is_meant() {
        let half = Goal { weight: Some(Weight::Percent(50)), ..Goal::default() };
        let weightless = |configured| {
            let example = server(0);
            Server { configured_weight: configured, state: ServerState { weight: 0, ..example.state }, ..example }
        };
        let refused = said(&half, &weightless(1));
        assert!(refused.starts_with("unreachable_state: b/s: 50% of a configured weight of 1 is 0"), "{refused}");
        assert_eq!(said(&Goal { weight: Some(Weight::Percent(0)), ..Goal::default() }, &weightless(1)), "");
        assert_eq!(said(&Goal { weight: Some(Weight::Absolute(0)), ..Goal::default() }, &weightless(1)), "");
        assert!(vanishing(Weight::Percent(50), &weightless(2)).is_none());
    }
}
