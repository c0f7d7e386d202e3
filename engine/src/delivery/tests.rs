use super::*;
use crate::step::Start;
use chronos_proto::command::Letter;
use proptest::prelude::*;

const T: RelationId = RelationId(16);
const MS: u64 = 1_000;

fn at(ms: u64) -> Instant {
    Instant(ms * MS)
}

fn group_subscription(credit: u32, ack_timeout_ms: u64) -> Subscription {
    let consumer_group = Some("g".to_owned());
    Subscription {
        topic: T,
        partitions: Vec::new(),
        consumer_group,
        start: Start::Earliest,
        credit,
        ack_timeout_ms,
    }
}

fn released(end: u64) -> Vec<PartitionProgress> {
    vec![PartitionProgress {
        partition: 0,
        stored: Some(ConsumerRecord::default()),
        released: end,
        ..Default::default()
    }]
}

/// Polls, and shows each delivery as `subscriber: offset offset*times ...`.
fn poll(tracker: &mut Tracker, ms: u64) -> Vec<String> {
    let mut out = Vec::new();
    tracker.poll(at(ms), &mut out);
    tracker.check();
    let offset = |(offset, times): &(u64, u32)| match times {
        0 => format!(" {offset}"),
        _ => format!(" {offset}*{times}"),
    };
    out.iter()
        .map(|d| format!("{}:{}", d.subscriber.0, d.offsets.iter().map(offset).collect::<String>()))
        .collect()
}

#[test]
fn a_group_shares_evenly_within_credits() {
    let mut tracker = Tracker::new();
    tracker.open(at(0), SubscriberId(1), group_subscription(10, 0), &released(0));
    tracker.open(at(0), SubscriberId(2), group_subscription(2, 0), &released(0));
    assert!(poll(&mut tracker, 0).is_empty());
    tracker.released(T, 0, 3);
    assert_eq!(poll(&mut tracker, 1), ["1: 0 1", "2: 2"]);
    tracker.released(T, 0, 6);
    assert_eq!(poll(&mut tracker, 2), ["2: 3", "1: 4 5"]);
    // 2 has no credit left, and one event a time goes to who has.
    tracker.released(T, 0, 7);
    assert_eq!(poll(&mut tracker, 3), ["1: 6"]);
    tracker.credit(SubscriberId(2), 5);
    tracker.released(T, 0, 8);
    assert_eq!(poll(&mut tracker, 4), ["2: 7"]);
    tracker.released(T, 0, 9);
    assert_eq!(poll(&mut tracker, 5), ["1: 8"]);
}

#[test]
fn what_is_not_acknowledged_comes_again_ever_more_slowly() {
    let mut tracker = Tracker::new();
    tracker.open(at(0), SubscriberId(1), group_subscription(100, 50), &released(1));
    let mut came = Vec::new();
    for ms in 0..1_000 {
        tracker.tick(at(ms));
        for delivery in poll(&mut tracker, ms) {
            came.push(format!("{ms} {delivery}"));
        }
    }
    assert_eq!(came, ["0 1: 0", "50 1: 0*1", "200 1: 0*2", "450 1: 0*3", "900 1: 0*4"]);
}

#[test]
fn a_nack_waits_as_asked_and_only_its_holder_may_give_it() {
    let mut tracker = Tracker::new();
    tracker.open(at(0), SubscriberId(1), group_subscription(1, 0), &released(1));
    tracker.open(at(0), SubscriberId(2), group_subscription(1, 0), &released(1));
    assert_eq!(poll(&mut tracker, 0), ["1: 0"]);
    tracker.nack(at(1), SubscriberId(2), &[(0, 0)], 0, "");
    assert!(poll(&mut tracker, 1).is_empty());
    tracker.nack(at(1), SubscriberId(1), &[(0, 0)], 20, "");
    assert!(poll(&mut tracker, 1).is_empty());
    assert_eq!(tracker.take_commands().len(), 1);
    assert_eq!(tracker.next_deadline(), Some(at(21)));
    tracker.tick(at(21));
    assert_eq!(poll(&mut tracker, 21), ["2: 0*1"]);
}

