//! Reads `show stat`: what `show servers state` does not say about a server.

use std::collections::{BTreeSet, HashMap};

use super::command::{Query, StatRows};
use super::not_understood;
use super::observe::{About, Evidence};
use super::open::{open, still_serves};
use super::parse::{ParseError, StatHeader, StatRow};
use super::rows::{Backends, read_again_if_garbage};
use super::socket::{Connection, Form};
use super::tracking::which_track;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::Address;
use crate::model::server::{Process, Publication, Server, ServerNumber, Statistics};
use crate::model::state::AdminFlags;
use crate::model::text::excerpt;
use crate::time::deadline::Allowance;

/// Up to how many servers `show stat` is sent one by one; beyond that, one dump of all costs less.
pub(super) const ONE_BY_ONE: usize = 64;

/// How many rows of `show stat` cost about as much as one more command.
const ROWS_A_COMMAND: usize = 8;

/// Reads the statistics of servers that were just observed.
///
/// A plan needs few of them: those of servers in unpublished backends; of many servers those that inherit flags from the
/// one they track; of a few all, or if it is just a matter of tracking those that may track another one, which a server with
/// a check does not (see `guarded`).
pub(super) fn read_statistics(
    connection: &mut Connection,
    process: &Process,
    servers: &mut [Server],
    backends: &Backends,
    about: About,
) -> Result<()> {
    const INHERITED: u32 = AdminFlags::INHERITED_MAINT | AdminFlags::INHERITED_DRAIN;
    let is_few = servers.len() <= ONE_BY_ONE;
    let is_needed = |server: &Server| match about {
        About::State => false,
        About::Statistics => true,
        About::Links(_) | About::Plan if server.state.flags.has(INHERITED) => true,
        About::Links(_) => is_few && server.state.health.is_none(),
        About::Plan => is_few,
    };
    let asks_first = about == About::Links(Evidence::Refusals);
    let mut unpublished = BTreeSet::new();
    if process.shows_publication() && about != About::State {
        let matters = |server: &&Server| match about {
            // A backend that others serve is not left without a usable server.
            About::Links(_) => !backends.served_by_others.contains(&server.backend_id),
            About::State | About::Plan | About::Statistics => true,
        };
        // With the statistics of the others comes whether their backend is published.
        let may_be_left_out = |server: &&Server| !is_needed(server) || asks_first;
        unpublished = unpublished_among(connection, servers.iter().filter(may_be_left_out).filter(matters))?;
    }
    let is_asked = |server: &Server| is_needed(server) || unpublished.contains(&server.backend_id);
    let mut asked: Vec<&mut Server> =
        servers.iter_mut().filter(|server| is_asked(server) && !server.is_in_disabled_backend()).collect();
    if asks_first && asked.len() <= ONE_BY_ONE {
        leave_out_what_tracks_nothing(connection, &mut asked, &unpublished)?;
    }
    if asked.is_empty() {
        return Ok(());
    }
    asked.sort_by_key(|server| (server.backend_id, server.server_id));
    let address = connection.address().clone();
    let rows = rows_of(process);
    let queries: Vec<String> = queries_for(&asked, &backends.sizes, rows).iter().map(Query::to_string).collect();
    read_again_if_garbage(|| {
        let mut next = 0;
        let mut reader = StatReader::new(&address, |row: StatRow<'_>| {
            if row.is_of_unpublished_backend() {
                unpublished.insert(row.backend_id);
            }
            let key = (row.backend_id, row.server_id);
            let key_of = |server: &&mut Server| (server.backend_id, server.server_id);
            // HAProxy mostly has them in the order of their numbers, so the server is nearly always the next one.
            let is_next = asked.get(next).is_some_and(|server| key_of(server) == key);
            let found = if is_next { Some(next) } else { asked.binary_search_by_key(&key, key_of).ok() };
            let Some(place) = found else { return };
            next = place + 1;
            if let Some(server) = asked.get_mut(place).filter(|server| is_of(server, &row)) {
                server.statistics = Some(Box::new(row.statistics));
            }
        });
        connection.dumps(&queries, Form::Rows, |_, row| reader.line(row))?;
        reader.end(queries.len())
    })?;
    for server in asked.iter_mut().filter(|server| unpublished.contains(&server.backend_id)) {
        server.statistics.iter_mut().for_each(|statistics| statistics.publication = Publication::Unpublished);
    }
    Ok(())
}

