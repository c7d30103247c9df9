//! Whether a process sees a path as this program does.
//!
//! A process of the same mount namespace does. Debian's own service runs in another one, because of
//! `BindReadOnlyPaths=`, and yet sees the same `/etc` and `/run`; a container has different ones under the same names.
//! So if the namespaces differ, or cannot be compared (an ordinary user may not read `/proc/PID/ns/mnt` of others), the
//! mounts that hold the path are compared instead: the same device, and the same place on it. Anybody may read
//! `/proc/PID/mountinfo` (proc(5)).
//!
//! A process that has made a folder its root (`chroot`) shows there only what is below that folder, usually nothing. It
//! opened its files before that, so it is assumed to see what this program sees, unless its network is a different one.

use super::process::read;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The mounts of a process.
#[derive(Debug, Default)]
pub(super) struct Mounts(Vec<Mount>);

/// One line of `mountinfo`.
#[derive(Debug)]
struct Mount {
    device: Vec<u8>,
    root: PathBuf,
    point: PathBuf,
}

impl Mounts {
    pub(super) fn parse(mountinfo: &[u8]) -> Self {
        Self(mountinfo.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect())
    }

    /// Returns the device of a path and its place there; of mounts at one point, the last is on top.
    pub(super) fn place(&self, path: &Path) -> Option<(&[u8], PathBuf)> {
        let covering = self.0.iter().filter(|mount| path.starts_with(&mount.point));
        let mount = covering.max_by_key(|mount| mount.point.components().count())?;
        Some((&mount.device, mount.root.join(path.strip_prefix(&mount.point).ok()?)))
    }
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self { device: device.to_vec(), root: unescape(root), point: unescape(point) })
    }
}

/// Reads a path in which `\040` stands for a space.
fn unescape(text: &[u8]) -> PathBuf {
    let mut plain = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let digit = |byte: &u8| byte.wrapping_sub(b'0');
        rest = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                plain.push(digit(a) << 6 | digit(b) << 3 | digit(c));
                after
            }
            _ => {
                plain.push(*first);
                tail
            }
        };
    }
    PathBuf::from(OsString::from_vec(plain))
}

/// How one process sees the host.
#[derive(Debug)]
pub(super) struct Sight {
    same_mounts: bool,
    other_network: bool,
    root: Option<PathBuf>,
    theirs: Mounts,
    ours: Mounts,
}

impl Sight {
    /// Examines what `/proc` shows of the process.
    pub(super) fn of(proc: &Path, pid: u32) -> Self {
        let (folder, own) = (proc.join(pid.to_string()), proc.join("self"));
        let is_same = |name: &str| Some(fs::read_link(folder.join(name)).ok()? == fs::read_link(own.join(name)).ok()?);
        let same_mounts = is_same("ns/mnt") == Some(true);
        let mounts = |of: &Path| match same_mounts {
            true => Mounts::default(),
            false => Mounts::parse(&read(&of.join("mountinfo")).unwrap_or_default()),
        };
        Self {
            same_mounts,
            other_network: is_same("ns/net") == Some(false),
            root: fs::read_link(folder.join("root")).ok(),
            theirs: mounts(&folder),
            ours: mounts(&own),
        }
    }

    /// Tells whether the process is known to have another network, and with it other abstract sockets.
    pub(super) fn has_other_network(&self) -> bool {
        self.other_network
    }

    /// Tells whether the process is known to have the mounts of this program.
    pub(super) fn has_our_mounts(&self) -> bool {
        self.same_mounts
    }

    /// Tells whether nothing can be seen: the process has its own root folder, and this program may not look inside.
    pub(super) fn is_blind(&self) -> bool {
        !self.same_mounts && self.theirs.place(Path::new("/")).is_none()
    }

    /// Returns the root folder of the process, if it is known to be another one.
    pub(super) fn other_root(&self) -> Option<&Path> {
        self.root.as_deref().filter(|root| *root != Path::new("/"))
    }

    /// Tells whether the process sees the same file at the path, where its configuration names `chroot`.
    pub(super) fn shares(&self, path: &Path, chroot: Option<&Path>) -> bool {
        let has_own_root = chroot.is_some_and(|chroot| self.is_in(chroot));
        if self.same_mounts {
            return has_own_root || self.other_root().is_none();
        }
        if has_own_root {
            return !self.other_network;
        }
        match (self.theirs.place(path), self.ours.place(path)) {
            (Some(theirs), Some(ours)) => theirs == ours && self.other_root().is_none(),
            _ => false,
        }
    }

