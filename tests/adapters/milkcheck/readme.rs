//! The examples of `modules/milkcheck/README.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::page::{Block, blocks};
use crate::support::{Bound, Haproxy, Program, Test, TestResult, repository, tests};
use crate::tool::{installed, run, tool};

use super::site::{ADAPTER, Runner, Site, services};
use super::{ALL_OK, MAINT, READY, states};

pub(super) fn tests() -> Vec<Test> {
    tests![examples_show_what_happens, examples_of_milkcheck_alone_do_what_they_say]
}

/// The page's blocks that are not run yet.
struct Page(Vec<Block>);

impl Page {
    fn read() -> Self {
        let page = format!("{ADAPTER}/README.md");
        // Some stand in a list.
        Self(blocks(&page))
    }

    /// Takes the next block of a section.
    fn take(&mut self, heading: &str, language: &str) -> String {
        let is_it = |block: &Block| block.heading == heading && block.language == language;
        let at = self.0.iter().position(is_it).unwrap_or_else(|| panic!("no {language} under {heading:?} is left"));
        self.0.remove(at).text
    }

    /// Asserts that all blocks were taken.
    fn end(self) {
        assert!(self.0.is_empty(), "no test runs {:#?}", self.0);
    }
}

/// The page's commands, where `milkcheck` is a certain runner with a certain configuration.
struct Shell<'a> {
    site: &'a Site,
    runner: &'a Runner,
    configuration: PathBuf,
}

impl<'a> Shell<'a> {
    fn new(site: &'a Site, runner: &'a Runner) -> Self {
        Self { site, runner, configuration: repository().join(ADAPTER) }
    }

    fn with(&self, configuration: PathBuf) -> Self {
        Self { configuration, ..*self }
    }

    /// Runs one command, or several lines, and gives the exit code and the output.
    fn run(&self, text: &str) -> (i32, String) {
        let path = self.site.as_milkcheck(self.runner, &self.configuration);
        let ran = run(tool("sh").args(["-c", text]).env("PATH", path).current_dir(repository().join(ADAPTER)));
        (ran.code, ran.out)
    }

    /// Runs each command of a console block, and compares what it shows with what the page shows.
    fn play(&self, console: &str) {
        for example in console.split("$ milkcheck ").skip(1) {
            let (words, shown) = example.split_once('\n').expect("a command and its output");
            let (_, out) = self.run(&format!("milkcheck {words}"));
            let seen = |text: &str| {
                let mut services = services(&without_times(text));
                if matches!(self.runner, Runner::ClusterShell) {
                    // The status of a group is MilkCheck's.
                    services.remove("haproxy");
                }
                (services, text.lines().last().map(str::to_owned))
            };
            assert_eq!(seen(&out), seen(shown), "{:?}: $ milkcheck {words}", self.runner);
        }
    }
}

/// The same without the times at which servers were taken out.
fn without_times(text: &str) -> String {
    let mut parts = text.split(" since ");
    let mut same = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (_, rest) = part.split_once(' ').expect("something after the time");
        same.push_str(" since … ");
        same.push_str(rest);
    }
    same
}

