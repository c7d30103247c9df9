//! Processes from before a reload: found in every mode, named, counted where they can be, waited for, and ended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::report::{kind, server, warnings};
use crate::support::{
    Bound, Folder, Haproxy, HttpBackend, Instance, KeepAlive, Load, Mode, PATIENCE, Port, Program, Scripted, Setup,
    Step, Test, TestResult, eventually, get, tests,
};
use crate::transport::{HEADER, info, row};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        they_are_found_in_every_mode,
        maint_names_them,
        a_drain_waits_for_their_end,
        their_sessions_are_ended,
        their_idle_clients_still_reach_the_server,
        one_that_shows_no_statistics_is_counted_by_its_sessions,
        no_request_passes_a_drain_that_is_reloaded_all_the_time,
    ]
}

/// How HAProxy is started and reloaded, and how the program gets to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `-W`, with no master CLI.
    Master,
    /// `-W -S`.
    MasterCli,
    /// `-D`, and `-D -sf PID`.
    Daemon,
    /// `-D`, and `-D -x SOCKET -sf PID`: the listening sockets are handed over.
    HandedOver,
    /// `-D`, and `-D -sf $(pidof haproxy)`: every HAProxy of the host is named, of another configuration as well.
    EveryPid,
    /// `-db`, and `-db -sf PID`.
    Foreground,
}

const WAYS: [Way; 6] = [Way::Master, Way::MasterCli, Way::Daemon, Way::HandedOver, Way::EveryPid, Way::Foreground];

/// One HAProxy with a session that lasts on a server.
struct Site {
    way: Way,
    // The instances go before what is behind them.
    instance: Instance,
    neighbour: Option<Neighbour>,
    web: HttpBackend,
    front: Port,
}

/// A HAProxy with another configuration, and a session that lasts on it.
struct Neighbour {
    instance: Instance,
    held: Bound,
    web: HttpBackend,
}

/// How many were started, for their names.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Site {
    fn start(haproxy: &Haproxy, way: Way) -> Self {
        Self::start_with(haproxy, way, "")
    }

    fn start_with(haproxy: &Haproxy, way: Way, defaults: &str) -> Self {
        let (web, front) = (HttpBackend::start("s1"), Port::reserve());
        let proxies = format!(
            "listen app\n    bind 127.0.0.1:{}\n    server s1 {}\n    server s2 127.0.0.1:9 backup\n",
            front.number(),
            web.address()
        );
        // A name that no other test's instance has, since discovery sees them all.
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("old-{way:?}-{number}-{}-{}", haproxy.name, std::process::id()).to_lowercase();
        let setup = Setup::new(&name, &proxies).defaults(defaults);
        let setup = match way {
            Way::Master => setup.mode(Mode::MasterWorker),
            Way::MasterCli => setup.mode(Mode::MasterWorker).master_cli(),
            Way::Daemon | Way::EveryPid => setup.mode(Mode::Daemon),
            Way::HandedOver => setup.mode(Mode::Daemon).socket_options("expose-fd listeners"),
            Way::Foreground => setup,
        };
        let neighbour = (way == Way::EveryPid).then(|| Neighbour::start(haproxy, &format!("{name}-beside")));
        Self { way, instance: setup.start(haproxy), neighbour, web, front }
    }

    /// Reloads it while a session is under way, and returns the process that keeps it.
    fn reload(&mut self) -> (Bound, i32) {
        let held = Bound::hold(self.front.address(), &self.web);
        let old = self.instance.pid();
        match self.way {
            Way::Master | Way::MasterCli | Way::Daemon | Way::Foreground => self.instance.reload(),
            Way::HandedOver => {
                let socket = self.instance.address();
                self.instance.take_over(&["-x", &socket, "-sf", &old.to_string()]);
            }
            Way::EveryPid => {
                let beside = self.neighbour.iter().flat_map(|beside| beside.instance.processes());
                let all: Vec<String> =
                    self.instance.processes().into_iter().chain(beside).map(|pid| pid.to_string()).collect();
                let all = ["-sf"].into_iter().chain(all.iter().map(String::as_str)).collect::<Vec<_>>();
                self.instance.take_over(&all);
            }
        }
        (held, old)
    }

    fn request(&self, more: &Value) -> Value {
        let instances = match self.way {
            Way::MasterCli => json!([self.instance.name()]),
            Way::Master | Way::Daemon | Way::HandedOver | Way::EveryPid | Way::Foreground => {
                json!([self.instance.address()])
            }
        };
        let mut asked = json!({ "server": "app/s1", "instances": instances });
        for (key, value) in more.as_object().unwrap() {
            asked[key] = value.clone();
        }
        asked
    }

    fn ask(&self, more: &Value) -> Value {
        Program::request(&self.request(more)).report()
    }
}

