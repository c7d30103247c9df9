//! What must hold for any answer: see [`crate::fuzzing`].

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a property fails by panicking")]

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::parse::{AnyRow, Info, Level, StatHeader, StateHeader, state_version, without_severity};
use super::socket::{Connection, Form};
use crate::model::text::is_unsafe;
use crate::time::deadline::Allowance;
use crate::time::interrupt::PATIENT;

/// The most that is said at once, which the socket holds without a reader.
const SAID: usize = 64 << 10;

/// The whole conversation with a peer that says these bytes and closes.
pub(crate) fn replies(bytes: &[u8]) {
    let bytes = bytes.get(..SAID).unwrap_or(bytes);
    for form in [Form::Lines, Form::Rows] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        let step = Allowance::of(Duration::from_secs(5));
        let first = ["show info".to_owned(), "show cli level".to_owned()];
        let Ok((mut connection, replies)) = Connection::over(ours.into(), step, &first) else { continue };
        assert_eq!(replies.len(), first.len());
        let _ = Info::parse(&replies[0]);
        let _ = Level::parse(&String::from_utf8_lossy(&replies[1]));
        let commands = ["set server a/b state maint", "set server a/c state maint"];
        let (replies, result) = connection.exchange(&commands, &PATIENT);
        assert_eq!(replies.len() == commands.len(), result.is_ok());
        for reply in &replies {
            let reply = String::from_utf8_lossy(reply);
            assert!(reply.ends_with(without_severity(&reply)));
        }
        let mut lines = 0;
        let result = connection.dumps(&["show stat", "show servers state"], form, |place, line| {
            assert!(place < 2 && (form == Form::Rows || !line.contains(&b'\n')));
            lines += 1;
            Ok(())
        });
        assert!(lines <= bytes.len());
        assert!(result.is_ok() || !result.unwrap_err().msg.contains(is_unsafe));
    }
}

/// `show servers state`: a row is the same whether all of it is examined or a part.
pub(crate) fn servers_state(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    if lines.next().is_none_or(|line| state_version(line).is_err()) {
        return;
    }
    let Some(Ok(header)) = lines.next().map(StateHeader::parse) else { return };
    for line in lines {
        let (whole, part) = (header.row(line, |_, _, _, _| true), header.row(line, |_, _, _, _| false));
        let (whole, part) = match (whole, part) {
            (Ok(AnyRow::Wanted(whole)), Ok(AnyRow::Other(part))) => (whole, part),
            (Err(error), _) => {
                assert!(!error.to_string().contains(is_unsafe), "{error}");
                continue;
            }
            (whole, part) => panic!("{whole:?} and {part:?}"),
        };
        let glance = part.glance().unwrap();
        assert_eq!(
            (glance.backend_id, glance.server_id, glance.flags, glance.check, glance.agent),
            (whole.backend_id, whole.server_id, whole.flags, whole.check, whole.agent)
        );
        assert_eq!((glance.takes_traffic, part.address()), (part.takes_traffic(), (whole.address, whole.port)));
        assert_eq!(glance.has_address, whole.address != "-");
        let same = |_: &[u8], _: &[u8], check, agent| Some((whole.flags, whole.weight, check, agent));
        let rewritten = header.rewritten(line, same).unwrap();
        assert_eq!(header.row(&rewritten, |_, _, _, _| true), Ok(AnyRow::Wanted(whole)));
    }
}

/// `show stat`: nothing in a row of it can command a terminal.
pub(crate) fn stat(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some(Ok(header)) = lines.next().map(StatHeader::parse) else { return };
    for line in lines {
        let counts = header.counts(line);
        match header.row(line) {
            Ok(row) => {
                assert!(counts.is_none_or(|counts| counts.backend_id == row.backend_id && row.server == "BACKEND"));
                let texts = [Some(&*row.backend), Some(&*row.server), Some(&*row.statistics.status)];
                let texts =
                    texts.into_iter().chain([row.statistics.check.as_deref(), row.statistics.tracks.as_deref()]);
                assert!(texts.flatten().all(|text| !text.is_empty() && !text.contains(is_unsafe)), "{row:?}");
            }
            Err(error) => assert!(!error.to_string().contains(is_unsafe), "{error}"),
        }
    }
}
