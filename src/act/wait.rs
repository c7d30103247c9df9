//! Waits for the effect of a change: until servers take traffic, or until no session is left on them.

use std::time::{Duration, Instant};

use super::carry_out::Again;
use super::drain::{End, what_is_left};
use super::fleet::{Fleet, Processes, servers};
use super::instance::Instance;
use super::put_back::excuse;
use super::target::{Poll, Target, Watch};
use crate::decide::cautions::why_down;
use crate::decide::shortfall::who_overrides_it;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::goal::{Effect, Switch};
use crate::model::server::{CheckCounter, Server, Statistics};
use crate::model::text::a_few_of;
use crate::model::traffic::Obstacle;
use crate::request::WaitBounds;
use crate::time::deadline::{Backoff, Deadline};

/// How long a server must stay up if a passed check cannot be seen, such as with `fall 1`: staying up is the only
/// evidence then.
pub(super) const UP_WITHOUT_PROOF: Duration = Duration::from_secs(5);

/// How near a server is to what is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nearness {
    /// It is there, and must stay there this long.
    There(Duration),
    /// It is not there yet, for this reason.
    NotYet(String),
    /// Something else has overridden what was set: waiting does not help.
    Overridden,
}

/// Tells whether a server has been taking traffic since it was set to ready.
///
/// HAProxy calls a server up as soon as it leaves maintenance, before its next check: it sets the count of its check to
/// `rise` (`srv_set_running()` in `src/server.c`), which a passed check then exceeds, unless `fall` is 1.
#[must_use]
pub fn serving(target: &Target, statistics: &Statistics) -> Nearness {
    let server = target.last();
    if statistics.is_throttled {
        return Nearness::NotYet("its slowstart is in progress".to_owned());
    }
    match statistics.obstacle() {
        Some(Obstacle::Maint | Obstacle::Drain) => return Nearness::Overridden,
        Some(obstacle) => return Nearness::NotYet(why_not_serving(obstacle, server, statistics)),
        None => {}
    }
    if target.watch == Watch::Proven {
        return Nearness::There(Duration::ZERO);
    }
    match (server.state.health, &statistics.counter) {
        (Some(Switch::Enabled), Some(CheckCounter { fall: 1, .. })) => Nearness::There(UP_WITHOUT_PROOF),
        (Some(Switch::Enabled), Some(counter)) if counter.health <= counter.rise => {
            Nearness::NotYet("its check has not passed since the change".to_owned())
        }
        (Some(Switch::Enabled | Switch::Disabled) | None, _) => Nearness::There(Duration::ZERO),
    }
}

/// Says what keeps a server from taking traffic.
pub(super) fn why_not_serving(obstacle: Obstacle, server: &Server, statistics: &Statistics) -> String {
    match obstacle {
        Obstacle::Maint => "it is in maint".to_owned(),
        Obstacle::Drain => "it is in drain".to_owned(),
        Obstacle::Down if statistics.is_down_by_agent() => "its agent keeps it down".to_owned(),
        Obstacle::Down => format!("it is down ({})", why_down(server, Some(statistics))),
        Obstacle::Stopping => "its check answers 404, so it takes no new traffic".to_owned(),
        Obstacle::NoWeight => "its weight is 0, so it takes no new traffic".to_owned(),
        Obstacle::BackendUnpublished => "its backend is unpublished, so it takes no traffic".to_owned(),
        Obstacle::BackendDisabled => "its backend is disabled, so it takes no traffic".to_owned(),
    }
}

/// Tells whether nothing is left to do on a server that was taken out.
#[must_use]
pub fn quiet(poll: &Poll, effect: Effect) -> Nearness {
    let status = poll.statistics.status.as_str();
    let is_overridden = match effect {
        Effect::FreeAtNoWeight => poll.statistics.obstacle().is_none(),
        Effect::InTraffic | Effect::FreeInDrain | Effect::FreeInMaint => {
            status.starts_with("UP") || status.starts_with("no check")
        }
    };
    if is_overridden {
        return Nearness::Overridden;
    }
    if poll.is_drained(Duration::ZERO) {
        Nearness::There(Duration::ZERO)
    } else {
        Nearness::NotYet(format!("it has {}", what_is_left(Some(poll))))
    }
}

