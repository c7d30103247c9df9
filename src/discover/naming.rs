//! The names of instances: by their configurations, and distinct.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::{Candidate, Origin};
use crate::model::name::InstanceName;

/// Names an instance by its `-f` argument: the file, or the folder that holds the file.
///
/// A folder name that only says that it holds configurations is skipped: `/etc/haproxy-ldap/conf.d` gives `ldap`.
pub(super) fn name_of(file: &Path, argument: &Path) -> InstanceName {
    // `/dev/stdin` and the like say nothing.
    let is_special = ["/dev", "/proc"].iter().any(|folder| argument.starts_with(folder));
    let path = if is_special { Path::new("/") } else { argument };
    // A stem that says nothing gives the name to the folders.
    if file == argument { InstanceName::from_path(path) } else { InstanceName::from_path(&path.join("haproxy.cfg")) }
}

/// Gives candidates of one name distinct ones, by the first folder in which their configurations differ.
///
/// `/srv/app1/web.cfg` and `/srv/app2/web.cfg` become `app1` and `app2`. Where one configuration was started more than
/// once, all but the newest process have their process id in the name.
pub(super) fn distinguish(candidates: &mut [Candidate]) {
    let mut groups: BTreeMap<InstanceName, BTreeSet<PathBuf>> = BTreeMap::new();
    for one in candidates.iter() {
        groups.entry(one.plain_name.clone()).or_default().extend(one.config.clone());
    }
    let mut taken: BTreeSet<InstanceName> = groups.keys().cloned().collect();
    for (plain, configs) in groups.into_iter().filter(|(_, configs)| configs.len() > 1) {
        // What says nothing tells them apart where nothing else does.
        let telling = split(&configs, Parts::Telling);
        let parts = if telling.is_empty() { split(&configs, Parts::All) } else { telling };
        for (config, part) in parts {
            let alone = InstanceName::from_part(OsStr::new(&part)).filter(|name| !taken.contains(name));
            let name = alone.unwrap_or_else(|| plain.qualified(&part));
            for one in
                candidates.iter_mut().filter(|one| one.plain_name == plain && one.config.as_ref() == Some(&config))
            {
                one.name = name.clone();
            }
            taken.insert(name);
        }
    }
    tell_processes_apart(candidates);
}

/// Which parts of a path count.
#[derive(Clone, Copy)]
enum Parts {
    /// Those that say something of an instance.
    Telling,
    All,
}

/// Finds the folder with which each path leaves the last of the others, from the root on.
fn split(paths: &BTreeSet<PathBuf>, which: Parts) -> Vec<(PathBuf, String)> {
    let parts = |path: &PathBuf| -> Vec<String> {
        let parts = path.parent().into_iter().flat_map(Path::components).filter_map(|part| match part {
            Component::Normal(part) => Some(part),
            Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
        });
        let counts = |part: &&OsStr| match which {
            Parts::Telling => InstanceName::from_part(part).is_some(),
            Parts::All => true,
        };
        parts.filter(counts).map(|part| part.to_string_lossy().into_owned()).collect()
    };
    let all: Vec<(&PathBuf, Vec<String>)> = paths.iter().map(|path| (path, parts(path))).collect();
    let part_of = |path: &PathBuf, own: &Vec<String>| {
        let shared = |other: &Vec<String>| own.iter().zip(other).take_while(|(one, other)| one == other).count();
        let depth = all.iter().filter(|(other, _)| *other != path).map(|(_, other)| shared(other)).max()?;
        own.get(depth).cloned()
    };
    all.iter().filter_map(|(path, own)| Some(((*path).clone(), part_of(path, own)?))).collect()
}

/// Puts the process id into the names of the older processes that have one configuration.
fn tell_processes_apart(candidates: &mut [Candidate]) {
    let mut newest: BTreeMap<InstanceName, (bool, u64, u32)> = BTreeMap::new();
    // Anybody can start something that is called haproxy, and takes no name away.
    let age = |one: &Candidate| (one.origin == Origin::Running, one.start, one.pid.unwrap_or_default());
    for one in candidates.iter().filter(|one| one.config.is_some()) {
        let seen = newest.entry(one.name.clone()).or_default();
        *seen = age(one).max(*seen);
    }
    for one in candidates.iter_mut().filter(|one| one.config.is_some()) {
        if let (Some(pid), true) = (one.pid, newest.get(&one.name).is_some_and(|newest| *newest > age(one))) {
            one.name = one.name.qualified(&pid.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(configs: &[&str]) -> Vec<String> {
        let candidate = |(index, config): (usize, &&str)| Candidate {
            name: name_of(Path::new(config), Path::new(config)),
            plain_name: name_of(Path::new(config), Path::new(config)),
            config: Some(config.into()),
            pid: Some(100 + u32::try_from(index).unwrap()),
            start: u64::try_from(index).unwrap(),
            sockets: Vec::new(),
            masters: Vec::new(),
            origin: Origin::Running,
            state_files: None,
            servers: None,
        };
        let mut candidates: Vec<Candidate> = configs.iter().enumerate().map(candidate).collect();
        distinguish(&mut candidates);
        candidates.iter().map(|one| one.name.to_string()).collect()
    }

    #[test]
    fn the_first_folder_that_differs_gives_the_name() {
        let table: [(&[&str], &[&str]); 8] = [
            (&["/srv/app1/web.cfg", "/srv/app2/web.cfg"], &["app1", "app2"]),
            (&["/srv/app1/conf/haproxy/lb.cfg", "/srv/app2/etc/haproxy/lb.cfg"], &["app1", "app2"]),
            (&["/srv/app1/haproxy/haproxy.cfg", "/srv/app2/haproxy/haproxy.cfg"], &["app1", "app2"]),
            (&["/etc/haproxy/haproxy.cfg", "/opt/haproxy/etc/haproxy.cfg"], &["haproxy-etc", "haproxy-opt"]),
            (&["/a/x/web.cfg", "/a/y/web.cfg", "/a/y/z/web.cfg"], &["x", "web", "z"]),
            (&["/srv/a/web.cfg", "/srv/b/web.cfg", "/etc/a.cfg"], &["web-a", "b", "a"]),
            (&["/etc/web.cfg", "/etc/web.cfg", "/etc/web.cfg"], &["web-100", "web-101", "web"]),
            (&["/etc/web.cfg", "/etc/ldap.cfg"], &["web", "ldap"]),
        ];
        for (configs, expected) in table {
            assert_eq!(names(configs), expected, "{configs:?}");
        }
    }

    #[test]
    fn folders_that_say_nothing_are_passed_over() {
        for (file, argument, expected) in [
            ("/etc/haproxy/conf.d/1.cfg", "/etc/haproxy/conf.d", "haproxy"),
            ("/etc/haproxy/services.d/1.cfg", "/etc/haproxy/services.d/", "haproxy"),
            ("/etc/puppet/1.cfg", "/etc/puppet", "puppet"),
            ("/etc/haproxy/x.cfg", "/etc/haproxy/x.cfg", "x"),
            ("/srv/haproxy-b/cfg/1.cfg", "/srv/haproxy-b/cfg/", "b"),
            ("/dev/stdin", "/dev/stdin", "haproxy"),
            ("/dev/fd/63", "/dev/fd/63", "haproxy"),
        ] {
            assert_eq!(name_of(Path::new(file), Path::new(argument)).as_str(), expected, "{argument}");
        }
    }
}
