//! Who has taken a server out, why and until when; and who may put it back.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::support::program::copy_program;
use crate::support::report::{commands, kind, server, warnings};
use crate::support::{
    Answer, Bound, Dns, Folder, Haproxy, HttpBackend, Instance, Mode, PATIENCE, Port, Program, Recorder, Setup, Stage,
    Test, TestResult, eventually, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        only_its_owner_puts_a_server_back,
        a_periodic_ready_does_not_put_back_what_a_person_took_out,
        a_status_shows_who_why_and_until_when,
        what_has_expired_may_be_put_back_and_is_flagged,
        a_record_counts_only_while_the_server_is_out,
        a_record_that_is_over_is_not_revived,
        a_reload_forgets_the_owner_with_the_state,
        an_owner_counts_on_his_own_instance_only,
        a_server_left_in_drain_has_an_owner_as_well,
        a_drain_under_way_has_its_owner,
        every_step_towards_service_minds_the_owner,
        a_periodic_run_may_leave_owned_servers_alone,
        the_text_form_names_the_owner,
        another_server_of_the_name_has_no_owner,
        a_server_that_has_moved_is_put_back_with_a_warning,
        a_server_is_restored_to_what_it_was,
        what_was_out_before_is_restored_to_be_out,
        restoring_minds_the_owner_and_waits,
        a_dry_run_records_nothing_but_minds_the_owner,
        a_lost_or_damaged_file_is_a_warning,
    ]
}

fn start(haproxy: &Haproxy) -> Instance {
    Setup::new(
        "owned",
        "backend app\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n    server s3 127.0.0.1:9\n",
    )
    .start(haproxy)
}

/// A request for a server, with more fields.
fn request(server: &str, state: &str, at: &str, more: Value) -> Value {
    let mut request = json!({ "server": server, "state": state, "instances": at });
    for (field, value) in more.as_object().unwrap() {
        request[field] = value.clone();
    }
    request
}

fn report(server: &str, state: &str, at: &str, more: Value) -> Value {
    Program::request(&request(server, state, at, more)).report()
}

fn status(at: &str) -> Value {
    Program::request(&json!({ "instances": at })).report()
}

fn only_its_owner_puts_a_server_back(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let at = instance.address();
    for state in ["maint", "drain"] {
        let claim = json!({ "owner": "alice", "reason": "disk replacement", "expires": "+2h" });
        assert_eq!(report("s1", state, &at, claim)["changed"], true);
        for other in [json!({}), json!({ "owner": "bob" }), json!({ "owner": "Alice" })] {
            let recorder = Recorder::on(&instance);
            let refused = report("app/s*", "ready", &recorder.address(), other.clone());
            assert_eq!((kind(&refused), &refused["changed"]), ("owned", &json!(false)), "{other}: {refused}");
            assert_eq!(recorder.changing_commands(), [""; 0], "the others are not set either");
            let entry = server(&refused, "app/s1");
            let msg = entry["error"]["msg"].as_str().unwrap();
            assert!(msg.contains("app/s1 was taken out by alice (disk replacement) until 20"), "{msg}");
            assert!(msg.contains("'ignore_owner'"), "what lifts it: {msg}");
            assert_eq!((kind(server(&refused, "app/s2")), &refused["error"]["retryable"]), ("", &json!(false)));
        }
        let done = report("s1", "ready", &at, json!({ "owner": "alice" }));
        assert_eq!((kind(&done), &done["changed"]), ("", &json!(true)), "{state}: {done}");
        // It is forgotten with that.
        instance.set_state("app/s1", state);
        assert_eq!(report("s1", "ready", &at, json!({}))["changed"], true);

        assert_eq!(report("s1", state, &at, json!({ "owner": "alice" }))["changed"], true);
        let done = report("s1", "ready", &at, json!({ "owner": "bob", "ignore_owner": true }));
        assert_eq!((kind(&done), &done["changed"]), ("", &json!(true)), "{state}: {done}");
    }
    Ok(())
}

