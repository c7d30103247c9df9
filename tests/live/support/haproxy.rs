//! Real HAProxy processes, and a client of their stats sockets that has nothing to do with the program's own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Folder, PATIENCE, Surroundings, eventually, eventually_seen, logs, repository};

/// A version of HAProxy to test on.
#[derive(Debug, Clone)]
pub(crate) struct Haproxy {
    /// Branch, as in `2.6`.
    pub(crate) name: String,
    /// Branch as numbers, to compare with.
    pub(crate) version: (u32, u32),
    /// Whole version, as in `2.6.12-1+deb12u3`.
    pub(crate) full_version: String,
    pub(crate) binary: PathBuf,
}

impl Haproxy {
    /// Whether it is the newest that is tested, for what depends on no version.
    pub(crate) fn is_newest(&self) -> bool {
        Self::discover().is_ok_and(|all| all.last().is_none_or(|newest| newest.name == self.name))
    }

    /// Finds the versions that tests/haproxy/fetch has unpacked, or else the `haproxy` of `PATH`.
    ///
    /// `HAPROXY_VERSIONS=2.6,3.2` restricts them. None at all is an error.
    pub(crate) fn discover() -> Result<Vec<Self>, String> {
        let cache = repository().join(".cache/haproxy");
        let mut found = Vec::new();
        for entry in fs::read_dir(&cache).into_iter().flatten().flatten() {
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let binary = entry.path().join("haproxy");
            if !hidden && binary.is_file() {
                found.push(Self::at(&binary)?);
            }
        }
        if found.is_empty() {
            let path = env::var_os("PATH").unwrap_or_default();
            let binaries = env::split_paths(&path).map(|folder| folder.join("haproxy"));
            if let Some(binary) = binaries.into_iter().find(|binary| binary.is_file()) {
                found.push(Self::at(&binary)?);
                eprintln!("only the haproxy of PATH is tested ({}): run tests/haproxy/fetch", found[0].full_version);
            }
        }
        found.sort_by_key(|haproxy| haproxy.version);
        if found.is_empty() {
            return Err("there is no HAProxy to test on: run tests/haproxy/fetch, or install haproxy".to_owned());
        }
        let Ok(wanted) = env::var("HAPROXY_VERSIONS") else { return Ok(found) };
        let mut chosen = Vec::new();
        for name in wanted.split(',').map(str::trim) {
            match found.iter().find(|haproxy| haproxy.name == name) {
                Some(haproxy) => chosen.push(haproxy.clone()),
                None => return Err(format!("HAPROXY_VERSIONS names {name:?}, which is not there")),
            }
        }
        Ok(chosen)
    }

    fn at(binary: &Path) -> Result<Self, String> {
        let shown = binary.display();
        let output = Command::new(binary).arg("-v").output().map_err(|error| format!("cannot run {shown}: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let strange = || format!("{shown} -v says {text:?}");
        let full_version = text.split_once("version ").and_then(|(_, rest)| rest.split_whitespace().next());
        let full_version = full_version.ok_or_else(strange)?;
        let mut numbers = full_version.split(['.', '-']).map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return Err(strange()) };
        Ok(Self {
            name: format!("{major}.{minor}"),
            version: (major, minor),
            full_version: full_version.to_owned(),
            binary: binary.to_owned(),
        })
    }

    /// Tells whether this is the branch or a later one.
    pub(crate) fn at_least(&self, major: u32, minor: u32) -> bool {
        self.version >= (major, minor)
    }
}

/// How an instance is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One process in the foreground, `-db`.
    Foreground,
    /// A master with workers, `-W`.
    MasterWorker,
    /// A daemon, `-D`.
    Daemon,
}

/// An instance that is yet to be started.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    name: String,
    proxies: String,
    folder: Option<Folder>,
    mode: Mode,
    level: String,
    socket_options: String,
    global: String,
    defaults: String,
    master_cli: bool,
}

impl Setup {
    /// An instance with these proxies; its configuration is `<name>.cfg`, its stats socket `<name>.sock`.
    ///
    /// `global` with one admin stats socket and `defaults` for HTTP come before them.
    pub(crate) fn new(name: &str, proxies: &str) -> Self {
        Self {
            name: name.to_owned(),
            proxies: proxies.to_owned(),
            folder: None,
            mode: Surroundings::current().mode(Mode::Foreground),
            level: "admin".to_owned(),
            socket_options: String::new(),
            global: String::new(),
            defaults: "    mode http\n    timeout connect 2s\n    timeout check 5s\n    timeout client 60s\n    timeout server 60s\n"
                .to_owned(),
            master_cli: false,
        }
    }

