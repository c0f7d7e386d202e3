//! Raft's properties (figure 3 of the paper) and those of its log on a disk, looked at with every step.
//!
//! | checker | what must hold |
//! |---|---|
//! | `election-safety` | a term has one leader |
//! | `vote-once` | a node gives one vote a term, across crashes too |
//! | `leader-append-only` | a leader never cuts its own log |
//! | `log-matching` | one (index, term) is one entry, whoever has it |
//! | `leader-completeness` | who leads a later term has all that was committed |
//! | `state-machine-safety` | all commit the same entry at an index, and a commit index never goes back |
//! | `commit-own-term` | a leader commits by counting only through an entry of its own term |
//! | `quorum-durable` | what is committed is synced on a quorum |
//! | `promise-after-sync` | a vote or an acknowledgement leaves once it is synced, for the log that the leader has |
//! | `quorums-overlap` | voters change through a joint configuration, or one at a time |
//! | `recovery` | a restart finds what was synced, and a beginning of what was not |
//! | `digest` | states at one index are equal |

use crate::tap::Logged;
use crate::violation::{Held, Violation};
use chronos_engine::raft::{Raft, Role, committed_index};
use chronos_engine::wal::{GroupLog, WriteId};
use chronos_proto::command::{Command, Entry};
use chronos_proto::id::{Index, NodeId, Term};
use chronos_proto::membership::Configuration;
use chronos_proto::raft::{LogId, Message};
use std::collections::{BTreeMap, VecDeque};

/// A log and what a member must not forget, as its disk was told.
#[derive(Clone, Debug, Default)]
struct Journal {
    base: LogId,
    entries: VecDeque<Entry>,
    term: Term,
    vote: Option<NodeId>,
}

impl Journal {
    fn last(&self) -> LogId {
        self.entries.back().map_or(self.base, |entry| LogId { term: entry.term, index: entry.index })
    }

    fn get(&self, index: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.checked_sub(self.base.index.0 + 1)?).ok()?)
    }

    fn term(&self, index: u64) -> Option<Term> {
        match index == self.base.index.0 {
            true => Some(self.base.term),
            false => self.get(index).map(|entry| entry.term),
        }
    }

    /// Whether it has an entry, or a state that comprises it.
    fn has(&self, entry: &Entry) -> bool {
        entry.index <= self.base.index || self.term(entry.index.0) == Some(entry.term)
    }

    fn apply(&mut self, logged: &Logged) {
        match logged {
            Logged::Entry(_, entry) if entry.index.0 == self.last().index.0 + 1 => {
                self.entries.push_back(entry.clone());
            }
            // Written again by a restart, or covered by the base.
            Logged::Entry(..) => {}
            Logged::Voted(_, term, vote) => (self.term, self.vote) = (*term, *vote),
            Logged::Truncated(_, from) => {
                let keep = from.0.saturating_sub(self.base.index.0 + 1);
                self.entries.truncate(keep as usize);
            }
            Logged::Compacted(_, base) => {
                if base.index <= self.base.index {
                    return;
                }
                let covered = (base.index.0 - self.base.index.0) as usize;
                self.entries.drain(..covered.min(self.entries.len()));
                self.base = *base;
            }
        }
    }

    fn same(&self, other: &Journal) -> bool {
        let (from, last) = (self.base.index.max(other.base.index), self.last());
        self.term == other.term
            && self.vote == other.vote
            && last == other.last()
            && (from.0..=last.index.0).all(|index| self.term(index) == other.term(index))
    }
}

/// One member, with what its disk was told and what is synced of that.
#[derive(Clone, Debug, Default)]
struct Member {
    told: Journal,
    synced: Journal,
    writes: VecDeque<(WriteId, Vec<Logged>)>,
    /// The first write of this run, in which it writes the tail that it found again, as it came about.
    opening: Option<Option<WriteId>>,
    /// The last write that was told in full.
    told_through: Option<WriteId>,
    /// Its term after the last write.
    term: Term,
    /// What its disk had when it was wiped: a leader may count that still.
    lost: u64,
    /// What the next restart finds is what a copy had.
    old: bool,
    /// The entry that its durable state is at.
    stored: u64,
    /// The term in which it leads now.
    leads: Option<Term>,
    /// What it last said of itself, in this run.
    commit: u64,
    applied: u64,
    /// Committed entries that it cut, which a snapshot or the rest of the write must make good.
    cut: Option<u64>,
    /// In which term and where the log ended that it cut as a leader: the rest of the write must bring it all again.
    cut_leading: Option<(Term, LogId)>,
}

