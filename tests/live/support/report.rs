//! Looking things up in a report.

use serde_json::Value;

/// Every server of a report, as `backend/server`, in its order.
pub(crate) fn servers(report: &Value) -> Vec<String> {
    list(&report["servers"]).map(|server| format!("{}/{}", text(&server["backend"]), text(&server["server"]))).collect()
}

/// The entry of one server, by `backend/server`.
///
/// # Panics
///
/// Unless there is exactly one.
pub(crate) fn server<'a>(report: &'a Value, name: &str) -> &'a Value {
    let (backend, server) = name.split_once('/').expect("backend/server");
    let found: Vec<&Value> =
        list(&report["servers"]).filter(|entry| entry["backend"] == backend && entry["server"] == server).collect();
    assert!(found.len() == 1, "{} entries of {name} in {report}", found.len());
    found[0]
}

/// The commands of all servers, in the report's order.
pub(crate) fn commands(report: &Value) -> Vec<String> {
    list(&report["servers"])
        .flat_map(|server| list(&server["commands"]))
        .map(|command| text(command).to_owned())
        .collect()
}

/// The kind of the failure of a report or of one of its entries; empty where there is none.
pub(crate) fn kind(value: &Value) -> &str {
    value["error"]["kind"].as_str().unwrap_or_default()
}

/// All warnings, a line each.
pub(crate) fn warnings(report: &Value) -> String {
    list(&report["warnings"]).map(text).collect::<Vec<_>>().join("\n")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
