//! The command line: what `--help` shows, and every option.

use std::ffi::OsString;
use std::time::Duration;

use haproxy_server::model::name::nearest;
use haproxy_server::request::is_field;
use lexopt::{Arg, Parser};

/// What `--help` shows; generated from the schema of the request.
pub(crate) const HELP: &str = include_str!("help.txt");

/// What `--version` shows.
const VERSION: &str = concat!("haproxy_server ", env!("CARGO_PKG_VERSION"), "\n");

const REQUEST_SCHEMA: &str = include_str!("../schema/request.schema.json");
const REPORT_SCHEMA: &str = include_str!("../schema/report.schema.json");

/// Every long option, to suggest the one that was meant.
const LONG: [&str; 7] =
    ["--dry-run", "--format", "--detailed-exitcodes", "--schema", "--stdin-timeout", "--version", "--help"];

/// How the report is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Json,
    Text,
    /// For people, in columns.
    Table,
    /// For monitoring, with exit codes of its own.
    Nagios,
}

/// Which exit codes are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ExitCodes {
    #[default]
    Plain,
    Detailed,
}

/// What the command line says.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) format: Format,
    pub(crate) exit_codes: ExitCodes,
    pub(crate) dry_run: bool,
    /// The longest wait for the request.
    pub(crate) stdin_timeout: Duration,
    /// What is printed instead of a run.
    pub(crate) print: Option<&'static str>,
    /// The arguments that are not options: a file, or the words of a request.
    pub(crate) words: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: Format::default(),
            exit_codes: ExitCodes::default(),
            dry_run: false,
            stdin_timeout: Duration::from_secs(30),
            print: None,
            words: Vec::new(),
        }
    }
}

impl Options {
    /// Reads the arguments, and says what is wrong with the first invalid one.
    ///
    /// The problem is reported in the form that the other options select, wherever they stand.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> (Self, Result<(), String>) {
        let mut options = Self::default();
        let mut result = Ok(());
        let mut parser = Parser::from_args(args);
        loop {
            match options.parse_next(&mut parser) {
                Ok(Step::Taken) => {}
                Ok(Step::End) => {
                    let result = result.and_then(|()| options.check());
                    return (options, result);
                }
                Err(problem) => result = result.and(Err(problem)),
            }
        }
    }

    /// Refuses options that do not go together.
    fn check(&self) -> Result<(), String> {
        match (self.format, self.exit_codes) {
            (Format::Nagios, ExitCodes::Detailed) => {
                Err("'--detailed-exitcodes' does not go with '--format nagios', which has its own; leave it out"
                    .to_owned())
            }
            (Format::Nagios, ExitCodes::Plain) | (Format::Json | Format::Text | Format::Table, _) => Ok(()),
        }
    }

    /// Reads one argument, and its value if it has one.
    fn parse_next(&mut self, parser: &mut Parser) -> Result<Step, String> {
        let arg = match parser.next() {
            Ok(Some(arg)) => arg,
            Ok(None) => return Ok(Step::End),
            Err(error) => return Err(sentence(error)),
        };
        match arg {
            Arg::Short('n') | Arg::Long("dry-run") => self.dry_run = true,
            Arg::Short('h') | Arg::Long("help") => self.print = Some(HELP),
            Arg::Short('V') | Arg::Long("version") => self.print = Some(VERSION),
            Arg::Long("detailed-exitcodes") => self.exit_codes = ExitCodes::Detailed,
            Arg::Short('f') | Arg::Long("format") => {
                let formats = [
                    ("json", Format::Json),
                    ("text", Format::Text),
                    ("table", Format::Table),
                    ("nagios", Format::Nagios),
                ];
                self.format = choice(parser, "--format", formats)?;
            }
            Arg::Long("schema") => {
                let schemas = [("request", REQUEST_SCHEMA), ("report", REPORT_SCHEMA)];
                self.print = Some(choice(parser, "--schema", schemas)?);
            }
            Arg::Long("stdin-timeout") => self.stdin_timeout = seconds(parser, "--stdin-timeout")?,
            Arg::Value(word) => self.words.push(text(word)?),
            Arg::Short(_) | Arg::Long(_) => {
                let problem = unknown(&arg);
                // Its value, or the letters after it, mean nothing either.
                let _ = parser.optional_value();
                return Err(problem);
            }
        }
        Ok(Step::Taken)
    }
}

