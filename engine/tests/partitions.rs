//! Topics of several partitions: events go to the groups of their partitions, those of a transaction through the
//! outbox, once, whoever leads and whatever is lost.

// Tests may read files and the environment; the crate may not.
#![allow(clippy::disallowed_methods)]

use chronos_engine::keys::{self, KeyRange};
use chronos_engine::node::{Config, Node};
use chronos_engine::raft::Role;
use chronos_engine::rng::Rng;
use chronos_engine::step::{
    Action, Delivery, Input, Outputs, Published, Reply, Request, Start, SubscriberId, SubscriberInput,
    Subscription, Token,
};
use chronos_engine::store::{MemoryStore, SharedStore};
use chronos_engine::txn::{Committed, Refused, Transaction};
use chronos_engine::wal::{Identity, SegmentId, WalOp, recover};
use chronos_proto::command::{Event, Op, OpOutcome};
use chronos_proto::id::{ClusterId, GroupId, Incarnation, Index, NodeId, RelationId};
use chronos_proto::membership::Member;
use chronos_proto::peer::{PeerHello, PeerMessage};
use chronos_proto::schema::{Partitioned, Relation, RelationKind, Topic};
use chronos_proto::time::{Instant, Now, Timestamp};
use chronos_proto::value::Type;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

const CLUSTER: ClusterId = ClusterId(7);
const START: Timestamp = Timestamp(1_700_000_000_000_000);
const MS: u64 = 1_000;
const CATALOG: GroupId = GroupId(0);
const GROUPS: u32 = 3;
const PARTITIONS: u32 = 6;
const TOPIC: RelationId = RelationId(16);
/// A topic of one partition, in the same group as the catalogue.
const PLAIN: RelationId = RelationId(17);

struct Host {
    config: Config,
    /// None while it is killed.
    node: Option<Node>,
    boots: u64,
    wal: BTreeMap<SegmentId, Vec<u8>>,
    store: MemoryStore,
    shared: SharedStore,
    owed: VecDeque<Input>,
    published: BTreeMap<GroupId, Published>,
    replies: BTreeMap<Token, Reply>,
    delivered: Vec<Delivery>,
    closed: Vec<(SubscriberId, String)>,
}

struct World {
    hosts: BTreeMap<NodeId, Host>,
    mono: u64,
    net: VecDeque<(NodeId, NodeId, PeerMessage)>,
    /// Messages are lost, doubled and overtaken by this; none is otherwise.
    noise: Option<Rng>,
    /// Messages of this kind are lost.
    mute: Option<&'static str>,
    sent: BTreeMap<&'static str, usize>,
    tokens: u64,
}

fn member(number: u64) -> Member {
    let (name, address) = (format!("n{number}"), format!("10.0.0.{number}:4000"));
    Member { node: NodeId(number), name, address, incarnation: None, boot: 0 }
}

fn topic() -> Relation {
    let topic =
        Topic { partitions: PARTITIONS, dedup_micros: 60_000_000, payload: Type::Text, settings: Vec::new() };
    let kind = RelationKind::Partitioned(Partitioned::spread(TOPIC, topic, GROUPS));
    Relation { id: TOPIC, name: "orders".into(), group: CATALOG, version: 1, kind }
}

fn plain() -> Relation {
    let kind = RelationKind::Topic(Topic {
        partitions: 1,
        dedup_micros: 60_000_000,
        payload: Type::Text,
        settings: Vec::new(),
    });
    Relation { id: PLAIN, name: "alerts".into(), group: CATALOG, version: 1, kind }
}

fn event(key: &str, id: &str) -> Event {
    Event { message_id: id.into(), key: Some(key.into()), ..Event::default() }
}

fn partition(event: &Event) -> u32 {
    topic().topic().map_or(0, |topic| topic.partition_of(event))
}

fn publish(key: &str, id: &str) -> Op {
    let event = event(key, id);
    Op::Publish { topic: TOPIC, partition: partition(&event), event, claim: true }
}

fn schedule(key: &str, id: &str, deliver_at: Timestamp) -> Op {
    let event = event(key, id);
    let partition = partition(&event);
    Op::Schedule { topic: TOPIC, partition, timer_id: id.into(), event, deliver_at, claim: true }
}

