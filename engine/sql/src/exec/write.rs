//! Writes: rows, events and timers become operations, and are seen by the transaction that made them.

use super::checked;
use super::eval::EvalCx;
use super::insert::Known;
use super::reads::Reads;
use super::scan::{decode_row, read_error, store_error};
use crate::error::{SqlError, SqlState};
use crate::func;
use crate::text::format;
use bytes::Bytes;
use chronos_engine::Snapshot;
use chronos_engine::bugs::{Bug, active};
use chronos_engine::keys;
use chronos_engine::state::records::TimerRecord;
use chronos_proto::command::IndexChange;
use chronos_proto::id::{ColumnId, GroupId, Index, IndexId, RelationId};
use chronos_proto::schema::{Relation, SecondaryIndex, Table};
use chronos_proto::time::Timestamp;
use chronos_proto::{Event, Op, Value, codec, key, limits, row};
use std::borrow::{Borrow, Cow};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a transaction has done so far.
#[derive(Clone)]
pub(crate) struct Writes {
    /// The state it began at, with its own writes in it.
    pub view: Snapshot,
    pub reads: Reads,
    /// In order; none where a later statement took one back.
    ops: Vec<Option<Op>>,
    bytes: usize,
    limit: usize,
    /// Rows of hidden-rowid tables inserted here, by their provisional rowid: the operation that inserts each.
    appended: BTreeMap<(RelationId, i64), usize>,
    /// Of keys inserted, where the view need not show them.
    known: Known,
    /// Timers scheduled, changed or cancelled here.
    timers: BTreeSet<(RelationId, String)>,
    /// Whether later statements may look at what was written.
    seen_later: bool,
    /// Numbers that sequences gave to this statement.
    pub given: Vec<(RelationId, i64)>,
    /// The transaction's time, by which rows have expired or not.
    now: Timestamp,
    /// Groups that keep what is written.
    targets: BTreeSet<GroupId>,
    /// Timers changed or cancelled in other groups.
    foreign_timers: bool,
}

impl Writes {
    pub fn new(view: Snapshot, now: Timestamp, limit: usize, seen_later: bool) -> Writes {
        Writes {
            view,
            reads: Reads::default(),
            ops: Vec::new(),
            bytes: 0,
            limit,
            appended: BTreeMap::new(),
            known: Known::default(),
            timers: BTreeSet::new(),
            seen_later,
            given: Vec::new(),
            now,
            targets: BTreeSet::new(),
            foreign_timers: false,
        }
    }

    /// From now on what is written is seen by the same statement.
    pub fn look_back(&mut self) {
        self.seen_later = true;
    }

    pub fn is_empty(&self) -> bool {
        self.ops.iter().all(Option::is_none)
    }

    pub fn into_parts(self) -> (Reads, Vec<Op>) {
        (self.reads, self.ops.into_iter().flatten().collect())
    }

    /// The group to commit in, and the index that it was read at. Events for partitions in one other group go straight
    /// there if nothing else was read or written; with others they leave through this group's outbox.
    pub fn home(&self) -> Result<(GroupId, Index), SqlError> {
        let here = (self.view.group, self.view.applied);
        let mut targets = self.targets.iter().filter(|target| **target != here.0);
        let (first, others) = (targets.next(), targets.next().is_some() || self.targets.contains(&here.0));
        let there = first.filter(|_| !others && !self.seen_later).and_then(|target| self.view.of(*target));
        if self.foreign_timers {
            return there.map(|view| (view.group, view.applied)).ok_or_else(|| {
                SqlError::unsupported("changing timers of partitions in several groups in one statement")
                    .hint("name the topic and the timer_id")
            });
        }
        let timers_alone =
            self.ops.iter().flatten().all(|op| matches!(op, Op::Cancel { .. } | Op::Reschedule { .. }));
        if self.reads.is_elsewhere() && !timers_alone {
            return Err(SqlError::unsupported(
                "a transaction that reads topics of several partitions and writes",
            ));
        }
        let known = |view: &&Snapshot| {
            let topics = self.ops.iter().flatten().filter_map(|op| match op {
                Op::Publish { topic, .. } | Op::Schedule { topic, .. } => Some(topic),
                _ => None,
            });
            topics.into_iter().all(|topic| view.catalog.get(*topic).is_some())
        };
        match there.filter(known) {
            Some(view) if self.reads.is_catalog_alone() => Ok((view.group, view.applied)),
            _ => Ok(here),
        }
    }

