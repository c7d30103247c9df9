//! The transition table against real HAProxy: every start state, every command.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::haproxy::rows;
use crate::support::{
    Agent, Answer, Dns, Haproxy, Health, HttpBackend, Instance, Setup, Test, TestResult, eventually_seen, tests,
};

#[path = "../support/transition_table.rs"]
pub(crate) mod transition_table;

use transition_table::{Outcome, State, Table};

pub(crate) fn tests() -> Vec<Test> {
    tests![table_is_what_haproxy_does]
}

/// The longest that any of the states takes to come about.
const SETTLED: Duration = Duration::from_secs(20);

/// Within which time an answer tells what a command does at once.
const AT_ONCE: Duration = Duration::from_millis(20);

/// How often a command is tried between two checks.
const TRIES: u32 = 5;

/// How long after a command a state is the later one; checks come five times a second.
const LATER: Duration = Duration::from_millis(1500);

/// The servers that the start states need.
struct World {
    up: HttpBackend,
    down: HttpBackend,
    not_found: HttpBackend,
    agents: BTreeMap<&'static str, Agent>,
    dns: Dns,
}

/// How to bring a server into a start state.
struct Start {
    /// Name of the row in the table.
    name: &'static str,
    /// Its line in the configuration, after the name.
    server: String,
    /// What must have come about before anything is sent.
    first: Option<State>,
    /// Commands without their server, as in `set server {} state maint`.
    commands: &'static [&'static str],
}

const MAINT: &str = "set server {} state maint";
const DRAIN: &str = "set server {} state drain";
const READY: &str = "set server {} state ready";
const WEIGHT_0: &str = "set server {} weight 0";

impl World {
    fn new() -> Self {
        let world = Self {
            up: HttpBackend::start("up"),
            down: HttpBackend::start("down"),
            not_found: HttpBackend::start("not_found"),
            agents: ["drain", "maint", "down", "up", "ready", "stopped", "75%"]
                .map(|words| (words, Agent::start(words)))
                .into(),
            dns: Dns::start(),
        };
        world.down.set_health(Health::Refuse);
        world.not_found.set_health(Health::NotFound);
        world.dns.answer("ok.test", Answer::Addresses(vec![std::net::Ipv4Addr::LOCALHOST]));
        world
    }

