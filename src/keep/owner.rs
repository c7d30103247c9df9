//! Who has taken a server out, why, and until when: one small file of records in the [folder](super::folder).
//!
//! A record never keeps a server out; it only says who did. So a lost or damaged file is only a warning, and a record
//! that no longer matches what HAProxy shows does not count.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::lock::{LockSet, NotTaken, Patience};
use super::replace::replace;
use crate::model::error::{self, Error, ErrorKind};
use crate::model::goal::Was;
use crate::model::memory::{FOR_A_BYTE, RESERVE, could_have};
use crate::model::server::{Process, Server, ServerNumber};
use crate::model::state::{AdminFlags, AdminState};
use crate::request::Claim;
use crate::time::interrupt::Interrupt;

/// The longest owner or reason that is recorded, in bytes; longer ones are cut.
pub const TEXT_MAX: usize = 1000;

/// The name of the file, and the key of its lock.
const NAME: &str = "owners.json";
const LOCK: &str = "owners";

/// The format of the file.
const VERSION: u32 = 1;

/// The largest file that is read or written, in bytes.
const FILE_MAX: u64 = 16 << 20;

/// How long another run may take to write its records.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an expired record is kept if nothing shows that it still counts: 30 days, in seconds.
const LONG_EXPIRED: u64 = 30 * 24 * 3600;

/// Who has taken one server out, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The address of the instance, in HAProxy's notation.
    pub address: String,
    /// The process in which it was done.
    pub process: Process,
    /// Whether a state file brings the state back after a reload.
    pub survives_reload: bool,
    /// The backend.
    pub backend: String,
    /// The server.
    pub server: String,
    /// Which server of that name it was in its process; nothing in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<ServerNumber>,
    /// The address that it had; nothing in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_address: Option<String>,
    /// What it was set to.
    pub state: AdminState,
    /// What it was before; nothing in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Was>,
    /// Who did it, why, and until when.
    #[serde(flatten)]
    pub claim: Claim,
    /// When it was recorded, in seconds since the epoch.
    pub recorded: u64,
}

impl Record {
    /// Tells whether the record applies to this very server now.
    ///
    /// It does while the server is forced into the recorded state, and either the process is the recorded one, at
    /// whatever address, or the state has survived a reload through the state file. In one process it does not apply to
    /// another server that has got the name; in the next one, numbers may differ.
    fn counts(&self, at: &At<'_>, seen: &Seen<'_>) -> bool {
        let same = if at.process.is(&self.process) {
            self.number.is_none_or(|number| number.may_be(seen.number))
        } else {
            self.survives_reload && self.address == at.address
        };
        same && is_forced_to(self.state, seen.flags)
    }

    /// Returns the address that it had, if the server has another one now.
    #[must_use]
    pub fn moved_from(&self, server: &Server) -> Option<&str> {
        let had = self.server_address.as_deref().filter(|had| *had != &*server.address)?;
        // A name that did not resolve then was not yet any machine.
        had.parse::<SocketAddr>().is_ok().then_some(had)
    }

    /// Takes over that the server is in another state, perhaps of the next process.
    #[must_use]
    pub fn continued(self, state: AdminState, process: &Process, server: &Server) -> Self {
        let number = self.number.filter(|_| process.is(&self.process)).or(Some(server.number()));
        Self { state, process: process.clone(), number, ..self }
    }

    /// Tells whether the record belongs to the same instance, now or before a reload.
    fn is_of(&self, at: &At<'_>) -> bool {
        self.address == at.address || at.process.is(&self.process)
    }

    fn is(&self, backend: &str, server: &str) -> bool {
        self.backend == backend && self.server == server
    }
}

/// Tells whether commands have brought a server to that state: maintenance wins if both flags are set.
fn is_forced_to(state: AdminState, flags: AdminFlags) -> bool {
    match state {
        AdminState::Ready => false,
        AdminState::Drain => flags.commanded() == AdminFlags::FORCED_DRAIN,
        AdminState::Maint => flags.has(AdminFlags::FORCED_MAINT),
    }
}

