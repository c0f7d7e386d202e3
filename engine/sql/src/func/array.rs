//! Functions of arrays whose result is of one type whatever their elements are; the others are the binder's.

use super::{functions, int, str, text};
use crate::array::{flat, read};
use crate::error::{SqlError, SqlState};
use crate::exec::eval::EvalCx;
use crate::exec::vector::ValueRef;
use crate::text::format_in;
use crate::types;
use chronos_proto::Value;
use chronos_proto::array::Array;
use chronos_proto::value::Element;

functions! { TABLE:
    "array_length" (any, Integer) -> Integer Immutable Row |a, _| dimension(a, |length| length);
    "array_upper" (any, Integer) -> Integer Immutable Row |a, _| dimension(a, |length| length);
    "array_lower" (any, Integer) -> Integer Immutable Row |a, _| dimension(a, |_| 1);
    "array_ndims" (any) -> Integer Immutable Row |a, _| Ok(match read(bytes(a[0])?)?.dimensions.len() {
        0 => Value::Null,
        n => Value::Int(n as i64),
    });
    "array_dims" (any) -> Text Immutable Row |a, _| {
        let array = read(bytes(a[0])?)?;
        let dims: String = array.dimensions.iter().map(|d| format!("[1:{d}]")).collect();
        if dims.is_empty() { Ok(Value::Null) } else { text(dims) }
    };
    "cardinality" (any) -> Integer Immutable Row |a, _| Ok(Value::Int(read(bytes(a[0])?)?.values.len() as i64));
    "array_position" (any, any) -> Integer Immutable RowNulls |a, _| {
        if a[0].is_null() {
            return Ok(Value::Null);
        }
        let array = read(bytes(a[0])?)?;
        let at = array.values.iter().position(|v| types::compare(*v, a[1]).is_eq());
        Ok(at.map_or(Value::Null, |i| Value::Int(i as i64 + 1)))
    };
    "array_to_string" (any, Text) -> Text Stable Row |a, cx| joined(a, None, cx);
    "array_to_string" (any, Text, Text) -> Text Stable RowNulls |a, cx| {
        if a[0].is_null() || a[1].is_null() {
            return Ok(Value::Null);
        }
        joined(a, (!a[2].is_null()).then(|| str(a[2])), cx)
    };
    "string_to_array" (Text, Text) -> [Text] Immutable RowNulls |a, _| split(a, None);
    "string_to_array" (Text, Text, Text) -> [Text] Immutable RowNulls |a, _| split(a, (!a[2].is_null()).then(|| str(a[2])));
    "array contains" (any, any) -> Bool Immutable Row |a, _| within(a[1], a[0]);
    "array within" (any, any) -> Bool Immutable Row |a, _| within(a[0], a[1]);
    "array overlaps" (any, any) -> Bool Immutable Row |a, _| {
        let (x, y) = (read(bytes(a[0])?)?, read(bytes(a[1])?)?);
        Ok(Value::Bool(x.values.iter().any(|v| !v.is_null() && has(&y, *v))))
    };
    "array_append" (any, any) -> [Text] Immutable RowNulls |a, _| grown(a[0], a[1], true);
    "array_prepend" (any, any) -> [Text] Immutable RowNulls |a, _| grown(a[1], a[0], false);
    "array_cat" (any, any) -> [Text] Immutable RowNulls |a, _| concatenated(a[0], a[1]);
    "array_remove" (any, any) -> [Text] Immutable RowNulls |a, _| replaced(a, |v| {
        if types::compare(v, a[1]).is_eq() { None } else { Some(v) }
    });
    "array_replace" (any, any, any) -> [Text] Immutable RowNulls |a, _| replaced(a, |v| {
        Some(if types::compare(v, a[1]).is_eq() { a[2] } else { v })
    });
    "array element" (any, Integer) variadic -> Text Immutable Row |a, _| {
        let array = read(bytes(a[0])?)?;
        if array.dimensions.len() != a.len() - 1 {
            return Ok(Value::Null);
        }
        let place = array.dimensions.iter().zip(&a[1..]).try_fold(0, |place, (length, index)| {
            let i = usize::try_from(int(*index)).ok()?.checked_sub(1)?;
            (i < *length).then_some(place * length + i)
        });
        Ok(place.and_then(|i| array.values.get(i)).map_or(Value::Null, |v| v.to_value()))
    };
    "array_positions" (any, any) -> [Integer] Immutable RowNulls |a, _| {
        if a[0].is_null() {
            return Ok(Value::Null);
        }
        let array = read(bytes(a[0])?)?;
        let places = array.values.iter().zip(1..).filter(|(v, _)| types::compare(**v, a[1]).is_eq());
        Ok(flat(Element::INTEGER, &places.map(|(_, i)| Value::Int(i)).collect::<Vec<_>>()))
    };
    "trim_array" (any, Integer) -> [Text] Immutable Row |a, _| {
        let array = read(bytes(a[0])?)?;
        let kept = usize::try_from(int(a[1])).ok().and_then(|n| array.values.len().checked_sub(n));
        let kept = kept.filter(|_| array.dimensions.len() < 2).ok_or_else(|| {
            let message = format!("number of elements to trim must be between 0 and {}", array.values.len());
            SqlError::new(SqlState::ARRAY_SUBSCRIPT, message)
        })?;
        Ok(Value::Array(Array::flat(array.element, array.values[..kept].to_vec()).encode()))
    };
    "array slice" (any, Integer, Integer) -> [Text] Immutable Row |a, _| {
        let array = read(bytes(a[0])?)?;
        let place = |i: i64| usize::try_from(i).unwrap_or(0);
        let (from, to) = (place(int(a[1]).max(1) - 1), place(int(a[2])).min(array.values.len()));
        let kept = if from < to { array.values[from..to].to_vec() } else { Vec::new() };
        Ok(Value::Array(Array::flat(array.element, kept).encode()))
    };
}

