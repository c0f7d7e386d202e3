//! Readings as rows of the table `readings`, which is made on first use.

use super::read::Reading;
use crate::gateway::Gateway;
use bytes::Bytes;
use chronos_engine::Snapshot;
use chronos_engine::keys::{self, KeyRange};
use chronos_engine::state::index;
use chronos_engine::txn::Transaction;
use chronos_proto::command::IndexChange;
use chronos_proto::limits::PRIMARY_KEY_MAX_BYTES;
use chronos_proto::schema::{Column, Relation, Table};
use chronos_proto::{ColumnId, Op, Type, Value, key, row};
use chronos_sql::{Session, SessionOptions, SqlError, SqlState};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The table's name.
const TABLE: &str = "readings";
/// How it is made.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS readings (reading_id STRING, device_id STRING, ts BIGINT, \
                      seq BIGINT, metric STRING, value FLOAT, PRIMARY KEY (device_id, seq, metric))";
/// Requests with more rows than this are turned into operations beside the connection's thread.
const SMALL: usize = 200;

/// What became of the rows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// New ones.
    pub inserted: u64,
    /// Known ones.
    pub duplicates: u64,
}

/// Writes all readings in one transaction; returns when they are durable.
pub(super) async fn write(gateway: &Gateway, readings: &[Reading<'_>]) -> Result<Counts, SqlError> {
    gateway.wait_until_ready().await?;
    let relation = match gateway.read().0.catalog.by_name(TABLE) {
        Some(relation) => relation.clone(),
        None => create(gateway).await?,
    };
    let rows: usize = readings.iter().map(|reading| reading.metrics.0.len()).sum();
    if rows == 0 {
        return Ok(Counts::default());
    }
    let build = |snapshot: &Snapshot| {
        // Looked up anew: it may have changed since, which the commit would notice.
        let relation = snapshot.catalog.by_name(TABLE).ok_or_else(gone)?;
        let shape = Shape::of(relation)?;
        match rows {
            ..=SMALL => shape.transaction(snapshot, readings),
            _ => tokio::task::block_in_place(|| shape.transaction(snapshot, readings)),
        }
    };
    let (_, counts) = gateway.write(relation.group, |snapshot, _| build(snapshot)).await?;
    Ok(counts)
}

async fn create(gateway: &Gateway) -> Result<Arc<Relation>, SqlError> {
    let mut session = Session::new(SessionOptions::default());
    for statement in chronos_sql::parse(CREATE)? {
        let prepared = gateway.prepare(&mut session, &statement, &[]).await?;
        gateway.execute(&mut session, &prepared, &[], &AtomicBool::new(false)).await?;
    }
    gateway.read().0.catalog.by_name(TABLE).cloned().ok_or_else(gone)
}

fn gone() -> SqlError {
    SqlError::new(SqlState::UNDEFINED_TABLE, "the table readings was dropped meanwhile: send it again")
}

/// Where the values go.
struct Shape<'a> {
    relation: &'a Relation,
    table: &'a Table,
    reading_id: Option<ColumnId>,
    seq: Integer,
    ts: Integer,
    value: ColumnId,
}

/// A column of integers, of the width that its table gave it.
struct Integer {
    id: ColumnId,
    ty: Type,
    name: &'static str,
}

impl Integer {
    fn value(&self, number: i64) -> Result<Value, SqlError> {
        let fits = match self.ty {
            Type::SmallInt => i16::try_from(number).is_ok(),
            Type::Integer => i32::try_from(number).is_ok(),
            _ => true,
        };
        if fits {
            return Ok(Value::Int(number));
        }
        let message = format!("{} {number} does not fit column {TABLE}.{0} of type {}", self.name, self.ty);
        Err(SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, message).hint("make the column a BIGINT"))
    }
}

