//! Which state file each backend loads when HAProxy starts or is reloaded (`src/server_state.c`).
//!
//! What cannot be known, as a variable or which branch of an `.if` is taken, counts as what would load a file: a
//! warning that is wrong is worse than one that is missing.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::condition::Truth;
use super::lexer::Word;

/// The keywords of a proxy that say something about state files.
pub(super) const KEYWORDS: [&[u8]; 2] = [b"load-server-state-from-file", b"server-state-file-name"];

/// The possible values; `None` stands for one that cannot be known.
type Possible = Vec<Option<Vec<u8>>>;

/// What a section says about state files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Proxy {
    /// `load-server-state-from-file`
    from: Possible,
    /// `server-state-file-name`
    name: Possible,
}

/// A section of a proxy or of what proxies inherit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Section {
    /// A `defaults`, by its name or by nothing.
    Defaults(Vec<u8>),
    /// A `backend` or `listen`.
    Backend(Vec<u8>),
}

/// Whether HAProxy loads a file for a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loads {
    /// It does, or it may.
    Perhaps,
    /// It does not.
    No,
    /// The configuration does not have the backend.
    UnknownBackend,
}

/// What a configuration says about state files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateFileRules {
    /// `server-state-base`
    base: Possible,
    /// `server-state-file`
    file: Possible,
    backends: HashMap<Vec<u8>, Arc<Proxy>>,
}

/// Collects the rules while the configuration is read.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    rules: StateFileRules,
    /// The `defaults` by their names.
    defaults: HashMap<Vec<u8>, Arc<Proxy>>,
    /// The `defaults` that were read last.
    latest: Arc<Proxy>,
}

impl Proxies {
    /// Begins `defaults [NAME] [from OTHER]`.
    pub(super) fn defaults(&mut self, operands: &[Word]) -> Section {
        let name = operands.first().filter(|word| word.bytes != b"from").map(|word| word.bytes.clone());
        let name = name.unwrap_or_default();
        self.latest = self.parent(operands).unwrap_or_default();
        self.defaults.insert(name.clone(), Arc::clone(&self.latest));
        Section::Defaults(name)
    }

    /// Begins `backend NAME [from DEFAULTS]`; none where its name cannot be known.
    pub(super) fn backend(&mut self, operands: &[Word]) -> Option<Section> {
        let name = operands.first().filter(|name| !name.unknown)?.bytes.clone();
        let proxy = self.parent(operands).unwrap_or_else(|| Arc::clone(&self.latest));
        self.rules.backends.insert(name.clone(), proxy);
        Some(Section::Backend(name))
    }

    /// Takes a line of a proxy's section.
    pub(super) fn keyword(&mut self, section: &Section, keyword: &[u8], operands: &[Word], live: Truth) {
        let apply = |proxy: &mut Arc<Proxy>| match keyword {
            b"load-server-state-from-file" => set(&mut Arc::make_mut(proxy).from, operands, live),
            b"server-state-file-name" => set(&mut Arc::make_mut(proxy).name, operands, live),
            _ => {}
        };
        match section {
            Section::Backend(name) => self.rules.backends.get_mut(name).into_iter().for_each(apply),
            Section::Defaults(name) => {
                self.defaults.get_mut(name).into_iter().chain([&mut self.latest]).for_each(apply)
            }
        }
    }

    /// Takes a line of the `global` section.
    pub(super) fn global(&mut self, keyword: &[u8], operands: &[Word], live: Truth) {
        match keyword {
            b"server-state-base" => set(&mut self.rules.base, operands, live),
            b"server-state-file" => set(&mut self.rules.file, operands, live),
            _ => {}
        }
    }

    /// Returns what was read.
    pub(super) fn finish(self) -> StateFileRules {
        self.rules
    }

    /// Finds the `defaults` that a section names.
    fn parent(&self, operands: &[Word]) -> Option<Arc<Proxy>> {
        let mut rest = operands.iter().skip_while(|word| word.bytes != b"from");
        rest.next()?;
        self.defaults.get(&rest.next()?.bytes).cloned()
    }
}