fn a_periodic_ready_does_not_put_back_what_a_person_took_out(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let at = instance.address();
    assert_eq!(report("s1", "maint", &at, json!({ "owner": "alice" }))["changed"], true);
    for _ in 0..3 {
        let periodic = report("s1", "ready", &at, json!({ "owner": "puppet" }));
        assert_eq!(kind(&periodic), "owned", "{periodic}");
        assert_eq!(instance.state("app", "s1"), (1, 0));
    }
    // Nobody takes a server from its owner by taking it out once more.
    let again = report("s1", "maint", &at, json!({ "owner": "puppet" }));
    assert_eq!((kind(&again), &again["changed"]), ("", &json!(false)), "{again}");
    assert!(warnings(&again).contains("app/s1 stays recorded for alice"), "{again}");
    assert_eq!(kind(&report("s1", "ready", &at, json!({ "owner": "puppet" }))), "owned");
    // Nor by doing so without a name, nor by changing something else.
    assert_eq!(kind(&report("s1", "maint", &at, json!({ "reason": "no owner" }))), "");
    // Nor by taking it out in another way; from maint to drain is a step towards service.
    assert_eq!(kind(&report("s1", "drain", &at, json!({ "owner": "puppet" }))), "owned");
    assert_eq!(kind(&report("s1", "drain", &at, json!({ "owner": "alice" }))), "");
    for state in ["drain", "maint"] {
        let again = report("s1", state, &at, json!({ "owner": "puppet" }));
        assert!(warnings(&again).contains("app/s1 stays recorded for alice"), "{state}: {again}");
    }
    let weight = Program::request(&json!({ "server": "s1", "weight": 5, "instances": at })).report();
    assert_eq!(kind(&weight), "");
    assert_eq!(kind(&report("s1", "ready", &at, json!({ "owner": "puppet" }))), "owned");
    assert_eq!(server(&status(&at), "app/s1")["owner"], "alice");
    Ok(())
}

fn a_status_shows_who_why_and_until_when(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let at = instance.address();
    let claim =
        json!({ "owner": "alice", "reason": "a \u{201e}disk\u{201c}; x", "expires": "2099-12-31T23:00:00+01:00" });
    assert_eq!(kind(&report("s1", "maint", &at, claim)), "");
    assert_eq!(kind(&report("s2", "drain", &at, json!({ "reason": "no name" }))), "");
    let seen = status(&at);
    let entry = server(&seen, "app/s1");
    assert_eq!((&entry["owner"], &entry["reason"]), (&json!("alice"), &json!("a \u{201e}disk\u{201c}; x")));
    assert_eq!((&entry["expires"], &entry["expired"]), (&json!("2099-12-31T22:00:00Z"), &json!(false)));
    let entry = server(&seen, "app/s2");
    assert_eq!((entry.get("owner"), &entry["reason"]), (None, &json!("no name")));
    assert!(entry.get("expires").is_none() && entry.get("expired").is_none(), "{entry}");
    assert!(server(&seen, "app/s3").get("owner").is_none());
    // A reason without an owner keeps nobody from putting it back.
    assert_eq!(kind(&report("s2", "ready", &at, json!({}))), "");
    Ok(())
}

fn what_has_expired_may_be_put_back_and_is_flagged(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let at = instance.address();
    let claim = json!({ "owner": "alice", "reason": "short", "expires": "+1s" });
    assert_eq!(kind(&report("s1", "maint", &at, claim)), "");
    thread::sleep(Duration::from_millis(2_100));
    let seen = status(&at);
    let entry = server(&seen, "app/s1");
    assert_eq!((&entry["owner"], &entry["expired"]), (&json!("alice"), &json!(true)), "{entry}");
    let done = report("s1", "ready", &at, json!({ "owner": "bob" }));
    assert_eq!((kind(&done), &done["changed"]), ("", &json!(true)), "{done}");
    // What has expired may also be taken over.
    assert_eq!(kind(&report("s1", "maint", &at, json!({ "owner": "alice", "expires": "+1s" }))), "");
    thread::sleep(Duration::from_millis(2_100));
    let over = report("s1", "maint", &at, json!({ "owner": "bob" }));
    assert_eq!(warnings(&over), "", "{over}");
    assert_eq!(server(&status(&at), "app/s1")["owner"], "bob");
    Ok(())
}

