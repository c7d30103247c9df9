//! Writes `tests/fixtures/<version>/*.txt`: replies of the real HAProxy, byte for byte, for the tests of the parsers.
//!
//! Run by hand, with `cargo test --test live -- --ignored capture`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::backend::stats_page;
use crate::support::{
    Agent, Dns, Haproxy, Health, HttpBackend, Instance, Mode, PATIENCE, Port, Setup, Test, TestResult, ask,
    eventually_seen, repository, tests,
};

pub(crate) fn tests() -> Vec<Test> {
    tests![replies]
}

/// Files with the command that each is the reply to, on an admin socket.
const COMMANDS: [(&str, &str); 43] = [
    ("show_servers_state", "show servers state"),
    ("show_servers_state_of_backend", "show servers state plain"),
    ("show_servers_state_of_empty_backend", "show servers state empty"),
    ("show_servers_state_of_unknown_backend", "show servers state nosuch"),
    ("show_stat", "show stat"),
    ("show_stat_of_servers_of_backend", "show stat plain 4 -1"),
    ("show_stat_of_tracking_servers", "show stat tracking 4 -1"),
    ("show_stat_of_unknown_proxy", "show stat nosuch 4 -1"),
    ("show_info", "show info"),
    ("show_backend", "show backend"),
    ("show_cli_level_admin", "show cli level"),
    ("show_cli_sockets", "show cli sockets"),
    ("show_version", "show version"),
    ("get_weight", "get weight plain/ready"),
    ("success_state", "set server plain/ready state ready"),
    ("success_state_with_more_words", "set server plain/ready state ready and more"),
    ("success_weight", "set server plain/ready weight 10"),
    ("success_shutdown_sessions", "shutdown sessions server plain/ready"),
    ("success_addr", "set server plain/ready addr 127.0.0.2"),
    ("success_fqdn", "set server dns/failed fqdn other.test"),
    ("error_no_server", "set server plain state ready"),
    ("error_empty_server", "set server plain/ state ready"),
    ("error_nothing_after_set_server", "set server"),
    ("error_empty_backend", "set server /ready state ready"),
    ("error_unknown_backend", "set server nosuch/ready state ready"),
    ("error_frontend", "set server front/ready state ready"),
    ("error_unknown_server", "set server plain/nosuch state ready"),
    ("error_three_parts", "set server plain/ready/x state ready"),
    ("error_disabled_backend", "set server off/one state ready"),
    ("error_state_missing", "set server plain/ready state"),
    ("error_state_unknown", "set server plain/ready state gone"),
    ("error_state_upper_case", "set server plain/ready state READY"),
    ("error_unknown_keyword", "set server plain/ready mood good"),
    ("error_weight_not_a_number", "set weight plain/ready abc"),
    ("error_weight_too_big", "set server plain/ready weight 257"),
    ("error_health_of_tracking", "set server tracking/follows_ready health up"),
    ("error_enable_health_without_check", "enable health plain/ready"),
    ("error_enable_agent_without_agent", "enable agent plain/ready"),
    ("error_disable_agent_without_agent", "disable agent plain/ready"),
    ("error_unknown_command", "nosuch command"),
    ("error_master_prefix_on_worker", "@1 show info"),
    ("error_empty_command", ""),
    ("severity_number", "set severity-output number; set server plain/nosuch state ready"),
];

struct Fixtures(PathBuf);

impl Fixtures {
    fn write(&self, name: &str, reply: &[u8]) {
        fs::write(self.0.join(format!("{name}.txt")), reply).expect("to write a fixture");
    }
}

