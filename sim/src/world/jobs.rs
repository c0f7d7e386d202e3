//! What clients do: each job reads a snapshot and comes to a transaction, with the reads that it relies on.

use super::clients::Built;
use super::shell::GROUP;
use super::{World, lists};
use crate::checker::serial::Saw;
use crate::checker::state::index_entry;
use crate::knobs::Job;
use crate::rng::Rng;
use bytes::Bytes;
use chronos_engine::Snapshot;
use chronos_engine::keys::{self, KeyRange};
use chronos_engine::state::records::ReadError;
use chronos_engine::step::Published;
use chronos_proto::command::{Event, IndexChange, Op};
use chronos_proto::id::{ColumnId, IndexId, RelationId};
use chronos_proto::schema::{
    Column, Extra, IndexState, Relation, RelationKind, SecondaryIndex, Setting, Table, Topic,
};
use chronos_proto::time::Timestamp;
use chronos_proto::value::{Type, Value};
use chronos_proto::{codec, key, row};
use std::sync::Arc;

const ID: ColumnId = ColumnId(0);
const AMOUNT: ColumnId = ColumnId(1);
const TAG: ColumnId = ColumnId(2);
const NUMBER: ColumnId = ColumnId(3);
/// A row's time, in tables whose rows expire.
const AT: ColumnId = ColumnId(4);
/// The row into which sums are written.
const SUM_ROW: i64 = 1_000_000;
const PARTITION: u32 = 0;
/// What names of topics of dead letters begin with.
const DEAD: &str = "dead ";

/// A row of the simulator's tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) amount: i64,
    pub(super) tag: String,
    pub(super) number: i64,
    pub(super) at: Option<Timestamp>,
}

impl Row {
    fn encode(&self) -> Bytes {
        let mut columns = vec![
            (AMOUNT, Value::Int(self.amount)),
            (TAG, Value::Text(self.tag.clone())),
            (NUMBER, Value::Int(self.number)),
        ];
        columns.extend(self.at.map(|at| (AT, Value::Timestamp(at.0))));
        row::encode(columns.iter().map(|(column, value)| (*column, value)))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Row, ReadError> {
        let mut out = Row::default();
        row::decode(bytes, |column, value| match (column, value) {
            (AMOUNT, Value::Int(amount)) => out.amount = amount,
            (TAG, Value::Text(tag)) => out.tag = tag,
            (NUMBER, Value::Int(number)) => out.number = number,
            (AT, Value::Timestamp(at)) => out.at = Some(Timestamp(at)),
            _ => {}
        })?;
        Ok(out)
    }
}

pub(super) fn primary_key(id: i64) -> Bytes {
    let mut out = Vec::with_capacity(9);
    key::encode(&mut out, &Value::Int(id));
    Bytes::from(out)
}

fn relations<'a>(snapshot: &'a Snapshot, wanted: impl Fn(&Relation) -> bool + 'a) -> Vec<Arc<Relation>> {
    snapshot.catalog.iter().filter(|r| wanted(r)).cloned().collect()
}

/// Tables with a key that these jobs write to: what a UNIQUE admits is looked after by SQL alone.
fn keyed(relation: &Relation) -> bool {
    relation.name != lists::TABLE
        && relation.table().is_some_and(|table| {
            !table.primary_key.is_empty() && !table.indexes.iter().any(|index| table.is_unique(index.id))
        })
}

impl Built {
    pub(super) fn on(relation: &Relation) -> Built {
        let mut built = Built::default();
        built.uses(relation);
        built
    }

    pub(super) fn uses(&mut self, relation: &Relation) {
        self.reads.push(KeyRange::point(keys::catalog(relation.id)));
        self.saw.push(Saw::Relation(relation.id, Some(relation.version)));
    }

    /// Counts the events of a topic that are released at `read`, and notes when the next one is.
    fn counts(&mut self, snapshot: &Snapshot, topic: &Relation, read: Timestamp) -> Result<(), ReadError> {
        self.uses(topic);
        self.reads.push(KeyRange::point(keys::partition(topic.id, PARTITION)));
        let events = snapshot.events(topic.id, PARTITION, 0, usize::MAX, Timestamp(i64::MAX))?;
        let released = events.iter().take_while(|e| e.stored.released_at() <= read).count();
        self.saw.push(Saw::Released(topic.id, released as u64));
        self.valid_until = events.get(released).map(|e| e.stored.released_at());
        Ok(())
    }

