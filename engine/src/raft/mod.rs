//! Raft, one group's member: terms, votes, the log, replication, membership, and what is committed (Ongaro and
//! Ousterhout, "In Search of an Understandable Consensus Algorithm", extended version; Ongaro's dissertation for
//! pre-vote, 9.6, check-quorum, 6.2, leadership transfer, 3.10, and reads, 6.4).
//!
//! [`Raft`] decides and asks; it writes and sends nothing. It is driven by verbs, and what it wants is taken from it by
//! [`Raft::outputs`]:
//!
//! ```text
//! tick(now)  receive(now, from, message)  durable(write)          Output::Persist { write, record }
//! campaign   propose   change_membership  transfer   read   ──>   Output::Send { to, message }
//! compact    applied   unreachable        installed               Output::Read, SendSnapshot, Install, Role
//!                      learn_committed    snapshot_sent
//! wake       leader_silent
//! ```
//!
//! **Driving it.** After every verb, and after every [`Raft::tick`] at [`Raft::next_deadline`], take the outputs and do
//! them. Writes are made durable in the order of their numbers, by one disk, and may be finished together; messages may
//! be lost, doubled, late and out of order. What [`Raft::next_committed`] gives is applied in order, and then said with
//! [`Raft::applied`]. Time never goes back: each member has a monotonic clock of its own, and nobody compares two.
//! [`Raft::status`] and [`Raft::log`] tell all that there is to see. `tests/raft_verbs.rs` is one story with every verb in
//! it; `tests/raft/scripts` hold a transcript for each claim made here.
//!
//! **Durability is an input.** A record is asked for with a number, and the promise that depends on it is made when
//! [`Raft::durable`] says that this write is done: a vote is told once it is on the medium, entries are acknowledged
//! and counted once they are. So every message may be sent as soon as it is given out, and a write that is held back
//! holds back exactly what it must. The leader's own append goes on beside the followers'. What was promised about
//! entries that have been cut off since is forgotten: an end of their write counts for nothing.
//!
//! **Elections.** A member that hears no leader for a random time between one and two election timeouts asks first
//! whether it would win (pre-vote), and only then begins a term. Voters refuse while they hear a leader themselves
//! (stickiness), and a leader that hears no quorum for an election timeout steps down (check-quorum), as does one whose
//! own disk has not finished a write for that long: heartbeats do not outlive storage. A lower term's leader or
//! candidate is told of the higher term, so nobody is stuck. Members vote whether or not they know that they may: it is
//! the candidate's configuration that counts.
//!
//! **Replication.** Each follower is probed until its log agrees, then gets a stream of appends within a window of
//! messages and bytes. Lost ones are noticed by the heartbeat's answer and asked for again from where it stuck. A
//! follower that is behind the log's base gets a snapshot, whose bytes travel beside: [`Output::SendSnapshot`], then
//! [`Message::Snapshot`] once they are there, [`Output::Install`], and [`Raft::installed`].
//!
//! **Commit.** By counting, only from the leader's own first entry on (figure 8 of the paper). In a joint configuration
//! both majorities count.
//!
//! **Reads.** [`Raft::read`] waits for an own-term commit and for a round of heartbeats begun after it. Where leases are
//! on, the last confirmed round holds for an election timeout less an allowance for clocks that differ: nobody who heard
//! a leader, or has just started, votes or campaigns before that is over. Only a transfer breaks this promise, so a leader
//! that has told another to campaign takes no lease again in its term.
//!
//! **Doubt.** A member whose disk may have lost acknowledged entries (see `returning`) neither votes nor campaigns until a
//! leader has caught it up. Its driver must not bring messages of its life before the stop to a leader that has heard of
//! the return; links do not, since those of the earlier life have ended.
//!
//! The chain that always holds: log base ≤ committed ≤ last, and persisted ≤ last. What is applied is both committed and
//! persisted here. (Committed ≤ persisted does not hold: a quorum may do without this member's disk.)
//!
//! **Rest.** With [`Settings::rest_after_us`] a group that has been quiet for so long stops its timers (see `rest`). Then
//! the driver has to say when the other members' nodes are silent.
//!
//! Not implemented: witnesses; reading entries back from the WAL for slow followers (they get a snapshot).