    fn starts(&self) -> Vec<Start> {
        let (up, down) = (self.up.address(), self.down.address());
        let check = "check inter 200ms";
        let dns = |name: &str, options: &str| {
            let port = self.up.port();
            format!("{name}.test:{port} {options} resolvers dns resolve-prefer ipv4 init-addr none")
        };
        let start = |name, server: String, commands| Start { name, server, first: None, commands };
        let plain = |name, options: &str, commands| start(name, format!("{up} {options}"), commands);
        let checked = |name, options: &str, commands| start(name, format!("{up} {check} {options}"), commands);
        let failing = |name, commands| start(name, format!("{down} {check}"), commands);
        let agent = |name, words, commands| {
            start(name, format!("{up} {check} {}", self.agents[words].options("200ms")), commands)
        };
        vec![
            plain("ready_nochk", "", &[]),
            checked("ready_chkup", "", &[]),
            failing("ready_chkdown", &[]),
            checked("ready_chkup_r5", "rise 5", &[]),
            plain("ready_slow_nochk", "slowstart 1h", &[]),
            plain("maint_slow_nochk", "slowstart 1h", &[MAINT]),
            checked("maint_slow_chk", "slowstart 1h", &[MAINT]),
            checked("drain_slow_chk", "slowstart 1h", &[DRAIN]),
            plain("drain_nochk", "", &[DRAIN]),
            checked("drain_chkup", "", &[DRAIN]),
            failing("drain_chkdown", &[DRAIN]),
            plain("maint_nochk", "", &[MAINT]),
            checked("maint_chkup", "", &[MAINT]),
            failing("maint_chkdown", &[MAINT]),
            plain("maint_after_drain", "", &[DRAIN, MAINT]),
            plain("drain_after_maint", "", &[MAINT, DRAIN]),
            plain("cfgdis_nochk", "disabled", &[]),
            checked("cfgdis_chk", "disabled", &[]),
            checked("cfgdis_thenready", "disabled", &[READY]),
            checked("cfgdis_thendrain", "disabled", &[DRAIN]),
            plain("imaint", "track bt/tmaint", &[]),
            plain("imaint_own_maint", "track bt/tmaint", &[MAINT]),
            plain("imaint_own_drain", "track bt/tmaint", &[DRAIN]),
            plain("idrain", "track bt/tdrain", &[]),
            plain("idrain_own_drain", "track bt/tdrain", &[DRAIN]),
            plain("imaint_cfg", "track bt/tcfgdis", &[]),
            plain("track_up", "track bt/tup", &[]),
            plain("track_down", "track bt/tdown", &[]),
            start("rmaint", dns("failed", check), &[]),
            start("rmaint_nochk", dns("failed", ""), &[]),
            start("rmaint_own_maint", dns("failed", check), &[MAINT]),
            // One address serves only one server of a backend otherwise.
            start("dns_ok", dns("ok", &format!("{check} resolve-opts allow-dup-ip")), &[]),
            plain("w0_cfg", "weight 0", &[]),
            checked("w0_cfg_chk", "weight 0", &[]),
            plain("w0_cli", "", &[WEIGHT_0]),
            plain("w0_cli_drain", "", &[WEIGHT_0, DRAIN]),
            plain("health_down_cli_nochk", "", &["set server {} health down"]),
            plain("health_stopping_cli_nochk", "", &["set server {} health stopping"]),
            checked("health_disabled", "", &["disable health {}"]),
            checked("health_disabled_maint", "", &["disable health {}", MAINT]),
            start("chk404", format!("{} {check}", self.not_found.address()), &[]),
            plain("backup", "backup", &[]),
            agent("agent_drain", "drain", &[]),
            agent("agent_maint", "maint", &[]),
            agent("agent_down", "down", &[]),
            agent("agent_up", "up", &[]),
            agent("agent_ready", "ready", &[]),
            agent("agent_stopped", "stopped", &[]),
            agent("agent_75pct", "75%", &[]),
            Start {
                first: Some(State { admin: 8, op: 2 }),
                ..agent("agent_drain_disabled", "drain", &["disable agent {}"])
            },
            agent("agent_ready_maint", "ready", &[MAINT]),
            agent("agent_up_maint", "up", &[MAINT]),
        ]
    }

    /// A backend for each start state, with a server for each command.
    fn proxies(&self, starts: &[Start], commands: &[String]) -> String {
        let (up, down) = (self.up.address(), self.down.address());
        let mut text = format!(
            "{}\nbackend bt\n    default-server check inter 200ms\n    server tmaint {up}\n    server tdrain {up}\n    \
             server tcfgdis {up} disabled\n    server tup {up}\n    server tdown {down}\n",
            self.dns.resolvers("dns")
        );
        for start in starts {
            let _ = writeln!(text, "\nbackend {}", start.name);
            if start.name == "chk404" {
                text.push_str("    option httpchk GET /health\n    http-check disable-on-404\n");
            }
            for command in commands {
                let _ = writeln!(text, "    server {} {}", server_name(command), start.server);
            }
        }
        text
    }
}

fn server_name(command: &str) -> String {
    command.replace(' ', "_")
}

/// Text of a command of the table.
fn command_text(command: &str, server: &str) -> String {
    match command {
        "ready" | "drain" | "maint" => format!("set server {server} state {command}"),
        "enable" | "disable" => format!("{command} server {server}"),
        "w0" => format!("set server {server} weight 0"),
        "w10" => format!("set server {server} weight 10"),
        "enH" => format!("enable health {server}"),
        "disH" => format!("disable health {server}"),
        "enA" => format!("enable agent {server}"),
        "disA" => format!("disable agent {server}"),
        "h up" => format!("set server {server} health up"),
        "h down" => format!("set server {server} health down"),
        other => panic!("the table has an unknown command {other}"),
    }
}

fn state(row: &crate::support::Row) -> State {
    State { admin: row.admin, op: row.op }
}

