//! Two load balancers, and the ways to run MilkCheck's commands on them.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use crate::support::{Folder, Haproxy, Host, Stage, repository};
use crate::tool::{Ran, installed, run, tool};

/// The folder of the adapter.
pub(super) const ADAPTER: &str = "modules/milkcheck";

/// What runs the commands of the file.
#[derive(Debug, Clone)]
pub(super) enum Runner {
    /// ClusterShell alone, which every machine has that ran `make tools`.
    ClusterShell,
    /// The real one, which is in no package registry.
    MilkCheck(PathBuf),
}

impl Runner {
    /// MilkCheck, where it is on PATH; if not, it says so.
    pub(super) fn milkcheck() -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&path).map(|folder| folder.join("milkcheck")).find(|file| file.is_file());
        if found.is_none() {
            static SAID: Once = Once::new();
            SAID.call_once(|| println!("skipped: milkcheck is not on PATH"));
        }
        found.map(Self::MilkCheck)
    }

    /// All that there are.
    pub(super) fn all() -> Vec<Self> {
        [Some(Self::ClusterShell), Self::milkcheck()].into_iter().flatten().collect()
    }
}

/// The load balancers `lb1` and `lb2`, and the hosts `web1` and `web2`, as `ssh` reaches them.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) lb: [Stage; 2],
    pub(super) folder: Folder,
    _hosts: [Host; 2],
}

impl Site {
    pub(super) fn start(haproxy: &Haproxy) -> Self {
        Self::start_with(haproxy, "")
    }

    /// Starts it with more words for each server line.
    pub(super) fn start_with(haproxy: &Haproxy, server_options: &str) -> Self {
        let lb = [(); 2].map(|()| Stage::start_with(haproxy, server_options, |setup| setup));
        let hosts = [0, 1].map(|which: usize| Host::with(lb[which].instances()));
        let folder = Folder::new();
        for sub in ["bin", "hosts", "hosts/web1", "hosts/web2"] {
            fs::create_dir(folder.join(sub)).expect("a folder for the site");
        }
        for (host, name) in hosts.iter().zip(["lb1", "lb2"]) {
            symlink(host.folder(), folder.join("hosts").join(name)).expect("a link to the host");
        }
        let hosts_folder = folder.join("hosts").display().to_string();
        let ssh = SSH.replace("HOSTS", &hosts_folder).replace("LOG", &folder.join("ssh.log").display().to_string());
        let site = Self { lb, folder, _hosts: hosts };
        site.script("bin/ssh", &ssh);
        site
    }

    /// Writes a program.
    pub(super) fn script(&self, name: &str, text: &str) -> PathBuf {
        let source = self.folder.write("script", text);
        let to = self.folder.join(name);
        // By another process, so that no test that forks meanwhile holds it open for writing.
        let done = Command::new("install").args(["-m", "755"]).args([&source, &to]).status().expect("install");
        assert!(done.success(), "cannot write {}", to.display());
        to
    }

    /// Makes a node that `ssh` does not reach.
    pub(super) fn cut_off(&self, node: &str) {
        fs::remove_file(self.folder.join("hosts").join(node)).expect("a node that was there");
    }

    /// `PATH` with this site's `ssh` first.
    pub(super) fn path(&self) -> OsString {
        let mut path = self.folder.join("bin").into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        path
    }

