//! Until when a server is meant to be out: times as people write them, and as seconds since the epoch.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The longest that a server may be taken out for in advance, in seconds: a hundred years.
const LONGEST: u64 = 100 * 366 * DAY;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// Reads an expiry: an RFC 3339 time, or `+` and a duration from now in units of `s`, `m`, `h`, `d` and `w`.
///
/// Fractions of a second are dropped.
///
/// ```
/// use haproxy_server::time::expiry::parse;
/// assert_eq!(parse("+1h30m", 1_000), Ok(1_000 + 5_400));
/// assert_eq!(parse("1970-01-01T02:00:00+01:00", 0), Ok(3_600));
/// ```
///
/// # Errors
/// Says why the text is not an expiry: it is neither, not in the future, or more than a hundred years ahead.
pub fn parse(text: &str, now: u64) -> Result<u64, String> {
    let expires = match text.strip_prefix('+') {
        Some(duration) => now.saturating_add(seconds(duration).ok_or_else(|| not_understood(text))?),
        None => {
            let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| not_understood(text))?;
            // A time before the epoch is in the past as well.
            u64::try_from(time.unix_timestamp()).unwrap_or(0)
        }
    };
    if expires <= now {
        Err(format!("'{text}' is not in the future; it is {} now", render(now)))
    } else if expires - now > LONGEST {
        Err(format!("'{text}' is more than a hundred years ahead"))
    } else {
        Ok(expires)
    }
}

/// Writes a time in seconds since the epoch as an RFC 3339 time in UTC, for reports.
///
/// ```
/// assert_eq!(haproxy_server::time::expiry::render(1_700_000_000), "2023-11-14T22:13:20Z");
/// ```
#[must_use]
pub fn render(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    // RFC 3339 ends with the year 9999.
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{seconds} s after 1970"))
}

/// Adds up numbers with their units; a number without one is not a duration.
fn seconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at_checked(digits)?;
        let mut tail = tail.chars();
        let unit = match tail.next()? {
            's' => 1,
            'm' => MINUTE,
            'h' => HOUR,
            'd' => DAY,
            'w' => WEEK,
            _ => return None,
        };
        // A number that is too large is far ahead, but valid.
        let number = if digits == 0 { return None } else { number.parse().unwrap_or(u64::MAX) };
        sum = sum.saturating_add(u64::saturating_mul(number, unit));
        rest = tail.as_str();
    }
    if text.is_empty() { None } else { Some(sum) }
}

fn not_understood(text: &str) -> String {
    format!(
        "'{text}' is not an expiry; write a time with its offset, such as 2030-01-31T18:00:00Z, or a duration from now, such as +2h, \
         +1h30m or +7d (units s, m, h, d, w)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2023-11-14T22:13:20Z
    const NOW: u64 = 1_700_000_000;

    #[test]
    fn times_and_durations_are_exact() {
        let table = [
            ("+1s", NOW + 1),
            ("+90m", NOW + 5_400),
            ("+2h", NOW + 7_200),
            ("+1h30m", NOW + 5_400),
            ("+1d12h", NOW + 129_600),
            ("+2w", NOW + 1_209_600),
            ("+0h5s", NOW + 5),
            ("2023-11-14T22:13:21Z", NOW + 1),
            ("2023-11-14T22:13:21.999Z", NOW + 1),
            ("2023-11-15T00:13:20+01:00", NOW + 3_600),
            ("2023-11-14T18:43:20-04:30", NOW + 3_600),
            ("2024-02-29T00:00:00Z", 1_709_164_800),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text, NOW), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        for text in [
            "",
            "+",
            "2h",
            "+2",
            "+h",
            "+2x",
            "+-2h",
            "+2h30",
            "+1.5h",
            "++2h",
            "+2 h",
            "+٣h",
            "tomorrow",
            "2030-01-31",
            "2030-01-31T18:00:00",
            "2030-02-30T18:00:00Z",
            "2030-01-31T24:00:00Z",
            "1900000000",
            " +2h",
        ] {
            let why = parse(text, NOW).unwrap_err();
            assert!(why.contains("is not an expiry"), "{text}: {why}");
        }
        for text in ["2023-11-14T22:13:20Z", "1969-12-31T23:59:59Z", "+0s", "2023-11-14T23:13:20+01:00"] {
            let why = parse(text, NOW).unwrap_err();
            assert!(why.ends_with("is not in the future; it is 2023-11-14T22:13:20Z now"), "{text}: {why}");
        }
        for text in ["+6000w", "2199-01-01T00:00:00Z", "+99999999999999999999999w", "+9999999999999999999d9w"] {
            assert!(parse(text, NOW).unwrap_err().contains("a hundred years"), "{text}");
        }
    }

    #[test]
    fn every_time_can_be_shown() {
        assert_eq!(render(0), "1970-01-01T00:00:00Z");
        assert_eq!(render(253_402_300_799), "9999-12-31T23:59:59Z");
        assert_eq!(render(u64::MAX), "18446744073709551615 s after 1970");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ahead in 1..LONGEST) {
            prop_assert_eq!(parse(&render(NOW + ahead), NOW), Ok(NOW + ahead));
            prop_assert_eq!(parse(&format!("+{ahead}s"), NOW), Ok(NOW + ahead));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), duration in "[+]([0-9]{0,25}[smhdwx]?){0,5}", now in any::<u64>()) {
            for text in [text, duration] {
                if let Ok(expires) = parse(&text, now) {
                    prop_assert!(expires > now);
                }
            }
            let _ = render(now);
        }
    }
}
