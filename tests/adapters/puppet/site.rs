//! Puppet with folders of its own, and the module in them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Folder, Host, Stage, repository};
use crate::tool::{self, Ran};

/// Folders for Puppet, which shares nothing with the machine's own.
pub(crate) struct Site {
    pub(crate) folder: Folder,
    path: OsString,
    /// The host whose program is first in `PATH`; its folder goes with it.
    _host: Option<Host>,
}

impl Site {
    /// On a host with the instances of this stage.
    pub(crate) fn on(stage: &Stage) -> Self {
        let host = Host::with(stage.instances());
        let site = Self::with_path(host.path());
        Self { _host: Some(host), ..site }
    }

    /// With this `PATH`.
    pub(crate) fn with_path(path: impl Into<OsString>) -> Self {
        let site = Self { folder: Folder::new(), path: path.into(), _host: None };
        fs::create_dir(site.folder.join("modules")).expect("a folder");
        symlink(module(), site.folder.join("modules/haproxy_server")).expect("a link to the module");
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

    /// `puppet APPLICATION …`.
    pub(crate) fn puppet(&self, application: &str) -> Command {
        let mut command = tool::tool("puppet");
        command.arg(application).args(self.options()).env("PATH", &self.path).env("HOME", self.folder.path());
        command
    }

    /// `puppet apply --detailed-exitcodes`, which is to end with this exit code.
    pub(crate) fn apply(&self, manifest: &str, options: &[&str], code: i32) -> Ran {
        let file = self.folder.write("site.pp", manifest);
        let mut command = self.puppet("apply");
        tool::run(command.arg("--detailed-exitcodes").args(options).arg(file)).ended_with(code)
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

/// `PATH` with this folder first.
pub(crate) fn path_with(folder: &Path) -> OsString {
    let mut path = folder.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").as_deref().unwrap_or(OsStr::new("/usr/bin:/bin")));
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