fn alert(id: &str) -> Op {
    Op::Publish { topic: PLAIN, partition: 0, event: event("k", id), claim: true }
}

impl World {
    /// Nodes whose groups have just elected their leaders, with a topic of several partitions and one of one.
    fn of(nodes: u64) -> World {
        let mut world = World {
            hosts: BTreeMap::new(),
            mono: 0,
            net: VecDeque::new(),
            noise: None,
            mute: None,
            sent: BTreeMap::new(),
            tokens: 0,
        };
        for number in 1..=nodes {
            let config = Config::new(CLUSTER, NodeId(number), Incarnation(100 + number), 1, 42 + number);
            let members = if nodes == 1 { Vec::new() } else { (1..=nodes).map(member).collect() };
            let groups = (0..=GROUPS).map(GroupId).collect();
            let host = Host {
                config: Config { segment_bytes: 1 << 20, members, groups, ..config },
                node: None,
                boots: 0,
                wal: BTreeMap::new(),
                store: MemoryStore::default(),
                shared: Arc::new(MemoryStore::default()),
                owed: VecDeque::new(),
                published: BTreeMap::new(),
                replies: BTreeMap::new(),
                delivered: Vec::new(),
                closed: Vec::new(),
            };
            world.hosts.insert(NodeId(number), host);
            world.start(NodeId(number));
        }
        world.pass(3_000 * MS);
        world.commit(CATALOG, vec![Op::PutRelation(topic()), Op::PutRelation(plain())]).expect("made");
        world.pass(1_000 * MS);
        world
    }

    fn now(&self) -> Now {
        Now { mono: Instant(self.mono), wall: self.time() }
    }

    fn time(&self) -> Timestamp {
        START + Duration::from_micros(self.mono)
    }

    fn start(&mut self, id: NodeId) {
        let now = self.now();
        let host = self.hosts.get_mut(&id).expect("a host");
        host.boots += 1;
        let identity = Identity { cluster: CLUSTER, node: id, incarnation: host.config.incarnation };
        let recovered = recover(identity, &host.wal).expect("a sound WAL");
        let seed = host.config.seed + 1_000 * host.boots;
        let config = Config { boots: host.boots, seed, ..host.config.clone() };
        let mut out = Outputs::default();
        host.node = Some(Node::new(config, now, recovered, &host.shared, &mut out).expect("a node starts"));
        self.perform(id, out);
        let hello = |host: &Host| PeerHello {
            node: host.config.node,
            incarnation: host.config.incarnation,
            boot: host.boots,
        };
        let mine = hello(&self.hosts[&id]);
        for other in self.others(id) {
            if self.hosts[&other].node.is_some() {
                let theirs = hello(&self.hosts[&other]);
                self.input(other, Input::PeerUp(mine.clone()));
                self.input(id, Input::PeerUp(theirs));
            }
        }
        self.run();
    }

    fn kill(&mut self, id: NodeId) {
        let host = self.hosts.get_mut(&id).expect("a host");
        host.node = None;
        host.owed.clear();
        host.published.clear();
        self.net.retain(|(from, ..)| *from != id);
        for other in self.others(id) {
            self.input(other, Input::PeerDown(id));
        }
    }

    fn others(&self, id: NodeId) -> Vec<NodeId> {
        self.hosts.keys().copied().filter(|other| *other != id).collect()
    }

    fn input(&mut self, id: NodeId, input: Input) {
        let now = self.now();
        for input in [input, Input::QueueDrained] {
            let host = self.hosts.get_mut(&id).expect("a host");
            let Some(node) = host.node.as_mut() else { return };
            let mut out = Outputs::default();
            node.step(now, input, &host.shared, &mut out);
            self.perform(id, out);
        }
    }

