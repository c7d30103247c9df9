//! The request: from what hosts send ([`Wire`]) to what was checked ([`Request`]).
//!
//! Hosts send text where another type is meant, so each field's type reads it as Ansible's own converters would, or refuses
//! it with a message; it never guesses. The JSON Schema is generated from these types.

#[cfg(test)]
mod tests;
mod wire;

use std::time::Duration;

#[cfg(test)]
pub(crate) use wire::KNOWN;
pub use wire::{
    DrainBounds, Need, OldProcesses, OnFailure, OnMissing, OnOwned, OnTimeout, OnUnreachable, Pace, StateFiles, Via,
    WaitBounds, Wire,
};

use crate::model::error::{Error, ErrorKind, Result};
use crate::model::goal::{Effect, Goal, Requested};
use crate::model::name::{Address, InstanceName, Pattern, Selection, Selector, ServerAddress};
use crate::model::state::{AdminState, OperationalState};
use crate::model::traffic::MinAvailable;
use crate::time::{clock, expiry};

/// The largest request, in bytes.
pub const REQUEST_MAX: usize = 1 << 20;

/// The deepest nesting of a request.
const DEPTH_MAX: usize = 32;

/// A checked request: every name is safe, all fields go together.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Which servers; all if it is empty.
    pub servers: Vec<Selector>,
    /// In which backends; in all if it is empty.
    pub backends: Vec<Pattern>,
    /// At which addresses; at any if it is empty.
    pub addresses: Vec<ServerAddress>,
    /// On which instances; on all discovered ones if it is missing.
    pub instances: Option<Vec<WantedInstance>>,
    /// Which discovered instances are left alone without a word.
    pub ignore_instances: Vec<Pattern>,
    /// What it says about the administrative state.
    pub requested: Option<Requested>,
    /// What the servers should become, without a state if that is restored; nothing in a status.
    pub goal: Option<Goal>,
    /// Whether and how servers are drained before maint.
    pub drain: Option<DrainBounds>,
    /// Whether sessions that are left in maint are ended.
    pub shutdown_sessions: Option<Pace>,
    /// Whether and how long to wait for the effect of the change.
    pub wait: Option<WaitBounds>,
    /// The fewest usable servers that the change may leave in a backend; in a status, that it should have.
    pub guard: Option<MinAvailable>,
    /// The state that every server to be changed is expected in.
    pub expect: Option<Expectation>,
    /// What happens to changes when a later part fails.
    pub on_failure: OnFailure,
    /// HAProxy's server-state files.
    pub state_file: Option<StateFiles>,
    /// Who requests it, why and until when.
    pub claim: Option<Claim>,
    /// Whether a server is put back even if another owner is recorded.
    pub ignore_owner: bool,
    /// What happens to servers that another owner has taken out.
    pub on_owned: OnOwned,
    /// The longest wait for another run on the same HAProxy.
    pub lock_timeout: Duration,
    /// Whether each change is written to the system log.
    pub syslog: SystemLog,
    /// What it means that processes from before a reload still run.
    pub old_processes: OldProcesses,
    /// What a name that matches nothing means.
    pub on_missing: OnMissing,
    /// What an instance that does not answer means.
    pub on_unreachable: OnUnreachable,
    /// Whether to stop after the plan.
    pub dry_run: bool,
    /// Whether the report shows the difference line by line.
    pub diff: bool,
    /// The longest that one instance may take for one step.
    pub timeout: Duration,
    /// The longest that the whole run may take.
    pub deadline: Option<Duration>,
    /// Whether the caller is a Bolt task, which expects failures under `_error` too.
    pub is_task: bool,
    /// Whether the caller is a tool, which shows by a key of its own (`_…`), so nobody watches.
    pub by_tool: bool,
}

/// Who takes servers out or puts them back, and why and until when they are out.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Claim {
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Until when, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

impl Claim {
    /// Tells whether its time is over.
    #[must_use]
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl Request {
    /// Returns which servers it covers.
    #[must_use]
    pub fn selection(&self) -> Selection<'_> {
        Selection { servers: &self.servers, backends: &self.backends, addresses: &self.addresses }
    }

    /// Returns how long ending sessions may take: the time of `drain` unless that is over, otherwise of `wait`, otherwise
    /// `timeout`.
    #[must_use]
    pub fn time_for_sessions(&self, is_drain_over: bool) -> Duration {
        let drain = self.drain.map(|bounds| bounds.timeout).filter(|_| !is_drain_over);
        drain.or(self.wait.map(|bounds| bounds.timeout)).unwrap_or(self.timeout)
    }