mod election;
mod log;
mod membership;
mod progress;
mod quorum;
mod read;
mod replication;
mod rest;
mod returning;

pub use log::Log;
pub use membership::{Change, ChangeError, apply_change, leave_joint};
pub use progress::Pace;
pub use quorum::{VoteResult, committed_index, vote_result};

use crate::rng::Rng;
use crate::wal::{Compacted, HardState, Record};
use chronos_proto::command::{Command, Entry};
use chronos_proto::id::{GroupId, Index, NodeId, Term};
use chronos_proto::membership::Configuration;
use chronos_proto::raft::{LogId, Message};
use chronos_proto::time::{Instant, Timestamp};
use membership::Memberships;
use progress::Progress;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a member is in its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Follows, or waits.
    #[default]
    Follower,
    /// Asks whether it would win an election.
    PreCandidate,
    /// Has voted for itself, and waits for a quorum of votes.
    Candidate,
    /// Won the term's election.
    Leader,
}

/// Times and bounds. Times are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// A leader that was not heard for this long may be replaced; elections begin at a random time up to twice this.
    pub election_timeout_us: u64,
    /// Between heartbeats. Beats of all groups of a node fall on the same moments.
    pub heartbeat_us: u64,
    /// Entries of one append end once it has this many bytes.
    pub append_bytes_max: usize,
    /// Appends to one follower that are not answered.
    pub inflight_max: usize,
    /// Their bytes.
    pub inflight_bytes_max: u64,
    /// Bytes of proposed and not committed entries, beyond which proposals are refused.
    pub uncommitted_bytes_max: u64,
    /// Bytes of applied entries that are kept in memory for followers that are behind.
    pub kept_bytes_max: u64,
    /// Whether leases are used: a member that starts then gives no vote for an election timeout.
    pub leases: bool,
    /// How much slower than another's clock a clock may run, in thousandths: a lease is shorter by this much.
    pub drift_permille: u64,
    /// A group rests once nothing has happened in it for so long; 0 for never, which is right for a driver that does not
    /// say [`Raft::leader_silent`].
    pub rest_after_us: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            election_timeout_us: 600_000,
            heartbeat_us: 100_000,
            append_bytes_max: 1 << 20,
            inflight_max: 256,
            inflight_bytes_max: 16 << 20,
            uncommitted_bytes_max: 256 << 20,
            kept_bytes_max: 32 << 20,
            leases: false,
            drift_permille: 100,
            rest_after_us: 0,
        }
    }
}

/// One thing that a member wants done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Make this durable, behind what was asked for before, and say [`Raft::durable`] with its number.
    Persist {
        /// Its number, ascending.
        write: u64,
        /// What to write.
        record: Record,
    },
    /// Send this; it may be lost, late or doubled.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// A read may be answered from a state at this index or later; none if the member does not lead any more.
    Read {
        /// The read.
        number: u64,
        /// From where on.
        index: Option<Index>,
    },
    /// A follower is behind the log: stream it a snapshot of the applied state, then say [`Raft::snapshot_sent`].
    SendSnapshot {
        /// To whom.
        to: NodeId,
    },
    /// Put the received state at `last` in place, then say [`Raft::installed`].
    Install {
        /// The last entry in it.
        last: LogId,
        /// The members at that entry.
        configuration: Configuration,
    },
    /// A leader has caught up a member that may have lost what it acknowledged: it takes part again.
    Trusted,
    /// The role, the term or the known leader has changed.
    Role {
        /// The role.
        role: Role,
        /// In this term.
        term: Term,
        /// Who leads, as far as it knows.
        leader: Option<NodeId>,
    },
}

