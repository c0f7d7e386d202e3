//! SQL values as protobuf, both ways.

use super::api::{self, value::Kind};
use bytes::Bytes;
use chronos_proto::value::Interval;
use chronos_proto::{Type, Value};
use chronos_sql::{SqlError, SqlState, ValueRef, text};

/// A value of a result.
pub(super) fn encode(value: ValueRef<'_>) -> api::Value {
    let kind = match value {
        ValueRef::Null => None,
        ValueRef::Bool(b) => Some(Kind::Bool(b)),
        ValueRef::Int(i) => Some(Kind::Int(i)),
        ValueRef::Float(x) => Some(Kind::Float(x)),
        ValueRef::Text(s) => Some(Kind::Text(s.to_owned())),
        ValueRef::Bytes(b) => Some(Kind::Bytes(Bytes::copy_from_slice(b))),
        ValueRef::Timestamp(t) => Some(Kind::TimestampMicros(t)),
        ValueRef::Date(d) => Some(Kind::DateDays(d)),
        ValueRef::Interval(Interval { months, days, micros }) => {
            Some(Kind::Interval(api::Interval { months, days, micros }))
        }
        ValueRef::Real(x) => Some(Kind::Float(x.into())),
        // As PostgreSQL writes them, so that nothing is lost.
        ValueRef::Numeric(_) | ValueRef::LocalTimestamp(_) | ValueRef::Time(_) | ValueRef::Array(_) => {
            Some(Kind::Text(text::format(value)))
        }
        ValueRef::Json(s) => Some(Kind::Json(s.to_owned())),
        ValueRef::Uuid(u) => Some(Kind::Uuid(Bytes::copy_from_slice(u))),
    };
    api::Value { kind }
}

/// Parameter `number` (from 1), as the type that the statement wants.
pub(super) fn decode(number: usize, value: api::Value, ty: Type) -> Result<Value, SqlError> {
    let wrong = || {
        let message = format!("parameter ${number} cannot be taken as {ty}");
        SqlError::new(SqlState::DATATYPE_MISMATCH, message)
    };
    let Some(kind) = value.kind else { return Ok(Value::Null) };
    Ok(match (kind, ty) {
        (Kind::Bool(b), Type::Bool) => Value::Bool(b),
        (Kind::Int(i), Type::Int) => Value::Int(i),
        (Kind::Int(i), ty @ (Type::SmallInt | Type::Integer | Type::Numeric)) => {
            text::parse(&i.to_string(), ty)?
        }
        (Kind::Int(i), Type::Float) => Value::Float(i as f64),
        (Kind::Float(x), Type::Float) => Value::Float(x),
        (Kind::Float(x), ty @ (Type::Real | Type::Numeric)) => text::parse(&x.to_string(), ty)?,
        (Kind::TimestampMicros(t), Type::LocalTimestamp) => Value::LocalTimestamp(t),
        (Kind::Text(s), ty) | (Kind::Json(s), ty @ (Type::Json | Type::PlainJson)) => text::parse(&s, ty)?,
        (Kind::Bytes(b), Type::Bytes) => Value::Bytes(b),
        (Kind::TimestampMicros(t), Type::Timestamp) => Value::Timestamp(t),
        (Kind::DateDays(d), Type::Date) => Value::Date(d),
        (Kind::Interval(i), Type::Interval) => {
            Value::Interval(Interval { months: i.months, days: i.days, micros: i.micros })
        }
        (Kind::Uuid(u), Type::Uuid) => Value::Uuid(u.as_ref().try_into().map_err(|_| wrong())?),
        _ => return Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back() {
        let values = [
            Value::Null,
            Value::Int(-3),
            Value::Float(0.5),
            Value::Bytes(Bytes::from_static(b"\0x")),
            Value::Timestamp(5),
            Value::Date(6),
            Value::Interval(Interval { months: 1, days: 2, micros: 3 }),
            Value::Uuid([9; 16]),
        ];
        for value in values {
            let ty = value.ty().unwrap_or(Type::Int);
            assert_eq!(decode(1, encode(ValueRef::from(&value)), ty).unwrap(), value);
        }
        let five = api::Value { kind: Some(Kind::Int(5)) };
        assert_eq!(decode(1, five.clone(), Type::Float).unwrap(), Value::Float(5.0));
        assert!(decode(1, five, Type::Text).is_err());
    }
}