impl<'a> Shape<'a> {
    fn of(relation: &'a Relation) -> Result<Shape<'a>, SqlError> {
        let wrong = |why: String| {
            SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("the table readings is not as /ingest needs it: {why}"),
            )
            .hint(format!("rename it; /ingest then makes its own: {CREATE}"))
        };
        let table = relation.table().ok_or_else(|| wrong("it is a topic".into()))?;
        let column = |name: &str, ty: Type| -> Result<ColumnId, SqlError> {
            match table.columns.iter().find(|column| column.name == name) {
                Some(column) if column.ty == ty => Ok(column.id),
                Some(column) => Err(wrong(format!("{name} is {}, not {ty}", column.ty))),
                None => Err(wrong(format!("it has no column {name}"))),
            }
        };
        let integer = |name: &'static str| -> Result<Integer, SqlError> {
            let found = table.columns.iter().find(|column| column.name == name).map(|column| column.ty);
            let ty = found.filter(|ty| matches!(ty, Type::SmallInt | Type::Integer)).unwrap_or(Type::Int);
            Ok(Integer { id: column(name, ty)?, ty, name })
        };
        let (seq, ts) = (integer("seq")?, integer("ts")?);
        let key = [column("device_id", Type::Text)?, seq.id, column("metric", Type::Text)?];
        if table.primary_key != key {
            return Err(wrong("its primary key is not (device_id, seq, metric)".into()));
        }
        let shape = Shape {
            relation,
            table,
            reading_id: column("reading_id", Type::Text).ok(),
            seq,
            ts,
            value: column("value", Type::Float)?,
        };
        let ours = |c: &Column| {
            key.contains(&c.id)
                || c.id == shape.ts.id
                || c.id == shape.value
                || Some(c.id) == shape.reading_id
        };
        match table.columns.iter().find(|c| !ours(c) && (c.not_null || c.default.is_some())) {
            Some(column) => Err(wrong(format!("{} is NOT NULL or has a DEFAULT", column.name))),
            None => Ok(shape),
        }
    }

    /// Puts of the rows that are not there, and the reads that say so.
    fn transaction(
        &self,
        snapshot: &Snapshot,
        readings: &[Reading<'_>],
    ) -> Result<(Transaction, Counts), SqlError> {
        let mut counts = Counts::default();
        let mut reads = vec![KeyRange::point(keys::catalog(self.relation.id))];
        let mut ops = Vec::new();
        let mut seen = HashSet::new();
        for reading in readings {
            let mut prefix = Vec::with_capacity(64);
            key::encode_text(&mut prefix, &reading.device_id);
            key::encode(&mut prefix, &self.seq.value(reading.seq)?);
            for (metric, value) in &reading.metrics.0 {
                let mut primary = Vec::with_capacity(prefix.len() + metric.len() + 4);
                primary.extend_from_slice(&prefix);
                key::encode_text(&mut primary, metric);
                if primary.len() > PRIMARY_KEY_MAX_BYTES {
                    let message = format!(
                        "the key of device {:?}, metric {metric:?} is {} bytes, more than {PRIMARY_KEY_MAX_BYTES}",
                        reading.device_id,
                        primary.len()
                    );
                    return Err(SqlError::new(SqlState::LIMIT_EXCEEDED, message));
                }
                let state_key = keys::row(self.relation.id, &primary);
                let known = snapshot.get(&state_key).map_err(|e| {
                    SqlError::new(SqlState::IO_ERROR, format!("readings could not be read: {e}"))
                })?;
                if known.is_some() || !seen.insert(state_key.clone()) {
                    counts.duplicates += 1;
                    continue;
                }
                reads.push(KeyRange::point(state_key));
                ops.push(self.put(Bytes::from(primary), reading, metric, *value)?);
                counts.inserted += 1;
            }
        }
        if ops.is_empty() {
            reads.clear();
        }
        Ok((Transaction { read_index: snapshot.applied, reads, ops, ..Transaction::default() }, counts))
    }

    fn put(&self, key: Bytes, reading: &Reading<'_>, metric: &str, value: f64) -> Result<Op, SqlError> {
        let id = self
            .reading_id
            .map(|column| (column, Value::Text(format!("{}:{}:{metric}", reading.device_id, reading.seq))));
        let (ts, value) = ((self.ts.id, self.ts.value(reading.ts)?), (self.value, Value::Float(value)));
        let mut columns = [id, Some(ts), Some(value)];
        columns.sort_by_key(|column| column.as_ref().map(|(id, _)| *id));
        let row = row::encode(columns.iter().flatten().map(|(id, value)| (*id, value)));
        let mut indexes = Vec::with_capacity(self.table.indexes.len());
        for index in &self.table.indexes {
            let mut entry = index::columns(self.table, index, &key, &row)
                .map_err(|e| SqlError::new(SqlState::INTERNAL, e.to_string()))?;
            entry.extend_from_slice(&key);
            indexes.push(IndexChange { index: index.id, key: Bytes::from(entry), present: true });
        }
        Ok(Op::PutRow { relation: self.relation.id, key, row, replaces: 0, indexes })
    }
}
