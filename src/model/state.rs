//! What can be requested ([`AdminState`]) and what HAProxy shows ([`AdminFlags`], [`OperationalState`]).
//!
//! Three states can be requested. HAProxy shows a mask of flags, which is kept as printed, because several causes can
//! apply at once: `enum srv_admin` and `enum srv_state` in HAProxy's `include/haproxy/server-t.h`.

use std::fmt;

use serde::Serialize as _;

/// The administrative state of a server: how HAProxy is told to use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// In service: takes new connections if its checks and its weight allow.
    Ready,
    /// Takes no new connections except from persistence clients; checks continue.
    Drain,
    /// In maintenance: takes no connections at all; checks are paused.
    Maint,
}

impl AdminState {
    /// Returns the word that HAProxy's `set server … state` takes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

impl fmt::Display for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which flag causes a server's administrative state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Somebody set it at run time, or the configuration started the server that way.
    Forced,
    /// The configuration has `disabled` for the server.
    Config,
    /// The server tracks another one that is in that state.
    Inherited,
    /// The server's name could not be resolved.
    Dns,
}

/// The administrative flags of a server, exactly as `srv_admin_state` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct AdminFlags(pub u32);

impl AdminFlags {
    /// `SRV_ADMF_FMAINT`: forced into maintenance.
    pub const FORCED_MAINT: u32 = 0x01;
    /// `SRV_ADMF_IMAINT`: in maintenance because the tracked server is.
    pub const INHERITED_MAINT: u32 = 0x02;
    /// `SRV_ADMF_CMAINT`: `disabled` in the configuration; says where a forced maintenance came from.
    pub const CONFIG_MAINT: u32 = 0x04;
    /// `SRV_ADMF_FDRAIN`: forced to drain.
    pub const FORCED_DRAIN: u32 = 0x08;
    /// `SRV_ADMF_IDRAIN`: drains because the tracked server does.
    pub const INHERITED_DRAIN: u32 = 0x10;
    /// `SRV_ADMF_RMAINT`: in maintenance because its name does not resolve.
    pub const DNS_MAINT: u32 = 0x20;

    /// `SRV_ADMF_FQDN_CHANGED`, which HAProxy 3.1 and older call `SRV_ADMF_HMAINT`: its name was changed at run time.
    pub const FQDN_CHANGED: u32 = 0x40;

    const MAINT: u32 = Self::FORCED_MAINT | Self::INHERITED_MAINT | Self::DNS_MAINT;
    const DRAIN: u32 = Self::FORCED_DRAIN | Self::INHERITED_DRAIN;
    const FORCED: u32 = Self::FORCED_MAINT | Self::FORCED_DRAIN;

    /// Tells whether any of the given flags is set.
    #[must_use]
    pub fn has(self, flags: u32) -> bool {
        self.0 & flags != 0
    }

    /// Returns the state that commands have set, or nothing if the statistics page has set both flags.
    ///
    /// `set server … state` owns two flags and never leaves both set; the page's "stop" and "disable" together do.
    #[must_use]
    pub fn forced(self) -> Option<AdminState> {
        match self.0 & Self::FORCED {
            0 => Some(AdminState::Ready),
            Self::FORCED_DRAIN => Some(AdminState::Drain),
            Self::FORCED_MAINT => Some(AdminState::Maint),
            _ => None,
        }
    }

    /// Returns the flags that commands set, which determine `changed`.
    #[must_use]
    pub fn commanded(self) -> u32 {
        self.0 & Self::FORCED
    }

    /// Returns the state that the server is in, whatever the cause: maintenance wins over drain.
    #[must_use]
    pub fn effective(self) -> AdminState {
        if self.has(Self::MAINT) {
            AdminState::Maint
        } else if self.has(Self::DRAIN) {
            AdminState::Drain
        } else {
            AdminState::Ready
        }
    }

