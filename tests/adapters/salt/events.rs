//! The beacon: events on the master's bus.

use std::time::Duration;

use super::fleet::Fleet;
use super::minion::{Salt, modules};
use crate::support::{Folder, Haproxy, Host, Stage, TestResult, eventually};

pub(super) fn servers_that_go_out_and_come_back_are_events(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let host = Host::with(stage.instances());
    for salt in Salt::newest() {
        let folder = Folder::new();
        let roots = format!("file_roots: {{base: [{}]}}\n", modules().display());
        let fleet = Fleet::start(&salt, &folder, &roots, &[("lb1", &host)]);
        fleet.sh("salt lb1 saltutil.sync_all").ended_with(0);
        let refused = fleet.sh("salt lb1 beacons.add haproxy_server '[{srever: web1}]'").out;
        assert!(refused.contains("'srever' is not an option"), "{refused}");
        let added =
            fleet.sh("salt lb1 beacons.add haproxy_server '[{server: web/*}, {interval: 1}]'").ended_with(0).out;
        assert!(added.contains("result:\n        True"), "{added}");
        let events = || std::fs::read_to_string(folder.join("events")).unwrap_or_default();
        fleet.sh("timeout 100 salt-run state.event 'salt/beacon/lb1/haproxy_server/*' count=3 >events 2>/dev/null &");
        // Nobody can tell when both listen, so that it happens until it is seen.
        let limit = Duration::from_secs(60);
        let mut states = ["maint", "ready"].into_iter().cycle();
        let seen = |what: &str| events().contains(&format!("salt/beacon/lb1/haproxy_server/{what}"));
        eventually(limit, "events", || {
            stage.http.set_state("web/web2", states.next().unwrap());
            std::thread::sleep(Duration::from_millis(2500));
            (seen("out") && seen("back")).then_some(())
        });
        let said = events();
        assert!(said.contains("\"server\": \"web2\"") && said.contains("\"admin_state\": \"maint\""), "{said}");
        stage.http.set_state("web/web2", "ready");
    }
    Ok(())
}
