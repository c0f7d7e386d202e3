//! Who gets which event: subscriptions, credits and consumer groups, as offsets alone.
//!
//! ```text
//! Tracker                          subscribers, the queues they draw from, deadlines
//!   Queue                          one consumer group on one topic, or one subscriber without a group
//!     Lane                         one partition: floor ≤ cursor, and what lies between
//!
//!   0 ........ floor ......... cursor ......... released
//!     done        done | out |        not yet handed
//!                 waiting | ready     out
//! ```
//!
//! A consumer group shares its events: each goes to one member, and comes again to any member when it is not
//! acknowledged in time, when it is nacked, or when its holder leaves. Acknowledgements are single offsets in any order;
//! below the floor all are done. How often an event was handed out travels with it, and the wait before it comes again
//! doubles with each time. A subscriber without a group sees every event once, in order, and acknowledges nothing.
//!
//! Everything waits for credit, which a subscriber gives and each event uses up. Within a group what is there is shared
//! out evenly among the members that have credit. The unacknowledged span of a lane is capped: at the cap it pauses until
//! the oldest event is acknowledged, and [`Tracker::paused`] says so.
//!
//! An event that was handed out as often as its topic has it, in vain, becomes a dead letter: it is held back here until
//! the entry that moves it is applied, and nothing waits for it meanwhile.
//!
//! The tracker is soft state of the leader. What must last goes through the log as the [`Command`]s that `open` and `ack`
//! return and [`Tracker::take_commands`] hands over: where a new group starts, what is done, what was handed out in vain. An
//! acknowledgement counts here at once; if its command is lost, the event is handed out again after a restart, as
//! at-least-once allows. Waits are forgotten by a restart, and deliveries that were under way are not counted.
//!
//! Not here: exclusive consumers by partition, extending a lease, moving a group's progress back.

mod lane;
mod limit;
mod queue;
#[cfg(test)]
mod tests;

use crate::state::records::{Attempts, ConsumerRecord};
use crate::step::{Delivery, SubscriberId, Subscription};
use chronos_proto::command::Command;
use chronos_proto::id::RelationId;
use chronos_proto::time::Instant;
use lane::{Lane, Lease};
use limit::Failure;
pub use limit::Limit;
use queue::{Queue, Share};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The most offsets between a lane's floor and its cursor.
pub const UNACKED_SPAN_MAX: u64 = 8_192;
/// How long an event may be out when the subscriber names no time.
pub const ACK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The wait before an event comes for the third time; before the second there is none. It doubles from there.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest such wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long a group without members is remembered: longer than its last acknowledgements need to be applied.
pub const IDLE_GROUP: Duration = Duration::from_secs(60);
/// The most offsets handed out from one queue by one `poll`.
const POLL_MAX: u64 = 4_096;
/// The most offsets in one delivery.
const DELIVERY_MAX: usize = 256;

/// A partition as a subscription finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionProgress {
    /// Which.
    pub partition: u32,
    /// The group's progress, if it has any.
    pub stored: Option<ConsumerRecord>,
    /// How often what is not done was handed out in vain.
    pub attempts: Attempts,
    /// The end of what is released: the first offset that may not be handed out yet.
    pub released: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct QueueId(u64);

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Due {
    /// A lease ends, or a wait.
    Offset { partition: u32, offset: u64 },
    /// A group without members is forgotten.
    Idle,
}

type Deadlines = BTreeSet<(Instant, QueueId, Due)>;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Subscriber {
    queue: QueueId,
    /// Those it asked for; all if it names none.
    partitions: Vec<u32>,
    credit: u32,
    ack_timeout: Duration,
}

/// All subscriptions of a group's leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tracker {
    subscribers: BTreeMap<SubscriberId, Subscriber>,
    queues: BTreeMap<QueueId, Queue>,
    groups: BTreeMap<(RelationId, String), QueueId>,
    by_topic: BTreeSet<(RelationId, QueueId)>,
    /// Queues that may have something to hand out.
    ready: BTreeSet<QueueId>,
    deadlines: Deadlines,
    limits: BTreeMap<RelationId, Limit>,
    /// To be proposed.
    commands: Vec<Command>,
    next_queue: u64,
    now: Instant,
    span_max: u64,
}

impl Default for Tracker {
    fn default() -> Tracker {
        Tracker::new()
    }
}

impl Tracker {
    /// Nobody subscribes.
    pub fn new() -> Tracker {
        Tracker::with_span(UNACKED_SPAN_MAX)
    }