/// Reads the statistics of servers over a new connection; a server that is gone has none.
///
/// # Errors
/// When HAProxy does not answer in time, or gives an unexpected answer.
pub(super) fn poll(
    address: &Address,
    servers: &[&Server],
    step: Allowance,
) -> Result<(Process, Vec<Option<Statistics>>)> {
    let (mut connection, process) = open(address, step)?;
    let rows = rows_of(&process);
    let mut found = HashMap::with_capacity(servers.len());
    let mut unpublished = BTreeSet::new();
    let asked: HashMap<(u32, u32), &Server> =
        servers.iter().map(|server| ((server.backend_id, server.server_id), *server)).collect();
    for window in servers.chunks(ONE_BY_ONE) {
        let queries: Vec<String> = window.iter().map(|server| query_of(server, rows).to_string()).collect();
        read_again_if_garbage(|| {
            let mut reader = StatReader::new(address, |row: StatRow<'_>| {
                if row.is_of_unpublished_backend() {
                    unpublished.insert(row.backend_id);
                }
                let key = (row.backend_id, row.server_id);
                // HAProxy gives the number of a deleted server to the next one, which is another server.
                if asked.get(&key).is_some_and(|server| is_of(server, &row)) {
                    found.insert(key, row.statistics);
                }
            });
            connection.rows(&queries, |row| reader.line(row))?;
            reader.end(queries.len())
        })?;
    }
    for ((backend, _), statistics) in &mut found {
        if unpublished.contains(backend) {
            statistics.publication = Publication::Unpublished;
        }
    }
    let found: Vec<_> = servers.iter().map(|server| found.remove(&(server.backend_id, server.server_id))).collect();
    // Up to 2.4 a process lists no servers once it has begun to stop, be it after it was asked what it is.
    if found.contains(&None) && !still_serves(&mut connection)? {
        let msg = format!("the HAProxy at {address} was replaced while its servers were polled");
        return Err(Error::new(ErrorKind::Unreachable, msg));
    }
    Ok((process, found))
}

/// Finds which backends of servers are unpublished.
fn unpublished_among<'s>(
    connection: &mut Connection,
    servers: impl Iterator<Item = &'s Server>,
) -> Result<BTreeSet<u32>> {
    let known = servers.filter(|server| !server.is_in_disabled_backend());
    let backends: BTreeSet<u32> = known.map(|server| server.backend_id).collect();
    let query = |proxy| Query::Stat { proxy, server: None, rows: StatRows::Backends }.to_string();
    let queries: Vec<String> = match backends.len() {
        0 => return Ok(BTreeSet::new()),
        1..=ONE_BY_ONE => backends.iter().map(|id| query(Some(*id))).collect(),
        _ => vec![query(None)],
    };
    let address = connection.address().clone();
    let mut found = BTreeSet::new();
    read_again_if_garbage(|| {
        let mut reader = StatReader::new(&address, |row: StatRow<'_>| {
            if row.is_of_unpublished_backend() {
                found.insert(row.backend_id);
            }
        });
        connection.dumps(&queries, Form::Rows, |_, row| reader.line(row))?;
        reader.end(queries.len())
    })?;
    Ok(found)
}

/// Leaves out servers that certainly track no other, unless their backend is unpublished.
fn leave_out_what_tracks_nothing(
    connection: &mut Connection,
    servers: &mut Vec<&mut Server>,
    unpublished: &BTreeSet<u32>,
) -> Result<()> {
    let tracks = which_track(connection, &servers.iter().map(|server| &**server).collect::<Vec<_>>())?;
    let mut tracks = tracks.into_iter();
    servers.retain(|server| tracks.next().flatten() != Some(false) || unpublished.contains(&server.backend_id));
    Ok(())
}

