//! Asks an instance what it is and how its servers are, over one connection, and changes nothing.
//!
//! Every dump is streamed: only the servers that are wanted are kept.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::decide::guard::is_usable;
use crate::decide::plan::State;
use crate::discover::select::Instance;
use crate::haproxy::command::{Query, Reference, Target, Uniqueness};
use crate::haproxy::parse::{
    AnyRow, Info, LastBackend, Level, OtherRow, ParseError, Start, StatHeader, StatRow, StateHeader, StateRow,
    state_version,
};
use crate::haproxy::socket::{Connection, Door, Form};
use crate::model::error::{Error, ErrorKind, Result, excerpt};
use crate::model::name::{Address, Pattern, Selector};
use crate::model::state::{AdminFlags, OperationalState};
use crate::request::Switch;

/// Up to how many servers are asked for one by one in `show stat`; beyond, one dump of all costs less.
const ONE_BY_ONE: usize = 64;

/// How far two readings of a start may differ where it is computed from an uptime in whole seconds.
const START_TOLERANCE: u64 = 2;

/// How often a connection that leads to a process that is stopping is opened again, and after what pause.
const STOPPING_TRIES: u32 = 50;
const STOPPING_PAUSE: Duration = Duration::from_millis(20);

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

impl Process {
    pub(crate) fn new(info: &Info) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (started, tolerance) = match info.start {
            Start::At(at) => (at, 0),
            Start::Ago(ago) => (now.saturating_sub(ago), START_TOLERANCE),
        };
        Self { version: info.version.clone(), pid: info.pid, started, tolerance, seen: Instant::now() }
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
    /// The administrative flags.
    pub flags: AdminFlags,
    /// What its checks make of it.
    pub operational: OperationalState,
    /// The weight that is in force.
    pub weight: u32,
    /// The weight of the configuration.
    pub initial_weight: u32,
    /// The health check: 2 configured, 4 enabled, 8 paused.
    pub check: u32,
    /// The agent check: 2 configured, 4 enabled, 8 paused.
    pub agent: u32,
    /// What `show stat` says of it, where that was asked.
    pub stat: Option<Box<StatRow>>,
    /// Whether that counts what old workers still do for it, as far as they can be seen.
    pub is_whole: bool,
}

/// The flags of a check that is configured, and of one that is enabled (`CHK_ST_CONFIGURED` and `CHK_ST_ENABLED` in
/// HAProxy's `include/haproxy/check-t.h`).
const CHECK_CONFIGURED: u32 = 2;
const CHECK_ENABLED: u32 = 4;

/// Reads whether a check runs; nothing where it is not configured.
fn switch(check: u32) -> Option<Switch> {
    match (check & CHECK_CONFIGURED != 0, check & CHECK_ENABLED != 0) {
        (false, _) => None,
        (true, true) => Some(Switch::Enabled),
        (true, false) => Some(Switch::Disabled),
    }
}

impl Server {
    /// Makes a server of a row; what is the same as in the one before is kept once.
    fn new(row: &StateRow<'_>, before: Option<&Self>) -> Self {
        let share = |parts: &[&str], before: Option<&Arc<str>>| {
            let is_same = |text: &Arc<str>| {
                let rest = parts.iter().try_fold(&**text, |rest, part| rest.strip_prefix(part));
                rest.is_some_and(str::is_empty)
            };
            let anew = || match parts {
                [whole] => Arc::from(*whole),
                parts => {
                    let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
                    parts.iter().for_each(|part| text.push_str(part));
                    text.into()
                }
            };
            before.filter(|text| is_same(text)).map_or_else(anew, Arc::clone)
        };
        Self {
            backend: share(&[row.backend], before.map(|it| &it.backend)),
            backend_name: Uniqueness::Unique,
            server: share(&[row.server], before.map(|it| &it.server)),
            backend_id: row.backend_id,
            server_id: row.server_id,
            address: share(&address(row), before.map(|it| &it.address)),
            flags: row.flags,
            operational: row.operational,
            weight: row.weight,
            initial_weight: row.initial_weight,
            check: row.check,
            agent: row.agent,
            stat: None,
            is_whole: false,
        }
    }

