//! One minion without a master, as `salt-call --local` is it.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::loaded::Loaded;
use crate::support::{Folder, Host, on_every_version, repository};
use crate::tool::{Ran, installed, run, tool};

/// An installed version of Salt.
#[derive(Debug, Clone)]
pub(super) struct Salt {
    pub(super) version: String,
    /// Where a link leads to it: Salt takes itself for a proxy minion where `proxy` is anywhere in the path that it was
    /// called by (`is_proxy()` in its `salt/utils/platform.py`), as in that of a clone with this repository's name.
    place: Folder,
}

impl Salt {
    /// Every version that there are pins for, the oldest first.
    pub(super) fn versions() -> Vec<Self> {
        let folder = repository().join("tests/adapters/salt");
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let version = |name: String| Some(name.strip_prefix("requirements-")?.strip_suffix(".txt")?.to_owned());
        let mut versions: Vec<String> = names.filter_map(version).collect();
        versions.sort();
        assert!(versions.len() > 1, "only {versions:?} to test on");
        let linked = |version: String| {
            let place = Folder::new();
            symlink(installed(&format!("salt/{version}")), place.join("salt")).unwrap();
            Self { version, place }
        };
        versions.into_iter().map(linked).collect()
    }

    /// The versions for a test of what no version of Salt does in its own way: the newest is enough for `make test`.
    pub(super) fn newest() -> Vec<Self> {
        let mut versions = Self::versions();
        if on_every_version() { versions } else { versions.split_off(versions.len() - 1) }
    }

    /// A command of this version, which ends after a while.
    pub(super) fn tool(&self, name: &str) -> Command {
        let mut command = tool(self.program(name));
        quiet(&mut command);
        command
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.programs().join(name)
    }

    /// The folder of its commands.
    pub(super) fn programs(&self) -> PathBuf {
        self.place.join("salt/bin")
    }
}

/// Python's warnings about Salt itself are none of ours.
pub(super) fn quiet(command: &mut Command) {
    command.env("PYTHONWARNINGS", "ignore");
}

/// The modules as they lie in the repository.
pub(super) fn modules() -> PathBuf {
    repository().join("modules/salt")
}

/// Who runs the tests; Salt wants to know.
pub(super) fn user() -> String {
    run(Command::new("id").arg("-un")).ended_with(0).out.trim().to_owned()
}

/// A minion with a folder of state files, the modules, and the `haproxy_server` of a host.
#[derive(Debug)]
pub(super) struct Minion {
    salt: Salt,
    folder: Folder,
    host: Host,
    /// Makes its calls, once there is one.
    loaded: OnceCell<Loaded>,
}

impl Minion {
    /// With the modules in its `file_roots`, and synchronised.
    pub(super) fn new(salt: &Salt, host: &Host) -> Self {
        let minion = Self::bare(salt, host);
        minion.configure(&format!("[{}, {}]", minion.folder.join("states").display(), modules().display()), "");
        minion.call(["saltutil.sync_all"]).ended_with(0);
        minion
    }

    /// Without any modules.
    pub(super) fn bare(salt: &Salt, host: &Host) -> Self {
        let folder = Folder::new();
        fs::create_dir(folder.join("states")).unwrap();
        let minion = Self { salt: salt.clone(), folder, host: host.clone(), loaded: OnceCell::new() };
        minion.configure("[]", "");
        minion
    }

    /// Writes its configuration anew, with more lines.
    pub(super) fn configure(&self, roots: &str, more: &str) {
        let (folder, user) = (self.folder.path().display(), user());
        let text = format!(
            "id: lb1\nuser: {user}\nroot_dir: {folder}/root\nfile_client: local\nfile_roots: {{base: {roots}}}\n{more}\n"
        );
        self.folder.write("minion", &text);
    }

    /// Names another program than the one of `PATH`.
    pub(super) fn use_executable(&self, executable: &Path) {
        let lines = format!("haproxy_server: {{executable: {}}}", executable.display());
        self.configure("[]", &lines);
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// `salt-call` with these words.
    pub(super) fn command<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Command {
        let mut command = self.salt.tool("salt-call");
        command.args(self.options()).args(words);
        self.with_environment(&mut command);
        command
    }

    fn options(&self) -> Vec<OsString> {
        let words = ["--local", "--out=json", "--log-level=critical", "--config-dir"].map(OsString::from);
        words.into_iter().chain([self.folder.path().into()]).collect()
    }

    fn with_environment(&self, command: &mut Command) {
        command.env("PATH", self.host.path()).env("XDG_RUNTIME_DIR", self.folder.path());
    }

    pub(super) fn call<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Ran {
        let loaded = self.loaded.get_or_init(|| {
            let mut python = Command::new(self.salt.program("python"));
            quiet(&mut python);
            self.with_environment(&mut python);
            Loaded::start(python, "salt_call.py")
        });
        let program = [self.salt.program("salt-call").into_os_string()];
        let words = words.into_iter().map(|word| word.as_ref().to_owned());
        loaded.run(program.into_iter().chain(self.options()).chain(words))
    }

    /// What a function returns that succeeds.
    pub(super) fn value<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Value {
        value(&self.call(words).ended_with(0))
    }

    /// What Salt says of a function that fails.
    pub(super) fn failure<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> String {
        let ran = self.call(words).ended_with(1);
        assert!(!ran.err.contains("Traceback"), "{}", ran.err);
        ran.err
    }

    /// Writes a state file, which [`Self::apply`] applies.
    pub(super) fn states(&self, text: &str) {
        self.folder.write("states/states.sls", text);
    }

    /// Applies the state file, in test mode where `words` say so, and returns each result by the state's ID.
    pub(super) fn apply(&self, words: &[&str], code: i32) -> Results {
        let ran = self.call([&["state.apply", "states"], words].concat()).ended_with(code);
        let results = value(&ran).as_object().unwrap_or_else(|| panic!("no results: {}{}", ran.out, ran.err)).clone();
        Results(results.into_iter().map(|(_, result)| result).collect())
    }
}

pub(super) fn value(ran: &Ran) -> Value {
    let document: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    document["local"].clone()
}

/// The results of a run of states.
#[derive(Debug)]
pub(super) struct Results(Vec<Value>);

impl Results {
    /// The result of the state with this ID, the last of them.
    pub(super) fn of(&self, id: &str) -> &Value {
        let found = self.0.iter().filter(|result| result["__id__"] == id);
        let found = found.max_by_key(|result| result["__run_num__"].as_u64());
        found.unwrap_or_else(|| panic!("no {id} among {:#?}", self.0))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Value> {
        self.0.iter()
    }
}

/// The comment of a result.
pub(super) fn comment(result: &Value) -> &str {
    result["comment"].as_str().unwrap_or_else(|| panic!("no comment in {result}"))
}
