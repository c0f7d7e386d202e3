//! INSERT, UPDATE and DELETE.

use super::aggregate::Aggregates;
use super::from::NamedColumn;
use super::names::{folded, qualified};
use super::scope::ScopeTable;
use super::select::conjuncts;
use super::{Binder, Scope, ScopeColumn, Typed, literal};
use crate::action::{Action, Arbiter, Check, Delete, Insert, OnConflict, Rows, Target, Update, Upsert};
use crate::error::{SqlError, SqlState};
use crate::expr::Expr;
use crate::parse::rows::{Literal, values};
use crate::plan;
use crate::prepared::ColumnDesc;
use crate::rel::{Rel, Source, SourceKind};
use crate::types::{CastContext, plain};
use chronos_proto::id::ColumnId;
use chronos_proto::schema::{DefaultValue, Extra, Relation, SecondaryIndex};
use chronos_proto::{Type, Value};
use sqlparser::ast::{self, OnConflictAction, OnInsert};

/// What can be written to, with its columns and what an absent one becomes.
pub(super) struct Writable {
    pub target: Target,
    kind: SourceKind,
    pub name: String,
    pub columns: Vec<NamedColumn>,
}

impl Writable {
    /// Whether a column is there only when it is named.
    fn is_hidden(&self, place: usize) -> bool {
        let Target::Table(relation) = &self.target else { return false };
        relation.table().is_some_and(|t| t.columns.get(place).is_some_and(|c| t.is_hidden(c.id)))
    }
}

