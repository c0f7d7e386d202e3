//! Queries as wholes: WITH, set operations, VALUES, ORDER BY of a result, LIMIT.

use super::aggregate::Aggregates;
use super::names::folded;
use super::scope::ScopeTable;
use super::select::sort_key;
use super::window::Windows;
use super::{Binder, Scope, ScopeColumn, Typed, dml};
use crate::error::{SqlError, SqlState};
use crate::expr::{Expr, ExprKind};
use crate::prepared::ColumnDesc;
use crate::rel::{Query, Rel};
use crate::types::{self, CastContext};
use chronos_proto::{Type, Value};
use sqlparser::ast::{self, SetExpr, SetOperator, SetQuantifier};

/// How deep queries may be nested in each other.
pub(super) const QUERY_DEPTH_MAX: usize = 16;

impl Binder<'_> {
    pub fn bind_query(&mut self, query: &ast::Query) -> Result<Query, SqlError> {
        self.depth += 1;
        if self.depth > QUERY_DEPTH_MAX {
            self.depth -= 1;
            return Err(SqlError::new(SqlState::TOO_COMPLEX, "queries are nested too deep"));
        }
        let aggregates = std::mem::replace(&mut self.aggregates, Aggregates::Forbidden("this place"));
        let windows = std::mem::replace(&mut self.windows, Windows::Forbidden);
        let named_windows = std::mem::take(&mut self.named_windows);
        let row_call = self.row_call.take();
        let ctes = self.ctes.len();
        let result = self.query(query);
        self.ctes.truncate(ctes);
        self.row_call = row_call;
        self.named_windows = named_windows;
        self.aggregates = aggregates;
        self.windows = windows;
        self.depth -= 1;
        result
    }

    fn query(&mut self, query: &ast::Query) -> Result<Query, SqlError> {
        if let Some(with) = &query.with {
            self.with(with, query)?;
        }
        if query.for_clause.is_some() || query.settings.is_some() || !query.pipe_operators.is_empty() {
            return Err(SqlError::unsupported("this clause"));
        }
        let order: &[ast::OrderByExpr] = match query.order_by.as_ref().map(|o| &o.kind) {
            None => &[],
            Some(ast::OrderByKind::Expressions(keys)) => keys,
            Some(ast::OrderByKind::All(_)) => return Err(SqlError::unsupported("ORDER BY ALL")),
        };
        // FOR UPDATE asks for no more than every transaction is given: what it reads is guarded until its commit.
        let mut bound = match &*query.body {
            SetExpr::Select(select) => self.select(select, order)?,
            body => {
                let bound = self.body(body)?;
                self.order_output(bound, order, matches!(body, SetExpr::SetOperation { .. }))?
            }
        };
        let (mut limit, mut offset) = (None, None);
        match &query.limit_clause {
            None => {}
            Some(ast::LimitClause::LimitOffset { limit: l, offset: o, limit_by }) if limit_by.is_empty() => {
                limit = l.as_ref();
                offset = o.as_ref().map(|o| &o.value);
            }
            Some(_) => return Err(SqlError::unsupported("this LIMIT")),
        }
        if let Some(fetch) = &query.fetch {
            if fetch.with_ties || fetch.percent {
                return Err(SqlError::unsupported("FETCH WITH TIES and PERCENT"));
            }
            limit = fetch.quantity.as_ref();
        }
        let one = Expr::constant(Type::Int, Value::Int(1));
        let mut limit = limit.map(|e| self.count(e, "LIMIT")).transpose()?;
        if query.fetch.as_ref().is_some_and(|f| f.quantity.is_none()) {
            limit = Some(one);
        }
        let offset = offset.map(|e| self.count(e, "OFFSET")).transpose()?;
        if limit.is_some() || offset.is_some() {
            bound.rel = Rel::Limit { input: Box::new(bound.rel), limit, offset };
        }
        Ok(bound)
    }

    /// A query without its ORDER BY and LIMIT.
    fn body(&mut self, body: &SetExpr) -> Result<Query, SqlError> {
        match body {
            SetExpr::Select(select) => self.select(select, &[]),
            SetExpr::Values(values) => self.values(values),
            SetExpr::Query(inner) => self.bind_query(inner),
            SetExpr::Table(table) => self.table_query(table),
            SetExpr::SetOperation { .. } => self.set_operation(body),
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) => {
                Err(SqlError::unsupported("a statement that writes inside of a query"))
            }
            SetExpr::Merge(_) => Err(SqlError::unsupported("MERGE")),
        }
    }

    fn table_query(&mut self, table: &ast::Table) -> Result<Query, SqlError> {
        let part = |name: &String| ast::ObjectNamePart::Identifier(ast::Ident::new(name));
        let parts = table.schema_name.iter().chain(&table.table_name).map(part).collect();
        let mut scope = Scope::default();
        let rel = self.named_table(&ast::ObjectName(parts), None, &mut scope)?;
        let exprs: Vec<Expr> = scope.starred().map(|c| c.expr.clone()).collect();
        let columns =
            scope.starred().map(|c| ColumnDesc { name: c.name.clone(), ty: c.expr.ty, origin: c.origin });
        Ok(Query::new(Rel::Project { input: Box::new(rel), exprs }, columns.collect()))
    }

    /// UNION, INTERSECT and EXCEPT. Chains of one UNION are bound flat, however long they are.
    fn set_operation(&mut self, body: &SetExpr) -> Result<Query, SqlError> {
        let SetExpr::SetOperation { op: first_op, set_quantifier: first_quantifier, .. } = body else {
            return self.body(body);
        };
        let all = |quantifier: &SetQuantifier| match quantifier {
            SetQuantifier::All => Ok(true),
            SetQuantifier::Distinct | SetQuantifier::None => Ok(false),
            _ => Err(SqlError::unsupported("BY NAME")),
        };
        let is_all = all(first_quantifier)?;
        let mut branches = Vec::new();
        let mut at = body;
        loop {
            match at {
                SetExpr::SetOperation { op, set_quantifier, left, right }
                    if op == first_op
                        && all(set_quantifier)? == is_all
                        && (branches.is_empty() || *op == SetOperator::Union) =>
                {
                    branches.push(&**right);
                    at = left;
                }
                _ => break,
            }
        }
        branches.push(at);
        self.depth += 1;
        if self.depth > QUERY_DEPTH_MAX {
            self.depth -= 1;
            return Err(SqlError::new(SqlState::TOO_COMPLEX, "queries are nested too deep"));
        }
        let bound: Result<Vec<Query>, SqlError> = branches.into_iter().rev().map(|b| self.body(b)).collect();
        self.depth -= 1;
        let word = match first_op {
            SetOperator::Union => "UNION",
            SetOperator::Intersect => "INTERSECT",
            SetOperator::Except | SetOperator::Minus => "EXCEPT",
        };
        let (columns, mut inputs) = self.of_one_shape(bound?, word)?;
        let rel = match first_op {
            SetOperator::Union => {
                let union = Rel::Union { inputs };
                if is_all { union } else { Rel::Distinct { input: Box::new(union) } }
            }
            _ => {
                let right = inputs.pop().unwrap_or(Rel::Unit);
                let left = inputs.pop().unwrap_or(Rel::Unit);
                let except = *first_op != SetOperator::Intersect;
                Rel::SetOp { left: Box::new(left), right: Box::new(right), except, all: is_all }
            }
        };
        Ok(Query::new(rel, columns))
    }

    /// Queries with columns of the same types. The names are the first one's.
    fn of_one_shape(
        &mut self,
        queries: Vec<Query>,
        word: &str,
    ) -> Result<(Vec<ColumnDesc>, Vec<Rel>), SqlError> {
        let Some(first) = queries.first() else { return Ok((Vec::new(), Vec::new())) };
        let width = first.columns.len();
        if queries.iter().any(|q| q.columns.len() != width) {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("each {word} query must have the same number of columns"),
            ));
        }
        let mut columns = first.columns.clone();
        let origins = |c: &mut ColumnDesc| c.origin = None;
        columns.iter_mut().for_each(origins);
        for (i, column) in columns.iter_mut().enumerate() {
            let mut target: Option<Type> = None;
            for query in queries.iter().filter(|q| !q.open[i]) {
                let ty = query.columns[i].ty;
                target = Some(match target {
                    None => ty,
                    Some(before) => types::common(before, ty).ok_or_else(|| {
                        SqlError::new(
                            SqlState::DATATYPE_MISMATCH,
                            format!("{word} types {before} and {ty} cannot be matched"),
                        )
                    })?,
                });
            }
            column.ty = target.unwrap_or(Type::Text);
        }
        let wanted: Vec<Type> = columns.iter().map(|c| c.ty).collect();
        let mut rels = Vec::with_capacity(queries.len());
        for query in queries {
            rels.push(self.cast_columns(query, &wanted)?);
        }
        Ok((columns, rels))
    }

    /// A query with its first columns made of these types; literals that were left open are read as them.
    pub(super) fn cast_columns(&mut self, query: Query, wanted: &[Type]) -> Result<Rel, SqlError> {
        let Query { mut rel, columns, open } = query;
        let mut exprs = Vec::with_capacity(wanted.len());
        let mut same = wanted.len() == columns.len();
        for (i, ty) in wanted.iter().enumerate() {
            let from = columns[i].ty;
            if from == *ty {
                exprs.push(Expr::slot(*ty, i));
                continue;
            }
            if open[i]
                && let Some(literal) = literal_column(&mut rel, i)
                && let ExprKind::Const(value) = &literal.kind
            {
                // A literal is read where the query is bound, as it is in any expression.
                let typed = Typed { expr: Expr::constant(Type::Text, value.clone()), known: false };
                *literal = self.coerce(typed, *ty, CastContext::Implicit)?;
                exprs.push(Expr::slot(*ty, i));
                continue;
            }
            same = false;
            let kind = ExprKind::Cast(Box::new(Expr::slot(from, i)));
            exprs.push(Expr { ty: *ty, kind });
        }
        Ok(if same { rel } else { Rel::Project { input: Box::new(rel), exprs } })
    }

    fn count(&mut self, e: &ast::Expr, clause: &'static str) -> Result<Expr, SqlError> {
        self.aggregates = Aggregates::Forbidden(clause);
        let typed = self.expr(e, &Scope::default()).map_err(|error| match error.code {
            SqlState::UNDEFINED_COLUMN => SqlError::new(
                SqlState::INVALID_COLUMN_REFERENCE,
                format!("argument of {clause} must not contain variables"),
            ),
            _ => error,
        })?;
        self.coerce(typed, Type::Int, CastContext::Assignment)
    }

    /// VALUES.
    fn values(&mut self, values: &ast::Values) -> Result<Query, SqlError> {
        self.aggregates = Aggregates::Forbidden("VALUES");
        let scope = Scope::default();
        let rows: Vec<&Vec<ast::Expr>> = values.rows.iter().map(|row| &**row).collect();
        let width = rows.first().map_or(0, |r| r.len());
        let mut columns: Vec<Vec<Typed>> = (0..width).map(|_| Vec::with_capacity(rows.len())).collect();
        for row in &rows {
            if row.len() != width {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    "VALUES lists must all be the same length",
                ));
            }
            for (column, e) in columns.iter_mut().zip(row.iter()) {
                if dml::is_default(e) {
                    return Err(SqlError::new(
                        SqlState::SYNTAX_ERROR,
                        "DEFAULT is not allowed in this context",
                    ));
                }
                column.push(self.expr(e, &scope)?);
            }
        }
        let mut types = Vec::with_capacity(width);
        let mut open = Vec::with_capacity(width);
        let mut out: Vec<Vec<Expr>> = (0..rows.len()).map(|_| Vec::with_capacity(width)).collect();
        for column in columns {
            open.push(column.iter().all(|t| !t.known && matches!(t.expr.kind, ExprKind::Const(_))));
            let (ty, exprs) = self.unify(column, "VALUES")?;
            types.push(ty);
            out.iter_mut().zip(exprs).for_each(|(row, e)| row.push(e));
        }
        let columns = types
            .iter()
            .enumerate()
            .map(|(i, ty)| ColumnDesc { name: format!("column{}", i + 1), ty: *ty, origin: None })
            .collect();
        Ok(Query { rel: Rel::Values { rows: out, types }, columns, open })
    }

    /// ORDER BY over the columns of a result.
    fn order_output(
        &mut self,
        bound: Query,
        order: &[ast::OrderByExpr],
        of_set_operation: bool,
    ) -> Result<Query, SqlError> {
        if order.is_empty() {
            return Ok(bound);
        }
        let mut scope = Scope::default();
        let columns = bound.columns.iter().enumerate().map(|(slot, c)| ScopeColumn {
            name: c.name.clone(),
            expr: Expr::slot(crate::types::plain(c.ty), slot),
            origin: None,
            hidden: false,
        });
        scope.add(ScopeTable { name: String::new(), columns: columns.collect() })?;
        let mut keys = Vec::with_capacity(order.len());
        for key in order {
            let expr = match self.ordinal(&key.expr, bound.columns.len(), "ORDER BY")? {
                Some(i) => Expr::slot(bound.columns[i].ty, i),
                None => self.settled(&key.expr, &scope)?,
            };
            if of_set_operation && !matches!(expr.kind, ExprKind::Slot(_)) {
                return Err(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "invalid UNION/INTERSECT/EXCEPT ORDER BY clause",
                )
                .detail("Only result column names can be used, not expressions or functions."));
            }
            keys.push(sort_key(expr, key)?);
        }
        Ok(Query { rel: Rel::Sort { input: Box::new(bound.rel), keys }, ..bound })
    }

    /// A bare integer names an output column.
    pub(super) fn ordinal(
        &mut self,
        e: &ast::Expr,
        count: usize,
        clause: &str,
    ) -> Result<Option<usize>, SqlError> {
        let (value, sign) = match e {
            ast::Expr::Value(value) => (value, ""),
            ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match &**expr {
                ast::Expr::Value(value) if matches!(value.value, ast::Value::Number(..)) => (value, "-"),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        match &value.value {
            ast::Value::Number(digits, _) => match digits.parse::<usize>() {
                Ok(n) if sign.is_empty() && (1..=count).contains(&n) => Ok(Some(n - 1)),
                _ => Err(self.at(
                    SqlError::new(
                        SqlState::INVALID_COLUMN_REFERENCE,
                        format!("{clause} position {sign}{digits} is not in select list"),
                    ),
                    value.span.start,
                )),
            },
            ast::Value::Placeholder(_) => Ok(None),
            _ => Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("non-integer constant in {clause}"))),
        }
    }

    /// The columns of a query under the names that an alias gives.
    pub(super) fn renamed(
        &self,
        columns: &mut [(String, Type, super::from::Origin)],
        table: &str,
        names: &[ast::TableAliasColumnDef],
    ) -> Result<(), SqlError> {
        if names.len() > columns.len() {
            return Err(SqlError::new(
                SqlState::INVALID_COLUMN_REFERENCE,
                format!(
                    "table \"{table}\" has {} columns available but {} columns specified",
                    columns.len(),
                    names.len()
                ),
            ));
        }
        for (column, given) in columns.iter_mut().zip(names) {
            column.0 = folded(&given.name);
        }
        Ok(())
    }
}

/// The expression of a column, if it stands in the outermost projection.
fn literal_column(rel: &mut Rel, place: usize) -> Option<&mut Expr> {
    match rel {
        Rel::Project { exprs, .. } => exprs.get_mut(place),
        Rel::Sort { input, .. } | Rel::Limit { input, .. } | Rel::Cut { input, .. } => {
            literal_column(input, place)
        }
        _ => None,
    }
}