fn replies(haproxy: &Haproxy) -> TestResult {
    let fixtures = repository().join("tests/fixtures").join(&haproxy.name);
    let _ = fs::remove_dir_all(&fixtures);
    fs::create_dir_all(&fixtures)?;
    let fixtures = Fixtures(fixtures);
    let servers: Vec<HttpBackend> = ["up", "down", "stopping"].map(HttpBackend::start).into();
    servers[1].set_health(Health::Bad);
    servers[2].set_health(Health::NotFound);
    let agents: Vec<Agent> = ["up", "drain", "maint", "down"].map(Agent::start).into();
    let (dns, page) = (Dns::start(), Port::reserve());
    let instance = Setup::new("capture", &proxies(&servers, &agents, &dns, &page))
        .mode(Mode::MasterWorker)
        .master_cli()
        .global("node capture")
        .stats_socket("user.sock level user")
        .stats_socket("operator.sock level operator")
        .stats_socket("severity.sock level admin severity-output string")
        .start(haproxy);
    set_the_states(&instance, &page);
    for (name, command) in COMMANDS {
        fixtures.write(name, &ask(&instance.socket, command)?);
    }
    let many = format!("show servers state plain{}", " x".repeat(70));
    fixtures.write("error_too_many_words", &ask(&instance.socket, &many)?);
    for level in ["user", "operator"] {
        let socket = instance.folder.join(&format!("{level}.sock"));
        fixtures.write(&format!("show_cli_level_{level}"), &ask(&socket, "show cli level")?);
        fixtures.write(&format!("permission_denied_{level}"), &ask(&socket, "set server plain/ready state ready")?);
        fixtures.write(&format!("show_servers_state_{level}"), &ask(&socket, "show servers state plain")?);
    }
    let severity = instance.folder.join("severity.sock");
    fixtures.write("severity_string", &ask(&severity, "set server plain/nosuch state ready")?);
    fixtures.write("severity_string_success", &ask(&severity, "set server plain/ready state ready")?);
    fixtures.write("severity_string_unknown_command", &ask(&severity, "nosuch command")?);
    fixtures.write("prompt_greeting", &exchange(&instance.socket, &["prompt"])?);
    let commands = [
        "prompt",
        "show servers state plain",
        "set server plain/ready state drain",
        "set server plain/nosuch state drain",
        "set server plain/ready state ready",
        "show cli level",
        "quit",
    ];
    fixtures.write("prompt_session", &exchange(&instance.socket, &commands)?);
    let master = instance.master_socket();
    // Not by `ask`: 3.0 and 3.2 now and then keep this connection open, although its sending side is closed.
    fixtures.write("master_unknown_target", &exchange(&master, &["@2 show info"])?);
    fixtures.write("master_prompt_greeting", &exchange(&master, &["prompt"])?);
    fixtures.write("master_prompt_session", &exchange(&master, &["prompt", "@1", "show cli level", "quit"])?);
    for (name, command) in [
        ("master_show_proc", "show proc"),
        ("master_show_info", "show info"),
        ("master_show_servers_state", "show servers state"),
        ("master_worker_show_info", "@1 show info"),
        ("master_worker_show_servers_state", "@1 show servers state plain"),
        ("master_worker_success", "@1 set server plain/ready state ready"),
        ("master_worker_error", "@1 set server plain/nosuch state ready"),
        ("master_show_version", "show version"),
    ] {
        fixtures.write(name, &ask(&master, command)?);
    }
    Ok(())
}

fn proxies(servers: &[HttpBackend], agents: &[Agent], dns: &Dns, page: &Port) -> String {
    let [up, down, stopping] = [0, 1, 2].map(|at| servers[at].address());
    let agent = |at: usize| agents[at].options("100ms");
    format!(
        "\
{}
frontend front
    bind 127.0.0.1:{}
    stats enable
    stats uri /stats
    stats admin if TRUE
    default_backend plain

backend plain
    server ready {up}
    server drained {up}
    server in_maint {up}
    server config_disabled {up} disabled
    server config_disabled_ready {up} disabled
    server config_disabled_drain {up} disabled
    server weight_zero {up} weight 0
    server weight_changed {up} weight 10
    server both_flags {up}
    server new_address {up}
    server backup {up} backup

backend checked
    option httpchk GET /health
    http-check disable-on-404
    default-server check inter 100ms rise 1 fall 1
    server up {up}
    server down {down}
    server stopping {stopping}
    server drained {up}
    server drained_down {down}
    server in_maint {up}
    server slow {up} slowstart 1h
    server check_disabled {up}

backend tracked
    option httpchk GET /health
    default-server check inter 100ms rise 1 fall 1
    server ready {up}
    server in_maint {up}
    server drained {up}
    server down {down}

backend tracking
    server follows_ready {up} track tracked/ready
    server follows_maint {up} track tracked/in_maint
    server follows_maint_and_in_maint {up} track tracked/in_maint
    server follows_maint_and_drained {up} track tracked/in_maint
    server follows_drain {up} track tracked/drained
    server follows_drain_and_in_maint {up} track tracked/drained
    server follows_down {up} track tracked/down

backend dns
    default-server resolvers dns resolve-prefer ipv4 init-addr none
    server failed failed.test:80
    server failed_in_maint failed.test:80
    server failed_drained failed.test:80

backend agent
    server says_up {up} {}
    server says_drain {up} {}
    server says_maint {up} {}
    server says_down {up} {}
    server agent_disabled {up} {}

backend off
    disabled
    server one {up}
    server two {up}

backend empty
",
        dns.resolvers("dns"),
        page.number(),
        agent(0),
        agent(1),
        agent(2),
        agent(3),
        agent(0),
    )
}

