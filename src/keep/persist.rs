//! Keeps HAProxy's server-state files in step with the servers, so that a reload restores what was set.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::state_file::{Coverage, Dump, Location, StateFile, not_loaded};
use crate::discover::{Configured, StateFileRules};
use crate::haproxy::observe::{Predicted, dump};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::name::Address;
use crate::model::server::Server;
use crate::model::state::AdminState;
use crate::request::StateFiles;
use crate::time::deadline::Allowance;

/// Whether the files are written, or only compared with what is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are compared with what HAProxy shows, and written where they differ.
    Write,
    /// They are compared with what HAProxy would show.
    Compare,
}

/// A state file of an instance during a run.
#[derive(Debug)]
pub struct KeptFile {
    /// Which servers have rows in it.
    pub coverage: Coverage,
    /// Where it is.
    pub path: String,
    /// As it was before the run.
    former: StateFile,
    /// What became of it; `None` until it was compared.
    pub outcome: Option<InStep>,
}

/// What became of a state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InStep {
    /// It is as it was before the run.
    Unchanged,
    /// It differs from before the run, or would in a dry run.
    Changed,
}

/// A file that is requested for an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned<'r> {
    /// The name of the instance.
    pub instance: &'r str,
    /// Which of its servers have rows in the file.
    pub coverage: Coverage,
    /// Where the file is.
    pub path: &'r str,
}

/// What the state files of an instance are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Where the instance answers.
    pub address: &'a Address,
    /// The longest that it may take to answer.
    pub timeout: std::time::Duration,
    /// The matched servers, as they were read back or are predicted.
    pub servers: &'a [&'a Server],
    /// Which state files the instance's configuration loads, where that is known.
    pub rules: Option<&'a StateFileRules>,
    /// Where the instance's configuration has its servers, where that is known.
    pub configured: Option<&'a Configured>,
}

/// Finds the files of each instance by its name.
///
/// `asked` has the names of all instances that are asked, including those that are skipped because they did not answer.
///
/// # Errors
/// When one path is given for several instances, or an instance is named that the request does not cover.
pub fn assign<'r>(files: Option<&'r StateFiles>, asked: &[&'r str]) -> Result<Vec<Assigned<'r>>> {
    match files {
        None => Ok(Vec::new()),
        Some(StateFiles::One(path)) => match asked {
            [] => Ok(Vec::new()),
            [instance] => Ok(vec![Assigned { instance, coverage: Coverage::All, path }]),
            several => Err(bad(format!(
                "'state_file' is one path for {} instances; give an object of instance names and paths",
                several.len()
            ))),
        },
        Some(StateFiles::Each(files)) => {
            let assign = |(name, path): &'r (String, String)| {
                let (instance, coverage) = covered(name);
                if asked.contains(&instance) {
                    return Ok(Assigned { instance, coverage, path });
                }
                Err(bad(format!(
                    "'state_file' names the instance '{}', which the request does not cover; add it to 'instances', or \
                     correct the name",
                    instance.escape_debug()
                )))
            };
            files.iter().map(assign).collect()
        }
    }
}

/// Reads what a key of `state_file` covers: `instance`, or `instance/backend`.
fn covered(name: &str) -> (&str, Coverage) {
    // Names of instances have no slash.
    match name.split_once('/') {
        Some((instance, backend)) => (instance, Coverage::Backend(backend.to_owned())),
        None => (name, Coverage::All),
    }
}

/// Refuses two paths to one file, of all instances together.
///
/// # Errors
/// When there are such paths, or a folder cannot be read.
pub fn check_apart<'f>(files: impl Iterator<Item = &'f KeptFile>) -> Result<()> {
    let mut paths: HashMap<Location, &str> = HashMap::new();
    for file in files {
        if let Some(other) = paths.insert(file.former.location()?, &file.path) {
            return Err(bad(format!(
                "'state_file' gives {other} and {}, which are the same file, so one content would overwrite the other; \
                 give each its own file",
                file.path
            )));
        }
    }
    Ok(())
}

/// Makes the failure of a request that does not go with the instances.
#[must_use]
pub fn bad(msg: String) -> Error {
    Error::new(ErrorKind::BadRequest, msg)
}

/// Tells whether the servers of a backend are in a file that has been brought in step.
#[must_use]
pub fn is_kept(files: &[KeptFile], backend: &str) -> bool {
    files.iter().any(|file| file.outcome.is_some() && file.coverage.includes(backend.as_bytes()))
}

