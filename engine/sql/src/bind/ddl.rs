//! CREATE and DROP.

use super::aggregate::Aggregates;
use super::names::{data_type, folded, qualified, user_name};
use super::{Binder, Scope};
use crate::action::{Action, Dropped, SchemaChange};
use crate::error::{SqlError, SqlState};
use crate::expr::ExprKind;
use crate::parse::{CreateTopic, DropTopic};
use crate::types::CastContext;
use chronos_proto::id::{ColumnId, GroupId, RelationId};
use chronos_proto::schema::{Column, DefaultValue, Relation, RelationKind, Table, Topic};
use chronos_proto::{Type, limits};
use sqlparser::ast::{self, ColumnOption, ObjectType, TableConstraint};

/// How long a topic remembers message ids unless told otherwise.
const DEDUP_DEFAULT_MICROS: u64 = 24 * 3600 * 1_000_000;

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
            let ty = data_type(&definition.data_type)?;
            if ty == Type::Interval {
                return Err(
                    SqlError::unsupported("a column of type interval").hint("use INT for microseconds")
                );
            }
            let mut column =
                Column { id: ColumnId(i as u32 + 1), name: column_name, ty, not_null: false, default: None };
            for option in &definition.options {
                match &option.option {
                    ColumnOption::Null => {}
                    ColumnOption::NotNull => column.not_null = true,
                    ColumnOption::Default(e) => column.default = Some(self.default_value(e, ty)?),
                    ColumnOption::PrimaryKey(_) => set_key(vec![column.name.clone()])?,
                    ColumnOption::Unique(_) => return Err(SqlError::unsupported("UNIQUE")),
                    ColumnOption::Check(_) => return Err(SqlError::unsupported("CHECK")),
                    ColumnOption::ForeignKey(_) => return Err(SqlError::unsupported("REFERENCES")),
                    ColumnOption::Generated { .. } | ColumnOption::Identity(_) => {
                        return Err(SqlError::unsupported("GENERATED"));
                    }
                    ColumnOption::Collation(_) => return Err(SqlError::unsupported("COLLATE")),
                    _ => return Err(SqlError::unsupported("this column option")),
                }
            }
            table.columns.push(column);
        }
        for constraint in &create.constraints {
            match constraint {
                TableConstraint::PrimaryKey(primary) => {
                    set_key(primary.columns.iter().map(index_column).collect::<Result<_, _>>()?)?;
                }
                TableConstraint::Unique(_) => return Err(SqlError::unsupported("UNIQUE")),
                TableConstraint::Check(_) => return Err(SqlError::unsupported("CHECK")),
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
            if table.primary_key.contains(&found.id) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{column}\" appears twice in primary key constraint"),
                ));
            }
            table.primary_key.push(found.id);
        }
        let relation = new_relation(name, RelationKind::Table(table));
        Ok(Action::Schema(SchemaChange::Create {
            relation,
            if_not_exists: create.if_not_exists,
            tag: "CREATE TABLE",
        }))
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
        if create.unique {
            return Err(SqlError::unsupported("CREATE UNIQUE INDEX"));
        }
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
            if_not_exists: create.if_not_exists,
        }))
    }

    pub(super) fn bind_drop(
        &mut self,
        what: ObjectType,
        if_exists: bool,
        names: &[ast::ObjectName],
        _cascade: bool,
    ) -> Result<Action, SqlError> {
        let what = match what {
            ObjectType::Table => Dropped::Table,
            ObjectType::Index => Dropped::Index,
            other => return Err(SqlError::unsupported(format!("DROP {other}"))),
        };
        let names = names.iter().map(user_name).collect::<Result<_, _>>()?;
        Ok(Action::Schema(SchemaChange::Drop { names, if_exists, what }))
    }

    pub(super) fn bind_create_topic(&mut self, create: &CreateTopic) -> Result<Action, SqlError> {
        let name = user_name(&create.name)?;
        let mut topic = Topic { partitions: 1, dedup_micros: DEDUP_DEFAULT_MICROS, payload: Type::Bytes };
        for (option, value) in &create.options {
            let bad = || {
                SqlError::new(
                    SqlState::INVALID_PARAMETER,
                    format!("invalid value for topic option \"{option}\": \"{value}\""),
                )
            };
            match option.as_str() {
                "partitions" => match value.parse::<u32>().map_err(|_| bad())? {
                    1 => {}
                    0 => return Err(bad()),
                    _ => return Err(SqlError::unsupported("a topic of several partitions")),
                },
                "dedup" => {
                    let interval = crate::time::parse_interval(value)?;
                    let micros = u64::try_from(interval.estimate()).ok().filter(|m| *m > 0);
                    topic.dedup_micros = micros.ok_or_else(bad)?;
                }
                "payload" => {
                    topic.payload = match value.as_str() {
                        "text" => Type::Text,
                        "json" | "jsonb" => Type::Json,
                        "bytes" | "bytea" => Type::Bytes,
                        _ => return Err(bad()),
                    }
                }
                _ => {
                    return Err(SqlError::unsupported(format!("topic option \"{option}\""))
                        .hint("partitions, dedup and payload are"));
                }
            }
        }
        let relation = new_relation(name, RelationKind::Topic(topic));
        Ok(Action::Schema(SchemaChange::Create {
            relation,
            if_not_exists: create.if_not_exists,
            tag: "CREATE TOPIC",
        }))
    }

    pub(super) fn bind_drop_topic(&mut self, drop: &DropTopic) -> Result<Action, SqlError> {
        let names = drop.names.iter().map(user_name).collect::<Result<_, _>>()?;
        Ok(Action::Schema(SchemaChange::Drop { names, if_exists: drop.if_exists, what: Dropped::Topic }))
    }
}

/// Its number, group and version are given when the statement runs.
fn new_relation(name: String, kind: RelationKind) -> Relation {
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
    if create.query.is_some() {
        return Err(SqlError::unsupported("CREATE TABLE AS"));
    }
    if create.like.is_some() || create.inherits.is_some() || create.partition_by.is_some() {
        return Err(SqlError::unsupported("LIKE, INHERITS and PARTITION BY"));
    }
    if !matches!(create.table_options, ast::CreateTableOptions::None) {
        return Err(SqlError::unsupported("table options (WITH …)"));
    }
    Ok(())
}
