//! MilkCheck: the services of `modules/milkcheck/haproxy.yaml`, on two load balancers.
//!
//! MilkCheck is in no package registry. So the commands of the file are run through ClusterShell as MilkCheck does it,
//! and through MilkCheck itself where it is on PATH.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::stage::PUPPET_BACKENDS;
use crate::support::{Agent, Bound, Haproxy, Test, TestResult, repository, tests};

use crate::tool::{HOSTILE, assert_harmless, run, with_program_in};
use site::{Runner, Shown, Site};

mod readme;
mod real;
mod site;

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = tests![
        a_server_is_taken_out_and_put_back,
        what_is_no_name_of_a_server_is_refused_everywhere,
        nothing_in_a_value_reaches_a_shell,
        nothing_that_is_shown_reaches_the_terminal,
        what_fails_on_one_load_balancer_is_its_own_error,
        a_program_outside_of_path_is_found,
        a_plan_shows_what_would_change,
        a_maintenance_is_drained_guarded_and_owned,
        every_field_of_a_request_has_a_variable,
        all_variables_go_together,
    ];
    tests.extend(readme::tests());
    tests.extend(real::tests());
    tests
}

const NAME: &str = "puppet-i0-svc1";
const ALL_OK: [&str; 3] = ["OK", "OK", "OK"];
const ALL_WRONG: [&str; 3] = ["ERROR", "ERROR", "ERROR"];
const HTTP_WRONG: [&str; 3] = ["ERROR", "OK", "OK"];
const FORMAT: [&str; 2] =
    ["lb[1-2]: # Format", "lb[1-2]: # backend_name/server_name: operational_state/administrative_state"];

/// Administrative and operational state, as HAProxy numbers them.
const READY: (u32, u32) = (0, 2);
const MAINT: (u32, u32) = (1, 0);
const DRAIN: (u32, u32) = (8, 2);

fn states(site: &Site, server: &str) -> [(u32, u32); 2] {
    [0, 1].map(|lb: usize| site.lb[lb].http.state("web", server))
}

fn a_server_is_taken_out_and_put_back(haproxy: &Haproxy) -> TestResult {
    let site = Site::start(haproxy);
    let everywhere = |server: &str, state| {
        for stage in &site.lb {
            for backend in PUPPET_BACKENDS {
                assert_eq!(stage.puppet.state(backend, server), state, "{backend}/{server}");
            }
        }
    };
    let server = format!("server={NAME}");
    for runner in &Runner::all() {
        site.run(runner, &["haproxy", "status"]).is(0, ALL_OK);

        for _ in 0..2 {
            site.run(runner, &["haproxy", "disable", "-D", &server]).is(0, ALL_OK);
            everywhere(NAME, MAINT);
            everywhere("puppet-i0-svc2", READY);
        }

        let status = site.run(runner, &["haproxy", "status"]).is(6, ["OK", "OK", "ERROR"]);
        let mut lines = FORMAT.map(str::to_owned).to_vec();
        lines.extend(PUPPET_BACKENDS.map(|backend| format!("lb[1-2]: {backend}/{NAME}: STOPPED/MAINT")));
        lines.push("lb[1-2] exited with 2".to_owned());
        assert_eq!(status.lines("puppet"), lines);
        site.run(runner, &["haproxy", "status", "-D", "server=puppet-i0-svc2"]).is(0, ALL_OK);
        site.run(runner, &["haproxy", "status", "-D", "backend=i0_*"]).is(6, ["OK", "OK", "ERROR"]);

        site.run(runner, &["haproxy", "enable", "-D", &server]).is(0, ALL_OK);
        everywhere(NAME, READY);
        site.run(runner, &["haproxy", "status"]).is(0, ALL_OK);

        // One load balancer alone, the two ways.
        site.run(runner, &["-n", "lb1", "haproxy", "drain", "-D", "server=web1"]).is(0, ALL_OK);
        assert_eq!(states(&site, "web1"), [DRAIN, READY]);
        site.run(runner, &["-x", "lb2", "haproxy", "enable", "-D", "server=web1"]).is(0, ALL_OK);
        assert_eq!(states(&site, "web1"), [READY, READY]);
    }
    Ok(())
}

