//! The request as it is written: a type for each kind of field, which reads what hosts send for it.
//!
//! The conversions are those of Ansible's `module_utils/common/validation.py`; where its versions differ, or where a
//! conversion would hide a mistake (`server: 1.10` in YAML is the number 1.1), the value is refused.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::model::goal::{Requested, Switch, Weight};
use crate::model::name::nearest;
use crate::model::state::{AdminState, OperationalState};
use crate::model::traffic::MinAvailable;

/// What Ansible puts in the place of `omit`; a value that starts with this was never given.
const OMITTED: &str = "__omit_place_holder__";

/// A request to `haproxy_server`: which servers, on which HAProxy instances, and how to change them.
///
/// A request without `state`, `weight`, `health` and `agent` is a status and changes nothing. Keys that start with `_` belong
/// to the calling tool: `_ansible_check_mode` and `_noop` mean `dry_run`, `_ansible_diff` means `diff`, and others are
/// ignored. A value of `null` is the same as leaving the field out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(title = "haproxy_server request", deny_unknown_fields))]
#[serde(default)]
pub struct Wire {
    /// The servers: names, `backend/server`, or patterns with `*`, `?` and `[…]` on each side of at most one `/`; a
    /// string (commas separate several) or a list. Names are case-sensitive. A change requires this or `address`; a status
    /// without both covers all servers.
    #[cfg_attr(test, schemars(example = &"web1", example = ["web1", "app*/web[2-3]"]))]
    pub server: Option<Names>,
    /// The requested administrative state. `ready` takes traffic, `drain` takes only the traffic of persistence
    /// clients, `maint` takes none. `restore` puts each server back to the state and weight that it had before it was taken
    /// out, if that was recorded (with `owner`, `reason` or `expires`); any other server is left alone, with a warning. It is
    /// a step towards service like `ready`. Also accepted: `enabled` and `enable` for `ready`, `disabled` and `disable` for
    /// `maint`. Spare slots of a `server-template` (without an address) that only a pattern matches are left alone by
    /// `ready` and `drain`, with a warning; named ones fail with `unreachable_state`. Unchanged by default.
    #[cfg_attr(test, schemars(example = &"maint"))]
    pub state: Option<StateWord>,
    /// The backends in which to find the servers: names or patterns, as a string or a list. All backends by default.
    #[cfg_attr(test, schemars(example = &"app", example = ["i[0-9]*_puppet_masters"]))]
    pub backend: Option<Names>,
    /// The addresses in force of the servers: an IP address with or without a port, such as `10.0.0.5`, `10.0.0.5:8080`,
    /// `::1` or `[::1]:80`; a string (commas separate several) or a list. Without a port, any port matches. With `server`
    /// or `backend`, a server must match these as well. HAProxy does not show the paths of servers on Unix sockets: name
    /// these with `server`. Any address by default.
    #[cfg_attr(test, schemars(example = &"10.0.0.5", example = ["10.0.0.5:8080", "[::1]:80"]))]
    pub address: Option<Names>,
    /// The HAProxy instances of this host: names of discovered instances, addresses of stats sockets in HAProxy's
    /// notation (`/path`, `unix@/path`, `abns@name`, `ipv4@127.0.0.1:9999`, `ipv6@[::1]:9999`), or objects with
    /// `name` and `socket`; a string (commas separate several) or a list. All discovered instances by default.
    #[cfg_attr(test, schemars(example = ["http", "puppet"], example = [serde_json::json!({"name": "ldap", "socket": "/run/haproxy/ldap.sock"})]))]
    pub instances: Option<Instances>,
    /// Instances of this host to leave alone on purpose: names or patterns of `*`, `?` and `[…]`, as a string or a list.
    /// Discovery skips them without a warning, even where it could not manage them. It has no effect on instances that
    /// `instances` names. None by default.
    #[cfg_attr(test, schemars(example = &"staging", example = ["test-*", "edge"]))]
    pub ignore_instances: Option<Names>,
    /// The requested weight: a number from 0 to 256, or a percentage of the configured weight, such as `"50%"`. Like the
    /// state, it is set only if it differs. A server with weight 0 takes no new traffic except from persistence clients.
    /// A percentage that rounds down to 0 fails with `unreachable_state`, unless it is `"0%"`. Unchanged by default.
    #[cfg_attr(test, schemars(example = 10, example = &"50%"))]
    pub weight: Option<Weight>,
    /// Whether the servers' health checks run: `enabled` resumes them, `disabled` pauses them. A server without one is
    /// left as it is, with a warning. Unchanged by default.
    #[cfg_attr(test, schemars(example = &"disabled"))]
    pub health: Option<Switch>,
    /// Whether the servers' agent checks run: `enabled` resumes them, `disabled` pauses them, so that an agent cannot
    /// override the state. A server without one is left as it is, with a warning. Unchanged by default.
    #[cfg_attr(test, schemars(example = &"disabled"))]
    pub agent: Option<Switch>,
    /// With `state: maint`: drains the servers first, in all backends of all instances at once and under one deadline;
    /// each goes to maint as soon as it has no session and no queued request left (`scur` and `qcur` of `show stat`, which
    /// do not count idle keep-alive connections), no session has begun on it since the previous poll (`stot`), and both have
    /// held for `stable` seconds. Sessions on processes from before a reload count if a master CLI shows them. A server that
    /// is down goes there at once, one that is in maint stays there. `true` means 300 s, `fail` and 0 s. Off by default.
    #[cfg_attr(test, schemars(example = true, example = serde_json::json!({"timeout": 60, "on_timeout": "maint"})))]
    pub drain: Option<Drain>,
    /// With `state: maint`: ends the sessions that are left after the change, again and again until none is left. Fails
    /// with `not_drained` when the time is up: that of `drain`, otherwise of `wait`, otherwise `timeout`. Clients see their
    /// connections cut; with `{"over": SECONDS}` they are ended evenly over that time, so that their clients do not all
    /// reconnect at once. `false` by default.
    #[cfg_attr(test, schemars(example = true, example = serde_json::json!({"over": 60})))]
    pub shutdown_sessions: Option<ShutdownSessions>,
    /// Waits for the effect of `state`, or of `weight: 0`. With `ready`, a server that leaves maint goes through
    /// drain, where HAProxy checks it without giving it new traffic, and becomes ready once a check has passed; then it
    /// must take traffic: its weight is above 0 and slowstart is over. If a passed check cannot be seen (`fall 1`,
    /// `init-state fully-up`, an agent check alone), it must stay up for 5 s instead. A server without a check, or with
    /// a paused one, becomes ready at once. After `drain`, `maint` and `weight: 0`, waits until no session is left.
    /// Fails with `not_up` or `not_drained`. `true` means 60 s. Off by default.
    #[cfg_attr(test, schemars(example = true, example = serde_json::json!({"timeout": 120, "stable": 5})))]
    pub wait: Option<Wait>,
    /// Refuses, before anything is sent anywhere, a change that lowers the number of usable servers of a backend below
    /// this. Usable servers take traffic: they are ready, running or starting, with a weight above 0, in a backend that is
    /// neither `disabled` nor unpublished. Backup servers count as HAProxy uses them: only if no other server is usable, and
    /// then as one. Servers that track a changed one count as they would be after the change. Needs the lock that keeps
    /// other runs out. In a status, the report's `ok` then means that every matched backend keeps at least that many servers
    /// in traffic, and the text form lists only servers of backends that do not. No guard by default.
    #[cfg_attr(test, schemars(example = serde_json::json!({"min_available": 1}), example = serde_json::json!({"min_available": "50%"})))]
    pub guard: Option<Guard>,
    /// Refuses as `expectation_failed`, before anything is sent anywhere, a change of a server that is in another state
    /// than this. Servers that need no change may be in any state, so a second run passes. No expectation by default.
    #[cfg_attr(test, schemars(example = serde_json::json!({"admin_state": "ready", "operational_state": "running"})))]
    pub expect: Option<Expect>,
    /// What happens to the changes of this run when a later part of it fails, or when a signal ends it. Whatever somebody
    /// else has changed in the meantime is left alone. `keep` by default.
    pub on_failure: Option<OnFailure>,
    /// Keeps HAProxy's server-state file in step with the state of the servers, so that it survives a reload: the absolute
    /// path of the file (for a single instance), or an object of names and paths. A name is `instance`, for all rows of
    /// that instance, or `instance/backend`, for the rows of one backend (`load-server-state-from-file local`); each file
    /// may be given only once. The rows of the matched servers are compared even if HAProxy needs no command; a difference
    /// is written and counts as `changed`. The configuration must load the file (`server-state-file` and
    /// `load-server-state-from-file`). None by default.
    #[cfg_attr(test, schemars(
        example = serde_json::json!({"http": "/var/lib/haproxy/http.state"}),
        example = serde_json::json!({"http/web": "/var/lib/haproxy/web.state"})
    ))]
    pub state_file: Option<StateFiles>,
    /// Who takes the server out, or puts it back: recorded on this host with `drain` and `maint`; `ready` and `restore` are refused
    /// (`owned`) if another owner is recorded, or any owner if this is missing. At most 200 characters. None by default.
    #[cfg_attr(test, schemars(example = &"alice"))]
    pub owner: Option<Text>,
    /// Why the server is taken out: recorded with `drain` and `maint`, and shown in a status. At most 200 characters. None
    /// by default.
    #[cfg_attr(test, schemars(example = &"disk replacement"))]
    pub reason: Option<Text>,
    /// With `drain` and `maint`: until when the server is meant to be out, as an RFC 3339 time with its offset, or `+` and
    /// a duration in units of s, m, h, d and w; in the future, at most a hundred years ahead. After that, `ready` is no
    /// longer refused and a status says `expired`, but nothing puts the server back automatically. No expiry by default:
    /// the record counts as long as the server stays in that state.
    #[cfg_attr(test, schemars(example = &"+2h", example = &"2100-01-01T12:00:00Z"))]
    pub expires: Option<Text>,
    /// With `state: ready`, `restore` or `drain`: puts a server back, or from maint to drain, although another owner is recorded.
    /// `false` by default.
    #[cfg_attr(test, schemars(example = true))]
    pub ignore_owner: Option<Flag>,
    /// With `state: ready`, `restore` or `drain`: what happens to servers that another owner has taken out. `fail` by default.
    pub on_owned: Option<OnOwned>,
    /// The longest wait for another run that changes servers of the same HAProxy, in seconds; from 0 (one attempt) to
    /// 86400, 60 by default. Fails with `locked`. It starts again each time that the lock is retaken after a wait.
    #[cfg_attr(test, schemars(example = 5))]
    pub lock_timeout: Option<Pause>,
    /// Whether each change of a server is written to the system log (`/dev/log`) as well: one line with the instance, the
    /// server, the states before and after, owner, reason and calling user. A host without a system log is fine. `true` by
    /// default.
    #[cfg_attr(test, schemars(example = false))]
    pub syslog: Option<Flag>,
    /// With `drain`, or with `wait` after `drain` and `maint`: how processes from before a reload that still run count.
    /// `count` by default.
    pub old_processes: Option<OldProcesses>,
    /// What a listed server or backend that matches nothing means. `fail` by default.
    pub on_missing: Option<OnMissing>,
    /// What an instance that does not answer means. `fail` by default.
    pub on_unreachable: Option<OnUnreachable>,
    /// Plans and reports, but sends no changing commands. `false` by default.
    pub dry_run: Option<Flag>,
    /// Adds `diff` to the report: a line for each server, before and after; in the text form for each server that
    /// changes. `false` by default.
    pub diff: Option<Flag>,
    /// The longest that one instance may take for one step in total, however often it answers in between, in seconds: for
    /// connecting, observing, one batch of commands, reading back, or one poll; from 0.001 to 86400, 10 by default. Fails
    /// with `timeout`. A dump that has begun is read to its end, or until 5 s of silence or 300 s in total, however short
    /// this is.
    #[cfg_attr(test, schemars(example = 2.5))]
    pub timeout: Option<Seconds>,
    /// The longest that the whole run may take, in seconds; from 0.001 to 86400. When the time is over, nothing new is sent,
    /// what was sent is read back, which may take another `timeout`, and the run fails with `timeout`. A rollback that
    /// `on_failure` requests is carried out nevertheless. No limit by default.
    #[cfg_attr(test, schemars(example = 300))]
    pub deadline: Option<Seconds>,
}

