//! One node whose disk and store do at once what they are told: a world for tests that ask what a client sees.

use chronos_engine::node::{Config, Node};
use chronos_engine::step::{Action, Delivery, Input, Outputs, Published, Reply, Request, Token};
use chronos_engine::store::{MemoryStore, SharedStore};
use chronos_engine::txn::{Committed, Refused, Transaction};
use chronos_engine::wal::{Recovered, WalOp, WriteId};
use chronos_proto::id::{ClusterId, GroupId, Incarnation, NodeId};
use chronos_proto::time::{Instant, Now, Timestamp};
use std::sync::Arc;

/// 2023-11-14 22:13:20 UTC.
pub const START: Timestamp = Timestamp(1_700_000_000_000_000);

/// One node on a disk that does at once what it is told.
pub struct World {
    pub node: Node,
    pub store: MemoryStore,
    pub shared: SharedStore,
    pub mono: u64,
    published: Option<Published>,
    replies: Vec<(Token, Result<Committed, Refused>)>,
    pub deliveries: Vec<Delivery>,
    token: u64,
}

impl World {
    pub fn new() -> World {
        let config = Config::new(ClusterId(7), NodeId(1), Incarnation(1), 1, 42);
        let shared: SharedStore = Arc::new(MemoryStore::default());
        let mut out = Outputs::default();
        let now = Now { mono: Instant(0), wall: START };
        let node =
            Node::new(config, now, Recovered::default(), &shared, &mut out).expect("an empty node starts");
        let mut world = World {
            node,
            store: MemoryStore::default(),
            shared,
            mono: 0,
            published: None,
            replies: Vec::new(),
            deliveries: Vec::new(),
            token: 0,
        };
        world.perform(out);
        world
    }

    fn now(&self) -> Now {
        Now { mono: Instant(self.mono), wall: START + std::time::Duration::from_micros(self.mono) }
    }

    pub fn input(&mut self, input: Input) {
        let mut out = Outputs::default();
        self.node.step(self.now(), input, &self.shared, &mut out);
        self.perform(out);
    }

    fn perform(&mut self, out: Outputs) {
        let mut durable: Option<WriteId> = None;
        for effect in out.effects {
            match effect.action {
                Action::Wal(WalOp::Sync { write, .. } | WalOp::Done { write }) => durable = Some(write),
                Action::Wal(_) | Action::Trace(_) => {}
                Action::Reply(token, Reply::Commit(result)) => self.replies.push((token, result)),
                Action::Reply(_, reply) => panic!("nothing else was asked: {reply:?}"),
                Action::Send { to, message } => panic!("{message:?} to {to}, and nobody is there"),
                Action::Refuse { peer, why } => panic!("{peer} is refused, and there are no others: {why}"),
                Action::Members(members) => panic!("{members:?}, and there are none"),
                Action::Publish(published) => self.published = Some(published),
                Action::Deliver(delivery) => self.deliveries.push(delivery),
                Action::CloseSubscriber(id, why) => panic!("{id:?} was closed: {why}"),
                Action::Fatal(fatal) => panic!("{fatal}"),
                Action::Checkpoint(checkpoint) => {
                    for group in &checkpoint.groups {
                        for (key, value) in group.entries() {
                            match value {
                                Some(value) => self.store.0.insert(key, value),
                                None => self.store.0.remove(&key),
                            };
                        }
                    }
                    self.shared = Arc::new(self.store.clone());
                    self.input(Input::CheckpointDurable(checkpoint.id));
                }
            }
        }
        if let Some(write) = durable {
            self.input(Input::WriteDurable(write));
        }
    }

    /// Lets time pass, ticking at each deadline on the way.
    pub fn pass(&mut self, micros: u64) {
        let until = self.mono + micros;
        while let Some((at, _)) = self.node.next_deadline().filter(|(at, _)| at.0 <= until) {
            self.mono = self.mono.max(at.0) + 1;
            self.input(Input::Tick);
            self.input(Input::QueueDrained);
        }
        self.mono = self.mono.max(until);
    }

    pub fn published(&self) -> &Published {
        self.published.as_ref().expect("a node publishes at once")
    }

    /// Hands a transaction in, and waits for its answer.
    pub fn commit(&mut self, group: GroupId, transaction: Transaction) -> Result<Committed, Refused> {
        self.token += 1;
        let token = Token(self.token);
        self.input(Input::Request { token, request: Request::Commit(group, transaction) });
        self.input(Input::QueueDrained);
        let at = self.replies.iter().position(|(t, _)| *t == token).expect("an answer");
        self.replies.swap_remove(at).1
    }
}
