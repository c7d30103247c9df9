//! The report as it is written; the JSON Schema is generated from these types.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::Servers;
use crate::act::target::Sent;
use crate::haproxy::old_processes::OldProcess;
use crate::model::error::{Error, ErrorKind};
use crate::model::goal::Requested;
use crate::model::server::Server;
use crate::model::state::{AdminFlags, AdminState, OperationalState, Reason};

/// The report of `haproxy_server`: what was changed, what failed, and every server as it was read back.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(title = "haproxy_server report", deny_unknown_fields))]
pub struct Report<'a> {
    /// Whether the administrative state, weight or checks of a server, or a server-state file, was changed; in a dry run,
    /// whether it would be.
    pub changed: bool,
    /// Whether anything failed. `false` means that every matched server was read back in the
    /// requested state.
    pub failed: bool,
    /// Whether this was a dry run, which changes nothing.
    pub dry_run: bool,
    /// In a status: whether every matched server takes traffic, spare slots aside; with `guard`, whether every matched
    /// backend keeps at least that many servers in traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// What was done or what failed, in one sentence.
    pub msg: String,
    /// The same as `msg`, under the name that Salt shows.
    pub comment: String,
    /// The requested administrative state; missing if none was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Requested>,
    /// Every matched server: instances in the order of the request, servers in HAProxy's.
    #[cfg_attr(test, schemars(with = "Vec<ServerReport<'a>>"))]
    pub servers: Servers<'a>,
    /// Every instance that was asked: in the order of the request, or by name if they were discovered.
    pub instances: Vec<InstanceReport<'a>>,
    /// What is worth knowing although it is not a failure, a sentence each.
    pub warnings: Vec<String>,
    /// The version of the contract that this report keeps. It rises only where a valid request, a report, an exit code or
    /// an error kind no longer means what it did; new fields do not raise it.
    #[cfg_attr(test, schemars(with = "u32", extend("const" = CONTRACT)))]
    pub contract: Contract,
    /// The version of `haproxy_server`, so that whoever reads the report can tell which program ran on a host.
    #[cfg_attr(test, schemars(with = "String"))]
    pub version: Version,
    /// With `diff`: the servers before and after, a line each, sorted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<Diff>,
    /// The first failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    /// The first failure in the form of a Bolt task, if the request came from one (with `_task`).
    #[serde(rename = "_error", skip_serializing_if = "Option::is_none")]
    pub task_error: Option<TaskError>,
}

/// The version of the contract; the `$id` of each schema ends with it.
pub const CONTRACT: u32 = 1;

/// Always written as the version of the contract.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contract;

impl Serialize for Contract {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(CONTRACT)
    }
}

/// Always written as the version of the program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Version;

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(env!("CARGO_PKG_VERSION"))
    }
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
    /// Its address and port, or `-` if HAProxy does not know them.
    pub address: &'a str,
    /// Whether its administrative state, weight or checks were changed, or would be in a dry run. `false` if the change
    /// was rolled back, `true` if HAProxy may have carried out a command whose effect could not be read back.
    pub changed: bool,
    /// Whether it is not as requested, unless only because it was rolled back when something else failed.
    pub failed: bool,
    /// In a status: whether it takes traffic: it is ready, running or starting, its weight is above 0, and its backend is
    /// neither `disabled` nor unpublished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// In a status: why it takes no traffic, in a few words (`weight 0`, `backend disabled`, `agent keeps it down`,
    /// `check failed: L7STS 503`, `maintenance by alice`); missing if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_ok: Option<String>,
    /// `true` if it is a spare slot of a `server-template`: it has no address, and is out for no other reason. It does
    /// not count in the report's `ok`, has no line in the text form unless it was named, and a pattern with `ready` or
    /// `drain` leaves it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spare: Option<bool>,
    /// Whether the text form has a line for it.
    #[serde(skip)]
    pub is_listed: bool,
    /// How it was before the run.
    pub before: StateReport,
    /// How it was read back; in a dry run, how it would be. `null` if it could not be read back.
    pub after: Option<StateReport>,
    /// In a status, and after waiting for sessions: its sessions when they were last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// In a status, and after waiting for sessions: its queued requests when they were last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// After a drain or a wait: how many sessions began on it while it was draining; missing if none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_sessions: Option<u64>,
    /// In a status: the result of its last health check, in HAProxy's words (`L7OK`, `L4CON`; management.txt 9.1,
    /// `check_status`); missing without checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<&'a str>,
    /// In a status: the server that it tracks, as `backend/server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracks: Option<&'a str>,
    /// In a status: since when it is out (RFC 3339, UTC), if that was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// In a status: who has taken it out, if that was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<&'a str>,
    /// In a status: why it was taken out, if that was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// In a status: until when it was meant to be out (RFC 3339, UTC), if that was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// In a status: whether that time is over, so that `ready` is no longer refused; missing without `expires`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired: Option<bool>,
    /// Whether the run has rolled it back to what it was before (`on_failure`, or `on_timeout` of `drain`); `false` if
    /// that failed or the guard refused it; missing if it was not attempted, or somebody else has set the server meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<bool>,
    /// The commands that were sent to HAProxy for it, or would be in a dry run.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub commands: Commands<'a>,
    /// Why it is not as requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

