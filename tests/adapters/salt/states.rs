//! The states.

use serde_json::json;

use super::minion::{Minion, Salt, comment};
use super::{DRAIN, MAINT, READY};
use crate::support::{Bound, Haproxy, Host, Stage, TestResult};

const STATES: &str = r"
web1:
  haproxy_server.maint:
    - owner: alice
    - reason: new disk
    - expires: 2100-01-31T18:00:00Z
    - shutdown_sessions: off
    - diff: yes
    - state_file:
        http: STATE_FILE
two of puppet:
  haproxy_server.drain:
    - server:
      - puppet-i0-svc1
      - i10_puppet_masters/puppet-i0-svc2
    - backend: i10_puppet_masters
half of ldap1:
  haproxy_server.apply:
    - server: ldap1
    - admin_state: ready
    - weight: 50%
    - timeout: 5
checks of ldap2:
  haproxy_server.apply:
    - server: ldap2
    - health: disabled
nobody:
  haproxy_server.maint:
    - on_missing: ignore
ldap3 is fine:
  haproxy_server.status:
    - name: ldap3
put back:
  haproxy_server.ready:
    - server: web2
out of balance:
  haproxy_server.ready:
    - server: web3
";

pub(super) fn states_do_what_they_say(haproxy: &Haproxy) -> TestResult {
    for salt in Salt::versions() {
        let stage = Stage::start_with(haproxy, "check inter 200ms weight 10", |setup| setup);
        for ldap in ["ldap1", "ldap2", "ldap3"] {
            stage.ldap.await_state("directory", ldap, READY);
        }
        stage.http.set_state("web/web2", "maint");
        stage.http.set("set server web/web3 weight 0");
        let minion = Minion::new(&salt, &Host::with(stage.instances()));
        let state_file = stage.folder.join("http.state").display().to_string();
        minion.states(&STATES.replace("STATE_FILE", &state_file));

        let dry = minion.apply(&["test=True"], 0);
        assert_eq!(stage.http.state("web", "web1"), READY, "test mode has changed something");
        assert_eq!(stage.http.state("web", "web2").0, MAINT.0, "test mode has changed something");
        let real = minion.apply(&[], 0);
        let again = minion.apply(&[], 0);

        let moved = |old: [&str; 2], new: [&str; 2]| {
            let part =
                |[admin, operational]: [&str; 2]| json!({"admin_state": admin, "operational_state": operational});
            json!({"old": part(old), "new": part(new)})
        };
        let out = moved(["ready", "running"], ["maint", "stopped"]);
        let drained = json!({"old": {"admin_state": "ready"}, "new": {"admin_state": "drain"}});
        let expected = [
            (
                "web1",
                json!({
                    "web/web1 on http": out,
                    state_file.as_str(): "updated",
                    "diff": "--- \n+++ \n@@ -1 +1 @@\n-http web/web1 ready weight 10\n+http web/web1 maint weight 10\n"
                }),
            ),
            (
                "two of puppet",
                json!({
                    "i10_puppet_masters/puppet-i0-svc1 on puppet": drained,
                    "i10_puppet_masters/puppet-i0-svc2 on puppet": drained
                }),
            ),
            ("half of ldap1", json!({"directory/ldap1 on ldap": {"old": {"weight": 10}, "new": {"weight": 5}}})),
            (
                "checks of ldap2",
                json!({"directory/ldap2 on ldap": {"old": {"health": "enabled"}, "new": {"health": "disabled"}}}),
            ),
            ("nobody", json!({})),
            ("ldap3 is fine", json!({})),
        ];
        for (id, changes) in &expected {
            let would = if *changes == json!({}) { json!(true) } else { json!(null) };
            let (dry, real, again) = (dry.of(id), real.of(id), again.of(id));
            assert_eq!((&dry["result"], &dry["changes"]), (&would, changes), "{dry}");
            assert_eq!((&real["result"], &real["changes"]), (&json!(true), changes), "{real}");
            assert_eq!((&again["result"], &again["changes"]), (&json!(true), &json!({})), "{again}");
        }
        assert_eq!(comment(real.of("web1")), "web1: maint in 1 of 1 backend on 1 of 3 instances; state file written");
        assert!(comment(again.of("web1")).starts_with("web1: already maint in 1 of 1 backend"), "{again:?}");
        assert_eq!(comment(real.of("nobody")), "nobody: nothing matches on 3 instances");
        assert!(real.of("out of balance")["warnings"].to_string().contains("the weight is 0"), "{real:?}");
        assert_eq!(real.of("put back")["result"], true);

        assert_eq!(stage.http.state("web", "web1"), MAINT);
        assert_eq!(stage.http.state("web", "web2").0, READY.0);
        assert_eq!(stage.puppet.state("i10_puppet_masters", "puppet-i0-svc2"), DRAIN);
        assert_eq!(stage.puppet.state("i20_puppet_masters", "puppet-i0-svc1").0, READY.0);
        assert_eq!(stage.ldap.stat("directory", "ldap1", "weight"), "5");
    }
    Ok(())
}

const FAILING: &str = r"
wbe1:
  haproxy_server.maint
web2:
  haproxy_server.apply:
    - state: maint
