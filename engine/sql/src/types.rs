//! Which type becomes which, when: PostgreSQL's implicit, assignment and explicit casts, and how values compare.

use crate::decimal::Decimal;
use crate::error::{SqlError, SqlState};
use crate::exec::vector::ValueRef;
use crate::zone::Zone;
use crate::{text, time};
use chronos_proto::value::Interval;
use chronos_proto::{Type, Value};
use std::cmp::Ordering;

/// In which place a cast is wanted; each allows what the one before does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CastContext {
    /// In any expression, unasked.
    Implicit,
    /// Into a column.
    Assignment,
    /// By CAST or `::`.
    Explicit,
}

/// PostgreSQL's kinds of types, within which it prefers one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    Boolean,
    Number,
    Text,
    Time,
    Interval,
    Other,
    Array,
}

pub fn category(ty: Type) -> Category {
    match ty {
        Type::Bool => Category::Boolean,
        Type::SmallInt | Type::Integer | Type::Int | Type::Real | Type::Float => Category::Number,
        Type::Numeric | Type::Decimal { .. } => Category::Number,
        Type::Text | Type::Varchar(_) | Type::Char(_) => Category::Text,
        Type::Date | Type::Time | Type::LocalTimestamp | Type::Timestamp => Category::Time,
        Type::Interval => Category::Interval,
        Type::Bytes | Type::Json | Type::PlainJson | Type::Uuid => Category::Other,
        Type::Array(_) => Category::Array,
    }
}

/// What a type is in an expression: without a length, and VARCHAR is TEXT.
pub fn plain(ty: Type) -> Type {
    match ty.base() {
        Type::Varchar(_) => Type::Text,
        base => base,
    }
}

pub fn is_integer(ty: Type) -> bool {
    matches!(ty, Type::SmallInt | Type::Integer | Type::Int)
}

/// How wide a number is: each becomes a wider one unasked.
fn width(ty: Type) -> Option<u8> {
    Some(match ty {
        Type::SmallInt => 0,
        Type::Integer => 1,
        Type::Int => 2,
        Type::Numeric => 3,
        Type::Real => 4,
        Type::Float => 5,
        _ => return None,
    })
}

/// Whether a cast between two different types exists in a context. Lengths are another matter ([`fit`]).
pub fn castable(from: Type, to: Type, context: CastContext) -> bool {
    use Type::*;
    let (from, to) = (from.base(), to.base());
    if let (Some(a), Some(b)) = (width(from), width(to)) {
        return a <= b || context >= CastContext::Assignment;
    }
    let needs = match (from, to) {
        (a, b) if a == b => CastContext::Implicit,
        (Text | Varchar(_) | Char(_), Text | Varchar(_) | Char(_)) => CastContext::Implicit,
        (Date, Timestamp | LocalTimestamp) | (LocalTimestamp, Timestamp) | (Time, Interval) => {
            CastContext::Implicit
        }
        (Timestamp, Date | LocalTimestamp | Time) | (LocalTimestamp, Date | Time) => CastContext::Assignment,
        (Interval, Time) | (Json, PlainJson) | (PlainJson, Json) => CastContext::Assignment,
        (Array(a), Array(b)) => {
            return a == b || castable(a.ty(), b.ty(), context);
        }
        (_, Text | Varchar(_) | Char(_)) => CastContext::Assignment,
        (Integer, Bool) | (Bool, Integer) => CastContext::Explicit,
        (Text | Varchar(_) | Char(_), _) => CastContext::Explicit,
        (Json, Bool | SmallInt | Integer | Int | Real | Float | Numeric) => CastContext::Explicit,
        _ => return false,
    };
    context >= needs
}

/// The one type for several: NULLs and unknown literals aside.
pub fn common(a: Type, b: Type) -> Option<Type> {
    let (a, b) = (a.base(), b.base());
    let (there, back) = (castable(a, b, CastContext::Implicit), castable(b, a, CastContext::Implicit));
    match (there, back) {
        (true, true) if is_preferred(a) => Some(a),
        (true, _) => Some(b),
        (_, true) => Some(a),
        _ => None,
    }
}

/// Whether operators prefer this type among candidates of its kind.
pub fn is_preferred(ty: Type) -> bool {
    matches!(ty, Type::Float | Type::Timestamp | Type::Text | Type::Bool | Type::Interval)
}

/// Whether values of a type may be keys: their encoding must order, and be equal, as they do.
pub fn check_key(column: &str, ty: Type) -> Result<(), SqlError> {
    match ty {
        Type::PlainJson => Err(SqlError::new(
            SqlState::UNDEFINED_OBJECT,
            "data type json has no default operator class for access method \"btree\"",
        )),
        Type::Array(_) | Type::Interval => {
            Err(SqlError::unsupported(format!("a key or an index on column \"{column}\" of type {ty}")))
        }
        _ => Ok(()),
    }
}

