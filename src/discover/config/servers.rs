//! Where the configuration has its servers, to find those that HAProxy has elsewhere: a row of a state file overrides a
//! port that has changed in the configuration, and `set server addr` moves a server until the next reload.
//!
//! Nothing is guessed. Variables that are not known, lines within an `.if` that may be taken, duplicate servers, ports relative to the client's, and the
//! addresses of host names never count as a difference. A server that the configuration does not have at all was added or
//! renamed by a command.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use super::condition::Truth;
use super::lexer::Word;

/// The keywords of a proxy that make servers.
pub(super) const KEYWORDS: [&[u8]; 2] = [b"server", b"server-template"];

/// The prefixes of an address that an IP address or a host name follows (`str2sa_range()` in HAProxy's `src/tools.c`).
const FAMILIES: [&str; 4] = ["ipv4@", "ipv6@", "tcp4@", "tcp6@"];

/// Where a server is, as far as that is certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Its address; `None` for a host name.
    ip: Option<IpAddr>,
    /// Its port; `None` if it is relative to the client's.
    port: Option<u16>,
}

impl Place {
    /// Reads an address as a configuration or HAProxy writes it; `None` unless it is an IP address or a host name.
    fn parse(text: &str) -> Option<Self> {
        let text = FAMILIES.iter().find_map(|family| text.strip_prefix(family)).unwrap_or(text);
        if text.contains(['@', '/', '$']) {
            return None;
        }
        // What follows the last colon is the port, also after an IPv6 address without brackets.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            Some(_) | None => (text, None),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_fixed = |port: &&str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self { ip: host.parse().ok(), port: port.filter(is_fixed).and_then(|port| port.parse().ok()) })
    }

    /// Shows this place where it certainly differs from another one.
    fn unlike(&self, other: &Self) -> Option<String> {
        let differ = |one: Option<u16>, other: Option<u16>| one.zip(other).is_some_and(|(one, other)| one != other);
        let port = differ(self.port, other.port).then_some(self.port).flatten();
        match (self.ip, other.ip, port) {
            (Some(ip), Some(elsewhere), port) if ip != elsewhere => Some(match (ip, port.or(self.port)) {
                (IpAddr::V6(ip), Some(port)) => format!("[{ip}]:{port}"),
                (ip, Some(port)) => format!("{ip}:{port}"),
                (ip, None) => ip.to_string(),
            }),
            (_, _, Some(port)) => Some(format!("port {port}")),
            (_, _, None) => None,
        }
    }
}

/// A `server-template` line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Template {
    prefix: Vec<u8>,
    numbers: (u32, u32),
    place: Option<Place>,
}

/// Where the configuration has its servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    /// By backend and server; `None` where the place is uncertain.
    servers: HashMap<(Vec<u8>, Vec<u8>), Option<Place>>,
    /// By backend.
    templates: HashMap<Vec<u8>, Vec<Template>>,
    /// The backends, and whether the names of all of their servers are known.
    backends: HashMap<Vec<u8>, Names>,
}

/// Whether the names of all servers of a backend are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Known,
    Unknown,
}

impl Configured {
    /// Shows where the configuration has a server, if that certainly differs from where HAProxy shows it.
    #[must_use]
    pub fn elsewhere(&self, backend: &str, server: &str, shown: &str) -> Option<String> {
        let key = (backend.as_bytes().to_vec(), server.as_bytes().to_vec());
        let place = match self.servers.get(&key) {
            Some(place) => (*place)?,
            None => self.template(backend.as_bytes(), server.as_bytes())?,
        };
        place.unlike(&Place::parse(shown)?)
    }

    /// Tells whether the configuration has the backend, and certainly not this server in it.
    #[must_use]
    pub fn lacks(&self, backend: &str, server: &str) -> bool {
        let (backend, server) = (backend.as_bytes(), server.as_bytes());
        self.backends.get(backend) == Some(&Names::Known)
            && !self.servers.contains_key(&(backend.to_vec(), server.to_vec()))
            && self.makers(backend, server).next().is_none()
    }

    /// Finds the place of a server that exactly one template makes.
    fn template(&self, backend: &[u8], server: &[u8]) -> Option<Place> {
        let mut makers = self.makers(backend, server);
        let template = makers.next()?;
        template.place.filter(|_| makers.next().is_none())
    }

