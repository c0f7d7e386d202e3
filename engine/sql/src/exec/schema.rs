//! Changes of the catalogue: seen at once by the transaction that makes them, by others when it commits.

use super::checked::primary_name;
use super::eval::EvalCx;
use super::scan::{decode_row, store_error};
use super::write::Writes;
use crate::action::{Dropped, SchemaChange, UniqueKey};
use crate::error::{SqlError, SqlState};
use chronos_engine::Catalog;
use chronos_engine::keys;
use chronos_proto::id::{ColumnId, IndexId, RelationId};
use chronos_proto::schema::{
    DefaultValue, Extra, IndexState, Partitioned, Relation, RelationKind, SecondaryIndex, Sequence, Table,
};
use chronos_proto::{Op, Value};
use std::sync::Arc;

mod alter;
mod schedule;
mod topic;

/// What a change made.
pub(crate) struct Made {
    pub tag: &'static str,
    /// The relation, unless it was there.
    pub relation: Option<Arc<Relation>>,
}

/// Runs a change; what was skipped is told in `notices`.
pub(crate) fn run(
    change: &SchemaChange,
    cx: &EvalCx<'_>,
    writes: &mut Writes,
    notices: &mut Vec<String>,
) -> Result<Made, SqlError> {
    writes.reads.add(keys::catalog_all());
    let done = |tag| Ok(Made { tag, relation: None });
    match change {
        SchemaChange::Create { relation, if_not_exists, replace, unique, sequences, tag } => {
            if taken(&writes.view.catalog, &relation.name) {
                let there = writes.view.catalog.by_name(&relation.name).cloned();
                if let (true, Some(there)) = (*replace, there.filter(|r| r.view().is_some())) {
                    return replace_view(writes, relation, &there).map(|()| Made { tag, relation: None });
                }
                let message = format!("relation \"{}\" already exists", relation.name);
                if !if_not_exists {
                    return Err(SqlError::new(SqlState::DUPLICATE_TABLE, message));
                }
                notices.push(format!("{message}, skipping"));
                return done(tag);
            }
            create(writes, relation, unique, sequences).map(|relation| Made { tag, relation })
        }
        SchemaChange::CreateTopic { relation, if_not_exists, options } => {
            topic::make(writes, relation, *if_not_exists, options, notices)
        }
        SchemaChange::AlterTopic { name, if_exists, options } => {
            topic::alter(writes, name, *if_exists, options, notices)
        }
        SchemaChange::CreateIndex { table, name, columns, unique, if_not_exists } => {
            if let Some(name) = name
                && taken(&writes.view.catalog, name)
            {
                let message = format!("relation \"{name}\" already exists");
                if !if_not_exists {
                    return Err(SqlError::new(SqlState::DUPLICATE_TABLE, message));
                }
                notices.push(format!("{message}, skipping"));
                return done("CREATE INDEX");
            }
            let mut relation = (*find_table(writes, table)?).clone();
            let name = match name {
                Some(name) => name.clone(),
                None => free_name(&writes.view.catalog, &format!("{table}_{}_idx", columns.join("_"))),
            };
            let id = add_index(writes, &mut relation, name, columns, *unique)?;
            if let (true, RelationKind::Table(table)) = (*unique, &mut relation.kind) {
                table.extras.push(Extra::Unique { index: id, constraint: false });
            }
            put_changed(writes, relation)?;
            done("CREATE INDEX")
        }
        SchemaChange::Drop { names, if_exists, what, cascade } => {
            for name in names {
                if !drop(writes, name, *what, *cascade, notices)? {
                    let (kind, code) = match what {
                        Dropped::Table => ("table", SqlState::UNDEFINED_TABLE),
                        Dropped::Topic => ("topic", SqlState::UNDEFINED_TABLE),
                        Dropped::View => ("view", SqlState::UNDEFINED_TABLE),
                        Dropped::Sequence => ("sequence", SqlState::UNDEFINED_TABLE),
                        Dropped::Index => ("index", SqlState::UNDEFINED_OBJECT),
                        Dropped::Schedule => ("schedule", SqlState::UNDEFINED_OBJECT),
                    };
                    missing(kind, code, name, *if_exists, notices)?;
                }
            }
            done(match what {
                Dropped::Table => "DROP TABLE",
                Dropped::Topic => "DROP TOPIC",
                Dropped::Index => "DROP INDEX",
                Dropped::View => "DROP VIEW",
                Dropped::Sequence => "DROP SEQUENCE",
                Dropped::Schedule => "DROP SCHEDULE",
            })
        }
        SchemaChange::Truncate { names, restart } => {
            for name in names {
                truncate(writes, name, *restart)?;
            }
            done("TRUNCATE TABLE")
        }
        SchemaChange::Alter { name, changes } => {
            for change in changes {
                alter::run(writes, name, change, cx, notices)?;
            }
            done("ALTER TABLE")
        }
        SchemaChange::CreateSchedule { name, if_not_exists, says } => {
            schedule::create(writes, name, *if_not_exists, says, cx, notices)?;
            done("CREATE SCHEDULE")
        }
        SchemaChange::AlterSchedule { name, if_exists, change } => {
            schedule::alter(writes, name, *if_exists, change, cx, notices)?;
            done("ALTER SCHEDULE")
        }
    }
}

