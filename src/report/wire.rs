//! The report as it is written; the JSON Schema is generated from these types.

use std::io::{self, Write};
use std::ops::Deref;
use std::rc::Rc;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::Servers;
use crate::decide::plan::State;
use crate::model::error::{Error, ErrorKind};
use crate::model::state::{AdminFlags, AdminState, OperationalState, Reason};

/// What `haproxy_server` answers: what was changed, what failed, and every server as it was read back.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(title = "haproxy_server report", deny_unknown_fields))]
pub struct Report<'a> {
    /// Whether the administrative state, the weight or the checks of a server or a server-state file was changed; in a dry
    /// run, whether it would be.
    pub changed: bool,
    /// Whether anything failed. `false` means that every matched server was read back in the wanted state.
    pub failed: bool,
    /// Whether this was a dry run, in which nothing is changed.
    pub dry_run: bool,
    /// In a status report: whether every matched server is ready and takes traffic (running or starting).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// What was done or what failed, in one sentence.
    pub msg: String,
    /// The same as `msg`, under the name that Salt shows.
    pub comment: String,
    /// The administrative state that was asked for; missing where none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<AdminState>,
    /// Every matched server: instances as asked for, servers as HAProxy lists them.
    #[cfg_attr(test, schemars(with = "Vec<ServerReport<'a>>"))]
    pub servers: Servers<'a>,
    /// Every instance that was asked, as asked for, or by name where they were discovered.
    pub instances: Vec<InstanceReport<'a>>,
    /// What is worth knowing although it is no failure, a sentence each.
    pub warnings: Vec<String>,
    /// With `diff`: the servers before and after, a line each, sorted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<Diff>,
    /// The first failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    /// The first failure in the form of a Bolt task, where the request came from one (with `_task`).
    #[serde(rename = "_error", skip_serializing_if = "Option::is_none")]
    pub task_error: Option<TaskError>,
}

/// One matched server.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct ServerReport<'a> {
    /// The instance that it is on.
    pub instance: &'a str,
    /// The backend that it is in.
    pub backend: &'a str,
    /// The server.
    pub server: &'a str,
    /// Its address and port, or `-` where HAProxy knows none.
    pub address: &'a str,
    /// Whether its administrative state, its weight or its checks were changed, or would be in a dry run. `false` where
    /// they were set back, `true` where HAProxy may have carried out a command whose effect could not be read back.
    pub changed: bool,
    /// Whether it is not as wanted, other than because it was set back when something else had failed.
    pub failed: bool,
    /// In a status report: whether it is ready and takes traffic (running or starting).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// How it was before the run.
    #[cfg_attr(test, schemars(with = "StateReport"))]
    pub before: Shown,
    /// How it was read back; in a dry run, how it would be. `null` where it could not be read back.
    #[cfg_attr(test, schemars(with = "Option<StateReport>"))]
    pub after: Option<Shown>,
    /// In a status report, and where sessions were waited for: its sessions when they were last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// In a status report, and where sessions were waited for: the requests in its queue when they were last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// In a status report: what its last health check found, in HAProxy's words (`L7OK`, `L4CON`; management.txt 9.1,
    /// `check_status`); missing without checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<&'a str>,
    /// In a status report: the server that it tracks, as `backend/server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracks: Option<&'a str>,
    /// In a status report: who has taken it out, where that was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<&'a str>,
    /// In a status report: why it was taken out, where that was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// In a status report: until when it was to be out (RFC 3339, UTC), where that was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// In a status report: whether that time is over, so that `ready` is no longer refused; missing without `expires`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired: Option<bool>,
    /// Whether the run has set it back to what it was before (`on_failure`, or `on_timeout` of `drain`); missing where it
    /// has not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rolled_back: bool,
    /// The commands that were sent to HAProxy for it, or would be in a dry run.
    pub commands: &'a [Box<str>],
    /// Why it is not as wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

/// The state of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct StateReport {
    /// The effective administrative state, whatever its cause.
    pub admin_state: AdminState,
    /// What the checks make of it.
    pub operational_state: OperationalState,
    /// The weight that is in force, from 0 to 256.
    pub weight: u32,
    /// Which flags make the administrative state what it is; none where it is ready.
    pub reasons: Vec<Reason>,
    /// HAProxy's own mask of administrative flags (`srv_admin_state`), in which several causes can hold at once.
    pub admin_flags: AdminFlags,
}

impl From<&State> for StateReport {
    fn from(state: &State) -> Self {
        Self {
            admin_state: state.flags.effective(),
            operational_state: state.operational,
            weight: state.weight,
            reasons: state.flags.reasons(),
            admin_flags: state.flags,
        }
    }
}

/// A state with its text.
#[derive(Debug, Clone)]
pub struct Shown(Rc<(StateReport, Option<Box<RawValue>>)>);

impl Deref for Shown {
    type Target = StateReport;

    fn deref(&self) -> &StateReport {
        &self.0.0
    }
}

impl Serialize for Shown {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &*self.0 {
            (_, Some(text)) => text.serialize(serializer),
            (state, None) => state.serialize(serializer),
        }
    }
}