/// Why a command was not proposed. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This member does not lead.
    #[error("this member does not lead the group")]
    NotLeader,
    /// Leadership is being handed over.
    #[error("leadership is being transferred: try again in a moment")]
    Transferring,
    /// Too much waits for a quorum.
    #[error("{0} bytes wait for a quorum: try again later")]
    Backlog(u64),
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This member does not lead.
    #[error("this member does not lead the group: ask its leader")]
    NotLeader,
    /// It has no vote.
    #[error("node {0} is not another voter of the group")]
    NotVoter(NodeId),
    /// Another transfer is under way.
    #[error("leadership is being transferred to node {0} already")]
    Pending(NodeId),
}

/// One member's state in one group. See the [essay](self) above.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Raft {
    settings: Settings,
    group: GroupId,
    id: NodeId,
    rng: Rng,
    now: Instant,

    hard: HardState,
    role: Role,
    leader: Option<NodeId>,
    /// Role, term and leader as they were given out last.
    told: (Role, Term, Option<NodeId>),
    log: Log,
    memberships: Memberships,
    /// The greatest time and stamp in the log or before it.
    last_time: Timestamp,
    last_stamp: u64,

    /// The last index that is durable here, of those that are still in the log.
    persisted: Index,
    next_write: u64,
    /// Writes asked for, with what each makes durable.
    writing: VecDeque<Writing>,
    /// Follower: the log agrees with the leader's up to here, durably or not.
    verified: Index,
    /// Follower: the leader waits to hear how much is durable.
    owes_appended: bool,
    installing: Option<LogId>,
    /// It has nothing, and there may be a cluster that knows better: it neither votes nor campaigns.
    unfounded: bool,
    /// What it promised before its last stop may be lost.
    doubt: Option<returning::Doubt>,

    /// No vote while a leader is heard, until then.
    sticky_until: Instant,
    election_at: Instant,
    votes: BTreeMap<NodeId, bool>,
    /// The election was asked for by the leader.
    transferred: bool,

    progress: BTreeMap<NodeId, Progress>,
    /// The index of this leader's first entry: nothing is committed by counting before it is.
    own_term_from: Index,
    heartbeat_at: Instant,
    quorum_check_at: Instant,
    transfer: Option<(NodeId, Instant)>,
    reads: read::Reads,
    rest: rest::Rest,
    /// When something happened in the group last.
    busy_at: Instant,
    /// There may be something to send to followers.
    fresh: bool,

    #[serde(skip)]
    outputs: Vec<Output>,
}

/// A write that is not durable yet.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Writing {
    write: u64,
    asked_at: Instant,
    makes: Makes,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Makes {
    /// Entries up to here durable, unless they have been cut.
    Entries(Index),
    /// This term's vote durable; a voter tells the candidate.
    Vote { term: Term, to: NodeId },
    /// Something that nobody waits for.
    Other,
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in this term.
    pub vote: Option<NodeId>,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// What it knows to be committed.
    pub committed: Index,
    /// What is durable here.
    pub persisted: Index,
    /// The end of its log.
    pub last: LogId,
    /// The place before the first entry in memory.
    pub base: LogId,
    /// The members in force.
    pub configuration: Configuration,
    /// A leader's followers: where each log is known to agree, and how it is fed.
    pub followers: BTreeMap<NodeId, (Index, Pace)>,
    /// To whom leadership is being handed over.
    pub transfer: Option<NodeId>,
    /// It may have lost what it acknowledged, and neither votes nor campaigns until a leader has caught it up.
    pub doubtful: bool,
}

/// A member as its disk left it.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Term, vote and commit.
    pub hard: HardState,
    /// Its log.
    pub log: Log,
    /// What is applied already.
    pub applied: Index,
    /// Up to where the log is known to be durable; the rest is once [`Raft::durable`] is said of write 0.
    pub persisted: Index,
    /// The members at that index.
    pub configuration: Configuration,
    /// The greatest time in the log or before it.
    pub last_time: Timestamp,
    /// The greatest stamp in the log or before it.
    pub last_stamp: u64,
    /// Nothing was ever written here, and whether the group has begun is to be found out: until [`Raft::found`], or
    /// entries from a leader, it neither votes nor campaigns.
    pub unfounded: bool,
    /// The end of the log may be lost, although it was acknowledged. Never so for terms, votes and members.
    pub doubtful: bool,
}

