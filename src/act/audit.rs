//! Which changes of a run the system log is told of, and when.

use super::fleet::Fleet;
use super::target::{Delivery, Target, Undo};
use crate::keep::audit::{Entry, Fate};
use crate::model::goal::Switch;
use crate::model::server::ServerState;

/// When in a run the system log is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Something was set, and more is to come, as after a drain.
    UnderWay,
    /// Nothing more is done.
    End,
}

/// Tells the system log what has become of each server since it was told last.
pub fn log_changes(fleet: &mut Fleet<'_>, moment: Moment) {
    let Fleet { instances, audit, .. } = fleet;
    let Some(mut log) = audit.open() else { return };
    for instance in instances {
        for target in &mut instance.targets {
            let Some(change) = change(target, moment) else { continue };
            log.write(&Entry {
                fate: change.fate,
                instance: instance.site.name.as_str(),
                server: &target.before.full_name(),
                from: &change.from,
                to: &change.to,
                error: target.error().filter(|_| moment == Moment::End),
            });
            target.logged = target.settled().copied();
        }
    }
}

/// What has become of a server since the system log was told last.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    fate: Fate,
    from: String,
    to: String,
}

fn change(target: &Target, moment: Moment) -> Option<Change> {
    let is_sent = |delivery: Delivery| match delivery {
        Delivery::Accepted | Delivery::Refused | Delivery::Unanswered | Delivery::Outlived => true,
        Delivery::Foreseen => false,
    };
    if !target.sent.iter().any(|sent| is_sent(sent.reply)) {
        return None;
    }
    let last = target.logged.unwrap_or(target.before.state);
    let between = |fate: Fate, from: &ServerState, to: Option<&ServerState>| {
        let to_or_from = to.unwrap_or(from);
        Change {
            fate,
            from: shown(from, to_or_from),
            to: to.map_or_else(|| "unknown".to_owned(), |to| shown(to, from)),
        }
    };
    let settled = target.settled().filter(|settled| !settled.is_set_as(&last));
    let changed = settled.map(|settled| between(Fate::Changed, &last, Some(settled)));
    match (moment, &target.undo) {
        (Moment::UnderWay, _) => changed.filter(|_| !target.is_open()),
        (Moment::End, _) if target.is_open() => Some(between(Fate::Unknown, &last, None)),
        (Moment::End, Some(Undo::Done)) => {
            let unknown = || Change { from: "unknown".to_owned(), ..between(Fate::RolledBack, &last, Some(&last)) };
            let rolled_back = settled.map(|settled| between(Fate::RolledBack, &last, Some(settled)));
            Some(rolled_back.unwrap_or_else(unknown))
        }
        (Moment::End, Some(Undo::Failed(_))) => {
            Some(between(Fate::NotRolledBack, &last, target.after().map(|server| &server.state)))
        }
        (Moment::End, Some(Undo::LeftAlone(_)) | None) if target.error().is_some() => {
            Some(between(Fate::Failed, &last, target.after().map(|server| &server.state)))
        }
        (Moment::End, Some(Undo::LeftAlone(_)) | None) => changed,
    }
}

/// Writes what commands set on a server: its state, and of the rest what differs.
fn shown(state: &ServerState, other: &ServerState) -> String {
    let checks = |name: &str, now: Option<Switch>, then: Option<Switch>| match now.filter(|_| now != then) {
        Some(Switch::Enabled) => format!(" {name} enabled"),
        Some(Switch::Disabled) => format!(" {name} disabled"),
        None => String::new(),
    };
    let forced = state.flags.forced().map_or("maint and drain", |forced| forced.as_str());
    let weight = if state.weight == other.weight { String::new() } else { format!(" weight {}", state.weight) };
    let (health, agent) = (checks("health", state.health, other.health), checks("agent", state.agent, other.agent));
    format!("{forced}{weight}{health}{agent}")
}