web3:
  haproxy_server.maint:
    - onmissing: ignore
infinite:
  haproxy_server.apply:
    - server: web1
    - weight: .inf
status of all:
  haproxy_server.status:
    - server: [web3, ldap1]
watches wrongly:
  haproxy_server.ready:
    - server: web2
    - state: drain
    - weight: {}
half:
  haproxy_server.maint:
    - server: web[13]
    - drain:
        timeout: 0.3
";

pub(super) fn states_fail_with_one_sentence(haproxy: &Haproxy) -> TestResult {
    for salt in Salt::newest() {
        let stage = Stage::start(haproxy);
        let client = Bound::hold(stage.frontend("web"), stage.server("web3"));
        stage.ldap.set_state("directory/ldap1", "maint");
        let minion = Minion::new(&salt, &Host::with(stage.instances()));
        minion.states(FAILING);
        let failed = minion.apply(&[], 1);
        for (id, sentence) in [
            ("wbe1", "no selected instance has a server 'wbe1' (did you mean 'web1'?)"),
            ("web2", "nothing is asked for: give 'admin_state' (Salt drops 'state')"),
            ("web3", "unknown field 'onmissing'; did you mean 'on_missing'?"),
            ("infinite", "JSON"),
            ("status of all", "directory/ldap1 on ldap: stopped, maint"),
            ("watches wrongly", "'weight'"),
            ("half", "web/web3 still has 1 session after 0.3 s of drain"),
        ] {
            let result = failed.of(id);
            assert_eq!(result["result"], false, "{result}");
            assert!(comment(result).contains(sentence), "{id} says {:?}", comment(result));
            assert!(!comment(result).contains("Traceback"), "{}", comment(result));
        }
        let changes = failed.of("half")["changes"].as_object().unwrap();
        let states: Vec<_> =
            changes.iter().map(|(place, change)| (place.as_str(), &change["new"]["admin_state"])).collect();
        let (maint, drain) = (json!("maint"), json!("drain"));
        assert_eq!(states, [("web/web1 on http", &maint), ("web/web3 on http", &drain)]);
        assert_eq!((stage.http.state("web", "web1"), stage.http.state("web", "web3")), (MAINT, DRAIN));
        assert_eq!(failed.all().filter(|result| result["result"] == true).count(), 0);
        stage.server("web3").release();
        assert_eq!(client.served_by(), "web3");

        // A state before it may be the one that installs the program.
        minion.states("web1:\n  haproxy_server.maint\n");
        let nowhere = "pillar={haproxy_server: {executable: /nowhere/haproxy_server}}";
        for (words, code, expected) in [(&[nowhere][..], 1, json!(false)), (&[nowhere, "test=True"], 0, json!(null))] {
            let results = minion.apply(words, code);
            let result = results.of("web1");
            assert_eq!((&result["result"], &result["changes"]), (&expected, &json!({})), "{result}");
            assert!(comment(result).contains("'/nowhere/haproxy_server' is not on this minion"), "{result}");
        }
    }
    Ok(())
}

/// The `watch` of a service that restarts is in the page.
const WATCHING: &str = r"
web1:
  haproxy_server.maint:
    - listen:
      - cmd: somebody else
somebody else:
  cmd.run:
    - name: haproxy_server server=web1 state=ready
    - require:
      - haproxy_server: web1
web2:
  haproxy_server.maint:
    - watch:
      - test: changes
changes:
  test.succeed_with_changes
by command:
  cmd.run:
    - name: haproxy_server server=web3 state=drain
    - stateful:
      - test_name: haproxy_server --dry-run server=web3 state=drain
";

pub(super) fn watching_states_set_again(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let host = Host::with(stage.instances());
    for salt in Salt::newest() {
        for server in ["web1", "web2", "web3"] {
            stage.http.set_state(&format!("web/{server}"), "ready");
        }
        stage.http.set_state("web/web2", "maint");
        let minion = Minion::new(&salt, &host);
        minion.states(WATCHING);

        let dry = minion.apply(&["test=True"], 0);
        let result = dry.of("web2");
        assert_eq!((&result["result"], &result["changes"]), (&json!(null), &json!({})), "{result}");
        assert!(
            comment(result).ends_with("it would be compared again after the change of what it watches"),
            "{result}"
        );
        assert_eq!(dry.of("by command")["result"], json!(null), "{}", dry.of("by command"));

        let real = minion.apply(&[], 0);
        let result = real.of("web2");
        assert_eq!((&result["result"], &result["changes"]), (&json!(true), &json!({})), "{result}");
        assert_eq!(real.of("by command")["result"], true);
        assert!(comment(real.of("by command")).contains("web3: drain in 1 of 1 backend"), "{}", real.of("by command"));
        assert_eq!(stage.http.state("web", "web3"), DRAIN);
        let listened = real.all().find(|result| result["__id__"].as_str().unwrap().starts_with("listener_"));
        let listened = listened.expect("the state that listens to run again");
        assert!(listened["changes"]["web/web1 on http"].is_object(), "{listened}");
        assert_eq!(stage.http.state("web", "web1"), MAINT, "what was put back meanwhile is not out again");
    }
    Ok(())
}
