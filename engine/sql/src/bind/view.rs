//! Views: their queries are bound anew where they are named.

use super::Binder;
use super::aggregate::Aggregates;
use crate::error::{SqlError, SqlState};
use crate::expr::{Expr, ExprKind};
use crate::parse::{self, Ast};
use crate::rel::{Query, Rel};
use chronos_proto::schema::{Relation, View};
use sqlparser::ast;

impl Binder<'_> {
    /// The rows of a view: its columns as they were when it was made.
    pub(super) fn view_query(&mut self, relation: &Relation, view: &View) -> Result<Rel, SqlError> {
        let query = self.bind_alone(&view.query)?;
        let mut exprs = Vec::with_capacity(view.columns.len());
        let mut taken = vec![false; query.columns.len()];
        for (i, column) in view.columns.iter().enumerate() {
            // What `*` stands for may have grown in the meantime, anywhere.
            let same = |at: &usize| !taken[*at] && query.columns[*at].name == column.output;
            let at = Some(i).filter(|at| *at < taken.len() && same(at));
            let at = at.or_else(|| (0..taken.len()).find(same)).ok_or_else(|| {
                SqlError::new(
                    SqlState::UNDEFINED_COLUMN,
                    format!("column \"{}\" of view \"{}\" is no longer there", column.output, relation.name),
                )
            })?;
            taken[at] = true;
            let slot = Expr::slot(query.columns[at].ty, at);
            exprs.push(match slot.ty == column.ty {
                true => slot,
                false => Expr { ty: column.ty, kind: ExprKind::Cast(Box::new(slot)) },
            });
        }
        Ok(Rel::Project { input: Box::new(query.rel), exprs })
    }

    /// Binds a stored query: it sees nothing of the statement around it.
    pub(super) fn bind_alone(&mut self, sql: &str) -> Result<Query, SqlError> {
        let statements = parse::parse(sql)?;
        let [statement] = statements.as_slice() else {
            return Err(SqlError::new(SqlState::DATA_CORRUPTED, "a stored query is not one statement"));
        };
        let Ast::Sql(statement) = statement.ast() else {
            return Err(SqlError::new(SqlState::DATA_CORRUPTED, "a stored query is not a query"));
        };
        let ast::Statement::Query(query) = &**statement else {
            return Err(SqlError::new(SqlState::DATA_CORRUPTED, "a stored query is not a query"));
        };
        let frames = std::mem::take(&mut self.frames);
        let ctes = std::mem::take(&mut self.ctes);
        let seen = self.seen.take();
        let statement = self.statement.take();
        let aggregates = std::mem::replace(&mut self.aggregates, Aggregates::Forbidden("this place"));
        let bound = self.bind_query(query);
        self.aggregates = aggregates;
        self.statement = statement;
        self.seen = seen;
        self.ctes = ctes;
        self.frames = frames;
        bound
    }
}
