//! What the module says of itself, and the checks that Puppet's users put a module through.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Map, Value};

use super::On;
use super::site::{Puppet, Site, assert_says, module};
use crate::described::{UPDATE, choices, compare, request_schema, words, wrapped};
use crate::page;
use crate::support::{Folder, Haproxy, TestResult};
use crate::tool;

pub(crate) fn tests() -> Vec<On> {
    [on_newest![type_and_schema_agree, task_and_schema_agree], on_each![checks_of_a_module_pass]].concat()
}

fn properties(schema: &Value) -> &Map<String, Value> {
    schema["properties"].as_object().expect("properties")
}

/// The definitions that a field refers to, with all below them.
fn definitions<'a>(schema: &'a Value, value: &'a Value) -> Vec<&'a Value> {
    match value {
        Value::Object(object) => {
            let referred = object.get("$ref").and_then(Value::as_str);
            let found = referred.map(|path| &schema["$defs"][path.trim_start_matches("#/$defs/")]);
            let below = found.into_iter().flat_map(|found| definitions(schema, found));
            let here = object.values().flat_map(|value| definitions(schema, value));
            found.into_iter().chain(below).chain(here).collect()
        }
        Value::Array(values) => values.iter().flat_map(|value| definitions(schema, value)).collect(),
        _ => Vec::new(),
    }
}

/// The fields of an object in a field, with what each of them means.
fn fields(definition: &Value) -> Vec<(&String, &str)> {
    let forms = definition["anyOf"].as_array().into_iter().flatten().chain([definition]);
    let fields = forms.filter_map(|form| form["properties"].as_object()).flatten();
    fields.map(|(name, field)| (name, field["description"].as_str().unwrap_or_default())).collect()
}

/// Asserts that a Puppet type, as text, has the fields and choices that the schema has for a field of a request.
fn assert_type(name: &str, written: &str, schema: &Value) {
    for definition in definitions(schema, &properties(schema)[name]) {
        for (field, _) in fields(definition) {
            assert!(
                written.contains(&format!("{field}] =>")) || written.contains(&format!("{field} =>")),
                "{name}: {field}"
            );
        }
        let words: Vec<&str> = choices(definition).into_iter().flat_map(|(words, _)| words).collect();
        assert!(words.is_empty() || written.contains(&format!("Enum[{}]", words.join(", "))), "{name}: {words:?}");
    }
}

/// The schema's words, as a manifest has it.
fn in_puppet(text: &str) -> String {
    let text =
        words(text).replace("`state: maint`", "`ensure => maint`").replace("`state: ready`", "`ensure => ready`");
    text.replace("`state`", "`ensure`")
}

/// What the type says about a field besides the schema.
const NOTES: [(&str, &str); 2] = [
    ("server", "The title by default."),
    ("expires", "Prefer a time to a duration: `+2h` starts anew on every Puppet run."),
];

/// The columns of a description in the type.
const WIDTH: usize = 70;

/// The description of a field, and its default.
fn meaning(property: &Value) -> String {
    let text = in_puppet(property["description"].as_str().unwrap_or_default());
    match property.get("default") {
        Some(default) => format!("{text} `{}` by default.", default.to_string().trim_matches('"')),
        None => text,
    }
}

/// The words or the fields that a field may have, as a list.
fn list(schema: &Value, property: &Value, indent: usize) -> Vec<String> {
    let refers = |value: &Value| value["$ref"].as_str().map(|path| path.trim_start_matches("#/$defs/").to_owned());
    let either = || property["anyOf"].as_array()?.iter().find_map(refers);
    let Some(name) = refers(property).or_else(either) else { return Vec::new() };
    let definition = &schema["$defs"][&name];
    let first = format!("{}* ", " ".repeat(indent));
    let item = |word: &str, meaning: &str| wrapped(&first, &format!("`{word}`: {meaning}"), WIDTH);
    let forms = definition["anyOf"].as_array().into_iter().flatten().chain([definition]);
    let fields = forms.filter_map(|form| form["properties"].as_object()).flatten();
    let fields = fields.flat_map(|(name, field)| {
        item(name, &meaning(field)).into_iter().chain(list(schema, field, indent + 2)).collect::<Vec<_>>()
    });
    let choices = choices(definition).into_iter().flat_map(|(words, meaning)| item(words[0], &in_puppet(meaning)));
    fields.chain(choices).collect()
}

