//! The only place that opens sockets: a conversation with one HAProxy process, with a bound on every wait.
//!
//! The conversation has the one form that all versions understand in the same way: `prompt`, then one command a line,
//! each reply ended by the prompt, then `quit` (management.txt, section 9.3; `cli_io_handler()` in HAProxy's
//! `src/cli.c`). On a master CLI socket, `@1` comes first and leads to the current worker.
//!
//! A dump that has begun is read to its end, whatever else is wrong: where a client has left HAProxy 3.2.26 halfway, the
//! next dump ends its process (docs/reliability.md, "HAProxy 3.2.26"). Only a process that has been silent for all the
//! allowed time is abandoned.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use memchr::memchr;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6, UnixAddr, connect, getsockopt, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::Address;
use crate::model::text::excerpt;
use crate::time::deadline::{Allowance, Tries, repeatedly};
use crate::time::interrupt::{Interrupt, PATIENT};

/// The shortest silence after which a dump that has begun may be abandoned.
const DUMP_SILENCE: Duration = Duration::from_secs(5);

/// The largest size of a dump, which no HAProxy comes near: anything beyond is not a dump.
const DUMP_SIZE: usize = 1 << 30;

/// How many dumps are asked for at a time: HAProxy stops reading when its replies are not read.
const DUMPS_TOGETHER: usize = 64;

/// The largest reply that is kept as text.
const REPLY_SIZE: usize = 1 << 20;

/// The longest line of a reply.
const LINE_SIZE: usize = 64 << 10;

/// How much is read at a time: as much as HAProxy writes at a time (`tune.bufsize`).
const CHUNK: usize = 16 << 10;

/// How much of an unexpected reply an error shows.
const SHOWN: usize = 200;

/// How often, and how far apart, to retry a refused connection: a reload without `-x` refuses for a moment, and a
/// master CLI for as long as its master reads the configuration (50 ms and more).
const REFUSED: Tries = Tries { count: 15, pause: Duration::from_millis(20) };

/// The length of a name in the abstract namespace as HAProxy pads it: `sun_path` less the leading NUL.
const ABSTRACT_LENGTH: usize = 107;

const PROMPT: &[u8] = b"> ";
const MASTER_PROMPT: &[u8] = b"master> ";

/// What listens at the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The stats socket of the process itself.
    Stats,
    /// The master CLI, which passes commands on to its current worker.
    Master,
}

/// Where a conversation that begins at a master CLI goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// With its current worker.
    Worker,
    /// With the master itself.
    Master,
}

/// What the lines of an answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Lines of text.
    Lines,
    /// Rows of `show stat`: a value in double quotes may have line ends, since it may be text that a server has sent
    /// (`csv_enc_append()` in HAProxy's `src/tools.c`).
    Rows,
}