    /// Returns how commands name it.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        Target {
            backend: Reference::new(&self.backend, self.backend_id, self.backend_name),
            server: Reference::new(&self.server, self.server_id, Uniqueness::Unique),
        }
    }

    /// Tells whether the backend has `disabled`: HAProxy numbers no servers there, and no command reaches them.
    #[must_use]
    pub fn is_in_disabled_backend(&self) -> bool {
        self.server_id == 0
    }

    /// Returns whether its health check runs; nothing where it has none.
    #[must_use]
    pub fn health(&self) -> Option<Switch> {
        switch(self.check)
    }

    /// Returns whether its agent check runs; nothing where it has none.
    #[must_use]
    pub fn agent(&self) -> Option<Switch> {
        switch(self.agent)
    }

    /// Tells whether a health check is under way.
    #[must_use]
    pub fn has_check(&self) -> bool {
        self.health() == Some(Switch::Enabled)
    }

    /// Tells whether an agent check is under way, which may set the state by itself.
    #[must_use]
    pub fn has_agent(&self) -> bool {
        self.agent() == Some(Switch::Enabled)
    }

    /// Tells whether a row is about this server.
    fn is_in(&self, row: &StateRow<'_>) -> bool {
        *self.server == *row.server
            && *self.backend == *row.backend
            && (self.backend_id == row.backend_id || self.backend_name == Uniqueness::Unique)
    }

    /// Makes it look as it is predicted to be.
    pub fn foresee(&mut self, after: &State) {
        let set = |check: u32, switch: Option<Switch>| match switch {
            Some(Switch::Enabled) => check | CHECK_ENABLED,
            Some(Switch::Disabled) => check & !CHECK_ENABLED,
            None => check,
        };
        self.flags = after.flags;
        self.operational = after.operational;
        self.weight = after.weight;
        self.check = set(self.check, after.health);
        self.agent = set(self.agent, after.agent);
    }

    /// Returns the server that this one tracks, as `backend/server`, where that was asked.
    #[must_use]
    pub fn tracks(&self) -> Option<&str> {
        self.stat.as_ref().and_then(|stat| stat.tracks.as_deref())
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

/// Backend and server by name, and the number of the backend where another one has its name.
pub type Identity = (Arc<str>, Arc<str>, Option<u32>);

/// Tells whether the row is no server at all: with `-S`, HAProxy 2.2 lists the proxy through which its master reaches
/// its workers (`mworker_cli_proxy_create()` in its `src/cli.c`).
fn is_of_master_cli(row: &StateRow<'_>) -> bool {
    row.backend == "MASTER"
        && (row.server.starts_with("cur-") || row.server.starts_with("old-"))
        && (row.address, row.fqdn, row.port) == ("-", "-", "0")
        && row.initial_weight == 0
}

/// Writes address and port as HAProxy does; a name that is not resolved stands for its address.
fn address<'a>(row: &StateRow<'a>) -> [&'a str; 4] {
    let host = match (row.address, row.fqdn) {
        ("-", "-") => return ["-", "", "", ""],
        ("-", name) => name,
        (address, _) => address,
    };
    if host.contains(':') { ["[", host, "]:", row.port] } else { [host, ":", row.port, ""] }
}

/// Which servers are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The servers; all of them where it is empty.
    pub servers: &'a [Selector],
    /// The backends; all of them where it is empty.
    pub backends: &'a [Pattern],
}

impl Wanted<'_> {
    /// Tells whether the server of that backend is wanted.
    #[must_use]
    pub fn matches(&self, backend: &[u8], server: &[u8]) -> bool {
        (self.servers.is_empty() || self.servers.iter().any(|selector| selector.matches(backend, server)))
            && (self.backends.is_empty() || self.backends.iter().any(|pattern| pattern.matches(backend)))
    }
}