    /// Returns the templates that make a server of that name.
    fn makers<'a>(&'a self, backend: &'a [u8], server: &'a [u8]) -> impl Iterator<Item = &'a Template> {
        self.templates.get(backend).into_iter().flatten().filter(|template| {
            let number = server.strip_prefix(template.prefix.as_slice()).and_then(number);
            number.is_some_and(|number| (template.numbers.0..=template.numbers.1).contains(&number))
        })
    }

    /// Begins a `backend` or `listen`.
    pub(super) fn backend(&mut self, name: &[u8]) {
        self.backends.entry(name.to_vec()).or_insert(Names::Known);
    }

    /// Takes a line of a backend's section.
    pub(super) fn keyword(&mut self, backend: &[u8], keyword: &[u8], operands: &[Word], live: Truth) {
        let place = |address| place(address).filter(|_| live == Truth::Yes);
        match (keyword, operands) {
            (b"server", [name, address, ..]) => self.server_line(backend, name, place(address)),
            (b"server-template", [prefix, numbers, address, ..]) => {
                self.template_line(backend, prefix, numbers, place(address));
            }
            (_, _) => {}
        }
    }

    /// Records the place of a server; a duplicate makes it uncertain.
    fn server_line(&mut self, backend: &[u8], name: &Word, place: Option<Place>) {
        if name.unknown {
            self.backends.insert(backend.to_vec(), Names::Unknown);
            return;
        }
        match self.servers.entry((backend.to_vec(), name.bytes.clone())) {
            Entry::Occupied(mut twice) => drop(twice.insert(None)),
            Entry::Vacant(first) => drop(first.insert(place)),
        }
    }

    /// Records a template; if its names cannot be known, those of the backend cannot either.
    fn template_line(&mut self, backend: &[u8], prefix: &Word, numbers: &Word, place: Option<Place>) {
        match range(numbers).filter(|_| !prefix.unknown) {
            Some(numbers) => {
                let templates = self.templates.entry(backend.to_vec()).or_default();
                templates.push(Template { prefix: prefix.bytes.clone(), numbers, place });
            }
            None => drop(self.backends.insert(backend.to_vec(), Names::Unknown)),
        }
    }
}

/// Reads the address of a server line.
fn place(word: &Word) -> Option<Place> {
    Place::parse(std::str::from_utf8(&word.bytes).ok().filter(|_| !word.unknown)?)
}

/// Reads the numbers of a template: `3` is `1-3`.
fn range(word: &Word) -> Option<(u32, u32)> {
    let text = Some(word.bytes.as_slice()).filter(|_| !word.unknown)?;
    match text.iter().position(|byte| *byte == b'-') {
        None => Some((1, number(text)?)),
        Some(at) => {
            let (first, last) = text.split_at(at);
            Some((number(first)?, number(last.strip_prefix(b"-")?)?))
        }
    }
}

