//! Cron expressions: `minute hour day-of-month month day-of-week`, with seconds in front if there are six fields.
//!
//! A field is `*`, a number, a range `a-b`, any of them with a step `/n`, or a list of such. Months and days of the week
//! have names (`jan`, `mon`), 7 is Sunday as 0 is, `?` is `*` in the two fields of days. As everywhere since Vixie's cron,
//! a day counts if *either* field of days has it, where both say something. `@yearly`, `@monthly`, `@weekly`, `@daily` and
//! `@hourly` are short for five fields. `L`, `W` and `#` are not taken.
//!
//! An expression means times of a clock on a wall. **Where the clock is put forward**, what it does not show happens
//! once, at the moment when it is put forward, which is then also the time that it shows. **Where it is put back**, what
//! it shows twice happens the first time only. So a daily job runs once every day. For a rhythm in elapsed time there is
//! `EVERY`.

use crate::bugs::{self, Bug};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use std::str::FromStr;

/// No expression that ever occurs has a longer pause: the 29th of February over a century without one.
const YEARS_MAX: i16 = 9;

/// Why an expression cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Too few or too many fields.
    #[error("a cron expression has five fields, or six with seconds, and not {0}")]
    Fields(usize),
    /// A field that is none.
    #[error("\"{text}\" is no {field} of a cron expression")]
    Field {
        /// Which one.
        field: &'static str,
        /// What stands there.
        text: String,
    },
}

/// An expression. Of each field the values that it has, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// A day counts if either field has it; else both must.
    either: bool,
}

struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const SECOND: Field = Field { name: "second", least: 0, most: 59, names: &[] };
const MINUTE: Field = Field { name: "minute", least: 0, most: 59, names: &[] };
const HOUR: Field = Field { name: "hour", least: 0, most: 23, names: &[] };
const DAY: Field = Field { name: "day of the month", least: 1, most: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Field = Field {
    name: "day of the week",
    least: 0,
    most: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Field {
    fn read(&self, text: &str) -> Result<u64, CronError> {
        let bad = || CronError::Field { field: self.name, text: text.to_owned() };
        let mut bits = 0;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => {
                    let step: u32 = step.parse().map_err(|_| bad())?;
                    (range, Some(step).filter(|step| *step > 0).ok_or_else(bad)?)
                }
                None => (part, 1),
            };
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (self.least, self.most),
                Some((from, to)) => (self.value(from).ok_or_else(bad)?, self.value(to).ok_or_else(bad)?),
                None => {
                    let from = self.value(range).ok_or_else(bad)?;
                    (from, if part.contains('/') { self.most } else { from })
                }
            };
            if from > to {
                return Err(bad());
            }
            bits |= (from..=to).step_by(step as usize).fold(0, |bits, value| bits | 1 << value);
        }
        Ok(bits)
    }

    fn value(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = match named {
            Some(place) => self.least + place as u32,
            None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (self.least..=self.most).contains(&value).then_some(value)
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Cron, CronError> {
        let text = match text.trim().to_ascii_lowercase().as_str() {
            "@yearly" | "@annually" => "0 0 1 1 *".to_owned(),
            "@monthly" => "0 0 1 * *".to_owned(),
            "@weekly" => "0 0 * * 0".to_owned(),
            "@daily" | "@midnight" => "0 0 * * *".to_owned(),
            "@hourly" => "0 * * * *".to_owned(),
            text => text.to_owned(),
        };
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let (second, rest) = match fields.as_slice() {
            [minute, hour, day, month, weekday] => ("0", [minute, hour, day, month, weekday]),
            [second, minute, hour, day, month, weekday] => (*second, [minute, hour, day, month, weekday]),
            other => return Err(CronError::Fields(other.len())),
        };
        let [minute, hour, day, month, weekday] = rest.map(|field| *field);
        let any = |field: &str| field.starts_with(['*', '?']);
        let all = |field| if field == "?" { "*" } else { field };
        let weekdays = WEEKDAY.read(all(weekday))?;
        Ok(Cron {
            seconds: SECOND.read(second)?,
            minutes: MINUTE.read(minute)?,
            hours: HOUR.read(hour)?,
            days: DAY.read(all(day))?,
            months: MONTH.read(month)?,
            weekdays: (weekdays | weekdays >> 7) & 0x7F,
            either: !any(day) && !any(weekday),
        })
    }
}

fn has(bits: u64, value: i8) -> bool {
    bits >> value & 1 == 1
}

/// The least value of a field from `from` on.
fn at_least(bits: u64, from: u32) -> Option<u32> {
    let rest = bits.checked_shr(from)?;
    (rest != 0).then(|| from + rest.trailing_zeros())
}

impl Cron {
    /// Whether it occurs on a day.
    fn on(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month()) && if self.either { day || weekday } else { day && weekday }
    }

    /// The first time of a day from `from` on.
    fn time_from(&self, from: Time) -> Option<Time> {
        let (mut minute_from, mut second_from) = (from.minute() as u32, from.second() as u32);
        let mut hour = at_least(self.hours, from.hour() as u32)?;
        if hour > from.hour() as u32 {
            (minute_from, second_from) = (0, 0);
        }
        loop {
            if let Some(minute) = at_least(self.minutes, minute_from) {
                if minute > minute_from {
                    second_from = 0;
                }
                if let Some(second) = at_least(self.seconds, second_from) {
                    return Time::new(hour as i8, minute as i8, second as i8, 0).ok();
                }
                (minute_from, second_from) = (minute + 1, 0);
            } else {
                hour = at_least(self.hours, hour + 1)?;
                (minute_from, second_from) = (0, 0);
            }
        }
    }

    /// The first time that a clock shows from `from` on.
    fn shown_from(&self, from: DateTime) -> Option<DateTime> {
        let (mut date, mut time) = (from.date(), Some(from.time()));
        while date.year() <= from.year().saturating_add(YEARS_MAX) {
            if self.on(date)
                && let Some(found) = self.time_from(time.unwrap_or(Time::midnight()))
            {
                return Some(date.to_datetime(found));
            }
            time = None;
            date = match has(self.months, date.month()) {
                true => date.tomorrow().ok()?,
                false => date.last_of_month().tomorrow().ok()?,
            };
        }
        None
    }

    /// The first instant after `after` at which it occurs, in microseconds since 1970; none if it never does.
    pub fn next_after(&self, after: i64, zone: &TimeZone) -> Option<i64> {
        let after = jiff::Timestamp::from_microsecond(after).ok()?;
        let mut from = second_of(zone.to_datetime(after))?;
        loop {
            let shown = self.shown_from(from)?;
            // Times of a clock that was put back, or forward, may lie at or before `after`.
            if let Some(at) = instant(shown, zone, after).filter(|at| *at > after) {
                return Some(at.as_microsecond());
            }
            from = shown.checked_add(jiff::Span::new().seconds(1)).ok()?;
        }
    }
}

fn second_of(time: DateTime) -> Option<DateTime> {
    time.with().subsec_nanosecond(0).build().ok()
}

/// When a clock in a zone shows a time, as the rule above has it: once.
fn instant(shown: DateTime, zone: &TimeZone, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let at = |offset: Offset| offset.to_timestamp(shown).ok();
    match zone.to_ambiguous_timestamp(shown).offset() {
        AmbiguousOffset::Unambiguous { offset } => at(offset),
        AmbiguousOffset::Gap { after: later, .. } => {
            // By the later offset it would have been before the clock was put forward.
            zone.following(at(later)?).next().map(|put_forward| put_forward.timestamp())
        }
        AmbiguousOffset::Fold { before, after: again } => match at(before) {
            Some(first) if first <= after && bugs::active(Bug::DoubleHour) => at(again),
            first => first,
        },
    }
}

#[cfg(test)]
mod tests;
