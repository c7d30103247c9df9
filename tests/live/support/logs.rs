//! What the instances of the running test have logged, kept for the case that the test fails.

use std::cell::RefCell;
use std::fmt::Write as _;

thread_local! {
    static LOGS: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the end of an instance's log.
pub(crate) fn keep(instance: &str, log: &str) {
    let lines: Vec<&str> = log.lines().collect();
    let end = &lines[lines.len().saturating_sub(40)..];
    LOGS.with_borrow_mut(|logs| {
        let _ = writeln!(logs, "--- log of {instance}");
        for line in end {
            let _ = writeln!(logs, "{line}");
        }
    });
}

/// Takes out all that was kept.
pub(crate) fn take() -> String {
    LOGS.take()
}
