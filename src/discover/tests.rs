//! Discovery on made-up processes, with real files in a temporary folder.

use super::*;
use crate::time::interrupt::PATIENT;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;

const SELF_MOUNTS: &str = "27 1 254:0 / / rw - ext4 /dev/vda rw\n";

/// A host in a temporary folder.
struct Tree {
    folder: tempfile::TempDir,
    host: Host,
}

/// What `/proc` shows of a made-up process.
struct Shown<'a> {
    pid: u32,
    parent: u32,
    uid: u32,
    line: &'a str,
    namespace: &'a str,
    mounts: &'a str,
    environ: Option<&'a str>,
    cwd: &'a str,
}

impl Default for Shown<'_> {
    fn default() -> Self {
        let uid = nix::unistd::geteuid().as_raw();
        Self { pid: 100, parent: 1, uid, line: "", namespace: "1", mounts: "", environ: Some(""), cwd: "/" }
    }
}

impl Tree {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let host = Host {
            proc: folder.path().join("proc"),
            root: folder.path().to_owned(),
            caller: nix::unistd::geteuid().as_raw(),
            extent: Extent::Servers,
        };
        let tree = Self { folder, host };
        tree.write("proc/1/comm", "init\n");
        tree.write("proc/self/mountinfo", SELF_MOUNTS);
        tree.links("self", "1", "/", "/");
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, content: &str) -> String {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content.replace("@@", self.folder.path().to_str().unwrap())).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn mode(&self, path: &str, bits: u32) {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(bits)).unwrap();
    }

    fn links(&self, pid: &str, namespace: &str, cwd: &str, root: &str) {
        let folder = self.path("proc").join(pid);
        fs::create_dir_all(folder.join("ns")).unwrap();
        symlink(format!("mnt:[{namespace}]"), folder.join("ns/mnt")).unwrap();
        symlink("net:[1]", folder.join("ns/net")).unwrap();
        symlink(cwd, folder.join("cwd")).unwrap();
        symlink(root, folder.join("root")).unwrap();
    }

    fn process(&self, shown: &Shown<'_>) {
        let Shown { pid, parent, uid, line, namespace, mounts, environ, cwd } = shown;
        let file = |name: &str| format!("proc/{pid}/{name}");
        self.write(&file("comm"), "haproxy\n");
        self.write(&file("cmdline"), &format!("haproxy {line} ").replace(' ', "\0"));
        self.write(&file("status"), &format!("PPid:\t{parent}\nUid:\t{uid}\t{uid}\n"));
        self.write(&file("stat"), &format!("{pid} (haproxy) S {}{pid} 0\n", "0 ".repeat(18)));
        self.write(&file("mountinfo"), mounts);
        if let Some(environ) = environ {
            self.write(&file("environ"), &environ.replace(' ', "\0"));
        }
        self.links(&pid.to_string(), namespace, &cwd.replace("@@", self.folder.path().to_str().unwrap()), "/");
    }

    fn run(&self, pid: u32, line: &str) {
        self.process(&Shown { pid, line, ..Shown::default() });
    }

    /// Shows each candidate as `name pid origin sockets…`, with `@@` for the temporary folder.
    fn found(&self) -> Vec<String> {
        let show = |one: &Candidate| {
            let sockets: Vec<String> = one.sockets.iter().map(ToString::to_string).collect();
            format!("{} {:?} {:?} {}", one.name, one.pid.unwrap_or(0), one.origin, sockets.join(" "))
                .replace(self.folder.path().to_str().unwrap(), "@@")
        };
        self.discover().candidates.iter().map(show).collect()
    }

    fn discover(&self) -> Discovery {
        self.host.discover(&[], &Budget::new(&PATIENT))
    }

    fn warning(&self) -> String {
        let found = self.discover();
        assert_eq!(found.candidates, []);
        assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
        found.warnings.concat()
    }
}

