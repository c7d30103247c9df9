//! Real servers for HAProxy to stand in front of: HTTP, plain TCP, agent checks, DNS; and a client for its frontends.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, fs};

use super::accept::Acceptor;
use super::{PATIENCE, Port, eventually};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A TCP service: a thread that accepts, and one for each connection.
struct Service {
    port: Port,
    handler: Arc<dyn Fn(TcpStream) + Send + Sync>,
    /// Connections that are open, so that they can be cut.
    open: Arc<Mutex<HashMap<usize, TcpStream>>>,
    listening: Mutex<Option<Acceptor>>,
}

impl Service {
    fn start(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let service = Self {
            port: Port::reserve(),
            handler: Arc::new(handler),
            open: Arc::default(),
            listening: Mutex::new(None),
        };
        service.listen();
        service
    }

    /// Takes connections; does nothing when it does so already.
    fn listen(&self) {
        let mut listening = lock(&self.listening);
        if listening.is_some() {
            return;
        }
        let (open, handler) = (self.open.clone(), self.handler.clone());
        let accept = |listener: &TcpListener| listener.accept().map(|(client, _)| client);
        *listening = Some(Acceptor::start(self.port.listen(), accept, move |stream| {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let Ok(other) = stream.try_clone() else { return };
            let id = NEXT.fetch_add(1, Ordering::SeqCst);
            lock(&open).insert(id, other);
            let (open, handler) = (open.clone(), handler.clone());
            thread::spawn(move || {
                handler(stream);
                // The clone keeps the connection open otherwise.
                if let Some(stream) = lock(&open).remove(&id) {
                    let _ = stream.shutdown(Shutdown::Both);
                }
            });
        }));
    }

    /// Refuses connections from now on, and cuts those that are open.
    fn refuse(&self) {
        drop(lock(&self.listening).take());
        self.cut();
    }

    fn cut(&self) {
        for (_, stream) in lock(&self.open).drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.refuse();
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({})", self.port.address())
    }
}

/// What an HTTP server answers to its health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// 200
    Good,
    /// 404, which is `stopping` with `http-check disable-on-404`.
    NotFound,
    /// 500
    Bad,
    /// Connections are refused, those of clients too.
    Refuse,
}

#[derive(Debug)]
struct Site {
    name: String,
    health: Mutex<Health>,
    /// Requests of each connection that has had any, health checks left out.
    requests: Mutex<Vec<usize>>,
    checks: AtomicUsize,
    hold: Hold,
}