impl StateFileRules {
    /// Tells whether HAProxy loads the state file `path` for a backend.
    #[must_use]
    pub fn loads(&self, path: &Path, backend: &str) -> Loads {
        let Some(proxy) = self.backends.get(backend.as_bytes()) else { return Loads::UnknownBackend };
        let of_backend = || self.leads_to(Some(backend.as_bytes()), path);
        let may = proxy.from.iter().any(|from| match from.as_deref() {
            None => true,
            Some(b"global") => self.file.iter().any(|file| self.leads_to(file.as_deref(), path)),
            Some(b"local") if proxy.name.is_empty() => of_backend(),
            Some(b"local") => proxy.name.iter().any(|name| match name.as_deref() {
                Some(b"use-backend-name" | b"") => of_backend(),
                name => self.leads_to(name, path),
            }),
            Some(_) => false,
        });
        if may { Loads::Perhaps } else { Loads::No }
    }

    /// Tells whether a file name may stand for the path (`srv_state_get_filepath()`).
    fn leads_to(&self, file: Option<&[u8]>, path: &Path) -> bool {
        let Some(file) = file.map(|file| Path::new(OsStr::from_bytes(file))) else { return true };
        if file.is_absolute() {
            return is_same(file, path);
        }
        // A relative path starts in HAProxy's working folder, which is not known.
        let from_anywhere = || path.ends_with(file);
        if self.base.is_empty() {
            return from_anywhere();
        }
        self.base.iter().any(|base| match base.as_deref().map(|base| Path::new(OsStr::from_bytes(base))) {
            None => true,
            Some(base) if base.is_absolute() => is_same(&base.join(file), path),
            Some(base) => path.ends_with(base.join(file)),
        })
    }
}

/// Takes a value: in place of the former one, or as another possible one within an `.if` that may be taken.
fn set(possible: &mut Possible, operands: &[Word], live: Truth) {
    if live == Truth::Yes {
        possible.clear();
    }
    possible.push(match operands.first() {
        Some(word) if word.unknown => None,
        Some(word) => Some(word.bytes.clone()),
        None => Some(Vec::new()),
    });
}