/// The description of a field in the type.
fn description(schema: &Value, field: &str) -> String {
    let property = &properties(schema)[field];
    let mut lines = wrapped("", &meaning(property), WIDTH);
    let list = if field == "instances" { Vec::new() } else { list(schema, property, 0) };
    if !list.is_empty() {
        lines.push(String::new());
        lines.extend(list);
    }
    if let Some((_, note)) = NOTES.iter().find(|(of, _)| *of == field) {
        lines.push(String::new());
        lines.extend(wrapped("", note, WIDTH));
    }
    let indented = |line: String| if line.is_empty() { line } else { format!("      {line}") };
    lines.into_iter().map(indented).collect::<Vec<_>>().join("\n")
}

/// The name of a field in the type, and where its description stands in the source.
fn described(source: &str, name: &str) -> std::ops::Range<usize> {
    let start = source.find(&format!("(:{name}")).unwrap_or_else(|| panic!("the type has no {name}"));
    let open = "desc <<~DOC\n";
    let from = start + source[start..].find(open).expect("its description") + open.len();
    from..from + source[from..].find("\n    DOC").expect("the end of its description")
}

fn type_and_schema_agree(_: &Haproxy, puppet: Puppet) -> TestResult {
    if puppet.is_outdated() {
        return Ok(());
    }
    let schema = request_schema();
    let folder = Folder::new();
    let out = folder.join("strings.json");
    let mut strings = puppet.tool("puppet");
    strings.args(["strings", "generate", "--format", "json", "--out"]).arg(&out);
    let files = ["lib/puppet/type/*.rb", "lib/puppet/provider/*/*.rb", "tasks/*.json", "plans/*.pp", "manifests/*.pp"];
    strings.args(files.map(|files| module().join(files)));
    // It leaves a database where it is run.
    let ran = tool::run(strings.current_dir(folder.path()).env("HOME", folder.path())).ended_with(0);
    assert_says(&ran.out, &["100.00% documented"]);
    assert!(!ran.err.contains("[warn]"), "{}", ran.err);
    let strings: Value = serde_json::from_str(&fs::read_to_string(out)?)?;
    let the_type = &strings["resource_types"][0];
    let file = module().join("lib/puppet/type/haproxy_server.rb");
    let mut source = fs::read_to_string(&file)?;
    let is_updating = puppet.updates();

    let mut found = BTreeSet::new();
    let entries = ["properties", "parameters"].map(|kind| the_type[kind].as_array().expect("entries"));
    for entry in entries.into_iter().flatten() {
        let name = entry["name"].as_str().expect("a name");
        let field = match name {
            "name" | "provider" | "operational_state" | "maintenance" => continue,
            "ensure" => "state",
            "show_diff" => "diff",
            name => name,
        };
        found.insert(field.to_owned());
        if field == "diff" {
            continue;
        }
        let wanted = description(&schema, field);
        let place = described(&source, name);
        compare(&mut source, place, &wanted, name);
        let definitions = definitions(&schema, &properties(&schema)[field]);
        // Values are either listed or checked as a type.
        match entry["values"].as_array().filter(|values| !values.is_empty()) {
            Some(values) if entry["default"].is_null() => {
                let values: BTreeSet<&str> = values.iter().filter_map(Value::as_str).collect();
                let wanted: Vec<&str> = definitions
                    .iter()
                    .flat_map(|definition| choices(definition))
                    .flat_map(|(words, _)| words)
                    .collect();
                let of_boolean = values.contains("true");
                let shown =
                    values.iter().flat_map(|value| value.split([' ', ',', '(', ')', '`'])).collect::<BTreeSet<_>>();
                assert!(
                    of_boolean
                        || wanted
                            .iter()
                            .all(|word| shown.contains(word) || source.contains(&format!("aliasvalue(:{word}, "))),
                    "{name}: {values:?}"
                );
                assert!(
                    of_boolean
                        || values.iter().all(|value| wanted.contains(&value.split(' ').next().unwrap_or_default())),
                    "{name}: {values:?}"
                );
            }
            _ => {
                let start = source.find(&format!("(:{name}")).expect("its definition");
                let end = source[start..].find("\n  new").map_or(source.len(), |end| start + end);
                if !source[start..end].contains("Parameter::Boolean") {
                    assert_type(field, &source[start..end], &schema);
                }
            }
        }
    }
    if is_updating {
        fs::write(file, source)?;
    }
    // Noop is Puppet's own.
    found.insert("dry_run".to_owned());
    assert_eq!(found, properties(&schema).keys().cloned().collect());
    Ok(())
}

