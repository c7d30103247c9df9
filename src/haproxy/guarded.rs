//! What a guard needs to know besides the selected servers, read as cheaply as it can be proven.
//!
//! `show stat` of everything tells who tracks whom and who is a backup server, but takes HAProxy seven times as long as
//! `show servers state`. Mostly the same follows from less:
//!
//! - A server that tracks another one has no check of its own, and one that is tracked has a check or an agent, or
//!   tracks another one itself (`srv_apply_track()` and `_srv_parse_finalize()` in HAProxy's `src/server.c`). Rows of
//!   `show servers state` show which checks are configured.
//! - HAProxy 3.3 and later tells of one server whether it is tracked, and every version whether it tracks another one
//!   (see `tracking`).
//! - Which servers are backup servers matters only where the guard does not hold in any case
//!   ([`MinAvailable::holds_anyway`]). There a backend counts its usable servers, and those that are backup servers, in one
//!   row of `show stat`.
//!
//! What cannot be proven in this way is no guess: then everything is read.

use std::collections::{BTreeMap, BTreeSet};

use super::command::{Query, Reference, StatRows};
use super::not_understood;
use super::observe::{About, Observation, Rest, queries};
use super::open::Contact;
use super::parse::StatHeader;
use super::rows::{Keep, Matching, Unchecked, read_state};
use super::socket::{Connection, Form};
use super::statistics::{ONE_BY_ONE, StatReader, read_statistics};
use super::tracking::none_is_tracked;
use crate::model::error::Result;
use crate::model::matcher::Matcher;
use crate::model::name::Selection;
use crate::model::server::{Process, Server};
use crate::model::traffic::{Around, MinAvailable};

/// Reads the selected servers and what a guard needs of the others; `None` if something may track a selected server, or
/// too much is uncertain.
pub(super) fn observe_guarded(
    connection: &mut Connection,
    contact: &Contact,
    selection: Selection<'_>,
    named: Option<&[&str]>,
    (guard, about): (MinAvailable, About),
) -> Result<Option<Observation>> {
    let mut rows = Matching::new(selection, Keep::SelectedAndCounts);
    read_state(connection, &queries(named), &mut rows)?;
    rows.end();
    let Matching { mut servers, backends_found, mut backends, unchecked, mut around, .. } = rows;
    if !backends.shared_names().is_empty() || unchecked.is_uncertain {
        return Ok(None);
    }
    if named.is_some() {
        servers.sort_by_key(|server| server.backend_id);
    }
    let is_change = about != About::Statistics;
    let in_question = if is_change { in_question(guard, &servers, &around) } else { around.clone() };
    let unclear = match in_question.len() {
        count if count <= ONE_BY_ONE => in_question.into_keys().collect(),
        _ => unclear_backends(connection, &servers, &in_question)?,
    };
    if unclear.len() > ONE_BY_ONE {
        return Ok(None);
    }
    servers.retain(|server| !unclear.contains(&server.backend_id));
    if is_change {
        read_statistics(connection, &contact.process, &mut servers, &backends, about)?;
    }
    // Their servers are read one by one.
    let mut others = Vec::new();
    if !unclear.is_empty() {
        let by_number: Vec<Query<'_>> =
            unclear.iter().map(|id| Query::ServersState(Some(Reference::Id(*id)))).collect();
        let mut rows = Matching::new(selection, Keep::All);
        read_state(connection, &by_number, &mut rows)?;
        let mut all = rows.take_servers();
        let backends = rows.backends;
        read_statistics(connection, &contact.process, &mut all, &backends, About::Statistics)?;
        let matcher = Matcher::new(selection);
        let (selected, left): (Vec<Server>, _) = all.into_iter().partition(|server| matcher.has(server));
        others = left;
        servers.extend(selected);
        servers.sort_by_key(|server| server.backend_id);
        around.retain(|id, _| !unclear.contains(id));
    }
    let proof = Proof { process: &contact.process, servers: &servers, is_all: named.is_none() };
    if is_change && !proof.nothing_tracks(connection, unchecked)? {
        return Ok(None);
    }
    let mut served_by_others = backends.served_by_others;
    served_by_others.retain(|id| !unclear.contains(id));
    served_by_others.extend(others.iter().filter(|it| it.takes_traffic()).map(|server| server.backend_id));
    let backends = named.is_none().then_some(backends.names.len());
    let rest = Rest { others, around, served_by_others, backends, backends_found };
    Ok(Some(Observation { contact: contact.clone(), servers, rest }))
}

