//! The report as lines, for MilkCheck and for people: the same bytes on two hosts in the same state.

use std::borrow::Cow;
use std::fmt::Write;

use super::wire::{Report, ServerReport};
use crate::request::Request;

/// Writes the servers that are worth a line: all that were asked for, or in a status of all servers those that are
/// not ok.
#[must_use]
pub fn text(request: &Request, report: &Report<'_>) -> String {
    let mut text = String::from("# Format\n# backend_name/server_name: operational_state/administrative_state\n");
    let all = request.change.is_some() || !request.servers.is_empty();
    for instance in &report.instances {
        let mut lines: Vec<String> = report
            .servers
            .iter()
            .filter(|server| server.instance == instance.name && (all || server.ok == Some(false)))
            .map(|server| line(&server))
            .collect();
        lines.sort();
        if report.instances.len() > 1 && !lines.is_empty() {
            let _ = writeln!(text, "# instance {}", printable(instance.name));
        }
        text.push_str(&lines.concat());
    }
    text
}

fn line(server: &ServerReport<'_>) -> String {
    let state = server.after.as_ref().map_or_else(
        || "UNKNOWN/UNKNOWN".to_owned(),
        |after| format!("{}/{}", after.operational_state, after.admin_state).to_uppercase(),
    );
    format!("{}/{}: {state}\n", printable(server.backend), printable(server.server))
}

/// Makes a text safe to show on a terminal: what HAProxy or a file says may hold anything.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    // Marks and overrides of the direction of writing turn round what follows them.
    let is_unsafe = |sign: char| {
        sign.is_control() || matches!(sign, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let shown = |sign: char| if is_unsafe(sign) { sign.escape_unicode().to_string() } else { sign.to_string() };
    Cow::Owned(text.chars().map(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_reaches_a_terminal_as_a_command() {
        assert_eq!(printable("we\u{1b}[31mb\u{202e}\n"), "we\\u{1b}[31mb\\u{202e}\\u{a}");
        assert_eq!(printable("Zoë's web1"), "Zoë's web1");
    }
}
