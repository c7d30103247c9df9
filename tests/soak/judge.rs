//! What must hold of a report, whatever happened.
//!
//! Only what is implied is required: a server that somebody else has set, or whose process was replaced, may be anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::app::Request;
use super::reader::{Row, Rows, Sample};
use super::request::Asked;
use super::stage::{SERVERS, TRACKS};
use super::trouble::{Trouble, What};
use crate::support::Run;

/// How long a request may be on its way from HAProxy to a server's log.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// How long an answer takes on a host that is too busy to judge time-outs of a second; the watchers look each 60 ms.
const SLOW: Duration = Duration::from_millis(400);

/// A run that has ended.
pub(crate) struct Ended {
    pub(crate) asked: Asked,
    pub(crate) run: Run,
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    /// `None` if it was killed before it could write one.
    pub(crate) report: Option<Value>,
}

/// Everything that is known of a round.
pub(crate) struct Round<'a> {
    pub(crate) before: &'a BTreeMap<&'static str, Rows>,
    pub(crate) after: &'a BTreeMap<&'static str, Rows>,
    pub(crate) samples: &'a BTreeMap<&'static str, Vec<Sample>>,
    pub(crate) requests: &'a [Request],
    pub(crate) troubles: &'a [Trouble],
    /// When each of them began, unless it could not happen.
    pub(crate) begun: &'a BTreeMap<usize, Instant>,
    /// The runs that got SIGTERM before they held it back.
    pub(crate) ended_early: &'a BTreeSet<usize>,
    pub(crate) names: &'a [&'static str],
    pub(crate) ended: &'a [Ended],
    pub(crate) begin: Instant,
    pub(crate) end: Instant,
    /// The instances on which a process from before a reload may still have had clients.
    pub(crate) with_old_processes: &'a [&'static str],
}

type Verdict = Result<(), String>;

fn require(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// How many reports and guards were judged.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Judged {
    pub(crate) reports: u64,
    pub(crate) states: u64,
    pub(crate) guards: u64,
    pub(crate) silences: u64,
}

