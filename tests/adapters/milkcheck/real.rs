//! What only MilkCheck itself does: its exit codes, its options, dependencies between groups.

use crate::support::{Haproxy, Test, TestResult, tests};

use super::site::{Runner, Site};
use super::{ALL_OK, ALL_WRONG, HTTP_WRONG, MAINT, READY, states};

pub(super) fn tests() -> Vec<Test> {
    tests![milkcheck_has_its_own_exit_codes, milkcheck_has_its_own_options]
}

fn milkcheck_has_its_own_exit_codes(haproxy: &Haproxy) -> TestResult {
    let Some(runner) = &Runner::milkcheck() else { return Ok(()) };
    let site = Site::start(haproxy);
    let code = |words: &[&str]| site.run(runner, words).ran.code;
    let status = site.run(runner, &["haproxy", "status"]).is(0, ALL_OK);
    assert_eq!(status.services["haproxy"].0, "OK", "the group as well");
    assert_eq!(code(&["haproxy.puppet", "status"]), 9, "the services of a group are not chosen one by one");
    assert_eq!(code(&["nothing", "status"]), 9);
    // What README.md warns of: nothing happens, and MilkCheck is content.
    assert_eq!(code(&["haproxy", "disabel", "-D", "server=web1"]), 0);
    assert_eq!(code(&["-n", "lb9", "haproxy", "disable", "-D", "server=web1"]), 0);
    assert_eq!(code(&["-t", "http", "haproxy", "disable", "-D", "server=web1"]), 0);
    assert_eq!(site.take_ssh_log().iter().filter(|line| line.starts_with("begin")).count(), 6, "the status alone");
    for value in ["guard_min_available=50%", "reason=new disk"] {
        let shown = site.run(runner, &["haproxy", "disable", "-D", "server=web1", "-D", value]);
        assert_eq!(shown.ran.code, 12, "{shown:?}");
        assert!(shown.ran.err.contains("Unexpected Exception"), "{shown:?}");
    }
    assert_eq!(states(&site, "web1"), [READY, READY]);
    site.lb[0].http.set_state("web/web1", "maint");
    let status = site.run(runner, &["haproxy", "status"]).is(6, HTTP_WRONG);
    assert_eq!(status.services["haproxy"].0, "DEP_ERROR");
    let summary = site.run(runner, &["-s", "haproxy", "status"]).ran.out;
    assert!(summary.contains("SUMMARY") && summary.contains("haproxy.http.status"), "{summary}");
    Ok(())
}

fn milkcheck_has_its_own_options(haproxy: &Haproxy) -> TestResult {
    let Some(runner) = &Runner::milkcheck() else { return Ok(()) };
    let site = Site::start(haproxy);
    // Its dry run runs nothing, and with -v shows what it would run.
    let dry = site.run(runner, &["-v", "--dry-run", "haproxy", "disable", "-D", "server=web1"]).is(0, ALL_OK);
    assert!(dry.ran.out.contains("server=web1\n") && dry.ran.out.contains("state=maint\n"), "{}", dry.ran.out);
    assert_eq!(states(&site, "web1"), [READY, READY]);
    // Of a success it shows the output with -vv.
    let words = ["-vv", "haproxy", "disable", "-D", "server=web1"];
    let loud = site.run(runner, &words).is(0, ALL_OK);
    assert!(loud.lines("http").contains(&"lb[1-2]: web/web1: STOPPED/MAINT".to_owned()), "{loud:?}");
    // All groups, where none is named.
    site.run(runner, &["enable", "-D", "server=web1"]).is(0, ALL_OK);
    assert_eq!(states(&site, "web1"), [READY, READY]);
    // Tags and -X choose a group as a whole.
    let tagged = site.configuration("tagged", |file| file.replace("    target:", "    tags: [edge]\n    target:"));
    site.run_in(&tagged, runner, &["-t", "edge", "haproxy", "status"]).is(0, ALL_OK);
    site.take_ssh_log();
    site.run_in(&tagged, runner, &["-t", "http", "status"]);
    site.run_in(&tagged, runner, &["-X", "haproxy", "status"]);
    assert_eq!(site.take_ssh_log(), [""; 0]);
    site.run_in(&tagged, runner, &["-X", "http", "status"]).is(0, ALL_OK);
    assert_eq!(site.take_ssh_log().len(), 12, "all services");
    // A login shell that has no haproxy_server.
    let empty = site.configuration("empty", |file| file.replace("lb[1-2]", "web[1-2]"));
    let shown = site.run_in(&empty, runner, &["haproxy", "status"]).is(6, ALL_WRONG);
    assert_eq!(shown.lines("http").last().unwrap(), "web[1-2] exited with 127");
    assert_ne!(states(&site, "web1")[0], MAINT);
    Ok(())
}
