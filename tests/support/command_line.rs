//! What the command line says of itself, generated from the schemas: `--help`, the man page and the completions.

use serde_json::Value;

use super::{fields, meaning, package, read, section, type_of};

/// An option of the command line; `src/cli.rs` compares the names with those that it reads.
struct Flag {
    short: Option<char>,
    long: &'static str,
    takes: Takes,
    meaning: &'static str,
}

/// What follows an option.
enum Takes {
    Nothing,
    Word(&'static [&'static str]),
    Number(&'static str),
}

const FLAGS: [Flag; 7] = [
    Flag {
        short: Some('n'),
        long: "dry-run",
        takes: Takes::Nothing,
        meaning: "Plans and reports, but changes nothing.",
    },
    Flag {
        short: Some('f'),
        long: "format",
        takes: Takes::Word(&["json", "text", "table", "nagios"]),
        meaning: "The form of the report; `json` by default. `nagios` is for a status: one line, and exit code 0 ok, \
                  1 warning, 2 critical, 3 unknown.",
    },
    Flag {
        short: None,
        long: "detailed-exitcodes",
        takes: Takes::Nothing,
        meaning: "The exit code is 0 when nothing changed, 2 when something changed or is not ok, 4 after a failure and \
                  6 after a failure that came after a change. Without it the exit code is 0, or 1 when something failed.",
    },
    Flag {
        short: None,
        long: "schema",
        takes: Takes::Word(&["request", "report"]),
        meaning: "Prints the JSON Schema of the request or of the report.",
    },
    Flag {
        short: None,
        long: "stdin-timeout",
        takes: Takes::Number("SECONDS"),
        meaning: "The longest wait for the request, in seconds; 30 by default.",
    },
    Flag { short: Some('V'), long: "version", takes: Takes::Nothing, meaning: "Prints the version." },
    Flag { short: Some('h'), long: "help", takes: Takes::Nothing, meaning: "Prints the help." },
];

const SUMMARY: &str = "Takes HAProxy backend servers out of service and puts them back.";

const CALLS: [(&str, &str); 3] = [
    ("", "reads a JSON request from standard input"),
    ("FILE", "reads it from a file"),
    ("KEY=VALUE ...", "takes it from words; a.b=c sets a field of an object"),
];

const EXAMPLES: [(&str, &str); 4] = [
    ("server=web1 state=maint", "takes web1 out in all backends of all instances"),
    ("server=web1 state=ready wait=true", "puts it back, and waits until it takes traffic"),
    ("--dry-run server=web1 state=maint", "shows what would be sent"),
    ("--format text", "shows all servers that are not ok"),
];

/// The fields that come first; the others follow by name.
const FIRST: [&str; 5] = ["server", "state", "weight", "backend", "instances"];

/// A field of a request as a word of the command line.
struct Field {
    /// `drain`, or `drain.timeout`.
    name: String,
    /// The words that it takes, or none if it takes others.
    words: Vec<String>,
    /// What it takes, as it is shown; nothing if only its parts can be given.
    takes: String,
    /// The whole description.
    meaning: String,
    /// Whether it is a part of the field before.
    is_part: bool,
}

/// The words of an enumeration, and what a type takes otherwise.
fn takes(schema: &Value, of: &str) -> (Vec<String>, String) {
    let definition = &schema["$defs"][of];
    let words = definition["oneOf"].as_array().into_iter().flatten();
    let words: Vec<String> = words.map(|choice| choice["enum"][0].as_str().unwrap().to_owned()).collect();
    if !words.is_empty() {
        let shown = words.join("|");
        return (words, shown);
    }
    let shown = match of {
        "Flag" | "Drain" | "ShutdownSessions" | "Wait" => {
            return (vec!["true".to_owned(), "false".to_owned()], "true|false".to_owned());
        }
        "Names" | "Instances" => "NAMES",
        "Pause" | "Seconds" => "SECONDS",
        "Text" => "TEXT",
        "MinAvailable" => "N|N%",
        "Weight" => "0..256|N%",
        "StateFiles" => "PATH",
        "Guard" | "Expect" => "",
        _ => panic!("say what {of} takes"),
    };
    (Vec::new(), shown.to_owned())
}

