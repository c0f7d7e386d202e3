//! Whatever an entry changes that a transaction can have read, the resolver knows it: what apply does to the state is
//! compared with the keys that were recorded for the entry, by the table in `txn/mod.rs`.

use bytes::Bytes;
use chronos_engine::keys::{self, KeyRange, tag};
use chronos_engine::state::State;
use chronos_engine::store::{MemoryStore, SharedStore};
use chronos_engine::txn::resolver::{Resolver, command_keys};
use chronos_engine::txn::{Refused, Transaction};
use chronos_proto::command::{Command, Entry, Event, IndexChange, Op, TimerRef, Work};
use chronos_proto::schema::{Column, IndexState, Relation, RelationKind, SecondaryIndex, Table, Topic};
use chronos_proto::{
    ColumnId, GroupId, Index, IndexId, RelationId, RequestId, Term, Timestamp, Type, Value, codec, key, row,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const GROUP: GroupId = GroupId(0);
const KEYED: RelationId = RelationId(16);
const HIDDEN: RelationId = RelationId(17);
const TOPIC: RelationId = RelationId(18);
const INDEX: IndexId = IndexId(1);

struct World {
    state: State,
    store: SharedStore,
    time: i64,
}

fn encoded(value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    key::encode(&mut out, &Value::Int(value));
    out
}

fn row_of(value: i64) -> Bytes {
    row::encode([(ColumnId(2), &Value::Int(value))].into_iter())
}

fn relation(id: RelationId, version: u64) -> Relation {
    let column = |id| Column {
        id: ColumnId(id),
        name: format!("c{id}"),
        ty: Type::Int,
        not_null: false,
        default: None,
    };
    let index = SecondaryIndex {
        id: INDEX,
        name: format!("i{id}"),
        columns: vec![ColumnId(2)],
        state: if version == 1 { IndexState::Public } else { IndexState::WriteOnly },
    };
    let table = Table {
        columns: vec![column(1), column(2)],
        primary_key: if id == KEYED { vec![ColumnId(1)] } else { vec![] },
        indexes: vec![index],
        next_column: 3,
        next_index: 2,
        extras: Vec::new(),
    };
    let topic = Topic { partitions: 2, dedup_micros: 1_000_000, payload: Type::Bytes, settings: Vec::new() };
    let kind = if id == TOPIC { RelationKind::Topic(topic) } else { RelationKind::Table(table) };
    Relation { id, name: format!("r{id}"), group: GROUP, version, kind }
}

#[derive(Clone, Debug)]
enum Do {
    Put { id: i64, value: i64 },
    Delete { id: i64 },
    Append { value: i64 },
    Publish { partition: u32 },
    Schedule { timer: u8, ms: i64 },
    Reschedule { timer: u8, ms: i64 },
    Cancel { timer: u8 },
    Redefine { keyed: bool },
    Fire,
    PublishIndex,
    Pass { ms: i64 },
}

fn operation() -> impl Strategy<Value = Do> {
    prop_oneof![
        4 => (0i64..6, 0i64..4).prop_map(|(id, value)| Do::Put { id, value }),
        2 => (0i64..6).prop_map(|id| Do::Delete { id }),
        2 => (0i64..4).prop_map(|value| Do::Append { value }),
        2 => (0u32..2).prop_map(|partition| Do::Publish { partition }),
        4 => (0u8..5, -20i64..200).prop_map(|(timer, ms)| Do::Schedule { timer, ms }),
        2 => (0u8..5, -20i64..200).prop_map(|(timer, ms)| Do::Reschedule { timer, ms }),
        1 => (0u8..5).prop_map(|timer| Do::Cancel { timer }),
        1 => any::<bool>().prop_map(|keyed| Do::Redefine { keyed }),
        3 => Just(Do::Fire),
        1 => Just(Do::PublishIndex),
        2 => (1i64..150).prop_map(|ms| Do::Pass { ms }),
    ]
}

impl World {
    fn command(&self, what: &Do) -> Option<Command> {
        let snapshot = self.state.snapshot(&self.store);
        let entry = |id: i64, value: i64| Bytes::from([encoded(value), encoded(id)].concat());
        let old = |id: i64| {
            let key = keys::row(KEYED, &encoded(id));
            let row = snapshot.get(&key).expect("memory")?;
            let mut value = 0;
            row::decode(&row, |_, v| value = if let Value::Int(v) = v { v } else { 0 }).expect("a row");
            Some((
                codec::digest(&key, &row),
                IndexChange { index: INDEX, key: entry(id, value), present: false },
            ))
        };
        let at = |ms: i64| Timestamp(self.time + ms * 1_000);
        let op = match what.clone() {
            Do::Put { id, value } => {
                let (replaces, gone) = old(id).unzip();
                let come = IndexChange { index: INDEX, key: entry(id, value), present: true };
                Op::PutRow {
                    relation: KEYED,
                    key: encoded(id).into(),
                    row: row_of(value),
                    replaces: replaces.unwrap_or(0),
                    indexes: gone.into_iter().chain([come]).collect(),
                }
            }
            Do::Delete { id } => {
                let (replaces, gone) = old(id)?;
                Op::DeleteRow { relation: KEYED, key: encoded(id).into(), replaces, indexes: vec![gone] }
            }
            Do::Append { value } => Op::AppendRow {
                relation: HIDDEN,
                row: row_of(value),
                indexes: vec![(INDEX, encoded(value).into())],
            },
            Do::Publish { partition } => {
                Op::Publish { topic: TOPIC, partition, event: Event::default(), claim: false }
            }
            Do::Schedule { timer, ms } => Op::Schedule {
                topic: TOPIC,
                partition: u32::from(timer % 2),
                timer_id: timer.to_string(),
                event: Event::default(),
                deliver_at: at(ms),
                claim: false,
            },
            Do::Reschedule { timer, ms } => Op::Reschedule {
                topic: TOPIC,
                timer_id: timer.to_string(),
                if_version: None,
                deliver_at: Some(at(ms)),
                payload: None,
                headers: None,
            },
            Do::Cancel { timer } => {
                Op::Cancel { topic: TOPIC, timer_id: timer.to_string(), if_version: None }
            }
            Do::Redefine { keyed } => {
                let id = if keyed { KEYED } else { HIDDEN };
                let version = snapshot.catalog.get(id).map_or(0, |relation| relation.version) + 1;
                Op::PutRelation(relation(id, version))
            }
            Do::Fire => {
                let timers = snapshot.timers(TOPIC).map(|timer| timer.expect("memory"));
                let due = timers.filter(|(_, timer)| timer.deliver_at <= at(20));
                let fire =
                    |(timer_id, timer): (String, chronos_engine::state::records::TimerRecord)| TimerRef {
                        due: timer.deliver_at,
                        sequence: timer.sequence,
                        topic: TOPIC,
                        partition: timer.partition,
                        timer_id,
                    };
                return Some(Command::Fire { timers: due.map(fire).collect() });
            }
            Do::PublishIndex => {
                return Some(Command::Work(Work::PublishIndex { relation: KEYED, index: INDEX }));
            }
            Do::Pass { .. } => return None,
        };
        Some(Command::Batch { request: RequestId::default(), ops: vec![op] })
    }

    fn everything(&self) -> BTreeMap<Bytes, Bytes> {
        let all = KeyRange { start: Bytes::from_static(&[tag::CATALOG]), end: Bytes::from_static(&[0xFF]) };
        self.state.snapshot(&self.store).scan(&all, false).map(|entry| entry.expect("memory")).collect()
    }

    fn apply(&mut self, command: Command) -> Entry {
        let index = self.state.snapshot(&self.store).applied.next();
        let entry = Entry {
            term: Term(1),
            index,
            time: Timestamp(self.time),
            stamp: index.0 * 16,
            command: Arc::new(command),
        };
        self.state.apply(&entry, &self.store, &mut Vec::new()).expect("it applies");
        entry
    }
}

/// What readers of a state key record, each way of reading it; none if no transaction reads it.
fn readers(changed: &[u8]) -> Vec<Vec<KeyRange>> {
    let point = |key: &[u8]| KeyRange::point(Bytes::copy_from_slice(key));
    let relation =
        changed.get(1..5).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes).map(RelationId);
    let Some(relation) = relation else { return Vec::new() };
    match changed[0] {
        tag::CATALOG => vec![vec![point(changed)], vec![keys::catalog_all()]],
        tag::ROW if relation == HIDDEN => vec![vec![keys::rows(relation), point(&keys::rowid(relation))]],
        tag::ROW => vec![vec![point(changed)], vec![keys::rows(relation)]],
        tag::INDEX => {
            let entry = keys::index_entry_suffix(changed);
            let columns = &entry[..entry.len() - encoded(0).len()];
            vec![
                vec![KeyRange::prefix(&keys::index_entry(relation, INDEX, columns))],
                vec![KeyRange::prefix(&keys::index_entry(relation, INDEX, &[]))],
            ]
        }
        tag::EVENT | tag::PARTITION => {
            let partition = u32::from_be_bytes(changed[5..9].try_into().expect("four bytes"));
            vec![vec![point(&keys::partition(relation, partition))]]
        }
        tag::TIMER => vec![vec![point(changed)], vec![keys::timers(relation)]],
        // What a scan by due time meets is recorded as the topic's timers.
        _ => Vec::new(),
    }
}

