//! The part of the log that is in memory: entries behind a base position, contiguous.

use chronos_proto::command::Entry;
use chronos_proto::id::{Index, Term};
use chronos_proto::raft::LogId;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Entries from `base + 1` on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Log {
    base: LogId,
    entries: VecDeque<Held>,
    /// Bytes of every entry that was ever pushed and not cut: differences are sizes of ranges.
    total: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Held {
    entry: Entry,
    /// [`Log::total`] once this entry was in.
    through: u64,
}

impl Log {
    /// A log that begins behind `base`.
    pub fn new(base: LogId) -> Log {
        Log { base, entries: VecDeque::new(), total: 0 }
    }

    /// The position before the first entry held.
    pub fn base(&self) -> LogId {
        self.base
    }

    /// The position of the last entry.
    pub fn last(&self) -> LogId {
        let held = |held: &Held| LogId { term: held.entry.term, index: held.entry.index };
        self.entries.back().map_or(self.base, held)
    }

    /// The last entry, if one is held.
    pub fn last_entry(&self) -> Option<&Entry> {
        self.entries.back().map(|held| &held.entry)
    }

    /// Appends the next entry.
    pub fn push(&mut self, entry: Entry) {
        let last = self.last();
        assert_eq!(entry.index, last.index.next(), "the log has no gaps");
        assert!(
            entry.term >= last.term,
            "terms never fall along the log: {} behind {}",
            entry.term,
            last.term
        );
        self.total += entry.command.bytes() as u64;
        self.entries.push_back(Held { entry, through: self.total });
    }

    fn place(&self, index: Index) -> Option<usize> {
        usize::try_from(index.0.checked_sub(self.base.index.0 + 1)?).ok()
    }

    /// The entry at `index`, if it is held.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get(self.place(index)?).map(|held| &held.entry)
    }

    /// Every entry held, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|held| &held.entry)
    }

    /// The term of the entry at `index`, if it is known: held, or the base.
    pub fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index { Some(self.base.term) } else { self.get(index).map(|entry| entry.term) }
    }

    /// Whether the log has this very entry.
    pub fn has(&self, place: LogId) -> bool {
        self.term(place.index) == Some(place.term)
    }

    /// The greatest place at or below both `index` and the log's end whose term is at most `term`: where another log
    /// that has `term` at `index` may agree with this one. The base if none is.
    pub fn agrees_at_most(&self, index: Index, term: Term) -> LogId {
        let end = self.place(index).map_or(0, |place| (place + 1).min(self.entries.len()));
        // Terms ascend along the log.
        let below = self.entries.partition_point(|held| held.entry.term <= term).min(end);
        match below.checked_sub(1).and_then(|place| self.entries.get(place)) {
            Some(held) => LogId { term: held.entry.term, index: held.entry.index },
            None => self.base,
        }
    }

    /// Entries from `from` on, at least one if there is one, and no more bytes than `bytes_max` beyond it.
    pub fn slice(&self, from: Index, bytes_max: usize) -> Vec<Entry> {
        let Some(place) = self.place(from) else { return Vec::new() };
        let mut out = Vec::new();
        let mut bytes = 0;
        for held in self.entries.range(place.min(self.entries.len())..) {
            bytes += held.entry.command.bytes();
            if !out.is_empty() && bytes > bytes_max {
                break;
            }
            out.push(held.entry.clone());
        }
        out
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> u64 {
        self.bytes_above(self.base.index)
    }

    /// Bytes of the entries above `index`.
    pub fn bytes_above(&self, index: Index) -> u64 {
        let through = match self.place(index) {
            Some(place) if !self.entries.is_empty() => {
                self.entries[place.min(self.entries.len() - 1)].through
            }
            _ => self
                .entries
                .front()
                .map_or(self.total, |held| held.through - held.entry.command.bytes() as u64),
        };
        self.total - through
    }

    /// Cuts the entries from `from` on.
    pub fn truncate(&mut self, from: Index) {
        let keep = self.place(from).unwrap_or(0);
        self.entries.truncate(keep);
        self.total = self.entries.back().map_or(0, |held| held.through);
    }

    /// Drops entries up to `index`.
    pub fn forget_through(&mut self, index: Index) {
        while self.base.index < index {
            let Some(Held { entry, .. }) = self.entries.pop_front() else { break };
            self.base = LogId { term: entry.term, index: entry.index };
        }
    }
}
