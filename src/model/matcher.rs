//! Compares names with very many selectors: what a name is looked up by takes no longer for sixty thousand of them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::name::{Pattern, Selection, Selector};
use super::server::Server;

/// Up to how many names and patterns are compared one by one.
const FEW: usize = 16;

/// What a request selects, prepared for many comparisons.
#[derive(Debug)]
pub struct Matcher<'a> {
    selection: Selection<'a>,
    servers: Option<Selectors<'a>>,
    backends: Option<Patterns<'a>>,
    /// The places of the addresses.
    addresses: HashMap<IpAddr, Vec<usize>>,
}

impl<'a> Matcher<'a> {
    /// Prepares a selection.
    #[must_use]
    pub fn new(selection: Selection<'a>) -> Self {
        let are_many = |count: usize| count > FEW;
        let mut addresses: HashMap<IpAddr, Vec<usize>> = HashMap::new();
        for (place, address) in selection.addresses.iter().enumerate() {
            addresses.entry(address.ip()).or_default().push(place);
        }
        Self {
            addresses,
            selection,
            servers: are_many(selection.servers.len()).then(|| Selectors::of(selection.servers)),
            backends: are_many(selection.backends.len()).then(|| Patterns::of(selection.backends)),
        }
    }

    /// Tells whether the server of that backend is selected; `address` finds out its host and port on demand.
    #[must_use]
    pub fn matches<'r>(&self, backend: &[u8], server: &[u8], address: impl FnOnce() -> (&'r str, &'r str)) -> bool {
        let Selection { servers, backends, .. } = self.selection;
        let is_listed = match &self.servers {
            Some(selectors) => selectors.find(backend, server, |_| true),
            None => servers.is_empty() || servers.iter().any(|selector| selector.matches(backend, server)),
        };
        let has_backend = || match &self.backends {
            Some(patterns) => patterns.find(backend, |_| true),
            None => backends.is_empty() || backends.iter().any(|pattern| pattern.matches(backend)),
        };
        is_listed
            && has_backend()
            && (self.addresses.is_empty() || {
                let (host, port) = address();
                self.places_of(host, port).next().is_some()
            })
    }

    /// Tells whether a server that was read is selected.
    #[must_use]
    pub fn has(&self, server: &Server) -> bool {
        self.matches(server.backend.as_bytes(), server.server.as_bytes(), || server.host_and_port())
    }

    /// Tells whether the server is selected by its own name, not by a pattern.
    #[must_use]
    pub fn names(&self, backend: &str, server: &str) -> bool {
        let servers = self.selection.servers;
        let is_named = |selector: &Selector| selector.server.literal().is_some();
        match &self.servers {
            Some(selectors) => {
                selectors.find(backend.as_bytes(), server.as_bytes(), |place| servers.get(place).is_some_and(is_named))
            }
            None => {
                let mut servers = servers.iter();
                servers.any(|it| is_named(it) && it.matches(backend.as_bytes(), server.as_bytes()))
            }
        }
    }

    /// Finds the places of the addresses that a server has.
    fn places_of(&self, host: &str, port: &str) -> impl Iterator<Item = usize> {
        let places = host.parse().ok().and_then(|ip: IpAddr| self.addresses.get(&ip.to_canonical()));
        let has = move |place: &usize| self.selection.addresses.get(*place).is_some_and(|it| it.matches(host, port));
        places.into_iter().flatten().copied().filter(has)
    }

    /// Marks the addresses that a server has.
    pub fn mark_addresses(&self, host: &str, port: &str, marks: &mut [bool]) {
        self.places_of(host, port).for_each(|place| marks.get_mut(place).into_iter().for_each(|mark| *mark = true));
    }

    /// Marks the selectors that mean a server.
    pub fn mark_servers(&self, backend: &[u8], server: &[u8], marks: &mut [bool]) {
        let mark = |place: usize| marks.get_mut(place).into_iter().for_each(|mark| *mark = true);
        match &self.servers {
            Some(selectors) => mark_all(mark, |on_match| selectors.find(backend, server, on_match)),
            None => places(self.selection.servers, |it| it.matches(backend, server)).for_each(mark),
        }
    }

    /// Marks the patterns that mean a backend.
    pub fn mark_backends(&self, backend: &[u8], marks: &mut [bool]) {
        let mark = |place: usize| marks.get_mut(place).into_iter().for_each(|mark| *mark = true);
        match &self.backends {
            Some(patterns) => mark_all(mark, |on_match| patterns.find(backend, on_match)),
            None => places(self.selection.backends, |it| it.matches(backend)).for_each(mark),
        }
    }
}

