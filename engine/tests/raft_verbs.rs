//! One group's life, told in every verb of [`Raft`]. Read it beside the essay in `engine/src/raft/mod.rs`: this is all
//! there is to driving it.
//!
//! A member is told things by its verbs, and what it wants is taken from it by `outputs`. Whoever drives it decides when
//! a write is finished, which message arrives and which is lost, and what time it is.

use chronos_engine::raft::{
    Change, ChangeError, Output, Pace, ProposeError, Raft, Recovered, Role, Settings, TransferError,
};
use chronos_engine::rng::Rng;
use chronos_proto::command::{Command, Op};
use chronos_proto::id::{GroupId, Index, NodeId, RelationId, RequestId, SessionId, Term};
use chronos_proto::membership::Configuration;
use chronos_proto::raft::{LogId, Message};
use chronos_proto::time::Instant;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
const N4: NodeId = NodeId(4);

/// Everything around the members: their disks, the network, a clock, and a state machine that remembers texts.
struct World {
    rafts: BTreeMap<NodeId, Raft>,
    /// Writes that are not finished.
    writing: BTreeMap<NodeId, VecDeque<u64>>,
    /// Whose writes stay unfinished until [`World::finish`].
    held: BTreeSet<NodeId>,
    /// Messages under way: from, to.
    wire: VecDeque<(NodeId, NodeId, Message)>,
    applied: BTreeMap<NodeId, (Index, Vec<String>)>,
    /// Answers to reads: who, number, from where on.
    answers: Vec<(NodeId, u64, Option<Index>)>,
    snapshots_wanted: Vec<(NodeId, NodeId)>,
    installs_wanted: Vec<(NodeId, LogId, Configuration)>,
    now: Instant,
}

impl World {
    fn new() -> World {
        let mut world = World {
            rafts: BTreeMap::new(),
            writing: BTreeMap::new(),
            held: BTreeSet::new(),
            wire: VecDeque::new(),
            applied: BTreeMap::new(),
            answers: Vec::new(),
            snapshots_wanted: Vec::new(),
            installs_wanted: Vec::new(),
            now: Instant(0),
        };
        let three = Configuration::of([N1, N2, N3]);
        [N1, N2, N3].into_iter().for_each(|id| world.begin(id, three.clone()));
        world
    }

    /// A member with an empty disk.
    fn begin(&mut self, id: NodeId, configuration: Configuration) {
        let recovered = Recovered::empty(configuration);
        let raft = Raft::new(Settings::default(), GroupId(0), id, Rng::new(id.0), self.now, recovered);
        self.rafts.insert(id, raft);
        self.settle(id);
    }

    /// Does something to a member, and then what it wants.
    fn at<T>(&mut self, id: NodeId, verb: impl FnOnce(&mut Raft) -> T) -> T {
        let result = verb(self.rafts.get_mut(&id).expect("a member"));
        self.settle(id);
        result
    }

    fn settle(&mut self, id: NodeId) {
        let raft = self.rafts.get_mut(&id).expect("a member");
        let mut outputs = Vec::new();
        raft.outputs(&mut outputs);
        for output in outputs {
            match output {
                // A real disk writes the record; only its number comes back.
                Output::Persist { write, record: _ } => self.writing.entry(id).or_default().push_back(write),
                Output::Send { to, message } => self.wire.push_back((id, to, message)),
                Output::Read { number, index } => self.answers.push((id, number, index)),
                Output::SendSnapshot { to } => self.snapshots_wanted.push((id, to)),
                Output::Install { last, configuration } => {
                    self.installs_wanted.push((id, last, configuration));
                }
                Output::Role { .. } | Output::Trusted => {}
            }
        }
        if !self.held.contains(&id) {
            self.finish(id);
        }
        self.apply(id);
    }

    /// A member's disk finishes all that it was told to write.
    fn finish(&mut self, id: NodeId) {
        if let Some(last) = self.writing.remove(&id).and_then(|writes| writes.back().copied()) {
            self.at(id, |raft| raft.durable(last));
        }
    }

    fn apply(&mut self, id: NodeId) {
        let raft = self.rafts.get_mut(&id).expect("a member");
        let (applied, texts) = self.applied.entry(id).or_default();
        while let Some(entry) = raft.next_committed(*applied) {
            *applied = entry.index;
            texts.extend(text(&entry.command));
        }
        raft.applied(*applied);
    }

    /// Every message arrives, and what follows from it, until nobody says anything.
    fn deliver_all(&mut self) {
        while let Some((from, to, message)) = self.wire.pop_front() {
            let now = self.now;
            self.at(to, |raft| raft.receive(now, from, message));
        }
    }

