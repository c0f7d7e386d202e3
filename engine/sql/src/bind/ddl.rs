//! CREATE and DROP.

use super::aggregate::Aggregates;
use super::names::{data_type, folded, qualified, user_name};
use super::scope::ScopeTable;
use super::{Binder, Scope, ScopeColumn};
use crate::action::{Action, Alteration, Dropped, SchemaChange, UniqueKey};
use crate::error::{SqlError, SqlState};
use crate::expr::{Expr, ExprKind};
use crate::types::CastContext;
use chronos_proto::id::{ColumnId, GroupId, RelationId};
use chronos_proto::schema::{
    Column, DefaultValue, Extra, Relation, RelationKind, Sequence, Table, View, ViewColumn,
};
use chronos_proto::{Type, limits};
use sqlparser::ast::{self, ColumnOption, ObjectType, TableConstraint};

impl Binder<'_> {
    pub(super) fn bind_create_table(&mut self, create: &ast::CreateTable) -> Result<Action, SqlError> {
        refuse_foreign(create)?;
        let name = user_name(&create.name)?;
        let mut table =
            Table { next_column: create.columns.len() as u32 + 1, next_index: 1, ..Table::default() };
        let mut key: Option<Vec<String>> = None;
        let mut set_key = |columns: Vec<String>| {
            if key.replace(columns).is_some() {
                return Err(SqlError::new(
                    SqlState::INVALID_TABLE_DEFINITION,
                    format!("multiple primary keys for table \"{name}\" are not allowed"),
                ));
            }
            Ok(())
        };
        if create.columns.len() > limits::COLUMNS_MAX {
            return Err(SqlError::new(SqlState::TOO_MANY_COLUMNS, "tables can have at most 1600 columns"));
        }
        let mut unique: Vec<UniqueKey> = Vec::new();
        let mut sequences = Vec::new();
        let mut checks: Vec<(Option<String>, &ast::Expr)> = Vec::new();
        let mut primary_name: Option<String> = None;
        for (i, definition) in create.columns.iter().enumerate() {
            let column_name = folded(&definition.name);
            if table.columns.iter().any(|c| c.name == column_name) {
                return Err(self.at(
                    SqlError::new(
                        SqlState::DUPLICATE_COLUMN,
                        format!("column \"{column_name}\" specified more than once"),
                    ),
                    definition.name.span.start,
                ));
            }
            let made = self.define_column(definition, ColumnId(i as u32 + 1))?;
            if let Some(name) = made.primary {
                set_key(vec![column_name.clone()])?;
                primary_name = name;
            }
            unique.extend(made.unique);
            checks.extend(made.checks);
            if let Some((sequence, always)) = made.sequence {
                sequences.push((i, sequence, always));
            }
            table.columns.push(made.column);
        }
        for constraint in &create.constraints {
            match constraint {
                TableConstraint::PrimaryKey(primary) => {
                    set_key(primary.columns.iter().map(index_column).collect::<Result<_, _>>()?)?;
                    primary_name = primary.name.as_ref().map(folded);
                }
                TableConstraint::Unique(constraint) => unique.push(unique_key(constraint)?),
                TableConstraint::Check(check) => checks.push((check.name.as_ref().map(folded), &check.expr)),
                TableConstraint::ForeignKey(_) => return Err(SqlError::unsupported("FOREIGN KEY")),
                _ => return Err(SqlError::unsupported("this constraint")),
            }
        }
        for column in key.unwrap_or_default() {
            let found = table.columns.iter_mut().find(|c| c.name == column).ok_or_else(|| {
                SqlError::new(
                    SqlState::UNDEFINED_COLUMN,
                    format!("column \"{column}\" named in key does not exist"),
                )
            })?;
            found.not_null = true;
            crate::types::check_key(&found.name, found.ty)?;
            if table.primary_key.contains(&found.id) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{column}\" appears twice in primary key constraint"),
                ));
            }
            table.primary_key.push(found.id);
        }
        for column in unique.iter().flat_map(|u| &u.columns) {
            if !table.columns.iter().any(|c| c.name == *column) {
                return Err(SqlError::new(
                    SqlState::UNDEFINED_COLUMN,
                    format!("column \"{column}\" named in key does not exist"),
                ));
            }
        }
        table.extras.extend(primary_name.filter(|n| *n != format!("{name}_pkey")).map(Extra::PrimaryName));
        for (given, e) in checks {
            let (name, _) = self.check(&name, &table, given, e)?;
            table.extras.push(Extra::Check { name, condition: e.to_string() });
        }
        super::ttl::options(&name, &mut table, &create.table_options)?;
        let relation = new_relation(name, RelationKind::Table(table));
        Ok(Action::Schema(SchemaChange::Create {
            relation,
            if_not_exists: create.if_not_exists,
            replace: false,
            unique,
            sequences,
            tag: "CREATE TABLE",
        }))
    }

    /// A column as CREATE TABLE and ALTER TABLE define it.
    fn define_column<'q>(
        &mut self,
        definition: &'q ast::ColumnDef,
        id: ColumnId,
    ) -> Result<MadeColumn<'q>, SqlError> {
        let name = folded(&definition.name);
        let mut sequence = None;
        let ty = match serial(&definition.data_type) {
            Some(max) => {
                sequence = Some((plain_sequence(max), None));
                Type::Int
            }
            None => data_type(&definition.data_type)?,
        };
        let column = Column { id, name, ty, not_null: sequence.is_some(), default: None };
        let mut made = MadeColumn { column, primary: None, unique: Vec::new(), checks: Vec::new(), sequence };
        for option in &definition.options {
            let given = option.name.as_ref().map(folded);
            match &option.option {
                ColumnOption::Null => {}
                ColumnOption::NotNull => made.column.not_null = true,
                ColumnOption::Default(e) => made.column.default = Some(self.default_value(e, ty)?),
                ColumnOption::PrimaryKey(_) => made.primary = Some(given),
                ColumnOption::Unique(_) => made.unique.push(UniqueKey {
                    name: given,
                    columns: vec![made.column.name.clone()],
                    primary: false,
                }),
                ColumnOption::Check(check) => {
                    made.checks.push((given.or(check.name.as_ref().map(folded)), &check.expr));
                }
                ColumnOption::ForeignKey(_) => return Err(SqlError::unsupported("REFERENCES")),
                ColumnOption::Generated { generation_expr: Some(_), .. } => {
                    return Err(SqlError::unsupported("GENERATED ALWAYS AS (…) STORED"));
                }
                ColumnOption::Generated { generated_as, sequence_options, .. } => {
                    let always = *generated_as == ast::GeneratedAs::Always;
                    let options = sequence_options.as_deref().unwrap_or_default();
                    if ty != Type::Int {
                        return Err(SqlError::new(
                            SqlState(*b"22023"),
                            "identity column type must be smallint, integer, or bigint",
                        ));
                    }
                    made.sequence = Some((self.sequence_options(options, i64::MAX)?, Some(always)));
                    made.column.not_null = true;
                }
                ColumnOption::Identity(_) => return Err(SqlError::unsupported("IDENTITY")),
                ColumnOption::Collation(_) => return Err(SqlError::unsupported("COLLATE")),
                _ => return Err(SqlError::unsupported("this column option")),
            }
        }
        Ok(made)
    }

    /// A CHECK constraint's name, given or made, and its condition.
    fn check(
        &mut self,
        table_name: &str,
        table: &Table,
        given: Option<String>,
        e: &ast::Expr,
    ) -> Result<(String, Expr), SqlError> {
        let mut scope = Scope::default();
        let columns = table.columns.iter().enumerate().map(|(slot, c)| ScopeColumn {
            name: c.name.clone(),
            expr: Expr::slot(c.ty, slot),
            origin: None,
            hidden: false,
        });
        scope.add(ScopeTable { name: table_name.to_owned(), columns: columns.collect() })?;
        self.aggregates = Aggregates::Forbidden("check constraints");
        let condition = self.condition(e, &scope, "CHECK")?;
        if condition.has_subquery() {
            return Err(SqlError::unsupported("a subquery in a check constraint"));
        }
        let mut used: Vec<usize> = Vec::new();
        condition.slots(&mut |slot| {
            if !used.contains(&slot) {
                used.push(slot);
            }
        });
        let taken = |name: &str| {
            table.extras.iter().any(|e| matches!(e, Extra::Check { name: other, .. } if other == name))
        };
        let name = match given {
            Some(name) if taken(&name) => {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_OBJECT,
                    format!("constraint \"{name}\" for relation \"{table_name}\" already exists"),
                ));
            }
            Some(name) => name,
            None => {
                let base = match used.as_slice() {
                    [one] => format!("{table_name}_{}_check", table.columns[*one].name),
                    _ => format!("{table_name}_check"),
                };
                let mut name = base.clone();
                let mut n = 0;
                while taken(&name) {
                    n += 1;
                    name = format!("{base}{n}");
                }
                name
            }
        };
        Ok((name, condition))
    }

    /// CREATE TABLE … AS, and the same by SELECT … INTO.
    pub(super) fn bind_create_as(
        &mut self,
        create: &ast::CreateTable,
        query: &ast::Query,
    ) -> Result<Action, SqlError> {
        let name = user_name(&create.name)?;
        let query = self.bind_query(query)?;
        if create.columns.len() > query.columns.len() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "too many column names were specified"));
        }
        let mut table =
            Table { next_column: query.columns.len() as u32 + 1, next_index: 1, ..Table::default() };
        for (i, column) in query.columns.iter().enumerate() {
            let name = create.columns.get(i).map_or_else(|| column.name.clone(), |c| folded(&c.name));
            if table.columns.iter().any(|c| c.name == name) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{name}\" specified more than once"),
                ));
            }
            let id = ColumnId(i as u32 + 1);
            table.columns.push(Column { id, name, ty: column.ty, not_null: false, default: None });
        }
        super::ttl::options(&name, &mut table, &create.table_options)?;
        if table.columns.len() > query.columns.len() {
            return Err(SqlError::unsupported("CREATE TABLE … AS with a ttl and without ttl_column")
                .hint("create the table first, then INSERT … SELECT"));
        }
        let change = SchemaChange::Create {
            relation: new_relation(name, RelationKind::Table(table)),
            if_not_exists: create.if_not_exists,
            replace: false,
            unique: Vec::new(),
            sequences: Vec::new(),
            tag: "CREATE TABLE AS",
        };
        Ok(Action::CreateAs { change, plan: crate::plan::plan(query.rel)? })
    }

    pub(super) fn bind_create_view(&mut self, create: &ast::CreateView) -> Result<Action, SqlError> {
        if create.materialized || create.temporary || create.to.is_some() || create.if_not_exists {
            return Err(SqlError::unsupported("MATERIALIZED, TEMPORARY and IF NOT EXISTS of views"));
        }
        let name = user_name(&create.name)?;
        let before = std::mem::take(&mut self.relations);
        let query = self.bind_query(&create.query)?;
        let reads = std::mem::replace(&mut self.relations, before);
        self.relations.extend(&reads);
        if create.columns.len() > query.columns.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "CREATE VIEW specifies more column names than columns",
            ));
        }
        let mut columns: Vec<ViewColumn> = Vec::with_capacity(query.columns.len());
        for (i, column) in query.columns.iter().enumerate() {
            let name = create.columns.get(i).map_or_else(|| column.name.clone(), |c| folded(&c.name));
            if columns.iter().any(|c| c.name == name) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{name}\" specified more than once"),
                ));
            }
            columns.push(ViewColumn { name, output: column.name.clone(), ty: column.ty });
        }
        let view = View { query: create.query.to_string(), columns, reads: reads.into_iter().collect() };
        Ok(Action::Schema(SchemaChange::Create {
            relation: new_relation(name, RelationKind::View(view)),
            if_not_exists: false,
            replace: create.or_replace,
            unique: Vec::new(),
            sequences: Vec::new(),
            tag: "CREATE VIEW",
        }))
    }

    pub(super) fn bind_create_sequence(
        &mut self,
        name: &ast::ObjectName,
        if_not_exists: bool,
        options: &[ast::SequenceOptions],
    ) -> Result<Action, SqlError> {
        let sequence = self.sequence_options(options, i64::MAX)?;
        Ok(Action::Schema(SchemaChange::Create {
            relation: new_relation(user_name(name)?, RelationKind::Sequence(sequence)),
            if_not_exists,
            replace: false,
            unique: Vec::new(),
            sequences: Vec::new(),
            tag: "CREATE SEQUENCE",
        }))
    }

    fn sequence_options(
        &mut self,
        options: &[ast::SequenceOptions],
        most: i64,
    ) -> Result<Sequence, SqlError> {
        use ast::SequenceOptions as O;
        let mut number = |e: &ast::Expr| -> Result<i64, SqlError> {
            let typed = self.expr(e, &Scope::default())?;
            match self.coerce(typed, Type::Int, CastContext::Assignment)?.kind {
                ExprKind::Const(chronos_proto::Value::Int(n)) => Ok(n),
                _ => Err(SqlError::new(SqlState::SYNTAX_ERROR, "a sequence's options are constants")),
            }
        };
        let (mut increment, mut start, mut min, mut max, mut cycle) = (1, None, None, None, false);
        for option in options {
            match option {
                O::IncrementBy(e, _) => increment = number(e)?,
                O::MinValue(e) => min = e.as_ref().map(&mut number).transpose()?,
                O::MaxValue(e) => max = e.as_ref().map(&mut number).transpose()?,
                O::StartWith(e, _) => start = Some(number(e)?),
                // Numbers are not held in advance, whatever is asked.
                O::Cache(_) => {}
                O::Cycle(no) => cycle = !no,
            }
        }
        let invalid = |message: String| Err(SqlError::new(SqlState::INVALID_PARAMETER, message));
        if increment == 0 {
            return invalid("INCREMENT must not be zero".into());
        }
        let (low, high) = if increment > 0 { (1, most) } else { (i64::MIN, -1) };
        let (min, max) = (min.unwrap_or(low), max.unwrap_or(high));
        if min >= max {
            return invalid(format!("MINVALUE ({min}) must be less than MAXVALUE ({max})"));
        }
        let start = start.unwrap_or(if increment > 0 { min } else { max });
        if start < min {
            return invalid(format!("START value ({start}) cannot be less than MINVALUE ({min})"));
        }
        if start > max {
            return invalid(format!("START value ({start}) cannot be greater than MAXVALUE ({max})"));
        }
        Ok(Sequence { start, increment, min, max, cycle, owner: None })
    }

    pub(super) fn bind_truncate(&mut self, truncate: &ast::Truncate) -> Result<Action, SqlError> {
        let restart = matches!(truncate.identity, Some(ast::TruncateIdentityOption::Restart));
        let mut names = Vec::with_capacity(truncate.table_names.len());
        for target in &truncate.table_names {
            let relation = self.relation(&target.name)?;
            if relation.table().is_none() {
                return Err(SqlError::new(
                    SqlState::WRONG_OBJECT_TYPE,
                    format!("\"{}\" is not a table", relation.name),
                ));
            }
            names.push(relation.name.clone());
        }
        Ok(Action::Schema(SchemaChange::Truncate { names, restart }))
    }

    pub(super) fn bind_alter_table(&mut self, alter: &ast::AlterTable) -> Result<Action, SqlError> {
        use ast::{AlterColumnOperation as C, AlterTableOperation as A};
        let name = user_name(&alter.name)?;
        if alter.if_exists && self.catalog.by_name(&name).is_none() {
            return Ok(Action::Schema(SchemaChange::Alter { name, changes: Vec::new() }));
        }
        let relation = self.relation(&alter.name)?;
        let Some(table) = relation.table() else {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("ALTER TABLE of \"{name}\", which is not a table"),
            ));
        };
        let mut changes = Vec::with_capacity(alter.operations.len());
        for operation in &alter.operations {
            changes.push(match operation {
                A::AddColumn { if_not_exists, column_def, column_position: None, .. } => {
                    let made = self.define_column(column_def, ColumnId(table.next_column))?;
                    if made.primary.is_some() || made.sequence.is_some() || !made.checks.is_empty() {
                        return Err(SqlError::unsupported(
                            "ADD COLUMN with PRIMARY KEY, CHECK, SERIAL or GENERATED",
                        )
                        .hint("add the column first, and the constraint after"));
                    }
                    let default = column_def.options.iter().find_map(|o| match &o.option {
                        ColumnOption::Default(e) => Some(e),
                        _ => None,
                    });
                    let value = match default {
                        Some(e) => {
                            let typed = self.expr(e, &Scope::default())?;
                            Some(self.coerce(typed, made.column.ty, CastContext::Assignment)?)
                        }
                        None => None,
                    };
                    Alteration::AddColumn {
                        unique: !made.unique.is_empty(),
                        column: made.column,
                        value,
                        if_not_exists: *if_not_exists,
                    }
                }
                A::DropColumn { column_names, if_exists, drop_behavior, .. } => {
                    let [name] = column_names.as_slice() else {
                        return Err(SqlError::unsupported("dropping several columns at once"));
                    };
                    let cascade = matches!(drop_behavior, Some(ast::DropBehavior::Cascade));
                    Alteration::DropColumn { name: folded(name), if_exists: *if_exists, cascade }
                }
                A::RenameColumn { old_column_name, new_column_name } => Alteration::RenameColumn {
                    from: folded(old_column_name),
                    to: folded(new_column_name),
                },
                A::RenameTable {
                    table_name:
                        ast::RenameTableNameKind::To(to) | ast::RenameTableNameKind::As(to),
                } => Alteration::Rename(user_name(to)?),
                A::RenameConstraint { old_name, new_name } => {
                    Alteration::RenameConstraint { from: folded(old_name), to: folded(new_name) }
                }
                A::AlterColumn { column_name, op } => {
                    let column = folded(column_name);
                    let place = table.columns.iter().position(|c| c.name == column);
                    let undefined = || {
                        SqlError::new(
                            SqlState::UNDEFINED_COLUMN,
                            format!("column \"{column}\" of relation \"{name}\" does not exist"),
                        )
                    };
                    let place = place.ok_or_else(undefined)?;
                    match op {
                        C::SetNotNull => Alteration::SetNotNull { column, not_null: true },
                        C::DropNotNull => Alteration::SetNotNull { column, not_null: false },
                        C::SetDefault { value } => {
                            let default = Some(self.default_value(value, table.columns[place].ty)?);
                            Alteration::SetDefault { column, default }
                        }
                        C::DropDefault => Alteration::SetDefault { column, default: None },
                        C::SetDataType { data_type: to, using, .. } => {
                            let ty = data_type(to)?;
                            let own = Expr::slot(table.columns[place].ty, place);
                            let value = match using {
                                None => {
                                    let from = own.ty;
                                    self.coerce(super::Typed::known(own), ty, CastContext::Assignment)
                                        .map_err(|_| {
                                            SqlError::new(
                                                SqlState::DATATYPE_MISMATCH,
                                                format!(
                                                    "column \"{column}\" cannot be cast automatically from {from} to type {ty}"
                                                ),
                                            )
                                            .hint(format!(
                                                "You might need to specify \"USING {column}::{ty}\"."
                                            ))
                                        })?
                                }
                                Some(e) => {
                                    let mut scope = Scope::default();
                                    let columns =
                                        table.columns.iter().enumerate().map(|(slot, c)| ScopeColumn {
                                            name: c.name.clone(),
                                            expr: Expr::slot(c.ty, slot),
                                            origin: None,
                                            hidden: false,
                                        });
                                    scope.add(ScopeTable {
                                        name: name.clone(),
                                        columns: columns.collect(),
                                    })?;
                                    let typed = self.expr(e, &scope)?;
                                    self.coerce(typed, ty, CastContext::Assignment)?
                                }
                            };
                            Alteration::SetType { column, ty, value }
                        }
                        C::AddGenerated { .. } => {
                            return Err(SqlError::unsupported("ADD GENERATED"));
                        }
                    }
                }
                A::AddConstraint { constraint, .. } => match constraint {
                    TableConstraint::PrimaryKey(primary) => Alteration::AddUnique(UniqueKey {
                        name: primary.name.as_ref().map(folded),
                        columns: primary.columns.iter().map(index_column).collect::<Result<_, _>>()?,
                        primary: true,
                    }),
                    TableConstraint::Unique(constraint) => Alteration::AddUnique(unique_key(constraint)?),
                    TableConstraint::Check(check) => {
                        let given = check.name.as_ref().map(folded);
                        let (name, condition) = self.check(&name, table, given, &check.expr)?;
                        Alteration::AddCheck { name, condition: check.expr.to_string(), check: condition }
                    }
                    TableConstraint::ForeignKey(_) => return Err(SqlError::unsupported("FOREIGN KEY")),
                    _ => return Err(SqlError::unsupported("this constraint")),
                },
                A::DropConstraint { if_exists, name, .. } => {
                    Alteration::DropConstraint { name: folded(name), if_exists: *if_exists }
                }
                A::SetOptionsParens { options } => Alteration::SetTtl(super::ttl::changed(&name, table, options)?),
                A::OwnerTo { .. } => Alteration::Nothing,
                _ => return Err(SqlError::unsupported("this form of ALTER TABLE")),
            });
        }
        Ok(Action::Schema(SchemaChange::Alter { name, changes }))
    }

    /// A constant is kept as one; anything else as its text, bound anew by each INSERT.
    fn default_value(&mut self, e: &ast::Expr, ty: Type) -> Result<DefaultValue, SqlError> {
        self.aggregates = Aggregates::Forbidden("DEFAULT expressions");
        let typed = self.expr(e, &Scope::default()).map_err(|error| match error.code {
            SqlState::UNDEFINED_COLUMN => SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "cannot use column reference in DEFAULT expression",
            ),
            _ => error,
        })?;
        let expr = self.coerce(typed, ty, CastContext::Assignment)?;
        match expr.kind {
            ExprKind::Const(value) => Ok(DefaultValue::Constant(value)),
            _ => Ok(DefaultValue::Expression(e.to_string())),
        }
    }

    pub(super) fn bind_create_index(&mut self, create: &ast::CreateIndex) -> Result<Action, SqlError> {
        if create.predicate.is_some() || !create.include.is_empty() {
            return Err(SqlError::unsupported("a partial or covering index"));
        }
        if create.using.as_ref().is_some_and(|u| !u.to_string().eq_ignore_ascii_case("btree")) {
            return Err(SqlError::unsupported("an index that is not a btree"));
        }
        let table = self.relation(&create.table_name)?;
        let Some(definition) = table.table() else {
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a table", table.name),
            ));
        };
        let columns: Vec<String> = create.columns.iter().map(index_column).collect::<Result<_, _>>()?;
        for column in &columns {
            if !definition.columns.iter().any(|c| c.name == *column) {
                return Err(SqlError::new(
                    SqlState::UNDEFINED_COLUMN,
                    format!("column \"{column}\" does not exist"),
                ));
            }
        }
        let name = create.name.as_ref().map(|n| qualified(n).map(|(_, n)| n)).transpose()?;
        Ok(Action::Schema(SchemaChange::CreateIndex {
            table: table.name.clone(),
            name,
            columns,
            unique: create.unique,
            if_not_exists: create.if_not_exists,
        }))
    }

    pub(super) fn bind_drop(
        &mut self,
        what: ObjectType,
        if_exists: bool,
        names: &[ast::ObjectName],
        cascade: bool,
    ) -> Result<Action, SqlError> {
        let what = match what {
            ObjectType::Table => Dropped::Table,
            ObjectType::Index => Dropped::Index,
            ObjectType::View => Dropped::View,
            ObjectType::Sequence => Dropped::Sequence,
            other => return Err(SqlError::unsupported(format!("DROP {other}"))),
        };
        let names = names.iter().map(user_name).collect::<Result<_, _>>()?;
        Ok(Action::Schema(SchemaChange::Drop { names, if_exists, what, cascade }))
    }
}

