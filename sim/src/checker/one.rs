//! What one node alone can be held to, whatever the others of its cluster are: for a replay, which has no others.
//!
//! | checker | what must hold |
//! |---|---|
//! | `vote-once` | the log holds one vote a term, and terms never go back |
//! | `state-machine-safety` | a commit index never goes back, and what is committed is never cut or replaced |
//! | `leader-append-only` | a leader never cuts its own log |
//! | `applied` | what is applied is committed, in order |
//! | `never-back` | published states never go back |
//! | `never-early` | a timer is neither released before its due time nor fired further ahead than the setting allows |

use super::timers::fired_ahead;
use crate::tap::Logged;
use crate::violation::{Held, Violation};
use chronos_engine::raft::{Raft, Role};
use chronos_engine::step::Trace;
use chronos_engine::wal::WriteId;
use chronos_proto::codec;
use chronos_proto::command::{Command, Entry};
use chronos_proto::id::{GroupId, Index, NodeId};
use std::collections::BTreeMap;

/// One group, as far as its member shows it.
#[derive(Clone, Debug, Default)]
struct Seen {
    term: u64,
    vote: Option<NodeId>,
    commit: u64,
    applied: u64,
    published: u64,
    leads: bool,
    /// Where its log begins, as its disk was told.
    base: u64,
    /// Entries by index, as hashes over them: what its disk was told, and what it took for committed.
    told: BTreeMap<u64, u64>,
    committed: BTreeMap<u64, u64>,
    /// Entries that a write cut and must bring again.
    owed: BTreeMap<u64, (&'static str, u64)>,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub struct One {
    groups: BTreeMap<GroupId, Seen>,
    /// How far ahead of its due time a firing may be written, in microseconds.
    ahead_max: i64,
    /// The last write that was told in full. What found no space is told again.
    told_through: Option<WriteId>,
}

fn wrong<T>(checker: &'static str, what: String) -> Result<T, Violation> {
    Err(Violation::safety(checker, what))
}

fn hash(entry: &Entry) -> u64 {
    codec::digest(&[], &codec::encode(entry))
}

impl One {
    /// A node that may write firings so far ahead, in microseconds.
    pub fn new(ahead_max: i64) -> One {
        One { ahead_max, ..One::default() }
    }

    /// Its disk is told all of this in one write.
    pub fn told(&mut self, write: WriteId, logged: &[Logged]) -> Held {
        if self.told_through.is_some_and(|last| write <= last) {
            return Ok(());
        }
        // The first write brings what a restart found again.
        let is_news = self.told_through.replace(write).is_some();
        for logged in logged {
            self.told_one(logged, is_news)?;
        }
        for (group, seen) in &mut self.groups {
            let (told, base) = (&seen.told, seen.base);
            seen.owed.retain(|index, (_, hash)| *index > base && told.get(index) != Some(hash));
            if let Some((index, (checker, _))) = seen.owed.pop_first() {
                return wrong(
                    checker,
                    format!("group {group}: entry {index} is cut, and does not come again"),
                );
            }
        }
        Ok(())
    }

    fn told_one(&mut self, logged: &Logged, is_news: bool) -> Held {
        match logged {
            Logged::Entry(group, entry) => {
                if is_news && let Command::Fire { timers } = &*entry.command {
                    timers.iter().try_for_each(|timer| fired_ahead(timer.due, entry.time, self.ahead_max))?;
                }
                self.groups.entry(*group).or_default().told.insert(entry.index.0, hash(entry));
                Ok(())
            }
            Logged::Truncated(group, from) => {
                let seen = self.groups.entry(*group).or_default();
                let cut = seen.told.split_off(&from.0);
                for (index, hash) in cut {
                    if seen.committed.get(&index) == Some(&hash) {
                        seen.owed.insert(index, ("state-machine-safety", hash));
                    } else if seen.leads {
                        seen.owed.insert(index, ("leader-append-only", hash));
                    }
                }
                Ok(())
            }
            Logged::Voted(group, term, vote) => {
                let seen = self.groups.entry(*group).or_default();
                let before = (seen.term, seen.vote);
                (seen.term, seen.vote) = (term.0, *vote);
                let again = term.0 == before.0 && before.1.is_some() && *vote != before.1;
                if again || term.0 < before.0 {
                    let what = format!("group {group}: vote {vote:?} in term {term}, after {before:?}");
                    return wrong("vote-once", what);
                }
                Ok(())
            }
            Logged::Compacted(group, base) => {
                let seen = self.groups.entry(*group).or_default();
                seen.base = base.index.0;
                let behind = base.index.0 + 1;
                seen.told = seen.told.split_off(&behind);
                seen.committed = seen.committed.split_off(&behind);
                Ok(())
            }
        }
    }

