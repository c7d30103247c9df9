//! A tap on a stats socket: what the program really sends, as seen at the socket.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::accept::Acceptor;
use super::{Instance, PATIENCE};

/// A Unix socket that passes everything on to a real stats socket and keeps what clients send.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) socket: PathBuf,
    connections: Arc<Mutex<Vec<Vec<u8>>>>,
    times: Arc<Mutex<Vec<(Instant, usize, String)>>>,
    gate: Arc<Gate>,
    _acceptor: Acceptor,
}

/// What holds changing commands up on their way to HAProxy.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    is_closed: bool,
    waiting: usize,
    tickets: usize,
}

impl Recorder {
    /// Taps an instance. The recorder's socket is `seen<number>/<name>.sock` in the instance's folder, so that an
    /// instance may have several recorders at a time.
    pub(crate) fn on(instance: &Instance) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let folder = instance.folder.join(&format!("seen{}", NEXT.fetch_add(1, Ordering::SeqCst)));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self::start(&folder.join(format!("{}.sock", instance.name())), &instance.socket)
    }

    pub(crate) fn start(socket: &Path, target: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket to listen on");
        let connections: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let times: Arc<Mutex<Vec<(Instant, usize, String)>>> = Arc::default();
        let gate: Arc<Gate> = Arc::default();
        let (seen, target) = (connections.clone(), target.to_owned());
        let (timed, guarded) = (times.clone(), gate.clone());
        let accept = |listener: &UnixListener| listener.accept().map(|(client, _)| client);
        let acceptor = Acceptor::start(listener, accept, move |client| {
            // As HAProxy not being there: the client is cut off without a word.
            let Ok(server) = UnixStream::connect(&target) else { return };
            let index = {
                let mut seen = lock(&seen);
                seen.push(Vec::new());
                seen.len() - 1
            };
            let (Ok(client_end), Ok(server_end)) = (client.try_clone(), server.try_clone()) else { return };
            let (seen, timed, guarded) = (seen.clone(), timed.clone(), guarded.clone());
            thread::spawn(move || {
                let mut unfinished = Vec::new();
                pass(client_end, server_end, |bytes| {
                    lock(&seen)[index].extend_from_slice(bytes);
                    unfinished.extend_from_slice(bytes);
                    let mut is_change = false;
                    while let Some(end) = unfinished.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = unfinished.drain(..=end).collect();
                        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                        is_change |= changing(&line);
                        lock(&timed).push((Instant::now(), index, line));
                    }
                    if is_change {
                        guarded.pass();
                    }
                });
            });
            thread::spawn(move || pass(server, client, |_| ()));
        });
        Self { socket: socket.to_owned(), connections, times, gate, _acceptor: acceptor }
    }

    /// Lines of all connections in the order in which they came, with their times, which all recorders share.
    pub(crate) fn timeline(&self) -> Vec<(Instant, String)> {
        lock(&self.times).iter().map(|(at, _, line)| (*at, line.clone())).collect()
    }

    /// Lines of all connections in the order in which they came, each with the number of its connection.
    pub(crate) fn sequence(&self) -> Vec<(usize, String)> {
        lock(&self.times).iter().map(|(_, connection, line)| (*connection, line.clone())).collect()
    }

    /// Holds changing commands up from now on, until [`Self::let_go`].
    pub(crate) fn hold_changes(&self) {
        lock(&self.gate.state).is_closed = true;
    }

    /// Waits until a changing command is held up.
    pub(crate) fn await_held(&self) {
        super::eventually(PATIENCE, "a changing command", || (lock(&self.gate.state).waiting > 0).then_some(()));
    }

    /// Passes on what is held up now, or else the next that comes.
    pub(crate) fn let_go_of_one(&self) {
        let mut state = lock(&self.gate.state);
        state.tickets += 1;
        self.gate.changed.notify_all();
        let end = Instant::now() + PATIENCE;
        while state.tickets > 0 && Instant::now() < end {
            (state, _) = self
                .gate
                .changed
                .wait_timeout(state, Duration::from_millis(100))
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Passes on what is held up, and what comes later.
    pub(crate) fn let_go(&self) {
        lock(&self.gate.state).is_closed = false;
        self.gate.changed.notify_all();
    }

    /// Socket as a text, for requests.
    pub(crate) fn address(&self) -> String {
        self.socket.display().to_string()
    }

    /// Lines of each connection in the order in which they were sent; an unfinished last line counts.
    pub(crate) fn connections(&self) -> Vec<Vec<String>> {
        let connections = lock(&self.connections);
        connections.iter().map(|bytes| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()).collect()
    }

    /// Lines of all connections, one connection after the other.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.connections().concat()
    }

    /// Commands that change something, of all connections.
    pub(crate) fn changing_commands(&self) -> Vec<String> {
        self.lines()
            .iter()
            .flat_map(|line| line.split(';'))
            .filter(|command| changing(command))
            .map(str::to_owned)
            .collect()
    }

    /// Forgets what was seen so far. Connections that are still open must not be in use.
    pub(crate) fn clear(&self) {
        for bytes in lock(&self.connections).iter_mut() {
            bytes.clear();
        }
        lock(&self.times).clear();
    }
}

impl Gate {
    /// Waits while it is closed, for at most a minute.
    fn pass(&self) {
        let mut state = lock(&self.state);
        state.waiting += 1;
        let end = Instant::now() + Duration::from_secs(60);
        while state.is_closed && Instant::now() < end {
            if state.tickets > 0 {
                state.tickets -= 1;
                self.changed.notify_all();
                break;
            }
            (state, _) =
                self.changed.wait_timeout(state, Duration::from_secs(1)).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Tells whether a command changes anything but its own connection.
pub(crate) fn changing(command: &str) -> bool {
    let mut words = command.split_whitespace().peekable();
    // The master CLI's prefix.
    words.next_if(|word| word.starts_with('@'));
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match first {
        "" | "show" | "get" | "help" | "prompt" | "quit" | "user" | "operator" | "echo" | "wait" => false,
        "set" if matches!(second, "severity-output" | "timeout" | "anon") => false,
        // Refused: it only tells whether the server tracks another one.
        "set" => (second, words.nth(1), words.next(), words.next()) != ("server", Some("health"), Some("?"), None),
        // All else is taken for a change: whoever sends it must want to.
        _ => true,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes bytes on to their end, and the end as well.
fn pass(mut from: UnixStream, mut to: UnixStream, mut see: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 65_536];
    loop {
        match from.read(&mut buffer) {
            Ok(count) if count > 0 => {
                see(&buffer[..count]);
                if to.write_all(&buffer[..count]).is_err() {
                    // Who does not listen any more is not talked to: the sender shall notice.
                    let _ = from.shutdown(Shutdown::Both);
                    return;
                }
            }
            Ok(_) | Err(_) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
        }
    }
}
