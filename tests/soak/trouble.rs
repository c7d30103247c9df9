//! What goes wrong, and what others do, while runs are under way.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};
use std::{fmt, fs};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::dice::Dice;
use super::stage::{DYNAMIC, SERVERS, Stage, TRACKS};
use crate::support::Haproxy;
use crate::support::haproxy::freeze;

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// HAProxy stops for a while.
    Freeze(Duration),
    /// It is killed, and started again after a while.
    Kill(Duration),
    Reload,
    /// Somebody else sets a server: with these commands.
    Command {
        server: String,
        line: String,
    },
    /// The health check of a server fails for a while.
    Sick {
        app: usize,
        time: Duration,
    },
    /// A run gets a signal.
    Signal {
        run: usize,
        signal: Signal,
    },
}

/// Something that happens to an instance, so long after the beginning of the round.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) after: Duration,
    pub(crate) site: usize,
    pub(crate) what: What,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {:?}, at instance {}: {:?}", self.after, self.site, self.what)
    }
}

impl Trouble {
    pub(crate) fn draw(dice: &mut Dice, stage: &Stage, haproxy: &Haproxy, starts: &[Duration]) -> Self {
        let milliseconds = |dice: &mut Dice, to: u64| Duration::from_millis(dice.between(0, to));
        let run = usize::try_from(dice.between(0, starts.len() as u64)).unwrap_or(0);
        // Most runs take some 10 ms, and those that wait for something take longer.
        let to = match dice.between(0, 10) {
            0..5 => 25,
            5..8 => 120,
            _ => 900,
        };
        let after = starts[run] + milliseconds(dice, to);
        let what = match dice.between(0, 100) {
            0..14 => What::Freeze(milliseconds(dice, 2500)),
            14..22 => What::Kill(milliseconds(dice, 700)),
            22..36 => What::Reload,
            36..48 => What::Signal { run, signal: Signal::SIGTERM },
            48..60 => What::Signal { run, signal: Signal::SIGKILL },
            60..66 => What::Sick { app: dice.one(&[0, 1, 2, 3]), time: milliseconds(dice, 1500) },
            66..74 if haproxy.at_least(2, 6) => dynamic(dice, stage),
            66..82 => {
                let port = dice.one(&stage.apps.iter().map(|app| app.port.number()).collect::<Vec<_>>());
                let server = dice.one(&["web/w1", "web/w2", "web/w3"]);
                let line = format!("set server {server} addr 127.0.0.1 port {port}");
                What::Command { server: server.to_owned(), line }
            }
            _ => {
                let server = dice.one(&SERVERS[..8]);
                let line = match dice.between(0, 10) {
                    0..8 => format!("set server {server} state {}", dice.one(&["ready", "drain", "maint"])),
                    _ => format!("set server {server} weight {}", dice.one(&["0", "10", "100%"])),
                };
                What::Command { server: server.to_owned(), line }
            }
        };
        Self { after, site: dice.one(&[0, 1, 2]), what }
    }

    /// Whether the process itself, and so each of its servers, is concerned.
    pub(crate) fn replaces_process(&self) -> bool {
        matches!(self.what, What::Kill(_) | What::Reload)
    }

    /// Whether somebody else sets this server, or one that it follows.
    pub(crate) fn sets(&self, server: &str) -> bool {
        let What::Command { server: set, .. } = &self.what else { return false };
        set == server || (server == TRACKS.0 && set == TRACKS.1)
    }
}

fn dynamic(dice: &mut Dice, stage: &Stage) -> What {
    let add = format!("add server {DYNAMIC} 127.0.0.1:{} weight 100", stage.apps[4].port.number());
    let line = match dice.between(0, 3) {
        0 => add,
        1 => format!("{add};set server {DYNAMIC} state ready"),
        _ => format!("set server {DYNAMIC} state maint;del server {DYNAMIC}"),
    };
    What::Command { server: DYNAMIC.to_owned(), line }
}

/// A step of a trouble, at its time.
enum Step {
    Begin(usize),
    Thaw { site: usize, pid: Pid },
    Start { site: usize },
    Heal { app: usize },
}

