//! Compares a state file with what it should contain; does no I/O.
//!
//! HAProxy reads rows by position and ignores the header (`srv_state_parse_line()` and `srv_state_srv_update()` in its
//! `src/server_state.c`); since 2.4 one damaged row makes it ignore the whole file. A row restores more than a state:
//! check results, and how checks connect. Of that, a row contains only what HAProxy would start with anyway:
//!
//! - The operational state is "running". A server that was stopped when the file was written would otherwise stay stopped
//!   for good if it has no check, or if `disabled` was removed from the configuration. A server whose check is paused
//!   keeps its state, since nothing would notice that it is down.
//! - The check status is "initializing". With 0, "unknown", HAProxy runs the checks but ignores their results for as long
//!   as the process lives (`set_server_check_status()` in its `src/check.c`).
//! - A server with a host name has no address, so that HAProxy resolves the name again. A server whose name comes from an
//!   SRV record keeps its address; HAProxy would otherwise ask the C library, which may not know the name.
//! - Columns after the 20th are left out. They would undo changes to `ssl` and to check addresses.
//! - Flags that HAProxy recomputes are left out, because 2.2 rejects some of them. Maintenance plus drain, which every
//!   version rejects, becomes maintenance.
//!
//! Servers of one host name at different addresses, as `server-template` makes them, belong together: at a reload the
//! resolver would assign the addresses again, and maintenance would move to another machine. If one of them needs a row,
//! all get one, with their addresses; HAProxy keeps those for as long as DNS returns them.
//!
//! Rows of backends that HAProxy does not have are kept as they stand: another instance may load the same file.
//!
//! The port cannot be left out, so a row overrides a port that has changed in the configuration.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use crate::haproxy::parse::{ParseError, decimal, state_version};
use crate::model::state::{AdminFlags, AdminState};
use crate::model::text::excerpt;

/// The columns of a row, in the order in which HAProxy reads them.
const COLUMNS: [&str; 20] = [
    "be_id",
    "be_name",
    "srv_id",
    "srv_name",
    "srv_addr",
    "srv_op_state",
    "srv_admin_state",
    "srv_uweight",
    "srv_iweight",
    "srv_time_since_last_change",
    "srv_check_status",
    "srv_check_result",
    "srv_check_health",
    "srv_check_state",
    "srv_agent_state",
    "bk_f_forced_id",
    "srv_f_forced_id",
    "srv_fqdn",
    "srv_port",
    "srvrecord",
];

/// The longest line that HAProxy reads, line feed included (`SRV_STATE_LINE_MAXLEN` less the NUL).
const LINE_MAX: usize = 1999;

/// How much of a line an error shows, in bytes.
const SHOWN: usize = 200;

const COMMAND: &str = "show servers state";

/// `SRV_ST_RUNNING` as a row has it.
const RUNNING: &[u8] = b"2";
/// `HCHK_STATUS_INI` as a row has it: a check that has not run yet.
const INITIALIZING: &[u8] = b"1";
/// `CHK_RES_UNKNOWN` as a row has it.
const NO_RESULT: &[u8] = b"0";
/// A missing value, as a row has it.
const NONE: &[u8] = b"-";

/// The administrative flags that a row can restore.
const RESTORED: u32 = AdminFlags::FORCED_MAINT | AdminFlags::CONFIG_MAINT | AdminFlags::FORCED_DRAIN;
/// A server that the configuration itself disables.
const DISABLED: u32 = AdminFlags::FORCED_MAINT | AdminFlags::CONFIG_MAINT;

/// The bits of a check that say whether there is one and whether it is running.
const CONFIGURED: u32 = 2;
const ENABLED: u32 = 4;
/// The bits of a check that every version loads; older ones print more.
const CHECK_BITS: u32 = 0x0f;
const AGENT_BITS: u32 = 0x1f;

/// The settings that a row restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    admin: u32,
    weight: u32,
    initial_weight: u32,
    check: u32,
    agent: u32,
}

impl Mark {
    /// Reads it from a row as it stands.
    fn parse(row: &[&[u8]; COLUMNS.len()]) -> Result<Self, &'static str> {
        let [_, _, _, _, _, _, admin, weight, initial_weight, _, _, _, _, check, agent, ..] = row;
        let number = |value, column| decimal(value).ok_or(column);
        Ok(Self {
            admin: number(admin, "srv_admin_state")?,
            weight: number(weight, "srv_uweight")?,
            initial_weight: number(initial_weight, "srv_iweight")?,
            check: number(check, "srv_check_state")? & (CONFIGURED | ENABLED),
            agent: number(agent, "srv_agent_state")? & (CONFIGURED | ENABLED),
        })
    }

    /// Reduces it to what HAProxy restores, in a form that every version accepts.
    fn restorable(self) -> Self {
        let admin = match self.admin & RESTORED {
            admin if admin & AdminFlags::FORCED_MAINT != 0 => admin & !AdminFlags::FORCED_DRAIN,
            admin => admin,
        };
        Self { admin, ..self }
    }

    /// Tells whether it differs from what the configuration alone would give.
    fn is_set_by_command(self) -> bool {
        !matches!(self.admin, 0 | DISABLED)
            || self.weight != self.initial_weight
            || is_paused(self.check)
            || is_paused(self.agent)
    }

    /// Chooses the operational state for the row from the flags as dumped.
    fn health(self) -> Health {
        match AdminFlags(self.admin).effective() {
            AdminState::Ready | AdminState::Drain if is_paused(self.check) => Health::AsDumped,
            AdminState::Ready | AdminState::Drain | AdminState::Maint => Health::AsAtStart,
        }
    }
}

