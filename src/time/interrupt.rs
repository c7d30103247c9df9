//! What ends a run before it has finished: signals, which are held back while HAProxy is answering and checked in
//! between, and its deadline.
//!
//! The signals are blocked for the whole process and read from a file descriptor, so no handler is needed and no system
//! call is interrupted.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::model::error::{Error, ErrorKind, Result};

/// The signals that ask a run to end: all that would end the process and can be held back.
const ENDING: [Signal; 15] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGPIPE,
    Signal::SIGXFSZ,
    Signal::SIGXCPU,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGSTKFLT,
];

/// What a person stops a program with (Ctrl-Z): the run stops only in a pause, where no dump is under way and no lock is
/// held.
const STOP: Signal = Signal::SIGTSTP;

/// For the part of a run that no signal ends: rolling back what it has changed.
pub static PATIENT: Interrupt = Interrupt::never();

/// Whether a signal has asked the run to end, or its deadline is over.
#[derive(Debug)]
pub struct Interrupt {
    fd: Option<SignalFd>,
    seen: OnceLock<&'static str>,
    must_stop: AtomicBool,
    deadline: OnceLock<RunDeadline>,
}

/// When a run must end, and how long it was given.
#[derive(Debug, Clone, Copy)]
struct RunDeadline {
    end: Instant,
    total: Duration,
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
        Self { fd: None, seen: OnceLock::new(), must_stop: AtomicBool::new(false), deadline: OnceLock::new() }
    }

    /// Holds back the signals from now on; must be called before any thread is started.
    ///
    /// # Errors
    /// When the kernel does not let the process block or read its signals.
    pub fn hold() -> nix::Result<Self> {
        let signals: SigSet = ENDING.into_iter().chain([STOP]).collect();
        signals.thread_block()?;
        // With this, a terminal does not stop the run for writing to it in the background ('stty tostop').
        SigSet::from(Signal::SIGTTOU).thread_block()?;
        let fd = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd: Some(fd), ..Self::never() })
    }

    /// Acts as if a signal had arrived.
    #[cfg(test)]
    pub fn raise(&self) {
        self.seen.get_or_init(|| "SIGTERM");
    }

    /// Gives the run this much time from now on.
    pub fn bound(&self, total: Duration) {
        self.deadline.get_or_init(|| RunDeadline { end: Instant::now() + total, total });
    }

    /// Returns when the run must end, if it has a deadline.
    #[must_use]
    pub fn end(&self) -> Option<Instant> {
        self.deadline.get().map(|deadline| deadline.end)
    }

    /// Returns the failure that ends the run, once a signal has arrived or its deadline is over.
    #[must_use]
    pub fn check(&self) -> Option<Error> {
        self.check_signals().or_else(|| {
            let RunDeadline { total, .. } = self.deadline.get().filter(|deadline| deadline.end <= Instant::now())?;
            let msg = format!(
                "the run did not finish within its 'deadline' of {} s; run it again to finish, or allow more time",
                total.as_secs_f64()
            );
            Some(Error::new(ErrorKind::Timeout, msg))
        })
    }

    fn check_signals(&self) -> Option<Error> {
        let signal = self.seen.get().copied().or_else(|| self.read())?;
        let msg = format!("the run was interrupted by {signal}; run it again to finish");
        Some(Error::new(ErrorKind::Interrupted, msg))
    }

    /// Reads the signals that have arrived, and returns the first that asks the run to end.
    fn read(&self) -> Option<&'static str> {
        loop {
            let info = self.fd.as_ref()?.read_signal().ok()??;
            match i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())? {
                STOP => self.must_stop.store(true, Ordering::Relaxed),
                signal => return Some(*self.seen.get_or_init(|| signal.as_str())),
            }
        }
    }

    /// Stops the process, if a person has asked for that, until it is continued.
    pub fn stop_if_asked(&self) {
        if self.must_stop.swap(false, Ordering::Relaxed) {
            let stop = SigSet::from(STOP);
            // The kernel knows best what that means: it stops nothing that nobody could continue.
            let _ = raise(STOP).and_then(|()| stop.thread_unblock()).and_then(|()| stop.thread_block());
        }
    }

    /// Waits, but only until a signal arrives or the deadline is over.
    ///
    /// # Errors
    /// Returns the failure that ends the run.
    pub fn pause(&self, time: Duration) -> Result<()> {
        let left = self.end().map(|end| end.saturating_duration_since(Instant::now()));
        // The kernel counts in milliseconds: one more, so that the end is past and not just before.
        let time = left.map_or(time, |left| time.min(left + Duration::from_millis(1)));
        match &self.fd {
            Some(fd) => {
                let limit = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
                // An early return does no harm: the caller checks the clock.
                let _ = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], limit);
            }
            None => std::thread::sleep(time),
        }
        let result = self.check().map_or(Ok(()), Err);
        self.stop_if_asked();
        result
    }

    /// Returns the file descriptor that becomes readable when a signal has arrived, for callers that wait.
    #[must_use]
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }
}
