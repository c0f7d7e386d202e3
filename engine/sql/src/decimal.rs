//! Exact decimals, as PostgreSQL's NUMERIC computes with them: the scale of every result is the one that it chooses.

use crate::error::{SqlError, SqlState};
use bytes::Bytes;
use chronos_proto::Value;
use chronos_proto::numeric::{self, Parts};
use num_bigint::{BigInt, BigUint, Sign};
use std::cmp::Ordering;

/// Significant digits that a division or a root gives at least.
const SIGNIFICANT: i64 = 16;
/// The most digits behind the point that a result is given unasked.
const RESULT_SCALE_MAX: i64 = 1000;
/// The most digits behind the point that a value may have.
const SCALE_MAX: u32 = 16_383;
/// The most digits before the point that a value may have.
const WHOLE_MAX: i64 = 131_072;

/// A number, an infinity or NaN.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decimal {
    NegativeInfinity,
    Infinity,
    NaN,
    Finite(Exact),
}

/// `coefficient / 10^scale`, shown with `scale` digits behind the point.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exact {
    pub coefficient: BigInt,
    pub scale: u32,
}

pub(crate) fn overflow() -> SqlError {
    SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "value overflows numeric format")
}

fn ten(power: u32) -> BigInt {
    match 10u64.checked_pow(power) {
        Some(small) => small.into(),
        None => BigInt::from(10u32).pow(power),
    }
}

fn digits(n: &BigUint) -> i64 {
    if n.bits() <= 128 {
        let small =
            n.iter_u64_digits().enumerate().fold(0u128, |sum, (i, d)| sum | u128::from(d) << (64 * i));
        return small.checked_ilog10().map_or(0, |log| i64::from(log) + 1);
    }
    n.to_string().len() as i64
}

/// Divides and rounds half away from zero.
fn divide_rounded(a: &BigInt, b: &BigInt) -> BigInt {
    let quotient = a / b;
    let rest = a - &quotient * b;
    if (rest.magnitude() << 1u8) < *b.magnitude() {
        return quotient;
    }
    if (a.sign() == Sign::Minus) == (b.sign() == Sign::Minus) { quotient + 1 } else { quotient - 1 }
}

impl Exact {
    pub fn new(coefficient: impl Into<BigInt>, scale: u32) -> Exact {
        Exact { coefficient: coefficient.into(), scale }
    }

    pub fn is_zero(&self) -> bool {
        self.coefficient.sign() == Sign::NoSign
    }

    /// The coefficient at a scale, rounded half away from zero where that is a smaller one.
    fn at(&self, scale: i64) -> BigInt {
        let by = scale - i64::from(self.scale);
        let power = ten(by.unsigned_abs() as u32);
        if by >= 0 { &self.coefficient * power } else { divide_rounded(&self.coefficient, &power) }
    }

    /// Rounded half away from zero to so many digits behind the point, or before it.
    pub fn round(&self, scale: i64) -> Exact {
        let whole = digits(self.coefficient.magnitude()) - i64::from(self.scale);
        if scale < -whole {
            return Exact::new(0, 0);
        }
        match u32::try_from(scale) {
            Ok(scale) => Exact { coefficient: self.at(scale.into()), scale },
            Err(_) => Exact::new(self.at(scale) * ten(scale.unsigned_abs() as u32), 0),
        }
    }

    /// Cut towards zero.
    pub fn truncate(&self, scale: i64) -> Exact {
        if scale >= i64::from(self.scale) {
            return self.round(scale);
        }
        let by = i64::from(self.scale) - scale;
        let whole = digits(self.coefficient.magnitude());
        if by > whole {
            return Exact::new(0, u32::try_from(scale).unwrap_or(0));
        }
        let cut = &self.coefficient / ten(by as u32);
        match u32::try_from(scale) {
            Ok(scale) => Exact { coefficient: cut, scale },
            Err(_) => Exact::new(cut * ten(scale.unsigned_abs() as u32), 0),
        }
    }

    /// Weight and value of the first digit of base 10,000, by which PostgreSQL chooses scales.
    fn first(&self) -> (i64, i64) {
        let magnitude = self.coefficient.magnitude();
        let count = digits(magnitude);
        if count == 0 {
            return (0, 0);
        }
        let lead = count - 1 - i64::from(self.scale);
        let weight = lead.div_euclid(4);
        // Digits of the number that stand within its first digit of base 10,000.
        let within = lead - weight * 4 + 1;
        let cut = count - within;
        let value = if cut >= 0 {
            magnitude / ten(cut as u32).magnitude()
        } else {
            magnitude * ten(-cut as u32).magnitude()
        };
        (weight, value.iter_u64_digits().next().unwrap_or(0) as i64)
    }

