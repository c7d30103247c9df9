//! The role `rolling_maintenance`: a server behind two load balancers, which are reached over SSH.

use super::controller::{Controller, VERSIONS, indented, newest};
use super::sshd::Sshd;
use crate::support::{Bound, Haproxy, Host, Port, Program, Stage, Test, TestResult, tests};
use crate::tool::{Ran, run, tool};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        takes_each_server_out_everywhere_and_puts_it_back,
        leaves_out_what_fails_and_ends_the_rollout,
        judges_each_play_by_itself,
        leaves_alone_what_was_out_before,
        a_load_balancer_that_fails_leaves_nothing_half_out,
        load_balancers_outside_of_the_play_take_turns,
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

    /// The playbook of the collection with these servers, tasks and variables.
    fn maintain(&self, servers: &str, tasks: &str, variables: &str, words: &[&str]) -> Ran {
        let inventory = self.controller.write("hosts", &self.inventory);
        self.controller.write("maintenance.yml", tasks);
        let mut command = self.controller.command("ansible-playbook");
        command.arg("-i").arg(inventory).arg("lbops.haproxy.rolling_maintenance").args(words);
        command.arg("-e").arg(format!("rolling_maintenance_hosts={servers}")).args(["-e", variables]);
        command.arg("-e").arg(format!("rolling_maintenance_tasks={}/maintenance.yml", self.place()));
        run(&mut command)
    }

    /// The role in a play of one's own.
    fn play(&self, hosts: &str, keywords: &str, tasks: &str, words: &[&str]) -> Ran {
        let inventory = self.controller.write("hosts", &self.inventory);
        self.controller.write("maintenance.yml", tasks);
        let playbook = format!(
            "- name: Test\n  hosts: {hosts}\n  gather_facts: false\n{}  vars:\n    rolling_maintenance_tasks: maintenance.yml\n  \
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
    let program = Program::path().display();
    format!(
        "- name: Note\n  ansible.builtin.raw: |\n    for socket in {} {}; do\n      {program} --format text \
         server={{{{ inventory_hostname }}}} instances=$socket | grep -v '^#' >> {}/log\n    done\n",
        sockets[0],
        sockets[1],
        fleet.place()
    )
}

/// The defaults of the module in a play of one's own.
const BACKEND: &str = "module_defaults:\n  group/lbops.haproxy.haproxy:\n    backend: web\n";

fn takes_each_server_out_everywhere_and_puts_it_back(haproxy: &Haproxy) -> TestResult {
    for version in VERSIONS {
        let fleet = Fleet::start(haproxy, version);
        let tasks = noting(&fleet);
        let dry = fleet.maintain("web1", "[]", "{}", &["--check"]).ended_with(0);
        assert_eq!(dry.out.matches("changed=2").count(), 2, "a dry run tells what would change: {}", dry.out);
        fleet.all_ready();

        let ran = fleet.maintain("web1,web2", &tasks, "{}", &[]).ended_with(0);
        let out = |server: &str| format!("web/{server}: STOPPED/MAINT\n").repeat(2);
        assert_eq!(fleet.log(), out("web1") + &out("web2"), "{version}: {}", ran.out);
        // Each once: the questions, drain, maint and ready on both.
        assert_eq!(ran.out.matches("TASK [lbops.haproxy.rolling_maintenance : Set the servers to maint]").count(), 2);
        fleet.all_ready();

        // Without waiting for sessions, two at once, in a play of one's own, with defaults for the module. The names are
        // made of the variables of each server.
        fleet.forget();
        let keywords = format!("{BACKEND}vars_files: more.yml\n");
        let more = "rolling_maintenance_drain:\nrolling_maintenance_wait: false\nrolling_maintenance_guard: {}\n\
                    rolling_maintenance_serial: 2\n";
        fleet.controller.write("more.yml", more);
        fleet.controller.write("group_vars/web.yml", "rolling_maintenance_server: \"{{ 'web' ~ number }}\"\n");
        fleet.controller.write("host_vars/web1.yml", "number: 1\n");
        fleet.controller.write("host_vars/web2.yml", "number: 2\n");
        fleet.play("web1:web2:load_balancers", &keywords, &tasks, &[]).ended_with(0);
        assert_eq!(fleet.log().lines().filter(|line| line.ends_with("STOPPED/MAINT")).count(), 4, "{}", fleet.log());
        fleet.all_ready();
    }
    Ok(())
}

const FAILS: &str = "- name: Upgrade\n  ansible.builtin.fail:\n    msg: no disk\n  \
                     when: inventory_hostname == 'web2'\n";

fn leaves_out_what_fails_and_ends_the_rollout(haproxy: &Haproxy) -> TestResult {
    let nobody = Port::reserve();
    // Ways in which a maintenance fails on the second server.
    let vanishes = format!(
        "- name: Vanish\n  ansible.builtin.add_host:\n    name: web2\n    ansible_connection: ssh\n    \
         ansible_host: 127.0.0.1\n    ansible_port: {}\n  when: inventory_hostname == 'web2'\n\
         - name: Work\n  ansible.builtin.raw: 'true'\n",
        nobody.number()
    );
    let once = FAILS.replace("  ansible", "  run_once: true\n  ansible");
    for &version in newest() {
        let fleet = Fleet::start(haproxy, version);
        for fails in [FAILS, &vanishes, &once] {
            fleet.forget();
            let tasks = noting(&fleet) + fails;
            let ran = fleet.maintain("web", &tasks, "{}", &[]);
            // 4 where a host was unreachable, from ansible-core 2.19 on.
            assert!([2, 4].contains(&ran.code), "{version}: {fails}{}", ran.out);
            let said = "web2: the maintenance has failed, as shown above; left out of service";
            assert!(ran.out.contains(said), "{version}: {fails}{}", ran.out);
            assert_eq!(fleet.states("web1"), [READY, READY], "{version}: {fails}");
            assert_eq!(fleet.states("web2"), [MAINT, MAINT], "{version}: {fails}");
            assert_eq!(fleet.states("web3"), [READY, READY], "{version}: {fails}");
            assert!(!fleet.log().contains("web3"), "the rollout went on: {}", ran.out);
            // It is taken up again.
            fleet.maintain("web2", "[]", "{}", &[]).ended_with(0);
            fleet.all_ready();
        }

        // With two at once, the other one is done with and comes back; and both do where that is asked for.
        let tasks = noting(&fleet) + FAILS;
        let serial = "rolling_maintenance_serial: 2, rolling_maintenance_guard: false";
        fleet.maintain("web", &tasks, &format!("{{{serial}}}"), &[]).ended_with(2);
        assert_eq!([fleet.states("web1"), fleet.states("web2")], [[READY, READY], [MAINT, MAINT]], "{version}");
        fleet.maintain("web2", "[]", "{}", &[]).ended_with(0);
        let back = format!("{{{serial}, rolling_maintenance_put_back_after_failure: true}}");
        let ran = fleet.maintain("web", &tasks, &back, &[]).ended_with(2);
        assert!(ran.out.contains("web2: the maintenance has failed, as shown above; put back"), "{}", ran.out);
        fleet.all_ready();
    }
    Ok(())
}

/// Takes a server out on one instance, as somebody does who has nothing to do with the role.
fn take_out(stage: &Stage, words: &[&str]) {
    let instance = format!("instances={}", stage.http.address());
    run(tool(Program::path()).args(["state=maint", &instance]).args(words)).ended_with(0);
}

/// What a first play has brought to its end must not pass for done in a second one, whose tasks fail.
fn judges_each_play_by_itself(haproxy: &Haproxy) -> TestResult {
    for version in VERSIONS {
        let fleet = Fleet::start(haproxy, version);
        let inventory = fleet.controller.write("hosts", &fleet.inventory);
        let once = format!("- name: Work once\n  ansible.builtin.raw: mkdir {}/worked\n", fleet.place());
        fleet.controller.write("maintenance.yml", &once);
        let play = "- name: Test\n  hosts: web1:load_balancers\n  gather_facts: false\n  vars:\n    \
                    rolling_maintenance_tasks: maintenance.yml\n  roles:\n    - lbops.haproxy.rolling_maintenance\n";
        let playbook = play.replace("  vars:\n", &format!("{}  vars:\n", indented(BACKEND, 2))).repeat(2);
        let ran = run(&mut fleet.controller.playbook(inventory, &playbook, &[])).ended_with(2);
        let said = "web1: the maintenance has failed, as shown above; left out of service";
        assert_eq!(ran.out.matches("TASK [lbops.haproxy.rolling_maintenance : Put the servers back]").count(), 2);
        assert!(ran.out.contains(said), "{version}: {}", ran.out);
        assert_eq!(fleet.states("web1"), [MAINT, MAINT], "{version}");
    }
    Ok(())
}

fn leaves_alone_what_was_out_before(haproxy: &Haproxy) -> TestResult {
    for &version in newest() {
        let fleet = Fleet::start(haproxy, version);
        let tasks = noting(&fleet);
        take_out(&fleet.stages[1], &["server=web2"]);
        take_out(&fleet.stages[0], &["server=web3", "owner=alice", "reason=new disk"]);
        let nobodys = "web2 is left alone: on lb2, http has web/web2 in maint\"";
        let alices = "web3 is left alone: on lb1, http has web/web3 in maint by alice (new disk)\"";
        let as_before = |ran: &Ran| {
            assert!(ran.out.contains(nobodys) && ran.out.contains(alices), "{version}: {}", ran.out);
            assert_eq!(fleet.log(), "web/web1: STOPPED/MAINT\n".repeat(2), "{version}: the work on others was begun");
            let states = ["web1", "web2", "web3"].map(|server| fleet.states(server));
            assert_eq!(states, [[READY, READY], [READY, MAINT], [MAINT, READY]], "{version}: {}", ran.out);
            fleet.forget();
        };
        // One is among others in its batch, the other one is alone in it.
        let variables = "{rolling_maintenance_guard: false, rolling_maintenance_serial: 2}";
        as_before(&fleet.maintain("web", &tasks, variables, &[]).ended_with(0));

        // Where the load balancers are not in the play.
        fleet.controller.write("group_vars/all.yml", "rolling_maintenance_guard: false\n");
        as_before(&fleet.play("web", &format!("{BACKEND}serial: 1\n"), &tasks, &[]).ended_with(0));
    }
    Ok(())
}

fn a_load_balancer_that_fails_leaves_nothing_half_out(haproxy: &Haproxy) -> TestResult {
    for &version in newest() {
        let mut fleet = Fleet::start(haproxy, version);
        let tasks = noting(&fleet);
        let refused = |fleet: &Fleet, variables: &str, why: &str| {
            let ran = fleet.maintain("web", &tasks, variables, &[]).ended_with(2);
            assert!(ran.out.contains(why), "{version}: {why} is not said: {}", ran.out);
            assert_eq!(fleet.log(), "", "the maintenance was begun: {}", ran.out);
        };

        // Too few others on the second.
        fleet.stages[1].http.set_state("web/web2", "maint");
        fleet.stages[1].http.set_state("web/web3", "maint");
        refused(&fleet, "{}", "web1: nothing was changed; lb2 says: http: ");
        assert_eq!(fleet.states("web1"), [READY, READY], "{version}");

        for server in ["web/web2", "web/web3"] {
            fleet.stages[1].http.set_state(server, "ready");
        }

        refused(&fleet, "{rolling_maintenance_load_balancers: []}", "No load balancer is known");

        // One that cannot be reached from the start.
        let nobody = Port::reserve();
        let gone = format!("ansible_port={}", nobody.number());
        let inventory = fleet.inventory.clone();
        fleet.inventory = inventory.replacen("[web]", &format!("lb3 {gone} ansible_host=127.0.0.1\n\n[web]"), 1);
        refused(&fleet, "{}", "web1: nothing was changed; lb3 cannot be reached");
        fleet.all_ready();
        fleet.inventory = inventory;

        // One on which sessions are left when the time is over.
        fleet.stages[1].server("web1").hold();
        let session = Bound::hold(fleet.stages[1].frontend("web"), fleet.stages[1].server("web1"));
        let drain = "{rolling_maintenance_drain: {timeout: 0.5}}";
        refused(&fleet, drain, "web1: not taken out everywhere, and so put back; lb2 says: http: web/web1 still has 1");
        fleet.all_ready();
        fleet.stages[1].server("web1").release();
        assert_eq!(session.served_by(), "web1");

        // One that answers no more half-way: the other one takes the server back.
        let cut = "- name: Cut\n  ansible.builtin.add_host:\n    name: lb2\n    ansible_port: PORT\n";
        let cut = cut.replace("PORT", &nobody.number().to_string());
        let ran = fleet.maintain("web", &cut, "{}", &[]).ended_with(2);
        assert!(ran.out.contains("web1: not put back everywhere; lb2 cannot be reached"), "{}", ran.out);
        assert_eq!(fleet.states("web1"), [READY, MAINT], "what could be reached is back");
        assert_eq!(fleet.states("web2"), [READY, READY], "{version}: the rollout ended");
        fleet.stages[1].http.set_state("web/web1", "ready");

        // A play that has not all of its hosts at once.
        let ran = fleet.play("web:load_balancers", &format!("{BACKEND}serial: 1\n"), &tasks, &[]).ended_with(2);
        assert!(ran.out.contains("set 'rolling_maintenance_serial'"), "{}", ran.out);
        let ran = fleet.play("web:lb1", BACKEND, &tasks, &[]).ended_with(2);
        assert!(ran.out.contains("lb2: not a host of this play"), "{}", ran.out);
        fleet.all_ready();
    }
    Ok(())
}

/// The play is about the servers alone, and delegates.
fn load_balancers_outside_of_the_play_take_turns(haproxy: &Haproxy) -> TestResult {
    for &version in newest() {
        let fleet = Fleet::start(haproxy, version);
        let tasks = noting(&fleet) + FAILS;
        let one = format!("{BACKEND}serial: 1\n");
        fleet.play("web", &one, &tasks, &["-l", "web1"]).ended_with(0);
        assert_eq!(fleet.log(), "web/web1: STOPPED/MAINT\n".repeat(2));
        fleet.all_ready();

        fleet.forget();
        let ran = fleet.play("web", &one, &tasks, &["-l", "web2,web3"]).ended_with(2);
        assert!(!fleet.log().contains("web3"), "the rollout went on: {}", ran.out);
        assert!(ran.out.contains("the server was left out of service"), "{}", ran.out);
        assert_eq!(fleet.states("web2"), [MAINT, MAINT], "{version}");
        fleet.play("web", &one, "[]", &["-l", "web2"]).ended_with(0);
        fleet.all_ready();

        // All at once: a failure must not keep the others from being put back.
        let back = "rolling_maintenance_guard: false\nrolling_maintenance_put_back_after_failure: true\n";
        fleet.controller.write("group_vars/all.yml", back);
        fleet.forget();
        let keywords = format!("{BACKEND}any_errors_fatal: true\n");
        let ran = fleet.play("web", &keywords, &tasks, &["-l", "web1,web2"]).ended_with(2);
        assert_eq!(fleet.log().matches("STOPPED/MAINT").count(), 4, "not all were out: {}", ran.out);
        assert_eq!(ran.out.matches("failed=0").count(), 1, "more than one has failed: {}", ran.out);
        fleet.all_ready();

        // One that answers no more half-way.
        let nobody = Port::reserve();
        let cut = "- name: Cut\n  ansible.builtin.add_host:\n    name: lb2\n    ansible_port: PORT\n    groups: load_balancers\n";
        let cut = cut.replace("PORT", &nobody.number().to_string());
        let ran = fleet.play("web", &one, &cut, &["-l", "web1"]).ended_with(2);
        assert!(ran.out.contains("lb2 cannot be reached: web1 was not set there"), "{}", ran.out);
        assert_eq!(fleet.states("web1"), [READY, MAINT], "what could be reached is back");
    }
    Ok(())
}
