//! Sessions on processes that HAProxy has replaced: after a reload, what the old workers still serve is not drained.
//!
//! Only the master CLI (`-S`) leads to old workers (management.txt, section 9.4): `show proc` lists them, and a command
//! with the prefix `@!PID` goes to one of them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::haproxy::command::Query;
use crate::haproxy::socket::Connection;
use crate::haproxy::statistics::StatReader;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::{Address, is_plain};
use crate::model::server::Server;
use crate::model::text::excerpt;
use crate::time::deadline::patiently;

/// What the old workers still do for each server, by backend and server.
pub type Load = HashMap<(String, String), u32>;

/// How long a count is tried again that the end of a connection has cut off.
const TRIES: Duration = Duration::from_secs(2);

/// Counts the sessions and queued requests of the servers on all old workers.
///
/// The connection ends when a worker does, and also when the master starts itself anew in a reload. The next list of
/// processes tells which: no worker that is on it goes uncounted.
///
/// # Errors
/// When the master CLI does not answer, or not as HAProxy does.
pub fn load_on_old_workers(master: &Address, servers: &[&Server], timeout: Duration) -> Result<Load> {
    // The end of a worker may leave any answer behind.
    let cut_off = |error: Error| if error.kind == ErrorKind::BadReply { error.cut_off() } else { error };
    patiently(TRIES.min(timeout), || try_to_count(master, servers, timeout).map_err(cut_off))
}

fn try_to_count(master: &Address, servers: &[&Server], timeout: Duration) -> Result<Load> {
    let mut connection = Connection::open_master(master, timeout)?;
    let workers = old_workers(&connection.ask(&Query::Processes.to_string())?)
        .ok_or_else(|| not_understood(master, "'show proc' has no line '# workers'"))?;
    let backends: BTreeSet<&str> =
        servers.iter().map(|server| &*server.backend).filter(|name| is_plain(name)).collect();
    let mut load = Load::new();
    for worker in workers {
        for &backend in &backends {
            // One that has ended since has no sessions any more.
            let Some(servers) = load_of(&mut connection, worker, backend)? else { break };
            for (server, count) in servers {
                let sum = load.entry((backend.to_owned(), server)).or_default();
                *sum = sum.saturating_add(count);
            }
        }
    }
    Ok(load)
}

/// Counts what one worker still does for the servers of a backend; nothing where the worker has ended.
fn load_of(connection: &mut Connection, worker: u32, backend: &str) -> Result<Option<Vec<(String, u32)>>> {
    let mut servers = Vec::new();
    let mut has_ended = false;
    let address = connection.address().clone();
    let mut reader = StatReader::new(&address, |row| {
        let busy = row.statistics.sessions.saturating_add(row.statistics.queue);
        servers.push((row.server.into_owned(), busy));
    });
    connection.rows(&[Query::StatOf { worker, backend }.to_string()], |row| {
        has_ended |= row.starts_with(b"Can't find the target");
        if has_ended { Ok(()) } else { reader.line(row) }
    })?;
    if has_ended {
        return Ok(None);
    }
    if servers.is_empty() {
        // HAProxy 2.4 and older show no statistics of a proxy that is stopping; their connection counts have TCP
        // sessions, too, which those of later ones have not.
        let reply = connection.ask(&Query::ConnOf { worker, backend }.to_string())?;
        let why =
            || not_understood(&address, &format!("'show servers conn' answered '{}'", excerpt(reply.as_bytes(), 200)));
        servers = connections(&reply).ok_or_else(why)?;
    }
    Ok(Some(servers))
}

/// Reads the connections in use from `show servers conn`; nothing where the reply is not its.
fn connections(reply: &str) -> Option<Vec<(String, u32)>> {
    if reply.trim() == "Can't find backend." || reply.starts_with("Can't find the target") {
        return Some(Vec::new());
    }
    let mut lines = reply.lines().filter(|line| !line.is_empty());
    let columns: Vec<&str> = lines.next()?.strip_prefix("# ")?.split_whitespace().collect();
    let used = columns.iter().position(|column| *column == "used_cur")?;
    let row = |line: &str| {
        let (_, server) = line.split_whitespace().next()?.rsplit_once('/')?;
        Some((server.to_owned(), line.split_whitespace().nth(used)?.parse().ok()?))
    };
    lines.map(row).collect()
}

/// Reads the processes that `show proc` lists as old workers; nothing where the reply is not its.
fn old_workers(reply: &str) -> Option<Vec<u32>> {
    let (_, workers) = reply.split_once("# workers\n")?;
    let Some((_, old)) = workers.split_once("# old workers\n") else { return Some(Vec::new()) };
    let rows = old.lines().take_while(|line| !line.starts_with('#') && !line.is_empty());
    rows.map(|row| row.split_whitespace().next()?.parse().ok()).collect()
}

fn not_understood(master: &Address, what: &str) -> Error {
    Error::new(ErrorKind::BadReply, format!("the master CLI at {master} gave an answer that is not understood: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_workers_are_listed_apart() {
        let head = "#<PID>          <type>          <reloads>       <uptime>        <version>      \n\
                    6918            master          1 [failed: 0]   0d00h00m08s     3.2.26-1       \n# workers\n\
                    6921            worker          0               0d00h00m08s     3.2.26-1       \n";
        assert_eq!(old_workers(head), Some(vec![]));
        let old = "# old workers\n26579           worker          [was: 1]        1   0d00h00m03s     2.2.9\n\
                   26580           worker          2   0d00h00m03s     2.2.9\n# programs\n\n";
        assert_eq!(old_workers(&format!("{head}{old}")), Some(vec![26579, 26580]));
        assert_eq!(old_workers("Unknown command"), None);
    }

    #[test]
    fn connections_are_read_by_their_column() {
        let reply = "# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est\n\
                     app/web1 3/1 127.0.0.1 18091 - 5000 4 5 1\n\n";
        assert_eq!(connections(reply), Some(vec![("web1".to_owned(), 4)]));
        assert_eq!(connections("Can't find backend.\n\n"), Some(vec![]));
        assert_eq!(connections("# bkname/svname\n"), None);
    }
}
