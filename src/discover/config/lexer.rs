//! One line of a configuration, split into words as `parse_line()` in HAProxy's `src/tools.c` does.
//!
//! Lines are independent: HAProxy has no continuation. Quotes may begin and end within a word, a backslash escapes
//! outside single quotes, `#` begins a comment outside quotes, and variables are expanded within double quotes only.
//! Where versions differ, the newest counts: `"${EMPTY[*]}"` was an empty word up to 3.2 and is none since.

use std::collections::HashMap;

/// The variables that HAProxy sets itself, whatever its environment was (`src/haproxy.c`, `src/mworker.c`).
const SET_BY_HAPROXY: [&[u8]; 13] = [
    b"HAPROXY_BRANCH",
    b"HAPROXY_CFGFILES",
    b"HAPROXY_HTTPS_LOG_FMT",
    b"HAPROXY_HTTP_CLF_LOG_FMT",
    b"HAPROXY_HTTP_LOG_FMT",
    b"HAPROXY_KEYLOG_BC_LOG_FMT",
    b"HAPROXY_KEYLOG_FC_LOG_FMT",
    b"HAPROXY_MWORKER",
    b"HAPROXY_MWORKER_REEXEC",
    b"HAPROXY_PROCESSES",
    b"HAPROXY_STARTUP_VERSION",
    b"HAPROXY_TCP_CLF_LOG_FMT",
    b"HAPROXY_TCP_LOG_FMT",
];

/// The environment in which a configuration is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// The variables; one without a value is set to something that is not known here.
    variables: HashMap<Vec<u8>, Option<Vec<u8>>>,
    /// Whether a variable that is not listed is known to be unset.
    complete: bool,
}

/// What is known about a variable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Variable<'a> {
    /// It has this value.
    Set(&'a [u8]),
    /// There is none.
    Unset,
    /// It cannot be seen from here.
    Unknown,
}

impl Environment {
    /// Reads `/proc/PID/environ`; without it, no variable is known.
    pub(crate) fn new(environ: Option<&[u8]>) -> Self {
        let mut variables = HashMap::new();
        for entry in environ.unwrap_or_default().split(|byte| *byte == 0) {
            if let Some(at) = entry.iter().position(|byte| *byte == b'=') {
                let (name, value) = entry.split_at(at);
                // getenv(3) returns the first.
                variables.entry(name.to_vec()).or_insert_with(|| value.get(1..).map(<[u8]>::to_vec));
            }
        }
        for name in SET_BY_HAPROXY {
            variables.insert(name.to_vec(), None);
        }
        Self { variables, complete: environ.is_some() }
    }

    /// Looks a variable up.
    pub(crate) fn get(&self, name: &[u8]) -> Variable<'_> {
        match self.variables.get(name) {
            Some(Some(value)) => Variable::Set(value),
            Some(None) => Variable::Unknown,
            // Other versions may set more.
            None if self.complete && !name.starts_with(b"HAPROXY_") => Variable::Unset,
            None => Variable::Unknown,
        }
    }

    /// Sets a variable, to a value that may not be known.
    pub(crate) fn set(&mut self, name: &[u8], value: Option<Vec<u8>>) {
        self.variables.insert(name.to_vec(), value);
    }

    /// Removes a variable.
    pub(crate) fn unset(&mut self, name: &[u8]) {
        // If the environment was not readable, variables that are not listed count as unknown.
        if self.complete {
            self.variables.remove(name);
        }
    }

    /// Removes all variables but these.
    pub(crate) fn keep_only(&mut self, names: &[Word]) {
        self.variables.retain(|name, _| names.iter().any(|word| word.bytes == *name));
    }

    /// Replaces `$NAME` and `${NAME}` as `env_expand()` does, which HAProxy applies to addresses also outside quotes.
    pub(crate) fn expand(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut expanded = Vec::new();
        let mut rest = text;
        while let [first, tail @ ..] = rest {
            rest = tail;
            if *first != b'$' {
                expanded.push(*first);
                continue;
            }
            let braced = rest.strip_prefix(b"{");
            let (name, after) = name(braced.unwrap_or(rest));
            rest = if braced.is_some() { after.strip_prefix(b"}").unwrap_or(after) } else { after };
            match self.get(name) {
                Variable::Set(value) => expanded.extend_from_slice(value),
                Variable::Unset => {}
                Variable::Unknown => return None,
            }
        }
        Some(expanded)
    }
}

/// One word of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Word {
    /// What it says.
    pub(crate) bytes: Vec<u8>,
    /// Whether a variable in it could not be seen, so that it may say something else.
    pub(crate) unknown: bool,
}

/// The position of the reader in a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    Outside,
    Single,
    Double,
}

