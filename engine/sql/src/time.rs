//! Calendar arithmetic as PostgreSQL does it, in UTC: reading and writing times, truncating, binning, adding intervals.

use crate::error::{SqlError, SqlState};
use crate::zone::Zone;
use chronos_proto::time::civil_from_days;
use chronos_proto::value::Interval;
use std::fmt::Write;

pub const DAY: i64 = 86_400_000_000;
pub const HOUR: i64 = 3_600_000_000;
pub const MINUTE: i64 = 60_000_000;
pub const SECOND: i64 = 1_000_000;

/// 4713-11-24 BC and the end of 294276, PostgreSQL's bounds, in days.
const MIN_DAY: i64 = -2_440_588;
const MAX_DAY: i64 = 106_751_990;

fn out_of_range(what: &str) -> SqlError {
    SqlError::new(SqlState::DATETIME_OVERFLOW, format!("{what} out of range"))
}

fn invalid(what: &str, text: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_DATETIME, format!("invalid input syntax for type {what}: \"{text}\""))
}

fn field_overflow(text: &str) -> SqlError {
    SqlError::new(SqlState::DATETIME_OVERFLOW, format!("date/time field value out of range: \"{text}\""))
}

/// (year, month, day) to days since 1970-01-01 in the proleptic Gregorian calendar.
pub fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let mp = i64::from((month + 9) % 12);
    let day_of_year = (153 * mp + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

pub fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// A timestamp taken apart, in UTC.
pub struct Civil {
    pub year: i64,
    pub month: u32,
    pub day: u32,
    /// Microseconds of the day.
    pub micros: i64,
    /// Days since the epoch.
    pub days: i64,
}

pub fn civil(timestamp: i64) -> Civil {
    let days = timestamp.div_euclid(DAY);
    let (year, month, day) = civil_from_days(days);
    Civil { year, month, day, micros: timestamp.rem_euclid(DAY), days }
}

/// Days and microseconds of a day to a timestamp.
pub fn timestamp(days: i64, micros: i64) -> Result<i64, SqlError> {
    if !(MIN_DAY..=MAX_DAY).contains(&days) {
        return Err(out_of_range("timestamp"));
    }
    days.checked_mul(DAY).and_then(|d| d.checked_add(micros)).ok_or_else(|| out_of_range("timestamp"))
}

pub fn date(days: i64) -> Result<i32, SqlError> {
    if (MIN_DAY..=2_147_483_493).contains(&days) { Ok(days as i32) } else { Err(out_of_range("date")) }
}

fn write_year(out: &mut String, year: i64) -> bool {
    let bc = year <= 0;
    let _ = write!(out, "{:04}", if bc { 1 - year } else { year });
    bc
}

pub fn write_date(out: &mut String, days: i32) {
    match days {
        DATE_INFINITY => return out.push_str("infinity"),
        DATE_NEGATIVE_INFINITY => return out.push_str("-infinity"),
        _ => {}
    }
    let (year, month, day) = civil_from_days(i64::from(days));
    let bc = write_year(out, year);
    let _ = write!(out, "-{month:02}-{day:02}");
    if bc {
        out.push_str(" BC");
    }
}

fn two(out: &mut String, n: i64) {
    out.push((b'0' + (n / 10 % 10) as u8) as char);
    out.push((b'0' + (n % 10) as u8) as char);
}

/// `hh:mm:ss[.ffffff]`, trailing zeros of the fraction left out.
pub fn write_time(out: &mut String, micros: i64) {
    let hours = micros / HOUR;
    if hours < 100 {
        two(out, hours);
    } else {
        let _ = write!(out, "{hours}");
    }
    out.push(':');
    two(out, micros / MINUTE % 60);
    out.push(':');
    two(out, micros / SECOND % 60);
    let mut fraction = micros % SECOND;
    if fraction != 0 {
        let mut digits = 6;
        while fraction % 10 == 0 {
            fraction /= 10;
            digits -= 1;
        }
        let _ = write!(out, ".{fraction:0digits$}");
    }
}

/// Later than every time, and earlier than every time.
pub const INFINITY: i64 = i64::MAX;
pub const NEGATIVE_INFINITY: i64 = i64::MIN;
/// The same for dates.
pub const DATE_INFINITY: i32 = i32::MAX;
pub const DATE_NEGATIVE_INFINITY: i32 = i32::MIN;

pub fn is_infinite(timestamp: i64) -> bool {
    timestamp == INFINITY || timestamp == NEGATIVE_INFINITY
}

/// A timestamp within bounds, or 22008.
pub fn checked(at: i64) -> Result<i64, SqlError> {
    if is_infinite(at) || (MIN_DAY..=MAX_DAY).contains(&at.div_euclid(DAY)) {
        Ok(at)
    } else {
        Err(out_of_range("timestamp"))
    }
}

/// The day of a timestamp.
pub fn date_of(at: i64) -> Result<i32, SqlError> {
    match at {
        INFINITY => Ok(DATE_INFINITY),
        NEGATIVE_INFINITY => Ok(DATE_NEGATIVE_INFINITY),
        at => date(at.div_euclid(DAY)),
    }
}

/// An instant as a clock in the zone shows it, with the zone's offset behind.
pub fn write_timestamp(out: &mut String, value: i64, zone: &Zone) {
    let offset = if is_infinite(value) { 0 } else { zone.offset(value) };
    let bc = write_clock(out, value.saturating_add(offset));
    if is_infinite(value) {
        return;
    }
    out.push(if offset < 0 { '-' } else { '+' });
    let offset = offset.abs() / SECOND;
    two(out, offset / 3600);
    if offset % 3600 != 0 {
        out.push(':');
        two(out, offset / 60 % 60);
        if offset % 60 != 0 {
            out.push(':');
            two(out, offset % 60);
        }
    }
    if bc {
        out.push_str(" BC");
    }
}

/// A timestamp without a zone.
pub fn write_local(out: &mut String, value: i64) {
    if write_clock(out, value) {
        out.push_str(" BC");
    }
}

/// Date and time; true if it is before Christ, which is said at the end.
fn write_clock(out: &mut String, value: i64) -> bool {
    if is_infinite(value) {
        out.push_str(if value == INFINITY { "infinity" } else { "-infinity" });
        return false;
    }
    let c = civil(value);
    let bc = write_year(out, c.year);
    out.push('-');
    two(out, i64::from(c.month));
    out.push('-');
    two(out, i64::from(c.day));
    out.push(' ');
    write_time(out, c.micros);
    bc
}

pub fn write_interval(out: &mut String, value: Interval) {
    let start = out.len();
    let (years, months) = (value.months / 12, value.months % 12);
    let mut negative_before = false;
    let mut part = |out: &mut String, n: i32, unit: &str| {
        if n == 0 {
            return;
        }
        if out.len() > start {
            out.push(' ');
        }
        let plus = if negative_before && n > 0 { "+" } else { "" };
        let plural = if n == 1 { "" } else { "s" };
        let _ = write!(out, "{plus}{n} {unit}{plural}");
        negative_before = n < 0;
    };
    part(out, years, "year");
    part(out, months, "mon");
    part(out, value.days, "day");
    if value.micros != 0 || out.len() == start {
        if out.len() > start {
            out.push(' ');
        }
        if value.micros < 0 {
            out.push('-');
        } else if negative_before {
            out.push('+');
        }
        // The magnitude of i64::MIN does not fit: one microsecond of 292,000 years is given up.
        write_time(out, value.micros.checked_abs().unwrap_or(i64::MAX));
    }
}

/// Reads a DATE: the date part of whatever reads as a timestamp.
pub fn parse_date(text: &str) -> Result<i32, SqlError> {
    match infinity(text) {
        Some(INFINITY) => Ok(DATE_INFINITY),
        Some(_) => Ok(DATE_NEGATIVE_INFINITY),
        None => date(parse_parts(text, "date")?.0),
    }
}

/// Reads a TIMESTAMPTZ; without a zone it is in the one given.
pub fn parse_timestamp(text: &str, zone: &Zone) -> Result<i64, SqlError> {
    if let Some(infinite) = infinity(text) {
        return Ok(infinite);
    }
    let (days, micros, stated) = parse_parts(text, "timestamp with time zone")?;
    let local = timestamp(days, micros)?;
    match stated {
        Stated::Nothing => zone.to_instant(local),
        Stated::Offset(offset) => checked(local - offset),
        Stated::Zone(zone) => zone.to_instant(local),
    }
}

/// Reads a TIMESTAMP without time zone: a zone that is given is not looked at.
pub fn parse_local(text: &str) -> Result<i64, SqlError> {
    if let Some(infinite) = infinity(text) {
        return Ok(infinite);
    }
    let (days, micros, _) = parse_parts(text, "timestamp")?;
    timestamp(days, micros)
}

/// Reads a TIME: `hh:mm[:ss[.f]]`, `hhmm`, with AM or PM, and the time of a timestamp.
pub fn parse_clock(text: &str) -> Result<i64, SqlError> {
    let bad = || invalid("time", text);
    let mut scan = Scanner { rest: text.trim().as_bytes() };
    let digits = scan.rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if scan.rest.get(digits) == Some(&b'-') {
        return parse_parts(text, "time").map(|(_, micros, _)| micros);
    }
    let micros = parse_time(&mut scan).ok_or_else(bad)?.ok_or_else(|| field_overflow(text))?;
    scan.spaces();
    parse_zone(&mut scan).ok_or_else(bad)?;
    if scan.rest.is_empty() { Ok(micros) } else { Err(bad()) }
}

fn infinity(text: &str) -> Option<i64> {
    let word = text.trim();
    if word.eq_ignore_ascii_case("infinity") {
        Some(INFINITY)
    } else {
        word.eq_ignore_ascii_case("-infinity").then_some(NEGATIVE_INFINITY)
    }
}

/// What a text says of its zone.
enum Stated {
    Nothing,
    /// East of Greenwich, in microseconds.
    Offset(i64),
    Zone(Zone),
}

/// Days, microseconds of the day, and the zone.
fn parse_parts(text: &str, what: &str) -> Result<(i64, i64, Stated), SqlError> {
    let bad = || invalid(what, text);
    let mut s = text.trim();
    if s.eq_ignore_ascii_case("epoch") {
        return Ok((0, 0, Stated::Offset(0)));
    }
    let bc = s.len() > 3 && s.is_char_boundary(s.len() - 3) && s[s.len() - 3..].eq_ignore_ascii_case(" bc");
    if bc {
        s = s[..s.len() - 3].trim_end();
    }
    let mut scan = Scanner { rest: s.as_bytes() };
    let digits = scan.digits();
    let (year, month, day) = if digits.len() == 8 {
        let n = number(digits).ok_or_else(bad)?;
        (n / 10_000, (n / 100 % 100) as u32, (n % 100) as u32)
    } else {
        let year = number(digits).filter(|_| digits.len() >= 3).ok_or_else(bad)?;
        let separator = scan.one_of(b"-/").ok_or_else(bad)?;
        let month = number(scan.digits()).ok_or_else(bad)? as u32;
        if scan.one_of(&[separator]).is_none() {
            return Err(bad());
        }
        (year, month, number(scan.digits()).ok_or_else(bad)? as u32)
    };
    let year = if bc { 1 - year } else { year };
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) || year > 5_874_897 {
        return Err(field_overflow(text));
    }
    let days = days_from_civil(year, month, day);
    if scan.rest.is_empty() {
        return Ok((days, 0, Stated::Nothing));
    }
    let zone_follows = matches!(scan.rest.first(), Some(b'z' | b'Z' | b'+'));
    if !zone_follows && scan.one_of(b"tT").is_none() && !scan.spaces() {
        return Err(bad());
    }
    let micros = if scan.rest.first().is_some_and(u8::is_ascii_digit) {
        parse_time(&mut scan).ok_or_else(bad)?.ok_or_else(|| field_overflow(text))?
    } else {
        0
    };
    scan.spaces();
    let offset = parse_zone(&mut scan).ok_or_else(|| {
        SqlError::new(SqlState::INVALID_PARAMETER, format!("time zone of \"{text}\" is not recognized"))
            .hint("write an offset such as +00 or +02:00")
    })?;
    if scan.rest.is_empty() { Ok((days, micros, offset)) } else { Err(bad()) }
}