#[test]
fn a_member_that_leaves_hands_back_and_a_late_ack_of_its_counts() {
    let mut tracker = Tracker::new();
    tracker.open(at(0), SubscriberId(1), group_subscription(2, 0), &released(2));
    assert_eq!(poll(&mut tracker, 0), ["1: 0 1"]);
    tracker.open(at(1), SubscriberId(2), group_subscription(1, 0), &released(2));
    tracker.close(at(1), SubscriberId(1));
    assert_eq!(poll(&mut tracker, 1), ["2: 0*1"]);
    assert_eq!(tracker.ack(SubscriberId(1), &[(0, 0)]), None);
    // 1 comes back under another name and acknowledges what 2 has now, and what nobody has.
    tracker.open(at(2), SubscriberId(3), group_subscription(0, 0), &released(2));
    let ack = |offsets| Command::Ack { topic: T, consumer_group: "g".into(), offsets };
    assert_eq!(
        tracker.ack(SubscriberId(3), &[(0, 1), (0, 0), (0, 0), (0, 9), (7, 0)]),
        Some(ack(vec![(0, 0), (0, 1)]))
    );
    assert_eq!(tracker.ack(SubscriberId(2), &[(0, 0)]), None);
    tracker.credit(SubscriberId(2), 9);
    assert!(poll(&mut tracker, 3).is_empty());
    assert_eq!(tracker.take_commands().len(), 1, "what it left is counted");
    assert_eq!(tracker.next_deadline(), None);
}

#[test]
fn a_group_at_its_span_pauses_and_says_so() {
    let mut tracker = Tracker::with_span(4);
    tracker.open(at(0), SubscriberId(1), group_subscription(100, 0), &released(10));
    assert_eq!(poll(&mut tracker, 0), ["1: 0 1 2 3"]);
    assert_eq!(tracker.paused().collect::<Vec<_>>(), [(T, "g")]);
    tracker.ack(SubscriberId(1), &[(0, 1), (0, 2)]);
    assert!(poll(&mut tracker, 0).is_empty());
    tracker.ack(SubscriberId(1), &[(0, 0)]);
    assert_eq!(poll(&mut tracker, 0), ["1: 4 5 6"]);
    assert_eq!(tracker.paused().count(), 1);
}

#[test]
fn a_new_group_fixes_its_start_and_an_idle_one_is_forgotten() {
    let mut tracker = Tracker::new();
    let subscription = Subscription { start: Start::Latest, ..group_subscription(9, 0) };
    let fresh = |end| vec![PartitionProgress { released: end, ..PartitionProgress::default() }];
    let start =
        |floor| Command::StartGroup { topic: T, consumer_group: "g".into(), floors: vec![(0, floor)] };
    let opened = tracker.open(at(0), SubscriberId(1), subscription.clone(), &fresh(5));
    assert_eq!(opened, Some(start(5)));
    tracker.released(T, 0, 6);
    assert_eq!(poll(&mut tracker, 0), ["1: 5"]);
    tracker.close(at(10), SubscriberId(1));
    // Within the minute it is the same group, whatever the newcomer asks for.
    tracker.tick(at(60_009));
    let opened = tracker.open(at(60_009), SubscriberId(2), subscription.clone(), &fresh(8));
    assert_eq!(opened, Some(start(5)));
    assert_eq!(poll(&mut tracker, 60_009), ["2: 5*1 6 7"]);
    tracker.close(at(60_010), SubscriberId(2));
    tracker.tick(at(120_010));
    assert_eq!((tracker.queues.len(), tracker.groups.len(), tracker.by_topic.len()), (0, 0, 0));
    assert_eq!(tracker.take_commands().len(), 2, "what was left twice is counted");
    assert_eq!(tracker.next_deadline(), None);
}

#[test]
fn one_poll_is_bounded_and_asks_for_the_next_at_once() {
    let mut tracker = Tracker::new();
    let alone = Subscription { consumer_group: None, ..group_subscription(u32::MAX, 0) };
    assert_eq!(tracker.open(at(0), SubscriberId(1), alone, &released(10_000)), None);
    let mut sizes = Vec::new();
    while tracker.next_deadline() == Some(at(3)) || sizes.is_empty() {
        let mut out = Vec::new();
        tracker.poll(at(3), &mut out);
        assert!(out.iter().all(|delivery| delivery.offsets.len() <= DELIVERY_MAX));
        sizes.push(out.iter().map(|delivery| delivery.offsets.len()).sum::<usize>());
    }
    assert_eq!(sizes, [4_096, 4_096, 1_808]);
}

