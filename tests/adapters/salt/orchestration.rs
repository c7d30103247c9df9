//! The orchestration, and the examples of the page, with a master and minions.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::fleet::Fleet;
use super::minion::{Salt, modules};
use super::{DRAIN, MAINT, READY};
use crate::page::blocks;
use crate::support::{Folder, Haproxy, Host, Instance, Load, Mode, Setup, Stage, TestResult};
use crate::tool::{run, tool};

const PAGE: &str = "modules/salt/README.md";

/// Stands in for the service manager: restarts the instance `http` by a reload, which forgets what was set.
const SERVICE: &str = r#"
import os, signal, socket, time

__virtualname__ = "service"


def __virtual__():
    return __virtualname__


def available(name):
    return True


def status(name, *args, **kwargs):
    return True


def _pid():
    try:
        with socket.socket(socket.AF_UNIX) as stats:
            stats.connect("SOCKET")
            stats.sendall(b"show info\n")
            return [line for line in stats.makefile() if line.startswith("Pid:")]
    except OSError:
        return []


def restart(name, *args, **kwargs):
    before = _pid()
    os.kill(MASTER, signal.SIGUSR2)
    end = time.monotonic() + 10
    while _pid() in (before, []):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
"#;

/// The second load balancer, with one instance.
fn second(haproxy: &Haproxy, stage: &Stage) -> Instance {
    let server = |name: &str| format!("    server {name} {} check inter 200ms\n", stage.server(name).address());
    let servers: String = ["web1", "web2", "web3"].map(server).concat();
    Setup::new("edge", &format!("backend web\n{servers}")).start(haproxy)
}

fn await_ready(instance: &Instance) {
    for server in ["web1", "web2", "web3"] {
        instance.await_state("web", server, READY);
    }
}

pub(super) fn page_shows_what_happens(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start_with(haproxy, "check inter 200ms weight 10", |setup| setup.mode(Mode::MasterWorker));
    let edge = second(haproxy, &stage);
    await_ready(&stage.http);
    await_ready(&edge);
    let (lb1, lb2) = (Host::with(stage.instances()), Host::with([&edge]));
    let folder = Folder::new();
    let states = folder.join("states");
    fs::create_dir_all(states.join("web"))?;
    fs::create_dir_all(states.join("_modules"))?;
    folder.write("states/web/upgrade.sls", "the new version:\n  test.succeed_with_changes\n");
    let service = SERVICE.replace("SOCKET", &stage.http.address()).replace("MASTER", &stage.http.top_pid().to_string());
    folder.write("states/_modules/service.py", &service);

    // Paths of the page become those of the test.
    let root = modules().parent().unwrap().parent().unwrap().display().to_string();
    let here = |text: &str| {
        text.replace("/srv/salt", &states.display().to_string())
            .replace("/opt/haproxy_server", &root)
            .replace("/etc/haproxy/", &format!("{}/", stage.folder.path().display()))
    };
    let blocks = blocks(PAGE);
    let roots = blocks.iter().find(|block| block.text.starts_with("# /etc/salt/master.d/")).expect("the file_roots");
    let minions = [("lb1", &lb1), ("lb2", &lb2), ("web1.example.com", &lb2), ("web2.example.com", &lb2)];
    let newest = Salt::versions().pop().unwrap();
    let fleet = Fleet::start(&newest, &folder, &here(&roots.text), &minions);
    fleet.sh("salt-call --local saltutil.sync_all").ended_with(0);

    let load = Load::start(stage.frontend("web"), 2, Duration::from_millis(50));
    let mut faults = Vec::new();
    for block in &blocks {
        match block.language.as_str() {
            "yaml" => {
                let (path, _) = block.text.strip_prefix("# ").and_then(|text| text.split_once('\n')).expect("a path");
                if let Some(name) = path.strip_prefix("/srv/salt/") {
                    fs::write(states.join(name), here(&block.text))?;
                } else {
                    // Those of the pillar and of the beacon have tests of their own.
                    let others = ["/srv/pillar/haproxy_server.sls", "/etc/salt/minion.d/haproxy_server.conf"];
                    assert!(block == roots || others.contains(&path), "this block is not tried: {block:?}");
                }
            }
            "json" => {
                folder.write("plan.json", &block.text);
            }
            "console" => {
                for (command, shown) in examples(&block.text) {
                    let came = fleet.sh(command).out;
                    if comparable(&came) != comparable(&shown) {
                        faults.push(format!("$ {command}\nthe page shows:\n{shown}\nbut this came:\n{came}"));
                    }
                    if command.contains("state.apply balanced") {
                        let served = || ["web1", "web2", "web3"].map(|server| stage.server(server).requests());
                        let before = served();
                        (0..40).for_each(|_| assert_eq!(stage.get("web").status, 200));
                        let answered: Vec<usize> = served().iter().zip(before).map(|(now, then)| now - then).collect();
                        // Those of the load in the background are distributed along with the forty.
                        let (old, new) = (answered[0], answered[1] + answered[2]);
                        assert!(old.abs_diff(new) <= 6, "the new servers have half of the traffic: {answered:?}");
                    }
                }
            }
            other => panic!("blocks of {other:?} are not tried"),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // The reload of an example may cut a connection that is kept open.
    let lost = load.lost().into_iter().find(|answer| answer.contains("503"));
    assert_eq!(lost, None, "an example has taken too much out");
    assert_eq!(stage.http.state("web", "web3"), MAINT, "the last example has set it");
    for instance in [&stage.http, &edge] {
        assert_eq!((instance.state("web", "web1"), instance.state("web", "web2")), (READY, READY));
    }
    assert_eq!(edge.state("web", "web3"), DRAIN);
    Ok(())
}

/// Commands of a block with what they show.
fn examples(text: &str) -> Vec<(&str, String)> {
    let mut examples: Vec<(&str, String)> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            examples.push((command, String::new()));
        } else {
            let shown = &mut examples.last_mut().expect("a command before its output").1;
            shown.push_str(line);
            shown.push('\n');
        }
    }
    examples
}