/// `hh:mm[:ss[.f]]`; the inner none is a field out of range.
fn parse_time(scan: &mut Scanner<'_>) -> Option<Option<i64>> {
    let hours = number(scan.digits())?;
    scan.one_of(b":")?;
    let minutes = number(scan.digits())?;
    let (mut seconds, mut micros) = (0, 0);
    if scan.one_of(b":").is_some() {
        seconds = number(scan.digits())?;
        if scan.one_of(b".,").is_some() {
            micros = fraction(scan.digits());
        }
    }
    let mut hours = hours;
    let before = scan.rest;
    scan.spaces();
    let word = scan.rest.get(..2).map(|w| w.to_ascii_lowercase());
    let ends = !scan.rest.get(2).is_some_and(u8::is_ascii_alphabetic);
    match word.as_deref() {
        Some(half @ (b"am" | b"pm")) if ends => {
            scan.rest = &scan.rest[2..];
            if hours > 12 {
                return Some(None);
            }
            hours = hours % 12 + if half == b"pm" { 12 } else { 0 };
        }
        _ => scan.rest = before,
    }
    let total = hours * HOUR + minutes * MINUTE + seconds * SECOND + micros;
    Some((hours <= 24 && minutes < 60 && seconds <= 60 && total <= DAY).then_some(total))
}

