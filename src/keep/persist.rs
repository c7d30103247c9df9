//! Keeps HAProxy's server-state files in step with the servers, so that a reload restores what was set.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::act::converge::Managed;
use crate::discover::configuration;
use crate::haproxy::observe::{Predicted, Server, dump, names};
use crate::keep::state_file::{Configured, Coverage, Dump, Kept, Location, StateFile, not_loaded};
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::state::AdminState;
use crate::request::{Request, StateFiles};

/// Whether the files are written, or only compared with what is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are compared with what HAProxy shows, and written where they differ.
    Write,
    /// They are compared with what HAProxy would show.
    Compare,
}

/// Assigns the requested files to their instances.
///
/// `asked` has the names of all instances that are asked, including those that are skipped because they did not answer.
///
/// # Errors
/// When a plain path is given for several instances, when an instance is not asked or does not have the backend, and when
/// two paths lead to the same file.
pub fn assign(request: &Request, asked: &[&str], managed: &mut [Managed<'_>]) -> Result<()> {
    match &request.state_file {
        None => return Ok(()),
        Some(StateFiles::One(path)) => {
            if asked.len() > 1 {
                return Err(bad(format!(
                    "'state_file' is one path for {} instances; give an object of instance names and paths",
                    asked.len()
                )));
            }
            managed.iter_mut().for_each(|managed| managed.state_files.push(Kept::new(Coverage::All, path)));
        }
        Some(StateFiles::Each(files)) => {
            for (name, path) in files {
                let (instance, coverage) = covered(name);
                if let Some(found) = managed.iter_mut().find(|managed| managed.instance.name.as_str() == instance) {
                    found.state_files.push(Kept::new(coverage, path));
                } else if !asked.contains(&instance) {
                    return Err(bad(format!(
                        "'state_file' names the instance '{}', which is not among those that are asked; name it in \
                         'instances' as well, or correct the name",
                        instance.escape_debug()
                    )));
                }
            }
        }
    }
    // A file that cannot be read or replaced is found before any command is sent.
    let mut locations: HashMap<Location, String> = HashMap::new();
    for managed in managed {
        check_backends(managed)?;
        for kept in &mut managed.state_files {
            match read(&kept.path) {
                Ok((former, location)) => {
                    if let Some(other) = locations.insert(location, kept.path.clone()) {
                        return Err(bad(format!(
                            "'state_file' gives {other} and {}, which are the same file, so one content would \
                             overwrite the other; give each its own file",
                            kept.path
                        )));
                    }
                    kept.former = Some(former);
                }
                Err(error) => managed.error = managed.error.take().or(Some(error)),
            }
        }
    }
    Ok(())
}

fn bad(msg: String) -> Error {
    Error::new(ErrorKind::BadRequest, msg)
}

/// Reads what a key of `state_file` covers: `instance`, or `instance/backend`.
fn covered(name: &str) -> (&str, Coverage) {
    // Names of instances have no slash.
    match name.split_once('/') {
        Some((instance, backend)) => (instance, Coverage::Backend(backend.to_owned())),
        None => (name, Coverage::All),
    }
}

fn read(path: &str) -> Result<(StateFile, Location)> {
    let file = StateFile::read(Path::new(path))?;
    file.check()?;
    let location = file.location()?;
    Ok((file, location))
}

/// Refuses files for backends that the instance does not have.
fn check_backends(managed: &Managed<'_>) -> Result<()> {
    let observed = managed.current.servers.iter().chain(&managed.current.others);
    let observed: HashSet<&str> = observed.map(|server| &*server.backend).collect();
    let named = managed.state_files.iter().filter_map(|kept| kept.coverage.backend());
    let unobserved: Vec<&str> = named.filter(|backend| !observed.contains(backend)).collect();
    if unobserved.is_empty() {
        return Ok(());
    }
    let all = names(&managed.current.address, managed.timeout)?;
    match unobserved.iter().find(|backend| all.iter().all(|(known, _)| known != *backend)) {
        None => Ok(()),
        Some(backend) => Err(bad(format!(
            "'state_file' names '{}/{}', but that instance has no such backend with servers; correct the name",
            managed.instance.name,
            backend.escape_debug()
        ))),
    }
}

/// Brings the files of an instance in step; what fails is kept at the instance.
pub fn persist(managed: &mut Managed<'_>, mode: Mode) {
    if managed.state_files.is_empty() {
        return;
    }
    let is_unread = managed.outcomes.iter().all(|outcome| outcome.after.is_none());
    if let Some(error) = managed.error.as_ref().filter(|error| is_unread && is_out_of_reach(error)) {
        let not_in_step = |kept: &Kept| format!("the state file {} was not updated: {error}", kept.path);
        managed.warnings.extend(managed.state_files.iter().map(not_in_step));
        return;
    }
    if let Err(error) = try_to_persist(managed, mode) {
        managed.error = managed.error.take().or(Some(error));
    }
}

/// Tells whether asking the instance once more would only take time.
fn is_out_of_reach(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Timeout)
}

