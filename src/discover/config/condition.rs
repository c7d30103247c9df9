//! The conditions of `.if` and `.elif`, as far as they can be told from outside (`src/cfgcond.c`).
//!
//! A condition on HAProxy's build or version remains open, and both branches count.

use super::lexer::{Environment, Variable};

/// The deepest supported nesting of parentheses.
const DEPTH_MAX: u8 = 16;

/// Whether something holds, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    /// It does not.
    No,
    /// It does.
    Yes,
    /// It cannot be known from here.
    Open,
}

impl Truth {
    /// Tells whether both hold.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            (Self::Open, _) | (_, Self::Open) => Self::Open,
        }
    }

    /// Tells whether one of the two holds.
    pub(super) fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    /// Tells whether it does not hold.
    pub(super) fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Yes => Self::No,
            Self::Open => Self::Open,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// Evaluates a condition; one that cannot be parsed is open.
pub(super) fn evaluate(text: &[u8], environment: &Environment) -> Truth {
    match any_of(text, environment, DEPTH_MAX) {
        Some((truth, rest)) if blank(rest).is_empty() => truth,
        _ => Truth::Open,
    }
}

fn blank(text: &[u8]) -> &[u8] {
    let count = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    text.get(count..).unwrap_or_default()
}

/// Reads terms with `||` between them.
fn any_of<'a>(text: &'a [u8], environment: &Environment, depth: u8) -> Option<(Truth, &'a [u8])> {
    let (mut truth, mut rest) = all_of(text, environment, depth)?;
    while let Some(after) = blank(rest).strip_prefix(b"||") {
        let (next, after) = all_of(after, environment, depth)?;
        truth = truth.or(next);
        rest = after;
    }
    Some((truth, rest))
}

/// Reads terms with `&&` between them.
fn all_of<'a>(text: &'a [u8], environment: &Environment, depth: u8) -> Option<(Truth, &'a [u8])> {
    let (mut truth, mut rest) = term(text, environment, depth)?;
    while let Some(after) = blank(rest).strip_prefix(b"&&") {
        let (next, after) = term(after, environment, depth)?;
        truth = truth.and(next);
        rest = after;
    }
    Some((truth, rest))
}

/// Reads `!` signs and what they belong to: a number, an expression in parentheses, or a predicate.
fn term<'a>(text: &'a [u8], environment: &Environment, depth: u8) -> Option<(Truth, &'a [u8])> {
    let mut rest = blank(text);
    let mut is_negated = false;
    while let Some(after) = rest.strip_prefix(b"!") {
        is_negated = !is_negated;
        rest = blank(after);
    }
    let (truth, rest) = match rest {
        [b'0'..=b'9' | b'+' | b'-', ..] => literal(rest),
        [b'(', inner @ ..] => {
            let (truth, after) = any_of(inner, environment, depth.checked_sub(1)?)?;
            (truth, blank(after).strip_prefix(b")")?)
        }
        _ => predicate(rest, environment)?,
    };
    Some((if is_negated { truth.not() } else { truth }, rest))
}

/// Reads a number; only whether it is zero matters.
fn literal(text: &[u8]) -> (Truth, &[u8]) {
    let is_in_number = |byte: &&u8| byte.is_ascii_hexdigit() || matches!(byte, b'x' | b'X' | b'+' | b'-');
    let (number, rest) = text.split_at_checked(text.iter().take_while(is_in_number).count()).unwrap_or((text, &[]));
    (number.iter().any(|byte| matches!(byte, b'1'..=b'9' | b'a'..=b'f' | b'A'..=b'F')).into(), rest)
}

/// Reads `name(argument,…)`.
fn predicate<'a>(text: &'a [u8], environment: &Environment) -> Option<(Truth, &'a [u8])> {
    let (name, rest) = text.split_at_checked(text.iter().position(|byte| *byte == b'(')?)?;
    let (arguments, rest) = arguments(rest.strip_prefix(b"(")?)?;
    let truth = match (name, arguments.as_slice()) {
        (b"defined", [variable]) => match environment.get(variable) {
            Variable::Set(_) => Truth::Yes,
            Variable::Unset => Truth::No,
            Variable::Unknown => Truth::Open,
        },
        (b"streq", [left, right]) => (left == right).into(),
        (b"strneq", [left, right]) => (left != right).into(),
        (b"strstr", [text, part]) => (part.is_empty() || text.windows(part.len()).any(|window| window == part)).into(),
        _ => Truth::Open,
    };
    Some((truth, rest))
}

/// Reads arguments up to their closing parenthesis (`make_arg_list()` of `src/arg.c`).
fn arguments(text: &[u8]) -> Option<(Vec<Vec<u8>>, &[u8])> {
    let mut done = Vec::new();
    let mut argument = Vec::new();
    let mut quote = None;
    let mut rest = text;
    loop {
        rest = match (rest, quote) {
            ([b')', tail @ ..], None) => {
                done.push(argument);
                return Some((done, tail));
            }
            ([b',', tail @ ..], None) => {
                done.push(std::mem::take(&mut argument));
                tail
            }
            ([sign @ (b'"' | b'\''), tail @ ..], None) => {
                quote = Some(*sign);
                tail
            }
            ([sign, tail @ ..], Some(open)) if *sign == open => {
                quote = None;
                tail
            }
            ([b'\\', byte @ (b'\\' | b' ' | b'"' | b'\''), tail @ ..], None | Some(b'"')) => {
                argument.push(*byte);
                tail
            }
            ([byte, tail @ ..], _) => {
                argument.push(*byte);
                tail
            }
            ([], _) => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn conditions_are_told_as_far_as_they_can_be() {
        let environment = Environment::new(Some(b"BLUE=1\0".as_slice()));
        let table = [
            ("1", Truth::Yes),
            ("0", Truth::No),
            ("0x0", Truth::No),
            ("! 0", Truth::Yes),
            ("defined(BLUE)", Truth::Yes),
            ("!defined(BLUE)", Truth::No),
            ("defined(GREEN) || defined(BLUE)", Truth::Yes),
            ("defined(GREEN) && defined(BLUE)", Truth::No),
            ("( defined(GREEN) || 1 ) && !0", Truth::Yes),
            ("streq(a,a)", Truth::Yes),
            ("streq(\"a,b\",'a,b')", Truth::Yes),
            ("strneq(a,)", Truth::Yes),
            ("strstr(haystack,stack)", Truth::Yes),
            ("feature(OPENSSL)", Truth::Open),
            ("version_atleast(2.4) || 1", Truth::Yes),
            ("version_atleast(2.4) && 0", Truth::No),
            ("version_atleast(2.4) && 1", Truth::Open),
            ("nonsense", Truth::Open),
            ("1 nonsense", Truth::Open),
            ("", Truth::Open),
        ];
        for (text, expected) in table {
            assert_eq!(evaluate(text.as_bytes(), &environment), expected, "{text}");
        }
        assert_eq!(evaluate(b"defined(BLUE)", &Environment::new(None)), Truth::Open);
        assert_eq!(evaluate("(".repeat(100_000).as_bytes(), &environment), Truth::Open);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), signs in "[()!&| ,'\"\\\\0-9a-z]{0,60}") {
            let _ = evaluate(&bytes, &Environment::default());
            let _ = evaluate(signs.as_bytes(), &Environment::default());
        }
    }
}