/// Whether there was an argument.
enum Step {
    Taken,
    End,
}

/// Says that an option is unknown, and which one was probably meant.
fn unknown(arg: &Arg<'_>) -> String {
    let (option, field) = match arg {
        Arg::Long(name) => (format!("--{name}"), name.replace('-', "_")),
        Arg::Short(letter) => (format!("-{letter}"), String::new()),
        Arg::Value(_) => (String::new(), String::new()),
    };
    let hint = match nearest(&option, LONG) {
        Some(known) => format!("did you mean '{known}'?"),
        None if is_field(&field) => format!("write the field without dashes, as '{field}=...'"),
        None => "see --help".to_owned(),
    };
    let shown: String = option.chars().take(80).collect();
    format!("unknown option '{}'; {hint}", shown.escape_debug())
}

/// Reads the value of an option as one of its words.
fn choice<T: Copy, const N: usize>(parser: &mut Parser, option: &str, words: [(&str, T); N]) -> Result<T, String> {
    let takes = || {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("'{word}'")).collect();
        let listed = match words.as_slice() {
            [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
            all => all.concat(),
        };
        format!("'{option}' takes {listed}")
    };
    let given = parser.value().map_err(|_| takes())?;
    let found = words.iter().find(|(word, _)| given == **word);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| format!("{}, not '{}'", takes(), shown(&given)))
}

/// Reads the value of an option as a number of seconds.
fn seconds(parser: &mut Parser, option: &str) -> Result<Duration, String> {
    let takes = || format!("'{option}' takes a number of seconds from 0.001 to 86400");
    let given = parser.value().map_err(|_| takes())?;
    let number = given.to_str().and_then(|text| text.parse::<f64>().ok());
    let number = number.filter(|number| (0.001..=86_400.0).contains(number));
    number.map(Duration::from_secs_f64).ok_or_else(|| format!("{}, not '{}'", takes(), shown(&given)))
}

/// Takes an argument as text.
fn text(word: OsString) -> Result<String, String> {
    word.into_string().map_err(|word| format!("the argument '{}' is not valid UTF-8", shown(&word)))
}

/// Shows a refused value, shortened to fit into a sentence.
fn shown(value: &OsString) -> String {
    let text: String = value.to_string_lossy().chars().take(80).collect();
    text.escape_debug().to_string()
}

