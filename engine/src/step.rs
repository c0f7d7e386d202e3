//! The step contract: everything that goes into a [`Node`](crate::Node) and everything that comes out.
//!
//! The durability barrier is data. An [`Effect`] with `after: Some(w)` must not be performed before write `w` is
//! durable; the shell holds it back, and the simulator releases it in the worst order that this allows.

use crate::raft::Change;
use crate::state::overlay::Layer;
use crate::state::snapshot::Snapshot;
use crate::txn::{Committed, Refused, Transaction};
use crate::wal::{SegmentId, WalOp, WriteId};
use bytes::Bytes;
use chronos_proto::id::{GroupId, Index, NodeId, RelationId, Term};
use chronos_proto::membership::Member;
use chronos_proto::peer::{PeerHello, PeerMessage};
use chronos_proto::time::{Instant, Timestamp};
use serde::{Deserialize, Serialize};

/// Correlates a request with its reply; chosen by the shell, never reused in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub u64);

/// Names a checkpoint in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckpointId(pub u64);

/// Names a subscriber in one run; chosen by the shell, never reused in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubscriberId(pub u64);

/// Everything that can happen to a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Input {
    /// The deadline that the node asked for was reached (or any time passed: it is harmless).
    Tick,
    /// The shell has no more inputs queued: what was gathered becomes one WAL write.
    QueueDrained,
    /// A write and everything before it is on the medium.
    WriteDurable(WriteId),
    /// A write or sync failed with EIO or the like: fatal, its pages may be gone.
    WriteFailed {
        /// The write.
        write: WriteId,
        /// The operating system's words.
        error: String,
    },
    /// There was no space for a write; nothing of it was done. It will be asked for again.
    WriteFull(WriteId),
    /// A checkpoint is durable, and the store passed with this input shows it.
    CheckpointDurable(CheckpointId),
    /// A checkpoint could not be written for lack of space; nothing of it was done.
    CheckpointFull(CheckpointId),
    /// A checkpoint failed otherwise: fatal.
    CheckpointFailed {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The operating system's words.
        error: String,
    },
    /// A client asks for something.
    Request {
        /// Where the reply goes.
        token: Token,
        /// What it asks.
        request: Request,
    },
    /// Something about a subscriber.
    Subscriber {
        /// Which.
        id: SubscriberId,
        /// What.
        event: SubscriberInput,
    },
    /// Another node says something. It came over a link whose other end is known to be that node.
    Peer {
        /// Who.
        from: NodeId,
        /// What.
        message: PeerMessage,
    },
    /// A link to another node stands: messages are likely to arrive.
    PeerUp(PeerHello),
    /// It does not any more.
    PeerDown(NodeId),
    /// The operating system says whether its wall clock is synchronised.
    ClockSynchronised(bool),
    /// The operator asks for a checkpoint now.
    Checkpoint,
    /// The node is to stop: new requests are refused, what is pending goes on.
    Stop,
}

/// What a client may ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// To commit a transaction in a group. A node that does not lead it forwards it to the one that does.
    Commit(GroupId, Transaction),
    /// From where on a state of the group may answer a linearizable read that begins now. The answer comes once the
    /// published state is there.
    Read(GroupId),
    /// To change a group's members; at its leader.
    Change {
        /// The group.
        group: GroupId,
        /// The steps.
        changes: Vec<Change>,
    },
    /// To note a node of the cluster, so that others find it; at the leader of group 0.
    PutMember(Member),
    /// To forget one that is in no group any more.
    DropMember(NodeId),
    /// To hand the leadership of a group to another voter; at its leader.
    Transfer {
        /// The group.
        group: GroupId,
        /// The successor.
        to: NodeId,
    },
}

/// What a subscriber may say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SubscriberInput {
    /// It is here.
    Open(Subscription),
    /// It takes this many more events.
    Credit(u32),
    /// It is done with these (partition, offset) pairs.
    Ack(Vec<(u32, u64)>),
    /// It wants these again, after a delay in milliseconds.
    Nack {
        /// (partition, offset) pairs.
        offsets: Vec<(u32, u64)>,
        /// How long to wait.
        delay_ms: u64,
        /// Why: it goes with those that become dead letters by it. May be empty.
        reason: String,
    },
    /// It is gone; what it had not acknowledged goes to others of its group.
    Close,
}

/// What a subscriber wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The topic.
    pub topic: RelationId,
    /// The partitions; empty for all of them. This node must lead their groups.
    pub partitions: Vec<u32>,
    /// A consumer group shares the events and remembers what is done; none sees them all and remembers nothing.
    pub consumer_group: Option<String>,
    /// Where to begin where the group has no progress yet.
    pub start: Start,
    /// How many events it takes at first.
    pub credit: u32,
    /// How long until an event that is not acknowledged is handed out again; a group's only.
    pub ack_timeout_ms: u64,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// At the first event kept.
    Earliest,
    /// Behind the last event released.
    Latest,
    /// At an offset, in each partition.
    Offset(u64),
}

