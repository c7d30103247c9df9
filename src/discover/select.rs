//! Which instances a request means: those it names among the discovered ones, or those at the addresses it gives.

use std::sync::Arc;

use super::{Candidate, Configured, Discovery, Extent, Origin, StateFileRules, discover};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::{Address, InstanceName};
use crate::request::{OnMissing, Request, WantedInstance};
use crate::time::interrupt::Interrupt;

/// One local HAProxy, before it has answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// What the report calls it.
    pub name: InstanceName,
    /// The process that was found, where one was.
    pub pid: Option<u32>,
    /// Where it may answer, in the order of attempts.
    pub addresses: Vec<Address>,
    /// How it was found: its configuration, or its address.
    pub origin: String,
    /// How sure it is that it exists.
    pub presence: Presence,
    /// Those of the addresses that are known to be the CLI of its master.
    pub masters: Vec<Address>,
    /// Which state files its configuration loads, where that is known.
    pub state_files: Option<Arc<StateFileRules>>,
    /// Where its configuration has its servers, for a request that keeps state files.
    pub servers: Option<Arc<Configured>>,
}

/// How sure it is that an instance exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It was requested, or its process runs: no answer is a failure.
    Certain,
    /// There is a socket that may be its: that nothing listens there says that it is not one.
    Possible,
}

/// The instances of a request, and those of the host that it leaves out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Selected {
    /// Those that the request means, in its order.
    pub chosen: Vec<Site>,
    /// The others that were discovered.
    pub others: Vec<Site>,
}

/// Finds the instances that a request means; whatever discovery leaves out is a warning if the request leaves the
/// choice to it.
///
/// # Errors
/// As [`select`]; also when a signal ends the search.
pub fn choose(request: &Request, signals: &Interrupt, warnings: &mut Vec<String>) -> Result<Selected> {
    let wanted = request.instances.as_deref();
    let names_something = !request.servers.is_empty() || !request.backends.is_empty();
    let needs_others = request.on_missing == OnMissing::ElsewhereOk && names_something;
    // Whoever names an instance means it.
    let ignored = if wanted.is_none() { request.ignore_instances.as_slice() } else { &[] };
    let extent = if request.state_file.is_some() { Extent::Servers } else { Extent::Instances };
    let discovery = if needs_discovery(wanted) || needs_others {
        discover(ignored, extent, signals)?
    } else {
        Discovery::default()
    };
    let selected = select(wanted, &discovery);
    if wanted.is_none() || selected.is_err() {
        warnings.extend(discovery.warnings);
    }
    selected
}

/// Tells whether a request needs to know which instances this host has.
#[must_use]
pub fn needs_discovery(wanted: Option<&[WantedInstance]>) -> bool {
    wanted.is_none_or(|wanted| wanted.iter().any(|instance| matches!(instance, WantedInstance::Named(_))))
}

/// Chooses among the discovered instances.
///
/// # Errors
/// When a name is none of those that were discovered or stands for several, or when nothing was discovered at all.
pub fn select(wanted: Option<&[WantedInstance]>, discovery: &Discovery) -> Result<Selected> {
    let discovered: Vec<Site> = discovery.candidates.iter().map(Site::from).collect();
    let Some(wanted) = wanted else {
        if discovered.is_empty() {
            return Err(nothing_runs());
        }
        return Ok(Selected { chosen: discovered, others: Vec::new() });
    };
    let mut chosen: Vec<Site> = Vec::new();
    for instance in wanted {
        match instance {
            WantedInstance::At(name, address) => chosen.push(Site {
                name: name.clone(),
                pid: None,
                addresses: vec![address.clone()],
                origin: address.to_string(),
                presence: Presence::Certain,
                masters: Vec::new(),
                state_files: None,
                servers: None,
            }),
            WantedInstance::Named(name) => {
                let named = named(name, &discovery.candidates)?;
                let certain = |one| Site { presence: Presence::Certain, ..Site::from(one) };
                chosen.extend(named.into_iter().map(certain));
            }
        }
    }
    let mut distinct: Vec<Site> = Vec::new();
    for instance in chosen {
        if !distinct.contains(&instance) {
            distinct.push(instance);
        }
    }
    let is_chosen = |one: &Site| distinct.iter().any(|chosen| (&chosen.origin, chosen.pid) == (&one.origin, one.pid));
    let others = discovered.into_iter().filter(|one| !is_chosen(one)).collect();
    Ok(Selected { chosen: distinct, others })
}

/// Finds the candidates of a name: those that have it, or else those that would have it if they were alone.
///
/// All processes of one configuration are meant.
fn named<'a>(name: &InstanceName, candidates: &'a [Candidate]) -> Result<Vec<&'a Candidate>> {
    let by_name: Vec<&Candidate> = candidates.iter().filter(|one| one.name == *name).collect();
    let found: Vec<&Candidate> = if by_name.is_empty() {
        candidates.iter().filter(|one| one.plain_name == *name).collect()
    } else {
        let is_twin =
            |one: &&Candidate| by_name.contains(one) || by_name.iter().any(|other| is_one_configuration(one, other));
        candidates.iter().filter(is_twin).collect()
    };
    match found.as_slice() {
        [] => Err(unknown(name, candidates)),
        [first, others @ ..] => {
            match others.iter().find(|other| by_name.is_empty() && !is_one_configuration(first, other)) {
                Some(other) => Err(ambiguous(name, &Site::from(*first), &Site::from(*other))),
                None => Ok(found),
            }
        }
    }
}