impl Recovered {
    /// A member whose disk is empty. With an empty configuration it waits to be taken into the group by a leader.
    pub fn empty(configuration: Configuration) -> Recovered {
        Recovered {
            hard: HardState::default(),
            log: Log::default(),
            applied: Index(0),
            persisted: Index(0),
            configuration,
            last_time: Timestamp::EPOCH,
            last_stamp: 0,
            unfounded: false,
            doubtful: false,
        }
    }
}

impl Raft {
    /// A member as its disk left it; of a group of one, [`Raft::campaign`] makes it lead at once.
    pub fn new(
        settings: Settings,
        group: GroupId,
        id: NodeId,
        rng: Rng,
        now: Instant,
        recovered: Recovered,
    ) -> Raft {
        let Recovered { hard, log, applied, persisted, configuration, last_time, last_stamp, .. } = recovered;
        let (unfounded, doubtful) = (recovered.unfounded, recovered.doubtful);
        let last = log.last().index;
        let commit = hard.commit.max(applied).max(log.base().index);
        assert!(commit <= last, "commit {commit} is beyond the recovered log {last}");
        let mut memberships = Memberships::new(applied, configuration);
        let mut index = applied.next();
        while let Some(entry) = log.get(index) {
            if let Command::Membership(configuration) = &*entry.command {
                memberships.push(index, configuration.clone());
            }
            index = index.next();
        }
        // Members are never lost: who decided alone still does, and nobody else has what it lost.
        let doubtful = doubtful && !memberships.current().is_alone(id);
        // Whoever voted or promised a lease before the stop keeps to it.
        let sticky = if settings.leases && hard.term > Term(0) { settings.election_timeout_us } else { 0 };
        let mut raft = Raft {
            settings,
            group,
            id,
            rng,
            now,
            hard: HardState { commit, ..hard },
            role: Role::Follower,
            leader: None,
            told: (Role::Follower, hard.term, None),
            persisted: persisted.max(log.base().index).min(last),
            log,
            memberships,
            last_time,
            last_stamp,
            next_write: 1,
            writing: [Writing { write: 0, asked_at: now, makes: Makes::Entries(last) }].into(),
            verified: Index(0),
            owes_appended: false,
            installing: None,
            unfounded,
            doubt: doubtful.then_some(returning::Doubt::Untold),
            sticky_until: Instant(now.0 + sticky),
            election_at: now,
            votes: BTreeMap::new(),
            transferred: false,
            progress: BTreeMap::new(),
            own_term_from: Index(u64::MAX),
            heartbeat_at: now,
            quorum_check_at: now,
            transfer: None,
            reads: read::Reads::default(),
            rest: rest::Rest::No,
            busy_at: now,
            fresh: false,
            outputs: Vec::new(),
        };
        raft.draw_election();
        raft
    }

    // Getters

    /// Its group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Itself.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// Whom it votes for in this term; told to nobody before it is durable.
    pub fn vote(&self) -> Option<NodeId> {
        self.hard.vote
    }

    /// The current role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Who leads, as far as it knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Whether it leads, or has heard its leader within an election timeout. One without a vote knows its last leader
    /// for longer than that.
    pub fn hears_leader(&self, now: Instant) -> bool {
        let heard = self.election_at.0 > now.0 || self.is_resting();
        self.role == Role::Leader || self.leader.is_some() && heard
    }

    /// The log in memory.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The commit index, as far as this member knows it. After a restart it is found again.
    pub fn committed(&self) -> Index {
        self.hard.commit
    }

    /// The last index that is durable here.
    pub fn persisted(&self) -> Index {
        self.persisted
    }

    /// The greatest time in the log or before it: an entry's is never below the one before.
    pub fn last_time(&self) -> Timestamp {
        self.last_time
    }

