//! `chronos.topics`: topics and what is set of them.

use super::StateTable;
use crate::error::SqlError;
use crate::exec::run::ExecCx;
use chronos_engine::keys;
use chronos_proto::schema::Relation;
use chronos_proto::value::Interval;
use chronos_proto::{Type, Value};
use std::sync::Arc;

pub(super) static TABLES: &[StateTable] = &[StateTable {
    name: "topics",
    columns: &[
        ("topic", Type::Text),
        ("partitions", Type::Int),
        ("payload", Type::Text),
        ("dedup", Type::Interval),
        ("max_deliveries", Type::Int),
        ("dead_letter", Type::Text),
    ],
    rows: topics,
}];

fn topics(cx: &ExecCx<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    if let Some(reads) = &cx.reads {
        reads.borrow_mut().add(keys::catalog_all());
    }
    let catalog = &cx.view.catalog;
    let row = |relation: &Arc<Relation>| {
        let topic = relation.topic()?;
        let dead = topic.dead_letter().and_then(|dead| catalog.get(dead));
        let most = topic.max_deliveries().map(|most| Value::Int(i64::from(most)));
        Some(vec![
            Value::Text(relation.name.clone()),
            Value::Int(i64::from(topic.partitions)),
            Value::Text(topic.payload.to_string()),
            length(topic.dedup_micros),
            most.unwrap_or(Value::Null),
            super::text(dead.map(|dead| dead.name.clone())),
        ])
    };
    Ok(catalog.iter().filter_map(row).collect())
}

/// A length of time, whole days apart.
fn length(micros: u64) -> Value {
    const DAY: u64 = crate::time::DAY as u64;
    let days = i32::try_from(micros / DAY).unwrap_or(i32::MAX);
    Value::Interval(Interval { months: 0, days, micros: (micros % DAY) as i64 })
}