    pub fn push(&mut self, op: Op, bytes: usize) -> Result<usize, SqlError> {
        self.push_to(self.view.group, op, bytes)
    }

    fn push_to(&mut self, target: GroupId, op: Op, bytes: usize) -> Result<usize, SqlError> {
        self.targets.insert(target);
        self.bytes += bytes + 64;
        if self.bytes > self.limit {
            return Err(SqlError::new(
                SqlState::LIMIT_EXCEEDED,
                format!("the transaction's writes are more than the limit of {} MB", self.limit >> 20),
            )
            .hint("split it into several transactions"));
        }
        self.ops.push(Some(op));
        Ok(self.ops.len() - 1)
    }

    /// Whether the key of a row is there, this transaction's own included.
    pub fn holds(&mut self, relation: RelationId, state_key: &Bytes) -> Result<bool, SqlError> {
        if self.seen_later {
            return Ok(self.view.get(state_key).map_err(store_error)?.is_some());
        }
        self.known.holds(&self.view, relation, state_key)
    }

    /// Inserts a row under a state key that is not there.
    pub fn insert(
        &mut self,
        relation: RelationId,
        state_key: Bytes,
        row: Bytes,
        indexes: Vec<IndexChange>,
    ) -> Result<(), SqlError> {
        let primary = state_key.slice_ref(keys::row_primary_key(&state_key));
        if self.seen_later {
            self.show(relation, &state_key, Some(row.clone()), &indexes);
        } else {
            self.known.insert(state_key);
        }
        let bytes = primary.len() + row.len();
        self.push(Op::PutRow { relation, key: primary, row, replaces: 0, indexes }, bytes)?;
        Ok(())
    }

    /// Inserts a row under a hidden rowid. `indexes` are its encoded index columns.
    pub fn append(
        &mut self,
        relation: RelationId,
        row: Bytes,
        indexes: Vec<(IndexId, Bytes)>,
    ) -> Result<(), SqlError> {
        let shown = self.seen_later.then(|| (row.clone(), indexes.clone()));
        let bytes = row.len();
        let at = self.push(Op::AppendRow { relation, row, indexes }, bytes)?;
        if let Some((row, indexes)) = shown {
            // Far above every real rowid, in the order of insertion.
            let provisional = i64::MAX - (1 << 40) + at as i64;
            self.appended.insert((relation, provisional), at);
            let primary = keys::rowid_primary_key(provisional);
            let entry = |(index, columns): (IndexId, Bytes)| {
                let key = Bytes::from([&columns[..], &primary].concat());
                IndexChange { index, key, present: true }
            };
            let indexes: Vec<IndexChange> = indexes.into_iter().map(entry).collect();
            self.show(relation, &keys::row(relation, &primary), Some(row), &indexes);
        }
        Ok(())
    }

    fn append_op(&self, relation: RelationId, table: &Table, values: &[Value], row: Bytes) -> Op {
        let indexes =
            table.indexes.iter().map(|i| (i.id, Bytes::from(index_columns(table, i, values)))).collect();
        Op::AppendRow { relation, row, indexes }
    }

    /// Makes a write visible to this transaction's own reads.
    fn show(&mut self, relation: RelationId, key: &Bytes, row: Option<Bytes>, indexes: &[IndexChange]) {
        self.view.write(key.clone(), row);
        for change in indexes {
            let entry = keys::index_entry(relation, change.index, &change.key);
            self.view.write(entry, change.present.then(Bytes::new));
        }
    }