/// The keys of [`Wire`], to find the one closest to an unknown key.
pub(crate) const KNOWN: [&str; 30] = [
    "server",
    "state",
    "backend",
    "address",
    "instances",
    "ignore_instances",
    "weight",
    "health",
    "agent",
    "drain",
    "shutdown_sessions",
    "wait",
    "guard",
    "expect",
    "on_failure",
    "state_file",
    "owner",
    "reason",
    "expires",
    "ignore_owner",
    "on_owned",
    "lock_timeout",
    "syslog",
    "old_processes",
    "on_missing",
    "on_unreachable",
    "dry_run",
    "diff",
    "timeout",
    "deadline",
];

/// Reads the fields of an object after the caller's keys were removed.
pub(super) fn read(object: Map<String, Value>) -> Result<Wire, String> {
    if let Some(key) = object.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        let shown: String = key.chars().take(80).collect();
        let hint = nearest(&key.replace('-', "_"), KNOWN).map_or_else(
            || format!("; known fields are {}", KNOWN.join(", ")),
            |known| format!("; did you mean '{known}'?"),
        );
        return Err(format!("unknown field '{}'{hint}", shown.escape_debug()));
    }
    let mut object = object;
    object.retain(|_, value| !is_absent(value));
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| {
        let path = error.path().to_string();
        format!("'{path}': {}", error.into_inner())
    })
}

