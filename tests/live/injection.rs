//! Nothing that somebody else wrote commands a terminal, forges a line of the system log, or breaks the line of a Nagios
//! plug-in: not a field of the request, not a word of the command line, not a word of an answer of HAProxy.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::accept::Acceptor;
use crate::support::system_log::SystemLog;
use crate::support::{Folder, Haproxy, Instance, Program, Run, Test, TestResult, on_newest, repository};

pub(crate) fn tests() -> Vec<Test> {
    // On the newest HAProxy alone, which says the most.
    on_newest![
        no_field_of_a_request_commands_anybody,
        no_word_of_the_command_line_commands_anybody,
        no_word_of_an_answer_commands_anybody,
    ]
}

/// It sets a title, turns the text red in eight bits, reverses its direction, hides, rings, and begins a line of a log.
const PAYLOAD: &str = "x\u{1b}]0;pwned\u{7}\u{9b}31m\u{202e}\u{200b}\u{7f}\r\n<29>haproxy_server[1]: changed|0";

/// The same without the ends of lines, which end an answer.
const WORD: &str = "x\u{1b}]0;pwned\u{7}\u{9b}31m\u{202e}\u{200b}\u{7f}";

const FORMS: [&str; 4] = ["json", "text", "table", "nagios"];

fn start(haproxy: &Haproxy) -> Instance {
    Instance::start(haproxy, "plain", "backend b\n    server s1 127.0.0.1:9\n    server s2 127.0.0.1:9\n")
}

/// Whether a character does more than be shown.
fn commands(sign: char) -> bool {
    (sign.is_control() && sign != '\n') || matches!(sign, '\u{200b}' | '\u{202e}')
}

