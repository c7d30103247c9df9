//! What this program needs of a configuration: the stats sockets, who HAProxy becomes, the state files it loads, and
//! where its servers are.
//!
//! This is the only reader of haproxy.cfg. It goes through the files once, line by line as `parse_cfg()` of HAProxy's
//! `src/cfgparse.c` does. `setenv` and its kin act at once, as in `src/cfgparse-global.c`. A branch of an `.if` that is
//! known not to be taken is left out; of stats sockets, those in a branch that may be taken come after those that
//! certainly count.

mod condition;
pub(super) mod lexer;
pub(super) mod servers;
pub(super) mod state_files;

use condition::{Truth, evaluate};
use lexer::{Environment, Variable, Word, is_space, skip_spaces, words};
use servers::Configured;
use state_files::{Proxies, StateFileRules};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The words that begin a section (all `REGISTER_CONFIG_SECTION()` from 2.2 to 3.5).
pub(crate) const SECTIONS: [&[u8]; 25] = [
    b"acme",
    b"backend",
    b"cache",
    b"crt-store",
    b"defaults",
    b"fcgi-app",
    b"frontend",
    b"global",
    b"healthcheck",
    b"http-errors",
    b"listen",
    b"log-forward",
    b"log-profile",
    b"mailers",
    b"namespace_list",
    b"peers",
    b"program",
    b"resolvers",
    b"ring",
    b"ruleset",
    b"spoe-agent",
    b"spoe-group",
    b"spoe-message",
    b"traces",
    b"userlist",
];

/// A user or a group as a configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Account {
    /// By its name.
    Name(String),
    /// By its number.
    Id(u32),
}

/// One address of a `stats socket` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    /// The address as HAProxy sees it; `None` if a variable in it cannot be seen.
    pub(super) address: Option<Vec<u8>>,
    /// Which of the files it is in, counted from 0.
    pub(super) file: usize,
    /// Whether it is in a branch that may not have been taken.
    pub(super) is_open: bool,
}

/// What the configuration says.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// The stats sockets: those that certainly count, in order, then the others.
    pub(super) sockets: Vec<Declared>,
    /// The users that HAProxy may become (`user`, `uid`).
    pub(super) users: Vec<Account>,
    /// The groups that HAProxy may become (`group`, `gid`).
    pub(super) groups: Vec<Account>,
    /// The folder that HAProxy makes its root (`chroot`).
    pub(super) chroot: Option<PathBuf>,
    /// Which state file each backend loads.
    pub(super) state_files: StateFileRules,
    /// Where the servers are, if that was to be read.
    pub(super) servers: Option<Configured>,
}

/// One `.if` with its `.elif` and `.else`.
struct Branch {
    /// Whether this branch is taken.
    now: Truth,
    /// Whether this or an earlier one is.
    any: Truth,
}

/// The section that a line stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Section {
    Global,
    /// A `defaults`, a `backend` or a `listen`.
    Proxy(state_files::Section),
    Other,
}

/// Reads the files of one HAProxy, in order.
pub(super) struct Reader {
    environment: Environment,
    settings: Settings,
    proxies: Proxies,
    branches: Vec<Branch>,
    section: Section,
    file: usize,
}

impl Reader {
    /// Starts with the environment of the process.
    pub(super) fn new(environment: Environment) -> Self {
        Self {
            environment,
            settings: Settings::default(),
            proxies: Proxies::default(),
            branches: Vec::new(),
            section: Section::Other,
            file: 0,
        }
    }

    /// Reads the servers as well, which may be many.
    pub(super) fn with_servers(mut self) -> Self {
        self.settings.servers = Some(Configured::default());
        self
    }

    /// Reads the next file. Sections and `.if` blocks do not extend into it from the previous one.
    pub(super) fn file(&mut self, content: &[u8]) {
        self.branches.clear();
        self.section = Section::Other;
        for line in content.split(|byte| *byte == b'\n') {
            self.line(skip_spaces(line));
        }
        self.file += 1;
    }

