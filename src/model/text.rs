//! Text from outside, made safe to show: HAProxy, a configuration or a file may contain anything.

use std::borrow::Cow;
use std::cmp::Ordering;

/// Makes text safe for a terminal, a log, and a tool that prints it raw.
///
/// Control characters are terminal commands; format characters are invisible or reverse the text after them.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if is_plain_ascii(text) || !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let shown = |sign: char| if is_unsafe(sign) { sign.escape_unicode().to_string() } else { sign.to_string() };
    Cow::Owned(text.chars().map(shown).collect())
}

/// Tells whether every character is printable ASCII, as in nearly every text.
fn is_plain_ascii(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Tells whether a character could do more than be shown.
#[must_use]
pub fn is_unsafe(sign: char) -> bool {
    sign.is_control()
        || matches!(
            sign,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Compares names as people sort them: `app2` comes before `app10`.
#[must_use]
pub fn natural(one: &str, other: &str) -> Ordering {
    parts(one).cmp(parts(other)).then_with(|| one.cmp(other))
}

/// A part of a name, as [`natural`] compares it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    /// How many digits, without zeros before, and which.
    Number(usize, &'a [u8]),
    Text(&'a [u8]),
}

/// Cuts a name between numbers and text.
fn parts(name: &str) -> impl Iterator<Item = Part<'_>> {
    let parts = name.as_bytes().chunk_by(|one, next| one.is_ascii_digit() == next.is_ascii_digit());
    parts.map(|part| {
        if !part.first().is_some_and(u8::is_ascii_digit) {
            return Part::Text(part);
        }
        let zeros = part.iter().take_while(|digit| **digit == b'0').count();
        let digits = part.get(zeros..).unwrap_or_default();
        Part::Number(digits.len(), digits)
    })
}

/// Names the first few of many.
#[must_use]
pub fn a_few_of<T: AsRef<str>>(names: &[T]) -> String {
    const NAMED: usize = 3;
    let named = names.iter().take(NAMED).map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Shows at most `limit` bytes of something from outside, with everything but printable ASCII escaped.
#[must_use]
pub fn excerpt(bytes: &[u8], limit: usize) -> String {
    let (shown, cut) = match bytes.get(..limit) {
        Some(head) if bytes.len() > limit => (head, "…"),
        _ => (bytes, ""),
    };
    format!("{}{cut}", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_in_a_name_reaches_a_terminal_as_a_command() {
        assert_eq!(printable("we\u{1b}[31mb\u{202e}\n"), "we\\u{1b}[31mb\\u{202e}\\u{a}");
        assert_eq!(printable("a\u{61c}b\u{7f}\u{9b}"), "a\\u{61c}b\\u{7f}\\u{9b}");
        assert_eq!(printable("Zoë's web1"), "Zoë's web1");
    }

    #[test]
    fn an_excerpt_is_printable_and_bounded() {
        assert_eq!(excerpt(b"plain", 10), "plain");
        assert_eq!(excerpt(b"a\nb\xff", 10), "a\\nb\\xff");
        assert_eq!(excerpt(b"abcdef", 3), "abc…");
        assert_eq!(excerpt(b"abc", 3), "abc");
    }

    #[test]
    fn the_first_few_of_many_are_named() {
        assert_eq!(a_few_of::<&str>(&[]), "");
        assert_eq!(a_few_of(&["a", "b", "c"]), "a, b, c");
        assert_eq!(a_few_of(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }

    #[test]
    fn names_are_in_natural_order() {
        let sorted = [
            "",
            "1",
            "02",
            "2",
            "10",
            "99999999999999999999999",
            "100000000000000000000000",
            "a",
            "app",
            "app01",
            "app1",
            "app2",
            "app2b",
            "app2b3",
            "app10",
            "app10a",
            "app-2",
            "app-10",
            "b",
            "é2",
            "é10",
        ];
        let mut names = sorted;
        names.reverse();
        names.sort_by(|one, other| natural(one, other));
        assert_eq!(names, sorted);
    }

    proptest! {
        #[test]
        fn natural_order_is_an_order(names in prop::collection::vec("[a0-2é]{0,6}", 3)) {
            let [a, b, c] = [&names[0], &names[1], &names[2]];
            prop_assert_eq!(natural(a, b), natural(b, a).reverse());
            prop_assert_eq!(natural(a, b).is_eq(), a == b);
            prop_assert!(natural(a, b).is_gt() || natural(b, c).is_gt() || natural(a, c).is_le());
        }

        #[test]
        fn what_is_printable_stays_as_it_is(text in any::<String>()) {
            let once = printable(&text).into_owned();
            prop_assert!(!once.contains(is_unsafe));
            prop_assert_eq!(printable(&once), once.as_str());
        }
    }
}
