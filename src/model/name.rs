//! Names and addresses, checked once at the edge: what passes here is safe to put into a command line.
//!
//! HAProxy allows `A-Z a-z 0-9 _ : . -` in the names of servers and backends (`invalid_char()` in its `src/tools.c`). A
//! [`Pattern`] may also contain wildcards; it is only ever compared, never sent.

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The longest name taken from a request, in bytes; HAProxy's own configuration lines end at 2,048.
pub const NAME_MAX: usize = 1024;

/// The longest path of a Unix socket, in bytes (`sun_path` less its final NUL).
const SOCKET_PATH_MAX: usize = 107;

/// Why a name, pattern or address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("is empty, which never means all")]
    Empty,
    /// It is longer than anything that HAProxy accepts.
    #[error("is {0} bytes long, more than {NAME_MAX}")]
    TooLong(usize),
    /// It contains a character that HAProxy does not allow in names.
    #[error("contains {0:?}; names may contain only A-Z a-z 0-9 _ : . - (and in patterns * ? [ ])")]
    Character(char),
    /// It has more than one `/`.
    #[error("has more than one '/'; a server is named 'server' or 'backend/server'")]
    Slashes,
    /// A `[` has no `]`, or nothing between them.
    #[error("has a '[' without a matching ']' (or with nothing in between)")]
    Class,
    /// The address cannot be connected to.
    #[error("is not an address: {0}")]
    Address(&'static str),
    /// The address of a server is not one that HAProxy shows.
    #[error("is not the address of a server: {0}")]
    ServerAddress(&'static str),
}

/// Tells whether HAProxy allows the byte in the name of a server or backend.
#[must_use]
pub const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'.' | b'-')
}

/// Tells whether the name can be used in a command as it is.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= 2 * NAME_MAX && name.bytes().all(is_name_byte)
}

/// A name, or a pattern to compare names with.
///
/// ```
/// use haproxy_server::model::name::Pattern;
/// let pattern = Pattern::parse("web[1-3]*").unwrap();
/// assert!(pattern.matches(b"web2-blue"));
/// assert!(!pattern.matches(b"web4"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    tokens: Option<Vec<Token>>,
}

/// One step of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    AnyByte,
    AnyRun,
    Class { negated: bool, ranges: Vec<(u8, u8)> },
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(wanted) => *wanted == byte,
            Self::AnyByte | Self::AnyRun => true,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|&(low, high)| low <= byte && byte <= high) != *negated
            }
        }
    }
}

impl Pattern {
    /// Reads a name, or a pattern of `*`, `?` and `[…]` (`[!…]` for all but these).
    ///
    /// # Errors
    /// Refuses text that is empty, too long, has an unclosed class, or a character that HAProxy does not allow in
    /// names.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        let mut is_pattern = false;
        while let Some(sign) = chars.next() {
            let token = match sign {
                '*' => Token::AnyRun,
                '?' => Token::AnyByte,
                '[' => Self::class(&mut chars)?,
                _ => Token::Byte(name_byte(sign)?),
            };
            is_pattern |= !matches!(token, Token::Byte(_));
            tokens.push(token);
        }
        Ok(Self { text: text.to_owned(), tokens: is_pattern.then_some(tokens) })
    }

    /// Reads the rest of a `[…]` class.
    fn class(chars: &mut std::str::Chars<'_>) -> Result<Token, NameError> {
        let (body, after) = chars.as_str().split_once(']').ok_or(NameError::Class)?;
        *chars = after.chars();
        let (negated, body) = match body.strip_prefix(['!', '^']) {
            Some(rest) => (true, rest),
            None => (false, body),
        };
        let bytes = body.chars().map(name_byte).collect::<Result<Vec<u8>, NameError>>()?;
        let mut ranges = Vec::new();
        let mut rest = bytes.as_slice();
        loop {
            rest = match rest {
                [] => break,
                [low, b'-', high, tail @ ..] => {
                    ranges.push((*low, *high));
                    tail
                }
                [one, tail @ ..] => {
                    ranges.push((*one, *one));
                    tail
                }
            };
        }
        if ranges.is_empty() { Err(NameError::Class) } else { Ok(Token::Class { negated, ranges }) }
    }

    /// Returns the pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the only name that the pattern can match, if it has no wildcard.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        if self.tokens.is_none() { Some(&self.text) } else { None }
    }

    /// Tells whether the whole name matches.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        match &self.tokens {
            None => self.text.as_bytes() == name,
            Some(tokens) => glob(tokens, name),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Checks one character of a name.
