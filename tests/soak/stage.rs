//! Three instances of one version with their servers and clients, watched all the time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::app::{App, Clients, Log};
use super::reader::{self, Rows, Sample};
use crate::support::program::copy_program;
use crate::support::{Folder, Haproxy, Instance, Mode, Nobody, Port, Setup, eventually};

/// The servers that each instance has at its start, as `backend/server`.
pub(crate) const SERVERS: [&str; 9] =
    ["app/s1", "app/s2", "app/s3", "app/s4", "web/w1", "web/w2", "web/w3", "dyn/d1", "tracked/t1"];

/// The one that follows another: it cannot be set itself.
pub(crate) const TRACKS: (&str, &str) = ("tracked/t1", "app/s1");

/// The one that is added and deleted at run time.
pub(crate) const DYNAMIC: &str = "dyn/d2";

/// How often the watchers look.
const LOOK: Duration = Duration::from_millis(60);

/// One instance, and who watches it.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) instance: Mutex<Instance>,
    /// For root alone, and for everybody.
    pub(crate) sockets: [PathBuf; 2],
    pub(crate) state_file: PathBuf,
    samples: Arc<Mutex<Vec<Sample>>>,
    last_reload: Mutex<Option<Instant>>,
}

impl Site {
    pub(crate) fn instance(&self) -> MutexGuard<'_, Instance> {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All its servers now.
    pub(crate) fn rows(&self) -> Result<Rows, String> {
        let sample = reader::sample(&self.sockets[0]);
        sample.map(|sample| sample.rows).map_err(|error| format!("{} cannot be read: {error}", self.name))
    }

    /// Does what another operator would, by a client of their own.
    pub(crate) fn command(&self, commands: &str) -> String {
        reader::ask(&self.sockets[0], commands).unwrap_or_default()
    }

    pub(crate) fn note_reload(&self) {
        *self.last_reload.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn was_reloaded_within(&self, time: Duration) -> bool {
        let last = *self.last_reload.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < time)
    }

    pub(crate) fn take_samples(&self) -> Vec<Sample> {
        std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Everything that the soak of one version needs; what uses others comes before them.
pub(crate) struct Stage {
    stop: Arc<AtomicBool>,
    watchers: Vec<JoinHandle<()>>,
    _clients: Clients,
    pub(crate) sites: Vec<Site>,
    pub(crate) apps: Vec<App>,
    pub(crate) log: Arc<Log>,
    pub(crate) looks: Arc<AtomicU64>,
    /// A copy that everybody may execute, and that a build does not replace meanwhile.
    pub(crate) program: PathBuf,
    pub(crate) nobody: Option<Nobody>,
    pub(crate) folder: Folder,
}

impl Stage {
    pub(crate) fn start(haproxy: &Haproxy) -> Self {
        let folder = Folder::new();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a folder that all may read");
        let state = folder.join("state");
        fs::create_dir(&state).expect("a folder");
        let log: Arc<Log> = Arc::default();
        let apps: Vec<App> = (0..5).map(|_| App::start(&log)).collect();
        let mut fronts = Vec::new();
        let modes = [("one", Mode::Foreground), ("two", Mode::MasterWorker), ("three", Mode::Daemon)];
        let sites: Vec<Site> = modes
            .into_iter()
            .map(|(name, mode)| {
                let ports = [Port::reserve(), Port::reserve()];
                for (port, backend) in ports.iter().zip(["app", "web"]) {
                    fronts.push((port.address(), format!("/{name}/{backend}")));
                }
                let state_file = state.join(format!("{name}.state"));
                Site::start(haproxy, &folder, (name, mode), &ports, &apps, state_file)
            })
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let looks: Arc<AtomicU64> = Arc::default();
        let watchers = sites.iter().map(|site| watch(site, &stop, &looks)).collect();
        let clients = Clients::start(&fronts, Duration::from_millis(120));
        let program = folder.join("haproxy_server");
        copy_program(&program);
        let nobody = Nobody::new();
        Self { stop, watchers, _clients: clients, sites, apps, log, looks, program, nobody, folder }
    }

    /// All servers of all instances.
    pub(crate) fn rows(&self) -> Result<BTreeMap<&'static str, Rows>, String> {
        self.sites.iter().map(|site| Ok((site.name, site.rows()?))).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for watcher in self.watchers.drain(..) {
            let _ = watcher.join();
        }
    }
}

fn watch(site: &Site, stop: &Arc<AtomicBool>, looks: &Arc<AtomicU64>) -> JoinHandle<()> {
    let (stop, looks) = (stop.clone(), looks.clone());
    let (socket, samples) = (site.sockets[0].clone(), site.samples.clone());
    thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            if let Ok(sample) = reader::sample(&socket) {
                samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                looks.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(LOOK);
        }
    })
}

impl Site {
    fn start(
        haproxy: &Haproxy,
        folder: &Folder,
        (name, mode): (&'static str, Mode),
        fronts: &[Port; 2],
        apps: &[App],
        state_file: PathBuf,
    ) -> Self {
        let at = |number: usize| apps[number].port.address();
        let server = |name: &str, number: usize, more: &str| format!("    server {name} {} {more}\n", at(number));
        let mut proxies = format!(
            "listen app\n    bind {}\n    balance roundrobin\n    option httpchk GET /health\n    cookie SRV insert indirect nocache\n",
            fronts[0].address()
        );
        for number in 0..4 {
            let name = format!("s{}", number + 1);
            proxies += &server(&name, number, &format!("check inter 200ms rise 1 fall 3 weight 100 cookie {name}"));
        }
        proxies += &format!("listen web\n    bind {}\n    balance roundrobin\n", fronts[1].address());
        for number in 0..3 {
            proxies += &server(&format!("w{}", number + 1), number, "weight 100");
        }
        proxies += "backend dyn\n    balance roundrobin\n";
        proxies += &server("d1", 4, "weight 100");
        proxies += "backend tracked\n    balance roundrobin\n";
        proxies += &server("t1", 0, "track app/s1 weight 100");
        let open = folder.join(&format!("{name}-open.sock"));
        let instance = Setup::new(name, &proxies)
            .folder(folder)
            .mode(mode)
            .stats_socket(&format!("{name}-open.sock mode 666 level admin"))
            .global("stats maxconn 100")
            .global("hard-stop-after 2s")
            .global("nbthread 2")
            .loads(&state_file)
            .defaults("retries 2")
            .defaults("option redispatch")
            .defaults("http-send-name-header X-Soak-Server");
        let instance = if mode == Mode::MasterWorker { instance.master_cli() } else { instance };
        let instance = instance.start(haproxy);
        let sockets = [instance.socket.clone(), open];
        eventually(Duration::from_secs(10), "both sockets", || sockets.iter().all(|it| it.exists()).then_some(()));
        Self {
            name,
            instance: Mutex::new(instance),
            sockets,
            state_file,
            samples: Arc::default(),
            last_reload: Mutex::default(),
        }
    }
}
