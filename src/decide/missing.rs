//! What a listed server or backend that does not exist means: the four policies of `on_missing`.

use std::collections::BTreeSet;

use crate::haproxy::observe::{Observation, Sought};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::matcher::Matcher;
use crate::model::name::{Pattern, Selector, ServerAddress, nearest};
use crate::model::server::Server;
use crate::request::{OnMissing, Request};

/// What an instance has of the names in a request.
#[derive(Debug, Clone)]
pub struct Found<'a> {
    /// Its servers that matched.
    pub servers: Vec<&'a Server>,
    /// Which of the listed backends exist, even without such a server.
    pub backends: &'a [bool],
}

impl<'a> From<&'a Observation> for Found<'a> {
    fn from(observation: &'a Observation) -> Self {
        Self { servers: observation.servers.iter().collect(), backends: &observation.rest.backends_found }
    }
}

/// Checks that every listed server, backend and address is where the request expects it.
///
/// `elsewhere` observes the instances that the request leaves out, and `names` reads the names that there are; both are
/// called only if needed.
///
/// # Errors
/// Names everything that is missing, each with the closest known name.
pub fn check(
    request: &Request,
    found: &[Found<'_>],
    elsewhere: impl FnOnce() -> Vec<Observation>,
    names: impl FnOnce(Sought) -> BTreeSet<String>,
) -> Result<()> {
    let mut missing = Missing::of(request, found);
    match request.on_missing {
        OnMissing::Ignore => return Ok(()),
        OnMissing::Fail | OnMissing::FailEach => {}
        OnMissing::ElsewhereOk if missing.is_none() => return Ok(()),
        OnMissing::ElsewhereOk => {
            let others = elsewhere();
            let all: Vec<Found<'_>> = found.iter().cloned().chain(others.iter().map(Found::from)).collect();
            missing = Missing::of(request, &all);
        }
    }
    if missing.is_none() { Ok(()) } else { Err(missing.into_error(request, names)) }
}

/// Finds which of the listed servers an instance has.
fn servers_of(matcher: &Matcher<'_>, request: &Request, found: &Found<'_>) -> Vec<bool> {
    let mut marks = vec![false; request.servers.len()];
    if marks.is_empty() {
        return marks;
    }
    for server in &found.servers {
        matcher.mark_servers(server.backend.as_bytes(), server.server.as_bytes(), &mut marks);
    }
    marks
}

/// Finds which of the listed addresses an instance has.
fn addresses_of(matcher: &Matcher<'_>, request: &Request, found: &Found<'_>) -> Vec<bool> {
    let mut marks = vec![false; request.addresses.len()];
    if marks.is_empty() {
        return marks;
    }
    for (host, port) in found.servers.iter().map(|server| server.host_and_port()) {
        matcher.mark_addresses(host, port, &mut marks);
    }
    marks
}

/// Returns what is not where it must be: on some instance, or on each.
fn unmarked<'r, T>(on_missing: OnMissing, listed: &'r [T], marks: &[impl AsRef<[bool]>]) -> Vec<&'r T> {
    let is_there = |place: usize| {
        let mut marks = marks.iter().map(|marks| marks.as_ref().get(place).copied().unwrap_or_default());
        match on_missing {
            OnMissing::FailEach => marks.all(|it| it),
            OnMissing::Fail | OnMissing::ElsewhereOk | OnMissing::Ignore => marks.any(|it| it),
        }
    };
    listed.iter().enumerate().filter(|(place, _)| !is_there(*place)).map(|(_, it)| it).collect()
}

/// The listed names and addresses that match nothing.
struct Missing<'r> {
    backends: Vec<&'r Pattern>,
    servers: Vec<&'r Selector>,
    addresses: Vec<&'r ServerAddress>,
}

/// Writes a name that is missing, and the one that was probably meant.
fn with_nearest<'n>(missing: &str, wanted: &Pattern, names: impl Iterator<Item = &'n str>) -> String {
    // Another number is another server, not a typo.
    let digits = |name: &str| name.chars().filter(char::is_ascii_digit).collect::<String>();
    let near = wanted.literal().and_then(|wanted| {
        let number = digits(wanted);
        nearest(wanted, names.filter(|name| digits(name) == number))
    });
    // It is there, but not at an address that is meant.
    let near = near.filter(|near| *near != missing);
    near.map_or_else(|| format!("'{missing}'"), |near| format!("'{missing}' (did you mean '{near}'?)"))
}