fn task_and_schema_agree(_: &Haproxy, puppet: Puppet) -> TestResult {
    if puppet.is_outdated() {
        return Ok(());
    }
    let schema = request_schema();
    let file = module().join("tasks/init.json");
    let mut text = fs::read_to_string(&file)?;
    if puppet.updates() {
        for (name, property) in properties(&schema) {
            let open = format!("\n    \"{name}\": {{\n      \"description\": ");
            let from = text.find(&open).unwrap_or_else(|| panic!("the task has no {name}")) + open.len();
            let to = from + text[from..].find(",\n").expect("the end of a line");
            let description = words(property["description"].as_str().expect("a description"));
            text.replace_range(from..to, &Value::from(description).to_string());
        }
        fs::write(file, &text)?;
    }
    let task: Value = serde_json::from_str(&text)?;
    assert_eq!((&task["input_method"], &task["supports_noop"]), (&"stdin".into(), &true.into()));
    let parameters = task["parameters"].as_object().expect("parameters");
    let names = |object: &Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(parameters), names(properties(&schema)));
    for (name, parameter) in parameters {
        let wanted = words(properties(&schema)[name]["description"].as_str().expect("a description"));
        assert_eq!(parameter["description"], wanted.as_str(), "{name}: {UPDATE}");
        let written = parameter["type"].as_str().expect("a type");
        assert!(written.starts_with("Optional["), "{name}: {written}");
        assert_type(name, written, &schema);
    }
    Ok(())
}

fn checks_of_a_module_pass(_: &Haproxy, puppet: Puppet) -> TestResult {
    let site = Site::with_path(puppet, puppet.path());
    let metadata: Value = serde_json::from_str(&fs::read_to_string(module().join("metadata.json"))?)?;
    assert_eq!(metadata["version"], env!("CARGO_PKG_VERSION"));
    assert!(metadata["name"].as_str().is_some_and(|name| name.ends_with("-haproxy_server")), "{metadata}");
    tool::run(puppet.tool("metadata-json-lint").arg(module().join("metadata.json"))).ended_with(0);

    // The examples of the page are held to the same style as the plan.
    let mut manifests = Vec::new();
    for (number, block) in page::blocks("modules/puppet/README.md").into_iter().enumerate() {
        if block.language == "puppet" {
            manifests.push(site.folder.write(&format!("{number}.pp"), &block.text));
        }
    }
    let named = site.folder.join("modules/haproxy_server");
    let (class, plan) = (named.join("manifests/init.pp"), named.join("plans/rolling_maintenance.pp"));
    tool::run(puppet.tool("puppet-lint").arg("--fail-on-warnings").args(&manifests).args([&class, &plan]))
        .ended_with(0);
    tool::run(site.puppet("parser").arg("validate").args(&manifests).arg(&class)).ended_with(0);
    tool::run(site.puppet("parser").args(["validate", "--tasks"]).arg(&plan)).ended_with(0);

    let out = tool::run(site.puppet("describe").arg("haproxy_server").env("LC_ALL", "C")).ended_with(0).out;
    assert_says(&out, &["Takes HAProxy backend servers out of service", "- **drain**", "- **weight**"]);

    let mut rspec = puppet.tool("rspec");
    rspec.current_dir(module()).env("HOME", site.folder.path());
    assert_says(&tool::run(&mut rspec).ended_with(0).out, &["examples, 0 failures"]);
    Ok(())
}
