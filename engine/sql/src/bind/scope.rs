//! Which names a clause can see.

use crate::error::{SqlError, SqlState};
use crate::expr::{Expr, ExprKind};
use chronos_proto::id::{ColumnId, RelationId};

/// The tables of one FROM.
#[derive(Clone, Default)]
pub(crate) struct Scope {
    pub tables: Vec<ScopeTable>,
    /// The columns as `*` gives them, and as they are seen without their table's name.
    pub visible: Vec<ScopeColumn>,
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
    /// A slot; of columns merged by a full join, both.
    pub expr: Expr,
    pub origin: Option<(RelationId, ColumnId)>,
    /// `*` does not stand for it, nor do joins by name look at it.
    pub hidden: bool,
}

impl ScopeColumn {
    pub fn is_slot(&self, slot: usize) -> bool {
        matches!(self.expr.kind, ExprKind::Slot(s) if s == slot)
    }
}

impl Scope {
    /// Adds a table whose columns are the next slots.
    pub fn add(&mut self, table: ScopeTable) -> Result<(), SqlError> {
        self.width += table.columns.len();
        self.name(table)
    }

    /// The same, of slots that were given out before.
    pub fn name(&mut self, table: ScopeTable) -> Result<(), SqlError> {
        if self.tables.iter().any(|t| t.name == table.name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_ALIAS,
                format!("table name \"{}\" specified more than once", table.name),
            ));
        }
        self.visible.extend(table.columns.iter().cloned());
        self.tables.push(table);
        Ok(())
    }

    /// What `*` stands for.
    pub fn starred(&self) -> impl Iterator<Item = &ScopeColumn> {
        self.visible.iter().filter(|c| !c.hidden)
    }

    pub fn column(&self, table: Option<&str>, name: &str) -> Result<Option<&ScopeColumn>, SqlError> {
        let columns = match table {
            None => &self.visible,
            Some(table) => match self.table(table) {
                Some(table) => &table.columns,
                None => return Ok(None),
            },
        };
        let mut named = columns.iter().filter(|c| c.name == name);
        let found = named.next();
        if named.next().is_some() {
            return Err(SqlError::new(
                SqlState::AMBIGUOUS_COLUMN,
                format!("column reference \"{name}\" is ambiguous"),
            ));
        }
        Ok(found)
    }

    pub fn table(&self, name: &str) -> Option<&ScopeTable> {
        self.tables.iter().find(|t| t.name == name)
    }
}
