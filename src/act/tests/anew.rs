//! What an instance that is observed anew keeps of its servers.

use std::sync::Arc;
use std::time::Instant;

use super::{Script, Stopwatch, request, site, start};
use crate::act::model::{Change, Event, Memory, Model, Modelled, Turn};
use crate::act::target::{Target, Verdict};
use crate::model::server::Statistics;
use crate::time::interrupt::Interrupt;

/// Polls the first of two servers, observes the instance anew after a turn, and judges its servers.
fn observed_anew(words: &[&str], turn: Turn, judge: impl FnOnce(&[Target])) {
    let request = request(words);
    let servers = vec![Modelled::new("a", "s0"), Modelled::new("a", "s1")];
    let script = Script { servers, turns: vec![turn], is_endless: false };
    let model = Model::new(&script.servers, &Arc::new(Stopwatch::default()), &Arc::new(Interrupt::never()));
    let site = site(0);
    let mut instance = start(&model, &site, &script, &request);
    instance.targets[0].note_poll(Statistics::default(), None, Instant::now());
    instance.observe_anew(&|_| Ok(())).unwrap();
    judge(&instance.targets);
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
