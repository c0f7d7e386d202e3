//! A table of two numbers and a topic, and how rows of the table are written.

use bytes::Bytes;
use chronos_proto::command::Op;
use chronos_proto::id::{ColumnId, GroupId, RelationId};
use chronos_proto::schema::{Column, Relation, RelationKind, Table, Topic};
use chronos_proto::value::{Type, Value};
use chronos_proto::{key, row};

/// The group of both.
pub const GROUP: GroupId = GroupId(0);
/// `t (id INT PRIMARY KEY, x INT)`.
pub const TABLE: RelationId = RelationId(16);
/// `alerts`, of one partition, with a dedup window of a minute.
pub const TOPIC: RelationId = RelationId(17);

/// What makes them.
pub fn make_relations() -> Vec<Op> {
    let column = |id, name: &str, not_null| Column {
        id: ColumnId(id),
        name: name.into(),
        ty: Type::Int,
        not_null,
        default: None,
    };
    let table = Table {
        columns: vec![column(1, "id", true), column(2, "x", false)],
        primary_key: vec![ColumnId(1)],
        next_column: 3,
        next_index: 1,
        ..Table::default()
    };
    let topic = Topic { partitions: 1, dedup_micros: 60_000_000, payload: Type::Text, settings: Vec::new() };
    let relation = |id, name: &str, kind| Relation { id, name: name.into(), group: GROUP, version: 1, kind };
    vec![
        Op::PutRelation(relation(TABLE, "t", RelationKind::Table(table))),
        Op::PutRelation(relation(TOPIC, "alerts", RelationKind::Topic(topic))),
    ]
}

/// A row's key.
pub fn primary_key(id: i64) -> Bytes {
    let mut out = Vec::new();
    key::encode(&mut out, &Value::Int(id));
    out.into()
}

/// Writes a row where there was none.
pub fn put(id: i64, x: i64) -> Op {
    let value = Value::Int(x);
    Op::PutRow {
        relation: TABLE,
        key: primary_key(id),
        row: row::encode([(ColumnId(2), &value)].into_iter()),
        replaces: 0,
        indexes: Vec::new(),
    }
}