/// Waits for the servers of all instances under one deadline; brings a process that has taken over to the goal
/// `again`, and ends early if that ends in more than the goal.
///
/// # Errors
/// When a signal ends the run or the lock cannot be retaken. Failures of an instance or a server are kept there.
pub fn wait(
    fleet: &mut Fleet<'_>,
    effect: Effect,
    bounds: WaitBounds,
    deadline: &Deadline<'_>,
    again: Again<'_>,
) -> Result<End> {
    let mut backoff = Backoff::default();
    loop {
        let is_over = deadline.is_over();
        let polled = fleet.poll(&is_waited_for)?;
        if polled == Processes::Same {
            let now = fleet.clock.now();
            fleet.at_work_mut().for_each(|target| target.notice(effect, bounds.stable, now));
            fleet
                .instances
                .iter_mut()
                .for_each(|it| excuse(it, bounds.need, |target| target.watch == Watch::Over, |_| true));
            let count = fleet.at_work().filter(|target| is_waited_for(target)).count();
            if count > 0 && !is_over {
                (fleet.progress)(&progress(fleet, effect, count, deadline));
                fleet.pause(&mut backoff, deadline)?;
                continue;
            }
            if count > 0 && backoff.is_first() {
                fleet.pause_once(&mut backoff)?;
                continue;
            }
            fleet.at_work_mut().for_each(|target| target.time_is_over(effect, bounds.timeout));
        }
        // The report shows the servers as they are in the end, even if nothing was sent to them.
        if polled == Processes::Same && fleet.refresh()? == Processes::Same {
            if effect == Effect::InTraffic {
                fleet.instances.iter_mut().for_each(say_unchecked);
            }
            return Ok(End::Done);
        }
        match again(fleet, deadline.left())? {
            End::Done => {}
            end @ (End::Shutdown | End::Rollback) => return Ok(end),
        }
        // On their way back, servers restart their wait before they are checked.
        if effect != Effect::InTraffic {
            fleet.instances.iter_mut().for_each(Instance::watch_anew);
        }
        if is_over {
            fleet.at_work_mut().for_each(|target| target.time_is_over(effect, bounds.timeout));
            return Ok(End::Done);
        }
    }
}

/// Tells whether a server must be polled again.
#[must_use]
pub fn is_waited_for(target: &Target) -> bool {
    if target.stays_out() {
        return false;
    }
    match target.watch {
        Watch::Due | Watch::NotYet(_) | Watch::Since(_) | Watch::Proven => true,
        Watch::Excused | Watch::Over => false,
    }
}

fn progress(fleet: &Fleet<'_>, effect: Effect, count: usize, deadline: &Deadline<'_>) -> String {
    let what = match effect {
        Effect::InTraffic => "up",
        Effect::FreeInDrain | Effect::FreeInMaint | Effect::FreeAtNoWeight => "free of sessions",
    };
    let (all, left) = (fleet.count(), deadline.seconds_left());
    let done = all.saturating_sub(count);
    let first = fleet.at_work().find(|target| is_waited_for(target));
    let who = first.map(|target| format!(" ({}: {})", target.before.full_name(), target.why_not()));
    format!("{done} of {} {what}, {left} s to go{}", servers(all), who.unwrap_or_default())
}

/// Names the servers that counted as up although nothing proves that they work.
fn say_unchecked(instance: &mut Instance<'_>) {
    let unchecked: Vec<String> =
        instance.targets.iter().filter(|target| is_unchecked(target)).map(|target| target.before.full_name()).collect();
    if !unchecked.is_empty() {
        let named = a_few_of(&unchecked);
        instance.warnings.push(format!("{named}: no health check is running, so 'wait' counted it as up at once"));
    }
}

