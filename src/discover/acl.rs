//! POSIX access control lists: who else may write, beyond what the mode says (acl(5)).
//!
//! A file with a list shows the list's mask as the group's bits of its mode. So if the mode does not let the group
//! write, no list does, and none is read. NFSv4 lists are not supported; their file systems show them in the mode.

use std::io;
use std::path::Path;

/// The attribute that holds the list.
const ATTRIBUTE: &str = "system.posix_acl_access";

/// The longest value that the kernel stores, in bytes.
const VALUE_MAX: usize = 64 << 10;

/// The version at the beginning of the value (`linux/posix_acl_xattr.h`).
const VERSION: [u8; 4] = 2u32.to_le_bytes();

/// The kinds of entries.
const USER: u16 = 0x02;
const GROUP_OF_FILE: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

/// The bit that allows writing.
const WRITE: u16 = 0o2;

/// Who may write according to a list, besides the owner and everybody.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Writers {
    /// The users that the list names.
    pub(super) users: Vec<u32>,
    /// The groups that the list names.
    pub(super) groups: Vec<u32>,
    /// Whether the group of the file is among them.
    pub(super) group_of_file: bool,
}

/// Reads who may write to a file or folder according to its list; `None` without a list.
///
/// A link at the end of the path is not followed.
pub(super) fn writers(path: &Path) -> io::Result<Option<Writers>> {
    let mut value = vec![0; VALUE_MAX];
    match rustix::fs::lgetxattr(path, ATTRIBUTE, &mut value) {
        Ok(length) => match Writers::parse(value.get(..length).unwrap_or_default()) {
            Some(writers) => Ok(Some(writers)),
            None => Err(io::Error::other("its access control list has an unknown form")),
        },
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

impl Writers {
    /// Reads the value of the attribute.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let entries = value.strip_prefix(&VERSION)?.chunks_exact(8);
        if !entries.remainder().is_empty() {
            return None;
        }
        let entries = entries.filter_map(|entry| match *entry {
            [t0, t1, p0, p1, i0, i1, i2, i3] => {
                Some((u16::from_le_bytes([t0, t1]), u16::from_le_bytes([p0, p1]), u32::from_le_bytes([i0, i1, i2, i3])))
            }
            _ => None,
        });
        let mask = entries.clone().find(|(tag, ..)| *tag == MASK).map_or(WRITE, |(_, allowed, _)| allowed);
        let mut writers = Self::default();
        for (tag, _, id) in entries.filter(|(_, allowed, _)| allowed & mask & WRITE != 0) {
            match tag {
                USER => writers.users.push(id),
                GROUP => writers.groups.push(id),
                GROUP_OF_FILE => writers.group_of_file = true,
                _ => {}
            }
        }
        Some(writers)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The entry of the owner, of the mask and of all others have no id.
    const NOBODY: u32 = u32::MAX;

    /// Writes a list with these entries besides the owner's and everybody's, as setfacl does.
    pub(in crate::discover) fn value(entries: &[(u16, u16, u32)], mask: u16) -> Vec<u8> {
        let mut all = vec![(0x01, 7, NOBODY)];
        all.extend(entries);
        all.extend([(MASK, mask, NOBODY), (0x20, 5, NOBODY)]);
        all.sort_unstable();
        let entry = |(tag, allowed, id): (u16, u16, u32)| {
            [&tag.to_le_bytes()[..], &allowed.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        VERSION.into_iter().chain(all.into_iter().flat_map(entry)).collect()
    }

    /// Gives a file or folder a list, where the file system has them.
    pub(in crate::discover) fn set(path: &Path, entries: &[(u16, u16, u32)], mask: u16) -> bool {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(path, ATTRIBUTE, &value(entries, mask), flags).is_ok()
    }

    #[test]
    fn the_mask_bounds_all_but_the_owner_and_everybody() {
        let entries = [(USER, 7, 1), (USER, 5, 2), (GROUP_OF_FILE, 7, NOBODY), (GROUP, 6, 3), (GROUP, 4, 4)];
        let expected = Writers { users: vec![1], groups: vec![3], group_of_file: true };
        assert_eq!(Writers::parse(&value(&entries, 7)), Some(expected));
        assert_eq!(Writers::parse(&value(&entries, 5)), Some(Writers::default()));
    }

    #[test]
    fn what_the_kernel_has_stored_is_read() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(writers(place.path()).unwrap(), None);
        if set(place.path(), &[(USER, 7, 65534), (GROUP_OF_FILE, 5, NOBODY)], 7) {
            let expected = Writers { users: vec![65534], groups: vec![], group_of_file: false };
            assert_eq!(writers(place.path()).unwrap(), Some(expected));
        }
        assert!(writers(&place.path().join("missing")).is_err());
    }

    #[test]
    fn other_forms_are_refused() {
        let whole = value(&[], 7);
        for bad in [&whole[..7], &[3, 0, 0, 0], &[], &whole[..whole.len() - 1]] {
            assert_eq!(Writers::parse(bad), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Writers::parse(&bytes);
        }
    }
}
