//! Single steps, each without a disk: an engine's commit, the timing wheel, a WAL cut, a point read in SQL.

use bytes::Bytes;
use chronos_engine::node::{Config, Fsync, Node};
use chronos_engine::step::{Action, Input, Outputs, Published, Reply, Request, Token};
use chronos_engine::store::{MemoryStore, SharedStore};
use chronos_engine::timer::Wheel;
use chronos_engine::txn::{Committed, Refused, Transaction};
use chronos_engine::wal::{self, Anchor, Identity, Record, Recovered, WalOp};
use chronos_proto::command::{Command, Entry, Op};
use chronos_proto::id::{
    ClusterId, ColumnId, GroupId, Incarnation, Index, NodeId, RelationId, RequestId, Term,
};
use chronos_proto::time::{Instant, Now, Timestamp};
use chronos_proto::value::Value;
use chronos_proto::{key, row};
use chronos_sql::{Context, Limits, Outcome, Session, SessionOptions};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const START: Timestamp = Timestamp(1_700_000_000_000_000);
const IDS: i64 = 10_000;

/// A node whose disk does at once what it is told.
struct World {
    node: Node,
    store: SharedStore,
    mono: u64,
    token: u64,
    published: Option<Published>,
    answer: Option<Result<Committed, Refused>>,
}

impl World {
    fn new() -> World {
        let config = Config::new(ClusterId(7), NodeId(1), Incarnation(1), 1, 42);
        // Checkpoints are a measurement of their own.
        let config =
            Config { checkpoint_wal_bytes: u64::MAX, checkpoint_interval_us: u64::MAX / 4, ..config };
        let store: SharedStore = Arc::new(MemoryStore::default());
        let mut out = Outputs::default();
        let now = Now { mono: Instant(0), wall: START };
        let node =
            Node::new(config, now, Recovered::default(), &store, &mut out).expect("an empty node starts");
        let mut world = World { node, store, mono: 0, token: 0, published: None, answer: None };
        world.perform(out);
        world
    }

    fn input(&mut self, input: Input) {
        self.mono += 1;
        let wall = START + std::time::Duration::from_micros(self.mono);
        let mut out = Outputs::default();
        self.node.step(Now { mono: Instant(self.mono), wall }, input, &self.store, &mut out);
        self.perform(out);
    }

    fn perform(&mut self, out: Outputs) {
        let mut durable = None;
        for effect in out.effects {
            match effect.action {
                Action::Wal(WalOp::Sync { write, .. } | WalOp::Done { write }) => durable = Some(write),
                Action::Reply(_, Reply::Commit(answer)) => self.answer = Some(answer),
                Action::Publish(published) => self.published = Some(published),
                Action::Fatal(fatal) => panic!("{fatal}"),
                _ => {}
            }
        }
        if let Some(write) = durable {
            self.input(Input::WriteDurable(write));
        }
    }

    fn published(&self) -> &Published {
        self.published.as_ref().expect("a node publishes at its start")
    }

    fn submit(&mut self, group: GroupId, transaction: Transaction) -> Committed {
        self.token += 1;
        let request = Request::Commit(group, transaction);
        self.input(Input::Request { token: Token(self.token), request });
        self.input(Input::QueueDrained);
        self.answer.take().expect("an answer").expect("a commit")
    }

    fn sql(&mut self, session: &mut Session, sql: &str, parameters: &[Value]) -> Outcome {
        let statement = chronos_sql::parse(sql).expect("SQL").remove(0);
        let published = self.published().clone();
        let prepared = session.prepare(&statement, &[], &published.snapshot).expect("a statement");
        let cancel = AtomicBool::new(false);
        let context = context(&published, &cancel);
        match session.execute(&prepared, parameters, &context).expect("executed") {
            Outcome::Commit(mut commit) => {
                let transaction = std::mem::take(&mut commit.transaction);
                let answer = Ok(self.submit(commit.group, transaction));
                session.committed(*commit, answer).expect("committed")
            }
            outcome => outcome,
        }
    }
}

fn context<'a>(published: &'a Published, cancel: &'a AtomicBool) -> Context<'a> {
    Context {
        snapshot: &published.snapshot,
        read_time: published.clock.time,
        random: 7,
        request: RequestId::default(),
        cancel,
        limits: Limits::default(),
    }
}

fn put(table: RelationId, id: i64) -> Op {
    let mut encoded = Vec::new();
    key::encode(&mut encoded, &Value::Int(id));
    let value = Value::Int(id * 3);
    let row = row::encode([(ColumnId(2), &value)].into_iter());
    Op::PutRow { relation: table, key: encoded.into(), row, replaces: 0, indexes: Vec::new() }
}

