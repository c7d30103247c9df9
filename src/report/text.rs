//! The report as lines, for MilkCheck and for people: the same bytes on two hosts in the same state.

use std::cmp::Ordering;
use std::fmt::Write;

use super::wire::{InstanceReport, Report, ServerReport, StateReport};
use crate::model::text::{natural, printable};
use crate::request::Request;

/// Writes a line for each server of interest: all requested ones, or in a status of all servers those that are not ok.
///
/// A dry run says so in a separate line. With `diff` a server that changes has two lines, as in a unified diff.
#[must_use]
pub fn text(request: &Request, report: &Report<'_>) -> String {
    let mut text = String::from("# Format\n# backend_name/server_name: operational_state/administrative_state\n");
    if report.dry_run && !report.failed && request.goal.is_some() {
        let _ = writeln!(text, "# dry run: {}", printable(&report.msg));
    }
    for instance in instances(request, report) {
        let servers = report.servers.iter().filter(|server| server.instance == instance.name && server.is_listed);
        let (mut lines, mut owners) = (Vec::new(), Vec::new());
        for server in servers {
            let changes = request.diff.then(|| changes(&server)).flatten();
            lines.push(((server.backend, server.server), changes.unwrap_or_else(|| line(&server))));
            owners.extend(ownership(&server).map(|owner| ((server.backend, server.server), owner)));
        }
        for part in [&mut lines, &mut owners] {
            part.sort_by(|(one, _), (other, _)| by_name(*one, *other));
        }
        if report.instances.len() > 1 && !lines.is_empty() {
            let _ = writeln!(text, "# instance {}", printable(instance.name));
        }
        text.extend(lines.into_iter().chain(owners).map(|(_, line)| line));
    }
    text
}

/// Returns the instances in the order of the request, or in natural order where they were discovered.
pub(super) fn instances<'r, 'a>(request: &Request, report: &'r Report<'a>) -> Vec<&'r InstanceReport<'a>> {
    let mut instances: Vec<&InstanceReport<'_>> = report.instances.iter().collect();
    if request.instances.is_none() {
        instances.sort_by(|one, other| natural(one.name, other.name));
    }
    instances
}

/// The names of a backend and of a server in it.
pub(super) type Name<'a> = (&'a str, &'a str);

/// Compares two servers of an instance in natural order of their names.
pub(super) fn by_name(one: Name<'_>, other: Name<'_>) -> Ordering {
    natural(one.0, other.0).then_with(|| natural(one.1, other.1))
}

fn line(server: &ServerReport<'_>) -> String {
    format!("{}: {}\n", name(server), server.after.as_ref().map_or_else(unknown, state))
}

/// Says who has taken a server out, as a comment, if that was recorded.
fn ownership(server: &ServerReport<'_>) -> Option<String> {
    let since = server.since.as_ref()?;
    let state = server.after.as_ref().map_or_else(unknown, |after| after.admin_state.to_string());
    let mut text = format!("# {}: {state} since {since}", name(server));
    let mut add = |word: &str, value: Option<&str>| {
        if let Some(value) = value {
            let _ = write!(text, " {word} {}", printable(value));
        }
    };
    add("by", server.owner);
    add("until", server.expires.as_deref());
    if let Some(reason) = server.reason {
        let _ = write!(text, " ({})", printable(reason));
    }
    text.push('\n');
    Some(text)
}

/// A server that changes: its line before and its line after, with the weight if that changes.
fn changes(server: &ServerReport<'_>) -> Option<String> {
    let (before, after): (&StateReport, _) = (&server.before, server.after.as_ref());
    let weight = |one: &StateReport| match after {
        Some(after) if after.weight != before.weight => format!(" weight {}", one.weight),
        Some(_) | None => String::new(),
    };
    let shown = |one: &StateReport| format!("{}{}", state(one), weight(one));
    let (was, is) = (shown(before), after.map_or_else(unknown, shown));
    (was != is).then(|| format!("-{name}: {was}\n+{name}: {is}\n", name = name(server)))
}

fn name(server: &ServerReport<'_>) -> String {
    format!("{}/{}", printable(server.backend), printable(server.server))
}

fn state(state: &StateReport) -> String {
    format!("{}/{}", state.operational_state, state.admin_state).to_uppercase()
}

fn unknown() -> String {
    "UNKNOWN/UNKNOWN".to_owned()
}