    /// The greatest stamp in the log or before it.
    pub fn last_stamp(&self) -> u64 {
        self.last_stamp
    }

    /// The members in force: the newest in the log, committed or not.
    pub fn configuration(&self) -> &Configuration {
        self.memberships.current()
    }

    /// The members at `index`, if that is known still: the newest at or below it must be settled.
    pub fn settled_configuration(&self, index: Index) -> Option<&Configuration> {
        (self.memberships.since() <= index).then(|| self.memberships.current())
    }

    /// Whether it leads and has committed an entry of its own term: only then it knows all that is committed
    /// (section 8 of the paper).
    pub fn ready(&self) -> bool {
        self.role == Role::Leader && self.hard.commit >= self.own_term_from
    }

    /// The index of this leader's first entry; the greatest index there is before it leads.
    pub fn own_term_from(&self) -> Index {
        self.own_term_from
    }

    /// Whether it waits to be told that nobody knows better; see [`Recovered::unfounded`].
    pub fn is_unfounded(&self) -> bool {
        self.unfounded && self.log.last().index == Index(0)
    }

    /// All there is to know.
    pub fn status(&self) -> Status {
        Status {
            role: self.role,
            term: self.hard.term,
            vote: self.hard.vote,
            leader: self.leader,
            committed: self.hard.commit,
            persisted: self.persisted,
            last: self.log.last(),
            base: self.log.base(),
            configuration: self.configuration().clone(),
            followers: self.progress.iter().map(|(id, p)| (*id, (p.matched, p.pace))).collect(),
            transfer: self.transfer.map(|(to, _)| to),
            doubtful: self.doubt.is_some(),
        }
    }

