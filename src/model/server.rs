//! A server as an instance shows it, and the process that shows it.

use std::sync::Arc;
use std::time::Instant;

use super::goal::{Goal, SpareSlots, Switch, Was, Weight};
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

    /// Tells whether it shows whether a backend is published: HAProxy 3.4 and later.
    #[must_use]
    pub fn shows_publication(&self) -> bool {
        self.is_at_least((3, 4))
    }

    /// Tells whether it says why a server cannot be removed: HAProxy 3.3 and later.
    #[must_use]
    pub fn explains_removal(&self) -> bool {
        self.is_at_least((3, 3))
    }

    /// Tells whether a `backend` and a `listen` may share a name: HAProxy 3.0 and older.
    #[must_use]
    pub fn may_share_names(&self) -> bool {
        !self.is_at_least((3, 1))
    }

    fn is_at_least(&self, version: (u32, u32)) -> bool {
        let mut numbers = self.version.split(['.', '-']).map(|number| number.parse::<u32>().ok());
        numbers.next().flatten().zip(numbers.next().flatten()).is_some_and(|own| own >= version)
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
    /// Whether HAProxy has an address for it, from the configuration or from DNS.
    pub has_address: bool,
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

/// Whether a backend is published: HAProxy 3.4 and later sends no traffic to one that is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Publication {
    /// It takes traffic if its servers do.
    #[default]
    Published,
    /// It takes none.
    Unpublished,
}

/// What `show stat` says of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests queued for this server.
    pub queue: u32,
    /// Sessions on this server.
    pub sessions: u32,
    /// All sessions since the process started.
    pub total_sessions: u64,
    /// Its status in one phrase, such as `UP`, `DOWN 1/3`, `MAINT (via app/web1)`.
    pub status: String,
    /// The effective weight, which slowstart and checks may also lower to 0.
    pub weight: u32,
    /// Whether its backend is published.
    pub publication: Publication,
    /// The result of its last health check, such as `L7OK`; `None` without checks.
    pub check: Option<String>,
    /// The code that came with it, such as `503`; `None` without one.
    pub check_code: Option<u32>,
    /// The server that it tracks, as `backend/server`.
    pub tracks: Option<String>,
    /// Whether it is a backup server.
    pub backup: bool,
    /// Whether `slowstart` is in progress: it takes only a share of its traffic.
    pub is_throttled: bool,
    /// How its health check counts; `None` without checks.
    pub counter: Option<CheckCounter>,
    /// What tells it from servers that had its number before; nothing where HAProxy is older than 2.8.
    pub revision: Option<u32>,
}

impl Statistics {
    /// Tells whether it has neither a session nor a queued request.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.sessions == 0 && self.queue == 0
    }
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

    /// Tells whether it is a spare slot of a `server-template`: without an address, and out for no other reason.
    #[must_use]
    pub fn is_spare(&self) -> bool {
        self.would_be_spare(self.state.flags)
    }

    /// Tells whether it would be a spare slot with other flags.
    #[must_use]
    pub fn would_be_spare(&self, flags: AdminFlags) -> bool {
        !self.has_address && flags == AdminFlags(AdminFlags::DNS_MAINT)
    }

    /// Tells whether it is left alone on the way to a goal, because it is a spare slot that nobody has named.
    #[must_use]
    pub fn is_skipped_by(&self, goal: &Goal) -> bool {
        match (goal.spare_slots, goal.state) {
            (SpareSlots::Skip, Some(AdminState::Ready | AdminState::Drain)) => self.is_spare(),
            (SpareSlots::Skip, Some(AdminState::Maint) | None) | (SpareSlots::Refuse, _) => false,
        }
    }

    /// Tells whether the backend was seen to be unpublished.
    #[must_use]
    pub fn is_in_unpublished_backend(&self) -> bool {
        self.statistics.as_ref().is_some_and(|statistics| statistics.publication == Publication::Unpublished)
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

    /// Returns which server of its name it is.
    #[must_use]
    pub fn number(&self) -> ServerNumber {
        let revision = self.statistics.as_ref().and_then(|statistics| statistics.revision);
        ServerNumber { id: self.server_id, revision }
    }

    /// Tells whether it is a backup server, if that was asked.
    #[must_use]
    pub fn is_backup(&self) -> bool {
        self.statistics.as_ref().is_some_and(|statistics| statistics.backup)
    }

    /// Returns the server that this one tracks, as `backend/server`, if that was asked.
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

    /// Returns what is unique to it within its process.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let number = (self.backend_name == Uniqueness::Shared).then_some(self.backend_id);
        (Arc::clone(&self.backend), Arc::clone(&self.server), number)
    }
}

