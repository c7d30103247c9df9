//! A system log of a test's own: `/dev/log` in a mount namespace, and what was written there.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use nix::unistd::geteuid;

use super::{Folder, Program, skipped};

/// Makes a `/dev` in which only `/dev/log` differs from the host's, and runs the rest of its words there.
pub(crate) const SCRIPT: &str = r#"
set -e
own=$1 log=$2
shift 2
mkdir -p "$own"
mount -t tmpfs dev "$own"
for each in null zero full random urandom tty; do
    touch "$own/$each"
    mount --bind "/dev/$each" "$own/$each"
done
mkdir "$own/pts" "$own/shm"
mount --rbind /dev/pts "$own/pts"
ln -s pts/ptmx "$own/ptmx"
ln -s /proc/self/fd "$own/fd"
[ -z "$log" ] || ln -s "$log" "$own/log"
mount --rbind "$own" /dev
exec "$@"
"#;

/// A log daemon that keeps what comes.
#[derive(Debug)]
pub(crate) struct SystemLog {
    folder: Folder,
    socket: UnixDatagram,
}

impl SystemLog {
    /// Starts one; nothing where no mount namespace can be made.
    pub(crate) fn start() -> Option<Self> {
        let works = Command::new("unshare").args(["--mount", "true"]).output();
        if !geteuid().is_root() || !works.is_ok_and(|output| output.status.success()) {
            skipped("only root can make a mount namespace, with unshare");
            return None;
        }
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.join("log")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        Some(Self { folder, socket })
    }

    /// The words to run a program by, so that this is its system log.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        self.wrapper_with(&self.folder.join("log").display().to_string())
    }

    /// The words to run a program by, so that it has another system log, or none.
    pub(crate) fn wrapper_with(&self, log: &str) -> Vec<String> {
        let own = self.folder.join("dev").display().to_string();
        ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", &own, log].map(str::to_owned).to_vec()
    }

    /// A program with this system log.
    pub(crate) fn of(&self, program: Program) -> Program {
        program.under(self.wrapper())
    }

    /// The lines that have come since the last call, each as one datagram.
    pub(crate) fn take(&self) -> Vec<String> {
        let mut buffer = vec![0; 64 << 10];
        std::iter::from_fn(|| {
            let length = self.socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..length].to_vec()).expect("a line of UTF-8"))
        })
        .collect()
    }
}