    /// Returns the requested administrative state: to restore is a step towards service like `ready`.
    #[must_use]
    pub fn state(&self) -> Option<AdminState> {
        self.requested.map(|requested| requested.for_all().unwrap_or(AdminState::Ready))
    }

    /// What a wait is for, if the request changes anything that can be waited for.
    #[must_use]
    pub fn effect(&self) -> Option<Effect> {
        self.goal.and_then(|goal| Goal { state: self.state(), ..goal }.effect())
    }
}

/// The state that servers are expected in before a change; a missing field allows any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    /// The effective administrative state.
    pub admin_state: Option<AdminState>,
    /// The operational state.
    pub operational_state: Option<OperationalState>,
}

/// Whether the system log is told of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemLog {
    /// Each change is written to it.
    Told,
    /// Nothing is.
    NotTold,
}

/// An instance as it was requested.
#[derive(Debug, Clone, PartialEq)]
pub enum WantedInstance {
    /// A discovered one.
    Named(InstanceName),
    /// The one at this address, discovered or not.
    At(InstanceName, Address),
}

/// A refused request, with what its report needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// What is wrong with it.
    pub error: Error,
    /// Whether the caller is a Bolt task.
    pub is_task: bool,
    /// Whether it was a dry run.
    pub dry_run: bool,
}

/// A request as it was written, before its fields are checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Draft(serde_json::Map<String, serde_json::Value>);

impl Draft {
    /// Reads a request from JSON text.
    ///
    /// # Errors
    /// Says what is wrong and what to write instead.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > REQUEST_MAX {
            return Err(too_long());
        }
        if bytes.trim_ascii().is_empty() {
            return Err(bad(
                "the request is empty; give a JSON object on standard input, a file with one, or KEY=VALUE words (see --help)",
            ));
        }
        let value = serde_json::from_slice::<wire::Strict>(bytes)
            .map_err(|error| bad(format!("the request is not valid JSON: {error}")))?
            .0;
        if wire::depth(&value) > DEPTH_MAX {
            return Err(bad(format!("the request is nested deeper than {DEPTH_MAX} levels")));
        }
        let serde_json::Value::Object(object) = value else {
            return Err(bad(
                "the request is not a JSON object; write it like {\"server\": \"web1\", \"state\": \"maint\"}",
            ));
        };
        Ok(Self(object))
    }

    /// Reads a request from `KEY=VALUE` words.
    ///
    /// # Errors
    /// Says which word is wrong and what to write instead.
    pub fn from_words(words: &[String]) -> Result<Self> {
        if words.iter().map(String::len).sum::<usize>() > REQUEST_MAX {
            return Err(too_long());
        }
        let mut object = serde_json::Map::new();
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                return Err(bad(format!("'{}' is not KEY=VALUE (see --help)", word.escape_debug())));
            };
            wire::insert(&mut object, key, value).map_err(bad)?;
        }
        Ok(Self(object))
    }

    /// Makes it a dry run, whatever the request says.
    pub fn set_dry_run(&mut self) {
        self.0.insert("dry_run".to_owned(), true.into());
    }

    /// Checks every field, and that all go together.
    ///
    /// # Errors
    /// Says what is wrong, where, and what to write instead.
    pub fn check(self) -> std::result::Result<Request, Refused> {
        let mut object = self.0;
        // It is a dry run even if another field is refused.
        let dry_run = wire::is_dry_run(&object);
        let caller = wire::take_callers_keys(&mut object);
        let by_tool = caller.is_tool;
        let request = (|| {
            caller.dry_run?;
            let diff = caller.diff?;
            let request = check(&wire::read(object).map_err(bad)?, dry_run, diff, caller.is_task)?;
            Ok(Request { by_tool, ..request })
        })();
        request.map_err(|error| Refused { error, is_task: caller.is_task, dry_run })
    }
}

fn too_long() -> Error {
    bad(format!("the request is longer than {REQUEST_MAX} bytes"))
}

/// Returns whether a request has a field of this name.
#[must_use]
pub fn is_field(name: &str) -> bool {
    wire::KNOWN.contains(&name)
}

