//! The leader's memory of recent writes, and the check of a transaction's reads against it.
//!
//! The window holds the keys written last, with their log positions. It is bounded: what falls out of it raises the
//! floor, and a transaction that read below the floor is refused, since nobody can tell any more. It is not
//! replicated: a new leader begins with an empty window whose floor is its own term's first entry.
//!
//! Every row of a bulk insert passes through here twice, as a point that was read and as a key that is written, so
//! both cost one probe of a hash table. Two keys of one 64-bit hash would be a conflict too many, which is harmless.
//! Ranges are held against the writes since the read, which are few unless the transaction is old.

use super::{Refused, Transaction};
use crate::bugs::{self, Bug};
use crate::state::apply::REDRIVER;
use crate::state::keys::{self, KeyRange};
use bytes::Bytes;
use chronos_proto::command::{Command, Work};
use chronos_proto::{Index, Op, codec};
use serde::{Deserialize, Serialize};

/// The window's bytes for each key of its capacity: few long keys count as many.
const BYTES_PER_KEY: usize = 64;

/// A bounded window of recent writes, in two halves: when the newer is full it becomes the older, which is forgotten.
///
/// Invariant: every key written at an index above `floor` is in one of the halves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resolver {
    capacity_keys: usize,
    floor: Index,
    older: Half,
    newer: Half,
}

/// Writes in log order, and the last index that wrote each key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Half {
    writes: Vec<(Index, Bytes)>,
    bytes: usize,
    latest: Table,
}

impl Resolver {
    /// An empty window for about so many keys.
    pub fn new(capacity_keys: usize) -> Resolver {
        Resolver { capacity_keys, floor: Index(0), older: Half::default(), newer: Half::default() }
    }

    /// Forgets all: transactions that read below `floor` are refused from now on. A new leader gives the index of
    /// its term's first entry.
    pub fn reset(&mut self, floor: Index) {
        *self = Resolver { floor, ..Resolver::new(self.capacity_keys) };
    }

    /// Transactions that read below this index are refused.
    pub fn floor(&self) -> Index {
        self.floor
    }

    /// Whether nothing that the transaction read was written since. One that read nothing always passes.
    pub fn check(&self, transaction: &Transaction) -> Result<(), Refused> {
        let read_index = transaction.read_index;
        if transaction.reads.is_empty() {
            return Ok(());
        }
        if read_index < self.floor {
            return Err(Refused::Conflict);
        }
        if self.last() <= read_index {
            return Ok(());
        }
        let (points, ranges): (Vec<&KeyRange>, Vec<&KeyRange>) =
            transaction.reads.iter().partition(|range| range.is_point());
        let stale = |key: &[u8]| {
            let hash = hash(key);
            self.newer.latest.get(hash) > read_index || self.older.latest.get(hash) > read_index
        };
        let points = if bugs::active(Bug::PointsUnchecked) { Vec::new() } else { points };
        if points.into_iter().any(|point| stale(&point.start)) || self.written_since(ranges, read_index) {
            return Err(Refused::Conflict);
        }
        Ok(())
    }

    /// Whether a write after `read_index` lies in one of the ranges.
    fn written_since(&self, mut ranges: Vec<&KeyRange>, read_index: Index) -> bool {
        if ranges.is_empty() {
            return false;
        }
        ranges.sort_unstable();
        // Disjoint, so that a search finds the only one that can hold a key.
        let mut disjoint: Vec<(&[u8], &[u8])> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match disjoint.last_mut() {
                Some((_, end)) if range.start[..] <= **end => *end = (*end).max(&range.end[..]),
                _ => disjoint.push((&range.start[..], &range.end[..])),
            }
        }
        let inside = |key: &[u8]| {
            let behind = disjoint.partition_point(|(start, _)| *start <= key);
            behind > 0 && key < disjoint[behind - 1].1
        };
        let mut since = self.older.since(read_index).iter().chain(self.newer.since(read_index));
        if bugs::active(Bug::NewestWriteOnly) {
            return since.next_back().is_some_and(|(_, key)| inside(key));
        }
        since.any(|(_, key)| inside(key))
    }

    /// Notes the keys that the entry at `index` writes, as it is appended. Indexes never go back.
    pub fn record(&mut self, index: Index, keys: impl IntoIterator<Item = Bytes>) {
        let last = self.last();
        assert!(index >= last, "writes were recorded at {last} and now at {index}");
        for key in keys {
            if self.newer.writes.len() >= self.capacity_keys / 2
                || self.newer.bytes >= self.capacity_keys / 2 * BYTES_PER_KEY
            {
                self.floor = self.floor.max(self.older.last());
                std::mem::swap(&mut self.older, &mut self.newer);
                self.newer.clear();
            }
            self.newer.push(index, key);
        }
    }

    fn last(&self) -> Index {
        self.floor.max(self.older.last()).max(self.newer.last())
    }
}

