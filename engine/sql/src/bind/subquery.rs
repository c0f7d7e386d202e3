//! Queries inside of expressions, and what they take from the row around them.
//!
//! A query around is a frame. A name that is not found in a query's own FROM is looked for in the frames from the
//! innermost on; what is found is captured there and handed down through every frame between, so that each plan only
//! knows numbered values of the query directly around it.

use super::{Binder, Scope, Typed};
use crate::error::{SqlError, SqlState};
use crate::expr::{Comparison, Expr, ExprKind, Subquery, SubqueryKind};
use crate::plan;
use crate::rel::{Query, Rel};
use chronos_proto::{Type, Value};
use sqlparser::ast::{self, BinaryOperator};
use std::sync::Arc;

/// A query around the one being bound.
pub(super) struct Frame {
    scope: Scope,
    captures: Vec<Expr>,
}

impl Binder<'_> {
    pub(super) fn enter(&mut self, scope: Scope) {
        self.frames.push(Frame { scope, captures: Vec::new() });
    }

    /// What was captured in the frame that ends.
    pub(super) fn leave(&mut self) -> Vec<Expr> {
        self.frames.pop().map_or_else(Vec::new, |f| f.captures)
    }

    /// Binds a query that may look at a row around it, and what it captures there.
    pub(super) fn subquery(
        &mut self,
        query: &ast::Query,
        scope: &Scope,
    ) -> Result<(Query, Vec<Expr>), SqlError> {
        self.enter(scope.clone());
        let bound = self.bind_query(query);
        let captures = self.leave();
        Ok((bound?, captures))
    }

    /// A column of a query around.
    pub(super) fn outer_column(&mut self, table: Option<&str>, name: &str) -> Result<Option<Expr>, SqlError> {
        let seen = self.seen.unwrap_or(self.frames.len()).min(self.frames.len());
        for level in (0..seen).rev() {
            let Some(column) = self.frames[level].scope.column(table, name)? else { continue };
            let expr = column.expr.clone();
            return Ok(Some(self.capture(level, expr)));
        }
        Ok(None)
    }

    /// Whether a table of a query around has this name.
    pub(super) fn sees_outer_table(&self, name: &str) -> bool {
        self.frames.iter().any(|f| f.scope.table(name).is_some())
    }

    /// Hands an expression over a frame's row down to the query being bound.
    fn capture(&mut self, level: usize, expr: Expr) -> Expr {
        self.captured = true;
        let mut expr = expr;
        for frame in &mut self.frames[level..] {
            let place = match frame.captures.iter().position(|c| c.same(&expr)) {
                Some(place) => place,
                None => {
                    frame.captures.push(expr.clone());
                    frame.captures.len() - 1
                }
            };
            expr = Expr { ty: expr.ty, kind: ExprKind::Outer(place) };
        }
        expr
    }

    /// `(SELECT …)` as a value.
    pub(super) fn scalar_subquery(&mut self, query: &ast::Query, scope: &Scope) -> Result<Typed, SqlError> {
        let (query, captures) = self.subquery(query, scope)?;
        let [column] = query.columns.as_slice() else {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "subquery must return only one column"));
        };
        let ty = column.ty;
        self.planned(query.rel, ty, SubqueryKind::Scalar, captures, Vec::new())
    }

    pub(super) fn exists(&mut self, query: &ast::Query, scope: &Scope) -> Result<Typed, SqlError> {
        let (query, captures) = self.subquery(query, scope)?;
        let one = Expr::constant(Type::Int, Value::Int(1));
        // Nobody looks at its columns.
        let rel = Rel::Limit { input: Box::new(query.rel), limit: Some(one), offset: None };
        self.planned(rel, Type::Bool, SubqueryKind::Exists, captures, Vec::new())
    }

    /// `x IN (SELECT …)`, `x < ANY (SELECT …)`, `x = ALL (SELECT …)`; also of rows.
    pub(super) fn quantified(
        &mut self,
        left: &ast::Expr,
        kind: SubqueryKind,
        query: &ast::Query,
        scope: &Scope,
    ) -> Result<Typed, SqlError> {
        let lefts: Vec<&ast::Expr> = match unnested(left) {
            ast::Expr::Tuple(parts) => parts.iter().collect(),
            one => vec![one],
        };
        let (query, captures) = self.subquery(query, scope)?;
        if query.columns.len() != lefts.len() {
            let which = if query.columns.len() > lefts.len() { "many" } else { "few" };
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("subquery has too {which} columns")));
        }
        let op = match kind {
            SubqueryKind::Any(op) | SubqueryKind::All(op) => op,
            _ => Comparison::Eq,
        };
        let mut operands = Vec::with_capacity(lefts.len());
        let mut exprs = Vec::with_capacity(lefts.len());
        for (i, left) in lefts.into_iter().enumerate() {
            let left = self.expr(left, scope)?;
            let right = Typed::known(Expr::slot(query.columns[i].ty, i));
            let compared = self.compare(op, left, right)?;
            let ExprKind::Compare(_, pair) = compared.kind else {
                return Err(SqlError::unsupported("this comparison with a subquery"));
            };
            let [a, b] = *pair;
            operands.push(a);
            exprs.push(b);
        }
        if operands.len() > 1 && !matches!(op, Comparison::Eq | Comparison::Ne) {
            return Err(SqlError::unsupported("ordering rows by a subquery's"));
        }
        let rel = Rel::Project { input: Box::new(query.rel), exprs };
        self.planned(rel, Type::Bool, kind, captures, operands)
    }

    fn planned(
        &mut self,
        rel: Rel,
        ty: Type,
        kind: SubqueryKind,
        captures: Vec<Expr>,
        operands: Vec<Expr>,
    ) -> Result<Typed, SqlError> {
        let plan = Arc::new(plan::plan(rel)?);
        let id = self.next_id();
        let sub = Subquery { id, kind, plan, captures, operands };
        Ok(Typed::known(Expr { ty, kind: ExprKind::Subquery(Box::new(sub)) }))
    }
}

fn unnested(e: &ast::Expr) -> &ast::Expr {
    match e {
        ast::Expr::Nested(inner) => unnested(inner),
        e => e,
    }
}

/// A comparison as ANY and ALL have it.
pub(super) fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    Some(match op {
        BinaryOperator::Eq => Comparison::Eq,
        BinaryOperator::NotEq => Comparison::Ne,
        BinaryOperator::Lt => Comparison::Lt,
        BinaryOperator::LtEq => Comparison::Le,
        BinaryOperator::Gt => Comparison::Gt,
        BinaryOperator::GtEq => Comparison::Ge,
        _ => return None,
    })
}