impl Neighbour {
    fn start(haproxy: &Haproxy, name: &str) -> Self {
        let (web, front) = (HttpBackend::start("beside"), Port::reserve());
        let proxies = format!("listen app\n    bind 127.0.0.1:{}\n    server s1 {}\n", front.number(), web.address());
        let instance = Setup::new(name, &proxies).mode(Mode::Daemon).start(haproxy);
        let held = Bound::hold(front.address(), &web);
        Self { instance, held, web }
    }

    /// Tells whether it still serves its session, and ends it.
    fn release(self) -> String {
        self.web.release();
        self.held.served_by()
    }
}

fn old(report: &Value) -> Vec<(i64, Option<i64>)> {
    let old = report["instances"][0]["old_processes"].as_array().cloned().unwrap_or_default();
    old.iter().map(|one| (one["pid"].as_i64().unwrap(), one["sessions"].as_i64())).collect()
}

fn they_are_found_in_every_mode(haproxy: &Haproxy) -> TestResult {
    for way in WAYS {
        let mut site = Site::start(haproxy, way);
        let report = site.ask(&json!({}));
        assert_eq!(old(&report), [], "{way:?}: {report}");
        let (first, one) = site.reload();
        let seen = (way == Way::MasterCli).then_some(1);
        let report = site.ask(&json!({}));
        assert_eq!(old(&report), [(i64::from(one), seen)], "{way:?}: {report}");
        assert_eq!(server(&report, "app/s1")["sessions"], json!(seen.unwrap_or(0)), "{way:?}: {report}");
        let (second, two) = site.reload();
        let report = site.ask(&json!({}));
        let mut found: Vec<i64> = old(&report).iter().map(|(pid, _)| *pid).collect();
        found.sort_unstable();
        let mut expected = [i64::from(one), i64::from(two)];
        expected.sort_unstable();
        assert_eq!(found, expected, "{way:?}: {report}");
        site.web.release();
        assert_eq!((first.served_by(), second.served_by()), ("s1".to_owned(), "s1".to_owned()));
        if let Some(neighbour) = site.neighbour.take() {
            assert_eq!(
                neighbour.release(),
                "beside",
                "it was asked to stop as well, and is not an old process of this"
            );
        }
        eventually(PATIENCE, "the old processes to end", || old(&site.ask(&json!({}))).is_empty().then_some(()));
    }
    Ok(())
}

fn maint_names_them(haproxy: &Haproxy) -> TestResult {
    for way in WAYS {
        let mut site = Site::start(haproxy, way);
        let (held, pid) = site.reload();
        let report = site.ask(&json!({ "state": "maint" }));
        assert_eq!(report["failed"], json!(false), "{way:?}: {report}");
        let said = warnings(&report);
        assert!(said.contains("before a reload still run") && said.contains(&pid.to_string()), "{way:?}: {report}");
        assert_eq!(said.contains("cannot be counted"), way != Way::MasterCli, "{way:?}: {report}");
        assert_eq!(old(&report).len(), 1, "{way:?}: {report}");
        site.web.release();
        assert_eq!(held.served_by(), "s1");
    }
    Ok(())
}

fn a_drain_waits_for_their_end(haproxy: &Haproxy) -> TestResult {
    for way in WAYS {
        let mut site = Site::start(haproxy, way);
        let (held, pid) = site.reload();
        let asked = |timeout: u32| {
            let drain = json!({ "timeout": timeout });
            site.request(&json!({ "state": "maint", "drain": drain, "old_processes": "wait" }))
        };
        let report = Program::request(&asked(1)).report();
        assert_eq!(kind(&report), "not_drained", "{way:?}: {report}");
        let msg = report["msg"].as_str().unwrap();
        assert!(msg.contains(&pid.to_string()) || msg.contains("1 session"), "{way:?}: {report}");
        assert_eq!(site.instance.state("app", "s1"), (8, 2), "{way:?}");
        let mut running = Program::request(&asked(30)).spawn();
        thread::sleep(Duration::from_millis(500));
        assert!(!running.ended(), "{way:?}");
        site.web.release();
        let report = running.wait().report();
        assert_eq!((&report["failed"], old(&report).len()), (&json!(false), 0), "{way:?}: {report}");
        assert_eq!(site.instance.state("app", "s1"), (1, 0), "{way:?}");
        assert_eq!(held.served_by(), "s1");
    }
    let refused = Program::request(&json!({ "server": "s1", "state": "ready", "old_processes": "wait" })).report();
    assert_eq!(kind(&refused), "bad_request", "{refused}");
    Ok(())
}