    /// Returns what the files say together.
    pub(super) fn finish(mut self) -> Settings {
        self.settings.sockets.sort_by_key(|declared| declared.is_open);
        self.settings.state_files = self.proxies.finish();
        self.settings
    }

    fn line(&mut self, line: &[u8]) {
        // `[…]` is a scope, which has no words.
        if line.starts_with(b"[") || !(self.section == Section::Global || self.may_matter(line)) {
            return;
        }
        let Some(mut words) = words(line, &self.environment) else { return };
        // An empty word is the end of the line.
        words.truncate(words.iter().take_while(|word| word.unknown || !word.bytes.is_empty()).count());
        let Some((keyword, operands)) = words.split_first() else { return };
        if keyword.unknown {
            return;
        }
        if keyword.bytes.starts_with(b".") {
            self.directive(&keyword.bytes, operands);
            return;
        }
        let live = self.branches.iter().fold(Truth::Yes, |live, branch| live.and(branch.now));
        if live == Truth::No {
            return;
        }
        if SECTIONS.contains(&keyword.bytes.as_slice()) {
            self.section = match keyword.bytes.as_slice() {
                b"global" => Section::Global,
                b"defaults" => Section::Proxy(self.proxies.defaults(operands)),
                b"backend" | b"listen" => self.backend(operands),
                _ => Section::Other,
            };
            return;
        }
        match &self.section {
            Section::Global => self.keyword(&keyword.bytes, operands, live),
            Section::Proxy(section) => {
                self.proxies.keyword(section, &keyword.bytes, operands, live);
                if let (Some(servers), state_files::Section::Backend(backend)) = (&mut self.settings.servers, section) {
                    servers.keyword(backend, &keyword.bytes, operands, live);
                }
            }
            Section::Other => {}
        }
    }

    /// Begins a `backend` or `listen`.
    fn backend(&mut self, operands: &[Word]) -> Section {
        let section = self.proxies.backend(operands);
        if let (Some(servers), Some(state_files::Section::Backend(name))) = (&mut self.settings.servers, &section) {
            servers.backend(name);
        }
        section.map_or(Section::Other, Section::Proxy)
    }

    /// Tells whether a line outside `global` can be anything but a keyword of its section, without splitting all of it.
    fn may_matter(&self, line: &[u8]) -> bool {
        let first = line.split(|byte| is_space(*byte) || *byte == b'#').next().unwrap_or_default();
        let is_plain = !first.iter().any(|byte| matches!(byte, b'\\' | b'\'' | b'"'));
        let is_server = self.settings.servers.is_some() && servers::KEYWORDS.contains(&first);
        !is_plain
            || is_server
            || first.starts_with(b".")
            || SECTIONS.contains(&first)
            || state_files::KEYWORDS.contains(&first)
    }

    /// Follows `.if`, `.elif`, `.else` and `.endif`; the other directives only print.
    fn directive(&mut self, directive: &[u8], operands: &[Word]) {
        let condition = || {
            let text = operands.iter().map(|word| word.bytes.as_slice()).collect::<Vec<_>>().join(&b' ');
            let is_known = operands.iter().all(|word| !word.unknown);
            if is_known { evaluate(&text, &self.environment) } else { Truth::Open }
        };
        match directive {
            b".if" => {
                let now = condition();
                self.branches.push(Branch { now, any: now });
            }
            b".elif" => {
                let holds = condition();
                if let Some(branch) = self.branches.last_mut() {
                    branch.now = branch.any.not().and(holds);
                    branch.any = branch.any.or(holds);
                }
            }
            b".else" => {
                if let Some(branch) = self.branches.last_mut() {
                    branch.now = branch.any.not();
                }
            }
            b".endif" => drop(self.branches.pop()),
            _ => {}
        }
    }