fn what_is_no_name_of_a_server_is_refused_everywhere(haproxy: &Haproxy) -> TestResult {
    let site = Site::start(haproxy);
    let refused = |runner: &Runner, words: &[&str], why: &str| -> Vec<String> {
        let shown = site.run(runner, &[&["haproxy", "disable"], words].concat()).is(6, ALL_WRONG);
        for service in ["http", "ldap", "puppet"] {
            let lines = shown.lines(service);
            assert!(lines[0].starts_with("lb[1-2]: error: ") && lines[0].contains(why), "no {why:?} in {lines:?}");
            assert_eq!(lines.last().unwrap(), "lb[1-2] exited with 1");
        }
        shown.lines("http").to_vec()
    };
    for runner in &Runner::all() {
        assert_eq!(refused(runner, &[], "'server' is missing").len(), 2, "one sentence and the exit code");
        refused(runner, &["-D", "server="], "'server' is missing");
        // A typo is one on every instance, also where another server would not be there.
        refused(runner, &["-D", "server=pupet-i0-svc1"], "no instance of this host has a server 'pupet-i0-svc1'");
        refused(runner, &["-D", "server=web1,web9"], "no instance of this host has a server 'web9'");
        refused(runner, &["-D", "server=web1 on_missing=fail_each backend=nowhere"], "'nowhere'");
    }
    assert_eq!(states(&site, "web1"), [READY, READY]);
    Ok(())
}

fn nothing_in_a_value_reaches_a_shell(haproxy: &Haproxy) -> TestResult {
    let site = Site::start(haproxy);
    let file = site.folder.join("reached");
    let touch = format!("touch${{IFS}}{}", file.display());
    let values =
        [format!("x';{touch};'"), format!("x\";{touch};\"$({touch})`{touch}`"), format!("END;{touch}|{touch}&{touch}")];
    for runner in &Runner::all() {
        for (field, value) in ["server", "guard_min_available", "on_missing"].iter().zip(&values) {
            let words = ["-n", "lb1", "haproxy", "disable", "-D", "server=web1", "-D", &format!("{field}={value}")];
            let shown = site.run(runner, &words).is(6, ALL_WRONG);
            assert_eq!(
                shown.lines("http").last().unwrap(),
                "lb1 exited with 1",
                "the program has refused it: {shown:?}"
            );
        }
    }
    assert!(!file.exists(), "a shell has run a value");
    assert_eq!(states(&site, "web1"), [READY, READY]);
    Ok(())
}

/// What turns round the text after it, as an owner may be called.
const TURNING: &str = "x\u{200f}\u{202e}\u{2066}y";

/// MilkCheck shows what the program writes as it comes.
fn nothing_that_is_shown_reaches_the_terminal(haproxy: &Haproxy) -> TestResult {
    let agent = Agent::start(&format!("up #{HOSTILE}"));
    let site = Site::start_with(haproxy, &agent.options("100ms"));
    agent.await_asked();
    for runner in &Runner::all() {
        // MilkCheck cuts -D at every kind of space.
        let hostile = format!("server=web1{HOSTILE}").replace(char::is_whitespace, "");
        let out = format!("server=web1 owner={TURNING} reason={TURNING}");
        site.run(runner, &["haproxy", "disable", "-D", &out]).is(0, ALL_OK);
        for words in [
            vec!["haproxy", "status"],
            vec!["haproxy", "enable", "-D", "server=web1"],
            vec!["haproxy", "plan-enable", "-D", "server=web1"],
            vec!["haproxy", "disable", "-D", &hostile],
        ] {
            let shown = site.run(runner, &words);
            assert_eq!(shown.ran.code, 6, "{shown:?}");
            assert_harmless(&shown.ran);
        }
        let back = format!("server=web1 owner={TURNING}");
        site.run(runner, &["haproxy", "enable", "-D", &back]).is(0, ALL_OK);
    }
    Ok(())
}

