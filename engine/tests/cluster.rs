//! Nodes wired in memory: what one sends reaches the others at once unless a link is cut, disks do at once what they
//! are told, and a killed node comes back with what its disk holds.

// Tests may read files and the environment; the crate may not.
#![allow(clippy::disallowed_methods)]

#[path = "support/relations.rs"]
mod relations;

use bytes::Bytes;
use chronos_engine::node::{Config, Fsync, Node, Start};
use chronos_engine::raft::{Change, ChangeError, Role};
use chronos_engine::rng::Rng;
use chronos_engine::state::records::Incoming;
use chronos_engine::state::{Sessions, keys, sealed};
use chronos_engine::step::{
    Action, Fresh, Input, OperatorError, Outputs, Published, ReadAt, Reply, Request, Token, Trace,
};
use chronos_engine::store::{MemoryStore, SharedStore};
use chronos_engine::txn::{Committed, Refused, Transaction};
use chronos_engine::wal::{Identity, SegmentId, WalOp, WriteId, recover};
use chronos_proto::codec;
use chronos_proto::command::{Event, Op};
use chronos_proto::id::{ClusterId, Incarnation, Index, NodeId, RequestId};
use chronos_proto::membership::{Configuration, Member};
use chronos_proto::peer::{ForwardOutcome, PeerHello, PeerMessage};
use chronos_proto::time::{Instant, Now, Timestamp};
use relations::{GROUP, TABLE, TOPIC, primary_key};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

const CLUSTER: ClusterId = ClusterId(7);
const START: Timestamp = Timestamp(1_700_000_000_000_000);
const MS: u64 = 1_000;

struct Host {
    config: Config,
    /// None while it is killed.
    node: Option<Node>,
    boots: u64,
    /// The number that its store was last started with.
    begun: Option<Start>,
    wal: BTreeMap<SegmentId, Vec<u8>>,
    /// What of it a power cut leaves.
    synced: BTreeMap<SegmentId, Vec<u8>>,
    store: MemoryStore,
    shared: SharedStore,
    /// What its disk and store answer next.
    owed: VecDeque<Input>,
    published: Option<Published>,
    replies: BTreeMap<Token, Reply>,
    /// There is no space for what its WAL is told to write.
    full: bool,
    /// Its disk does not answer for now.
    hangs: bool,
    /// With whom it is to link; it sends to nobody else.
    links: BTreeSet<NodeId>,
    /// It is killed when a snapshot has become its state, and nothing of that is in its log.
    dies_at_flip: bool,
    /// Its disk answers no more when its store has done so many writes more.
    hangs_after: Option<usize>,
    /// Writes of its store that brought parts of a snapshot.
    chunk_writes: usize,
}

impl Host {
    fn hello(&self) -> PeerHello {
        PeerHello { node: self.config.node, incarnation: self.config.incarnation, boot: self.number() }
    }

    fn number(&self) -> u64 {
        self.begun.map_or(0, |begun| begun.number)
    }
}

#[derive(Default)]
struct Cluster {
    hosts: BTreeMap<NodeId, Host>,
    mono: u64,
    net: VecDeque<(NodeId, NodeId, PeerMessage)>,
    /// Nodes that nobody reaches.
    isolated: BTreeSet<NodeId>,
    /// Messages are lost, doubled and overtaken by this; none is otherwise.
    noise: Option<Rng>,
    /// The next message of this kind is lost.
    lose: Option<&'static str>,
    /// Who tells whom nothing of the members: that is lost.
    secret: Option<(NodeId, NodeId)>,
    /// How many messages were sent, by kind.
    sent: BTreeMap<&'static str, usize>,
    /// In how many chunks the longest snapshot was sent.
    chunks: usize,
    traces: Vec<(NodeId, Trace)>,
    tokens: u64,
    /// How far wall clocks are ahead of the truth, in microseconds.
    wrong: BTreeMap<NodeId, i64>,
}

fn member(number: u64) -> Member {
    let (name, address) = (format!("n{number}"), format!("10.0.0.{number}:4000"));
    Member { node: NodeId(number), name, address, incarnation: None, boot: 0 }
}

impl Cluster {
    /// Three nodes that have just elected a leader, with a table and a topic.
    fn of_three(adjust: impl Fn(Config) -> Config) -> Cluster {
        Cluster::of(3, adjust)
    }

    fn of(nodes: u64, adjust: impl Fn(Config) -> Config) -> Cluster {
        Cluster::with_clocks(nodes, BTreeMap::new(), adjust)
    }

    fn with_clocks(nodes: u64, wrong: BTreeMap<NodeId, i64>, adjust: impl Fn(Config) -> Config) -> Cluster {
        let mut cluster = Cluster { wrong, ..Cluster::default() };
        for number in 1..=nodes {
            let members = (1..=nodes).map(member).collect();
            cluster.add(number, adjust(Config { members, ..Cluster::config(number) }));
        }
        cluster.pass(3_000 * MS);
        let leader = cluster.leader();
        cluster.make_relations(leader);
        cluster
    }

    /// A node's directory is wiped while it is down, and it starts again as it was told at first.
    fn wipe(&mut self, id: NodeId) {
        let Some(host) = self.hosts.remove(&id) else { panic!("no host {id}") };
        assert!(host.node.is_none(), "{id} is up");
        let incarnation = Incarnation(host.config.incarnation.0 + 1_000);
        self.add(id.0, Config { incarnation, ..host.config });
    }

    fn leads_anywhere(&self) -> bool {
        self.up().any(|id| self.role(id) == Role::Leader)
    }

    fn config(number: u64) -> Config {
        let config = Config::new(CLUSTER, NodeId(number), Incarnation(100 + number), 1, 42 + number);
        Config { segment_bytes: 1 << 20, ..config }
    }

    fn add(&mut self, number: u64, config: Config) {
        let host = Host {
            config,
            node: None,
            boots: 0,
            begun: None,
            wal: BTreeMap::new(),
            synced: BTreeMap::new(),
            store: MemoryStore::default(),
            shared: Arc::new(MemoryStore::default()),
            owed: VecDeque::new(),
            published: None,
            replies: BTreeMap::new(),
            full: false,
            hangs: false,
            links: BTreeSet::new(),
            dies_at_flip: false,
            hangs_after: None,
            chunk_writes: 0,
        };
        self.hosts.insert(NodeId(number), host);
        self.start(NodeId(number));
    }

    /// Starts a node with what its disk holds, and links it with all that are up.
    fn start(&mut self, id: NodeId) {
        let now = self.clocks(id);
        let Some(host) = self.hosts.get_mut(&id) else { panic!("no host {id}") };
        assert!(host.node.is_none(), "{id} is up");
        host.boots += 1;
        host.begun = Some(Start::next(host.begun, host.config.seed + host.boots));
        host.shared = Arc::new(host.store.clone());
        let identity = Identity { cluster: CLUSTER, node: id, incarnation: host.config.incarnation };
        let recovered = recover(identity, &host.wal).expect("a sound WAL");
        let mut out = Outputs::default();
        let node = Node::new(
            Config {
                boots: host.number(),
                seed: host.config.seed + 1_000 * host.boots,
                ..host.config.clone()
            },
            now,
            recovered,
            &host.shared,
            &mut out,
        )
        .expect("a node starts");
        host.node = Some(node);
        self.perform(id, out);
        self.link(id);
        self.run();
    }

    fn kill(&mut self, id: NodeId) {
        let Some(host) = self.hosts.get_mut(&id) else { panic!("no host {id}") };
        host.node = None;
        host.owed.clear();
        host.replies.clear();
        self.net.retain(|(from, ..)| *from != id);
        self.each_other(id, |cluster, other| cluster.input(other, Input::PeerDown(id)));
    }

    /// The machine loses power: what was not synced is gone, and the next start knows that this may be.
    fn cut_power(&mut self, id: NodeId) {
        self.kill(id);
        let Some(host) = self.hosts.get_mut(&id) else { panic!("no host {id}") };
        host.wal.clone_from(&host.synced);
        host.config.doubtful = host.config.fsync != Fsync::Always;
    }

    fn isolate(&mut self, id: NodeId) {
        self.isolated.insert(id);
        self.each_other(id, |cluster, other| {
            cluster.input(other, Input::PeerDown(id));
            cluster.input(id, Input::PeerDown(other));
        });
    }

    fn heal(&mut self) {
        for id in std::mem::take(&mut self.isolated) {
            self.link(id);
        }
        self.run();
    }

    fn link(&mut self, id: NodeId) {
        if self.isolated.contains(&id) {
            return;
        }
        let hello = self.hosts[&id].hello();
        self.each_other(id, |cluster, other| {
            if cluster.isolated.contains(&other) || cluster.hosts[&other].node.is_none() {
                return;
            }
            let other_hello = cluster.hosts[&other].hello();
            cluster.input(other, Input::PeerUp(hello.clone()));
            cluster.input(id, Input::PeerUp(other_hello));
        });
    }