    /// Puts it into this folder, next to other instances, instead of one of its own.
    pub(crate) fn folder(mut self, folder: &Folder) -> Self {
        self.folder = Some(folder.clone());
        self
    }

    pub(crate) fn mode(mut self, mode: Mode) -> Self {
        self.mode = Surroundings::current().mode(mode);
        self
    }

    /// Level of the stats socket: `user`, `operator` or `admin`.
    pub(crate) fn level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.level);
        self
    }

    /// More words at the end of the stats socket's line, as in `severity-output string` or `process 1`.
    pub(crate) fn socket_options(mut self, options: &str) -> Self {
        options.clone_into(&mut self.socket_options);
        self
    }

    /// One more stats socket, as in `ipv4@127.0.0.1:9999 level operator`; a relative path is in the folder.
    pub(crate) fn stats_socket(self, line: &str) -> Self {
        self.global(&format!("stats socket {line}"))
    }

    /// One more line for `global`.
    pub(crate) fn global(mut self, line: &str) -> Self {
        let _ = writeln!(self.global, "    {line}");
        self
    }

    /// One more line for `defaults`.
    pub(crate) fn defaults(mut self, line: &str) -> Self {
        let _ = writeln!(self.defaults, "    {line}");
        self
    }

    /// Loads the state of its servers from this file when it starts.
    pub(crate) fn loads(self, file: &Path) -> Self {
        self.global(&format!("server-state-file {}", file.display())).defaults("load-server-state-from-file global")
    }

    /// With a master CLI socket, `<name>-master.sock`.
    pub(crate) fn master_cli(mut self) -> Self {
        self.master_cli = true;
        self
    }

    fn config(&self, folder: &Folder) -> String {
        let mut global = String::new();
        for line in self.global.lines() {
            match line.trim_start().strip_prefix("stats socket ") {
                Some(rest) if !rest.starts_with('/') && !rest.contains('@') => {
                    let _ = writeln!(global, "    stats socket {}/{rest}", folder.path().display());
                }
                _ => global.push_str(&format!("{line}\n")),
            }
        }
        let surroundings = Surroundings::current();
        global.push_str(&surroundings.global(&self.global, folder));
        format!(
            "global\n    stats socket {} mode 600 level {} {}\n{global}\ndefaults\n{}\n{}{}",
            folder.join(&format!("{}.sock", self.name)).display(),
            self.level,
            self.socket_options,
            self.defaults,
            self.proxies,
            surroundings.proxies(),
        )
    }

    /// Starts it and waits until its socket answers.
    pub(crate) fn start(self, haproxy: &Haproxy) -> Instance {
        let folder = self.folder.clone().unwrap_or_else(Folder::new);
        folder.write(&format!("{}.cfg", self.name), &self.config(&folder));
        let mut instance = Instance {
            socket: folder.join(&format!("{}.sock", self.name)),
            log: folder.join(&format!("{}.log", self.name)),
            folder,
            haproxy: haproxy.clone(),
            setup: self,
            processes: Vec::new(),
        };
        instance.launch(&[]);
        instance.await_answer(None);
        instance
    }
}

/// One running HAProxy.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) haproxy: Haproxy,
    pub(crate) folder: Folder,
    pub(crate) socket: PathBuf,
    log: PathBuf,
    setup: Setup,
    /// The processes that were started from here, the newest last; workers are found below them.
    processes: Vec<Pid>,
}

impl Instance {
    /// Starts a foreground instance in a folder of its own.
    pub(crate) fn start(haproxy: &Haproxy, name: &str, proxies: &str) -> Self {
        Setup::new(name, proxies).start(haproxy)
    }

    pub(crate) fn name(&self) -> &str {
        &self.setup.name
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder.join(&format!("{}.cfg", self.setup.name))
    }

    pub(crate) fn master_socket(&self) -> PathBuf {
        self.folder.join(&format!("{}-master.sock", self.setup.name))
    }

    /// Socket as a text, for requests.
    pub(crate) fn address(&self) -> String {
        self.socket.display().to_string()
    }

    /// Master process with `-W`, else the only one.
    pub(crate) fn top_pid(&self) -> i32 {
        self.processes.last().expect("a process that was started").as_raw()
    }

    /// Process behind the socket, as it says itself.
    pub(crate) fn pid(&self) -> i32 {
        self.info("Pid").parse().expect("a process id")
    }

