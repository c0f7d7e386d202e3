//! Who asks and who looks: transactions of a row and events, events and timers alone, cancels; readers and consumers.

use super::hosts::NAMES;
use super::ledger::{Fate, Together, Wish};
use super::world::{CATALOG, World};
use crate::rng::Rng;
use crate::violation::{Held, Violation};
use bytes::Bytes;
use chronos_engine::keys::{self, KeyRange};
use chronos_engine::step::{
    Delivery, Input, Request, Start, SubscriberId, SubscriberInput, Subscription, Token,
};
use chronos_engine::txn::{Committed, Refused, Transaction};
use chronos_proto::command::{Event, Op, OpOutcome};
use chronos_proto::id::{ColumnId, GroupId, RelationId};
use chronos_proto::schema::{Column, Partitioned, Relation, RelationKind, Table, Topic};
use chronos_proto::time::Timestamp;
use chronos_proto::value::{Type, Value};
use chronos_proto::{key, row};
use std::collections::{BTreeMap, BTreeSet};

const ROWS: RelationId = RelationId(16);
const TOPIC: RelationId = RelationId(17);
/// Within a run no claim is forgotten.
const DEDUP: u64 = 3_600_000_000;
/// How long an answer is waited for.
const PATIENCE: u64 = 12_000_000;

/// What somebody asked for and has no answer to.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    group: GroupId,
    ops: Vec<Op>,
    what: What,
    /// An earlier attempt may have had its effect.
    doubt: bool,
    answered: bool,
}

#[derive(Clone, Debug)]
enum What {
    /// The table and the topic are made.
    Make,
    Together(u64),
    Alone(String),
    Cancel(String),
}

/// The consumer of one partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Consumer {
    pub at: Option<(usize, SubscriberId)>,
    /// Behind the last number that was sent, by target; the first consumer's is everybody's.
    pub sent: BTreeMap<GroupId, u64>,
}

fn id(name: &str) -> ColumnId {
    ColumnId(name.len() as u32)
}

fn primary_key(number: u64) -> Bytes {
    let mut out = Vec::new();
    key::encode(&mut out, &Value::Int(number as i64));
    Bytes::from(out)
}

impl World {
    fn topic(&self) -> Relation {
        let topic = Topic {
            partitions: self.knobs.partitions,
            dedup_micros: DEDUP,
            payload: Type::Bytes,
            settings: Vec::new(),
        };
        let kind = RelationKind::Partitioned(Partitioned::spread(TOPIC, topic, self.knobs.groups));
        Relation { id: TOPIC, name: "orders".into(), group: CATALOG, version: 1, kind }
    }

    fn table(&self) -> Relation {
        let column = |name: &str| Column {
            id: id(name),
            name: name.into(),
            ty: Type::Int,
            not_null: false,
            default: None,
        };
        let kind = RelationKind::Table(Table {
            columns: vec![column("n"), column("of")],
            primary_key: vec![id("n")],
            next_column: 3,
            next_index: 1,
            ..Table::default()
        });
        Relation { id: ROWS, name: "rows".into(), group: CATALOG, version: 1, kind }
    }

    fn partition(&self, event: &Event) -> u32 {
        self.topic().topic().map_or(0, |topic| topic.partition_of(event))
    }

    fn event(&mut self, rng: &mut Rng) -> Event {
        let number = self.next();
        let key = rng.chance(700).then(|| format!("key {}", rng.below(20)));
        let payload = Bytes::from(vec![0xEE; *rng.pick(&[0, 10, 2_000])]);
        Event { message_id: format!("m{number}"), key, payload, ..Event::default() }
    }

    fn knows(&self, host: usize, group: GroupId) -> bool {
        self.published(host, group).is_some_and(|published| published.snapshot.catalog.get(TOPIC).is_some())
    }

    /// Somebody sets out to do something, at any node.
    pub fn client(&mut self, rng: &mut Rng) {
        let host = rng.below(self.hosts.len() as u64) as usize;
        if self.hosts[host].up.is_none() {
            return;
        }
        if !self.knows(host, CATALOG) {
            // Made once: another attempt is refused, since it reads that they are not there.
            let ops = vec![Op::PutRelation(self.table()), Op::PutRelation(self.topic())];
            return self
                .ask(host, Asked { group: CATALOG, ops, what: What::Make, doubt: false, answered: false });
        }
        match rng.below(10) {
            0..=4 => self.together(host, rng),
            5 | 6 => self.alone(host, false, rng),
            7 | 8 => self.alone(host, true, rng),
            _ => self.cancel(host, rng),
        }
    }