/// How much is asked of the servers that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What a plan needs: which servers track others.
    Links,
    /// What a status shows: sessions, queue and check as well.
    Statistics,
    /// What a guard needs: the servers that are not wanted as well, and all about all of them.
    Everything,
}

/// What an instance said.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Where it was asked.
    pub address: Address,
    /// Whether that is a stats socket or a master CLI.
    pub door: Door,
    /// Who answered.
    pub process: Process,
    /// What the socket allows.
    pub level: Level,
    /// The wanted servers, in HAProxy's order.
    pub servers: Vec<Server>,
    /// The other servers, where everything was asked for.
    pub others: Vec<Server>,
    /// The numbers of the backends that have a wanted server, and another one that takes traffic.
    pub served_by_others: BTreeSet<u32>,
    /// How many backends have servers.
    pub backends: usize,
    /// Which of the wanted backends exist, also where they have no wanted server.
    pub backends_found: Vec<bool>,
}

/// Asks an instance for its wanted servers.
///
/// # Errors
/// When none of its sockets leads to a HAProxy that answers in time and is understood.
pub fn observe(instance: &Instance, wanted: Wanted<'_>, detail: Detail, timeout: Duration) -> Result<Observation> {
    observe_through(open_best(instance, timeout)?, wanted, detail).map(|(observation, _)| observation)
}

/// Asks for the wanted servers over a connection that is open already, and returns it.
///
/// # Errors
/// When the answer does not come in time, or is not understood.
pub fn observe_through(
    (mut opened, level): (Opened, Level),
    wanted: Wanted<'_>,
    detail: Detail,
) -> Result<(Observation, Connection)> {
    let mut rows = Matching::new(wanted, detail);
    read_state(&mut opened.connection, &Query::ServersState(None), &mut rows)?;
    let Matching { mut servers, backends_found, mut backends, .. } = rows;
    backends.end();
    let shared = backends.shared_names();
    if !shared.is_empty() {
        for server in servers.iter_mut().filter(|server| shared.contains(&hash(server.backend.as_bytes()))) {
            server.backend_name = Uniqueness::Shared;
        }
    }
    let Opened { mut connection, address, process } = opened;
    let mut observation = Observation {
        address,
        door: connection.door(),
        process,
        level,
        servers,
        others: Vec::new(),
        served_by_others: backends.served_by_others,
        backends: backends.names.len(),
        backends_found,
    };
    read_statistics(&mut connection, &mut observation.servers, detail)?;
    if detail == Detail::Everything {
        let is_wanted = |it: &Server| wanted.matches(it.backend.as_bytes(), it.server.as_bytes());
        (observation.servers, observation.others) = observation.servers.into_iter().partition(is_wanted);
        // The dump looks at those that it does not hand over, and here it has handed over all.
        let usable = observation.others.iter().filter(|server| is_usable(&State::from(*server)));
        observation.served_by_others.extend(usable.map(|server| server.backend_id));
    }
    Ok((observation, connection))
}

/// Asks again for servers that were observed before, over a new connection; one that is gone has no value.
///
/// Few backends are asked for one by one, many with one dump of all.
///
/// # Errors
/// As [`observe`].
pub fn read_back(
    address: &Address,
    wanted: Wanted<'_>,
    before: &[Server],
    backends: usize,
    timeout: Duration,
) -> Result<(Process, Vec<Option<Server>>)> {
    let Opened { mut connection, process, .. } = open(address, timeout)?;
    let mut queries: Vec<Reference<'_>> = before.iter().map(|server| server.target().backend).collect();
    queries.dedup();
    let mut rows = ReadBack { wanted, before, next: 0, after: vec![None; before.len()] };
    if queries.len() * 10 > backends {
        drop(queries);
        read_state(&mut connection, &Query::ServersState(None), &mut rows)?;
    } else {
        for backend in queries {
            read_state(&mut connection, &Query::ServersState(Some(backend)), &mut rows)?;
        }
    }
    Ok((process, rows.after))
}

