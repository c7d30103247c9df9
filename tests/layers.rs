//! The folders of `src/` rest on each other in one order, and ARCHITECTURE.md draws what each of them uses.

// All of this is test code, but only `#[test]` functions are known as such to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The folders and files of `src/`, from the bottom up: each may use those before it.
const ORDER: [&str; 11] =
    ["model", "time", "request", "haproxy", "discover", "decide", "keep", "act", "report", "pipeline", "main"];

/// Files that belong to a layer of another name.
const PART_OF: [(&str, &str); 1] = [("cli", "main")];

/// Files that are no layer: the list of modules, and tests that are above all.
const NO_LAYER: [&str; 3] = ["lib", "fuzzing", "schema"];

/// The name of the library in the program.
const LIBRARY: &str = "haproxy_server";

/// One place where a file names something in another layer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    from: String,
    to: String,
    /// `file:line: path`.
    place: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// A word or a sign of Rust, and its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// Cuts Rust into words and signs, without comments and literals; `::` is one sign.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(sign) = source[at..].chars().next() {
        let rest = &source[at..];
        let end_of =
            |pattern: &str, from: usize| rest[from..].find(pattern).map_or(rest.len(), |it| from + it + pattern.len());
        let is_word = |it: char| it.is_alphanumeric() || it == '_';
        let (length, is_token) = if rest.starts_with("//") {
            (end_of("\n", 0), false)
        } else if rest.starts_with("/*") {
            (block_comment(rest), false)
        } else if let Some(hashes) = raw_string(rest) {
            (end_of(&format!("\"{}", "#".repeat(hashes)), rest.find('"').unwrap() + 1), false)
        } else if sign == '"' {
            (1 + quoted(&rest[1..], '"'), false)
        } else if sign == '\'' && is_char(rest) {
            (1 + quoted(&rest[1..], '\''), false)
        } else if is_word(sign) {
            (rest.find(|it| !is_word(it)).unwrap_or(rest.len()), true)
        } else if rest.starts_with("::") {
            (2, true)
        } else {
            (sign.len_utf8(), !sign.is_whitespace())
        };
        if is_token {
            tokens.push(Token { text: &rest[..length], line });
        }
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

/// The length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += rest.chars().next().unwrap().len_utf8();
        }
    }
    at
}

/// How many hashes a raw string has that begins here.
fn raw_string(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = rest.bytes().take_while(|byte| *byte == b'#').count();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// Whether a quote begins a character and not a lifetime.
fn is_char(text: &str) -> bool {
    let mut signs = text.chars().skip(1);
    match signs.next() {
        Some('\\') => true,
        Some(_) => signs.next() == Some('\''),
        None => false,
    }
}

/// The length of what stands before a closing quote, with that quote.
fn quoted(text: &str, quote: char) -> usize {
    let mut signs = text.char_indices();
    while let Some((at, sign)) = signs.next() {
        if sign == '\\' {
            signs.next();
        } else if sign == quote {
            return at + 1;
        }
    }
    text.len()
}

/// The module that a file is, from the crate's root on: `keep/state_file.rs` is `[keep, state_file]`.
fn module(file: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    if matches!(parts.last(), Some(&"mod" | &"lib" | &"main")) {
        parts.pop();
    }
    parts
}

/// The layer of a module, by the first part of its path.
fn layer(first: &str) -> Option<&str> {
    if NO_LAYER.contains(&first) {
        return None;
    }
    Some(PART_OF.iter().find(|(part, _)| *part == first).map_or(first, |(_, layer)| layer))
}

/// Everything that a file names in the crate outside of its own layer, however the path is written.
///
/// Found are paths that begin with `crate`, with the name of the library, or with as many `super` as lead out of all
/// folders, and each branch of a `{...}` behind one; a `super` within such braces counts from the file.
fn uses(file: &str, source: &str) -> Vec<Use> {
    let first = file.trim_end_matches(".rs").split('/').next().unwrap();
    let Some(from) = layer(first) else { return Vec::new() };
    let depth = module(file).len();
    let tokens = tokens(source);
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    // Of each brace that is open, whether it is a module's.
    let mut braces: Vec<bool> = Vec::new();
    let mut found = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => braces.push(at >= 2 && text(at - 2) == "mod"),
            "}" => drop(braces.pop()),
            _ => {}
        }
        if at > 0 && text(at - 1) == "::" || text(at + 1) != "::" {
            continue;
        }
        let target = match token.text {
            "crate" => at + 2,
            LIBRARY => at + 2,
            "self" | "super" => {
                let mut end = if token.text == "self" { at + 2 } else { at };
                let mut ups = 0;
                while text(end) == "super" && text(end + 1) == "::" {
                    (ups, end) = (ups + 1, end + 2);
                }
                if ups == 0 || ups < depth + braces.iter().filter(|is_module| **is_module).count() {
                    continue;
                }
                end
            }
            _ => continue,
        };
        for name in branches(&tokens[target..]) {
            let Some(to) = layer(name.text) else { continue };
            if to != from {
                let place = format!("src/{file}:{}: {from} uses {to}", name.line);
                found.insert((name.line, Use { from: from.to_owned(), to: to.to_owned(), place }));
            }
        }
    }
    found.into_iter().map(|(_, it)| it).collect()
}

