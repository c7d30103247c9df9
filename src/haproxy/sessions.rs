//! Single sessions: listed by `show sess`, ended by `shutdown session` (management.txt, section 9.3).

use std::collections::BTreeSet;

use super::command::{Query, end_session};
use super::socket::{Connection, Form};
use crate::model::error::Result;
use crate::model::server::Server;
use crate::time::interrupt::PATIENT;

/// How many commands are in flight at a time.
const WINDOW: usize = 64;

/// A session as `show sess` shows it.
pub(super) struct Session<'a> {
    pub(super) id: &'a str,
    pub(super) backend: &'a str,
    pub(super) server: &'a str,
}

impl<'a> Session<'a> {
    /// Reads a line such as `0x55d0c0ffee00: proto=tcpv4 src=127.0.0.1:40000 fe=http be=app srv=web1 ts=02 age=2s …`;
    /// `None` without a server.
    fn parse(line: &'a str) -> Option<Self> {
        let (id, rest) = line.split_once(": ")?;
        let value = |key: &str| rest.split(' ').find_map(|word| word.strip_prefix(key));
        Some(Self { id, backend: value("be=")?, server: value("srv=")? })
    }
}

/// Reads the sessions that have a server, of the process or of a worker of its master.
pub(super) fn read_sessions(
    connection: &mut Connection,
    worker: Option<u32>,
    mut on_session: impl FnMut(Session<'_>),
) -> Result<()> {
    connection.dump(&Query::Sessions { worker }.to_string(), Form::Lines, |line| {
        std::str::from_utf8(line).ok().and_then(Session::parse).into_iter().for_each(&mut on_session);
        Ok(())
    })
}

/// Ends at most this many sessions of servers, and returns how many it has ended.
pub(super) fn end_sessions_on(
    connection: &mut Connection,
    worker: Option<u32>,
    servers: &[&Server],
    most: usize,
) -> Result<usize> {
    let names = names(servers);
    let mut commands = Vec::new();
    read_sessions(connection, worker, |session| {
        if commands.len() < most && names.contains(&(session.backend, session.server)) {
            commands.extend(end_session(worker, session.id));
        }
    })?;
    for window in commands.chunks(WINDOW) {
        connection.exchange(window, &PATIENT).1?;
    }
    Ok(commands.len())
}

/// Returns the names of servers: backend and server.
pub(super) fn names<'a>(servers: &[&'a Server]) -> BTreeSet<(&'a str, &'a str)> {
    servers.iter().map(|server| (&*server.backend, &*server.server)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_known_by_its_server() {
        let line = "0x55d0c0ffee00: proto=tcpv4 src=127.0.0.1:40000 fe=http be=app srv=web1 ts=02 age=2s calls=1";
        let session = Session::parse(line).unwrap();
        assert_eq!((session.id, session.backend, session.server), ("0x55d0c0ffee00", "app", "web1"));
        assert!(Session::parse("").is_none() && Session::parse("Can't find the target PID").is_none());
        assert_eq!(end_session(Some(7), session.id).as_deref(), Some("@!7 shutdown session 0x55d0c0ffee00"));
        assert_eq!(end_session(None, session.id).as_deref(), Some("shutdown session 0x55d0c0ffee00"));
        assert_eq!(end_session(None, "0x1; shutdown"), None);
    }
}
