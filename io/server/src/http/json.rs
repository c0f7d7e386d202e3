//! SQL values as JSON, both ways.

use chronos_proto::time::Timestamp;
use chronos_proto::{Type, Value};
use chronos_sql::{RowSet, SqlError, ValueRef, text};
use std::io::Write;

/// A result as `{"columns":[…],"rows":[…],"tag":…}`.
pub(super) fn result(rows: &RowSet) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + rows.len() * 32);
    out.extend_from_slice(b"{\"columns\":[");
    for (i, column) in rows.columns.iter().enumerate() {
        separate(&mut out, i);
        out.extend_from_slice(b"{\"name\":");
        string(&mut out, &column.name);
        out.extend_from_slice(b",\"type\":");
        string(&mut out, &column.ty.to_string());
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"rows\":[");
    let mut first = true;
    for batch in &rows.batches {
        for row in 0..batch.len() {
            out.extend_from_slice(if first { b"[" } else { b",[" });
            first = false;
            for column in 0..rows.columns.len() {
                separate(&mut out, column);
                value(&mut out, batch.value(row, column));
            }
            out.push(b']');
        }
    }
    out.extend_from_slice(b"],\"tag\":");
    string(&mut out, &rows.tag);
    out.push(b'}');
    out
}

/// A tag as the result of a statement without rows.
pub(super) fn tag(tag: &str) -> Vec<u8> {
    let mut out = b"{\"columns\":[],\"rows\":[],\"tag\":".to_vec();
    string(&mut out, tag);
    out.push(b'}');
    out
}

/// A parameter, read as the type that the statement wants.
pub(super) fn parameter(json: &serde_json::Value, ty: Type) -> Result<Value, SqlError> {
    match json {
        serde_json::Value::Null => Ok(Value::Null),
        serde_json::Value::String(words) if !matches!(ty, Type::Json | Type::PlainJson) => {
            text::parse(words, ty)
        }
        other => text::parse(&other.to_string(), ty),
    }
}

fn separate(out: &mut Vec<u8>, i: usize) {
    if i > 0 {
        out.push(b',');
    }
}

/// Numbers as numbers, JSON as it is, times as ISO 8601, all else as text.
fn value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.extend_from_slice(b"null"),
        ValueRef::Bool(b) => out.extend_from_slice(if b { b"true" } else { b"false" }),
        // Writing to a Vec does not fail, here and below.
        ValueRef::Int(i) => drop(write!(out, "{i}")),
        ValueRef::Float(x) if x.is_finite() => drop(serde_json::to_writer(out, &x)),
        ValueRef::Real(x) if x.is_finite() => drop(serde_json::to_writer(out, &x)),
        ValueRef::Numeric(_) => match text::format(value) {
            // NaN and the infinities are no numbers of JSON's.
            digits if digits.ends_with(|c: char| c.is_ascii_digit()) => {
                out.extend_from_slice(digits.as_bytes())
            }
            words => string(out, &words),
        },
        ValueRef::Text(s) => string(out, s),
        ValueRef::Json(s) => out.extend_from_slice(s.as_bytes()),
        ValueRef::Timestamp(t) => string(out, &Timestamp(t).to_string()),
        other => string(out, &text::format(other)),
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    drop(serde_json::to_writer(out, text));
}
