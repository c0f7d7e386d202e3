//! What must hold, as it is seen from outside: one leader a term, one state an index, acknowledged writes stay, refused
//! ones never happen, reads see what was acknowledged before them, and nobody links by a certificate that has expired.

use crate::marks::{Mark, Marks};
use chronos_engine::Snapshot;
use chronos_engine::keys;
use chronos_engine::node::GroupStatus;
use chronos_engine::step::{Published, Reply, Token, Trace as Note};
use chronos_proto::id::RelationId;
use chronos_proto::key;
use chronos_proto::peer::Lane;
use chronos_proto::time::Timestamp;
use chronos_proto::value::Value;
use chronos_sim::trace::Trace;
use chronos_sim::violation::Violation;
use std::collections::{BTreeMap, BTreeSet};

/// A handshake that began with a valid certificate may end a little after it has expired, in microseconds.
const HANDSHAKE_US: i64 = 4_000_000;

/// What a client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// For the table to be made.
    Table,
    /// For a row under this key.
    Write(i64),
    /// For a linearizable read; entries up to here, and this key, were acknowledged before.
    Read(u64, Option<i64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pending,
    Committed,
    Refused,
    Unknown,
}

/// What was seen so far.
pub struct Ledger {
    /// The trace.
    pub trace: Trace,
    /// Rare situations that were reached.
    pub marks: Marks,
    /// The first thing that did not hold.
    pub violation: Option<Violation>,
    /// Writes that were acknowledged.
    pub committed: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// With the node that was asked.
    pending: BTreeMap<Token, (Asked, usize)>,
    keys: BTreeMap<i64, (Fate, usize)>,
    /// The entry of each acknowledged write.
    entries: BTreeMap<u64, i64>,
    leaders: BTreeMap<u64, String>,
    digests: BTreeMap<u64, (u64, String)>,
    applied: BTreeMap<String, u64>,
    /// When the certificate that a node shows expires.
    expires: BTreeMap<String, Timestamp>,
    ups: BTreeMap<(String, String), u64>,
}

/// The key of a row in the state.
pub fn row_key(relation: RelationId, id: i64) -> bytes::Bytes {
    let mut primary = Vec::with_capacity(9);
    key::encode(&mut primary, &Value::Int(id));
    keys::row(relation, &primary)
}

impl Ledger {
    /// Nothing was seen.
    pub fn new(keep_lines: bool) -> Ledger {
        Ledger {
            trace: Trace::new(keep_lines),
            marks: Marks::default(),
            violation: None,
            committed: 0,
            reads: 0,
            pending: BTreeMap::new(),
            keys: BTreeMap::new(),
            entries: BTreeMap::new(),
            leaders: BTreeMap::new(),
            digests: BTreeMap::new(),
            applied: BTreeMap::new(),
            expires: BTreeMap::new(),
            ups: BTreeMap::new(),
        }
    }