/// Says in our words what lexopt found wrong between two arguments.
fn sentence(error: lexopt::Error) -> String {
    match error {
        lexopt::Error::UnexpectedValue { option, value } => {
            format!("'{}' does not take a value, but got '{}'", option.escape_debug(), shown(&value))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn parse(args: &[&str]) -> (Options, Result<(), String>) {
        Options::parse(args.iter().map(OsString::from))
    }

    fn problem(args: &[&str]) -> String {
        parse(args).1.unwrap_err()
    }

    #[test]
    fn options_are_read_in_every_form() {
        let all = Options {
            format: Format::Text,
            exit_codes: ExitCodes::Detailed,
            dry_run: true,
            stdin_timeout: Duration::from_millis(1500),
            print: None,
            words: vec!["server=web1".to_owned(), "state=maint".to_owned()],
        };
        for args in [
            "--dry-run --format text --detailed-exitcodes --stdin-timeout 1.5 server=web1 state=maint",
            "server=web1 -n --format=text state=maint --stdin-timeout=1.5 --detailed-exitcodes",
            "-nf text --detailed-exitcodes --stdin-timeout 1.5 -- server=web1 state=maint",
            "-n -ftext --detailed-exitcodes server=web1 --stdin-timeout=1.5 -- state=maint",
            "-nf=text --detailed-exitcodes --stdin-timeout 1.5 server=web1 -- state=maint",
        ] {
            let args: Vec<&str> = args.split(' ').collect();
            let (options, result) = parse(&args);
            assert_eq!((&options, result), (&all, Ok(())), "{args:?}");
        }
        assert_eq!(parse(&["--format=text", "--format", "json"]).0.format, Format::Json, "the last one counts");
        assert_eq!(parse(&["--", "--dry-run", "-n", "--"]).0.words, ["--dry-run", "-n", "--"]);
        assert_eq!(parse(&["-"]), (Options { words: vec!["-".to_owned()], ..Options::default() }, Ok(())));
        for (args, printed) in [
            (&["--help"][..], HELP),
            (&["-h"], HELP),
            (&["-V", "server=web1"], VERSION),
            (&["--version"], VERSION),
            (&["--schema", "request"], REQUEST_SCHEMA),
            (&["--schema=report"], REPORT_SCHEMA),
        ] {
            assert_eq!(parse(args).0.print, Some(printed), "{args:?}");
        }
    }

    #[test]
    fn help_has_every_option() {
        let listed = HELP.split_once("\nOptions:\n").unwrap().1.split("\n\n").next().unwrap();
        let heads = listed.lines().filter(|line| !line.starts_with("       "));
        let names: Vec<&str> =
            heads.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--"))).collect();
        let mut known = LONG.to_vec();
        known.sort_unstable_by_key(|name| names.iter().position(|listed| listed == name));
        assert_eq!(names, known);
    }

    #[test]
    fn a_problem_says_what_to_write_instead() {
        for (args, expected) in [
            (&["--frmat"][..], "unknown option '--frmat'; did you mean '--format'?"),
            (&["--frmat=text"], "unknown option '--frmat'; did you mean '--format'?"),
            (&["--dryrun"], "unknown option '--dryrun'; did you mean '--dry-run'?"),
            (&["--dry_run"], "unknown option '--dry_run'; did you mean '--dry-run'?"),
            (&["--state=maint"], "unknown option '--state'; write the field without dashes, as 'state=...'"),
            (
                &["--on-missing", "fail"],
                "unknown option '--on-missing'; write the field without dashes, as 'on_missing=...'",
            ),
            (&["--quite-something"], "unknown option '--quite-something'; see --help"),
            (&["-x"], "unknown option '-x'; see --help"),
            (&["-xhV"], "unknown option '-x'; see --help"),
            (&["--for\nat"], "unknown option '--for\\nat'; did you mean '--format'?"),
            (&["--format"], "'--format' takes 'json', 'text', 'table' or 'nagios'"),
            (&["--format="], "'--format' takes 'json', 'text', 'table' or 'nagios', not ''"),
            (&["--format", "yaml"], "'--format' takes 'json', 'text', 'table' or 'nagios', not 'yaml'"),
            (&["-f", "yaml"], "'--format' takes 'json', 'text', 'table' or 'nagios', not 'yaml'"),
            (
                &["--detailed-exitcodes", "-f", "nagios"],
                "'--detailed-exitcodes' does not go with '--format nagios', which has its own; leave it out",
            ),
            (&["--schema=all"], "'--schema' takes 'request' or 'report', not 'all'"),
            (&["--stdin-timeout", "0"], "'--stdin-timeout' takes a number of seconds from 0.001 to 86400, not '0'"),
            (&["--stdin-timeout=nan"], "'--stdin-timeout' takes a number of seconds from 0.001 to 86400, not 'nan'"),
            (&["--dry-run=yes"], "'--dry-run' does not take a value, but got 'yes'"),
            (&["--help=yes"], "'--help' does not take a value, but got 'yes'"),
        ] {
            assert_eq!(problem(args), expected, "{args:?}");
        }
        assert_eq!(problem(&["--bogus", "--frmat"]), problem(&["--bogus"]), "the first one is told");
    }

    #[test]
    fn a_problem_leaves_the_other_options_in_force() {
        for wrong in ["--bogus", "--bogus=1", "--dry-run=1", "-x", "--format=no", "--stdin-timeout=x"] {
            let (options, result) = parse(&["--detailed-exitcodes", wrong, "--format", "text", "server=a"]);
            assert!(result.is_err(), "{wrong}");
            assert_eq!((options.format, options.exit_codes), (Format::Text, ExitCodes::Detailed), "{wrong}");
            assert_eq!(options.words, ["server=a"], "{wrong}");
        }
    }

    #[test]
    fn an_argument_that_is_not_text_is_refused() {
        let wrong = || OsString::from_vec(b"server=\xff".to_vec());
        assert_eq!(Options::parse([wrong()]).1, Err("the argument 'server=\u{fffd}' is not valid UTF-8".to_owned()));
        let (options, result) = Options::parse([wrong(), "--format".into(), wrong(), "--dry-run".into()]);
        assert!(result.is_err() && options.dry_run);
    }
}
