//! From syntax to meaning: names become slots, functions and relations; every expression gets its type.
//!
//! Unknown literals and untyped parameters take their type from where they stand, by PostgreSQL's rules. What is not
//! supported is refused here by name with 0A000.

mod aggregate;
mod call;
mod copy;
mod cte;
mod ddl;
mod dml;
mod expr;
mod from;
mod literal;
mod names;
mod query;
mod schedule;
mod scope;
mod select;
mod subquery;
mod topic;
mod ttl;
mod utility;
mod view;
mod window;

use crate::action::Action;
use crate::error::{SqlError, SqlState};
use crate::expr::{Expr, ExprKind};
use crate::parse::{Ast, Statement};
use crate::prepared::{ColumnDesc, Kind};
use crate::session::SessionInfo;
use crate::types::{self, CastContext};
use aggregate::Aggregates;
use chronos_engine::Catalog;
use chronos_proto::id::RelationId;
use chronos_proto::{Type, Value};
use cte::Cte;
pub(crate) use scope::{Scope, ScopeColumn};
use sqlparser::ast;
use std::collections::BTreeSet;
use subquery::Frame;
use window::Windows;

/// A bound statement.
pub(crate) struct Bound {
    pub action: Action,
    pub kind: Kind,
    pub params: Vec<Type>,
    pub columns: Vec<ColumnDesc>,
    /// Catalogue entries it depends on.
    pub relations: BTreeSet<RelationId>,
    /// It reads or writes `chronos.timers`.
    pub timers: bool,
}

pub(crate) struct Binder<'a> {
    pub statement: Option<&'a Statement>,
    pub catalog: &'a Catalog,
    pub session: &'a SessionInfo,
    pub params: Vec<Option<Type>>,
    pub relations: BTreeSet<RelationId>,
    pub timers: bool,
    pub aggregates: Aggregates,
    /// How deep subqueries are nested.
    pub depth: usize,
    windows: Windows,
    named_windows: Vec<(String, ast::WindowSpec)>,
    /// Queries around the one being bound, whose columns it may name.
    frames: Vec<Frame>,
    /// How many of them are seen, where it is not all: from a WITH query that is put where it is named.
    seen: Option<usize>,
    /// Whether something was taken from a query around.
    captured: bool,
    ctes: Vec<Cte>,
    /// The function of the select list that gives rows, as a slot.
    row_call: Option<Expr>,
    ids: usize,
    /// An INSERT that names no columns.
    all_columns: bool,
}

/// An expression whose type may still be open: an unknown literal, NULL, or a parameter.
pub(crate) struct Typed {
    pub expr: Expr,
    pub known: bool,
}

impl Typed {
    pub fn known(expr: Expr) -> Typed {
        Typed { expr, known: true }
    }

    pub fn ty(&self) -> Option<Type> {
        self.known.then_some(self.expr.ty)
    }
}

/// Binds a statement. `declared` are the parameter types the client gave.
pub(crate) fn bind(
    statement: &Statement,
    declared: &[Option<Type>],
    catalog: &Catalog,
    session: &SessionInfo,
) -> Result<Bound, SqlError> {
    let mut binder = Binder::new(Some(statement), catalog, session, declared.to_vec());
    let (action, kind, columns) = match statement.ast() {
        Ast::Sql(ast) => binder.bind_statement(ast)?,
        Ast::Copy(copy) => {
            let (action, kind) = binder.bind_copy(copy)?;
            (action, kind, Vec::new())
        }
        Ast::Fetch(fetch) => binder.bind_fetch(fetch)?,
        Ast::Vacuum => (Action::Nothing("VACUUM"), Kind::Setting, Vec::new()),
        Ast::CreateTopic(create) => (binder.bind_create_topic(create)?, Kind::Schema, Vec::new()),
        Ast::AlterTopic(alter) => (binder.bind_alter_topic(alter)?, Kind::Schema, Vec::new()),
        Ast::DropTopic(drop) => (binder.bind_drop_topic(drop)?, Kind::Schema, Vec::new()),
        Ast::Schedule(statement) => (binder.bind_schedule(statement)?, Kind::Schema, Vec::new()),
    };
    let mut params = Vec::with_capacity(binder.params.len());
    for (i, ty) in binder.params.iter().enumerate() {
        params.push(ty.ok_or_else(|| {
            SqlError::new(
                SqlState::INDETERMINATE_DATATYPE,
                format!("could not determine data type of parameter ${}", i + 1),
            )
        })?);
    }
    Ok(Bound { action, kind, params, columns, relations: binder.relations, timers: binder.timers })
}

