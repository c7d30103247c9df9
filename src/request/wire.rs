//! The request as it is written: one type a kind of field, each of which reads what hosts send for it.
//!
//! The conversions are those of Ansible's `module_utils/common/validation.py`; where its versions differ, or where a
//! conversion would hide a mistake (`server: 1.10` in YAML is the number 1.1), the value is refused.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::model::name::nearest;
use crate::model::state::AdminState;

/// What Ansible puts where a variable is `omit`; a value that starts so was never given.
const OMITTED: &str = "__omit_place_holder__";

/// A request to `haproxy_server`: which servers, on which HAProxy instances, and what is to become of them.
///
/// A request with none of `state`, `weight`, `health` and `agent` is a status request and changes nothing. Keys that start with `_`
/// belong to the calling tool: `_ansible_check_mode` and `_noop` mean `dry_run`, `_ansible_diff` means `diff`, and the
/// others are ignored. A value of `null` is the same as leaving the field out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(title = "haproxy_server request", deny_unknown_fields))]
#[serde(default)]
pub struct Wire {
    /// The servers: names, `backend/server`, or patterns of `*`, `?` and `[…]` on each side of at most one `/`; a
    /// string (several are separated by commas) or a list. Names are case-sensitive. Required with any change; a
    /// status request without it is about all servers.
    #[cfg_attr(test, schemars(example = &"web1", example = ["web1", "app*/web[2-3]"]))]
    pub server: Option<Names>,
    /// The wanted administrative state. `ready` takes traffic, `drain` takes only the traffic of its persistence
    /// clients, `maint` takes none. Also accepted: `enabled` and `enable` for `ready`, `disabled` and `disable` for
    /// `maint`.
    #[cfg_attr(test, schemars(example = &"maint"))]
    pub state: Option<WantedState>,
    /// The backends in which servers are looked for: names or patterns, as a string or a list. All of them by default.
    #[cfg_attr(test, schemars(example = &"app", example = ["i[0-9]*_puppet_masters"]))]
    pub backend: Option<Names>,
    /// The HAProxy instances of this host: names of those that are discovered, addresses of stats sockets in HAProxy's
    /// notation (`/path`, `unix@/path`, `abns@name`, `ipv4@127.0.0.1:9999`, `ipv6@[::1]:9999`), or objects with
    /// `name` and `socket`; a string (several are separated by commas) or a list. All that are discovered by default.
    #[cfg_attr(test, schemars(example = ["http", "puppet"], example = [serde_json::json!({"name": "ldap", "socket": "/run/haproxy/ldap.sock"})]))]
    pub instances: Option<Instances>,
    /// The instances of this host that are left alone on purpose: names or patterns of `*`, `?` and `[…]`, as a string or
    /// a list. Discovery passes over them and says nothing of them, also where it could not manage them. It has no effect
    /// on instances that `instances` names. None by default.
    #[cfg_attr(test, schemars(example = &"staging", example = ["test-*", "edge"]))]
    pub ignore_instances: Option<Names>,
    /// The wanted weight: a number from 0 to 256, or a share of the configured weight as `"50%"`. It is compared
    /// first, like the state. A server of weight 0 takes no new traffic but that of its persistence clients.
    #[cfg_attr(test, schemars(example = 10, example = &"50%"))]
    pub weight: Option<WantedWeight>,
    /// Whether health checks of the servers run: `enabled` resumes them, `disabled` pauses them. A server that has none
    /// is left as it is, with a warning. Left as they are by default.
    #[cfg_attr(test, schemars(example = &"disabled"))]
    pub health: Option<Switch>,
    /// Whether agent checks of the servers run: `enabled` resumes them, `disabled` pauses them, so that an agent does not
    /// set the state back. A server that has none is left as it is, with a warning. Left as they are by default.
    #[cfg_attr(test, schemars(example = &"disabled"))]
    pub agent: Option<Switch>,
    /// With `state: maint`: drains the servers first, in all backends of all instances at once and under one deadline;
    /// each goes to maint as soon as it has no session and no queue left (`scur` and `qcur` of `show stat`, in which an idle
    /// keep-alive connection is no session). A server that is down goes there at once, one that is in maint stays there.
    /// `true` stands for 300 s and `fail`. Not asked for by default.
    #[cfg_attr(test, schemars(example = true, example = serde_json::json!({"timeout": 60, "on_timeout": "maint"})))]
    pub drain: Option<Drain>,
    /// With `state: maint`: ends the sessions that are left after the change, again until none is left or the time is
    /// over (that of `drain`, else that of `wait`, else `timeout`), which fails as `not_drained`. Clients see their
    /// connections cut. `false` by default.
    #[cfg_attr(test, schemars(example = true))]
    pub shutdown_sessions: Option<Flag>,
    /// Waits after the change of `state`: after `ready` until each server takes traffic (its check has passed since the
    /// change, its weight is above 0 and slowstart is over), after `drain` and `maint` until no session is left. A check
    /// with `fall 1` does not show that it has passed; with it a server must stay up for 5 s. A server without a check, or
    /// with a paused one, counts at once. `true` stands for 60 s. Not asked for by default.
    #[cfg_attr(test, schemars(example = true, example = serde_json::json!({"timeout": 120, "stable": 5})))]
    pub wait: Option<Wait>,
    /// Refuses, before anything is sent anywhere, a change that lowers the number of usable servers of a backend below
    /// this. Usable are servers that are ready, running or starting, and have a weight above 0; backup servers count as
    /// HAProxy uses them: only where no other is usable, and then as one. Servers that track a changed one count as they
    /// would be then. It needs the lock that keeps other runs out. No guard by default.
    #[cfg_attr(test, schemars(example = serde_json::json!({"min_available": 1}), example = serde_json::json!({"min_available": "50%"})))]
    pub guard: Option<Guard>,
    /// Refuses, before anything is sent anywhere, a change while a matched server is in another administrative state
    /// than this. It is the state before the change, also where nothing is to be changed: a second run may fail with
    /// `expectation_failed`. Nothing is expected by default.
    #[cfg_attr(test, schemars(example = serde_json::json!({"admin_state": "ready"})))]
    pub expect: Option<Expect>,
    /// What happens to what this run has changed when a later part of it fails, or when a signal ends it. What somebody
    /// else has changed meanwhile is left alone. `keep` by default.
    pub on_failure: Option<OnFailure>,
    /// Keeps HAProxy's server-state file in step with the state of the servers, so that a reload keeps it: the absolute
    /// path of the file (where one instance is asked), or an object of instance names and paths. The rows of the matched
    /// servers are compared also where HAProxy needs no command; a difference is written and is `changed`. The configuration
    /// must load the file (`server-state-file` and `load-server-state-from-file`). None by default.
    #[cfg_attr(test, schemars(example = serde_json::json!({"http": "/var/lib/haproxy/http.state"})))]
    pub state_file: Option<StateFiles>,
    /// Who takes the server out, or puts it back: recorded on this host with `drain` and `maint`; `ready` is refused
    /// where another owner is recorded, or any where this is missing. At most 200 characters. Nobody by default.
    #[cfg_attr(test, schemars(example = &"alice"))]
    pub owner: Option<Text>,
    /// Why the server is taken out: recorded with `drain` and `maint`, and shown in a status. At most 200 characters. No
    /// reason by default.
    #[cfg_attr(test, schemars(example = &"disk replacement"))]
    pub reason: Option<Text>,
    /// Until when the server is to be out, with `drain` and `maint`: a time in RFC 3339 with its offset, or `+` and a
    /// duration in units of s, m, h, d and w; in the future, at most a hundred years ahead. After it `ready` is no longer
    /// refused, and a status says `expired`; the server is not put back by itself. Never by default, as long as the server
    /// stays in that state.
    #[cfg_attr(test, schemars(example = &"+2h", example = &"2100-01-01T12:00:00Z"))]
    pub expires: Option<Text>,
    /// With `state: ready`: puts a server back although another owner is recorded. `false` by default.
    #[cfg_attr(test, schemars(example = true))]
    pub ignore_owner: Option<Flag>,
    /// The longest wait for another run that changes servers of the same HAProxy, in seconds; from 0 (one try) to 86400,
    /// 60 by default. It counts anew each time that the lock is taken again after a wait.
    #[cfg_attr(test, schemars(example = 5))]
    pub lock_timeout: Option<Pause>,
    /// What a listed server or backend means that matches nothing. `fail` by default.
    pub on_missing: Option<OnMissing>,
    /// What an instance means that cannot be asked. `fail` by default.
    pub on_unreachable: Option<OnUnreachable>,
    /// Plans and reports, but sends nothing that changes anything. `false` by default.
    pub dry_run: Option<Flag>,
    /// Adds `diff` to the report: a line a server before and after; in the text form for each server that changes.
    /// `false` by default.
    pub diff: Option<Flag>,
    /// The longest that one instance may take to answer, in seconds; more than 0, at most 86400, 10 by default. A dump
    /// that has begun is read to its end, or until 5 s of silence or 300 s in all, however short this is.
    #[cfg_attr(test, schemars(example = 2.5))]
    pub timeout: Option<Seconds>,
}

