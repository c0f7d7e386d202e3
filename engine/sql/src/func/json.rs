//! Operators and functions of JSON and JSONB.

use super::{functions, int, str, text};
use crate::error::{SqlError, SqlState};
use crate::exec::eval::EvalCx;
use crate::exec::vector::ValueRef;
use crate::json::{self, Json, from_value, object, place, read};
use crate::text::format_in;
use chronos_proto::Value;
use chronos_proto::array::Array;

functions! { TABLE:
    "->" (Json, Text) -> Json Immutable Row |a, _| Ok(opt(read(str(a[0]))?.get(str(a[1]))));
    "->" (Json, Int) -> Json Immutable Row |a, _| Ok(opt(read(str(a[0]))?.element(int(a[1]))));
    "->>" (Json, Text) -> Text Immutable Row |a, _| Ok(opt_text(read(str(a[0]))?.get(str(a[1]))));
    "->>" (Json, Int) -> Text Immutable Row |a, _| Ok(opt_text(read(str(a[0]))?.element(int(a[1]))));
    "#>" (Json, [Text]) -> Json Immutable Row |a, _| Ok(opt(at_path(&read(str(a[0]))?, &path(a[1])?)));
    "#>>" (Json, [Text]) -> Text Immutable Row |a, _| Ok(opt_text(at_path(&read(str(a[0]))?, &path(a[1])?)));
    "->" (PlainJson, Text) -> PlainJson Immutable Row |a, _| Ok(opt(read(str(a[0]))?.get(str(a[1]))));
    "->" (PlainJson, Int) -> PlainJson Immutable Row |a, _| Ok(opt(read(str(a[0]))?.element(int(a[1]))));
    "->>" (PlainJson, Text) -> Text Immutable Row |a, _| Ok(opt_text(read(str(a[0]))?.get(str(a[1]))));
    "->>" (PlainJson, Int) -> Text Immutable Row |a, _| Ok(opt_text(read(str(a[0]))?.element(int(a[1]))));
    "#>" (PlainJson, [Text]) -> PlainJson Immutable Row |a, _| Ok(opt(at_path(&read(str(a[0]))?, &path(a[1])?)));
    "#>>" (PlainJson, [Text]) -> Text Immutable Row |a, _| Ok(opt_text(at_path(&read(str(a[0]))?, &path(a[1])?)));
    "jsonb_extract_path" (Json, Text) variadic -> Json Immutable Row |a, _| Ok(opt(at_path(&read(str(a[0]))?, &words(&a[1..]))));
    "jsonb_extract_path_text" (Json, Text) variadic -> Text Immutable Row |a, _| Ok(opt_text(at_path(&read(str(a[0]))?, &words(&a[1..]))));
    "json_extract_path" (PlainJson, Text) variadic -> PlainJson Immutable Row |a, _| Ok(opt(at_path(&read(str(a[0]))?, &words(&a[1..]))));
    "json_extract_path_text" (PlainJson, Text) variadic -> Text Immutable Row |a, _| Ok(opt_text(at_path(&read(str(a[0]))?, &words(&a[1..]))));
    "?" (Json, Text) -> Bool Immutable Row |a, _| Ok(Value::Bool(has(&read(str(a[0]))?, str(a[1]))));
    "?|" (Json, [Text]) -> Bool Immutable Row |a, _| {
        let json = read(str(a[0]))?;
        Ok(Value::Bool(path(a[1])?.iter().any(|key| has(&json, key))))
    };
    "?&" (Json, [Text]) -> Bool Immutable Row |a, _| {
        let json = read(str(a[0]))?;
        Ok(Value::Bool(path(a[1])?.iter().all(|key| has(&json, key))))
    };
    "@>" (Json, Json) -> Bool Immutable Row |a, _| Ok(Value::Bool(contains(&read(str(a[0]))?, &read(str(a[1]))?)));
    "<@" (Json, Json) -> Bool Immutable Row |a, _| Ok(Value::Bool(contains(&read(str(a[1]))?, &read(str(a[0]))?)));
    "||" (Json, Json) -> Json Immutable Row |a, _| Ok(concatenated(read(str(a[0]))?, read(str(a[1]))?).value());
    "-" (Json, Text) -> Json Immutable Row |a, _| Ok(without(read(str(a[0]))?, &[str(a[1]).to_owned()])?.value());
    "-" (Json, [Text]) -> Json Immutable Row |a, _| Ok(without(read(str(a[0]))?, &path(a[1])?)?.value());
    "-" (Json, Integer) -> Json Immutable Row |a, _| match read(str(a[0]))? {
        Json::Array(mut items) => {
            if let Some(i) = place(int(a[1]), items.len()).filter(|i| *i < items.len()) {
                items.remove(i);
            }
            Ok(Json::Array(items).value())
        }
        Json::Object(_) => Err(wrong("cannot delete from object using integer index")),
        _ => Err(wrong("cannot delete from scalar")),
    };
    "#-" (Json, [Text]) -> Json Immutable Row |a, _| {
        let json = read(str(a[0]))?;
        if !matches!(json, Json::Array(_) | Json::Object(_)) {
            return Err(wrong("cannot delete path in scalar"));
        }
        Ok(delete_path(json, &path(a[1])?).value())
    };
    "jsonb_typeof" (Json) -> Text Immutable Row |a, _| text(read(str(a[0]))?.kind());
    "json_typeof" (PlainJson) -> Text Immutable Row |a, _| text(read(str(a[0]))?.kind());
    "jsonb_array_length" (Json) -> Integer Immutable Row array_length;
    "json_array_length" (PlainJson) -> Integer Immutable Row array_length;
    "jsonb_pretty" (Json) -> Text Immutable Row |a, _| text(read(str(a[0]))?.pretty());
    "jsonb_strip_nulls" (Json) -> Json Immutable Row |a, _| Ok(stripped(read(str(a[0]))?).value());
    "jsonb_set" (Json, [Text], Json) -> Json Immutable Row |a, _| set_path(a, true);
    "jsonb_set" (Json, [Text], Json, Bool) -> Json Immutable Row |a, _| set_path(a, a[3].to_value() == Value::Bool(true));
    "jsonb_insert" (Json, [Text], Json) -> Json Immutable Row |a, _| insert_path(a, false);
    "jsonb_insert" (Json, [Text], Json, Bool) -> Json Immutable Row |a, _| insert_path(a, a[3].to_value() == Value::Bool(true));
    "to_jsonb" (any) -> Json Stable Row |a, cx| Ok(from_value(a[0], cx.zone())?.value());
    "to_json" (any) -> PlainJson Stable Row |a, cx| Ok(Value::Json(plain(a[0], cx)?));
    "array_to_json" (any) -> PlainJson Stable Row |a, cx| Ok(Value::Json(plain(a[0], cx)?));
    "jsonb_build_object" () -> Json Immutable RowNulls |_, _| Ok(object(Vec::new()).value());
    "jsonb_build_object" (any) variadic -> Json Stable RowNulls |a, cx| {
        let pairs = pairs(a, cx)?.into_iter().map(|(k, v)| Ok((k, from_value(v, cx.zone())?)));
        Ok(object(pairs.collect::<Result<_, SqlError>>()?).value())
    };
    "json_build_object" () -> PlainJson Immutable RowNulls |_, _| Ok(Value::Json("{}".into()));
    "json_build_object" (any) variadic -> PlainJson Stable RowNulls |a, cx| {
        let mut out = String::from("{");
        for (i, (key, value)) in pairs(a, cx)?.into_iter().enumerate() {
            out.push_str(if i == 0 { "" } else { ", " });
            json::write_string(&mut out, &key);
            out.push_str(" : ");
            out.push_str(&plain(value, cx)?);
        }
        out.push('}');
        Ok(Value::Json(out))
    };
    "jsonb_build_array" () -> Json Immutable RowNulls |_, _| Ok(Json::Array(Vec::new()).value());
    "jsonb_build_array" (any) variadic -> Json Stable RowNulls |a, cx| {
        let items = a.iter().map(|v| from_value(*v, cx.zone()));
        Ok(Json::Array(items.collect::<Result<_, _>>()?).value())
    };
    "json_build_array" () -> PlainJson Immutable RowNulls |_, _| Ok(Value::Json("[]".into()));
    "json_build_array" (any) variadic -> PlainJson Stable RowNulls |a, cx| {
        let items = a.iter().map(|v| plain(*v, cx));
        Ok(Value::Json(format!("[{}]", items.collect::<Result<Vec<_>, _>>()?.join(", "))))
    };
}

