//! Sends the commands that a plan needs, and matches every reply to its command.

use crate::haproxy::observe::Server;
use crate::haproxy::parse::without_severity;
use crate::haproxy::socket::Connection;
use crate::model::error::{Error, ErrorKind};
use crate::time::interrupt::Interrupt;

/// How many commands are under way at a time: HAProxy stops reading when its replies are not read.
const WINDOW: usize = 256;

/// A command that a plan needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The place of its server among those of the instance.
    pub place: usize,
    /// What is sent.
    pub line: Box<str>,
}

/// What became of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// HAProxy has taken it.
    Accepted,
    /// HAProxy says that the backend is disabled or stopped, or its process is about to end.
    Disabled,
    /// HAProxy has refused it, with these words.
    Refused(String),
    /// It was sent, but no reply came: it may have been carried out, or may still be.
    Unknown,
    /// It was not sent.
    Unsent,
}

/// Sends the commands over one connection, until all are answered, the connection fails or the run is interrupted.
#[must_use]
pub fn apply(connection: &mut Connection, commands: &[Command], interrupt: &Interrupt) -> (Vec<Reply>, Option<Error>) {
    let mut replies = Vec::with_capacity(commands.len());
    let mut failure = None;
    for window in commands.chunks(WINDOW) {
        failure = interrupt.check();
        if failure.is_some() {
            break;
        }
        let lines: Vec<&str> = window.iter().map(|command| &*command.line).collect();
        let (answers, result) = connection.exchange(&lines);
        let unanswered = window.len().saturating_sub(answers.len());
        replies.extend(answers.iter().map(|answer| understand(&String::from_utf8_lossy(answer))));
        replies.extend(std::iter::repeat_n(Reply::Unknown, unanswered));
        if let Err(error) = result {
            failure = Some(error);
            break;
        }
    }
    replies.resize(commands.len(), Reply::Unsent);
    (replies, failure)
}

/// Reads the reply to a `set server` command: silence is success (`cli_parse_set_server()` in HAProxy's
/// `src/server.c`), any text a refusal.
fn understand(answer: &str) -> Reply {
    match without_severity(answer.trim()).trim() {
        "" => Reply::Accepted,
        "Proxy is disabled." => Reply::Disabled,
        text => Reply::Refused(text.lines().next().unwrap_or_default().to_owned()),
    }
}

/// Makes the failure of a command that was refused.
#[must_use]
pub fn refused(server: &Server, command: &str, text: &str) -> Error {
    let (kind, hint) = match text {
        "Permission denied" => {
            (ErrorKind::PermissionDenied, "; add 'level admin' to the 'stats socket' line in haproxy.cfg")
        }
        "No such server." | "No such backend." => {
            (ErrorKind::CommandRejected, "; it was deleted meanwhile, or another backend has the same name")
        }
        _ => (ErrorKind::CommandRejected, ""),
    };
    let shown: String = text.chars().take(200).collect();
    let msg = format!("{}: HAProxy answered '{command}' with '{}'{hint}", server.full_name(), shown.escape_debug());
    Error::new(kind, msg).on_server(&server.backend, &server.server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_success_and_any_text_is_not() {
        let table = [
            ("\n", Reply::Accepted),
            ("", Reply::Accepted),
            ("[3]: No such server.\n\n", Reply::Refused("No such server.".into())),
            ("No such backend.\n\n", Reply::Refused("No such backend.".into())),
            ("Proxy is disabled.\n\n", Reply::Disabled),
            ("[err]: Proxy is disabled.\n\n", Reply::Disabled),
            ("Done.\n", Reply::Refused("Done.".into())),
        ];
        for (answer, expected) in table {
            assert_eq!(understand(answer), expected, "{answer:?}");
        }
    }
}