/// The keys of [`Wire`], for the nearest one to a key that is unknown.
pub(crate) const KNOWN: [&str; 25] = [
    "server",
    "state",
    "backend",
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
    "lock_timeout",
    "on_missing",
    "on_unreachable",
    "dry_run",
    "diff",
    "timeout",
];

/// Reads the fields of an object from which the caller's keys have been taken.
pub(super) fn read(object: Map<String, Value>) -> Result<Wire, String> {
    if let Some(key) = object.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        let shown: String = key.chars().take(80).collect();
        let hint = nearest(&key.replace('-', "_"), KNOWN)
            .map_or_else(|| format!("; known are {}", KNOWN.join(", ")), |known| format!("; did you mean '{known}'?"));
        return Err(format!("'{}' is no field of a request{hint}", shown.escape_debug()));
    }
    let mut object = object;
    object.retain(|_, value| !is_absent(value));
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| {
        let path = error.path().to_string();
        format!("'{path}': {}", error.into_inner())
    })
}

/// What the calling tool says of itself with its own keys.
pub(super) struct Caller {
    pub(super) is_task: bool,
    pub(super) dry_run: crate::model::error::Result<bool>,
    pub(super) diff: crate::model::error::Result<bool>,
}

/// Takes the keys that start with `_` out of the object.
pub(super) fn take_callers_keys(object: &mut Map<String, Value>) -> Caller {
    let flag = |key: &str| match object.get(key) {
        Some(value) if !is_absent(value) => {
            Flag::from_value(value).map(|flag| flag.0).map_err(|why| super::bad(format!("'{key}': {why}")))
        }
        _ => Ok(false),
    };
    let dry_run = flag("_ansible_check_mode").and_then(|check| Ok(flag("_noop")? || check));
    let diff = flag("_ansible_diff");
    let is_task = object.contains_key("_task");
    object.retain(|key, _| !key.starts_with('_'));
    Caller { is_task, dry_run, diff }
}