/// Tells whether HAProxy ignores the results of a server's checks (`HCHK_STATUS_UNKNOWN`).
fn ignores_checks(row: &[&[u8]; COLUMNS.len()]) -> bool {
    let [_, _, _, _, _, _, _, _, _, _, status, ..] = row;
    decimal(status) == Some(0)
}

/// Where a server's address comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// The configuration or a command; HAProxy ignores the address in the row.
    Literal,
    /// A host name in the configuration.
    Host(Vec<u8>),
    /// An SRV record.
    Record,
}

impl Source {
    fn of(row: &[&[u8]; COLUMNS.len()]) -> Self {
        match row {
            [.., NONE, _, _] => Self::Literal,
            [.., name, _, NONE] => Self::Host(name.to_vec()),
            [..] => Self::Record,
        }
    }
}

/// Returns the address that a row restores, if any.
fn pinned<'a>(row: &[&'a [u8]; COLUMNS.len()]) -> Option<&'a [u8]> {
    let [_, _, _, _, address, ..] = row;
    let is_taken = Source::of(row) != Source::Literal && *address != NONE;
    is_taken.then_some(*address)
}

/// Whether the servers of one host name share an address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Spread {
    /// All have this address, or all have none.
    One(Vec<u8>),
    /// Their addresses differ.
    Several,
}

/// The servers of one host name in one backend.
#[derive(Debug, Clone)]
struct Siblings {
    spread: Spread,
    /// Whether a command has set one of them.
    has_set: bool,
}

/// Why a server may have a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// A command has set it.
    Set,
    /// A command may have set another server with the same host name, so that both must keep their addresses.
    Sibling,
}

/// Tells whether a check is configured and paused.
fn is_paused(check: u32) -> bool {
    check == CONFIGURED
}

/// What a row says about the operational state.
#[derive(Debug, Clone, Copy)]
enum Health {
    /// The state that HAProxy starts with.
    AsAtStart,
    /// The state in the dump.
    AsDumped,
}

/// A row that may belong in the file.
#[derive(Debug, Clone)]
struct Row {
    backend: Vec<u8>,
    server: Vec<u8>,
    source: Source,
    reason: Reason,
    /// The row as written, with its address and line feed.
    line: Vec<u8>,
}

/// The effect of a row when HAProxy loads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Effect<'a> {
    mark: Mark,
    /// The address that it restores.
    pinned: Option<&'a [u8]>,
}

/// Which servers have rows in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coverage {
    /// All of the instance, for `load-server-state-from-file global`.
    All,
    /// Those of one backend, for `load-server-state-from-file local`.
    Backend(String),
}

impl Coverage {
    /// Returns the backend, where it is one.
    #[must_use]
    pub fn backend(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Backend(name) => Some(name),
        }
    }

    /// Tells whether the servers of a backend are among them.
    #[must_use]
    pub fn includes(&self, backend: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Backend(name) => name.as_bytes() == backend,
        }
    }
}

/// The rows of a complete, fresh `show servers state` that belong in the file.
#[derive(Debug, Clone, Default)]
pub struct Dump {
    /// How many lines were read.
    lines: usize,
    /// How many columns the rows have.
    columns: usize,
    /// The rows of servers that a command has set, and of servers with a host name, in HAProxy's order.
    rows: Vec<Row>,
    /// The backends and their numbers.
    backends: HashMap<Vec<u8>, Vec<u8>>,
    /// Names that several backends share.
    shared: HashSet<Vec<u8>>,
    /// The servers of each backend and host name.
    siblings: HashMap<(Vec<u8>, Vec<u8>), Siblings>,
    /// The servers (backend, server) whose checks run without counting.
    unheard: HashSet<(Vec<u8>, Vec<u8>)>,
}

impl Dump {
    /// Takes the next line of the dump, from the version line on.
    ///
    /// # Errors
    /// Shows a line that it cannot parse.
    pub fn line(&mut self, line: &[u8]) -> Result<(), ParseError> {
        self.lines += 1;
        match self.lines {
            1 => state_version(line),
            2 => self.header(line),
            _ if line.is_empty() || line.starts_with(b"#") => Ok(()),
            _ => self.row(line),
        }
    }

    /// Checks that the columns are in the order in which HAProxy reads them.
    fn header(&mut self, line: &[u8]) -> Result<(), ParseError> {
        let missing = |column| ParseError::Column { command: COMMAND, column, line: excerpt(line, SHOWN) };
        let mut names = line.strip_prefix(b"# ").ok_or_else(|| missing("be_id"))?.split(|byte| *byte == b' ');
        for column in COLUMNS {
            if names.next() != Some(column.as_bytes()) {
                return Err(missing(column));
            }
        }
        self.columns = COLUMNS.len() + names.count();
        Ok(())
    }

