//! What must hold for any file: see [`crate::fuzzing`].

#![allow(clippy::unwrap_used, reason = "a property fails by panicking")]

use super::owner::Records;
use super::state_file::{Coverage, Dump};

/// Separates the parts of an input; it is in no UTF-8 text.
const NEXT: u8 = 0xff;

/// A dump and the file that is there: what is written is a state file, and needs no change afterwards.
pub(crate) fn state_file(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == NEXT);
    let (dumped, existing) = (parts.next().unwrap_or_default(), parts.next());
    let mut dump = Dump::default();
    if dumped.split(|byte| *byte == b'\n').any(|line| dump.line(line).is_err()) {
        return;
    }
    let names: Vec<(&str, &str)> = dumped.split(|byte| *byte == b'\n').skip(2).filter_map(name).collect();
    for coverage in [Coverage::All, Coverage::Backend("app".to_owned())] {
        let Ok(comparison) = dump.compare(&coverage, existing, &names) else { continue };
        let again = dump.compare(&coverage, Some(&comparison.content), &names).unwrap();
        assert!(!again.differs && again.content == comparison.content, "{comparison:?}\n{again:?}");
    }
    let _ = (dump.servers(), dump.unheard(&names));
}

/// The backend and the server of a row.
fn name(row: &[u8]) -> Option<(&str, &str)> {
    let mut columns = std::str::from_utf8(row).ok()?.split(' ').skip(1);
    Some((columns.next()?, columns.nth(1)?))
}

/// The file of owners: what is written is read as the same.
pub(crate) fn owners(bytes: &[u8]) {
    let Ok(mut records) = Records::parse(bytes) else { return };
    let written = records.render().unwrap();
    assert_eq!(Records::parse(&written).unwrap().render().unwrap(), written);
}