/// Puts the value of one `KEY=VALUE` word into the object, at `a.b` inside the object `a`.
pub(super) fn insert(object: &mut Map<String, Value>, key: &str, value: &str) -> Result<(), String> {
    let twice = || format!("'{}' is given twice", key.escape_debug());
    let mut parts = key.split('.');
    let Some(first) = parts.next().filter(|part| !part.is_empty()) else {
        return Err(format!("'{}={}' has no key before the '='", key.escape_debug(), value.escape_debug()));
    };
    match (parts.next(), parts.next()) {
        (None, _) => match object.insert(first.to_owned(), Value::from(value)) {
            None => Ok(()),
            Some(_) => Err(twice()),
        },
        (Some(second), None) => {
            let inner = object.entry(first).or_insert_with(|| Value::Object(Map::new()));
            match inner.as_object_mut().map(|inner| inner.insert(second.to_owned(), Value::from(value))) {
                Some(None) => Ok(()),
                Some(Some(_)) | None => Err(twice()),
            }
        }
        (Some(_), Some(_)) => Err(format!("'{}' has more than one '.'", key.escape_debug())),
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

/// JSON in which no object has a key twice.
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
                        return Err(A::Error::custom(format!("the key '{}' is there twice", key.escape_debug())));
                    }
                    fields.insert(key, value.0);
                }
                Ok(Value::Object(fields))
            }
        }
        deserializer.deserialize_any(AnyValue).map(Strict)
    }
}