/// The words that are done and the one that is not.
#[derive(Default)]
struct Cut {
    words: Vec<Word>,
    open: Option<Word>,
    /// Whether a pair of quotes makes a word even with nothing in it.
    quotes_count: bool,
}

impl Cut {
    fn begin(&mut self) -> &mut Word {
        self.open.get_or_insert_default()
    }

    fn push(&mut self, byte: u8) {
        self.begin().bytes.push(byte);
    }

    fn end(&mut self) {
        if let Some(mut word) = self.open.take() {
            // `\x00` ends a word of C, whatever follows.
            let length = word.bytes.iter().position(|byte| *byte == 0).unwrap_or(word.bytes.len());
            word.bytes.truncate(length);
            self.words.push(word);
        }
    }
}

/// Splits a line into words; `None` if HAProxy itself refuses the line.
pub(crate) fn words(line: &[u8], environment: &Environment) -> Option<Vec<Word>> {
    let mut cut = Cut::default();
    let mut quote = Quote::Outside;
    let mut rest = line;
    loop {
        rest = match (rest, quote) {
            ([] | [0 | b'\n' | b'\r', ..], _) | ([b'#', ..], Quote::Outside) => break,
            ([b'"', tail @ ..], Quote::Outside | Quote::Double) => {
                quote = toggle(quote, Quote::Double, &mut cut);
                tail
            }
            ([b'\'', tail @ ..], Quote::Outside | Quote::Single) => {
                quote = toggle(quote, Quote::Single, &mut cut);
                tail
            }
            ([b'\\', tail @ ..], Quote::Outside | Quote::Double) => {
                let (byte, tail) = escape(tail, quote)?;
                cut.push(byte);
                tail
            }
            ([first, ..], Quote::Outside) if is_space(*first) => {
                cut.end();
                skip_spaces(rest)
            }
            ([b'$', tail @ ..], Quote::Double) => variable(tail, environment, &mut cut)?,
            ([byte, tail @ ..], _) => {
                cut.push(*byte);
                tail
            }
        };
    }
    cut.end();
    if quote == Quote::Outside { Some(cut.words) } else { None }
}

/// Tells whether C's `isspace()` holds.
pub(crate) fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Returns what follows the leading white space.
pub(crate) fn skip_spaces(text: &[u8]) -> &[u8] {
    let count = text.iter().take_while(|byte| is_space(**byte)).count();
    text.get(count..).unwrap_or_default()
}

/// Enters or leaves a pair of quotes.
fn toggle(now: Quote, kind: Quote, cut: &mut Cut) -> Quote {
    if now == kind {
        if cut.quotes_count {
            cut.begin();
        }
        Quote::Outside
    } else {
        cut.quotes_count = true;
        kind
    }
}

