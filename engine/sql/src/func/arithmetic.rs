//! `+ - * / %` and the bit operators.

use super::{decimal, functions, interval};
use crate::decimal::Decimal;
use crate::error::{SqlError, SqlState};
use crate::exec::eval::{EvalCx, map1, map2};
use crate::time;
use crate::types;
use chronos_proto::value::Interval;
use chronos_proto::{Type, Value};

/// An operation on integers of one width, checked at that width.
macro_rules! integers {
    ($ty:ident, $f:expr) => {
        |a, n, _| {
            map2(Type::$ty, a, n, |x: i64, y: i64| {
                let result: Result<Option<i64>, SqlError> = $f(x, y);
                types::in_range(result?.ok_or_else(|| types::integer_overflow(Type::$ty))?, Type::$ty)
            })
        }
    };
}

/// An operation on exact decimals.
macro_rules! decimals {
    ($f:expr) => {
        |a, _| {
            let result: Result<Decimal, SqlError> = $f(&decimal(a[0]), &decimal(a[1]));
            result?.to_value()
        }
    };
}

/// An operation on doubles whose result is a REAL.
macro_rules! reals {
    ($f:expr) => {
        |a, n, _| {
            map2(Type::Real, a, n, |x: f64, y: f64| {
                let result: Result<f64, SqlError> = $f(x, y);
                real(result?, x, y)
            })
        }
    };
}