fn a_record_counts_only_while_the_server_is_out(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let at = instance.address();
    assert_eq!(kind(&report("s1", "maint", &at, json!({ "owner": "alice" }))), "");
    // Somebody puts it back by other means, and takes it out again, in another state.
    instance.set_state("app/s1", "ready");
    assert!(server(&status(&at), "app/s1").get("owner").is_none());
    assert_eq!(kind(&report("s1", "ready", &at, json!({}))), "", "what is ready already is nobody's");
    instance.set_state("app/s1", "drain");
    assert!(server(&status(&at), "app/s1").get("owner").is_none());
    assert_eq!(kind(&report("s1", "ready", &at, json!({}))), "");
    Ok(())
}

fn a_record_that_is_over_is_not_revived(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let at = instance.address();
    let cases = [("app/s1", json!({ "owner": "bob" }), json!("bob")), ("app/s2", json!({}), Value::Null)];
    for (name, next, expected) in cases {
        for state in ["drain", "maint"] {
            report(name, state, &at, json!({ "owner": "alice" }));
            // Somebody else puts it back, and it is taken out in the same way again.
            instance.set_state(name, "ready");
            let taken = report(name, state, &at, next.clone());
            assert!(!warnings(&taken).contains("alice"), "{taken}");
            assert_eq!(server(&status(&at), name)["owner"], expected, "{name} in {state}");
            instance.set_state(name, "ready");
        }
    }
    Ok(())
}

fn a_reload_forgets_the_owner_with_the_state(haproxy: &Haproxy) -> TestResult {
    let mut instance = Setup::new("owned", "backend app\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n")
        .mode(Mode::MasterWorker)
        .start(haproxy);
    let at = instance.address();
    assert_eq!(kind(&report("s1", "maint", &at, json!({ "owner": "alice" }))), "");
    instance.reload();
    assert_eq!(instance.state("app", "s1"), (0, 2));
    assert!(server(&status(&at), "app/s1").get("owner").is_none());
    // Whoever takes it out then is not alice.
    instance.set_state("app/s1", "maint");
    assert!(server(&status(&at), "app/s1").get("owner").is_none());
    assert_eq!(kind(&report("s1", "ready", &at, json!({ "owner": "bob" }))), "");
    Ok(())
}

fn an_owner_counts_on_his_own_instance_only(haproxy: &Haproxy) -> TestResult {
    let (one, other) = (start(haproxy), start(haproxy));
    assert_eq!(kind(&report("s1", "maint", &one.address(), json!({ "owner": "alice" }))), "");
    other.set_state("app/s1", "maint");
    assert_eq!(kind(&report("s1", "ready", &other.address(), json!({}))), "");
    assert_eq!(kind(&report("s1", "ready", &one.address(), json!({}))), "owned");
    // Another socket of the same process is the same instance.
    let recorder = Recorder::on(&one);
    assert_eq!(kind(&report("s1", "ready", &recorder.address(), json!({}))), "owned");
    Ok(())
}

