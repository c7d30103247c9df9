//! The examples of modules/ansible/README.md, run as they stand.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::collection::documentation;
use super::controller::{Controller, play};
use crate::page::{Block, blocks};
use crate::support::program::copy_program;
use crate::support::{Haproxy, Host, Load, Stage, Test, TestResult, repository, tests};
use crate::tool::{run, tool};

pub(crate) fn tests() -> Vec<Test> {
    tests![examples_do_what_they_say, examples_of_the_module_do_what_they_say]
}

const READY: (u32, u32) = (0, 2);
const MAINT: (u32, u32) = (1, 0);

/// A block of the page: the heading, the language, how web1 is afterwards, and what is shown.
type Example = (&'static str, &'static str, (u32, u32), &'static [&'static str]);

/// Every block of the page in its order.
const EXAMPLES: [Example; 15] = [
    ("Install", "sh", READY, &["lbops.haproxy:1.0.0 was installed successfully"]),
    ("Install", "yaml", READY, &["lbops.haproxy:1.0.0 was installed successfully"]),
    ("Install", "yaml", READY, &["lbops.haproxy:1.0.0 was installed successfully"]),
    ("Install", "yaml", READY, &["changed=1"]),
    ("Install", "yaml", READY, &["ok: [lb1]"]),
    ("First task", "yaml", READY, &["changed=2"]),
    (
        "First task",
        "yaml",
        READY,
        &["web1                       : ok=4    changed=2", "web3                       : ok=4    changed=2"],
    ),
    ("Options", "yaml", READY, &["changed=2"]),
    ("Dry run", "sh", READY, &["-http web/web1 ready weight 1\n+http web/web1 maint weight 1"]),
    ("Drained maintenance", "yaml", READY, &["changed=2"]),
    ("Rolling maintenance", "yaml", READY, &["rolling_maintenance : Upgrade]", "web2                       : ok="]),
    ("Rolling maintenance", "sh", READY, &["rolling_maintenance : Upgrade]", "web2                       : ok="]),
    ("Results", "yaml", READY, &["http web/web2: maint new disk", "Try again what may succeed by itself"]),
    ("From community.general.haproxy", "yaml", READY, &["changed=2"]),
    ("Without the collection", "yaml", MAINT, &["changed=1"]),
];

fn examples_do_what_they_say(haproxy: &Haproxy) -> TestResult {
    let blocks = blocks("modules/ansible/README.md");
    let listed: Vec<(&str, &str)> = EXAMPLES.iter().map(|(heading, language, ..)| (*heading, *language)).collect();
    let found: Vec<(&str, &str)> =
        blocks.iter().map(|block| (block.heading.as_str(), block.language.as_str())).collect();
    assert_eq!(found, listed, "the page has other blocks than this test runs");

    let stage = Stage::start(haproxy);
    let host = Host::with([&stage.http]);
    let controller = Controller::new("newest", host.path());
    prepare(&controller, &stage)?;
    for (Block { language, heading, text }, (.., state, shown)) in blocks.iter().zip(EXAMPLES) {
        for server in ["web1", "web2", "web3"] {
            stage.http.set_state(&format!("web/{server}"), "ready");
        }
        if heading == "Results" {
            let owned = ["server=web2", "state=maint", "owner=alice", "reason=new disk"];
            run(tool(host.command()).args(owned)).ended_with(0);
        }
        let text = text.replace("/run/haproxy/http.sock", &stage.http.address());
        // The bare program would find the HAProxy of other tests, too.
        let alone = format!("      haproxy_server:\n        instances: {}\n", stage.http.address());
        let text = text.replace("      haproxy_server:\n", &alone);
        let place = format!(
            "install\n      vars:\n        install_path: {}/bin/haproxy_server\n",
            controller.folder.path().display()
        );
        let text = text.replace("- role: lbops.haproxy.install\n", &format!("- role: lbops.haproxy.{place}"));
        let mut command = match language.as_str() {
            "yaml" if text.starts_with("# requirements.yml") => {
                let here = format!("file://{}", repository().display());
                // The path of this checkout may have the word as well.
                let text = text.replace("main", "HEAD").replace("https://github.com/lbops/haproxy_server.git", &here);
                controller.write("requirements.yml", &text);
                shell(&controller, "ansible-galaxy collection install --force -r requirements.yml")
            }
            "yaml" => {
                controller.write("play.yml", &text);
                let mut command = controller.command("ansible-playbook");
                command.arg("play.yml");
                command
            }
            _ => shell(&controller, &text),
        };
        let load = Load::start(stage.frontend("web"), 2, Duration::from_millis(10));
        let ran = run(command.env("ANSIBLE_INVENTORY", controller.folder.join("hosts"))).ended_with(0);
        assert_eq!(load.lost().first(), None, "under {heading:?}:\n{text}");
        for words in shown {
            assert!(ran.out.contains(words), "under {heading:?}, {words:?} is not shown by\n{text}\n{}", ran.out);
        }
        assert_eq!(stage.http.state("web", "web1"), state, "under {heading:?}:\n{text}\n{}", ran.out);
    }
    Ok(())
}

