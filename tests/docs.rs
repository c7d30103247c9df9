//! The documents, compared with what they are about: schemas, sources, the manifest.

// All of this is test code, but only `#[test]` functions are known as such to clippy.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[path = "support/command_line.rs"]
mod command_line;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
fn every_document_names_the_oldest_rust_that_builds() {
    let oldest = package("rust-version");
    for name in ["README.md", "CONTRIBUTING.md"] {
        let named: BTreeSet<String> = read(name)
            .split("Rust 1.")
            .skip(1)
            .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect())
            .collect();
        assert_eq!(named, BTreeSet::from([oldest.trim_start_matches("1.").to_owned()]), "{name}");
    }
}

/// The value of a key of `[package]` in Cargo.toml.
fn package(key: &str) -> String {
    let manifest = read("Cargo.toml");
    let value = manifest.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = ").map(str::to_owned));
    value.unwrap_or_else(|| panic!("no {key} in Cargo.toml")).trim_matches('"').to_owned()
}

#[test]
fn the_modules_have_the_version_and_the_address_of_the_program() {
    // The Ansible collection counts versions of its own.
    for name in ["modules/puppet/metadata.json", "modules/salt/pyproject.toml"] {
        let text = read(name);
        let mut words = text.split([' ', '"', '=', ':', '\n']).filter(|word| !word.is_empty());
        assert!(words.by_ref().any(|word| word == "version"), "{name}");
        assert_eq!(words.next(), Some(package("version").as_str()), "{name}");
    }
    let locked = format!("name = \"haproxy_server\"\nversion = \"{}\"\n", package("version"));
    assert!(read("tests/fuzz/Cargo.lock").contains(&locked), "tests/fuzz/Cargo.lock has another version");
    // What each compares the program on a host with.
    for (name, constant) in [
        ("modules/ansible/plugins/action/haproxy_server.py", "\nPROGRAM = \""),
        ("modules/puppet/lib/puppet/provider/haproxy_server/haproxy_server.rb", "::MADE_FOR = '"),
        ("modules/salt/_modules/haproxy_server.py", "\n_MADE_FOR = \""),
    ] {
        let text = read(name);
        let value = text.split_once(constant).and_then(|(_, rest)| rest.split(['"', '\'']).next());
        assert_eq!(value, Some(package("version").as_str()), "{name}");
    }
    for name in files("modules").iter().filter(|name| !name.contains("/.")) {
        let text = fs::read(path(name)).unwrap();
        let text = String::from_utf8_lossy(&text);
        for (at, _) in text.match_indices("https://github.com/lbops") {
            assert!(text[at..].starts_with(&package("repository")), "{name} names another repository");
        }
    }
}

#[test]
fn reference_has_every_field_of_a_request() {
    let listed = first_column(&section(&read("docs/reference.md"), "## Request"));
    // A part of a field counts as the field.
    let listed: BTreeSet<String> = listed.iter().map(|name| name.split('.').next().unwrap().to_owned()).collect();
    assert_eq!(listed, keys(&schema("request")["properties"]));
}

#[test]
fn reference_has_every_field_of_a_report() {
    let listed = first_column(&section(&read("docs/reference.md"), "## Report"));
    assert_eq!(listed, keys(&schema("report")["properties"]));
}

#[test]
fn reference_has_every_error_kind() {
    let listed = first_column(&section(&read("docs/reference.md"), "## Troubleshooting"));
    let kinds = schema("report")["$defs"]["ErrorKind"]["oneOf"].as_array().unwrap().clone();
    let kinds: BTreeSet<String> = kinds.iter().map(|kind| kind["const"].as_str().unwrap().to_owned()).collect();
    assert_eq!(listed, kinds);
}

/// A page of an adapter whose table of options is made of the request's schema.
struct Adapter {
    page: &'static str,
    /// Fields that the tool calls otherwise.
    renamed: &'static [(&'static str, &'static str)],
    /// Fields that the tool has a way of its own for.
    left_out: &'static [&'static str],
    /// What is to be said of a field in that tool.
    notes: &'static [(&'static str, &'static str)],
    /// How the fields of an object are given.
    objects: Objects,
}

