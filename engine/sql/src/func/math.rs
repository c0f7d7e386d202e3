//! Mathematical functions.

use super::arithmetic::overflow;
use super::{float, functions, int};
use crate::error::{SqlError, SqlState};
use crate::exec::eval::{map1, map2};
use chronos_proto::{Type, Value};

functions! { TABLE:
    "abs" (Int) -> Int Immutable Vector |a, n, _| map1(Type::Int, &a[0], n, |x: i64| x.checked_abs().ok_or_else(overflow));
    "abs" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.abs()));
    "sign" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(if x == 0.0 || x.is_nan() { x } else { x.signum() }));
    "ceil" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.ceil()));
    "ceiling" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.ceil()));
    "floor" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.floor()));
    "trunc" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.trunc()));
    "round" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.round()));
    "round" (Float, Int) -> Float Immutable Row |a, _| Ok(Value::Float(round_digits(float(a[0]), int(a[1]), f64::round)));
    "trunc" (Float, Int) -> Float Immutable Row |a, _| Ok(Value::Float(round_digits(float(a[0]), int(a[1]), f64::trunc)));
    "sqrt" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| {
        if x < 0.0 { Err(SqlError::new(SqlState::INVALID_POWER, "cannot take square root of a negative number")) } else { Ok(x.sqrt()) }
    });
    "cbrt" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.cbrt()));
    "exp" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| {
        let y = x.exp();
        if y.is_infinite() && x.is_finite() { Err(float_overflow()) } else { Ok(y) }
    });
    "ln" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| logarithm(x, f64::ln));
    "log" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| logarithm(x, f64::log10));
    "log10" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| logarithm(x, f64::log10));
    "log" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |b: f64, x: f64| {
        Ok(logarithm(x, f64::ln)? / logarithm(b, f64::ln)?)
    });
    "power" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, power);
    "pow" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, power);
    "pi" () -> Float Immutable Row |_, _| Ok(Value::Float(std::f64::consts::PI));
    "sin" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.sin()));
    "cos" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.cos()));
    "tan" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.tan()));
    "asin" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.asin()));
    "acos" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.acos()));
    "atan" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.atan()));
    "atan2" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |y: f64, x: f64| Ok(y.atan2(x)));
    "degrees" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.to_degrees()));
    "radians" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.to_radians()));
    "div" (Float, Float) -> Float Immutable Vector |a, n, _| map2(Type::Float, a, n, |x: f64, y: f64| {
        if y == 0.0 { Err(super::arithmetic::by_zero()) } else { Ok((x / y).trunc()) }
    });
    "gcd" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| {
        i64::try_from(gcd(x.unsigned_abs(), y.unsigned_abs())).map_err(|_| overflow())
    });
    "random" () -> Float Volatile Row |_, cx| Ok(Value::Float((cx.random() >> 11) as f64 / (1u64 << 53) as f64));
    "width_bucket" (Float, Float, Float, Int) -> Int Immutable Row |a, _| {
        let (x, low, high, count) = (float(a[0]), float(a[1]), float(a[2]), int(a[3]));
        if count <= 0 || low == high {
            return Err(SqlError::new(SqlState::INVALID_POWER, "width_bucket needs a positive count and two different bounds"));
        }
        let place = (x - low) / (high - low) * count as f64;
        Ok(Value::Int(if place < 0.0 { 0 } else if place >= count as f64 { count.saturating_add(1) } else { place as i64 + 1 }))
    };
}

fn float_overflow() -> SqlError {
    SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "value out of range: overflow")
}

fn logarithm(x: f64, f: fn(f64) -> f64) -> Result<f64, SqlError> {
    if x == 0.0 {
        return Err(SqlError::new(SqlState::INVALID_LOGARITHM, "cannot take logarithm of zero"));
    }
    if x < 0.0 {
        return Err(SqlError::new(SqlState::INVALID_LOGARITHM, "cannot take logarithm of a negative number"));
    }
    Ok(f(x))
}

pub(super) fn power(x: f64, y: f64) -> Result<f64, SqlError> {
    if x == 0.0 && y < 0.0 {
        return Err(SqlError::new(SqlState::INVALID_POWER, "zero raised to a negative power is undefined"));
    }
    if x < 0.0 && y.fract() != 0.0 {
        return Err(SqlError::new(
            SqlState::INVALID_POWER,
            "a negative number raised to a non-integer power yields a complex result",
        ));
    }
    let z = x.powf(y);
    if z.is_infinite() && x.is_finite() && y.is_finite() { Err(float_overflow()) } else { Ok(z) }
}

/// Rounds to decimal digits by way of the shortest decimal text, so that 2.675 rounds as people read it.
fn round_digits(x: f64, digits: i64, round: fn(f64) -> f64) -> f64 {
    let digits = digits.clamp(-308, 308) as i32;
    if !x.is_finite() || digits > 15 {
        return x;
    }
    let shift = |x: f64, by: i32| {
        format!("{x:e}").split_once('e').and_then(|(m, e)| {
            let exponent: i32 = e.parse().ok()?;
            format!("{m}e{}", exponent + by).parse::<f64>().ok()
        })
    };
    shift(x, digits).and_then(|y| shift(round(y), -digits)).unwrap_or(x)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
