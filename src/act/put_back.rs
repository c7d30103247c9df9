//! Puts servers back into service without testing them on clients: through drain, where HAProxy checks them and gives
//! them no new traffic, and to ready once a check has passed.

use std::time::{Duration, Instant};

use super::fleet::{Fleet, Processes, servers};
use super::instance::Instance;
use super::target::{Poll, Target, Watch};
use super::wait::{Nearness, UP_WITHOUT_PROOF, why_not_serving};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::goal::{Effect, Goal, Switch};
use crate::model::state::AdminState;
use crate::model::traffic::Obstacle;
use crate::request::{Need, Via, WaitBounds};
use crate::time::deadline::{Backoff, Deadline};

/// Returns the next goal of a server on its way from maint to ready.
#[must_use]
pub fn next_step(goal: Goal, target: &Target, bounds: WaitBounds) -> Goal {
    let goal = target.goal_for(goal);
    if target.stays_out() { goal } else { Goal { state: Some(next_state(goal, target, bounds)), ..goal } }
}

/// The next state of a server.
///
/// A server that leaves maintenance is checked in drain first. One that is already in drain goes on as soon as its
/// check has passed: it may have left maintenance in an interrupted run.
fn next_state(goal: Goal, target: &Target, bounds: WaitBounds) -> AdminState {
    let flags = target.last().state.flags;
    let is_proven = match target.watch {
        Watch::Proven | Watch::Excused | Watch::Over => true,
        Watch::Due | Watch::NotYet(_) | Watch::Since(_) => false,
    };
    let is_out = flags.effective() == AdminState::Maint || flags.forced() == Some(AdminState::Drain);
    if bounds.via == Via::Drain && is_out && !is_proven && can_be_proven(goal, target) {
        AdminState::Drain
    } else {
        AdminState::Ready
    }
}

/// Tells whether anything will show that a server works: its own checks, or those of the server that it tracks.
fn can_be_proven(goal: Goal, target: &Target) -> bool {
    let server = target.last();
    let runs =
        |now: Option<Switch>, asked: Option<Switch>| now.map(|now| asked.unwrap_or(now)) == Some(Switch::Enabled);
    runs(server.state.health, goal.health) || runs(server.state.agent, goal.agent) || server.tracks().is_some()
}

/// Brings servers from maint to drain, and each to ready as soon as a check has passed since it left maint; calls
/// `keep` after each step.
///
/// # Errors
/// When a signal ends the run or the lock cannot be retaken. Failures of an instance or a server are kept there.
pub fn put_back(
    fleet: &mut Fleet<'_>,
    goal: Goal,
    bounds: WaitBounds,
    deadline: &Deadline<'_>,
    keep: &mut dyn FnMut(&mut Fleet<'_>),
) -> Result<()> {
    let mut backoff = Backoff::default();
    fleet.instances.iter_mut().for_each(Instance::watch_anew);
    let mut step = |fleet: &mut Fleet<'_>| -> Result<Processes> {
        fleet.step(&|target| next_step(goal, target, bounds))?;
        // Writing a state file may take longer than a check, and one that passes before the first poll proves nothing.
        let polled = fleet.poll(&is_checked)?;
        if polled == Processes::Same {
            keep(fleet);
        }
        Ok(polled)
    };
    let mut is_over = deadline.is_over();
    let mut polled = step(fleet)?;
    // What another process has is not planned yet.
    while polled == Processes::Replaced || fleet.at_work().any(is_checked) {
        if polled == Processes::Same {
            let now = fleet.clock.now();
            fleet.at_work_mut().filter(|target| is_checked(target)).for_each(|target| target.notice_check(bounds, now));
            let is_late = deadline.is_over();
            let may_be_excused: fn(&Target) -> bool = if is_late { |_| true } else { is_kept_from_traffic };
            fleet.instances.iter_mut().for_each(|instance| judge_together(instance, bounds, may_be_excused));
            let waiting = || fleet.at_work().filter(|target| is_checked(target) && is_waited_for(target));
            let (all, count) = (fleet.at_work().filter(|target| is_checked(target)).count(), waiting().count());
            if count > 0 && is_late {
                fail_unproven(fleet, bounds.timeout);
                return fleet.step(&|target| next_step(goal, target, bounds));
            }
            if count == all {
                let left = deadline.seconds_left();
                let who =
                    waiting().next().map(|target| format!(" ({}: {})", target.before.full_name(), target.why_not()));
                let who = who.unwrap_or_default();
                (fleet.progress)(&format!("checking {} in drain, {left} s to go{who}", servers(count)));
                fleet.pause(&mut backoff, deadline)?;
                is_over = deadline.is_over();
                polled = fleet.poll(&is_checked)?;
                continue;
            }
            backoff.reset();
        }
        if polled == Processes::Replaced && is_over {
            // One process may follow the other forever.
            fleet.step(&|target| next_step(goal, target, bounds))?;
            fail_unproven(fleet, bounds.timeout);
            return Ok(());
        }
        is_over = deadline.is_over();
        polled = step(fleet)?;
    }
    Ok(())
}

/// Tells whether a server is in drain on its way to ready.
fn is_checked(target: &Target) -> bool {
    !target.stays_out() && target.plan.as_ref().is_some_and(|planned| planned.goal.state == Some(AdminState::Drain))
}

fn is_waited_for(target: &Target) -> bool {
    match target.watch {
        Watch::Due | Watch::NotYet(_) | Watch::Since(_) => true,
        Watch::Proven | Watch::Excused | Watch::Over => false,
    }
}

