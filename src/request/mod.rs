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
    DrainBounds, MinAvailable, OnFailure, OnMissing, OnTimeout, OnUnreachable, StateFiles, Switch, WaitBounds,
    WantedWeight, Wire,
};

use crate::keep::ownership;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::{Address, InstanceName, Pattern, Selector};
use crate::model::state::AdminState;
use crate::time::expiry;

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
    /// Which of those that are discovered are left alone without a word.
    pub ignore_instances: Vec<Pattern>,
    /// What is to become of the servers; nothing in a status request.
    pub change: Option<Change>,
    /// Whether and how servers are drained before they go to maint.
    pub drain: Option<DrainBounds>,
    /// Whether the sessions that are left in maint are ended.
    pub shutdown_sessions: bool,
    /// Whether and how long the effect of the change is waited for.
    pub wait: Option<WaitBounds>,
    /// The fewest usable servers that the change may leave in a backend.
    pub guard: Option<MinAvailable>,
    /// The state that every matched server is expected in.
    pub expect: Option<AdminState>,
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
}

/// What is to become of the servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// The administrative state.
    pub state: Option<AdminState>,
    /// The weight.
    pub weight: Option<WantedWeight>,
    /// Whether health checks run.
    pub health: Option<Switch>,
    /// Whether agent checks run.
    pub agent: Option<Switch>,
}

/// Who takes servers out or puts them back, and why and until when they are out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub owner: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Until when, in seconds since the epoch.
    pub expires: Option<u64>,
}

/// An instance as it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum WantedInstance {
    /// One of those that are discovered.
    Named(InstanceName),
    /// The one at this address, whatever is discovered.
    At(InstanceName, Address),
}

/// What a caller added to the request outside of it: options of the command line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--dry-run`.
    pub dry_run: bool,
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

/// Reads a request from JSON text.
///
/// # Errors
/// Says in one sentence what is wrong, where, and what to write instead.
pub fn from_json(bytes: &[u8], overrides: Overrides) -> std::result::Result<Request, Refused> {
    let refuse = |error| Refused { error, is_task: false, dry_run: overrides.dry_run };
    if bytes.len() > REQUEST_MAX {
        return Err(refuse(bad(format!("the request has more than {REQUEST_MAX} bytes"))));
    }
    if bytes.trim_ascii().is_empty() {
        return Err(refuse(bad(
            "the request is empty; give a JSON object on standard input, a file with one, or KEY=VALUE words (see --help)",
        )));
    }
    let value = serde_json::from_slice::<wire::Strict>(bytes)
        .map_err(|error| refuse(bad(format!("the request is not valid JSON: {error}"))))?;
    from_value(value.0, overrides)
}

/// Reads a request from `KEY=VALUE` words.
///
/// # Errors
/// Says in one sentence which word is wrong and what to write instead.
pub fn from_words(words: &[String], overrides: Overrides) -> std::result::Result<Request, Refused> {
    let refuse = |error| Refused { error, is_task: false, dry_run: overrides.dry_run };
    if words.iter().map(String::len).sum::<usize>() > REQUEST_MAX {
        return Err(refuse(bad(format!("the request has more than {REQUEST_MAX} bytes"))));
    }
    let mut object = serde_json::Map::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            return Err(refuse(bad(format!("'{}' is not KEY=VALUE (see --help)", word.escape_debug()))));
        };
        wire::insert(&mut object, key, value).map_err(|problem| refuse(bad(problem)))?;
    }
    from_value(serde_json::Value::Object(object), overrides)
}

fn from_value(value: serde_json::Value, overrides: Overrides) -> std::result::Result<Request, Refused> {
    let mut is_task = false;
    let mut dry_run = overrides.dry_run;
    let request = (|| {
        if wire::depth(&value) > DEPTH_MAX {
            return Err(bad(format!("the request is nested deeper than {DEPTH_MAX} levels")));
        }
        let serde_json::Value::Object(mut object) = value else {
            return Err(bad(
                "the request is no JSON object; it looks like {\"server\": \"web1\", \"state\": \"maint\"}",
            ));
        };
        let caller = wire::take_callers_keys(&mut object);
        is_task = caller.is_task;
        dry_run |= caller.dry_run?;
        let diff = caller.diff?;
        let wire = wire::read(object).map_err(bad)?;
        dry_run |= wire.dry_run.unwrap_or_default().0;
        check(&wire, dry_run, diff, is_task)
    })();
    request.map_err(|error| Refused { error, is_task, dry_run })
}