    /// Changes a row. `old` and `new` are its values, with the hidden rowid behind where there is one.
    pub fn update(
        &mut self,
        relation: &Relation,
        table: &Table,
        old: &[Value],
        new: &[Value],
    ) -> Result<(), SqlError> {
        check_not_null(relation, table, new)?;
        let row = encode_row(table, new)?;
        let (before, after) = (row_key(table, old)?, row_key(table, new)?);
        let state_key = keys::row(relation.id, &before);
        if before != after {
            self.delete(relation, table, old)?;
            let target = keys::row(relation.id, &after);
            if self.standing(relation, table, &after)?.is_some() {
                return Err(duplicate(relation, table, &after));
            }
            self.check_unique(relation, table, new, |_| true)?;
            let indexes = entries(table, new, &after, true);
            self.show(relation.id, &target, Some(row.clone()), &indexes);
            let bytes = after.len() + row.len();
            self.push(Op::PutRow { relation: relation.id, key: after, row, replaces: 0, indexes }, bytes)?;
            return Ok(());
        }
        let stored = self.stored(&state_key)?;
        self.check_unique(relation, table, new, |index| {
            index_columns(table, index, old) != index_columns(table, index, new)
        })?;
        let mut indexes = Vec::new();
        for index in &table.indexes {
            let gone = entry(table, index, old, &before, false);
            let come = entry(table, index, new, &before, true);
            if gone.key != come.key && !active(Bug::UpdateMissesIndex) {
                indexes.extend([gone, come]);
            }
        }
        self.show(relation.id, &state_key, Some(row.clone()), &indexes);
        if let Some(at) = self.own_append(relation.id, old, table) {
            self.ops[at] = Some(self.append_op(relation.id, table, new, row));
            return Ok(());
        }
        let replaces = codec::digest(&state_key, &stored);
        let bytes = before.len() + row.len();
        self.push(Op::PutRow { relation: relation.id, key: before, row, replaces, indexes }, bytes)?;
        Ok(())
    }

    /// Whether a row's values stand in the unique indexes that are asked for already.
    fn check_unique(
        &mut self,
        relation: &Relation,
        table: &Table,
        values: &[Value],
        asked: impl Fn(&SecondaryIndex) -> bool,
    ) -> Result<(), SqlError> {
        for index in table.indexes.iter().filter(|i| table.is_unique(i.id) && asked(i)) {
            if let Some(primary) = checked::find_equal(relation, table, index, values, self)?
                && self.standing(relation, table, &primary)?.is_some()
            {
                return Err(checked::unique_violation(table, index.id, values));
            }
        }
        Ok(())
    }

    /// The row under a primary key, with the hidden rowid behind where there is one. One that has expired makes room.
    pub fn standing(
        &mut self,
        relation: &Relation,
        table: &Table,
        primary: &[u8],
    ) -> Result<Option<Vec<Value>>, SqlError> {
        let state_key = keys::row(relation.id, primary);
        self.reads.point(state_key.clone());
        let Some(stored) = self.view.get(&state_key).map_err(store_error)? else { return Ok(None) };
        let values = decode_row(table, primary, &stored)?;
        if !self.has_expired(table, &values) {
            return Ok(Some(values));
        }
        self.delete(relation, table, &values)?;
        Ok(None)
    }

    fn has_expired(&self, table: &Table, values: &[Value]) -> bool {
        let Some((time, _, micros)) = table.ttl() else { return false };
        let time = table.place(time).and_then(|place| values.get(place));
        matches!(time, Some(Value::Timestamp(t)) if *t <= self.now.0.saturating_sub_unsigned(micros))
    }

