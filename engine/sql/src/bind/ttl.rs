//! A table's time to live: `WITH (ttl = '7 days', ttl_column = 'ts')`, and without a column by a row's arrival.

use crate::error::{SqlError, SqlState};
use crate::time;
use chronos_proto::Type;
use chronos_proto::id::{ColumnId, IndexId};
use chronos_proto::schema::{Column, DefaultValue, Extra, IndexState, SecondaryIndex, Table};
use sqlparser::ast;

/// The column that tables without a time column of their own have for it.
const ARRIVED_AT: &str = "chronos_arrived_at";

/// The lifetime that ALTER TABLE … SET (ttl = …) gives.
pub(super) fn changed(name: &str, table: &Table, options: &[ast::SqlOption]) -> Result<u64, SqlError> {
    let (Some(micros), None) = read(options)? else {
        return Err(SqlError::unsupported("setting another table option than ttl"));
    };
    if table.ttl().is_none() {
        return Err(SqlError::unsupported(format!(
            "giving a ttl to table \"{name}\", which was made without"
        ))
        .hint("make another with the ttl, and INSERT … SELECT"));
    }
    Ok(micros)
}

/// Adds to a new table what its options ask for.
pub(super) fn options(
    name: &str,
    table: &mut Table,
    given: &ast::CreateTableOptions,
) -> Result<(), SqlError> {
    let given = match given {
        ast::CreateTableOptions::None => return Ok(()),
        ast::CreateTableOptions::With(options) => options,
        _ => return Err(SqlError::unsupported("table options other than WITH (…)")),
    };
    let (ttl, column) = read(given)?;
    let Some(micros) = ttl else {
        if column.is_none() {
            return Ok(());
        }
        return Err(SqlError::new(SqlState::INVALID_PARAMETER, "ttl_column is given without ttl"));
    };
    let column = match column {
        Some(column) => time_column(name, table, &column)?,
        None => arrival_column(table)?,
    };
    let index = IndexId(table.next_index);
    table.next_index += 1;
    let columns = vec![column];
    let index_name = format!("{name}_ttl_idx");
    table.indexes.push(SecondaryIndex { id: index, name: index_name, columns, state: IndexState::Public });
    table.extras.push(Extra::Ttl { column, index, micros });
    Ok(())
}

/// Lifetime and column as options say them.
fn read(options: &[ast::SqlOption]) -> Result<(Option<u64>, Option<String>), SqlError> {
    let (mut ttl, mut column) = (None, None);
    for option in options {
        let (key, value) = crate::parse::option(option.clone())
            .map_err(|_| SqlError::new(SqlState::SYNTAX_ERROR, "expected name = value in WITH (…)"))?;
        match key.as_str() {
            "ttl" => ttl = Some(lifetime(&value)?),
            "ttl_column" => column = Some(value),
            // What PostgreSQL's pages and their cleaning need has no meaning here.
            "fillfactor" | "autovacuum_enabled" => {}
            _ => {
                return Err(SqlError::unsupported(format!("table option \"{key}\""))
                    .hint("ttl and ttl_column are options of tables"));
            }
        }
    }
    Ok((ttl, column))
}

/// A fixed length of time above zero, in microseconds.
fn lifetime(text: &str) -> Result<u64, SqlError> {
    let bad = |why: &str| {
        SqlError::new(SqlState::INVALID_PARAMETER, format!("invalid ttl \"{text}\": {why}"))
            .hint("a number with a unit, as in '7d', '24h', '90 minutes' or '30 days'")
    };
    if text.trim().parse::<f64>().is_ok() {
        return Err(bad("it has no unit"));
    }
    let interval = time::parse_interval(text)?;
    if interval.months != 0 {
        return Err(bad("months and years differ in length"));
    }
    let micros = i64::from(interval.days).checked_mul(time::DAY).and_then(|d| d.checked_add(interval.micros));
    micros.and_then(|m| u64::try_from(m).ok()).filter(|m| *m > 0).ok_or_else(|| bad("it is not above zero"))
}

fn time_column(name: &str, table: &Table, column: &str) -> Result<ColumnId, SqlError> {
    let found = table.columns.iter().find(|c| c.name == column).ok_or_else(|| {
        SqlError::new(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{column}\" named as ttl_column does not exist"),
        )
    })?;
    if found.ty != Type::Timestamp {
        return Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!("ttl_column \"{column}\" of table \"{name}\" is of type {}, not timestamptz", found.ty),
        ));
    }
    Ok(found.id)
}

fn arrival_column(table: &mut Table) -> Result<ColumnId, SqlError> {
    if table.columns.iter().any(|c| c.name == ARRIVED_AT) {
        return Err(SqlError::new(
            SqlState::DUPLICATE_COLUMN,
            format!("column \"{ARRIVED_AT}\" is there already: name it as ttl_column"),
        ));
    }
    let id = ColumnId(table.next_column);
    table.next_column += 1;
    let default = Some(DefaultValue::Expression("now()".into()));
    table.columns.push(Column { id, name: ARRIVED_AT.into(), ty: Type::Timestamp, not_null: true, default });
    table.extras.push(Extra::Hidden { column: id });
    Ok(id)
}
