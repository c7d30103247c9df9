//! Replies of the runtime API as types: pure functions from text, which name what is missing.
//!
//! Columns and keys are looked up by name, because every version adds some. An unexpected line is an error that shows
//! it; no row is skipped.

use std::borrow::Cow;

use memchr::memchr;

use crate::model::server::{CheckCounter, Publication, Start, Statistics};
use crate::model::state::{AdminFlags, OperationalState};
use crate::model::text::{excerpt, printable};
use crate::model::traffic::obstacle;

/// How much of an unexpected line an error shows, in bytes.
const SHOWN: usize = 200;

/// The fewest columns that `show servers state` has had (HAProxy 2.2), and more than it will soon have.
const FEWEST_COLUMNS: usize = 20;
const MOST_COLUMNS: usize = 48;

/// The columns that come first in all versions and are examined in every row.
const FIRST: [&str; 4] = ["be_id", "be_name", "srv_id", "srv_name"];

/// Why a reply could not be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// `show servers state` starts with the version of its format.
    #[error("'show servers state' starts with '{0}', not with the version line '1'")]
    Version(String),
    /// The line that names the columns is missing or incomplete.
    #[error("'{command}' has no column '{column}' in its header '{line}'")]
    Column {
        /// The command that was asked.
        command: &'static str,
        /// The column that is missing.
        column: &'static str,
        /// The header as it was read.
        line: String,
    },
    /// A row has another number of columns than the header.
    #[error("a row of '{command}' has {found} columns, its header has {expected}: '{line}'")]
    Count {
        /// The command that was asked.
        command: &'static str,
        /// The columns of the row.
        found: usize,
        /// The columns of the header.
        expected: usize,
        /// The row as it was read.
        line: String,
    },
    /// A value in a row does not fit its column.
    #[error("a row of '{command}' has '{value}' as its {column}: '{line}'")]
    Value {
        /// The command that was asked.
        command: &'static str,
        /// The column of the value.
        column: &'static str,
        /// The value as it was read.
        value: String,
        /// The row as it was read.
        line: String,
    },
    /// A reply of `Key: value` lines lacks a key.
    #[error("'show info' has no usable '{key}' in its answer '{reply}'")]
    Key {
        /// The key that is missing.
        key: &'static str,
        /// The reply as it was read.
        reply: String,
    },
    /// `show cli level` answered with an unknown word.
    #[error("'show cli level' answered '{0}'")]
    Level(String),
}

const STATE: &str = "show servers state";
const STAT: &str = "show stat";

/// The columns of `show servers state` that this program reads.
///
/// A sample, of HAProxy 2.2 (`dump_servers_state()` in `src/proxy.c`):
///
/// ```text
/// 1
/// # be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight …
/// 3 app 1 web1 127.0.0.1 2 0 1 1 25 1 0 2 0 0 0 0 - 8080 -
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateHeader {
    count: usize,
    be_id: usize,
    be_name: usize,
    srv_id: usize,
    srv_name: usize,
    srv_addr: usize,
    srv_op_state: usize,
    srv_admin_state: usize,
    srv_uweight: usize,
    srv_iweight: usize,
    srv_check_state: usize,
    srv_agent_state: usize,
    srv_fqdn: usize,
    srv_port: usize,
}

/// One server as `show servers state` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRow<'a> {
    /// The number of the backend in this process.
    pub backend_id: u32,
    /// The backend.
    pub backend: &'a str,
    /// The number of the server in its backend; 0 in a backend that is `disabled`.
    pub server_id: u32,
    /// The server.
    pub server: &'a str,
    /// Its address, `-` if it is not resolved.
    pub address: &'a str,
    /// Its port.
    pub port: &'a str,
    /// The name that its address is resolved from, `-` without one.
    pub fqdn: &'a str,
    /// What its checks make of it.
    pub operational: OperationalState,
    /// The administrative flags.
    pub flags: AdminFlags,
    /// The effective weight.
    pub weight: u32,
    /// The configured weight.
    pub initial_weight: u32,
    /// The health check: 2 configured, 4 enabled, 8 paused.
    pub check: u32,
    /// The agent check: 2 configured, 4 enabled, 8 paused.
    pub agent: u32,
}

/// The part of a row that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyRow<'a> {
    /// It is a selected server.
    Wanted(StateRow<'a>),
    /// It is another one.
    Other(OtherRow<'a>),
}

/// A server that is not selected, or not yet; most of its row is examined only on demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherRow<'a> {
    header: &'a StateHeader,
    line: &'a [u8],
}

