//! Running plans: batches of typed columns, a thousand rows or so at a time.

mod aggregate;
mod apply;
pub(crate) mod checked;
mod combine;
pub(crate) mod eval;
mod hash;
mod insert;
mod join;
mod kept;
pub(crate) mod reads;
pub(crate) mod run;
pub(crate) mod scan;
pub(crate) mod schema;
pub(crate) mod sequence;
mod sort;
pub(crate) mod statement;
mod subquery;
pub mod vector;
mod window;
pub(crate) mod write;

use crate::prepared::ColumnDesc;
use chronos_engine::Snapshot;
use chronos_engine::txn::Transaction;
use chronos_proto::id::RequestId;
use chronos_proto::time::Timestamp;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use vector::Batch;

/// What a statement is given from outside.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The newest published snapshot. An open transaction goes on with the one of its first statement.
    pub snapshot: &'a Snapshot,
    /// Cluster time now: what `now()` says, and what events are visible by.
    pub read_time: Timestamp,
    /// Seeds `random()` and `gen_random_uuid()`; a fresh one for each statement.
    pub random: u64,
    /// The name a commit made by this statement carries. A fresh one for each [`Outcome::Commit`] that is submitted.
    pub request: RequestId,
    /// Set from outside to cancel the statement, which then fails with 57014.
    pub cancel: &'a AtomicBool,
    /// What the statement may use.
    pub limits: Limits,
}

/// What a statement may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory for sorts, hashes, groups and the result, in bytes; past it 53200.
    pub memory_bytes: usize,
    /// The sum of a transaction's writes, in bytes; past it 54000.
    pub transaction_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory_bytes: 256 << 20, transaction_bytes: chronos_proto::limits::TRANSACTION_MAX_BYTES }
    }
}

/// What a statement came to.
#[derive(Debug)]
pub enum Outcome {
    /// Rows, and the tag after them.
    Rows(RowSet),
    /// A tag alone: `INSERT 0 3`, `BEGIN`, ….
    Tag(String),
    /// Writes for the engine; the outcome follows from [`Session::committed`](crate::Session::committed).
    Commit(Box<Commit>),
}

/// A result.
#[derive(Clone, Debug)]
pub struct RowSet {
    /// Its columns.
    pub columns: Arc<[ColumnDesc]>,
    /// Its rows, in order.
    pub batches: Vec<Batch>,
    /// The command's tag: `SELECT 3`.
    pub tag: String,
}

impl RowSet {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.batches.iter().map(Batch::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A transaction to be handed to the engine, and what to say when it is done.
#[derive(Debug)]
pub struct Commit {
    /// For `Request::Commit(group, transaction)`.
    pub transaction: Transaction,
    /// The group it goes to.
    pub group: chronos_proto::id::GroupId,
    /// A single statement outside a transaction: on a conflict, execute it again on a newer snapshot.
    pub retryable: bool,
    pub(crate) completion: Completion,
}

/// What is said once a transaction is committed.
#[derive(Debug)]
pub(crate) enum Completion {
    Tag(&'static str),
    /// The rows of a query that wrote: it took numbers of a sequence.
    Rows(RowSet),
    /// A tag with a count.
    Counted(&'static str, usize),
    /// `INSERT 0 n` and the like; operations that came to nothing at apply are taken off.
    Count {
        verb: &'static str,
        count: usize,
        rows: Option<RowSet>,
    },
}
