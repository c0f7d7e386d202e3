//! Reading sources: rows by key, range or index; events; timers; the catalogue; series.

use super::eval::{EvalCx, eval, eval_value};
use super::run::{ExecCx, Once, Operator, Source, apply};
use super::vector::{BATCH_ROWS, Batch, ValueRef, Vector};
use crate::decimal::Decimal;
use crate::error::{SqlError, SqlState};
use crate::expr::Expr;
use crate::plan::{Access, Bound, Plan, Scan, ScanSource};
use crate::{system, time};
use bytes::Bytes;
use chronos_engine::Snapshot;
use chronos_engine::bugs::{Bug, active};
use chronos_engine::keys::{self, KeyRange};
use chronos_engine::state::records::ReadError;
use chronos_engine::state::snapshot::{self, Entry};
use chronos_engine::store::StoreError;
use chronos_proto::id::{ColumnId, RelationId};
use chronos_proto::schema::{Relation, Table};
use chronos_proto::time::Timestamp;
use chronos_proto::{Type, Value, key, limits, row};
use std::collections::VecDeque;

/// The first batch is small: many statements want few rows.
const FIRST_BATCH: usize = 64;

pub(crate) fn store_error(error: StoreError) -> SqlError {
    match error {
        StoreError::Io(_) => SqlError::new(SqlState::IO_ERROR, error.to_string()),
        StoreError::TooOld => SqlError::new(SqlState::SERIALIZATION_FAILURE, error.to_string()),
        StoreError::Damaged { .. } => SqlError::new(SqlState::DATA_CORRUPTED, error.to_string()),
    }
}

pub(crate) fn read_error(error: ReadError) -> SqlError {
    match error {
        ReadError::Store(error) => store_error(error),
        ReadError::Decode(error) => SqlError::new(SqlState::DATA_CORRUPTED, error.to_string()),
    }
}

/// Starts a scan. `outer` and `row` are what the access may refer to: the other side of a join.
pub(super) fn open<'a>(
    scan: &'a Scan,
    cx: &'a ExecCx<'a>,
    outer: &Batch,
    row: usize,
) -> Result<Source<'a>, SqlError> {
    let source = open_source(scan, cx, outer, row)?;
    if scan.filter.is_empty() {
        return Ok(source);
    }
    Ok(Box::new(Checked { source, filter: &scan.filter, cx }))
}

/// Starts a scan for one row of a join's left side. Its filter is checked by the join, on the pair.
pub(super) fn open_lookup<'a>(
    scan: &'a Scan,
    cx: &'a ExecCx<'a>,
    outer: &Batch,
    row: usize,
) -> Result<Source<'a>, SqlError> {
    open_source(scan, cx, outer, row)
}

fn open_source<'a>(
    scan: &'a Scan,
    cx: &'a ExecCx<'a>,
    outer: &Batch,
    row: usize,
) -> Result<Source<'a>, SqlError> {
    let keys = Keys::evaluate(&scan.access, &cx.eval, outer, row)?;
    Ok(match &scan.source {
        ScanSource::Table(relation) => match relation.table() {
            Some(table) => Box::new(TableScan::new(scan, relation, table, keys, cx)),
            None => Box::new(Once(None)),
        },
        ScanSource::Topic(relation) => Box::new(topic(scan, relation, keys, cx)?),
        ScanSource::Timers => Box::new(Once(Some(timers(scan, keys, cx)?))),
        ScanSource::System(table) => {
            let rows = (table.rows)(&cx.view.catalog, &cx.eval);
            Box::new(Once(Some(from_rows(scan, rows.iter().map(Vec::as_slice)))))
        }
        ScanSource::State(table) => {
            let rows = (table.rows)(cx)?;
            Box::new(Once(Some(from_rows(scan, rows.iter().map(Vec::as_slice)))))
        }
        ScanSource::Series(args) => Box::new(series(scan, args, cx)?),
    })
}

struct Checked<'a> {
    source: Source<'a>,
    filter: &'a [Expr],
    cx: &'a ExecCx<'a>,
}

impl Operator for Checked<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        while let Some(batch) = self.source.next()? {
            let batch = apply(batch, self.filter, self.cx)?;
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
            self.cx.check_cancel()?;
        }
        Ok(None)
    }
}