impl<'a> OtherRow<'a> {
    /// Reads what a guard counts.
    #[must_use]
    pub fn glance(&self) -> Option<Glance> {
        let mut columns: [&[u8]; MOST_COLUMNS] = [&[]; MOST_COLUMNS];
        take_columns(&mut { self.line }, columns.get_mut(..self.header.count).unwrap_or_default());
        let row = Row { command: STATE, columns: &columns, line: self.line };
        let number = |index| decimal(row.bytes(index));
        let flags = AdminFlags(number(self.header.srv_admin_state)?);
        let operational = OperationalState::from_number(number(self.header.srv_op_state)?)?;
        Some(Glance {
            backend_id: number(self.header.be_id)?,
            server_id: number(self.header.srv_id)?,
            flags,
            has_address: row.bytes(self.header.srv_addr) != b"-",
            takes_traffic: obstacle(flags, operational, number(self.header.srv_uweight)?).is_none(),
            check: number(self.header.srv_check_state)?,
            agent: number(self.header.srv_agent_state)?,
        })
    }

    /// Tells whether it takes new traffic.
    #[must_use]
    pub fn takes_traffic(&self) -> bool {
        let number = |index| decimal(column(self.line, index));
        let flags = number(self.header.srv_admin_state).map(AdminFlags);
        let operational = number(self.header.srv_op_state).and_then(OperationalState::from_number);
        let weight = number(self.header.srv_uweight);
        match (flags, operational, weight) {
            (Some(flags), Some(operational), Some(weight)) => obstacle(flags, operational, weight).is_none(),
            _ => false,
        }
    }

    /// Finds its address and its port, as HAProxy shows them.
    #[must_use]
    pub fn address(&self) -> (&'a str, &'a str) {
        let text = |index| std::str::from_utf8(column(self.line, index)).unwrap_or_default();
        (text(self.header.srv_addr), text(self.header.srv_port))
    }
}

/// What a guard counts of a server that is not selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// The number of the backend.
    pub backend_id: u32,
    /// The number of the server; 0 in a backend that is `disabled`.
    pub server_id: u32,
    /// The administrative flags.
    pub flags: AdminFlags,
    /// Whether HAProxy has an address for it.
    pub has_address: bool,
    /// Whether its state lets it take traffic.
    pub takes_traffic: bool,
    /// The health check, as in [`StateRow::check`].
    pub check: u32,
    /// The agent check, as in [`StateRow::agent`].
    pub agent: u32,
}

/// Checks the first line of `show servers state`.
///
/// # Errors
/// Refuses every version of the format except 1.
pub fn state_version(line: &[u8]) -> Result<(), ParseError> {
    if line == b"1" { Ok(()) } else { Err(ParseError::Version(excerpt(line, SHOWN))) }
}

impl StateHeader {
    /// Reads the line that names the columns.
    ///
    /// # Errors
    /// Names the first column that is missing.
    pub fn parse(line: &[u8]) -> Result<Self, ParseError> {
        let missing = |column| ParseError::Column { command: STATE, column, line: excerpt(line, SHOWN) };
        let names: Vec<&[u8]> = line.strip_prefix(b"# ").ok_or_else(|| missing("be_id"))?.split(is_space).collect();
        let find = |column: &'static str| {
            names.iter().position(|name| *name == column.as_bytes()).ok_or_else(|| missing(column))
        };
        let header = Self {
            count: names.len(),
            be_id: find("be_id")?,
            be_name: find("be_name")?,
            srv_id: find("srv_id")?,
            srv_name: find("srv_name")?,
            srv_addr: find("srv_addr")?,
            srv_op_state: find("srv_op_state")?,
            srv_admin_state: find("srv_admin_state")?,
            srv_uweight: find("srv_uweight")?,
            srv_iweight: find("srv_iweight")?,
            srv_check_state: find("srv_check_state")?,
            srv_agent_state: find("srv_agent_state")?,
            srv_fqdn: find("srv_fqdn")?,
            srv_port: find("srv_port")?,
        };
        if let Some(column) =
            FIRST.into_iter().zip(&names).find_map(|(column, name)| (column.as_bytes() != *name).then_some(column))
        {
            return Err(missing(column));
        }
        if !(FEWEST_COLUMNS..=MOST_COLUMNS).contains(&names.len()) {
            return Err(missing("srvrecord"));
        }
        Ok(header)
    }

    /// Reads a row, if the number of its backend, its backend, its server and the rest of it are `wanted`. The number of
    /// columns is always checked.
    ///
    /// # Errors
    /// Shows the row and what is wrong with it.
    pub fn row<'a>(
        &'a self,
        line: &'a [u8],
        wanted: impl FnOnce(u32, &[u8], &[u8], &OtherRow<'a>) -> bool,
    ) -> Result<AnyRow<'a>, ParseError> {
        let found = spaces(line) + 1;
        if found != self.count {
            let line = excerpt(line, SHOWN);
            return Err(ParseError::Count { command: STATE, found, expected: self.count, line });
        }
        // Most rows are not selected, and then only the first columns are examined, whose places the header has shown.
        let mut first = line.split(is_space);
        let mut next = || first.next().unwrap_or_default();
        let (id, backend, _, server) = (next(), next(), next(), next());
        let backend_id = decimal(id).ok_or_else(|| wrong(STATE, id, "be_id", line))?;
        let unread = OtherRow { header: self, line };
        if !wanted(backend_id, backend, server, &unread) {
            return Ok(AnyRow::Other(unread));
        }
        let mut columns: [&[u8]; MOST_COLUMNS] = [&[]; MOST_COLUMNS];
        take_columns(&mut { line }, columns.get_mut(..self.count).unwrap_or_default());
        let row = Row { command: STATE, columns: &columns, line };
        let operational = row.number(self.srv_op_state, "srv_op_state")?;
        Ok(AnyRow::Wanted(StateRow {
            backend_id,
            backend: row.text(self.be_name, "be_name")?,
            server_id: row.number(self.srv_id, "srv_id")?,
            server: row.text(self.srv_name, "srv_name")?,
            address: row.text(self.srv_addr, "srv_addr")?,
            port: row.text(self.srv_port, "srv_port")?,
            fqdn: row.text(self.srv_fqdn, "srv_fqdn")?,
            operational: OperationalState::from_number(operational)
                .ok_or_else(|| row.wrong(self.srv_op_state, "srv_op_state"))?,
            flags: AdminFlags(row.number(self.srv_admin_state, "srv_admin_state")?),
            weight: row.number(self.srv_uweight, "srv_uweight")?,
            initial_weight: row.number(self.srv_iweight, "srv_iweight")?,
            check: row.number(self.srv_check_state, "srv_check_state")?,
            agent: row.number(self.srv_agent_state, "srv_agent_state")?,
        }))
    }
}

