//! The role `rolling_maintenance`: a server behind two load balancers, which are reached over SSH.

use std::ffi::OsStr;

use super::controller::{Controller, VERSIONS, indented};
use super::sshd::Sshd;
use crate::support::{Haproxy, Host, Port, Stage, Test, TestResult, tests};
use crate::tool::{Ran, run};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        takes_each_server_out_everywhere_and_puts_it_back,
        puts_back_what_fails_and_ends_the_rollout,
        nothing_is_changed_where_a_load_balancer_refuses,
    ]
}

const READY: (u32, u32) = (0, 2);
const MAINT: (u32, u32) = (1, 0);

/// Two load balancers with the backend `web` each, and the servers web1 to web3 as hosts that need nothing.
struct Fleet {
    stages: [Stage; 2],
    controller: Controller,
    inventory: String,
    _hosts: [Host; 2],
    _sshds: [Sshd; 2],
}

impl Fleet {
    fn start(haproxy: &Haproxy, version: &'static str) -> Self {
        let stages = [Stage::start(haproxy), Stage::start(haproxy)];
        let hosts = [Host::with([&stages[0].http]), Host::with([&stages[1].http])];
        let sshds = [&hosts[0], &hosts[1]].map(|host| Sshd::start(&host.path().to_string_lossy()));
        let controller = Controller::new(version, "/usr/bin:/bin");
        let inventory = format!(
            "[load_balancers]\nlb1 {}\nlb2 {}\n\n[web]\nweb1\nweb2\nweb3\n\n[web:vars]\nansible_connection=local\n",
            sshds[0].variables(),
            sshds[1].variables()
        );
        Self { stages, controller, inventory, _hosts: hosts, _sshds: sshds }
    }

    /// The playbook of the collection with these tasks and variables.
    fn maintain(&self, tasks: &str, variables: &str, words: &[&str]) -> Ran {
        let inventory = self.controller.write("hosts", &self.inventory);
        self.controller.write("maintenance.yml", tasks);
        let mut command = self.controller.command("ansible-playbook");
        command.arg("-i").arg(inventory).arg("lbops.haproxy.rolling_maintenance").args(words);
        command.args(["-e", "rolling_maintenance_hosts=web", "-e", variables]);
        command.arg("-e").arg(format!("rolling_maintenance_tasks={}/maintenance.yml", self.place()));
        run(&mut command)
    }

    /// The role in a play of one's own.
    fn play(&self, keywords: &str, tasks: &str, words: &[&str]) -> Ran {
        let inventory = self.controller.write("hosts", &self.inventory);
        self.controller.write("maintenance.yml", tasks);
        let playbook = format!(
            "- name: Test\n  hosts: web\n  gather_facts: false\n{}  vars:\n    rolling_maintenance_tasks: maintenance.yml\n  \
             roles:\n    - lbops.haproxy.rolling_maintenance\n",
            indented(keywords, 2)
        );
        run(&mut self.controller.playbook(inventory, &playbook, words))
    }

    fn place(&self) -> String {
        self.controller.folder.path().display().to_string()
    }

    /// How a server is on both load balancers.
    fn states(&self, server: &str) -> [(u32, u32); 2] {
        [&self.stages[0], &self.stages[1]].map(|stage| stage.http.state("web", server))
    }

    fn all_ready(&self) {
        for server in ["web1", "web2", "web3"] {
            assert_eq!(self.states(server), [READY, READY], "{server}");
        }
    }

    /// What the tasks of the maintenance have seen, one line a host.
    fn log(&self) -> String {
        std::fs::read_to_string(self.controller.folder.join("log")).unwrap_or_default()
    }

    fn forget(&self) {
        self.controller.write("log", "");
    }
}

/// Notes what a host's server looks like while it is maintained.
fn noting(fleet: &Fleet) -> String {
    let sockets = [&fleet.stages[0], &fleet.stages[1]].map(|stage| stage.http.address());
    let program = env!("CARGO_BIN_EXE_haproxy_server");
    format!(
        "- name: Note\n  ansible.builtin.raw: |\n    for socket in {} {}; do\n      {program} --format text \
         server={{{{ inventory_hostname }}}} instances=$socket | tail -n 1 >> {}/log\n    done\n",
        sockets[0],
        sockets[1],
        fleet.place()
    )
}

fn takes_each_server_out_everywhere_and_puts_it_back(haproxy: &Haproxy) -> TestResult {
    for version in VERSIONS {
        let fleet = Fleet::start(haproxy, version);
        let tasks = noting(&fleet);
        let dry = fleet.maintain("[]", "{}", &["--check", "-l", "web1"]).ended_with(0);
        assert!(dry.out.contains("changed=2"), "a dry run tells what would change: {}", dry.out);
        fleet.all_ready();

        let ran = fleet.maintain(&tasks, "{}", &["-l", "web1,web2"]).ended_with(0);
        let out = |server: &str| format!("web/{server}: STOPPED/MAINT\n").repeat(2);
        assert_eq!(fleet.log(), out("web1") + &out("web2"), "{version}: {}", ran.out);
        fleet.all_ready();

        // Without waiting for sessions, two at once, in a play of one's own, with defaults for the module.
        fleet.forget();
        let keywords = "serial: 2\nmodule_defaults:\n  group/lbops.haproxy.haproxy:\n    backend: web\n\
                        vars_files: more.yml";
        fleet.controller.write(
            "more.yml",
            "rolling_maintenance_drain:\nrolling_maintenance_wait: false\nrolling_maintenance_guard: {}\n",
        );
        let ran = fleet.play(keywords, &tasks, &["-l", "web1,web2"]).ended_with(0);
        assert!(ran.out.contains("skipping: [web1]"), "it drains: {}", ran.out);
        assert_eq!(fleet.log().lines().filter(|line| line.ends_with("STOPPED/MAINT")).count(), 4, "{}", fleet.log());
        fleet.all_ready();
    }
    Ok(())
}

