//! What must hold at every step of every schedule (figure 3 of the paper, and what durability adds to it).

use chronos_engine::raft::{Raft, Role};
use chronos_engine::wal::{HardState, Record};
use chronos_proto::command::Entry;
use chronos_proto::id::{Index, NodeId, Term};
use chronos_proto::membership::Configuration;
use chronos_proto::raft::{LogId, Message};
use std::collections::{BTreeMap, BTreeSet};

/// What a disk holds for certain: what was finished.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub hard: HardState,
    pub base: LogId,
    pub entries: Vec<Entry>,
    /// The state that is on it beside the log holds everything up to here.
    pub state: Index,
}

impl Disk {
    pub fn last(&self) -> LogId {
        let place = |entry: &Entry| LogId { term: entry.term, index: entry.index };
        self.entries.last().map_or(self.base, place)
    }

    pub fn get(&self, index: Index) -> Option<&Entry> {
        let place = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(place as usize)
    }

    /// Whether this very entry is on it, or is in the state.
    pub fn has(&self, place: LogId) -> bool {
        place.index <= self.state || self.get(place.index).is_some_and(|entry| entry.term == place.term)
    }

    pub fn write(&mut self, record: Record) {
        match record {
            Record::Entry(entry) => {
                assert_eq!(entry.index, self.last().index.next(), "a gap on disk");
                self.entries.push(entry);
            }
            Record::HardState(hard) => {
                assert!(hard.term >= self.hard.term, "the term went back on disk");
                self.hard = hard;
            }
            Record::Truncate { from } => {
                let keep = from.0.saturating_sub(self.base.index.0 + 1);
                self.entries.truncate(keep as usize);
            }
            Record::Compacted(compacted) => {
                let base = LogId { term: compacted.term, index: compacted.index };
                self.entries.retain(|entry| entry.index > base.index);
                self.base = base;
            }
            Record::Mark | Record::Base(_) => panic!("not Raft's to write"),
        }
    }
}

/// What has been seen so far.
#[derive(Default)]
pub struct Oracle {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// By place: the term before it, and what it says.
    entries: BTreeMap<(Index, Term), (Option<Term>, Entry)>,
    /// The term of each entry that somebody knows to be committed, from index 1 on.
    committed: Vec<Term>,
    /// By member and life: what it knew to be committed.
    commits: BTreeMap<(NodeId, u64), Index>,
    /// Reads that are not answered, and what was committed when they were asked.
    reads: BTreeMap<(NodeId, u64), Index>,
}