    fn row(&mut self, line: &[u8]) -> Result<(), ParseError> {
        let found = line.split(|byte| *byte == b' ').count();
        if found != self.columns {
            let line = excerpt(line, SHOWN);
            return Err(ParseError::Count { command: COMMAND, found, expected: self.columns, line });
        }
        let row = columns(line.split(|byte| *byte == b' '));
        let [id, backend, _, server, address, ..] = row;
        let wrong = |column| ParseError::Value {
            command: COMMAND,
            column,
            value: excerpt(value(&row, column), SHOWN),
            line: excerpt(line, SHOWN),
        };
        // Written into the file, it would be no row, or damage.
        let is_no_word = |value: &[u8]| value.is_empty() || value.iter().any(u8::is_ascii_control);
        if let Some((column, _)) = COLUMNS.into_iter().zip(row).find(|(_, value)| is_no_word(value)) {
            return Err(wrong(column));
        }
        let mark = Mark::parse(&row).map_err(wrong)?;
        match self.backends.get(backend) {
            Some(known) if known == id => {}
            Some(_) => {
                self.shared.insert(backend.to_vec());
            }
            None => {
                self.backends.insert(backend.to_vec(), id.to_vec());
            }
        }
        if mark.check & ENABLED != 0 && ignores_checks(&row) {
            self.unheard.insert((backend.to_vec(), server.to_vec()));
        }
        let health = mark.health();
        let mark = mark.restorable();
        let reason = if mark.is_set_by_command() { Reason::Set } else { Reason::Sibling };
        let source = Source::of(&row);
        match (&source, reason) {
            (Source::Host(name), reason) => self.sibling(backend, name, address, reason),
            (Source::Literal | Source::Record, Reason::Set) => {}
            (Source::Literal | Source::Record, Reason::Sibling) => return Ok(()),
        }
        let line = written(&row, mark, health);
        self.rows.push(Row { backend: backend.to_vec(), server: server.to_vec(), source, reason, line });
        Ok(())
    }

    /// Takes the next server of a host name.
    fn sibling(&mut self, backend: &[u8], name: &[u8], address: &[u8], reason: Reason) {
        let alone = || Siblings { spread: Spread::One(address.to_vec()), has_set: false };
        let siblings = self.siblings.entry((backend.to_vec(), name.to_vec())).or_insert_with(alone);
        siblings.has_set |= reason == Reason::Set;
        if siblings.spread != Spread::One(address.to_vec()) {
            siblings.spread = Spread::Several;
        }
    }

    /// The rows that belong in a file, as written.
    fn belonging<'a>(&'a self, coverage: &Coverage) -> impl Iterator<Item = (&'a Row, Cow<'a, [u8]>)> {
        self.rows.iter().filter(|row| coverage.includes(&row.backend)).filter_map(|row| {
            let siblings = match &row.source {
                Source::Host(name) => self.siblings.get(&(row.backend.clone(), name.clone())),
                Source::Literal | Source::Record => None,
            };
            match (siblings, row.reason) {
                (Some(Siblings { spread: Spread::Several, has_set: true }), Reason::Set | Reason::Sibling)
                | (None, Reason::Set) => Some((row, Cow::Borrowed(row.line.as_slice()))),
                (Some(_), Reason::Set) => Some((row, Cow::Owned(without_address(&row.line)))),
                (_, Reason::Sibling) => None,
            }
        })
    }

    /// Returns the servers (backend, server) that have rows, which restore their ports.
    #[must_use]
    pub fn servers(&self) -> HashSet<Key<'_>> {
        self.belonging(&Coverage::All).map(|(row, _)| row.key()).collect()
    }

    /// Compares the existing file with what it should contain for the matched servers (backend, server).
    ///
    /// # Errors
    /// Says why the dump is unusable, or why the existing file must not be replaced.
    pub fn compare(
        &self,
        coverage: &Coverage,
        existing: Option<&[u8]>,
        matched: &[(&str, &str)],
    ) -> Result<Comparison, String> {
        if self.lines < 2 {
            return Err("HAProxy listed no servers to write into it".to_owned());
        }
        let existing = Existing::parse(existing.unwrap_or_default())?;
        let matched: HashSet<Key<'_>> = matched
            .iter()
            .map(|(backend, server)| (backend.as_bytes(), server.as_bytes()))
            .filter(|(backend, _)| coverage.includes(backend))
            .collect();
        let mut warnings = Vec::new();
        let mut content = format!("1\n# {}\n", COLUMNS.join(" ")).into_bytes();
        for (row, line) in self.belonging(coverage) {
            match self.obstacle(row) {
                None => content.extend_from_slice(&line),
                Some(why) if row.reason == Reason::Set && matched.contains(&row.key()) => {
                    let (backend, server) = (excerpt(&row.backend, SHOWN), excerpt(&row.server, SHOWN));
                    warnings.push(format!("a reload forgets the state of {backend}/{server}, because {why}"));
                }
                Some(_) => {}
            }
        }
        // Another instance may load the same file; it alone knows whether it still has them.
        let is_of_another = |(backend, _): &Key<'_>| !self.backends.contains_key(*backend);
        let of_others = existing.lines.iter().filter(|(key, _)| is_of_another(key));
        of_others.for_each(|(_, line)| content.extend_from_slice(line));
        // Both files are compared as HAProxy would read them.
        let new = Existing::parse(&content)?;
        let differs = |key: &Key<'_>| existing.rows.get(key) != new.rows.get(key);
        let differs = existing.damage.is_some() || matched.iter().any(differs);
        warnings.extend(existing.damage.map(|why| format!("it {why}, so HAProxy would not load it")));
        Ok(Comparison { differs, content, warnings })
    }

    /// Warns of matched servers (backend, server) whose health checks HAProxy ignores.
    #[must_use]
    pub fn unheard(&self, matched: &[(&str, &str)]) -> Option<String> {
        let is_unheard = |(backend, server): &&(&str, &str)| {
            !self.unheard.is_empty()
                && self.unheard.contains(&(backend.as_bytes().to_vec(), server.as_bytes().to_vec()))
        };
        let names: Vec<String> =
            matched.iter().filter(is_unheard).map(|(backend, server)| format!("{backend}/{server}")).collect();
        let named = match names.as_slice() {
            [] => return None,
            [name] => name.clone(),
            [name, more @ ..] => format!("{name} and {} more", more.len()),
        };
        Some(format!(
            "HAProxy ignores the health checks of {named}, because it has loaded a state file with check status 0; reload \
             HAProxy after this run"
        ))
    }

    /// Says why a row cannot be written.
    fn obstacle(&self, row: &Row) -> Option<&'static str> {
        if self.shared.contains(&row.backend) {
            Some("two backends share that name, and a state file cannot tell them apart")
        } else if row.line.len() > LINE_MAX {
            Some("its row exceeds the longest line that HAProxy reads")
        } else {
            None
        }
    }
}

