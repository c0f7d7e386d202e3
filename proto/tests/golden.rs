//! Golden files: old bytes of every stored or sent format stay readable, and are written the same.
//!
//! Each sample has a file in `tests/golden`. A new variant adds a file; a file that changes is a format that broke, and
//! needs a new version instead. `UPDATE_GOLDEN=1 cargo test -p chronos-proto` writes what is missing or differs: its diff
//! is the review.

// Tests may read files and the environment; the crate may not.
#![allow(clippy::disallowed_methods)]

use bytes::Bytes;
use chronos_proto::array::Array;
use chronos_proto::command::{Command, Entry, Event, IndexChange, Letter, Op, OpOutcome, TimerRef, Work};
use chronos_proto::hello::{Hello, HelloError};
use chronos_proto::id::{ClusterId, Incarnation};
use chronos_proto::membership::{Configuration, Member};
use chronos_proto::numeric::{self, Parts};
use chronos_proto::peer::{Beat, BeatReply, Chunk, Forward, ForwardOutcome, PeerHello, PeerMessage};
use chronos_proto::raft::{LogId, Message};
use chronos_proto::schedule::{Misfire, Occurrence, Rule, RunFailure, Schedule, ScheduleAction, Turn};
use chronos_proto::schema::{
    Column, DefaultValue, Extra, IndexState, Partitioned, Referential, Relation, RelationKind,
    SecondaryIndex, Sequence, Setting, Table, Topic, View, ViewColumn,
};
use chronos_proto::stamp::{Hlc, Stamp};
use chronos_proto::time::Instant;
use chronos_proto::value::{Element, Interval, Type, Value, ValueRef};
use chronos_proto::{
    ColumnId, GroupId, Index, IndexId, NodeId, RelationId, RequestId, SessionId, Term, Timestamp, codec,
    frame, key, row,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

/// Compares samples with their files, and remembers which files it saw.
struct Golden {
    folder: PathBuf,
    seen: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Golden {
    fn new() -> Golden {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        Golden { folder, seen: BTreeSet::new(), wrong: Vec::new() }
    }

    /// The bytes on file, after the sample's were compared with them.
    fn bytes(&mut self, name: &str, encoded: &[u8]) -> Vec<u8> {
        let name = format!("{name}.bin");
        let path = self.folder.join(&name);
        assert!(self.seen.insert(name.clone()), "two samples are called {name}");
        let stored = std::fs::read(&path).unwrap_or_default();
        if stored != encoded {
            if std::env::var("UPDATE_GOLDEN").is_ok() {
                std::fs::write(&path, encoded).expect("the golden folder takes files");
                return encoded.to_vec();
            }
            self.wrong.push(name);
        }
        stored
    }

    /// A postcard type: what is on file decodes to the sample, and the sample encodes to what is on file.
    fn sample<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, name: &str, sample: T) {
        let stored = self.bytes(name, &codec::encode(&sample));
        match codec::decode::<T>("a golden file", &stored) {
            Ok(decoded) => assert_eq!(decoded, sample, "{name}"),
            Err(error) => self.wrong.push(format!("{name}: {error}")),
        }
    }

    fn finish(self) {
        assert!(
            self.wrong.is_empty(),
            "formats differ from their golden files: {:#?}\nIf that is meant, UPDATE_GOLDEN=1 writes them anew.",
            self.wrong
        );
        let files = std::fs::read_dir(&self.folder).expect("the golden folder is there");
        let files: BTreeSet<String> =
            files.map(|file| file.expect("listed").file_name().to_string_lossy().into_owned()).collect();
        assert_eq!(files, self.seen, "files without a sample, or the other way round");
    }
}

const TABLE: RelationId = RelationId(16);
const TOPIC: RelationId = RelationId(17);
const SCHEDULE: RelationId = RelationId(18);
const TIME: Timestamp = Timestamp(1_733_856_000_123_456);

fn request() -> RequestId {
    RequestId { session: SessionId(0x0123_4567_89AB_CDEF_0123_4567_89AB_CDEF), sequence: 42, floor: 40 }
}

fn event() -> Event {
    Event {
        message_id: "m-1".into(),
        key: Some("sensor-7".into()),
        headers: Some(r#"{"trace":"ab"}"#.into()),
        payload: Bytes::from_static(b"\x00payload\xFF"),
    }
}

fn change(present: bool) -> IndexChange {
    IndexChange { index: IndexId(1), key: Bytes::from_static(b"\x01entry"), present }
}

/// One of each, by name. A variant that is not named here does not compile.
fn ops() -> Vec<(&'static str, Op)> {
    let name = |op: &Op| match op {
        Op::PutRow { .. } => "put-row",
        Op::DeleteRow { .. } => "delete-row",
        Op::AppendRow { .. } => "append-row",
        Op::Publish { .. } => "publish",
        Op::Schedule { .. } => "schedule",
        Op::Reschedule { .. } => "reschedule",
        Op::Cancel { .. } => "cancel",
        Op::PutRelation(_) => "put-relation",
        Op::DropRelation(_) => "drop-relation",
        Op::Trigger { .. } => "trigger",
        Op::Ran { .. } => "ran",
        Op::Redrive { .. } => "redrive",
    };
    let ops = vec![
        Op::PutRow {
            relation: TABLE,
            key: Bytes::from_static(b"\x01key"),
            row: Bytes::from_static(b"\x01\x00"),
            replaces: 0xFEED_FACE_CAFE_BEEF,
            indexes: vec![change(false), change(true)],
        },
        Op::DeleteRow {
            relation: TABLE,
            key: Bytes::from_static(b"\x01key"),
            replaces: 7,
            indexes: vec![change(false)],
        },
        Op::AppendRow {
            relation: TABLE,
            row: Bytes::from_static(b"\x01\x00"),
            indexes: vec![(IndexId(1), Bytes::from_static(b"\x01columns"))],
        },
        Op::Publish { topic: TOPIC, partition: 3, event: event(), claim: true },
        Op::Schedule {
            topic: TOPIC,
            partition: 0,
            timer_id: "t-1".into(),
            event: Event { payload: Bytes::from_static(b"later"), ..Event::default() },
            deliver_at: TIME,
            claim: false,
        },
        Op::Reschedule {
            topic: TOPIC,
            timer_id: "t-1".into(),
            if_version: Some(2),
            deliver_at: Some(TIME),
            payload: Some(Bytes::from_static(b"new")),
            headers: Some("{}".into()),
        },
        Op::Cancel { topic: TOPIC, timer_id: "t-1".into(), if_version: None },
        Op::PutRelation(table()),
        Op::DropRelation(TABLE),
        Op::Trigger { schedule: SCHEDULE, topic: Some(TOPIC) },
        Op::Ran { schedule: SCHEDULE, occurrence: Occurrence { nominal: TIME, by_hand: 3 }, failure: None },
    ];
    ops.into_iter().map(|op| (name(&op), op)).collect()
}

fn commands() -> Vec<(&'static str, Command)> {
    let name = |command: &Command| match command {
        Command::Noop => "noop",
        Command::Batch { .. } => "batch",
        Command::AdvanceTime => "advance-time",
        Command::Fire { .. } => "fire",
        Command::Work(Work::Backfill { .. }) => "work-backfill",
        Command::Work(Work::PublishIndex { .. }) => "work-publish-index",
        Command::Work(Work::Purge { .. }) => "work-purge",
        Command::Work(Work::Expire { .. }) => "work-expire",
        Command::Work(Work::ExpireRows { .. }) => "work-expire-rows",
        Command::Ack { .. } => "ack",
        Command::TimeEpoch(_) => "time-epoch",
        Command::StartGroup { .. } => "start-group",
        Command::Membership(_) => "membership",
        Command::PutMember(_) => "put-member",
        Command::DropMember(_) => "drop-member",
        Command::Deliver { .. } => "deliver",
        Command::Delivered { .. } => "delivered",
        Command::Occur(_) => "occur",
        Command::Failed { .. } => "failed",
        Command::DeadLetter { .. } => "dead-letter",
    };
    let timer = |sequence| TimerRef {
        due: TIME,
        sequence,
        topic: TOPIC,
        partition: 3,
        timer_id: format!("t-{sequence}"),
    };
    let commands = vec![
        Command::Noop,
        // Those that there were when the first file was written.
        Command::Batch { request: request(), ops: ops().into_iter().map(|(_, op)| op).take(9).collect() },
        Command::AdvanceTime,
        Command::Fire { timers: vec![timer(8), timer(9)] },
        Command::Work(Work::Backfill { relation: TABLE, index: IndexId(1), limit: 500 }),
        Command::Work(Work::PublishIndex { relation: TABLE, index: IndexId(1) }),
        Command::Work(Work::Purge { relation: TABLE, limit: 500 }),
        Command::Work(Work::Expire { limit: 500 }),
        Command::Work(Work::ExpireRows { relation: TABLE, keys: vec![Bytes::from_static(b"\x01key")] }),
        Command::Ack { topic: TOPIC, consumer_group: "g".into(), offsets: vec![(0, 5), (3, u64::MAX)] },
        Command::TimeEpoch(Timestamp(-1)),
        Command::StartGroup { topic: TOPIC, consumer_group: "g".into(), floors: vec![(0, 5)] },
        Command::Membership(configuration()),
        Command::PutMember(member()),
        Command::DropMember(NodeId::of_name("node1")),
        Command::Deliver { origin: GroupId(0), first: 7, ops: vec![Op::DropRelation(TABLE)] },
        Command::Delivered { target: GroupId(3), upto: 7 },
        Command::Occur(vec![turn()]),
        Command::Failed { topic: TOPIC, consumer_group: "g".into(), offsets: vec![(3, 5, 2)] },
        Command::DeadLetter {
            topic: TOPIC,
            consumer_group: "g".into(),
            dead: TABLE,
            letters: vec![Letter { partition: 3, offset: 9, deliveries: 5, reason: "no".into() }],
        },
    ];
    commands.into_iter().map(|command| (name(&command), command)).collect()
}

fn outcomes() -> Vec<(&'static str, OpOutcome)> {
    let name = |outcome: &OpOutcome| match outcome {
        OpOutcome::Done => "done",
        OpOutcome::Rowid(_) => "rowid",
        OpOutcome::Published { .. } => "published",
        OpOutcome::Scheduled { .. } => "scheduled",
        OpOutcome::Duplicate { .. } => "duplicate",
        OpOutcome::Changed => "changed",
        OpOutcome::TooLate => "too-late",
        OpOutcome::Sent { .. } => "sent",
    };
    let outcomes = vec![
        OpOutcome::Done,
        OpOutcome::Rowid(-7),
        OpOutcome::Published { partition: 3, offset: 1 << 40 },
        OpOutcome::Scheduled { version: 2 },
        OpOutcome::Duplicate { position: Some((3, 9)) },
        OpOutcome::Changed,
        OpOutcome::TooLate,
        OpOutcome::Sent { partition: 3 },
    ];
    outcomes.into_iter().map(|outcome| (name(&outcome), outcome)).collect()
}

/// One of each type, with NULL.
fn values() -> Vec<(Type, Value)> {
    vec![
        (Type::Bool, Value::Bool(true)),
        (Type::Int, Value::Int(-42)),
        (Type::Float, Value::Float(-21.5)),
        (Type::Text, Value::Text("Grüße\0!".into())),
        (Type::Bytes, Value::Bytes(Bytes::from_static(&[0, 1, 0xFE, 0xFF]))),
        (Type::Timestamp, Value::Timestamp(TIME.0)),
        (Type::Date, Value::Date(20_067)),
        (Type::Interval, Value::Interval(Interval { months: 1, days: -2, micros: 3 })),
        (Type::Json, Value::Json(r#"{"a": [1, 2]}"#.into())),
        (Type::Uuid, Value::Uuid(*b"0123456789abcdef")),
        (Type::Int, Value::Null),
    ]
}

/// One of each type that came later.
fn values_2() -> Vec<(Type, Value)> {
    let number = |negative, pairs: &[u8], exponent, scale| {
        let parts = Parts::Finite { negative, pairs: pairs.to_vec(), exponent, scale };
        Value::Numeric(numeric::encode(&parts).expect("a small number"))
    };
    let text = Element::of(Type::Text).expect("an element");
    let words = vec![ValueRef::Text("a"), ValueRef::Null, ValueRef::Text("b c")];
    vec![
        (Type::SmallInt, Value::Int(-7)),
        (Type::Integer, Value::Int(70_000)),
        (Type::Real, Value::Real(0.1)),
        (Type::Numeric, number(true, &[1, 23, 40], 1, 3)),
        (Type::Numeric, number(false, &[], 0, 0)),
        (Type::Decimal { precision: 10, scale: 2 }, number(false, &[12], 2, 2)),
        (Type::Varchar(20), Value::Text("Grüße".into())),
        (Type::Char(4), Value::Text("ab  ".into())),
        (Type::LocalTimestamp, Value::LocalTimestamp(TIME.0)),
        (Type::Time, Value::Time(86_399_999_999)),
        (Type::PlainJson, Value::Json("{ \"a\" : 1.0 }".into())),
        (Type::Array(text), Value::Array(Array::flat(text, words).encode())),
    ]
}

fn table() -> Relation {
    let columns = values().into_iter().enumerate().map(|(n, (ty, value))| Column {
        id: ColumnId(n as u32),
        name: format!("c{n}"),
        ty,
        not_null: n == 0,
        default: match n {
            0 => None,
            1 => Some(DefaultValue::Expression("now()".into())),
            _ => Some(DefaultValue::Constant(value)),
        },
    });
    let index = |id, state| SecondaryIndex {
        id: IndexId(id),
        name: format!("readings_{id}"),
        columns: vec![ColumnId(2), ColumnId(1)],
        state,
    };
    Relation {
        id: TABLE,
        name: "readings".into(),
        group: GroupId(0),
        version: 3,
        kind: RelationKind::Table(Table {
            columns: columns.collect(),
            primary_key: vec![ColumnId(0), ColumnId(1)],
            indexes: vec![index(1, IndexState::WriteOnly), index(2, IndexState::Public)],
            next_column: 11,
            next_index: 3,
            extras: Vec::new(),
        }),
    }
}

fn hello() -> Hello {
    Hello {
        oldest: 2,
        newest: 2,
        cluster: ClusterId(0x0123_4567_89AB_CDEF_0123_4567_89AB_CDEF),
        from: NodeId::of_name("node1"),
        name: "node1".into(),
        to: NodeId::of_name("node2"),
        incarnation: Incarnation(7),
        boot: 3,
        http: None,
    }
}

/// A joint one, with a learner.
fn configuration() -> Configuration {
    let nodes = |numbers: [u64; 3]| numbers.map(NodeId).into();
    Configuration { voters: nodes([1, 2, 4]), outgoing: nodes([1, 2, 3]), learners: [NodeId(5)].into() }
}

fn member() -> Member {
    let node = NodeId::of_name("node1");
    Member {
        node,
        name: "node1".into(),
        address: "node1.example:4000".into(),
        incarnation: Some(Incarnation(7)),
        boot: 3,
    }
}

fn place() -> LogId {
    LogId { term: Term(3), index: Index(1_000) }
}

/// One of each, by the name it has itself. A variant that is not named there does not compile.
fn messages() -> Vec<Message> {
    let (term, last, commit) = (Term(4), place(), Index(999));
    let entry = Entry {
        term,
        index: Index(1_001),
        time: TIME,
        stamp: 0x6758_A580_1F9A_DC50,
        command: Arc::new(Command::Noop),
    };
    vec![
        Message::PreVote { term, last },
        Message::PreVoteReply { term, granted: true },
        Message::Vote { term, last, transfer: true },
        Message::VoteReply { term, granted: false },
        Message::Append { term, previous: last, entries: vec![entry], commit },
        Message::Appended { term, matched: last.index },
        Message::AppendRejected { term, previous: last.index, hint: last },
        Message::Heartbeat { term, commit, round: 12 },
        Message::HeartbeatReply { term, round: 12 },
        Message::TimeoutNow { term },
        Message::Snapshot { term, last, configuration: configuration() },
        Message::Returned { term },
        Message::Readmit { term, index: commit },
        Message::Rest { term, last: Index(7), round: 40 },
        Message::Resting { term, round: 40 },
    ]
}

fn peer_messages() -> Vec<PeerMessage> {
    let (group, number, sent) = (GroupId(2), 77, Instant(123_456_789));
    let bytes = |bytes: &'static [u8]| Bytes::from_static(bytes);
    vec![
        PeerMessage::Raft { group, message: Message::TimeoutNow { term: Term(4) } },
        PeerMessage::Beat(Beat {
            sent,
            time: Some(Timestamp(1_733_856_000_000_000)),
            groups: vec![(group, Term(4), Index(999), 12)],
            rest: vec![(GroupId(3), Term(2), Index(7), 40)],
            resting: 0x0123_4567_89AB_CDEF,
        }),
        PeerMessage::AskMembers,
        PeerMessage::Members(vec![member()]),
        PeerMessage::BeatReply(BeatReply {
            sent: Some(sent),
            wall: TIME,
            groups: vec![(group, Term(4), 12)],
            rest: vec![(GroupId(3), Term(2), 40)],
            agrees: true,
        }),
        PeerMessage::Forward(Forward {
            number,
            group,
            term: Term(4),
            request: request(),
            read_index: Index(998),
            reads: vec![(bytes(b"\x20from"), bytes(b"\x20to"))],
            valid_until: Some(TIME),
            ops: vec![Op::DropRelation(TABLE)],
        }),
        PeerMessage::ForwardReply { number, outcome: ForwardOutcome::Conflict },
        PeerMessage::Read { group, number },
        PeerMessage::ReadReply { number, at: Some((Term(4), Index(999), TIME)) },
        PeerMessage::Chunk(Chunk {
            group,
            term: Term(4),
            last: place(),
            time: TIME,
            number: 3,
            entries: vec![(bytes(b"\x20key"), bytes(b"value"))],
            checksum: 0xDEAD_BEEF,
            ends: true,
        }),
        PeerMessage::ChunkReply { group, last: place(), next: 4, done: false },
        PeerMessage::Outbox {
            origin: GroupId(0),
            target: group,
            first: 7,
            ops: vec![Op::DropRelation(TABLE)],
        },
        PeerMessage::OutboxReply { origin: GroupId(0), target: group, upto: 7 },
    ]
}

fn forward_outcomes() -> Vec<(&'static str, ForwardOutcome)> {
    let name = |outcome: &ForwardOutcome| match outcome {
        ForwardOutcome::Committed { .. } => "committed",
        ForwardOutcome::Conflict => "conflict",
        ForwardOutcome::Expired => "expired",
        ForwardOutcome::NotLeader => "not-leader",
        ForwardOutcome::Full(_) => "full",
        ForwardOutcome::Overloaded(_) => "overloaded",
        ForwardOutcome::TooLarge(..) => "too-large",
        ForwardOutcome::Stopping => "stopping",
        ForwardOutcome::Unknown => "unknown",
    };
    let outcomes = vec![
        ForwardOutcome::Committed {
            term: Term(4),
            index: Index(1_001),
            time: TIME,
            outcomes: vec![OpOutcome::Done, OpOutcome::Rowid(9)],
        },
        ForwardOutcome::Conflict,
        ForwardOutcome::Expired,
        ForwardOutcome::NotLeader,
        ForwardOutcome::Full("the disk is full".into()),
        ForwardOutcome::Overloaded(16_384),
        ForwardOutcome::TooLarge(5_000_000, 4_194_304),
        ForwardOutcome::Stopping,
        ForwardOutcome::Unknown,
    ];
    outcomes.into_iter().map(|outcome| (name(&outcome), outcome)).collect()
}

fn topic() -> Relation {
    Relation {
        id: TOPIC,
        name: "alerts".into(),
        group: GroupId(2),
        version: 1,
        kind: RelationKind::Topic(Topic {
            partitions: 4,
            dedup_micros: 7 * 86_400_000_000,
            payload: Type::Json,
            settings: Vec::new(),
        }),
    }
}

/// A table with one of each of what may be declared beside columns and keys.
fn table_with_extras() -> Relation {
    let mut relation = table();
    if let RelationKind::Table(table) = &mut relation.kind {
        table.extras = vec![
            Extra::Unique { index: IndexId(2), constraint: true },
            Extra::PrimaryIndex { index: IndexId(2) },
            Extra::PrimaryName("readings_key".into()),
            Extra::Check { name: "readings_value_check".into(), condition: "value > 0".into() },
            Extra::Identity { column: ColumnId(1), sequence: RelationId(19), always: Some(true) },
            Extra::ForeignKey {
                name: "readings_device_fkey".into(),
                columns: vec![ColumnId(0)],
                target: RelationId(20),
                target_columns: vec![ColumnId(1)],
                on_delete: Referential::Cascade,
                on_update: Referential::NoAction,
            },
        ];
    }
    relation
}

fn table_with_ttl() -> Relation {
    let mut relation = table();
    if let RelationKind::Table(table) = &mut relation.kind {
        table.extras = vec![
            Extra::Hidden { column: ColumnId(1) },
            Extra::Ttl { column: ColumnId(1), index: IndexId(2), micros: 604_800_000_000 },
        ];
    }
    relation
}

fn view() -> Relation {
    let columns = vec![ViewColumn { name: "device".into(), output: "id".into(), ty: Type::Text }];
    let view = View { query: "SELECT id FROM devices".into(), columns, reads: vec![TABLE] };
    Relation { name: "names".into(), kind: RelationKind::View(view), ..topic() }
}

fn sequence() -> Relation {
    let sequence = Sequence {
        start: 1,
        increment: 1,
        min: 1,
        max: i64::MAX,
        cycle: false,
        owner: Some((TABLE, ColumnId(1))),
    };
    Relation { name: "readings_seq".into(), kind: RelationKind::Sequence(sequence), ..topic() }
}

fn schedule() -> Schedule {
    Schedule {
        rule: Rule::Every(300_000_000),
        starting: TIME,
        ending: Some(Timestamp(TIME.0 + 1)),
        count: Some(7),
        jitter_micros: 10_000_000,
        misfire: Misfire::FireAll(Some(3_600_000_000)),
        overlap: true,
        paused: false,
        action: ScheduleAction::Publish {
            topic: TOPIC,
            key: Some("k".into()),
            headers: Some("{}".into()),
            payload: Bytes::from_static(b"tick"),
        },
        owner: "chronos".into(),
        next: Some(TIME),
    }
}

fn schedule_of_a_statement() -> Schedule {
    let (expression, zone) = ("0 7 * * 1-5".into(), "Europe/Berlin".into());
    Schedule {
        rule: Rule::Cron { expression, zone },
        misfire: Misfire::Skip,
        action: ScheduleAction::Statement("DELETE FROM t".into()),
        ending: None,
        count: None,
        next: None,
        ..schedule()
    }
}

fn turn() -> Turn {
    let (fired, next) = (vec![TIME, Timestamp(TIME.0 + 300_000_000)], Some(Timestamp(TIME.0 + 600_000_000)));
    Turn { schedule: SCHEDULE, sequence: 8, topic: Some(TOPIC), fired, missed: 2, next }
}
fn with_settings(mut relation: Relation) -> Relation {
    let topic = relation.topic_mut().expect("a topic");
    topic.settings = vec![Setting::MaxDeliveries(5), Setting::DeadLetter(RelationId(19))];
    relation
}

/// Where its partitions are kept is as stored as the rest.
fn partitioned() -> Relation {
    let settings =
        Topic { partitions: 5, dedup_micros: 7 * 86_400_000_000, payload: Type::Text, settings: Vec::new() };
    Relation { kind: RelationKind::Partitioned(Partitioned::spread(TOPIC, settings, 3)), ..topic() }
}

#[test]
fn keys_choose_the_same_partitions_for_ever() {
    let topic = partitioned();
    let settings = topic.topic().expect("a topic");
    let chosen = |key: Option<&str>, id: &str| {
        let (key, message_id) = (key.map(str::to_owned), id.to_owned());
        settings.partition_of(&Event { key, message_id, ..Event::default() })
    };
    let keys: Vec<u32> = (0..12).map(|n| chosen(Some(&format!("k{n}")), "m")).collect();
    assert_eq!(keys, [0, 0, 1, 1, 3, 4, 0, 0, 0, 4, 0, 4]);
    assert_eq!(chosen(None, "k3"), keys[3], "without a key the message id is hashed");
    let (homes, groups): (Vec<_>, BTreeSet<_>) = ((0..5).map(|p| topic.home(p)).collect(), topic.homes());
    assert_eq!(groups.len(), 3);
    for group in groups {
        let has = homes.iter().filter(|home| **home == group).count();
        assert!((1..=2).contains(&has), "{homes:?}");
    }
}

#[test]
fn every_format_is_as_it_was() {
    let mut golden = Golden::new();
    for (name, command) in commands() {
        let command = Arc::new(command);
        let entry =
            Entry { term: Term(3), index: Index(1_000), time: TIME, stamp: 0x6758_A580_1F9A_DC50, command };
        golden.sample(&format!("entry.{name}"), entry);
    }
    for (name, op) in ops() {
        golden.sample(&format!("op.{name}"), op);
    }
    // Not in the batch above, which is as it was.
    golden.sample("op.redrive", Op::Redrive { dead: TOPIC, partition: 3, offset: 9, source: TABLE });
    for (name, outcome) in outcomes() {
        golden.sample(&format!("outcome.{name}"), outcome);
    }
    golden.sample("relation.table", table());
    golden.sample("relation.table-with-extras", table_with_extras());
    golden.sample("relation.table-with-ttl", table_with_ttl());
    golden.sample("relation.topic", topic());
    golden.sample("relation.partitioned", partitioned());
    golden.sample("relation.topic-with-settings", with_settings(topic()));
    golden.sample("relation.partitioned-with-settings", with_settings(partitioned()));
    golden.sample("relation.view", view());
    golden.sample("relation.sequence", sequence());
    let of = |kind| Relation { name: "wake".into(), kind, ..topic() };
    golden.sample("relation.schedule", of(RelationKind::Schedule(Box::new(schedule()))));
    golden.sample(
        "relation.schedule-of-a-statement",
        of(RelationKind::Schedule(Box::new(schedule_of_a_statement()))),
    );
    let failure = RunFailure { code: "42P01".into(), message: "relation \"t\" does not exist".into() };
    golden.sample("run-failure", failure);
    golden.sample("request-id", request());
    golden.sample("stamp", Stamp { time: 0x6758_A580_1F9A_DC50, node: NodeId(7) });
    golden.sample("hlc", Hlc::above(0x6758_A580_1F9A_DC50));
    golden.sample("hello", hello());
    hello_with_http_is_as_it_was(&mut golden);
    let member = member();
    golden.sample("peer-hello", PeerHello { node: member.node, incarnation: Incarnation(7), boot: 3 });
    golden.sample("member", member);
    golden.sample("configuration", configuration());
    for message in messages() {
        golden.sample(&format!("raft.{}", message.kind()), message);
    }
    for message in peer_messages() {
        let kind = match &message {
            // Its name is that of what it carries.
            PeerMessage::Raft { .. } => "Raft",
            other => other.kind(),
        };
        golden.sample(&format!("peer.{kind}"), message);
    }
    for (name, outcome) in forward_outcomes() {
        golden.sample(&format!("forward.{name}"), outcome);
    }
    golden.sample("node-id", NodeId::of_name("node1"));

    row_is_as_it_was(&mut golden, "row", values());
    row_is_as_it_was(&mut golden, "row-2", values_2());
    key_is_as_it_was(&mut golden, "key", values());
    key_is_as_it_was(&mut golden, "key-2", values_2());
    golden.sample("types-2", values_2().into_iter().map(|(ty, _)| ty).collect::<Vec<_>>());
    golden.sample("values-2", values_2().into_iter().map(|(_, value)| value).collect::<Vec<_>>());
    frame_is_as_it_was(&mut golden);
    // Hashes are stored too: what a put replaces, dedup claims, shortened index entries.
    let hashes = (codec::digest(b"key", b"value"), codec::keyed_hash(7, b"message"));
    golden.sample("hashes", hashes);
    golden.finish();
}

fn row_is_as_it_was(golden: &mut Golden, name: &str, values: Vec<(Type, Value)>) {
    // Column numbers of one byte and of two.
    let columns = || values.iter().enumerate().map(|(n, (_, value))| (ColumnId(n as u32 * 40), value));
    let stored = golden.bytes(name, &row::encode(columns()));
    let mut decoded = Vec::new();
    row::decode(&stored, |column, value| decoded.push((column, value))).expect("the row on file decodes");
    let expected: Vec<_> = columns().filter(|(_, v)| !v.is_null()).map(|(c, v)| (c, v.clone())).collect();
    assert_eq!(decoded, expected);
}

fn key_is_as_it_was(golden: &mut Golden, name: &str, values: Vec<(Type, Value)>) {
    let mut encoded = Vec::new();
    values.iter().for_each(|(_, value)| key::encode(&mut encoded, value));
    let stored = golden.bytes(name, &encoded);
    let mut input = &stored[..];
    for (ty, value) in values {
        assert_eq!(key::decode(&mut input, ty).expect("the key on file decodes"), value);
    }
    assert!(input.is_empty());
}

fn frame_is_as_it_was(golden: &mut Golden) {
    let mut encoded = Vec::new();
    frame::encode(&mut encoded, 9, b"a body").expect("a small frame");
    let stored = golden.bytes("frame", &encoded);
    let decoded = frame::decode(&stored).expect("the frame on file decodes").expect("whole");
    assert_eq!((decoded.kind, decoded.body, decoded.length), (9, &b"a body"[..], stored.len()));
}

/// A hello as it is sent: what came later stands behind.
fn hello_with_http_is_as_it_was(golden: &mut Golden) {
    let hello = Hello { http: Some("node1.example:9000".into()), ..hello() };
    let stored = golden.bytes("hello-with-http", &hello.encode());
    assert_eq!(Hello::decode(&stored), Ok(hello));
}

#[test]
fn a_hello_of_another_version_is_told_from_a_damaged_one() {
    let bytes = hello().encode();
    assert_eq!(Hello::decode(&bytes), Ok(hello()));
    // A later build may say more, and must still say what is known here.
    let later = [&[2, 9], &bytes[2..], b"more"].concat();
    let decoded = Hello::decode(&later).expect("a version in common");
    assert_eq!((decoded.newest, decoded.version(), decoded.from), (9, 2, hello().from));
    for versions in [[0, 0], [1, 1], [3, 9], [3, 2]] {
        let [oldest, newest] = versions;
        let other = [&versions, &bytes[2..]].concat();
        assert_eq!(Hello::decode(&other), Err(HelloError::Version { oldest, newest }));
    }
    // An older build ends where it always did.
    let older = codec::encode(&hello());
    assert_eq!(Hello::decode(&older), Ok(hello()));
    for cut in 0..older.len() {
        assert!(matches!(Hello::decode(&bytes[..cut]), Err(HelloError::Damaged(_))), "{cut} bytes");
    }
    let long = Hello { http: Some("h".repeat(300)), ..hello() };
    assert!(matches!(Hello::decode(&long.encode()), Err(HelloError::Damaged(_))));
}

#[test]
fn a_damaged_peer_message_is_an_error_or_another_message_and_never_a_panic() {
    let raft = messages().into_iter().map(|message| PeerMessage::Raft { group: GroupId(2), message });
    for message in raft.chain(peer_messages()) {
        let bytes = codec::encode(&message);
        for at in 0..bytes.len() {
            assert!(codec::decode::<PeerMessage>("a peer message", &bytes[..at]).is_err(), "{message:?}");
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(other) = codec::decode::<PeerMessage>("a peer message", &damaged) {
                    // One number may be written in several ways; NaN is not here, so other bytes are another message.
                    assert!(other != message || codec::encode(&other) == bytes, "{message:?}");
                }
            }
        }
    }
}
