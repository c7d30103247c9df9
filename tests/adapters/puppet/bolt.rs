//! The task and the plan, run by Bolt where it is on `PATH`, else by a stand-in (`tests/adapters/puppet/bolt/`).

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::On;
use super::site::{Puppet, assert_says, module, path_with, script};
use crate::support::{Bound, Folder, Haproxy, Host, OnTerminal, Program, Stage, TestResult, repository};
use crate::tool::{self, Ran};

pub(crate) fn tests() -> Vec<On> {
    let newest = on_newest![
        task_on_a_terminal_prints_the_report_alone,
        plan_leaves_alone_what_was_out_before,
        plan_previews,
        plan_puts_back_after_a_failure,
    ];
    [on_each![task_takes_what_bolt_gives_it, plan_takes_out_works_and_puts_back], newest].concat()
}

const READY: (u32, u32) = (0, 2);
const MAINT: (u32, u32) = (1, 0);

/// Writes a `bolt` into the folder, with an inventory of these load balancers and of the servers `web1` to `web3` and of one that is
/// not there.
pub(crate) fn bolt(puppet: Puppet, folder: &Folder, balancers: &[(&str, &Host)]) -> PathBuf {
    let mut inventory = "targets:\n".to_owned();
    for (name, host) in balancers {
        // Tasks that are shell scripts run there with the host's own program.
        let text = format!("#!/bin/sh\nPATH='{}':$PATH exec /bin/sh \"$@\"\n", host.folder().display());
        let shell = script(folder, &format!("{name}-sh"), &text);
        let local = format!("{{interpreters: {{.sh: '{}'}}}}", shell.display());
        let config = format!("{{transport: local, local: {local}}}");
        let _ = writeln!(inventory, "  - {{name: {name}, uri: 'local://{name}', config: {config}}}");
    }
    for (name, vars) in
        [("web1", "{}"), ("web2", "{}"), ("third", "{haproxy_server: web3}"), ("stranger", "{haproxy_server: web9}")]
    {
        let config = "{transport: local}";
        let _ = writeln!(inventory, "  - {{name: {name}, uri: 'local://{name}', config: {config}, vars: {vars}}}");
    }
    let inventory = folder.write("inventory.yaml", &inventory);
    let modules = folder.join("bolt-modules");
    fs::create_dir(&modules).expect("a folder");
    std::os::unix::fs::symlink(module(), modules.join("haproxy_server")).expect("a link to the module");
    let is_there = Command::new("bolt").arg("--version").output().is_ok_and(|output| output.status.success());
    let bolt = if is_there { "bolt".into() } else { repository().join("tests/adapters/puppet/bolt/bolt") };
    let (bolt, modules, inventory) = (bolt.display(), modules.display(), inventory.display());
    let text = format!("exec {bolt} \"$@\" --modulepath '{modules}' --inventoryfile '{inventory}'\n");
    let variables = format!("HOME='{}' BOLT_GEM=1 BOLT_DISABLE_ANALYTICS=1", folder.path().display());
    // Under its own name it would find itself.
    let inner = script(folder, "bolt-with-folders", &format!("#!/bin/sh\nexport {variables}\n{text}"));
    fs::create_dir(folder.join("bolt-bin")).expect("a folder");
    let outer = folder.join("bolt-bin/bolt");
    let path = puppet.path().into_string().expect("a PATH of text");
    script(folder, "bolt-bin/bolt", &format!("#!/bin/sh\nPATH='{path}' exec '{}' \"$@\"\n", inner.display()));
    outer
}

/// Two load balancers, each a stage of its own, and Bolt for them.
struct Fleet {
    one: Stage,
    two: Stage,
    hosts: [Host; 2],
    folder: Folder,
    bolt: PathBuf,
}

