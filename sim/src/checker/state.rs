//! `state`: what readers see is what the model has, key by key.

use crate::model::Model;
use crate::violation::Violation;
use bytes::Bytes;
use chronos_engine::Snapshot;
use chronos_engine::keys::{self, KeyRange, tag};
use chronos_engine::state::records::{ReadError, TimerRecord};
use chronos_engine::store::StoreError;
use chronos_proto::id::{ColumnId, RelationId};
use chronos_proto::limits::SCHEDULE_HISTORY_MAX;
use chronos_proto::schema::{IndexState, SecondaryIndex, Table};
use chronos_proto::time::Timestamp;
use chronos_proto::value::Value;
use chronos_proto::{codec, key, row};
use std::collections::{BTreeMap, BTreeSet};

const NAME: &str = "state";

/// Why a comparison did not come out well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The state is another than the model's.
    Wrong(Violation),
    /// It could not be read, and said so.
    Damaged(String),
}

impl From<StoreError> for Difference {
    fn from(error: StoreError) -> Self {
        Difference::Damaged(error.to_string())
    }
}

impl From<ReadError> for Difference {
    fn from(error: ReadError) -> Self {
        Difference::Damaged(error.to_string())
    }
}

fn wrong(what: String) -> Difference {
    Difference::Wrong(Violation::safety(NAME, what))
}

/// Two ordered lists must be one; the first difference is told.
fn same<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
) -> Result<(), Difference> {
    for (key, value) in expected {
        match found.get(key) {
            None => return Err(wrong(format!("{what}: {key:?} is missing, it should be {value:?}"))),
            Some(other) if other != value => {
                return Err(wrong(format!("{what}: {key:?} is {other:?}, it should be {value:?}")));
            }
            Some(_) => {}
        }
    }
    match found.iter().find(|(key, _)| !expected.contains_key(key)) {
        Some((key, value)) => Err(wrong(format!("{what}: {key:?} is {value:?}, it should not be there"))),
        None => Ok(()),
    }
}

/// Compares a whole snapshot with the model at the same index.
pub fn compare(snapshot: &Snapshot, model: &Model) -> Result<(), Difference> {
    assert_eq!(snapshot.applied.0, model.applied, "states of different moments were compared");
    if snapshot.applied_time != model.time {
        return Err(wrong(format!("applied time is {}, it should be {}", snapshot.applied_time, model.time)));
    }
    let found: BTreeMap<_, _> = snapshot.catalog.iter().map(|r| (r.id, (**r).clone())).collect();
    same("catalogue", &found, &model.relations)?;
    let mut stored = BTreeMap::new();
    for entry in snapshot.scan(&keys::catalog_all(), false) {
        let relation: chronos_proto::schema::Relation =
            codec::decode("relation", &entry?.1).map_err(ReadError::from)?;
        stored.insert(relation.id, relation);
    }
    same("stored catalogue", &stored, &model.relations)?;
    for relation in model.relations.values() {
        match relation.table() {
            Some(table) => rows_and_indexes(snapshot, model, relation.id, table)?,
            None if relation.schedule().is_some() => schedule(snapshot, model, relation.id)?,
            None => topic(snapshot, model, relation.id)?,
        }
    }
    due_order(snapshot, model)
}

fn rows_and_indexes(
    snapshot: &Snapshot,
    model: &Model,
    id: RelationId,
    table: &Table,
) -> Result<(), Difference> {
    let mut found = BTreeMap::new();
    for entry in snapshot.scan(&keys::rows(id), false) {
        let (key, value) = entry?;
        found.insert(Bytes::copy_from_slice(keys::row_primary_key(&key)), value);
    }
    let none = BTreeMap::new();
    let rows = model.rows.get(&id).unwrap_or(&none);
    same(&format!("rows of relation {id}"), &found, rows)?;
    for index in &table.indexes {
        let expected: BTreeSet<Vec<u8>> = rows.iter().map(|(k, v)| index_entry(table, index, k, v)).collect();
        let mut found = BTreeSet::new();
        for entry in snapshot.scan(&keys::index_entries(id, index.id), false) {
            found.insert(keys::index_entry_suffix(&entry?.0).to_vec());
        }
        if let Some(extra) = found.difference(&expected).next() {
            let what = format!("index {} of relation {id} has an entry {extra:02x?} without a row", index.id);
            return Err(wrong(what));
        }
        if let Some(missing) =
            expected.difference(&found).next().filter(|_| index.state == IndexState::Public)
        {
            return Err(wrong(format!("index {} of relation {id} has no entry {missing:02x?}", index.id)));
        }
    }
    Ok(())
}