/// One thing to do, and the write that must be durable before it.
#[derive(Clone, Debug)]
pub struct Effect {
    /// Not before this write is durable.
    pub after: Option<WriteId>,
    /// What to do.
    pub action: Action,
}

/// Everything a node can ask of its shell.
#[derive(Clone, Debug)]
pub enum Action {
    /// An operation on the WAL's files. Operations are performed in the order given; a write's `WriteDurable` follows
    /// when all of them up to its last are done.
    Wal(WalOp),
    /// An answer to a client.
    Reply(Token, Reply),
    /// A message to another node; it may be lost.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: PeerMessage,
    },
    /// A link that must not stand: it is to be closed with these words on both sides.
    Refuse {
        /// Whose.
        peer: NodeId,
        /// Why.
        why: String,
    },
    /// The cluster's nodes, when they are first known and whenever they change: whom to link with.
    Members(Vec<Member>),
    /// Readers may use this from now on.
    Publish(Published),
    /// Write this to the store in one durable transaction, and say when it is done.
    Checkpoint(Checkpoint),
    /// Hand these events to a subscriber: they are in the published snapshot, released at its read time.
    Deliver(Delivery),
    /// A subscription that cannot go on: its topic is gone.
    CloseSubscriber(SubscriberId, String),
    /// For the trace.
    Trace(Trace),
    /// Stop now: the node cannot keep its promises.
    Fatal(Fatal),
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A transaction's. Definite.
    Commit(Result<Committed, Refused>),
    /// A transaction's that may or may not have been committed: leadership was lost before it was known.
    Unknown(String),
    /// A read's: the index and cluster time to read at.
    Read(Result<ReadAt, Refused>),
    /// An operator's request was logged (a change of members, a note), or taken up (a transfer), or refused.
    Operator(Result<(), OperatorError>),
}

/// Where a linearizable read may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAt {
    /// From this index on; it is applied and published here.
    pub index: Index,
    /// At this time.
    pub time: Timestamp,
}

/// Why an operator's request was refused. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// A change of members was refused.
    #[error(transparent)]
    Change(#[from] crate::raft::ChangeError),
    /// A transfer was refused.
    #[error(transparent)]
    Transfer(#[from] crate::raft::TransferError),
    /// The node does not lead the group.
    #[error("this node does not lead group {0}: ask its leader")]
    NotLeader(GroupId),
    /// The node does not host the group.
    #[error("this node does not host group {0}")]
    NoGroup(GroupId),
    /// The log does not take it now.
    #[error(transparent)]
    Refused(Refused),
}

/// What readers see: a state and the clock to read it by.
#[derive(Clone, Debug)]
pub struct Published {
    /// The state.
    pub snapshot: Snapshot,
    /// Cluster time, to be carried on by the monotonic clock.
    pub clock: ClockReading,
    /// Whether reading it at this clock is linearizable without asking anybody.
    pub fresh: Fresh,
}

impl Published {
    /// The time to read the state at: the clock's, and no earlier than what is in it. A leader's clock may be behind what
    /// another one logged, and what that published is delivered.
    pub fn read_time(&self, mono: Instant) -> Timestamp {
        self.clock.at(mono).max(self.snapshot.applied_time)
    }
}

/// For how long a published state may be read without [`Request::Read`], and the read be linearizable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Until the next one is published: this node decides alone.
    Alone,
    /// Until this monotonic reading: it holds a lease.
    Until(Instant),
    /// Not at all: a quorum has to be asked.
    Ask,
}

/// A known moment of cluster time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// The monotonic reading.
    pub mono: Instant,
    /// Cluster time (the lower bound of its interval) then.
    pub time: Timestamp,
}

impl ClockReading {
    /// Cluster time at a later monotonic reading.
    pub fn at(&self, mono: Instant) -> Timestamp {
        Timestamp(self.time.0.saturating_add(i64::try_from(mono.micros_since(self.mono)).unwrap_or(i64::MAX)))
    }
}

/// The frozen overlay of one or more groups, for the store.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its name.
    pub id: CheckpointId,
    /// What to write, by group.
    pub groups: Vec<GroupCheckpoint>,
}

/// One group's part of a checkpoint.
#[derive(Clone, Debug)]
pub struct GroupCheckpoint {
    /// The group.
    pub group: GroupId,
    /// The generation its keys are under.
    pub generation: u32,
    /// The state at this index.
    pub applied: Index,
    /// That entry's term.
    pub term: Term,
    /// State keys to values; none is a deletion.
    pub layer: Layer,
    /// The group's root record, sealed, under `keys::root(group)`, written in the same transaction; none for a part of
    /// a state that is not live.
    pub root: Option<Bytes>,
}