functions! { TABLE:
    "+" (SmallInt, SmallInt) -> SmallInt Immutable Vector integers!(SmallInt, |x: i64, y| Ok(x.checked_add(y)));
    "-" (SmallInt, SmallInt) -> SmallInt Immutable Vector integers!(SmallInt, |x: i64, y| Ok(x.checked_sub(y)));
    "*" (SmallInt, SmallInt) -> SmallInt Immutable Vector integers!(SmallInt, |x: i64, y| Ok(x.checked_mul(y)));
    "/" (SmallInt, SmallInt) -> SmallInt Immutable Vector integers!(SmallInt, divide);
    "%" (SmallInt, SmallInt) -> SmallInt Immutable Vector integers!(SmallInt, modulo);
    "mod" (SmallInt, SmallInt) -> SmallInt Immutable Vector integers!(SmallInt, modulo);
    "&" (SmallInt, SmallInt) -> SmallInt Immutable Vector integers!(SmallInt, |x: i64, y: i64| Ok(Some(x & y)));
    "|" (SmallInt, SmallInt) -> SmallInt Immutable Vector integers!(SmallInt, |x: i64, y: i64| Ok(Some(x | y)));
    "#" (SmallInt, SmallInt) -> SmallInt Immutable Vector integers!(SmallInt, |x: i64, y: i64| Ok(Some(x ^ y)));
    "<<" (SmallInt, Integer) -> SmallInt Immutable Vector |a, n, _| map2(Type::SmallInt, a, n, |x: i64, y: i64| Ok(shift_left(x, y, 16)));
    ">>" (SmallInt, Integer) -> SmallInt Immutable Vector |a, n, _| map2(Type::SmallInt, a, n, |x: i64, y: i64| Ok(x >> (y & 31)));
    "-" (SmallInt) -> SmallInt Immutable Vector |a, n, _| map1(Type::SmallInt, &a[0], n, |x: i64| types::in_range(x.checked_neg().ok_or_else(|| types::integer_overflow(Type::SmallInt))?, Type::SmallInt));
    "+" (SmallInt) -> SmallInt Immutable Vector |a, _, _| Ok(a[0].clone().into_owned());
    "~" (SmallInt) -> SmallInt Immutable Vector |a, n, _| map1(Type::SmallInt, &a[0], n, |x: i64| Ok(!x));
    "abs" (SmallInt) -> SmallInt Immutable Vector |a, n, _| map1(Type::SmallInt, &a[0], n, |x: i64| types::in_range(x.checked_abs().ok_or_else(|| types::integer_overflow(Type::SmallInt))?, Type::SmallInt));
    "@" (SmallInt) -> SmallInt Immutable Vector |a, n, _| map1(Type::SmallInt, &a[0], n, |x: i64| types::in_range(x.checked_abs().ok_or_else(|| types::integer_overflow(Type::SmallInt))?, Type::SmallInt));
    "+" (Integer, Integer) -> Integer Immutable Vector integers!(Integer, |x: i64, y| Ok(x.checked_add(y)));
    "-" (Integer, Integer) -> Integer Immutable Vector integers!(Integer, |x: i64, y| Ok(x.checked_sub(y)));
    "*" (Integer, Integer) -> Integer Immutable Vector integers!(Integer, |x: i64, y| Ok(x.checked_mul(y)));
    "/" (Integer, Integer) -> Integer Immutable Vector integers!(Integer, divide);
    "%" (Integer, Integer) -> Integer Immutable Vector integers!(Integer, modulo);
    "mod" (Integer, Integer) -> Integer Immutable Vector integers!(Integer, modulo);
    "&" (Integer, Integer) -> Integer Immutable Vector integers!(Integer, |x: i64, y: i64| Ok(Some(x & y)));
    "|" (Integer, Integer) -> Integer Immutable Vector integers!(Integer, |x: i64, y: i64| Ok(Some(x | y)));
    "#" (Integer, Integer) -> Integer Immutable Vector integers!(Integer, |x: i64, y: i64| Ok(Some(x ^ y)));
    "<<" (Integer, Integer) -> Integer Immutable Vector |a, n, _| map2(Type::Integer, a, n, |x: i64, y: i64| Ok(shift_left(x, y, 32)));
    ">>" (Integer, Integer) -> Integer Immutable Vector |a, n, _| map2(Type::Integer, a, n, |x: i64, y: i64| Ok(x >> (y & 31)));
    "-" (Integer) -> Integer Immutable Vector |a, n, _| map1(Type::Integer, &a[0], n, |x: i64| types::in_range(x.checked_neg().ok_or_else(|| types::integer_overflow(Type::Integer))?, Type::Integer));
    "+" (Integer) -> Integer Immutable Vector |a, _, _| Ok(a[0].clone().into_owned());
    "~" (Integer) -> Integer Immutable Vector |a, n, _| map1(Type::Integer, &a[0], n, |x: i64| Ok(!x));
    "abs" (Integer) -> Integer Immutable Vector |a, n, _| map1(Type::Integer, &a[0], n, |x: i64| types::in_range(x.checked_abs().ok_or_else(|| types::integer_overflow(Type::Integer))?, Type::Integer));
    "@" (Integer) -> Integer Immutable Vector |a, n, _| map1(Type::Integer, &a[0], n, |x: i64| types::in_range(x.checked_abs().ok_or_else(|| types::integer_overflow(Type::Integer))?, Type::Integer));
    "+" (Int, Int) -> Int Immutable Vector integers!(Int, |x: i64, y| Ok(x.checked_add(y)));
    "-" (Int, Int) -> Int Immutable Vector integers!(Int, |x: i64, y| Ok(x.checked_sub(y)));
    "*" (Int, Int) -> Int Immutable Vector integers!(Int, |x: i64, y| Ok(x.checked_mul(y)));
    "/" (Int, Int) -> Int Immutable Vector integers!(Int, divide);
    "%" (Int, Int) -> Int Immutable Vector integers!(Int, modulo);
    "mod" (Int, Int) -> Int Immutable Vector integers!(Int, modulo);
    "&" (Int, Int) -> Int Immutable Vector integers!(Int, |x: i64, y: i64| Ok(Some(x & y)));
    "|" (Int, Int) -> Int Immutable Vector integers!(Int, |x: i64, y: i64| Ok(Some(x | y)));
    "#" (Int, Int) -> Int Immutable Vector integers!(Int, |x: i64, y: i64| Ok(Some(x ^ y)));
    "<<" (Int, Integer) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| Ok(shift_left(x, y, 64)));
    ">>" (Int, Integer) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| Ok(x >> (y & 63)));
    "-" (Int) -> Int Immutable Vector |a, n, _| map1(Type::Int, &a[0], n, |x: i64| types::in_range(x.checked_neg().ok_or_else(|| types::integer_overflow(Type::Int))?, Type::Int));
    "+" (Int) -> Int Immutable Vector |a, _, _| Ok(a[0].clone().into_owned());
    "~" (Int) -> Int Immutable Vector |a, n, _| map1(Type::Int, &a[0], n, |x: i64| Ok(!x));
    "abs" (Int) -> Int Immutable Vector |a, n, _| map1(Type::Int, &a[0], n, |x: i64| types::in_range(x.checked_abs().ok_or_else(|| types::integer_overflow(Type::Int))?, Type::Int));
    "@" (Int) -> Int Immutable Vector |a, n, _| map1(Type::Int, &a[0], n, |x: i64| types::in_range(x.checked_abs().ok_or_else(|| types::integer_overflow(Type::Int))?, Type::Int));
    "+" (Numeric, Numeric) -> Numeric Immutable Row decimals!(Decimal::add);
    "-" (Numeric, Numeric) -> Numeric Immutable Row decimals!(Decimal::sub);
    "*" (Numeric, Numeric) -> Numeric Immutable Row decimals!(Decimal::mul);
    "/" (Numeric, Numeric) -> Numeric Immutable Row decimals!(Decimal::div);
    "%" (Numeric, Numeric) -> Numeric Immutable Row decimals!(Decimal::rem);
    "mod" (Numeric, Numeric) -> Numeric Immutable Row decimals!(Decimal::rem);
    "^" (Numeric, Numeric) -> Numeric Immutable Row decimals!(Decimal::power);
    "power" (Numeric, Numeric) -> Numeric Immutable Row decimals!(Decimal::power);
    "pow" (Numeric, Numeric) -> Numeric Immutable Row decimals!(Decimal::power);
    "div" (Numeric, Numeric) -> Numeric Immutable Row decimals!(Decimal::div_trunc);
    "-" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).neg().to_value();
    "+" (Numeric) -> Numeric Immutable Row |a, _| Ok(a[0].to_value());
    "@" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).abs().to_value();
    "@" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.abs()));
    "+" (Real, Real) -> Real Immutable Vector reals!(|x: f64, y: f64| Ok(x + y));
    "+" (Real, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| finite(x + y, x, y));
    "+" (Float, Real) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| finite(x + y, x, y));
    "-" (Real, Real) -> Real Immutable Vector reals!(|x: f64, y: f64| Ok(x - y));
    "-" (Real, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| finite(x - y, x, y));
    "-" (Float, Real) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| finite(x - y, x, y));
    "*" (Real, Real) -> Real Immutable Vector reals!(|x: f64, y: f64| Ok(x * y));
    "*" (Real, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| product(x * y, x, y));
    "*" (Float, Real) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| product(x * y, x, y));
    "/" (Real, Real) -> Real Immutable Vector reals!(quotient);
    "/" (Real, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| product(quotient(x, y)?, x, y));
    "/" (Float, Real) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| product(quotient(x, y)?, x, y));
    "/" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| product(quotient(x, y)?, x, y));
    "-" (Real) -> Real Immutable Vector |a, n, _| map1(Type::Real, &a[0], n, |x: f64| Ok(-x));
    "+" (Real) -> Real Immutable Vector |a, _, _| Ok(a[0].clone().into_owned());
    "+" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| finite(x + y, x, y));
    "-" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| finite(x - y, x, y));
    "*" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| product(x * y, x, y));
    "-" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(-x));
    "+" (Float) -> Float Immutable Vector |a, _, _| Ok(a[0].clone().into_owned());
    "-" (Interval) -> Interval Immutable Vector |a, n, _| map1(Type::Interval, &a[0], n, time::negate_interval);
    "^" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, super::math::power);
    "+" (Timestamp, Interval) -> Timestamp Stable Vector |a, n, cx| map2(Type::Timestamp, a, n, |t: i64, i: Interval| in_zone(t, i, cx));
    "+" (Interval, Timestamp) -> Timestamp Stable Vector |a, n, cx| map2(Type::Timestamp, a, n, |i: Interval, t: i64| in_zone(t, i, cx));
    "-" (Timestamp, Interval) -> Timestamp Stable Vector |a, n, cx| map2(Type::Timestamp, a, n, |t: i64, i: Interval| {
        in_zone(t, time::negate_interval(i)?, cx)
    });
    "+" (LocalTimestamp, Interval) -> LocalTimestamp Immutable Vector |a, n, _| map2(Type::LocalTimestamp, a, n, time::add_interval);
    "+" (Interval, LocalTimestamp) -> LocalTimestamp Immutable Vector |a, n, _| map2(Type::LocalTimestamp, a, n, |i: Interval, t: i64| time::add_interval(t, i));
    "-" (LocalTimestamp, Interval) -> LocalTimestamp Immutable Vector |a, n, _| map2(Type::LocalTimestamp, a, n, |t: i64, i: Interval| {
        time::add_interval(t, time::negate_interval(i)?)
    });
    "-" (LocalTimestamp, LocalTimestamp) -> Interval Immutable Vector |a, n, _| map2(Type::Interval, a, n, time::difference);
    "-" (Time, Time) -> Interval Immutable Vector |a, n, _| map2(Type::Interval, a, n, |x: i64, y: i64| {
        Ok(Interval { months: 0, days: 0, micros: x - y })
    });
    "+" (Time, Interval) -> Time Immutable Vector |a, n, _| map2(Type::Time, a, n, |t: i64, i: Interval| Ok(around(t, i.micros)));
    "+" (Interval, Time) -> Time Immutable Vector |a, n, _| map2(Type::Time, a, n, |i: Interval, t: i64| Ok(around(t, i.micros)));
    "-" (Time, Interval) -> Time Immutable Vector |a, n, _| map2(Type::Time, a, n, |t: i64, i: Interval| Ok(around(t, -(i.micros % time::DAY))));
    "+" (Date, Time) -> LocalTimestamp Immutable Vector |a, n, _| map2(Type::LocalTimestamp, a, n, |d: i32, t: i64| time::timestamp(i64::from(d), t));
    "+" (Time, Date) -> LocalTimestamp Immutable Vector |a, n, _| map2(Type::LocalTimestamp, a, n, |t: i64, d: i32| time::timestamp(i64::from(d), t));
    "-" (Timestamp, Timestamp) -> Interval Immutable Vector |a, n, _| map2(Type::Interval, a, n, time::difference);
    "+" (Date, Integer) -> Date Immutable Vector |a, n, _| map2(Type::Date, a, n, |d: i32, i: i64| time::date(i64::from(d).saturating_add(i)));
    "+" (Integer, Date) -> Date Immutable Vector |a, n, _| map2(Type::Date, a, n, |i: i64, d: i32| time::date(i64::from(d).saturating_add(i)));
    "-" (Date, Integer) -> Date Immutable Vector |a, n, _| map2(Type::Date, a, n, |d: i32, i: i64| time::date(i64::from(d).saturating_sub(i)));
    "-" (Date, Date) -> Integer Immutable Vector |a, n, _| map2(Type::Integer, a, n, |x: i32, y: i32| Ok(i64::from(x) - i64::from(y)));
    "+" (Date, Interval) -> LocalTimestamp Immutable Vector |a, n, _| map2(Type::LocalTimestamp, a, n, |d: i32, i: Interval| {
        time::add_interval(time::timestamp(i64::from(d), 0)?, i)
    });
    "+" (Interval, Date) -> LocalTimestamp Immutable Vector |a, n, _| map2(Type::LocalTimestamp, a, n, |i: Interval, d: i32| {
        time::add_interval(time::timestamp(i64::from(d), 0)?, i)
    });
    "-" (Date, Interval) -> LocalTimestamp Immutable Vector |a, n, _| map2(Type::LocalTimestamp, a, n, |d: i32, i: Interval| {
        time::add_interval(time::timestamp(i64::from(d), 0)?, time::negate_interval(i)?)
    });
    "+" (Interval, Interval) -> Interval Immutable Vector |a, n, _| map2(Type::Interval, a, n, time::sum_intervals);
    "-" (Interval, Interval) -> Interval Immutable Vector |a, n, _| map2(Type::Interval, a, n, |x: Interval, y: Interval| {
        time::sum_intervals(x, time::negate_interval(y)?)
    });
    "*" (Interval, Float) -> Interval Immutable Vector |a, n, _| map2(Type::Interval, a, n, time::scale_interval);
    "*" (Float, Interval) -> Interval Immutable Vector |a, n, _| map2(Type::Interval, a, n, |x: f64, i: Interval| time::scale_interval(i, x));
    "/" (Interval, Float) -> Interval Immutable Row |a, _| {
        let by = super::float(a[1]);
        if by == 0.0 { Err(by_zero()) } else { Ok(Value::Interval(time::scale_interval(interval(a[0]), 1.0 / by)?)) }
    };
}

