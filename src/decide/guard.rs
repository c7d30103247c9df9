//! Refuses a change that would leave a backend with too few usable servers: pure counting, with the numbers shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::plan::Planned;
use crate::model::error::{Error, ErrorKind};
use crate::model::server::{Server, ServerState};
use crate::model::state::AdminFlags;
use crate::model::traffic::{Around, MinAvailable};

/// A server in a backend that a change affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// The server as it is.
    pub server: &'a Server,
    /// How it would be.
    pub after: &'a ServerState,
}

/// How many servers of a backend take traffic, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Usable before the change.
    pub before: u32,
    /// Usable after it.
    pub after: u32,
    /// What a share is of: those that the configuration neither disables nor marks `backup`, without spare slots.
    pub configured: u32,
}

/// A backend that has fewer servers in traffic than a guard asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// Its number.
    pub backend_id: u32,
    /// Its name.
    pub backend: Arc<str>,
    /// How many of its servers take traffic.
    pub usable: u32,
    /// How many the guard asks for.
    pub needed: u32,
}

/// Finds the backends that have fewer servers in traffic than the guard asks for, among those of all given servers;
/// `around` counts others that are not given.
#[must_use]
pub fn short<'a>(
    guard: MinAvailable,
    servers: impl IntoIterator<Item = &'a Server>,
    around: &BTreeMap<u32, Around>,
) -> Vec<Short> {
    let mut backends: BTreeMap<u32, Vec<Member<'_>>> = BTreeMap::new();
    for server in servers {
        backends.entry(server.backend_id).or_default().push(Member { server, after: &server.state });
    }
    let judge = |(backend_id, members): (u32, Vec<Member<'_>>)| {
        let Count { before: usable, configured, .. } = count(&members, around_in(around, backend_id));
        let needed = guard.of(configured);
        let backend = Arc::clone(&members.first()?.server.backend);
        (usable < needed).then_some(Short { backend_id, backend, usable, needed })
    };
    backends.into_iter().filter_map(judge).collect()
}

fn around_in(around: &BTreeMap<u32, Around>, backend_id: u32) -> Around {
    around.get(&backend_id).copied().unwrap_or_default()
}

