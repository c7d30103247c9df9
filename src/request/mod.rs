//! What is asked: from the words that hosts send ([`Wire`]) to what has been checked ([`Request`]).
//!
//! Hosts send text where a type was meant, so each field's type reads what Ansible's own converters would make of it,
//! or refuses with a sentence; it never guesses. The JSON Schema is generated from these very types.

#[cfg(test)]
mod tests;
mod wire;

use std::time::Duration;

#[cfg(test)]
pub(crate) use wire::KNOWN;
pub use wire::{
    DrainBounds, MinAvailable, OldProcesses, OnFailure, OnMissing, OnTimeout, OnUnreachable, StateFiles, WaitBounds,
    Wire,
};

use crate::model::error::{Error, ErrorKind, Result};
use crate::model::goal::{Effect, Goal};
use crate::model::name::{Address, InstanceName, Pattern, Selection, Selector};
use crate::model::state::{AdminState, OperationalState};
use crate::time::{clock, expiry};

/// The largest request, in bytes.
pub const REQUEST_MAX: usize = 1 << 20;

/// The deepest nesting of a request.
const DEPTH_MAX: usize = 32;

/// A request that has been checked: every name is safe, every field goes with the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Which servers; all of them where it is empty.
    pub servers: Vec<Selector>,
    /// In which backends; in all of them where it is empty.
    pub backends: Vec<Pattern>,
    /// On which instances; on all that are discovered where it is missing.
    pub instances: Option<Vec<WantedInstance>>,
    /// What is to become of the servers; nothing in a status request.
    pub goal: Option<Goal>,
    /// Whether and how servers are drained before they go to maint.
    pub drain: Option<DrainBounds>,
    /// Whether the sessions that are left in maint are ended.
    pub shutdown_sessions: bool,
    /// Whether and how long the effect of the change is waited for.
    pub wait: Option<WaitBounds>,
    /// The fewest usable servers that the change may leave in a backend; in a status, that it should have.
    pub guard: Option<MinAvailable>,
    /// The state that every server that is changed is expected in.
    pub expect: Option<Expectation>,
    /// What happens to what was changed when a later part fails.
    pub on_failure: OnFailure,
    /// HAProxy's server-state files.
    pub state_file: Option<StateFiles>,
    /// Who asks, why and until when.
    pub claim: Option<Claim>,
    /// Whether a server is put back although another owner is recorded.
    pub ignore_owner: bool,
    /// The longest wait for another run on the same HAProxy.
    pub lock_timeout: Duration,
    /// What it means that processes from before a reload still run.
    pub old_processes: OldProcesses,
    /// What a name that matches nothing means.
    pub on_missing: OnMissing,
    /// What an instance that cannot be asked means.
    pub on_unreachable: OnUnreachable,
    /// Whether to stop after the plan.
    pub dry_run: bool,
    /// Whether the report shows the difference as lines.
    pub diff: bool,
    /// The longest that one instance may take to answer.
    pub timeout: Duration,
    /// Whether the caller is a Bolt task, which wants failures under `_error` too.
    pub is_task: bool,
    /// Whether a tool calls, which says so by a key of its own (`_…`), and nobody watches.
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
    /// Tells whether the time that it was meant for is over.
    #[must_use]
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl Request {
    /// Returns which servers it is about.
    #[must_use]
    pub fn selection(&self) -> Selection<'_> {
        Selection { servers: &self.servers, backends: &self.backends }
    }

    /// Returns how long the end of sessions may take: the time of `drain`, unless that is over, else of `wait`, else
    /// `timeout`.
    #[must_use]
    pub fn time_for_sessions(&self, is_drain_over: bool) -> Duration {
        let drain = self.drain.map(|bounds| bounds.timeout).filter(|_| !is_drain_over);
        drain.or(self.wait.map(|bounds| bounds.timeout)).unwrap_or(self.timeout)
    }

    /// Returns the administrative state that it asks for.
    #[must_use]
    pub fn state(&self) -> Option<AdminState> {
        self.goal.and_then(|goal| goal.state)
    }
}

/// The state that servers are expected in before a change; any, as far as it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    /// The effective administrative state.
    pub admin_state: Option<AdminState>,
    /// The operational state.
    pub operational_state: Option<OperationalState>,
}

/// An instance as it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum WantedInstance {
    /// One of those that are discovered.
    Named(InstanceName),
    /// The one at this address, whatever is discovered.
    At(InstanceName, Address),
}

/// A request that could not be taken, with what the answer needs to know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// What is wrong with it.
    pub error: Error,
    /// Whether the caller is a Bolt task.
    pub is_task: bool,
    /// Whether nothing was to be changed in any case.
    pub dry_run: bool,
}

/// A request as it was written, before its fields are checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Draft(serde_json::Map<String, serde_json::Value>);

impl Draft {
    /// Reads a request from JSON text.
    ///
    /// # Errors
    /// Says in one sentence what is wrong, and what to write instead.
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
                "the request is not a JSON object; it looks like {\"server\": \"web1\", \"state\": \"maint\"}",
            ));
        };
        Ok(Self(object))
    }

    /// Reads a request from `KEY=VALUE` words.
    ///
    /// # Errors
    /// Says in one sentence which word is wrong, and what to write instead.
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

    /// Makes it a dry run, whatever the request says itself.
    pub fn set_dry_run(&mut self) {
        self.0.insert("dry_run".to_owned(), true.into());
    }

    /// Checks every field, and that they go together.
    ///
    /// # Errors
    /// Says in one sentence what is wrong, where, and what to write instead.
    pub fn check(self) -> std::result::Result<Request, Refused> {
        let mut object = self.0;
        // What is refused for another field is a dry run all the same.
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
    bad(format!("the request has more than {REQUEST_MAX} bytes"))
}