    /// Messages of one kind that are under way arrive; the others stay there.
    fn deliver(&mut self, kind: &str) {
        let (arriving, staying): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.wire).into_iter().partition(|(.., message)| message.kind() == kind);
        self.wire = staying;
        for (from, to, message) in arriving {
            let now = self.now;
            self.at(to, |raft| raft.receive(now, from, message));
        }
    }

    /// Messages to a member are lost.
    fn drop_to(&mut self, id: NodeId) {
        self.wire.retain(|(_, to, _)| *to != id);
    }

    fn kinds_to(&self, id: NodeId) -> Vec<&'static str> {
        self.wire.iter().filter(|(_, to, _)| *to == id).map(|(.., message)| message.kind()).collect()
    }

    /// Time passes for one member.
    fn tick_after(&mut self, id: NodeId, micros: u64) {
        self.now = Instant(self.now.0 + micros);
        let now = self.now;
        self.at(id, |raft| raft.tick(now));
    }

    fn propose(&mut self, id: NodeId, text: &str) -> Result<Index, ProposeError> {
        self.at(id, |raft| {
            let (time, stamp) = (raft.last_time(), raft.last_stamp() + 1);
            raft.propose(time, stamp, command(text))
        })
    }

    fn raft(&self, id: NodeId) -> &Raft {
        &self.rafts[&id]
    }

    fn texts(&self, id: NodeId) -> Vec<&str> {
        self.applied[&id].1.iter().map(String::as_str).collect()
    }
}

/// Raft does not look into a command; this one carries a text.
fn command(text: &str) -> Arc<Command> {
    let request = RequestId { session: SessionId(0), sequence: 0, floor: 0 };
    let row = bytes::Bytes::copy_from_slice(text.as_bytes());
    let ops = vec![Op::AppendRow { relation: RelationId(16), row, indexes: Vec::new() }];
    Arc::new(Command::Batch { request, ops })
}

fn text(command: &Command) -> Option<String> {
    let Command::Batch { ops, .. } = command else { return None };
    let [Op::AppendRow { row, .. }] = &ops[..] else { return None };
    Some(String::from_utf8_lossy(row).into_owned())
}

