//! Rows of tables with more constraints than a primary key: each is checked and written by itself.

use super::eval::{EvalCx, eval};
use super::scan::{decode_row, entry_primary_key, store_error};
use super::vector::{Batch, Data, Vector};
use super::write::{Writes, check_key, duplicate, encode_row, index_columns, not_null, shown};
use crate::action::{Arbiter, Check, OnConflict, Upsert};
use crate::error::{SqlError, SqlState};
use bytes::Bytes;
use chronos_engine::bugs::{Bug, active};
use chronos_engine::keys::{self, KeyRange};
use chronos_proto::command::IndexChange;
use chronos_proto::id::{ColumnId, IndexId};
use chronos_proto::schema::{Extra, IndexState, Relation, SecondaryIndex, Table};
use chronos_proto::{Type, Value, key};
use std::collections::BTreeSet;

/// Whether rows of a table are to be written one by one.
pub(crate) fn wants(table: &Table, conflict: &OnConflict) -> bool {
    let replaces_expired = table.ttl().is_some() && !table.primary_key.is_empty();
    replaces_expired
        || matches!(conflict, OnConflict::Update(_))
        || table.indexes.iter().any(|i| table.is_unique(i.id))
}

/// The name of a table's primary key.
pub(crate) fn primary_name(relation: &Relation, table: &Table) -> String {
    let named = table.extras.iter().find_map(|e| match e {
        Extra::PrimaryName(name) => Some(name.clone()),
        _ => None,
    });
    named.unwrap_or_else(|| format!("{}_pkey", relation.name))
}

/// Checks a row that is about to be written.
pub(super) fn check(
    checks: &[Check],
    relation: &Relation,
    table: &Table,
    values: &[Value],
    cx: &EvalCx<'_>,
) -> Result<(), SqlError> {
    if checks.is_empty() {
        return Ok(());
    }
    if let Some(place) = table.columns.iter().zip(values).position(|(c, v)| c.not_null && v.is_null()) {
        return Err(not_null(relation, table, place, values));
    }
    let batch = one_row(values);
    for check in checks {
        if matches!(eval(&check.condition, &batch, cx)?.get(0), super::vector::ValueRef::Bool(false)) {
            let message = format!(
                "new row for relation \"{}\" violates check constraint \"{}\"",
                relation.name, check.name
            );
            return Err(SqlError::new(SqlState(*b"23514"), message)
                .detail(format!("Failing row contains ({}).", shown(&values[..table.columns.len()]))));
        }
    }
    Ok(())
}

fn one_row(values: &[Value]) -> Batch {
    let column =
        |v: &Value| Vector { ty: v.ty().unwrap_or(Type::Text), nulls: None, data: Data::Const(v.clone()) };
    Batch::with_len(values.iter().map(column).collect(), 1)
}

/// What an inserted row came to.
pub(super) enum Inserted {
    New,
    Skipped,
    /// The row that was there, as it is now.
    Updated(Vec<Value>),
}

/// One INSERT's rows.
pub(super) struct Inserter<'a> {
    pub relation: &'a Relation,
    pub table: &'a Table,
    pub conflict: &'a OnConflict,
    pub checks: &'a [Check],
    /// Primary keys that this statement has written: DO UPDATE takes no row twice.
    touched: BTreeSet<Bytes>,
}