/// An access with its values.
struct Keys {
    /// The values of the first key columns; several where an IN gives several. None: a NULL among them, so no row.
    prefixes: Vec<Vec<Value>>,
    low: Option<(Value, bool)>,
    high: Option<(Value, bool)>,
    /// A bound is NULL: no row.
    empty: bool,
    point: bool,
}

impl Keys {
    fn evaluate(access: &Access, cx: &EvalCx<'_>, outer: &Batch, row: usize) -> Result<Keys, SqlError> {
        let value = |e: &Expr| -> Result<Value, SqlError> {
            if e.uses_slots() {
                // One row of the other side.
                let one = super::eval::subset(outer, &[row as u32], &[e]);
                return Ok(eval(e, &one, cx)?.get(0).to_value());
            }
            eval_value(e, cx)
        };
        let bound = |b: &Bound| -> Result<Option<(Value, bool)>, SqlError> {
            match b {
                Some((e, inside)) => Ok(Some((value(e)?, *inside))),
                None => Ok(None),
            }
        };
        let prefix: Vec<Value> = access.equal.iter().map(value).collect::<Result<_, _>>()?;
        let (low, high) = (bound(&access.low)?, bound(&access.high)?);
        let null = |b: &Option<(Value, bool)>| b.as_ref().is_some_and(|(v, _)| v.is_null());
        let empty = prefix.iter().any(Value::is_null) || null(&low) || null(&high);
        let prefixes = match &access.one_of {
            None => vec![prefix],
            Some(list) => {
                let mut values: Vec<Value> = list.iter().map(value).collect::<Result<_, _>>()?;
                values.retain(|v| !v.is_null());
                values.sort_by(Value::total_cmp);
                values.dedup();
                let with = |v: Value| prefix.iter().cloned().chain([v]).collect();
                values.into_iter().map(with).collect()
            }
        };
        Ok(Keys { prefixes, low, high, empty, point: access.point })
    }

    /// The encoded ranges to read.
    fn ranges(&self, shortened: bool, wrap: impl Fn(&[u8]) -> Bytes) -> VecDeque<KeyRange> {
        if self.empty {
            return VecDeque::new();
        }
        let cut = |bytes: &mut Vec<u8>| {
            if shortened {
                bytes.truncate(limits::INDEX_PREFIX_MAX_BYTES);
            }
        };
        let range = |prefix: &Vec<Value>| {
            let mut bytes = Vec::with_capacity(32);
            prefix.iter().for_each(|v| key::encode(&mut bytes, v));
            if self.point {
                return KeyRange::point(wrap(&bytes));
            }
            let with = |value: &Value| {
                let mut bytes = bytes.clone();
                key::encode(&mut bytes, value);
                cut(&mut bytes);
                wrap(&bytes)
            };
            let mut whole = bytes.clone();
            cut(&mut whole);
            let whole = wrap(&whole);
            let start = match &self.low {
                None => whole.clone(),
                Some((value, true)) => with(value),
                // A shortened bound cannot tell what is at it from what is above it.
                Some((value, false)) if shortened => with(value),
                Some((value, false)) => keys::successor(&with(value)),
            };
            let end = match &self.high {
                // NULLs stand behind all values, and no comparison holds for them.
                None if self.low.is_some() => {
                    let mut bytes = bytes.clone();
                    bytes.push(key_present_end());
                    cut(&mut bytes);
                    wrap(&bytes)
                }
                None => keys::successor(&whole),
                Some((value, false)) if !shortened => with(value),
                Some((value, _)) => keys::successor(&with(value)),
            };
            KeyRange { start, end }
        };
        self.prefixes.iter().map(range).filter(|r| r.start < r.end).collect()
    }
}

/// Whether the index entries that a plan's scan reads are all whole: what is held equal leaves room for the columns
/// behind it, which are of fixed width.
pub(super) fn is_short(plan: &Plan, cx: &ExecCx<'_>) -> Result<bool, SqlError> {
    let Some(scan) = plan.scan() else { return Ok(false) };
    let mut bytes = Vec::new();
    for e in &scan.access.equal {
        key::encode(&mut bytes, &eval_value(e, &cx.eval)?);
    }
    Ok(bytes.len() + FIXED_KEY_MAX_BYTES * scan.types.len() <= limits::INDEX_PREFIX_MAX_BYTES)
}

/// The longest encoding of a key column of fixed width: a UUID's.
const FIXED_KEY_MAX_BYTES: usize = 17;

