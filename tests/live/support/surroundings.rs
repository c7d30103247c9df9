//! How HAProxy is set up besides what a test asks for, chosen by `HAPROXY_SETUP`: `make test-matrix` runs every test in
//! each of these ways.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use nix::unistd::geteuid;

use super::{Folder, Mode};

/// What all instances of a run have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surroundings {
    /// As the tests say.
    Plain,
    /// Four threads.
    Threads,
    /// As a master with a worker and a master CLI, started like Debian's unit does it.
    Master,
    /// In an empty root folder, as an ordinary user.
    Chroot,
    /// In a mount namespace with a `/tmp` of its own and the system read-only, with few capabilities.
    Sandbox,
    /// With a thousand more backends.
    Thousand,
}

/// Their names for `HAPROXY_SETUP`.
const NAMES: [(&str, Surroundings); 6] = [
    ("plain", Surroundings::Plain),
    ("threads", Surroundings::Threads),
    ("master", Surroundings::Master),
    ("chroot", Surroundings::Chroot),
    ("sandbox", Surroundings::Sandbox),
    ("thousand", Surroundings::Thousand),
];

/// Tests that set up themselves what the surroundings would change, by the beginning of their names, with the reason.
///
/// `make test` runs all of them.
const ELSEWHERE: &[(Surroundings, &str, &str)] =
    &[(Surroundings::Master, "moving::no_process_is_left", "counts the processes of each way to start HAProxy")];

/// Those of this run.
static CHOSEN: LazyLock<Result<Surroundings, String>> = LazyLock::new(|| {
    let Ok(wanted) = env::var("HAPROXY_SETUP") else { return Ok(Surroundings::Plain) };
    let found = NAMES.iter().find(|(name, _)| *name == wanted).map(|(_, surroundings)| *surroundings);
    let chosen = found.ok_or_else(|| format!("HAPROXY_SETUP is {wanted:?}, not one of {:?}", NAMES.map(|(n, _)| n)))?;
    chosen.possible().map(|()| chosen)
});

impl Surroundings {
    /// Those of this run, or why they cannot be had.
    pub(crate) fn chosen() -> Result<Self, String> {
        CHOSEN.clone()
    }

    /// Those of this run, which [`Self::chosen`] has allowed.
    pub(crate) fn current() -> Self {
        Self::chosen().expect("surroundings that can be had")
    }

    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, surroundings)| *surroundings == self).map_or("", |(name, _)| name)
    }

    /// Why a test, as in `moving::maint`, is not for these surroundings.
    pub(crate) fn leaves_out(self, test: &str) -> Option<&'static str> {
        let mut of_these = ELSEWHERE.iter().filter(|(surroundings, ..)| *surroundings == self);
        of_these.find(|(_, beginning, _)| test.starts_with(beginning)).map(|(.., reason)| *reason)
    }

    /// Beginnings of names in [`ELSEWHERE`] that no test has.
    pub(crate) fn outdated(tests: &[String]) -> Vec<&'static str> {
        let of_no_test = |beginning: &&str| !tests.iter().any(|test| test.starts_with(beginning));
        ELSEWHERE.iter().map(|(_, beginning, _)| *beginning).filter(of_no_test).collect()
    }

    fn possible(self) -> Result<(), String> {
        if !matches!(self, Self::Chroot | Self::Sandbox) {
            return Ok(());
        }
        if !geteuid().is_root() {
            return Err(format!("HAPROXY_SETUP={} needs root", self.name()));
        }
        if self == Self::Sandbox {
            let tried = self.command(Path::new("true"), &[]).output().map_err(|error| format!("unshare: {error}"))?;
            if !tried.status.success() {
                return Err(format!("HAPROXY_SETUP=sandbox: {}", String::from_utf8_lossy(&tried.stderr)));
            }
        }
        Ok(())
    }

    /// The mode of an instance that its test starts in this one.
    pub(crate) fn mode(self, asked: Mode) -> Mode {
        if self == Self::Master && asked == Mode::Foreground { Mode::MasterWorker } else { asked }
    }

    /// Lines for `global`, besides those that a test asks for.
    pub(crate) fn global(self, asked: &str, folder: &Folder) -> String {
        let has = |words: &[&str]| {
            asked.lines().any(|line| line.split_whitespace().next().is_some_and(|word| words.contains(&word)))
        };
        match self {
            Self::Threads if !has(&["nbthread", "nbproc"]) => "    nbthread 4\n".to_owned(),
            Self::Chroot if !has(&["chroot", "user", "uid"]) => {
                let jail = folder.join("jail");
                std::fs::create_dir_all(&jail).expect("an empty folder");
                format!("    chroot {}\n    uid 65534\n    gid 65534\n", jail.display())
            }
            _ => String::new(),
        }
    }

    /// Proxies after those of a test.
    pub(crate) fn proxies(self) -> String {
        let mut text = String::new();
        if self == Self::Thousand {
            for number in 0..1000 {
                let _ = write!(text, "\nbackend one-of-1000-{number}\n    server other-{number} 127.0.0.1:9\n");
            }
        }
        text
    }

    /// Starts a program with access to the folders in `/tmp` that these texts name.
    pub(crate) fn command(self, program: &Path, texts: &[String]) -> Command {
        if self != Self::Sandbox {
            return Command::new(program);
        }
        let mut folders = BTreeSet::new();
        for text in texts {
            for (start, _) in text.match_indices("/tmp/hs-") {
                let name = text[start + 5..].split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next();
                folders.insert(format!("/tmp/{}", name.unwrap_or_default()));
            }
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "bash", "-euc", SANDBOX, "bash"]).arg(folders.len().to_string());
        command.args(folders).arg(program);
        command
    }
}

/// `COUNT FOLDER… PROGRAM ARGUMENT…`: what systemd makes of `PrivateTmp`, `ProtectSystem`, `ProtectHome`,
/// `ProtectKernelTunables`, `CapabilityBoundingSet` and `NoNewPrivileges`, of which it has only these folders in `/tmp`.
const SANDBOX: &str = r#"
count=$1; shift
mount --make-rslave /
mount -t tmpfs -o mode=1777 tmpfs /mnt
for folder in "${@:1:count}"; do
    if [[ -d $folder ]]; then
        mkdir "/mnt/${folder##*/}"
        mount --bind "$folder" "/mnt/${folder##*/}"
    fi
done
shift "$count"
mount --move /mnt /tmp
for folder in /usr /boot /etc /home /root /proc/sys /sys; do
    if [[ -d $folder ]]; then
        mount --rbind "$folder" "$folder"
        mount -o remount,ro,bind "$folder"
    fi
done
exec setpriv --no-new-privs --inh-caps=-all \
    --bounding-set=-all,+chown,+dac_override,+fowner,+kill,+net_bind_service,+setgid,+setuid,+sys_chroot -- "$@"
"#;