/// Something that is not there: an error, or with IF EXISTS a notice.
fn missing(
    kind: &str,
    code: SqlState,
    name: &str,
    if_exists: bool,
    notices: &mut Vec<String>,
) -> Result<(), SqlError> {
    let message = format!("{kind} \"{name}\" does not exist");
    if !if_exists {
        return Err(SqlError::new(code, message));
    }
    notices.push(format!("{message}, skipping"));
    Ok(())
}

fn create(
    writes: &mut Writes,
    relation: &Relation,
    unique: &[UniqueKey],
    sequences: &[(usize, Sequence, Option<bool>)],
) -> Result<Option<Arc<Relation>>, SqlError> {
    let id = writes.view.catalog.next_id();
    let group = writes.view.group;
    let kind = dealt(id, &relation.kind, &writes.view.catalog)?;
    let mut relation = Relation { id, group, kind, ..relation.clone() };
    let mut owned: Vec<Relation> = Vec::new();
    if let RelationKind::Table(table) = &mut relation.kind {
        for index in &mut table.indexes {
            index.name = free_name(&writes.view.catalog, &index.name);
        }
        for (place, sequence, always) in sequences {
            let column = &mut table.columns[*place];
            let base = format!("{}_{}_seq", relation.name, column.name);
            let name = free_name(&writes.view.catalog, &base);
            let number = RelationId(id.0 + 1 + owned.len() as u32);
            column.default =
                Some(DefaultValue::Expression(format!("nextval('{}')", name.replace('\'', "''"))));
            table.extras.push(Extra::Identity { column: column.id, sequence: number, always: *always });
            let sequence = Sequence { owner: Some((id, column.id)), ..sequence.clone() };
            let kind = RelationKind::Sequence(sequence);
            owned.push(Relation { id: number, name, group, version: 1, kind });
        }
        for key in unique {
            let name = match &key.name {
                Some(name) => name.clone(),
                None => {
                    let base = format!("{}_{}_key", relation.name, key.columns.join("_"));
                    let own = |n: &str| table.indexes.iter().any(|i| i.name == n);
                    let free = free_name(&writes.view.catalog, &base);
                    let mut numbered = (1u32..).map(|n| format!("{free}{n}"));
                    if own(&free) { numbered.find(|n| !own(n)).unwrap_or(free) } else { free }
                }
            };
            if taken(&writes.view.catalog, &name) || table.indexes.iter().any(|i| i.name == name) {
                let message = format!("relation \"{name}\" already exists");
                return Err(SqlError::new(SqlState::DUPLICATE_TABLE, message));
            }
            let index = IndexId(table.next_index);
            table.next_index += 1;
            let columns = column_ids(table, &key.columns)?;
            check_keys(table, &columns)?;
            // There is nothing yet that it would have to be filled with.
            table.indexes.push(SecondaryIndex { id: index, name, columns, state: IndexState::Public });
            table.extras.push(Extra::Unique { index, constraint: true });
        }
    }
    put(writes, relation)?;
    for sequence in owned {
        put(writes, sequence)?;
    }
    Ok(writes.view.catalog.get(id).cloned())
}

