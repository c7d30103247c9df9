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
