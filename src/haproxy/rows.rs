//! Reads the rows of `show servers state` into servers; only selected ones are kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::command::Query;
use super::not_understood;
use super::observe::Sought;
use super::parse::{AnyRow, Glance, OtherRow, ParseError, StateHeader, StateRow, state_version};
use super::socket::{Connection, Form};
use super::statistics::ONE_BY_ONE;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::goal::Switch;
use crate::model::matcher::Matcher;
use crate::model::memory::{FOR_A_SERVER, Meter, RESERVE, could_have, out_of_memory};
use crate::model::name::Selection;
use crate::model::server::{Server, ServerState, Uniqueness};
use crate::model::state::AdminFlags;
use crate::model::text::printable;
use crate::model::traffic::Around;

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

/// Which servers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// None: only what their checks tell.
    Nothing,
    /// The selected ones.
    Selected,
    /// The selected ones, and how many others their backends have.
    SelectedAndCounts,
    /// All.
    All,
}

/// What the checks of all servers tell about who may track whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unchecked {
    /// Whether any server may be tracked without tracking another one: it has a check or an agent, or is in a backend
    /// that is `disabled`, where none of that is shown.
    pub(super) has_checked: bool,
    /// Servers without a check, which may track others; no more than are looked at one by one, and one.
    pub(super) servers: Vec<(u32, u32)>,
    /// Whether a row was not understood.
    pub(super) is_uncertain: bool,
}

impl Unchecked {
    fn note(&mut self, backend_id: u32, server_id: u32, check: u32, agent: u32) {
        self.has_checked |= server_id == 0 || (check | agent) & CHECK_CONFIGURED != 0;
        if server_id > 0 && check & CHECK_CONFIGURED == 0 && self.servers.len() <= ONE_BY_ONE {
            self.servers.push((backend_id, server_id));
        }
    }
}

/// Keeps the selected servers.
pub(super) struct Matching<'a> {
    selection: Selection<'a>,
    matcher: Matcher<'a>,
    keep: Keep,
    pub(super) servers: Vec<Server>,
    pub(super) backends_found: Vec<bool>,
    pub(super) backends: Backends,
    is_out_of_memory: bool,
    pub(super) unchecked: Unchecked,
    /// The other servers of the last backend.
    counted: Around,
    /// The other servers of each backend with a selected one, if they are counted.
    pub(super) around: BTreeMap<u32, Around>,
    /// Of the names of backends.
    meter: Meter,
}

impl<'a> Matching<'a> {
    pub(super) fn new(selection: Selection<'a>, keep: Keep) -> Self {
        let backends_found = vec![false; selection.backends.len()];
        Self {
            selection,
            matcher: Matcher::new(selection),
            keep,
            servers: Vec::new(),
            backends_found,
            backends: Backends::default(),
            unchecked: Unchecked::default(),
            counted: Around::default(),
            around: BTreeMap::new(),
            meter: Meter::default(),
            is_out_of_memory: false,
        }
    }

    /// Makes room for one more server; gives up all of them if there is not enough memory for what is to be done with them,
    /// so that the rest of the dump can be read.
    fn make_room(&mut self) {
        if self.servers.len() < self.servers.capacity() {
            return;
        }
        let more = self.servers.len().max(256);
        let all = self.servers.len().saturating_add(more);
        if self.servers.try_reserve_exact(more).is_err() || !could_have(all.saturating_mul(FOR_A_SERVER)) {
            self.is_out_of_memory = true;
            self.servers = Vec::new();
        }
    }

    /// Ends the last backend.
    pub(super) fn end(&mut self) {
        let counted = std::mem::take(&mut self.counted);
        if self.keep == Keep::SelectedAndCounts && self.backends.has_wanted {
            self.around.extend(self.backends.last.map(|last| (last, counted)));
            self.backends.has_other |= counted.active > 0;
        }
        self.backends.end();
    }

    /// Ends the last backend and returns the servers that were kept; those in backends that share a name say so.
    pub(super) fn take_servers(&mut self) -> Vec<Server> {
        self.end();
        let mut servers = std::mem::take(&mut self.servers);
        let shared = self.backends.shared_names();
        if !shared.is_empty() {
            for server in servers.iter_mut().filter(|server| shared.contains(&hash(server.backend.as_bytes()))) {
                server.backend_name = Uniqueness::Shared;
            }
        }
        servers
    }