/// Months and days on the calendar of the session's zone, the rest as time that passes.
fn in_zone(at: i64, interval: Interval, cx: &EvalCx<'_>) -> Result<i64, SqlError> {
    if interval.months == 0 && interval.days == 0 {
        return time::add_interval(at, interval);
    }
    let calendar = Interval { micros: 0, ..interval };
    let moved = cx.zone().to_instant(time::add_interval(cx.zone().to_local(at), calendar)?)?;
    time::add_interval(moved, Interval { months: 0, days: 0, micros: interval.micros })
}

/// A time of the day moved on, around midnight.
fn around(t: i64, by: i64) -> i64 {
    (t + by % time::DAY).rem_euclid(time::DAY)
}

fn divide(x: i64, y: i64) -> Result<Option<i64>, SqlError> {
    if y == 0 { Err(by_zero()) } else { Ok(x.checked_div(y)) }
}

fn quotient(x: f64, y: f64) -> Result<f64, SqlError> {
    if y == 0.0 && !x.is_nan() { Err(by_zero()) } else { Ok(x / y) }
}

/// Bits beyond the width fall off, and the count is taken as the machine takes it.
fn shift_left(x: i64, by: i64, bits: u32) -> i64 {
    match bits {
        16 => i64::from(((x as i32) << (by & 31)) as i16),
        32 => i64::from((x as i32) << (by & 31)),
        _ => x << (by & 63),
    }
}

/// A product or quotient of doubles; one that came to nothing is an underflow.
fn product(result: f64, x: f64, y: f64) -> Result<f64, SqlError> {
    if result == 0.0 && x != 0.0 && y != 0.0 && y.is_finite() {
        return Err(SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "value out of range: underflow"));
    }
    finite(result, x, y)
}

/// A result as REAL: 22003 where it is too great or too small for one.
fn real(result: f64, x: f64, y: f64) -> Result<f64, SqlError> {
    if result.is_finite() { types::to_real(result).map(f64::from) } else { finite(result, x, y) }
}

pub(crate) fn by_zero() -> SqlError {
    SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero")
}

fn modulo(x: i64, y: i64) -> Result<Option<i64>, SqlError> {
    if y == 0 { Err(by_zero()) } else { Ok(Some(x.checked_rem(y).unwrap_or(0))) }
}

/// An infinity that neither operand was is an overflow.
fn finite(result: f64, x: f64, y: f64) -> Result<f64, SqlError> {
    if result.is_infinite() && x.is_finite() && y.is_finite() {
        return Err(SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "value out of range: overflow"));
    }
    Ok(result)
}
