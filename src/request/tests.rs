//! What hosts send, value by value: read as Ansible's own converters would, or clearly refused.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::goal::Weight;

fn from_json(bytes: &[u8]) -> std::result::Result<Request, Refused> {
    Draft::from_json(bytes).map_err(refused).and_then(Draft::check)
}

fn from_words(words: &[String]) -> std::result::Result<Request, Refused> {
    Draft::from_words(words).map_err(refused).and_then(Draft::check)
}

fn refused(error: Error) -> Refused {
    Refused { error, is_task: false, dry_run: false }
}

/// Reads a request that is given as a value.
fn read(value: &Value) -> std::result::Result<Request, Refused> {
    from_json(value.to_string().as_bytes())
}

/// Returns the sentence of a refusal.
fn refusal(request: &str) -> String {
    let refused = from_json(request.as_bytes()).unwrap_err();
    assert_eq!(refused.error.kind, ErrorKind::BadRequest);
    refused.error.msg.clone()
}

fn schema() -> jsonschema::Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/request.schema.json");
    let schema = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

/// What Ansible makes of each value for an option of the type; nothing where it refuses it.
///
/// The files hold what `AnsibleModule` of that version returned, as Python writes JSON: with `NaN` and `Infinity`.
fn oracle(version: &str, kind: &str) -> Vec<(Value, Option<Value>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cases/ansible-coercion-{version}.json"));
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.replace("\"ok\": NaN", "\"ok\": \"NaN\"").replace("\"ok\": Infinity", "\"ok\": \"Infinity\"");
    let table: Value = serde_json::from_str(&text).unwrap();
    let rows = table[kind].as_array().unwrap();
    assert!(rows.len() >= 60, "{kind}");
    rows.iter().map(|row| (row[0].clone(), row[1].get("ok").cloned())).collect()
}

const VERSIONS: [&str; 2] = ["2.14", "2.21"];

/// Puts the value into the field of a change.
fn with(field: &str, value: &Value) -> Value {
    let mut request = json!({ "server": "web1", "state": "maint" });
    request[field] = value.clone();
    request
}

/// Compares a field over a whole table: `seen` is what the request then says.
fn compare(field: &str, kind: &str, seen: impl Fn(&Request) -> Value) -> usize {
    let schema = schema();
    let mut accepted = 0;
    for version in VERSIONS {
        for (input, expected) in oracle(version, kind).into_iter().filter(|(input, _)| !input.is_null()) {
            let request = with(field, &input);
            match read(&request) {
                Ok(read) => {
                    // 2.14 refuses some that 2.21 takes: what is accepted is what one of them makes of it.
                    let others = VERSIONS.map(|version| oracle(version, kind));
                    let known =
                        others.iter().flatten().any(|(other, ok)| *other == input && ok.as_ref() == Some(&seen(&read)));
                    assert!(known, "{field}: {input} became {}, but Ansible {version} says {expected:?}", seen(&read));
                    assert!(schema.is_valid(&request), "{field}: the schema refuses {input}");
                    accepted += 1;
                }
                Err(refused) => {
                    let msg = &refused.error.msg;
                    assert!(msg.contains(&format!("'{field}")), "{field}: {input} is refused with '{msg}'");
                }
            }
        }
    }
    accepted
}

#[test]
fn flags_are_read_as_ansible_reads_them() {
    for (field, seen) in [("dry_run", (|it| json!(it.dry_run)) as fn(&Request) -> Value), ("diff", |it| json!(it.diff))]
    {
        let accepted = compare(field, "bool", seen);
        assert_eq!(accepted, 2 * 19, "{field}");
    }
    // None that Ansible takes is refused, but for numbers that are written as fractions.
    for (input, expected) in VERSIONS.iter().flat_map(|version| oracle(version, "bool")) {
        if expected.is_some() && !input.is_f64() {
            read(&with("dry_run", &input)).unwrap();
        }
    }
}

#[test]
fn times_are_read_as_ansible_reads_them() {
    let accepted = compare("timeout", "float", |request| json!(request.timeout.as_secs_f64()));
    assert!(accepted >= 2 * 15, "{accepted}");
    for text in ["nan", "inf", "-5", "0", "1e9", "30s", "", "true"] {
        assert!(refusal(&with("timeout", &json!(text)).to_string()).starts_with("'timeout': "), "{text}");
    }
}