/// Asks for the statistics of a few servers over a new connection; a server that is gone has none. The process is that
/// which answered last.
///
/// # Errors
/// As [`observe`].
pub fn read_load(address: &Address, servers: &[&Server], timeout: Duration) -> Result<(Process, Vec<Option<StatRow>>)> {
    let Opened { mut connection, process, .. } = open(address, timeout)?;
    let mut rows = HashMap::with_capacity(servers.len());
    for window in servers.chunks(ONE_BY_ONE) {
        let queries: Vec<String> = window
            .iter()
            .map(|server| Query::Stat { proxy: Some(server.backend_id), server: Some(server.server_id) }.to_string())
            .collect();
        let mut reader = StatReader::new(address, |row| {
            rows.insert((row.backend_id, row.server_id), row);
        });
        connection.rows(&queries, |row| reader.line(row))?;
    }
    let rows: Vec<_> = servers.iter().map(|server| rows.remove(&(server.backend_id, server.server_id))).collect();
    // Up to 2.4 a process that has begun to stop since it was asked what it is has no servers any more: another one
    // answers by now.
    let process = if rows.contains(&None) { open(address, timeout)?.process } else { process };
    Ok((process, rows))
}

/// How servers are predicted to be, for a dump that shows them so.
#[derive(Debug, Default)]
pub struct Predicted<'a>(HashMap<(&'a [u8], &'a [u8]), &'a Server>);

impl<'a> Predicted<'a> {
    /// Takes the servers as they are predicted to be.
    #[must_use]
    pub fn of(servers: &'a [Server]) -> Self {
        Self(servers.iter().map(|it| ((it.backend.as_bytes(), it.server.as_bytes()), it)).collect())
    }
}

/// Asks for all servers over a new connection and hands over every line of the answer, with the predicted servers as
/// they are predicted to be.
///
/// # Errors
/// When the answer does not come in time or not complete, or with what `on_line` returned.
pub fn dump(
    address: &Address,
    timeout: Duration,
    predicted: &Predicted<'_>,
    mut on_line: impl FnMut(&[u8]) -> std::result::Result<(), ParseError>,
) -> Result<()> {
    let mut opened = open(address, timeout)?;
    let understood = |error: ParseError| not_understood(address, &error);
    let mut header = None;
    opened.connection.dump(&Query::ServersState(None).to_string(), Form::Lines, |line| {
        if line.starts_with(b"# be_id") {
            header = Some(StateHeader::parse(line).map_err(understood)?);
        }
        let rewritten = match &header {
            Some(header) if !predicted.0.is_empty() => header.rewritten(line, |backend, server| {
                let server = predicted.0.get(&(backend, server))?;
                Some((server.flags, server.weight, server.check, server.agent))
            }),
            _ => None,
        };
        on_line(rewritten.as_deref().unwrap_or(line)).map_err(understood)
    })?;
    Ok(())
}

/// Asks for the names of all backends that have servers, and of their servers, over a new connection.
///
/// # Errors
/// As [`observe`].
pub fn names(address: &Address, timeout: Duration) -> Result<Vec<(String, String)>> {
    let mut opened = open(address, timeout)?;
    let wanted = Wanted { servers: &[], backends: &[] };
    let mut rows = Matching::new(wanted, Detail::Everything);
    read_state(&mut opened.connection, &Query::ServersState(None), &mut rows)?;
    let servers = rows.servers.into_iter();
    Ok(servers.map(|server| (server.backend.to_string(), server.server.to_string())).collect())
}

/// A connection whose process is known.
#[derive(Debug)]
pub struct Opened {
    /// The conversation.
    pub connection: Connection,
    /// Where it was opened.
    pub address: Address,
    /// Who answers.
    pub process: Process,
}