    /// Takes one line of a `global` section.
    fn keyword(&mut self, keyword: &[u8], operands: &[Word], live: Truth) {
        match (keyword, operands) {
            (b"stats", [socket, address, ..]) if socket.bytes == b"socket" => self.socket(address, live),
            (b"user", [name, ..]) => self.settings.users.extend(named(name)),
            (b"uid", [id, ..]) => self.settings.users.extend(numbered(id)),
            (b"group", [name, ..]) => self.settings.groups.extend(named(name)),
            (b"gid", [id, ..]) => self.settings.groups.extend(numbered(id)),
            (b"chroot", [folder, ..]) if !folder.unknown => {
                self.settings.chroot = Some(PathBuf::from(OsString::from_vec(folder.bytes.clone())));
            }
            (b"server-state-base" | b"server-state-file", _) => self.proxies.global(keyword, operands, live),
            (b"setenv", [name, value, ..]) => self.set(name, value, live),
            (b"presetenv", [name, value, ..]) => match self.environment.get(&name.bytes) {
                Variable::Unset => self.set(name, value, live),
                Variable::Set(_) | Variable::Unknown => {}
            },
            (b"unsetenv", names) => names.iter().for_each(|name| match live {
                Truth::Yes => self.environment.unset(&name.bytes),
                Truth::No | Truth::Open => self.environment.set(&name.bytes, None),
            }),
            (b"resetenv", names) if live == Truth::Yes => self.environment.keep_only(names),
            _ => {}
        }
    }

    fn set(&mut self, name: &Word, value: &Word, live: Truth) {
        let is_known = live == Truth::Yes && !value.unknown;
        self.environment.set(&name.bytes, is_known.then(|| value.bytes.clone()));
    }

    /// Takes the addresses of a `stats socket` line, which commas may separate (`str2listener()`).
    fn socket(&mut self, word: &Word, live: Truth) {
        for address in word.bytes.split(|byte| *byte == b',').filter(|address| !address.is_empty()) {
            let address = if word.unknown { None } else { self.environment.expand(address) };
            let is_open = live != Truth::Yes;
            self.settings.sockets.push(Declared { address, file: self.file, is_open });
        }
    }
}

fn named(word: &Word) -> Option<Account> {
    if word.unknown { None } else { String::from_utf8(word.bytes.clone()).ok().map(Account::Name) }
}

