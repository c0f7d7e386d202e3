//! A node with a disk that answers when told, and a script that is drawn from a seed.

use bytes::Bytes;
use chronos_engine::node::{Config, Node};
use chronos_engine::rng::Rng;
use chronos_engine::step::{
    Action, CheckpointId, Input, Outputs, Request, Start, SubscriberId, SubscriberInput, Subscription, Token,
};
use chronos_engine::store::{MemoryStore, SharedStore};
use chronos_engine::txn::Transaction;
use chronos_engine::wal::{Recovered, WalOp, WriteId};
use chronos_proto::command::{Event, Op};
use chronos_proto::id::{ClusterId, GroupId, Incarnation, Index, NodeId, RelationId, RequestId, SessionId};
use chronos_proto::schema::{Relation, RelationKind, Table, Topic};
use chronos_proto::time::{Instant, Now, Timestamp};
use chronos_proto::value::Type;
use std::collections::VecDeque;
use std::sync::Arc;

const GROUP: GroupId = GroupId(0);
pub const START: i64 = 1_733_856_000_000_000;
pub const NOTES: RelationId = RelationId(16);
pub const ALERTS: RelationId = RelationId(17);

/// A node with a disk and a store that answer late, and all that it ever put out, as text.
pub struct Run {
    pub node: Node,
    pub rng: Rng,
    pub mono: u64,
    pub store: MemoryStore,
    pub shared: SharedStore,
    pub owed: VecDeque<Input>,
    pub applied: Index,
    token: u64,
    pub trace: String,
}

impl Run {
    pub fn new(seed: u64, pending_max_bytes: usize) -> Run {
        Run::with(seed, |config| Config { pending_max_bytes, ..config })
    }

    pub fn with(seed: u64, settings: impl FnOnce(Config) -> Config) -> Run {
        let config = settings(Config::new(ClusterId(7), NodeId(1), Incarnation(1), 1, seed));
        let shared: SharedStore = Arc::new(MemoryStore::default());
        let mut out = Outputs::default();
        let now = Now { mono: Instant(0), wall: Timestamp(START) };
        let node =
            Node::new(config, now, Recovered::default(), &shared, &mut out).expect("an empty node starts");
        let mut run = Run {
            node,
            rng: Rng::new(seed),
            mono: 0,
            store: MemoryStore::default(),
            shared,
            owed: VecDeque::new(),
            applied: Index(0),
            token: 0,
            trace: String::new(),
        };
        run.take(out);
        run
    }

    pub fn step(&mut self, input: Input) {
        let mut out = Outputs::default();
        let now = Now { mono: Instant(self.mono), wall: Timestamp(START + self.mono as i64) };
        self.node.step(now, input, &self.shared, &mut out);
        self.take(out);
        let line = format!("{:?} {:?}\n", self.node.next_deadline(), self.node.status());
        self.trace.push_str(&line);
    }

    fn take(&mut self, out: Outputs) {
        let mut written: Option<WriteId> = None;
        for effect in out.effects {
            self.trace.push_str(&format!("{effect:?}\n"));
            match effect.action {
                Action::Wal(WalOp::Sync { write, .. } | WalOp::Done { write }) => written = Some(write),
                Action::Publish(published) => self.applied = published.snapshot.applied,
                Action::Checkpoint(checkpoint) => {
                    for (key, value) in checkpoint.groups.iter().flat_map(|group| group.entries()) {
                        match value {
                            Some(value) => self.store.0.insert(key, value),
                            None => self.store.0.remove(&key),
                        };
                    }
                    self.owed.push_back(Input::CheckpointDurable(checkpoint.id));
                }
                Action::Fatal(fatal) => panic!("{fatal}"),
                _ => {}
            }
        }
        self.owed.extend(written.map(Input::WriteDurable));
    }