/// Takes out times, which differ from run to run, and what Salt 3008 says of itself.
fn comparable(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.contains("unclosed "));
    let mut text: String = lines.map(|line| format!("{line}\n")).collect();
    for label in ["Started: ", "Duration: ", "run time: "] {
        let mut parts = text.split(label);
        let mut taken = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            taken.push_str(label);
            taken.push_str(part.trim_start_matches(|sign: char| sign.is_ascii_digit() || ".: ".contains(sign)));
        }
        text = taken;
    }
    text
}

/// By ID, the result of each step; `None` stands for one that would change something.
fn steps(ran: &str) -> Vec<(String, Option<bool>, String)> {
    let document: Value = serde_json::from_str(ran).unwrap_or_else(|error| panic!("{error}: {ran}"));
    let (_, data) = document["data"].as_object().unwrap().iter().next().unwrap();
    let mut steps: Vec<&Value> = data.as_object().unwrap().values().collect();
    steps.sort_by_key(|step| step["__run_num__"].as_u64());
    let step = |step: &&Value| {
        (
            step["__id__"].as_str().unwrap().to_owned(),
            step["result"].as_bool(),
            step["comment"].as_str().unwrap().to_owned(),
        )
    };
    steps.iter().map(step).collect()
}

pub(super) fn servers_come_back_when_the_work_fails(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start_with(haproxy, "check inter 200ms", |setup| setup);
    let edge = second(haproxy, &stage);
    await_ready(&stage.http);
    await_ready(&edge);
    let (lb1, lb2) = (Host::with(stage.instances()), Host::with([&edge]));
    let oldest = Salt::versions().swap_remove(0);
    let folder = Folder::new();
    let roots = format!("file_roots: {{base: [{}, {}]}}\n", folder.join("states").display(), modules().display());
    let fleet = Fleet::start(&oldest, &folder, &roots, &[("lb1", &lb1), ("lb2", &lb2)]);
    fleet.sh("salt '*' saltutil.sync_all").ended_with(0);
    // Shows that the servers are out on both load balancers while it works, and fails on the second minion.
    folder.write(
        "states/work.sls",
        "work:\n  cmd.run:\n    - name: haproxy_server 'server=web[12]' >>FOLDER/seen; [ {{ grains['id'] }} = lb1 ]\n"
            .replace("FOLDER", &folder.path().display().to_string())
            .as_str(),
    );
    let roll = |take_out: &str, code: i32| {
        let plan = format!(
            r#"{{"rolling_maintenance": {{"load_balancers": "lb*", "batch": 2, "sls": "work",
            "servers": {{"web1": "lb1", "web2": "lb2", "web3": "lb1"}},
            "take_out": {take_out}, "put_back": {{"wait": {{"timeout": 20}}, "owner": "upgrade"}}}}}}"#
        );
        folder.write("plan.json", &plan);
        let line = "salt-run state.orch haproxy_server.rolling_maintenance pillar=\"$(tr '\\n' ' ' <plan.json)\" --out=json \
                    2>/dev/null";
        steps(&fleet.sh(line).ended_with(code).out)
    };
    let result = |steps: &[(String, Option<bool>, String)], id: &str| {
        steps.iter().find(|step| step.0 == id).unwrap_or_else(|| panic!("no {id} in {steps:?}")).1
    };

    let failed = roll(r#"{"drain": {"timeout": 20}, "expect": {"admin_state": "ready"}, "owner": "upgrade"}"#, 1);
    assert_eq!(result(&failed, "web1, web2 can come back"), Some(true), "{failed:?}");
    assert_eq!(result(&failed, "web1, web2 can be taken out"), None, "{failed:?}");
    assert_eq!(result(&failed, "web1, web2 out of service"), Some(true), "{failed:?}");
    assert_eq!(result(&failed, "work on web1, web2"), Some(false), "{failed:?}");
    assert_eq!(result(&failed, "web1, web2 back in service"), Some(true), "{failed:?}");
    for step in
        ["web3 can come back", "web3 can be taken out", "web3 out of service", "work on web3", "web3 back in service"]
    {
        assert_eq!(result(&failed, step), Some(false), "{failed:?}");
    }
    let seen = fs::read_to_string(folder.join("seen"))?;
    assert_eq!(seen.matches(r#""admin_state":"maint""#).count(), 2 * 2 * 2, "before and after, of two, on two: {seen}");
    for instance in [&stage.http, &edge] {
        assert!(instance.rows().iter().filter(|((backend, _), _)| backend == "web").all(|(_, row)| row.admin == 0));
    }

    // One load balancer refuses: the other is left as it is, and what somebody has taken out stays out.
    edge.set_state("web/web2", "maint");
    let refused = roll(r#"{"guard": {"min_available": 1}}"#, 1);
    let (alone, others) = refused.split_first().expect("steps");
    let where_ = "on lb2, edge has web/web2 in maint".to_owned();
    assert_eq!(alone, &("web2 is left alone".to_owned(), Some(true), where_), "{refused:?}");
    assert_eq!(result(&refused, "web1, web3 can come back"), Some(true), "{refused:?}");
    assert!(others[1..].iter().all(|step| step.1 == Some(false)), "{refused:?}");
    assert_eq!(edge.state("web", "web2"), MAINT);
    assert_eq!(stage.http.state("web", "web1").0, READY.0);
    assert_eq!(fs::read_to_string(folder.join("seen"))?, seen, "the work was begun");

    // What an earlier run has left is taken up; what others have taken out is not, with their names or without.
    let instance = format!("instances={}", edge.address());
    let mut owned = tool(lb2.command());
    owned.args(["server=web3", "state=maint", "owner=upgrade", &instance]);
    run(&mut owned).ended_with(0);
    let rolled = roll("{}", 0);
    assert_eq!(result(&rolled, "web2 is left alone"), Some(true), "{rolled:?}");
    assert_eq!(result(&rolled, "work on web1, web3"), Some(true), "{rolled:?}");
    assert_eq!(["web1", "web2", "web3"].map(|server| edge.state("web", server)), [READY, MAINT, READY], "{rolled:?}");
    Ok(())
}