/// What the calling tool says about itself with its own keys.
pub(super) struct Caller {
    pub(super) is_task: bool,
    pub(super) is_tool: bool,
    pub(super) dry_run: Result<(), crate::model::error::Error>,
    pub(super) diff: Result<bool, crate::model::error::Error>,
}

/// The caller's keys that mean `dry_run`.
const MEAN_DRY_RUN: [&str; 2] = ["_ansible_check_mode", "_noop"];

/// Returns whether any key requests a dry run, whether the other fields are valid or not.
pub(super) fn is_dry_run(object: &Map<String, Value>) -> bool {
    MEAN_DRY_RUN.into_iter().chain(["dry_run"]).any(|key| flag(object, key) == Ok(true))
}

/// Removes the keys that start with `_` from the object.
pub(super) fn take_callers_keys(object: &mut Map<String, Value>) -> Caller {
    let dry_run = MEAN_DRY_RUN.into_iter().try_for_each(|key| flag(object, key).map(drop)).map_err(super::bad);
    let diff = flag(object, "_ansible_diff").map_err(super::bad);
    let is_task = object.contains_key("_task");
    let is_tool = object.keys().any(|key| key.starts_with('_'));
    object.retain(|key, _| !key.starts_with('_'));
    Caller { is_task, is_tool, dry_run, diff }
}

/// Reads an optional flag.
fn flag(object: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match object.get(key).filter(|value| !is_absent(value)) {
        Some(value) => Flag::from_value(value).map(|flag| flag.0).map_err(|why| format!("'{key}': {why}")),
        None => Ok(false),
    }
}

/// Puts the value of one `KEY=VALUE` word into the object; `a.b` is the key `b` of the object `a`.
pub(super) fn insert(object: &mut Map<String, Value>, key: &str, value: &str) -> Result<(), String> {
    let twice = || format!("'{}' is given twice", key.escape_debug());
    // A name in an object may have dots itself.
    let (first, second) = key.split_once('.').map_or((key, None), |(first, second)| (first, Some(second)));
    if first.is_empty() {
        return Err(format!("'{}={}' has no key before the '='", key.escape_debug(), value.escape_debug()));
    }
    match second {
        None => match object.insert(first.to_owned(), Value::from(value)) {
            None => Ok(()),
            Some(_) => Err(twice()),
        },
        Some(second) => {
            let inner = object.entry(first).or_insert_with(|| Value::Object(Map::new()));
            match inner.as_object_mut().map(|inner| inner.insert(second.to_owned(), Value::from(value))) {
                Some(None) => Ok(()),
                Some(Some(_)) | None => Err(twice()),
            }
        }
    }
}