    /// When the next [`Raft::tick`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.rest {
            rest::Rest::Yes => return None,
            rest::Rest::Waking => return Some(self.now),
            rest::Rest::No | rest::Rest::Offered(_) => {}
        }
        if self.role == Role::Leader {
            let alone = self.configuration().is_alone(self.id) && self.progress.is_empty();
            let transfer = self.transfer.map(|(_, until)| until);
            let beats = [self.heartbeat_at, self.quorum_check_at].into_iter().filter(|_| !alone);
            return beats.chain(transfer).min();
        }
        self.may_campaign().then_some(self.election_at)
    }

    // Verbs

    /// Time passes: elections, heartbeats, the check of the quorum, the end of a transfer's patience. Nothing happens
    /// before [`Raft::next_deadline`], and being late only delays what is due.
    pub fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.is_resting() {
            return;
        }
        self.wake_up();
        if self.role == Role::Leader {
            self.tick_leader();
        } else if self.now >= self.election_at {
            self.draw_election();
            if self.may_campaign() {
                self.pre_campaign();
            }
        }
    }

    /// The group has not begun elsewhere, or somebody who knows it counts this member as one: it takes part.
    pub fn found(&mut self) {
        if std::mem::take(&mut self.unfounded) {
            self.draw_election();
        }
    }

    /// Takes a message of another member, as it was sent: the driver knows that it comes from `from`.
    pub fn receive(&mut self, now: Instant, from: NodeId, message: Message) {
        self.now = self.now.max(now);
        if from == self.id {
            return;
        }
        self.stirred_by(&message);
        if !self.heed_term(from, &message) {
            return;
        }
        match message {
            Message::PreVote { term, last } => self.vote_asked(from, term, last, None),
            Message::Vote { term, last, transfer } => self.vote_asked(from, term, last, Some(transfer)),
            // A grant is for the term that would come next: an older one says nothing of this round.
            Message::PreVoteReply { term, granted } if !granted || term == self.hard.term.next() => {
                self.vote_given(from, granted, Role::PreCandidate);
            }
            Message::PreVoteReply { .. } => {}
            Message::VoteReply { granted, .. } => self.vote_given(from, granted, Role::Candidate),
            Message::Append { previous, entries, commit, .. } => {
                self.follow(from);
                self.append_asked(from, previous, entries, commit);
            }
            Message::Heartbeat { commit, round, .. } => {
                self.follow(from);
                self.commit_to(commit.min(self.verified));
                self.say_returned(from);
                let term = self.hard.term;
                self.send(from, Message::HeartbeatReply { term, round });
            }
            Message::Snapshot { last, configuration, .. } => {
                self.follow(from);
                self.snapshot_asked(from, last, configuration);
            }
            Message::Appended { matched, .. } => self.appended(from, matched),
            Message::AppendRejected { previous, hint, .. } => self.append_rejected(from, previous, hint),
            Message::HeartbeatReply { round, .. } => self.heartbeat_answered(from, round),
            Message::TimeoutNow { .. } => self.timeout_now(),
            Message::Returned { .. } => self.returned(from),
            Message::Readmit { term, index } => self.readmitted(term, index),
            Message::Rest { last, round, .. } => {
                self.follow(from);
                self.rest_offered(from, last, round);
            }
            Message::Resting { round, .. } => self.rest_agreed(from, round),
        }
    }

    /// Write `write` of [`Output::Persist`] and all before it are durable. Write 0 is the log as it was recovered.
    pub fn durable(&mut self, write: u64) {
        let before = self.persisted;
        while let Some(done) = self.writing.pop_front_if(|writing| writing.write <= write) {
            match done.makes {
                Makes::Entries(index) => self.persisted = self.persisted.max(index),
                Makes::Vote { term, to } => self.vote_durable(term, to),
                Makes::Other => {}
            }
        }
        assert!(self.persisted <= self.log.last().index, "durable {} is beyond the log", self.persisted);
        if self.role == Role::Leader {
            if self.persisted > before {
                self.advance_commit();
            }
        } else {
            self.tell_appended();
        }
    }

    /// Proposes a command as the next entry; its index comes back, and it is committed once [`Raft::next_committed`] gives
    /// an entry of this term there. Its time must not be below [`Raft::last_time`] nor its stamp at or below
    /// [`Raft::last_stamp`].
    pub fn propose(
        &mut self,
        time: Timestamp,
        stamp: u64,
        command: Arc<Command>,
    ) -> Result<Index, ProposeError> {
        if self.role != Role::Leader {
            return Err(ProposeError::NotLeader);
        }
        if self.transfer.is_some() {
            return Err(ProposeError::Transferring);
        }
        let waiting = self.log.bytes_above(self.hard.commit);
        if waiting > self.settings.uncommitted_bytes_max {
            return Err(ProposeError::Backlog(waiting));
        }
        assert!(time >= self.last_time, "time would go back: {time} behind {}", self.last_time);
        Ok(self.append_own(time, stamp, command))
    }

    /// Changes the members: one step for learners, two (through a joint configuration) for voters. The index of the first
    /// comes back; the leader takes the second by itself once the first is committed.
    pub fn change_membership(&mut self, changes: &[Change]) -> Result<Index, ChangeError> {
        if self.role != Role::Leader {
            return Err(ChangeError::NotLeader);
        }
        if !self.ready() {
            return Err(ChangeError::NotReady);
        }
        if self.memberships.since() > self.hard.commit || self.configuration().is_joint() {
            return Err(ChangeError::Pending);
        }
        let next = apply_change(self.configuration(), changes)?;
        Ok(self.append_of_its_own(Command::Membership(next)))
    }

    /// Everything up to `index` is applied, and need not be kept but for followers that are behind.
    pub fn applied(&mut self, index: Index) {
        assert!(index <= self.hard.commit, "applied {index} is beyond the commit index {}", self.hard.commit);
        self.memberships.settle(index);
        if self.configuration().is_alone(self.id) && self.progress.is_empty() {
            return self.log.forget_through(index);
        }
        while self.log.bytes_above(self.log.base().index) > self.settings.kept_bytes_max
            && self.log.base().index < index
        {
            self.log.forget_through(self.log.base().index.next());
        }
    }

    /// Drops entries up to `through` from memory, which must be applied: followers that need them get a snapshot. Nothing
    /// that may still have to be applied goes: nothing above the commit index or above what is durable here.
    pub fn compact(&mut self, through: Index) {
        self.log.forget_through(through.min(self.hard.commit).min(self.persisted));
    }

    /// The next entry above `applied` that may be applied: it is committed, and durable here.
    pub fn next_committed(&self, applied: Index) -> Option<&Entry> {
        if applied < self.hard.commit.min(self.persisted) { self.log.get(applied.next()) } else { None }
    }

    /// A peer does not answer: what is on its way to it may be lost, so it is probed before more is sent. A hint: heartbeats
    /// find that out as well.
    pub fn unreachable(&mut self, peer: NodeId) {
        if let Some(progress) = self.progress.get_mut(&peer).filter(|p| p.pace == Pace::Replicate) {
            progress.probe();
            self.fresh = true;
            self.stir();
        }
    }

    /// Whether all that it wants has been taken.
    pub fn is_drained(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Takes out what is wanted since the last call, in order, appended to `out`.
    pub fn outputs(&mut self, out: &mut Vec<Output>) {
        if self.role == Role::Leader {
            self.begin_read_round();
            if std::mem::take(&mut self.fresh) {
                self.send_appends();
            }
        }
        self.settle_doubt();
        out.append(&mut self.outputs);
    }

    // What everything else is made of

    fn send(&mut self, to: NodeId, message: Message) {
        self.outputs.push(Output::Send { to, message });
    }

    fn persist(&mut self, record: Record, makes: Makes) {
        let write = self.next_write;
        self.next_write += 1;
        self.writing.push_back(Writing { write, asked_at: self.now, makes });
        self.outputs.push(Output::Persist { write, record });
    }

    /// An entry that Raft itself needs: at the time of the one before.
    fn append_of_its_own(&mut self, command: Command) -> Index {
        self.append_own(self.last_time, self.last_stamp + 1, Arc::new(command))
    }

    fn append_own(&mut self, time: Timestamp, stamp: u64, command: Arc<Command>) -> Index {
        self.stir();
        let index = self.log.last().index.next();
        self.push(Entry { term: self.hard.term, index, time, stamp, command });
        self.fresh = true;
        if self.configuration().is_alone(self.id) {
            return index;
        }
        self.sync_progress();
        index
    }

    fn push(&mut self, entry: Entry) {
        let index = entry.index;
        if let Command::Membership(configuration) = &*entry.command {
            self.memberships.push(index, configuration.clone());
        }
        self.last_time = self.last_time.max(entry.time);
        self.last_stamp = self.last_stamp.max(entry.stamp);
        self.log.push(entry.clone());
        self.persist(Record::Entry(entry), Makes::Entries(index));
    }

    /// Cuts the log: what was promised of these entries is void, and so is the end of their writes.
    fn truncate(&mut self, from: Index) {
        assert!(from > self.hard.commit, "cut from {from}, but committed through {}", self.hard.commit);
        self.log.truncate(from);
        self.memberships.truncate(from);
        let kept = Index(from.0 - 1);
        self.persisted = self.persisted.min(kept);
        self.verified = self.verified.min(kept);
        if !crate::bugs::active(crate::bugs::Bug::StaleAck) {
            for writing in &mut self.writing {
                if let Makes::Entries(index) = &mut writing.makes {
                    *index = kept.min(*index);
                }
            }
        }
        self.persist(Record::Truncate { from }, Makes::Other);
    }

    fn commit_to(&mut self, index: Index) {
        let index = index.min(self.log.last().index);
        self.hard.commit = self.hard.commit.max(index);
    }

    fn set_role(&mut self, role: Role, leader: Option<NodeId>) {
        if role != Role::Follower || leader.is_none() {
            self.rest = rest::Rest::No;
        }
        self.role = role;
        self.leader = leader;
        let now = (role, self.hard.term, leader);
        if self.told != now {
            self.told = now;
            self.outputs.push(Output::Role { role, term: self.hard.term, leader });
        }
    }
}