#[test]
fn an_instance_is_its_processs_stats_sockets_and_its_master_cli() {
    let tree = Tree::new();
    let config = tree.write("etc/haproxy/puppet.cfg", "global\nstats socket @@/run/p.sock\nstats socket *:9\n");
    tree.write("run/x", "");
    tree.run(100, &format!("-Ws -f {config} -S /run/m.sock,mode,600 -p x"));
    tree.process(&Shown { pid: 101, parent: 100, line: &format!("-sf 9 -f {config}"), ..Shown::default() });
    assert_eq!(tree.found(), ["puppet 100 Running @@/run/p.sock ipv4@127.0.0.1:9 /run/m.sock"]);
    let found = tree.discover();
    assert_eq!(found.candidates.first().and_then(|one| one.config.clone()), Some(PathBuf::from(config)));
    assert!(found.warnings.is_empty());
}

#[test]
fn equal_processes_are_never_one_and_the_order_is_by_name() {
    let tree = Tree::new();
    let b = tree.write("etc/b.cfg", "global\nstats socket abns@b\n");
    let a = tree.write("etc/a.cfg", "global\nstats socket abns@a\n");
    tree.run(100, &format!("-f {b}"));
    tree.run(101, &format!("-f {b}"));
    tree.run(102, &format!("-f {a}"));
    assert_eq!(tree.found(), ["a 102 Running abns@a", "b 101 Running abns@b", "b-100 100 Running abns@b"]);
}

#[test]
fn folders_and_several_files_are_read_in_haproxys_order() {
    let tree = Tree::new();
    tree.write("etc/haproxy-ldap/conf.d/20.cfg", "global\nstats socket abns@second\n");
    tree.write("etc/haproxy-ldap/conf.d/10.cfg", "global\nstats socket abns@first\n");
    for name in [".hidden.cfg", "x.cfg.cfg", "x.conf", "x.cfg~"] {
        tree.write(&format!("etc/haproxy-ldap/conf.d/{name}"), "global\nstats socket abns@no\n");
    }
    let main = tree.write("etc/haproxy-ldap/haproxy.cfg", "defaults\n");
    tree.run(100, &format!("-f {main} -f {}", tree.path("etc/haproxy-ldap/conf.d").display()));
    assert_eq!(tree.found(), ["ldap 100 Running abns@first abns@second"]);
}

#[test]
fn relative_paths_start_where_the_process_did() {
    let tree = Tree::new();
    tree.write("srv/haproxy-r/a.cfg", "global\nstats socket unix@run/a.sock\n");
    tree.write("srv/haproxy-r/run/x", "");
    tree.process(&Shown { line: "-f a.cfg", cwd: "@@/srv/haproxy-r", ..Shown::default() });
    assert_eq!(tree.found(), ["a 100 Running @@/srv/haproxy-r/run/a.sock"]);
    let tree = Tree::new();
    tree.write("srv/r/b.cfg", "global\nstats socket \"abns@$N\"\n");
    let line = format!("-f b.cfg -C {}", tree.path("srv/r").display());
    tree.process(&Shown { line: &line, environ: Some("N=x"), cwd: "/nowhere", ..Shown::default() });
    assert_eq!(tree.found(), ["b 100 Running abns@x"]);
}

#[test]
fn a_process_with_another_view_is_left_out_unless_the_files_are_the_same() {
    let tree = Tree::new();
    let config = tree.write("etc/a.cfg", "global\nstats socket @@/run/a.sock\nstats socket abns@a\n");
    tree.write("run/x", "");
    let line = format!("-f {config}");
    let overlay = "1 1 0:50 / / rw - overlay o rw\n";
    tree.process(&Shown { line: &line, namespace: "2", mounts: overlay, ..Shown::default() });
    assert!(tree.warning().contains("process 100"));
    assert!(tree.warning().contains("another file system"));
    tree.write("proc/100/mountinfo", &format!("{SELF_MOUNTS}3 27 0:9 / /dev/log rw - tmpfs t rw\n"));
    assert_eq!(tree.found(), ["a 100 Running @@/run/a.sock abns@a"]);
    // The same configuration, but another /run.
    tree.write("proc/100/mountinfo", &format!("{SELF_MOUNTS}3 27 0:9 / {} rw - x\n", tree.path("run").display()));
    assert_eq!(tree.found(), ["a 100 Running abns@a"]);
    fs::remove_file(tree.path("proc/100/ns/net")).unwrap();
    symlink("net:[2]", tree.path("proc/100/ns/net")).unwrap();
    assert!(tree.warning().contains("another network namespace"), "{}", tree.warning());
}

