//! Decides, without touching anything, what is to be sent to each server: nothing, a change, or a refusal.
//!
//! The transitions are HAProxy's own: see [`AdminFlags::after`], [`AdminFlags::after_target`] and
//! [`operational_after`], which a test compares with the table measured on real HAProxy.

use crate::error::{Error, ErrorKind};
use crate::observe::Server;
use crate::request::Change;
use crate::runtime::command::Action;
use crate::state::{AdminFlags, AdminState, OperationalState, operational_after};

/// What is decided for one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is as wanted.
    Keep,
    /// These commands are needed, in this order.
    Change(Vec<Action>),
    /// No command can bring it there; the other servers are still set.
    Refuse(Error),
    /// It is in a backend that is `disabled`: it takes no traffic, and no command reaches it.
    Disabled,
}

/// What is decided for one server, and how it will be then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What is to be done.
    pub decision: Decision,
    /// The state that HAProxy's transitions lead to.
    pub after: State,
}

/// The part of a server that commands change, or that follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The administrative flags.
    pub flags: AdminFlags,
    /// What its checks make of it.
    pub operational: OperationalState,
    /// The weight that is in force.
    pub weight: u32,
}

impl State {
    /// Tells whether what commands set is the same in both; this is what `changed` means.
    #[must_use]
    pub fn is_set_as(&self, other: &Self) -> bool {
        self.flags.commanded() == other.flags.commanded() && self.weight == other.weight
    }
}

impl From<&Server> for State {
    fn from(server: &Server) -> Self {
        Self { flags: server.flags, operational: server.operational, weight: server.weight }
    }
}

/// The servers in the order in which commands go to them: those that are tracked before those that track them.
#[must_use]
pub fn order(servers: &[Server]) -> Vec<usize> {
    let targets: Vec<Option<usize>> = servers.iter().map(|server| target_of(server, servers)).collect();
    let depth = |start: usize| {
        let next = |index: usize| targets.get(index).copied().flatten();
        std::iter::successors(next(start), |&index| next(index)).take(servers.len()).count()
    };
    let mut order: Vec<usize> = (0..servers.len()).collect();
    if targets.iter().any(Option::is_some) {
        order.sort_by_key(|&index| depth(index));
    }
    order
}

/// Finds the server that another one tracks.
fn target_of(server: &Server, servers: &[Server]) -> Option<usize> {
    let (backend, name) = server.tracks()?.rsplit_once('/')?;
    servers.iter().position(|other| other.server == name && other.backend == backend)
}

/// Plans a change of the matched servers of one instance.
#[must_use]
pub fn plan(change: &Change, servers: &[Server]) -> Vec<Planned> {
    let mut planned: Vec<Option<Planned>> = vec![None; servers.len()];
    for index in order(servers) {
        let Some(server) = servers.get(index) else { continue };
        let target = target_of(server, servers).and_then(|target| planned.get(target)).and_then(Option::as_ref);
        let decided = plan_one(change, server, target.map(|target| target.after));
        if let Some(slot) = planned.get_mut(index) {
            *slot = Some(decided);
        }
    }
    planned.into_iter().flatten().collect()
}

/// Plans the change of one server, whose tracked server, if it is planned too, will be as `target` says.
fn plan_one(change: &Change, server: &Server, target: Option<State>) -> Planned {
    let before = State::from(server);
    if server.is_in_disabled_backend() {
        return Planned { decision: Decision::Disabled, after: before };
    }
    let inherited = target.map_or(before.flags, |target| before.flags.after_target(target.flags));
    let flags = change.state.map_or(inherited, |state| inherited.after(state));
    let weight = change.weight.map_or(before.weight, |weight| weight.of(server.initial_weight));
    let operational = operational_after((before.flags, before.operational), flags, target.map(|it| it.operational));
    if let Some(error) = change.state.and_then(|state| unreachable(state, server, flags)) {
        let operational =
            operational_after((before.flags, before.operational), inherited, target.map(|it| it.operational));
        let after = State { flags: inherited, operational, weight: before.weight };
        return Planned { decision: Decision::Refuse(error), after };
    }
    let state = change.state.filter(|state| before.flags.forced() != Some(*state)).map(Action::State);
    let weighing = change.weight.filter(|_| weight != before.weight).map(Action::Weight);
    // The weight comes first where the server comes back, so that it never takes traffic with the wrong one.
    let actions: Vec<Action> = match change.state {
        Some(AdminState::Ready) | None => weighing.into_iter().chain(state).collect(),
        Some(AdminState::Drain | AdminState::Maint) => state.into_iter().chain(weighing).collect(),
    };
    let decision = if actions.is_empty() { Decision::Keep } else { Decision::Change(actions) };
    Planned { decision, after: State { flags, operational, weight } }
}

