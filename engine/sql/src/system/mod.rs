//! Relations that are not tables: topics, timers, and the catalogue as tables of itself.

pub(crate) mod catalog;
mod more;
mod schedules;
mod topics;

use crate::error::SqlError;
use crate::exec::eval::EvalCx;
use crate::exec::run::ExecCx;
use chronos_engine::Catalog;
use chronos_engine::state::records::{PositionedEvent, TimerRecord};
use chronos_proto::{Event, Type, Value};

/// A relation of the catalogue: its rows are made from the catalogue when it is read.
pub(crate) struct SystemTable {
    pub schema: &'static str,
    pub name: &'static str,
    pub columns: &'static [(&'static str, Type)],
    pub rows: fn(&Catalog, &EvalCx<'_>) -> Vec<Vec<Value>>,
}

impl std::fmt::Debug for SystemTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// A relation of the schema `chronos`: its rows are made from the state when it is read.
pub(crate) struct StateTable {
    pub name: &'static str,
    pub columns: &'static [(&'static str, Type)],
    /// It says what it reads.
    pub rows: fn(&ExecCx<'_>) -> Result<Vec<Vec<Value>>, SqlError>,
}

impl std::fmt::Debug for StateTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "chronos.{}", self.name)
    }
}

/// The relations of the schema `chronos` beside its timers.
pub(crate) fn state_tables() -> impl Iterator<Item = &'static StateTable> {
    schedules::TABLES.iter().chain(topics::TABLES)
}

/// A system relation by name; without a schema, `pg_catalog` is searched, as PostgreSQL does.
pub(crate) fn find(schema: Option<&str>, name: &str) -> Option<&'static SystemTable> {
    tables().find(|t| t.name == name && t.schema == schema.unwrap_or("pg_catalog"))
}

fn tables() -> impl Iterator<Item = &'static SystemTable> {
    catalog::TABLES.iter().chain(more::TABLES)
}

/// The columns of a topic.
pub(crate) fn topic_columns(payload: Type) -> [(&'static str, Type); 9] {
    [
        ("partition", Type::Int),
        ("offset", Type::Int),
        ("message_id", Type::Text),
        ("key", Type::Text),
        ("headers", Type::Json),
        ("payload", payload),
        ("published_at", Type::Timestamp),
        ("deliver_at", Type::Timestamp),
        ("fired_at", Type::Timestamp),
    ]
}

/// The columns of `chronos.timers`.
pub(crate) const TIMER_COLUMNS: [(&str, Type); 8] = [
    ("topic", Type::Text),
    ("timer_id", Type::Text),
    ("key", Type::Text),
    ("headers", Type::Json),
    ("payload", Type::Bytes),
    ("deliver_at", Type::Timestamp),
    ("version", Type::Int),
    ("schedule", Type::Text),
];

fn text(value: Option<String>) -> Value {
    value.map_or(Value::Null, Value::Text)
}

fn json(value: Option<String>) -> Value {
    value.map_or(Value::Null, Value::Json)
}

/// The payload as its column's type. Bytes published otherwise that are not text show what is readable of them.
fn payload(bytes: bytes::Bytes, ty: Type) -> Value {
    match ty {
        Type::Text => Value::Text(String::from_utf8_lossy(&bytes).into_owned()),
        Type::Json => match std::str::from_utf8(&bytes).ok().and_then(|s| crate::json::canonical(s).ok()) {
            Some(json) => Value::Json(json),
            None => Value::Json(
                serde_json::Value::String(String::from_utf8_lossy(&bytes).into_owned()).to_string(),
            ),
        },
        _ => Value::Bytes(bytes),
    }
}

pub(crate) fn event_row(e: PositionedEvent, ty: Type) -> Vec<Value> {
    let time = |t: Option<chronos_proto::Timestamp>| t.map_or(Value::Null, |t| Value::Timestamp(t.0));
    let Event { message_id, key, headers, payload: bytes } = e.stored.event;
    vec![
        Value::Int(i64::from(e.partition)),
        Value::Int(i64::try_from(e.offset).unwrap_or(i64::MAX)),
        Value::Text(message_id),
        text(key),
        json(headers),
        payload(bytes, ty),
        Value::Timestamp(e.stored.published_at.0),
        time(e.stored.deliver_at),
        time(e.stored.fired_at),
    ]
}

pub(crate) fn timer_row(topic: &str, id: &str, timer: TimerRecord) -> Vec<Value> {
    let Event { key, headers, payload, .. } = timer.event;
    vec![
        Value::Text(topic.to_owned()),
        Value::Text(id.to_owned()),
        text(key),
        json(headers),
        Value::Bytes(payload),
        Value::Timestamp(timer.deliver_at.0),
        Value::Int(i64::try_from(timer.version).unwrap_or(i64::MAX)),
        Value::Null,
    ]
}

/// A timer that has fired but is not released yet.
pub(crate) fn armed_row(topic: &str, id: &str, event: PositionedEvent) -> Vec<Value> {
    let Event { key, headers, payload, .. } = event.stored.event;
    let due = event.stored.deliver_at.or(event.stored.fired_at);
    vec![
        Value::Text(topic.to_owned()),
        Value::Text(id.to_owned()),
        text(key),
        json(headers),
        Value::Bytes(payload),
        due.map_or(Value::Null, |t| Value::Timestamp(t.0)),
        Value::Null,
        Value::Null,
    ]
}