#[test]
fn what_others_could_have_written_is_left_out() {
    let tree = Tree::new();
    let config = tree.write("etc/a.cfg", "global\nstats socket @@/run/a.sock\n");
    tree.write("run/x", "");
    tree.run(100, &format!("-f {config}"));
    assert_eq!(tree.found().len(), 1);
    tree.mode("etc/a.cfg", 0o666);
    assert!(tree.warning().contains("a.cfg can be written by everybody"), "{}", tree.warning());
    tree.mode("etc/a.cfg", 0o644);
    tree.mode("run", 0o1777);
    assert!(tree.warning().contains("run can be written by everybody"), "{}", tree.warning());
}

#[test]
fn a_process_of_a_third_user_counts_only_if_the_configuration_names_it() {
    let tree = Tree::new();
    let config = tree.write("etc/a.cfg", "global\nstats socket abns@a\n");
    let line = format!("-S abns@m -f {config}");
    tree.process(&Shown { uid: 4321, line: &line, ..Shown::default() });
    assert!(tree.warning().contains("user id 4321"), "{}", tree.warning());
    tree.write("etc/a.cfg", "global\nuid 4321\nstats socket abns@a\n");
    // Without what only the process itself says.
    assert_eq!(tree.found(), ["a 100 Running abns@a"]);
}

#[test]
fn the_configurations_user_may_own_the_sockets_folder() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let tree = Tree::new();
    let config = tree.write("etc/a.cfg", "global\nuid 4321\ngid 4322\nstats socket @@/run/haproxy/a.sock\n");
    tree.write("run/haproxy/x", "");
    chown(tree.path("run/haproxy"), Some(4321), Some(4322)).unwrap();
    tree.mode("run/haproxy", 0o2775);
    tree.run(100, &format!("-f {config}"));
    assert_eq!(tree.found(), ["a 100 Running @@/run/haproxy/a.sock"]);
}

#[test]
fn an_instance_without_a_usable_socket_says_so() {
    let tree = Tree::new();
    let config = tree.write("etc/a.cfg", "global\nstats socket fd@3\nstats socket \"/$HIDDEN\"\n");
    tree.process(&Shown { line: &format!("-f {config}"), environ: None, ..Shown::default() });
    let warning = tree.warning();
    assert!(
        warning.contains("fd@3") && warning.contains("variable") && warning.contains("stats socket /run"),
        "{warning}"
    );
    tree.write("etc/a.cfg", "global\nstats socket fd@3\nstats socket abns@a\n");
    assert_eq!(tree.found(), ["a 100 Running abns@a"]);
    assert!(tree.discover().warnings.is_empty());
}

#[test]
fn advice_is_never_a_line_that_the_configuration_has() {
    let tree = Tree::new();
    let config = tree.write("etc/a.cfg", "global\nstats socket @@/run/haproxy/admin.sock level admin\n");
    tree.write("run/haproxy/x", "");
    tree.mode("run/haproxy", 0o777);
    tree.run(100, &format!("-f {config}"));
    let warning = tree.warning();
    assert!(
        warning.contains("let only root and HAProxy's own account write") && !warning.contains("add "),
        "{warning}"
    );
}