/// The entry that an index must have for a row: its columns' values and the row's key.
pub fn index_entry(table: &Table, index: &SecondaryIndex, primary_key: &[u8], stored: &[u8]) -> Vec<u8> {
    let mut values: BTreeMap<ColumnId, Value> = BTreeMap::new();
    let mut rest = primary_key;
    for column in &table.primary_key {
        if let Some(column) = table.column(*column)
            && let Ok(value) = key::decode(&mut rest, column.ty)
        {
            values.insert(column.id, value);
        }
    }
    // A row that does not decode differs from the model's, and that comparison came first.
    let _ = row::decode(stored, |column, value| {
        values.insert(column, value);
    });
    let mut out = Vec::new();
    for column in &index.columns {
        key::encode(&mut out, values.get(column).unwrap_or(&Value::Null));
    }
    let mut out = keys::index_columns(&out);
    out.extend_from_slice(primary_key);
    out
}

fn topic(snapshot: &Snapshot, model: &Model, id: RelationId) -> Result<(), Difference> {
    let end_of_time = Timestamp(i64::MAX);
    let events = snapshot.events(id, 0, 0, usize::MAX, end_of_time)?;
    let found: BTreeMap<u64, _> = events.into_iter().map(|e| (e.offset, e.stored)).collect();
    let none = Vec::new();
    let expected = model.events.get(&(id, 0)).unwrap_or(&none);
    let expected: BTreeMap<u64, _> = (0..).zip(expected.iter().cloned()).collect();
    same(&format!("events of topic {id}"), &found, &expected)?;
    let next = snapshot.partition(id, 0)?.next;
    if next != expected.len() as u64 {
        return Err(wrong(format!("topic {id} goes on at offset {next} behind {} events", expected.len())));
    }
    let found = snapshot.timers(id).collect::<Result<BTreeMap<_, _>, _>>()?;
    let expected: BTreeMap<String, TimerRecord> = model
        .timers
        .iter()
        .filter(|((topic, _), _)| *topic == id)
        .map(|((_, name), timer)| {
            let record = TimerRecord {
                deliver_at: timer.due,
                sequence: timer.sequence,
                version: timer.version,
                partition: timer.partition,
                scheduled_at: timer.scheduled_at,
                event: timer.event.clone(),
                claimed: timer.claimed,
            };
            (name.clone(), record)
        })
        .collect();
    same(&format!("timers of topic {id}"), &found, &expected)?;
    for ((topic, group, partition), done) in model.done.iter().filter(|((topic, _, _), _)| *topic == id) {
        let record = snapshot.consumer(*topic, group, *partition)?;
        let found: BTreeSet<u64> = (0..record.floor).chain(record.done.iter().copied()).collect();
        if found != *done {
            let what =
                format!("group {group:?} of topic {topic} is done with {record:?}, it should be {done:?}");
            return Err(wrong(what));
        }
    }
    for ((topic, group, partition), expected) in
        model.attempts.iter().filter(|((topic, _, _), _)| *topic == id)
    {
        let found = snapshot.attempts(*topic, group, *partition)?;
        same(&format!("attempts of group {group:?} at topic {topic}"), &found, expected)?;
    }
    Ok(())
}

fn schedule(snapshot: &Snapshot, model: &Model, id: RelationId) -> Result<(), Difference> {
    let found: BTreeMap<_, _> = snapshot.schedule(id)?.map(|record| (id, record)).into_iter().collect();
    let expected: BTreeMap<_, _> =
        model.schedules.records.range(id..=id).map(|(i, r)| (*i, r.clone())).collect();
    same("schedules", &found, &expected)?;
    let mut found = BTreeMap::new();
    for running in snapshot.running(Some(id)) {
        let (id, occurrence, record) = running?;
        found.insert((id, occurrence), record);
    }
    let running = model.schedules.running.iter().filter(|((schedule, _), _)| *schedule == id);
    let expected: BTreeMap<_, _> = running.map(|(name, record)| (*name, record.clone())).collect();
    same(&format!("running of schedule {id}"), &found, &expected)?;
    let found = snapshot.runs(id).collect::<Result<Vec<_>, _>>()?;
    let all = model.schedules.runs.get(&id).map(Vec::as_slice).unwrap_or_default();
    let expected = &all[all.len().saturating_sub(SCHEDULE_HISTORY_MAX as usize)..];
    if found != expected {
        return Err(wrong(format!("the history of schedule {id} is {found:?}, it should be {expected:?}")));
    }
    Ok(())
}