/// Leaves out the backends of which a change keeps enough servers, whichever of them are backup servers.
fn in_question(guard: MinAvailable, servers: &[Server], around: &BTreeMap<u32, Around>) -> BTreeMap<u32, Around> {
    let mut left = around.clone();
    for of_one in servers.chunk_by(|one, next| one.backend_id == next.backend_id) {
        let Some(backend) = of_one.first().map(|server| server.backend_id) else { continue };
        let changed = u32::try_from(of_one.len()).unwrap_or(u32::MAX);
        if around.get(&backend).is_some_and(|around| guard.holds_anyway(changed, *around)) {
            left.remove(&backend);
        }
    }
    left
}

/// Finds the backends of which it is not clear that none of their servers is a backup server.
fn unclear_backends(
    connection: &mut Connection,
    servers: &[Server],
    around: &BTreeMap<u32, Around>,
) -> Result<BTreeSet<u32>> {
    let mut left: BTreeMap<u32, (u32, bool)> =
        around.iter().map(|(id, around)| (*id, (around.active, around.unusable == 0))).collect();
    for server in servers {
        let Some((usable, are_all)) = left.get_mut(&server.backend_id) else { continue };
        if server.takes_traffic() {
            *usable += 1;
        } else {
            *are_all = false;
        }
    }
    let address = connection.address().clone();
    let mut header = None;
    let query = Query::Stat { proxy: None, server: None, rows: StatRows::Backends };
    connection.dump(&query.to_string(), Form::Rows, |line| {
        let understood = |error| not_understood(&address, &error);
        match &header {
            _ if line.is_empty() => {}
            None => header = Some(StatHeader::parse(line).map_err(understood)?),
            Some(header) => {
                let Some(counts) = header.counts(line) else { return Ok(()) };
                if left.get(&counts.backend_id) == Some(&(counts.active, true)) && counts.backup == 0 {
                    left.remove(&counts.backend_id);
                }
            }
        }
        Ok(())
    })?;
    Ok(left.into_keys().collect())
}

/// What shows that nothing tracks a selected server.
struct Proof<'a> {
    /// The process that has them.
    process: &'a Process,
    /// The selected servers, with what a change asks about them.
    servers: &'a [Server],
    /// Whether all rows were read.
    is_all: bool,
}

impl Proof<'_> {
    fn nothing_tracks(&self, connection: &mut Connection, unchecked: Unchecked) -> Result<bool> {
        let are_few = self.servers.len() <= ONE_BY_ONE;
        let trackable: Vec<&Server> = self.servers.iter().filter(|server| !is_untrackable(server, are_few)).collect();
        if trackable.is_empty() || are_few && none_is_tracked(connection, self.process, &trackable)? {
            return Ok(true);
        }
        let unchecked = if self.is_all {
            unchecked
        } else {
            let nothing = Selection { servers: &[], backends: &[], addresses: &[] };
            let mut rows = Matching::new(nothing, Keep::Nothing);
            read_state(connection, &[Query::ServersState(None)], &mut rows)?;
            rows.unchecked
        };
        match unchecked {
            Unchecked { is_uncertain: true, .. } => Ok(false),
            Unchecked { has_checked: false, .. } => Ok(true),
            Unchecked { servers, .. } if servers.is_empty() => Ok(true),
            Unchecked { servers, .. } if servers.len() > ONE_BY_ONE => Ok(false),
            Unchecked { servers, .. } => track_nothing(connection, &servers),
        }
    }
}

/// Tells whether a server certainly has neither a check nor an agent, nor tracks another one; of a few servers, those
/// without statistics track none.
fn is_untrackable(server: &Server, are_few: bool) -> bool {
    let tracks_nothing = match &server.statistics {
        Some(statistics) => statistics.tracks.is_none(),
        None => are_few || server.is_in_disabled_backend(),
    };
    (server.state.health, server.state.agent) == (None, None) && tracks_nothing
}

/// Asks whether none of a few servers tracks another one.
fn track_nothing(connection: &mut Connection, servers: &[(u32, u32)]) -> Result<bool> {
    let query = |(backend, server): &(u32, u32)| {
        Query::Stat { proxy: Some(*backend), server: Some(*server), rows: StatRows::Servers }.to_string()
    };
    let queries: Vec<String> = servers.iter().map(query).collect();
    let address = connection.address().clone();
    let mut tracking_nothing = 0;
    let mut reader = StatReader::new(&address, |row| tracking_nothing += usize::from(row.statistics.tracks.is_none()));
    connection.rows(&queries, |row| reader.line(row))?;
    Ok(tracking_nothing == servers.len())
}
