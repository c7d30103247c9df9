//! HAProxy's own state file, kept in step with what was read back, so that it survives a reload.
//!
//! [`Dump`] decides what belongs in the file; [`StateFile`] reads and replaces it; [`not_loaded`] tells whether HAProxy
//! would load it at all.

mod content;
mod loading;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};

pub use self::content::{Comparison, Dump};
pub use self::loading::not_loaded;
use super::replace::{Rights, replace};
use super::walk::open_folder;
use crate::model::error::{Error, ErrorKind, Result};

/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 256 << 20;

/// The file as it is, and its folder.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    folder: OwnedFd,
    name: OsString,
    existing: Option<Existing>,
}

/// What exists there.
#[derive(Debug)]
struct Existing {
    content: Vec<u8>,
    rights: Rights,
}

impl StateFile {
    /// Reads the file, which may be missing.
    ///
    /// # Errors
    /// When the path is relative or leads to anything but a regular file, and when it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let refuse = |why: &str| Error::new(ErrorKind::StateFile, format!("the state file {} {why}", path.display()));
        let (Some(parent), Some(name), true) = (path.parent(), path.file_name(), path.is_absolute()) else {
            return Err(refuse("is not an absolute path of a file; write it like /var/lib/haproxy/server-state"));
        };
        let folder = open_folder(parent).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT) => refuse("cannot be kept, because its folder does not exist; create it"),
            _ => refuse(&format!("cannot be kept, because its folder cannot be opened ({error})")),
        })?;
        let existing = read(&folder, name).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP) => refuse("is a link, which is never followed; name the file itself"),
            _ => refuse(&format!("cannot be read ({error})")),
        })?;
        Ok(Self { path: path.to_owned(), folder, name: name.to_owned(), existing })
    }

    /// Tells whether an existing file may be replaced, as far as that can be known without a dump.
    ///
    /// # Errors
    /// When it is not a state file.
    pub fn check(&self) -> Result<()> {
        let existing = self.existing.as_ref().map(|existing| existing.content.as_slice());
        content::check(existing.unwrap_or_default()).map_err(|why| self.left_alone(&why))
    }

    /// Compares the file with what it should say about the given servers (backend, server).
    ///
    /// # Errors
    /// When it is not a state file, which is never replaced.
    pub fn compare(&self, dump: &Dump, matched: &[(&str, &str)]) -> Result<Comparison> {
        let existing = self.existing.as_ref().map(|existing| existing.content.as_slice());
        let mut comparison = dump.compare(existing, matched).map_err(|why| self.left_alone(&why))?;
        for warning in &mut comparison.warnings {
            *warning = format!("state file {}: {warning}", self.path.display());
        }
        Ok(comparison)
    }

    fn left_alone(&self, why: &str) -> Error {
        Error::new(ErrorKind::StateFile, format!("the state file {} is left alone: {why}", self.path.display()))
    }

    /// Replaces the file, whole and atomically, keeping its rights.
    ///
    /// # Errors
    /// When it cannot be written; then the old one is as it was.
    pub fn replace(&self, content: &[u8]) -> Result<()> {
        let rights = self.existing.as_ref().map(|existing| existing.rights);
        replace(&self.folder, &self.name, content, rights).map_err(|error| {
            Error::new(
                ErrorKind::StateFile,
                format!(
                    "the state file {} could not be written ({error}) and is as it was, so a reload of HAProxy \
                     would forget what was set; fix that and run this again",
                    self.path.display()
                ),
            )
        })
    }
}

fn read(folder: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<Option<Existing>> {
    // A FIFO or a device must not block the run or be affected by it.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let stat = fstat(&file)?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut content = Vec::new();
    (&file).take(FILE_MAX + 1).read_to_end(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|length| length > FILE_MAX) {
        return Err(io::Error::other(format!("it is larger than {FILE_MAX} bytes")));
    }
    Ok(Some(Existing { content, rights: Rights::of(&stat) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::geteuid;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::process::Command;

    const FULL: &str = "HAPROXY_SERVER_TEST_FULL";

    fn dump() -> Dump {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/2.6/show_servers_state.txt");
        let mut dump = Dump::default();
        fs::read_to_string(file).unwrap().lines().for_each(|line| dump.line(line.as_bytes()).unwrap());
        dump
    }

    #[test]
    fn it_is_written_read_and_found_to_be_the_same() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        let missing = StateFile::read(&path).unwrap();
        let comparison = missing.compare(&dump(), &[]).unwrap();
        missing.replace(&comparison.content).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let there = StateFile::read(&path).unwrap();
        assert!(!there.compare(&dump(), &[]).unwrap().differs);
        there.replace(b"1\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"1\n");
    }

    #[test]
    fn only_a_regular_file_by_its_whole_path_will_do() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path();
        let victim = top.join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, top.join("link")).unwrap();
        symlink(top.join("nowhere"), top.join("dangling")).unwrap();
        nix::unistd::mkfifo(&top.join("fifo"), Mode::S_IRWXU).unwrap();
        File::create(top.join("large")).unwrap().set_len(FILE_MAX + 1).unwrap();
        let table = [
            (top.join("link"), "is a link"),
            (top.join("dangling"), "is a link"),
            (top.join("fifo"), "not a regular file"),
            (top.join("large"), "larger than"),
            (top.to_owned(), "not a regular file"),
            (top.join("no/where"), "folder does not exist"),
            (victim.join("x"), "folder cannot be opened"),
            (PathBuf::from("relative"), "is not an absolute path of a file"),
            (PathBuf::from("/"), "is not an absolute path of a file"),
            (top.join(".."), "is not an absolute path of a file"),
        ];
        for (path, expected) in table {
            let error = StateFile::read(&path).unwrap_err();
            assert_eq!(error.kind, ErrorKind::StateFile);
            assert!(error.msg.contains(expected), "{error}");
        }
        let file = StateFile::read(&victim).unwrap();
        for other in [file.check().unwrap_err(), file.compare(&dump(), &[]).unwrap_err()] {
            assert_eq!(other.kind, ErrorKind::StateFile);
            assert!(other.msg.contains("is left alone: it is not a server-state file"), "{other}");
        }
        StateFile::read(&top.join("missing")).unwrap().check().unwrap();
    }

    #[test]
    fn a_link_that_comes_meanwhile_is_not_written_through() {
        let place = tempfile::tempdir().unwrap();
        let (path, victim) = (place.path().join("state"), place.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        let file = StateFile::read(&path).unwrap();
        symlink(&victim, &path).unwrap();
        file.replace(b"1\n").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(fs::read(&path).unwrap(), b"1\n");
    }

    #[test]
    fn a_full_disk_loses_nothing() {
        if !geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let child = Command::new("unshare")
            .args(["-m", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs \"$0\" && exec \"$@\""])
            .arg(place.path())
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "keep::state_file::tests::writes_to_a_full_disk", "--ignored", "--nocapture"])
            .env(FULL, place.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        // Where no file system may be mounted, there is nothing to see.
        assert!(said.contains("nothing was lost") || !said.contains("running"), "{said}");
    }

    #[test]
    #[ignore = "the child of the test above"]
    fn writes_to_a_full_disk() {
        let Some(place) = std::env::var_os(FULL) else { return };
        let path = Path::new(&place).join("state");
        fs::write(&path, "1\n").unwrap();
        let file = StateFile::read(&path).unwrap();
        let error = file.replace(&vec![b'#'; 1 << 20]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::StateFile);
        assert!(error.msg.contains("No space left") && error.msg.contains("is as it was"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"1\n");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        println!("nothing was lost");
    }
}
