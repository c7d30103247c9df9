//! A HAProxy of values for tests of the work on it: a script says what happens before and during each call, and no time
//! passes but what the script and the waits let pass.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::haproxy::client::{Admit, Answered, Client, Exchange, Polled, Reply};
use crate::haproxy::observe::{Detail, Observation, Rest};
use crate::haproxy::old_processes::{OldLoad, OldProcess};
use crate::haproxy::open::Contact;
use crate::haproxy::parse::Level;
use crate::haproxy::socket::Door;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::goal::{Switch, Weight};
use crate::model::name::Address;
use crate::model::server::{CheckCounter, Process, Publication, Server, ServerState, Start, Statistics, Uniqueness};
use crate::model::state::{AdminFlags, AdminState, OperationalState, operational_after};
use crate::time::clock::Clock;
use crate::time::interrupt::{Interrupt, PATIENT};

/// How many calls a run may make; more are taken for a loop that does not end.
const MANY_CALLS: usize = 1_500;

/// How long a call takes.
pub(super) const CALL: Duration = Duration::from_millis(20);

/// A clock that shows the time that calls and pauses have taken.
#[derive(Debug)]
pub(super) struct Stopwatch {
    start: Instant,
    passed: AtomicU64,
}

impl Default for Stopwatch {
    fn default() -> Self {
        Self { start: Instant::now(), passed: AtomicU64::new(0) }
    }
}

impl Stopwatch {
    fn pass(&self, time: Duration) {
        self.passed.fetch_add(u64::try_from(time.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Stopwatch {
    /// Returns how much time has passed.
    pub(super) fn passed(&self) -> Duration {
        Duration::from_micros(self.passed.load(Ordering::SeqCst))
    }
}

impl Clock for Stopwatch {
    fn now(&self) -> Instant {
        self.start + self.passed()
    }

    fn pause(&self, time: Duration, signals: &Interrupt) -> Result<()> {
        self.pass(time);
        signals.check().map_or(Ok(()), Err)
    }
}

/// What happens at one call.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn {
    /// Before it.
    pub(super) before: Vec<Event>,
    /// How it is answered.
    pub(super) answer: Answer,
}

impl From<Event> for Turn {
    fn from(event: Event) -> Self {
        Self { before: vec![event], answer: Answer::Whole }
    }
}

impl From<Answer> for Turn {
    fn from(answer: Answer) -> Self {
        Self { before: Vec::new(), answer }
    }
}

/// What happens between two calls; a server is meant by its place, whatever the number.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// A new process takes over.
    Reload(Memory, Change),
    /// Somebody else sends a command, written without the server.
    Somebody(usize, &'static str),
    /// A server is deleted.
    Delete(usize),
    /// The sessions of a server end.
    SessionsEnd(usize),
    /// A session begins on a server, and ends after so many polls out of service.
    SessionBegins(usize, u32),
    /// A session begins on a server and ends at once.
    SessionPasses(usize),
    /// The process before the present one still runs, for so many polls.
    OldProcess(u32),
    /// So does one whose sessions a master CLI shows.
    SeenOldProcess(u32, u32),
    /// A check finds that a server is down.
    Down(usize),
    /// A signal asks the run to end.
    Signal,
}

/// What a new process knows of the old one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Memory {
    /// Nothing: its servers are as configured.
    Nothing,
    /// How the servers were.
    StateFile,
}

/// What the configuration of a new process changes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Nothing,
    Removes(usize),
    Renames(usize),
    Adds,
}

/// How a call is answered.
#[derive(Debug, Clone, Default)]
pub(super) enum Answer {
    /// As HAProxy does.
    #[default]
    Whole,
    /// Not at all.
    Fails(ErrorKind),
    /// One of the commands is refused with these words; what only reads is answered.
    Refuses(usize, &'static str),
    /// After so many commands the connection fails; what only reads fails at once.
    CutOff(usize, Fate, ErrorKind),
}

/// What becomes of commands that are not answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    CarriedOut,
    /// After so many more calls.
    CarriedOutLater(usize),
    Lost,
}

/// A server of the model.
#[derive(Clone)]
pub(super) struct Modelled {
    /// As HAProxy shows it.
    pub(super) server: Server,
    /// How the configuration has it.
    pub(super) configured: ServerState,
    /// The server that it tracks, as `backend/server`.
    pub(super) tracks: Option<String>,
    /// Its sessions.
    pub(super) sessions: u32,
    /// After how many polls out of service these have ended.
    pub(super) ends_after: u32,
    /// Before how many polls in drain a session begins on it and ends at once.
    pub(super) visits: u32,
    /// How many sessions have begun on it since the process started.
    pub(super) begun: u64,
    /// How many polls outside of maint see it before its check has passed.
    pub(super) passes_after: u32,
}

impl fmt::Debug for Modelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, configured, tracks, sessions, ends_after, visits, begun, passes_after } = self;
        let (name, number) = (server.full_name(), server.server_id);
        write!(f, "{name}#{number} {:?} configured {:?} tracks {tracks:?} ", server.state, configured)?;
        write!(
            f,
            "{sessions} sessions of {begun}, end after {ends_after}, {visits} visits, passes after {passes_after}"
        )
    }
}