/// A conversation with one HAProxy process.
#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
    address: Address,
    door: Door,
    prompt: Vec<u8>,
    step: Allowance,
    receive_limit: Option<Duration>,
    send_limit: Duration,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Connection {
    /// Connects, agrees on the prompt and asks the first commands, which only read; returns the replies to them.
    ///
    /// # Errors
    /// Distinguishes a missing socket, missing rights, no answer in time, and something that is not HAProxy.
    pub fn open(address: &Address, step: Allowance, first: &[String]) -> Result<(Self, Vec<Vec<u8>>)> {
        Self::enter(address, step, Entry::Worker, first)
    }

    /// Connects to a master CLI and stays with the master, instead of continuing with its worker.
    ///
    /// # Errors
    /// As [`Connection::open`]; also when it is not a master CLI.
    pub fn open_master(address: &Address, step: Allowance) -> Result<Self> {
        Self::enter(address, step, Entry::Master, &[]).map(|(connection, _)| connection)
    }

    fn enter(address: &Address, step: Allowance, entry: Entry, first: &[String]) -> Result<(Self, Vec<Vec<u8>>)> {
        // Its process has ended, or its master has restarted itself; nothing was changed yet.
        let may_pass = |error: &Error| error.kind == ErrorKind::Unreachable && error.is_cut_off;
        repeatedly(step, REFUSED, may_pass, || {
            let (fd, send_limit) = connected(address, step)?;
            let mut connection = Self::new(fd, address, step, send_limit);
            match connection.greet(entry, first) {
                Ok(replies) => Ok((connection, replies)),
                Err(error) if error.kind == ErrorKind::Unreachable => Err(error.cut_off()),
                Err(error) => Err(error),
            }
        })
    }

    fn new(fd: OwnedFd, address: &Address, step: Allowance, send_limit: Duration) -> Self {
        Self {
            fd,
            address: address.clone(),
            door: Door::Stats,
            prompt: PROMPT.to_vec(),
            step,
            receive_limit: None,
            send_limit,
            buffer: vec![0; CHUNK],
            start: 0,
            end: 0,
        }
    }

    /// Begins a conversation over a socket that is connected already.
    #[cfg(any(test, fuzzing))]
    pub(super) fn over(fd: OwnedFd, step: Allowance, first: &[String]) -> Result<(Self, Vec<Vec<u8>>)> {
        let mut connection = Self::new(fd, &Address::Unix("/a".into()), step, Duration::ZERO);
        let replies = connection.greet(Entry::Worker, first)?;
        Ok((connection, replies))
    }

    /// Begins another step over the same connection.
    pub fn begin(&mut self, step: Allowance) {
        self.step = step;
    }

    /// Returns where the conversation takes place.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns what listens at the address.
    #[must_use]
    pub fn door(&self) -> Door {
        self.door
    }

    /// Returns the process that listens, or started to listen, at a Unix socket, by its id here; `None` if it cannot be
    /// seen from here, as in a container.
    #[must_use]
    pub fn peer(&self) -> Option<u32> {
        let peer = getsockopt(&self.fd, sockopt::PeerCredentials).ok()?;
        u32::try_from(peer.pid()).ok().filter(|pid| *pid > 0)
    }

    /// Asks one command and returns its reply without the prompt.
    ///
    /// # Errors
    /// When the reply does not arrive in time, is too large, or incomplete.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        self.send_commands(&[command])?;
        self.reply(command).map(|reply| String::from_utf8_lossy(&reply).into_owned())
    }

    /// Sends several commands, one a line, and returns the reply to each that was answered; a signal ends it after the
    /// reply at hand.
    ///
    /// # Errors
    /// Returns what stopped it, after the replies so far; unanswered commands may still be carried out.
    pub fn exchange<C: AsRef<str>>(&mut self, commands: &[C], signals: &Interrupt) -> (Vec<Vec<u8>>, Result<()>) {
        match self.send_commands(commands) {
            Ok(()) => self.replies(commands, signals),
            Err(error) => (Vec::new(), Err(error)),
        }
    }

    /// Reads the replies to commands that were sent.
    fn replies<C: AsRef<str>>(&mut self, commands: &[C], signals: &Interrupt) -> (Vec<Vec<u8>>, Result<()>) {
        let mut replies = Vec::with_capacity(commands.len());
        for command in commands {
            // Those that have arrived already take no time.
            let must_wait = !replies.is_empty() && self.unread().is_empty();
            let interrupted = if must_wait { signals.check() } else { None };
            let read = interrupted.map_or_else(|| self.reply(command.as_ref()), Err);
            match read {
                Ok(reply) => replies.push(reply),
                Err(error) => return (replies, Err(error)),
            }
        }
        (replies, Ok(()))
    }

    /// Sends several `show stat`, one a line, and hands over the rows of their replies one by one.
    ///
    /// The replies are read to their end even if a row is refused; then the first refusal is returned.
    ///
    /// # Errors
    /// When the replies do not arrive in time or are incomplete, or returns what `on_row` returned.
    pub fn rows(&mut self, commands: &[String], mut on_row: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.send_commands(commands)?;
        let mut refusal = Ok(());
        for command in commands {
            self.lines(command, Form::Rows, Extent::Reply, |row| {
                if refusal.is_ok() {
                    refusal = on_row(row);
                }
            })?;
        }
        refusal
    }

    /// Asks for a dump and hands over its lines one by one.
    ///
    /// The dump is read to its end even if a line is refused; then the first refusal is returned.
    ///
    /// # Errors
    /// When the dump does not arrive in time or is incomplete, or returns what `on_line` returned.
    pub fn dump(&mut self, command: &str, form: Form, mut on_line: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.dumps(&[command], form, |_, line| on_line(line))
    }

    /// Asks for several dumps, one a line, and hands over their lines one by one, each with the place of its command.
    ///
    /// All are read to their end even if a line is refused; then the first refusal is returned.
    ///
    /// # Errors
    /// As [`Connection::dump`].
    pub fn dumps<C: AsRef<str>>(
        &mut self,
        commands: &[C],
        form: Form,
        mut on_line: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut refusal = Ok(());
        let mut place = 0;
        for window in commands.chunks(DUMPS_TOGETHER) {
            self.send_commands(window)?;
            for command in window {
                self.lines(command.as_ref(), form, Extent::Dump, |line| {
                    if refusal.is_ok() {
                        refusal = on_line(place, line);
                    }
                })?;
                place += 1;
            }
        }
        refusal
    }

    /// Tells whether HAProxy has neither closed the connection nor said anything since its last answer.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        self.unread().is_empty() && recv(self.fd.as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
    }

    /// Requests the prompt, recognises what listens here by the answer, and reads the replies to the first commands,
    /// which are sent along with it, because each wait for an answer costs about as much as the answer itself.
    ///
    /// A dump is never among them: HAProxy 3.2.26 may die of one whose client left before it began.
    fn greet(&mut self, entry: Entry, first: &[String]) -> Result<Vec<Vec<u8>>> {
        let lines: String =
            ["prompt"].into_iter().chain(first.iter().map(String::as_str)).flat_map(|it| [it, "\n"]).collect();
        // Reading shows whether the peer has closed already.
        match self.send(lines.as_bytes(), "prompt") {
            Err(error) if error.kind != ErrorKind::Unreachable => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let door = self.read_greeting()?;
        match (door, entry) {
            (Door::Stats, Entry::Master) => return Err(self.stranger()),
            (Door::Stats, Entry::Worker) => {}
            (Door::Master, _) => {
                self.door = Door::Master;
                self.prompt = MASTER_PROMPT.to_vec();
            }
        }
        let (replies, result) = self.replies(first, &PATIENT);
        result?;
        match (door, entry) {
            (Door::Master, Entry::Worker) => {
                // The master's answers were meant for its worker.
                self.enter_worker()?;
                let (replies, result) = self.exchange(first, &PATIENT);
                result.map(|()| replies)
            }
            (Door::Stats, _) | (Door::Master, Entry::Master) => Ok(replies),
        }
    }

    /// Reads the answer to `prompt`, which distinguishes a stats socket from a master CLI.
    fn read_greeting(&mut self) -> Result<Door> {
        const GREETINGS: [(&[u8], Door); 2] = [(b"\n> ", Door::Stats), (MASTER_PROMPT, Door::Master)];
        loop {
            let unread = self.unread();
            if let Some((greeting, door)) = GREETINGS.iter().find(|(greeting, _)| unread.starts_with(greeting)) {
                self.start += greeting.len();
                return Ok(*door);
            }
            if !GREETINGS.iter().any(|(greeting, _)| greeting.starts_with(unread)) {
                return Err(self.stranger());
            }
            self.read_more("prompt")?;
        }
    }

    /// Reads until something that looks like a prompt arrives.
    fn read_prompt(&mut self, command: &str) -> Result<()> {
        while !self.unread().ends_with(PROMPT) {
            if self.unread().len() > SHOWN {
                return Err(self.stranger());
            }
            self.read_more(command)?;
        }
        Ok(())
    }

    /// Waits for more of an answer.
    fn read_more(&mut self, command: &str) -> Result<()> {
        match self.fill(self.step.left()) {
            Ok(0) if self.unread().is_empty() => {
                let what = "was closed without an answer; its HAProxy has just ended, or it is not HAProxy";
                Err(self.error(ErrorKind::Unreachable, what))
            }
            Ok(0) => Err(self.stranger()),
            Ok(_) => Ok(()),
            Err(errno) => Err(self.no_answer(errno, command)),
        }
    }

    /// Moves from the master CLI to its current worker, whose prompt is its process id.
    fn enter_worker(&mut self) -> Result<()> {
        self.send(b"@1\n", "@1")?;
        self.read_prompt("@1")?;
        let prompt = self.unread().trim_ascii_start().to_vec();
        let is_worker =
            prompt.strip_suffix(PROMPT).is_some_and(|pid| !pid.is_empty() && pid.iter().all(u8::is_ascii_digit));
        if !is_worker {
            let what = format!("has a master CLI without a current worker: '{}'", excerpt(self.unread(), SHOWN));
            return Err(self.error(ErrorKind::Unreachable, &what));
        }
        self.prompt = prompt;
        self.start = self.end;
        Ok(())
    }

    /// Reads one reply: text in any encoding, since HAProxy passes on the description in its configuration.
    fn reply(&mut self, command: &str) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        self.lines(command, Form::Lines, Extent::Reply, |line| {
            // The silence that means success is an empty text.
            if !(text.is_empty() && line.is_empty()) {
                text.extend_from_slice(line);
                text.push(b'\n');
            }
        })?;
        Ok(text)
    }

    /// Reads the lines of one reply up to the prompt.
    fn lines(&mut self, command: &str, form: Form, extent: Extent, mut on_line: impl FnMut(&[u8])) -> Result<()> {
        let mut began = None;
        let mut size = 0usize;
        let mut has_begun = false;
        let mut overlong = false;
        loop {
            let (taken, is_over) = take_lines(self.unread(), &self.prompt, form, &mut on_line);
            has_begun |= taken > 0;
            self.start += taken;
            if is_over {
                self.start += self.prompt.len();
                break;
            }
            let left = self.unread().len();
            if left > LINE_SIZE {
                overlong = true;
                self.start = self.end;
            }
            let limit = match (extent, began) {
                (Extent::Reply, _) | (Extent::Dump, None) => self.step.left(),
                (Extent::Dump, Some(_)) => self.step.total().max(DUMP_SILENCE).min(self.step.left_for_dumps()),
            };
            match self.fill(limit) {
                Ok(0) if !has_begun && self.unread().is_empty() => {
                    let what = format!("was closed without an answer to '{command}'; HAProxy ended");
                    return Err(self.error(ErrorKind::Unreachable, &what));
                }
                Ok(0) => {
                    let what = format!(
                        "was closed in the middle of the answer to '{command}', so none of it can be relied on; \
                         HAProxy ended or its 'stats timeout' is too short"
                    );
                    return Err(self.error(ErrorKind::BadReply, &what).cut_off());
                }
                Ok(read) => {
                    size = size.saturating_add(read);
                    began = began.or_else(|| Some(Instant::now()));
                }
                Err(errno) => return Err(self.no_answer(errno, command)),
            }
            if size > extent.largest() {
                let what = format!("answered '{command}' with more than {} bytes", extent.largest());
                return Err(self.error(ErrorKind::BadReply, &what));
            }
        }
        if let (Extent::Dump, Some(began)) = (extent, began) {
            self.step.excuse(began.elapsed());
        }
        if overlong {
            let what = format!("answered '{command}' with a line of more than {LINE_SIZE} bytes");
            return Err(self.error(ErrorKind::BadReply, &what));
        }
        Ok(())
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads whatever is available, waiting at most `limit` for its first byte.
    fn fill(&mut self, limit: Duration) -> std::result::Result<usize, Errno> {
        if limit.is_zero() {
            return Err(Errno::EAGAIN);
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.end + CHUNK, 0);
        }
        if !self.receive_limit.is_some_and(|set| serves(set, limit)) {
            let limit = limit + SLACK;
            setsockopt(&self.fd, sockopt::ReceiveTimeout, &time_value(limit))?;
            self.receive_limit = Some(limit);
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let read = loop {
            match recv(self.fd.as_raw_fd(), room, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => break 0,
                result => break result?,
            }
        };
        self.end += read;
        Ok(read)
    }

    /// Sends commands, one a line.
    fn send_commands<C: AsRef<str>>(&mut self, commands: &[C]) -> Result<()> {
        let Some(first) = commands.first() else { return Ok(()) };
        let lines: String = commands.iter().flat_map(|command| [command.as_ref(), "\n"]).collect();
        self.send(lines.as_bytes(), first.as_ref())
    }

    /// Sends all of the bytes; a broken connection is an error here, never a signal.
    fn send(&mut self, mut bytes: &[u8], command: &str) -> Result<()> {
        while !bytes.is_empty() {
            let left = self.step.left();
            if left.is_zero() {
                return Err(self.no_answer(Errno::EAGAIN, command));
            }
            if !serves(self.send_limit, left) {
                let left = left + SLACK;
                setsockopt(&self.fd, sockopt::SendTimeout, &time_value(left))
                    .map_err(|errno| self.no_answer(errno, command))?;
                self.send_limit = left;
            }
            match send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.no_answer(errno, command)),
            }
        }
        Ok(())
    }

    fn no_answer(&self, errno: Errno, command: &str) -> Error {
        match errno {
            Errno::EAGAIN => self.error(
                ErrorKind::Timeout,
                &format!(
                    "did not answer '{command}' within {}; HAProxy hangs, is stopped, or all its connections are \
                     taken ('stats maxconn')",
                    self.step.in_words()
                ),
            ),
            Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN => {
                self.error(ErrorKind::Unreachable, &format!("was closed before '{command}' was sent"))
            }
            _ => self.error(ErrorKind::Internal, &format!("failed at '{command}': {}", errno.desc())),
        }
    }

    fn stranger(&self) -> Error {
        let what = format!("is not a HAProxy stats socket: it greets with '{}'", excerpt(self.unread(), SHOWN));
        self.error(ErrorKind::NotHaproxy, &what)
    }

    fn error(&self, kind: ErrorKind, what: &str) -> Error {
        Error::new(kind, format!("the socket {} {what}", self.address))
    }
}