#[test]
fn a_dropped_topic_ends_its_subscriptions_alone() {
    let mut tracker = Tracker::new();
    let other = Subscription { topic: RelationId(17), ..group_subscription(9, 0) };
    tracker.open(at(0), SubscriberId(3), group_subscription(9, 0), &released(2));
    tracker.open(
        at(0),
        SubscriberId(1),
        Subscription { consumer_group: None, ..group_subscription(9, 0) },
        &released(2),
    );
    tracker.open(at(0), SubscriberId(2), other, &released(1));
    poll(&mut tracker, 0);
    assert_eq!(tracker.drop_topic(T), [SubscriberId(1), SubscriberId(3)]);
    tracker.check();
    assert_eq!(tracker.len(), 1);
    assert_eq!(tracker.ack(SubscriberId(3), &[(0, 0)]), None);
}

#[test]
fn an_event_that_fails_too_often_becomes_a_dead_letter_and_holds_up_nothing() {
    let mut tracker = Tracker::new();
    tracker.limit(T, Some(Limit { deliveries: 2, dead: RelationId(17) }));
    tracker.open(at(0), SubscriberId(1), group_subscription(9, 1_000), &released(2));
    assert_eq!(poll(&mut tracker, 0), ["1: 0 1"]);
    tracker.nack(at(1), SubscriberId(1), &[(0, 0)], 0, "no such user");
    let failed = Command::Failed { topic: T, consumer_group: "g".into(), offsets: vec![(0, 0, 1)] };
    assert_eq!(tracker.take_commands(), [failed]);
    assert_eq!(poll(&mut tracker, 1), ["1: 0*1"]);
    tracker.nack(at(2), SubscriberId(1), &[(0, 0)], 0, "no such user");
    let dead = |offset, deliveries, reason: &str| Command::DeadLetter {
        topic: T,
        consumer_group: "g".into(),
        dead: RelationId(17),
        letters: vec![Letter { partition: 0, offset, deliveries, reason: reason.into() }],
    };
    assert_eq!(tracker.take_commands(), [dead(0, 2, "no such user")]);
    assert!(poll(&mut tracker, 2).is_empty());
    tracker.released(T, 0, 3);
    assert_eq!(poll(&mut tracker, 3), ["1: 2"]);
    // The topic for it was dropped, and the limit taken away: it comes again.
    tracker.limit(T, None);
    tracker.kept(T, "g", &[(0, 0), (0, 1)]);
    assert_eq!(poll(&mut tracker, 4), ["1: 0*2"]);
    // With a lower limit it is not handed out once more.
    tracker.limit(T, Some(Limit { deliveries: 1, dead: RelationId(17) }));
    tracker.close(at(5), SubscriberId(1));
    let Some(Command::DeadLetter { letters, .. }) = tracker.take_commands().pop() else { panic!("letters") };
    let expected: Vec<_> = letters.iter().map(|l| (l.offset, l.deliveries, l.reason.as_str())).collect();
    assert_eq!(
        expected,
        [(0, 3, "its consumer left"), (1, 1, "its consumer left"), (2, 1, "its consumer left")]
    );
}

#[test]
fn counts_of_another_life_are_gone_on_from() {
    let mut tracker = Tracker::new();
    tracker.limit(T, Some(Limit { deliveries: 3, dead: RelationId(17) }));
    let stored = ConsumerRecord { floor: 0, done: vec![1] };
    let attempts = Attempts::from([(0, 2), (2, 3)]);
    let progress = PartitionProgress { partition: 0, stored: Some(stored), attempts, released: 4 };
    tracker.open(at(0), SubscriberId(1), group_subscription(9, 10), &[progress]);
    assert_eq!(poll(&mut tracker, 0), ["1: 0*2 3"]);
    let [Command::DeadLetter { letters, .. }] = &tracker.take_commands()[..] else { panic!("a letter") };
    assert_eq!((letters[0].offset, letters[0].deliveries), (2, 3));
    tracker.tick(at(10));
    let [Command::Failed { offsets, .. }, Command::DeadLetter { letters, .. }] = &tracker.take_commands()[..]
    else {
        panic!("both ran out of time")
    };
    assert_eq!(offsets, &[(0, 3, 1)]);
    assert_eq!((letters[0].offset, letters[0].deliveries), (0, 3));
    assert_eq!(letters[0].reason, "not acknowledged in time");
}

