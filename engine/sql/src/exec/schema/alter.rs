//! ALTER TABLE. What a change asks of every row is done, or checked, in the same transaction.

use super::{
    add_index, column_ids, drop_readers, find_table, free_name, has_rows, primary_name, put_changed, readers,
    remove, rows_of, taken,
};
use crate::action::{Alteration, UniqueKey};
use crate::error::{SqlError, SqlState};
use crate::exec::eval::{EvalCx, eval};
use crate::exec::vector::{Batch, Data, ValueRef, Vector};
use crate::exec::write::Writes;
use crate::expr::Expr;
use chronos_proto::id::{ColumnId, RelationId};
use chronos_proto::schema::{Extra, Relation, RelationKind, Table};
use chronos_proto::{Type, Value};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

pub(super) fn run(
    writes: &mut Writes,
    name: &str,
    change: &Alteration,
    cx: &EvalCx<'_>,
    notices: &mut Vec<String>,
) -> Result<(), SqlError> {
    let before = find_table(writes, name)?;
    let mut relation = (*before).clone();
    let id = relation.id;
    let RelationKind::Table(table) = &mut relation.kind else { return Ok(()) };
    match change {
        Alteration::Nothing => return Ok(()),
        Alteration::SetTtl(lifetime) => {
            for extra in &mut table.extras {
                if let Extra::Ttl { micros, .. } = extra {
                    *micros = *lifetime;
                }
            }
        }
        Alteration::AddColumn { column, value, if_not_exists, unique } => {
            if table.columns.iter().any(|c| c.name == column.name) {
                let message = format!("column \"{}\" of relation \"{name}\" already exists", column.name);
                if !if_not_exists {
                    return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, message));
                }
                notices.push(format!("{message}, skipping"));
                return Ok(());
            }
            let mut column = column.clone();
            column.id = ColumnId(table.next_column);
            table.next_column += 1;
            let place = table.columns.len();
            let (new_name, not_null) = (column.name.clone(), column.not_null);
            table.columns.push(column);
            if value.is_none() && not_null && has_rows(writes, id)? {
                return Err(contains_nulls(&new_name, name));
            }
            let changed = table.clone();
            put_changed(writes, relation)?;
            if let Some(value) = value {
                let relation = find_table(writes, name)?;
                for old in rows_of(writes, id, &changed)? {
                    let mut new = old.clone();
                    new[place] = eval(value, &Batch::unit(), cx)?.get(0).to_value();
                    if not_null && new[place].is_null() {
                        return Err(contains_nulls(&new_name, name));
                    }
                    if !new[place].is_null() {
                        writes.update(&relation, &changed, &old, &new)?;
                    }
                }
            }
            if *unique {
                let key = UniqueKey { name: None, columns: vec![new_name], primary: false };
                return add_unique(writes, name, &key);
            }
            return Ok(());
        }
        Alteration::DropColumn { name: column, if_exists, cascade } => {
            let Some(place) = table.columns.iter().position(|c| c.name == *column) else {
                let error = undefined_column(column, name);
                if !if_exists {
                    return Err(error);
                }
                notices.push(format!("{}, skipping", error.message));
                return Ok(());
            };
            let gone = table.columns[place].id;
            if table.primary_key.contains(&gone) {
                return Err(SqlError::unsupported("dropping a column of the primary key"));
            }
            if table.ttl().is_some_and(|(time, ..)| time == gone) {
                return Err(time_of_ttl(column, name));
            }
            // A view says which tables it reads, not which columns.
            if !readers(&writes.view.catalog, id).is_empty() {
                drop_readers(writes, &before, *cascade, notices)?;
            }
            table.columns.remove(place);
            let with = |columns: &[ColumnId]| columns.contains(&gone);
            let indexes: Vec<_> = table.indexes.iter().filter(|i| with(&i.columns)).map(|i| i.id).collect();
            table.indexes.retain(|i| !indexes.contains(&i.id));
            let mut sequences: Vec<RelationId> = Vec::new();
            table.extras.retain(|e| match e {
                Extra::Unique { index, .. } | Extra::PrimaryIndex { index } => !indexes.contains(index),
                Extra::Check { condition, .. } => !names(condition, column),
                Extra::Identity { column, sequence, .. } if *column == gone => {
                    sequences.push(*sequence);
                    false
                }
                _ => true,
            });
            for sequence in sequences {
                remove(writes, sequence)?;
            }
        }
        Alteration::RenameColumn { from, to } => {
            if table.columns.iter().any(|c| c.name == *to) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{to}\" of relation \"{name}\" already exists"),
                ));
            }
            refuse_readers(writes, id, "renaming a column of a table that a view reads")?;
            let column = table.columns.iter_mut().find(|c| c.name == *from);
            column.ok_or_else(|| undefined_column(from, name))?.name.clone_from(to);
            for extra in &mut table.extras {
                if let Extra::Check { condition, .. } = extra {
                    *condition = renamed(condition, from, to);
                }
            }
        }
        Alteration::Rename(to) => {
            if taken(&writes.view.catalog, to) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_TABLE,
                    format!("relation \"{to}\" already exists"),
                ));
            }
            refuse_readers(writes, id, "renaming a table that a view reads")?;
            let named = table.extras.iter().any(|e| matches!(e, Extra::PrimaryName(_)));
            if !named && !table.primary_key.is_empty() {
                // The constraint keeps its name.
                table.extras.push(Extra::PrimaryName(format!("{name}_pkey")));
            }
            relation.name.clone_from(to);
        }
        Alteration::RenameConstraint { from, to } => {
            let own_primary = primary_name(&before, table);
            if let Some(index) = table.indexes.iter_mut().find(|i| i.name == *from) {
                index.name.clone_from(to);
            } else if !table.primary_key.is_empty() && own_primary == *from {
                table.extras.retain(|e| !matches!(e, Extra::PrimaryName(_)));
                table.extras.push(Extra::PrimaryName(to.clone()));
            } else {
                let check = table.extras.iter_mut().find_map(|e| match e {
                    Extra::Check { name, .. } if name == from => Some(name),
                    _ => None,
                });
                check.ok_or_else(|| undefined_constraint(from, name))?.clone_from(to);
            }
        }
        Alteration::SetDefault { column, default } => {
            let found = table.columns.iter_mut().find(|c| c.name == *column);
            found.ok_or_else(|| undefined_column(column, name))?.default.clone_from(default);
        }
        Alteration::SetNotNull { column, not_null } => {
            let place = table.columns.iter().position(|c| c.name == *column);
            let place = place.ok_or_else(|| undefined_column(column, name))?;
            if !not_null && table.key_columns().contains(&table.columns[place].id) {
                return Err(SqlError::new(
                    SqlState::INVALID_TABLE_DEFINITION,
                    format!("column \"{column}\" is in a primary key"),
                ));
            }
            if *not_null && rows_of(writes, id, table)?.iter().any(|row| row[place].is_null()) {
                return Err(contains_nulls(column, name));
            }
            table.columns[place].not_null = *not_null;
        }
        Alteration::SetType { column, ty, value } => {
            let place = table.columns.iter().position(|c| c.name == *column);
            let place = place.ok_or_else(|| undefined_column(column, name))?;
            if table.columns[place].ty == *ty {
                return Ok(());
            }
            if table.ttl().is_some_and(|(time, ..)| time == table.columns[place].id) {
                return Err(time_of_ttl(column, name));
            }
            refuse_readers(writes, id, "changing the type of a column of a table that a view reads")?;
            return set_type(writes, relation, place, *ty, value, cx);
        }
        Alteration::AddCheck { name: check, condition, check: expr } => {
            for row in rows_of(writes, id, table)? {
                if matches!(eval(expr, &one_row(table, &row), cx)?.get(0), ValueRef::Bool(false)) {
                    return Err(SqlError::new(
                        SqlState(*b"23514"),
                        format!(
                            "check constraint \"{check}\" of relation \"{name}\" is violated by some row"
                        ),
                    ));
                }
            }
            table.extras.push(Extra::Check { name: check.clone(), condition: condition.clone() });
        }
        Alteration::AddUnique(key) => return add_unique(writes, name, key),
        Alteration::DropConstraint { name: constraint, if_exists } => {
            let index = table.indexes.iter().find(|i| i.name == *constraint).map(|i| i.id);
            let before = table.extras.len();
            table.extras.retain(|e| match e {
                Extra::Check { name, .. } => name != constraint,
                Extra::Unique { index: i, constraint: true } | Extra::PrimaryIndex { index: i } => {
                    Some(*i) != index
                }
                _ => true,
            });
            if table.extras.len() < before {
                table.indexes.retain(|i| Some(i.id) != index);
            } else if !table.primary_key.is_empty()
                && primary_name(&relation, table_of(&relation)?) == *constraint
            {
                return Err(SqlError::unsupported("dropping a primary key that the rows are stored under"));
            } else if *if_exists {
                notices.push(format!("{}, skipping", undefined_constraint(constraint, name).message));
                return Ok(());
            } else {
                return Err(undefined_constraint(constraint, name));
            }
        }
    }
    put_changed(writes, relation)
}