fn wrong(message: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER, message)
}

fn opt(found: Option<&Json>) -> Value {
    found.map_or(Value::Null, Json::value)
}

fn opt_text(found: Option<&Json>) -> Value {
    found.map_or(Value::Null, Json::text)
}

/// The words of a text array; NULL among them finds nothing.
fn path(v: ValueRef<'_>) -> Result<Vec<String>, SqlError> {
    let ValueRef::Array(bytes) = v else { return Ok(Vec::new()) };
    Ok(words(&Array::decode(bytes).ok_or_else(crate::array::damaged)?.values))
}

fn words(values: &[ValueRef<'_>]) -> Vec<String> {
    values.iter().map(|v| str(*v).to_owned()).collect()
}

fn at_path<'j>(json: &'j Json, path: &[String]) -> Option<&'j Json> {
    path.iter().try_fold(json, |at, step| match at {
        Json::Object(_) => at.get(step),
        Json::Array(_) => at.element(step.trim().parse().ok()?),
        _ => None,
    })
}

fn has(json: &Json, key: &str) -> bool {
    match json {
        Json::Object(_) => json.get(key).is_some(),
        Json::Array(items) => items.iter().any(|j| matches!(j, Json::String(s) if s == key)),
        Json::String(s) => s == key,
        _ => false,
    }
}