/// One group over all its members. Members are told by their place among the machines.
#[derive(Clone, Debug, Default)]
pub struct Group {
    ids: Vec<NodeId>,
    members: Vec<Member>,
    committed: Vec<Entry>,
    /// The term in which each of them was: that of the leader that counted it, not the entry's own.
    committed_in: Vec<Term>,
    /// Every entry that any disk was told.
    known: BTreeMap<(u64, u64), Entry>,
    leaders: BTreeMap<u64, usize>,
    votes: BTreeMap<(usize, u64), NodeId>,
    digests: BTreeMap<u64, u64>,
    /// The greatest index that somebody outside was told of.
    floor: u64,
    /// Entries that were cut from logs so far.
    pub cuts: u64,
}

fn wrong<T>(checker: &'static str, what: String) -> Result<T, Violation> {
    Err(Violation::safety(checker, what))
}

impl Group {
    /// Nobody has anything.
    pub fn new(ids: impl Iterator<Item = NodeId>) -> Group {
        let ids: Vec<NodeId> = ids.collect();
        Group { members: vec![Member::default(); ids.len()], ids, ..Group::default() }
    }

    /// The last committed index.
    pub fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    /// The committed entry at an index.
    pub fn get(&self, index: u64) -> Option<&Entry> {
        self.committed.get(usize::try_from(index).ok()?.checked_sub(1)?)
    }

