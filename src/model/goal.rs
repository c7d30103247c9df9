//! What a server should become: its administrative state, its weight, and whether its checks run.

use std::fmt;

use super::state::AdminState;

/// What a server should become; missing parts stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Goal {
    /// The administrative state.
    pub state: Option<AdminState>,
    /// The weight.
    pub weight: Option<Weight>,
    /// Whether health checks run.
    pub health: Option<Switch>,
    /// Whether agent checks run.
    pub agent: Option<Switch>,
    /// What it means that the server is a spare slot, which no command makes ready.
    pub spare_slots: SpareSlots,
}

impl Goal {
    /// Returns what a wait would wait for; `None` if a wait makes no sense.
    #[must_use]
    pub fn effect(&self) -> Option<Effect> {
        match (self.state, self.weight) {
            (Some(AdminState::Drain), _) => Some(Effect::FreeInDrain),
            (Some(AdminState::Maint), _) => Some(Effect::FreeInMaint),
            (_, Some(Weight::Absolute(0) | Weight::Percent(0))) => Some(Effect::FreeAtNoWeight),
            (Some(AdminState::Ready), _) => Some(Effect::InTraffic),
            (None, _) => None,
        }
    }
}

/// The effect of a change that can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The server takes traffic.
    InTraffic,
    /// No session is left on it in drain.
    FreeInDrain,
    /// No session is left on it in maint.
    FreeInMaint,
    /// No session is left on it at weight 0.
    FreeAtNoWeight,
}

impl fmt::Display for Effect {
    /// Writes what the server was set to.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InTraffic => "ready",
            Self::FreeInDrain => "drain",
            Self::FreeInMaint => "maint",
            Self::FreeAtNoWeight => "weight 0",
        })
    }
}

/// How to treat a spare slot of a `server-template`, without an address, that should go into service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SpareSlots {
    /// A failure: somebody has named it.
    #[default]
    Refuse,
    /// Nothing: a pattern happens to match it, and it is left alone.
    Skip,
}

/// What a request says about the administrative state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Requested {
    /// In service.
    Ready,
    /// No new traffic but that of persistence clients.
    Drain,
    /// In maintenance.
    Maint,
    /// What each server was before it was taken out.
    Restore,
}

impl Requested {
    /// Returns the state that is the same for all servers, if there is one.
    #[must_use]
    pub fn for_all(self) -> Option<AdminState> {
        match self {
            Self::Ready => Some(AdminState::Ready),
            Self::Drain => Some(AdminState::Drain),
            Self::Maint => Some(AdminState::Maint),
            Self::Restore => None,
        }
    }
}

/// What a server was before it was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Was {
    /// What commands had made of it.
    pub state: AdminState,
    /// Its weight.
    pub weight: u32,
}

impl Was {
    /// Returns what brings a server back to this, and does what else is requested.
    #[must_use]
    pub fn as_goal(self, requested: Goal) -> Goal {
        Goal { state: Some(self.state), weight: Some(Weight::Absolute(self.weight)), ..requested }
    }
}

/// Whether checks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// They run.
    Enabled,
    /// They are paused.
    Disabled,
}

/// A requested weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// From 0 to 256, as HAProxy counts it.
    Absolute(u32),
    /// A percentage of the configured weight.
    Percent(u32),
}

impl Weight {
    /// The largest weight of HAProxy (`SRV_UWGHT_MAX`).
    pub const MAX: u32 = 256;

    /// The largest percentage that HAProxy accepts (`server_parse_weight_change_request()` in its `src/server.c`).
    pub const MAX_PERCENT: u32 = 25_600;

    /// Returns the weight that HAProxy makes of it for a server of the given configured weight.
    #[must_use]
    pub fn of(self, configured: u32) -> u32 {
        match self {
            Self::Absolute(weight) => weight,
            Self::Percent(percent) => (configured.saturating_mul(percent) / 100).min(Self::MAX),
        }
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(weight) => write!(f, "{weight}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_waited_for_follows_from_the_goal() {
        let (ready, drain, maint) = (Some(AdminState::Ready), Some(AdminState::Drain), Some(AdminState::Maint));
        let (none, some) = (Some(Weight::Absolute(0)), Some(Weight::Percent(1)));
        for (state, weight, expected) in [
            (ready, None, Some((Effect::InTraffic, "ready"))),
            (ready, some, Some((Effect::InTraffic, "ready"))),
            (ready, none, Some((Effect::FreeAtNoWeight, "weight 0"))),
            (drain, none, Some((Effect::FreeInDrain, "drain"))),
            (maint, none, Some((Effect::FreeInMaint, "maint"))),
            (None, Some(Weight::Percent(0)), Some((Effect::FreeAtNoWeight, "weight 0"))),
            (None, some, None),
            (None, None, None),
        ] {
            let effect = Goal { state, weight, ..Goal::default() }.effect();
            assert_eq!(effect, expected.map(|(effect, _)| effect), "{state:?} {weight:?}");
            assert_eq!(effect.map(|effect| effect.to_string()).as_deref(), expected.map(|(_, word)| word));
        }
    }

    #[test]
    fn a_share_of_a_weight_is_rounded_down_and_limited() {
        for (weight, configured, expected, text) in [
            (Weight::Absolute(7), 10, 7, "7"),
            (Weight::Percent(50), 1, 0, "50%"),
            (Weight::Percent(50), 5, 2, "50%"),
            (Weight::Percent(100), 256, 256, "100%"),
            (Weight::Percent(Weight::MAX_PERCENT), 2, 256, "25600%"),
        ] {
            assert_eq!((weight.of(configured), weight.to_string().as_str()), (expected, text));
        }
    }

    #[test]
    fn what_was_is_restored_with_what_else_is_requested() {
        let requested = Goal { health: Some(Switch::Enabled), ..Goal::default() };
        let was = Was { state: AdminState::Drain, weight: 7 };
        let goal = Goal { state: Some(AdminState::Drain), weight: Some(Weight::Absolute(7)), ..requested };
        assert_eq!(was.as_goal(requested), goal);
    }
}