/// Reads a field by a function of the value that was sent.
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
    WantedWeight,
    MinAvailable,
    Instances,
    StateFiles,
    Drain,
    Wait,
    Guard,
    Expect,
    WantedState,
    Switch,
    OnTimeout,
    OnMissing,
    OnUnreachable,
    OnFailure
);

/// Shows a value that was refused, cut to what fits into a sentence.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A list of names or patterns, which may be written as one string with commas.
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
                Err(format!("{} is no name and no list of names", shown(value)))
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
            Err(format!("{} is no name; write names in quotes", shown(value)))
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
            return Err(format!("{} is no time from 0.001 to 86400 seconds", shown(value)));
        }
        Ok(Self(seconds))
    }
}

/// A time in seconds that may be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause(pub Duration);

impl Pause {
    fn from_value(value: &Value) -> Result<Self, String> {
        let number = number(value).ok_or_else(|| format!("{} is no number of seconds", shown(value)))?;
        if !(0.0..=Seconds::LONGEST).contains(&number) {
            return Err(format!("{} is no time from 0 to 86400 seconds", shown(value)));
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
            return Err(format!("it has more than {} characters", Self::MAX));
        }
        if text.chars().any(char::is_control) {
            return Err(format!("{} has a control character", shown(value)));
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

/// A weight that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedWeight {
    /// From 0 to 256, as HAProxy counts it.
    Absolute(u32),
    /// A share of the configured weight.
    Percent(u32),
}

impl WantedWeight {
    /// The largest weight of HAProxy (`SRV_UWGHT_MAX`).
    const MAX: u32 = 256;

    /// The largest share that HAProxy computes with (`server_parse_weight_change_request()` in its `src/server.c`).
    const MAX_PERCENT: u32 = 25_600;

    fn from_value(value: &Value) -> Result<Self, String> {
        const RANGE: &str = "is no weight: a number from 0 to 256, or a share of the configured one as \"50%\"";
        let refuse = || format!("{} {RANGE}", shown(value));
        if let Value::String(text) = value
            && let Some(percent) = text.trim().strip_suffix('%')
        {
            let is_decimal = !percent.is_empty() && percent.bytes().all(|byte| byte.is_ascii_digit());
            let percent = is_decimal.then(|| percent.parse().ok()).flatten().ok_or_else(refuse)?;
            return if percent <= Self::MAX_PERCENT { Ok(Self::Percent(percent)) } else { Err(refuse()) };
        }
        let whole = number(value).filter(|number| number.fract() == 0.0).ok_or_else(refuse)?;
        (0..=Self::MAX).find(|weight| f64::from(*weight) == whole).map(Self::Absolute).ok_or_else(refuse)
    }

    /// Returns the weight that HAProxy makes of it for a server of the given configured weight.
    #[must_use]
    pub fn of(self, initial: u32) -> u32 {
        match self {
            Self::Absolute(weight) => weight,
            Self::Percent(percent) => (initial.saturating_mul(percent) / 100).min(Self::MAX),
        }
    }
}

impl fmt::Display for WantedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(weight) => write!(f, "{weight}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The fewest usable servers that a guard allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinAvailable {
    /// So many.
    Count(u32),
    /// A share of the backend's servers that the configuration does not disable, rounded up.
    Percent(u32),
}

impl MinAvailable {
    fn from_value(value: &Value) -> Result<Self, String> {
        let refuse = || format!("{} is no number of servers and no share from \"0%\" to \"100%\"", shown(value));
        if let Value::String(text) = value
            && let Some(percent) = text.trim().strip_suffix('%')
        {
            let percent = percent.parse().ok().filter(|percent| *percent <= 100).ok_or_else(refuse)?;
            return Ok(Self::Percent(percent));
        }
        let whole = number(value).filter(|number| number.fract() == 0.0 && (0.0..=1e6).contains(number));
        let digits = whole.ok_or_else(refuse)?.to_string();
        digits.parse().map(Self::Count).map_err(|_| refuse())
    }

    /// Returns the number for a backend of so many servers.
    #[must_use]
    pub fn of(self, servers: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => servers.saturating_mul(percent).div_ceil(100),
        }
    }
}

impl fmt::Display for MinAvailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Reads a field that is an object, or `true` for the object with its defaults; `false` means that it is not given.
fn object_or_flag<'v>(value: &'v Value, known: &[&str]) -> Result<Option<Cow<'v, Map<String, Value>>>, String> {
    match value {
        Value::Object(fields) => {
            if let Some(key) = fields.keys().find(|key| !known.contains(&key.as_str())) {
                return Err(format!("'{}' is none of its fields: {}", key.escape_debug(), known.join(", ")));
            }
            Ok(Some(Cow::Borrowed(fields)))
        }
        _ => match Flag::from_value(value) {
            Ok(Flag(true)) => Ok(Some(Cow::Owned(Map::new()))),
            Ok(Flag(false)) => Ok(None),
            Err(_) => Err(format!("{} is neither true nor an object of {}", shown(value), known.join(", "))),
        },
    }
}