    fn due(&self, rng: &mut Rng) -> Timestamp {
        Timestamp(crate::clock::BEGIN + self.now as i64 + rng.range(0, 5_000_000) as i64 - 200_000)
    }

    /// A row, and events for partitions, some of them later.
    fn together(&mut self, host: usize, rng: &mut Rng) {
        let number = self.next();
        let columns = [(id("of"), Value::Int(number as i64))];
        let row = row::encode(columns.iter().map(|(column, value)| (*column, value)));
        let key = primary_key(number);
        let mut ops = vec![Op::PutRow { relation: ROWS, key, row, replaces: 0, indexes: Vec::new() }];
        let mut events = Vec::new();
        for _ in 0..rng.range(1, 5) {
            let event = self.event(rng);
            let (partition, message_id) = (self.partition(&event), event.message_id.clone());
            // Nothing but the outbox makes those arrive once whose ids are not claimed.
            let claim = rng.chance(300);
            let deliver_at = rng.chance(250).then(|| self.due(rng));
            let wish = Wish { partition, deliver_at, with: Some(number), fate: Fate::Open, cancel: None };
            self.ledger.wishes.insert(message_id.clone(), wish);
            events.push(message_id.clone());
            ops.push(match deliver_at {
                None => Op::Publish { topic: TOPIC, partition, event, claim },
                Some(deliver_at) => {
                    self.count("timers through the outbox");
                    Op::Schedule { topic: TOPIC, partition, timer_id: message_id, event, deliver_at, claim }
                }
            });
        }
        self.ledger.transactions.insert(number, Together { events, ..Together::default() });
        let what = What::Together(number);
        self.ask(host, Asked { group: CATALOG, ops, what, doubt: false, answered: false });
    }

    /// An event or a timer, given to the group of its partition.
    fn alone(&mut self, host: usize, later: bool, rng: &mut Rng) {
        let event = self.event(rng);
        let (partition, message_id) = (self.partition(&event), event.message_id.clone());
        let group = self.topic().home(partition);
        if !self.knows(host, group) {
            return;
        }
        let deliver_at = later.then(|| self.due(rng));
        let wish = Wish { partition, deliver_at, with: None, fate: Fate::Open, cancel: None };
        self.ledger.wishes.insert(message_id.clone(), wish);
        let (claim, timer_id) = (true, message_id.clone());
        let op = match deliver_at {
            None => Op::Publish { topic: TOPIC, partition, event, claim },
            Some(deliver_at) => Op::Schedule { topic: TOPIC, partition, timer_id, event, deliver_at, claim },
        };
        let what = What::Alone(message_id);
        self.ask(host, Asked { group, ops: vec![op], what, doubt: false, answered: false });
    }

    /// A timer that was acknowledged is cancelled, once.
    fn cancel(&mut self, host: usize, rng: &mut Rng) {
        let pending = |wish: &Wish| {
            let taken = wish.with.is_none() && wish.fate == Fate::Done;
            taken && wish.deliver_at.is_some() && wish.cancel.is_none()
        };
        let timers: Vec<(String, u32)> = self
            .ledger
            .wishes
            .iter()
            .filter(|(_, wish)| pending(wish))
            .map(|(id, wish)| (id.clone(), wish.partition))
            .collect();
        // The newest are the likeliest to be pending.
        let Some((timer_id, partition)) = timers.iter().rev().take(4).nth(rng.below(4) as usize).cloned()
        else {
            return;
        };
        let group = self.topic().home(partition);
        if !self.knows(host, group) {
            return;
        }
        if let Some(wish) = self.ledger.wishes.get_mut(&timer_id) {
            wish.cancel = Some(Fate::Open);
        }
        let ops = vec![Op::Cancel { topic: TOPIC, timer_id: timer_id.clone(), if_version: None }];
        self.ask(host, Asked { group, ops, what: What::Cancel(timer_id), doubt: false, answered: false });
    }

    fn ask(&mut self, host: usize, asked: Asked) {
        let token = Token(self.next());
        self.say(
            "client",
            format_args!("asks {} for {:?} in group {}", NAMES[host], asked.what, asked.group),
        );
        let read_index =
            self.published(host, asked.group).map(|published| published.snapshot.applied).unwrap_or_default();
        let reads = vec![KeyRange::point(keys::catalog(TOPIC))];
        let transaction = Transaction { reads, read_index, ops: asked.ops.clone(), ..Transaction::default() };
        let request = Request::Commit(asked.group, transaction);
        self.asked.insert(token, asked);
        self.give(host, Input::Request { token, request });
        self.again(PATIENCE, token);
    }

