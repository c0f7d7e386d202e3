//! Which type becomes which, when: PostgreSQL's implicit, assignment and explicit casts, and how values compare.

use crate::error::{SqlError, SqlState};
use crate::exec::vector::ValueRef;
use crate::{text, time};
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

/// Whether a cast between two different types exists in a context.
pub fn castable(from: Type, to: Type, context: CastContext) -> bool {
    use Type::*;
    let needs = match (from, to) {
        (a, b) if a == b => CastContext::Implicit,
        (Int, Float) | (Date, Timestamp) => CastContext::Implicit,
        (Float, Int) | (Timestamp, Date) | (_, Text) => CastContext::Assignment,
        (Int, Bool) | (Bool, Int) => CastContext::Explicit,
        (Text, _) => CastContext::Explicit,
        (Json, Bool | Int | Float) => CastContext::Explicit,
        _ => return false,
    };
    context >= needs
}

/// The one type for several: NULLs and unknown literals aside.
pub fn common(a: Type, b: Type) -> Option<Type> {
    if castable(a, b, CastContext::Implicit) {
        Some(b)
    } else if castable(b, a, CastContext::Implicit) {
        Some(a)
    } else {
        None
    }
}

/// Whether operators prefer this type among candidates of its kind.
pub fn is_preferred(ty: Type) -> bool {
    matches!(ty, Type::Float | Type::Timestamp | Type::Text | Type::Bool | Type::Interval)
}

/// Casts a value that is not NULL.
pub fn cast(value: ValueRef<'_>, to: Type) -> Result<Value, SqlError> {
    use ValueRef as V;
    Ok(match (value, to) {
        (V::Null, _) => Value::Null,
        (V::Int(i), Type::Float) => Value::Float(i as f64),
        (V::Float(x), Type::Int) => Value::Int(float_to_int(x)?),
        (V::Int(i), Type::Bool) => Value::Bool(i != 0),
        (V::Bool(b), Type::Int) => Value::Int(i64::from(b)),
        (V::Bool(b), Type::Text) => Value::Text(if b { "true" } else { "false" }.into()),
        (V::Date(d), Type::Timestamp) => Value::Timestamp(time::timestamp(i64::from(d), 0)?),
        (V::Timestamp(t), Type::Date) => Value::Date(time::date(t.div_euclid(time::DAY))?),
        (V::Text(s), to) => text::parse(s, to)?,
        (V::Json(s), Type::Bool | Type::Int | Type::Float) => cast_json(s, to)?,
        (v, Type::Text) => Value::Text(text::format(v)),
        (v, to) if v.to_value().ty() == Some(to) => v.to_value(),
        (v, to) => {
            let from = v.to_value().ty().unwrap_or(Type::Text);
            return Err(cannot_cast(from, to));
        }
    })
}

pub fn cannot_cast(from: Type, to: Type) -> SqlError {
    SqlError::new(SqlState::CANNOT_COERCE, format!("cannot cast type {from} to {to}"))
}

/// Rounds to even, as PostgreSQL does.
fn float_to_int(x: f64) -> Result<i64, SqlError> {
    let rounded = x.round_ties_even();
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded) {
        Ok(rounded as i64)
    } else {
        Err(SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "bigint out of range"))
    }
}

fn cast_json(json: &str, to: Type) -> Result<Value, SqlError> {
    let parsed: serde_json::Value = serde_json::from_str(json)
        .map_err(|e| SqlError::new(SqlState::DATA_CORRUPTED, format!("stored JSON does not read: {e}")))?;
    let kind = match &parsed {
        serde_json::Value::Null => return Ok(Value::Null),
        serde_json::Value::Bool(b) if to == Type::Bool => return Ok(Value::Bool(*b)),
        serde_json::Value::Number(n) if to == Type::Float => {
            return Ok(Value::Float(n.as_f64().unwrap_or(f64::NAN)));
        }
        serde_json::Value::Number(n) if to == Type::Int => {
            return match n.as_i64() {
                Some(i) => Ok(Value::Int(i)),
                None => Ok(Value::Int(float_to_int(n.as_f64().unwrap_or(f64::NAN))?)),
            };
        }
        serde_json::Value::Bool(_) => "boolean",
        serde_json::Value::Number(_) => "numeric",
        serde_json::Value::String(_) => "string",
        serde_json::Value::Array(_) => "array",
        serde_json::Value::Object(_) => "object",
    };
    Err(SqlError::new(SqlState::INVALID_PARAMETER, format!("cannot cast jsonb {kind} to type {to}")))
}

/// The order of two values of one type; NULL last, as in [`Value::total_cmp`].
pub fn compare(a: ValueRef<'_>, b: ValueRef<'_>) -> Ordering {
    use ValueRef as V;
    match (a, b) {
        (V::Null, V::Null) => Ordering::Equal,
        (V::Null, _) => Ordering::Greater,
        (_, V::Null) => Ordering::Less,
        (V::Bool(a), V::Bool(b)) => a.cmp(&b),
        (V::Int(a), V::Int(b)) | (V::Timestamp(a), V::Timestamp(b)) => a.cmp(&b),
        (V::Float(a), V::Float(b)) => compare_floats(a, b),
        (V::Text(a), V::Text(b)) | (V::Json(a), V::Json(b)) => a.cmp(b),
        (V::Bytes(a), V::Bytes(b)) => a.cmp(b),
        (V::Date(a), V::Date(b)) => a.cmp(&b),
        (V::Interval(a), V::Interval(b)) => a.estimate().cmp(&b.estimate()),
        (V::Uuid(a), V::Uuid(b)) => a.cmp(b),
        (a, b) => a.to_value().total_cmp(&b.to_value()),
    }
}

/// NaN equals itself and is above every number.
pub fn compare_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}
