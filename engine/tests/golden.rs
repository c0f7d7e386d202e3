//! The golden file of the state: a checkpoint with one of everything, a line for each key. It is written today as it
//! was, and what is on file is read. (The WAL's golden file is with its tests.)
//!
//! A line that changes is a format that broke, and needs a new version instead. `UPDATE_GOLDEN=1 cargo test -p
//! chronos-engine --test golden` writes the file anew: the diff is the review.

// Tests may read files and the environment; the crate may not.
#![allow(clippy::disallowed_methods)]

use bytes::Bytes;
use chronos_engine::state::keys::{self, tag};
use chronos_engine::state::records::{
    Attempts, ConsumerRecord, Incoming, PartitionRecord, StoredEvent, TimerRecord,
};
use chronos_engine::state::{
    GroupRecord, Outcome, Root, RunRecord, RunningRecord, STATE_VERSION, ScheduleRecord, Sessions, State,
    sealed,
};
use chronos_engine::store::{MemoryStore, SharedStore};
use chronos_proto::Timestamp;
use chronos_proto::command::{Command, Entry, Event, IndexChange, Letter, Op, TimerRef, Work};
use chronos_proto::id::{
    ColumnId, GroupId, Incarnation, Index, IndexId, NodeId, RelationId, RequestId, SessionId, Term,
};
use chronos_proto::membership::{Configuration, Member};
use chronos_proto::raft::LogId;
use chronos_proto::schedule::{Misfire, Rule, Schedule, ScheduleAction, Turn};
use chronos_proto::schema::{
    Column, IndexState, Relation, RelationKind, SecondaryIndex, Setting, Table, Topic,
};
use chronos_proto::value::{Type, Value};
use chronos_proto::{codec, key, row};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

const GROUP: GroupId = GroupId(0);
const HASH_SEED: u64 = 42;
const START: i64 = 1_733_856_000_000_000;
const ORDERS: RelationId = RelationId(16);
const NOTES: RelationId = RelationId(17);
const ALERTS: RelationId = RelationId(18);
const DOOMED: RelationId = RelationId(19);
const GONE: RelationId = RelationId(20);
const STATEMENT: RelationId = RelationId(21);
const BEAT: RelationId = RelationId(22);
const INSTALLED: LogId = LogId { term: Term(1), index: Index(3) };

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// What is on file, after `written` was compared with it.
fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let path = path(name);
    if std::env::var("UPDATE_GOLDEN").is_ok() {
        std::fs::write(&path, written).expect("the golden folder takes files");
    }
    let stored = std::fs::read(&path).unwrap_or_default();
    if stored != written {
        let line = |bytes: &[u8], n: usize| bytes.split(|b| *b == b'\n').nth(n).map(<[u8]>::to_vec);
        let first = (0..).find(|n| line(&stored, *n) != line(written, *n)).expect("they differ");
        let show = |bytes| line(bytes, first).map(|line| String::from_utf8_lossy(&line).into_owned());
        panic!(
            "{name} differs from line {first} on: {:?} on file, {:?} written\nIf that is meant, UPDATE_GOLDEN=1 writes it anew.",
            show(&stored),
            show(written)
        );
    }
    stored
}

fn session() -> SessionId {
    Sessions::id(Timestamp(START), 7)
}

fn column(id: u32, name: &str, ty: Type) -> Column {
    Column { id: ColumnId(id), name: name.into(), ty, not_null: id == 1, default: None }
}

fn table(id: RelationId, name: &str, primary_key: Vec<ColumnId>, indexes: Vec<SecondaryIndex>) -> Op {
    let table = Table {
        columns: vec![column(1, "id", Type::Int), column(2, "note", Type::Text)],
        primary_key,
        indexes,
        next_column: 3,
        next_index: 3,
        extras: Vec::new(),
    };
    let kind = RelationKind::Table(table);
    Op::PutRelation(Relation { id, name: name.into(), group: GROUP, version: 1, kind })
}

fn index(id: u32) -> SecondaryIndex {
    let state = IndexState::WriteOnly;
    SecondaryIndex { id: IndexId(id), name: format!("by_note_{id}"), columns: vec![ColumnId(2)], state }
}

fn encoded(value: Value) -> Vec<u8> {
    let mut out = Vec::new();
    key::encode(&mut out, &value);
    out
}