impl Half {
    fn last(&self) -> Index {
        self.writes.last().map_or(Index(0), |(index, _)| *index)
    }

    fn since(&self, read_index: Index) -> &[(Index, Bytes)] {
        &self.writes[self.writes.partition_point(|(index, _)| *index <= read_index)..]
    }

    fn push(&mut self, index: Index, key: Bytes) {
        self.latest.put(hash(&key), index);
        self.bytes += key.len();
        self.writes.push((index, key));
    }

    fn clear(&mut self) {
        self.writes.clear();
        self.bytes = 0;
        self.latest.clear();
    }
}

fn hash(key: &[u8]) -> u64 {
    codec::keyed_hash(0, key) as u64
}

/// Hashes and the last index of each: open addressing, at most half full. Index 0 stands for an empty slot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Table {
    slots: Vec<(u64, Index)>,
    used: usize,
}

impl Table {
    const LEAST_SLOTS: usize = 64;

    fn get(&self, hash: u64) -> Index {
        if self.slots.is_empty() { Index(0) } else { self.slots[self.slot(hash)].1 }
    }

    fn put(&mut self, hash: u64, index: Index) {
        if self.used * 2 >= self.slots.len() {
            let larger = vec![(0, Index(0)); (self.slots.len() * 2).max(Self::LEAST_SLOTS)];
            for (hash, index) in std::mem::replace(&mut self.slots, larger) {
                let slot = self.slot(hash);
                if index > Index(0) {
                    self.slots[slot] = (hash, index);
                }
            }
        }
        let slot = self.slot(hash);
        self.used += usize::from(self.slots[slot].1 == Index(0));
        self.slots[slot] = (hash, index);
    }