/// Checks that the fields go together.
fn check(wire: &Wire, dry_run: bool, diff: bool, is_task: bool) -> Result<Request> {
    let state = wire.state.map(AdminState::from);
    let change = Change { state, weight: wire.weight, health: wire.health, agent: wire.agent };
    let is_change = state.is_some() || wire.weight.is_some() || wire.health.is_some() || wire.agent.is_some();
    let servers = selectors(wire)?;
    if is_change && servers.is_empty() {
        return Err(bad(
            "'server' is missing: a change needs the names of the servers, as \"server\": \"web1\" (or \"*\" for all)",
        ));
    }
    let given = Given::of(wire);
    given.check(state, is_change)?;
    let backends = patterns("backend", wire.backend.as_ref())?;
    let instances = wire.instances.as_ref().map(instances).transpose()?;
    Ok(Request {
        servers,
        backends,
        instances,
        ignore_instances: patterns("ignore_instances", wire.ignore_instances.as_ref())?,
        change: is_change.then_some(change),
        drain: given.drain,
        shutdown_sessions: given.shutdown_sessions,
        wait: given.wait,
        guard: wire.guard.map(|guard| guard.min_available),
        expect: wire.expect.map(|expect| expect.admin_state.into()),
        on_failure: wire.on_failure.unwrap_or(OnFailure::Keep),
        state_file: wire.state_file.clone(),
        claim: claim(wire)?,
        ignore_owner: wire.ignore_owner.unwrap_or_default().0,
        lock_timeout: wire.lock_timeout.map_or(Duration::from_secs(60), |timeout| timeout.0),
        on_missing: wire.on_missing.unwrap_or(OnMissing::Fail),
        on_unreachable: wire.on_unreachable.unwrap_or(OnUnreachable::Fail),
        dry_run,
        diff: diff || wire.diff.unwrap_or_default().0,
        timeout: wire.timeout.map_or(Duration::from_secs(10), |timeout| timeout.0),
        is_task,
    })
}

/// Reads who asks, why and until when.
fn claim(wire: &Wire) -> Result<Option<Claim>> {
    let text = |text: &Option<wire::Text>| text.as_ref().map(|text| text.0.clone());
    let expires = wire.expires.as_ref().map(|text| expiry::parse(&text.0, ownership::now()));
    let expires = expires.transpose().map_err(|why| bad(format!("'expires': {why}")))?;
    let claim = Claim { owner: text(&wire.owner), reason: text(&wire.reason), expires };
    Ok(Some(claim).filter(|claim| claim.owner.is_some() || claim.reason.is_some() || claim.expires.is_some()))
}

/// The fields that go with some changes only, and whether they are given: `false` is the same as not given.
struct Given {
    drain: Option<DrainBounds>,
    shutdown_sessions: bool,
    wait: Option<WaitBounds>,
    with_change: [(&'static str, bool); 4],
    with_state: [(&'static str, bool); 1],
    with_outage: [(&'static str, bool); 2],
    ignore_owner: bool,
}

impl Given {
    fn of(wire: &Wire) -> Self {
        Self {
            drain: wire.drain.and_then(|drain| drain.0),
            shutdown_sessions: wire.shutdown_sessions.unwrap_or_default().0,
            wait: wire.wait.and_then(|wait| wait.0),
            with_change: [
                ("guard", wire.guard.is_some()),
                ("expect", wire.expect.is_some()),
                ("on_failure", wire.on_failure == Some(OnFailure::Rollback)),
                ("state_file", wire.state_file.is_some()),
            ],
            with_state: [("owner", wire.owner.is_some())],
            with_outage: [("reason", wire.reason.is_some()), ("expires", wire.expires.is_some())],
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
        if self.wait.is_some() && state.is_none() {
            return refuse("wait", "a 'state'");
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

fn bad(msg: impl Into<String>) -> Error {
    Error::new(ErrorKind::BadRequest, msg)
}
