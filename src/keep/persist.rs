//! Keeps HAProxy's server-state file in step with what was set, so that a reload brings it back.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::state_file::{Dump, StateFile, not_loaded};
use crate::discover::configuration;
use crate::haproxy::observe::{Predicted, dump};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::Address;
use crate::model::server::Server;
use crate::request::StateFiles;

/// Whether the file is written, or only compared with what is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is compared with what HAProxy shows, and written where it differs.
    Write,
    /// It is compared with what HAProxy would show.
    Compare,
}

/// The state file of an instance during a run.
#[derive(Debug)]
pub struct KeptFile {
    /// The file.
    pub path: String,
    /// As it was before the run.
    former: StateFile,
    /// What became of it; nothing as long as it was not compared.
    pub outcome: Option<InStep>,
}

/// What became of the state file of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InStep {
    /// It is as it was before the run.
    Unchanged,
    /// It differs from what it was before the run, or would in a dry run.
    Changed,
}

/// What a state file is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Where the instance answers.
    pub address: &'a Address,
    /// The longest that it may take to answer.
    pub timeout: std::time::Duration,
    /// The servers that the run is about, as they were read back or are predicted.
    pub servers: &'a [&'a Server],
    /// The files of the instance's configuration, where they are known.
    pub configuration: &'a [PathBuf],
}

/// Finds the file of each instance by its name, and refuses what names none or the wrong ones.
///
/// # Errors
/// When one plain path is given for several instances, or an instance is named that is not asked.
pub fn assign<'r>(files: Option<&'r StateFiles>, instances: &[&str]) -> Result<Vec<Option<&'r str>>> {
    let bad = |msg: String| Error::new(ErrorKind::BadRequest, msg);
    match files {
        None => Ok(vec![None; instances.len()]),
        Some(StateFiles::One(path)) => match instances {
            [_] => Ok(vec![Some(path)]),
            several => Err(bad(format!(
                "'state_file' is one path, but {} instances are asked; give an object of instance names and paths",
                several.len()
            ))),
        },
        Some(StateFiles::Each(files)) => {
            for (name, _) in files {
                if !instances.contains(&name.as_str()) {
                    return Err(bad(format!(
                        "'state_file' names the instance '{}', which is not among those that are asked; name it in 'instances' as well, or correct the name",
                        name.escape_debug()
                    )));
                }
            }
            if let Some(path) = shared(files) {
                return Err(bad(format!(
                    "'state_file' gives {path} to several instances, which would write over each other; give each its own"
                )));
            }
            let of = |name: &&str| files.iter().find(|(known, _)| known == name).map(|(_, path)| path.as_str());
            Ok(instances.iter().map(of).collect())
        }
    }
}

/// Finds a path that is given twice.
fn shared(files: &[(String, String)]) -> Option<&str> {
    let mut seen = HashSet::new();
    files.iter().map(|(_, path)| path.as_str()).find(|&path| !seen.insert(Path::new(path)))
}

impl KeptFile {
    /// Reads the file as it is before the run.
    ///
    /// # Errors
    /// When it cannot be read, or is something else: known before anything is sent.
    pub fn open(path: &str) -> Result<Self> {
        let former = StateFile::read(Path::new(path))?;
        former.check()?;
        Ok(Self { path: path.to_owned(), former, outcome: None })
    }

    /// Brings the file in step; returns what is worth knowing, a sentence each.
    ///
    /// # Errors
    /// When the instance does not answer, or the file cannot be read or written.
    pub fn bring_in_step(&mut self, source: Source<'_>, mode: Mode) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        let path = Path::new(&self.path);
        let file = StateFile::read(path)?;
        let predicted = match mode {
            Mode::Write => Predicted::default(),
            Mode::Compare => Predicted::of(source.servers),
        };
        let read = || {
            let mut rows = Dump::default();
            dump(source.address, source.timeout, &predicted, |line| rows.line(line)).map(|()| rows)
        };
        // A server that is deleted meanwhile may leave garbage in its row.
        let rows = match read() {
            Err(error) if error.kind == ErrorKind::BadReply => read(),
            read => read,
        }?;
        let matched: Vec<(&str, &str)> = source.servers.iter().map(|it| (&*it.backend, &*it.server)).collect();
        let comparison = file.compare(&rows, &matched)?;
        if self.outcome.is_none() {
            warnings.extend(comparison.warnings);
            let files: Vec<Vec<u8>> = source.configuration.iter().filter_map(|file| configuration(file)).collect();
            if !files.is_empty() {
                warnings.extend(not_loaded(&files, path, matched.iter().map(|(backend, _)| *backend)));
            }
        }
        if comparison.differs && mode == Mode::Write {
            file.replace(&comparison.content)?;
        }
        let differs = self.former.compare(&rows, &matched)?.differs;
        self.outcome = Some(if differs { InStep::Changed } else { InStep::Unchanged });
        Ok(warnings)
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