/// Digits after the point as microseconds, rounded.
fn fraction(digits: &[u8]) -> i64 {
    let at = |i: usize| digits.get(i).map_or(0, |d| i64::from(d - b'0'));
    (0..6).fold(0, |n, i| n * 10 + at(i)) + i64::from(at(6) >= 5)
}

fn parse_zone(scan: &mut Scanner<'_>) -> Option<Stated> {
    if scan.rest.is_empty() {
        return Some(Stated::Nothing);
    }
    if scan.rest[0].is_ascii_alphabetic() {
        let name = std::str::from_utf8(std::mem::take(&mut scan.rest)).ok()?;
        return Zone::parse(name, false).map(Stated::Zone);
    }
    let sign = if scan.one_of(b"+-")? == b'-' { -1 } else { 1 };
    let digits = scan.digits();
    let n = number(digits)?;
    let (mut hours, mut minutes, mut seconds) = (n, 0, 0);
    if digits.len() > 2 {
        (hours, minutes) = (n / 100, n % 100);
    } else if scan.one_of(b":").is_some() {
        minutes = number(scan.digits())?;
        if scan.one_of(b":").is_some() {
            seconds = number(scan.digits())?;
        }
    }
    (hours < 16 && minutes < 60 && seconds < 60)
        .then_some(Stated::Offset(sign * (hours * HOUR + minutes * MINUTE + seconds * SECOND)))
}

