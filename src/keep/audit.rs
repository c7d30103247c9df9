//! The changes of a run in the host's system log: `/dev/log`, in the form of RFC 3164.
//!
//! A line has no time: the log daemon adds it (RFC 3164, 4.3.2), and knows the time zone. The log must never hold a run up,
//! so that nothing here waits for longer than `PATIENCE` in all.

use std::io::ErrorKind as Kind;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::getuid;

use crate::discover::user_name;
use crate::model::error::Error;
use crate::model::text::printable;
use crate::request::{Request, SystemLog};

/// Where the host's log daemon takes lines.
const SOCKET: &str = "/dev/log";

/// How long a run waits in all for a log daemon that does not keep up.
const PATIENCE: Duration = Duration::from_millis(200);

/// The longest value of a line, in characters: what owners and reasons may have, with room for their server.
const VALUE_MAX: usize = 256;

/// The facility `daemon` as a priority counts it.
const DAEMON: u8 = 3 << 3;

/// What has become of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was read back as this run has set it.
    Changed,
    /// It is back to what it was before the run.
    RolledBack,
    /// Commands were sent, but it is not as requested.
    Failed,
    /// It could not be brought back to what it was before the run.
    NotRolledBack,
    /// Commands were sent, and it could not be read back.
    Unknown,
}

/// What the log is told of a server.
#[derive(Debug)]
pub struct Entry<'a> {
    /// What has become of it.
    pub fate: Fate,
    /// Its instance.
    pub instance: &'a str,
    /// The server, as `backend/server`.
    pub server: &'a str,
    /// How it was.
    pub from: &'a str,
    /// How it is.
    pub to: &'a str,
    /// Why it is not as requested.
    pub error: Option<&'a Error>,
}

/// What a run tells the system log.
#[derive(Debug)]
pub struct Audit {
    /// The log daemon's socket; nothing where it is to be told nothing.
    socket: Option<PathBuf>,
    /// The end of every line: who, and why.
    who: String,
    /// How long the run may still wait.
    left: Duration,
    /// How many lines the log daemon did not take.
    lost: usize,
}

/// An open system log.
#[derive(Debug)]
pub struct Log<'a> {
    socket: UnixDatagram,
    audit: &'a mut Audit,
}

impl Audit {
    /// Makes the audit of a request.
    #[must_use]
    pub fn new(request: &Request) -> Self {
        let socket = match request.syslog {
            SystemLog::Told => Some(SOCKET.into()),
            SystemLog::NotTold => None,
        };
        let claim = request.claim.as_ref();
        let caller = getuid();
        let sudo_user = std::env::var_os("SUDO_USER").filter(|name| caller.is_root() && !name.is_empty());
        let who = [
            ("owner", claim.and_then(|claim| claim.owner.clone())),
            ("reason", claim.and_then(|claim| claim.reason.clone())),
            ("user", Some(user_name(caller.as_raw()).unwrap_or_else(|| caller.to_string()))),
            ("sudo_user", sudo_user.map(|name| name.to_string_lossy().into_owned())),
        ];
        let who = who.iter().filter_map(|(key, value)| Some(field(key, value.as_deref()?))).collect();
        Self { socket, who, left: PATIENCE, lost: 0 }
    }

    /// Opens the system log; nothing where the host has none, or it is to be told nothing.
    pub fn open(&mut self) -> Option<Log<'_>> {
        let socket = connect(self.socket.as_deref()?).ok()?;
        Some(Log { socket, audit: self })
    }

    /// Says how many lines the log daemon did not take, if any.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let lines = match self.lost {
            0 => return None,
            1 => "1 line".to_owned(),
            lost => format!("{lost} lines"),
        };
        Some(format!("the system log is full or its daemon hangs: {lines} about this run's changes are not in it"))
    }
}

impl Log<'_> {
    /// Writes a line, or counts it as lost where the log daemon does not take it in time.
    pub fn write(&mut self, entry: &Entry<'_>) {
        let line = format!("{}{}", line(entry), self.audit.who);
        loop {
            match self.socket.send(line.as_bytes()) {
                Err(error) if error.kind() == Kind::Interrupted => {}
                Err(error) if error.kind() == Kind::WouldBlock => {
                    if !self.wait() {
                        self.audit.lost += 1;
                        return;
                    }
                }
                // A daemon that has just ended is as none.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Waits until the log daemon takes a line, as long as time is left; tells whether it was.
    fn wait(&mut self) -> bool {
        if self.audit.left.is_zero() {
            return false;
        }
        let began = Instant::now();
        let limit = PollTimeout::try_from(self.audit.left).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)], limit);
        // At least a millisecond each time, so that this ends also where the poll says at once what is not so.
        let took = began.elapsed().max(Duration::from_millis(1));
        self.audit.left = self.audit.left.saturating_sub(took);
        true
    }
}

fn connect(path: &Path) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

/// Writes what happened to a server, without who did it.
fn line(entry: &Entry<'_>) -> String {
    let what = match entry.fate {
        Fate::Changed => "changed",
        Fate::RolledBack => "rolled back",
        Fate::Failed => "failed",
        Fate::NotRolledBack => "not rolled back",
        Fate::Unknown => "unknown",
    };
    let severity = match (entry.fate, entry.error) {
        (Fate::Changed | Fate::RolledBack, None) => 5,
        (Fate::Changed | Fate::RolledBack, Some(_)) | (Fate::Failed | Fate::NotRolledBack | Fate::Unknown, _) => 4,
    };
    let error = entry.error.map(|error| field("error", &error.kind.to_string())).unwrap_or_default();
    format!(
        "<{}>haproxy_server[{}]: {what}{}{}{}{}{error}",
        DAEMON | severity,
        std::process::id(),
        field("instance", entry.instance),
        field("server", entry.server),
        field("from", entry.from),
        field("to", entry.to),
    )
}

