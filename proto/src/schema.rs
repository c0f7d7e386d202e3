//! Relations as the catalogue stores them: tables and topics.

use crate::id::{ColumnId, GroupId, IndexId, RelationId};
use crate::value::{Type, Value};
use serde::{Deserialize, Serialize};

/// A table or a topic. Its `version` rises with every change, and a write that saw an older one conflicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Relation {
    /// Its number.
    pub id: RelationId,
    /// Its name, folded as PostgreSQL folds it, unique among relations.
    pub name: String,
    /// The Raft group that holds its data.
    pub group: GroupId,
    /// Counts changes of this definition.
    pub version: u64,
    /// What kind of relation it is.
    pub kind: RelationKind,
}

/// What a relation is. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RelationKind {
    /// Typed rows.
    Table(Table),
    /// A log of events.
    Topic(Topic),
}

/// A table's shape.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// In the order the user gave.
    pub columns: Vec<Column>,
    /// The key columns, in key order; empty means the hidden rowid, an integer given at apply.
    pub primary_key: Vec<ColumnId>,
    /// Secondary indexes.
    pub indexes: Vec<SecondaryIndex>,
    /// The number that the next column gets: numbers are never reused.
    pub next_column: u32,
    /// The number that the next index gets.
    pub next_index: u32,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its number in the table.
    pub id: ColumnId,
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// NOT NULL; true of every key column.
    pub not_null: bool,
    /// DEFAULT, evaluated when a row is inserted.
    pub default: Option<DefaultValue>,
}

/// What DEFAULT says. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DefaultValue {
    /// A constant of the column's type.
    Constant(Value),
    /// An expression, as SQL text, bound anew by each statement that uses it.
    Expression(String),
}

/// A secondary index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecondaryIndex {
    /// Its number in the table.
    pub id: IndexId,
    /// Its name, unique among relations and indexes.
    pub name: String,
    /// The columns, in key order.
    pub columns: Vec<ColumnId>,
    /// How far it is made.
    pub state: IndexState,
}

/// The life of an index: every writer maintains it before any reader may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexState {
    /// Maintained by writes, being filled from the rows that were there before.
    WriteOnly,
    /// Complete: plans may use it.
    Public,
}

/// A topic's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Topic {
    /// How many partitions; one keeps the topic in the catalogue's group.
    pub partitions: u32,
    /// How long a message id is remembered after it was claimed, in microseconds.
    pub dedup_micros: u64,
    /// What the payload column is: Bytes, Text or Json.
    pub payload: Type,
}

impl Relation {
    /// The table, if it is one.
    pub fn table(&self) -> Option<&Table> {
        match &self.kind {
            RelationKind::Table(table) => Some(table),
            RelationKind::Topic(_) => None,
        }
    }

    /// The topic, if it is one.
    pub fn topic(&self) -> Option<&Topic> {
        match &self.kind {
            RelationKind::Topic(topic) => Some(topic),
            RelationKind::Table(_) => None,
        }
    }
}

impl Table {
    /// The column of this number.
    pub fn column(&self, id: ColumnId) -> Option<&Column> {
        self.columns.iter().find(|c| c.id == id)
    }
}
