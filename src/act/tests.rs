//! The work on instances, from permission to rollback, on values alone.

mod anew;
mod course;
mod history;
mod properties;
mod scene;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::carry_out::{carry_out, foresee};
use super::fleet::Fleet;
use super::instance::Instance;
use super::instance::detail_of;
use super::model::{Haproxy, Model, Modelled, Stopwatch, Turn};
use super::permit::permit;
use super::target::Target;
use crate::discover::select::{Presence, Site};
use crate::keep::audit::Audit;
use crate::keep::exclusion::Exclusion;
use crate::keep::ownership::Ownership;
use crate::model::error::{Error, Result};
use crate::model::name::{Address, InstanceName};
use crate::request::{Draft, Request, SystemLog};
use crate::time::interrupt::Interrupt;

/// One HAProxy before a run, and what happens to it meanwhile.
#[derive(Debug, Clone)]
struct Script {
    servers: Vec<Modelled>,
    turns: Vec<Turn>,
    is_endless: bool,
}

/// What has become of one HAProxy.
#[derive(Debug)]
struct Ran {
    targets: Vec<Target>,
    error: Option<Error>,
    undo_error: Option<Error>,
    warnings: Vec<String>,
    haproxy: Option<Haproxy>,
}

impl Ran {
    fn haproxy(&self) -> &Haproxy {
        self.haproxy.as_ref().unwrap()
    }
}

/// What has become of all of them.
#[derive(Debug)]
struct Outcome {
    result: Result<()>,
    took: Duration,
    was_permitted: bool,
    /// What a person was shown meanwhile.
    progress: Vec<String>,
    /// How many steps have sent commands.
    changes: u32,
    instances: Vec<Ran>,
}

fn request(words: &[&str]) -> Request {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    Draft::from_words(&words).unwrap().check().unwrap()
}

fn site(index: usize) -> Site {
    Site {
        name: InstanceName::parse(&format!("i{index}")).unwrap(),
        addresses: vec![Address::parse("/run/haproxy/model.sock").unwrap()],
        origin: String::new(),
        presence: Presence::Certain,
        pid: None,
        masters: Vec::new(),
        state_files: None,
        servers: None,
    }
}

/// Observes a model, and lets its script begin.
fn start<'m>(model: &'m Model, site: &'m Site, script: &Script, request: &'m Request) -> Instance<'m> {
    let detail = detail_of(request, || Ok(false)).unwrap();
    let (observation, asker) = model.begin(detail, script.turns.clone(), script.is_endless);
    Instance::new(site, request, detail, observation, Box::new(asker))
}

/// Does something with an instance that has two servers, before a turn.
fn on_instance(words: &[&str], turn: Turn, act: impl FnOnce(&mut Instance<'_>)) {
    let request = request(words);
    let servers = vec![Modelled::new("a", "s0"), Modelled::new("a", "s1")];
    let script = Script { servers, turns: vec![turn], is_endless: false };
    let model = Model::new(&script.servers, &Arc::new(Stopwatch::default()), &Arc::new(Interrupt::never()));
    act(&mut start(&model, &site(0), &script, &request));
}

/// Carries a request out on models, or predicts what it would do.
fn run(request: &Request, scripts: &[Script]) -> Outcome {
    let (clock, signals) = (Arc::new(Stopwatch::default()), Arc::new(Interrupt::never()));
    let models: Vec<Model> = scripts.iter().map(|script| Model::new(&script.servers, &clock, &signals)).collect();
    let mut outcome = run_on(request, &models, scripts, (&clock, &signals));
    for (ran, model) in outcome.instances.iter_mut().zip(models) {
        ran.haproxy = Some(model.into_inner());
    }
    outcome
}

fn run_on(
    request: &Request,
    models: &[Model],
    scripts: &[Script],
    (clock, signals): (&Stopwatch, &Interrupt),
) -> Outcome {
    let sites: Vec<Site> = (0..scripts.len()).map(site).collect();
    // What changes nothing needs no folder for locks, and this host's log is none of its business.
    let apart = Request { dry_run: true, syslog: SystemLog::NotTold, ..request.clone() };
    let shown = Mutex::new(Vec::new());
    let show = |line: &str| shown.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
    let started = models.iter().zip(&sites).zip(scripts);
    let mut fleet = Fleet {
        instances: started.map(|((model, site), script)| start(model, site, script, request)).collect(),
        progress: &show,
        signals,
        clock,
        exclusion: Exclusion::new(&apart, signals, &|_| {}),
        guard: request.guard,
        audit: Audit::new(&apart),
        last_poll: Duration::ZERO,
        changes: 0,
    };
    let goal = request.goal.unwrap();
    permit(request, goal, &Ownership::default(), &mut fleet);
    let was_permitted = !fleet.has_failed();
    let result = match (was_permitted, request.dry_run) {
        (false, _) => Ok(()),
        (true, false) => carry_out(request, goal, &mut fleet, &mut |_| {}),
        (true, true) => {
            foresee(request, goal, &mut fleet);
            Ok(())
        }
    };
    let ran = |Instance { targets, error, undo_error, warnings, .. }| Ran {
        targets,
        error,
        undo_error,
        warnings,
        haproxy: None,
    };
    let (took, changes) = (clock.passed(), fleet.changes);
    let instances = fleet.instances.into_iter().map(ran).collect();
    let progress = std::mem::take(&mut *shown.lock().unwrap_or_else(PoisonError::into_inner));
    Outcome { result, took, was_permitted, progress, changes, instances }
}
