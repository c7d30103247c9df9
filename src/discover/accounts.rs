//! The ids of the users and groups that a configuration names.
//!
//! The C library finds them through all sources in `/etc/nsswitch.conf`. In a statically linked program (`crt-static`)
//! it cannot load the modules for that, so only `/etc/passwd` and `/etc/group` are read: an account that only LDAP or
//! the like knows is not found then, and not trusted.

#[cfg(any(target_feature = "crt-static", test))]
mod files;

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
