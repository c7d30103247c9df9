//! The only place that writes command text for HAProxy's runtime API (its manual: management.txt, section 9.3).
//!
//! Every command is one line of less than 8 kB: HAProxy 2.2 hangs for good on one of more than 15,360 bytes.

use std::borrow::Cow;
use std::fmt;

use crate::model::goal::{Switch, Weight};
use crate::model::name::is_plain;
use crate::model::server::{Server, Uniqueness};
use crate::model::state::AdminState;

/// A proxy or a server as a command names it: by its name, or by its number (`#7`) if the name cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'a> {
    /// By name; only characters that HAProxy's parser leaves alone.
    Name(&'a str),
    /// By the number that this HAProxy process has given it.
    Id(u32),
}

impl<'a> Reference<'a> {
    /// Refers by name if that is unambiguous and safe to send, otherwise by number.
    #[must_use]
    pub fn new(name: &'a str, id: u32, unique: Uniqueness) -> Self {
        match unique {
            Uniqueness::Unique if is_plain(name) => Self::Name(name),
            Uniqueness::Unique | Uniqueness::Shared => Self::Id(id),
        }
    }

    fn text(self) -> Cow<'a, str> {
        match self {
            Self::Name(name) => name.into(),
            Self::Id(id) => format!("#{id}").into(),
        }
    }
}

impl fmt::Display for Reference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// A server as a command names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// The backend that it is in.
    pub backend: Reference<'a>,
    /// The server itself.
    pub server: Reference<'a>,
}

impl<'a> Target<'a> {
    /// Returns how commands name a server.
    #[must_use]
    pub fn of(server: &'a Server) -> Self {
        Self {
            backend: Reference::new(&server.backend, server.backend_id, server.backend_name),
            server: Reference::new(&server.server, server.server_id, Uniqueness::Unique),
        }
    }
}

/// A command that changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query<'a> {
    /// The version, the process and when it started.
    Info,
    /// What the socket allows: `user`, `operator` or `admin`.
    Level,
    /// The names of all backends.
    Backends,
    /// The state of the servers of all backends, or of one.
    ServersState(Option<Reference<'a>>),
    /// The statistics of one server, or of all servers of a proxy, or of all proxies, by their numbers.
    Stat {
        /// The proxy; all if it is missing.
        proxy: Option<u32>,
        /// The server; all if it is missing.
        server: Option<u32>,
        /// Which rows besides those of servers.
        rows: StatRows,
    },
    /// Whether a server tracks another one, from the words in which HAProxy refuses to set its health to `?`.
    Tracking(Target<'a>),
    /// Whether a server could be removed, or why not.
    Removable(Target<'a>),
    /// The processes of a master, on its CLI.
    Processes,
    /// The statistics of all servers of a backend in one worker, on the CLI of its master.
    StatOf {
        /// The process id of the worker.
        worker: u32,
        /// The backend, whose name must be plain.
        backend: &'a str,
    },
    /// The sessions of the process, or of one worker on the CLI of its master.
    Sessions {
        /// The process id of the worker.
        worker: Option<u32>,
    },
}

/// Which rows `show stat` is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatRows {
    /// Those of servers.
    Servers,
    /// Those of backends.
    Backends,
    /// Those of backends as well.
    ServersAndBackends,
}

impl fmt::Display for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Info => f.write_str("show info"),
            Self::Level => f.write_str("show cli level"),
            Self::Backends => f.write_str("show backend"),
            Self::ServersState(None) => f.write_str("show servers state"),
            Self::ServersState(Some(backend)) => write!(f, "show servers state {backend}"),
            Self::Tracking(Target { backend, server }) => write!(f, "set server {backend}/{server} health ?"),
            Self::Removable(Target { backend, server }) => write!(f, "wait 1 srv-removable {backend}/{server}"),
            Self::Processes => f.write_str("show proc"),
            Self::StatOf { worker, backend } => write!(f, "@!{worker} show stat {backend} 4 -1"),
            Self::Sessions { worker: None } => f.write_str("show sess"),
            Self::Sessions { worker: Some(worker) } => write!(f, "@!{worker} show sess"),
            Self::Stat { proxy, server, rows } => {
                // In the mask of types, 2 is for backends and 4 for servers; -1 stands for all (management.txt, "show stat").
                let mask = match rows {
                    StatRows::Servers => 4,
                    StatRows::Backends => 2,
                    StatRows::ServersAndBackends => 6,
                };
                let number = |id: &Option<u32>| id.map_or_else(|| "-1".to_owned(), |id| id.to_string());
                write!(f, "show stat {} {mask} {}", number(proxy), number(server))
            }
        }
    }
}