/// Checks that the fields go together.
fn check(wire: &Wire, dry_run: bool, diff: bool, is_task: bool) -> Result<Request> {
    let requested = wire.state.map(Requested::from);
    let state = requested.map(|requested| requested.for_all().unwrap_or(AdminState::Ready));
    if requested == Some(Requested::Restore) && wire.weight.is_some() {
        return Err(bad("'weight' is restored as well with 'state': 'restore'; leave it out"));
    }
    let goal = Goal {
        state: requested.and_then(Requested::for_all),
        weight: wire.weight,
        health: wire.health,
        agent: wire.agent,
        ..Goal::default()
    };
    let is_change = state.is_some() || wire.weight.is_some() || wire.health.is_some() || wire.agent.is_some();
    let servers = selectors(wire)?;
    let addresses = addresses(wire)?;
    if is_change && servers.is_empty() && addresses.is_empty() {
        return Err(bad(
            "'server' is missing: a change must name its servers, such as \"server\": \"web1\" (or \"*\" for all), or their \
             'address'",
        ));
    }
    let given = Given::of(wire, Goal { state, ..goal }.effect());
    given.check(state, is_change)?;
    let backends = patterns("backend", wire.backend.as_ref())?;
    let instances = wire.instances.as_ref().map(instances).transpose()?;
    Ok(Request {
        servers,
        backends,
        addresses,
        instances,
        ignore_instances: patterns("ignore_instances", wire.ignore_instances.as_ref())?,
        requested,
        goal: is_change.then_some(goal),
        drain: given.drain,
        shutdown_sessions: given.shutdown_sessions,
        wait: given.wait,
        guard: wire.guard.map(|guard| guard.min_available),
        expect: wire.expect.map(|expect| Expectation {
            admin_state: expect.admin_state.map(AdminState::from),
            operational_state: expect.operational_state.map(OperationalState::from),
        }),
        on_failure: wire.on_failure.unwrap_or(OnFailure::Keep),
        state_file: wire.state_file.clone(),
        claim: claim(wire)?,
        ignore_owner: wire.ignore_owner.unwrap_or_default().0,
        on_owned: wire.on_owned.unwrap_or(OnOwned::Fail),
        lock_timeout: wire.lock_timeout.map_or(Duration::from_secs(60), |timeout| timeout.0),
        syslog: if wire.syslog.is_none_or(|flag| flag.0) { SystemLog::Told } else { SystemLog::NotTold },
        old_processes: wire.old_processes.unwrap_or(OldProcesses::Count),
        on_missing: wire.on_missing.unwrap_or(OnMissing::Fail),
        on_unreachable: wire.on_unreachable.unwrap_or(OnUnreachable::Fail),
        dry_run,
        diff: diff || wire.diff.unwrap_or_default().0,
        timeout: wire.timeout.map_or(Duration::from_secs(10), |timeout| timeout.0),
        deadline: wire.deadline.map(|deadline| deadline.0),
        is_task,
        by_tool: false,
    })
}

/// Reads who requests it, why and until when.
fn claim(wire: &Wire) -> Result<Option<Claim>> {
    let text = |text: &Option<wire::Text>| text.as_ref().map(|text| text.0.clone());
    let expires = wire.expires.as_ref().map(|text| expiry::parse(&text.0, clock::now()));
    let expires = expires.transpose().map_err(|why| bad(format!("'expires': {why}")))?;
    let claim = Claim { owner: text(&wire.owner), reason: text(&wire.reason), expires };
    Ok(Some(claim).filter(|claim| claim.owner.is_some() || claim.reason.is_some() || claim.expires.is_some()))
}