fn name_byte(sign: char) -> Result<u8, NameError> {
    match u8::try_from(sign) {
        Ok(byte) if is_name_byte(byte) => Ok(byte),
        _ => Err(NameError::Character(sign)),
    }
}

/// Compares with backtracking to the last `*` only, so the time is bounded by the product of both lengths.
fn glob(mut tokens: &[Token], mut name: &[u8]) -> bool {
    let mut retry: Option<(&[Token], &[u8])> = None;
    loop {
        match (tokens, name) {
            ([Token::AnyRun, rest @ ..], _) => {
                retry = Some((rest, name));
                tokens = rest;
            }
            ([token, rest @ ..], [byte, tail @ ..]) if token.takes(*byte) => {
                tokens = rest;
                name = tail;
            }
            ([], []) => return true,
            _ => match retry {
                Some((after_run, [_, tail @ ..])) => {
                    retry = Some((after_run, tail));
                    tokens = after_run;
                    name = tail;
                }
                _ => return false,
            },
        }
    }
}

/// Which servers are meant: a server name or pattern, in every backend or in those that a second pattern names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The backends, if the selector was written as `backend/server`.
    pub backend: Option<Pattern>,
    /// The servers.
    pub server: Pattern,
}

impl Selector {
    /// Reads `server` or `backend/server`, with patterns on each side.
    ///
    /// # Errors
    /// Refuses what [`Pattern::parse`] refuses on either side, and more than one `/`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(server), None, _) => Ok(Self { backend: None, server: Pattern::parse(server)? }),
            (Some(backend), Some(server), None) => {
                Ok(Self { backend: Some(Pattern::parse(backend)?), server: Pattern::parse(server)? })
            }
            _ => Err(NameError::Slashes),
        }
    }

    /// Tells whether the server of that backend is meant.
    #[must_use]
    pub fn matches(&self, backend: &[u8], server: &[u8]) -> bool {
        self.server.matches(server) && self.backend.as_ref().is_none_or(|pattern| pattern.matches(backend))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.backend {
            Some(backend) => write!(f, "{backend}/{}", self.server),
            None => write!(f, "{}", self.server),
        }
    }
}

/// Which address servers must have: an IP address, with a port or with any.
///
/// HAProxy shows no path of a server on a Unix socket, in any version, so that there is nothing to compare a path with.
///
/// ```
/// use haproxy_server::model::name::ServerAddress;
/// let address = ServerAddress::parse("[2001:DB8::1]:80").unwrap();
/// assert!(address.matches("2001:db8:0::1", "80"));
/// assert!(!address.matches("2001:db8::1", "81"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    text: String,
    ip: IpAddr,
    port: Option<u16>,
}