fn request_fields(schema: &Value) -> Vec<Field> {
    let all = schema["properties"].as_object().unwrap();
    let first = FIRST.iter().map(|name| (*name).to_owned());
    let rest = all.keys().filter(|name| !FIRST.contains(&name.as_str())).cloned();
    let mut list = Vec::new();
    for name in first.chain(rest) {
        let mut add = |name: String, property: &Value, is_part: bool| {
            let (words, shown) = takes(schema, type_of(property));
            list.push(Field { name, words, takes: shown, meaning: meaning(schema, property), is_part });
        };
        add(name.clone(), &all[&name], false);
        for (part, property) in fields(&schema["$defs"][type_of(&all[&name])]).into_iter().flatten() {
            add(format!("{name}.{part}"), property, true);
        }
    }
    list
}

/// The first thing that a description says, up to the end of a sentence or a semicolon.
fn gist(meaning: &str) -> String {
    let end = [". ", "; "].iter().filter_map(|end| meaning.find(end)).min();
    end.map_or(meaning, |end| &meaning[..end]).trim_end_matches('.').replace('`', "").replace('…', "..")
}

/// Breaks a text into lines of at most 80 columns, each indented.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = vec![" ".repeat(indent)];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap();
        if line.trim().is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= 80 {
            *line += &format!(" {word}");
        } else {
            lines.push(format!("{}{word}", " ".repeat(indent)));
        }
    }
    lines.join("\n") + "\n"
}

/// `-f, --format json|text|table|nagios`.
fn flag(flag: &Flag) -> String {
    let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
    let takes = match flag.takes {
        Takes::Nothing => String::new(),
        Takes::Word(words) => format!(" {}", words.join("|")),
        Takes::Number(shown) => format!(" {shown}"),
    };
    format!("{short}--{}{takes}", flag.long)
}

/// What `--help` prints.
pub(crate) fn help(schema: &Value) -> String {
    let mut help = format!("{SUMMARY}\n\n");
    for (at, (words, what)) in CALLS.iter().enumerate() {
        let begin = if at == 0 { "Usage: " } else { "       " };
        help += format!("{begin}{:<42} {what}", format!("haproxy_server [OPTIONS] {words}").trim_end()).trim_end();
        help += "\n";
    }
    help += "\n";
    for (words, what) in EXAMPLES {
        help += &format!("  {:<52}{what}\n", format!("haproxy_server {words}"));
    }
    help += "\nOptions:\n";
    for it in &FLAGS {
        help += &format!("  {}\n{}", flag(it), wrapped(&it.meaning.replace('`', ""), 10));
    }
    help += "\nFields of a request (in full: man haproxy_server, or haproxy_server --schema request):\n";
    for field in request_fields(schema) {
        let shown = if field.takes.is_empty() { field.name.clone() } else { format!("{}={}", field.name, field.takes) };
        let indent = if field.is_part { 4 } else { 2 };
        help += &format!("{}{shown}\n{}", " ".repeat(indent), wrapped(&gist(&field.meaning), 10));
    }
    help
}

/// Text as roff takes it, with what stands in backquotes in bold.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('…', "...").replace('\n', " ");
    let mut out = String::new();
    for (at, part) in escaped.split('`').enumerate() {
        match at {
            0 => {}
            _ if at % 2 == 1 => out += "\\fB",
            _ => out += "\\fR",
        }
        out += part;
    }
    // A line that begins with one of these would be a command.
    if out.starts_with(['.', '\'']) { format!("\\&{out}") } else { out }
}

/// A paragraph with a heading in bold and a text below.
fn entry(heading: &str, text: &str) -> String {
    format!(".TP\n\\fB{}\\fR\n{}\n", roff(heading).trim_start(), roff(text))
}

