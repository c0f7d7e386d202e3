//! `log`: the log is one sequence; what was durable stays, and nobody is promised what is not durable.
//!
//! It sees every entry that is handed to the disk, every write that became durable and every promise that left the
//! node. After a crash the log may have lost what nobody was promised, from its end, and nothing else.

use crate::violation::{Held, Violation};
use chronos_engine::wal::WriteId;
use chronos_proto::command::{Command, Entry};
use std::collections::BTreeMap;

const NAME: &str = "log";

/// The log as the disk was told it.
#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: Vec<Entry>,
    durable: u64,
    promised: u64,
    writes: BTreeMap<WriteId, u64>,
    restarted: bool,
    /// Promises that a weak fsync mode was allowed to break.
    pub excused: u64,
    lossy: bool,
}

impl Log {
    /// The entry at an index.
    pub fn get(&self, index: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(index).ok()?.checked_sub(1)?)
    }

    /// The last index.
    pub fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Everything up to here is durable.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The greatest index that anybody was promised.
    pub fn promised(&self) -> u64 {
        self.promised
    }

    /// An entry is handed to the disk as part of a write. Answers the index above which the log was cut, if it was.
    pub fn appended(&mut self, write: WriteId, entry: &Entry) -> Result<Option<u64>, Violation> {
        let index = entry.index.0;
        let mut cut = None;
        match self.get(index) {
            // A restart writes the tail it found to a fresh segment.
            Some(known) if known == entry => {}
            Some(known) => {
                if !self.restarted {
                    let what = format!("entry {index} was written again with other content in one run");
                    return Err(Violation::safety(NAME, what));
                }
                if entry.term <= known.term {
                    let what =
                        format!("entry {index} of term {} replaces one of term {}", entry.term, known.term);
                    return Err(Violation::safety(NAME, what));
                }
                self.cut(index - 1)?;
                cut = Some(index - 1);
            }
            None => {}
        }
        if index == self.last() + 1 {
            self.follows(entry)?;
            self.entries.push(entry.clone());
        } else if index > self.last() {
            let what = format!("entry {index} follows entry {}", self.last());
            return Err(Violation::safety(NAME, what));
        }
        let last = self.writes.entry(write).or_default();
        *last = (*last).max(index);
        Ok(cut)
    }

    fn follows(&self, entry: &Entry) -> Held {
        let Some(before) = self.entries.last() else { return Ok(()) };
        let wrong = if entry.term < before.term {
            "term"
        } else if entry.time < before.time && !matches!(*entry.command, Command::TimeEpoch(_)) {
            "time"
        } else if entry.stamp <= before.stamp {
            "stamp"
        } else {
            return Ok(());
        };
        let what = format!("the {wrong} of entry {} does not rise: {before:?} then {entry:?}", entry.index);
        Err(Violation::safety(NAME, what))
    }

    /// The log ends at `last`, by what a restart found.
    fn cut(&mut self, last: u64) -> Held {
        if last < self.promised && !self.lossy {
            let lost = format!("entries {} to {} were promised and are gone", last + 1, self.promised);
            return Err(Violation::safety("no-acked-write-lost", lost));
        }
        if last < self.durable && !self.lossy {
            let lost = format!("entries {} to {} were synced and are gone", last + 1, self.durable);
            return Err(Violation::safety(NAME, lost));
        }
        self.excused += self.promised.saturating_sub(last);
        self.entries.truncate(last as usize);
        self.durable = self.durable.min(last);
        self.promised = self.promised.min(last);
        Ok(())
    }

    /// A write is durable: its last sync came back well.
    pub fn synced(&mut self, write: WriteId) {
        let later = self.writes.split_off(&WriteId(write.0 + 1));
        let last = std::mem::replace(&mut self.writes, later).into_values().max();
        self.durable = self.durable.max(last.unwrap_or(0));
    }

    /// Somebody is told of an entry.
    pub fn promise(&mut self, who: &str, index: u64) -> Held {
        if index > self.durable {
            let what = format!("{who} tells of entry {index}, but only {} is durable", self.durable);
            return Err(Violation::safety("reply-after-sync", what));
        }
        self.promised = self.promised.max(index);
        Ok(())
    }

    /// A process starts. `lossy` if a weak fsync mode met a power cut, so that the tail may be gone.
    pub fn restarted(&mut self, lossy: bool) {
        self.restarted = true;
        self.lossy = lossy;
        self.writes.clear();
    }

    /// What a restart found is known in full: its last entry.
    pub fn recovered(&mut self, last: u64) -> Held {
        if last < self.last() { self.cut(last) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_proto::id::{Index, Term};
    use chronos_proto::time::Timestamp;
    use std::sync::Arc;

    fn entry(term: u64, index: u64) -> Entry {
        Entry {
            term: Term(term),
            index: Index(index),
            time: Timestamp(index as i64),
            stamp: index,
            command: Arc::new(Command::Noop),
        }
    }

    fn log_of(count: u64) -> Log {
        let mut log = Log::default();
        for index in 1..=count {
            assert_eq!(log.appended(WriteId(index), &entry(1, index)), Ok(None));
        }
        log
    }

    fn checker_of(held: Held) -> &'static str {
        held.expect_err("a violation").checker
    }

    #[test]
    fn a_promise_before_the_sync_is_seen() {
        let mut log = log_of(3);
        log.synced(WriteId(2));
        assert_eq!(log.promise("a reply", 2), Ok(()));
        assert_eq!(checker_of(log.promise("a reply", 3)), "reply-after-sync");
    }

    #[test]
    fn a_lost_promised_entry_is_seen() {
        let mut log = log_of(3);
        log.synced(WriteId(3));
        assert_eq!(log.promise("a reply", 3), Ok(()));
        log.restarted(false);
        let lost = log.appended(WriteId(1), &entry(2, 3)).map(|_| ());
        assert_eq!(checker_of(lost), "no-acked-write-lost");
        assert_eq!(checker_of(log.recovered(2)), "no-acked-write-lost");
    }

    #[test]
    fn an_unsynced_tail_may_go_and_a_synced_one_may_not() {
        let mut log = log_of(3);
        log.synced(WriteId(2));
        log.restarted(false);
        assert_eq!(log.clone().appended(WriteId(1), &entry(2, 3)), Ok(Some(2)));
        assert_eq!(checker_of(log.appended(WriteId(1), &entry(2, 2)).map(|_| ())), "log");
    }

    #[test]
    fn a_weak_mode_is_excused_after_a_power_cut() {
        let mut log = log_of(3);
        log.synced(WriteId(3));
        assert_eq!(log.promise("a reply", 3), Ok(()));
        log.restarted(true);
        assert_eq!(log.appended(WriteId(1), &entry(2, 2)), Ok(Some(1)));
        assert_eq!((log.excused, log.last()), (2, 2));
    }

    #[test]
    fn gaps_and_rewrites_are_seen() {
        let mut log = log_of(2);
        assert_eq!(checker_of(log.appended(WriteId(3), &entry(1, 4)).map(|_| ())), "log");
        assert_eq!(checker_of(log.appended(WriteId(3), &entry(2, 2)).map(|_| ())), "log");
        let mut back = entry(1, 3);
        back.time = Timestamp(0);
        assert_eq!(checker_of(log.appended(WriteId(3), &back).map(|_| ())), "log");
    }
}