fn a_server_left_in_drain_has_an_owner_as_well(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let at = stage.http.address();
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let claim = json!({ "owner": "alice", "drain": { "timeout": 0.2 } });
    let late = report("web1", "maint", &at, claim);
    assert_eq!((kind(&late), stage.http.state("web", "web1")), ("not_drained", (8, 2)), "{late}");
    // Alice will come again when the session has ended; until then nobody puts it back.
    let periodic = report("web1", "ready", &at, json!({ "owner": "puppet" }));
    assert_eq!(kind(&periodic), "owned", "{periodic}");
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    let done = report("web1", "maint", &at, json!({ "owner": "alice", "drain": { "timeout": 10 } }));
    assert_eq!((kind(&done), stage.http.state("web", "web1")), ("", (1, 0)), "{done}");
    assert_eq!(kind(&report("web1", "ready", &at, json!({ "owner": "puppet" }))), "owned");
    // What was rolled back is nobody's.
    assert_eq!(kind(&report("web1", "ready", &at, json!({ "owner": "alice" }))), "");
    stage.server("web1").hold();
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let claim = json!({ "owner": "alice", "drain": { "timeout": 0.2, "on_timeout": "rollback" } });
    assert_eq!(kind(&report("web1", "maint", &at, claim)), "not_drained");
    stage.http.set_state("web/web1", "drain");
    assert_eq!(kind(&report("web1", "ready", &at, json!({}))), "");
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    Ok(())
}

fn another_server_of_the_name_has_no_owner(haproxy: &Haproxy) -> TestResult {
    if !haproxy.at_least(2, 6) {
        return Ok(());
    }
    let instance = start(haproxy);
    let at = instance.address();
    let create = |server: &str, address: &str| {
        let reply = instance.raw(&format!("add server app/{server} {address}"));
        assert!(reply.contains("New server registered"), "{reply:?}");
    };
    let delete = |server: &str| {
        let reply = instance.raw(&format!("del server app/{server}"));
        assert!(reply.contains("deleted"), "{reply:?}");
    };
    // One of another number.
    assert_eq!(report("s1", "maint", &at, json!({ "owner": "alice" }))["changed"], true);
    delete("s1");
    create("s4", "127.0.0.4:9");
    create("s1", "127.0.0.1:9");
    assert_eq!(instance.state("app", "s1"), (1, 0), "a new one begins in maintenance, as it was recorded");
    assert!(server(&status(&at), "app/s1").get("owner").is_none());
    let ready = report("s1", "ready", &at, json!({ "owner": "bob" }));
    assert_eq!((kind(&ready), &ready["changed"], warnings(&ready).contains("address")), ("", &json!(true), false));
    // One of the same number.
    assert_eq!(report("s2", "maint", &at, json!({ "owner": "alice" }))["changed"], true);
    let number = instance.stat("app", "s2", "sid");
    delete("s2");
    create("s2", "127.0.0.2:9");
    assert_eq!(instance.stat("app", "s2", "sid"), number);
    let ready = report("s2", "ready", &at, json!({ "owner": "bob" }));
    if haproxy.at_least(2, 8) {
        assert_eq!((kind(&ready), warnings(&ready).contains("address")), ("", false), "{ready}");
        return Ok(());
    }
    // Older ones do not tell it from the former, so that its owner is minded, and the address is all that shows.
    assert_eq!(kind(&ready), "owned", "{ready}");
    let ready = report("s2", "ready", &at, json!({ "owner": "alice" }));
    assert!(
        warnings(&ready).contains("127.0.0.1:9 when it was taken out by alice, and has 127.0.0.2:9 now"),
        "{ready}"
    );
    Ok(())
}