/// Demands that a run has written nothing but plain lines, and that its JSON decodes to nothing else.
fn check(run: &Run, form: &str, what: &str) {
    for (name, text) in [("standard output", &run.stdout), ("standard error", &run.stderr)] {
        assert!(!text.contains(commands), "{what}, as {form}: {name} has {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("<29>")), "{what}, as {form}: {name} has {text:?}");
    }
    match form {
        "json" => {
            let mut values = vec![run.report()];
            while let Some(value) = values.pop() {
                match value {
                    // `diff` alone has lines.
                    Value::String(text) => assert!(!text.contains(commands), "{what}: {text:?}"),
                    Value::Array(items) => values.extend(items),
                    Value::Object(fields) => values.extend(fields.into_iter().map(|(_, value)| value)),
                    Value::Null | Value::Bool(_) | Value::Number(_) => {}
                }
            }
        }
        "nagios" => {
            assert_eq!((run.stdout.matches('\n').count(), run.stderr.as_str()), (1, ""), "{what}: {:?}", run.stdout);
            assert!(run.stdout.matches('|').count() <= 1, "{what}: {:?}", run.stdout);
        }
        _ => {}
    }
}

/// The names of the fields that a field of the request may have.
fn inner(schema: &Value, field: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut parts = vec![&schema["properties"][field]];
    while let Some(part) = parts.pop() {
        match part {
            Value::Object(fields) => {
                let properties = fields.get("properties").and_then(Value::as_object);
                names.extend(properties.into_iter().flatten().map(|(name, _)| name.clone()));
                let definition = fields.get("$ref").and_then(Value::as_str).map(|path| &path[1..]);
                parts.extend(definition.and_then(|path| schema.pointer(path)));
                parts.extend(fields.values());
            }
            Value::Array(items) => parts.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    names
}

fn no_field_of_a_request_commands_anybody(haproxy: &Haproxy) -> TestResult {
    let (instance, log) = (start(haproxy), SystemLog::start());
    let schema = std::fs::read(repository().join("schema/request.schema.json"))?;
    let schema: Value = serde_json::from_slice(&schema)?;
    let fields: Vec<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert!(fields.len() > 25, "{fields:?}");
    assert!(inner(&schema, "guard").contains("min_available"));
    let plain = json!({ "server": "s1", "state": "maint", "instances": instance.address() });
    let mut requests = Vec::new();
    for field in fields.iter().copied().chain([PAYLOAD, "_ansible_check_mode", "_noop", "_task", "_ansible_verbosity"])
    {
        let mut values = vec![json!(PAYLOAD), json!([PAYLOAD]), json!({ PAYLOAD: PAYLOAD })];
        values.extend(inner(&schema, field).iter().map(|name| json!({ name: PAYLOAD })));
        for value in values {
            let mut request = plain.clone();
            request[field] = value;
            requests.push((field, request));
        }
    }
    for (number, (field, request)) in requests.iter().enumerate() {
        let form = FORMS[number % FORMS.len()];
        // A plug-in only shows.
        let request = if form == "nagios" {
            let mut status = request.clone();
            if *field != "state" {
                status.as_object_mut().unwrap().remove("state");
            }
            status
        } else {
            request.clone()
        };
        let program = Program::input(request.to_string()).arg(format!("--format={form}"));
        // The words of a log are few; it takes a while to set it up.
        let is_logged = matches!(*field, "owner" | "reason" | "expires" | "server" | "backend");
        let run = match &log {
            Some(log) if is_logged => log.of(program).run(),
            Some(_) | None => program.run(),
        };
        check(&run, form, &format!("'{field}' of {request}"));
    }
    for line in log.iter().flat_map(SystemLog::take) {
        assert!(!line.contains(char::is_control) && line.matches("haproxy_server").count() <= 2, "{line:?}");
    }
    Ok(())
}

fn no_word_of_the_command_line_commands_anybody(haproxy: &Haproxy) -> TestResult {
    let instance = start(haproxy);
    let at = format!("instances={}", instance.address());
    let word = |prefix: &str| format!("{prefix}{PAYLOAD}");
    let lines = [
        vec![word("")],
        vec![word("--")],
        vec![word("-")],
        vec![word("--format=")],
        vec![word("--stdin-timeout=")],
        vec![word("/no/such/")],
        vec![word("./x="), at.clone()],
        vec![word("server="), at.clone()],
        vec![format!("{PAYLOAD}=x"), at.clone()],
        vec!["server=s1".to_owned(), word("instances=/")],
        vec!["server=s1".to_owned(), word("guard."), at.clone()],
        vec!["server=s1".to_owned(), "server=s2".to_owned(), word("state="), at],
    ];
    for line in lines {
        for form in FORMS {
            let run = Program::words([format!("--format={form}")].iter().chain(&line)).run();
            assert!(run.code != Some(0), "{line:?}: {}", run.stdout);
            // A format that is not understood is answered in JSON.
            let form = if run.stdout.starts_with('{') { "json" } else { form };
            check(&run, form, &format!("{line:?}"));
        }
    }
    Ok(())
}

/// A socket that passes everything on between the program and HAProxy, and puts [`WORD`] in place of one word that
/// HAProxy says.
struct Forger {
    at: String,
    /// How many words of HAProxy have passed.
    passed: Arc<AtomicUsize>,
    _acceptor: Acceptor,
}

impl Forger {
    /// Forges the word that comes after so many others.
    fn start(socket: &Path, target: &Path, place: usize) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket to listen on");
        let passed = Arc::new(AtomicUsize::new(0));
        let (count, target) = (passed.clone(), target.to_owned());
        let accept = |listener: &UnixListener| listener.accept().map(|(client, _)| client);
        let acceptor = Acceptor::start(listener, accept, move |client| {
            let Ok(server) = UnixStream::connect(&target) else { return };
            let (Ok(client_end), Ok(server_end), count) = (client.try_clone(), server.try_clone(), count.clone())
            else {
                return;
            };
            thread::spawn(move || pass(client_end, server_end, |bytes| bytes.to_vec()));
            thread::spawn(move || pass(server, client, |bytes| forged(bytes, &count, place)));
        });
        Self { at: socket.display().to_string(), passed, _acceptor: acceptor }
    }
}

/// Passes what comes on, as something else, until one of both ends.
fn pass(mut from: UnixStream, mut to: UnixStream, change: impl Fn(&[u8]) -> Vec<u8>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&change(&buffer[..count])).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

/// An answer with another word in one place; what separates words stays, so that the answer keeps its form.
fn forged(bytes: &[u8], passed: &AtomicUsize, place: usize) -> Vec<u8> {
    let is_between = |byte: u8| matches!(byte, b' ' | b'\n' | b',' | b':' | b'>');
    let mut said = Vec::new();
    for word in bytes.chunk_by(|one, next| is_between(*one) == is_between(*next)) {
        let is_word = !word.first().is_some_and(|byte| is_between(*byte));
        if is_word && passed.fetch_add(1, Ordering::SeqCst) == place {
            said.extend_from_slice(WORD.as_bytes());
        } else {
            said.extend_from_slice(word);
        }
    }
    said
}

fn no_word_of_an_answer_commands_anybody(haproxy: &Haproxy) -> TestResult {
    let (instance, folder) = (start(haproxy), Folder::new());
    let socket = folder.join("forger.sock");
    let requests = [
        json!({ "server": "s1", "state": "maint", "diff": true }),
        json!({ "server": "*" }),
        json!({ "server": "s1", "state": "drain", "guard": { "min_available": 1 } }),
    ];
    for (number, (request, forms)) in requests.iter().zip([&FORMS[..3], &FORMS[..], &FORMS[..2]]).enumerate() {
        let program = |forger: &Forger, form: &str, place: usize| {
            let mut request = request.clone();
            // So that every run has something to do.
            if place % 2 == 0 && request.get("state").is_some() {
                request["state"] = json!("ready");
            }
            request["instances"] = json!([{ "name": "plain", "socket": forger.at }]);
            request["timeout"] = json!(1);
            Program::request(&request).arg(format!("--format={form}"))
        };
        let honest = Forger::start(&socket, &instance.socket, usize::MAX);
        let run = program(&honest, "json", 1).run();
        assert_eq!(run.code, Some(0), "{}", run.stdout);
        let words = honest.passed.load(Ordering::SeqCst);
        drop(honest);
        assert!((100..2_000).contains(&words), "{words}");
        let mut shown = 0;
        // All begin alike, so that together they forge each word of that.
        for place in (number..words).step_by(requests.len()) {
            let form = forms[place % forms.len()];
            let forger = Forger::start(&socket, &instance.socket, place);
            let run = program(&forger, form, place).run();
            check(&run, form, &format!("word {place} of the answers to {request}"));
            shown += usize::from(format!("{}{}", run.stdout, run.stderr).contains("pwned"));
        }
        // Most are numbers that nobody asks for; some words are shown, and then without their power.
        assert!(shown > 5, "{shown} of {words} forged words were shown for {request}");
    }
    Ok(())
}