fn number(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    Some(digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
}

struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    fn digits(&mut self) -> &'a [u8] {
        let end = self.rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(self.rest.len());
        let (head, rest) = self.rest.split_at(end);
        self.rest = rest;
        head
    }

    fn one_of(&mut self, set: &[u8]) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        if !set.contains(&first) {
            return None;
        }
        self.rest = rest;
        Some(first)
    }

    fn spaces(&mut self) -> bool {
        let before = self.rest.len();
        self.rest = self.rest.trim_ascii_start();
        self.rest.len() < before
    }
}

/// Reads an INTERVAL: `1 day 02:03`, `3 months ago`, `P1DT2H`, `90 minutes`.
pub fn parse_interval(text: &str) -> Result<Interval, SqlError> {
    let bad = || invalid("interval", text);
    let over = || {
        SqlError::new(SqlState::DATETIME_OVERFLOW, format!("interval field value out of range: \"{text}\""))
    };
    let s = text.trim();
    if s.is_empty() {
        return Err(bad());
    }
    let mut total = IntervalSum::default();
    if let Some(iso) = s.strip_prefix(['P', 'p']) {
        parse_iso_interval(iso, &mut total).ok_or_else(bad)?;
        return total.finish().ok_or_else(over);
    }
    let mut scan = Scanner { rest: s.as_bytes() };
    let mut any = false;
    while !scan.rest.is_empty() {
        scan.one_of(b"@");
        scan.spaces();
        let word_end = scan.rest.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(scan.rest.len());
        if scan.rest[..word_end].eq_ignore_ascii_case(b"ago") && any {
            scan.rest = scan.rest[word_end..].trim_ascii_start();
            total.negate();
            continue;
        }
        let sign = match scan.one_of(b"+-") {
            Some(b'-') => -1,
            _ => 1,
        };
        scan.spaces();
        let whole = scan.digits();
        if scan.rest.first() == Some(&b':') {
            let mut clock = Scanner { rest: scan.rest };
            clock.one_of(b":");
            let hours = number(whole).ok_or_else(bad)?;
            let minutes = number(clock.digits()).filter(|m| *m < 60).ok_or_else(bad)?;
            let (mut seconds, mut micros) = (0, 0);
            if clock.one_of(b":").is_some() {
                seconds = number(clock.digits()).filter(|s| *s < 60).ok_or_else(bad)?;
                if clock.one_of(b".").is_some() {
                    micros = fraction(clock.digits());
                }
            }
            total.micros +=
                i128::from(sign) * i128::from(hours * HOUR + minutes * MINUTE + seconds * SECOND + micros);
            scan.rest = clock.rest;
        } else {
            let fractional = if scan.one_of(b".").is_some() { scan.digits() } else { &[] };
            if whole.is_empty() && fractional.is_empty() || whole.len() > 15 {
                return Err(bad());
            }
            let n = whole.iter().fold(0i64, |n, d| n * 10 + i64::from(d - b'0'));
            if fractional.is_empty() && scan.rest.first() == Some(&b'-') {
                // SQL's years-months.
                scan.one_of(b"-");
                let months = number(scan.digits()).filter(|m| *m < 12).ok_or_else(bad)?;
                total.add(sign, n, 0.0, "year").ok_or_else(bad)?;
                total.add(sign, months, 0.0, "month").ok_or_else(bad)?;
                (any, _) = (true, scan.spaces());
                continue;
            }
            scan.spaces();
            let end = scan.rest.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(scan.rest.len());
            let (unit, rest) = scan.rest.split_at(end);
            scan.rest = rest;
            let unit = match unit {
                // SQL's days before a clock.
                b"" if clock_follows(scan.rest) => "day".to_owned(),
                b"" => "second".to_owned(),
                unit => lower(unit),
            };
            total.add(sign, n, fraction_of(fractional), &unit).ok_or_else(bad)?;
        }
        any = true;
        scan.spaces();
    }
    if !any {
        return Err(bad());
    }
    total.finish().ok_or_else(over)
}

