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

/// Tests for which the surroundings are wrong, by the beginning of their names, with the reason.
///
/// `make test` runs all of them.
const ELSEWHERE: &[(Surroundings, &[&str], &str)] = &[
    (Surroundings::Master, &["moving::no_process_is_left"], "counts the processes of each way to start HAProxy"),
    (
        Surroundings::Master,
        &["instances::several_sockets_of_one_process_are_one_instance"],
        "says which socket is used, and the master CLI is one more",
    ),
    (
        Surroundings::Sandbox,
        &["state_file::a_host_name_is_resolved_again_by_the_c_library"],
        "gives HAProxy an /etc/hosts of its own, for which the sandbox lets it have no privileges",
    ),
    (
        Surroundings::Thousand,
        &[
            "forms::a_table_shows_every_server_in_natural_order",
            "forms::a_table_shows_the_instances_that_answer",
            "forms::nagios_does_not_know_what_it_cannot_find_out",
            "forms::nagios_shows_what_needs_somebody",
            "forms::the_text_form_is_in_natural_order",
            "guard::a_status_with_a_guard_is_about_backends",
            "guard::where_nothing_tracks_not_everything_is_read",
            "injection::no_word_of_an_answer_commands_anybody",
            "instances::a_level_that_does_not_suffice_matters_for_commands_only",
            "instances::the_worker_of_a_master_is_managed",
            "named::many_named_backends_are_read_as_is_cheaper",
            "owner::a_server_is_restored_to_what_it_was",
            "procedure::a_difference_is_a_line_a_server",
            "procedure::a_server_is_taken_out_and_put_back",
            "readme::examples_of_how_to_show_what_happens",
            "readme::examples_of_monitoring_show_what_happens",
            "states::a_disabled_backend_is_left_alone",
            "states::a_server_in_maint_is_not_drained_on_its_way",
            "states::a_weight_is_compared_first",
            "states::many_tracking_servers_come_back_with_their_targets",
            "states::spare_slots_are_nobody_s_failure",
            "transport::thousands_of_servers_are_set_in_one_run",
        ],
        "says how many servers or backends there are",
    ),
];

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
        let is_named = |beginnings: &[&str]| beginnings.iter().any(|beginning| test.starts_with(beginning));
        let mut of_these = ELSEWHERE.iter().filter(|(surroundings, ..)| *surroundings == self);
        of_these.find(|(_, beginnings, _)| is_named(beginnings)).map(|(.., reason)| *reason)
    }

    /// Beginnings of names in [`ELSEWHERE`] that no test has.
    pub(crate) fn outdated(tests: &[String]) -> Vec<&'static str> {
        let of_no_test = |beginning: &&str| !tests.iter().any(|test| test.starts_with(beginning));
        ELSEWHERE.iter().flat_map(|(_, beginnings, _)| *beginnings).copied().filter(of_no_test).collect()
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
                let _ = write!(text, "\nbackend one-of-1000-{number}\n    server other-{number} 192.0.2.1:9\n");
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