/// Chooses what to ask for the statistics of servers, which are in the order of their backends.
///
/// HAProxy goes through all proxies for each command, so that a backend is asked for once where most of its rows are
/// needed.
fn queries_for(asked: &[&mut Server], sizes: &HashMap<u32, usize>, rows: StatRows) -> Vec<Query<'static>> {
    let mut queries = Vec::new();
    for servers in asked.chunk_by(|one, next| one.backend_id == next.backend_id) {
        let size = servers.first().and_then(|server| sizes.get(&server.backend_id));
        match (servers, size) {
            ([first, _, ..], Some(size)) if *size <= servers.len() * ROWS_A_COMMAND => {
                queries.push(Query::Stat { proxy: Some(first.backend_id), server: None, rows });
            }
            (_, _) => queries.extend(servers.iter().map(|server| query_of(server, rows))),
        }
        if queries.len() > ONE_BY_ONE {
            return vec![Query::Stat { proxy: None, server: None, rows }];
        }
    }
    queries
}

/// Returns which rows a process has to be asked for.
fn rows_of(process: &Process) -> StatRows {
    if process.shows_publication() { StatRows::ServersAndBackends } else { StatRows::Servers }
}

fn query_of(server: &Server, rows: StatRows) -> Query<'static> {
    Query::Stat { proxy: Some(server.backend_id), server: Some(server.server_id), rows }
}

/// Tells whether a row is about a server: by its names, since numbers are reused, and by its revision, since names are
/// too.
fn is_of(server: &Server, row: &StatRow<'_>) -> bool {
    let number = ServerNumber { id: row.server_id, revision: row.statistics.revision };
    *server.server == *row.server && *server.backend == *row.backend && server.number().may_be(number)
}

/// Reads one or more replies of `show stat`, row by row.
pub(super) struct StatReader<'a, R> {
    address: &'a Address,
    header: Option<StatHeader>,
    on_row: R,
    /// How many replies have begun as they should.
    replies: usize,
    /// What is wrong with the first row that was not understood.
    pub(super) garbage: Option<Error>,
}

impl<'a, R: FnMut(StatRow<'_>)> StatReader<'a, R> {
    pub(super) fn new(address: &'a Address, on_row: R) -> Self {
        Self { address, header: None, on_row, replies: 0, garbage: None }
    }

    pub(super) fn line(&mut self, line: &[u8]) -> Result<()> {
        let understood = |error: ParseError| not_understood(self.address, &error);
        match &self.header {
            _ if line.is_empty() => Ok(()),
            _ if line.starts_with(b"# ") => {
                self.header = Some(StatHeader::parse(line).map_err(understood)?);
                self.replies += 1;
                Ok(())
            }
            // The proxy was deleted after it was observed.
            _ if line == b"No such proxy." => {
                self.replies += 1;
                Ok(())
            }
            Some(header) => {
                match header.row(line).map_err(understood) {
                    Ok(row) => (self.on_row)(row),
                    Err(error) => self.garbage = self.garbage.take().or(Some(error)),
                }
                Ok(())
            }
            None => Err(Error::new(
                ErrorKind::BadReply,
                format!("the HAProxy at {} answered 'show stat' with '{}'", self.address, excerpt(line, 200)),
            )),
        }
    }
    /// Ends the replies to so many commands; returns what is wrong with the first row that was not understood.
    ///
    /// A server without a row is gone, which a reply without anything does not say.
    pub(super) fn end(self, commands: usize) -> Result<Option<Error>> {
        if self.replies < commands {
            let msg =
                format!("the HAProxy at {} answered 'show stat' without the line that names the columns", self.address);
            return Err(Error::new(ErrorKind::BadReply, msg));
        }
        Ok(self.garbage)
    }
}