    pub fn commit(&mut self, ops: Vec<Op>) {
        self.token += 1;
        let session = SessionId((START as u128) << 64 | 5);
        let request = RequestId { session, sequence: self.token, floor: self.token.saturating_sub(10) };
        let transaction = Transaction { request, read_index: self.applied, ops, ..Transaction::default() };
        self.step(Input::Request { token: Token(self.token), request: Request::Commit(GROUP, transaction) });
    }

    /// The disk and the store do all that they owe.
    pub fn settle(&mut self) {
        while self.answer() {}
    }

    /// The disk or the store does the first thing that it owes.
    pub fn answer(&mut self) -> bool {
        let Some(owed) = self.owed.pop_front() else { return false };
        if let Input::CheckpointDurable(CheckpointId(_)) = owed {
            self.shared = Arc::new(self.store.clone());
        }
        self.step(owed);
        true
    }

    /// A table, and a topic.
    pub fn make_relations(&mut self) {
        let relation =
            |id, name: &str, kind| Relation { id, name: name.into(), group: GROUP, version: 1, kind };
        let topic =
            Topic { partitions: 1, dedup_micros: 2_000_000, payload: Type::Bytes, settings: Vec::new() };
        self.settle();
        self.commit(vec![
            Op::PutRelation(relation(NOTES, "notes", RelationKind::Table(Table::default()))),
            Op::PutRelation(relation(ALERTS, "alerts", RelationKind::Topic(topic))),
        ]);
    }

    fn event(&mut self) -> Event {
        let message_id = format!("m{}", self.rng.below(60));
        Event { message_id, payload: Bytes::from(vec![7; self.rng.below(900) as usize]), ..Event::default() }
    }

    fn random_op(&mut self) -> Op {
        let claim = self.rng.one_in(2);
        let timer_id = format!("t{}", self.rng.below(40));
        match self.rng.below(6) {
            0 | 1 => Op::AppendRow { relation: NOTES, row: Bytes::from_static(&[1, 0]), indexes: vec![] },
            2 => Op::Publish { topic: ALERTS, partition: 0, event: self.event(), claim },
            3 => Op::Cancel { topic: ALERTS, timer_id, if_version: None },
            _ => {
                let ahead = self.rng.below(3_000_000) as i64;
                let deliver_at = Timestamp(START + self.mono as i64 + ahead);
                Op::Schedule { topic: ALERTS, partition: 0, timer_id, event: self.event(), deliver_at, claim }
            }
        }
    }

    fn random_step(&mut self) {
        self.mono += self.rng.below(20_000);
        let subscriber = SubscriberId(self.rng.below(4));
        match self.rng.below(12) {
            0..=3 => {
                let ops = (0..self.rng.between(1, 4)).map(|_| self.random_op()).collect();
                self.commit(ops);
            }
            4 | 5 => self.step(Input::QueueDrained),
            6 | 7 => {
                if !self.answer() {
                    self.step(Input::Tick);
                }
            }
            8 => {
                let consumer_group = self.rng.one_in(2).then(|| "g".to_owned());
                let (credit, ack_timeout_ms) = (self.rng.below(9) as u32, self.rng.between(1, 500));
                let start = Start::Earliest;
                let (topic, partitions) = (ALERTS, Vec::new());
                let open = Subscription { topic, partitions, consumer_group, start, credit, ack_timeout_ms };
                self.step(Input::Subscriber { id: subscriber, event: SubscriberInput::Open(open) });
            }
            9 => {
                let offsets = (0..4).map(|_| (0, self.rng.below(30))).collect();
                self.step(Input::Subscriber { id: subscriber, event: SubscriberInput::Ack(offsets) });
            }
            10 if self.rng.one_in(20) => self.step(Input::Checkpoint),
            _ => self.step(Input::Tick),
        }
    }
}

/// A long life of random requests, subscribers and delays.
pub fn run(seed: u64, pending_max_bytes: usize) -> Run {
    let mut run = Run::new(seed, pending_max_bytes);
    run.make_relations();
    for _ in 0..1_500 {
        run.random_step();
    }
    run
}
