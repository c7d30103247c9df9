//! Who HAProxy is on this host, and the ids of the users and groups that a configuration names.
//!
//! HAProxy's own account is the user that the packages make (`haproxy`; `hapee-lb` of the Enterprise packages), and
//! whoever owns the folder that root has made for HAProxy in `/run` or `/var/lib`. It runs HAProxy also where no
//! configuration says so: systemd's `User=haproxy`, NixOS, the image of docker-library.
//!
//! The C library finds them through all sources in `/etc/nsswitch.conf`. In a statically linked program (`crt-static`)
//! it cannot load the modules for that, so only `/etc/passwd` and `/etc/group` are read: an account that only LDAP or
//! the like knows is not found then, and not trusted.

mod files;

pub use files::user_name;

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::config::{Account, Settings};
use super::process::Standing;
use super::trust::Owners;

/// The accounts that packages make: Debian's, Red Hat's and others', and that of HAProxy Enterprise.
const NAMES: [&str; 2] = ["haproxy", "hapee-lb"];

/// Where packages make folders for them, and how those are called.
const PLACES: [&str; 2] = ["run", "var/lib"];

/// The user that is shared by whatever has no user of its own.
const NOBODY: u32 = 65534;

/// The most entries of a place that are looked at.
const ENTRIES_MAX: usize = 4096;

/// Who is trusted: root, the caller, and HAProxy's own account.
#[derive(Debug)]
pub(super) struct House {
    own: Owners,
    /// Who may write configurations.
    pub(super) configurations: Owners,
    /// Who may write the folders of sockets: the account's groups as well.
    pub(super) sockets: Owners,
}

impl House {
    /// Finds out who HAProxy is on the host that has this root folder.
    pub(super) fn of(caller: u32, root: &Path) -> Self {
        let own = Owners::new(caller);
        let named = NAMES.into_iter().filter_map(package_user).filter(|(user, _)| *user != NOBODY);
        let groups = NAMES.into_iter().filter_map(package_group);
        let (mut users, mut gids): (Vec<u32>, Vec<u32>) = named.unzip();
        gids.extend(groups);
        for folder in PLACES.iter().flat_map(|place| folders(&root.join(place))) {
            users.push(folder.uid());
            gids.push(folder.gid());
        }
        let configurations = own.with(users.iter().copied(), []);
        let sockets = configurations.with([], gids);
        Self { own, configurations, sockets }
    }

    /// Tells how much a user counts.
    pub(super) fn standing(&self, uid: u32) -> Standing {
        if self.own.has(uid) {
            Standing::Own
        } else if self.configurations.has(uid) {
            Standing::OfHaproxy
        } else {
            Standing::Stranger
        }
    }

    /// Also trusts the users and groups that the configuration names, including a user's own group.
    pub(super) fn with_accounts(&self, settings: &Settings) -> Owners {
        let users = settings.users.iter().filter_map(|account| match account {
            Account::Id(id) => Some((*id, None)),
            Account::Name(name) => user(name).map(|(user, group)| (user, Some(group))),
        });
        let users: Vec<(u32, Option<u32>)> = users.collect();
        let groups = settings.groups.iter().filter_map(|account| match account {
            Account::Id(id) => Some(*id),
            Account::Name(name) => group(name),
        });
        self.sockets.with(users.iter().map(|user| user.0), users.iter().filter_map(|user| user.1).chain(groups))
    }
}

/// Finds an account of the packages, which is in the files of this host; Debian's may also come from elsewhere.
fn package_user(name: &str) -> Option<(u32, u32)> {
    if name == "haproxy" { user(name) } else { files::user(name) }
}

fn package_group(name: &str) -> Option<u32> {
    if name == "haproxy" { group(name) } else { files::group(name) }
}

/// Lists the folders for HAProxy in a place, as far as root alone could have made them for somebody else.
fn folders(place: &Path) -> Vec<Metadata> {
    let is_roots =
        fs::symlink_metadata(place).is_ok_and(|place| place.is_dir() && place.uid() == 0 && place.mode() & 0o022 == 0);
    if !is_roots {
        return Vec::new();
    }
    let entries = fs::read_dir(place).into_iter().flatten().flatten().take(ENTRIES_MAX);
    let is_called = |name: &str| name == "haproxy" || name.starts_with("hapee-");
    let called = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_called));
    let folders = called.filter_map(|entry| fs::symlink_metadata(entry.path()).ok());
    folders.filter(|folder| folder.is_dir() && folder.uid() != 0 && folder.uid() != NOBODY).collect()
}

/// Returns the ids of a user and of its own group.
#[cfg(not(target_feature = "crt-static"))]
pub(super) fn user(name: &str) -> Option<(u32, u32)> {
    let user = nix::unistd::User::from_name(name).ok()??;
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

/// Returns the id of a group.
#[cfg(not(target_feature = "crt-static"))]
pub(super) fn group(name: &str) -> Option<u32> {
    Some(nix::unistd::Group::from_name(name).ok()??.gid.as_raw())
}

#[cfg(target_feature = "crt-static")]
pub(super) use files::{group, user};