    /// Counts a server that is not selected, in a backend that is not `disabled`.
    fn count(&mut self, glance: &Glance) {
        self.unchecked.note(glance.backend_id, glance.server_id, glance.check, glance.agent);
        let is_spare = !glance.has_address && glance.flags == AdminFlags(AdminFlags::DNS_MAINT);
        match (glance.server_id, glance.takes_traffic) {
            (0, _) => {}
            (_, true) => self.counted.active += 1,
            (_, false) if is_spare || glance.flags.has(AdminFlags::CONFIG_MAINT) => {}
            (_, false) => self.counted.unusable += 1,
        }
    }
}

impl Rows for Matching<'_> {
    fn wants(&mut self, backend_id: u32, backend: &[u8], server: &[u8], row: &OtherRow<'_>) -> bool {
        if self.backends.last != Some(backend_id) {
            self.end();
            self.backends.begin(backend_id, backend);
            self.is_out_of_memory |= !self.meter.has_room_after(size_of::<u64>());
            self.matcher.mark_backends(backend, &mut self.backends_found);
        }
        self.backends.size += 1;
        match self.keep {
            Keep::Nothing => false,
            Keep::Selected | Keep::SelectedAndCounts => self.matcher.matches(backend, server, || row.address()),
            Keep::All => true,
        }
    }

    fn take(&mut self, row: &StateRow<'_>) {
        self.backends.has_wanted = true;
        self.make_room();
        if !self.is_out_of_memory {
            self.servers.push(server_of(row, self.servers.last()));
        }
        if self.keep == Keep::SelectedAndCounts {
            self.unchecked.note(row.backend_id, row.server_id, row.check, row.agent);
        }
    }

    fn pass(&mut self, row: &OtherRow<'_>) {
        match self.keep {
            // One is enough, so most rows are not examined.
            Keep::Selected | Keep::All => self.backends.has_other = self.backends.has_other || row.takes_traffic(),
            Keep::Nothing | Keep::SelectedAndCounts => match row.glance() {
                Some(glance) => self.count(&glance),
                None => self.unchecked.is_uncertain = true,
            },
        }
    }

    fn begin(&mut self) {
        *self = Self::new(self.selection, self.keep);
    }

    fn is_out_of_memory(&self) -> bool {
        self.is_out_of_memory
    }
}

/// Keeps the names of all servers, or of their backends.
pub(super) struct Names {
    sought: Sought,
    pub(super) found: BTreeSet<String>,
    meter: Meter,
    is_out_of_memory: bool,
}

impl Names {
    pub(super) fn new(sought: Sought) -> Self {
        Self { sought, found: BTreeSet::new(), meter: Meter::default(), is_out_of_memory: false }
    }
}

impl Rows for Names {
    fn wants(&mut self, _: u32, backend: &[u8], server: &[u8], _: &OtherRow<'_>) -> bool {
        let name = String::from_utf8_lossy(match self.sought {
            Sought::Backends | Sought::BackendsWithServers => backend,
            Sought::Servers => server,
        });
        let name = printable(&name);
        // Most rows have a name of an earlier one.
        if !self.is_out_of_memory && !self.found.contains(&*name) {
            self.is_out_of_memory = !self.meter.has_room_after(name.len());
            self.found.insert(name.into_owned());
        }
        false
    }

    fn take(&mut self, _: &StateRow<'_>) {}

    fn is_out_of_memory(&self) -> bool {
        self.is_out_of_memory
    }
}

/// Keeps the servers that were observed before, each in its place.
pub(super) struct ReadBack<'a> {
    matcher: Matcher<'a>,
    /// Backend and name of each, where they were selected by address, which may be another one now.
    names: Option<HashSet<(&'a str, &'a str)>>,
    before: &'a [&'a Server],
    next: usize,
    /// The places of each server by name, once the order has changed.
    places: Option<HashMap<(&'a str, &'a str), Vec<usize>>>,
    pub(super) after: Vec<Option<Server>>,
}

