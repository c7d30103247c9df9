//! A server as an instance shows it, and the process that shows it.

use std::sync::Arc;
use std::time::Instant;

use super::goal::{Goal, Switch, Weight};
use super::state::{AdminFlags, AdminState, OperationalState};

/// How far two readings of a start may differ if it is computed from an uptime in whole seconds.
const START_TOLERANCE: u64 = 2;

/// A HAProxy process: its id may be reused, but not with the same start.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Process {
    /// The version, as `2.6.12-1+deb12u4`.
    pub version: String,
    /// The process id, as the process itself sees it.
    pub pid: u32,
    /// When it started, in seconds since the epoch.
    started: u64,
    /// How exact that is, in seconds.
    tolerance: u64,
    /// When this was read.
    #[serde(skip, default = "Instant::now")]
    seen: Instant,
}

/// When a process started, as far as its HAProxy tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// `Start_time_sec` (HAProxy 2.4 and later), in seconds since the epoch.
    At(u64),
    /// `Uptime_sec` of older ones, in whole seconds before now.
    Ago(u64),
}

impl Process {
    /// Makes a process from `show info`; `now` is the time of the reading, in seconds since the epoch and as an
    /// instant.
    #[must_use]
    pub fn new(version: &str, pid: u32, start: Start, now: (u64, Instant)) -> Self {
        let (started, tolerance) = match start {
            Start::At(at) => (at, 0),
            Start::Ago(ago) => (now.0.saturating_sub(ago), START_TOLERANCE),
        };
        Self { version: version.to_owned(), pid, started, tolerance, seen: now.1 }
    }

    /// Tells whether both are the same process.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let tolerance = match self.tolerance.max(other.tolerance) {
            0 => 0,
            // The clock behind an uptime stands still while a process is frozen.
            inexact => {
                let between = self.seen.max(other.seen).duration_since(self.seen.min(other.seen));
                inexact.saturating_add(between.as_secs())
            }
        };
        self.pid == other.pid && self.started.abs_diff(other.started) <= tolerance
    }

    /// Returns what identifies the process in a file name: the same on every call.
    ///
    /// A start that is computed from an uptime in whole seconds may differ every time, so the process id alone must do
    /// there.
    #[must_use]
    pub fn key(&self) -> String {
        match self.tolerance {
            0 => format!("{}-{}", self.pid, self.started),
            _ => self.pid.to_string(),
        }
    }
}

impl PartialEq for Process {
    /// Compares what was read, not when.
    fn eq(&self, other: &Self) -> bool {
        (&self.version, self.pid, self.started, self.tolerance)
            == (&other.version, other.pid, other.started, other.tolerance)
    }
}

impl Eq for Process {}

/// Whether a name is unique in its HAProxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uniqueness {
    /// Nothing else has the name.
    Unique,
    /// A `backend` and a `listen` of HAProxy 3.0 and older share the name; by name only the first is reached.
    Shared,
}

/// A server as it was observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The backend.
    pub backend: Arc<str>,
    /// Whether another proxy of this process has the backend's name.
    pub backend_name: Uniqueness,
    /// The server.
    pub server: Arc<str>,
    /// The number of the backend in this process.
    pub backend_id: u32,
    /// The number of the server in its backend; 0 in a backend that is `disabled`.
    pub server_id: u32,
    /// Its address and port.
    pub address: Arc<str>,
    /// The state that it is in.
    pub state: ServerState,
    /// The configured weight.
    pub configured_weight: u32,
    /// What `show stat` said of it, if that was asked.
    pub statistics: Option<Box<Statistics>>,
}

/// The part of a server that commands change, and what follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerState {
    /// The administrative flags.
    pub flags: AdminFlags,
    /// What its checks make of it.
    pub operational: OperationalState,
    /// The effective weight.
    pub weight: u32,
    /// Whether its health check runs; `None` without one.
    pub health: Option<Switch>,
    /// Whether its agent check runs; `None` without one.
    pub agent: Option<Switch>,
}

/// What `show stat` says of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// Requests queued for this server.
    pub queue: u32,
    /// Sessions on this server.
    pub sessions: u32,
    /// All sessions since the process started.
    pub total_sessions: u64,
    /// Its status in one phrase, such as `UP`, `DOWN 1/3`, `MAINT (via app/web1)`.
    pub status: String,
    /// The result of its last health check, such as `L7OK`; `None` without checks.
    pub check: Option<String>,
    /// The server that it tracks, as `backend/server`.
    pub tracks: Option<String>,
    /// Whether it is a backup server.
    pub backup: bool,
    /// Whether `slowstart` is in progress: it takes only a share of its traffic.
    pub is_throttled: bool,
    /// How its health check counts; `None` without checks.
    pub counter: Option<CheckCounter>,
}

/// How a health check counts its results: up at `rise`, and one more for each that passes, to `rise + fall - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckCounter {
    /// The count.
    pub health: u32,
    /// The count from which the server is up.
    pub rise: u32,
    /// How many consecutive failures take a server with the highest count down.
    pub fall: u32,
}

/// Backend and server by name, and the number of the backend if another one has its name.
pub type Identity = (Arc<str>, Arc<str>, Option<u32>);

impl Server {
    /// Tells whether the backend has `disabled`: HAProxy numbers no servers there, and no command reaches them.
    #[must_use]
    pub fn is_in_disabled_backend(&self) -> bool {
        self.server_id == 0
    }

    /// Tells whether a health check is running.
    #[must_use]
    pub fn has_check(&self) -> bool {
        self.state.health == Some(Switch::Enabled)
    }

    /// Tells whether an agent check is running, which may change the state on its own.
    #[must_use]
    pub fn has_agent(&self) -> bool {
        self.state.agent == Some(Switch::Enabled)
    }

    /// Returns the server that this one tracks, as `backend/server`, if that was asked.
    #[must_use]
    pub fn tracks(&self) -> Option<&str> {
        self.statistics.as_ref().and_then(|statistics| statistics.tracks.as_deref())
    }

    /// Returns the server as HAProxy writes it: `backend/server`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.backend, self.server)
    }

    /// Returns what is unique to it within its process.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let number = (self.backend_name == Uniqueness::Shared).then_some(self.backend_id);
        (Arc::clone(&self.backend), Arc::clone(&self.server), number)
    }
}

impl ServerState {
    /// Tells whether everything that commands can set is the same in both; this defines `changed`.
    #[must_use]
    pub fn is_set_as(&self, other: &Self) -> bool {
        self.flags.commanded() == other.flags.commanded()
            && self.weight == other.weight
            && self.health == other.health
            && self.agent == other.agent
    }

    /// Returns the goal that brings a changed server back to this state.
    #[must_use]
    pub fn as_goal(&self) -> Goal {
        Goal {
            // Both forced flags at once can only come from the statistics page; they amount to maintenance.
            state: Some(self.flags.forced().unwrap_or(AdminState::Maint)),
            weight: Some(Weight::Absolute(self.weight)),
            health: self.health,
            agent: self.agent,
        }
    }
}
