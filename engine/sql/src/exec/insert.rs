//! Rows on their way into a table: encoded one behind the other in a shared buffer, then looked up and written.
//!
//! A bulk insert is mostly small keys and rows. Each would be a few allocations; here they are slices of one buffer per
//! [`BUFFER_BYTES`], and rows that come in the order of their keys share one look for those that are there already.

use super::scan::store_error;
use super::write::{Writes, check_key, check_row, duplicate, not_null};
use crate::error::SqlError;
use bytes::Bytes;
use chronos_engine::Snapshot;
use chronos_engine::keys::{self, KeyRange};
use chronos_proto::command::IndexChange;
use chronos_proto::id::{ColumnId, RelationId};
use chronos_proto::schema::{Relation, Table};
use chronos_proto::{Value, key, row};
use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::ops::Range;

/// A buffer that has reached this is written out. One row that stays keeps its whole buffer in memory until the next
/// checkpoint, so it is small.
const BUFFER_BYTES: usize = 16 << 10;
/// So many keys in ascending order, and the next look is for all that follow.
const ASCENDING_MIN: i32 = 4;

/// The rows of one INSERT.
pub(crate) struct Rows<'t> {
    relation: &'t Relation,
    table: &'t Table,
    skip_conflicts: bool,
    /// How many are inserted.
    pub inserted: usize,
    /// What every row's state key begins with.
    prefix: Bytes,
    /// Where the key columns are among the values, in the key's order.
    key: Vec<usize>,
    /// The other columns, in theirs.
    columns: Vec<(usize, ColumnId)>,
    not_null: Vec<usize>,
    /// What a buffer is made with.
    room: usize,
    buffer: Vec<u8>,
    rows: Vec<Encoded>,
    /// The index entries of the rows: as many for each as there are indexes.
    entries: Vec<Range<usize>>,
    scratch: Vec<u8>,
}

/// Where a row is in the buffer.
struct Encoded {
    row: Range<usize>,
    /// Its state key, with a zero behind it; empty if the table has no key.
    key: Range<usize>,
}

impl<'t> Rows<'t> {
    /// For a table, and about so many rows.
    pub fn new(relation: &'t Relation, table: &'t Table, skip_conflicts: bool, count: usize) -> Rows<'t> {
        let place = |id: &ColumnId| table.columns.iter().position(|c| c.id == *id);
        let columns = table.columns.iter().enumerate().map(|(place, c)| (place, c.id));
        let mut columns: Vec<(usize, ColumnId)> =
            columns.filter(|(_, id)| !table.primary_key.contains(id)).collect();
        columns.sort_by_key(|(_, id)| *id);
        Rows {
            relation,
            table,
            skip_conflicts,
            inserted: 0,
            prefix: keys::row(relation.id, &[]),
            key: table.primary_key.iter().filter_map(place).collect(),
            columns,
            not_null: (0..table.columns.len()).filter(|place| table.columns[*place].not_null).collect(),
            room: count.saturating_mul(128).min(BUFFER_BYTES + BUFFER_BYTES / 8),
            buffer: Vec::new(),
            rows: Vec::new(),
            entries: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Takes a row. It is written when the buffer is full, at the latest by [`Rows::flush`].
    pub fn push<V: Borrow<Value>>(&mut self, values: &[V], writes: &mut Writes) -> Result<(), SqlError> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(self.room);
        }
        self.encode(values)?;
        if self.buffer.len() >= BUFFER_BYTES { self.flush(writes) } else { Ok(()) }
    }

    fn encode<V: Borrow<Value>>(&mut self, values: &[V]) -> Result<(), SqlError> {
        let value = |place: usize| values[place].borrow();
        if let Some(place) = self.not_null.iter().find(|place| value(**place).is_null()) {
            return Err(not_null(self.relation, self.table, *place, values));
        }
        let begin = self.buffer.len();
        row::encode_into(&mut self.buffer, self.columns.iter().map(|(place, id)| (*id, value(*place))));
        let row = begin..self.buffer.len();
        let mut key = row.end..row.end;
        if !self.key.is_empty() {
            self.buffer.extend_from_slice(&self.prefix);
            for place in &self.key {
                key::encode(&mut self.buffer, value(*place));
            }
            key.end = self.buffer.len();
            self.buffer.push(0);
        }
        let checked =
            check_row(row.len()).and_then(|()| check_key(key.len().saturating_sub(self.prefix.len())));
        if checked.is_err() {
            self.buffer.truncate(begin);
            return checked;
        }
        for index in &self.table.indexes {
            self.scratch.clear();
            for id in &index.columns {
                if let Some(place) = self.table.columns.iter().position(|c| c.id == *id) {
                    key::encode(&mut self.scratch, value(place));
                }
            }
            let entry = self.buffer.len();
            self.buffer.extend_from_slice(&keys::index_columns(&self.scratch));
            if !key.is_empty() {
                self.buffer.extend_from_within(key.start + self.prefix.len()..key.end);
            }
            self.entries.push(entry..self.buffer.len());
        }
        self.rows.push(Encoded { row, key });
        Ok(())
    }

    /// Writes the rows taken so far, in their order up to the first that may not be.
    pub fn flush(&mut self, writes: &mut Writes) -> Result<(), SqlError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.len() < buffer.capacity() / 2 {
            buffer.shrink_to_fit();
        }
        let buffer = Bytes::from(buffer);
        let mut entries = self.entries.drain(..).map(|entry| buffer.slice(entry));
        for Encoded { row, key } in self.rows.drain(..) {
            let row = buffer.slice(row);
            let indexes = self.table.indexes.iter().map(|index| index.id).zip(&mut entries);
            if key.is_empty() {
                writes.append(self.relation.id, row, indexes.collect())?;
                self.inserted += 1;
                continue;
            }
            let present = |(index, key)| IndexChange { index, key, present: true };
            let indexes = indexes.map(present).collect();
            // The zero behind a key makes its successor.
            let end = buffer.slice(key.start..key.end + 1);
            let key = buffer.slice(key);
            writes.reads.add(KeyRange { start: key.clone(), end });
            if !writes.holds(self.relation.id, &key)? {
                writes.insert(self.relation.id, key, row, indexes)?;
                self.inserted += 1;
            } else if !self.skip_conflicts {
                return Err(duplicate(self.relation, self.table, &key[self.prefix.len()..]));
            }
        }
        Ok(())
    }
}

