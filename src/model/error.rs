//! Every failure that a report can carry: its kind, whether trying again may help, and its message.
//!
//! An [`Error`] names the place it belongs to (instance, backend, server) separately from its message, so that a host
//! tool can act on it; the message says what happened, where, and what to do about it.

use std::fmt;
use std::ops::Deref;

use serde::Serialize as _;

use super::text::printable;

/// What went wrong, as a stable word that tools can compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is invalid, contradicts itself or does not fit the instances; nothing was changed.
    BadRequest,
    /// The request names an instance that no running HAProxy of this host has, or no HAProxy was discovered.
    InstanceNotFound,
    /// Two instances of this host have the same name.
    InstanceAmbiguous,
    /// Nothing answers at the address of an instance.
    Unreachable,
    /// The caller may not open the socket, or the socket's level does not allow a command that is needed.
    PermissionDenied,
    /// An instance did not answer within `timeout`, or the run did not finish within `deadline`.
    Timeout,
    /// Something answers at the address, but not as HAProxy's runtime API does.
    NotHaproxy,
    /// Several HAProxy processes (`nbproc`) answer at one socket, so that a change would reach only one of them.
    SeveralProcesses,
    /// A listed server or pattern matches nothing.
    ServerNotFound,
    /// A listed backend or pattern matches nothing.
    BackendNotFound,
    /// The change would leave a backend with fewer usable servers than `guard` allows, or other runs cannot be kept out.
    GuardRefused,
    /// A matched server is not in the state that `expect` names.
    ExpectationFailed,
    /// The request is `ready`, but another owner has taken the server out.
    Owned,
    /// Another run on the same HAProxy did not finish within `lock_timeout`.
    Locked,
    /// No command can bring the server into the requested state: its maintenance is inherited by `track` or comes from
    /// DNS.
    UnreachableState,
    /// The command was accepted, but something else, usually an agent check, has changed the server since.
    Overridden,
    /// Sessions were left at the deadline of `drain`, `wait` or `shutdown_sessions`.
    NotDrained,
    /// The server did not take traffic by the deadline of `wait`.
    NotUp,
    /// HAProxy refused a command; the message shows its answer.
    CommandRejected,
    /// HAProxy gave an unexpected answer; the message shows it.
    BadReply,
    /// HAProxy was reloaded during the run more often than the run could follow.
    Reloaded,
    /// A signal ended the run before it had finished.
    Interrupted,
    /// HAProxy's server-state file could not be read or written; it is unchanged.
    StateFile,
    /// This program may not have as many file descriptors or as much memory as it needs.
    Resources,
    /// A defect of this program.
    Internal,
}

impl ErrorKind {
    /// Tells whether the same request may succeed later without a change to it, the configuration or the rights.
    #[must_use]
    pub fn retryable(self) -> bool {
        match self {
            Self::Unreachable
            | Self::Timeout
            | Self::GuardRefused
            | Self::Locked
            | Self::NotDrained
            | Self::NotUp
            | Self::Reloaded
            | Self::BadReply
            | Self::Interrupted
            | Self::Resources => true,
            Self::BadRequest
            | Self::InstanceNotFound
            | Self::InstanceAmbiguous
            | Self::PermissionDenied
            | Self::NotHaproxy
            | Self::SeveralProcesses
            | Self::ServerNotFound
            | Self::BackendNotFound
            | Self::ExpectationFailed
            | Self::Owned
            | Self::UnreachableState
            | Self::Overridden
            | Self::CommandRejected
            | Self::StateFile
            | Self::Internal => false,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One failure, as small as a pointer: nearly everything returns one, and every server has room for one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.0.msg)]
pub struct Error(Box<Failure>);

/// What an [`Error`] tells: what happened, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong, as a stable word that tools can compare.
    pub kind: ErrorKind,
    /// What happened, where, and what to do about it, in one sentence.
    pub msg: String,
    /// The instance that it happened on.
    pub instance: Option<String>,
    /// The backend that it happened on.
    pub backend: Option<String>,
    /// The server that it happened on.
    pub server: Option<String>,
    /// Whether an answer was cut off: if asked again, HAProxy may give all of it.
    pub is_cut_off: bool,
}

impl Error {
    /// Makes an error that does not belong to an instance yet, with a message that is safe to show.
    pub fn new(kind: ErrorKind, msg: impl AsRef<str>) -> Self {
        Self(Box::new(Failure {
            kind,
            msg: printable(msg.as_ref()).into_owned(),
            instance: None,
            backend: None,
            server: None,
            is_cut_off: false,
        }))
    }

    /// Says that an answer was cut off.
    #[must_use]
    pub fn cut_off(mut self) -> Self {
        self.0.is_cut_off = true;
        self
    }

    /// Says which instance the error belongs to.
    #[must_use]
    pub fn on_instance(mut self, instance: &str) -> Self {
        self.0.instance = Some(instance.to_owned());
        self
    }

    /// Says which backend the error belongs to.
    #[must_use]
    pub fn on_backend(mut self, backend: &str) -> Self {
        self.0.backend = Some(backend.to_owned());
        self
    }

    /// Says which server of which backend the error belongs to.
    #[must_use]
    pub fn on_server(self, backend: &str, server: &str) -> Self {
        let mut error = self.on_backend(backend);
        error.0.server = Some(server.to_owned());
        error
    }
}

impl Deref for Error {
    type Target = Failure;

    fn deref(&self) -> &Failure {
        &self.0
    }
}

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_on_its_own_is_worth_another_try() {
        for (kind, word, retryable) in [
            (ErrorKind::Unreachable, "unreachable", true),
            (ErrorKind::Timeout, "timeout", true),
            (ErrorKind::GuardRefused, "guard_refused", true),
            (ErrorKind::NotDrained, "not_drained", true),
            (ErrorKind::BadRequest, "bad_request", false),
            (ErrorKind::PermissionDenied, "permission_denied", false),
            (ErrorKind::Owned, "owned", false),
            (ErrorKind::StateFile, "state_file", false),
        ] {
            assert_eq!((kind.to_string().as_str(), kind.retryable()), (word, retryable));
        }
    }

    #[test]
    fn an_error_says_where_it_happened() {
        let error = Error::new(ErrorKind::Timeout, "no\nanswer");
        assert_eq!((error.to_string().as_str(), error.is_cut_off), ("no\\u{a}answer", false));
        assert_eq!((&error.instance, &error.backend, &error.server), (&None, &None, &None));
        let error = error.cut_off().on_instance("http").on_server("app", "web1");
        let text = |text: &str| Some(text.to_owned());
        assert!(error.is_cut_off);
        assert_eq!((&error.instance, &error.backend, &error.server), (&text("http"), &text("app"), &text("web1")));
        let elsewhere = error.on_backend("api");
        assert_eq!((&elsewhere.backend, &elsewhere.server), (&text("api"), &text("web1")));
    }
}