/// Tells whether a server that was put back has no check; that of the server that it tracks stands for its own.
fn is_unchecked(target: &Target) -> bool {
    let server = target.last();
    target.is_at_work() && !target.stays_out() && !server.has_check() && server.tracks().is_none()
}

impl Target {
    /// Notes what the last poll says about how near it is.
    fn notice(&mut self, effect: Effect, stable: Duration, now: Instant) {
        let Some(poll) = self.last_poll.as_deref().filter(|_| is_waited_for(self)) else { return };
        let nearness = match effect {
            Effect::InTraffic => serving(self, &poll.statistics),
            Effect::FreeInDrain | Effect::FreeInMaint | Effect::FreeAtNoWeight => quiet(poll, effect),
        };
        self.watch = match (nearness, &self.watch) {
            (Nearness::There(long), watch) => {
                let since = match watch {
                    Watch::Since(since) => *since,
                    Watch::Due | Watch::NotYet(_) | Watch::Proven | Watch::Excused | Watch::Over => now,
                };
                let is_long_enough = now.duration_since(since) >= long.max(stable)
                    || (*watch == Watch::Proven && !self.last().has_agent());
                if is_long_enough { Watch::Over } else { Watch::Since(since) }
            }
            (Nearness::NotYet(why), _) => Watch::NotYet(why),
            (Nearness::Overridden, _) => {
                let seen = match effect {
                    Effect::FreeAtNoWeight => format!("weight {}", poll.statistics.weight),
                    Effect::InTraffic | Effect::FreeInDrain | Effect::FreeInMaint => poll.statistics.status.clone(),
                };
                return self.fail_overridden(effect, &seen);
            }
        };
    }

    /// Says why it is still waited for.
    pub(super) fn why_not(&self) -> &str {
        match &self.watch {
            Watch::Due | Watch::Excused | Watch::Over => "it has not been polled yet",
            Watch::Proven => "its check has passed, but it has not been seen to take traffic yet",
            Watch::NotYet(why) => why,
            Watch::Since(_) => "it has not been up for long enough",
        }
    }

    pub(super) fn fail_overridden(&mut self, effect: Effect, seen: &str) {
        let (name, why) = (self.before.full_name(), who_overrides_it(self.last()));
        let msg = format!("{name} was set to {effect}, but HAProxy shows it as '{seen}' now: {why}");
        self.fail(Error::new(ErrorKind::Overridden, msg));
    }