    fn perform(&mut self, id: NodeId, out: Outputs) {
        let host = self.hosts.get_mut(&id).expect("a host");
        for effect in out.effects {
            match effect.action {
                Action::Wal(WalOp::Create { segment, bytes }) => {
                    host.wal.insert(segment, vec![0; bytes as usize]);
                }
                Action::Wal(WalOp::Write { segment, offset, bytes, .. }) => {
                    let file = host.wal.get_mut(&segment).expect("written after it is created");
                    file[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                }
                Action::Wal(WalOp::Sync { write, .. } | WalOp::Done { write }) => {
                    host.owed.push_back(Input::WriteDurable(write));
                }
                Action::Wal(WalOp::Remove { segment }) => drop(host.wal.remove(&segment)),
                Action::Reply(token, reply) => {
                    assert!(host.replies.insert(token, reply).is_none(), "answered twice");
                }
                Action::Send { to, message } => {
                    *self.sent.entry(message.kind()).or_default() += 1;
                    if self.mute != Some(message.kind()) {
                        self.net.push_back((id, to, message));
                    }
                }
                Action::Publish(published) => {
                    host.published.insert(published.snapshot.group, published);
                }
                Action::Checkpoint(checkpoint) => {
                    for (key, value) in checkpoint.groups.iter().flat_map(|group| group.entries()) {
                        match value {
                            Some(value) => host.store.0.insert(key, value),
                            None => host.store.0.remove(&key),
                        };
                    }
                    host.owed.push_back(Input::CheckpointDurable(checkpoint.id));
                }
                Action::Deliver(delivery) => host.delivered.push(delivery),
                Action::CloseSubscriber(id, why) => host.closed.push((id, why)),
                Action::Fatal(fatal) => panic!("{id}: {fatal}"),
                Action::Refuse { peer, why } => panic!("{id} refuses {peer}: {why}"),
                Action::Trace(_) | Action::Members(_) => {}
            }
        }
    }

    /// Lets disks answer and messages arrive until nothing is under way.
    fn run(&mut self) {
        for _ in 0..100_000 {
            let owing = self.hosts.iter_mut().find_map(|(id, host)| Some((*id, host.owed.pop_front()?)));
            if let Some((id, input)) = owing {
                if let Input::CheckpointDurable(_) = input {
                    let host = self.hosts.get_mut(&id).expect("a host");
                    host.shared = Arc::new(host.store.clone());
                }
                self.input(id, input);
            } else if let Some((from, to, message)) = self.next_message() {
                self.input(to, Input::Peer { from, message });
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

    /// Who leads a group, by the greatest term.
    fn leader(&self, group: GroupId) -> NodeId {
        let raft = |host: &Host| {
            let raft = host.node.as_ref()?.raft(group)?;
            (raft.role() == Role::Leader).then(|| raft.term())
        };
        let leads = self.hosts.iter().filter_map(|(id, host)| Some((raft(host)?, *id)));
        leads.max().expect("a leader").1
    }

    /// A node that is up, and another one each time.
    fn any(&self) -> NodeId {
        let up: Vec<NodeId> =
            self.hosts.iter().filter(|(_, host)| host.node.is_some()).map(|(id, _)| *id).collect();
        up[self.tokens as usize % up.len()]
    }

    /// Commits in a group, taken by any node that is up.
    fn commit(&mut self, group: GroupId, ops: Vec<Op>) -> Result<Committed, Refused> {
        let node = self.any();
        let read_index =
            self.hosts[&node].published.get(&group).map(|p| p.snapshot.applied).unwrap_or_default();
        self.commit_at(node, group, read_index, ops)
    }

    fn commit_at(
        &mut self,
        node: NodeId,
        group: GroupId,
        read_index: Index,
        ops: Vec<Op>,
    ) -> Result<Committed, Refused> {
        let reads = match ops.first() {
            Some(Op::PutRelation(_)) | None => Vec::new(),
            Some(_) => vec![KeyRange::point(keys::catalog(TOPIC))],
        };
        let transaction = Transaction { reads, read_index, ops, ..Transaction::default() };
        self.tokens += 1;
        let token = Token(self.tokens);
        self.input(node, Input::Request { token, request: Request::Commit(group, transaction) });
        for _ in 0..400 {
            match self.hosts.get_mut(&node).expect("a host").replies.remove(&token) {
                Some(Reply::Commit(result)) => return result,
                Some(reply) => panic!("{reply:?}"),
                None => self.pass(50 * MS),
            }
        }
        panic!("no answer came");
    }

    /// Publishes straight into the partition's group.
    fn publish(&mut self, key: &str, id: &str) -> OpOutcome {
        let home = topic().home(partition(&event(key, id)));
        let mut committed = self.commit(home, vec![publish(key, id)]).expect("published");
        committed.outcomes.pop().expect("an outcome")
    }

    /// Message ids by partition, as a node has them.
    fn events(&self, id: NodeId) -> BTreeMap<u32, Vec<String>> {
        let host = &self.hosts[&id];
        let of = |partition: u32| {
            let published = &host.published[&topic().home(partition)];
            let read_time = published.clock.at(Instant(self.mono));
            let events = published.snapshot.events(TOPIC, partition, 0, 10_000, read_time).expect("events");
            events.into_iter().map(|event| event.stored.event.message_id).collect::<Vec<_>>()
        };
        (0..PARTITIONS).map(|p| (p, of(p))).filter(|(_, events)| !events.is_empty()).collect()
    }

    fn outbox_bytes(&self, id: NodeId) -> usize {
        self.hosts[&id].node.as_ref().and_then(|node| node.state(CATALOG)).map_or(0, |s| s.outbox_bytes())
    }

    /// All nodes have the same events, each once and in its partition, outboxes are empty, and sums are right.
    fn check(&self, expected: &BTreeSet<String>) {
        let first = self.events(NodeId(1));
        for (partition, events) in &first {
            let unique: BTreeSet<&String> = events.iter().collect();
            assert_eq!(unique.len(), events.len(), "partition {partition} has doubles: {events:?}");
        }
        let all: BTreeSet<String> = first.values().flatten().cloned().collect();
        assert_eq!(all, *expected);
        for (id, host) in &self.hosts {
            assert_eq!(self.events(*id), first, "node {id}");
            assert_eq!(self.outbox_bytes(*id), 0, "node {id} still has something to send");
            let node = host.node.as_ref().expect("it is up");
            for group in (0..=GROUPS).map(GroupId) {
                let state = node.state(group).expect("the group");
                let recomputed = state.recompute_digests(&host.shared).expect("state");
                assert_eq!(state.digests().differences(&recomputed), [], "digests of {id}, group {group}");
            }
        }
    }
}

fn names(prefix: &str, count: usize) -> BTreeSet<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

#[test]
fn partitions_are_dealt_to_the_groups_and_every_group_knows_the_topic() {
    assert_eq!(topic().homes(), (1..=GROUPS).map(GroupId).collect());
    for nodes in [1, 3] {
        let world = World::of(nodes);
        for host in world.hosts.values() {
            for group in topic().homes() {
                assert_eq!(host.published[&group].snapshot.catalog.get(TOPIC).map(|r| &**r), Some(&topic()));
                assert!(host.published[&group].snapshot.catalog.get(PLAIN).is_none());
            }
        }
        world.check(&BTreeSet::new());
    }
}

#[test]
fn events_are_published_into_the_groups_of_their_partitions() {
    for nodes in [1, 3] {
        let mut world = World::of(nodes);
        let mut used = BTreeSet::new();
        for n in 0..30 {
            let (key, id) = (format!("k{}", n % 10), format!("m{n}"));
            let OpOutcome::Published { partition: at, .. } = world.publish(&key, &id) else {
                panic!("published")
            };
            assert_eq!(at, partition(&event(&key, &id)));
            used.insert(topic().home(at));
        }
        assert_eq!(used, topic().homes(), "every group has a part");
        let OpOutcome::Duplicate { position: Some(_) } = world.publish("k3", "m3") else {
            panic!("it was published before")
        };
        world.pass(1_000 * MS);
        world.check(&names("m", 30));
        // Events of one key are in the order in which they were published.
        for events in world.events(NodeId(1)).values() {
            for key in 0..10 {
                let of_key: Vec<u32> = events
                    .iter()
                    .map(|id| id[1..].parse().expect("a number"))
                    .filter(|n: &u32| n % 10 == key)
                    .collect();
                assert!(of_key.is_sorted(), "{of_key:?}");
            }
        }
        assert!(world.sent.get("Outbox").copied().unwrap_or(0) <= 3 * GROUPS as usize, "{:?}", world.sent);
    }
}

#[test]
fn events_of_a_transaction_reach_their_partitions_through_the_outbox() {
    for nodes in [1, 3] {
        let mut world = World::of(nodes);
        let mut ops: Vec<Op> = (0..20).map(|n| publish(&format!("k{n}"), &format!("m{n}"))).collect();
        ops.push(alert("a"));
        let committed = world.commit(CATALOG, ops).expect("committed");
        assert_eq!(committed.outcomes.len(), 21);
        assert!(committed.outcomes[..20].iter().all(|o| matches!(o, OpOutcome::Sent { .. })));
        assert_eq!(committed.outcomes[20], OpOutcome::Published { partition: 0, offset: 0 });
        world.pass(1_000 * MS);
        world.check(&names("m", 20));
    }
}

#[test]
fn a_timer_lives_and_fires_in_the_group_of_its_partition() {
    for nodes in [1, 3] {
        let mut world = World::of(nodes);
        let due = world.time() + Duration::from_secs(2);
        for n in 0..6 {
            let id = format!("direct{n}");
            let home = topic().home(partition(&event(&id, &id)));
            let committed = world.commit(home, vec![schedule(&id, &id, due)]).expect("scheduled");
            assert_eq!(committed.outcomes, [OpOutcome::Scheduled { version: 1 }]);
        }
        let sent = (0..6).map(|n| schedule(&format!("sent{n}"), &format!("sent{n}"), due)).collect();
        world.commit(CATALOG, sent).expect("sent");
        world.pass(200 * MS);
        let home = topic().home(partition(&event("sent1", "sent1")));
        let cancel = |id: &str| Op::Cancel { topic: TOPIC, timer_id: id.into(), if_version: None };
        let outcomes = world.commit(home, vec![cancel("sent1")]).expect("cancelled").outcomes;
        assert_eq!(outcomes, [OpOutcome::Changed]);
        while world.time() < due {
            assert!(world.events(world.any()).is_empty(), "nothing is early");
            world.pass(100 * MS);
        }
        world.pass(1_000 * MS);
        let expected: BTreeSet<String> = names("direct", 6).union(&names("sent", 6)).cloned().collect();
        world.check(&expected.into_iter().filter(|id| id != "sent1").collect());
        let outcomes = world.commit(home, vec![cancel("sent1")]).expect("too late").outcomes;
        assert_eq!(outcomes, [OpOutcome::TooLate]);
    }
}

/// Transactions publish while leaders of both ends die, messages are lost and doubled, and acknowledgements do not come.
fn crashes(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut world = World::of(3);
    world.noise = Some(Rng::new(seed));
    let mut expected = BTreeSet::new();
    for round in 0..6 {
        world.mute = match rng.below(3) {
            0 => Some("Outbox"),
            1 => Some("OutboxReply"),
            _ => None,
        };
        let ids: Vec<String> = (0..10).map(|n| format!("r{round}n{n}")).collect();
        // Nothing but the outbox makes them arrive once: their ids are not claimed.
        let unclaimed = |id: &String| match publish(&id[3..], id) {
            Op::Publish { topic, partition, event, .. } => {
                Op::Publish { topic, partition, event, claim: false }
            }
            op => op,
        };
        world.commit(CATALOG, ids.iter().map(unclaimed).collect()).expect("committed");
        expected.extend(ids);
        let victim = match rng.below(3) {
            0 => world.leader(GroupId(1 + rng.below(u64::from(GROUPS)) as u32)),
            _ => world.leader(CATALOG),
        };
        world.kill(victim);
        world.mute = None;
        world.pass(4_000 * MS);
        world.start(victim);
        world.pass(1_000 * MS);
    }
    world.noise = None;
    world.pass(5_000 * MS);
    world.check(&expected);
    for events in world.events(NodeId(1)).values() {
        // Of each key, in the order of the transactions.
        for key in 0..10 {
            let of_key: Vec<&String> = events.iter().filter(|id| id.ends_with(&format!("n{key}"))).collect();
            assert!(of_key.is_sorted(), "{of_key:?}");
        }
    }
}

#[test]
fn the_outbox_is_emptied_once_although_leaders_die_and_messages_are_lost() {
    (0..2).for_each(crashes);
}

#[cfg(feature = "planted-bugs")]
#[test]
fn every_planted_bug_of_the_outbox_is_caught() {
    use chronos_engine::bugs::{Bug, plant};
    for bug in [Bug::ForgetOutbox, Bug::DeliverAgain] {
        plant(Some(bug));
        let caught = (0..20).find(|seed| std::panic::catch_unwind(|| crashes(*seed)).is_err());
        plant(None);
        println!("{} is caught by seed {:?}", bug.name(), caught);
        assert!(caught.is_some(), "{} is not caught", bug.name());
    }
}

#[test]
fn a_dropped_topic_is_dropped_everywhere_behind_what_was_sent_to_it() {
    let mut world = World::of(3);
    let home = topic().home(partition(&event("a", "z")));
    let before = world.hosts[&NodeId(1)].published[&home].snapshot.applied;
    world
        .commit(CATALOG, vec![publish("a", "a"), publish("b", "b"), Op::DropRelation(TOPIC)])
        .expect("dropped");
    world.pass(15_000 * MS);
    for host in world.hosts.values() {
        for group in topic().homes() {
            let snapshot = &host.published[&group].snapshot;
            assert!(snapshot.catalog.get(TOPIC).is_none());
            let left = keys::tag::OF_RELATION
                .iter()
                .flat_map(|tag| snapshot.scan(&keys::all(*tag, Some(TOPIC)), false));
            assert_eq!(left.count(), 0, "nothing of it is left in group {group}");
        }
    }
    // Who read before it was dropped cannot write to it any more.
    assert_eq!(world.commit_at(NodeId(1), home, before, vec![publish("a", "z")]), Err(Refused::Conflict));
}

#[test]
fn a_subscriber_gets_the_events_of_every_partition() {
    let mut world = World::of(1);
    let id = SubscriberId(1);
    let open = |partitions| {
        SubscriberInput::Open(Subscription {
            topic: TOPIC,
            partitions,
            consumer_group: Some("g".into()),
            start: Start::Earliest,
            credit: 100,
            ack_timeout_ms: 60_000,
        })
    };
    world.input(NodeId(1), Input::Subscriber { id, event: open(Vec::new()) });
    for n in 0..20 {
        world.publish(&format!("k{n}"), &format!("m{n}"));
    }
    world.pass(100 * MS);
    let taken = |world: &mut World| {
        let delivered = std::mem::take(&mut world.hosts.get_mut(&NodeId(1)).expect("a host").delivered);
        let offsets = |d: &Delivery| d.offsets.iter().map(|(o, _)| (d.partition, *o)).collect::<Vec<_>>();
        delivered.iter().flat_map(offsets).collect::<BTreeSet<_>>()
    };
    let all = taken(&mut world);
    assert_eq!(all.len(), 20);
    let done: Vec<(u32, u64)> = all.iter().copied().take(12).collect();
    world.input(NodeId(1), Input::Subscriber { id, event: SubscriberInput::Ack(done.clone()) });
    world.pass(100 * MS);
    world.kill(NodeId(1));
    world.start(NodeId(1));
    world.pass(100 * MS);
    // What was acknowledged is known to each partition's group.
    world.input(NodeId(1), Input::Subscriber { id, event: open(Vec::new()) });
    world.pass(100 * MS);
    let again = taken(&mut world);
    assert_eq!(again, all.difference(&done.into_iter().collect()).copied().collect());
}

#[test]
fn a_subscriber_asks_the_leaders_of_the_partitions() {
    let mut world = World::of(3);
    let open = |partition: u32| {
        SubscriberInput::Open(Subscription {
            topic: TOPIC,
            partitions: vec![partition],
            consumer_group: None,
            start: Start::Earliest,
            credit: 100,
            ack_timeout_ms: 0,
        })
    };
    for partition in 0..PARTITIONS {
        let leader = world.leader(topic().home(partition));
        for node in [1, 2, 3].map(NodeId) {
            let id = SubscriberId(u64::from(partition));
            world.input(node, Input::Subscriber { id, event: open(partition) });
            let closed = std::mem::take(&mut world.hosts.get_mut(&node).expect("a host").closed);
            match node == leader {
                true => assert_eq!(closed, []),
                false => assert!(closed[0].1.contains(&format!("node n{leader}")), "{closed:?}"),
            }
        }
    }
    for n in 0..20 {
        world.publish(&format!("k{n}"), &format!("m{n}"));
    }
    world.pass(100 * MS);
    let delivered = world.hosts.values().flat_map(|host| &host.delivered);
    assert_eq!(delivered.map(|delivery| delivery.offsets.len()).sum::<usize>(), 20);
}