fn table_of(relation: &Relation) -> Result<&Table, SqlError> {
    relation.table().ok_or_else(|| SqlError::new(SqlState::WRONG_OBJECT_TYPE, "not a table"))
}

/// UNIQUE and PRIMARY KEY. A table without rows takes its primary key as its order; one with rows keeps it as an index.
fn add_unique(writes: &mut Writes, name: &str, key: &UniqueKey) -> Result<(), SqlError> {
    let mut relation = (*find_table(writes, name)?).clone();
    let id = relation.id;
    let columns = column_ids(table_of(&relation)?, &key.columns)?;
    if key.primary {
        let filled = has_rows(writes, id)?;
        let RelationKind::Table(table) = &mut relation.kind else { return Ok(()) };
        if !table.key_columns().is_empty() {
            return Err(SqlError::new(
                SqlState::INVALID_TABLE_DEFINITION,
                format!("multiple primary keys for table \"{name}\" are not allowed"),
            ));
        }
        let places: Vec<usize> = columns.iter().filter_map(|id| table.place(*id)).collect();
        if filled {
            let rows = rows_of(writes, id, table)?;
            if let Some(place) = places.iter().find(|p| rows.iter().any(|row| row[**p].is_null())) {
                return Err(contains_nulls(&table.columns[*place].name, name));
            }
        }
        places.iter().for_each(|place| table.columns[*place].not_null = true);
        if !filled && table.indexes.is_empty() {
            table.primary_key = columns;
            let given = key.name.clone().filter(|n| *n != format!("{name}_pkey"));
            table.extras.extend(given.map(Extra::PrimaryName));
            return put_changed(writes, relation);
        }
    }
    let index_name = match (&key.name, key.primary) {
        (Some(name), _) => name.clone(),
        (None, true) => free_name(&writes.view.catalog, &format!("{name}_pkey")),
        (None, false) => free_name(&writes.view.catalog, &format!("{name}_{}_key", key.columns.join("_"))),
    };
    let index = add_index(writes, &mut relation, index_name, &key.columns, true)?;
    if let RelationKind::Table(table) = &mut relation.kind {
        table.extras.push(match key.primary {
            true => Extra::PrimaryIndex { index },
            false => Extra::Unique { index, constraint: true },
        });
    }
    put_changed(writes, relation)
}

