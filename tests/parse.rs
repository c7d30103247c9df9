//! The parsers against the replies that were captured from real HAProxy, byte for byte (`tests/fixtures`).

use std::path::Path;

use haproxy_server::haproxy::parse::{AnyRow, Info, Level, StatHeader, StateHeader, state_version, without_severity};

const VERSIONS: [&str; 4] = ["2.2", "2.6", "3.0", "3.2"];

fn fixture(version: &str, name: &str) -> std::io::Result<String> {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version).join(name))
}

/// The rows of a dump, without its first lines and the empty one that ends it.
fn rows(text: &str, first: usize) -> impl Iterator<Item = &str> {
    text.lines().skip(first).take_while(|line| !line.is_empty())
}

#[test]
fn every_row_of_show_servers_state_is_understood() {
    for version in VERSIONS {
        for name in ["show_servers_state.txt", "show_servers_state_user.txt", "master_worker_show_servers_state.txt"] {
            let text = fixture(version, name).unwrap();
            let mut lines = text.lines();
            state_version(lines.next().unwrap().as_bytes()).unwrap();
            let header = StateHeader::parse(lines.next().unwrap().as_bytes()).unwrap();
            let mut masks = Vec::new();
            for line in rows(&text, 2) {
                match header.row(line.as_bytes(), |_, _, _, _| true).unwrap() {
                    AnyRow::Wanted(row) => masks.push(row.flags.0),
                    AnyRow::Other { .. } => panic!("every row is wanted"),
                }
                assert!(matches!(header.row(line.as_bytes(), |_, _, _, _| false).unwrap(), AnyRow::Other { .. }));
            }
            assert!(!masks.is_empty(), "{version} {name}");
            if name == "show_servers_state.txt" {
                for mask in [0, 1, 2, 3, 5, 8, 9, 16, 32] {
                    assert!(masks.contains(&mask), "{version} was captured with a server of mask {mask}: {masks:?}");
                }
            }
        }
    }
}

#[test]
fn every_row_of_show_stat_is_understood() {
    for version in VERSIONS {
        for (name, tracks) in
            [("show_stat_of_servers_of_backend.txt", false), ("show_stat_of_tracking_servers.txt", true)]
        {
            let text = fixture(version, name).unwrap();
            let header = StatHeader::parse(text.lines().next().unwrap().as_bytes()).unwrap();
            let parsed: Vec<_> = rows(&text, 1).map(|line| header.row(line.as_bytes()).unwrap()).collect();
            assert!(!parsed.is_empty(), "{version} {name}");
            assert_eq!(parsed.iter().any(|row| row.statistics.tracks.is_some()), tracks, "{version} {name}");
        }
    }
}

#[test]
fn processes_and_levels_are_understood() {
    for version in VERSIONS {
        for name in ["show_info.txt", "master_worker_show_info.txt"] {
            let info = Info::parse(fixture(version, name).unwrap().as_bytes()).unwrap();
            assert!(info.version.starts_with(version), "{info:?}");
            assert!(info.pid > 0 && !info.stopping && info.processes == 1, "{info:?}");
        }
        for (level, expected) in [("user", Level::User), ("operator", Level::Operator), ("admin", Level::Admin)] {
            let text = fixture(version, &format!("show_cli_level_{level}.txt")).unwrap();
            assert_eq!(Level::parse(&text), Ok(expected), "{version}");
        }
    }
}

#[test]
fn refusals_are_told_from_success() {
    for version in VERSIONS {
        let words = |name: &str| without_severity(fixture(version, name).unwrap().trim()).trim().to_owned();
        for success in ["success_state.txt", "success_weight.txt", "success_shutdown_sessions.txt"] {
            assert_eq!(words(success), "", "{version} {success}");
        }
        assert_eq!(words("error_unknown_server.txt"), "No such server.");
        assert_eq!(words("error_unknown_backend.txt"), "No such backend.");
        assert_eq!(words("error_disabled_backend.txt"), "Proxy is disabled.");
        assert_eq!(words("permission_denied_operator.txt"), "Permission denied");
        assert_eq!(words("severity_string.txt"), "No such server.");
        assert_eq!(words("severity_number.txt"), "No such server.");
    }
}
