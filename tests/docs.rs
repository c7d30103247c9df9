//! The documents, compared with what they are about: schemas, sources, the manifest.

// All of this is test code, but only `#[test]` functions are known as such to clippy.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn schema(name: &str) -> Value {
    serde_json::from_str(&read(&format!("schema/{name}.schema.json"))).unwrap()
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

/// The part of a page under a heading, up to the next one of any level.
fn section(page: &str, heading: &str) -> String {
    let rest = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}")).1;
    let mut is_code = false;
    let lines = rest.lines().take_while(|line| {
        is_code ^= line.starts_with("```");
        is_code || !line.starts_with('#')
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The words in backquotes in the first column of the tables of a section.
fn first_column(section: &str) -> BTreeSet<String> {
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Every file below a folder, as a path from the repository's root.
fn files(folder: &str) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path(folder)).unwrap().map(Result::unwrap) {
        let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() { all.extend(files(&name)) } else { all.push(name) }
    }
    all
}

/// The names of the dependencies in one table of Cargo.toml.
fn dependencies(table: &str) -> BTreeSet<String> {
    let manifest = read("Cargo.toml");
    let lines = manifest.lines().skip_while(|line| *line != format!("[{table}]")).skip(1);
    let entries = lines.take_while(|line| !line.starts_with('['));
    entries.filter_map(|line| Some(line.split_once([' ', '.', '='])?.0.to_owned())).collect()
}

#[test]
fn readme_has_every_field_of_a_request() {
    let listed = first_column(&section(&read("README.md"), "## Request"));
    assert_eq!(listed, keys(&schema("request")["properties"]));
}

#[test]
fn readme_has_every_field_of_a_report() {
    let listed = first_column(&section(&read("README.md"), "## Report"));
    assert_eq!(listed, keys(&schema("report")["properties"]));
}

#[test]
fn readme_has_every_error_kind() {
    let listed = first_column(&section(&read("README.md"), "## Troubleshooting"));
    let kinds = schema("report")["$defs"]["ErrorKind"]["oneOf"].as_array().unwrap().clone();
    let kinds: BTreeSet<String> = kinds.iter().map(|kind| kind["const"].as_str().unwrap().to_owned()).collect();
    assert_eq!(listed, kinds);
}

#[test]
fn architecture_maps_every_source_file() {
    let mapped = first_column(&section(&read("ARCHITECTURE.md"), "## Map"));
    let mapped: BTreeSet<String> = mapped.into_iter().filter(|name| name.starts_with("src/")).collect();
    assert_eq!(mapped, files("src").into_iter().collect());
}

#[test]
fn contributing_justifies_every_dependency() {
    let justified = first_column(&section(&read("CONTRIBUTING.md"), "## Dependencies"));
    let direct = &dependencies("dependencies") | &dependencies("dev-dependencies");
    assert!(direct.len() > 5, "{direct:?}");
    assert_eq!(justified, direct);
}

#[test]
fn changelog_has_this_version() {
    let heading = format!("\n## {} - ", env!("CARGO_PKG_VERSION"));
    assert!(read("CHANGELOG.md").contains(&heading), "CHANGELOG.md lacks {heading:?}");
}

#[test]
fn makefile_is_described_in_contributing() {
    let described = first_column(&section(&read("CONTRIBUTING.md"), "## Build and test"));
    let makefile = read("Makefile");
    let targets = makefile.lines().filter(|line| line.contains(": ") && line.contains(" ## "));
    let targets = targets.map(|line| format!("make {}", line.split(':').next().unwrap()));
    let targets: BTreeSet<String> = targets.filter(|target| target != "make help").collect();
    assert_eq!(described.into_iter().filter(|it| it.starts_with("make ")).collect::<BTreeSet<_>>(), targets);
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    for page in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"] {
        let text = read(page);
        let anchors: BTreeSet<String> = text
            .lines()
            .filter(|line| line.starts_with('#'))
            .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-").replace('\'', ""))
            .collect();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let is_there = match target.strip_prefix('#') {
                Some(anchor) => anchors.contains(anchor),
                None => path(target).exists(),
            };
            assert!(is_there, "{page} links to {target}");
        }
    }
}