    /// Writes a row, or deletes it, over what the snapshot has.
    pub(super) fn put(
        &mut self,
        snapshot: &Snapshot,
        relation: &Relation,
        id: i64,
        change: impl FnOnce(Option<Row>) -> Option<Row>,
    ) -> Result<(), ReadError> {
        let Some(table) = relation.table() else { return Ok(()) };
        let key = primary_key(id);
        let state_key = keys::row(relation.id, &key);
        let old = snapshot.get(&state_key)?;
        self.reads.push(KeyRange::point(state_key.clone()));
        self.saw.push(Saw::Row(relation.id, key.clone(), old.clone()));
        let decoded = old.as_deref().map(Row::decode).transpose()?;
        let at = table.ttl().map(|_| snapshot.applied_time);
        let new = change(decoded).map(|row| Row { at, ..row }.encode());
        let replaces = old.as_ref().map_or(0, |old| codec::digest(&state_key, old));
        let mut indexes = Vec::new();
        for index in &table.indexes {
            let entry = |row: &Bytes| Bytes::from(index_entry(table, index, &key, row));
            let (before, after) = (old.as_ref().map(entry), new.as_ref().map(entry));
            if before == after {
                continue;
            }
            let change = |key: Bytes, present: bool| IndexChange { index: index.id, key, present };
            indexes.extend(before.map(|key| change(key, false)));
            indexes.extend(after.map(|key| change(key, true)));
        }
        let relation = relation.id;
        match (new, old) {
            (Some(row), _) => self.ops.push(Op::PutRow { relation, key, row, replaces, indexes }),
            (None, Some(_)) => self.ops.push(Op::DeleteRow { relation, key, replaces, indexes }),
            (None, None) => {}
        }
        Ok(())
    }
}

impl World {
    /// The transaction that a job comes to; none if there is nothing to do it with.
    pub(super) fn build(
        &mut self,
        m: usize,
        job: Job,
        view: &Published,
        rng: &mut Rng,
    ) -> Result<Option<Built>, ReadError> {
        let snapshot = &view.snapshot;
        let tables = relations(snapshot, keyed);
        let topics = relations(snapshot, |r| r.topic().is_some() && !holds_dead_letters(r));
        let table = (!tables.is_empty()).then(|| rng.pick(&tables).clone());
        let topic = (!topics.is_empty()).then(|| rng.pick(&topics).clone());
        let built = match job {
            Job::Put | Job::Delete | Job::Transfer | Job::Sum | Job::Bulk => {
                let Some(table) = table else { return Ok(None) };
                let mut built = self.write_rows(job, snapshot, &table, rng)?;
                if let Some(topic) = topic.filter(|_| job == Job::Sum && rng.chance(300)) {
                    let read = view.read_time(self.machines[m].clock.now(self.now).mono);
                    built.counts(snapshot, &topic, read)?;
                }
                built
            }
            Job::Append => {
                let hidden = relations(snapshot, |r| r.table().is_some_and(|t| t.primary_key.is_empty()));
                let Some(table) = hidden.first() else { return Ok(None) };
                self.append_rows(table, rng)
            }
            Job::Publish | Job::Claim | Job::Schedule | Job::ScheduleClaim => {
                let Some(topic) = topic else { return Ok(None) };
                let mut built = Built::on(&topic);
                let count = if matches!(job, Job::Publish | Job::Schedule) { rng.range(1, 3) } else { 1 };
                for _ in 0..count {
                    let op = self.publish_op(m, job, view, &topic, rng);
                    built.ops.push(op);
                }
                if let Some(dead) = topic.topic().and_then(Topic::dead_letter)
                    && rng.chance(100)
                {
                    redrive(snapshot, &topic, dead, &mut built, rng)?;
                }
                built
            }
            Job::Reschedule | Job::Cancel => {
                let Some(topic) = topic else { return Ok(None) };
                let mut built = Built::on(&topic);
                self.change_timer(m, job, view, &topic, &mut built, rng)?;
                built
            }
            Job::Mixed => {
                let (Some(table), Some(topic)) = (table, topic) else { return Ok(None) };
                let mut built = self.write_rows(Job::Put, snapshot, &table, rng)?;
                built.uses(&topic);
                let ops = [
                    self.publish_op(m, Job::Publish, view, &topic, rng),
                    self.publish_op(m, Job::Schedule, view, &topic, rng),
                ];
                built.ops.extend(ops);
                self.change_timer(m, Job::Cancel, view, &topic, &mut built, rng)?;
                built
            }
            Job::Create => self.create(snapshot, rng),
            Job::Drop => match drop_relation(snapshot, rng) {
                Some(built) => built,
                None => return Ok(None),
            },
            Job::Index | Job::DropIndex => match change_index(job, snapshot, rng) {
                Some(built) => built,
                None => return Ok(None),
            },
            Job::Recur => return self.recur(m, view, rng),
            Job::Trigger => return Ok(self.trigger(view, rng)),
            Job::RunStatement => return self.run_statement(m, view, rng),
            Job::List | Job::Read | Job::Sql | Job::SqlSchema => return Ok(None),
        };
        Ok((!built.ops.is_empty()).then_some(built))
    }

