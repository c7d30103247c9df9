//! Requests of any kind that is valid.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::dice::Dice;
use super::stage::{DYNAMIC, SERVERS, Stage};

/// One run that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) request: Value,
    pub(crate) detailed: bool,
    pub(crate) by_user: bool,
    /// When it starts, after the beginning of the round.
    pub(crate) after: Duration,
}

/// Whether servers or backends are named that may not be there.
const GHOST: &str = "ghost";

impl Asked {
    pub(crate) fn draw(dice: &mut Dice, stage: &Stage, is_alone: bool) -> Self {
        let by_user = dice.percent(40) && stage.nobody.is_some();
        let mut fields = Map::new();
        let state = match dice.between(0, 100) {
            0..40 => Some("maint"),
            40..55 => Some("drain"),
            55..85 => Some("ready"),
            85..90 => Some("restore"),
            _ => None,
        };
        if let Some(state) = state {
            fields.insert("state".into(), json!(state));
        }
        selection(dice, stage, &mut fields);
        let chosen = instances(dice, stage, by_user, &mut fields);
        settings(dice, state, &mut fields);
        let is_change = ["state", "weight", "health", "agent"].iter().any(|field| fields.contains_key(*field));
        if is_change && !fields.contains_key("server") && !fields.contains_key("address") {
            fields.insert("server".into(), json!("*"));
        }
        waits(dice, state, &mut fields);
        policies(dice, state, is_change, &mut fields);
        if is_change && !by_user && dice.percent(40) {
            let files: Map<String, Value> =
                dice.some(&chosen).into_iter().map(|(name, path)| (name, json!(path))).collect();
            fields.insert("state_file".into(), Value::Object(files));
        }
        let after = if is_alone { 0 } else { dice.between(0, 80) };
        let detailed = dice.percent(50);
        Self { request: Value::Object(fields), detailed, by_user, after: Duration::from_millis(after) }
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.request[field].as_str()
    }

    pub(crate) fn has(&self, field: &str) -> bool {
        self.request.get(field).is_some()
    }

    pub(crate) fn state(&self) -> Option<&str> {
        self.text("state")
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.request["dry_run"] == json!(true)
    }

    pub(crate) fn is_change(&self) -> bool {
        ["state", "weight", "health", "agent"].iter().any(|field| self.has(field))
    }

    /// Whether it may name what is not there.
    pub(crate) fn may_miss(&self) -> bool {
        ["backend", "address"].iter().any(|field| self.has(field))
            || self.request["server"].to_string().contains(GHOST)
            || self.request["server"].to_string().contains("d2")
            || self.request["server"].to_string().contains("/w")
            || self.request["server"].to_string().contains('[')
    }

    fn seconds(&self, field: &Value, default: f64) -> f64 {
        field.as_f64().unwrap_or(default)
    }

    /// The longest that it may take, by its own time-outs; what is not itself waited for is one step or another.
    pub(crate) fn limit(&self) -> Duration {
        let request = &self.request;
        let timeout = self.seconds(&request["timeout"], 10.0);
        let of = |field: &str, default: f64| match &request[field] {
            Value::Object(fields) => fields.get("timeout").and_then(Value::as_f64).unwrap_or(default),
            Value::Bool(true) => default,
            _ => 0.0,
        };
        let rollback = if self.text("on_failure") == Some("rollback") || request["drain"]["on_timeout"] == "rollback" {
            4.0 * timeout + self.seconds(&request["lock_timeout"], 60.0)
        } else {
            0.0
        };
        // A dump that has begun may go on for 5 s; several instances share each step, but not its beginning.
        let limit = if let Some(deadline) = request["deadline"].as_f64() {
            deadline + 3.0 * timeout + 5.0 + rollback
        } else {
            let over = request["shutdown_sessions"]["over"].as_f64().unwrap_or(0.0);
            let waits = of("drain", 300.0) + of("wait", 60.0) + over;
            let locks = 4.0 * self.seconds(&request["lock_timeout"], 60.0);
            waits + locks + 10.0 * timeout + 5.0 + rollback
        };
        Duration::from_secs_f64(limit)
    }
}

fn selection(dice: &mut Dice, stage: &Stage, fields: &mut Map<String, Value>) {
    let apps = ["s1", "s2", "s3", "s4"];
    let servers = match dice.between(0, 100) {
        0..35 => json!(dice.one(&SERVERS)),
        35..45 => json!(dice.one(&apps)),
        45..60 => json!(dice.some(&SERVERS)),
        60..70 => json!(dice.one(&["s*", "app/*", "w[12]", "*/w?", "*/*1"])),
        70..80 => json!("*"),
        80..84 => json!([dice.one(&apps), DYNAMIC]),
        84..86 => json!([dice.one(&apps), GHOST]),
        86..89 => {
            let port = dice.one(&stage.apps.iter().map(|app| app.port.number()).collect::<Vec<_>>());
            // Ports differ from stage to stage, and the same throw gives the same server.
            fields.insert("address".into(), json!(format!("127.0.0.1:{port}")));
            return;
        }
        _ => json!(dice.some(&["app/s1", "tracked/t1", "web/w1", "dyn/d1"])),
    };
    fields.insert("server".into(), servers);
    if dice.percent(6) {
        let backend = dice.one(&[json!("app"), json!(["app", "web"]), json!("*"), json!("t*"), json!(["app", GHOST])]);
        fields.insert("backend".into(), backend);
    }
}

