//! What a server is to become: its administrative state, its weight, and whether its checks run.

use std::fmt;

use super::state::AdminState;

/// What is to become of a server; what is missing stays as it is.
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

/// A weight that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// From 0 to 256, as HAProxy counts it.
    Absolute(u32),
    /// A share of the configured weight.
    Percent(u32),
}

impl Weight {
    /// The largest weight of HAProxy (`SRV_UWGHT_MAX`).
    pub const MAX: u32 = 256;

    /// The largest share that HAProxy computes with (`server_parse_weight_change_request()` in its `src/server.c`).
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
