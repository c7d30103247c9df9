//! Processes of an ordinary user that are called haproxy: they neither hold root up nor hide what root runs.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::alone::alone;
use crate::support::report::{servers, warnings};
use crate::support::{Folder, Haproxy, Test, TestResult, on_newest};

pub(crate) fn tests() -> Vec<Test> {
    on_newest![
        many_arguments_hold_nobody_up,
        many_files_hold_nobody_up,
        many_processes_hold_nobody_up,
        long_command_lines_take_little_memory,
    ]
}

/// The longest that a status of root may take beside them: the limit of a discovery, and what a busy machine adds.
const BOUND: Duration = Duration::from_secs(8);

/// The most memory that it may take beside them, in KiB.
const MEMORY: u64 = 64 << 10;

/// What a status of root was like.
struct Status {
    report: Value,
    elapsed: Duration,
    /// The most memory that was resident, in KiB.
    memory: u64,
}

/// Starts a HAProxy of root, then a script, which starts strangers with `stranger ARGUMENT…`; then runs a status.
///
/// A stranger is a shell called haproxy, of user nobody. It takes its first `-f` for a script, which waits, and leaves
/// all else on its command line alone.
fn status_beside(haproxy: &Haproxy, script: &str) -> Option<Status> {
    let folder = Folder::new();
    let here = folder.path().display();
    folder.write(
        "web.cfg",
        &format!(
            "global\n    stats socket {here}/web.sock level admin\ndefaults\n    timeout connect 1s\n    \
             timeout client 1s\n    timeout server 1s\nbackend b\n    server s1 127.0.0.1:9\n"
        ),
    );
    folder.write("wait", "read -r < <(sleep 100)\n");
    folder.write("trusted.cfg", "global\n");
    folder.write(
        "run",
        "import resource, subprocess, sys, time\n\
        began = time.monotonic()\n\
        subprocess.run(sys.argv[1:], input=b'{\"timeout\": 1}')\n\
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n\
        print(time.monotonic() - began, used, file=open('measured', 'w'))\n",
    );
    let script = format!(
        "cd {here}; chmod 755 .; mkdir theirs; cp /bin/bash theirs/haproxy\n\
         stranger() {{\n\
         (ulimit -s unlimited; exec setpriv --reuid 65534 --regid 65534 --clear-groups theirs/haproxy -f {here}/wait \"$@\") &\n\
         }}\n\
         {binary} -db -f {here}/web.cfg 2>/dev/null &\n\
         {script}\n\
         chown -R 65534 theirs\n\
         for try in $(seq 100); do [ -S web.sock ] && break; sleep 0.05; done\n\
         sleep 1; python3 run \"$@\"; kill $(jobs -p)",
        binary = haproxy.binary.display()
    );
    let report = alone(&script)?.report();
    assert_eq!(servers(&report), ["b/s1"], "what root runs is found: {report}");
    let measured = fs::read_to_string(folder.join("measured")).unwrap();
    let (elapsed, memory) = measured.trim().split_once(' ').unwrap();
    Some(Status { report, elapsed: Duration::from_secs_f64(elapsed.parse().unwrap()), memory: memory.parse().unwrap() })
}

impl Status {
    /// Asserts that it was bounded, and that it says what it has left out.
    fn check(&self, left_out: &str) {
        assert!(self.elapsed < BOUND, "{:?}", self.elapsed);
        assert!(self.memory < MEMORY, "{} KiB", self.memory);
        assert!(warnings(&self.report).contains(left_out), "{left_out}: {}", self.report);
    }
}

fn many_arguments_hold_nobody_up(haproxy: &Haproxy) -> TestResult {
    let script = "mkdir theirs/f $(seq -f theirs/f/%g.cfg 2000)\n\
                  stranger $(yes -- \"-f $PWD/theirs/f\" | head -20000)";
    if let Some(status) = status_beside(haproxy, script) {
        status.check("called haproxy, was not examined");
    }
    // Few enough to be read.
    let script = "mkdir theirs/f $(seq -f theirs/f/%g.cfg 2000)\n\
                  for i in 1 2 3; do stranger $(yes -- \"-f $PWD/theirs/f\" | head -900); done";
    if let Some(status) = status_beside(haproxy, script) {
        status.check("belongs to user id 65534");
    }
    Ok(())
}

fn many_files_hold_nobody_up(haproxy: &Haproxy) -> TestResult {
    // They are root's, so that only reading them tells that they do not name the user.
    let script = "mkdir ours; yes '# x' | head -c 1000000 > ours/a.cfg; python3 -c \"import os; [os.link('ours/a.cfg', f'ours/{i}.cfg') for i in range(500)]\"\n\
                  for i in $(seq 30); do stranger -f $PWD/ours; done";
    if let Some(status) = status_beside(haproxy, script) {
        // Up to one limit or the other.
        status.check("were not examined, because");
    }
    let script = "mkdir ours; touch $(seq -f ours/%g.cfg 2000); stranger -f $PWD/ours";
    if let Some(status) = status_beside(haproxy, script) {
        status.check("more than 1000 configuration files");
    }
    Ok(())
}

fn many_processes_hold_nobody_up(haproxy: &Haproxy) -> TestResult {
    // They name what root has, and would have it asked once for each of them.
    if let Some(status) = status_beside(haproxy, "for i in $(seq 60); do stranger -f $PWD/web.cfg; done") {
        status.check("another process has its stats socket");
        let instances = status.report["instances"].as_array().unwrap();
        assert_eq!((instances.len(), &instances[0]["name"]), (1, &"web".into()), "{}", status.report);
    }
    if let Some(status) = status_beside(haproxy, "for i in $(seq 300); do stranger -f /etc/hostname; done") {
        status.check("were not examined, because more than 64");
    }
    Ok(())
}

fn long_command_lines_take_little_memory(haproxy: &Haproxy) -> TestResult {
    let script = "words=$(yes a | head -150000); for i in $(seq 12); do stranger -- $words; done; sleep 3";
    if let Some(status) = status_beside(haproxy, script) {
        status.check("a command line has more than 256 KiB");
    }
    let script = "words=$(yes a | head -100000); for i in $(seq 20); do stranger -- $words; done; sleep 3";
    if let Some(status) = status_beside(haproxy, script) {
        status.check("name more than 1000 configuration files");
    }
    Ok(())
}
