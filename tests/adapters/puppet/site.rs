//! Puppet with folders of its own, and the module in them.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::loaded::Loaded;
use crate::support::{Folder, Host, Stage, repository};
use crate::tool::{self, Ran};

/// A version of Puppet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Puppet {
    Seven,
    Eight,
}

impl Puppet {
    const ALL: [Self; 2] = [Self::Seven, Self::Eight];

    /// The major version.
    fn name(self) -> &'static str {
        match self {
            Self::Seven => "7",
            Self::Eight => "8",
        }
    }

    /// The folder of its commands where it was unpacked; otherwise it may be that of `PATH`.
    fn unpacked(self) -> Option<PathBuf> {
        let folder = repository().join(".cache/puppet").join(self.name()).join("bin");
        folder.exists().then_some(folder)
    }

    /// Every version that can be run here, the newest last.
    pub(crate) fn found() -> &'static [Self] {
        // To start Puppet takes most of a second.
        static FOUND: OnceLock<Vec<Puppet>> = OnceLock::new();
        FOUND.get_or_init(Self::look)
    }

    fn look() -> Vec<Self> {
        let output = Command::new("puppet").arg("--version").output();
        let own = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let is_own = |puppet: &Self| own.starts_with(&format!("{}.", puppet.name()));
        Self::ALL.into_iter().filter(|puppet| puppet.unpacked().is_some() || is_own(puppet)).collect()
    }

    /// Whether no newer one can be run here.
    pub(crate) fn is_newest(self) -> bool {
        Self::found().last() == Some(&self)
    }

    /// Whether its tests write what is generated from the schema and the sources anew, instead of comparing it.
    pub(crate) fn updates(self) -> bool {
        std::env::var_os("UPDATE_SCHEMA").is_some() && self.is_newest()
    }

    /// Whether a newer one writes now what this one would compare.
    pub(crate) fn is_outdated(self) -> bool {
        std::env::var_os("UPDATE_SCHEMA").is_some() && !self.is_newest()
    }

    /// A line of Puppet 8 as this version logs it: under noop 7 has the sentence of the program on the resource.
    pub(crate) fn logged(self, line: &str) -> String {
        match (self, line.strip_suffix(" (noop)").and_then(|line| line.split_once("]/ensure: "))) {
            (Self::Seven, Some((resource, sentence))) => format!("{resource}]: {sentence}"),
            (Self::Seven, None) | (Self::Eight, _) => line.to_owned(),
        }
    }

    /// A `PATH` whose `puppet`, `ruby` and `rspec` are of this version.
    pub(crate) fn path(self) -> OsString {
        self.before(std::env::var_os("PATH").as_deref().unwrap_or(OsStr::new("/usr/bin:/bin")))
    }

    /// This `PATH` with the commands of this version first.
    fn before(self, path: &OsStr) -> OsString {
        self.unpacked().map_or_else(|| path.to_owned(), |folder| joined(folder.as_os_str(), path))
    }

    /// A command that is looked up among those of this version, and ends after a while.
    pub(crate) fn tool(self, name: &str) -> Command {
        let mut command = tool::tool(name);
        command.env("PATH", self.path());
        command
    }
}

/// Folders for Puppet, which shares nothing with the machine's own.
pub(crate) struct Site {
    pub(crate) folder: Folder,
    path: OsString,
    /// The host whose program is first in `PATH`; its folder goes with it.
    _host: Option<Host>,
    /// Runs its manifests, once there is one.
    loaded: OnceCell<Loaded>,
}

impl Site {
    /// On a host with the instances of this stage.
    pub(crate) fn on(puppet: Puppet, stage: &Stage) -> Self {
        let host = Host::with(stage.instances());
        let site = Self::with_path(puppet, host.path());
        Self { _host: Some(host), ..site }
    }

    /// With this `PATH` behind the commands of Puppet.
    pub(crate) fn with_path(puppet: Puppet, path: impl AsRef<OsStr>) -> Self {
        let site =
            Self { folder: Folder::new(), path: puppet.before(path.as_ref()), _host: None, loaded: OnceCell::new() };
        fs::create_dir(site.folder.join("modules")).expect("a folder");
        site.link("haproxy_server", &module());
        // No manifest here asks for facts, and to gather them takes longer than all else in a run.
        fs::create_dir_all(site.folder.join("var/yaml/facts")).expect("a folder");
        site.folder.write("var/yaml/facts/site.yaml", "--- !ruby/object:Puppet::Node::Facts\nname: site\nvalues: {}\n");
        site
    }