impl ServerAddress {
    /// Reads `10.0.0.5`, `10.0.0.5:8080`, `::1`, `[::1]` or `[::1]:80`.
    ///
    /// # Errors
    /// Refuses Unix paths, names, and what is not an address.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        const NEITHER: NameError = NameError::ServerAddress(
            "write an IP address, with a port where one is meant, such as '10.0.0.5', '10.0.0.5:8080' or '[::1]:80'",
        );
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.starts_with('/') || text.contains('@') {
            return Err(NameError::ServerAddress(
                "HAProxy does not show the path of a server on a Unix socket; select it by its name, with 'server'",
            ));
        }
        if let Ok(ip) = text.parse() {
            return Ok(Self::new(text, ip, None));
        }
        if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            return inner.parse().map(|ip: Ipv6Addr| Self::new(text, ip.into(), None)).map_err(|_| NEITHER);
        }
        let address: SocketAddr = text.parse().map_err(|_| NEITHER)?;
        Ok(Self::new(text, address.ip(), Some(address.port())))
    }

    fn new(text: &str, ip: IpAddr, port: Option<u16>) -> Self {
        // An IPv4 address is the same one in the notation of IPv6.
        Self { text: text.to_owned(), ip: ip.to_canonical(), port }
    }

    /// Returns the IP address; an IPv4 address also where it was written as an IPv6 address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Tells whether a server has it: `host` and `port` are as HAProxy shows them.
    #[must_use]
    pub fn matches(&self, host: &str, port: &str) -> bool {
        host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical() == self.ip)
            && self.port.is_none_or(|wanted| port.parse() == Ok(wanted))
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which servers a request covers.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// The servers; all if it is empty.
    pub servers: &'a [Selector],
    /// The backends; all if it is empty.
    pub backends: &'a [Pattern],
    /// The addresses; any where it is empty.
    pub addresses: &'a [ServerAddress],
}

impl<'a> Selection<'a> {
    /// Returns the only backends that can have selected servers, in order, if the request names them all.
    #[must_use]
    pub fn named_backends(&self) -> Option<Vec<&'a str>> {
        let names: Option<Vec<&str>> = match (self.servers, self.backends) {
            ([], []) => None,
            (servers, []) => servers.iter().map(|selector| selector.backend.as_ref()?.literal()).collect(),
            (_, backends) => backends.iter().map(Pattern::literal).collect(),
        };
        let mut names = names?;
        names.sort_unstable();
        names.dedup();
        Some(names)
    }
}

/// The name of an instance: one local HAProxy behind one stats socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceName(String);

impl InstanceName {
    /// Reads a name that somebody wrote.
    ///
    /// # Errors
    /// Refuses text that is empty, too long, or has a character that HAProxy does not allow in names.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        text.chars().try_for_each(|sign| name_byte(sign).map(drop))?;
        Ok(Self(text.to_owned()))
    }

    /// Derives the name from the path of a configuration or a socket.
    ///
    /// The name is the stem without `haproxy-`. Where that says nothing, it is the name of the nearest folder above that
    /// says something, by the same rule.
    ///
    /// ```
    /// use haproxy_server::model::name::InstanceName;
    /// use std::path::Path;
    /// let name = |path| InstanceName::from_path(Path::new(path)).to_string();
    /// assert_eq!(name("/etc/haproxy/puppet.cfg"), "puppet");
    /// assert_eq!(name("/etc/haproxy-ldap/haproxy.cfg"), "ldap");
    /// assert_eq!(name("/srv/app1/conf/haproxy.cfg"), "app1");
    /// assert_eq!(name("/etc/haproxy/haproxy.cfg"), "haproxy");
    /// ```
    #[must_use]
    pub fn from_path(path: &Path) -> Self {
        let stem = path.file_stem().and_then(Self::from_part).filter(|stem| stem.0 != "haproxy");
        let mut folders = path.ancestors().skip(1).filter_map(Path::file_name);
        stem.or_else(|| folders.find_map(Self::from_part)).unwrap_or_else(|| Self("haproxy".to_owned()))
    }

    /// Returns the name with something behind it that tells several of one name apart.
    #[must_use]
    pub fn qualified(&self, by: &str) -> Self {
        Self(Self::plain(&format!("{}-{by}", self.0)))
    }

    /// Replaces what no name can have.
    fn plain(text: &str) -> String {
        text.chars().map(|sign| name_byte(sign).map_or('_', char::from)).take(NAME_MAX).collect()
    }

    /// Derives a name from one part of a path, if the part says anything of the instance.
    #[must_use]
    pub fn from_part(part: &OsStr) -> Option<Self> {
        const SAYS_NOTHING: [&str; 19] = [
            "admin", "bin", "cfg", "conf", "config", "configs", "etc", "hapee-lb", "lib", "local", "main", "opt",
            "run", "sbin", "socket", "stats", "tmp", "usr", "var",
        ];
        let text = part.to_string_lossy();
        let bare = text.strip_prefix("haproxy-").unwrap_or(&text);
        // `conf.d`, `services.d`: a folder of files.
        if bare.is_empty() || bare.ends_with(".d") || SAYS_NOTHING.contains(&bare) {
            return None;
        }
        Some(Self(Self::plain(bare)))
    }

    /// Derives the name from an address: from the path of a Unix socket, otherwise the address itself.
    #[must_use]
    pub fn from_address(address: &Address) -> Self {
        match address {
            Address::Unix(path) => Self::from_path(path),
            Address::Abstract(name) | Address::AbstractExact(name) => Self::from_path(Path::new(name)),
            Address::Tcp(_) => Self(address.to_string()),
        }
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an instance listens, in HAProxy's own notation (`str2sa_range()` in its `src/tools.c`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A socket in the file system: `/path` or `unix@/path`.
    Unix(PathBuf),
    /// `abns@name`: a socket in the abstract namespace, its name padded with NUL to the full length.
    Abstract(String),
    /// `abnsz@name`: a socket in the abstract namespace, its name not padded (HAProxy 3.1 and later).
    AbstractExact(String),
    /// `ipv4@127.0.0.1:9999`, `ipv6@[::1]:9999`; the caller checks whether it belongs to this host.
    Tcp(SocketAddr),
}