fn lower(bytes: &[u8]) -> String {
    bytes.iter().map(|b| b.to_ascii_lowercase() as char).collect()
}

/// `[+-]hh:` comes next.
fn clock_follows(rest: &[u8]) -> bool {
    let rest = rest.strip_prefix(b"+").or(rest.strip_prefix(b"-")).unwrap_or(rest);
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    digits > 0 && rest.get(digits) == Some(&b':')
}

/// Digits after the point as a fraction of one.
fn fraction_of(digits: &[u8]) -> f64 {
    digits.iter().take(15).rev().fold(0.0, |f, d| (f + f64::from(d - b'0')) / 10.0)
}

fn parse_iso_interval(s: &str, total: &mut IntervalSum) -> Option<()> {
    let mut scan = Scanner { rest: s.as_bytes() };
    let mut in_time = false;
    while !scan.rest.is_empty() {
        if scan.one_of(b"tT").is_some() {
            in_time = true;
            continue;
        }
        let sign = if scan.one_of(b"-+") == Some(b'-') { -1 } else { 1 };
        let whole = number(scan.digits())?;
        let fractional = if scan.one_of(b".").is_some() { scan.digits() } else { &[] };
        let unit = match (scan.one_of(b"ymwdhsYMWDHS")?.to_ascii_lowercase(), in_time) {
            (b'y', false) => "year",
            (b'm', false) => "month",
            (b'w', false) => "week",
            (b'd', false) => "day",
            (b'h', true) => "hour",
            (b'm', true) => "minute",
            (b's', true) => "second",
            _ => return None,
        };
        total.add(sign, whole, fraction_of(fractional), unit)?;
    }
    Some(())
}

/// An interval being summed up, wide enough not to overflow on the way.
#[derive(Default)]
struct IntervalSum {
    months: i64,
    days: i64,
    micros: i128,
}

impl IntervalSum {
    fn negate(&mut self) {
        (self.months, self.days, self.micros) = (-self.months, -self.days, -self.micros);
    }

