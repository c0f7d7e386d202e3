//! `+ - * / %` and the bit operators.

use super::{functions, interval};
use crate::error::{SqlError, SqlState};
use crate::exec::eval::{map1, map2};
use crate::time;
use chronos_proto::value::Interval;
use chronos_proto::{Type, Value};

functions! { TABLE:
    "+" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| x.checked_add(y).ok_or_else(overflow));
    "-" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| x.checked_sub(y).ok_or_else(overflow));
    "*" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| x.checked_mul(y).ok_or_else(overflow));
    "/" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| {
        if y == 0 { Err(by_zero()) } else { x.checked_div(y).ok_or_else(overflow) }
    });
    "%" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, modulo);
    "mod" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, modulo);
    "+" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| finite(x + y, x, y));
    "-" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| finite(x - y, x, y));
    "*" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| finite(x * y, x, y));
    "/" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| {
        if y == 0.0 && !x.is_nan() { Err(by_zero()) } else { finite(x / y, x, y) }
    });
    "%" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| {
        if y == 0.0 { Err(by_zero()) } else { Ok(x % y) }
    });
    "mod" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| {
        if y == 0.0 { Err(by_zero()) } else { Ok(x % y) }
    });
    "-" (Int) -> Int Immutable Vector |a, n, _| map1(Type::Int, &a[0], n, |x: i64| x.checked_neg().ok_or_else(overflow));
    "-" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(-x));
    "-" (Interval) -> Interval Immutable Vector |a, n, _| map1(Type::Interval, &a[0], n, time::negate_interval);
    "+" (Int) -> Int Immutable Vector |a, _, _| Ok(a[0].clone().into_owned());
    "+" (Float) -> Float Immutable Vector |a, _, _| Ok(a[0].clone().into_owned());
    "&" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| Ok(x & y));
    "|" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| Ok(x | y));
    "#" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| Ok(x ^ y));
    "<<" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| Ok(x.wrapping_shl(y as u32)));
    ">>" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| Ok(x.wrapping_shr(y as u32)));
    "~" (Int) -> Int Immutable Vector |a, n, _| map1(Type::Int, &a[0], n, |x: i64| Ok(!x));
    "^" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, super::math::power);
    "+" (Timestamp, Interval) -> Timestamp Immutable Vector |a, n, _| map2(Type::Timestamp, a, n, time::add_interval);
    "+" (Interval, Timestamp) -> Timestamp Immutable Vector |a, n, _| map2(Type::Timestamp, a, n, |i: Interval, t: i64| time::add_interval(t, i));
    "-" (Timestamp, Interval) -> Timestamp Immutable Vector |a, n, _| map2(Type::Timestamp, a, n, |t: i64, i: Interval| {
        time::add_interval(t, time::negate_interval(i)?)
    });
    "-" (Timestamp, Timestamp) -> Interval Immutable Vector |a, n, _| map2(Type::Interval, a, n, time::difference);
    "+" (Date, Int) -> Date Immutable Vector |a, n, _| map2(Type::Date, a, n, |d: i32, i: i64| time::date(i64::from(d).saturating_add(i)));
    "+" (Int, Date) -> Date Immutable Vector |a, n, _| map2(Type::Date, a, n, |i: i64, d: i32| time::date(i64::from(d).saturating_add(i)));
    "-" (Date, Int) -> Date Immutable Vector |a, n, _| map2(Type::Date, a, n, |d: i32, i: i64| time::date(i64::from(d).saturating_sub(i)));
    "-" (Date, Date) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i32, y: i32| Ok(i64::from(x) - i64::from(y)));
    "+" (Date, Interval) -> Timestamp Immutable Vector |a, n, _| map2(Type::Timestamp, a, n, |d: i32, i: Interval| {
        time::add_interval(time::timestamp(i64::from(d), 0)?, i)
    });
    "+" (Interval, Date) -> Timestamp Immutable Vector |a, n, _| map2(Type::Timestamp, a, n, |i: Interval, d: i32| {
        time::add_interval(time::timestamp(i64::from(d), 0)?, i)
    });
    "-" (Date, Interval) -> Timestamp Immutable Vector |a, n, _| map2(Type::Timestamp, a, n, |d: i32, i: Interval| {
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

pub(super) fn overflow() -> SqlError {
    SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "bigint out of range")
}

pub(super) fn by_zero() -> SqlError {
    SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero")
}

fn modulo(x: i64, y: i64) -> Result<i64, SqlError> {
    if y == 0 { Err(by_zero()) } else { Ok(x.checked_rem(y).unwrap_or(0)) }
}

/// An infinity that neither operand was is an overflow.
fn finite(result: f64, x: f64, y: f64) -> Result<f64, SqlError> {
    if result.is_infinite() && x.is_finite() && y.is_finite() {
        return Err(SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "value out of range: overflow"));
    }
    Ok(result)
}