/// Writes ` key="value"`; nothing in the value can end the line or look like another field.
fn field(key: &str, value: &str) -> String {
    let end = value.char_indices().nth(VALUE_MAX).map(|(end, _)| end);
    let (kept, cut) = end.and_then(|end| value.get(..end)).map_or((value, ""), |kept| (kept, "…"));
    let quoted = kept.replace('\\', "\\\\").replace('"', "\\\"");
    format!(" {key}=\"{}{cut}\"", printable(&quoted))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::model::error::ErrorKind;

    fn audit(socket: &Path) -> Audit {
        Audit { socket: Some(socket.to_owned()), who: " user=\"root\"".to_owned(), left: PATIENCE, lost: 0 }
    }

    fn entry<'a>(fate: Fate, server: &'a str, error: Option<&'a Error>) -> Entry<'a> {
        Entry { fate, instance: "http", server, from: "ready", to: "maint", error }
    }

    #[test]
    fn a_line_says_what_happened_and_how_grave_it_is() {
        let pid = std::process::id();
        let error = Error::new(ErrorKind::NotDrained, "it has 1 session");
        for (fate, error, priority, what, more) in [
            (Fate::Changed, None, 29, "changed", ""),
            (Fate::RolledBack, None, 29, "rolled back", ""),
            (Fate::RolledBack, Some(&error), 28, "rolled back", " error=\"not_drained\""),
            (Fate::Failed, Some(&error), 28, "failed", " error=\"not_drained\""),
            (Fate::NotRolledBack, Some(&error), 28, "not rolled back", " error=\"not_drained\""),
            (Fate::Unknown, None, 28, "unknown", ""),
        ] {
            let fields = format!("instance=\"http\" server=\"web/web1\" from=\"ready\" to=\"maint\"{more}");
            let expected = format!("<{priority}>haproxy_server[{pid}]: {what} {fields}");
            assert_eq!(line(&entry(fate, "web/web1", error)), expected);
        }
    }

    #[test]
    fn a_value_is_no_longer_than_it_may_be() {
        assert_eq!(field("reason", &"é".repeat(VALUE_MAX)), format!(" reason=\"{}\"", "é".repeat(VALUE_MAX)));
        assert_eq!(field("reason", &"é".repeat(9999)), format!(" reason=\"{}…\"", "é".repeat(VALUE_MAX)));
    }

    #[test]
    fn a_log_that_is_missing_or_that_nobody_reads_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(audit(&path).open().is_none());
        drop(UnixDatagram::bind(&path).unwrap());
        let mut audit = audit(&path);
        assert!(audit.open().is_none() && audit.warning().is_none());
    }

    #[test]
    fn a_log_that_hangs_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let hanging = UnixDatagram::bind(&path).unwrap();
        let mut audit = audit(&path);
        let began = Instant::now();
        let mut log = audit.open().unwrap();
        // Linux keeps `net.unix.max_dgram_qlen` of them, or as many bytes as the buffer of the sender has.
        (0..5000).for_each(|_| log.write(&entry(Fate::Changed, "web/web1", None)));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        hanging.set_nonblocking(true).unwrap();
        let mut taken = 0;
        while hanging.recv(&mut [0; 1024]).is_ok() {
            taken += 1;
        }
        assert_eq!(taken + audit.lost, 5000);
        let warning = audit.warning().unwrap();
        assert!(warning.contains(&format!("{} lines about this run's changes", audit.lost)), "{warning}");
    }

    #[test]
    fn a_log_that_is_slow_gets_every_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let slow = UnixDatagram::bind(&path).unwrap();
        slow.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let reader = thread::spawn(move || (0..2000).take_while(|_| slow.recv(&mut [0; 1024]).is_ok()).count());
        // A busy machine may be slower than anybody would wait.
        let mut audit = Audit { left: Duration::from_secs(60), ..audit(&path) };
        let mut log = audit.open().unwrap();
        (0..2000).for_each(|_| log.write(&entry(Fate::Changed, "web/web1", None)));
        assert_eq!((reader.join().unwrap(), audit.lost), (2000, 0));
    }

    /// Reads the fields of a line back.
    fn fields(line: &str) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let mut rest = line;
        while let Some((key, after)) = rest.split_once("=\"") {
            let mut value = String::new();
            let mut signs = after.char_indices();
            let end = loop {
                match signs.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => value.extend(['\\', signs.next().unwrap().1]),
                    (_, sign) => value.push(sign),
                }
            };
            fields.push((key.trim_start().to_owned(), value));
            rest = &after[end + 1..];
        }
        assert_eq!(rest, "");
        fields
    }

    proptest! {
        #[test]
        fn nothing_in_a_value_forges_a_line_or_a_field(value in any::<String>(), other in "[\"\\\\\r\n =a]{0,20}") {
            let line = [field("owner", &value), field("reason", &other), field("user", "root")].concat();
            prop_assert!(!line.contains(char::is_control));
            let fields = fields(&line);
            let keys: Vec<&str> = fields.iter().map(|(key, _)| key.as_str()).collect();
            prop_assert_eq!(keys, ["owner", "reason", "user"]);
            prop_assert_eq!(&fields[2].1, "root");
        }
    }
}
