//! The ids of the users and groups that a configuration names.
//!
//! The C library knows them from everywhere that `/etc/nsswitch.conf` says. Where the C library is part of the program
//! (`crt-static`) it cannot load what asks there, so that only `/etc/passwd` and `/etc/group` are read: an account that
//! LDAP or the like alone knows is not found then, and is not trusted.

mod files;

pub use files::user_name;

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
