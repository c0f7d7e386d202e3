//! The part of the log that is in memory: entries behind a base position, contiguous.

use chronos_proto::command::Entry;
use chronos_proto::id::{Index, Term};
use std::collections::VecDeque;

/// Entries from `base + 1` on.
#[derive(Clone, Debug, Default)]
pub struct Log {
    base: Index,
    base_term: Term,
    entries: VecDeque<Entry>,
}

impl Log {
    /// A log that begins behind `base`.
    pub fn new(base: Index, base_term: Term) -> Log {
        Log { base, base_term, entries: VecDeque::new() }
    }

    /// The position before the first entry held.
    pub fn base(&self) -> Index {
        self.base
    }

    /// The position of the last entry.
    pub fn last(&self) -> Index {
        Index(self.base.0 + self.entries.len() as u64)
    }

    /// The term of the last entry.
    pub fn last_term(&self) -> Term {
        self.entries.back().map_or(self.base_term, |entry| entry.term)
    }

    /// The last entry, if one is held.
    pub fn last_entry(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// Appends the next entry.
    pub fn push(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last().next(), "the log has no gaps");
        assert!(entry.term >= self.last_term(), "terms never fall along the log");
        self.entries.push_back(entry);
    }

    /// The entry at `index`, if it is held.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.base.0 + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Drops entries up to `index`.
    pub fn forget_through(&mut self, index: Index) {
        while self.base < index {
            let Some(entry) = self.entries.pop_front() else { break };
            self.base = entry.index;
            self.base_term = entry.term;
        }
    }
}