/// Brings the files of an instance in step, and adds what is worth knowing to the warnings, a sentence each; a failure of
/// one file does not keep the others from it.
///
/// # Errors
/// When the instance does not answer, or a file cannot be read or written.
pub fn bring_in_step(files: &mut [KeptFile], source: Source<'_>, mode: Mode, warnings: &mut Vec<String>) -> Result<()> {
    let predicted = match mode {
        Mode::Write => Predicted::default(),
        Mode::Compare => Predicted::of(source.servers),
    };
    let read = || {
        let mut rows = Dump::default();
        dump(source.address, Allowance::of(source.timeout), &predicted, |line| rows.line(line)).map(|()| rows)
    };
    // A server that is deleted meanwhile may leave garbage in its row.
    let rows = match read() {
        Err(error) if error.kind == ErrorKind::BadReply => read(),
        read => read,
    }?;
    let matched: Vec<(&str, &str)> = source.servers.iter().map(|it| (&*it.backend, &*it.server)).collect();
    let mut found: Vec<String> = rows.unheard(&matched).into_iter().collect();
    let mut failure = None;
    let own: HashSet<String> = files.iter().filter_map(|file| file.coverage.backend().map(str::to_owned)).collect();
    for file in files {
        let is_first = file.outcome.is_none();
        match file.bring_in_step(&rows, &matched, mode) {
            Ok(of_rows) if is_first => {
                found.extend(of_rows);
                found.extend(source.rules.and_then(|rules| file.unloaded(rules, &matched, &own)));
            }
            Ok(_) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if let Some(configured) = source.configured {
        found.extend(moved(configured, &rows, source.servers));
        found.extend(unconfigured(configured, &rows, source.servers));
    }
    for warning in found {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    failure.map_or(Ok(()), Err)
}

impl KeptFile {
    /// Reads a file as it is before the run.
    ///
    /// # Errors
    /// When it cannot be read or is not a state file; this is known before anything is sent.
    pub fn open(coverage: Coverage, path: &str) -> Result<Self> {
        let former = StateFile::read(Path::new(path))?;
        former.check()?;
        Ok(Self { coverage, path: path.to_owned(), former, outcome: None })
    }

    /// Brings the file in step with a dump, notes whether it differs from before the run, and returns warnings.
    fn bring_in_step(&mut self, rows: &Dump, matched: &[(&str, &str)], mode: Mode) -> Result<Vec<String>> {
        let file = StateFile::read(Path::new(&self.path))?;
        let comparison = file.compare(rows, &self.coverage, matched)?;
        if comparison.differs && mode == Mode::Write {
            file.replace(&comparison.content)?;
        }
        let differs = self.former.compare(rows, &self.coverage, matched)?.differs;
        self.outcome = Some(if differs { InStep::Changed } else { InStep::Unchanged });
        Ok(comparison.warnings)
    }

    /// Warns where the configuration does not load the file for the backends of matched servers; `own` names the backends
    /// that have their own files.
    fn unloaded(&self, rules: &StateFileRules, matched: &[(&str, &str)], own: &HashSet<String>) -> Option<String> {
        let path = Path::new(&self.path);
        let backends = matched.iter().map(|(backend, _)| *backend);
        match &self.coverage {
            Coverage::All => not_loaded(rules, path, backends.filter(|backend| !own.contains(*backend))),
            Coverage::Backend(backend) => {
                not_loaded(rules, path, backends.filter(|name| name == backend))?;
                Some(format!(
                    "a reload of HAProxy forgets what is set in the backend {backend}, because its configuration does not \
                     load the state file {0} there; add 'load-server-state-from-file local' and \
                     'server-state-file-name {0}' to that backend",
                    self.path
                ))
            }
        }
    }
}

/// Warns of ready servers that are not where the configuration has them.
fn moved(configured: &Configured, rows: &Dump, servers: &[&Server]) -> Vec<String> {
    let pinned = rows.servers();
    let (mut until_reload, mut beyond): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for server in servers.iter().filter(|server| server.state.flags.effective() == AdminState::Ready) {
        if let Some(place) = configured.elsewhere(&server.backend, &server.server, &server.address) {
            let found = format!("{} is at {}, but the configuration says {place}", server.full_name(), server.address);
            let has_row = pinned.contains(&(server.backend.as_bytes(), server.server.as_bytes()));
            if has_row { beyond.push(found) } else { until_reload.push(found) }
        }
    }
    let sentence = |found: &[String], what_then: &str| match found {
        [] => None,
        [one] => Some(format!("{one}; {what_then}")),
        [one, more @ ..] => Some(format!("{one} (and so for {} more); {what_then}", more.len())),
    };
    let reload = "reload HAProxy to use that";
    let keeps =
        "its row in the state file keeps the port over a reload; restore its weight and checks to remove the row";
    [sentence(&until_reload, reload), sentence(&beyond, keeps)].into_iter().flatten().collect()
}

/// Warns of servers whose rows are useless in a reload, because the configuration does not have them.
fn unconfigured(configured: &Configured, rows: &Dump, servers: &[&Server]) -> Option<String> {
    let kept = rows.servers();
    let is_lost = |server: &&&Server| {
        kept.contains(&(server.backend.as_bytes(), server.server.as_bytes()))
            && configured.lacks(&server.backend, &server.server)
    };
    let lost: Vec<String> = servers.iter().filter(is_lost).map(|server| server.full_name()).collect();
    let named = match lost.as_slice() {
        [] => return None,
        [one] => one.clone(),
        [one, more @ ..] => format!("{one} and {} more", more.len()),
    };
    Some(format!(
        "a reload of HAProxy forgets {named}, because the configuration has no such server; a command has added or renamed \
         it, so change the configuration too"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_an_instance_or_one_of_its_backends() {
        assert_eq!(covered("http"), ("http", Coverage::All));
        assert_eq!(covered("http/app"), ("http", Coverage::Backend("app".to_owned())));
        assert_eq!(covered("http/a/b"), ("http", Coverage::Backend("a/b".to_owned())));
    }
}