fn puts_back_what_fails_and_ends_the_rollout(haproxy: &Haproxy) -> TestResult {
    const FAILS: &str = "- name: Upgrade\n  ansible.builtin.fail:\n    msg: no disk\n  \
                         when: inventory_hostname == 'web2'\n";
    for version in VERSIONS {
        let fleet = Fleet::start(haproxy, version);
        let tasks = noting(&fleet) + FAILS;

        // With two at once, the other one is done with, and the third is not begun.
        let ran = fleet.maintain(&tasks, "rolling_maintenance_serial=2", &[]).ended_with(2);
        assert!(
            ran.out.contains("web2: the maintenance has failed, as shown above; the server was put back"),
            "{}",
            ran.out
        );
        assert!(!fleet.log().contains("web3"), "the rollout went on: {}", ran.out);
        fleet.all_ready();

        // All at once: a failure must not keep the others from being put back.
        let keywords = "any_errors_fatal: true\nmodule_defaults:\n  group/lbops.haproxy.haproxy:\n    backend: web";
        fleet.controller.write("group_vars/all.yml", "rolling_maintenance_guard: false\n");
        fleet.forget();
        let ran = fleet.play(keywords, &tasks, &["-l", "web1,web2"]).ended_with(2);
        assert_eq!(fleet.log().matches("STOPPED/MAINT").count(), 4, "not all were out: {}", ran.out);
        assert_eq!(ran.out.matches("failed=0").count(), 1, "more than one has failed: {}", ran.out);
        fleet.all_ready();

        // Left for somebody to look at, and then taken up again.
        let leave = "rolling_maintenance_put_back_after_failure=false";
        fleet.forget();
        let ran = fleet.maintain(&tasks, leave, &["-l", "web2,web3"]).ended_with(2);
        assert!(!fleet.log().contains("web3"), "the rollout went on: {}", ran.out);
        assert!(ran.out.contains("the server was left out of service"), "{}", ran.out);
        assert_eq!(fleet.states("web2"), [MAINT, MAINT], "{version}");
        assert_eq!(fleet.states("web3"), [READY, READY], "{version}");
        fleet.maintain("[]", "{}", &["-l", "web2"]).ended_with(0);
        fleet.all_ready();
    }
    Ok(())
}

fn nothing_is_changed_where_a_load_balancer_refuses(haproxy: &Haproxy) -> TestResult {
    for version in VERSIONS {
        let mut fleet = Fleet::start(haproxy, version);
        let tasks = noting(&fleet);
        let refused = |fleet: &Fleet, variables: &str, why: &str| {
            let ran = fleet.maintain(&tasks, variables, &[]).ended_with(2);
            assert!(ran.out.contains(why), "{version}: {why} is not said: {}", ran.out);
            assert_eq!(fleet.log(), "", "the maintenance was begun: {}", ran.out);
        };

        // Too few others on the second.
        fleet.stages[1].http.set_state("web/web2", "maint");
        fleet.stages[1].http.set_state("web/web3", "maint");
        refused(&fleet, "{}", "would have 0, fewer than");
        assert_eq!(fleet.states("web1"), [READY, READY], "{version}");

        // Somebody else has it.
        let owner = ["server=web1", "state=maint", "owner=alice"];
        let mut words = owner.map(OsStr::new).to_vec();
        let instance = format!("instances={}", fleet.stages[1].http.address());
        words.push(OsStr::new(&instance));
        run(crate::tool::tool(env!("CARGO_BIN_EXE_haproxy_server")).args(words)).ended_with(0);
        refused(&fleet, "{}", "was taken out by alice");
        assert_eq!(fleet.states("web1"), [READY, MAINT], "{version}");
        fleet.stages[1].http.set_state("web/web1", "ready");

        refused(&fleet, "{rolling_maintenance_load_balancers: []}", "No load balancer is known");

        // One that answers no more half-way: the other one is put back.
        for server in ["web/web2", "web/web3"] {
            fleet.stages[1].http.set_state(server, "ready");
        }
        let nobody = Port::reserve();
        let gone = format!("ansible_port={}", nobody.number());
        let inventory = fleet.inventory.clone();
        fleet.inventory = inventory.replacen("[web]", &format!("lb3 {gone} ansible_host=127.0.0.1\n\n[web]"), 1);
        refused(&fleet, "{}", "lb3 cannot be reached");
        fleet.all_ready();
        fleet.inventory = inventory;

        let cut = "- name: Cut\n  ansible.builtin.add_host:\n    name: lb2\n    ansible_port: PORT\n    groups: load_balancers\n";
        let cut = cut.replace("PORT", &nobody.number().to_string());
        let ran = fleet.maintain(&cut, "{}", &[]).ended_with(2);
        assert!(ran.out.contains("lb2 cannot be reached: web1 was not set there"), "{}", ran.out);
        assert_eq!(fleet.states("web1"), [READY, MAINT], "what could be reached is back");
    }
    Ok(())
}
