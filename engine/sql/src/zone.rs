//! Time zones: names and rules from the tz database that is built in, offsets as PostgreSQL reads them.

use crate::error::{SqlError, SqlState};
use crate::time::{self, SECOND};
use chronos_engine::schedule::zones;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use std::sync::Arc;

/// A time zone. The default is UTC.
#[derive(Clone, Debug, Default)]
pub struct Zone(Option<Arc<Rules>>);

#[derive(Debug)]
struct Rules {
    name: String,
    zone: TimeZone,
}

/// Abbreviations of PostgreSQL's default set that people write, and their offsets in hours.
const ABBREVIATIONS: &[(&str, f64)] = &[
    ("est", -5.0),
    ("edt", -4.0),
    ("cst", -6.0),
    ("cdt", -5.0),
    ("mst", -7.0),
    ("mdt", -6.0),
    ("pst", -8.0),
    ("pdt", -7.0),
    ("akst", -9.0),
    ("akdt", -8.0),
    ("hst", -10.0),
    ("bst", 1.0),
    ("wet", 0.0),
    ("west", 1.0),
    ("cet", 1.0),
    ("cest", 2.0),
    ("eet", 2.0),
    ("eest", 3.0),
    ("msk", 3.0),
    ("ist", 2.0),
    ("jst", 9.0),
    ("kst", 9.0),
    ("aest", 10.0),
    ("aedt", 11.0),
    ("nzst", 12.0),
    ("nzdt", 13.0),
];

impl Zone {
    fn fixed(name: &str, seconds: i32) -> Option<Zone> {
        if seconds == 0 {
            return Some(Zone(None));
        }
        let zone = TimeZone::fixed(Offset::from_seconds(seconds).ok()?);
        Some(Zone(Some(Arc::new(Rules { name: name.to_owned(), zone }))))
    }

    /// The zone of a name, an abbreviation or an offset. A bare offset (`+02`) is east of Greenwich, and west of it
    /// where `posix` says so (`UTC+2`, and what AT TIME ZONE takes).
    pub fn parse(text: &str, posix: bool) -> Option<Zone> {
        let name = text.trim();
        let lower = name.to_ascii_lowercase();
        if matches!(lower.as_str(), "utc" | "gmt" | "z" | "zulu" | "uct" | "etc/utc" | "universal") {
            return Some(Zone(None));
        }
        if let Some((_, hours)) = ABBREVIATIONS.iter().find(|(known, _)| *known == lower) {
            return Zone::fixed(&name.to_ascii_uppercase(), (hours * 3600.0) as i32);
        }
        let letters = lower.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        if letters.starts_with(['+', '-'])
            || letters.starts_with(|c: char| c.is_ascii_digit()) && letters.len() == lower.len()
        {
            let east = if posix || letters.len() < lower.len() { -1 } else { 1 };
            return Zone::fixed(name, east * offset(letters)?);
        }
        let zone = zones().get(name).ok()?;
        let name = zone.iana_name().unwrap_or(name).to_owned();
        Some(Zone(Some(Arc::new(Rules { name, zone }))))
    }

    /// As [`Zone::parse`], or 22023.
    pub fn named(text: &str) -> Result<Zone, SqlError> {
        Zone::parse(text, true).ok_or_else(|| {
            SqlError::new(SqlState::INVALID_PARAMETER, format!("time zone \"{text}\" not recognized"))
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.as_ref().map_or("UTC", |rules| &rules.name)
    }

    /// East of Greenwich at an instant, in microseconds.
    pub fn offset(&self, instant: i64) -> i64 {
        match &self.0 {
            None => 0,
            Some(rules) => i64::from(rules.zone.to_offset(jiff_timestamp(instant)).seconds()) * SECOND,
        }
    }

    /// The short name in use at an instant.
    pub fn abbreviation(&self, instant: i64) -> String {
        match &self.0 {
            None => "UTC".into(),
            Some(rules) => rules.zone.to_offset_info(jiff_timestamp(instant)).abbreviation().to_owned(),
        }
    }

    /// What a clock in the zone shows at an instant; infinity stays.
    pub fn to_local(&self, instant: i64) -> i64 {
        if time::is_infinite(instant) { instant } else { instant + self.offset(instant) }
    }

    /// The instant at which a clock in the zone shows a time: of two the later, and of none the one that the clock
    /// would have shown had it not been put forward.
    pub fn to_instant(&self, local: i64) -> Result<i64, SqlError> {
        let Some(rules) = &self.0 else { return Ok(local) };
        if time::is_infinite(local) {
            return Ok(local);
        }
        let c = time::civil(local);
        let date_time = i16::try_from(c.year).ok().and_then(|year| {
            let (second, micros) = (c.micros / SECOND, c.micros % SECOND);
            let part = |n: i64| n as i8;
            DateTime::new(
                year,
                c.month as i8,
                c.day as i8,
                part(second / 3600),
                part(second / 60 % 60),
                part(second % 60),
                (micros * 1_000) as i32,
            )
            .ok()
        });
        let offset = match date_time {
            // Far away no rule is known: the zone's offset at the edge of what is.
            None => rules.zone.to_offset(jiff_timestamp(local)),
            Some(date_time) => match rules.zone.to_ambiguous_timestamp(date_time).offset() {
                AmbiguousOffset::Unambiguous { offset } => offset,
                AmbiguousOffset::Gap { before, .. } => before,
                AmbiguousOffset::Fold { after, .. } => after,
            },
        };
        time::checked(local.saturating_sub(i64::from(offset.seconds()) * SECOND))
    }
}

fn jiff_timestamp(instant: i64) -> jiff::Timestamp {
    let (low, high) = (jiff::Timestamp::MIN.as_microsecond(), jiff::Timestamp::MAX.as_microsecond());
    jiff::Timestamp::from_microsecond(instant.clamp(low, high)).unwrap_or_default()
}

/// `[+-]hh[[:]mm[[:]ss]]` in seconds.
fn offset(text: &str) -> Option<i32> {
    let (sign, body) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let parts: Vec<&str> = body.split(':').collect();
    let number =
        |s: &str| (!s.is_empty() && s.len() <= 2).then(|| s.parse::<u8>().ok()).flatten().map(i32::from);
    let (h, m, s) = match parts.as_slice() {
        [all] if all.len() > 2 => (number(all.get(..all.len() - 2)?)?, number(all.get(all.len() - 2..)?)?, 0),
        [h] => (number(h)?, 0, 0),
        [h, m] => (number(h)?, number(m)?, 0),
        [h, m, s] => (number(h)?, number(m)?, number(s)?),
        _ => return None,
    };
    (h < 16 && m < 60 && s < 60).then_some(sign * (h * 3600 + m * 60 + s))
}
