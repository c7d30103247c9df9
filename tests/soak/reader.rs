//! The judge's own reader of HAProxy: it shares nothing with the program.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longer than anything here freezes HAProxy.
const LIMIT: Duration = Duration::from_secs(8);

/// A server as `show servers state` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) admin: u32,
    pub(crate) op: u32,
    pub(crate) weight: u32,
}

impl Row {
    /// Forced, inherited and DNS maintenance: `SRV_ADMF_MAINT`.
    const MAINT: u32 = 0x23;
    const DRAIN: u32 = 0x18;

    pub(crate) fn state(&self) -> &'static str {
        match (self.admin & Self::MAINT, self.admin & Self::DRAIN) {
            (1.., _) => "maint",
            (0, 1..) => "drain",
            (0, 0) => "ready",
        }
    }

    pub(crate) fn takes_traffic(&self) -> bool {
        self.state() == "ready" && matches!(self.op, 1 | 2) && self.weight > 0
    }
}

/// Servers by `backend/server`.
pub(crate) type Rows = BTreeMap<String, Row>;

/// All servers of an instance, and when they were read.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    pub(crate) rows: Rows,
}

/// Sends commands on a connection of its own and reads to the end.
pub(crate) fn ask(socket: &Path, commands: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(format!("{commands}\n").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

pub(crate) fn sample(socket: &Path) -> Result<Sample, String> {
    let from = Instant::now();
    let reply = ask(socket, "show servers state").map_err(|error| error.to_string())?;
    Ok(Sample { from, to: Instant::now(), rows: rows(&reply)? })
}

fn rows(reply: &str) -> Result<Rows, String> {
    let strange = || format!("not a whole table: {reply:?}");
    let table = reply.strip_prefix("1\n# ").ok_or_else(strange)?.strip_suffix("\n\n").ok_or_else(strange)?;
    let mut lines = table.lines();
    let names: Vec<&str> = lines.next().ok_or_else(strange)?.split(' ').collect();
    let at = |name: &str| names.iter().position(|column| *column == name).ok_or_else(strange);
    let columns = [at("be_name")?, at("srv_name")?, at("srv_admin_state")?, at("srv_op_state")?, at("srv_uweight")?];
    let row = |line: &str| {
        let values: Vec<&str> = line.split(' ').collect();
        let [backend, server, admin, op, weight] = columns.map(|at| values.get(at).copied().unwrap_or_default());
        let row = Row { admin: admin.parse().ok()?, op: op.parse().ok()?, weight: weight.parse().ok()? };
        Some((format!("{backend}/{server}"), row))
    };
    lines.map(|line| row(line).ok_or_else(strange)).collect()
}

/// The rows of a server-state file; every one must be whole.
pub(crate) fn state_file(content: &str) -> Result<Rows, String> {
    if !content.ends_with('\n') {
        return Err("its last line is cut off".to_owned());
    }
    let lines: Vec<&str> = content.lines().collect();
    let columns = lines.get(1).map_or(0, |line| line.split(' ').count() - 1);
    if lines.first() != Some(&"1") || columns < 20 {
        return Err("it does not begin as such a file does".to_owned());
    }
    if let Some(short) = lines[2..].iter().find(|line| line.split(' ').count() != columns) {
        return Err(format!("a row with another number of columns: {short:?}"));
    }
    rows(&format!("{content}\n"))
}