impl GroupCheckpoint {
    /// Full keys and sealed values (none: delete) in ascending order, as the store takes them; the root comes first.
    pub fn entries(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> + '_ {
        use crate::state::{keys, sealed};
        let root = self.root.iter().map(|root| (keys::root(self.group), Some(root.clone())));
        let skipped = usize::from(crate::bugs::active(crate::bugs::Bug::SkipLastCheckpointEntry));
        let rest = self.layer.iter().take(self.layer.len().saturating_sub(skipped)).map(|(key, value)| {
            let full = keys::store_key(self.group, self.generation, key);
            let sealed = value.as_ref().map(|value| sealed::seal(&full, value));
            (full, sealed)
        });
        root.chain(rest)
    }
}

/// Offsets that a subscriber may read now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// To whom.
    pub subscriber: SubscriberId,
    /// The topic.
    pub topic: RelationId,
    /// The partition.
    pub partition: u32,
    /// Offsets and how often each was handed out before, ascending.
    pub offsets: Vec<(u64, u32)>,
}

/// What happened, for the trace and the tests' marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trace {
    /// A group's leader is this node.
    Elected {
        /// The group.
        group: GroupId,
        /// Its term.
        term: u64,
    },
    /// This node's role in a group, or the leader that it knows, is another now.
    Role {
        /// The group.
        group: GroupId,
        /// The role.
        role: crate::raft::Role,
        /// The term.
        term: u64,
        /// The leader.
        leader: Option<NodeId>,
    },
    /// This node has nothing, and waits for word of these whether the cluster is there already.
    Awaits(Vec<NodeId>),
    /// This node may have lost what it acknowledged in the group, and a leader has caught it up: it votes again.
    Trusted {
        /// The group.
        group: GroupId,
    },
    /// A snapshot is being sent to a follower (`done` is false), or was, or was given up.
    SnapshotSent {
        /// The group.
        group: GroupId,
        /// To whom.
        to: NodeId,
        /// Its last entry.
        index: Index,
        /// Whether it ended well.
        done: bool,
    },
    /// A snapshot that an earlier run of this node was being sent goes on.
    SnapshotResumed {
        /// The group.
        group: GroupId,
        /// Its last entry.
        index: Index,
        /// The number of the first chunk that this run is sent.
        chunk: u64,
    },
    /// A received snapshot has taken the place of the state.
    SnapshotInstalled {
        /// The group.
        group: GroupId,
        /// Its last entry.
        index: Index,
    },
    /// What a peer sent was refused, and why.
    PeerRefused {
        /// Who.
        peer: NodeId,
        /// Why.
        why: String,
    },
    /// An entry was applied.
    Applied {
        /// The group.
        group: GroupId,
        /// Its position.
        index: Index,
        /// What it was.
        what: &'static str,
    },
    /// A timer was released.
    Released {
        /// The topic.
        topic: RelationId,
        /// The timer's due time.
        due: Timestamp,
        /// Cluster time at the release.
        at: Timestamp,
    },
    /// A checkpoint was begun or ended.
    Checkpoint {
        /// Which.
        id: CheckpointId,
        /// Whether it is done.
        done: bool,
    },
    /// WAL segments were given up.
    SegmentRemoved(SegmentId),
    /// A step of the wall clock was ignored or adopted.
    ClockStep {
        /// Microseconds, positive if forward.
        micros: i64,
        /// Whether cluster time follows it.
        adopted: bool,
    },
}

/// Why the node must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// The WAL could not be synced; its unsynced pages may be gone. Restart: recovery reads them by checksum.
    #[error(
        "a WAL write failed ({0}); what it held may be lost from the page cache, so the node stops. Restart it: recovery checks every record"
    )]
    WalFailed(String),
    /// The checkpoint could not be written.
    #[error(
        "a checkpoint failed ({0}); the node stops. Restart it: the WAL holds everything since the last one"
    )]
    CheckpointFailed(String),
    /// State could not be read or decoded while applying.
    #[error("the state is damaged ({0}); the node stops. Run `chronos verify` on its data directory")]
    StateDamaged(String),
}

/// Why the next deadline is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A timer is to be fired or released.
    Timer,
    /// The wheel wants its next stretch of timers.
    Refill,
    /// A checkpoint is due by age.
    Checkpoint,
    /// The WAL is to be synced (`--fsync interval`) or marked.
    Wal,
    /// Background work: backfill, purge, expiry.
    Work,
    /// An acknowledgement is overdue, or a nack's delay ends.
    Delivery,
    /// The wall clock is watched for a step.
    Clock,
    /// An election, heartbeats, or the check of a quorum.
    Raft,
    /// Another node is to be asked again.
    Peers,
}

/// What a step hands back. The caller owns it and drains it.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// In order.
    pub effects: Vec<Effect>,
}

impl Outputs {
    /// Adds an effect that waits for nothing.
    pub fn now(&mut self, action: Action) {
        self.effects.push(Effect { after: None, action });
    }

    /// Adds an effect that waits for a write.
    pub fn after(&mut self, write: Option<WriteId>, action: Action) {
        self.effects.push(Effect { after: write, action });
    }
}