/// Tells whether both were started with one configuration.
fn is_one_configuration(one: &Candidate, other: &Candidate) -> bool {
    one.plain_name == other.plain_name && one.config.is_some() && one.config == other.config
}

impl From<&Candidate> for Site {
    fn from(candidate: &Candidate) -> Self {
        let sockets = || candidate.sockets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        Self {
            name: candidate.name.clone(),
            pid: candidate.pid,
            addresses: candidate.sockets.clone(),
            origin: candidate.config.as_ref().map_or_else(sockets, |config| config.display().to_string()),
            presence: match candidate.origin {
                Origin::Running => Presence::Certain,
                Origin::Guess | Origin::Stranger => Presence::Possible,
            },
            masters: candidate.masters.clone(),
            state_files: candidate.state_files.clone(),
            servers: candidate.servers.clone(),
        }
    }
}

/// The error if a request leaves the instances to discovery and there are none.
#[must_use]
pub fn nothing_runs() -> Error {
    Error::new(
        ErrorKind::InstanceNotFound,
        "no HAProxy was found on this host; start it, or name the address of its stats socket in 'instances'",
    )
}

fn unknown(name: &InstanceName, discovered: &[Candidate]) -> Error {
    let names: Vec<&str> = discovered.iter().map(|one| one.name.as_str()).collect();
    let known = if names.is_empty() {
        "no HAProxy was found on this host".to_owned()
    } else {
        format!("this host has {}", names.join(", "))
    };
    Error::new(
        ErrorKind::InstanceNotFound,
        format!(
            "no HAProxy instance is named '{name}': {known}; correct the name, or give the address of its stats socket"
        ),
    )
    .on_instance(name.as_str())
}

/// Finds two instances with the same name, which no report could tell apart.
///
/// # Errors
/// Names both.
pub fn check_names<'a>(instances: impl Iterator<Item = &'a Site>) -> Result<()> {
    let mut seen: Vec<&Site> = Vec::new();
    for instance in instances {
        if let Some(other) = seen.iter().find(|other| other.name == instance.name) {
            return Err(ambiguous(&instance.name, other, instance));
        }
        seen.push(instance);
    }
    Ok(())
}

fn ambiguous(name: &InstanceName, one: &Site, other: &Site) -> Error {
    let shown = |instance: &Site| match instance.name == *name {
        true => instance.origin.clone(),
        false => format!("{} ({})", instance.name, instance.origin),
    };
    let choose = if one.name == other.name { "" } else { "use one of these names, or " };
    Error::new(
        ErrorKind::InstanceAmbiguous,
        format!(
            "two HAProxy instances are named '{name}': {} and {}; {choose}give one of them as {{\"name\": …, \"socket\": …}}",
            shown(one),
            shown(other)
        ),
    )
    .on_instance(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str) -> Candidate {
        Candidate {
            name: InstanceName::parse(name).unwrap(),
            plain_name: InstanceName::parse(name).unwrap(),
            start: 0,
            config: Some(format!("/etc/haproxy/{name}.cfg").into()),
            pid: Some(1),
            sockets: vec![Address::parse(&format!("/run/haproxy/{name}.sock")).unwrap()],
            masters: Vec::new(),
            origin: Origin::Running,
            state_files: None,
            servers: None,
        }
    }

    fn host() -> Discovery {
        Discovery { candidates: ["http", "ldap"].map(candidate).into(), warnings: Vec::new() }
    }

    fn named(name: &str) -> WantedInstance {
        WantedInstance::Named(InstanceName::parse(name).unwrap())
    }

    #[test]
    fn a_name_selects_among_the_discovered() {
        let selected = select(Some(&[named("ldap"), named("ldap")]), &host()).unwrap();
        assert_eq!(selected.chosen.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["ldap"]);
        assert_eq!(selected.others.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["http"]);
    }

    #[test]
    fn an_unknown_name_shows_the_known_ones() {
        let error = select(Some(&[named("htp")]), &host()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InstanceNotFound);
        assert!(error.msg.contains("this host has http, ldap"), "{error}");
    }

    #[test]
    fn two_of_one_name_are_both_shown() {
        let mut host = host();
        host.candidates.extend([candidate("http")]);
        let selected = select(None, &host).unwrap();
        let error = check_names(selected.chosen.iter()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InstanceAmbiguous);
    }

    #[test]
    fn a_name_that_several_would_have_is_ambiguous_and_one_configuration_is_not() {
        let of = |name: &str, config: &str, pid: u32| Candidate {
            plain_name: InstanceName::parse("web").unwrap(),
            config: Some(config.into()),
            pid: Some(pid),
            ..candidate(name)
        };
        let host = Discovery {
            candidates: vec![of("a", "/a/web.cfg", 1), of("b", "/b/web.cfg", 2), of("b-3", "/b/web.cfg", 3)],
            warnings: Vec::new(),
        };
        let pids = |name: &str| -> Vec<u32> {
            select(Some(&[named(name)]), &host).unwrap().chosen.iter().filter_map(|one| one.pid).collect()
        };
        assert_eq!((pids("a"), pids("b")), (vec![1], vec![2, 3]));
        let error = select(Some(&[named("web")]), &host).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InstanceAmbiguous);
        assert!(error.msg.contains("a (/a/web.cfg) and b (/b/web.cfg)"), "{error}");
        assert_eq!(select(Some(&[named("b")]), &host).unwrap().others.len(), 1);
    }

    #[test]
    fn no_haproxy_at_all_is_an_error() {
        let none = Discovery { candidates: Vec::new(), warnings: Vec::new() };
        assert_eq!(select(None, &none).unwrap_err().kind, ErrorKind::InstanceNotFound);
    }
}