    fn write_rows(
        &mut self,
        job: Job,
        snapshot: &Snapshot,
        table: &Relation,
        rng: &mut Rng,
    ) -> Result<Built, ReadError> {
        let mut built = Built::on(table);
        let id = rng.below(self.knobs.keys) as i64;
        let number = self.next_number() as i64;
        match job {
            Job::Delete => built.put(snapshot, table, id, |_| None)?,
            Job::Transfer => {
                let to = rng.below(self.knobs.keys) as i64;
                let moved = rng.below(50) as i64;
                let with = |row: Option<Row>, more: i64| {
                    let row = row.unwrap_or_default();
                    Some(Row { amount: row.amount + more, number, ..row })
                };
                built.put(snapshot, table, id, |row| with(row, -moved))?;
                if to != id {
                    built.put(snapshot, table, to, |row| with(row, moved))?;
                }
            }
            Job::Sum => {
                let to = id + 1 + rng.below(self.knobs.keys) as i64;
                let (from, to) = (primary_key(id), primary_key(to));
                let range = KeyRange { start: keys::row(table.id, &from), end: keys::row(table.id, &to) };
                let mut rows = Vec::new();
                let mut amount = 0;
                for entry in snapshot.scan(&range, false) {
                    let (key, value) = entry?;
                    amount += Row::decode(&value)?.amount;
                    rows.push((Bytes::copy_from_slice(keys::row_primary_key(&key)), value));
                }
                built.reads.push(range);
                built.saw.push(Saw::Rows(table.id, from, to, rows));
                let sum = Row { amount, tag: "sum".into(), number, at: None };
                built.put(snapshot, table, SUM_ROW + (id % 4), |_| Some(sum))?;
            }
            Job::Bulk => {
                let bytes = *rng.pick(&[100, 2_000, 9_000]);
                for place in 0..rng.range(2, 40) as i64 {
                    let tag = "x".repeat(bytes);
                    let row = Row { amount: place, tag, number: number + place, at: None };
                    built.put(snapshot, table, 10_000 + place, |_| Some(row))?;
                }
                self.last_number += 40;
            }
            _ => {
                let tag = format!("tag {}", rng.below(5));
                let row = Row { amount: rng.below(1_000) as i64, tag, number, at: None };
                built.put(snapshot, table, id, |_| Some(row))?;
            }
        }
        Ok(built)
    }

    fn append_rows(&mut self, relation: &Relation, rng: &mut Rng) -> Built {
        let mut built = Built::on(relation);
        let Some(table) = relation.table() else { return built };
        for _ in 0..rng.range(1, 3) {
            let number = self.next_number() as i64;
            let row =
                Row { amount: rng.below(100) as i64, tag: format!("tag {}", rng.below(5)), number, at: None }
                    .encode();
            // The entry without the rowid's key, which apply appends.
            let columns =
                |index: &SecondaryIndex| (index.id, Bytes::from(index_entry(table, index, &[], &row)));
            let indexes = table.indexes.iter().map(columns).collect();
            built.ops.push(Op::AppendRow { relation: relation.id, row, indexes });
        }
        built
    }

    fn publish_op(&mut self, m: usize, job: Job, view: &Published, topic: &Relation, rng: &mut Rng) -> Op {
        let number = self.next_number();
        let claim = matches!(job, Job::Claim | Job::ScheduleClaim);
        let message_id = match claim {
            true => format!("shared {}", rng.below(self.knobs.shared_ids)),
            false => format!("m{number}"),
        };
        let mut payload = number.to_be_bytes().to_vec();
        let most = *rng.pick(&[1, 40, 3_000]);
        payload.resize(8 + rng.below(most) as usize, 0xEE);
        let event = Event {
            message_id: message_id.clone(),
            key: rng.chance(300).then(|| format!("key {}", rng.below(4))),
            headers: None,
            payload: Bytes::from(payload),
        };
        let topic = topic.id;
        match job {
            Job::Publish | Job::Claim => Op::Publish { topic, partition: PARTITION, event, claim },
            _ => {
                let deliver_at = self.due_time(m, view, rng);
                Op::Schedule { topic, partition: PARTITION, timer_id: message_id, event, deliver_at, claim }
            }
        }
    }