/// How a tool takes the fields of an object, as `drain` has them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Objects {
    /// As an object.
    Whole,
    /// Each as an option of its own, as `drain_timeout`, with this between the names.
    Flat(char),
}

const ADAPTERS: [Adapter; 4] = [
    Adapter {
        page: "modules/ansible/README.md",
        renamed: &[],
        left_out: &["dry_run", "diff"],
        notes: &[("server", "Also `host`."), ("instances", "Also `socket`.")],
        objects: Objects::Whole,
    },
    Adapter {
        page: "modules/milkcheck/README.md",
        renamed: &[("timeout", "instance_timeout")],
        left_out: &["state", "dry_run", "diff"],
        notes: &[
            ("on_missing", "The file has `elsewhere_ok`."),
            ("instances", "The file has the name of the service."),
        ],
        objects: Objects::Flat('_'),
    },
    Adapter {
        page: "modules/puppet/README.md",
        renamed: &[("state", "ensure")],
        left_out: &["dry_run", "diff"],
        notes: &[("server", "The title where it is missing.")],
        objects: Objects::Whole,
    },
    Adapter {
        page: "modules/salt/README.md",
        renamed: &[],
        left_out: &[],
        notes: &[
            ("state", "In the state `apply` it is `admin_state`; elsewhere it is the name of the function or state."),
            ("server", "In a state the `name` is meant where it is missing."),
            ("dry_run", "`test=True` means the same."),
        ],
        objects: Objects::Whole,
    },
];

/// The same for the reference itself, with the places that say more.
const REFERENCE: Adapter = Adapter {
    page: "docs/reference.md",
    renamed: &[],
    left_out: &[],
    notes: &[
        ("state", "See [restore](maintenance.md#restore)."),
        ("instances", "See [Instances](#instances)."),
        ("ignore_instances", "See [Instances](#instances)."),
        ("drain", "See [Drain](maintenance.md#drain)."),
        ("shutdown_sessions", "See [Drain](maintenance.md#drain)."),
        ("wait", "See [Wait](maintenance.md#wait)."),
        ("guard", "See [Guard](maintenance.md#guard)."),
        ("on_failure", "See [Roll back](maintenance.md#roll-back)."),
        ("state_file", "See [Reloads](maintenance.md#reloads)."),
        ("owner", "See [Owners](maintenance.md#owners)."),
        ("lock_timeout", "See [Two runs at once](maintenance.md#two-runs-at-once)."),
        ("syslog", "See [the audit trail](audit.md)."),
        ("old_processes", "See [Processes from before a reload](maintenance.md#processes-from-before-a-reload)."),
    ],
    objects: Objects::Flat('.'),
};

/// What a type of the schema takes, in a word or two.
fn values(schema: &Value, of: &str) -> String {
    let definition = &schema["$defs"][of];
    let words = |of: &Value| -> Vec<String> {
        of["enum"].as_array().into_iter().flatten().map(|word| format!("`{}`", word.as_str().unwrap())).collect()
    };
    if let Some(choices) = definition["oneOf"].as_array() {
        // The first word of each is its name, the others are accepted too.
        return choices.iter().filter_map(|choice| words(choice).into_iter().next()).collect::<Vec<_>>().join(", ");
    }
    match of {
        "Flag" => "boolean".to_owned(),
        "Names" | "Instances" => "string or list".to_owned(),
        "Pause" | "Seconds" => "seconds".to_owned(),
        "Text" => "text".to_owned(),
        "MinAvailable" => "number, or `\"N%\"`".to_owned(),
        "Weight" => "0 to 256, or `\"N%\"`".to_owned(),
        "StateFiles" => "path, or `{instance: path}`, `{instance/backend: path}`".to_owned(),
        "Drain" | "ShutdownSessions" | "Wait" => format!("`true`, or `{{{}}}`", inner(definition).join(", ")),
        "Guard" | "Expect" => format!("`{{{}}}`", inner(definition).join(", ")),
        _ => panic!("say what {of} takes"),
    }
}

/// The fields of a type that is an object, or may be one.
fn inner(definition: &Value) -> Vec<String> {
    fields(definition).unwrap().keys().cloned().collect()
}

fn fields(definition: &Value) -> Option<&serde_json::Map<String, Value>> {
    let whole = definition["properties"].as_object();
    let either = || definition["anyOf"].as_array()?.iter().find_map(|one| one["properties"].as_object());
    whole.or_else(either)
}