    fn checked(self) -> Result<Exact, SqlError> {
        if self.coefficient.bits() < 400_000 || self.whole_digits() <= WHOLE_MAX {
            Ok(self)
        } else {
            Err(overflow())
        }
    }

    fn whole_digits(&self) -> i64 {
        digits(self.coefficient.magnitude()) - i64::from(self.scale)
    }

    /// A fixed-point square root, rounded.
    fn sqrt(&self, scale: i64) -> Exact {
        // One digit more than is wanted decides the rounding: a root is never exactly half way.
        let wide = self.at(2 * (scale + 1));
        let root = BigInt::from(wide.magnitude().sqrt());
        let scale = scale.max(0) as u32;
        Exact { coefficient: divide_rounded(&root, &BigInt::from(10)), scale }
    }

    pub fn to_f64(&self) -> f64 {
        Decimal::Finite(self.clone()).to_string().parse().unwrap_or(f64::NAN)
    }
}

impl From<i64> for Decimal {
    fn from(i: i64) -> Decimal {
        Decimal::Finite(Exact::new(i, 0))
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let exact = match self {
            Decimal::NegativeInfinity => return f.write_str("-Infinity"),
            Decimal::Infinity => return f.write_str("Infinity"),
            Decimal::NaN => return f.write_str("NaN"),
            Decimal::Finite(exact) => exact,
        };
        let sign = if exact.coefficient.sign() == Sign::Minus { "-" } else { "" };
        let digits = exact.coefficient.magnitude().to_string();
        let scale = exact.scale as usize;
        if scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

impl Decimal {
    pub fn zero() -> Decimal {
        Decimal::from(0)
    }

    /// Reads text, as PostgreSQL does: `invalid` names a text that is no number.
    pub fn parse(text: &str) -> Result<Decimal, SqlError> {
        let invalid = || {
            SqlError::new(
                SqlState::INVALID_TEXT,
                format!("invalid input syntax for type numeric: \"{text}\""),
            )
        };
        let body = text.trim();
        let (negative, body) = match body.as_bytes().first() {
            Some(b'-') => (true, &body[1..]),
            Some(b'+') => (false, &body[1..]),
            _ => (false, body),
        };
        match body.to_ascii_lowercase().as_str() {
            "nan" if body.len() == text.trim().len() => return Ok(Decimal::NaN),
            "inf" | "infinity" if negative => return Ok(Decimal::NegativeInfinity),
            "inf" | "infinity" => return Ok(Decimal::Infinity),
            _ => {}
        }
        let (mantissa, exponent) = match body.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(invalid());
                }
                (mantissa, exponent.parse::<i64>().ok().filter(|e| e.abs() < 1_000_000).ok_or_else(overflow)?)
            }
            None => (body, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
            return Err(invalid());
        }
        let scale = fraction.len() as i64 - exponent;
        let mut coefficient = if whole.len() + fraction.len() <= 18 {
            format!("{whole}{fraction}").parse::<i64>().map_err(|_| invalid())?.into()
        } else {
            format!("{whole}{fraction}").parse::<BigInt>().map_err(|_| invalid())?
        };
        if scale < -WHOLE_MAX {
            return if coefficient.sign() == Sign::NoSign { Ok(Decimal::zero()) } else { Err(overflow()) };
        }
        if negative {
            coefficient = -coefficient;
        }
        let exact = match u32::try_from(scale) {
            Ok(scale) if scale <= SCALE_MAX => Exact { coefficient, scale },
            Ok(scale) => Exact { coefficient, scale }.round(SCALE_MAX.into()),
            Err(_) => Exact::new(coefficient * ten(scale.unsigned_abs() as u32), 0),
        };
        exact.checked().map(Decimal::Finite)
    }