/// At the top, an array has its scalars too; but nothing else is a part of what it is not.
fn contains(outer: &Json, inner: &Json) -> bool {
    outer.contains(inner)
}

fn concatenated(a: Json, b: Json) -> Json {
    match (a, b) {
        (Json::Object(mut a), Json::Object(b)) => {
            a.extend(b);
            object(a)
        }
        (Json::Array(mut a), Json::Array(b)) => {
            a.extend(b);
            Json::Array(a)
        }
        (Json::Array(mut a), b) => {
            a.push(b);
            Json::Array(a)
        }
        (a, Json::Array(mut b)) => {
            b.insert(0, a);
            Json::Array(b)
        }
        (a, b) => Json::Array(vec![a, b]),
    }
}

fn without(json: Json, keys: &[String]) -> Result<Json, SqlError> {
    Ok(match json {
        Json::Object(pairs) => Json::Object(pairs.into_iter().filter(|(k, _)| !keys.contains(k)).collect()),
        Json::Array(items) => Json::Array(
            items.into_iter().filter(|j| !matches!(j, Json::String(s) if keys.contains(s))).collect(),
        ),
        _ => return Err(wrong("cannot delete from scalar")),
    })
}

fn delete_path(json: Json, path: &[String]) -> Json {
    let Some((step, rest)) = path.split_first() else { return json };
    match json {
        Json::Object(mut pairs) => {
            if rest.is_empty() {
                pairs.retain(|(k, _)| k != step);
            } else {
                let into =
                    |(k, v): (String, Json)| if k == *step { (k, delete_path(v, rest)) } else { (k, v) };
                pairs = pairs.into_iter().map(into).collect();
            }
            Json::Object(pairs)
        }
        Json::Array(mut items) => {
            let at =
                step.trim().parse().ok().and_then(|i| place(i, items.len())).filter(|i| *i < items.len());
            if let Some(i) = at {
                let item = items.remove(i);
                if !rest.is_empty() {
                    items.insert(i, delete_path(item, rest));
                }
            }
            Json::Array(items)
        }
        scalar => scalar,
    }
}

/// What is done at the end of a path.
#[derive(Clone, Copy, PartialEq)]
enum Change {
    Set { create: bool },
    Insert { after: bool },
}