impl<'r> Missing<'r> {
    fn of(request: &'r Request, found: &[Found<'_>]) -> Self {
        let matcher = Matcher::new(request.selection());
        let servers: Vec<Vec<bool>> = found.iter().map(|found| servers_of(&matcher, request, found)).collect();
        let addresses: Vec<Vec<bool>> = found.iter().map(|found| addresses_of(&matcher, request, found)).collect();
        let backends: Vec<&[bool]> = found.iter().map(|found| found.backends).collect();
        Self {
            backends: unmarked(request.on_missing, &request.backends, &backends),
            servers: unmarked(request.on_missing, &request.servers, &servers),
            addresses: unmarked(request.on_missing, &request.addresses, &addresses),
        }
    }

    fn is_none(&self) -> bool {
        self.backends.is_empty() && self.servers.is_empty() && self.addresses.is_empty()
    }

    fn into_error(self, request: &Request, names: impl FnOnce(Sought) -> BTreeSet<String>) -> Error {
        let where_ = match request.on_missing {
            OnMissing::FailEach => "one of the selected instances has no",
            OnMissing::ElsewhereOk => "no instance of this host has a",
            OnMissing::Fail | OnMissing::Ignore => "no selected instance has a",
        };
        let advice = "correct the name, or set 'on_missing' to 'ignore' where it may be absent";
        if !self.backends.is_empty() {
            let names = names(Sought::Backends);
            let known = || names.iter().map(String::as_str);
            let shown = self.backends.iter().map(|pattern| with_nearest(pattern.as_str(), pattern, known()));
            let msg = format!("{where_} backend {} with servers; {advice}", shown.collect::<Vec<_>>().join(", "));
            return Error::new(ErrorKind::BackendNotFound, msg);
        }
        let place = match request.backends.as_slice() {
            [] => String::new(),
            [one] => format!(" in the backend '{one}'"),
            _ => " in the listed backends".to_owned(),
        };
        let quoted = |addresses: &mut dyn Iterator<Item = &ServerAddress>| {
            addresses.map(|address| format!("'{address}'")).collect::<Vec<_>>().join(" or ")
        };
        if self.servers.is_empty() {
            let shown = quoted(&mut self.addresses.into_iter());
            let named = match request.servers.as_slice() {
                [] => String::new(),
                [one] => format!(" '{one}'"),
                _ => " of the listed names".to_owned(),
            };
            let advice = "correct the address ('show servers state' has those in force), or set 'on_missing' to 'ignore' where \
                          it may be absent";
            let msg = format!("{where_} server{named} with the address {shown}{place}; {advice}");
            return Error::new(ErrorKind::ServerNotFound, msg);
        }
        let at = match request.addresses.as_slice() {
            [] => String::new(),
            addresses => format!(" with the address {}", quoted(&mut addresses.iter())),
        };
        let advice = match request.addresses.as_slice() {
            [] => advice,
            _ => "correct the name or the address, or set 'on_missing' to 'ignore' where it may be absent",
        };
        let names = names(Sought::Servers);
        let known = || names.iter().map(String::as_str);
        let shown = self.servers.iter().map(|selector| with_nearest(&selector.to_string(), &selector.server, known()));
        let msg = format!("{where_} server {}{at}{place}; {advice}", shown.collect::<Vec<_>>().join(", "));
        Error::new(ErrorKind::ServerNotFound, msg)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::request::Draft;

    fn server(backend: &str, name: &str) -> Server {
        Server { backend: backend.into(), server: name.into(), address: "192.0.2.1:80".into(), ..Server::example() }
    }

    /// What a check says of servers on two instances; each has the listed backends that the servers are in.
    fn said(fields: &Value, on: [&[Server]; 2]) -> String {
        let mut fields = fields.clone();
        fields["state"] = json!("maint");
        let request = Draft::from_json(fields.to_string().as_bytes()).unwrap().check().map_err(|it| it.error).unwrap();
        let has =
            |servers: &[Server], pattern: &Pattern| servers.iter().any(|it| pattern.matches(it.backend.as_bytes()));
        let backends = on.map(|servers| request.backends.iter().map(|it| has(servers, it)).collect::<Vec<_>>());
        let found: Vec<Found<'_>> = on
            .iter()
            .zip(&backends)
            .map(|(servers, backends)| Found { servers: servers.iter().collect(), backends })
            .collect();
        let names = |sought| match sought {
            Sought::Backends | Sought::BackendsWithServers => ["app", "shop"].map(str::to_owned).into(),
            Sought::Servers => ["web1", "web2"].map(str::to_owned).into(),
        };
        check(&request, &found, Vec::new, names).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_there_is_no_error() {
        let (one, other) = ([server("app", "web1")], [server("shop", "web2")]);
        let both = |fields: Value| said(&fields, [&one, &other]);
        for fields in [
            json!({ "server": "web1" }),
            json!({ "server": ["web1", "web2"], "backend": ["app", "shop"] }),
            json!({ "server": "web*", "on_missing": "fail_each" }),
            json!({ "address": "192.0.2.1", "on_missing": "fail_each" }),
            json!({ "server": ["web1", "shop/web2"], "on_missing": "elsewhere_ok" }),
            json!({ "server": "none", "backend": "none", "on_missing": "ignore" }),
        ] {
            assert_eq!(both(fields.clone()), "", "{fields}");
        }
    }

    #[test]
    fn nothing_else_is_asked_where_all_is_there() {
        let fields = json!({ "server": "web1", "state": "maint", "on_missing": "elsewhere_ok" });
        let request = Draft::from_json(fields.to_string().as_bytes()).unwrap().check().map_err(|it| it.error).unwrap();
        let web1 = server("app", "web1");
        let found = [Found { servers: vec![&web1], backends: &[] }];
        check(&request, &found, || panic!("other instances are asked"), |_| panic!("names are asked for")).unwrap();
    }

    #[test]
    fn what_is_missing_is_named_with_what_is_near() {
        let (one, other) = ([server("app", "web1")], [server("shop", "web2")]);
        for (fields, expected) in [
            (
                json!({ "server": "wep1" }),
                "no selected instance has a server 'wep1' (did you mean 'web1'?); correct the name",
            ),
            (json!({ "server": "wep9" }), "no selected instance has a server 'wep9'; correct the name"),
            (
                json!({ "server": ["web1", "mail1", "mail2"] }),
                "no selected instance has a server 'mail1', 'mail2'; correct the name",
            ),
            (
                json!({ "server": "web1", "on_missing": "fail_each" }),
                "one of the selected instances has no server 'web1'; correct the name",
            ),
            (
                json!({ "server": "mail1", "on_missing": "elsewhere_ok" }),
                "no instance of this host has a server 'mail1'; correct",
            ),
            (
                json!({ "server": "web1", "backend": ["apq", "app"] }),
                "no selected instance has a backend 'apq' (did you mean 'app'?) with servers; correct the name",
            ),
            (
                json!({ "server": "mail1", "backend": "app" }),
                "no selected instance has a server 'mail1' in the backend 'app'; correct",
            ),
            (
                json!({ "server": "mail1", "backend": ["app", "shop"] }),
                "no selected instance has a server 'mail1' in the listed backends; correct the name, or",
            ),
            (
                json!({ "address": "192.0.2.9" }),
                "no selected instance has a server with the address '192.0.2.9'; correct the address",
            ),
            (
                json!({ "address": ["192.0.2.8", "192.0.2.9"], "server": "web1", "backend": "app" }),
                "no selected instance has a server 'web1' with the address '192.0.2.8' or '192.0.2.9' in the backend 'app'; correct the address",
            ),
            (
                json!({ "address": "192.0.2.9", "server": ["web1", "web2"] }),
                "no selected instance has a server of the listed names with the address '192.0.2.9'; correct the address",
            ),
            (
                json!({ "address": "192.0.2.1", "server": "mail1" }),
                "no selected instance has a server 'mail1' with the address '192.0.2.1'; correct the name or the address, or",
            ),
        ] {
            let said = said(&fields, [&one, &other]);
            assert!(said.starts_with(expected), "{fields}: {said}");
        }
    }
}