/// Above the tag of every value that is there, below that of NULL.
const fn key_present_end() -> u8 {
    0x02
}

/// Which columns of a row go where.
struct Decoder<'a> {
    table: &'a Table,
    /// Key columns in key order: type, and the place of the column if it is read.
    key: Vec<(Type, Option<usize>)>,
    /// The last key column that is read.
    key_used: usize,
    /// Other columns that are read, by ascending number: (number, place).
    row: Vec<(ColumnId, usize)>,
    /// The hidden rowid, if it is asked for.
    rowid: Option<usize>,
}

impl<'a> Decoder<'a> {
    fn new(table: &'a Table, needed: &[bool]) -> Decoder<'a> {
        let wanted = |id: ColumnId| table.columns.iter().position(|c| c.id == id).filter(|i| needed[*i]);
        let key: Vec<(Type, Option<usize>)> = table
            .primary_key
            .iter()
            .map(|id| (table.column(*id).map_or(Type::Int, |c| c.ty), wanted(*id)))
            .collect();
        let key_used = key.iter().rposition(|(_, p)| p.is_some()).map_or(0, |i| i + 1);
        let mut row: Vec<(ColumnId, usize)> = table
            .columns
            .iter()
            .enumerate()
            .filter(|(i, c)| needed[*i] && !table.primary_key.contains(&c.id))
            .map(|(i, c)| (c.id, i))
            .collect();
        row.sort_unstable();
        let hidden = table.columns.len();
        let rowid = (table.primary_key.is_empty() && needed.get(hidden) == Some(&true)).then_some(hidden);
        Decoder { table, key, key_used, row, rowid }
    }

    fn decode(&self, primary_key: &[u8], value: &[u8], columns: &mut [Vector]) -> Result<(), SqlError> {
        let damaged = |e: String| SqlError::new(SqlState::DATA_CORRUPTED, e);
        let mut rest = primary_key;
        for (ty, place) in &self.key[..self.key_used] {
            match place {
                Some(place) => {
                    let value = key::decode(&mut rest, *ty).map_err(|e| damaged(e.to_string()))?;
                    columns[*place].push(ValueRef::from(&value));
                }
                None => skip_key(&mut rest, *ty).ok_or_else(|| damaged("a key does not decode".into()))?,
            }
        }
        if let Some(place) = self.rowid {
            let value = key::decode(&mut rest, Type::Int).map_err(|e| damaged(e.to_string()))?;
            columns[place].push(ValueRef::from(&value));
        }
        if self.row.is_empty() {
            return Ok(());
        }
        let mut at = 0;
        row::visit(value, |id, value| {
            while let Some((wanted, place)) = self.row.get(at) {
                if *wanted > id {
                    break;
                }
                let column = &mut columns[*place];
                at += 1;
                if *wanted == id {
                    column.push(value);
                    break;
                }
                column.push_null();
            }
        })
        .map_err(|e| damaged(e.to_string()))?;
        for (_, place) in &self.row[at..] {
            columns[*place].push_null();
        }
        Ok(())
    }
}

/// All values of a stored row, with the hidden rowid behind where there is one.
pub(super) fn decode_row(table: &Table, primary_key: &[u8], stored: &[u8]) -> Result<Vec<Value>, SqlError> {
    let hidden = table.primary_key.is_empty().then_some(Type::Int);
    let types = table.columns.iter().map(|c| c.ty).chain(hidden);
    let mut columns: Vec<Vector> = types.map(|ty| Vector::empty(ty, 1)).collect();
    Decoder::new(table, &vec![true; columns.len()]).decode(primary_key, stored, &mut columns)?;
    Ok(columns.iter().map(|c| c.get(0).to_value()).collect())
}

/// Steps over one encoded key column.
fn skip_key(input: &mut &[u8], ty: Type) -> Option<()> {
    let (tag, mut rest) = input.split_first()?;
    if *tag == 0x01 {
        let fixed = match ty {
            Type::Bool => 1,
            Type::Int | Type::SmallInt | Type::Integer => 8,
            Type::Timestamp | Type::LocalTimestamp | Type::Time | Type::Float => 8,
            Type::Date | Type::Real => 4,
            Type::Numeric | Type::Decimal { .. } => chronos_proto::numeric::order_len(rest)?,
            Type::Uuid => 16,
            Type::Interval => 40,
            Type::Text | Type::Varchar(_) | Type::Char(_) => skip_escaped(&mut rest)?,
            Type::Json | Type::PlainJson | Type::Bytes | Type::Array(_) => skip_escaped(&mut rest)?,
        };
        rest = rest.get(fixed..)?;
    }
    *input = rest;
    Some(())
}

/// Steps over escaped bytes and their end; nothing of them is left.
fn skip_escaped(input: &mut &[u8]) -> Option<usize> {
    loop {
        let zero = input.iter().position(|b| *b == 0)?;
        let mark = *input.get(zero + 1)?;
        *input = &input[zero + 2..];
        if mark == 0x01 {
            return Some(0);
        }
    }
}

/// The primary key at the end of an index entry: behind its columns, or behind their shortened form.
pub(super) fn entry_primary_key<'k>(entry: &'k [u8], types: &[Type]) -> Option<&'k [u8]> {
    let head = &entry[..entry.len().min(limits::INDEX_PREFIX_MAX_BYTES)];
    let mut rest = head;
    for ty in types {
        if skip_key(&mut rest, *ty).is_none() {
            // Whole columns would have ended within the prefix: these were shortened, with a hash behind.
            return entry.get(limits::INDEX_PREFIX_MAX_BYTES + 16..);
        }
    }
    entry.get(head.len() - rest.len()..)
}