    /// Deletes a row. `old` are its values, with the hidden rowid behind where there is one.
    pub fn delete(&mut self, relation: &Relation, table: &Table, old: &[Value]) -> Result<(), SqlError> {
        let primary = row_key(table, old)?;
        let state_key = keys::row(relation.id, &primary);
        let stored = self.stored(&state_key)?;
        let indexes = entries(table, old, &primary, false);
        self.show(relation.id, &state_key, None, &indexes);
        if let Some(at) = self.own_append(relation.id, old, table) {
            self.ops[at] = None;
            return Ok(());
        }
        let replaces = codec::digest(&state_key, &stored);
        let bytes = primary.len();
        self.push(Op::DeleteRow { relation: relation.id, key: primary, replaces, indexes }, bytes)?;
        Ok(())
    }

    fn stored(&self, state_key: &Bytes) -> Result<Bytes, SqlError> {
        self.view.get(state_key).map_err(store_error)?.ok_or_else(|| {
            SqlError::new(SqlState::SERIALIZATION_FAILURE, "a row was changed twice by one statement")
        })
    }

    fn own_append(&self, relation: RelationId, values: &[Value], table: &Table) -> Option<usize> {
        match values.get(table.columns.len()) {
            Some(Value::Int(rowid)) => self.appended.get(&(relation, *rowid)).copied(),
            _ => None,
        }
    }

