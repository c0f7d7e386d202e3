//! The wheel: levels over a slab, and a present that only moves forward.

use super::level::{LEVELS, Level, digit, level_of, slot_start};
use super::slab::{Entry, Handle, List, Slab};
use crate::bugs::{self, Bug};
use serde::{Deserialize, Serialize};

/// A timing wheel with ticks of 1 ms over items `T`, ordered within a millisecond by `S`.
///
/// Invariant: an entry with `due_ms > present` is at the level and slot that the two give; the others are in
/// `overdue`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wheel<T, S = u64> {
    present_ms: u64,
    levels: Box<[Level; LEVELS]>,
    overdue: List,
    slab: Slab<T, S>,
}

impl<T, S: Ord + Copy> Wheel<T, S> {
    /// An empty wheel whose present is `now_ms`.
    pub fn new(now_ms: u64) -> Wheel<T, S> {
        Wheel {
            present_ms: now_ms,
            levels: Box::new([Level::EMPTY; LEVELS]),
            overdue: List::EMPTY,
            slab: Slab::new(),
        }
    }

    /// The time it was last advanced to, in milliseconds.
    pub fn present_ms(&self) -> u64 {
        self.present_ms
    }

    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an entry; one due at or before the present comes with the next `advance`. `sequence` orders entries that
    /// are due in the same millisecond.
    pub fn insert(&mut self, due_ms: u64, sequence: S, item: T) -> Handle {
        let list = place(&mut self.levels, &mut self.overdue, self.present_ms, due_ms);
        self.slab.push(list, Entry { due_ms, sequence, item })
    }

    /// Takes an entry out; none if it came out before, by `advance` or by an earlier cancel.
    pub fn cancel(&mut self, handle: Handle) -> Option<T> {
        let due_ms = self.slab.get(handle)?.due_ms;
        let slab = &mut self.slab;
        let entry = match level_of(self.present_ms, due_ms).filter(|_| due_ms > self.present_ms) {
            Some(level) => self.levels[level].edit(digit(due_ms, level), |list| slab.remove(list, handle)),
            None => slab.remove(&mut self.overdue, handle),
        };
        entry.map(|entry| entry.item)
    }

    /// The item of an entry that is still in.
    pub fn get(&self, handle: Handle) -> Option<&T> {
        self.slab.get(handle).map(|entry| &entry.item)
    }

    /// When to advance next, in milliseconds: never after the first due time, unless that is past; then the present.
    /// It may be earlier, when a slot of an upper level begins: then nothing may come out, and asking again gives a
    /// later time.
    pub fn next_expiration(&self) -> Option<u64> {
        if !self.overdue.is_empty() {
            return Some(self.present_ms);
        }
        self.next_slot().map(|(_, _, start)| start)
    }

    /// Moves the present to `now_ms` (never back) and appends what is due to `out` as (due ms, sequence, item), in
    /// the order of (due ms, sequence).
    pub fn advance(&mut self, now_ms: u64, out: &mut Vec<(u64, S, T)>) {
        let mut overdue = std::mem::replace(&mut self.overdue, List::EMPTY);
        self.drain(&mut overdue, out);
        while let Some((level, slot, start)) = self.next_slot().filter(|(_, _, start)| *start <= now_ms) {
            self.present_ms = start;
            let mut list = self.levels[level].take(slot);
            // What is due as this slot begins goes to `overdue`, the rest to lower levels.
            let (levels, due_now) = (&mut self.levels, &mut self.overdue);
            let all = bugs::active(Bug::FireOnCascade);
            let lands = |due_ms| if all { start } else { due_ms };
            while self.slab.shift(&mut list, |due_ms| place(levels, due_now, start, lands(due_ms))) {}
            let mut due_now = std::mem::replace(&mut self.overdue, List::EMPTY);
            self.drain(&mut due_now, out);
        }
        self.present_ms = self.present_ms.max(now_ms);
    }

    /// Forgets every entry; the present stays.
    pub fn clear(&mut self) {
        *self.levels = [Level::EMPTY; LEVELS];
        self.overdue = List::EMPTY;
        self.slab.clear();
    }