impl Drop for Connection {
    /// Ends the conversation in a way that leaves nothing behind in HAProxy.
    fn drop(&mut self) {
        // A peer that has closed needs no farewell, and one that does not read waits for none.
        let _ = send(self.fd.as_raw_fd(), b"quit\n", MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
    }
}

/// Hands over the complete lines; returns their length in bytes, and whether the prompt comes next.
fn take_lines(text: &[u8], prompt: &[u8], form: Form, on_line: &mut impl FnMut(&[u8])) -> (usize, bool) {
    // Almost no line begins like the prompt.
    let is_over = |rest: &[u8]| rest.first() == prompt.first() && rest.starts_with(prompt);
    let mut rest = text;
    while !is_over(rest) {
        let Some((line, after)) = split_line(rest, form) else { break };
        on_line(line);
        rest = after;
    }
    (text.len() - rest.len(), is_over(rest))
}

/// Splits off the first line; `None` if it has not ended yet.
fn split_line(text: &[u8], form: Form) -> Option<(&[u8], &[u8])> {
    let mut end = memchr(b'\n', text)?;
    if form == Form::Rows {
        // Quotes within a quoted value are doubled: if their number is odd, one is open.
        while text.get(..end)?.iter().filter(|byte| **byte == b'"').count() % 2 == 1 {
            end += 1 + memchr(b'\n', text.get(end + 1..)?)?;
        }
    }
    let (line, rest) = text.split_at_checked(end)?;
    Some((line, rest.get(1..)?))
}

/// How far a reply goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// It ends within the step.
    Reply,
    /// Once it has begun, it may go on beyond the step.
    Dump,
}