impl Row {
    fn key(&self) -> Key<'_> {
        (&self.backend, &self.server)
    }
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Whether the file has to be written.
    pub differs: bool,
    /// What the file should contain.
    pub content: Vec<u8>,
    /// What to tell the operator, although it is not a failure.
    pub warnings: Vec<String>,
}

/// Checks whether a file may be replaced.
///
/// # Errors
/// Says why not.
pub(super) fn check(content: &[u8]) -> Result<(), String> {
    Existing::parse(content).map(drop)
}

/// A server by its backend and its name.
type Key<'a> = (&'a [u8], &'a [u8]);

/// The file on disk.
#[derive(Debug, Default)]
struct Existing<'a> {
    /// What each row restores; `None` for a row that HAProxy rejects, or that makes it ignore the server's checks.
    rows: HashMap<Key<'a>, Option<Effect<'a>>>,
    /// These rows as they stand, in their order.
    lines: Vec<(Key<'a>, &'a [u8])>,
    /// Why HAProxy would ignore the whole file.
    damage: Option<String>,
}

impl<'a> Existing<'a> {
    /// Reads it as HAProxy does.
    ///
    /// # Errors
    /// Refuses a file that does not look like a state file; it may be somebody's only copy of something else.
    fn parse(content: &'a [u8]) -> Result<Self, String> {
        let mut existing = Self::default();
        // To HAProxy, an empty file is one without rows.
        if content.is_empty() {
            return Ok(existing);
        }
        let mut lines = content.split_inclusive(|byte| *byte == b'\n').enumerate();
        let first = lines.next().map(|(_, line)| line).unwrap_or_default();
        if decimal(first.trim_ascii()).is_none() {
            return Err("it is not a server-state file; give another path, or remove it".to_owned());
        }
        if first != b"1\n" {
            let shown = excerpt(first.trim_ascii_end(), SHOWN);
            existing.damage = Some(format!("starts with '{shown}' instead of the version line '1'"));
            return Ok(existing);
        }
        for (number, line) in lines {
            match Self::row(line) {
                Ok(None) => {}
                Ok(Some((key, mark))) => {
                    // HAProxy ignores a second row for the same server.
                    if let Entry::Vacant(entry) = existing.rows.entry(key) {
                        entry.insert(mark);
                        existing.lines.push((key, line));
                    }
                }
                Err(why) => {
                    existing.damage = Some(format!("{why} in line {}", number + 1));
                    break;
                }
            }
        }
        Ok(existing)
    }