impl Modelled {
    /// Makes a server that is ready and has nothing to do.
    pub(super) fn new(backend: &str, server: &str) -> Self {
        let state = ServerState {
            flags: AdminFlags(0),
            operational: OperationalState::Running,
            weight: 10,
            health: Some(Switch::Enabled),
            agent: None,
        };
        let server = Server {
            backend: backend.into(),
            backend_name: Uniqueness::Unique,
            server: server.into(),
            backend_id: 2 + u32::from(backend == "b"),
            server_id: 1,
            address: "127.0.0.1:9".into(),
            has_address: true,
            state,
            configured_weight: 10,
            statistics: None,
        };
        Self {
            server,
            configured: state,
            tracks: None,
            sessions: 0,
            ends_after: 0,
            visits: 0,
            begun: 0,
            passes_after: 0,
        }
    }

    fn is_selected(&self) -> bool {
        self.server.server.starts_with('s')
    }

    fn statistics(&self) -> Statistics {
        let state = &self.server.state;
        let is_down = state.operational == OperationalState::Stopped;
        let status = match state.flags.effective() {
            AdminState::Maint => "MAINT",
            AdminState::Ready | AdminState::Drain if is_down => "DOWN",
            AdminState::Drain => "DRAIN",
            AdminState::Ready if state.health.is_none() => "no check",
            AdminState::Ready => "UP",
        };
        let health = if self.passes_after > 0 { 2 } else { 4 };
        Statistics {
            queue: 0,
            sessions: self.sessions,
            total_sessions: self.begun,
            status: status.to_owned(),
            weight: state.weight,
            publication: Publication::Published,
            check: None,
            check_code: None,
            tracks: self.tracks.clone(),
            backup: false,
            is_throttled: false,
            revision: None,
            counter: state.health.map(|_| CheckCounter { health, rise: 2, fall: 3 }),
        }
    }
}

/// Who has set a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Run,
    Rollback,
    SomebodyElse,
    /// The run, by a command that was carried out long after.
    RunBelatedly,
}

/// What has happened, in order.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    Set {
        who: Who,
        name: String,
        from: ServerState,
        to: ServerState,
        sessions: u32,
    },
    Read {
        name: String,
        state: Option<ServerState>,
    },
    /// What is told of what a server does.
    Count {
        name: String,
        at: Duration,
        statistics: Statistics,
    },
    Sent {
        who: Who,
        name: String,
        line: String,
    },
    Batch(Batch),
    /// A poll has found processes from before a reload.
    OldProcesses,
    /// The sessions of processes from before a reload are ended.
    OldSessionsEnd,
    Reload,
    Observe,
    /// Something that an observation before it does not show.
    Disturbance,
}

/// The servers around commands that were sent together.
#[derive(Clone)]
pub(super) struct Batch {
    pub(super) who: Who,
    pub(super) before: Vec<Modelled>,
    pub(super) after: Vec<Modelled>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch of {:?}", self.who)
    }
}

/// All that is known of the HAProxy.
#[derive(Debug)]
pub(super) struct Haproxy {
    pub(super) servers: Vec<Modelled>,
    pub(super) process: Process,
    pub(super) calls: usize,
    pub(super) log: Vec<Entry>,
    script: VecDeque<Turn>,
    /// Whether the script begins anew at its end.
    is_endless: bool,
    late: Vec<(u32, usize, String)>,
    /// The processes from before a reload that still run, for how many polls, and with how many sessions, if that is seen.
    old: BTreeMap<u32, (u32, Option<u32>)>,
    clock: Arc<Stopwatch>,
    signals: Arc<Interrupt>,
}

