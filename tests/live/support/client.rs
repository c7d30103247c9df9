//! Clients that stay: bound by a cookie, on a connection that is kept, on plain TCP; and many of them as a load.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::backend::{Response, get_with};
use super::{HttpBackend, PATIENCE, eventually};

/// One request of a client that is bound to a server by its cookie, under way on a thread of its own.
#[derive(Debug)]
pub(crate) struct Bound(JoinHandle<io::Result<Response>>);

impl Bound {
    /// Sends the request, and waits until it is held at the server.
    pub(crate) fn hold(frontend: SocketAddr, server: &HttpBackend) -> Self {
        let count = server.held() + 1;
        let bound = Self::send(frontend, server.name(), "/hold");
        server.await_held(count);
        bound
    }

    /// Sends the request and waits for nothing.
    pub(crate) fn send(frontend: SocketAddr, server: &str, path: &'static str) -> Self {
        let cookie = format!("SRV={server}");
        Self(thread::spawn(move || get_with(frontend, path, &[("Cookie", &cookie)])))
    }

    /// Tells whether it has its answer, or the end of the connection.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.is_finished()
    }

    /// The name of the server that has answered.
    ///
    /// # Panics
    ///
    /// If the connection was cut, or the answer is no success.
    pub(crate) fn served_by(self) -> String {
        let response = self.answer().expect("an answer");
        assert!(response.status == 200, "{response:?}");
        response.body
    }

    /// The answer, which may be none.
    pub(crate) fn answer(self) -> io::Result<Response> {
        eventually(PATIENCE, "the end of a request", || self.0.is_finished().then_some(()));
        self.0.join().expect("the client")
    }
}

/// A client that sends one request after the other on a connection that it keeps.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    reader: BufReader<TcpStream>,
    /// The last `Set-Cookie`, without its attributes.
    cookie: Option<String>,
}

impl KeepAlive {
    pub(crate) fn connect(frontend: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(frontend)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream), cookie: None })
    }

    /// The status, and the name of the server that has answered; more headers are whole lines.
    pub(crate) fn get(&mut self, path: &str, headers: &str) -> io::Result<(u16, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
        self.reader.get_mut().write_all(request.as_bytes())?;
        let strange = |line: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{line:?} in a response"));
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| strange(&line))?;
        let mut length = 0;
        loop {
            let mut header = String::new();
            self.reader.read_line(&mut header)?;
            match header.trim_end().to_ascii_lowercase().split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().map_err(|_| strange(&header))?,
                Some(("set-cookie", _)) => {
                    let value = header.split_once(':').map(|(_, value)| value.trim());
                    self.cookie = value.and_then(|value| value.split(';').next()).map(str::to_owned);
                }
                Some(_) => {}
                None if header.trim_end().is_empty() && !header.is_empty() => break,
                None => return Err(strange(&header)),
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok((status, String::from_utf8_lossy(&body).trim_end().to_owned()))
    }
}

/// A client of a plain TCP frontend with an echo behind it.
#[derive(Debug)]
pub(crate) struct TcpClient(TcpStream);

impl TcpClient {
    /// Connects, and sends something to and fro, so that HAProxy has chosen a server.
    pub(crate) fn connect(frontend: SocketAddr) -> Self {
        let stream = TcpStream::connect(frontend).expect("a TCP frontend");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let mut client = Self(stream);
        client.echo().expect("an echo");
        client
    }

    /// Sends something and reads it back.
    pub(crate) fn echo(&mut self) -> io::Result<()> {
        self.0.write_all(b"hello\n")?;
        let mut back = [0; 6];
        self.0.read_exact(&mut back)
    }

    /// Waits for the end of the connection; whether it comes at once is told by the time-out.
    pub(crate) fn await_end(&mut self) {
        let mut byte = [0; 1];
        match self.0.read(&mut byte) {
            Ok(0) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("the connection did not end: {other:?}"),
        }
    }
}

/// How a client of a load comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visits {
    /// On a connection that it keeps.
    Kept,
    /// On a new connection each time.
    Anew,
    /// The same, with the last cookie that it was given, as a browser that is in use.
    WithCookie,
    /// The same, always with this cookie: as ever other browsers that were idle meanwhile.
    Bound(&'static str),
}

/// A steady load on a frontend.
///
/// Every request must be answered with 200; dropping it ends the clients.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    lost: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts so many clients, each with a pause between two requests, so that the machine has time for others. Half of
    /// them keep their connection, half open one for each request.
    pub(crate) fn start(frontend: SocketAddr, clients: usize, pause: Duration) -> Self {
        let visits: Vec<_> = [Visits::Kept, Visits::Anew].into_iter().cycle().take(clients).collect();
        Self::of(frontend, &visits, pause)
    }

    /// Starts a client for each of these.
    pub(crate) fn of(frontend: SocketAddr, visits: &[Visits], pause: Duration) -> Self {
        let (stop, served, lost) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::default());
        let client = |visits: &Visits| {
            let (stop, served, lost) = (stop.clone(), served.clone(), Arc::<Mutex<Vec<String>>>::clone(&lost));
            let visits = *visits;
            thread::spawn(move || {
                let mut kept: Option<KeepAlive> = None;
                let mut cookie = String::new();
                while !stop.load(Ordering::SeqCst) {
                    let mut connection = match kept.take().map_or_else(|| KeepAlive::connect(frontend), Ok) {
                        Ok(connection) => connection,
                        Err(error) => {
                            lost.lock().unwrap_or_else(PoisonError::into_inner).push(format!("connect: {error}"));
                            return;
                        }
                    };
                    let headers = match visits {
                        Visits::Kept => String::new(),
                        Visits::Anew => "Connection: close\r\n".to_owned(),
                        Visits::WithCookie => format!("Connection: close\r\nCookie: {cookie}\r\n"),
                        Visits::Bound(cookie) => format!("Connection: close\r\nCookie: {cookie}\r\n"),
                    };
                    match connection.get("/", &headers) {
                        Ok((200, _)) => {
                            served.fetch_add(1, Ordering::SeqCst);
                            if let Some(given) = connection.cookie.take() {
                                cookie = given;
                            }
                            kept = Some(connection).filter(|_| visits == Visits::Kept);
                        }
                        other => lost.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{other:?}")),
                    }
                    thread::sleep(pause);
                }
            })
        };
        let clients = visits.iter().map(client).collect();
        Self { stop, served, lost, clients }
    }

    /// Requests that were answered with 200 so far.
    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    /// Requests that were not, each with what came instead.
    pub(crate) fn lost(&self) -> Vec<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends all clients.
    pub(crate) fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}
