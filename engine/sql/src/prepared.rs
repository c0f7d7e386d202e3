//! What preparing a statement gives: its parameters, its result columns and a plan that can be run many times.

use crate::action::{Action, Rows};
use crate::copy::Copy;
use crate::parse::Statement;
use crate::plan::SHORT_ROWS;
use chronos_engine::Catalog;
use chronos_proto::Type;
use chronos_proto::id::{ColumnId, GroupId, RelationId};
use std::collections::BTreeSet;
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
    /// SET, RESET, DISCARD, DEALLOCATE.
    Setting,
}

/// Which prepared statements are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deallocated<'a> {
    /// The one of this name.
    One(&'a str),
    /// All of the session.
    All,
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
    pub(crate) statement: Statement,
    pub(crate) action: Action,
    /// The catalogue it was bound in, and what of it matters.
    /// None: in one that a transaction changed for itself, so it is bound anew each time.
    pub(crate) catalog_version: Option<u64>,
    pub(crate) relations: Vec<(RelationId, u64)>,
    /// It reads or writes `chronos.timers`.
    pub(crate) timers: bool,
}

impl Prepared {
    /// Whether it gives rows (so a description of them is sent before).
    pub fn returns_rows(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Whether it takes microseconds: it reads a handful of rows by their keys, or writes a handful of values.
    pub fn is_short(&self) -> bool {
        match &self.action {
            Action::Query(plan) => plan.is_short(),
            Action::Insert(insert) => match &insert.rows {
                Rows::Values(rows) => rows.len() <= SHORT_ROWS,
                Rows::Query(plan) => plan.is_short(),
                Rows::Copied(_) => false,
            },
            Action::Update(update) => update.plan.is_short(),
            Action::Delete(delete) => delete.plan.is_short(),
            Action::Schema(_) | Action::CopyIn { .. } | Action::CopyOut { .. } => false,
            _ => true,
        }
    }

    /// Groups whose states it wants beside that of the catalogue: they keep partitions of topics that it names. Give them
    /// with [`Snapshot::with`](chronos_engine::Snapshot::with) to a statement that stands alone.
    pub fn groups(&self, catalog: &Catalog) -> BTreeSet<GroupId> {
        if self.timers || !self.is_valid(catalog) {
            return catalog.homes();
        }
        let relations = self.relations.iter().filter_map(|(id, _)| catalog.get(*id));
        relations.filter(|relation| relation.is_partitioned()).flat_map(|relation| relation.homes()).collect()
    }

    /// What it moves, if it is a COPY.
    pub fn copy(&self) -> Option<&Copy> {
        match &self.action {
            Action::CopyIn { copy, .. } | Action::CopyOut { copy, .. } => Some(copy),
            _ => None,
        }
    }

    /// What of the wire's prepared statements is gone once it has run.
    pub fn deallocates(&self) -> Option<Deallocated<'_>> {
        match &self.action {
            Action::Deallocate(Some(name)) => Some(Deallocated::One(name)),
            Action::Deallocate(None) | Action::Discard => Some(Deallocated::All),
            _ => None,
        }
    }

    /// Whether it still means the same.
    pub(crate) fn is_valid(&self, catalog: &Catalog) -> bool {
        let Some(version) = self.catalog_version else { return false };
        catalog.version() == version
            || self
                .relations
                .iter()
                .all(|(id, version)| catalog.get(*id).is_some_and(|r| r.version == *version))
    }
}
