//! Times and durations as people type them.

use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// A moment: RFC 3339 with an offset, or milliseconds since 1970-01-01T00:00:00Z. In microseconds since then.
pub fn moment(text: &str) -> Result<i64, String> {
    let text = text.trim();
    if let Ok(millis) = text.parse::<i64>() {
        return millis.checked_mul(1_000).ok_or_else(|| format!("{millis} ms is beyond the year 9999"));
    }
    let parsed: Timestamp = text.parse().map_err(|error: jiff::Error| {
        format!("{error}; expected a time like 2026-11-22T14:05:00Z or milliseconds since 1970")
    })?;
    Ok(parsed.as_microsecond())
}

/// A length of time: `2s`, `500ms`, `1h30m`, or a bare number of seconds.
pub fn length(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let wrong = || format!("{text:?} is no length of time; expected one like 500ms, 2s, 1h30m or 7d");
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| wrong());
    }
    // Days are 24 hours here, which jiff leaves to the caller.
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let length: SignedDuration =
        span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(length).map_err(|_| wrong())
}

/// Microseconds since 1970 as RFC 3339, to the millisecond.
pub fn show(micros: i64) -> String {
    match Timestamp::from_microsecond(micros) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{micros}us"),
    }
}

/// The wall clock, in microseconds since 1970.
pub fn now() -> i64 {
    Timestamp::now().as_microsecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(moment("1733856000000"), Ok(1_733_856_000_000_000));
        assert_eq!(moment("2024-12-10T18:40:00Z"), Ok(1_733_856_000_000_000));
        assert_eq!(moment("2024-12-10T19:40:00.5+01:00"), Ok(1_733_856_000_500_000));
        for text in ["", "tomorrow", "2024-12-10", "2024-12-10T18:40:00", "9223372036854775807"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths() {
        for (text, millis) in [
            ("2s", 2_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("1.5", 1_500),
            ("0", 0),
        ] {
            assert_eq!(length(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "-2s", "-1", "soon", "2 parsecs", "NaN", "1e99"] {
            assert!(length(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_shown_to_the_millisecond() {
        assert_eq!(show(1_733_856_000_500_999), "2024-12-10T18:40:00.500Z");
    }
}