    fn add(&mut self, sign: i64, whole: i64, fraction: f64, unit: &str) -> Option<()> {
        let wide = i128::from(sign) * i128::from(whole);
        let n = sign.checked_mul(whole)?;
        let f = sign as f64 * fraction;
        let months = |sum: &mut IntervalSum, per: i64| -> Option<()> {
            sum.months = sum.months.checked_add(n.checked_mul(per)?)?;
            sum.months += (f * per as f64).trunc() as i64;
            let days = (f * per as f64).fract() * 30.0;
            sum.days += days.trunc() as i64;
            sum.micros += (days.fract() * DAY as f64).round() as i128;
            Some(())
        };
        let days = |sum: &mut IntervalSum, per: i64| -> Option<()> {
            sum.days = sum.days.checked_add(n.checked_mul(per)?)?;
            let rest = f * per as f64;
            sum.days += rest.trunc() as i64;
            sum.micros += (rest.fract() * DAY as f64).round() as i128;
            Some(())
        };
        let micros = |sum: &mut IntervalSum, per: i64| {
            sum.micros += wide * i128::from(per) + (f * per as f64).round() as i128;
            Some(())
        };
        match unit {
            "millennium" | "millennia" | "mil" | "mils" => months(self, 12_000),
            "century" | "centuries" | "c" | "cent" => months(self, 1_200),
            "decade" | "decades" | "dec" | "decs" => months(self, 120),
            "year" | "years" | "y" | "yr" | "yrs" => months(self, 12),
            "month" | "months" | "mon" | "mons" => months(self, 1),
            "week" | "weeks" | "w" => days(self, 7),
            "day" | "days" | "d" => days(self, 1),
            "hour" | "hours" | "h" | "hr" | "hrs" => micros(self, HOUR),
            "minute" | "minutes" | "m" | "min" | "mins" => micros(self, MINUTE),
            "second" | "seconds" | "s" | "sec" | "secs" => micros(self, SECOND),
            "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" => micros(self, 1_000),
            "microsecond" | "microseconds" | "us" | "usec" | "usecs" => micros(self, 1),
            _ => None,
        }
    }

    fn finish(self) -> Option<Interval> {
        Some(Interval {
            months: i32::try_from(self.months).ok()?,
            days: i32::try_from(self.days).ok()?,
            micros: i64::try_from(self.micros).ok()?,
        })
    }
}

/// Adds an interval: months first (the day clipped to the month), then days, then microseconds.
pub fn add_interval(at: i64, interval: Interval) -> Result<i64, SqlError> {
    let over = || out_of_range("timestamp");
    let mut at = at;
    if interval.months != 0 {
        let c = civil(at);
        let months = c.year * 12 + i64::from(c.month) - 1 + i64::from(interval.months);
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) as u32 + 1);
        let day = c.day.min(days_in_month(year, month));
        at = timestamp(days_from_civil(year, month, day), c.micros)?;
    }
    at = i64::from(interval.days).checked_mul(DAY).and_then(|d| at.checked_add(d)).ok_or_else(over)?;
    at = at.checked_add(interval.micros).ok_or_else(over)?;
    timestamp(at.div_euclid(DAY), at.rem_euclid(DAY))
}

pub fn negate_interval(i: Interval) -> Result<Interval, SqlError> {
    let over = || out_of_range("interval");
    Ok(Interval {
        months: i.months.checked_neg().ok_or_else(over)?,
        days: i.days.checked_neg().ok_or_else(over)?,
        micros: i.micros.checked_neg().ok_or_else(over)?,
    })
}

pub fn sum_intervals(a: Interval, b: Interval) -> Result<Interval, SqlError> {
    let over = || out_of_range("interval");
    Ok(Interval {
        months: a.months.checked_add(b.months).ok_or_else(over)?,
        days: a.days.checked_add(b.days).ok_or_else(over)?,
        micros: a.micros.checked_add(b.micros).ok_or_else(over)?,
    })
}

/// An interval times a number; fractions of months become days and those of days microseconds.
pub fn scale_interval(i: Interval, by: f64) -> Result<Interval, SqlError> {
    let over = || out_of_range("interval");
    let months = f64::from(i.months) * by;
    let days = f64::from(i.days) * by + (months.fract() * 30.0);
    let days = (days * 1e6).round() / 1e6;
    let micros = i.micros as f64 * by + days.fract() * DAY as f64;
    let fits = |x: f64, limit: f64| if x.abs() < limit { Some(x) } else { None };
    Ok(Interval {
        months: fits(months.trunc(), 2e9).ok_or_else(over)? as i32,
        days: fits(days.trunc(), 2e9).ok_or_else(over)? as i32,
        micros: fits(micros.round(), 9.2e18).ok_or_else(over)? as i64,
    })
}