/// The instance whose records are wanted.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// Its address, in HAProxy's notation.
    pub address: &'a str,
    /// The process that answered.
    pub process: &'a Process,
}

/// The part of an observed server that records depend on.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The backend.
    pub backend: &'a str,
    /// The server.
    pub server: &'a str,
    /// Which server of that name it is.
    pub number: ServerNumber,
    /// Its administrative flags.
    pub flags: AdminFlags,
}

impl<'a> From<&'a Server> for Seen<'a> {
    fn from(server: &'a Server) -> Self {
        let flags = server.state.flags;
        Self { backend: &server.backend, server: &server.server, number: server.number(), flags }
    }
}

/// All records of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// By the full name of the server, which several instances may have.
    by_name: BTreeMap<String, Vec<Record>>,
}

impl Records {
    /// Finds the record that counts for an observed server.
    #[must_use]
    pub fn find(&self, at: &At<'_>, seen: &Seen<'_>) -> Option<&Record> {
        let records = self.by_name.get(&full_name(seen.backend, seen.server))?;
        records.iter().find(|record| record.is(seen.backend, seen.server) && record.counts(at, seen))
    }

    /// Tells whether this very record is among them.
    #[must_use]
    pub fn has(&self, record: &Record) -> bool {
        self.by_name.get(&full_name(&record.backend, &record.server)).is_some_and(|records| records.contains(record))
    }

    /// Tells whether nothing is recorded at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Tells whether anything is recorded for an instance, now or before a reload.
    #[must_use]
    pub fn knows(&self, at: &At<'_>) -> bool {
        self.by_name.values().flatten().any(|record| record.is_of(at))
    }

    /// Records who has taken a server out, replacing any record of that server on that instance.
    pub fn put(&mut self, mut record: Record) {
        for text in [&mut record.claim.owner, &mut record.claim.reason].into_iter().flatten() {
            cut(text);
        }
        let Record { backend, server, .. } = &record;
        self.remove(&At { address: &record.address, process: &record.process }, backend, server);
        self.by_name.entry(full_name(backend, server)).or_default().push(record);
    }

    /// Removes the record of a server on an instance, for example when it is back in service.
    pub fn remove(&mut self, at: &At<'_>, backend: &str, server: &str) {
        let name = full_name(backend, server);
        if let Some(records) = self.by_name.get_mut(&name) {
            records.retain(|record| !(record.is_of(at) && record.is(backend, server)));
            if records.is_empty() {
                self.by_name.remove(&name);
            }
        }
    }

    /// Removes records that the observed servers of an instance show to be over, and those that expired long ago.
    ///
    /// A record that counts for an observed server stays, however long ago it expired.
    pub fn prune<'a>(&mut self, at: &At<'_>, seen: impl IntoIterator<Item = Seen<'a>>, now: u64) {
        let seen: HashMap<(&str, &str), Seen<'a>> =
            seen.into_iter().map(|seen| ((seen.backend, seen.server), seen)).collect();
        self.retain(|record| match seen.get(&(record.backend.as_str(), record.server.as_str())) {
            Some(seen) if record.is_of(at) => record.counts(at, seen),
            Some(_) | None => record.claim.expires.is_none_or(|expires| expires.saturating_add(LONG_EXPIRED) > now),
        });
    }

    fn retain(&mut self, keep: impl Fn(&Record) -> bool) {
        self.by_name.retain(|_, records| {
            records.retain(&keep);
            !records.is_empty()
        });
    }

    /// Reads the content of the file.
    pub(super) fn parse(content: &[u8]) -> Result<Self, String> {
        let file: Stored = serde_json::from_slice(content).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            return Err(format!("its format is {}, not {VERSION}", file.version));
        }
        let mut records = Self::default();
        for record in file.records {
            records.by_name.entry(full_name(&record.backend, &record.server)).or_default().push(record);
        }
        Ok(records)
    }

    /// Writes the content of the file; if there are too many records, the oldest are dropped.
    pub(super) fn render(&mut self) -> Result<Vec<u8>, String> {
        loop {
            let records: Vec<&Record> = self.by_name.values().flatten().collect();
            let content = serde_json::to_vec(&Written { version: VERSION, records: &records });
            let content = content.map_err(|error| error.to_string())?;
            if u64::try_from(content.len()).is_ok_and(|length| length <= FILE_MAX) {
                return Ok(content);
            }
            let mut times: Vec<u64> = records.iter().map(|record| record.recorded).collect();
            times.sort_unstable();
            let median = times.get(times.len() / 2).copied().unwrap_or(u64::MAX);
            self.retain(|record| record.recorded > median);
        }
    }
}

