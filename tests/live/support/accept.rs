//! Threads that accept connections until they are told to stop.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::socket::{Shutdown, shutdown};

/// A thread that accepts connections; dropping it ends the thread and lets go of the socket.
pub(crate) struct Acceptor {
    socket: OwnedFd,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Calls `each` with every connection that `accept` gives.
    pub(crate) fn start<L: AsFd + Send + 'static, C>(
        listener: L,
        accept: impl Fn(&L) -> std::io::Result<C> + Send + 'static,
        mut each: impl FnMut(C) + Send + 'static,
    ) -> Self {
        let socket = listener.as_fd().try_clone_to_owned().expect("a second handle of a socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                if let Ok(connection) = accept(&listener)
                    && !stopped.load(Ordering::SeqCst)
                {
                    each(connection);
                }
            }
        });
        Self { socket, stop, thread: Some(thread) }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Ends the `accept` that the thread is in. To connect would not do: the address may be another's by now.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Acceptor({})", self.socket.as_raw_fd())
    }
}