struct TableScan<'a> {
    scan: &'a Scan,
    relation: RelationId,
    decoder: Decoder<'a>,
    cx: &'a ExecCx<'a>,
    ranges: VecDeque<KeyRange>,
    current: Option<snapshot::Scan<'a>>,
    /// Types of the index's columns, if one is used.
    index: Option<Vec<Type>>,
    point: bool,
    batch_rows: usize,
}

impl<'a> TableScan<'a> {
    fn new(
        scan: &'a Scan,
        relation: &'a Relation,
        table: &'a Table,
        keys: Keys,
        cx: &'a ExecCx<'a>,
    ) -> TableScan<'a> {
        let id = relation.id;
        let index = scan.access.index.and_then(|i| table.indexes.iter().find(|x| x.id == i));
        let mut ranges = match index {
            Some(index) => keys.ranges(true, |bytes| keys::index_entry(id, index.id, bytes)),
            None => keys.ranges(false, |bytes| keys::row(id, bytes)),
        };
        if scan.reverse {
            ranges = ranges.into_iter().rev().collect();
        }
        let index = index.map(|index| {
            index.columns.iter().map(|c| table.column(*c).map_or(Type::Int, |c| c.ty)).collect()
        });
        if let Some(reads) = &cx.reads {
            let mut reads = reads.borrow_mut();
            reads.relation(id);
            if index.is_none() || !active(Bug::IndexRangeUnread) {
                ranges.iter().for_each(|r| reads.add(r.clone()));
            }
            if table.primary_key.is_empty() && !keys.point {
                reads.point(keys::rowid(id));
            }
        }
        TableScan {
            scan,
            relation: id,
            decoder: Decoder::new(table, &scan.needed),
            cx,
            ranges,
            current: None,
            index,
            point: keys.point,
            batch_rows: FIRST_BATCH,
        }
    }

    fn columns(&self, capacity: usize) -> Vec<Vector> {
        let column = |(ty, needed): (&Type, &bool)| {
            if *needed { Vector::empty(*ty, capacity) } else { Vector::absent() }
        };
        self.scan.types.iter().zip(&self.scan.needed).map(column).collect()
    }

    /// The next entry: a row's key and value.
    fn entry(&mut self) -> Result<Option<Entry<'a>>, SqlError> {
        loop {
            if self.current.is_none() {
                let Some(range) = self.ranges.pop_front() else { return Ok(None) };
                if self.point && self.index.is_none() {
                    match self.cx.view.get(&range.start).map_err(store_error)? {
                        Some(value) => return Ok(Some(Entry::Fetched(range.start, value))),
                        None => continue,
                    }
                }
                self.current = Some(self.cx.view.scan(&range, self.scan.reverse));
            }
            let Some(entry) = self.current.as_mut().and_then(snapshot::Scan::next_entry) else {
                self.current = None;
                continue;
            };
            let entry = entry.map_err(store_error)?;
            let Some(types) = &self.index else { return Ok(Some(entry)) };
            let primary =
                entry_primary_key(keys::index_entry_suffix(entry.key()), types).ok_or_else(|| {
                    SqlError::new(
                        SqlState::DATA_CORRUPTED,
                        "an index entry does not decode: run `chronos verify`",
                    )
                })?;
            let row_key = keys::row(self.relation, primary);
            if let Some(reads) = &self.cx.reads {
                reads.borrow_mut().point(row_key.clone());
            }
            if let Some(value) = self.cx.view.get(&row_key).map_err(store_error)? {
                return Ok(Some(Entry::Fetched(row_key, value)));
            }
        }
    }
}