fn examples_show_what_happens(haproxy: &Haproxy) -> TestResult {
    let site = Site::start(haproxy);
    for worker in ["web1", "web2"] {
        site.script(&format!("hosts/{worker}/uptime"), "#!/bin/sh\n");
    }
    let haproxy_yaml = fs::read_to_string(repository().join(ADAPTER).join("haproxy.yaml"))?;
    for (number, runner) in Runner::all().iter().enumerate() {
        let mut page = Page::read();
        let shell = Shell::new(&site, runner);
        shell.play(&page.take("haproxy_server with MilkCheck", "console"));

        // Installed in another folder, with other load balancers and instances.
        let folder = site.configuration(&format!("installed{number}"), |_| String::new());
        // ClusterShell runs scp, which is told here where it would copy to.
        let copied = site.folder.join("copied");
        site.script("bin/scp", &format!("#!/bin/sh\necho \"$*\" >>{}\n", copied.display()));
        let clush = installed("milkcheck/venv/bin/clush").display().to_string();
        let copy = page.take("Install", "sh").replace("clush ", &format!("{clush} "));
        let copy = copy.replace("--copy haproxy_server", &format!("--copy {}", Program::path().display()));
        assert_eq!(shell.run(&copy).0, 0, "{copy}");
        for node in ["lb1", "lb2"] {
            let said = fs::read_to_string(&copied)?;
            assert!(said.contains(&format!("[{node}]:/usr/bin/haproxy_server")), "{said}");
        }
        let install = page.take("Install", "sh").replace("/etc/milkcheck/conf/", &folder.display().to_string());
        assert_eq!(shell.run(&install).0, 0, "{install}");
        let there = fs::read_to_string(folder.join("haproxy.yaml"))?;
        assert_eq!(there, haproxy_yaml);
        let (target, services) = (page.take("Install", "yaml"), page.take("Install", "yaml"));
        assert!(there.contains(&target) && there.contains(&services), "{target}{services}");
        let other = there.replace(&target, "    target: lb1\n").replace("http,ldap,puppet:", "ldap:");
        fs::write(folder.join("haproxy.yaml"), other)?;
        site.take_ssh_log();
        assert_eq!(site.run_in(&folder, runner, &["haproxy", "status"]).is(0, ["", "OK", ""]).ran.code, 0);
        assert_eq!(site.take_ssh_log(), ["begin lb1", "end lb1"]);

        shell.play(&page.take("Dry run", "console"));
        assert_eq!(states(&site, "web1"), [READY, READY]);

        // What holds for every run.
        let settings = page.take("Options", "yaml");
        let settings = settings.replace("/var/lib/haproxy", &site.folder.path().display().to_string());
        let with_settings = site.configuration(&format!("settings{number}"), |file| {
            let of = |line: &str| line.split_once(':').expect("a setting").0.to_owned();
            let given: BTreeMap<String, &str> = settings.lines().map(|line| (of(line), line)).collect();
            let lines = file.lines().map(|line| match line.split_once(": ").and_then(|(name, _)| given.get(name)) {
                Some(line) if !line.trim().is_empty() => (*line).to_owned(),
                _ => line.to_owned(),
            });
            let file: Vec<String> = lines.collect();
            for line in settings.lines() {
                assert!(file.contains(&line.to_owned()), "haproxy.yaml has no setting for {line}");
            }
            file.join("\n")
        });
        let settled = |words: &[&str]| site.run_in(&with_settings, runner, words);
        settled(&["haproxy", "disable", "-D", "server=web1,web2"]).is(0, ALL_OK);
        settled(&["haproxy", "disable", "-D", "server=web3"]).is(6, ["ERROR", "OK", "OK"]);
        assert!(fs::read_to_string(site.folder.join("http.state"))?.contains(" web2 "));
        settled(&["haproxy", "enable", "-D", "server=web[12]"]).is(0, ALL_OK);
        settled(&["haproxy", "status"]).is(0, ALL_OK);

        let maintenance = page.take("Drained maintenance", "sh");
        let (out, back) = maintenance.split_once('\n').expect("two commands");
        assert_eq!((shell.run(out).0, states(&site, "web1")), (0, [MAINT, MAINT]));
        assert_eq!((shell.run(back).0, states(&site, "web1")), (0, [READY, READY]));

        site.lb.iter().for_each(|stage| stage.server("web3").hold());
        let sessions = [0, 1].map(|lb: usize| Bound::hold(site.lb[lb].frontend("web"), site.lb[lb].server("web3")));
        shell.play(&page.take("Drained maintenance", "console"));
        for (stage, session) in site.lb.iter().zip(sessions) {
            stage.server("web3").release();
            assert_eq!(session.served_by(), "web3");
            stage.http.set_state("web/web3", "ready");
        }

        shell.play(&page.take("Who took it out", "console"));
        site.run(runner, &["haproxy", "enable", "-D", "server=web2 owner=alice"]).is(0, ALL_OK);

        let rolling = page.take("Server by server", "sh");
        site.take_ssh_log();
        assert_eq!(shell.run(&rolling).0, 0);
        let log = site.take_ssh_log();
        let steps: Vec<&str> = log.iter().map(|line| line.strip_prefix("begin ").unwrap_or("")).collect();
        let at = |node: &str| steps.iter().position(|step| *step == node).expect("work on each server");
        let load_balancers = |steps: &[&str]| steps.iter().filter(|step| step.starts_with("lb")).count();
        assert_eq!(load_balancers(&steps[..at("web1")]), 6, "{log:?}");
        assert_eq!(load_balancers(&steps[at("web1")..at("web2")]), 12, "{log:?}");
        assert_eq!(load_balancers(&steps[at("web2")..]), 6, "{log:?}");
        assert_eq!((states(&site, "web1"), states(&site, "web2")), ([READY; 2], [READY; 2]));
        // The work on the first one fails: it stays out, and the second one is left alone.
        site.script("hosts/web1/uptime", "#!/bin/sh\nexit 1\n");
        shell.run(&rolling);
        assert_eq!((states(&site, "web1"), states(&site, "web2")), ([MAINT; 2], [READY; 2]));
        assert!(!site.take_ssh_log().contains(&"begin web2".to_owned()));
        site.script("hosts/web1/uptime", "#!/bin/sh\n");
        site.run(runner, &["haproxy", "enable", "-D", "server=web1 owner=alice"]).is(0, ALL_OK);

        let one_by_one = page.take("Load balancer by load balancer", "sh");
        site.take_ssh_log();
        assert_eq!((shell.run(&one_by_one).0, states(&site, "web1")), (0, [MAINT, MAINT]));
        let log = site.take_ssh_log();
        assert!(
            log.iter().position(|line| line == "begin lb2") > log.iter().rposition(|line| line == "end lb1"),
            "{log:?}"
        );
        site.run(runner, &["haproxy", "enable", "-D", "server=web1"]).is(0, ALL_OK);

        // The others are for MilkCheck alone.
        page.take("Load balancer by load balancer", "yaml");
        page.take("A few load balancers first", "yaml");
        page.take("A few load balancers first", "sh");
        page.take("Results", "yaml");
        page.end();
    }
    Ok(())
}