    /// Something does not hold. The first one counts.
    pub fn broken(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    fn unsafe_if(&mut self, wrong: bool, checker: &'static str, what: impl FnOnce() -> String) {
        if wrong {
            self.broken(Violation::safety(checker, what()));
        }
    }

    /// A client asks.
    pub fn asked(&mut self, token: Token, asked: Asked, at: usize) {
        if let Asked::Write(id) = asked {
            self.keys.insert(id, (Fate::Pending, at));
        }
        self.pending.insert(token, (asked, at));
    }

    fn fate(&mut self, id: i64, fate: Fate) {
        if let Some((now, _)) = self.keys.get_mut(&id) {
            *now = fate;
        }
    }

    /// A node's process is gone: nobody will answer what it was asked.
    pub fn lost(&mut self, at: usize) {
        let gone: Vec<Token> =
            self.pending.iter().filter(|(_, (_, asked))| *asked == at).map(|(token, _)| *token).collect();
        for token in gone {
            if let Some((Asked::Write(id), _)) = self.pending.remove(&token) {
                self.fate(id, Fate::Unknown);
            }
        }
    }

    /// What a read that begins now must see.
    pub fn read(&self) -> Asked {
        let newest = self.entries.last_key_value();
        Asked::Read(newest.map_or(0, |(index, _)| *index), newest.map(|(_, id)| *id))
    }

    /// How many requests wait for an answer.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// On how many nodes a write from this one on was acknowledged.
    pub fn written_since(&self, first: i64) -> usize {
        let since = self.keys.range(first..).filter(|(_, (fate, _))| *fate == Fate::Committed);
        since.map(|(_, (_, at))| at).collect::<BTreeSet<_>>().len()
    }

    /// A client has its answer.
    pub fn answered(
        &mut self,
        at: u64,
        name: &str,
        token: Token,
        reply: &Reply,
        published: Option<&Published>,
    ) {
        let Some((asked, _)) = self.pending.remove(&token) else {
            return self.broken(Violation::safety("one-effect", format!("{name} answers {token:?} twice")));
        };
        let shown = published.map_or(0, |published| published.snapshot.applied.0);
        let told = match reply {
            Reply::Commit(Ok(committed)) => format!("committed {}", committed.index),
            Reply::Commit(Err(refused)) => format!("refused: {refused}"),
            Reply::Unknown(why) => format!("unknown: {why}"),
            Reply::Read(Ok(read)) => format!("reads at {}", read.index),
            Reply::Read(Err(refused)) => format!("no read: {refused}"),
            Reply::Operator(result) => format!("{result:?}"),
        };
        self.trace.line(at, name, format_args!("answer {} to {asked:?}: {told}", token.0));
        match (asked, reply) {
            (Asked::Write(id), Reply::Commit(Ok(committed))) => {
                let index = committed.index.0;
                self.committed += 1;
                self.fate(id, Fate::Committed);
                let before = self.entries.insert(index, id);
                self.unsafe_if(before.is_some(), "one-effect", || {
                    format!("entry {index} is told to be the write of {id} and of {before:?}")
                });
                self.unsafe_if(shown < index, "reads-own-write", || {
                    format!("{name} answers entry {index}, and shows {shown}")
                });
            }
            (Asked::Write(id), Reply::Commit(Err(_))) => self.fate(id, Fate::Refused),
            (Asked::Write(id), Reply::Unknown(_)) => {
                self.marks.hit(Mark::OutcomeUnknown);
                self.fate(id, Fate::Unknown);
            }
            (Asked::Read(floor, newest), Reply::Read(Ok(read))) => {
                self.reads += 1;
                self.unsafe_if(read.index.0 < floor, "linearizable", || {
                    format!("a read on {name} may be answered from entry {}, and entry {floor} was acknowledged before it", read.index)
                });
                self.unsafe_if(shown < read.index.0, "linearizable", || {
                    format!("a read on {name} waits for entry {}, and is answered at {shown}", read.index)
                });
                if let (Some(id), Some(published)) = (newest, published) {
                    let there = Ledger::holds(&published.snapshot, id);
                    self.unsafe_if(!there, "linearizable", || {
                        format!("a read on {name} does not see row {id}, which was acknowledged before it")
                    });
                }
            }
            _ => {}
        }
    }

    fn holds(snapshot: &Snapshot, id: i64) -> bool {
        let table = snapshot.catalog.iter().next();
        table.is_some_and(|table| matches!(snapshot.get(&row_key(table.id, id)), Ok(Some(_))))
    }

    /// A node's state at the end: everything that was acknowledged, nothing that was refused.
    pub fn settled(&mut self, name: &str, snapshot: &Snapshot) {
        let mut wrong = None;
        for (id, (fate, _)) in &self.keys {
            let there = Ledger::holds(snapshot, *id);
            match fate {
                Fate::Committed if !there => {
                    wrong = Some(format!("{name} has lost row {id}, which was acknowledged"))
                }
                Fate::Refused if there => wrong = Some(format!("{name} has row {id}, which was refused")),
                _ => {}
            }
        }
        if let Some(what) = wrong {
            self.broken(Violation::safety("no-acked-write-lost", what));
        }
    }

    /// A node has made a turn.
    pub fn stepped(&mut self, name: &str, group: &GroupStatus) {
        if self.applied.get(name) == Some(&group.applied) {
            return;
        }
        self.applied.insert(name.to_owned(), group.applied);
        let (digest, first) =
            self.digests.entry(group.applied).or_insert_with(|| (group.digest, name.to_owned())).clone();
        self.unsafe_if(digest != group.digest, "digest", || {
            format!("{name} and {first} have different states at entry {}", group.applied)
        });
    }

    /// A node's process begins.
    pub fn started(&mut self, name: &str, expires: Timestamp) {
        self.applied.remove(name);
        self.expires.insert(name.to_owned(), expires);
    }

    /// A node shows another certificate from now on.
    pub fn rotated(&mut self, name: &str, expires: Timestamp) {
        self.marks.hit(Mark::CertificateRotated);
        self.expires.insert(name.to_owned(), expires);
    }

    /// A link that a node dialled is greeted.
    pub fn link_up(&mut self, here: &str, there: &str, now: Timestamp) {
        let ups = self.ups.entry((here.to_owned(), there.to_owned())).or_default();
        *ups += 1;
        if *ups > 1 {
            self.marks.hit(Mark::LinkCameBack);
        }
        for name in [here, there] {
            let expired = self.expires.get(name).is_some_and(|at| at.0 + HANDSHAKE_US < now.0);
            self.unsafe_if(expired, "certificates", || {
                format!("{here} links with {there}, though the certificate of {name} has expired")
            });
        }
    }

    /// A link was refused.
    pub fn refused(&mut self, why: &str) {
        if why.contains("expired") {
            self.marks.hit(Mark::ExpiredRefused);
        }
    }

    /// A frame came in.
    pub fn received(&mut self, lane: Lane) {
        if lane == Lane::Snapshot {
            self.marks.hit(Mark::SnapshotLaneUsed);
        }
    }

    /// A node says what happened in it.
    pub fn traced(&mut self, name: &str, note: &Note) {
        match note {
            Note::Elected { term, .. } => {
                let first = self.leaders.entry(*term).or_insert_with(|| name.to_owned()).clone();
                self.unsafe_if(first != name, "election-safety", || {
                    format!("{first} and {name} both lead term {term}")
                });
                if self.leaders.len() > 1 {
                    self.marks.hit(Mark::LeaderChanged);
                }
            }
            Note::SnapshotInstalled { .. } => self.marks.hit(Mark::SnapshotInstalled),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_engine::step::{Fresh, ReadAt};
    use chronos_engine::store::MemoryStore;
    use chronos_engine::txn::{Committed, Refused};
    use chronos_proto::id::{GroupId, Index};
    use std::sync::Arc;

    fn broken(ledger: &Ledger) -> Option<&'static str> {
        ledger.violation.as_ref().map(|violation| violation.checker)
    }

    fn shown(applied: u64) -> Published {
        let mut snapshot = Snapshot::empty(GroupId(0), Arc::new(MemoryStore::default()));
        snapshot.applied = Index(applied);
        Published { snapshot, clock: Default::default(), fresh: Fresh::Ask }
    }

    fn committed(index: u64) -> Reply {
        let (index, time) = (Index(index), Timestamp::EPOCH);
        Reply::Commit(Ok(Committed { index, time, outcomes: Vec::new() }))
    }

    fn write(ledger: &mut Ledger, id: i64, index: u64, shows: u64) {
        ledger.asked(Token(id as u64), Asked::Write(id), 0);
        ledger.answered(0, "n1", Token(id as u64), &committed(index), Some(&shown(shows)));
    }

    #[test]
    fn two_leaders_of_one_term_are_noticed() {
        let mut ledger = Ledger::new(false);
        let elected = |term| Note::Elected { group: GroupId(0), term };
        ledger.traced("n1", &elected(3));
        ledger.traced("n2", &elected(4));
        ledger.traced("n1", &elected(3));
        assert_eq!(broken(&ledger), None);
        ledger.traced("n2", &elected(3));
        assert_eq!(broken(&ledger), Some("election-safety"));
    }

    #[test]
    fn different_states_at_one_entry_are_noticed() {
        let mut ledger = Ledger::new(false);
        let status = |applied, digest| GroupStatus { applied, digest, ..GroupStatus::default() };
        ledger.stepped("n1", &status(7, 1));
        ledger.stepped("n2", &status(8, 2));
        ledger.stepped("n2", &status(9, 3));
        assert_eq!(broken(&ledger), None);
        ledger.stepped("n1", &status(9, 4));
        assert_eq!(broken(&ledger), Some("digest"));
    }

    #[test]
    fn a_lost_write_a_stale_read_and_a_second_answer_are_noticed() {
        let mut ledger = Ledger::new(false);
        write(&mut ledger, 1, 10, 10);
        assert_eq!(broken(&ledger), None);
        ledger.settled("n2", &shown(10).snapshot);
        assert_eq!(broken(&ledger), Some("no-acked-write-lost"));

        let mut ledger = Ledger::new(false);
        write(&mut ledger, 1, 10, 10);
        let asked = ledger.read();
        ledger.asked(Token(2), asked, 1);
        let stale = Reply::Read(Ok(ReadAt { index: Index(9), time: Timestamp::EPOCH }));
        ledger.answered(0, "n2", Token(2), &stale, Some(&shown(9)));
        assert_eq!(broken(&ledger), Some("linearizable"));

        let mut ledger = Ledger::new(false);
        write(&mut ledger, 1, 10, 10);
        ledger.answered(0, "n1", Token(1), &committed(10), None);
        assert_eq!(broken(&ledger), Some("one-effect"));

        let mut ledger = Ledger::new(false);
        write(&mut ledger, 1, 10, 9);
        assert_eq!(broken(&ledger), Some("reads-own-write"));
    }

    #[test]
    fn answers_that_died_with_their_node_may_go_either_way_and_refusals_may_not() {
        let mut ledger = Ledger::new(false);
        ledger.asked(Token(1), Asked::Write(1), 0);
        ledger.lost(0);
        ledger.asked(Token(2), Asked::Write(2), 1);
        ledger.answered(0, "n2", Token(2), &Reply::Commit(Err(Refused::NotLeader)), None);
        ledger.settled("n1", &shown(5).snapshot);
        assert_eq!((broken(&ledger), ledger.waiting()), (None, 0));
    }

    #[test]
    fn a_link_by_an_expired_certificate_is_noticed() {
        let mut ledger = Ledger::new(false);
        ledger.started("n1", Timestamp(100_000_000));
        ledger.started("n2", Timestamp(5_000_000));
        ledger.link_up("n1", "n2", Timestamp(8_000_000));
        assert_eq!(broken(&ledger), None);
        ledger.link_up("n1", "n2", Timestamp(10_000_000));
        assert_eq!(broken(&ledger), Some("certificates"));
    }
}