/// The difference of two timestamps, in days and microseconds.
pub fn difference(a: i64, b: i64) -> Result<Interval, SqlError> {
    let micros = a.checked_sub(b).ok_or_else(|| out_of_range("interval"))?;
    Ok(Interval { months: 0, days: (micros / DAY) as i32, micros: micros % DAY })
}

/// The calendar difference, as `age()` has it.
pub fn age(a: i64, b: i64) -> Result<Interval, SqlError> {
    if a < b {
        return negate_interval(age(b, a)?);
    }
    let (x, y) = (civil(a), civil(b));
    let mut months = (x.year - y.year) * 12 + i64::from(x.month) - i64::from(y.month);
    let mut days = i64::from(x.day) - i64::from(y.day);
    let mut micros = x.micros - y.micros;
    if micros < 0 {
        micros += DAY;
        days -= 1;
    }
    if days < 0 {
        days += i64::from(days_in_month(y.year, y.month));
        months -= 1;
    }
    Ok(Interval { months: months as i32, days: days as i32, micros })
}

/// A unit of `date_trunc` and `extract`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Microseconds,
    Milliseconds,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    Epoch,
    Dow,
    IsoDow,
    Doy,
    IsoYear,
    Timezone,
    Julian,
}

impl Field {
    pub fn parse(name: &str) -> Option<Field> {
        use Field::*;
        Some(match name.to_ascii_lowercase().as_str() {
            "microsecond" | "microseconds" | "us" | "usec" | "usecs" => Microseconds,
            "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" => Milliseconds,
            "second" | "seconds" | "sec" | "secs" | "s" => Second,
            "minute" | "minutes" | "min" | "mins" | "m" => Minute,
            "hour" | "hours" | "hr" | "hrs" | "h" => Hour,
            "day" | "days" | "d" => Day,
            "week" | "weeks" | "w" => Week,
            "month" | "months" | "mon" | "mons" => Month,
            "quarter" | "qtr" => Quarter,
            "year" | "years" | "yr" | "yrs" | "y" => Year,
            "decade" | "decades" | "dec" | "decs" => Decade,
            "century" | "centuries" | "c" | "cent" => Century,
            "millennium" | "millennia" | "mil" | "mils" => Millennium,
            "epoch" => Epoch,
            "dow" => Dow,
            "isodow" => IsoDow,
            "doy" => Doy,
            "isoyear" => IsoYear,
            "timezone" | "timezone_hour" | "timezone_minute" => Timezone,
            "julian" => Julian,
            _ => return None,
        })
    }
}

/// Rounds down to a unit. None where the unit has no beginning.
pub fn truncate(field: Field, at: i64) -> Option<i64> {
    use Field::*;
    let multiple = |step: i64| Some(at - at.rem_euclid(step));
    match field {
        Microseconds => Some(at),
        Milliseconds => multiple(1_000),
        Second => multiple(SECOND),
        Minute => multiple(MINUTE),
        Hour => multiple(HOUR),
        Day => multiple(DAY),
        // 1970-01-01 was a Thursday.
        Week => Some((at.div_euclid(DAY) - (at.div_euclid(DAY) + 3).rem_euclid(7)) * DAY),
        Month | Quarter | Year | Decade | Century | Millennium => {
            let c = civil(at);
            let (year, month) = match field {
                Month => (c.year, c.month),
                Quarter => (c.year, (c.month - 1) / 3 * 3 + 1),
                Year => (c.year, 1),
                Decade => (c.year.div_euclid(10) * 10, 1),
                Century => ((c.year - 1).div_euclid(100) * 100 + 1, 1),
                _ => ((c.year - 1).div_euclid(1000) * 1000 + 1, 1),
            };
            days_from_civil(year, month, 1).checked_mul(DAY)
        }
        _ => None,
    }
}

