//! Reads the rows of `show servers state` into servers; only selected ones are kept.

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::command::Query;
use super::not_understood;
use super::observe::Detail;
use super::parse::{AnyRow, LastBackend, OtherRow, ParseError, StateHeader, StateRow, state_version};
use super::socket::{Connection, Form};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::goal::Switch;
use crate::model::name::{Address, Selection};
use crate::model::server::{Server, ServerState, Uniqueness};
use crate::model::text::printable;

/// The flags of a check that is configured, and of one that is enabled (`CHK_ST_CONFIGURED` and `CHK_ST_ENABLED` in
/// HAProxy's `include/haproxy/check-t.h`).
const CHECK_CONFIGURED: u32 = 2;
const CHECK_ENABLED: u32 = 4;

/// Reads whether a check runs; `None` if it is not configured.
fn switch(check: u32) -> Option<Switch> {
    match (check & CHECK_CONFIGURED != 0, check & CHECK_ENABLED != 0) {
        (false, _) => None,
        (true, true) => Some(Switch::Enabled),
        (true, false) => Some(Switch::Disabled),
    }
}

/// Writes whether a check runs into a value that was read.
pub(super) fn with_switch(check: u32, switch: Option<Switch>) -> u32 {
    match switch {
        Some(Switch::Enabled) => check | CHECK_ENABLED,
        Some(Switch::Disabled) => check & !CHECK_ENABLED,
        None => check,
    }
}

/// Makes a server from a row; text that is the same as in the previous one is shared.
fn server_of(row: &StateRow<'_>, before: Option<&Server>) -> Server {
    let share = |parts: &[&str], before: Option<&Arc<str>>| {
        let is_same = |text: &Arc<str>| {
            let rest = parts.iter().try_fold(&**text, |rest, part| rest.strip_prefix(part));
            rest.is_some_and(str::is_empty)
        };
        let anew = || {
            let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
            parts.iter().for_each(|part| text.push_str(part));
            Arc::from(printable(&text))
        };
        before.filter(|text| is_same(text)).map_or_else(anew, Arc::clone)
    };
    Server {
        backend: share(&[row.backend], before.map(|it| &it.backend)),
        backend_name: Uniqueness::Unique,
        server: share(&[row.server], before.map(|it| &it.server)),
        backend_id: row.backend_id,
        server_id: row.server_id,
        address: share(&address(row), before.map(|it| &it.address)),
        has_address: row.address != "-",
        state: ServerState {
            flags: row.flags,
            operational: row.operational,
            weight: row.weight,
            health: switch(row.check),
            agent: switch(row.agent),
        },
        configured_weight: row.initial_weight,
        statistics: None,
    }
}

/// Tells whether a row is about a server.
fn is_of(server: &Server, row: &StateRow<'_>) -> bool {
    *server.server == *printable(row.server)
        && *server.backend == *printable(row.backend)
        && (server.backend_id == row.backend_id || server.backend_name == Uniqueness::Unique)
}

/// Tells whether the row is not a server at all: with `-S`, HAProxy 2.2 lists the proxy through which its master
/// reaches its workers (`mworker_cli_proxy_create()` in its `src/cli.c`).
fn is_of_master_cli(row: &StateRow<'_>) -> bool {
    row.backend == "MASTER"
        && (row.server.starts_with("cur-") || row.server.starts_with("old-"))
        && (row.address, row.fqdn, row.port) == ("-", "-", "0")
        && row.initial_weight == 0
}

/// Writes address and port as HAProxy does; an unresolved name stands for its address.
fn address<'a>(row: &StateRow<'a>) -> [&'a str; 4] {
    let host = match (row.address, row.fqdn) {
        ("-", "-") => return ["-", "", "", ""],
        ("-", name) => name,
        (address, _) => address,
    };
    if host.contains(':') { ["[", host, "]:", row.port] } else { [host, ":", row.port, ""] }
}

