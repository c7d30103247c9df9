//! Waits for the effect of a change: until servers take traffic, or until no session is left on them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::act::converge::Managed;
use crate::act::drain::{is_drained, what_is_left};
use crate::act::fleet::{Fleet, Look, a_few_of, servers};
use crate::haproxy::observe::Server;
use crate::haproxy::parse::{CheckCounter, StatRow};
use crate::model::error::{ErrorKind, Result};
use crate::model::state::AdminState;
use crate::request::{Change, Switch, WaitBounds};
use crate::time::deadline::{Backoff, Deadline};

/// How long a server must stay up whose check goes down at the first failure: such a check shows nothing when it
/// passes, so that staying up is the only evidence.
const UP_WITH_FALL_1: Duration = Duration::from_secs(5);

/// How near a server is to what is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nearness {
    /// It is there, and has to stay so for this long.
    There(Duration),
    /// It is not there yet, for this reason.
    NotYet(String),
    /// Something else has set it back: waiting does not help.
    SetBack,
}

/// Tells whether a server takes traffic since it was set to ready.
///
/// HAProxy calls a server up as soon as it leaves maintenance, before its next check: it sets the count of its check to
/// `rise` (`srv_set_running()` in `src/server.c`), which a passed check then exceeds, unless `fall` is 1.
#[must_use]
pub fn serving(server: &Server, stat: &StatRow) -> Nearness {
    let status = stat.status.as_str();
    let not_yet = |why: &str| Nearness::NotYet(why.to_owned());
    if status.starts_with("MAINT") || status.starts_with("DRAIN") {
        return Nearness::SetBack;
    }
    if status.starts_with("DOWN") {
        let check = stat.check.as_ref().map(|check| format!(" ({check})")).unwrap_or_default();
        return Nearness::NotYet(format!("it is down{check}"));
    }
    if status.starts_with("NOLB") {
        return not_yet("its check answers 404, so that it takes no new traffic");
    }
    if server.weight == 0 {
        return not_yet("its weight is 0, so that it takes no new traffic");
    }
    if stat.is_throttled {
        return not_yet("its slowstart is under way");
    }
    match (server.health(), &stat.counter) {
        (Some(Switch::Enabled), Some(CheckCounter { fall: 1, .. })) => Nearness::There(UP_WITH_FALL_1),
        (Some(Switch::Enabled), Some(counter)) if counter.health <= counter.rise => {
            not_yet("its check has not passed since the change")
        }
        (Some(Switch::Enabled | Switch::Disabled) | None, _) => Nearness::There(Duration::ZERO),
    }
}

/// Tells whether nothing is left to do on a server that was taken out.
#[must_use]
pub fn quiet(stat: &StatRow) -> Nearness {
    let status = stat.status.as_str();
    if status.starts_with("UP") || status.starts_with("no check") {
        return Nearness::SetBack;
    }
    if is_drained(stat) {
        Nearness::There(Duration::ZERO)
    } else {
        Nearness::NotYet(format!("it has {}", what_is_left(Some(stat))))
    }
}