/// Returns how deep the value is nested; a plain value is 0.
pub(super) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.starts_with(OMITTED),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

/// JSON without duplicate keys in an object.
pub(super) struct Strict(pub(super) Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::from(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::from(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::from(value))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::from(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::from(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element::<Strict>()? {
                    items.push(item.0);
                }
                Ok(Value::Array(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut fields = Map::new();
                while let Some((key, value)) = map.next_entry::<String, Strict>()? {
                    if fields.contains_key(&key) {
                        return Err(A::Error::custom(format!("duplicate key '{}'", key.escape_debug())));
                    }
                    fields.insert(key, value.0);
                }
                Ok(Value::Object(fields))
            }
        }
        deserializer.deserialize_any(AnyValue).map(Strict)
    }
}

/// Reads a field with a function of the value that was sent.
macro_rules! read_from_value {
    ($($type:ty),+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::from_value(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    )+};
}
read_from_value!(
    Names,
    Flag,
    Seconds,
    Pause,
    Text,
    Weight,
    MinAvailable,
    Instances,
    StateFiles,
    Drain,
    ShutdownSessions,
    Wait,
    Guard,
    Expect,
    StateWord,
    ExpectedState,
    Switch,
    OnTimeout,
    OnMissing,
    OnUnreachable,
    OldProcesses,
    OnOwned,
    Via,
    Need,
    OnFailure
);

/// Shows a refused value, shortened to fit into a sentence.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A list of names or patterns, which may be one string with commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl Names {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(Self(text.split(',').map(str::to_owned).collect())),
            Value::Array(items) => {
                items.iter().filter(|item| !is_absent(item)).map(name).collect::<Result<_, _>>().map(Self)
            }
            Value::Number(_) => Ok(Self(vec![name(value)?])),
            Value::Null | Value::Bool(_) | Value::Object(_) => {
                Err(format!("{} is not a name or a list of names", shown(value)))
            }
        }
    }
}

/// Reads one name; a whole number is text.
fn name(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) if number.is_u64() => Ok(number.to_string()),
        Value::Number(_) => Err(format!("{} is a number; write names in quotes", shown(value))),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            Err(format!("{} is not a name; write names in quotes", shown(value)))
        }
    }
}

/// Yes or no, as hosts write it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flag(pub bool);

impl Flag {
    const TRUE: [&str; 6] = ["true", "yes", "on", "1", "t", "y"];
    const FALSE: [&str; 6] = ["false", "no", "off", "0", "f", "n"];

    fn from_value(value: &Value) -> Result<Self, String> {
        let word = match value {
            Value::Bool(flag) => return Ok(Self(*flag)),
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.trim().to_lowercase(),
            Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
        };
        if Self::TRUE.contains(&word.as_str()) {
            Ok(Self(true))
        } else if Self::FALSE.contains(&word.as_str()) {
            Ok(Self(false))
        } else {
            Err(format!("{} is neither true nor false", shown(value)))
        }
    }
}

/// A time in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl Seconds {
    const LONGEST: f64 = 86_400.0;
    const SHORTEST: f64 = 0.001;

    fn from_value(value: &Value) -> Result<Self, String> {
        let seconds = Pause::from_value(value)?.0;
        if seconds.as_secs_f64() < Self::SHORTEST {
            return Err(format!("{} is not a time from 0.001 to 86400 seconds", shown(value)));
        }
        Ok(Self(seconds))
    }
}

/// A time in seconds that may be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause(pub Duration);

impl Pause {
    fn from_value(value: &Value) -> Result<Self, String> {
        let number = number(value).ok_or_else(|| format!("{} is not a number of seconds", shown(value)))?;
        if !(0.0..=Seconds::LONGEST).contains(&number) {
            return Err(format!("{} is not a time from 0 to 86400 seconds", shown(value)));
        }
        Ok(Self(Duration::from_secs_f64(number)))
    }
}

/// A short line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

impl Text {
    /// The longest text, in characters.
    const MAX: usize = 200;

