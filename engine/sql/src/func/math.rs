//! Mathematical functions.

use super::{decimal, float, functions, int};
use crate::decimal::{Decimal, Exact};
use crate::error::{SqlError, SqlState};
use crate::exec::eval::{map1, map2};
use crate::types;
use chronos_proto::{Type, Value};

functions! { TABLE:
    "abs" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.abs()));
    "sign" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(if x == 0.0 || x.is_nan() { x } else { x.signum() }));
    "ceil" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.ceil()));
    "ceiling" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.ceil()));
    "floor" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.floor()));
    "trunc" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.trunc()));
    "round" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.round_ties_even()));
    "round" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).map(|x| x.round(0)).to_value();
    "round" (Numeric, Integer) -> Numeric Immutable Row |a, _| {
        let places = int(a[1]).clamp(-2_000, 2_000);
        decimal(a[0]).map(|x| x.round(places)).to_value()
    };
    "trunc" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).map(|x| x.truncate(0)).to_value();
    "trunc" (Numeric, Integer) -> Numeric Immutable Row |a, _| {
        let places = int(a[1]).clamp(-2_000, 2_000);
        decimal(a[0]).map(|x| x.truncate(places)).to_value()
    };
    "abs" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).abs().to_value();
    "abs" (Real) -> Real Immutable Vector |a, n, _| map1(Type::Real, &a[0], n, |x: f64| Ok(x.abs()));
    "sign" (Numeric) -> Numeric Immutable Row |a, _| match decimal(a[0]).signum() {
        Some(sign) => Decimal::from(i64::from(sign)).to_value(),
        None => Decimal::NaN.to_value(),
    };
    "ceil" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).ceil().to_value();
    "ceiling" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).ceil().to_value();
    "floor" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).floor().to_value();
    "sqrt" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).sqrt()?.to_value();
    "exp" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).exp()?.to_value();
    "ln" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).ln()?.to_value();
    "log" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).log(&Decimal::from(10))?.to_value();
    "log10" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).log(&Decimal::from(10))?.to_value();
    "log" (Numeric, Numeric) -> Numeric Immutable Row |a, _| decimal(a[1]).log(&decimal(a[0]))?.to_value();
    "scale" (Numeric) -> Integer Immutable Row |a, _| Ok(match decimal(a[0]) {
        Decimal::Finite(x) => Value::Int(x.scale.into()),
        _ => Value::Null,
    });
    "min_scale" (Numeric) -> Integer Immutable Row |a, _| Ok(match decimal(a[0]) {
        Decimal::Finite(x) => Value::Int(trimmed(&x).scale.into()),
        _ => Value::Null,
    });
    "trim_scale" (Numeric) -> Numeric Immutable Row |a, _| decimal(a[0]).map(trimmed).to_value();
    "factorial" (Int) -> Numeric Immutable Row |a, _| match int(a[0]) {
        n if n < 0 => Err(SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "factorial of a negative number is undefined")),
        n if n > 3_000 => Err(crate::decimal::overflow()),
        n => (1..=n).try_fold(Decimal::from(1), |product, i| product.mul(&Decimal::from(i)))?.to_value(),
    };
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
    "gcd" (Integer, Integer) -> Integer Immutable Vector |a, n, _| map2(Type::Integer, a, n, |x: i64, y: i64| common_divisor(x, y, Type::Integer));
    "gcd" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| common_divisor(x, y, Type::Int));
    "lcm" (Integer, Integer) -> Integer Immutable Vector |a, n, _| map2(Type::Integer, a, n, |x: i64, y: i64| common_multiple(x, y, Type::Integer));
    "lcm" (Int, Int) -> Int Immutable Vector |a, n, _| map2(Type::Int, a, n, |x: i64, y: i64| common_multiple(x, y, Type::Int));
    "sinh" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.sinh()));
    "cosh" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.cosh()));
    "tanh" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(x.tanh()));
    "cot" (Float) -> Float Immutable Vector |a, n, _| map1(Type::Float, &a[0], n, |x: f64| Ok(1.0 / x.tan()));
    "setseed" (Float) -> Text Volatile Row |a, cx| {
        cx.random.set(float(a[0]).to_bits());
        super::text("")
    };
    "random" () -> Float Volatile Row |_, cx| Ok(Value::Float((cx.random() >> 11) as f64 / (1u64 << 53) as f64));
    "width_bucket" (Float, Float, Float, Integer) -> Integer Immutable Row |a, _| {
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

/// With no zeros at the end.
fn trimmed(x: &Exact) -> Exact {
    let mut x = x.clone();
    while x.scale > 0 {
        let shorter = x.truncate(i64::from(x.scale) - 1);
        if shorter.round(x.scale.into()).coefficient != x.coefficient {
            break;
        }
        x = shorter;
    }
    x
}

fn common_divisor(x: i64, y: i64, ty: Type) -> Result<i64, SqlError> {
    let divisor = gcd(x.unsigned_abs(), y.unsigned_abs());
    types::in_range(i64::try_from(divisor).map_err(|_| types::integer_overflow(ty))?, ty)
}

fn common_multiple(x: i64, y: i64, ty: Type) -> Result<i64, SqlError> {
    if x == 0 || y == 0 {
        return Ok(0);
    }
    let multiple = (x / common_divisor(x, y, ty)?).checked_mul(y).and_then(i64::checked_abs);
    types::in_range(multiple.ok_or_else(|| types::integer_overflow(ty))?, ty)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
