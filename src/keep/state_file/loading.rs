//! Whether HAProxy's configuration loads a state file, for a warning if it does not.
//!
//! Anything unknown, such as a variable or the branch of an `.if`, counts as loading it: a wrong warning is worse than
//! a missing one.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::discover::lexer::{Environment, Word, skip_spaces, words};
use crate::model::text::excerpt;

/// How many backends a warning names.
const NAMED: usize = 3;

/// The possible values; `None` stands for one that cannot be known.
type Possible = Vec<Option<Vec<u8>>>;

/// What a section says about state files.
#[derive(Debug, Clone, Default)]
struct Proxy {
    /// `load-server-state-from-file`
    from: Possible,
    /// `server-state-file-name`
    name: Possible,
}

/// The section that is being read.
enum Section {
    Global,
    /// A `defaults` section, by its name if it has one.
    Defaults(Vec<u8>),
    Backend(Vec<u8>),
    Other,
}

/// The part of the configuration that concerns state files.
#[derive(Default)]
struct Reader {
    environment: Environment,
    /// `server-state-base`
    base: Possible,
    /// `server-state-file`
    file: Possible,
    /// Named `defaults`.
    defaults: HashMap<Vec<u8>, Proxy>,
    /// The `defaults` that were read last.
    latest: Proxy,
    backends: HashMap<Vec<u8>, Proxy>,
}

/// Names the backends for which HAProxy would not load the state file, if any, in a sentence.
///
/// `files` are the contents of the configuration files, in order. A backend that they do not contain is ignored.
#[must_use]
pub fn not_loaded<'a>(
    files: &[impl AsRef<[u8]>],
    path: &Path,
    backends: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let mut reader = Reader::default();
    for file in files {
        reader.file(file.as_ref());
    }
    let is_left_out =
        |name: &&str| reader.backends.get(name.as_bytes()).is_some_and(|proxy| !reader.loads(proxy, name, path));
    let mut left_out: Vec<&str> = backends.into_iter().filter(is_left_out).collect();
    left_out.sort_unstable();
    left_out.dedup();
    let named = left_out.iter().take(NAMED).map(|name| excerpt(name.as_bytes(), 200)).collect::<Vec<_>>().join(", ");
    let more = match left_out.len() {
        0 => return None,
        count @ ..=NAMED => {
            if count == 1 {
                "the backend ".to_owned() + &named
            } else {
                "the backends ".to_owned() + &named
            }
        }
        count => format!("the backends {named} and {} more", count - NAMED),
    };
    Some(format!(
        "a reload of HAProxy forgets what is set in {more}, because its configuration does not load the state file \
         {path} there; add 'server-state-file {path}' to its global section and 'load-server-state-from-file global' to \
         its defaults",
        path = path.display()
    ))
}

impl Reader {
    fn file(&mut self, content: &[u8]) {
        let mut section = Section::Other;
        let mut depth = 0usize;
        for line in content.split(|byte| *byte == b'\n') {
            let Some(words) = words(skip_spaces(line), &self.environment) else { continue };
            let Some((keyword, operands)) = words.split_first() else { continue };
            let operand = operands.first();
            match (keyword.bytes.as_slice(), &section) {
                (b".if", _) => depth += 1,
                (b".endif", _) => depth = depth.saturating_sub(1),
                (b"global", _) => section = Section::Global,
                (b"defaults", _) => section = self.defaults(operands),
                (b"backend" | b"listen", _) => section = self.backend(operands),
                (keyword, _) if begins_other(keyword) => section = Section::Other,
                (b"server-state-base", Section::Global) => set(&mut self.base, operand, depth),
                (b"server-state-file", Section::Global) => set(&mut self.file, operand, depth),
                (b"load-server-state-from-file", section) => {
                    self.each(section, |proxy| set(&mut proxy.from, operand, depth));
                }
                (b"server-state-file-name", section) => {
                    self.each(section, |proxy| set(&mut proxy.name, operand, depth));
                }
                _ => {}
            }
        }
    }

    /// Begins `defaults [NAME] [from OTHER]`.
    fn defaults(&mut self, operands: &[Word]) -> Section {
        let name = operands.first().filter(|word| word.bytes != b"from").map(|word| word.bytes.clone());
        self.latest = self.parent(operands).unwrap_or_default();
        let name = name.unwrap_or_default();
        self.defaults.insert(name.clone(), self.latest.clone());
        Section::Defaults(name)
    }

    /// Begins `backend NAME [from DEFAULTS]`.
    fn backend(&mut self, operands: &[Word]) -> Section {
        let Some(name) = operands.first().filter(|name| !name.unknown) else { return Section::Other };
        let proxy = self.parent(operands).unwrap_or_else(|| self.latest.clone());
        self.backends.insert(name.bytes.clone(), proxy);
        Section::Backend(name.bytes.clone())
    }