/// Whether a cast depends on the session's time zone.
pub fn cast_needs_zone(from: Type, to: Type) -> bool {
    let zoned = |ty: Type| match ty {
        Type::Array(element) => element.ty() == Type::Timestamp,
        ty => ty == Type::Timestamp,
    };
    zoned(from) != zoned(to)
}

/// Whether a cast changes nothing but the name: the values are the same ones.
pub fn is_relabelling(from: Type, to: Type) -> bool {
    let (from, to) = (from.base(), to.base());
    from == to
        || is_integer(from) && is_integer(to) && width(from) <= width(to)
        || matches!((from, to), (Type::Text | Type::Varchar(_), Type::Text | Type::Varchar(_)))
}

/// Casts a value that is not NULL, its type's length aside. `from` is what the value is said to be.
pub fn cast(value: ValueRef<'_>, from: Type, to: Type, zone: &Zone) -> Result<Value, SqlError> {
    use ValueRef as V;
    let to = to.base();
    Ok(match (value, to) {
        (V::Null, _) => Value::Null,
        (V::Int(i), Type::SmallInt | Type::Integer | Type::Int) => Value::Int(in_range(i, to)?),
        (V::Int(i), Type::Float) => Value::Float(i as f64),
        (V::Int(i), Type::Real) => Value::Real(i as f32),
        (V::Int(i), Type::Numeric) => Decimal::from(i).to_value()?,
        (V::Int(i), Type::Bool) => Value::Bool(i != 0),
        (V::Float(x), Type::SmallInt | Type::Integer | Type::Int) => Value::Int(float_to_int(x, to)?),
        (V::Float(x), Type::Real) => Value::Real(to_real(x)?),
        (V::Float(x), Type::Numeric) => Decimal::from_f64(x, 15)?.to_value()?,
        (V::Real(x), Type::SmallInt | Type::Integer | Type::Int) => Value::Int(float_to_int(x.into(), to)?),
        (V::Real(x), Type::Float) => Value::Float(x.into()),
        (V::Real(x), Type::Numeric) => Decimal::from_f64(x.into(), 6)?.to_value()?,
        (V::Numeric(n), Type::SmallInt | Type::Integer | Type::Int) => {
            Value::Int(decimal_to_int(&Decimal::from_bytes(n), to)?)
        }
        (V::Numeric(n), Type::Float) => Value::Float(finite(n, Decimal::from_bytes(n).to_f64(), to)?),
        (V::Numeric(n), Type::Real) => {
            let text = Decimal::from_bytes(n).to_string();
            let x = text.parse::<f32>().unwrap_or(f32::NAN);
            let x = finite(n, x.into(), to)? as f32;
            if x == 0.0 && Decimal::from_bytes(n).signum() != Some(0) {
                let message = format!("\"{text}\" is out of range for type real");
                return Err(SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, message));
            }
            Value::Real(x)
        }
        (V::Bool(b), Type::Integer) => Value::Int(i64::from(b)),
        (V::Bool(b), Type::Text | Type::Varchar(_) | Type::Char(_)) => {
            Value::Text(if b { "true" } else { "false" }.into())
        }
        (V::Date(d), Type::Timestamp) => {
            Value::Timestamp(zone.to_instant(time::timestamp(i64::from(d), 0)?)?)
        }
        (V::Date(d), Type::LocalTimestamp) => Value::LocalTimestamp(time::timestamp(i64::from(d), 0)?),
        (V::LocalTimestamp(t), Type::Timestamp) => Value::Timestamp(zone.to_instant(t)?),
        (V::LocalTimestamp(t), Type::Date) => Value::Date(time::date_of(t)?),
        (V::LocalTimestamp(t), Type::Time) => Value::Time(t.rem_euclid(time::DAY)),
        (V::Timestamp(t), Type::Date) => Value::Date(time::date_of(zone.to_local(t))?),
        (V::Timestamp(t), Type::LocalTimestamp) => Value::LocalTimestamp(zone.to_local(t)),
        (V::Timestamp(t), Type::Time) => Value::Time(zone.to_local(t).rem_euclid(time::DAY)),
        (V::Time(t), Type::Interval) => Value::Interval(Interval { months: 0, days: 0, micros: t }),
        (V::Interval(i), Type::Time) => Value::Time(i.micros.rem_euclid(time::DAY)),
        (V::Text(s), Type::Text | Type::Varchar(_)) if from.base() == Type::Char(0) => {
            Value::Text(s.trim_end_matches(' ').to_owned())
        }
        (V::Text(s), Type::Text | Type::Varchar(_) | Type::Char(_)) => Value::Text(s.to_owned()),
        (V::Text(s), to) => text::parse_in(s, to, zone)?,
        (V::Json(s), Type::Text | Type::Varchar(_) | Type::Char(_)) => Value::Text(s.to_owned()),
        (V::Json(s), Type::PlainJson) => Value::Json(s.to_owned()),
        (V::Json(s), Type::Json) => text::parse(s, to)?,
        (V::Json(s), to) => crate::json::cast(s, to)?,
        (V::Array(a), Type::Array(element)) => crate::array::cast(a, element, zone)?,
        (v, Type::Text | Type::Varchar(_) | Type::Char(_)) => Value::Text(text::format_in(v, zone)),
        (v, to) if v.to_value().ty() == Some(to) => v.to_value(),
        _ => return Err(cannot_cast(from, to)),
    })
}