/// Tells whether both paths lead to the same place.
fn is_same(one: &Path, other: &Path) -> bool {
    let plain = |path: &Path| path.components().collect::<PathBuf>();
    let real = |path: &Path| Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    plain(one) == plain(other) || real(one).is_some_and(|one| real(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::super::Reader;
    use super::super::lexer::Environment;
    use super::*;

    impl StateFileRules {
        /// Reads the files of a configuration of whose environment nothing is known.
        pub(crate) fn of(files: &[&str]) -> Self {
            let mut reader = Reader::new(Environment::new(None));
            files.iter().for_each(|file| reader.file(file.as_bytes()));
            reader.finish().state_files
        }
    }

    fn loads(text: &str) -> bool {
        let rules = StateFileRules::of(&[text]);
        let path = Path::new("/var/lib/haproxy/state");
        assert_eq!(rules.loads(path, "not-there"), Loads::UnknownBackend);
        rules.loads(path, "app") == Loads::Perhaps
    }

    const FILE: &str = "global\n server-state-file /var/lib/haproxy/state\n";
    const BASE: &str = "global\n server-state-base /var/lib/haproxy/\n server-state-file \"state\" # x\n";

    #[test]
    fn what_may_be_loaded_is_known() {
        let global = "defaults\n load-server-state-from-file global\nbackend app\n";
        for text in [
            format!("{FILE}{global}"),
            format!("{BASE}{global}"),
            format!("{FILE}backend app\n load-server-state-from-file global\n"),
            format!("{FILE}listen app\n load-server-state-from-file 'global'\n"),
            format!("{global}{FILE}"),
            format!("global\n server-state-file state\n{global}"),
            format!("global\n server-state-file /var/lib//./haproxy/state\n{global}"),
            format!("global\n server-state-file \"$STATE\"\n{global}"),
            format!("global\n server-state-base \"$BASE\"\n server-state-file x\n{global}"),
            format!("{BASE}defaults\n load-server-state-from-file local\nbackend app\n server-state-file-name state\n"),
            "global\n server-state-base /var/lib/haproxy\nbackend app\n load-server-state-from-file local\n server-state-file-name /var/lib/haproxy/state".into(),
            format!("{FILE}defaults a\n load-server-state-from-file global\ndefaults b\nbackend app from a\n"),
            format!("{FILE}defaults a\n load-server-state-from-file global\ndefaults b from a\nbackend app\n"),
            format!("{FILE}backend app\n.if defined(X)\n load-server-state-from-file global\n.else\n load-server-state-from-file none\n.endif\n"),
            format!("{FILE}.if 0\nbackend no\n.endif\nbackend app\n.if version_atleast(2.4)\n load-server-state-from-file global\n.endif\n"),
            format!("{FILE}backend app\n load-server-state-from-file none\n.if defined(X)\n load-server-state-from-file global\n.endif\n"),
        ] {
            assert!(loads(&text), "{text}");
        }
    }

    #[test]
    fn what_is_not_loaded_is_known() {
        let global = "defaults\n load-server-state-from-file global\nbackend app\n";
        for text in [
            format!("{FILE}backend app\n"),
            global.to_owned(),
            format!("global\n server-state-file /other\n{global}"),
            format!("global\n server-state-base /other\n server-state-file state\n{global}"),
            format!("{FILE}defaults\n load-server-state-from-file global\ndefaults\nbackend app\n"),
            format!("{FILE}{global} load-server-state-from-file none\n"),
            format!("{FILE}{global} load-server-state-from-file local\n"),
            format!("{FILE}defaults a\n load-server-state-from-file global\ndefaults b\nbackend app from b\n"),
            format!("{FILE}backend app\nfrontend f\n load-server-state-from-file global\n"),
            format!("defaults\n server-state-file /var/lib/haproxy/state\n{global}"),
            format!("#{FILE}{global}"),
            format!("{FILE}backend app\n.if 0\n load-server-state-from-file global\n.endif\n"),
            format!(
                "{FILE}backend app\n.if 1\n load-server-state-from-file global\n.endif\n load-server-state-from-file none\n"
            ),
        ] {
            assert!(!loads(&text), "{text}");
        }
    }

    #[test]
    fn local_files_have_the_name_of_their_backend() {
        let text =
            "global\n server-state-base /s\ndefaults\n load-server-state-from-file local\nbackend app\nbackend b\n";
        let rules = StateFileRules::of(&[text]);
        assert_eq!(rules.loads(Path::new("/s/app"), "app"), Loads::Perhaps);
        assert_eq!(rules.loads(Path::new("/s/app"), "b"), Loads::No);
        let text = text.replace("local\n", "local\n server-state-file-name use-backend-name\n");
        assert_eq!(StateFileRules::of(&[&text]).loads(Path::new("/s/b"), "b"), Loads::Perhaps);
    }

    #[test]
    fn several_files_are_one_configuration() {
        let rules = StateFileRules::of(&["defaults\n load-server-state-from-file global\nbackend a\n", FILE]);
        assert_eq!(rules.loads(Path::new("/var/lib/haproxy/state"), "a"), Loads::Perhaps);
        assert_eq!(rules.loads(Path::new("/other"), "a"), Loads::No);
    }

    #[test]
    fn variables_are_those_of_the_process() {
        let text = b"global\n server-state-file \"/s/$NAME\"\nbackend a\n load-server-state-from-file global\n";
        let mut reader = Reader::new(Environment::new(Some(b"NAME=x\0")));
        reader.file(text);
        let rules = reader.finish().state_files;
        assert_eq!(rules.loads(Path::new("/s/x"), "a"), Loads::Perhaps);
        assert_eq!(rules.loads(Path::new("/s/y"), "a"), Loads::No);
    }
}
