//! The report as lines, for MilkCheck and for people: the same bytes on two hosts in the same state.

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
            .map(line)
            .collect();
        lines.sort();
        if report.instances.len() > 1 && !lines.is_empty() {
            let _ = writeln!(text, "# instance {}", instance.name);
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
    format!("{}/{}: {state}\n", server.backend, server.server)
}