    /// Reads a line with its line feed; `None` for an empty line or a comment.
    fn row(line: &'a [u8]) -> Result<Option<(Key<'a>, Option<Effect<'a>>)>, &'static str> {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let text = line.strip_suffix(b"\n").ok_or("is cut off")?;
        if line.len() > LINE_MAX {
            return Err("exceeds the longest line that HAProxy reads");
        }
        if text.iter().any(|byte| matches!(byte, 0 | b'\r')) {
            return Err("contains a NUL or a carriage return");
        }
        let fields = || text.split(is_blank).filter(|field| !field.is_empty());
        match fields().next() {
            None => return Ok(None),
            Some(first) if first.starts_with(b"#") => return Ok(None),
            Some(_) if fields().count() < COLUMNS.len() => return Err("has too few columns"),
            Some(_) => {}
        }
        let row = columns(fields());
        let [_, backend, _, server, ..] = row;
        let mark = Mark::parse(&row).ok().filter(|_| !ignores_checks(&row));
        Ok(Some(((backend, server), mark.map(|mark| Effect { mark, pinned: pinned(&row) }))))
    }
}

/// Takes the columns that HAProxy reads; missing ones are empty.
fn columns<'a>(mut fields: impl Iterator<Item = &'a [u8]>) -> [&'a [u8]; COLUMNS.len()] {
    std::array::from_fn(|_| fields.next().unwrap_or_default())
}

fn value<'a>(row: &[&'a [u8]; COLUMNS.len()], column: &str) -> &'a [u8] {
    COLUMNS.iter().zip(row).find(|(name, _)| **name == column).map(|(_, value)| *value).unwrap_or_default()
}

/// Writes a row as it belongs in the file.
fn written(row: &[&[u8]; COLUMNS.len()], mark: Mark, health: Health) -> Vec<u8> {
    let masked = |bits: &[u8], mask: u32| (decimal(bits).unwrap_or(0) & mask).to_string().into_bytes();
    let values = COLUMNS.iter().zip(row).map(|(column, value)| match *column {
        "srv_op_state" => match health {
            Health::AsAtStart => RUNNING.to_vec(),
            Health::AsDumped => value.to_vec(),
        },
        "srv_admin_state" => mark.admin.to_string().into_bytes(),
        "srv_check_status" => INITIALIZING.to_vec(),
        "srv_check_result" => NO_RESULT.to_vec(),
        "srv_check_state" => masked(value, CHECK_BITS),
        "srv_agent_state" => masked(value, AGENT_BITS),
        _ => value.to_vec(),
    });
    let mut line = values.collect::<Vec<_>>().join(&b' ');
    line.push(b'\n');
    line
}