/// The examples that `ansible-doc` shows, one after the other.
fn examples_of_the_module_do_what_they_say(haproxy: &Haproxy) -> TestResult {
    let examples = documentation()["examples"].as_str().ok_or("no examples")?.to_owned();
    // What one registers the next one shows.
    let examples = examples.replace("\n\n- name: Name those", "\n- name: Name those");
    let stage = Stage::start_with(haproxy, "weight 100", |setup| setup);
    let host = Host::with([&stage.http]);
    let controller = Controller::new("newest", host.path());
    prepare(&controller, &stage)?;
    let mut seen = Vec::new();
    for example in examples.split("\n\n") {
        let load = Load::start(stage.frontend("web"), 2, Duration::from_millis(10));
        let mut command = controller.playbook(controller.folder.join("hosts"), &play(example), &["-l", "lb1"]);
        run(&mut command).ended_with(0);
        assert_eq!(load.lost().first(), None, "{example}");
        drop(load);
        let before = served(&stage);
        (0..80).for_each(|_| assert_eq!(stage.get("web").status, 200, "{example}"));
        let share = |(after, before): (usize, usize)| after - before;
        seen.push(served(&stage).into_iter().zip(before).map(share).collect::<Vec<_>>());
    }
    let alike = |shares: &[usize]| shares.iter().all(|share| (26..=27).contains(share));
    let (half, back) = (&seen[3], &seen[4]);
    assert_eq!((seen[0][0], seen[1][0]), (0, 0), "web1 was taken out: {seen:?}");
    assert!(alike(&seen[2]), "web1 was put back: {seen:?}");
    assert!((39..=41).contains(&half[0]) && (19..=21).contains(&half[1]), "web1 has twice as much: {seen:?}");
    assert!(alike(back), "they have their whole weight: {seen:?}");
    Ok(())
}

/// How many requests each server has answered.
fn served(stage: &Stage) -> Vec<usize> {
    ["web1", "web2", "web3"].map(|server| stage.server(server).requests()).to_vec()
}

/// What the examples take for granted: an inventory, a file of tasks, a playbook, the programs.
fn prepare(controller: &Controller, stage: &Stage) -> TestResult {
    // All servers of the stage have one address, and ports of their own.
    let web = |name: &str| format!("{name} ansible_host={}\n", stage.server(name).address());
    controller.write(
        "hosts",
        &format!(
            "[load_balancers]\nlb1\n\n[web]\n{}\n[all:vars]\nansible_connection=local\n\
             ansible_python_interpreter='{{{{ ansible_playbook_python }}}}'\n",
            ["web1", "web2", "web3"].map(web).concat()
        ),
    );
    controller.write("upgrade.yml", "- name: Upgrade\n  ansible.builtin.raw: \"true\"\n  changed_when: false\n");
    controller.write(
        "site.yml",
        "- name: Site\n  hosts: load_balancers\n  gather_facts: false\n  tasks:\n    - name: Take web1 out\n      \
         lbops.haproxy.haproxy_server:\n        server: web1\n        state: maint\n",
    );
    fs::create_dir(controller.folder.join("bin"))?;
    let architecture = std::env::consts::ARCH;
    for place in [format!("files/programs/{architecture}"), format!("files/{architecture}"), "library".to_owned()] {
        fs::create_dir_all(controller.folder.join(&place))?;
        copy_program(&controller.folder.join(&place).join("haproxy_server"));
    }
    copy_collection(&controller.folder.join("modules/ansible"))
}

/// Copies the collection as it would be checked out.
pub(crate) fn copy_collection(to: &Path) -> TestResult {
    fs::create_dir_all(to.parent().ok_or("a folder")?)?;
    run(tool("cp").arg("-r").arg(repository().join("modules/ansible")).arg(to)).ended_with(0);
    Ok(())
}

/// A shell with the controller's programs in its `PATH`, which installs collections into a folder of their own.
fn shell(controller: &Controller, text: &str) -> std::process::Command {
    let mut command = controller.command("python");
    let wanted = if text.contains("ansible-galaxy") { "installed" } else { "collections" };
    command.env("ANSIBLE_COLLECTIONS_PATH", controller.folder.join(wanted));
    command.args(["-c", "import os, sys; os.execvp('sh', ['sh', '-euc', sys.argv[1]])"]).arg(text);
    command
}