    /// What `ssh` was called with, one node and the begin or end of its command a line; empties it.
    pub(super) fn take_ssh_log(&self) -> Vec<String> {
        let log = self.folder.join("ssh.log");
        let lines = fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_owned).collect();
        let _ = fs::remove_file(&log);
        lines
    }

    /// A copy of the adapter's file with changes, in a folder of its own.
    pub(super) fn configuration(&self, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
        let folder = self.folder.join(name);
        fs::create_dir(&folder).expect("a folder for a configuration");
        let file = fs::read_to_string(repository().join(ADAPTER).join("haproxy.yaml")).expect("haproxy.yaml");
        fs::write(folder.join("haproxy.yaml"), change(file)).expect("a configuration");
        folder
    }

    /// Runs the adapter's file as it stands.
    pub(super) fn run(&self, runner: &Runner, words: &[&str]) -> Shown {
        self.run_in(&repository().join(ADAPTER), runner, words)
    }

    /// Runs the file of a folder.
    pub(super) fn run_in(&self, configuration: &Path, runner: &Runner, words: &[&str]) -> Shown {
        Shown::new(run(self.command(runner).arg("-c").arg(configuration).args(words)))
    }

    pub(super) fn command(&self, runner: &Runner) -> Command {
        let mut command = match runner {
            Runner::MilkCheck(program) => tool(program),
            Runner::ClusterShell => {
                let mut command = tool(installed("milkcheck/venv/bin/python"));
                command.arg(repository().join("tests/adapters/milkcheck/clustershell.py"));
                command
            }
        };
        command.env("PATH", self.path()).env("XDG_RUNTIME_DIR", self.folder.path());
        command
    }

    /// A folder for PATH in which `milkcheck` is this runner with this configuration.
    pub(super) fn as_milkcheck(&self, runner: &Runner, configuration: &Path) -> OsString {
        let command = self.command(runner);
        let words: Vec<String> = command.get_args().map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let (name, run) = (command.get_program().to_string_lossy(), words.join(" "));
        self.script(
            "bin/milkcheck",
            &format!("#!/bin/sh\nexec {name} {run} -c '{}' \"$@\"\n", configuration.display()),
        );
        self.path()
    }
}

/// What a run has shown.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) ran: Ran,
    /// Status and output of each service, by its name; the output is that of the nodes that failed.
    pub(super) services: BTreeMap<String, (String, Vec<String>)>,
}

impl Shown {
    pub(super) fn new(ran: Ran) -> Self {
        let services = services(&ran.out);
        Self { ran, services }
    }

    /// Asserts the exit code and the status of the services `http`, `ldap` and `puppet`, and gives itself back.
    pub(super) fn is(self, code: i32, statuses: [&str; 3]) -> Self {
        let of = |name: &str| self.services.get(&format!("haproxy.{name}")).map_or("", |(status, _)| status.as_str());
        let shown = ["http", "ldap", "puppet"].map(of);
        assert!(shown == statuses && self.ran.code == code, "not {code} {statuses:?} but {self:#?}");
        self
    }

    /// The output of a service.
    pub(super) fn lines(&self, service: &str) -> &[String] {
        &self.services[&format!("haproxy.{service}")].1
    }
}

/// Reads what MilkCheck shows: the output of an action stands before the status of its service.
pub(super) fn services(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let (mut services, mut lines) = (BTreeMap::new(), Vec::new());
    for line in text.lines() {
        let status = line.strip_suffix(']').and_then(|line| line.split_once('['));
        if let Some(output) = line.strip_prefix(" > ") {
            lines.push(output.to_owned());
        } else if line.contains(" ran in ") {
            lines.clear();
        } else if let Some((name, status)) = status {
            services.insert(name.trim().to_owned(), (status.trim().to_owned(), std::mem::take(&mut lines)));
        }
    }
    services
}

/// Runs the command as the host of this name has it, and logs when it begins and ends.
const SSH: &str = r#"#!/bin/sh
while case $1 in -*) true ;; *) false ;; esac; do
    case $1 in -l | -o | -p) shift ;; esac
    shift
done
node=$1
shift
if ! [ -d "HOSTS/$node" ]; then
    echo "ssh: Could not resolve hostname $node: Name or service not known" >&2
    exit 255
fi
echo "begin $node" >>LOG
PATH=HOSTS/$node:$PATH sh -c "$*"
code=$?
echo "end $node" >>LOG
exit $code
"#;