fn bytes(v: ValueRef<'_>) -> Result<&[u8], SqlError> {
    match v {
        ValueRef::Array(bytes) => Ok(bytes),
        _ => Err(SqlError::new(SqlState::DATATYPE_MISMATCH, "an array is wanted")),
    }
}

fn dimension(a: &[ValueRef<'_>], f: impl Fn(i64) -> i64) -> Result<Value, SqlError> {
    let array = read(bytes(a[0])?)?;
    let at = usize::try_from(int(a[1])).ok().and_then(|d| d.checked_sub(1));
    Ok(at.and_then(|d| array.dimensions.get(d)).map_or(Value::Null, |length| Value::Int(f(*length as i64))))
}

fn joined(a: &[ValueRef<'_>], null: Option<&str>, cx: &EvalCx<'_>) -> Result<Value, SqlError> {
    let array = read(bytes(a[0])?)?;
    let shown = array.values.iter().filter_map(|v| match v {
        ValueRef::Null => null.map(str::to_owned),
        v => Some(format_in(*v, cx.zone())),
    });
    text(shown.collect::<Vec<_>>().join(str(a[1])))
}

fn split(a: &[ValueRef<'_>], null: Option<&str>) -> Result<Value, SqlError> {
    if a[0].is_null() {
        return Ok(Value::Null);
    }
    let whole = str(a[0]);
    let parts: Vec<String> = match a[1] {
        _ if whole.is_empty() => Vec::new(),
        ValueRef::Null => whole.chars().map(String::from).collect(),
        separator if str(separator).is_empty() => vec![whole.to_owned()],
        separator => whole.split(str(separator)).map(str::to_owned).collect(),
    };
    let value = |s: String| if null == Some(s.as_str()) { Value::Null } else { Value::Text(s) };
    Ok(flat(Element::TEXT, &parts.into_iter().map(value).collect::<Vec<_>>()))
}

fn has(array: &Array<'_>, value: ValueRef<'_>) -> bool {
    array.values.iter().any(|v| types::compare(*v, value).is_eq())
}

fn within(inner: ValueRef<'_>, outer: ValueRef<'_>) -> Result<Value, SqlError> {
    let (inner, outer) = (read(bytes(inner)?)?, read(bytes(outer)?)?);
    Ok(Value::Bool(inner.values.iter().all(|v| !v.is_null() && has(&outer, *v))))
}

/// An array with one more element at its end or its beginning.
fn grown(array: ValueRef<'_>, value: ValueRef<'_>, behind: bool) -> Result<Value, SqlError> {
    let (element, mut values) = match array {
        ValueRef::Array(bytes) => {
            let array = read(bytes)?;
            if array.dimensions.len() > 1 {
                return Err(SqlError::new(
                    SqlState(*b"22000"),
                    "argument must be empty or one-dimensional array",
                ));
            }
            (array.element, array.values)
        }
        _ => (value.to_value().ty().and_then(Element::of).unwrap_or(Element::TEXT), Vec::new()),
    };
    values.insert(if behind { values.len() } else { 0 }, value);
    Ok(Value::Array(Array::flat(element, values).encode()))
}

fn concatenated(a: ValueRef<'_>, b: ValueRef<'_>) -> Result<Value, SqlError> {
    let (ValueRef::Array(x), ValueRef::Array(y)) = (a, b) else {
        return Ok(if a.is_null() { b.to_value() } else { a.to_value() });
    };
    let (mut x, y) = (read(x)?, read(y)?);
    if x.dimensions.is_empty() {
        return Ok(b.to_value());
    }
    if !y.dimensions.is_empty() {
        // One may be an element of the other.
        if x.dimensions[1..] == y.dimensions[1..] {
            x.dimensions[0] += y.dimensions[0];
        } else if x.dimensions[1..] == y.dimensions[..] {
            x.dimensions[0] += 1;
        } else if x.dimensions[..] == y.dimensions[1..] {
            x.dimensions = y.dimensions.clone();
            x.dimensions[0] += 1;
        } else {
            return Err(SqlError::new(SqlState::ARRAY_SUBSCRIPT, "cannot concatenate incompatible arrays"));
        }
        x.values.extend(y.values);
    }
    Ok(Value::Array(x.encode()))
}

fn replaced<'v>(
    a: &[ValueRef<'v>],
    f: impl Fn(ValueRef<'v>) -> Option<ValueRef<'v>>,
) -> Result<Value, SqlError> {
    let ValueRef::Array(bytes) = a[0] else { return Ok(Value::Null) };
    let array = read(bytes)?;
    let values: Vec<ValueRef<'v>> = array.values.iter().filter_map(|v| f(*v)).collect();
    Ok(Value::Array(Array::flat(array.element, values).encode()))
}
