//! Signals that end a run: they are held back while HAProxy is in the middle of an answer, and looked at in between.
//!
//! The signals are blocked for the whole process and read from a file descriptor, so that no handler is needed and no
//! system call is cut short by one.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::model::error::{Error, ErrorKind, Result};

/// The signals that ask a run to end.
const SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE];

/// For the part of a run that no signal ends: setting back what it has changed.
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
        let msg = format!("the run was interrupted by {signal}; run it again to finish");
        Some(Error::new(ErrorKind::Interrupted, msg))
    }

    /// Waits, but not longer than until a signal comes.
    ///
    /// # Errors
    /// The failure that ends the run, once a signal has come.
    pub fn pause(&self, time: Duration) -> Result<()> {
        match &self.fd {
            Some(fd) => {
                let limit = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
                // That it was cut short, or could not wait at all, is no harm: who waits looks at the clock.
                let _ = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], limit);
            }
            None => std::thread::sleep(time),
        }
        self.check().map_or(Ok(()), Err)
    }

    /// Returns the file descriptor that becomes readable when a signal has come, for those who wait.
    #[must_use]
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }
}