/// The fields that are valid with some changes only, and whether they are given: `false` is the same as not given.
struct Given {
    /// What a wait would wait for.
    effect: Option<Effect>,
    drain: Option<DrainBounds>,
    shutdown_sessions: Option<Pace>,
    wait: Option<WaitBounds>,
    with_change: [(&'static str, bool); 3],
    with_state: [(&'static str, bool); 1],
    with_outage: [(&'static str, bool); 2],
    old_processes: OldProcesses,
    ignore_owner: bool,
    on_owned: OnOwned,
}

impl Given {
    fn of(wire: &Wire, effect: Option<Effect>) -> Self {
        Self {
            effect,
            drain: wire.drain.and_then(|drain| drain.0),
            shutdown_sessions: wire.shutdown_sessions.and_then(|sessions| sessions.0),
            wait: wire.wait.and_then(|wait| wait.0),
            with_change: [
                ("expect", wire.expect.is_some()),
                ("on_failure", wire.on_failure == Some(OnFailure::Rollback)),
                ("state_file", wire.state_file.is_some()),
            ],
            with_state: [("owner", wire.owner.is_some())],
            with_outage: [("reason", wire.reason.is_some()), ("expires", wire.expires.is_some())],
            old_processes: wire.old_processes.unwrap_or(OldProcesses::Count),
            on_owned: wire.on_owned.unwrap_or(OnOwned::Fail),
            ignore_owner: wire.ignore_owner.unwrap_or_default().0,
        }
    }

    /// Refuses fields that are not valid for this request.
    fn check(&self, state: Option<AdminState>, is_change: bool) -> Result<()> {
        let alone =
            |given: &[(&'static str, bool)]| given.iter().find(|(_, is_given)| *is_given).map(|(field, _)| *field);
        let refuse = |field: &str, with: &str| Err(bad(format!("'{field}' is only valid with {with}; leave it out")));
        if let Some(field) = alone(&self.with_change).filter(|_| !is_change) {
            return refuse(field, "a change ('state', 'weight', 'health' or 'agent')");
        }
        if let Some(field) = alone(&self.with_state).filter(|_| state.is_none()) {
            return refuse(field, "a 'state'");
        }
        if self.wait.is_some() && self.effect.is_none() {
            return refuse("wait", "a 'state', or with 'weight': 0");
        }
        let maint = [("drain", self.drain.is_some()), ("shutdown_sessions", self.shutdown_sessions.is_some())];
        if let Some(field) = alone(&maint).filter(|_| state != Some(AdminState::Maint)) {
            return refuse(field, "'state': 'maint'");
        }
        if let Some(field) = alone(&self.with_outage) {
            match state {
                Some(AdminState::Drain | AdminState::Maint) => {}
                Some(AdminState::Ready) | None => return refuse(field, "'state': 'drain' or 'maint'"),
            }
        }
        let waits_for_sessions =
            self.drain.is_some() || (self.wait.is_some() && self.effect != Some(Effect::InTraffic));
        if self.old_processes == OldProcesses::Wait && !waits_for_sessions {
            return refuse("old_processes", "'drain', or with 'wait' after 'drain', 'maint' and 'weight': 0");
        }
        let is_step_back = matches!(state, Some(AdminState::Ready | AdminState::Drain));
        if self.ignore_owner && !is_step_back {
            return refuse("ignore_owner", "'state': 'ready', 'restore' or 'drain'");
        }
        if self.on_owned == OnOwned::Skip && !is_step_back {
            return refuse("on_owned", "'state': 'ready', 'restore' or 'drain'");
        }
        Ok(())
    }
}

fn selectors(wire: &Wire) -> Result<Vec<Selector>> {
    let Some(names) = &wire.server else { return Ok(Vec::new()) };
    not_empty("server", &names.0)?;
    names.0.iter().map(|text| Selector::parse(text).map_err(|why| bad_name("server", text, &why))).collect()
}

fn addresses(wire: &Wire) -> Result<Vec<ServerAddress>> {
    const FIELD: &str = "address";
    let Some(addresses) = &wire.address else { return Ok(Vec::new()) };
    not_empty(FIELD, &addresses.0)?;
    addresses.0.iter().map(|text| ServerAddress::parse(text).map_err(|why| bad_name(FIELD, text, &why))).collect()
}

fn patterns(field: &str, names: Option<&wire::Names>) -> Result<Vec<Pattern>> {
    let Some(names) = names else { return Ok(Vec::new()) };
    not_empty(field, &names.0)?;
    names.0.iter().map(|text| Pattern::parse(text).map_err(|why| bad_name(field, text, &why))).collect()
}

fn instances(wanted: &wire::Instances) -> Result<Vec<WantedInstance>> {
    const FIELD: &str = "instances";
    not_empty(FIELD, &wanted.0)?;
    let named = |text: &str| InstanceName::parse(text).map_err(|why| bad_name(FIELD, text, &why));
    let addressed = |text: &str| Address::parse(text).map_err(|why| bad_name(FIELD, text, &why));
    let one = |instance: &wire::Instance| match instance {
        wire::Instance::Text(text) if Address::is_meant(text) => {
            addressed(text).map(|address| WantedInstance::At(InstanceName::from_address(&address), address))
        }
        wire::Instance::Text(text) => named(text).map(WantedInstance::Named),
        wire::Instance::Pair { name, socket } => Ok(WantedInstance::At(named(name)?, addressed(socket)?)),
    };
    wanted.0.iter().map(one).collect()
}

/// Refuses an empty list, which never means "all".
fn not_empty<T>(field: &str, list: &[T]) -> Result<()> {
    if list.is_empty() {
        return Err(bad(format!("'{field}' is empty, which never means all; leave the field out or name some")));
    }
    Ok(())
}

fn bad_name(field: &str, text: &str, why: &crate::model::name::NameError) -> Error {
    let shown: String = text.chars().take(80).collect();
    bad(format!("'{field}': '{}' {why}", shown.escape_debug()))
}

fn bad(msg: impl AsRef<str>) -> Error {
    Error::new(ErrorKind::BadRequest, msg)
}
