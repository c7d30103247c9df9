//! Runs tests as trials of libtest-mimic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use super::skipped::{self, skipped};
use super::{Haproxy, Surroundings, Test, TestFn, Versions, logs, on_every_version};

/// The modules of a test program, by their names.
pub(crate) type Modules = Vec<(&'static str, Vec<Test>)>;

/// Runs what `trials` makes of the HAProxy versions that are found, from old to new, so many at a time.
pub(crate) fn main(at_once: usize, trials: impl FnOnce(Vec<Haproxy>) -> Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(at_once));
    let versions = match Haproxy::discover() {
        Ok(versions) => versions,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let surroundings = match Surroundings::chosen() {
        Ok(surroundings) => surroundings,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    // Daemons, and the workers of a master that was killed, become children of this process, which ends them.
    nix::sys::prctl::set_child_subreaper(true).expect("to adopt the daemons that the tests start");
    let conclusion = libtest_mimic::run(&arguments, trials(versions));
    let left_out = skipped::take();
    for line in &left_out {
        println!("{line}");
    }
    println!("{} tests or parts of them were skipped, HAPROXY_SETUP is {}", left_out.len(), surroundings.name());
    conclusion.exit_code()
}

/// Every test of the modules on one HAProxy, as `prefix` + `module::test`.
pub(crate) fn trials(haproxy: &Haproxy, prefix: &str, modules: Modules) -> Vec<Trial> {
    let tests = modules.into_iter().flat_map(|(module, tests)| tests.into_iter().map(move |test| (module, test)));
    let surroundings = Surroundings::current();
    let tests = tests.filter(|(_, test)| match test.versions {
        Versions::Each => true,
        Versions::Newest => on_every_version() || haproxy.is_newest(),
    });
    let trial = |(module, test): (&str, Test)| {
        let haproxy = haproxy.clone();
        let name = format!("{module}::{}", test.name);
        let whole_name = format!("{prefix}{name}");
        Trial::test(whole_name.clone(), move || {
            skipped::running(&whole_name);
            match surroundings.leaves_out(&name) {
                None => run(&haproxy, test.run),
                Some(reason) => {
                    skipped(reason);
                    Ok(())
                }
            }
        })
    };
    tests.map(trial).collect()
}

/// Runs one test; when it fails, what its instances logged goes with the failure.
fn run(haproxy: &Haproxy, test: TestFn) -> Result<(), Failed> {
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
