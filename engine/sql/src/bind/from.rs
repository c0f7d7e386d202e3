//! FROM: sources, joins and the names they bring.

use super::aggregate::Aggregates;
use super::cte::CteSource;
use super::names::{folded, location, qualified, undefined_table};
use super::query::QUERY_DEPTH_MAX;
use super::scope::ScopeTable;
use super::select::conjuncts;
use super::{Binder, Scope, ScopeColumn, Typed};
use crate::error::{SqlError, SqlState};
use crate::expr::{Comparison, Expr, ExprKind};
use crate::rel::{
    Frame, FrameBound, FrameUnits, JoinKind, Rel, Source, SourceKind, WindowCall, WindowFunction,
};
use crate::system::{self, StateTable};
use crate::types::CastContext;
use chronos_proto::Type;
use chronos_proto::id::{ColumnId, RelationId};
use chronos_proto::schema::{Partitioned, RelationKind};
use sqlparser::ast::{self, JoinConstraint, JoinOperator, SelectItem, TableFactor};

/// The table column that a column is.
pub(super) type Origin = Option<(RelationId, ColumnId)>;

/// Name, type and the table column it comes from.
pub(super) type NamedColumn = (String, Type, Origin);

/// Where the left side of a join begins in the scope.
#[derive(Clone, Copy)]
struct Mark {
    tables: usize,
    visible: usize,
}

impl Mark {
    fn of(scope: &Scope) -> Mark {
        Mark { tables: scope.tables.len(), visible: scope.visible.len() }
    }
}

