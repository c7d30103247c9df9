//! A server, as an instance shows it, and the process that shows it.

use std::sync::Arc;
use std::time::Instant;

use super::goal::{Goal, Switch, Was, Weight};
use super::state::{AdminFlags, AdminState, OperationalState};

/// How far two readings of a start may differ where it is computed from an uptime in whole seconds.
const START_TOLERANCE: u64 = 2;

/// A HAProxy process: the same number may come again, but not with the same start.
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
    /// Makes a process of what `show info` says of it; `now` is the time of that, in seconds since the epoch and as an
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

    /// Returns what stands for the process in the name of a file: the same on every call.
    ///
    /// A start that is computed from an uptime in whole seconds gives another number every time, so that the process id
    /// alone must do there.
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

/// Whether a name stands for one thing only in its HAProxy.
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
    /// The weight of the configuration.
    pub configured_weight: u32,
    /// What `show stat` said of it, where that was asked.
    pub statistics: Option<Box<Statistics>>,
}

/// The part of a server that commands change, or that follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerState {
    /// The administrative flags.
    pub flags: AdminFlags,
    /// What its checks make of it.
    pub operational: OperationalState,
    /// The weight that is in force.
    pub weight: u32,
    /// Whether its health check runs; nothing where it has none.
    pub health: Option<Switch>,
    /// Whether its agent check runs; nothing where it has none.
    pub agent: Option<Switch>,
}

/// What `show stat` tells about a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// Requests that wait for this server.
    pub queue: u32,
    /// Sessions on this server.
    pub sessions: u32,
    /// Sessions since the process started, those that are over included.
    pub total_sessions: u64,
    /// Its status in one phrase, as `UP`, `DOWN 1/3`, `MAINT (via app/web1)`.
    pub status: String,
    /// What its last health check found, as `L7OK`; nothing without checks.
    pub check: Option<String>,
    /// The server that it tracks, as `backend/server`.
    pub tracks: Option<String>,
    /// Whether it is a backup server.
    pub backup: bool,
    /// Whether `slowstart` is under way: it takes only a share of its traffic.
    pub is_throttled: bool,
    /// How its health check counts; nothing without checks.
    pub counter: Option<CheckCounter>,
    /// What tells it from servers that had its number before; nothing where HAProxy is older than 2.8.
    pub revision: Option<u32>,
}

/// Which server of its name and process it is.
///
/// HAProxy gives the number of a deleted server to the next one, and counts that in `srid` since 2.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ServerNumber {
    /// The number of the server in its backend.
    pub id: u32,
    /// What tells it from servers that had its number before, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
}

impl ServerNumber {
    /// Tells whether both may be the same server, as far as HAProxy tells.
    #[must_use]
    pub fn may_be(self, other: Self) -> bool {
        let are_apart = self.revision.zip(other.revision).is_some_and(|(one, other)| one != other);
        self.id == other.id && !are_apart
    }
}

/// How a health check counts its results: up at `rise`, and one more for each that passes, to `rise + fall - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckCounter {
    /// The count.
    pub health: u32,
    /// From which count on the server is up.
    pub rise: u32,
    /// How many failures in a row take a server down that has the highest count.
    pub fall: u32,
}

/// Backend and server by name, and the number of the backend where another one has its name.
pub type Identity = (Arc<str>, Arc<str>, Option<u32>);

impl Server {
    /// Tells whether the backend has `disabled`: HAProxy numbers no servers there, and no command reaches them.
    #[must_use]
    pub fn is_in_disabled_backend(&self) -> bool {
        self.server_id == 0
    }

    /// Tells whether a health check is under way.
    #[must_use]
    pub fn has_check(&self) -> bool {
        self.state.health == Some(Switch::Enabled)
    }

    /// Tells whether an agent check is under way, which may set the state by itself.
    #[must_use]
    pub fn has_agent(&self) -> bool {
        self.state.agent == Some(Switch::Enabled)
    }

    /// Returns which server of its name it is.
    #[must_use]
    pub fn number(&self) -> ServerNumber {
        let revision = self.statistics.as_ref().and_then(|statistics| statistics.revision);
        ServerNumber { id: self.server_id, revision }
    }

    /// Returns the server that this one tracks, as `backend/server`, where that was asked.
    #[must_use]
    pub fn tracks(&self) -> Option<&str> {
        self.statistics.as_ref().and_then(|statistics| statistics.tracks.as_deref())
    }

    /// Returns the host of its address as HAProxy shows it, and the port.
    #[must_use]
    pub fn host_and_port(&self) -> (&str, &str) {
        let (host, port) = self.address.rsplit_once(':').unwrap_or((&self.address, ""));
        (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
    }

    /// Returns the server as HAProxy writes it: `backend/server`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.backend, self.server)
    }

    /// Returns what no other server of its process has.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let number = (self.backend_name == Uniqueness::Shared).then_some(self.backend_id);
        (Arc::clone(&self.backend), Arc::clone(&self.server), number)
    }
}

impl ServerState {
    /// Tells whether what commands set is the same in both; this is what `changed` means.
    #[must_use]
    pub fn is_set_as(&self, other: &Self) -> bool {
        self.flags.commanded() == other.flags.commanded()
            && self.weight == other.weight
            && self.health == other.health
            && self.agent == other.agent
    }

    /// Returns what is recorded of it before a server is taken out.
    #[must_use]
    pub fn as_was(&self) -> Was {
        Was { state: self.flags.forced().unwrap_or(AdminState::Maint), weight: self.weight }
    }

    /// Returns what brings a server that was changed back to this state.
    #[must_use]
    pub fn as_goal(&self) -> Goal {
        Goal {
            // Both forced flags at once can only come from the statistics page; maintenance is what they amount to.
            state: Some(self.flags.forced().unwrap_or(AdminState::Maint)),
            weight: Some(Weight::Absolute(self.weight)),
            health: self.health,
            agent: self.agent,
        }
    }
}