/// Opens a connection to a process that is not about to stop.
///
/// # Errors
/// As [`Connection::open`]; also when several processes share the socket.
pub fn open(address: &Address, timeout: Duration) -> Result<Opened> {
    open_and_ask(address, timeout, None).map(|(opened, _)| opened)
}

/// Opens a connection and finds out what its socket allows.
fn open_for_commands(address: &Address, timeout: Duration) -> Result<(Opened, Level)> {
    let (opened, reply) = open_and_ask(address, timeout, Some(Query::Level))?;
    let level = Level::parse(&String::from_utf8_lossy(&reply.unwrap_or_default()))
        .map_err(|error| not_understood(address, &error))?;
    Ok((opened, level))
}

/// Opens a connection to a process that is not about to stop, and asks something else at once.
fn open_and_ask(address: &Address, timeout: Duration, other: Option<Query<'_>>) -> Result<(Opened, Option<Vec<u8>>)> {
    let mut tries = 0;
    let first: Vec<String> = [Query::Info].into_iter().chain(other).map(|query| query.to_string()).collect();
    loop {
        let (connection, replies) = Connection::open(address, timeout, &first)?;
        let mut replies = replies.into_iter();
        let info = Info::parse(&replies.next().unwrap_or_default()).map_err(|error| not_understood(address, &error))?;
        if info.processes > 1 {
            return Err(Error::new(
                ErrorKind::SeveralProcesses,
                format!(
                    "the HAProxy at {address} runs as {} processes ('nbproc'), of which a change would reach one only; \
                     use 'nbthread' instead",
                    info.processes
                ),
            ));
        }
        if !info.stopping || tries == STOPPING_TRIES {
            let process = Process::new(&info);
            return if info.stopping {
                Err(Error::new(
                    ErrorKind::Unreachable,
                    format!("the HAProxy at {address} (process {}) is stopping, and no new one answers", process.pid),
                ))
            } else {
                Ok((Opened { connection, address: address.clone(), process }, replies.next()))
            };
        }
        tries += 1;
        drop(connection);
        std::thread::sleep(STOPPING_PAUSE);
    }
}