fn number(text: &[u8]) -> Option<u32> {
    let is_plain = text == b"0" || (!text.starts_with(b"0") && text.iter().all(u8::is_ascii_digit));
    std::str::from_utf8(text).ok().filter(|_| is_plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Reader;
    use super::super::lexer::Environment;
    use super::*;
    use proptest::prelude::*;

    /// Reads a configuration of whose environment nothing is known.
    fn read(files: &[&[u8]]) -> Configured {
        let mut reader = Reader::new(Environment::new(None)).with_servers();
        files.iter().for_each(|file| reader.file(file));
        reader.finish().servers.unwrap()
    }

    fn elsewhere(lines: &str, server: &str, shown: &str) -> Option<String> {
        read(&[lines.as_bytes()]).elsewhere("app", server, shown)
    }

    #[test]
    fn what_certainly_differs_is_said() {
        let table = [
            ("10.0.0.5:80", "10.0.0.5:8080", "port 80"),
            ("10.0.0.5:80", "10.0.0.6:80", "10.0.0.5:80"),
            ("10.0.0.5:80", "10.0.0.6:81", "10.0.0.5:80"),
            ("10.0.0.5", "10.0.0.6:81", "10.0.0.5"),
            ("ipv4@10.0.0.5:80", "10.0.0.5:8080", "port 80"),
            ("web.test:80", "10.0.0.5:8080", "port 80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:8080", "port 80"),
            ("2001:db8::1:80", "[2001:db8::2]:80", "[2001:db8::1]:80"),
        ];
        for (configured, shown, expected) in table {
            let lines = format!("backend app\n  server web1 {configured} check\n");
            assert_eq!(elsewhere(&lines, "web1", shown).as_deref(), Some(expected), "{configured} {shown}");
        }
    }

    #[test]
    fn what_is_the_same_or_not_certain_is_not_said() {
        let table = [
            ("10.0.0.5:80", "10.0.0.5:80"),
            ("10.0.0.5:80", "-"),
            ("10.0.0.5", "10.0.0.5:8080"),
            ("10.0.0.5:+80", "10.0.0.5:8080"),
            ("10.0.0.5:", "10.0.0.5:8080"),
            ("web.test:80", "10.0.0.5:80"),
            ("web.test:80", "web.test:80"),
            ("2001:DB8::0:1:80", "[2001:db8::1]:80"),
            ("*:80", "10.0.0.5:80"),
            ("\"$HOST:81\"", "10.0.0.5:80"),
            ("10.0.0.5:$PORT", "10.0.0.5:80"),
            ("unix@/run/app.sock", "10.0.0.5:80"),
            ("/run/app.sock", "10.0.0.5:80"),
            ("_http._tcp.web.test", "10.0.0.5:80"),
        ];
        for (configured, shown) in table {
            let lines = format!("backend app\n  server web1 {configured}\n");
            assert_eq!(elsewhere(&lines, "web1", shown), None, "{configured} {shown}");
        }
        let line = "  server web1 10.0.0.5:80\n";
        for lines in [
            String::new(),
            format!("backend app\n{line}{line}"),
            format!("backend app\n.if defined(X)\n{line}.endif\n"),
            format!("backend other\n{line}"),
            format!("backend app\npeers app\n{line}"),
            format!("backend app\nring app\n{line}"),
            format!("backend \"$APP\"\n{line}"),
            format!("#backend app\n{line}"),
        ] {
            assert_eq!(elsewhere(&lines, "web1", "10.0.0.5:8080"), None, "{lines}");
        }
    }

    #[test]
    fn templates_make_servers() {
        let lines = "listen app\n  server-template web 2-3 10.0.0.5:80\n  server-template db 2 10.0.0.5:81\n";
        for (server, expected) in [
            ("web1", None),
            ("web2", Some("port 80")),
            ("web3", Some("port 80")),
            ("web4", None),
            ("web02", None),
            ("db1", Some("port 81")),
            ("db", None),
        ] {
            assert_eq!(elsewhere(lines, server, "10.0.0.5:8080").as_deref(), expected, "{server}");
        }
        let twice = format!("{lines}  server-template web 3-4 10.0.0.5:82\n");
        assert_eq!(elsewhere(&twice, "web3", "10.0.0.5:8080"), None);
    }

    #[test]
    fn a_server_that_is_certainly_not_there_is_lacking() {
        let lines = "backend app\n  server web1 10.0.0.5:80\n  server-template db 2 10.0.0.5:81\nbackend empty\n";
        let lacks = |lines: &str, backend, server| read(&[lines.as_bytes()]).lacks(backend, server);
        for (backend, server, expected) in [
            ("app", "web1", false),
            ("app", "web2", true),
            ("app", "db2", false),
            ("app", "db3", true),
            ("empty", "web1", true),
            ("unknown", "web1", false),
        ] {
            assert_eq!(lacks(lines, backend, server), expected, "{backend}/{server}");
        }
        for more in
            ["  server \"$NAME\" 10.0.0.5:80\n", "  server-template \"$N\" 2 :80\n", "  server-template x \"$N\" :80\n"]
        {
            assert!(!lacks(&format!("{lines}backend app\n{more}"), "app", "web2"), "{more}");
        }
        assert!(!lacks("backend app\n.if x\n  server web2 10.0.0.5:80\n.endif\n", "app", "web2"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>(), text in "(backend a\n)?(server|server-template| |1|-|:|@|[\\[\\]]|\n){0,60}", shown in any::<String>()) {
            let configured = read(&[bytes.as_slice(), text.as_bytes()]);
            let _ = (configured.elsewhere("a", "1", &shown), configured.lacks("a", "1"));
        }
    }
}