/// What is kept of the rows of `show servers state`.
pub(super) trait Rows {
    /// Tells whether a server's row is selected, by the number and the name of its backend, its own name, and the rest of
    /// the row.
    fn wants(&mut self, backend_id: u32, backend: &[u8], server: &[u8], row: &OtherRow<'_>) -> bool;

    /// Takes a selected row.
    fn take(&mut self, row: &StateRow<'_>);

    /// Skips a row that is not selected.
    fn pass(&mut self, _: &OtherRow<'_>) {}

    /// Prepares to be told all rows, perhaps once more.
    fn begin(&mut self) {}

    /// Tells whether there was not enough memory for the selected rows.
    fn is_out_of_memory(&self) -> bool {
        false
    }
}

/// What must be free before a dump begins, in bytes: to run out of memory in the middle would end this program, and with it
/// a HAProxy 3.2.26.
const RESERVE: usize = 8 << 20;

/// What a server may need until it is in the report, in bytes.
const FOR_A_SERVER: usize = 1 << 10;

/// Tells whether so many bytes could be had now.
fn could_have(bytes: usize) -> bool {
    Vec::<u8>::new().try_reserve_exact(bytes).is_ok()
}

/// Keeps the selected servers.
pub(super) struct Matching<'a> {
    selection: Selection<'a>,
    detail: Detail,
    pub(super) servers: Vec<Server>,
    pub(super) backends_found: Vec<bool>,
    pub(super) backends: Backends,
    is_out_of_memory: bool,
}

impl<'a> Matching<'a> {
    pub(super) fn new(selection: Selection<'a>, detail: Detail) -> Self {
        let backends_found = vec![false; selection.backends.len()];
        let backends = Backends::default();
        Self { selection, detail, servers: Vec::new(), backends_found, backends, is_out_of_memory: false }
    }

    /// Makes room for one more server; gives up all of them if there is not enough memory, so that the rest of the dump can
    /// be read.
    fn make_room(&mut self) {
        if self.servers.len() < self.servers.capacity() {
            return;
        }
        let more = self.servers.len().max(256);
        if self.servers.try_reserve_exact(more).is_err() || !could_have(more.saturating_mul(FOR_A_SERVER)) {
            self.is_out_of_memory = true;
            self.servers = Vec::new();
        }
    }
}

impl Rows for Matching<'_> {
    fn wants(&mut self, backend_id: u32, backend: &[u8], server: &[u8], row: &OtherRow<'_>) -> bool {
        if self.backends.last != Some(backend_id) {
            self.backends.begin(backend_id, backend);
            for (pattern, found) in self.selection.backends.iter().zip(&mut self.backends_found) {
                *found |= pattern.matches(backend);
            }
        }
        self.detail == Detail::Everything || self.selection.matches(backend, server, || row.address())
    }

    fn take(&mut self, row: &StateRow<'_>) {
        self.backends.has_wanted = true;
        self.make_room();
        if !self.is_out_of_memory {
            self.servers.push(server_of(row, self.servers.last()));
        }
    }

    fn pass(&mut self, row: &OtherRow<'_>) {
        // One is enough, so most rows are not examined.
        self.backends.has_other = self.backends.has_other || row.takes_traffic();
    }

    fn begin(&mut self) {
        *self = Self::new(self.selection, self.detail);
    }

    fn is_out_of_memory(&self) -> bool {
        self.is_out_of_memory
    }
}

/// Keeps the servers that were observed before, each in its place.
pub(super) struct ReadBack<'a> {
    selection: Selection<'a>,
    /// Backend and name of each, where they were selected by address, which may be another one now.
    names: Option<HashSet<(&'a str, &'a str)>>,
    before: &'a [&'a Server],
    next: usize,
    pub(super) after: Vec<Option<Server>>,
}

impl<'a> ReadBack<'a> {
    pub(super) fn new(selection: Selection<'a>, before: &'a [&'a Server]) -> Self {
        let names = || before.iter().map(|server| (&*server.backend, &*server.server)).collect();
        let names = (!selection.addresses.is_empty()).then(names);
        Self { selection, names, before, next: 0, after: vec![None; before.len()] }
    }
}

impl Rows for ReadBack<'_> {
    fn wants(&mut self, _: u32, backend: &[u8], server: &[u8], row: &OtherRow<'_>) -> bool {
        let Some(names) = &self.names else { return self.selection.matches(backend, server, || row.address()) };
        let text = |name| std::str::from_utf8(name).map(printable).unwrap_or_default();
        names.contains(&(&*text(backend), &*text(server)))
    }

    fn take(&mut self, row: &StateRow<'_>) {
        // Both are in HAProxy's order, so the server is nearly always the next one.
        let is_here = |place: &usize| self.before.get(*place).is_some_and(|server| is_of(server, row));
        let Some(place) = (self.next..self.before.len()).chain(0..self.next).find(is_here) else { return };
        self.next = place + 1;
        if let (Some(slot), before) = (self.after.get_mut(place), self.before.get(place).copied()) {
            *slot = Some(server_of(row, before));
        }
    }
}