    /// Around the wheel's slots, its window's edge, the present, and anywhere.
    fn due_time(&mut self, m: usize, view: &Published, rng: &mut Rng) -> Timestamp {
        let now = view.clock.at(self.machines[m].clock.now(self.now).mono);
        let spread = self.knobs.timer_spread.max(1);
        let around = |rng: &mut Rng, at: i64| at + rng.range(0, 4_000) as i64 - 2_000;
        let from_now = match rng.below(10) {
            0 => -(rng.below(5_000_000) as i64),
            1 => 0,
            2 => around(rng, self.knobs.wheel_window),
            3 => {
                let slot = *rng.pick(&[64_000i64, 4_096_000, 262_144_000]);
                let next = (now.0 / slot + 1) * slot;
                return Timestamp(next + *rng.pick(&[-1_000, -1, 0, 0, 1, 1_000]));
            }
            4 => {
                let aligned = (now.0 + rng.below(spread) as i64) / 1_000 * 1_000;
                return Timestamp(aligned);
            }
            5 => rng.below(60_000) as i64,
            6 => 3_600_000_000 + rng.below(86_400_000_000) as i64,
            _ => rng.below(spread) as i64,
        };
        Timestamp(now.0 + from_now)
    }

    fn change_timer(
        &mut self,
        m: usize,
        job: Job,
        view: &Published,
        topic: &Relation,
        built: &mut Built,
        rng: &mut Rng,
    ) -> Result<(), ReadError> {
        let snapshot = &view.snapshot;
        let mut known = Vec::new();
        for timer in snapshot.timers(topic.id).take(50) {
            known.push(timer?.0);
        }
        let timer_id = match known.is_empty() || rng.chance(100) {
            true => format!("shared {}", rng.below(self.knobs.shared_ids)),
            false => rng.pick(&known).clone(),
        };
        let read = rng.chance(400);
        let mut if_version = None;
        if read {
            let version = snapshot.timer(topic.id, &timer_id)?.map(|timer| timer.version);
            built.reads.push(KeyRange::point(keys::timer(topic.id, &timer_id)));
            built.saw.push(Saw::Timer(topic.id, timer_id.clone(), version));
            if rng.chance(500) {
                if_version = version;
            }
        } else if rng.chance(100) {
            if_version = Some(1);
        }
        let topic = topic.id;
        built.ops.push(match job {
            Job::Cancel => Op::Cancel { topic, timer_id, if_version },
            _ => Op::Reschedule {
                topic,
                timer_id,
                if_version,
                deliver_at: rng.chance(800).then(|| self.due_time(m, view, rng)),
                payload: None,
                headers: rng.chance(200).then(|| r#"{"moved":true}"#.to_owned()),
            },
        });
        Ok(())
    }

    fn create(&mut self, snapshot: &Snapshot, rng: &mut Rng) -> Built {
        let names = ["t0", lists::TABLE, "e0", "h0", "t1", "e1"];
        let missing = names.into_iter().find(|name| snapshot.catalog.by_name(name).is_none());
        let name = missing.map_or_else(
            || format!("{}{}", rng.pick(&["t", "e", "h"]), 2 + self.next_number()),
            str::to_owned,
        );
        let columns = |has_id: bool| {
            let column = |id: ColumnId, name: &str, ty: Type| Column {
                id,
                name: name.into(),
                ty,
                not_null: id == ID,
                default: None,
            };
            let mut columns = vec![
                column(AMOUNT, "amount", Type::Int),
                column(TAG, "tag", Type::Text),
                column(NUMBER, "number", Type::Int),
            ];
            if has_id {
                columns.insert(0, column(ID, "id", Type::Int));
            }
            columns
        };
        let kind = match name.as_bytes()[0] {
            b'e' => RelationKind::Topic(Topic {
                partitions: 1,
                dedup_micros: self.knobs.dedup,
                payload: Type::Bytes,
                settings: Vec::new(),
            }),
            first => {
                let has_id = first != b'h';
                let mut table = Table {
                    columns: columns(has_id),
                    primary_key: if has_id { vec![ID] } else { Vec::new() },
                    indexes: Vec::new(),
                    next_column: 4,
                    next_index: 1,
                    extras: Vec::new(),
                };
                if first == b't' && self.knobs.ttl > 0 && rng.chance(500) {
                    expire(&mut table, &name, self.knobs.ttl);
                }
                RelationKind::Table(table)
            }
        };
        let id = snapshot.catalog.next_id();
        let mut relation = Relation { id, name, group: GROUP, version: 1, kind };
        let mut ops = Vec::new();
        if self.knobs.max_deliveries > 0
            && let Some(topic) = relation.topic_mut()
        {
            let dead = RelationId(id.0 + 1);
            let kind = RelationKind::Topic(topic.clone());
            topic.settings =
                vec![Setting::MaxDeliveries(self.knobs.max_deliveries), Setting::DeadLetter(dead)];
            let name = format!("{DEAD}{}", relation.name);
            ops.push(Op::PutRelation(Relation { id: dead, name, group: GROUP, version: 1, kind }));
        }
        ops.push(Op::PutRelation(relation));
        let (reads, saw) = (vec![keys::catalog_all()], vec![Saw::Relation(id, None)]);
        Built { ops, reads, saw, ..Built::default() }
    }
}

/// Whether it is a topic of dead letters: nobody else publishes there.
pub(super) fn holds_dead_letters(relation: &Relation) -> bool {
    relation.name.starts_with(DEAD)
}

/// Publishes some of a topic's dead letters again.
fn redrive(
    snapshot: &Snapshot,
    topic: &Relation,
    dead: RelationId,
    built: &mut Built,
    rng: &mut Rng,
) -> Result<(), ReadError> {
    let from = rng.below(4);
    for letter in snapshot.events(dead, PARTITION, from, 3, snapshot.applied_time)? {
        built.ops.push(Op::Redrive { dead, partition: PARTITION, offset: letter.offset, source: topic.id });
    }
    Ok(())
}

/// Makes the rows of a new table expire.
fn expire(table: &mut Table, name: &str, micros: u64) {
    let (column, index) = (AT, IndexId(table.next_index));
    table.columns.push(Column {
        id: AT,
        name: "at".into(),
        ty: Type::Timestamp,
        not_null: false,
        default: None,
    });
    table.next_column += 1;
    table.next_index += 1;
    let name = format!("{name}_ttl");
    table.indexes.push(SecondaryIndex { id: index, name, columns: vec![AT], state: IndexState::Public });
    table.extras.push(Extra::Ttl { column, index, micros });
}

fn drop_relation(snapshot: &Snapshot, rng: &mut Rng) -> Option<Built> {
    let all = relations(snapshot, |relation| relation.name != lists::TABLE);
    if all.is_empty() {
        return None;
    }
    let relation = rng.pick(&all);
    let mut built = Built { reads: vec![keys::catalog_all()], ..Built::default() };
    built.uses(relation);
    built.ops.push(Op::DropRelation(relation.id));
    Some(built)
}

fn change_index(job: Job, snapshot: &Snapshot, rng: &mut Rng) -> Option<Built> {
    let tables = relations(snapshot, |r| r.table().is_some());
    if tables.is_empty() {
        return None;
    }
    let old: &Relation = &tables[rng.below(tables.len() as u64) as usize];
    let mut relation = old.clone();
    relation.version += 1;
    let RelationKind::Table(table) = &mut relation.kind else { return None };
    match job {
        Job::Index if table.indexes.len() < 3 => {
            let id = IndexId(table.next_index);
            table.next_index += 1;
            let columns = rng.pick(&[vec![AMOUNT], vec![TAG], vec![TAG, AMOUNT]]).clone();
            let name = format!("{}_{}", old.name, id.0);
            table.indexes.push(SecondaryIndex { id, name, columns, state: IndexState::WriteOnly });
        }
        Job::DropIndex => {
            let needed = table.ttl().map(|(_, index, _)| index);
            let plain = |id: &IndexId| Some(*id) != needed && !table.is_unique(*id);
            let others: Vec<IndexId> = table.indexes.iter().map(|i| i.id).filter(plain).collect();
            if others.is_empty() {
                return None;
            }
            let gone = *rng.pick(&others);
            table.indexes.retain(|i| i.id != gone);
        }
        _ => return None,
    }
    let mut built = Built { reads: vec![keys::catalog_all()], ..Built::default() };
    built.uses(old);
    built.ops.push(Op::PutRelation(relation));
    Some(built)
}