    /// Publishes or schedules what an INSERT into a topic says: its columns are those of [`crate::system::topic_columns`].
    pub fn publish(
        &mut self,
        relation: &Relation,
        values: &[Cow<'_, Value>],
        cx: &EvalCx<'_>,
    ) -> Result<(), SqlError> {
        self.reads.relation(relation.id);
        let given = take_text(&values[2]);
        let claim = given.is_some();
        let message_id = given.unwrap_or_else(|| format((&Value::Uuid(func::uuid(cx))).into()));
        let event = event(message_id.clone(), &values[3], &values[4], &values[5])?;
        match &*values[7] {
            Value::Timestamp(at) => self.schedule(relation, message_id, event, *at, claim, cx),
            _ => {
                let bytes = event.payload.len() + 128;
                let partition = partition(relation, &event);
                let op = Op::Publish { topic: relation.id, partition, event, claim };
                self.push_to(relation.home(partition), op, bytes)?;
                Ok(())
            }
        }
    }

    fn schedule(
        &mut self,
        relation: &Relation,
        timer_id: String,
        event: Event,
        at: i64,
        claim: bool,
        cx: &EvalCx<'_>,
    ) -> Result<(), SqlError> {
        let deliver_at = delivery_time(at)?;
        let partition = partition(relation, &event);
        let home = relation.home(partition);
        if self.seen_later && home == self.view.group {
            let state_key = keys::timer(relation.id, &timer_id);
            if self.view.get(&state_key).map_err(store_error)?.is_none() {
                let record = TimerRecord {
                    deliver_at,
                    sequence: 0,
                    version: 1,
                    partition,
                    scheduled_at: Timestamp(cx.now),
                    event: event.clone(),
                    claimed: claim,
                };
                self.view.write(state_key, Some(Bytes::from(codec::encode(&record))));
            }
        }
        if self.seen_later {
            self.timers.insert((relation.id, timer_id.clone()));
        }
        let bytes = event.payload.len() + 256;
        let op = Op::Schedule { topic: relation.id, partition, timer_id, event, deliver_at, claim };
        self.push_to(home, op, bytes)?;
        Ok(())
    }

    /// INSERT INTO chronos.timers: its columns are those of [`crate::system::TIMER_COLUMNS`].
    pub fn insert_timer(&mut self, values: &[Cow<'_, Value>], cx: &EvalCx<'_>) -> Result<(), SqlError> {
        let null = |column: &str| {
            SqlError::new(
                SqlState::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{column}\" of relation \"timers\" violates not-null constraint"
                ),
            )
        };
        let Value::Text(topic) = &*values[0] else { return Err(null("topic")) };
        let relation = self.topic(topic)?;
        self.reads.relation(relation.id);
        let given = take_text(&values[1]);
        let claim = given.is_some();
        let timer_id = given.unwrap_or_else(|| format((&Value::Uuid(func::uuid(cx))).into()));
        let event = event(timer_id.clone(), &values[2], &values[3], &values[4])?;
        let Value::Timestamp(at) = &*values[5] else { return Err(null("deliver_at")) };
        self.schedule(&relation, timer_id, event, *at, claim, cx)
    }

    fn topic(&self, name: &str) -> Result<Arc<Relation>, SqlError> {
        let found = self.view.catalog.by_name(name).filter(|r| r.topic().is_some()).cloned();
        found.ok_or_else(|| {
            SqlError::new(SqlState::UNDEFINED_TABLE, format!("topic \"{name}\" does not exist"))
        })
    }

    /// Changes a pending timer. False if it has fired already and only waits for its release.
    pub fn update_timer(
        &mut self,
        old: &[Value],
        new: &[Value],
        changed: &[usize],
    ) -> Result<bool, SqlError> {
        let Some((home, topic, timer_id, if_version)) = self.timer(old)? else { return Ok(false) };
        let has = |place: usize| changed.contains(&place);
        let deliver_at = match &new[5] {
            Value::Timestamp(at) if has(5) => Some(delivery_time(*at)?),
            Value::Null if has(5) => {
                return Err(SqlError::new(
                    SqlState::NOT_NULL_VIOLATION,
                    "null value in column \"deliver_at\" of relation \"timers\" violates not-null constraint",
                ));
            }
            _ => None,
        };
        let changed_event = event(timer_id.clone(), &Value::Null, &new[3], &new[4])?;
        let payload = has(4).then(|| changed_event.payload.clone());
        let headers = has(3).then(|| changed_event.headers.clone().unwrap_or_else(|| "{}".into()));
        if let Some(mut record) = self.view.timer(topic, &timer_id).map_err(read_error)?
            && home == self.view.group
        {
            record.deliver_at = deliver_at.unwrap_or(record.deliver_at);
            record.version += 1;
            if let Some(payload) = &payload {
                record.event.payload = payload.clone();
            }
            if headers.is_some() {
                record.event.headers.clone_from(&headers);
            }
            self.view.write(keys::timer(topic, &timer_id), Some(Bytes::from(codec::encode(&record))));
        }
        let bytes = payload.as_ref().map_or(0, Bytes::len) + 256;
        let op = Op::Reschedule { topic, timer_id, if_version, deliver_at, payload, headers };
        self.push_to(home, op, bytes)?;
        Ok(true)
    }

    /// Cancels a pending timer. False if it has fired already and only waits for its release.
    pub fn delete_timer(&mut self, old: &[Value]) -> Result<bool, SqlError> {
        let Some((home, topic, timer_id, if_version)) = self.timer(old)? else { return Ok(false) };
        if home == self.view.group {
            self.view.write(keys::timer(topic, &timer_id), None);
        }
        self.push_to(home, Op::Cancel { topic, timer_id, if_version }, 128)?;
        Ok(true)
    }

    /// Group, topic, id and version of a timer's row; none if it is armed. The version is left open where this
    /// transaction has touched the timer before: then it is not the one that apply will see.
    fn timer(&mut self, old: &[Value]) -> Result<Option<NamedTimer>, SqlError> {
        let (Value::Text(topic), Value::Text(id), Value::Int(version)) = (&old[0], &old[1], &old[6]) else {
            return Ok(None);
        };
        let relation = self.topic(topic)?;
        let mut home = self.view.group;
        if relation.is_partitioned() {
            home = self.home_of_timer(&relation, id, *version)?;
            self.foreign_timers = true;
        }
        let touched = !self.timers.insert((relation.id, id.clone()));
        let version = if touched { None } else { u64::try_from(*version).ok() };
        Ok(Some((home, relation.id, id.clone(), version)))
    }

    /// Which of a topic's groups has the timer of a row.
    fn home_of_timer(&self, topic: &Relation, id: &str, version: i64) -> Result<GroupId, SqlError> {
        let mut found = None;
        for home in topic.homes() {
            let Some(view) = self.view.of(home) else { continue };
            let timer = view.timer(topic.id, id).map_err(read_error)?;
            if timer.is_some_and(|timer| i64::try_from(timer.version) == Ok(version))
                && found.replace(home).is_some()
            {
                let message = format!("several partitions of topic \"{}\" have a timer \"{id}\"", topic.name);
                return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message)
                    .hint("cancel it by gRPC, which cancels all of them"));
            }
        }
        found.ok_or_else(|| SqlError::new(SqlState::SERIALIZATION_FAILURE, "the timer was changed meanwhile"))
    }
}