/// What the model knows of an event in a group.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Free,
    Out { slot: usize, until: u64 },
    Waiting { until: u64 },
    Dead,
}

#[derive(Clone, Debug, Default)]
struct GroupModel {
    /// How often events were handed out in vain, as the log says.
    attempts: BTreeMap<(u32, u64), u32>,
    /// What became dead letters.
    dead: BTreeSet<(u32, u64)>,
    /// By partition: what the log says, and so what is done.
    stored: BTreeMap<u32, ConsumerRecord>,
    handed: BTreeMap<(u32, u64), (u32, Option<Fate>)>,
}

impl GroupModel {
    fn fate(&self, key: (u32, u64)) -> Fate {
        self.handed.get(&key).and_then(|(_, fate)| *fate).unwrap_or(Fate::Free)
    }
}

#[derive(Clone, Debug)]
enum Member {
    Absent,
    Grouped { group: usize, credit: u32, timeout: u64 },
    Alone { credit: u32, next: BTreeMap<u32, u64> },
}

const SPAN: u64 = 6;
const SLOTS: usize = 5;
const PARTITIONS: u32 = 2;

struct World {
    tracker: Tracker,
    limit: Option<Limit>,
    now: u64,
    ends: BTreeMap<u32, u64>,
    groups: [GroupModel; 2],
    members: Vec<Member>,
    life: u64,
}

#[derive(Clone, Debug)]
enum Do {
    Join { slot: usize, group: usize, start: u8, credit: u32, timeout: u64 },
    Alone { slot: usize, start: u8, credit: u32 },
    Credit { slot: usize, more: u32 },
    Ack { slot: usize, pick: u64 },
    AckAnything { slot: usize, offsets: Vec<(u32, u64)> },
    Nack { slot: usize, pick: u64, delay: u64 },
    Close { slot: usize },
    Release { partition: u32, events: u64 },
    Pass { ms: u64 },
    Restart,
}

fn operation() -> impl Strategy<Value = Do> {
    let slot = 0..SLOTS;
    prop_oneof![
        3 => (slot.clone(), 0..2usize, 0u8..3, 0u32..8, 1u64..100)
            .prop_map(|(slot, group, start, credit, timeout)| Do::Join { slot, group, start, credit, timeout }),
        1 => (slot.clone(), 0u8..3, 0u32..8).prop_map(|(slot, start, credit)| Do::Alone { slot, start, credit }),
        4 => (slot.clone(), 0u32..8).prop_map(|(slot, more)| Do::Credit { slot, more }),
        6 => (slot.clone(), any::<u64>()).prop_map(|(slot, pick)| Do::Ack { slot, pick }),
        1 => (slot.clone(), prop::collection::vec((0..PARTITIONS + 1, 0u64..40), 0..4))
            .prop_map(|(slot, offsets)| Do::AckAnything { slot, offsets }),
        2 => (slot.clone(), any::<u64>(), 0u64..200).prop_map(|(slot, pick, delay)| Do::Nack { slot, pick, delay }),
        2 => slot.prop_map(|slot| Do::Close { slot }),
        5 => (0..PARTITIONS, 1u64..6).prop_map(|(partition, events)| Do::Release { partition, events }),
        6 => (0u64..80).prop_map(|ms| Do::Pass { ms }),
        1 => Just(Do::Restart),
    ]
}

impl World {
    fn new(limit: Option<u32>) -> World {
        let limit = limit.map(|deliveries| Limit { deliveries, dead: RelationId(17) });
        let mut tracker = Tracker::with_span(SPAN);
        tracker.limit(T, limit);
        World {
            tracker,
            limit,
            now: 0,
            ends: (0..PARTITIONS).map(|partition| (partition, 0)).collect(),
            groups: Default::default(),
            members: vec![Member::Absent; SLOTS],
            life: 0,
        }
    }

    fn id(&self, slot: usize) -> SubscriberId {
        SubscriberId(self.life * SLOTS as u64 + slot as u64)
    }