impl Address {
    /// Tells whether the text is an address rather than the name of an instance.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.contains(['/', '@']) || text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    }

    /// Reads an address in HAProxy's notation. A wildcard (`*:9999`, `:9999`, `0.0.0.0:9999`) means loopback.
    ///
    /// # Errors
    /// Refuses relative paths, datagram sockets, inherited file descriptors, host names and port ranges.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_prefix("stream+").unwrap_or(text);
        let Some((kind, rest)) = text.split_once('@').filter(|(kind, _)| !kind.contains('/')) else {
            return if text.starts_with('/') { Self::unix(text) } else { Self::tcp(text, Family::Either) };
        };
        match kind {
            "unix" | "uxst" => Self::unix(rest),
            "abns" => Self::abstract_name(rest).map(Self::Abstract),
            "abnsz" => Self::abstract_name(rest).map(Self::AbstractExact),
            "ipv4" | "tcp4" => Self::tcp(rest, Family::V4),
            "ipv6" | "tcp6" => Self::tcp(rest, Family::V6),
            "ip" | "tcp" => Self::tcp(rest, Family::Either),
            "fd" | "sockpair" => Err(NameError::Address("an inherited file descriptor cannot be connected to")),
            _ => Err(NameError::Address("it does not start with /, unix@, abns@, abnsz@, ipv4@, ipv6@ or tcp@")),
        }
    }

    fn unix(path: &str) -> Result<Self, NameError> {
        if !path.starts_with('/') {
            return Err(NameError::Address("the path of a Unix socket starts with '/'"));
        }
        if path.len() > SOCKET_PATH_MAX {
            return Err(NameError::Address("the path of a Unix socket has at most 107 bytes"));
        }
        if path.chars().any(char::is_control) {
            return Err(NameError::Address("it contains a control character"));
        }
        Ok(Self::Unix(PathBuf::from(path)))
    }

    fn abstract_name(name: &str) -> Result<String, NameError> {
        match name {
            "" => Err(NameError::Address("the name after '@' is empty")),
            _ if name.len() > SOCKET_PATH_MAX => Err(NameError::Address("an abstract name has at most 107 bytes")),
            _ if name.chars().any(char::is_control) => Err(NameError::Address("it contains a control character")),
            _ => Ok(name.to_owned()),
        }
    }

    fn tcp(text: &str, family: Family) -> Result<Self, NameError> {
        let (host, port) = text.rsplit_once(':').ok_or(NameError::Address("the port is missing"))?;
        let port = port.parse().map_err(|_| NameError::Address("the port is not a number from 1 to 65535"))?;
        if port == 0 {
            return Err(NameError::Address("the port is not a number from 1 to 65535"));
        }
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let ip = match (host, family) {
            ("" | "*" | "localhost", Family::V4 | Family::Either) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ("" | "*" | "localhost", Family::V6) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            _ => host.parse().map_err(|_| NameError::Address("the host is not an IP address"))?,
        };
        let ip = match ip {
            IpAddr::V4(any) if any.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(any) if any.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            _ => ip,
        };
        match (family, ip) {
            (Family::V4, IpAddr::V6(_)) | (Family::V6, IpAddr::V4(_)) => {
                Err(NameError::Address("the IP address belongs to the other family"))
            }
            _ => Ok(Self::Tcp(SocketAddr::new(ip, port))),
        }
    }
}