/// The type that a property refers to.
fn type_of(property: &Value) -> &str {
    let refers = |it: &'_ Value| it["$ref"].as_str().is_some();
    let found = property["anyOf"].as_array().and_then(|all| all.iter().find(|it| refers(it))).unwrap_or(property);
    found["$ref"].as_str().unwrap().rsplit('/').next().unwrap()
}

/// The description of a property, with those of the words that it takes, and its default.
fn meaning(schema: &Value, property: &Value) -> String {
    let text = |of: &Value| of["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
    let mut meaning = text(property);
    // What the two words of a switch do stands in the description already.
    let choices = schema["$defs"][type_of(property)]["oneOf"].as_array().filter(|_| type_of(property) != "Switch");
    for choice in choices.into_iter().flatten() {
        meaning += &format!(" `{}`: {}", choice["enum"][0].as_str().unwrap(), text(choice));
    }
    let default = property.get("default").map(|it| format!(" {it} by default.").replace('"', "`"));
    meaning + &default.unwrap_or_default()
}

/// The table of options of an adapter's page.
fn options(adapter: &Adapter) -> String {
    let schema = schema("request");
    let mut table = "| option | value | meaning |\n| --- | --- | --- |\n".to_owned();
    let known = |name: &&str| schema["properties"].get(*name).is_some();
    let notes = adapter.notes.iter().map(|(name, _)| name).chain(adapter.renamed.iter().map(|(name, _)| name));
    assert!(adapter.left_out.iter().chain(notes).all(known), "{} has a field that is none", adapter.page);
    for (field, property) in schema["properties"].as_object().unwrap() {
        if adapter.left_out.contains(&field.as_str()) {
            continue;
        }
        let given = |all: &[(&str, &'static str)]| all.iter().find(|(of, _)| of == field).map(|(_, text)| *text);
        let name = given(adapter.renamed).unwrap_or(field);
        let note = given(adapter.notes).map(|note| format!(" {note}")).unwrap_or_default();
        let mut meaning_of_all = meaning(&schema, property) + &note;
        let mut row = |name: &str, value: &str, meaning: &str| {
            table += &format!("| `{name}` | {value} | {meaning} |\n");
        };
        let definition = &schema["$defs"][type_of(property)];
        let Some(parts) = fields(definition) else {
            row(name, &values(&schema, type_of(property)), &meaning_of_all);
            continue;
        };
        // The other form is a switch.
        if adapter.objects != Objects::Whole && definition["anyOf"].is_array() {
            row(name, "boolean", &std::mem::take(&mut meaning_of_all));
        }
        for (part, inner) in parts {
            match adapter.objects {
                Objects::Whole => meaning_of_all += &format!(" `{part}`: {}", meaning(&schema, inner)),
                Objects::Flat(between) => {
                    let whole = std::mem::take(&mut meaning_of_all);
                    let text = format!("{whole} {}", meaning(&schema, inner));
                    row(&format!("{name}{between}{part}"), &values(&schema, type_of(inner)), text.trim());
                }
            }
        }
        if adapter.objects == Objects::Whole {
            row(name, &values(&schema, type_of(property)), &meaning_of_all);
        }
    }
    table
}

/// Writes a table anew between its marks on a page if `UPDATE_SCHEMA` is set, or compares it.
fn check_table(page: &str, of: &str, table: &str) {
    let (begin, end) = (format!("<!-- {of}: begin -->\n"), format!("<!-- {of}: end -->\n"));
    let text = read(page);
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} has no {begin}"));
    let (shown, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{page} has no {end}"));
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(path(page), [before, &begin, table, &end, after].concat()).unwrap();
    } else {
        assert!(shown == table, "the {of} of {page} differ from the schema: run `make schema`");
    }
}

#[test]
fn adapters_pages_have_every_option() {
    for adapter in &ADAPTERS {
        check_table(adapter.page, "options", &options(adapter));
    }
}

/// The fields of a report and what the schema says of them.
fn results() -> String {
    let schema = schema("report");
    let mut table = "| field | meaning |\n| --- | --- |\n".to_owned();
    for (name, property) in schema["properties"].as_object().unwrap() {
        let text = property["description"].as_str().unwrap().replace('\n', " ").replace('|', "\\|");
        table += &format!("| `{name}` | {text} |\n");
    }
    table
}

/// Compares a generated file with what it should be, or writes it if `UPDATE_SCHEMA` is set.
fn check_generated(name: &str, text: &str) {
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(path(name), text).unwrap();
    } else {
        assert!(read(name) == text, "{name} has drifted from the schemas: run `make schema`");
    }
}

#[test]
fn reference_help_man_page_and_completions_are_those_of_the_schemas() {
    let (request, report) = (schema("request"), schema("report"));
    check_table("docs/reference.md", "options", &options(&REFERENCE));
    check_table("docs/reference.md", "results", &results());
    check_generated("src/help.txt", &command_line::help(&request));
    check_generated("packaging/haproxy_server.1", &command_line::man(&request, &report));
    check_generated("packaging/completions/haproxy_server.bash", &command_line::bash(&request));
    check_generated("packaging/completions/_haproxy_server", &command_line::zsh(&request));
    check_generated("packaging/completions/haproxy_server.fish", &command_line::fish(&request));
}

#[test]
fn packaged_examples_are_requests() {
    let request = jsonschema::validator_for(&schema("request")).unwrap();
    let examples = files("packaging/examples");
    assert!(examples.len() >= 4, "{examples:?}");
    for name in examples {
        let example: Value = serde_json::from_str(&read(&name)).unwrap();
        assert!(request.is_valid(&example), "{name}");
    }
}

#[test]
fn bash_completes_options_fields_and_their_values() {
    // Bash itself splits words at `=`.
    const SCRIPT: &str =
        "compopt() { :; }; . packaging/completions/haproxy_server.bash; COMP_WORDS=(haproxy_server \"$@\")
        COMP_CWORD=$#; _haproxy_server; echo \"${COMPREPLY[*]}\"";
    for (words, completed) in [
        (&["--form"][..], "--format"),
        (&["--format", "t"], "text table"),
        (&["--format", "=", "n"], "nagios"),
        (&["server", "=", "web1", "sta"], "state= state_file="),
        (&["state", "=", "m"], "maint"),
        (&["state", "="], "ready drain maint restore"),
        (&["drain.on"], "drain.on_timeout="),
        (&["server", "=", "w"], ""),
        (&["Cargo.l"], "Cargo.lock"),
    ] {
        let mut bash = Command::new("bash");
        let run = bash.args(["-c", SCRIPT, "bash"]).args(words).current_dir(path(".")).output().unwrap();
        assert_eq!(String::from_utf8(run.stdout).unwrap().trim_end(), completed, "{words:?}");
        assert_eq!(String::from_utf8(run.stderr).unwrap(), "", "{words:?}");
    }
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

/// Every page of the project, as a path from the repository's root.
fn pages() -> Vec<String> {
    let root = fs::read_dir(path(".")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let below = ["docs", "modules", "tests"].into_iter().flat_map(files);
    root.chain(below).filter(|name| name.ends_with(".md")).collect()
}

/// What a link may lead to in a page: the headings, as they are written in addresses, and named places.
fn anchors(page: &str) -> BTreeSet<String> {
    let is_kept = |sign: &char| sign.is_alphanumeric() || matches!(sign, '-' | '_');
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let titles = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"));
    let named = page.split("<a name=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned);
    titles.map(|title| title.chars().filter(is_kept).collect()).chain(named).collect()
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    let pages = pages();
    assert!(pages.len() >= 8, "{pages:?}");
    for page in pages {
        let text = read(&page);
        let folder = Path::new(&page).parent().unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
            let file = if file.is_empty() { PathBuf::from(&page) } else { folder.join(file) };
            assert!(path(file.to_str().unwrap()).exists(), "{page} links to {target}");
            let is_there = anchor.is_none_or(|anchor| anchors(&read(file.to_str().unwrap())).contains(anchor));
            assert!(is_there, "{page} links to {target}, which has no such heading");
        }
    }
}

/// What docs/reliability.md and docs/security.md say was tried is tried.
#[test]
fn every_case_of_reliability_and_security_is_a_test() {
    for page in ["docs/reliability.md", "docs/security.md"] {
        let text = read(page);
        let is_name = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'));
        let tests: Vec<(&str, &str)> =
            text.split('`').filter(|word| is_name(word)).filter_map(|word| word.rsplit_once("::")).collect();
        assert!(tests.len() > 20, "{page}: {tests:?}");
        for (module, name) in tests {
            if module.contains("::") {
                let file = format!("src/{}.rs", module.replace("::", "/"));
                assert!(read(&file).contains(&format!("fn {name}(")), "{file} has no test {name}");
                continue;
            }
            let file =
                if module == "judge" { "tests/soak/judge_tests.rs" } else { &*format!("tests/live/{module}.rs") };
            let source = read(file);
            let lists = ["tests![", "on_newest!["].into_iter().flat_map(|list| source.split(list).skip(1));
            let lists = lists.filter_map(|list| Some(list.split_once(']')?.0));
            let mut listed = lists.flat_map(|list| list.split(','));
            assert!(listed.any(|it| it.trim() == name), "{file} does not run {name}");
            assert!(source.contains(&format!("\nfn {name}(")), "{file} has no test {name}");
        }
    }
}

/// `live/readme.rs` plays the pages that it names; a block of commands anywhere else, and one that it leaves out, says why.
#[test]
fn every_command_of_the_pages_is_run_or_says_why_not() {
    let played = read("tests/live/readme.rs");
    let pages = files("docs").into_iter().filter(|name| name.ends_with(".md")).chain(["README.md".to_owned()]);
    let (mut run, mut left_out) = (0, 0);
    for page in pages {
        let is_played = played.contains(&format!("\"{page}\""));
        let text = read(&page);
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let why = at.checked_sub(1).and_then(|before| lines[before].strip_prefix("<!-- not run by the tests: "));
            let is_commands = ["```sh", "```console"].contains(line);
            match why.map(|why| why.trim_end_matches(" -->")) {
                Some(why) => {
                    assert!(is_commands && why.len() > 10, "{page}: {why:?} leaves nothing out, or does not say why");
                    left_out += 1;
                }
                None if is_commands => {
                    assert!(is_played, "{page}:{}: no test runs these commands", at + 1);
                    run += 1;
                }
                None => assert!(
                    !line.starts_with("```sh") && !line.starts_with("```console") && !line.starts_with("```bash"),
                    "{page}:{}: no test runs a block of commands of this kind",
                    at + 1
                ),
            }
        }
    }
    assert!(run > 20 && left_out < 8, "{run} run, {left_out} left out");
}

#[test]
fn every_page_is_in_the_contents() {
    let contents = read("docs/SUMMARY.md");
    for page in files("docs").iter().filter(|name| name.ends_with(".md") && !name.ends_with("/SUMMARY.md")) {
        let name = page.strip_prefix("docs/").unwrap();
        assert!(contents.contains(&format!("]({name})")), "docs/SUMMARY.md lacks {name}");
    }
}

/// What docs/ecosystem.md says shows something is there.
#[test]
fn every_proof_of_ecosystem_is_there() {
    let page = read("docs/ecosystem.md");
    let words: BTreeSet<&str> = page.split('`').skip(1).step_by(2).collect();
    let tests: Vec<&str> = words.iter().copied().filter(|word| word.contains("::") && !word.contains(' ')).collect();
    assert!(tests.len() > 30, "{tests:?}");
    for test in tests.into_iter().filter(|test| *test != "puppet::8") {
        let (tool, name) = (test.split("::").next().unwrap(), test.rsplit("::").next().unwrap());
        let sources = files(&format!("tests/adapters/{tool}")).into_iter().filter(|name| name.ends_with(".rs"));
        let mut sources: String = sources.map(|name| read(&name)).collect();
        sources.push_str(&read(&format!("tests/adapters/{tool}.rs")));
        let after = ["(", ",", "\n", " "].map(|sign| format!("fn {name}{sign}"));
        assert!(after.iter().any(|definition| sources.contains(definition)), "there is no test {test}");
        assert!(sources.matches(name).count() > 1, "{test} is not run");
    }
    for file in words.into_iter().filter(|word| word.starts_with("modules/")) {
        assert!(path(file).exists(), "there is no {file}");
    }
}
