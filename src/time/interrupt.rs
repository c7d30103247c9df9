//! Signals that end a run: they are held back while HAProxy is answering, and checked in between.
//!
//! The signals are blocked for the whole process and read from a file descriptor, so no handler is needed and no system
//! call is interrupted.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::model::error::{Error, ErrorKind, Result};

/// The signals that ask a run to end.
const SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE];

/// For the part of a run that no signal ends: rolling back what it has changed.
pub static PATIENT: Interrupt = Interrupt::never();

/// Whether a signal has asked the run to end.
#[derive(Debug)]
pub struct Interrupt {
    fd: Option<SignalFd>,
    seen: OnceLock<&'static str>,
}

impl Default for Interrupt {
    fn default() -> Self {
        Self::never()
    }
}

impl Interrupt {
    /// Makes one that no signal reaches.
    #[must_use]
    pub const fn never() -> Self {
        Self { fd: None, seen: OnceLock::new() }
    }

    /// Holds back the signals from now on; must be called before any thread is started.
    ///
    /// # Errors
    /// When the kernel does not let the process block or read its signals.
    pub fn hold() -> nix::Result<Self> {
        let signals: SigSet = SIGNALS.into_iter().collect();
        signals.thread_block()?;
        let fd = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd: Some(fd), seen: OnceLock::new() })
    }

    /// Acts as if a signal had arrived.
    #[cfg(test)]
    pub fn raise(&self) {
        self.seen.get_or_init(|| "SIGTERM");
    }

    /// Returns the failure that ends the run, once a signal has arrived.
    #[must_use]
    pub fn check(&self) -> Option<Error> {
        let signal = self.seen.get().copied().or_else(|| {
            let info = self.fd.as_ref()?.read_signal().ok()??;
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())?;
            Some(*self.seen.get_or_init(|| signal.as_str()))
        })?;
        let msg = format!("the run was interrupted by {signal}; run it again to finish");
        Some(Error::new(ErrorKind::Interrupted, msg))
    }

    /// Waits, but only until a signal arrives.
    ///
    /// # Errors
    /// Returns the failure that ends the run, once a signal has arrived.
    pub fn pause(&self, time: Duration) -> Result<()> {
        match &self.fd {
            Some(fd) => {
                let limit = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
                // An early return does no harm: the caller checks the clock.
                let _ = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], limit);
            }
            None => std::thread::sleep(time),
        }
        self.check().map_or(Ok(()), Err)
    }

    /// Returns the file descriptor that becomes readable when a signal has arrived, for callers that wait.
    #[must_use]
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }
}