    /// From stored bytes; what is no number, which only damage makes, is NaN.
    pub fn from_bytes(bytes: &[u8]) -> Decimal {
        match numeric::parts(bytes) {
            None | Some(Parts::NaN) => Decimal::NaN,
            Some(Parts::Infinity) => Decimal::Infinity,
            Some(Parts::NegativeInfinity) => Decimal::NegativeInfinity,
            Some(Parts::Finite { negative, pairs, exponent, scale }) => {
                let power = 2 * (i64::from(exponent) - pairs.len() as i64) + i64::from(scale);
                let magnitude = BigUint::from_radix_be(&pairs, 100).unwrap_or_default();
                let sign = if negative { Sign::Minus } else { Sign::Plus };
                let coefficient = BigInt::from_biguint(sign, magnitude);
                let by = ten(power.unsigned_abs() as u32);
                let coefficient = if power >= 0 { coefficient * by } else { coefficient / by };
                Decimal::Finite(Exact { coefficient, scale: scale.into() })
            }
        }
    }

    pub fn to_bytes(&self) -> Result<Bytes, SqlError> {
        let parts = match self {
            Decimal::NegativeInfinity => Parts::NegativeInfinity,
            Decimal::Infinity => Parts::Infinity,
            Decimal::NaN => Parts::NaN,
            Decimal::Finite(exact) => {
                let odd = exact.scale % 2 == 1;
                let magnitude = exact.coefficient.magnitude();
                let mut pairs = if exact.is_zero() {
                    Vec::new()
                } else if odd {
                    (magnitude * 10u32).to_radix_be(100)
                } else {
                    magnitude.to_radix_be(100)
                };
                let exponent = pairs.len() as i32 - (exact.scale + u32::from(odd)) as i32 / 2;
                pairs.truncate(pairs.iter().rposition(|p| *p != 0).map_or(0, |last| last + 1));
                let scale = u16::try_from(exact.scale).map_err(|_| overflow())?;
                Parts::Finite { negative: exact.coefficient.sign() == Sign::Minus, pairs, exponent, scale }
            }
        };
        numeric::encode(&parts).ok_or_else(overflow)
    }

    pub fn to_value(&self) -> Result<Value, SqlError> {
        self.to_bytes().map(Value::Numeric)
    }

    /// What a double prints with 15 digits, or a float with 6.
    pub fn from_f64(x: f64, digits: usize) -> Result<Decimal, SqlError> {
        if x.is_nan() {
            return Ok(Decimal::NaN);
        }
        if x.is_infinite() {
            return Ok(if x > 0.0 { Decimal::Infinity } else { Decimal::NegativeInfinity });
        }
        let text = format!("{:.*e}", digits - 1, x);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let mantissa = if mantissa.contains('.') {
            mantissa.trim_end_matches('0').trim_end_matches('.')
        } else {
            mantissa
        };
        Decimal::parse(&format!("{mantissa}e{exponent}"))
    }

    pub fn to_f64(&self) -> f64 {
        match self {
            Decimal::NegativeInfinity => f64::NEG_INFINITY,
            Decimal::Infinity => f64::INFINITY,
            Decimal::NaN => f64::NAN,
            Decimal::Finite(exact) => exact.to_f64(),
        }
    }

    /// Rounded to an integer of 64 bits, if it is one.
    pub fn to_i64(&self) -> Option<i64> {
        match self {
            Decimal::Finite(exact) => i64::try_from(exact.at(0)).ok(),
            _ => None,
        }
    }

    pub fn is_zero(&self) -> bool {
        matches!(self, Decimal::Finite(exact) if exact.is_zero())
    }

    /// -1, 0 or 1; of NaN nothing.
    pub fn signum(&self) -> Option<i32> {
        match self {
            Decimal::NaN => None,
            Decimal::Infinity => Some(1),
            Decimal::NegativeInfinity => Some(-1),
            Decimal::Finite(exact) => Some(match exact.coefficient.sign() {
                Sign::Minus => -1,
                Sign::NoSign => 0,
                Sign::Plus => 1,
            }),
        }
    }

    pub fn neg(&self) -> Decimal {
        match self {
            Decimal::NegativeInfinity => Decimal::Infinity,
            Decimal::Infinity => Decimal::NegativeInfinity,
            Decimal::NaN => Decimal::NaN,
            Decimal::Finite(exact) => {
                Decimal::Finite(Exact { coefficient: -exact.coefficient.clone(), scale: exact.scale })
            }
        }
    }

    pub fn abs(&self) -> Decimal {
        if self.signum() == Some(-1) { self.neg() } else { self.clone() }
    }