impl StateHeader {
    /// Rewrites a row with the flags, the weight and the checks that `of` gives for its backend, its server and its
    /// checks.
    #[must_use]
    pub fn rewritten(
        &self,
        line: &[u8],
        of: impl FnOnce(&[u8], &[u8], u32, u32) -> Option<(AdminFlags, u32, u32, u32)>,
    ) -> Option<Vec<u8>> {
        let check = decimal(column(line, self.srv_check_state))?;
        let agent = decimal(column(line, self.srv_agent_state))?;
        let (flags, weight, check, agent) = of(column(line, self.be_name), column(line, self.srv_name), check, agent)?;
        let columns = line.split(is_space).enumerate().map(|(index, text)| match index {
            _ if index == self.srv_admin_state => flags.0.to_string().into_bytes(),
            _ if index == self.srv_uweight => weight.to_string().into_bytes(),
            _ if index == self.srv_check_state => check.to_string().into_bytes(),
            _ if index == self.srv_agent_state => agent.to_string().into_bytes(),
            _ => text.to_vec(),
        });
        Some(columns.collect::<Vec<_>>().join(&b' '))
    }
}

/// Finds one column of a row.
fn column(line: &[u8], index: usize) -> &[u8] {
    line.split(is_space).nth(index).unwrap_or_default()
}

/// Counts the spaces of a row, in pieces so short that a byte can hold the count, which allows many bytes at a time.
fn spaces(line: &[u8]) -> usize {
    let in_piece = |piece: &[u8]| piece.iter().map(|byte| u8::from(is_space(byte))).sum::<u8>();
    line.chunks(usize::from(u8::MAX)).map(|piece| usize::from(in_piece(piece))).sum()
}

/// Takes columns off the front of a row.
fn take_columns<'a>(rest: &mut &'a [u8], slots: &mut [&'a [u8]]) {
    for slot in slots {
        let end = rest.iter().position(is_space).unwrap_or(rest.len());
        let (column, after) = rest.split_at_checked(end).unwrap_or_default();
        *slot = column;
        *rest = after.get(1..).unwrap_or_default();
    }
}

fn is_space(byte: &u8) -> bool {
    *byte == b' '
}

fn wrong(command: &'static str, value: &[u8], column: &'static str, line: &[u8]) -> ParseError {
    ParseError::Value { command, column, value: excerpt(value, SHOWN), line: excerpt(line, SHOWN) }
}

/// A row while its values are read.
struct Row<'r, 'a> {
    command: &'static str,
    columns: &'r [&'a [u8]],
    line: &'a [u8],
}