impl Oracle {
    pub fn committed(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// A member wants this written.
    pub fn persists(&mut self, id: NodeId, raft: &Raft, record: &Record) {
        match record {
            Record::Entry(entry) => {
                let before = entry.index.0.checked_sub(1).and_then(|index| raft.log().term(Index(index)));
                let place = (entry.index, entry.term);
                let (known_before, known) =
                    self.entries.entry(place).or_insert_with(|| (before, entry.clone()));
                assert_eq!(known, entry, "log matching: two entries at one place, one of them at {id}");
                match (*known_before, before) {
                    (Some(known), Some(before)) => {
                        assert_eq!(known, before, "log matching: different logs before {place:?} at {id}");
                    }
                    (known, _) => *known_before = known.or(before),
                }
            }
            Record::Truncate { from } => {
                assert_ne!(raft.role(), Role::Leader, "leader append-only: {id} cut its log from {from}");
            }
            _ => {}
        }
    }

    /// A member says this; `disk` is what it holds for certain.
    pub fn sends(&mut self, from: NodeId, to: NodeId, message: &Message, raft: &Raft, disk: &Disk) {
        let promised = match message {
            Message::Vote { term, .. } => Some((*term, from)),
            Message::VoteReply { term, granted: true } => Some((*term, to)),
            _ => None,
        };
        if let Some((term, candidate)) = promised {
            let voted = *self.votes.entry((from, term)).or_insert(candidate);
            assert_eq!(voted, candidate, "vote once: {from} voted twice in term {term}");
            let durable = (disk.hard.term, disk.hard.vote);
            let holds = durable == (term, Some(candidate)) || durable.0 > term;
            assert!(holds, "{from} told its vote in term {term}, and its disk has {durable:?}");
        }
        if let Message::Appended { matched, .. } = message {
            let term = raft.log().term(*matched);
            let holds = term.is_none_or(|term| disk.has(LogId { term, index: *matched }));
            assert!(holds, "{from} acknowledged {matched}, and its disk ends at {:?}", disk.last());
        }
    }

    /// A member asks to read; the answer must not be older than what is committed now.
    pub fn asks(&mut self, id: NodeId, number: u64) {
        self.reads.insert((id, number), self.committed());
    }

    /// A read is answered, or refused.
    pub fn reads(&mut self, id: NodeId, number: u64, index: Option<Index>) {
        let asked = self.reads.remove(&(id, number)).expect("a read is answered once");
        if let Some(index) = index {
            assert!(index >= asked, "stale read: {id} answers at {index}, and {asked} was committed before");
        }
    }

    /// Reads that a crash took along.
    pub fn forgets(&mut self, id: NodeId) {
        self.reads.retain(|(reader, _), _| *reader != id);
    }

    /// A member has done something.
    pub fn sees(&mut self, id: NodeId, life: u64, raft: &Raft, disks: &BTreeMap<NodeId, &Disk>) {
        let last = raft.log().last().index;
        assert!(raft.log().base().index <= raft.committed(), "{id}'s log begins behind its commit");
        assert!(raft.committed() <= last && raft.persisted() <= last, "{id} is beyond its log");
        if raft.role() == Role::Leader {
            let leader = *self.leaders.entry(raft.term()).or_insert_with(|| {
                // The highest committed entry is enough: the logs before it match.
                let committed = Index(self.committed.len() as u64);
                if let (Some(term), Some(held)) = (self.committed.last(), raft.log().term(committed)) {
                    assert_eq!(*term, held, "leader completeness: {id} has another entry at {committed}");
                }
                assert!(last >= committed, "leader completeness: {id} ends at {last} before {committed}");
                id
            });
            assert_eq!(leader, id, "election safety: two leaders in term {}", raft.term());
        }
        let known = self.commits.entry((id, life)).or_default();
        assert!(raft.committed() >= *known, "commit went back at {id}");
        let from = std::mem::replace(known, raft.committed());
        if raft.role() == Role::Leader && raft.committed() > from {
            let own = raft.own_term_from();
            assert!(raft.committed() >= own, "{id} commits {} before its own {own}", raft.committed());
        }
        for index in (from.0 + 1..=raft.committed().0).map(Index) {
            let Some(term) = raft.log().term(index) else { continue };
            match self.committed.get(index.0 as usize - 1) {
                Some(known) => {
                    assert_eq!(*known, term, "state machine safety: {id} commits another entry at {index}");
                }
                None => {
                    assert_eq!(index, self.committed().next(), "committed with a gap at {id}");
                    self.committed.push(term);
                    let place = LogId { term, index };
                    let voters = raft.configuration();
                    assert!(
                        on_a_quorum(place, voters, disks),
                        "{id} commits {place:?}, which is not durable on a quorum of {voters:?}"
                    );
                }
            }
        }
    }

    /// A lease means that nobody else has committed anything.
    pub fn trusts_lease(&self, id: NodeId, raft: &Raft) {
        let committed = self.committed();
        assert!(
            raft.committed() >= committed,
            "stale lease: {id} is at {}, and {committed} is committed",
            raft.committed()
        );
    }
}

fn on_a_quorum(place: LogId, configuration: &Configuration, disks: &BTreeMap<NodeId, &Disk>) -> bool {
    let majority = |voters: &BTreeSet<NodeId>| {
        let holding = voters.iter().filter(|id| disks.get(id).is_some_and(|disk| disk.has(place))).count();
        voters.is_empty() || holding > voters.len() / 2
    };
    majority(&configuration.voters) && majority(&configuration.outgoing)
}