/// The man page.
pub(crate) fn man(request: &Value, report: &Value) -> String {
    let mut page = format!(
        ".\\\" Written by `make schema`.\n.TH HAPROXY_SERVER 1 \"\" \"haproxy_server {}\" \"User Commands\"\n\
         .SH NAME\nhaproxy_server \\- take HAProxy backend servers out of service and put them back\n.SH SYNOPSIS\n",
        package("version")
    );
    let calls = CALLS.map(|(words, _)| format!(".B haproxy_server\n[\\fIOPTIONS\\fR] \\fI{words}\\fR\n"));
    page += &calls.join(".br\n");
    page += ".SH DESCRIPTION\n";
    page += &roff(
        "Takes servers out of service and puts them back, in all backends of all HAProxy instances of this host: one \
         request in, one report out. Everything that is reported was read back from HAProxy after the change.",
    );
    page += "\n.PP\n";
    page += &roff(
        "The request is a JSON object on standard input or in a file, or words of the form `KEY=VALUE`; `a.b=c` sets a \
         field of an object, commas separate the items of a list. Without `state`, `weight`, `health` and `agent` it is \
         a status, which changes nothing.",
    );
    page += "\n.SH OPTIONS\n";
    for it in &FLAGS {
        page += &entry(&flag(it), it.meaning);
    }
    page += ".SH REQUEST\n";
    for field in request_fields(request) {
        let shown = if field.takes.is_empty() { field.name.clone() } else { format!("{}={}", field.name, field.takes) };
        page += &entry(&shown, &field.meaning.replace("\\|", "|"));
    }
    page += ".SH REPORT\nOne JSON object with these fields:\n";
    for (name, property) in report["properties"].as_object().unwrap() {
        page += &entry(name, property["description"].as_str().unwrap());
    }
    page += ".SH EXIT STATUS\n";
    let codes = section(&read("docs/reference.md"), "## Exit codes");
    for row in codes.lines().filter(|line| line.starts_with("| ")).skip(2) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let heading = format!("{} (with --detailed-exitcodes: {})", cells[1], cells[2]);
        page += &entry(&heading, cells[0]);
    }
    page += ".SH ERRORS\nThe values of `kind` in the field `error` of a report:\n".replace('`', "").as_str();
    for kind in report["$defs"]["ErrorKind"]["oneOf"].as_array().unwrap() {
        page += &entry(kind["const"].as_str().unwrap(), kind["description"].as_str().unwrap());
    }
    page += ".SH EXAMPLES\n";
    for (words, what) in EXAMPLES {
        page += &entry(&format!("haproxy_server {words}"), what);
    }
    page += &format!(".SH SEE ALSO\n.BR haproxy (1)\n.PP\n{}\n", roff(&package("repository")));
    page
}

/// The words that complete a field: `state=ready`, or `server=` where others follow.
fn choices(field: &Field) -> String {
    field.words.join(" ")
}

