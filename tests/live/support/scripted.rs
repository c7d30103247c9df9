//! A socket that follows a script, for faults that a real HAProxy cannot be made to show.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::accept::Acceptor;

/// One step of what the socket does on a connection. After the last one the connection is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Reads a line; it must be this one.
    Expect(&'static str),
    /// Reads a line; it must begin with this.
    ExpectPrefix(&'static str),
    /// Reads a line, whatever it is.
    AnyLine,
    /// Sends these bytes in one write.
    Send(Vec<u8>),
    /// Sends these bytes one by one.
    Trickle(Vec<u8>),
    /// Sends these bytes again and again, until the client has gone.
    Flood(Vec<u8>),
    Sleep(Duration),
    /// Closes the connection.
    Close,
    /// Reads nothing and sends nothing until the client has gone or the socket is dropped.
    Hang,
    /// Reads to the client's end.
    ReadToEnd,
}

impl Step {
    /// Sends this text.
    pub(crate) fn send(text: impl AsRef<[u8]>) -> Self {
        Self::Send(text.as_ref().to_vec())
    }
}

/// A Unix socket with one script for each connection that comes, in order.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) socket: PathBuf,
    lines: Arc<Mutex<Vec<Vec<String>>>>,
    faults: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    players: Arc<Mutex<Vec<JoinHandle<()>>>>,
    _acceptor: Acceptor,
}

impl Scripted {
    /// Listens at a path. Connections beyond the scripts are accepted and closed, and are a fault.
    pub(crate) fn start(socket: &Path, scripts: Vec<Vec<Step>>) -> Self {
        Self::launch(socket, scripts, false)
    }

    /// Listens at a path; the last script serves all further connections too.
    pub(crate) fn start_repeating(socket: &Path, scripts: Vec<Vec<Step>>) -> Self {
        Self::launch(socket, scripts, true)
    }

    fn launch(socket: &Path, scripts: Vec<Vec<Step>>, repeat: bool) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket to listen on");
        let lines: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
        let faults: Arc<Mutex<Vec<String>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let players: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let (seen, wrong, stopped, playing) = (lines.clone(), faults.clone(), stop.clone(), players.clone());
        let mut index = 0;
        let accept = |listener: &UnixListener| listener.accept().map(|(client, _)| client);
        let acceptor = Acceptor::start(listener, accept, move |stream| {
            let connection = index;
            index += 1;
            let script = scripts.get(connection).or_else(|| scripts.last().filter(|_| repeat)).cloned();
            let Some(script) = script else {
                lock(&wrong).push(format!("connection {connection} is one too many"));
                return;
            };
            lock(&seen).push(Vec::new());
            let (seen, wrong, stopped) = (seen.clone(), wrong.clone(), stopped.clone());
            lock(&playing).push(thread::spawn(move || {
                if let Err(fault) = play(&stream, script, &stopped, |line| lock(&seen)[connection].push(line)) {
                    lock(&wrong).push(format!("connection {connection}: {fault}"));
                }
            }));
        });
        Self { socket: socket.to_owned(), lines, faults, stop, players, _acceptor: acceptor }
    }

    /// Socket as a text, for requests.
    pub(crate) fn address(&self) -> String {
        self.socket.display().to_string()
    }

    /// Lines that were read, by connection.
    pub(crate) fn connections(&self) -> Vec<Vec<String>> {
        lock(&self.lines).clone()
    }

    /// Where clients did not do as the scripts have it.
    pub(crate) fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for player in lock(&self.players).drain(..) {
            let _ = player.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays one script; what the client sends is waited for in slices, so that the end of the test ends it.
fn play(stream: &UnixStream, script: Vec<Step>, stop: &AtomicBool, mut see: impl FnMut(String)) -> Result<(), String> {
    stream.set_read_timeout(Some(Duration::from_millis(50))).map_err(|error| error.to_string())?;
    let mut reader = BufReader::new(stream);
    for step in script {
        match step {
            Step::Expect(wanted) => {
                let line = read_line(&mut reader, stop)?;
                see(line.clone());
                if line != wanted {
                    return Err(format!("expected {wanted:?}, got {line:?}"));
                }
            }
            Step::ExpectPrefix(wanted) => {
                let line = read_line(&mut reader, stop)?;
                see(line.clone());
                if !line.starts_with(wanted) {
                    return Err(format!("expected {wanted:?}…, got {line:?}"));
                }
            }
            Step::AnyLine => see(read_line(&mut reader, stop)?),
            Step::Send(bytes) => write(stream, &bytes)?,
            Step::Trickle(bytes) => bytes.iter().try_for_each(|byte| write(stream, &[*byte]))?,
            Step::Flood(bytes) => while !stop.load(Ordering::SeqCst) && write(stream, &bytes).is_ok() {},
            Step::Sleep(duration) => thread::sleep(duration),
            Step::Close => return Ok(()),
            Step::Hang => {
                while !stop.load(Ordering::SeqCst) && !hung_up(stream) {
                    thread::sleep(Duration::from_millis(10));
                }
            }
            Step::ReadToEnd => while read_some(&mut reader, stop)? > 0 {},
        }
    }
    Ok(())
}

fn write(mut stream: &UnixStream, bytes: &[u8]) -> Result<(), String> {
    stream.write_all(bytes).map_err(|error| format!("the client has gone: {error}"))
}

/// Reads a line without its end.
fn read_line(reader: &mut BufReader<&UnixStream>, stop: &AtomicBool) -> Result<String, String> {
    let mut line = Vec::new();
    loop {
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => return Err(format!("the client has gone after {:?}", String::from_utf8_lossy(&line))),
            Ok(_) if line.ends_with(b"\n") => {
                line.pop();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            Ok(_) => (),
            Err(error) => wait_more(&error, stop)?,
        }
    }
}

fn read_some(reader: &mut BufReader<&UnixStream>, stop: &AtomicBool) -> Result<usize, String> {
    let mut buffer = [0; 4096];
    loop {
        match reader.read(&mut buffer) {
            Ok(count) => return Ok(count),
            Err(error) => wait_more(&error, stop)?,
        }
    }
}

fn wait_more(error: &std::io::Error, stop: &AtomicBool) -> Result<(), String> {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut if !stop.load(Ordering::SeqCst) => Ok(()),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Err("the test is over".to_owned()),
        _ => Err(format!("the client has gone: {error}")),
    }
}

/// Tells whether the other end has closed, without reading what it sent.
fn hung_up(stream: &UnixStream) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd as _;
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
}