impl<'a> ReadBack<'a> {
    pub(super) fn new(selection: Selection<'a>, before: &'a [&'a Server]) -> Self {
        let names = || before.iter().map(|server| (&*server.backend, &*server.server)).collect();
        let names = (!selection.addresses.is_empty()).then(names);
        Self { matcher: Matcher::new(selection), names, before, next: 0, places: None, after: vec![None; before.len()] }
    }

    /// Finds the place of a server that is not the next one.
    fn find(&mut self, row: &StateRow<'_>) -> Option<usize> {
        let before = self.before;
        let places = self.places.get_or_insert_with(|| {
            let mut places: HashMap<_, Vec<usize>> = HashMap::with_capacity(before.len());
            for (place, server) in before.iter().enumerate() {
                places.entry((&*server.backend, &*server.server)).or_default().push(place);
            }
            places
        });
        let (backend, server) = (printable(row.backend), printable(row.server));
        let mut places = places.get(&(&*backend, &*server))?.iter().copied();
        places.find(|place| before.get(*place).is_some_and(|server| is_of(server, row)))
    }
}

impl Rows for ReadBack<'_> {
    fn wants(&mut self, _: u32, backend: &[u8], server: &[u8], row: &OtherRow<'_>) -> bool {
        let Some(names) = &self.names else { return self.matcher.matches(backend, server, || row.address()) };
        let text = |name| std::str::from_utf8(name).map(printable).unwrap_or_default();
        names.contains(&(&*text(backend), &*text(server)))
    }

    fn take(&mut self, row: &StateRow<'_>) {
        // Both are in HAProxy's order, so the server is nearly always the next one.
        let is_next = self.before.get(self.next).is_some_and(|server| is_of(server, row));
        let place = if is_next { Some(self.next) } else { self.find(row) };
        let Some(place) = place else { return };
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
    /// How many servers the last one has.
    size: usize,
    pub(super) served_by_others: BTreeSet<u32>,
    /// How many servers each of the first backends with a selected one has.
    pub(super) sizes: HashMap<u32, usize>,
}

/// How many backends are counted: more are not asked for one by one.
const MOST_SIZES: usize = 64;

impl Backends {
    fn begin(&mut self, id: u32, name: &[u8]) {
        self.end();
        self.last = Some(id);
        self.names.push(hash(name));
    }

    /// Notes whether the backend that has ended has a selected server and another one that takes traffic.
    pub(super) fn end(&mut self) {
        let size = std::mem::take(&mut self.size);
        if self.has_wanted && self.sizes.len() < MOST_SIZES {
            self.sizes.extend(self.last.map(|last| (last, size)));
        }
        let has_both = std::mem::take(&mut self.has_wanted) & std::mem::take(&mut self.has_other);
        self.served_by_others.extend(self.last.filter(|_| has_both));
    }