impl Round<'_> {
    pub(crate) fn judge(&self, judged: &mut Judged) -> Verdict {
        for (number, ended) in self.ended.iter().enumerate() {
            self.in_time(ended)?;
            let Some(report) = &ended.report else {
                let is_early = self.ended_early.contains(&number);
                let is_killed = ended.run.code.is_none() && (self.was_sent(Signal::SIGKILL) || is_early);
                require(is_killed, || format!("no report, and {:?}", ended.run))?;
                continue;
            };
            judged.reports += 1;
            require(ended.run.code.is_some() || self.was_sent(Signal::SIGKILL), || {
                format!("it ended as {:?}", ended.run)
            })?;
            of_one_piece(ended, report)?;
            self.explained(ended, report)?;
            self.true_to_haproxy(ended, report, judged)?;
            self.nothing_comes(ended, report, judged)?;
        }
        self.others_are_untouched()?;
        self.guards_hold(judged)
    }

    fn was_sent(&self, signal: Signal) -> bool {
        self.troubles.iter().any(|it| matches!(&it.what, What::Signal { signal: sent, .. } if *sent == signal))
    }

    fn any(&self, is_it: impl Fn(&What) -> bool) -> bool {
        self.troubles.iter().any(|trouble| is_it(&trouble.what))
    }

    fn in_time(&self, ended: &Ended) -> Verdict {
        let (took, limit) = (ended.to - ended.from, ended.asked.limit());
        require(took <= limit, || format!("it took {took:?}, and its own time-outs allow {limit:?}"))
    }

    /// The longest that the watchers themselves have waited for an answer, or for their turn on a busy host.
    pub(crate) fn slowest_answer(&self) -> Duration {
        let of_one = |samples: &Vec<Sample>| {
            let ends = samples.iter().filter(|it| it.from >= self.begin).map(|it| it.to).chain([self.end]);
            let longer = |(last, slowest): (Instant, Duration), next: Instant| {
                (next.max(last), slowest.max(next.saturating_duration_since(last)))
            };
            ends.fold((self.begin, Duration::ZERO), longer).1
        };
        self.samples.values().map(of_one).max().unwrap_or_default()
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.slowest_answer() > SLOW
    }

    /// A failure has a cause that this round gave it.
    fn explained(&self, ended: &Ended, report: &Value) -> Verdict {
        let asked = &ended.asked;
        let is_alone = self.ended.len() == 1;
        let hangs = self.any(|what| matches!(what, What::Freeze(_))) || self.is_busy();
        let replaced = self.any(|what| matches!(what, What::Kill(_) | What::Reload));
        let by_others = self.any(|what| matches!(what, What::Command { .. }));
        let has_gone = asked.request["instances"].to_string().contains("gone");
        let state = asked.state();
        let errors = std::iter::once(&report["error"])
            .chain(list(&report["servers"]).map(|it| &it["error"]))
            .chain(list(&report["instances"]).map(|it| &it["error"]));
        for error in errors.filter(|error| !error.is_null()) {
            let is_explained = match error["kind"].as_str().unwrap_or_default() {
                "timeout" => hangs || replaced || asked.has("deadline"),
                "unreachable" => hangs || replaced || has_gone,
                "bad_reply" | "reloaded" => replaced,
                "server_not_found" | "backend_not_found" => asked.may_miss() || by_others || replaced,
                "guard_refused" => asked.has("guard"),
                "expectation_failed" => asked.has("expect"),
                "owned" => matches!(state, Some("ready" | "drain" | "restore")),
                "locked" => !is_alone,
                "unreachable_state" => true,
                "overridden" => by_others || !is_alone || replaced,
                "not_drained" => ["drain", "wait", "shutdown_sessions"].iter().any(|field| asked.has(field)),
                "not_up" => asked.has("wait"),
                "command_rejected" => by_others,
                "interrupted" => self.was_sent(Signal::SIGTERM),
                _ => false,
            };
            require(is_explained, || format!("nothing here explains {error}"))?;
        }
        Ok(())
    }

    /// Whether only our runs can have changed this server in this round, and left it as it is at its end.
    pub(crate) fn is_undisturbed(&self, instance: &str, server: &str) -> bool {
        self.first_disturbance(instance, server).is_none()
    }

    /// When anybody else has changed this server for the first time.
    fn first_disturbance(&self, instance: &str, server: &str) -> Option<Instant> {
        let concerns = |trouble: &Trouble| {
            self.names[trouble.site] == instance && (trouble.replaces_process() || trouble.sets(server))
        };
        self.begun.iter().filter(|(number, _)| concerns(&self.troubles[**number])).map(|(_, begun)| *begun).min()
    }

    /// A server after a run, until anybody else has changed it; nothing if it was not seen then.
    fn after(&self, ended: &Ended, instance: &str, server: &str) -> Option<Option<Row>> {
        let Some(until) = self.first_disturbance(instance, server) else {
            return Some(Self::row(self.after, instance, server));
        };
        let seen = self.samples[instance].iter().find(|sample| sample.from >= ended.to && sample.to <= until)?;
        Some(seen.rows.get(server).cloned())
    }

    fn row(rows: &BTreeMap<&'static str, Rows>, instance: &str, server: &str) -> Option<Row> {
        rows.get(instance)?.get(server).cloned()
    }

    /// What a report says of servers is what HAProxy shows.
    fn true_to_haproxy(&self, ended: &Ended, report: &Value, judged: &mut Judged) -> Verdict {
        let has_failed = report["failed"] == json!(true);
        for entry in list(&report["servers"]) {
            let (instance, server) = place(entry);
            let Some(after) = self.after(ended, instance, &server) else { continue };
            if self.ended.len() > 1 && !self.is_undisturbed(instance, &server) {
                continue;
            }
            // HAProxy may carry out what it was sent after it has hung, and so after the report.
            let hung = self.any(|what| matches!(what, What::Freeze(_)));
            if has_failed && hung {
                continue;
            }
            let before = Self::row(self.before, instance, &server);
            let is_asked_done = !has_failed && !ended.asked.is_dry_run() && !entry["after"].is_null();
            if is_asked_done && self.ended.len() == 1 {
                self.as_asked(ended, report, entry, after.as_ref())?;
            }
            judged.states += 1;
            if self.ended.len() > 1 {
                self.one_of_several(instance, &server, before.as_ref(), after.as_ref())?;
                continue;
            }
            let differs = |state: &Value, row: Option<&Row>| {
                let Some(row) = row else { return !state.is_null() };
                (state["admin_flags"].as_u64(), state["weight"].as_u64())
                    != (Some(u64::from(row.admin)), Some(u64::from(row.weight)))
            };
            require(!differs(&entry["before"], before.as_ref()), || format!("{entry}\nbut it was {before:?}"))?;
            let is_changed = entry["changed"] == json!(true);
            let set = |state: &Value| (state["admin_flags"].as_u64().map(|it| it & 0x09), state["weight"].as_u64());
            let is_other = !entry["after"].is_null() && set(&entry["after"]) != set(&entry["before"]);
            require(is_changed || !is_other, || format!("{entry}: it is another, and not 'changed'"))?;
            if ended.asked.is_dry_run() {
                require(before == after || ignoring_op(before.as_ref(), after.as_ref()), || {
                    format!("a dry run has changed {instance} {server} from {before:?} to {after:?}")
                })?;
                continue;
            }
            if !entry["after"].is_null() {
                require(!differs(&entry["after"], after.as_ref()), || format!("{entry}\nbut it is {after:?}"))?;
            }
            require(is_changed || as_set(before.as_ref()) == as_set(after.as_ref()), || {
                format!("{entry}\nis not 'changed', but went from {before:?} to {after:?}")
            })?;
        }
        Ok(())
    }

    /// Where several runs met, a server is as one of them says, or as it was.
    fn one_of_several(&self, instance: &str, server: &str, before: Option<&Row>, after: Option<&Row>) -> Verdict {
        let reports: Vec<Option<&Value>> = self.ended.iter().map(|ended| ended.report.as_ref()).collect();
        // A run that was killed has not said what it did, one with null does not know.
        if reports.iter().any(Option::is_none) || ignoring_op(before, after) {
            return Ok(());
        }
        let entries = || reports.iter().flatten().flat_map(|report| list(&report["servers"]));
        // It may have followed after its own run.
        if server == TRACKS.0 && entries().any(|entry| place(entry) == (instance, TRACKS.1.to_owned())) {
            return Ok(());
        }
        let mut said =
            entries().filter(|entry| place(entry) == (instance, server.to_owned())).map(|entry| &entry["after"]);
        let is_one = said.any(|state| {
            state.is_null()
                || after
                    .is_some_and(|row| state["admin_flags"] == json!(row.admin) && state["weight"] == json!(row.weight))
        });
        require(is_one, || format!("{instance} {server} is {after:?}, was {before:?}, and no report says so"))
    }

    /// A report without a failure means that the server is as requested.
    fn as_asked(&self, ended: &Ended, report: &Value, entry: &Value, after: Option<&Row>) -> Verdict {
        let asked = &ended.asked;
        let is_left_alone = asked.request["on_owned"] == "skip" && list(&entry["commands"]).next().is_none();
        let Some(wanted) = asked.state().filter(|state| *state != "restore" && !is_left_alone) else { return Ok(()) };
        let is = after.map(Row::state);
        require(is == Some(wanted), || {
            format!("{entry}\nis not {wanted}, but {after:?}; warnings {}", report["warnings"])
        })?;
        let is_sick = self.any(|what| matches!(what, What::Sick { .. } | What::Freeze(_)));
        let is_weightless = ["0", "\"0%\""].contains(&asked.request["weight"].to_string().as_str());
        let waited = !is_weightless && asked.has("wait") && asked.request["wait"]["need"] != "any" && wanted == "ready";
        if waited && !is_sick && asked.request["health"] != "disabled" {
            require(after.is_some_and(Row::takes_traffic), || format!("{entry}\ntakes no traffic: {after:?}"))?;
        }
        Ok(())
    }

    /// Once a server is reported out, nothing reaches it; after a drain, nothing that was on its way either.
    fn nothing_comes(&self, ended: &Ended, report: &Value, judged: &mut Judged) -> Verdict {
        let is_alone = self.ended.len() == 1;
        if !is_alone || report["failed"] == json!(true) || report["dry_run"] == json!(true) {
            return Ok(());
        }
        if ended.asked.state() != Some("maint") {
            return Ok(());
        }
        let warnings = report["warnings"].to_string();
        for entry in list(&report["servers"]) {
            let (instance, server) = place(entry);
            let until = self.first_disturbance(instance, &server);
            if until.is_some_and(|until| until <= ended.to) || self.with_old_processes.contains(&instance) {
                continue;
            }
            // One that was down went to maint with whatever it had.
            let was_in_service = entry["before"]["operational_state"] == "running";
            let is_drained = ended.asked.has("drain") && was_in_service && !warnings.contains("went to maint with");
            let grace = if is_drained { Duration::ZERO } else { ON_ITS_WAY };
            judged.silences += 1;
            let late = self.requests.iter().find(|request| {
                request.instance == instance
                    && request.server == server
                    && request.at > ended.to + grace
                    && until.is_none_or(|until| request.at < until)
            });
            require(late.is_none(), || {
                let late = late.map(|request| request.at - ended.to);
                format!("{entry}\ngot a request {late:?} after the report; warnings {warnings}")
            })?;
        }
        Ok(())
    }

    /// Servers that no run has matched are as they were.
    fn others_are_untouched(&self) -> Verdict {
        if self.ended.iter().any(|ended| ended.report.is_none()) {
            return Ok(());
        }
        let reports = || self.ended.iter().filter_map(|ended| ended.report.as_ref());
        let matched: Vec<(&str, String)> = reports().flat_map(|report| list(&report["servers"])).map(place).collect();
        for (instance, rows) in self.before {
            for (server, before) in rows {
                let follows = server == TRACKS.0 && matched.contains(&(*instance, TRACKS.1.to_owned()));
                let is_matched = matched.contains(&(*instance, server.clone())) || follows;
                if is_matched || !self.is_undisturbed(instance, server) {
                    continue;
                }
                let after = Self::row(self.after, instance, server);
                require(ignoring_op(Some(before), after.as_ref()), || {
                    format!("no report has {instance} {server}, but it went from {before:?} to {after:?}")
                })?;
            }
        }
        Ok(())
    }

    /// As long as nobody else does anything, no backend falls below what every run has asked for.
    fn guards_hold(&self, judged: &mut Judged) -> Verdict {
        let changing: Vec<&Asked> =
            self.ended.iter().map(|it| &it.asked).filter(|asked| asked.is_change() && !asked.is_dry_run()).collect();
        if changing.is_empty() || changing.iter().any(|asked| !asked.has("guard")) {
            return Ok(());
        }
        if self.any(|what| matches!(what, What::Sick { .. })) {
            return Ok(());
        }
        for (instance, samples) in self.samples {
            for backend in ["app", "web", "dyn", "tracked"] {
                let servers: Vec<&str> =
                    SERVERS.into_iter().filter(|server| server.starts_with(&format!("{backend}/"))).collect();
                let all = self.before[instance].iter().filter(|(name, _)| name.starts_with(&format!("{backend}/")));
                let is_disturbed = servers.iter().any(|server| !self.is_undisturbed(instance, server))
                    || all.clone().count() != servers.len()
                    || self.any(|what| matches!(what, What::Command { server, .. } if server.starts_with(backend)));
                if is_disturbed {
                    continue;
                }
                let count = servers.len() as u64;
                let least = changing.iter().map(|asked| least(&asked.request["guard"]["min_available"], count)).min();
                let usable = |rows: &Rows| {
                    servers.iter().filter(|server| rows.get(**server).is_some_and(Row::takes_traffic)).count() as u64
                };
                let least = least.unwrap_or(0).min(usable(&self.before[instance]));
                // One that was under way may show the scene being set.
                for sample in samples.iter().filter(|sample| sample.from >= self.begin) {
                    judged.guards += 1;
                    require(usable(&sample.rows) >= least, || {
                        format!(
                            "{instance} {backend}: {} usable, not {least}, {:?} before the end of the round: {:?}",
                            usable(&sample.rows),
                            self.end - sample.to,
                            sample.rows
                        )
                    })?;
                }
            }
        }
        Ok(())
    }
}

