//! Keeps HAProxy's server-state files in step with what was set, so that a reload brings it back.

use std::collections::HashSet;
use std::path::Path;

use crate::act::converge::Managed;
use crate::haproxy::observe::{Predicted, dump};
use crate::keep::state_file::{Dump, StateFile, not_loaded};
use crate::model::error::{Error, ErrorKind, Result};
use crate::request::{Request, StateFiles};

/// Whether the files are written, or only compared with what is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are compared with what HAProxy shows, and written where they differ.
    Write,
    /// They are compared with what HAProxy would show.
    Compare,
}

/// What became of the state file of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persisted {
    /// The file.
    pub path: String,
    /// Whether it was written, or would be in a dry run.
    pub changed: bool,
}

/// Finds the file of each instance, and refuses what names none or the wrong ones.
///
/// # Errors
/// When one plain path is given for several instances, or an instance is named that is not asked.
pub fn assign(request: &Request, managed: &mut [Managed<'_>]) -> Result<()> {
    let bad = |msg: String| Error::new(ErrorKind::BadRequest, msg);
    match &request.state_file {
        None => {}
        Some(StateFiles::One(path)) => match managed {
            [one] => one.state_file = Some(path.clone()),
            several => {
                return Err(bad(format!(
                    "'state_file' is one path, but {} instances are asked; give an object of instance names and paths",
                    several.len()
                )));
            }
        },
        Some(StateFiles::Each(files)) => {
            for (name, path) in files {
                let found = managed.iter_mut().find(|managed| managed.instance.name.as_str() == name);
                let Some(found) = found else {
                    return Err(bad(format!(
                        "'state_file' names the instance '{}', which is not among those that are asked; name it in 'instances' as well, or correct the name",
                        name.escape_debug()
                    )));
                };
                found.state_file = Some(path.clone());
            }
            if let Some(path) = shared(files) {
                return Err(bad(format!(
                    "'state_file' gives {path} to several instances, which would write over each other; give each its own"
                )));
            }
        }
    }
    // What cannot be read, or is something else, is known before anything is sent.
    let read = |path: &String| {
        let file = StateFile::read(Path::new(path))?;
        file.check()?;
        Ok(file)
    };
    for managed in managed {
        match managed.state_file.as_ref().map(read) {
            None => {}
            Some(Ok(former)) => managed.former_state_file = Some(former),
            Some(Err(error)) => managed.error = managed.error.take().or(Some(error)),
        }
    }
    Ok(())
}

/// Finds a path that is given twice.
fn shared(files: &[(String, String)]) -> Option<&str> {
    let mut seen = HashSet::new();
    files.iter().map(|(_, path)| path.as_str()).find(|&path| !seen.insert(Path::new(path)))
}

/// Brings the file of an instance in step; what fails is kept at the instance.
pub fn persist(managed: &mut Managed<'_>, mode: Mode) {
    let Some(path) = managed.state_file.clone() else { return };
    let is_unread = managed.outcomes.iter().all(|outcome| outcome.after.is_none());
    if let Some(error) = managed.error.as_ref().filter(|error| is_unread && is_out_of_reach(error)) {
        managed.warnings.push(format!("the state file {path} was not brought in step: {error}"));
        return;
    }
    match try_to_persist(managed, &path, mode) {
        Ok(changed) => managed.persisted = Some(Persisted { path, changed }),
        Err(error) => managed.error = managed.error.take().or(Some(error)),
    }
}

/// Tells whether asking the instance once more would only take time.
fn is_out_of_reach(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Timeout)
}

/// Brings the file in step; tells whether it differs from what it was before the run.
fn try_to_persist(managed: &mut Managed<'_>, path: &str, mode: Mode) -> Result<bool> {
    let file = StateFile::read(Path::new(path))?;
    let predicted = match mode {
        Mode::Write => Predicted::default(),
        Mode::Compare => Predicted::of(&managed.current.servers),
    };
    let mut rows = Dump::default();
    dump(&managed.current.address, managed.timeout, &predicted, |line| rows.line(line))?;
    let servers = &managed.current.servers;
    let matched: Vec<(&str, &str)> = servers.iter().map(|it| (&*it.backend, &*it.server)).collect();
    let comparison = file.compare(&rows, &matched)?;
    if managed.persisted.is_none() {
        managed.warnings.extend(comparison.warnings);
        if let Some(rules) = &managed.instance.state_files {
            let backends = servers.iter().map(|server| &*server.backend);
            let warning = not_loaded(rules, Path::new(path), backends).filter(|it| !managed.warnings.contains(it));
            managed.warnings.extend(warning);
        }
    }
    if comparison.differs && mode == Mode::Write {
        file.replace(&comparison.content)?;
    }
    match &managed.former_state_file {
        Some(former) => Ok(former.compare(&rows, &matched)?.differs),
        None => Ok(comparison.differs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_is_never_for_two_instances() {
        let files = |paths: &[&str]| -> Vec<(String, String)> {
            paths.iter().map(|path| ((*path).to_owned(), (*path).to_owned())).collect()
        };
        assert_eq!(shared(&files(&["/a", "/b"])), None);
        assert_eq!(shared(&files(&["/a/b", "/c", "/a//./b"])), Some("/a//./b"));
    }
}
