//! Optimistic transactions, after FoundationDB's resolver.
//!
//! A transaction reads at one applied index, buffers its writes and keeps the key ranges it read. The leader lets it
//! commit if none of these ranges was written since, in flight entries included; else it answers with a conflict,
//! which the client may retry (SQLSTATE 40001).
//!
//! # Which key stands for what
//!
//! Writers and readers agree on state keys ([`keys`](crate::keys)); [`resolver::written_keys`] is the writers' half, this
//! table the readers'. A statement that reads ... records ...:
//!
//! ```text
//! anything of a relation              point(catalog(relation)): DDL on it conflicts
//! to make, change or drop a relation  catalog_all(): it conflicts with all other DDL, also over names
//! a row by primary key                point(row(relation, key)), found or not
//! rows by a scan                      the range of rows(relation) that was scanned;
//!                                     of a hidden-rowid table also point(rowid(relation))
//! rows by an index                    the range of index entries, beginning and ending between column values (never
//!                                     inside the entries of one value), and for each row fetched its point
//! a topic's events                    point(partition(topic, p)) of each partition read
//! a timer by id                       point(timer(topic, id)), found or not
//! timers by any other predicate       timers(topic) of each topic, in whatever order it scans; over all topics, or
//!                                     of one that is not there, also catalog_all()
//! ```
//!
//! An `AppendRow` does not know its rowid before apply. For scans it stands for `rowid(relation)`, for index readers
//! for the index entry without the rowid, which is why an index range ends between values. Publishing, scheduling and
//! appending read nothing but the catalogue, so they never conflict with each other. A slice of a backfill writes
//! nothing that a statement reads; the flip that makes the index public writes `catalog(relation)`.
//!
//! Time alone changes what a topic shows: an event that has fired is there at its release. Who reads a partition's end
//! or its armed timers also gives the first release beyond its read time ([`Transaction::valid_until`]); from then on
//! the commit is refused.

pub mod resolver;

use crate::state::keys::KeyRange;
use chronos_proto::id::{Index, RequestId};
use chronos_proto::time::Timestamp;
use chronos_proto::{Op, OpOutcome};
use serde::{Deserialize, Serialize};

/// What a client asks to commit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Transaction {
    /// Its name, for one effect.
    pub request: RequestId,
    /// The applied index it read at.
    pub read_index: Index,
    /// What it read, as ranges of state keys.
    pub reads: Vec<KeyRange>,
    /// From this time on it would have read something else, though nothing was written.
    pub valid_until: Option<Timestamp>,
    /// Its writes, in order.
    pub ops: Vec<Op>,
}

/// A transaction that is durable and applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Its log position.
    pub index: Index,
    /// Its time.
    pub time: Timestamp,
    /// What each operation came to.
    pub outcomes: Vec<OpOutcome>,
}

/// Why a transaction had no effect. Each is definite: nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Something it read was written since, or may have been.
    #[error(
        "could not serialize access: a row or range this transaction read was changed by another; retry it"
    )]
    Conflict,
    /// Its request was answered long ago and the outcome is forgotten.
    #[error("request {0:?} has expired: its outcome is no longer kept")]
    Expired(RequestId),
    /// The node cannot take writes now.
    #[error("no leader: this node does not take writes now; try another node or wait")]
    NotLeader,
    /// The disk or the memory budget is full.
    #[error("writes are refused: {0}")]
    Full(String),
    /// Too many writes are waiting.
    #[error("overloaded: {0} writes are waiting; retry later")]
    Overloaded(usize),
    /// It is larger than a transaction may be.
    #[error("the transaction is {bytes} bytes, more than the limit of {limit}: split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The node is stopping.
    #[error("the node is shutting down")]
    Stopping,
}