/// The requests that wait to be let go.
#[derive(Debug, Default)]
struct Hold {
    state: Mutex<HoldState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct HoldState {
    waiting: usize,
    open: bool,
}

/// An HTTP/1.1 server with keep-alive that answers every request with its name.
///
/// `/health` is for health checks and is not counted, `/hold` is answered after [`HttpBackend::release`].
#[derive(Debug)]
pub(crate) struct HttpBackend {
    site: Arc<Site>,
    service: Service,
}

impl HttpBackend {
    pub(crate) fn start(name: &str) -> Self {
        let site = Arc::new(Site {
            name: name.to_owned(),
            health: Mutex::new(Health::Good),
            requests: Mutex::default(),
            checks: AtomicUsize::new(0),
            hold: Hold::default(),
        });
        let served = site.clone();
        Self { site, service: Service::start(move |stream| serve_http(&served, &stream).unwrap_or(())) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.site.name
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.service.port.address()
    }

    pub(crate) fn port(&self) -> u16 {
        self.service.port.number()
    }

    pub(crate) fn set_health(&self, health: Health) {
        *lock(&self.site.health) = health;
        match health {
            Health::Refuse => self.service.refuse(),
            Health::Good | Health::NotFound | Health::Bad => self.service.listen(),
        }
    }

    /// Requests so far, health checks left out.
    pub(crate) fn requests(&self) -> usize {
        lock(&self.site.requests).iter().sum()
    }

    /// Requests of each connection so far, health checks left out.
    pub(crate) fn requests_by_connection(&self) -> Vec<usize> {
        lock(&self.site.requests).clone()
    }

    /// Health checks so far.
    pub(crate) fn checks(&self) -> usize {
        self.site.checks.load(Ordering::SeqCst)
    }

    /// Requests for `/hold` that wait.
    pub(crate) fn held(&self) -> usize {
        lock(&self.site.hold.state).waiting
    }

    /// Waits until this many requests are held.
    pub(crate) fn await_held(&self, count: usize) {
        eventually(PATIENCE, &format!("{count} held requests at {}", self.name()), || {
            (self.held() >= count).then_some(())
        });
    }

    /// Answers all held requests, and those that come later at once.
    pub(crate) fn release(&self) {
        lock(&self.site.hold.state).open = true;
        self.site.hold.changed.notify_all();
    }

    /// Holds requests for `/hold` again after [`Self::release`].
    pub(crate) fn hold(&self) {
        lock(&self.site.hold.state).open = false;
    }

    /// Cuts all connections that are open.
    pub(crate) fn cut(&self) {
        self.service.cut();
    }
}

impl Drop for HttpBackend {
    fn drop(&mut self) {
        self.release();
    }
}

fn serve_http(site: &Site, stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut connection = None;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut close = request.trim_end().ends_with("HTTP/1.0");
        let mut length = 0;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 {
                return Ok(());
            }
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            close |= header == "connection: close";
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        let path = request.split(' ').nth(1).unwrap_or_default();
        let status = if path == "/health" {
            site.checks.fetch_add(1, Ordering::SeqCst);
            match *lock(&site.health) {
                Health::Good => "200 OK",
                Health::NotFound => "404 Not Found",
                Health::Bad => "500 Internal Server Error",
                Health::Refuse => return Ok(()),
            }
        } else {
            let mut requests = lock(&site.requests);
            let at = *connection.get_or_insert_with(|| {
                requests.push(0);
                requests.len() - 1
            });
            requests[at] += 1;
            drop(requests);
            if path == "/hold" {
                let mut state = lock(&site.hold.state);
                state.waiting += 1;
                while !state.open {
                    state = site.hold.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.waiting -= 1;
            }
            "200 OK"
        };
        let body = format!("{}\n", site.name);
        let connection = if close { "close" } else { "keep-alive" };
        let reply = format!(
            "HTTP/1.1 {status}\r\nX-Server: {}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
            site.name,
            body.len()
        );
        (&*stream).write_all(reply.as_bytes())?;
        if close {
            return Ok(());
        }
    }
}

/// The API of a database server that says whether it has the role that is asked for, as Patroni's does.
#[derive(Debug)]
pub(crate) struct Patroni(Service);

impl Patroni {
    /// The server of this name; the name in the file `leader` is that of the primary.
    pub(crate) fn start(name: &'static str, leader: &Path) -> Self {
        let leader = leader.to_owned();
        Self(Service::start(move |mut stream| {
            let mut request = String::new();
            let _ = BufReader::new(&stream).read_line(&mut request);
            let is_primary = fs::read_to_string(&leader).is_ok_and(|leader| leader.trim() == name);
            let status = match (request.split(' ').nth(1), is_primary) {
                (Some("/primary"), true) | (Some("/replica"), false) => "200 OK",
                _ => "503 Service Unavailable",
            };
            let _ = stream.write_all(format!("HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        }))
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port.number()
    }
}

/// A plain TCP server that sends back what it gets.
#[derive(Debug)]
pub(crate) struct TcpEcho(Service);

impl TcpEcho {
    pub(crate) fn start() -> Self {
        Self(Service::start(|stream| {
            let _ = io::copy(&mut &stream, &mut &stream);
        }))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.port.address()
    }

    /// Connections that are open.
    pub(crate) fn connections(&self) -> usize {
        lock(&self.0.open).len()
    }

    pub(crate) fn refuse(&self) {
        self.0.refuse();
    }

    pub(crate) fn listen(&self) {
        self.0.listen();
    }
}

/// A plain TCP server that sends the same bytes to everybody.
#[derive(Debug)]
pub(crate) struct TcpTalker(Service);

impl TcpTalker {
    pub(crate) fn start(bytes: &'static [u8]) -> Self {
        Self(Service::start(move |mut stream| {
            if stream.write_all(bytes).is_ok() {
                let _ = stream.shutdown(Shutdown::Write);
                let _ = io::copy(&mut stream, &mut io::sink());
            }
        }))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.port.address()
    }
}

/// An agent for `agent-check`: it answers each connection with its words.
#[derive(Debug)]
pub(crate) struct Agent {
    words: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    service: Service,
}

impl Agent {
    /// An agent that says these words, as in `drain` or `up 75%`.
    pub(crate) fn start(words: &str) -> Self {
        let words = Arc::new(Mutex::new(words.to_owned()));
        let asked = Arc::new(AtomicUsize::new(0));
        let (said, count) = (words.clone(), asked.clone());
        let service = Service::start(move |mut stream| {
            let line = format!("{}\n", lock(&said));
            if stream.write_all(line.as_bytes()).is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
            // What `agent-send` has sent is read, as closing would reset the connection otherwise.
            let _ = stream.shutdown(Shutdown::Write);
            let _ = io::copy(&mut stream, &mut io::sink());
        });
        Self { words, asked, service }
    }

    pub(crate) fn port(&self) -> u16 {
        self.service.port.number()
    }

    /// Words for a server line that make HAProxy ask this agent, each `inter` (as in `100ms`).
    ///
    /// Something is sent to it: 2.2 delays the end of the TCP handshake by 200 ms otherwise, and a shorter
    /// `agent-inter` then always runs out.
    pub(crate) fn options(&self, inter: &str) -> String {
        format!("agent-check agent-addr 127.0.0.1 agent-port {} agent-send \"hi\\n\" agent-inter {inter}", self.port())
    }

    /// Says other words from now on.
    pub(crate) fn say(&self, words: &str) {
        words.clone_into(&mut lock(&self.words));
    }

    /// Waits until HAProxy has asked once more than now.
    pub(crate) fn await_asked(&self) {
        let before = self.asked.load(Ordering::SeqCst);
        eventually(PATIENCE, "an agent check", || (self.asked.load(Ordering::SeqCst) > before).then_some(()));
    }
}

/// What the DNS server answers for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// These A records.
    Addresses(Vec<Ipv4Addr>),
    /// One SRV record: the name and the port of a server.
    Service(&'static str, u16),
    /// No such name.
    NxDomain,
    /// No answer at all.
    Silence,
}

/// A minimal DNS server on UDP.
#[derive(Debug)]
pub(crate) struct Dns {
    address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// A server that knows no name yet: all are `NxDomain`.
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP port");
        let address = socket.local_addr().expect("its address");
        let answers: Arc<Mutex<HashMap<String, Answer>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, known) = (stop.clone(), answers.clone());
        let thread = thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                if let Some(reply) = answer_query(&query[..length], &lock(&known)) {
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        Self { address, answers, stop, thread: Some(thread) }
    }

    pub(crate) fn answer(&self, name: &str, answer: Answer) {
        lock(&self.answers).insert(name.to_owned(), answer);
    }

    /// A `resolvers` section of this name with short holds, for a configuration.
    pub(crate) fn resolvers(&self, name: &str) -> String {
        let mut section = format!("resolvers {name}\n    nameserver tests {}\n", self.address);
        section.push_str("    resolve_retries 1\n    timeout resolve 200ms\n    timeout retry 200ms\n");
        for hold in ["valid", "nx", "refused", "timeout", "other", "obsolete"] {
            section.push_str(&format!("    hold {hold} 200ms\n"));
        }
        section
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.send_to(b"wake", self.address);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers one query with one question; `None` is silence.
fn answer_query(query: &[u8], known: &HashMap<String, Answer>) -> Option<Vec<u8>> {
    const A: [u8; 4] = [0, 1, 0, 1];
    const SRV: [u8; 4] = [0, 33, 0, 1];
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).into_owned());
        at += length;
    }
    let asked = query.get(at..at + 4)?;
    let question = query.get(12..at + 4)?;
    let (code, records) = match known.get(&labels.join(".")) {
        Some(Answer::Addresses(addresses)) if asked == A => {
            (0, addresses.iter().map(|address| address.octets().to_vec()).collect())
        }
        Some(Answer::Service(target, port)) if asked == SRV => (0, vec![service(target, *port)]),
        Some(Answer::Addresses(_) | Answer::Service(..)) => (0, Vec::new()),
        Some(Answer::Silence) => return None,
        Some(Answer::NxDomain) | None => (3, Vec::new()),
    };
    let count = u8::try_from(records.len()).ok()?;
    let mut reply = query.get(..2)?.to_vec();
    reply.extend([0x85, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    reply.extend(question);
    for record in records {
        // A pointer to the name of the question, the type and class that were asked for, ttl 1, the length.
        reply.extend([0xc0, 12]);
        reply.extend(asked);
        reply.extend([0, 0, 0, 1, 0, u8::try_from(record.len()).ok()?]);
        reply.extend(record);
    }
    Some(reply)
}

/// The data of an SRV record: priority, weight, port and name.
fn service(target: &str, port: u16) -> Vec<u8> {
    let mut data = vec![0, 1, 0, 1];
    data.extend(port.to_be_bytes());
    for label in target.split('.') {
        data.push(u8::try_from(label.len()).expect("a short label"));
        data.extend(label.bytes());
    }
    data.push(0);
    data
}

/// What a frontend has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// Without the line end: the name of the server, if one has answered.
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Sends one GET on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    get_with(address, path, &[])
}

/// Sends one GET with more headers, as in `("Cookie", "SRV=one")`.
pub(crate) fn get_with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let strange = || io::Error::new(io::ErrorKind::InvalidData, format!("not an HTTP response: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(strange)?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(strange)?;
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.into()));
    Ok(Response { status, headers: headers.collect(), body: body.trim_end().to_owned() })
}

/// Submits the form of HAProxy's stats page for one server, as in `stop` and `disable`, which set flags of their own.
pub(crate) fn stats_page(address: SocketAddr, uri: &str, backend: &str, server: &str, action: &str) {
    let body = format!("s={server}&action={action}&b={backend}");
    let request = format!(
        "POST {uri} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).expect("the stats page");
    stream.write_all(request.as_bytes()).expect("to send the form");
    let mut reply = String::new();
    let _ = stream.read_to_string(&mut reply);
    assert!(reply.contains("st=DONE"), "the stats page answered {reply:?}");
}