/// Draws the instances, and returns their state files.
fn instances(dice: &mut Dice, stage: &Stage, by_user: bool, fields: &mut Map<String, Value>) -> Vec<(String, PathBuf)> {
    let chosen: Vec<usize> = if dice.percent(40) { vec![0, 1, 2] } else { dice.some(&[0_usize, 1, 2]) };
    let mut listed: Vec<Value> = Vec::new();
    for index in &chosen {
        let site = &stage.sites[*index];
        let socket: &Path = if by_user || dice.percent(50) { &site.sockets[1] } else { &site.sockets[0] };
        listed.push(json!({ "name": site.name, "socket": socket }));
    }
    if dice.percent(3) {
        listed.push(json!({ "name": "gone", "socket": "/tmp/nobody-listens-here.sock" }));
    }
    fields.insert("instances".into(), Value::Array(listed));
    chosen.iter().map(|index| (stage.sites[*index].name.to_owned(), stage.sites[*index].state_file.clone())).collect()
}

fn settings(dice: &mut Dice, state: Option<&str>, fields: &mut Map<String, Value>) {
    if state != Some("restore") && dice.percent(if state.is_none() { 50 } else { 12 }) {
        let weight = dice.one(&[json!(0), json!(1), json!(50), json!(256), json!("50%"), json!("100%"), json!("0%")]);
        fields.insert("weight".into(), weight);
    }
    for field in ["health", "agent"] {
        if dice.percent(6) {
            fields.insert(field.into(), json!(dice.one(&["enabled", "enabled", "disabled"])));
        }
    }
}

fn waits(dice: &mut Dice, state: Option<&str>, fields: &mut Map<String, Value>) {
    let time = |dice: &mut Dice| json!(dice.one(&[0.0, 0.3, 1.0, 2.5]));
    if state == Some("maint") && dice.percent(55) {
        let mut drain = Map::new();
        drain.insert("timeout".into(), time(dice));
        drain.insert("on_timeout".into(), json!(dice.one(&["fail", "rollback", "maint", "shutdown"])));
        if dice.percent(40) {
            drain.insert("stable".into(), json!(dice.one(&[0.1, 0.4])));
        }
        fields.insert("drain".into(), Value::Object(drain));
    }
    if state == Some("maint") && dice.percent(15) {
        fields.insert("shutdown_sessions".into(), dice.one(&[json!(true), json!({ "over": 0.5 })]));
    }
    let has_effect = state.is_some() || fields.get("weight") == Some(&json!(0));
    if has_effect && dice.percent(35) {
        let mut wait = Map::new();
        wait.insert("timeout".into(), time(dice));
        if dice.percent(30) {
            wait.insert("stable".into(), json!(0.3));
        }
        if state == Some("ready") {
            wait.insert("via".into(), json!(dice.one(&["drain", "ready"])));
            wait.insert("need".into(), json!(dice.one(&["all", "all", "any"])));
        }
        fields.insert("wait".into(), Value::Object(wait));
    }
    let waits_for_sessions =
        fields.contains_key("drain") || (fields.contains_key("wait") && matches!(state, Some("drain" | "maint")));
    if waits_for_sessions && dice.percent(20) {
        fields.insert("old_processes".into(), json!(dice.one(&["count", "wait"])));
    }
}

fn policies(dice: &mut Dice, state: Option<&str>, is_change: bool, fields: &mut Map<String, Value>) {
    if dice.percent(55) {
        let least = dice.one(&[json!(0), json!(1), json!(1), json!(2), json!(3), json!("50%"), json!("75%")]);
        fields.insert("guard".into(), json!({ "min_available": least }));
    }
    if is_change {
        if dice.percent(6) {
            let expect = dice.one(&[json!({ "admin_state": "ready" }), json!({ "operational_state": "running" })]);
            fields.insert("expect".into(), expect);
        }
        if dice.percent(30) {
            fields.insert("on_failure".into(), json!(dice.one(&["keep", "rollback", "rollback"])));
        }
    }
    let is_out = matches!(state, Some("drain" | "maint"));
    if state.is_some() && dice.percent(30) {
        fields.insert("owner".into(), json!(dice.one(&["alice", "bob"])));
    }
    if is_out && dice.percent(15) {
        fields.insert("reason".into(), json!("a new disk"));
    }
    if is_out && dice.percent(10) {
        fields.insert("expires".into(), json!(dice.one(&["+1h", "+1s"])));
    }
    if matches!(state, Some("ready" | "drain" | "restore")) {
        if dice.percent(40) {
            fields.insert("ignore_owner".into(), json!(true));
        }
        if dice.percent(20) {
            fields.insert("on_owned".into(), json!(dice.one(&["fail", "skip"])));
        }
    }
    fields.insert("timeout".into(), json!(dice.one(&[1.0, 2.0, 2.0, 3.0])));
    fields.insert("lock_timeout".into(), json!(dice.one(&[0.0, 1.0, 5.0, 5.0])));
    if dice.percent(10) {
        fields.insert("deadline".into(), json!(dice.one(&[0.2, 1.0, 3.0])));
    }
    for (field, chance) in [("dry_run", 8), ("diff", 10), ("syslog", 80)] {
        if dice.percent(chance) {
            fields.insert(field.into(), json!(field != "syslog"));
        }
    }
    if dice.percent(25) {
        fields.insert("on_missing".into(), json!(dice.one(&["fail", "fail_each", "elsewhere_ok", "ignore"])));
    }
    if dice.percent(30) {
        fields.insert("on_unreachable".into(), json!(dice.one(&["fail", "skip"])));
    }
    if dice.percent(3) {
        fields.insert("ignore_instances".into(), json!("test-*"));
    }
}
