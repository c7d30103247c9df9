//! What `make` says on a machine on which something is missing.

// All of this is test code, but only `#[test]` functions are known as such to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Finds make itself, which has to run without its PATH.
fn make() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join("make")).find(|make| make.exists()).expect("make is on PATH")
}

/// Runs `make TARGET` with nothing but one folder on PATH; it has to fail. Returns what it says.
fn fails(target: &str, path: &Path) -> String {
    let mut command = Command::new(make());
    command.arg(target).current_dir(env!("CARGO_MANIFEST_DIR")).env("PATH", path);
    for variable in ["CARGO", "RUSTC", "MAKEFLAGS", "MAKELEVEL"] {
        command.env_remove(variable);
    }
    let run = command.output().unwrap();
    assert_eq!(run.status.code(), Some(2), "{target}");
    assert_eq!(String::from_utf8(run.stdout).unwrap(), "", "{target} runs nothing");
    String::from_utf8(run.stderr).unwrap()
}

/// The packages that the documents say to install, without `make` itself.
fn apt_line(document: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("apt install make ")).expect(document);
    line.split(" #").next().unwrap().trim_end().to_owned()
}

#[test]
fn make_names_all_that_is_missing_at_once() {
    let empty = tempfile::tempdir().unwrap();
    let tests = "cargo, cc, bash, python3, python3's venv, python3's headers, sshd, ssh, sudo, puppet, puppet-strings, \
                 rspec, puppet-lint, metadata-json-lint";
    for (target, missing, document) in [
        ("build", "cargo, cc", Some("README.md")),
        ("schema", "cargo, cc", None),
        ("demo", "cargo, cc, python3", None),
        ("cycles", "cargo, cc, bash", None),
        ("fixtures", "cargo, cc, bash", None),
        ("test-matrix", "cargo, cc, bash", None),
        ("mutants", "cargo, cc, bash", None),
        ("coverage", "cargo, cc, bash, python3", None),
        ("soak", "cargo, cc, bash", None),
        ("fleet", "cargo, cc, bash, python3, python3's venv, sshd, ssh", None),
        ("bench", "cargo, cc, bash, python3, python3's venv", None),
        ("docs", "cargo, cc, bash", None),
        ("package", "cargo, cc, bash, python3, python3's venv", None),
        ("package-test", "cargo, cc, bash, python3, python3's venv", None),
        ("tools", tests, None),
        ("test", tests, Some("CONTRIBUTING.md")),
    ] {
        let said = fails(target, empty.path());
        let sentence = format!("make: '{target}' needs what is missing here: {missing}\n");
        assert!(said.starts_with(&sentence), "{target}: {said}");
        if let Some(document) = document {
            let packages = format!("\nmake: on Debian stable: apt install {}\n", apt_line(document));
            assert!(said.contains(&packages), "{document} has others than {said}");
        }
    }
}

#[test]
fn make_names_a_rust_that_is_too_old() {
    let folder = tempfile::tempdir().unwrap();
    for (name, says) in [("cargo", "cargo 1.63.0 (Debian 12)"), ("cc", "")] {
        let file = folder.path().join(name);
        fs::write(&file, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let said = fails("build", folder.path());
    assert!(said.contains("is missing here: Rust 1.85 or later (cargo is 1.63.0)\n"), "{said}");
    fs::write(folder.path().join("cargo"), "#!/bin/sh\nexit 1\n").unwrap();
    let said = fails("build", folder.path());
    assert!(said.contains("is missing here: a toolchain for cargo (rustup default stable)\n"), "{said}");
}