/// The HAProxy, for those who ask it and for the test.
#[derive(Debug)]
pub(super) struct Model(Mutex<Haproxy>);

fn process(pid: u32) -> Process {
    Process::new("3.2.4", pid, Start::At(u64::from(pid)), (0, Instant::now()))
}

impl Model {
    pub(super) fn new(servers: &[Modelled], clock: &Arc<Stopwatch>, signals: &Arc<Interrupt>) -> Self {
        let mut haproxy = Haproxy {
            servers: servers.to_vec(),
            process: process(100),
            calls: 0,
            log: Vec::new(),
            script: VecDeque::new(),
            is_endless: false,
            late: Vec::new(),
            old: BTreeMap::new(),
            clock: Arc::clone(clock),
            signals: Arc::clone(signals),
        };
        haproxy.number();
        haproxy.inherit();
        Self(Mutex::new(haproxy))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Haproxy> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn into_inner(self) -> Haproxy {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Observes it as it is before a run, and lets the script begin.
    pub(super) fn begin(&self, detail: Detail, script: Vec<Turn>, is_endless: bool) -> (Observation, Asker<'_>) {
        let mut haproxy = self.lock();
        let observation = haproxy.observation(detail);
        haproxy.script = script.into();
        haproxy.is_endless = is_endless;
        (observation, Asker { model: self, known: process(100) })
    }
}

impl Haproxy {
    /// Tells whether it was asked far more often than can be needed.
    pub(super) fn was_asked_without_end(&self) -> bool {
        self.calls > MANY_CALLS
    }

    pub(super) fn state_of(&self, name: &str) -> Option<ServerState> {
        self.servers.iter().find(|it| it.server.full_name() == name).map(|it| it.server.state)
    }

    /// Gives each server its number, as the configuration of a process does.
    fn number(&mut self) {
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        for it in self.servers.iter_mut().filter(|it| it.server.server_id > 0) {
            let number = numbers.entry(it.server.backend_id).or_default();
            *number += 1;
            it.server.server_id = *number;
        }
    }

    /// Passes states on to the servers that track others; a chain of them is as long as there are servers.
    fn inherit(&mut self) {
        for _ in 0..self.servers.len() {
            let states: HashMap<String, ServerState> =
                self.servers.iter().map(|it| (it.server.full_name(), it.server.state)).collect();
            for it in &mut self.servers {
                let Some(tracked) = it.tracks.as_ref().and_then(|tracks| states.get(tracks)) else { continue };
                let before = it.server.state;
                let flags = before.flags.after_target(tracked.flags);
                let operational =
                    operational_after((before.flags, before.operational), flags, Some(tracked.operational));
                it.server.state = ServerState { flags, operational, ..before };
            }
        }
    }

    fn begin_call(&mut self) -> Result<Answer> {
        self.calls += 1;
        self.clock.pass(CALL);
        self.carry_out_late();
        if self.was_asked_without_end() {
            return Err(Error::new(ErrorKind::Internal, "asked without end"));
        }
        let Some(turn) = self.script.pop_front() else { return Ok(Answer::Whole) };
        if self.is_endless {
            self.script.push_back(turn.clone());
        }
        for event in turn.before {
            self.happen(event);
        }
        Ok(turn.answer)
    }

    fn carry_out_late(&mut self) {
        let (calls, pid) = (self.calls, self.process.pid);
        let (due, later) = std::mem::take(&mut self.late).into_iter().partition(|(_, due, _)| *due <= calls);
        self.late = later;
        for (of, _, line) in due {
            if of == pid {
                self.obey(&line, Who::RunBelatedly);
                self.log.push(Entry::Disturbance);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        let count = self.servers.len().max(1);
        match event {
            Event::Reload(memory, change) => self.reload(memory, change),
            Event::Somebody(place, does) => {
                let Some(name) = self.servers.get(place % count).map(|it| it.server.full_name()) else { return };
                let line = match does.split_once(' ') {
                    Some(("state" | "weight", _)) => format!("set server {name} {does}"),
                    _ => format!("{does} {name}"),
                };
                self.obey(&line, Who::SomebodyElse);
            }
            Event::Delete(place) => {
                if place % count < self.servers.len() {
                    self.servers.remove(place % count);
                }
            }
            Event::SessionsEnd(place) => {
                if let Some(it) = self.servers.get_mut(place % count) {
                    it.sessions = 0;
                }
            }
            Event::SessionBegins(place, ends_after) => {
                if let Some(it) = self.servers.get_mut(place % count) {
                    (it.sessions, it.ends_after) = (1, ends_after);
                    it.begun += 1;
                }
            }
            Event::OldProcess(polls) => {
                self.old.insert(self.process.pid - 1, (polls, None));
            }
            Event::SeenOldProcess(polls, sessions) => {
                self.old.insert(self.process.pid - 1, (polls, Some(sessions)));
            }
            Event::SessionPasses(place) => {
                if let Some(it) = self.servers.get_mut(place % count) {
                    it.begun += 1;
                }
            }
            Event::Down(place) => {
                if let Some(it) = self.servers.get_mut(place % count) {
                    it.server.state.operational = OperationalState::Stopped;
                }
            }
            Event::Signal => self.signals.raise(),
        }
        self.log.push(Entry::Disturbance);
    }

    fn reload(&mut self, memory: Memory, change: Change) {
        self.process = process(self.process.pid + 1);
        self.log.push(Entry::Reload);
        self.servers.iter_mut().for_each(|it| it.begun = 0);
        let count = self.servers.len().max(1);
        match change {
            Change::Nothing => {}
            Change::Removes(place) => {
                if place % count < self.servers.len() {
                    self.servers.remove(place % count);
                }
            }
            Change::Renames(place) => {
                if let Some(it) = self.servers.get_mut(place % count) {
                    it.server.server = format!("{}r", it.server.server).as_str().into();
                    it.server.state = it.configured;
                }
            }
            Change::Adds => {
                let name = format!("s{}", self.process.pid);
                self.servers.insert(0, Modelled::new("a", &name));
            }
        }
        if matches!(memory, Memory::Nothing) {
            self.servers.iter_mut().for_each(|it| it.server.state = it.configured);
        }
        self.number();
        self.inherit();
    }

    /// Does what a command says, as HAProxy does.
    fn obey(&mut self, line: &str, who: Who) -> Reply {
        let words: Vec<&str> = line.split(' ').collect();
        let (name, does): (&str, &[&str]) = match words.as_slice() {
            ["set", "server", name, rest @ ..] => (name, rest),
            ["enable" | "disable", "health" | "agent", name] => (name, words.get(..2).unwrap()),
            ["shutdown", "sessions", "server", name] => (name, &["shutdown"]),
            _ => panic!("not a command of this program: {line}"),
        };
        if who != Who::SomebodyElse {
            self.log.push(Entry::Sent { who, name: name.to_owned(), line: line.to_owned() });
        }
        let Some(it) = self.servers.iter_mut().find(|it| it.server.full_name() == name) else {
            return Reply::Refused("No such server.".into());
        };
        if it.server.is_in_disabled_backend() {
            return Reply::Disabled;
        }
        let from = it.server.state;
        let mut to = from;
        match does {
            ["state", state] => {
                let state = match *state {
                    "ready" => AdminState::Ready,
                    "drain" => AdminState::Drain,
                    "maint" => AdminState::Maint,
                    _ => panic!("not a state: {line}"),
                };
                to.flags = from.flags.after(state);
                to.operational = operational_after((from.flags, from.operational), to.flags, None);
            }
            ["weight", weight] => {
                to.weight = match weight.strip_suffix('%') {
                    Some(percent) => Weight::Percent(percent.parse().unwrap()).of(it.server.configured_weight),
                    None => weight.parse().unwrap(),
                }
            }
            ["enable", "health"] => to.health = from.health.map(|_| Switch::Enabled),
            ["disable", "health"] => to.health = from.health.map(|_| Switch::Disabled),
            ["enable", "agent"] => to.agent = from.agent.map(|_| Switch::Enabled),
            ["disable", "agent"] => to.agent = from.agent.map(|_| Switch::Disabled),
            ["shutdown"] => {
                it.sessions = 0;
                return Reply::Accepted;
            }
            _ => panic!("not a command of this program: {line}"),
        }
        it.server.state = to;
        let sessions = it.sessions;
        self.inherit();
        self.log.push(Entry::Set { who, name: name.to_owned(), from, to, sessions });
        Reply::Accepted
    }

    /// Tells the statistics of a server, on which time goes by with each poll.
    fn poll(&mut self, name: &str) -> Option<Statistics> {
        let it = self.servers.iter_mut().find(|it| it.server.full_name() == name)?;
        let (is_ready, is_maint) = match it.server.state.flags.effective() {
            AdminState::Ready => (true, false),
            AdminState::Drain => (false, false),
            AdminState::Maint => (false, true),
        };
        if is_ready {
            it.begun += 1;
        } else {
            if !is_maint && it.visits > 0 {
                it.begun += 1;
                it.visits -= 1;
            }
            it.ends_after = it.ends_after.saturating_sub(1);
            it.sessions = if it.ends_after == 0 { 0 } else { it.sessions };
        }
        let statistics = it.statistics();
        if !is_maint {
            it.passes_after = it.passes_after.saturating_sub(1);
        }
        let at = self.clock.passed();
        self.log.push(Entry::Count { name: name.to_owned(), at, statistics: statistics.clone() });
        Some(statistics)
    }

    fn old_processes(&self) -> Vec<OldProcess> {
        self.old.iter().map(|(pid, (_, sessions))| OldProcess { pid: *pid, sessions: *sessions }).collect()
    }

    fn contact(&self) -> Contact {
        Contact {
            address: Address::parse("/run/haproxy/model.sock").unwrap(),
            addresses: [].into(),
            door: Door::Stats,
            process: self.process.clone(),
            level: Level::Admin,
            peer: None,
        }
    }

    fn observation(&mut self, detail: Detail) -> Observation {
        self.log.push(Entry::Observe);
        // What old processes still do is counted by polls only.
        let statistics = |it: &Modelled| Some(Box::new(Statistics { sessions: 0, ..it.statistics() }));
        let shown = |it: &Modelled| Server { statistics: statistics(it), ..it.server.clone() };
        let of = |is_selected: bool| self.servers.iter().filter(move |it| it.is_selected() == is_selected);
        let servers: Vec<Server> = of(true).map(shown).collect();
        let others = of(false).map(shown).filter(|_| detail.guard.is_some()).collect();
        for server in &servers {
            let name = server.full_name();
            self.log.push(Entry::Read { name: name.clone(), state: Some(server.state) });
            if let Some(statistics) = server.statistics.as_deref().cloned() {
                self.log.push(Entry::Count { name, at: self.clock.passed(), statistics });
            }
        }
        let rest = Rest { others, ..Rest::default() };
        Observation { contact: self.contact(), servers, rest }
    }
}

/// What talks to the model.
#[derive(Debug)]
pub(super) struct Asker<'m> {
    model: &'m Model,
    known: Process,
}

impl Asker<'_> {
    /// Begins a call that only reads.
    fn begin_reading(&self) -> Result<MutexGuard<'_, Haproxy>> {
        let mut haproxy = self.model.lock();
        match haproxy.begin_call()? {
            Answer::Whole | Answer::Refuses(..) => Ok(haproxy),
            Answer::Fails(kind) | Answer::CutOff(_, _, kind) => Err(scripted(kind)),
        }
    }
}

fn scripted(kind: ErrorKind) -> Error {
    Error::new(kind, format!("scripted {kind}"))
}

impl Client for Asker<'_> {
    fn send(&mut self, lines: &[&str], signals: &Interrupt) -> Result<Answered<Exchange>> {
        let mut haproxy = self.model.lock();
        let answer = haproxy.begin_call()?;
        if let Answer::Fails(kind) = answer {
            return Err(scripted(kind));
        }
        if !haproxy.process.is(&self.known) {
            return Ok(Answered::Replaced(haproxy.process.clone()));
        }
        let who = if std::ptr::eq(signals, &raw const PATIENT) { Who::Rollback } else { Who::Run };
        if let Some(error) = signals.check() {
            return Ok(Answered::Same(Exchange { replies: vec![Reply::Unsent; lines.len()], failure: Some(error) }));
        }
        let before = haproxy.servers.clone();
        let mut failure = None;
        let mut replies = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            replies.push(match &answer {
                Answer::Refuses(nth, text) if nth % lines.len() == index => {
                    let name = line.split(' ').find(|word| word.contains('/')).unwrap().to_owned();
                    haproxy.log.push(Entry::Sent { who, name, line: (*line).to_owned() });
                    if *text == "Proxy is disabled." { Reply::Disabled } else { Reply::Refused((*text).into()) }
                }
                Answer::CutOff(after, fate, kind) if index >= *after => {
                    failure = Some(scripted(*kind));
                    match fate {
                        Fate::CarriedOut => drop(haproxy.obey(line, who)),
                        Fate::CarriedOutLater(calls) => {
                            let due = (haproxy.process.pid, haproxy.calls + calls, (*line).to_owned());
                            haproxy.late.push(due);
                        }
                        Fate::Lost => {}
                    }
                    Reply::Unknown
                }
                Answer::Whole | Answer::Fails(_) | Answer::Refuses(..) | Answer::CutOff(..) => haproxy.obey(line, who),
            });
        }
        let after = haproxy.servers.clone();
        haproxy.log.push(Entry::Batch(Batch { who, before, after }));
        Ok(Answered::Same(Exchange { replies, failure }))
    }

    fn read_back(&mut self, servers: &[&Server]) -> Result<Answered<Vec<Option<Server>>>> {
        let mut haproxy = self.begin_reading()?;
        if !haproxy.process.is(&self.known) {
            return Ok(Answered::Replaced(haproxy.process.clone()));
        }
        let read = |before: &&Server| {
            let found = haproxy.servers.iter().find(|it| it.server.full_name() == before.full_name());
            found.map(|it| it.server.clone())
        };
        let found: Vec<Option<Server>> = servers.iter().map(read).collect();
        for (before, found) in servers.iter().zip(&found) {
            let state = found.as_ref().map(|found| found.state);
            haproxy.log.push(Entry::Read { name: before.full_name(), state });
        }
        Ok(Answered::Same(found))
    }

    fn poll(&mut self, servers: &[&Server]) -> Result<Answered<Polled>> {
        let mut haproxy = self.begin_reading()?;
        if !haproxy.process.is(&self.known) {
            return Ok(Answered::Replaced(haproxy.process.clone()));
        }
        let statistics = servers.iter().map(|asked| haproxy.poll(&asked.full_name())).collect();
        haproxy.old.retain(|_, (polls, _)| *polls > 0);
        haproxy.old.values_mut().for_each(|(polls, _)| *polls -= 1);
        let old = haproxy.old_processes();
        if !old.is_empty() {
            haproxy.log.push(Entry::OldProcesses);
        }
        Ok(Answered::Same(Polled { statistics, old }))
    }

    fn old_load(&mut self, _servers: &[&Server]) -> Result<OldLoad> {
        let mut load = OldLoad::unseen([]);
        load.processes = self.begin_reading()?.old_processes();
        Ok(load)
    }

    fn end_old_sessions(&mut self, _servers: &[&Server]) -> Result<()> {
        self.begin_reading()?.log.push(Entry::OldSessionsEnd);
        Ok(())
    }

    fn end_some_sessions(&mut self, servers: &[&Server], most: usize) -> Result<Answered<usize>> {
        let mut haproxy = self.begin_reading()?;
        if !haproxy.process.is(&self.known) {
            return Ok(Answered::Replaced(haproxy.process.clone()));
        }
        let mut ended = 0;
        for asked in servers {
            let found = haproxy.servers.iter_mut().find(|it| it.server.full_name() == asked.full_name());
            let Some(it) = found.filter(|it| it.sessions > 0 && ended < most) else { continue };
            it.sessions -= 1;
            ended += 1;
        }
        Ok(Answered::Same(ended))
    }

    fn observe(&mut self, detail: Detail, admit: Admit<'_>) -> Result<Observation> {
        let contact = self.begin_reading()?.contact();
        admit(&contact)?;
        self.known = contact.process;
        Ok(self.model.lock().observation(detail))
    }

    fn sees_old_processes(&self) -> bool {
        false
    }

    fn give_time(&mut self, time: Duration) {
        let mut haproxy = self.model.lock();
        haproxy.calls += 1;
        haproxy.clock.pass(time);
        haproxy.carry_out_late();
    }
}