/// Leaves the address out of a row.
fn without_address(line: &[u8]) -> Vec<u8> {
    let values = COLUMNS.iter().zip(line.split(|byte| *byte == b' '));
    let values = values.map(|(column, value)| if *column == "srv_addr" { NONE } else { value });
    values.collect::<Vec<_>>().join(&b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MORE: &str = " srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port";

    /// A row as HAProxy 2.4 and later prints it.
    fn row(server: &str, op: u32, admin: u32, weights: (u32, u32), check: u32, agent: u32) -> String {
        let (weight, initial) = weights;
        format!(
            "3 app 1 {server} 10.0.0.1 {op} {admin} {weight} {initial} 25 6 3 4 {check} {agent} 0 0 - 8080 - 1 9 - - 0"
        )
    }

    fn dump(rows: &[String]) -> Dump {
        let mut dump = Dump::default();
        dump.line(b"1").unwrap();
        dump.line(format!("# {}{MORE}", COLUMNS.join(" ")).as_bytes()).unwrap();
        rows.iter().for_each(|row| dump.line(row.as_bytes()).unwrap());
        dump.line(b"").unwrap();
        dump
    }

    fn new(dump: &Dump) -> String {
        String::from_utf8(dump.compare(&Coverage::All, None, &[]).unwrap().content).unwrap()
    }

    fn differs(dump: &Dump, existing: &str, servers: &[&str]) -> bool {
        let matched: Vec<(&str, &str)> = servers.iter().map(|&server| ("app", server)).collect();
        dump.compare(&Coverage::All, Some(existing.as_bytes()), &matched).unwrap().differs
    }

    fn with(change: (&str, &str), content: &str) -> String {
        assert!(content.contains(change.0), "{content}");
        content.replace(change.0, change.1)
    }

    #[test]
    fn only_what_commands_have_set_has_a_row() {
        let table = [
            (0, (1, 1), 6, 0x16, None),
            (2, (1, 1), 6, 0, None),
            (16, (1, 1), 6, 0, None),
            (32, (1, 1), 14, 0, None),
            (64, (1, 1), 6, 0, None),
            (5, (1, 1), 14, 0, None),
            (7, (1, 1), 14, 0, None),
            (1, (1, 1), 14, 0, Some(1)),
            (3, (1, 1), 14, 0, Some(1)),
            (33, (1, 1), 14, 0, Some(1)),
            (65, (1, 1), 14, 0, Some(1)),
            (8, (1, 1), 6, 0, Some(8)),
            (24, (1, 1), 6, 0, Some(8)),
            (40, (1, 1), 6, 0, Some(8)),
            (9, (1, 1), 14, 0, Some(1)),
            (13, (2, 1), 14, 0, Some(5)),
            (4, (1, 1), 6, 0, Some(4)),
            (12, (1, 1), 6, 0, Some(12)),
            (0, (0, 1), 6, 0, Some(0)),
            (5, (5, 1), 14, 0, Some(5)),
            (0, (1, 1), 2, 0, Some(0)),
            (0, (1, 1), 0, 0x12, Some(0)),
            (0, (1, 1), 0, 0, None),
            (0, (1, 1), 8, 8, None),
        ];
        for (admin, weights, check, agent, expected) in table {
            let content = new(&dump(&[row("web1", 0, admin, weights, check, agent)]));
            let found = content.lines().nth(2).map(|line| line.split(' ').nth(6).unwrap().parse().unwrap());
            assert_eq!(found, expected, "{admin} {weights:?} {check} {agent}");
        }
    }

    #[test]
    fn a_row_brings_nothing_else_back() {
        let content = new(&dump(&[row("web1", 0, 1, (1, 1), 0x4e, 0x1f), row("web2", 2, 0, (1, 1), 6, 0)]));
        let header = COLUMNS.join(" ");
        let expected = format!("1\n# {header}\n3 app 1 web1 10.0.0.1 2 1 1 1 25 1 0 4 14 31 0 0 - 8080 -\n");
        assert_eq!(content, expected);
    }

    #[test]
    fn a_name_is_left_to_be_resolved() {
        let table =
            [("web.test 8080 -", "-"), ("web.test 8080 _http._tcp.web.test", "10.0.0.1"), ("- 8080 -", "10.0.0.1")];
        for (end, expected) in table {
            let dump = dump(&[row("web1", 2, 1, (1, 1), 6, 0).replace("- 8080 -", end)]);
            let content = new(&dump);
            assert_eq!(content.lines().nth(2).unwrap().split(' ').nth(4), Some(expected), "{end}");
            assert!(!differs(&dump, &content, &["web1"]), "{end}");
        }
    }

    #[test]
    fn servers_of_one_name_keep_their_addresses_where_these_differ() {
        let at = |server: &str, backend: &str, address: &str| {
            let row = row(server, 2, 1, (1, 1), 6, 0).replace("- 8080 -", "web.test 8080 -");
            row.replace("10.0.0.1", address).replace("app", backend)
        };
        let table = [
            (["10.0.0.1", "10.0.0.1", "10.0.0.1"], vec!["-", "-"]),
            (["10.0.0.1", "10.0.0.1", "10.0.0.2"], vec!["-", "-"]),
            (["10.0.0.1", "10.0.0.2", "10.0.0.1"], vec!["10.0.0.1", "10.0.0.2", "-"]),
            (["10.0.0.1", "-", "10.0.0.1"], vec!["10.0.0.1", "-", "-"]),
        ];
        for ([one, two, other], expected) in table {
            let ready = at("web2", "app", two).replace(" 2 1 1 1 25 ", " 2 0 1 1 25 ");
            let rows = [at("web1", "app", one), ready, at("web1", "other", other)];
            let dump = dump(&rows);
            let content = new(&dump);
            let found: Vec<_> = content.lines().skip(2).map(|line| line.split(' ').nth(4).unwrap()).collect();
            assert_eq!(found, expected, "{one} {two} {other}");
            assert!(!differs(&dump, &content, &["web1", "web2"]), "{content}");
            // An address that is brought back is one that is compared.
            let moved = content.replace("10.0.0.1", "10.0.0.9");
            assert_eq!(differs(&dump, &moved, &["web1"]), expected[0] != "-", "{content}");
        }
        // Where no command has set any of them, none has a row.
        let ready = |server, address| at(server, "app", address).replace(" 2 1 1 1 25 ", " 2 0 1 1 25 ");
        assert_eq!(new(&dump(&[ready("web1", "10.0.0.1"), ready("web2", "10.0.0.2")])).lines().count(), 2);
    }

    #[test]
    fn a_row_that_does_harm_is_written_anew() {
        let named = dump(&[row("web1", 2, 1, (1, 1), 6, 0).replace("- 8080 -", "web.test 8080 -")]);
        assert!(differs(&named, &with((" - 2 1 ", " 10.0.0.1 2 1 "), &new(&named)), &["web1"]));
        let plain = dump(&[row("web1", 2, 1, (1, 1), 6, 0)]);
        assert!(differs(&plain, &with((" 25 1 0 ", " 25 0 0 "), &new(&plain)), &["web1"]));
        assert!(!differs(&plain, &with((" 25 1 0 ", " 25 6 3 "), &new(&plain)), &["web1"]));
    }

    #[test]
    fn checks_that_do_not_count_are_a_warning() {
        let unheard = |server: &str, check| row(server, 2, 0, (1, 1), check, 0).replace(" 25 6 3 ", " 25 0 0 ");
        let rows = [unheard("web1", 6), unheard("web2", 0), unheard("web3", 14), row("web4", 2, 0, (1, 1), 6, 0)];
        let dump = dump(&rows);
        let unheard = |matched: &[(&str, &str)]| dump.unheard(matched).unwrap_or_default();
        let both = unheard(&[("app", "web1"), ("app", "web2"), ("app", "web3")]);
        assert!(both.contains("app/web1 and 1 more, because"), "{both}");
        assert!(unheard(&[("app", "web3")]).contains("app/web3, because"));
        assert_eq!(dump.unheard(&[("app", "web2"), ("app", "web4")]), None);
    }

    #[test]
    fn the_file_of_a_backend_has_its_rows_only() {
        let other = row("web1", 0, 8, (1, 1), 6, 0).replace("3 app", "4 other");
        let dump = dump(&[row("web1", 0, 1, (1, 1), 14, 0), other, row("web2", 2, 0, (1, 1), 6, 0)]);
        let coverage = Coverage::Backend("other".to_owned());
        let matched = [("app", "web1"), ("other", "web1"), ("app", "web2")];
        let comparison = dump.compare(&coverage, None, &matched).unwrap();
        let content = String::from_utf8(comparison.content.clone()).unwrap();
        assert!(
            comparison.differs && content.lines().count() == 3 && content.contains("\n4 other 1 web1 "),
            "{content}"
        );
        assert!(!dump.compare(&coverage, Some(&comparison.content), &matched).unwrap().differs);
        assert!(!dump.compare(&coverage, None, &[("app", "web1")]).unwrap().differs);
    }

    #[test]
    fn only_a_server_whose_check_is_paused_stays_down() {
        let table = [
            (0, 2, "0"),
            (8, 2, "0"),
            (0, 6, "2"),
            (8, 6, "2"),
            (4, 2, "0"),
            (1, 2, "2"),
            (2, 2, "2"),
            (5, 2, "2"),
            (32, 2, "2"),
            (1, 14, "2"),
            (0, 0, "2"),
        ];
        for (admin, check, expected) in table {
            let content = new(&dump(&[row("web1", 0, admin, (2, 1), check, 0)]));
            assert_eq!(content.lines().nth(2).unwrap().split(' ').nth(5), Some(expected), "{admin} {check}");
        }
    }

    #[test]
    fn what_is_written_is_what_is_wanted() {
        let rows =
            [row("web1", 0, 9, (5, 1), 14, 0x1e), row("web2", 2, 8, (1, 1), 2, 0), row("web3", 2, 0, (1, 1), 6, 0)];
        let dump = dump(&rows);
        let content = new(&dump);
        let comparison = dump.compare(
            &Coverage::All,
            Some(content.as_bytes()),
            &[("app", "web1"), ("app", "web3"), ("app", "gone")],
        );
        assert_eq!(comparison, Ok(Comparison { differs: false, content: content.into_bytes(), warnings: vec![] }));
    }

    #[test]
    fn the_matched_servers_make_the_difference() {
        let dump = dump(&[row("web1", 0, 1, (1, 1), 14, 0), row("web2", 2, 0, (1, 1), 6, 0)]);
        let content = new(&dump);
        let same = [
            ("app 1 ", "app 77 "),
            ("3 app", "9 app"),
            (" 25 ", " 99 "),
            (".1 2 1", ".1 0 1"),
            (" 14 ", " 6 "),
            ("8080", "1"),
        ];
        for change in same {
            assert!(!differs(&dump, &with(change, &content), &["web1", "web2"]), "{change:?}");
        }
        let other = [
            (" 2 1 1 1 ", " 2 8 1 1 "),
            (" 2 1 1 1 ", " 2 9 1 1 "),
            (" 2 1 1 1 ", " 2 33 1 1 "),
            (" 2 1 1 1 ", " 2 1 7 1 "),
            (" 2 1 1 1 ", " 2 1 1 7 "),
            (" 2 1 1 1 ", " 2 x 1 1 "),
            (" 14 ", " 2 "),
            ("web1", "web3"),
            ("3 app", "# 3 app"),
        ];
        for change in other {
            let existing = with(change, &content);
            assert!(differs(&dump, &existing, &["web1"]), "{change:?}");
            assert!(!differs(&dump, &existing, &["web2"]), "{change:?}");
        }
        let extra = format!("{content}{}\n", row("web2", 2, 0, (1, 1), 6, 0));
        assert!(differs(&dump, &extra, &["web2"]) && !differs(&dump, &extra, &["web1"]));
    }

    #[test]
    fn no_file_is_needed_where_nothing_is_set() {
        let dump = dump(&[row("web1", 0, 1, (1, 1), 14, 0), row("web2", 2, 0, (1, 1), 6, 0)]);
        for existing in [None, Some(&b""[..])] {
            assert!(dump.compare(&Coverage::All, existing, &[("app", "web1")]).unwrap().differs);
            assert!(!dump.compare(&Coverage::All, existing, &[("app", "web2")]).unwrap().differs);
        }
    }

    #[test]
    fn a_damaged_file_is_written_anew() {
        let dump = dump(&[row("web1", 0, 1, (1, 1), 14, 0)]);
        let content = new(&dump);
        let cases = [
            (content.trim_end().to_owned(), "is cut off in line 3"),
            (content.replace('\n', "\r\n"), "instead of the version line"),
            (with(("1\n#", "2\n#"), &content), "starts with '2'"),
            ("1".to_owned(), "starts with '1'"),
            (format!("{content}3 app 1\n"), "too few columns in line 4"),
            (format!("{content}# {}\n", "x".repeat(2000)), "exceeds the longest line"),
            (format!("{content}\0\n"), "NUL or a carriage return"),
        ];
        for (existing, why) in cases {
            let comparison = dump.compare(&Coverage::All, Some(existing.as_bytes()), &[]).unwrap();
            assert!(comparison.differs && comparison.warnings.len() == 1, "{existing}");
            assert!(comparison.warnings[0].contains(why), "{:?}", comparison.warnings);
        }
        for fine in [
            content.clone(),
            format!("{content}\n"),
            format!("{content} \t\n # x\n"),
            content.replace(" 25 ", "  25\t"),
        ] {
            assert!(!differs(&dump, &fine, &["web1"]), "{fine:?}");
        }
    }

    #[test]
    fn another_file_is_never_replaced() {
        let dump = dump(&[]);
        for other in ["global\n  daemon\n", "\n", "1 2\n", "root:x:0:0\n", "\0\0\0"] {
            let why = dump.compare(&Coverage::All, Some(other.as_bytes()), &[]).unwrap_err();
            assert!(why.contains("not a server-state file"), "{other}: {why}");
        }
    }

    #[test]
    fn what_the_file_cannot_say_is_a_warning() {
        let long = "x".repeat(1_960);
        let twin = row("web1", 0, 1, (1, 1), 14, 0).replace("3 app", "4 app");
        let dump = dump(&[row("web1", 2, 0, (1, 1), 6, 0), twin, row(&long, 0, 1, (1, 1), 14, 0).replace("app", "b")]);
        assert_eq!(new(&dump).lines().count(), 2);
        let comparison = dump.compare(&Coverage::All, None, &[("app", "web1"), ("b", &long)]).unwrap();
        assert!(!comparison.differs);
        assert!(comparison.warnings[0].contains("app/web1, because two backends share"), "{:?}", comparison.warnings);
        assert!(comparison.warnings[1].contains("exceeds the longest line"), "{:?}", comparison.warnings);
        assert_eq!(dump.compare(&Coverage::All, None, &[]).unwrap().warnings, Vec::<String>::new());
    }

    #[test]
    fn a_dump_that_is_not_understood_is_refused() {
        let header = format!("# {}", COLUMNS.join(" "));
        let swapped = header.replace("srv_uweight srv_iweight", "srv_iweight srv_uweight");
        let row = row("web1", 0, 1, (1, 1), 14, 0);
        for lines in [
            vec!["2"],
            vec!["1", "be_id"],
            vec!["1", &swapped],
            vec!["1", &header, &row],
            vec!["1", &header, "3 app 1 web1 - 0 one 1 1 25 6 3 4 6 0 0 0 - 8080 -"],
        ] {
            let mut dump = Dump::default();
            assert!(lines.iter().any(|line| dump.line(line.as_bytes()).is_err()), "{lines:?}");
        }
        assert!(Dump::default().compare(&Coverage::All, None, &[]).is_err());
    }

    #[test]
    fn real_dumps_of_each_version_are_understood() {
        for version in ["2.2", "2.6", "3.0", "3.2"] {
            let file = format!("{}/tests/fixtures/{version}/show_servers_state.txt", env!("CARGO_MANIFEST_DIR"));
            let mut dump = Dump::default();
            for line in std::fs::read_to_string(file).unwrap().lines() {
                dump.line(line.as_bytes()).unwrap();
            }
            let content = dump.compare(&Coverage::All, None, &[]).unwrap().content;
            assert_eq!(Existing::parse(&content).unwrap().damage, None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>(), text in "(1\n)?([0-9a-z #\n]{0,8} ?){0,60}") {
            for content in [bytes.as_slice(), text.as_bytes()] {
                let mut other = dump(&[]);
                let _ = other.compare(&Coverage::All, Some(content), &[("app", "web1")]);
                let _ = other.line(content);
                for line in content.split(|byte| *byte == b'\n') {
                    let _ = other.line(line);
                }
            }
        }

        #[test]
        fn what_is_written_is_never_written_again(
            rows in proptest::collection::vec((0u32..4, 0u32..128, 0u32..3, 0u32..3, 0u32..256, 0u32..256), 0..8)
        ) {
            let names: Vec<String> = (0..rows.len()).map(|number| format!("web{number}")).collect();
            let rows: Vec<String> = rows.iter().zip(&names).map(|((op, admin, weight, initial, check, agent), name)| {
                row(name, *op, *admin, (*weight, *initial), *check, *agent)
            }).collect();
            let matched: Vec<(&str, &str)> = names.iter().map(|name| ("app", name.as_str())).collect();
            let dump = dump(&rows);
            let first = dump.compare(&Coverage::All, None, &matched).unwrap();
            let second = dump.compare(&Coverage::All, Some(&first.content), &matched).unwrap();
            prop_assert!(!second.differs);
            // HAProxy refuses every other mask, and every other bit of a check.
            for line in String::from_utf8(first.content).unwrap().lines().skip(2) {
                let numbers: Vec<u32> = line.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
                prop_assert!([0, 1, 4, 5, 8, 12].contains(&numbers[6]) && numbers[13] <= 15 && numbers[14] <= 31);
            }
        }
    }
}