/// Group, topic, id and version.
type NamedTimer = (GroupId, RelationId, String, Option<u64>);

fn partition(topic: &Relation, event: &Event) -> u32 {
    topic.topic().map_or(0, |settings| settings.partition_of(event))
}

fn take_text(value: &Value) -> Option<String> {
    match value {
        Value::Text(s) => Some(s.clone()),
        _ => None,
    }
}

/// Times that a timer may have: 1970 to 9999.
fn delivery_time(at: i64) -> Result<Timestamp, SqlError> {
    if (Timestamp::EPOCH.0..=Timestamp::MAX.0).contains(&at) {
        return Ok(Timestamp(at));
    }
    Err(SqlError::new(
        SqlState::DATETIME_OVERFLOW,
        "deliver_at is out of range: it may lie between 1970 and 9999",
    ))
}

pub(crate) fn event(
    message_id: String,
    key: &Value,
    headers: &Value,
    payload: &Value,
) -> Result<Event, SqlError> {
    let key = take_text(key);
    for (what, text) in [("message id", Some(&message_id)), ("key", key.as_ref())] {
        if text.is_some_and(|t| t.len() > limits::MESSAGE_ID_MAX_BYTES) {
            return Err(SqlError::new(
                SqlState::STRING_TOO_LONG,
                format!("{what} is longer than {} bytes", limits::MESSAGE_ID_MAX_BYTES),
            ));
        }
    }
    if message_id.is_empty() {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER, "message id is empty")
            .hint("leave it out, and one is generated"));
    }
    let headers = match headers {
        Value::Json(s) if s.starts_with('{') => Some(s.clone()),
        Value::Null => None,
        _ => return Err(SqlError::new(SqlState::INVALID_PARAMETER, "headers must be a JSON object")),
    };
    let payload = match payload {
        Value::Bytes(b) => b.clone(),
        Value::Text(s) | Value::Json(s) => Bytes::copy_from_slice(s.as_bytes()),
        _ => Bytes::new(),
    };
    if payload.len() > limits::PAYLOAD_MAX_BYTES {
        return Err(SqlError::new(
            SqlState::LIMIT_EXCEEDED,
            format!(
                "payload is {} bytes, more than the limit of {}",
                payload.len(),
                limits::PAYLOAD_MAX_BYTES
            ),
        ));
    }
    Ok(Event { message_id, key, headers, payload })
}

fn check_not_null(relation: &Relation, table: &Table, values: &[Value]) -> Result<(), SqlError> {
    let null =
        table.columns.iter().zip(values).position(|(column, value)| column.not_null && value.is_null());
    null.map_or(Ok(()), |place| Err(not_null(relation, table, place, values)))
}

/// A NULL in a column that takes none.
pub(super) fn not_null<V: Borrow<Value>>(
    relation: &Relation,
    table: &Table,
    place: usize,
    values: &[V],
) -> SqlError {
    let column = &table.columns[place].name;
    let message = format!(
        "null value in column \"{column}\" of relation \"{}\" violates not-null constraint",
        relation.name
    );
    SqlError::new(SqlState::NOT_NULL_VIOLATION, message)
        .detail(format!("Failing row contains ({}).", shown(&values[..table.columns.len()])))
}