impl Binder<'_> {
    pub(super) fn writable(&mut self, name: &ast::ObjectName) -> Result<Writable, SqlError> {
        let (kind, table, columns) = self.named_source(name)?;
        let target = match &kind {
            SourceKind::Table(relation) => Target::Table(relation.clone()),
            SourceKind::Topic(relation) => Target::Topic(relation.clone()),
            SourceKind::Timers => Target::Timers,
            _ => {
                return Err(SqlError::new(
                    SqlState::INSUFFICIENT_PRIVILEGE,
                    format!("permission denied: \"{table}\" is a system catalog"),
                ));
            }
        };
        Ok(Writable { target, kind, name: table, columns })
    }

    pub(super) fn bind_insert(
        &mut self,
        insert: &ast::Insert,
    ) -> Result<(Action, Vec<ColumnDesc>), SqlError> {
        let ast::TableObject::TableName(name) = &insert.table else {
            return Err(SqlError::unsupported("INSERT into this"));
        };
        if insert.or.is_some() || insert.overwrite || insert.replace_into || !insert.assignments.is_empty() {
            return Err(SqlError::unsupported("this form of INSERT"));
        }
        let w = self.writable(name)?;
        let places = self.insert_columns(&w, &insert.columns)?;
        // Where no column is named, those behind the last that is given have their defaults.
        self.all_columns = insert.columns.is_empty();
        let rows = match &insert.source {
            None => Rows::Values(vec![self.absent(&w, &[])?]),
            Some(query) => match values(insert) {
                Some(values) => Rows::Values(self.insert_values(&w, &places, &values.rows)?),
                None => Rows::Query(Box::new(self.insert_query(&w, &places, query)?)),
            },
        };
        let alias = insert.table_alias.as_ref().map(|a| folded(&a.alias));
        let conflict = self.on_conflict(insert.on.as_ref(), &w, alias.clone())?;
        let checks = self.checks(&w)?;
        let scope = self.scope_of(&w, alias)?;
        let (returning, columns) = self.bind_returning(insert.returning.as_deref(), &w, &scope)?;
        Ok((Action::Insert(Insert { target: w.target, rows, conflict, checks, returning }), columns))
    }

    /// The places of the columns that are given, all if none is named.
    pub(super) fn insert_columns(
        &mut self,
        w: &Writable,
        names: &[ast::ObjectName],
    ) -> Result<Vec<usize>, SqlError> {
        if names.is_empty() {
            // A topic's position and times are its own; what is given in order is what may be given.
            return Ok(match w.target {
                Target::Topic(_) => vec![2, 3, 4, 5, 7],
                _ => (0..w.columns.len()).filter(|place| !w.is_hidden(*place)).collect(),
            });
        }
        let mut places: Vec<usize> = Vec::with_capacity(names.len());
        for name in names {
            let (_, column) = qualified(name)?;
            let at = super::names::location(name);
            let place = self.target_column(w, &column).map_err(|e| self.at(e, at))?;
            if places.contains(&place) {
                return Err(self.at(
                    SqlError::new(
                        SqlState::DUPLICATE_COLUMN,
                        format!("column \"{column}\" specified more than once"),
                    ),
                    at,
                ));
            }
            places.push(place);
        }
        let refuse = |what: &str| {
            SqlError::new(SqlState(*b"428C9"), format!("column \"{what}\" is given by the system"))
        };
        for place in &places {
            let name = w.columns[*place].0.as_str();
            match w.target {
                Target::Topic(_) if matches!(name, "partition" | "offset" | "published_at" | "fired_at") => {
                    return Err(refuse(name));
                }
                Target::Timers if matches!(name, "version" | "schedule") => return Err(refuse(name)),
                _ => {}
            }
        }
        Ok(places)
    }

    fn target_column(&self, w: &Writable, column: &str) -> Result<usize, SqlError> {
        w.columns.iter().position(|c| c.0 == column).ok_or_else(|| {
            SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{column}\" of relation \"{}\" does not exist", w.name),
            )
        })
    }

    /// The rows of VALUES, those that the parser did not see among them.
    fn insert_values(
        &mut self,
        w: &Writable,
        places: &[usize],
        rows: &[ast::Parens<Vec<ast::Expr>>],
    ) -> Result<Vec<Vec<Expr>>, SqlError> {
        let width = rows.first().map_or(0, |row| row.len());
        let absent = self.absent(w, &places[..width.min(places.len())])?;
        let literals = self.statement.and_then(|statement| statement.literals());
        let mut out = Vec::with_capacity(rows.len() + literals.as_ref().map_or(0, |rows| rows.len()));
        let (first, others) = rows.split_at(rows.len().min(1));
        for row in first {
            out.push(self.insert_row(w, places, row, &absent)?);
        }
        for row in literals.into_iter().flatten() {
            let mut values = absent.clone();
            for (literal, place) in row.zip(places) {
                values[*place] = self.store(&literal, w, *place)?;
            }
            out.push(values);
        }
        for row in others {
            if row.len() != width {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    "VALUES lists must all be the same length",
                ));
            }
            out.push(self.insert_row(w, places, row, &absent)?);
        }
        Ok(out)
    }

    /// What the columns of a row become that gives values for some places: their defaults, and NULL in these places.
    fn absent(&mut self, w: &Writable, given: &[usize]) -> Result<Vec<Expr>, SqlError> {
        let column = |place: usize| match given.contains(&place) {
            true => Ok(Expr::constant(w.columns[place].1, Value::Null)),
            false => self.default(w, place),
        };
        (0..w.columns.len()).map(column).collect()
    }

    /// One row of VALUES as one expression for every column of the target.
    fn insert_row(
        &mut self,
        w: &Writable,
        places: &[usize],
        row: &[ast::Expr],
        absent: &[Expr],
    ) -> Result<Vec<Expr>, SqlError> {
        self.check_count(row.len(), places.len(), row.is_empty() || self.all_columns)?;
        self.aggregates = Aggregates::Forbidden("VALUES");
        let mut out = absent.to_vec();
        for (e, place) in row.iter().zip(places) {
            out[*place] = if is_default(e) {
                self.default(w, *place)?
            } else {
                self.check_given(w, *place)?;
                match Literal::of(e).and_then(|literal| stored(&literal, w, *place)) {
                    Some(stored) => stored,
                    None => {
                        let typed = self.expr(e, &Scope::default())?;
                        self.assign(typed, w, *place)?
                    }
                }
            };
        }
        Ok(out)
    }

    /// A literal as what a column holds.
    fn store(&mut self, literal: &Literal<'_>, w: &Writable, place: usize) -> Result<Expr, SqlError> {
        match stored(literal, w, place) {
            Some(stored) => Ok(stored),
            None => {
                let typed = self.literal(&literal.value())?;
                self.assign(typed, w, place)
            }
        }
    }

    /// GENERATED ALWAYS takes no value of one's own.
    fn check_given(&self, w: &Writable, place: usize) -> Result<(), SqlError> {
        let Target::Table(relation) = &w.target else { return Ok(()) };
        let Some(table) = relation.table() else { return Ok(()) };
        let id = table.columns.get(place).map(|c| c.id);
        let always = table
            .extras
            .iter()
            .any(|e| matches!(e, Extra::Identity { column, always: Some(true), .. } if Some(*column) == id));
        if !always {
            return Ok(());
        }
        Err(SqlError::new(
            SqlState(*b"428C9"),
            format!("cannot insert a non-DEFAULT value into column \"{}\"", w.columns[place].0),
        )
        .detail(format!(
            "Column \"{}\" is an identity column defined as GENERATED ALWAYS.",
            w.columns[place].0
        ))
        .hint("Leave the column out, or give DEFAULT."))
    }

    /// The CHECK constraints of a table.
    pub(super) fn checks(&mut self, w: &Writable) -> Result<Vec<Check>, SqlError> {
        let Target::Table(relation) = &w.target else { return Ok(Vec::new()) };
        let relation = relation.clone();
        let mut checks = Vec::new();
        for extra in relation.table().map_or(&[][..], |t| &t.extras) {
            if let Extra::Check { name, condition } = extra {
                let scope = self.scope_of(w, None)?;
                let e = crate::parse::parse_expression(condition)?;
                self.aggregates = Aggregates::Forbidden("check constraints");
                let condition = self.condition(&e, &scope, "CHECK")?;
                checks.push(Check { name: name.clone(), condition });
            }
        }
        Ok(checks)
    }

    /// SET: (column, value).
    fn assignments(
        &mut self,
        w: &Writable,
        assignments: &[ast::Assignment],
        scope: &Scope,
    ) -> Result<Vec<(usize, Expr)>, SqlError> {
        let mut pairs: Vec<(&ast::ObjectName, &ast::Expr)> = Vec::new();
        for assignment in assignments {
            match (&assignment.target, &assignment.value) {
                (ast::AssignmentTarget::ColumnName(name), value) => pairs.push((name, value)),
                (ast::AssignmentTarget::Tuple(names), ast::Expr::Tuple(values))
                    if names.len() == values.len() =>
                {
                    pairs.extend(names.iter().zip(values));
                }
                (ast::AssignmentTarget::Tuple(names), ast::Expr::Nested(value)) if names.len() == 1 => {
                    pairs.push((&names[0], value));
                }
                _ => return Err(SqlError::unsupported("assigning several columns from a subquery")),
            }
        }
        let mut out: Vec<(usize, Expr)> = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            let (_, column) = qualified(name)?;
            let at = super::names::location(name);
            let place = self.target_column(w, &column).map_err(|e| self.at(e, at))?;
            if matches!(w.target, Target::Timers)
                && !matches!(column.as_str(), "deliver_at" | "payload" | "headers")
            {
                return Err(SqlError::new(
                    SqlState(*b"428C9"),
                    format!("column \"{column}\" of a timer cannot be changed"),
                )
                .hint("deliver_at, payload and headers can"));
            }
            if out.iter().any(|(p, _)| *p == place) {
                return Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    format!("multiple assignments to same column \"{column}\""),
                ));
            }
            self.aggregates = Aggregates::Forbidden("UPDATE");
            let value = if is_default(value) {
                self.default(w, place)?
            } else {
                let typed = self.expr(value, scope)?;
                self.assign(typed, w, place)?
            };
            out.push((place, value));
        }
        Ok(out)
    }

    fn check_count(&self, given: usize, columns: usize, all_default: bool) -> Result<(), SqlError> {
        if given > columns {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "INSERT has more expressions than target columns",
            ));
        }
        if given < columns && !all_default {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "INSERT has more target columns than expressions",
            ));
        }
        Ok(())
    }

    fn insert_query(
        &mut self,
        w: &Writable,
        places: &[usize],
        query: &ast::Query,
    ) -> Result<plan::Plan, SqlError> {
        let query = self.bind_query(query)?;
        self.check_count(query.columns.len(), places.len(), self.all_columns)?;
        // Literals that were left open are read as what they are stored as.
        let wanted: Vec<Type> = query
            .columns
            .iter()
            .zip(places)
            .enumerate()
            .map(|(i, (column, place))| if query.open[i] { w.columns[*place].1 } else { column.ty })
            .collect();
        let rel = self.cast_columns(query, &wanted)?;
        let mut out: Vec<Option<Expr>> = (0..w.columns.len()).map(|_| None).collect();
        for (i, (ty, place)) in wanted.iter().zip(places).enumerate() {
            self.check_given(w, *place)?;
            out[*place] = Some(self.assign(Typed::known(Expr::slot(*ty, i)), w, *place)?);
        }
        let exprs = self.fill_defaults(w, out)?;
        plan::plan(Rel::Project { input: Box::new(rel), exprs })
    }

    /// A value for a column: casts that PostgreSQL makes on assignment are made.
    pub(super) fn assign(&mut self, typed: Typed, w: &Writable, place: usize) -> Result<Expr, SqlError> {
        let (name, ty, _) = &w.columns[place];
        // Text given for a payload is stored as its bytes.
        let payload = *ty == Type::Bytes && name == "payload" && !matches!(w.target, Target::Table(_));
        if payload && typed.ty() != Some(Type::Bytes) {
            let text = self.coerce(typed, Type::Text, CastContext::Assignment)?;
            let utf8 = Typed::known(Expr::constant(Type::Text, Value::Text("UTF8".into())));
            let bytes = self.call_builtin("convert_to", vec![Typed::known(text), utf8], false)?;
            return Ok(super::fold(bytes.expr, self.session));
        }
        let given = typed.ty();
        self.coerce(typed, *ty, CastContext::Assignment).map_err(|e| match given {
            Some(given) if e.code == SqlState::DATATYPE_MISMATCH => SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!("column \"{name}\" is of type {ty} but expression is of type {given}"),
            )
            .hint("You will need to rewrite or cast the expression."),
            _ => e,
        })
    }

    pub(super) fn fill_defaults(
        &mut self,
        w: &Writable,
        given: Vec<Option<Expr>>,
    ) -> Result<Vec<Expr>, SqlError> {
        let mut out = Vec::with_capacity(given.len());
        for (place, e) in given.into_iter().enumerate() {
            out.push(match e {
                Some(e) => e,
                None => self.default(w, place)?,
            });
        }
        Ok(out)
    }

    fn default(&mut self, w: &Writable, place: usize) -> Result<Expr, SqlError> {
        let ty = w.columns[place].1;
        let default = match &w.target {
            Target::Table(relation) => relation.table().and_then(|t| t.columns.get(place)?.default.clone()),
            _ => None,
        };
        match default {
            None => Ok(Expr::constant(ty, Value::Null)),
            Some(DefaultValue::Constant(value)) => Ok(Expr::constant(ty, value)),
            Some(DefaultValue::Expression(sql)) => {
                let e = crate::parse::parse_expression(&sql)?;
                self.aggregates = Aggregates::Forbidden("DEFAULT expressions");
                let typed = self.expr(&e, &Scope::default())?;
                self.coerce(typed, ty, CastContext::Assignment)
            }
        }
    }

    fn on_conflict(
        &mut self,
        on: Option<&OnInsert>,
        w: &Writable,
        alias: Option<String>,
    ) -> Result<OnConflict, SqlError> {
        let conflict = match on {
            None => return Ok(OnConflict::Fail),
            Some(OnInsert::OnConflict(conflict)) => conflict,
            Some(_) => return Err(SqlError::unsupported("ON DUPLICATE KEY UPDATE")),
        };
        let arbiter = match &conflict.conflict_target {
            None => None,
            Some(ast::ConflictTarget::OnConstraint(name)) => {
                let (_, name) = qualified(name)?;
                let found = match &w.target {
                    Target::Table(relation) => named_arbiter(relation, &name),
                    _ => None,
                };
                Some(found.ok_or_else(|| {
                    SqlError::new(
                        SqlState::UNDEFINED_OBJECT,
                        format!("constraint \"{name}\" for table \"{}\" does not exist", w.name),
                    )
                })?)
            }
            Some(ast::ConflictTarget::Columns(columns)) => {
                let mut named: Vec<usize> = Vec::new();
                for column in columns {
                    named.push(self.target_column(w, &folded(column))?);
                }
                named.sort_unstable();
                named.dedup();
                Some(arbiter(w, &named).ok_or_else(|| {
                    SqlError::new(
                        SqlState::INVALID_COLUMN_REFERENCE,
                        "there is no unique or exclusion constraint matching the ON CONFLICT specification",
                    )
                })?)
            }
        };
        let update = match &conflict.action {
            OnConflictAction::DoNothing => return Ok(OnConflict::Skip(arbiter)),
            OnConflictAction::DoUpdate(update) => update,
        };
        let Target::Table(relation) = &w.target else {
            return Err(SqlError::unsupported("ON CONFLICT DO UPDATE of events and timers")
                .hint("UPDATE chronos.timers changes a pending timer"));
        };
        let Some(arbiter) = arbiter else {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "ON CONFLICT DO UPDATE requires inference specification or constraint name",
            )
            .hint("For example, ON CONFLICT (column_name)."));
        };
        // The hidden rowid stands between the row that is there and the one that was to be inserted.
        let hidden = relation.table().is_some_and(|t| t.primary_key.is_empty());
        let mut scope = self.scope_of(w, alias)?;
        scope.width += usize::from(hidden);
        let excluded = scope.width;
        let columns = w.columns.iter().enumerate().map(|(i, (name, ty, _))| ScopeColumn {
            name: name.clone(),
            expr: Expr::slot(*ty, excluded + i),
            origin: None,
            hidden: false,
        });
        let visible = scope.visible.len();
        scope.add(ScopeTable { name: "excluded".into(), columns: columns.collect() })?;
        // Without its name a column is the table's.
        scope.visible.truncate(visible);
        let assignments = self.assignments(w, &update.assignments, &scope)?;
        self.aggregates = Aggregates::Forbidden("WHERE");
        let condition = update.selection.as_ref().map(|e| self.condition(e, &scope, "WHERE")).transpose()?;
        Ok(OnConflict::Update(Upsert { arbiter, excluded, assignments, condition }))
    }

    fn scope_of(&self, w: &Writable, alias: Option<String>) -> Result<Scope, SqlError> {
        let mut scope = Scope::default();
        let columns = w.columns.iter().enumerate().map(|(slot, (name, ty, origin))| ScopeColumn {
            name: name.clone(),
            expr: Expr::slot(plain(*ty), slot),
            origin: *origin,
            hidden: w.is_hidden(slot),
        });
        scope
            .add(ScopeTable { name: alias.unwrap_or_else(|| w.name.clone()), columns: columns.collect() })?;
        Ok(scope)
    }

    fn bind_returning(
        &mut self,
        items: Option<&[ast::SelectItem]>,
        w: &Writable,
        scope: &Scope,
    ) -> Result<(Option<Vec<Expr>>, Vec<ColumnDesc>), SqlError> {
        let Some(items) = items else { return Ok((None, Vec::new())) };
        if !matches!(w.target, Target::Table(_)) {
            return Err(SqlError::unsupported("RETURNING of events and timers"));
        }
        let (exprs, columns) = self.returning(items, scope)?;
        Ok((Some(exprs), columns))
    }

    /// The rows to change as a source, and the names that may be used of them.
    fn target_source(&self, w: &Writable, alias: Option<String>) -> Result<(Rel, Scope), SqlError> {
        let mut scope = self.scope_of(w, alias)?;
        let mut types: Vec<Type> = w.columns.iter().map(|c| c.1).collect();
        let kind = match &w.kind {
            SourceKind::Table(relation) => {
                if relation.table().is_some_and(|t| t.primary_key.is_empty()) {
                    types.push(Type::Int);
                    scope.width += 1;
                }
                SourceKind::Table(relation.clone())
            }
            SourceKind::Timers => SourceKind::Timers,
            _ => {
                return Err(
                    SqlError::unsupported("changing events").hint("a topic is a log: publish another event")
                );
            }
        };
        Ok((Rel::Source(Source { kind, base: 0, types }), scope))
    }

    /// The plan that finds the rows to change, with what they are joined to behind them.
    fn find_rows(
        &mut self,
        source: Rel,
        scope: &Scope,
        selection: Option<&ast::Expr>,
    ) -> Result<plan::Plan, SqlError> {
        self.aggregates = Aggregates::Forbidden("WHERE");
        let conditions = match selection {
            Some(e) => conjuncts(self.condition(e, scope, "WHERE")?),
            None => Vec::new(),
        };
        let rel =
            if conditions.is_empty() { source } else { Rel::Filter { input: Box::new(source), conditions } };
        plan::plan(rel)
    }

    pub(super) fn bind_update(
        &mut self,
        update: &ast::Update,
    ) -> Result<(Action, Vec<ColumnDesc>), SqlError> {
        if update.or.is_some() || !update.order_by.is_empty() || update.limit.is_some() {
            return Err(SqlError::unsupported("this form of UPDATE"));
        }
        let (w, alias) = self.one_table(&update.table)?;
        let (mut source, mut scope) = self.target_source(&w, alias)?;
        if let Some(ast::UpdateTableFromKind::AfterSet(from) | ast::UpdateTableFromKind::BeforeSet(from)) =
            &update.from
        {
            source = self.join_items(from, Some(source), &mut scope)?;
        }
        let assignments = self.assignments(&w, &update.assignments, &scope)?;
        let plan = self.find_rows(source, &scope, update.selection.as_ref())?;
        let checks = self.checks(&w)?;
        let (returning, columns) = self.bind_returning(update.returning.as_deref(), &w, &scope)?;
        Ok((Action::Update(Update { target: w.target, plan, assignments, checks, returning }), columns))
    }

    pub(super) fn bind_delete(
        &mut self,
        delete: &ast::Delete,
    ) -> Result<(Action, Vec<ColumnDesc>), SqlError> {
        if !delete.order_by.is_empty() || delete.limit.is_some() || !delete.tables.is_empty() {
            return Err(SqlError::unsupported("this form of DELETE"));
        }
        let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) = &delete.from;
        let [table] = from.as_slice() else {
            return Err(SqlError::unsupported("DELETE from several tables"));
        };
        let (w, alias) = self.one_table(table)?;
        let (mut source, mut scope) = self.target_source(&w, alias)?;
        if let Some(using) = &delete.using {
            source = self.join_items(using, Some(source), &mut scope)?;
        }
        let plan = self.find_rows(source, &scope, delete.selection.as_ref())?;
        let (returning, columns) = self.bind_returning(delete.returning.as_deref(), &w, &scope)?;
        Ok((Action::Delete(Delete { target: w.target, plan, returning }), columns))
    }

    fn one_table(&mut self, table: &ast::TableWithJoins) -> Result<(Writable, Option<String>), SqlError> {
        match &table.relation {
            ast::TableFactor::Table { name, alias, args: None, .. } if table.joins.is_empty() => {
                Ok((self.writable(name)?, alias.as_ref().map(|a| folded(&a.name))))
            }
            _ => Err(SqlError::unsupported("this target")),
        }
    }
}