    /// The slot of a hash, or the empty one where it belongs.
    fn slot(&self, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot].1 > Index(0) && self.slots[slot].0 != hash {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn clear(&mut self) {
        self.slots.fill((0, Index(0)));
        self.used = 0;
    }
}

/// Appends the state keys that stand for what an operation writes; see [the table](super).
pub fn written_keys(op: &Op, out: &mut Vec<Bytes>) {
    match op {
        Op::PutRow { relation, key, indexes, .. } | Op::DeleteRow { relation, key, indexes, .. } => {
            out.push(keys::row(*relation, key));
            out.extend(indexes.iter().map(|change| keys::index_entry(*relation, change.index, &change.key)));
        }
        Op::AppendRow { relation, indexes, .. } => {
            out.push(keys::rowid(*relation));
            out.extend(indexes.iter().map(|(index, columns)| keys::index_entry(*relation, *index, columns)));
        }
        Op::Publish { topic, partition, .. } => out.push(keys::partition(*topic, *partition)),
        // One that is due already may be published at once.
        Op::Schedule { topic, partition, timer_id, .. } => {
            out.push(keys::timer(*topic, timer_id));
            out.push(keys::partition(*topic, *partition));
        }
        Op::Reschedule { topic, timer_id, .. } | Op::Cancel { topic, timer_id, .. } => {
            out.push(keys::timer(*topic, timer_id));
        }
        Op::PutRelation(relation) => out.push(keys::catalog(relation.id)),
        Op::DropRelation(relation) => out.push(keys::catalog(*relation)),
        Op::Trigger { schedule, topic } => {
            out.push(keys::schedule(*schedule));
            out.extend(topic.map(|topic| keys::partition(topic, 0)));
        }
        Op::Ran { schedule, occurrence, .. } => {
            out.push(keys::schedule(*schedule));
            if !bugs::active(Bug::RunAgain) {
                out.push(keys::running(*schedule, *occurrence));
            }
        }
        Op::Redrive { dead, partition, source, .. } => {
            out.push(keys::partition(*source, *partition));
            out.push(keys::consumer(*dead, REDRIVER, *partition));
        }
    }
}

/// Appends the state keys that stand for what a command writes.
pub fn command_keys(command: &Command, out: &mut Vec<Bytes>) {
    match command {
        Command::Batch { ops, .. } => ops.iter().for_each(|op| written_keys(op, out)),
        Command::Fire { timers } => {
            let mut last = None;
            for timer in timers {
                out.push(keys::timer(timer.topic, &timer.timer_id));
                let target = (timer.topic, timer.partition);
                if last.replace(target) != Some(target) {
                    out.push(keys::partition(target.0, target.1));
                }
            }
        }
        Command::Work(Work::PublishIndex { relation, .. }) => out.push(keys::catalog(*relation)),
        Command::Ack { topic, consumer_group, offsets }
        | Command::StartGroup { topic, consumer_group, floors: offsets } => {
            let mut last = None;
            for (partition, _) in offsets {
                if last.replace(*partition) != Some(*partition) {
                    out.push(keys::consumer(*topic, consumer_group, *partition));
                }
            }
        }
        Command::DeadLetter { topic, consumer_group, dead, letters } => {
            for letter in letters {
                out.push(keys::consumer(*topic, consumer_group, letter.partition));
                out.push(keys::partition(*dead, letter.partition));
            }
        }
        Command::Deliver { ops, .. } => ops.iter().for_each(|op| written_keys(op, out)),
        // The topic's events are its partition 0's, unless they go to other groups.
        Command::Occur(turns) => {
            for turn in turns {
                out.push(keys::schedule(turn.schedule));
                out.extend(turn.topic.map(|topic| keys::partition(topic, 0)));
            }
        }
        // They write nothing that a transaction can read.
        Command::Failed { .. }
        | Command::Noop
        | Command::AdvanceTime
        | Command::TimeEpoch(_)
        | Command::Membership(_)
        | Command::PutMember(_)
        | Command::DropMember(_)
        | Command::Delivered { .. } => {}
        // Who saw a row as not expired goes on with that; who wants to write where it stood begins anew.
        Command::Work(Work::ExpireRows { relation, keys: rows }) => {
            out.extend(rows.iter().map(|key| keys::row(*relation, key)));
        }
        Command::Work(Work::Backfill { .. } | Work::Purge { .. } | Work::Expire { .. }) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_proto::command::{IndexChange, TimerRef};
    use chronos_proto::{IndexId, RelationId};
    use proptest::prelude::*;

    const T: RelationId = RelationId(16);

    fn key(n: u8) -> Bytes {
        keys::row(T, &[n / 8, n % 8])
    }

    fn range(a: u8, b: u8) -> KeyRange {
        if a == b { KeyRange::point(key(a)) } else { KeyRange { start: key(a), end: key(b) } }
    }

    fn reading(read_index: u64, reads: Vec<KeyRange>) -> Transaction {
        Transaction { read_index: Index(read_index), reads, ..Transaction::default() }
    }

    fn step() -> impl Strategy<Value = (Vec<u8>, u64, Vec<(u8, u8)>, bool)> {
        let writes = prop::collection::vec(0u8..64, 0..4);
        let reads = prop::collection::vec((0u8..64, 0u8..64), 0..4);
        (writes, 0u64..30, reads, prop::bool::weighted(0.02))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn refuses_exactly_what_a_full_history_refuses_or_the_floor(
            capacity in prop_oneof![0usize..60, 60usize..300],
            steps in prop::collection::vec(step(), 1..80),
        ) {
            let mut resolver = Resolver::new(capacity);
            let mut history: Vec<(u64, Bytes)> = Vec::new();
            let mut given_floor = 0;
            for (at, (writes, age, reads, reset)) in (1u64..).zip(steps) {
                if reset {
                    resolver.reset(Index(at));
                    given_floor = at;
                    prop_assert_eq!(resolver.check(&reading(at - 1, vec![range(0, 0)])), Err(Refused::Conflict));
                }
                resolver.record(Index(at), writes.iter().map(|n| key(*n)));
                history.extend(writes.iter().map(|n| (at, key(*n))));

                let read_index = at.saturating_sub(age);
                let reads: Vec<KeyRange> = reads.into_iter().map(|(a, b)| range(a, b)).collect();
                let stale = |(index, key): &(u64, Bytes)| *index > read_index && reads.iter().any(|r| r.contains(key));
                let truth = history.iter().any(stale);
                let refused = resolver.check(&reading(read_index, reads.clone())).is_err();
                let below = read_index < resolver.floor().0 && !reads.is_empty();
                prop_assert_eq!(refused, truth || below);

                // Bounded, and the floor rises no further than half the bound asks.
                let held = resolver.older.writes.len() + resolver.newer.writes.len();
                prop_assert!(held <= capacity.max(2));
                let kept = history.iter().filter(|(index, _)| Index(*index) >= resolver.floor()).count();
                prop_assert!(resolver.floor() == Index(given_floor) || kept > capacity / 2);
            }
        }
    }

    #[test]
    fn a_table_of_many_hashes_finds_each() {
        let mut table = Table::default();
        assert_eq!(table.get(7), Index(0));
        // Hashes that crowd the same slots, among them 0.
        let hashes = || (0..5_000u64).map(|n| (n % 7) | (n << 40));
        for (index, hash) in (1..).zip(hashes()) {
            table.put(hash, Index(index));
            table.put(hash, Index(index + 1));
        }
        assert!((1..).zip(hashes()).all(|(index, hash)| table.get(hash) == Index(index + 1)));
        assert_eq!(table.get(u64::MAX), Index(0));
        table.clear();
        assert!(hashes().all(|hash| table.get(hash) == Index(0)));
    }

    #[test]
    fn long_keys_fill_the_window_too() {
        let mut resolver = Resolver::new(100);
        for index in 1..=200 {
            resolver.record(Index(index), [Bytes::from(vec![index as u8; 640])]);
        }
        assert!(resolver.older.writes.len() + resolver.newer.writes.len() <= 12);
        assert!((Index(188)..=Index(195)).contains(&resolver.floor()), "{}", resolver.floor());
    }

    #[test]
    #[should_panic(expected = "writes were recorded at 5 and now at 4")]
    fn indexes_never_go_back() {
        let mut resolver = Resolver::new(10);
        resolver.record(Index(5), [key(1)]);
        resolver.record(Index(4), [key(2)]);
    }

    /// Commits `op` behind a reader of `reads` and tells whether the reader conflicts.
    fn conflicts(reads: KeyRange, op: Op) -> bool {
        let mut resolver = Resolver::new(100);
        let mut out = Vec::new();
        written_keys(&op, &mut out);
        resolver.record(Index(1), out);
        resolver.check(&reading(0, vec![reads])).is_err()
    }

    fn columns(value: i64) -> Vec<u8> {
        keys::rowid_primary_key(value)
    }

    #[test]
    fn an_append_meets_scans_and_index_ranges_but_not_the_catalogue() {
        let index = IndexId(1);
        let append =
            Op::AppendRow { relation: T, row: Bytes::new(), indexes: vec![(index, columns(7).into())] };
        let index_range = |from: i64, to: i64| KeyRange {
            start: keys::index_entry(T, index, &columns(from)),
            end: keys::index_entry(T, index, &columns(to)),
        };
        assert!(conflicts(KeyRange::point(keys::rowid(T)), append.clone()));
        assert!(conflicts(KeyRange::prefix(&keys::index_entry(T, index, &columns(7))), append.clone()));
        assert!(conflicts(index_range(5, 8), append.clone()));
        assert!(!conflicts(index_range(5, 7), append.clone()));
        assert!(!conflicts(index_range(8, 9), append.clone()));
        assert!(!conflicts(KeyRange::point(keys::catalog(T)), append));
    }

    #[test]
    fn a_put_meets_readers_of_its_row_and_of_its_index_entries() {
        let entry = Bytes::from([columns(7), columns(1)].concat());
        let put = Op::PutRow {
            relation: T,
            key: columns(1).into(),
            row: Bytes::new(),
            replaces: 0,
            indexes: vec![IndexChange { index: IndexId(1), key: entry, present: true }],
        };
        assert!(conflicts(KeyRange::point(keys::row(T, &columns(1))), put.clone()));
        assert!(conflicts(keys::rows(T), put.clone()));
        assert!(conflicts(KeyRange::prefix(&keys::index_entry(T, IndexId(1), &columns(7))), put.clone()));
        assert!(!conflicts(KeyRange::prefix(&keys::index_entry(T, IndexId(1), &columns(8))), put.clone()));
        assert!(!conflicts(KeyRange::point(keys::row(T, &columns(2))), put));
    }

    #[test]
    fn timers_and_topics_meet_their_readers() {
        let cancel = Op::Cancel { topic: T, timer_id: "a".into(), if_version: None };
        assert!(conflicts(KeyRange::point(keys::timer(T, "a")), cancel.clone()));
        assert!(!conflicts(KeyRange::point(keys::timer(T, "b")), cancel.clone()));
        assert!(conflicts(keys::timers(T), cancel));

        let timers = ["a", "b"].map(|id| TimerRef {
            due: chronos_proto::Timestamp(5),
            sequence: 1,
            topic: T,
            partition: 3,
            timer_id: id.into(),
        });
        let mut out = Vec::new();
        command_keys(&Command::Fire { timers: timers.into() }, &mut out);
        assert_eq!(out, [keys::timer(T, "a"), keys::partition(T, 3), keys::timer(T, "b")]);
    }

    #[test]
    fn an_index_becoming_public_meets_all_who_use_its_table() {
        let written = |work| {
            let mut out = Vec::new();
            command_keys(&Command::Work(work), &mut out);
            out
        };
        assert_eq!(written(Work::PublishIndex { relation: T, index: IndexId(1) }), [keys::catalog(T)]);
        assert!(keys::catalog_all().contains(&keys::catalog(T)));
        assert!(written(Work::Backfill { relation: T, index: IndexId(1), limit: 10 }).is_empty());
    }
}