/// The commands that were sent to a server.
#[derive(Debug, Clone, Copy)]
pub struct Commands<'a>(pub &'a [Sent]);

impl Serialize for Commands<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|sent| &*sent.line))
    }
}

/// The state of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct StateReport {
    /// The effective administrative state, whatever its cause.
    pub admin_state: AdminState,
    /// What its checks make of it. A dry run predicts: a server that leaves maint is shown as running, although
    /// `slowstart`, `init-state` (HAProxy 3.1 and later) or its checks may change that.
    pub operational_state: OperationalState,
    /// The effective weight, from 0 to 256.
    pub weight: u32,
    /// The weight in the configuration, from 0 to 256; percentages are of this.
    pub configured_weight: u32,
    /// Which flags cause the administrative state; none if it is ready.
    pub reasons: Vec<Reason>,
    /// HAProxy's own mask of administrative flags (`srv_admin_state`), which can combine several causes.
    pub admin_flags: AdminFlags,
}

impl From<&Server> for StateReport {
    fn from(server: &Server) -> Self {
        let state = &server.state;
        Self {
            admin_state: state.flags.effective(),
            operational_state: state.operational,
            weight: state.weight,
            configured_weight: server.configured_weight,
            reasons: state.flags.reasons(),
            admin_flags: state.flags,
        }
    }
}

/// One instance that was asked.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct InstanceReport<'a> {
    /// Its name.
    pub name: &'a str,
    /// The address of the socket where it was asked, in HAProxy's notation.
    pub socket: &'a str,
    /// The version of its HAProxy; missing if it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'a str>,
    /// The id of the process that answered last; missing if none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Whether a server on it or its server-state file was changed, or would be in a dry run.
    pub changed: bool,
    /// Whether it, or a server on it, failed. An instance that `on_unreachable: skip` passes over has not failed.
    pub failed: bool,
    /// How many of its servers matched.
    pub matched: usize,
    /// In a status, and when servers go to drain or maint: the processes from before a reload that still run, which ignore
    /// what is set now; missing if there are none. They are found by the master CLI if that is known, otherwise by `/proc`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub old_processes: Vec<OldProcessReport>,
    /// Its server-state file, if one is kept in step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_file: Option<StateFileReport<'a>>,
    /// Its server-state files with the rows of one backend, where they are kept in step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state_files: Vec<BackendStateFileReport<'a>>,
    /// Why it could not be managed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

/// A process from before a reload.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct OldProcessReport {
    /// Its process id.
    pub pid: u32,
    /// The sessions and queued requests that it still has for the matched servers; `null` if they cannot be seen, because
    /// no master CLI (`-S`) leads to it.
    pub sessions: Option<u32>,
}

impl From<&OldProcess> for OldProcessReport {
    fn from(old: &OldProcess) -> Self {
        Self { pid: old.pid, sessions: old.sessions }
    }
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

/// The server-state file with the rows of one backend.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct BackendStateFileReport<'a> {
    /// The backend whose rows are in it.
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
    /// What went wrong, as a stable word that tools can compare.
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
    /// Whether the same request may succeed later without a change to it, the configuration or the rights.
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
    /// `haproxy_server/` and the kind of the failure.
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

/// The servers before and after, in the form of Ansible's diff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub struct Diff {
    /// A line for each server, as it was.
    pub before: String,
    /// A line for each server, as it is, or would be.
    pub after: String,
}

/// Writes the value as one line of pure ASCII: Ansible splits its input at every line end that Unicode knows.
///
/// # Errors
/// When the writer fails.
pub fn to_ascii_json<W: Write, T: Serialize>(mut writer: W, value: &T) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(&mut writer, Ascii))?;
    writer.write_all(b"\n")
}

/// Compact JSON in which everything beyond ASCII is escaped.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // There are many fragments, and nearly all are plain. DEL is a terminal command.
        let is_plain = |byte: &u8| matches!(byte, 0..0x7f);
        if fragment.as_bytes().iter().all(is_plain) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(start) = rest.find(|sign: char| !matches!(sign, '\0'..'\u{7f}')) {
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
        fn every_text_is_one_ascii_line_that_reads_back(text in any::<String>()) {
            let mut json = Vec::new();
            to_ascii_json(&mut json, &text).unwrap();
            prop_assert!(json.iter().all(|byte| *byte < 0x7f));
            prop_assert_eq!(json.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }
    }
}
