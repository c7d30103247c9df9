//! The table of faults: what a run says of each, how soon it ends, and that the next run gets there once the fault is gone.
//!
//! docs/reliability.md publishes it; `UPDATE_SCHEMA=1 cargo test --test live -- faults` writes it anew.

use std::any::Any;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::accidents::{KNOWN, Known};
use crate::support::haproxy::freeze;
use crate::support::report::kind;
use crate::support::tap::{Tap, When};
use crate::support::{
    Folder, Haproxy, Instance, PATIENCE, Program, Scripted, Setup, Step, Test, TestResult, eventually_seen, repository,
    tests,
};
use crate::transport::{HEADER, info, opening, row};

pub(crate) fn tests() -> Vec<Test> {
    tests![what_is_at_the_socket, what_a_process_does, what_a_reply_is, the_table_is_published,]
}

/// One fault, and what a run says of it.
struct Fault {
    what: &'static str,
    kind: &'static str,
    retryable: bool,
    /// With `--detailed-exitcodes`.
    code: i32,
    /// The time of one step is 1 s; a dump that has begun may be silent for 5 s.
    bound: u64,
    arrange: fn(&mut Scene),
    mend: fn(&mut Scene),
}

/// A HAProxy with two servers, and the address that runs are given, where the fault is.
struct Scene {
    // What is here goes before the instance does.
    kept: Vec<Box<dyn Any>>,
    at: PathBuf,
    pid: Pid,
    instance: Instance,
}

impl Scene {
    fn start(haproxy: &Haproxy) -> Self {
        let folder = Folder::new();
        let [web, tcp] = ["web.sock", "tcp.sock"].map(|name| folder.join(name));
        let frontends = format!(
            "frontend web\n    bind unix@{}\n    default_backend b\n\
             frontend tcp\n    mode tcp\n    bind unix@{}\n    default_backend t\n\
             backend t\n    mode tcp\n",
            web.display(),
            tcp.display()
        );
        let proxies = format!("{frontends}backend b\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n");
        let instance = Setup::new("faulty", &proxies)
            .folder(&folder)
            .global("stats maxconn 20")
            .stats_socket("user.sock level user")
            .stats_socket("operator.sock level operator")
            .start(haproxy);
        let (at, pid) = (instance.folder.join("fault.sock"), Pid::from_raw(instance.pid()));
        Self { kept: Vec::new(), at, pid, instance }
    }

    /// Puts a link to one of HAProxy's sockets where the fault is to be, or was.
    fn link(&mut self, name: Option<&str>) {
        self.kept.clear();
        let _ = fs::remove_file(&self.at);
        let to = name.map_or_else(|| self.instance.socket.clone(), |name| self.instance.folder.join(name));
        symlink(to, &self.at).expect("a link");
    }

    fn script(&mut self, script: Vec<Step>) {
        self.kept.push(Box::new(Scripted::start_repeating(&self.at, vec![script])));
    }

    /// Does something to the process when the first command comes by.
    fn at_the_command(&mut self, when: When, signal: Signal) {
        let pid = self.pid;
        let act = move || if signal == Signal::SIGSTOP { freeze(pid) } else { kill(pid, signal).expect("a process") };
        self.kept.push(Box::new(Tap::once(&self.at, &self.instance.socket, when, act)));
    }

    fn resume(&mut self) {
        kill(self.pid, Signal::SIGCONT).expect("a process");
        self.link(None);
    }

    fn restart(&mut self) {
        self.instance.kill();
        self.instance.start_again();
        self.pid = Pid::from_raw(self.instance.pid());
        self.link(None);
    }
}

/// The beginning of a reply to `show info`, and all that comes before it.
fn until_info() -> Vec<Step> {
    opening()[..4].to_vec()
}

/// Everything before the dump, and this dump.
fn with_dump(dump: impl AsRef<[u8]>, then: Step) -> Vec<Step> {
    [opening(), vec![Step::send(dump), then]].concat()
}

const AT_THE_SOCKET: &[Fault] = &[
    Fault {
        what: "nothing is there",
        kind: "unreachable",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |_| {},
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "a socket that nobody listens on any more",
        kind: "unreachable",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| drop(std::os::unix::net::UnixListener::bind(&scene.at).expect("a socket")),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "a file that is not a socket",
        kind: "unreachable",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| fs::write(&scene.at, "text").expect("a file"),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "a datagram socket",
        kind: "not_haproxy",
        retryable: false,
        code: 4,
        bound: 10,
        arrange: |scene| scene.kept.push(Box::new(UnixDatagram::bind(&scene.at).expect("a socket"))),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "a web server",
        kind: "not_haproxy",
        retryable: false,
        code: 4,
        bound: 10,
        arrange: |scene| {
            scene.script(vec![Step::AnyLine, Step::send("HTTP/1.1 400 Bad request\r\n\r\n"), Step::Close]);
        },
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "the socket of an HTTP frontend",
        kind: "not_haproxy",
        retryable: false,
        code: 4,
        bound: 10,
        arrange: |scene| scene.link(Some("web.sock")),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "the socket of a TCP frontend without a server",
        kind: "unreachable",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| scene.link(Some("tcp.sock")),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "a stats socket of level `user`",
        kind: "permission_denied",
        retryable: false,
        code: 4,
        bound: 10,
        arrange: |scene| scene.link(Some("user.sock")),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "a stats socket of level `operator`",
        kind: "permission_denied",
        retryable: false,
        code: 4,
        bound: 10,
        arrange: |scene| scene.link(Some("operator.sock")),
        mend: |scene| scene.link(None),
    },
];

