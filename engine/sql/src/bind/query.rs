//! SELECT and VALUES.

use super::aggregate::{Aggregates, over_groups};
use super::names::{folded, location, qualified, undefined_table};
use super::scope::ScopeTable;
use super::{Binder, Scope, ScopeColumn, Typed};
use crate::error::{SqlError, SqlState};
use crate::expr::{Comparison, Expr, ExprKind};
use crate::prepared::ColumnDesc;
use crate::rel::{JoinKind, Query, Rel, SortKey, Source, SourceKind};
use crate::system;
use crate::types::CastContext;
use chronos_proto::schema::RelationKind;
use chronos_proto::{Type, limits};
use sqlparser::ast::{
    self, Distinct, GroupByExpr, JoinConstraint, JoinOperator, SelectItem, SetExpr, TableFactor,
};

/// How deep queries may be nested in each other.
const QUERY_DEPTH_MAX: usize = 16;

/// A select item with its name.
struct Item {
    expr: Typed,
    name: String,
}

impl Binder<'_> {
    pub fn bind_query(&mut self, query: &ast::Query) -> Result<Query, SqlError> {
        self.depth += 1;
        if self.depth > QUERY_DEPTH_MAX {
            return Err(SqlError::new(SqlState::TOO_COMPLEX, "queries are nested too deep"));
        }
        let outer = std::mem::replace(&mut self.aggregates, Aggregates::Forbidden("this place"));
        let result = self.query(query);
        self.aggregates = outer;
        self.depth -= 1;
        result
    }

    fn query(&mut self, query: &ast::Query) -> Result<Query, SqlError> {
        if query.with.is_some() {
            return Err(SqlError::unsupported("WITH"));
        }
        if !query.locks.is_empty() {
            return Err(
                SqlError::unsupported("FOR UPDATE").hint("transactions are serializable: it is not needed")
            );
        }
        if query.for_clause.is_some() || query.settings.is_some() || !query.pipe_operators.is_empty() {
            return Err(SqlError::unsupported("this clause"));
        }
        let order: &[ast::OrderByExpr] = match query.order_by.as_ref().map(|o| &o.kind) {
            None => &[],
            Some(ast::OrderByKind::Expressions(keys)) => keys,
            Some(ast::OrderByKind::All(_)) => return Err(SqlError::unsupported("ORDER BY ALL")),
        };
        let mut bound = match &*query.body {
            SetExpr::Select(select) => self.select(select, order)?,
            SetExpr::Values(values) => {
                let bound = self.values(values)?;
                self.order_output(bound, order)?
            }
            SetExpr::Query(inner) => {
                let bound = self.bind_query(inner)?;
                self.order_output(bound, order)?
            }
            SetExpr::SetOperation { op, .. } => return Err(SqlError::unsupported(op)),
            _ => return Err(SqlError::unsupported("this query")),
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
        let one = Expr::constant(Type::Int, chronos_proto::Value::Int(1));
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
                column.push(self.expr(e, &scope)?);
            }
        }
        let mut types = Vec::with_capacity(width);
        let mut out: Vec<Vec<Expr>> = (0..rows.len()).map(|_| Vec::with_capacity(width)).collect();
        for column in columns {
            let (ty, exprs) = self.unify(column, "VALUES")?;
            types.push(ty);
            out.iter_mut().zip(exprs).for_each(|(row, e)| row.push(e));
        }
        let columns = types
            .iter()
            .enumerate()
            .map(|(i, ty)| ColumnDesc { name: format!("column{}", i + 1), ty: *ty, origin: None })
            .collect();
        Ok(Query { rel: Rel::Values { rows: out, types }, columns })
    }

    /// ORDER BY over the columns of a result.
    fn order_output(&mut self, bound: Query, order: &[ast::OrderByExpr]) -> Result<Query, SqlError> {
        if order.is_empty() {
            return Ok(bound);
        }
        let mut scope = Scope::default();
        let columns = bound.columns.iter().enumerate().map(|(slot, c)| ScopeColumn {
            name: c.name.clone(),
            ty: c.ty,
            slot,
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
            keys.push(sort_key(expr, key)?);
        }
        Ok(Query { rel: Rel::Sort { input: Box::new(bound.rel), keys }, columns: bound.columns })
    }

    /// A bare integer names an output column.
    fn ordinal(&mut self, e: &ast::Expr, count: usize, clause: &str) -> Result<Option<usize>, SqlError> {
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

    fn select(&mut self, select: &ast::Select, order: &[ast::OrderByExpr]) -> Result<Query, SqlError> {
        refuse_foreign(select)?;
        let (mut rel, scope) = self.from(&select.from)?;
        if let Some(selection) = &select.selection {
            self.aggregates = Aggregates::Forbidden("WHERE");
            let condition = self.condition(selection, &scope, "WHERE")?;
            rel = Rel::Filter { input: Box::new(rel), conditions: conjuncts(condition) };
        }
        self.aggregates = Aggregates::Gathered(Vec::new());
        let mut items = self.items(&select.projection, &scope)?;
        if items.len() > limits::COLUMNS_MAX {
            return Err(SqlError::new(
                SqlState::TOO_MANY_COLUMNS,
                "target lists can have at most 1600 entries",
            ));
        }
        let mut exprs = Vec::with_capacity(items.len());
        for item in &mut items {
            let open = Typed { expr: Expr::constant(Type::Text, chronos_proto::Value::Null), known: true };
            let typed = std::mem::replace(&mut item.expr, open);
            exprs.push(self.settle(typed)?);
        }
        let visible = exprs.len();
        let having = select.having.as_ref().map(|h| self.condition(h, &scope, "HAVING")).transpose()?;
        // ORDER BY: a position, an output name, or an expression over the input, which is then a hidden column.
        let mut keys = Vec::with_capacity(order.len());
        for key in order {
            let place = self.order_place(&key.expr, &items, &mut exprs, &scope)?;
            keys.push((place, key));
        }
        let groups = self.groups(select, &items, &exprs, &scope)?;
        let gathered = match std::mem::replace(&mut self.aggregates, Aggregates::Forbidden("this place")) {
            Aggregates::Gathered(calls) => calls,
            Aggregates::Forbidden(_) => Vec::new(),
        };
        let columns: Vec<ColumnDesc> = items
            .iter()
            .zip(&exprs)
            .map(|(item, e)| ColumnDesc { name: item.name.clone(), ty: e.ty, origin: origin(e, &scope) })
            .collect();
        let grouped = groups.is_some() || !gathered.is_empty() || having.is_some();
        if grouped {
            let mut groups = groups.unwrap_or_default();
            self.add_dependent_columns(&mut groups, &scope);
            for e in &mut exprs {
                let taken = std::mem::replace(e, Expr::constant(Type::Bool, chronos_proto::Value::Null));
                *e = over_groups(taken, &groups, &scope)?;
            }
            let having = having.map(|h| over_groups(h, &groups, &scope)).transpose()?;
            rel = Rel::Aggregate { input: Box::new(rel), groups, aggregates: gathered };
            if let Some(having) = having {
                rel = Rel::Filter { input: Box::new(rel), conditions: conjuncts(having) };
            }
        }
        let distinct = match &select.distinct {
            None | Some(Distinct::All) => false,
            Some(Distinct::Distinct) => true,
            Some(Distinct::On(_)) => return Err(SqlError::unsupported("DISTINCT ON")),
        };
        if distinct && exprs.len() > visible {
            return Err(SqlError::new(
                SqlState::INVALID_COLUMN_REFERENCE,
                "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
            ));
        }
        let types: Vec<Type> = exprs.iter().map(|e| e.ty).collect();
        let hidden = exprs.len() > visible;
        rel = Rel::Project { input: Box::new(rel), exprs };
        if distinct {
            rel = Rel::Distinct { input: Box::new(rel) };
        }
        if !keys.is_empty() {
            let keys = keys.into_iter().map(|(i, key)| sort_key(Expr::slot(types[i], i), key));
            rel = Rel::Sort { input: Box::new(rel), keys: keys.collect::<Result<_, _>>()? };
        }
        if hidden {
            rel = Rel::Cut { input: Box::new(rel), keep: visible };
        }
        Ok(Query { rel, columns })
    }

    fn order_place(
        &mut self,
        e: &ast::Expr,
        items: &[Item],
        exprs: &mut Vec<Expr>,
        scope: &Scope,
    ) -> Result<usize, SqlError> {
        if let Some(i) = self.ordinal(e, items.len(), "ORDER BY")? {
            return Ok(i);
        }
        if let ast::Expr::Identifier(ident) = e {
            let name = folded(ident);
            let mut named = (0..items.len()).filter(|&i| items[i].name == name);
            if let Some(first) = named.next() {
                if named.any(|other| !exprs[other].same(&exprs[first])) {
                    let message = format!("ORDER BY \"{name}\" is ambiguous");
                    return Err(SqlError::new(SqlState::AMBIGUOUS_COLUMN, message));
                }
                return Ok(first);
            }
        }
        let expr = self.settled(e, scope)?;
        Ok(match exprs.iter().position(|x| x.same(&expr)) {
            Some(i) => i,
            None => {
                exprs.push(expr);
                exprs.len() - 1
            }
        })
    }

    /// GROUP BY: none if there is no such clause.
    fn groups(
        &mut self,
        select: &ast::Select,
        items: &[Item],
        exprs: &[Expr],
        scope: &Scope,
    ) -> Result<Option<Vec<Expr>>, SqlError> {
        let list = match &select.group_by {
            GroupByExpr::Expressions(list, modifiers) if modifiers.is_empty() => list,
            _ => return Err(SqlError::unsupported("this GROUP BY")),
        };
        if list.is_empty() {
            return Ok(None);
        }
        let gathered = std::mem::replace(&mut self.aggregates, Aggregates::Forbidden("GROUP BY"));
        let mut groups: Vec<Expr> = Vec::with_capacity(list.len());
        for e in list {
            let expr = if let Some(i) = self.ordinal(e, items.len(), "GROUP BY")? {
                exprs[i].clone()
            } else {
                // A column of the input comes before an output name.
                let alias = match e {
                    ast::Expr::Identifier(ident) if scope.column(None, &folded(ident))?.is_none() => {
                        items.iter().position(|i| i.name == folded(ident))
                    }
                    _ => None,
                };
                match alias {
                    Some(i) => exprs[i].clone(),
                    None => self.settled(e, scope)?,
                }
            };
            if expr.any(&|e| matches!(e.kind, ExprKind::Aggregate(_))) {
                return Err(SqlError::new(
                    SqlState::GROUPING_ERROR,
                    "aggregate functions are not allowed in GROUP BY",
                ));
            }
            if !groups.iter().any(|g| g.same(&expr)) {
                groups.push(expr);
            }
        }
        self.aggregates = gathered;
        Ok(Some(groups))
    }

    /// Grouping by a whole primary key determines the table's other columns.
    fn add_dependent_columns(&self, groups: &mut Vec<Expr>, scope: &Scope) {
        for table in &scope.tables {
            let relation =
                table.columns.iter().find_map(|c| c.origin).and_then(|(id, _)| self.catalog.get(id));
            let Some(definition) = relation.and_then(|r| r.table()) else { continue };
            let grouped = |column: &&ScopeColumn| {
                groups.iter().any(|g| matches!(g.kind, ExprKind::Slot(s) if s == column.slot))
            };
            let keys = definition
                .primary_key
                .iter()
                .map(|id| table.columns.iter().find(|c| c.origin.is_some_and(|(_, column)| column == *id)));
            let keys: Option<Vec<&ScopeColumn>> = keys.collect();
            if keys.is_some_and(|keys| !keys.is_empty() && keys.iter().all(grouped)) {
                for c in &table.columns {
                    let expr = Expr::slot(c.ty, c.slot);
                    if !groups.iter().any(|g| g.same(&expr)) {
                        groups.push(expr);
                    }
                }
            }
        }
    }

    fn items(&mut self, projection: &[SelectItem], scope: &Scope) -> Result<Vec<Item>, SqlError> {
        let mut items = Vec::with_capacity(projection.len());
        let all = |table: &ScopeTable, qualified: bool, items: &mut Vec<Item>| {
            for c in table.columns.iter().filter(|c| qualified || !c.hidden) {
                items.push(Item { expr: Typed::known(Expr::slot(c.ty, c.slot)), name: c.name.clone() });
            }
        };
        for item in projection {
            match item {
                SelectItem::UnnamedExpr(e) => {
                    items.push(Item { expr: self.expr(e, scope)?, name: output_name(e) })
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    items.push(Item { expr: self.expr(expr, scope)?, name: folded(alias) });
                }
                SelectItem::Wildcard(options) => {
                    plain_wildcard(options)?;
                    if scope.tables.is_empty() {
                        return Err(SqlError::new(
                            SqlState::SYNTAX_ERROR,
                            "SELECT * with no tables specified is not valid",
                        ));
                    }
                    scope.tables.iter().for_each(|t| all(t, false, &mut items));
                }
                SelectItem::QualifiedWildcard(
                    ast::SelectItemQualifiedWildcardKind::ObjectName(name),
                    options,
                ) => {
                    plain_wildcard(options)?;
                    let (_, table) = qualified(name)?;
                    let found = scope.table(&table).ok_or_else(|| {
                        self.at(
                            SqlError::new(
                                SqlState::UNDEFINED_TABLE,
                                format!("missing FROM-clause entry for table \"{table}\""),
                            ),
                            location(name),
                        )
                    })?;
                    all(found, true, &mut items);
                }
                _ => return Err(SqlError::unsupported("this select item")),
            }
        }
        Ok(items)
    }

    /// RETURNING: items over the row that was written.
    pub(super) fn returning(
        &mut self,
        items: &[SelectItem],
        scope: &Scope,
    ) -> Result<(Vec<Expr>, Vec<ColumnDesc>), SqlError> {
        self.aggregates = Aggregates::Forbidden("RETURNING");
        let mut exprs = Vec::new();
        let mut columns = Vec::new();
        for item in self.items(items, scope)? {
            let e = self.settle(item.expr)?;
            columns.push(ColumnDesc { name: item.name, ty: e.ty, origin: origin(&e, scope) });
            exprs.push(e);
        }
        Ok((exprs, columns))
    }

    /// FROM: comma-separated items are cross joins.
    fn from(&mut self, from: &[ast::TableWithJoins]) -> Result<(Rel, Scope), SqlError> {
        let mut scope = Scope::default();
        let mut rel: Option<Rel> = None;
        for item in from {
            let right = self.joined(item, &mut scope)?;
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
        Ok((rel.unwrap_or(Rel::Unit), scope))
    }

    pub(super) fn joined(&mut self, item: &ast::TableWithJoins, scope: &mut Scope) -> Result<Rel, SqlError> {
        let before = scope.tables.len();
        let mut rel = self.factor(&item.relation, scope)?;
        for join in &item.joins {
            let middle = scope.tables.len();
            let right = self.factor(&join.relation, scope)?;
            let (kind, constraint) = match &join.join_operator {
                JoinOperator::Join(c) | JoinOperator::Inner(c) => (JoinKind::Inner, c),
                JoinOperator::CrossJoin(c) => (JoinKind::Inner, c),
                JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => (JoinKind::Left, c),
                JoinOperator::Right(c) | JoinOperator::RightOuter(c) => {
                    let on = self.constraint(c, scope, before, middle)?;
                    rel = Rel::Join { left: Box::new(right), right: Box::new(rel), kind: JoinKind::Left, on };
                    continue;
                }
                JoinOperator::FullOuter(_) => return Err(SqlError::unsupported("FULL JOIN")),
                _ => return Err(SqlError::unsupported("this join")),
            };
            let on = self.constraint(constraint, scope, before, middle)?;
            rel = Rel::Join { left: Box::new(rel), right: Box::new(right), kind, on };
        }
        Ok(rel)
    }

    /// ON, USING and NATURAL. `left..middle` are the tables on the left, `middle..` those on the right.
    fn constraint(
        &mut self,
        constraint: &JoinConstraint,
        scope: &mut Scope,
        left: usize,
        middle: usize,
    ) -> Result<Vec<Expr>, SqlError> {
        let names: Vec<String> = match constraint {
            JoinConstraint::None => return Ok(Vec::new()),
            JoinConstraint::On(e) => {
                self.aggregates = Aggregates::Forbidden("JOIN conditions");
                // Only this join's tables may be named.
                let visible = Scope { tables: scope.tables[left..].to_vec(), width: scope.width };
                return Ok(conjuncts(self.condition(e, &visible, "JOIN/ON")?));
            }
            JoinConstraint::Using(names) => {
                names.iter().map(|n| qualified(n).map(|(_, name)| name)).collect::<Result<_, _>>()?
            }
            JoinConstraint::Natural => {
                let of = |tables: &[ScopeTable]| -> Vec<String> {
                    tables
                        .iter()
                        .flat_map(|t| t.columns.iter())
                        .filter(|c| !c.hidden)
                        .map(|c| c.name.clone())
                        .collect()
                };
                let right = of(&scope.tables[middle..]);
                of(&scope.tables[left..middle]).into_iter().filter(|n| right.contains(n)).collect()
            }
        };
        let mut on = Vec::with_capacity(names.len());
        for name in names {
            let side = |tables: &[ScopeTable], which: &str| -> Result<ScopeColumn, SqlError> {
                let part = Scope { tables: tables.to_vec(), width: 0 };
                part.column(None, &name)?.cloned().ok_or_else(|| {
                    SqlError::new(
                        SqlState::UNDEFINED_COLUMN,
                        format!(
                            "column \"{name}\" specified in USING clause does not exist in {which} table"
                        ),
                    )
                })
            };
            let a = side(&scope.tables[left..middle], "left")?;
            let b = side(&scope.tables[middle..], "right")?;
            let (x, y) = (Typed::known(Expr::slot(a.ty, a.slot)), Typed::known(Expr::slot(b.ty, b.slot)));
            on.push(self.compare(Comparison::Eq, x, y)?);
            for table in &mut scope.tables[middle..] {
                table.columns.iter_mut().filter(|c| c.slot == b.slot).for_each(|c| c.hidden = true);
            }
        }
        Ok(on)
    }

    fn factor(&mut self, factor: &TableFactor, scope: &mut Scope) -> Result<Rel, SqlError> {
        match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_ordinality: false,
                sample: None,
                version: None,
                ..
            } => {
                if let Some(args) = args {
                    return self.table_function(name, &args.args, alias.as_ref(), scope);
                }
                let (kind, table, columns) = self.named_source(name)?;
                self.add_source(kind, table, columns, alias.as_ref(), scope)
            }
            TableFactor::Function { lateral: false, name, args, with_ordinality: false, alias } => {
                self.table_function(name, args, alias.as_ref(), scope)
            }
            TableFactor::Derived { lateral: false, subquery, alias, sample: None } => {
                let query = self.bind_query(subquery)?;
                let columns = query.columns.into_iter().map(|c| (c.name, c.ty, c.origin)).collect();
                let name = format!("?subquery{}", scope.tables.len());
                self.add_source(SourceKind::Query(Box::new(query.rel)), name, columns, alias.as_ref(), scope)
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.depth += 1;
                if self.depth > QUERY_DEPTH_MAX {
                    return Err(SqlError::new(SqlState::TOO_COMPLEX, "joins are nested too deep"));
                }
                let rel = self.joined(table_with_joins, scope);
                self.depth -= 1;
                rel
            }
            TableFactor::Derived { lateral: true, .. } | TableFactor::Function { lateral: true, .. } => {
                Err(SqlError::unsupported("LATERAL"))
            }
            _ => Err(SqlError::unsupported("this item in FROM")),
        }
    }

    /// A table, a topic or a system relation by name, with its columns.
    pub(super) fn named_source(
        &mut self,
        name: &ast::ObjectName,
    ) -> Result<(SourceKind, String, Vec<NamedColumn>), SqlError> {
        let (schema, folded) = qualified(name)?;
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
                RelationKind::Topic(topic) => {
                    let columns = system::topic_columns(topic.payload);
                    let columns = columns.into_iter().map(|(n, ty)| (n.to_owned(), ty, None)).collect();
                    (SourceKind::Topic(relation), folded, columns)
                }
            });
        }
        if schema.as_deref() == Some("chronos") && folded == "timers" {
            let columns = system::TIMER_COLUMNS.iter().map(|(n, ty)| ((*n).to_owned(), *ty, None)).collect();
            return Ok((SourceKind::Timers, folded, columns));
        }
        if let Some(table) = system::find(schema.as_deref(), &folded) {
            let columns = table.columns.iter().map(|(n, ty)| ((*n).to_owned(), *ty, None)).collect();
            return Ok((SourceKind::System(table), folded, columns));
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
        alias: Option<&ast::TableAlias>,
        scope: &mut Scope,
    ) -> Result<Rel, SqlError> {
        let (_, function) = qualified(name)?;
        if function != "generate_series" {
            return Err(
                self.at(SqlError::unsupported(format!("function {function} in FROM")), location(name))
            );
        }
        self.aggregates = Aggregates::Forbidden("functions in FROM");
        let mut typed = Vec::with_capacity(args.len());
        for arg in args {
            let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e)) = arg else {
                return Err(SqlError::unsupported("this argument"));
            };
            typed.push(self.expr(e, &Scope::default())?);
        }
        let given: Vec<Option<Type>> = typed.iter().map(Typed::ty).collect();
        let times = given.iter().flatten().any(|t| matches!(t, Type::Timestamp | Type::Date));
        let floats = given.iter().flatten().any(|t| *t == Type::Float);
        let (ty, step) = match (times, floats) {
            (true, _) => (Type::Timestamp, Type::Interval),
            (false, true) => (Type::Float, Type::Float),
            (false, false) => (Type::Int, Type::Int),
        };
        if !(2..=3).contains(&typed.len()) || times && typed.len() != 3 {
            return Err(self.at(crate::func::undefined(&function, &given, false), location(name)));
        }
        let mut exprs = Vec::with_capacity(3);
        for (i, t) in typed.into_iter().enumerate() {
            exprs.push(self.coerce(t, if i == 2 { step } else { ty }, CastContext::Implicit)?);
        }
        // The one column has the table's alias, as PostgreSQL has it.
        let column = alias.map_or_else(|| function.clone(), |a| folded(&a.name));
        self.add_source(SourceKind::Series(exprs), function, vec![(column, ty, None)], alias, scope)
    }

    fn add_source(
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
            if alias.columns.len() > columns.len() {
                return Err(SqlError::new(
                    SqlState::INVALID_COLUMN_REFERENCE,
                    format!(
                        "table \"{name}\" has {} columns available but {} columns specified",
                        columns.len(),
                        alias.columns.len()
                    ),
                ));
            }
            for (column, given) in columns.iter_mut().zip(&alias.columns) {
                column.0 = folded(&given.name);
            }
        }
        let base = scope.width;
        let types: Vec<Type> = columns.iter().map(|c| c.1).collect();
        let columns = columns.into_iter().enumerate().map(|(i, (name, ty, origin))| ScopeColumn {
            name,
            ty,
            slot: base + i,
            origin,
            hidden: false,
        });
        scope.add(ScopeTable { name, columns: columns.collect() })?;
        Ok(Rel::Source(Source { kind, base, types }))
    }
}

