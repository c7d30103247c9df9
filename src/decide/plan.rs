//! Decides, without touching anything, what is to be sent to each server: nothing, a change, or a refusal.
//!
//! The transitions are HAProxy's own: see [`AdminFlags::after`], [`AdminFlags::after_target`] and
//! [`operational_after`], which a test compares with the table measured on real HAProxy.

use crate::haproxy::command::Action;
use crate::haproxy::observe::Server;
use crate::model::error::{Error, ErrorKind};
use crate::model::state::{AdminFlags, AdminState, OperationalState, operational_after};
use crate::request::{Change, Switch, WantedWeight};

/// What is decided for one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is as wanted.
    Keep,
    /// These commands are needed, in this order.
    Change(Actions),
    /// No command can bring it there; the other servers are still set.
    Refuse(Error),
    /// It is in a backend that is `disabled`: it takes no traffic, and no command reaches it.
    Disabled,
}

/// Up to one command for each thing that can be set, and no more than one of the two for an agent check: most servers
/// need one, and none of them memory of its own.
pub type Actions = [Option<Action>; 5];

/// What is decided for one server, and how it will be then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What it is to become.
    pub goal: Change,
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
    /// Whether its health check runs; nothing where it has none.
    pub health: Option<Switch>,
    /// Whether its agent check runs; nothing where it has none.
    pub agent: Option<Switch>,
}

impl State {
    /// Tells whether what commands set is the same in both; this is what `changed` means.
    #[must_use]
    pub fn is_set_as(&self, other: &Self) -> bool {
        self.flags.commanded() == other.flags.commanded()
            && self.weight == other.weight
            && self.health == other.health
            && self.agent == other.agent
    }

    /// Returns what brings a server that was changed back to this state.
    #[must_use]
    pub fn as_goal(&self) -> Change {
        Change {
            // Both forced flags at once can only come from the statistics page; maintenance is what they amount to.
            state: Some(self.flags.forced().unwrap_or(AdminState::Maint)),
            weight: Some(WantedWeight::Absolute(self.weight)),
            health: self.health,
            agent: self.agent,
        }
    }
}

impl From<&Server> for State {
    fn from(server: &Server) -> Self {
        Self {
            flags: server.flags,
            operational: server.operational,
            weight: server.weight,
            health: server.health(),
            agent: server.agent(),
        }
    }
}

/// The servers in the order in which commands go to them: those that are tracked before those that track them.
#[must_use]
pub fn order(servers: &[Server]) -> Vec<usize> {
    if !has_trackers(servers) {
        return (0..servers.len()).collect();
    }
    let targets: Vec<Option<usize>> = servers.iter().map(|server| target_of(server, servers)).collect();
    let depth = |start: usize| {
        let next = |index: usize| targets.get(index).copied().flatten();
        std::iter::successors(next(start), |&index| next(index)).take(servers.len()).count()
    };
    let depths: Vec<usize> = (0..servers.len()).map(depth).collect();
    let at =
        |wanted: usize| depths.iter().enumerate().filter(move |(_, depth)| **depth == wanted).map(|(index, _)| index);
    (0..=depths.iter().copied().max().unwrap_or(0)).flat_map(at).collect()
}

/// Tells whether any of the servers tracks another one; in most hosts none does.
fn has_trackers(servers: &[Server]) -> bool {
    servers.iter().any(|server| server.tracks().is_some())
}

/// Finds the server that another one tracks.
fn target_of(server: &Server, servers: &[Server]) -> Option<usize> {
    let (backend, name) = server.tracks()?.rsplit_once('/')?;
    servers.iter().position(|other| *other.server == *name && *other.backend == *backend)
}

/// Plans what is to become of the matched servers of one instance.
#[must_use]
pub fn plan(goal_of: &dyn Fn(&Server) -> Change, servers: &[Server]) -> Vec<Planned> {
    if !has_trackers(servers) {
        return servers.iter().map(|server| plan_one(goal_of(server), server, None)).collect();
    }
    let mut planned: Vec<Option<Planned>> = vec![None; servers.len()];
    for index in order(servers) {
        let Some(server) = servers.get(index) else { continue };
        let target = target_of(server, servers).and_then(|target| planned.get(target)).and_then(Option::as_ref);
        let decided = plan_one(goal_of(server), server, target.map(|target| target.after));
        if let Some(slot) = planned.get_mut(index) {
            *slot = Some(decided);
        }
    }
    planned.into_iter().flatten().collect()
}