/// Waits for the servers of all instances under one deadline.
///
/// # Errors
/// When a signal ends the run or the lock cannot be had again. What fails on an instance or a server is kept there.
pub fn wait(fleet: &mut Fleet<'_>, change: Change, wanted: AdminState, bounds: WaitBounds) -> Result<()> {
    let deadline = Deadline::after(bounds.timeout);
    let mut backoff = Backoff::default();
    let mut waiting = Waiting { wanted, stable: bounds.stable, since: HashMap::new(), why: HashMap::new() };
    let mut picked = fleet.pick(|_, _, _| true);
    loop {
        let Some(looks) = fleet.look(&picked)? else {
            // A new process knows nothing of the change: set it again, and wait for it anew.
            fleet.carry_out(&|_, _| change)?;
            waiting.since.clear();
            picked = fleet.pick(|_, _, _| true);
            continue;
        };
        let open = waiting.still_open(&looks);
        let set_back: Vec<(usize, usize)> =
            open.iter().filter(|open| open.is_set_back).map(|open| open.place).collect();
        let count = open.len() - set_back.len();
        let mut next: Vec<Vec<usize>> = vec![Vec::new(); picked.len()];
        for open in open.iter().filter(|open| !open.is_set_back) {
            if let Some(places) = next.get_mut(open.place.0) {
                places.push(open.place.1);
            }
        }
        picked = next;
        fail_set_back(fleet, wanted, &set_back);
        if count > 0 && deadline.is_over() {
            waiting.time_is_over(fleet, &picked, bounds.timeout);
        }
        if count == 0 || deadline.is_over() {
            if fleet.refresh()? {
                if wanted == AdminState::Ready {
                    fleet.managed.iter_mut().for_each(say_unchecked);
                }
                return Ok(());
            }
            fleet.carry_out(&|_, _| change)?;
            waiting.since.clear();
            picked = fleet.pick(|_, _, _| true);
            continue;
        }
        let what = if wanted == AdminState::Ready { "up" } else { "free of sessions" };
        let left = deadline.seconds_left();
        let (all, who) = (fleet.count(), waiting.one_of(fleet, &picked));
        let done = all.saturating_sub(count);
        (fleet.progress)(&format!("{done} of {} {what}, {left} s to go{who}", servers(all)));
        fleet.pause(&mut backoff, &deadline)?;
    }
}

/// Says which servers counted as up although nothing has seen them work.
fn say_unchecked(managed: &mut Managed<'_>) {
    let servers = managed.current.servers.iter().zip(&managed.outcomes);
    let unchecked: Vec<String> = servers
        .filter(|(server, outcome)| outcome.error.is_none() && !outcome.is_disabled && !server.has_check())
        // The check of the server that it tracks stands for its own.
        .filter(|(server, _)| server.tracks().is_none())
        .map(|(server, _)| server.full_name())
        .collect();
    if !unchecked.is_empty() {
        let named = a_few_of(&unchecked);
        managed
            .warnings
            .push(format!("{named}: no health check is under way, so that 'wait' counted it as up at once"));
    }
}

/// What is known of the servers that are waited for.
struct Waiting {
    wanted: AdminState,
    stable: Duration,
    since: HashMap<(usize, usize), Instant>,
    why: HashMap<(usize, usize), String>,
}

/// A server that is not there yet, or not long enough.
struct Open {
    place: (usize, usize),
    is_set_back: bool,
}

