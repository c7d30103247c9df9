//! One round after the other until the time is over.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::unistd::{Pid, geteuid};
use serde_json::{Value, json};

use super::dice::Dice;
use super::judge::{Ended, Judged, Round};
use super::reader::{self, Rows};
use super::request::Asked;
use super::stage::{DYNAMIC, SERVERS, Stage, TRACKS};
use super::trouble::{self, Happened, Trouble, What};
use crate::support::{Haproxy, Program, TestResult};

/// How long HAProxy has for what it was sent by a run that has ended.
const SETTLE: Duration = Duration::from_millis(150);

/// How long a process from before a reload may still have clients: `hard-stop-after`, and some time to notice.
const OLD: Duration = Duration::from_millis(2300);

/// When what a killed run has left is gone: ten minutes, until the next run comes.
const LEFT_AFTER: Duration = Duration::from_secs(900);

/// What the environment says.
struct Settings {
    seed: u64,
    /// Only this round, or all from the first.
    round: Option<u64>,
    time: Duration,
}

impl Settings {
    fn read() -> Result<Self, String> {
        let number = |name: &str| match env::var(name) {
            Ok(text) if !text.is_empty() => {
                text.parse::<f64>().map(Some).map_err(|_| format!("{name}={text} is not a number"))
            }
            Ok(_) | Err(_) => Ok(None),
        };
        let whole = |name: &str| match env::var(name) {
            Ok(text) if !text.is_empty() => {
                text.parse::<u64>().map(Some).map_err(|_| format!("{name}={text} is not a number"))
            }
            Ok(_) | Err(_) => Ok(None),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            seed: whole("SEED")?.unwrap_or(now.as_secs()),
            round: whole("ROUND")?,
            time: Duration::from_secs_f64(60.0 * number("MINUTES")?.unwrap_or(0.5)),
        })
    }
}

/// What was done so far.
#[derive(Debug, Default)]
struct Count {
    rounds: u64,
    runs: u64,
    killed: u64,
    failed: u64,
    changed: u64,
    troubles: u64,
    locks: u64,
    /// Rounds on a host that was too busy to judge time-outs, or a HAProxy that was.
    busy: u64,
    reloads: u64,
    owners: u64,
    judged: Judged,
    kinds: BTreeMap<String, u64>,
    /// The largest part of its limit that a run has taken, in percent, and in which round.
    slowest: (u128, u64),
}

pub(crate) fn soak(haproxy: &Haproxy) -> TestResult {
    let settings = Settings::read()?;
    println!("soak of {}: SEED={} for {:?}", haproxy.full_version, settings.seed, settings.time);
    let stage = Stage::start(haproxy);
    let (begin, mut count) = (Instant::now(), Count::default());
    let mut next_news = Duration::from_secs(300);
    for number in settings.round.unwrap_or(0).. {
        let is_over = begin.elapsed() >= settings.time || settings.round.is_some_and(|only| number > only);
        if is_over {
            break;
        }
        let mut story = Vec::new();
        let dice = Dice::of(settings.seed, haproxy.version, number);
        let judgement = catch_unwind(AssertUnwindSafe(|| round(haproxy, &stage, dice, &mut count, &mut story)));
        let judgement = judgement.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
        });
        if let Err(finding) = judgement {
            let seed = settings.seed;
            let again = format!("SEED={seed} ROUND={number} VERSIONS={} make soak", haproxy.name);
            let finding = format!("{finding}\n{}\nagain: {again}\n{count:?}", story.join("\n"));
            // At once: the other versions may go on for an hour.
            println!("finding on {}: {finding}", haproxy.full_version);
            return Err(finding.into());
        }
        if begin.elapsed() >= next_news {
            next_news += Duration::from_secs(300);
            println!("{}: {:?}, no finding: {count:?}", haproxy.name, begin.elapsed());
        }
    }
    let requests = stage.log.total();
    let looks = stage.looks.load(std::sync::atomic::Ordering::Relaxed);
    let finding = nothing_is_left(&stage, count.killed);
    println!(
        "{}: {:?}, {requests} requests of clients, {looks} observations: {count:?}",
        haproxy.name,
        begin.elapsed()
    );
    Ok(finding?)
}