#[test]
fn weights_are_read_as_ansible_reads_them() {
    let accepted = compare("weight", "int", |request| match request.goal.and_then(|goal| goal.weight) {
        Some(Weight::Absolute(weight)) => json!(weight),
        other => json!(format!("{other:?}")),
    });
    assert!(accepted >= 2 * 10, "{accepted}");
}

#[test]
fn lists_of_names_are_read_as_ansible_reads_them() {
    let texts = |names: &mut dyn Iterator<Item = String>| json!(names.collect::<Vec<String>>());
    // Ansible leaves the items of a list as they are; a name is text.
    let schema = schema();
    for field in ["server", "backend", "instances"] {
        let seen = |request: &Request| match field {
            "server" => texts(&mut request.servers.iter().map(ToString::to_string)),
            "backend" => texts(&mut request.backends.iter().map(ToString::to_string)),
            _ => texts(&mut request.instances.iter().flatten().map(|instance| match instance {
                WantedInstance::Named(name) => name.to_string(),
                WantedInstance::At(_, address) => address.to_string(),
            })),
        };
        for version in VERSIONS {
            for (input, expected) in oracle(version, "list").into_iter().filter(|(input, _)| !input.is_null()) {
                let request = with(field, &input);
                match (read(&request), expected) {
                    (Ok(read), Some(Value::Array(items))) => {
                        let text = |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                        let items: Vec<String> = items.iter().map(text).collect();
                        assert_eq!(seen(&read), json!(items), "{field}: {input}");
                        assert!(schema.is_valid(&request), "{field}: the schema refuses {input}");
                    }
                    (Ok(read), other) => panic!("{field}: {input} became {}, not {other:?}", seen(&read)),
                    (Err(refused), _) => {
                        let msg = &refused.error.msg;
                        assert!(msg.contains(&format!("'{field}")), "{field}: {input} is refused with '{msg}'");
                    }
                }
            }
        }
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    for (key, nearest) in [
        ("servers", "server"),
        ("Server", "server"),
        ("satte", "state"),
        ("backends", "backend"),
        ("instance", "instances"),
        ("dry-run", "dry_run"),
        ("dryrun", "dry_run"),
        ("wieght", "weight"),
        ("on_mising", "on_missing"),
        ("time_out", "timeout"),
    ] {
        let msg = refusal(&json!({ key: "x" }).to_string());
        assert!(msg.contains(&format!("'{key}'")) && msg.contains(&format!("did you mean '{nearest}'")), "{msg}");
    }
    assert!(refusal(r#"{"servers": null}"#).contains("did you mean 'server'"), "also where it says nothing");
    assert!(refusal(r#"{"xyzzy": 1}"#).contains("known fields are server, state"));
    assert!(refusal(&json!({ "k".repeat(10_000): 1 }).to_string()).len() < 500, "a long key is cut");
    assert!(refusal(r#"{"a\nb": 1}"#).contains("a\\nb"), "and escaped");
}

#[test]
fn what_is_no_request_is_said_so() {
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let table = [
        (String::new(), "empty"),
        (" \n".to_owned(), "empty"),
        ("null".to_owned(), "not a JSON object"),
        ("[]".to_owned(), "not a JSON object"),
        ("\"x\"".to_owned(), "not a JSON object"),
        ("{".to_owned(), "not valid JSON"),
        ("{} {}".to_owned(), "not valid JSON"),
        ("{'server': 'web1'}".to_owned(), "not valid JSON"),
        ("server=web1".to_owned(), "not valid JSON"),
        (r#"{"timeout": NaN}"#.to_owned(), "not valid JSON"),
        (r#"{"timeout": Infinity}"#.to_owned(), "not valid JSON"),
        (r#"{"timeout": 1e999}"#.to_owned(), "not valid JSON"),
        (r#"{"server": "a", "server": "b"}"#.to_owned(), "duplicate key 'server'"),
        (r#"{"instances": [{"name": "a", "name": "b", "socket": "/x"}]}"#.to_owned(), "duplicate key 'name'"),
        (r#"{"_x": {"a": 1, "a": 2}}"#.to_owned(), "duplicate key 'a'"),
        (format!("{{\"_x\": {}}}", deep(32)), "deeper than 32"),
        (deep(100_000), ""),
        (format!("{{\"_x\": \"{}\"}}", "x".repeat(REQUEST_MAX)), "longer than 1048576 bytes"),
        (r#"{"server": ""}"#.to_owned(), "'server'"),
        (r#"{"server": []}"#.to_owned(), "'server' is empty"),
        (r#"{"server": [null]}"#.to_owned(), "'server' is empty"),
        (r#"{"server": [""]}"#.to_owned(), "'server'"),
        (r#"{"server": "a,,b"}"#.to_owned(), "'server'"),
        (r#"{"backend": []}"#.to_owned(), "'backend' is empty"),
        (r#"{"backend": ""}"#.to_owned(), "'backend'"),
        (r#"{"instances": []}"#.to_owned(), "'instances' is empty"),
        (r#"{"instances": ""}"#.to_owned(), "'instances'"),
        (r#"{"instances": {"name": "a"}}"#.to_owned(), "'instances'"),
        (r#"{"instances": {"name": "a", "socket": "/x", "level": 1}}"#.to_owned(), "'instances'"),
        (r#"{"state": "maint"}"#.to_owned(), "'server' is missing"),
        (r#"{"weight": 1}"#.to_owned(), "'server' is missing"),
        (r#"{"server": null, "state": "maint"}"#.to_owned(), "'server' is missing"),
        (r#"{"server": "a", "state": "READY"}"#.to_owned(), "did you mean 'ready'"),
        (r#"{"server": "a", "state": "maintenance"}"#.to_owned(), "'state'"),
        (r#"{"server": "a", "state": true}"#.to_owned(), "'state'"),
        (r#"{"server": 1.10, "state": "maint"}"#.to_owned(), "in quotes"),
        (r#"{"server": true, "state": "maint"}"#.to_owned(), "'server'"),
        (r#"{"server": "a", "weight": 257}"#.to_owned(), "'weight'"),
        (r#"{"server": "a", "weight": -1}"#.to_owned(), "'weight'"),
        (r#"{"server": "a", "weight": "%"}"#.to_owned(), "'weight'"),
        (r#"{"server": "a", "weight": "25601%"}"#.to_owned(), "'weight'"),
        (r#"{"server": "a", "weight": 2.5}"#.to_owned(), "'weight'"),
        (r#"{"_ansible_check_mode": "maybe"}"#.to_owned(), "'_ansible_check_mode'"),
        (r#"{"drain": true}"#.to_owned(), "'drain' is only valid with 'state': 'maint'"),
        (
            r#"{"server": "a", "state": "ready", "drain": true}"#.to_owned(),
            "'drain' is only valid with 'state': 'maint'",
        ),
        (r#"{"server": "a", "state": "ready", "reason": "x"}"#.to_owned(), "'reason' is only valid with"),
        (r#"{"server": "a", "state": "maint", "ignore_owner": true}"#.to_owned(), "'ignore_owner' is only valid with"),
        (
            r#"{"server": "a", "weight": 1, "wait": true}"#.to_owned(),
            "'wait' is only valid with a 'state', or with 'weight': 0",
        ),
        (r#"{"server": "a", "weight": "1%", "wait": true}"#.to_owned(), "'wait' is only valid with a 'state'"),
        (r#"{"server": "a", "state": "maint", "drain": {"timout": 1}}"#.to_owned(), "'drain': unknown field 'timout'"),
        (
            r#"{"server": "a", "state": "maint", "expires": "tomorrow"}"#.to_owned(),
            "'expires': 'tomorrow' is not an expiry",
        ),
    ];
    for (request, expected) in table {
        let msg = refusal(&request);
        assert!(msg.contains(expected), "{:.80}: {msg}", request);
        assert!(msg.len() < 600 && !msg.chars().any(char::is_control), "{msg}");
    }
    for bytes in
        [&b"\xff\xfe{}"[..], b"{\"server\": \"\xff\"}", b"\xef\xbb\xbf{}", b"\x00", b"{\"server\": \"\\ud800\"}"]
    {
        let refused = from_json(bytes).unwrap_err();
        assert_eq!(refused.error.kind, ErrorKind::BadRequest, "{bytes:?}");
    }
    // At the limits it is taken.
    read(&json!({ "_x": serde_json::from_str::<Value>(&deep(31)).unwrap() })).unwrap();
    let fill = "x".repeat(REQUEST_MAX - r#"{"_x":""}"#.len());
    from_json(format!(r#"{{"_x":"{fill}"}}"#).as_bytes()).unwrap();
}

#[test]
fn a_name_takes_the_bytes_that_haproxy_takes() {
    for byte in 0..=u8::MAX {
        let sign = char::from(byte);
        let is_name = sign.is_ascii_alphanumeric() || "_:.-".contains(sign);
        for field in ["server", "backend"] {
            let is_pattern = "*?".contains(sign);
            // A list, because a comma separates names in a string; one `/` separates backend and server.
            let read = read(&with(field, &json!([format!("a{sign}b")])));
            let is_taken = is_name || is_pattern || (sign == '/' && field == "server");
            assert_eq!(read.is_ok(), is_taken, "{field} with {sign:?}");
        }
        let read = read(&with("instances", &json!([{ "name": format!("a{sign}b"), "socket": "/x" }])));
        assert_eq!(read.is_ok(), is_name, "instances with {sign:?}");
    }
    for name in ["a/b/c", "/a", "a/", "/", "#1", "a/#1", "[", "[]", "a[b", "é", "a\u{2028}b", "a b"] {
        assert!(read(&with("server", &json!([name]))).is_err(), "{name}");
    }
}

#[test]
fn words_are_read_like_json() {
    let words = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        from_words(&words)
    };
    let request =
        words(&["server=web1,app/web2", "state=disable", "weight=50%", "dry_run=yes", "timeout=2.5"]).unwrap();
    let same = json!({
        "server": ["web1", "app/web2"], "state": "maint", "weight": "50%", "dry_run": true, "timeout": 2.5
    });
    assert_eq!(request, read(&same).unwrap());
    assert_eq!(words(&["instances=/run/a.sock,http"]).unwrap().instances.map(|list| list.len()), Some(2));
    let pair = words(&["instances.name=a", "instances.socket=/x"]).unwrap();
    assert_eq!(pair, read(&json!({ "instances": { "name": "a", "socket": "/x" } })).unwrap());
    let files = words(&["server=a", "state=maint", "state_file.http/web.v1=/a", "state_file.127.0.0.1:9=/b"]).unwrap();
    let same = json!({ "http/web.v1": "/a", "127.0.0.1:9": "/b" });
    assert_eq!(files, read(&json!({ "server": "a", "state": "maint", "state_file": same })).unwrap());
    for wrong in [
        &["server=a", "server=b"][..],
        &["server=a", "state=maint", "drain.timeout.x=1"],
        &["server"],
        &["=x"],
        &["server=a", "server.x=b"],
        &["server.x=a", "server=b"],
        &["server="],
        &["servers=a"],
        &["a..b=c"],
        &["server=a", "state="],
    ] {
        assert_eq!(words(wrong).unwrap_err().error.kind, ErrorKind::BadRequest, "{wrong:?}");
    }
}

#[test]
fn the_callers_keys_are_not_ours() {
    let read = |value: Value| read(&value).unwrap();
    assert!(read(json!({ "_ansible_check_mode": true })).dry_run);
    assert!(read(json!({ "_noop": "yes" })).dry_run);
    assert!(!read(json!({ "_noop": null, "_ansible_check_mode": false, "_ansible_version": "2.21" })).dry_run);
    assert!(read(json!({ "_ansible_diff": true })).diff);
    assert!(read(json!({ "_task": "haproxy_server", "_installdir": "/x" })).is_task);
    assert!(!read(json!({})).is_task && !read(json!({})).by_tool);
    assert!(read(json!({ "_ansible_check_mode": false })).by_tool && read(json!({ "_task": "x" })).by_tool);
    let omitted = "__omit_place_holder__0123456789abcdef";
    assert_eq!(read(json!({ "server": omitted, "timeout": omitted, "state": omitted })), read(json!({})));
    let refused = from_json(br#"{"_task": "x", "_noop": true, "servers": 1}"#).unwrap_err();
    assert!(refused.is_task && refused.dry_run);
}

#[test]
fn a_refused_dry_run_is_a_dry_run() {
    for (request, is_dry) in [
        (json!({ "dry_run": true, "servers": 1 }), true),
        (json!({ "dry_run": "yes", "server": "a", "state": "off" }), true),
        (json!({ "dry_run": true, "_noop": 7 }), true),
        (json!({ "dry_run": 7, "_ansible_check_mode": true }), true),
        (json!({ "dry_run": 7 }), false),
        (json!({ "dry_run": "no", "servers": 1 }), false),
    ] {
        assert_eq!(read(&request).unwrap_err().dry_run, is_dry, "{request}");
        let Value::Object(object) = request else { panic!("no object") };
        let mut draft = Draft(object);
        draft.set_dry_run();
        match draft.check() {
            Ok(request) => assert!(request.dry_run),
            Err(refused) => assert!(refused.dry_run, "{refused:?}"),
        }
    }
}

/// Values as hosts and people write them, right and wrong ones.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..400).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop_oneof![-2.0..400.0, Just(0.0), Just(3.0), Just(1e300), Just(0.001)].prop_map(Value::from),
        "[ +-]?[0-9]{0,4}[.]?[0-9]{0,2}([eE][+-]?[0-9]{1,2})?%?[ \t\n]?".prop_map(Value::from),
        "[ ]?(yes|No|TRUE|on|oFF|t|Y|1|0)[ \u{a0}]?".prop_map(Value::from),
        prop::sample::select(vec!["ready", "maint ", " drain", "disable", "fail", "fail_each", "elsewhere_ok", "skip"])
            .prop_map(Value::from),
        "[a-z*?/,\\[\\]@:. -]{0,8}".prop_map(Value::from),
        prop::sample::select(vec![
            "/run/a.sock",
            "unix@/x",
            "abns@x",
            "ipv4@127.0.0.1:9",
            "__omit_place_holder__x",
            "["
        ])
        .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            (inner.clone(), inner).prop_map(|(name, socket)| json!({ "name": name, "socket": socket })),
        ]
    })
}

fn requests() -> impl Strategy<Value = Value> {
    let keys = [
        "server",
        "state",
        "backend",
        "instances",
        "weight",
        "on_missing",
        "on_unreachable",
        "dry_run",
        "diff",
        "timeout",
        "_task",
        "_ansible_check_mode",
        "_noop",
        "_ansible_diff",
        "unknown",
    ];
    let field = (prop::sample::select(keys.to_vec()), values());
    (prop::collection::vec(field, 0..4), any::<bool>()).prop_map(|(fields, with_server)| {
        let mut request = if with_server { json!({ "server": "web1" }) } else { json!({}) };
        for (key, value) in fields {
            request[key] = value;
        }
        request
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn the_schema_accepts_what_the_program_accepts(request in requests()) {
        static SCHEMA: std::sync::OnceLock<jsonschema::Validator> = std::sync::OnceLock::new();
        if read(&request).is_ok() {
            let schema = SCHEMA.get_or_init(schema);
            let faults: Vec<String> = schema.iter_errors(&request).map(|fault| fault.to_string()).collect();
            prop_assert!(faults.is_empty(), "{request}: {faults:?}");
        }
    }

    #[test]
    fn each_field_alone_is_accepted_by_both(field in prop::sample::select(vec![
        "server", "state", "backend", "instances", "weight", "on_missing", "on_unreachable", "dry_run", "diff", "timeout",
    ]), value in values()) {
        static SCHEMA: std::sync::OnceLock<jsonschema::Validator> = std::sync::OnceLock::new();
        let request = with(field, &value);
        if read(&request).is_ok() {
            prop_assert!(SCHEMA.get_or_init(schema).is_valid(&request), "{request}");
        }
    }

    #[test]
    fn no_text_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), words in prop::collection::vec(any::<String>(), 0..4)) {
        let _ = from_json(&bytes);
        let _ = from_words(&words);
    }
}