impl Extent {
    /// The largest size, in bytes.
    fn largest(self) -> usize {
        match self {
            Self::Reply => REPLY_SIZE,
            Self::Dump => DUMP_SIZE,
        }
    }
}

/// What is added to a limit that is set, so that it serves the next step on the same connection as well.
const SLACK: Duration = Duration::from_millis(1);

/// Tells whether a limit that is set serves as well as a slightly shorter one, which saves a call for each piece of an
/// answer.
fn serves(set: Duration, limit: Duration) -> bool {
    set >= limit && set - limit <= limit / 8
}

/// Connects within the step; returns the limit for sending as well.
fn connected(address: &Address, step: Allowance) -> Result<(OwnedFd, Duration)> {
    let mut tries = 1;
    loop {
        let limit = step.left() + SLACK;
        match connect_once(address, limit) {
            Ok(fd) => return Ok((fd, limit)),
            Err(Errno::ECONNREFUSED) if tries < REFUSED.count && !step.is_over() => {
                tries += 1;
                std::thread::sleep(REFUSED.pause.min(step.left()));
            }
            Err(errno) => return Err(cannot_connect(address, step, errno)),
        }
    }
}

fn connect_once(address: &Address, timeout: Duration) -> nix::Result<OwnedFd> {
    let open = |family| {
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // On Linux the limit for sending also applies to connecting (socket(7)).
        setsockopt(&fd, sockopt::SendTimeout, &time_value(timeout))?;
        Ok::<_, Errno>(fd)
    };
    match address {
        Address::Unix(path) => {
            let fd = open(AddressFamily::Unix)?;
            connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
            Ok(fd)
        }
        Address::Abstract(name) => {
            let fd = open(AddressFamily::Unix)?;
            let mut padded = name.clone().into_bytes();
            padded.resize(ABSTRACT_LENGTH, 0);
            connect(fd.as_raw_fd(), &UnixAddr::new_abstract(&padded)?)?;
            Ok(fd)
        }
        Address::AbstractExact(name) => {
            let fd = open(AddressFamily::Unix)?;
            connect(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
            Ok(fd)
        }
        Address::Tcp(address) => {
            if !is_local(address.ip()) {
                return Err(Errno::EADDRNOTAVAIL);
            }
            match address {
                SocketAddr::V4(address) => {
                    let fd = open(AddressFamily::Inet)?;
                    connect(fd.as_raw_fd(), &SockaddrIn::from(*address))?;
                    Ok(fd)
                }
                SocketAddr::V6(address) => {
                    let fd = open(AddressFamily::Inet6)?;
                    connect(fd.as_raw_fd(), &SockaddrIn6::from(*address))?;
                    Ok(fd)
                }
            }
        }
    }
}

/// Tells whether the address is one of this host's.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback()
        || nix::ifaddrs::getifaddrs().is_ok_and(|interfaces| {
            interfaces.filter_map(|interface| interface.address).any(|address| match ip {
                IpAddr::V4(ip) => address.as_sockaddr_in().is_some_and(|own| own.ip() == ip),
                IpAddr::V6(ip) => address.as_sockaddr_in6().is_some_and(|own| own.ip() == ip),
            })
        })
}