impl Fleet {
    fn start(haproxy: &Haproxy, puppet: Puppet) -> Self {
        let (one, two, folder) = (Stage::start(haproxy), Stage::start(haproxy), Folder::new());
        let hosts = [Host::with(one.instances()), Host::with(two.instances())];
        let bolt = bolt(puppet, &folder, &[("lb1", &hosts[0]), ("lb2", &hosts[1])]);
        Self { one, two, hosts, folder, bolt }
    }

    /// `bolt plan run haproxy_server::rolling_maintenance`, for both load balancers.
    fn plan(&self, targets: &str, parameters: &[&str], code: i32) -> Ran {
        let words =
            ["plan", "run", "haproxy_server::rolling_maintenance", "load_balancers=lb1,lb2", "--targets", targets];
        tool::run(tool::tool(&self.bolt).args(words).args(parameters)).ended_with(code)
    }

    /// A server on both load balancers.
    fn states(&self, server: &str) -> [(u32, u32); 2] {
        [&self.one, &self.two].map(|stage| stage.http.state("web", server))
    }
}

/// Feeds the task as Bolt does, and gives its exit code and what it has written.
fn feed(path: &std::ffi::OsStr, input: &Value) -> Result<(Option<i32>, Value), Box<dyn std::error::Error>> {
    let mut task = Command::new(module().join("tasks/init.sh"));
    let mut child = task.env("PATH", path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    // It may end without having read it.
    let _ = child.stdin.take().expect("its standard input").write_all(input.to_string().as_bytes());
    let output = child.wait_with_output()?;
    Ok((output.status.code(), serde_json::from_slice(&output.stdout)?))
}

fn task_takes_what_bolt_gives_it(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let stage = Stage::start(haproxy);
    let host = Host::with(stage.instances());
    let mut input = json!({"server": "web1", "state": "maint", "_task": "haproxy_server", "_installdir": "/tmp/x"});

    input["_noop"] = json!(true);
    let (code, report) = feed(&host.path(), &input)?;
    assert_eq!((code, &report["changed"], &report["dry_run"]), (Some(0), &json!(true), &json!(true)));
    assert_eq!(stage.http.state("web", "web1"), READY);

    input["_noop"] = json!(false);
    let (code, report) = feed(&host.path(), &input)?;
    assert_eq!((code, &report["changed"]), (Some(0), &json!(true)));
    assert_eq!(stage.http.state("web", "web1"), MAINT);

    input["server"] = json!("web9");
    let (code, report) = feed(&host.path(), &input)?;
    assert_eq!((code, &report["_error"]["msg"]), (Some(1), &report["msg"]));
    assert!(report["_error"]["kind"].as_str().is_some_and(|kind| kind.contains("server_not_found")), "{report}");

    let (code, report) = feed("/nowhere".as_ref(), &input)?;
    assert_eq!((code, &report["_error"]["kind"]), (Some(127), &json!("haproxy_server/not_installed")));

    // Puppet's types refuse what is no value before anything is sent.
    let folder = Folder::new();
    let bolt = bolt(puppet, &folder, &[("lb1", &host)]);
    let run = |pairs: &[&str]| tool::run(tool::tool(&bolt).args(["task", "run", "haproxy_server"]).args(pairs));
    for (pair, part) in [("servr=web1", "servr"), ("state=up", "state"), ("drain={\"timeuot\": 3}", "timeuot")] {
        let ran = run(&["--targets", "lb1", "server=web2", pair]).ended_with(1);
        assert_says(&(ran.out + &ran.err), &[part]);
    }
    assert_eq!(stage.http.state("web", "web2"), READY);
    Ok(())
}

/// Bolt's `tty` starts a script that brings the task its input, on a terminal (`make_wrapper_stringio` of Bolt).
fn task_on_a_terminal_prints_the_report_alone(haproxy: &Haproxy, _: Puppet) -> TestResult {
    let stage = Stage::start(haproxy);
    let folder = Folder::new();
    std::os::unix::fs::symlink(Program::path(), folder.join("haproxy_server"))?;
    let _held = Bound::hold(stage.frontend("web"), stage.server("web2"));
    let drain = json!({"timeout": 1.5, "on_timeout": "maint"});
    for input in [
        json!({"server": "web1", "state": "maint"}),
        // With progress to show.
        json!({"server": "web2", "state": "maint", "drain": drain}),
        json!({"server": "web9", "state": "maint"}),
    ] {
        let mut input = input;
        input["instances"] = json!(stage.http.address());
        input["_task"] = json!("haproxy_server");
        let task = module().join("tasks/init.sh");
        let wrapper = format!("#!/bin/sh\n'{}' <<'EOF'\n{input}\nEOF\n", task.display());
        let wrapper = script(&folder, "wrapper.sh", &wrapper);
        let [python, words @ ..] = OnTerminal::Everything.words();
        let mut command = tool::tool(python);
        let path = path_with(folder.path(), std::env::var_os("PATH").expect("a PATH"));
        let ran = tool::run(command.args(words).arg(wrapper).env("PATH", path));
        let line = ran.out.strip_suffix("\r\n").unwrap_or_else(|| panic!("no line: {:?}", ran.out));
        let report: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {:?}", ran.out));
        assert_eq!((ran.code == 0, ran.err.as_str()), (report["failed"] == false, ""));
    }
    Ok(())
}

fn plan_takes_out_works_and_puts_back(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let fleet = Fleet::start(haproxy, puppet);
    let seen = fleet.folder.join("seen");
    // The work looks at the servers on both load balancers while it goes on.
    let look = fleet.hosts.each_ref().map(|host| format!("'{}' server=web[123]", host.command().display()));
    let look = format!("command=({}; {}) >>'{}'", look[0], look[1], seen.display());
    fleet.plan("web1,third", &[&look, "owner=alice", "reason=new kernel"], 0);
    let text = fs::read_to_string(&seen)?;
    let out: Vec<Vec<String>> = text
        .lines()
        .map(|line| {
            let report: Value = serde_json::from_str(line).expect("a report");
            let servers = report["servers"].as_array().expect("servers").clone();
            let out = servers.iter().filter(|server| server["before"]["admin_state"] == "maint");
            out.map(|server| format!("{} {} {}", server["server"], server["owner"], server["reason"])).collect()
        })
        .collect();
    let of = |server: &str| vec![format!("\"{server}\" \"alice\" \"new kernel\"")];
    assert_eq!(out, [of("web1"), of("web1"), of("web3"), of("web3")], "one at a time, on both load balancers");
    for server in ["web1", "web2", "web3"] {
        assert_eq!(fleet.states(server), [READY; 2], "{server}");
    }
    Ok(())
}

fn plan_leaves_alone_what_was_out_before(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let fleet = Fleet::start(haproxy, puppet);
    fleet.two.http.set_state("web/web2", "maint");
    let alices = ["server=web3", "state=maint", "owner=alice", "reason=new disk"];
    tool::run(tool::tool(fleet.hosts[0].command()).args(alices)).ended_with(0);
    let guard = r#"maint={"drain": true}"#;
    let out = fleet.plan("web1,web2,third", &["command=true", "batch=3", "owner=upgrade", guard], 0).out;
    assert_says(
        &out,
        &[
            "web3 is left alone: on lb1, http has web/web3 in maint by alice (new disk)\n",
            "web2 is left alone: on lb2, http has web/web2 in maint\n",
            "command 'true' on web1\n",
        ],
    );
    let states = ["web1", "web2", "web3"].map(|server| fleet.states(server));
    assert_eq!(states, [[READY, READY], [READY, MAINT], [MAINT, READY]], "{out}");

    // An owner takes up what an earlier run has left, and only that.
    let out = fleet.plan("web2,third", &["command=true", "owner=alice", guard], 0).out;
    assert_says(&out, &["web2 is left alone", "command 'true' on third\n"]);
    assert_eq!([fleet.states("web2"), fleet.states("web3")], [[READY, MAINT], [READY, READY]], "{out}");
    Ok(())
}

fn plan_previews(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let fleet = Fleet::start(haproxy, puppet);
    let out = fleet.plan("web1,web2", &["preview=true"], 0).out;
    let would = |server: &str| format!("{server}: would be maint in 1 of 1 backend on 1 of 3 instances\n");
    assert_says(&out, &["check that web2 can be put back", "check that web2 can be taken out"]);
    let lines = ["web1", "web2"].map(|server| ["lb1", "lb2"].map(|host| format!("\n{host}: {}", would(server))));
    for line in lines.as_flattened() {
        assert_says(&out, &[line.trim_end()]);
    }
    assert!(["web1", "web2"].map(|server| fleet.states(server)) == [[READY; 2]; 2], "a preview changed something");
    Ok(())
}

/// What somebody else does on a load balancer while the plan runs.
const MEANWHILE: &str = r#"{"server": "web3", "state": "maint"}"#;

fn plan_puts_back_after_a_failure(haproxy: &Haproxy, puppet: Puppet) -> TestResult {
    let fleet = Fleet::start(haproxy, puppet);
    let all_ready = || ["web1", "web2", "web3"].map(|server| fleet.states(server)) == [[READY; 2]; 3];

    // The work fails: its server comes back, and the next one is not begun.
    let ran = fleet.plan("web1,web2", &["command=false"], 1);
    let out = ran.out + &ran.err;
    assert_says(&out, &["take web1 out", "put web1 back", "the work on web1 failed: "]);
    assert!(!out.contains("take web2 out"), "{out}");
    assert!(all_ready(), "not all came back");

    // The work cannot even be begun.
    let ran = fleet.plan("web1", &["task=no_such_task"], 1);
    assert_says(&(ran.out + &ran.err), &["take web1 out", "put web1 back", "no_such_task"]);
    assert!(all_ready(), "not all came back");

    // One load balancer refuses once the first batch is through: nothing is run, and the other one is rolled back.
    let guarded = r#"maint={"guard": {"min_available": 2}}"#;
    let meanwhile = format!("command=echo '{}' | {}", MEANWHILE, fleet.hosts[1].command().display());
    let ran = fleet.plan("web1,web2", &[guarded, &meanwhile], 1);
    let out = ran.out + &ran.err;
    assert_says(
        &out,
        &["put web1 back", "take web2 out", "put web2 back into service on lb1\n", "web2 cannot be taken out on lb2: "],
    );
    assert_says(&out, &["web2 cannot be taken out on lb2: ", "the backend web has 2 usable servers"]);
    assert!(!out.contains("on web2\n"), "{out}");
    assert_eq!((fleet.states("web2"), fleet.two.http.state("web", "web3")), ([READY; 2], MAINT));

    // What cannot be taken out or put back is found before anything changes.
    let ran = fleet.plan("web1,web2", &[guarded, "command=true"], 1);
    let out = ran.out + &ran.err;
    assert_says(&out, &["nothing has changed: web1 cannot be taken out on lb2: the backend web has 2 usable"]);
    assert!(!out.contains("out of service"), "{out}");
    let ran = fleet.plan("web1", &["command=true", "ready={\"wiat\": true}"], 1);
    let out = ran.out + &ran.err;
    assert_says(&out, &["wiat"]);
    assert!(!out.contains("take web1 out"), "{out}");
    let ran = fleet.plan("web1,stranger", &["command=true"], 1);
    assert_says(
        &(ran.out + &ran.err),
        &["nothing has changed: web9 cannot be put back on lb1: no selected instance has a server"],
    );

    let ran = fleet.plan("web1", &[], 1);
    assert_says(&(ran.out + &ran.err), &["give either 'command' or 'task'"]);
    Ok(())
}