#[cfg(test)]
impl Server {
    /// Makes a server that takes traffic, for tests that say only what matters to them.
    pub(crate) fn example() -> Self {
        Self {
            backend: "b".into(),
            backend_name: Uniqueness::Unique,
            server: "s".into(),
            backend_id: 2,
            server_id: 1,
            address: "127.0.0.1:9".into(),
            has_address: true,
            state: ServerState {
                flags: AdminFlags(0),
                operational: OperationalState::Running,
                weight: 1,
                health: None,
                agent: None,
            },
            configured_weight: 1,
            statistics: None,
        }
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

    /// Returns what is recorded of it before a server is taken out.
    #[must_use]
    pub fn as_was(&self) -> Was {
        Was { state: self.flags.forced().unwrap_or(AdminState::Maint), weight: self.weight }
    }

    /// Tells whether each part that commands set is as in one of two states.
    #[must_use]
    pub fn is_set_between(&self, from: &Self, to: &Self) -> bool {
        let ends = [from, to];
        ends.iter().any(|end| end.flags.commanded() == self.flags.commanded())
            && ends.iter().any(|end| end.weight == self.weight)
            && ends.iter().any(|end| end.health == self.health)
            && ends.iter().any(|end| end.agent == self.agent)
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
            spare_slots: SpareSlots::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_version_tells_what_a_process_shows() {
        for (version, may_share, explains, shows) in [
            ("2.2.9-2+deb11u6", true, false, false),
            ("3.0.11", true, false, false),
            ("3.1.0", false, false, false),
            ("3.2.26-1", false, false, false),
            ("3.3-dev5", false, true, false),
            ("3.4.0", false, true, true),
            ("10.0", false, true, true),
            ("unknown", true, false, false),
            ("3", true, false, false),
        ] {
            let process = Process::new(version, 1, Start::At(1), (1, Instant::now()));
            let told = (process.may_share_names(), process.explains_removal(), process.shows_publication());
            assert_eq!(told, (may_share, explains, shows), "{version}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_id_and_its_start() {
        let now = Instant::now();
        let exact = |pid, start| Process::new("3.2.4", pid, Start::At(start), (1_000, now));
        assert!(exact(7, 500).is(&exact(7, 500)));
        assert!(!exact(7, 500).is(&exact(7, 501)));
        assert!(!exact(7, 500).is(&exact(8, 500)));
        assert_eq!((exact(7, 500).key(), exact(7, 500)), ("7-500".to_owned(), exact(7, 500)));
        assert_ne!(exact(7, 500), exact(7, 501));
        let uptime = |ago, after: u64| {
            Process::new("2.2.9", 7, Start::Ago(ago), (1_000 + after, now + Duration::from_secs(after)))
        };
        assert_eq!(uptime(500, 0).key(), "7");
        assert!(uptime(500, 0).is(&uptime(502, 0)));
        assert!(!uptime(500, 0).is(&uptime(503, 0)));
        // It was frozen for five seconds.
        assert!(uptime(500, 0).is(&uptime(500, 5)) && uptime(500, 5).is(&uptime(500, 0)));
        assert!(uptime(500, 0).is(&uptime(498, 5)));
        assert!(!uptime(500, 0).is(&uptime(497, 5)));
    }

    #[test]
    fn a_number_and_its_revision_tell_servers_apart() {
        let number = |id, revision| ServerNumber { id, revision };
        assert!(number(1, None).may_be(number(1, Some(3))));
        assert!(number(1, Some(3)).may_be(number(1, Some(3))));
        assert!(!number(1, Some(3)).may_be(number(1, Some(4))));
        assert!(!number(1, None).may_be(number(2, None)));
        let statistics = Statistics { revision: Some(3), ..Statistics::default() };
        let server = Server { statistics: Some(Box::new(statistics)), ..Server::example() };
        assert_eq!((server.number(), Server::example().number()), (number(1, Some(3)), number(1, None)));
    }

    #[test]
    fn a_spare_slot_has_no_address_and_is_out_for_no_other_reason() {
        let server = |flags: u32, has_address| {
            let example = Server::example();
            Server { has_address, state: ServerState { flags: AdminFlags(flags), ..example.state }, ..example }
        };
        let (dns, forced) = (AdminFlags::DNS_MAINT, AdminFlags::FORCED_MAINT);
        for (flags, has_address, expected) in
            [(dns, false, true), (dns, true, false), (dns | forced, false, false), (0, false, false)]
        {
            assert_eq!(server(flags, has_address).is_spare(), expected, "{flags} {has_address}");
        }
        let goal = |state, spare_slots| Goal { state, spare_slots, ..Goal::default() };
        for (state, skip) in [
            (Some(AdminState::Ready), true),
            (Some(AdminState::Drain), true),
            (Some(AdminState::Maint), false),
            (None, false),
        ] {
            assert_eq!(server(dns, false).is_skipped_by(&goal(state, SpareSlots::Skip)), skip, "{state:?}");
            assert!(!server(dns, false).is_skipped_by(&goal(state, SpareSlots::Refuse)));
            assert!(!server(0, true).is_skipped_by(&goal(state, SpareSlots::Skip)));
        }
    }

    #[test]
    fn statistics_tell_more_of_a_server() {
        let example = Server::example();
        assert!(!example.is_backup() && !example.is_in_unpublished_backend() && example.tracks().is_none());
        assert!(!example.is_in_disabled_backend() && !example.has_check() && !example.has_agent());
        let statistics = Statistics {
            backup: true,
            publication: Publication::Unpublished,
            tracks: Some("b/t".to_owned()),
            ..Statistics::default()
        };
        assert!(statistics.is_idle());
        assert!(!Statistics { queue: 1, ..statistics.clone() }.is_idle());
        assert!(!Statistics { sessions: 1, ..statistics.clone() }.is_idle());
        let state = ServerState { health: Some(Switch::Enabled), agent: Some(Switch::Enabled), ..example.state };
        let server = Server { statistics: Some(Box::new(statistics)), state, server_id: 0, ..example };
        assert!(server.is_backup() && server.is_in_unpublished_backend() && server.is_in_disabled_backend());
        assert!(server.has_check() && server.has_agent());
        assert_eq!(server.tracks(), Some("b/t"));
        let paused = ServerState { health: Some(Switch::Disabled), agent: Some(Switch::Disabled), ..state };
        let paused = Server { state: paused, ..server };
        assert!(!paused.has_check() && !paused.has_agent());
    }

    #[test]
    fn names_and_addresses_are_as_haproxy_writes_them() {
        let at = |address: &str| Server { address: address.into(), ..Server::example() };
        for (address, expected) in [
            ("10.0.0.5:80", ("10.0.0.5", "80")),
            ("[2001:db8::1]:80", ("2001:db8::1", "80")),
            ("app.example:80", ("app.example", "80")),
            ("-", ("-", "")),
            ("[:80", ("[", "80")),
        ] {
            assert_eq!(at(address).host_and_port(), expected);
        }
        let server = Server::example();
        assert_eq!(server.full_name(), "b/s");
        assert_eq!(server.identity(), ("b".into(), "s".into(), None));
        let shared = Server { backend_name: Uniqueness::Shared, ..server };
        assert_eq!(shared.identity(), ("b".into(), "s".into(), Some(2)));
    }

    #[test]
    fn each_part_that_commands_set_is_compared() {
        let state = ServerState {
            flags: AdminFlags(0),
            weight: 5,
            health: Some(Switch::Enabled),
            agent: Some(Switch::Enabled),
            ..Server::example().state
        };
        let others = [
            ServerState { flags: AdminFlags(AdminFlags::FORCED_DRAIN), ..state },
            ServerState { weight: 6, ..state },
            ServerState { health: Some(Switch::Disabled), ..state },
            ServerState { agent: Some(Switch::Disabled), ..state },
        ];
        let changed = ServerState {
            flags: others[0].flags,
            weight: 6,
            health: Some(Switch::Disabled),
            agent: Some(Switch::Disabled),
            ..state
        };
        let inherits = ServerState { flags: AdminFlags(AdminFlags::INHERITED_MAINT), ..state };
        assert!(state.is_set_as(&inherits), "what is inherited is not set");
        for other in &others {
            assert!(!state.is_set_as(other) && !other.is_set_between(&state, &state), "{other:?}");
            assert!(other.is_set_between(&state, &changed) && other.is_set_between(&changed, &state), "{other:?}");
        }
    }

    #[test]
    fn a_state_can_be_returned_to() {
        let state = ServerState { weight: 5, health: Some(Switch::Enabled), ..Server::example().state };
        for (flags, expected) in [
            (0, AdminState::Ready),
            (AdminFlags::FORCED_DRAIN, AdminState::Drain),
            (AdminFlags::FORCED_MAINT, AdminState::Maint),
            (AdminFlags::FORCED_MAINT | AdminFlags::FORCED_DRAIN, AdminState::Maint),
        ] {
            let state = ServerState { flags: AdminFlags(flags), ..state };
            assert_eq!(state.as_was(), Was { state: expected, weight: 5 });
            let goal = Goal {
                state: Some(expected),
                weight: Some(Weight::Absolute(5)),
                health: Some(Switch::Enabled),
                agent: None,
                spare_slots: SpareSlots::Skip,
            };
            assert_eq!(state.as_goal(), goal);
        }
    }
}