/// Writes the command that ends one session of the process, or of a worker on the CLI of its master; `None` if the
/// session is not named by an address, as in `show sess`.
#[must_use]
pub fn end_session(worker: Option<u32>, session: &str) -> Option<String> {
    let digits = session.strip_prefix("0x")?;
    let is_address = (1..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let prefix = worker.map(|worker| format!("@!{worker} ")).unwrap_or_default();
    is_address.then(|| format!("{prefix}shutdown session {session}"))
}

/// What a command does to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Sets the administrative state.
    State(AdminState),
    /// Sets the weight, absolute or as a percentage of the configured one.
    Weight(Weight),
    /// Resumes or pauses health checks.
    Health(Switch),
    /// Resumes or pauses agent checks.
    Agent(Switch),
    /// Ends all current sessions.
    ShutdownSessions,
}

impl Action {
    /// Writes the command line for a server, in one allocation of the exact size: there may be many of them.
    #[must_use]
    pub fn line(self, target: Target<'_>) -> Box<str> {
        let (before, after, value) = match self {
            Self::State(state) => ("set server ", " state ", state.as_str().into()),
            Self::Weight(weight) => ("set server ", " weight ", weight.to_string().into()),
            Self::Health(Switch::Enabled) => ("enable health ", "", Cow::default()),
            Self::Health(Switch::Disabled) => ("disable health ", "", Cow::default()),
            Self::Agent(Switch::Enabled) => ("enable agent ", "", Cow::default()),
            Self::Agent(Switch::Disabled) => ("disable agent ", "", Cow::default()),
            Self::ShutdownSessions => ("shutdown sessions server ", "", Cow::default()),
        };
        let Target { backend, server } = target;
        [before, &backend.text(), "/", &server.text(), after, &value].concat().into_boxed_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_what_the_manual_says() {
        let target = Target { backend: Reference::Name("app"), server: Reference::Name("web1") };
        let change = |action: Action| action.line(target);
        assert_eq!(&*change(Action::State(AdminState::Maint)), "set server app/web1 state maint");
        assert_eq!(&*change(Action::Weight(Weight::Percent(50))), "set server app/web1 weight 50%");
        assert_eq!(&*change(Action::Health(Switch::Disabled)), "disable health app/web1");
        assert_eq!(&*change(Action::Agent(Switch::Enabled)), "enable agent app/web1");
        assert_eq!(&*change(Action::ShutdownSessions), "shutdown sessions server app/web1");
        assert_eq!(Query::ServersState(None).to_string(), "show servers state");
        assert_eq!(Query::Tracking(target).to_string(), "set server app/web1 health ?");
        assert_eq!(Query::Removable(target).to_string(), "wait 1 srv-removable app/web1");
        let stat = |proxy, server, rows| Query::Stat { proxy, server, rows }.to_string();
        assert_eq!(stat(Some(3), Some(1), StatRows::Servers), "show stat 3 4 1");
        assert_eq!(stat(None, None, StatRows::Servers), "show stat -1 4 -1");
        assert_eq!(stat(None, None, StatRows::Backends), "show stat -1 2 -1");
        assert_eq!(stat(Some(3), Some(1), StatRows::ServersAndBackends), "show stat 3 6 1");
    }

    #[test]
    fn what_is_not_safe_by_name_goes_by_number() {
        for name in ["a b", "a;b", "#3", "a/b", "a\\b", ""] {
            assert_eq!(Reference::new(name, 7, Uniqueness::Unique).to_string(), "#7", "{name:?}");
        }
        assert_eq!(Reference::new("app", 7, Uniqueness::Unique).to_string(), "app");
        assert_eq!(Reference::new("app", 7, Uniqueness::Shared).to_string(), "#7");
    }

    #[test]
    fn the_longest_line_is_bounded() {
        let name = "x".repeat(2 * crate::model::name::NAME_MAX);
        let reference = Reference::new(&name, 1, Uniqueness::Unique);
        let line = Action::State(AdminState::Ready).line(Target { backend: reference, server: reference });
        assert!(line.len() < 8_000);
    }
}