    pub fn add(&self, other: &Decimal) -> Result<Decimal, SqlError> {
        let (Decimal::Finite(a), Decimal::Finite(b)) = (self, other) else {
            return Ok(match (self, other) {
                (Decimal::NaN, _) | (_, Decimal::NaN) => Decimal::NaN,
                (Decimal::Infinity, Decimal::NegativeInfinity)
                | (Decimal::NegativeInfinity, Decimal::Infinity) => Decimal::NaN,
                (Decimal::Finite(_), infinite) | (infinite, _) => infinite.clone(),
            });
        };
        let scale = a.scale.max(b.scale);
        Exact { coefficient: a.at(scale.into()) + b.at(scale.into()), scale }.checked().map(Decimal::Finite)
    }

    pub fn sub(&self, other: &Decimal) -> Result<Decimal, SqlError> {
        self.add(&other.neg())
    }

    pub fn mul(&self, other: &Decimal) -> Result<Decimal, SqlError> {
        let (Decimal::Finite(a), Decimal::Finite(b)) = (self, other) else {
            return Ok(match (self.signum(), other.signum()) {
                (Some(a), Some(b)) if a * b > 0 => Decimal::Infinity,
                (Some(a), Some(b)) if a * b < 0 => Decimal::NegativeInfinity,
                _ => Decimal::NaN,
            });
        };
        let product = Exact { coefficient: &a.coefficient * &b.coefficient, scale: a.scale + b.scale };
        let product = if product.scale > SCALE_MAX { product.round(SCALE_MAX.into()) } else { product };
        product.checked().map(Decimal::Finite)
    }

    pub fn div(&self, other: &Decimal) -> Result<Decimal, SqlError> {
        if matches!(self, Decimal::NaN) || matches!(other, Decimal::NaN) {
            return Ok(Decimal::NaN);
        }
        if other.is_zero() {
            return Err(crate::func::by_zero());
        }
        let (Decimal::Finite(a), Decimal::Finite(b)) = (self, other) else {
            return Ok(match (self, other) {
                (Decimal::Finite(_), _) => Decimal::zero(),
                (_, Decimal::Finite(_)) if self.signum() == other.signum() => Decimal::Infinity,
                (_, Decimal::Finite(_)) => Decimal::NegativeInfinity,
                _ => Decimal::NaN,
            });
        };
        quotient(a, b, division_scale(a, b)).checked().map(Decimal::Finite)
    }

    /// The quotient cut towards zero to an integer.
    pub fn div_trunc(&self, other: &Decimal) -> Result<Decimal, SqlError> {
        let (Decimal::Finite(a), Decimal::Finite(b)) = (self, other) else { return self.div(other) };
        if b.is_zero() {
            return Err(crate::func::by_zero());
        }
        let scale = a.scale.max(b.scale).into();
        Ok(Decimal::Finite(Exact::new(a.at(scale) / b.at(scale), 0)))
    }

    pub fn rem(&self, other: &Decimal) -> Result<Decimal, SqlError> {
        if matches!(self, Decimal::NaN) || matches!(other, Decimal::NaN) {
            return Ok(Decimal::NaN);
        }
        if other.is_zero() {
            return Err(crate::func::by_zero());
        }
        let (Decimal::Finite(a), Decimal::Finite(b)) = (self, other) else {
            return Ok(if matches!(self, Decimal::Finite(_)) { self.clone() } else { Decimal::NaN });
        };
        let scale = a.scale.max(b.scale);
        Ok(Decimal::Finite(Exact { coefficient: a.at(scale.into()) % b.at(scale.into()), scale }))
    }

    pub fn cmp(&self, other: &Decimal) -> Ordering {
        let rank = |d: &Decimal| match d {
            Decimal::NegativeInfinity => 0,
            Decimal::Finite(_) => 1,
            Decimal::Infinity => 2,
            Decimal::NaN => 3,
        };
        match (self, other) {
            (Decimal::Finite(a), Decimal::Finite(b)) => {
                let scale = a.scale.max(b.scale).into();
                a.at(scale).cmp(&b.at(scale))
            }
            _ => rank(self).cmp(&rank(other)),
        }
    }

    /// A function of the number; infinities and NaN stay as they are.
    pub fn map(&self, f: impl Fn(&Exact) -> Exact) -> Decimal {
        match self {
            Decimal::Finite(exact) => Decimal::Finite(f(exact)),
            other => other.clone(),
        }
    }