/// Tells whether a server works, as far as a poll in drain shows it.
fn proven(target: &Target, poll: &Poll) -> Nearness {
    let server = target.last();
    match poll.statistics.obstacle() {
        Some(Obstacle::Maint) => return Nearness::Overridden,
        Some(Obstacle::Drain | Obstacle::NoWeight) | None => {}
        Some(
            obstacle @ (Obstacle::Down | Obstacle::Stopping | Obstacle::BackendDisabled | Obstacle::BackendUnpublished),
        ) => return Nearness::NotYet(why_not_serving(obstacle, server, &poll.statistics)),
    }
    let has_left_maint = target.before.state.flags.effective() == AdminState::Maint;
    match (server.state.health, &poll.statistics.counter) {
        // The check of the server that it tracks stands for its own.
        (Some(Switch::Disabled) | None, _) if server.tracks().is_some() => Nearness::There(Duration::ZERO),
        (Some(Switch::Enabled), Some(counter)) if counter.fall == 1 => Nearness::There(UP_WITHOUT_PROOF),
        (Some(Switch::Enabled), Some(_)) if has_left_maint && poll.was_above_rise => Nearness::There(UP_WITHOUT_PROOF),
        (Some(Switch::Enabled), Some(counter)) if counter.health <= counter.rise => {
            Nearness::NotYet("no check has passed since it left maint".to_owned())
        }
        (Some(Switch::Enabled), _) => Nearness::There(Duration::ZERO),
        // An agent does not show how it counts.
        (Some(Switch::Disabled) | None, _) if server.has_agent() => Nearness::There(UP_WITHOUT_PROOF),
        (Some(Switch::Disabled) | None, _) => Nearness::There(Duration::ZERO),
    }
}

impl Target {
    /// Notes what the last poll says about whether it works.
    fn notice_check(&mut self, bounds: WaitBounds, now: Instant) {
        let Some(poll) = self.last_poll.as_deref().filter(|_| is_waited_for(self)) else { return };
        match proven(self, poll) {
            Nearness::There(long) => {
                let since = match self.watch {
                    Watch::Since(since) => since,
                    Watch::Due | Watch::NotYet(_) | Watch::Proven | Watch::Excused | Watch::Over => now,
                };
                let is_long_enough = now.duration_since(since) >= long.max(bounds.stable);
                self.watch = if is_long_enough { Watch::Proven } else { Watch::Since(since) };
            }
            Nearness::NotYet(why) => self.watch = Watch::NotYet(why),
            Nearness::Overridden => {
                let status = poll.statistics.status.clone();
                self.fail_overridden(Effect::FreeInDrain, &status);
            }
        }
    }
}

/// Judges servers that depend on each other: one that tracks another does not overtake it, and with `any` a server that
/// works in one backend becomes ready in those where it is down as well.
///
/// Until a check has failed in another backend, HAProxy takes the server for up there: ready would give it the traffic of
/// a role that it may not have. Only the deadline ends that.
fn judge_together(instance: &mut Instance<'_>, bounds: WaitBounds, may_be_excused: fn(&Target) -> bool) {
    let names = |instance: &Instance<'_>, pick: &dyn Fn(&Target) -> bool| -> Vec<String> {
        let picked = instance.targets.iter().filter(|target| target.is_at_work() && pick(target));
        picked.map(|target| target.before.full_name()).collect()
    };
    let unproven = names(instance, &|target| is_checked(target) && is_waited_for(target));
    for target in instance.targets.iter_mut().filter(|target| target.watch == Watch::Proven) {
        if target.last().tracks().is_some_and(|tracked| unproven.iter().any(|name| name == tracked)) {
            target.watch = Watch::NotYet("the server that it tracks is not proven to work yet".to_owned());
        }
    }
    excuse(instance, bounds.need, |target| target.watch == Watch::Proven, may_be_excused);
}

/// Tells whether a server in drain would not take traffic in ready either, by its last poll.
fn is_kept_from_traffic(target: &Target) -> bool {
    let obstacle = target.last_poll.as_deref().and_then(|poll| poll.statistics.obstacle());
    match obstacle {
        Some(Obstacle::Maint | Obstacle::Drain) | None => false,
        Some(
            Obstacle::Down
            | Obstacle::Stopping
            | Obstacle::NoWeight
            | Obstacle::BackendDisabled
            | Obstacle::BackendUnpublished,
        ) => true,
    }
}

/// Stops waiting for servers that have arrived in another backend, if one backend is enough and they may be excused.
pub(super) fn excuse(
    instance: &mut Instance<'_>,
    need: Need,
    is_there: impl Fn(&Target) -> bool,
    may_be: impl Fn(&Target) -> bool,
) {
    match need {
        Need::All => {}
        Need::Any => {
            let there: Vec<_> =
                instance.targets.iter().filter(|target| target.is_at_work() && is_there(target)).collect();
            let names: Vec<_> = there.iter().map(|target| target.before.server.clone()).collect();
            let others = instance.targets.iter_mut().filter(|target| {
                target.is_at_work() && !is_there(target) && target.watch != Watch::Over && may_be(target)
            });
            others.filter(|target| names.contains(&target.before.server)).for_each(|target| {
                target.watch = Watch::Excused;
            });
        }
    }
}

/// Fails the servers that no check has proven to work in time: they stay in drain.
fn fail_unproven(fleet: &mut Fleet<'_>, timeout: Duration) {
    for target in fleet.at_work_mut().filter(|target| is_checked(target) && is_waited_for(target)) {
        let msg = format!(
            "{} does not take traffic after {} s: {}; it stays in drain: check the server itself, or wait longer",
            target.before.full_name(),
            timeout.as_secs_f64(),
            target.why_not()
        );
        target.fail(Error::new(ErrorKind::NotUp, msg));
    }
}