fn their_sessions_are_ended(haproxy: &Haproxy) -> TestResult {
    let mut site = Site::start(haproxy, Way::MasterCli);
    let (held, _) = site.reload();
    let report = site.ask(&json!({ "state": "maint", "shutdown_sessions": true }));
    assert_eq!(report["failed"], json!(false), "{report}");
    assert_eq!(server(&report, "app/s1")["sessions"], json!(0), "{report}");
    eventually(PATIENCE, "the client to be cut off", || held.has_ended().then_some(()));
    site.web.release();
    Ok(())
}

fn their_idle_clients_still_reach_the_server(haproxy: &Haproxy) -> TestResult {
    // HAProxy 2.2 never closes an idle connection because it stops.
    let option = if haproxy.at_least(2, 4) { "option idle-close-on-response" } else { "" };
    for way in [Way::Master, Way::MasterCli] {
        let mut site = Site::start_with(haproxy, way, option);
        let mut client = KeepAlive::connect(site.front.address())?;
        assert_eq!(client.get("/", "")?, (200, "s1".to_owned()));
        let old_pid = site.instance.pid();
        site.instance.reload();
        let seen = (way == Way::MasterCli).then_some(0);
        let expected = [(i64::from(old_pid), seen)];

        // The drain sees no session, and only the process itself to wait for.
        let drain = json!({ "state": "maint", "drain": { "timeout": 0.5 }, "old_processes": "wait" });
        let report = site.ask(&drain);
        let msg = report["msg"].as_str().unwrap();
        assert_eq!((kind(&report), old(&report).as_slice()), ("not_drained", expected.as_slice()), "{way:?}: {report}");
        assert!(msg.contains(&format!("a process from before a reload ({old_pid})")), "{way:?}: {report}");

        let report = site.ask(&json!({ "state": "maint" }));
        assert_eq!(report["failed"], json!(false), "{way:?}: {report}");
        let said = warnings(&report);
        let what = if way == Way::MasterCli {
            "their idle keep-alive clients may still send requests"
        } else {
            "may still send requests"
        };
        assert!(said.contains(what) && said.contains(&old_pid.to_string()), "{way:?}: {report}");
        // So it is: new clients do not reach the server, and this one does, once.
        let before = site.web.requests();
        assert_eq!(get(site.front.address(), "/")?.status, 503);
        assert_eq!(site.web.requests(), before);
        let wait = json!({ "state": "maint", "wait": { "timeout": 30 }, "old_processes": "wait" });
        let mut running = Program::request(&site.request(&wait)).spawn();
        thread::sleep(Duration::from_millis(300));
        assert!(!running.ended(), "{way:?}");
        assert_eq!(client.get("/", "")?, (200, "s1".to_owned()));
        assert_eq!(site.web.requests(), before + 1);
        // HAProxy closes the connection with its answer, and the process ends.
        let report = running.wait().report();
        assert_eq!((&report["failed"], old(&report).len()), (&json!(false), 0), "{way:?}: {report}");
        assert!(client.get("/", "").is_err());
        assert_eq!(site.web.requests(), before + 1);
    }
    Ok(())
}

/// What HAProxy 2.4.14 says on its master CLI about a worker that stops: it has no row of a proxy that is stopping, but
/// lists its sessions.
const PROCESSES: &str = "#<PID>          <type>          <relative PID>  <reloads>       <uptime>        <version>      \n\
     30141           master          0               1               0d00h00m04s     2.4.14-1ubuntu1\n# workers\n\
     30545           worker          1               0               0d00h00m02s     2.4.14-1ubuntu1\n# old workers\n\
     30164           worker          [was: 1]        1               0d00h00m04s     2.4.14-1ubuntu1\n# programs\n\nmaster> ";
