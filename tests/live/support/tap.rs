//! A tap on a stats socket that interferes: it holds a reply up, or does something when a command comes by.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// When something is done about a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Before HAProxy gets it.
    Before,
    /// After HAProxy has carried it out, and before its reply is passed on.
    After,
}

type Action = Box<dyn FnOnce() + Send>;

/// A Unix socket that passes everything on to a real stats socket.
pub(crate) struct Tap {
    pub(crate) socket: PathBuf,
    passed: Arc<AtomicUsize>,
    plan: Arc<Plan>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Plan {
    when: When,
    /// What the command contains that something is done about, and how many such commands pass before.
    text: &'static str,
    before: AtomicUsize,
    action: Mutex<Option<Action>>,
    /// Held while the action is under way, and by whoever passes a reply on.
    gate: Mutex<()>,
    /// How many bytes of replies are passed on before the rest waits.
    hold_after: usize,
    released: AtomicBool,
}

impl Tap {
    /// Passes so many bytes of replies on, and the rest when it is released.
    pub(crate) fn holding(socket: &Path, target: &Path, hold_after: usize) -> Self {
        Self::start(socket, target, (When::Before, "", 0), None, hold_after)
    }

    /// Does something once, when the first command that changes anything comes by.
    pub(crate) fn once(socket: &Path, target: &Path, when: When, action: impl FnOnce() + Send + 'static) -> Self {
        Self::start(socket, target, (when, "set server ", 0), Some(Box::new(action)), usize::MAX)
    }

    /// Does something once, before HAProxy gets the command with this text after so many others with it.
    pub(crate) fn at(
        socket: &Path,
        target: &Path,
        (text, before): (&'static str, usize),
        action: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self::start(socket, target, (When::Before, text, before), Some(Box::new(action)), usize::MAX)
    }

    fn start(
        socket: &Path,
        target: &Path,
        (when, text, before): (When, &'static str, usize),
        action: Option<Action>,
        hold_after: usize,
    ) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket to listen on");
        let stop = Arc::new(AtomicBool::new(false));
        let passed = Arc::new(AtomicUsize::new(0));
        let plan = Arc::new(Plan {
            when,
            text,
            before: AtomicUsize::new(before),
            action: Mutex::new(action),
            gate: Mutex::new(()),
            hold_after,
            released: AtomicBool::new(false),
        });
        let (stopped, count, shared, target) = (stop.clone(), passed.clone(), plan.clone(), target.to_owned());
        let thread = thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(server) = UnixStream::connect(&target) else { continue };
                let (Ok(client_end), Ok(server_end)) = (client.try_clone(), server.try_clone()) else { continue };
                let (one, other, count) = (shared.clone(), shared.clone(), count.clone());
                thread::spawn(move || ask(client_end, server_end, &one));
                thread::spawn(move || answer(server, client, &other, &count));
            }
        });
        Self { socket: socket.to_owned(), passed, plan, stop, thread: Some(thread) }
    }

    /// Socket as a text, for requests.
    pub(crate) fn address(&self) -> String {
        self.socket.display().to_string()
    }

    /// Passes the rest of the replies on.
    pub(crate) fn release(&self) {
        self.plan.released.store(true, Ordering::SeqCst);
    }

    /// How many bytes of replies have been passed on.
    pub(crate) fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.release();
        self.stop.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.socket);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Passes commands on.
fn ask(mut client: UnixStream, mut server: UnixStream, plan: &Plan) {
    let mut buffer = vec![0; 65_536];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        let bytes = &buffer[..count];
        let is_meant = String::from_utf8_lossy(bytes).contains(plan.text);
        // Where the count is zero already, it is the one.
        let is_it = is_meant
            && plan.before.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |before| before.checked_sub(1)).is_err();
        let action = if is_it { lock(&plan.action).take() } else { None };
        let Some(action) = action else {
            if server.write_all(bytes).is_err() {
                break;
            }
            continue;
        };
        let gate = lock(&plan.gate);
        match plan.when {
            When::Before => {
                action();
                let _ = server.write_all(bytes);
            }
            When::After => {
                let _ = server.write_all(bytes);
                // HAProxy carries it out while its reply is held back here.
                thread::sleep(Duration::from_millis(100));
                action();
            }
        }
        drop(gate);
    }
    let _ = server.shutdown(Shutdown::Write);
}

/// Passes replies on; when the client has gone, the server is left as well, at once.
fn answer(mut server: UnixStream, mut client: UnixStream, plan: &Plan, passed: &AtomicUsize) {
    let mut buffer = vec![0; 16_384];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        while passed.load(Ordering::SeqCst) >= plan.hold_after && !plan.released.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        let gate = lock(&plan.gate);
        if client.write_all(&buffer[..count]).is_err() {
            let _ = server.shutdown(Shutdown::Both);
            return;
        }
        drop(gate);
        passed.fetch_add(count, Ordering::SeqCst);
    }
    let _ = client.shutdown(Shutdown::Write);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
