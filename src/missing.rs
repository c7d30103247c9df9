//! What it means that a server or backend that was asked for is not there: the four policies of `on_missing`.

use crate::error::{Error, ErrorKind, Result};
use crate::observe::Observation;
use crate::request::{OnMissing, Request};

/// Checks that every listed server and backend is where the request expects it.
///
/// `elsewhere` observes the instances that the request leaves out, and is called only where that matters.
///
/// # Errors
/// Names all that are missing.
pub fn check(
    request: &Request,
    observations: &[&Observation],
    elsewhere: impl FnOnce() -> Vec<Observation>,
) -> Result<()> {
    let is_everywhere = request.on_missing == OnMissing::FailEach;
    let mut missing = Missing::of(request, observations, is_everywhere);
    match request.on_missing {
        OnMissing::Ignore => return Ok(()),
        OnMissing::Fail | OnMissing::FailEach => {}
        OnMissing::ElsewhereOk if missing.is_none() => return Ok(()),
        OnMissing::ElsewhereOk => {
            let others = elsewhere();
            let all: Vec<&Observation> = observations.iter().copied().chain(&others).collect();
            missing = Missing::of(request, &all, false);
        }
    }
    missing.into_result(request)
}

/// The listed names that match nothing.
struct Missing {
    backends: Vec<String>,
    servers: Vec<String>,
}

impl Missing {
    fn of(request: &Request, observations: &[&Observation], is_everywhere: bool) -> Self {
        let is_missing = |is_at: &dyn Fn(&Observation) -> bool| {
            if is_everywhere {
                !observations.iter().all(|observation| is_at(observation))
            } else {
                !observations.iter().any(|observation| is_at(observation))
            }
        };
        let backends = request.backends.iter().enumerate();
        let backends = backends.filter(|(index, _)| {
            is_missing(&|observation| observation.backends_found.get(*index).copied().unwrap_or_default())
        });
        let servers = request.servers.iter().filter(|selector| {
            is_missing(&|observation| {
                let mut servers = observation.servers.iter();
                servers.any(|it| selector.matches(it.backend.as_bytes(), it.server.as_bytes()))
            })
        });
        Self {
            backends: backends.map(|(_, pattern)| format!("'{pattern}'")).collect(),
            servers: servers.map(|selector| format!("'{selector}'")).collect(),
        }
    }

    fn is_none(&self) -> bool {
        self.backends.is_empty() && self.servers.is_empty()
    }

    fn into_result(self, request: &Request) -> Result<()> {
        let where_ = match request.on_missing {
            OnMissing::FailEach => "one of the selected instances has no",
            OnMissing::ElsewhereOk => "no instance of this host has a",
            OnMissing::Fail | OnMissing::Ignore => "no selected instance has a",
        };
        let advice = "correct the name, or set 'on_missing' to 'ignore' where it may be absent";
        if !self.backends.is_empty() {
            let msg = format!("{where_} backend {} with servers; {advice}", self.backends.join(", "));
            return Err(Error::new(ErrorKind::BackendNotFound, msg));
        }
        if self.servers.is_empty() {
            return Ok(());
        }
        let place = match request.backends.as_slice() {
            [] => String::new(),
            [one] => format!(" in the backend '{one}'"),
            _ => " in the listed backends".to_owned(),
        };
        let msg = format!("{where_} server {}{place}; {advice}", self.servers.join(", "));
        Err(Error::new(ErrorKind::ServerNotFound, msg))
    }
}