    /// Fails with what was last seen, if it is still waited for.
    fn time_is_over(&mut self, effect: Effect, timeout: Duration) {
        if !is_waited_for(self) {
            return;
        }
        let (name, seconds, why) = (self.before.full_name(), timeout.as_secs_f64(), self.why_not());
        let error = match effect {
            Effect::InTraffic => Error::new(
                ErrorKind::NotUp,
                format!(
                    "{name} does not take traffic after {seconds} s: {why}; check the server itself, or wait longer"
                ),
            ),
            Effect::FreeInDrain | Effect::FreeInMaint | Effect::FreeAtNoWeight => Error::new(
                ErrorKind::NotDrained,
                format!(
                    "{name} is not free of sessions after {seconds} s: {why}; wait longer, or end them with 'state': 'maint' \
                     and 'shutdown_sessions'"
                ),
            ),
        };
        self.fail(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::goal::Was;
    use crate::model::server::{Publication, ServerState};
    use crate::model::state::AdminState;

    fn target(health: Option<Switch>) -> Target {
        let example = Server::example();
        let state = ServerState { health, ..example.state };
        Target::new(Server { state, ..example })
    }

    fn seen(status: &str, counter: Option<(u32, u32, u32)>) -> Statistics {
        let counter = counter.map(|(health, rise, fall)| CheckCounter { health, rise, fall });
        Statistics { status: status.to_owned(), weight: 1, counter, ..Statistics::default() }
    }

    #[test]
    fn a_passed_check_shows_that_a_server_takes_traffic() {
        let there = Nearness::There(Duration::ZERO);
        let unproven = Nearness::NotYet("its check has not passed since the change".to_owned());
        for (health, counter, expected) in [
            (None, None, &there),
            (Some(Switch::Disabled), Some((2, 2, 3)), &there),
            (Some(Switch::Enabled), None, &there),
            (Some(Switch::Enabled), Some((1, 2, 3)), &unproven),
            (Some(Switch::Enabled), Some((2, 2, 3)), &unproven),
            (Some(Switch::Enabled), Some((3, 2, 3)), &there),
            (Some(Switch::Enabled), Some((2, 2, 1)), &Nearness::There(UP_WITHOUT_PROOF)),
        ] {
            assert_eq!(serving(&target(health), &seen("UP", counter)), *expected, "{health:?} {counter:?}");
        }
        let proven = Target { watch: Watch::Proven, ..target(Some(Switch::Enabled)) };
        assert_eq!(serving(&proven, &seen("UP", Some((2, 2, 3)))), there);
    }

    #[test]
    fn what_keeps_a_server_from_traffic_is_said() {
        let said = |statistics: &Statistics| match serving(&target(None), statistics) {
            Nearness::NotYet(why) => why,
            other => format!("{other:?}"),
        };
        for (status, expected) in [
            ("MAINT", "Overridden"),
            ("DRAIN", "Overridden"),
            ("DOWN (agent)", "its agent keeps it down"),
            ("DOWN", "it is down (down)"),
            ("NOLB", "its check answers 404, so it takes no new traffic"),
        ] {
            assert_eq!(said(&seen(status, None)), expected);
        }
        let weightless = Statistics { weight: 0, ..seen("UP", None) };
        assert_eq!(said(&weightless), "its weight is 0, so it takes no new traffic");
        let unpublished = Statistics { publication: Publication::Unpublished, ..seen("UP", None) };
        assert_eq!(said(&unpublished), "its backend is unpublished, so it takes no traffic");
        let starting = Statistics { is_throttled: true, ..seen("UP", None) };
        assert_eq!(said(&starting), "its slowstart is in progress");
        let example = Server::example();
        for (obstacle, expected) in [
            (Obstacle::Maint, "it is in maint"),
            (Obstacle::Drain, "it is in drain"),
            (Obstacle::BackendDisabled, "its backend is disabled, so it takes no traffic"),
        ] {
            assert_eq!(why_not_serving(obstacle, &example, &seen("UP", None)), expected);
        }
    }

    #[test]
    fn a_server_is_quiet_once_it_has_had_no_session_since_the_poll_before() {
        let polled = |statistics: Statistics| {
            let mut target = target(None);
            let idle = Statistics { sessions: 0, ..statistics.clone() };
            target.note_poll(idle, None, Instant::now());
            target.note_poll(statistics, None, Instant::now());
            *target.last_poll.unwrap()
        };
        let busy = |status: &str| polled(Statistics { sessions: 1, ..seen(status, None) });
        let weightless = |weight| polled(Statistics { weight, ..seen("UP", None) });
        let (there, overridden) = (Nearness::There(Duration::ZERO), Nearness::Overridden);
        for (poll, effect, expected) in [
            (polled(seen("MAINT", None)), Effect::FreeInMaint, &there),
            (polled(seen("DRAIN", None)), Effect::FreeInDrain, &there),
            (busy("DRAIN"), Effect::FreeInDrain, &Nearness::NotYet("it has 1 session".to_owned())),
            (polled(seen("UP", None)), Effect::FreeInDrain, &overridden),
            (polled(seen("no check", None)), Effect::FreeInMaint, &overridden),
            (weightless(0), Effect::FreeAtNoWeight, &there),
            (weightless(1), Effect::FreeAtNoWeight, &overridden),
        ] {
            assert_eq!(quiet(&poll, effect), *expected, "{:?} {effect}", poll.statistics.status);
        }
    }

    #[test]
    fn why_a_server_is_still_waited_for_is_said() {
        let (unpolled, short) = ("it has not been polled yet", "it has not been up for long enough");
        let proven = "its check has passed, but it has not been seen to take traffic yet";
        for (watch, expected, is_waited) in [
            (Watch::Due, unpolled, true),
            (Watch::Excused, unpolled, false),
            (Watch::Over, unpolled, false),
            (Watch::Proven, proven, true),
            (Watch::NotYet("it is down".to_owned()), "it is down", true),
            (Watch::Since(Instant::now()), short, true),
        ] {
            let target = Target { watch, ..target(None) };
            assert_eq!((target.why_not(), is_waited_for(&target)), (expected, is_waited));
        }
        let was = Was { state: AdminState::Maint, weight: 1 };
        assert!(!is_waited_for(&Target { was: Some(was), ..target(None) }));
    }

    #[test]
    fn a_server_must_stay_up_unless_its_check_has_passed_in_drain() {
        let (now, stable) = (Instant::now(), Duration::from_secs(5));
        let noticed = |watch, agent, status: &str, later: u64| {
            let mut target = target(None);
            target.before.state.agent = agent;
            target.watch = watch;
            target.note_poll(seen(status, None), None, now);
            target.notice(Effect::InTraffic, stable, now + Duration::from_secs(later));
            target
        };
        let watched = |watch, later| noticed(watch, None, "UP", later).watch;
        assert_eq!(watched(Watch::Due, 1), Watch::Since(now + Duration::from_secs(1)));
        assert_eq!(watched(Watch::Since(now), 4), Watch::Since(now));
        assert_eq!(watched(Watch::Since(now), 5), Watch::Over);
        assert_eq!(watched(Watch::Proven, 0), Watch::Over);
        assert_eq!(noticed(Watch::Proven, Some(Switch::Enabled), "UP", 0).watch, Watch::Since(now));
        assert_eq!(noticed(Watch::Since(now), None, "DOWN", 5).watch, Watch::NotYet("it is down (down)".to_owned()));
        let overridden = noticed(Watch::Due, None, "MAINT", 0).error().map(ToString::to_string).unwrap_or_default();
        assert!(overridden.contains("HAProxy shows it as 'MAINT' now"), "{overridden}");
    }

    #[test]
    fn nothing_proves_that_a_server_works_without_a_check() {
        assert!(is_unchecked(&target(None)));
        assert!(is_unchecked(&target(Some(Switch::Disabled))));
        assert!(!is_unchecked(&target(Some(Switch::Enabled))));
        let was = Was { state: AdminState::Maint, weight: 1 };
        assert!(!is_unchecked(&Target { was: Some(was), ..target(None) }));
        let mut failed = target(None);
        failed.fail(Error::new(ErrorKind::NotUp, "down"));
        assert!(!is_unchecked(&failed));
        let statistics = Statistics { tracks: Some("b/t".to_owned()), ..Statistics::default() };
        let tracking = Server { statistics: Some(Box::new(statistics)), ..Server::example() };
        assert!(!is_unchecked(&Target::new(tracking)));
    }

    #[test]
    fn failures_say_what_was_seen_last() {
        let failed = |act: &dyn Fn(&mut Target)| {
            let mut failed = Target { watch: Watch::NotYet("it has 1 session".to_owned()), ..target(None) };
            act(&mut failed);
            failed.error().map(ToString::to_string).unwrap_or_default()
        };
        let seconds = Duration::from_secs(3);
        let up = failed(&|target| target.time_is_over(Effect::InTraffic, seconds));
        assert!(up.starts_with("b/s does not take traffic after 3 s: it has 1 session"), "{up}");
        let free = failed(&|target| target.time_is_over(Effect::FreeInMaint, seconds));
        assert!(free.starts_with("b/s is not free of sessions after 3 s: it has 1 session"), "{free}");
        let over = failed(&|target| {
            target.watch = Watch::Over;
            target.time_is_over(Effect::InTraffic, seconds);
        });
        assert_eq!(over, "");
        let overridden = failed(&|target| target.fail_overridden(Effect::FreeInDrain, "MAINT"));
        assert!(overridden.starts_with("b/s was set to drain, but HAProxy shows it as 'MAINT' now: "), "{overridden}");
    }
}
