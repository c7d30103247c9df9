//! What must hold for any bytes from outside, for the fuzzer and for the tests.
//!
//! `make fuzz` looks for bytes for which it does not; `make test` tries its seeds and what it has found
//! (`tests/fuzz/`).

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a property fails by panicking"
)]

use crate::discover::fuzzing::{config, discovery};
use crate::haproxy::fuzzing::{replies, servers_state, stat};
use crate::keep::fuzzing::{owners, state_file};
use crate::model::error::{Error, ErrorKind};
use crate::model::text::is_unsafe;
use crate::report::outcome::RunOutcome;
use crate::report::{Colours, nagios, refusal, report, table, text, to_ascii_json};
use crate::request::{Draft, Refused, Request};

/// What must hold, as a check that panics where it does not.
type Property = fn(&[u8]);

/// Each target by its name.
pub const TARGETS: [(&str, Property); 8] = [
    ("config", config),
    ("discovery", discovery),
    ("owners", owners),
    ("replies", replies),
    ("request", request),
    ("servers_state", servers_state),
    ("stat", stat),
    ("state_file", state_file),
];

/// Tries one target on the bytes; it panics where what must hold does not.
pub fn examine(target: &str, bytes: &[u8]) {
    let (_, examine) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    examine(bytes);
}

/// A request, as JSON and as words: taken, or refused in one sentence; both can be reported in every form.
fn request(bytes: &[u8]) {
    reported(Draft::from_json(bytes));
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<String> = text.split('\n').map(str::to_owned).collect();
    reported(Draft::from_words(&words));
}

fn reported(draft: Result<Draft, Error>) {
    let refuse = |error| Refused { error, is_task: false, dry_run: false };
    let checked: Result<Request, Refused> = draft.map_err(refuse).and_then(Draft::check);
    let outcome = RunOutcome::default();
    let report = match &checked {
        Ok(request) => report(request, &outcome),
        Err(refused) => {
            assert_eq!(refused.error.kind, ErrorKind::BadRequest);
            refusal(refused)
        }
    };
    let mut json = Vec::new();
    to_ascii_json(&mut json, &report).unwrap();
    assert!(json.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~')), "{}", json.escape_ascii());
    serde_json::from_slice::<serde_json::Value>(&json).unwrap();
    let is_one_line = |text: &str| !text.contains(is_unsafe);
    assert!(is_one_line(&report.msg) && report.warnings.iter().all(|warning| is_one_line(warning)), "{report:?}");
    let (_, line) = nagios(checked.as_ref().ok(), &report);
    assert!(line.strip_suffix('\n').is_some_and(is_one_line), "{line:?}");
    if let Ok(request) = &checked {
        for shown in [text(request, &report), table(request, &report, Colours::Plain)] {
            assert!(shown.lines().all(is_one_line), "{shown:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// The files of a folder of the repository and of the folders in it.
    fn files(folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn seeds_findings_and_what_haproxy_says_hold_everywhere() {
        let all = [files("tests/fuzz/seeds"), files("tests/fixtures"), files("packaging/examples")].concat();
        assert!(all.len() > 200);
        for path in all {
            let bytes = fs::read(&path).unwrap();
            for (_, examine) in TARGETS {
                examine(&bytes);
                examine(bytes.get(..bytes.len() / 2).unwrap());
            }
        }
    }

    #[test]
    fn each_target_has_a_program_and_seeds() {
        let programs: Vec<String> =
            files("tests/fuzz/targets").iter().map(|path| path.file_stem().unwrap().to_string_lossy().into()).collect();
        assert_eq!(programs, TARGETS.map(|(name, _)| name.to_owned()));
        for (name, _) in TARGETS {
            assert!(!files(&format!("tests/fuzz/seeds/{name}")).is_empty(), "{name}");
        }
    }
}