const OF_THE_PROCESS: &[Fault] = &[
    Fault {
        what: "HAProxy is stopped (SIGSTOP) before it is asked",
        kind: "timeout",
        retryable: true,
        code: 4,
        bound: 15,
        arrange: |scene| {
            scene.link(None);
            freeze(scene.pid);
        },
        mend: Scene::resume,
    },
    Fault {
        what: "it is stopped before the first command",
        kind: "timeout",
        retryable: true,
        code: 6,
        bound: 20,
        arrange: |scene| scene.at_the_command(When::Before, Signal::SIGSTOP),
        mend: Scene::resume,
    },
    Fault {
        what: "it is stopped after the first command",
        kind: "timeout",
        retryable: true,
        code: 6,
        bound: 20,
        arrange: |scene| scene.at_the_command(When::After, Signal::SIGSTOP),
        mend: Scene::resume,
    },
    Fault {
        what: "it is killed before the first command",
        kind: "unreachable",
        retryable: true,
        code: 6,
        bound: 20,
        arrange: |scene| scene.at_the_command(When::Before, Signal::SIGKILL),
        mend: Scene::restart,
    },
    Fault {
        what: "it is killed in mid-batch",
        kind: "unreachable",
        retryable: true,
        code: 6,
        bound: 20,
        arrange: |scene| {
            let pid = scene.pid;
            let act = move || kill(pid, Signal::SIGKILL).expect("a process");
            // The first command goes alone.
            scene.kept.push(Box::new(Tap::at(&scene.at, &scene.instance.socket, ("set server ", 1), act)));
        },
        mend: Scene::restart,
    },
    Fault {
        what: "all its connections are taken (`stats maxconn`)",
        kind: "timeout",
        retryable: true,
        code: 4,
        bound: 15,
        arrange: |scene| {
            scene.link(None);
            for _ in 0..20 {
                let session = scene.instance.session();
                scene.kept.push(Box::new(session));
            }
        },
        mend: |scene| scene.kept.clear(),
    },
];

const OF_A_REPLY: &[Fault] = &[
    Fault {
        what: "it closes before it says anything",
        kind: "unreachable",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| scene.script(vec![Step::AnyLine, Step::Close]),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "it never answers",
        kind: "timeout",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| scene.script(vec![Step::Hang]),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "it never stops answering",
        kind: "bad_reply",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| scene.script([until_info(), vec![Step::Flood(b"Name: HAProxy\n".repeat(1_000))]].concat()),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "one byte after the other, for longer than `timeout`",
        kind: "timeout",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| {
            let drip = (0..40).flat_map(|_| [Step::send("N"), Step::Sleep(Duration::from_millis(100))]);
            scene.script(until_info().into_iter().chain(drip).collect());
        },
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "one reply less than commands, and the end",
        kind: "unreachable",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| scene.script([until_info(), vec![Step::send(info(7, 0)), Step::Close]].concat()),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "one reply less than commands, and silence",
        kind: "timeout",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| scene.script([until_info(), vec![Step::send(info(7, 0)), Step::Hang]].concat()),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "one reply more than commands",
        kind: "bad_reply",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| {
            scene.script(with_dump(format!("{HEADER}{}\n> \n> ", row(1)), Step::ReadToEnd));
        },
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "a dump that ends half-way",
        kind: "bad_reply",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| scene.script(with_dump(format!("{HEADER}{}", row(1)), Step::Close)),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "a dump that is silent half-way",
        kind: "timeout",
        retryable: true,
        code: 4,
        bound: 20,
        arrange: |scene| scene.script(with_dump(format!("{HEADER}{}", row(1)), Step::Hang)),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "a row of garbage, twice",
        kind: "bad_reply",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| {
            let dump = || Step::send(format!("{HEADER}not a row\n\n> "));
            scene.script([opening(), vec![dump(), Step::AnyLine, dump(), Step::ReadToEnd]].concat());
        },
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "NUL bytes instead of a row, twice",
        kind: "bad_reply",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| {
            let dump = || Step::send(format!("{HEADER}\0\0\0\n\n> "));
            scene.script([opening(), vec![dump(), Step::AnyLine, dump(), Step::ReadToEnd]].concat());
        },
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "bytes that are not UTF-8 instead of `show info`",
        kind: "bad_reply",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| {
            scene.script([until_info(), vec![Step::send(b"\xff\xfe\n\n> admin\n\n> "), Step::ReadToEnd]].concat());
        },
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "another version of the table",
        kind: "bad_reply",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| scene.script(with_dump(format!("2\n{}\n> ", &HEADER[2..]), Step::ReadToEnd)),
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "a column is missing",
        kind: "bad_reply",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| {
            scene.script(with_dump(format!("{}\n> ", HEADER.replace("srv_admin_state ", "")), Step::ReadToEnd));
        },
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "a column is there twice",
        kind: "bad_reply",
        retryable: true,
        code: 4,
        bound: 10,
        arrange: |scene| {
            scene.script(with_dump(format!("{}\n> ", HEADER.replace("srv_fqdn ", "srv_name ")), Step::ReadToEnd));
        },
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "a dump of more than 1 GiB",
        kind: "bad_reply",
        retryable: true,
        code: 4,
        bound: 60,
        arrange: |scene| {
            let line = [b"# ".as_slice(), &[b'x'; 60_000], b"\n"].concat();
            scene.script([opening(), vec![Step::send(HEADER), Step::Flood(line)]].concat());
        },
        mend: |scene| scene.link(None),
    },
    Fault {
        what: "several processes behind one socket (`nbproc`)",
        kind: "several_processes",
        retryable: false,
        code: 4,
        bound: 10,
        arrange: |scene| {
            let reply = info(7, 0).replace("Nbproc: 1", "Nbproc: 4");
            scene.script([until_info(), vec![Step::send(reply + "admin\n\n> "), Step::ReadToEnd]].concat());
        },
        mend: |scene| scene.link(None),
    },
];