fn note(text: &str) -> Bytes {
    let value = Value::Text(text.into());
    row::encode([(ColumnId(2), &value)].into_iter())
}

fn put_order(id: i64, text: &str) -> Op {
    let key = encoded(Value::Int(id)).into();
    Op::PutRow { relation: ORDERS, key, row: note(text), replaces: 0, indexes: vec![] }
}

fn event(id: &str) -> Event {
    Event {
        message_id: id.into(),
        key: Some("k".into()),
        headers: Some("{}".into()),
        payload: Bytes::from(format!("payload of {id}")),
    }
}

fn schedule(id: &str, ms: i64) -> Op {
    let deliver_at = Timestamp(START + ms * 1_000);
    Op::Schedule {
        topic: ALERTS,
        partition: 0,
        timer_id: id.into(),
        event: event(id),
        deliver_at,
        claim: true,
    }
}

fn schedule_of(id: RelationId, name: &str) -> Op {
    let action = match name {
        "beat" => ScheduleAction::Publish {
            topic: ALERTS,
            key: None,
            headers: None,
            payload: Bytes::from_static(b"tick"),
        },
        _ => ScheduleAction::Statement("DELETE FROM orders".into()),
    };
    let schedule = Schedule {
        rule: Rule::Every(60_000_000),
        starting: Timestamp(START),
        ending: None,
        count: None,
        jitter_micros: 5_000_000,
        misfire: Misfire::FireOnce,
        overlap: false,
        paused: false,
        action,
        owner: "chronos".into(),
        next: Some(Timestamp(START + 60_000_000)),
    };
    let kind = RelationKind::Schedule(Box::new(schedule));
    Op::PutRelation(Relation { id, name: name.into(), group: GROUP, version: 1, kind })
}

fn turn(schedule: RelationId, sequence: u64) -> Turn {
    let at = |minutes: i64| Timestamp(START + minutes * 60_000_000);
    Turn { schedule, sequence, topic: None, fired: vec![at(1)], missed: 3, next: Some(at(5)) }
}

fn member(number: u64, incarnation: Option<Incarnation>) -> Member {
    let (name, address) = (format!("n{number}"), format!("n{number}.example:4000"));
    Member { node: NodeId(number), name, address, incarnation, boot: 2 }
}