    fn with_span(span_max: u64) -> Tracker {
        Tracker {
            subscribers: BTreeMap::new(),
            queues: BTreeMap::new(),
            groups: BTreeMap::new(),
            by_topic: BTreeSet::new(),
            ready: BTreeSet::new(),
            deadlines: Deadlines::new(),
            limits: BTreeMap::new(),
            commands: Vec::new(),
            next_queue: 0,
            now: Instant::default(),
            span_max,
        }
    }

    /// How many subscriptions are open.
    pub fn len(&self) -> usize {
        self.subscribers.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// A subscriber comes. `partitions` are those that it asked for; for a group that has other members the stored progress
    /// adds to what is known. The command, if any, fixes where a new group starts and is to be proposed.
    pub fn open(
        &mut self,
        now: Instant,
        id: SubscriberId,
        subscription: Subscription,
        partitions: &[PartitionProgress],
    ) -> Option<Command> {
        self.close(now, id);
        let Subscription { topic, partitions: asked, consumer_group, start, credit, ack_timeout_ms } =
            subscription;
        let queue_id = self.queue_for(topic, consumer_group.as_ref());
        let queue = self.queues.entry(queue_id).or_insert_with(|| Queue::new(topic, consumer_group));
        let mut floors = Vec::new();
        for progress in partitions {
            let lane = queue.lanes.entry(progress.partition).or_insert_with(|| {
                Lane::new((queue_id, progress.partition), progress.begin(start), self.span_max)
            });
            lane.release(progress.released);
            match &progress.stored {
                Some(stored) => lane.merge(stored, &progress.attempts, &mut self.deadlines),
                None => floors.push((progress.partition, lane.floor())),
            }
        }
        let ack_timeout = match ack_timeout_ms {
            0 => ACK_TIMEOUT_DEFAULT,
            millis => Duration::from_millis(millis),
        };
        queue.members.push(id);
        if let Some(idle) = queue.idle_until.take() {
            self.deadlines.remove(&(idle, queue_id, Due::Idle));
        }
        self.subscribers.insert(id, Subscriber { queue: queue_id, partitions: asked, credit, ack_timeout });
        self.ready.insert(queue_id);
        let consumer_group = queue.consumer_group.clone().filter(|_| !floors.is_empty())?;
        Some(Command::StartGroup { topic, consumer_group, floors })
    }

    /// From now on events of a topic become dead letters then, or never.
    pub fn limit(&mut self, topic: RelationId, limit: Option<Limit>) {
        match limit {
            Some(limit) => self.limits.insert(topic, limit),
            None => self.limits.remove(&topic),
        };
    }

    /// What is to be proposed, in order.
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    fn log(&mut self, queue: QueueId, failures: &[Failure], reason: &str) {
        let Some(queue) = self.queues.get(&queue).filter(|_| !failures.is_empty()) else { return };
        let limit = self.limits.get(&queue.topic).copied();
        queue.log_failures(failures, limit, reason, &mut self.commands);
    }

    fn queue_for(&mut self, topic: RelationId, consumer_group: Option<&String>) -> QueueId {
        let known = consumer_group.and_then(|name| self.groups.get(&(topic, name.clone())));
        if let Some(id) = known {
            return *id;
        }
        let id = QueueId(self.next_queue);
        self.next_queue += 1;
        self.by_topic.insert((topic, id));
        if let Some(name) = consumer_group {
            self.groups.insert((topic, name.clone()), id);
        }
        id
    }

    /// A subscriber takes so many more events.
    pub fn credit(&mut self, id: SubscriberId, more: u32) {
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            subscriber.credit = subscriber.credit.saturating_add(more);
            self.ready.insert(subscriber.queue);
        }
    }

    /// A subscriber is done with (partition, offset) pairs: whoever holds them now, they are not handed out again. The
    /// command is to be proposed; none if nothing of it is new, or without a group.
    pub fn ack(&mut self, id: SubscriberId, offsets: &[(u32, u64)]) -> Option<Command> {
        let subscriber = self.subscribers.get(&id)?;
        let queue = self.queues.get_mut(&subscriber.queue)?;
        let consumer_group = queue.consumer_group.clone()?;
        let mut done = Vec::new();
        for (partition, offset) in offsets {
            let Some(lane) = queue.lanes.get_mut(partition) else { continue };
            if *offset < lane.limit() && lane.finish(*offset, &mut self.deadlines) {
                done.push((*partition, *offset));
            }
        }
        if done.is_empty() {
            return None;
        }
        self.ready.insert(subscriber.queue);
        done.sort_unstable();
        Some(Command::Ack { topic: queue.topic, consumer_group, offsets: done })
    }