/// The number that a guard means.
fn least(guard: &Value, servers: u64) -> u64 {
    match guard.as_str().and_then(|text| text.strip_suffix('%')?.parse::<u64>().ok()) {
        Some(percent) => (servers * percent).div_ceil(100),
        None => guard.as_u64().unwrap_or(0),
    }
}

fn ignoring_op(one: Option<&Row>, other: Option<&Row>) -> bool {
    let of = |row: Option<&Row>| row.map(|row| (row.admin, row.weight));
    of(one) == of(other)
}

/// What commands set: a server that follows another is not changed by what it inherits.
fn as_set(row: Option<&Row>) -> Option<(u32, u32)> {
    row.map(|row| (row.admin & 0x09, row.weight))
}

fn place(entry: &Value) -> (&str, String) {
    let text = |field: &str| entry[field].as_str().unwrap_or_default();
    (text("instance"), format!("{}/{}", text("backend"), text("server")))
}

/// What a report says must fit together, and its exit code with it.
fn of_one_piece(ended: &Ended, report: &Value) -> Verdict {
    let yes = |value: &Value, field: &str| value[field] == json!(true);
    let (has_failed, is_changed) = (yes(report, "failed"), yes(report, "changed"));
    let ok = report["ok"].as_bool();
    let code = match (ended.asked.detailed, has_failed, is_changed) {
        (false, false, _) | (true, false, false) if !(ended.asked.detailed && ok == Some(false)) => 0,
        (false, true, _) => 1,
        (_, false, _) => 2,
        (true, true, false) => 4,
        (true, true, true) => 6,
    };
    // One that was killed after its report has none.
    require(ended.run.code.is_none_or(|is| is == code), || format!("exit code {:?}, not {code}", ended.run.code))?;
    let any = |field: &str, of: &str| list(&report[of]).any(|it| yes(it, field));
    require(is_changed == any("changed", "instances"), || "'changed' is not that of the instances".to_owned())?;
    require(!any("changed", "servers") || is_changed, || "a server changed, and nothing did".to_owned())?;
    require(has_failed == report["error"].is_object(), || "'failed' and 'error' contradict".to_owned())?;
    require(has_failed || !any("failed", "servers"), || "a server failed, and nothing did".to_owned())?;
    require(has_failed || !any("failed", "instances"), || "an instance failed, and nothing did".to_owned())?;
    for entry in list(&report["servers"]) {
        let has_error = entry["error"].is_object();
        require(yes(entry, "failed") == has_error, || format!("{entry}: 'failed' and 'error' contradict"))?;
        let is_sent = list(&entry["commands"]).next().is_some();
        require(!yes(entry, "changed") || is_sent, || format!("{entry}: changed without a command"))?;
    }
    Ok(())
}
