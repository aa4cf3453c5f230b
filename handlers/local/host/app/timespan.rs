//! Spans of time as .NET writes them: `[d.]hh:mm[:ss[.fffffff]]`.

use std::time::Duration;

/// Digits of a second's fraction: .NET counts in 100 nanoseconds.
const FRACTION_DIGITS_MAX: usize = 7;
/// Days that a span may have: more than any timer or timeout needs.
const DAYS_MAX: u64 = 100_000;

/// Reads a span of time that is not negative.
pub fn parse(text: &str) -> Option<Duration> {
    let parts: Vec<&str> = text.trim().split(':').collect();
    let (first, minutes, seconds) = match parts[..] {
        [hours, minutes] => (hours, minutes, "0"),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        _ => return None,
    };
    let (days, hours) = first.split_once('.').unwrap_or(("0", first));
    let days = number(days, DAYS_MAX)?;
    let (hours, minutes) = (number(hours, 23)?, number(minutes, 59)?);
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let seconds = number(seconds, 59)?;
    if fraction.len() > FRACTION_DIGITS_MAX {
        return None;
    }
    let nanoseconds = number(&format!("{fraction:0<9}"), 999_999_999)?;
    let whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
    Some(Duration::new(whole, u32::try_from(nanoseconds).expect("nine digits fit")))
}

fn number(digits: &str, most: u64) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok())?.filter(|number| *number <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_dotnet_writes_them() {
        let cases = [
            ("00:05:00", Some(Duration::from_secs(300))),
            ("00:30", Some(Duration::from_secs(1800))),
            ("1.02:03:04", Some(Duration::from_secs(86_400 + 2 * 3600 + 3 * 60 + 4))),
            ("00:00:00.80", Some(Duration::from_millis(800))),
            ("-00:00:01", None),
            ("24:00:00", None),
            ("00:60:00", None),
            ("5", None),
            ("0 0 * * * *", None),
            ("", None),
            ("00:00:00.123456789", None),
        ];
        for (text, span) in cases {
            assert_eq!(parse(text), span, "{text}");
        }
    }
}