    /// No answer came, or one that leaves it open.
    pub fn ask_again(&mut self, token: Token) {
        let Some(asked) = self.asked.remove(&token) else { return };
        let doubt = asked.doubt || !asked.answered;
        // What is claimed may be asked for again: it happens once.
        let claimed = matches!(asked.what, What::Alone(_));
        if !claimed || self.settling.is_some() {
            if let (What::Together(_), true) = (&asked.what, doubt) {
                self.count("transactions of unknown outcome");
            }
            if !doubt {
                self.settle_fate(&asked.what, Fate::Refused);
            }
            return;
        }
        let host = self.rng.below(self.hosts.len() as u64) as usize;
        if self.hosts[host].up.is_some() && self.knows(host, asked.group) {
            return self.ask(host, Asked { doubt, answered: false, ..asked });
        }
        self.asked.insert(token, Asked { doubt, answered: true, ..asked });
        self.again(300_000, token);
    }

    fn settle_fate(&mut self, what: &What, fate: Fate) {
        match what {
            What::Make => {}
            What::Together(number) => {
                if let Some(together) = self.ledger.transactions.get_mut(number) {
                    together.fate = fate;
                }
            }
            What::Alone(id) => {
                if let Some(wish) = self.ledger.wishes.get_mut(id) {
                    wish.fate = fate;
                }
            }
            What::Cancel(id) => {
                if let Some(wish) = self.ledger.wishes.get_mut(id) {
                    wish.cancel = Some(fate);
                }
            }
        }
    }

    /// An answer; none if it says that the outcome is unknown.
    pub fn committed(&mut self, token: Token, result: Option<Result<Committed, Refused>>) {
        let Some(asked) = self.asked.get_mut(&token) else { return };
        let what = asked.what.clone();
        match result {
            Some(Ok(committed)) => {
                self.asked.remove(&token);
                self.done(&what, &committed);
            }
            Some(Err(refused)) => {
                asked.answered = true;
                self.say("client", format_args!("{what:?} is refused: {refused}"));
                self.again(500_000, token);
            }
            None => {
                asked.doubt = true;
                asked.answered = true;
                self.again(500_000, token);
            }
        }
    }

    fn done(&mut self, what: &What, committed: &Committed) {
        self.say("client", format_args!("{what:?} is done at {}", committed.index));
        let fate = match (what, committed.outcomes.first()) {
            // Too late: as if nobody had tried.
            (What::Cancel(_), Some(OpOutcome::TooLate)) => {
                self.count("cancels too late");
                Fate::Refused
            }
            (What::Cancel(_), _) => {
                self.count("timers cancelled");
                Fate::Done
            }
            _ => Fate::Done,
        };
        self.settle_fate(what, fate);
        match what {
            What::Together(number) => {
                self.count("transactions");
                if let Some(together) = self.ledger.transactions.get_mut(number) {
                    together.index = committed.index.0;
                }
                let sent = committed.outcomes.iter().filter(|o| matches!(o, OpOutcome::Sent { .. })).count();
                (0..sent).for_each(|_| self.count("events through the outbox"));
            }
            What::Alone(_) => self.count("events published alone"),
            What::Make | What::Cancel(_) => {}
        }
    }

    /// The process on a host is gone: nobody answers, and its consumers look for another node.
    pub fn forget(&mut self, host: usize) {
        for consumer in &mut self.consumers {
            consumer.at.take_if(|(at, _)| *at == host);
        }
    }

    // Those who look

    /// Reads every partition at a node.
    pub fn read(&mut self, host: usize) -> Held {
        let Some(up) = &self.hosts[host].up else { return Ok(()) };
        let mono = self.hosts[host].clock.now(self.now).mono;
        let topic = self.topic();
        let mut fired = 0;
        for partition in 0..self.knobs.partitions {
            let Some(published) = up.published.get(&topic.home(partition)) else { continue };
            if published.snapshot.catalog.get(TOPIC).is_none() {
                continue;
            }
            let events = published
                .snapshot
                .events(TOPIC, partition, 0, usize::MAX, published.clock.at(mono))
                .map_err(|damage| Violation::safety("recovery", damage.to_string()))?;
            for event in events {
                fired += u64::from(event.stored.fired_at.is_some());
                self.ledger.seen(partition, event.offset, &event.stored, self.now)?;
            }
        }
        if fired > 0 && self.settling.is_some() {
            self.count("timers fired");
        }
        Ok(())
    }