    fn from_value(value: &Value) -> Result<Self, String> {
        let text = name(value)?;
        let text = text.trim();
        if text.is_empty() {
            return Err("it is empty; leave the field out".to_owned());
        }
        if text.chars().count() > Self::MAX {
            return Err(format!("it is longer than {} characters", Self::MAX));
        }
        if text.chars().any(char::is_control) {
            return Err(format!("{} contains a control character", shown(value)));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Reads a finite decimal number, from text too.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => {
            let text = text.trim();
            let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
            if is_decimal { text.parse().ok()? } else { return None }
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    number.is_finite().then_some(number)
}

/// Returns the text before the percent sign.
fn share(value: &Value) -> Option<&str> {
    value.as_str()?.trim().strip_suffix('%')
}

impl Weight {
    fn from_value(value: &Value) -> Result<Self, String> {
        const RANGE: &str =
            "is not a weight; write a number from 0 to 256, or a percentage of the configured weight, such as \"50%\"";
        let refuse = || format!("{} {RANGE}", shown(value));
        if let Some(percent) = share(value) {
            let is_decimal = !percent.is_empty() && percent.bytes().all(|byte| byte.is_ascii_digit());
            let percent = is_decimal.then(|| percent.parse().ok()).flatten().ok_or_else(refuse)?;
            return if percent <= Self::MAX_PERCENT { Ok(Self::Percent(percent)) } else { Err(refuse()) };
        }
        let whole = number(value).filter(|number| number.fract() == 0.0).ok_or_else(refuse)?;
        (0..=Self::MAX).find(|weight| f64::from(*weight) == whole).map(Self::Absolute).ok_or_else(refuse)
    }
}

impl MinAvailable {
    fn from_value(value: &Value) -> Result<Self, String> {
        let refuse =
            || format!("{} is neither a number of servers nor a percentage from \"0%\" to \"100%\"", shown(value));
        if let Some(percent) = share(value) {
            let percent = percent.parse().ok().filter(|percent| *percent <= 100).ok_or_else(refuse)?;
            return Ok(Self::Percent(percent));
        }
        let whole = number(value).filter(|number| number.fract() == 0.0 && (0.0..=1e6).contains(number));
        let digits = whole.ok_or_else(refuse)?.to_string();
        digits.parse().map(Self::Count).map_err(|_| refuse())
    }
}

/// Reads a field that is an object, or `true` for the object with its defaults; `false` means not given.
fn object_or_flag<'v>(value: &'v Value, known: &[&str]) -> Result<Option<Cow<'v, Map<String, Value>>>, String> {
    match value {
        Value::Object(fields) => {
            if let Some(key) = fields.keys().find(|key| !known.contains(&key.as_str())) {
                return Err(format!("unknown field '{}'; known fields are {}", key.escape_debug(), known.join(", ")));
            }
            Ok(Some(Cow::Borrowed(fields)))
        }
        _ => match Flag::from_value(value) {
            Ok(Flag(true)) => Ok(Some(Cow::Owned(Map::new()))),
            Ok(Flag(false)) => Ok(None),
            Err(_) => Err(format!("{} is neither true nor an object with {}", shown(value), known.join(", "))),
        },
    }
}

/// Reads a field of an object with its type's own rule.
fn field<T>(
    fields: &Map<String, Value>,
    key: &str,
    read: impl FnOnce(&Value) -> Result<T, String>,
) -> Result<Option<T>, String> {
    match fields.get(key).filter(|value| !is_absent(value)) {
        Some(value) => read(value).map(Some).map_err(|why| format!("'{key}': {why}")),
        None => Ok(None),
    }
}

/// How servers are drained before maint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain(pub Option<DrainBounds>);

/// The bounds of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainBounds {
    /// The longest wait for sessions to end.
    pub timeout: Duration,
    /// What happens to servers that still have sessions then.
    pub on_timeout: OnTimeout,
    /// How long a server must have had no session, old or new, before it counts as drained.
    pub stable: Duration,
}

impl Drain {
    fn from_value(value: &Value) -> Result<Self, String> {
        let Some(fields) = object_or_flag(value, &["timeout", "on_timeout", "stable"])? else { return Ok(Self(None)) };
        Ok(Self(Some(DrainBounds {
            timeout: field(&fields, "timeout", Pause::from_value)?.map_or(Duration::from_secs(300), |pause| pause.0),
            on_timeout: field(&fields, "on_timeout", OnTimeout::from_value)?.unwrap_or(OnTimeout::Fail),
            stable: field(&fields, "stable", Pause::from_value)?.map_or(Duration::ZERO, |pause| pause.0),
        })))
    }
}

/// Whether and how sessions are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownSessions(pub Option<Pace>);

/// How fast sessions are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The time over which they are spread evenly; all at once if it is 0.
    pub over: Duration,
}

impl ShutdownSessions {
    fn from_value(value: &Value) -> Result<Self, String> {
        let Some(fields) = object_or_flag(value, &["over"])? else { return Ok(Self(None)) };
        let over = field(&fields, "over", Pause::from_value)?.map_or(Duration::ZERO, |pause| pause.0);
        Ok(Self(Some(Pace { over })))
    }
}

/// How to wait for the effect of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(pub Option<WaitBounds>);

/// The bounds of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitBounds {
    /// The longest wait.
    pub timeout: Duration,
    /// How long a server must take traffic without interruption.
    pub stable: Duration,
    /// The state that a server goes through on its way from maint to ready.
    pub via: Via,
    /// In how many of its backends a server must take traffic.
    pub need: Need,
}

impl Wait {
    fn from_value(value: &Value) -> Result<Self, String> {
        let Some(fields) = object_or_flag(value, &["timeout", "stable", "via", "need"])? else { return Ok(Self(None)) };
        Ok(Self(Some(WaitBounds {
            timeout: field(&fields, "timeout", Pause::from_value)?.map_or(Duration::from_secs(60), |pause| pause.0),
            via: field(&fields, "via", Via::from_value)?.unwrap_or(Via::Drain),
            need: field(&fields, "need", Need::from_value)?.unwrap_or(Need::All),
            stable: field(&fields, "stable", Pause::from_value)?.map_or(Duration::ZERO, |pause| pause.0),
        })))
    }
}

/// What a change must leave in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct Guard {
    /// The fewest usable servers of a backend: a number from 0 to 1000000, or a percentage from `"0%"` to `"100%"` of its
    /// servers that the configuration neither disables nor marks `backup`, spare slots aside, rounded up.
    pub min_available: MinAvailable,
}

/// What must hold before a change: either field, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields, extend("minProperties" = 1)))]
pub struct Expect {
    /// The effective administrative state of every server that is changed. Any by default.
    pub admin_state: Option<ExpectedState>,
    /// The operational state of every server that is changed. Any by default.
    pub operational_state: Option<OperationalWord>,
}

impl Guard {
    fn from_value(value: &Value) -> Result<Self, String> {
        Ok(Self { min_available: only_field(value, "min_available", MinAvailable::from_value)? })
    }
}