/// The due order names exactly the pending timers (those of dropped topics may still go).
fn due_order(snapshot: &Snapshot, model: &Model) -> Result<(), Difference> {
    let mut found = BTreeMap::new();
    for entry in snapshot.scan(&keys::due_all(), false) {
        let (key, value) = entry?;
        let (topic, partition, timer_id): (RelationId, u32, String) =
            codec::decode("due entry", &value).map_err(ReadError::from)?;
        if !model.dropped.contains(&topic) {
            found.insert(keys::due_parts(&key), (topic, partition, timer_id));
        }
    }
    let expected: BTreeMap<_, _> = model
        .timers
        .iter()
        .map(|((topic, id), t)| (Some((t.due, t.sequence)), (*topic, t.partition, id.clone())))
        .chain(model.schedules.records.iter().filter_map(|(id, record)| {
            let pending = record.pending.as_ref()?;
            Some((Some((pending.due, pending.sequence)), (*id, 0, String::new())))
        }))
        .collect();
    same("due order", &found, &expected)
}

/// Keys that dropped relations and indexes left behind, and rows that have expired.
pub fn leftovers(snapshot: &Snapshot, model: &Model) -> Result<usize, Difference> {
    let mut count = 0;
    for tag in [tag::PURGE, tag::PURGE_INDEX, tag::BACKFILL] {
        count += snapshot.scan(&keys::all(tag, None), false).count();
    }
    for relation in &model.dropped {
        for tag in tag::OF_RELATION {
            for entry in snapshot.scan(&keys::all(tag, Some(*relation)), false) {
                entry?;
                count += 1;
            }
        }
    }
    for (id, rows) in &model.rows {
        let Some(table) = model.relations.get(id).and_then(|r| r.table()) else { continue };
        count += rows.values().filter(|row| Model::has_expired(table, row, model.time)).count();
    }
    let timers = snapshot.scan(&keys::due_all(), false).count();
    let pending = model.schedules.records.values().filter(|record| record.pending.is_some()).count();
    Ok(count + timers.saturating_sub(model.timers.len() + pending))
}

/// Every key of a range, for those who look closer.
pub fn all(snapshot: &Snapshot, range: &KeyRange) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    snapshot.scan(range, false).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_engine::store::MemoryStore;
    use chronos_proto::id::{GroupId, Index};
    use chronos_proto::schema::{Relation, RelationKind};
    use std::sync::Arc;

    const TABLE: RelationId = RelationId(16);

    /// An empty snapshot at index 3 whose model holds one table and these rows.
    fn against(rows: &[(&'static str, &'static str)]) -> Result<(), Difference> {
        let mut snapshot = Snapshot::empty(GroupId(0), Arc::new(MemoryStore::default()));
        snapshot.applied = Index(3);
        let mut model = Model::default();
        model.applied = 3;
        if !rows.is_empty() {
            let relation = Relation {
                id: TABLE,
                name: "t".into(),
                group: GroupId(0),
                version: 1,
                kind: RelationKind::Table(Table::default()),
            };
            model.relations.insert(TABLE, relation);
            model.rows.insert(TABLE, rows.iter().map(|(k, v)| (Bytes::from(*k), Bytes::from(*v))).collect());
        }
        compare(&snapshot, &model)
    }

    #[test]
    fn a_lost_relation_is_seen() {
        assert_eq!(against(&[]), Ok(()));
        assert!(matches!(against(&[("k", "v")]), Err(Difference::Wrong(_))));
    }

    #[test]
    fn a_lost_a_changed_and_an_extra_row_are_seen() {
        let map = |rows: &[(u8, u8)]| rows.iter().copied().collect::<BTreeMap<_, _>>();
        let expected = map(&[(1, 1), (2, 2)]);
        assert_eq!(same("rows", &expected, &expected), Ok(()));
        for found in [map(&[(1, 1)]), map(&[(1, 1), (2, 3)]), map(&[(1, 1), (2, 2), (3, 3)])] {
            assert!(same("rows", &found, &expected).is_err(), "{found:?}");
        }
    }
}