    /// A consumer for each partition that has none, at its leader.
    pub fn consume(&mut self) {
        let topic = self.topic();
        for partition in 0..self.knobs.partitions {
            let home = topic.home(partition);
            let Some(leader) = self.leader(home).filter(|leader| self.knows(*leader, home)) else { continue };
            // One at a node that does not lead, and does not say so, asks around after a while.
            if let Some((host, subscriber)) = self.consumers[partition as usize].at {
                if host == leader || !self.rng.chance(200) {
                    continue;
                }
                self.give(host, Input::Subscriber { id: subscriber, event: SubscriberInput::Close });
            }
            let subscriber = SubscriberId(self.next());
            self.consumers[partition as usize].at = Some((leader, subscriber));
            self.say("world", format_args!("{subscriber:?} of partition {partition} asks {}", NAMES[leader]));
            let event = SubscriberInput::Open(Subscription {
                topic: TOPIC,
                partitions: vec![partition],
                consumer_group: Some("g".into()),
                start: Start::Earliest,
                credit: 1_000,
                ack_timeout_ms: 5_000,
            });
            self.give(leader, Input::Subscriber { id: subscriber, event });
        }
    }

    pub fn delivered(&mut self, host: usize, delivery: &Delivery) -> Held {
        let Delivery { subscriber, partition, offsets, .. } = delivery;
        let given = (host, *subscriber);
        if self.consumers[*partition as usize].at != Some(given) {
            return Ok(());
        }
        for (offset, _) in offsets {
            if self.ledger.handed(*partition, *offset) {
                self.count("events handed out again");
            }
        }
        // Some are never acknowledged before the consumer goes.
        let done: Vec<(u32, u64)> = offsets
            .iter()
            .filter(|_| self.rng.chance(900))
            .map(|(offset, _)| (*partition, *offset))
            .collect();
        let credit = SubscriberInput::Credit(offsets.len() as u32);
        self.give(host, Input::Subscriber { id: *subscriber, event: SubscriberInput::Ack(done) });
        self.give(host, Input::Subscriber { id: *subscriber, event: credit });
        Ok(())
    }

    pub fn closed(&mut self, subscriber: SubscriberId) {
        for consumer in &mut self.consumers {
            consumer.at.take_if(|(_, at)| *at == subscriber);
        }
    }

    /// What somebody still waits for at the end.
    pub fn waits(&self, members: &BTreeSet<usize>) -> Option<String> {
        if !self.asked.is_empty() {
            return Some(format!("{} requests have no answer", self.asked.len()));
        }
        for group in (0..=self.knobs.groups).map(GroupId) {
            let mut shown = members.iter().filter_map(|host| self.published(*host, group));
            if shown.any(|published| published.snapshot.timers(TOPIC).next().is_some()) {
                return Some(format!("group {group} has pending timers"));
            }
        }
        // What has fired ahead of its time is not seen before it.
        let topic = self.topic();
        for partition in 0..self.knobs.partitions {
            for host in members {
                let Some(published) = self.published(*host, topic.home(partition)) else { continue };
                let now = published.clock.at(self.hosts[*host].clock.now(self.now).mono);
                let record = published.snapshot.partition(TOPIC, partition);
                if record.is_ok_and(|record| record.armed.iter().any(|(_, release, _)| *release > now)) {
                    return Some(format!("events of partition {partition} are not released yet"));
                }
            }
        }
        let place = self.ledger.not_handed();
        place.map(|(partition, offset)| {
            format!("offset {offset} of partition {partition} is with no consumer")
        })
    }

    /// Transactions whose rows are there.
    pub fn rows(&self, host: usize) -> Result<BTreeSet<u64>, Violation> {
        let damaged = |what: String| Violation::safety("recovery", what);
        let Some(published) = self.published(host, CATALOG) else {
            return Err(damaged("no state of group 0".into()));
        };
        let mut rows = BTreeSet::new();
        for number in self.ledger.transactions.keys() {
            let key = keys::row(ROWS, &primary_key(*number));
            let row = published.snapshot.get(&key).map_err(|error| damaged(error.to_string()))?;
            if row.is_some() {
                rows.insert(*number);
            }
        }
        Ok(rows)
    }
}