/// Opens the socket of the instance that serves best: admin level wins, then Unix, then the first.
///
/// # Errors
/// When none of its sockets leads to a HAProxy that answers in time and is understood.
pub fn open_best(instance: &Instance, timeout: Duration) -> Result<(Opened, Level)> {
    let mut best: Option<(Opened, Level)> = None;
    let mut failure = None;
    for address in &instance.addresses {
        match open_for_commands(address, timeout) {
            Ok(opened) => {
                let rank = |(opened, level): &(Opened, Level)| (*level, matches!(opened.address, Address::Unix(_)));
                if best.as_ref().is_none_or(|best| rank(&opened) > rank(best)) {
                    best = Some(opened);
                }
                if instance.addresses.len() == 1 {
                    break;
                }
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    best.ok_or_else(|| {
        failure.unwrap_or_else(|| {
            Error::new(
                ErrorKind::Unreachable,
                format!(
                    "the instance {} has no stats socket that can be connected to; add \
                     'stats socket /run/haproxy/{}.sock mode 660 level admin' to the global section of its configuration",
                    instance.name, instance.name
                ),
            )
        })
    })
}

fn not_understood(address: &Address, error: &ParseError) -> Error {
    Error::new(ErrorKind::BadReply, format!("the HAProxy at {address} gave an answer that is not understood: {error}"))
}

/// What is kept of the rows of `show servers state`.
trait Rows {
    /// Tells whether the row of a server is wanted, by the number and the name of its backend and its own name.
    fn wants(&mut self, backend_id: u32, backend: &[u8], server: &[u8]) -> bool;

    /// Takes a row that is wanted.
    fn take(&mut self, row: &StateRow<'_>);

    /// Passes over a row that is not.
    fn pass(&mut self, _: &OtherRow<'_>) {}
}

/// Keeps the servers that are wanted.
struct Matching<'a> {
    wanted: Wanted<'a>,
    detail: Detail,
    servers: Vec<Server>,
    backends_found: Vec<bool>,
    backends: Backends,
}

impl<'a> Matching<'a> {
    fn new(wanted: Wanted<'a>, detail: Detail) -> Self {
        let backends_found = vec![false; wanted.backends.len()];
        Self { wanted, detail, servers: Vec::new(), backends_found, backends: Backends::default() }
    }
}

impl Rows for Matching<'_> {
    fn wants(&mut self, backend_id: u32, backend: &[u8], server: &[u8]) -> bool {
        if self.backends.last != Some(backend_id) {
            self.backends.begin(backend_id, backend);
            for (pattern, found) in self.wanted.backends.iter().zip(&mut self.backends_found) {
                *found |= pattern.matches(backend);
            }
        }
        self.detail == Detail::Everything || self.wanted.matches(backend, server)
    }

    fn take(&mut self, row: &StateRow<'_>) {
        self.backends.has_wanted = true;
        self.servers.push(Server::new(row, self.servers.last()));
    }

    fn pass(&mut self, row: &OtherRow<'_>) {
        // One is enough, so that most rows are not looked at.
        self.backends.has_other = self.backends.has_other || row.is_usable();
    }
}

/// Keeps the servers that were observed before, each in its place.
struct ReadBack<'a> {
    wanted: Wanted<'a>,
    before: &'a [Server],
    next: usize,
    after: Vec<Option<Server>>,
}

impl Rows for ReadBack<'_> {
    fn wants(&mut self, _: u32, backend: &[u8], server: &[u8]) -> bool {
        self.wanted.matches(backend, server)
    }

    fn take(&mut self, row: &StateRow<'_>) {
        // Both are in HAProxy's order, so that the one that is looked for is nearly always the next.
        let is_here = |place: &usize| self.before.get(*place).is_some_and(|server| server.is_in(row));
        let Some(place) = (self.next..self.before.len()).chain(0..self.next).find(is_here) else { return };
        self.next = place + 1;
        if let (Some(slot), before) = (self.after.get_mut(place), self.before.get(place)) {
            *slot = Some(Server::new(row, before));
        }
    }
}

/// Which backends a dump has, to find two of one name: what a name then means is not what it says.
#[derive(Default)]
struct Backends {
    last: Option<u32>,
    /// What stands for the name of each.
    names: Vec<u64>,
    has_wanted: bool,
    has_other: bool,
    served_by_others: BTreeSet<u32>,
}

impl Backends {
    fn begin(&mut self, id: u32, name: &[u8]) {
        self.end();
        self.last = Some(id);
        self.names.push(hash(name));
    }

    /// Keeps of the backend that has ended whether it has a wanted server and another one that takes traffic.
    fn end(&mut self) {
        let has_both = std::mem::take(&mut self.has_wanted) & std::mem::take(&mut self.has_other);
        self.served_by_others.extend(self.last.filter(|_| has_both));
    }

    /// The names that more than one of them has.
    fn shared_names(&self) -> Vec<u64> {
        let mut names = self.names.clone();
        names.sort_unstable();
        names
            .windows(2)
            .filter_map(|pair| matches!(pair, [one, other] if one == other).then(|| pair.first().copied())?)
            .collect()
    }
}

fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Reads one reply of `show servers state`, line by line.
fn read_state(connection: &mut Connection, query: &Query, rows: &mut impl Rows) -> Result<()> {
    let mut header: Option<StateHeader> = None;
    let mut backend = LastBackend::default();
    let mut line_number = 0usize;
    let mut is_missing = false;
    let address = connection.address().clone();
    connection.dump(&query.to_string(), Form::Lines, |line| {
        line_number += 1;
        let understood = |error: ParseError| not_understood(&address, &error);
        match (line_number, &header) {
            (1, _) if line.ends_with(b"Can't find backend.") => is_missing = true,
            _ if is_missing => {}
            (1, _) => state_version(line).map_err(understood)?,
            (_, None) => header = Some(StateHeader::parse(line).map_err(understood)?),
            // An empty line ends the dump; a line that starts with '#' is a comment.
            (_, Some(_)) if line.is_empty() || line.starts_with(b"#") => {}
            (_, Some(header)) => {
                let wanted = |id, backend: &[u8], server: &[u8]| rows.wants(id, backend, server);
                match header.row(line, &mut backend, wanted).map_err(understood)? {
                    AnyRow::Wanted(row) if is_of_master_cli(&row) => {}
                    AnyRow::Wanted(row) => rows.take(&row),
                    AnyRow::Other(row) => rows.pass(&row),
                }
            }
        }
        Ok(())
    })?;
    if !is_missing && header.is_none() {
        return Err(Error::new(
            ErrorKind::BadReply,
            format!("the HAProxy at {address} answered '{query}' without the line that names the columns"),
        ));
    }
    Ok(())
}

/// Reads from `show stat` what `show servers state` does not tell.
///
/// Of few servers all is asked; of many, a plan needs only those whose flags are inherited from the one they track.
fn read_statistics(connection: &mut Connection, servers: &mut [Server], detail: Detail) -> Result<()> {
    const INHERITED: u32 = AdminFlags::INHERITED_MAINT | AdminFlags::INHERITED_DRAIN;
    let is_few = servers.len() <= ONE_BY_ONE;
    let mut asked: Vec<&mut Server> = servers
        .iter_mut()
        .filter(|server| is_few || detail != Detail::Links || server.flags.has(INHERITED))
        .filter(|server| !server.is_in_disabled_backend())
        .collect();
    if asked.is_empty() {
        return Ok(());
    }
    asked.sort_by_key(|server| (server.backend_id, server.server_id));
    let address = connection.address().clone();
    let queries: Vec<String> = asked
        .iter()
        .map(|server| Query::Stat { proxy: Some(server.backend_id), server: Some(server.server_id) }.to_string())
        .collect();
    let mut reader = StatReader::new(&address, |row| {
        let key = (row.backend_id, row.server_id);
        let found = asked.binary_search_by_key(&key, |server| (server.backend_id, server.server_id)).ok();
        if let Some(server) = found.and_then(|index| asked.get_mut(index)) {
            server.stat = Some(Box::new(row));
        }
    });
    if queries.len() > ONE_BY_ONE {
        let query = Query::Stat { proxy: None, server: None };
        return connection.dump(&query.to_string(), Form::Rows, |row| reader.line(row));
    }
    connection.rows(&queries, |row| reader.line(row))
}

/// Reads one or more replies of `show stat`, row by row.
pub(crate) struct StatReader<'a, R> {
    address: &'a Address,
    header: Option<StatHeader>,
    on_row: R,
}

impl<'a, R: FnMut(StatRow)> StatReader<'a, R> {
    pub(crate) fn new(address: &'a Address, on_row: R) -> Self {
        Self { address, header: None, on_row }
    }

    pub(crate) fn line(&mut self, line: &[u8]) -> Result<()> {
        let understood = |error: ParseError| not_understood(self.address, &error);
        match &self.header {
            _ if line.is_empty() => Ok(()),
            _ if line.starts_with(b"# ") => {
                self.header = Some(StatHeader::parse(line).map_err(understood)?);
                Ok(())
            }
            Some(header) => {
                (self.on_row)(header.row(line).map_err(understood)?);
                Ok(())
            }
            // The proxy was deleted since it was observed.
            None if line == b"No such proxy." => Ok(()),
            None => Err(Error::new(
                ErrorKind::BadReply,
                format!("the HAProxy at {} answered 'show stat' with '{}'", self.address, excerpt(line, 200)),
            )),
        }
    }
}
