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