    pub fn floor(&self) -> Decimal {
        self.map(|exact| {
            let cut = exact.truncate(0);
            let below =
                exact.coefficient.sign() == Sign::Minus && cut.at(exact.scale.into()) != exact.coefficient;
            if below { Exact::new(cut.coefficient - 1, 0) } else { cut }
        })
    }

    pub fn ceil(&self) -> Decimal {
        self.neg().floor().neg()
    }

    /// As NUMERIC(precision, scale).
    pub fn fit(&self, precision: u16, scale: i16) -> Result<Decimal, SqlError> {
        let (precision, scale) = (i64::from(precision), i64::from(scale));
        let over = |detail: String| {
            SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "numeric field overflow").detail(detail)
        };
        match self {
            Decimal::NaN => Ok(Decimal::NaN),
            Decimal::Finite(exact) => {
                let rounded = exact.round(scale);
                if !rounded.is_zero() && rounded.whole_digits() > precision - scale {
                    let below =
                        if precision == scale { "1".into() } else { format!("10^{}", precision - scale) };
                    return Err(over(format!(
                        "A field with precision {precision}, scale {scale} must round to an absolute value less than {below}."
                    )));
                }
                Ok(Decimal::Finite(rounded))
            }
            _ => Err(over(format!(
                "A field with precision {precision}, scale {scale} cannot hold an infinite value."
            ))),
        }
    }

    pub fn sqrt(&self) -> Result<Decimal, SqlError> {
        match self {
            Decimal::NegativeInfinity => Err(negative_root()),
            Decimal::Finite(exact) if exact.coefficient.sign() == Sign::Minus => Err(negative_root()),
            Decimal::Finite(exact) => {
                let (weight, _) = exact.first();
                // Digits before the point of the root, less one.
                let lead = (weight + 1) * 2 - 1;
                let scale = (SIGNIFICANT - lead).max(exact.scale.into()).clamp(0, RESULT_SCALE_MAX);
                Ok(Decimal::Finite(exact.sqrt(scale)))
            }
            other => Ok(other.clone()),
        }
    }
}

fn negative_root() -> SqlError {
    SqlError::new(SqlState::INVALID_POWER, "cannot take square root of a negative number")
}

/// The scale that a quotient is given: at least 16 significant digits, and what the operands have.
fn division_scale(a: &Exact, b: &Exact) -> i64 {
    let ((weight_a, first_a), (weight_b, first_b)) = (a.first(), b.first());
    let weight = weight_a - weight_b - i64::from(first_a <= first_b);
    (SIGNIFICANT - weight * 4).max(a.scale.into()).max(b.scale.into()).clamp(0, RESULT_SCALE_MAX)
}

fn quotient(a: &Exact, b: &Exact, scale: i64) -> Exact {
    // a/10^sa / (b/10^sb) * 10^scale
    let power = scale + i64::from(b.scale) - i64::from(a.scale);
    let by = ten(power.unsigned_abs() as u32);
    let coefficient = if power >= 0 {
        divide_rounded(&(&a.coefficient * by), &b.coefficient)
    } else {
        divide_rounded(&a.coefficient, &(&b.coefficient * by))
    };
    Exact { coefficient, scale: scale as u32 }
}

/// The variance of numbers with this sum and sum of squares, or its root; none where there are too few.
pub(crate) fn variance(
    count: i64,
    sum: &Decimal,
    squares: &Decimal,
    sample: bool,
    root: bool,
) -> Option<Decimal> {
    let divisor = if sample { count - 1 } else { count };
    if divisor <= 0 {
        return None;
    }
    let (Decimal::Finite(sum), Decimal::Finite(squares)) = (sum, squares) else { return Some(Decimal::NaN) };
    let scale = sum.scale * 2;
    let numerator =
        Exact { coefficient: squares.at(scale.into()) * count - &sum.coefficient * &sum.coefficient, scale };
    if numerator.coefficient.sign() != Sign::Plus {
        return Some(Decimal::zero());
    }
    let divisor = Exact::new(BigInt::from(count) * divisor, 0);
    let scale = division_scale(&numerator, &divisor);
    let variance = quotient(&numerator, &divisor, scale);
    Some(Decimal::Finite(if root { variance.sqrt(scale) } else { variance }))
}

