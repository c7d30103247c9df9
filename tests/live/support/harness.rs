//! Runs a test as a trial of libtest-mimic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use libtest_mimic::Failed;

use super::{Haproxy, TestFn, logs};

/// Makes this process the parent of daemons, and of the workers of a master that was killed, so that it can end them.
pub(crate) fn adopt_daemons() {
    nix::sys::prctl::set_child_subreaper(true).expect("to adopt the daemons that the tests start");
}

/// Runs one test; when it fails, what its instances logged goes with the failure.
pub(crate) fn run(haproxy: &Haproxy, test: TestFn) -> Result<(), Failed> {
    logs::take();
    let failure = match catch_unwind(AssertUnwindSafe(|| test(haproxy))) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_owned(),
            (None, None) => "the test panicked".to_owned(),
        },
    };
    Err(format!("{failure}\n{}", logs::take()).into())
}
