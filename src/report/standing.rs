//! How servers stand, for people and monitoring: one rule for the table and for Nagios.

use super::wire::{Report, ServerReport};
use crate::model::state::AdminState;

/// How a server stands in a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It takes traffic.
    Ok,
    /// Somebody has taken it out, and its time is not over.
    Owned,
    /// It was to be back by now.
    Expired,
    /// It is in drain or maint, and nobody is recorded for that.
    Out(AdminState),
    /// It is ready, but takes no traffic: its checks fail, or its weight is 0.
    Down,
}

impl Standing {
    /// Says how a server of a status stands.
    pub(super) fn of(server: &ServerReport<'_>) -> Self {
        let state = server.after.as_ref().map_or(AdminState::Ready, |after| after.admin_state);
        match (server.ok, server.expired, server.owner, state) {
            (Some(true), _, _, _) => Self::Ok,
            (Some(false) | None, Some(true), _, _) => Self::Expired,
            (Some(false) | None, Some(false) | None, Some(_), _) => Self::Owned,
            (Some(false) | None, Some(false) | None, None, AdminState::Ready) => Self::Down,
            (Some(false) | None, Some(false) | None, None, AdminState::Drain | AdminState::Maint) => Self::Out(state),
        }
    }
}

/// How many servers of a report are how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) servers: usize,
    pub(super) ok: usize,
    pub(super) maint: usize,
    pub(super) drain: usize,
    /// Ready, but without traffic.
    pub(super) down: usize,
    pub(super) owned: usize,
    pub(super) expired: usize,
    pub(super) changed: usize,
    pub(super) failed: usize,
    pub(super) rolled_back: usize,
}

impl Counts {
    /// Counts the servers of a report.
    pub(super) fn of(report: &Report<'_>) -> Self {
        let mut counts = Self::default();
        for server in counted(report) {
            counts.servers += 1;
            let standing = Standing::of(&server);
            match (standing, server.after.as_ref().map(|after| after.admin_state)) {
                (Standing::Ok, _) => counts.ok += 1,
                (_, Some(AdminState::Maint)) => counts.maint += 1,
                (_, Some(AdminState::Drain)) => counts.drain += 1,
                (_, Some(AdminState::Ready) | None) => counts.down += 1,
            }
            counts.owned += usize::from(standing == Standing::Owned);
            counts.expired += usize::from(standing == Standing::Expired);
            counts.changed += usize::from(server.changed);
            counts.failed += usize::from(server.failed);
            counts.rolled_back += usize::from(server.rolled_back == Some(true));
        }
        counts
    }
}

/// Says why a server that is ready takes no traffic, if more is known than that it is down.
pub(super) fn why_not<'r>(server: &'r ServerReport<'_>) -> Option<&'r str> {
    server.not_ok.as_deref().filter(|why| *why != "down")
}

/// Returns the servers that somebody would miss: not the spare slots of a `server-template`.
pub(super) fn counted<'r, 'a>(report: &'r Report<'a>) -> impl Iterator<Item = ServerReport<'r>> + use<'r, 'a> {
    report.servers.iter().filter(|server| server.spare.is_none())
}