    /// An acknowledgement was applied, from here or from elsewhere.
    pub fn acked(&mut self, topic: RelationId, consumer_group: &str, offsets: &[(u32, u64)]) {
        let Some(id) = self.groups.get(&(topic, consumer_group.to_owned())) else { return };
        let Some(queue) = self.queues.get_mut(id) else { return };
        for (partition, offset) in offsets {
            if let Some(lane) = queue.lanes.get_mut(partition) {
                lane.finish(*offset, &mut self.deadlines);
            }
        }
        self.ready.insert(*id);
    }

    /// Events did not become dead letters, since there is no topic for them: they come again.
    pub fn kept(&mut self, topic: RelationId, consumer_group: &str, offsets: &[(u32, u64)]) {
        let Some(id) = self.groups.get(&(topic, consumer_group.to_owned())) else { return };
        let Some(queue) = self.queues.get_mut(id) else { return };
        for (partition, offset) in offsets {
            if let Some(lane) = queue.lanes.get_mut(partition) {
                lane.keep(*offset, &mut self.deadlines);
            }
        }
        self.ready.insert(*id);
    }

    /// A subscriber wants events again that are out to it, after a delay in milliseconds or longer. The reason goes with
    /// those that become dead letters by it.
    pub fn nack(
        &mut self,
        now: Instant,
        id: SubscriberId,
        offsets: &[(u32, u64)],
        delay_ms: u64,
        reason: &str,
    ) {
        self.now = self.now.max(now);
        let Some(queue_id) = self.subscribers.get(&id).map(|subscriber| subscriber.queue) else { return };
        let Some(queue) = self.queues.get_mut(&queue_id) else { return };
        let most = queue.most(self.limits.get(&queue.topic).copied());
        let wait = (now, Duration::from_millis(delay_ms));
        let mut failures = Vec::new();
        for (partition, offset) in offsets {
            let lane = queue.lanes.get_mut(partition);
            let fate = lane.and_then(|lane| lane.give_back(*offset, id, wait, most, &mut self.deadlines));
            failures.extend(fate.map(|fate| (*partition, *offset, fate)));
        }
        self.log(queue_id, &failures, if reason.is_empty() { "nacked" } else { reason });
        self.ready.insert(queue_id);
    }

    /// A subscriber is gone; what was out to it may be handed out again at once.
    pub fn close(&mut self, now: Instant, id: SubscriberId) {
        self.now = self.now.max(now);
        let Some(Subscriber { queue: queue_id, .. }) = self.subscribers.remove(&id) else { return };
        let Some(queue) = self.queues.get_mut(&queue_id) else { return };
        queue.members.retain(|member| *member != id);
        let most = queue.most(self.limits.get(&queue.topic).copied());
        let mut failures = Vec::new();
        for (partition, lane) in &mut queue.lanes {
            let fates = lane.abandon(id, now, most, &mut self.deadlines).into_iter();
            failures.extend(fates.map(|(offset, fate)| (*partition, offset, fate)));
        }
        self.log(queue_id, &failures, "its consumer left");
        self.ready.insert(queue_id);
        let Some(queue) = self.queues.get_mut(&queue_id) else { return };
        if queue.members.is_empty() {
            if queue.consumer_group.is_some() {
                let until = now + IDLE_GROUP;
                queue.idle_until = Some(until);
                self.deadlines.insert((until, queue_id, Due::Idle));
            } else {
                self.forget(queue_id);
            }
        }
    }

    /// A topic is gone: its subscriptions end. Returns who had one.
    pub fn drop_topic(&mut self, topic: RelationId) -> Vec<SubscriberId> {
        let mut gone = Vec::new();
        let queues = self.by_topic.range((topic, QueueId(0))..=(topic, QueueId(u64::MAX)));
        for (_, id) in queues.copied().collect::<Vec<_>>() {
            gone.extend(self.queues.get(&id).into_iter().flat_map(|queue| queue.members.iter().copied()));
            self.forget(id);
        }
        gone.sort_unstable();
        for id in &gone {
            self.subscribers.remove(id);
        }
        self.limits.retain(|of, limit| *of != topic && limit.dead != topic);
        gone
    }