/// Provokes each fault, mends it, and runs the same request again.
fn provoke(scene: &mut Scene, faults: &[Fault]) {
    for fault in faults {
        let what = fault.what;
        let request = json!({ "server": "s*", "state": "maint", "timeout": 1, "instances": scene.at });
        let run = || Program::request(&request).arg("--detailed-exitcodes").run();
        (fault.arrange)(scene);
        let first = run();
        let report = first.report();
        let said = (kind(&report), report["error"]["retryable"].as_bool(), first.code);
        let again = {
            (fault.mend)(scene);
            // A command that HAProxy had already may be carried out just now.
            eventually_seen(PATIENCE * 3, what, || {
                let run = run();
                if matches!(run.code, Some(0 | 2)) { Ok(run) } else { Err(run.stdout) }
            })
        };
        assert_eq!(said, (fault.kind, Some(fault.retryable), Some(fault.code)), "{what}: {report}");
        assert!(first.elapsed < Duration::from_secs(fault.bound), "{what}: {:?}", first.elapsed);
        assert_eq!(kind(&again.report()), "", "{what}");
        for server in ["s1", "s2"] {
            assert_eq!(scene.instance.state("b", server), (1, 0), "{what}");
            scene.instance.set_state(&format!("b/{server}"), "ready");
        }
        scene.kept.clear();
        let _ = fs::remove_file(&scene.at);
    }
}

fn what_is_at_the_socket(haproxy: &Haproxy) -> TestResult {
    provoke(&mut Scene::start(haproxy), AT_THE_SOCKET);
    Ok(())
}

fn what_a_process_does(haproxy: &Haproxy) -> TestResult {
    provoke(&mut Scene::start(haproxy), OF_THE_PROCESS);
    Ok(())
}

fn what_a_reply_is(haproxy: &Haproxy) -> TestResult {
    provoke(&mut Scene::start(haproxy), OF_A_REPLY);
    Ok(())
}

/// The table between its marks in docs/reliability.md.
fn the_table_is_published(_: &Haproxy) -> TestResult {
    const MARKS: [&str; 2] = [
        "<!-- faults: begin, written by UPDATE_SCHEMA=1 cargo test --test live -- faults -->\n",
        "<!-- faults: end -->",
    ];
    let mut table = String::from(
        "| fault | kind | retryable | exit code | ends within | test |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    let tests = [
        (AT_THE_SOCKET, "what_is_at_the_socket"),
        (OF_THE_PROCESS, "what_a_process_does"),
        (OF_A_REPLY, "what_a_reply_is"),
    ];
    for (faults, test) in tests {
        for Fault { what, kind, retryable, code, bound, .. } in faults {
            let again = if *retryable { "yes" } else { "no" };
            writeln!(table, "| {what} | `{kind}` | {again} | {code} | {bound} s | `faults::{test}` |")?;
        }
    }
    for Known { what, kind, retryable, code, bound, test } in KNOWN {
        let (kind, again) = match (*kind, retryable) {
            ("", _) => ("none".to_owned(), ""),
            (kind, true) => (format!("`{kind}`"), "yes"),
            (kind, false) => (format!("`{kind}`"), "no"),
        };
        writeln!(table, "| {what} | {kind} | {again} | {code} | {bound} s | `accidents::{test}` |")?;
    }
    let path = repository().join("docs/reliability.md");
    let page = fs::read_to_string(&path)?;
    let (head, rest) = page.split_once(MARKS[0]).expect("the beginning of the table");
    let (published, tail) = rest.split_once(MARKS[1]).expect("the end of the table");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, [head, MARKS[0], &table, MARKS[1], tail].concat())?;
    } else {
        assert_eq!(published, table, "write it with UPDATE_SCHEMA=1");
    }
    Ok(())
}