impl Expect {
    fn from_value(value: &Value) -> Result<Self, String> {
        const KNOWN: [&str; 2] = ["admin_state", "operational_state"];
        let fields = object(value, &KNOWN)?;
        let admin_state = field(fields, "admin_state", ExpectedState::from_value)?;
        let operational_state = field(fields, "operational_state", OperationalWord::from_value)?;
        if admin_state.is_none() && operational_state.is_none() {
            return Err(format!("it is empty; give one of {}", KNOWN.join(", ")));
        }
        Ok(Self { admin_state, operational_state })
    }
}

/// Reads a field that is an object with a single field.
fn only_field<T>(value: &Value, key: &str, read: impl FnOnce(&Value) -> Result<T, String>) -> Result<T, String> {
    field(object(value, &[key])?, key, read)?.ok_or_else(|| format!("'{key}' is missing"))
}

/// Reads a field that is an object of known fields.
fn object<'v>(value: &'v Value, known: &[&str]) -> Result<&'v Map<String, Value>, String> {
    let Value::Object(fields) = value else {
        let first = known.first().copied().unwrap_or_default();
        return Err(format!("{} is not an object; write {{\"{first}\": …}}, or .{first}=… as a word", shown(value)));
    };
    match fields.keys().find(|other| !known.contains(&other.as_str())) {
        Some(other) => Err(match known {
            [only] => format!("unknown field '{}'; the only field is '{only}'", other.escape_debug()),
            _ => format!("unknown field '{}'; the fields are {}", other.escape_debug(), known.join(", ")),
        }),
        None => Ok(fields),
    }
}

/// HAProxy's server-state files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateFiles {
    /// The file of the only instance.
    One(String),
    /// The files of instances or of their backends, by `instance` or `instance/backend`.
    Each(Vec<(String, String)>),
}

impl StateFiles {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(path) => Self::path(path).map(Self::One),
            Value::Object(fields) => {
                let each = fields.iter().map(|(name, path)| {
                    let path = path.as_str().ok_or_else(|| format!("{} is not a path", shown(path)));
                    Ok::<_, String>((name.clone(), Self::path(path?)?))
                });
                let each: Vec<_> = each.collect::<Result<_, _>>()?;
                if each.is_empty() { Err("it does not name an instance".to_owned()) } else { Ok(Self::Each(each)) }
            }
            _ => Err(format!("{} is neither a path nor an object of names and paths", shown(value))),
        }
    }

    fn path(path: &str) -> Result<String, String> {
        if path.starts_with('/') && path.len() < 4096 && !path.ends_with('/') && !path.chars().any(char::is_control) {
            Ok(path.to_owned())
        } else {
            Err(format!("{} is not the absolute path of a file", shown(&Value::from(path))))
        }
    }
}

/// The requested instances, as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instances(pub Vec<Instance>);

/// One instance, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instance {
    /// A name or an address.
    Text(String),
    /// A name for an address.
    Pair {
        /// What the report calls it.
        name: String,
        /// Where it listens.
        socket: String,
    },
}

impl Instances {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Array(items) => {
                items.iter().filter(|item| !is_absent(item)).map(Self::one).collect::<Result<_, _>>().map(Self)
            }
            Value::Object(_) => Ok(Self(vec![Self::one(value)?])),
            _ => Ok(Self(Names::from_value(value)?.0.into_iter().map(Instance::Text).collect())),
        }
    }

    fn one(value: &Value) -> Result<Instance, String> {
        let Value::Object(fields) = value else { return name(value).map(Instance::Text) };
        let text = |key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
        match (text("name"), text("socket"), fields.len()) {
            (Some(name), Some(socket), 2) => Ok(Instance::Pair { name, socket }),
            _ => Err(format!(
                "{} is not an instance; write a name, an address, or {{\"name\": …, \"socket\": …}}",
                shown(value)
            )),
        }
    }
}