/// The file as it is read.
#[derive(Deserialize)]
struct Stored {
    version: u32,
    records: Vec<Record>,
}

/// The file as it is written.
#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    records: &'a [&'a Record],
}

fn full_name(backend: &str, server: &str) -> String {
    format!("{backend}/{server}")
}

/// Cuts text that is too long, between two characters.
fn cut(text: &mut String) {
    let mut length = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    text.truncate(length);
}

/// What was read of the records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The records; none if the file is missing or damaged.
    pub records: Records,
    /// What is wrong with the file, as a sentence.
    pub warning: Option<String>,
}

/// Reads the records; a missing file has none.
///
/// # Errors
/// When there is not enough memory for them.
pub fn load(folder: &Folder) -> error::Result<Loaded> {
    let path = folder.path().join(NAME);
    let unknown = |why: &str| Loaded {
        records: Records::default(),
        warning: Some(format!(
            "the owners of servers are unknown, because {} cannot be read ({why}); the next record replaces it",
            path.display()
        )),
    };
    let (file, size) = match open(folder) {
        Ok(Some(opened)) => opened,
        Ok(None) => return Ok(Loaded::default()),
        Err(error) => return Ok(unknown(&error.to_string())),
    };
    if !could_have(size.saturating_mul(FOR_A_BYTE).saturating_add(RESERVE)) {
        let msg = format!("there is not enough memory for {}; allow this program more", path.display());
        return Err(Error::new(ErrorKind::Resources, msg));
    }
    let mut content = Vec::new();
    let read = file.take(FILE_MAX).read_to_end(&mut content).map_err(|error| error.to_string());
    Ok(match read.and_then(|_| Records::parse(&content)) {
        Ok(records) => Loaded { records, warning: None },
        Err(why) => unknown(&why),
    })
}

/// Changes the records while no other run does; returns what went wrong, as a sentence.
///
/// The file is read again first, so that records of other runs are kept.
#[must_use]
pub fn update(folder: &Folder, change: impl FnOnce(&mut Records)) -> Option<String> {
    let keys = [LOCK.to_owned()];
    // What was done must be recorded even if a signal has arrived.
    let never = Interrupt::default();
    let lock = match LockSet::take(folder, &keys, "recording owners", &Patience::new(PATIENCE, &never, &|_| {})) {
        Ok(lock) => lock,
        Err(NotTaken::Failed(error)) => return Some(not_recorded(folder, &error.msg)),
        Err(NotTaken::Unavailable(why)) => return Some(not_recorded(folder, &why.0)),
    };
    let Loaded { mut records, warning } = match load(folder) {
        Ok(loaded) => loaded,
        Err(error) => return Some(not_recorded(folder, &error.msg)),
    };
    let before = records.clone();
    change(&mut records);
    if records == before {
        return warning;
    }
    let written = records
        .render()
        .and_then(|content| replace(folder, OsStr::new(NAME), &content, None).map_err(|error| error.to_string()));
    drop(lock);
    match written {
        Ok(()) => warning,
        Err(why) => Some(not_recorded(folder, &why)),
    }
}