    /// The options that keep Puppet in these folders.
    pub(crate) fn options(&self) -> Vec<OsString> {
        let folders = [("--confdir", "conf"), ("--vardir", "var"), ("--codedir", "code"), ("--modulepath", "modules")];
        let folders = folders.map(|(option, name)| [option.into(), self.folder.join(name).into_os_string()]);
        let others = ["--color", "false", "--certname", "site", "--facts_terminus", "yaml"];
        folders.into_iter().flatten().chain(others.map(OsString::from)).collect()
    }

    /// Puts a module where Puppet finds it.
    pub(crate) fn link(&self, name: &str, module: &Path) {
        symlink(module, self.folder.join("modules").join(name)).expect("a link to a module");
    }

    /// Gives the environment this data in Hiera.
    pub(crate) fn hiera(&self, data: &str) {
        let environment = self.folder.join("code/environments/production");
        fs::create_dir_all(environment.join("data")).expect("a folder");
        let hierarchy = "version: 5\nhierarchy: [{name: Common, path: common.yaml}]\n";
        fs::write(environment.join("hiera.yaml"), hierarchy).expect("a file of our own");
        fs::write(environment.join("data/common.yaml"), data).expect("a file of our own");
    }

    /// Its `PATH`.
    pub(crate) fn path(&self) -> &OsStr {
        &self.path
    }

    fn words(&self, application: &str) -> Vec<OsString> {
        [vec![application.into()], self.options()].concat()
    }

    /// `puppet APPLICATION …`.
    pub(crate) fn puppet(&self, application: &str) -> Command {
        let mut command = tool::tool("puppet");
        command.args(self.words(application)).env("PATH", &self.path).env("HOME", self.folder.path());
        command
    }

    /// `puppet apply --detailed-exitcodes`, which is to end with this exit code.
    pub(crate) fn apply(&self, manifest: &str, options: &[&str], code: i32) -> Ran {
        let file = self.folder.write("site.pp", manifest).into_os_string().into_string().expect("a path of text");
        self.run("apply", &[&["--detailed-exitcodes"], options, &[&file]].concat()).ended_with(code)
    }

    /// `puppet APPLICATION` with these words, in a process where Puppet was loaded before.
    pub(crate) fn run(&self, application: &str, words: &[&str]) -> Ran {
        let loaded = self.loaded.get_or_init(|| self.load(&self.path));
        let all = ["puppet".into()].into_iter().chain(self.words(application));
        loaded.run(all.chain(words.iter().map(OsString::from)))
    }

    /// Puppet that runs with this `PATH`.
    pub(crate) fn load(&self, path: &OsStr) -> Loaded {
        let mut ruby = Command::new("ruby");
        ruby.env("PATH", path).env("HOME", self.folder.path());
        Loaded::start(ruby, "puppet.rb")
    }

    /// The report of the last run, as Puppet keeps it, with its lines joined.
    pub(crate) fn report(&self) -> String {
        let text = fs::read_to_string(self.folder.join("var/state/last_run_report.yaml")).expect("a report");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Writes a program into a folder.
pub(crate) fn script(folder: &Folder, name: &str, text: &str) -> PathBuf {
    let file = folder.write(name, text);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a file of our own");
    file
}

/// The module's folder in the repository.
pub(crate) fn module() -> PathBuf {
    repository().join("modules/puppet")
}

/// This `PATH` with this folder first.
pub(crate) fn path_with(folder: &Path, path: impl AsRef<OsStr>) -> OsString {
    joined(folder.as_os_str(), path.as_ref())
}

fn joined(first: &OsStr, rest: &OsStr) -> OsString {
    let mut path = first.to_owned();
    path.push(":");
    path.push(rest);
    path
}

/// Asserts that each of these lines or parts of lines is there, in this order.
pub(crate) fn assert_says(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is missing, or not in its place, in\n{text}"));
        rest = &rest[at + part.len()..];
    }
}
