//! What the module says of itself, and the checks that Puppet's users put a module through.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Map, Value};

use super::On;
use super::site::{Puppet, Site, assert_says, module};
use crate::page;
use crate::support::{Folder, Haproxy, TestResult, repository};
use crate::tool;

pub(crate) fn tests() -> Vec<On> {
    on_each![type_and_schema_agree, task_and_schema_agree, checks_of_a_module_pass]
}

fn request_schema() -> Value {
    let text = fs::read_to_string(repository().join("schema/request.schema.json")).expect("the schema");
    serde_json::from_str(&text).expect("a schema")
}

fn properties(schema: &Value) -> &Map<String, Value> {
    schema["properties"].as_object().expect("properties")
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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

/// The words of an enumeration, with what each group of them means.
fn choices(definition: &Value) -> Vec<(Vec<&str>, &str)> {
    let each = definition["oneOf"].as_array().into_iter().flatten();
    each.map(|choice| {
        let words = choice["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        (words, choice["description"].as_str().expect("a description"))
    })
    .collect()
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

fn type_and_schema_agree(_: &Haproxy, puppet: Puppet) -> TestResult {
    let schema = request_schema();
    let folder = Folder::new();
    let out = folder.join("strings.json");
    let mut strings = puppet.tool("puppet");
    strings.args(["strings", "generate", "--format", "json", "--out"]).arg(&out);
    let files = ["lib/puppet/type/*.rb", "lib/puppet/provider/*/*.rb", "tasks/*.json", "plans/*.pp"];
    strings.args(files.map(|files| module().join(files)));
    // It leaves a database where it is run.
    let ran = tool::run(strings.current_dir(folder.path()).env("HOME", folder.path())).ended_with(0);
    assert_says(&ran.out, &["100.00% documented"]);
    assert!(!ran.err.contains("[warn]"), "{}", ran.err);
    let strings: Value = serde_json::from_str(&fs::read_to_string(out)?)?;
    let the_type = &strings["resource_types"][0];
    let source = fs::read_to_string(module().join("lib/puppet/type/haproxy_server.rb"))?;

    let mut found = BTreeSet::new();
    let entries = ["properties", "parameters"].map(|kind| the_type[kind].as_array().expect("entries"));
    for entry in entries.into_iter().flatten() {
        let name = entry["name"].as_str().expect("a name");
        let field = match name {
            "name" | "provider" | "operational_state" => continue,
            "ensure" => "state",
            "show_diff" => "diff",
            name => name,
        };
        found.insert(field.to_owned());
        if field == "diff" {
            continue;
        }
        let description = words(entry["description"].as_str().unwrap_or_default());
        let wanted = in_puppet(properties(&schema)[field]["description"].as_str().expect("a description"));
        assert!(description.starts_with(&wanted), "{name} is described as\n{description}\ninstead of\n{wanted}");
        let definitions = definitions(&schema, &properties(&schema)[field]);
        let meanings = definitions.iter().flat_map(|definition| {
            let choices = choices(definition).into_iter().map(|(words, meaning)| (words[0].to_owned(), meaning));
            choices.chain(fields(definition).into_iter().map(|(name, meaning)| (name.clone(), meaning)))
        });
        for (word, meaning) in meanings.filter(|(word, _)| field != "instances" || word.contains('_')) {
            let item = format!("* `{word}`: {}", in_puppet(meaning));
            assert!(description.contains(&item), "{name} lacks {item:?}:\n{description}");
        }
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
    // Noop is Puppet's own.
    found.insert("dry_run".to_owned());
    assert_eq!(found, properties(&schema).keys().cloned().collect());
    Ok(())
}

fn task_and_schema_agree(_: &Haproxy, _: Puppet) -> TestResult {
    let schema = request_schema();
    let task: Value = serde_json::from_str(&fs::read_to_string(module().join("tasks/init.json"))?)?;
    assert_eq!((&task["input_method"], &task["supports_noop"]), (&"stdin".into(), &true.into()));
    let parameters = task["parameters"].as_object().expect("parameters");
    let names = |object: &Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(parameters), names(properties(&schema)));
    for (name, parameter) in parameters {
        let wanted = words(properties(&schema)[name]["description"].as_str().expect("a description"));
        assert_eq!(parameter["description"], wanted.as_str(), "{name}");
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
    let plan = module().join("plans/rolling_maintenance.pp");
    tool::run(puppet.tool("puppet-lint").arg("--fail-on-warnings").args(&manifests).arg(&plan)).ended_with(0);
    tool::run(site.puppet("parser").arg("validate").args(&manifests)).ended_with(0);
    tool::run(site.puppet("parser").args(["validate", "--tasks"]).arg(&plan)).ended_with(0);

    let out = tool::run(site.puppet("describe").arg("haproxy_server").env("LC_ALL", "C")).ended_with(0).out;
    assert_says(&out, &["Takes HAProxy backend servers out of service", "- **drain**", "- **weight**"]);

    let mut rspec = puppet.tool("rspec");
    rspec.current_dir(module()).env("HOME", site.folder.path());
    assert_says(&tool::run(&mut rspec).ended_with(0).out, &["examples, 0 failures"]);
    Ok(())
}
