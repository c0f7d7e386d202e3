//! A table and a topic to work on, without SQL.

use bytes::Bytes;
use chronos_engine::keys::{self, KeyRange};
use chronos_engine::proto::codec;
use chronos_engine::proto::command::Op;
use chronos_engine::proto::id::{ColumnId, GroupId, RelationId};
use chronos_engine::proto::schema::{Column, Relation, RelationKind, Table, Topic};
use chronos_engine::proto::value::Type;
use chronos_engine::txn::{Committed, Transaction};
use chronos_node::{CommitError, NodeHandle, Options, Profile};
use std::collections::BTreeMap;
use std::path::Path;

pub const TABLE: RelationId = RelationId(16);
pub const TOPIC: RelationId = RelationId(17);

/// Small files, so that segments, checkpoints and removals are met soon.
pub fn options(dir: &Path) -> Options {
    let profile = Profile { segment_bytes: 256 << 10, store_max_bytes: 256 << 20, ..Profile::SMALL };
    Options { profile, ..Options::new(dir) }
}

pub fn open(dir: &Path) -> NodeHandle {
    chronos_node::open(options(dir)).unwrap()
}

/// Makes the table and the topic.
pub fn create(node: &NodeHandle) {
    let column =
        Column { id: ColumnId(0), name: "id".to_owned(), ty: Type::Int, not_null: true, default: None };
    let table =
        Table { columns: vec![column], primary_key: vec![ColumnId(0)], next_column: 1, ..Table::default() };
    let topic =
        Topic { partitions: 1, dedup_micros: 3_600_000_000, payload: Type::Bytes, settings: Vec::new() };
    let relation =
        |id, name: &str, kind| Relation { id, name: name.to_owned(), group: GroupId(0), version: 1, kind };
    let ops = vec![
        Op::PutRelation(relation(TABLE, "rows", RelationKind::Table(table))),
        Op::PutRelation(relation(TOPIC, "events", RelationKind::Topic(topic))),
    ];
    commit(node, ops).unwrap();
}

pub fn commit(node: &NodeHandle, ops: Vec<Op>) -> Result<Committed, CommitError> {
    let read_index = node.published().snapshot.applied;
    node.commit(GroupId(0), Transaction { read_index, ops, ..Transaction::default() })
}

pub fn row_key(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

/// Writes a row that was not there.
pub fn put(n: u64, row: &[u8]) -> Op {
    Op::PutRow {
        relation: TABLE,
        key: row_key(n),
        row: Bytes::copy_from_slice(row),
        replaces: 0,
        indexes: vec![],
    }
}

/// Writes a row over what is there now.
pub fn replace(node: &NodeHandle, n: u64, row: &[u8]) -> Op {
    let key = keys::row(TABLE, &row_key(n));
    let old = node.published().snapshot.get(&key).unwrap();
    let replaces = old.map_or(0, |old| codec::digest(&key, &old));
    Op::PutRow {
        relation: TABLE,
        key: row_key(n),
        row: Bytes::copy_from_slice(row),
        replaces,
        indexes: vec![],
    }
}

/// Every row of the published state.
pub fn rows(node: &NodeHandle) -> BTreeMap<u64, Bytes> {
    let snapshot = node.published().snapshot;
    let rows = snapshot.scan(&KeyRange::prefix(&keys::rows(TABLE).start), false).map(|entry| {
        let (key, value) = entry.unwrap();
        let key = keys::row_primary_key(&key).try_into().unwrap();
        (u64::from_be_bytes(key), value)
    });
    rows.collect()
}

/// Asks for a checkpoint and waits until it is durable.
pub fn checkpoint(node: &NodeHandle) {
    let before = node.status().unwrap().store.checkpoints;
    node.checkpoint();
    until(|| node.status().unwrap().store.checkpoints > before);
}

/// Polls for what another thread does, for half a minute at the most.
pub fn until(mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "it did not come about");
        std::thread::yield_now();
    }
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