    /// Tells whether the process has the folder as its root, as far as that can be seen.
    fn is_in(&self, chroot: &Path) -> bool {
        let real = fs::canonicalize(chroot).unwrap_or_else(|_| chroot.to_owned());
        match &self.root {
            Some(root) if root == Path::new("/") => false,
            // `chroot auto` (3.3 and later) is a folder that is removed at once.
            Some(root) => *root == real || chroot == Path::new("auto"),
            None if self.same_mounts => true,
            None => self.theirs.place(Path::new("/")).is_none_or(|place| self.ours.place(&real) == Some(place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "27 1 254:0 / / rw - ext4 /dev/vda rw\n28 27 0:25 / /run rw - tmpfs t rw\n";
    const SERVICE: &str = "90 1 254:0 / / rw - ext4 /dev/vda rw\n91 90 254:0 /etc /etc ro - ext4 /dev/vda rw\n\
                           92 90 0:25 / /run rw - tmpfs t rw\n93 90 0:77 / /tmp rw - tmpfs t rw\n";
    const CONTAINER: &str = "90 1 0:50 / / rw - overlay o rw\n91 90 254:0 /srv/h /etc/haproxy ro - ext4 /dev/vda rw\n\
                             92 90 0:25 /haproxy /run/haproxy rw - tmpfs t rw\n";

    fn sight(mountinfo: &str, root: Option<&str>) -> Sight {
        Sight {
            same_mounts: false,
            other_network: false,
            root: root.map(PathBuf::from),
            theirs: Mounts::parse(mountinfo.as_bytes()),
            ours: Mounts::parse(HOST.as_bytes()),
        }
    }

    #[test]
    fn the_mounts_that_hold_a_path_are_compared() {
        let table = [
            (HOST, "/etc/haproxy/haproxy.cfg", true),
            (SERVICE, "/etc/haproxy/haproxy.cfg", true),
            (SERVICE, "/run/haproxy", true),
            (SERVICE, "/tmp/x", false),
            (CONTAINER, "/etc/haproxy/haproxy.cfg", false),
            (CONTAINER, "/usr/local/etc/haproxy/haproxy.cfg", false),
            (CONTAINER, "/run/haproxy/a.sock", true),
            ("", "/etc/haproxy/haproxy.cfg", false),
            ("nonsense\n1 2 3\n\n", "/etc", false),
        ];
        for (mountinfo, path, expected) in table {
            assert_eq!(sight(mountinfo, Some("/")).shares(Path::new(path), None), expected, "{path} in {mountinfo}");
        }
    }

    #[test]
    fn a_root_folder_of_its_own_is_the_configurations() {
        let (path, chroot) = (Path::new("/etc/h.cfg"), Path::new("/var/lib/none-such"));
        // A process of an ordinary user shows no root; its mounts are those below its root.
        assert!(sight("", None).shares(path, Some(chroot)));
        assert!(!sight("", None).shares(path, None));
        assert!(sight("90 1 254:0 /var/lib/none-such / rw - x\n", None).shares(path, Some(chroot)));
        assert!(!sight(CONTAINER, None).shares(path, Some(chroot)));
        assert!(sight("", Some("/var/lib/none-such")).shares(path, Some(chroot)));
        assert!(!sight("", Some("/srv/jail")).shares(path, Some(chroot)));
        assert!(!sight(HOST, Some("/srv/jail")).shares(path, None));
        assert!(sight("", Some("/tmp/haproxy.x (deleted)")).shares(path, Some(Path::new("auto"))));
        let mut other = sight("", Some("/var/lib/none-such"));
        other.other_network = true;
        assert!(!other.shares(path, Some(chroot)));
        other.same_mounts = true;
        assert!(other.shares(path, Some(chroot)));
        assert!(!other.shares(path, None));
    }

    #[test]
    fn the_uppermost_mount_counts() {
        let mounts = Mounts::parse(b"1 0 8:1 / / rw\n2 1 8:2 / /a\\040b rw\n3 1 8:3 /x /a\\040b rw\n");
        assert_eq!(mounts.place(Path::new("/a b/c")), Some((b"8:3".as_slice(), PathBuf::from("/x/c"))));
        assert_eq!(mounts.place(Path::new("/a bc")), Some((b"8:1".as_slice(), PathBuf::from("/a bc"))));
    }
}
