//! What nodes say to each other, each message in a frame of its own on the stream of its [`Lane`].

use crate::command::{Op, OpOutcome};
use crate::id::{GroupId, Incarnation, Index, NodeId, RequestId, Term};
use crate::membership::Member;
use crate::raft::{LogId, Message};
use crate::time::{Instant, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The kind of a frame that holds a [`PeerMessage`].
pub const KIND_MESSAGE: u8 = 16;

/// Streams between two nodes, so that bulk never delays what is urgent. Messages of one lane arrive in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, heartbeats, reads: small and urgent.
    Control,
    /// Entries, forwarded writes and their answers.
    Replication,
    /// Snapshot chunks.
    Snapshot,
}

/// Who is at the other end of a link, as the transport found out and checked against its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    /// The node.
    pub node: NodeId,
    /// The life of its store.
    pub incarnation: Incarnation,
    /// The number of the store's start: see `Start` in the engine.
    pub boot: u64,
}

/// One message between two nodes. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// A group's message.
    Raft {
        /// The group.
        group: GroupId,
        /// What it says.
        message: Message,
    },
    /// Heartbeats of every group that the sender leads and that is not at rest, with a reading of its clocks.
    Beat(Beat),
    /// The answers to them, in one message.
    BeatReply(BeatReply),
    /// A write for the leader of a group.
    Forward(Forward),
    /// What became of a forwarded write.
    ForwardReply {
        /// The number that the write was forwarded under.
        number: u64,
        /// What became of it.
        outcome: ForwardOutcome,
    },
    /// Up to where must a read that begins now have been applied?
    Read {
        /// The group.
        group: GroupId,
        /// Chosen by the asker.
        number: u64,
    },
    /// The answer.
    ReadReply {
        /// The asker's number.
        number: u64,
        /// The leader's term, the index and its cluster time; none if it does not lead.
        at: Option<(Term, Index, Timestamp)>,
    },
    /// A part of a snapshot.
    Chunk(Chunk),
    /// What the receiver of a snapshot wants next.
    ChunkReply {
        /// The group.
        group: GroupId,
        /// The snapshot.
        last: LogId,
        /// The number of the next chunk it wants.
        next: u64,
        /// It has no use for the rest of this snapshot.
        done: bool,
    },
    /// Who is in the cluster? The sender's store is empty.
    AskMembers,
    /// The answer: the nodes that the sender knows of; none if its store is empty as well.
    Members(Vec<Member>),
    /// What a group's outbox holds for another group, for that one's leader.
    Outbox {
        /// Whose outbox.
        origin: GroupId,
        /// For whom.
        target: GroupId,
        /// The first one's number.
        first: u64,
        /// The writes.
        ops: Vec<Op>,
    },
    /// Up to where the target has applied the origin's outbox.
    OutboxReply {
        /// Whose outbox.
        origin: GroupId,
        /// Who has it.
        target: GroupId,
        /// The last number.
        upto: u64,
    },
}

/// Coalesced heartbeats.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The sender's monotonic clock, which comes back with the reply.
    pub sent: Instant,
    /// The sender's cluster time, below which that of no follower stays; none before it knows any.
    pub time: Option<Timestamp>,
    /// By group: term, commit, round.
    pub groups: Vec<(GroupId, Term, Index, u64)>,
    /// The same for groups that want to rest; what is committed is the end of the log.
    pub rest: Vec<(GroupId, Term, Index, u64)>,
    /// A digest of the groups at rest that the sender leads and the receiver is in: the exclusive or of the low halves of
    /// the keyed hashes of their terms.
    pub resting: u64,
}

/// Answers to a [`Beat`], and the follower's clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatReply {
    /// [`Beat::sent`]; none if this answers something else.
    pub sent: Option<Instant>,
    /// The wall clock of the follower when it answered.
    pub wall: Timestamp,
    /// By group: the follower's term, the round.
    pub groups: Vec<(GroupId, Term, u64)>,
    /// The same for groups that rest now.
    pub rest: Vec<(GroupId, Term, u64)>,
    /// The same groups rest at the follower as at the leader.
    pub agrees: bool,
}

/// A transaction on its way to the leader of its group; see `engine::txn::Transaction`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forward {
    /// Chosen by the node that took the statement.
    pub number: u64,
    /// The group.
    pub group: GroupId,
    /// The leader that it is addressed to: another term's leader refuses it.
    pub term: Term,
    /// Its name, for one effect.
    pub request: RequestId,
    /// The applied index it read at.
    pub read_index: Index,
    /// Ranges of state keys it read: start, end.
    pub reads: Vec<(Bytes, Bytes)>,
    /// From this time on it would have read something else.
    pub valid_until: Option<Timestamp>,
    /// Its writes.
    pub ops: Vec<Op>,
}

/// What became of a forwarded write. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardOutcome {
    /// It is durable on a quorum and applied at the leader.
    Committed {
        /// The leader's term.
        term: Term,
        /// Its position.
        index: Index,
        /// Its time.
        time: Timestamp,
        /// What each operation came to.
        outcomes: Vec<OpOutcome>,
    },
    /// Something it read was written since.
    Conflict,
    /// Its request was answered long ago.
    Expired,
    /// The node does not lead the group in that term. Nothing was done.
    NotLeader,
    /// The leader's disk or memory is full.
    Full(String),
    /// Too many writes wait at the leader.
    Overloaded(u64),
    /// It is larger than a transaction may be: size and limit in bytes.
    TooLarge(u64, u64),
    /// The leader is stopping.
    Stopping,
    /// The leader lost its office before it knew; ask again under the same name.
    Unknown,
}

/// A part of a snapshot: the state's keys in ascending order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The group.
    pub group: GroupId,
    /// The leader's term.
    pub term: Term,
    /// The entry whose state it is.
    pub last: LogId,
    /// That entry's time.
    pub time: Timestamp,
    /// Its number, from 0.
    pub number: u64,
    /// State keys and values.
    pub entries: Vec<(Bytes, Bytes)>,
    /// CRC32C over the keys and values of this chunk and all before it.
    pub checksum: u32,
    /// Whether it is the last one.
    pub ends: bool,
}

impl PeerMessage {
    /// The stream that it travels on.
    pub fn lane(&self) -> Lane {
        match self {
            PeerMessage::Raft { message: Message::Append { .. }, .. }
            | PeerMessage::Forward(_)
            | PeerMessage::ForwardReply { .. }
            | PeerMessage::Outbox { .. }
            | PeerMessage::OutboxReply { .. } => Lane::Replication,
            PeerMessage::Chunk(_) => Lane::Snapshot,
            _ => Lane::Control,
        }
    }

    /// Its name, for traces.
    pub fn kind(&self) -> &'static str {
        match self {
            PeerMessage::Raft { message, .. } => message.kind(),
            PeerMessage::Beat(_) => "Beat",
            PeerMessage::BeatReply(_) => "BeatReply",
            PeerMessage::Forward(_) => "Forward",
            PeerMessage::ForwardReply { .. } => "ForwardReply",
            PeerMessage::Read { .. } => "Read",
            PeerMessage::ReadReply { .. } => "ReadReply",
            PeerMessage::Chunk(_) => "Chunk",
            PeerMessage::ChunkReply { .. } => "ChunkReply",
            PeerMessage::AskMembers => "AskMembers",
            PeerMessage::Members(_) => "Members",
            PeerMessage::Outbox { .. } => "Outbox",
            PeerMessage::OutboxReply { .. } => "OutboxReply",
        }
    }
}