    /// The greatest index that a client knows of: later reads and writes come behind it.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Who leads the greatest term that anybody ever led.
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }

    /// Members of the newest configuration in a member's log, if it has one.
    pub fn configuration(&self, m: usize) -> Option<&Configuration> {
        self.members[m].told.entries.iter().rev().find_map(|entry| match &*entry.command {
            Command::Membership(configuration) => Some(configuration),
            _ => None,
        })
    }

    /// The members by what is committed, if it says.
    pub fn committed_configuration(&self) -> Option<&Configuration> {
        self.committed.iter().rev().find_map(|entry| match &*entry.command {
            Command::Membership(configuration) => Some(configuration),
            _ => None,
        })
    }

    /// Somebody outside is told of an entry.
    pub fn promise(&mut self, who: &str, index: u64) -> Held {
        if index > self.committed() {
            let what = format!("{who} tells of entry {index}, but only {} is committed", self.committed());
            return wrong("quorum-durable", what);
        }
        Ok(())
    }

    /// A client knows of an entry from now on.
    pub fn known_to_client(&mut self, index: u64) {
        self.floor = self.floor.max(index);
    }

    // The disk

    /// A member's disk is told something.
    pub fn told(&mut self, m: usize, write: WriteId, logged: Logged) -> Held {
        let member = &mut self.members[m];
        if member.told_through.is_some_and(|last| write <= last) {
            // It found no space, and is told again.
            return Ok(());
        }
        let opening = member.opening.as_mut().is_some_and(|first| *first.get_or_insert(write) == write);
        match &logged {
            _ if opening => {}
            Logged::Entry(_, entry) => {
                let place = (entry.index.0, entry.term.0);
                if let Some(known) = self.known.get(&place) {
                    if !same(known, entry) {
                        let what = format!(
                            "entry {} of term {} is {known:?} and, at {}, {entry:?}",
                            place.0, place.1, self.ids[m]
                        );
                        return wrong("log-matching", what);
                    }
                } else {
                    self.known.insert(place, entry.clone());
                }
                let last = member.told.last();
                if entry.index.0 > last.index.0 + 1 {
                    let what =
                        format!("node {}: entry {} follows entry {}", self.ids[m], entry.index, last.index);
                    return wrong("log-matching", what);
                }
                if entry.index <= last.index && !member.told.has(entry) {
                    let what = format!(
                        "node {}: entry {} of term {} replaces another that was not cut",
                        self.ids[m], entry.index, entry.term
                    );
                    return wrong("log-matching", what);
                }
                if entry.index.0 == last.index.0 + 1 {
                    // What comes before it is the same everywhere, too.
                    if let Some(before) = self.known.get(&(last.index.0, last.term.0))
                        && (entry.time < before.time
                            || entry.stamp <= before.stamp
                            || entry.term < before.term)
                        && !matches!(*entry.command, Command::TimeEpoch(_))
                    {
                        let what =
                            format!("time, stamp and term rise along the log: {before:?} then {entry:?}");
                        return wrong("log-matching", what);
                    }
                    if let Command::Membership(next) = &*entry.command {
                        self.overlaps(m, next)?;
                    }
                }
            }
            Logged::Truncated(_, from) => {
                if let Some(term) = member.leads {
                    member.cut_leading.get_or_insert((term, member.told.last()));
                }
                let committed = self.committed.iter().zip(&self.committed_in).skip(from.0 as usize - 1);
                let lost = committed.take_while(|(entry, _)| member.told.has(entry));
                // One that was not asked in that term may hear of it later than of another leader's.
                let lost = lost.filter(|(_, committed_in)| **committed_in <= member.told.term);
                member.cut = lost.last().map(|(entry, _)| entry.index.0).or(member.cut);
                self.cuts += 1;
            }
            Logged::Compacted(_, base) => {
                member.cut.take_if(|cut| *cut <= base.index.0);
            }
            Logged::Voted(..) => {}
        }
        let member = &mut self.members[m];
        member.told.apply(&logged);
        match member.writes.back_mut() {
            Some((last, all)) if *last == write => all.push(logged),
            _ => member.writes.push_back((write, vec![logged])),
        }
        Ok(())
    }

    /// All of a write was told.
    pub fn told_all(&mut self, m: usize, write: WriteId) -> Held {
        let member = &mut self.members[m];
        member.told_through = member.told_through.max(Some(write));
        let before = std::mem::replace(&mut member.term, member.told.term);
        if member.told.term < before {
            let what = format!("node {}: term {} is written behind {before}", self.ids[m], member.told.term);
            return wrong("vote-once", what);
        }
        if let Some((term, last)) = member.cut_leading.take()
            && last.index > member.told.base.index
            && member.told.term(last.index.0) != Some(last.term)
        {
            let what =
                format!("node {} leads term {term} and cuts its log before {}", self.ids[m], last.index);
            return wrong("leader-append-only", what);
        }
        let again = |cut: &mut u64| self.committed.get(*cut as usize - 1).is_some_and(|e| member.told.has(e));
        member.cut.take_if(again);
        match member.cut {
            Some(cut) => {
                let what = format!("node {} cuts entry {cut}, which is committed", self.ids[m]);
                wrong("leader-completeness", what)
            }
            None => Ok(()),
        }
    }

    fn overlaps(&self, m: usize, next: &Configuration) -> Held {
        let Some(before) = self.configuration(m) else { return Ok(()) };
        let step = before.voters.symmetric_difference(&next.voters).count();
        if before.is_joint() || next.is_joint() || step <= 1 {
            return Ok(());
        }
        let what = format!("voters go from {before:?} to {next:?} in one step");
        wrong("quorums-overlap", what)
    }

    /// A write is synced.
    pub fn synced(&mut self, m: usize, write: WriteId) {
        let member = &mut self.members[m];
        while let Some((_, all)) = member.writes.pop_front_if(|(id, _)| *id <= write) {
            all.iter().for_each(|logged| member.synced.apply(logged));
        }
    }

    /// A member's store is durable at this entry.
    pub fn stored(&mut self, m: usize, index: u64) {
        self.members[m].stored = index;
    }

    /// A process has ended.
    pub fn ended(&mut self, m: usize) {
        let member = &mut self.members[m];
        (member.leads, member.commit, member.applied) = (None, 0, 0);
    }

    /// A machine's disk is what it once was.
    pub fn put_back(&mut self, m: usize) {
        self.wiped(m);
        self.members[m].old = true;
    }

    /// A machine's disk is empty from now on.
    pub fn wiped(&mut self, m: usize) {
        let member = &mut self.members[m];
        let lost = member.synced.last().index.0.max(member.stored);
        *member = Member { lost, ..Member::default() };
    }

    /// A restart found this.
    pub fn recovered(&mut self, m: usize, found: Option<&GroupLog>) -> Held {
        let Member { synced, writes, stored, lost, old, .. } = std::mem::take(&mut self.members[m]);
        let nothing = GroupLog::default();
        let found = found.unwrap_or(&nothing);
        let found = Journal {
            base: LogId { term: found.compacted.term, index: found.compacted.index },
            entries: found.entries.iter().cloned().collect(),
            term: found.hard_state.term,
            vote: found.hard_state.vote,
        };
        if old {
            let opening = Some(None);
            self.members[m] =
                Member { synced: found.clone(), told: found, lost, opening, ..Member::default() };
            return Ok(());
        }
        let mut candidate = synced.clone();
        let mut explained = candidate.same(&found);
        // What was written and not synced is durable once the first write of this run is, which comes behind it.
        let mut unsynced = Vec::new();
        for logged in writes.into_iter().flat_map(|(_, all)| all) {
            if explained {
                break;
            }
            candidate.apply(&logged);
            explained = candidate.same(&found);
            unsynced.push(logged);
        }
        let writes = [(WriteId(0), unsynced)].into();
        if !explained {
            let brief =
                |j: &Journal| format!("{:?}..{:?} term {} vote {:?}", j.base, j.last(), j.term, j.vote);
            let what = format!(
                "node {} had {} synced and {} told, and finds {}",
                self.ids[m],
                brief(&synced),
                brief(&candidate),
                brief(&found)
            );
            return wrong("recovery", what);
        }
        self.members[m] =
            Member { told: found, synced, writes, stored, opening: Some(None), lost, ..Member::default() };
        Ok(())
    }

    // What a member says

    /// A member sends a message: it promises nothing that its disk could forget.
    pub fn sent(&mut self, m: usize, to: usize, message: &Message) -> Held {
        match message {
            Message::VoteReply { term, granted: true } => self.votes_for(m, *term, self.ids[to]),
            Message::Vote { term, .. } => self.votes_for(m, *term, self.ids[m]),
            Message::Appended { term, matched } => self.acknowledges(m, to, *term, matched.0),
            _ => Ok(()),
        }
    }

    fn votes_for(&mut self, m: usize, term: Term, whom: NodeId) -> Held {
        let voter = self.ids[m];
        if let Some(other) = self.votes.insert((m, term.0), whom).filter(|other| *other != whom) {
            return wrong(
                "vote-once",
                format!("node {voter} votes for {other} and for {whom} in term {term}"),
            );
        }
        let Member { synced, .. } = &self.members[m];
        let holds = synced.term > term || synced.term == term && synced.vote == Some(whom);
        if !holds {
            let what = format!(
                "node {voter} votes for {whom} in term {term}; synced is {:?} in term {}",
                synced.vote, synced.term
            );
            return wrong("promise-after-sync", what);
        }
        Ok(())
    }

    fn acknowledges(&self, m: usize, to: usize, term: Term, matched: u64) -> Held {
        let (Member { synced, stored, .. }, leader) = (&self.members[m], &self.members[to]);
        let last = synced.last().index.0.max(*stored);
        if matched > last {
            let what =
                format!("node {} acknowledges entry {matched}, but only {last} is synced", self.ids[m]);
            return wrong("promise-after-sync", what);
        }
        if leader.leads == Some(term)
            && let (Some(mine), Some(theirs)) = (synced.term(matched), leader.told.term(matched))
            && mine != theirs
            && matched > *stored
        {
            let what = format!(
                "node {} acknowledges entry {matched} of term {theirs}, and has synced one of term {mine}",
                self.ids[m]
            );
            return wrong("promise-after-sync", what);
        }
        Ok(())
    }

    /// What a member says of itself after a step.
    pub fn stepped(&mut self, m: usize, raft: &Raft) -> Held {
        let (term, commit) = (raft.term(), raft.committed().0);
        let leads = (raft.role() == Role::Leader).then_some(term);
        if leads.is_some() && leads != self.members[m].leads {
            self.elected(m, raft)?;
        }
        self.members[m].leads = leads;
        let before = std::mem::replace(&mut self.members[m].commit, commit);
        if commit < before {
            let what = format!("node {}: the commit index goes from {before} to {commit}", self.ids[m]);
            return wrong("state-machine-safety", what);
        }
        if commit == before {
            return Ok(());
        }
        for index in before + 1..=commit.min(self.committed()) {
            let entry = &self.committed[index as usize - 1];
            if !has(raft, entry) {
                let what = format!(
                    "entry {index} is committed in term {}, and node {} commits one of term {:?}",
                    entry.term,
                    self.ids[m],
                    raft.log().term(entry.index)
                );
                return wrong("state-machine-safety", what);
            }
        }
        if commit > self.committed() { self.commits(m, raft, commit) } else { Ok(()) }
    }

    fn elected(&mut self, m: usize, raft: &Raft) -> Held {
        let term = raft.term();
        if let Some(other) = self.leaders.insert(term.0, m).filter(|other| *other != m) {
            let what = format!("term {term} is led by {} and by {}", self.ids[other], self.ids[m]);
            return wrong("election-safety", what);
        }
        match self.lacking(term, |entry| has(raft, entry)) {
            Some(lost) => {
                let what = format!(
                    "node {} leads term {term} without entry {} of term {}, which is committed",
                    self.ids[m], lost.index, lost.term
                );
                wrong("leader-completeness", what)
            }
            None => Ok(()),
        }
    }

    /// What was committed before this term and is not there. A leader of an older term may learn late that it was
    /// elected: what a newer one has committed meanwhile it need not have, whatever term that is of.
    fn lacking(&self, term: Term, has: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        let before = self.committed.iter().zip(&self.committed_in).rev();
        before
            .filter(|(_, committed_in)| **committed_in < term)
            .map(|(entry, _)| entry)
            .find(|entry| !has(entry))
    }

    fn commits(&mut self, m: usize, raft: &Raft, commit: u64) -> Held {
        let id = self.ids[m];
        let term = raft.term();
        let leads = raft.role() == Role::Leader;
        for index in self.committed() + 1..=commit {
            // What is applied may have left the memory, and what its disk was not told yet is there.
            let held = raft.log().get(Index(index)).or_else(|| self.members[m].told.get(index));
            let Some(entry) = held.cloned() else {
                let what = format!("node {id} commits entry {index}, which it does not have");
                return wrong("state-machine-safety", what);
            };
            self.committed.push(entry);
            self.committed_in.push(term);
        }
        let of = self.committed.last().map(|entry| entry.term);
        if leads && of != Some(term) {
            let what =
                format!("node {id} leads term {term} and commits entry {commit} of term {of:?} by counting");
            return wrong("commit-own-term", what);
        }
        let entry = &self.committed[commit as usize - 1];
        let holds = |node: NodeId| {
            let member = self.ids.iter().position(|id| *id == node).map(|m| &self.members[m]);
            member.is_some_and(|m| m.synced.has(entry) || m.stored.max(m.lost) >= commit)
        };
        let quorum = committed_index(raft.configuration(), |node| u8::from(holds(node)));
        if quorum == 0 {
            let who: Vec<NodeId> = self.ids.iter().copied().filter(|id| holds(*id)).collect();
            let what = format!(
                "node {id} commits entry {commit}; it is synced on {who:?}, no quorum of {:?}",
                raft.configuration()
            );
            return wrong("quorum-durable", what);
        }
        Ok(())
    }

    /// A member has applied entries up to here and comes to this digest.
    pub fn applied(&mut self, m: usize, index: u64, digest: u64) -> Held {
        let before = std::mem::replace(&mut self.members[m].applied, index);
        if index < before {
            let what = format!("node {}: what is applied goes from {before} to {index}", self.ids[m]);
            return wrong("state-machine-safety", what);
        }
        if index > self.committed() {
            let what =
                format!("node {} applies entry {index} of {} committed", self.ids[m], self.committed());
            return wrong("state-machine-safety", what);
        }
        match self.digests.insert(index, digest) {
            Some(other) if other != digest => {
                let what = format!(
                    "at entry {index} node {} comes to digest {digest:016x}, another to {other:016x}",
                    self.ids[m]
                );
                wrong("digest", what)
            }
            _ => Ok(()),
        }
    }

    /// What a member takes for committed in this run.
    pub fn commit_of(&self, m: usize) -> u64 {
        self.members[m].commit
    }

    /// What a member has applied in this run.
    pub fn applied_by(&self, m: usize) -> u64 {
        self.members[m].applied
    }

    /// Every synced log and state: whether an entry is on a member's medium.
    pub fn is_on(&self, m: usize, index: Index) -> bool {
        let member = &self.members[m];
        member.stored >= index.0 || self.get(index.0).is_some_and(|entry| member.synced.has(entry))
    }
}

/// Whether a member has an entry in memory, or has left it behind.
fn has(raft: &Raft, entry: &Entry) -> bool {
    entry.index <= raft.log().base().index || raft.log().term(entry.index) == Some(entry.term)
}

fn same(a: &Entry, b: &Entry) -> bool {
    std::sync::Arc::ptr_eq(&a.command, &b.command) || a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_lacks_what_was_committed_before_its_term_and_not_what_was_after() {
        let time = chronos_proto::Timestamp(1_000);
        let entry = |index, term| Entry {
            term: Term(term),
            index: Index(index),
            time,
            stamp: index,
            command: Command::Noop.into(),
        };
        // Entry 24 is of term 6, and was committed by the leader of term 9.
        let group = Group {
            committed: vec![entry(23, 6), entry(24, 6)],
            committed_in: vec![Term(6), Term(9)],
            ..Group::default()
        };
        let lacks = |term, last| group.lacking(Term(term), |entry| entry.index.0 <= last).map(|e| e.index.0);
        assert_eq!(lacks(8, 23), None);
        assert_eq!(lacks(8, 22), Some(23));
        assert_eq!(lacks(10, 23), Some(24));
        assert_eq!(lacks(10, 24), None);
    }
}