fn a_server_that_has_moved_is_put_back_with_a_warning(haproxy: &Haproxy) -> TestResult {
    let dns = Dns::start();
    let at_host = |host: u8| Answer::Addresses(vec![Ipv4Addr::new(127, 0, 0, host)]);
    dns.answer("slot.test", at_host(5));
    let proxies = format!(
        "{}\nbackend app\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n    \
         server-template slot 1 slot.test:9 check inter 100ms resolvers r init-addr none resolve-prefer ipv4\n",
        dns.resolvers("r")
    );
    let instance = Setup::new("moved", &proxies).start(haproxy);
    let at = instance.address();
    let slot = || server(&status(&at), "app/slot1")["address"].as_str().unwrap().to_owned();
    eventually(PATIENCE, "the name to resolve", || (slot() == "127.0.0.5:9").then_some(()));
    assert_eq!(report("app/*", "maint", &at, json!({ "owner": "alice" }))["changed"], true);
    instance.raw("set server app/s1 addr 127.0.0.9 port 99");
    dns.answer("slot.test", at_host(6));
    eventually(PATIENCE, "another machine in the slot", || (slot() == "127.0.0.6:9").then_some(()));
    // It is still the same record.
    assert_eq!(kind(&report("app/*", "ready", &at, json!({ "owner": "bob" }))), "owned");
    // Taking it out again does not make the new machine the one that is meant.
    assert_eq!(kind(&report("app/*", "maint", &at, json!({ "owner": "bob" }))), "");
    for dry_run in [true, false] {
        let ready = report("app/*", "ready", &at, json!({ "owner": "alice", "dry_run": dry_run }));
        assert_eq!((kind(&ready), &ready["changed"]), ("", &json!(true)), "{ready}");
        for moved in [
            "app/s1 had the address 127.0.0.1:9 when it was taken out by alice, and has 127.0.0.9:99 now",
            "app/slot1 had the address 127.0.0.5:9 when it was taken out by alice, and has 127.0.0.6:9 now",
        ] {
            assert!(warnings(&ready).contains(moved), "{moved}: {ready}");
        }
        assert!(!warnings(&ready).contains("app/s2 had"), "{ready}");
    }
    Ok(())
}

fn weight(instance: &Instance, server: &str) -> String {
    instance.stat("app", server, "weight")
}

fn a_server_is_restored_to_what_it_was(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let at = instance.address();
    instance.raw("set server app/s1 weight 0%");
    assert_eq!(report("s1", "drain", &at, json!({ "owner": "alice" }))["changed"], true);
    instance.raw("set server app/s1 weight 1");
    // The first one who has taken it out counts, in whatever way and by whomever it is done again.
    assert_eq!(report("s1", "maint", &at, json!({ "owner": "alice" }))["changed"], true);
    for again in
        [json!({ "owner": "alice", "reason": "still" }), json!({ "owner": "bob" }), json!({ "reason": "more" })]
    {
        assert_eq!(kind(&report("s1", "maint", &at, again)), "");
    }
    // What nobody has recorded is left alone.
    instance.set_state("app/s2", "maint");
    assert_eq!(kind(&report("s3", "maint", &at, json!({}))), "");
    let recorder = Recorder::on(&instance);
    let restore =
        |dry_run: bool| report("*", "restore", &recorder.address(), json!({ "owner": "alice", "dry_run": dry_run }));
    let foreseen = restore(true);
    assert_eq!((kind(&foreseen), recorder.changing_commands()), ("", vec![]), "{foreseen}");
    let restored = restore(false);
    assert_eq!((kind(&restored), &restored["state"]), ("", &json!("restore")), "{restored}");
    assert_eq!(restored["msg"], "*: restored for 1 of 3 servers on 1 of 1 instance");
    assert!(warnings(&restored).contains("app/s2, app/s3: left alone: nothing is recorded"), "{restored}");
    let sent = commands(&restored);
    assert_eq!((&sent, &recorder.changing_commands()), (&commands(&foreseen), &sent));
    assert_eq!(sent, ["set server app/s1 weight 0", "set server app/s1 state ready"]);
    assert_eq!((instance.state("app", "s1"), weight(&instance, "s1")), ((0, 2), "0".to_owned()));
    assert_eq!((instance.state("app", "s2"), instance.state("app", "s3")), ((1, 0), (1, 0)));
    // The record goes with that, so that a second run has nothing to do.
    let again = restore(false);
    assert_eq!((kind(&again), &again["changed"]), ("", &json!(false)), "{again}");
    assert!(warnings(&again).contains("app/s1, app/s2, app/s3: left alone"), "{again}");
    let refused = report("s1", "restore", &at, json!({ "weight": 5 }));
    assert_eq!(kind(&refused), "bad_request", "{refused}");
    Ok(())
}