fn commit(c: &mut Criterion) {
    let mut world = World::new();
    let mut session = Session::new(SessionOptions::default());
    world.sql(&mut session, "CREATE TABLE t (id BIGINT PRIMARY KEY, x BIGINT)", &[]);
    let published = world.published().clone();
    let table = published.snapshot.catalog.by_name("t").expect("the table").id;
    let mut next = 0;
    let mut group = c.benchmark_group("engine commit");
    for rows in [1, 1000] {
        group.throughput(Throughput::Elements(rows));
        group.bench_function(format!("{rows} rows"), |b| {
            b.iter_batched(
                || {
                    let ids = (next..next + rows as i64).map(|id| id % IDS);
                    next += rows as i64;
                    ids.map(|id| put(table, id)).collect::<Vec<_>>()
                },
                |ops| world.submit(GroupId(0), Transaction { ops, ..Transaction::default() }),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn wheel(c: &mut Criterion) {
    let mut group = c.benchmark_group("wheel");
    group.throughput(Throughput::Elements(1));
    let spread = |i: u64| 1 + i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 60_000;
    group.bench_function("insert and cancel, 100,000 within", |b| {
        let mut wheel: Wheel<u64> = Wheel::new(0);
        for i in 0..100_000 {
            wheel.insert(spread(i), i, i);
        }
        let mut i = 100_000;
        b.iter(|| {
            i += 1;
            let handle = wheel.insert(spread(i), i, i);
            black_box(wheel.cancel(handle));
        });
    });
    group.bench_function("insert and come due", |b| {
        let mut wheel: Wheel<u64> = Wheel::new(0);
        for i in 0..100_000 {
            wheel.insert(spread(i), i, i);
        }
        let (mut i, mut now, mut due) = (100_000, 0, Vec::new());
        b.iter(|| {
            // As many come out in the long run as go in.
            i += 1;
            wheel.insert(now + spread(i), i, i);
            if i % 3 == 0 {
                now += 1;
                due.clear();
                wheel.advance(now, &mut due);
            }
            black_box(&due);
        });
    });
    group.finish();
}

fn wal_cut(c: &mut Criterion) {
    let identity = Identity { cluster: ClusterId(7), node: NodeId(1), incarnation: Incarnation(1) };
    let config =
        wal::Config { identity, segment_bytes: 64 << 20, fsync: Fsync::Always, pending_max_bytes: 64 << 20 };
    let anchor = Anchor { boot: 1, mono: Instant(0), time: Some(START) };
    let mut ops = Vec::new();
    let (mut writer, opening) = wal::Writer::open(config, &Recovered::default(), anchor, &mut ops);
    writer.on_durable(opening);
    let mut index = 0;
    let payload = Bytes::from(vec![7; 100]);
    let mut group = c.benchmark_group("wal");
    group.throughput(Throughput::Elements(64));
    group.bench_function("append and cut 64 entries of 100 bytes", |b| {
        b.iter(|| {
            for _ in 0..64 {
                index += 1;
                let op =
                    Op::AppendRow { relation: RelationId(16), row: payload.clone(), indexes: Vec::new() };
                let command = Arc::new(Command::Batch { request: RequestId::default(), ops: vec![op] });
                let entry = Entry { term: Term(1), index: Index(index), time: START, stamp: index, command };
                writer.append(GroupId(0), &Record::Entry(entry));
            }
            ops.clear();
            let write = writer.cut(anchor, &mut ops).expect("a write");
            writer.on_durable(write);
            black_box(&ops);
        });
    });
    group.finish();
}

fn point_read(c: &mut Criterion) {
    let mut world = World::new();
    let mut session = Session::new(SessionOptions::default());
    world.sql(
        &mut session,
        "CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT NOT NULL, x DOUBLE PRECISION)",
        &[],
    );
    for first in (0..IDS).step_by(1000) {
        let rows: Vec<String> =
            (first..first + 1000).map(|id| format!("({id}, 'name {id}', {id}.5)")).collect();
        world.sql(&mut session, &format!("INSERT INTO t (id, name, x) VALUES {}", rows.join(", ")), &[]);
    }
    let published = world.published().clone();
    let statement = chronos_sql::parse("SELECT id, name, x FROM t WHERE id = $1").expect("SQL").remove(0);
    let prepared = session.prepare(&statement, &[], &published.snapshot).expect("a statement");
    let cancel = AtomicBool::new(false);
    let mut id = 0;
    let mut group = c.benchmark_group("sql");
    group.throughput(Throughput::Elements(1));
    group.bench_function("prepared point read", |b| {
        b.iter(|| {
            id = (id + 7919) % IDS;
            let told = session.execute(&prepared, &[Value::Int(id)], &context(&published, &cancel));
            let Ok(Outcome::Rows(rows)) = told else { panic!("rows, and not {told:?}") };
            assert_eq!(rows.len(), 1);
        });
    });
    group.finish();
}

criterion_group!(steps, commit, wheel, wal_cut, point_read);
criterion_main!(steps);