/// A log with one of everything, whose state keeps one of everything.
fn entries() -> Vec<Entry> {
    let topic = Topic { partitions: 1, dedup_micros: 60_000_000, payload: Type::Text, settings: Vec::new() };
    let alerts = Relation {
        id: ALERTS,
        name: "alerts".into(),
        group: GROUP,
        version: 1,
        kind: RelationKind::Topic(topic),
    };
    let request = |sequence| RequestId { session: session(), sequence, floor: 2 };
    let nobody = RequestId::default();
    let batch = |request, ops| Command::Batch { request, ops };
    let append = |relation| Op::AppendRow { relation, row: note("n"), indexes: Vec::new() };
    let orders = |indexes| table(ORDERS, "orders", vec![ColumnId(1)], indexes);
    let backfill =
        |index, limit| Command::Work(Work::Backfill { relation: ORDERS, index: IndexId(index), limit });
    let fired = |id: &str, sequence, ms: i64| TimerRef {
        due: Timestamp(START + ms * 1_000),
        sequence,
        topic: ALERTS,
        partition: 0,
        timer_id: id.into(),
    };
    let third = encoded(Value::Int(3));
    let entry = Bytes::from([encoded(Value::Text("three".into())), third.clone()].concat());
    let delete_third = Op::DeleteRow {
        relation: ORDERS,
        replaces: codec::digest(&keys::row(ORDERS, &third), &note("three")),
        key: third.into(),
        indexes: vec![IndexChange { index: IndexId(1), key: entry, present: false }],
    };
    let commands = [
        Command::Noop,
        batch(
            request(1),
            vec![
                orders(vec![]),
                table(NOTES, "notes", vec![], vec![]),
                table(DOOMED, "doomed", vec![], vec![]),
                table(GONE, "gone", vec![], vec![]),
                Op::PutRelation(alerts),
            ],
        ),
        batch(request(2), vec![put_order(1, "one"), put_order(2, "two"), put_order(3, "three")]),
        batch(request(3), vec![append(NOTES), append(NOTES)]),
        batch(nobody, vec![append(DOOMED), append(GONE)]),
        batch(
            request(4),
            vec![
                Op::Publish { topic: ALERTS, partition: 0, event: event("now"), claim: true },
                schedule("past", -1),
                schedule("armed", 120),
                schedule("pending", 60_000),
                schedule("moved", 60_000),
                schedule("cancelled", 60_000),
            ],
        ),
        batch(
            request(5),
            vec![
                Op::Reschedule {
                    topic: ALERTS,
                    timer_id: "moved".into(),
                    if_version: Some(1),
                    deliver_at: Some(Timestamp(START + 90_000_000)),
                    payload: Some(Bytes::from_static(b"new")),
                    headers: None,
                },
                Op::Cancel { topic: ALERTS, timer_id: "cancelled".into(), if_version: None },
                Op::Cancel { topic: ALERTS, timer_id: "never".into(), if_version: None },
                Op::Publish { topic: ALERTS, partition: 0, event: event("now"), claim: true },
            ],
        ),
        Command::AdvanceTime,
        // Written ahead: its entry's time is 90 ms, its release 120 ms.
        Command::Fire { timers: vec![fired("armed", 1, 120), fired("never", 99, 120)] },
        Command::StartGroup { topic: ALERTS, consumer_group: "late".into(), floors: vec![(0, 2)] },
        Command::Ack { topic: ALERTS, consumer_group: "early".into(), offsets: vec![(0, 0), (0, 2)] },
        // Indexes: 1 is filled and public, 2 dropped again, 3 half filled. A relation that is dropped and one that is gone.
        batch(
            nobody,
            vec![orders(vec![index(1), index(2)]), Op::DropRelation(DOOMED), Op::DropRelation(GONE)],
        ),
        Command::Work(Work::Purge { relation: GONE, limit: 10 }),
        backfill(1, 10),
        backfill(2, 10),
        batch(nobody, vec![orders(vec![index(1), index(3)])]),
        backfill(3, 1),
        Command::Work(Work::PublishIndex { relation: ORDERS, index: IndexId(1) }),
        Command::Work(Work::Expire { limit: 10 }),
        batch(request(6), vec![delete_third]),
        Command::Membership(Configuration {
            learners: [NodeId(4)].into(),
            ..Configuration::of([NodeId(1), NodeId(2), NodeId(3)])
        }),
        Command::PutMember(member(1, None)),
        Command::PutMember(member(2, Some(Incarnation(9)))),
        Command::PutMember(member(1, Some(Incarnation(7)))),
        Command::PutMember(member(9, None)),
        Command::DropMember(NodeId(9)),
        batch(nobody, vec![schedule_of(STATEMENT, "statement"), schedule_of(BEAT, "beat")]),
        Command::Occur(vec![turn(STATEMENT, 6), turn(BEAT, 7)]),
    ];
    (1..)
        .zip(commands)
        .map(|(at, command)| Entry {
            term: Term(1),
            index: Index(at),
            time: Timestamp(START + at as i64 * 10_000),
            stamp: 0x6758_A580_0000_0000 + at * 16,
            command: Arc::new(command),
        })
        .collect()
}