fn what_was_out_before_is_restored_to_be_out(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let at = instance.address();
    instance.set_state("app/s1", "drain");
    instance.set_state("app/s2", "maint");
    assert_eq!(report("*", "maint", &at, json!({ "owner": "alice" }))["changed"], true);
    // Nothing is waited for that does not come back.
    let restored = report("*", "restore", &at, json!({ "owner": "alice", "wait": { "timeout": 5 } }));
    assert_eq!((kind(&restored), &restored["changed"]), ("", &json!(true)), "{restored}");
    assert_eq!(["s1", "s2", "s3"].map(|server| instance.state("app", server).0), [8, 1, 0], "{restored}");
    assert!(server(&status(&at), "app/s2").get("owner").is_none(), "it is over for all");
    Ok(())
}

fn restoring_minds_the_owner_and_waits(haproxy: &Haproxy) -> TestResult {
    let good = HttpBackend::start("good");
    let proxies = format!(
        "backend app\n    option httpchk GET /health\n    server s1 {} check inter 100ms rise 1 fall 2 weight 7\n    server s2 127.0.0.1:9\n",
        good.address()
    );
    let instance = Setup::new("restored", &proxies).start(haproxy);
    let at = instance.address();
    assert_eq!(report("s1", "maint", &at, json!({ "owner": "alice" }))["changed"], true);
    let refused = report("s1", "restore", &at, json!({ "owner": "bob" }));
    assert_eq!((kind(&refused), instance.state("app", "s1").0), ("owned", 1), "{refused}");
    let skipped = report("s1", "restore", &at, json!({ "owner": "bob", "on_owned": "skip" }));
    assert_eq!((kind(&skipped), &skipped["changed"]), ("", &json!(false)), "{skipped}");
    instance.raw("set server app/s1 weight 3");
    let asked = json!({ "owner": "bob", "ignore_owner": true, "wait": { "timeout": 20 } });
    let restored = report("s1", "restore", &at, asked);
    assert_eq!((kind(&restored), &restored["changed"]), ("", &json!(true)), "{restored}");
    assert!(commands(&restored).contains(&"set server app/s1 state drain".to_owned()), "through drain: {restored}");
    assert_eq!((instance.state("app", "s1"), weight(&instance, "s1")), ((0, 2), "7".to_owned()));
    Ok(())
}

fn a_dry_run_records_nothing_but_minds_the_owner(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let at = instance.address();
    let dry = json!({ "owner": "alice", "dry_run": true });
    assert_eq!(report("s1", "maint", &at, dry)["changed"], true);
    instance.set_state("app/s1", "maint");
    assert!(server(&status(&at), "app/s1").get("owner").is_none());
    assert_eq!(kind(&report("s2", "maint", &at, json!({ "owner": "alice" }))), "");
    let refused = report("s2", "ready", &at, json!({ "dry_run": true }));
    assert_eq!((kind(&refused), &refused["dry_run"]), ("owned", &json!(true)), "{refused}");
    Ok(())
}

/// A user without any rights of its own.
const NOBODY: u32 = 65_534;

/// Runs of an ordinary user with a folder of its own, so that damaging it disturbs nobody.
struct Ordinary {
    _folder: Folder,
    binary: PathBuf,
    runtime: PathBuf,
    address: String,
    _instance: Instance,
}

impl Ordinary {
    fn start(haproxy: &Haproxy) -> std::io::Result<Self> {
        let port = Port::reserve();
        let address = format!("ipv4@127.0.0.1:{}", port.number());
        let proxies = "backend app\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n";
        let instance = Setup::new("owned", proxies).stats_socket(&format!("{address} level admin")).start(haproxy);
        let folder = Folder::new();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let binary = folder.join("haproxy_server");
        copy_program(&binary);
        let runtime = folder.join("runtime");
        fs::create_dir(&runtime)?;
        chown(&runtime, Some(NOBODY), Some(NOBODY))?;
        Ok(Self { _folder: folder, binary, runtime, address, _instance: instance })
    }