/// What has happened.
#[derive(Debug, Default)]
pub(crate) struct Happened {
    /// When each trouble began, by its number; one that could not happen is not among them.
    pub(crate) begun: BTreeMap<usize, Instant>,
    /// The runs that got SIGTERM before they held it back, so that it ended them.
    pub(crate) ended_early: BTreeSet<usize>,
    /// All of it, for people.
    pub(crate) story: Vec<String>,
}

/// Carries all of it out, and mends what is broken at the end.
pub(crate) fn carry_out(stage: &Stage, begin: Instant, troubles: &[Trouble], pids: &[Pid]) -> Happened {
    let mut due: Vec<(Duration, Step)> =
        troubles.iter().enumerate().map(|(number, it)| (it.after, Step::Begin(number))).collect();
    let mut frozen: Vec<(usize, Pid)> = Vec::new();
    let mut dead = [false; 3];
    let mut happened = Happened::default();
    while !due.is_empty() {
        let next = (0..due.len()).min_by_key(|index| due[*index].0).unwrap_or(0);
        let (at, step) = due.swap_remove(next);
        thread::sleep((begin + at).saturating_duration_since(Instant::now()));
        let from = begin.elapsed();
        let said = match step {
            Step::Begin(number) => {
                let trouble = &troubles[number];
                let is_frozen = frozen.iter().any(|(site, _)| *site == trouble.site);
                let needs_process = !matches!(trouble.what, What::Signal { .. } | What::Sick { .. });
                if needs_process && (dead[trouble.site] || is_frozen) {
                    continue;
                }
                happened.begun.insert(number, Instant::now());
                match begin_one(stage, trouble, pids, begin) {
                    Begun::Nothing => {}
                    Begun::Early(run) => drop(happened.ended_early.insert(run)),
                    Begun::Frozen(pid, until) => {
                        frozen.push((trouble.site, pid));
                        due.push((until, Step::Thaw { site: trouble.site, pid }));
                    }
                    Begun::Dead(until) => {
                        dead[trouble.site] = true;
                        due.push((until, Step::Start { site: trouble.site }));
                    }
                    Begun::Sick(app, until) => due.push((until, Step::Heal { app })),
                }
                format!("{:?} at {}", trouble.what, stage.sites[trouble.site].name)
            }
            Step::Thaw { site, pid } => {
                frozen.retain(|(frozen, _)| *frozen != site);
                let _ = kill(pid, Signal::SIGCONT);
                format!("{} continues", stage.sites[site].name)
            }
            Step::Start { site } => {
                stage.sites[site].instance().start_again();
                dead[site] = false;
                format!("{} has started again", stage.sites[site].name)
            }
            Step::Heal { app } => {
                stage.apps[app].set_healthy(true);
                format!("server {app} is healthy again")
            }
        };
        happened.story.push(format!("{from:?} to {:?}: {said}", begin.elapsed()));
    }
    happened
}

enum Begun {
    Nothing,
    /// A run got a signal that it did not hold back yet.
    Early(usize),
    Frozen(Pid, Duration),
    Dead(Duration),
    Sick(usize, Duration),
}

fn begin_one(stage: &Stage, trouble: &Trouble, pids: &[Pid], begin: Instant) -> Begun {
    let site = &stage.sites[trouble.site];
    match &trouble.what {
        What::Freeze(time) => {
            let pid = Pid::from_raw(site.instance().pid());
            freeze(pid);
            return Begun::Frozen(pid, begin.elapsed() + *time);
        }
        What::Kill(time) => {
            site.instance().kill();
            return Begun::Dead(begin.elapsed() + *time);
        }
        What::Sick { app, time } => {
            stage.apps[*app].set_healthy(false);
            return Begun::Sick(*app, begin.elapsed() + *time);
        }
        What::Reload => site.instance().reload(),
        What::Command { line, .. } => drop(site.command(line)),
        What::Signal { run, signal } => {
            let Some(pid) = pids.get(*run) else { return Begun::Nothing };
            let is_early = !holds_back(*pid, *signal);
            let _ = kill(*pid, *signal);
            if is_early {
                return Begun::Early(*run);
            }
        }
    }
    Begun::Nothing
}

/// Tells whether a process has blocked a signal.
fn holds_back(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let blocked = blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    blocked & (1 << (signal as u32 - 1)) != 0
}
