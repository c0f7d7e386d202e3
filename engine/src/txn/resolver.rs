//! The leader's memory of recent writes, and the check of a transaction's reads against it.
//!
//! The window holds the keys written last, with their log positions. It is bounded: what falls out of it raises the
//! floor, and a transaction that read below the floor is refused, since nobody can tell any more. It is not
//! replicated: a new leader begins with an empty window whose floor is its own term's first entry.

use super::{Refused, Transaction};
use crate::state::keys::{self, KeyRange};
use bytes::Bytes;
use chronos_proto::command::{Command, Work};
use chronos_proto::{Index, Op};
use std::collections::{BTreeMap, VecDeque};

/// The window's bytes for each key of its capacity: few long keys count as many.
const BYTES_PER_KEY: usize = 64;

/// A bounded window of recent writes.
///
/// Invariant: every key written at an index above `floor` is in `latest` with its last such index.
#[derive(Clone, Debug)]
pub struct Resolver {
    capacity_keys: usize,
    floor: Index,
    /// Writes in log order.
    writes: VecDeque<(Index, Bytes)>,
    latest: BTreeMap<Bytes, Index>,
    bytes: usize,
}

impl Resolver {
    /// An empty window for about so many keys.
    pub fn new(capacity_keys: usize) -> Resolver {
        Resolver {
            capacity_keys,
            floor: Index(0),
            writes: VecDeque::new(),
            latest: BTreeMap::new(),
            bytes: 0,
        }
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
        let seen = self.writes.partition_point(|(index, _)| *index <= read_index);
        if seen == self.writes.len() {
            return Ok(());
        }
        let stale = |range: &KeyRange| {
            if range.is_point() {
                self.latest.get(&range.start).is_some_and(|index| *index > read_index)
            } else {
                self.written_since(range, read_index, seen)
            }
        };
        if transaction.reads.iter().any(stale) { Err(Refused::Conflict) } else { Ok(()) }
    }

    /// Looks through the writes since the read and through the keys of the range in step: the shorter one decides.
    fn written_since(&self, range: &KeyRange, read_index: Index, seen: usize) -> bool {
        if range.start >= range.end {
            return false;
        }
        let since = self.writes.range(seen..).map(|(_, key)| range.contains(key));
        let inside = self.latest.range::<[u8], _>(range.bounds()).map(|(_, index)| *index > read_index);
        since.zip(inside).any(|(a, b)| a || b)
    }

    /// Notes the keys that the entry at `index` writes, as it is appended. Indexes never go back.
    pub fn record(&mut self, index: Index, keys: impl IntoIterator<Item = Bytes>) {
        let last = self.writes.back().map_or(self.floor, |(last, _)| *last);
        assert!(index >= last, "writes were recorded at {last} and now at {index}");
        for key in keys {
            self.bytes += key.len();
            self.latest.insert(key.clone(), index);
            self.writes.push_back((index, key));
            if self.writes.len() > self.capacity_keys || self.bytes > self.capacity_keys * BYTES_PER_KEY {
                self.evict();
            }
        }
    }

    /// Drops the oldest entry's writes, and raises the floor to it.
    fn evict(&mut self) {
        let Some((oldest, _)) = self.writes.front() else { return };
        self.floor = *oldest;
        let gone = self.writes.partition_point(|(index, _)| *index <= self.floor);
        for (_, key) in self.writes.drain(..gone) {
            self.bytes -= key.len();
            if self.latest.get(&key).is_some_and(|index| *index <= self.floor) {
                self.latest.remove(&key);
            }
        }
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
        // They write nothing that a transaction can read.
        Command::Noop | Command::AdvanceTime | Command::TimeEpoch(_) => {}
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
            capacity in 0usize..60,
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

                // Bounded, and the floor rises no further than the bound asks.
                prop_assert!(resolver.writes.len() <= capacity && resolver.latest.len() <= resolver.writes.len());
                let kept = history.iter().filter(|(index, _)| Index(*index) >= resolver.floor()).count();
                prop_assert!(resolver.floor() == Index(given_floor) || kept > capacity);
            }
        }
    }

    #[test]
    fn long_keys_fill_the_window_too() {
        let mut resolver = Resolver::new(100);
        for index in 1..=200 {
            resolver.record(Index(index), [Bytes::from(vec![index as u8; 640])]);
        }
        assert_eq!(resolver.writes.len(), 10);
        assert_eq!(resolver.floor(), Index(190));
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