/// Reads a field of an object by its type's own rule.
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

/// How servers are drained before they go to maint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain(pub Option<DrainBounds>);

/// The bounds of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainBounds {
    /// The longest that sessions are waited for.
    pub timeout: Duration,
    /// What happens to servers that have sessions then.
    pub on_timeout: OnTimeout,
}

impl Drain {
    fn from_value(value: &Value) -> Result<Self, String> {
        let Some(fields) = object_or_flag(value, &["timeout", "on_timeout"])? else { return Ok(Self(None)) };
        Ok(Self(Some(DrainBounds {
            timeout: field(&fields, "timeout", Pause::from_value)?.map_or(Duration::from_secs(300), |pause| pause.0),
            on_timeout: field(&fields, "on_timeout", OnTimeout::from_value)?.unwrap_or(OnTimeout::Fail),
        })))
    }
}

/// How the effect of a change is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(pub Option<WaitBounds>);

/// The bounds of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitBounds {
    /// The longest wait.
    pub timeout: Duration,
    /// How long a server must have taken traffic on end.
    pub stable: Duration,
}

impl Wait {
    fn from_value(value: &Value) -> Result<Self, String> {
        let Some(fields) = object_or_flag(value, &["timeout", "stable"])? else { return Ok(Self(None)) };
        Ok(Self(Some(WaitBounds {
            timeout: field(&fields, "timeout", Pause::from_value)?.map_or(Duration::from_secs(60), |pause| pause.0),
            stable: field(&fields, "stable", Pause::from_value)?.map_or(Duration::ZERO, |pause| pause.0),
        })))
    }
}

/// What a change must leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct Guard {
    /// The fewest usable servers of a backend: a number from 0 to 1000000, or a share from `"0%"` to `"100%"` of its servers
    /// that the configuration does not disable, rounded up.
    pub min_available: MinAvailable,
}

/// What must be so before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct Expect {
    /// The effective administrative state of every matched server.
    pub admin_state: WantedState,
}

