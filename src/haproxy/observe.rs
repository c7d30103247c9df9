//! Reads the servers of an instance over one connection, and changes nothing.
//!
//! Every dump is streamed: only selected servers are kept.

use std::collections::{BTreeSet, HashMap};

use super::command::{Query, Reference, Target};
use super::not_understood;
use super::open::{Contact, open, still_serves};
use super::parse::{ParseError, StateHeader};
use super::rows::{Matching, ReadBack, hash, read_state, with_switch};
use super::socket::{Connection, Form};
use super::statistics::read_statistics;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::{Address, Selection};
use crate::model::server::{Process, Server, Uniqueness};
use crate::time::deadline::Allowance;

/// How much to ask about the selected servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What a plan needs: which servers track others.
    Links,
    /// What a status shows: sessions, queue and check as well.
    Statistics,
    /// What a guard needs: everything about all servers, including those not selected.
    Everything,
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
    /// The other servers, if everything was requested.
    pub others: Vec<Server>,
    /// The numbers of the backends that have a selected server, and another one that takes traffic.
    pub served_by_others: BTreeSet<u32>,
    /// How many backends have servers.
    pub backends: usize,
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
    let mut rows = Matching::new(selection, detail);
    read_state(connection, &Query::ServersState(None), &mut rows)?;
    let Matching { mut servers, backends_found, mut backends, .. } = rows;
    backends.end();
    let shared = backends.shared_names();
    if !shared.is_empty() {
        for server in servers.iter_mut().filter(|server| shared.contains(&hash(server.backend.as_bytes()))) {
            server.backend_name = Uniqueness::Shared;
        }
    }
    read_statistics(connection, &contact.process, &mut servers, detail)?;
    let mut rest = Rest {
        others: Vec::new(),
        backends: backends.names.len(),
        served_by_others: backends.served_by_others,
        backends_found,
    };
    if detail == Detail::Everything {
        let is_selected =
            |it: &Server| selection.matches(it.backend.as_bytes(), it.server.as_bytes(), || it.host_and_port());
        (servers, rest.others) = servers.into_iter().partition(is_selected);
        // The dump examines only rows that it does not hand over, and here it has handed over all.
        let usable = rest.others.iter().filter(|server| server.takes_traffic());
        rest.served_by_others.extend(usable.map(|server| server.backend_id));
    }
    Ok(Observation { contact, servers, rest })
}

/// Reads observed servers again over a new connection; one that is gone is `None`.
///
/// A few backends are read one by one, many with one dump of all.
///
/// # Errors
/// When HAProxy does not answer in time, gives an unexpected answer, or is replaced meanwhile.
pub fn read_back(
    address: &Address,
    selection: Selection<'_>,
    before: &[&Server],
    backends: usize,
    step: Allowance,
) -> Result<(Process, Vec<Option<Server>>)> {
    let (mut connection, process) = open(address, step)?;
    let mut queries: Vec<Reference<'_>> = before.iter().map(|server| Target::of(server).backend).collect();
    queries.dedup();
    let mut rows = ReadBack::new(selection, before);
    if queries.len() * 10 > backends {
        drop(queries);
        read_state(&mut connection, &Query::ServersState(None), &mut rows)?;
    } else {
        for backend in queries {
            read_state(&mut connection, &Query::ServersState(Some(backend)), &mut rows)?;
        }
    }
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
/// When the answer does not arrive in time or is incomplete, or returns what `on_line` returned.
pub fn dump(
    address: &Address,
    step: Allowance,
    predicted: &Predicted<'_>,
    mut on_line: impl FnMut(&[u8]) -> std::result::Result<(), ParseError>,
) -> Result<()> {
    let (mut connection, _) = open(address, step)?;
    let understood = |error: ParseError| not_understood(address, &error);
    let mut header = None;
    connection.dump(&Query::ServersState(None).to_string(), Form::Lines, |line| {
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

/// Reads the names of all backends with servers, and of their servers, over a new connection.
///
/// # Errors
/// When HAProxy does not answer in time, or gives an unexpected answer.
pub fn names(address: &Address, step: Allowance) -> Result<Vec<(String, String)>> {
    let (mut connection, _) = open(address, step)?;
    let all = Selection { servers: &[], backends: &[], addresses: &[] };
    let mut rows = Matching::new(all, Detail::Everything);
    read_state(&mut connection, &Query::ServersState(None), &mut rows)?;
    let servers = rows.servers.into_iter();
    Ok(servers.map(|server| (server.backend.to_string(), server.server.to_string())).collect())
}