/// Which backends a dump has, to find two with the same name: such a name is ambiguous.
#[derive(Default)]
pub(super) struct Backends {
    last: Option<u32>,
    /// The hash of each name.
    pub(super) names: Vec<u64>,
    has_wanted: bool,
    has_other: bool,
    pub(super) served_by_others: BTreeSet<u32>,
}

impl Backends {
    fn begin(&mut self, id: u32, name: &[u8]) {
        self.end();
        self.last = Some(id);
        self.names.push(hash(name));
    }

    /// Notes whether the backend that has ended has a selected server and another one that takes traffic.
    pub(super) fn end(&mut self) {
        let has_both = std::mem::take(&mut self.has_wanted) & std::mem::take(&mut self.has_other);
        self.served_by_others.extend(self.last.filter(|_| has_both));
    }

    /// Names that several of them share.
    pub(super) fn shared_names(&self) -> Vec<u64> {
        let mut names = self.names.clone();
        names.sort_unstable();
        names
            .windows(2)
            .filter_map(|pair| matches!(pair, [one, other] if one == other).then(|| pair.first().copied())?)
            .collect()
    }
}

pub(super) fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Reads rows, and once more where one of them is not understood; `read` returns what is wrong with the first such row.
///
/// A server that is deleted while HAProxy 3.4.0 or older writes its row leaves garbage there, which is gone the next time.
pub(super) fn read_again_if_garbage(mut read: impl FnMut() -> Result<Option<Error>>) -> Result<()> {
    match read()? {
        None => Ok(()),
        Some(_) => read()?.map_or(Ok(()), Err),
    }
}

/// Reads `show servers state`, line by line.
pub(super) fn read_state(connection: &mut Connection, query: &Query, rows: &mut impl Rows) -> Result<()> {
    read_again_if_garbage(|| {
        rows.begin();
        read_once(connection, query, rows)
    })
}

/// Reads one reply; returns what is wrong with the first row that is not understood.
fn read_once(connection: &mut Connection, query: &Query, rows: &mut impl Rows) -> Result<Option<Error>> {
    let mut garbage = None;
    let mut header: Option<StateHeader> = None;
    let mut backend = LastBackend::default();
    let mut line_number = 0usize;
    let mut is_missing = false;
    let address = connection.address().clone();
    if !could_have(RESERVE) {
        return Err(out_of_memory(&address));
    }
    connection.dump(&query.to_string(), Form::Lines, |line| {
        line_number += 1;
        let understood = |error: ParseError| not_understood(&address, &error);
        match (line_number, &header) {
            (1, _) if line.ends_with(b"Can't find backend.") => is_missing = true,
            _ if is_missing => {}
            (1, _) => state_version(line).map_err(understood)?,
            (_, None) => header = Some(StateHeader::parse(line).map_err(understood)?),
            // An empty line ends the dump; a line that starts with '#' is a comment.
            (_, Some(_)) if line.is_empty() || line.starts_with(b"#") => {}
            (_, Some(_)) if garbage.is_some() => {}
            (_, Some(header)) => {
                let wanted =
                    |id, backend: &[u8], server: &[u8], row: &OtherRow<'_>| rows.wants(id, backend, server, row);
                match header.row(line, &mut backend, wanted) {
                    Ok(AnyRow::Wanted(row)) if is_of_master_cli(&row) => {}
                    Ok(AnyRow::Wanted(row)) => rows.take(&row),
                    Ok(AnyRow::Other(row)) => rows.pass(&row),
                    Err(error) => garbage = Some(understood(error)),
                }
            }
        }
        Ok(())
    })?;
    if rows.is_out_of_memory() {
        return Err(out_of_memory(&address));
    }
    if !is_missing && header.is_none() {
        return Err(Error::new(
            ErrorKind::BadReply,
            format!("the HAProxy at {address} answered '{query}' without the line that names the columns"),
        ));
    }
    Ok(garbage)
}

fn out_of_memory(address: &Address) -> Error {
    let msg = format!(
        "there is not enough memory for the servers of the HAProxy at {address}; allow this program more, or select fewer servers"
    );
    Error::new(ErrorKind::Resources, msg)
}
