//! The report of a status as one line for Nagios, Icinga and what else runs their plug-ins
//! (<https://www.monitoring-plugins.org/doc/guidelines.html>).

use super::standing::{Counts, Standing, counted, why_not};
use super::wire::{Report, ServerReport};
use crate::model::state::AdminState;
use crate::model::text::{a_few_of, printable};
use crate::request::Request;

/// The longest text, in bytes: NRPE passes on 1,024 with the counts.
const TEXT_MAX: usize = 700;

/// The state of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Every server takes traffic, or somebody answers for its maintenance.
    Ok,
    /// A server is down or out without an owner, or was to be back by now.
    Warning,
    /// A backend has fewer servers in traffic than `guard` demands.
    Critical,
    /// It could not be found out.
    Unknown,
}

impl Health {
    /// Returns the exit code of a plug-in.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// Judges the report of a status, and writes it as the line of a plug-in.
///
/// With a `guard` its `ok` tells whether every backend has enough servers in traffic: then those that are down are no
/// problem of their own.
#[must_use]
pub fn nagios(request: Option<&Request>, report: &Report<'_>) -> (Health, String) {
    let unknown = |why: &str| (Health::Unknown, line(Health::Unknown, why, ""));
    if report.failed {
        return unknown(&report.msg);
    }
    let counts = Counts::of(report);
    if counts.servers == 0 {
        return unknown(&format!("no server is matched ({})", report.msg));
    }
    let has_guard = request.is_some_and(|request| request.guard.is_some());
    let falls_short = has_guard && report.ok == Some(false);
    let kinds = [
        ("down", Standing::Down, !has_guard || falls_short),
        ("maint without an owner", Standing::Out(AdminState::Maint), true),
        ("drain without an owner", Standing::Out(AdminState::Drain), true),
        ("expired", Standing::Expired, true),
    ];
    let named = kinds.into_iter().filter(|(_, _, counts)| *counts).filter_map(|(what, standing, _)| {
        let servers = counted(report).filter(|server| Standing::of(server) == standing);
        let names: Vec<String> = servers.map(|server| name(report, &server, standing)).collect();
        (!names.is_empty()).then(|| format!("{what}: {}", a_few_of(&names)))
    });
    // It names the backends.
    let mut parts: Vec<String> = falls_short.then(|| report.msg.clone()).into_iter().collect();
    parts.extend(named);
    let health = match (falls_short, parts.is_empty()) {
        (true, _) => Health::Critical,
        (false, false) => Health::Warning,
        (false, true) => Health::Ok,
    };
    parts.push(format!("{} of {} servers ok", counts.ok, counts.servers));
    if counts.owned > 0 {
        parts.push(format!("{} in recorded maintenance", counts.owned));
    }
    let skipped = report.instances.iter().filter(|instance| instance.error.is_some()).count();
    if skipped > 0 {
        parts.push(format!("{skipped} of {} instances skipped", report.instances.len()));
    }
    (health, line(health, &parts.join("; "), &data(&counts)))
}

/// Names a server with what is worth knowing of it.
fn name(report: &Report<'_>, server: &ServerReport<'_>, standing: Standing) -> String {
    let instance = if report.instances.len() > 1 { format!("{} ", server.instance) } else { String::new() };
    let more = match standing {
        Standing::Down => why_not(server).map(str::to_owned),
        Standing::Expired => {
            Some([server.owner, server.expires.as_deref()].into_iter().flatten().collect::<Vec<&str>>().join(" until "))
        }
        Standing::Ok | Standing::Owned | Standing::Out(_) => None,
    };
    let more = more.map(|more| format!(" ({more})")).unwrap_or_default();
    format!("{instance}{}/{}{more}", server.backend, server.server)
}

/// Writes the counts as performance data.
fn data(counts: &Counts) -> String {
    let all = counts.servers;
    let parts = [
        ("ok", counts.ok),
        ("maint", counts.maint),
        ("drain", counts.drain),
        ("down", counts.down),
        ("owned", counts.owned),
        ("expired", counts.expired),
    ];
    let parts = parts.map(|(label, count)| format!(" {label}={count};;;0;{all}")).concat();
    format!("|servers={all};;;0{parts}")
}

/// Writes the line: nothing in the text ends it, or begins the performance data.
fn line(health: Health, text: &str, data: &str) -> String {
    let safe = printable(text).replace('|', "\\u{7c}").replace('\'', "");
    let cut = safe.char_indices().map(|(at, _)| at).find(|at| *at > TEXT_MAX).and_then(|at| safe.get(..at));
    let shown = cut.map_or_else(|| safe.clone(), |cut| format!("{cut}..."));
    format!("HAPROXY {} - {shown}{data}\n", health.word())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::act::target::Target;
    use crate::keep::owner::Record;
    use crate::model::server::{Process, Server, ServerState, Start};
    use crate::model::state::{AdminFlags, OperationalState};
    use crate::model::traffic::MinAvailable;
    use crate::report::outcome::{InstanceOutcome, RunOutcome};
    use crate::report::report;
    use crate::request::{Claim, Draft};

    fn server(name: &str, flags: u32, operational: OperationalState, weight: u32) -> Target {
        let state = ServerState { flags: AdminFlags(flags), operational, weight, health: None, agent: None };
        Target::new(Server {
            backend: "web".into(),
            server: name.into(),
            address: "127.0.0.1:80".into(),
            state,
            ..Server::example()
        })
    }

    fn ready(name: &str) -> Target {
        server(name, 0, OperationalState::Running, 1)
    }

    fn maint(name: &str, claim: Option<Claim>) -> Target {
        let mut target = server(name, AdminFlags::FORCED_MAINT, OperationalState::Stopped, 1);
        target.record = claim.map(|claim| {
            Box::new(Record {
                address: "/sock".to_owned(),
                process: Process::new("3.2", 1, Start::At(1), (2, std::time::Instant::now())),
                survives_reload: false,
                backend: "web".to_owned(),
                server: name.to_owned(),
                number: None,
                server_address: None,
                state: AdminState::Maint,
                was: None,
                claim,
                recorded: 1,
            })
        });
        target
    }

    fn claim(owner: Option<&str>, expires: Option<u64>) -> Option<Claim> {
        Some(Claim { owner: owner.map(str::to_owned), reason: Some("a|b".to_owned()), expires })
    }

    fn run(targets: Vec<Target>) -> RunOutcome {
        let instance = InstanceOutcome {
            name: "http".to_owned(),
            socket: "/sock".to_owned(),
            process: None,
            targets,
            error: None,
            is_skipped: false,
            old_processes: Vec::new(),
            state_files: Vec::new(),
            short: Vec::new(),
        };
        RunOutcome { instances: vec![instance], ..RunOutcome::default() }
    }

    fn status() -> Request {
        Draft::from_json(b"{}").unwrap().check().unwrap()
    }

    fn of(targets: Vec<Target>) -> (Health, String) {
        let (request, run) = (status(), run(targets));
        nagios(Some(&request), &report(&request, &run))
    }

    const LATE: Option<u64> = Some(4_000_000_000);
    const PAST: Option<u64> = Some(1_000_000_000);

    #[test]
    fn what_somebody_answers_for_is_no_problem() {
        let (health, line) =
            of(vec![ready("a"), maint("b", claim(Some("alice"), LATE)), maint("c", claim(Some("bob"), None))]);
        assert_eq!(health, Health::Ok);
        let counts =
            "|servers=3;;;0 ok=1;;;0;3 maint=2;;;0;3 drain=0;;;0;3 down=0;;;0;3 owned=2;;;0;3 expired=0;;;0;3\n";
        assert_eq!(line, format!("HAPROXY OK - 1 of 3 servers ok; 2 in recorded maintenance{counts}"));
    }

    #[test]
    fn what_nobody_answers_for_is_a_warning() {
        for (target, shown) in [
            (maint("b", None), "maint without an owner: web/b"),
            (maint("b", claim(None, LATE)), "maint without an owner: web/b"),
            (server("b", AdminFlags::FORCED_DRAIN, OperationalState::Running, 1), "drain without an owner: web/b"),
            (server("b", 0, OperationalState::Stopped, 1), "down: web/b"),
            (server("b", 0, OperationalState::Running, 0), "down: web/b (weight 0)"),
            (maint("b", claim(Some("alice"), PAST)), "expired: web/b (alice until 2001-09-09T01:46:40Z)"),
            (maint("b", claim(None, PAST)), "expired: web/b (2001-09-09T01:46:40Z)"),
        ] {
            let (health, line) = of(vec![ready("a"), target]);
            assert_eq!(health.code(), 1, "{line}");
            assert!(
                line.starts_with(&format!("HAPROXY WARNING - {shown}; 1 of 2 servers ok|servers=2;;;0 ok=1")),
                "{line}"
            );
        }
    }

    #[test]
    fn with_a_guard_it_counts_whether_enough_are_left() {
        let request = Request { guard: Some(MinAvailable::Count(1)), ..status() };
        let run = run(vec![ready("a"), server("b", 0, OperationalState::Stopped, 1)]);
        for (ok, msg, code, shown) in [
            (true, "enough", 0, "HAPROXY OK - 1 of 2 servers ok|"),
            (false, "too few in web", 2, "HAPROXY CRITICAL - too few in web; down: web/b; 1 of 2 servers ok|"),
        ] {
            let report = Report { ok: Some(ok), msg: msg.to_owned(), ..report(&request, &run) };
            let (health, line) = nagios(Some(&request), &report);
            assert!(health.code() == code && line.starts_with(shown), "{line}");
        }
    }

    #[test]
    fn a_failure_is_unknown_and_has_no_counts() {
        let report = Report { failed: true, msg: "no instance 'a|b'\nanswers".to_owned(), ..Report::default() };
        let (health, line) = nagios(None, &report);
        assert_eq!((health.code(), line.as_str()), (3, "HAPROXY UNKNOWN - no instance a\\u{7c}b\\u{a}answers\n"));
    }

    #[test]
    fn nothing_checked_is_not_ok() {
        let report = Report { msg: "all servers: ok for 0 of 0".to_owned(), ok: Some(true), ..Report::default() };
        let (health, line) = nagios(None, &report);
        assert_eq!(health, Health::Unknown);
        assert_eq!(line, "HAPROXY UNKNOWN - no server is matched (all servers: ok for 0 of 0)\n");
    }

    proptest! {
        #[test]
        fn whatever_is_said_it_is_one_line_with_one_bar(text in any::<String>(), more in "[|'\\n\\r é]{0,900}") {
            let line = line(Health::Warning, &format!("{text}{more}"), "|servers=1;;;0");
            prop_assert!(line.ends_with("|servers=1;;;0\n"));
            prop_assert_eq!(line.matches('|').count(), 1);
            prop_assert!(!line.trim_end_matches('\n').contains(char::is_control) && !line.contains('\''));
            prop_assert!(line.len() < TEXT_MAX + 60);
        }
    }
}