#[test]
fn a_groups_life_in_every_verb() {
    let mut world = World::new();

    // campaign. Would the others vote? Only then a term begins, and the vote for oneself must be durable before anybody
    // is asked for theirs.
    world.held.insert(N1);
    world.at(N1, |raft| raft.campaign(Instant(1)));
    assert_eq!(world.raft(N1).role(), Role::PreCandidate);
    world.deliver("PreVote");
    world.deliver("PreVoteReply");
    assert_eq!((world.raft(N1).role(), world.raft(N1).term()), (Role::Candidate, Term(1)));
    assert!(world.wire.is_empty(), "asked before its own vote is durable");
    world.finish(N1);
    assert_eq!(world.kinds_to(N2), ["Vote"]);
    world.deliver_all();
    assert_eq!(world.raft(N1).status().role, Role::Leader);
    assert_eq!(world.raft(N2).status().vote, Some(N1));
    assert_eq!(world.raft(N3).leader(), Some(N1));

    // A write that is held holds back what depends on it: the leader's own entry is committed by the two others, and is
    // not applied here before it is durable here.
    assert!(world.raft(N1).ready(), "its first entry is committed");
    assert_eq!((world.raft(N1).committed(), world.raft(N1).persisted()), (Index(1), Index(0)));
    assert_eq!(world.raft(N1).next_committed(Index(0)), None);
    world.held.remove(&N1);
    world.finish(N1);
    assert_eq!(world.applied[&N1].0, Index(1));

    // propose; deliver, or drop. A majority is enough, and the third hears of it later.
    assert_eq!(world.propose(N2, "x"), Err(ProposeError::NotLeader));
    assert_eq!(world.propose(N1, "a"), Ok(Index(2)));
    world.drop_to(N3);
    world.deliver_all();
    assert_eq!(world.texts(N1), ["a"]);
    assert_eq!(world.raft(N3).log().last().index, Index(1));

    // tick. The next heartbeat's answers show what was lost, and it is sent again.
    for _ in 0..2 {
        world.tick_after(N1, 100_000);
        world.deliver_all();
    }
    world.tick_after(N1, 100_000);
    world.deliver_all();
    assert_eq!((world.texts(N2), world.texts(N3)), (vec!["a"], vec!["a"]));

    // read. A round of heartbeats that begins after it shows that nobody else leads.
    assert!(world.at(N1, |raft| raft.read(7)));
    assert!(!world.at(N2, |raft| raft.read(8)), "only a leader knows");
    assert!(world.answers.is_empty());
    world.deliver_all();
    assert_eq!(world.answers, [(N1, 7, Some(Index(2)))]);

    // change_membership. A learner first, then a vote, through a joint configuration that is left by itself.
    world.begin(N4, Configuration::default());
    assert_eq!(world.at(N1, |raft| raft.change_membership(&[Change::AddLearner(N4)])), Ok(Index(3)));
    let two_at_once = world.at(N1, |raft| raft.change_membership(&[Change::Remove(N3)]));
    assert_eq!(two_at_once, Err(ChangeError::Pending));
    world.deliver_all();
    assert!(world.raft(N4).configuration().learners.contains(&N4));
    assert_eq!(
        world.at(N1, |raft| raft.change_membership(&[Change::AddVoter(N4), Change::Remove(N3)])),
        Ok(Index(4))
    );
    assert!(world.raft(N1).configuration().is_joint());
    world.deliver_all();
    let status = world.raft(N1).status();
    assert_eq!(status.configuration, Configuration::of([N1, N2, N4]));
    assert_eq!(status.followers.keys().copied().collect::<Vec<_>>(), [N2, N4]);
    assert_eq!(status.followers[&N4], (Index(5), Pace::Replicate));

    // unreachable. What was on its way may be lost: the follower is probed before it is fed again. What is compacted
    // meanwhile it gets as a snapshot.
    world.at(N1, |raft| raft.unreachable(N4));
    assert_eq!(world.raft(N1).status().followers[&N4].1, Pace::Probe);
    for text in ["b", "c"] {
        world.propose(N1, text).expect("it leads");
        world.drop_to(N4);
        world.deliver_all();
    }
    let applied = world.applied[&N1].0;
    world.at(N1, |raft| raft.compact(applied));
    assert_eq!(world.raft(N1).status().base.index, applied);
    for _ in 0..2 {
        world.tick_after(N1, 100_000);
        world.deliver_all();
    }
    assert_eq!(world.snapshots_wanted, [(N1, N4)]);
    assert_eq!(world.raft(N1).status().followers[&N4].1, Pace::Snapshot);
    // The bytes travel beside; once they are there, Raft's own word follows, and the sender goes on.
    let last = world.raft(N1).log().base();
    let configuration = world.raft(N1).settled_configuration(last.index).expect("settled").clone();
    let state = world.applied[&N1].clone();
    let message = Message::Snapshot { term: world.raft(N1).term(), last, configuration };
    world.wire.push_back((N1, N4, message));
    world.at(N1, |raft| raft.snapshot_sent(N4, Some(last)));
    world.deliver_all();
    let (to, last, configuration) = world.installs_wanted.pop().expect("put it in place");
    assert_eq!((to, last.index), (N4, applied));
    world.applied.insert(N4, state);
    let (time, stamp) = (world.raft(N1).last_time(), world.raft(N1).last_stamp());
    world.at(N4, |raft| raft.installed(last, configuration, time, stamp, true));
    world.deliver_all();
    world.propose(N1, "d").expect("it leads");
    world.deliver_all();
    world.tick_after(N1, 100_000);
    world.deliver_all();
    assert_eq!(world.texts(N4), ["a", "b", "c", "d"]);
    assert_eq!(world.raft(N1).status().followers[&N4].1, Pace::Replicate);

    // transfer. The successor is brought up to date and told to campaign at once; proposals wait meanwhile.
    assert_eq!(world.at(N1, |raft| raft.transfer(N3)), Err(TransferError::NotVoter(N3)));
    assert_eq!(world.at(N1, |raft| raft.transfer(N2)), Ok(()));
    assert_eq!(world.propose(N1, "e"), Err(ProposeError::Transferring));
    assert_eq!(world.raft(N1).status().transfer, Some(N2));
    world.deliver_all();
    assert_eq!((world.raft(N2).role(), world.raft(N1).leader()), (Role::Leader, Some(N2)));
    assert_eq!(world.raft(N2).term(), Term(2));

    // Time alone: a leader that nobody answers gives up within two election timeouts, by its own deadlines.
    let silent_from = world.now;
    while world.raft(N2).role() == Role::Leader {
        let next = world.raft(N2).next_deadline().expect("a leader has something to do");
        let wait = next.micros_since(world.now);
        world.tick_after(N2, wait);
        world.wire.clear();
        assert!(world.now.micros_since(silent_from) <= 2 * Settings::default().election_timeout_us);
    }
    assert_eq!(world.raft(N2).leader(), None);
}
