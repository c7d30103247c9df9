//! The servers behind HAProxy, which log every request, and the clients in front of it.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::Port;
use crate::support::accept::Acceptor;

/// A request that a server has got: through which instance, as which `backend/server`.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) at: Instant,
    pub(crate) instance: String,
    pub(crate) server: String,
}

/// What all servers share.
#[derive(Debug, Default)]
pub(crate) struct Log {
    requests: Mutex<Vec<Request>>,
    total: AtomicU64,
}

impl Log {
    /// What was logged since this was called last.
    pub(crate) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many requests there were in all.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

/// One server: HTTP with keep-alive. A path is `/instance/backend/milliseconds`, or `/health`.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) port: Port,
    is_healthy: Arc<AtomicBool>,
    _acceptor: Acceptor,
}

impl App {
    pub(crate) fn start(log: &Arc<Log>) -> Self {
        let port = Port::reserve();
        let is_healthy = Arc::new(AtomicBool::new(true));
        let (log, healthy) = (log.clone(), is_healthy.clone());
        let accept = |listener: &std::net::TcpListener| listener.accept().map(|(client, _)| client);
        let acceptor = Acceptor::start(port.listen(), accept, move |stream| {
            let (log, healthy) = (log.clone(), healthy.clone());
            thread::spawn(move || serve(&log, &healthy, &stream));
        });
        Self { port, is_healthy, _acceptor: acceptor }
    }

    pub(crate) fn set_healthy(&self, is_healthy: bool) {
        self.is_healthy.store(is_healthy, Ordering::SeqCst);
    }
}

fn serve(log: &Log, healthy: &AtomicBool, stream: &TcpStream) -> io::Result<()> {
    // HAProxy may keep a connection of its own for a long time, but not for ever.
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (head, name) = match read_head(&mut reader)? {
            Some(head) => head,
            None => return Ok(()),
        };
        let at = Instant::now();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        let status = match parts[..] {
            [_, "health"] if healthy.load(Ordering::SeqCst) => "200 OK",
            [_, instance, backend, pause] => {
                let request = Request { at, instance: instance.to_owned(), server: format!("{backend}/{name}") };
                log.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                log.total.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(pause.parse().unwrap_or(0)));
                "200 OK"
            }
            _ => "503 Service Unavailable",
        };
        let close = head.trim_end().ends_with("HTTP/1.0");
        let connection = if close { "close" } else { "keep-alive" };
        (&*stream).write_all(
            format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: {connection}\r\n\r\n").as_bytes(),
        )?;
        if close {
            return Ok(());
        }
    }
}

/// The request line, and the name that HAProxy has for this server.
fn read_head(reader: &mut impl io::BufRead) -> io::Result<Option<(String, String)>> {
    let (mut head, mut name) = (String::new(), String::new());
    if reader.read_line(&mut head)? == 0 {
        return Ok(None);
    }
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 {
            return Ok(None);
        }
        if header.trim_end().is_empty() {
            return Ok(Some((head, name)));
        }
        if let Some((key, value)) = header.split_once(": ") {
            if key.eq_ignore_ascii_case("x-soak-server") {
                value.trim_end().clone_into(&mut name);
            }
        }
    }
}

/// Clients of the frontends, which take what they get.
#[derive(Debug)]
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    pub(crate) fn start(fronts: &[(SocketAddr, String)], pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let visit = |(front, path): &(SocketAddr, String), is_kept: bool| {
            let (stop, front, path) = (stop.clone(), *front, path.clone());
            thread::spawn(move || {
                let (mut kept, mut cookie) = (None, String::new());
                for number in 0_u64.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    // Long enough to be seen in a drain, every now and then; and a browser that is closed every now and then.
                    let time = if number % 7 == 0 { 150 } else { 0 };
                    if number % 10 == 0 {
                        cookie.clear();
                    }
                    kept = visit(kept, front, &format!("{path}/{time}"), &mut cookie).ok().filter(|_| is_kept);
                    thread::sleep(pause);
                }
            })
        };
        let threads = fronts.iter().flat_map(|front| [visit(front, true), visit(front, false)]).collect();
        Self { stop, threads }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One request, on the connection of the last one if it was kept.
fn visit(
    kept: Option<BufReader<TcpStream>>,
    front: SocketAddr,
    path: &str,
    cookie: &mut String,
) -> io::Result<BufReader<TcpStream>> {
    let mut reader = match kept {
        Some(reader) => reader,
        None => {
            let stream = TcpStream::connect_timeout(&front, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.set_nodelay(true)?;
            BufReader::new(stream)
        }
    };
    let shown = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    reader.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: soak\r\n{shown}\r\n").as_bytes())?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end().split_once(": ") {
            Some((key, value)) if key.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap_or(0),
            Some((key, value)) if key.eq_ignore_ascii_case("set-cookie") => {
                value.split(';').next().unwrap_or_default().clone_into(cookie);
            }
            Some((key, value)) if key.eq_ignore_ascii_case("connection") && value == "close" => {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            None if line.trim_end().is_empty() => break,
            Some(_) | None => {}
        }
    }
    io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
    Ok(reader)
}
