//! What a client may say.

use bytes::Bytes;
use chronos_proto::Value;
use chronos_proto::time::Timestamp;

/// Which rows a statement is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of them.
    All,
    /// Those whose column is in a range, the end left out.
    Between {
        /// The column, an integer.
        column: &'static str,
        /// The first value.
        low: i64,
        /// The end.
        high: i64,
    },
    /// Those whose column has a value.
    Equal {
        /// The column, an integer.
        column: &'static str,
        /// The value.
        value: i64,
    },
    /// Those with a tag.
    Tag(String),
}

/// What a SELECT asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// These columns of each row.
    Rows(Vec<String>),
    /// The count, the least amount, the greatest number and the sum of the amounts.
    Sums,
    /// Count and sum of the amounts for each tag.
    SumsByTag,
}

/// What an INSERT does with a row that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// It fails.
    Fail,
    /// ON CONFLICT DO NOTHING.
    Nothing,
    /// ON CONFLICT (id) DO UPDATE: the amounts are added.
    Add,
}

/// What an UPDATE does to each row.
#[derive(Clone, Debug, PartialEq)]
pub enum Set {
    /// Adds to the amount.
    Add(i64),
    /// Gives a tag.
    Tag(String),
    /// Gives an integer to a column.
    Int(String, i64),
}

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// BEGIN.
    Begin,
    /// COMMIT.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// SAVEPOINT; there is one at a time.
    Savepoint,
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo,
    /// SELECT from a table.
    Select {
        /// Its name.
        table: String,
        /// What.
        ask: Ask,
        /// Of which rows.
        filter: Filter,
    },
    /// SELECT count(*) from a topic.
    Released {
        /// Its name.
        topic: String,
    },
    /// INSERT into a table.
    Insert {
        /// Its name.
        table: String,
        /// The columns named.
        columns: Vec<String>,
        /// A value for each of them.
        rows: Vec<Vec<Value>>,
        /// What happens to those that are there.
        conflict: Conflict,
    },
    /// INSERT into a topic.
    Publish {
        /// Its name.
        topic: String,
        /// The event's own id; without one it gets one.
        message_id: Option<String>,
        /// What it carries.
        payload: Bytes,
        /// When it is due; at once without.
        deliver_at: Option<Timestamp>,
    },
    /// UPDATE.
    Update {
        /// The table's name.
        table: String,
        /// What changes.
        set: Set,
        /// In which rows.
        filter: Filter,
        /// RETURNING these columns, if any.
        returning: Vec<String>,
    },
    /// DELETE.
    Delete {
        /// The table's name.
        table: String,
        /// Which rows.
        filter: Filter,
    },
    /// A change of the catalogue.
    Schema {
        /// In words.
        text: String,
        /// What it answers.
        tag: &'static str,
    },
}

/// What a client was answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Rows, sorted.
    Rows(Vec<Vec<Value>>),
    /// A tag alone.
    Tag(String),
    /// An error, by its SQLSTATE.
    Error(String),
}

impl Told {
    /// Rows in any order.
    pub fn rows(mut rows: Vec<Vec<Value>>) -> Told {
        sort(&mut rows);
        Told::Rows(rows)
    }
}

/// Puts rows into one order.
pub fn sort(rows: &mut [Vec<Value>]) {
    rows.sort_by(|a, b| {
        let columns = a.iter().zip(b).map(|(a, b)| a.total_cmp(b));
        columns.into_iter().find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    });
}

/// What a client said, and what it was answered so far: all, or all but what the commit comes to.
#[derive(Clone, Debug, Default)]
pub struct Spoken {
    /// The statements.
    pub script: Vec<Statement>,
    /// The transaction's time.
    pub now: Timestamp,
    /// The answers.
    pub told: Vec<Told>,
}