impl<'a> Binder<'a> {
    pub fn new(
        statement: Option<&'a Statement>,
        catalog: &'a Catalog,
        session: &'a SessionInfo,
        params: Vec<Option<Type>>,
    ) -> Binder<'a> {
        Binder {
            statement,
            catalog,
            session,
            params,
            relations: BTreeSet::new(),
            timers: false,
            aggregates: Aggregates::Forbidden("this place"),
            depth: 0,
            windows: Windows::Forbidden,
            named_windows: Vec::new(),
            frames: Vec::new(),
            seen: None,
            captured: false,
            ctes: Vec::new(),
            row_call: None,
            ids: 0,
            all_columns: false,
        }
    }

    fn bind_statement(&mut self, ast: &ast::Statement) -> Result<(Action, Kind, Vec<ColumnDesc>), SqlError> {
        match ast {
            ast::Statement::Query(query)
                if matches!(
                    *query.body,
                    ast::SetExpr::Insert(_) | ast::SetExpr::Update(_) | ast::SetExpr::Delete(_)
                ) =>
            {
                // WITH before a statement that writes.
                if let Some(with) = &query.with {
                    self.with(with, query)?;
                }
                match &*query.body {
                    ast::SetExpr::Insert(s) | ast::SetExpr::Update(s) | ast::SetExpr::Delete(s) => {
                        self.bind_statement(s)
                    }
                    _ => Err(SqlError::unsupported("this statement")),
                }
            }
            ast::Statement::Query(query) => {
                let query = self.bind_query(query)?;
                let plan = crate::plan::plan(query.rel)?;
                Ok((Action::Query(plan), Kind::Query, query.columns))
            }
            ast::Statement::Insert(insert) => {
                let (action, columns) = self.bind_insert(insert)?;
                Ok((action, Kind::Write, columns))
            }
            ast::Statement::Update(update) => {
                let (action, columns) = self.bind_update(update)?;
                Ok((action, Kind::Write, columns))
            }
            ast::Statement::Delete(delete) => {
                let (action, columns) = self.bind_delete(delete)?;
                Ok((action, Kind::Write, columns))
            }
            ast::Statement::CreateTable(create) if create.query.is_some() => {
                let Some(query) = &create.query else { return Err(SqlError::unsupported("this statement")) };
                Ok((self.bind_create_as(create, query)?, Kind::Schema, Vec::new()))
            }
            ast::Statement::CreateView(create) => {
                Ok((self.bind_create_view(create)?, Kind::Schema, Vec::new()))
            }
            ast::Statement::CreateSequence { name, if_not_exists, sequence_options, .. } => {
                let action = self.bind_create_sequence(name, *if_not_exists, sequence_options)?;
                Ok((action, Kind::Schema, Vec::new()))
            }
            ast::Statement::Truncate(truncate) => {
                Ok((self.bind_truncate(truncate)?, Kind::Schema, Vec::new()))
            }
            ast::Statement::AlterTable(alter) => {
                Ok((self.bind_alter_table(alter)?, Kind::Schema, Vec::new()))
            }
            ast::Statement::Prepare { name, data_types, statement } => {
                self.bind_prepare(name, data_types, statement)
            }
            ast::Statement::Execute { name: Some(name), parameters, .. } => {
                self.bind_execute(name, parameters)
            }
            ast::Statement::CreateTable(create) => {
                Ok((self.bind_create_table(create)?, Kind::Schema, Vec::new()))
            }
            ast::Statement::CreateIndex(create) => {
                Ok((self.bind_create_index(create)?, Kind::Schema, Vec::new()))
            }
            ast::Statement::Drop { object_type, if_exists, names, cascade, .. } => {
                Ok((self.bind_drop(*object_type, *if_exists, names, *cascade)?, Kind::Schema, Vec::new()))
            }
            ast::Statement::Explain { statement, analyze, options, .. } => {
                if *analyze || options.is_some() {
                    return Err(SqlError::unsupported("EXPLAIN with options"));
                }
                let (action, kind, _) = self.bind_statement(statement)?;
                if !matches!(kind, Kind::Query | Kind::Write) {
                    return Err(SqlError::unsupported("EXPLAIN of this statement"));
                }
                let columns = vec![ColumnDesc { name: "QUERY PLAN".into(), ty: Type::Text, origin: None }];
                Ok((Action::Explain(Box::new(action)), Kind::Query, columns))
            }
            other => self.bind_utility(other),
        }
    }

    /// An error at a token.
    pub fn at(&self, error: SqlError, location: sqlparser::tokenizer::Location) -> SqlError {
        let position =
            if location.line == 0 { None } else { self.statement.and_then(|s| s.position(location)) };
        error.at(position)
    }

    /// Makes an expression of type `to`, in a context that allows so much.
    pub fn coerce(&mut self, typed: Typed, to: Type, context: CastContext) -> Result<Expr, SqlError> {
        let explicit = context == CastContext::Explicit;
        let sized = to != to.base();
        let expr = self.coerce_base(typed, types::plain(to), context)?;
        if !sized {
            return Ok(expr);
        }
        let ty = expr.ty;
        if let (ExprKind::Const(value), false) = (&expr.kind, explicit) {
            // What does not fit is said where it stands.
            return Ok(Expr::constant(ty, types::fit(value.into(), to, false)?));
        }
        let kind = ExprKind::Fit { of: Box::new(expr), to, explicit };
        Ok(fold(Expr { ty, kind }, self.session))
    }

    fn coerce_base(&mut self, typed: Typed, to: Type, context: CastContext) -> Result<Expr, SqlError> {
        let mut expr = typed.expr;
        expr.ty = types::plain(expr.ty);
        if typed.known {
            if expr.ty == to {
                return Ok(expr);
            }
            if !types::castable(expr.ty, to, context) {
                return Err(match context {
                    CastContext::Explicit => types::cannot_cast(expr.ty, to),
                    _ => SqlError::new(
                        SqlState::DATATYPE_MISMATCH,
                        format!("expression is of type {} but type {to} is wanted", expr.ty),
                    )
                    .hint("You will need to rewrite or cast the expression."),
                });
            }
            return Ok(fold(Expr { ty: to, kind: ExprKind::Cast(Box::new(expr)) }, self.session));
        }
        match expr.kind {
            ExprKind::Const(Value::Null) => Ok(Expr::constant(to, Value::Null)),
            ExprKind::Const(Value::Text(text)) => {
                Ok(Expr::constant(to, crate::text::parse_in(&text, to, self.session.settings.zone())?))
            }
            ExprKind::Param(i) => {
                match self.params.get(i).copied().flatten() {
                    // It was typed by another place in the meantime.
                    Some(ty) if ty != to => {
                        let typed = Typed::known(Expr { ty, kind: ExprKind::Param(i) });
                        return self.coerce(typed, to, context);
                    }
                    _ => {
                        if let Some(slot) = self.params.get_mut(i) {
                            *slot = Some(to);
                        }
                    }
                }
                Ok(Expr { ty: to, kind: ExprKind::Param(i) })
            }
            kind => Ok(Expr { ty: to, kind }),
        }
    }

    /// Gives what is still open the type text.
    pub fn settle(&mut self, typed: Typed) -> Result<Expr, SqlError> {
        if typed.known { Ok(typed.expr) } else { self.coerce(typed, Type::Text, CastContext::Implicit) }
    }

    /// Makes all of one type, for CASE, COALESCE, IN, VALUES and the like.
    pub fn unify(&mut self, items: Vec<Typed>, what: &str) -> Result<(Type, Vec<Expr>), SqlError> {
        let mut target: Option<Type> = None;
        for item in &items {
            let Some(ty) = item.ty().map(types::plain) else { continue };
            target = Some(match target {
                None => ty,
                Some(before) => types::common(before, ty).ok_or_else(|| {
                    SqlError::new(
                        SqlState::DATATYPE_MISMATCH,
                        format!("{what} types {before} and {ty} cannot be matched"),
                    )
                })?,
            });
        }
        let target = target.unwrap_or(Type::Text);
        let exprs = items.into_iter().map(|i| self.coerce(i, target, CastContext::Implicit));
        Ok((target, exprs.collect::<Result<_, _>>()?))
    }
}

/// The value of an expression that depends on nothing, computed once. What fails stays, and fails when it runs.
pub(crate) fn fold(expr: Expr, session: &SessionInfo) -> Expr {
    if matches!(expr.kind, ExprKind::Const(_)) || !expr.is_immutable() {
        return expr;
    }
    match crate::exec::eval::eval_value(&expr, &crate::exec::eval::EvalCx::bare(session)) {
        Ok(value) => Expr::constant(expr.ty, value),
        Err(_) => expr,
    }
}