/// Finds the backends that a plan leaves with fewer usable servers than the guard allows, each with its number; `around`
/// counts others that nothing changes.
#[must_use]
pub fn refusals<'a>(
    guard: MinAvailable,
    instance: &str,
    planned: impl IntoIterator<Item = (&'a Server, &'a Planned)>,
    around: &BTreeMap<u32, Around>,
) -> Vec<(u32, Error)> {
    let mut backends: BTreeMap<u32, (&str, Vec<Member<'_>>)> = BTreeMap::new();
    for (server, Planned { after, .. }) in planned {
        let member = Member { server, after };
        backends.entry(server.backend_id).or_insert((&server.backend, Vec::new())).1.push(member);
    }
    let refusal = |(id, (name, members)): (u32, (&str, Vec<Member<'_>>))| {
        refuse(guard, instance, name, count(&members, around_in(around, id))).map(|error| (id, error))
    };
    backends.into_iter().filter_map(refusal).collect()
}

/// Counts the servers of one backend, and those around them.
///
/// HAProxy uses backup servers only if no other is usable, and then the first of them (configuration.txt, `backup`);
/// with `option allbackups` it uses all, which cannot be seen from outside, so they count as one.
#[must_use]
pub fn count(members: &[Member<'_>], around: Around) -> Count {
    let number = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let usable = |takes_traffic: &dyn Fn(&Member<'_>) -> bool| {
        let of = |is_backup: bool| {
            members.iter().filter(|member| member.server.is_backup() == is_backup && takes_traffic(member)).count()
        };
        let (active, backup) = (of(false).saturating_add(number(around.active)), of(true));
        u32::try_from(if active > 0 { active } else { backup.min(1) }).unwrap_or(u32::MAX)
    };
    let is_regular = |server: &Server| {
        !server.state.flags.has(AdminFlags::CONFIG_MAINT) && !server.is_backup() && !server.is_spare()
    };
    let regular = members.iter().filter(|member| is_regular(member.server)).count();
    let configured = regular.saturating_add(number(around.active)).saturating_add(number(around.unusable));
    Count {
        before: usable(&|member| member.server.takes_traffic()),
        after: usable(&|member| member.server.would_take_traffic(member.after)),
        configured: u32::try_from(configured).unwrap_or(u32::MAX),
    }
}

/// Refuses a change that lowers the usable servers of a backend below what the guard allows.
#[must_use]
pub fn refuse(guard: MinAvailable, instance: &str, backend: &str, count: Count) -> Option<Error> {
    let needed = guard.of(count.configured);
    if count.after >= count.before || count.after >= needed {
        return None;
    }
    let share = match guard {
        MinAvailable::Count(_) => String::new(),
        MinAvailable::Percent(percent) => format!(" ({percent}% of {})", count.configured),
    };
    let plural = if count.before == 1 { "" } else { "s" };
    let msg = format!(
        "the backend {backend} has {} usable server{plural} and would have {}, fewer than 'guard.min_available' {needed}{share}; \
         put others back first, or lower the guard",
        count.before, count.after
    );
    Some(Error::new(ErrorKind::GuardRefused, msg).on_instance(instance).on_backend(backend))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::server::Statistics;
    use crate::model::state::OperationalState;
    use crate::model::traffic::obstacle;
    use proptest::prelude::*;

    fn state(mask: u32, weight: u32, op: u32) -> ServerState {
        let operational = OperationalState::from_number(op).unwrap();
        ServerState { flags: AdminFlags(mask), operational, weight, health: None, agent: None }
    }

    /// How a server is, how it would be, and whether it is a backup server.
    type Made = (ServerState, ServerState, bool);

    fn count(made: &[Made]) -> Count {
        count_among(made, Around::default())
    }

    fn count_among(made: &[Made], around: Around) -> Count {
        let server = |(before, _, backup): &Made| {
            let statistics = Statistics { backup: *backup, ..Statistics::default() };
            Server { state: *before, statistics: Some(Box::new(statistics)), ..Server::example() }
        };
        let servers: Vec<Server> = made.iter().map(server).collect();
        let members = servers.iter().zip(made).map(|(server, (_, after, _))| Member { server, after });
        super::count(&members.collect::<Vec<_>>(), around)
    }

    #[test]
    fn only_servers_that_take_traffic_count() {
        let up = state(0, 1, 2);
        for (unusable, why) in [
            (state(1, 1, 0), "maint"),
            (state(8, 1, 2), "drain"),
            (state(0, 1, 0), "down"),
            (state(0, 1, 3), "stopping"),
            (state(0, 0, 2), "weight 0"),
            (state(2, 1, 0), "inherited"),
        ] {
            let counted = count(&[(up, up, false), (unusable, unusable, false)]);
            assert_eq!((counted.before, counted.after), (1, 1), "{why}");
        }
        assert_eq!(count(&[(state(0, 1, 1), up, false)]).before, 1, "starting");
    }

    #[test]
    fn backup_servers_count_as_one_and_only_alone() {
        let up = state(0, 1, 2);
        let out = state(1, 1, 0);
        let counted = count(&[(up, out, false), (up, up, true), (up, up, true)]);
        assert_eq!((counted.before, counted.after), (1, 1));
    }

    #[test]
    fn shares_are_rounded_up_and_leave_out_what_is_disabled() {
        let up = state(0, 1, 2);
        let out = state(1, 1, 0);
        let disabled = state(5, 1, 0);
        let counted = count(&[(up, out, false), (up, up, false), (up, up, false), (disabled, disabled, false)]);
        assert_eq!(counted, Count { before: 3, after: 2, configured: 3 });
        assert!(refuse(MinAvailable::Percent(50), "http", "app", counted).is_none());
        let error = refuse(MinAvailable::Percent(67), "http", "app", counted).unwrap();
        assert_eq!(error.kind, ErrorKind::GuardRefused);
        assert!(error.msg.contains("3 usable servers and would have 2"), "{error}");
        assert!(error.msg.contains("'guard.min_available' 3 (67% of 3)"), "{error}");
    }

    #[test]
    fn a_share_is_of_the_regular_servers() {
        let (up, out) = (state(0, 1, 2), state(1, 1, 0));
        let counted = count(&[(up, up, false), (up, out, false), (up, up, true), (up, up, true)]);
        assert_eq!(counted, Count { before: 2, after: 1, configured: 2 });
        let spare = Server { has_address: false, state: state(32, 1, 0), ..Server::example() };
        let unresolved = Server { has_address: false, state: state(33, 1, 0), ..Server::example() };
        let members = [&spare, &unresolved].map(|server| Member { server, after: &server.state });
        assert_eq!(super::count(&members, Around::default()), Count { before: 0, after: 0, configured: 1 });
        let around = Around { active: 2, unusable: 1 };
        assert_eq!(super::count(&members, around), Count { before: 2, after: 2, configured: 4 });
    }

    #[test]
    fn a_backend_is_short_if_fewer_than_needed_take_traffic() {
        let (up, out) = (state(0, 1, 2), state(1, 1, 0));
        let server = |backend_id, backend: &str, state| Server {
            backend_id,
            backend: backend.into(),
            state,
            ..Server::example()
        };
        let servers = [server(3, "app", up), server(3, "app", out), server(4, "api", up), server(5, "ldap", up)];
        let around = BTreeMap::from([(4, Around { active: 1, unusable: 0 }), (9, Around { active: 7, unusable: 7 })]);
        let short = |least| short(least, &servers, &around);
        assert_eq!(short(MinAvailable::Count(1)), []);
        let of =
            |backend_id, backend: &str, usable, needed| Short { backend_id, backend: backend.into(), usable, needed };
        assert_eq!(short(MinAvailable::Count(2)), [of(3, "app", 1, 2), of(5, "ldap", 1, 2)]);
        assert_eq!(short(MinAvailable::Percent(60)), [of(3, "app", 1, 2)]);
    }

    #[test]
    fn a_guard_holds_anyway_if_it_asks_for_one_even_beside_backup_servers() {
        let around = |active, unusable| Around { active, unusable };
        for (guard, changed, around, holds) in [
            (MinAvailable::Count(0), 1, around(1, 0), true),
            (MinAvailable::Count(1), 9, around(1, 9), true),
            (MinAvailable::Count(1), 1, around(0, 0), false),
            (MinAvailable::Count(2), 1, around(9, 0), false),
            (MinAvailable::Percent(50), 1, around(9, 0), true),
            (MinAvailable::Percent(51), 1, around(9, 0), false),
            (MinAvailable::Percent(50), 1, around(9, 1), false),
            (MinAvailable::Percent(50), 2, around(9, 0), false),
            (MinAvailable::Percent(33), 1, around(9, 1), true),
        ] {
            assert_eq!(guard.holds_anyway(changed, around), holds, "{guard:?} {changed} {around:?}");
        }
    }

    prop_compose! {
        fn any_state()(mask in 0u32..=127, weight in 0u32..=2, op in 0u32..=3) -> ServerState { state(mask, weight, op) }
    }

    proptest! {
        #[test]
        fn what_is_not_refused_leaves_enough_or_does_not_lower(
            states in prop::collection::vec((any_state(), any_state(), any::<bool>()), 0..12),
            least in 0u32..8,
        ) {
            let counted = count(&states);
            let refused = refuse(MinAvailable::Count(least), "i", "b", counted).is_some();
            prop_assert_eq!(refused, counted.after < counted.before && counted.after < least);
        }

        // A guard that holds anyway is not told which servers are backup servers, and takes those around for regular ones.
        #[test]
        fn what_holds_anyway_is_refused_neither_with_backup_servers_nor_without(
            changed in prop::collection::vec((any_state(), any_state(), any::<bool>()), 1..4),
            others in prop::collection::vec((prop_oneof![Just(state(0, 1, 2)), any_state()], any::<bool>()), 0..8),
            guard in prop_oneof![(0u32..3).prop_map(MinAvailable::Count), (0u32..=100).prop_map(MinAvailable::Percent)],
        ) {
            let is_active = |state: &ServerState| obstacle(state.flags, state.operational, state.weight).is_none();
            let active = others.iter().filter(|(state, _)| is_active(state)).count();
            let is_disabled = |state: &ServerState| state.flags.has(AdminFlags::CONFIG_MAINT);
            let unusable = others.iter().filter(|(state, _)| !is_active(state) && !is_disabled(state)).count();
            let around = Around { active: u32::try_from(active).unwrap(), unusable: u32::try_from(unusable).unwrap() };
            let holds = guard.holds_anyway(u32::try_from(changed.len()).unwrap(), around);
            let all: Vec<Made> = others.iter().map(|(same, backup)| (*same, *same, *backup)).chain(changed.clone()).collect();
            prop_assert!(!holds || refuse(guard, "i", "b", count(&all)).is_none());
            let unknown: Vec<Made> = changed.iter().map(|(before, after, _)| (*before, *after, false)).collect();
            prop_assert!(!holds || refuse(guard, "i", "b", count_among(&unknown, around)).is_none());
        }

        #[test]
        fn a_change_that_changes_nothing_is_never_refused(
            states in prop::collection::vec((any_state(), any::<bool>()), 0..12),
            percent in 0u32..=100,
        ) {
            let made: Vec<Made> = states.into_iter().map(|(same, backup)| (same, same, backup)).collect();
            prop_assert!(refuse(MinAvailable::Percent(percent), "i", "b", count(&made)).is_none());
        }
    }
}