fn examples_of_milkcheck_alone_do_what_they_say(haproxy: &Haproxy) -> TestResult {
    let Some(runner) = &Runner::milkcheck() else { return Ok(()) };
    let mut page = Page::read();
    let mut site = Site::start(haproxy);
    let target = "    target: 'lb[1-2]'\n";
    let add = |site: &Site, name: &str, line: &str| {
        site.configuration(name, |file| file.replace(target, &format!("{target}{line}")))
    };

    let fanout = add(&site, "fanout", &page.take("Load balancer by load balancer", "yaml"));
    site.run_in(&fanout, runner, &["haproxy", "disable", "-D", "server=web1"]).is(0, ALL_OK);
    let log = site.take_ssh_log();
    assert!(log.len() == 12 && log.chunks(2).all(|turn| turn[0].replace("begin", "end") == turn[1]), "{log:?}");
    site.run(runner, &["haproxy", "enable", "-D", "server=web1"]).is(0, ALL_OK);

    let rest = page.take("A few load balancers first", "yaml");
    let groups = site.configuration("groups", |file| file.replace(target, "    target: lb1\n") + &rest);
    let commands = page.take("A few load balancers first", "sh");
    let (disable, status) = commands.split_once('\n').expect("two commands");
    let first = Shell::new(&site, runner).with(groups.clone());
    site.take_ssh_log();
    assert_eq!((first.run(disable).0, states(&site, "web1")), (0, [MAINT, MAINT]));
    let log = site.take_ssh_log();
    assert!(
        log.iter().position(|line| line == "begin lb2") > log.iter().rposition(|line| line == "end lb1"),
        "{log:?}"
    );
    let (code, out) = first.run(status);
    let shown = services(&out);
    assert_eq!(code, 6);
    assert!(shown["haproxy.http"].1.contains(&"lb1: web/web1: STOPPED/MAINT".to_owned()), "{out}");
    assert!(shown["haproxy-rest.http"].1.contains(&"lb2: web/web1: STOPPED/MAINT".to_owned()), "{out}");
    site.run(runner, &["haproxy", "enable", "-D", "server=web1"]).is(0, ALL_OK);
    // What fails on the first ones goes no further.
    site.lb[0].http.stop();
    let (code, out) = Shell::new(&site, runner).with(groups).run(disable);
    assert_eq!((code, services(&out)["haproxy-rest"].0.as_str()), (6, "DEP_ERROR"), "{out}");
    assert_eq!(site.lb[1].http.state("web", "web1"), READY);

    // One load balancer may fail.
    let errors = add(&site, "errors", &page.take("Results", "yaml"));
    site.run_in(&errors, runner, &["haproxy", "status"]).is(3, ["WARNING", "OK", "OK"]);
    site.lb[1].http.set_state("web/web1", "maint");
    site.run_in(&errors, runner, &["haproxy", "status"]).is(6, ["ERROR", "OK", "OK"]);
    Ok(())
}
