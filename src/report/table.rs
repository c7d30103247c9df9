//! The report as a table for people, with the counts last.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

use super::standing::{Counts, Standing, why_not};
use super::text::{Name, by_name, instances};
use super::wire::{Report, ServerReport, StateReport};
use crate::model::text::printable;
use crate::request::Request;

/// Whether the table has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// It has, by the sequences of ECMA-48 that every terminal knows.
    Shown,
    /// It has none.
    Plain,
}

/// The columns, and on which side their values are.
const COLUMNS: [(&str, Side); 9] = [
    ("INSTANCE", Side::Left),
    ("BACKEND", Side::Left),
    ("SERVER", Side::Left),
    ("ADDRESS", Side::Left),
    ("ADMIN", Side::Left),
    ("OPERATIONAL", Side::Left),
    ("WEIGHT", Side::Right),
    ("SESSIONS", Side::Right),
    ("NOTE", Side::Left),
];

/// The columns that are coloured.
const COLOURED: [&str; 2] = ["ADMIN", "OPERATIONAL"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// What a colour says of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Fine,
    Noted,
    Wrong,
    Neutral,
}

impl Mood {
    /// Says how a server is coloured.
    fn of(request: &Request, server: &ServerReport<'_>) -> Self {
        if server.failed {
            return Self::Wrong;
        }
        match (&request.goal, Standing::of(server)) {
            (Some(_), _) => {
                if server.changed {
                    Self::Noted
                } else {
                    Self::Neutral
                }
            }
            (None, Standing::Ok) => Self::Fine,
            (None, Standing::Owned) => Self::Noted,
            (None, Standing::Expired | Standing::Out(_) | Standing::Down) => Self::Wrong,
        }
    }

    fn code(self) -> Option<u8> {
        match self {
            Self::Fine => Some(32),
            Self::Noted => Some(33),
            Self::Wrong => Some(31),
            Self::Neutral => None,
        }
    }
}

/// Writes every matched server as a row, in natural order, and the counts.
#[must_use]
pub fn table(request: &Request, report: &Report<'_>, colours: Colours) -> String {
    let mut rows: Vec<([String; COLUMNS.len()], Mood)> =
        vec![(COLUMNS.map(|(name, _)| name.to_owned()), Mood::Neutral)];
    for instance in instances(request, report) {
        let is_shown = |server: &ServerReport<'_>| {
            server.instance == instance.name
                && (server.spare.is_none() || request.goal.is_some() || !request.servers.is_empty())
        };
        let servers = report.servers.iter().filter(is_shown);
        let row = |server: ServerReport<'_>| (cells(request, &server), Mood::of(request, &server));
        let mut named: Vec<(Name<'_>, _)> =
            servers.map(|server| ((server.backend, server.server), row(server))).collect();
        named.sort_by(|(one, _), (other, _)| by_name(*one, *other));
        rows.extend(named.into_iter().map(|(_, row)| row));
    }
    let mut widths = [0; COLUMNS.len()];
    for (cells, _) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.width());
        }
    }
    let mut text = String::new();
    for (cells, mood) in &rows {
        let row: Vec<String> = cells
            .iter()
            .zip(widths)
            .zip(COLUMNS)
            .map(|((cell, width), (name, side))| {
                let mood = if COLOURED.contains(&name) { *mood } else { Mood::Neutral };
                padded(cell, width, side, mood, colours)
            })
            .collect();
        let _ = writeln!(text, "{}", row.join("  ").trim_end());
    }
    let _ = writeln!(text, "{}", counted(request, report));
    text
}

/// Makes a cell as wide as its column on a terminal.
fn padded(cell: &str, width: usize, side: Side, mood: Mood, colours: Colours) -> String {
    let space = " ".repeat(width.saturating_sub(cell.width()));
    let shown = match (colours, mood.code()) {
        (Colours::Shown, Some(code)) => format!("\u{1b}[{code}m{cell}\u{1b}[0m"),
        (Colours::Shown, None) | (Colours::Plain, _) => cell.to_owned(),
    };
    match side {
        Side::Left => shown + &space,
        Side::Right => space + &shown,
    }
}