fn set_path(a: &[ValueRef<'_>], create: bool) -> Result<Value, SqlError> {
    change_path(a, Change::Set { create })
}

fn insert_path(a: &[ValueRef<'_>], after: bool) -> Result<Value, SqlError> {
    change_path(a, Change::Insert { after })
}

fn change_path(a: &[ValueRef<'_>], change: Change) -> Result<Value, SqlError> {
    let json = read(str(a[0]))?;
    if !matches!(json, Json::Array(_) | Json::Object(_)) {
        return Err(wrong("cannot set path in scalar"));
    }
    Ok(changed(json, &path(a[1])?, &read(str(a[2]))?, change, 1)?.value())
}

fn changed(json: Json, path: &[String], new: &Json, change: Change, depth: usize) -> Result<Json, SqlError> {
    let Some((step, rest)) = path.split_first() else { return Ok(json) };
    let last = rest.is_empty();
    Ok(match json {
        Json::Object(mut pairs) => {
            match (pairs.iter().position(|(k, _)| k == step), change) {
                (Some(_), Change::Insert { .. }) if last => {
                    return Err(wrong("cannot replace existing key"));
                }
                (Some(i), _) if last => pairs[i].1 = new.clone(),
                (Some(i), _) => {
                    let inner = std::mem::replace(&mut pairs[i].1, Json::Null);
                    pairs[i].1 = changed(inner, rest, new, change, depth + 1)?;
                }
                (None, Change::Set { create: false }) => {}
                (None, _) if last => pairs.push((step.clone(), new.clone())),
                (None, _) => {}
            }
            object(pairs)
        }
        Json::Array(mut items) => {
            let index: i64 = step.trim().parse().map_err(|_| {
                SqlError::new(
                    SqlState::INVALID_TEXT,
                    format!("path element at position {depth} is not an integer: \"{step}\""),
                )
            })?;
            let at = place(index, items.len());
            match (at.filter(|i| *i < items.len()), change) {
                (Some(i), Change::Insert { after }) if last => {
                    items.insert(i + usize::from(after), new.clone())
                }
                (Some(i), _) if last => items[i] = new.clone(),
                (Some(i), _) => {
                    let inner = std::mem::replace(&mut items[i], Json::Null);
                    items[i] = changed(inner, rest, new, change, depth + 1)?;
                }
                (None, Change::Set { create: false }) => {}
                (None, _) if last && index < 0 => items.insert(0, new.clone()),
                (None, _) if last => items.push(new.clone()),
                (None, _) => {}
            }
            Json::Array(items)
        }
        scalar => scalar,
    })
}

fn stripped(json: Json) -> Json {
    match json {
        Json::Object(pairs) => Json::Object(
            pairs.into_iter().filter(|(_, v)| *v != Json::Null).map(|(k, v)| (k, stripped(v))).collect(),
        ),
        Json::Array(items) => Json::Array(items.into_iter().map(stripped).collect()),
        scalar => scalar,
    }
}

fn array_length(a: &[ValueRef<'_>], _: &EvalCx<'_>) -> Result<Value, SqlError> {
    match read(str(a[0]))? {
        Json::Array(items) => Ok(Value::Int(items.len() as i64)),
        Json::Object(_) => Err(wrong("cannot get array length of a non-array")),
        _ => Err(wrong("cannot get array length of a scalar")),
    }
}

fn pairs<'v>(a: &[ValueRef<'v>], cx: &EvalCx<'_>) -> Result<Vec<(String, ValueRef<'v>)>, SqlError> {
    if !a.len().is_multiple_of(2) {
        return Err(wrong("argument list must have even number of elements"));
    }
    let pair = |(i, pair): (usize, &[ValueRef<'v>])| {
        if pair[0].is_null() {
            return Err(wrong(&format!("argument {}: key must not be null", 2 * i + 1)));
        }
        Ok((format_in(pair[0], cx.zone()), pair[1]))
    };
    a.chunks(2).enumerate().map(pair).collect()
}

/// A value as JSON's text: without spaces in an array, and JSON as it was written.
pub(crate) fn plain(v: ValueRef<'_>, cx: &EvalCx<'_>) -> Result<String, SqlError> {
    Ok(match v {
        ValueRef::Json(s) => s.to_owned(),
        ValueRef::Array(a) => {
            let array = crate::array::read(a)?;
            let items = array.values.iter().map(|v| plain(*v, cx)).collect::<Result<Vec<_>, _>>()?;
            format!("[{}]", items.join(","))
        }
        other => from_value(other, cx.zone())?.to_string(),
    })
}
