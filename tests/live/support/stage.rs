//! The standard stage: the instances `http`, `ldap` and `puppet`, in front of real HTTP servers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;

use super::{Folder, Haproxy, HttpBackend, Instance, Mode, Port, Response, Setup, get, get_with};

/// Backends of the instance `puppet`.
pub(crate) const PUPPET_BACKENDS: [&str; 6] = [
    "all_puppet_masters",
    "i0_puppet_masters",
    "i10_puppet_masters",
    "i20_puppet_masters",
    "i24_puppet_masters",
    "i28_puppet_masters",
];

/// Servers of each backend of the instance `puppet`.
pub(crate) const PUPPET_SERVERS: [&str; 3] = ["puppet-i0-svc1", "puppet-i0-svc2", "puppet-i10-svc1"];

/// Servers of the backend `web` of the instance `http`.
pub(crate) const HTTP_SERVERS: [&str; 3] = ["web1", "web2", "web3"];

/// Servers of the backend `directory` of the instance `ldap`.
pub(crate) const LDAP_SERVERS: [&str; 3] = ["ldap1", "ldap2", "ldap3"];

/// Three instances in one folder. Each backend has a frontend on a port of its own, round robin, and the cookie `SRV`
/// (its values are the servers' names).
#[derive(Debug)]
pub(crate) struct Stage {
    // Instances go before the servers behind them.
    pub(crate) http: Instance,
    pub(crate) ldap: Instance,
    pub(crate) puppet: Instance,
    pub(crate) folder: Folder,
    servers: BTreeMap<String, HttpBackend>,
    frontends: BTreeMap<String, Port>,
}

impl Stage {
    /// Starts it with foreground instances without health checks.
    pub(crate) fn start(haproxy: &Haproxy) -> Self {
        Self::start_with(haproxy, "", |setup| setup)
    }

    /// Starts it as masters with workers.
    pub(crate) fn start_master_worker(haproxy: &Haproxy) -> Self {
        Self::start_with(haproxy, "", |setup| setup.mode(Mode::MasterWorker))
    }

    /// Starts it with more words for each server line, as in `check inter 200ms`, and each instance set up further.
    ///
    /// Health checks are `GET /health`.
    pub(crate) fn start_with(haproxy: &Haproxy, server_options: &str, set_up: impl Fn(Setup) -> Setup) -> Self {
        let mut stage = Layout { options: server_options, servers: BTreeMap::new(), frontends: BTreeMap::new() };
        let http = stage.proxies(&["web"], &HTTP_SERVERS);
        let ldap = stage.proxies(&["directory"], &LDAP_SERVERS);
        let puppet = stage.proxies(&PUPPET_BACKENDS, &PUPPET_SERVERS);
        let folder = Folder::new();
        let start = |name, proxies: &str| set_up(Setup::new(name, proxies).folder(&folder)).start(haproxy);
        Self {
            http: start("http", &http),
            ldap: start("ldap", &ldap),
            puppet: start("puppet", &puppet),
            folder: folder.clone(),
            servers: stage.servers,
            frontends: stage.frontends,
        }
    }

    pub(crate) fn instances(&self) -> [&Instance; 3] {
        [&self.http, &self.ldap, &self.puppet]
    }

    /// The HTTP server behind a server name; it is the same one in all backends.
    pub(crate) fn server(&self, name: &str) -> &HttpBackend {
        self.servers.get(name).unwrap_or_else(|| panic!("no server {name} on the stage"))
    }

    /// Address of a backend's frontend.
    pub(crate) fn frontend(&self, backend: &str) -> SocketAddr {
        self.frontends.get(backend).unwrap_or_else(|| panic!("no backend {backend} on the stage")).address()
    }

    /// Sends one request through a backend's frontend.
    pub(crate) fn get(&self, backend: &str) -> Response {
        get(self.frontend(backend), "/").unwrap_or_else(|error| panic!("a request to {backend}: {error}"))
    }

    /// Sends one request as a client that is bound to a server by its cookie.
    pub(crate) fn get_from(&self, backend: &str, server: &str) -> Response {
        get_with(self.frontend(backend), "/", &[("Cookie", &format!("SRV={server}"))])
            .unwrap_or_else(|error| panic!("a request to {backend}: {error}"))
    }

    /// Servers that answer a dozen requests to a backend.
    pub(crate) fn who_answers(&self, backend: &str) -> BTreeSet<String> {
        let answer = |_| {
            let response = self.get(backend);
            assert!(response.status == 200, "{backend} answers {response:?}");
            response.body
        };
        (0..12).map(answer).collect()
    }
}

struct Layout<'a> {
    options: &'a str,
    servers: BTreeMap<String, HttpBackend>,
    frontends: BTreeMap<String, Port>,
}

impl Layout<'_> {
    fn proxies(&mut self, backends: &[&str], servers: &[&str]) -> String {
        let mut text = String::new();
        for backend in backends {
            let port = Port::reserve();
            let _ = writeln!(text, "frontend {backend}_in\n    bind 127.0.0.1:{}", port.number());
            let _ = writeln!(text, "    default_backend {backend}\n\nbackend {backend}\n    balance roundrobin");
            let _ = writeln!(text, "    option httpchk GET /health\n    cookie SRV insert indirect nocache");
            for server in servers {
                let behind = self.servers.entry((*server).to_owned()).or_insert_with(|| HttpBackend::start(server));
                let _ = writeln!(text, "    server {server} {} cookie {server} {}", behind.address(), self.options);
            }
            text.push('\n');
            self.frontends.insert((*backend).to_owned(), port);
        }
        text
    }
}