/// One round: a scene, runs and troubles side by side, a judgement.
fn round(
    haproxy: &Haproxy,
    stage: &Stage,
    mut dice: Dice,
    count: &mut Count,
    story: &mut Vec<String>,
) -> Result<(), String> {
    set_the_scene(stage, &mut dice, haproxy);
    let before = stage.rows()?;
    stage.sites.iter().for_each(|site| drop(site.take_samples()));
    stage.log.take();
    let runs = if dice.percent(70) { 1 } else { dice.between(2, 6) };
    let mut asked: Vec<Asked> = (0..runs).map(|_| Asked::draw(&mut dice, stage, runs == 1)).collect();
    asked.sort_by_key(|asked| asked.after);
    let troubles = if dice.percent(30) { 0 } else { dice.between(1, 4) };
    let starts: Vec<Duration> = asked.iter().map(|asked| asked.after).collect();
    let troubles: Vec<Trouble> = (0..troubles).map(|_| Trouble::draw(&mut dice, stage, haproxy, &starts)).collect();
    for asked in &asked {
        story.push(format!(
            "after {:?}{}{}: {}",
            asked.after,
            if asked.by_user { ", by an ordinary user" } else { "" },
            if asked.detailed { ", --detailed-exitcodes" } else { "" },
            asked.request
        ));
    }
    story.extend(troubles.iter().map(ToString::to_string));

    let old: Vec<&'static str> =
        stage.sites.iter().filter(|site| site.was_reloaded_within(OLD)).map(|site| site.name).collect();
    let begin = Instant::now();
    let (mut ended, happened) = carry_out(stage, begin, &asked, &troubles);
    story.extend(happened.story);
    // What is on its way to a server arrives, and what HAProxy still has to do is done.
    thread::sleep(SETTLE);
    let after = stage.rows()?;
    let names: Vec<&'static str> = stage.sites.iter().map(|site| site.name).collect();
    for one in &mut ended {
        let shown = if one.run.stdout.is_empty() { "no report" } else { one.run.stdout.trim_end() };
        story.push(format!("{:?}, code {:?}: {shown} {}", one.to - one.from, one.run.code, one.run.stderr));
        // One that was killed may have written half of it.
        let is_killed = one.run.code.is_none() && !one.run.stdout.ends_with('\n');
        one.report = if is_killed { None } else { Some(one.run.report()) };
        count.runs += 1;
        let part = 100 * (one.to - one.from).as_millis() / one.asked.limit().as_millis();
        count.slowest = count.slowest.max((part, count.rounds));
        match &one.report {
            None => count.killed += 1,
            Some(report) => {
                count.failed += u64::from(report["failed"] == json!(true));
                count.changed += u64::from(report["changed"] == json!(true));
                let kind = report["error"]["kind"].as_str().unwrap_or("done");
                *count.kinds.entry(kind.to_owned()).or_default() += 1;
            }
        }
    }
    for (name, rows) in &after {
        let changed = rows.iter().filter(|(server, row)| before[name].get(*server) != Some(row));
        let changed: Vec<String> =
            changed.map(|(server, row)| format!("{server} {:?} -> {row:?}", before[name].get(server))).collect();
        story.push(format!("{name}: {}", changed.join(", ")));
    }
    let samples = stage.sites.iter().map(|site| (site.name, site.take_samples())).collect();
    count.rounds += 1;
    count.troubles += u64::try_from(troubles.len()).unwrap_or(0);
    let requests = stage.log.take();
    let judged = Round {
        before: &before,
        after: &after,
        samples: &samples,
        requests: &requests,
        troubles: &troubles,
        begun: &happened.begun,
        ended_early: &happened.ended_early,
        names: &names,
        ended: &ended,
        begin,
        end: Instant::now(),
        with_old_processes: &old,
    };
    story.push(format!("the slowest answer to a watcher took {:?}", judged.slowest_answer()));
    let is_quiet = !troubles.iter().any(|it| it.replaces_process() || matches!(it.what, What::Freeze(_)));
    count.busy += u64::from(is_quiet && judged.is_busy());
    judged.judge(&mut count.judged)?;
    what_is_kept(stage)?;
    owners_are_recorded(&judged, count)?;
    nothing_is_locked(stage, &mut dice, count)?;
    for trouble in troubles.iter().filter(|it| it.replaces_process()) {
        stage.sites[trouble.site].note_reload();
    }
    if !troubles.iter().any(Trouble::replaces_process) && dice.percent(60) {
        reload_keeps(stage, &judged, count)?;
    }
    Ok(())
}

