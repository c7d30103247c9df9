//! `/etc/passwd` and `/etc/group`, where the C library cannot be asked, or might ask the network (passwd(5), group(5)).

use std::fs::File;
use std::io::Read;

/// The most that is read of either file, in bytes.
const SIZE_MAX: u64 = 16 << 20;

/// Returns the ids of a user and of its own group.
pub(in crate::discover) fn user(name: &str) -> Option<(u32, u32)> {
    let (id, rest) = entry("/etc/passwd", name)?;
    Some((id, rest.split(':').next()?.parse().ok()?))
}

/// Returns the id of a group.
pub(in crate::discover) fn group(name: &str) -> Option<u32> {
    entry("/etc/group", name).map(|(id, _)| id)
}

/// Returns the name of a user that `/etc/passwd` has, without asking LDAP or the like, which may take its time.
#[must_use]
pub fn user_name(user: u32) -> Option<String> {
    text("/etc/passwd")?.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(user)).then(|| name.to_owned())
    })
}

fn text(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(SIZE_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Finds an account by its name: its id, and what comes after it.
fn entry(path: &str, name: &str) -> Option<(u32, String)> {
    text(path)?.lines().find_map(|line| {
        let (_password, rest) = line.strip_prefix(name)?.strip_prefix(':')?.split_once(':')?;
        let (id, rest) = rest.split_once(':')?;
        Some((id.parse().ok()?, rest.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The names in a file of accounts.
    fn names(path: &str) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
    }

    #[test]
    fn the_files_say_what_the_c_library_says() {
        for name in names("/etc/passwd") {
            assert_eq!(user(&name), super::super::user(&name), "{name}");
        }
        for name in names("/etc/group") {
            assert_eq!(group(&name), super::super::group(&name), "{name}");
        }
        assert_eq!(user("root"), Some((0, 0)));
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(user_name(u32::MAX), None);
        assert_eq!(group("root"), Some(0));
    }

    #[test]
    fn part_of_a_name_is_no_account() {
        for name in ["", "roo", "root:x", "nobody-is-called-so"] {
            assert_eq!((user(name), group(name)), (None, None), "{name}");
        }
    }
}