/// Plans the change of one server, whose tracked server, if it is planned too, will be as `target` says.
fn plan_one(goal: Change, server: &Server, target: Option<State>) -> Planned {
    let before = State::from(server);
    if server.is_in_disabled_backend() {
        return Planned { goal, decision: Decision::Disabled, after: before };
    }
    let tracked = target.map(|target| target.operational);
    let inherited = target.map_or(before.flags, |target| before.flags.after_target(target.flags));
    let flags = goal.state.map_or(inherited, |state| inherited.after(state));
    let operational = |flags| operational_after((before.flags, before.operational), flags, tracked);
    if let Some(error) = goal.state.and_then(|state| unreachable(state, server, flags)) {
        let after = State { flags: inherited, operational: operational(inherited), ..before };
        return Planned { goal, decision: Decision::Refuse(error), after };
    }
    let after = State {
        flags,
        operational: operational(flags),
        weight: goal.weight.map_or(before.weight, |weight| weight.of(server.initial_weight)),
        health: before.health.map(|health| goal.health.unwrap_or(health)),
        agent: before.agent.map(|agent| goal.agent.unwrap_or(agent)),
    };
    let actions = actions(&goal, &before, &after);
    let decision = if actions.iter().all(Option::is_none) { Decision::Keep } else { Decision::Change(actions) };
    Planned { goal, decision, after }
}

/// The commands that lead from one state to another, in an order that never lets traffic or an agent in between.
fn actions(goal: &Change, before: &State, after: &State) -> Actions {
    let state = goal.state.filter(|state| before.flags.forced() != Some(*state)).map(Action::State);
    let weight = goal.weight.filter(|_| before.weight != after.weight).map(Action::Weight);
    let health = after.health.filter(|_| before.health != after.health).map(Action::Health);
    let agent = after.agent.filter(|_| before.agent != after.agent);
    let silence = agent.filter(|agent| *agent == Switch::Disabled).map(Action::Agent);
    let listen = agent.filter(|agent| *agent == Switch::Enabled).map(Action::Agent);
    match goal.state {
        Some(AdminState::Ready) | None => [silence, weight, health, state, listen],
        Some(AdminState::Drain | AdminState::Maint) => [silence, state, weight, health, listen],
    }
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
    if let Some(wanted) = change.state {
        if let Some(error) = unreachable(wanted, server, server.flags).filter(|_| server.flags.forced() == Some(wanted))
        {
            return Some(error);
        }
        if server.flags.forced() != Some(wanted) {
            let why = if server.has_agent() {
                "its agent check sets the state as well; give 'agent': 'disabled' too, or correct what the agent answers"
            } else {
                "somebody else has set it in the meantime; find out who, and run this again"
            };
            let is = server.flags.effective();
            let msg = format!("{} was set to {wanted}, but was read back in {is}: {why}", server.full_name());
            return Some(Error::new(ErrorKind::Overridden, msg).on_server(&server.backend, &server.server));
        }
    }
    let state = State::from(server);
    let who = if server.has_agent() { "its agent check" } else { "somebody else" };
    let weight = change.weight.map(|weight| weight.of(server.initial_weight)).filter(|weight| *weight != state.weight);
    let differs = |wanted: Option<Switch>, is: Option<Switch>| wanted.is_some() && is.is_some() && wanted != is;
    let what = if let Some(weight) = weight {
        format!("was given the weight {weight}, but was read back with {}: {who} sets the weight as well", state.weight)
    } else if differs(change.health, state.health) {
        format!("had its health check set, but it was read back otherwise: {who} sets it as well")
    } else if differs(change.agent, state.agent) {
        format!("had its agent check set, but it was read back otherwise: {who} sets it as well")
    } else {
        return None;
    };
    Some(
        Error::new(ErrorKind::Overridden, format!("{} {what}", server.full_name()))
            .on_server(&server.backend, &server.server),
    )
}

/// What it means that a server is ready although its configuration disables it.
pub const READY_UNTIL_RELOAD: &str =
    "'disabled' in haproxy.cfg: ready until the next reload only; remove it there as well, or keep a 'state_file'";

/// Why the state of a server may not last.
const AGENT: &str = "an agent check is under way, which may set the state back at any time; give 'agent': 'disabled' too, or 'wait' to see it";

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
                return Some(READY_UNTIL_RELOAD);
            }
            // Where it was ready before, the agent agrees.
            (after.agent == Some(Switch::Enabled) && server.flags.forced() != Some(AdminState::Ready)).then_some(AGENT)
        }
        Some(_) if after.agent == Some(Switch::Enabled) => Some(AGENT),
        Some(_) | None => None,
    }
}