/// Name, type and the table column it comes from.
pub(super) type NamedColumn =
    (String, Type, Option<(chronos_proto::id::RelationId, chronos_proto::id::ColumnId)>);

fn origin(e: &Expr, scope: &Scope) -> Option<(chronos_proto::id::RelationId, chronos_proto::id::ColumnId)> {
    let ExprKind::Slot(slot) = e.kind else { return None };
    scope.tables.iter().flat_map(|t| &t.columns).find(|c| c.slot == slot)?.origin
}

fn sort_key(expr: Expr, key: &ast::OrderByExpr) -> Result<SortKey, SqlError> {
    let descending = match &key.options.sort {
        None | Some(ast::OrderBySort::Asc) => false,
        Some(ast::OrderBySort::Desc) => true,
        Some(_) => return Err(SqlError::unsupported("ORDER BY USING")),
    };
    Ok(SortKey { expr, descending, nulls_first: key.options.nulls_first.unwrap_or(descending) })
}

/// The parts of a conjunction.
pub(super) fn conjuncts(e: Expr) -> Vec<Expr> {
    match e.kind {
        ExprKind::And(parts) => parts.into_iter().flat_map(conjuncts).collect(),
        _ => vec![e],
    }
}

/// The name that PostgreSQL gives to an expression without an alias.
fn output_name(e: &ast::Expr) -> String {
    use ast::Expr as E;
    match e {
        E::Identifier(ident) => folded(ident),
        E::CompoundIdentifier(parts) => parts.last().map(folded).unwrap_or_default(),
        E::Function(f) => qualified(&f.name).map(|(_, name)| name).unwrap_or_default(),
        E::Nested(inner) | E::Collate { expr: inner, .. } => output_name(inner),
        E::Cast { expr, data_type, .. } => match output_name(expr) {
            name if name == "?column?" => cast_name(data_type),
            name => name,
        },
        E::Case { else_result, .. } => match else_result.as_deref().map(output_name) {
            Some(name) if name != "?column?" => name,
            _ => "case".into(),
        },
        E::Extract { .. } => "extract".into(),
        E::Substring { .. } => "substring".into(),
        E::Trim { trim_where, .. } => match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim".into(),
            Some(ast::TrimWhereField::Trailing) => "rtrim".into(),
            _ => "btrim".into(),
        },
        E::Position { .. } => "position".into(),
        E::Ceil { .. } => "ceil".into(),
        E::Floor { .. } => "floor".into(),
        E::AtTimeZone { .. } => "timezone".into(),
        E::Value(v) if matches!(v.value, ast::Value::Boolean(_)) => "bool".into(),
        E::TypedString(t) => cast_name(&t.data_type),
        E::Interval(_) => "interval".into(),
        _ => "?column?".into(),
    }
}