/// Reads what follows a backslash: the byte that is meant, and the rest.
fn escape(tail: &[u8], quote: Quote) -> Option<(u8, &[u8])> {
    Some(match tail {
        [byte @ (b' ' | b'\\' | b'#' | b'\'' | b'"'), rest @ ..] => (*byte, rest),
        [b't', rest @ ..] => (b'\t', rest),
        [b'n', rest @ ..] => (b'\n', rest),
        [b'r', rest @ ..] => (b'\r', rest),
        [b'$', rest @ ..] if quote == Quote::Double => (b'$', rest),
        [b'x', high, low, rest @ ..] => (hex(*high)? << 4 | hex(*low)?, rest),
        [b'x', ..] => return None,
        _ => (b'\\', tail),
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Splits off the name of a variable.
fn name(text: &[u8]) -> (&[u8], &[u8]) {
    let is_in_name = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
    text.split_at_checked(text.iter().take_while(is_in_name).count()).unwrap_or((text, &[]))
}

/// Inserts a variable (`$NAME`, `${NAME}`, `${NAME-default}`, `${NAME[*]}`), and returns the rest.
fn variable<'a>(tail: &'a [u8], environment: &Environment, cut: &mut Cut) -> Option<&'a [u8]> {
    let braced = tail.strip_prefix(b"{");
    let text = braced.unwrap_or(tail);
    // HAProxy's own pseudo-variables: `.FILE`, `.LINE`, `.SECTION`.
    let pseudo = text.strip_prefix(b".");
    let (name, mut rest) = name(pseudo.unwrap_or(text));
    if pseudo.is_none() && !name.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_') {
        return None;
    }
    let mut value = if pseudo.is_some() { Variable::Unknown } else { environment.get(name) };
    let mut as_words = false;
    if braced.is_some() {
        if let Some(after) = rest.strip_prefix(b"[") {
            rest = after.strip_prefix(b"*]")?;
            as_words = true;
        }
        if let Some(after) = rest.strip_prefix(b"-") {
            let (default, _) = after.split_at_checked(after.iter().position(|byte| *byte == b'}')?)?;
            rest = after.get(default.len()..)?;
            if value == Variable::Unset {
                value = Variable::Set(default);
            }
        }
        rest = rest.strip_prefix(b"}")?;
    }
    cut.quotes_count &= !as_words;
    match value {
        Variable::Unknown => cut.begin().unknown = true,
        Variable::Unset if as_words => {}
        Variable::Unset => drop(cut.begin()),
        Variable::Set(value) => {
            for byte in value {
                if as_words && is_space(*byte) {
                    cut.end();
                } else {
                    cut.push(*byte);
                }
            }
        }
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn environment() -> Environment {
        Environment::new(Some(b"A=one\0B=two words\0E=\0A=later\0".as_slice()))
    }

    fn cut(line: &str) -> Option<Vec<String>> {
        let words = words(line.as_bytes(), &environment())?;
        Some(words.into_iter().map(|word| String::from_utf8_lossy(&word.bytes).into_owned()).collect())
    }

    #[test]
    fn lines_are_cut_as_haproxy_cuts_them() {
        let table: [(&str, &[&str]); 27] = [
            ("stats socket /run/a.sock level admin", &["stats", "socket", "/run/a.sock", "level", "admin"]),
            ("\t a  b\t# c", &["a", "b"]),
            ("a#b", &["a"]),
            ("a\\#b", &["a#b"]),
            ("a\\ b", &["a b"]),
            ("'a b' \"c d\"", &["a b", "c d"]),
            ("a'b'\"c\"", &["abc"]),
            ("'it\\'", &["it\\"]),
            ("\"a\\\"b\"", &["a\"b"]),
            ("'#' \"#\"", &["#", "#"]),
            ("\\x41\\t\\n", &["A\t\n"]),
            ("a\\x00b c", &["a", "c"]),
            ("\\q\\", &["\\q\\"]),
            ("$A ${A}", &["$A", "${A}"]),
            ("'$A'", &["$A"]),
            ("\"$A\" \"${A}\" \"x${A}y\"", &["one", "one", "xoney"]),
            ("\"\\$A\"", &["$A"]),
            ("\"$B\"", &["two words"]),
            ("\"${B[*]}\"", &["two", "words"]),
            ("\"${NONE[*]}\" x", &["x"]),
            ("\"${NONE}\" x", &["", "x"]),
            ("\"${NONE-a b}\" \"${A-a b}\"", &["a b", "one"]),
            ("\"$E\"", &[""]),
            ("'' a", &["", "a"]),
            ("a b\r", &["a", "b"]),
            ("a\0b", &["a"]),
            ("", &[]),
        ];
        for (line, expected) in table {
            assert_eq!(cut(line).unwrap(), expected, "{line:?}");
        }
        for bad in ["'a", "\"a", "\\x4", "\\xzz", "\"$-\"", "\"${A\"", "\"${A[*\"", "\"${A-b\"", "\"$1\""] {
            assert_eq!(cut(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_marked() {
        let hidden = Environment::new(None);
        let read = words(b"\"$A\" b \"${C-d}\"", &hidden).unwrap();
        assert_eq!(read.iter().map(|word| word.unknown).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(hidden.expand(b"/run/$A"), None);
        assert_eq!(hidden.expand(b"/run/a").unwrap(), b"/run/a");
    }

    #[test]
    fn addresses_are_expanded_outside_quotes_too() {
        for (text, expected) in [("/$A/x", "/one/x"), ("/${A}x", "/onex"), ("/$NONE.sock", "/.sock"), ("$", "")] {
            assert_eq!(environment().expand(text.as_bytes()).unwrap(), expected.as_bytes(), "{text}");
        }
    }

    /// Writes a word so that HAProxy reads it back.
    fn quoted(word: &[u8]) -> Vec<u8> {
        let mut text = vec![b'"'];
        for byte in word {
            match byte {
                b'\n' => text.extend(b"\\n"),
                b'\r' => text.extend(b"\\r"),
                b'"' | b'\\' | b'$' => text.extend([b'\\', *byte]),
                _ => text.push(*byte),
            }
        }
        text.push(b'"');
        text
    }

    proptest! {
        #[test]
        fn quoted_words_read_back(written in proptest::collection::vec(proptest::collection::vec(1u8.., 0..12), 0..6)) {
            let line = written.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(&b' ');
            let read = words(&line, &environment()).unwrap();
            prop_assert_eq!(read.into_iter().map(|word| word.bytes).collect::<Vec<_>>(), written);
        }

        #[test]
        fn no_bytes_panic(line in proptest::collection::vec(any::<u8>(), 0..100), signs in "[\"'\\\\$ {}x\\[\\]*#A-]{0,40}") {
            let _ = words(&line, &environment());
            let _ = words(signs.as_bytes(), &environment());
            let _ = environment().expand(&line);
            let _ = environment().expand(signs.as_bytes());
        }
    }
}
