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
    Ok(replies.iter().map(|reply| tracks(reply)).collect())
}

fn tracks(reply: &str) -> Option<bool> {
    match reply {
        "cannot change health on a tracking server." => Some(true),
        "'set server <srv> health' expects 'up', 'stopping', or 'down'." => Some(false),
        _ => None,
    }
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
    Ok(replies.iter().all(|reply| is_not_tracked(reply)))
}

fn is_not_tracked(reply: &str) -> bool {
    matches!(
        reply,
        "Done."
            | "Failed. Only servers in maintenance mode can be deleted."
            | "Wait delay expired. Server still has connections attached to it, cannot remove it."
    )
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
    Ok(replies.iter().map(|reply| bare(&String::from_utf8_lossy(reply)).to_owned()).collect())
}

fn bare(reply: &str) -> &str {
    without_severity(reply.trim()).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_known_refusals_of_a_health_tell_who_tracks() {
        for (reply, expected) in [
            ("cannot change health on a tracking server.\n\n", Some(true)),
            ("[3]: cannot change health on a tracking server.\n\n", Some(true)),
            ("'set server <srv> health' expects 'up', 'stopping', or 'down'.\n\n", Some(false)),
            ("[err]: 'set server <srv> health' expects 'up', 'stopping', or 'down'.\n", Some(false)),
            ("\n", None),
            ("No such server.\n\n", None),
            ("Permission denied\n\n", None),
        ] {
            assert_eq!(tracks(bare(reply)), expected, "{reply:?}");
        }
    }

    #[test]
    fn only_the_known_answers_about_a_removal_tell_who_is_not_tracked() {
        for (reply, expected) in [
            ("Done.\n\n", true),
            ("Failed. Only servers in maintenance mode can be deleted.\n\n", true),
            ("[3]: Failed. Only servers in maintenance mode can be deleted.\n\n", true),
            ("Wait delay expired. Server still has connections attached to it, cannot remove it.\n\n", true),
            (
                "Failed. This server cannot be removed at runtime due to other configuration elements pointing to it.\n\n",
                false,
            ),
            // HAProxy 3.2.
            ("Failed.\n\n", false),
            ("Failed. No such server.\n\n", false),
            ("\n", false),
            ("Permission denied\n\n", false),
        ] {
            assert_eq!(is_not_tracked(bare(reply)), expected, "{reply:?}");
        }
    }
}