/// Defines a type whose values are words, some of which have synonyms.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $text:literal])+ $variant:ident = $($word:literal)|+,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $text])+ $variant,)+ }

        read_words! { $name { $($(#[doc = $text])+ $variant = $($word)|+,)+ } }
    };
}

/// Reads a type from the words that stand for its values.
macro_rules! read_words {
    ($name:ident { $($(#[doc = $text:literal])+ $variant:ident = $($word:literal)|+,)+ }) => {
        impl $name {
            /// Every word that is accepted.
            const WORDS: &[&str] = &[$($($word),+),+];

            fn from_value(value: &Value) -> Result<Self, String> {
                match value.as_str() {
                    $(Some($($word)|+) => Ok(Self::$variant),)+
                    _ => Err(none_of(value, Self::WORDS)),
                }
            }
        }

        #[cfg(test)]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "oneOf": [$({ "enum": [$($word),+], "description": concat!($($text),+).trim() }),+]
                })
            }
        }
    };
}

words! {
    /// The requested administrative state.
    StateWord {
        /// In service.
        Ready = "ready" | "enabled" | "enable",
        /// Takes no new traffic except from persistence clients.
        Drain = "drain",
        /// In maintenance: takes no traffic.
        Maint = "maint" | "disabled" | "disable",
        /// What each server was, with its weight, before it was taken out.
        Restore = "restore",
    }
}

words! {
    /// An administrative state that is expected.
    ExpectedState {
        /// In service.
        Ready = "ready" | "enabled" | "enable",
        /// Takes no new traffic except from persistence clients.
        Drain = "drain",
        /// In maintenance: takes no traffic.
        Maint = "maint" | "disabled" | "disable",
    }
}

impl From<ExpectedState> for AdminState {
    fn from(state: ExpectedState) -> Self {
        match state {
            ExpectedState::Ready => Self::Ready,
            ExpectedState::Drain => Self::Drain,
            ExpectedState::Maint => Self::Maint,
        }
    }
}

impl From<StateWord> for Requested {
    fn from(state: StateWord) -> Self {
        match state {
            StateWord::Ready => Self::Ready,
            StateWord::Drain => Self::Drain,
            StateWord::Maint => Self::Maint,
            StateWord::Restore => Self::Restore,
        }
    }
}

words! {
    /// The operational state that is expected.
    OperationalWord {
        /// Takes no traffic: it is down, or in maintenance.
        Stopped = "stopped",
        /// Takes a growing share of traffic: `slowstart` is in progress.
        Starting = "starting",
        /// Takes traffic.
        Running = "running",
        /// Takes only the traffic of its persistence clients: its check answers 404.
        Stopping = "stopping",
    }
}

impl From<OperationalWord> for OperationalState {
    fn from(state: OperationalWord) -> Self {
        match state {
            OperationalWord::Stopped => Self::Stopped,
            OperationalWord::Starting => Self::Starting,
            OperationalWord::Running => Self::Running,
            OperationalWord::Stopping => Self::Stopping,
        }
    }
}

read_words! {
    Switch {
        /// They run.
        Enabled = "enabled",
        /// They are paused.
        Disabled = "disabled",
    }
}

words! {
    /// What happens to servers that still have sessions when a drain times out.
    OnTimeout {
        /// They stay in drain, and the run fails. The default.
        Fail = "fail",
        /// They are rolled back, and so is everything else that the run has changed; the run fails.
        Rollback = "rollback",
        /// They go to maint, with a warning; their sessions continue.
        Maint = "maint",
        /// They go to maint and their sessions are ended, with a warning.
        Shutdown = "shutdown",
    }
}

words! {
    /// What happens to changes when a later part fails.
    OnFailure {
        /// They are kept. The default.
        Keep = "keep",
        /// They are rolled back, in reverse order.
        Rollback = "rollback",
    }
}

words! {
    /// What a listed name or pattern that matches nothing means.
    OnMissing {
        /// An error if no selected instance has it. The default.
        Fail = "fail",
        /// An error if any selected instance lacks it.
        FailEach = "fail_each",
        /// An error if no instance of this host has it, selected or not.
        ElsewhereOk = "elsewhere_ok",
        /// Never an error.
        Ignore = "ignore",
    }
}

words! {
    /// The state in which a server that leaves maint is checked first.
    Via {
        /// Drain: HAProxy checks it and gives it no new traffic; it becomes ready once a check has passed since it left
        /// maint. The default. A server without checks becomes ready at once.
        Drain = "drain",
        /// Ready: clients may find out that it does not work before a check does.
        Ready = "ready",
    }
}

words! {
    /// In how many of its matched backends a server must take traffic.
    Need {
        /// In each of them. The default.
        All = "all",
        /// In at least one on each instance, as with a primary and its replicas; in the others it becomes ready once a
        /// check has failed there, or when the time is up: before that, HAProxy would give it the traffic of a role that
        /// it may not have.
        Any = "any",
    }
}

words! {
    /// What happens to servers that another owner has taken out.
    OnOwned {
        /// The whole run is refused (`owned`), and nothing is changed anywhere. The default.
        Fail = "fail",
        /// They are left alone, with a warning; the others are managed. For runs that repeat by themselves.
        Skip = "skip",
    }
}

words! {
    /// How processes from before a reload that still run count.
    OldProcesses {
        /// Their sessions count if they can be seen; otherwise they are a warning. The default.
        Count = "count",
        /// No server is free until they have ended, within the time of `drain` or `wait`.
        Wait = "wait",
    }
}

words! {
    /// What an instance that does not answer means.
    OnUnreachable {
        /// An error, and nothing is changed anywhere. The default.
        Fail = "fail",
        /// A warning; the other instances are managed.
        Skip = "skip",
    }
}

fn none_of(value: &Value, words: &[&str]) -> String {
    let hint = value.as_str().and_then(|word| nearest(word, words.iter().copied()));
    let hint = hint.map_or_else(String::new, |word| format!("; did you mean '{word}'?"));
    format!("{} is not one of {}{hint}", shown(value), words.join(", "))
}

#[cfg(test)]
mod schema {
    //! The schemas of the types that read more than one JSON type.

    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{
        Drain, Flag, Instance, Instances, MinAvailable, Names, Pause, Seconds, ShutdownSessions, StateFiles, Text,
        Wait, Weight,
    };

    macro_rules! schema {
        ($type:ty, $name:literal, $schema:tt) => {
            impl JsonSchema for $type {
                fn schema_name() -> Cow<'static, str> {
                    $name.into()
                }
                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!($schema)
                }
            }
        };
    }

    schema!(Names, "Names", {
        "description": "Names or patterns: a list, or a string with commas between them. A whole number counts as text.",
        "anyOf": [
            { "type": "string", "minLength": 1 },
            { "type": "integer", "minimum": 0 },
            { "type": "array", "minItems": 1, "items": {
                "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "integer", "minimum": 0 }, { "type": "null" }]
            }}
        ]
    });
    schema!(Flag, "Flag", {
        "description": "True or false, or a word or number with that meaning.",
        "anyOf": [
            { "type": "boolean" },
            { "enum": [0, 1] },
            { "type": "string", "pattern":
                r"^\s*([Tt][Rr][Uu][Ee]|[Yy][Ee][Ss]|[Oo][Nn]|[Tt]|[Yy]|1|[Ff][Aa][Ll][Ss][Ee]|[Nn][Oo]|[Oo][Ff][Ff]|[Ff]|[Nn]|0)\s*$" }
        ]
    });
    schema!(Seconds, "Seconds", {
        "description": "A time in seconds, as a number or as text that is a number.",
        "anyOf": [
            { "type": "number", "minimum": 0.001, "maximum": 86400 },
            { "type": "string", "pattern": r"^\s*\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$" }
        ]
    });
    schema!(Weight, "Weight", {
        "description": "A weight from 0 to 256, or a percentage of the configured weight such as \"50%\" (at most \"25600%\").",
        "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 256 },
            { "type": "string", "pattern": r"^\s*([0-9]+%|[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)\s*$" }
        ]
    });
    schema!(Pause, "Pause", {
        "description": "A time in seconds that may be 0, as a number or as text that is a number.",
        "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 86400 },
            { "type": "string", "pattern": r"^\s*\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$" }
        ]
    });
    schema!(Text, "Text", {
        "description": "A line of text, at most 200 characters; a whole number counts as text.",
        "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "integer", "minimum": 0 }]
    });
    schema!(MinAvailable, "MinAvailable", {
        "description": "A number of servers, or a percentage from \"0%\" to \"100%\".",
        "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 1_000_000 },
            { "type": "string", "pattern": r"^\s*([0-9]{1,3}%|[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)\s*$" }
        ]
    });
    schema!(StateFiles, "StateFiles", {
        "description": "An absolute path, or an object whose keys are `instance` or `instance/backend`, and whose values are absolute paths.",
        "anyOf": [
            { "type": "string", "pattern": "^/" },
            { "type": "object", "minProperties": 1, "additionalProperties": { "type": "string", "pattern": "^/" } }
        ]
    });

    /// The schema of a field that is an object, or `true` for the object with its defaults.
    fn object_or_flag(generator: &mut SchemaGenerator, properties: serde_json::Value) -> Schema {
        let flag = generator.subschema_for::<Flag>();
        json_schema!({
            "anyOf": [flag, { "type": "object", "additionalProperties": false, "properties": properties }]
        })
    }

    impl JsonSchema for Drain {
        fn schema_name() -> Cow<'static, str> {
            "Drain".into()
        }
        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            let properties = serde_json::json!({
                "timeout": {
                    "description": "The longest wait for sessions to end, in seconds; from 0 (they are polled twice) to 86400.",
                    "default": 300,
                    "anyOf": [generator.subschema_for::<Pause>(), { "type": "null" }]
                },
                "on_timeout": {
                    "description": "What happens to servers that still have sessions then.",
                    "default": "fail",
                    "anyOf": [generator.subschema_for::<super::OnTimeout>(), { "type": "null" }]
                },
                "stable": {
                    "description": "How long a server must have had no session, old or new, in seconds; from 0 to 86400.",
                    "default": 0,
                    "anyOf": [generator.subschema_for::<Pause>(), { "type": "null" }]
                }
            });
            object_or_flag(generator, properties)
        }
    }

    impl JsonSchema for ShutdownSessions {
        fn schema_name() -> Cow<'static, str> {
            "ShutdownSessions".into()
        }
        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            let properties = serde_json::json!({
                "over": {
                    "description": "The time over which the sessions are ended evenly, in seconds; from 0 (all at once) to 86400.",
                    "default": 0,
                    "anyOf": [generator.subschema_for::<Pause>(), { "type": "null" }]
                }
            });
            object_or_flag(generator, properties)
        }
    }

    impl JsonSchema for Wait {
        fn schema_name() -> Cow<'static, str> {
            "Wait".into()
        }
        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            let properties = serde_json::json!({
                "timeout": {
                    "description": "The longest wait, in seconds; from 0 to 86400.",
                    "default": 60,
                    "anyOf": [generator.subschema_for::<Pause>(), { "type": "null" }]
                },
                "stable": {
                    "description": "After `ready`: how long a server must take traffic without interruption, in seconds; from 0 to 86400.",
                    "default": 0,
                    "anyOf": [generator.subschema_for::<Pause>(), { "type": "null" }]
                },
                "via": {
                    "description": "With `ready`: the state in which a server that leaves maint is checked first.",
                    "default": "drain",
                    "anyOf": [generator.subschema_for::<super::Via>(), { "type": "null" }]
                },
                "need": {
                    "description": "With `ready`: in how many of its matched backends a server must take traffic.",
                    "default": "all",
                    "anyOf": [generator.subschema_for::<super::Need>(), { "type": "null" }]
                }
            });
            object_or_flag(generator, properties)
        }
    }

    schema!(Instance, "Instance", {
        "description": "One instance: a name, an address, or a name for an address.",
        "anyOf": [
            { "type": "string", "minLength": 1 },
            { "type": "integer", "minimum": 0 },
            { "type": "object", "required": ["name", "socket"], "additionalProperties": false,
              "properties": { "name": { "type": "string", "minLength": 1 }, "socket": { "type": "string", "minLength": 1 } } }
        ]
    });

    impl JsonSchema for Instances {
        fn schema_name() -> Cow<'static, str> {
            "Instances".into()
        }
        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            let one = generator.subschema_for::<Instance>();
            json_schema!({
                "description": "One instance, several in a string with commas between them, or a list.",
                "anyOf": [one, { "type": "array", "minItems": 1, "items": { "anyOf": [one, { "type": "null" }] } }]
            })
        }
    }
}
