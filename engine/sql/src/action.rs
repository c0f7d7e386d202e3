//! What a prepared statement does when it is executed.

use crate::expr::Expr;
use crate::plan::Plan;
use chronos_proto::schema::Relation;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) enum Action {
    Query(Plan),
    Insert(Insert),
    Update(Update),
    Delete(Delete),
    Schema(SchemaChange),
    Begin {
        read_only: Option<bool>,
    },
    SetTransaction {
        read_only: Option<bool>,
    },
    Commit,
    Rollback,
    /// None sets back to the default.
    Set {
        name: String,
        value: Option<String>,
    },
    Show(String),
    ShowAll,
    ResetAll,
    Discard,
    /// The wire's prepared statement of this name, or all of them.
    Deallocate(Option<String>),
    Explain(Box<Action>),
    /// Accepted and without effect.
    Nothing(&'static str),
}

#[derive(Debug)]
pub(crate) struct Insert {
    pub target: Target,
    pub rows: Rows,
    /// ON CONFLICT DO NOTHING.
    pub skip_conflicts: bool,
    pub returning: Option<Vec<Expr>>,
}

/// What is written to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Table(Arc<Relation>),
    Topic(Arc<Relation>),
    Timers,
}

/// Rows in the order of the target's columns.
#[derive(Debug)]
pub(crate) enum Rows {
    Values(Vec<Vec<Expr>>),
    Query(Box<Plan>),
}

impl Rows {
    /// How many they are, where that is known; else many.
    pub fn len_hint(&self) -> usize {
        match self {
            Rows::Values(rows) => rows.len(),
            Rows::Query(_) => usize::MAX,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Update {
    pub target: Target,
    /// Gives the rows to change: all columns of the target, and the hidden rowid if there is one.
    pub plan: Plan,
    /// (column, new value over the old row).
    pub assignments: Vec<(usize, Expr)>,
    pub returning: Option<Vec<Expr>>,
}

#[derive(Debug)]
pub(crate) struct Delete {
    pub target: Target,
    pub plan: Plan,
    pub returning: Option<Vec<Expr>>,
}

/// A change of the catalogue. The numbers are given when it is executed.
#[derive(Debug)]
pub(crate) enum SchemaChange {
    Create { relation: Relation, if_not_exists: bool, tag: &'static str },
    CreateIndex { table: String, name: Option<String>, columns: Vec<String>, if_not_exists: bool },
    Drop { names: Vec<String>, if_exists: bool, what: Dropped },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    Table,
    Topic,
    Index,
}