    /// What it says of a group after a step. True if something was committed.
    pub fn stepped(&mut self, group: GroupId, raft: &Raft, applied: u64) -> Result<bool, Violation> {
        let seen = self.groups.entry(group).or_default();
        let (commit, before) = (raft.committed().0, seen.commit);
        if commit < before {
            let what = format!("group {group} is committed through {commit}, and was through {before}");
            return wrong("state-machine-safety", what);
        }
        if applied < seen.applied || applied > commit {
            let what = format!(
                "group {group} has applied {applied}, after {}, and {commit} is committed",
                seen.applied
            );
            return wrong("applied", what);
        }
        let new = (before + 1..=commit).filter_map(|index| raft.log().get(Index(index)));
        seen.committed.extend(new.map(|entry| (entry.index.0, hash(entry))));
        (seen.commit, seen.applied, seen.leads) = (commit, applied, raft.role() == Role::Leader);
        Ok(commit > before)
    }

    /// A state is shown to readers.
    pub fn published(&mut self, group: GroupId, index: u64) -> Held {
        let seen = self.groups.entry(group).or_default();
        let before = std::mem::replace(&mut seen.published, index);
        match index < before {
            true => wrong("never-back", format!("group {group} publishes {index} after {before}")),
            false => Ok(()),
        }
    }

    /// The engine tells something.
    pub fn traced(&self, trace: &Trace) -> Held {
        match trace {
            Trace::Released { topic, due, at } if at < due => {
                wrong("never-early", format!("a timer of topic {topic} due at {due} is released at {at}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_proto::command::TimerRef;
    use chronos_proto::id::{RelationId, Term};
    use chronos_proto::time::Timestamp;
    use std::sync::Arc;

    const GROUP: GroupId = GroupId(0);

    fn entry(term: u64, command: Command) -> Entry {
        let (index, time) = (Index(1), Timestamp(1_000));
        Entry { index, term: Term(term), time, stamp: 0, command: Arc::new(command) }
    }

    fn fails(one: &One, logged: &[Logged]) -> Option<&'static str> {
        one.clone().told(WriteId(9), logged).err().map(|violation| violation.checker)
    }

    #[test]
    fn what_one_node_does_wrong_is_seen() {
        let mut one = One::new(20);
        let (first, second) = (entry(1, Command::Noop), entry(2, Command::Noop));
        let logged = |entry: &Entry| Logged::Entry(GROUP, entry.clone());
        let cut = Logged::Truncated(GROUP, Index(1));
        assert_eq!(one.told(WriteId(1), &[logged(&first)]), Ok(()));
        assert_eq!(fails(&one, &[cut.clone(), logged(&second)]), None, "what is not committed");
        let seen = one.groups.entry(GROUP).or_default();
        seen.leads = true;
        assert_eq!(fails(&one, &[cut.clone(), logged(&second)]), Some("leader-append-only"));
        one.groups.entry(GROUP).or_default().committed.insert(1, hash(&first));
        assert_eq!(fails(&one, &[cut.clone(), logged(&second)]), Some("state-machine-safety"));
        assert_eq!(fails(&one, &[cut, logged(&first)]), None, "written anew as it was");
        let voted = |term, node| Logged::Voted(GROUP, Term(term), Some(NodeId(node)));
        assert_eq!(fails(&one, &[voted(2, 1), voted(3, 3)]), None);
        assert_eq!(fails(&one, &[voted(2, 1), voted(2, 3)]), Some("vote-once"));
        assert_eq!(fails(&one, &[voted(2, 1), voted(1, 1)]), Some("vote-once"));
        let fire = |due| {
            let (timer_id, topic, due) = ("t".to_owned(), RelationId(16), Timestamp(due));
            Command::Fire { timers: vec![TimerRef { due, sequence: 0, topic, partition: 0, timer_id }] }
        };
        assert_eq!(fails(&one, &[logged(&entry(2, fire(1_020)))]), None);
        assert_eq!(fails(&one, &[logged(&entry(2, fire(1_021)))]), Some("never-early"));
        assert_eq!(one.published(GROUP, 5), Ok(()));
        assert!(one.published(GROUP, 4).is_err());
        let early = Trace::Released { topic: RelationId(16), due: Timestamp(5), at: Timestamp(4) };
        assert!(one.traced(&early).is_err());
    }
}