pub(crate) fn bash(request: &Value) -> String {
    let given: Vec<Field> = request_fields(request).into_iter().filter(|field| !field.takes.is_empty()).collect();
    let keys: Vec<String> = given.iter().map(|field| format!("{}=", field.name)).collect();
    let mut cases = String::new();
    for it in &FLAGS {
        if let Takes::Word(words) = it.takes {
            let short = it.short.map_or(String::new(), |short| format!("-{short} | "));
            cases += &format!("        {short}--{}) words='{}' ;;\n", it.long, words.join(" "));
        }
    }
    let mut values = String::new();
    for field in given.iter().filter(|field| !field.words.is_empty()) {
        values += &format!("        {}) words='{}' ;;\n", field.name, choices(field));
    }
    let flags: Vec<String> = FLAGS.iter().map(|it| format!("--{}", it.long)).collect();
    format!(
        "# bash completion for haproxy_server. Written by `make schema`.\n# shellcheck shell=bash\n\n\
         _haproxy_server() {{\n    local cur=${{COMP_WORDS[COMP_CWORD]}} prev='' key='' words=''\n    COMPREPLY=()\n    \
         if ((COMP_CWORD > 0)); then prev=${{COMP_WORDS[COMP_CWORD - 1]}}; fi\n    \
         # `=` is a word of its own here.\n    if [[ $cur == '=' ]]; then\n        key=$prev cur=''\n    \
         elif [[ $prev == '=' ]] && ((COMP_CWORD > 1)); then\n        key=${{COMP_WORDS[COMP_CWORD - 2]}}\n    fi\n    \
         case ${{key:-$prev}} in\n{cases}    esac\n    case $key in\n{values}    esac\n    \
         if [[ -n $words || -n $key ]]; then\n        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n        \
         return\n    fi\n    mapfile -t COMPREPLY < <(compgen -W '{} {}' -- \"$cur\")\n    \
         if [[ ${{COMPREPLY[*]}} == *= ]]; then compopt -o nospace; fi\n    \
         if ((${{#COMPREPLY[@]}} == 0)); then mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); fi\n}}\n\n\
         complete -F _haproxy_server haproxy_server\n",
        flags.join(" "),
        keys.join(" "),
    )
}

/// A text within single quotes of zsh or fish, and without what `_arguments` and `_values` would read.
fn quoted(text: &str) -> String {
    text.replace('\'', "’").replace(['[', ']'], "").replace(':', " -")
}

pub(crate) fn zsh(request: &Value) -> String {
    let mut out = "#compdef haproxy_server\n# Written by `make schema`.\n\n_haproxy_server_field() {\n    \
                   local -a keys\n    if compset -P '*='; then\n        case $IPREFIX in\n"
        .to_owned();
    let given: Vec<Field> = request_fields(request).into_iter().filter(|field| !field.takes.is_empty()).collect();
    for field in given.iter().filter(|field| !field.words.is_empty()) {
        out += &format!("            {}=) compadd -- {} ;;\n", field.name, choices(field));
    }
    out += "            *_file*=) _files ;;\n        esac\n        return\n    fi\n    keys=(\n";
    for field in &given {
        out += &format!("        '{}:{}'\n", field.name, quoted(&gist(&field.meaning)));
    }
    out += "    )\n    _describe -t fields 'field' keys -S '=' || _files\n}\n\n_arguments -S \\\n";
    for it in &FLAGS {
        let takes = match it.takes {
            Takes::Nothing => String::new(),
            Takes::Word(words) => format!(":{}:({})", it.long, words.join(" ")),
            Takes::Number(shown) => format!(":{}:", shown.to_lowercase()),
        };
        let what = quoted(&gist(it.meaning));
        if let Some(short) = it.short {
            out += &format!("    '(-{short} --{})-{short}[{what}]{takes}' \\\n", it.long);
        }
        out += &format!("    '--{}[{what}]{takes}' \\\n", it.long);
    }
    out + "    '*:field:_haproxy_server_field'\n"
}

pub(crate) fn fish(request: &Value) -> String {
    let mut out = "# fish completion for haproxy_server. Written by `make schema`.\n\n".to_owned();
    for it in &FLAGS {
        let short = it.short.map_or(String::new(), |short| format!(" -s {short}"));
        let takes = match it.takes {
            Takes::Nothing => String::new(),
            Takes::Word(words) => format!(" -x -a '{}'", words.join(" ")),
            Takes::Number(_) => " -x".to_owned(),
        };
        out += &format!("complete -c haproxy_server{short} -l {}{takes} -d '{}'\n", it.long, quoted(&gist(it.meaning)));
    }
    for field in request_fields(request).into_iter().filter(|field| !field.takes.is_empty()) {
        let words: Vec<String> = if field.words.is_empty() {
            vec![format!("{}=", field.name)]
        } else {
            field.words.iter().map(|word| format!("{}={word}", field.name)).collect()
        };
        let what = quoted(&gist(&field.meaning));
        out += &format!("complete -c haproxy_server -a '{}' -d '{what}'\n", words.join(" "));
    }
    out
}