fn what_fails_on_one_load_balancer_is_its_own_error(haproxy: &Haproxy) -> TestResult {
    let mut site = Site::start(haproxy);
    let is_of = |lines: &[String], node: &str, what: &str| {
        assert!(lines.iter().all(|line| line.starts_with(node)), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains(what)), "no {what:?} in {lines:?}");
    };
    site.lb[1].http.stop();
    for runner in &Runner::all() {
        let status = site.run(runner, &["haproxy", "status"]).is(6, HTTP_WRONG);
        is_of(status.lines("http"), "lb2", "lb2: error: ");
        is_of(status.lines("http"), "lb2", "lb2 exited with 4");
        let disable = site.run(runner, &["haproxy", "disable", "-D", "server=web1"]);
        is_of(disable.lines("http"), "lb2", "lb2 exited with 1");
        assert_eq!(site.lb[0].http.state("web", "web1"), MAINT, "the other one is set");
        site.run(runner, &["haproxy", "enable", "-D", "server=web1"]);
        assert_eq!(site.lb[0].http.state("web", "web1"), READY);
        site.run(runner, &["haproxy", "disable", "-D", "server=web1 on_unreachable=skip on_missing=ignore"])
            .is(0, ALL_OK);
        site.run(runner, &["-n", "lb1", "haproxy", "enable", "-D", "server=web1"]).is(0, ALL_OK);
    }
    site.lb[1].http.start_again();
    site.cut_off("lb2");
    for runner in &Runner::all() {
        let status = site.run(runner, &["haproxy", "status"]).is(6, ALL_WRONG);
        is_of(status.lines("ldap"), "lb2", "lb2: ssh: Could not resolve hostname lb2");
        is_of(status.lines("ldap"), "lb2", "lb2 exited with 255");
    }
    Ok(())
}

/// A login shell that has no `/usr/local/bin`.
fn a_program_outside_of_path_is_found(haproxy: &Haproxy) -> TestResult {
    let site = Site::start(haproxy);
    let elsewhere = site.folder.join("elsewhere");
    fs::rename(site.folder.join("hosts/lb1"), &elsewhere)?;
    fs::create_dir(site.folder.join("hosts/lb1"))?;
    for runner in &Runner::all() {
        for (action, state) in [("disable", MAINT), ("enable", READY)] {
            let mut command = site.command(runner);
            command.arg("-c").arg(repository().join(site::ADAPTER));
            command.args(["-n", "lb1", "haproxy", action, "-D", "server=web1"]);
            command.env("PATH", format!("{}:/usr/bin:/bin", site.folder.join("bin").display()));
            let program = elsewhere.join("haproxy_server");
            Shown::new(run(&mut with_program_in(&["/usr/local/bin"], &program, &command))).is(0, ALL_OK);
            assert_eq!(states(&site, "web1"), [state, READY]);
        }
    }
    Ok(())
}

fn a_plan_shows_what_would_change(haproxy: &Haproxy) -> TestResult {
    let site = Site::start(haproxy);
    for runner in &Runner::all() {
        let states_were = states(&site, "web1");
        for (action, state, after, found) in [
            ("plan-disable", "maint", "STOPPED/MAINT", READY),
            ("plan-drain", "drain", "RUNNING/DRAIN", READY),
            ("plan-enable", "ready", "RUNNING/READY", MAINT),
        ] {
            let before = if found == READY { "RUNNING/READY" } else { "STOPPED/MAINT" };
            for stage in &site.lb {
                stage.http.set_state("web/web1", if found == READY { "ready" } else { "maint" });
            }
            let words = ["haproxy", action, "-D", "server=web1"];
            let plan = site.run(runner, &words).is(6, HTTP_WRONG);
            let head = FORMAT.map(str::to_owned);
            let would = format!("# dry run: web1: would be {state} in 1 of 1 backend on 1 of 1 instance");
            let lines = [would, format!("-web/web1: {before}"), format!("+web/web1: {after}")];
            let lines = lines.map(|line| format!("lb[1-2]: {line}"));
            assert_eq!(plan.lines("http"), [&head[..], &lines[..], &["lb[1-2] exited with 2".to_owned()]].concat());
            assert_eq!(states(&site, "web1"), [found; 2], "{action} changes nothing");

            let act = action.trim_start_matches("plan-");
            site.run(runner, &["haproxy", act, "-D", "server=web1"]).is(0, ALL_OK);
            site.run(runner, &words).is(0, ALL_OK);
        }
        let refused = site.run(runner, &["haproxy", "plan-disable", "-D", "server=web1 guard_min_available=3"]);
        let refused = refused.is(6, HTTP_WRONG);
        let lines = refused.lines("http");
        assert!(lines[0].contains("fewer than 'guard.min_available' 3"), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("dry run")), "a refusal is said once: {lines:?}");
        assert_eq!(lines.last().unwrap(), "lb[1-2] exited with 4");
        assert_eq!(states(&site, "web1"), states_were);
    }
    Ok(())
}