    /// Finds the `defaults` that a section names.
    fn parent(&self, operands: &[Word]) -> Option<Proxy> {
        let mut rest = operands.iter().skip_while(|word| word.bytes != b"from");
        rest.next()?;
        self.defaults.get(&rest.next()?.bytes).cloned()
    }

    /// Applies a line to its section.
    fn each(&mut self, section: &Section, apply: impl Fn(&mut Proxy)) {
        match section {
            Section::Global | Section::Other => {}
            Section::Backend(name) => self.backends.get_mut(name).into_iter().for_each(apply),
            Section::Defaults(name) => {
                apply(&mut self.latest);
                self.defaults.get_mut(name).into_iter().for_each(apply);
            }
        }
    }

    /// Tells whether a backend may load the file.
    fn loads(&self, proxy: &Proxy, backend: &str, path: &Path) -> bool {
        proxy.from.iter().any(|from| match from.as_deref() {
            None => true,
            Some(b"global") => self.file.iter().any(|file| self.leads_to(file.as_deref(), path)),
            Some(b"local") if proxy.name.is_empty() => self.leads_to(Some(backend.as_bytes()), path),
            Some(b"local") => proxy.name.iter().any(|name| match name.as_deref() {
                Some(b"use-backend-name" | b"") => self.leads_to(Some(backend.as_bytes()), path),
                name => self.leads_to(name, path),
            }),
            Some(_) => false,
        })
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

/// Takes a value: replaces the former one, or adds a possible one within an `.if`.
fn set(possible: &mut Possible, operand: Option<&Word>, depth: usize) {
    if depth == 0 {
        possible.clear();
    }
    possible.push(match operand {
        Some(word) if word.unknown => None,
        Some(word) => Some(word.bytes.clone()),
        None => Some(Vec::new()),
    });
}

/// Tells whether a word begins a section that cannot name a state file.
fn begins_other(keyword: &[u8]) -> bool {
    const OTHERS: [&[u8]; 8] =
        [b"frontend", b"peers", b"resolvers", b"userlist", b"mailers", b"program", b"cache", b"http-errors"];
    OTHERS.contains(&keyword)
}

/// Tells whether both paths lead to the same place.
fn is_same(one: &Path, other: &Path) -> bool {
    let plain = |path: &Path| path.components().collect::<PathBuf>();
    let real = |path: &Path| Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    plain(one) == plain(other) || real(one).is_some_and(|one| real(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn warns(text: &str) -> bool {
        let path = Path::new("/var/lib/haproxy/state");
        let warning = not_loaded(&[text], path, ["app", "app", "not-there"]);
        if let Some(warning) = &warning {
            assert!(warning.contains("the backend app,") && warning.contains("/var/lib/haproxy/state"), "{warning}");
        }
        warning.is_some()
    }

    const FILE: &str = "global\n server-state-file /var/lib/haproxy/state\n";
    const BASE: &str = "global\n server-state-base /var/lib/haproxy/\n server-state-file \"state\" # x\n";

    #[test]
    fn what_is_loaded_is_no_warning() {
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
            format!("{FILE}backend other\n"),
            String::new(),
        ] {
            assert!(!warns(&text), "{text}");
        }
    }

    #[test]
    fn what_is_not_loaded_is_a_warning() {
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
        ] {
            assert!(warns(&text), "{text}");
        }
    }

    #[test]
    fn local_files_have_the_name_of_their_backend() {
        let text =
            "global\n server-state-base /s\ndefaults\n load-server-state-from-file local\nbackend app\nbackend b\n";
        assert_eq!(not_loaded(&[text], Path::new("/s/app"), ["app"]), None);
        assert!(not_loaded(&[text], Path::new("/s/app"), ["b"]).is_some());
        let text = text.replace("local\n", "local\n server-state-file-name use-backend-name\n");
        assert_eq!(not_loaded(&[text], Path::new("/s/b"), ["b"]), None);
    }

    #[test]
    fn several_files_are_one_configuration_and_few_backends_are_named() {
        let files = ["backend a\nbackend b\nbackend c\nbackend d\nbackend e\n", FILE];
        let warning = not_loaded(&files, Path::new("/var/lib/haproxy/state"), ["e", "d", "c", "b", "a"]).unwrap();
        assert!(warning.contains("the backends a, b, c and 2 more,"), "{warning}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>(), text in "(global|defaults|backend|from|server-state-(file|base|file-name)|load-server-state-from-file|local|[.]if|[.]endif|[\"'$ \n/a]){0,60}") {
            let _ = not_loaded(&[bytes.as_slice(), text.as_bytes()], Path::new("/a"), ["a", ""]);
        }
    }
}
