//! Decides, without touching anything, what each server needs: nothing, a change, or a refusal.
//!
//! The transitions are HAProxy's own: see [`AdminFlags::after`](crate::model::state::AdminFlags::after),
//! [`AdminFlags::after_target`](crate::model::state::AdminFlags::after_target) and [`operational_after`], which a test
//! compares with the table measured on real HAProxy.

use std::collections::HashMap;

use super::shortfall::{unreachable, vanishing};
use crate::haproxy::command::Action;
use crate::model::error::Error;
use crate::model::goal::{Goal, Switch};
use crate::model::server::{Server, ServerState};
use crate::model::state::{AdminState, operational_after};

/// What is decided for one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is as requested, or a spare slot that is skipped.
    Keep,
    /// These commands are needed, in this order.
    Change(Actions),
    /// No command can bring it there; the other servers are still set.
    Refuse(Error),
    /// It is in a backend that is `disabled`: it takes no traffic, and no command reaches it.
    Disabled,
}

/// At most one command for each thing that can be set: most servers need one, and none needs its own allocation.
pub type Actions = [Option<Action>; 5];

/// What is decided for one server, and how it will be then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What it should become.
    pub goal: Goal,
    /// What to do.
    pub decision: Decision,
    /// The state that HAProxy's transitions lead to.
    pub after: ServerState,
}

/// The order in which commands go to the servers: tracked servers before those that track them.
#[must_use]
pub fn order(servers: &[&Server]) -> Vec<usize> {
    let Some(links) = Links::of(servers) else { return (0..servers.len()).collect() };
    let depths: Vec<usize> = (0..servers.len()).map(|start| links.depth(start)).collect();
    let at =
        |wanted: usize| depths.iter().enumerate().filter(move |(_, depth)| **depth == wanted).map(|(index, _)| index);
    (0..=depths.iter().copied().max().unwrap_or(0)).flat_map(at).collect()
}

/// Which of the servers track which others.
struct Links(Vec<Option<usize>>);

impl Links {
    /// Finds the server that each one tracks; `None` if none tracks any, as on most hosts.
    fn of(servers: &[&Server]) -> Option<Self> {
        if servers.iter().all(|server| server.tracks().is_none()) {
            return None;
        }
        let mut places: HashMap<(&str, &str), usize> = HashMap::with_capacity(servers.len());
        for (index, server) in servers.iter().enumerate() {
            places.entry((&server.backend, &server.server)).or_insert(index);
        }
        let target = |server: &&Server| places.get(&server.tracks()?.rsplit_once('/')?).copied();
        Some(Self(servers.iter().map(target).collect()))
    }

    fn target(&self, index: usize) -> Option<usize> {
        self.0.get(index).copied().flatten()
    }

    /// Counts the servers in the chain that one tracks.
    fn depth(&self, start: usize) -> usize {
        std::iter::successors(self.target(start), |&index| self.target(index)).take(self.0.len()).count()
    }
}

/// Plans the servers of one instance, each with its goal.
#[must_use]
pub fn plan(wishes: &[(&Server, Goal)]) -> Vec<Planned> {
    let servers: Vec<&Server> = wishes.iter().map(|(server, _)| *server).collect();
    let Some(links) = Links::of(&servers) else {
        return wishes.iter().map(|(server, goal)| plan_one(*goal, server, None)).collect();
    };
    let mut planned: Vec<Option<Planned>> = vec![None; wishes.len()];
    for index in order(&servers) {
        let Some((server, goal)) = wishes.get(index) else { continue };
        let target = links.target(index).and_then(|target| planned.get(target)).and_then(Option::as_ref);
        let decided = plan_one(*goal, server, target.map(|target| target.after));
        if let Some(slot) = planned.get_mut(index) {
            *slot = Some(decided);
        }
    }
    planned.into_iter().flatten().collect()
}

/// Plans one server; `target` is the predicted state of the server that it tracks, if that is planned too.
fn plan_one(goal: Goal, server: &Server, target: Option<ServerState>) -> Planned {
    let before = server.state;
    if server.is_in_disabled_backend() {
        return Planned { goal, decision: Decision::Disabled, after: before };
    }
    if server.is_skipped_by(&goal) {
        return Planned { goal, decision: Decision::Keep, after: before };
    }
    let tracked = target.map(|target| target.operational);
    let inherited = target.map_or(before.flags, |target| before.flags.after_target(target.flags));
    let flags = goal.state.map_or(inherited, |state| inherited.after(state));
    let operational = |flags| operational_after((before.flags, before.operational), flags, tracked);
    if let Some(error) =
        unreachable(&goal, server, flags).or_else(|| goal.weight.and_then(|weight| vanishing(weight, server)))
    {
        let after = ServerState { flags: inherited, operational: operational(inherited), ..before };
        return Planned { goal, decision: Decision::Refuse(error), after };
    }
    let after = ServerState {
        flags,
        operational: operational(flags),
        weight: goal.weight.map_or(before.weight, |weight| weight.of(server.configured_weight)),
        health: before.health.map(|health| goal.health.unwrap_or(health)),
        agent: before.agent.map(|agent| goal.agent.unwrap_or(agent)),
    };
    let actions = actions(&goal, &before, &after);
    let decision = if actions.iter().all(Option::is_none) { Decision::Keep } else { Decision::Change(actions) };
    Planned { goal, decision, after }
}