fn replace_view(writes: &mut Writes, new: &Relation, old: &Relation) -> Result<(), SqlError> {
    let (Some(was), Some(is)) = (old.view(), new.view()) else { return Ok(()) };
    for (i, column) in was.columns.iter().enumerate() {
        let message = match is.columns.get(i) {
            None => "cannot drop columns from view".to_owned(),
            Some(new) if new.name != column.name => {
                format!("cannot change name of view column \"{}\" to \"{}\"", column.name, new.name)
            }
            Some(new) if new.ty != column.ty => {
                let (from, to) = (column.ty, new.ty);
                format!("cannot change data type of view column \"{}\" from {from} to {to}", column.name)
            }
            Some(_) => continue,
        };
        return Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message));
    }
    if is.reads.contains(&old.id) {
        return Err(SqlError::new(
            SqlState::INVALID_TABLE_DEFINITION,
            format!("view \"{}\" would read itself", old.name),
        ));
    }
    let (id, group, version) = (old.id, old.group, old.version + 1);
    put(writes, Relation { id, group, version, ..new.clone() })
}

/// A topic of several partitions gets their groups.
fn dealt(id: RelationId, kind: &RelationKind, catalog: &Catalog) -> Result<RelationKind, SqlError> {
    match kind {
        RelationKind::Topic(topic) if topic.partitions > 1 => match catalog.partition_groups() {
            0 => {
                let message = "this node has no groups for a topic of several partitions";
                Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message)
                    .hint("start it, and every other node of its cluster, with --partitions 8"))
            }
            groups => Ok(RelationKind::Partitioned(Partitioned::spread(id, topic.clone(), groups))),
        },
        kind => Ok(kind.clone()),
    }
}

/// Relations and indexes share their names.
fn taken(catalog: &Catalog, name: &str) -> bool {
    catalog.by_name(name).is_some() || index_owner(catalog, name).is_some()
}

fn index_owner<'a>(catalog: &'a Catalog, index: &str) -> Option<&'a Arc<Relation>> {
    catalog.iter().find(|r| r.table().is_some_and(|t| t.indexes.iter().any(|i| i.name == index)))
}

fn put(writes: &mut Writes, relation: Relation) -> Result<(), SqlError> {
    Arc::make_mut(&mut writes.view.catalog).put(relation.clone());
    writes.push(Op::PutRelation(relation), 1024)?;
    Ok(())
}

/// A relation that was there, in its next version.
fn put_changed(writes: &mut Writes, mut relation: Relation) -> Result<(), SqlError> {
    relation.version += 1;
    put(writes, relation)
}

fn remove(writes: &mut Writes, id: RelationId) -> Result<(), SqlError> {
    Arc::make_mut(&mut writes.view.catalog).remove(id);
    writes.push(Op::DropRelation(id), 64)?;
    Ok(())
}

fn find_table(writes: &Writes, name: &str) -> Result<Arc<Relation>, SqlError> {
    let found = writes.view.catalog.by_name(name).filter(|r| r.table().is_some()).cloned();
    found.ok_or_else(|| {
        SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
    })
}

fn column_ids(table: &Table, names: &[String]) -> Result<Vec<ColumnId>, SqlError> {
    let id = |name: &String| {
        let found = table.columns.iter().find(|c| c.name == *name).map(|c| c.id);
        found.ok_or_else(|| {
            SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" named in key does not exist"),
            )
        })
    };
    names.iter().map(id).collect()
}

/// All rows of a table, decoded: what changes them anew, or looks whether they may stay.
fn rows_of(writes: &mut Writes, id: RelationId, table: &Table) -> Result<Vec<Vec<Value>>, SqlError> {
    let range = keys::rows(id);
    writes.reads.add(range.clone());
    let mut rows = Vec::new();
    for entry in writes.view.scan(&range, false) {
        let (key, stored) = entry.map_err(store_error)?;
        rows.push(decode_row(table, keys::row_primary_key(&key), &stored)?);
    }
    Ok(rows)
}

fn has_rows(writes: &mut Writes, id: RelationId) -> Result<bool, SqlError> {
    let range = keys::rows(id);
    writes.reads.add(range.clone());
    Ok(writes.view.scan(&range, false).next().transpose().map_err(store_error)?.is_some())
}