impl Guard {
    fn from_value(value: &Value) -> Result<Self, String> {
        Ok(Self { min_available: only_field(value, "min_available", MinAvailable::from_value)? })
    }
}

impl Expect {
    fn from_value(value: &Value) -> Result<Self, String> {
        Ok(Self { admin_state: only_field(value, "admin_state", WantedState::from_value)? })
    }
}

/// Reads a field that is an object of one field.
fn only_field<T>(value: &Value, key: &str, read: impl FnOnce(&Value) -> Result<T, String>) -> Result<T, String> {
    let Value::Object(fields) = value else {
        return Err(format!("{} is no object; write {{\"{key}\": …}}, or as a word .{key}=…", shown(value)));
    };
    if let Some(other) = fields.keys().find(|other| *other != key) {
        return Err(format!("'{}' is none of its fields: {key}", other.escape_debug()));
    }
    field(fields, key, read)?.ok_or_else(|| format!("'{key}' is missing"))
}

/// HAProxy's server-state files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateFiles {
    /// That of the one instance.
    One(String),
    /// Those of instances by their names.
    Each(Vec<(String, String)>),
}

impl StateFiles {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(path) => Self::path(path).map(Self::One),
            Value::Object(fields) => {
                let each = fields.iter().map(|(name, path)| {
                    let path = path.as_str().ok_or_else(|| format!("{} is no path", shown(path)));
                    Ok::<_, String>((name.clone(), Self::path(path?)?))
                });
                let each: Vec<_> = each.collect::<Result<_, _>>()?;
                if each.is_empty() { Err("it names no instance".to_owned()) } else { Ok(Self::Each(each)) }
            }
            _ => Err(format!("{} is no path, and no object of instance names and paths", shown(value))),
        }
    }

    fn path(path: &str) -> Result<String, String> {
        if path.starts_with('/') && path.len() < 4096 && !path.ends_with('/') && !path.chars().any(char::is_control) {
            Ok(path.to_owned())
        } else {
            Err(format!("{} is no absolute path of a file", shown(&Value::from(path))))
        }
    }
}

/// The instances that are asked for, as they are written.
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
            _ => Err(format!("{} is no instance: a name, an address, or {{\"name\": …, \"socket\": …}}", shown(value))),
        }
    }
}

/// Defines a type whose values are words, some of which may be written in several ways.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $text:literal])+ $variant:ident = $($word:literal)|+,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $text])+ $variant,)+ }

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
    /// The administrative state that is asked for.
    WantedState {
        /// In service.
        Ready = "ready" | "enabled" | "enable",
        /// Takes no new traffic but that of its persistence clients.
        Drain = "drain",
        /// In maintenance: takes no traffic.
        Maint = "maint" | "disabled" | "disable",
    }
}

impl From<WantedState> for AdminState {
    fn from(state: WantedState) -> Self {
        match state {
            WantedState::Ready => Self::Ready,
            WantedState::Drain => Self::Drain,
            WantedState::Maint => Self::Maint,
        }
    }
}

words! {
    /// Whether checks run.
    Switch {
        /// They run.
        Enabled = "enabled",
        /// They are paused.
        Disabled = "disabled",
    }
}

words! {
    /// What happens to servers that have sessions when the time of a drain is over.
    OnTimeout {
        /// They stay in drain, and the run fails. The default.
        Fail = "fail",
        /// They are set back to what they were, and so is all else that the run has changed; the run fails.
        Rollback = "rollback",
        /// They go to maint, with a warning; their sessions go on.
        Maint = "maint",
        /// They go to maint and their sessions are ended, with a warning.
        Shutdown = "shutdown",
    }
}

words! {
    /// What happens to what was changed when a later part fails.
    OnFailure {
        /// It stays as it is. The default.
        Keep = "keep",
        /// It is set back to what it was before, in reverse.
        Rollback = "rollback",
    }
}

