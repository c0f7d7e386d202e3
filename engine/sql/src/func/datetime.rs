//! Times, dates and intervals.

use super::{Builtin, Kernel, Volatility, float, functions, int, interval, str};
use crate::decimal::Decimal;
use crate::error::{SqlError, SqlState};
use crate::exec::eval::{EvalCx, map1, map2};
use crate::exec::vector::{Data, ValueRef, Vector};
use crate::time::{self, Field};
use crate::zone::Zone;
use chronos_proto::value::Interval;
use chronos_proto::{Type, Value};

functions! { TABLE:
    "now" () -> Timestamp Stable Row now;
    "transaction_timestamp" () -> Timestamp Stable Row now;
    "statement_timestamp" () -> Timestamp Stable Row now;
    "clock_timestamp" () -> Timestamp Stable Row now;
    "current_timestamp" () -> Timestamp Stable Row now;
    "localtimestamp" () -> LocalTimestamp Stable Row |_, cx| Ok(Value::LocalTimestamp(cx.zone().to_local(cx.now)));
    "current_date" () -> Date Stable Row |_, cx| Ok(Value::Date(time::date_of(cx.zone().to_local(cx.now))?));
    "to_timestamp" (Float) -> Timestamp Immutable Vector |a, n, _| map1(Type::Timestamp, &a[0], n, |x: f64| {
        let micros = (x * 1e6).round_ties_even();
        if micros.is_nan() || micros.abs() > 9.2e18 {
            return Err(SqlError::new(SqlState::DATETIME_OVERFLOW, format!("timestamp out of range: \"{x}\"")));
        }
        time::timestamp((micros as i64).div_euclid(time::DAY), (micros as i64).rem_euclid(time::DAY))
    });
    "date_trunc" (Text, Timestamp) -> Timestamp Stable Vector date_trunc;
    "date_trunc" (Text, Interval) -> Interval Immutable Row |a, _| {
        let field = field(str(a[0]))?;
        time::truncate_interval(field, interval(a[1])).map(Value::Interval).ok_or_else(|| unit_unsupported(str(a[0])))
    };
    "date_part" (Text, Timestamp) -> Float Stable Vector date_part;
    "extract" (Text, Timestamp) -> Numeric Stable Row |a, cx| match field(str(a[0]))? {
        Field::Timezone => exact(Field::Timezone, (cx.zone().offset(int(a[1])) / time::SECOND) as f64),
        unit => exact(unit, extract_in(unit, int(a[1]), cx.zone())),
    };
    "extract" (Text, Date) -> Numeric Immutable Row |a, _| match field(str(a[0]))? {
        Field::Hour | Field::Minute | Field::Second | Field::Milliseconds | Field::Microseconds | Field::Timezone => {
            Err(SqlError::unsupported(format!("unit \"{}\" for type date", str(a[0]))))
        }
        Field::Epoch => Decimal::from(int(a[1]) * 86_400).to_value(),
        unit => exact(unit, time::extract(unit, int(a[1]) * time::DAY)),
    };
    "date_part" (Text, Interval) -> Float Immutable Row interval_part;
    "extract" (Text, Interval) -> Numeric Immutable Row |a, _| {
        let unit = field(str(a[0]))?;
        let part = time::extract_interval(unit, interval(a[1]));
        exact(unit, part.ok_or_else(|| unit_unsupported(str(a[0])))?)
    };
    "date_bin" (Interval, Timestamp, Timestamp) -> Timestamp Immutable Vector |a, n, _| {
        let (Some(stride), Some(origin)) = (a[0].native::<Interval>(), a[2].native::<i64>()) else {
            return Ok(Vector::constant(Type::Timestamp, Value::Null));
        };
        if n > 0 && a[0].nulls.is_none() && matches!((&a[0].data, &a[2].data), (Data::Const(_), Data::Const(_))) {
            let (stride, origin) = (stride.get(0), origin.get(0));
            return map1(Type::Timestamp, &a[1], n, |t: i64| time::bin(stride, t, origin));
        }
        let mut out = Vector::empty(Type::Timestamp, n);
        for i in 0..n {
            match (a[0].get(i), a[1].get(i), a[2].get(i)) {
                (ValueRef::Interval(s), ValueRef::Timestamp(t), ValueRef::Timestamp(o)) => {
                    out.push(ValueRef::Timestamp(time::bin(s, t, o)?));
                }
                _ => out.push_null(),
            }
        }
        Ok(out)
    };
    "time_bucket" (Interval, Timestamp) -> Timestamp Immutable Vector |a, n, _| map2(Type::Timestamp, a, n, |s: Interval, t: i64| {
        // Monday 2000-01-03, so that weeks begin as people expect.
        time::bin(s, t, 946_857_600_000_000)
    });
    "age" (Timestamp, Timestamp) -> Interval Immutable Vector |a, n, _| map2(Type::Interval, a, n, time::age);
    "age" (Timestamp) -> Interval Stable Row |a, cx| {
        let midnight = cx.now - cx.now.rem_euclid(time::DAY);
        Ok(Value::Interval(time::age(midnight, int(a[0]))?))
    };
    "make_date" (Int, Int, Int) -> Date Immutable Row |a, _| {
        let (y, m, d) = (int(a[0]), int(a[1]), int(a[2]));
        let fits = (1..=12).contains(&m) && y.abs() < 300_000 && d >= 1 && d <= i64::from(time::days_in_month(y, m as u32));
        if !fits {
            return Err(SqlError::new(SqlState::DATETIME_OVERFLOW, format!("date field value out of range: {y}-{m:02}-{d:02}")));
        }
        Ok(Value::Date(time::date(time::days_from_civil(y, m as u32, d as u32))?))
    };
    "make_interval" (Int, Int, Int, Int, Int, Int, Float) -> Interval Immutable Row |a, _| {
        let out_of_range = || SqlError::new(SqlState::DATETIME_OVERFLOW, "interval out of range");
        let months = int(a[0]).checked_mul(12).and_then(|y| y.checked_add(int(a[1])));
        let days = int(a[2]).checked_mul(7).and_then(|w| w.checked_add(int(a[3])));
        let micros = int(a[4]) as f64 * 3.6e9 + int(a[5]) as f64 * 6e7 + float(a[6]) * 1e6;
        if micros.is_nan() || micros.abs() >= 9.2e18 {
            return Err(out_of_range());
        }
        Ok(Value::Interval(Interval {
            months: months.and_then(|m| i32::try_from(m).ok()).ok_or_else(out_of_range)?,
            days: days.and_then(|d| i32::try_from(d).ok()).ok_or_else(out_of_range)?,
            micros: micros.round() as i64,
        }))
    };
    "justify_hours" (Interval) -> Interval Immutable Row |a, _| {
        let i = interval(a[0]);
        let days = i32::try_from(i64::from(i.days) + i.micros / time::DAY);
        let days = days.map_err(|_| SqlError::new(SqlState::DATETIME_OVERFLOW, "interval out of range"))?;
        Ok(Value::Interval(Interval { days, micros: i.micros % time::DAY, ..i }))
    };
    "to_char" (Timestamp, Text) -> Text Stable Row |a, cx| super::text(to_char(cx.zone().to_local(int(a[0])), str(a[1])));
    "timezone" (Text, Timestamp) -> LocalTimestamp Immutable Row |a, _| {
        Ok(Value::LocalTimestamp(Zone::named(str(a[0]))?.to_local(int(a[1]))))
    };
    "timezone" (Text, LocalTimestamp) -> Timestamp Immutable Row |a, _| {
        Ok(Value::Timestamp(Zone::named(str(a[0]))?.to_instant(int(a[1]))?))
    };
    "make_time" (Integer, Integer, Float) -> Time Immutable Row |a, _| {
        let (hour, minute, second) = (int(a[0]), int(a[1]), float(a[2]));
        let fits = (0..=24).contains(&hour) && (0..60).contains(&minute) && (0.0..=60.0).contains(&second);
        let micros = hour * time::HOUR + minute * time::MINUTE + (second * 1e6).round() as i64;
        if !fits || micros > time::DAY {
            let message = format!("time field value out of range: {hour}:{minute:02}:{second}");
            return Err(SqlError::new(SqlState::DATETIME_OVERFLOW, message));
        }
        Ok(Value::Time(micros))
    };
    "date_trunc" (Text, LocalTimestamp) -> LocalTimestamp Immutable Row |a, _| {
        let truncated = time::truncate(field(str(a[0]))?, int(a[1]));
        truncated.map(Value::LocalTimestamp).ok_or_else(|| unit_unsupported(str(a[0])))
    };
    "age" (LocalTimestamp, LocalTimestamp) -> Interval Immutable Vector |a, n, _| map2(Type::Interval, a, n, time::age);
    "date_part" (Text, LocalTimestamp) -> Float Immutable Row |a, _| Ok(Value::Float(time::extract(field(str(a[0]))?, int(a[1]))));
    "extract" (Text, LocalTimestamp) -> Numeric Immutable Row |a, _| {
        let unit = field(str(a[0]))?;
        exact(unit, time::extract(unit, int(a[1])))
    };
    "date_bin" (Interval, LocalTimestamp, LocalTimestamp) -> LocalTimestamp Immutable Row |a, _| {
        Ok(Value::LocalTimestamp(time::bin(interval(a[0]), int(a[1]), int(a[2]))?))
    };
    "date_trunc" (Text, Timestamp, Text) -> Timestamp Immutable Row |a, _| {
        let truncated = truncate_in(field(str(a[0]))?, int(a[1]), &Zone::named(str(a[2]))?);
        Ok(Value::Timestamp(truncated.ok_or_else(|| unit_unsupported(str(a[0])))??))
    };
    "justify_days" (Interval) -> Interval Immutable Row |a, _| Ok(Value::Interval(justify_days(interval(a[0]))?));
    "justify_interval" (Interval) -> Interval Immutable Row |a, _| {
        let i = interval(a[0]);
        let days = i32::try_from(i64::from(i.days) + i.micros / time::DAY).map_err(|_| interval_overflow())?;
        let mut i = justify_days(Interval { days, micros: i.micros % time::DAY, ..i })?;
        // All of one sign.
        if i.months > 0 && (i.days < 0 || i.days == 0 && i.micros < 0) {
            (i.months, i.days) = (i.months - 1, i.days + 30);
        } else if i.months < 0 && (i.days > 0 || i.days == 0 && i.micros > 0) {
            (i.months, i.days) = (i.months + 1, i.days - 30);
        }
        if i.days > 0 && i.micros < 0 {
            (i.days, i.micros) = (i.days - 1, i.micros + time::DAY);
        } else if i.days < 0 && i.micros > 0 {
            (i.days, i.micros) = (i.days + 1, i.micros - time::DAY);
        }
        Ok(Value::Interval(i))
    };
    "make_timestamp" (Integer, Integer, Integer, Integer, Integer, Float) -> LocalTimestamp Immutable Row |a, _| {
        Ok(Value::LocalTimestamp(made(a)?))
    };
    "make_timestamptz" (Integer, Integer, Integer, Integer, Integer, Float) -> Timestamp Stable Row |a, cx| {
        Ok(Value::Timestamp(cx.zone().to_instant(made(a)?)?))
    };
    "to_char" (LocalTimestamp, Text) -> Text Immutable Row |a, _| super::text(to_char(int(a[0]), str(a[1])));
    "isfinite" (Timestamp) -> Bool Immutable Row |a, _| Ok(Value::Bool(!time::is_infinite(int(a[0]))));
    "isfinite" (LocalTimestamp) -> Bool Immutable Row |a, _| Ok(Value::Bool(!time::is_infinite(int(a[0]))));
    "isfinite" (Date) -> Bool Immutable Row |a, _| {
        Ok(Value::Bool(!matches!(a[0], ValueRef::Date(i32::MAX | i32::MIN))))
    };
    "isfinite" (Interval) -> Bool Immutable Row |_, _| Ok(Value::Bool(true));
}