/// Brings the files in step; a failure of one does not keep the others from it.
fn try_to_persist(managed: &mut Managed<'_>, mode: Mode) -> Result<()> {
    let predicted = match mode {
        Mode::Write => Predicted::default(),
        Mode::Compare => Predicted::of(&managed.current.servers),
    };
    let mut rows = Dump::default();
    dump(&managed.current.address, managed.timeout, &predicted, |line| rows.line(line))?;
    let servers = &managed.current.servers;
    let matched: Vec<(&str, &str)> = servers.iter().map(|it| (&*it.backend, &*it.server)).collect();
    let files: Vec<Vec<u8>> = managed.instance.files.iter().filter_map(|file| configuration(file)).collect();
    let mut warnings: Vec<String> = rows.unheard(&matched).into_iter().collect();
    let mut failure = None;
    let own: HashSet<String> =
        managed.state_files.iter().filter_map(|kept| kept.coverage.backend().map(str::to_owned)).collect();
    for kept in &mut managed.state_files {
        let is_first = kept.changed.is_none();
        match keep_in_step(kept, &rows, &matched, mode) {
            Ok(found) if is_first => {
                warnings.extend(found);
                warnings.extend(unloaded(kept, &files, &matched, &own));
            }
            Ok(_) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let configured = Configured::read(&files);
    warnings.extend(moved(&configured, &rows, servers));
    warnings.extend(unconfigured(&configured, &rows, servers));
    for warning in warnings {
        if !managed.warnings.contains(&warning) {
            managed.warnings.push(warning);
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Brings one file in step, notes whether it differs from before the run, and returns warnings.
fn keep_in_step(kept: &mut Kept, rows: &Dump, matched: &[(&str, &str)], mode: Mode) -> Result<Vec<String>> {
    let file = StateFile::read(Path::new(&kept.path))?;
    let comparison = file.compare(rows, &kept.coverage, matched)?;
    if comparison.differs && mode == Mode::Write {
        file.replace(&comparison.content)?;
    }
    kept.changed = Some(match &kept.former {
        Some(former) => former.compare(rows, &kept.coverage, matched)?.differs,
        None => comparison.differs,
    });
    Ok(comparison.warnings)
}

/// Warns where the configuration does not load a file for the backends of matched servers; `own` names the backends that
/// have their own files.
fn unloaded(kept: &Kept, files: &[Vec<u8>], matched: &[(&str, &str)], own: &HashSet<String>) -> Option<String> {
    let path = Path::new(&kept.path);
    let backends = matched.iter().map(|(backend, _)| *backend);
    match &kept.coverage {
        Coverage::All => not_loaded(files, path, backends.filter(|backend| !own.contains(*backend))),
        Coverage::Backend(backend) => {
            not_loaded(files, path, backends.filter(|name| name == backend))?;
            Some(format!(
                "a reload of HAProxy forgets what is set in the backend {backend}, because its configuration does not \
                 load the state file {0} there; add 'load-server-state-from-file local' and 'server-state-file-name {0}' \
                 to that backend",
                kept.path
            ))
        }
    }
}

/// Warns of ready servers that are not where the configuration has them.
fn moved(configured: &Configured, rows: &Dump, servers: &[Server]) -> Vec<String> {
    let pinned = rows.servers();
    let (mut until_reload, mut beyond): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for server in servers.iter().filter(|server| server.flags.effective() == AdminState::Ready) {
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
fn unconfigured(configured: &Configured, rows: &Dump, servers: &[Server]) -> Option<String> {
    let kept = rows.servers();
    let is_lost = |server: &&Server| {
        kept.contains(&(server.backend.as_bytes(), server.server.as_bytes()))
            && configured.lacks(&server.backend, &server.server)
    };
    let lost: Vec<String> = servers.iter().filter(is_lost).map(Server::full_name).collect();
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