words! {
    /// What a listed name or pattern means that matches nothing.
    OnMissing {
        /// An error where no selected instance has it. The default.
        Fail = "fail",
        /// An error where one of the selected instances lacks it.
        FailEach = "fail_each",
        /// An error where no instance of this host has it, selected or not.
        ElsewhereOk = "elsewhere_ok",
        /// Never an error.
        Ignore = "ignore",
    }
}

words! {
    /// What an instance means that cannot be asked.
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
    format!("{} is none of {}{hint}", shown(value), words.join(", "))
}

#[cfg(test)]
mod schema {
    //! The schemas of the types that read more than one JSON type.

    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{
        Drain, Flag, Instance, Instances, MinAvailable, Names, Pause, Seconds, StateFiles, Text, Wait, WantedWeight,
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
        "description": "Names or patterns: a list, or a string in which commas separate them. A whole number is text.",
        "anyOf": [
            { "type": "string", "minLength": 1 },
            { "type": "integer", "minimum": 0 },
            { "type": "array", "minItems": 1, "items": {
                "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "integer", "minimum": 0 }, { "type": "null" }]
            }}
        ]
    });
    schema!(Flag, "Flag", {
        "description": "True or false; also as the words and numbers that stand for it.",
        "anyOf": [
            { "type": "boolean" },
            { "enum": [0, 1] },
            { "type": "string", "pattern":
                r"^\s*([Tt][Rr][Uu][Ee]|[Yy][Ee][Ss]|[Oo][Nn]|[Tt]|[Yy]|1|[Ff][Aa][Ll][Ss][Ee]|[Nn][Oo]|[Oo][Ff][Ff]|[Ff]|[Nn]|0)\s*$" }
        ]
    });
    schema!(Seconds, "Seconds", {
        "description": "A time in seconds, as a number or as text with a number.",
        "anyOf": [
            { "type": "number", "minimum": 0.001, "maximum": 86400 },
            { "type": "string", "pattern": r"^\s*\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$" }
        ]
    });
    schema!(WantedWeight, "Weight", {
        "description": "A weight from 0 to 256, or a share of the configured weight as \"50%\" (at most \"25600%\").",
        "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 256 },
            { "type": "string", "pattern": r"^\s*([0-9]+%|\+?[0-9]+(\.0*)?([eE]\+?[0-9]+)?)\s*$" }
        ]
    });
    schema!(Pause, "Pause", {
        "description": "A time in seconds that may be 0, as a number or as text with a number.",
        "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 86400 },
            { "type": "string", "pattern": r"^\s*\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$" }
        ]
    });
    schema!(Text, "Text", {
        "description": "A line of text, at most 200 characters; a whole number is text.",
        "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "integer", "minimum": 0 }]
    });
    schema!(MinAvailable, "MinAvailable", {
        "description": "A number of servers, or a share from \"0%\" to \"100%\".",
        "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 1_000_000 },
            { "type": "string", "pattern": r"^\s*([0-9]{1,3}%|\+?[0-9]+(\.0*)?([eE]\+?[0-9]+)?)\s*$" }
        ]
    });
    schema!(StateFiles, "StateFiles", {
        "description": "An absolute path, or an object of instance names and absolute paths.",
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
                    "description": "The longest that sessions are waited for, in seconds; from 0 (they are looked at once) to 86400.",
                    "default": 300,
                    "anyOf": [generator.subschema_for::<Pause>(), { "type": "null" }]
                },
                "on_timeout": {
                    "description": "What happens to servers that have sessions then.",
                    "default": "fail",
                    "anyOf": [generator.subschema_for::<super::OnTimeout>(), { "type": "null" }]
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
                    "description": "After `ready`: how long a server must have taken traffic on end, in seconds; from 0 to 86400.",
                    "default": 0,
                    "anyOf": [generator.subschema_for::<Pause>(), { "type": "null" }]
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
                "description": "One instance, several in a string with commas, or a list.",
                "anyOf": [one, { "type": "array", "minItems": 1, "items": { "anyOf": [one, { "type": "null" }] } }]
            })
        }
    }
}
