//! Which names a clause can see.

use crate::error::{SqlError, SqlState};
use chronos_proto::Type;
use chronos_proto::id::{ColumnId, RelationId};

/// The tables of one FROM.
#[derive(Clone, Default)]
pub(crate) struct Scope {
    pub tables: Vec<ScopeTable>,
    /// Slots given out.
    pub width: usize,
}

#[derive(Clone)]
pub(crate) struct ScopeTable {
    pub name: String,
    pub columns: Vec<ScopeColumn>,
}

#[derive(Clone)]
pub(crate) struct ScopeColumn {
    pub name: String,
    pub ty: Type,
    pub slot: usize,
    pub origin: Option<(RelationId, ColumnId)>,
    /// Joined by USING: seen only with its table's name.
    pub hidden: bool,
}

impl Scope {
    pub fn add(&mut self, table: ScopeTable) -> Result<(), SqlError> {
        if self.tables.iter().any(|t| t.name == table.name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_ALIAS,
                format!("table name \"{}\" specified more than once", table.name),
            ));
        }
        self.width += table.columns.len();
        self.tables.push(table);
        Ok(())
    }

    pub fn column(&self, table: Option<&str>, name: &str) -> Result<Option<&ScopeColumn>, SqlError> {
        let mut found = None;
        for t in self.tables.iter().filter(|t| table.is_none_or(|table| t.name == table)) {
            for c in t.columns.iter().filter(|c| c.name == name && (table.is_some() || !c.hidden)) {
                if found.is_some() {
                    return Err(SqlError::new(
                        SqlState::AMBIGUOUS_COLUMN,
                        format!("column reference \"{name}\" is ambiguous"),
                    ));
                }
                found = Some(c);
            }
        }
        Ok(found)
    }

    pub fn table(&self, name: &str) -> Option<&ScopeTable> {
        self.tables.iter().find(|t| t.name == name)
    }
}
