//! The fields of a request, against the published schema.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::{Map, Value, json};

use super::minion::{Minion, Salt};
use crate::described::{choices, compare, marked, request_schema, wrapped};
use crate::support::{Haproxy, Host, Stage, TestResult, repository};
use crate::tool::run;

/// A value for every field, none of which is its default.
fn request() -> Map<String, Value> {
    let request = json!({
        "server": ["web1", "web/web2"],
        "state": "maint",
        "weight": "50%",
        "health": "disabled",
        "agent": "enabled",
        "backend": ["web"],
        "address": ["127.0.0.1", "[::1]:80"],
        "instances": [{"name": "http", "socket": "/run/haproxy/http.sock"}],
        "ignore_instances": ["test-*", "edge"],
        "drain": {"timeout": 1.5, "stable": 1, "on_timeout": "rollback"},
        "shutdown_sessions": {"over": 30},
        "wait": {"timeout": 30, "stable": 2, "via": "ready", "need": "any"},
        "old_processes": "wait",
        "guard": {"min_available": "50%"},
        "expect": {"admin_state": "ready", "operational_state": "running"},
        "on_failure": "rollback",
        "state_file": {"http": "/var/lib/haproxy/http.state"},
        "owner": "alice",
        "reason": "new disk",
        "expires": "+2h",
        "ignore_owner": true,
        "on_owned": "skip",
        "lock_timeout": 5,
        "syslog": false,
        "on_missing": "fail_each",
        "on_unreachable": "skip",
        "dry_run": true,
        "diff": true,
        "timeout": 3,
        "deadline": 60
    });
    request.as_object().unwrap().clone()
}