fn cells(request: &Request, server: &ServerReport<'_>) -> [String; COLUMNS.len()] {
    let unknown = || "unknown".to_owned();
    let after = server.after.as_ref();
    let of = |show: &dyn Fn(&StateReport) -> String| after.map_or_else(unknown, show);
    [
        printable(server.instance).into_owned(),
        printable(server.backend).into_owned(),
        printable(server.server).into_owned(),
        printable(server.address).into_owned(),
        of(&|after| after.admin_state.to_string()),
        of(&|after| after.operational_state.to_string()),
        of(&|after| after.weight.to_string()),
        server.sessions.map_or_else(|| "-".to_owned(), |sessions| sessions.to_string()),
        printable(&note(request, server)).into_owned(),
    ]
}

/// What else is worth knowing of a server.
fn note(request: &Request, server: &ServerReport<'_>) -> String {
    let mut parts = Vec::new();
    if let Some(error) = &server.error {
        parts.push(format!("{}: {}", error.kind, error.msg));
    }
    match server.rolled_back {
        Some(true) => parts.push("rolled back".to_owned()),
        Some(false) => parts.push("not rolled back".to_owned()),
        None => {}
    }
    if server.changed {
        parts.push(format!("was {}", was(server)));
    }
    let until = match (&server.expires, server.expired) {
        (Some(expires), Some(true)) => format!(" until {expires} (expired)"),
        (Some(expires), Some(false) | None) => format!(" until {expires}"),
        (None, _) => String::new(),
    };
    let reason = server.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    if server.owner.is_some() || server.reason.is_some() || server.expires.is_some() {
        let owner = server.owner.map_or_else(|| "out".to_owned(), |owner| format!("by {owner}"));
        parts.push(format!("{owner}{until}{reason}"));
    } else if request.goal.is_none() && Standing::of(server) == Standing::Down {
        parts.extend(why_not(server).map(str::to_owned));
    }
    parts.extend(server.tracks.map(|tracked| format!("tracks {tracked}")));
    parts.join("; ")
}

/// What a server that was changed was before, as far as it differs.
fn was(server: &ServerReport<'_>) -> String {
    let (before, after) = (&server.before, server.after.as_ref());
    let state =
        after.is_none_or(|after| after.admin_state != before.admin_state).then(|| before.admin_state.to_string());
    let weight = after.is_some_and(|after| after.weight != before.weight).then(|| format!("weight {}", before.weight));
    let parts: Vec<String> = state.into_iter().chain(weight).collect();
    if parts.is_empty() { "checked otherwise".to_owned() } else { parts.join(", ") }
}

/// Says how many servers are how.
fn counted(request: &Request, report: &Report<'_>) -> String {
    let counts = Counts::of(report);
    let many = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let asked = report.instances.len();
    let servers = many(counts.servers, "server", "servers");
    let whole = format!("{servers} on {}", many(asked, "instance", "instances"));
    let change = if report.dry_run { "would change" } else { "changed" };
    let parts: &[(usize, &str)] = match request.goal {
        None => &[
            (counts.ok, "ok"),
            (counts.down, "down"),
            (counts.drain, "drain"),
            (counts.maint, "maint"),
            (counts.owned, "owned"),
            (counts.expired, "expired"),
        ],
        Some(_) => &[(counts.changed, change), (counts.failed, "failed"), (counts.rolled_back, "rolled back")],
    };
    let is_first = |index: usize| index == 0;
    let shown = parts.iter().enumerate().filter(|(index, (count, _))| is_first(*index) || *count > 0);
    let shown: Vec<String> = shown.map(|(_, (count, what))| format!("{count} {what}")).collect();
    format!("{whole}: {}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_as_wide_as_a_terminal_shows_it() {
        for (cell, expected) in [
            ("app", "app  |"),
            ("Zoë", "Zoë  |"),
            ("Zoe\u{308}", "Zoe\u{308}  |"),
            ("田a", "田a  |"),
            ("longer", "longer|"),
        ] {
            assert_eq!(padded(cell, 5, Side::Left, Mood::Fine, Colours::Plain) + "|", expected);
        }
        assert_eq!(padded("7", 3, Side::Right, Mood::Wrong, Colours::Shown), "  \u{1b}[31m7\u{1b}[0m");
        assert_eq!(padded("7", 3, Side::Right, Mood::Neutral, Colours::Shown), "  7");
    }
}