    fn each_other(&mut self, id: NodeId, mut act: impl FnMut(&mut Cluster, NodeId)) {
        let others: Vec<NodeId> = self.hosts.keys().copied().filter(|other| *other != id).collect();
        others.into_iter().for_each(|other| act(self, other));
    }

    /// The true time.
    fn now(&self) -> Now {
        Now { mono: Instant(self.mono), wall: START + Duration::from_micros(self.mono) }
    }

    /// What a node reads.
    fn clocks(&self, id: NodeId) -> Now {
        let Now { mono, wall } = self.now();
        Now { mono, wall: Timestamp(wall.0 + self.wrong.get(&id).copied().unwrap_or(0)) }
    }

    /// Gives an input to a node that is up, and what follows from it to its disk and the network.
    fn input(&mut self, id: NodeId, input: Input) {
        let now = self.clocks(id);
        for input in [input, Input::QueueDrained] {
            let Some(host) = self.hosts.get_mut(&id) else { return };
            let Some(node) = host.node.as_mut() else { return };
            let mut out = Outputs::default();
            node.step(now, input, &host.shared, &mut out);
            self.perform(id, out);
        }
    }

    fn perform(&mut self, id: NodeId, out: Outputs) {
        for effect in out.effects {
            let Some(host) = self.hosts.get_mut(&id) else { return };
            match effect.action {
                Action::Wal(op) => match op {
                    WalOp::Create { segment, bytes } => {
                        host.wal.insert(segment, vec![0; bytes as usize]);
                        host.synced.insert(segment, vec![0; bytes as usize]);
                    }
                    WalOp::Write { .. } if host.full => {}
                    WalOp::Sync { write, .. } if host.full => host.owed.push_back(Input::WriteFull(write)),
                    WalOp::Write { segment, offset, bytes, .. } => {
                        let file = host.wal.get_mut(&segment).expect("written after it is created");
                        file[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                    }
                    WalOp::Sync { write, .. } => {
                        host.synced.clone_from(&host.wal);
                        host.owed.push_back(Input::WriteDurable(write));
                    }
                    WalOp::Done { write } => host.owed.push_back(Input::WriteDurable(write)),
                    WalOp::Remove { segment } => {
                        host.wal.remove(&segment);
                        host.synced.remove(&segment);
                    }
                },
                Action::Reply(token, reply) => {
                    assert!(host.replies.insert(token, reply).is_none(), "answered twice");
                }
                Action::Send { to, message } => {
                    *self.sent.entry(message.kind()).or_default() += 1;
                    if let PeerMessage::Chunk(chunk) = &message {
                        self.chunks = self.chunks.max(chunk.number as usize + 1);
                    }
                    let lost = message.kind() == "Members" && self.secret == Some((id, to))
                        || self.lose.take_if(|kind| *kind == message.kind()).is_some();
                    if !lost {
                        self.net.push_back((id, to, message));
                    }
                }
                Action::Publish(published) => host.published = Some(published),
                Action::Checkpoint(checkpoint) => {
                    let progress = |(key, value): (Bytes, Option<Bytes>)| {
                        key.ends_with(&keys::incoming()) && value.is_some()
                    };
                    let mut entries = checkpoint.groups.iter().flat_map(|group| group.entries());
                    host.chunk_writes += usize::from(entries.any(progress));
                    for (key, value) in checkpoint.groups.iter().flat_map(|group| group.entries()) {
                        match value {
                            Some(value) => host.store.0.insert(key, value),
                            None => host.store.0.remove(&key),
                        };
                    }
                    host.owed.push_back(Input::CheckpointDurable(checkpoint.id));
                    host.hangs_after = host.hangs_after.map(|writes| writes - 1);
                    host.hangs |= host.hangs_after.take_if(|writes| *writes == 0).is_some();
                }
                Action::Trace(trace) => {
                    let flipped = matches!(trace, Trace::SnapshotInstalled { .. }) && host.dies_at_flip;
                    self.traces.push((id, trace));
                    if flipped {
                        return self.kill(id);
                    }
                }
                Action::Fatal(fatal) => panic!("{id}: {fatal}"),
                Action::Members(members) => {
                    if let Some(begun) = &mut host.begun {
                        begun.noted |= begun.is_noted_in(id, &members);
                    }
                    host.links = members.iter().map(|member| member.node).collect();
                }
                Action::Deliver(_) | Action::CloseSubscriber(..) | Action::Refuse { .. } => {}
            }
        }
    }

    /// Lets disks answer and messages arrive until nothing is under way.
    fn run(&mut self) {
        for _ in 0..100_000 {
            let mut answering = self.hosts.iter_mut().filter(|(_, host)| !host.hangs);
            let owing = answering.find_map(|(id, host)| Some((*id, host.owed.pop_front()?)));
            if let Some((id, input)) = owing {
                if let (Input::CheckpointDurable(_), Some(host)) = (&input, self.hosts.get_mut(&id)) {
                    host.shared = Arc::new(host.store.clone());
                }
                self.input(id, input);
            } else if let Some((from, to, message)) = self.next_message() {
                let linked = self.hosts[&from].links.contains(&to);
                if linked && !self.isolated.contains(&from) && !self.isolated.contains(&to) {
                    self.input(to, Input::Peer { from, message });
                }
            } else {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.sent);
    }

    fn next_message(&mut self) -> Option<(NodeId, NodeId, PeerMessage)> {
        let Some(noise) = &mut self.noise else { return self.net.pop_front() };
        while noise.one_in(10) && self.net.pop_front().is_some() {}
        let first = noise.below(self.net.len().min(3) as u64) as usize;
        if noise.one_in(10) { self.net.get(first).cloned() } else { self.net.remove(first) }
    }

    /// Lets time pass; every node ticks at its deadlines.
    fn pass(&mut self, micros: u64) {
        let until = self.mono + micros;
        self.run();
        loop {
            let due = |host: &Host| host.node.as_ref()?.next_deadline().map(|(at, _)| at.0);
            let next = self.hosts.iter().filter_map(|(id, host)| Some((due(host)?, *id))).min();
            let Some((at, id)) = next.filter(|(at, _)| *at <= until) else { break };
            // A deadline that is there already is met a moment later, so that time goes on.
            self.mono = self.mono.max(at) + 1;
            self.input(id, Input::Tick);
            self.run();
        }
        self.mono = self.mono.max(until);
    }

    // What is seen from outside

    fn node(&self, id: NodeId) -> &Node {
        self.hosts[&id].node.as_ref().expect("it is up")
    }

    fn up(&self) -> impl Iterator<Item = NodeId> {
        self.hosts.iter().filter(|(_, host)| host.node.is_some()).map(|(id, _)| *id)
    }

    fn role(&self, id: NodeId) -> Role {
        self.node(id).raft(GROUP).map(|raft| raft.role()).unwrap_or_default()
    }

    /// The leader that a majority would agree upon: the one with the greatest term.
    fn leader(&self) -> NodeId {
        let leads = self.up().filter(|id| self.role(*id) == Role::Leader);
        leads.max_by_key(|id| self.node(*id).raft(GROUP).map(|raft| raft.term())).expect("a leader")
    }

    fn follower(&self) -> NodeId {
        let leader = self.leader();
        self.up().find(|id| *id != leader).expect("a follower")
    }

    fn published(&self, id: NodeId) -> &Published {
        self.hosts[&id].published.as_ref().expect("something is published")
    }

    fn applied(&self, id: NodeId) -> Index {
        self.published(id).snapshot.applied
    }

    fn has_row(&self, id: NodeId, row: i64) -> bool {
        let key = keys::row(TABLE, &primary_key(row));
        self.published(id).snapshot.get(&key).expect("a read").is_some()
    }

    /// Message ids of the released events of the topic.
    fn events(&self, id: NodeId) -> Vec<String> {
        let published = self.published(id);
        let read_time = published.clock.at(Instant(self.mono));
        let events = published.snapshot.events(TOPIC, 0, 0, 1_000, read_time).expect("events");
        events.into_iter().map(|event| event.stored.event.message_id).collect()
    }

    fn members(&self, id: NodeId) -> Configuration {
        self.node(id).raft(GROUP).expect("the group").configuration().clone()
    }

    fn installed(&self, id: NodeId) -> usize {
        let installs =
            |(at, trace): &&(NodeId, Trace)| *at == id && matches!(trace, Trace::SnapshotInstalled { .. });
        self.traces.iter().filter(installs).count()
    }

    /// Every node that is up is at the same index with the same state, and its sums are those of what is there.
    fn check_equal(&self) {
        let leader = self.leader();
        let state = |id| self.node(id).state(GROUP).expect("the group");
        for id in self.up() {
            assert_eq!(
                self.applied(id),
                self.applied(leader),
                "{id} is not where the leader is:\n{:?}\n{:?}",
                self.node(id).raft(GROUP).map(|raft| raft.status()),
                self.node(leader).raft(GROUP).map(|raft| raft.status()),
            );
            assert_eq!(
                state(id).digests().differences(state(leader).digests()),
                [],
                "states of {id} and {leader} differ at (tag, relation, bucket)"
            );
            let recomputed = state(id).recompute_digests(&self.hosts[&id].shared).expect("state");
            assert_eq!(state(id).digests().differences(&recomputed), [], "digests of {id} are wrong");
        }
    }

    /// A timer fires neither before its time, by true time, nor late.
    fn check_a_timer_is_on_time(&mut self) {
        let due = self.now().wall + Duration::from_secs(2);
        let leader = self.leader();
        let name = format!("due at {due}");
        self.write(leader, vec![schedule(&name, due)]);
        let early = (due.0 - self.now().wall.0) as u64 - MS;
        self.pass(early);
        assert!(!self.events(leader).contains(&name), "fired before its time");
        self.pass(20 * MS);
        assert!(self.events(leader).contains(&name), "not fired at its time");
        self.pass(500 * MS);
    }

    // What clients do

    fn ask(&mut self, id: NodeId, request: Request) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.input(id, Input::Request { token, request });
        self.run();
        token
    }

    fn answer(&mut self, id: NodeId, token: Token) -> Option<Reply> {
        self.hosts.get_mut(&id)?.replies.remove(&token)
    }

    /// Asks, and lets time pass until there is an answer.
    fn call(&mut self, id: NodeId, request: Request) -> Reply {
        let token = self.ask(id, request);
        for _ in 0..200 {
            if let Some(reply) = self.answer(id, token) {
                return reply;
            }
            self.pass(100 * MS);
        }
        panic!("no answer came");
    }

    /// Takes the answers that have come.
    fn collect(
        &mut self,
        asked: &mut Vec<(NodeId, Token, String)>,
        done: &mut BTreeSet<String>,
        refused: &mut BTreeSet<String>,
    ) {
        asked.retain(|(id, token, name)| match self.answer(*id, *token) {
            Some(Reply::Commit(Ok(_))) => !done.insert(name.clone()),
            Some(Reply::Commit(Err(_))) => !refused.insert(name.clone()),
            Some(Reply::Unknown(_)) => false,
            Some(other) => panic!("asked for a commit, got {other:?}"),
            None => true,
        });
    }

    fn transaction(&self, id: NodeId, ops: Vec<Op>) -> Transaction {
        let read_index = self.hosts[&id].published.as_ref().map_or(Index(0), |p| p.snapshot.applied);
        Transaction { read_index, ops, ..Transaction::default() }
    }

    fn submit(&mut self, id: NodeId, transaction: Transaction) -> Result<Committed, Refused> {
        match self.call(id, Request::Commit(GROUP, transaction)) {
            Reply::Commit(result) => result,
            other => panic!("asked for a commit, got {other:?}"),
        }
    }

    fn write(&mut self, id: NodeId, ops: Vec<Op>) -> Committed {
        let transaction = self.transaction(id, ops);
        self.submit(id, transaction).expect("a write")
    }

    fn read(&mut self, id: NodeId) -> Result<ReadAt, Refused> {
        match self.call(id, Request::Read(GROUP)) {
            Reply::Read(result) => result,
            other => panic!("asked for a read, got {other:?}"),
        }
    }

    fn operate(&mut self, id: NodeId, request: Request) -> Result<(), OperatorError> {
        match self.call(id, request) {
            Reply::Operator(result) => result,
            other => panic!("asked as an operator, got {other:?}"),
        }
    }

    fn make_relations(&mut self, at: NodeId) {
        self.write(at, relations::make_relations());
    }
}

fn put(id: i64) -> Op {
    relations::put(id, id * 10)
}

fn publish(id: &str) -> Op {
    let event = Event { message_id: id.into(), ..Event::default() };
    Op::Publish { topic: TOPIC, partition: 0, event, claim: false }
}

fn schedule(id: &str, at: Timestamp) -> Op {
    let event = Event { message_id: id.into(), ..Event::default() };
    Op::Schedule { topic: TOPIC, partition: 0, timer_id: id.into(), event, deliver_at: at, claim: false }
}

/// Followers that miss anything are sent a snapshot.
fn keeping_nothing(config: Config) -> Config {
    let raft = chronos_engine::raft::Settings { kept_bytes_max: 0, ..config.raft };
    Config { raft, ..config }
}

#[test]
fn a_write_on_a_follower_is_forwarded_and_a_read_on_another_sees_it() {
    let mut cluster = Cluster::of_three(|config| config);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let third = cluster.up().find(|id| *id != leader && *id != follower).expect("three");
    let committed = cluster.write(follower, vec![put(1)]);
    assert!(cluster.sent["Forward"] >= 1);
    for reader in [third, follower, leader] {
        let at = cluster.read(reader).expect("a read");
        assert!(at.index >= committed.index, "{at:?} is older than {committed:?}");
        assert!(cluster.has_row(reader, 1), "{reader} answers from a state that is older than promised");
    }
    cluster.check_equal();
}

/// `cargo sim --seed 0xd6` found that the client was told so.
#[test]
fn a_refusal_of_an_earlier_asking_is_none_while_a_later_one_is_under_way() {
    let mut cluster = Cluster::of_three(|config| config);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.make_relations(leader);
    let token = Token(1_000);
    let request = Request::Commit(GROUP, cluster.transaction(follower, vec![put(1)]));
    cluster.input(follower, Input::Request { token, request });
    let forwarded = cluster.net.iter().find_map(|(_, _, message)| match message {
        PeerMessage::Forward(forward) => Some(forward.number),
        _ => None,
    });
    let number = forwarded.expect("it is forwarded");
    // The leader refuses it, and the answer is long under way.
    cluster.net.retain(|(_, _, message)| !matches!(message, PeerMessage::Forward(_)));
    cluster.pass(950 * MS);
    cluster.hosts.values_mut().for_each(|host| host.hangs = true);
    cluster.pass(100 * MS);
    assert!(cluster.answer(follower, token).is_none());
    let outcome = ForwardOutcome::Overloaded(1);
    let message = PeerMessage::ForwardReply { number, outcome };
    cluster.input(follower, Input::Peer { from: leader, message });
    assert!(cluster.answer(follower, token).is_none(), "the second asking may have an effect");
    cluster.hosts.values_mut().for_each(|host| host.hangs = false);
    cluster.pass(500 * MS);
    assert!(matches!(cluster.answer(follower, token), Some(Reply::Commit(Ok(_)))));
    assert!(cluster.has_row(follower, 1));
}

#[test]
fn a_write_waits_for_a_majority_and_not_for_all() {
    let mut cluster = Cluster::of_three(|config| config);
    let leader = cluster.leader();
    let followers: Vec<NodeId> = cluster.up().filter(|id| *id != leader).collect();
    cluster.isolate(followers[0]);
    cluster.write(leader, vec![put(1)]);
    cluster.isolate(followers[1]);
    let transaction = cluster.transaction(leader, vec![put(2)]);
    let token = cluster.ask(leader, Request::Commit(GROUP, transaction));
    cluster.pass(200 * MS);
    assert!(cluster.answer(leader, token).is_none(), "acknowledged by a leader alone");
    let read = cluster.ask(leader, Request::Read(GROUP));
    cluster.pass(2_000 * MS);
    assert_ne!(cluster.role(leader), Role::Leader, "a leader without followers steps down");
    assert!(cluster.answer(leader, read).is_none(), "read from a leader that may have been deposed");
    cluster.heal();
    cluster.pass(3_000 * MS);
    cluster.check_equal();
}

#[test]
fn a_leader_is_replaced_and_the_retry_of_a_write_has_one_effect() {
    let mut cluster = Cluster::of_three(|config| config);
    let (first, follower) = (cluster.leader(), cluster.follower());
    let request = RequestId { session: Sessions::id(START, 9), sequence: 1, floor: 1 };
    let transaction = Transaction { request, ..cluster.transaction(follower, vec![publish("once")]) };
    let committed = cluster.submit(follower, transaction.clone()).expect("a write");
    cluster.kill(first);
    cluster.pass(3_000 * MS);
    let second = cluster.leader();
    assert_ne!(second, first);
    let again = cluster.submit(follower, transaction.clone());
    assert_eq!(again, Ok(committed.clone()), "the first answer, again");
    cluster.start(first);
    cluster.pass(1_000 * MS);
    assert_eq!(cluster.submit(first, transaction), Ok(committed));
    for id in [first, second, follower] {
        assert_eq!(cluster.events(id), ["once"]);
    }
    cluster.check_equal();
}

/// The leader answers what an earlier run of a node forwarded: the new run must not take it for an answer to its own.
#[test]
fn an_answer_to_an_earlier_run_is_none_to_the_next() {
    let mut cluster = Cluster::of_three(|config| config);
    let leader = cluster.leader();
    let (forwarding, away) = {
        let mut followers = cluster.up().filter(|id| *id != leader);
        (followers.next().expect("one"), followers.next().expect("another"))
    };
    cluster.kill(away);
    cluster.lose = Some("Appended");
    let first = cluster.transaction(forwarding, vec![put(1)]);
    cluster.ask(forwarding, Request::Commit(GROUP, first));
    assert_eq!(cluster.lose, None, "nothing was appended");
    cluster.kill(forwarding);
    cluster.isolate(forwarding);
    cluster.start(forwarding);
    let before = cluster.node(leader).raft(GROUP).expect("the group").status().last.index;
    let second = cluster.transaction(forwarding, vec![put(2)]);
    let token = cluster.ask(forwarding, Request::Commit(GROUP, second));
    cluster.heal();
    cluster.pass(1_000 * MS);
    match cluster.answer(forwarding, token) {
        Some(Reply::Commit(Ok(Committed { index, .. }))) => {
            assert!(index > before, "{index} is the other write's")
        }
        other => panic!("asked for a commit, got {other:?}"),
    }
    assert!(cluster.has_row(forwarding, 1) && cluster.has_row(forwarding, 2));
}

#[test]
fn a_write_that_its_leader_takes_along_is_asked_again_and_done_once() {
    let mut cluster = Cluster::of_three(|config| config);
    let (first, follower) = (cluster.leader(), cluster.follower());
    // The leader gets the write, and nobody hears of it any more.
    let transaction = cluster.transaction(follower, vec![publish("lost"), put(7)]);
    cluster.tokens += 1;
    let token = Token(cluster.tokens);
    cluster.input(follower, Input::Request { token, request: Request::Commit(GROUP, transaction) });
    cluster.kill(first);
    let reply = (0..100).find_map(|_| {
        cluster.pass(100 * MS);
        cluster.answer(follower, token)
    });
    assert!(matches!(reply, Some(Reply::Commit(Ok(_)))), "{reply:?}");
    assert_eq!(cluster.events(follower), ["lost"]);
    cluster.start(first);
    cluster.pass(2_000 * MS);
    assert_eq!(cluster.events(first), ["lost"]);
    cluster.check_equal();
}

/// The next leader's log may stay shorter than its own: nothing else is written there.
#[test]
fn who_waits_for_writes_of_a_deposed_leader_is_told_though_nobody_writes_more() {
    let mut cluster = Cluster::of_three(|config| config);
    let first = cluster.leader();
    cluster.isolate(first);
    let tokens: Vec<Token> = (1..=5)
        .map(|row| {
            let transaction = cluster.transaction(first, vec![put(row)]);
            cluster.ask(first, Request::Commit(GROUP, transaction))
        })
        .collect();
    cluster.pass(3_000 * MS);
    assert_ne!(cluster.leader(), first);
    cluster.heal();
    cluster.pass(3_000 * MS);
    for token in tokens {
        let answer = cluster.answer(first, token);
        assert!(matches!(answer, Some(Reply::Commit(Err(Refused::NotLeader)))), "{answer:?}");
    }
    cluster.pass(3_000 * MS);
    assert!((1..=5).all(|row| !cluster.has_row(first, row)), "what was refused has happened");
    cluster.check_equal();
}

/// Cluster time steps by more than a session lives, and at no moment is every write of a follower answered.
#[test]
fn a_follower_whose_writes_never_pause_names_them_anew_when_time_steps() {
    let mut cluster = Cluster::of_three(|config| config);
    let follower = cluster.follower();
    cluster.write(follower, vec![put(1)]);
    cluster.lose = Some("ForwardReply");
    let open = cluster.transaction(follower, vec![put(2)]);
    let open = cluster.ask(follower, Request::Commit(GROUP, open));
    cluster.wrong = (1..=3).map(|node| (NodeId(node), 7_200_000_000)).collect();
    cluster.pass(500 * MS);
    assert!(cluster.published(follower).clock.at(Instant(cluster.mono)) > START + Duration::from_secs(7_200));
    assert!(cluster.answer(follower, open).is_none(), "nothing is open");
    cluster.write(follower, vec![put(3)]);
    cluster.write(follower, vec![put(4)]);
}

#[test]
fn a_follower_behind_the_log_gets_a_snapshot_and_is_equal_then() {
    let mut cluster = Cluster::of_three(keeping_nothing);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.isolate(follower);
    for i in 0..50 {
        cluster.write(leader, vec![put(i), publish(&format!("m{i}"))]);
    }
    cluster.heal();
    cluster.pass(3_000 * MS);
    assert_eq!(cluster.installed(follower), 1);
    cluster.check_equal();
    // It goes on by the log, and has all that it was sent after a restart.
    let leader = cluster.leader();
    cluster.write(leader, vec![put(100)]);
    cluster.pass(500 * MS);
    cluster.kill(follower);
    cluster.write(leader, vec![put(101)]);
    cluster.start(follower);
    cluster.pass(3_000 * MS);
    assert!(cluster.has_row(follower, 0) && cluster.has_row(follower, 101));
    cluster.check_equal();
}

#[test]
fn a_crash_between_the_flip_of_a_snapshot_and_its_log_record_is_recovered_from() {
    let mut cluster = Cluster::of_three(keeping_nothing);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    // Some of it is in its log, and not applied in its store.
    cluster.write(leader, vec![put(0)]);
    cluster.isolate(follower);
    for i in 1..20 {
        cluster.write(leader, vec![put(i)]);
    }
    cluster.hosts.get_mut(&follower).expect("it").dies_at_flip = true;
    cluster.heal();
    cluster.pass(3_000 * MS);
    let host = cluster.hosts.get_mut(&follower).expect("it");
    assert!(host.node.is_none(), "it took no snapshot");
    host.dies_at_flip = false;
    cluster.start(follower);
    assert!(cluster.applied(follower) >= Index(20), "the snapshot is its state");
    cluster.pass(2_000 * MS);
    let leader = cluster.leader();
    cluster.write(leader, vec![put(30)]);
    cluster.pass(1_000 * MS);
    assert!(cluster.has_row(follower, 30));
    cluster.check_equal();
    cluster.kill(follower);
    cluster.start(follower);
    cluster.pass(1_000 * MS);
    cluster.check_equal();
}

/// A follower that is sent a snapshot in many chunks, and whose disk hangs when it has stored ten of them.
fn amid_a_snapshot() -> (Cluster, NodeId, NodeId) {
    let mut cluster = Cluster::of_three(|config| {
        let raft = chronos_engine::raft::Settings { kept_bytes_max: 2_000, ..config.raft };
        Config { raft, snapshot_chunk_bytes: 150, ..config }
    });
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.isolate(follower);
    for i in 0..200 {
        cluster.write(leader, vec![put(i)]);
    }
    cluster.hosts.get_mut(&follower).expect("it").hangs_after = Some(10);
    cluster.heal();
    cluster.pass(1_000 * MS);
    assert!(cluster.hosts[&follower].hangs, "it stored no ten chunks");
    (cluster, leader, follower)
}

fn killed_amid_a_snapshot() -> (Cluster, NodeId, NodeId) {
    let (mut cluster, leader, follower) = amid_a_snapshot();
    cluster.kill(follower);
    (cluster, leader, follower)
}

/// How many chunks are sent from here on until the follower is like the others.
fn chunks_until_installed(cluster: &mut Cluster, follower: NodeId) -> usize {
    let sent = |cluster: &Cluster| cluster.sent.get("Chunk").copied().unwrap_or_default();
    let before = sent(cluster);
    cluster.hosts.get_mut(&follower).expect("it").hangs = false;
    match cluster.isolated.is_empty() {
        true => cluster.start(follower),
        false => cluster.heal(),
    }
    cluster.pass(5_000 * MS);
    assert_eq!(cluster.installed(follower), 1);
    cluster.check_equal();
    let keys = cluster.hosts[&follower].store.0.keys();
    let generations: BTreeSet<_> = keys.filter_map(|key| keys::store_generation(key)).collect();
    assert_eq!(generations.len(), 2, "beside the root's, more than the live one is left: {generations:?}");
    let live = cluster.node(follower).state(GROUP).expect("the group").generation();
    let record = keys::store_key(GROUP, live, &keys::incoming());
    assert!(!cluster.hosts[&follower].store.0.contains_key(&record), "the live state is marked as coming");
    sent(cluster) - before
}

fn resumed(cluster: &Cluster) -> Vec<u64> {
    let chunk = |(_, trace): &(NodeId, Trace)| match trace {
        Trace::SnapshotResumed { chunk, .. } => Some(*chunk),
        _ => None,
    };
    cluster.traces.iter().filter_map(chunk).collect()
}

/// What it takes when nothing is there of an earlier run.
fn chunks_anew() -> usize {
    let (mut cluster, _, follower) = killed_amid_a_snapshot();
    cluster
        .hosts
        .get_mut(&follower)
        .expect("it")
        .store
        .0
        .retain(|key, _| keys::store_generation(key).is_none_or(|generation| generation < 2));
    let chunks = chunks_until_installed(&mut cluster, follower);
    assert_eq!(resumed(&cluster), []);
    chunks
}

#[test]
fn a_snapshot_goes_on_after_its_receivers_restart() {
    let (mut cluster, _, follower) = killed_amid_a_snapshot();
    let (chunks, anew) = (chunks_until_installed(&mut cluster, follower), chunks_anew());
    assert_eq!(resumed(&cluster), [10]);
    assert!(anew > 30 && chunks + 8 < anew, "{chunks} chunks after the restart, {anew} from the beginning");
}

/// While the store was busy with the tenth part, a window of others gathered: they are one write, and its disk is waited
/// for once. A disk that took seconds for each of many parts kept a follower from ever being like the others.
#[test]
fn parts_of_a_snapshot_that_gather_are_stored_by_one_write() {
    let (mut cluster, _, follower) = amid_a_snapshot();
    cluster.hosts.get_mut(&follower).expect("it").hangs = false;
    cluster.pass(5_000 * MS);
    assert_eq!(cluster.installed(follower), 1);
    cluster.check_equal();
    let (writes, chunks) = (cluster.hosts[&follower].chunk_writes, cluster.chunks);
    assert!(writes + 6 <= chunks, "{writes} writes of {chunks} chunks");
}

/// The leader has given it up meanwhile. It begins another of the same state, and sends only what is missing.
#[test]
fn a_snapshot_that_was_given_up_goes_on_if_the_state_is_the_same() {
    let (mut cluster, _, follower) = amid_a_snapshot();
    cluster.isolate(follower);
    cluster.pass(70_000 * MS);
    let given_up = |(_, trace): &(NodeId, Trace)| matches!(trace, Trace::PeerRefused { why, .. } if why.contains("its receiver got no further"));
    assert!(cluster.traces.iter().any(given_up), "it is kept for ever");
    let (chunks, anew) = (chunks_until_installed(&mut cluster, follower), chunks_anew());
    assert!(chunks < anew, "{chunks} chunks after the link was back, {anew} from the beginning");
}

#[test]
fn a_snapshot_of_another_sender_or_of_another_entry_begins_anew() {
    let (mut cluster, leader, follower) = killed_amid_a_snapshot();
    // The same sender, a minute later and an entry further.
    cluster.write(leader, vec![put(300)]);
    cluster.pass(70_000 * MS);
    chunks_until_installed(&mut cluster, follower);
    assert_eq!(resumed(&cluster), []);

    let (mut cluster, leader, follower) = killed_amid_a_snapshot();
    let other = cluster.up().find(|id| *id != leader).expect("a third");
    cluster.operate(leader, Request::Transfer { group: GROUP, to: other }).expect("a transfer");
    cluster.pass(1_000 * MS);
    assert_eq!(cluster.leader(), other);
    chunks_until_installed(&mut cluster, follower);
    assert_eq!(resumed(&cluster), []);
}

/// What is stored is not what the sender sent before: it is dropped, and all of it is sent again.
#[test]
fn a_snapshot_whose_checksum_does_not_fit_begins_anew() {
    let (mut cluster, _, follower) = killed_amid_a_snapshot();
    let host = cluster.hosts.get_mut(&follower).expect("it");
    let of_record = |key: &&Bytes| key[keys::PREFIX_BYTES..] == keys::incoming();
    let key = host.store.0.keys().find(of_record).expect("its progress").clone();
    let record = sealed::open(&key, &host.store.0[&key]).expect("sealed");
    let incoming: Incoming = codec::decode("incoming", &record).expect("progress");
    let wrong = Incoming { checksum: !incoming.checksum, ..incoming };
    host.store.0.insert(key.clone(), sealed::seal(&key, &codec::encode(&wrong)));
    chunks_until_installed(&mut cluster, follower);
    assert_eq!(resumed(&cluster), []);
}

/// Damaged progress is none.
#[test]
fn a_snapshot_whose_progress_is_damaged_begins_anew() {
    let (mut cluster, _, follower) = killed_amid_a_snapshot();
    let host = cluster.hosts.get_mut(&follower).expect("it");
    let records = host.store.0.iter_mut().filter(|(key, _)| key[keys::PREFIX_BYTES..] == keys::incoming());
    records.for_each(|(_, value)| *value = Bytes::from_static(b"nonsense"));
    chunks_until_installed(&mut cluster, follower);
    assert_eq!(resumed(&cluster), []);
}

#[test]
fn a_node_is_taken_in_as_a_learner_becomes_a_voter_and_another_leaves() {
    let mut cluster = Cluster::of_three(keeping_nothing);
    let leader = cluster.leader();
    for i in 0..20 {
        cluster.write(leader, vec![put(i)]);
    }
    let new = NodeId(4);
    let joining = Config { joins: true, members: (1..=4).map(member).collect(), ..Cluster::config(4) };
    cluster.add(4, keeping_nothing(joining));
    cluster.pass(1_000 * MS);
    assert!(!cluster.node(leader).is_linked(new), "linked with one that nobody has added");
    cluster.operate(leader, Request::PutMember(member(4))).expect("a note");
    cluster.link(new);
    let learned = (0..50).any(|_| {
        cluster.pass(20 * MS);
        cluster.members(leader).learners.contains(&new)
    });
    assert!(learned, "a vote before it has caught up");
    cluster.pass(3_000 * MS);
    assert_eq!(cluster.members(leader), Configuration::of((1..=4).map(NodeId)));
    assert_eq!(cluster.installed(new), 1);
    cluster.check_equal();

    let leader = cluster.leader();
    let leaver = cluster.up().find(|id| *id != leader && *id != new).expect("another");
    cluster.operate(leader, Request::DropMember(leaver)).expect("a note");
    cluster.pass(2_000 * MS);
    cluster.kill(leaver);
    let expected = Configuration::of((1..=4).map(NodeId).filter(|id| *id != leaver));
    for id in cluster.up().collect::<Vec<_>>() {
        assert_eq!(cluster.members(id), expected);
    }
    // The new one counts: with another gone, two of three go on.
    let other = cluster.up().find(|id| *id != cluster.leader() && *id != new).expect("a third");
    cluster.kill(other);
    cluster.write(new, vec![put(99)]);
    assert!(cluster.has_row(cluster.leader(), 99));
    cluster.pass(500 * MS);
    cluster.check_equal();
}

/// What a node was given counts until its log tells of the cluster, and a log that is yet to be applied tells of it.
#[test]
fn a_node_that_starts_again_links_as_its_log_says_and_not_as_it_is_told() {
    let mut cluster = Cluster::of_three(|config| config);
    let restarted = cluster.up().find(|id| *id != cluster.leader()).expect("a follower");
    let other = (1..=3).map(NodeId).find(|id| *id != restarted).expect("another");
    cluster.kill(restarted);
    let host = cluster.hosts.get_mut(&restarted).expect("a host");
    host.config.members.retain(|member| member.node != other);
    host.config.members.push(member(9));
    cluster.isolated.insert(restarted);
    cluster.start(restarted);
    assert_eq!(cluster.hosts[&restarted].links, (1..=3).map(NodeId).collect());
    cluster.heal();
    cluster.pass(1_000 * MS);
    cluster.check_equal();
}

/// A node that is dropped is heard until its groups have let it go: of two, it takes both to do so.
#[test]
fn of_two_nodes_either_can_be_dropped_and_the_other_goes_on_alone() {
    for drops_the_leader in [false, true] {
        let mut cluster = Cluster::of(2, |config| config);
        let leader = cluster.leader();
        let other = cluster.up().find(|id| *id != leader).expect("another");
        let (gone, stays) = if drops_the_leader { (leader, other) } else { (other, leader) };
        cluster.operate(leader, Request::DropMember(gone)).expect("a note");
        cluster.pass(4_000 * MS);
        assert_eq!(cluster.members(stays), Configuration::of([stays]));
        assert!(!cluster.hosts[&stays].links.contains(&gone), "linked with one that has left");
        cluster.kill(gone);
        cluster.pass(2_000 * MS);
        cluster.write(stays, vec![put(1)]);
        assert!(cluster.has_row(stays, 1));
    }
}

#[test]
fn a_leader_that_is_dropped_hands_over_and_the_group_goes_on() {
    let mut cluster = Cluster::of_three(|config| config);
    let leader = cluster.leader();
    cluster.operate(leader, Request::DropMember(leader)).expect("a note");
    cluster.pass(4_000 * MS);
    assert_ne!(cluster.role(leader), Role::Leader);
    cluster.kill(leader);
    cluster.pass(3_000 * MS);
    let next = cluster.leader();
    assert_eq!(cluster.members(next), Configuration::of((1..=3).map(NodeId).filter(|id| *id != leader)));
    cluster.write(next, vec![put(1)]);
    cluster.pass(500 * MS);
    cluster.check_equal();
}

#[test]
fn changes_that_make_no_sense_are_refused_and_change_nothing() {
    let mut cluster = Cluster::of_three(|config| config);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let before = cluster.members(leader);
    let change = |change| Request::Change { group: GROUP, changes: vec![change] };
    assert_eq!(
        cluster.operate(follower, change(Change::AddLearner(NodeId(9)))),
        Err(OperatorError::NotLeader(GROUP))
    );
    assert_eq!(
        cluster.operate(leader, change(Change::Remove(NodeId(9)))),
        Err(OperatorError::Change(ChangeError::Unknown(NodeId(9))))
    );
    let all = (1..=3).map(|id| Change::Remove(NodeId(id))).collect();
    let refused = cluster.operate(leader, Request::Change { group: GROUP, changes: all });
    assert!(matches!(refused, Err(OperatorError::Change(ChangeError::LastVoter(_)))), "{refused:?}");
    assert_eq!(cluster.members(leader), before);
}

#[test]
fn leadership_is_handed_over_and_writes_go_on() {
    let mut cluster = Cluster::of_three(|config| config);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.operate(leader, Request::Transfer { group: GROUP, to: follower }).expect("a transfer");
    cluster.pass(100 * MS);
    assert_eq!(cluster.leader(), follower);
    cluster.write(leader, vec![put(1)]);
    cluster.pass(500 * MS);
    cluster.check_equal();
}

#[test]
fn a_timer_that_outlives_its_leader_fires_once_and_not_before_its_time() {
    let mut cluster = Cluster::of_three(|config| config);
    let first = cluster.leader();
    let due = cluster.now().wall + Duration::from_secs(5);
    cluster.write(first, vec![schedule("later", due)]);
    cluster.kill(first);
    cluster.pass(4_900 * MS);
    let second = cluster.leader();
    assert_eq!(cluster.events(second), Vec::<String>::new(), "fired before its time");
    cluster.pass(2_000 * MS);
    cluster.start(first);
    cluster.pass(3_000 * MS);
    for id in cluster.up().collect::<Vec<_>>() {
        assert_eq!(cluster.events(id), ["later"]);
    }
    cluster.check_equal();
}

/// A follower reads no quorum of clocks: what its own says must not become the cluster's time when it leads.
#[test]
fn a_clock_that_is_ahead_moves_no_timer_when_its_node_leads() {
    for cut_off in [false, true] {
        let mut cluster = Cluster::of_three(|config| config);
        let (leader, wrong) = (cluster.leader(), cluster.follower());
        if cut_off {
            cluster.isolate(wrong);
        }
        cluster.wrong.insert(wrong, 300_000);
        cluster.pass(5_000 * MS);
        cluster.heal();
        cluster.pass(1_000 * MS);
        cluster.operate(leader, Request::Transfer { group: GROUP, to: wrong }).expect("a transfer");
        cluster.pass(100 * MS);
        assert_eq!(cluster.leader(), wrong);
        cluster.check_a_timer_is_on_time();
        cluster.check_equal();
    }
}

/// It cannot go back: the first time of a cluster is a majority's too, whoever leads first, and also with a peer that
/// is away.
#[test]
fn a_cluster_is_founded_at_the_time_of_a_majority() {
    for wrong in 1..=3 {
        let clocks = BTreeMap::from([(NodeId(wrong), 86_400_000_000)]);
        let mut cluster = Cluster::with_clocks(3, clocks, |config| config);
        cluster.check_a_timer_is_on_time();
        // One that joins takes the cluster's time, not its own.
        cluster.wrong.insert(NodeId(4), 300_000);
        let members = (1..=4).map(member).collect();
        cluster.add(4, Config { joins: true, members, ..Cluster::config(4) });
        let leader = cluster.leader();
        assert!(!cluster.node(NodeId(4)).status().has_time, "nobody told it");
        // What it named now would be born in 1970, and so would all that it named by the same session.
        let early = cluster.transaction(NodeId(4), vec![put(4)]);
        assert!(matches!(cluster.submit(NodeId(4), early), Err(Refused::NotLeader)));
        cluster.operate(leader, Request::PutMember(member(4))).expect("a note");
        cluster.link(NodeId(4));
        cluster.pass(5_000 * MS);
        assert!(cluster.node(NodeId(4)).status().has_time);
        assert!(cluster.members(leader).voters.contains(&NodeId(4)), "{:?}", cluster.members(leader));
        cluster.operate(leader, Request::Transfer { group: GROUP, to: NodeId(4) }).expect("a transfer");
        cluster.pass(100 * MS);
        assert_eq!(cluster.leader(), NodeId(4));
        cluster.check_a_timer_is_on_time();
    }
}

/// P4: its disk takes nothing. It lets another lead, takes no write, answers reads, and goes on when there is space.
#[test]
fn a_leader_whose_disk_is_full_hands_over_and_comes_back() {
    let mut cluster = Cluster::of_three(|config| config);
    let full = cluster.leader();
    cluster.hosts.get_mut(&full).expect("it").full = true;
    let transaction = cluster.transaction(full, vec![put(1)]);
    cluster.ask(full, Request::Commit(GROUP, transaction));
    cluster.pass(2_000 * MS);
    let next = cluster.leader();
    assert_ne!(next, full, "a leader that cannot write leads on");
    cluster.write(next, vec![put(2)]);
    cluster.read(next).expect("a read");
    cluster.hosts.get_mut(&full).expect("it").full = false;
    cluster.pass(3_000 * MS);
    cluster.write(full, vec![put(3)]);
    cluster.pass(1_000 * MS);
    assert!([2, 3].into_iter().all(|row| cluster.has_row(full, row)));
    cluster.check_equal();
}

/// P3: what a failed sync left on the disk is unknown. The node ends, and the others go on without it.
#[test]
fn a_node_whose_sync_fails_ends() {
    let mut cluster = Cluster::of_three(|config| config);
    let id = cluster.leader();
    let (now, host) = (cluster.now(), cluster.hosts.get_mut(&id).expect("it"));
    let mut out = Outputs::default();
    let failed = Input::WriteFailed { write: WriteId(u64::MAX), error: "EIO".into() };
    host.node.as_mut().expect("it is up").step(now, failed, &host.shared, &mut out);
    assert!(out.effects.iter().any(|effect| matches!(effect.action, Action::Fatal(_))));
    let mut out = Outputs::default();
    host.node.as_mut().expect("it is up").step(now, Input::Tick, &host.shared, &mut out);
    assert!(out.effects.is_empty(), "it goes on: {:?}", out.effects);
    cluster.kill(id);
    cluster.pass(3_000 * MS);
    let next = cluster.leader();
    cluster.write(next, vec![put(1)]);
}

/// P19: the word that a snapshot has arrived whole is lost. The chunks that are sent again are answered with it.
#[test]
fn the_last_answer_to_a_snapshot_may_be_lost() {
    let mut cluster = Cluster::of_three(keeping_nothing);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.isolate(follower);
    cluster.write(leader, vec![put(1)]);
    cluster.lose = Some("ChunkReply");
    cluster.heal();
    cluster.pass(2_000 * MS);
    assert_eq!(cluster.lose, None, "no snapshot was sent");
    assert_eq!(cluster.installed(follower), 1);
    cluster.check_equal();
}

/// What clients were told, over a network that loses, doubles and reorders, with nodes that are killed and cut off:
/// acknowledged is there once, refused is not there, and what nobody was told is there once or not at all (R9, R10).
#[test]
fn what_clients_are_told_is_true_whatever_the_network_does() {
    let mut acknowledged = 0;
    let mut installed = 0;
    let seeds = std::env::var("CLUSTER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(20);
    for seed in 0..seeds {
        println!("seed {seed}");
        let mut cluster = Cluster::of_three(if seed % 2 == 0 { keeping_nothing } else { |config| config });
        let mut rng = Rng::new(seed);
        cluster.noise = Some(rng.split("network"));
        let all: Vec<NodeId> = cluster.up().collect();
        let mut asked: Vec<(NodeId, Token, String)> = Vec::new();
        let (mut done, mut refused) = (BTreeSet::new(), BTreeSet::new());
        for step in 0..60 {
            let id = all[rng.below(3) as usize];
            match rng.below(12) {
                0 if cluster.up().count() == 3 => cluster.kill(id),
                1 if cluster.isolated.is_empty() => cluster.isolate(id),
                2 => cluster.heal(),
                3 | 4 => {
                    if let Some(down) = all.iter().find(|id| cluster.hosts[id].node.is_none()) {
                        cluster.start(*down);
                    }
                }
                5 | 6 => cluster.pass(rng.below(1_500 * MS)),
                _ if cluster.hosts[&id].node.is_some() => {
                    let name = format!("m{step}");
                    let transaction = cluster.transaction(id, vec![publish(&name)]);
                    let token = cluster.ask(id, Request::Commit(GROUP, transaction));
                    asked.push((id, token, name));
                }
                _ => {}
            }
            cluster.collect(&mut asked, &mut done, &mut refused);
        }
        cluster.noise = None;
        cluster.heal();
        for id in &all {
            if cluster.hosts[id].node.is_none() {
                cluster.start(*id);
            }
        }
        cluster.pass(15_000 * MS);
        cluster.collect(&mut asked, &mut done, &mut refused);
        cluster.check_equal();
        let events = cluster.events(all[0]);
        let distinct: BTreeSet<String> = events.iter().cloned().collect();
        assert_eq!(distinct.len(), events.len(), "an effect twice: {events:?}");
        assert!(done.is_subset(&distinct), "lost: {:?}", done.difference(&distinct));
        assert!(refused.is_disjoint(&distinct), "done and refused: {:?}", refused.intersection(&distinct));
        acknowledged += done.len();
        installed += all.iter().map(|id| cluster.installed(*id)).sum::<usize>();
    }
    assert!(
        acknowledged > 100 && installed > 0,
        "{acknowledged} acknowledged, {installed} snapshots installed"
    );
}

#[test]
fn all_nodes_killed_at_once_lose_nothing() {
    let mut cluster = Cluster::of_three(|config| config);
    let leader = cluster.leader();
    for i in 0..10 {
        cluster.write(leader, vec![put(i)]);
    }
    let all: Vec<NodeId> = cluster.up().collect();
    all.iter().for_each(|id| cluster.kill(*id));
    all.iter().for_each(|id| cluster.start(*id));
    cluster.pass(3_000 * MS);
    for id in all {
        assert!((0..10).all(|row| cluster.has_row(id, row)));
    }
    cluster.check_equal();
}

/// P13: a node that was wiped has forgotten its votes and what it acknowledged.
#[test]
fn a_wiped_node_is_refused_by_name_and_heard_by_nobody() {
    let mut cluster = Cluster::of_three(|config| config);
    cluster.pass(1_000 * MS);
    let (leader, wiped) = (cluster.leader(), cluster.follower());
    cluster.kill(wiped);
    let config = Config { incarnation: Incarnation(999), ..cluster.hosts[&wiped].config.clone() };
    cluster.hosts.remove(&wiped);
    cluster.add(wiped.0, config);
    cluster.pass(3_000 * MS);
    let hello = cluster.hosts[&wiped].hello();
    for id in cluster.up().filter(|id| *id != wiped).collect::<Vec<_>>() {
        let refused = cluster
            .node(id)
            .admit_peer(&hello, &hello.node.to_string())
            .expect_err("another store under the same name");
        assert!(refused.contains(&format!("node {wiped} ")) && refused.contains("wiped"), "{refused}");
        assert!(!cluster.node(id).is_linked(wiped));
        // What it says all the same does not reach Raft.
        let term = cluster.node(id).raft(GROUP).expect("the group").term();
        let vote = chronos_proto::raft::Message::Vote {
            term: chronos_proto::Term(term.0 + 9),
            last: chronos_proto::raft::LogId::default(),
            transfer: true,
        };
        cluster.input(
            id,
            Input::Peer { from: wiped, message: PeerMessage::Raft { group: GROUP, message: vote } },
        );
        assert_eq!(cluster.node(id).raft(GROUP).expect("the group").term(), term);
    }
    assert_eq!(cluster.leader(), leader);
    // Taken out and added anew, it is one of them again.
    cluster.operate(leader, Request::DropMember(wiped)).expect("forgotten");
    cluster.pass(3_000 * MS);
    assert!(!cluster.members(leader).contains(wiped));
    cluster.operate(leader, Request::PutMember(member(wiped.0))).expect("a note");
    cluster.link(wiped);
    cluster.pass(3_000 * MS);
    assert!(cluster.members(leader).voters.contains(&wiped));
    cluster.write(wiped, vec![put(1)]);
    cluster.pass(1_000 * MS);
    cluster.check_equal();
}

/// P13, F23: a directory put back from an old copy has forgotten votes as well, though its incarnation is the right one.
#[test]
fn a_node_that_was_put_back_from_an_old_copy_is_refused() {
    let mut cluster = Cluster::of_three(|config| config);
    let id = cluster.follower();
    cluster.pass(1_000 * MS);
    cluster.kill(id);
    let copy = (cluster.hosts[&id].wal.clone(), cluster.hosts[&id].begun);
    cluster.start(id);
    cluster.pass(1_000 * MS);
    cluster.kill(id);
    let host = cluster.hosts.get_mut(&id).expect("it");
    (host.wal, host.begun) = copy;
    // It is refused however often it is started: the copy and its original were both started once since.
    for _ in 0..5 {
        cluster.start(id);
        cluster.pass(1_000 * MS);
        let leader = cluster.leader();
        let refused = cluster
            .node(leader)
            .admit_peer(&cluster.hosts[&id].hello(), &id.to_string())
            .expect_err("an older state");
        assert!(refused.contains("put back from a copy"), "{refused}");
        assert!(!cluster.node(leader).is_linked(id));
        cluster.kill(id);
    }
}

/// What a quorum has is committed, and shown by others, before the leader's own disk has it: until then its lease is no
/// leave to show less.
#[test]
fn a_leader_whose_disk_is_behind_the_quorum_does_not_read_by_its_lease() {
    let leases = |mut config: Config| {
        config.raft.leases = true;
        config
    };
    let mut cluster = Cluster::of_three(leases);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.pass(1_000 * MS);
    let fresh = |cluster: &Cluster| cluster.published(leader).fresh;
    assert!(matches!(fresh(&cluster), Fresh::Until(_)));
    let before = cluster.applied(leader);
    cluster.hosts.get_mut(&leader).expect("it").hangs = true;
    let transaction = cluster.transaction(leader, vec![relations::put(1, 10)]);
    cluster.ask(leader, Request::Commit(GROUP, transaction));
    cluster.pass(150 * MS);
    assert!(cluster.applied(follower) > before, "a quorum without the leader has it");
    assert_eq!(cluster.applied(leader), before);
    assert_eq!(fresh(&cluster), Fresh::Ask);
    cluster.hosts.get_mut(&leader).expect("it").hangs = false;
    cluster.pass(150 * MS);
    assert!(matches!(fresh(&cluster), Fresh::Until(_)));
    assert!(cluster.applied(leader) > before);
}

/// Its successor is elected in spite of leases: what was published before with one is withdrawn before that is told.
#[test]
fn a_leader_that_hands_over_does_not_read_by_its_lease() {
    let leases = |mut config: Config| {
        config.raft.leases = true;
        config
    };
    let mut cluster = Cluster::of_three(leases);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.pass(1_000 * MS);
    assert!(matches!(cluster.published(leader).fresh, Fresh::Until(_)));
    let request = Request::Transfer { group: GROUP, to: follower };
    cluster.input(leader, Input::Request { token: Token(1_000), request });
    assert!(cluster.net.iter().any(|(_, to, _)| *to == follower), "it tells it to take over");
    assert_eq!(cluster.published(leader).fresh, Fresh::Ask);
}

/// P14: who is not linked, because its certificate or cluster is another, is heard by nobody.
#[test]
fn what_comes_without_a_link_has_no_effect() {
    let mut cluster = Cluster::of_three(|config| config);
    let leader = cluster.leader();
    let before = cluster.node(leader).raft(GROUP).expect("the group").status();
    let stranger = NodeId(77);
    let messages = [
        chronos_proto::raft::Message::Heartbeat {
            term: chronos_proto::Term(before.term.0 + 5),
            commit: Index(0),
            round: 1,
        },
        chronos_proto::raft::Message::TimeoutNow { term: chronos_proto::Term(before.term.0 + 5) },
    ];
    for message in messages {
        let message = PeerMessage::Raft { group: GROUP, message };
        cluster.input(leader, Input::Peer { from: stranger, message });
    }
    assert_eq!(cluster.node(leader).raft(GROUP).expect("the group").status(), before);
    assert!(cluster.net.iter().all(|(_, to, _)| *to != stranger), "a stranger is answered");
}

/// Three nodes that never sync. A write is on the leader and on one follower, which loses power and comes back without
/// it, while the leader is away. The leader, that follower and the other one come back.
fn a_write_that_its_second_holder_lost(doubts: bool) -> (Cluster, [NodeId; 3]) {
    let mut cluster = Cluster::of_three(|config| Config { fsync: Fsync::Never, ..config });
    cluster.pass(1_000 * MS);
    let (leader, holder) = (cluster.leader(), cluster.follower());
    let other = cluster.up().find(|id| *id != leader && *id != holder).expect("three");
    cluster.isolate(other);
    cluster.write(leader, vec![put(1)]);
    let before = cluster.node(holder).raft(GROUP).expect("the group").log().last().index;
    cluster.cut_power(holder);
    cluster.isolate(leader);
    cluster.hosts.get_mut(&holder).expect("it").config.doubtful &= doubts;
    cluster.isolated.remove(&other);
    cluster.start(holder);
    let after = cluster.node(holder).raft(GROUP).expect("the group").log().last().index;
    assert!(after < before, "nothing was lost: {after:?}");
    cluster.pass(5_000 * MS);
    (cluster, [leader, holder, other])
}

#[test]
fn one_that_lost_what_it_acknowledged_elects_nobody_before_it_is_caught_up() {
    let (mut cluster, [leader, holder, other]) = a_write_that_its_second_holder_lost(true);
    for id in [holder, other] {
        assert_ne!(cluster.role(id), Role::Leader, "{id} leads, and has not what was committed");
    }
    assert!(cluster.node(holder).status().groups[0].doubtful);
    cluster.heal();
    cluster.pass(3_000 * MS);
    assert!(!cluster.node(holder).status().groups[0].doubtful);
    assert!(cluster.traces.contains(&(holder, Trace::Trusted { group: GROUP })));
    assert!(cluster.up().all(|id| cluster.has_row(id, 1)), "the write is gone");
    // It counts again: with it alone beside the other, there is a majority.
    cluster.kill(leader);
    cluster.pass(3_000 * MS);
    let next = cluster.leader();
    cluster.write(next, vec![put(2)]);
    cluster.pass(1_000 * MS);
    cluster.check_equal();
}

/// What the rule is there for.
#[test]
fn without_the_doubt_what_was_acknowledged_is_lost() {
    let (mut cluster, [leader, holder, other]) = a_write_that_its_second_holder_lost(false);
    assert!(cluster.has_row(leader, 1));
    let at =
        [holder, other].into_iter().find(|id| cluster.role(*id) == Role::Leader).expect("another leader");
    cluster.read(at).expect("a linearizable read");
    assert!(!cluster.has_row(at, 1), "the scenario loses nothing, so it shows nothing");
}

/// A leader that counted what a follower had, before that lost it, counts it no more.
#[test]
fn what_was_acknowledged_before_the_power_cut_commits_nothing_after_it() {
    let mut cluster = Cluster::of_three(|config| Config { fsync: Fsync::Never, ..config });
    cluster.pass(1_000 * MS);
    let (leader, holder) = (cluster.leader(), cluster.follower());
    for round in 0..4 {
        for row in 0..10 {
            cluster.write(leader, vec![put(round * 10 + row)]);
        }
        let held = cluster.node(holder).raft(GROUP).expect("the group").log().last().index;
        cluster.cut_power(holder);
        cluster.start(holder);
        assert!(cluster.node(holder).raft(GROUP).expect("the group").log().last().index < held);
        cluster.pass(1_000 * MS);
        assert_eq!(cluster.leader(), leader);
        assert!(!cluster.node(holder).status().groups[0].doubtful, "round {round}: never caught up");
        cluster.check_equal();
    }
}

/// Nobody can tell what all of them have forgotten; it takes an operator to go on without.
#[test]
fn all_that_lost_power_wait_for_an_operator() {
    let mut cluster = Cluster::of_three(|config| Config { fsync: Fsync::Interval(50_000), ..config });
    cluster.pass(1_000 * MS);
    let all: Vec<NodeId> = cluster.up().collect();
    all.iter().for_each(|id| cluster.cut_power(*id));
    all.iter().for_each(|id| cluster.start(*id));
    cluster.pass(10_000 * MS);
    assert!(all.iter().all(|id| cluster.role(*id) == Role::Follower), "there is a leader");
    for id in &all[..2] {
        cluster.kill(*id);
        cluster.hosts.get_mut(id).expect("it").config.doubtful = false;
        cluster.start(*id);
    }
    cluster.pass(5_000 * MS);
    let leader = cluster.leader();
    cluster.write(leader, vec![put(1)]);
    cluster.pass(1_000 * MS);
    assert!(!cluster.node(all[2]).status().groups[0].doubtful);
    cluster.check_equal();
}

/// A majority that was wiped has the quorum that the cluster began with, and knows nothing.
#[test]
fn a_wiped_majority_begins_no_second_cluster() {
    for (survivor_is_up, nodes) in [(true, 3), (false, 3), (true, 5)] {
        let mut cluster = Cluster::of(nodes, |config| config);
        let leader = cluster.leader();
        cluster.write(leader, vec![put(1)]);
        cluster.pass(1_000 * MS);
        let wiped: Vec<NodeId> = cluster.up().take(nodes as usize / 2 + 1).collect();
        let rest: Vec<NodeId> = cluster.up().filter(|id| !wiped.contains(id)).collect();
        wiped.iter().for_each(|id| cluster.kill(*id));
        if !survivor_is_up {
            rest.iter().for_each(|id| cluster.kill(*id));
        }
        wiped.iter().for_each(|id| cluster.wipe(*id));
        cluster.pass(5_000 * MS);
        assert!(!cluster.leads_anywhere(), "a second cluster was begun");
        if !survivor_is_up {
            rest.iter().for_each(|id| cluster.start(*id));
            cluster.pass(5_000 * MS);
            assert!(!cluster.leads_anywhere(), "a second cluster was begun in the presence of the first");
        }
        for id in &wiped {
            assert_eq!(cluster.node(*id).status().awaits, rest, "{id} does not say whom it waits for");
        }
        assert!(!survivor_is_up || rest.iter().all(|id| cluster.has_row(*id, 1)));
    }
}

#[test]
fn a_cluster_begins_once_all_that_it_begins_with_were_heard() {
    let mut cluster = Cluster::default();
    let config = |number| Config { members: (1..=3).map(member).collect(), ..Cluster::config(number) };
    cluster.add(1, config(1));
    cluster.add(2, config(2));
    cluster.pass(5_000 * MS);
    assert!(!cluster.leads_anywhere());
    assert_eq!(cluster.node(NodeId(1)).status().awaits, [NodeId(3)]);
    cluster.add(3, config(3));
    cluster.pass(3_000 * MS);
    let leader = cluster.leader();
    assert_eq!(cluster.node(leader).status().awaits, []);
    cluster.make_relations(leader);
    cluster.write(leader, vec![put(1)]);
}

/// One that had nothing yet when it was killed is needed by the others, once the leader is gone for good.
#[test]
fn who_the_cluster_knows_takes_part_though_another_is_gone() {
    let mut cluster = Cluster::default();
    for number in 1..=3 {
        cluster.add(number, Config { members: (1..=3).map(member).collect(), ..Cluster::config(number) });
    }
    cluster.kill(NodeId(3));
    cluster.pass(3_000 * MS);
    let leader = cluster.leader();
    cluster.make_relations(leader);
    cluster.kill(leader);
    cluster.start(NodeId(3));
    cluster.pass(3_000 * MS);
    let next = cluster.leader();
    cluster.write(next, vec![put(1)]);
    cluster.pass(1_000 * MS);
    cluster.check_equal();
}

/// One that heard that the others had nothing, but not all of them, asks again: meanwhile they have begun without it.
#[test]
fn who_had_nothing_once_is_asked_again_by_a_node_that_waits() {
    let mut cluster = Cluster::default();
    let config = |number| Config { members: (1..=3).map(member).collect(), ..Cluster::config(number) };
    cluster.add(1, config(1));
    cluster.add(2, config(2));
    cluster.pass(1_000 * MS);
    cluster.secret = Some((NodeId(3), NodeId(1)));
    cluster.add(3, config(3));
    let awaits = |cluster: &Cluster, number| cluster.node(NodeId(number)).status().awaits.clone();
    cluster.pass(10 * MS);
    assert_eq!(awaits(&cluster, 3), []);
    cluster.isolate(NodeId(1));
    assert_eq!(awaits(&cluster, 1), [NodeId(3)]);
    cluster.pass(3_000 * MS);
    let leader = cluster.leader();
    cluster.make_relations(leader);
    // Neither is there who leads and could tell it, nor the one it waits for.
    cluster.kill(NodeId(2));
    cluster.kill(NodeId(3));
    cluster.start(NodeId(2));
    cluster.heal();
    cluster.pass(5_000 * MS);
    assert_eq!(awaits(&cluster, 1), []);
    let leader = cluster.leader();
    cluster.write(leader, vec![put(1)]);
}

#[test]
fn a_node_that_joins_need_be_told_of_one_member_only() {
    let mut cluster = Cluster::of_three(|config| config);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let members = vec![member(follower.0), member(4)];
    cluster.add(4, Config { joins: true, members, ..Cluster::config(4) });
    cluster.pass(1_000 * MS);
    cluster.operate(leader, Request::PutMember(member(4))).expect("a note");
    cluster.pass(500 * MS);
    cluster.link(NodeId(4));
    cluster.pass(3_000 * MS);
    assert!(cluster.members(leader).voters.contains(&NodeId(4)), "{:?}", cluster.members(leader));
    cluster.write(NodeId(4), vec![put(1)]);
    cluster.pass(1_000 * MS);
    cluster.check_equal();
}
