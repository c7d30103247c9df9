//! Reads the servers of an instance over one connection, and changes nothing.
//!
//! Every dump is streamed: only selected servers are kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::command::{Query, Reference, Target};
use super::guarded::observe_guarded;
use super::not_understood;
use super::open::{Contact, open, still_serves};
use super::parse::{ParseError, StateHeader};
use super::rows::{Keep, Matching, Names, ReadBack, read_state, with_switch};
use super::socket::{Connection, Form};
use super::statistics::{ONE_BY_ONE, read_statistics};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::matcher::Matcher;
use crate::model::memory::{Meter, RESERVE, could_have, out_of_memory};
use crate::model::name::{Address, Selection};
use crate::model::server::{Process, Server};
use crate::model::text::printable;
use crate::model::traffic::{Around, MinAvailable};
use crate::time::deadline::Allowance;

/// Up to how many backends are read by name without finding out how many there are.
const FEW: usize = 16;

/// How much to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detail {
    /// About the selected servers.
    pub about: About,
    /// For this guard, how many other servers their backends have; before a change also whether any of these would follow it.
    pub guard: Option<MinAvailable>,
}

/// How much to ask about the selected servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Their state alone.
    State,
    /// What a change needs that only takes servers out of service: which of them track others.
    Links(Evidence),
    /// What any other plan needs: of a few servers their statistics, of many which of them track others.
    Plan,
    /// What a status shows: sessions, queue and check as well.
    Statistics,
}

/// What tells which servers track others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Their statistics.
    Statistics,
    /// The words in which HAProxy refuses a command. They cost it less, but only a run that may change something sends one.
    Refusals,
}

/// What an instance said.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Where it was said, and by which process.
    pub contact: Contact,
    /// The selected servers, in HAProxy's order.
    pub servers: Vec<Server>,
    /// What else there is.
    pub rest: Rest,
}

/// What an instance has besides the selected servers.
#[derive(Debug, Clone, Default)]
pub struct Rest {
    /// The other servers that a guard needs one by one: those of which a backend has backup servers or may have them, or all
    /// where some may track a selected one.
    pub others: Vec<Server>,
    /// How many others a guard counts, in backends where they are not listed.
    pub around: BTreeMap<u32, Around>,
    /// The numbers of the backends that have a selected server, and another one that takes traffic.
    pub served_by_others: BTreeSet<u32>,
    /// How many backends have servers; `None` if only the named ones were read.
    pub backends: Option<usize>,
    /// Which of the selected backends exist, even without a selected server.
    pub backends_found: Vec<bool>,
}

/// Reads the selected servers over an open connection.
///
/// # Errors
/// When the answer does not arrive in time, or is unexpected.
pub fn observe(
    connection: &mut Connection,
    contact: Contact,
    selection: Selection<'_>,
    detail: Detail,
) -> Result<Observation> {
    let named = named_backends(connection, &contact.process, selection)?;
    let Some(guard) = detail.guard else {
        return observe_selected(connection, contact, selection, named.as_deref(), detail.about);
    };
    let is_whole = named.as_ref().is_none_or(|names| names.len() > ONE_BY_ONE);
    if !(detail.about == About::Statistics && is_whole) {
        let guarded = observe_guarded(connection, &contact, selection, named.as_deref(), (guard, detail.about))?;
        if let Some(observation) = guarded {
            return Ok(observation);
        }
    }
    observe_everything(connection, contact, selection)
}

/// Returns what to ask to read some backends by name, or all.
pub(super) fn queries<'a>(named: Option<&[&'a str]>) -> Vec<Query<'a>> {
    match named {
        Some(names) => names.iter().map(|name| Query::ServersState(Some(Reference::Name(name)))).collect(),
        None => vec![Query::ServersState(None)],
    }
}

/// Reads the selected servers, of the backends that are named or of all.
fn observe_selected(
    connection: &mut Connection,
    contact: Contact,
    selection: Selection<'_>,
    named: Option<&[&str]>,
    about: About,
) -> Result<Observation> {
    let mut rows = Matching::new(selection, Keep::Selected);
    read_state(connection, &queries(named), &mut rows)?;
    let mut servers = rows.take_servers();
    if named.is_some() {
        // They were read in the order of their names.
        servers.sort_by_key(|server| server.backend_id);
    }
    let Matching { backends, backends_found, .. } = rows;
    read_statistics(connection, &contact.process, &mut servers, &backends, about)?;
    let count = named.is_none().then_some(backends.names.len());
    let rest = Rest { served_by_others: backends.served_by_others, backends: count, backends_found, ..Rest::default() };
    Ok(Observation { contact, servers, rest })
}

/// Reads all servers, with the statistics of all.
fn observe_everything(connection: &mut Connection, contact: Contact, selection: Selection<'_>) -> Result<Observation> {
    let mut rows = Matching::new(selection, Keep::All);
    read_state(connection, &queries(None), &mut rows)?;
    let mut servers = rows.take_servers();
    let Matching { backends, backends_found, .. } = rows;
    read_statistics(connection, &contact.process, &mut servers, &backends, About::Statistics)?;
    let matcher = Matcher::new(selection);
    let (servers, others): (Vec<Server>, Vec<Server>) = servers.into_iter().partition(|server| matcher.has(server));
    let served_by_others =
        others.iter().filter(|server| server.takes_traffic()).map(|server| server.backend_id).collect();
    let (around, count) = (BTreeMap::new(), Some(backends.names.len()));
    let rest = Rest { others, around, served_by_others, backends: count, backends_found };
    Ok(Observation { contact, servers, rest })
}