fn schema() -> Value {
    let text = fs::read_to_string(repository().join("schema/request.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

/// Neither a function nor a state may lose one: Salt keeps some names for itself.
pub(super) fn every_field_reaches_the_program(haproxy: &Haproxy) -> TestResult {
    let request = request();
    assert_eq!(request.keys().cloned().collect::<BTreeSet<_>>(), keys(&schema()["properties"]));
    let stage = Stage::start(haproxy);
    let host = Host::with(stage.instances());
    for salt in Salt::versions() {
        let minion = Minion::new(&salt, &host);
        // The program itself, which this lets us listen to.
        let seen = minion.folder().join("request");
        let script = format!("#!/bin/sh\ntee {} | {}\n", seen.display(), host.command().display());
        let source = minion.folder().write("listens.sh", &script);
        let listener = minion.folder().join("haproxy_server");
        run(Command::new("install").args(["-m", "755"]).args([&source, &listener])).ended_with(0);
        minion.use_executable(&listener);
        let arrived = || -> Map<String, Value> {
            let text = fs::read_to_string(&seen).unwrap_or_else(|error| panic!("no request came: {error}"));
            fs::remove_file(&seen).unwrap();
            let mut arrived: Map<String, Value> = serde_json::from_str(&text).unwrap();
            assert!(matches!(arrived.remove("_noop"), Some(Value::Null)), "{text}");
            arrived
        };

        let words = request.iter().map(|(field, value)| format!("{field}={value}"));
        // All of it together is no good request: it is refused, after it has arrived.
        minion.call(["haproxy_server.apply".to_owned()].into_iter().chain(words));
        assert_eq!(arrived(), request, "a function of Salt {}", salt.version);

        let argument = |(field, value): (&String, &Value)| match field.as_str() {
            "state" => json!({"admin_state": value}),
            field => json!({field: value}),
        };
        let arguments: Vec<Value> = request.iter().map(argument).collect();
        minion.configure(&format!("[{}]", minion.folder().join("states").display()), "");
        minion.states(&json!({"all of it": {"haproxy_server.apply": arguments}}).to_string());
        minion.apply(&[&format!("pillar={}", json!({"haproxy_server": {"executable": listener}}))], 1);
        assert_eq!(arrived(), request, "a state of Salt {}", salt.version);
    }
    Ok(())
}

/// The columns of a line in a docstring.
const WIDTH: usize = 80;

/// A text of the schema, as a docstring has it.
fn in_salt(text: &str) -> String {
    let text = crate::described::words(text).replace("this host", "the minion").replace('…', "...");
    marked(&text, |code| format!("``{code}``"))
}

/// The definition that a field or a part of one refers to.
fn definition<'a>(schema: &'a Value, part: &'a Value) -> Option<&'a Value> {
    let refers = |value: &'a Value| value["$ref"].as_str();
    let path = refers(part).or_else(|| part["anyOf"].as_array()?.iter().find_map(refers))?;
    schema.pointer(path.trim_start_matches('#'))
}

/// The parts or the words that a field may have, as a list.
fn list(schema: &Value, field: &Value) -> Vec<String> {
    let Some(form) = definition(schema, field) else { return Vec::new() };
    let item = |word: &str, meaning: &str| {
        wrapped("        * ", &format!("``{word}``: {}", in_salt(&meaning.replace(" The default.", ""))), WIDTH)
    };
    let mut lines = Vec::new();
    let forms = form["anyOf"].as_array().into_iter().flatten().chain([form]);
    for (name, part) in forms.filter_map(|form| form["properties"].as_object()).flatten() {
        let mut meaning = part["description"].as_str().expect("a description").to_owned();
        for (words, each) in definition(schema, part).map(choices).unwrap_or_default() {
            meaning.push_str(&format!(" `{}`: {each}", words[0]));
        }
        if let Some(default) = part.get("default") {
            meaning.push_str(&format!(" `{}` by default.", default.to_string().trim_matches('"')));
        }
        lines.extend(item(name, &meaning));
    }
    lines.extend(choices(form).into_iter().flat_map(|(words, meaning)| item(words[0], meaning)));
    lines
}

/// The descriptions are the schema's, but for `dry_run`, which has a name of Salt's beside it.
pub(super) fn fields_and_schema_agree(_: &Haproxy) -> TestResult {
    let schema = request_schema();
    let path = repository().join("modules/salt/_modules/haproxy_server.py");
    let mut source = fs::read_to_string(&path)?;
    for (name, field) in schema["properties"].as_object().expect("properties") {
        if name == "dry_run" {
            continue;
        }
        let apply = source.find("\ndef apply(").expect("the function");
        let head = format!("\n    {name}\n");
        let start =
            apply + source[apply..].find(&head).unwrap_or_else(|| panic!("no {name} is described")) + head.len();
        let is_of_it = |line: &&str| line.starts_with("        ") || line.trim().is_empty();
        let length: usize = source[start..].split_inclusive('\n').take_while(is_of_it).map(str::len).sum();
        let mut lines = wrapped("        ", &in_salt(field["description"].as_str().expect("a description")), WIDTH);
        let list = if name == "instances" { Vec::new() } else { list(&schema, field) };
        if !list.is_empty() {
            lines.push(String::new());
            lines.extend(list);
        }
        compare(&mut source, start..start + length, &format!("{}\n\n", lines.join("\n")), name);
    }
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, source)?;
    }
    Ok(())
}

/// The parameters of a function as Salt shows them, each with its paragraph.
fn documented(doc: &str) -> BTreeMap<String, String> {
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    let mut name = None;
    for line in doc.lines() {
        if let Some(text) = line.strip_prefix("        ") {
            if let Some(name) = &name {
                let paragraph = parameters.entry(String::clone(name)).or_default();
                paragraph.push_str(text);
                paragraph.push(' ');
            }
        } else if !line.is_empty() {
            let word = line.trim();
            name = (!word.contains([' ', ':', '.'])).then(|| word.to_owned());
        }
    }
    parameters
}

/// The choices, the names of the parts and the defaults in a part of the schema.
fn words(schema: &Value, part: &Value, found: &mut BTreeSet<String>) {
    match part {
        Value::Object(part) => {
            if let Some(reference) = part.get("$ref").and_then(Value::as_str) {
                words(schema, &schema["$defs"][reference.trim_start_matches("#/$defs/")], found);
            }
            if let Some(choices) = part.get("enum").and_then(Value::as_array) {
                found.extend(choices.iter().filter_map(Value::as_str).map(|choice| format!("``{choice}``")));
            }
            if let Some(parts) = part.get("properties").and_then(Value::as_object) {
                found.extend(parts.keys().map(|name| format!("``{name}``")));
            }
            if let Some(default) = part.get("default") {
                found.insert(default.to_string().replace('"', "``"));
            }
            for (key, value) in part {
                if !["description", "examples", "enum", "default"].contains(&key.as_str()) {
                    words(schema, value, found);
                }
            }
        }
        Value::Array(parts) => parts.iter().for_each(|part| words(schema, part, found)),
        _ => (),
    }
}

/// The default that a description ends with, as in "10 by default".
fn default(description: &str) -> Option<String> {
    let (before, _) = description.split_once(" by default")?;
    let word = before.rsplit([' ', '\n', ',']).next()?.trim_matches('`').to_lowercase();
    (word.parse::<u32>().is_ok() || ["false", "fail", "keep"].contains(&word.as_str())).then_some(word)
}

pub(super) fn every_field_is_documented(haproxy: &Haproxy) -> TestResult {
    let stage = Stage::start(haproxy);
    let host = Host::with(stage.instances());
    let schema = schema();
    let salt = Salt::versions().pop().expect("a version");
    let minion = Minion::new(&salt, &host);
    let docs = minion.value(["sys.doc", "haproxy_server"]);
    for (function, doc) in docs.as_object().unwrap() {
        assert!(doc.as_str().unwrap().contains("CLI Example:"), "{function} has no example");
    }
    let mut parameters = documented(docs["haproxy_server.apply"].as_str().unwrap());
    parameters.remove("test").expect("'test' to be documented");
    assert_eq!(parameters.keys().cloned().collect::<BTreeSet<_>>(), keys(&schema["properties"]));
    for (name, paragraph) in &parameters {
        let mut expected = BTreeSet::new();
        words(&schema, &schema["properties"][name], &mut expected);
        if name == "expect" {
            // The other names of the states are said once, with `state`.
            expected.retain(|word| !word.starts_with("``enable") && !word.starts_with("``disable"));
        }
        for word in expected {
            assert!(paragraph.contains(&word), "'{name}' does not say {word}: {paragraph}");
        }
        let description = schema["properties"][name]["description"].as_str().unwrap();
        // Defaults of the parts, as those of `drain`, are words of the schema.
        if let Some(value) = default(description) {
            assert_eq!(default(paragraph), Some(value), "'{name}' has another default: {paragraph}");
        }
    }
    let functions = keys(&docs);
    let states = minion.value(["sys.list_state_functions", "haproxy_server"]);
    let states: BTreeSet<String> =
        states.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    assert_eq!(states.difference(&functions).collect::<Vec<_>>(), ["haproxy_server.mod_watch"]);
    assert!(functions.is_subset(&states), "{functions:?} and {states:?}");
    Ok(())
}