    /// Returns the causes of the effective state; a server that is ready has none.
    #[must_use]
    pub fn reasons(self) -> Vec<Reason> {
        let flags: &[(u32, Reason)] = match self.effective() {
            AdminState::Ready => &[],
            AdminState::Drain => &[(Self::FORCED_DRAIN, Reason::Forced), (Self::INHERITED_DRAIN, Reason::Inherited)],
            AdminState::Maint => &[
                (Self::FORCED_MAINT, Reason::Forced),
                (Self::INHERITED_MAINT, Reason::Inherited),
                (Self::DNS_MAINT, Reason::Dns),
            ],
        };
        let mut reasons: Vec<Reason> = flags.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, why)| *why).collect();
        if self.has(Self::FORCED_MAINT) && self.has(Self::CONFIG_MAINT) {
            reasons.insert(1, Reason::Config);
        }
        reasons
    }

    /// Returns the flags after `set server … state`, by `srv_adm_set_ready()`, `_drain()` and `_maint()` of HAProxy's
    /// `include/haproxy/server.h`: only the two forced flags change.
    #[must_use]
    pub fn after(self, wanted: AdminState) -> Self {
        let others = self.0 & !Self::FORCED;
        Self(match wanted {
            AdminState::Ready => others,
            AdminState::Drain => others | Self::FORCED_DRAIN,
            AdminState::Maint => others | Self::FORCED_MAINT,
        })
    }

    /// Returns the flags after the tracked server has reached the given state, by `srv_update_status()`.
    #[must_use]
    pub fn after_target(self, target: Self) -> Self {
        let own = self.0 & !(Self::INHERITED_MAINT | Self::INHERITED_DRAIN);
        Self(match target.effective() {
            AdminState::Ready => own,
            AdminState::Drain => own | Self::INHERITED_DRAIN,
            AdminState::Maint => own | Self::INHERITED_MAINT,
        })
    }
}

/// The operational state of a server: what its checks make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OperationalState {
    /// Takes no traffic: it is down, or in maintenance.
    Stopped,
    /// Takes a growing share of traffic: `slowstart` is in progress.
    Starting,
    /// Takes traffic.
    Running,
    /// Takes only the traffic of persistence clients: its check answered 404 (`http-check disable-on-404`).
    Stopping,
}

impl OperationalState {
    /// Reads `srv_op_state`.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Stopped),
            1 => Some(Self::Starting),
            2 => Some(Self::Running),
            3 => Some(Self::Stopping),
            _ => None,
        }
    }
}

impl fmt::Display for OperationalState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Predicts the operational state right after a server's flags have changed.
///
/// Maintenance stops a server; leaving it makes the server run at once, whatever its check finds later. With
/// `slowstart`, which HAProxy does not show, it would be starting instead. `tracked` is the operational state of the
/// server that it tracks, which it then takes over.
#[must_use]
pub fn operational_after(
    before: (AdminFlags, OperationalState),
    after: AdminFlags,
    tracked: Option<OperationalState>,
) -> OperationalState {
    match (before.0.effective(), after.effective()) {
        (_, AdminState::Maint) => OperationalState::Stopped,
        (AdminState::Maint, AdminState::Ready | AdminState::Drain) => tracked.unwrap_or(OperationalState::Running),
        (AdminState::Ready | AdminState::Drain, AdminState::Ready | AdminState::Drain) => before.1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [AdminState; 3] = [AdminState::Ready, AdminState::Drain, AdminState::Maint];

    #[test]
    fn flags_say_why() {
        use Reason::{Config, Dns, Forced, Inherited};
        let table: [(u32, AdminState, &[Reason]); 14] = [
            (0, AdminState::Ready, &[]),
            (1, AdminState::Maint, &[Forced]),
            (2, AdminState::Maint, &[Inherited]),
            (3, AdminState::Maint, &[Forced, Inherited]),
            (4, AdminState::Ready, &[]),
            (5, AdminState::Maint, &[Forced, Config]),
            (7, AdminState::Maint, &[Forced, Config, Inherited]),
            (8, AdminState::Drain, &[Forced]),
            (9, AdminState::Maint, &[Forced]),
            (10, AdminState::Maint, &[Inherited]),
            (12, AdminState::Drain, &[Forced]),
            (24, AdminState::Drain, &[Forced, Inherited]),
            (33, AdminState::Maint, &[Forced, Dns]),
            (64, AdminState::Ready, &[]),
        ];
        for (mask, effective, reasons) in table {
            assert_eq!(AdminFlags(mask).effective(), effective, "{mask}");
            assert_eq!(AdminFlags(mask).reasons(), reasons, "{mask}");
        }
    }

    #[test]
    fn every_mask_keeps_what_no_command_owns() {
        for mask in 0..=127 {
            for wanted in STATES {
                let after = AdminFlags(mask).after(wanted);
                assert_eq!(after.forced(), Some(wanted));
                assert_eq!(after.0 & !9, mask & !9);
                assert_eq!(after.after(wanted), after);
            }
        }
    }

    #[test]
    fn both_forced_flags_are_none_of_the_three() {
        for mask in 0..=127u32 {
            assert_eq!(AdminFlags(mask).forced().is_none(), mask & 9 == 9);
        }
    }

    #[test]
    fn a_tracking_server_follows_its_target() {
        let target = AdminFlags(0);
        for (own, wanted, expected) in
            [(0, AdminState::Maint, 2), (1, AdminState::Maint, 3), (0, AdminState::Drain, 16)]
        {
            assert_eq!(AdminFlags(own).after_target(target.after(wanted)), AdminFlags(expected));
        }
        assert_eq!(AdminFlags(3).after_target(AdminFlags(0)), AdminFlags(1));
    }
}
