//! Generates the published JSON Schemas from the types of request and report, and fails when they have drifted.
//!
//! `make schema` regenerates them. The program embeds the written files, so the generator is needed only in tests.

use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use crate::report::{CONTRACT, Report};
use crate::request::Wire;

fn generate<T: JsonSchema>(of: &str, settings: SchemaSettings) -> Schema {
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("$id".to_owned(), Value::from(format!("urn:haproxy_server:schema:{of}:{CONTRACT}")));
    schema
}

fn request() -> Schema {
    let mut schema = generate::<Wire>("request", SchemaSettings::draft2020_12());
    // What Ansible puts in the place of `omit` means leaving the field out.
    let omitted = json!({ "type": "string", "pattern": "^__omit_place_holder__" });
    let absent = json!({ "anyOf": [{ "type": "null" }, omitted] });
    let given = |field: &str| json!({ "required": [field], "properties": { (field): { "not": absent } } });
    let fields = schema.get_mut("properties").and_then(Value::as_object_mut).unwrap();
    for choices in fields.values_mut().filter_map(|field| field.get_mut("anyOf")?.as_array_mut()) {
        choices.push(omitted.clone());
    }
    schema.insert("patternProperties".to_owned(), json!({ "^_": { "description": "Belongs to the calling tool." } }));
    let is_change = ["state", "weight", "health", "agent"].map(given);
    schema.insert("if".to_owned(), json!({ "anyOf": is_change }));
    schema.insert("then".to_owned(), json!({ "anyOf": [given("server"), given("address")] }));
    schema.insert(
        "examples".to_owned(),
        json!([
            {},
            { "server": "web1" },
            { "server": "web1", "state": "maint" },
            { "server": ["web1", "app/web2"], "state": "ready", "weight": "100%", "instances": ["http", "ldap"] },
            { "server": "web[1-3]", "state": "drain", "backend": "app*", "on_missing": "elsewhere_ok", "dry_run": true, "diff": true },
            { "instances": [{ "name": "puppet", "socket": "/run/haproxy/puppet.sock" }], "timeout": 2.5 },
        ]),
    );
    schema
}

fn report() -> Schema {
    let mut schema = generate::<Report<'_>>("report", SchemaSettings::draft2020_12().for_serialize());
    schema.insert("examples".to_owned(), json!([example_report()]));
    schema
}

/// The report of a run that takes a server out.
fn example_report() -> Value {
    let msg = "web1: maint in 1 of 1 backend on 1 of 1 instance";
    json!({
        "changed": true, "failed": false, "dry_run": false, "msg": msg, "comment": msg, "state": "maint",
        "servers": [{
            "instance": "http", "backend": "app", "server": "web1", "address": "192.0.2.1:8080",
            "changed": true, "failed": false,
            "before": {
                "admin_state": "ready", "operational_state": "running", "weight": 1, "configured_weight": 1, "reasons": [], "admin_flags": 0
            },
            "after": {
                "admin_state": "maint", "operational_state": "stopped", "weight": 1, "configured_weight": 1, "reasons": ["forced"], "admin_flags": 1
            },
            "commands": ["set server app/web1 state maint"]
        }],
        "instances": [{
            "name": "http", "socket": "/run/haproxy/http.sock", "version": "2.6.12-1+deb12u4", "pid": 812,
            "changed": true, "failed": false, "matched": 1
        }],
        "warnings": [], "contract": CONTRACT, "version": env!("CARGO_PKG_VERSION")
    })
}

/// Compares with the published file, or writes it if `UPDATE_SCHEMA` is set.
fn check(name: &str, schema: &Schema) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name);
    let text = format!("{}\n", serde_json::to_string_pretty(schema).unwrap());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == text, "{name} has drifted from the types: run 'make schema'");
}

fn validator(schema: &Schema) -> jsonschema::Validator {
    jsonschema::options().build(schema.as_value()).unwrap()
}

/// The examples of the whole and those of each field, as a request with that field.
fn examples(schema: &Schema) -> Vec<Value> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut examples = list(schema.get("examples"));
    for (field, value) in schema.get("properties").and_then(Value::as_object).unwrap() {
        examples.extend(list(value.get("examples")).into_iter().map(|example| {
            let mut request = json!({ "server": "web1", "state": "maint" });
            match field.as_str() {
                "reason" | "expires" => request["owner"] = json!("alice"),
                "ignore_owner" => request["state"] = json!("ready"),
                _ => {}
            }
            request[field] = example;
            request
        }));
    }
    examples
}

#[test]
fn the_published_schemas_are_those_of_the_types() {
    check("request.schema.json", &request());
    check("report.schema.json", &report());
}

#[test]
fn every_example_is_valid_and_accepted() {
    let schema = request();
    let validator = validator(&schema);
    let examples = examples(&schema);
    assert!(examples.len() >= 15, "{}", examples.len());
    for example in examples {
        assert!(validator.is_valid(&example), "{example}");
        crate::request::Draft::from_json(example.to_string().as_bytes()).unwrap().check().unwrap();
    }
}

#[test]
fn the_example_report_is_valid() {
    assert!(validator(&report()).is_valid(&example_report()));
}

#[test]
fn every_known_field_is_in_the_schema() {
    let schema = request();
    let mut fields: Vec<&String> = schema.get("properties").and_then(Value::as_object).unwrap().keys().collect();
    fields.sort();
    let mut known = crate::request::KNOWN;
    known.sort();
    assert_eq!(fields, known);
}

#[test]
fn every_field_says_what_it_means() {
    for schema in [request(), report()] {
        for (field, value) in schema.get("properties").and_then(Value::as_object).unwrap() {
            let description = value.get("description").and_then(Value::as_str).unwrap_or_default();
            assert!(description.ends_with('.'), "{field}: {description:?}");
        }
    }
}