fn cannot_connect(address: &Address, step: Allowance, errno: Errno) -> Error {
    let (kind, what) = match errno {
        Errno::ENOENT | Errno::ENOTDIR => {
            (ErrorKind::Unreachable, "does not exist; start HAProxy, or correct the address in 'instances'".to_owned())
        }
        Errno::ECONNREFUSED => {
            (ErrorKind::Unreachable, "has no listener; HAProxy has stopped, or the address is wrong".to_owned())
        }
        Errno::EACCES | Errno::EPERM => (
            ErrorKind::PermissionDenied,
            "may not be opened by this user; run as root, or give the group access in haproxy.cfg, as in \
             'stats socket PATH mode 660 group GROUP level admin'"
                .to_owned(),
        ),
        Errno::EAGAIN | Errno::EINPROGRESS | Errno::ETIMEDOUT => (
            ErrorKind::Timeout,
            format!("accepted no connection within {}; its HAProxy hangs or is overloaded", step.in_words()),
        ),
        Errno::EADDRNOTAVAIL => (
            ErrorKind::BadRequest,
            "is not an address of this host; only local HAProxy instances are managed".to_owned(),
        ),
        Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => (
            ErrorKind::Resources,
            format!(
                "cannot be connected to: this program has run out of what it is allowed ({}); raise 'ulimit -n' or its \
                 memory",
                errno.desc()
            ),
        ),
        Errno::EPROTOTYPE | Errno::ENOTSOCK => (ErrorKind::NotHaproxy, "is not a stream socket".to_owned()),
        _ => (ErrorKind::Unreachable, format!("cannot be connected to: {}", io::Error::from(errno))),
    };
    Error::new(kind, format!("the socket {address} {what}"))
}