    /// Names that several of them share.
    pub(super) fn shared_names(&mut self) -> BTreeSet<u64> {
        self.names.sort_unstable();
        let pairs = self.names.windows(2);
        pairs.filter_map(|pair| matches!(pair, [one, other] if one == other).then(|| pair.first().copied())?).collect()
    }
}

fn hash(name: &[u8]) -> u64 {
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

/// Reads replies of `show servers state`, line by line.
pub(super) fn read_state(connection: &mut Connection, queries: &[Query<'_>], rows: &mut impl Rows) -> Result<()> {
    let commands: Vec<String> = queries.iter().map(Query::to_string).collect();
    read_again_if_garbage(|| {
        rows.begin();
        read_once(connection, &commands, rows)
    })
}

/// Reads the replies once; returns what is wrong with the first row that is not understood.
fn read_once(connection: &mut Connection, commands: &[String], rows: &mut impl Rows) -> Result<Option<Error>> {
    let address = connection.address().clone();
    if !could_have(RESERVE) {
        return Err(out_of_memory(&address));
    }
    let mut garbage = None;
    let mut reply = Reply::default();
    let mut are_known = vec![false; commands.len()];
    let mut at = 0;
    connection.dumps(commands, Form::Lines, |place, line| {
        if place != at {
            (at, reply) = (place, Reply::default());
        }
        let result = reply.line(line, rows, &mut garbage).map_err(|error| not_understood(&address, &error));
        if let Some(is_known) = are_known.get_mut(place) {
            *is_known = reply.is_missing || reply.header.is_some();
        }
        result
    })?;
    if rows.is_out_of_memory() {
        return Err(out_of_memory(&address));
    }
    if let Some((command, _)) = commands.iter().zip(&are_known).find(|(_, is_known)| !**is_known) {
        return Err(Error::new(
            ErrorKind::BadReply,
            format!("the HAProxy at {address} answered '{command}' without the line that names the columns"),
        ));
    }
    Ok(garbage.map(|error| not_understood(&address, &error)))
}

/// A reply of `show servers state` while it is read.
#[derive(Default)]
struct Reply {
    lines: usize,
    header: Option<StateHeader>,
    /// Whether HAProxy has said that it does not have the backend.
    is_missing: bool,
}

impl Reply {
    fn line(
        &mut self,
        line: &[u8],
        rows: &mut impl Rows,
        garbage: &mut Option<ParseError>,
    ) -> std::result::Result<(), ParseError> {
        self.lines += 1;
        match (self.lines, &self.header) {
            (1, _) if line.ends_with(b"Can't find backend.") => self.is_missing = true,
            _ if self.is_missing => {}
            (1, _) => state_version(line)?,
            (_, None) => self.header = Some(StateHeader::parse(line)?),
            // An empty line ends the dump; a line that starts with '#' is a comment.
            (_, Some(_)) if line.is_empty() || line.starts_with(b"#") => {}
            (_, Some(_)) if garbage.is_some() => {}
            (_, Some(header)) => {
                let wanted =
                    |id, backend: &[u8], server: &[u8], row: &OtherRow<'_>| rows.wants(id, backend, server, row);
                match header.row(line, wanted) {
                    Ok(AnyRow::Wanted(row)) if is_of_master_cli(&row) => {}
                    Ok(AnyRow::Wanted(row)) => rows.take(&row),
                    Ok(AnyRow::Other(row)) => rows.pass(&row),
                    Err(error) => *garbage = Some(error),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than can be compared with one another here.
    const MANY: u32 = 20_000;

    const NOTHING: Selection<'static> = Selection { servers: &[], backends: &[], addresses: &[] };

    const HEADER: &str = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
        srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
        srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord";

    /// Reads a reply that has these rows: the number of a backend, its name, and the name of a server.
    fn read(rows: &mut impl Rows, lines: impl Iterator<Item = (u32, String, String)>) {
        let mut reply = Reply::default();
        let mut garbage = None;
        reply.line(b"1", rows, &mut garbage).unwrap();
        reply.line(HEADER.as_bytes(), rows, &mut garbage).unwrap();
        for (id, backend, server) in lines {
            let line = format!("{id} {backend} 1 {server} 127.0.0.1 2 0 1 1 25 1 0 2 6 0 0 0 - 80 -");
            reply.line(line.as_bytes(), rows, &mut garbage).unwrap();
        }
        assert_eq!(garbage, None);
    }

    #[test]
    fn servers_are_found_in_any_order() {
        let row = |number: u32| (number + 2, format!("b{number}"), "s".to_owned());
        let mut first = Matching::new(NOTHING, Keep::Selected);
        read(&mut first, (0..MANY).map(row));
        let servers = first.take_servers();
        let before: Vec<&Server> = servers.iter().collect();
        let mut again = ReadBack::new(NOTHING, &before);
        read(&mut again, (1..MANY).rev().map(row));
        assert!(again.after.iter().skip(1).zip(servers.iter().skip(1)).all(|(one, other)| one.as_ref() == Some(other)));
        assert_eq!(again.after.first(), Some(&None), "it is gone");
    }

    #[test]
    fn names_that_are_repeated_without_end_are_shared() {
        let mut rows = Matching::new(NOTHING, Keep::Selected);
        let name = |number: u32| if number == 0 { "alone".to_owned() } else { format!("b{}", number % (MANY / 2)) };
        read(&mut rows, (0..MANY).map(|number| (number + 2, name(number), "s".to_owned())));
        let servers = rows.take_servers();
        let alone = servers.iter().filter(|server| server.backend_name == Uniqueness::Unique).count();
        // Only the first of all has its name, and one is on no second place.
        assert_eq!((servers.len(), alone), (MANY as usize, 2));
    }
}