fn a_maintenance_is_drained_guarded_and_owned(haproxy: &Haproxy) -> TestResult {
    let site = Site::start(haproxy);
    for runner in &Runner::all() {
        // One load balancer has a session on web1, the other one has not.
        site.lb[0].server("web1").hold();
        let session = Bound::hold(site.lb[0].frontend("web"), site.lb[0].server("web1"));
        let drain = "server=web1 drain_timeout=0.5 owner=alice reason=disk expires=2100-01-01T00:00:00Z";
        let late = site.run(runner, &["haproxy", "disable", "-D", drain]).is(6, HTTP_WRONG);
        assert!(
            late.lines("http")[0].starts_with("lb1: error: http: web/web1 still has 1 session after 0.5 s of drain")
        );
        assert_eq!(late.lines("http").last().unwrap(), "lb1 exited with 1");
        assert_eq!(states(&site, "web1"), [DRAIN, MAINT]);
        let drain = format!("{drain} drain_on_timeout=maint");
        site.run(runner, &["haproxy", "disable", "-D", &drain]).is(0, ALL_OK);
        assert_eq!(states(&site, "web1"), [MAINT, MAINT]);
        site.lb[0].server("web1").release();
        assert_eq!(session.served_by(), "web1", "a request that was under way has gone on");

        // Of three servers one is out; the next one is refused, where percents are counted as well.
        for guard in ["guard_min_available=2", "guard_min_available=50%%%%"] {
            let shown = site.run(runner, &["haproxy", "disable", "-D", "server=web2", "-D", guard]).is(6, HTTP_WRONG);
            assert!(shown.lines("http")[0].starts_with("lb[1-2]: error: "), "{shown:?}");
            assert!(shown.lines("http")[0].contains("has 2 usable servers and would have 1"), "{shown:?}");
        }
        assert_eq!(states(&site, "web2"), [READY, READY]);
        site.run(runner, &["haproxy", "available", "-D", "backend=web guard_min_available=2"]).is(0, ALL_OK);
        let few = site.run(runner, &["haproxy", "available", "-D", "backend=web guard_min_available=3"]);
        assert_eq!(few.is(6, HTTP_WRONG).lines("http").last().unwrap(), "lb[1-2] exited with 2");

        let owned = site.run(runner, &["haproxy", "enable", "-D", "server=web1"]).is(6, HTTP_WRONG);
        let why = "lb[1-2]: error: http: web/web1 was taken out by alice (disk) until 2100-01-01T00:00:00Z";
        assert!(owned.lines("http")[0].starts_with(why), "{owned:?}");
        site.run(runner, &["haproxy", "enable", "-D", "server=web1 owner=alice wait_timeout=5"]).is(0, ALL_OK);
        assert_eq!(states(&site, "web1"), [READY, READY]);
        // A weight with it, for a server that is ready already.
        site.run(runner, &["haproxy", "enable", "-D", "server=web1 weight=7"]).is(0, ALL_OK);
        assert!(site.lb.iter().all(|stage| stage.http.stat("web", "web1", "weight") == "7"));
        site.run(runner, &["haproxy", "enable", "-D", "server=web1 weight=100%%%%"]).is(0, ALL_OK);
        assert!(site.lb.iter().all(|stage| stage.http.stat("web", "web1", "weight") == "1"));
    }
    Ok(())
}