/// Converts a limit for the kernel, for which zero would mean none.
fn time_value(limit: Duration) -> TimeVal {
    TimeVal::microseconds(i64::try_from(limit.as_micros()).unwrap_or(i64::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that are taken off a text, how many bytes they are, and whether the prompt comes next.
    fn taken(text: &[u8], form: Form) -> (Vec<Vec<u8>>, usize, bool) {
        let mut lines = Vec::new();
        let (taken, is_over) = take_lines(text, PROMPT, form, &mut |line| lines.push(line.to_vec()));
        (lines, taken, is_over)
    }

    #[test]
    fn lines_end_at_the_prompt() {
        assert_eq!(
            taken(b"a\n\nb\n\n> c\n", Form::Lines),
            (vec![b"a".into(), b"".into(), b"b".into(), b"".into()], 6, true)
        );
        assert_eq!(taken(b"> \n> ", Form::Lines), (vec![], 0, true));
        assert_eq!(taken(b"a\n>", Form::Lines), (vec![b"a".into()], 2, false));
        assert_eq!(taken(b"", Form::Lines), (vec![], 0, false));
    }

    #[test]
    fn a_line_end_within_quotes_ends_no_row() {
        let row = b"a,\"b\n> \n\"\"c\n\",d\n";
        let text = [row.as_slice(), b"e,f\n\n> "].concat();
        let rows = vec![row[..row.len() - 1].to_vec(), b"e,f".into(), b"".into()];
        assert_eq!(taken(&text, Form::Rows), (rows, text.len() - 2, true));
        assert_eq!(taken(&text, Form::Lines), (vec![b"a,\"b".into()], 5, true), "which is why it matters");
        // As long as it has not ended, more is read.
        for length in 0..row.len() {
            assert_eq!(taken(&text[..length], Form::Rows), (vec![], 0, false), "{length}");
        }
    }
}