/// What was asked of a server's checks although it has none, in the words of [`caution`].
#[must_use]
pub fn check_caution(change: &Change, after: &State) -> Option<&'static str> {
    match (change.health, after.health, change.agent, after.agent) {
        (Some(_), None, _, _) => Some("no health check to set; leave 'health' out, or add 'check' in haproxy.cfg"),
        (_, _, Some(_), None) => Some("no agent check to set; leave 'agent' out, or add 'agent-check' in haproxy.cfg"),
        _ => None,
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

#[cfg(test)]
mod tests {
    //! Plans over generated hosts, carried out on a model: HAProxy's transitions, one command after the other.

    use proptest::prelude::*;

    use super::*;
    use crate::haproxy::command::Uniqueness;
    use crate::haproxy::parse::StatRow;
    use crate::request::WantedWeight;

    /// A server of a generated host: what it tracks is the place of another one in the list.
    #[derive(Debug, Clone)]
    struct Made {
        mask: u32,
        weight: u32,
        initial: u32,
        tracks: Option<prop::sample::Index>,
        check: u32,
        agent: u32,
        is_disabled: bool,
    }

    fn server(index: usize, made: &Made, tracks: Option<usize>) -> Server {
        let name = format!("s{index}");
        let id = u32::try_from(index).unwrap() + 1;
        Server {
            backend: "b".into(),
            backend_name: Uniqueness::Unique,
            server: name.as_str().into(),
            backend_id: 2,
            server_id: if made.is_disabled { 0 } else { id },
            address: "127.0.0.1:9".into(),
            flags: AdminFlags(made.mask),
            operational: OperationalState::Running,
            weight: made.weight,
            initial_weight: made.initial,
            check: made.check,
            agent: made.agent,
            is_whole: true,
            stat: tracks.map(|target| {
                Box::new(StatRow {
                    backend_id: 2,
                    server_id: id,
                    server: name,
                    queue: 0,
                    sessions: 0,
                    status: "UP".to_owned(),
                    check: None,
                    tracks: Some(format!("b/s{target}")),
                    backup: false,
                    is_throttled: false,
                    counter: None,
                })
            }),
        }
    }

    /// Servers in any order, of which some track others, also in chains; HAProxy allows no loops.
    fn hosts() -> impl Strategy<Value = Vec<Server>> {
        let made = (
            0u32..=127,
            0u32..=256,
            0u32..=256,
            any::<Option<prop::sample::Index>>(),
            0u32..=15,
            0u32..=31,
            prop::bool::weighted(0.1),
        );
        let made = made.prop_map(|(mask, weight, initial, tracks, check, agent, is_disabled)| Made {
            mask,
            weight,
            initial,
            tracks,
            check,
            agent,
            is_disabled,
        });
        (prop::collection::vec(made, 1..12), any::<u64>()).prop_map(|(made, seed)| {
            let servers = made.iter().enumerate().map(|(index, made)| {
                // Only those before it in a hidden order are tracked; the list is turned round by the seed.
                let tracks = made.tracks.as_ref().filter(|_| index > 0 && !made.is_disabled).map(|it| it.index(index));
                server(index, made, tracks)
            });
            let mut servers: Vec<Server> = servers.collect();
            if seed % 2 == 0 {
                servers.reverse();
            }
            let turn = usize::try_from(seed % 97).unwrap() % servers.len();
            servers.rotate_left(turn);
            for index in 0..servers.len() {
                inherit(&mut servers, index);
            }
            servers
        })
    }

    fn changes() -> impl Strategy<Value = Change> {
        let states = [AdminState::Ready, AdminState::Drain, AdminState::Maint].map(Some);
        let weight = prop_oneof![
            (0u32..=256).prop_map(|weight| Some(WantedWeight::Absolute(weight))),
            (0u32..=25_600).prop_map(|percent| Some(WantedWeight::Percent(percent))),
            Just(None),
        ];
        let switch = || prop::sample::select(vec![None, Some(Switch::Enabled), Some(Switch::Disabled)]);
        (prop::sample::select([states.as_slice(), &[None]].concat()), weight, switch(), switch())
            .prop_map(|(state, weight, health, agent)| Change { state, weight, health, agent })
    }

    /// What HAProxy does to those that track the server, and to those that track them.
    fn inherit(servers: &mut [Server], target: usize) {
        let (name, flags) = (servers[target].full_name(), servers[target].flags);
        for index in 0..servers.len() {
            if servers[index].tracks() == Some(name.as_str()) {
                servers[index].flags = servers[index].flags.after_target(flags);
                inherit(servers, index);
            }
        }
    }

    /// What HAProxy does to a check; only one that is configured is set.
    fn set_check(check: &mut u32, switch: Switch) {
        assert_eq!(*check & 2, 2, "the check is configured");
        match switch {
            Switch::Enabled => *check |= 4,
            Switch::Disabled => *check &= !4,
        }
    }

    /// Carries the commands of a plan out, in their order.
    fn carry_out(servers: &mut [Server], planned: &[Planned]) {
        for index in order(servers) {
            let Decision::Change(actions) = &planned[index].decision else { continue };
            for action in actions.iter().flatten() {
                match action {
                    Action::State(state) => servers[index].flags = servers[index].flags.after(*state),
                    Action::Weight(weight) => servers[index].weight = weight.of(servers[index].initial_weight),
                    Action::Health(switch) => set_check(&mut servers[index].check, *switch),
                    Action::Agent(switch) => set_check(&mut servers[index].agent, *switch),
                    Action::ShutdownSessions => panic!("a plan ends no sessions"),
                }
                inherit(servers, index);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_second_plan_changes_nothing(before in hosts(), change in changes()) {
            let first = plan(&|_| change, &before);
            prop_assert_eq!(first.len(), before.len());
            let mut after = before;
            carry_out(&mut after, &first);
            for (server, planned) in after.iter().zip(&first) {
                prop_assert_eq!(server.flags, planned.after.flags, "{}", server.full_name());
                prop_assert_eq!(server.weight, planned.after.weight, "{}", server.full_name());
                prop_assert_eq!(server.health(), planned.after.health, "{}", server.full_name());
                prop_assert_eq!(server.agent(), planned.after.agent, "{}", server.full_name());
            }
            for (server, planned) in after.iter().zip(plan(&|_| change, &after)) {
                prop_assert!(!matches!(planned.decision, Decision::Change(_)), "{} {planned:?}", server.full_name());
            }
        }

        #[test]
        fn what_is_not_refused_is_then_as_wanted(before in hosts(), change in changes()) {
            let planned = plan(&|_| change, &before);
            let mut after = before.clone();
            carry_out(&mut after, &planned);
            for ((was, server), planned) in before.iter().zip(&after).zip(&planned) {
                match &planned.decision {
                    Decision::Keep | Decision::Change(_) => {
                        prop_assert_eq!(shortfall(&change, server), None);
                        if let Some(wanted) = change.state {
                            prop_assert_eq!(server.flags.effective(), wanted);
                        }
                    }
                    Decision::Refuse(error) => {
                        prop_assert_eq!(error.kind, ErrorKind::UnreachableState);
                        prop_assert_ne!(Some(server.flags.effective()), change.state);
                        prop_assert_eq!(server.flags.commanded(), was.flags.commanded());
                    }
                    Decision::Disabled => prop_assert_eq!(server.flags, was.flags),
                }
            }
        }

        #[test]
        fn nothing_is_sent_to_what_is_as_wanted(before in hosts(), change in changes()) {
            for (server, planned) in before.iter().zip(plan(&|_| change, &before)) {
                let Decision::Change(actions) = planned.decision else { continue };
                prop_assert!(!server.is_in_disabled_backend() && actions.iter().any(Option::is_some));
                for &action in actions.iter().flatten() {
                    match action {
                        Action::State(state) => prop_assert_ne!(server.flags.forced(), Some(state)),
                        Action::Weight(weight) => prop_assert_ne!(server.weight, weight.of(server.initial_weight)),
                        Action::Health(switch) => prop_assert_eq!(server.health().map(|is| is != switch), Some(true)),
                        Action::Agent(switch) => prop_assert_eq!(server.agent().map(|is| is != switch), Some(true)),
                        Action::ShutdownSessions => prop_assert!(false, "a plan ends no sessions"),
                    }
                }
            }
        }

        #[test]
        fn targets_come_before_those_that_track_them(servers in hosts()) {
            let order = order(&servers);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..servers.len()).collect::<Vec<_>>());
            let place = |name: &str| order.iter().position(|index| servers[*index].full_name() == name);
            for server in &servers {
                if let Some(target) = server.tracks() {
                    prop_assert!(place(target) < place(&server.full_name()));
                }
            }
        }
    }

    #[test]
    fn every_mask_is_brought_to_every_state_or_refused() {
        for mask in 0..=127 {
            for state in [AdminState::Ready, AdminState::Drain, AdminState::Maint] {
                let made = Made { mask, weight: 1, initial: 1, tracks: None, check: 0, agent: 0, is_disabled: false };
                let change = Change { state: Some(state), ..Change::default() };
                let planned = plan(&|_| change, &[server(0, &made, None)]).remove(0);
                let flags = AdminFlags(mask);
                if flags.after(state).effective() != state {
                    assert!(matches!(planned.decision, Decision::Refuse(_)), "{mask} {state}: {planned:?}");
                    continue;
                }
                let action = Some(Action::State(state));
                let expected = match state {
                    _ if flags.forced() == Some(state) => Decision::Keep,
                    AdminState::Ready => Decision::Change([None, None, None, action, None]),
                    AdminState::Drain | AdminState::Maint => Decision::Change([None, action, None, None, None]),
                };
                assert_eq!(planned.decision, expected, "{mask} {state}");
            }
        }
    }
}