    fn drain(&mut self, list: &mut List, out: &mut Vec<(u64, S, T)>) {
        let from = out.len();
        while let Some(Entry { due_ms, sequence, item }) = self.slab.pop(list) {
            out.push((due_ms, sequence, item));
        }
        out[from..].sort_by_key(|(due_ms, sequence, _)| (*due_ms, *sequence));
    }

    /// The slot that begins next. Lower levels come first: what they hold shares more digits with the present.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        self.levels.iter().enumerate().find_map(|(level, slots)| {
            let slot = slots.first()?;
            Some((level, slot, slot_start(self.present_ms, level, slot)))
        })
    }
}

fn place<'a>(
    levels: &'a mut [Level; LEVELS],
    overdue: &'a mut List,
    present_ms: u64,
    due_ms: u64,
) -> &'a mut List {
    match level_of(present_ms, due_ms).filter(|_| due_ms > present_ms) {
        Some(level) => levels[level].fill(digit(due_ms, level)),
        None => overdue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The wheel's meaning: a map in the order (due, sequence).
    #[derive(Default)]
    struct Model {
        entries: BTreeMap<(u64, u64), u32>,
        present: u64,
    }

    impl Model {
        fn advance(&mut self, now: u64) -> Vec<(u64, u64, u32)> {
            self.present = self.present.max(now);
            let later = self.entries.split_off(&(self.present.saturating_add(1), 0));
            let due = std::mem::replace(&mut self.entries, later);
            due.into_iter().map(|((due, sequence), item)| (due, sequence, item)).collect()
        }
    }

    #[derive(Clone, Debug)]
    enum Do {
        Insert { from_now: i64 },
        Cancel { nth: usize },
        Advance { by: u64 },
        AdvanceToNext,
        AdvanceBack,
        Clear,
    }

    /// Distances that matter: around the width of every level, and anything.
    fn distance() -> impl Strategy<Value = u64> {
        prop_oneof![
            4 => 0u64..200,
            4 => (0u32..10, 0u64..5).prop_map(|(level, around)| ((1u64 << (6 * level)) + around).saturating_sub(2)),
            2 => (0u32..60, any::<u64>()).prop_map(|(bits, n)| n & ((1 << bits) - 1)),
        ]
    }

    fn operation() -> impl Strategy<Value = Do> {
        prop_oneof![
            8 => distance().prop_map(|d| Do::Insert { from_now: d as i64 }),
            1 => (0i64..5_000).prop_map(|d| Do::Insert { from_now: -d }),
            3 => any::<usize>().prop_map(|nth| Do::Cancel { nth }),
            4 => distance().prop_map(|by| Do::Advance { by }),
            4 => Just(Do::AdvanceToNext),
            1 => Just(Do::AdvanceBack),
            1 => (0u8..20).prop_map(|n| if n == 0 { Do::Clear } else { Do::AdvanceToNext }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn does_what_an_ordered_map_does(
            start in prop_oneof![Just(0), 0u64..10_000, Just((1 << 36) - 3), Just(1_733_856_000_000)],
            operations in prop::collection::vec(operation(), 1..120),
        ) {
            let mut wheel = Wheel::<u32>::new(start);
            let mut model = Model { present: start, ..Model::default() };
            let mut handles: Vec<(Handle, (u64, u64))> = Vec::new();
            let mut sequence = 0u64;
            for operation in operations {
                match operation {
                    Do::Insert { from_now } => {
                        // Sequences come out of order, as when timers of an index are loaded late.
                        sequence += 1;
                        let order = sequence.reverse_bits();
                        let due = model.present.saturating_add_signed(from_now);
                        handles.push((wheel.insert(due, order, sequence as u32), (due, order)));
                        model.entries.insert((due, order), sequence as u32);
                    }
                    Do::Cancel { nth } if !handles.is_empty() => {
                        let (handle, key) = handles[nth % handles.len()];
                        prop_assert_eq!(wheel.get(handle), model.entries.get(&key));
                        prop_assert_eq!(wheel.cancel(handle), model.entries.remove(&key));
                    }
                    Do::Cancel { .. } => prop_assert!(wheel.is_empty()),
                    Do::Advance { .. } | Do::AdvanceToNext | Do::AdvanceBack => {
                        let to = match operation {
                            Do::Advance { by } => model.present.saturating_add(by),
                            Do::AdvanceBack => model.present.saturating_sub(100),
                            _ => wheel.next_expiration().unwrap_or(model.present),
                        };
                        let mut out = Vec::new();
                        wheel.advance(to, &mut out);
                        prop_assert_eq!(out, model.advance(to));
                        prop_assert_eq!(wheel.present_ms(), model.present);
                    }
                    Do::Clear => {
                        wheel.clear();
                        model.entries.clear();
                    }
                }
                prop_assert_eq!(wheel.len(), model.entries.len());
                let first = model.entries.keys().next().map(|(due, _)| (*due).max(model.present));
                let next = wheel.next_expiration();
                prop_assert_eq!(next.is_some(), first.is_some());
                prop_assert!(next <= first && next.unwrap_or(u64::MAX) >= model.present);
            }
            // Going from one expiration to the next hands out everything, in few steps an entry.
            let mut steps = 0;
            while let Some(next) = wheel.next_expiration() {
                let mut out = Vec::new();
                wheel.advance(next, &mut out);
                prop_assert_eq!(out, model.advance(next));
                steps += 1;
            }
            prop_assert!(model.entries.is_empty());
            prop_assert!(steps <= (sequence + 1) * LEVELS as u64);
        }
    }

    #[test]
    fn every_boundary_of_every_level_is_met_exactly() {
        for level in 0..LEVELS as u32 {
            let width = 1u64.checked_shl(6 * level).unwrap_or(u64::MAX);
            for start in [0, width - 1, width, width.saturating_mul(63)] {
                for due in
                    [width - 1, width, width.saturating_add(1), width.saturating_mul(64).saturating_sub(1)]
                {
                    let mut wheel = Wheel::<()>::new(start);
                    wheel.insert(due, 0, ());
                    let mut out = Vec::new();
                    if due > start {
                        wheel.advance(due - 1, &mut out);
                        assert!(out.is_empty(), "due {due} came early from {start}");
                    }
                    wheel.advance(due.max(start), &mut out);
                    assert_eq!(out, [(due, 0, ())], "from {start}");
                }
            }
        }
    }

    #[test]
    fn a_handle_names_nothing_once_its_entry_is_out() {
        let mut wheel = Wheel::<&str>::new(0);
        let first = wheel.insert(5, 1, "first");
        let mut out = Vec::new();
        wheel.advance(5, &mut out);
        // The place is used again; the old handle must not reach the new entry.
        let second = wheel.insert(9, 2, "second");
        assert_eq!(wheel.cancel(first), None);
        wheel.clear();
        assert_eq!(wheel.cancel(second), None);
        let third = wheel.insert(9, 3, "third");
        assert_eq!(wheel.cancel(third), Some("third"));
        assert_eq!(wheel.cancel(third), None);
        assert_eq!(wheel.next_expiration(), None);
    }

    #[test]
    fn the_end_of_time_is_in_reach() {
        let mut wheel = Wheel::<()>::new(0);
        wheel.insert(u64::MAX, 0, ());
        let mut out = Vec::new();
        wheel.advance(u64::MAX - 1, &mut out);
        assert!(out.is_empty());
        wheel.advance(u64::MAX, &mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn places_are_used_again() {
        let mut wheel = Wheel::<u64>::new(0);
        let mut out = Vec::new();
        for round in 0..1_000u64 {
            for n in 0..10 {
                let handle = wheel.insert(round + n % 3, n, n);
                if n % 2 == 0 {
                    wheel.cancel(handle);
                }
            }
            wheel.advance(round + 3, &mut out);
        }
        assert_eq!(out.len(), 5_000);
        assert!(wheel.slab.capacity() <= 10, "{} places for 10 entries", wheel.slab.capacity());
    }
}