impl Binder<'_> {
    /// FROM: comma-separated items are cross joins.
    pub(super) fn from(&mut self, from: &[ast::TableWithJoins]) -> Result<(Rel, Scope), SqlError> {
        let mut scope = Scope::default();
        let rel = self.join_items(from, None, &mut scope)?;
        Ok((rel, scope))
    }

    /// The same, joined to what is there.
    pub(super) fn join_items(
        &mut self,
        from: &[ast::TableWithJoins],
        first: Option<Rel>,
        scope: &mut Scope,
    ) -> Result<Rel, SqlError> {
        let mut rel = first;
        for item in from {
            let right = self.joined(item, scope)?;
            rel = Some(match rel {
                None => right,
                Some(left) => Rel::Join {
                    left: Box::new(left),
                    right: Box::new(right),
                    kind: JoinKind::Inner,
                    on: Vec::new(),
                },
            });
        }
        Ok(rel.unwrap_or(Rel::Unit))
    }

    fn joined(&mut self, item: &ast::TableWithJoins, scope: &mut Scope) -> Result<Rel, SqlError> {
        let before = Mark::of(scope);
        let mut rel = self.factor(&item.relation, scope)?;
        for join in &item.joins {
            let middle = Mark::of(scope);
            let right = self.factor(&join.relation, scope)?;
            let (kind, swapped, constraint) = match &join.join_operator {
                JoinOperator::Join(c) | JoinOperator::Inner(c) => (JoinKind::Inner, false, c),
                JoinOperator::CrossJoin(c) => (JoinKind::Inner, false, c),
                JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => (JoinKind::Left, false, c),
                JoinOperator::Right(c) | JoinOperator::RightOuter(c) => (JoinKind::Left, true, c),
                JoinOperator::FullOuter(c) => (JoinKind::Full, false, c),
                _ => return Err(SqlError::unsupported("this join")),
            };
            let on = self.constraint(constraint, scope, before, middle, kind, swapped)?;
            let (left, right) = if swapped { (right, rel) } else { (rel, right) };
            rel = Rel::Join { left: Box::new(left), right: Box::new(right), kind, on };
        }
        Ok(rel)
    }

    /// ON, USING and NATURAL. `left..middle` is the left side's part of the scope, `middle..` the right's.
    fn constraint(
        &mut self,
        constraint: &JoinConstraint,
        scope: &mut Scope,
        left: Mark,
        middle: Mark,
        kind: JoinKind,
        swapped: bool,
    ) -> Result<Vec<Expr>, SqlError> {
        let names: Vec<String> = match constraint {
            JoinConstraint::None => return Ok(Vec::new()),
            JoinConstraint::On(e) => {
                self.aggregates = Aggregates::Forbidden("JOIN conditions");
                // Only this join's tables may be named.
                let visible = Scope {
                    tables: scope.tables[left.tables..].to_vec(),
                    visible: scope.visible[left.visible..].to_vec(),
                    width: scope.width,
                };
                return Ok(conjuncts(self.condition(e, &visible, "JOIN/ON")?));
            }
            JoinConstraint::Using(names) => {
                names.iter().map(|n| qualified(n).map(|(_, name)| name)).collect::<Result<_, _>>()?
            }
            JoinConstraint::Natural => {
                let right = &scope.visible[middle.visible..];
                let of_left = scope.visible[left.visible..middle.visible].iter().filter(|c| !c.hidden);
                let of_left = of_left.map(|c| c.name.clone());
                of_left.filter(|name| right.iter().any(|c| c.name == *name)).collect()
            }
        };
        let right_columns = scope.visible.split_off(middle.visible);
        let left_columns = scope.visible.split_off(left.visible);
        let mut on = Vec::with_capacity(names.len());
        let mut merged: Vec<ScopeColumn> = Vec::with_capacity(names.len());
        for name in &names {
            let side = |columns: &[ScopeColumn], which: &str| -> Result<ScopeColumn, SqlError> {
                let mut named = columns.iter().filter(|c| c.name == *name);
                match (named.next(), named.next()) {
                    (Some(column), None) => Ok(column.clone()),
                    (Some(_), Some(_)) => Err(SqlError::new(
                        SqlState::AMBIGUOUS_COLUMN,
                        format!("common column name \"{name}\" appears more than once in {which} table"),
                    )),
                    (None, _) => Err(SqlError::new(
                        SqlState::UNDEFINED_COLUMN,
                        format!(
                            "column \"{name}\" specified in USING clause does not exist in {which} table"
                        ),
                    )),
                }
            };
            if merged.iter().any(|c| c.name == *name) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column name \"{name}\" appears more than once in USING clause"),
                ));
            }
            let a = side(&left_columns, "left")?;
            let b = side(&right_columns, "right")?;
            let equal =
                self.compare(Comparison::Eq, Typed::known(a.expr.clone()), Typed::known(b.expr.clone()))?;
            let shown = match (&equal.kind, kind, swapped) {
                (ExprKind::Compare(_, pair), JoinKind::Full, _) => {
                    Expr { ty: pair[0].ty, kind: ExprKind::Coalesce(pair.to_vec()) }
                }
                (ExprKind::Compare(_, pair), _, true) => pair[1].clone(),
                (ExprKind::Compare(_, pair), _, false) => pair[0].clone(),
                _ => a.expr,
            };
            merged.push(ScopeColumn { name: name.clone(), expr: shown, origin: a.origin, hidden: false });
            on.push(equal);
        }
        let rest = left_columns.into_iter().chain(right_columns).filter(|c| !names.contains(&c.name));
        scope.visible.extend(merged);
        scope.visible.extend(rest);
        Ok(on)
    }

    fn factor(&mut self, factor: &TableFactor, scope: &mut Scope) -> Result<Rel, SqlError> {
        match factor {
            TableFactor::Table { name, alias, args: None, sample: None, version: None, .. } => {
                self.named_table(name, alias.as_ref(), scope)
            }
            TableFactor::Table { name, alias, args: Some(args), with_ordinality, .. } => {
                self.table_function(name, &args.args, *with_ordinality, alias.as_ref(), scope)
            }
            TableFactor::Function { name, args, with_ordinality, alias, .. } => {
                self.table_function(name, args, *with_ordinality, alias.as_ref(), scope)
            }
            TableFactor::Derived { lateral, subquery, alias, sample: None } => {
                let Some(alias) = alias else {
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, "subquery in FROM must have an alias")
                        .hint("For example, FROM (SELECT ...) [AS] foo."));
                };
                let (query, captures) = if *lateral {
                    self.subquery(subquery, scope)?
                } else {
                    (self.bind_query(subquery)?, Vec::new())
                };
                let columns = query.columns.into_iter().map(|c| (c.name, c.ty, c.origin)).collect();
                let rel = Box::new(query.rel);
                let kind = match captures.is_empty() {
                    true => SourceKind::Query(rel),
                    false => SourceKind::Lateral(rel, captures),
                };
                self.add_source(kind, String::new(), columns, Some(alias), scope)
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                self.depth += 1;
                if self.depth > QUERY_DEPTH_MAX {
                    self.depth -= 1;
                    return Err(SqlError::new(SqlState::TOO_COMPLEX, "joins are nested too deep"));
                }
                let before = Mark::of(scope);
                let rel = self.joined(table_with_joins, scope);
                self.depth -= 1;
                if let Some(alias) = alias {
                    // The join's own tables are hidden behind its name.
                    scope.tables.truncate(before.tables);
                    let joined = scope.visible.split_off(before.visible);
                    let mut names: Vec<NamedColumn> =
                        joined.iter().map(|c| (c.name.clone(), c.expr.ty, c.origin)).collect();
                    let name = folded(&alias.name);
                    self.renamed(&mut names, &name, &alias.columns)?;
                    let columns = joined.into_iter().zip(names);
                    let columns = columns.map(|(c, (name, ..))| ScopeColumn { name, ..c }).collect();
                    scope.name(ScopeTable { name, columns })?;
                }
                rel
            }
            _ => Err(SqlError::unsupported("this item in FROM")),
        }
    }

    /// A table, a view, a WITH query or the like, under its name or alias.
    pub(super) fn named_table(
        &mut self,
        name: &ast::ObjectName,
        alias: Option<&ast::TableAlias>,
        scope: &mut Scope,
    ) -> Result<Rel, SqlError> {
        if let (None, folded) = qualified(name)?
            && let Some(CteSource { kind, columns }) = self.cte(&folded)?
        {
            return self.add_source(kind, folded, columns, alias, scope);
        }
        let (kind, table, columns) = self.named_source(name)?;
        self.add_source(kind, table, columns, alias, scope)
    }

    /// A table, a view, a topic or a system relation by name, with its columns.
    pub(super) fn named_source(
        &mut self,
        name: &ast::ObjectName,
    ) -> Result<(SourceKind, String, Vec<NamedColumn>), SqlError> {
        let (schema, folded) = qualified(name)?;
        let own = |(n, ty): &(&str, Type)| ((*n).to_owned(), *ty, None);
        if schema.as_deref().is_none_or(|s| s == "public")
            && let Some(relation) = self.catalog.by_name(&folded).cloned()
        {
            self.relations.insert(relation.id);
            let id = relation.id;
            return Ok(match &relation.kind {
                RelationKind::Table(table) => {
                    let columns =
                        table.columns.iter().map(|c| (c.name.clone(), c.ty, Some((id, c.id)))).collect();
                    (SourceKind::Table(relation), folded, columns)
                }
                RelationKind::Topic(topic) | RelationKind::Partitioned(Partitioned { topic, .. }) => {
                    let columns = system::topic_columns(topic.payload).iter().map(own).collect();
                    (SourceKind::Topic(relation), folded, columns)
                }
                RelationKind::View(view) => {
                    let rel = self.view_query(&relation, view)?;
                    let columns = view.columns.iter().map(|c| (c.name.clone(), c.ty, None)).collect();
                    (SourceKind::Query(Box::new(rel)), folded, columns)
                }
                RelationKind::Sequence(_) => {
                    return Err(SqlError::unsupported("reading a sequence as a table")
                        .hint("currval(), lastval() and pg_sequences tell where it is"));
                }
                RelationKind::Schedule(_) => {
                    return Err(SqlError::unsupported("reading a schedule as a table")
                        .hint("chronos.schedules and chronos.schedule_runs tell of it"));
                }
            });
        }
        if schema.as_deref() == Some("chronos") && folded == "timers" {
            let columns = system::TIMER_COLUMNS.iter().map(own).collect();
            self.timers = true;
            return Ok((SourceKind::Timers, folded, columns));
        }
        let state = |t: &&'static StateTable| schema.as_deref() == Some("chronos") && t.name == folded;
        if let Some(table) = system::state_tables().find(state) {
            return Ok((SourceKind::State(table), folded, table.columns.iter().map(own).collect()));
        }
        if let Some(table) = system::find(schema.as_deref(), &folded) {
            return Ok((SourceKind::System(table), folded, table.columns.iter().map(own).collect()));
        }
        let shown = match &schema {
            Some(schema) => format!("{schema}.{folded}"),
            None => folded,
        };
        Err(self.at(undefined_table(&shown), location(name)))
    }

    fn table_function(
        &mut self,
        name: &ast::ObjectName,
        args: &[ast::FunctionArg],
        with_ordinality: bool,
        alias: Option<&ast::TableAlias>,
        scope: &mut Scope,
    ) -> Result<Rel, SqlError> {
        let (_, function) = qualified(name)?;
        self.aggregates = Aggregates::Forbidden("functions in FROM");
        // The arguments may name the sources before: each of their rows calls the function anew.
        self.enter(scope.clone());
        let bound = self.row_function(&function, args).map_err(|e| self.at(e, location(name)));
        let captures = self.leave();
        let (mut rel, ty) = bound?;
        // The one column has the table's alias, as PostgreSQL has it.
        let column = alias.map_or_else(|| function.clone(), |a| folded(&a.name));
        let mut columns = vec![(column, ty, None)];
        if with_ordinality {
            let frame = Frame { units: FrameUnits::Rows, start: FrameBound::First, end: FrameBound::Current };
            let call = WindowCall {
                function: WindowFunction::RowNumber,
                args: Vec::new(),
                partition: Vec::new(),
                order: Vec::new(),
                frame,
                ty: Type::Int,
            };
            rel = Rel::Window { input: Box::new(rel), calls: vec![call] };
            columns.push(("ordinality".into(), Type::Int, None));
        }
        let kind = match (captures.is_empty(), rel) {
            (true, Rel::Source(Source { kind, .. })) => kind,
            (true, rel) => SourceKind::Query(Box::new(rel)),
            (false, rel) => SourceKind::Lateral(Box::new(rel), captures),
        };
        self.add_source(kind, function, columns, alias, scope)
    }

    /// A function that gives rows of one column.
    fn row_function(&mut self, function: &str, args: &[ast::FunctionArg]) -> Result<(Rel, Type), SqlError> {
        if !is_row_function(function) {
            return Err(SqlError::unsupported(format!("function {function} in FROM")));
        }
        let mut typed = Vec::with_capacity(args.len());
        for arg in args {
            let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e)) = arg else {
                return Err(SqlError::unsupported("this argument"));
            };
            typed.push(self.expr(e, &Scope::default())?);
        }
        let given: Vec<Option<Type>> = typed.iter().map(Typed::ty).collect();
        let any = |ty: Type| given.iter().flatten().any(|t| t.base() == ty);
        let wide = |t: &Option<Type>| matches!(t, Some(Type::Int | Type::Numeric | Type::Float));
        let (ty, step) = match () {
            () if any(Type::Timestamp) || any(Type::Date) => (Type::Timestamp, Type::Interval),
            () if any(Type::LocalTimestamp) => (Type::LocalTimestamp, Type::Interval),
            () if any(Type::Float) => (Type::Float, Type::Float),
            () if any(Type::Numeric) => (Type::Numeric, Type::Numeric),
            () if given.iter().any(wide) => (Type::Int, Type::Int),
            () => (Type::Integer, Type::Integer),
        };
        let times = step == Type::Interval;
        if !(2..=3).contains(&typed.len()) || times && typed.len() != 3 {
            return Err(crate::func::undefined(function, &given, false));
        }
        let mut exprs = Vec::with_capacity(3);
        for (i, t) in typed.into_iter().enumerate() {
            exprs.push(self.coerce(t, if i == 2 { step } else { ty }, CastContext::Implicit)?);
        }
        Ok((Rel::Source(Source { kind: SourceKind::Series(exprs), base: 0, types: vec![ty] }), ty))
    }

    /// A function that gives rows may stand in the select list: it is joined to the row then. One item may be one.
    pub(super) fn row_functions(
        &mut self,
        projection: &[SelectItem],
        scope: &mut Scope,
        rel: Rel,
    ) -> Result<Rel, SqlError> {
        self.row_call = None;
        let mut calls = projection.iter().filter_map(|item| match item {
            SelectItem::UnnamedExpr(ast::Expr::Function(f))
            | SelectItem::ExprWithAlias { expr: ast::Expr::Function(f), .. } => {
                qualified(&f.name).is_ok_and(|(_, name)| is_row_function(&name)).then_some(f)
            }
            _ => None,
        });
        let Some(call) = calls.next() else { return Ok(rel) };
        if calls.next().is_some() {
            return Err(SqlError::unsupported("several functions that give rows in one SELECT"));
        }
        let ast::FunctionArguments::List(list) = &call.args else { return Ok(rel) };
        let (_, name) = qualified(&call.name)?;
        self.aggregates = Aggregates::Forbidden("functions that give rows");
        self.enter(scope.clone());
        let bound = self.row_function(&name, &list.args).map_err(|e| self.at(e, location(&call.name)));
        let captures = self.leave();
        let (source, ty) = bound?;
        let slot = scope.width;
        scope.width += 1;
        self.row_call = Some(Expr::slot(ty, slot));
        let kind = SourceKind::Lateral(Box::new(source), captures);
        let right = Box::new(Rel::Source(Source { kind, base: slot, types: vec![ty] }));
        // The conditions of WHERE are checked before.
        let left = Box::new(rel);
        Ok(Rel::Join { left, right, kind: JoinKind::Inner, on: Vec::new() })
    }

    pub(super) fn add_source(
        &mut self,
        kind: SourceKind,
        name: String,
        columns: Vec<NamedColumn>,
        alias: Option<&ast::TableAlias>,
        scope: &mut Scope,
    ) -> Result<Rel, SqlError> {
        let mut columns = columns;
        let mut name = name;
        if let Some(alias) = alias {
            name = folded(&alias.name);
            self.renamed(&mut columns, &name, &alias.columns)?;
        }
        let base = scope.width;
        let types: Vec<Type> = columns.iter().map(|c| c.1).collect();
        let table = match &kind {
            SourceKind::Table(relation) => relation.table(),
            _ => None,
        };
        let hidden = |i: usize| table.is_some_and(|t| t.columns.get(i).is_some_and(|c| t.is_hidden(c.id)));
        let columns = columns.into_iter().enumerate().map(|(i, (name, ty, origin))| ScopeColumn {
            name,
            expr: Expr::slot(crate::types::plain(ty), base + i),
            origin,
            hidden: hidden(i),
        });
        scope.add(ScopeTable { name, columns: columns.collect() })?;
        Ok(Rel::Source(Source { kind, base, types }))
    }
}

/// Functions that give rows, in FROM and in the select list.
pub(super) fn is_row_function(name: &str) -> bool {
    name == "generate_series"
}