pub(super) fn shown<V: Borrow<Value>>(values: &[V]) -> String {
    let show = |v: &Value| if v.is_null() { "null".to_owned() } else { format(v.into()) };
    values.iter().map(|v| show(v.borrow())).collect::<Vec<_>>().join(", ")
}

/// A primary key that is there already.
pub(super) fn duplicate(relation: &Relation, table: &Table, primary: &[u8]) -> SqlError {
    let of = |id: &ColumnId| table.columns.iter().find(|c| c.id == *id);
    let columns: Vec<_> = table.primary_key.iter().filter_map(of).collect();
    let names = columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut rest = primary;
    let key: Vec<Value> = columns.iter().map_while(|c| key::decode(&mut rest, c.ty).ok()).collect();
    SqlError::new(
        SqlState::UNIQUE_VIOLATION,
        format!(
            "duplicate key value violates unique constraint \"{}\"",
            checked::primary_name(relation, table)
        ),
    )
    .detail(format!("Key ({names})=({}) already exists.", shown(&key)))
}

/// The columns outside the key, encoded in the order of their numbers.
pub(super) fn encode_row(table: &Table, values: &[Value]) -> Result<Bytes, SqlError> {
    let columns = table.columns.iter().zip(values);
    let columns = columns.filter(|(c, _)| !table.primary_key.contains(&c.id)).map(|(c, v)| (c.id, v));
    let mut columns: Vec<(ColumnId, &Value)> = columns.collect();
    columns.sort_by_key(|(id, _)| *id);
    let row = row::encode(columns.into_iter());
    check_row(row.len())?;
    Ok(row)
}

/// Whether an encoded row is not too long.
pub(super) fn check_row(bytes: usize) -> Result<(), SqlError> {
    check_length("row", bytes, limits::ROW_MAX_BYTES)
}

/// Whether an encoded primary key is not too long.
pub(super) fn check_key(bytes: usize) -> Result<(), SqlError> {
    check_length("primary key", bytes, limits::PRIMARY_KEY_MAX_BYTES)
}

fn check_length(what: &str, bytes: usize, limit: usize) -> Result<(), SqlError> {
    if bytes <= limit {
        return Ok(());
    }
    let message = format!("{what} is {bytes} bytes, more than the limit of {limit}");
    Err(SqlError::new(SqlState::LIMIT_EXCEEDED, message))
}

fn primary_key(table: &Table, values: &[Value]) -> Result<Bytes, SqlError> {
    let mut out = Vec::with_capacity(32);
    for id in &table.primary_key {
        if let Some(place) = table.columns.iter().position(|c| c.id == *id) {
            key::encode(&mut out, &values[place]);
        }
    }
    check_key(out.len())?;
    Ok(Bytes::from(out))
}

/// The key of a row: of its key columns, or of the hidden rowid behind its values.
fn row_key(table: &Table, values: &[Value]) -> Result<Bytes, SqlError> {
    match (table.primary_key.is_empty(), values.get(table.columns.len())) {
        (true, Some(Value::Int(rowid))) => Ok(Bytes::from(keys::rowid_primary_key(*rowid))),
        _ => primary_key(table, values),
    }
}

pub(super) fn index_columns(table: &Table, index: &SecondaryIndex, values: &[Value]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    for id in &index.columns {
        if let Some(place) = table.columns.iter().position(|c| c.id == *id) {
            key::encode(&mut out, &values[place]);
        }
    }
    keys::index_columns(&out)
}

fn entry(
    table: &Table,
    index: &SecondaryIndex,
    values: &[Value],
    primary: &[u8],
    present: bool,
) -> IndexChange {
    let mut entry = index_columns(table, index, values);
    entry.extend_from_slice(primary);
    IndexChange { index: index.id, key: Bytes::from(entry), present }
}

fn entries(table: &Table, values: &[Value], primary: &[u8], present: bool) -> Vec<IndexChange> {
    table.indexes.iter().map(|i| entry(table, i, values, primary, present)).collect()
}