impl<'a> Row<'_, 'a> {
    fn bytes(&self, index: usize) -> &'a [u8] {
        self.columns.get(index).copied().unwrap_or_default()
    }

    fn wrong(&self, index: usize, column: &'static str) -> ParseError {
        wrong(self.command, self.bytes(index), column, self.line)
    }

    fn text(&self, index: usize, column: &'static str) -> Result<&'a str, ParseError> {
        std::str::from_utf8(self.bytes(index))
            .ok()
            .filter(|text| !text.is_empty())
            .ok_or_else(|| self.wrong(index, column))
    }

    fn count(&self, index: usize, column: &'static str) -> Result<u64, ParseError> {
        let digits = self.bytes(index);
        let is_number = digits.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(digits).ok().filter(|_| is_number);
        text.and_then(|text| text.parse().ok()).ok_or_else(|| self.wrong(index, column))
    }

    fn number(&self, index: usize, column: &'static str) -> Result<u32, ParseError> {
        decimal(self.bytes(index)).ok_or_else(|| self.wrong(index, column))
    }
}

/// Reads a number of decimal digits only, which is how HAProxy prints every number here.
pub(crate) fn decimal(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// What `show info` says about the answering process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The version, as `2.6.12-1+deb12u4`.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// When it started.
    pub start: Start,
    /// Whether it is stopping: an old process after a reload.
    pub stopping: bool,
    /// How many processes share the configuration (`nbproc`, HAProxy 2.4 and older).
    pub processes: u32,
}

impl Info {
    /// Reads the `Key: value` lines of `show info`.
    ///
    /// # Errors
    /// Names the key that is missing.
    pub fn parse(reply: &[u8]) -> Result<Self, ParseError> {
        let [mut version, mut pid, mut started, mut uptime, mut stopping, mut processes] = [None; 6];
        // A description may be in any encoding.
        let lines = reply.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        for (key, value) in lines.filter_map(|line| line.split_once(':')) {
            let slot = match key {
                "Version" => &mut version,
                "Pid" => &mut pid,
                "Start_time_sec" => &mut started,
                "Uptime_sec" => &mut uptime,
                "Stopping" => &mut stopping,
                "Nbproc" => &mut processes,
                _ => continue,
            };
            slot.get_or_insert(value.trim());
        }
        let missing = |key| ParseError::Key { key, reply: excerpt(reply, SHOWN) };
        let number = |value: Option<&str>| value.and_then(|value| value.parse::<u64>().ok());
        let start = match (number(started), number(uptime)) {
            (Some(at), _) => Start::At(at),
            (None, Some(ago)) => Start::Ago(ago),
            (None, None) => return Err(missing("Uptime_sec")),
        };
        Ok(Self {
            version: version.filter(|text| !text.is_empty()).ok_or_else(|| missing("Version"))?.to_owned(),
            pid: pid.and_then(|pid| pid.parse().ok()).ok_or_else(|| missing("Pid"))?,
            start,
            stopping: stopping.is_some_and(|value| value != "0"),
            processes: processes.map_or(Some(1), |value| value.parse().ok()).ok_or_else(|| missing("Nbproc"))?,
        })
    }
}

/// What a socket allows its clients (`level` in the configuration).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Reads what is harmless.
    User,
    /// Reads everything.
    Operator,
    /// Changes the state of servers.
    Admin,
}

impl Level {
    /// Reads the answer of `show cli level`.
    ///
    /// # Errors
    /// Shows an answer that is none of the three levels.
    pub fn parse(reply: &str) -> Result<Self, ParseError> {
        match without_severity(reply.trim()) {
            "user" => Ok(Self::User),
            "operator" => Ok(Self::Operator),
            "admin" => Ok(Self::Admin),
            other => Err(ParseError::Level(excerpt(other.as_bytes(), SHOWN))),
        }
    }

    /// Returns the word that stands for the level in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// The columns of `show stat` that this program reads (management.txt, section 9.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatHeader {
    /// How many values of a row are looked at: the last of those below, and those before it.
    length: usize,
    pxname: usize,
    svname: usize,
    iid: usize,
    sid: usize,
    qcur: usize,
    scur: usize,
    stot: usize,
    status: usize,
    weight: usize,
    check_status: usize,
    check_code: usize,
    tracked: usize,
    bck: usize,
    throttle: usize,
    check_rise: usize,
    check_health: usize,
    check_fall: usize,
    srid: Option<usize>,
    act: Option<usize>,
}

/// How many usable servers a backend has, as its own row of `show stat` counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// The number of the backend.
    pub backend_id: u32,
    /// Those that are not backup servers.
    pub active: u32,
    /// Those that are.
    pub backup: u32,
}

/// One server as `show stat` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatRow<'a> {
    /// The backend.
    pub backend: Cow<'a, str>,
    /// The server.
    pub server: Cow<'a, str>,
    /// The number of the backend in this process.
    pub backend_id: u32,
    /// The number of the server in its backend.
    pub server_id: u32,
    /// What the row says of it.
    pub statistics: Statistics,
}