/// The state after the log, and its checkpoint: full keys and sealed values.
fn apply() -> (State, BTreeMap<Bytes, Bytes>) {
    let empty: SharedStore = Arc::new(MemoryStore::default());
    let mut state = State::open(GROUP, HASH_SEED, &empty).expect("an empty store opens");
    for entry in entries() {
        state.apply(&entry, &empty, &mut Vec::new()).expect("it applies");
    }
    let checkpoint = state.freeze().expect("nothing is frozen yet");
    let mut stored: BTreeMap<Bytes, Bytes> =
        checkpoint.entries().filter_map(|(key, value)| Some((key, value?))).collect();
    // As if the generation had begun as a snapshot.
    let key = keys::store_key(GROUP, checkpoint.generation, &keys::installed());
    stored.insert(key.clone(), sealed::seal(&key, &codec::encode(&INSTALLED)));
    (state, stored)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// The state on file, as a store.
fn state_on_file(written: &BTreeMap<Bytes, Bytes>) -> BTreeMap<Bytes, Bytes> {
    let lines: String = written.iter().map(|(key, value)| format!("{} {}\n", hex(key), hex(value))).collect();
    let stored = String::from_utf8(golden("state-v1.txt", lines.as_bytes())).expect("text");
    stored
        .lines()
        .map(|line| line.split_once(' ').expect("two columns"))
        .map(|(k, v)| (unhex(k), unhex(v)))
        .collect()
}

fn reencodes<T: Serialize + DeserializeOwned>(value: &[u8]) {
    let decoded: T = codec::decode("a golden value", value).expect("it decodes");
    assert_eq!(codec::encode(&decoded), value);
}

#[test]
fn the_state_is_written_as_it_was_and_what_was_written_is_read() {
    let (written_state, written) = apply();
    let stored = state_on_file(&written);

    let mut tags = BTreeSet::new();
    for (full, sealed_value) in &stored {
        let value = sealed::open(full, sealed_value).expect("the seal holds");
        let key = &full[keys::PREFIX_BYTES..];
        tags.insert(key[0]);
        match key[0] {
            tag::ROOT => reencodes::<Root>(&value),
            tag::GROUP => reencodes::<GroupRecord>(&value),
            tag::INSTALLED => reencodes::<LogId>(&value),
            tag::MEMBERSHIP => reencodes::<Configuration>(&value),
            tag::MEMBER => reencodes::<Member>(&value),
            tag::CATALOG => reencodes::<Relation>(&value),
            tag::EVENT => reencodes::<Vec<StoredEvent>>(&value),
            tag::PARTITION => reencodes::<PartitionRecord>(&value),
            tag::TIMER => reencodes::<TimerRecord>(&value),
            tag::DUE => reencodes::<(RelationId, u32, String)>(&value),
            tag::REQUEST => reencodes::<Outcome>(&value),
            tag::CONSUMER => reencodes::<ConsumerRecord>(&value),
            tag::ROWID => reencodes::<i64>(&value),
            tag::SCHEDULE => reencodes::<ScheduleRecord>(&value),
            tag::RUNNING => reencodes::<RunningRecord>(&value),
            tag::RUN => reencodes::<RunRecord>(&value),
            _ => {}
        }
    }
    let all = [
        tag::ROOT,
        tag::GROUP,
        tag::INSTALLED,
        tag::CATALOG,
        tag::MEMBERSHIP,
        tag::MEMBER,
        tag::PURGE,
        tag::BACKFILL,
        tag::PURGE_INDEX,
        tag::ROW,
        tag::ROWID,
        tag::INDEX,
        tag::EVENT,
        tag::PARTITION,
        tag::TIMER,
        tag::DUE,
        tag::CLAIM,
        tag::REQUEST,
        tag::SESSION,
        tag::CONSUMER,
        tag::SCHEDULE,
        tag::RUNNING,
        tag::RUN,
    ];
    assert_eq!(tags, BTreeSet::from(all), "kinds of keys on file");

    // The engine reads what is on file as what it was.
    let store: SharedStore = Arc::new(MemoryStore(stored));
    let state = State::open(GROUP, HASH_SEED, &store).expect("the state on file opens");
    let recomputed = state.recompute_digests(&store).expect("every key is read");
    assert_eq!(state.digests().differences(&recomputed), []);
    assert_eq!(state.digests().differences(written_state.digests()), []);
    assert_eq!(state.installed(&store).expect("a read"), Some(INSTALLED));
    let configuration = state.membership().expect("members");
    assert_eq!((configuration.voters.len(), configuration.learners.len()), (3, 1));
    let members: Vec<_> = state.members().cloned().collect();
    assert_eq!(members, [member(1, Some(Incarnation(7))), member(2, Some(Incarnation(9)))]);
    let snapshot = state.snapshot(&store);
    assert_eq!(snapshot.applied, entries().last().expect("entries").index);
    let names: Vec<_> = snapshot.catalog.iter().map(|relation| relation.name.as_str()).collect();
    assert_eq!(names, ["orders", "notes", "alerts", "statement", "beat"]);
    let timers: Vec<_> = snapshot.timers(ALERTS).map(|timer| timer.expect("it decodes").0).collect();
    assert_eq!(timers, ["moved", "pending"]);
    let released = |ms: i64| -> Vec<String> {
        let events = snapshot.events(ALERTS, 0, 0, 10, Timestamp(START + ms * 1_000)).expect("events");
        events.into_iter().map(|event| event.stored.event.message_id).collect()
    };
    assert_eq!(released(119), ["now", "past"]);
    assert_eq!(released(120), ["now", "past", "armed"]);
    let progress = |group| snapshot.consumer(ALERTS, group, 0).expect("progress");
    assert_eq!(progress("early"), ConsumerRecord { floor: 1, done: vec![2] });
    assert_eq!(progress("late"), ConsumerRecord { floor: 2, done: vec![] });
}

/// A consumer group that failed, and a letter that died of it: what is stored of both.
#[test]
fn failures_and_dead_letters_are_written_as_they_were() {
    let empty: SharedStore = Arc::new(MemoryStore::default());
    let mut state = State::open(GROUP, HASH_SEED, &empty).expect("an empty store opens");
    let topic = |id, name: &str, settings| {
        let topic = Topic { partitions: 1, dedup_micros: 60_000_000, payload: Type::Text, settings };
        let kind = RelationKind::Topic(topic);
        Op::PutRelation(Relation { id, name: name.into(), group: GROUP, version: 1, kind })
    };
    let dead = RelationId(ALERTS.0 + 1);
    let settings = vec![Setting::MaxDeliveries(2), Setting::DeadLetter(dead)];
    let publish = |id| Op::Publish { topic: ALERTS, partition: 0, event: event(id), claim: false };
    let letter = Letter { partition: 0, offset: 0, deliveries: 2, reason: "no".into() };
    let commands = [
        Command::Batch {
            request: RequestId::default(),
            ops: vec![
                topic(dead, "alerts.dead", Vec::new()),
                topic(ALERTS, "alerts", settings),
                publish("a"),
                publish("b"),
            ],
        },
        Command::Failed { topic: ALERTS, consumer_group: "g".into(), offsets: vec![(0, 0, 1), (0, 1, 1)] },
        Command::DeadLetter { topic: ALERTS, consumer_group: "g".into(), dead, letters: vec![letter] },
    ];
    for (at, command) in (1..).zip(commands) {
        let entry = Entry {
            term: Term(1),
            index: Index(at),
            time: Timestamp(START + at as i64),
            stamp: at,
            command: Arc::new(command),
        };
        state.apply(&entry, &empty, &mut Vec::new()).expect("it applies");
    }
    let snapshot = state.snapshot(&empty);
    let mut lines = String::new();
    for tag in [tag::CATALOG, tag::EVENT, tag::CONSUMER, tag::ATTEMPTS] {
        for entry in snapshot.scan(&keys::all(tag, None), false) {
            let (key, value) = entry.expect("it is read");
            lines.push_str(&format!("{} {}\n", hex(&key), hex(&value)));
        }
    }
    golden("dead-letters-v1.txt", lines.as_bytes());
    assert_eq!(snapshot.attempts(ALERTS, "g", 0), Ok(Attempts::from([(1, 1)])));
    assert_eq!(snapshot.consumer(ALERTS, "g", 0), Ok(ConsumerRecord { floor: 1, done: vec![] }));
    let letters = snapshot.events(dead, 0, 0, 9, Timestamp::MAX).expect("events");
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].stored.event.message_id.as_str(), letters[0].offset), ("a", 0));
}

#[test]
fn how_far_a_snapshot_has_come_is_written_as_it_was() {
    let incoming = Incoming {
        from: NodeId(2),
        term: Term(7),
        last: LogId { term: Term(6), index: Index(300) },
        time: Timestamp(START),
        next: 12,
        checksum: 0x8A91_36AA,
        ended: false,
    };
    let stored = golden("incoming-v1.bin", &codec::encode(&incoming));
    assert_eq!(codec::decode::<Incoming>("incoming", &stored), Ok(incoming));
}

#[test]
fn a_state_of_another_version_is_refused_by_name() {
    let (_, mut written) = apply();
    let key = keys::root(GROUP);
    let root: Root =
        codec::decode("root", &sealed::open(&key, &written[&key]).expect("sealed")).expect("a root");
    let newer = Root { version: STATE_VERSION + 1, ..root };
    written.insert(key.clone(), sealed::seal(&key, &codec::encode(&newer)));
    let store: SharedStore = Arc::new(MemoryStore(written));
    let error = State::open(GROUP, HASH_SEED, &store).err().expect("refused").to_string();
    assert!(error.contains("layout version 2 is not 1"), "{error}");
}