/// Makes a value of a type with a length, precision or scale fit: rounded, filled, or cut where a cast asks for it.
pub fn fit(value: ValueRef<'_>, to: Type, explicit: bool) -> Result<Value, SqlError> {
    let (ValueRef::Text(s), Type::Varchar(n @ 1..) | Type::Char(n @ 1..)) = (value, to) else {
        return match (value, to) {
            (ValueRef::Numeric(n), Type::Decimal { precision, scale }) => {
                Decimal::from_bytes(n).fit(precision, scale)?.to_value()
            }
            (other, _) => Ok(other.to_value()),
        };
    };
    let n = n as usize;
    let kept = match s.char_indices().nth(n) {
        None => s,
        Some((at, _)) if explicit || s[at..].bytes().all(|b| b == b' ') => &s[..at],
        Some(_) => {
            return Err(SqlError::new(SqlState::STRING_TOO_LONG, format!("value too long for type {to}")));
        }
    };
    let mut text = kept.to_owned();
    if matches!(to, Type::Char(_)) {
        let missing = n.saturating_sub(kept.chars().count());
        text.extend(std::iter::repeat_n(' ', missing));
    }
    Ok(Value::Text(text))
}

/// An integer within its type, or 22003.
pub fn in_range(i: i64, ty: Type) -> Result<i64, SqlError> {
    let fits = match ty {
        Type::SmallInt => i16::try_from(i).is_ok(),
        Type::Integer => i32::try_from(i).is_ok(),
        _ => true,
    };
    if fits { Ok(i) } else { Err(integer_overflow(ty)) }
}

pub fn integer_overflow(ty: Type) -> SqlError {
    SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, format!("{ty} out of range"))
}

pub fn to_real(x: f64) -> Result<f32, SqlError> {
    let real = x as f32;
    let over =
        |what| Err(SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, format!("value out of range: {what}")));
    match () {
        () if real.is_infinite() && x.is_finite() => over("overflow"),
        () if real == 0.0 && x != 0.0 => over("underflow"),
        () => Ok(real),
    }
}

fn finite(n: &[u8], x: f64, to: Type) -> Result<f64, SqlError> {
    let decimal = Decimal::from_bytes(n);
    if x.is_infinite() && matches!(decimal, Decimal::Finite(_)) {
        return Err(SqlError::new(
            SqlState::NUMERIC_OUT_OF_RANGE,
            format!("\"{decimal}\" is out of range for type {to}"),
        ));
    }
    Ok(x)
}

pub fn decimal_to_int(n: &Decimal, to: Type) -> Result<i64, SqlError> {
    let special = |what: &str| {
        Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("cannot convert {what} to {to}")))
    };
    match n {
        Decimal::NaN => special("NaN"),
        Decimal::Infinity | Decimal::NegativeInfinity => special("infinity"),
        Decimal::Finite(_) => in_range(n.to_i64().ok_or_else(|| integer_overflow(to))?, to),
    }
}

pub fn cannot_cast(from: Type, to: Type) -> SqlError {
    SqlError::new(SqlState::CANNOT_COERCE, format!("cannot cast type {from} to {to}"))
}

/// Rounds to even, as PostgreSQL does.
fn float_to_int(x: f64, to: Type) -> Result<i64, SqlError> {
    let rounded = x.round_ties_even();
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded) {
        in_range(rounded as i64, to)
    } else {
        Err(integer_overflow(to))
    }
}

/// The order of two values of one type; NULL last, as in [`Value::total_cmp`].
pub fn compare(a: ValueRef<'_>, b: ValueRef<'_>) -> Ordering {
    a.total_cmp(b)
}

/// NaN equals itself and is above every number.
pub fn compare_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}