impl Operator for TableScan<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        self.cx.check_cancel()?;
        let limit = self.batch_rows;
        self.batch_rows = (limit * 4).min(BATCH_ROWS);
        let capacity = if self.point { self.ranges.len() } else { limit };
        let mut columns = self.columns(capacity.min(limit));
        let mut len = 0;
        while len < limit {
            let Some(entry) = self.entry()? else { break };
            self.decoder.decode(keys::row_primary_key(entry.key()), entry.value(), &mut columns)?;
            len += 1;
        }
        if len == 0 {
            return Ok(None);
        }
        debug_assert!(
            columns.iter().all(|c| c.is_absent() || c.rows() == len),
            "{}",
            self.decoder.table.columns.len()
        );
        Ok(Some(placed(self.scan, columns, len)))
    }
}

/// Puts a source's columns into its slots.
fn placed(scan: &Scan, columns: Vec<Vector>, len: usize) -> Batch {
    if scan.base == 0 && scan.width == columns.len() {
        return Batch::with_len(columns, len);
    }
    let mut all = Vec::with_capacity(scan.width.max(scan.base + columns.len()));
    all.resize_with(scan.base, Vector::absent);
    all.extend(columns);
    all.resize_with(scan.width.max(all.len()), Vector::absent);
    Batch::with_len(all, len)
}

fn from_rows<'r>(scan: &Scan, rows: impl Iterator<Item = &'r [Value]> + Clone) -> Batch {
    let len = rows.clone().count();
    let column = |(i, (ty, needed)): (usize, (&Type, &bool))| {
        if !needed {
            return Vector::absent();
        }
        let mut out = Vector::empty(*ty, len);
        rows.clone().for_each(|row| out.push(ValueRef::from(&row[i])));
        out
    };
    placed(scan, scan.types.iter().zip(&scan.needed).enumerate().map(column).collect(), len)
}

struct TopicScan<'a> {
    scan: &'a Scan,
    topic: &'a Relation,
    payload: Type,
    cx: &'a ExecCx<'a>,
    /// (partition, next offset, offset past the end).
    spans: VecDeque<(u32, u64, u64)>,
}

/// Events that have fired are there from their release on, without a write: a transaction is told when that is.
fn note_releases(
    cx: &ExecCx<'_>,
    view: &Snapshot,
    topic: RelationId,
    partition: u32,
) -> Result<(), SqlError> {
    if let Some(reads) = &cx.reads {
        let record = view.partition(topic, partition).map_err(read_error)?;
        let releases = record.armed.iter().map(|(_, release, _)| *release);
        if let Some(first) = releases.filter(|release| *release > cx.read_time).min() {
            reads.borrow_mut().until(first);
        }
    }
    Ok(())
}