// Logarithms and powers, in fixed point with digits to spare.

/// Digits beyond those wanted.
const GUARD: i64 = 24;

fn fixed(x: &Exact, places: i64) -> BigInt {
    x.at(places)
}

/// e^x for a fixed-point x: halved until small, summed, and squared back.
fn exp_fixed(x: &BigInt, places: i64) -> BigInt {
    let halvings = (x.bits() as i64 - (places as f64 * std::f64::consts::LOG2_10) as i64 + 8).max(0) as u32;
    let places_wide = places + i64::from(halvings);
    let one = ten(places_wide as u32);
    let x = (x * ten(halvings)) >> halvings;
    let (mut term, mut sum, mut n) = (one.clone(), one.clone(), 1u32);
    loop {
        term = &term * &x / &one / n;
        if term.sign() == Sign::NoSign {
            break;
        }
        sum += &term;
        n += 1;
    }
    for _ in 0..halvings {
        sum = &sum * &sum / &one;
    }
    sum / ten(halvings)
}

/// ln x for a fixed-point x above zero: roots until it is near one, then 2·atanh((x-1)/(x+1)).
fn ln_fixed(x: &BigInt, places: i64) -> BigInt {
    let one = ten(places as u32);
    let near = &one / 1000u32;
    let (mut x, mut roots) = (x.clone(), 0u32);
    // A root loses nothing but the last place, and doubling gives it back: a few places for the roots.
    let extra = 20u32;
    let wide = &one * ten(extra);
    x *= ten(extra);
    let near = near * ten(extra);
    while (&x - &wide).magnitude() > near.magnitude() && roots < 200 {
        x = BigInt::from((x * &wide).magnitude().sqrt());
        roots += 1;
    }
    let z = (&x - &wide) * &wide / (&x + &wide);
    let square = &z * &z / &wide;
    let (mut term, mut sum, mut n) = (z.clone(), z, 3u32);
    loop {
        term = &term * &square / &wide;
        let part = &term / n;
        if part.sign() == Sign::NoSign {
            break;
        }
        sum += part;
        n += 2;
    }
    (sum << (roots + 1)) / ten(extra)
}

/// Decimal digits before the point of ln x, less one, as PostgreSQL estimates them.
fn ln_weight(x: &Exact) -> i64 {
    let f = x.to_f64();
    if (0.9..=1.1).contains(&f) {
        let off = Exact { coefficient: &x.coefficient - ten(x.scale), scale: x.scale };
        if off.is_zero() {
            return 0;
        }
        return digits(off.coefficient.magnitude()) - 1 - i64::from(x.scale);
    }
    let (whole, scale) = (digits(x.coefficient.magnitude()), i64::from(x.scale));
    let lead: f64 = {
        let text = x.coefficient.magnitude().to_string();
        format!("0.{}", &text[..text.len().min(17)]).parse().unwrap_or(1.0)
    };
    let ln = lead.ln() + (whole - scale) as f64 * std::f64::consts::LN_10;
    ln.abs().log10() as i64
}

fn scale_for(weight: i64, least: u32) -> i64 {
    (SIGNIFICANT - weight).max(least.into()).clamp(0, RESULT_SCALE_MAX)
}

fn log_argument(x: &Decimal) -> Result<(), SqlError> {
    let what = match x.signum() {
        Some(0) => "cannot take logarithm of zero",
        Some(-1) => "cannot take logarithm of a negative number",
        _ => return Ok(()),
    };
    Err(SqlError::new(SqlState::INVALID_LOGARITHM, what))
}

fn rounded(x: BigInt, places: i64, scale: i64) -> Exact {
    Exact { coefficient: x, scale: places as u32 }.round(scale)
}

impl Decimal {
    pub fn ln(&self) -> Result<Decimal, SqlError> {
        log_argument(self)?;
        Ok(self.map(|x| {
            let scale = scale_for(ln_weight(x), x.scale);
            let places = scale + GUARD + i64::from(x.scale);
            rounded(ln_fixed(&fixed(x, places), places), places, scale)
        }))
    }