impl StatRow<'_> {
    fn into_owned(self) -> StatRow<'static> {
        StatRow {
            backend: Cow::Owned(self.backend.into_owned()),
            server: Cow::Owned(self.server.into_owned()),
            backend_id: self.backend_id,
            server_id: self.server_id,
            statistics: self.statistics,
        }
    }

    /// Tells whether the row says of a whole backend that it is unpublished.
    #[must_use]
    pub fn is_of_unpublished_backend(&self) -> bool {
        self.server_id == 0 && self.server == "BACKEND" && self.statistics.status.ends_with("(UNPUB)")
    }
}

impl StatHeader {
    /// Reads the line that names the columns.
    ///
    /// # Errors
    /// Names the first column that is missing.
    pub fn parse(line: &[u8]) -> Result<Self, ParseError> {
        let missing = |column| ParseError::Column { command: STAT, column, line: excerpt(line, SHOWN) };
        let names = line.strip_prefix(b"# ").ok_or_else(|| missing("pxname"))?;
        let names: Vec<&[u8]> = names.split(|byte| *byte == b',').collect();
        let mut length = 0;
        let mut find = |column: &'static str| {
            let place = names.iter().position(|name| *name == column.as_bytes()).ok_or_else(|| missing(column))?;
            length = length.max(place + 1);
            Ok(place)
        };
        Ok(Self {
            pxname: find("pxname")?,
            svname: find("svname")?,
            iid: find("iid")?,
            sid: find("sid")?,
            qcur: find("qcur")?,
            scur: find("scur")?,
            stot: find("stot")?,
            status: find("status")?,
            weight: find("weight")?,
            check_status: find("check_status")?,
            check_code: find("check_code")?,
            tracked: find("tracked")?,
            bck: find("bck")?,
            throttle: find("throttle")?,
            check_rise: find("check_rise")?,
            check_health: find("check_health")?,
            check_fall: find("check_fall")?,
            // HAProxy 2.8 and later.
            srid: find("srid").ok(),
            act: find("act").ok(),
            length,
        })
    }

    /// Reads the counts of a published backend from its own row.
    #[must_use]
    pub fn counts(&self, line: &[u8]) -> Option<Counts> {
        let unquoted = memchr(b'"', line).map(|_| unquoted(line));
        let values: Vec<&[u8]> = match &unquoted {
            Some(values) => values.iter().map(Vec::as_slice).collect(),
            None => split(line).collect(),
        };
        let value = |index: usize| values.get(index).copied();
        let number = |index: usize| value(index).and_then(decimal);
        let is_backend = value(self.svname).is_some_and(|name| name == b"BACKEND");
        let is_published = value(self.status).is_some_and(|status| !status.ends_with(b"(UNPUB)"));
        let counts = Counts { backend_id: number(self.iid)?, active: number(self.act?)?, backup: number(self.bck)? };
        Some(counts).filter(|_| is_backend && is_published)
    }

    /// Reads a row.
    ///
    /// # Errors
    /// Shows the row and what is wrong with it.
    pub fn row<'a>(&self, line: &'a [u8]) -> Result<StatRow<'a>, ParseError> {
        if memchr(b'"', line).is_some() {
            let values = unquoted(line);
            let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            return self.row_of(&values, line).map(StatRow::into_owned);
        }
        // There may be 100,000 rows, and HAProxy 3.2 writes 208 values into each.
        let mut values = Vec::with_capacity(self.length);
        values.extend(split(line).take(self.length));
        self.row_of(&values, line)
    }

    fn row_of<'a>(&self, values: &[&'a [u8]], line: &'a [u8]) -> Result<StatRow<'a>, ParseError> {
        let row = Row { command: STAT, columns: values, line };
        let text = |value: &[u8]| (!value.is_empty()).then(|| printable(&String::from_utf8_lossy(value)).into_owned());
        let some = |index| text(row.bytes(index));
        // While a check is in progress, HAProxy writes `* ` before the result of the last one.
        let check = row.bytes(self.check_status);
        let name = |index, column| row.text(index, column).map(printable);
        let statistics = Statistics {
            queue: row.number(self.qcur, "qcur")?,
            sessions: row.number(self.scur, "scur")?,
            total_sessions: row.count(self.stot, "stot")?,
            status: some(self.status).ok_or_else(|| row.wrong(self.status, "status"))?,
            weight: row.number(self.weight, "weight")?,
            publication: Publication::Published,
            check: text(check.strip_prefix(b"* ").unwrap_or(check)),
            check_code: decimal(row.bytes(self.check_code)),
            tracks: some(self.tracked),
            backup: row.bytes(self.bck) == b"1",
            is_throttled: !matches!(row.bytes(self.throttle), b"" | b"100"),
            counter: self.counter(&row),
            revision: self.srid.and_then(|index| decimal(row.bytes(index))),
        };
        Ok(StatRow {
            backend_id: row.number(self.iid, "iid")?,
            server_id: row.number(self.sid, "sid")?,
            statistics,
            backend: name(self.pxname, "pxname")?,
            server: name(self.svname, "svname")?,
        })
    }

    fn counter(&self, row: &Row<'_, '_>) -> Option<CheckCounter> {
        Some(CheckCounter {
            health: decimal(row.bytes(self.check_health))?,
            rise: decimal(row.bytes(self.check_rise))?,
            fall: decimal(row.bytes(self.check_fall))?,
        })
    }
}