/// Goes through all matches, since none of them ends the search.
fn mark_all(mut mark: impl FnMut(usize), find: impl FnOnce(&mut dyn FnMut(usize) -> bool) -> bool) {
    find(&mut |place| {
        mark(place);
        false
    });
}

fn places<T>(list: &[T], is_meant: impl Fn(&T) -> bool) -> impl Iterator<Item = usize> {
    list.iter().enumerate().filter(move |(_, it)| is_meant(it)).map(|(place, _)| place)
}

/// Selectors by what they say of the backend.
#[derive(Debug, Default)]
struct Selectors<'a> {
    /// Those that leave it open.
    anywhere: Patterns<'a>,
    /// The names and patterns of the others, each once, and by its place which servers it means.
    backends: Patterns<'a>,
    of_backends: Vec<Patterns<'a>>,
}

impl<'a> Selectors<'a> {
    fn of(selectors: &'a [Selector]) -> Self {
        let mut all = Self::default();
        let mut known: HashMap<&str, usize> = HashMap::new();
        for (place, Selector { backend, server }) in selectors.iter().enumerate() {
            let Some(backend) = backend else {
                all.anywhere.add(place, server);
                continue;
            };
            let at = *known.entry(backend.as_str()).or_insert_with(|| {
                let next = all.of_backends.len();
                all.of_backends.push(Patterns::default());
                all.backends.add(next, backend);
                next
            });
            if let Some(group) = all.of_backends.get_mut(at) {
                group.add(place, server);
            }
        }
        all
    }

    /// Hands over the place of each selector that means a server, until one is accepted.
    fn find(&self, backend: &[u8], server: &[u8], mut accept: impl FnMut(usize) -> bool) -> bool {
        self.anywhere.find(server, &mut accept)
            || self
                .backends
                .find(backend, |at| self.of_backends.get(at).is_some_and(|group| group.find(server, &mut accept)))
    }
}

/// Names and patterns, by all of a name, the beginning of a pattern, or its end.
#[derive(Debug, Default)]
struct Patterns<'a> {
    literals: HashMap<&'a [u8], Vec<usize>>,
    by_start: HashMap<&'a [u8], Vec<(usize, &'a Pattern)>>,
    starts: BTreeSet<usize>,
    by_end: HashMap<&'a [u8], Vec<(usize, &'a Pattern)>>,
    ends: BTreeSet<usize>,
}

impl<'a> Patterns<'a> {
    fn of(patterns: &'a [Pattern]) -> Self {
        let mut all = Self::default();
        patterns.iter().enumerate().for_each(|(place, pattern)| all.add(place, pattern));
        all
    }

    fn add(&mut self, place: usize, pattern: &'a Pattern) {
        let text = pattern.as_str();
        if pattern.literal().is_some() {
            self.literals.entry(text.as_bytes()).or_default().push(place);
            return;
        }
        let start = text.split(['*', '?', '[']).next().unwrap_or_default().as_bytes();
        let end = text.rsplit(['*', '?', ']']).next().unwrap_or_default().as_bytes();
        let (list, lengths, key) = if start.len() >= end.len() {
            (&mut self.by_start, &mut self.starts, start)
        } else {
            (&mut self.by_end, &mut self.ends, end)
        };
        lengths.insert(key.len());
        list.entry(key).or_default().push((place, pattern));
    }