    fn forget(&mut self, id: QueueId) {
        let Some(mut queue) = self.queues.remove(&id) else { return };
        for lane in queue.lanes.values_mut() {
            lane.clear(&mut self.deadlines);
        }
        if let Some(idle) = queue.idle_until {
            self.deadlines.remove(&(idle, id, Due::Idle));
        }
        if let Some(name) = queue.consumer_group {
            self.groups.remove(&(queue.topic, name));
        }
        self.by_topic.remove(&(queue.topic, id));
        self.ready.remove(&id);
    }

    /// Events of a partition below `end` may be handed out from now on.
    pub fn released(&mut self, topic: RelationId, partition: u32, end: u64) {
        for (_, id) in self.by_topic.range((topic, QueueId(0))..=(topic, QueueId(u64::MAX))) {
            let lane = self.queues.get_mut(id).and_then(|queue| queue.lanes.get_mut(&partition));
            if lane.is_some_and(|lane| lane.release(end)) {
                self.ready.insert(*id);
            }
        }
    }

    /// Time passes: leases and waits end, groups long without members are forgotten.
    pub fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let mut failures: BTreeMap<QueueId, Vec<Failure>> = BTreeMap::new();
        while let Some((at, id, due)) = self.deadlines.first().copied().filter(|(at, ..)| *at <= now) {
            self.deadlines.remove(&(at, id, due));
            let Due::Offset { partition, offset } = due else {
                self.forget(id);
                continue;
            };
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            let most = queue.most(self.limits.get(&queue.topic).copied());
            if let Some(lane) = queue.lanes.get_mut(&partition) {
                let fate = lane.end_lease(offset, now, most, &mut self.deadlines);
                let failure = fate.map(|fate| (partition, offset, fate));
                failures.entry(id).or_default().extend(failure);
                self.ready.insert(id);
            }
        }
        for (id, failures) in failures {
            self.log(id, &failures, "not acknowledged in time");
        }
    }

    /// Appends what can be handed out now, within credits. A bounded part of it: the rest comes with the next call, for
    /// which [`Tracker::next_deadline`] asks at once.
    pub fn poll(&mut self, now: Instant, out: &mut Vec<Delivery>) {
        self.now = self.now.max(now);
        for id in std::mem::take(&mut self.ready) {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            let mut budget = POLL_MAX;
            let most = queue.most(self.limits.get(&queue.topic).copied());
            let mut failures = Vec::new();
            loop {
                let shares = queue.shares(budget, |member| {
                    let known = self.subscribers.get(member);
                    known.map_or((0, &[][..]), |subscriber| (subscriber.credit, &subscriber.partitions[..]))
                });
                let before = budget;
                for Share { member, events } in shares {
                    let Some(subscriber) = self.subscribers.get_mut(&member) else { continue };
                    let lease = Lease { to: member, until: now + subscriber.ack_timeout };
                    let asked = &subscriber.partitions;
                    let deadlines = &mut self.deadlines;
                    let taken = queue.take(events, asked, (lease, most), deadlines, out, &mut failures);
                    subscriber.credit -= taken as u32;
                    budget -= taken;
                }
                if budget == before {
                    break;
                }
                if budget == 0 {
                    self.ready.insert(id);
                    break;
                }
            }
            self.log(id, &failures, "handed out as often as its topic allows");
        }
    }

    /// When the tracker next wants a `tick` and a `poll`.
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.ready.is_empty() || !self.commands.is_empty() {
            return Some(self.now);
        }
        self.deadlines.first().map(|(at, ..)| *at)
    }

    /// Consumer groups that are at the cap of their unacknowledged span in some partition.
    pub fn paused(&self) -> impl Iterator<Item = (RelationId, &str)> {
        self.queues.values().filter(|queue| queue.lanes.values().any(Lane::is_paused)).filter_map(|queue| {
            let name = queue.consumer_group.as_deref()?;
            Some((queue.topic, name))
        })
    }

    #[cfg(test)]
    fn check(&self) {
        for (id, queue) in &self.queues {
            assert!(self.by_topic.contains(&(queue.topic, *id)));
            queue.lanes.values().for_each(|lane| lane.check(&self.deadlines));
        }
        let out: usize = self.queues.values().flat_map(|q| q.lanes.values()).map(Lane::deadlines).sum();
        let idle = self.queues.values().filter(|queue| queue.idle_until.is_some()).count();
        assert_eq!(self.deadlines.len(), out + idle, "a deadline stands for nothing");
    }
}
