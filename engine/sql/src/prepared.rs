//! What preparing a statement gives: its parameters, its result columns and a plan that can be run many times.

use chronos_proto::Type;
use chronos_proto::id::{ColumnId, RelationId};
use std::sync::Arc;

/// A result column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDesc {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// The table column it comes from, if it is one unchanged.
    pub origin: Option<(RelationId, ColumnId)>,
}

/// What kind of statement it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SELECT, VALUES, SHOW, EXPLAIN: gives rows and writes nothing.
    Query,
    /// INSERT, UPDATE, DELETE.
    Write,
    /// CREATE, DROP.
    Schema,
    /// BEGIN, COMMIT, ROLLBACK.
    Transaction,
    /// SET, RESET, DISCARD.
    Setting,
}

/// A statement that is bound and planned for one version of the catalogue.
#[derive(Debug)]
pub struct Prepared {
    /// The types of `$1`, `$2`, ….
    pub params: Vec<Type>,
    /// The columns it gives; empty if it gives no rows.
    pub columns: Arc<[ColumnDesc]>,
    /// What kind of statement it is.
    pub kind: Kind,
}

impl Prepared {
    /// Whether it gives rows (so a description of them is sent before).
    pub fn returns_rows(&self) -> bool {
        !self.columns.is_empty()
    }
}