/// `date_trunc` of an interval.
pub fn truncate_interval(field: Field, i: Interval) -> Option<Interval> {
    use Field::*;
    let months = |step: i32| Some(Interval { months: i.months / step * step, days: 0, micros: 0 });
    let micros = |step: i64| Some(Interval { micros: i.micros / step * step, ..i });
    match field {
        Microseconds => Some(i),
        Milliseconds => micros(1_000),
        Second => micros(SECOND),
        Minute => micros(MINUTE),
        Hour => micros(HOUR),
        Day => Some(Interval { micros: 0, ..i }),
        Month => months(1),
        Quarter => months(3),
        Year => months(12),
        Decade => months(120),
        Century => months(1_200),
        Millennium => months(12_000),
        _ => None,
    }
}

/// `extract(field from timestamp)`.
pub fn extract(field: Field, at: i64) -> f64 {
    use Field::*;
    let c = civil(at);
    let since_minute = c.micros % MINUTE;
    match field {
        Epoch => at as f64 / 1e6,
        Microseconds => since_minute as f64,
        Milliseconds => since_minute as f64 / 1e3,
        Second => since_minute as f64 / 1e6,
        Minute => (c.micros / MINUTE % 60) as f64,
        Hour => (c.micros / HOUR) as f64,
        Day => f64::from(c.day),
        Month => f64::from(c.month),
        Quarter => f64::from((c.month - 1) / 3 + 1),
        Year => (if c.year <= 0 { c.year - 1 } else { c.year }) as f64,
        Decade => c.year.div_euclid(10) as f64,
        Century => ((c.year - 1).div_euclid(100) + 1) as f64,
        Millennium => ((c.year - 1).div_euclid(1000) + 1) as f64,
        Dow => (c.days + 4).rem_euclid(7) as f64,
        IsoDow => ((c.days + 3).rem_euclid(7) + 1) as f64,
        Doy => (c.days - days_from_civil(c.year, 1, 1) + 1) as f64,
        Week => ((c.days - iso_year_start(iso_year(c.days))) / 7 + 1) as f64,
        IsoYear => iso_year(c.days) as f64,
        Timezone => 0.0,
        Julian => (c.days + 2_440_588) as f64 + c.micros as f64 / DAY as f64,
    }
}

/// The Monday that begins an ISO year.
fn iso_year_start(year: i64) -> i64 {
    let fourth = days_from_civil(year, 1, 4);
    fourth - (fourth + 3).rem_euclid(7)
}

fn iso_year(days: i64) -> i64 {
    let (year, _, _) = civil_from_days(days);
    match year {
        y if days >= iso_year_start(y + 1) => y + 1,
        y if days < iso_year_start(y) => y - 1,
        y => y,
    }
}

/// `extract(field from interval)`; none where the field makes no sense.
pub fn extract_interval(field: Field, i: Interval) -> Option<f64> {
    use Field::*;
    let since_minute = i.micros % MINUTE;
    Some(match field {
        Epoch => {
            let years = f64::from(i.months / 12) * 365.25 * 86_400.0;
            years
                + f64::from(i.months % 12) * 30.0 * 86_400.0
                + f64::from(i.days) * 86_400.0
                + i.micros as f64 / 1e6
        }
        Microseconds => since_minute as f64,
        Milliseconds => since_minute as f64 / 1e3,
        Second => since_minute as f64 / 1e6,
        Minute => (i.micros / MINUTE % 60) as f64,
        Hour => (i.micros / HOUR) as f64,
        Day => f64::from(i.days),
        Month => f64::from(i.months % 12),
        Quarter => f64::from(i.months % 12 / 3 + 1),
        Year => f64::from(i.months / 12),
        Decade => f64::from(i.months / 120),
        Century => f64::from(i.months / 1_200),
        Millennium => f64::from(i.months / 12_000),
        _ => return None,
    })
}

/// `date_bin(stride, at, origin)`.
pub fn bin(stride: Interval, at: i64, origin: i64) -> Result<i64, SqlError> {
    if stride.months != 0 {
        return Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "timestamps cannot be binned into intervals containing months or years",
        ));
    }
    let width = i64::try_from(stride.estimate()).map_err(|_| out_of_range("interval"))?;
    if width <= 0 {
        return Err(SqlError::new(SqlState::DATETIME_OVERFLOW, "stride must be greater than zero"));
    }
    let since = at.checked_sub(origin).ok_or_else(|| out_of_range("timestamp"))?;
    Ok(at - since.rem_euclid(width))
}