fn set_the_states(instance: &Instance, page: &Port) {
    for (server, state) in [
        ("plain/drained", "drain"),
        ("plain/in_maint", "maint"),
        ("plain/config_disabled_ready", "ready"),
        ("plain/config_disabled_drain", "drain"),
        ("checked/drained", "drain"),
        ("checked/drained_down", "drain"),
        ("checked/in_maint", "maint"),
        ("checked/slow", "maint"),
        ("checked/slow", "ready"),
        ("tracked/in_maint", "maint"),
        ("tracked/drained", "drain"),
        ("tracking/follows_maint_and_in_maint", "maint"),
        ("tracking/follows_maint_and_drained", "drain"),
        ("tracking/follows_drain_and_in_maint", "maint"),
        ("dns/failed_in_maint", "maint"),
        ("dns/failed_drained", "drain"),
    ] {
        instance.set_state(server, state);
    }
    instance.set("set server plain/weight_changed weight 5");
    instance.set("disable health checked/check_disabled");
    instance.set("disable agent agent/agent_disabled");
    instance.raw("set server plain/new_address addr 127.0.0.3");
    for action in ["stop", "disable"] {
        stats_page(page.address(), "/stats", "plain", "both_flags", action);
    }
    let wanted = [
        ("plain", "both_flags", (9, 0)),
        ("plain", "config_disabled", (5, 0)),
        ("plain", "config_disabled_ready", (4, 2)),
        ("plain", "config_disabled_drain", (12, 2)),
        ("checked", "up", (0, 2)),
        ("checked", "down", (0, 0)),
        ("checked", "stopping", (0, 3)),
        ("checked", "drained_down", (8, 0)),
        ("checked", "slow", (0, 1)),
        ("tracking", "follows_maint", (2, 0)),
        ("tracking", "follows_maint_and_in_maint", (3, 0)),
        ("tracking", "follows_maint_and_drained", (10, 0)),
        ("tracking", "follows_drain", (16, 2)),
        ("tracking", "follows_drain_and_in_maint", (17, 0)),
        ("tracking", "follows_down", (0, 0)),
        ("dns", "failed", (32, 0)),
        ("dns", "failed_in_maint", (33, 0)),
        ("dns", "failed_drained", (40, 0)),
        ("agent", "says_drain", (8, 2)),
        ("agent", "says_maint", (1, 0)),
        ("agent", "says_down", (0, 0)),
        ("off", "one", (0, 2)),
    ];
    eventually_seen(PATIENCE, "all the states of the fixtures", || {
        let rows = instance.rows();
        let differ = wanted.iter().filter(|(backend, server, state)| {
            let row = &rows[&((*backend).to_owned(), (*server).to_owned())];
            (row.admin, row.op) != *state
        });
        let differ: Vec<_> = differ.collect();
        if differ.is_empty() { Ok(()) } else { Err(differ) }
    });
}

/// Sends commands on one connection, each after the whole reply to the one before it, and returns all that came.
fn exchange(socket: &Path, commands: &[&str]) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    let mut received = Vec::new();
    let mut buffer = vec![0; 65_536];
    for command in commands {
        stream.write_all(format!("{command}\n").as_bytes())?;
        // All these replies are short: silence is their end, whatever the prompt looks like.
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        while let Ok(count) = stream.read(&mut buffer)
            && count > 0
        {
            received.extend_from_slice(&buffer[..count]);
        }
    }
    Ok(received)
}
