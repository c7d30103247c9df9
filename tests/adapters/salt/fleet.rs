//! A master and its minions, on ports of the loopback and in a folder of their own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use super::minion::{Salt, modules, quiet, user};
use crate::support::{Folder, Host, Port, eventually_seen};
use crate::tool::{Ran, run, tool};

/// How long it may take until all minions answer.
const START: Duration = Duration::from_secs(90);

/// A running master with minions; all of them end with this value.
#[derive(Debug)]
pub(super) struct Fleet {
    processes: Vec<Child>,
    salt: Salt,
    folder: Folder,
    path: OsString,
}

impl Fleet {
    /// Starts a master whose `file_roots` are in `roots`, and minions, each with the `haproxy_server` of a host.
    ///
    /// `salt-call --local` is a minion without a master, on the host of the first.
    pub(super) fn start(salt: &Salt, folder: &Folder, roots: &str, minions: &[(&str, &Host)]) -> Self {
        let mut path = salt.programs().into_os_string();
        path.push(":");
        path.push(minions[0].1.path());
        let mut fleet = Self { processes: Vec::new(), salt: salt.clone(), folder: folder.clone(), path };
        let (place, user) = (folder.path().display(), user());
        fs::create_dir_all(folder.join("master.d")).unwrap();
        fs::create_dir_all(folder.join("states")).unwrap();
        folder.write("master.d/roots.conf", roots);
        let (publish, answer) = (Port::reserve(), Port::reserve());
        let common = format!("publish_port: {}\nuser: {user}\n", publish.number());
        let answer_number = answer.number();
        folder.write(
            "master",
            &format!(
                "{common}ret_port: {answer_number}\ninterface: 127.0.0.1\nroot_dir: {place}/m\nauto_accept: true\n\
                 worker_threads: 3\ntimeout: 30\ngather_job_timeout: 30\n"
            ),
        );
        // For `salt-call --local`.
        folder.write(
            "minion",
            &format!(
                "id: {}\nuser: {user}\nroot_dir: {place}/l\nfile_client: local\nfile_roots: {{base: [{place}/states, {}]}}\n",
                minions[0].0,
                modules().display()
            ),
        );
        // Others may have them from here on: the master does not share a port.
        drop((publish, answer));
        fleet.launch("salt-master", folder.path().to_owned(), None);
        for (index, (id, host)) in minions.iter().enumerate() {
            let own = folder.join(&index.to_string());
            fs::create_dir(&own).unwrap();
            let lines = format!(
                "{common}id: {id}\nmaster: 127.0.0.1\nmaster_port: {answer_number}\nroot_dir: {}\nacceptance_wait_time: 1\n\
                 random_startup_delay: 0\nrecon_default: 200\nrecon_max: 400\n",
                own.display()
            );
            fs::write(own.join("minion"), lines).unwrap();
            fleet.launch("salt-minion", own, Some(host));
        }
        eventually_seen(START, "all minions to answer", || {
            let ran = fleet.sh("salt '*' test.ping --timeout=3 --out=json --static 2>/dev/null");
            let answers: Value = serde_json::from_str(&ran.out).unwrap_or_default();
            let up = minions.iter().filter(|(id, _)| answers[*id] == true).count();
            if up == minions.len() { Ok(()) } else { Err((ran, fleet.log())) }
        });
        fleet
    }

    fn launch(&mut self, program: &str, config: PathBuf, host: Option<&Host>) {
        let log = File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new(self.salt.program(program));
        command.arg("--config-dir").arg(config).process_group(0).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log).env("XDG_RUNTIME_DIR", self.folder.path());
        if let Some(host) = host {
            command.env("PATH", host.path());
        }
        quiet(&mut command);
        self.processes.push(command.spawn().unwrap());
    }

    /// Runs a line of shell, as somebody on the master or on the first minion does.
    pub(super) fn sh(&self, line: &str) -> Ran {
        let mut command = tool("sh");
        command.args(["-c", &format!("exec 2>&1; {line}")]).current_dir(self.folder.path());
        command.env("PATH", &self.path).env("SALT_CONFIG_DIR", self.folder.path());
        command.env("XDG_RUNTIME_DIR", self.folder.path());
        quiet(&mut command);
        run(&mut command)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Each has its own process group, with all that it has started.
        for process in &mut self.processes {
            let group = Pid::from_raw(process.id().try_into().unwrap());
            let _ = killpg(group, Signal::SIGKILL);
            let _ = process.wait();
        }
    }
}