/// The column becomes another one of the same name; every row is written anew.
fn set_type(
    writes: &mut Writes,
    mut relation: Relation,
    place: usize,
    ty: Type,
    value: &Expr,
    cx: &EvalCx<'_>,
) -> Result<(), SqlError> {
    let id = relation.id;
    let name = relation.name.clone();
    let before = table_of(&relation)?.clone();
    let column = before.columns[place].id;
    let used = before.primary_key.contains(&column)
        || before.indexes.iter().any(|i| i.columns.contains(&column))
        || before.extras.iter().any(
            |e| matches!(e, Extra::Check { condition, .. } if names(condition, &before.columns[place].name)),
        );
    if used {
        return Err(SqlError::unsupported(
            "changing the type of a column that a key, an index or a check uses",
        ));
    }
    if let RelationKind::Table(table) = &mut relation.kind {
        table.columns[place].ty = ty;
        table.columns[place].id = ColumnId(table.next_column);
        table.columns[place].default = None;
        table.next_column += 1;
    }
    let rows = rows_of(writes, id, &before)?;
    put_changed(writes, relation)?;
    let changed = find_table(writes, &name)?;
    let table = table_of(&changed)?;
    for old in rows {
        let mut new = old.clone();
        new[place] = eval(value, &one_row(&before, &old), cx)?.get(0).to_value();
        let mut was = old;
        was[place] = Value::Null;
        writes.update(&changed, table, &was, &new)?;
    }
    Ok(())
}

fn one_row(table: &Table, values: &[Value]) -> Batch {
    let types = table.columns.iter().map(|c| c.ty).chain([Type::Int]);
    let column = |(ty, v): (Type, &Value)| Vector { ty, nulls: None, data: Data::Const(v.clone()) };
    Batch::with_len(types.zip(values).map(column).collect(), 1)
}

fn refuse_readers(writes: &Writes, id: RelationId, what: &str) -> Result<(), SqlError> {
    match readers(&writes.view.catalog, id).first() {
        Some(view) => {
            Err(SqlError::unsupported(what).hint(format!("drop view {} first, and make it anew", view.name)))
        }
        None => Ok(()),
    }
}

fn contains_nulls(column: &str, table: &str) -> SqlError {
    let message = format!("column \"{column}\" of relation \"{table}\" contains null values");
    SqlError::new(SqlState::NOT_NULL_VIOLATION, message)
}

fn time_of_ttl(column: &str, table: &str) -> SqlError {
    SqlError::new(
        SqlState(*b"2BP01"),
        format!("column \"{column}\" cannot go or change its type: rows of table \"{table}\" expire by it"),
    )
}

fn undefined_column(column: &str, table: &str) -> SqlError {
    let message = format!("column \"{column}\" of relation \"{table}\" does not exist");
    SqlError::new(SqlState::UNDEFINED_COLUMN, message)
}

fn undefined_constraint(constraint: &str, table: &str) -> SqlError {
    let message = format!("constraint \"{constraint}\" of relation \"{table}\" does not exist");
    SqlError::new(SqlState::UNDEFINED_OBJECT, message)
}

/// Whether a stored condition names a column.
fn names(condition: &str, column: &str) -> bool {
    tokens(condition).iter().any(|t| is_name(t, column))
}

/// A stored condition with a column under its new name.
fn renamed(condition: &str, from: &str, to: &str) -> String {
    let quoted = format!("\"{}\"", to.replace('"', "\"\""));
    let show = |t: &Token| if is_name(t, from) { quoted.clone() } else { t.to_string() };
    tokens(condition).iter().map(show).collect()
}

fn tokens(sql: &str) -> Vec<Token> {
    Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().unwrap_or_default()
}

fn is_name(token: &Token, name: &str) -> bool {
    match token {
        Token::Word(word) if word.quote_style.is_some() => word.value == name,
        Token::Word(word) => word.value.to_lowercase() == name,
        _ => false,
    }
}