/// The commands that lead from one state to another, in an order that never lets traffic or an agent slip in between.
fn actions(goal: &Goal, before: &ServerState, after: &ServerState) -> Actions {
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

#[cfg(test)]
mod tests {
    //! Plans over generated hosts, carried out on a model: HAProxy's transitions, one command at a time.

    use proptest::prelude::*;

    use super::*;
    use crate::decide::shortfall::shortfall;
    use crate::model::error::ErrorKind;
    use crate::model::goal::Weight;
    use crate::model::server::{ServerState, Statistics};
    use crate::model::state::{AdminFlags, OperationalState};

    /// A server of a generated host: what it tracks is the place of another one in the list.
    #[derive(Debug, Clone)]
    struct Made {
        mask: u32,
        weight: u32,
        initial: u32,
        tracks: Option<prop::sample::Index>,
        health: Option<Switch>,
        agent: Option<Switch>,
        is_disabled: bool,
    }

    fn server(index: usize, made: &Made, tracks: Option<usize>) -> Server {
        let name = format!("s{index}");
        let id = u32::try_from(index).unwrap() + 1;
        Server {
            server: name.as_str().into(),
            server_id: if made.is_disabled { 0 } else { id },
            state: ServerState {
                flags: AdminFlags(made.mask),
                operational: OperationalState::Running,
                weight: made.weight,
                health: made.health,
                agent: made.agent,
            },
            configured_weight: made.initial,
            statistics: tracks.map(|target| {
                Box::new(Statistics {
                    status: "UP".to_owned(),
                    tracks: Some(format!("b/s{target}")),
                    ..Statistics::default()
                })
            }),
            ..Server::example()
        }
    }

    fn switches() -> impl Strategy<Value = Option<Switch>> {
        prop::sample::select(vec![None, Some(Switch::Enabled), Some(Switch::Disabled)])
    }

    /// Plans one goal for all servers.
    fn plan_all(goal: Goal, servers: &[Server]) -> Vec<Planned> {
        plan(&servers.iter().map(|server| (server, goal)).collect::<Vec<_>>())
    }

    /// Servers in any order, of which some track others, also in chains; HAProxy allows no loops.
    fn hosts() -> impl Strategy<Value = Vec<Server>> {
        let made = (
            0u32..=127,
            0u32..=256,
            0u32..=256,
            any::<Option<prop::sample::Index>>(),
            switches(),
            switches(),
            prop::bool::weighted(0.1),
        );
        let made = made.prop_map(|(mask, weight, initial, tracks, health, agent, is_disabled)| Made {
            mask,
            weight,
            initial,
            tracks,
            health,
            agent,
            is_disabled,
        });
        (prop::collection::vec(made, 1..12), any::<u64>()).prop_map(|(made, seed)| {
            let servers = made.iter().enumerate().map(|(index, made)| {
                // Only those before it in a hidden order are tracked; the seed rotates the list.
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

    fn changes() -> impl Strategy<Value = Goal> {
        let states = [AdminState::Ready, AdminState::Drain, AdminState::Maint].map(Some);
        let weight = prop_oneof![
            (0u32..=256).prop_map(|weight| Some(Weight::Absolute(weight))),
            (0u32..=25_600).prop_map(|percent| Some(Weight::Percent(percent))),
            Just(None),
        ];
        (prop::sample::select([states.as_slice(), &[None]].concat()), weight, switches(), switches())
            .prop_map(|(state, weight, health, agent)| Goal { state, weight, health, agent, ..Goal::default() })
    }

    /// What HAProxy does to those that track the server, and to those that track them.
    fn inherit(servers: &mut [Server], target: usize) {
        let (name, flags) = (servers[target].full_name(), servers[target].state.flags);
        for index in 0..servers.len() {
            if servers[index].tracks() == Some(name.as_str()) {
                servers[index].state.flags = servers[index].state.flags.after_target(flags);
                inherit(servers, index);
            }
        }
    }

    /// What HAProxy does to a check; only one that is configured is set.
    fn set_check(check: &mut Option<Switch>, switch: Switch) {
        assert!(check.is_some(), "the check is configured");
        *check = Some(switch);
    }

    /// Carries out the commands of a plan, in order.
    fn carry_out(servers: &mut [Server], planned: &[Planned]) {
        let places = order(&servers.iter().collect::<Vec<_>>());
        for index in places {
            let Decision::Change(actions) = &planned[index].decision else { continue };
            for action in actions.iter().flatten() {
                match action {
                    Action::State(state) => servers[index].state.flags = servers[index].state.flags.after(*state),
                    Action::Weight(weight) => servers[index].state.weight = weight.of(servers[index].configured_weight),
                    Action::Health(switch) => set_check(&mut servers[index].state.health, *switch),
                    Action::Agent(switch) => set_check(&mut servers[index].state.agent, *switch),
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
            let first = plan_all(change, &before);
            prop_assert_eq!(first.len(), before.len());
            let mut after = before;
            carry_out(&mut after, &first);
            for (server, planned) in after.iter().zip(&first) {
                prop_assert_eq!(server.state.flags, planned.after.flags, "{}", server.full_name());
                prop_assert_eq!(server.state.weight, planned.after.weight, "{}", server.full_name());
                prop_assert_eq!(server.state.health, planned.after.health, "{}", server.full_name());
                prop_assert_eq!(server.state.agent, planned.after.agent, "{}", server.full_name());
            }
            for (server, planned) in after.iter().zip(plan_all(change, &after)) {
                prop_assert!(!matches!(planned.decision, Decision::Change(_)), "{} {planned:?}", server.full_name());
            }
        }

        #[test]
        fn what_is_not_refused_is_then_as_wanted(before in hosts(), change in changes()) {
            let planned = plan_all(change, &before);
            let mut after = before.clone();
            carry_out(&mut after, &planned);
            for ((was, server), planned) in before.iter().zip(&after).zip(&planned) {
                match &planned.decision {
                    Decision::Keep | Decision::Change(_) => {
                        prop_assert_eq!(shortfall(&change, server), None);
                        if let Some(wanted) = change.state {
                            prop_assert_eq!(server.state.flags.effective(), wanted);
                        }
                    }
                    Decision::Refuse(error) => {
                        prop_assert_eq!(error.kind, ErrorKind::UnreachableState);
                        let vanishes = vanishing(change.weight.unwrap_or(Weight::Absolute(1)), was).is_some();
                        prop_assert!(vanishes || Some(server.state.flags.effective()) != change.state);
                        prop_assert_eq!(server.state.weight, was.state.weight);
                        prop_assert_eq!(server.state.flags.commanded(), was.state.flags.commanded());
                    }
                    Decision::Disabled => prop_assert_eq!(server.state.flags, was.state.flags),
                }
            }
        }

        #[test]
        fn nothing_is_sent_to_what_is_as_wanted(before in hosts(), change in changes()) {
            for (server, planned) in before.iter().zip(plan_all(change, &before)) {
                let Decision::Change(actions) = planned.decision else { continue };
                prop_assert!(!server.is_in_disabled_backend() && actions.iter().any(Option::is_some));
                for &action in actions.iter().flatten() {
                    match action {
                        Action::State(state) => prop_assert_ne!(server.state.flags.forced(), Some(state)),
                        Action::Weight(weight) => prop_assert_ne!(server.state.weight, weight.of(server.configured_weight)),
                        Action::Health(switch) => prop_assert_eq!(server.state.health.map(|is| is != switch), Some(true)),
                        Action::Agent(switch) => prop_assert_eq!(server.state.agent.map(|is| is != switch), Some(true)),
                        Action::ShutdownSessions => prop_assert!(false, "a plan ends no sessions"),
                    }
                }
            }
        }

        #[test]
        fn targets_come_before_those_that_track_them(servers in hosts()) {
            let order = order(&servers.iter().collect::<Vec<_>>());
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
    fn a_refused_server_still_follows_the_one_that_it_tracks() {
        let made = |mask, tracks: Option<usize>| {
            let made =
                Made { mask, weight: 1, initial: 1, tracks: None, health: None, agent: None, is_disabled: false };
            server(usize::from(tracks.is_some()), &made, tracks)
        };
        let (tracked, mut tracking) =
            (made(AdminFlags::FORCED_MAINT, None), made(AdminFlags::INHERITED_MAINT, Some(0)));
        tracking.state.operational = OperationalState::Stopped;
        let back = Goal { state: Some(AdminState::Ready), ..Goal::default() };
        let vanishing = Goal { weight: Some(Weight::Percent(1)), ..back };
        let planned = plan(&[(&tracked, back), (&tracking, vanishing)]).remove(1);
        assert!(matches!(planned.decision, Decision::Refuse(_)), "{planned:?}");
        let after = ServerState { flags: AdminFlags(0), operational: OperationalState::Running, ..tracking.state };
        assert_eq!(planned.after, after);
    }

    #[test]
    fn every_mask_is_brought_to_every_state_or_refused() {
        for mask in 0..=127 {
            for state in [AdminState::Ready, AdminState::Drain, AdminState::Maint] {
                let made =
                    Made { mask, weight: 1, initial: 1, tracks: None, health: None, agent: None, is_disabled: false };
                let change = Goal { state: Some(state), ..Goal::default() };
                let planned = plan_all(change, &[server(0, &made, None)]).remove(0);
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
