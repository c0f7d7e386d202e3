//! JSONB operators and functions, the ones that a first query needs.

use super::{functions, int, str, text};
use crate::error::{SqlError, SqlState};
use crate::exec::vector::ValueRef;
use crate::text::{format, write_json};
use chronos_proto::Value;
use serde_json::Value as Json;

functions! { TABLE:
    "->" (Json, Text) -> Json Immutable Row |a, _| Ok(wrap(read(a[0])?.get(str(a[1])), false));
    "->" (Json, Int) -> Json Immutable Row |a, _| Ok(wrap(element(&read(a[0])?, int(a[1])), false));
    "->>" (Json, Text) -> Text Immutable Row |a, _| Ok(wrap(read(a[0])?.get(str(a[1])), true));
    "->>" (Json, Int) -> Text Immutable Row |a, _| Ok(wrap(element(&read(a[0])?, int(a[1])), true));
    "?" (Json, Text) -> Bool Immutable Row |a, _| {
        let json = read(a[0])?;
        let item = |j: &Json| j.as_str() == Some(str(a[1]));
        Ok(Value::Bool(json.get(str(a[1])).is_some() || json.as_array().is_some_and(|v| v.iter().any(item))))
    };
    "@>" (Json, Json) -> Bool Immutable Row |a, _| Ok(Value::Bool(contains(&read(a[0])?, &read(a[1])?)));
    "<@" (Json, Json) -> Bool Immutable Row |a, _| Ok(Value::Bool(contains(&read(a[1])?, &read(a[0])?)));
    "jsonb_typeof" (Json) -> Text Immutable Row |a, _| text(match read(a[0])? {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    });
    "jsonb_array_length" (Json) -> Int Immutable Row |a, _| match read(a[0])? {
        Json::Array(items) => Ok(Value::Int(items.len() as i64)),
        _ => Err(SqlError::new(SqlState::INVALID_PARAMETER, "cannot get array length of a non-array")),
    };
    "to_jsonb" (any) -> Json Immutable Row |a, _| Ok(shown(&to_json(a[0])?));
    "to_json" (any) -> Json Immutable Row |a, _| Ok(shown(&to_json(a[0])?));
    "jsonb_build_object" () -> Json Immutable RowNulls |_, _| Ok(shown(&Json::Object(Default::default())));
    "jsonb_build_object" (any) variadic -> Json Immutable RowNulls build_object;
    "json_build_object" (any) variadic -> Json Immutable RowNulls build_object;
    "jsonb_build_array" (any) variadic -> Json Immutable RowNulls |a, _| {
        Ok(shown(&Json::Array(a.iter().map(|v| to_json(*v)).collect::<Result<_, _>>()?)))
    };
}

fn read(v: ValueRef<'_>) -> Result<Json, SqlError> {
    serde_json::from_str(str(v))
        .map_err(|e| SqlError::new(SqlState::DATA_CORRUPTED, format!("stored JSON does not read: {e}")))
}

fn element(json: &Json, i: i64) -> Option<&Json> {
    let items = json.as_array()?;
    let at = if i < 0 { i + items.len() as i64 } else { i };
    items.get(usize::try_from(at).ok()?)
}

fn wrap(found: Option<&Json>, as_text: bool) -> Value {
    match found {
        None => Value::Null,
        Some(Json::Null) if as_text => Value::Null,
        Some(Json::String(s)) if as_text => Value::Text(s.clone()),
        Some(json) if as_text => match shown(json) {
            Value::Json(s) => Value::Text(s),
            other => other,
        },
        Some(json) => shown(json),
    }
}

fn shown(json: &Json) -> Value {
    let mut out = String::new();
    write_json(json, &mut out);
    Value::Json(out)
}

fn contains(outer: &Json, inner: &Json) -> bool {
    match (outer, inner) {
        (Json::Object(a), Json::Object(b)) => {
            b.iter().all(|(k, v)| a.get(k).is_some_and(|found| contains(found, v)))
        }
        (Json::Array(a), Json::Array(b)) => b.iter().all(|v| a.iter().any(|found| contains(found, v))),
        (Json::Array(a), scalar) => !scalar.is_object() && a.contains(scalar),
        (a, b) => a == b,
    }
}

fn to_json(v: ValueRef<'_>) -> Result<Json, SqlError> {
    Ok(match v {
        ValueRef::Null => Json::Null,
        ValueRef::Bool(b) => Json::Bool(b),
        ValueRef::Int(i) => Json::from(i),
        ValueRef::Float(x) => {
            serde_json::Number::from_f64(x).map_or_else(|| Json::String(format(v)), Json::Number)
        }
        ValueRef::Json(_) => read(v)?,
        other => Json::String(format(other)),
    })
}

fn build_object(a: &[ValueRef<'_>], _: &crate::exec::eval::EvalCx<'_>) -> Result<Value, SqlError> {
    if !a.len().is_multiple_of(2) {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER,
            "argument list must have even number of elements",
        ));
    }
    let mut map = serde_json::Map::new();
    for pair in a.chunks(2) {
        if pair[0].is_null() {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER,
                "argument of object key must not be null",
            ));
        }
        map.insert(format(pair[0]), to_json(pair[1])?);
    }
    Ok(shown(&Json::Object(map)))
}