/// Every field of a request as a word has it: `drain.timeout`.
fn fields() -> BTreeSet<String> {
    let text = fs::read_to_string(repository().join("schema/request.schema.json")).expect("the schema");
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let mut fields = BTreeSet::new();
    for (name, field) in schema["properties"].as_object().unwrap() {
        let definition = field["anyOf"][0]["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"));
        let definition = &schema["$defs"][definition.unwrap_or_default()];
        // An object with fields of its own, or one of two forms; not an instance, which is named by its address here.
        let forms = [definition, &definition["anyOf"][1]];
        let inner = forms.iter().find_map(|form| form["properties"].as_object());
        fields.extend(inner.into_iter().flatten().map(|(inner, _)| format!("{name}.{inner}")));
        // The other form is a switch.
        if inner.is_none() || definition["anyOf"].is_array() {
            fields.insert(name.clone());
        }
    }
    fields
}

/// The variable that a field has in the file.
fn variable(field: &str) -> String {
    if field == "timeout" { "instance_timeout".to_owned() } else { field.replace('.', "_") }
}

/// Fields that are said by the action: what it sets, and whether it is a plan.
const BY_ACTION: [&str; 3] = ["state", "dry_run", "diff"];

fn every_field_of_a_request_has_a_variable(haproxy: &Haproxy) -> TestResult {
    let site = Site::start(haproxy);
    let fields = fields();
    assert!(fields.contains("drain.on_timeout") && fields.contains("state_file") && fields.len() > 25, "{fields:?}");
    let settable: BTreeSet<&str> = fields.iter().map(String::as_str).filter(|it| !BY_ACTION.contains(it)).collect();
    let file = fs::read_to_string(repository().join(site::ADAPTER).join("haproxy.yaml"))?;
    let top = file.split_once("\nvariables:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let variables: BTreeSet<String> =
        top.lines().map(|line| line.trim().split(':').next().unwrap().to_owned()).collect();
    assert_eq!(variables, settable.iter().map(|field| variable(field)).collect());

    // The program that shows its words stands in for the real one here: what arrives is what is compared.
    site.cut_off("lb1");
    fs::create_dir(site.folder.join("hosts/lb1"))?;
    site.script("hosts/lb1/haproxy_server", "#!/bin/sh\nprintf '<%s>\\n' \"$@\"\nexit 1\n");
    let all: Vec<String> = settable.iter().map(|field| format!("{}=of-{field}", variable(field))).collect();
    let all = all.join(" ");
    for runner in &Runner::all() {
        let words = |action: &str, defines: &str| -> BTreeSet<String> {
            let shown = site.run(runner, &["-n", "lb1", "haproxy", action, "-D", defines]);
            let lines = shown.lines("http").iter().filter_map(|line| line.strip_prefix("lb1: <")?.strip_suffix('>'));
            lines.map(str::to_owned).collect()
        };
        let mut reached = BTreeSet::new();
        let changes = ["enable", "restore", "drain", "disable"];
        let plans = changes.map(|change| format!("plan-{change}"));
        for action in ["status", "available"].iter().chain(&changes).copied().chain(plans.iter().map(String::as_str)) {
            for word in words(action, &all) {
                if let Some((field, value)) = word.split_once("=of-") {
                    assert_eq!(field, value, "{action}");
                    reached.insert(field.to_owned());
                }
            }
        }
        assert_eq!(reached.iter().map(String::as_str).collect::<BTreeSet<_>>(), settable);

        // Where nothing is given, nothing but this is asked.
        let expected = |rest: &[&str]| -> BTreeSet<String> {
            let always = ["--format", "text", "instances=http", "on_missing=elsewhere_ok"];
            always.iter().chain(rest).map(|word| (*word).to_owned()).collect()
        };
        assert_eq!(words("status", "x=y"), expected(&["--detailed-exitcodes"]));
        assert_eq!(words("disable", "server=a=b="), expected(&["server=a=b=", "state=maint"]));
        let plan = ["--detailed-exitcodes", "--dry-run", "diff=yes", "server=a", "state=ready"];
        assert_eq!(words("plan-enable", "server=a"), expected(&plan));
    }
    Ok(())
}

fn all_variables_go_together(haproxy: &Haproxy) -> TestResult {
    let site = Site::start_with(haproxy, "check inter 200ms");
    let state_file = format!("state_file={}/%%SERVICE.state", site.folder.path().display());
    let every = "server=web1 backend=web syslog=no on_missing=ignore on_unreachable=fail instance_timeout=5 lock_timeout=5 weight=1 \
                 health=enabled expect_admin_state=ready expect_operational_state=running guard_min_available=1 \
                 drain_timeout=5 drain_stable=0 drain_on_timeout=shutdown shutdown_sessions_over=0 wait_timeout=5 \
                 wait_stable=0 wait_via=drain wait_need=all old_processes=count on_owned=fail on_failure=rollback \
                 owner=alice reason=disk expires=+2h";
    let expect = "expect_admin_state=ready expect_operational_state=running";
    for (number, runner) in Runner::all().iter().enumerate() {
        let run = |action: &str, words: &str| {
            site.run(runner, &["haproxy", action, "-D", words, "-D", &state_file]).is(0, ALL_OK)
        };
        site.run(runner, &["haproxy", "status", "-D", every]).is(0, ALL_OK);
        run("disable", every);
        assert_eq!(states(&site, "web1"), [MAINT, MAINT]);
        let rows = fs::read_to_string(site.folder.join("http.state"))?;
        assert!(rows.contains(" web1 "), "each instance has its state file: {rows}");
        run("drain", &every.replace(expect, "expect_admin_state=maint expect_operational_state=stopped"));
        assert_eq!(states(&site, "web1").map(|(admin, _)| admin), [DRAIN.0; 2]);
        run("enable", &every.replace(expect, "expect_admin_state=drain"));
        assert_eq!(states(&site, "web1"), [READY, READY]);
        let switches = "server=web1 drain=yes shutdown_sessions=yes wait=yes old_processes=wait owner=alice";
        site.run(runner, &["haproxy", "disable", "-D", switches]).is(0, ALL_OK);
        site.run(runner, &["haproxy", "enable", "-D", "server=web1 on_owned=skip owner=bob"]).is(0, ALL_OK);
        assert_eq!(states(&site, "web1"), [MAINT, MAINT]);
        site.run(runner, &["haproxy", "plan-restore", "-D", "server=web1 owner=alice"]).is(6, HTTP_WRONG);
        site.run(runner, &["haproxy", "restore", "-D", "server=web1 ignore_owner=yes wait=yes"]).is(0, ALL_OK);
        assert_eq!(states(&site, "web1"), [READY, READY]);
        // What -D cannot say stands in the file.
        let file = |file: String| file.replace("  reason: ''", "  reason: 'new disk'");
        let reason = site.configuration(&format!("reason{number}"), file);
        site.run_in(&reason, runner, &["haproxy", "disable", "-D", "server=web1 owner=alice"]).is(0, ALL_OK);
        let owned = site.run_in(&reason, runner, &["haproxy", "enable", "-D", "server=web1"]).is(6, HTTP_WRONG);
        assert!(owned.lines("http")[0].contains("taken out by alice (new disk)"), "{owned:?}");
        site.run(runner, &["haproxy", "enable", "-D", "server=web1 owner=alice"]).is(0, ALL_OK);
        // By the addresses of the instances instead of their names.
        for (folder, code, statuses) in [(site.lb[0].folder.path(), 0, ALL_OK), (site.folder.path(), 6, ALL_WRONG)] {
            let instances = format!("instances={}/%%SERVICE.sock", folder.display());
            site.run(runner, &["-n", "lb1", "haproxy", "status", "-D", &instances]).is(code, statuses);
        }
    }
    Ok(())
}