const STATISTICS: &str = "# pxname,svname,qcur,scur,stot,status,weight,check_status,check_code,tracked,bck,iid,sid,throttle,check_rise,check_fall,check_health,";
const SESSIONS: &str = "0x5569355fa240: proto=tcpv4 src=127.0.0.1:44050 fe=b be=b srv=s1 ts=00 epoch=0 age=3s calls=3 rate=1 cpu=0 \
     lat=0 rq[f=49c40000h,i=16384,an=8000h,rx=,wx=,ax=] rp[f=80400000h,i=0,an=1400000h,rx=56s,wx=,ax=] s0=[8,10008h,fd=14,ex=] \
     s1=[8,200118h,fd=15,ex=] exp=56s\n0x5569355fb0b0: proto=sockpair src=unix:2 fe=GLOBAL be=<NONE> srv=<none> ts=00 epoch=0 \
     age=0s calls=1 rate=1 cpu=0 lat=0 rq[f=c08000h,i=0,an=00h,rx=,wx=,ax=] rp[f=80008002h,i=0,an=00h,rx=,wx=,ax=] \
     s0=[8,240008h,fd=6,ex=] s1=[8,204018h,fd=-1,ex=] exp=\n\nmaster> ";

fn one_that_shows_no_statistics_is_counted_by_its_sessions(_: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let first = ["prompt", "show info", "show cli level"].map(Step::Expect);
    let mut worker = vec![first[0].clone(), Step::send("master> "), first[1].clone(), first[2].clone()];
    worker.extend([Step::send("Pid: 30141\n\nmaster> admin\n\nmaster> "), Step::Expect("@1"), Step::send("\n30545> ")]);
    worker.extend([first[1].clone(), first[2].clone()]);
    let of_worker = |text: &str| Step::send(text.strip_suffix("> ").unwrap().to_owned() + "30545> ");
    worker.extend([of_worker(&info(30545, 0).replace("2.6.12", "2.4.14")), of_worker("admin\n\n> ")]);
    worker.extend([Step::Expect("show servers state"), of_worker(&format!("{HEADER}{}\n> ", row(1)))]);
    let now = "b,s1,0,0,5,no check,1,,,,0,2,1,,,,,";
    worker.extend([Step::Expect("show stat 2 4 1"), of_worker(&format!("{STATISTICS}\n{now}\n\n> ")), Step::ReadToEnd]);
    let master = vec![
        first[0].clone(),
        Step::send("master> "),
        Step::Expect("show proc"),
        Step::send(PROCESSES),
        Step::Expect("@!30164 show stat b 4 -1"),
        Step::send(format!("{STATISTICS}\n\nmaster> ")),
        Step::Expect("@!30164 show sess"),
        Step::send(SESSIONS),
        Step::ReadToEnd,
    ];
    let socket = Scripted::start(&folder.join("master.sock"), vec![worker, master]);
    let report = Program::request(&json!({ "server": "b/s1", "instances": socket.address() })).report();
    assert_eq!(socket.faults(), [""; 0], "{report}");
    assert_eq!(old(&report), [(30164, Some(1))], "{report}");
    assert_eq!(server(&report, "b/s1")["sessions"], 1, "{report}");
    Ok(())
}

fn no_request_passes_a_drain_that_is_reloaded_all_the_time(haproxy: &Haproxy) -> TestResult {
    let (servers, front) = (["s1", "s2"].map(HttpBackend::start), Port::reserve());
    let [s1, s2] = servers.each_ref().map(HttpBackend::address);
    let folder = Folder::new();
    let file = folder.join("state");
    let proxies = format!(
        "listen app\n    bind 127.0.0.1:{}\n    balance roundrobin\n    server s1 {s1}\n    server s2 {s2}\n",
        front.number()
    );
    let name = format!("reloaded-{}-{}", haproxy.name, std::process::id());
    let setup = Setup::new(&name, &proxies).mode(Mode::MasterWorker).master_cli().loads(&file);
    let mut instance = setup.start(haproxy);
    let held = Bound::hold(front.address(), &servers[0]);
    let mut load = Load::start(front.address(), 4, Duration::from_millis(5));
    let asked = json!({
        "server": "app/s1", "state": "maint", "drain": { "timeout": 30 }, "state_file": file, "instances": [name],
        "old_processes": "wait",
    });
    let running = Program::request(&asked).spawn();
    eventually(PATIENCE, "the state file", || file.exists().then_some(()));
    // What was accepted before may still be under way.
    thread::sleep(Duration::from_millis(300));
    let before = servers[0].requests();
    for _ in 0..4 {
        instance.reload();
        thread::sleep(Duration::from_millis(1000));
        assert_eq!(instance.row("app", "s1").admin, 8);
    }
    servers[0].release();
    load.stop();
    assert_eq!(servers[0].requests(), before, "not one request reaches a server that drains");
    let report = running.wait().report();
    assert_eq!(report["failed"], json!(false), "{report}");
    assert_eq!(held.served_by(), "s1");
    assert_eq!(instance.row("app", "s1").admin, 1);
    assert!(load.served() > 100, "{}", load.served());
    Ok(())
}