/// A column, and what its options declare beside it.
struct MadeColumn<'q> {
    column: Column,
    /// PRIMARY KEY, and the name it is given.
    primary: Option<Option<String>>,
    unique: Vec<UniqueKey>,
    checks: Vec<(Option<String>, &'q ast::Expr)>,
    sequence: Option<(Sequence, Option<bool>)>,
}

/// The greatest number of a SERIAL type.
fn serial(ty: &ast::DataType) -> Option<i64> {
    let ast::DataType::Custom(name, _) = ty else { return None };
    Some(match qualified(name).ok()?.1.as_str() {
        "serial" | "serial4" => i64::from(i32::MAX),
        "bigserial" | "serial8" => i64::MAX,
        "smallserial" | "serial2" => i64::from(i16::MAX),
        _ => return None,
    })
}

fn plain_sequence(max: i64) -> Sequence {
    Sequence { start: 1, increment: 1, min: 1, max, cycle: false, owner: None }
}

fn unique_key(constraint: &ast::UniqueConstraint) -> Result<UniqueKey, SqlError> {
    if constraint.nulls_distinct == ast::NullsDistinctOption::NotDistinct {
        return Err(SqlError::unsupported("NULLS NOT DISTINCT"));
    }
    Ok(UniqueKey {
        name: constraint.name.as_ref().map(folded),
        columns: constraint.columns.iter().map(index_column).collect::<Result<_, _>>()?,
        primary: false,
    })
}

/// Its number, group and version are given when the statement runs.
pub(super) fn new_relation(name: String, kind: RelationKind) -> Relation {
    Relation { id: RelationId(0), name, group: GroupId(0), version: 1, kind }
}

fn index_column(column: &ast::IndexColumn) -> Result<String, SqlError> {
    if column.operator_class.is_some() {
        return Err(SqlError::unsupported("an operator class"));
    }
    match &column.column.expr {
        ast::Expr::Identifier(ident) => Ok(folded(ident)),
        _ => Err(SqlError::unsupported("an index on an expression")),
    }
}

fn refuse_foreign(create: &ast::CreateTable) -> Result<(), SqlError> {
    if create.temporary {
        return Err(SqlError::unsupported("TEMPORARY TABLE"));
    }
    if create.like.is_some() || create.inherits.is_some() || create.partition_by.is_some() {
        return Err(SqlError::unsupported("LIKE, INHERITS and PARTITION BY"));
    }
    Ok(())
}