fn cast_name(ty: &ast::DataType) -> String {
    match super::names::data_type(ty) {
        Ok(Type::Int) => "int8",
        Ok(Type::Float) => "float8",
        Ok(Type::Bool) => "bool",
        Ok(Type::Text) => "text",
        Ok(Type::Bytes) => "bytea",
        Ok(Type::Timestamp) => "timestamptz",
        Ok(Type::Date) => "date",
        Ok(Type::Interval) => "interval",
        Ok(Type::Json) => "jsonb",
        Ok(Type::Uuid) => "uuid",
        Err(_) => "?column?",
    }
    .into()
}

fn plain_wildcard(options: &ast::WildcardAdditionalOptions) -> Result<(), SqlError> {
    let plain = options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_alias.is_none();
    if plain { Ok(()) } else { Err(SqlError::unsupported("options of *")) }
}

/// What other databases have in SELECT.
fn refuse_foreign(select: &ast::Select) -> Result<(), SqlError> {
    let foreign = select.top.is_some()
        || select.into.is_some()
        || select.exclude.is_some()
        || !select.lateral_views.is_empty()
        || select.prewhere.is_some()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty()
        || select.qualify.is_some()
        || select.value_table_mode.is_some();
    if foreign {
        return Err(SqlError::unsupported("this clause of SELECT"));
    }
    if !select.named_window.is_empty() {
        return Err(SqlError::unsupported("WINDOW"));
    }
    Ok(())
}