/// Splits a line of comma-separated values, none of which is quoted.
fn split(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',')
}

/// Splits a line of comma-separated values; a value in double quotes may hold commas and doubled quotes.
fn unquoted(line: &[u8]) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    let mut value = Vec::new();
    let mut quoted = false;
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if quoted && bytes.peek() == Some(&b'"') => {
                value.push(b'"');
                bytes.next();
            }
            b'"' => quoted = !quoted,
            b',' if !quoted => values.push(std::mem::take(&mut value)),
            _ => value.push(byte),
        }
    }
    values.push(value);
    values
}

/// Removes the severity that a socket with `severity-output` puts before a message: `[3]: ` or `[err]: `.
#[must_use]
pub fn without_severity(reply: &str) -> &str {
    let Some((severity, rest)) = reply.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) else {
        return reply;
    };
    let is_number = severity.len() == 1 && severity.bytes().all(|byte| byte.is_ascii_digit());
    let is_word = !severity.is_empty() && severity.len() <= 8 && severity.bytes().all(|byte| byte.is_ascii_lowercase());
    if is_number || is_word { rest } else { reply }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use proptest::prelude::*;

    const HEADER: &[u8] = b"# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
        srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
        srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord";

    static COLUMNS: LazyLock<StateHeader> = LazyLock::new(|| StateHeader::parse(HEADER).unwrap());

    fn row(line: &[u8]) -> Result<StateRow<'_>, ParseError> {
        match COLUMNS.row(line, |_, _, _, _| true)? {
            AnyRow::Wanted(row) => Ok(row),
            AnyRow::Other(_) => unreachable!("every row is wanted"),
        }
    }

    #[test]
    fn a_row_is_read_by_the_names_of_its_columns() {
        let row = row(b"3 app 1 web1 127.0.0.1 0 5 7 1 25 1 0 2 14 0 0 0 - 8080 -").unwrap();
        assert_eq!((row.backend_id, row.backend, row.server_id, row.server), (3, "app", 1, "web1"));
        assert_eq!((row.operational, row.flags), (OperationalState::Stopped, AdminFlags(5)));
        assert_eq!((row.weight, row.initial_weight, row.check, row.port), (7, 1, 14, "8080"));
    }

    #[test]
    fn a_row_is_rewritten_in_the_columns_that_commands_set() {
        let line = b"3 app 1 web1 127.0.0.1 0 5 7 1 25 1 0 2 14 6 0 0 - 8080 -";
        let rewritten = COLUMNS.rewritten(line, |backend, server, check, agent| {
            assert_eq!((backend, server, check, agent), (&b"app"[..], &b"web1"[..], 14, 6));
            Some((AdminFlags(8), 9, 10, 11))
        });
        let expected = "3 app 1 web1 127.0.0.1 0 8 9 1 25 1 0 2 10 11 0 0 - 8080 -";
        assert_eq!(rewritten.map(|row| String::from_utf8(row).unwrap()).as_deref(), Some(expected));
        assert_eq!(COLUMNS.rewritten(line, |_, _, _, _| None), None);
        let garbage = b"3 app 1 web1 127.0.0.1 0 5 7 1 25 1 0 2 x 6 0 0 - 8080 -";
        assert_eq!(COLUMNS.rewritten(garbage, |_, _, check, _| panic!("{check}")), None);
    }

    #[test]
    fn a_row_that_is_not_understood_is_shown() {
        for line in [
            &b"3 app 1 web1 127.0.0.1 0 5 7 1 25 1 0 2 14 0 0 0 - 8080"[..],
            b"3 my app 1 web1 127.0.0.1 0 5 7 1 25 1 0 2 14 0 0 0 - 8080 -",
            b"3 app 1 web1 127.0.0.1 4 5 7 1 25 1 0 2 14 0 0 0 - 8080 -",
            b"3 app 1 web1 127.0.0.1 0 0x5 7 1 25 1 0 2 14 0 0 0 - 8080 -",
            b"3 app 1 web1 127.0.0.1 0 99999999999 7 1 25 1 0 2 14 0 0 0 - 8080 -",
            b"3 app 1  127.0.0.1 0 5 7 1 25 1 0 2 14 0 0 0 - 8080 -",
            b"",
        ] {
            let error = row(line).unwrap_err().to_string();
            assert!(error.contains(&excerpt(line, SHOWN)), "{error}");
        }
    }

    #[test]
    fn a_header_names_the_column_that_it_lacks() {
        assert!(StateHeader::parse(b"# be_id be_name").unwrap_err().to_string().contains("'srv_id'"));
        let fewer = String::from_utf8(HEADER.to_vec()).unwrap().replace(" srvrecord", "");
        assert!(StateHeader::parse(fewer.as_bytes()).unwrap_err().to_string().contains("'srvrecord'"));
        assert!(state_version(b"2").unwrap_err().to_string().contains("'2'"));
        let other = String::from_utf8(HEADER.to_vec()).unwrap().replace("srv_admin_state", "srv_adm");
        assert!(StateHeader::parse(other.as_bytes()).unwrap_err().to_string().contains("'srv_admin_state'"));
    }

    #[test]
    fn a_level_may_have_a_severity() {
        for reply in ["admin\n\n", "[info]: admin\n\n", "[6]: admin\n\n"] {
            assert_eq!(Level::parse(reply), Ok(Level::Admin));
        }
        assert_eq!(Level::parse("[info] admin"), Err(ParseError::Level("[info] admin".into())));
    }

    fn key_error(key: &'static str, reply: &str) -> ParseError {
        ParseError::Key { key, reply: excerpt(reply.as_bytes(), SHOWN) }
    }

    #[test]
    fn info_needs_what_tells_processes_apart() {
        let info =
            Info::parse(b"Name: HAProxy\nVersion: 2.2.9\nNbproc: 1\nPid: 12\nUptime_sec: 7\nStopping: 1\n").unwrap();
        assert_eq!((info.pid, info.start, info.stopping), (12, Start::Ago(7), true));
        assert_eq!(
            Info::parse(b"Name: x\nPid: 1\nUptime_sec: 1\n"),
            Err(key_error("Version", "Name: x\nPid: 1\nUptime_sec: 1\n"))
        );
        assert_eq!(Info::parse(b"Version: 3\nUptime_sec: 1\n"), Err(key_error("Pid", "Version: 3\nUptime_sec: 1\n")));
    }

    #[test]
    fn info_tells_when_a_process_started_and_how_many_there_are() {
        let read =
            |more: &str| Info::parse(format!("Version: 3.2.4\nPid: 7\nUptime_sec: 60\n{more}").as_bytes()).unwrap();
        let info = Info { version: "3.2.4".to_owned(), pid: 7, start: Start::Ago(60), stopping: false, processes: 1 };
        assert_eq!(read("Stopping: 0\nName: b\u{e9}\n"), info);
        assert_eq!(read("Start_time_sec: 1700000000\n"), Info { start: Start::At(1_700_000_000), ..info.clone() });
        assert_eq!(read("Stopping: 1\n"), Info { stopping: true, ..info.clone() });
        assert_eq!(read("Nbproc: 2\nNbproc: 1\n"), Info { processes: 2, ..info });
        let two = "Version: 3.2.4\nPid: 7\nUptime_sec: 60\nNbproc: two\n";
        assert_eq!(Info::parse(two.as_bytes()), Err(key_error("Nbproc", two)));
    }

    #[test]
    fn severity_is_taken_off() {
        assert_eq!(without_severity("[3]: No such server.\n"), "No such server.\n");
        assert_eq!(without_severity("[err]: No such server.\n"), "No such server.\n");
        for plain in
            ["[3] No", "[12]: No", "[lowercase]: No", "[]: No", "[123456789]: No", "[#]: No", "[er-r]: No", "3]: No"]
        {
            assert_eq!(without_severity(plain), plain);
        }
        assert_eq!(without_severity("plain"), "plain");
    }

    static STAT_COLUMNS: LazyLock<StatHeader> = LazyLock::new(|| {
        let header = b"# pxname,svname,qcur,scur,stot,status,weight,act,bck,iid,sid,throttle,tracked,check_status,\
            check_code,check_rise,check_fall,check_health,srid,";
        StatHeader::parse(header).unwrap()
    });

    #[test]
    fn a_row_of_statistics_is_read_by_the_names_of_its_columns() {
        let busy =
            STAT_COLUMNS.row(b"app,web1,1,2,5000000000,DOWN 1/2,7,0,1,3,4,50,app/web2,L7STS,503,2,3,1,9,").unwrap();
        let statistics = Statistics {
            queue: 1,
            sessions: 2,
            total_sessions: 5_000_000_000,
            status: "DOWN 1/2".to_owned(),
            weight: 7,
            publication: Publication::Published,
            check: Some("L7STS".to_owned()),
            check_code: Some(503),
            tracks: Some("app/web2".to_owned()),
            backup: true,
            is_throttled: true,
            counter: Some(CheckCounter { health: 1, rise: 2, fall: 3 }),
            revision: Some(9),
        };
        let expected =
            StatRow { backend: "app".into(), server: "web1".into(), backend_id: 3, server_id: 4, statistics };
        assert_eq!(busy, expected);
        let idle = STAT_COLUMNS.row(b"app,web1,0,0,0,no check,1,1,0,3,4,100,,,,,,,,").unwrap().statistics;
        assert_eq!(idle, Statistics { status: "no check".to_owned(), weight: 1, ..Statistics::default() });
        for garbage in [
            &b"app,web1,0,0,,UP,1,1,0,3,4,,,,,,,,,"[..],
            b"app,web1,0,0,+1,UP,1,1,0,3,4,,,,,,,,,",
            b"app,web1,x,0,0,UP,1,1,0,3,4,,,,,,,,,",
            b"app,web1,0,0,0,,1,1,0,3,4,,,,,,,,,",
            b"app,,0,0,0,UP,1,1,0,3,4,,,,,,,,,",
            b"app,web1,0,0,0,UP,1,1,0,3,,,,,,,,,,",
            b"app",
        ] {
            assert!(STAT_COLUMNS.row(garbage).is_err(), "{}", garbage.escape_ascii());
        }
    }

    #[test]
    fn the_row_of_a_backend_counts_its_servers() {
        let counts = |row: &str| STAT_COLUMNS.counts(row.as_bytes());
        let expected = Counts { backend_id: 3, active: 5, backup: 2 };
        assert_eq!(counts("app,BACKEND,0,0,0,UP,7,5,2,3,0,,,,,,,,,"), Some(expected));
        assert_eq!(counts("\"app\",\"BACKEND\",0,0,0,UP,7,5,2,3,0,,,,,,,,,"), Some(expected));
        assert_eq!(counts("app,BACKEND,0,0,0,UP (UNPUB),7,5,2,3,0,,,,,,,,,"), None);
        assert_eq!(counts("app,web1,0,0,0,UP,7,1,0,3,1,,,,,,,,,"), None);
        assert_eq!(counts("app,BACKEND,0,0,0,UP,7,x,2,3,0,,,,,,,,,"), None);
        let unpublished = STAT_COLUMNS.row(b"app,BACKEND,0,0,0,UP (UNPUB),7,5,2,3,0,,,,,,,,,").unwrap();
        assert!(unpublished.is_of_unpublished_backend());
        let published = STAT_COLUMNS.row(b"app,BACKEND,0,0,0,UP,7,5,2,3,0,,,,,,,,,").unwrap();
        assert!(!published.is_of_unpublished_backend());
    }

    #[test]
    fn a_check_in_progress_shows_the_result_before_it() {
        let check = |status: &str| {
            let row = format!("app,web1,0,0,0,UP,1,1,0,3,4,,,{status},200,2,3,4,,");
            STAT_COLUMNS.row(row.as_bytes()).unwrap().statistics.check
        };
        for (status, expected) in
            [("L7OK", Some("L7OK")), ("* L7OK", Some("L7OK")), ("* * L7OK", Some("* L7OK")), ("* ", None), ("", None)]
        {
            assert_eq!(check(status).as_deref(), expected, "{status:?}");
        }
    }

    #[test]
    fn quoted_values_may_hold_commas() {
        let values = unquoted(b"a,\"b,\"\"c\"\"\",,d");
        let values: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value)).collect();
        assert_eq!(values, ["a", "b,\"c\"", "", "d"]);
    }

    proptest! {
        #[test]
        fn no_reply_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), text in any::<String>()) {
            let _ = StateHeader::parse(&bytes);
            let _ = COLUMNS.row(&bytes, |_, _, _, _| true);
            let _ = StatHeader::parse(&bytes);
            let _ = StatHeader::parse(b"# pxname,svname,iid,sid,qcur,scur,stot,status,weight,check_status,check_code,tracked,bck,throttle,check_rise,check_health,check_fall").unwrap().row(&bytes);
            let _ = Info::parse(&bytes);
            let _ = Level::parse(&text);
            let _ = without_severity(&text);
        }

        #[test]
        fn every_mask_and_state_is_kept(mask in 0u32..=127, op in 0u32..=3, weight in 0u32..=256) {
            let line = format!("3 app 1 web1 127.0.0.1 {op} {mask} {weight} 1 25 1 0 2 14 0 0 0 - 8080 -");
            let row = row(line.as_bytes()).unwrap();
            prop_assert_eq!(row.flags, AdminFlags(mask));
            prop_assert_eq!(row.weight, weight);
            prop_assert_eq!(OperationalState::from_number(op), Some(row.operational));
        }
    }
}