proptest! {
    #[test]
    fn every_change_that_can_be_read_conflicts_with_its_readers(
        operations in prop::collection::vec(operation(), 1..60)
    ) {
        let store: SharedStore = Arc::new(MemoryStore::default());
        let state = State::open(GROUP, 7, &store).expect("an empty store opens");
        let mut world = World { state, store, time: 1_000_000_000_000 };
        let made = [KEYED, HIDDEN, TOPIC].map(|id| Op::PutRelation(relation(id, 1)));
        world.apply(Command::Batch { request: RequestId::default(), ops: made.into() });
        for operation in operations {
            if let Do::Pass { ms } = operation {
                world.time += ms * 1_000;
            }
            let Some(command) = world.command(&operation) else { continue };
            let before = world.everything();
            let entry = world.apply(command);
            let after = world.everything();

            let mut resolver = Resolver::new(1_000);
            let mut written = Vec::new();
            command_keys(&entry.command, &mut written);
            resolver.record(entry.index, written);
            let changed = before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key));
            for key in changed {
                for reads in readers(key) {
                    let reader = |read_index| Transaction { read_index, reads: reads.clone(), ..Transaction::default() };
                    let earlier = Index(entry.index.0 - 1);
                    prop_assert_eq!(
                        resolver.check(&reader(earlier)), Err(Refused::Conflict),
                        "{:?} changed {:02x?}, which {:?} read", operation, key, reads
                    );
                    prop_assert_eq!(resolver.check(&reader(entry.index)), Ok(()));
                }
            }
        }
    }
}
