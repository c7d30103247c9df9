//! The words in which scenarios are written: servers, what happens, and what has become of them.

use super::{Outcome, Script};
use crate::act::model::{Answer, Change, Entry, Event, Fate, Memory, Modelled, Turn};
use crate::act::target::{Target, Undo, Verdict};
use crate::model::error::ErrorKind;
use crate::model::state::{AdminFlags, OperationalState};

/// A server that is ready, with a check that passes.
pub(super) fn ready(name: &str) -> Modelled {
    Modelled::new("a", name)
}

pub(super) fn with_flags(name: &str, mask: u32) -> Modelled {
    let mut made = ready(name);
    made.server.state.flags = AdminFlags(mask);
    if mask & AdminFlags::FORCED_MAINT != 0 {
        made.server.state.operational = OperationalState::Stopped;
    }
    made
}

pub(super) fn with_sessions(name: &str, ends_after: u32) -> Modelled {
    Modelled { sessions: 1, ends_after, ..ready(name) }
}

pub(super) fn tracking(tracked: &str, made: Modelled) -> Modelled {
    Modelled { tracks: Some(tracked.to_owned()), ..made }
}

/// A server in maint whose check passes after so many polls in service.
pub(super) fn unproven(name: &str, passes_after: u32) -> Modelled {
    Modelled { passes_after, ..with_flags(name, 1) }
}

pub(super) fn without_check(name: &str) -> Modelled {
    let mut made = with_flags(name, 1);
    made.server.state.health = None;
    made.configured.health = None;
    made
}

pub(super) fn script(servers: &[Modelled], turns: Vec<Turn>) -> Script {
    Script { servers: servers.to_vec(), turns, is_endless: false }
}

pub(super) fn whole() -> Turn {
    Turn::default()
}

pub(super) fn fails(kind: ErrorKind) -> Turn {
    Answer::Fails(kind).into()
}

pub(super) fn cut_off(fate: Fate) -> Turn {
    Answer::CutOff(0, fate, ErrorKind::Timeout).into()
}

pub(super) fn reload(memory: Memory) -> Turn {
    Event::Reload(memory, Change::Nothing).into()
}

pub(super) fn somebody(place: usize, does: &'static str) -> Turn {
    Event::Somebody(place, does).into()
}

/// Counts how often an instance that has one server has told its statistics: when observed, and in polls.
pub(super) fn polls_of(outcome: &Outcome, instance: usize) -> usize {
    outcome.instances[instance].haproxy().log.iter().filter(|entry| matches!(entry, Entry::Count { .. })).count()
}

pub(super) fn is_warned(outcome: &Outcome, of: &str) -> bool {
    outcome.instances.iter().flat_map(|ran| &ran.warnings).any(|warning| warning.contains(of))
}

/// What has become of a server, in a few words.
pub(super) fn told(target: &Target) -> String {
    let state = target.after().map_or("unknown", |server| server.state.flags.effective().as_str());
    let changed = if target.is_changed() { ", changed" } else { "" };
    let verdict = match &target.verdict {
        Verdict::Fine => String::new(),
        Verdict::Disabled(_) => ", disabled".to_owned(),
        Verdict::Skipped => ", skipped".to_owned(),
        Verdict::Spare => ", spare".to_owned(),
        Verdict::Failed(error) => format!(", {}", error.kind),
    };
    let undo = match &target.undo {
        None => String::new(),
        Some(Undo::Done) => ", rolled back".to_owned(),
        Some(Undo::LeftAlone(_)) => ", left alone".to_owned(),
        Some(Undo::Failed(error)) => format!(", not rolled back: {}", error.kind),
    };
    format!("{} {state}{changed}{verdict}{undo}", target.before.server)
}