/// Adds an index; a unique one looks whether the rows that are there are.
fn add_index(
    writes: &mut Writes,
    relation: &mut Relation,
    name: String,
    columns: &[String],
    unique: bool,
) -> Result<IndexId, SqlError> {
    if taken(&writes.view.catalog, &name) {
        let message = format!("relation \"{name}\" already exists");
        return Err(SqlError::new(SqlState::DUPLICATE_TABLE, message));
    }
    let filled = has_rows(writes, relation.id)?;
    let RelationKind::Table(table) = &mut relation.kind else {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, "not a table"));
    };
    let columns = column_ids(table, columns)?;
    check_keys(table, &columns)?;
    if unique && filled {
        let places: Vec<usize> = columns.iter().filter_map(|id| table.place(*id)).collect();
        let mut seen = super::hash::KeyTable::default();
        let mut key = Vec::new();
        for row in rows_of(writes, relation.id, table)? {
            if places.iter().any(|p| row[*p].is_null()) {
                continue;
            }
            key.clear();
            places.iter().for_each(|p| super::hash::encode_value((&row[*p]).into(), &mut key));
            if !seen.find_or_insert(&key).1 {
                let names: Vec<&str> = places.iter().map(|p| table.columns[*p].name.as_str()).collect();
                let values: Vec<Value> = places.iter().map(|p| row[*p].clone()).collect();
                return Err(SqlError::new(
                    SqlState::UNIQUE_VIOLATION,
                    format!("could not create unique index \"{name}\""),
                )
                .detail(format!(
                    "Key ({})=({}) is duplicated.",
                    names.join(", "),
                    super::write::shown(&values)
                )));
            }
        }
    }
    let id = IndexId(table.next_index);
    table.next_index += 1;
    // An index of a table without rows is complete as it is.
    let state = if filled { IndexState::WriteOnly } else { IndexState::Public };
    table.indexes.push(SecondaryIndex { id, name, columns, state });
    Ok(id)
}

fn check_keys(table: &Table, columns: &[ColumnId]) -> Result<(), SqlError> {
    let mut columns = columns.iter().filter_map(|id| table.column(*id));
    columns.try_for_each(|column| crate::types::check_key(&column.name, column.ty))
}

fn free_name(catalog: &Catalog, base: &str) -> String {
    let mut base = base.to_owned();
    let most = chronos_proto::limits::NAME_MAX_BYTES - 4;
    if base.len() > most {
        let cut = (0..=most).rev().find(|i| base.is_char_boundary(*i)).unwrap_or(0);
        base.truncate(cut);
    }
    (0u32..)
        .map(|n| if n == 0 { base.clone() } else { format!("{base}{n}") })
        .find(|n| !taken(catalog, n))
        .unwrap_or(base)
}

/// Views that read a relation.
fn readers(catalog: &Catalog, id: RelationId) -> Vec<Arc<Relation>> {
    catalog.iter().filter(|r| r.view().is_some_and(|v| v.reads.contains(&id))).cloned().collect()
}