/// Sets every server, whatever was before.
fn set_the_scene(stage: &Stage, dice: &mut Dice, haproxy: &Haproxy) {
    let addresses: Vec<u16> = stage.apps.iter().map(|app| app.port.number()).collect();
    for site in &stage.sites {
        let mut commands = Vec::new();
        for server in &SERVERS[..8] {
            let state = match dice.between(0, 100) {
                0..70 => "ready",
                70..85 => "maint",
                _ => "drain",
            };
            let weight = match dice.between(0, 100) {
                0..88 => "100%",
                88..94 => "0",
                _ => "37",
            };
            commands.push(format!("set server {server} state {state}"));
            commands.push(format!("set server {server} weight {weight}"));
            if server.starts_with("app/") {
                commands.push(format!("enable health {server}"));
            }
        }
        for (number, port) in addresses.iter().take(3).enumerate() {
            commands.push(format!("set server web/w{} addr 127.0.0.1 port {port}", number + 1));
        }
        if haproxy.at_least(2, 6) && dice.percent(60) {
            commands.push(format!("set server {DYNAMIC} state maint"));
            commands.push(format!("del server {DYNAMIC}"));
        }
        site.command(&commands.join(";"));
    }
    // A check that has failed must have passed again.
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        let is_up = |rows: &Rows| rows.values().all(|row| row.state() != "ready" || row.op == 2);
        if stage.rows().is_ok_and(|all| all.values().all(is_up)) {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn program(stage: &Stage, asked: &Value, by_user: bool) -> Program {
    match &stage.nobody {
        Some(nobody) if by_user => nobody.request(asked),
        Some(_) | None => Program::request(asked).binary(&stage.program),
    }
}

fn carry_out(stage: &Stage, begin: Instant, asked: &[Asked], troubles: &[Trouble]) -> (Vec<Ended>, Happened) {
    thread::scope(|scope| {
        let mut pids = Vec::new();
        let mut waiting = Vec::new();
        for asked in asked {
            thread::sleep((begin + asked.after).saturating_duration_since(Instant::now()));
            let program = program(stage, &asked.request, asked.by_user);
            let program = if asked.detailed { program.arg("--detailed-exitcodes") } else { program };
            let from = Instant::now();
            let running = program.spawn();
            pids.push(Pid::from_raw(running.pid().try_into().unwrap_or(i32::MAX)));
            waiting.push(scope.spawn(move || {
                let run = running.wait();
                Ended { asked: asked.clone(), run, from, to: Instant::now(), report: None }
            }));
        }
        let happened = trouble::carry_out(stage, begin, troubles, &pids);
        (waiting.into_iter().map(|run| run.join().expect("a run that ends")).collect(), happened)
    })
}

/// Every file that is kept is whole, and nothing else lies beside it.
fn what_is_kept(stage: &Stage) -> Result<(), String> {
    for site in &stage.sites {
        match fs::read_to_string(&site.state_file) {
            Ok(content) => {
                reader::state_file(&content).map_err(|why| format!("{}: {why}", site.state_file.display()))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", site.state_file.display())),
        }
    }
    let own = stage.nobody.as_ref().map(|nobody| nobody.runtime.join("haproxy_server"));
    for folder in own.iter().map(std::path::PathBuf::as_path).chain([Path::new("/run/haproxy_server")]) {
        let file = folder.join("owners.json");
        let content = match fs::read(&file) {
            Ok(content) => content,
            Err(_) => continue,
        };
        let owners: Value = serde_json::from_slice(&content).map_err(|error| format!("{}: {error}", file.display()))?;
        if !owners["records"].is_array() {
            return Err(format!("{}: {owners}", file.display()));
        }
    }
    Ok(())
}

/// Who has taken a server out is on record, as long as it is out.
fn owners_are_recorded(round: &Round<'_>, count: &mut Count) -> Result<(), String> {
    let [only] = round.ended else { return Ok(()) };
    let Some(report) = only.report.as_ref().filter(|report| report["failed"] == json!(false)) else { return Ok(()) };
    let is_out = matches!(only.asked.state(), Some("maint" | "drain"));
    if !is_out || only.asked.by_user || only.asked.is_dry_run() || !only.asked.has("owner") || !geteuid().is_root() {
        return Ok(());
    }
    let content = fs::read("/run/haproxy_server/owners.json").unwrap_or_default();
    let owners: Value = serde_json::from_slice(&content).map_err(|error| format!("owners.json: {error}"))?;
    for entry in report["servers"].as_array().into_iter().flatten() {
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        let server = format!("{}/{}", text("backend"), text("server"));
        // Whoever has taken it out before stays its owner.
        let is_ours = entry["changed"] == json!(true) && entry["before"]["admin_state"] == "ready";
        if !is_ours || !round.is_undisturbed(text("instance"), &server) {
            continue;
        }
        let listed = only.asked.request["instances"].as_array().into_iter().flatten();
        let socket = listed.filter(|it| it["name"] == entry["instance"]).map(|it| &it["socket"]).next();
        let record = owners["records"].as_array().into_iter().flatten().find(|record| {
            Some(&record["address"]) == socket
                && record["backend"] == entry["backend"]
                && record["server"] == entry["server"]
        });
        count.owners += 1;
        if record.is_none_or(|record| record["owner"] != only.asked.request["owner"]) {
            return Err(format!("{entry}\nhas the record {record:?}"));
        }
    }
    Ok(())
}

/// A run on each instance gets its lock at once.
fn nothing_is_locked(stage: &Stage, dice: &mut Dice, count: &mut Count) -> Result<(), String> {
    for site in &stage.sites {
        let by_user = dice.percent(50) && stage.nobody.is_some();
        let socket = &site.sockets[usize::from(by_user || dice.percent(50))];
        let asked = json!({
            "server": "web/w1", "health": "enabled", "lock_timeout": 0, "syslog": false,
            "instances": [{ "name": site.name, "socket": socket }],
        });
        let run = program(stage, &asked, by_user).run();
        let report = run.report();
        if report["failed"] != json!(false) {
            return Err(format!("after all runs have ended, {asked} fails: {report}"));
        }
        count.locks += 1;
    }
    Ok(())
}

/// What a run has kept in the state file is there after a reload.
fn reload_keeps(stage: &Stage, round: &Round<'_>, count: &mut Count) -> Result<(), String> {
    let [only] = round.ended else { return Ok(()) };
    let Some(report) = only.report.as_ref().filter(|report| report["failed"] == json!(false)) else { return Ok(()) };
    if only.asked.is_dry_run() {
        return Ok(());
    }
    for site in &stage.sites {
        if only.asked.request["state_file"].get(site.name).is_none() {
            continue;
        }
        let before = site.rows()?;
        site.instance().reload();
        site.note_reload();
        let after = site.rows()?;
        count.reloads += 1;
        for entry in report["servers"].as_array().into_iter().flatten().filter(|entry| entry["instance"] == site.name) {
            let text = |field: &str| entry[field].as_str().unwrap_or_default();
            let server = format!("{}/{}", text("backend"), text("server"));
            // Nobody has put it into the configuration, or what somebody else has set into the file.
            // And what it follows may come back as another.
            if [DYNAMIC, TRACKS.0].contains(&server.as_str()) || !round.is_undisturbed(site.name, &server) {
                continue;
            }
            let of = |rows: &Rows| rows.get(&server).map(|row| (row.state(), row.weight));
            if of(&before) != of(&after) {
                return Err(format!(
                    "{entry}\nwas {:?} and is {:?} after a reload",
                    before.get(&server),
                    after.get(&server)
                ));
            }
        }
    }
    Ok(())
}

/// At the end there is nothing but the records, the state files, and what the last runs that were killed have left.
fn nothing_is_left(stage: &Stage, killed: u64) -> Result<(), String> {
    let own = stage.nobody.as_ref().map(|nobody| nobody.runtime.join("haproxy_server"));
    let state = stage.folder.join("state");
    let mut left = 0;
    for folder in own.iter().map(std::path::PathBuf::as_path).chain([state.as_path()]) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "owners.json" || name.ends_with(".state") {
                continue;
            }
            let age = entry.metadata().and_then(|it| it.modified()).map(|it| it.elapsed().unwrap_or_default());
            let is_young = age.is_ok_and(|age| age < LEFT_AFTER);
            if !is_young || !(name.ends_with(".lock") || name.ends_with(".new")) {
                return Err(format!("{name} is left in {}", folder.display()));
            }
            left += 1;
        }
    }
    // A lock for each process, one for its socket, one for the records, and a new file.
    if left > 8 * killed { Err(format!("{left} files are left by {killed} killed runs")) } else { Ok(()) }
}