/// What is known of keys about to be inserted: which were, and where there are none.
#[derive(Clone, Default)]
pub(super) struct Known {
    /// Keys inserted, while they came in ascending order.
    run: Vec<Bytes>,
    /// The other ones.
    rest: BTreeSet<Bytes>,
    /// A range in which the view has no key.
    gap: Option<KeyRange>,
    /// How many looks the gap has spared.
    spared: i32,
    /// The key looked for last, and how many before it were in ascending order. Negative: looking for a gap did not
    /// pay, so not for a while.
    last: Bytes,
    ascending: i32,
}

impl Known {
    /// Whether the key of a row of this table is in the view, or was inserted.
    pub fn holds(&mut self, view: &Snapshot, relation: RelationId, key: &Bytes) -> Result<bool, SqlError> {
        let is_after = self.run.last().is_none_or(|last| key > last);
        if !is_after && (self.run.binary_search(key).is_ok() || self.rest.contains(key)) {
            return Ok(true);
        }
        if self.gap.as_ref().is_some_and(|gap| gap.contains(key)) {
            self.spared += 1;
            return Ok(false);
        }
        self.ascending = if *key > self.last { self.ascending + 1 } else { self.ascending.min(0) };
        self.last = key.clone();
        if self.gap.take().is_some() && self.spared < ASCENDING_MIN {
            self.ascending = -4 * ASCENDING_MIN;
        }
        if self.ascending < ASCENDING_MIN {
            return Ok(view.get(key).map_err(store_error)?.is_some());
        }
        let ahead = KeyRange { start: key.clone(), end: keys::rows(relation).end };
        match view.scan(&ahead, false).next().transpose().map_err(store_error)? {
            Some((found, _)) if found == *key => Ok(true),
            found => {
                let end = found.map_or(ahead.end, |(found, _)| found);
                (self.gap, self.spared) = (Some(KeyRange { start: ahead.start, end }), 0);
                Ok(false)
            }
        }
    }

    /// Notes a key that was inserted.
    pub fn insert(&mut self, key: Bytes) {
        match self.run.last() {
            Some(last) if key <= *last => {
                self.rest.insert(key);
            }
            _ => self.run.push(key),
        }
    }
}
