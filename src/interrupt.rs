//! Signals that end a run: they are held back while HAProxy is in the middle of an answer, and looked at in between.
//!
//! The signals are blocked for the whole process and read from a file descriptor, so that no handler is needed and no
//! system call is cut short by one.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Error, ErrorKind};

/// The signals that ask a run to end.
const SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE];

/// Whether a signal has asked the run to end.
#[derive(Debug, Default)]
pub struct Interrupt {
    fd: Option<SignalFd>,
    seen: OnceLock<&'static str>,
}

impl Interrupt {
    /// Holds the signals back from now on; to be called before any thread is started.
    ///
    /// # Errors
    /// When the kernel does not let the process block or read its signals.
    pub fn hold() -> nix::Result<Self> {
        let signals: SigSet = SIGNALS.into_iter().collect();
        signals.thread_block()?;
        let fd = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd: Some(fd), seen: OnceLock::new() })
    }

    /// Returns the failure that ends the run, once a signal has come.
    #[must_use]
    pub fn check(&self) -> Option<Error> {
        let signal = self.seen.get().copied().or_else(|| {
            let info = self.fd.as_ref()?.read_signal().ok()??;
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())?;
            Some(*self.seen.get_or_init(|| signal.as_str()))
        })?;
        let msg = format!("the run was ended by {signal} before it was done; run it again to finish it");
        Some(Error::new(ErrorKind::Interrupted, msg))
    }

    /// Returns the file descriptor that becomes readable when a signal has come, for those who wait.
    #[must_use]
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }
}
