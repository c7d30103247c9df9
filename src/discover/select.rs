//! Which instances a request means: those it names, among those that are discovered, or those at the addresses it gives.

use std::path::PathBuf;

use super::{Candidate, Discovery, Origin, discover};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::{Address, InstanceName};
use crate::request::{OnMissing, Request, WantedInstance};
use crate::time::interrupt::Interrupt;

/// One local HAProxy, before it has answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// What the report calls it.
    pub name: InstanceName,
    /// Where it may answer, in the order in which that is tried.
    pub addresses: Vec<Address>,
    /// What it was found by: its configuration, or its address.
    pub origin: String,
    /// How sure it is that it exists.
    pub presence: Presence,
    /// Those of the addresses that are known to be the CLI of its master.
    pub masters: Vec<Address>,
    /// The files of its configuration, where they are known.
    pub files: Vec<PathBuf>,
}

/// How sure it is that an instance exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It was asked for, or its process runs: that it does not answer is a failure.
    Certain,
    /// There is a socket in a usual place: that nothing listens there says that it is none.
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

/// Finds the instances that a request means; what discovery leaves out is a warning where the request leaves it the
/// choice.
///
/// # Errors
/// As [`select`]; also when a signal ends the search.
pub fn choose(request: &Request, signals: &Interrupt, warnings: &mut Vec<String>) -> Result<Selected> {
    let wanted = request.instances.as_deref();
    let names_something = !request.servers.is_empty() || !request.backends.is_empty() || !request.addresses.is_empty();
    let needs_others = request.on_missing == OnMissing::ElsewhereOk && names_something;
    let discovery = if needs_discovery(wanted) || needs_others { discover(signals)? } else { Discovery::default() };
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
/// When a name matches no discovered instance, or when nothing was discovered at all.
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
                addresses: vec![address.clone()],
                origin: address.to_string(),
                presence: Presence::Certain,
                masters: Vec::new(),
                files: Vec::new(),
            }),
            WantedInstance::Named(name) => {
                let named = discovered.iter().filter(|instance| instance.name == *name);
                let before = chosen.len();
                chosen.extend(named.cloned().map(|instance| Site { presence: Presence::Certain, ..instance }));
                if chosen.len() == before {
                    return Err(unknown(name, &discovered));
                }
            }
        }
    }
    let mut distinct: Vec<Site> = Vec::new();
    for instance in chosen {
        if !distinct.contains(&instance) {
            distinct.push(instance);
        }
    }
    let others =
        discovered.into_iter().filter(|one| !distinct.iter().any(|chosen| chosen.origin == one.origin)).collect();
    Ok(Selected { chosen: distinct, others })
}

impl From<&Candidate> for Site {
    fn from(candidate: &Candidate) -> Self {
        let sockets = || candidate.sockets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        Self {
            name: candidate.name.clone(),
            addresses: candidate.sockets.clone(),
            origin: candidate.config.as_ref().map_or_else(sockets, |config| config.display().to_string()),
            presence: match candidate.origin {
                Origin::Running => Presence::Certain,
                Origin::UsualPlace => Presence::Possible,
            },
            masters: candidate.masters.clone(),
            files: candidate.files.clone(),
        }
    }
}

/// The failure of a request that leaves the instances to discovery where there are none.
#[must_use]
pub fn nothing_runs() -> Error {
    Error::new(
        ErrorKind::InstanceNotFound,
        "no HAProxy was found on this host; start it, or name the address of its stats socket in 'instances'",
    )
}

fn unknown(name: &InstanceName, discovered: &[Site]) -> Error {
    let names: Vec<&str> = discovered.iter().map(|instance| instance.name.as_str()).collect();
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

/// Finds two instances of one name, which no report could tell apart.
///
/// # Errors
/// Shows both.
pub fn check_names<'a>(instances: impl Iterator<Item = &'a Site>) -> Result<()> {
    let mut seen: Vec<&Site> = Vec::new();
    for instance in instances {
        if let Some(other) = seen.iter().find(|other| other.name == instance.name) {
            return Err(Error::new(
                ErrorKind::InstanceAmbiguous,
                format!(
                    "two HAProxy instances are named '{}': {} and {}; give one of them as {{\"name\": …, \"socket\": …}}",
                    instance.name, other.origin, instance.origin
                ),
            )
            .on_instance(instance.name.as_str()));
        }
        seen.push(instance);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str) -> Candidate {
        Candidate {
            name: InstanceName::parse(name).unwrap(),
            config: Some(format!("/etc/haproxy/{name}.cfg").into()),
            pid: Some(1),
            sockets: vec![Address::parse(&format!("/run/haproxy/{name}.sock")).unwrap()],
            masters: Vec::new(),
            origin: Origin::Running,
            files: Vec::new(),
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
    fn no_haproxy_at_all_is_an_error() {
        let none = Discovery { candidates: Vec::new(), warnings: Vec::new() };
        assert_eq!(select(None, &none).unwrap_err().kind, ErrorKind::InstanceNotFound);
    }
}