    fn report(&self, request: &Value) -> Value {
        Program::request(request)
            .binary(&self.binary)
            .env("XDG_RUNTIME_DIR", &self.runtime)
            .under(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
            .run()
            .report()
    }

    fn set(&self, state: &str, owner: &str) -> Value {
        self.report(&request("s1", state, &self.address, json!({ "owner": owner })))
    }
}

fn a_lost_or_damaged_file_is_a_warning(haproxy: &Haproxy) -> TestResult {
    if !geteuid().is_root() {
        eprintln!("not run: only root can run the program as somebody else");
        return Ok(());
    }
    let user = Ordinary::start(haproxy)?;
    assert_eq!(kind(&user.set("maint", "alice")), "");
    assert_eq!(kind(&user.set("ready", "bob")), "owned");
    let file = user.runtime.join("haproxy_server/owners.json");
    let whole = fs::read(&file)?;
    for damage in [&whole[..whole.len() / 2], b"", b"[]", b"{\"version\":99,\"records\":[]}", b"\xff\xfe\0"] {
        fs::write(&file, damage)?;
        let seen = user.report(&json!({ "instances": user.address }));
        assert_eq!((kind(&seen), &seen["failed"]), ("", &json!(false)), "{seen}");
        assert!(warnings(&seen).contains("owners.json"), "{}: {seen}", String::from_utf8_lossy(damage));
        assert!(server(&seen, "app/s1").get("owner").is_none());
        let again = user.set("maint", "carol");
        assert_eq!(kind(&again), "", "{again}");
        assert!(warnings(&again).contains("owners.json"), "{again}");
        let seen = user.report(&json!({ "instances": user.address }));
        assert_eq!((warnings(&seen).as_str(), &server(&seen, "app/s1")["owner"]), ("", &json!("carol")), "{seen}");
    }
    fs::remove_file(&file)?;
    let done = user.set("ready", "bob");
    assert_eq!((kind(&done), warnings(&done).as_str()), ("", ""), "what is lost is no obstacle: {done}");
    Ok(())
}

fn a_drain_under_way_has_its_owner(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let held = Bound::hold(stage.frontend("web"), stage.server("web1"));
    let at = stage.http.address();
    let patient = request("web1", "maint", &at, json!({ "owner": "zed", "drain": { "timeout": 30 } }));
    let running = Program::request(&patient).spawn();
    stage.http.await_state("web", "web1", (8, 2));
    eventually(PATIENCE, "the record", || {
        (server(&status(&at), "web/web1").get("owner") == Some(&json!("zed"))).then_some(())
    });
    assert_eq!(kind(&report("web1", "ready", &at, json!({ "owner": "bob" }))), "owned");
    // Nor is it lost with the run.
    running.signal(Signal::SIGKILL);
    assert_eq!(running.wait().code, None);
    assert_eq!(kind(&report("web1", "ready", &at, json!({ "owner": "bob" }))), "owned");
    assert_eq!(stage.http.state("web", "web1"), (8, 2));
    let again = Program::request(&patient).spawn();
    stage.server("web1").release();
    assert_eq!(held.served_by(), "web1");
    assert_eq!(again.wait().report()["failed"], false);
    assert_eq!(server(&status(&at), "web/web1")["owner"], "zed");
    assert_eq!(report("web1", "ready", &at, json!({ "owner": "zed" }))["failed"], false);
    Ok(())
}

fn every_step_towards_service_minds_the_owner(haproxy: &Haproxy) -> TestResult {
    let instance =
        Setup::new("steps", "backend app\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n").start(haproxy);
    let ask = |state: &str, more: Value| {
        let mut asked = json!({ "server": "app/s1", "state": state, "instances": instance.address() });
        for (key, value) in more.as_object().unwrap() {
            asked[key] = value.clone();
        }
        Program::request(&asked).report()
    };
    assert_eq!(ask("maint", json!({ "owner": "alice" }))["failed"], json!(false));
    for (state, more) in
        [("drain", json!({})), ("drain", json!({ "owner": "bob" })), ("ready", json!({ "owner": "bob" }))]
    {
        let report = ask(state, more);
        assert_eq!(kind(&report), "owned", "{state}: {report}");
        assert_eq!(instance.state("app", "s1"), (1, 0), "{state}");
    }
    // Its weight may be set, with a warning.
    let report =
        Program::request(&json!({ "server": "app/s1", "weight": 1, "instances": instance.address() })).report();
    assert_eq!(report["failed"], json!(false), "{report}");
    assert!(warnings(&report).contains("was taken out by alice"), "{report}");
    // From drain to maint is no step towards service, nor is anything that its owner does.
    assert_eq!(ask("drain", json!({ "owner": "alice" }))["failed"], json!(false));
    assert_eq!(ask("maint", json!({ "owner": "bob" }))["failed"], json!(false));
    assert_eq!(kind(&ask("drain", json!({ "owner": "bob" }))), "owned", "it stays alice's");
    assert_eq!(ask("drain", json!({ "ignore_owner": true }))["failed"], json!(false));
    Ok(())
}

fn a_periodic_run_may_leave_owned_servers_alone(haproxy: &Haproxy) -> TestResult {
    let instance =
        Setup::new("alone", "backend app\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n").start(haproxy);
    let at = instance.address();
    let out = json!({ "server": "app/s1", "state": "maint", "owner": "alice", "reason": "disk", "instances": at });
    assert_eq!(Program::request(&out).report()["failed"], json!(false));
    instance.set_state("app/s2", "maint");
    let back = json!({ "server": "*", "state": "ready", "on_owned": "skip", "instances": at });
    for changed in [true, false] {
        let report = Program::request(&back).report();
        assert_eq!((&report["failed"], &report["changed"]), (&json!(false), &json!(changed)), "{report}");
        let entry = server(&report, "app/s1");
        assert_eq!(
            (&entry["failed"], &entry["changed"], &entry["commands"]),
            (&json!(false), &json!(false), &json!([]))
        );
        assert_eq!(entry["after"]["admin_state"], json!("maint"), "{report}");
        assert!(warnings(&report).contains("left alone: app/s1 was taken out by alice (disk)"), "{report}");
    }
    assert_eq!((instance.state("app", "s1"), instance.state("app", "s2")), ((1, 0), (0, 2)));
    // It stays hers.
    let report = Program::request(&json!({ "server": "app/s1", "instances": at })).report();
    assert_eq!(server(&report, "app/s1")["owner"], json!("alice"), "{report}");
    let report =
        Program::request(&json!({ "server": "*", "state": "maint", "on_owned": "skip", "instances": at })).report();
    assert_eq!(kind(&report), "bad_request", "{report}");
    Ok(())
}

fn the_text_form_names_the_owner(haproxy: &Haproxy) -> TestResult {
    let instance =
        Setup::new("named", "backend app\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n").start(haproxy);
    let at = instance.address();
    let out = json!({ "server": "app/s1", "state": "maint", "owner": "alice", "reason": "new disk", "expires": "+2h",
        "instances": at });
    assert_eq!(Program::request(&out).report()["failed"], json!(false));
    instance.set_state("app/s2", "maint");
    let run = Program::request(&json!({ "instances": at })).arg("--format=text").run();
    let lines: Vec<&str> = run.stdout.lines().skip(2).collect();
    assert_eq!(lines.len(), 3, "{}", run.stdout);
    assert_eq!(lines[..2], ["app/s1: STOPPED/MAINT", "app/s2: STOPPED/MAINT"], "{}", run.stdout);
    let rest = lines[2].strip_prefix("# app/s1: maint since 2").unwrap_or_else(|| panic!("{}", run.stdout));
    assert!(rest.contains("Z by alice until 2") && rest.ends_with("Z (new disk)"), "{}", run.stdout);
    let report = Program::request(&json!({ "server": "app/s1", "instances": at })).report();
    assert!(server(&report, "app/s1")["since"].as_str().unwrap().ends_with('Z'), "{report}");
    Ok(())
}