fn numbered(word: &Word) -> Option<Account> {
    if word.unknown { None } else { std::str::from_utf8(&word.bytes).ok()?.parse().ok().map(Account::Id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(environ: Option<&str>, files: &[&str]) -> Settings {
        let environ = environ.map(|text| text.replace(' ', "\0").into_bytes());
        let mut reader = Reader::new(Environment::new(environ.as_deref()));
        files.iter().for_each(|content| reader.file(content.as_bytes()));
        reader.finish()
    }

    fn sockets(environ: Option<&str>, text: &str) -> Vec<String> {
        let sockets = read(environ, &[text]).sockets;
        let shown =
            |declared: Declared| declared.address.map_or("?".to_owned(), |address| String::from_utf8(address).unwrap());
        sockets.into_iter().map(shown).collect()
    }

    #[test]
    fn only_global_sections_count() {
        let text = "
            stats socket /nowhere
            global # here
                stats socket /a level admin
                stats timeout 30s
            defaults
                stats socket /no
            frontend f
                bind /no
                stats enable
            \"global\"
                stats 'socket' \"/b\"
            userlist u
                user mallory password x
            global
                stats socket ipv4@127.0.0.1:9999,/c,fd@3
            [a scope]
                stats socket /d";
        assert_eq!(sockets(Some(""), text), ["/a", "/b", "ipv4@127.0.0.1:9999", "/c", "fd@3", "/d"]);
        assert_eq!(read(Some(""), &[text]).users, []);
    }

    #[test]
    fn a_section_ends_with_its_file() {
        let settings = read(Some(""), &["global\nstats socket /a", "stats socket /no", "global\nstats socket /b"]);
        let files: Vec<_> = settings.sockets.iter().map(|declared| declared.file).collect();
        assert_eq!(files, [0, 2]);
    }

    #[test]
    fn who_haproxy_becomes_is_read() {
        let settings = read(Some(""), &["global\n user haproxy\n group \"web\"\n chroot /var/lib/haproxy\n"]);
        assert_eq!(settings.users, [Account::Name("haproxy".to_owned())]);
        assert_eq!(settings.groups, [Account::Name("web".to_owned())]);
        assert_eq!(settings.chroot, Some(PathBuf::from("/var/lib/haproxy")));
        let settings = read(Some(""), &["global\n uid 99\n gid 98\n uid x\n"]);
        assert_eq!((settings.users, settings.groups), (vec![Account::Id(99)], vec![Account::Id(98)]));
    }

    #[test]
    fn variables_come_from_the_process_and_the_configuration() {
        let text = "global
            stats socket \"/run/$NAME.sock\"
            stats socket /run/$NAME/x
            setenv NAME blue
            presetenv NAME green
            presetenv OTHER other
            stats socket \"${NAME}@$OTHER\"
            unsetenv NAME
            stats socket \"/${NAME-none}\"
            resetenv OTHER
            stats socket \"/${OTHER-none}\"";
        assert_eq!(sockets(Some("NAME=red"), text), ["/run/red.sock", "/run/red/x", "blue@other", "/none", "/other"]);
        assert_eq!(sockets(None, "global\nstats socket \"/$NAME\"\nstats socket /b\n"), ["?", "/b"]);
    }

    #[test]
    fn variables_that_haproxy_may_set_itself_are_unknown_rather_than_unset() {
        let text = "global
            stats socket \"/run/$HAPROXY_BRANCH.sock\"
            stats socket '/run/$HAPROXY_ELSE.sock'
            stats socket \"/run/${HAPROXY_ELSE-none}.sock\"
            stats socket \"/run/$HAPROXY_MINE.sock\"
            user \"$HAPROXY_USER\"
            .if defined(HAPROXY_MWORKER)
                stats socket /worker
            .endif";
        // The second is plain text to the lexer, and expanded as an address.
        assert_eq!(sockets(Some("HAPROXY_MINE=x HAPROXY_BRANCH=1.0"), text), ["?", "?", "?", "/run/x.sock", "/worker"]);
        let settings = read(Some(""), &[text]);
        assert_eq!(settings.users, []);
        assert!(settings.sockets.last().is_some_and(|declared| declared.is_open));
    }

    #[test]
    fn branches_that_are_not_taken_do_not_count() {
        let text = "global
            .if defined(BLUE)
                stats socket /blue
                .if 0
                    stats socket /no
                .endif
            .elif streq(\"$COLOR\",green)
                stats socket /green
            .else
                stats socket /red
            .endif
            .if version_atleast(2.4)
                stats socket /new
                setenv X y
            .else
                stats socket /old
            .endif
            .notice \"x\"
            stats socket /always
            stats socket \"/$X\"";
        assert_eq!(sockets(Some("BLUE=1 COLOR=green"), text), ["/blue", "/always", "?", "/new", "/old"]);
        assert_eq!(sockets(Some("COLOR=green"), text), ["/green", "/always", "?", "/new", "/old"]);
        assert_eq!(sockets(Some("COLOR=x"), text), ["/red", "/always", "?", "/new", "/old"]);
        let hidden = ["/always", "?", "/blue", "/green", "/red", "/new", "/old"];
        assert_eq!(sockets(None, text), hidden);
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        let text = "global\nstats socket\nstats socket '/open\nstats socket \"\" /x\n.endif\n.else\n.elif\nuser\nstats socket /a";
        assert_eq!(sockets(Some(""), text), ["/a"]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "(global|defaults|backend|from|server-state-(file|base|file-name)|load-server-state-from-file|local|stats socket|[.](if|elif|else|endif)|setenv|user|[\"'$ (){}\n,a1]){0,60}") {
            let mut reader = Reader::new(Environment::default());
            reader.file(&bytes);
            reader.file(text.as_bytes());
            let _ = reader.finish();
        }
    }
}