fn table_is_what_haproxy_does(haproxy: &Haproxy) -> TestResult {
    // Hundreds of servers with checks: one version at a time, so that a small machine keeps up.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);

    let table = Table::parse(include_str!("../cases/transitions.txt"))?;
    let world = World::new();
    let starts = world.starts();
    let names: Vec<&str> = starts.iter().map(|start| start.name).collect();
    let rows_of_table: Vec<&str> = table.rows.iter().map(|row| row.start.as_str()).collect();
    assert_eq!(names, rows_of_table, "every start state of the table can be built");

    // With one thread hardly a check comes between a command and the `show` on the same line.
    let setup = Setup::new("transitions", &world.proxies(&starts, &table.commands)).global("nbthread 1");
    let instance = setup.start(haproxy);
    prepare(&instance, &starts, &table);
    await_before(&instance, &table);

    let mut seen = BTreeMap::new();
    for (row, command, cell) in table.cells() {
        let server = format!("{}/{}", row.start, server_name(command));
        let expected = cell.on(haproxy.version).ok_or("a cell says nothing of this version")?;
        let mut tries = 1;
        let (at_once, refused) = loop {
            let asked = Instant::now();
            let reply = instance.raw(&format!("{};show servers state {}", command_text(command, &server), row.start));
            let (answer, rest) = reply.split_once("1\n# ").unwrap_or_else(|| panic!("{server}: {reply:?}"));
            let rows = rows(&format!("1\n# {rest}"));
            let at_once = state(&rows[&(row.start.clone(), server_name(command))]);
            let refused = !answer.trim().is_empty();
            // A check or an agent may have come in between, and then what it leads to is seen.
            let is_missed = at_once == expected.later && at_once != expected.at_once;
            if is_missed && asked.elapsed() > AT_ONCE {
                // The machine was slow.
                break (expected.at_once, refused);
            }
            if !is_missed || row.before != expected.later || tries == TRIES {
                break (at_once, refused);
            }
            // It has led back to the start, so that the command can be tried again.
            tries += 1;
        };
        seen.insert((row.start.clone(), command.to_owned()), Outcome { at_once, later: at_once, refused });
    }
    thread::sleep(LATER);
    let end = Instant::now() + (SETTLED - LATER);
    loop {
        // A slow machine may be late with a check or two: what is to stay has stayed, what is to come may come.
        let rows = instance.rows();
        let mut differing = Vec::new();
        for (row, command, cell) in table.cells() {
            let seen = seen.get_mut(&(row.start.clone(), command.to_owned())).expect("every cell was tried");
            seen.later = state(&rows[&(row.start.clone(), server_name(command))]);
            let expected = cell.on(haproxy.version).ok_or("a cell says nothing of this version")?;
            if *seen != expected {
                differing.push(format!("{} | {command}: {seen}, not {expected}", row.start));
            }
        }
        if differing.is_empty() {
            return Ok(());
        }
        assert!(Instant::now() < end, "HAProxy does not do what the table says:\n{}", differing.join("\n"));
        thread::sleep(Duration::from_millis(200));
    }
}

/// Brings all servers on the way into their start states.
fn prepare(instance: &Instance, starts: &[Start], table: &Table) {
    instance.set_state("bt/tmaint", "maint");
    instance.set_state("bt/tdrain", "drain");
    for start in starts {
        for command in &table.commands {
            let name = server_name(command);
            if let Some(first) = start.first {
                instance.await_state(start.name, &name, (first.admin, first.op));
            }
            for command in start.commands {
                instance.set(&command.replace("{}", &format!("{}/{name}", start.name)));
            }
        }
    }
}

/// Waits until every server is as its row of the table says it is before a command.
fn await_before(instance: &Instance, table: &Table) {
    eventually_seen(SETTLED, "the start states", || {
        let rows = instance.rows();
        let statuses = instance.stats("status");
        let mut differing = Vec::new();
        for (row, command, _) in table.cells() {
            let key = (row.start.clone(), server_name(command));
            let (seen, status) = (&rows[&key], &statuses[&key]);
            if (state(seen), seen.weight, status) != (row.before, row.weight, &row.status) {
                differing.push(format!("{}/{}: {} uw={} {status}", row.start, key.1, state(seen), seen.weight));
            }
        }
        if differing.is_empty() { Ok(()) } else { Err(differing) }
    });
}