    /// The logarithm to a base.
    pub fn log(&self, base: &Decimal) -> Result<Decimal, SqlError> {
        log_argument(base)?;
        log_argument(self)?;
        let (Decimal::Finite(x), Decimal::Finite(base)) = (self, base) else {
            return Decimal::from_f64(self.to_f64().log(base.to_f64()), 15);
        };
        let scale = scale_for(ln_weight(x) - ln_weight(base), x.scale.max(base.scale));
        let places = scale + GUARD + i64::from(x.scale.max(base.scale)) + 8;
        let divisor = ln_fixed(&fixed(base, places), places);
        if divisor.sign() == Sign::NoSign {
            return Err(crate::func::by_zero());
        }
        let quotient = ln_fixed(&fixed(x, places), places) * ten(places as u32) / divisor;
        Ok(Decimal::Finite(rounded(quotient, places, scale)))
    }

    pub fn exp(&self) -> Result<Decimal, SqlError> {
        let x = match self {
            Decimal::NegativeInfinity => return Ok(Decimal::zero()),
            Decimal::Finite(x) => x,
            other => return Ok(other.clone()),
        };
        let f = x.to_f64();
        if f > 300_000.0 {
            return Err(overflow());
        }
        let magnitude = (f * std::f64::consts::LOG10_E).max(-2_000.0) as i64;
        let scale = scale_for(magnitude, x.scale);
        if f < -20_000.0 {
            return Ok(Decimal::Finite(Exact::new(0, scale as u32)));
        }
        let places = scale + GUARD + magnitude.max(0) + i64::from(x.scale);
        Ok(Decimal::Finite(rounded(exp_fixed(&fixed(x, places), places), places, scale).checked()?))
    }

    pub fn power(&self, exponent: &Decimal) -> Result<Decimal, SqlError> {
        let one = || Decimal::Finite(Exact::new(ten(SIGNIFICANT as u32), SIGNIFICANT as u32));
        let (Decimal::Finite(x), Decimal::Finite(y)) = (self, exponent) else {
            let result = self.to_f64().powf(exponent.to_f64());
            return Decimal::from_f64(result, 15);
        };
        let power = |what: &str| Err(SqlError::new(SqlState::INVALID_POWER, what));
        let whole = y.truncate(0).at(y.scale.into()) == y.coefficient;
        match (self.signum(), exponent.signum()) {
            (Some(0), Some(-1)) => return power("zero raised to a negative power is undefined"),
            (Some(-1), _) if !whole => {
                return power("a negative number raised to a non-integer power yields a complex result");
            }
            (Some(0), Some(0)) => return Ok(one()),
            (Some(0), _) => return Ok(Decimal::Finite(Exact::new(0, SIGNIFICANT as u32))),
            _ => {}
        }
        let base = Exact { coefficient: BigInt::from(x.coefficient.magnitude().clone()), scale: x.scale };
        let lead = digits(base.coefficient.magnitude()) - i64::from(base.scale);
        let log10 = {
            let text = base.coefficient.magnitude().to_string();
            format!("0.{}", &text[..text.len().min(17)]).parse::<f64>().unwrap_or(1.0).log10() + lead as f64
        };
        let magnitude = log10 * y.to_f64();
        if magnitude > WHOLE_MAX as f64 {
            return Err(overflow());
        }
        let least = x.scale.max(y.scale);
        let scale = scale_for(magnitude.max(-2_000.0) as i64, least);
        if magnitude < -3_000.0 {
            return Ok(Decimal::Finite(Exact::new(0, scale as u32)));
        }
        // To a whole power the digits behind the point are those wanted anyway.
        let whole_scale = SIGNIFICANT.max(x.scale.into()).min(RESULT_SCALE_MAX);
        let power = i32::try_from(&y.truncate(0).coefficient).ok().filter(|_| whole);
        let negative = self.signum() == Some(-1) && y.at(0).bit(0);
        let exact = power
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| u64::from(*n) * base.coefficient.bits() < 100_000);
        let result = match exact {
            Some(n) => {
                Exact { coefficient: base.coefficient.pow(n), scale: base.scale * n }.round(whole_scale)
            }
            None => {
                let scale = if whole { whole_scale } else { scale };
                let places = scale + 2 * GUARD + (magnitude.abs() as i64) + i64::from(least);
                let product = ln_fixed(&fixed(&base, places), places) * &y.coefficient / ten(y.scale);
                rounded(exp_fixed(&product, places), places, scale)
            }
        };
        let result = result.checked()?;
        Ok(Decimal::Finite(if negative {
            Exact { coefficient: -result.coefficient, ..result }
        } else {
            result
        }))
    }
}
