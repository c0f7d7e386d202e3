//! Secondary index entries, computed from stored rows.

use super::ReadError;
use super::keys;
use chronos_proto::codec::DecodeError;
use chronos_proto::id::ColumnId;
use chronos_proto::schema::{SecondaryIndex, Table};
use chronos_proto::value::{Type, Value};
use chronos_proto::{key, row};
use std::collections::BTreeMap;

/// The encoded index columns of a stored row, shortened if they are long: the entry's key before the primary key.
pub fn columns(
    table: &Table,
    index: &SecondaryIndex,
    primary_key: &[u8],
    stored_row: &[u8],
) -> Result<Vec<u8>, ReadError> {
    let mut values: BTreeMap<ColumnId, Value> = BTreeMap::new();
    let mut rest = primary_key;
    for column in &table.primary_key {
        let ty = table.column(*column).map_or(Type::Int, |c| c.ty);
        let value = key::decode(&mut rest, ty)
            .map_err(|e| DecodeError { what: "primary key", why: e.to_string() })?;
        values.insert(*column, value);
    }
    row::decode(stored_row, |column, value| {
        values.insert(column, value);
    })?;
    let mut encoded = Vec::new();
    for column in &index.columns {
        key::encode(&mut encoded, values.get(column).unwrap_or(&Value::Null));
    }
    Ok(keys::index_columns(&encoded))
}