/// Writes a state once for all the servers in a row that are in it: most are in one of two.
#[derive(Debug, Default)]
pub struct States([Option<(State, Shown)>; 2]);

impl States {
    /// Returns a state with its text.
    pub fn show(&mut self, state: &State) -> Shown {
        if let Some((_, shown)) = self.0.iter().flatten().find(|(known, _)| known == state) {
            return shown.clone();
        }
        let report = StateReport::from(state);
        let text = to_raw_value(&report).ok();
        let shown = Shown(Rc::new((report, text)));
        let [newest, oldest] = &mut self.0;
        *oldest = newest.replace((*state, shown.clone()));
        shown
    }
}

/// One instance that was asked.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct InstanceReport<'a> {
    /// Its name.
    pub name: &'a str,
    /// The address of the socket that it was asked at, in HAProxy's notation.
    pub socket: &'a str,
    /// The version of its HAProxy; missing where it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'a str>,
    /// The id of the process that answered last; missing where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Whether a server on it or its server-state file was changed, or would be in a dry run.
    pub changed: bool,
    /// Whether it, or a server on it, failed. An instance that `on_unreachable: skip` passes over has not failed.
    pub failed: bool,
    /// How many of its servers matched.
    pub matched: usize,
    /// Its server-state file, where that is kept in step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_file: Option<StateFileReport<'a>>,
    /// Its server-state files of single backends, where those are kept in step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state_files: Vec<BackendStateFileReport<'a>>,
    /// Why it could not be managed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

/// The server-state file of an instance.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct StateFileReport<'a> {
    /// Its path.
    pub path: &'a str,
    /// Whether it was written, or would be in a dry run.
    pub changed: bool,
}

/// The server-state file of a backend.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct BackendStateFileReport<'a> {
    /// The backend, whose rows alone are in it.
    pub backend: &'a str,
    /// Its path.
    pub path: &'a str,
    /// Whether it was written, or would be in a dry run.
    pub changed: bool,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct ErrorReport {
    /// What went wrong, as a stable word.
    pub kind: ErrorKind,
    /// What happened, where, and what to do about it, in one sentence.
    pub msg: String,
    /// The instance that it happened on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The backend that it happened on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The server that it happened on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Whether the same request may succeed later without anybody changing it, the configuration or the rights.
    pub retryable: bool,
}

impl ErrorReport {
    /// Makes the failure of a report.
    #[must_use]
    pub fn new(error: &Error) -> Self {
        Self {
            kind: error.kind,
            msg: error.msg.clone(),
            instance: error.instance.clone(),
            backend: error.backend.clone(),
            server: error.server.clone(),
            retryable: error.kind.retryable(),
        }
    }
}

/// A failure in the form of a Bolt task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TaskError {
    /// `haproxy_server/` and the word of the failure.
    pub kind: String,
    /// The same sentence as in `error`.
    pub msg: String,
    /// The same failure as in `error`.
    pub details: ErrorReport,
}

impl TaskError {
    /// Makes the failure of a task.
    #[must_use]
    pub fn new(error: &ErrorReport) -> Self {
        Self { kind: format!("haproxy_server/{}", error.kind), msg: error.msg.clone(), details: error.clone() }
    }
}

/// The servers before and after, as Ansible shows a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct Diff {
    /// A line a server, as it was.
    pub before: String,
    /// A line a server, as it is, or would be.
    pub after: String,
}

/// Writes the value as one line of pure ASCII: Ansible splits its input at every kind of line end that Unicode has.
///
/// # Errors
/// When the writer fails.
pub fn to_ascii_json<W: Write, T: Serialize>(mut writer: W, value: &T) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(&mut writer, Ascii))?;
    writer.write_all(b"\n")
}

/// JSON without a space, in which everything beyond ASCII is escaped.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // Nearly every one is plain, and there are many of them.
        if fragment.is_ascii() {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(start) = rest.find(|sign: char| !sign.is_ascii()) {
            let (plain, other) = rest.split_at(start);
            writer.write_all(plain.as_bytes())?;
            let Some(sign) = other.chars().next() else { return Ok(()) };
            for unit in sign.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = other.get(sign.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_state_is_written_as_it_is_whatever_came_before(
            states in prop::collection::vec((0u32..=127, 0u32..=3, 0u32..=2), 1..20),
        ) {
            let mut written = States::default();
            for (mask, operational, weight) in states {
                let operational = OperationalState::from_number(operational).unwrap();
                let state = State { flags: AdminFlags(mask), operational, weight, health: None, agent: None };
                let (shown, alone) = (written.show(&state), StateReport::from(&state));
                prop_assert_eq!(serde_json::to_string(&shown).unwrap(), serde_json::to_string(&alone).unwrap());
                prop_assert_eq!(&*shown, &alone);
            }
        }

        #[test]
        fn every_text_is_one_ascii_line_that_reads_back(text in any::<String>()) {
            let mut json = Vec::new();
            to_ascii_json(&mut json, &text).unwrap();
            prop_assert!(json.is_ascii());
            prop_assert_eq!(json.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }
    }
}
