//! What an instance keeps of its servers when it is observed anew, and when it has failed.

use std::time::Instant;

use super::on_instance;
use crate::act::instance::Instance;
use crate::act::model::{Change, Event, Memory, Turn};
use crate::act::target::{Target, Verdict};
use crate::model::error::{Error, ErrorKind};
use crate::model::server::Statistics;

/// Polls the first of two servers, observes the instance anew after a turn, and judges its servers.
fn observed_anew(words: &[&str], turn: Turn, judge: impl FnOnce(&[Target])) {
    on_instance(words, turn, |instance| {
        instance.targets[0].note_poll(Statistics::default(), None, Instant::now());
        instance.observe_anew(&|_| Ok(())).unwrap();
        judge(&instance.targets);
    });
}

#[test]
fn an_instance_has_failed_if_any_part_of_it_has() {
    let failure = || Error::new(ErrorKind::Timeout, "no answer");
    let has_failed = |fail: &dyn Fn(&mut Instance<'_>)| {
        let mut has_failed = false;
        on_instance(&["server=s*", "state=maint"], Turn::default(), |instance| {
            fail(instance);
            has_failed = instance.has_failed();
        });
        has_failed
    };
    assert!(!has_failed(&|_| {}));
    assert!(has_failed(&|instance| instance.error = Some(failure())));
    assert!(has_failed(&|instance| instance.undo_error = Some(failure())));
    assert!(has_failed(&|instance| instance.targets[1].fail(failure())));
}

#[test]
fn what_was_polled_says_something_of_the_same_process_only() {
    let maint = ["server=s*", "state=maint"];
    let are_polled = |targets: &[Target]| targets.iter().map(|target| target.last_poll.is_some()).collect::<Vec<_>>();
    observed_anew(&maint, Turn::default(), |targets| assert_eq!(are_polled(targets), [true, false]));
    let reload = Event::Reload(Memory::StateFile, Change::Nothing);
    observed_anew(&maint, reload.into(), |targets| assert_eq!(are_polled(targets), [false, false]));
}

#[test]
fn a_server_that_a_reload_adds_is_not_restored_to_a_state_that_it_never_had() {
    let are_skipped = |targets: &[Target]| {
        targets.iter().map(|target| matches!(target.verdict, Verdict::Skipped)).collect::<Vec<_>>()
    };
    let adds = || Turn::from(Event::Reload(Memory::StateFile, Change::Adds));
    observed_anew(&["server=s*", "state=restore"], adds(), |targets| {
        assert_eq!(are_skipped(targets), [true, false, false]);
    });
    observed_anew(&["server=s*", "state=ready"], adds(), |targets| {
        assert_eq!(are_skipped(targets), [false, false, false]);
    });
}