/// Whether views stand in the way; with `cascade` they go.
fn drop_readers(
    writes: &mut Writes,
    relation: &Relation,
    cascade: bool,
    notices: &mut Vec<String>,
) -> Result<(), SqlError> {
    for view in readers(&writes.view.catalog, relation.id) {
        if !cascade {
            return Err(SqlError::new(
                SqlState(*b"2BP01"),
                format!("cannot drop {} because other objects depend on it", relation.name),
            )
            .detail(format!("view {} depends on {}", view.name, relation.name))
            .hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        notices.push(format!("drop cascades to view {}", view.name));
        drop_readers(writes, &view, true, notices)?;
        remove(writes, view.id)?;
    }
    Ok(())
}

/// False if there is none.
fn drop(
    writes: &mut Writes,
    name: &str,
    what: Dropped,
    cascade: bool,
    notices: &mut Vec<String>,
) -> Result<bool, SqlError> {
    if what == Dropped::Index {
        let Some(owner) = index_owner(&writes.view.catalog, name).cloned() else { return Ok(false) };
        let mut relation = (*owner).clone();
        if let RelationKind::Table(table) = &mut relation.kind {
            let id = table.indexes.iter().find(|i| i.name == name).map(|i| i.id);
            let of_constraint = table.extras.iter().any(|e| match e {
                Extra::Unique { index, constraint: true } | Extra::PrimaryIndex { index } => {
                    Some(*index) == id
                }
                _ => false,
            });
            if table.ttl().is_some_and(|(_, index, _)| Some(index) == id) {
                return Err(SqlError::new(
                    SqlState(*b"2BP01"),
                    format!("cannot drop index {name} because the ttl of table {} requires it", owner.name),
                ));
            }
            if of_constraint {
                return Err(SqlError::new(
                    SqlState(*b"2BP01"),
                    format!(
                        "cannot drop index {name} because constraint {name} on table {} requires it",
                        owner.name
                    ),
                )
                .hint(format!("You can drop constraint {name} on table {} instead.", owner.name)));
            }
            table.indexes.retain(|i| i.name != name);
            table.extras.retain(|e| !matches!(e, Extra::Unique { index, .. } if Some(*index) == id));
        }
        put_changed(writes, relation)?;
        return Ok(true);
    }
    let Some(relation) = writes.view.catalog.by_name(name).cloned() else { return Ok(false) };
    let (is, use_instead) = match &relation.kind {
        RelationKind::Table(_) => (Dropped::Table, "DROP TABLE"),
        RelationKind::Topic(_) | RelationKind::Partitioned(_) => (Dropped::Topic, "DROP TOPIC"),
        RelationKind::View(_) => (Dropped::View, "DROP VIEW"),
        RelationKind::Sequence(_) => (Dropped::Sequence, "DROP SEQUENCE"),
        RelationKind::Schedule(_) => (Dropped::Schedule, "DROP SCHEDULE"),
    };
    if is != what {
        let wanted = match what {
            Dropped::Table => "table",
            Dropped::Topic => "topic",
            Dropped::View => "view",
            Dropped::Sequence => "sequence",
            Dropped::Index => "index",
            Dropped::Schedule => "schedule",
        };
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{name}\" is not a {wanted}"))
            .hint(format!("Use {use_instead} to remove it.")));
    }
    if let Some(Sequence { owner: Some((table, _)), .. }) = relation.sequence()
        && let Some(table) = writes.view.catalog.get(*table)
    {
        return Err(SqlError::new(
            SqlState(*b"2BP01"),
            format!("cannot drop sequence {name} because other objects depend on it"),
        )
        .detail(format!("default value of a column of table {} depends on sequence {name}", table.name)));
    }
    schedule::check_unused(writes, &relation)?;
    if relation.topic().is_some() {
        topic::refuse_dropping(&writes.view.catalog, &relation)?;
    }
    drop_readers(writes, &relation, cascade, notices)?;
    remove(writes, relation.id)?;
    if let Some(table) = relation.table() {
        for extra in &table.extras {
            if let Extra::Identity { sequence, .. } = extra {
                remove(writes, *sequence)?;
            }
        }
    }
    Ok(true)
}

/// The table begins anew under another number; its rows go in the background.
fn truncate(writes: &mut Writes, name: &str, restart: bool) -> Result<(), SqlError> {
    let old = find_table(writes, name)?;
    let mut relation = (*old).clone();
    relation.id = writes.view.catalog.next_id();
    relation.version = 1;
    let mut owned = Vec::new();
    if let RelationKind::Table(table) = &mut relation.kind {
        table.indexes.iter_mut().for_each(|i| i.state = IndexState::Public);
        owned.extend(table.extras.iter().filter_map(|e| match e {
            Extra::Identity { sequence, .. } => Some(*sequence),
            _ => None,
        }));
    }
    let (from, to) = (old.id, relation.id);
    remove(writes, from)?;
    put(writes, relation)?;
    for id in owned {
        let Some(sequence) = writes.view.catalog.get(id).cloned() else { continue };
        let mut sequence = (*sequence).clone();
        if let RelationKind::Sequence(definition) = &mut sequence.kind {
            definition.owner = definition.owner.map(|(_, column)| (to, column));
        }
        put_changed(writes, sequence)?;
        let key = keys::row(id, &[]);
        if let (true, Some(stored)) = (restart, writes.view.get(&key).map_err(store_error)?) {
            writes.reads.point(key.clone());
            let replaces = chronos_proto::codec::digest(&key, &stored);
            writes.view.write(key, None);
            let op = Op::DeleteRow { relation: id, key: Default::default(), replaces, indexes: Vec::new() };
            writes.push(op, 64)?;
        }
    }
    for view in readers(&writes.view.catalog, from) {
        let mut view = (*view).clone();
        if let RelationKind::View(definition) = &mut view.kind {
            definition.reads.iter_mut().filter(|id| **id == from).for_each(|id| *id = to);
        }
        put_changed(writes, view)?;
    }
    Ok(())
}
