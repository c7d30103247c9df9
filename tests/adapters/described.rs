//! The descriptions of the schema, as the adapters say them in their own markup.

use serde_json::Value;

use crate::support::repository;

/// What to do where a description differs from the schema.
pub(crate) const UPDATE: &str =
    "run UPDATE_SCHEMA=1 cargo test --locked --test adapters -- agree, and then the same with reference";

/// The schema of a request.
pub(crate) fn request_schema() -> Value {
    let text = std::fs::read_to_string(repository().join("schema/request.schema.json")).expect("the schema");
    serde_json::from_str(&text).expect("a schema")
}

/// A text in one line.
pub(crate) fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The words of an enumeration, with what each group of them means.
pub(crate) fn choices(definition: &Value) -> Vec<(Vec<&str>, &str)> {
    let each = definition["oneOf"].as_array().into_iter().flatten();
    each.map(|choice| {
        let words = choice["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        (words, choice["description"].as_str().expect("a description"))
    })
    .collect()
}

/// A paragraph as lines of this width: `first` goes before the first one, as many spaces before the others.
pub(crate) fn wrapped(first: &str, text: &str, width: usize) -> Vec<String> {
    let indent = " ".repeat(first.chars().count());
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) => lines.push(format!("{indent}{word}")),
            None => lines.push(format!("{first}{word}")),
        }
    }
    lines
}

/// The same text, where `code` has written each part that was between two backticks.
pub(crate) fn marked(text: &str, code: impl Fn(&str) -> String) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(at, part)| if at % 2 == 1 { code(part) } else { part.to_owned() }).collect()
}

/// Compares a part of a source with what it should be, or replaces it if `UPDATE_SCHEMA` is set.
pub(crate) fn compare(source: &mut String, place: std::ops::Range<usize>, wanted: &str, name: &str) {
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        source.replace_range(place, wanted);
    } else {
        let written = &source[place];
        assert!(written == wanted, "{name} is described as\n{written}\ninstead of\n{wanted}\n{UPDATE}");
    }
}