    /// Hands over the place of each one that matches, until one is accepted.
    fn find(&self, name: &[u8], mut accept: impl FnMut(usize) -> bool) -> bool {
        let literals = self.literals.get(name).into_iter().flatten();
        if literals.copied().any(&mut accept) {
            return true;
        }
        let by_start = self.starts.iter().filter_map(|length| self.by_start.get(name.get(..*length)?));
        let by_end =
            self.ends.iter().filter_map(|length| self.by_end.get(name.get(name.len().checked_sub(*length)?..)?));
        by_start.chain(by_end).flatten().any(|(place, pattern)| pattern.matches(name) && accept(*place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::ServerAddress;
    use proptest::prelude::*;

    fn selectors(texts: &[String]) -> Vec<Selector> {
        texts.iter().map(|text| Selector::parse(text).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn many_are_compared_as_one_is(
            texts in prop::collection::vec("([ab*?]{1,3}/)?[ab*?]{1,3}", 17..40),
            patterns in prop::collection::vec("[ab*?]{1,3}", 17..40),
            backend in "[ab]{1,4}",
            server in "[ab]{1,4}",
        ) {
            let servers = selectors(&texts);
            let backends: Vec<Pattern> = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
            let matcher = Matcher::new(Selection { servers: &servers, backends: &backends, addresses: &[] });
            let (in_backend, name) = (backend.as_bytes(), server.as_bytes());
            let marks: Vec<bool> = servers.iter().map(|it| it.matches(in_backend, name)).collect();
            let of_backends: Vec<bool> = backends.iter().map(|it| it.matches(in_backend)).collect();
            let mut found = vec![false; servers.len()];
            matcher.mark_servers(in_backend, name, &mut found);
            prop_assert_eq!(&found, &marks);
            let mut found = vec![false; backends.len()];
            matcher.mark_backends(in_backend, &mut found);
            prop_assert_eq!(&found, &of_backends);
            let is_any = marks.contains(&true) && of_backends.contains(&true);
            prop_assert_eq!(matcher.matches(in_backend, name, || ("", "")), is_any);
            let named = servers.iter().any(|it| it.server.literal().is_some() && it.matches(in_backend, name));
            prop_assert_eq!(matcher.names(&backend, &server), named);
        }
    }

    #[test]
    fn a_server_must_be_selected_in_every_way_that_is_asked() {
        let (servers, none) = (selectors(&["s1".to_owned(), "b/t*".to_owned()]), Vec::new());
        let backends = [Pattern::parse("b").unwrap()];
        let addresses = [ServerAddress::parse("127.0.0.1:9").unwrap()];
        let server = |backend: &str, name: &str, address: &str| Server {
            backend: backend.into(),
            server: name.into(),
            address: address.into(),
            ..Server::example()
        };
        let here = "127.0.0.1:9";
        for (servers, backends, addresses, wanted, expected) in [
            (&none, &[][..], &[][..], server("c", "x", "-"), true),
            (&servers, &[], &[], server("c", "s1", here), true),
            (&servers, &[], &[], server("c", "s2", here), false),
            (&servers, &[], &[], server("b", "t7", here), true),
            (&servers, &[], &[], server("c", "t7", here), false),
            (&servers, &backends, &[], server("c", "s1", here), false),
            (&servers, &backends, &[], server("b", "s2", here), false),
            (&servers, &backends, &[], server("b", "s1", "-"), true),
            (&none, &[], &addresses, server("c", "x", here), true),
            (&none, &[], &addresses, server("c", "x", "127.0.0.1:8"), false),
            (&servers, &[], &addresses, server("c", "s2", here), false),
            (&none, &backends, &addresses, server("c", "x", here), false),
        ] {
            let matcher = Matcher::new(Selection { servers, backends, addresses });
            assert_eq!(matcher.has(&wanted), expected, "{} {}", wanted.full_name(), wanted.address);
        }
        let matcher = Matcher::new(Selection { servers: &servers, backends: &[], addresses: &addresses });
        assert!(matcher.names("c", "s1") && !matcher.names("b", "t7") && !matcher.names("c", "s2"));
        let mut marks = [false; 2];
        matcher.mark_addresses("127.0.0.1", "8", &mut marks[..1]);
        assert_eq!(marks, [false; 2]);
        matcher.mark_addresses("127.0.0.1", "9", &mut marks[..1]);
        assert_eq!(marks, [true, false]);
        let mut marks = [false; 2];
        matcher.mark_servers(b"b", b"t7", &mut marks);
        assert_eq!(marks, [false, true]);
        let matcher = Matcher::new(Selection { servers: &[], backends: &backends, addresses: &[] });
        let mut marks = [false];
        matcher.mark_backends(b"c", &mut marks);
        assert_eq!(marks, [false]);
        matcher.mark_backends(b"b", &mut marks);
        assert_eq!(marks, [true]);
    }

    #[test]
    fn each_of_very_many_is_found() {
        // One by one these are a billion comparisons, which would take minutes here.
        const MANY: usize = 10_000;
        for (form, expected) in [("b@/s1", MANY), ("s@", 1), ("b*/s@", 1), ("b@*/s*", MANY), ("*s@/s1", 0)] {
            let texts: Vec<String> = (0..MANY).map(|number| form.replace('@', &number.to_string())).collect();
            let servers = selectors(&texts);
            let matcher = Matcher::new(Selection { servers: &servers, backends: &[], addresses: &[] });
            let mut marks = vec![false; servers.len()];
            for number in 0..MANY {
                matcher.mark_servers(format!("b{number}").as_bytes(), b"s1", &mut marks);
            }
            assert_eq!(marks.into_iter().filter(|mark| *mark).count(), expected, "{form}");
        }
    }
}