impl Waiting {
    /// Finds the servers that have to be looked at again.
    fn still_open(&mut self, looks: &[Look<'_>]) -> Vec<Open> {
        let now = Instant::now();
        let mut open = Vec::new();
        for look in looks {
            let place = (look.instance, look.place);
            let nearness = match (&look.stat, self.wanted) {
                (None, _) => Nearness::NotYet("HAProxy does not know it any more".to_owned()),
                (Some(stat), AdminState::Ready) => serving(look.server, stat),
                (Some(stat), AdminState::Drain | AdminState::Maint) => quiet(stat),
            };
            match nearness {
                Nearness::There(long) => {
                    let since = *self.since.entry(place).or_insert(now);
                    if now.duration_since(since) < long.max(self.stable) {
                        self.why.insert(place, "it has not been up for long enough".to_owned());
                        open.push(Open { place, is_set_back: false });
                    }
                }
                Nearness::NotYet(why) => {
                    self.since.remove(&place);
                    self.why.insert(place, why);
                    open.push(Open { place, is_set_back: false });
                }
                Nearness::SetBack => open.push(Open { place, is_set_back: true }),
            }
        }
        open
    }

    /// Names a server that is still waited for, and says what was last seen of it.
    fn one_of(&self, fleet: &Fleet<'_>, picked: &[Vec<usize>]) -> String {
        let mut open =
            picked.iter().enumerate().flat_map(|(instance, places)| places.iter().map(move |it| (instance, *it)));
        let Some((instance, place)) = open.next() else { return String::new() };
        let server = fleet.managed.get(instance).and_then(|managed| managed.current.servers.get(place));
        match (server, self.why.get(&(instance, place))) {
            (Some(server), Some(why)) => format!(" ({}: {why})", server.full_name()),
            (_, None) | (None, _) => String::new(),
        }
    }

    /// Says of each server that is still waited for what was last seen of it.
    fn time_is_over(&self, fleet: &mut Fleet<'_>, picked: &[Vec<usize>], timeout: Duration) {
        let seconds = timeout.as_secs_f64();
        for (instance, (managed, places)) in fleet.managed.iter_mut().zip(picked).enumerate() {
            for &place in places {
                let why = self.why.get(&(instance, place)).map_or("nothing is known of it", String::as_str);
                managed.fail(place, |_, server| {
                    let name = server.full_name();
                    match self.wanted {
                        AdminState::Ready => (
                            ErrorKind::NotUp,
                            format!(
                                "{name} does not take traffic after {seconds} s: {why}; look at the server itself, or wait longer"
                            ),
                        ),
                        AdminState::Drain | AdminState::Maint => (
                            ErrorKind::NotDrained,
                            format!(
                                "{name} is not free of sessions after {seconds} s: {why}; wait longer, or end them with \
                                 'shutdown_sessions', which does not reach a process from before a reload"
                            ),
                        ),
                    }
                });
            }
        }
    }
}

/// Says of servers that something else has set them back.
fn fail_set_back(fleet: &mut Fleet<'_>, wanted: AdminState, places: &[(usize, usize)]) {
    for &(instance, place) in places {
        let Some(managed) = fleet.managed.get_mut(instance) else { continue };
        managed.fail(place, |outcome, server| {
            let status = outcome.last_seen.as_ref().map(|stat| stat.status.as_str()).unwrap_or_default();
            let why = if server.has_agent() {
                "its agent check sets the state as well; give 'agent': 'disabled' too, or correct what the agent answers"
            } else {
                "somebody else has set it in the meantime; find out who, and run this again"
            };
            let name = server.full_name();
            (ErrorKind::Overridden, format!("{name} was set to {wanted}, but HAProxy shows it as '{status}' now: {why}"))
        });
    }
}

/// Ends the sessions that are left on servers in maint, again until none is left.
///
/// # Errors
/// When a signal ends the run or the lock cannot be had again. What fails on an instance or a server is kept there.
pub fn end_sessions(fleet: &mut Fleet<'_>, change: Change, timeout: Duration) -> Result<()> {
    let deadline = Deadline::after(timeout);
    let mut backoff = Backoff::default();
    loop {
        let picked = fleet.pick(|_, managed, place| {
            managed.current.servers.get(place).is_some_and(|server| server.flags.effective() == AdminState::Maint)
        });
        let Some(looks) = fleet.look(&picked)? else {
            // A new process knows nothing of the change.
            fleet.carry_out(&|_, _| change)?;
            continue;
        };
        let mut busy: Vec<Vec<usize>> = vec![Vec::new(); picked.len()];
        for look in looks.iter().filter(|look| look.stat.as_ref().is_some_and(|stat| !is_drained(stat))) {
            if let Some(places) = busy.get_mut(look.instance) {
                places.push(look.place);
            }
        }
        let count: usize = busy.iter().map(Vec::len).sum();
        if count == 0 {
            return Ok(());
        }
        if deadline.is_over() {
            let seconds = timeout.as_secs_f64();
            for (managed, places) in fleet.managed.iter_mut().zip(&busy) {
                for &place in places {
                    managed.fail(place, |outcome, server| {
                        let (name, left) = (server.full_name(), what_is_left(outcome.last_seen.as_deref()));
                        let msg = format!(
                            "{name} is not free of sessions after {seconds} s: it has {left}; give more time, or look at \
                             processes from before a reload, whose sessions cannot be ended from here"
                        );
                        (ErrorKind::NotDrained, msg)
                    });
                }
            }
            return Ok(());
        }
        for (managed, places) in fleet.managed.iter_mut().zip(&busy) {
            if !places.is_empty() && managed.error.is_none() {
                managed.error = managed.shut_sessions(places).err();
            }
        }
        (fleet.progress)(&format!("ending the sessions of {}, {} s to go", servers(count), deadline.seconds_left()));
        fleet.pause(&mut backoff, &deadline)?;
    }
}