    /// One value of `show info`.
    pub(crate) fn info(&self, key: &str) -> String {
        let reply = self.raw("show info");
        let line = reply.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {key} in {reply:?}")).to_owned()
    }

    /// All processes of this instance that are alive: started from here, and those below them.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let mut all: Vec<Pid> = self.processes.iter().copied().filter(|pid| alive(*pid)).collect();
        let parents = parents();
        let mut next = 0;
        while next < all.len() {
            let above = all[next];
            all.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
            next += 1;
        }
        all
    }

    /// Sends a signal to the process behind the socket (not to its master), as in `SIGSTOP`.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("a process that can be signalled");
    }

    /// Sends one command on a connection of its own and returns the reply, byte for byte.
    pub(crate) fn raw(&self, command: &str) -> String {
        match ask(&self.socket, command) {
            Ok(reply) => String::from_utf8_lossy(&reply).into_owned(),
            Err(error) => panic!("{command:?} on {}: {error}\n{}", self.socket.display(), self.log()),
        }
    }

    /// Sends a command that prints nothing when it succeeds.
    pub(crate) fn set(&self, command: &str) {
        let reply = self.raw(command);
        assert!(reply == "\n", "{command:?} was answered by {reply:?}");
    }

    /// Sets the administrative state of a server.
    pub(crate) fn set_state(&self, server: &str, state: &str) {
        self.set(&format!("set server {server} state {state}"));
    }

    /// Sends one command to the master CLI; `@1 ` in front addresses the worker.
    pub(crate) fn raw_master(&self, command: &str) -> String {
        let reply = ask(self.master_socket(), command).expect("the master CLI to answer");
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// Opens a connection in prompt mode.
    pub(crate) fn session(&self) -> Session {
        Session::open(&self.socket)
    }

    /// All rows of `show servers state`.
    pub(crate) fn rows(&self) -> Rows {
        rows(&self.raw("show servers state"))
    }

    /// One row of `show servers state`.
    pub(crate) fn row(&self, backend: &str, server: &str) -> Row {
        let rows = self.rows();
        let row = rows.get(&(backend.to_owned(), server.to_owned()));
        row.unwrap_or_else(|| panic!("no {backend}/{server} among {:?}", rows.keys())).clone()
    }

    /// Administrative mask and operational state of one server.
    pub(crate) fn state(&self, backend: &str, server: &str) -> (u32, u32) {
        let row = self.row(backend, server);
        (row.admin, row.op)
    }

    /// Waits until a server has this mask and operational state.
    pub(crate) fn await_state(&self, backend: &str, server: &str, state: (u32, u32)) {
        eventually_seen(PATIENCE, &format!("{backend}/{server} in {state:?}"), || {
            let seen = self.state(backend, server);
            if seen == state { Ok(()) } else { Err(seen) }
        });
    }

    /// One column of `show stat` for each server, frontend and backend.
    pub(crate) fn stats(&self, column: &str) -> BTreeMap<(String, String), String> {
        let reply = self.raw("show stat");
        let mut lines = reply.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
        let at = names.iter().position(|name| *name == column).unwrap_or_else(|| panic!("no column {column}"));
        let rows = lines.filter(|line| !line.is_empty()).map(|line| line.split(',').collect::<Vec<_>>());
        rows.map(|row| ((row[0].to_owned(), row[1].to_owned()), row[at].to_owned())).collect()
    }

    /// One column of `show stat` for a server.
    pub(crate) fn stat(&self, backend: &str, server: &str, column: &str) -> String {
        let value = self.stats(column).remove(&(backend.to_owned(), server.to_owned()));
        value.unwrap_or_else(|| panic!("no {backend}/{server} in show stat"))
    }

    /// Replaces the proxies of the configuration; the next start or reload takes them.
    pub(crate) fn set_proxies(&mut self, proxies: &str) {
        proxies.clone_into(&mut self.setup.proxies);
        self.folder.write(&format!("{}.cfg", self.setup.name), &self.setup.config(&self.folder));
    }

    /// Reloads it as its mode does, and waits until the new process answers.
    pub(crate) fn reload(&mut self) {
        let before = self.pid();
        match self.setup.mode {
            Mode::MasterWorker => {
                self.await_master();
                kill(Pid::from_raw(self.top_pid()), Signal::SIGUSR2).expect("a master");
            }
            Mode::Foreground | Mode::Daemon => self.launch(&["-sf", &before.to_string()]),
        }
        self.await_answer(Some(before));
    }

    /// Starts one more process with these arguments, which takes over, and waits until it answers.
    pub(crate) fn take_over(&mut self, arguments: &[&str]) {
        let before = self.pid();
        self.launch(arguments);
        self.await_answer(Some(before));
    }

    /// Stops it at once, in order, and waits for the end of all its processes; it may be started again.
    pub(crate) fn stop(&mut self) {
        let all = self.processes();
        for process in &self.processes {
            let _ = kill(*process, Signal::SIGTERM);
        }
        if !ended(&all, Duration::from_secs(5)) {
            self.kill();
        }
        self.processes.clear();
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`], with its configuration as it is now.
    pub(crate) fn start_again(&mut self) {
        self.launch(&[]);
        self.await_answer(None);
    }

    /// Kills all its processes, as a crash does: the socket file stays.
    pub(crate) fn kill(&mut self) {
        let all = self.processes();
        for process in &all {
            let _ = kill(*process, Signal::SIGKILL);
        }
        ended(&all, Duration::from_secs(5));
        self.processes.clear();
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    #[allow(clippy::zombie_processes, reason = "`alive` reaps it, as it does the daemons")]
    fn launch(&mut self, more: &[&str]) {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let pid_file = self.folder.join(&format!("{}.pid", self.setup.name));
        let surroundings = Surroundings::current();
        let as_unit = surroundings == Surroundings::Master;
        let texts = [self.setup.config(&self.folder), self.config_file().display().to_string(), more.join(" ")];
        let mut command = surroundings.command(&self.haproxy.binary, &texts);
        match self.setup.mode {
            Mode::Foreground => command.arg("-db"),
            Mode::MasterWorker if as_unit => command.arg("-Ws").arg("-p").arg(&pid_file),
            Mode::MasterWorker => command.arg("-W"),
            Mode::Daemon => command.arg("-D").arg("-p").arg(&pid_file),
        };
        if self.setup.master_cli || as_unit && self.setup.mode == Mode::MasterWorker {
            command.arg("-S").arg(self.master_socket());
        }
        command.arg("-f").arg(self.config_file()).args(more);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let child = command.spawn().expect("haproxy to start");
        let pid = Pid::from_raw(child.id().try_into().expect("a process id"));
        match self.setup.mode {
            Mode::Foreground | Mode::MasterWorker => self.processes.push(pid),
            Mode::Daemon => {
                let status = waitpid(pid, None).expect("the process that starts the daemon");
                assert!(matches!(status, WaitStatus::Exited(_, 0)), "haproxy -D: {status:?}\n{}", self.log());
                let pids = fs::read_to_string(&pid_file).expect("a pid file");
                self.processes.extend(pids.lines().map(|line| Pid::from_raw(line.trim().parse().expect("a pid"))));
            }
        }
    }

    /// Waits until a process other than `before` answers at the socket.
    ///
    /// For a moment both accept there, if they share the socket, so that one answer proves nothing.
    fn await_answer(&mut self, before: Option<i32>) {
        let end = Instant::now() + PATIENCE;
        let needed = if before.is_some() { 5 } else { 1 };
        let mut answers = 0;
        loop {
            let reply = ask(&self.socket, "show info").unwrap_or_default();
            let reply = String::from_utf8_lossy(&reply);
            let pid: Option<i32> =
                reply.lines().find_map(|line| line.strip_prefix("Pid: ")).and_then(|pid| pid.parse().ok());
            let is_new = pid.is_some() && pid != before && (before.is_some() || self.owns(pid));
            answers = if is_new { answers + 1 } else { 0 };
            if answers >= needed {
                return;
            }
            let gone = self.processes.last().is_none_or(|pid| !alive(*pid));
            assert!(!gone, "{} ended at its start:\n{}", self.setup.name, self.log());
            assert!(Instant::now() < end, "{} does not answer:\n{}", self.setup.name, self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the master takes signals: it drops those that come while it is being started.
    fn await_master(&self) {
        let status = format!("/proc/{}/status", self.top_pid());
        eventually(PATIENCE, "a master that takes signals", || {
            let status = fs::read_to_string(&status).ok()?;
            let mask = |name: &str| {
                let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
                u64::from_str_radix(mask.trim(), 16).ok()
            };
            let usr2 = 1 << (Signal::SIGUSR2 as u32 - 1);
            (mask("SigCgt:")? & usr2 != 0 && mask("SigBlk:")? & usr2 == 0).then_some(())
        });
    }

    fn owns(&self, pid: Option<i32>) -> bool {
        self.processes().iter().any(|process| Some(process.as_raw()) == pid)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        logs::keep(&format!("{} ({})", self.setup.name, self.haproxy.full_version), &self.log());
        self.kill();
    }
}

/// Tells whether a process runs; one that has ended is reaped on the way if it is ours.
fn alive(pid: Pid) -> bool {
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) => true,
        Ok(_) => false,
        // Not a child: a worker below its master.
        Err(_) => parents().iter().any(|(process, _)| *process == pid),
    }
}

/// Stops a process and waits until each of its threads has stopped: one that has not would still take a command.
pub(crate) fn freeze(pid: Pid) {
    kill(pid, Signal::SIGSTOP).expect("a process that can be stopped");
    let is_stopped = |stat: &str| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
    eventually(PATIENCE, "all threads to stop", || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let mut stats = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("stat")));
        stats.all(|stat| stat.is_ok_and(|stat| is_stopped(&stat))).then_some(())
    });
}

/// Waits until all these processes have ended, at most for `limit`.
fn ended(pids: &[Pid], limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while pids.iter().any(|pid| alive(*pid)) {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Every process that has not ended, with its parent.
fn parents() -> Vec<(Pid, Pid)> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // pid (name) state ppid …, and the name may hold anything.
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let mut words = rest.split(' ');
        if let (Some(state), Some(Ok(parent))) = (words.next(), words.next().map(str::parse))
            && state != "Z"
        {
            all.push((Pid::from_raw(pid), Pid::from_raw(parent)));
        }
    }
    all
}

/// Sends one command and reads to the end of the stream.
///
/// The sending side is closed first, because a master CLI would keep the connection open otherwise.
pub(crate) fn ask(socket: impl AsRef<OsStr>, command: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(Path::new(socket.as_ref()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = Vec::new();
    match stream.read_to_end(&mut reply) {
        Ok(_) => Ok(reply),
        Err(error) => {
            let reply = String::from_utf8_lossy(&reply);
            Err(io::Error::new(error.kind(), format!("{error} after the reply {reply:?} to {command:?}")))
        }
    }
}

/// A connection in prompt mode, which stays with its process over a reload.
#[derive(Debug)]
pub(crate) struct Session {
    stream: UnixStream,
}

impl Session {
    pub(crate) fn open(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("a stats socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let mut session = Self { stream };
        session.ask("prompt");
        session
    }

    /// Sends one command and does not wait for its reply.
    pub(crate) fn send(&mut self, command: &str) {
        self.stream.write_all(format!("{command}\n").as_bytes()).expect("to send a command");
    }

    /// Sends one command and returns its reply without the prompt.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.send(command);
        let mut reply = Vec::new();
        let mut buffer = vec![0; 65_536];
        while !reply.ends_with(b"\n> ") {
            let count = self.stream.read(&mut buffer).expect("a reply");
            assert!(count > 0, "the connection ended in the reply to {command:?}");
            reply.extend_from_slice(&buffer[..count]);
        }
        reply.truncate(reply.len() - 3);
        String::from_utf8_lossy(&reply).into_owned()
    }
}

/// One row of `show servers state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// `srv_admin_state`.
    pub(crate) admin: u32,
    /// `srv_op_state`.
    pub(crate) op: u32,
    /// `srv_uweight`.
    pub(crate) weight: u32,
    /// All columns by name.
    pub(crate) columns: BTreeMap<String, String>,
}

/// Rows by backend and server.
pub(crate) type Rows = BTreeMap<(String, String), Row>;

/// Parses the reply to `show servers state`.
pub(crate) fn rows(reply: &str) -> Rows {
    let mut lines = reply.lines();
    assert!(lines.next() == Some("1") && reply.ends_with("\n\n"), "not a whole table: {reply:?}");
    let header = lines.next().and_then(|line| line.strip_prefix("# ")).expect("a header");
    let names: Vec<&str> = header.split(' ').collect();
    let mut rows = Rows::new();
    // With `-S`, HAProxy 2.2 lists the proxy through which its master reaches it.
    for line in lines.filter(|line| !line.is_empty() && line.split(' ').nth(1) != Some("MASTER")) {
        let values = line.split(' ').map(str::to_owned);
        let columns: BTreeMap<String, String> = names.iter().map(|name| (*name).to_owned()).zip(values).collect();
        let number = |name: &str| columns[name].parse().unwrap_or_else(|_| panic!("{name} in {line:?}"));
        let row = Row {
            admin: number("srv_admin_state"),
            op: number("srv_op_state"),
            weight: number("srv_uweight"),
            columns: columns.clone(),
        };
        rows.insert((columns["be_name"].clone(), columns["srv_name"].clone()), row);
    }
    rows
}