/// Says why no command leads to the wanted state, if that is so.
fn unreachable(wanted: AdminState, server: &Server, after: AdminFlags) -> Option<Error> {
    if after.effective() == wanted {
        return None;
    }
    let name = server.full_name();
    let stays = after.effective();
    let why = if after.has(AdminFlags::DNS_MAINT) {
        "its name does not resolve; mend the DNS records or the resolvers section, and it leaves maintenance by itself"
            .to_owned()
    } else {
        let target = server.tracks().unwrap_or("another server");
        format!("it tracks {target}, which is in {stays}; set {target} as well, or first")
    };
    Some(
        Error::new(
            ErrorKind::UnreachableState,
            format!("{name} cannot be set to {wanted}, it stays in {stays}: {why}"),
        )
        .on_server(&server.backend, &server.server),
    )
}

/// Says why a server that was set is not in the wanted state when it is read back, if that is so.
#[must_use]
pub fn shortfall(change: &Change, server: &Server) -> Option<Error> {
    if server.is_in_disabled_backend() {
        return None;
    }
    let name = server.full_name();
    if let Some(wanted) = change.state {
        if let Some(error) = unreachable(wanted, server, server.flags).filter(|_| server.flags.forced() == Some(wanted))
        {
            return Some(error);
        }
        if server.flags.forced() != Some(wanted) {
            let why = if server.has_agent() {
                "its agent check sets the state as well; pause it with 'disable agent' or correct what the agent answers"
            } else {
                "somebody else has set it in the meantime; find out who, and run this again"
            };
            let msg = format!("{name} was set to {wanted}, but was read back in {}: {why}", server.flags.effective());
            return Some(Error::new(ErrorKind::Overridden, msg).on_server(&server.backend, &server.server));
        }
    }
    let weight = change.weight.map(|weight| weight.of(server.initial_weight))?;
    (weight != server.weight).then(|| {
        let why =
            if server.has_agent() { "its agent check sets the weight as well" } else { "somebody else has set it" };
        let msg = format!("{name} was given the weight {weight}, but was read back with {}: {why}", server.weight);
        Error::new(ErrorKind::Overridden, msg).on_server(&server.backend, &server.server)
    })
}

/// Why the state of a server may not last.
const AGENT: &str =
    "an agent check, which may set the state back at any time; pause it, or have the agent answer the same";

/// What keeps a server from being used as its state says, in words that continue "`servers` …".
#[must_use]
pub fn caution(change: &Change, server: &Server, after: &State) -> Option<&'static str> {
    if server.is_in_disabled_backend() {
        return Some("cannot be set: the backend is disabled and takes no traffic; enable it in haproxy.cfg");
    }
    match change.state {
        Some(AdminState::Ready) if after.flags.effective() == AdminState::Ready => {
            if let Some(caution) = not_serving(server, after) {
                return Some(caution);
            }
            if after.flags.has(AdminFlags::CONFIG_MAINT) {
                return Some(
                    "'disabled' in haproxy.cfg: ready until the next reload only; remove the word from the configuration",
                );
            }
            // Where it was ready before, the agent agrees.
            (server.has_agent() && server.flags.forced() != Some(AdminState::Ready)).then_some(AGENT)
        }
        Some(_) if server.has_agent() => Some(AGENT),
        Some(_) | None => None,
    }
}

/// Why a server that is ready takes no traffic, or less than its share.
fn not_serving(server: &Server, after: &State) -> Option<&'static str> {
    match after.operational {
        _ if after.weight == 0 => Some("no new traffic: the weight is 0; set 'weight' as well"),
        OperationalState::Running => None,
        OperationalState::Starting => Some("a growing share of traffic only: slowstart is under way"),
        OperationalState::Stopping => Some("no new traffic: the health check answers 404 (disable-on-404)"),
        OperationalState::Stopped if server.has_check() => {
            Some("no traffic although ready: the health check fails; look at the server itself")
        }
        OperationalState::Stopped if server.tracks().is_some() => {
            Some("no traffic although ready: the tracked server is down; look at that one")
        }
        OperationalState::Stopped => Some(
            "no traffic although ready, and no health check that could find it up (HAProxy has kept it down from before a \
             reload or by 'set server health'); set it to maint and then to ready",
        ),
    }
}
