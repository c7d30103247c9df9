//! Tests that could not be run here, for the end of the run: what was left out must not look as if it had passed.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

thread_local! {
    static RUNNING: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Which tests, and why.
static SKIPPED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Notes the name of the test that this thread runs.
pub(crate) fn running(test: &str) {
    RUNNING.with_borrow_mut(|name| test.clone_into(name));
}

/// Notes that the running test, or a part of it, cannot be run here.
pub(crate) fn skipped(reason: &str) {
    let test = RUNNING.with_borrow(Clone::clone);
    note(&test, reason);
}

/// Notes that a test is not run.
pub(crate) fn note(test: &str, reason: &str) {
    let noted = (test.to_owned(), reason.to_owned());
    let mut all = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    if !all.contains(&noted) {
        all.push(noted);
    }
}

/// Takes out what was noted, in order, a line each.
pub(crate) fn take() -> Vec<String> {
    let mut all = std::mem::take(&mut *SKIPPED.lock().unwrap_or_else(PoisonError::into_inner));
    all.sort();
    all.into_iter().map(|(test, reason)| format!("skipped: {test}: {reason}")).collect()
}
