//! Asks who tracks whom without asking for statistics, for each of which HAProxy goes through all its proxies.

use super::command::{Query, Target};
use super::parse::without_severity;
use super::socket::Connection;
use crate::model::error::Result;
use crate::model::server::{Process, Server};
use crate::time::interrupt::PATIENT;

/// Tells of each server whether it tracks another one; `None` where HAProxy did not say so.
///
/// A health that does not exist is refused for every server, but in other words for one that tracks another
/// (`cli_parse_set_server()` in HAProxy's `src/server.c`, 1.8 to 3.5).
///
/// # Errors
/// When HAProxy does not answer in time.
pub(super) fn which_track(connection: &mut Connection, servers: &[&Server]) -> Result<Vec<Option<bool>>> {
    let replies = ask(connection, servers, |server| Query::Tracking(Target::of(server)))?;
    let tracks = |reply: &String| match reply.as_str() {
        "cannot change health on a tracking server." => Some(true),
        "'set server <srv> health' expects 'up', 'stopping', or 'down'." => Some(false),
        _ => None,
    };
    Ok(replies.iter().map(tracks).collect())
}

/// Tells whether certainly none of the servers is tracked.
///
/// One that is tracked can never be removed, which HAProxy says before it says whether it could be removed now
/// (`srv_check_for_deletion()` in its `src/server.c`). Up to 3.2 it does not say why it cannot.
///
/// # Errors
/// When HAProxy does not answer in time.
pub(super) fn none_is_tracked(connection: &mut Connection, process: &Process, servers: &[&Server]) -> Result<bool> {
    if !process.explains_removal() {
        return Ok(false);
    }
    let replies = ask(connection, servers, |server| Query::Removable(Target::of(server)))?;
    Ok(replies.iter().all(|reply| {
        matches!(
            reply.as_str(),
            "Done."
                | "Failed. Only servers in maintenance mode can be deleted."
                | "Wait delay expired. Server still has connections attached to it, cannot remove it."
        )
    }))
}

/// Asks about each server, and returns the replies without what surrounds them.
fn ask<'s>(
    connection: &mut Connection,
    servers: &[&'s Server],
    about: impl Fn(&'s Server) -> Query<'s>,
) -> Result<Vec<String>> {
    let commands: Vec<String> = servers.iter().map(|server| about(server).to_string()).collect();
    let (replies, result) = connection.exchange(&commands, &PATIENT);
    result?;
    let text = |reply: &Vec<u8>| without_severity(String::from_utf8_lossy(reply).trim()).trim().to_owned();
    Ok(replies.iter().map(text).collect())
}