#[test]
fn haproxys_own_account_needs_no_user_line() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let tree = Tree::new();
    let config = tree.write("etc/haproxy/a.cfg", "global\nstats socket @@/run/haproxy/a.sock\n");
    tree.write("run/haproxy/x", "");
    let line = format!("-f {config} -S @@/run/haproxy/m.sock").replace("@@", tree.folder.path().to_str().unwrap());
    tree.process(&Shown { uid: 4321, line: &line, ..Shown::default() });
    // Nobody vouches for it, though nobody else can listen there.
    assert_eq!(tree.found(), ["a 100 Stranger @@/run/haproxy/a.sock"]);
    // Root has made this folder for it.
    tree.mode("run", 0o755);
    chown(tree.path("run/haproxy"), Some(4321), Some(4321)).unwrap();
    chown(tree.path("etc/haproxy"), Some(4321), Some(4321)).unwrap();
    assert_eq!(tree.found(), ["a 100 Running @@/run/haproxy/a.sock @@/run/haproxy/m.sock"]);
    // Nobody is an account of many.
    chown(tree.path("run/haproxy"), Some(65534), Some(65534)).unwrap();
    assert!(tree.warning().contains("belongs to user id 4321"), "{}", tree.warning());
}

#[test]
fn the_usual_places_count_where_nothing_else_is_known() {
    let tree = Tree::new();
    fs::create_dir_all(tree.path("run/haproxy")).unwrap();
    let _one = UnixListener::bind(tree.path("run/haproxy/admin.sock")).unwrap();
    assert_eq!(tree.found(), ["haproxy 0 Guess @@/run/haproxy/admin.sock"]);
    // Without its configuration, the master CLI remains, and the usual places are searched.
    let config = tree.path("etc/gone.cfg");
    tree.run(100, &format!("-W -S abns@master -f {}", config.display()));
    let expected = ["gone 100 Guess abns@master", "haproxy 0 Guess @@/run/haproxy/admin.sock"];
    assert_eq!(tree.found(), expected);
    assert!(tree.discover().warnings.concat().contains("No such file"));
    // A known socket is not found again.
    tree.write("etc/gone.cfg", "global\nstats socket @@/run/haproxy/admin.sock\n");
    assert_eq!(tree.found(), ["gone 100 Running @@/run/haproxy/admin.sock abns@master"]);
    fs::remove_dir_all(tree.path("proc/1")).unwrap();
    assert_eq!(tree.found(), ["gone 100 Running @@/run/haproxy/admin.sock abns@master"]);
    tree.mode("run/haproxy", 0o777);
    let found = tree.discover();
    assert!(found.warnings.iter().any(|warning| warning.contains("admin.sock is left out")), "{:?}", found.warnings);
}

#[test]
fn many_strange_processes_give_few_warnings() {
    let tree = Tree::new();
    for pid in 100..150 {
        tree.run(pid, "-f /no/such\u{1b}[2J.cfg");
    }
    let warnings = tree.discover().warnings;
    assert_eq!(warnings.len(), WARNINGS_MAX + 1);
    assert!(warnings.iter().all(|warning| warning.is_ascii() && !warning.contains('\u{1b}')), "{warnings:?}");
    assert!(warnings.concat().contains("30 more"));
}

#[test]
fn a_signal_ends_the_search() {
    let interrupt = Interrupt::hold().unwrap();
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(
        discover(&[], Extent::Instances, &interrupt).unwrap_err().kind,
        crate::model::error::ErrorKind::Interrupted
    );
}

#[test]
fn a_configuration_that_is_too_large_is_read_in_part() {
    let tree = Tree::new();
    let config = tree.write("etc/a.cfg", "global\nstats socket abns@a\n");
    fs::OpenOptions::new().write(true).open(&config).unwrap().set_len(17 << 20).unwrap();
    tree.run(100, &format!("-f {config}"));
    assert_eq!(tree.found(), ["a 100 Running abns@a"]);
    assert!(tree.discover().warnings.concat().contains("16 MiB"));
    let tree = Tree::new();
    let config = tree.write("etc/b.cfg", "global\nuid 4321\nstats socket abns@b\n");
    fs::OpenOptions::new().write(true).open(&config).unwrap().set_len(17 << 20).unwrap();
    tree.process(&Shown { uid: 4321, line: &format!("-f {config}"), ..Shown::default() });
    assert!(tree.warning().contains("the process 100,"), "{}", tree.warning());
}