impl<'a> Inserter<'a> {
    pub fn new(
        relation: &'a Relation,
        table: &'a Table,
        conflict: &'a OnConflict,
        checks: &'a [Check],
    ) -> Inserter<'a> {
        Inserter { relation, table, conflict, checks, touched: BTreeSet::new() }
    }

    pub fn insert(
        &mut self,
        values: &[Value],
        writes: &mut Writes,
        cx: &EvalCx<'_>,
    ) -> Result<Inserted, SqlError> {
        let (relation, table) = (self.relation, self.table);
        if let Some(place) = table.columns.iter().zip(values).position(|(c, v)| c.not_null && v.is_null()) {
            return Err(not_null(relation, table, place, values));
        }
        check(self.checks, relation, table, values, cx)?;
        // The constraint that the statement names is asked first.
        let wanted = match self.conflict {
            OnConflict::Update(upsert) => Some(upsert.arbiter),
            OnConflict::Skip(arbiter) => *arbiter,
            OnConflict::Fail => None,
        };
        let mut arbiters: Vec<Arbiter> = Vec::with_capacity(2);
        if !table.primary_key.is_empty() {
            arbiters.push(Arbiter::PrimaryKey);
        }
        let unique = table.indexes.iter().filter(|i| table.is_unique(i.id));
        arbiters.extend(unique.map(|i| Arbiter::Index(i.id)));
        arbiters.sort_by_key(|a| Some(*a) != wanted);
        for arbiter in arbiters {
            let Some(there) = self.find(arbiter, values, writes)? else { continue };
            match self.conflict {
                OnConflict::Update(upsert) if upsert.arbiter == arbiter => {
                    return self.update(upsert, there, values, writes, cx);
                }
                OnConflict::Skip(None) => return Ok(Inserted::Skipped),
                OnConflict::Skip(Some(skipped)) if *skipped == arbiter => return Ok(Inserted::Skipped),
                _ => return Err(self.violated(arbiter, values)),
            }
        }
        let row = encode_row(table, values)?;
        if table.primary_key.is_empty() {
            let entries = table.indexes.iter().map(|i| (i.id, Bytes::from(index_columns(table, i, values))));
            writes.append(relation.id, row, entries.collect())?;
            return Ok(Inserted::New);
        }
        let primary = self.primary(values)?;
        let entry = |i: &SecondaryIndex| {
            let key = [&index_columns(table, i, values)[..], &primary].concat();
            IndexChange { index: i.id, key: Bytes::from(key), present: true }
        };
        let entries = table.indexes.iter().map(entry).collect();
        writes.insert(relation.id, keys::row(relation.id, &primary), row, entries)?;
        self.touched.insert(primary);
        Ok(Inserted::New)
    }

    fn primary(&self, values: &[Value]) -> Result<Bytes, SqlError> {
        let key = encoded(self.table, &self.table.primary_key, values);
        check_key(key.len())?;
        Ok(Bytes::from(key))
    }

    /// The row that stands in the way: its primary key, and its values with the hidden rowid behind.
    fn find(
        &self,
        arbiter: Arbiter,
        values: &[Value],
        writes: &mut Writes,
    ) -> Result<Option<(Bytes, Vec<Value>)>, SqlError> {
        let (relation, table) = (self.relation, self.table);
        let primary = match arbiter {
            Arbiter::PrimaryKey => Some(self.primary(values)?),
            Arbiter::Index(id) => match table.indexes.iter().find(|i| i.id == id) {
                Some(index) => find_equal(relation, table, index, values, writes)?,
                None => None,
            },
        };
        let Some(primary) = primary else { return Ok(None) };
        Ok(writes.standing(relation, table, &primary)?.map(|values| (primary, values)))
    }

    fn update(
        &mut self,
        upsert: &Upsert,
        (primary, old): (Bytes, Vec<Value>),
        values: &[Value],
        writes: &mut Writes,
        cx: &EvalCx<'_>,
    ) -> Result<Inserted, SqlError> {
        if !self.touched.insert(primary) {
            return Err(SqlError::new(
                SqlState::CARDINALITY_VIOLATION,
                "ON CONFLICT DO UPDATE command cannot affect row a second time",
            )
            .hint(
                "Ensure that no rows proposed for insertion within the same command have duplicate constrained \
                 values.",
            ));
        }
        let mut both = old.clone();
        both.resize(upsert.excluded, Value::Null);
        both.extend_from_slice(values);
        let batch = one_row(&both);
        if let Some(condition) = &upsert.condition
            && !matches!(eval(condition, &batch, cx)?.get(0), super::vector::ValueRef::Bool(true))
        {
            return Ok(Inserted::Skipped);
        }
        let mut new = old.clone();
        for (place, e) in &upsert.assignments {
            new[*place] = eval(e, &batch, cx)?.get(0).to_value();
        }
        check(self.checks, self.relation, self.table, &new, cx)?;
        writes.update(self.relation, self.table, &old, &new)?;
        Ok(Inserted::Updated(new))
    }

    fn violated(&self, arbiter: Arbiter, values: &[Value]) -> SqlError {
        match arbiter {
            Arbiter::PrimaryKey => {
                duplicate(self.relation, self.table, &encoded(self.table, &self.table.primary_key, values))
            }
            Arbiter::Index(id) => unique_violation(self.table, id, values),
        }
    }
}

fn encoded(table: &Table, columns: &[ColumnId], values: &[Value]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    for place in columns.iter().filter_map(|id| table.place(*id)) {
        key::encode(&mut out, &values[place]);
    }
    out
}

pub(super) fn unique_violation(table: &Table, id: IndexId, values: &[Value]) -> SqlError {
    let index = table.indexes.iter().find(|i| i.id == id);
    let places: Vec<usize> =
        index.map_or_else(Vec::new, |i| i.columns.iter().filter_map(|id| table.place(*id)).collect());
    let names = places.iter().map(|p| table.columns[*p].name.as_str()).collect::<Vec<_>>().join(", ");
    let key: Vec<Value> = places.iter().map(|p| values[*p].clone()).collect();
    let name = index.map_or("", |i| i.name.as_str());
    SqlError::new(
        SqlState::UNIQUE_VIOLATION,
        format!("duplicate key value violates unique constraint \"{name}\""),
    )
    .detail(format!("Key ({names})=({}) already exists.", shown(&key)))
}

/// The primary key of a row with the same values in a unique index; NULLs equal nothing.
pub(super) fn find_equal(
    relation: &Relation,
    table: &Table,
    index: &SecondaryIndex,
    values: &[Value],
    writes: &mut Writes,
) -> Result<Option<Bytes>, SqlError> {
    let places: Vec<usize> = index.columns.iter().filter_map(|id| table.place(*id)).collect();
    if places.iter().any(|place| values[*place].is_null()) {
        return Ok(None);
    }
    let prefix = keys::index_entry(relation.id, index.id, &index_columns(table, index, values));
    let range = KeyRange { end: keys::successor(&prefix), start: prefix };
    if !active(Bug::UniqueUnread) {
        writes.reads.add(range.clone());
    }
    if let Some((found, _)) = writes.view.scan(&range, false).next().transpose().map_err(store_error)? {
        let types: Vec<Type> = places.iter().map(|p| table.columns[*p].ty).collect();
        return Ok(entry_primary_key(keys::index_entry_suffix(&found), &types).map(Bytes::copy_from_slice));
    }
    if index.state == IndexState::Public {
        return Ok(None);
    }
    // It is still being filled: the rows themselves are asked.
    let rows = keys::rows(relation.id);
    writes.reads.add(rows.clone());
    for entry in writes.view.scan(&rows, false) {
        let (key, stored) = entry.map_err(store_error)?;
        let primary = keys::row_primary_key(&key);
        let other = decode_row(table, primary, &stored)?;
        if places.iter().all(|p| !other[*p].is_null() && other[*p].total_cmp(&values[*p]).is_eq()) {
            return Ok(Some(Bytes::copy_from_slice(primary)));
        }
    }
    Ok(None)
}
