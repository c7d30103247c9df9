//! What "takes traffic" means: one definition for status, guard, wait and every warning.

use super::server::{Publication, Server, ServerState, Statistics};
use super::state::{AdminFlags, AdminState, OperationalState};

/// What keeps new traffic from a server; one that has none of these takes traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Its backend has `disabled`.
    BackendDisabled,
    /// Its backend is unpublished (HAProxy 3.4 and later).
    BackendUnpublished,
    /// It is in maintenance, whatever the cause.
    Maint,
    /// It drains, whatever the cause.
    Drain,
    /// Its checks, or those of the server that it tracks, keep it down.
    Down,
    /// Its check answers 404 (`http-check disable-on-404`).
    Stopping,
    /// Its weight is 0.
    NoWeight,
}

/// How many servers of a backend there are besides those that matched, as a guard counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Around {
    /// Those that take traffic; none is a backup server, unless that makes no difference to the guard.
    pub active: u32,
    /// Those that do not, but for ones that the configuration disables, spare slots, and all of a disabled backend.
    pub unusable: u32,
}

/// The fewest usable servers that a guard accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinAvailable {
    /// This many.
    Count(u32),
    /// A percentage of the backend's servers that the configuration neither disables nor marks `backup`, rounded up.
    Percent(u32),
}

impl MinAvailable {
    /// Returns the number for a backend with this many servers.
    #[must_use]
    pub fn of(self, servers: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => servers.saturating_mul(percent).div_ceil(100),
        }
    }

    /// Tells whether a backend keeps enough usable servers whatever becomes of `changed` of them, and whichever of all are
    /// backup servers.
    ///
    /// At worst all but one of those that take traffic are backup servers, which do not count beside it.
    #[must_use]
    pub fn holds_anyway(self, changed: u32, around: Around) -> bool {
        let regular = changed.saturating_add(around.unusable).saturating_add(1);
        around.active > 0 && self.of(regular) <= 1
    }
}

/// Finds what in the state of a server keeps new traffic from it, the most important first.
#[must_use]
pub fn obstacle(flags: AdminFlags, operational: OperationalState, weight: u32) -> Option<Obstacle> {
    match (flags.effective(), operational) {
        (AdminState::Maint, _) => Some(Obstacle::Maint),
        (AdminState::Drain, _) => Some(Obstacle::Drain),
        (AdminState::Ready, OperationalState::Stopped) => Some(Obstacle::Down),
        (AdminState::Ready, OperationalState::Stopping) => Some(Obstacle::Stopping),
        (AdminState::Ready, OperationalState::Starting | OperationalState::Running) => {
            (weight == 0).then_some(Obstacle::NoWeight)
        }
    }
}

impl Server {
    /// Finds what keeps new traffic from the server, or would in another state.
    #[must_use]
    pub fn obstacle_in(&self, state: &ServerState) -> Option<Obstacle> {
        if self.is_in_disabled_backend() {
            return Some(Obstacle::BackendDisabled);
        }
        if self.is_in_unpublished_backend() {
            return Some(Obstacle::BackendUnpublished);
        }
        obstacle(state.flags, state.operational, state.weight)
    }

    /// Tells whether HAProxy gives new traffic to the server.
    #[must_use]
    pub fn takes_traffic(&self) -> bool {
        self.would_take_traffic(&self.state)
    }

    /// Tells whether HAProxy would give new traffic to the server if it were in another state.
    #[must_use]
    pub fn would_take_traffic(&self, state: &ServerState) -> bool {
        self.obstacle_in(state).is_none()
    }
}

impl Statistics {
    /// Tells whether an agent check keeps the server down, or the one that it tracks.
    #[must_use]
    pub fn is_down_by_agent(&self) -> bool {
        self.status == "DOWN (agent)"
    }

    /// Finds what keeps new traffic from the server, by its status in one phrase.
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        let words = [
            ("MAINT", Obstacle::Maint),
            ("DRAIN", Obstacle::Drain),
            ("DOWN", Obstacle::Down),
            ("NOLB", Obstacle::Stopping),
        ];
        let by_status = words.into_iter().find(|(word, _)| self.status.starts_with(word)).map(|(_, obstacle)| obstacle);
        match self.publication {
            Publication::Unpublished => Some(Obstacle::BackendUnpublished),
            Publication::Published => by_status.or_else(|| (self.weight == 0).then_some(Obstacle::NoWeight)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_what_is_ready_and_running_and_has_a_weight_takes_traffic(mask in 0u32..=127, op in 0u32..=3, weight in 0u32..=2) {
            let (flags, operational) = (AdminFlags(mask), OperationalState::from_number(op).unwrap());
            let expected = mask & 0x3b == 0 && matches!(op, 1 | 2) && weight > 0;
            prop_assert_eq!(obstacle(flags, operational, weight).is_none(), expected);
        }
    }

    #[test]
    fn a_status_says_the_same_in_one_phrase() {
        let table = [
            ("UP", 1, None),
            ("UP 1/3", 1, None),
            ("no check", 1, None),
            ("UP", 0, Some(Obstacle::NoWeight)),
            ("DOWN", 1, Some(Obstacle::Down)),
            ("DOWN 1/2", 1, Some(Obstacle::Down)),
            ("DOWN (agent)", 1, Some(Obstacle::Down)),
            ("NOLB", 1, Some(Obstacle::Stopping)),
            ("DRAIN", 1, Some(Obstacle::Drain)),
            ("DRAIN (agent)", 0, Some(Obstacle::Drain)),
            ("MAINT", 1, Some(Obstacle::Maint)),
            ("MAINT (via b/s)", 1, Some(Obstacle::Maint)),
            ("MAINT (resolution)", 1, Some(Obstacle::Maint)),
        ];
        for (status, weight, expected) in table {
            let statistics = Statistics { status: status.to_owned(), weight, ..Statistics::default() };
            assert_eq!(statistics.obstacle(), expected, "{status} {weight}");
            let unpublished = Statistics { publication: Publication::Unpublished, ..statistics };
            assert_eq!(unpublished.obstacle(), Some(Obstacle::BackendUnpublished), "{status}");
        }
    }
}