/// Opens the file, if there is one, and finds out how large it is.
fn open(folder: &Folder) -> io::Result<Option<(File, usize)>> {
    let file = match folder.file(NAME, OFlag::O_RDONLY, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let metadata = file.metadata()?;
    let size = usize::try_from(metadata.len()).ok().filter(|_| metadata.is_file() && metadata.len() <= FILE_MAX);
    let unusable = || io::Error::other(format!("it is not a regular file of at most {FILE_MAX} bytes"));
    Ok(Some((file, size.ok_or_else(unusable)?)))
}

fn not_recorded(folder: &Folder, why: &str) -> String {
    format!("the owners of servers could not be recorded in {} ({why})", folder.path().join(NAME).display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::server::Start;
    use nix::unistd::geteuid;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::time::Instant;

    const SOCKET: &str = "/run/haproxy/admin.sock";
    const NUMBER: ServerNumber = ServerNumber { id: 3, revision: Some(0) };

    fn process(pid: u32, start: u64) -> Process {
        Process::new("2.6", pid, Start::At(start), (start, Instant::now()))
    }

    fn record(pid: u32, server: &str, state: AdminState) -> Record {
        Record {
            address: SOCKET.into(),
            process: process(pid, 100),
            survives_reload: false,
            backend: "app".into(),
            server: server.into(),
            number: Some(NUMBER),
            server_address: Some("10.0.0.5:80".into()),
            state,
            was: Some(Was { state: AdminState::Ready, weight: 10 }),
            claim: Claim {
                owner: Some("alice".into()),
                reason: Some("kernel \"update\"\n".into()),
                expires: Some(1_000),
            },
            recorded: 10,
        }
    }

    fn seen(server: &str, flags: u32) -> Seen<'_> {
        Seen { backend: "app", server, number: NUMBER, flags: AdminFlags(flags) }
    }

    fn of(records: impl IntoIterator<Item = Record>) -> Records {
        let mut all = Records::default();
        records.into_iter().for_each(|record| all.put(record));
        all
    }

    fn folder() -> (tempfile::TempDir, Folder) {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("kept"), geteuid()).unwrap();
        (place, folder)
    }

    #[test]
    fn a_record_counts_in_its_state_alone() {
        let table = [
            (AdminState::Maint, &[1, 3, 5, 9, 33][..], &[0, 2, 4, 8, 12, 32][..]),
            (AdminState::Drain, &[8, 12, 24], &[0, 1, 9, 16, 5]),
            (AdminState::Ready, &[], &[0, 1, 8]),
        ];
        let process = process(812, 100);
        let place = At { address: SOCKET, process: &process };
        for (state, counting, not) in table {
            let records = of([record(812, "web1", state)]);
            for flags in counting {
                assert!(records.find(&place, &seen("web1", *flags)).is_some(), "{state} {flags}");
            }
            for flags in not {
                assert!(records.find(&place, &seen("web1", *flags)).is_none(), "{state} {flags}");
            }
        }
    }

    #[test]
    fn a_record_counts_in_its_process_or_over_a_reload_with_a_state_file() {
        let (own, other) = (process(812, 100), process(813, 200));
        let mut record = record(812, "web1", AdminState::Maint);
        let table = [
            (SOCKET, &own, true, true),
            ("ipv4@127.0.0.1:9999", &own, true, true),
            (SOCKET, &other, false, true),
            ("ipv4@127.0.0.1:9999", &other, false, false),
        ];
        for (address, process, plain, surviving) in table {
            let place = At { address, process };
            for (survives_reload, expected) in [(false, plain), (true, surviving)] {
                record.survives_reload = survives_reload;
                let found = of([record.clone()]).find(&place, &seen("web1", 1)).is_some();
                assert_eq!(found, expected, "{address} {process:?} {survives_reload}");
            }
        }
    }

    #[test]
    fn a_record_is_not_of_another_server_of_the_name() {
        let (own, next) = (process(812, 100), process(813, 200));
        let number = |id, revision| ServerNumber { id, revision };
        let table = [
            (Some(NUMBER), NUMBER, true),
            (Some(NUMBER), number(3, Some(1)), false),
            (Some(NUMBER), number(4, Some(0)), false),
            // What is not known is no difference: HAProxy before 2.8, and records of before.
            (Some(NUMBER), number(3, None), true),
            (Some(number(3, None)), NUMBER, true),
            (Some(number(3, None)), number(4, None), false),
            (None, number(4, Some(7)), true),
        ];
        for (recorded, number, expected) in table {
            let record = Record { number: recorded, survives_reload: true, ..record(812, "web1", AdminState::Maint) };
            let seen = Seen { number, ..seen("web1", 1) };
            let counts = |process| of([record.clone()]).find(&At { address: SOCKET, process }, &seen).is_some();
            assert_eq!((counts(&own), counts(&next)), (expected, true), "{recorded:?} {number:?}");
        }
    }

    #[test]
    fn records_of_before_are_read() {
        let old =
            br#"{"version":1,"records":[{"address":"/run/haproxy/admin.sock","process":{"version":"2.6","pid":812,
            "started":100,"tolerance":0},"survives_reload":false,"backend":"app","server":"web1","state":"maint",
            "owner":"alice","recorded":10}]}"#;
        let records = Records::parse(old).unwrap();
        let process = process(812, 100);
        let found = records.find(&At { address: SOCKET, process: &process }, &seen("web1", 1)).unwrap();
        assert_eq!((found.claim.owner.as_deref(), found.number, &found.server_address), (Some("alice"), None, &None));
    }

    #[test]
    fn put_replaces_and_remove_removes_that_server_alone() {
        let mut records = of([record(812, "web1", AdminState::Maint), record(812, "web2", AdminState::Maint)]);
        let mut elsewhere = record(900, "web1", AdminState::Maint);
        elsewhere.address = "/run/other.sock".into();
        records.put(elsewhere.clone());
        let mut of_bob = record(812, "web1", AdminState::Drain);
        of_bob.claim.owner = Some("bob".into());
        records.put(of_bob);
        let process = process(812, 100);
        let place = At { address: SOCKET, process: &process };
        assert_eq!(records.find(&place, &seen("web1", 8)).unwrap().claim.owner.as_deref(), Some("bob"));
        assert!(records.find(&place, &seen("web1", 1)).is_none());
        records.remove(&place, "app", "web1");
        assert_eq!(records, of([elsewhere, record(812, "web2", AdminState::Maint)]));
    }

    #[test]
    fn a_slash_in_a_name_is_no_confusion() {
        let mut one = record(812, "c", AdminState::Maint);
        one.backend = "a/b".into();
        let records = of([one]);
        let process = process(812, 100);
        let place = At { address: SOCKET, process: &process };
        assert!(records.find(&place, &Seen { backend: "a", ..seen("b/c", 1) }).is_none());
        assert!(records.find(&place, &Seen { backend: "a/b", ..seen("c", 1) }).is_some());
    }

    #[test]
    fn pruning_keeps_what_counts_and_what_was_not_seen() {
        let long_after = 1_000 + LONG_EXPIRED;
        let process = process(812, 100);
        let place = At { address: SOCKET, process: &process };
        let names = |records: &Records| records.by_name.keys().cloned().collect::<Vec<_>>().join(" ");
        let all = ["web1", "web2", "web3"].map(|server| record(812, server, AdminState::Maint));
        let mut other = record(900, "web1", AdminState::Maint);
        other.address = "/run/other.sock".into();
        let mut records = of(all.clone().into_iter().chain([other.clone()]));
        records.prune(&place, [seen("web1", 1), seen("web2", 0)], 2_000);
        assert_eq!(names(&records), "app/web1 app/web3");
        records.prune(&place, [seen("web1", 1)], long_after);
        assert_eq!(records, of(all.into_iter().take(1)));
        // After a reload without a state file, the record of the former process is over.
        let mut records = of([record(811, "web1", AdminState::Maint), other.clone()]);
        records.prune(&place, [seen("web1", 1)], 0);
        assert_eq!(records, of([other]));
    }

    #[test]
    fn expiry_is_told() {
        let record = record(812, "web1", AdminState::Maint);
        assert!(!record.claim.is_expired(999) && record.claim.is_expired(1_000));
        assert!(!Claim { expires: None, ..record.claim }.is_expired(u64::MAX));
    }

    #[test]
    fn what_is_recorded_is_read_back_by_all() {
        let (_place, folder) = folder();
        assert_eq!(load(&folder), Ok(Loaded::default()));
        let record = record(812, "web1", AdminState::Maint);
        assert_eq!(update(&folder, |records| records.put(record.clone())), None);
        assert_eq!(load(&folder), Ok(Loaded { records: of([record]), warning: None }));
        let path = folder.path().join(NAME);
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o644);
        assert_eq!(update(&folder, |_| {}), None);
        assert_eq!(fs::metadata(&path).unwrap().ino(), metadata.ino());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_lost_between_two_runs() {
        let (_place, folder) = folder();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let folder = &folder;
                scope.spawn(move || {
                    let record = record(812, &format!("web{number}"), AdminState::Maint);
                    assert_eq!(update(folder, |records| records.put(record)), None);
                });
            }
        });
        assert_eq!(load(&folder).unwrap().records.by_name.len(), 8);
    }

    #[test]
    fn a_damaged_file_is_a_warning_and_the_next_record_replaces_it() {
        let (place, folder) = folder();
        let path = folder.path().join(NAME);
        let cases: [&dyn Fn(); 6] = [
            &|| fs::write(&path, "").unwrap(),
            &|| fs::write(&path, "{\"version\":1,\"rec").unwrap(),
            &|| fs::write(&path, "{\"version\":2,\"records\":[]}").unwrap(),
            &|| fs::File::create(&path).unwrap().set_len(FILE_MAX + 1).unwrap(),
            &|| nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap(),
            &|| symlink(place.path().join("elsewhere"), &path).unwrap(),
        ];
        for damage in cases {
            let _ = fs::remove_file(&path);
            damage();
            let loaded = load(&folder).unwrap();
            assert_eq!(loaded.records, Records::default());
            assert!(loaded.warning.unwrap().contains("cannot be read"));
            let record = record(812, "web1", AdminState::Maint);
            assert!(update(&folder, |records| records.put(record.clone())).unwrap().contains("cannot be read"));
            assert_eq!(load(&folder), Ok(Loaded { records: of([record]), warning: None }));
        }
        assert!(!place.path().join("elsewhere").exists());
    }

    #[test]
    fn what_cannot_be_written_is_a_warning() {
        let (_place, folder) = folder();
        fs::create_dir_all(folder.path().join(NAME).join("full")).unwrap();
        let record = record(812, "web1", AdminState::Maint);
        assert!(update(&folder, |records| records.put(record)).unwrap().contains("could not be recorded"));
    }

    #[test]
    fn texts_and_file_are_bounded() {
        let mut long = record(812, "web1", AdminState::Maint);
        long.claim.owner = Some("é".repeat(TEXT_MAX));
        long.claim.reason = Some(format!("a{}", "é".repeat(TEXT_MAX)));
        let mut records = of([long]);
        let kept = &records.by_name["app/web1"][0];
        assert_eq!(kept.claim.owner.as_ref().unwrap().len(), TEXT_MAX);
        assert_eq!(kept.claim.reason.as_ref().unwrap().len(), TEXT_MAX - 1);
        for number in 0..20_000 {
            let mut record = record(812, &format!("web{number}"), AdminState::Maint);
            record.claim.reason = Some("x".repeat(TEXT_MAX));
            record.recorded = number;
            records.put(record);
        }
        assert!(u64::try_from(records.render().unwrap().len()).unwrap() <= FILE_MAX);
        assert!(!records.by_name.contains_key("app/web0") && records.by_name.contains_key("app/web19999"));
    }

    proptest! {
        #[test]
        fn no_content_panics(content in any::<Vec<u8>>(), text in "[{]\"version\":1,\"records\":[ \\[\\]{}\"a-z:,0-9]{0,60}") {
            let _ = Records::parse(&content);
            let _ = Records::parse(text.as_bytes());
        }

        #[test]
        fn what_is_written_reads_back(texts in proptest::collection::vec((any::<String>(), any::<String>(), any::<u64>()), 0..5)) {
            let mut records = of(texts.into_iter().map(|(server, owner, expires)| Record {
                claim: Claim { owner: Some(owner), reason: None, expires: Some(expires) },
                ..record(812, &server, AdminState::Drain)
            }));
            let content = records.render().unwrap();
            prop_assert_eq!(Records::parse(&content), Ok(records));
        }
    }
}
