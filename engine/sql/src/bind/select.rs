//! SELECT: its list, its groups and its order.

use super::aggregate::{Aggregates, Groups, over_groups};
use super::from::Origin;
use super::names::{folded, location, qualified};
use super::window::Windows;
use super::{Binder, Scope, ScopeColumn, Typed};
use crate::error::{SqlError, SqlState};
use crate::expr::{Expr, ExprKind};
use crate::prepared::ColumnDesc;
use crate::rel::{Query, Rel, SortKey};
use chronos_proto::{Type, Value, limits};
use sqlparser::ast::{self, Distinct, GroupByExpr, SelectItem};

/// The most grouping sets of one SELECT.
const GROUPING_SETS_MAX: usize = 4_096;

/// A select item with its name.
pub(super) struct Item {
    pub expr: Typed,
    pub name: String,
}

impl Binder<'_> {
    pub(super) fn select(
        &mut self,
        select: &ast::Select,
        order: &[ast::OrderByExpr],
    ) -> Result<Query, SqlError> {
        refuse_foreign(select)?;
        let (mut rel, mut scope) = self.from(&select.from)?;
        if let Some(selection) = &select.selection {
            self.aggregates = Aggregates::Forbidden("WHERE");
            let condition = self.condition(selection, &scope, "WHERE")?;
            rel = Rel::Filter { input: Box::new(rel), conditions: conjuncts(condition) };
        }
        self.name_windows(&select.named_window)?;
        rel = self.row_functions(&select.projection, &mut scope, rel)?;
        self.aggregates = Aggregates::Gathered(Vec::new());
        self.windows = Windows::Gathered(Vec::new());
        let mut items = self.items(&select.projection, &scope)?;
        if items.len() > limits::COLUMNS_MAX {
            return Err(SqlError::new(
                SqlState::TOO_MANY_COLUMNS,
                "target lists can have at most 1600 entries",
            ));
        }
        let mut exprs = Vec::with_capacity(items.len());
        let mut open = Vec::with_capacity(items.len());
        for item in &mut items {
            let null = Typed { expr: Expr::constant(Type::Text, Value::Null), known: true };
            let typed = std::mem::replace(&mut item.expr, null);
            open.push(!typed.known && matches!(typed.expr.kind, ExprKind::Const(_)));
            exprs.push(self.settle(typed)?);
        }
        let visible = exprs.len();
        // ORDER BY: a position, an output name, or an expression over the input, which is then a hidden column.
        let mut keys = Vec::with_capacity(order.len());
        for key in order {
            let place = self.order_place(&key.expr, &items, &mut exprs, &scope)?;
            keys.push((place, key));
        }
        let (distinct, distinct_on) = match &select.distinct {
            None | Some(Distinct::All) => (false, Vec::new()),
            Some(Distinct::Distinct) => (true, Vec::new()),
            Some(Distinct::On(on)) => {
                let mut places = Vec::with_capacity(on.len());
                for e in on {
                    places.push(self.order_place(e, &items, &mut exprs, &scope)?);
                }
                (false, places)
            }
        };
        let windows = std::mem::replace(&mut self.windows, Windows::Forbidden);
        let having = select.having.as_ref().map(|h| self.condition(h, &scope, "HAVING")).transpose()?;
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
        let mut windows = windows.into_calls();
        let grouped = groups.is_some() || !gathered.is_empty() || having.is_some();
        if grouped {
            let (mut groups, sets) = groups.unwrap_or_default();
            if sets.is_none() {
                self.add_dependent_columns(&mut groups, &scope);
            }
            let over =
                Groups { groups: &groups, sets: sets.as_deref(), aggregates: gathered.len(), scope: &scope };
            for e in exprs.iter_mut().chain(windows.iter_mut().flat_map(|w| w.exprs_mut())) {
                let taken = std::mem::replace(e, Expr::constant(Type::Bool, Value::Null));
                *e = over_groups(taken, &over)?;
            }
            let having = having.map(|h| over_groups(h, &over)).transpose()?;
            rel = Rel::Aggregate { input: Box::new(rel), groups, sets, aggregates: gathered };
            if let Some(having) = having {
                rel = Rel::Filter { input: Box::new(rel), conditions: conjuncts(having) };
            }
        }
        if !windows.is_empty() {
            let base = rel.width();
            exprs.iter_mut().for_each(|e| window_slots(e, base));
            rel = Rel::Window { input: Box::new(rel), calls: windows };
        }
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
        let mut sort = Vec::with_capacity(keys.len());
        for (place, key) in &keys {
            sort.push(sort_key(Expr::slot(types[*place], *place), key)?);
        }
        if !distinct_on.is_empty() {
            let mut left: Vec<usize> = distinct_on.clone();
            for (place, _) in &keys {
                if left.is_empty() {
                    break;
                }
                if !distinct_on.contains(place) {
                    return Err(SqlError::new(
                        SqlState::INVALID_COLUMN_REFERENCE,
                        "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
                    ));
                }
                left.retain(|p| p != place);
            }
            sort.extend(left.into_iter().map(|place| SortKey {
                expr: Expr::slot(types[place], place),
                descending: false,
                nulls_first: false,
            }));
        }
        if !sort.is_empty() {
            rel = Rel::Sort { input: Box::new(rel), keys: sort };
        }
        if !distinct_on.is_empty() {
            rel = Rel::DistinctOn { input: Box::new(rel), keys: distinct_on };
        }
        if hidden {
            rel = Rel::Cut { input: Box::new(rel), keep: visible };
        }
        Ok(Query { rel, columns, open })
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

    /// GROUP BY: none if there is no such clause. The groups, and the grouping sets where there are several.
    fn groups(
        &mut self,
        select: &ast::Select,
        items: &[Item],
        exprs: &[Expr],
        scope: &Scope,
    ) -> Result<Option<GroupBy>, SqlError> {
        let list = match &select.group_by {
            GroupByExpr::Expressions(list, modifiers) if modifiers.is_empty() => list,
            _ => return Err(SqlError::unsupported("this GROUP BY")),
        };
        if list.is_empty() {
            return Ok(None);
        }
        let gathered = std::mem::replace(&mut self.aggregates, Aggregates::Forbidden("GROUP BY"));
        let mut groups: Vec<Expr> = Vec::with_capacity(list.len());
        let mut sets: Vec<Vec<usize>> = vec![Vec::new()];
        let mut several = false;
        for e in list {
            // Each item is some sets of its own; together they are all combinations.
            let own: Vec<Vec<usize>> = match e {
                ast::Expr::Rollup(parts) => {
                    let parts = self.group_parts(parts, items, exprs, scope, &mut groups)?;
                    (0..=parts.len()).rev().map(|n| parts[..n].concat()).collect()
                }
                ast::Expr::Cube(parts) => {
                    let parts = self.group_parts(parts, items, exprs, scope, &mut groups)?;
                    if parts.len() > 12 {
                        return Err(SqlError::new(
                            SqlState::TOO_MANY_COLUMNS,
                            "CUBE is limited to 12 elements",
                        ));
                    }
                    let chosen = |mask: usize| -> Vec<usize> {
                        let of = |i: &usize| mask & (1 << (parts.len() - 1 - i)) != 0;
                        (0..parts.len()).filter(of).flat_map(|i| parts[i].clone()).collect()
                    };
                    (0..1usize << parts.len()).rev().map(chosen).collect()
                }
                ast::Expr::GroupingSets(parts) => {
                    self.group_parts(parts, items, exprs, scope, &mut groups)?
                }
                ast::Expr::Tuple(parts) => {
                    let mut places = Vec::with_capacity(parts.len());
                    for part in parts {
                        places.push(self.group(part, items, exprs, scope, &mut groups)?);
                    }
                    sets.iter_mut().for_each(|set| set.extend(&places));
                    continue;
                }
                e => {
                    let place = self.group(e, items, exprs, scope, &mut groups)?;
                    sets.iter_mut().for_each(|set| set.push(place));
                    continue;
                }
            };
            several = true;
            if sets.len().saturating_mul(own.len()) > GROUPING_SETS_MAX {
                return Err(SqlError::new(
                    SqlState::TOO_COMPLEX,
                    format!("too many grouping sets present (maximum {GROUPING_SETS_MAX})"),
                ));
            }
            let with = |set: &Vec<usize>| -> Vec<Vec<usize>> {
                own.iter().map(|more| set.iter().chain(more).copied().collect()).collect()
            };
            sets = sets.iter().flat_map(with).collect();
        }
        self.aggregates = gathered;
        Ok(Some((groups, several.then_some(sets))))
    }

    fn group_parts(
        &mut self,
        parts: &[Vec<ast::Expr>],
        items: &[Item],
        exprs: &[Expr],
        scope: &Scope,
        groups: &mut Vec<Expr>,
    ) -> Result<Vec<Vec<usize>>, SqlError> {
        let mut out = Vec::with_capacity(parts.len());
        for part in parts {
            let mut places = Vec::with_capacity(part.len());
            for e in part {
                places.push(self.group(e, items, exprs, scope, groups)?);
            }
            out.push(places);
        }
        Ok(out)
    }

    /// The place of a group among the groups.
    fn group(
        &mut self,
        e: &ast::Expr,
        items: &[Item],
        exprs: &[Expr],
        scope: &Scope,
        groups: &mut Vec<Expr>,
    ) -> Result<usize, SqlError> {
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
        if expr.any(&|e| matches!(e.kind, ExprKind::Window(_))) {
            return Err(SqlError::new(
                SqlState::WINDOWING_ERROR,
                "window functions are not allowed in GROUP BY",
            ));
        }
        Ok(match groups.iter().position(|g| g.same(&expr)) {
            Some(place) => place,
            None => {
                groups.push(expr);
                groups.len() - 1
            }
        })
    }

    /// Grouping by a whole primary key determines the table's other columns.
    fn add_dependent_columns(&self, groups: &mut Vec<Expr>, scope: &Scope) {
        for table in &scope.tables {
            let relation =
                table.columns.iter().find_map(|c| c.origin).and_then(|(id, _)| self.catalog.get(id));
            let Some(definition) = relation.and_then(|r| r.table()) else { continue };
            let grouped = |column: &&ScopeColumn| groups.iter().any(|g| g.same(&column.expr));
            let keys = definition
                .primary_key
                .iter()
                .map(|id| table.columns.iter().find(|c| c.origin.is_some_and(|(_, column)| column == *id)));
            let keys: Option<Vec<&ScopeColumn>> = keys.collect();
            if keys.is_some_and(|keys| !keys.is_empty() && keys.iter().all(grouped)) {
                for c in &table.columns {
                    if !groups.iter().any(|g| g.same(&c.expr)) {
                        groups.push(c.expr.clone());
                    }
                }
            }
        }
    }

    fn items(&mut self, projection: &[SelectItem], scope: &Scope) -> Result<Vec<Item>, SqlError> {
        let mut items = Vec::with_capacity(projection.len());
        let all = |columns: &[ScopeColumn], items: &mut Vec<Item>| {
            let item = |c: &ScopeColumn| Item { expr: Typed::known(c.expr.clone()), name: c.name.clone() };
            items.extend(columns.iter().filter(|c| !c.hidden).map(item));
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
                    all(&scope.visible, &mut items);
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
                    all(&found.columns, &mut items);
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
}

/// Groups, and the places of each grouping set's where there are several sets.
type GroupBy = (Vec<Expr>, Option<Vec<Vec<usize>>>);

fn origin(e: &Expr, scope: &Scope) -> Origin {
    let ExprKind::Slot(slot) = e.kind else { return None };
    scope.tables.iter().flat_map(|t| &t.columns).find(|c| c.is_slot(slot))?.origin
}

/// Window functions are the columns behind the input's.
fn window_slots(e: &mut Expr, base: usize) {
    if let ExprKind::Window(i) = e.kind {
        e.kind = ExprKind::Slot(base + i);
    }
    e.children_mut().into_iter().for_each(|c| window_slots(c, base));
}

pub(super) fn sort_key(expr: Expr, key: &ast::OrderByExpr) -> Result<SortKey, SqlError> {
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
        E::Exists { negated: false, .. } => "exists".into(),
        E::Subquery(query) => match &*query.body {
            ast::SetExpr::Select(select) => match select.projection.first() {
                Some(SelectItem::UnnamedExpr(e)) => output_name(e),
                Some(SelectItem::ExprWithAlias { alias, .. }) => folded(alias),
                _ => "?column?".into(),
            },
            ast::SetExpr::Values(_) => "column1".into(),
            _ => "?column?".into(),
        },
        _ => "?column?".into(),
    }
}

fn cast_name(ty: &ast::DataType) -> String {
    match super::names::data_type(ty) {
        Ok(Type::Array(element)) => crate::oid::name(element.ty()),
        Ok(ty) => crate::oid::name(ty),
        Err(_) => "?column?".into(),
    }
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
    Ok(())
}