fn topic<'a>(
    scan: &'a Scan,
    relation: &'a Relation,
    keys: Keys,
    cx: &'a ExecCx<'a>,
) -> Result<TopicScan<'a>, SqlError> {
    let partitions = relation.topic().map_or(1, |t| t.partitions);
    let payload = relation.topic().map_or(Type::Bytes, |t| t.payload);
    let mut spans = VecDeque::new();
    let as_u64 = |v: &Value| if let Value::Int(i) = v { u64::try_from(*i).unwrap_or(0) } else { 0 };
    for prefix in if keys.empty { &[] } else { keys.prefixes.as_slice() } {
        let chosen = match prefix.first() {
            Some(Value::Int(p)) => {
                u32::try_from(*p).ok().filter(|p| *p < partitions).map_or(0..0, |p| p..p + 1)
            }
            _ => 0..partitions,
        };
        for p in chosen {
            let (mut from, mut to) = (0, u64::MAX);
            if let Some(offset) = prefix.get(1) {
                let negative = matches!(offset, Value::Int(i) if *i < 0);
                (from, to) = (as_u64(offset), if negative { 0 } else { as_u64(offset) + 1 });
            }
            // Bounds stand on the offset only where the partition is given.
            if prefix.len() == 1 {
                if let Some((low, _)) = &keys.low {
                    from = as_u64(low);
                }
                if let Some((high, _)) = &keys.high {
                    to = as_u64(high).saturating_add(1);
                }
            }
            spans.push_back((p, from, to));
        }
    }
    if let Some(reads) = &cx.reads {
        let mut reads = reads.borrow_mut();
        reads.relation(relation.id);
        if relation.is_partitioned() {
            reads.elsewhere();
        }
        spans.iter().for_each(|(p, _, _)| reads.point(keys::partition(relation.id, *p)));
    }
    for (partition, _, _) in &spans {
        note_releases(cx, view_of(cx, relation, *partition)?, relation.id, *partition)?;
    }
    Ok(TopicScan { scan, topic: relation, payload, cx, spans })
}

/// The state of the group that keeps a partition.
fn view_of<'a>(cx: &'a ExecCx<'_>, topic: &Relation, partition: u32) -> Result<&'a Snapshot, SqlError> {
    cx.view.of(topic.home(partition)).ok_or_else(|| elsewhere(topic))
}

fn elsewhere(topic: &Relation) -> SqlError {
    SqlError::unsupported(format!(
        "reading topic \"{}\", which has several partitions, in a transaction",
        topic.name
    ))
    .hint("read it by a statement of its own, outside of a transaction block")
}

impl Operator for TopicScan<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        self.cx.check_cancel()?;
        while let Some((partition, from, to)) = self.spans.pop_front() {
            let limit = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX).min(BATCH_ROWS);
            if limit == 0 {
                continue;
            }
            let events = view_of(self.cx, self.topic, partition)?
                .events(self.topic.id, partition, from, limit, self.cx.read_time)
                .map_err(read_error)?;
            let Some(last) = events.last() else { continue };
            self.spans.push_front((partition, last.offset + 1, to));
            let rows: Vec<Vec<Value>> =
                events.into_iter().map(|e| system::event_row(e, self.payload)).collect();
            return Ok(Some(from_rows(self.scan, rows.iter().map(Vec::as_slice))));
        }
        Ok(None)
    }
}

/// Pending timers: of one topic and id, or of all topics. Armed ones are still here until they are released.
fn timers(scan: &Scan, keys: Keys, cx: &ExecCx<'_>) -> Result<Batch, SqlError> {
    let mut rows: Vec<Vec<Value>> = Vec::new();
    let mut bytes = 0;
    for prefix in if keys.empty { &[] } else { keys.prefixes.as_slice() } {
        let topic = match prefix.first() {
            Some(Value::Text(name)) => Some(name.as_str()),
            _ => None,
        };
        let id = match prefix.get(1) {
            Some(Value::Text(id)) => Some(id.as_str()),
            _ => None,
        };
        let catalog = cx.view.catalog.clone();
        if let Some(reads) = &cx.reads
            && topic.is_none_or(|name| catalog.by_name(name).is_none())
        {
            // A topic that is made later would have been read too.
            reads.borrow_mut().add(keys::catalog_all());
        }
        for relation in catalog.iter().filter(|r| r.topic().is_some() && topic.is_none_or(|t| r.name == t)) {
            let before = rows.len();
            timers_of(cx, relation, id, &mut rows)?;
            bytes += (rows.len() - before) * 200;
            cx.memory.take((rows.len() - before) * 200)?;
        }
    }
    cx.memory.give(bytes);
    Ok(from_rows(scan, rows.iter().map(Vec::as_slice)))
}