/// A literal that is read straight as what a table's column holds.
fn stored(literal: &Literal<'_>, w: &Writable, place: usize) -> Option<Expr> {
    let ty = w.columns[place].1;
    let Target::Table(_) = w.target else { return None };
    literal::stored(literal, ty).map(|value| Expr::constant(plain(ty), value))
}

/// The unique constraint over exactly these columns.
fn arbiter(w: &Writable, columns: &[usize]) -> Option<Arbiter> {
    let same = |key: Vec<usize>| {
        let mut key = key;
        key.sort_unstable();
        !key.is_empty() && key == columns
    };
    match &w.target {
        Target::Table(relation) => {
            let table = relation.table()?;
            let places = |ids: &[ColumnId]| ids.iter().filter_map(|id| table.place(*id)).collect();
            if same(places(&table.primary_key)) {
                return Some(Arbiter::PrimaryKey);
            }
            let unique = |i: &&SecondaryIndex| table.is_unique(i.id) && same(places(&i.columns));
            table.indexes.iter().find(unique).map(|i| Arbiter::Index(i.id))
        }
        Target::Topic(_) => same(vec![2]).then_some(Arbiter::PrimaryKey),
        Target::Timers => same(vec![0, 1]).then_some(Arbiter::PrimaryKey),
    }
}

fn named_arbiter(relation: &Relation, name: &str) -> Option<Arbiter> {
    let table = relation.table()?;
    if !table.primary_key.is_empty() && crate::exec::checked::primary_name(relation, table) == name {
        return Some(Arbiter::PrimaryKey);
    }
    let unique = |i: &&SecondaryIndex| table.is_unique(i.id) && i.name == name;
    table.indexes.iter().find(unique).map(|i| Arbiter::Index(i.id))
}

/// DEFAULT in VALUES and SET reads as a name.
pub(super) fn is_default(e: &ast::Expr) -> bool {
    matches!(e, ast::Expr::Identifier(i) if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("default"))
}
