//! Rows that expire: found by the index over their time, deleted by log entries in slices.
//!
//! Readers never see an expired row, whether it is deleted yet or not: SQL leaves it out by the transaction's own time.
//! So nothing hurries here. The leader names the rows, and apply looks at each anew, for it may have been written since.

use super::keys::{self, KeyRange};
use super::snapshot::Snapshot;
use super::{ReadError, State, index};
use crate::bugs::{self, Bug};
use crate::store::SharedStore;
use bytes::Bytes;
use chronos_proto::codec::DecodeError;
use chronos_proto::command::Work;
use chronos_proto::id::RelationId;
use chronos_proto::key;
use chronos_proto::schema::{IndexState, Relation};
use chronos_proto::time::Timestamp;
use chronos_proto::value::{Type, Value};

impl State {
    /// The relations whose rows expire.
    fn expiring(&self) -> impl Iterator<Item = &Relation> {
        let expires = |r: &Relation| r.table().is_some_and(|t| t.ttl().is_some());
        self.catalog.iter().map(AsRef::as_ref).filter(move |r| expires(r))
    }

    /// Whether rows of some table expire.
    pub fn has_ttl(&self) -> bool {
        self.expiring().next().is_some()
    }

    /// Rows that have expired at `now`, at most `limit` of one table.
    pub(super) fn expired_rows(
        &self,
        now: Timestamp,
        snapshot: &Snapshot,
        limit: usize,
    ) -> Result<Option<Work>, ReadError> {
        for relation in self.expiring() {
            let Some((_, index, micros)) = relation.table().and_then(|t| t.ttl()) else { continue };
            let mut last = Vec::new();
            key::encode(&mut last, &Value::Timestamp(last_expired(now, micros)));
            let entries = keys::index_entries(relation.id, index);
            let end = keys::successor(&keys::index_entry(relation.id, index, &last));
            let range = KeyRange { start: entries.start, end };
            let mut rows = Vec::new();
            for entry in snapshot.scan(&range, false).take(limit) {
                let (entry, _) = entry?;
                let mut primary_key = keys::index_entry_suffix(&entry);
                time_of(&mut primary_key)?;
                rows.push(Bytes::copy_from_slice(primary_key));
            }
            if !rows.is_empty() {
                return Ok(Some(Work::ExpireRows { relation: relation.id, keys: rows }));
            }
        }
        Ok(None)
    }

    /// Deletes those of the rows that are there and have expired at `time`.
    pub(super) fn expire_rows(
        &mut self,
        id: RelationId,
        rows: &[Bytes],
        time: Timestamp,
        store: &SharedStore,
    ) -> Result<(), ReadError> {
        let Some(relation) = self.catalog.get(id).cloned() else { return Ok(()) };
        let Some(table) = relation.table() else { return Ok(()) };
        let Some((_, by_time, micros)) = table.ttl() else { return Ok(()) };
        let Some(by_time) = table.indexes.iter().find(|i| i.id == by_time) else { return Ok(()) };
        for primary_key in rows {
            let row_key = keys::row(id, primary_key);
            let Some(row) = self.get(&row_key, store)? else { continue };
            let columns = index::columns(table, by_time, primary_key, &row)?;
            let lives = time_of(&mut columns.as_slice())?.is_none_or(|t| t > last_expired(time, micros));
            if lives && !bugs::active(Bug::ExpireUnchecked) {
                continue;
            }
            for index in &table.indexes {
                let columns = index::columns(table, index, primary_key, &row)?;
                let entry = keys::index_entry(id, index.id, &[&columns[..], primary_key].concat());
                // One that is being filled may not have it.
                if index.state == IndexState::Public || self.get(&entry, store)?.is_some() {
                    self.put(entry, None, store)?;
                }
            }
            self.put(row_key, None, store)?;
        }
        Ok(())
    }
}

/// The newest time of a row that has expired at `now`.
fn last_expired(now: Timestamp, micros: u64) -> i64 {
    now.0.saturating_sub_unsigned(micros)
}

/// Takes the time off the front of an index entry; none if it is NULL.
fn time_of(entry: &mut &[u8]) -> Result<Option<i64>, ReadError> {
    let value = key::decode(entry, Type::Timestamp)
        .map_err(|e| DecodeError { what: "time of a row", why: e.to_string() })?;
    Ok(if let Value::Timestamp(time) = value { Some(time) } else { None })
}