/// Which IP version an address prefix requires.
#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
    Either,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "abns@{name}"),
            Self::AbstractExact(name) => write!(f, "abnsz@{name}"),
            Self::Tcp(address @ SocketAddr::V4(_)) => write!(f, "ipv4@{address}"),
            Self::Tcp(address @ SocketAddr::V6(_)) => write!(f, "ipv6@{address}"),
        }
    }
}

/// Returns the known word that was probably meant: at most a quarter of it is wrong, or one sign of a short one.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 80;
    let word = word.to_lowercase();
    if word.len() > LONGEST {
        return None;
    }
    let is_near = |known: &str, distance: usize| distance <= (known.len() / 4).max(1);
    let near = known.into_iter().filter(|known| is_near(known, known.len().abs_diff(word.len())));
    let (distance, best) =
        near.map(|known| (strsim::damerau_levenshtein(&word, &known.to_lowercase()), known)).min()?;
    is_near(best, distance).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_what_haproxy_allows() {
        for good in ["web1", "a:b.c-d_E", "1", "0"] {
            assert_eq!(Pattern::parse(good).unwrap().literal(), Some(good));
        }
        for bad in
            ["", "a b", "a;b", "a\nb", "#1", "a\\b", "é", "a\0", "<<", "a,b", "a'b", "web[", "web[]", "web[!]", "$(x)"]
        {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Pattern::parse(&"x".repeat(NAME_MAX)).is_ok());
        assert_eq!(Pattern::parse(&"x".repeat(NAME_MAX + 1)), Err(NameError::TooLong(NAME_MAX + 1)));
    }

    #[test]
    fn patterns_match_whole_names() {
        let table = [
            ("web*", "web", true),
            ("web*", "web12", true),
            ("web*", "aweb", false),
            ("*", "x", true),
            ("w?b", "web", true),
            ("w?b", "wb", false),
            ("web[1-3]", "web2", true),
            ("web[1-3]", "web4", false),
            ("web[!1-3]", "web4", true),
            ("web[a1-]", "web-", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("Web", "web", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["puppet-i0-svc1", "puppet-i0-svc2", "web1"];
        for (word, expected) in
            [("pupet-i0-svc1", Some("puppet-i0-svc1")), ("Web1", Some("web1")), ("database7", None), ("", None)]
        {
            assert_eq!(nearest(word, names), expected, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1000), names), None);
        for (word, name, expected) in [
            ("wxb", "web", true),
            ("wxy", "web", false),
            ("db1", "web1", false),
            ("web12", "web", false),
            ("htpt", "http", true),
            ("pupxyt12", "puppet12", true),
            ("pupxyz12", "puppet12", false),
            ("puppet1234", "puppet12", true),
            ("puppet12345", "puppet12", false),
        ] {
            assert_eq!(nearest(word, [name]).is_some(), expected, "{word} {name}");
        }
        let long = "x".repeat(81);
        assert_eq!(nearest(&long[1..], [&*long]), Some(&*long));
        assert_eq!(nearest(&long, [&*long]), None);
    }

    #[test]
    fn a_selector_has_at_most_one_slash() {
        let selector = Selector::parse("app*/web[12]").unwrap();
        assert!(selector.matches(b"app-blue", b"web1"));
        assert!(!selector.matches(b"db", b"web1"));
        assert_eq!(selector.to_string(), "app*/web[12]");
        assert_eq!(Selector::parse("a/b/c"), Err(NameError::Slashes));
        assert_eq!(Selector::parse("/b"), Err(NameError::Empty));
        assert_eq!(Selector::parse("b/"), Err(NameError::Empty));
    }

    #[test]
    fn instance_names_follow_the_configuration_or_the_socket() {
        let table = [
            ("/etc/haproxy/puppet.cfg", "puppet"),
            ("/etc/haproxy/haproxy-ldap.conf", "ldap"),
            ("/etc/haproxy-ldap/haproxy.cfg", "ldap"),
            ("/etc/haproxy/haproxy.cfg", "haproxy"),
            ("/etc/haproxy.cfg", "haproxy"),
            ("/run/haproxy/admin.sock", "haproxy"),
            ("/run/haproxy/puppet.sock", "puppet"),
            ("/run/haproxy-ldap/stats", "ldap"),
            ("/run/haproxy.sock", "haproxy"),
            ("/var/lib/haproxy/stats", "haproxy"),
            ("/srv/a b/main.cfg", "a_b"),
            ("/", "haproxy"),
        ];
        for (path, expected) in table {
            assert_eq!(InstanceName::from_path(Path::new(path)).as_str(), expected, "{path}");
        }
    }

    #[test]
    fn addresses_are_in_haproxys_notation() {
        let table = [
            ("/run/haproxy/admin.sock", "/run/haproxy/admin.sock"),
            ("unix@/run/a@b.sock", "/run/a@b.sock"),
            ("/run/a@b.sock", "/run/a@b.sock"),
            ("abns@puppet", "abns@puppet"),
            ("abnsz@puppet", "abnsz@puppet"),
            ("ipv4@127.0.0.1:9999", "ipv4@127.0.0.1:9999"),
            ("127.0.0.1:9999", "ipv4@127.0.0.1:9999"),
            ("*:9999", "ipv4@127.0.0.1:9999"),
            (":9999", "ipv4@127.0.0.1:9999"),
            ("localhost:9999", "ipv4@127.0.0.1:9999"),
            ("ipv6@[::1]:9999", "ipv6@[::1]:9999"),
            ("ipv6@::1:9999", "ipv6@[::1]:9999"),
            (":::9999", "ipv6@[::1]:9999"),
            ("stream+tcp@0.0.0.0:1", "ipv4@127.0.0.1:1"),
        ];
        for (text, expected) in table {
            assert_eq!(Address::parse(text).unwrap().to_string(), expected, "{text}");
            assert!(Address::is_meant(text), "{text}");
        }
        for bad in [
            "",
            "unix@relative",
            "udp@1.2.3.4:5",
            "fd@3",
            "ipv4@::1:99",
            "ipv6@1.2.3.4:9",
            "example.com:80",
            "1.2.3.4:0",
            "1.2.3.4:99999",
            "1.2.3.4",
            "abns@",
            "/a\nb",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
        assert!(!Address::is_meant("puppet"));
        assert!(Address::parse(&format!("/{}", "x".repeat(107))).is_err());
        for (text, why) in [
            ("fd@3", "an inherited file descriptor cannot be connected to"),
            ("sockpair@3", "an inherited file descriptor cannot be connected to"),
            ("udp@1.2.3.4:5", "it does not start with /, unix@"),
            ("1.2.3.4", "the port is missing"),
            ("1.2.3.4:0", "the port is not a number from 1 to 65535"),
            ("example.com:80", "the host is not an IP address"),
            ("tcp4@[::1]:80", "the IP address belongs to the other family"),
        ] {
            let said = Address::parse(text).unwrap_err().to_string();
            assert!(said.starts_with(&format!("is not an address: {why}")), "{said}");
        }
    }

    #[test]
    fn lengths_end_where_haproxys_do() {
        let long = |count| "x".repeat(count);
        assert!(Address::parse(&format!("/{}", long(106))).is_ok());
        assert!(Address::parse(&format!("abns@{}", long(107))).is_ok());
        assert!(Address::parse(&format!("abns@{}", long(108))).is_err());
        assert!(Address::parse("abns@a\nb").is_err());
        assert!(InstanceName::parse(&long(NAME_MAX)).is_ok());
        assert_eq!(InstanceName::parse(&long(NAME_MAX + 1)), Err(NameError::TooLong(NAME_MAX + 1)));
        assert_eq!(InstanceName::parse(""), Err(NameError::Empty));
        assert_eq!(InstanceName::parse("a b"), Err(NameError::Character(' ')));
        assert_eq!(InstanceName::from_part(OsStr::new(&long(NAME_MAX + 1))).unwrap().as_str().len(), NAME_MAX);
        assert!(is_plain(&long(2 * NAME_MAX)) && !is_plain(&long(2 * NAME_MAX + 1)) && !is_plain(""));
    }

    #[test]
    fn a_family_means_its_own_addresses() {
        let read = |text: &str| Address::parse(text).map(|address| address.to_string()).unwrap_or_default();
        for (text, expected) in [
            ("ip@:80", "ipv4@127.0.0.1:80"),
            ("tcp4@*:80", "ipv4@127.0.0.1:80"),
            ("tcp6@localhost:80", "ipv6@[::1]:80"),
            ("ipv6@:::80", "ipv6@[::1]:80"),
            ("ipv4@[127.0.0.1]:80", "ipv4@127.0.0.1:80"),
            ("192.0.2.1:80", "ipv4@192.0.2.1:80"),
            ("[2001:db8::1]:80", "ipv6@[2001:db8::1]:80"),
            ("sockpair@3", ""),
            ("tcp4@[::1]:80", ""),
            ("tcp6@127.0.0.1:80", ""),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn a_name_can_be_told_by_where_an_instance_listens() {
        let name = |text: &str| InstanceName::from_address(&Address::parse(text).unwrap()).to_string();
        assert_eq!(name("/run/haproxy/puppet.sock"), "puppet");
        assert_eq!(name("abns@haproxy-ldap"), "ldap");
        assert_eq!(name("abnsz@ldap"), "ldap");
        assert_eq!(name("127.0.0.1:9999"), "ipv4@127.0.0.1:9999");
        assert_eq!(InstanceName::parse("app").unwrap().qualified("a b").as_str(), "app-a_b");
        for nothing in ["", "haproxy-", "conf.d", "haproxy-services.d", "etc"] {
            assert_eq!(InstanceName::from_part(OsStr::new(nothing)), None, "{nothing}");
        }
        assert!(Address::is_meant("host:80") && !Address::is_meant("host:x") && !Address::is_meant("http"));
    }

    #[test]
    fn backends_are_named_if_each_selector_names_its_own() {
        let named = |servers: &[&str], backends: &[&str]| {
            let servers: Vec<Selector> = servers.iter().map(|text| Selector::parse(text).unwrap()).collect();
            let backends: Vec<Pattern> = backends.iter().map(|text| Pattern::parse(text).unwrap()).collect();
            let selection = Selection { servers: &servers, backends: &backends, addresses: &[] };
            selection.named_backends().map(|names| names.join(" "))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(named(&[], &[]), None);
        assert_eq!(named(&["b/s", "a/s*", "b/t"], &[]), some("a b"));
        assert_eq!(named(&["b/s", "s"], &[]), None);
        assert_eq!(named(&["b/s", "a*/s"], &[]), None);
        assert_eq!(named(&["s*"], &["c", "a", "c"]), some("a c"));
        assert_eq!(named(&["b/s"], &["c", "a*"]), None);
    }

    #[test]
    fn an_address_of_a_server_has_a_port_or_means_any() {
        let table = [
            ("10.0.0.5", "10.0.0.5", "80", true),
            ("10.0.0.5", "10.0.0.50", "80", false),
            ("10.0.0.5:80", "10.0.0.5", "80", true),
            ("10.0.0.5:80", "10.0.0.5", "8080", false),
            ("10.0.0.5:0", "10.0.0.5", "0", true),
            ("::1", "::1", "80", true),
            ("[::1]", "::1", "80", true),
            ("[::1]:80", "::1", "80", true),
            ("[::1]:80", "::1", "81", false),
            ("2001:DB8:0:0::1", "2001:db8::1", "80", true),
            // What this ends in is no port.
            ("2001:db8::1:80", "2001:db8::1", "80", false),
            ("10.0.0.5", "::ffff:10.0.0.5", "80", true),
            ("::ffff:10.0.0.5", "10.0.0.5", "80", true),
            ("10.0.0.5", "-", "0", false),
            ("10.0.0.5", "app.example", "80", false),
        ];
        for (text, host, port, expected) in table {
            assert_eq!(ServerAddress::parse(text).unwrap().matches(host, port), expected, "{text} {host} {port}");
        }
        for bad in [
            "",
            " ",
            "10.0.0",
            "10.0.0.5:",
            "10.0.0.5:x",
            "10.0.0.5:65536",
            "10.0.0.0/8",
            "10.0.0.*",
            "::1]:80",
            "[10.0.0.5]:80",
            "app.example",
            "localhost:80",
            "-",
            "fe80::1%eth0",
            "10.0.0.5 ",
            "010.0.0.5",
        ] {
            assert!(ServerAddress::parse(bad).is_err(), "{bad:?}");
        }
        for unix in ["/run/app.sock", "unix@/run/app.sock", "abns@app"] {
            assert!(ServerAddress::parse(unix).unwrap_err().to_string().contains("Unix socket"), "{unix}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = Selector::parse(&text);
            let _ = ServerAddress::parse(&text).map(|address| address.matches(&text, &text));
            let _ = Address::parse(&text);
            let _ = InstanceName::parse(&text);
            let _ = InstanceName::from_path(Path::new(&text));
        }

        #[test]
        fn a_plain_name_matches_itself_alone(name in "[A-Za-z0-9_:.-]{1,40}", other in "[A-Za-z0-9_:.-]{1,40}") {
            let pattern = Pattern::parse(&name).unwrap();
            prop_assert!(pattern.matches(name.as_bytes()));
            prop_assert_eq!(pattern.matches(other.as_bytes()), name == other);
        }

        #[test]
        fn whatever_is_accepted_is_safe_to_send(text in "[ -~\\n\\r\\t]{0,20}") {
            let pattern = Pattern::parse(&text);
            let name = pattern.as_ref().ok().and_then(Pattern::literal);
            prop_assert!(name.is_none_or(is_plain));
        }

        #[test]
        fn an_address_reads_back_as_itself(text in "(/[a-z/.@]{1,30}|abns@[a-z]{1,9}|ipv4@127\\.0\\.0\\.[0-9]:[1-9][0-9]{1,3})") {
            let address = Address::parse(&text).unwrap();
            prop_assert_eq!(Address::parse(&address.to_string()), Ok(address));
        }

        #[test]
        fn stars_never_take_exponential_time(name in "a{0,200}") {
            let pattern = Pattern::parse(&"*a".repeat(60)).unwrap();
            prop_assert_eq!(pattern.matches(name.as_bytes()), name.len() >= 60);
        }
    }
}