/// Returns whether a request has a field of this name.
#[must_use]
pub fn is_field(name: &str) -> bool {
    wire::KNOWN.contains(&name)
}

/// Checks that the fields go together.
fn check(wire: &Wire, dry_run: bool, diff: bool, is_task: bool) -> Result<Request> {
    let state = wire.state.map(AdminState::from);
    let goal = Goal { state, weight: wire.weight, health: wire.health, agent: wire.agent, ..Goal::default() };
    let is_change = state.is_some() || wire.weight.is_some() || wire.health.is_some() || wire.agent.is_some();
    let servers = selectors(wire)?;
    if is_change && servers.is_empty() {
        return Err(bad(
            "'server' is missing: a change needs the names of the servers, as \"server\": \"web1\" (or \"*\" for all)",
        ));
    }
    let given = Given::of(wire, goal.effect());
    given.check(state, is_change)?;
    let backends = patterns("backend", wire.backend.as_ref())?;
    let instances = wire.instances.as_ref().map(instances).transpose()?;
    Ok(Request {
        servers,
        backends,
        instances,
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
        lock_timeout: wire.lock_timeout.map_or(Duration::from_secs(60), |timeout| timeout.0),
        old_processes: wire.old_processes.unwrap_or(OldProcesses::Count),
        on_missing: wire.on_missing.unwrap_or(OnMissing::Fail),
        on_unreachable: wire.on_unreachable.unwrap_or(OnUnreachable::Fail),
        dry_run,
        diff: diff || wire.diff.unwrap_or_default().0,
        timeout: wire.timeout.map_or(Duration::from_secs(10), |timeout| timeout.0),
        is_task,
        by_tool: false,
    })
}

/// Reads who asks, why and until when.
fn claim(wire: &Wire) -> Result<Option<Claim>> {
    let text = |text: &Option<wire::Text>| text.as_ref().map(|text| text.0.clone());
    let expires = wire.expires.as_ref().map(|text| expiry::parse(&text.0, clock::now()));
    let expires = expires.transpose().map_err(|why| bad(format!("'expires': {why}")))?;
    let claim = Claim { owner: text(&wire.owner), reason: text(&wire.reason), expires };
    Ok(Some(claim).filter(|claim| claim.owner.is_some() || claim.reason.is_some() || claim.expires.is_some()))
}

/// The fields that go with some changes only, and whether they are given: `false` is the same as not given.
struct Given {
    /// What a wait would wait for.
    effect: Option<Effect>,
    drain: Option<DrainBounds>,
    shutdown_sessions: bool,
    wait: Option<WaitBounds>,
    with_change: [(&'static str, bool); 3],
    with_state: [(&'static str, bool); 1],
    with_outage: [(&'static str, bool); 2],
    old_processes: OldProcesses,
    ignore_owner: bool,
}

impl Given {
    fn of(wire: &Wire, effect: Option<Effect>) -> Self {
        Self {
            effect,
            drain: wire.drain.and_then(|drain| drain.0),
            shutdown_sessions: wire.shutdown_sessions.unwrap_or_default().0,
            wait: wire.wait.and_then(|wait| wait.0),
            with_change: [
                ("expect", wire.expect.is_some()),
                ("on_failure", wire.on_failure == Some(OnFailure::Rollback)),
                ("state_file", wire.state_file.is_some()),
            ],
            with_state: [("owner", wire.owner.is_some())],
            with_outage: [("reason", wire.reason.is_some()), ("expires", wire.expires.is_some())],
            old_processes: wire.old_processes.unwrap_or(OldProcesses::Count),
            ignore_owner: wire.ignore_owner.unwrap_or_default().0,
        }
    }

    /// Refuses the fields that do not go with what is wanted.
    fn check(&self, state: Option<AdminState>, is_change: bool) -> Result<()> {
        let alone =
            |given: &[(&'static str, bool)]| given.iter().find(|(_, is_given)| *is_given).map(|(field, _)| *field);
        let refuse = |field: &str, with: &str| Err(bad(format!("'{field}' goes only with {with}; leave it out")));
        if let Some(field) = alone(&self.with_change).filter(|_| !is_change) {
            return refuse(field, "a change ('state', 'weight', 'health' or 'agent')");
        }
        if let Some(field) = alone(&self.with_state).filter(|_| state.is_none()) {
            return refuse(field, "a 'state'");
        }
        if self.wait.is_some() && self.effect.is_none() {
            return refuse("wait", "a 'state', or with 'weight': 0");
        }
        let maint = [("drain", self.drain.is_some()), ("shutdown_sessions", self.shutdown_sessions)];
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
        if self.ignore_owner && state != Some(AdminState::Ready) {
            return refuse("ignore_owner", "'state': 'ready'");
        }
        Ok(())
    }
}

fn selectors(wire: &Wire) -> Result<Vec<Selector>> {
    let Some(names) = &wire.server else { return Ok(Vec::new()) };
    not_empty("server", &names.0)?;
    names.0.iter().map(|text| Selector::parse(text).map_err(|why| bad_name("server", text, &why))).collect()
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

/// Refuses an empty list: it never means "all".
fn not_empty<T>(field: &str, list: &[T]) -> Result<()> {
    if list.is_empty() {
        return Err(bad(format!(
            "'{field}' is empty; an empty list never means all of them, so leave the field out or name some"
        )));
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