/// A field as `extract` has it: exact, with as many digits behind the point as its unit goes below a second.
fn exact(unit: Field, value: f64) -> Result<Value, SqlError> {
    let scale: u16 = match unit {
        Field::Epoch | Field::Second => 6,
        Field::Milliseconds => 3,
        Field::Julian if value.fract() != 0.0 => 20,
        _ => 0,
    };
    if !value.is_finite() {
        return crate::text::parse(&value.to_string(), Type::Numeric);
    }
    crate::text::numeric_with_scale(&format!("{value:.0$}", usize::from(scale)), scale)
}

fn interval_overflow() -> SqlError {
    SqlError::new(SqlState::DATETIME_OVERFLOW, "interval out of range")
}

fn justify_days(i: Interval) -> Result<Interval, SqlError> {
    let months = i.months.checked_add(i.days / 30).ok_or_else(interval_overflow)?;
    Ok(Interval { months, days: i.days % 30, ..i })
}

/// `make_timestamp(year, month, day, hour, minute, second)`.
fn made(a: &[ValueRef<'_>]) -> Result<i64, SqlError> {
    let (y, m, d) = (int(a[0]), int(a[1]), int(a[2]));
    let (hour, minute, second) = (int(a[3]), int(a[4]), float(a[5]));
    let fits = (1..=12).contains(&m)
        && (1..300_000).contains(&y)
        && d >= 1
        && d <= i64::from(time::days_in_month(y, m as u32))
        && (0..=24).contains(&hour)
        && (0..60).contains(&minute)
        && (0.0..=60.0).contains(&second);
    let micros = hour * time::HOUR + minute * time::MINUTE + (second * 1e6).round() as i64;
    if !fits || micros > time::DAY {
        let message =
            format!("date/time field value out of range: {y}-{m:02}-{d:02} {hour}:{minute:02}:{second}");
        return Err(SqlError::new(SqlState::DATETIME_OVERFLOW, message));
    }
    time::timestamp(time::days_from_civil(y, m as u32, d as u32), micros)
}

/// The transaction's time less so many microseconds; not for statements to call.
pub(super) static BEFORE: Builtin = Builtin {
    name: "chronos_before",
    args: &[Some(Type::Int)],
    variadic: false,
    returns: Type::Timestamp,
    volatility: Volatility::Stable,
    kernel: Kernel::Row(|a, cx| Ok(Value::Timestamp(cx.now.saturating_sub(int(a[0]))))),
};

fn now(_: &[ValueRef<'_>], cx: &EvalCx<'_>) -> Result<Value, SqlError> {
    Ok(Value::Timestamp(cx.now))
}

fn field(name: &str) -> Result<Field, SqlError> {
    Field::parse(name)
        .ok_or_else(|| SqlError::new(SqlState::INVALID_PARAMETER, format!("unit \"{name}\" not recognized")))
}

fn unit_unsupported(name: &str) -> SqlError {
    SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("unit \"{name}\" not supported for this type"))
}

/// The unit if it is the same for all rows, which it almost always is.
fn constant_text(v: &Vector) -> Option<&str> {
    match &v.data {
        Data::Const(Value::Text(s)) => Some(s),
        _ => None,
    }
}

/// A part of the calendar is cut off as the session's zone shows it.
fn truncate_in(unit: Field, at: i64, zone: &Zone) -> Option<Result<i64, SqlError>> {
    time::truncate(unit, zone.to_local(at)).map(|t| zone.to_instant(t))
}

/// A field as the session's zone shows it, but for the seconds since 1970.
fn extract_in(unit: Field, at: i64, zone: &Zone) -> f64 {
    time::extract(unit, if unit == Field::Epoch { at } else { zone.to_local(at) })
}

fn date_trunc(a: super::Args<'_, '_>, n: usize, cx: &EvalCx<'_>) -> Result<Vector, SqlError> {
    let out_of_range = || SqlError::new(SqlState::DATETIME_OVERFLOW, "timestamp out of range");
    if let Some(name) = constant_text(&a[0]) {
        let unit = field(name)?;
        if time::truncate(unit, 0).is_none() {
            return Err(unit_unsupported(name));
        }
        return map1(Type::Timestamp, &a[1], n, |t: i64| {
            truncate_in(unit, t, cx.zone()).ok_or_else(out_of_range)?
        });
    }
    let mut out = Vector::empty(Type::Timestamp, n);
    for i in 0..n {
        match (a[0].get(i), a[1].get(i)) {
            (ValueRef::Text(name), ValueRef::Timestamp(t)) => {
                let t = truncate_in(field(name)?, t, cx.zone()).ok_or_else(|| unit_unsupported(name))??;
                out.push(ValueRef::Timestamp(t));
            }
            _ => out.push_null(),
        }
    }
    Ok(out)
}

fn date_part(a: super::Args<'_, '_>, n: usize, cx: &EvalCx<'_>) -> Result<Vector, SqlError> {
    if let Some(name) = constant_text(&a[0]) {
        let unit = field(name)?;
        return map1(Type::Float, &a[1], n, |t: i64| Ok(extract_in(unit, t, cx.zone())));
    }
    let mut out = Vector::empty(Type::Float, n);
    for i in 0..n {
        match (a[0].get(i), a[1].get(i)) {
            (ValueRef::Text(name), ValueRef::Timestamp(t)) => {
                out.push(ValueRef::Float(extract_in(field(name)?, t, cx.zone())));
            }
            _ => out.push_null(),
        }
    }
    Ok(out)
}

fn interval_part(a: &[ValueRef<'_>], _: &EvalCx<'_>) -> Result<Value, SqlError> {
    let part = time::extract_interval(field(str(a[0]))?, interval(a[1]));
    part.map(Value::Float).ok_or_else(|| unit_unsupported(str(a[0])))
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The common patterns of `to_char`; what is no pattern stands as it is.
fn to_char(at: i64, format: &str) -> String {
    let c = time::civil(at);
    let (hour, minute, second) =
        (c.micros / time::HOUR, c.micros / time::MINUTE % 60, c.micros / time::SECOND % 60);
    let hour12 = if hour % 12 == 0 { 12 } else { hour % 12 };
    let weekday = DAYS[(c.days + 4).rem_euclid(7) as usize];
    let month = MONTHS[c.month as usize - 1];
    let patterns: [(&str, String); 25] = [
        ("HH24", format!("{hour:02}")),
        ("HH12", format!("{hour12:02}")),
        ("HH", format!("{hour12:02}")),
        ("MI", format!("{minute:02}")),
        ("SS", format!("{second:02}")),
        ("MS", format!("{:03}", c.micros / 1_000 % 1_000)),
        ("US", format!("{:06}", c.micros % time::SECOND)),
        ("AM", if hour < 12 { "AM" } else { "PM" }.into()),
        ("PM", if hour < 12 { "AM" } else { "PM" }.into()),
        ("YYYY", format!("{:04}", c.year)),
        ("YY", format!("{:02}", c.year.rem_euclid(100))),
        ("MONTH", format!("{:<9}", month.to_uppercase())),
        ("Month", format!("{month:<9}")),
        ("MON", month[..3].to_uppercase()),
        ("Mon", month[..3].into()),
        ("MM", format!("{:02}", c.month)),
        ("Day", format!("{weekday:<9}")),
        ("DAY", format!("{:<9}", weekday.to_uppercase())),
        ("Dy", weekday[..3].into()),
        ("DDD", format!("{:03}", time::extract(Field::Doy, at))),
        ("DD", format!("{:02}", c.day)),
        ("IW", format!("{:02}", time::extract(Field::Week, at))),
        ("IYYY", format!("{:04}", time::extract(Field::IsoYear, at))),
        ("Q", format!("{}", (c.month - 1) / 3 + 1)),
        ("TZ", "UTC".into()),
    ];
    let mut out = String::new();
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let quoted = rest[1..].split('"').next().unwrap_or_default();
            out.push_str(quoted);
            rest = rest.get(quoted.len() + 2..).unwrap_or_default();
        } else if let Some((pattern, value)) = patterns.iter().find(|(p, _)| rest.starts_with(p)) {
            out.push_str(value);
            rest = &rest[pattern.len()..];
        } else if let Some((after, (pattern, value))) =
            rest.strip_prefix("FM").and_then(|r| Some((r, patterns.iter().find(|(p, _)| r.starts_with(p))?)))
        {
            let short = value.trim_end().trim_start_matches('0');
            out.push_str(if short.is_empty() { "0" } else { short });
            rest = &after[pattern.len()..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}