/// The first name of a path that begins here, or of each of its branches.
fn branches<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let Some(first) = tokens.first() else { return Vec::new() };
    if first.text != "{" {
        return vec![*first];
    }
    let mut names = Vec::new();
    let mut depth = 0;
    let mut is_start = true;
    for token in tokens {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," => is_start |= depth == 1,
            _ if is_start && depth == 1 => {
                names.push(*token);
                is_start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// Everything that one layer names in another.
fn all_uses() -> Vec<Use> {
    let src = root().join("src");
    let files = files(&src);
    let of = |path: &PathBuf| {
        let name = path.strip_prefix(&src).unwrap().to_str().unwrap();
        uses(name, &fs::read_to_string(path).unwrap())
    };
    files.iter().flat_map(of).collect()
}

fn height(layer: &str) -> usize {
    ORDER.iter().position(|it| *it == layer).unwrap_or_else(|| panic!("'{layer}' has no place in the order of layers"))
}

/// What each layer uses, from the top down, as ARCHITECTURE.md shows it.
fn drawing(uses: &[Use]) -> String {
    let mut arrows: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for it in uses {
        arrows.entry(height(&it.from)).or_default().insert(height(&it.to));
    }
    let width = ORDER.iter().map(|layer| layer.len()).max().unwrap();
    let line = |height: usize| {
        let below = arrows.get(&height).into_iter().flatten().rev();
        let below: Vec<&str> = below.filter(|to| **to < height).map(|to| ORDER[*to]).collect();
        let uses = if below.is_empty() { "nothing of ours".to_owned() } else { below.join(", ") };
        format!("{:width$} ──▶ {uses}\n", ORDER[height])
    };
    format!("```text\n{}```\n", (0..ORDER.len()).rev().map(line).collect::<String>())
}

#[test]
fn no_folder_uses_one_above_it() {
    let upward: Vec<String> =
        all_uses().into_iter().filter(|it| height(&it.to) > height(&it.from)).map(|it| it.place).collect();
    let order = ORDER.join(" < ");
    assert!(upward.is_empty(), "{} arrows point upward in {order}:\n{}", upward.len(), upward.join("\n"));
}

#[test]
fn architecture_draws_what_each_folder_uses() {
    const BEGIN: &str = "<!-- layers: begin, written by UPDATE_SCHEMA=1 cargo test --test layers -->\n";
    const END: &str = "<!-- layers: end -->\n";
    let path = root().join("ARCHITECTURE.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the mark where the drawing begins");
    let (drawn, after) = rest.split_once(END).expect("the mark where the drawing ends");
    let expected = drawing(&all_uses());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    } else {
        assert_eq!(drawn, expected, "ARCHITECTURE.md is out of date: UPDATE_SCHEMA=1 cargo test --test layers");
    }
}

#[test]
fn every_way_to_write_a_path_is_found() {
    let to = |file: &str, source: &str| uses(file, source).into_iter().map(|it| it.to).collect::<Vec<_>>();
    for (file, source, expected) in [
        ("model/name.rs", "use crate::act::drain;", &["act"][..]),
        ("model/name.rs", "use crate::act;", &["act"]),
        ("model/name.rs", "use crate::{act::{drain, wait}, model::x, keep as k};", &["act", "keep"]),
        ("model/name.rs", "fn f(x: crate::act::X) -> Y { crate::keep::y() }", &["act", "keep"]),
        ("model/name.rs", "pub(in crate::act) struct X; pub(crate) struct Y;", &["act"]),
        ("model/name.rs", "macro_rules! m { () => { $crate::act::x() } }", &["act"]),
        ("model/name.rs", "use super::super::act::x;", &["act"]),
        ("model/name.rs", "use self::super::super::act::x;", &["act"]),
        ("model/name.rs", "use super::state::x; use super::act;", &[]),
        ("model/name.rs", "mod tests { use super::super::act; }", &[]),
        ("model/name.rs", "mod tests { use super::super::super::act; }", &["act"]),
        ("model/name.rs", "mod tests { fn f() {} } use super::super::act;", &["act"]),
        ("model/mod.rs", "use super::act;", &["act"]),
        ("keep/state_file/content.rs", "use super::super::lock; use super::super::super::act;", &["act"]),
        ("main.rs", "use haproxy_server::pipeline; use crate::cli::Options; mod cli;", &["pipeline"]),
        ("cli.rs", "use haproxy_server::{model::name, request};", &["model", "request"]),
        ("lib.rs", "pub use crate::act::x;", &[]),
        ("model/name.rs", "// crate::act\n/* crate::act /* */ crate::act */ /// [`crate::act`]\n", &[]),
        (
            "model/name.rs",
            r##"fn f<'a>(x: &'a str) { g("crate::act \" crate::act", r#"" crate::act"#, '"', '\'', b"\\"); }"##,
            &[],
        ),
        ("model/name.rs", "fn f() { let x = 'a'; let y: &'static X = crate::act::x; }", &["act"]),
        ("model/name.rs", "use other::crate_::act; use time::Duration; use std::time::X;", &[]),
    ] {
        assert_eq!(to(file, source), expected, "{file}: {source}");
    }
    assert_eq!(uses("model/a.rs", "\n\nuse crate::act;")[0].place, "src/model/a.rs:3: model uses act");
}