fn timers_of(
    cx: &ExecCx<'_>,
    topic: &Relation,
    id: Option<&str>,
    rows: &mut Vec<Vec<Value>>,
) -> Result<(), SqlError> {
    let partitions = topic.topic().map_or(1, |t| t.partitions);
    if let Some(reads) = &cx.reads {
        let mut reads = reads.borrow_mut();
        reads.relation(topic.id);
        if topic.is_partitioned() {
            reads.elsewhere();
        }
        match id {
            Some(id) => reads.point(keys::timer(topic.id, id)),
            None => reads.add(keys::timers(topic.id)),
        }
    }
    for partition in 0..partitions {
        let view = view_of(cx, topic, partition)?;
        note_releases(cx, view, topic.id, partition)?;
        rows.extend(armed(view, topic, partition, id, cx.read_time)?);
    }
    for home in topic.homes() {
        let view = cx.view.of(home).ok_or_else(|| elsewhere(topic))?;
        match id {
            Some(id) => {
                if let Some(timer) = view.timer(topic.id, id).map_err(read_error)? {
                    rows.push(system::timer_row(&topic.name, id, timer));
                }
            }
            None => {
                for timer in view.timers(topic.id) {
                    cx.check_cancel()?;
                    let (id, timer) = timer.map_err(read_error)?;
                    rows.push(system::timer_row(&topic.name, &id, timer));
                }
            }
        }
    }
    Ok(())
}

/// Timers that have fired but are not released at `read_time`.
fn armed(
    view: &Snapshot,
    topic: &Relation,
    partition: u32,
    id: Option<&str>,
    read_time: Timestamp,
) -> Result<Vec<Vec<Value>>, SqlError> {
    let record = view.partition(topic.id, partition).map_err(read_error)?;
    let mut rows = Vec::new();
    for (offset, release, timer_id) in record.armed {
        if release <= read_time || id.is_some_and(|id| id != timer_id) {
            continue;
        }
        let events = view.events(topic.id, partition, offset, 1, Timestamp::MAX).map_err(read_error)?;
        if let Some(event) = events.into_iter().next() {
            rows.push(system::armed_row(&topic.name, &timer_id, event));
        }
    }
    Ok(rows)
}

/// `generate_series`.
struct Series<'a> {
    scan: &'a Scan,
    cx: &'a ExecCx<'a>,
    next: Option<Value>,
    stop: Value,
    step: Value,
    upward: bool,
}

fn series<'a>(scan: &'a Scan, args: &[Expr], cx: &'a ExecCx<'a>) -> Result<Series<'a>, SqlError> {
    let value = |e: &Expr| eval_value(e, &cx.eval);
    let (start, stop) = (value(&args[0])?, value(&args[1])?);
    let step = args.get(2).map(value).transpose()?.unwrap_or(match start {
        Value::Float(_) => Value::Float(1.0),
        Value::Numeric(_) => Decimal::from(1).to_value()?,
        _ => Value::Int(1),
    });
    let (zero, upward) = match &step {
        Value::Int(i) => (*i == 0, *i > 0),
        Value::Float(x) => (*x == 0.0, *x > 0.0),
        Value::Interval(i) => (i.estimate() == 0, i.estimate() > 0),
        Value::Numeric(n) => match Decimal::from_bytes(n).signum() {
            Some(sign) => (sign == 0, sign > 0),
            None => return Err(SqlError::new(SqlState::INVALID_PARAMETER, "step size cannot be NaN")),
        },
        _ => (false, true),
    };
    if zero {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER, "step size cannot equal zero"));
    }
    let empty = start.is_null() || stop.is_null() || step.is_null();
    Ok(Series { scan, cx, next: (!empty).then_some(start), stop, step, upward })
}

impl Operator for Series<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        self.cx.check_cancel()?;
        let mut column = Vector::empty(self.scan.types[0], BATCH_ROWS);
        let mut len = 0;
        while len < BATCH_ROWS {
            let Some(value) = self.next.take() else { break };
            let order = value.total_cmp(&self.stop);
            if if self.upward { order.is_gt() } else { order.is_lt() } {
                break;
            }
            column.push(ValueRef::from(&value));
            len += 1;
            self.next = match (&value, &self.step) {
                (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map(Value::Int),
                (Value::Float(a), Value::Float(b)) => Some(Value::Float(a + b)),
                (Value::Timestamp(a), Value::Interval(b)) => {
                    time::add_interval(*a, *b).ok().map(Value::Timestamp)
                }
                (Value::LocalTimestamp(a), Value::Interval(b)) => {
                    time::add_interval(*a, *b).ok().map(Value::LocalTimestamp)
                }
                (Value::Numeric(a), Value::Numeric(b)) => {
                    Some(Decimal::from_bytes(a).add(&Decimal::from_bytes(b))?.to_value()?)
                }
                _ => None,
            };
        }
        Ok((len > 0).then(|| placed(self.scan, vec![column], len)))
    }
}