    /// Lives of the tracker share a log: what it proposes is applied at once.
    fn apply(&mut self, group: usize, command: Option<Command>) {
        match command {
            Some(Command::StartGroup { floors, .. }) => {
                for (partition, floor) in floors {
                    let fresh = ConsumerRecord { floor, done: Vec::new() };
                    self.groups[group].stored.entry(partition).or_insert(fresh);
                }
            }
            Some(Command::Ack { topic, consumer_group, offsets }) => {
                assert_eq!(consumer_group, format!("g{group}"));
                for (partition, offset) in &offsets {
                    let record = self.groups[group].stored.get_mut(partition).unwrap();
                    assert!(!record.is_done(*offset), "{offset} was acknowledged before");
                    record.ack(&[*offset]);
                    self.groups[group].handed.remove(&(*partition, *offset));
                }
                self.tracker.acked(topic, &consumer_group, &offsets);
            }
            Some(Command::Failed { offsets, .. }) => {
                for (partition, offset, times) in offsets {
                    let model = &mut self.groups[group];
                    assert_eq!(model.handed[&(partition, offset)].0, times);
                    model.attempts.insert((partition, offset), times);
                }
            }
            Some(Command::DeadLetter { topic, consumer_group, dead, letters }) => {
                let limit = self.limit.expect("nothing dies without a limit");
                assert_eq!(dead, limit.dead);
                for letter in letters {
                    let key = (letter.partition, letter.offset);
                    let model = &mut self.groups[group];
                    assert_eq!(model.fate(key), Fate::Dead);
                    assert_eq!(letter.deliveries, limit.deliveries);
                    model.stored.get_mut(&key.0).unwrap().ack(&[key.1]);
                    model.handed.remove(&key);
                    assert!(model.dead.insert(key), "{key:?} dies twice");
                    self.tracker.acked(topic, &consumer_group, &[key]);
                }
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }

    /// What it came to that events were handed out in vain.
    fn log(&mut self) {
        for command in self.tracker.take_commands() {
            let (Command::Failed { consumer_group, .. } | Command::DeadLetter { consumer_group, .. }) =
                &command
            else {
                panic!("{command:?}")
            };
            let group = if consumer_group == "g0" { 0 } else { 1 };
            self.apply(group, Some(command));
        }
        for group in &self.groups {
            assert!(
                group.handed.values().all(|(_, fate)| *fate != Some(Fate::Dead)),
                "a letter was not written"
            );
        }
    }

    fn fails(limit: Option<Limit>, times: u32, otherwise: Fate) -> Fate {
        match limit {
            Some(limit) if times >= limit.deliveries => Fate::Dead,
            _ => otherwise,
        }
    }

    fn leave(&mut self, slot: usize) {
        for group in &mut self.groups {
            for (times, fate) in group.handed.values_mut() {
                if matches!(fate, Some(Fate::Out { slot: holder, .. }) if *holder == slot) {
                    *fate = Some(Self::fails(self.limit, *times, Fate::Free));
                }
            }
        }
        self.members[slot] = Member::Absent;
    }

    fn open(&mut self, slot: usize, group: Option<usize>, start: u8, credit: u32, timeout: u64) {
        self.leave(slot);
        let start = [Start::Earliest, Start::Latest, Start::Offset(3)][usize::from(start)];
        let stored =
            |partition: &u32| group.and_then(|group| self.groups[group].stored.get(partition).cloned());
        let progress = |(partition, end): (&u32, &u64)| PartitionProgress {
            partition: *partition,
            stored: stored(partition),
            attempts: group.map_or_else(Attempts::new, |group| {
                let of = self.groups[group].attempts.iter().filter(|((p, _), _)| p == partition);
                of.map(|((_, offset), times)| (*offset, *times)).collect()
            }),
            released: *end,
        };
        let partitions: Vec<_> = self.ends.iter().map(progress).collect();
        let subscription = Subscription {
            topic: T,
            partitions: Vec::new(),
            consumer_group: group.map(|group| format!("g{group}")),
            start,
            credit,
            ack_timeout_ms: timeout,
        };
        let command = self.tracker.open(at(self.now), self.id(slot), subscription, &partitions);
        self.log();
        self.members[slot] = match group {
            Some(group) => Member::Grouped { group, credit, timeout },
            None => {
                let next = partitions.iter().map(|p| (p.partition, p.begin(start))).collect();
                Member::Alone { credit, next }
            }
        };
        match group {
            Some(group) => self.apply(group, command),
            None => assert_eq!(command, None),
        }
    }

    /// Some of what a member of a group holds, or has lost since.
    fn pick(&self, slot: usize, pick: u64) -> Option<(usize, Vec<(u32, u64)>)> {
        let Member::Grouped { group, .. } = self.members[slot] else { return None };
        let chosen = self.groups[group].handed.keys().enumerate().filter(|(n, _)| pick >> (n % 64) & 1 == 1);
        Some((group, chosen.map(|(_, key)| *key).collect()))
    }

    fn run(&mut self, operation: Do) {
        let now = at(self.now);
        match operation {
            Do::Join { slot, group, start, credit, timeout } => {
                self.open(slot, Some(group), start, credit, timeout)
            }
            Do::Alone { slot, start, credit } => self.open(slot, None, start, credit, 0),
            Do::Credit { slot, more } => {
                self.tracker.credit(self.id(slot), more);
                if let Member::Grouped { credit, .. } | Member::Alone { credit, .. } = &mut self.members[slot]
                {
                    *credit += more;
                }
            }
            Do::Ack { slot, pick } => {
                let Some((group, offsets)) = self.pick(slot, pick) else { return };
                let command = self.tracker.ack(self.id(slot), &offsets);
                assert_eq!(command.is_some(), !offsets.is_empty());
                self.apply(group, command);
                assert!(offsets.iter().all(|(p, o)| self.groups[group].stored[p].is_done(*o)));
            }
            Do::AckAnything { slot, offsets } => {
                let command = self.tracker.ack(self.id(slot), &offsets);
                match self.members[slot] {
                    Member::Grouped { group, .. } => self.apply(group, command),
                    _ => assert_eq!(command, None),
                }
            }
            Do::Nack { slot, pick, delay } => {
                let Some((group, offsets)) = self.pick(slot, pick) else { return };
                self.tracker.nack(now, self.id(slot), &offsets, delay, "");
                for key in offsets {
                    let Some((times, fate)) = self.groups[group].handed.get_mut(&key) else { continue };
                    if matches!(fate, Some(Fate::Out { slot: holder, .. }) if *holder == slot) {
                        let waits = Fate::Waiting { until: self.now + delay.max(backoff_ms(*times)) };
                        *fate = Some(Self::fails(self.limit, *times, waits));
                    }
                }
                self.log();
                self.pass(0);
            }
            Do::Close { slot } => {
                self.tracker.close(now, self.id(slot));
                self.leave(slot);
                self.log();
            }
            Do::Release { partition, events } => {
                let end = self.ends.get_mut(&partition).unwrap();
                *end += events;
                self.tracker.released(T, partition, *end);
            }
            Do::Pass { ms } => self.pass(ms),
            Do::Restart => {
                self.tracker = Tracker::with_span(SPAN);
                self.tracker.limit(T, self.limit);
                self.life += 1;
                self.members = vec![Member::Absent; SLOTS];
                self.groups.iter_mut().for_each(|group| group.handed.clear());
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        for group in &mut self.groups {
            for (times, fate) in group.handed.values_mut() {
                match fate {
                    Some(Fate::Waiting { until }) if *until <= self.now => *fate = Some(Fate::Free),
                    Some(Fate::Out { until, .. }) if *until <= self.now => {
                        let wait = backoff_ms(*times);
                        let until = self.now + wait;
                        let waits = if wait == 0 { Fate::Free } else { Fate::Waiting { until } };
                        *fate = Some(Self::fails(self.limit, *times, waits));
                    }
                    _ => {}
                }
            }
        }
        self.tracker.tick(at(self.now));
        self.log();
    }

    /// Takes what is handed out, and checks each of it and that nothing more could be.
    fn drain(&mut self) {
        let mut out = Vec::new();
        self.tracker.poll(at(self.now), &mut out);
        self.tracker.check();
        for delivery in out {
            let slot = (delivery.subscriber.0 % SLOTS as u64) as usize;
            assert_eq!(delivery.subscriber, self.id(slot), "a delivery to the dead");
            assert!(delivery.offsets.is_sorted_by(|a, b| a.0 < b.0));
            let partition = delivery.partition;
            for (offset, times) in delivery.offsets {
                assert!(offset < self.ends[&partition], "{offset} is not released");
                match &mut self.members[slot] {
                    Member::Absent => panic!("a delivery to nobody"),
                    Member::Alone { credit, next } => {
                        *credit = credit.checked_sub(1).expect("credit");
                        assert_eq!((offset, times), (next[&partition], 0));
                        *next.get_mut(&partition).unwrap() += 1;
                    }
                    Member::Grouped { group, credit, timeout } => {
                        *credit = credit.checked_sub(1).expect("credit");
                        let group = &mut self.groups[*group];
                        let record = &group.stored[&partition];
                        assert!(!record.is_done(offset), "{offset} was acknowledged");
                        assert!(offset < record.floor + SPAN, "{offset} is beyond the span");
                        assert_eq!(group.fate((partition, offset)), Fate::Free, "{offset} at {}", self.now);
                        let before = group.attempts.get(&(partition, offset)).copied().unwrap_or(0);
                        let handed = group.handed.entry((partition, offset)).or_insert((before, None));
                        assert_eq!(times, handed.0);
                        *handed = (times + 1, Some(Fate::Out { slot, until: self.now + *timeout }));
                    }
                }
            }
        }
        for member in &self.members {
            match member {
                Member::Alone { credit, next } if *credit > 0 => {
                    assert!(next.iter().all(|(partition, next)| *next >= self.ends[partition]));
                }
                Member::Grouped { group, credit, .. } if *credit > 0 => {
                    let group = &self.groups[*group];
                    for (partition, record) in &group.stored {
                        for offset in record.floor..self.ends[partition].min(record.floor + SPAN) {
                            let free = group.fate((*partition, offset)) == Fate::Free;
                            assert!(record.is_done(offset) || !free, "{offset} lies about");
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn backoff_ms(times: u32) -> u64 {
    [0, 0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600]
        .get(times as usize)
        .copied()
        .unwrap_or(30_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn every_event_reaches_a_member_until_it_is_acknowledged_and_then_no_more(
        limit in prop::option::of(1u32..4),
        operations in prop::collection::vec(operation(), 1..150)
    ) {
        let mut world = World::new(limit);
        for operation in operations {
            world.run(operation);
            world.drain();
        }
        // Liveness: members that acknowledge what they get see everything through.
        for group in 0..2 {
            world.run(Do::Join { slot: group, group, start: 0, credit: 1_000, timeout: 50 });
        }
        for _ in 0..200 {
            world.drain();
            for slot in 0..2 {
                world.run(Do::Ack { slot, pick: u64::MAX });
            }
            world.run(Do::Pass { ms: 1_000 });
        }
        for group in &world.groups {
            for (partition, record) in &group.stored {
                prop_assert!(record.floor >= world.ends[partition] && record.done.is_empty(), "{:?}", record);
            }
        }
    }
}

#[test]
fn members_are_handed_the_partitions_that_they_asked_for() {
    let mut tracker = Tracker::new();
    let all: Vec<PartitionProgress> =
        (0..2).map(|partition| PartitionProgress { partition, released: 3, ..Default::default() }).collect();
    for (id, partitions) in [(0, vec![0]), (1, vec![1]), (2, Vec::new())] {
        let wants = |p: &&PartitionProgress| partitions.is_empty() || partitions.contains(&p.partition);
        let asked: Vec<PartitionProgress> = all.iter().filter(wants).cloned().collect();
        let subscription =
            Subscription { partitions, ..group_subscription(if id == 2 { 0 } else { 1 }, 1_000) };
        tracker.open(at(0), SubscriberId(id), subscription, &asked);
    }
    let mut taken = BTreeSet::new();
    for round in 0..3 {
        let mut out = Vec::new();
        tracker.poll(at(round), &mut out);
        for delivery in out {
            assert_eq!(u64::from(delivery.partition), delivery.subscriber.0);
            taken.extend(delivery.offsets.iter().map(|(offset, _)| (delivery.partition, *offset)));
            tracker.credit(delivery.subscriber, 1);
        }
    }
    assert_eq!(taken.len(), 6, "each gets all of its own, although the other is in turn: {taken:?}");
    tracker.check();
}