/// Finds the backends to read by name; `None` if everything is to be read.
///
/// By name HAProxy shows only the first of two proxies that share it, so that everything is read where a name may be
/// meant twice.
fn named_backends<'a>(
    connection: &mut Connection,
    process: &Process,
    selection: Selection<'a>,
) -> Result<Option<Vec<&'a str>>> {
    let Some(names) = selection.named_backends() else { return Ok(None) };
    let are_few = names.len() <= FEW;
    if are_few && !process.may_share_names() {
        return Ok(Some(names));
    }
    let (mut count, mut seen, mut is_shared) = (0, vec![false; names.len()], false);
    read_backends(connection, |name| {
        count += 1;
        if let Some(seen) = names.binary_search_by(|it| it.as_bytes().cmp(name)).ok().and_then(|it| seen.get_mut(it)) {
            is_shared |= std::mem::replace(seen, true);
        }
    })?;
    Ok(Some(names).filter(|names| !is_shared && (are_few || is_cheaper_by_name(names.len(), count))))
}

/// Tells whether reading some backends one by one costs less than one dump of all: up to about half of them.
fn is_cheaper_by_name(some: usize, all: usize) -> bool {
    some.saturating_mul(2) <= all
}

/// Reads the names of all backends, in HAProxy's order.
fn read_backends(connection: &mut Connection, mut on_name: impl FnMut(&[u8])) -> Result<()> {
    let query = Query::Backends.to_string();
    connection.dump(&query, Form::Lines, |line| {
        if !line.is_empty() && !line.starts_with(b"#") {
            on_name(line);
        }
        Ok(())
    })
}

/// Reads observed servers again over a new connection; one that is gone is `None`.
///
/// Backends are read one by one, unless one dump of all costs less. `backends` is how many there are, if all were read
/// before.
///
/// # Errors
/// When HAProxy does not answer in time, gives an unexpected answer, or is replaced meanwhile.
pub fn read_back(
    address: &Address,
    selection: Selection<'_>,
    before: &[&Server],
    backends: Option<usize>,
    step: Allowance,
) -> Result<(Process, Vec<Option<Server>>)> {
    let (mut connection, process) = open(address, step)?;
    let mut queries: Vec<Query<'_>> =
        before.iter().map(|server| Query::ServersState(Some(Target::of(server).backend))).collect();
    queries.dedup();
    if backends.is_some_and(|all| queries.len() > FEW && !is_cheaper_by_name(queries.len(), all)) {
        queries = vec![Query::ServersState(None)];
    }
    let mut rows = ReadBack::new(selection, before);
    read_state(&mut connection, &queries, &mut rows)?;
    drop(queries);
    if !still_serves(&mut connection)? {
        let msg = format!("the HAProxy at {address} was replaced while its servers were read back");
        return Err(Error::new(ErrorKind::Unreachable, msg));
    }
    Ok((process, rows.after))
}

/// The predicted servers, for a dump that shows them that way.
#[derive(Debug, Default)]
pub struct Predicted<'a>(HashMap<(&'a [u8], &'a [u8]), &'a Server>);

impl<'a> Predicted<'a> {
    /// Takes the predicted servers.
    #[must_use]
    pub fn of(servers: &[&'a Server]) -> Self {
        Self(servers.iter().map(|it| ((it.backend.as_bytes(), it.server.as_bytes()), *it)).collect())
    }
}

/// Dumps all servers over a new connection and hands over every line, with predicted servers as predicted.
///
/// # Errors
/// When there is not enough memory to keep all of it, when the answer does not arrive in time or is incomplete; also what
/// `on_line` returned.
pub fn dump(
    address: &Address,
    step: Allowance,
    predicted: &Predicted<'_>,
    mut on_line: impl FnMut(&[u8]) -> std::result::Result<(), ParseError>,
) -> Result<()> {
    let (mut connection, _) = open(address, step)?;
    if !could_have(RESERVE) {
        return Err(out_of_memory(address));
    }
    let understood = |error: ParseError| not_understood(address, &error);
    let mut header = None;
    let mut meter = Meter::default();
    connection.dump(&Query::ServersState(None).to_string(), Form::Lines, |line| {
        if !meter.has_room_after(line.len()) {
            return Err(out_of_memory(address));
        }
        if line.starts_with(b"# be_id") {
            header = Some(StateHeader::parse(line).map_err(understood)?);
        }
        let rewritten = match &header {
            Some(header) if !predicted.0.is_empty() => header.rewritten(line, |backend, server, check, agent| {
                let state = &predicted.0.get(&(backend, server))?.state;
                Some((state.flags, state.weight, with_switch(check, state.health), with_switch(agent, state.agent)))
            }),
            _ => None,
        };
        on_line(rewritten.as_deref().unwrap_or(line)).map_err(understood)
    })?;
    Ok(())
}

/// What names are sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    /// Those of backends.
    Backends,
    /// Those of backends that have servers.
    BackendsWithServers,
    /// Those of servers.
    Servers,
}

/// Reads names over a new connection.
///
/// # Errors
/// When HAProxy does not answer in time, or gives an unexpected answer.
pub fn names(address: &Address, sought: Sought, step: Allowance) -> Result<BTreeSet<String>> {
    let (mut connection, _) = open(address, step)?;
    match sought {
        Sought::Backends => {
            let mut names = BTreeSet::new();
            read_backends(&mut connection, |name| {
                names.insert(printable(&String::from_utf8_lossy(name)).into_owned());
            })?;
            Ok(names)
        }
        Sought::BackendsWithServers | Sought::Servers => {
            let mut rows = Names::new(sought);
            read_state(&mut connection, &[Query::ServersState(None)], &mut rows)?;
            Ok(rows.found)
        }
    }
}
