//! A controller: a folder with playbooks, and one of the two versions of ansible-core that are tested.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Folder, on_every_version, repository};
use crate::tool::{Ran, installed, run, tool};

/// The environments under `.cache/ansible/` with the oldest and the newest ansible-core.
pub(crate) const VERSIONS: [&str; 2] = ["oldest", "newest"];

/// The versions for a test of what no version of Ansible does in its own way: the newest is enough for `make test`.
pub(crate) fn newest() -> &'static [&'static str] {
    if on_every_version() { &VERSIONS } else { &VERSIONS[1..] }
}

/// Where the playbooks are, with this repository's collection beside them.
#[derive(Debug, Clone)]
pub(crate) struct Controller {
    version: &'static str,
    pub(crate) folder: Folder,
    /// `PATH` of what runs here, and of targets by the connection `local`.
    path: OsString,
}

impl Controller {
    pub(crate) fn new(version: &'static str, path: impl Into<OsString>) -> Self {
        let controller = Self::without_collection(version, path);
        let place = controller.folder.join("collections/ansible_collections/lbops");
        std::fs::create_dir_all(&place).expect("a folder");
        symlink(repository().join("modules/ansible"), place.join("haproxy")).expect("a link to the collection");
        controller
    }

    pub(crate) fn without_collection(version: &'static str, path: impl Into<OsString>) -> Self {
        let controller = Self { version, folder: Folder::new(), path: path.into() };
        // Ansible looks for results every millisecond, which takes a twentieth of a processor while a task waits.
        controller.write(".ansible.cfg", "[defaults]\ninternal_poll_interval = 0.01\n");
        controller
    }

    /// A program of the environment, as in `ansible-doc`, with nothing of the user's own settings.
    pub(crate) fn command(&self, program: &str) -> Command {
        let binaries = installed("ansible").join(self.version).join("bin");
        let mut command = tool(binaries.join(program));
        let mut path = self.path.clone();
        path.push(":");
        path.push(&binaries);
        without_settings(&mut command)
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("ANSIBLE_COLLECTIONS_PATH", self.folder.join("collections"))
            .env("ANSIBLE_LOCALHOST_WARNING", "0")
            .env("ANSIBLE_NOCOLOR", "1")
            // Reports are looked for in the output: no line may be broken.
            .env("COLUMNS", "10000")
            // The collection is a link into the repository.
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        self.folder.write(name, content)
    }

    /// `ansible-playbook` on an inventory, with these words.
    pub(crate) fn playbook(&self, inventory: impl AsRef<Path>, playbook: &str, words: &[&str]) -> Command {
        let mut command = self.command("ansible-playbook");
        command.arg("-i").arg(inventory.as_ref()).arg(self.write("play.yml", playbook)).args(words);
        command
    }

    /// Runs tasks on this machine itself, and gives what was shown.
    pub(crate) fn local(&self, tasks: &str, words: &[&str]) -> Ran {
        run(&mut self.playbook("localhost,", &play(tasks), &[&["-c", "local"], words].concat()))
    }
}

/// Takes the user's own settings of Ansible away from a command.
pub(crate) fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ANSIBLE_")) {
        command.env_remove(name);
    }
    command
}

/// A play of these tasks for all hosts of the inventory.
pub(crate) fn play(tasks: &str) -> String {
    format!("- name: Test\n  hosts: all\n  gather_facts: false\n  tasks:\n{}", indented(tasks, 4))
}

pub(crate) fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}
